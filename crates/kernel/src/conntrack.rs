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

use buoy_model::{Ports, Protocol};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

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
const NESTED: u16 = 0x8000;
/// linux/netfilter/nfnetlink_conntrack.h.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// `nlmsghdr` and `nfgenmsg`.
const HEADER: usize = 16 + 4;

/// How many there are.
pub fn count(flows: &Flows) -> io::Result<usize> {
    Ok(dump(&open()?, flows)?.len())
}

fn open() -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    // The kernel always answers; should it not, the caller must not hang.
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(5))?;
    Ok(socket)
}

/// Forgets them; how many there were. None is success.
pub fn forget(flows: &Flows) -> io::Result<usize> {
    let socket = open()?;
    let found = dump(&socket, flows)?;
    for original in &found {
        let request = message(CT_DELETE, libc::NLM_F_REQUEST | libc::NLM_F_ACK, flows, original);
        match exchange(&socket, &request, |_| {}) {
            Ok(()) => {}
            // Gone by itself in the meantime.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found.len())
}

/// The original direction of each flow, as the attribute that a deletion wants.
fn dump(socket: &OwnedFd, flows: &Flows) -> io::Result<Vec<Vec<u8>>> {
    let request = message(CT_GET, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, flows, &[]);
    let mut found = Vec::new();
    exchange(socket, &request, |entry| found.extend(matching(entry, flows)))?;
    Ok(found)
}

/// Sends a request and hands each entry of the answer over, up to its end.
fn exchange(socket: &OwnedFd, request: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((kind, body, next)) = split_message(rest) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let code = body.first_chunk().map_or(-libc::EPROTO, |b| i32::from_ne_bytes(*b));
                    return match code {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                _ => each(body),
            }
            rest = next;
        }
    }
}

/// The type and body of the first message, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
    let body = bytes.get(16..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, next))
}

/// The attribute with the original direction, if the entry is one of these flows.
fn matching(entry: &[u8], flows: &Flows) -> Option<Vec<u8>> {
    let attributes = entry.get(4..)?;
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
    is_one.then(|| attribute(CTA_TUPLE_ORIG | NESTED, original))
}

/// The value of the first attribute of that type.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes([*attributes.get(2)?, *attributes.get(3)?]);
        let value = attributes.get(4..length)?;
        if kind & !NESTED == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn message(kind: u16, flags: i32, flows: &Flows, attributes: &[u8]) -> Vec<u8> {
    let family = if flows.vip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let length = u32::try_from(HEADER + attributes.len()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(HEADER + attributes.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(u16::try_from(flags).unwrap_or(0).to_ne_bytes());
    bytes.extend([0; 8]); // sequence and port: one question at a time on a socket of its own
    bytes.extend([u8::try_from(family).unwrap_or(0), 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = u16::try_from(length).unwrap_or(0).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_end_early_are_not_found_and_do_no_harm() {
        let good = [attribute(1, &[1, 2, 3]), attribute(2 | NESTED, &[9; 8])].concat();
        assert_eq!(find(&good, 1), Some(&[1, 2, 3][..]));
        assert_eq!(find(&good, 2), Some(&[9; 8][..]));
        assert_eq!(find(&good, 3), None);
        for end in 0..good.len() {
            assert!(find(&good[..end], 2).is_none(), "{end}");
        }
        // A length of zero must not loop for ever.
        assert_eq!(find(&[0; 64], 2), None);
        assert!(split_message(&[0; 64]).is_none());
    }
}
