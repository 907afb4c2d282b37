//! What the kernel of one host does with our actions, with the agent dead or alive.
//!
//! A gated host answers for an address while the address is there, the gate's master switch is on,
//! and either the address's own deadline or that of the lease it shares has not passed on its clock.
//! A host without gate answers while the address is there, and the kernel takes it off at some moment
//! after its lifetime. A suspended host answers nothing; its clock goes on.

use crate::clock::Clock;
use buoy_core::Fence;
use buoy_model::limits::{KERNEL_FENCE_LAG, VALID_LIFETIME_UNGATED};
use buoy_model::{Instant, LinkId, SharedLease};
use std::time::Duration;

/// How much later than its lifetime an address may still be there.
pub(crate) const LIFETIME_LAG: Duration =
    KERNEL_FENCE_LAG.saturating_sub(Duration::from_secs(VALID_LIFETIME_UNGATED as u64));

/// One host, without its agent. Addresses are named by their place in `Scenario::addresses`.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Its clock.
    pub(crate) clock: Clock,
    /// What it has against a dead agent.
    pub(crate) fence: Fence,
    /// Whether the interface of the VIPs has a carrier. Without one it may still answer: the checker
    /// excuses nothing.
    pub(crate) carrier: bool,
    /// How many suspensions hold it.
    pub(crate) suspended: u32,
    /// What is on the interface, and when the kernel takes it off.
    present: Vec<Option<Present>>,
    gate: Vec<Entry>,
    /// The ends of the shared leases.
    leases: [Instant; 2],
    /// Off: the gate lets no address answer. A supervisor turns it, and the next agent.
    master: bool,
}

#[derive(Clone, Copy, Debug)]
struct Present {
    link: LinkId,
    until: Instant,
}

/// An address in the gate.
#[derive(Clone, Copy, Debug)]
struct Entry {
    until: Instant,
    lease: Option<SharedLease>,
}

impl Entry {
    const CLOSED: Self = Self { until: Instant::ZERO, lease: None };
}

const fn slot(lease: SharedLease) -> usize {
    match lease {
        SharedLease::Majority => 0,
        SharedLease::Loop => 1,
    }
}

impl Host {
    /// A host that has just booted and may get so many addresses.
    pub(crate) fn new(clock: Clock, fence: Fence, addresses: usize) -> Self {
        Self {
            clock,
            fence,
            carrier: true,
            suspended: 0,
            present: vec![None; addresses],
            gate: vec![Entry::CLOSED; addresses],
            leases: [Instant::ZERO; 2],
            master: true,
        }
    }

    /// A new agent loads an empty gate and turns it on.
    pub(crate) fn load_gate(&mut self) {
        self.gate.fill(Entry::CLOSED);
        self.leases = [Instant::ZERO; 2];
        self.master = true;
    }

    /// A supervisor that saw its agent die turns the gate off.
    pub(crate) const fn close_gate(&mut self) {
        self.master = false;
    }

    /// Puts an address on or renews it; the kernel is `lag` late to take it off. Answers when that will be.
    pub(crate) fn add(
        &mut self,
        now: u64,
        link: LinkId,
        address: usize,
        valid: u32,
        lag: Duration,
    ) -> u64 {
        let until = self.clock.local(now) + Duration::from_secs(valid.into()) + lag;
        self.present[address] = Some(Present { link, until });
        self.clock.when(until)
    }

    /// Takes an address off; true when it was there.
    pub(crate) fn remove(&mut self, address: usize) -> bool {
        self.present[address].take().is_some()
    }

    /// Takes an address off when its time is up; answers from which interface.
    pub(crate) fn expire(&mut self, now: u64, address: usize) -> Option<LinkId> {
        let present = self.present[address]?;
        if self.clock.local(now) < present.until {
            return None;
        }
        self.present[address] = None;
        Some(present.link)
    }

    /// When an address is due to be taken off, as far as the clock's rate stays what it is.
    pub(crate) fn expiry(&self, address: usize) -> Option<u64> {
        self.present[address].map(|present| self.clock.when(present.until))
    }

    /// Moves the gate's deadline for an address.
    pub(crate) fn set_gate(&mut self, address: usize, until: Instant, lease: Option<SharedLease>) {
        self.gate[address] = Entry { until, lease };
    }

