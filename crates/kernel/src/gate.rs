//! The gate: the kernel stops answering for an address when its lease ends, whatever becomes of us.
//!
//! Two small programs in clsact and their maps (`crates/xdp/bpf/gate.bpf.c`). The kernel keeps them
//! when this process dies, and nothing here takes them away but `close`. An address may be answered
//! for until its own deadline or the end of the lease that it shares with others, whichever is
//! later, and never once the master switch is thrown. A new run takes over what the one before
//! promised and then puts its programs in the same place, so there is no moment without a gate;
//! its own master switch is open only when that is done.
//!
//! An address that is on no interface has the same entries: a third program, which the fast path goes on
//! to, answers for it as long as they say so.
//!
//! What it cannot do: see a frame that another BPF program on the interface has already taken (XDP,
//! or TCX, which both come before clsact), or guard an interface that it is not attached to: Linux
//! answers ARP for every IPv4 address of the host on every interface (unless `arp_ignore` says
//! otherwise), so where two interfaces share a segment, both need the gate.

mod answers;
mod earlier;
mod entries;
mod error;
mod lease;

pub use answers::{Answered, Answerer};
pub use error::GateError;
pub(crate) use error::errno as errno_of;
pub use lease::MasterSwitch;

use crate::clock;
use crate::netlink::{Direction, Filter, Hook, LinkFacts, NetlinkError, Requests};
use answers::Answers;
use aya::maps::{Map, MapData, PerCpuArray};
use aya::programs::{ProgramFd, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use buoy_model::{Guard, Instant, LinkId, Mac, SharedLease};
use buoy_xdp::{GATE_ANSWER, GateCounter, GateKey};
use entries::Entries;
use error::refused;
use lease::Leases;
use std::ffi::CStr;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// How long after its deadline an entry that nobody renews still silences its address. The kernel's
/// own lifetime has removed the address long before, so whoever answers then was put there by hand.
pub const GATE_STALE: Duration = Duration::from_secs(43);

const NAME: &CStr = c"buoy_gate";

const _: () = assert!(
    buoy_model::limits::VALID_LIFETIME_MAX as u64 * 2 < GATE_STALE.as_secs(),
    "a stale entry must not outlive the address that it fences"
);

/// Until when an address may be answered for, and what stops then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Opening {
    /// Its own deadline; a moment that is over closes, unless the shared lease lasts.
    pub until: Instant,
    /// Open as long as this one lasts too, whichever ends later.
    pub lease: Option<SharedLease>,
    /// What stops past the end.
    pub guard: Guard,
}

/// What the gate has done since it was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GateCounters {
    /// Questions dropped on their way in.
    pub ingress: u64,
    /// Claims dropped on their way out.
    pub egress: u64,
    /// Frames let through because the entry was stale.
    pub stale: u64,
    /// Packets for an address, dropped on their way in.
    pub traffic_in: u64,
    /// Packets from an address, dropped on their way out.
    pub traffic_out: u64,
    /// Questions answered for addresses that are on no interface.
    pub answered: u64,
    /// Questions about such addresses left unanswered, for their leases were over.
    pub silent: u64,
}

/// The loaded gate. Dropping it leaves it standing in the kernel: that is what it is for.
pub struct Gate {
    requests: Requests,
    programs: Ebpf,
    entries: Entries,
    answers: Answers,
    leases: Leases,
    counters: PerCpuArray<MapData, u64>,
    places: Vec<Place>,
}

/// An interface with the gate on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    link: LinkId,
    /// clsact was not there before, so it goes with us.
    clsact_is_ours: bool,
}

