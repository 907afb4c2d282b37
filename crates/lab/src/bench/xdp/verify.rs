//! Says whether a packet came out as it should: a program that is fast and wrong is not fast.
//!
//! It makes the packet that the dispatcher made, and compares what may not change, byte for byte; of
//! checksums it asks whether they still fit.

use super::world::{self, BACKENDS, Family, GUE_PORT, How, OWN_MAC};
use buoy_xdp::bench;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The packet of that number, made from the first one.
pub(super) fn packet(first: &[u8], number: u64, flows: u64, services: u64) -> Vec<u8> {
    let (above, port, service) = bench::packet(number, flows - 1, services);
    let mut frame = first.to_vec();
    let is_ipv6 = family_of(first) == Family::V6;
    let (source, transport) = if is_ipv6 { (34, 54) } else { (26, 34) };
    add(&mut frame[source..source + 4], above);
    frame[transport..transport + 2].copy_from_slice(&port.to_be_bytes());
    let destination = if is_ipv6 { 50 } else { 30 };
    add(&mut frame[destination..destination + 4], service % bench::ADDRESSES);
    let to = transport + 2;
    let port = u16::from_be_bytes([frame[to], frame[to + 1]]);
    let port = port + u16::try_from(service / bench::ADDRESSES).unwrap_or(0);
    frame[to..to + 2].copy_from_slice(&port.to_be_bytes());
    frame
}

/// What is wrong with what became of a packet, if anything; `place` is its backend's, if known.
pub(super) fn fault(
    how: How,
    before: &[u8],
    after: &[u8],
    place: Option<u16>,
) -> Option<&'static str> {
    if how == How::Local {
        return (before != after).then_some("it changed");
    }
    if after.len() < before.len() {
        return Some("it is cut short");
    }
    let family = family_of(before);
    let number = u32::from_be_bytes([after[2], after[3], after[4], after[5]]);
    if after[..2] != [2, 0x10] || BACKENDS <= number {
        return Some("it is for none of the backends");
    }
    if place.is_some_and(|place| u32::from(place) != number) {
        return Some("it is for another backend");
    }
    if after[6..12] != OWN_MAC.0 {
        return Some("its source is not this host");
    }
    let backend = world::backend(family, number);
    match how {
        How::Dsr | How::Local => {
            (before[12..] != after[12..]).then_some("more than Ethernet addresses changed")
        }
        How::Tunnel => tunnel(family, before, after, backend),
        How::Gue => gue(family, before, after, backend),
        How::Nat => nat(family, before, after, backend),
    }
}

/// As a tunnel, but for a UDP header behind the outer one.
fn gue(family: Family, before: &[u8], after: &[u8], backend: IpAddr) -> Option<&'static str> {
    let (start, protocol, length) = match family {
        Family::V4 => (34, 23, 16),
        Family::V6 => (54, 20, 18),
    };
    let Some(udp) = after.get(start..start + 8) else { return Some("it has no UDP header") };
    let word = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
    if udp[0] < 0xc0 || word(2) != GUE_PORT || word(6) != 0 {
        return Some("its ports are other ones, or it has a checksum");
    }
    let outer = u16::from_be_bytes([after[length], after[length + 1]]);
    if outer != word(4) + if family == Family::V4 { 20 } else { 0 } {
        return Some("its UDP header has another length");
    }
    if after[protocol] != 17 {
        return Some("its outer header is not one of UDP");
    }
    // What is left is that of a tunnel, whose outer header has 8 bytes less to speak of.
    let mut plain = [&after[..start], &after[start + 8..]].concat();
    plain[protocol] = if family == Family::V4 { 4 } else { 41 };
    plain[length..length + 2].copy_from_slice(&(outer - 8).to_be_bytes());
    if family == Family::V4 {
        if sum(&after[14..34]) != 0xffff {
            return Some("the checksum of its outer header is wrong");
        }
        plain[24..26].copy_from_slice(&[0, 0]);
        let check = !sum(&plain[14..34]);
        plain[24..26].copy_from_slice(&check.to_be_bytes());
    }
    tunnel(family, before, &plain, backend)
}

