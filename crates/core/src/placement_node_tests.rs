//! Whole nodes in small clusters: does ownership go where it should, stay where it should, and is the
//! reason that people are given the one that decided?

use super::*;
use crate::OrderError;
use alloc::string::ToString;
use alloc::sync::Arc;
use buoy_model::{Backend, Check, CheckKind, Mode, Ports, Service};

const FRIEND: LinkId = LinkId(9);
const SECOND: Duration = Duration::from_secs(1);

/// A cluster whose configuration is changed before it starts.
fn cluster(nodes: usize, groups: usize, safety: Safety, change: impl Fn(&mut Desired)) -> Cluster {
    Cluster::with(nodes, |me| {
        let mut desired = desired(nodes, groups, safety, me);
        change(&mut desired);
        desired
    })
}

fn eager(desired: &mut Desired) {
    desired.groups.iter_mut().for_each(|g| g.failback = Failback::After(Duration::ZERO));
}

fn prefers_first(desired: &mut Desired) {
    eager(desired);
    desired.groups.iter_mut().for_each(|g| g.prefer = vec![NodeId::of("lb1")]);
}

fn member<'a>(desired: &'a mut Desired, name: &str) -> &'a mut Member {
    desired.nodes.iter_mut().find(|n| n.name == name).unwrap()
}

/// The groups of each node.
fn counts(cluster: &Cluster, groups: usize) -> Vec<usize> {
    let mut counts = vec![0; cluster.nodes.len()];
    (0..groups).for_each(|g| counts[cluster.owner(g)] += 1);
    counts
}

fn facts(cluster: &Cluster, node: usize) -> Vec<&Fact> {
    let of = |(i, action): &'_ (usize, Action)| *i == node && matches!(action, Action::Record(_));
    let done = cluster.done.iter().filter(|d| of(d));
    done.filter_map(|(_, a)| if let Action::Record(r) = a { Some(&r.fact) } else { None }).collect()
}

fn released(fact: &Fact) -> Option<Cause> {
    if let Fact::Released { cause, .. } = fact { Some(cause.clone()) } else { None }
}

fn acquisitions(cluster: &Cluster) -> usize {
    cluster.done.iter().filter(|(_, action)| is_acquired(action)).count()
}

fn agree(cluster: &Cluster) {
    for (i, node) in cluster.nodes.iter().enumerate() {
        node.why_agrees(cluster.now).unwrap_or_else(|e| panic!("node {i}: {e}"));
        let all = node.status(cluster.now);
        for group in &all.groups {
            let one = Status { groups: vec![group.clone()], ..all.clone() };
            assert_eq!(node.status_about(cluster.now, &[group.id]), one, "who is asked about one");
        }
        let none = Status { groups: vec![], ..all };
        assert_eq!(node.status_about(cluster.now, &[]), none, "who is asked about none");
    }
}

/// Runs in small steps, and asks every node for its reasons at each.
fn run_and_agree(cluster: &mut Cluster, time: Duration) {
    let end = cluster.now + time;
    while cluster.now < end {
        cluster.run(BEAT / 2);
        agree(cluster);
    }
}

fn order(cluster: &mut Cluster, node: usize, order: Order) {
    let now = cluster.now;
    cluster.nodes[node].can_follow(now, &order).unwrap();
    cluster.give(node, Event::Order(order));
}

fn moves(group: GroupId, to: usize) -> Order {
    Order::Move { group, to: NodeId::of(&name(to)), reason: "rack work".into() }
}

fn hold(group: GroupId, until: Option<Instant>) -> Order {
    Order::Hold { group, reason: "until the audit".into(), until }
}

fn held(cluster: &Cluster, node: usize) -> Option<crate::Hold> {
    cluster.nodes[node].status(cluster.now).groups[0].held.clone()
}

