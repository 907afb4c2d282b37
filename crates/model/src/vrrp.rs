//! Virtual routers: what a host wants of VRRP (RFC 9568, RFC 3768), and what is said in one of its advertisements.

use crate::{LinkId, Mac};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

/// The priority of whoever has the addresses as its own (RFC 9568 §5.2.4).
pub const PRIORITY_OWNER: u8 = 255;

/// The priority that says that the sender stops (RFC 9568 §5.2.4).
pub const PRIORITY_RELEASE: u8 = 0;

/// One virtual router: the addresses of one family of a `[[vip]]`, under one number on one interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VirtualRouter {
    /// The virtual router identifier (VRID), 1 to 255.
    pub id: u8,
    /// Whether its addresses, and so its packets, are IPv6.
    pub v6: bool,
    /// The interface that it speaks on here; `None` where this host has no part in it.
    pub link: Option<LinkId>,
    /// This host's address that it speaks from, which decides between equal priorities.
    pub source: Option<IpAddr>,
    /// Its addresses, as they are said.
    pub addresses: Vec<IpAddr>,
    /// Which version it speaks. Another one is not listened to.
    pub version: VrrpVersion,
    /// What this host says of itself while all is well, 1 to 255.
    pub priority: u8,
    /// Time between two advertisements of its own.
    pub interval: Duration,
    /// Whom it speaks to, address by address; empty: to everybody, by multicast.
    pub peers: Vec<IpAddr>,
    /// Packets that have crossed more hops than this allows are refused: 255 means none.
    pub min_ttl: u8,
    /// What its checksums cover.
    pub checksum: VrrpChecksum,
    /// How others prove who they are.
    pub auth: VrrpAuth,
    /// Whether the active one takes packets for the addresses (Accept_Mode, RFC 9568 §6.1).
    pub accept: bool,
    /// Whether its addresses have a hardware address of their own, which moves with them (RFC 9568 §7.3).
    pub virtual_mac: bool,
}

impl VirtualRouter {
    /// The hardware address that belongs to its number (RFC 9568 §7.3).
    pub const fn mac(&self) -> Mac {
        let family = if self.v6 { 2 } else { 1 };
        Mac([0x00, 0x00, 0x5e, 0x00, family, self.id])
    }

    /// Whether packets for its addresses are this host's: always where the addresses are its own (RFC 9568 §6.4.3).
    pub const fn takes_packets(&self) -> bool {
        self.accept || self.priority == PRIORITY_OWNER
    }

    /// Whether a packet that came in there, about that identifier and from that source, is about this router.
    pub fn is_at(&self, link: LinkId, id: u8, source: IpAddr) -> bool {
        self.id == id && self.link == Some(link) && self.v6 == source.is_ipv6()
    }
}

/// Version of the protocol.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum VrrpVersion {
    /// RFC 3768: IPv4, whole seconds.
    V2,
    /// RFC 9568: IPv4 and IPv6, hundredths of a second.
    V3,
}

/// What the checksum of version 3 over IPv4 covers. The others have one form only.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum VrrpChecksum {
    /// Both are accepted; the form of the peers is sent where all of them use `Message`.
    #[default]
    Auto,
    /// With a pseudo-header, as keepalived and FRR do.
    PseudoHeader,
    /// The message alone (RFC 9568 §5.2.8), as Cisco and Juniper do.
    Message,
}

/// How speakers prove who they are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum VrrpAuth {
    /// Not at all: whoever is on the segment is believed.
    #[default]
    None,
    /// Version 2: a word that everybody on the segment can read (RFC 2338 §5.3.6.1). It keeps
    /// apart what was configured apart by mistake, and nobody out.
    Password(Password),
    /// A trailer with an HMAC-SHA256.
    Hmac(VrrpHmac),
}

/// Eight bytes, padded with zeros.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Password(pub [u8; 8]);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Which trailers are sent and asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VrrpHmac {
    /// Every one is believed; the first one signs.
    pub keys: Vec<VrrpKey>,
    /// What is done with what has none.
    pub mode: HmacMode,
    /// How far the clock of a speaker may lie from ours.
    pub window: Duration,
}

/// A key of the trailer.
#[derive(Clone, Eq, PartialEq)]
pub struct VrrpKey {
    /// The number that names it in a trailer.
    pub id: u8,
    /// 32 to 64 bytes.
    pub secret: Vec<u8>,
}

impl fmt::Debug for VrrpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VrrpKey({}, ..)", self.id)
    }
}

/// The three steps from none to authentication everywhere, one host at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HmacMode {
    /// Signs nothing; whatever is signed must be signed right.
    ReceiveOnly,
    /// Signs; what is not signed is believed.
    Permissive,
    /// Signs; what is not signed is refused.
    Enforce,
}

impl VrrpHmac {
    /// The key that signs here, if anything does.
    pub fn signs(&self) -> Option<&VrrpKey> {
        match self.mode {
            HmacMode::ReceiveOnly => None,
            HmacMode::Permissive | HmacMode::Enforce => self.keys.first(),
        }
    }
}

