//! What becomes of a service in the words of the programs: keys, ports, identities, and what cannot be.

use super::apart;
use super::buckets::Entries;
use super::tables::Placed;
use super::{FastError, Resolve, Way};
use buoy_model::limits::FAST_POOLS_MAX;
use buoy_model::{FastBackend, FastPath, FastService, Forward, Ports, Protocol, ServerId, Slot};
use buoy_xdp::checksum::{address_change, end_change, outer_sum};
use buoy_xdp::forward::{
    Address, Backend, FORWARD_DSR, FORWARD_GUE, FORWARD_LOCAL, FORWARD_NAT, FORWARD_TUNNEL,
    PLACES_MAX, POOLED, Service, blocks, identity, key_of,
};
use buoy_xdp::pool::{POOL_ADDRESSES_MAX, PORT_FIRST, PORT_LAST, Pool};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What makes a service the same one after a change.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// The VIP.
    pub address: IpAddr,
    /// The transport.
    pub protocol: Protocol,
    /// The first and the last port.
    pub ports: (u16, u16),
}

impl From<&FastService> for Key {
    fn from(service: &FastService) -> Self {
        Self { address: service.address, protocol: service.protocol, ports: service.ports }
    }
}

impl Key {
    pub(super) fn of(service: &Service) -> Option<Self> {
        let protocol =
            [Protocol::Tcp, Protocol::Udp].into_iter().find(|&p| number(p) == service.protocol)?;
        let ports = (service.first, service.last);
        Some(Self { address: service.address.into(), protocol, ports })
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let (first, last) = self.ports;
        write!(f, "{protocol} {}", SocketAddr::new(self.address, first))?;
        if first == last { Ok(()) } else { write!(f, "-{last}") }
    }
}

/// The protocol as in the IP header.
pub(super) const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// What of a service cannot change where it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Kinds {
    pub(super) forward: u8,
    pub(super) gue_port: u16,
    pub(super) flow: u8,
    pub(super) quic: u8,
    pub(super) stick: u16,
    pub(super) slots_count: u32,
    pub(super) backends_count: u32,
}

impl From<&Service> for Kinds {
    fn from(service: &Service) -> Self {
        let Service { forward, gue_port, flow, quic, stick, slots_count, backends_count, .. } =
            *service;
        Self { forward, gue_port, flow, quic, stick, slots_count, backends_count }
    }
}

pub(super) fn kinds(service: &FastService) -> Kinds {
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let (forward, gue_port) = number_of(service.forward);
    Kinds {
        forward,
        gue_port,
        flow: apart::flow(service),
        quic: apart::quic(service),
        stick: apart::stick(service),
        slots_count: length(service.slots.len()),
        backends_count: length(service.backends.len()),
    }
}

/// Tables that were looked at, with the number of backends that they may name.
pub(super) type Seen = BTreeMap<*const Slot, usize>;

/// How packets get to the backends of a service.
pub(super) fn forward_of(service: &Service) -> Option<Forward> {
    let gue = Forward::Gue { port: u16::from_be(service.gue_port) };
    let forward = [Forward::Dsr, Forward::Tunnel, gue, Forward::Nat, Forward::Local];
    forward.into_iter().find(|f| number_of(*f).0 == service.forward)
}

/// With the port as it lies in a header.
const fn number_of(forward: Forward) -> (u8, u16) {
    match forward {
        Forward::Dsr => (FORWARD_DSR, 0),
        Forward::Tunnel => (FORWARD_TUNNEL, 0),
        Forward::Gue { port } => (FORWARD_GUE, port.to_be()),
        Forward::Nat => (FORWARD_NAT, 0),
        Forward::Local => (FORWARD_LOCAL, 0),
    }
}

/// The tables of ports of a service, in the order of its addresses.
pub(super) fn pools_of(service: &FastService) -> impl Iterator<Item = Pool> {
    let protocol = number(service.protocol);
    let pool = move |ip: &IpAddr| Pool { address: (*ip).into(), protocol, ..Pool::default() };
    service.pool.iter().map(pool)
}

