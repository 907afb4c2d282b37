//! What must not move an address, with the timing as it comes: loss, and processors that others keep busy.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::hogs::{Hogs, Niceness};
use buoy_lab::probe::stall::StallMeter;
use buoy_lab::skip;
use buoy_lab::topology::Topology;
use std::time::Duration;
use support::{Cluster, LOCAL, VIP, running, watch};

/// For how long nothing must happen; the benchmark takes ten minutes.
const QUESTIONS: usize = 20_000;
/// When even the first thread of the machine came so late, nobody could keep a lease.
const EXCUSE: Duration = Duration::from_millis(30);

/// Disturbs a cluster that has its defaults; no takeover must come of it.
fn nothing_moves(test: &str, disturb: impl Fn(&Cluster) -> Option<Hogs>, calm: impl Fn(&Cluster)) {
    let Some(cluster) = running(test, Topology::with_nodes(3), "", LOCAL) else { return };
    let meter = StallMeter::start().unwrap();
    let observer = cluster.observer(&[VIP]);
    let mut stalls = Vec::new();
    for _ in 0..2 {
        cluster.wait_answerer(&observer, VIP);
        let hogs = disturb(&cluster);
        let window = watch(&observer, QUESTIONS);
        drop(hogs);
        calm(&cluster);
        assert_eq!(observer.answered_by_two(VIP, window), []);
        let takeovers = observer.takeovers(VIP, window);
        if takeovers == 0 {
            return;
        }
        let stall = meter.worst(window);
        assert!(EXCUSE <= stall, "{takeovers} takeovers; the machine stood still for {stall:?}");
        stalls.push(stall);
    }
    skip(
        test,
        &format!("the machine itself stood still in every attempt, for {stalls:?} at worst"),
    );
}

#[test]
fn a_tenth_of_all_datagrams_lost_moves_no_address() {
    let lose = |percent| move |cluster: &Cluster| cluster.segment.switch.set_loss(percent).unwrap();
    let disturb = move |cluster: &Cluster| {
        lose(10)(cluster);
        None
    };
    nothing_moves("a_tenth_of_all_datagrams_lost_moves_no_address", disturb, lose(0));
}

#[test]
fn busy_processors_move_no_address() {
    let disturb = |cluster: &Cluster| {
        let inside = cluster.segment.switch.namespace();
        let log = cluster.segment.file("hogs.log");
        let longest = Duration::from_secs(120);
        Some(Hogs::start(inside, 4, Niceness::Ordinary, longest, &log).unwrap())
    };
    nothing_moves("busy_processors_move_no_address", disturb, |_| {});
}
