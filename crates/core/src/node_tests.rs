//! Small clusters with perfect wires: does each decision come out right? (Faults are the simulator's.)

use super::*;
use crate::status::{Exclusion, Standing};
use alloc::{format, vec};
use buoy_model::limits::{LEASE_MAX, VALID_LIFETIME_GATED};
use buoy_model::{Cidr, Failback, FrameKind, Group, GroupId, Leg, Mac, Message};
use buoy_model::{Node as Member, NodeId, Order, Presence, Timing, VipAddress};

const LINK: LinkId = LinkId(3);
const BEAT: Duration = Duration::from_millis(10);
const LEASE: Duration = Duration::from_millis(50);

fn name(i: usize) -> String {
    format!("lb{}", i + 1)
}
fn vip(n: u8) -> core::net::IpAddr {
    [10, 0, 0, 100 + n].into()
}

fn desired(nodes: usize, groups: usize, safety: Safety, me: usize) -> Desired {
    let member = |i| Member::new(&name(i), ([10, 0, 0, 1], 4747).into());
    let mut members: Vec<Member> = (0..nodes).map(member).collect();
    members.sort_by_key(|m| m.id);
    let all: Vec<_> = members.iter().map(|m| m.id).collect();
    let mut groups: Vec<Group> = (0..u8::try_from(groups).unwrap())
        .map(|g| Group {
            safety,
            nodes: all.clone(),
            ..Group::new(
                GroupId::of(vip(g)),
                &format!("vip{g}"),
                vec![VipAddress {
                    cidr: Cidr::new(vip(g), 24).unwrap(),
                    link: Some(LINK),
                    link_name: "eth0".into(),
                    vip_name: "web".into(),
                    presence: Presence::Assigned,
                }],
            )
        })
        .collect();
    groups.sort_by_key(|g| g.id);
    Desired {
        leg_links: vec![Some(LINK)],
        timing: Timing { heartbeat: BEAT, lease: LEASE, lease_max: LEASE },
        ..Desired::new("buoy", NodeId::of(&name(me)), members, groups)
    }
}

/// Nodes with one clock and wires without delay; `cut` nodes neither speak nor hear.
struct Cluster {
    now: Instant,
    nodes: Vec<Node>,
    cut: Vec<usize>,
    done: Vec<(usize, Action)>,
}

impl Cluster {
    fn new(nodes: usize, groups: usize, safety: Safety) -> Self {
        Self::with(nodes, |me| desired(nodes, groups, safety, me))
    }

    fn with(nodes: usize, desired: impl Fn(usize) -> Desired) -> Self {
        let nodes = (0..nodes).map(|i| start(Instant::ZERO, desired(i), i as u64 + 1)).collect();
        Self { now: Instant::ZERO, nodes, cut: vec![], done: vec![] }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut ticks_at_once = 0;
        loop {
            let due = (0..self.nodes.len()).map(|i| (self.nodes[i].deadline().unwrap(), i)).min();
            let (at, i) = due.unwrap();
            if at > end {
                break;
            }
            ticks_at_once = if at > self.now { 0 } else { ticks_at_once + 1 };
            assert!(ticks_at_once < 50, "node {i} spins at {:?}", self.now);
            self.now = self.now.max(at);
            self.give(i, Event::Tick);
        }
        self.now = end;
    }