#[test]
fn a_witness_votes_and_never_owns() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = cluster(3, 4, safety, |d| {
            eager(d);
            member(d, "lb2").witness = true;
        });
        cluster.settle();
        assert_eq!(counts(&cluster, 4), [2, 0, 2], "{safety:?}");
        cluster.cut = vec![0];
        cluster.run(LEASE * 4);
        assert!((0..4).all(|g| !cluster.owners(g).contains(&1)), "{safety:?}");
        assert!((0..4).all(|g| cluster.owners(g).contains(&2)), "{safety:?}: by its vote");
        let status = cluster.nodes[2].status(cluster.now);
        let line = &status.groups[0].candidates;
        let witness = line.iter().find(|c| c.node == NodeId::of("lb2")).unwrap();
        assert_eq!(witness.standing, Standing::Excluded(Exclusion::Witness));
        assert_eq!((status.quorum.witnesses, status.quorum.needed), (1, 2));
        agree(&cluster);
    }
}

#[test]
fn weights_share_a_pool_and_weight_0_takes_only_what_nobody_else_can() {
    let mut cluster = cluster(3, 9, Safety::Exclusive, |d| {
        member(d, "lb1").weight = 2;
        member(d, "lb3").weight = 0;
    });
    cluster.settle();
    assert_eq!(counts(&cluster, 9), [6, 3, 0]);
    for other in [0, 1] {
        cluster.give(other, Event::Link { link: LINK, up: false });
    }
    cluster.run(LEASE * 2);
    assert_eq!(counts(&cluster, 9), [0, 0, 9]);
}

#[test]
fn groups_of_one_label_stay_apart_where_they_can() {
    let label = |d: &mut Desired| {
        prefers_first(d);
        d.groups.iter_mut().for_each(|g| g.apart = Some("dns".into()));
    };
    let mut cluster = cluster(3, 3, Safety::Exclusive, label);
    cluster.settle();
    assert_eq!(counts(&cluster, 3), [1, 1, 1], "before `prefer`");
    cluster.cut = vec![2];
    run_and_agree(&mut cluster, LEASE * 4);
    let mut shared: Vec<usize> = (0..3).map(|g| *cluster.owners(g).first().unwrap()).collect();
    shared.sort_unstable();
    assert!([vec![0, 0, 1], vec![0, 1, 1]].contains(&shared), "softly: {shared:?}");
    cluster.cut = vec![];
    cluster.done.clear();
    run_and_agree(&mut cluster, LEASE * 4);
    assert_eq!(counts(&cluster, 3), [1, 1, 1], "and apart again, for failback allows it");
    assert_eq!(acquisitions(&cluster), 1);
}

#[test]
fn without_failback_groups_of_one_label_stay_where_they_are() {
    let label = |d: &mut Desired| d.groups.iter_mut().for_each(|g| g.apart = Some("dns".into()));
    let mut cluster = cluster(2, 2, Safety::Exclusive, label);
    cluster.give(1, Event::Link { link: LINK, up: false });
    cluster.settle();
    assert_eq!(counts(&cluster, 2), [2, 0]);
    cluster.give(1, Event::Link { link: LINK, up: true });
    cluster.run(SECOND * 10);
    assert_eq!(counts(&cluster, 2), [2, 0]);
}

#[test]
fn a_pool_is_level_again_after_each_node_with_no_more_moves_than_its_share() {
    for (nodes, groups) in [(2, 7), (3, 10), (4, 9), (5, 17)] {
        let mut cluster = cluster(nodes, groups, Safety::Exclusive, eager);
        cluster.settle();
        let gone = groups % nodes;
        let share = counts(&cluster, groups)[gone];
        cluster.done.clear();
        cluster.give(gone, Event::Link { link: LINK, up: false });
        cluster.run(LEASE * 4);
        assert_eq!(acquisitions(&cluster), share, "{groups} on {nodes} without {gone}");
        cluster.done.clear();
        cluster.give(gone, Event::Link { link: LINK, up: true });
        cluster.run(SECOND * 4);
        assert_eq!(acquisitions(&cluster), groups / nodes, "{groups} on {nodes} with {gone}");
        let counts = counts(&cluster, groups);
        let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
        assert!(spread <= 1, "{counts:?}");
        agree(&cluster);
    }
}

