//! Reads the head of a frame: who speaks to whom, and how.

use serde::Serialize;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

const ETHERNET: usize = 14;
/// Of a VLAN tag, which is before the number of what comes next.
const TAG: usize = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// IPv6 extension headers that say what comes next: hop-by-hop, fragment, destination options.
const EXTENSIONS: [u8; 3] = [0, 44, 60];
const FRAGMENT: u8 = 44;
const FLAGS: [(u8, &str); 6] =
    [(0x02, "SYN"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"), (0x20, "URG"), (0x10, "ACK")];

/// What the headers of a packet say.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Headers {
    /// Without a port where it has none, or it cannot be seen.
    pub(super) from: End,
    pub(super) to: End,
    /// As in `tcp`.
    pub(super) protocol: String,
    /// Of TCP, as in `SYN+ACK`; of ICMP, its type and code.
    pub(super) flags: Option<String>,
    /// Bytes of the IP packet, as it says itself.
    pub(super) length: u32,
}

/// An address, with its port if there is one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct End(pub(super) IpAddr, pub(super) Option<u16>);

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self(address, Some(port)) => SocketAddr::new(address, port).fmt(f),
            Self(address, None) => address.fmt(f),
        }
    }
}

impl Serialize for End {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The protocol at hand, and where its header begins; nothing there of a later piece of a datagram.
struct Next {
    protocol: u8,
    at: Option<usize>,
}

/// Nothing, where it is not IP or too short to be.
pub(super) fn read(frame: &[u8]) -> Option<Headers> {
    let tag = if frame.get(12..ETHERNET)? == [0x81, 0] { TAG } else { 0 };
    let (kind, ip) = frame.get(12 + tag..)?.split_at_checked(2)?;
    let (from, to, length, next): (IpAddr, IpAddr, u32, Next) = match kind {
        [0x08, 0x00] => {
            let word = |at: usize| <[u8; 4]>::try_from(ip.get(at..at + 4)?).ok();
            let is_later = u16::from_be_bytes([*ip.get(6)? & 0x1f, *ip.get(7)?]) != 0;
            let header = usize::from(ip.first()? & 0xf) * 4;
            let next = Next { protocol: *ip.get(9)?, at: (!is_later).then_some(header) };
            (word(12)?.into(), word(16)?.into(), two(ip, 2)?.into(), next)
        }
        [0x86, 0xdd] => {
            let words = |at: usize| <[u8; 16]>::try_from(ip.get(at..at + 16)?).ok();
            let length = u32::from(two(ip, 4)?) + 40;
            (words(8)?.into(), words(24)?.into(), length, beyond(ip, *ip.get(6)?))
        }
        _ => return None,
    };
    let body = next.at.and_then(|at| ip.get(at..)).unwrap_or_default();
    let has_ports = [TCP, UDP].contains(&next.protocol);
    let port = |at: usize| two(body, at).filter(|_| has_ports);
    let protocol = match next.protocol {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        ICMP | ICMPV6 => "icmp".to_owned(),
        4 | 41 => "ip in ip".to_owned(),
        47 => "gre".to_owned(),
        other => format!("protocol {other}"),
    };
    let flags = match (next.protocol, next.at) {
        (_, None) => Some("later piece".to_owned()),
        (TCP, Some(_)) => body.get(13).map(|bits| flags(*bits)),
        (ICMP | ICMPV6, Some(_)) => match body {
            [kind, code, ..] => Some(format!("type {kind} code {code}")),
            _ => None,
        },
        _ => None,
    };
    Some(Headers { from: End(from, port(0)), to: End(to, port(2)), protocol, flags, length })
}

/// Beyond the extension headers of IPv6.
fn beyond(ip: &[u8], mut protocol: u8) -> Next {
    let mut at = 40;
    while EXTENSIONS.contains(&protocol) {
        let Some(&[next, units, high, low]) = ip.get(at..at + 4) else {
            return Next { protocol, at: None };
        };
        if protocol == FRAGMENT && u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
            return Next { protocol: next, at: None };
        }
        at += if protocol == FRAGMENT { 8 } else { (usize::from(units) + 1) * 8 };
        protocol = next;
    }
    Next { protocol, at: Some(at) }
}

fn two(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn flags(bits: u8) -> String {
    let set = FLAGS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name);
    let set: Vec<&str> = set.collect();
    if set.is_empty() { "no flags".to_owned() } else { set.join("+") }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ipv4, ipv6};
    use super::*;

    fn line(frame: &[u8]) -> String {
        let Headers { from, to, protocol, flags, length } = read(frame).unwrap();
        format!("{from} -> {to} {protocol} {} {length}", flags.unwrap_or_default())
    }

    #[test]
    fn headers_are_read_in_every_shape() {
        let tcp = |flags: u8| {
            let ports = [4, 210, 0, 80];
            [&ports[..], &[0; 8], &[0x50, flags], &[0; 6]].concat()
        };
        assert_eq!(line(&ipv4(6, &tcp(0x12))), "10.9.0.9:1234 -> 10.0.0.100:80 tcp SYN+ACK 40");
        assert_eq!(line(&ipv6(6, &tcp(0))), "[fd09::9]:1234 -> [fd00::100]:80 tcp no flags 60");
        let udp = [4, 210, 0, 53, 0, 8, 0, 0];
        assert_eq!(line(&ipv4(17, &udp)), "10.9.0.9:1234 -> 10.0.0.100:53 udp  28");
        assert_eq!(line(&ipv4(1, &[8, 0, 0, 0])), "10.9.0.9 -> 10.0.0.100 icmp type 8 code 0 24");
        let extended = [&[17, 0, 0, 0, 0, 0, 0, 0][..], &udp].concat();
        assert_eq!(line(&ipv6(60, &extended)), "[fd09::9]:1234 -> [fd00::100]:53 udp  56");
        let later = [&[17, 0, 0x05, 0xa8, 0, 0, 0, 7][..], &udp].concat();
        assert_eq!(line(&ipv6(44, &later)), "fd09::9 -> fd00::100 udp later piece 56");
        assert_eq!(line(&ipv4(47, &[])), "10.9.0.9 -> 10.0.0.100 gre  20");
        let mut later = ipv4(17, &udp);
        later[ETHERNET + 7] = 1;
        assert_eq!(line(&later), "10.9.0.9 -> 10.0.0.100 udp later piece 28");
        let mut tagged = ipv4(6, &tcp(0x12));
        tagged.splice(12..12, [0x81, 0, 0xa0, 7]);
        assert_eq!(line(&tagged), "10.9.0.9:1234 -> 10.0.0.100:80 tcp SYN+ACK 40");
    }

    #[test]
    fn no_cut_is_read_past_its_end() {
        for frame in [ipv4(6, &[0; 20]), ipv6(44, &[44; 24]), ipv6(0, &[0; 9])] {
            for length in 0..frame.len() {
                let _ = read(&frame[..length]);
            }
        }
        assert_eq!(read(&[0; 60]), None);
    }
}
