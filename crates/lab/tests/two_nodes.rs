//! Two nodes: with a witness one owner and never two; without one, two while they are cut, and one after.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::fault::Fault;
use buoy_lab::process::wait_until;
use buoy_lab::topology::Topology;
use std::time::Instant;
use support::{Cluster, LEASE, LOCAL, MS, SOON, VIP, events, running, since, watch};

fn with_witness(test: &str) -> Option<Cluster> {
    running(test, Topology::with_nodes(2).with_witness(), LEASE, LOCAL)
}

#[test]
fn two_nodes_and_a_witness_keep_one_owner_when_the_nodes_are_cut_from_each_other() {
    let test = "two_nodes_and_a_witness_keep_one_owner_when_the_nodes_are_cut_from_each_other";
    let Some(cluster) = with_witness(test) else { return };
    let observer = cluster.observer(&[VIP]);
    cluster.wait_answerer(&observer, VIP);
    let from = Instant::now();
    cluster.segment.switch.set_apart("n1", "n2", true).unwrap();
    watch(&observer, 3000);
    let owner = cluster.wait_answerer(&observer, VIP);
    cluster.segment.switch.set_apart("n1", "n2", false).unwrap();
    watch(&observer, 500);
    assert_eq!(observer.answered_by_two(VIP, since(from)), []);
    assert_ne!(owner, "w1");
    assert!(!cluster.has_address("w1", "10.77.0.100"), "a witness owns nothing");
}

#[test]
fn two_nodes_cut_from_each_other_and_from_the_witness_have_no_owner() {
    let test = "two_nodes_cut_from_each_other_and_from_the_witness_have_no_owner";
    let Some(mut cluster) = with_witness(test) else { return };
    let observer = cluster.observer(&[VIP]);
    cluster.wait_answerer(&observer, VIP);
    let from = Instant::now();
    Fault::SilentCut.inject(&cluster.segment, &mut cluster.buoy, "w1").unwrap();
    // The nodes still are a majority of two in three.
    watch(&observer, 1000);
    let two_of_three = cluster.wait_answerer(&observer, VIP);
    cluster.segment.switch.set_apart("n1", "n2", true).unwrap();
    wait_until(SOON, "silence", || Ok(500 * MS < observer.unanswered(VIP, since(from)))).unwrap();
    cluster.segment.switch.set_apart("n1", "n2", false).unwrap();
    Fault::SilentCut.heal(&cluster.segment, &mut cluster.buoy, "w1").unwrap();
    cluster.wait_answerer(&observer, VIP);
    assert_eq!(observer.answered_by_two(VIP, since(from)), [], "at first {two_of_three}");
}

#[test]
fn a_witness_takes_over_for_a_dead_node_by_its_vote() {
    let test = "a_witness_takes_over_for_a_dead_node_by_its_vote";
    let Some(mut cluster) = with_witness(test) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let from = Instant::now();
    Fault::PowerOff.inject(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
    let other = cluster.wait_other(&observer, VIP, &owner);
    assert!(["n1", "n2"].contains(&other.as_str()));
    assert_eq!(observer.answered_by_two(VIP, since(from)), []);
}

#[test]
fn two_owners_of_an_available_address_are_one_soon_after_the_cut_and_it_is_recorded() {
    let test = "two_owners_of_an_available_address_are_one_soon_after_the_cut_and_it_is_recorded";
    let Some(mut cluster) = running(test, Topology::with_nodes(2), LEASE, LOCAL) else { return };
    let observer = cluster.observer(&[VIP]);
    cluster.wait_answerer(&observer, VIP);
    Fault::SilentCut.inject(&cluster.segment, &mut cluster.buoy, "n1").unwrap();
    for node in ["n1", "n2"] {
        let mine = |status: &buoy_api::ClusterStatus| status.vips.iter().all(|vip| vip.mine);
        cluster.buoy.wait_status(node, SOON, "the VIP on both sides", mine).unwrap();
    }
    let healed = Instant::now();
    Fault::SilentCut.heal(&cluster.segment, &mut cluster.buoy, "n1").unwrap();
    wait_until(SOON, "an event of the overlap", || {
        Ok(["n1", "n2"].iter().any(|node| events(&cluster, node, "overlap") != 0))
    })
    .unwrap();
    watch(&observer, 300);
    // Some heartbeats of 10 ms, and room for a machine that stands still.
    let twice = observer.answered_by_two(VIP, since(healed)).len();
    assert!(twice < 500, "two answered for {twice} ms after the cut was healed");
    cluster.wait_answerer(&observer, VIP);
}
