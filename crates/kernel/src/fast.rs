//! The fast path: XDP programs that forward packets for VIPs, and the tables that tell them where to.
//!
//! The programs are `crates/xdp/bpf/forward.bpf.c`. Order matters: `open`, `apply` what should be, then
//! `attach`, which replaces an earlier run's program in one step; so there is no moment without a table.
//! Maps and attachments are pinned where that is possible, and then go on without this process; a later
//! run takes both over. `detach` takes everything away. Services are the same on every node and no
//! lease is looked at: whoever gets a packet for a VIP forwards it.

mod apart;
mod buckets;
mod capture;
mod error;
mod exchange;
mod extents;
mod limits;
mod lines;
mod links;
mod losses;
mod memory;
mod neighbours;
mod object;
mod pins;
mod plan;
mod pools;
mod probe;
mod said;
mod sources;
mod tables;
mod trace;
mod vlans;

pub use buoy_xdp::forward::Drop;
pub use capture::{Action, Capture, CaptureError, Captured, Frame, HOLD, Only, Shown};
pub use error::FastError;
pub use exchange::{News, Place as FlowPlace};
pub use losses::{Losses, Reasons};
pub use neighbours::{Neighbours, NextHop, Unreached, Way, WhyNot};
pub use pins::Mode;
pub use plan::Key;
pub use probe::{Probe, Tried, Verdict};
pub use tables::Learned;
pub use trace::{Fate, Packet};
pub use vlans::Vlan;

use crate::gate::Answerer;
use crate::sys;
use crate::sysctl::{self, SysctlError};
use aya::maps::{MapData, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use aya::programs::{ProgramError, ProgramFd, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use buoy_model::limits::{FAST_DRAIN, FAST_PLACES_MAX, FAST_POOL_MAX};
use buoy_model::{FastPath, FastService, LinkId};
use buoy_xdp::forward::{
    self, ANSWER_PLACE, BACKENDS, BUCKETS, LOST, LOST_MAX, LOST_MIN, NEXT_PROGRAMS, PROGRAM,
    PROGRAMS_MAP, REVERSE, SERVICES, SLOTS, SLOTS_IN_LINE, TALLIES, VLANS,
};
use buoy_xdp::pool::{self, OUTLETS, POOLED_PORTS, POOLS, PORTS};
pub(crate) use error::refused;
use losses::Lost;
use nix::errno::Errno;
use object::{earlier_flows, program, regions, typed};
use pins::Pins;
use plan::backends_of;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;
use tables::{Placed, Tables};
use vlans::Vlans;

/// How to get to an address, asked for each backend.
pub type Resolve<'a> = &'a mut dyn FnMut(IpAddr) -> Option<Way>;

// What is remembered of a flow may be overwritten when no slot can need it any more.
const _: () = assert!(forward::REMEMBERED_SECONDS == FAST_DRAIN.as_secs());
const _: () = assert!(forward::PLACES_MAX == FAST_PLACES_MAX);
const _: () = assert!(pool::POOL_ADDRESSES_MAX == FAST_POOL_MAX);

/// No program runs longer, should the kernel have no way to wait for the running ones.
const PROGRAM_MAX: Duration = Duration::from_millis(100);

/// Room for so much. What does not fit any more takes another `open`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Capacity {
    /// Services, twice: a changed one is beside the old one for a while.
    pub services: u32,
    /// Backends of all services, likewise.
    pub backends: u32,
    /// Slots of all tables, likewise.
    pub slots: u32,
    /// Ports, or blocks of ports, of services; and of backends that are translated.
    pub entries: u32,
    /// Addresses in place of clients', each counted for each protocol.
    pub pools: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { services: 4096, backends: 16_384, slots: 1 << 20, entries: 16_384, pools: 0 }
    }
}

impl Capacity {
    /// As much as is there already, if anything is.
    pub const LEAST: Self = Self { services: 1, backends: 1, slots: 1, entries: 1, pools: 0 };