/// An advertisement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Advert {
    /// Version of the protocol.
    pub version: VrrpVersion,
    /// The virtual router.
    pub id: u8,
    /// How much its sender wants to be the one; 0: it stops.
    pub priority: u8,
    /// Time between two of its advertisements; zero is possible, and nothing to follow.
    pub interval: Duration,
    /// The addresses, in the sender's order.
    pub addresses: Vec<IpAddr>,
    /// The checksum was that of the message alone.
    pub plain_checksum: bool,
    /// What it carries as a proof.
    pub proof: Proof,
}

/// A packet of protocol 112 as it came in: what its IP header says, and what is in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeardAdvert {
    /// The interface.
    pub link: LinkId,
    /// Where it says that it comes from.
    pub source: IpAddr,
    /// It was sent to everybody.
    pub multicast: bool,
    /// Its TTL or hop limit.
    pub ttl: u8,
    /// The virtual router that it says it is about.
    pub id: u8,
    /// What it says, or why it says nothing.
    pub advert: Result<Advert, AdvertReject>,
    /// How far the clock of its trailer is from ours; zero without a trailer.
    pub clock_apart: Duration,
}

/// What an advertisement carries to prove who sent it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Proof {
    /// Nothing.
    None,
    /// The word of version 2.
    Password(Password),
    /// A trailer that one of the keys made; when it was made, on the sender's clock, with its place within that moment.
    Signed(Stamp),
    /// A trailer that none of the keys made.
    Forged,
    /// Something of another type.
    Unknown(u8),
}

/// When a trailer was made; no two of one speaker are alike.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Stamp {
    /// Seconds of UTC since 1970, modulo 2^32.
    pub seconds: u32,
    /// 1/65536 s.
    pub fraction: u16,
    /// Counts within that.
    pub counter: u16,
}

impl Stamp {
    /// Its place among all others.
    pub const fn position(self) -> u64 {
        (self.seconds as u64) << 32 | (self.fraction as u64) << 16 | self.counter as u64
    }
}

/// Why an advertisement is not listened to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum AdvertReject {
    /// Shorter than it says.
    Truncated,
    /// Not an advertisement.
    Kind,
    /// Another version than the one that is spoken here.
    Version,
    /// Names no address.
    NoAddress,
    /// The sum is wrong.
    Checksum,
    /// It has crossed too many hops.
    Ttl,
    /// It was sent to everybody and this router speaks to its peers, or the other way round.
    Destination,
    /// It comes from none of the peers.
    Stranger,
    /// An interval of zero; in version 2, another one than ours.
    Interval,
    /// A password that is missing, wrong or not asked for.
    Password,
    /// A trailer is missing where it must be there.
    Unsigned,
    /// A trailer that none of our keys made.
    Forged,
    /// A trailer that was heard already, or is from another time.
    Replayed,
    /// It says that it is from this host.
    Ourselves,
}

impl AdvertReject {
    /// All, in the order in which they are looked for.
    pub const ALL: [Self; 14] = [
        Self::Ttl,
        Self::Truncated,
        Self::Version,
        Self::Kind,
        Self::Checksum,
        Self::NoAddress,
        Self::Destination,
        Self::Stranger,
        Self::Ourselves,
        Self::Password,
        Self::Forged,
        Self::Unsigned,
        Self::Replayed,
        Self::Interval,
    ];

    /// A word for it, in metrics and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Kind => "type",
            Self::Version => "version",
            Self::NoAddress => "no_address",
            Self::Checksum => "checksum",
            Self::Ttl => "ttl",
            Self::Destination => "destination",
            Self::Stranger => "stranger",
            Self::Interval => "interval",
            Self::Password => "password",
            Self::Unsigned => "unsigned",
            Self::Forged => "forged",
            Self::Replayed => "replayed",
            Self::Ourselves => "ourselves",
        }
    }

    /// A clause for people, after "it".
    pub const fn clause(self) -> &'static str {
        match self {
            Self::Truncated => "is shorter than it says",
            Self::Kind => "is no advertisement",
            Self::Version => "is of another version than `version` says",
            Self::NoAddress => "names no address",
            Self::Checksum => "has a wrong checksum",
            Self::Ttl => "comes from further away than `min_ttl` allows",
            Self::Destination => "is multicast where `peers` are named, or the other way round",
            Self::Stranger => "comes from none of the `peers`",
            Self::Interval => "has an interval of 0, or (version 2) another one than ours",
            Self::Password => "has another password",
            Self::Unsigned => "is not signed, and mode = \"enforce\" asks for it",
            Self::Forged => "is signed with none of our keys",
            Self::Replayed => "was heard before, or its sender's clock is wrong",
            Self::Ourselves => "says that it comes from this host",
        }
    }
}

/// A label for people: `VRID 51 (IPv6)`.
pub fn router_label(id: u8, v6: bool) -> String {
    if v6 { alloc::format!("VRID {id} (IPv6)") } else { alloc::format!("VRID {id}") }
}
