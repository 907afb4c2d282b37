//! Planned moves: nothing is lost, an order is kept, and what toggles does not drag addresses along.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::{HoldRequest, MoveRequest, ReleaseRequest};
use buoy_lab::fault::Fault;
use buoy_lab::peer::Peer;
use buoy_lab::probe::stall::StallMeter;
use buoy_lab::probe::sweep::Sweep;
use buoy_lab::probe::udp::UdpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::LOCAL_PORT;
use buoy_lab::skip;
use buoy_lab::topology::{Topology, wide_ipv4};
use std::time::{Duration, Instant};
use support::{LEASE, LOCAL, MS, SOON, VIP, cluster, running, since, wait_event, watch};

/// Datagrams of a stream of one a millisecond that a planned move may cost.
const LOST_MAX: usize = 3;
const PREFERRED: &str = "prefer = [\"n1\"]\nfailback = \"now\"\n";

#[test]
fn a_drain_of_a_local_address_loses_nothing_of_a_stream() {
    let test = "a_drain_of_a_local_address_loses_nothing_of_a_stream";
    let Some(mut cluster) = cluster(test, 3, LOCAL) else { return };
    let observer = cluster.observer(&[VIP]);
    let meter = StallMeter::start().unwrap();
    let client = cluster.segment.inside("client").unwrap();
    let stream = UdpProbe::start(client, (VIP, LOCAL_PORT).into()).unwrap();
    let mut stalls = Vec::new();
    for _ in 0..3 {
        let owner = cluster.wait_answerer(&observer, VIP);
        wait_until(SOON, "an undisturbed stream", || Ok(100 * MS < stream.well_for())).unwrap();
        let from = Instant::now();
        cluster.buoy.drain(&owner, true).unwrap();
        cluster.wait_other(&observer, VIP, &owner);
        watch(&observer, 300);
        let lost = stream.figures(since(from)).lost;
        let stall = meter.worst(since(from));
        cluster.buoy.drain(&owner, false).unwrap();
        if lost <= LOST_MAX {
            return;
        }
        assert!(2 * MS < stall, "{lost} datagrams lost on a machine that did not stand still");
        stalls.push(stall);
    }
    skip(test, &format!("the machine stood still in every attempt, for {stalls:?}"));
}

#[test]
fn an_address_stays_where_an_operator_moved_it_until_it_is_released() {
    let test = "an_address_stays_where_an_operator_moved_it_until_it_is_released";
    let vip = format!("{LOCAL}{PREFERRED}");
    let Some(cluster) = cluster(test, 3, &vip) else { return };
    let observer = cluster.observer(&[VIP]);
    cluster.wait_at(&observer, "n1");
    let reason = Some("a test".to_owned());
    let order = MoveRequest { to: "n3".to_owned(), reason: reason.clone() };
    cluster.buoy.client("n1").unwrap().move_vip("web", &order).unwrap();
    cluster.wait_at(&observer, "n3");
    let window = watch(&observer, 1500);
    assert_eq!(observer.takeovers(VIP, window), 0, "it was moved, and left again by itself");

    let n3 = cluster.buoy.client("n3").unwrap();
    n3.release("web", &ReleaseRequest { reason: reason.clone() }).unwrap();
    cluster.wait_at(&observer, "n1");
    cluster.buoy.client("n1").unwrap().hold("web", &HoldRequest { reason, for_ms: None }).unwrap();
    wait_event(&cluster, "n1", "held");
}

#[test]
fn a_held_address_still_leaves_a_dead_node() {
    let test = "a_held_address_still_leaves_a_dead_node";
    let Some(mut cluster) = cluster(test, 3, LOCAL) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let hold = HoldRequest { reason: Some("a test".to_owned()), for_ms: None };
    cluster.buoy.client(&owner).unwrap().hold("web", &hold).unwrap();
    wait_event(&cluster, &owner, "held");
    Fault::PowerOff.inject(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
    cluster.wait_other(&observer, VIP, &owner);
}

#[test]
fn a_link_that_toggles_moves_its_address_twice_at_most() {
    let test = "a_link_that_toggles_moves_its_address_twice_at_most";
    let vip = format!("{LOCAL}{PREFERRED}");
    let Some(cluster) = cluster(test, 3, &vip) else { return };
    let observer = cluster.observer(&[VIP]);
    cluster.wait_at(&observer, "n1");
    let from = Instant::now();
    for _ in 0..10 {
        for up in [false, true] {
            cluster.segment.switch.set_carrier("n1", up).unwrap();
            watch(&observer, 1000);
        }
    }
    let takeovers = observer.takeovers(VIP, since(from));
    assert!((1..=2).contains(&takeovers), "{takeovers} takeovers");
}

#[test]
fn a_thousand_addresses_come_up_move_with_a_drain_and_all_answer() {
    let test = "a_thousand_addresses_come_up_move_with_a_drain_and_all_answer";
    let all: Vec<_> = (0..1000).map(wide_ipv4).collect();
    let (first, last) = (all[0], all[999]);
    let vips = format!(
        "[[pool]]\nname = \"many\"\naddresses = [\"{first}-{last}/16\"]\nprefer = [\"n1\"]\n"
    );
    let topology = Topology::with_nodes(3).with_wide_subnet();
    let Some(mut cluster) = running(test, topology, LEASE, &vips) else { return };
    let inside = cluster.segment.inside("observer").unwrap();
    let all_answer = |sweep: &Sweep| {
        let done =
            wait_until(2 * SOON, "a thousand answers", || Ok(sweep.answered().len() == 1000));
        assert!(done.is_ok(), "{} of 1000 answer", sweep.answered().len());
    };
    let sweep = Sweep::start(inside, &all, [0; 6]).unwrap();
    all_answer(&sweep);
    drop(sweep);

    let old = cluster.segment.host("n1").unwrap().mac();
    let inside = cluster.segment.inside("observer").unwrap();
    let sweep = Sweep::start(inside, &all, old).unwrap();
    let from = Instant::now();
    cluster.buoy.drain("n1", true).unwrap();
    all_answer(&sweep);
    let last = sweep.answered().into_iter().max().map(|at| at - from).unwrap_or_default();
    assert!(last < Duration::from_secs(10), "the last answered after {last:?}");
}