impl Gate {
    /// Loads the gate and attaches it to these interfaces, in place of an earlier run's.
    pub fn open(links: &[LinkId]) -> Result<Self, GateError> {
        let mut programs = EbpfLoader::new().load(buoy_xdp::GATE).map_err(|e| refused(&e))?;
        for direction in Direction::ALL {
            classifier(&mut programs, direction)?.load().map_err(|e| refused(&e))?;
        }
        let slots = typed(&mut programs, buoy_xdp::GATE_SLOTS)?;
        let mut gate = Self {
            requests: Requests::open()
                .map_err(|cause| GateError::Load { reason: cause.to_string() })?,
            entries: Entries::new(slots, array(&mut programs, buoy_xdp::GATE_ENTRIES)?)?,
            answers: Answers::new(&mut programs)?,
            leases: Leases::new(array(&mut programs, buoy_xdp::GATE_LEASES)?)?,
            counters: typed(&mut programs, buoy_xdp::GATE_COUNTERS)?,
            programs,
            places: Vec::with_capacity(links.len()),
        };
        gate.leases.set_master(true);
        if let Err(error) = gate.take_over(links) {
            // Half a gate would be taken for a whole one.
            let _ = gate.detach_all();
            return Err(error);
        }
        gate.leases.set_master(false);
        Ok(gate)
    }

    /// Attaches the gate to one more interface; twice is once.
    pub fn attach(&mut self, link: LinkId) -> Result<(), GateError> {
        self.adopt(link)?;
        self.put(link)
    }

    /// Takes the gate off one interface.
    pub fn detach(&mut self, link: LinkId) -> Result<(), GateError> {
        let Some(index) = self.places.iter().position(|p| p.link == link) else { return Ok(()) };
        let place = self.places.swap_remove(index);
        self.clear(place).map_err(|cause| GateError::Attach { link, cause })
    }

    /// Lets the kernel answer for the address so long, and not a moment longer. No system call and
    /// no allocation, but for an address that is not known yet.
    pub fn set(
        &mut self,
        link: LinkId,
        address: IpAddr,
        opening: Opening,
    ) -> Result<(), GateError> {
        let entry = self.entries.find_or_add(key(link, address), address)?;
        entry.set(opening, &self.leases);
        Ok(())
    }

    /// Lets frames to and from the hardware address of a virtual router pass on its own interface so long. Later nothing for it
    /// comes in, and nothing from it leaves but advertisements.
    pub fn set_router(&mut self, link: LinkId, opening: Opening) -> Result<(), GateError> {
        self.set(link, Ipv6Addr::UNSPECIFIED.into(), opening)
    }

    /// The address is about to be on an interface for so long: as long as it is there, what was set
    /// for it last goes, and if nothing was, it is closed.
    pub fn present(
        &mut self,
        link: LinkId,
        address: IpAddr,
        lifetime: Duration,
    ) -> Result<(), GateError> {
        self.entries.find_or_add(key(link, address), address)?.present(lifetime);
        Ok(())
    }

    /// The address is not on the interface any more: its packets, if they come by here, are on their
    /// way to another host and are let through. Nothing answers for it all the same.
    pub fn absent(&self, link: LinkId, address: IpAddr) {
        if let Some(entry) = self.entries.find(&key(link, address)) {
            entry.absent();
        }
    }

    /// Closes the address, whatever it was told before; what stops then stays as it was.
    pub fn shut(&mut self, link: LinkId, address: IpAddr) -> Result<(), GateError> {
        self.entries.find_or_add(key(link, address), address)?.shut();
        Ok(())
    }

    /// The program that answers for what is on no interface.
    pub fn answerer(&mut self) -> Result<Answerer, GateError> {
        let missing = || GateError::Load { reason: format!("there is no `{GATE_ANSWER}` in it") };
        let program = self.programs.program_mut(GATE_ANSWER).ok_or_else(missing)?;
        let program: &mut Xdp = program.try_into().map_err(|_| missing())?;
        if program.fd().is_err() {
            program.load().map_err(|e| refused(&e))?;
        }
        let fd = program.fd().and_then(|fd| Ok(fd.try_clone()?));
        fd.map(Answerer).map_err(|e| refused(&e))
    }

    /// These addresses, and no others, can be answered for without being on an interface.
    pub fn answer_for(&mut self, wanted: &[Answered]) -> Result<(), GateError> {
        let links: Vec<LinkId> = wanted.iter().map(|answered| answered.link).collect();
        if self.requests.is_one_a_veth(&links).unwrap_or(false) {
            self.answers.send_back_by_redirect()?;
        }
        self.answers.set(wanted)
    }

