//! What becomes of a service in the words of the programs: keys, ports, identities, and what cannot be.

use super::FastError;
use super::tables::{Placed, backends_of};
use buoy_model::{FastPath, FastService, FlowFields, Forward, Protocol};
use buoy_xdp::forward::{
    Address, Backend, FLOW_CLIENT, FLOW_CONNECTION, FORWARD_DSR, FORWARD_NAT, FORWARD_TUNNEL,
    Service, blocks, checksum_change, hash_address, key_of,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

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

/// Forwarding, flow fields, slots and backends.
pub(super) fn kinds(service: &FastService) -> (u8, u8, u32, u32) {
    let forward = match service.forward {
        Forward::Dsr => FORWARD_DSR,
        Forward::Tunnel => FORWARD_TUNNEL,
        Forward::Nat => FORWARD_NAT,
    };
    let flow = match service.flow {
        FlowFields::Connection => FLOW_CONNECTION,
        FlowFields::Client => FLOW_CLIENT,
    };
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    (forward, flow, length(service.slots.len()), length(service.backends.len()))
}

/// Whether all of it can be forwarded.
pub(super) fn check(path: &FastPath) -> Result<(), FastError> {
    let mut keys = BTreeSet::new();
    for service in &path.services {
        let key = Key::from(service);
        let reason = if keys.insert(key) { fault(service) } else { Some("is there twice") };
        if let Some(reason) = reason {
            return Err(FastError::Service { service: key.to_string(), reason });
        }
    }
    Ok(())
}

fn fault(service: &FastService) -> Option<&'static str> {
    let (first, last) = service.ports;
    let count = service.backends.len();
    let names_nobody =
        service.slots.iter().any(|s| usize::from(s.current.max(s.previous)) >= count);
    let translated = service.forward == Forward::Nat;
    let other_family = |b: &SocketAddr| b.is_ipv4() != service.address.is_ipv4();
    let beyond = |b: &SocketAddr| u32::from(b.port()) + u32::from(last - first) > 0xffff;
    let mut backends = service.backends.iter().map(|b| &b.address);
    if first > last {
        Some("its first port is above its last")
    } else if count >= usize::from(u16::MAX) {
        Some("it has too many backends")
    } else if !service.slots.is_empty() && !service.slots.len().is_power_of_two() {
        Some("its slots are not a power of two")
    } else if names_nobody {
        Some("a slot names a backend that it does not have")
    } else if translated && backends.clone().any(other_family) {
        Some("the destination cannot become an address of the other family")
    } else if translated && backends.any(beyond) {
        Some("its ports are more than there are above a backend's port")
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

/// The keys that lead to a backend by its address and ports; none if it is not translated.
pub(super) fn reverse_keys(service: &Service, backend: &Backend) -> impl Iterator<Item = u64> {
    let (address, protocol) = (backend.address, service.protocol);
    let blocks = reverse_blocks(service, backend);
    blocks.into_iter().map(move |(port, size)| key_of(address, port, size, protocol))
}

fn reverse_blocks(service: &Service, backend: &Backend) -> Vec<(u16, u32)> {
    if service.forward != FORWARD_NAT {
        return Vec::new();
    }
    let last = backend.port.saturating_add(service.last - service.first);
    blocks(backend.port, last)
}

/// The sizes of blocks that are in use, as bits.
pub(super) fn sizes<'a>(services: impl Iterator<Item = &'a Service>) -> u32 {
    services.flat_map(|s| blocks(s.first, s.last)).fold(0, |sizes, (_, size)| sizes | 1 << size)
}

/// The same of the ports of backends.
pub(super) fn reverse_sizes<'a>(
    placed: impl Iterator<Item = &'a Placed>,
    backend: impl Fn(u32) -> Backend,
) -> u32 {
    let mut sizes = 0;
    for Placed { service, .. } in placed {
        for place in backends_of(service) {
            for (_, size) in reverse_blocks(service, &backend(place)) {
                sizes |= 1 << size;
            }
        }
    }
    sizes
}

/// The backends as they lie in their map, but for the way there.
pub(super) fn backends(service: &FastService, place: u32) -> Vec<Backend> {
    let mut identities = BTreeSet::new();
    let made = service.backends.iter().map(|backend| {
        let (ip, port) = (backend.address.ip(), backend.address.port());
        let mut identity = identity(ip, port);
        while !identities.insert(identity) {
            identity = identity.wrapping_add(1).max(1);
        }
        let translated = service.forward == Forward::Nat;
        Backend {
            address: ip.into(),
            service: place,
            port,
            identity,
            delta: if translated { checksum_change(service.address, ip) } else { 0 },
            ..Backend::default()
        }
    });
    made.collect()
}

/// The same on every node and in every run; zero stands for nobody.
fn identity(address: IpAddr, port: u16) -> u16 {
    let hash = hash_address(Address::from(address)) ^ u64::from(port).wrapping_mul(0x9e37_79b9);
    let folded = hash ^ hash >> 16 ^ hash >> 32 ^ hash >> 48;
    u16::try_from(folded & 0xffff).unwrap_or(1).max(1)
}
