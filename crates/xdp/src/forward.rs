//! The programs of the fast path as an object file, the layout of their maps, and the hashes by which
//! they find something there.
//!
//! User space has the maps in its memory as 64-bit words and the programs read them meanwhile, so all
//! layouts are made of such words. The same layouts are in `bpf/forward/layout.h`.

pub use crate::drops::{Drop, Whose};
use crate::pool::{OUTLETS, POOLED_PORTS, POOLS, PORTS};
use crate::watch::{CAPTURE, SEEN, WATCH};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Object file of the fast path; 8-byte aligned, as ELF readers want it.
pub static FORWARD: &[u8] = &ALIGNED.bytes;

const LENGTH: usize = include_bytes!("../prebuilt/forward.bpf.o").len();
static ALIGNED: crate::Aligned<LENGTH> =
    crate::Aligned { bytes: *include_bytes!("../prebuilt/forward.bpf.o") };

/// Another number says that maps of an earlier run lie otherwise and cannot be taken over.
pub const LAYOUT: u32 = 9;

/// The program that is attached to interfaces.
pub const PROGRAM: &str = "fast_forward";
/// The programs that it goes on to, by their place in [`PROGRAMS_MAP`].
pub const NEXT_PROGRAMS: [&str; 11] = [
    "fast_rare_ipv4",
    "fast_rare_ipv6",
    "fast_reverse_way",
    "fast_watched",
    "fast_record",
    "fast_limit",
    "fast_pooled_ipv4",
    "fast_pooled_ipv6",
    "fast_tagged",
    "fast_apart_ipv4",
    "fast_apart_ipv6",
];
/// The place of the one after them, which is part of the gate ([`crate::GATE_ANSWER`]).
pub const ANSWER_PLACE: u32 = 11;
/// The array of programs.
pub const PROGRAMS_MAP: &str = "fast_programs";

/// Name of the array of one [`Settings`].
pub const SETTINGS: &str = "fast_settings";
/// Name of the array of buckets that lead to services.
pub const BUCKETS: &str = "fast_buckets";
/// Name of the array of buckets that lead from the address and port of a translated backend to it.
pub const REVERSE: &str = "fast_reverse";
/// Name of the array of [`Service`].
pub const SERVICES: &str = "fast_services";
/// Name of the array of lines of [`SLOTS_IN_LINE`] slots.
pub const SLOTS: &str = "fast_slots";
/// Name of the array of [`Backend`].
pub const BACKENDS: &str = "fast_backends";
/// Name of the array of buckets of flows that were opened while their slot changed hands.
pub const EXCEPTIONS: &str = "fast_except";
/// Name of the array of buckets of datagrams that come in pieces.
pub const FRAGMENTS: &str = "fast_fragments";
/// Name of the array of buckets of clients of services that have a limit.
pub const LIMITS: &str = "fast_limits";
/// Name of the array of buckets of clients of services that give them the same backend again.
pub const CLIENTS: &str = "fast_clients";
/// Name of the trie of prefixes of clients, by [`source_key`].
pub const SOURCES: &str = "fast_sources";
/// Name of the set of VLANs that the host has interfaces for, by [`vlan_key`].
pub const VLANS: &str = "fast_vlans";
/// Name of the per-CPU array of [`Tally`], one for each backend.
pub const TALLIES: &str = "fast_tallies";
/// Name of the per-CPU array of dropped packets, by [`Drop`].
pub const DROPS: &str = "fast_drops";

/// Name of the per-CPU map of packets that a service or a backend did not get, by [`Whose::key`].
pub const LOST: &str = "fast_lost";

/// All maps, but for the array of programs.
pub const MAPS: [&str; 22] = [
    SETTINGS,
    BUCKETS,
    REVERSE,
    SERVICES,
    SLOTS,
    BACKENDS,
    EXCEPTIONS,
    FRAGMENTS,
    LIMITS,
    CLIENTS,
    SOURCES,
    VLANS,
    OUTLETS,
    POOLS,
    PORTS,
    POOLED_PORTS,
    TALLIES,
    DROPS,
    LOST,
    WATCH,
    SEEN,
    CAPTURE,
];

