//! The page of real agents in a real browser: clicked through, and up to date when an owner dies.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what is wrong")]

mod support;

use buoy_lab::fault::Fault;
use buoy_lab::process::wait_until;
use buoy_lab::skip;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use support::{LOCAL, SERVICES, SOON, cluster};

/// A program of this test, ended with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Why there is no browser here.
fn missing(web: &Path) -> Option<String> {
    let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
    let node = Command::new("node").arg("--version").output();
    if !node.is_ok_and(|output| output.status.success()) {
        return Some("node is not installed".into());
    }
    if !Path::new(&chromium).exists() {
        return Some(format!("{chromium} is not installed"));
    }
    let driver = web.join("node_modules/playwright-core");
    (!driver.exists()).then(|| "run scripts/install-deps (npm ci in crates/page/web)".into())
}

#[test]
fn the_page_shows_and_orders_what_the_commands_do() {
    let test = "the_page_shows_and_orders_what_the_commands_do";
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../page/web");
    if let Some(reason) = missing(&web) {
        return skip(test, &reason);
    }
    let pool =
        "[[pool]]\nname = \"more\"\naddresses = \"10.77.0.150-159/24\"\nauto_assign = true\n";
    let vip =
        format!("{pool}{LOCAL}prefer = [\"n1\", \"n2\", \"n3\"]\nfailback = \"now\"\n{SERVICES}");
    let Some(mut cluster) = cluster(test, 3, &vip) else { return };
    let at_home = |status: &buoy_api::ClusterStatus| {
        status.vips.iter().all(|vip| vip.mine)
            && status.nodes.iter().all(|node| node.votes_in_ms.is_none())
    };
    cluster.buoy.wait_status("n1", SOON, "the VIP on n1", at_home).unwrap();

    let mut command = Command::new(cluster.buoy.program());
    command.args(["page", "--listen", "127.0.0.1:0", "--socket"]).arg(cluster.buoy.socket("n1"));
    let mut page = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut said = String::new();
    BufReader::new(page.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let url = said.split_whitespace().find(|word| word.starts_with("http://")).unwrap();

    let mut command = Command::new("node");
    command.arg(web.join("test/flows.mjs")).arg(url).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut browser = Running(command.spawn().unwrap());
    let mut orders = browser.0.stdin.take().unwrap();
    let mut last = String::new();
    for line in BufReader::new(browser.0.stdout.take().unwrap()).lines() {
        last = line.unwrap();
        eprintln!("{last}");
        if let Some(node) = last.strip_prefix("KILL ") {
            let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
            Fault::PowerOff.inject(&cluster.segment, &mut cluster.buoy, node).unwrap();
            writeln!(orders, "{at}").unwrap();
        }
    }
    assert_eq!(last, "ENDED WELL", "the lines before say why");
    wait_until(SOON, "the browser to end", || Ok(browser.0.try_wait().unwrap().is_some())).unwrap();
}
