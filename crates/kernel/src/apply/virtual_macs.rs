//! Keeps the interfaces of virtual routers beside everything else of `Apply`: gate and announcements go where the
//! addresses are, and news from there are news of the interface below.

use super::{Apply, ApplyError, Cause, Effect};
use crate::gate::{GateError, Opening};
use crate::sysctl;
use crate::virtual_mac::{Unmade, VirtualMacs};
use buoy_model::{Cidr, Desired, Event, Guard, Instant, LinkId, VirtualRouter};
use std::net::{IpAddr, Ipv6Addr};

impl Apply {
    /// Puts VIPs where these say that they belong, from now on.
    #[must_use]
    pub fn with(mut self, macs: VirtualMacs) -> Self {
        self.macs = macs;
        self.settle();
        self
    }

    /// Makes what a new configuration asks for, and fences it. What it does not ask for any more stays until
    /// `forget_virtual_macs`: what was served there must be given up first.
    pub fn make_virtual_macs(&mut self, desired: &Desired) -> Vec<Unmade> {
        let before: Vec<_> = self.macs.homes().to_vec();
        let mut unmade = self.macs.make(&mut self.requests, desired);
        for (link, address, home) in before {
            // Whoever was to answer there has no lease for it there any more.
            if self.macs.home(link, address) != home
                && let Some(gate) = &mut self.gate
            {
                let _ = gate.shut(home, address);
            }
        }
        if let Some(gate) = &mut self.gate {
            for (link, router) in self.macs.all() {
                if let Err(error) = gate.attach(link) {
                    unmade.push(Unmade { router: router.clone(), why: error.to_string() });
                }
            }
        }
        self.settle();
        unmade
    }

    /// Removes the interfaces that the configuration does not ask for any more; what could not be done, as sentences.
    pub fn forget_virtual_macs(&mut self) -> Vec<String> {
        let before: Vec<LinkId> = self.macs.all().map(|(link, _)| link).collect();
        let problems = self.macs.forget(&mut self.requests);
        let is_there = |link| self.macs.all().any(|(made, _)| made == link);
        for link in before.into_iter().filter(|link| !is_there(*link)) {
            if let Some(gate) = &mut self.gate {
                let _ = gate.remove(link, Ipv6Addr::UNSPECIFIED.into());
            }
        }
        problems
    }

    /// What the advertisements of a virtual router leave from.
    pub fn speaks_from(&self, router: &VirtualRouter) -> Option<LinkId> {
        self.macs.speaks_from(router)
    }

    /// When the first IP packet for the address came in since the gate was opened for it.
    pub fn first_packet(&self, link: LinkId, address: IpAddr) -> Option<Instant> {
        self.gate.as_ref()?.first_packet(self.macs.home(link, address), address)
    }

    /// Takes the address out of the gate: it is nobody's business here any more.
    pub fn forget(&mut self, link: LinkId, address: IpAddr) -> Result<(), GateError> {
        let home = self.macs.home(link, address);
        let Some(gate) = &mut self.gate else { return Ok(()) };
        gate.remove(link, address)?;
        gate.remove(home, address)
    }

    /// Where the address lies now: where it was put, even if it would be put elsewhere today.
    pub(super) fn lies(&self, link: LinkId, cidr: Cidr) -> LinkId {
        let is_on = |place: LinkId| self.place(place, cidr).is_ok_and(|at| self.placed[at].on);
        let places =
            self.macs.all().map(|(made, _)| made).filter(|made| self.macs.below(*made) == link);
        let mut places = places.chain([link]);
        places.find(|place| is_on(*place)).unwrap_or_else(|| self.macs.home(link, cidr.address()))
    }

    /// Somebody has taken such an interface down, or away: it comes back, and what was on it is put there again.
    pub(super) fn mend(&mut self, link: LinkId, tell: &mut dyn FnMut(Event<'static>)) {
        let below = self.macs.below(link);
        if !self.macs.mend(&mut self.requests, link) {
            return;
        }
        self.settle();
        let lost: Vec<Cidr> =
            self.placed.iter().filter(|p| p.link == link).map(|p| p.cidr).collect();
        self.placed.retain(|placed| placed.link != link);
        for cidr in lost {
            let address = cidr.address();
            let home = self.macs.home(below, address);
            if home != link
                && let Some(gate) = &mut self.gate
                && let Err(cause) = gate.attach(home)
            {
                let (effect, cause) = (Effect::Fence, Cause::Gate(cause));
                self.late.get_or_insert(ApplyError { effect, link: home, address, cause });
            }
            tell(Event::AddressLost { link: below, address });
        }
    }

    /// The hardware address is this host's as long as one of the addresses there is.
    pub(super) fn fence_router(
        &mut self,
        home: LinkId,
        address: IpAddr,
        opening: Opening,
    ) -> Result<(), ApplyError> {
        let opens = Instant::ZERO < opening.until || opening.lease.is_some();
        let last = self.macs.note(home, address, opens);
        let Some(gate) = &mut self.gate else { return Ok(()) };
        if !opens && !last {
            return Ok(());
        }
        gate.set_router(home, opening).map_err(|cause| super::ungated(home, address, cause))
    }

    /// What is new there is closed, and known to what speaks.
    fn settle(&mut self) {
        let closed = Opening { until: Instant::ZERO, lease: None, guard: Guard::Neighbours };
        for (link, _) in self.macs.all().filter(|(link, _)| !self.macs.is_open(*link)) {
            if let Some(gate) = &mut self.gate
                && let Err(cause) = gate.set_router(link, closed)
            {
                let (effect, cause) = (Effect::Fence, Cause::Gate(cause));
                let address = IpAddr::from(Ipv6Addr::UNSPECIFIED);
                self.late.get_or_insert(ApplyError { effect, link, address, cause });
            }
        }
        for (link, name, router) in self.macs.named() {
            let setting = format!("net/ipv6/conf/{name}/forwarding");
            let routes = router.v6 && sysctl::read(&setting).is_ok_and(|value| value != "0");
            self.announcer.set_link(link, router.mac(), routes);
        }
    }
}
