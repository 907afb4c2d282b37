//! Explains: the same facts that the judgements were made from, as values for people.
//!
//! The line of candidates is made by the very steps that judge, on a view of its own; `why_agrees`
//! holds the two against each other.

use crate::judge;
use crate::last_owner::LastOwner;
use crate::ownership::{Judgement, Ownership, State};
use crate::placement::Place;
use crate::reluctance::Reluctance;
use crate::status::{
    Beats, Candidate, Exclusion, GroupStatus, Hold, NodeStatus, Quorum, Standing, Status,
};
use crate::view::View;
use crate::{Node, peer::Peer};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use buoy_model::limits::PASSED_OVER_AFTER;
use buoy_model::{AdvertReject, ClaimKind, Group, GroupId, Instant, NodeId};
use core::time::Duration;

/// How long an answer counts as "it hears us", in silences.
const HEARS_US_SILENCES: u32 = 3;

/// What this node would do about a group, and the line that it would give as the reason.
struct Explained {
    judgement: Judgement,
    line: Vec<Candidate>,
}

/// Of all groups, or of some alone, in the order of their ids.
pub(crate) fn status(node: &Node, now: Instant, of: Option<&[GroupId]>) -> Status {
    let groups = explain(node, now, of).into_iter();
    Status {
        at: now,
        me: node.desired.me,
        incarnation: node.settings.incarnation,
        generation: node.desired.generation,
        digest: node.desired.digest,
        draining: node.draining.clone(),
        draining_for: node.drain_until.map(|at| at.since(now)),
        cordoned: node.cordoned.clone(),
        term: node.term(),
        quorum: Quorum {
            members: node.desired.nodes.len(),
            witnesses: node.desired.nodes.iter().filter(|n| n.witness).count(),
            needed: node.desired.majority(),
            heard: 1 + node.peers.iter().filter(|p| p.is_alive()).count(),
        },
        overlaps: node.verdicts.overlaps,
        nodes: (0..node.desired.nodes.len()).map(|i| node_status(node, now, i)).collect(),
        groups: groups.map(|(i, known)| group_status(node, now, i, known.line)).collect(),
        ignored: node.ignored,
    }
}

fn node_status(node: &Node, now: Instant, index: usize) -> NodeStatus {
    let member = &node.desired.nodes[index];
    let (id, witness) = (member.id, member.witness);
    let Some(peer) = peer_of(node, index) else {
        return NodeStatus {
            id,
            alive: true,
            heard: None,
            silence: Duration::ZERO,
            legs: Vec::new(),
            round_trip: None,
            beats: Beats::default(),
            hears_us: true,
            draining: node.draining.is_some(),
            witness,
            digest: Some(node.desired.digest),
            votes_in: remaining(node.voter.silent_until(), now),
            owns: node.owned.iter().filter(|o| o.holding().is_some()).count(),
        };
    };
    let served = peer.offers.iter().filter(|o| o.claim.kind.serves());
    let legs = member.addresses.len().min(node.desired.leg_links.len());
    NodeStatus {
        id,
        alive: peer.is_alive(),
        heard: peer.heard_at().map(|at| now.since(at)),
        silence: node.silence_of(peer),
        legs: (0..legs).map(|leg| node.legs.last(index, leg).map(|at| now.since(at))).collect(),
        round_trip: peer.round_trip,
        beats: peer.unanswered(now, node.silence()),
        hears_us: peer.hears_us(now, node.silence() * HEARS_US_SILENCES),
        draining: peer.draining,
        witness,
        digest: peer.digest,
        votes_in: remaining(peer.silent_until, now),
        owns: if peer.is_alive() { served.count() } else { 0 },
    }
}

fn remaining(until: Instant, now: Instant) -> Option<Duration> {
    (now < until).then(|| until.since(now))
}

