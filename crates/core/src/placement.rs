//! Who should own a group: in `nodes`, apart from its like, `prefer`, the smallest share, then a hash.
//!
//! Every node computes this by itself. The same view gives the same answer; while views differ the
//! leases decide. Shares are filled like seats in a parliament (Sainte-Laguë): the next group goes where
//! it comes nearest to the weights, so equal nodes differ by one at most, and a group moves for the sake
//! of balance only if that brings it nearer. The hash is rendezvous hashing: each node has its own
//! score for each group, so equal nodes share the groups, and a node that leaves moves only its own.

use crate::random::mix;
use buoy_model::limits::NODES_MAX;
use buoy_model::{Group, GroupId, Node as Member, NodeId};
use core::cmp::Ordering;

/// A set of members, by their place in `Desired::nodes`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Members(u16);

const _: () = assert!(NODES_MAX <= 16);

impl Members {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn insert(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    pub(crate) const fn with(self, index: usize) -> Self {
        Self(self.0 | 1 << index)
    }

    pub(crate) const fn without(self, index: usize) -> Self {
        Self(self.0 & !(1 << index))
    }

    /// Those of this set that are not in the other.
    pub(crate) const fn except(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn contains(self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..NODES_MAX).filter(move |i| self.contains(*i))
    }
}

/// How many groups each member serves or is about to.
pub(crate) type Loads = [u16; NODES_MAX];

/// A member's place in the line for a group; the smallest is the best.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    pub(crate) rank: Rank,
    pub(crate) share: Share,
    distance: u64,
}

/// What comes before any share; a group moves to a better rank wherever `failback` lets it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Rank {
    /// Has weight 0: takes only what nobody else can.
    last_resort: bool,
    /// How many groups it serves that this one is to stay apart from.
    pub(crate) together: u16,
    /// Place in `prefer`; `usize::MAX` when not named there.
    pub(crate) preferred: usize,
}

impl Rank {
    pub(crate) const fn is_last_resort(self) -> bool {
        self.last_resort
    }
}

/// What one more group would make of a member's share: (2 load + 1) / weight, compared exactly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    load: u16,
    weight: u16,
}

impl Share {
    pub(crate) const fn of(member: &Member, load: u16) -> Self {
        // Those of weight 0 share evenly among themselves.
        Self { load, weight: if member.weight == 0 { 1 } else { member.weight } }
    }

    const fn seats(self) -> u64 {
        2 * self.load as u64 + 1
    }
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        let mine = self.seats() * u64::from(other.weight);
        mine.cmp(&(other.seats() * u64::from(self.weight)))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Share {}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

/// The place of one member that serves `load` groups, `together` of which this one is to stay apart from.
pub(crate) fn place(group: &Group, member: &Member, load: u16, together: u16) -> Place {
    let preferred = group.prefer.iter().position(|n| *n == member.id).unwrap_or(usize::MAX);
    Place {
        rank: Rank { last_resort: member.weight == 0, together, preferred },
        share: Share::of(member, load),
        distance: distance(group.id, member.id),
    }
}

/// A member's place whatever the loads: both sides of a healed cut agree on it.
pub(crate) fn static_place(group: &Group, member: &Member) -> Place {
    place(group, member, 0, 0)
}

/// Rendezvous hash: the smallest distance wins.
fn distance(group: GroupId, node: NodeId) -> u64 {
    mix((u64::from(group.0) << 32 | u64::from(node.0)).wrapping_add(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