/// Those of all services.
pub(super) fn pools(path: &FastPath) -> BTreeSet<Pool> {
    path.services.iter().flat_map(pools_of).collect()
}

/// Whether all of it can be forwarded.
pub(super) fn check(path: &FastPath) -> Result<(), FastError> {
    let mut keys = BTreeSet::new();
    let mut seen = Seen::new();
    let mut pools = BTreeSet::new();
    for service in &path.services {
        let key = Key::from(service);
        pools.extend(pools_of(service));
        let reason = if !keys.insert(key) {
            Some("is there twice")
        } else if pools.len() > FAST_POOLS_MAX {
            Some("all services have too many addresses in place of their clients' together")
        } else {
            fault(service, &mut seen)
                .or_else(|| fault_of_pool(path, service))
                .or_else(|| apart::fault(service))
        };
        if let Some(reason) = reason {
            return Err(FastError::Service { service: key.to_string(), reason });
        }
    }
    Ok(())
}

/// Whether it could not be forwarded, for what it is beside its pool and other services.
pub(super) fn is_faulty(service: &FastService, seen: &mut Seen) -> bool {
    fault(service, seen).or_else(|| apart::fault(service)).is_some()
}

/// Whether a slot names a backend that the service does not have.
pub(super) fn names_nobody(service: &FastService, seen: &mut Seen) -> bool {
    let count = service.backends.len();
    let is_wrong = |slot: &Slot| {
        let is_place = |place: u16| usize::from(place) < count;
        let current = is_place(slot.current) || slot.current == Slot::NOBODY;
        let previous = is_place(slot.previous)
            || slot.previous == Slot::REMEMBERED
            || slot.previous == slot.current;
        !current || !previous
    };
    let table = Arc::as_ptr(&service.slots).cast::<Slot>();
    seen.get(&table) != Some(&count) && {
        let is_wrong = service.slots.iter().any(is_wrong);
        if !is_wrong {
            seen.insert(table, count);
        }
        is_wrong
    }
}

fn fault(service: &FastService, seen: &mut Seen) -> Option<&'static str> {
    let (first, last) = service.ports;
    let count = service.backends.len();
    let translated = service.forward == Forward::Nat;
    let other_family = |b: &SocketAddr| b.is_ipv4() != service.address.is_ipv4();
    let beyond = |b: &SocketAddr| u32::from(b.port()) + u32::from(last - first) > 0xffff;
    let mut backends = service.backends.iter().map(|b| &b.address);
    if first > last {
        Some("its first port is above its last")
    } else if count > PLACES_MAX {
        Some("it has too many backends")
    } else if !service.slots.is_empty() && !service.slots.len().is_power_of_two() {
        Some("its slots are not a power of two")
    } else if names_nobody(service, seen) {
        Some("a slot names a backend that it does not have")
    } else if translated && backends.clone().any(other_family) {
        Some("the destination cannot become an address of the other family")
    } else if translated && backends.any(beyond) {
        Some("its ports are more than there are above a backend's port")
    } else {
        None
    }
}

fn fault_of_pool(path: &FastPath, service: &FastService) -> Option<&'static str> {
    let pool = &service.pool;
    let has_ports = |ip: &IpAddr| {
        let here =
            path.services.iter().filter(|s| (s.address, s.protocol) == (*ip, service.protocol));
        here.into_iter().all(|s| s.ports.0 > PORT_FIRST || s.ports.1 < PORT_LAST)
    };
    if pool.is_empty() {
        None
    } else if service.forward != Forward::Nat {
        Some("only what is translated has another source")
    } else if pool.len() > POOL_ADDRESSES_MAX {
        Some("it has too many addresses in place of its clients'")
    } else if pool.iter().collect::<BTreeSet<_>>().len() < pool.len() {
        Some("an address is twice among those in place of its clients'")
    } else if pool.iter().any(|ip| ip.is_ipv4() != service.address.is_ipv4()) {
        Some("the source cannot become an address of the other family")
    } else if !pool.iter().all(has_ports) {
        Some("a service has all ports of an address in place of its clients'")
    } else {
        None
    }
}