#[test]
fn a_link_that_toggles_every_second_for_a_minute_changes_the_owner_at_most_twice() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = cluster(3, 1, safety, prefers_first);
        cluster.settle();
        assert_eq!(cluster.owner(0), 0);
        cluster.done.clear();
        for second in 0..60 {
            cluster.give(0, Event::Link { link: LINK, up: second % 2 == 1 });
            run_and_agree(&mut cluster, SECOND);
        }
        cluster.run(SECOND * 300);
        assert_eq!(cluster.owner(0), 0, "{safety:?}: back where it belongs in the end");
        assert!(acquisitions(&cluster) <= 2, "{safety:?}: {}", acquisitions(&cluster));
        let told = facts(&cluster, 0).iter().filter(|f| matches!(f, Fact::Damped { .. })).count();
        assert_eq!(told, 6, "5, 10, 20, 40, 80 and 120 s");
    }
}

#[test]
fn a_damped_node_serves_at_once_what_nobody_else_can() {
    let mut cluster = cluster(1, 1, Safety::Exclusive, prefers_first);
    cluster.settle();
    for _ in 0..5 {
        cluster.give(0, Event::Link { link: LINK, up: false });
        assert_eq!(cluster.owners(0), []);
        cluster.give(0, Event::Link { link: LINK, up: true });
        assert_eq!(cluster.owner(0), 0, "without a moment's delay");
        agree(&cluster);
    }
}

#[test]
fn checks_that_come_and_go_are_damped_after_the_first_time() {
    let mut cluster = cluster(2, 1, Safety::Available, prefers_first);
    cluster.settle();
    let group = cluster.nodes[0].desired.groups[0].id;
    cluster.done.clear();
    for second in 0..60 {
        let check = String::from("nginx");
        let fails = Fitness::CheckFails { check };
        let fitness = if second % 2 == 0 { fails } else { Fitness::Fit };
        cluster.give(0, Event::Fitness { group, fitness });
        run_and_agree(&mut cluster, SECOND);
    }
    assert!(acquisitions(&cluster) <= 3, "{} changes", acquisitions(&cluster));
    let cause = facts(&cluster, 0).into_iter().find_map(released);
    assert_eq!(cause, Some(Cause::CheckFailed { check: "nginx".into() }));
    let excluded = own_standing(&cluster, 0);
    assert!(matches!(excluded, Standing::Excluded(Exclusion::Damped(_))), "{excluded:?}");
}

#[test]
fn a_group_that_was_moved_stays_until_it_is_released() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = cluster(3, 1, safety, prefers_first);
        cluster.settle();
        let group = cluster.nodes[0].desired.groups[0].id;
        cluster.done.clear();
        order(&mut cluster, 0, moves(group, 2));
        run_and_agree(&mut cluster, LEASE * 2);
        assert_eq!(cluster.owner(0), 2, "{safety:?}");
        assert!(facts(&cluster, 2).iter().any(|f| matches!(f, Fact::Held { .. })));
        let causes: Vec<Cause> = facts(&cluster, 0).into_iter().filter_map(released).collect();
        let moved = Cause::Moved { to: NodeId::of("lb3"), reason: "rack work".into() };
        assert_eq!(causes, [moved]);
        run_and_agree(&mut cluster, SECOND * 4);
        assert_eq!(cluster.owner(0), 2, "{safety:?}: whatever `prefer` says");
        let reason = held(&cluster, 2).unwrap().reason;
        assert_eq!(reason.as_deref(), Some("moved here by an operator"));
        assert_eq!(held(&cluster, 1).unwrap().reason, None, "only the owner knows");
        order(&mut cluster, 2, Order::Release { group, reason: "done".into() });
        run_and_agree(&mut cluster, LEASE * 2);
        assert_eq!(cluster.owner(0), 0, "{safety:?}: and goes home at once");
        assert_eq!(acquisitions(&cluster), 2);
        assert_eq!(held(&cluster, 0), None);
    }
}

