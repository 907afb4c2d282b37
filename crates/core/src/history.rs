//! Carries the past of a table from the host that has an address to the others, so that each of them sends every
//! flow where that one does.
//!
//! A host that was there all the time has mostly seen the same changes and has the same past: equal hashes, and
//! nothing is carried. One that came later, or saw two changes in another order, has another one. Who has the
//! address is right, whatever it knows: flows were opened through it. So the others begin with its past, and what
//! they see otherwise themselves (a backend that is down for them alone) is one more change after it.
//!
//! `Following` decides what to ask whom for, with all its state bounded. Absent on purpose: bytes on the wire, and
//! the tables (`transition`, `fast`).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use buoy_model::limits::{
    FAST_DRAIN, FAST_PLACES_MAX, FAST_SLOTS, HISTORIES_MAX, HISTORY_BATCH, HISTORY_PIECES_MAX,
};
use buoy_model::{History, HistoryPiece, HistorySlot, Instant, NodeId, Slot};
use core::time::Duration;

/// Two hosts see a change within this time of each other; a difference that stays is one.
const PATIENCE: Duration = Duration::from_millis(1500);
/// A host that has just begun has no past of its own to wait for.
const BEGINNING: Duration = Duration::from_secs(10);
/// Pieces that do not come are asked for again after so long.
const AGAIN: Duration = Duration::from_millis(300);
/// Whoever sends none for so long has it no more.
const GIVE_UP: Duration = Duration::from_secs(3);

/// Why what another host sent is no history.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Malformed;

/// Whether every place is named that is used, and nothing is larger than it may be.
pub fn check(history: &History) -> Result<(), Malformed> {
    let History { backends, size, current, moving } = history;
    let places = backends.len();
    let is_place = |place: u16| usize::from(place) < places;
    let is_size = |len: usize| len == 0 || (len.is_power_of_two() && len <= FAST_SLOTS[2]);
    let size = usize::try_from(*size).map_err(|_| Malformed)?;
    let is_slot = |slot: &HistorySlot| {
        let at = usize::from(slot.slot);
        let has_time = slot.previous_for > 0 || slot.remembered_for > 0;
        let is_previous = slot.previous_for == 0
            || (is_place(slot.previous) && current.get(at) != Some(&slot.previous));
        at < current.len() && has_time && is_previous
    };
    let is_well = places <= FAST_PLACES_MAX
        && is_size(size)
        && is_size(current.len())
        && size <= current.len()
        && current.iter().all(|&place| place == Slot::NOBODY || is_place(place))
        && moving.is_sorted_by(|a, b| a.slot < b.slot)
        && moving.iter().all(is_slot);
    if is_well { Ok(()) } else { Err(Malformed) }
}

/// Whole seconds that are left until then, so that none is lost and no longer than a drain.
pub(crate) fn seconds_until(now: Instant, until: Option<Instant>) -> u16 {
    let left = until.map_or(Duration::ZERO, |at| at.since(now)).min(FAST_DRAIN);
    u16::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u16::MAX)
}

/// What `seconds_until` was asked about.
pub(crate) fn until(now: Instant, seconds: u16) -> Option<Instant> {
    (seconds > 0).then(|| now + Duration::from_secs(seconds.into()).min(FAST_DRAIN))
}

/// Decides which histories to ask for.
#[derive(Clone, Debug)]
pub struct Following {
    began: Instant,
    /// Services, by their hash, that have another history here than where their address is.
    different: BTreeMap<u64, Difference>,
    /// Histories that are asked for.
    wanted: BTreeMap<u64, Wanted>,
}

#[derive(Clone, Copy, Debug)]
struct Difference {
    history: u64,
    peer: NodeId,
    since: Instant,
}

#[derive(Clone, Debug)]
struct Wanted {
    peer: NodeId,
    pieces: Vec<Option<Vec<u8>>>,
    asked: Option<Instant>,
    heard: Instant,
}

impl Following {
    /// Nothing is known yet.
    pub const fn new(now: Instant) -> Self {
        Self { began: now, different: BTreeMap::new(), wanted: BTreeMap::new() }
    }

    /// A peer has the addresses of these services and these histories of them. `follows` says of a service whether
    /// this host has to follow that history: it has not the address, and another past.
    pub fn hear(
        &mut self,
        now: Instant,
        peer: NodeId,
        told: &[(u64, u64)],
        follows: impl Fn(u64, u64) -> bool,
    ) {
        for &(service, history) in told {
            if !follows(service, history) {
                self.different.remove(&service);
                continue;
            }
            let new = Difference { history, peer, since: now };
            let known = self.different.entry(service).or_insert(new);
            if (known.history, known.peer) != (history, peer) {
                // The moment at which the two began to differ stays: it may change every second.
                *known = Difference { since: known.since, ..new };
            }
        }
    }

    /// Nothing more comes from a peer.
    pub fn forget(&mut self, peer: NodeId) {
        self.different.retain(|_, known| known.peer != peer);
        self.wanted.retain(|_, wanted| wanted.peer != peer);
    }

    /// What to ask whom for now: a history, from this piece on.
    pub fn asks(&mut self, now: Instant) -> Vec<(NodeId, u64, u16)> {
        let different = &self.different;
        let is_wanted = |history: u64| different.values().any(|known| known.history == history);
        self.wanted.retain(|history, wanted| is_wanted(*history) && now < wanted.heard + GIVE_UP);
        let begins = now < self.began + BEGINNING;
        let is_due = |known: &&Difference| begins || known.since + PATIENCE <= now;
        for known in self.different.values().filter(is_due) {
            if self.wanted.len() < HISTORIES_MAX {
                let new = Wanted { peer: known.peer, pieces: Vec::new(), asked: None, heard: now };
                self.wanted.entry(known.history).or_insert(new);
            }
        }
        let due = |(history, wanted): (&u64, &mut Wanted)| {
            let is_due = wanted.asked.is_none_or(|at| at + AGAIN <= now);
            is_due.then(|| {
                wanted.asked = Some(now);
                (wanted.peer, *history, wanted.missing())
            })
        };
        self.wanted.iter_mut().filter_map(due).collect()
    }

    /// A piece came; the bytes of the whole once it is there, with the services that it is for.
    pub fn piece(
        &mut self,
        now: Instant,
        peer: NodeId,
        piece: HistoryPiece,
    ) -> Option<(Vec<u8>, Vec<u64>)> {
        let HistoryPiece { history, index, count, bytes } = piece;
        let wanted = self.wanted.get_mut(&history).filter(|wanted| wanted.peer == peer)?;
        if count == 0 || count > HISTORY_PIECES_MAX || index >= count {
            return None;
        }
        if wanted.pieces.len() != usize::from(count) {
            wanted.pieces = alloc::vec![None; usize::from(count)];
        }
        wanted.pieces[usize::from(index)] = Some(bytes);
        wanted.heard = now;
        // The last one of those that were asked for: the next ones are due.
        if index % HISTORY_BATCH == HISTORY_BATCH - 1 {
            wanted.asked = None;
        }
        if wanted.pieces.iter().any(Option::is_none) {
            return None;
        }
        let whole = self.wanted.remove(&history)?.pieces.into_iter().flatten().flatten().collect();
        let services = self.different.iter().filter(|(_, known)| known.history == history);
        let services: Vec<u64> = services.map(|(service, _)| *service).collect();
        for service in &services {
            self.different.remove(service);
        }
        Some((whole, services))
    }
}

impl Wanted {
    fn missing(&self) -> u16 {
        let first = self.pieces.iter().position(Option::is_none).unwrap_or(0);
        u16::try_from(first).unwrap_or(0)
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
