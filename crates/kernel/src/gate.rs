//! The gate: the kernel stops answering for an address when its lease ends, whatever becomes of us.
//!
//! Two small programs in clsact, one map `address -> deadline` (`crates/xdp/bpf/gate.bpf.c`). The
//! kernel keeps them when this process dies, and nothing here takes them away but `close`. A new
//! run copies the deadlines of the one before and then puts its programs in the same place, so
//! there is no moment without a gate.
//!
//! What it cannot do: see a frame that another BPF program on the interface has already taken (XDP,
//! or TCX, which both come before clsact), or guard an interface that it is not attached to: Linux
//! answers ARP for every IPv4 address of the host on every interface (unless `arp_ignore` says
//! otherwise), so where two interfaces share a segment, both need the gate.

use crate::clock;
use crate::netlink::{Direction, Hook, NetlinkError, Requests};
use aya::maps::{HashMap, Map, MapData, MapInfo, PerCpuArray};
use aya::programs::{ProgramError, ProgramFd, SchedClassifier, loaded_programs};
use aya::{Ebpf, EbpfLoader};
use buoy_model::{Instant, LinkId};
use buoy_xdp::{GateCounter, GateEntry, GateKey};
use nix::errno::Errno;
use std::ffi::CStr;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long after its deadline an entry that nobody renews still silences its address. The kernel's
/// own lifetime has removed the address long before, so whoever answers then was put there by hand.
pub const GATE_STALE: Duration = Duration::from_secs(15);

const NAME: &CStr = c"buoy_gate";

const _: () = assert!(
    buoy_model::limits::VALID_LIFETIME_GATED as u64 * 2 < GATE_STALE.as_secs(),
    "a stale entry must not outlive the address that it fences"
);

type Deadlines = HashMap<MapData, [u8; size_of::<GateKey>()], [u64; 2]>;

/// Why there is no gate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GateError {
    /// This process may not load BPF programs.
    Permission,
    /// The kernel looked at the programs and refused them.
    Verifier {
        /// Its log.
        log: String,
    },
    /// The kernel could not load programs or maps for another reason.
    Load {
        /// In the words of the loader.
        reason: String,
    },
    /// The programs could not be attached to an interface.
    Attach {
        /// Which.
        link: LinkId,
        /// Why.
        cause: NetlinkError,
    },
    /// Somebody else's filter is where ours goes.
    Occupied {
        /// On which interface.
        link: LinkId,
        /// Its name.
        name: String,
    },
    /// A deadline could not be written: this address is fenced by its kernel lifetime only.
    Write {
        /// Which address.
        address: IpAddr,
        /// The kernel's reason.
        errno: Errno,
    },
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission => f.write_str(
                "this process may not load BPF programs: run it as root of the host, or give it \
                 CAP_BPF and CAP_NET_ADMIN",
            ),
            Self::Verifier { log } => {
                write!(f, "this kernel refuses the gate's program (5.8 or newer is needed): {log}")
            }
            Self::Load { reason } => write!(f, "the gate's program cannot be loaded: {reason}"),
            Self::Attach { link, cause } => write!(
                f,
                "the gate cannot be attached to interface {}: {cause}; the kernel needs \
                 NET_SCH_INGRESS and NET_CLS_BPF, and no old `ingress` qdisc may be there \
                 (`tc qdisc show`)",
                link.0
            ),
            Self::Occupied { link, name } => write!(
                f,
                "interface {} has the filter `{name}` at priority 1, handle 0xb0, where the gate \
                 goes: remove it (`tc filter show dev ... ingress`)",
                link.0
            ),
            Self::Write { address, errno } => {
                write!(f, "the gate cannot take a deadline for {address}: {}", errno.desc())
            }
        }
    }
}

impl std::error::Error for GateError {}

/// What the gate has done since it was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GateCounters {
    /// Questions dropped on their way in.
    pub ingress: u64,
    /// Claims dropped on their way out.
    pub egress: u64,
    /// Frames let through because the entry was stale.
    pub stale: u64,
}

