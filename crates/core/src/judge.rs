//! Judges, for each group, what this node should do about it: from what it hears of the others.

use crate::Node;
use crate::ownership::Judgement;
use crate::peer::Offer;
use crate::placement::{self, Loads, Members, Place};
use alloc::vec::Vec;
use buoy_model::limits::{NODES_MAX, PASSED_OVER_AFTER};
use buoy_model::{
    Action, Cause, ClaimKind, Epoch, Fact, Failback, Group, Instant, NodeId, Record, Safety,
};
use core::time::Duration;

/// What was seen at the last look, and what is remembered between looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdicts {
    loads: Loads,
    /// Who served each group last, and how that ended; one for each of `Desired::groups`.
    pub(crate) last_owner: Vec<LastOwner>,
    /// When time alone may change a judgement.
    pub(crate) review_at: Option<Instant>,
    /// One group at a time moves for the sake of balance.
    moving: bool,
}

/// Who else could take a group.
#[derive(Clone, Copy, Debug)]
struct Field {
    members: Members,
    /// They see their backends up.
    fit: bool,
}

/// How the last known owner of a group ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum LastOwner {
    #[default]
    Nobody,
    Serves {
        node: NodeId,
        since: Instant,
    },
    Released {
        node: NodeId,
    },
    Silent {
        node: NodeId,
        silent: Duration,
    },
}

impl Node {
    /// Whether this node could own the group at all: allowed, with all its interfaces up.
    pub(crate) fn is_able(&self, group: &Group) -> bool {
        group.nodes.binary_search(&self.desired.me).is_ok()
            && group
                .addresses
                .iter()
                .all(|a| a.link.is_some_and(|link| !self.links_down.contains(&link)))
    }

    /// Whether this node may take more than it has.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.draining.is_none() && !self.is_stopping() && self.listening_until <= now
    }

    fn id(&self, index: usize) -> NodeId {
        self.desired.nodes[index].id
    }

    /// Peers that could take the group: of those that offer themselves, the ones that see their
    /// backends up; of those, the ones that have not long asked in vain.
    fn candidates(&self, now: Instant, group: &Group) -> Field {
        let mut all = Members::default();
        let mut fit = Members::default();
        let mut hopeful = Members::default();
        for peer in self.peers.iter().filter(|p| p.is_alive() && !p.draining) {
            let Some(offer) = peer.offer(group.id) else { continue };
            all.insert(peer.index);
            if offer.claim.kind == ClaimKind::Reluctant {
                continue;
            }
            fit.insert(peer.index);
            if !offer.in_vain(now, PASSED_OVER_AFTER) {
                hopeful.insert(peer.index);
            }
        }
        match (hopeful.is_empty(), fit.is_empty()) {
            (false, true | false) => Field { members: hopeful, fit: true },
            (true, false) => Field { members: fit, fit: true },
            (true, true) => Field { members: all, fit: false },
        }
    }

    /// The live peer that serves the group; the best one if there are several.
    pub(crate) fn rival(&self, group: &Group) -> Option<(usize, &Offer)> {
        self.peers
            .iter()
            .filter_map(|p| p.serves(group.id).map(|o| (p.index, o)))
            .min_by_key(|(i, o)| (o.claim.kind, placement::place(group, self.id(*i), 0)))
    }

    /// The live owner that gives the group away.
    fn yielding(&self, group: &Group) -> Option<NodeId> {
        let (owner, offer) = self.rival(group)?;
        (offer.claim.kind == ClaimKind::Yields).then(|| self.id(owner))
    }

    /// Notes who serves what after a peer's claims have changed.
    pub(crate) fn watch_owners(&mut self, now: Instant, at: usize, out: &mut Vec<Action>) {
        self.verdicts.last_owner.resize(self.desired.groups.len(), LastOwner::Nobody);
        let peer = &self.peers[at];
        for (i, group) in self.desired.groups.iter().enumerate() {
            let last = &mut self.verdicts.last_owner[i];
            let offer = peer.offer(group.id);
            if let Some(offer) = offer {
                self.owned[i].epoch = self.owned[i].epoch.max(offer.claim.epoch);
            }
            let was = matches!(last, LastOwner::Serves { node, .. } if *node == peer.id);
            match offer.filter(|o| o.claim.kind.serves()) {
                Some(offer) if !was => {
                    *last = LastOwner::Serves { node: peer.id, since: now };
                    let fact = Fact::OwnerHeard { node: peer.id, epoch: offer.claim.epoch };
                    let record = Record { at: now, group: Some(group.id), fact };
                    if self.owned[i].holding().is_none() {
                        self.owned[i].last_change = Some(record.clone());
                    }
                    out.push(Action::Record(record));
                }
                None if was => *last = LastOwner::Released { node: peer.id },
                Some(_) | None => {}
            }
        }
    }

    /// A peer fell silent.
    pub(crate) fn lose(
        &mut self,
        now: Instant,
        at: usize,
        silent: Duration,
        out: &mut Vec<Action>,
    ) {
        let node = self.peers[at].id;
        let fact = Fact::PeerDown { node, silent };
        out.push(Action::Record(Record { at: now, group: None, fact }));
        for last in &mut self.verdicts.last_owner {
            if matches!(last, LastOwner::Serves { node: owner, .. } if *owner == node) {
                *last = LastOwner::Silent { node, silent };
            }
        }
        self.unsettled = true;
    }

    fn review(&mut self, at: Instant) {
        let known = self.verdicts.review_at;
        self.verdicts.review_at = Some(known.map_or(at, |known| known.min(at)));
    }
}