#[test]
fn what_was_handed_over_can_be_had_back_at_once() {
    let mut cluster = cluster(3, 1, Safety::Exclusive, |_| {});
    cluster.settle();
    let group = cluster.nodes[0].desired.groups[0].id;
    let (first, second) = (cluster.owner(0), cluster.other(0));
    for (from, to) in [(first, second), (second, first), (first, second)] {
        order(&mut cluster, from, moves(group, to));
        cluster.run(BEAT * 3);
        assert_eq!(cluster.owner(0), to);
    }
}

#[test]
fn a_failure_moves_what_is_held_and_nothing_else_does() {
    let mut cluster = cluster(3, 1, Safety::Exclusive, prefers_first);
    cluster.cut = vec![0];
    cluster.settle();
    let group = cluster.nodes[0].desired.groups[0].id;
    let second = *cluster.owners(0).first().unwrap();
    order(&mut cluster, second, hold(group, None));
    cluster.cut = vec![];
    run_and_agree(&mut cluster, SECOND);
    assert_eq!(cluster.owner(0), second, "held, although a better node is back");
    cluster.give(second, Event::Link { link: LINK, up: false });
    cluster.run(LEASE * 2);
    assert_eq!(cluster.owner(0), 0);
    assert_eq!(held(&cluster, 0), None, "a hold ends with the ownership");
}

#[test]
fn a_hold_ends_at_its_end_and_a_drain_too() {
    let mut cluster = cluster(2, 1, Safety::Available, prefers_first);
    cluster.settle();
    let group = cluster.nodes[0].desired.groups[0].id;
    let drained_until = cluster.now + SECOND * 5;
    let held_until = cluster.now + SECOND * 9;
    let reason = String::from("kernel");
    order(&mut cluster, 0, Order::Drain { reason, until: Some(drained_until) });
    cluster.run(LEASE * 2);
    assert_eq!(cluster.owner(0), 1);
    let left = cluster.nodes[0].status(cluster.now).draining_for.unwrap();
    assert!(left <= SECOND * 5 && left > SECOND * 4);
    order(&mut cluster, 1, hold(group, Some(held_until)));
    cluster.done.clear();
    cluster.run(SECOND * 6);
    assert!(facts(&cluster, 0).iter().any(|f| matches!(f, Fact::Undrained { .. })));
    assert_eq!(cluster.owner(0), 1, "the hold still lasts");
    assert!(held(&cluster, 1).unwrap().remaining.unwrap() <= SECOND * 3);
    run_and_agree(&mut cluster, SECOND * 3);
    assert!(facts(&cluster, 1).iter().any(|f| matches!(f, Fact::Freed { .. })));
    assert_eq!(cluster.owner(0), 0);
}