fn group_status(node: &Node, now: Instant, i: usize, candidates: Vec<Candidate>) -> GroupStatus {
    let group = &node.desired.groups[i];
    let ownership = &node.owned[i];
    let holding = ownership.holding();
    let rival = node.rival(group);
    let owner = match holding {
        Some(_) => Some(node.desired.me),
        None => rival.map(|(index, _)| node.id(index)),
    };
    let heard_since = match node.verdicts.last_owner.get(i) {
        Some(LastOwner::Serves { node, since }) if Some(*node) == owner => Some(now.since(*since)),
        Some(
            LastOwner::Nobody
            | LastOwner::Serves { .. }
            | LastOwner::Released { .. }
            | LastOwner::Silent { .. }
            | LastOwner::Died { .. },
        )
        | None => None,
    };
    let heir = match holding {
        Some(holding) => holding.yielding.as_ref().map(|y| y.to),
        None => rival.map(|(_, offer)| offer.claim.to),
    };
    let votes = match &ownership.state {
        State::Idle { .. } => None,
        State::Wanting { votes, .. } => Some(votes),
        State::Holding(holding) => Some(&holding.votes),
    };
    let shared_until = node.shared_until(group.safety);
    let standing = |index: usize| votes.is_some_and(|v| v.stands(&node.renewals, index, now));
    GroupStatus {
        id: group.id,
        owner,
        epoch: judge::epoch(node, i),
        since: holding.map(|h| now.since(h.since)).or(heard_since),
        lease_left: holding.map(|h| h.until(shared_until).since(now)),
        votes: (0..node.desired.nodes.len())
            .filter(|n| standing(*n))
            .map(|n| node.desired.nodes[n].id)
            .collect(),
        yields_to: heir.filter(|to| *to != NodeId(0)),
        held: hold(node, now, i),
        candidates,
        last_change: ownership.last_change.clone(),
        vrrp: crate::vrrp_group::status(node, now, i),
        refused: refused(ownership),
        uptime: ownership.routers.is_none().then(|| ownership.watch.seen(now)),
        slack: holding.filter(|h| h.shares).and_then(|_| node.renewed.slack(now, group.safety)),
    }
}

fn refused(ownership: &Ownership) -> Vec<(AdvertReject, u64)> {
    let routers = ownership.routers.iter();
    routers.flat_map(|routers| routers.refused()).filter(|(_, count)| *count > 0).collect()
}

fn hold(node: &Node, now: Instant, i: usize) -> Option<Hold> {
    if node.owned[i].holding().is_some() {
        if let Some(held) = &node.owned[i].orders.held {
            let remaining = held.until.map(|at| at.since(now));
            return Some(Hold { reason: Some(held.reason.clone()), remaining });
        }
        let cordoned = node.cordoned.as_ref()?;
        return Some(Hold { reason: Some(format!("cordoned: {cordoned}")), remaining: None });
    }
    let (_, offer) = node.rival(&node.desired.groups[i])?;
    offer.claim.held.then_some(Hold { reason: None, remaining: None })
}

/// Judges every group in the order of `Node::judge_all`, since each takes its share before the next one, and notes the
/// line of those that are asked about as its judgement saw it; with their places.
fn explain(node: &Node, now: Instant, of: Option<&[GroupId]>) -> Vec<(usize, Explained)> {
    if of.is_some_and(<[GroupId]>::is_empty) {
        return Vec::new();
    }
    let mut view: View = node.verdicts.view.clone();
    view.look(node, now);
    let mut explained = Vec::new();
    for held in [false, true] {
        for (i, group) in node.desired.groups.iter().enumerate() {
            if node.owned[i].holding().is_some() != held {
                continue;
            }
            if !held {
                view.let_go(i);
            }
            let is_asked_about = of.is_none_or(|of| of.binary_search(&group.id).is_ok());
            let line = is_asked_about.then(|| line(node, &view, now, i));
            let judgement = judge::decide(node, &mut view, now, i);
            explained.extend(line.map(|line| (i, Explained { judgement, line })));
        }
    }
    explained.sort_by_key(|(i, _)| *i);
    explained
}