/// Counts what everyone serves, before the groups are judged one by one.
pub(crate) fn look(node: &mut Node, now: Instant) {
    node.verdicts.last_owner.resize(node.desired.groups.len(), LastOwner::Nobody);
    node.verdicts.loads = [0; NODES_MAX];
    node.verdicts.moving = false;
    if now < node.listening_until {
        node.review(node.listening_until);
    }
    for peer in node.peers.iter().filter(|p| p.is_alive()) {
        let served = peer.offers.iter().filter(|o| o.claim.kind.serves()).count();
        node.verdicts.loads[peer.index] = u16::try_from(served).unwrap_or(u16::MAX);
    }
    let mine = node.owned.iter().filter(|o| o.holding().is_some()).count();
    node.verdicts.loads[node.me] = u16::try_from(mine).unwrap_or(u16::MAX);
}

/// What to do about one group.
pub(crate) fn judge(node: &mut Node, now: Instant, i: usize) -> Judgement {
    let desired = alloc::sync::Arc::clone(&node.desired);
    let group = &desired.groups[i];
    if node.never_claims() {
        return Judgement::Leave;
    }
    match node.owned[i].holding().is_some() {
        true => judge_held(node, now, group, i),
        false => judge_other(node, now, group, i),
    }
}

/// A group that this node does not serve.
fn judge_other(node: &mut Node, now: Instant, group: &Group, i: usize) -> Judgement {
    let Field { members: mut candidates, fit } = node.candidates(now, group);
    let able = node.is_able(group) && node.is_open(now);
    let cause = match (node.rival(group), group.safety) {
        (Some((_, offer)), Safety::Available) if offer.claim.kind == ClaimKind::Yields => {
            Cause::OwnerReleased { node: node.rival(group).map_or(NodeId(0), |(i, _)| node.id(i)) }
        }
        (Some(_), Safety::Exclusive | Safety::Available) => return Judgement::Leave,
        (None, Safety::Exclusive | Safety::Available) => match node.verdicts.last_owner[i] {
            LastOwner::Nobody | LastOwner::Serves { .. } => Cause::NoOwner,
            LastOwner::Released { node } => Cause::OwnerReleased { node },
            LastOwner::Silent { node, silent } => Cause::OwnerSilent { node, silent },
        },
    };
    if let Some((yielding, _)) = node.rival(group) {
        candidates = candidates.without(yielding);
    }
    match (able, node.owned[i].is_fit(), fit) {
        (true, true, false) => candidates = Members::default().with(node.me),
        (true, true, true) | (true, false, false) => candidates.insert(node.me),
        (true, false, true) | (false, true | false, true | false) => {}
    }
    for peer in &node.peers {
        if let Some(offer) = peer.offer(group.id).filter(|o| o.claim.kind == ClaimKind::Wants) {
            let at = offer.kind_since + PASSED_OVER_AFTER;
            if now < at {
                node.verdicts.review_at = Some(node.verdicts.review_at.map_or(at, |r| r.min(at)));
            }
        }
    }
    let loads = node.verdicts.loads;
    let Some(best) = placement::best(group, candidates, &loads, |i| node.id(i)) else {
        return Judgement::Leave;
    };
    node.verdicts.loads[best] += 1;
    if best == node.me {
        Judgement::Take { cause, from: node.yielding(group) }
    } else {
        Judgement::Leave
    }
}

