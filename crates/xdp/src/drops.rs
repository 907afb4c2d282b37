//! Names why the programs of the fast path drop a packet, as `bpf/forward/layout.h` has it.

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
    /// There was no room in the frame's buffer for another header.
    NoRoom = 9,
    /// The service is not there for this client.
    Source = 10,
    /// Its client opens connections too fast.
    Limit = 11,
    /// No port of the pool was free for a flow that begins.
    NoPort = 12,
}

impl Drop {
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

    /// A word for logs and metrics.
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
