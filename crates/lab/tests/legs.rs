//! Two networks: what is wrong on one of them is told over the other.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::fault::Fault;
use buoy_lab::topology::Topology;
use std::time::Instant;
use support::{Cluster, LOCAL, MS, SOON, VIP, running, since, wait_event, watch};

fn two_networks(test: &str, lease: &str) -> Option<Cluster> {
    let topology = Topology::with_nodes(3).with_second_network();
    running(test, topology, &format!("lease = \"{lease}\"\n"), LOCAL)
}

#[test]
fn a_lost_carrier_is_told_over_the_other_network() {
    // Silence would be noticed after two seconds.
    let test = "a_lost_carrier_is_told_over_the_other_network";
    let Some(mut cluster) = two_networks(test, "2s") else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let from = Instant::now();
    Fault::Unplug.inject(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
    let other = cluster.wait_other(&observer, VIP, &owner);
    let mac = cluster.segment.host(&other).unwrap().mac();
    let answered = observer.answers(VIP, since(from)).into_iter().find(|a| a.mac == mac).unwrap();
    let took = answered.heard - from;
    assert!(took < 1500 * MS, "{other} had to wait for silence: {took:?}");
    assert_eq!(observer.answered_by_two(VIP, since(from)), []);
}

#[test]
fn a_leg_that_is_silent_while_another_lives_sends_the_address_away_and_keeps_it_away() {
    let test = "a_leg_that_is_silent_while_another_lives_sends_the_address_away_and_keeps_it_away";
    let Some(mut cluster) = two_networks(test, "400ms") else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let from = Instant::now();
    Fault::SilentCut.inject(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
    let second = cluster.wait_other(&observer, VIP, &owner);
    wait_event(&cluster, &owner, "unheard");
    assert_eq!(observer.answered_by_two(VIP, since(from)), []);

    // Nor does it come back when the new owner leaves: the third node is the one.
    cluster.buoy.client(&second).unwrap().drain(Some("a test".to_owned())).unwrap();
    let third = cluster.wait_other(&observer, VIP, &second);
    assert_ne!(third, owner, "an unheard host took the address");
    let quiet = watch(&observer, 2000);
    assert_eq!(observer.takeovers(VIP, quiet), 0);
    assert!(!cluster.has_address(&owner, "10.77.0.100"));

    Fault::SilentCut.heal(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
    wait_event(&cluster, &owner, "heard_again");
}

#[test]
fn a_dead_second_network_changes_nothing() {
    let test = "a_dead_second_network_changes_nothing";
    let Some(cluster) = two_networks(test, "400ms") else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    for node in cluster.segment.topology.members() {
        let port = cluster.segment.host(node).unwrap().second_port();
        cluster.segment.switch.set_carrier(&port, false).unwrap();
    }
    let window = watch(&observer, 2000);
    assert_eq!(observer.takeovers(VIP, window), 0);
    let still = |status: &buoy_api::ClusterStatus| status.nodes.iter().all(|n| n.me || n.alive);
    cluster.buoy.wait_status(&owner, SOON, "all peers alive", still).unwrap();
}