/// Every member in the order in which it would get the group.
fn line(node: &Node, view: &View, now: Instant, i: usize) -> Vec<Candidate> {
    let heir = judge::heir(node, view, now, i);
    let mut line: Vec<((Turn, Place), Candidate)> = (0..node.desired.nodes.len())
        .map(|member| {
            let standing = standing(node, now, i, member);
            let asks_in_vain = peer_of(node, member)
                .and_then(|p| p.offer(node.desired.groups[i].id))
                .is_some_and(|o| o.in_vain(now, PASSED_OVER_AFTER));
            let place = view.place(&node.desired, i, member);
            let preferred = Some(place.rank.preferred).filter(|p| *p != usize::MAX);
            let node = node.id(member);
            let turn = match turn(&standing) {
                Turn::Ready | Turn::LastResort if heir == Some(member) => Turn::Heir,
                Turn::Ready if asks_in_vain => Turn::InVain,
                turn @ (Turn::Owner
                | Turn::Heir
                | Turn::Ready
                | Turn::InVain
                | Turn::LastResort
                | Turn::Out) => turn,
            };
            ((turn, place), Candidate { node, preferred, standing })
        })
        .collect();
    line.sort_by_key(|(place, _)| *place);
    if node.lies() {
        line.reverse();
    }
    line.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Who comes before whom, whatever the place.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Turn {
    Owner,
    /// Named by the owner.
    Heir,
    Ready,
    /// Asks for votes in vain.
    InVain,
    /// Takes it only if nobody else can.
    LastResort,
    /// Cannot take it.
    Out,
}

const fn turn(standing: &Standing) -> Turn {
    match standing {
        Standing::Owner => Turn::Owner,
        Standing::Wants | Standing::Candidate => Turn::Ready,
        Standing::Excluded(why) if is_last_resort(why) => Turn::LastResort,
        Standing::Excluded(_) => Turn::Out,
    }
}

/// Whether a member with this against it takes the group all the same if nobody else can.
const fn is_last_resort(why: &Exclusion) -> bool {
    match why {
        Exclusion::Reluctant
        | Exclusion::Unchecked
        | Exclusion::NoBackend
        | Exclusion::CheckFails(_)
        | Exclusion::Unheard(_)
        | Exclusion::Damped(_)
        | Exclusion::Cordoned => true,
        Exclusion::NotAllowed
        | Exclusion::Witness
        | Exclusion::NeverHeard
        | Exclusion::Silent(_)
        | Exclusion::Draining
        | Exclusion::NoCarrier(_)
        | Exclusion::NotOffered
        | Exclusion::NoMajority
        | Exclusion::Listening(_) => false,
    }
}

fn standing(node: &Node, now: Instant, i: usize, member: usize) -> Standing {
    let group = &node.desired.groups[i];
    let peer = peer_of(node, member);
    let claim = match peer {
        Some(peer) if !peer.is_alive() => None,
        Some(peer) => peer.offer(group.id).map(|o| o.claim.kind),
        None => Some(node.owned[i].claim()),
    };
    match claim {
        Some(ClaimKind::Holds | ClaimKind::Yields) => return Standing::Owner,
        Some(ClaimKind::Wants) => return Standing::Wants,
        Some(ClaimKind::Eligible | ClaimKind::Reluctant) | None => {}
    }
    let exclusion = match peer {
        Some(_) => peer_exclusion(node, now, group, member),
        None => own_exclusion(node, now, group, i),
    };
    exclusion.map_or(Standing::Candidate, Standing::Excluded)
}

fn peer_of(node: &Node, member: usize) -> Option<&Peer> {
    node.peers.iter().find(|p| p.index == member)
}

fn own_exclusion(node: &Node, now: Instant, group: &Group, i: usize) -> Option<Exclusion> {
    if node.desired.nodes[node.me].witness {
        return Some(Exclusion::Witness);
    }
    if group.nodes.binary_search(&node.desired.me).is_err() {
        return Some(Exclusion::NotAllowed);
    }
    if node.gives_away() {
        return Some(Exclusion::Draining);
    }
    let down = group.addresses.iter().filter_map(|a| a.link).find(|l| node.links_down.contains(l));
    if let Some(link) = down {
        return Some(Exclusion::NoCarrier(link));
    }
    if !node.may_ask(group) {
        return Some(Exclusion::NoMajority);
    }
    if now < node.listening_until {
        return Some(Exclusion::Listening(node.listening_until.since(now)));
    }
    node.reluctance(now, i).map(|reluctance| match reluctance {
        Reluctance::Unchecked => Exclusion::Unchecked,
        Reluctance::NoBackend => Exclusion::NoBackend,
        Reluctance::CheckFails(check) => Exclusion::CheckFails(check),
        Reluctance::Unheard(link) => Exclusion::Unheard(link),
        Reluctance::Damped(remaining) => Exclusion::Damped(remaining),
        Reluctance::Cordoned => Exclusion::Cordoned,
    })
}

/// Why a peer cannot take a group that it does not serve; `None`: it could.
pub(crate) fn peer_exclusion(
    node: &Node,
    now: Instant,
    group: &Group,
    member: usize,
) -> Option<Exclusion> {
    let peer = peer_of(node, member)?;
    if node.desired.nodes[member].witness {
        return Some(Exclusion::Witness);
    }
    if group.nodes.binary_search(&peer.id).is_err() {
        return Some(Exclusion::NotAllowed);
    }
    let Some(heard_at) = peer.heard_at() else { return Some(Exclusion::NeverHeard) };
    if !peer.is_alive() {
        return Some(Exclusion::Silent(now.since(heard_at)));
    }
    if peer.draining {
        return Some(Exclusion::Draining);
    }
    match peer.offer(group.id).map(|o| o.claim.kind) {
        Some(ClaimKind::Eligible | ClaimKind::Wants | ClaimKind::Holds | ClaimKind::Yields) => None,
        Some(ClaimKind::Reluctant) => Some(Exclusion::Reluctant),
        None => Some(Exclusion::NotOffered),
    }
}

impl Node {
    /// Whether the explanation agrees with the decision: for every group, the line that `status` gives
    /// and the judgement that this node makes from the same view name the same node.
    pub fn why_agrees(&self, now: Instant) -> Result<(), String> {
        for (i, Explained { judgement, line }) in &explain(self, now, None) {
            let name = &self.desired.groups[*i].name;
            disagreement(self, *i, judgement, line)
                .map_or(Ok(()), |what| Err(format!("{name}: {what}; {judgement:?}; {line:?}")))?;
        }
        Ok(())
    }
}

/// What a reader of the line would not expect of the judgement.
fn disagreement(
    node: &Node,
    i: usize,
    judgement: &Judgement,
    line: &[Candidate],
) -> Option<&'static str> {
    if node.never_claims() {
        return None;
    }
    let me = node.desired.me;
    let can = |c: &&Candidate| match &c.standing {
        Standing::Owner | Standing::Wants | Standing::Candidate => true,
        Standing::Excluded(why) => is_last_resort(why),
    };
    let mine = line.iter().find(|c| c.node == me)?;
    let owns = |c: &&Candidate| c.standing == Standing::Owner;
    let owner = Some(mine).filter(owns).or_else(|| line.iter().find(owns));
    let able = can(&mine) && !(mine.standing == Standing::Wants && is_closed(node, i));
    match (judgement, owner) {
        (Judgement::Take { .. }, Some(owner)) if owner.node == me => None,
        (Judgement::Take { from: Some(from), .. }, Some(owner)) => {
            (owner.node != *from).then_some("taken from somebody who is not its owner")
        }
        (Judgement::Take { .. }, Some(_)) => Some("taken although it has an owner"),
        (Judgement::Take { .. }, None) => (!able).then_some("taken by a node that cannot"),
        (Judgement::Yield { to, .. }, Some(owner)) if owner.node == me => {
            let heir = line.iter().find(|c| c.node == *to);
            let best = line.iter().find(|c| !owns(c) && can(c)).map(|c| c.node);
            match heir.filter(can) {
                None => Some("given to a node that cannot take it"),
                Some(_) if best == Some(*to) => None,
                Some(_) => Some("given to a node that is not the first in line"),
            }
        }
        (Judgement::GiveUp(_), Some(owner)) if owner.node == me => None,
        (Judgement::Yield { .. } | Judgement::GiveUp(_), Some(_) | None) => {
            Some("given away without being owned")
        }
        (Judgement::Leave, Some(_)) => None,
        (Judgement::Leave, None) => {
            let first = line.iter().find(can).map(|c| c.node);
            (able && first == Some(me) && mine.standing != Standing::Wants)
                .then_some("left alone although this node is the first in line")
        }
    }
}

/// Whether this node may not take what it has asked for any more.
fn is_closed(node: &Node, i: usize) -> bool {
    let group = &node.desired.groups[i];
    !node.is_able(group) || !node.may_ask(group) || node.gives_away()
}
