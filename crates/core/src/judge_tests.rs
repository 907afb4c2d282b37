//! Every claim of a peer against every state of this node: is the judgement the one that it should be?

use super::*;
use crate::judge;
use crate::peer::Offer;
use crate::view::{SUCCESSOR_PATIENCE, SUCCESSOR_RETRY};
use buoy_model::{ClaimKind, Epoch};

const HEIR: NodeId = NodeId(0xfeed);

/// What the judgement comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Take,
    TakeFromPeer,
    Leave,
    YieldToPeer,
    GiveUp,
}

/// The states of this node that make a difference.
#[derive(Clone, Copy, Debug)]
enum Is {
    Fit,
    Unfit,
    Drained,
    Stopping,
    WithoutCarrier,
    Listening,
}

/// The claims of the peer; `None`: it offers nothing.
#[derive(Clone, Copy, Debug)]
enum Says {
    Nothing,
    Eligible,
    Reluctant,
    Wants,
    WantsInVain,
    Holds,
    YieldsToMe,
    YieldsToAnyone,
    YieldsToAnother,
}

use Is::*;
use Says::*;
use Verdict::*;

const SAYS: [Says; 9] = [
    Nothing,
    Eligible,
    Reluctant,
    Wants,
    WantsInVain,
    Holds,
    YieldsToMe,
    YieldsToAnyone,
    YieldsToAnother,
];

/// Two nodes that know each other: the first one owns the group (or does not) and prefers itself (or
/// the other one), who says this.
fn verdict(safety: Safety, owns: bool, prefers_me: bool, is: Is, says: Says) -> Verdict {
    let mut cluster = Cluster::with(2, |me| {
        let mut desired = desired(2, 1, safety, me);
        desired.groups[0].failback = Failback::After(Duration::ZERO);
        desired.groups[0].prefer = vec![NodeId::of(if prefers_me { "lb1" } else { "lb2" })];
        desired
    });
    let other = usize::from(owns);
    cluster.give(other, Event::Link { link: LINK, up: false });
    cluster.settle();
    let (now, node) = (cluster.now, &mut cluster.nodes[0]);
    assert_eq!(node.owned[0].holding().is_some(), owns);
    let group = node.desired.groups[0].id;
    // A carrier that has come back is not trusted for a while, which is not the question here.
    node.links_down.clear();
    node.damping = Damping::default();
    match is {
        Fit => {}
        Unfit => node.owned[0].fitness = Fitness::NoBackend,
        Drained => node.draining = Some(String::new()),
        Stopping => node.stop_at = Some(now + LEASE),
        WithoutCarrier => node.links_down.push(LINK),
        Listening => node.listening_until = now + LEASE_MAX * 5,
    }
    let (kind, to) = match says {
        Nothing | Eligible => (ClaimKind::Eligible, NodeId(0)),
        Reluctant => (ClaimKind::Reluctant, NodeId(0)),
        Wants | WantsInVain => (ClaimKind::Wants, NodeId(0)),
        Holds => (ClaimKind::Holds, NodeId(0)),
        YieldsToMe => (ClaimKind::Yields, node.desired.me),
        YieldsToAnyone => (ClaimKind::Yields, NodeId(0)),
        YieldsToAnother => (ClaimKind::Yields, HEIR),
    };
    let since = if matches!(says, WantsInVain) { Instant::ZERO } else { now };
    let claim = Claim { to, ..Claim::new(group, kind, Epoch(9)) };
    let offer = Offer { claim, since, kind_since: since };
    node.peers[0].offers = if matches!(says, Nothing) { vec![] } else { vec![offer] };
    let now = now + if matches!(says, WantsInVain) { LEASE_MAX * 4 } else { Duration::ZERO };
    judge::look(node, now);
    match judge::judge(node, now, 0) {
        Judgement::Take { from: None, .. } => Take,
        Judgement::Take { from: Some(from), .. } => {
            assert_eq!(from, node.peers[0].id);
            TakeFromPeer
        }
        Judgement::Leave => Leave,
        Judgement::Yield { to, .. } => {
            assert_eq!(to, node.peers[0].id, "a yield names its successor");
            YieldToPeer
        }
        Judgement::GiveUp(_) => GiveUp,
    }
}

/// A row: the state of this node, then what it does for each of `SAYS`.
type Row = (Is, [Verdict; 9]);

fn hold(safety: Safety, owns: bool, prefers_me: bool, rows: &[Row]) {
    for (is, row) in rows {
        for (says, expected) in SAYS.into_iter().zip(row) {
            let found = verdict(safety, owns, prefers_me, *is, says);
            let case = (safety, is, says);
            assert_eq!(found, *expected, "{case:?}: owns {owns}, prefers me {prefers_me}");
        }
    }
}

