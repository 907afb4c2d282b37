//! The services that packets are for, and the packets themselves.
//!
//! All services have the same hundred backends with weight 1, as the addresses and ports of one pool of servers
//! have, and so the one table that Maglev makes of them. They are all said to be behind one interface.

use crate::{Error, Result};
use buoy_core::balance::shares;
use buoy_core::maglev::Table;
use buoy_kernel::fast::{NextHop, Way};
use buoy_model::{
    Backend, FastBackend, FastPath, FastService, FlowFields, Forward, LinkId, Mac, Protocol, Slot,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Backends of all services.
pub(super) const BACKENDS: u32 = 100;
/// Of the hash over a flow.
pub(super) const SEED: u64 = 0x0123_4567_89ab_cdef;
/// Of the interface.
pub(super) const OWN_MAC: Mac = Mac([2, 1, 0, 0, 0, 1]);
const CLIENT_MAC: Mac = Mac([2, 0, 0x5e, 0, 0, 9]);
const MTU: u16 = 1500;
const PORT: u16 = 80;
/// The port of a translated backend.
const BACKEND_PORT: u16 = 8080;
/// Where tunnels of UDP packets end.
pub(super) const GUE_PORT: u16 = 6080;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// What kind of services there are, and how many.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct World {
    pub(super) forward: How,
    pub(super) family: Family,
    pub(super) services: u32,
    /// Every slot changes hands: its backend of before is the next one.
    pub(super) in_change: bool,
}

/// How packets get to a backend, as the words of the configuration say it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum How {
    Dsr,
    Tunnel,
    Nat,
    /// A tunnel of UDP packets.
    Gue,
    /// To nobody: the packet is left to this host.
    Local,
}

impl How {
    pub(super) const ALL: [Self; 5] = [Self::Dsr, Self::Tunnel, Self::Nat, Self::Gue, Self::Local];
    /// Those that goals are about.
    pub(super) const MAIN: [Self; 3] = [Self::Dsr, Self::Tunnel, Self::Nat];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Dsr => "dsr",
            Self::Tunnel => "tunnel",
            Self::Nat => "nat",
            Self::Gue => "gue",
            Self::Local => "local",
        }
    }

    const fn forward(self) -> Forward {
        match self {
            Self::Dsr => Forward::Dsr,
            Self::Tunnel => Forward::Tunnel,
            Self::Nat => Forward::Nat,
            Self::Gue => Forward::Gue { port: GUE_PORT },
            Self::Local => Forward::Local,
        }
    }
}

impl World {
    /// One service.
    pub(super) const fn one(forward: How, family: Family) -> Self {
        Self { forward, family, services: 1, in_change: false }
    }

    /// All of it.
    pub(super) fn path(self) -> Result<FastPath> {
        let backends = self.backends();
        let table = Table::new(&backends, &shares(&backends, &[]));
        let table =
            table.ok_or_else(|| Error::Unknown { what: "table without backends".to_owned() })?;
        let count = backends.len() as u16;
        let slot = |&current: &u16| Slot {
            current,
            previous: if self.in_change { (current + 1) % count } else { current },
        };
        let slots: Arc<[Slot]> = table.slots().iter().map(slot).collect();
        let told: Arc<[FastBackend]> =
            backends.iter().map(|b| FastBackend::new(b.address)).collect();
        let service = |number| {
            let address = vip(self.family, number);
            FastService {
                address: address.ip(),
                protocol: Protocol::Tcp,
                ports: (address.port(), address.port()),
                forward: self.forward.forward(),
                flow: FlowFields::Connection,
                stick: None,
                quic: None,
                sources: Arc::default(),
                new_connections: None,
                pool: Arc::default(),
                backends: Arc::clone(&told),
                slots: Arc::clone(&slots),
            }
        };
        let mut services: Vec<_> = (0..self.services).map(service).collect();
        services.sort_by_key(|s| (s.address, s.protocol, s.ports));
        Ok(FastPath { seed: SEED, services })
    }