/// The loaded gate. Dropping it leaves it standing in the kernel: that is what it is for.
pub struct Gate {
    requests: Requests,
    programs: Ebpf,
    deadlines: Deadlines,
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
        let mut gate = Self {
            requests: Requests::open()
                .map_err(|cause| GateError::Load { reason: cause.to_string() })?,
            deadlines: map(&mut programs, buoy_xdp::GATE_DEADLINES)?,
            counters: map(&mut programs, buoy_xdp::GATE_COUNTERS)?,
            programs,
            places: Vec::with_capacity(links.len()),
        };
        for &link in links {
            if let Err(error) = gate.attach(link) {
                // Half a gate would be taken for a whole one.
                let _ = gate.detach_all();
                return Err(error);
            }
        }
        Ok(gate)
    }

    /// Attaches the gate to one more interface; twice is once.
    pub fn attach(&mut self, link: LinkId) -> Result<(), GateError> {
        let attach = |cause| GateError::Attach { link, cause };
        let clsact_is_ours = self.requests.add_clsact(link).map_err(attach)?;
        if self.places.iter().all(|p| p.link != link) {
            self.places.push(Place { link, clsact_is_ours });
        }
        for direction in Direction::ALL {
            let hook = Hook { link, direction };
            self.adopt(hook)?;
            let program = fd(&mut self.programs, direction)?;
            self.requests.set_filter(hook, program.as_fd(), NAME).map_err(attach)?;
        }
        Ok(())
    }

    /// Takes the gate off one interface.
    pub fn detach(&mut self, link: LinkId) -> Result<(), GateError> {
        let Some(index) = self.places.iter().position(|p| p.link == link) else { return Ok(()) };
        let place = self.places.swap_remove(index);
        self.clear(place).map_err(|cause| GateError::Attach { link, cause })
    }

    /// Lets the kernel answer for the address until then, and not a moment longer; a moment that is
    /// over closes at once. One map update, no allocation.
    pub fn set(&mut self, link: LinkId, address: IpAddr, until: Instant) -> Result<(), GateError> {
        let remaining = until.since(clock::now());
        let kept = u64::try_from((remaining + GATE_STALE).as_nanos()).unwrap_or(u64::MAX);
        let entry = GateEntry {
            deadline: until.as_nanos(),
            until: clock::monotonic().saturating_add(kept),
        };
        let key = GateKey::new(address, link.0).to_bytes();
        self.deadlines
            .insert(key, entry.to_words(), 0)
            .map_err(|e| GateError::Write { address, errno: errno(&e).unwrap_or(Errno::EIO) })
    }

    /// Forgets the address: the gate does not concern it any more. Not there is fine.
    pub fn remove(&mut self, link: LinkId, address: IpAddr) -> Result<(), GateError> {
        let removed = self.deadlines.remove(&GateKey::new(address, link.0).to_bytes());
        match removed {
            Ok(()) => Ok(()),
            Err(error) => match errno(&error) {
                Some(Errno::ENOENT) | None => Ok(()),
                Some(errno) => Err(GateError::Write { address, errno }),
            },
        }
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
        let mut others = 0;
        for direction in Direction::ALL {
            let hook = Hook { link: place.link, direction };
            self.requests.remove_filter(hook)?;
            others += self.requests.filters(hook)?.len();
        }
        if place.clsact_is_ours && others == 0 {
            self.requests.remove_clsact(place.link)?;
        }
        Ok(())
    }

    /// Copies the deadlines of an earlier run's gate, if one stands there. They are the promises of
    /// a process that is gone: nobody writes them any more.
    fn adopt(&mut self, hook: Hook) -> Result<(), GateError> {
        let link = hook.link;
        let filters =
            self.requests.filters(hook).map_err(|cause| GateError::Attach { link, cause })?;
        let Some(filter) = filters.into_iter().find(|f| f.is_in_our_place()) else { return Ok(()) };
        if filter.name.as_bytes() != NAME.to_bytes() {
            return Err(GateError::Occupied { link, name: filter.name });
        }
        let own = classifier(&mut self.programs, hook.direction)?.info();
        if own.is_ok_and(|own| filter.program == Some(own.id())) {
            return Ok(());
        }
        let Some(predecessor) = filter.program.and_then(predecessor) else { return Ok(()) };
        let now = clock::monotonic();
        for (key, entry) in predecessor.iter().flatten() {
            let [_, until] = entry;
            // Not what means nothing any more, and not over an entry of our own, which is newer.
            if now < until && self.deadlines.get(&key, 0).is_err() {
                let written = self.deadlines.insert(key, entry, 0);
                written.map_err(|e| GateError::Load { reason: e.to_string() })?;
            }
        }
        Ok(())
    }
}

