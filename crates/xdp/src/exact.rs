//! The exact match of packets for a service, as it lies in the settings: `bpf/forward/exact.h` says what it is for.

use crate::forward::{Address, EXACT_BITS, FLOW_CONNECTION, MIX_C, SLOTS_IN_LINE, Service};
use core::net::{IpAddr, Ipv4Addr};

/// How many lines of slots there may be, the first line and the first backend that there is room for.
const LINES_MAX: u32 = 1 << 12;
const PLACES_MAX: u32 = 1 << 24;
/// In the word of the way: from which bit on.
const FORWARD: u32 = 12;
const SLOTS: u32 = 16;
const BACKENDS: u32 = 40;

/// What is in the headers of packets for a service of one port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Key {
    /// The word that an entry of [`crate::forward::Settings::exact_ipv4`] begins with.
    V4(u64),
    /// The three words of [`crate::forward::Settings::exact_ipv6`].
    V6([u64; 3]),
}

/// A service that has an exact match.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exact {
    /// What is in the headers.
    pub key: Key,
    /// Never zero.
    pub way: u64,
}

impl Exact {
    /// Of a service; `None` where more decides than where a packet goes to and who sent it, or where one word is too
    /// short for it.
    pub fn of(service: &Service) -> Option<Self> {
        let lines = service.slots_count / SLOTS_IN_LINE;
        let first = service.slots_first / SLOTS_IN_LINE;
        let is_simple = service.first == service.last
            && service.guard == 0
            && service.flow == FLOW_CONNECTION
            && lines.is_power_of_two()
            && service.backends_count != 0;
        let fits = lines <= LINES_MAX && first < PLACES_MAX && service.backends_first < PLACES_MAX;
        let way = u64::from(lines.wrapping_sub(1))
            | u64::from(service.forward) << FORWARD
            | u64::from(first) << SLOTS
            | u64::from(service.backends_first) << BACKENDS;
        let key = key(service.address, service.first, service.protocol);
        (is_simple && fits && way != 0).then_some(Self { key, way })
    }

    /// Where it is looked for.
    pub fn place(&self) -> usize {
        let whole = match self.key {
            Key::V4(key) => key,
            Key::V6([rest, high, low]) => rest ^ high ^ low,
        };
        let place = whole.wrapping_mul(MIX_C) >> (u64::BITS - EXACT_BITS);
        usize::try_from(place).unwrap_or(0)
    }
}

fn key(address: Address, port: u16, protocol: u8) -> Key {
    let port = u64::from(port.to_be());
    match IpAddr::from(address) {
        IpAddr::V4(v4) => Key::V4(in_memory(v4) | u64::from(protocol) << 32 | port << 48),
        IpAddr::V6(_) => Key::V6([port | u64::from(protocol) << 16, address.high, address.low]),
    }
}

fn in_memory(address: Ipv4Addr) -> u64 {
    u32::from_le_bytes(address.octets()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::{FLOW_CLIENT, FORWARD_GUE, FORWARD_NAT, LIMITED};
    use std::collections::BTreeSet;

    fn service(address: &str, port: u16) -> Service {
        Service {
            address: address.parse::<IpAddr>().unwrap().into(),
            first: port,
            last: port,
            protocol: 6,
            forward: FORWARD_NAT,
            slots_first: 16 * 7,
            slots_count: 4096,
            backends_first: 9,
            backends_count: 3,
            ..Service::default()
        }
    }

    #[test]
    fn a_match_is_what_the_program_reads_of_a_frame() {
        let v4 = Exact::of(&service("10.0.0.1", 0x1234)).unwrap();
        assert_eq!(v4.key, Key::V4(0x3412_0006_0100_000a));
        assert_eq!(v4.way, 9 << 40 | 7 << 16 | 2 << 12 | 255);
        let v6 = Exact::of(&service("fd00::1", 0x1234)).unwrap();
        assert_eq!(v6.key, Key::V6([0x06_3412, 0xfd, 1 << 56]));
    }

    #[test]
    fn who_needs_more_than_one_look_has_no_match() {
        let plain = service("10.0.0.1", 80);
        let others = [
            Service { last: 81, ..plain },
            Service { guard: LIMITED, ..plain },
            Service { flow: FLOW_CLIENT, ..plain },
            Service { slots_count: 0, ..plain },
            Service { slots_count: 1 << 17, ..plain },
            Service { slots_first: 16 << 24, ..plain },
            Service { backends_first: 1 << 24, ..plain },
            Service { backends_count: 0, ..plain },
        ];
        for other in others {
            assert_eq!(Exact::of(&other), None, "{other:?}");
        }
        let most = Service {
            forward: FORWARD_GUE,
            slots_count: 1 << 16,
            slots_first: 16 * ((1 << 24) - 1),
            backends_first: (1 << 24) - 1,
            ..plain
        };
        let way = 0xff_ffff << 40 | 0xff_ffff << 16 | 3 << 12 | 0xfff;
        assert_eq!(Exact::of(&most).unwrap().way, way);
    }

    /// Addresses that follow on one another, and a few ports of each.
    #[test]
    fn most_services_have_a_place_for_themselves() {
        for of in [|n: u32| format!("10.0.{}.{}", n >> 8, n & 255), |n| format!("fd00::{n:x}")] {
            let ports = [53, 80, 443, 8080, 8443];
            let all = (0..1000).flat_map(|n| ports.map(|port| service(&of(n), port)));
            let places: BTreeSet<_> = all.map(|s| Exact::of(&s).unwrap().place()).collect();
            // Of 5000 in 16,384 places, as many as 4314 would have one if they were spread by chance.
            assert!(places.len() > 3700, "{}", places.len());
        }
    }
}
