//! Applies what a node decided to this host, and tells the node's own changes from others'.
//!
//! The one place that matches on `Action` for the kernel. Every action may be applied twice. What
//! fails is a value and a counter; the next observation, not this one, decides what to do about it.

mod virtual_macs;

use crate::adopt::{self, Adopted};
use crate::clock;
use crate::gate::{Gate, GateError, Opening};
use crate::netlink::{AddressChange, AddressFacts, NetlinkError, News, Requests};
use crate::orders::{self, Orders, Outcome};
use crate::packet::{Announcer, PacketError};
use crate::virtual_mac::VirtualMacs;
use buoy_model::{
    Action, Cidr, Desired, Event, FrameKind, Instant, LinkId, Mac, Presence, SharedLease,
};
use std::fmt;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

/// Between two looks at whether orders are carried out.
const LOOK: Duration = Duration::from_millis(1);

/// What was tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// `Action::Fence`.
    Fence,
    /// `Action::AddAddress`.
    Add,
    /// `Action::RemoveAddress`.
    Remove,
    /// `Action::Announce`.
    Announce,
}

impl Effect {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 4] = [Self::Fence, Self::Add, Self::Remove, Self::Announce];

    /// For metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::Add => "add_address",
            Self::Remove => "remove_address",
            Self::Announce => "announce",
        }
    }
}

/// What could not be done.
#[derive(Debug)]
pub struct ApplyError {
    /// What was tried.
    pub effect: Effect,
    /// On which interface.
    pub link: LinkId,
    /// With which address.
    pub address: IpAddr,
    /// Why it failed.
    pub cause: Cause,
}

/// Why an effect failed.
#[derive(Debug)]
pub enum Cause {
    /// The gate did not take it.
    Gate(GateError),
    /// Netlink did not take it.
    Netlink(NetlinkError),
    /// The frame did not leave.
    Packet(PacketError),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gate(cause) => cause.fmt(f),
            Self::Netlink(cause) => cause.fmt(f),
            Self::Packet(cause) => cause.fmt(f),
        }
    }
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { effect, link, address, cause } = self;
        let effect = match effect {
            Effect::Fence => "fence",
            Effect::Add => "add",
            Effect::Remove => "remove",
            Effect::Announce => "announce",
        };
        write!(f, "cannot {effect} {address} on interface {}: {cause}", link.0)
    }
}

impl std::error::Error for ApplyError {}

/// How often each effect failed, by `Effect`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Failures([u64; Effect::ALL.len()]);

impl Failures {
    /// How often this one did.
    pub const fn of(&self, effect: Effect) -> u64 {
        self.0[effect as usize]
    }
}

/// This host's part of the kernel.
pub struct Apply {
    requests: Requests,
    announcer: Announcer,
    gate: Option<Gate>,
    /// Where addresses are changed beside the loop; only with a gate.
    orders: Option<Orders>,
    /// Sorted by interface and address.
    placed: Vec<Placed>,
    /// What this host speaks for without having it on an interface, sorted.
    spoken_for: Vec<(LinkId, IpAddr)>,
    /// Where VIPs are whose virtual router has a hardware address of its own.
    macs: VirtualMacs,
    /// The first failure of an order that was not told yet.
    late: Option<ApplyError>,
    failures: Failures,
}

/// A thread that changes addresses, with room for so many orders.
fn beside(room: usize) -> Option<Orders> {
    Requests::open().ok().and_then(|requests| Orders::start(requests, room).ok())
}

/// An address that this process has put on an interface, or taken off it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Placed {
    link: LinkId,
    cidr: Cidr,
    /// It should be there.
    on: bool,
    /// So many of its removals were ours and are not in the news yet.
    removals: u32,
}

impl Apply {
    /// With a gate, or with the kernel's address lifetimes only. With a gate a thread of its own
    /// changes the addresses (`orders`); it is started here, in this network namespace.
    pub fn new(requests: Requests, announcer: Announcer, gate: Option<Gate>) -> Self {
        // A host that cannot start a thread can still change addresses from the loop.
        let orders = gate.as_ref().and_then(|_| beside(orders::room_for(0)));
        let (placed, spoken_for, failures) = (Vec::new(), Vec::new(), Failures::default());
        let macs = VirtualMacs::default();
        Self { requests, announcer, gate, orders, placed, spoken_for, macs, late: None, failures }
    }

