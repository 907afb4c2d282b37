//! The program that takes outer headers off: put on an interface, taken off, looked at.
//!
//! It is attached by route netlink and not by a pinned link: the interface keeps it, whoever ends, and there is
//! nothing to find again in a bpffs that a container or `ip netns exec` does not have. The map goes with the
//! program. A change is a new program with a new map in the place of the old one, in one step; so a packet is
//! judged by the whole of the old map or of the new one.

use super::tunnel::Tunnel;
use crate::gate::errno_of;
use crate::netlink::{NetlinkError, Requests, XdpFacts, XdpPlace};
use crate::sys;
use aya::maps::{Array, HashMap, Map, MapData, MapInfo, PerCpuArray};
use aya::programs::{ProgramError, ProgramInfo, Xdp, loaded_programs};
use aya::{Ebpf, EbpfLoader};
use buoy_model::LinkId;
use buoy_xdp::backend::{
    BACKEND, Counter, DECAP, DECAP_ADDRESSES, DECAP_ADDRESSES_MAX, DECAP_COUNTERS, DECAP_PORTS,
    OWN, VIP, gue, gue_port, key,
};
use nix::errno::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;

/// Which packets are taken out of which.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Decap {
    /// Those for these, out of these.
    pub vips: BTreeMap<IpAddr, Tunnel>,
    /// Of those to these.
    pub own: BTreeSet<IpAddr>,
}

/// What was taken out, and what was not.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Taken out.
    pub decapsulated: u64,
    /// For a VIP but not whole: passed.
    pub malformed: u64,
    /// Wrapped in fragments: passed.
    pub fragments: u64,
    /// Marked as congested on the way, where the sender does not understand the mark: dropped.
    pub congestion: u64,
}

/// The XDP program on an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum OnInterface {
    /// One of ours.
    Ours(Decap, Counts),
    /// Another one, by its name.
    Another(String),
}

/// The XDP programs on interfaces, by interface.
pub(super) fn observe(requests: &mut Requests) -> Result<Vec<(LinkId, OnInterface)>, NetlinkError> {
    let found = requests.xdp()?;
    Ok(found.into_iter().map(|facts| (facts.link, look_at(&facts))).collect())
}

fn look_at(facts: &XdpFacts) -> OnInterface {
    let unknown = || OnInterface::Another("of unknown name: run this as root".to_owned());
    let Some(info) = program_of(facts) else { return unknown() };
    let name = info.name_as_str().unwrap_or("without a name").to_owned();
    if name != DECAP || facts.place == XdpPlace::Other {
        return OnInterface::Another(format!("`{name}`"));
    }
    read(&info).map_or_else(unknown, |(decap, counts)| OnInterface::Ours(decap, counts))
}

fn program_of(facts: &XdpFacts) -> Option<ProgramInfo> {
    loaded_programs().flatten().find(|info| Some(info.id()) == facts.program)
}

fn read(info: &ProgramInfo) -> Option<(Decap, Counts)> {
    let maps = info.map_ids().ok()??;
    let addresses: HashMap<MapData, [u8; 16], u32> =
        HashMap::try_from(Map::HashMap(named(&maps, DECAP_ADDRESSES)?)).ok()?;
    let mut decap = Decap::default();
    for (address, what) in addresses.iter().flatten() {
        let address = IpAddr::V6(Ipv6Addr::from(address)).to_canonical();
        let tunnel = Tunnel { ipip: what & VIP != 0, gue: gue_port(what) };
        if tunnel.is_any() {
            decap.vips.insert(address, tunnel);
        }
        if what & OWN != 0 {
            decap.own.insert(address);
        }
    }
    let counters: PerCpuArray<MapData, u64> =
        PerCpuArray::try_from(Map::PerCpuArray(named(&maps, DECAP_COUNTERS)?)).ok()?;
    let sum = |counter: Counter| {
        let values = counters.get(&(counter as u32), 0);
        values.map_or(0, |values| values.iter().sum())
    };
    let counts = Counts {
        decapsulated: sum(Counter::Decapsulated),
        malformed: sum(Counter::Malformed),
        fragments: sum(Counter::Fragment),
        congestion: sum(Counter::Congestion),
    };
    Some((decap, counts))
}

fn named(maps: &[u32], name: &str) -> Option<MapData> {
    let is_it =
        |id: &&u32| MapInfo::from_id(**id).is_ok_and(|info| info.name_as_str() == Some(name));
    MapData::from_id(*maps.iter().find(is_it)?).ok()
}

/// The loaded program, not on any interface yet; for tests, which run it on frames.
pub struct Decapsulator {
    programs: Ebpf,
}

