//! Neighbour discovery for IPv6 over Ethernet (RFC 4861), as far as announcing and defending an address needs it.

use crate::bytes::Reader;
use crate::checksum::{add, fold, pseudo_header};
use crate::ethernet::{HEADER_LEN, Header, TYPE_IPV6};
use buoy_model::Mac;
use core::net::Ipv6Addr;

const IP_LEN: usize = 40;
const ICMP_LEN: usize = 24;
const OPTION_LEN: usize = 8;
/// Bytes of the frames made here: headers, message and one link-layer address option.
pub const FRAME_LEN: usize = HEADER_LEN + IP_LEN + ICMP_LEN + OPTION_LEN;

const NEXT_HEADER_ICMP: u8 = 58;
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;
const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A neighbour discovery message that passed the checks of RFC 4861 §7.1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Neighbour {
    /// Who has the target address?
    Solicitation(Solicitation),
    /// The target address is here.
    Advertisement(Advertisement),
}

/// A question for an address (RFC 4861 §4.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Solicitation {
    /// Who asks; unspecified while the asker tests the address for itself (RFC 4862 §5.4.2).
    pub source: Ipv6Addr,
    /// The address asked about.
    pub target: Ipv6Addr,
    /// Where the asker is.
    pub source_mac: Option<Mac>,
}

/// Word of an address (RFC 4861 §4.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Advertisement {
    /// Who speaks.
    pub source: Ipv6Addr,
    /// The address spoken of.
    pub target: Ipv6Addr,
    /// Where it is; may be left out of the answer to a unicast question.
    pub target_mac: Option<Mac>,
    /// R: the sender routes.
    pub router: bool,
    /// S: the sender was asked.
    pub solicited: bool,
    /// O: believe this rather than what you have.
    pub overrides: bool,
}

/// Tells everyone that the address is at `mac` (RFC 4861 §7.2.6).
///
/// The override flag is set, because the point is to replace what the neighbours have.
pub fn emit_unsolicited(mac: Mac, address: Ipv6Addr, router: bool) -> [u8; FRAME_LEN] {
    let flags = FLAG_OVERRIDE | if router { FLAG_ROUTER } else { 0 };
    emit(mac, (address, ALL_NODES), (ADVERTISEMENT, flags), address, OPTION_TARGET)
}

/// Asks for `target` at its solicited-node multicast address (RFC 4861 §7.2.2). `source` is an
/// address of the asker's own: the question without one (RFC 4862 §5.4.2) has another form.
pub fn emit_solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> [u8; FRAME_LEN] {
    debug_assert!(!source.is_unspecified());
    emit(mac, (source, solicited_node(target)), (SOLICITATION, 0), target, OPTION_SOURCE)
}

