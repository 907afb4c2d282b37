//! Judges, for each group, what this node should do about it: from what it hears of the others.

use crate::Node;
use crate::last_owner::LastOwner;
use crate::orders::MOVED_HERE;
use crate::ownership::{Judgement, State};
use crate::peer::Offer;
use crate::placement::{self, Members};
use crate::reluctance::Reluctance;
use crate::view::{Errand, Handover, Note, SUCCESSOR_PATIENCE, SUCCESSOR_RETRY, View};
use alloc::vec::Vec;
use buoy_model::limits::PASSED_OVER_AFTER;
use buoy_model::{Cause, ClaimKind, Epoch, Failback, Group, Instant, NodeId, Safety};
use core::time::Duration;

/// What has just come is not given on for the better: while two nodes see different parts of the
/// cluster, each may think that the other is the better place.
const STAYS_AT_LEAST: Duration = Duration::from_secs(1);

/// What was seen at the last look, and what is remembered between looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdicts {
    pub(crate) view: View,
    /// Who served each group last, and how that ended; one for each of `Desired::groups`.
    pub(crate) last_owner: Vec<LastOwner>,
    /// When time alone may change a judgement.
    pub(crate) review_at: Option<Instant>,
    /// When the first hold, or the drain, ends by itself.
    pub(crate) orders_end_at: Option<Instant>,
    /// When each peer that fell silent was heard last before.
    pub(crate) unheard_since: Vec<(NodeId, Instant)>,
    /// How often two nodes turned out to have served a group at once.
    pub(crate) overlaps: u64,
}

/// Who else could take a group.
#[derive(Clone, Copy, Debug)]
struct Field {
    members: Members,
    /// They see their backends up, pass their checks and are heard.
    fit: bool,
    /// They have not long asked in vain.
    hopeful: bool,
}

impl Node {
    /// Whether this node could own the group at all: allowed, with all its interfaces up.
    pub(crate) fn is_able(&self, group: &Group) -> bool {
        group.nodes.binary_search(&self.desired.me).is_ok()
            && !self.desired.nodes.get(self.me).is_some_and(|n| n.witness)
            && group
                .addresses
                .iter()
                .all(|a| a.link.is_some_and(|link| !self.links_down.contains(&link)))
    }

    /// Whether this node may take more than it has.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        !self.gives_away() && self.listening_until <= now
    }

    /// Whether to ask for votes can succeed at all. Whoever is heard and hears nobody would keep the
    /// promises of those who hear it, and serve nothing.
    pub(crate) fn may_ask(&self, group: &Group) -> bool {
        let heard = self.peers.iter().filter(|p| p.is_alive()).count();
        match group.safety {
            Safety::Exclusive => self.majority(&self.desired) <= heard + 1,
            Safety::Available => true,
        }
    }

    /// Whether this node gives away what it has.
    pub(crate) const fn gives_away(&self) -> bool {
        self.draining.is_some() || self.is_stopping()
    }

    pub(crate) fn id(&self, index: usize) -> NodeId {
        self.desired.nodes[index].id
    }

    /// Peers that could take the group: of those that offer themselves, the ones that are fit; of
    /// those, the ones that have not long asked in vain.
    fn candidates(&self, now: Instant, group: &Group) -> Field {
        let mut all = Members::NONE;
        let mut fit = Members::NONE;
        let mut hopeful = Members::NONE;
        let ours = self.desired.group_index(group.id).map(|i| &self.owned[i]);
        let holds = ours.is_some_and(|o| o.holding().is_some());
        let to = ours.map_or(NodeId(0), crate::ownership::Ownership::yields_to);
        for peer in self.peers.iter().filter(|p| p.is_alive() && !p.draining) {
            let Some(offer) = peer.offer(group.id) else { continue };
            let is_fit = match offer.claim.kind {
                // It would give it away again.
                ClaimKind::Yields => continue,
                ClaimKind::Reluctant => false,
                // Whoever asks for a group that has an owner has not heard of it yet, and may turn
                // out to be reluctant; unless it was named by the owner.
                ClaimKind::Wants => !holds || to == peer.id,
                ClaimKind::Eligible | ClaimKind::Holds => true,
            };
            if self.desired.nodes[peer.index].witness {
                continue;
            }
            all.insert(peer.index);
            if !is_fit {
                continue;
            }
            fit.insert(peer.index);
            if !offer.in_vain(now, PASSED_OVER_AFTER) {
                hopeful.insert(peer.index);
            }
        }
        match (hopeful.is_empty(), fit.is_empty()) {
            (false, true | false) => Field { members: hopeful, fit: true, hopeful: true },
            (true, false) => Field { members: fit, fit: true, hopeful: false },
            (true, true) => Field { members: all, fit: false, hopeful: false },
        }
    }

    /// The live peers that an operator could move the group to.
    pub(crate) fn could_take(&self, now: Instant, group: &Group, to: usize) -> bool {
        let Field { members, fit, .. } = self.candidates(now, group);
        fit && members.contains(to)
    }

    /// The live peer that serves the group; the best one if there are several.
    pub(crate) fn rival(&self, group: &Group) -> Option<(usize, &Offer)> {
        self.peers.iter().filter_map(|p| p.serves(group.id).map(|o| (p.index, o))).min_by_key(
            |(i, o)| (o.claim.kind, placement::static_place(group, &self.desired.nodes[*i])),
        )
    }
}

