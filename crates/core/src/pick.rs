//! Decides which backend takes a connection, where connections are known one by one (mode "proxy").
//!
//! | way | takes | looks at |
//! |---|---|---|
//! | hash, maglev | the backend of the client's slot | one |
//! | rendezvous | the one that ranks highest for the client | all |
//! | round robin | the richest of those that earn their weights and pay for a turn | all |
//! | least connections | the fewest connections for each weight, in turns among equals | all |
//! | shortest delay | the fewest for each weight with the new one counted, in turns among equals | all |
//! | random | of two drawn by weight, the one with fewer for each weight | two |
//! | first | the first in the list that has room | those before it |
//!
//! All are 128 at most, in one array, and nothing is allocated for a connection. A backend that has as many
//! connections as it may have, or that shall be avoided, is passed over: by hashing its clients go to the
//! backend of another slot, always the same one while things are so. A backend that has just come up has a part
//! of its weight: where weights are compared it counts with that part, and where a slot or a lot names it, it
//! takes that part of those who are sent to it.
//!
//! Absent on purpose: clocks and counters (the caller knows how busy and how grown each one is), and sockets.

use crate::balance::{self, Share, cost};
use crate::maglev;
use crate::random::{Random, mix};
use alloc::vec::Vec;
use buoy_model::{Backend, Balance, FlowFields, name_key};
use core::cmp::Reverse;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

/// The part of its weight that a backend has when it is fully grown.
pub const GROWN: u16 = 1024;

/// The part that a backend has so long after it came up: it grows evenly.
pub fn grown(up_for: Duration, slow_start: Duration) -> u16 {
    let parts = up_for.as_nanos() * u128::from(GROWN) / slow_start.as_nanos().max(1);
    u16::try_from(parts).map_or(GROWN, |part| part.min(GROWN))
}

/// How often a slot or a lot may name somebody who does not take it, before the list is gone through.
const TRIES: u64 = 16;

/// What is known of a backend at this moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Connections that it has.
    pub active: u32,
    /// The part of its weight that it gets, of `GROWN`.
    pub grown: u16,
    /// Whether it is better left alone: taken when there is nobody else.
    pub avoid: bool,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Picked {
    /// The backend in this place of the list takes it.
    Backend(usize),
    /// All who would take it have as many as they may have.
    Full,
    /// Nobody takes connections.
    Nobody,
}

/// Picks among the backends of one service.
#[derive(Clone, Debug)]
pub struct Picker {
    balance: Balance,
    entries: Vec<Entry>,
    /// Of the ways with a table: the place of the backend of each slot.
    slots: Vec<u16>,
    lots: Lots,
    random: Random,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The key of its name.
    id: u32,
    weight: u16,
    max: u32,
    /// Round robin: everybody earns its weight each turn, the richest pays for all.
    credit: i64,
    /// As of the pick that is being made.
    seen: Seen,
}

impl Picker {
    /// For those who take connections now, in the file's order. The seed is for `Balance::Random`.
    pub fn new(balance: Balance, backends: &[Backend], seed: u64) -> Self {
        let shares: Vec<Share> = (0..)
            .zip(backends)
            .filter(|(_, b)| b.weight != 0)
            .map(|(backend, b)| Share { backend, weight: b.weight })
            .collect();
        let place = |backend: &usize| u16::try_from(*backend).unwrap_or(0);
        let slots = match balance {
            Balance::Hash(_) => balance::Table::new(backends, &shares)
                .map_or_else(Vec::new, |table| table.slots().iter().map(place).collect()),
            Balance::Maglev(_) => maglev::Table::new(backends, &shares)
                .map_or_else(Vec::new, |table| table.slots().to_vec()),
            Balance::Rendezvous(_)
            | Balance::RoundRobin
            | Balance::LeastConnections
            | Balance::ShortestDelay
            | Balance::Random
            | Balance::First => Vec::new(),
        };
        let entry = |b: &Backend| Entry {
            id: name_key(&b.name),
            weight: b.weight,
            max: b.connections_max.unwrap_or(u32::MAX),
            credit: 0,
            seen: Seen { active: 0, grown: GROWN, avoid: false },
        };
        let weights: Vec<u16> = backends.iter().map(|b| b.weight).collect();
        Self {
            balance,
            entries: backends.iter().map(entry).collect(),
            slots,
            lots: Lots::new(&weights),
            random: Random::new(seed),
        }
    }

    /// The backend for a connection of this client, from what is seen of each by its place in the list.
    pub fn pick(&mut self, client: SocketAddr, see: impl Fn(usize) -> Seen) -> Picked {
        match self.pick_among(client, &see) {
            Picked::Nobody => self.pick_among(client, &|i| Seen { avoid: false, ..see(i) }),
            picked @ (Picked::Backend(_) | Picked::Full) => picked,
        }
    }

