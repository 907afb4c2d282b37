//! The leases that addresses share and the master switch, in memory that the programs read.
//!
//! A store into it is all that it takes to renew a thousand addresses, or to silence them. Another
//! process can hold the same memory, so what it says goes whatever becomes of this one.

use super::{GATE_STALE, GateError};
use crate::{clock, sys};
use aya::maps::{MapData, MapType};
use buoy_model::{Instant, SharedLease};
use buoy_xdp::GATE_LEASES_LEN;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Words of one lease: its deadline and its stale bound.
const WORDS: usize = size_of::<buoy_xdp::GateLease>() / size_of::<u64>();
const MASTER: usize = 0;

/// Where the lease lies in the array.
pub(super) const fn index(lease: SharedLease) -> u64 {
    match lease {
        SharedLease::Majority => 1,
        SharedLease::Loop => 2,
    }
}

/// The array of leases.
pub(super) struct Leases {
    map: MapData,
    memory: sys::Shared,
}

impl Leases {
    pub(super) fn new(map: MapData) -> Result<Self, GateError> {
        let memory = share(&map)?;
        Ok(Self { map, memory })
    }

    /// The lease ends then.
    pub(super) fn renew(&self, lease: SharedLease, until: Instant) {
        let [deadline, bound] = self.lease(index(lease));
        // The bound first: an entry that is closed must not be stale for a moment.
        bound.store(stale_bound(until), Ordering::Release);
        deadline.store(until.as_nanos(), Ordering::SeqCst);
    }

    /// When the lease of this index ends; of none, never was.
    pub(super) fn ends(&self, index: u64) -> Instant {
        if index == MASTER as u64 {
            return Instant::ZERO;
        }
        Instant::from_nanos(self.lease(index)[0].load(Ordering::Relaxed))
    }

    pub(super) fn set_master(&self, closed: bool) {
        self.lease(MASTER as u64)[0].store(u64::from(closed), Ordering::SeqCst);
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }

    fn lease(&self, index: u64) -> [&AtomicU64; 2] {
        debug_assert!(index < GATE_LEASES_LEN as u64);
        let at = usize::try_from(index).unwrap_or(0) * WORDS;
        let words = self.memory.words();
        [&words[at], &words[at + 1]]
    }
}

/// Closes everything that a run of the agent has opened, from another process.
#[derive(Debug)]
pub struct MasterSwitch {
    memory: sys::Shared,
}

impl MasterSwitch {
    /// Takes what `Gate::leases_fd` gave to the agent's parent or child; the descriptor may be
    /// closed afterwards.
    pub fn open(fd: BorrowedFd<'_>) -> Result<Self, GateError> {
        let wrong = |reason: String| GateError::Load { reason };
        let owned = fd.try_clone_to_owned().map_err(|e| wrong(e.to_string()))?;
        let map = MapData::from_fd(owned).map_err(|e| wrong(e.to_string()))?;
        let info = map.info().map_err(|e| wrong(e.to_string()))?;
        let is_ours = info.name_as_str() == Some(buoy_xdp::GATE_LEASES)
            && matches!(info.map_type(), Ok(MapType::Array));
        if !is_ours {
            return Err(wrong("the descriptor is not that of a gate's leases".to_owned()));
        }
        share(&map).map(|memory| Self { memory })
    }

    /// Nothing of that run is answered for any more, and nothing reopens it. One store: no system
    /// call, no allocation.
    pub fn close_all(&self) {
        self.memory.words()[MASTER].store(1, Ordering::SeqCst);
    }

    /// None of the addresses is on this host any more, so the packets of exclusive ones, which the
    /// closed gate stops, are let through: this host may be on their way to the new owner. Only the
    /// packets: nothing answers for an address before the next run.
    pub fn all_are_gone(&self) {
        self.memory.words()[MASTER * WORDS + 1].store(1, Ordering::SeqCst);
    }

    /// Whether everything is closed.
    pub fn is_closed(&self) -> bool {
        self.memory.words()[MASTER].load(Ordering::SeqCst) != 0
    }
}

fn share(map: &MapData) -> Result<sys::Shared, GateError> {
    sys::Shared::map(&map.fd(), GATE_LEASES_LEN * WORDS).map_err(|e| GateError::Load {
        reason: format!("its leases cannot be mapped into memory: {e}"),
    })
}

/// Until when an entry with this deadline means something, by the clock of the kernel's timers.
pub(super) fn stale_bound(until: Instant) -> u64 {
    let kept = until.since(clock::now()) + GATE_STALE;
    clock::monotonic().saturating_add(u64::try_from(kept.as_nanos()).unwrap_or(u64::MAX))
}
