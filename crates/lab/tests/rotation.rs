//! The cluster gets another key by commands on its hosts, under a VIP that nobody misses, with real agents.

mod support;

use buoy_lab::peer::Peer as _;
use buoy_lab::probe::Window;
use buoy_lab::probe::udp::UdpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::ECHO_PORT;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;
use support::{Cluster, LOCAL, MS, SERVICES, SOON, VIP, cluster};

/// What `buoy key` says on the host of a node, and whether it is well.
fn key(cluster: &Cluster, node: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(cluster.buoy.program());
    command.arg("key").args(arguments).arg("--socket").arg(cluster.buoy.socket(node));
    let output = command.stdin(Stdio::null()).output().expect("buoy runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Where a host has the new key.
fn new_key(cluster: &Cluster, node: &str) -> PathBuf {
    cluster.buoy.config(node).with_file_name("new.key")
}

/// One step of one host, or all of them with `--wait`.
fn rotate(cluster: &Cluster, node: &str, more: &[&str]) -> (bool, String) {
    let path = new_key(cluster, node).display().to_string();
    key(cluster, node, &[&["rotate", path.as_str()], more].concat())
}

/// How many datagrams of leases and of the exchange a node did not believe, for a reason that begins so.
fn rejected(cluster: &Cluster, node: &str, reason: &str) -> u64 {
    let counters = cluster.buoy.status(node).expect("it answers").loop_.counters;
    let prefix = format!("rejected_{reason}");
    let is_one = |name: &str| name.starts_with(&prefix) || name == "exchange_rejected";
    counters.iter().filter(|(name, _)| is_one(name)).map(|(_, count)| count).sum()
}

fn secret(cluster: &Cluster, node: &str) -> String {
    let text = std::fs::read_to_string(cluster.buoy.config(node)).expect("a configuration");
    text.lines().find(|line| line.starts_with("secret")).unwrap_or_default().to_owned()
}

/// Makes the new key on one host, and copies it to all.
fn distribute(cluster: &Cluster) {
    let first = new_key(cluster, "n1");
    let made = Command::new(cluster.buoy.program()).args(["key", "new"]).arg(&first).output();
    assert!(made.expect("buoy runs").status.success());
    for node in ["n2", "n3"] {
        std::fs::copy(&first, new_key(cluster, node)).expect("the key is copied");
    }
    let mode = std::fs::metadata(new_key(cluster, "n3")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn three_hosts_get_a_new_key_and_no_datagram_is_refused_until_the_old_key_is() {
    let test = "three_hosts_get_a_new_key_and_no_datagram_is_refused_until_the_old_key_is";
    let Some(mut cluster) = cluster(test, 3, &format!("{LOCAL}{SERVICES}")) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let client = cluster.segment.inside("client").expect("it is there");
    let probe = UdpProbe::start(client, (VIP, ECHO_PORT).into()).expect("a stream");
    wait_until(SOON, "a stream", || Ok(300 * MS < probe.well_for())).expect("it is answered");
    let nodes = cluster.buoy.nodes();
    let before: Vec<u64> = nodes.iter().map(|node| rejected(&cluster, node, "")).collect();
    let from = Instant::now();
    distribute(&cluster);

    // By hand: one step, and no second one before the others have done the first.
    let (well, said) = rotate(&cluster, "n1", &["--dry-run"]);
    assert!(well && said.contains("next: run this to accept the new key"), "{said}");
    assert_eq!(secret(&cluster, "n1"), "secret = \"file:cluster.key\"");
    let (well, said) = rotate(&cluster, "n1", &[]);
    assert!(well && said.contains("step 1 of 3 is done: n1 accepts"), "{said}");
    assert_eq!(secret(&cluster, "n1"), "secret = [\"file:cluster.key\", \"file:new.key\"]");
    let (well, said) = rotate(&cluster, "n1", &[]);
    assert!(!well && said.contains("n2 does not accept") && said.contains("n3 does not"), "{said}");
    let path = new_key(&cluster, "n2").display().to_string();
    wait_until(SOON, "n2 to tell how far each is", || {
        let (well, said) = key(&cluster, "n2", &["status", "--new", &path]);
        let count = |what: &str| said.matches(what).count();
        Ok(well && count("1 of 3: accepts") == 1 && count("0 of 3: old key alone") == 2)
    })
    .expect("it is told");

    // All the rest at once: each host waits for the others before each step.
    let all: Vec<(bool, String)> = std::thread::scope(|scope| {
        let run = |node| {
            scope.spawn({
                let cluster = &cluster;
                move || rotate(cluster, node, &["--wait"])
            })
        };
        let running: Vec<_> = nodes.iter().copied().map(run).collect();
        running.into_iter().map(|run| run.join().expect("it ends")).collect()
    });
    for (node, (well, said)) in nodes.iter().zip(&all) {
        assert!(well, "{node}: {said}");
        assert!(said.contains(&format!("step 3 of 3 is done: {node} accepts")), "{said}");
        assert_eq!(secret(&cluster, node), "secret = \"file:new.key\"");
    }
    wait_until(SOON, "all to have one key", || {
        let (well, said) = key(&cluster, "n2", &["status", "--new", &path]);
        let alone = said.matches("3 of 3: new key alone").count();
        Ok(well && alone == 3 && said.contains("all nodes have one key, and sign with it"))
    })
    .expect("they have");
    let after: Vec<u64> = nodes.iter().map(|node| rejected(&cluster, node, "")).collect();
    assert_eq!(before, after, "no datagram was refused");
    let window = Window { from, to: Instant::now() - 100 * MS };
    let mac = cluster.segment.host(&owner).expect("it is there").mac();
    assert_eq!(observer.changes(VIP, window, Some(mac)), [], "the owner stayed");
    let figures = probe.figures(window);
    // On a busy machine a stream may miss some milliseconds; a takeover would cost it the lease of 400 ms.
    assert!(figures.outage < 100 * MS, "{figures:?}");

    // Who still has the old key is a stranger.
    let third = nodes.iter().copied().find(|node| **node != *owner).expect("there are three");
    let text = std::fs::read_to_string(cluster.buoy.config(third)).expect("a configuration");
    let old = text.replace("file:new.key", "file:cluster.key");
    cluster.buoy.write_config(third, &old).expect("it is written");
    cluster.buoy.reload(third).expect("it runs");
    wait_until(SOON, "the old key to be refused", || {
        Ok(0 < rejected(&cluster, &owner, "unknown_key"))
    })
    .expect("it is refused");
    // What others said is asked anew once a second.
    wait_until(SOON, "the owner to say that all is not well with the keys", || {
        Ok(!key(&cluster, &owner, &["status"]).0)
    })
    .expect("it says so");
}