    fn give(&mut self, i: usize, event: Event<'_>) {
        let mut out = vec![];
        self.nodes[i].handle(self.now, event, &mut out);
        let mut sent = vec![];
        for action in out.iter().filter(|a| !matches!(a, Action::PrepareGoodbye { .. })) {
            let mut message = Message::default();
            if let Some(to) = self.nodes[i].compose(self.now, action, &mut message) {
                sent.push((to, message));
            }
        }
        self.done.extend(out.into_iter().map(|a| (i, a)));
        for (to, message) in sent {
            let to = self.nodes.iter().position(|n| n.desired.me == to).unwrap();
            if !self.cut.contains(&i) && !self.cut.contains(&to) {
                self.give(to, Event::Heard { message: &message, leg: Leg(0) });
            }
        }
    }
    fn owners(&self, group: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].owned[group].holding().is_some()).collect()
    }

    fn owner(&self, group: usize) -> usize {
        let owners = self.owners(group);
        assert_eq!(owners.len(), 1, "owners of group {group}: {owners:?}");
        owners[0]
    }

    fn other(&self, group: usize) -> usize {
        let owner = self.owner(group);
        (0..self.nodes.len()).find(|i| *i != owner).unwrap()
    }

    /// Who owns the first group among those.
    fn owner_of(&self, among: &[usize]) -> usize {
        let owners = self.owners(0);
        *among.iter().find(|i| owners.contains(i)).expect("one of them")
    }

    fn settle(&mut self) {
        self.run(LEASE_MAX * 2);
    }

    /// What node `i` did to its host since the last look.
    fn effects(&mut self, i: usize) -> Vec<Action> {
        let done = core::mem::take(&mut self.done);
        let effects = done.into_iter().filter(|(n, _)| *n == i).map(|(_, a)| a);
        effects.filter(|a| !matches!(a, Action::Answer { .. })).collect()
    }
}

fn start(now: Instant, desired: Desired, seed: u64) -> Node {
    let settings = Settings {
        incarnation: Incarnation(seed * 1000 + now.as_nanos() + 1),
        seed,
        fence: Fence::Gate,
        #[cfg(feature = "mutants")]
        mutation: None,
    };
    Node::new(now, Arc::new(desired), settings)
}

#[test]
fn three_nodes_agree_on_one_owner_and_the_pool_is_spread() {
    let mut cluster = Cluster::new(3, 9, Safety::Exclusive);
    cluster.settle();
    let mut owned = [0; 3];
    (0..9).for_each(|g| owned[cluster.owner(g)] += 1);
    assert_eq!(owned, [3, 3, 3]);
}

#[test]
fn nobody_serves_before_the_voters_may_speak() {
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    cluster.run(LEASE_MAX);
    assert_eq!(cluster.owners(0), []);
}

#[test]
fn a_single_node_serves_by_its_own_vote() {
    let mut cluster = Cluster::new(1, 2, Safety::Exclusive);
    cluster.settle();
    assert_eq!([cluster.owner(0), cluster.owner(1)], [0, 0]);
}

#[test]
fn an_owner_takes_the_gate_the_address_and_the_neighbours_in_this_order() {
    let mut cluster = Cluster::new(1, 1, Safety::Exclusive);
    cluster.settle();
    let effects = cluster.effects(0);
    let acquired = effects.iter().position(|a| matches!(a, Action::AddAddress { .. })).unwrap();
    assert!(matches!(effects[acquired - 1], Action::Fence { until, .. } if until > Instant::ZERO));
    let Action::AddAddress { valid_lifetime, .. } = effects[acquired] else { panic!() };
    assert_eq!(valid_lifetime, VALID_LIFETIME_GATED);
    assert!(matches!(effects[acquired + 1], Action::Announce { kind: FrameKind::Gratuitous, .. }));
}

#[test]
fn a_silent_owner_is_followed_within_the_lease_and_stops_before() {
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    cluster.settle();
    let owner = cluster.owner(0);
    cluster.cut = vec![owner];
    let cut_at = cluster.now;
    while cluster.owners(0) == [owner] {
        cluster.run(Duration::from_millis(1));
    }
    assert_eq!(cluster.owners(0), [], "the old owner lets go before the new one begins");
    while cluster.owners(0).is_empty() {
        cluster.run(Duration::from_millis(1));
    }
    assert!(cluster.now.since(cut_at) <= LEASE + BEAT, "{:?}", cluster.now.since(cut_at));
    let new = cluster.owner(0);
    assert_ne!(new, owner);
    let Some(Record { fact: Fact::Acquired { cause, .. }, .. }) =
        &cluster.nodes[new].owned[0].last_change
    else {
        panic!("no record");
    };
    assert!(matches!(cause, Cause::OwnerSilent { .. }), "{cause:?}");
}

