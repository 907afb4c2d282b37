//! Ownership follows the application: what a check of a node says decides who serves.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::peer::Peer;
use buoy_lab::probe::Window;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::{Cluster, LOCAL, SOON, VIP, config_head, prepared, watch};

/// Fall 2 at every 100 ms with a timeout of 100 ms: said after 300 ms, and a little for the machine.
const SAID_MAX: Duration = Duration::from_millis(300 + 700);
const RHYTHM: &str = "every = \"100ms\", timeout = \"100ms\", fall = 2, rise = 2";

/// A running cluster whose file says of the VIP what `check` makes of each node's name, in which `n1` is
/// the owner.
fn checked(test: &str, nodes: usize, check: impl Fn(&Cluster, &str) -> String) -> Option<Cluster> {
    let mut cluster = prepared(test, nodes, "")?;
    let head = config_head(&cluster.segment.topology);
    for node in cluster.buoy.nodes() {
        let check = check(&cluster, node);
        let text = format!("{head}{LOCAL}prefer = [\"n1\"]\nfailback = \"now\"\n{check}\n");
        cluster.buoy.write_config(node, &text).unwrap();
    }
    cluster.buoy.start_all(&cluster.segment).unwrap();
    for node in cluster.buoy.nodes() {
        let owned = |status: &buoy_api::ClusterStatus| {
            status.vips.iter().all(|vip| vip.owner.as_deref() == Some("n1"))
        };
        cluster.buoy.wait_status(node, SOON, "n1 to own the VIP", owned).unwrap();
    }
    Some(cluster)
}

fn standby(cluster: &Cluster, node: &str) -> PathBuf {
    cluster.segment.file(&format!("{node}.standby"))
}

fn no_file(cluster: &Cluster, node: &str) -> String {
    let path = standby(cluster, node);
    format!("check = {{ name = \"standby\", no_file = \"{}\", {RHYTHM} }}", path.display())
}

#[test]
fn ownership_follows_a_file_and_comes_back() {
    let test = "ownership_follows_a_file_and_comes_back";
    let Some(cluster) = checked(test, 3, no_file) else { return };
    let observer = cluster.observer(&[VIP]);
    assert_eq!(cluster.wait_answerer(&observer, VIP), "n1");
    let began = Instant::now();
    fs::write(standby(&cluster, "n1"), "").unwrap();
    let other = cluster.wait_other(&observer, VIP, "n1");
    assert!(began.elapsed() < SAID_MAX, "it took {:?}", began.elapsed());
    let why = cluster.buoy.client("n1").unwrap().why("web").unwrap();
    assert!(why.answer.contains(&other), "{}", why.answer);
    fs::remove_file(standby(&cluster, "n1")).unwrap();
    // Within a while that is not this test's: what flaps is held back.
    assert_eq!(cluster.wait_other(&observer, VIP, &other), "n1");
    let all = Window { from: began, to: Instant::now() };
    assert_eq!(observer.answered_by_two(VIP, all), [], "two answered");
}

#[test]
fn a_check_that_fails_everywhere_moves_nothing() {
    let test = "a_check_that_fails_everywhere_moves_nothing";
    let Some(cluster) = checked(test, 3, no_file) else { return };
    let observer = cluster.observer(&[VIP]);
    assert_eq!(cluster.wait_answerer(&observer, VIP), "n1");
    // The owner last, so that there is nobody better when it fails.
    for node in ["n3", "n2", "n1"] {
        fs::write(standby(&cluster, node), "").unwrap();
        let fails = |status: &buoy_api::ClusterStatus| {
            let mut checks = status.vips.iter().flat_map(|vip| &vip.checks);
            checks.any(|check| check.state == "fail" && check.reason.ends_with("is there"))
        };
        cluster.buoy.wait_status(node, SOON, "its own check to fail", fails).unwrap();
    }
    let window = watch(&observer, 200);
    assert_eq!(observer.takeovers(VIP, window), 0);
    assert_eq!(cluster.wait_answerer(&observer, VIP), "n1");
}

#[test]
fn a_host_that_does_not_reach_the_gateway_gives_its_address_away() {
    let test = "a_host_that_does_not_reach_the_gateway_gives_its_address_away";
    // The client stands for the router: it answers ARP and neighbour discovery like any host.
    let gateway = |_: &Cluster, _: &str| {
        format!("check = {{ name = \"router\", gateway = \"10.77.0.50\", {RHYTHM} }}")
    };
    let Some(cluster) = checked(test, 3, gateway) else { return };
    let observer = cluster.observer(&[VIP]);
    assert_eq!(cluster.wait_answerer(&observer, VIP), "n1");
    let cut = Instant::now();
    cluster.segment.switch.set_apart("n1", "client", true).unwrap();
    let other = cluster.wait_other(&observer, VIP, "n1");
    assert!(cut.elapsed() < SAID_MAX, "it took {:?}", cut.elapsed());
    cluster.segment.switch.set_apart("n1", "client", false).unwrap();
    assert_eq!(cluster.wait_other(&observer, VIP, &other), "n1");
}

#[test]
fn a_reload_moves_nothing_while_its_checks_pass() {
    let test = "a_reload_moves_nothing_while_its_checks_pass";
    let Some(mut cluster) = checked(test, 3, no_file) else { return };
    let observer = cluster.observer(&[VIP]);
    assert_eq!(cluster.wait_answerer(&observer, VIP), "n1");
    // A reload with another rhythm: the check is not unanswered for a moment, and nothing moves.
    let text = fs::read_to_string(cluster.buoy.config("n1")).unwrap();
    for node in cluster.buoy.nodes() {
        let text = text.replace("n1.standby", &format!("{node}.standby"));
        let slower = text.replace("every = \"100ms\"", "every = \"200ms\"");
        cluster.buoy.write_config(node, &slower).unwrap();
        cluster.buoy.reload(node).unwrap();
    }
    let generation = |status: &buoy_api::ClusterStatus| status.generation == 2;
    for node in cluster.buoy.nodes() {
        cluster.buoy.wait_status(node, SOON, "the new file", generation).unwrap();
    }
    let window = watch(&observer, 200);
    assert_eq!(observer.takeovers(VIP, window), 0);
    assert_eq!(cluster.wait_answerer(&observer, VIP), "n1");
}
