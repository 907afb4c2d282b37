//! Makes conntrack forget the flows of a backend that is gone or is to have none, and counts them.
//!
//! A TCP connection ends with its backend. A UDP flow does not: conntrack would send the datagrams of
//! a client that keeps its port to the dead backend for as long as the client goes on asking.
//! Forgotten, its next datagram is a new flow and gets a backend that is up.
//!
//! An operator may want a backend to have no TCP connections either: what comes of a forgotten one is given to
//! another backend, which resets it.
//!
//! One dump of the family's flows, looked through here, and one deletion for each that is meant. It
//! happens when a backend of a UDP service fails, or by order, and is on no other path.

use crate::netlink::message::Request;
use crate::nfnetlink::{self, BEFORE, NESTED, exchange, find};
use buoy_model::{Ports, Protocol};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// Flows of one service to one backend.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Flows {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address that the clients send to.
    pub vip: IpAddr,
    /// Its ports.
    pub ports: Ports,
    /// Where conntrack sends what is for the first port; the others follow.
    pub backend: SocketAddr,
}

/// linux/netfilter/nfnetlink.h: the subsystem is the upper byte of the type.
const CT_GET: u16 = 0x0101;
const CT_DELETE: u16 = 0x0102;
/// linux/netfilter/nfnetlink_conntrack.h.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// How many there are.
pub fn count(flows: &Flows) -> io::Result<usize> {
    Ok(dump(&nfnetlink::open()?, flows)?.len())
}

/// Forgets them; how many there were. None is success.
pub fn forget(flows: &Flows) -> io::Result<usize> {
    let socket = nfnetlink::open()?;
    let found = dump(&socket, flows)?;
    for original in &found {
        let mut request = request(CT_DELETE, libc::NLM_F_ACK, flows);
        request.attribute(CTA_TUPLE_ORIG | NESTED, original);
        match exchange(&socket, &mut request, |_| {}) {
            Ok(()) => {}
            // Gone by itself in the meantime.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found.len())
}

/// The original direction of each flow, which a deletion wants.
fn dump(socket: &OwnedFd, flows: &Flows) -> io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    exchange(socket, &mut request(CT_GET, libc::NLM_F_DUMP, flows), |entry| {
        found.extend(matching(entry, flows))
    })?;
    Ok(found)
}

/// The original direction, if the entry is one of these flows.
fn matching(entry: &[u8], flows: &Flows) -> Option<Vec<u8>> {
    let attributes = entry.get(BEFORE..)?;
    let original = find(attributes, CTA_TUPLE_ORIG)?;
    let reply = find(attributes, CTA_TUPLE_REPLY)?;
    let protocol = [number(flows.protocol)];
    // The port, if it is this address and the protocol.
    let port_of = |tuple, (ip, port), end: IpAddr| -> Option<u16> {
        let (addresses, transport) = (find(tuple, CTA_TUPLE_IP)?, find(tuple, CTA_TUPLE_PROTO)?);
        let is_it = match end {
            IpAddr::V4(address) => find(addresses, ip)? == address.octets(),
            // The IPv6 attributes follow the two of IPv4.
            IpAddr::V6(address) => find(addresses, ip + 2)? == address.octets(),
        };
        let is_it = is_it && find(transport, CTA_PROTO_NUM)? == protocol;
        let port = u16::from_be_bytes(*find(transport, port)?.first_chunk()?);
        is_it.then_some(port)
    };
    let asked = port_of(original, (CTA_IP_V4_SRC + 1, CTA_PROTO_DST_PORT), flows.vip)?;
    let from = port_of(reply, (CTA_IP_V4_SRC, CTA_PROTO_SRC_PORT), flows.backend.ip())?;
    let to = asked.wrapping_sub(flows.ports.first()).wrapping_add(flows.backend.port());
    let is_one = flows.ports.contains(asked) && from == to;
    is_one.then(|| original.to_vec())
}

fn request(kind: u16, flags: i32, flows: &Flows) -> Request {
    let family = if flows.vip.is_ipv4() { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 };
    nfnetlink::request(kind, flags, family)
}

const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}
