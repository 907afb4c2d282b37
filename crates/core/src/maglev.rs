//! Decides which backend of a fast-path service has which slot of its table.
//!
//! Maglev (Eisenbud et al., NSDI 2016): each backend has its own order of all slots, made from its
//! name alone, and the backends take turns, each with the first slot of its order that is free. A
//! backend that comes or goes therefore moves its own slots and few others. Turns follow weights, and
//! a backend that has its share takes no more: its slots differ from `slots * weight / total` by less
//! than one.
//!
//! That is done for all backends of the file (`Base`), up or down. Those that are down lend their slots: each
//! of these has an order of backends, made from its number alone, and goes to the first that is up and
//! deserves more. So a failure takes a fraction of the time that the whole table takes, moves hardly anything
//! but what has to move, and once everybody is up again each slot is where it was.
//!
//! The table is the same on every node that knows the same backends in the same states, in whatever order the
//! file lists them and whatever was before, so it is made of integers only, and `digest` tells whether two
//! nodes agree.
//!
//! Absent on purpose: flows (the kernel hashes them), and what was before (`transition` knows).

use crate::balance::Share;
use crate::random::mix;
use alloc::string::String;
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
        Base::new(backends, shares)?.table(shares)
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

/// The table while all are up: what every table of these backends is made from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Base {
    /// Sorted, so that the order of the lines in the file does not matter.
    entrants: Vec<Entrant>,
    /// The place of the backend of each slot.
    slots: Vec<u16>,
    sum: Sum,
}

impl Base {
    /// Of all that have a weight and stand where those with a share stand: backups, or the others.
    /// `None` when nobody takes flows.
    pub fn new(backends: &[Backend], shares: &[Share]) -> Option<Self> {
        let entrants = entrants(backends, shares);
        if entrants.is_empty() {
            return None;
        }
        let owners = fill(&entrants, size(backends.len()));
        let mut sum = Sum(0);
        for (slot, &owner) in owners.iter().enumerate() {
            sum.add(slot, &entrants[usize::from(owner)]);
        }
        let slots = owners.into_iter().map(|i| entrants[usize::from(i)].place).collect();
        Some(Self { entrants, slots, sum })
    }

    /// Whether it is what `new` would make.
    pub fn is_of(&self, backends: &[Backend], shares: &[Share]) -> bool {
        self.slots.len() == size(backends.len()) && self.entrants == entrants(backends, shares)
    }

    /// The table when only these have a share: the others lend their slots. `None` when nobody takes flows.
    pub fn table(&self, shares: &[Share]) -> Option<Table> {
        let has_share = |e: &Entrant| shares.iter().any(|s| s.backend == usize::from(e.place));
        let weight = |e: &Entrant| if has_share(e) { e.weight } else { 0 };
        let weights: Vec<u16> = self.entrants.iter().map(weight).collect();
        if weights.iter().all(|&weight| weight == 0) {
            return None;
        }
        let places = self.entrants.iter().map(|e| usize::from(e.place) + 1).max();
        let mut left = vec![0; places.unwrap_or(0)];
        for (entrant, quota) in self.entrants.iter().zip(quotas(&weights, self.slots.len())) {
            left[usize::from(entrant.place)] = quota;
        }
        let mut free = Vec::new();
        // A share of all may be rounded up and the same backend's share of fewer down: then it gives one away.
        for (slot, place) in self.slots.iter().enumerate() {
            match &mut left[usize::from(*place)] {
                0 => free.push(slot),
                left => *left -= 1,
            }
        }
        Some(self.lend(&free, &mut left))
    }

    /// The table with these slots at those of whom something is left, by place.
    fn lend(&self, free: &[usize], left: &mut [usize]) -> Table {
        let (mut slots, mut sum) = (self.slots.clone(), self.sum);
        let by_place = |place: u16| self.entrants.iter().find(|e| e.place == place);
        for &slot in free {
            let to = self.borrower(slot, left);
            left[usize::from(to.place)] -= 1;
            let from = core::mem::replace(&mut slots[slot], to.place);
            by_place(from).into_iter().for_each(|from| sum.remove(slot, from));
            sum.add(slot, to);
        }
        Table { slots, digest: sum.digest() }
    }

    /// The first of the slot's order of whom something is left. The order has everybody in it, so that it is
    /// the same whoever is down: by lot, with some drawn more than once, and then one after the other.
    fn borrower(&self, slot: usize, left: &[usize]) -> &Entrant {
        let count = self.entrants.len();
        let lot = |turn: usize| {
            let hash = mix((slot as u64) << 16 | turn as u64) >> 32;
            usize::try_from((hash * count as u64) >> 32).unwrap_or(0)
        };
        let mut order = (0..2 * count).map(lot).chain(0..count).map(|i| &self.entrants[i]);
        let found = order.find(|entrant| 0 < left[usize::from(entrant.place)]);
        debug_assert!(found.is_some(), "as much is left as is free");
        found.unwrap_or(&self.entrants[0])
    }
}

/// Of who has which slot, in any order, so that a change costs what it changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Sum(u64);

impl Sum {
    fn add(&mut self, slot: usize, owner: &Entrant) {
        self.0 = self.0.wrapping_add(Self::of(slot, owner));
    }

    fn remove(&mut self, slot: usize, owner: &Entrant) {
        self.0 = self.0.wrapping_sub(Self::of(slot, owner));
    }

    const fn of(slot: usize, owner: &Entrant) -> u64 {
        mix((slot as u64) << 32 | owner.id as u64)
    }

    const fn digest(self) -> u32 {
        (mix(self.0) >> 32) as u32
    }
}

/// All that would take turns if everybody were up.
fn entrants(backends: &[Backend], shares: &[Share]) -> Vec<Entrant> {
    let first = shares.iter().filter(|s| s.weight != 0).find_map(|s| backends.get(s.backend));
    let Some(first) = first else { return Vec::new() };
    let all = (0..).zip(backends).filter(|(_, b)| b.weight != 0 && b.backup == first.backup);
    let mut entrants: Vec<Entrant> = all.map(|(place, b)| Entrant::new(place, b)).collect();
    entrants.sort_unstable_by(|a, b| (a.id, &a.name).cmp(&(b.id, &b.name)));
    entrants
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

#[derive(Clone, Debug, Eq, PartialEq)]
struct Entrant {
    id: u32,
    name: String,
    /// In the file's order.
    place: u16,
    weight: u16,
}

impl Entrant {
    fn new(place: u16, backend: &Backend) -> Self {
        let (name, weight) = (backend.name.clone(), backend.weight);
        Self { id: name_key(&name), name, place, weight }
    }
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
    fn new(entrant: &Entrant, left: usize) -> Self {
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
fn fill(entrants: &[Entrant], slots: usize) -> Vec<u16> {
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

#[cfg(test)]
#[path = "maglev_tests.rs"]
mod tests;