/// Entries of one bucket.
pub const BUCKET_WAYS: usize = 8;
/// Buckets that are looked at, from the one that the hash says.
pub const BUCKET_PROBES: u32 = 4;
/// Slots of one line.
pub const SLOTS_IN_LINE: u32 = 16;
/// Words of a bitmap of addresses.
pub const BITMAP_WORDS: usize = 512;
/// Links that backends can be behind; the first place is none.
pub const LINKS_MAX: usize = 256;
/// Buckets of remembered flows.
pub const EXCEPTIONS_MAX: u32 = 65_536;
/// Entries of [`LOST`], however many backends there are, at least and at most.
pub const LOST_MIN: u32 = 4096;
/// See [`LOST_MIN`].
pub const LOST_MAX: u32 = 1 << 18;
/// Entries of the trie of clients, of all lists together.
pub const SOURCES_MAX: u32 = 65_536;
/// In a value of that trie: they are let in.
pub const SOURCE_ALLOWED: u32 = 1;
/// In a value of that trie, for this side alone: nobody wrote it, and it says what holds for all others.
pub const SOURCE_OTHERS: u32 = 2;
/// Bits of a place in [`Settings::exact_ipv4`] and [`Settings::exact_ipv6`].
pub(crate) const EXACT_BITS: u32 = 14;
/// Entries of each.
pub const EXACT_MAX: usize = 1 << EXACT_BITS;
/// Blocks of ports are of 2^0 to 2^16.
pub const PORT_SIZES: u32 = 16;
/// In the high half of [`Settings::tick`]: some flows have a port of a pool in place of their client's.
pub const HAS_POOLS: u64 = 8;
/// In [`Backend::next_hop`]: the backend is this host.
pub const NEXT_HOP_LOCAL: u64 = 1;

/// How packets get to a backend, in [`Service::forward`].
pub const FORWARD_DSR: u8 = 0;
/// In an IP packet.
pub const FORWARD_TUNNEL: u8 = 1;
/// With another destination.
pub const FORWARD_NAT: u8 = 2;
/// In a UDP packet.
pub const FORWARD_GUE: u8 = 3;
/// To this host itself: the next hop is always [`NEXT_HOP_LOCAL`].
pub const FORWARD_LOCAL: u8 = 4;
/// What the hash is taken over, in [`Service::flow`]: address and port of the client.
pub const FLOW_CONNECTION: u8 = 0;
/// Only the address: so many of its bits, of which IPv4 has 96 before its own.
pub const FLOW_CLIENT: u8 = 128;

/// Seconds after which the place of a remembered flow that was silent may be taken by another; the same
/// as `IDLE_TICKS` in bpf/forward/choose.h.
pub const REMEMBERED_SECONDS: u64 = 300;
/// What goes out where it came in is redirected there: an interface is a veth.
pub const BACK_BY_REDIRECT: u64 = 1;
/// In [`Link::index`], while that is so: no frame seems to have come in there.
pub const BY_REDIRECT: u64 = 1 << 32;
/// Some service is [`LIMITED`].
pub const HAS_LIMITS: u64 = 4;
/// In [`Service::guard`]: clients may not open connections as often as they like.
pub const LIMITED: u32 = 1 << 31;
/// Too: backends see addresses of [`crate::pool::Outlets`] in place of the client's.
pub const POOLED: u32 = 1 << 30;
/// What [`Service::limit_interval`] is counted in is so many bits longer than a nanosecond.
pub const LIMIT_UNIT: u32 = 8;
/// Too: more than a slot decides who gets a packet (`bpf/forward/apart.h`).
pub const APART: u32 = 1 << 29;
/// What [`Service::stick`] is counted in is so many bits longer than a second.
pub const CLIENT_UNIT: u32 = 2;
/// In [`Backend::standing`]: it gets nothing but what its slots give it.
pub const STANDING_DOWN: u16 = 0;
/// It keeps the connections that it has.
pub const STANDING_KEEPS: u16 = 1;
/// Clients that had it get it again.
pub const STANDING_UP: u16 = 2;
/// Addresses of this host that it asks backends from, at most.
pub const OWN_MAX: usize = 8;
/// Backends that slots and remembered flows can name.
pub const PLACES_MAX: usize = 256;

/// An address as two words in the order of memory; IPv4 as `::ffff:a.b.c.d`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Address {
    /// The first eight bytes.
    pub high: u64,
    /// The last eight.
    pub low: u64,
}