    /// Room for that, with as much again and some more; a small table does not cost its maximum.
    pub fn of(path: &FastPath) -> Self {
        let sum = |count: &dyn Fn(&FastService) -> usize, least: u32| {
            let sum: usize = path.services.iter().map(count).sum();
            u32::try_from(sum.saturating_mul(3)).unwrap_or(u32::MAX / 2).max(least)
        };
        let tables = path.services.iter().map(|s| (s.slots.as_ptr(), s.slots.len()));
        let tables: BTreeMap<_, _> = tables.collect();
        let lines = |slots: usize| slots.next_multiple_of(SLOTS_IN_LINE as usize);
        let shared: usize = tables.into_values().map(lines).sum();
        let shared = u32::try_from(shared).unwrap_or(u32::MAX / 4);
        let blocks = |s: &FastService| forward::blocks(s.ports.0, s.ports.1).len();
        Self {
            services: sum(&|_| 1, 64).next_power_of_two(),
            backends: sum(&|s| s.backends.len(), 1024).next_power_of_two(),
            slots: shared.saturating_mul(3).max(1 << 18).next_power_of_two(),
            entries: sum(&|s| 1 + blocks(s) + (1 + blocks(s)) * s.backends.len(), 1024)
                .next_power_of_two(),
            // A table is large, and one that is not wanted any more makes room for another.
            pools: u32::try_from(plan::pools(path).len()).unwrap_or(u32::MAX),
        }
    }

    fn lengths(self) -> [(&'static str, u32); 11] {
        // A third full at most, so that nearly all are in the first bucket that is looked at.
        let ways = forward::BUCKET_WAYS as u32;
        let buckets = (self.entries.saturating_mul(3) / ways).next_power_of_two();
        [
            (SERVICES, self.services),
            (BACKENDS, self.backends),
            (TALLIES, self.backends),
            // Most have none: an entry is made with the first.
            (LOST, self.backends.clamp(LOST_MIN, LOST_MAX)),
            (SLOTS, self.slots.div_ceil(SLOTS_IN_LINE)),
            (BUCKETS, buckets),
            (REVERSE, buckets),
            (OUTLETS, self.services),
            (POOLS, self.pools.max(1)),
            (PORTS, self.pools.saturating_mul(pool::POOL_BUCKETS).max(1)),
            (POOLED_PORTS, self.pools.saturating_mul(pool::POOL_PORTS).max(1)),
        ]
    }
}

/// What was forwarded to one backend of one service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of them, from the IP header on.
    pub bytes: u64,
    /// TCP connections that were opened.
    pub flows: u64,
    /// Those that were not, for the rate of their client: of a whole service, at its first backend.
    pub refused: u64,
    /// Datagrams whose connection id named nobody here: likewise.
    pub unnamed: u64,
}

/// What the programs counted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FastCounters {
    /// By service and backend.
    pub forwarded: BTreeMap<(Key, SocketAddr), Count>,
    /// By reason.
    pub dropped: BTreeMap<Drop, u64>,
    /// Those of them of which it is known whose they were.
    pub lost: Losses,
}

/// How long a program is: on one kernel always the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Length {
    /// Its name.
    pub name: &'static str,
    /// Instructions that the verifier went through, on all ways; 0: the kernel does not say.
    pub verified: u32,
    /// Bytes of its instructions.
    pub translated: u32,
    /// Bytes of machine code.
    pub compiled: u32,
}

/// The loaded fast path. Dropping it leaves what is pinned in the kernel.
pub struct Fast {
    programs: Ebpf,
    /// Emptied by the kernel when nobody holds it.
    next: ProgramArray<MapData>,
    tables: Tables,
    vlans: Vlans,
    tallies: PerCpuArray<MapData, [u64; 5]>,
    drops: PerCpuArray<MapData, u64>,
    lost: Lost,
    /// Of backends that are not placed any more, or elsewhere.
    totals: BTreeMap<(Key, SocketAddr), Count>,
    pins: Result<Pins, String>,
    replaced: Vec<String>,
    places: Vec<Place>,
    probe: Probe,
}