/// Counts what everyone serves, before the groups are judged one by one.
pub(crate) fn look(node: &mut Node, now: Instant) {
    node.verdicts.last_owner.resize(node.desired.groups.len(), LastOwner::Nobody);
    let mut view = core::mem::take(&mut node.verdicts.view);
    view.look(node, now);
    node.verdicts.view = view;
}

/// What to do about one group.
pub(crate) fn judge(node: &mut Node, now: Instant, i: usize) -> Judgement {
    let mut view = core::mem::take(&mut node.verdicts.view);
    let judgement = decide(node, &mut view, now, i);
    if let Some(at) = view.review_at.take() {
        let known = node.verdicts.review_at;
        node.verdicts.review_at = Some(known.map_or(at, |known| known.min(at)));
    }
    node.verdicts.view = view;
    judgement
}

/// The judgement, from a view that it changes for the next one.
pub(crate) fn decide(node: &Node, view: &mut View, now: Instant, i: usize) -> Judgement {
    if node.never_claims() {
        return Judgement::Leave;
    }
    match &node.owned[i].state {
        State::Holding(_) => {
            view.set_plans_aside(node);
            decide_held(node, view, now, i)
        }
        State::Idle { .. } | State::Wanting { .. } => {
            view.let_go(i);
            decide_other(node, view, now, i)
        }
    }
}

/// A group that this node does not serve.
fn decide_other(node: &Node, view: &mut View, now: Instant, i: usize) -> Judgement {
    let group = &node.desired.groups[i];
    let able = node.is_able(group) && node.is_open(now) && node.may_ask(group);
    let rival = node.rival(group).map(|(index, offer)| (index, offer.claim));
    let (cause, owner) = match rival {
        Some((owner, claim)) => match claim.kind {
            ClaimKind::Yields => (taken_from(node, owner, claim.held), Some(owner)),
            ClaimKind::Holds | ClaimKind::Wants | ClaimKind::Eligible | ClaimKind::Reluctant => {
                view.note_heir(i, None);
                return Judgement::Leave;
            }
        },
        None => (node.verdicts.last_owner.get(i).copied().unwrap_or_default().orphaned(), None),
    };
    let from = owner.map(|owner| node.id(owner));
    if let Some((_, claim)) = rival {
        view.note_heir(i, node.desired.node_index(claim.to));
    }
    review_askers(node, view, now, group);
    // Whom the owner named goes first, and nobody else is to ask for it meanwhile.
    match (view.heir(i), owner) {
        (Some(heir), Some(_)) if heir == node.me && able => {
            if rival.is_some_and(|(_, claim)| claim.held) {
                view.notes.push((i, Note::Pinned));
            }
            return Judgement::Take { cause, from };
        }
        (Some(_), Some(_)) => return Judgement::Leave,
        (Some(heir), None) if comes_forward(node, now, group, i, heir) => {
            view.count(i, heir);
            let mine = heir == node.me && able;
            return if mine { Judgement::Take { cause, from } } else { Judgement::Leave };
        }
        (Some(_), None) => view.note_heir(i, None),
        (None, Some(_) | None) => {}
    }
    let Field { members, fit, hopeful } = node.candidates(now, group);
    let is_fit = node.reluctance(now, i).is_none();
    // Those who ask in vain are passed over by one that is fit and does not.
    let passes = is_fit && fit && !hopeful && !asks_in_vain(node, now, i);
    let candidates = match (able, is_fit, fit && !passes) {
        (true, true, false) => Members::NONE.with(node.me),
        (true, true, true) | (true, false, false) => members.with(node.me),
        (true, false, true) | (false, true | false, true | false) => members,
    };
    let Some(best) = view.best(&node.desired, i, candidates) else { return Judgement::Leave };
    view.plan(i, best);
    if best == node.me { Judgement::Take { cause, from } } else { Judgement::Leave }
}