/// The deadlines of a program that is attached already.
fn predecessor(program: u32) -> Option<Deadlines> {
    let info = loaded_programs().flatten().find(|info| info.id() == program)?;
    let maps = info.map_ids().ok()??;
    let named = |id: &u32| {
        MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str() == Some(buoy_xdp::GATE_DEADLINES))
    };
    let data = MapData::from_id(maps.into_iter().find(named)?).ok()?;
    // Another version may have another layout; then its addresses have their lifetimes only.
    HashMap::try_from(Map::HashMap(data)).ok()
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

fn map<T: TryFrom<Map>>(programs: &mut Ebpf, name: &str) -> Result<T, GateError> {
    let missing = || GateError::Load { reason: format!("there is no map `{name}` in it") };
    programs.take_map(name).and_then(|map| map.try_into().ok()).ok_or_else(missing)
}

/// Why the kernel refused to load something.
fn refused(error: &(dyn std::error::Error + 'static)) -> GateError {
    if let Some(ProgramError::LoadError { verifier_log, .. }) = error.downcast_ref()
        && errno(error) != Some(Errno::EPERM)
    {
        return GateError::Verifier { log: verifier_log.to_string() };
    }
    match errno(error) {
        Some(Errno::EPERM | Errno::EACCES) => GateError::Permission,
        Some(errno) => GateError::Load { reason: format!("{error}: {}", errno.desc()) },
        None => GateError::Load { reason: error.to_string() },
    }
}

/// The error number at the bottom of an error.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<std::io::Error>();
        if let Some(code) = io.and_then(std::io::Error::raw_os_error) {
            return Some(Errno::from_raw(code));
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::programs::{TestRun, TestRunOptions};
    use buoy_model::Mac;
    use buoy_wire::arp::{ArpPacket, Operation};
    use buoy_wire::{arp, ndp};
    use std::net::{Ipv4Addr, Ipv6Addr};

    const LOOPBACK: LinkId = LinkId(1); // where the kernel's own test says that a frame is
    const PASS: u32 = u32::MAX; // TC_ACT_UNSPEC
    const DROP: u32 = 2; // TC_ACT_SHOT
    const THEIR_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);
    const OTHER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);

    /// A gate that is attached nowhere.
    fn gate(test: &str) -> Option<Gate> {
        match Gate::open(&[]) {
            Ok(gate) => Some(gate),
            Err(GateError::Permission) => {
                eprintln!("SKIPPED: {test}: BPF programs are not permitted here");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn verdict(gate: &mut Gate, direction: Direction, frame: &[u8]) -> u32 {
        let program = classifier(&mut gate.programs, direction).unwrap();
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
        program.test_run(options).unwrap().return_value
    }

    fn reply(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        let packet = ArpPacket {
            operation: Operation::Reply,
            sender_mac: OUR_MAC,
            sender,
            target_mac: THEIR_MAC,
            target,
        };
        packet.emit(THEIR_MAC).to_vec()
    }

    /// Name, direction, frame, and what becomes of it when the gate is closed.
    fn frames() -> Vec<(&'static str, Direction, Vec<u8>, u32)> {
        use Direction::{Egress, Ingress};
        let ask = |from, target| arp::emit_request(THEIR_MAC, from, target).to_vec();
        let solicit = |from, target| ndp::emit_solicitation(THEIR_MAC, from, target).to_vec();
        let tagged = |mut frame: Vec<u8>| {
            frame.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
            frame
        };
        let cut = |mut frame: Vec<u8>, length| {
            frame.truncate(length);
            frame
        };
        let mut probe = solicit(OTHER6, VIP6);
        probe[14 + 8..14 + 24].fill(0);
        let mut data6 = solicit(OTHER6, VIP6);
        data6[14 + 6] = 6; // TCP
        let mut echo = solicit(OTHER6, VIP6);
        echo[14 + 40] = 128;
        vec![
            ("who has the VIP?", Ingress, ask(OTHER, VIP), DROP),
            ("a probe for the VIP", Ingress, ask(Ipv4Addr::UNSPECIFIED, VIP), DROP),
            ("who has another?", Ingress, ask(OTHER, OTHER), PASS),
            ("the VIP asks", Ingress, ask(VIP, OTHER), PASS),
            (
                "others announce the VIP",
                Ingress,
                arp::emit_gratuitous(THEIR_MAC, VIP).to_vec(),
                PASS,
            ),
            ("others answer for the VIP", Ingress, reply(VIP, OTHER), PASS),
            ("others answer the VIP", Ingress, reply(OTHER, VIP), PASS),
            ("we answer for the VIP", Egress, reply(VIP, OTHER), DROP),
            ("we announce the VIP", Egress, arp::emit_gratuitous(OUR_MAC, VIP).to_vec(), DROP),
            ("we ask from the VIP", Egress, ask(VIP, OTHER), DROP),
            ("we ask for the VIP", Egress, ask(OTHER, VIP), PASS),
            ("we answer for another", Egress, reply(OTHER, VIP), PASS),
            ("who has the VIP? (6)", Ingress, solicit(OTHER6, VIP6), DROP),
            ("a probe for the VIP (6)", Ingress, probe, DROP),
            ("who has another? (6)", Ingress, solicit(OTHER6, OTHER6), PASS),
            (
                "others announce the VIP (6)",
                Ingress,
                ndp::emit_unsolicited(THEIR_MAC, VIP6, false).to_vec(),
                PASS,
            ),
            (
                "we announce the VIP (6)",
                Egress,
                ndp::emit_unsolicited(OUR_MAC, VIP6, false).to_vec(),
                DROP,
            ),
            ("we ask from the VIP (6)", Egress, solicit(VIP6, OTHER6), DROP),
            ("we ask for the VIP (6)", Egress, solicit(OTHER6, VIP6), PASS),
            ("another network's question", Ingress, tagged(ask(OTHER, VIP)), PASS),
            ("not ICMPv6", Ingress, data6, PASS),
            ("an echo request", Ingress, echo, PASS),
            ("half a question", Ingress, cut(ask(OTHER, VIP), 41), PASS),
            ("half a question (6)", Ingress, cut(solicit(OTHER6, VIP6), 77), PASS),
        ]
    }

    #[test]
    fn a_closed_gate_drops_questions_and_claims_and_nothing_else() {
        let test = "a_closed_gate_drops_questions_and_claims_and_nothing_else";
        let Some(mut gate) = gate(test) else { return };
        for (name, direction, frame, _) in frames() {
            assert_eq!(verdict(&mut gate, direction, &frame), PASS, "{name}: no entry");
        }
        for address in [VIP.into(), VIP6.into()] {
            gate.set(LOOPBACK, address, Instant::ZERO).unwrap();
        }
        for (name, direction, frame, closed) in frames() {
            assert_eq!(verdict(&mut gate, direction, &frame), closed, "{name}: closed");
        }
        for address in [VIP.into(), VIP6.into()] {
            gate.set(LOOPBACK, address, clock::now() + Duration::from_secs(60)).unwrap();
        }
        for (name, direction, frame, _) in frames() {
            assert_eq!(verdict(&mut gate, direction, &frame), PASS, "{name}: open");
        }
        let dropped = |wanted| {
            let all = frames().into_iter();
            all.filter(|&(_, direction, _, closed)| direction == wanted && closed == DROP).count()
        };
        let counters = gate.counters();
        assert_eq!(counters.ingress, dropped(Direction::Ingress) as u64);
        assert_eq!(counters.egress, dropped(Direction::Egress) as u64);
    }

    #[test]
    fn an_ipv6_address_is_guarded_on_its_own_interface_and_an_ipv4_address_on_all() {
        let test = "an_ipv6_address_is_guarded_on_its_own_interface_and_an_ipv4_address_on_all";
        let Some(mut gate) = gate(test) else { return };
        for address in [VIP.into(), VIP6.into()] {
            gate.set(LinkId(7), address, Instant::ZERO).unwrap();
        }
        let question = arp::emit_request(THEIR_MAC, OTHER, VIP);
        assert_eq!(verdict(&mut gate, Direction::Ingress, &question), DROP);
        let question = ndp::emit_solicitation(THEIR_MAC, OTHER6, VIP6);
        assert_eq!(verdict(&mut gate, Direction::Ingress, &question), PASS);
    }

    #[test]
    fn a_full_gate_says_which_address_it_cannot_take() {
        let Some(mut gate) = gate("a_full_gate_says_which_address_it_cannot_take") else { return };
        let address = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n));
        let full = (0..=buoy_xdp::GATE_ADDRESSES_MAX)
            .find_map(|n| gate.set(LOOPBACK, address(n), Instant::ZERO).err());
        let expected = GateError::Write {
            address: address(buoy_xdp::GATE_ADDRESSES_MAX),
            errno: Errno::E2BIG,
        };
        assert_eq!(full, Some(expected));
    }
}