/// The frame of one message with the sender's link-layer address as its option.
fn emit(
    mac: Mac,
    (source, destination): (Ipv6Addr, Ipv6Addr),
    (kind, flags): (u8, u8),
    target: Ipv6Addr,
    option: u8,
) -> [u8; FRAME_LEN] {
    let mut message = [0; ICMP_LEN + OPTION_LEN];
    message[0] = kind;
    message[4] = flags;
    message[8..24].copy_from_slice(&target.octets());
    message[24..26].copy_from_slice(&[option, (OPTION_LEN / 8) as u8]);
    message[26..32].copy_from_slice(&mac.0);
    let sum = checksum(source, destination, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let header =
        Header { destination: multicast_mac(destination), source: mac, ethertype: TYPE_IPV6 };
    let mut frame = [0; FRAME_LEN];
    frame[..HEADER_LEN].copy_from_slice(&header.emit());
    let ip = &mut frame[HEADER_LEN..];
    ip[0] = 6 << 4;
    ip[4..6].copy_from_slice(&((ICMP_LEN + OPTION_LEN) as u16).to_be_bytes());
    ip[6] = NEXT_HEADER_ICMP;
    ip[7] = HOP_LIMIT;
    ip[8..24].copy_from_slice(&source.octets());
    ip[24..40].copy_from_slice(&destination.octets());
    ip[IP_LEN..].copy_from_slice(&message);
    frame
}

/// The neighbour discovery message in a frame; `None` when it is anything else or fails a check of
/// RFC 4861 §7.1. One behind an extension header is refused too (RFC 6980 §5).
pub fn parse(frame: &[u8]) -> Option<Neighbour> {
    let (header, packet) = Header::parse(frame)?;
    if header.ethertype != TYPE_IPV6 {
        return None;
    }
    let mut ip = Reader::new(packet);
    let version = ip.u32()? >> 28;
    let len = ip.u16()?;
    let (next_header, hop_limit) = (ip.u8()?, ip.u8()?);
    let source = Ipv6Addr::from(ip.array::<16>()?);
    let destination = Ipv6Addr::from(ip.array::<16>()?);
    // What follows the payload is the frame's padding.
    let message = ip.slice(len.into())?;
    if (version, next_header, hop_limit) != (6, NEXT_HEADER_ICMP, HOP_LIMIT) {
        return None;
    }
    // The sum over a message that contains its own checksum is zero.
    if checksum(source, destination, message) != 0 {
        return None;
    }
    parse_message(source, destination, message)
}

fn parse_message(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Option<Neighbour> {
    let mut reader = Reader::new(message);
    let (kind, code, _checksum, flags) = (reader.u8()?, reader.u8()?, reader.u16()?, reader.u32()?);
    let target = Ipv6Addr::from(reader.array::<16>()?);
    if code != 0 || target.is_multicast() {
        return None;
    }
    let flag = |bit: u8| (flags >> 24) as u8 & bit != 0;
    match kind {
        SOLICITATION => {
            let source_mac = parse_option(reader, OPTION_SOURCE)?;
            if source.is_unspecified()
                && (source_mac.is_some() || destination != solicited_node(target))
            {
                return None;
            }
            Some(Neighbour::Solicitation(Solicitation { source, target, source_mac }))
        }
        ADVERTISEMENT => {
            let target_mac = parse_option(reader, OPTION_TARGET)?;
            let solicited = flag(FLAG_SOLICITED);
            if solicited && destination.is_multicast() {
                return None;
            }
            let (router, overrides) = (flag(FLAG_ROUTER), flag(FLAG_OVERRIDE));
            Some(Neighbour::Advertisement(Advertisement {
                source,
                target,
                target_mac,
                router,
                solicited,
                overrides,
            }))
        }
        _ => None,
    }
}

/// The link-layer address in the option of that type, if the message has it; the outer `None` says
/// that the options are broken. Other options are skipped (RFC 4861 §4.6).
fn parse_option(mut reader: Reader<'_>, wanted: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while reader.end().is_none() {
        let (kind, len) = (reader.u8()?, usize::from(reader.u8()?));
        // An option of no length would be read for ever (RFC 4861 §4.6).
        let value = reader.slice((len * 8).checked_sub(2)?)?;
        if kind == wanted && found.is_none() {
            found = value.try_into().ok().map(Mac);
        }
    }
    Some(found)
}

/// The group in which the owner of an address listens for questions (RFC 4291 §2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    const PREFIX: u128 = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).to_bits();
    Ipv6Addr::from_bits(PREFIX | (address.to_bits() & 0xff_ffff))
}