#[test]
fn a_minority_never_serves() {
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    cluster.cut = vec![0, 1, 2];
    cluster.settle();
    assert_eq!(cluster.owners(0), []);
}

#[test]
fn a_drained_owner_lets_go_before_it_says_so() {
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    cluster.settle();
    let owner = cluster.owner(0);
    cluster.done.clear();
    let reason = String::from("kernel update");
    cluster.give(owner, Event::Order(Order::Drain { reason, until: None }));
    let next = cluster.owner(0);
    assert_ne!(next, owner, "the move needs no timer");
    let effects = cluster.effects(owner);
    let closed =
        effects.iter().position(|a| matches!(a, Action::Fence { until: Instant::ZERO, .. }));
    let removed = effects.iter().position(|a| matches!(a, Action::RemoveAddress { .. }));
    let (closed, removed) = (closed.unwrap(), removed.unwrap());
    let is_beat = |a: &&Action| matches!(a, Action::Heartbeat { .. });
    assert!(effects[..closed].iter().any(|a| is_beat(&a)), "first it says who is to have it");
    assert!(closed < removed);
    assert!(!effects[closed..removed].iter().any(|a| is_beat(&a)));
    assert!(effects[removed..].iter().any(|a| is_beat(&a)));
    cluster.settle();
    assert_eq!(cluster.owner(0), next, "a drained node takes nothing back");
    cluster.give(owner, Event::Order(Order::Undrain { reason: "done".into() }));
    cluster.settle();
    assert_eq!(cluster.owner(0), next, "failback is never by default");
}

#[test]
fn a_drain_with_nobody_to_take_over_keeps_serving() {
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    cluster.settle();
    let owner = cluster.owner(0);
    for other in (0..3).filter(|i| *i != owner) {
        let reason = String::new();
        cluster.give(other, Event::Order(Order::Drain { reason, until: None }));
    }
    cluster.give(owner, Event::Order(Order::Drain { reason: String::new(), until: None }));
    cluster.settle();
    assert_eq!(cluster.owner(0), owner);
    cluster.give((owner + 1) % 3, Event::Order(Order::Undrain { reason: "done".into() }));
    cluster.run(BEAT * 2);
    assert_eq!(cluster.owner(0), (owner + 1) % 3, "it goes as soon as somebody can take it");
}

#[test]
fn a_node_that_stops_gives_everything_away_and_takes_nothing_back() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = Cluster::new(3, 4, safety);
        cluster.settle();
        cluster.done.clear();
        cluster.give(0, Event::Stop);
        cluster.run(LEASE * 2);
        let stopped = cluster.effects(0).iter().filter(|a| **a == Action::Stopped).count();
        assert_eq!(stopped, 1);
        (0..4).for_each(|g| assert_ne!(cluster.owner(g), 0, "{safety:?}"));
    }
}

#[test]
fn carrier_loss_releases_at_once_and_the_others_take_over() {
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    cluster.settle();
    let owner = cluster.owner(0);
    cluster.give(owner, Event::Link { link: LINK, up: false });
    assert_ne!(cluster.owner(0), owner);
    let standing = own_standing(&cluster, owner);
    assert_eq!(standing, Standing::Excluded(Exclusion::NoCarrier(LINK)));
}

fn own_standing(cluster: &Cluster, i: usize) -> Standing {
    let status = cluster.nodes[i].status(cluster.now);
    status.groups[0].candidates.iter().find(|c| c.node == status.me).unwrap().standing.clone()
}

#[test]
fn prefer_wins_and_failback_waits_as_long_as_it_was_told() {
    let delay = Duration::from_secs(3);
    let mut cluster = Cluster::with(3, |me| {
        let mut desired = desired(3, 1, Safety::Exclusive, me);
        desired.groups[0].prefer = vec![NodeId::of("lb3")];
        desired.groups[0].failback = Failback::After(delay);
        desired
    });
    cluster.settle();
    assert_eq!(cluster.owner(0), 2);
    cluster.cut = vec![2];
    cluster.run(LEASE * 3);
    assert_ne!(cluster.owner(0), 2);
    cluster.cut = vec![];
    cluster.run(delay - LEASE);
    assert_ne!(cluster.owner(0), 2, "too soon");
    cluster.run(LEASE * 3);
    assert_eq!(cluster.owner(0), 2);
}