/// The keys that lead to a service by its ports.
pub(super) fn keys(service: &Service) -> impl Iterator<Item = u64> {
    let (address, protocol) = (service.address, service.protocol);
    let blocks = blocks(service.first, service.last);
    blocks.into_iter().map(move |(port, size)| key_of(address, port, size, protocol))
}

/// The keys that lead to a backend by its address and ports, where it is translated, and by its name.
pub(super) fn reverse_keys(service: &Service, backend: &Backend) -> impl Iterator<Item = u64> {
    let (address, protocol) = (backend.address, service.protocol);
    let ports = answering(service, backend);
    let blocks = ports.map(|ports| blocks(ports.first(), ports.last())).unwrap_or_default();
    let blocks = blocks.into_iter().map(move |(port, size)| key_of(address, port, size, protocol));
    blocks.chain(apart::key(service, backend))
}

fn is_nobody(backend: &Backend) -> bool {
    IpAddr::from(backend.address).is_unspecified()
}

/// The ports that its answers come from; `None` if it is not translated. An answer to a pool is known by the port
/// that it goes to.
fn answering(service: &Service, backend: &Backend) -> Option<Ports> {
    if service.forward != FORWARD_NAT || service.guard & POOLED != 0 || is_nobody(backend) {
        return None;
    }
    let last = backend.port.saturating_add(service.last - service.first);
    Ports::new(backend.port, last)
}

/// The sizes of blocks that are in use, as bits.
pub(super) fn sizes<'a>(services: impl Iterator<Item = &'a Service>) -> u32 {
    services.flat_map(|s| blocks(s.first, s.last)).fold(0, |sizes, (_, size)| sizes | 1 << size)
}

/// What leads from the ports of translated backends to them.
#[derive(Default)]
pub(super) struct Answers {
    /// By the address, port and protocol of an answer.
    pub(super) entries: Entries,
    /// The sizes of blocks that are in use, as bits.
    pub(super) sizes: u32,
    /// The addresses that answers come from.
    pub(super) sources: BTreeSet<Address>,
}

/// The ports of a backend that are one service's.
struct Claim {
    backend: Address,
    protocol: u8,
    ports: Ports,
    /// What becomes of an answer: it gets this address, and its port goes up by so much.
    becomes: (Address, u16),
    place: u32,
    /// Ports that another service claims, to make something else of them.
    disputed: Vec<Ports>,
}

/// What belongs to two services, and becomes something else in each, is translated for neither.
pub(super) fn answers<'a>(
    placed: impl Iterator<Item = &'a Placed>,
    backend: impl Fn(u32) -> Backend,
) -> Answers {
    let mut answers = Answers::default();
    let mut claims: Vec<Claim> = Vec::new();
    for Placed { service, .. } in placed {
        for place in backends_of(service) {
            let backend = backend(place);
            if service.guard & POOLED != 0 && !is_nobody(&backend) {
                // Its answers are looked at: there is something to find.
                answers.sources.insert(backend.address);
                answers.sizes |= 1;
            }
            answers.entries.extend(apart::key(service, &backend).map(|key| (key, place)));
            claims.extend(claim(service, place, backend));
        }
    }
    claims.sort_unstable_by_key(|c| (c.backend, c.protocol, c.ports));
    dispute(&mut claims);
    for claim in &claims {
        answers.sources.insert(claim.backend);
        for own in claim.ports.without(&claim.disputed) {
            for (port, size) in blocks(own.first(), own.last()) {
                answers.sizes |= 1 << size;
                let key = key_of(claim.backend, port, size, claim.protocol);
                answers.entries.insert(key, claim.place);
            }
        }
    }
    answers
}

