//! What a run was made of, so that one in which nothing happens cannot pass for a proof.

use crate::fault::Fault;
use buoy_model::{Cause, Fact};

/// Counts of one run, or of many.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    /// Events of any kind.
    pub events: u64,
    /// Datagrams sent, each leg for itself.
    pub datagrams: u64,
    /// Groups that a node took.
    pub acquired: u64,
    /// Of these, from an owner that fell silent.
    pub taken_over: u64,
    /// Of these, from an owner whose death was told.
    pub goodbyes: u64,
    /// Changes of owner.
    pub changes: u64,
    /// Leases that ended because a majority or the processor was missing.
    pub expired: u64,
    /// Times a host answered for an address while its agent was dead or frozen.
    pub orphaned: u64,
    /// Faults of each kind, in the order of `Fault::NAMES`.
    pub faults: [u64; Fault::NAMES.len()],
    /// Explanations that were compared with the decision.
    pub explained: u64,
    /// When a node last took a group, in nanoseconds.
    pub last_acquired: u64,
    /// The longest time in which nobody answered for an address after somebody stopped, in nanoseconds.
    pub longest_gap: u64,
}

impl Statistics {
    /// All faults together.
    pub fn all_faults(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// Takes another run's counts in.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.datagrams += other.datagrams;
        self.acquired += other.acquired;
        self.taken_over += other.taken_over;
        self.goodbyes += other.goodbyes;
        self.changes += other.changes;
        self.expired += other.expired;
        self.orphaned += other.orphaned;
        self.explained += other.explained;
        self.last_acquired = self.last_acquired.max(other.last_acquired);
        self.longest_gap = self.longest_gap.max(other.longest_gap);
        for (mine, theirs) in self.faults.iter_mut().zip(&other.faults) {
            *mine += theirs;
        }
    }

    pub(crate) fn fault(&mut self, fault: &Fault) {
        if let Some(kind) = fault.kind() {
            self.faults[kind] += 1;
        }
    }

    pub(crate) fn fact(&mut self, now: u64, fact: &Fact) {
        if let Fact::Acquired { cause, .. } = fact {
            self.acquired += 1;
            self.last_acquired = now;
            self.taken_over += u64::from(matches!(cause, Cause::OwnerSilent { .. }));
            self.goodbyes += u64::from(matches!(cause, Cause::OwnerDied { .. }));
        }
        if let Fact::Released { cause: Cause::LeaseExpired | Cause::Stalled, .. } = fact {
            self.expired += 1;
        }
    }
}
