//! The program of a real server, which takes outer headers off, as an object file, and its maps' layout.

use core::net::IpAddr;

/// Object file; 8-byte aligned, as ELF readers want it.
pub static BACKEND: &[u8] = &ALIGNED.bytes;

const LENGTH: usize = include_bytes!("../prebuilt/backend.bpf.o").len();
static ALIGNED: crate::Aligned<LENGTH> =
    crate::Aligned { bytes: *include_bytes!("../prebuilt/backend.bpf.o") };

/// Name of the program, by which one of ours is known on an interface.
pub const DECAP: &str = "buoy_decap";
/// Name of the map from an address to [`VIP`] or [`OWN`].
pub const DECAP_ADDRESSES: &str = "decap_addresses";
/// Its room.
pub const DECAP_ADDRESSES_MAX: usize = 2048;
/// Name of the per-CPU array of counters, indexed by [`Counter`].
pub const DECAP_COUNTERS: &str = "decap_counters";

/// Name of the array of words whose bits are UDP ports, in the order of the host.
pub const DECAP_PORTS: &str = "decap_ports";

/// Packets for it are taken out of IP packets.
pub const VIP: u32 = 1;
/// Packets to it are looked into.
pub const OWN: u32 = 2;
/// Packets for it are taken out of UDP packets to the port in the upper half.
pub const GUE: u32 = 4;

/// What the value of a VIP says of GUE.
pub const fn gue(port: u16) -> u32 {
    (port as u32) << 16 | GUE
}

/// Its port, if the value has one.
pub const fn gue_port(value: u32) -> Option<u16> {
    let [_, _, low, high] = value.to_le_bytes();
    if value & GUE == 0 { None } else { Some(u16::from_le_bytes([low, high])) }
}

/// What the program counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Counter {
    /// Packets for a VIP that were taken out.
    Decapsulated = 0,
    /// Packets for a VIP that are not whole, and passed untouched.
    Malformed = 1,
    /// Outer packets that are fragments, and passed untouched.
    Fragment = 2,
    /// Packets dropped because their way was congested and they do not take marks.
    Congestion = 3,
}

/// An address as it lies in the map.
pub const fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_its_port() {
        for port in [1, 6080, u16::MAX] {
            assert_eq!(gue_port(gue(port) | VIP), Some(port));
        }
        assert_eq!(gue_port(VIP | OWN), None);
    }

    #[test]
    fn an_address_lies_in_the_map_as_the_program_makes_it_from_a_packet() {
        let mapped = key("10.0.0.100".parse().unwrap());
        assert_eq!(mapped[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        assert_eq!(mapped[12..], [10, 0, 0, 100]);
        assert_eq!(key("fd00::1".parse().unwrap())[15], 1);
        assert_eq!(BACKEND.as_ptr().align_offset(8), 0);
    }
}
