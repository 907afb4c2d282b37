//! Crash and hang: the supervisor hands over at once, and where it is dead too, the fence holds.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what is wrong")]

mod support;

use buoy_lab::agent;
use buoy_lab::peer::Peer;
use buoy_lab::probe::Window;
use buoy_lab::probe::arp::ArpObserver;
use buoy_lab::process::wait_until;
use nix::sys::signal::{Signal, kill};
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Cluster, LOCAL, MS, SOON, VIP, prepared, supervisor, watch};

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

/// So many times the same death of an owner; then it is started again.
fn deaths(test: &str, signal: Signal, times: usize) {
    let Some(mut cluster) = cluster(test) else { return };
    let observer = cluster.observer(&[VIP]);
    let (mut took, mut stall) = (Vec::new(), Duration::ZERO);
    for _ in 0..times {
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
        // A voter that has just started promises nothing for the longest term.
        watch(&observer, 2_700);
    }
    eprintln!("{signal}: median {:?} of {took:?}; longest stall {stall:?}", median(took.clone()));
    assert!(median(took.clone()) < AT_ONCE, "{took:?} with a stall of {stall:?}");
}

#[test]
fn a_crashed_agent_is_succeeded_long_before_its_lease_is_over() {
    deaths("a_crashed_agent_is_succeeded_long_before_its_lease_is_over", Signal::SIGKILL, 10);
}

#[test]
fn an_aborted_agent_is_succeeded_long_before_its_lease_is_over() {
    deaths("an_aborted_agent_is_succeeded_long_before_its_lease_is_over", Signal::SIGABRT, 3);
}

/// Who watches the watchman: killed again and again, it is there again, and does its duty.
#[test]
fn a_supervisor_that_dies_is_replaced_and_the_new_one_does_its_duty() {
    let test = "a_supervisor_that_dies_is_replaced_and_the_new_one_does_its_duty";
    let Some(mut cluster) = cluster(test) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let from = Instant::now();
    for _ in 0..3 {
        let first = supervisor(&mut cluster, &owner);
        kill(first, Signal::SIGKILL).unwrap();
        wait_until(SOON, "another supervisor", || Ok(supervisor(&mut cluster, &owner) != first))
            .unwrap();
    }
    let told = |status: &buoy_api::ClusterStatus| {
        status.problems.iter().any(|problem| problem.contains("supervisor"))
    };
    cluster.buoy.wait_status(&owner, SOON, "a word about the supervisor", told).unwrap();
    assert_eq!(cluster.wait_answerer(&observer, VIP), owner, "its death must not move the VIP");
    watch(&observer, 2_700);
    let (_, time, _) = takeover(&mut cluster, &observer, |cluster, owner| {
        cluster.buoy.process(owner).unwrap().signal(Signal::SIGKILL).unwrap();
    });
    assert!(time < AT_ONCE, "{time:?}");
    assert_eq!(observer.answered_by_two(VIP, until_now(from)), []);
}

#[test]
fn a_hung_agent_is_killed_by_its_supervisor_and_succeeded_before_its_lease_is_over() {
    let test = "a_hung_agent_is_killed_by_its_supervisor_and_succeeded_before_its_lease_is_over";
    let Some(mut cluster) = cluster(test) else { return };
    let observer = cluster.observer(&[VIP]);
    watch(&observer, 2_700);
    let (owner, time, from) = takeover(&mut cluster, &observer, |cluster, owner| {
        cluster.buoy.process(owner).unwrap().signal(Signal::SIGSTOP).unwrap();
    });
    eprintln!("SIGSTOP: {time:?}; longest stall {:?}", observer.stall(until_now(from)));
    cluster.buoy.process(&owner).unwrap().wait_end(SOON).unwrap();
    assert!(time < LEASE - 200 * MS, "{time:?}");
    assert_eq!(observer.answered_by_two(VIP, until_now(from)), []);
    assert!(!cluster.has_address(&owner, "10.77.0.100"));
}

#[test]
fn when_the_supervisor_is_dead_too_the_lease_and_the_gate_hold() {
    let test = "when_the_supervisor_is_dead_too_the_lease_and_the_gate_hold";
    let Some(mut cluster) = cluster(test) else { return };
    let observer = cluster.observer(&[VIP]);
    watch(&observer, 2_700);
    let (_, time, from) = takeover(&mut cluster, &observer, |cluster, owner| {
        let watchman = supervisor(cluster, owner);
        kill(watchman, Signal::SIGSTOP).unwrap();
        cluster.buoy.process(owner).unwrap().signal(Signal::SIGKILL).unwrap();
        kill(watchman, Signal::SIGKILL).unwrap();
    });
    eprintln!("SIGKILL of both: {time:?}");
    assert!(LEASE - 300 * MS < time, "only the lease could be over: {time:?}");
    watch(&observer, 500);
    assert_eq!(observer.answered_by_two(VIP, until_now(from)), []);
}