/// An outer header of the same family, and the packet with one hop less.
fn tunnel(family: Family, before: &[u8], after: &[u8], backend: IpAddr) -> Option<&'static str> {
    let (header, protocol, addresses) = match family {
        Family::V4 => (20, 23, 26),
        Family::V6 => (40, 20, 22),
    };
    let next = if family == Family::V4 { 4 } else { 41 };
    let ends = [octets(world::own(family)), octets(backend)].concat();
    let hops = if family == Family::V4 { 22 } else { 21 };
    let mut within = before[14..].to_vec();
    within[hops - 14] -= 1;
    let check = 24 - 14;
    if family == Family::V4 && header + 14 + check + 2 <= after.len() {
        within[check..check + 2].copy_from_slice(&after[header + 24..header + 26]);
        if !alike(&before[14..34], &within[..20]) {
            return Some("the checksum of the packet within does not fit");
        }
    }
    if after.len() != before.len() + header {
        Some("it has another length")
    } else if after[14 + header..] != within {
        Some("the packet within changed")
    } else if after[protocol] != next || after[addresses..addresses + ends.len()] != ends {
        Some("its outer header is not to the backend")
    } else if family == Family::V4 && sum(&after[14..34]) != 0xffff {
        Some("the checksum of its outer header is wrong")
    } else {
        None
    }
}

/// Another destination, one hop less, and checksums that fit.
fn nat(family: Family, before: &[u8], after: &[u8], backend: IpAddr) -> Option<&'static str> {
    let (hops, check, destination, port) = match family {
        Family::V4 => (22, Some(24), 30, 36),
        Family::V6 => (21, None, 38, 56),
    };
    let to = octets(backend);
    let mut expected = before.to_vec();
    expected[..12].copy_from_slice(&after[..12]);
    expected[hops] -= 1;
    expected[destination..destination + to.len()].copy_from_slice(&to);
    expected[port..port + 2].copy_from_slice(&8080_u16.to_be_bytes());
    let transport_check = port + 14;
    expected[transport_check..transport_check + 2]
        .copy_from_slice(&after[transport_check..transport_check + 2]);
    if let Some(check) = check {
        expected[check..check + 2].copy_from_slice(&after[check..check + 2]);
        if !alike(&before[14..34], &after[14..34]) {
            return Some("the checksum of its IP header does not fit");
        }
    }
    if expected != after {
        Some("more than the destination changed")
    } else if !alike(&before[destination..], &after[destination..]) {
        Some("its checksum does not fit the new destination")
    } else {
        None
    }
}

pub(super) fn family_of(frame: &[u8]) -> Family {
    if frame[12..14] == [0x86, 0xdd] { Family::V6 } else { Family::V4 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::octets(&v4).to_vec(),
        IpAddr::V6(v6) => Ipv6Addr::octets(&v6).to_vec(),
    }
}

/// Adds to the last word of an address.
fn add(word: &mut [u8], above: u32) {
    if let Ok(bytes) = <[u8; 4]>::try_from(&*word) {
        word.copy_from_slice(&(u32::from_be_bytes(bytes) + above).to_be_bytes());
    }
}

/// Whether what their checksums cover differs by as much as these: the packets of the dispatcher have no right ones.
fn alike(before: &[u8], after: &[u8]) -> bool {
    sum(before) % 0xffff == sum(after) % 0xffff
}

/// The sum of ones' complement over bytes of an even number.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks_exact(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::world::{ACK, frame, mac_of, vip};
    use super::*;

    fn sent(number: u32) -> (Vec<u8>, Vec<u8>) {
        let before = packet(&frame(vip(Family::V4, 0), ACK), 5, 1 << 16, 1);
        let mut after = before.clone();
        after[..6].copy_from_slice(&mac_of(number).0);
        after[6..12].copy_from_slice(&OWN_MAC.0);
        (before, after)
    }

    #[test]
    fn only_what_the_mode_changes_may_change() {
        let (before, mut after) = sent(7);
        assert_eq!(fault(How::Dsr, &before, &after, Some(7)), None);
        assert!(fault(How::Gue, &before, &after, None).is_some());
        assert!(fault(How::Local, &before, &after, None).is_some());
        assert_eq!(fault(How::Local, &before, &before, None), None);
        assert!(fault(How::Dsr, &before, &after, Some(8)).is_some());
        assert!(fault(How::Nat, &before, &after, None).is_some());
        assert!(fault(How::Tunnel, &before, &after, None).is_some());
        after[30] += 1;
        assert!(fault(How::Dsr, &before, &after, Some(7)).is_some());
    }

    #[test]
    fn packets_of_other_numbers_are_of_other_flows_and_whole() {
        let first = frame(vip(Family::V4, 0), ACK);
        let (one, other) = (packet(&first, 1, 1 << 20, 1000), packet(&first, 2, 1 << 20, 1000));
        assert_ne!(one[26..38], other[26..38]);
        assert_eq!(one[..26], other[..26]);
        assert_eq!(one[38..], first[38..]);
    }
}
