//! ARP for IPv4 over Ethernet (RFC 826), as far as announcing and defending an address needs it (RFC 5227).

use crate::bytes::Reader;
use crate::ethernet::{FRAME_MIN, HEADER_LEN, Header, TYPE_ARP};
use buoy_model::Mac;
use core::net::Ipv4Addr;

const HARDWARE_ETHERNET: u16 = 1;
const PROTOCOL_IPV4: u16 = 0x0800;
const PACKET_LEN: usize = 28;

/// What an ARP packet asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ArpPacket {
    /// Request or reply.
    pub operation: Operation,
    /// Who speaks.
    pub sender_mac: Mac,
    /// The address that the sender says is its own; unspecified in a probe.
    pub sender: Ipv4Addr,
    /// Whom a reply is for; means nothing in a request.
    pub target_mac: Mac,
    /// The address asked about, or the one a reply is for.
    pub target: Ipv4Addr,
}

impl ArpPacket {
    /// Who says here that which address is theirs. Requests claim as much as replies do
    /// (RFC 5227 §2.4); a probe claims nothing (RFC 5227 §2.1.1).
    pub fn claim(&self) -> Option<(Ipv4Addr, Mac)> {
        (!self.sender.is_unspecified()).then_some((self.sender, self.sender_mac))
    }

    /// The whole frame, padded to the shortest that Ethernet knows.
    pub fn emit(&self, destination: Mac) -> [u8; FRAME_MIN] {
        let header = Header { destination, source: self.sender_mac, ethertype: TYPE_ARP };
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        let mut packet = [0; PACKET_LEN];
        packet[0..2].copy_from_slice(&HARDWARE_ETHERNET.to_be_bytes());
        packet[2..4].copy_from_slice(&PROTOCOL_IPV4.to_be_bytes());
        packet[4..6].copy_from_slice(&[6, 4]);
        packet[6..8].copy_from_slice(&operation.to_be_bytes());
        packet[8..14].copy_from_slice(&self.sender_mac.0);
        packet[14..18].copy_from_slice(&self.sender.octets());
        packet[18..24].copy_from_slice(&self.target_mac.0);
        packet[24..28].copy_from_slice(&self.target.octets());
        let mut frame = [0; FRAME_MIN];
        frame[..HEADER_LEN].copy_from_slice(&header.emit());
        frame[HEADER_LEN..HEADER_LEN + PACKET_LEN].copy_from_slice(&packet);
        frame
    }
}

/// Tells everyone that the address is at `mac`.
///
/// The request form with sender and target alike is the ARP Announcement of RFC 5227 §3; Linux
/// ignores the reply form for a second after it has updated the entry.
pub fn emit_gratuitous(mac: Mac, address: Ipv4Addr) -> [u8; FRAME_MIN] {
    emit_request(mac, address, address)
}

/// Asks everyone who has `target`; with an unspecified `sender` it is the probe of RFC 5227 §2.1.1,
/// which leaves no trace in anybody's cache.
pub fn emit_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> [u8; FRAME_MIN] {
    let target_mac = Mac::default();
    let operation = Operation::Request;
    ArpPacket { operation, sender_mac: mac, sender, target_mac, target }.emit(Mac::BROADCAST)
}

/// The ARP packet in a frame; `None` when it is anything else, or of other than Ethernet and IPv4.
pub fn parse(frame: &[u8]) -> Option<ArpPacket> {
    let (header, packet) = Header::parse(frame)?;
    if header.ethertype != TYPE_ARP {
        return None;
    }
    let mut reader = Reader::new(packet);
    let kind = (reader.u16()?, reader.u16()?, reader.u8()?, reader.u8()?);
    if kind != (HARDWARE_ETHERNET, PROTOCOL_IPV4, 6, 4) {
        return None;
    }
    let operation = match reader.u16()? {
        1 => Operation::Request,
        2 => Operation::Reply,
        _ => return None,
    };
    Some(ArpPacket {
        operation,
        sender_mac: Mac(reader.array()?),
        sender: Ipv4Addr::from(reader.array::<4>()?),
        target_mac: Mac(reader.array()?),
        target: Ipv4Addr::from(reader.array::<4>()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x2a]);
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

    #[test]
    fn a_gratuitous_request_is_these_bytes() {
        #[rustfmt::skip]
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 0x2a, 0x08, 0x06,
            0, 1, 0x08, 0, 6, 4, 0, 1,
            0x02, 0, 0, 0, 0, 0x2a, 10, 0, 0, 100,
            0, 0, 0, 0, 0, 0, 10, 0, 0, 100,
        ];
        let frame = emit_gratuitous(MAC, VIP);
        assert_eq!(frame[..42], expected);
        assert_eq!(frame[42..], [0; 18]);
    }

    #[test]
    fn what_is_emitted_is_parsed_again() {
        for operation in [Operation::Request, Operation::Reply] {
            let packet = ArpPacket {
                operation,
                sender_mac: MAC,
                sender: VIP,
                target_mac: Mac([9; 6]),
                target: Ipv4Addr::new(10, 0, 0, 1),
            };
            assert_eq!(parse(&packet.emit(Mac::BROADCAST)), Some(packet));
        }
    }

    #[test]
    fn everybody_who_names_a_sender_claims_it_but_a_probe() {
        let claim = |frame: &[u8]| parse(frame).and_then(|packet| packet.claim());
        assert_eq!(claim(&emit_gratuitous(MAC, VIP)), Some((VIP, MAC)));
        let asker = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(claim(&emit_request(MAC, asker, VIP)), Some((asker, MAC)));
        assert_eq!(claim(&emit_request(MAC, Ipv4Addr::UNSPECIFIED, VIP)), None);
    }

    #[test]
    fn a_frame_that_is_cut_anywhere_before_its_padding_is_nothing() {
        let frame = emit_gratuitous(MAC, VIP);
        for len in 0..42 {
            assert_eq!(parse(&frame[..len]), None, "{len} bytes");
        }
        assert!(parse(&frame[..42]).is_some());
    }

    #[test]
    fn other_protocols_sizes_and_operations_are_nothing() {
        // (where, what stands there instead)
        let cases: [(usize, u8); 7] =
            [(12, 0x86), (15, 6), (16, 0x86), (18, 8), (19, 16), (21, 0), (21, 3)];
        for (at, byte) in cases {
            let mut frame = emit_gratuitous(MAC, VIP);
            frame[at] = byte;
            assert_eq!(parse(&frame), None, "byte {at} = {byte}");
        }
    }
}