/// What holds for all packets.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Of the hash over a flow.
    pub seed: u64,
    /// Buckets in use less one, for services and in the high half for backends.
    pub masks: u64,
    /// Sizes of blocks of ports in use, for services and in the high half for backends.
    pub sizes: u64,
    /// Seconds that this side counts, and in the high half [`BACK_BY_REDIRECT`], [`HAS_LIMITS`] and [`HAS_POOLS`],
    /// or nothing.
    pub tick: u64,
    /// Over the hash of an address: zero says that it is no VIP.
    pub vips: [u64; BITMAP_WORDS],
    /// The same for backends whose answers are translated.
    pub sources: [u64; BITMAP_WORDS],
    /// The addresses that this host asks backends from.
    pub own: [Address; OWN_MAX],
    /// The interfaces that packets leave by; the first is none.
    pub links: [Link; LINKS_MAX],
    /// By [`crate::exact::Exact::place`], the key and the way.
    pub exact_ipv4: [[u64; 2]; EXACT_MAX],
    /// The same, whose key is three words.
    pub exact_ipv6: [[u64; 4]; EXACT_MAX],
}

/// A service: written before anything leads to it, and not changed afterwards.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Service {
    /// The VIP.
    pub address: Address,
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
    /// As in the IP header.
    pub protocol: u8,
    /// One of `FORWARD_*`.
    pub forward: u8,
    /// One of `FLOW_*`.
    pub flow: u8,
    /// What names its servers, see [`quic`]; zero: nothing.
    pub quic: u8,
    /// Its first slot, a multiple of [`SLOTS_IN_LINE`].
    pub slots_first: u32,
    /// A power of two, or zero.
    pub slots_count: u32,
    /// Its first backend.
    pub backends_first: u32,
    /// How many it has.
    pub backends_count: u32,
    /// The list of whom it is there for, [`LIMITED`] and [`POOLED`]; zero: everybody, as often as they like, and
    /// backends see the client's own address.
    pub guard: u32,
    /// How many connections a client may open at once.
    pub limit_burst: u32,
    /// Until it may open one more, in units of [`LIMIT_UNIT`].
    pub limit_interval: u64,
    /// How many it may open in a time, for this side alone: which time is in the two highest bits.
    pub limit_number: u32,
    /// The UDP port that [`FORWARD_GUE`] sends to, in the order of the network.
    pub gue_port: u16,
    /// For how long a silent client gets the same backend, in units of [`CLIENT_UNIT`]; zero: it does not.
    pub stick: u16,
}

/// One backend of one service. Only the next hop changes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backend {
    /// [`next_hop`], [`NEXT_HOP_LOCAL`], or zero: not known.
    pub next_hop: u64,
    /// Its address.
    pub address: Address,
    /// The source of the outer header.
    pub source: Address,
    /// The place of its service.
    pub service: u32,
    /// What the first port of the service becomes.
    pub port: u16,
    /// What remembered flows call it, see [`identity`]; zero: nobody is here now.
    pub identity: u16,
    /// What its address adds to a checksum in place of the VIP; of tunnels, [`crate::checksum::outer_sum`].
    pub delta: u16,
    /// One of `STANDING_*`.
    pub standing: u16,
    /// Whether `server_id` is a name, for this side alone: one or zero.
    pub named: u16,
    /// What its address and port add to a checksum, where a service of one port is translated.
    pub ports_delta: u16,
    /// What connection ids call it, where the service has [`Service::quic`].
    pub server_id: u64,
}

/// An interface that packets leave by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Link {
    /// [`hardware`]: its Ethernet address, and its MTU above.
    pub mac: u64,
    /// Its index, and [`BY_REDIRECT`].
    pub index: u64,
}

/// What was forwarded to a backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Bytes of them, from the IP header on.
    pub bytes: u64,
    /// TCP connections that were opened.
    pub flows: u64,
    /// Those that were not, for the rate of their client: of a whole service, at its first backend.
    pub refused: u64,
    /// Datagrams whose connection id named nobody here: of a whole service, likewise.
    pub unnamed: u64,
}

// The same sizes are asserted in bpf/forward/layout.h.
const _: () = assert!(
    size_of::<Settings>()
        == 32 + 2 * 8 * BITMAP_WORDS + 16 * (OWN_MAX + LINKS_MAX) + (16 + 32) * EXACT_MAX
);
const _: () = assert!(size_of::<Service>() == 64);
const _: () = assert!(size_of::<Backend>() == 64);
const _: () = assert!(size_of::<Link>() == 16);
const _: () = assert!(size_of::<Tally>() == 40);
const _: () = assert!(Drop::ALL.len() == Drop::NoPort as usize + 1);
const _: () = assert!(ANSWER_PLACE as usize == NEXT_PROGRAMS.len());
// The committed objects are for this order of bytes, and so are the words here.
const _: () = assert!(cfg!(target_endian = "little"));

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let v6 = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let bits = u128::from_le_bytes(v6.octets());
        Self { high: low_half(bits), low: low_half(bits >> 64) }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        let bits = u128::from(address.low) << 64 | u128::from(address.high);
        Self::V6(Ipv6Addr::from(bits.to_le_bytes())).to_canonical()
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is meant")]
const fn low_half(bits: u128) -> u64 {
    bits as u64
}

