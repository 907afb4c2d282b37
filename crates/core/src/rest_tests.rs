//! Small clusters in which some nodes serve nothing: do those speak less often, and is nobody missed later for it?

use super::*;
use buoy_model::limits::REST_HEARTBEAT;

const SECOND: Duration = Duration::from_secs(1);

/// Heartbeats that each node said in that time.
fn said(cluster: &mut Cluster, time: Duration) -> Vec<usize> {
    cluster.done.clear();
    cluster.run(time);
    let said = |i: usize| {
        let mine = cluster.done.iter().filter(|(n, _)| *n == i);
        mine.filter(|(_, action)| matches!(action, Action::Heartbeat { .. })).count()
    };
    (0..cluster.nodes.len()).map(said).collect()
}

fn missed(cluster: &Cluster) -> Vec<NodeId> {
    let lost = |(_, action): &(usize, Action)| {
        let Action::Record(Record { fact: Fact::PeerDown { node, .. }, .. }) = action else {
            return None;
        };
        Some(*node)
    };
    cluster.done.iter().filter_map(lost).collect()
}

#[test]
fn who_serves_nothing_speaks_ten_times_a_second_and_nobody_misses_it() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = Cluster::new(3, 1, safety);
        cluster.settle();
        let owner = cluster.owner(0);
        let often = usize::try_from(SECOND.as_millis() / BEAT.as_millis()).unwrap();
        let seldom = usize::try_from(SECOND.as_millis() / REST_HEARTBEAT.as_millis()).unwrap();
        for (i, count) in said(&mut cluster, SECOND).into_iter().enumerate() {
            // Two peers; and a beat more or less.
            let expected = 2 * if i == owner { often } else { seldom };
            assert!(count.abs_diff(expected) <= 2, "node {i}: {count}, expected {expected}");
        }
        assert_eq!((missed(&cluster), cluster.owner(0)), (vec![], owner));
        let status = cluster.nodes[owner].status(cluster.now);
        let heard: Vec<_> = status.nodes.iter().filter_map(|n| n.heard).collect();
        assert!(heard.iter().all(|heard| *heard <= BEAT), "it hears their answers: {heard:?}");
        assert!(status.nodes.iter().all(|n| n.silence <= LEASE), "and would miss them soon");
    }
}

#[test]
fn news_wakes_whoever_rests_for_a_second() {
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    cluster.settle();
    let other = cluster.other(0);
    let group = cluster.nodes[other].desired.groups[0].id;
    let fitness = Fitness::CheckFails { check: "disk".into() };
    cluster.give(other, Event::Fitness { group, fitness });
    assert_eq!(cluster.nodes[other].interval(), BEAT);
    let count = said(&mut cluster, SECOND / 2)[other];
    assert!(count >= 2 * 49, "{count}");
    cluster.run(SECOND);
    assert_eq!(cluster.nodes[other].interval(), REST_HEARTBEAT);
}

#[test]
fn an_owner_is_missed_as_soon_as_ever_and_one_that_rested_one_silence_after_it() {
    let mut cluster = Cluster::new(5, 1, Safety::Exclusive);
    cluster.settle();
    let owner = cluster.owner(0);
    let second = cluster.other(0);
    assert_eq!(cluster.nodes[second].interval(), REST_HEARTBEAT);
    cluster.done.clear();
    cluster.cut = vec![owner, second];
    cluster.run(LEASE + BEAT);
    let left: Vec<usize> = (0..5).filter(|i| ![owner, second].contains(i)).collect();
    let id = |i: usize| cluster.nodes[i].desired.me;
    let seen_by = |who: usize| {
        let is = |(i, _): &&(usize, Action)| *i == who;
        let mine: Vec<_> = cluster.done.iter().filter(is).cloned().collect();
        missed(&Cluster { now: cluster.now, nodes: vec![], cut: vec![], done: mine })
    };
    for i in &left {
        assert_eq!(seen_by(*i), [id(owner)], "{i}");
    }
    cluster.run(LEASE + BEAT);
    for i in &left {
        let status = cluster.nodes[*i].status(cluster.now);
        assert_eq!(status.quorum.heard, 3, "{i}");
    }
    let served: Vec<_> = left.iter().filter(|i| cluster.owners(0).contains(i)).collect();
    assert_eq!(served.len(), 1, "and one of those that are left has it: {served:?}");
}

#[test]
fn a_node_that_starts_again_is_met_at_once_by_those_who_rest() {
    let mut cluster = Cluster::new(3, 1, Safety::Available);
    cluster.settle();
    let owner = cluster.owner(0);
    let others: Vec<usize> = (0..3).filter(|i| *i != owner).collect();
    let [rests, starts] = others[..] else { panic!("three nodes, one of which owns it") };
    assert_eq!(cluster.nodes[rests].interval(), REST_HEARTBEAT);
    cluster.nodes[starts] = start(cluster.now, desired(3, 1, Safety::Available, starts), 77);
    cluster.run(BEAT * 4);
    for node in [rests, starts] {
        assert_eq!(cluster.nodes[node].status(cluster.now).quorum.heard, 3);
    }
}

#[test]
fn who_compares_legs_or_speaks_seldom_anyway_does_not_rest() {
    let two_legs = |me| {
        let mut desired = desired(3, 1, Safety::Exclusive, me);
        desired.leg_links.push(Some(LinkId(4)));
        desired
    };
    let slow = |me| {
        let mut desired = desired(3, 1, Safety::Exclusive, me);
        let (heartbeat, lease) = (REST_HEARTBEAT * 3, REST_HEARTBEAT * 15);
        desired.timing = Timing { heartbeat, lease, lease_max: lease };
        desired
    };
    let mut cluster = Cluster::with(3, two_legs);
    cluster.settle();
    cluster.nodes.iter().for_each(|node| assert_eq!(node.interval(), BEAT));
    let mut cluster = Cluster::with(3, slow);
    cluster.settle();
    cluster.nodes.iter().for_each(|node| assert_eq!(node.interval(), REST_HEARTBEAT * 3));
}

#[test]
fn nobody_rests_while_a_peer_may_not_know_what_it_claims() {
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    cluster.settle();
    let other = cluster.other(0);
    // As one of the first wire version, which knows no lists.
    let list = ListVersion(0);
    cluster.nodes[other].peers[0].knows = list;
    cluster.give(other, Event::Tick);
    cluster.run(REST_HEARTBEAT);
    assert_eq!(cluster.nodes[other].interval(), BEAT);
}
