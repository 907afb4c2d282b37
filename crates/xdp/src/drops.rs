//! Names why the programs of the fast path drop a packet, and whose it was, as `bpf/forward/layout.h` has it.

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u32)]
pub enum Drop {
    /// The frame is shorter than its IP header says.
    Truncated = 0,
    /// Version or lengths in an IP header, or extension headers, make no sense.
    IpHeader = 1,
    /// A TCP header is not whole.
    TcpHeader = 2,
    /// A UDP header is not whole, or its length makes no sense.
    UdpHeader = 3,
    /// An ICMP message is not whole.
    Icmp = 4,
    /// The service has nobody.
    NoBackend = 5,
    /// The Ethernet address of the next hop is not known.
    NoNeighbour = 6,
    /// Larger than the MTU; the sender of a packet to a VIP was told.
    TooBig = 7,
    /// Its time to live was over.
    TimeToLive = 8,
    /// There was no room in the frame's buffer for another header, or it does not fit and is too short to be quoted.
    NoRoom = 9,
    /// The service is not there for this client.
    Source = 10,
    /// Its client opens connections too fast.
    Limit = 11,
    /// No port of the pool was free for a flow that begins.
    NoPort = 12,
}

impl Drop {
    /// A word for metrics and programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::IpHeader => "ip_header",
            Self::TcpHeader => "tcp_header",
            Self::UdpHeader => "udp_header",
            Self::Icmp => "icmp",
            Self::NoBackend => "no_backend",
            Self::NoNeighbour => "no_neighbour",
            Self::TooBig => "too_big",
            Self::TimeToLive => "time_to_live",
            Self::NoRoom => "no_room",
            Self::Source => "source",
            Self::Limit => "limit",
            Self::NoPort => "no_port",
        }
    }

    /// All of them, in their order.
    pub const ALL: [Self; 13] = [
        Self::Truncated,
        Self::IpHeader,
        Self::TcpHeader,
        Self::UdpHeader,
        Self::Icmp,
        Self::NoBackend,
        Self::NoNeighbour,
        Self::TooBig,
        Self::TimeToLive,
        Self::NoRoom,
        Self::Source,
        Self::Limit,
        Self::NoPort,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::IpHeader => "ip header",
            Self::TcpHeader => "tcp header",
            Self::UdpHeader => "udp header",
            Self::Icmp => "icmp",
            Self::NoBackend => "no backend",
            Self::NoNeighbour => "no neighbour",
            Self::TooBig => "too big",
            Self::TimeToLive => "time to live",
            Self::NoRoom => "no room",
            Self::Source => "source",
            Self::Limit => "limit",
            Self::NoPort => "no port",
        }
    }
}

/// Whose a dropped packet was, where that was known: a place in the maps.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Whose {
    /// For a service, and for no backend of it yet.
    Service(u32),
    /// For a backend.
    Backend(u32),
}

/// In a key of the map of such drops: the place is of a service.
const OF_SERVICE: u64 = 1 << 40;
/// The reason is so many bits above the place.
const REASON: u32 = 32;

impl Whose {
    /// The key of what was dropped for this reason.
    pub const fn key(self, reason: Drop) -> u64 {
        let (place, of) = match self {
            Self::Service(place) => (place, OF_SERVICE),
            Self::Backend(place) => (place, 0),
        };
        place as u64 | (reason as u64) << REASON | of
    }

    /// What `key` was made of.
    pub fn of_key(key: u64) -> Option<(Self, Drop)> {
        let [a, b, c, d, reason, ..] = key.to_le_bytes();
        let place = u32::from_le_bytes([a, b, c, d]);
        let whose = if key & OF_SERVICE == 0 { Self::Backend(place) } else { Self::Service(place) };
        let reason = Drop::ALL.into_iter().find(|known| *known as u32 == u32::from(reason))?;
        (whose.key(reason) == key).then_some((whose, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_whose_a_packet_was_and_why_it_was_dropped() {
        for reason in Drop::ALL {
            for whose in [Whose::Service(0), Whose::Backend(7), Whose::Service(u32::MAX - 1)] {
                assert_eq!(Whose::of_key(whose.key(reason)), Some((whose, reason)));
            }
        }
        for key in [13 << 32, 1 << 41, u64::MAX] {
            assert_eq!(Whose::of_key(key), None, "{key:x}");
        }
    }
}