    /// Does what the action says, if it says something to the kernel. Heartbeats, answers,
    /// advertisements, records and the end are the loop's own. The error may be that of an earlier action: it says which.
    pub fn apply(&mut self, action: &Action) -> Result<(), ApplyError> {
        let result = match *action {
            Action::Fence { address, link, until, lease, guard } => {
                let opening = Opening { until, lease, guard };
                let home = self.macs.home(link, address);
                let fenced = self.fence(home, address, opening);
                if home == link {
                    fenced
                } else {
                    fenced.and(self.fence_router(home, address, opening))
                }
            }
            Action::Renew { lease, until } => {
                self.renew(lease, until);
                Ok(())
            }
            Action::AddAddress { link, cidr, valid_lifetime, presence } => match presence {
                Presence::Assigned => {
                    self.add(self.macs.home(link, cidr.address()), cidr, valid_lifetime)
                }
                Presence::Answered => self.speak_for(link, cidr.address()),
            },
            Action::RemoveAddress { link, cidr, presence } => match presence {
                Presence::Assigned => self.remove(self.lies(link, cidr), cidr),
                Presence::Answered => {
                    self.fall_silent(link, cidr.address());
                    Ok(())
                }
            },
            Action::Announce { link, address, kind } => {
                self.announce(self.macs.home(link, address), address, kind)
            }
            Action::Heartbeat { .. }
            | Action::Answer { .. }
            | Action::PrepareGoodbye { .. }
            | Action::Advertise { .. }
            | Action::Record(_)
            | Action::Stopped => Ok(()),
        };
        if let Err(error) = &result {
            self.failures.0[error.effect as usize] += 1;
        }
        self.look_back();
        result.and_then(|()| self.late.take().map_or(Ok(()), Err))
    }

    /// Makes room for the orders of so many addresses. May wait until those that were given are carried out.
    pub fn make_room(&mut self, addresses: usize) {
        let needed = orders::room_for(addresses);
        if self.orders.as_ref().is_none_or(|orders| orders.room() >= needed) {
            return;
        }
        let Some(larger) = beside(needed) else { return };
        while self.pending() > 0 {
            self.look_back();
            thread::sleep(LOOK);
        }
        self.look_back();
        if let Some(before) = self.orders.take() {
            larger.follow(&before);
            before.close();
        }
        self.orders = Some(larger);
    }

    /// Learns what became of the orders that were given.
    fn look_back(&mut self) {
        while let Some(outcome) = self.orders.as_ref().and_then(Orders::outcome) {
            match outcome {
                Outcome::NotThere { link, cidr } => {
                    if let Ok(index) = self.place(link, cidr) {
                        let removals = &mut self.placed[index].removals;
                        *removals = removals.saturating_sub(1);
                    }
                }
                Outcome::Failed { order, cause } => {
                    let error = failed(order, cause);
                    self.failures.0[error.effect as usize] += 1;
                    self.late.get_or_insert(error);
                }
            }
        }
    }

    /// How many changes of addresses are ordered and not carried out yet.
    pub fn pending(&self) -> usize {
        self.orders.as_ref().map_or(0, Orders::pending)
    }

    /// When the last change of an address that was ordered was carried out, if none is left. Without
    /// a gate each is carried out before `apply` returns, so that is now at the latest.
    pub fn carried_out_at(&self) -> Option<Instant> {
        self.orders.as_ref().map_or_else(|| Some(clock::now()), Orders::carried_out_at)
    }

    /// Takes over the addresses that an earlier run left on this host with our mark, or takes them
    /// away; to be called before the first event. What stays is silent until it is fenced anew.
    pub fn adopt(&mut self, desired: &Desired) -> Result<Adopted, NetlinkError> {
        let home = |link, address| self.macs.home(link, address);
        let left = self.requests.list_ours()?;
        let (kept, gone) = adopt::sort(left, desired, home, self.gate.is_some());
        let mut adopted = Adopted { kept, ..Adopted::default() };
        for address in &adopted.kept {
            if let Some(gate) = &mut self.gate
                && let Err(cause) = gate.shut(address.link, address.cidr.address())
            {
                adopted.problems.push(ungated(address.link, address.cidr.address(), cause));
            }
        }
        let remove = |a: &AddressFacts| AddressChange::Remove { link: a.link, cidr: a.cidr };
        let changes: Vec<_> = gone.iter().map(remove).collect();
        let mut refused = vec![false; changes.len()];
        self.requests.change_addresses(&changes, &mut |at, cause| {
            if !changes[at].is_done_already(cause.errno()) {
                refused[at] = true;
                adopted.problems.push(failed(changes[at], cause));
            }
        });
        for (address, refused) in gone.into_iter().zip(refused) {
            if refused {
                continue;
            }
            adopted.removed.push(address);
            // It is nobody's business here any more. What the gate does not forget grows stale.
            if let Some(gate) = &mut self.gate {
                let _ = gate.remove(address.link, address.cidr.address());
            }
        }
        Ok(adopted)
    }