/// Where Ethernet delivers to a group (RFC 2464 §7).
fn multicast_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// The checksum over pseudo-header and message (RFC 4443 §2.3, RFC 8200 §8.1).
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let header = pseudo_header(source.into(), destination.into(), NEXT_HEADER_ICMP, message.len());
    fold(add(header, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x2a]);
    const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
    const ASKER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    /// The frame with another byte and a checksum that is right again.
    fn with(frame: &[u8], at: usize, byte: u8) -> Vec<u8> {
        let mut frame = frame.to_vec();
        frame[at] = byte;
        resum(&mut frame);
        frame
    }

    fn resum(frame: &mut [u8]) {
        let address = |at| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
        let (source, destination) = (address(22), address(38));
        frame[56..58].fill(0);
        let sum = checksum(source, destination, &frame[54..]);
        frame[56..58].copy_from_slice(&sum.to_be_bytes());
    }

    #[test]
    fn an_unsolicited_advertisement_is_these_bytes() {
        #[rustfmt::skip]
        let expected = [
            0x33, 0x33, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 0x2a, 0x86, 0xdd,
            0x60, 0, 0, 0, 0, 32, 58, 255,
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0,
            0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            136, 0, 0xf7, 0x03, 0x20, 0, 0, 0,
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0,
            2, 1, 0x02, 0, 0, 0, 0, 0x2a,
        ];
        assert_eq!(emit_unsolicited(MAC, VIP, false), expected);
        assert_eq!(emit_unsolicited(MAC, VIP, true)[58], 0xa0);
    }

    #[test]
    fn what_is_emitted_is_parsed_again() {
        for router in [false, true] {
            let expected = Advertisement {
                source: VIP,
                target: VIP,
                target_mac: Some(MAC),
                router,
                solicited: false,
                overrides: true,
            };
            let frame = emit_unsolicited(MAC, VIP, router);
            assert_eq!(parse(&frame), Some(Neighbour::Advertisement(expected)));
        }
        let expected = Solicitation { source: ASKER, target: VIP, source_mac: Some(MAC) };
        let frame = emit_solicitation(MAC, ASKER, VIP);
        assert_eq!(parse(&frame), Some(Neighbour::Solicitation(expected)));
    }

    #[test]
    fn a_question_goes_to_the_group_of_its_target() {
        let target = "2001:db8::01:800:200e:8c6c".parse().unwrap();
        assert_eq!(solicited_node(target), "ff02::1:ff0e:8c6c".parse::<Ipv6Addr>().unwrap());
        let frame = emit_solicitation(MAC, ASKER, target);
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c]);
    }

    #[test]
    fn a_question_without_a_source_has_no_option_and_the_right_group() {
        let mut frame = emit_solicitation(MAC, ASKER, VIP).to_vec();
        frame[22..38].fill(0);
        resum(&mut frame);
        assert_eq!(parse(&frame), None, "the option tells an address that nobody has yet");
        frame.truncate(FRAME_LEN - OPTION_LEN);
        frame[19] = 24;
        resum(&mut frame);
        let expected =
            Solicitation { source: Ipv6Addr::UNSPECIFIED, target: VIP, source_mac: None };
        assert_eq!(parse(&frame), Some(Neighbour::Solicitation(expected)));
        let elsewhere = with(&frame, 53, 0x55);
        assert_eq!(parse(&elsewhere), None, "not the group of the target");
    }

    #[test]
    fn each_check_of_rfc_4861_refuses() {
        let advertisement = emit_unsolicited(MAC, VIP, false);
        // (where, what stands there instead, what is wrong with it)
        let cases = [
            (13, 0x00, "not IPv6 by its EtherType"),
            (14, 0x40, "not IPv6 by its version"),
            (19, 33, "longer than the frame"),
            (19, 23, "shorter than the message"),
            (19, 25, "half an option"),
            (20, 0, "behind an extension header"),
            (21, 254, "came through a router"),
            (54, 137, "another message"),
            (55, 1, "another code"),
            (58, 0x60, "solicited and yet to all"),
            (62, 0xff, "of a multicast address"),
            (79, 0, "an option without a length"),
            (79, 2, "an option longer than the message"),
        ];
        for (at, byte, wrong) in cases {
            assert_eq!(parse(&with(&advertisement, at, byte)), None, "{wrong}");
        }
        let mut forged = advertisement;
        forged[56] ^= 1;
        assert_eq!(parse(&forged), None, "wrong checksum");
    }

    #[test]
    fn unknown_options_are_skipped() {
        let mut frame = emit_unsolicited(MAC, VIP, false).to_vec();
        let known = frame.split_off(FRAME_LEN - OPTION_LEN);
        frame.extend_from_slice(&[14, 1, 0, 0, 0, 0, 0, 0]);
        frame.extend_from_slice(&known);
        frame[19] += 8;
        resum(&mut frame);
        let Some(Neighbour::Advertisement(advertisement)) = parse(&frame) else {
            panic!("an option of another kind spoils nothing");
        };
        assert_eq!(advertisement.target_mac, Some(MAC));
    }

    #[test]
    fn a_frame_that_is_cut_anywhere_is_nothing_and_padding_is_ignored() {
        let frame = emit_unsolicited(MAC, VIP, false);
        for len in 0..FRAME_LEN {
            assert_eq!(parse(&frame[..len]), None, "{len} bytes");
        }
        let padded = [&frame[..], &[7; 5]].concat();
        assert_eq!(parse(&padded), parse(&frame));
    }
}
