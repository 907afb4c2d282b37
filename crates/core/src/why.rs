//! Explains: the same facts that the judgements were made from, as values for people.

use crate::judge::{self, LastOwner};
use crate::ownership::State;
use crate::placement::{self, Place};
use crate::status::{Candidate, Exclusion, GroupStatus, NodeStatus, Standing, Status};
use crate::{Node, peer::Peer};
use alloc::vec::Vec;
use buoy_model::{ClaimKind, Group, Instant, NodeId};

/// How long an answer counts as "it hears us", in silences.
const HEARS_US_SILENCES: u32 = 3;

pub(crate) fn status(node: &Node, now: Instant) -> Status {
    Status {
        at: now,
        me: node.desired.me,
        incarnation: node.settings.incarnation,
        generation: node.desired.generation,
        digest: node.desired.digest,
        draining: node.draining.clone(),
        nodes: node.desired.nodes.iter().map(|n| node_status(node, now, n.id)).collect(),
        groups: (0..node.desired.groups.len()).map(|i| group_status(node, now, i)).collect(),
        ignored: node.ignored,
    }
}

fn node_status(node: &Node, now: Instant, id: NodeId) -> NodeStatus {
    let Some(peer) = node.peers.iter().find(|p| p.id == id) else {
        return NodeStatus {
            id,
            alive: true,
            heard: None,
            round_trip: None,
            hears_us: true,
            draining: node.draining.is_some(),
            digest: Some(node.desired.digest),
            votes_in: remaining(node.voter.silent_until(), now),
            owns: node.owned.iter().filter(|o| o.holding().is_some()).count(),
        };
    };
    let served = peer.offers.iter().filter(|o| o.claim.kind.serves());
    NodeStatus {
        id,
        alive: peer.is_alive(),
        heard: peer.heard_at().map(|at| now.since(at)),
        round_trip: peer.round_trip,
        hears_us: peer.hears_us(now, node.silence() * HEARS_US_SILENCES),
        draining: peer.draining,
        digest: peer.digest,
        votes_in: remaining(peer.silent_until, now),
        owns: if peer.is_alive() { served.count() } else { 0 },
    }
}

fn remaining(until: Instant, now: Instant) -> Option<core::time::Duration> {
    (now < until).then(|| until.since(now))
}

fn group_status(node: &Node, now: Instant, i: usize) -> GroupStatus {
    let group = &node.desired.groups[i];
    let ownership = &node.owned[i];
    let holding = ownership.holding();
    let rival = node.rival(group).map(|(index, _)| node.desired.nodes[index].id);
    let owner = if holding.is_some() { Some(node.desired.me) } else { rival };
    let heard_since = match node.verdicts.last_owner.get(i) {
        Some(LastOwner::Serves { node, since }) if Some(*node) == owner => Some(now.since(*since)),
        Some(
            LastOwner::Nobody
            | LastOwner::Serves { .. }
            | LastOwner::Released { .. }
            | LastOwner::Silent { .. },
        )
        | None => None,
    };
    let votes = match &ownership.state {
        State::Idle { .. } => None,
        State::Wanting { votes, .. } => Some(votes),
        State::Holding(holding) => Some(&holding.votes),
    };
    let standing = |index: usize| votes.is_some_and(|v| v.stands(index, now));
    GroupStatus {
        id: group.id,
        owner,
        epoch: judge::epoch(node, i),
        since: holding.map(|h| now.since(h.since)).or(heard_since),
        lease_left: holding.map(|h| h.until.since(now)),
        votes: (0..node.desired.nodes.len())
            .filter(|n| standing(*n))
            .map(|n| node.desired.nodes[n].id)
            .collect(),
        candidates: candidates(node, now, group, i),
        last_change: ownership.last_change.clone(),
    }
}

/// Every member in the order in which it would get the group.
fn candidates(node: &Node, now: Instant, group: &Group, i: usize) -> Vec<Candidate> {
    let mut line: Vec<((u8, Place), Candidate)> = node
        .desired
        .nodes
        .iter()
        .map(|member| {
            let peer = node.peers.iter().find(|p| p.id == member.id);
            let standing = match peer {
                Some(peer) => peer_standing(now, group, peer),
                None => own_standing(node, now, group, i),
            };
            let rank = match standing {
                Standing::Owner => 0,
                Standing::Wants => 1,
                Standing::Candidate => 2,
                Standing::Excluded(_) => 3,
            };
            let owns = u16::try_from(node_status(node, now, member.id).owns).unwrap_or(u16::MAX);
            let place = placement::place(group, member.id, owns);
            let preferred = (place.preferred != usize::MAX).then_some(place.preferred);
            ((rank, place), Candidate { node: member.id, preferred, standing })
        })
        .collect();
    line.sort_by_key(|(place, _)| *place);
    line.into_iter().map(|(_, candidate)| candidate).collect()
}

fn own_standing(node: &Node, now: Instant, group: &Group, i: usize) -> Standing {
    match node.owned[i].claim() {
        ClaimKind::Holds | ClaimKind::Yields => return Standing::Owner,
        ClaimKind::Wants => return Standing::Wants,
        ClaimKind::Eligible | ClaimKind::Reluctant => {}
    }
    if group.nodes.binary_search(&node.desired.me).is_err() {
        return Standing::Excluded(Exclusion::NotAllowed);
    }
    if node.draining.is_some() || node.is_stopping() {
        return Standing::Excluded(Exclusion::Draining);
    }
    let down = group.addresses.iter().filter_map(|a| a.link).find(|l| node.links_down.contains(l));
    if let Some(link) = down {
        return Standing::Excluded(Exclusion::NoCarrier(link));
    }
    if now < node.listening_until {
        return Standing::Excluded(Exclusion::Listening(node.listening_until.since(now)));
    }
    if !node.owned[i].is_fit() {
        return Standing::Excluded(Exclusion::NoBackend);
    }
    Standing::Candidate
}

fn peer_standing(now: Instant, group: &Group, peer: &Peer) -> Standing {
    if group.nodes.binary_search(&peer.id).is_err() {
        return Standing::Excluded(Exclusion::NotAllowed);
    }
    let Some(heard_at) = peer.heard_at() else {
        return Standing::Excluded(Exclusion::NeverHeard);
    };
    if !peer.is_alive() {
        return Standing::Excluded(Exclusion::Silent(now.since(heard_at)));
    }
    match peer.offer(group.id).map(|o| o.claim.kind) {
        Some(ClaimKind::Holds | ClaimKind::Yields) => Standing::Owner,
        Some(ClaimKind::Wants) => Standing::Wants,
        Some(ClaimKind::Eligible | ClaimKind::Reluctant) if peer.draining => {
            Standing::Excluded(Exclusion::Draining)
        }
        Some(ClaimKind::Eligible) => Standing::Candidate,
        Some(ClaimKind::Reluctant) => Standing::Excluded(Exclusion::NoBackend),
        None if peer.draining => Standing::Excluded(Exclusion::Draining),
        None => Standing::Excluded(Exclusion::NotOffered),
    }
}