    /// Turns the kernel's news into what a node must know: what we did ourselves is no news.
    pub fn observe(&mut self, news: News, tell: &mut dyn FnMut(Event<'static>)) {
        self.look_back();
        match news {
            News::Link { link, up, mac: _ } if self.macs.below(link) != link => {
                // That it has no carrier is said of the interface below.
                if !up {
                    self.mend(link, tell);
                }
            }
            News::Link { link, up, mac } => {
                if let Some(mac) = mac {
                    self.announcer.set_mac(link, mac);
                    self.answer_with(link, mac);
                }
                tell(Event::Link { link, up });
            }
            News::AddressGone { link, cidr } => self.gone(link, cidr, tell),
            News::Overrun => self.observe_all(tell),
        }
    }

    /// Looks at all interfaces and addresses, for what the news did not say.
    pub fn observe_all(&mut self, tell: &mut dyn FnMut(Event<'static>)) {
        for link in self.requests.links().unwrap_or_default() {
            tell(Event::Link { link: link.id, up: link.up });
        }
        let Ok(present) = self.requests.addresses() else { return };
        for at in 0..self.placed.len() {
            let Placed { link, cidr, on, .. } = self.placed[at];
            let is_there = present.iter().any(|a| a.link == link && a.cidr == cidr);
            self.placed[at].on = on && is_there;
            // The news that were lost may have been of our removals.
            self.placed[at].removals = 0;
            if !is_there {
                self.absent(link, cidr.address());
            }
            if on && !is_there {
                let link = self.macs.below(link);
                tell(Event::AddressLost { link, address: cidr.address() });
            }
        }
        self.placed.retain(|p| p.on);
    }

    /// The gate, where there is one.
    pub const fn gate(&mut self) -> Option<&mut Gate> {
        self.gate.as_mut()
    }

    /// What speaks on the segments.
    pub const fn announcer(&mut self) -> &mut Announcer {
        &mut self.announcer
    }

    /// How often effects failed.
    pub const fn failures(&self) -> Failures {
        self.failures
    }

    /// At a clean stop: waits for the last address to be gone, then takes the gate away.
    pub fn close(self) -> Result<(), GateError> {
        let Self { mut requests, gate, orders, macs, .. } = self;
        if let Some(orders) = orders {
            orders.close();
        }
        let closed = gate.map_or(Ok(()), Gate::close);
        macs.close(&mut requests);
        closed
    }

    fn fence(&mut self, link: LinkId, address: IpAddr, opening: Opening) -> Result<(), ApplyError> {
        let Some(gate) = &mut self.gate else { return Ok(()) };
        gate.set(link, address, opening).map_err(|cause| ungated(link, address, cause))
    }

    fn renew(&self, lease: SharedLease, until: Instant) {
        if let Some(gate) = &self.gate {
            gate.renew(lease, until);
        }
    }

    fn add(&mut self, link: LinkId, cidr: Cidr, valid_lifetime: u32) -> Result<(), ApplyError> {
        if let Some(gate) = &mut self.gate {
            let (address, lifetime) = (cidr.address(), Duration::from_secs(valid_lifetime.into()));
            gate.present(link, address, lifetime).map_err(|cause| ungated(link, address, cause))?;
        }
        match &self.orders {
            Some(orders) => orders.give(AddressChange::Add { link, cidr, valid_lifetime }),
            None => self.requests.add_address(link, cidr, valid_lifetime),
        }
        .map_err(|cause| failed(AddressChange::Add { link, cidr, valid_lifetime }, cause))?;
        self.placed(link, cidr).on = true;
        Ok(())
    }

    fn remove(&mut self, link: LinkId, cidr: Cidr) -> Result<(), ApplyError> {
        let will_be_news = match &self.orders {
            // If it turns out that it was not there, `look_back` takes this back.
            Some(orders) => orders.give(AddressChange::Remove { link, cidr }).map(|()| true),
            None => self.requests.remove_address(link, cidr),
        }
        .map_err(|cause| failed(AddressChange::Remove { link, cidr }, cause))?;
        let placed = self.placed(link, cidr);
        placed.on = false;
        placed.removals += u32::from(will_be_news);
        Ok(())
    }

    fn speak_for(&mut self, link: LinkId, address: IpAddr) -> Result<(), ApplyError> {
        let spoken = match &mut self.gate {
            Some(gate) => gate.speak_for(link, address),
            None => Err(GateError::Unanswered { link, address }),
        };
        let cause = |cause| ApplyError { effect: Effect::Add, link, address, cause };
        spoken.map_err(|error| cause(Cause::Gate(error)))?;
        if let Err(at) = self.spoken_for.binary_search(&(link, address)) {
            self.spoken_for.insert(at, (link, address));
        }
        Ok(())
    }

    fn fall_silent(&mut self, link: LinkId, address: IpAddr) {
        if let Ok(at) = self.spoken_for.binary_search(&(link, address)) {
            self.spoken_for.remove(at);
        }
        self.absent(link, address);
    }

    fn answer_with(&mut self, link: LinkId, mac: Mac) {
        let Some(gate) = &mut self.gate else { return };
        if let Err((address, cause)) = gate.set_mac(link, mac) {
            self.failures.0[Effect::Add as usize] += 1;
            let cause = Cause::Gate(cause);
            self.late.get_or_insert(ApplyError { effect: Effect::Add, link, address, cause });
        }
    }

    fn announce(&self, link: LinkId, address: IpAddr, kind: FrameKind) -> Result<(), ApplyError> {
        self.announcer.announce(link, address, kind).map_err(|cause| ApplyError {
            effect: Effect::Announce,
            link,
            address,
            cause: Cause::Packet(cause),
        })
    }

    /// Where it is in `placed`, which is sorted, or where it would be.
    fn place(&self, link: LinkId, cidr: Cidr) -> Result<usize, usize> {
        self.placed.binary_search_by_key(&(link, cidr), |p| (p.link, p.cidr))
    }

    fn placed(&mut self, link: LinkId, cidr: Cidr) -> &mut Placed {
        let index = self.place(link, cidr).unwrap_or_else(|index| {
            self.placed.insert(index, Placed { link, cidr, on: false, removals: 0 });
            index
        });
        &mut self.placed[index]
    }

    fn gone(&mut self, link: LinkId, cidr: Cidr, tell: &mut dyn FnMut(Event<'static>)) {
        let Ok(index) = self.place(link, cidr) else {
            // What was adopted and never served, at the end of its lifetime.
            return self.absent(link, cidr.address());
        };
        let placed = &mut self.placed[index];
        if placed.removals > 0 {
            placed.removals -= 1;
        } else if placed.on {
            placed.on = false;
            let link = self.macs.below(link);
            tell(Event::AddressLost { link, address: cidr.address() });
        }
        if self.placed[index].on {
            return; // it was put back after the removal that this is the news of
        }
        if self.placed[index].removals == 0 {
            self.placed.remove(index);
        }
        self.absent(link, cidr.address());
    }

    /// Tells the gate that nobody here has the address any more.
    fn absent(&self, link: LinkId, address: IpAddr) {
        let Some(gate) = &self.gate else { return };
        let placed = self.placed.iter().filter(|p| p.on).map(|p| (p.link, p.cidr.address()));
        let mut here = placed.chain(self.spoken_for.iter().copied());
        // The gate guards an IPv4 address on all interfaces at once.
        if !here.any(|(at, other)| other == address && (at == link || address.is_ipv4())) {
            gate.absent(link, address);
        }
    }
}

fn ungated(link: LinkId, address: IpAddr, cause: GateError) -> ApplyError {
    ApplyError { effect: Effect::Fence, link, address, cause: Cause::Gate(cause) }
}

fn failed(order: AddressChange, cause: NetlinkError) -> ApplyError {
    let (effect, link, cidr) = match order {
        AddressChange::Add { link, cidr, .. } => (Effect::Add, link, cidr),
        AddressChange::Remove { link, cidr } => (Effect::Remove, link, cidr),
    };
    ApplyError { effect, link, address: cidr.address(), cause: Cause::Netlink(cause) }
}
