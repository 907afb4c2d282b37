//! Does a pool spread as it should, and does little move when a node comes or goes?

use super::*;
use alloc::{format, string::String, vec, vec::Vec};

fn group(name: &str, prefer: Vec<NodeId>) -> Group {
    Group { prefer, ..Group::new(GroupId(buoy_model::name_key(name)), name, vec![]) }
}

fn name(i: usize) -> String {
    format!("lb{}", i + 1)
}

fn nodes(weights: &[u16]) -> Vec<Member> {
    let member = |(i, weight): (usize, &u16)| {
        let mut member = Member::new(&name(i), "10.0.0.1:4747".parse().unwrap());
        member.weight = *weight;
        member
    };
    weights.iter().enumerate().map(member).collect()
}

/// The rule by which every node gives out a pool, one group after the other.
fn best(group: &Group, of: &[Member], loads: &Loads, live: Members) -> Option<usize> {
    live.iter().min_by_key(|i| place(group, &of[*i], loads[*i], 0))
}

fn all(n: usize) -> Members {
    (0..n).fold(Members::default(), Members::with)
}

struct Pool {
    groups: Vec<Group>,
    owners: Vec<Option<usize>>,
    loads: Loads,
    moves: usize,
}

impl Pool {
    fn new(groups: usize) -> Self {
        let groups: Vec<Group> = (0..groups).map(|g| group(&format!("vip{g}"), vec![])).collect();
        Self { owners: vec![None; groups.len()], groups, loads: [0; NODES_MAX], moves: 0 }
    }

    fn give(&mut self, g: usize, to: usize) {
        if let Some(from) = self.owners[g].replace(to) {
            self.loads[from] -= 1;
        }
        self.loads[to] += 1;
        self.moves += 1;
    }

    /// Orphans first, then what a node that came back relieves the others of.
    fn settle(&mut self, of: &[Member], live: Members) {
        for g in 0..self.groups.len() {
            if let Some(owner) = self.owners[g].filter(|o| !live.contains(*o)) {
                self.owners[g] = None;
                self.loads[owner] -= 1;
            }
        }
        for g in 0..self.groups.len() {
            if self.owners[g].is_none() {
                let to = best(&self.groups[g], of, &self.loads, live).unwrap();
                self.give(g, to);
            }
        }
        while let Some((g, to)) = self.relief(of, live) {
            self.give(g, to);
            assert!(self.moves < 10_000, "moves for ever");
        }
    }

    fn relief(&self, of: &[Member], live: Members) -> Option<(usize, usize)> {
        let last = |i: usize| Share::of(&of[i], self.loads[i] - 1);
        let full = live.iter().filter(|i| self.loads[*i] > 0).max_by_key(|i| last(*i))?;
        let g = self.owners.iter().position(|o| *o == Some(full))?;
        let to = best(&self.groups[g], of, &self.loads, live.without(full))?;
        let rank = |i: usize| place(&self.groups[g], &of[i], 0, 0).rank;
        (rank(to) == rank(full) && Share::of(&of[to], self.loads[to]) < last(full))
            .then_some((g, to))
    }

    fn spread(&self, live: Members) -> u16 {
        let loads = || live.iter().map(|i| self.loads[i]);
        loads().max().unwrap() - loads().min().unwrap()
    }
}

#[test]
fn a_pool_spreads_with_a_difference_of_one_at_most() {
    for n in 1..=NODES_MAX {
        let of = nodes(&vec![1; n]);
        for groups in (0..60).chain([250, 1000]) {
            let mut pool = Pool::new(groups);
            pool.settle(&of, all(n));
            assert!(pool.spread(all(n)) <= 1, "{groups} groups on {n} nodes: {:?}", pool.loads);
            assert_eq!(pool.moves, groups, "each is given out once");
        }
    }
}