#[test]
fn a_node_that_comes_back_gets_its_share_with_the_fewest_moves() {
    let mut cluster = Cluster::with(3, |me| {
        let mut desired = desired(3, 9, Safety::Exclusive, me);
        desired.groups.iter_mut().for_each(|g| g.failback = Failback::After(Duration::ZERO));
        desired
    });
    cluster.cut = vec![2];
    cluster.settle();
    cluster.done.clear();
    cluster.cut = vec![];
    cluster.settle();
    let mut owned = [0; 3];
    (0..9).for_each(|g| owned[cluster.owner(g)] += 1);
    assert!(owned.iter().all(|n| (2..=4).contains(n)), "{owned:?}");
    let moves = cluster.done.iter().filter(|(_, a)| is_acquired(a)).count();
    assert!(moves <= 3, "{moves} moves for a share of 3");
}

fn is_acquired(action: &Action) -> bool {
    matches!(action, Action::Record(Record { fact: Fact::Acquired { .. }, .. }))
}

#[test]
fn available_serves_on_both_sides_of_a_cut_and_on_one_within_a_beat_after() {
    let mut cluster = Cluster::new(2, 1, Safety::Available);
    cluster.run(LEASE * 4);
    cluster.owner(0);
    cluster.cut = vec![0];
    cluster.run(LEASE * 2);
    assert_eq!(cluster.owners(0), [0, 1], "rather two than none");
    cluster.cut = vec![];
    cluster.run(BEAT * 2);
    cluster.owner(0);
}

#[test]
fn an_available_drain_makes_before_it_breaks() {
    let mut cluster = Cluster::new(2, 1, Safety::Available);
    cluster.run(LEASE * 4);
    let (owner, other) = (cluster.owner(0), cluster.other(0));
    cluster.done.clear();
    cluster.give(owner, Event::Order(Order::Drain { reason: String::new(), until: None }));
    cluster.run(BEAT);
    assert_eq!(cluster.owner(0), other);
    let made = |(n, a): &(usize, Action)| *n == other && matches!(a, Action::AddAddress { .. });
    let broke = |(n, a): &(usize, Action)| *n == owner && matches!(a, Action::RemoveAddress { .. });
    let done = &cluster.done;
    assert!(done.iter().position(made).unwrap() < done.iter().position(broke).unwrap());
}

#[test]
fn a_frozen_node_ends_its_leases_before_it_does_anything_else() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut node = start(Instant::ZERO, desired(1, 1, safety, 0), 1);
        let mut out = vec![];
        let mut now = Instant::ZERO;
        while node.owned[0].holding().is_none() {
            now = node.deadline().unwrap();
            node.handle(now, Event::Tick, &mut out);
        }
        out.clear();
        let late = now + Duration::from_secs(5);
        node.handle(late, Event::Tick, &mut out);
        let first = out.iter().find(|a| !matches!(a, Action::Record(_))).unwrap();
        assert!(matches!(first, Action::Fence { until: Instant::ZERO, .. }), "{out:?}");
        let sent = out.iter().position(|a| matches!(a, Action::Announce { .. }));
        assert_eq!(sent, None, "nothing is announced before the view is known again");
    }
}

#[test]
fn a_restarted_owner_does_not_inherit_the_lease_of_its_past_life() {
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    cluster.settle();
    let owner = cluster.owner(0);
    cluster.nodes[owner] = start(cluster.now, desired(3, 1, Safety::Exclusive, owner), 77);
    cluster.run(BEAT);
    assert_eq!(cluster.owners(0), []);
    cluster.run(LEASE * 2);
    cluster.owner(0);
}

