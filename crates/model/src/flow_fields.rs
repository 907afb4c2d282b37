//! What makes connections of a client one: what of its address and port a hash is taken over.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The fields of a packet that the hash is taken over.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FlowFields {
    /// The client's address and port: each connection for itself.
    Connection,
    /// The client's address: all that a client opens goes to one backend.
    Client,
    /// The beginning of the client's address: all clients of a network go to one backend.
    Prefix(Prefixes),
}

/// How many bits of an address count. One constructor: never none, and never all of both kinds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Prefixes {
    v4: u8,
    v6: u8,
}

impl Prefixes {
    /// Of IPv4 and of IPv6; `None`: that is no number of bits.
    pub const fn new(v4: u8, v6: u8) -> Option<Self> {
        if v4 == 0 || v6 == 0 || v4 > 32 || v6 > 128 {
            return None;
        }
        Some(Self { v4, v6 })
    }

    /// Of IPv4.
    pub const fn v4(self) -> u8 {
        self.v4
    }

    /// Of IPv6.
    pub const fn v6(self) -> u8 {
        self.v6
    }
}

impl FlowFields {
    /// With so many bits of the client's address, where fewer than all of them are meant.
    pub const fn of_prefixes(prefixes: Prefixes) -> Self {
        match prefixes {
            Prefixes { v4: 32, v6: 128 } => Self::Client,
            Prefixes { .. } => Self::Prefix(prefixes),
        }
    }

    /// The client as far as it counts.
    pub fn of(self, client: SocketAddr) -> (IpAddr, u16) {
        match self {
            Self::Connection => (client.ip(), client.port()),
            Self::Client => (client.ip(), 0),
            Self::Prefix(prefixes) => (prefixes.of(client.ip()), 0),
        }
    }

    /// The same for clients of this VIP: the bits of the other kind of address do not matter, and are all.
    pub const fn behind(self, vip: IpAddr) -> Self {
        match (self, vip) {
            (Self::Connection | Self::Client, _) => self,
            (Self::Prefix(Prefixes { v4, .. }), IpAddr::V4(_)) => {
                Self::of_prefixes(Prefixes { v4, v6: 128 })
            }
            (Self::Prefix(Prefixes { v6, .. }), IpAddr::V6(_)) => {
                Self::of_prefixes(Prefixes { v4: 32, v6 })
            }
        }
    }

    /// How many bits of an address like this one count.
    pub const fn bits(self, like: IpAddr) -> u8 {
        match (self, like) {
            (Self::Connection | Self::Client, IpAddr::V4(_)) => 32,
            (Self::Connection | Self::Client, IpAddr::V6(_)) => 128,
            (Self::Prefix(prefixes), IpAddr::V4(_)) => prefixes.v4,
            (Self::Prefix(prefixes), IpAddr::V6(_)) => prefixes.v6,
        }
    }
}

impl Prefixes {
    fn of(self, client: IpAddr) -> IpAddr {
        match client.to_canonical() {
            IpAddr::V4(v4) => {
                let mask = u32::MAX << (32 - self.v4);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX << (128 - self.v6);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn what_counts_of_a_client_is_what_its_prefix_leaves() {
        let of = |v4, v6, client: &str| {
            let fields = FlowFields::of_prefixes(Prefixes::new(v4, v6).unwrap());
            let (ip, port) = fields.of(client.parse().unwrap());
            assert_eq!(port, 0);
            ip.to_string()
        };
        assert_eq!(of(24, 64, "10.1.2.3:7"), "10.1.2.0");
        assert_eq!(of(32, 64, "10.1.2.3:7"), "10.1.2.3");
        assert_eq!(of(1, 1, "192.0.2.1:7"), "128.0.0.0");
        assert_eq!(of(24, 64, "[2001:db8:1:2:3::4]:7"), "2001:db8:1:2::");
        assert_eq!(of(24, 65, "[2001:db8:1:2:8000::4]:7"), "2001:db8:1:2:8000::");
        assert_eq!(FlowFields::of_prefixes(Prefixes::new(32, 128).unwrap()), FlowFields::Client);
        for (v4, v6) in [(0, 64), (24, 0), (33, 64), (24, 129)] {
            assert_eq!(Prefixes::new(v4, v6), None);
        }
    }
}