#[test]
fn a_group_of_others_is_taken_by_the_best_of_those_who_can_and_from_whoever_yields_it_here() {
    // An heir that is not in the configuration is nobody: the owner yields to anyone.
    let never = [Leave; 9];
    let from = TakeFromPeer;
    let best: &[Row] = &[
        (Fit, [Take, Take, Take, Take, Take, Leave, from, from, from]),
        (Unfit, [Take, Leave, Take, Leave, Leave, Leave, from, from, from]),
        (Drained, never),
        (Stopping, never),
        (WithoutCarrier, never),
        (Listening, never),
    ];
    let second: &[Row] = &[
        (Fit, [Take, Leave, Take, Leave, Take, Leave, from, from, from]),
        (Unfit, [Take, Leave, Leave, Leave, Leave, Leave, from, from, from]),
        (Drained, never),
        (Stopping, never),
        (WithoutCarrier, never),
        (Listening, never),
    ];
    for safety in [Safety::Exclusive, Safety::Available] {
        hold(safety, false, true, best);
        hold(safety, false, false, second);
    }
}

#[test]
fn a_group_of_ours_is_given_away_for_a_reason_and_to_somebody() {
    let to = YieldToPeer;
    let out = [GiveUp; 9];
    let best: &[Row] = &[
        (Fit, [Take; 9]),
        (Unfit, [Take, to, Take, Take, Take, to, Take, Take, Take]),
        (Drained, [Take, to, to, to, to, to, Take, Take, Take]),
        (Stopping, [GiveUp, to, to, to, GiveUp, to, GiveUp, GiveUp, GiveUp]),
        (WithoutCarrier, out),
        (Listening, [Take; 9]),
    ];
    hold(Safety::Exclusive, true, true, best);
    let second: &[Row] = &[
        (Fit, [Take, to, Take, Take, Take, Take, Take, Take, Take]),
        (Unfit, [Take, to, Take, Take, Take, to, Take, Take, Take]),
        (Drained, [Take, to, to, to, to, to, Take, Take, Take]),
    ];
    hold(Safety::Exclusive, true, false, second);
    // Two owners: the better one by name stays, whatever else is the matter.
    let both: &[Row] = &[(Fit, [Take, to, Take, Take, Take, GiveUp, Take, Take, Take])];
    hold(Safety::Available, true, false, both);
    hold(Safety::Available, true, true, &[(Fit, [Take; 9])]);
}

/// The owner among three, cut off from the others, which look alive to it for ever.
fn lonely(change: impl Fn(&mut Desired)) -> (Cluster, usize) {
    let mut cluster = Cluster::with(3, |me| {
        let mut desired = desired(3, 1, Safety::Exclusive, me);
        change(&mut desired);
        desired
    });
    cluster.settle();
    let owner = cluster.owner(0);
    (cluster, owner)
}

fn named(node: &mut Node, now: Instant) -> Option<NodeId> {
    judge::look(node, now);
    match judge::judge(node, now, 0) {
        Judgement::Yield { to, .. } => Some(to),
        Judgement::Take { .. } | Judgement::Leave | Judgement::GiveUp(_) => None,
    }
}

#[test]
fn a_successor_that_does_not_come_forward_is_passed_over() {
    let (mut cluster, owner) = lonely(|_| {});
    let (start, node) = (cluster.now, &mut cluster.nodes[owner]);
    node.draining = Some(String::new());
    let first = named(node, start).unwrap();
    assert_eq!(named(node, start + SUCCESSOR_PATIENCE - BEAT), Some(first), "it has its time");
    let second = named(node, start + SUCCESSOR_PATIENCE).unwrap();
    assert_ne!(second, first);
    assert_eq!(node.verdicts.review_at, Some(start + SUCCESSOR_PATIENCE), "it looks by itself");
    assert_eq!(named(node, start + SUCCESSOR_PATIENCE * 2), Some(first), "and round again");
    node.peers.iter_mut().filter(|p| p.id == first).for_each(|p| p.draining = true);
    assert_eq!(named(node, start + SUCCESSOR_PATIENCE * 2 + BEAT), Some(second));
}

#[test]
fn a_better_node_that_does_not_come_forward_is_left_in_peace() {
    let (mut cluster, owner) = lonely(|_| {});
    let (start, node) = (cluster.now, &mut cluster.nodes[owner]);
    let better = node.peers[0].id;
    let mut desired = (*node.desired).clone();
    desired.groups[0].prefer = vec![better];
    desired.groups[0].failback = Failback::After(Duration::ZERO);
    node.desired = Arc::new(desired);
    assert_eq!(named(node, start), Some(better));
    let over = start + SUCCESSOR_PATIENCE;
    assert_eq!(named(node, over - BEAT), Some(better));
    assert_eq!(named(node, over), None, "nothing is wrong here");
    assert_eq!(named(node, over + SUCCESSOR_RETRY - BEAT), None);
    assert_eq!(named(node, over + SUCCESSOR_RETRY), Some(better));
}