/// The whole host stands still for five seconds, and goes on: whoever wakes looks at its lease first.
#[test]
fn a_host_that_stood_still_kills_nobody_and_speaks_for_nothing() {
    let test = "a_host_that_stood_still_kills_nobody_and_speaks_for_nothing";
    let Some(mut cluster) = cluster(test) else { return };
    let observer = cluster.observer(&[VIP]);
    watch(&observer, 2_700);
    let (owner, _, from) = takeover(&mut cluster, &observer, |cluster, owner| {
        let watchman = supervisor(cluster, owner);
        cluster.buoy.process(owner).unwrap().signal(Signal::SIGSTOP).unwrap();
        kill(watchman, Signal::SIGSTOP).unwrap();
    });
    let watchman = supervisor(&mut cluster, &owner);
    watch(&observer, 3_000);
    kill(watchman, Signal::SIGCONT).unwrap();
    cluster.buoy.process(&owner).unwrap().signal(Signal::SIGCONT).unwrap();
    watch(&observer, 1_000);
    assert!(cluster.buoy.process(&owner).unwrap().is_running(), "it was not hung");
    assert_eq!(observer.answered_by_two(VIP, until_now(from)), []);
}

/// For a host that Buoy leaves: an agent that was killed has taken nothing away.
#[test]
fn what_a_killed_agent_has_left_is_taken_away_by_one_command() {
    let test = "what_a_killed_agent_has_left_is_taken_away_by_one_command";
    let vips = format!(
        "{LOCAL}[[vip.service]]\nport = \"81/tcp\"\ncheck = false\nbackends = [\"10.77.0.21:80\"]\n"
    );
    let Some(mut cluster) = prepared(test, 3, &vips) else { return };
    cluster.buoy.start_all(&cluster.segment).unwrap();
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let inside = |cluster: &Cluster, command: &mut Command| {
        let done = cluster.segment.inside(&owner).unwrap().enter(|| command.output());
        let done = done.unwrap().unwrap();
        (done.status.success(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    };
    let left = |cluster: &Cluster| {
        let (_, filters) =
            inside(cluster, Command::new("tc").args("filter show dev eth0 ingress".split(' ')));
        let (_, tables) = inside(cluster, Command::new("nft").args(["list", "tables"]));
        (
            filters.contains("buoy"),
            tables.contains("buoy"),
            cluster.has_address(&owner, "10.77.0.100"),
        )
    };
    wait_until(SOON, "rules", || Ok(left(&cluster).1)).unwrap();
    let watchman = supervisor(&mut cluster, &owner);
    kill(watchman, Signal::SIGSTOP).unwrap();
    let agent = cluster.buoy.process(&owner).unwrap();
    agent.signal(Signal::SIGKILL).unwrap();
    agent.wait_end(SOON).unwrap();
    kill(watchman, Signal::SIGKILL).unwrap();
    assert_eq!(left(&cluster), (true, true, true), "they are there for a successor");

    let detach = |cluster: &Cluster| {
        let socket = cluster.buoy.socket(&owner);
        let mut command = Command::new(cluster.buoy.program());
        inside(cluster, command.args(["xdp", "detach", "--socket"]).arg(socket))
    };
    let (done, said) = detach(&cluster);
    assert!(done, "{said}");
    for what in ["10.77.0.100/24", "the gate of eth0", "nftables table inet buoy"] {
        assert!(said.contains(what), "{what}: {said}");
    }
    assert_eq!(left(&cluster), (false, false, false), "{said}");
    let (_, places) = inside(&cluster, Command::new("tc").args("qdisc show dev eth0".split(' ')));
    assert!(!places.contains("clsact"), "{places}");
    let (done, said) = detach(&cluster);
    assert!(done && said.contains("nothing of Buoy is in the kernel"), "{said}");
}

/// Where BPF is not permitted, nobody is told before the address is gone.
#[test]
fn without_a_gate_a_crash_is_told_when_the_address_is_gone() {
    let test = "without_a_gate_a_crash_is_told_when_the_address_is_gone";
    let Some(mut cluster) = prepared(test, 3, LOCAL) else { return };
    let without = ["setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"];
    cluster.buoy.through = without.map(str::to_owned).to_vec();
    cluster.buoy.start_all(&cluster.segment).unwrap();
    for node in cluster.buoy.nodes() {
        cluster.wait_owned(node);
        let status = cluster.buoy.status(node).unwrap();
        assert!(status.defences.iter().any(|line| line.starts_with("NO gate")), "{status:?}");
    }
    let observer = cluster.observer(&[VIP]);
    watch(&observer, 2_700);
    let (owner, time, from) = takeover(&mut cluster, &observer, |cluster, owner| {
        cluster.buoy.process(owner).unwrap().signal(Signal::SIGKILL).unwrap();
    });
    eprintln!("SIGKILL without a gate: {time:?}; stall {:?}", observer.stall(until_now(from)));
    assert!(time < AT_ONCE, "{time:?}");
    watch(&observer, 500);
    assert!(!cluster.has_address(&owner, "10.77.0.100"));
    assert_eq!(observer.answered_by_two(VIP, until_now(from)), []);
}