#[test]
fn a_node_that_goes_moves_only_its_own_and_one_that_comes_gets_only_its_share() {
    for n in 2..=NODES_MAX {
        let of = nodes(&vec![1; n]);
        for groups in (0..60).chain([250, 1000]) {
            let mut pool = Pool::new(groups);
            pool.settle(&of, all(n));
            let (gone, orphans) = (groups % n, usize::from(pool.loads[groups % n]));
            pool.moves = 0;
            pool.settle(&of, all(n).without(gone));
            assert_eq!(pool.moves, orphans, "{groups} groups on {n} nodes without {gone}");
            assert!(pool.spread(all(n).without(gone)) <= 1);
            pool.moves = 0;
            pool.settle(&of, all(n));
            assert_eq!(pool.moves, groups / n, "{groups} groups on {n} nodes with {gone} again");
            assert!(pool.spread(all(n)) <= 1);
        }
    }
}

#[test]
fn weights_share_a_pool_in_proportion() {
    let table: &[(&[u16], usize, &[u16])] = &[
        (&[1, 1, 2], 8, &[2, 2, 4]),
        (&[3, 1], 8, &[6, 2]),
        (&[100, 50, 50], 200, &[100, 50, 50]),
        (&[1, 0], 5, &[5, 0]),
        (&[0, 0], 4, &[2, 2]),
        (&[100, 1], 50, &[50, 0]),
        (&[2, 1], 3, &[2, 1]),
    ];
    for (weights, groups, expected) in table {
        let mut pool = Pool::new(*groups);
        pool.settle(&nodes(weights), all(weights.len()));
        assert_eq!(pool.loads[..weights.len()], **expected, "{weights:?}");
    }
}

#[test]
fn nobody_is_more_than_one_group_away_from_its_weighted_share() {
    let table: &[&[u16]] = &[&[1, 2, 3], &[5, 1], &[7, 3, 2], &[10, 10, 1], &[4, 4, 4, 1]];
    for weights in table {
        for groups in 0..120 {
            let mut pool = Pool::new(groups);
            pool.settle(&nodes(weights), all(weights.len()));
            let total: u16 = weights.iter().sum();
            for (i, weight) in weights.iter().enumerate() {
                let (load, ideal) = (u32::from(pool.loads[i]), groups * usize::from(*weight));
                let off = (load * u32::from(total)).abs_diff(u32::try_from(ideal).unwrap());
                assert!(off <= u32::from(total), "{weights:?}: {groups} groups: {:?}", pool.loads);
            }
        }
    }
}

#[test]
fn equal_nodes_do_not_all_give_the_first_group_to_the_same() {
    let of = nodes(&[1; 3]);
    let first: Vec<_> = (0..20)
        .map(|g| best(&group(&format!("v{g}"), vec![]), &of, &[0; NODES_MAX], all(3)))
        .collect();
    for node in 0..3 {
        assert!(first.contains(&Some(node)), "node {node} is never the first");
    }
}

#[test]
fn apart_beats_prefer_and_prefer_beats_load_and_weight_0_comes_last_of_all() {
    let of = nodes(&[1, 1, 1, 0]);
    let group = group("web", vec![of[3].id, of[2].id, of[0].id]);
    let line = |together: [u16; 4], loads: [u16; 4]| -> Vec<usize> {
        let mut line: Vec<usize> = (0..4).collect();
        line.sort_by_key(|i| place(&group, &of[*i], loads[*i], together[*i]));
        line
    };
    assert_eq!(line([0; 4], [0, 0, 50, 0]), [2, 0, 1, 3], "prefer, whatever the load");
    assert_eq!(line([0, 0, 1, 0], [9, 0, 0, 0]), [0, 1, 2, 3], "apart from its like");
    assert_eq!(line([1, 1, 2, 0], [0; 4]), [0, 1, 2, 3], "where there are fewest of them");
    assert_eq!(best(&group, &of, &[0; NODES_MAX], Members::default()), None);
}