    /// The interface has another Ethernet address now.
    /// Which address could not be told so, and why.
    pub fn set_mac(&mut self, link: LinkId, mac: Mac) -> Result<(), (IpAddr, GateError)> {
        self.answers.set_mac(link, mac)
    }

    /// This host speaks for the address as long as its lease lasts, and does not have it on an interface.
    /// `absent` is the end of that.
    pub fn speak_for(&mut self, link: LinkId, address: IpAddr) -> Result<(), GateError> {
        if !self.answers.has(link, address) {
            return Err(GateError::Unanswered { link, address });
        }
        self.present(link, address, Duration::ZERO)
    }

    /// All that shares this lease is open until then: two stores into memory.
    pub fn renew(&self, lease: SharedLease, until: Instant) {
        self.leases.renew(lease, until);
    }

    /// When the first IP packet for the address came in since the gate was opened for it.
    pub fn first_packet(&self, link: LinkId, address: IpAddr) -> Option<Instant> {
        self.entries.find(&key(link, address))?.first_packet()
    }

    /// For a `MasterSwitch` in another process, which inherits the descriptor.
    pub fn leases_fd(&self) -> BorrowedFd<'_> {
        self.leases.fd()
    }

    /// Forgets the address: the gate does not concern it any more. Not there is fine.
    pub fn remove(&mut self, link: LinkId, address: IpAddr) -> Result<(), GateError> {
        let removed = self.entries.remove(&key(link, address));
        removed.map_err(|errno| GateError::Write { address, errno })
    }

    /// What the gate has dropped.
    pub fn counters(&self) -> GateCounters {
        let sum = |counter: GateCounter| {
            let values = self.counters.get(&(counter as u32), 0);
            values.map_or(0, |values| values.iter().sum())
        };
        GateCounters {
            ingress: sum(GateCounter::Ingress),
            egress: sum(GateCounter::Egress),
            stale: sum(GateCounter::Stale),
            traffic_in: sum(GateCounter::TrafficIn),
            traffic_out: sum(GateCounter::TrafficOut),
            answered: sum(GateCounter::Answered),
            silent: sum(GateCounter::Silent),
        }
    }

    /// Takes the gate away, at a clean stop, when no address is left to guard. A clsact that was
    /// there before stays; so does one that others use by now.
    pub fn close(mut self) -> Result<(), GateError> {
        self.detach_all()
    }

    fn detach_all(&mut self) -> Result<(), GateError> {
        let mut result = Ok(());
        for place in std::mem::take(&mut self.places) {
            let cleared = self.clear(place);
            result =
                result.and(cleared.map_err(|cause| GateError::Attach { link: place.link, cause }));
        }
        result
    }

    fn clear(&mut self, place: Place) -> Result<(), NetlinkError> {
        let (_, others) = take_off(&mut self.requests, place.link)?;
        if place.clsact_is_ours && others == 0 {
            self.requests.remove_clsact(place.link)?;
        }
        Ok(())
    }

    /// Takes away what an agent that died has left, with a clsact that nobody uses then: on which interfaces.
    pub(crate) fn remove_left(requests: &mut Requests) -> Result<Vec<String>, NetlinkError> {
        let mut left = Vec::new();
        for LinkFacts { id: link, name, .. } in requests.links()? {
            let (was_there, others) = take_off(requests, link)?;
            if was_there && others == 0 {
                requests.remove_clsact(link)?;
            }
            left.extend(was_there.then_some(name));
        }
        Ok(left)
    }

    /// Puts this gate in the place of an earlier run's, on all these interfaces.
    fn take_over(&mut self, links: &[LinkId]) -> Result<(), GateError> {
        links.iter().try_for_each(|&link| self.adopt(link))?;
        // What an earlier run left where nothing could be read of what it promised.
        let left = self.requests.list_ours();
        let left = left.map_err(|cause| GateError::Load { reason: cause.to_string() })?;
        for address in left {
            let (link, address) = (address.link, address.cidr.address());
            self.present(link, address, Duration::ZERO)?;
        }
        links.iter().try_for_each(|&link| self.put(link))
    }

    /// Takes over what an earlier run's gate on this interface promised, if one stands there: the
    /// process that did is gone, and nobody renews it any more.
    fn adopt(&mut self, link: LinkId) -> Result<(), GateError> {
        let now = clock::monotonic();
        for direction in Direction::ALL {
            let Some(program) = self.predecessor(Hook { link, direction })? else { continue };
            for (key, entry) in earlier::entries(program).unwrap_or_default() {
                // Not what means nothing any more, and not over an entry of our own.
                if now < entry.until && !self.entries.contains(&key) {
                    let address = GateKey::from_bytes(key).address();
                    self.entries.find_or_add(key, address)?.write(entry);
                }
            }
        }
        Ok(())
    }

    /// The program in our place, if it is an earlier run's.
    fn predecessor(&mut self, hook: Hook) -> Result<Option<u32>, GateError> {
        let link = hook.link;
        let filters = self.requests.filters(hook);
        let filters = filters.map_err(|cause| GateError::Attach { link, cause })?;
        let Some(filter) = filters.into_iter().find(|f| f.is_in_our_place()) else {
            return Ok(None);
        };
        if filter.name.as_bytes() != NAME.to_bytes() {
            return Err(GateError::Occupied { link, name: filter.name });
        }
        let own = classifier(&mut self.programs, hook.direction)?.info().map(|own| own.id());
        Ok(filter.program.filter(|&program| own.ok() != Some(program)))
    }

    fn put(&mut self, link: LinkId) -> Result<(), GateError> {
        let attach = |cause| GateError::Attach { link, cause };
        let clsact_is_ours = self.requests.add_clsact(link).map_err(attach)?;
        if self.places.iter().all(|p| p.link != link) {
            self.places.push(Place { link, clsact_is_ours });
        }
        for direction in Direction::ALL {
            let program = fd(&mut self.programs, direction)?;
            let hook = Hook { link, direction };
            self.requests.set_filter(hook, program.as_fd(), NAME).map_err(attach)?;
        }
        Ok(())
    }
}