/// Who goes before everybody else: whom the owner has named, as long as it may come forward.
pub(crate) fn heir(node: &Node, view: &View, now: Instant, i: usize) -> Option<usize> {
    let group = &node.desired.groups[i];
    if node.owned[i].holding().is_some() {
        let Field { members, .. } = node.candidates(now, group);
        let next = || view.handover(i).and_then(|_| successor(node, view, (now, i), members));
        return ordered_to(node, now, i).or_else(|| next().map(|h| h.to));
    }
    match node.rival(group) {
        Some((_, offer)) => node.desired.node_index(offer.claim.to),
        None => view.heir(i).filter(|heir| comes_forward(node, now, group, i, *heir)),
    }
}

/// Whether this node itself has long asked for the group in vain.
fn asks_in_vain(node: &Node, now: Instant, i: usize) -> bool {
    match &node.owned[i].state {
        State::Wanting { since, .. } => now.since(*since) >= PASSED_OVER_AFTER,
        State::Idle { .. } | State::Holding(_) => false,
    }
}

/// Whether the one that was named still asks for the group, now that its owner has let go.
fn comes_forward(node: &Node, now: Instant, group: &Group, i: usize, heir: usize) -> bool {
    if heir == node.me {
        return matches!(node.owned[i].state, State::Wanting { .. });
    }
    let peer = node.peers.iter().find(|p| p.index == heir && p.is_alive());
    let offer = peer.and_then(|p| p.offer(group.id));
    offer.is_some_and(|o| o.claim.kind == ClaimKind::Wants && !o.in_vain(now, PASSED_OVER_AFTER))
}

/// Why a group whose owner yields comes here.
fn taken_from(node: &Node, owner: usize, moved: bool) -> Cause {
    if moved {
        Cause::Moved { to: node.desired.me, reason: MOVED_HERE.into() }
    } else {
        Cause::OwnerReleased { node: node.id(owner) }
    }
}

/// Whoever asks in vain is passed over after a while: look again then.
fn review_askers(node: &Node, view: &mut View, now: Instant, group: &Group) {
    for peer in &node.peers {
        let Some(offer) = peer.offer(group.id) else { continue };
        let at = offer.kind_since + PASSED_OVER_AFTER;
        if offer.claim.kind == ClaimKind::Wants && now < at {
            view.review(at);
        }
    }
}

/// A group that this node serves: first what forbids it, then what orders say, then what is better.
fn decide_held(node: &Node, view: &mut View, now: Instant, i: usize) -> Judgement {
    let group = &node.desired.groups[i];
    if !node.is_able(group) {
        let down = group.addresses.iter().filter_map(|a| a.link);
        let lost = down.into_iter().find(|l| node.links_down.contains(l));
        return Judgement::GiveUp(lost.map_or(Cause::Reload, |link| Cause::CarrierLost { link }));
    }
    if let Some(judgement) = decide_rival(node, group, i) {
        return judgement;
    }
    let Field { members: others, fit, .. } = node.candidates(now, group);
    if node.stop_at.is_some_and(|at| others.is_empty() || at <= now) {
        return Judgement::GiveUp(Cause::Stop);
    }
    if let Some(judgement) = decide_move(node, view, now, i) {
        return judgement;
    }
    if node.stop_at.is_some() {
        return yield_to_best(node, view, (now, i), others, Cause::Stop);
    }
    if node.draining.is_some() {
        // With nobody to take it, an outage would be all that the drain achieves.
        return yield_to_best(node, view, (now, i), others, Cause::Drain);
    }
    // What died for all of us died for each at a moment of its own: let them notice.
    let deaf = deaf_since(node, i).map(|since| since + node.silence());
    let unserved = node.owned[i].unserved_since.map(|since| since + asked_every(group));
    if let Some(patience) = deaf.max(unserved).filter(|patience| fit && now < *patience) {
        view.review(patience);
        return keep(node, view, i);
    }
    match node.reluctance(now, i).and_then(Reluctance::cause) {
        Some(Cause::NoBackend) if fit && !node.owned[i].has_served => {
            let others = with_this_file(node, others);
            yield_to_best(node, view, (now, i), others, Cause::NoBackend)
        }
        Some(cause) if fit => yield_to_best(node, view, (now, i), others, cause),
        None if fit && may_leave(node, group, i) => decide_failback(node, view, now, i, others),
        Some(_) | None => keep(node, view, i),
    }
}