#[test]
fn an_order_that_cannot_be_followed_says_why_and_what_to_do() {
    let mut cluster = cluster(4, 1, Safety::Exclusive, |d| {
        prefers_first(d);
        member(d, "lb4").witness = true;
    });
    cluster.settle();
    let group = cluster.nodes[0].desired.groups[0].id;
    let reason = || String::from("x");
    cluster.give(1, Event::Order(Order::Drain { reason: reason(), until: None }));
    cluster.cut = vec![2];
    cluster.run(LEASE * 4);
    let past = Some(cluster.now);
    let nowhere = Order::Move { group, to: NodeId(77), reason: reason() };
    let unknown = Order::Hold { group: GroupId(5), reason: reason(), until: None };
    let table: Vec<(usize, Order, &str)> = vec![
        (1, moves(group, 0), "vip0 is owned by lb1: give the order there"),
        (1, hold(group, None), "vip0 is owned by lb1"),
        (1, Order::Release { group, reason: reason() }, "vip0 is owned by lb1"),
        (0, moves(group, 0), "vip0 is on lb1 already"),
        (0, moves(group, 1), "lb2, which is drained"),
        (0, moves(group, 2), "lb3, which has been silent for"),
        (0, moves(group, 3), "lb4, which is a witness"),
        (0, nowhere, "node #0000004d, which is not in the configuration"),
        (0, unknown, "this node knows no VIP #00000005"),
        (0, hold(group, past), "over before it begins"),
        (0, Order::Drain { reason: reason(), until: past }, "over before it begins"),
    ];
    for (node, order, why) in table {
        let refused = cluster.nodes[node].can_follow(cluster.now, &order).unwrap_err();
        assert!(refused.to_string().contains(why), "{order:?}: {refused}");
        assert!(refused.to_string().contains(':'), "what to do: {refused}");
        let before = cluster.nodes[node].status(cluster.now);
        cluster.give(node, Event::Order(order));
        let after = cluster.nodes[node].status(cluster.now);
        assert_eq!((before.groups, before.draining), (after.groups, after.draining));
    }
    cluster.give(0, Event::Stop);
    let stopping =
        cluster.nodes[0].can_follow(cluster.now, &Order::Undrain { reason: "done".into() });
    assert_eq!(stopping, Err(OrderError::Stopping));
}

/// Legs 0 and 1: the first is the cluster's own wire, the second carries the VIPs.
fn two_legs(desired: &mut Desired) {
    prefers_first(desired);
    desired.leg_links = vec![Some(FRIEND), Some(LINK)];
    let second = "10.0.1.1:4747".parse().unwrap();
    desired.nodes.iter_mut().for_each(|n| n.addresses.push(second));
}

/// Everyone is heard on the second leg as well, but for the nodes that are deaf there.
fn run_with_legs(cluster: &mut Cluster, time: Duration, deaf: &[usize]) {
    let end = cluster.now + time;
    while cluster.now < end {
        let can_talk = |a: usize, b: usize| a != b && !deaf.contains(&a) && !deaf.contains(&b);
        for (a, b) in (0..9).map(|n| (n / 3, n % 3)).filter(|(a, b)| can_talk(*a, *b)) {
            let index = cluster.nodes[a].desired.node_index(NodeId::of(&name(b))).unwrap();
            let now = cluster.now;
            cluster.nodes[a].legs.heard(Leg(1), index, now);
        }
        cluster.run(BEAT);
        agree(cluster);
    }
}

#[test]
fn a_vip_leaves_a_host_that_hears_nobody_where_it_is_announced() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = cluster(3, 1, safety, two_legs);
        run_with_legs(&mut cluster, LEASE_MAX * 2, &[]);
        assert_eq!(cluster.owner(0), 0);
        cluster.done.clear();
        run_with_legs(&mut cluster, LEASE * 8, &[0]);
        let second = cluster.owner(0);
        assert_ne!(second, 0, "{safety:?}");
        let deaf = Fact::Unheard { link: LINK, now: true };
        assert_eq!(facts(&cluster, 0).iter().filter(|f| ***f == deaf).count(), 1);
        let cause = facts(&cluster, 0).into_iter().find_map(released);
        assert_eq!(cause, Some(Cause::Unheard { link: LINK }), "{safety:?}");
        let status = cluster.nodes[0].status(cluster.now);
        let peer = status.nodes.iter().find(|n| n.id != status.me).unwrap();
        assert!(peer.legs[0].unwrap() <= BEAT && peer.legs[1].unwrap() > LEASE);
        run_with_legs(&mut cluster, SECOND, &[]);
        assert_eq!(cluster.owner(0), second, "not before it is trusted again");
        run_with_legs(&mut cluster, SECOND * 2, &[]);
        assert_eq!(cluster.owner(0), 0);
    }
}

