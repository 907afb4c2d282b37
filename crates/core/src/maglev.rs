//! Decides which backend of a fast-path service has which slot of its table.
//!
//! Maglev (Eisenbud et al., NSDI 2016): each backend has its own order of all slots, made from its
//! name alone, and the backends take turns, each with the first slot of its order that is free. A
//! backend that comes or goes therefore moves its own slots and few others. Turns follow weights, and
//! a backend that has its share takes no more: its slots differ from `slots * weight / total` by less
//! than one.
//!
//! The table is the same on every node that knows the same backends, in whatever order the file
//! lists them, so it is made of integers only, and `digest` tells whether two nodes agree.
//!
//! Absent on purpose: flows (the kernel hashes them), and what was before (`transition` knows).

use crate::balance::Share;
use crate::random::mix;
use alloc::vec;
use alloc::vec::Vec;
use buoy_model::limits::{BACKEND_WEIGHT_MAX, FAST_SLOTS};
use buoy_model::{Backend, name_key};
use core::cmp::Reverse;

/// Which backend a hash value goes to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    slots: Vec<u16>,
    digest: u32,
}

impl Table {
    /// `None` when nobody takes flows. All `backends` count for the size, also those without a share:
    /// it must not change when one of them is down.
    pub fn new(backends: &[Backend], shares: &[Share]) -> Option<Self> {
        let mut entrants: Vec<Entrant<'_>> = shares
            .iter()
            .filter(|share| share.weight != 0)
            .filter_map(|share| {
                let name = backends.get(share.backend)?.name.as_str();
                let place = u16::try_from(share.backend).ok()?;
                Some(Entrant { id: name_key(name), name, place, weight: share.weight })
            })
            .collect();
        if entrants.is_empty() {
            return None;
        }
        // So that the order of the lines in the file does not matter.
        entrants.sort_unstable_by_key(|e| (e.id, e.name));
        let owners = fill(&entrants, size(backends.len()));
        let digest = digest(&entrants, &owners);
        let slots = owners.into_iter().map(|i| entrants[usize::from(i)].place).collect();
        Some(Self { slots, digest })
    }

    /// The backend of each slot, as its place in the list that the table was made from.
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }

    /// Hash of who has which slot: equal on two nodes that send every flow to the same backend.
    pub const fn digest(&self) -> u32 {
        self.digest
    }
}

/// How many slots a service of so many backends has.
///
/// The smallest table in which the largest weight times the number of backends fits: then the
/// smallest weight among the largest still deserves a slot, so no share is ever bent; with equal
/// weights nobody has less than 256 slots, and shares differ by less than 0.4 %. Larger is not better:
/// 16 KiB of a small service stay in the processor's first cache and 256 KiB do not, which is what a
/// packet pays for. Powers of two, because `&` is cheaper than `%` and moves no more slots than a
/// prime does.
fn size(backends: usize) -> usize {
    let least = backends * usize::from(BACKEND_WEIGHT_MAX);
    let [small, middle, large] = FAST_SLOTS;
    if least <= small {
        small
    } else if least <= middle {
        middle
    } else {
        large
    }
}

struct Entrant<'a> {
    id: u32,
    name: &'a str,
    place: u16,
    weight: u16,
}

/// One backend on its way through its order of the slots.
struct Walker {
    at: usize,
    skip: usize,
    /// Slots that it still has to take.
    left: usize,
    weight: u64,
    /// Weight saved up for the next turn.
    credit: u64,
}

impl Walker {
    /// The order is start, start + skip, and so on: with an odd skip it reaches every slot of a
    /// power of two.
    fn new(entrant: &Entrant<'_>, left: usize) -> Self {
        let hash = mix(u64::from(entrant.id) + 0x9e37_79b9_7f4a_7c15);
        let (start, skip) = (hash & 0xffff_ffff, (hash >> 32) | 1);
        let [at, skip] = [start, skip].map(|n| usize::try_from(n).unwrap_or(0));
        Self { at, skip: skip | 1, left, weight: entrant.weight.into(), credit: 0 }
    }

    /// Takes the first slot of its order that is free. The caller knows that there is one.
    fn take(&mut self, taken: &mut Taken) -> usize {
        loop {
            let slot = self.at & taken.mask;
            self.at = self.at.wrapping_add(self.skip);
            if taken.take(slot) {
                self.left -= 1;
                return slot;
            }
        }
    }
}

/// A bit for each slot: the whole set stays in the first cache, where walkers look for free ones.
struct Taken {
    bits: Vec<u64>,
    mask: usize,
}

impl Taken {
    /// Whether it was free.
    fn take(&mut self, slot: usize) -> bool {
        let (word, bit) = (slot / 64, 1 << (slot % 64));
        let free = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        free
    }
}

/// Gives every slot the index of an entrant.
fn fill(entrants: &[Entrant<'_>], slots: usize) -> Vec<u16> {
    debug_assert!(slots.is_power_of_two() && 64 <= slots);
    let weights: Vec<u16> = entrants.iter().map(|e| e.weight).collect();
    let quotas = quotas(&weights, slots);
    debug_assert_eq!(quotas.iter().sum::<usize>(), slots);
    let mut walkers: Vec<Walker> =
        entrants.iter().zip(&quotas).map(|(entrant, &quota)| Walker::new(entrant, quota)).collect();
    let total: u64 = walkers.iter().map(|w| w.weight).sum();
    // What a turn costs: the mean weight, so that a round is about one turn for each.
    let turn = (total / walkers.len() as u64).max(1);
    let mut taken = Taken { bits: vec![0; slots / 64], mask: slots - 1 };
    let mut owners = vec![0; slots];
    let mut left = slots;
    while 0 < left {
        for (i, walker) in (0_u16..).zip(&mut walkers) {
            walker.credit += walker.weight;
            while turn <= walker.credit && 0 < walker.left {
                walker.credit -= turn;
                owners[walker.take(&mut taken)] = i;
                left -= 1;
            }
        }
    }
    owners
}

/// How many slots each weight deserves: the whole part of its share, and one more for those with the
/// largest rests, until all are given away.
fn quotas(weights: &[u16], slots: usize) -> Vec<usize> {
    let total = weights.iter().map(|&w| usize::from(w)).sum::<usize>().max(1);
    let whole = |i: usize| usize::from(weights[i]) * slots / total;
    let rest = |i: usize| usize::from(weights[i]) * slots % total;
    let mut quotas: Vec<usize> = (0..weights.len()).map(whole).collect();
    let mut by_rest: Vec<usize> = (0..weights.len()).collect();
    // Stable: entrants are sorted by id and name, which settles a tie alike everywhere.
    by_rest.sort_by_key(|&i| Reverse(rest(i)));
    let left = slots - quotas.iter().sum::<usize>();
    for &i in by_rest.iter().take(left) {
        quotas[i] += 1;
    }
    quotas
}

/// One multiplication for each slot: byte by byte it would take a third of the time of the table.
fn digest(entrants: &[Entrant<'_>], owners: &[u16]) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for &owner in owners {
        let id = u64::from(entrants[usize::from(owner)].id);
        hash = (hash ^ id).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
    (mix(hash) >> 32) as u32
}

#[cfg(test)]
#[path = "maglev_tests.rs"]
mod tests;