    /// Whether somebody takes one more, by how many connections each has.
    pub fn has_room(&self, active: impl Fn(usize) -> u32) -> bool {
        let mut all = self.entries.iter().enumerate();
        all.any(|(i, entry)| entry.weight != 0 && active(i) < entry.max)
    }

    fn pick_among(&mut self, client: SocketAddr, see: &dyn Fn(usize) -> Seen) -> Picked {
        let quick = match self.balance {
            Balance::Hash(fields) | Balance::Maglev(fields) => {
                self.by_slot(key(client, fields), see)
            }
            Balance::Random => self.by_lot(see),
            Balance::Rendezvous(_)
            | Balance::RoundRobin
            | Balance::LeastConnections
            | Balance::ShortestDelay
            | Balance::First => None,
        };
        if let Some(place) = quick {
            return Picked::Backend(place);
        }
        // Each once, so that a number that changes meanwhile does not contradict itself.
        (0..self.entries.len()).for_each(|i| self.look(i, see));
        let found = match self.balance {
            // Slots and lots have named nobody who takes it.
            Balance::Hash(fields) | Balance::Maglev(fields) => self.from(key(client, fields)),
            Balance::Random => {
                let start = self.random.next();
                self.from(start)
            }
            Balance::Rendezvous(fields) => self.by_rank(key(client, fields)),
            Balance::RoundRobin => self.in_turn(|_| true),
            Balance::LeastConnections => self.by_load(0),
            Balance::ShortestDelay => self.by_load(1),
            Balance::First => self.entries.iter().position(Entry::takes),
        };
        match found {
            Some(place) => Picked::Backend(place),
            None if self.entries.iter().any(Entry::is_able) => Picked::Full,
            None => Picked::Nobody,
        }
    }

    fn look(&mut self, place: usize, see: &dyn Fn(usize) -> Seen) {
        if let Some(entry) = self.entries.get_mut(place) {
            entry.seen = see(place);
        }
    }

    /// The backend of the key's slot; where it does not take this one, that of another slot of the key.
    fn by_slot(&mut self, key: u64, see: &dyn Fn(usize) -> Seen) -> Option<usize> {
        let slots = self.slots.len() as u64;
        for turn in 0..TRIES {
            let hash = mix(key.wrapping_add(turn));
            let slot = usize::try_from(((hash >> 32) * slots) >> 32).unwrap_or(0);
            let place = usize::from(*self.slots.get(slot)?);
            self.look(place, see);
            // The lower half, which chose no slot.
            if self.entries[place].takes_part(hash & 0xffff_ffff) {
                return Some(place);
            }
        }
        None
    }

    /// The first after a place that the key chooses who has room.
    fn from(&self, key: u64) -> Option<usize> {
        let count = self.entries.len();
        let start = usize::try_from(key % (count as u64).max(1)).unwrap_or(0);
        (start..count).chain(0..start).find(|&i| self.entries[i].takes())
    }

    /// Weighted rendezvous: the smallest cost for each weight.
    fn by_rank(&self, key: u64) -> Option<usize> {
        let mut best: Option<(u128, u64, usize)> = None;
        for (i, entry) in self.entries.iter().enumerate().filter(|(_, e)| e.takes()) {
            let (cost, weight) = (u128::from(cost(entry.id, key)), entry.weight_now());
            // The names' keys settle a tie, and not the order of the lines.
            let is_better = best.is_none_or(|(least, of, b)| {
                let (mine, other) = (cost * u128::from(of), least * u128::from(weight));
                mine < other || mine == other && entry.id < self.entries[b].id
            });
            if is_better {
                best = Some((cost, weight, i));
            }
        }
        best.map(|(_, _, i)| i)
    }

    /// Smooth weighted round robin among some of those that have room.
    fn in_turn(&mut self, among: impl Fn(&Entry) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut richest: Option<usize> = None;
        for i in 0..self.entries.len() {
            let entry = &mut self.entries[i];
            if !entry.takes() || !among(entry) {
                continue;
            }
            let weight = i64::try_from(entry.weight_now()).unwrap_or(i64::MAX);
            entry.credit += weight;
            total += weight;
            let credit = entry.credit;
            // The first of the richest, so that equal weights go in the file's order.
            if richest.is_none_or(|best| self.entries[best].credit < credit) {
                richest = Some(i);
            }
        }
        self.entries[richest?].credit -= total;
        richest
    }