#[test]
fn a_wire_that_is_dead_for_all_moves_nothing() {
    let mut cluster = cluster(3, 1, Safety::Exclusive, two_legs);
    run_with_legs(&mut cluster, LEASE_MAX * 2, &[]);
    cluster.done.clear();
    run_with_legs(&mut cluster, SECOND, &[0, 1, 2]);
    assert_eq!(cluster.owner(0), 0, "nobody is fit elsewhere");
    assert_eq!(acquisitions(&cluster), 0);
}

#[test]
fn two_owners_are_recorded_once_for_each_heal_with_how_long_it_may_have_been() {
    let mut cluster = Cluster::new(2, 1, Safety::Available);
    cluster.run(LEASE * 4);
    for heal in 1..=3 {
        cluster.cut = vec![0];
        cluster.run(SECOND);
        assert_eq!(cluster.owners(0), [0, 1]);
        cluster.cut = vec![];
        cluster.done.clear();
        cluster.run(SECOND);
        let told: Vec<Duration> = (0..2)
            .flat_map(|n| facts(&cluster, n))
            .filter_map(
                |f| if let Fact::Overlap { at_most, .. } = f { Some(*at_most) } else { None },
            )
            .collect();
        assert!((1..=2).contains(&told.len()), "{told:?}");
        assert!(
            told.iter().all(|t| *t <= SECOND + BEAT * 2 && *t >= SECOND - LEASE * 2),
            "{told:?}"
        );
        let overlaps = |n: usize| cluster.nodes[n].status(cluster.now).overlaps;
        assert_eq!((overlaps(0).max(overlaps(1)), cluster.owners(0).len()), (heal, 1));
    }
}

#[test]
fn whoever_takes_over_in_order_is_not_fought() {
    let mut cluster = Cluster::new(2, 1, Safety::Available);
    cluster.run(LEASE * 4);
    let (owner, other) = (cluster.owner(0), cluster.other(0));
    let claim = || Event::ForeignClaim { link: LINK, address: vip(0), mac: Mac([2; 6]) };
    let is_defence =
        |(_, a): &(usize, Action)| matches!(a, Action::Announce { kind: FrameKind::Defence, .. });
    cluster.cut = vec![owner];
    cluster.give(owner, Event::Order(Order::Drain { reason: String::new(), until: None }));
    cluster.done.clear();
    cluster.give(owner, claim());
    assert!(!cluster.done.iter().any(is_defence), "it is on its way to the other");
    cluster.cut = vec![];
    cluster.run(SECOND);
    assert_eq!(cluster.owner(0), other);
    cluster.done.clear();
    cluster.give(other, claim());
    assert_eq!(cluster.done.iter().filter(|d| is_defence(d)).count(), 1, "a stranger is answered");
}

#[test]
fn whoever_yields_names_the_one_that_takes_it() {
    let mut cluster = cluster(3, 6, Safety::Exclusive, eager);
    cluster.settle();
    let owner = cluster.owner(0);
    cluster.cut = vec![owner];
    cluster.give(owner, Event::Order(Order::Drain { reason: String::new(), until: None }));
    let named: Vec<(GroupId, NodeId)> = cluster.nodes[owner]
        .status(cluster.now)
        .groups
        .iter()
        .filter(|g| g.owner == Some(cluster.nodes[owner].desired.me))
        .map(|g| (g.id, g.yields_to.unwrap()))
        .collect();
    assert_eq!(named.len(), 2, "make before break: it serves until they are ready");
    agree(&cluster);
    cluster.cut = vec![];
    cluster.run(BEAT * 2);
    for (group, to) in named {
        let i = cluster.nodes[0].desired.group_index(group).unwrap();
        assert_eq!(cluster.nodes[cluster.owner(i)].desired.me, to);
    }
    assert_eq!(counts(&cluster, 6).iter().max(), Some(&3), "and they share what it had");
}