/// Takes the filters of a gate off an interface: whether there were any, and how many are left of others.
fn take_off(requests: &mut Requests, link: LinkId) -> Result<(bool, usize), NetlinkError> {
    let is_ours = |f: &Filter| f.is_in_our_place() && f.name.as_bytes() == NAME.to_bytes();
    let (mut were_there, mut others) = (false, 0);
    for direction in Direction::ALL {
        let hook = Hook { link, direction };
        if requests.filters(hook)?.iter().any(is_ours) {
            requests.remove_filter(hook)?;
            were_there = true;
        }
        others += requests.filters(hook)?.len();
    }
    Ok((were_there, others))
}

fn key(link: LinkId, address: IpAddr) -> entries::Key {
    GateKey::new(address, link.0).to_bytes()
}

fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => buoy_xdp::GATE_INGRESS,
        Direction::Egress => buoy_xdp::GATE_EGRESS,
    }
}

fn classifier(
    programs: &mut Ebpf,
    direction: Direction,
) -> Result<&mut SchedClassifier, GateError> {
    let name = name(direction);
    let missing = || GateError::Load { reason: format!("there is no classifier `{name}` in it") };
    programs.program_mut(name).and_then(|p| p.try_into().ok()).ok_or_else(missing)
}

fn fd(programs: &mut Ebpf, direction: Direction) -> Result<&ProgramFd, GateError> {
    classifier(programs, direction)?.fd().map_err(|e| refused(&e))
}

fn take(programs: &mut Ebpf, name: &str) -> Result<Map, GateError> {
    let missing = || GateError::Load { reason: format!("there is no map `{name}` in it") };
    programs.take_map(name).ok_or_else(missing)
}

fn typed<T: TryFrom<Map>>(programs: &mut Ebpf, name: &str) -> Result<T, GateError> {
    let wrong = |_| GateError::Load { reason: format!("its map `{name}` is of another type") };
    take(programs, name)?.try_into().map_err(wrong)
}

fn array(programs: &mut Ebpf, name: &str) -> Result<MapData, GateError> {
    let Map::Array(map) = take(programs, name)? else {
        return Err(GateError::Load { reason: format!("its map `{name}` is not an array") });
    };
    Ok(map)
}

#[cfg(test)]
mod tests;