impl Service {
    /// As it lies in its map.
    pub fn to_words(&self) -> [u64; 8] {
        let ports = u64::from(self.first) | u64::from(self.last) << 16;
        let kinds = u64::from(self.protocol)
            | u64::from(self.forward) << 8
            | u64::from(self.flow) << 16
            | u64::from(self.quic) << 24;
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [
            self.address.high,
            self.address.low,
            ports | kinds << 32,
            pair(self.slots_first, self.slots_count),
            pair(self.backends_first, self.backends_count),
            pair(self.guard, self.limit_burst),
            self.limit_interval,
            pair(self.limit_number, u32::from(self.gue_port) | u32::from(self.stick) << 16),
        ]
    }

    /// What `to_words` gave.
    pub fn from_words(words: [u64; 8]) -> Self {
        let [high, low, kinds, slots, backends, guard, limit_interval, limit_number] = words;
        let [f0, f1, l0, l1, protocol, forward, flow, quic] = kinds.to_le_bytes();
        let (slots_first, slots_count) = halves(slots);
        let (backends_first, backends_count) = halves(backends);
        let (guard, limit_burst) = halves(guard);
        let (limit_number, rest) = halves(limit_number);
        let [g0, g1, s0, s1] = rest.to_le_bytes();
        Self {
            address: Address { high, low },
            first: u16::from_le_bytes([f0, f1]),
            last: u16::from_le_bytes([l0, l1]),
            protocol,
            forward,
            flow,
            quic,
            slots_first,
            slots_count,
            backends_first,
            backends_count,
            guard,
            limit_burst,
            limit_interval,
            limit_number,
            gue_port: u16::from_le_bytes([g0, g1]),
            stick: u16::from_le_bytes([s0, s1]),
        }
    }
}

impl Backend {
    /// As it lies in its map.
    pub fn to_words(&self) -> [u64; 8] {
        let facts =
            u64::from(self.service) | u64::from(self.port) << 32 | u64::from(self.identity) << 48;
        let (address, source) = (self.address, self.source);
        let delta = u64::from(self.delta)
            | u64::from(self.standing) << 16
            | u64::from(self.named) << 32
            | u64::from(self.ports_delta) << 48;
        let server_id = self.server_id;
        [self.next_hop, address.high, address.low, source.high, source.low, facts, delta, server_id]
    }

    /// What `to_words` gave.
    pub fn from_words(words: [u64; 8]) -> Self {
        let [next_hop, high, low, source_high, source_low, facts, delta, server_id] = words;
        let [s0, s1, s2, s3, p0, p1, i0, i1] = facts.to_le_bytes();
        let [d0, d1, u0, u1, n0, n1, p2, p3] = delta.to_le_bytes();
        Self {
            next_hop,
            address: Address { high, low },
            source: Address { high: source_high, low: source_low },
            service: u32::from_le_bytes([s0, s1, s2, s3]),
            port: u16::from_le_bytes([p0, p1]),
            identity: u16::from_le_bytes([i0, i1]),
            delta: u16::from_le_bytes([d0, d1]),
            standing: u16::from_le_bytes([u0, u1]),
            named: u16::from_le_bytes([n0, n1]),
            ports_delta: u16::from_le_bytes([p2, p3]),
            server_id,
        }
    }
}

/// The low and the high half of a word.
pub fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// A next hop as it lies in a backend: an Ethernet address behind the link of this place.
pub fn next_hop(mac: [u8; 6], link: u16) -> u64 {
    hardware(mac, link)
}