#[test]
fn a_node_without_backends_is_the_last_in_line() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = Cluster::new(3, 1, safety);
        cluster.settle();
        let first = cluster.owner(0);
        let group = cluster.nodes[0].desired.groups[0].id;
        let second = (first + 1) % 3;
        cluster.give(second, Event::Fitness { group, fitness: Fitness::NoBackend });
        cluster.give(first, Event::Fitness { group, fitness: Fitness::NoBackend });
        cluster.run(LEASE);
        let third = cluster.owner(0);
        assert_eq!(third, 3 - first - second, "{safety:?}: the one that sees backends");
        assert_eq!(own_standing(&cluster, first), Standing::Excluded(Exclusion::NoBackend));
        cluster.give(third, Event::Fitness { group, fitness: Fitness::NoBackend });
        cluster.settle();
        assert_eq!(cluster.owner(0), third, "{safety:?}: nobody is better, nothing moves");
        cluster.cut = vec![third];
        cluster.run(LEASE * 3);
        assert_ne!(cluster.owners(0), [third], "{safety:?}: rather reluctant than none");
        cluster.cut = vec![];
        cluster.run(LEASE * 3);
        let reluctant = cluster.owner(0);
        let fit = (reluctant + 1) % 3;
        cluster.give(fit, Event::Fitness { group, fitness: Fitness::Fit });
        cluster.run(LEASE * 2);
        assert_eq!(cluster.owner(0), fit, "{safety:?}: whoever sees backends again gets it");
    }
}

#[path = "announce_order_tests.rs"]
mod announce_order_tests;
#[path = "cordon_tests.rs"]
mod cordons;

/// Puts a service whose backends are asked so often behind each group.
fn asks_every(desired: &mut Desired, every: Duration) {
    let pace = buoy_model::Pace { every, every_down: every, timeout: every, rise: 1, fall: 1 };
    let kind = CheckKind::Tcp;
    let check = Check { kind, port: None, via: None, pace, askers: None, load: None };
    for group in &mut desired.groups {
        let addresses = group.addresses.iter().map(|a| a.cidr.address()).collect();
        let backends = vec![Backend::new("web1", ([10, 0, 0, 21], 80).into())];
        group.services.push(Service {
            check: Some(check.clone()),
            ..Service::new(Mode::Kernel, addresses, Ports::one(80), backends)
        });
    }
}

#[test]
fn what_all_see_die_a_moment_apart_moves_nothing() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = cluster(3, 1, safety, |desired| asks_every(desired, SECOND));
        cluster.settle();
        let owner = cluster.owner(0);
        let group = cluster.nodes[0].desired.groups[0].id;
        let unfit = || Event::Fitness { group, fitness: Fitness::NoBackend };
        // The owner first, and the others almost a second later.
        cluster.give(owner, unfit());
        cluster.run(SECOND * 9 / 10);
        assert_eq!(cluster.owner(0), owner, "{safety:?}: the others may be about to see it too");
        cluster.give((owner + 1) % 3, unfit());
        cluster.give((owner + 2) % 3, unfit());
        cluster.run(SECOND * 3);
        assert_eq!(cluster.owner(0), owner, "{safety:?}: nobody is better");

        // Who sees backends when the second is over gets it.
        cluster.give(owner, Event::Fitness { group, fitness: Fitness::Fit });
        cluster.give((owner + 1) % 3, Event::Fitness { group, fitness: Fitness::Fit });
        cluster.run(SECOND);
        cluster.give(owner, unfit());
        cluster.run(SECOND * 9 / 10);
        assert_eq!(cluster.owner(0), owner, "{safety:?}");
        cluster.run(SECOND / 10 + LEASE);
        assert_eq!(cluster.owner(0), (owner + 1) % 3, "{safety:?}: the one that sees backends");
    }
}

#[path = "unchecked_tests.rs"]
mod unchecked;
