//! Who should own a group: `prefer` first, then the node with the fewest groups, then a hash.
//!
//! Every node computes this by itself. The same view gives the same answer; while views differ the
//! leases decide. The hash is rendezvous hashing: each node has its own score for each group, so equal
//! nodes share the groups, and a node that leaves moves only its own.

use crate::random::mix;
use buoy_model::limits::NODES_MAX;
use buoy_model::{Group, GroupId, NodeId};

/// A set of members, by their place in `Desired::nodes`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Members(u16);

const _: () = assert!(NODES_MAX <= 16);

impl Members {
    pub(crate) const fn insert(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    pub(crate) const fn with(self, index: usize) -> Self {
        Self(self.0 | 1 << index)
    }

    pub(crate) const fn without(self, index: usize) -> Self {
        Self(self.0 & !(1 << index))
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
    /// Place in `prefer`; `usize::MAX` when not named there.
    pub(crate) preferred: usize,
    load: u16,
    distance: u64,
}

/// The place of one member.
pub(crate) fn place(group: &Group, node: NodeId, load: u16) -> Place {
    let preferred = group.prefer.iter().position(|n| *n == node).unwrap_or(usize::MAX);
    Place { preferred, load, distance: distance(group.id, node) }
}

/// The best of the candidates.
pub(crate) fn best(
    group: &Group,
    candidates: Members,
    loads: &Loads,
    id: impl Fn(usize) -> NodeId,
) -> Option<usize> {
    candidates.iter().min_by_key(|i| place(group, id(*i), loads[*i]))
}

/// Rendezvous hash: the smallest distance wins.
fn distance(group: GroupId, node: NodeId) -> u64 {
    mix((u64::from(group.0) << 32 | u64::from(node.0)).wrapping_add(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec, vec::Vec};
    use buoy_model::{Failback, Safety};

    fn group(name: &str, prefer: Vec<NodeId>) -> Group {
        Group {
            id: GroupId(buoy_model::name_key(name)),
            name: name.into(),
            addresses: vec![],
            safety: Safety::Exclusive,
            nodes: vec![],
            prefer,
            failback: Failback::Never,
            apart: None,
            checks: vec![],
            services: vec![],
        }
    }

    fn id(i: usize) -> NodeId {
        NodeId::of(["lb1", "lb2", "lb3", "lb4", "lb5"][i])
    }

    fn members(n: usize) -> Members {
        let mut members = Members::default();
        (0..n).for_each(|i| members.insert(i));
        members
    }

    fn assign(groups: usize, nodes: Members) -> (Vec<usize>, Loads) {
        let mut loads = [0; NODES_MAX];
        let owners = (0..groups)
            .map(|g| {
                let group = group(&format!("vip{g}"), vec![]);
                let best = best(&group, nodes, &loads, id).unwrap();
                loads[best] += 1;
                best
            })
            .collect();
        (owners, loads)
    }

    #[test]
    fn a_pool_spreads_with_a_difference_of_one_at_most() {
        for nodes in 1..=5 {
            for groups in 0..40 {
                let (_, loads) = assign(groups, members(nodes));
                let used = &loads[..nodes];
                let spread = used.iter().max().unwrap() - used.iter().min().unwrap();
                assert!(spread <= 1, "{groups} groups on {nodes} nodes: {used:?}");
            }
        }
    }

    #[test]
    fn equal_nodes_do_not_all_give_the_first_group_to_the_same() {
        let first: Vec<_> = (0..20)
            .map(|g| best(&group(&format!("v{g}"), vec![]), members(3), &[0; NODES_MAX], id))
            .collect();
        for node in 0..3 {
            assert!(first.contains(&Some(node)), "node {node} is never the first");
        }
    }

    #[test]
    fn prefer_beats_load_and_its_order_counts() {
        let group = group("web", vec![id(2), id(0)]);
        let mut loads = [0; NODES_MAX];
        loads[2] = 50;
        assert_eq!(best(&group, members(3), &loads, id), Some(2));
        assert_eq!(best(&group, members(3).without(2), &loads, id), Some(0));
        assert_eq!(best(&group, members(3).without(2).without(0), &loads, id), Some(1));
        assert_eq!(best(&group, Members::default(), &loads, id), None);
    }
}