/// An interface with the program on it.
struct Place {
    link: LinkId,
    mode: Mode,
    held: Held,
}

/// What keeps the program there.
enum Held {
    Pinned(PinnedLink),
    /// As long as this process lives.
    Unpinned(XdpLinkId),
}

impl Fast {
    /// Loads the programs with room for so much at least, and takes over the maps of an earlier run if
    /// they have it. Nothing is attached yet.
    pub fn open(capacity: Capacity) -> Result<Self, FastError> {
        Self::load(capacity, Pins::open())
    }

    /// The same without pins: what is attached goes with this process.
    pub fn open_unpinned(capacity: Capacity) -> Result<Self, FastError> {
        Self::load(capacity, Err("not wanted".to_owned()))
    }

    fn load(capacity: Capacity, pins: Result<Pins, String>) -> Result<Self, FastError> {
        let wanted = capacity.lengths();
        let kept = pins.as_ref().ok().and_then(|pins| pins.lengths(&wanted));
        let mut earlier = None;
        if let (Ok(pins), None) = (&pins, &kept) {
            earlier = earlier_flows(pins);
            pins.forget_maps();
        }
        let lengths = kept.unwrap_or_else(|| wanted.to_vec());
        let mut loader = EbpfLoader::new();
        for &(name, length) in &lengths {
            loader.map_max_entries(name, length);
        }
        if let Ok(pins) = &pins {
            for name in forward::MAPS.into_iter().chain([PROGRAMS_MAP]) {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let (mut programs, settings) = object::load(&mut loader, pins.as_ref().ok())?;
        for name in NEXT_PROGRAMS.into_iter().chain([PROGRAM]) {
            program(&mut programs, name)?.load().map_err(|e| refused(&e))?;
        }
        let mut next: ProgramArray<MapData> = typed(&mut programs, PROGRAMS_MAP)?;
        for (index, name) in (0..).zip(NEXT_PROGRAMS) {
            let fd = program(&mut programs, name)?.fd().map_err(|e| refused(&e))?;
            next.set(index, fd, 0).map_err(|e| refused(&e))?;
        }
        let mut tables = Tables::new(regions(&mut programs, settings)?);
        if let Some(earlier) = earlier {
            tables.carry_over(&earlier);
        }
        let replaced = pins.as_ref().map_or_else(|_| Vec::new(), Pins::forget_other_layouts);
        let fd = program(&mut programs, PROGRAM)?.fd().map_err(|e| refused(&e))?;
        let probe = Probe::new(fd.as_fd())?;
        Ok(Self {
            lost: Lost::new(typed(&mut programs, LOST)?, &tables),
            tables,
            next,
            vlans: Vlans::new(typed(&mut programs, VLANS)?)?,
            tallies: typed(&mut programs, TALLIES)?,
            drops: typed(&mut programs, forward::DROPS)?,
            programs,
            totals: BTreeMap::new(),
            pins,
            replaced,
            places: Vec::new(),
            probe,
        })
    }

    /// Why nothing is pinned, if so: then forwarding ends with this process.
    pub fn unpinned(&self) -> Option<&str> {
        self.pins.as_ref().err().map(String::as_str)
    }

    /// Maps of other versions of the programs, which could not be taken over: flows that were remembered there are not
    /// known here. Their programs go on with them until `attach`.
    pub fn replaced(&self) -> &[String] {
        &self.replaced
    }

    /// Goes on to this program with what asks for addresses; without one, such questions are the kernel's, and
    /// pings to VIPs are answered whatever their leases say. To be called before `attach`.
    pub fn answer_by(&mut self, answerer: Option<&Answerer>) -> Result<(), FastError> {
        let done = match answerer {
            Some(Answerer(program)) => self.next.set(ANSWER_PLACE, program, 0),
            None => self.next.clear_index(&ANSWER_PLACE),
        };
        match done {
            // There was none.
            Err(error) if crate::gate::errno_of(&error) == Some(Errno::ENOENT) => Ok(()),
            done => done.map_err(|e| refused(&e)),
        }
    }

    /// Makes the tables so. Nothing is touched of a service that stays the same, and of one that differs
    /// in slots only those slots are.
    pub fn apply(&mut self, path: &FastPath, resolve: Resolve<'_>) -> Result<(), FastError> {
        self.reclaim();
        self.tables.apply(path, resolve)
    }

    /// Makes these services so, and leaves all others as they are, in a time that does not depend on how many there
    /// are; whether that was possible. It is where only slots differ, and who of the backends is there: what a
    /// backend that goes down or comes back changes. Else nothing was touched, and `apply` does it.
    pub fn amend(&mut self, seed: u64, services: &[FastService], resolve: Resolve<'_>) -> bool {
        self.tables.amend(seed, services, resolve)
    }

    /// What is there, of this run or an earlier one.
    pub fn path(&self) -> FastPath {
        self.tables.path()
    }

    /// Asks anew for the ways to all backends, and names those without one: packets for them are
    /// dropped. To be called when neighbours or routes have changed, and every now and then.
    pub fn refresh(&mut self, resolve: Resolve<'_>) -> Vec<Unreached> {
        self.tables.refresh(resolve)
    }

    /// This host has an interface for each of these VLANs: their frames are left to it. To be called before
    /// `attach`, and when there are others.
    pub fn leave_vlans(&mut self, vlans: &BTreeSet<Vlan>) -> Result<(), FastError> {
        self.vlans.set(vlans)
    }

    /// So many seconds are over since whenever: what is remembered of flows gets old by this only.
    pub fn tick(&mut self, seconds: u64) {
        self.tables.tick(seconds);
    }

    /// Puts the program on an interface, in the place of an earlier run's; in the driver if it can.
    pub fn attach(&mut self, link: LinkId) -> Result<Mode, FastError> {
        if let Some(place) = self.places.iter().find(|place| place.link == link) {
            return Ok(place.mode);
        }
        let mode = self.take(link)?;
        if let Ok(pins) = &self.pins {
            let is_ours = |link| self.places.iter().any(|place| place.link == link);
            pins.forget_set_aside(|link| !is_ours(link) && neighbours::is_veth(link).is_ok());
        }
        Ok(mode)
    }

    fn take(&mut self, link: LinkId) -> Result<Mode, FastError> {
        if neighbours::is_veth(link)? {
            self.tables.send_back_by_redirect(true);
        }
        if let Some(place) = self.take_over(link) {
            let mode = place.mode;
            self.places.push(place);
            return Ok(mode);
        }
        let mut reasons = Vec::new();
        for mode in Mode::ALL {
            match self.put(link, mode) {
                Ok(place) => {
                    self.places.push(place);
                    return Ok(mode);
                }
                Err(error) if is_occupied(&error) => return Err(FastError::Occupied { link }),
                Err(error) => reasons.push(format!("{}: {}", mode.name(), words(&error))),
            }
        }
        Err(FastError::Attach { link, reason: reasons.join("; ") })
    }

    /// Transmits what goes out where it came in, as on a network card, also where `attach` found a veth: its other
    /// end has to run XDP then, or such packets wait there for the next one.
    pub fn transmit_back(&self) {
        self.tables.send_back_by_redirect(false);
    }

    /// The interfaces with the program on them, and how.
    pub fn attached(&self) -> impl Iterator<Item = (LinkId, Mode)> {
        self.places.iter().map(|place| (place.link, place.mode))
    }

    /// Takes the program off one interface.
    pub fn detach_from(&mut self, link: LinkId) {
        let Some(at) = self.places.iter().position(|place| place.link == link) else { return };
        match self.places.swap_remove(at).held {
            Held::Pinned(pinned) => {
                let _ = pinned.unpin();
            }
            Held::Unpinned(id) => {
                let program = program(&mut self.programs, PROGRAM);
                let _ = program.map(|program| program.detach(id));
            }
        }
    }

    /// Takes everything away: programs, maps, and what is pinned, of earlier runs as well.
    pub fn detach(mut self) {
        let links: Vec<_> = self.places.iter().map(|place| place.link).collect();
        for link in links {
            self.detach_from(link);
        }
        if let Ok(pins) = &self.pins {
            pins.remove();
        }
    }

    /// Whether an earlier run has left something here: then `open` with any room and look at its `path`.
    pub fn kept() -> bool {
        Pins::kept()
    }

    /// Takes away what an earlier run has left pinned, without loading anything.
    pub fn detach_earlier() -> Result<(), String> {
        Pins::open().map(|pins| pins.remove())
    }

    /// Lets this host forward answers of translated backends that come in by this interface, when it has the
    /// VIP itself: by their source they look like its own. Forwarding must be on. What was changed, in words.
    pub fn accept_answers(interface: &str) -> Result<Vec<String>, SysctlError> {
        let mut changes = Vec::new();
        // Loose: the larger of this and that of all interfaces counts, and strict would be smaller.
        for (setting, value) in [("accept_local", "1"), ("rp_filter", "2")] {
            let name = format!("net/ipv4/conf/{interface}/{setting}");
            if sysctl::read(&name)?.trim() != value {
                sysctl::write(&name, value)?;
                changes.push(format!("{} = {value}", name.replace('/', ".")));
            }
        }
        Ok(changes)
    }

    /// What was counted, since the maps were made.
    pub fn counters(&self) -> FastCounters {
        let mut forwarded = self.totals.clone();
        for (key, placed) in self.tables.placed() {
            self.add_counts(*key, placed, &mut forwarded);
        }
        for (key, placed) in self.tables.retired() {
            self.add_counts(*key, placed, &mut forwarded);
        }
        FastCounters { forwarded, dropped: self.dropped(), lost: self.lost.count(&self.tables) }
    }

    /// How many packets were dropped, by reason.
    pub fn dropped(&self) -> BTreeMap<Drop, u64> {
        let dropped = Drop::ALL.map(|reason| {
            let values = self.drops.get(&(reason as u32), 0);
            (reason, values.map_or(0, |values| values.iter().sum()))
        });
        dropped.into()
    }

    /// How long the programs are.
    pub fn lengths(&mut self) -> Result<Vec<Length>, FastError> {
        let names = [PROGRAM].into_iter().chain(NEXT_PROGRAMS);
        let length = |name| {
            let info = program(&mut self.programs, name)?.info().map_err(|e| refused(&e))?;
            Ok(Length {
                name,
                verified: info.verified_instruction_count().unwrap_or(0),
                translated: info.size_translated().unwrap_or(0),
                compiled: info.size_jitted(),
            })
        };
        names.map(length).collect()
    }

    /// Runs the program on a frame, as `Probe::try_frame` does.
    pub fn try_frame(&self, frame: &[u8]) -> Result<Tried, FastError> {
        self.probe.try_frame(frame)
    }

    /// The program to be run on frames, also from another thread.
    pub fn probe(&mut self) -> Result<Probe, FastError> {
        Probe::new(program(&mut self.programs, PROGRAM)?.fd().map_err(|e| refused(&e))?.as_fd())
    }

    /// The program that is attached to interfaces.
    pub(crate) fn entrance(&mut self) -> Result<&ProgramFd, FastError> {
        program(&mut self.programs, PROGRAM)?.fd().map_err(|e| refused(&e))
    }

    /// Waits until no program looks at what was replaced, and makes its places free.
    fn reclaim(&mut self) {
        if self.tables.retired().is_empty() {
            return;
        }
        if sys::wait_for_programs().is_err() {
            std::thread::sleep(PROGRAM_MAX);
        }
        let retired = self.tables.retired().to_vec();
        let mut totals = std::mem::take(&mut self.totals);
        for (key, placed) in &retired {
            self.add_counts(*key, placed, &mut totals);
            for place in backends_of(&placed.service) {
                let nothing = aya::util::nr_cpus().map(|cpus| vec![[0; 5]; cpus]);
                let nothing = nothing.ok().and_then(|zeros| PerCpuValues::try_from(zeros).ok());
                let _ = nothing.map(|nothing| self.tallies.set(place, nothing, 0));
            }
        }
        self.totals = totals;
        self.lost.retire(&self.tables);
        self.tables.free();
    }

    fn add_counts(
        &self,
        key: Key,
        placed: &Placed,
        counts: &mut BTreeMap<(Key, SocketAddr), Count>,
    ) {
        for place in backends_of(&placed.service) {
            let backend = self.tables.backend(place);
            let address = SocketAddr::new(backend.address.into(), backend.port);
            let count = counts.entry((key, address)).or_default();
            let Ok(values) = self.tallies.get(&place, 0) else { continue };
            for [packets, bytes, flows, refused, unnamed] in values.iter().copied() {
                count.packets += packets;
                count.bytes += bytes;
                count.flows += flows;
                count.refused += refused;
                count.unnamed += unnamed;
            }
        }
    }

    /// Puts this program in the place of an earlier run's, in one step.
    fn take_over(&mut self, link: LinkId) -> Option<Place> {
        let pins = self.pins.as_ref().ok()?;
        let mode = pins.links().into_iter().find(|(id, _)| *id == link)?.1;
        let path = pins.link(link, mode);
        let pinned = PinnedLink::from_pin(&path).ok()?;
        let taken = XdpLink::try_from(FdLink::from(pinned)).ok().and_then(|link| {
            let program = program(&mut self.programs, PROGRAM).ok()?;
            let id = program.attach_to_link(link).ok()?;
            program.take_link(id).ok()
        });
        // The file is the same, whoever has the descriptor.
        let again = taken.and_then(|_| PinnedLink::from_pin(&path).ok());
        match again {
            Some(pinned) => Some(Place { link, mode, held: Held::Pinned(pinned) }),
            None => {
                // The interface that it was on is gone.
                let _ = std::fs::remove_file(path);
                None
            }
        }
    }

    fn put(&mut self, link: LinkId, mode: Mode) -> Result<Place, ProgramError> {
        let how = match mode {
            Mode::Driver => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
        };
        let program: &mut Xdp = match self.programs.program_mut(PROGRAM) {
            Some(program) => program.try_into()?,
            None => return Err(ProgramError::NotLoaded),
        };
        let id = program.attach_to_if_index(link.0, how)?;
        let Ok(pins) = &self.pins else {
            return Ok(Place { link, mode, held: Held::Unpinned(id) });
        };
        let taken = FdLink::try_from(program.take_link(id)?);
        let pinned = taken.map(|taken| taken.pin(pins.link(link, mode)));
        match pinned {
            Ok(Ok(pinned)) => Ok(Place { link, mode, held: Held::Pinned(pinned) }),
            // A kernel without links for XDP (before 5.9), or a bpffs that takes nothing more.
            Ok(Err(_)) | Err(_) => {
                self.pins = Err("the kernel does not let a link be pinned".to_owned());
                self.put(link, mode)
            }
        }
    }
}

/// The error of a kernel where another XDP program is.
fn is_occupied(error: &ProgramError) -> bool {
    matches!(crate::gate::errno_of(error), Some(Errno::EBUSY | Errno::EEXIST))
}

fn words(error: &ProgramError) -> String {
    crate::gate::errno_of(error).map_or_else(|| error.to_string(), |e| e.desc().to_owned())
}
