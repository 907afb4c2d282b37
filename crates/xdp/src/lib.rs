//! The eBPF programs as an object file, and the layout of their maps.
//!
//! The object in `prebuilt/` is what clang-19 makes of `bpf/`; it is committed, so that building
//! needs no clang, and a test holds it equal to its source. After a change of the source:
//! `cargo run -p buoy-xdp --example regenerate`.

use core::net::{IpAddr, Ipv6Addr};

pub mod address;
pub mod backend;
pub mod bench;
pub mod checksum;
mod drops;
pub mod exact;
pub mod flow;
pub mod forward;
pub mod pool;
pub mod via;
pub mod watch;

/// Object file of the gate; 8-byte aligned, as ELF readers want it.
pub static GATE: &[u8] = &GATE_ALIGNED.bytes;

/// Name of the program for what comes in.
pub const GATE_INGRESS: &str = "gate_ingress";
/// Name of the program for what goes out.
pub const GATE_EGRESS: &str = "gate_egress";
/// Name of the XDP program that answers for addresses which are on no interface; the fast path goes on to it.
pub const GATE_ANSWER: &str = "gate_answer";
/// Name of the map from an address (IPv4 as `::ffff:a.b.c.d`) to its [`GateAnswer`].
pub const GATE_ANSWERS: &str = "gate_answers";
/// Name of the array of one word that says what holds for this host: [`GATE_BACK_BY_REDIRECT`] or nothing.
pub const GATE_HOST: &str = "gate_host";
/// What goes out where it came in is redirected there: an interface is a veth.
pub const GATE_BACK_BY_REDIRECT: u64 = 1;
/// Name of the map from [`GateKey`] to the place of its [`GateEntry`].
pub const GATE_SLOTS: &str = "gate_slots";
/// Name of the array of [`GateEntry`], which can be mapped into memory.
pub const GATE_ENTRIES: &str = "gate_entries";
/// Name of the array of [`GateLease`], which can be mapped into memory: the master switch and then
/// the shared leases.
pub const GATE_LEASES: &str = "gate_leases";
/// Its length.
pub const GATE_LEASES_LEN: usize = 3;
/// Name that the map of the first release has: from [`GateKey`] to the first two words of a
/// [`GateEntry`].
pub const GATE_DEADLINES_V1: &str = "deadlines";
/// Name of the per-CPU array of counters, indexed by [`GateCounter`].
pub const GATE_COUNTERS: &str = "counters";
/// Addresses that the gate can guard.
pub const GATE_ADDRESSES_MAX: u32 = 16_384;

#[repr(C, align(8))]
pub(crate) struct Aligned<const N: usize> {
    pub(crate) bytes: [u8; N],
}

const GATE_LEN: usize = include_bytes!("../prebuilt/gate.bpf.o").len();
static GATE_ALIGNED: Aligned<GATE_LEN> =
    Aligned { bytes: *include_bytes!("../prebuilt/gate.bpf.o") };

/// Which address the gate guards, as the program looks it up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GateKey {
    /// IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// The interface's index; zero for IPv4, because Linux answers ARP for any of its addresses
    /// on every interface, and the lease is the host's.
    pub link: u32,
}

/// How long the gate stays open for an address, as 64-bit words: user space and the programs write
/// and read them one by one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GateEntry {
    /// Past it nothing is answered, unless the shared lease lasts; nanoseconds of `CLOCK_BOOTTIME`.
    pub deadline: u64,
    /// Past it, and past that of the shared lease, the entry means nothing any more; nanoseconds
    /// of `CLOCK_MONOTONIC`.
    pub until: u64,
    /// When the first packet for the address came in since the gate was opened for it; written by
    /// the program. Zero: none yet; nanoseconds of `CLOCK_BOOTTIME`.
    pub first_packet: u64,
    /// The index of the shared lease, zero for none, [`GATE_GUARD_TRAFFIC`] and [`GATE_PRESENT`].
    pub rule: u64,
}