/// An Ethernet address with 16 bits above it; in a link, its MTU.
pub fn hardware(mac: [u8; 6], above: u16) -> u64 {
    let [a, b, c, d, e, f] = mac;
    let [g, h] = above.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

pub(crate) const MIX_A: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX_B: u64 = 0xbf58_476d_1ce4_e5b9;
pub(crate) const MIX_C: u64 = 0x94d0_49bb_1331_11eb;
const KEY_ADDRESS: u64 = 1 << 36;
const KEY_SERVER: u64 = 1 << 38;

pub(crate) const fn spread(value: u64) -> u64 {
    value ^ value >> 32
}

/// The hash of an address, for bitmaps and keys.
pub const fn hash_address(address: Address) -> u64 {
    if address.high == 0 && address.low & 0xffff_ffff == 0xffff_0000 {
        return spread((address.low >> 32).wrapping_mul(MIX_B));
    }
    let high = spread(address.high.wrapping_mul(MIX_A));
    spread(spread(high ^ address.low).wrapping_mul(MIX_B))
}

/// The word and the bit in it where a bitmap says something of an address.
pub fn bit_of(address: Address) -> (usize, u64) {
    let hash = hash_address(address);
    let word = usize::try_from(hash >> 26).unwrap_or(0) & (BITMAP_WORDS - 1);
    (word, 1 << (hash >> 20 & 63))
}

/// The key of the block of 2^size ports that begins with this one.
pub fn key_of(address: Address, port: u16, size: u32, protocol: u8) -> u64 {
    let what = u64::from(port) | u64::from(size) << 16 | u64::from(protocol) << 24;
    spread((hash_address(address) ^ what).wrapping_mul(MIX_C))
}

/// The key that says only that an address is a VIP.
pub const fn key_of_vip(address: Address) -> u64 {
    spread((hash_address(address) ^ KEY_ADDRESS).wrapping_mul(MIX_C))
}

/// The key that leads from what connection ids call a server of a service to it.
pub const fn key_of_server(vip: Address, first: u16, number: u64) -> u64 {
    let service = spread((hash_address(vip) ^ KEY_SERVER ^ first as u64).wrapping_mul(MIX_A));
    spread((service ^ number).wrapping_mul(MIX_C))
}

/// What names the servers of a service: ids of so many bytes, after these bits.
pub const fn quic(length: u8, config: u8) -> u8 {
    length & 15 | config << 4
}

/// The hash of a flow, whose low bits are its slot; the port is the client's, or zero.
pub fn hash_flow(seed: u64, client: IpAddr, port: u16) -> u64 {
    let address = Address::from(client);
    // As it lies in the header.
    let port = u64::from(port.to_be());
    match client {
        IpAddr::V4(_) => {
            spread(spread((address.low ^ port ^ seed).wrapping_mul(MIX_B)).wrapping_mul(MIX_C))
        }
        IpAddr::V6(_) => {
            let high = spread((address.high ^ seed).wrapping_mul(MIX_A));
            let both = spread((address.low ^ high).wrapping_mul(MIX_B));
            spread((both ^ port).wrapping_mul(MIX_C))
        }
    }
}

/// What remembered flows call the backend at this place: the place, and a check of who it is above; 0 for
/// an address that is nobody's.
pub fn identity(place: usize, backend: SocketAddr) -> u16 {
    debug_assert!(place < PLACES_MAX);
    if backend.ip().is_unspecified() {
        return 0;
    }
    let who = hash_address(Address::from(backend.ip()));
    let hash = spread((who ^ u64::from(backend.port())).wrapping_mul(MIX_C));
    let [.., check] = hash.to_le_bytes();
    let [place, ..] = place.to_le_bytes();
    u16::from_le_bytes([place, check.max(1)])
}

/// The blocks of 2^n ports that make up a range, as their first port and n.
pub fn blocks(first: u16, last: u16) -> Vec<(u16, u32)> {
    let (mut at, end) = (u32::from(first), u32::from(last) + 1);
    let mut blocks = Vec::new();
    while at < end {
        let aligned = if at == 0 { PORT_SIZES } else { at.trailing_zeros() };
        let fitting = (end - at).ilog2();
        let size = aligned.min(fitting);
        blocks.extend(u16::try_from(at).ok().map(|port| (port, size)));
        at += 1 << size;
    }
    blocks
}

/// A prefix of clients in a list, as the trie has it behind the number of bits that count: the list, then the
/// address in the order of the network.
pub fn source_key(list: u32, address: IpAddr) -> [u8; 20] {
    let Address { high, low } = address.into();
    let mut key = [0; 20];
    key[..4].copy_from_slice(&list.to_le_bytes());
    key[4..12].copy_from_slice(&high.to_le_bytes());
    key[12..].copy_from_slice(&low.to_le_bytes());
    key
}

/// A VLAN in the set of those that have interfaces: whose frames have the tag, and the tag's number.
pub fn vlan_key(link: u32, id: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&link.to_le_bytes());
    key[4..].copy_from_slice(&id.to_le_bytes());
    key
}

