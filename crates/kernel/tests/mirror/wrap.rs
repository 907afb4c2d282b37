//! What a packet is put into on its way to a backend, once more and simply.

use super::super::packets::{Body, Packet};
use super::Seen;
use buoy_kernel::fast::NextHop;
use buoy_model::{FastService, Forward, Mac};
use buoy_xdp::forward::hash_flow;
use std::net::{IpAddr, SocketAddr};

/// How many bytes more a packet has there.
pub(super) fn overhead(service: &FastService, backend: IpAddr) -> usize {
    let header = if backend.is_ipv4() { 20 } else { 40 };
    match service.forward {
        Forward::Dsr | Forward::Nat | Forward::Local => 0,
        Forward::Tunnel => header,
        Forward::Gue { .. } => header + 8,
    }
}

pub(super) fn wrapped(
    seed: u64,
    forward: Forward,
    frame: &[u8],
    seen: &Seen,
    hop: &NextHop,
    to: IpAddr,
) -> Vec<u8> {
    let hash = hash_flow(seed, seen.client, seen.client_port);
    let label = (hash >> 44) as u32;
    let (ports, body) = match forward {
        // Without a checksum, from one of the last 16384 ports.
        Forward::Gue { port } => ((49_152 + (hash >> 50) as u16, port), Body::Udp),
        Forward::Tunnel | Forward::Dsr | Forward::Nat | Forward::Local => {
            ((0, 0), Body::Raw(if seen.vip.is_ipv4() { 4 } else { 41 }))
        }
    };
    let ends = (SocketAddr::new(hop.source, ports.0), SocketAddr::new(to, ports.1));
    let mut outer = Packet::of(ends.0, ends.1, body)
        .unsummed()
        .macs(Mac::default(), Mac::default())
        .payload(&frame[14..14 + seen.length])
        .class(seen.class)
        .ttl(64)
        .id(0)
        .dont_fragment();
    if to.is_ipv6() {
        outer = outer.label(label);
    }
    // What is behind the packet stays there.
    [outer.frame(), frame[14 + seen.length..].to_vec()].concat()
}