/// In [`GateEntry::rule`]: all IP packets from and to the address stop too.
pub const GATE_GUARD_TRAFFIC: u64 = 0x100;
/// In [`GateEntry::rule`]: the address is on this host. The traffic of one that is not is on its
/// way to another host.
pub const GATE_PRESENT: u64 = 0x200;
/// In [`GateEntry::rule`]: the index of the shared lease.
pub const GATE_LEASE_MASK: u64 = 0xff;

/// How long whatever shares it stays open.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GateLease {
    /// Nanoseconds of `CLOCK_BOOTTIME`. Of the master switch: anything but zero closes everything.
    pub deadline: u64,
    /// Past it the lease keeps no entry's meaning alive; nanoseconds of `CLOCK_MONOTONIC`. Of the
    /// master switch: anything but zero says that no address is on this host any more.
    pub until: u64,
}

/// How to answer for an address that is on no interface; whether to, says its [`GateEntry`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GateAnswer {
    /// The Ethernet address that is told.
    pub mac: [u8; 6],
    /// Whether this host routes IPv6 there, and says so.
    pub router: bool,
    /// The interface where questions are answered.
    pub link: u32,
}

impl GateAnswer {
    /// As it lies in the map.
    pub fn to_words(self) -> [u64; 2] {
        [forward::hardware(self.mac, self.router.into()), self.link.into()]
    }
}

/// What the programs count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum GateCounter {
    /// Questions dropped on their way in.
    Ingress = 0,
    /// Claims dropped on their way out.
    Egress = 1,
    /// Frames let through because the entry is stale.
    Stale = 2,
    /// Packets for an address, dropped on their way in.
    TrafficIn = 3,
    /// Packets from an address, dropped on their way out.
    TrafficOut = 4,
    /// Questions answered in place of the kernel: it does not have the address.
    Answered = 5,
    /// Questions about such an address that were left unanswered, for its lease was over.
    Silent = 6,
}

// The same sizes are asserted in bpf/gate/lease.h.
const _: () = assert!(size_of::<GateKey>() == 20);
const _: () = assert!(size_of::<GateEntry>() == 32);
const _: () = assert!(size_of::<GateLease>() == 16);

impl GateKey {
    /// The key of an address on an interface.
    pub const fn new(address: IpAddr, link: u32) -> Self {
        match address {
            IpAddr::V4(v4) => Self { address: v4.to_ipv6_mapped().octets(), link: 0 },
            IpAddr::V6(v6) => Self { address: v6.octets(), link },
        }
    }

    /// As it lies in the map.
    pub fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..16].copy_from_slice(&self.address);
        bytes[16..].copy_from_slice(&self.link.to_ne_bytes());
        bytes
    }

    /// What `to_bytes` gave.
    pub fn from_bytes(bytes: [u8; size_of::<Self>()]) -> Self {
        let [address @ .., l0, l1, l2, l3] = bytes;
        Self { address, link: u32::from_ne_bytes([l0, l1, l2, l3]) }
    }

    /// The address.
    pub const fn address(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_octets(self.address)).to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    #[test]
    fn an_ipv4_address_has_one_lease_on_all_interfaces_and_an_ipv6_address_one_on_each() {
        let v4 = IpAddr::from(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(GateKey::new(v4, 3), GateKey::new(v4, 4));
        let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
        assert_ne!(GateKey::new(v6, 3), GateKey::new(v6, 4));
    }

    #[test]
    fn a_key_lies_in_the_map_as_the_program_reads_it() {
        let mut expected = [0; 20];
        expected[10..16].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(GateKey::new(Ipv4Addr::new(10, 0, 0, 1).into(), 7).to_bytes(), expected);
        for address in [Ipv4Addr::new(10, 0, 0, 1).into(), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let key = GateKey::new(address, 7);
            assert_eq!(GateKey::from_bytes(key.to_bytes()), key);
            assert_eq!(key.address(), address);
        }
    }

    #[test]
    fn the_object_is_elf_for_bpf() {
        assert_eq!(&GATE[..4], b"\x7fELF");
        assert_eq!(u16::from_le_bytes([GATE[18], GATE[19]]), 247);
        assert_eq!(GATE.as_ptr().align_offset(8), 0);
    }
}
