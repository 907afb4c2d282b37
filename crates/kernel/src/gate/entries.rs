//! The entries of the gate: where each address has its own, and what is written there.
//!
//! A hash map of the kernel leads the programs from an address to a slot of an array, and the array
//! is mapped into our memory: only a new address costs a system call.

use super::error::errno;
use super::lease::{Leases, index, stale_bound};
use super::{GateError, Opening};
use crate::{clock, sys};
use aya::maps::{HashMap, MapData};
use buoy_model::{Guard, Instant};
use buoy_xdp::{
    GATE_ADDRESSES_MAX, GATE_GUARD_TRAFFIC, GATE_LEASE_MASK, GATE_PRESENT, GateEntry, GateKey,
};
use nix::errno::Errno;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A key as it lies in the map.
pub(super) type Key = [u8; size_of::<GateKey>()];
/// From an address to its slot.
pub(super) type Slots = HashMap<MapData, Key, u32>;

const WORDS: usize = size_of::<GateEntry>() / size_of::<u64>();

pub(super) struct Entries {
    slots: Slots,
    /// Kept open for its memory.
    _map: MapData,
    memory: sys::Shared,
    /// What is in `slots`, sorted.
    known: Vec<(Key, u32)>,
    /// Slots from here on were never used.
    fresh: u32,
    /// Slots that were given back; the oldest is used first, so that a program that still looks at
    /// it has long ended.
    free: VecDeque<u32>,
}

impl Entries {
    pub(super) fn new(slots: Slots, map: MapData) -> Result<Self, GateError> {
        let words = usize::try_from(GATE_ADDRESSES_MAX).unwrap_or(0) * WORDS;
        let memory = sys::Shared::map(&map.fd(), words).map_err(|e| GateError::Load {
            reason: format!("its entries cannot be mapped into memory: {e}"),
        })?;
        let (known, free) = (Vec::new(), VecDeque::new());
        Ok(Self { slots, _map: map, memory, known, fresh: 0, free })
    }

    /// The entry of an address, if it has one.
    pub(super) fn find(&self, key: &Key) -> Option<Entry<'_>> {
        let at = self.known.binary_search_by_key(key, |&(key, _)| key).ok()?;
        Some(self.entry(self.known[at].1))
    }

    /// The entry of an address; a new one is closed.
    pub(super) fn find_or_add(
        &mut self,
        key: Key,
        address: IpAddr,
    ) -> Result<Entry<'_>, GateError> {
        let slot = match self.known.binary_search_by_key(&key, |&(key, _)| key) {
            Ok(at) => self.known[at].1,
            Err(at) => self.add(at, key).map_err(|errno| GateError::Write { address, errno })?,
        };
        Ok(self.entry(slot))
    }

    /// Whether any address has an entry under this key.
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.find(key).is_some()
    }

    /// Forgets an address; not there is fine.
    pub(super) fn remove(&mut self, key: &Key) -> Result<(), Errno> {
        let Ok(at) = self.known.binary_search_by_key(key, |&(key, _)| key) else { return Ok(()) };
        match self.slots.remove(key).map_err(|e| errno(&e)) {
            Ok(()) | Err(Some(Errno::ENOENT)) => {}
            Err(errno) => return Err(errno.unwrap_or(Errno::EIO)),
        }
        let (_, slot) = self.known.remove(at);
        self.free.push_back(slot);
        Ok(())
    }

    fn add(&mut self, at: usize, key: Key) -> Result<u32, Errno> {
        let recycled = self.free.pop_front();
        let slot = recycled.unwrap_or(self.fresh);
        if slot >= GATE_ADDRESSES_MAX {
            return Err(Errno::E2BIG);
        }
        // Written before anybody can find it.
        self.entry(slot)
            .write(GateEntry { until: stale_bound(Instant::ZERO), ..GateEntry::default() });
        if let Err(error) = self.slots.insert(key, slot, 0) {
            self.free.extend(recycled);
            return Err(errno(&error).unwrap_or(Errno::EIO));
        }
        if recycled.is_none() {
            self.fresh += 1;
        }
        self.known.insert(at, (key, slot));
        Ok(slot)
    }

    fn entry(&self, slot: u32) -> Entry<'_> {
        let at = usize::try_from(slot).unwrap_or(0) * WORDS;
        let words = self.memory.words();
        Entry {
            deadline: &words[at],
            until: &words[at + 1],
            first_packet: &words[at + 2],
            rule: &words[at + 3],
        }
    }
}

/// One entry, in the memory that the programs read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    deadline: &'a AtomicU64,
    until: &'a AtomicU64,
    first_packet: &'a AtomicU64,
    rule: &'a AtomicU64,
}

impl Entry<'_> {
    /// Opens or closes it, with nothing in between that is neither the one nor the other.
    pub(super) fn set(self, opening: Opening, leases: &Leases) {
        let now = clock::now();
        let shared = opening.lease.map_or(0, index);
        let opens = now < opening.until || opening.lease.is_some();
        if opens && self.ends(leases) <= now {
            self.first_packet.store(0, Ordering::Relaxed);
        }
        let guard = match opening.guard {
            Guard::Neighbours => 0,
            Guard::Traffic => GATE_GUARD_TRAFFIC,
        };
        self.until.store(stale_bound(opening.until), Ordering::Release);
        let present = self.rule.load(Ordering::Relaxed) & GATE_PRESENT;
        // The deadline before the rule: who changes from a shared lease to its own stays open.
        self.deadline.store(opening.until.as_nanos(), Ordering::SeqCst);
        self.rule.store(shared | guard | present, Ordering::SeqCst);
    }

    /// Closes it.
    pub(super) fn shut(self) {
        self.until.fetch_max(stale_bound(Instant::ZERO), Ordering::Release);
        self.deadline.store(0, Ordering::SeqCst);
        self.rule.fetch_and(!GATE_LEASE_MASK, Ordering::SeqCst);
    }

    /// The address is on the interface for so long, so the entry means something for longer.
    pub(super) fn present(self, lifetime: Duration) {
        let bound = stale_bound(clock::now() + lifetime);
        self.until.fetch_max(bound, Ordering::Release);
        self.rule.fetch_or(GATE_PRESENT, Ordering::SeqCst);
    }

    /// The address is not on the interface: packets for it are on their way to another host.
    pub(super) fn absent(self) {
        self.rule.fetch_and(!GATE_PRESENT, Ordering::Release);
    }

    /// When the first packet came in since it was opened.
    pub(super) fn first_packet(self) -> Option<Instant> {
        let nanos = self.first_packet.load(Ordering::Relaxed);
        (nanos != 0).then(|| Instant::from_nanos(nanos))
    }

    /// Takes over what an earlier run promised.
    pub(super) fn write(self, entry: GateEntry) {
        self.until.store(entry.until, Ordering::Release);
        self.first_packet.store(entry.first_packet, Ordering::Relaxed);
        self.rule.store(entry.rule, Ordering::Release);
        self.deadline.store(entry.deadline, Ordering::SeqCst);
    }

    /// Until when it is open.
    fn ends(self, leases: &Leases) -> Instant {
        let own = Instant::from_nanos(self.deadline.load(Ordering::Relaxed));
        own.max(leases.ends(self.rule.load(Ordering::Relaxed) & GATE_LEASE_MASK))
    }
}