#[test]
fn a_foreign_deletion_is_repaired_and_a_foreign_claim_answered_once_in_ten_seconds() {
    let mut cluster = Cluster::new(1, 1, Safety::Exclusive);
    cluster.settle();
    cluster.done.clear();
    cluster.give(0, Event::AddressLost { link: LINK, address: vip(0) });
    let effects = cluster.effects(0);
    assert!(matches!(effects[0], Action::AddAddress { .. }));
    assert!(matches!(effects[1], Action::Announce { .. }));
    let is_restored =
        |a: &Action| matches!(a, Action::Record(Record { fact: Fact::Restored { .. }, .. }));
    assert!(effects.iter().any(is_restored));
    let claim = || Event::ForeignClaim { link: LINK, address: vip(0), mac: Mac([2; 6]) };
    let mut defences = 0;
    for _ in 0..5 {
        cluster.give(0, claim());
        let is_defence =
            |a: &Action| matches!(a, Action::Announce { kind: FrameKind::Defence, .. });
        defences += cluster.effects(0).iter().filter(|a| is_defence(a)).count();
    }
    assert_eq!(defences, 1);
    let elsewhere = Event::AddressLost { link: LINK, address: vip(9) };
    cluster.give(0, elsewhere);
    assert_eq!(cluster.effects(0), []);
}

#[test]
fn a_reload_touches_only_what_it_changes() {
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    cluster.settle();
    let owner = cluster.owner(0);
    cluster.done.clear();
    for i in 0..3 {
        let mut wider = desired(3, 2, Safety::Exclusive, i);
        wider.generation = 2;
        cluster.give(i, Event::Reload(Arc::new(wider)));
    }
    cluster.run(LEASE * 3);
    let old = cluster.nodes[0].desired.group_index(GroupId::of(vip(0))).unwrap();
    assert_eq!(cluster.owner(old), owner);
    cluster.owner(1 - old);
    let disturbed = cluster.done.iter().any(|(_, a)| {
        matches!(a, Action::RemoveAddress { .. })
            || matches!(a, Action::Fence { address, until: Instant::ZERO, .. } if *address == vip(0))
    });
    assert!(!disturbed);
    for i in 0..3 {
        cluster.give(i, Event::Reload(Arc::new(desired(3, 1, Safety::Exclusive, i))));
    }
    assert_eq!(cluster.owner(0), owner);
    let removed = |(_, a): &(usize, Action)| matches!(a, Action::RemoveAddress { cidr, .. } if cidr.address() == vip(1));
    assert!(cluster.done.iter().any(removed), "what left the file leaves the host");
}

#[test]
fn a_reload_takes_the_address_off_before_it_is_answered_for() {
    use Action::{AddAddress, Fence, RemoveAddress};
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    cluster.settle();
    let (owner, of) = (cluster.owner(0), [Presence::Assigned, Presence::Answered]);
    for (from, to) in [(of[0], of[1]), (of[1], of[0])] {
        let mut other = desired(3, 1, Safety::Exclusive, owner);
        other.groups[0].addresses[0].presence = to;
        cluster.effects(owner);
        cluster.give(owner, Event::Reload(Arc::new(other)));
        let done = cluster.effects(owner);
        assert!(matches!(done[0], Fence { until: Instant::ZERO, lease: None, .. }), "{done:?}");
        assert!(matches!(done[1], RemoveAddress { presence, .. } if presence == from), "{done:?}");
        assert!(matches!(done[2], Fence { .. }) && done[2] != done[0], "{done:?}");
        assert!(matches!(done[3], AddAddress { presence, .. } if presence == to), "{done:?}");
    }
}

#[test]
fn two_agents_under_one_name_never_both_serve() {
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    let twin = start(Instant::ZERO, desired(3, 1, Safety::Exclusive, 0), 99);
    cluster.nodes.push(twin);
    for _ in 0..200 {
        cluster.run(BEAT * 5);
        assert!(cluster.owners(0).len() <= 1);
    }
    let told = cluster
        .done
        .iter()
        .any(|(_, a)| matches!(a, Action::Record(Record { fact: Fact::DuplicateNode { .. }, .. })));
    assert!(told, "somebody must say that there are two");
}

