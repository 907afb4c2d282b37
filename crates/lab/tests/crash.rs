//! Crash and hang: the supervisor hands over at once, and where it is dead too, the fence holds.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what is wrong")]

mod support;

use buoy_lab::agent;
use buoy_lab::peer::Peer;
use buoy_lab::probe::Window;
use buoy_lab::probe::arp::ArpObserver;
use buoy_lab::process::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};
use support::{Cluster, LOCAL, MS, SOON, VIP, prepared, watch};

/// The lease here: what happens much sooner was not waited for.
const LEASE: Duration = Duration::from_secs(2);
/// A takeover that did not wait for the lease, on a machine that stands still now and then.
const AT_ONCE: Duration = Duration::from_millis(700);

/// Three nodes with long leases, one of which owns the VIP.
fn cluster(test: &str) -> Option<Cluster> {
    let mut cluster = prepared(test, 3, LOCAL)?;
    let head = agent::config_head(&cluster.segment.topology);
    let config = format!("{head}lease = \"2s\"\nlease_max = \"2s\"\n{LOCAL}");
    for node in cluster.buoy.nodes() {
        cluster.buoy.write_config(node, &config).unwrap();
    }
    cluster.buoy.start_all(&cluster.segment).unwrap();
    for node in cluster.buoy.nodes() {
        cluster.wait_owned(node);
    }
    Some(cluster)
}

/// The process that watches the agent of a node.
fn supervisor(cluster: &mut Cluster, node: &str) -> Pid {
    let agent = cluster.buoy.process(node).unwrap().pid();
    let mut found = None;
    wait_until(SOON, "a supervisor", || {
        found = children(agent).into_iter().find(|child| {
            let line = std::fs::read_to_string(format!("/proc/{child}/cmdline"));
            line.is_ok_and(|line| line.split('\0').any(|word| word == "supervise"))
        });
        Ok(found.is_some())
    })
    .unwrap();
    Pid::from_raw(found.unwrap())
}

fn children(pid: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let lists = tasks.into_iter().flatten().flatten();
    let lists = lists.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|l| l.split_whitespace().map(|c| c.parse().unwrap()).collect::<Vec<_>>()).collect()
}

fn until_now(from: Instant) -> Window {
    Window { from, to: Instant::now() }
}

/// Lets something happen to the owner; how long it took until another node answered.
fn takeover(
    cluster: &mut Cluster,
    observer: &ArpObserver,
    fault: impl FnOnce(&mut Cluster, &str),
) -> (String, Duration, Instant) {
    let owner = cluster.wait_answerer(observer, VIP);
    // Not before every node knows every other, with a goodbye for it.
    for node in cluster.buoy.nodes() {
        let all = |status: &buoy_api::ClusterStatus| status.nodes.iter().all(|node| node.alive);
        cluster.buoy.wait_status(node, SOON, "all nodes", all).unwrap();
    }
    let mac = cluster.segment.host(&owner).unwrap().mac();
    let from = Instant::now();
    fault(cluster, &owner);
    let mut at = None;
    wait_until(SOON, "another answerer", || {
        let changes = observer.changes(VIP, until_now(from), Some(mac));
        at = changes.into_iter().find(|change| change.mac != mac).map(|change| change.at);
        Ok(at.is_some())
    })
    .unwrap();
    (owner, at.unwrap() - from, from)
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

/// Ten times the same death of an owner; then it is started again.
fn deaths(test: &str, signal: Signal) {
    let Some(mut cluster) = cluster(test) else { return };
    let observer = cluster.observer(&[VIP]);
    let (mut took, mut stall) = (Vec::new(), Duration::ZERO);
    for _ in 0..10 {
        let (owner, time, from) = takeover(&mut cluster, &observer, |cluster, owner| {
            cluster.buoy.process(owner).unwrap().signal(signal).unwrap();
        });
        took.push(time);
        cluster.buoy.process(&owner).unwrap().wait_end(SOON).unwrap();
        watch(&observer, 200);
        stall = stall.max(observer.stall(until_now(from)));
        assert_eq!(observer.answered_by_two(VIP, until_now(from)), []);
        assert!(!cluster.has_address(&owner, "10.77.0.100"), "it is still on {owner}");
        cluster.buoy.start(&cluster.segment, &owner).unwrap();
    }
    eprintln!("{signal}: median {:?} of {took:?}; longest stall {stall:?}", median(took.clone()));
    assert!(median(took.clone()) < AT_ONCE, "{took:?} with a stall of {stall:?}");
}

#[test]
fn a_crashed_agent_is_succeeded_long_before_its_lease_is_over() {
    deaths("a_crashed_agent_is_succeeded_long_before_its_lease_is_over", Signal::SIGKILL);
}

#[test]
fn an_aborted_agent_is_succeeded_long_before_its_lease_is_over() {
    deaths("an_aborted_agent_is_succeeded_long_before_its_lease_is_over", Signal::SIGABRT);
}