    /// Moves the end of a shared lease; true when it was over and more than one address may answer again.
    pub(crate) fn renew(&mut self, now: u64, lease: SharedLease, until: Instant) -> bool {
        let end = &mut self.leases[slot(lease)];
        let was_over = *end <= self.clock.local(now);
        *end = until;
        was_over
    }

    /// Whether an address is fenced with that lease.
    pub(crate) fn shares(&self, address: usize, lease: SharedLease) -> bool {
        self.gate[address].lease == Some(lease)
    }

    /// Whether a neighbour that asks for the address now gets an answer.
    pub(crate) fn answers(&self, now: u64, address: usize) -> bool {
        let Some(present) = self.present[address] else { return false };
        if self.suspended > 0 {
            return false;
        }
        let local = self.clock.local(now);
        match self.fence {
            Fence::Gate => {
                let entry = self.gate[address];
                let shared = entry.lease.map_or(Instant::ZERO, |lease| self.leases[slot(lease)]);
                self.master && local < entry.until.max(shared)
            }
            Fence::Lifetime => local < present.until,
        }
    }

    /// Every address that is there.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = usize> {
        (0..self.present.len()).filter(|i| self.present[*i].is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const LINK: LinkId = LinkId(1);

    fn host(fence: Fence) -> Host {
        Host::new(Clock::new(0, 77 * SECOND, 0), fence, 2)
    }

    fn at(second: u64) -> Instant {
        Instant::from_nanos(second * SECOND)
    }

    #[test]
    fn a_gated_host_answers_until_the_deadline_and_not_a_nanosecond_longer() {
        let mut host = host(Fence::Gate);
        host.add(0, LINK, 0, 2, Duration::ZERO);
        assert!(!host.answers(0, 0), "the gate is closed until it is opened");
        host.set_gate(0, at(78), None);
        assert!(host.answers(SECOND - 1, 0));
        assert!(!host.answers(SECOND, 0));
    }

    #[test]
    fn a_shared_lease_holds_all_that_are_fenced_with_it_and_no_other() {
        let mut host = host(Fence::Gate);
        for address in 0..2 {
            host.add(0, LINK, address, 2, Duration::ZERO);
        }
        host.set_gate(0, at(78), Some(SharedLease::Majority));
        host.set_gate(1, at(78), Some(SharedLease::Loop));
        assert!(host.renew(0, SharedLease::Majority, at(80)), "it was over");
        assert!(!host.renew(0, SharedLease::Majority, at(81)), "it was not");
        assert!(host.answers(4 * SECOND - 1, 0));
        assert!(!host.answers(4 * SECOND, 0));
        assert!(!host.answers(SECOND, 1), "its lease is another");
        host.set_gate(0, Instant::ZERO, None);
        assert!(!host.answers(0, 0), "closed, whatever others share");
    }

    #[test]
    fn the_master_switch_silences_all_until_the_next_agent() {
        let mut host = host(Fence::Gate);
        host.add(0, LINK, 0, 2, Duration::ZERO);
        host.set_gate(0, at(78), None);
        host.close_gate();
        assert!(!host.answers(0, 0));
        host.load_gate();
        assert!(!host.answers(0, 0), "nothing of an earlier life is open");
        host.set_gate(0, at(78), None);
        assert!(host.answers(0, 0));
    }

    #[test]
    fn a_suspended_host_is_silent_and_its_leases_go_on_to_end() {
        let mut host = host(Fence::Gate);
        host.add(0, LINK, 0, 2, Duration::ZERO);
        host.set_gate(0, at(78), None);
        host.suspended = 1;
        assert!(!host.answers(0, 0));
        host.suspended = 0;
        assert!(host.answers(0, 0));
        assert!(!host.answers(3600 * SECOND, 0));
    }

    #[test]
    fn without_gate_the_kernel_is_late_to_take_an_address_off() {
        let mut host = host(Fence::Lifetime);
        let lag = Duration::from_millis(400);
        let end = host.add(0, LINK, 0, 1, lag);
        assert_eq!(end, SECOND + 400_000_000);
        assert!(host.answers(end - 1, 0));
        assert_eq!(host.expire(end - 1, 0), None);
        assert_eq!(host.expire(end, 0), Some(LINK));
        assert!(!host.answers(end, 0));
    }
}
