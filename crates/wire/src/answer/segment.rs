//! The segment that asks whether a port is open, and what answers it, as bytes (RFC 9293 §3.1).

use crate::checksum;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of an answer that are looked at: an IPv6 header and one of TCP. An IPv4 header with options is no longer.
pub const HEARD_MAX: usize = 80;

const TCP: u8 = 6;
const HEADER: usize = 24;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const HOPS: u8 = 64;

/// What came back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Heard {
    /// From where.
    pub from: SocketAddr,
    /// The sequence number of what it answers.
    pub sequence: u32,
    /// Whether the connection could be; else it is refused.
    pub open: bool,
}

/// A packet that opens a connection. Both addresses are of one IP version.
pub fn question(from: SocketAddr, to: SocketAddr, sequence: u32) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(HEADER);
    tcp.extend(from.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    // No acknowledgement, six words, a window, no checksum yet, nothing urgent; segments of 1460 bytes.
    tcp.extend([0, 0, 0, 0, 6 << 4, SYN, 4, 0, 0, 0, 0, 0, 2, 4, 5, 0xb4]);
    let length = HEADER as u8;
    let start = checksum::pseudo_header(from.ip(), to.ip(), TCP, HEADER);
    let check = checksum::fold(checksum::add(start, &tcp));
    tcp[16..18].copy_from_slice(&check.to_be_bytes());
    let mut packet = match from {
        // The kernel fills in the length, the checksum and the identification.
        SocketAddr::V4(_) => vec![0x45, 0, 0, 20 + length, 0, 0, 0x40, 0, HOPS, TCP, 0, 0],
        SocketAddr::V6(_) => vec![0x60, 0, 0, 0, 0, length, TCP, HOPS],
    };
    for ip in [from.ip(), to.ip()] {
        match ip {
            IpAddr::V4(v4) => packet.extend(v4.octets()),
            IpAddr::V6(v6) => packet.extend(v6.octets()),
        }
    }
    packet.extend(tcp);
    packet
}

/// What answers such a packet; nothing if this is another one.
pub fn heard(packet: &[u8]) -> Option<Heard> {
    let (source, tcp): (IpAddr, usize) = match packet.first()? >> 4 {
        4 => {
            let octets: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            (Ipv4Addr::from(octets).into(), usize::from(packet[0] & 0xf) * 4)
        }
        6 => {
            let octets: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            (Ipv6Addr::from(octets).into(), 40)
        }
        _ => return None,
    };
    let tcp = packet.get(tcp..)?;
    let word = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
    let port = u16::from_be_bytes([*tcp.first()?, *tcp.get(1)?]);
    let sequence = word(8)?.wrapping_sub(1);
    let open = match tcp.get(13)? & (SYN | RST | ACK) {
        flags if flags == SYN | ACK => true,
        flags if flags == RST | ACK => false,
        _ => return None,
    };
    Some(Heard { from: SocketAddr::new(source, port), sequence, open })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_its_checksum_and_its_place() {
        for (from, to) in
            [("10.0.0.1:40000", "10.0.0.21:443"), ("[fd00::1]:40000", "[fd00::21]:443")]
        {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let packet = question(from, to, 0x0102_0304);
            let tcp = &packet[packet.len() - HEADER..];
            assert_eq!(tcp[..4], [0x9c, 0x40, 0x01, 0xbb]);
            assert_eq!(tcp[4..8], [1, 2, 3, 4]);
            let start = checksum::pseudo_header(from.ip(), to.ip(), 6, 24);
            assert_eq!(checksum::fold(checksum::add(start, tcp)), 0, "{from}");
            assert_eq!(heard(&packet), None, "a question is no answer");
        }
    }

    #[test]
    fn an_answer_is_known_by_its_flags_and_cut_ones_are_not() {
        let from: SocketAddr = "10.0.0.21:443".parse().unwrap();
        let mut packet = question(from, "10.0.0.1:40000".parse().unwrap(), 7);
        packet[28..32].copy_from_slice(&0x0102_0305_u32.to_be_bytes());
        for (flags, open) in [
            (SYN | ACK, Some(true)),
            (RST | ACK, Some(false)),
            (SYN, None),
            (RST, None),
            (ACK, None),
        ] {
            packet[33] = flags;
            let expected = open.map(|open| Heard { from, sequence: 0x0102_0304, open });
            assert_eq!(heard(&packet), expected, "{flags}");
        }
        packet[33] = SYN | ACK;
        for length in 0..34 {
            assert_eq!(heard(&packet[..length]), None, "{length}");
        }
    }
}