/// Whether it may go to a better place: nobody holds it here, or all that is here, and nobody else is
/// letting it go.
fn may_leave(node: &Node, group: &Group, i: usize) -> bool {
    !node.is_held(i) && node.rival(group).is_none()
}

/// Those who have the same file: who has another one may be fit because it lacks the service whose backends were never
/// seen here.
fn with_this_file(node: &Node, others: Members) -> Members {
    let has_another = |i: &usize| {
        node.peers.iter().any(|p| p.index == *i && p.digest != Some(node.desired.digest))
    };
    others.iter().filter(has_another).fold(others, Members::without)
}

/// How far apart two nodes may be that see the same backend die.
fn asked_every(group: &Group) -> Duration {
    let checks = group.services.iter().filter_map(|service| service.check.as_ref());
    checks.map(|check| check.pace.every).max().unwrap_or_default()
}

/// Since when nobody is heard where the group is announced.
fn deaf_since(node: &Node, i: usize) -> Option<Instant> {
    let links = node.desired.groups[i].addresses.iter().filter_map(|a| a.link);
    links.filter_map(|link| node.legs.deaf_since(link)).min()
}

fn keep(node: &Node, view: &mut View, i: usize) -> Judgement {
    view.keep(i, node.me);
    Judgement::Take { cause: Cause::NoOwner, from: None }
}

/// Somebody else serves it too, which only `Safety::Available` allows.
fn decide_rival(node: &Node, group: &Group, i: usize) -> Option<Judgement> {
    let (rival, offer) = node.rival(group)?;
    let holding = node.owned[i].holding()?;
    // An owner that is giving it to us is about to stop: to stop as well would leave it to nobody.
    let to_us = [node.desired.me, NodeId(0)].contains(&offer.claim.to);
    let gives = offer.claim.kind == ClaimKind::Yields && to_us;
    if let Some(yielding) = holding.yielding.as_ref().filter(|_| !gives) {
        return Some(Judgement::GiveUp(yielding.cause.clone()));
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
            let place = |member: usize| placement::static_place(group, &node.desired.nodes[member]);
            let node_id = node.id(rival);
            (place(rival) < place(node.me))
                .then_some(Judgement::GiveUp(Cause::BetterOwner { node: node_id }))
        }
    }
}

/// To whom an operator moves it, if that one can take it and has time to.
fn ordered_to(node: &Node, now: Instant, i: usize) -> Option<usize> {
    let wish = node.owned[i].orders.moving.as_ref()?;
    let to = node.desired.node_index(wish.to)?;
    let in_time = now < wish.since + SUCCESSOR_PATIENCE;
    (in_time && node.could_take(now, &node.desired.groups[i], to)).then_some(to)
}

/// An operator moves it: to that node and to no other, or not at all.
fn decide_move(node: &Node, view: &mut View, now: Instant, i: usize) -> Option<Judgement> {
    let wish = node.owned[i].orders.moving.as_ref()?;
    let Some(to) = ordered_to(node, now, i) else {
        view.notes.push((i, Note::MoveFailed));
        return None;
    };
    view.review(wish.since + SUCCESSOR_PATIENCE);
    view.hand(i, node.me, Handover::new(to, wish.since, Errand::Order));
    let cause = Cause::Moved { to: wish.to, reason: wish.reason.clone() };
    Some(Judgement::Yield { cause, to: wish.to })
}