    /// The servers of all services; of one that is left to this host, the VIP itself.
    pub(super) fn backends(self) -> Vec<Backend> {
        if self.forward == How::Local {
            let address = vip(self.family, 0);
            return vec![Backend::new(&address.to_string(), address)];
        }
        let backend = |at| {
            let address = SocketAddr::new(backend(self.family, at), BACKEND_PORT);
            Backend::new(&address.to_string(), address)
        };
        (0..BACKENDS).map(backend).collect()
    }
}

/// Where a service is: a thousand on the first port of as many addresses, then the next port.
pub(super) fn vip(family: Family, number: u32) -> SocketAddr {
    let (above, port) = (number % 1000, PORT + (number / 1000) as u16);
    let ip: IpAddr = match family {
        Family::V4 => Ipv4Addr::from_bits(Ipv4Addr::new(10, 200, 0, 0).to_bits() + above).into(),
        Family::V6 => Ipv6Addr::from_bits(
            Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0).to_bits() + u128::from(above),
        )
        .into(),
    };
    SocketAddr::new(ip, port)
}

/// The address of a backend.
pub(super) fn backend(family: Family, number: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(Ipv4Addr::new(11, 0, 0, 0).to_bits() + number).into(),
        Family::V6 => {
            let net = Ipv6Addr::new(0xfd11, 0, 0, 0, 0, 0, 0, 0).to_bits();
            Ipv6Addr::from_bits(net + u128::from(number)).into()
        }
    }
}

/// The number of a backend, if the address is one's.
pub(super) fn backend_number(address: IpAddr) -> Option<u32> {
    let (above, net) = match address {
        IpAddr::V4(v4) => {
            (u128::from(v4.to_bits()), u128::from(Ipv4Addr::new(11, 0, 0, 0).to_bits()))
        }
        IpAddr::V6(v6) => (v6.to_bits(), Ipv6Addr::new(0xfd11, 0, 0, 0, 0, 0, 0, 0).to_bits()),
    };
    above.checked_sub(net).and_then(|n| u32::try_from(n).ok())
}

/// Its Ethernet address.
pub(super) fn mac_of(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac([2, 0x10, a, b, c, d])
}

/// The first client.
pub(super) fn client(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(100, 64, 0, 0).into(),
        Family::V6 => Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, 0).into(),
    }
}

/// This host.
pub(super) fn own(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 200, 255, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 1, 1).into(),
    }
}

/// All backends are neighbours on that interface, and the first VIP is this host's.
pub(super) fn way(link: LinkId, link_mac: Mac, to: IpAddr) -> Option<Way> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    if to == vip(family, 0).ip() {
        return Some(Way::Local);
    }
    let source = own(family);
    let mac = backend_number(to).map(mac_of);
    Some(Way::Via(NextHop { link, link_mac, mtu: MTU, mac, source, is_gateway: false }))
}

pub(super) const SYN: u8 = 0x02;
pub(super) const ACK: u8 = 0x10;

/// The first packet of the first client to that address.
pub(super) fn frame(to: SocketAddr, flags: u8) -> Vec<u8> {
    let mut frame = [OWN_MAC.0, CLIENT_MAC.0].concat();
    let mut tcp = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0x12, 0x34, 0, 0];
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    match to.ip() {
        IpAddr::V4(vip) => {
            frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
            if let IpAddr::V4(client) = client(Family::V4) {
                frame.extend(client.octets());
            }
            frame.extend(vip.octets());
            frame.extend(tcp);
            frame.resize(64, 0);
        }
        IpAddr::V6(vip) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
            if let IpAddr::V6(client) = client(Family::V6) {
                frame.extend(client.octets());
            }
            frame.extend(vip.octets());
            frame.extend(tcp);
            frame.resize(80, 0);
        }
    }
    frame
}
