//! The services of the packet tests, and where their backends are said to be.
#![allow(dead_code)] // Each test takes what it needs.

use buoy_kernel::fast::{Capacity, Fast, FastError, NextHop, Way};
use buoy_model::{
    Cidr, FastBackend, FastPath, FastService, FlowFields, Forward, LinkId, Mac, Per, Protocol,
    Rate, Slot, SourceRule, Sources,
};
use std::net::IpAddr;
use std::sync::Arc;

/// The interface by which packets that are tried come in.
pub(crate) const LOOPBACK: LinkId = LinkId(1);
pub(crate) const LOOPBACK_MAC: Mac = Mac([2, 1, 0, 0, 0, 1]);
/// Another one, with a router behind it.
pub(crate) const FAR: LinkId = LinkId(77);
pub(crate) const FAR_MAC: Mac = Mac([2, 77, 0, 0, 0, 1]);
pub(crate) const FAR_ROUTER: Mac = Mac([2, 77, 0, 0, 0, 0xfe]);
pub(crate) const MTU: u16 = 1500;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The Ethernet address of a backend on the segment, by the last byte of its address.
pub(crate) const fn mac_of(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

/// `10.0.0.x` and `fd00::x` are on the segment, `.99` among them without an answer and `.98` this host;
/// everything else is behind the router on the other interface.
pub(crate) fn way(to: IpAddr) -> Option<Way> {
    let (near, last, near_source, far_source) = match to {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            ([a, b, c] == [10, 0, 0], d, "10.0.0.1", "10.0.1.1")
        }
        IpAddr::V6(v6) => {
            let s = v6.segments();
            (s[..7] == [0xfd00, 0, 0, 0, 0, 0, 0], v6.octets()[15], "fd00::1", "fd00:1::1")
        }
    };
    if near && (last == 98 || last == 0x98) {
        return Some(Way::Local);
    }
    let unknown = last == 99 || last == 0x99;
    Some(Way::Via(NextHop {
        link: if near { LOOPBACK } else { FAR },
        link_mac: if near { LOOPBACK_MAC } else { FAR_MAC },
        mtu: MTU,
        mac: match (near, unknown) {
            (true, true) => None,
            (true, false) => Some(mac_of(last)),
            (false, _) => Some(FAR_ROUTER),
        },
        source: ip(if near { near_source } else { far_source }),
        is_gateway: !near,
    }))
}

/// A service whose slots take turns among all its backends.
pub(crate) fn service(
    protocol: Protocol,
    address: &str,
    ports: (u16, u16),
    forward: Forward,
    backends: &[&str],
) -> FastService {
    let count = backends.len() as u16;
    let slot = |n: u16| Slot { current: n % count, previous: n % count };
    FastService {
        address: ip(address),
        protocol,
        ports,
        forward,
        flow: FlowFields::Connection,
        stick: None,
        quic: None,
        sources: Arc::default(),
        new_connections: None,
        pool: Arc::default(),
        backends: backends.iter().map(|text| FastBackend::new(text.parse().unwrap())).collect(),
        slots: (0..if count == 0 { 0 } else { 64 }).map(slot).collect(),
    }
}

/// A list of clients, as in `10.0.0.0/8` for whom it allows and `!10.0.0.0/8` for whom it does not.
pub(crate) fn sources(list: &[&str]) -> Arc<Sources> {
    let rule = |text: &&str| {
        let (address, length) = text.trim_start_matches('!').split_once('/').unwrap();
        let prefix = Cidr::new(ip(address), length.parse().unwrap()).unwrap();
        SourceRule { prefix, allows: !text.starts_with('!') }
    };
    Arc::new(Sources::new(list.iter().map(rule)).unwrap())
}

/// So many connections of a client in an hour, and all of them at once.
pub(crate) fn hourly(number: u32) -> Option<Rate> {
    Some(Rate::new(number, Per::Hour, number).unwrap())
}