/// Whom to name of the others: the same as before, or the best that was not named in vain.
fn successor(
    node: &Node,
    view: &View,
    (now, i): (Instant, usize),
    others: Members,
) -> Option<Handover> {
    let before = view.handover(i);
    let in_time = before.filter(|h| others.contains(h.to) && h.has_time(now));
    in_time.map(Handover::must).or_else(|| {
        let (line, tried) = Handover::line(before, others);
        let to = view.best(&node.desired, i, line)?;
        Some(Handover::new(to, now, Errand::Must).after(tried))
    })
}

/// It has to go: to the best of the others, and to the next best if that one does not come forward.
fn yield_to_best(
    node: &Node,
    view: &mut View,
    (now, i): (Instant, usize),
    others: Members,
    cause: Cause,
) -> Judgement {
    let Some(next) = successor(node, view, (now, i), others) else {
        // With nobody to take it, it is better off here.
        return keep(node, view, i);
    };
    view.hand(i, node.me, next);
    view.review(next.since + SUCCESSOR_PATIENCE);
    Judgement::Yield { cause, to: node.id(next.to) }
}

/// Whether a better node has been fit for long enough to get it back.
fn decide_failback(
    node: &Node,
    view: &mut View,
    now: Instant,
    i: usize,
    others: Members,
) -> Judgement {
    let group = &node.desired.groups[i];
    let Failback::After(delay) = group.failback else { return keep(node, view, i) };
    let give = |to: usize| Judgement::Yield {
        cause: Cause::Failback { to: node.id(to) },
        to: node.id(to),
    };
    match view.handover(i).filter(|h| h.errand == Errand::Better) {
        Some(h) if others.contains(h.to) && h.has_time(now) => {
            view.review(h.since + SUCCESSOR_PATIENCE);
            return give(h.to);
        }
        // It did not come forward, and nothing is wrong here: leave it in peace for a while.
        Some(_) => view.rest(i, now + SUCCESSOR_RETRY),
        None => {}
    }
    view.keep(i, node.me);
    if now < view.resting_until(i) {
        view.review(view.resting_until(i));
        return keep(node, view, i);
    }
    let came_at = node.owned[i].holding().map_or(now, |h| h.since);
    if now < came_at + STAYS_AT_LEAST {
        view.review(came_at + STAYS_AT_LEAST);
        return keep(node, view, i);
    }
    let Some(to) = better(node, view, i, others) else { return keep(node, view, i) };
    let offered = node.peers.iter().find(|p| p.index == to).and_then(|p| p.offer(group.id));
    let fit_at = offered.map_or(now, |o| o.kind_since) + delay;
    if now < fit_at {
        view.review(fit_at);
        return keep(node, view, i);
    }
    let preferred = |member| view.place(&node.desired, i, member).rank.preferred;
    view.moving |= preferred(to) == preferred(node.me);
    view.hand(i, node.me, Handover::new(to, now, Errand::Better));
    view.review(now + SUCCESSOR_PATIENCE);
    give(to)
}

/// The best of the others, if the group is better off there than here.
fn better(node: &Node, view: &View, i: usize, others: Members) -> Option<usize> {
    let desired = &node.desired;
    let to = view.best(desired, i, others)?;
    let theirs = view.place(desired, i, to);
    let ours = view.place(desired, i, node.me);
    let (there, here) = (theirs.rank, ours.rank);
    let moves = match (there < here, there == here) {
        // Away from its like: one at a time, and from where there are most of them.
        (true, false) if there.together < here.together && !here.is_last_resort() => {
            !view.moving && view.is_most_crowded(i, node.me)
        }
        (true, false | true) => true,
        (false, true) => {
            theirs.share < ours.share && !view.moving && view.is_fullest(desired, to, node.me)
        }
        (false, false) => false,
    };
    moves.then_some(to)
}

/// The highest epoch that anyone has heard of, for people.
pub(crate) fn epoch(node: &Node, i: usize) -> Epoch {
    node.owned[i].epoch.max(node.voter.epoch(node.desired.groups[i].id))
}