fn claim(service: &Service, place: u32, backend: Backend) -> Option<Claim> {
    Some(Claim {
        backend: backend.address,
        protocol: service.protocol,
        ports: answering(service, &backend)?,
        becomes: (service.address, service.first.wrapping_sub(backend.port)),
        place,
        disputed: Vec::new(),
    })
}

/// Of claims that are sorted, only those that have not ended can overlap the next one.
fn dispute(claims: &mut [Claim]) {
    let mut open: Vec<usize> = Vec::new();
    for at in 0..claims.len() {
        let (before, rest) = claims.split_at_mut(at);
        let Some(next) = rest.first_mut() else { return };
        let of = |c: &Claim| (c.backend, c.protocol);
        open.retain(|&at| of(&before[at]) == of(next) && before[at].ports.overlaps(next.ports));
        for &at in &open {
            let other = &mut before[at];
            if other.becomes != next.becomes {
                other.disputed.push(next.ports);
                next.disputed.push(other.ports);
            }
        }
        open.push(at);
    }
}

/// What is known of a checksum in each packet to a backend.
pub(super) fn delta(service: &Service, backend: &Backend) -> u16 {
    let (to, source) = (IpAddr::from(backend.address), IpAddr::from(backend.source));
    match service.forward {
        FORWARD_NAT => address_change(service.address.into(), to),
        FORWARD_TUNNEL | FORWARD_GUE if to.is_ipv4() => outer_sum(source, to),
        _ => 0,
    }
}

/// The backends as they lie in their map, but for the way there and what depends on it.
pub(super) fn backends(service: &FastService, place: u32) -> impl Iterator<Item = Backend> {
    service.backends.iter().enumerate().map(move |(at, backend)| {
        let (ip, port) = (backend.address.ip(), backend.address.port());
        let translated = service.forward == Forward::Nat;
        Backend {
            address: ip.into(),
            service: place,
            port,
            identity: identity(at, backend.address),
            standing: apart::standing(backend.standing),
            server_id: backend.server_id.map_or(0, ServerId::number),
            named: backend.server_id.is_some().into(),
            ports_delta: if translated {
                end_change((service.address, service.ports.0), (ip, port))
            } else {
                0
            },
            ..Backend::default()
        }
    })
}

/// The address that this host asks a translated backend from.
pub(super) fn own(service: &Service, way: Option<Way>) -> Option<Address> {
    match way {
        Some(Way::Via(hop)) if service.forward == FORWARD_NAT => Some(hop.source.into()),
        Some(Way::Via(_) | Way::Local) | None => None,
    }
}

/// A backend as `apply` was given it.
pub(super) fn shown(service: &Service, backend: &Backend) -> FastBackend {
    let ip = IpAddr::from(backend.address);
    let address = match (backend.identity, ip) {
        (0, IpAddr::V4(_)) => SocketAddr::from(([0; 4], 0)),
        (0, IpAddr::V6(_)) => SocketAddr::from(([0; 16], 0)),
        (_, IpAddr::V4(_) | IpAddr::V6(_)) => SocketAddr::new(ip, backend.port),
    };
    let server_id = apart::server_id(service, backend);
    FastBackend { address, standing: apart::standing_of(backend), server_id }
}

/// The places of a service's backends.
pub(super) const fn backends_of(service: &Service) -> std::ops::Range<u32> {
    service.backends_first..service.backends_first.saturating_add(service.backends_count)
}

/// Where a packet goes from here. What is for this host needs no way, whether or not it has the VIP now.
pub(super) fn way_to(service: &Service, to: IpAddr, resolve: Resolve<'_>) -> Option<Way> {
    match service.forward {
        FORWARD_LOCAL => Some(Way::Local),
        _ => resolve(to),
    }
}