/// One of every kind, each with one backend, so that it is clear where a packet goes.
pub(crate) fn path() -> FastPath {
    use Forward::{Dsr, Gue, Nat, Tunnel};
    use Protocol::{Tcp, Udp};
    let one = |port| (port, port);
    let services = vec![
        service(Tcp, "10.0.0.100", one(80), Dsr, &["10.0.0.11:0"]),
        service(Udp, "10.0.0.100", one(53), Dsr, &["10.0.0.12:0"]),
        service(Tcp, "10.0.0.100", one(443), Tunnel, &["10.0.2.21:0"]),
        service(Udp, "10.0.0.100", one(443), Tunnel, &["10.0.0.22:0"]),
        service(Tcp, "10.0.0.100", one(444), Tunnel, &["[fd00:2::21]:0"]),
        service(Tcp, "10.0.0.100", one(445), Gue { port: 6080 }, &["10.0.2.21:0"]),
        service(Udp, "10.0.0.100", one(445), Gue { port: 9886 }, &["10.0.0.22:0"]),
        service(Tcp, "10.0.0.100", one(446), Gue { port: 6080 }, &["[fd00:2::21]:0"]),
        service(Tcp, "10.0.0.101", one(80), Nat, &["10.0.0.31:8080"]),
        service(Udp, "10.0.0.101", one(53), Nat, &["10.0.2.32:5353"]),
        service(Tcp, "10.0.0.101", (7000, 7999), Nat, &["10.0.0.33:17000"]),
        service(Tcp, "10.0.0.102", (0, 65_535), Dsr, &["10.0.0.13:0"]),
        service(Tcp, "10.0.0.102", (8000, 8099), Dsr, &["10.0.0.14:0"]),
        service(Tcp, "10.0.0.102", one(8042), Dsr, &["10.0.0.15:0"]),
        service(Tcp, "10.0.0.103", one(80), Dsr, &[]),
        service(Tcp, "10.0.0.103", one(81), Dsr, &["10.0.0.99:0"]),
        service(Tcp, "10.0.0.103", one(82), Dsr, &["10.0.2.23:0"]),
        service(Tcp, "10.0.0.103", one(83), Dsr, &["10.0.0.98:0"]),
        service(Tcp, "10.0.0.103", one(84), Nat, &["10.0.0.98:80"]),
        service(Tcp, "fd00::100", one(80), Dsr, &["[fd00::11]:0"]),
        service(Udp, "fd00::100", one(53), Dsr, &["[fd00::12]:0"]),
        service(Tcp, "fd00::100", one(443), Tunnel, &["[fd00:2::21]:0"]),
        service(Tcp, "fd00::100", one(444), Tunnel, &["10.0.2.21:0"]),
        service(Tcp, "fd00::100", one(445), Gue { port: 6080 }, &["[fd00:2::21]:0"]),
        service(Tcp, "fd00::100", one(446), Gue { port: 6080 }, &["10.0.2.21:0"]),
        service(Tcp, "fd00::101", one(80), Nat, &["[fd00::31]:8080"]),
        service(Udp, "fd00::101", one(53), Nat, &["[fd00:2::32]:5353"]),
    ];
    FastPath { seed: 0x0123_4567_89ab_cdef, services }
}

/// `None`, and a line that says so, where BPF programs are not permitted.
pub(crate) fn open(test: &str, path: &FastPath) -> Option<Fast> {
    let mut fast = permitted(test, Fast::open_unpinned(Capacity::of(path)))?;
    fast.apply(path, &mut way).unwrap();
    Some(fast)
}

/// The same of something that is open already, or not.
pub(crate) fn permitted<T>(test: &str, opened: Result<T, FastError>) -> Option<T> {
    match opened {
        Ok(opened) => Some(opened),
        Err(FastError::Permission) => {
            eprintln!("SKIPPED: {test}: BPF programs are not permitted here");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
