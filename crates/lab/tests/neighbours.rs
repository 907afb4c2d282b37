//! IPv6: never do two answer a neighbour solicitation, judged by an observer that is judged first.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::fault::Fault;
use buoy_lab::probe::ndp::{BEAT, NdpObserver};
use buoy_lab::process::wait_until;
use buoy_lab::segment::Segment;
use buoy_lab::topology::{Topology, ipv6};
use buoy_lab::{privilege, skip};
use std::time::Instant;
use support::{SOON, cluster, since};

const VIP6: &str = "[[vip]]\nname = \"web\"\naddress = \"fd77::100/64\"\n";

fn observer(segment: &Segment) -> NdpObserver {
    let from = segment.host("observer").unwrap().ipv6();
    NdpObserver::start(segment.inside("observer").unwrap(), from, ipv6(100)).unwrap()
}

#[test]
fn the_observer_of_neighbours_sees_two_answerers_and_only_then() {
    let test = "the_observer_of_neighbours_sees_two_answerers_and_only_then";
    if let Some(reason) = privilege::missing() {
        return skip(test, &reason);
    }
    let segment = Segment::build(Topology::with_nodes(2), &mut |_| {}).unwrap();
    let observer = observer(&segment);
    let from = Instant::now();
    segment.inside("n1").unwrap().ip("addr add fd77::100/64 dev eth0 nodad").unwrap();
    wait_until(SOON, "answers", || Ok(50 < observer.answers(since(from)).len())).unwrap();
    assert_eq!(observer.answered_by_two(since(from)), 0);
    assert_eq!(observer.owner(), Some(segment.host("n1").unwrap().mac()));

    segment.inside("n2").unwrap().ip("addr add fd77::100/64 dev eth0 nodad").unwrap();
    wait_until(SOON, "two answerers", || Ok(50 < observer.answered_by_two(since(from)))).unwrap();
    assert_eq!(observer.owner(), None);
}

#[test]
fn no_two_hosts_answer_for_an_ipv6_address_when_its_owner_freezes_or_is_cut() {
    let test = "no_two_hosts_answer_for_an_ipv6_address_when_its_owner_freezes_or_is_cut";
    let Some(mut cluster) = cluster(test, 3, VIP6) else { return };
    let observer = observer(&cluster.segment);
    let from = Instant::now();
    let name = |cluster: &support::Cluster| {
        let host = cluster.segment.topology.by_mac(observer.owner()?)?;
        Some(host.name.to_owned())
    };
    for fault in [Fault::Freeze, Fault::SilentCut] {
        wait_until(SOON, "an owner", || Ok(name(&cluster).is_some())).unwrap();
        let owner = name(&cluster).unwrap();
        fault.inject(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
        wait_until(SOON, "another answerer", || {
            Ok(name(&cluster).is_some_and(|other| other != owner))
        })
        .unwrap();
        fault.heal(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
        // The healed host has its chance to answer.
        let healed = Instant::now();
        wait_until(SOON, "a second", || Ok(250 * BEAT < healed.elapsed())).unwrap();
    }
    assert_eq!(observer.answered_by_two(since(from)), 0);
}
