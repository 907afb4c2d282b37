//! Services whose backends see addresses of a pool in place of clients: what the tests of them begin with.
#![allow(dead_code)] // Each test takes what it needs.

use super::packets::Packet;
use super::world::{ip, path, service};
use buoy_kernel::fast::{Probe, Verdict};
use buoy_model::{FastPath, FastService, Forward, Protocol};
use std::net::{IpAddr, SocketAddr};

/// A translated service whose backends see addresses of the pool.
pub(crate) fn pooled(
    protocol: Protocol,
    vip: &str,
    port: u16,
    backends: &[&str],
    pool: &[&str],
) -> FastService {
    let service = service(protocol, vip, (port, port), Forward::Nat, backends);
    FastService { pool: pool.iter().map(|text| ip(text)).collect(), ..service }
}

/// The services of the other tests, and each kind of pool: the VIP itself, and others.
pub(crate) fn pools() -> FastPath {
    use Protocol::{Tcp, Udp};
    let mut path = path();
    path.services.extend([
        pooled(Tcp, "10.0.0.106", 80, &["10.0.0.36:8080"], &["10.0.0.106"]),
        pooled(Udp, "10.0.0.106", 53, &["10.0.2.37:5353"], &["10.0.0.50", "10.0.0.51"]),
        pooled(Tcp, "fd00::106", 80, &["[fd00::36]:8080"], &["fd00::50", "fd00::51"]),
        pooled(Udp, "fd00::106", 53, &["[fd00:2::37]:5353"], &["fd00::106"]),
    ]);
    path
}

/// Only one service, with one address in place of its clients'.
pub(crate) fn one() -> FastPath {
    let pool = pooled(Protocol::Tcp, "10.0.0.106", 80, &["10.0.0.36:8080"], &["10.0.0.50"]);
    FastPath { seed: 7, services: vec![pool] }
}

/// The n-th client of many.
pub(crate) fn client(n: u32) -> String {
    let [_, b, c, d] = (((n / 50_000) << 8) | (n % 200)).to_be_bytes();
    format!("10.{}.{c}.{d}:{}", 16 + b, 1024 + n % 50_000)
}

/// As whom backends see a flow that begins or goes on; `None`: it was dropped, for no port was free.
pub(crate) fn port_of(probe: &Probe, packet: &Packet) -> Option<SocketAddr> {
    let tried = probe.try_frame(&packet.frame()).unwrap();
    match tried.verdict {
        Verdict::Transmit | Verdict::Redirect => Some(source_of(&tried.frame)),
        Verdict::Drop => None,
        Verdict::Pass | Verdict::Aborted => panic!("{tried:?}"),
    }
}

/// Where a frame without options says it is from.
pub(crate) fn source_of(frame: &[u8]) -> SocketAddr {
    let is_ipv4 = frame[12..14] == [8, 0];
    let (address, ports): (IpAddr, usize) = if is_ipv4 {
        (<[u8; 4]>::try_from(&frame[26..30]).unwrap().into(), 34)
    } else {
        (<[u8; 16]>::try_from(&frame[22..38]).unwrap().into(), 54)
    };
    SocketAddr::new(address, u16::from_be_bytes([frame[ports], frame[ports + 1]]))
}