#[test]
fn steady_state_changes_nothing_but_deadlines() {
    let mut cluster = Cluster::new(3, 3, Safety::Exclusive);
    cluster.settle();
    cluster.done.clear();
    cluster.run(Duration::from_secs(2));
    for (i, action) in &cluster.done {
        let steady = match action {
            Action::Heartbeat { .. }
            | Action::Answer { .. }
            | Action::PrepareGoodbye { .. }
            | Action::Renew { .. }
            | Action::AddAddress { .. } => true,
            Action::Announce { .. } => true,
            Action::Fence { until, .. } => *until > Instant::ZERO,
            Action::RemoveAddress { .. } | Action::Advertise { .. } => false,
            Action::Record(_) | Action::Stopped => false,
        };
        assert!(steady, "node {i}: {action:?}");
    }
}

#[test]
fn an_overtaken_answer_still_counts_but_is_no_sign_of_life() {
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    cluster.settle();
    let owner = cluster.owner(0);
    let voter = (owner + 1) % 3;
    let mut beat = Message::default();
    let mut answer = Message::default();
    let mut out = vec![];
    let (now, mine) = (cluster.now, cluster.nodes[owner].desired.me);
    let theirs = cluster.nodes[voter].desired.me;
    cluster.nodes[owner].compose(now, &Action::Heartbeat { to: theirs }, &mut beat);
    cluster.nodes[voter].handle(now, Event::Heard { message: &beat, leg: Leg(0) }, &mut out);
    cluster.nodes[voter].compose(now, &Action::Answer { to: mine }, &mut answer);
    cluster.nodes[voter].compose(now, &Action::Heartbeat { to: mine }, &mut beat);
    let later = now + Duration::from_millis(1);
    cluster.nodes[owner].handle(later, Event::Heard { message: &beat, leg: Leg(0) }, &mut out);
    let until = cluster.nodes[owner].renewals.shared_until;
    let voter = cluster.nodes[owner].desired.node_index(theirs).unwrap();
    let stands =
        |node: &Node| node.owned[0].holding().unwrap().votes.stands(&node.renewals, voter, until);
    assert!(!stands(&cluster.nodes[owner]));
    let evening = later + Duration::from_millis(1);
    cluster.nodes[owner].handle(evening, Event::Heard { message: &answer, leg: Leg(0) }, &mut out);
    assert!(stands(&cluster.nodes[owner]));
    let i = cluster.nodes[owner].peers.iter().position(|p| p.id == theirs).unwrap();
    assert_eq!(cluster.nodes[owner].peers[i].heard_at(), Some(later));
    assert_eq!(cluster.nodes[owner].ignored.stale, 0);
}

#[test]
fn a_restarted_voter_says_for_how_long_it_will_not_vote() {
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    cluster.settle();
    let (owner, other) = (cluster.owner(0), cluster.other(0));
    cluster.nodes[other] = start(cluster.now, desired(3, 1, Safety::Exclusive, other), 55);
    cluster.run(BEAT * 10);
    let votes_in = |asked: usize, of: usize, cluster: &Cluster| {
        let id = cluster.nodes[of].desired.me;
        let status = cluster.nodes[asked].status(cluster.now);
        status.nodes.iter().find(|n| n.id == id).unwrap().votes_in
    };
    let left = votes_in(other, other, &cluster).unwrap();
    assert!(left < LEASE_MAX);
    assert!(votes_in(owner, other, &cluster).unwrap() <= left + BEAT);
    assert_eq!(votes_in(other, owner, &cluster), None);
    cluster.settle();
    assert_eq!(votes_in(owner, other, &cluster), None);
    assert_eq!(votes_in(other, other, &cluster), None);
}

#[path = "placement_node_tests.rs"]
mod placement;

#[path = "budget_tests.rs"]
mod budget;
#[path = "judge_tests.rs"]
mod judging;

#[path = "rest_tests.rs"]
mod rest;
