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
//! happens when a backend of a UDP service fails, by order, or when somebody asks how many there are, and is on no
//! other path.

use crate::netlink::message::Request;
use crate::nfnetlink::{self, BEFORE, NESTED, exchange, find};
use buoy_model::{Ports, Protocol};
use std::collections::HashMap;
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
const CTA_PROTOINFO: u16 = 4;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// linux/netfilter/nf_conntrack_tcp.h.
const TIME_WAIT: u8 = 7;
const CLOSE: u8 = 8;

impl Flows {
    fn has(&self, entry: &Entry<'_>) -> bool {
        let to = entry.port.wrapping_sub(self.ports.first()).wrapping_add(self.backend.port());
        self.ends() == entry.ends && self.ports.contains(entry.port) && entry.from == to
    }

    const fn ends(&self) -> Ends {
        (number(self.protocol), self.vip, self.backend.ip())
    }
}

/// Protocol, the address that the client sends to, and the address that answers.
type Ends = (u8, IpAddr, IpAddr);

/// One connection or session, as the kernel has it.
struct Entry<'e> {
    ends: Ends,
    /// The port that the client sends to.
    port: u16,
    /// The port that answers.
    from: u16,
    /// A connection of TCP that both ends have closed or one has reset; the kernel keeps it for up to two minutes.
    is_over: bool,
    /// The original direction, which a deletion wants.
    original: &'e [u8],
}

/// How many are open of each, with one dump of each family, however many are asked for.
pub fn count(asked: &[Flows]) -> io::Result<Vec<usize>> {
    let mut counts = vec![0; asked.len()];
    let mut by_ends: HashMap<Ends, Vec<usize>> = HashMap::new();
    for (at, flows) in asked.iter().enumerate() {
        by_ends.entry(flows.ends()).or_default().push(at);
    }
    for is_ipv4 in [true, false] {
        if asked.iter().all(|flows| flows.vip.is_ipv4() != is_ipv4) {
            continue;
        }
        each(&nfnetlink::open()?, is_ipv4, |entry| {
            let all = by_ends.get(&entry.ends).filter(|_| !entry.is_over).into_iter().flatten();
            all.filter(|at| asked[**at].has(&entry)).for_each(|at| counts[*at] += 1);
        })?;
    }
    Ok(counts)
}

/// Forgets them; how many there were. None is success.
pub fn forget(flows: &Flows) -> io::Result<usize> {
    let socket = nfnetlink::open()?;
    let is_ipv4 = flows.vip.is_ipv4();
    let mut found = Vec::new();
    each(&socket, is_ipv4, |entry| {
        found.extend(flows.has(&entry).then(|| entry.original.to_vec()));
    })?;
    for original in &found {
        let mut request = request(CT_DELETE, libc::NLM_F_ACK, is_ipv4);
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

/// Hands over what conntrack knows of a family.
fn each(socket: &OwnedFd, is_ipv4: bool, mut known: impl FnMut(Entry<'_>)) -> io::Result<()> {
    exchange(socket, &mut request(CT_GET, libc::NLM_F_DUMP, is_ipv4), |bytes| {
        if let Some(entry) = entry(bytes, is_ipv4) {
            known(entry);
        }
    })
}

/// What an entry says; `None`: it has no ports.
fn entry(bytes: &[u8], is_ipv4: bool) -> Option<Entry<'_>> {
    let attributes = bytes.get(BEFORE..)?;
    let original = find(attributes, CTA_TUPLE_ORIG)?;
    let reply = find(attributes, CTA_TUPLE_REPLY)?;
    let address = |tuple, attribute| -> Option<IpAddr> {
        let all = find(tuple, CTA_TUPLE_IP)?;
        Some(match is_ipv4 {
            true => IpAddr::from(*find(all, attribute)?.first_chunk::<4>()?),
            // The IPv6 attributes follow the two of IPv4.
            false => IpAddr::from(*find(all, attribute + 2)?.first_chunk::<16>()?),
        })
    };
    let port = |tuple, attribute| -> Option<u16> {
        let port = find(find(tuple, CTA_TUPLE_PROTO)?, attribute)?;
        Some(u16::from_be_bytes(*port.first_chunk()?))
    };
    let [protocol] = *find(find(original, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)? else { return None };
    let vip = address(original, CTA_IP_V4_SRC + 1)?;
    let backend = address(reply, CTA_IP_V4_SRC)?;
    Some(Entry {
        ends: (protocol, vip, backend),
        port: port(original, CTA_PROTO_DST_PORT)?,
        from: port(reply, CTA_PROTO_SRC_PORT)?,
        is_over: state(attributes).is_some_and(|state| [TIME_WAIT, CLOSE].contains(&state)),
        original,
    })
}

/// That of TCP.
fn state(attributes: &[u8]) -> Option<u8> {
    let of_tcp = find(find(attributes, CTA_PROTOINFO)?, CTA_PROTOINFO_TCP)?;
    find(of_tcp, CTA_PROTOINFO_TCP_STATE)?.first().copied()
}

fn request(kind: u16, flags: i32, is_ipv4: bool) -> Request {
    let family = if is_ipv4 { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 };
    nfnetlink::request(kind, flags, family)
}

const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}
