//! What the kernel of one host does with our actions, with the agent dead or alive.
//!
//! A gated host answers for an address while the address is there and the gate's deadline has not
//! passed on its clock. A host without gate answers while the address is there, and the kernel
//! takes it off at some moment after its lifetime.

use crate::clock::Clock;
use buoy_core::Fence;
use buoy_model::limits::{KERNEL_FENCE_LAG, VALID_LIFETIME_UNGATED};
use buoy_model::{Cidr, Instant, LinkId};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How much later than its lifetime an address may still be there.
pub(crate) const LIFETIME_LAG: Duration =
    KERNEL_FENCE_LAG.saturating_sub(Duration::from_secs(VALID_LIFETIME_UNGATED as u64));

/// One host, without its agent.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Its clock.
    pub(crate) clock: Clock,
    /// What it has against a dead agent.
    pub(crate) fence: Fence,
    /// Whether its interface has a carrier. Without one it may still answer: the checker excuses nothing.
    pub(crate) carrier: bool,
    /// What is on the interface, and when the kernel takes it off.
    addresses: BTreeMap<IpAddr, Present>,
    gate: BTreeMap<IpAddr, Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Present {
    link: LinkId,
    until: Instant,
}

impl Host {
    /// A host that has just booted.
    pub(crate) const fn new(clock: Clock, fence: Fence) -> Self {
        Self { clock, fence, carrier: true, addresses: BTreeMap::new(), gate: BTreeMap::new() }
    }

    /// Puts an address on or renews it; the kernel is `lag` late to take it off. Answers when that will be.
    pub(crate) fn add(
        &mut self,
        now: u64,
        link: LinkId,
        cidr: Cidr,
        valid: u32,
        lag: Duration,
    ) -> u64 {
        let until = self.clock.local(now) + Duration::from_secs(valid.into()) + lag;
        self.addresses.insert(cidr.address(), Present { link, until });
        self.clock.when(until)
    }

    /// Takes an address off; true when it was there.
    pub(crate) fn remove(&mut self, address: IpAddr) -> bool {
        self.addresses.remove(&address).is_some()
    }

    /// Takes an address off when its time is up; answers from which interface.
    pub(crate) fn expire(&mut self, now: u64, address: IpAddr) -> Option<LinkId> {
        let present = self.addresses.get(&address)?;
        if self.clock.local(now) < present.until {
            return None;
        }
        self.addresses.remove(&address).map(|present| present.link)
    }

    /// When an address is due to be taken off, as far as the clock's rate stays what it is.
    pub(crate) fn expiry(&self, address: IpAddr) -> Option<u64> {
        self.addresses.get(&address).map(|present| self.clock.when(present.until))
    }

    /// Moves the gate's deadline for an address.
    pub(crate) fn set_gate(&mut self, address: IpAddr, until: Instant) {
        self.gate.insert(address, until);
    }

    /// Whether a neighbour that asks for the address now gets an answer.
    pub(crate) fn answers(&self, now: u64, address: IpAddr) -> bool {
        let Some(present) = self.addresses.get(&address) else { return false };
        let local = self.clock.local(now);
        match self.fence {
            Fence::Gate => self.gate.get(&address).is_some_and(|until| local < *until),
            Fence::Lifetime => local < present.until,
        }
    }

    /// Every address that is there.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const SECOND: u64 = 1_000_000_000;
    const LINK: LinkId = LinkId(1);

    fn cidr() -> Cidr {
        Cidr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 24).unwrap()
    }

    fn host(fence: Fence) -> Host {
        Host::new(Clock::new(0, 77 * SECOND, 0), fence)
    }

    #[test]
    fn a_gated_host_answers_until_the_deadline_and_not_a_nanosecond_longer() {
        let mut host = host(Fence::Gate);
        host.add(0, LINK, cidr(), 2, Duration::ZERO);
        assert!(!host.answers(0, cidr().address()), "the gate is closed until it is opened");
        host.set_gate(cidr().address(), Instant::from_nanos(78 * SECOND));
        assert!(host.answers(SECOND - 1, cidr().address()));
        assert!(!host.answers(SECOND, cidr().address()));
    }

    #[test]
    fn without_gate_the_kernel_is_late_to_take_an_address_off() {
        let mut host = host(Fence::Lifetime);
        let lag = Duration::from_millis(400);
        let end = host.add(0, LINK, cidr(), 1, lag);
        assert_eq!(end, SECOND + 400_000_000);
        assert!(host.answers(end - 1, cidr().address()));
        assert_eq!(host.expire(end - 1, cidr().address()), None);
        assert_eq!(host.expire(end, cidr().address()), Some(LINK));
        assert!(!host.answers(end, cidr().address()));
    }
}