    /// The fewest connections for each weight, with so many more counted.
    fn by_load(&mut self, more: u64) -> Option<usize> {
        let able = self.entries.iter().filter(|entry| entry.takes());
        let (load, weight) = able
            .map(|entry| entry.load(more))
            .min_by(|(a, of_a), (b, of_b)| (a * of_b).cmp(&(b * of_a)))?;
        // In turns among equals, or an idle service would use its first backend only.
        self.in_turn(|entry| {
            let (mine, of_mine) = entry.load(more);
            mine * weight == load * of_mine
        })
    }

    /// Of two that a lot names, the one with fewer connections for each weight.
    fn by_lot(&mut self, see: &dyn Fn(usize) -> Seen) -> Option<usize> {
        let one = self.draw(None, see)?;
        let Some(other) = self.draw(Some(one), see) else { return Some(one) };
        let ((a, of_a), (b, of_b)) = (self.entries[one].load(0), self.entries[other].load(0));
        Some(if b * of_a < a * of_b { other } else { one })
    }

    /// Somebody with room, by weight, if a few lots find one.
    fn draw(&mut self, but: Option<usize>, see: &dyn Fn(usize) -> Seen) -> Option<usize> {
        for _ in 0..TRIES {
            let place = self.lots.draw(self.random.next())?;
            let part = self.random.next() >> 32;
            if Some(place) == but {
                continue;
            }
            self.look(place, see);
            if self.entries[place].takes_part(part) {
                return Some(place);
            }
        }
        None
    }
}

impl Entry {
    /// Whether it takes connections, as far as it has room.
    const fn is_able(&self) -> bool {
        self.weight != 0 && !self.seen.avoid
    }

    const fn takes(&self) -> bool {
        self.is_able() && self.seen.active < self.max
    }

    /// Whether it takes the one with this number of 32 bits, of which its part shall be taken.
    const fn takes_part(&self, number: u64) -> bool {
        self.takes() && (number * GROWN as u64) >> 32 < self.seen.grown as u64
    }

    /// Never zero.
    fn weight_now(&self) -> u64 {
        (u64::from(self.weight) * u64::from(self.seen.grown)).max(1)
    }

    fn load(&self, more: u64) -> (u64, u64) {
        (u64::from(self.seen.active) + more, self.weight_now())
    }
}

/// A number for what makes connections of a client one: the same on every node.
fn key(client: SocketAddr, fields: FlowFields) -> u64 {
    let (address, port) = fields.of(client);
    let halves = match address.to_canonical() {
        IpAddr::V4(ip) => [0, u64::from(ip.to_bits())],
        IpAddr::V6(ip) => {
            let [high, low] = [ip.to_bits() >> 64, ip.to_bits() & u128::from(u64::MAX)];
            [high, low].map(|half| u64::try_from(half).unwrap_or(0))
        }
    };
    let [high, low] = halves;
    mix(mix(mix(high ^ 0x9e37_79b9_7f4a_7c15) ^ low) ^ u64::from(port))
}

/// Draws by weight, each time in one step (Walker and Vose's alias method, in integers and so exact): each
/// backend has one lot of equal size, and gives what of it is more than its weight to one other.
#[derive(Clone, Debug, Default)]
struct Lots {
    /// How much of its lot each keeps, of `total`, and who has the rest.
    lots: Vec<(u64, usize)>,
    total: u64,
}

impl Lots {
    fn new(weights: &[u16]) -> Self {
        let count = weights.len() as u64;
        let total: u64 = weights.iter().map(|&w| u64::from(w)).sum();
        let mut left: Vec<u64> = weights.iter().map(|&w| u64::from(w) * count).collect();
        let mut lots: Vec<(u64, usize)> = (0..weights.len()).map(|i| (total, i)).collect();
        let mut poor: Vec<usize> = (0..left.len()).filter(|&i| left[i] < total).collect();
        let mut rich: Vec<usize> = (0..left.len()).filter(|&i| total < left[i]).collect();
        rich.sort_by_key(|&i| Reverse(i));
        while let (Some(from), Some(&to)) = (poor.pop(), rich.last()) {
            lots[from] = (left[from], to);
            left[to] -= total - left[from];
            if left[to] <= total {
                rich.pop();
            }
            if left[to] < total {
                poor.push(to);
            }
        }
        Self { lots, total }
    }

    fn draw(&self, number: u64) -> Option<usize> {
        if self.total == 0 {
            return None;
        }
        let (high, low) = (number >> 32, number & 0xffff_ffff);
        let lot = usize::try_from((high * self.lots.len() as u64) >> 32).unwrap_or(0);
        let (kept, other) = *self.lots.get(lot)?;
        Some(if (low * self.total) >> 32 < kept { lot } else { other })
    }
}

#[cfg(test)]
#[path = "pick_tests.rs"]
mod tests;