/// A group that this node serves.
fn judge_held(node: &mut Node, now: Instant, group: &Group, i: usize) -> Judgement {
    if !node.is_able(group) {
        let down = group.addresses.iter().filter_map(|a| a.link);
        let lost = down.into_iter().find(|l| node.links_down.contains(l));
        return Judgement::GiveUp(lost.map_or(Cause::Reload, |link| Cause::CarrierLost { link }));
    }
    if let Some(judgement) = judge_rival(node, group, i) {
        return judgement;
    }
    let Field { members: others, fit: others_fit } = node.candidates(now, group);
    if let Some(stop_at) = node.stop_at {
        let alone = others.is_empty() || stop_at <= now;
        return if alone {
            Judgement::GiveUp(Cause::Stop)
        } else {
            Judgement::Yield { cause: Cause::Stop, to: NodeId(0) }
        };
    }
    if node.draining.is_some() {
        // With nobody to take it, an outage would be all that the drain achieves.
        return if others.is_empty() {
            Judgement::Leave
        } else {
            Judgement::Yield { cause: Cause::Drain, to: NodeId(0) }
        };
    }
    match (node.owned[i].is_fit(), others_fit) {
        (false, true) => Judgement::Yield { cause: Cause::NoBackend, to: NodeId(0) },
        (true, true) | (false, false) => judge_failback(node, now, group, others),
        (true, false) => Judgement::Take { cause: Cause::NoOwner, from: None },
    }
}

/// Somebody else serves it too, which only `Safety::Available` allows.
fn judge_rival(node: &Node, group: &Group, i: usize) -> Option<Judgement> {
    let (rival, offer) = node.rival(group)?;
    let holding = node.owned[i].holding()?;
    let theirs = node.id(rival);
    if let Some((cause, _)) = &holding.yielding {
        return Some(Judgement::GiveUp(cause.clone()));
    }
    match (group.safety, offer.claim.kind) {
        // A late word of a lease that is over: ours stands on a majority.
        (
            Safety::Exclusive,
            ClaimKind::Yields
            | ClaimKind::Holds
            | ClaimKind::Wants
            | ClaimKind::Eligible
            | ClaimKind::Reluctant,
        ) => None,
        (Safety::Available, ClaimKind::Yields) => None,
        (
            Safety::Available,
            ClaimKind::Holds | ClaimKind::Wants | ClaimKind::Eligible | ClaimKind::Reluctant,
        ) => {
            let better = static_place(group, theirs) < static_place(group, node.id(node.me));
            better.then_some(Judgement::GiveUp(Cause::BetterOwner { node: theirs }))
        }
    }
}

/// Whether a better node has been fit for long enough to get it back.
fn judge_failback(node: &mut Node, now: Instant, group: &Group, others: Members) -> Judgement {
    let keep = Judgement::Take { cause: Cause::NoOwner, from: None };
    let Failback::After(delay) = group.failback else { return keep };
    let loads = node.verdicts.loads;
    let Some(best) = placement::best(group, others, &loads, |i| node.id(i)) else { return keep };
    let theirs = placement::place(group, node.id(best), 0);
    let ours = placement::place(group, node.id(node.me), 0);
    // Only the fullest node gives, or two would give to the same at once and one take back.
    let fullest = (0..NODES_MAX).rev().max_by_key(|i| loads[*i]) == Some(node.me);
    let relieves = fullest && loads[best] + 2 <= loads[node.me] && !node.verdicts.moving;
    let better =
        theirs.preferred < ours.preferred || (theirs.preferred == ours.preferred && relieves);
    if !better {
        return keep;
    }
    let offered = node.peers.iter().find(|p| p.index == best).and_then(|p| p.offer(group.id));
    let fit_at = offered.map_or(now, |o| o.since) + delay;
    if now < fit_at {
        node.review(fit_at);
        return keep;
    }
    node.verdicts.moving |= theirs.preferred == ours.preferred;
    node.verdicts.loads[best] += 1;
    node.verdicts.loads[node.me] = node.verdicts.loads[node.me].saturating_sub(1);
    Judgement::Yield { cause: Cause::Failback { to: node.id(best) }, to: node.id(best) }
}

/// A member's place whatever the loads: both sides of a healed cut agree on it.
fn static_place(group: &Group, node: NodeId) -> Place {
    placement::place(group, node, 0)
}

/// The highest epoch that anyone has heard of, for people.
pub(crate) fn epoch(node: &Node, i: usize) -> Epoch {
    node.owned[i].epoch.max(node.voter.epoch(node.desired.groups[i].id))
}