impl Decapsulator {
    /// Loads it with this map; in words why not.
    pub fn load(decap: &Decap) -> Result<Self, String> {
        let mut programs = EbpfLoader::new().load(BACKEND).map_err(|e| refused(&e))?;
        program(&mut programs)?.load().map_err(|e| refused(&e))?;
        let map = programs.map_mut(DECAP_ADDRESSES).ok_or("its map is missing")?;
        let mut addresses: HashMap<&mut MapData, [u8; 16], u32> =
            HashMap::try_from(map).map_err(|e| refused(&e))?;
        let all: BTreeSet<IpAddr> = decap.vips.keys().chain(&decap.own).copied().collect();
        if all.len() > DECAP_ADDRESSES_MAX {
            return Err(format!("there is room for {DECAP_ADDRESSES_MAX} addresses only"));
        }
        for address in all {
            let own = if decap.own.contains(&address) { OWN } else { 0 };
            let tunnel = decap.vips.get(&address).copied().unwrap_or_default();
            let ipip = if tunnel.ipip { VIP } else { 0 };
            let what = own | ipip | tunnel.gue.map_or(0, gue);
            addresses.insert(key(address), what, 0).map_err(|e| refused(&e))?;
        }
        write_ports(&mut programs, decap.vips.values().filter_map(|tunnel| tunnel.gue))?;
        Ok(Self { programs })
    }

    /// Runs it on a frame of at least 14 bytes. Gives what XDP does with it, and the frame afterwards.
    pub fn try_frame(&mut self, frame: &[u8]) -> Result<(u32, Vec<u8>), String> {
        let fd = program(&mut self.programs)?.fd().map_err(|e| refused(&e))?.as_fd();
        let fd = fd.try_clone_to_owned().map_err(|e| refused(&e))?;
        let mut output = vec![0; frame.len()];
        let (code, length) = sys::run_program(&fd, sys::Trial::Again(1, frame), &mut output)
            .map_err(|e| refused(&e))?;
        output.truncate(length);
        Ok((code, output))
    }

    /// What it counted.
    pub fn counts(&mut self) -> Option<Counts> {
        let info = program(&mut self.programs).ok()?.info().ok()?;
        read(&info).map(|(_, counts)| counts)
    }
}

/// Datagrams to other ports are not looked into.
fn write_ports(programs: &mut Ebpf, ports: impl Iterator<Item = u16>) -> Result<(), String> {
    let map = programs.map_mut(DECAP_PORTS).ok_or("its map of ports is missing")?;
    let mut words: Array<&mut MapData, u64> = Array::try_from(map).map_err(|e| refused(&e))?;
    for port in ports {
        let at = u32::from(port) / u64::BITS;
        let word = words.get(&at, 0).map_err(|e| refused(&e))?;
        let bit = 1 << (u32::from(port) % u64::BITS);
        words.set(at, word | bit, 0).map_err(|e| refused(&e))?;
    }
    Ok(())
}

/// Makes it so on this interface; `None` takes the program off. In words why not.
pub(super) fn put(
    requests: &mut Requests,
    link: LinkId,
    decap: Option<&Decap>,
) -> Result<(), String> {
    let there = requests.xdp().map_err(|e| e.to_string())?.into_iter().find(|x| x.link == link);
    let old = match &there {
        None => None,
        Some(facts) => match look_at(facts) {
            OnInterface::Ours(..) => program_of(facts).map(|info| (facts.place, info)),
            OnInterface::Another(_) if decap.is_none() => return Ok(()),
            OnInterface::Another(name) => return Err(format!("the XDP program {name} is there")),
        },
    };
    let old = old.map(|(place, info)| info.fd().map(|fd| (place, fd))).transpose();
    let old = old.map_err(|e| refused(&e))?;
    match (decap, old) {
        (None, None) => Ok(()),
        (None, Some((place, fd))) => {
            requests.remove_xdp(link, place, fd.as_fd()).map_err(|e| e.to_string())
        }
        (Some(decap), Some((place, fd))) => {
            let mut new = Decapsulator::load(decap)?;
            let program = program(&mut new.programs)?.fd().map_err(|e| refused(&e))?;
            let replaced = requests.put_xdp(link, place, program.as_fd(), Some(fd.as_fd()));
            replaced.map_err(|e| e.to_string())
        }
        (Some(decap), None) => put_first(requests, link, &mut Decapsulator::load(decap)?),
    }
}

/// In the driver if it can, else behind it.
fn put_first(requests: &mut Requests, link: LinkId, new: &mut Decapsulator) -> Result<(), String> {
    let program = program(&mut new.programs)?.fd().map_err(|e| refused(&e))?;
    let mut put = |place| requests.put_xdp(link, place, program.as_fd(), None);
    let Err(driver) = put(XdpPlace::Driver) else { return Ok(()) };
    let Err(generic) = put(XdpPlace::Generic) else { return Ok(()) };
    Err(format!("in the driver: {driver}; behind it: {generic}"))
}

fn program(programs: &mut Ebpf) -> Result<&mut Xdp, String> {
    let program = programs.program_mut(DECAP).and_then(|program| program.try_into().ok());
    program.ok_or_else(|| format!("there is no `{DECAP}` in it"))
}

fn refused(error: &(dyn std::error::Error + 'static)) -> String {
    let errno = errno_of(error);
    match (errno, error.downcast_ref()) {
        (Some(Errno::EPERM | Errno::EACCES), _) => {
            "this process may not load BPF programs: run it as root of the host, or give it \
             CAP_BPF and CAP_NET_ADMIN"
                .to_owned()
        }
        (_, Some(ProgramError::LoadError { verifier_log, .. })) => {
            format!("this kernel refuses the program: {verifier_log}")
        }
        (Some(errno), _) => format!("{error}: {}", errno.desc()),
        (None, _) => error.to_string(),
    }
}