/// The bits of such a key that count, for a prefix of this length.
pub const fn source_bits(address: IpAddr, length: u8) -> u32 {
    let above = if address.is_ipv4() { 128 - 32 } else { 0 };
    32 + above + length as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_object_is_elf_for_bpf() {
        assert_eq!(&FORWARD[..4], b"\x7fELF");
        assert_eq!(FORWARD.as_ptr().align_offset(8), 0);
    }

    #[test]
    fn an_identity_tells_the_place_and_is_another_for_another_server() {
        let [a, b, nobody] =
            ["10.0.0.1:80", "10.0.0.2:80", "0.0.0.0:0"].map(|s| s.parse().unwrap());
        assert_eq!(identity(200, a) & 0xff, 200);
        assert_ne!(identity(200, a), identity(200, b));
        assert_ne!(identity(0, a), 0);
        assert_eq!(identity(200, nobody), 0);
    }

    #[test]
    fn an_address_is_the_same_after_both_ways() {
        for text in ["10.0.0.1", "fd00::1", "::1", "255.255.255.255"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(address)), address);
        }
        let v4 = Address::from("10.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(v4, Address { high: 0, low: 0x0100_000a_ffff_0000 });
    }

    /// Neighbours differ in the last byte, which is the highest in memory.
    #[test]
    fn few_addresses_of_one_network_have_a_bit_of_another_network_s() {
        let v4 = |net: u32, host: u32| IpAddr::from((net << 8 | host).to_be_bytes());
        let v6 = |net: u32, host: u32| {
            IpAddr::from(Ipv6Addr::from(0xfd00 << 112 | u128::from(net) << 64 | u128::from(host)))
        };
        for of in [v4 as fn(u32, u32) -> IpAddr, v6] {
            let bits = |net, hosts| (0..hosts).map(move |host| bit_of(of(net, host).into()));
            for net in 0..200 {
                let marked: BTreeSet<_> = bits(0x0a_0000 + 7 * net, 100).collect();
                assert!(90 < marked.len(), "{net}: {}", marked.len());
                let others = bits(0x64_4000 + net, 256).filter(|bit| marked.contains(bit)).count();
                assert!(others < 16, "{net}: {others} of 256");
            }
        }
    }

    #[test]
    fn services_and_backends_are_read_as_they_were_written() {
        let service = Service {
            address: Address { high: 1, low: 2 },
            first: 80,
            last: 443,
            protocol: 6,
            forward: FORWARD_NAT,
            flow: FLOW_CLIENT,
            slots_first: 0x1234_5670,
            slots_count: 65_536,
            backends_first: 7,
            backends_count: 9,
            guard: 11 | LIMITED,
            quic: quic(2, 6),
            limit_burst: 200,
            limit_interval: 1 << 33,
            limit_number: 100_000,
            gue_port: 0xc017,
            stick: 0x1357,
        };
        assert_eq!(Service::from_words(service.to_words()), service);
        let backend = Backend {
            next_hop: next_hop([2, 0, 0, 0, 0, 1], 3),
            address: Address { high: 3, low: 4 },
            source: Address { high: 5, low: 6 },
            service: 77,
            port: 8080,
            identity: 0xbeef,
            delta: 0x1234,
            standing: STANDING_KEEPS,
            named: 1,
            ports_delta: 0x4321,
            server_id: 0x0a01,
        };
        assert_eq!(Backend::from_words(backend.to_words()), backend);
        assert_eq!(backend.next_hop >> 48, 3);
    }

    #[test]
    fn a_range_is_made_of_aligned_blocks_that_cover_it_and_nothing_else() {
        assert_eq!(blocks(80, 80), [(80, 0)]);
        assert_eq!(blocks(0, 65_535), [(0, 16)]);
        assert_eq!(blocks(8000, 8003), [(8000, 2)]);
        for (first, last) in [(1, 65_535), (0, 65_534), (1, 65_534), (7, 9), (1000, 2000)] {
            let mut next = u32::from(first);
            let list = blocks(first, last);
            assert!(list.len() <= 30, "{first}..={last}: {}", list.len());
            for (port, size) in list {
                assert_eq!(u32::from(port), next);
                assert_eq!(u32::from(port) % (1 << size), 0);
                next += 1 << size;
            }
            assert_eq!(next, u32::from(last) + 1);
        }
    }
}
