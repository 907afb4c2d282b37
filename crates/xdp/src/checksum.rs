//! What is known of checksums before a packet comes (RFC 1071, RFC 1624), so that the programs have little to add.

use core::net::IpAddr;

/// An IPv4 header without options, that may not be fragmented, with the TTL of an outer one: all of it that never changes.
const OUTER: [u8; 10] = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 0];

/// A sum of ones' complement, of 16 bits.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or(0)
}

/// Of words as they lie in a packet.
fn sum(bytes: &[u8], flip: u16) -> u64 {
    bytes.chunks_exact(2).map(|c| u64::from(u16::from_le_bytes([c[0], c[1]]) ^ flip)).sum()
}

fn of_address(address: IpAddr, flip: u16) -> u64 {
    match address {
        IpAddr::V4(v4) => sum(&v4.octets(), flip),
        IpAddr::V6(v6) => sum(&v6.octets(), flip),
    }
}

/// What `old` becoming `new` adds to a checksum of ones' complement (RFC 1624).
pub fn address_change(old: IpAddr, new: IpAddr) -> u16 {
    fold(of_address(old, 0xffff) + of_address(new, 0))
}

/// The same of an address and a port.
pub fn end_change(old: (IpAddr, u16), new: (IpAddr, u16)) -> u16 {
    let addresses = u64::from(address_change(old.0, new.0));
    fold(addresses + sum(&old.1.to_be_bytes(), 0xffff) + sum(&new.1.to_be_bytes(), 0))
}

/// The sum over an outer IPv4 header between these, without its length, TOS and protocol.
pub fn outer_sum(source: IpAddr, destination: IpAddr) -> u16 {
    fold(sum(&OUTER, 0) + of_address(source, 0) + of_address(destination, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition: over all words, with the checksum as zero.
    fn whole(bytes: &[u8]) -> u16 {
        !fold(sum(bytes, 0))
    }

    #[test]
    fn what_was_known_before_is_the_rest_of_the_whole_sum() {
        let (source, destination) = ([10, 0, 0, 1], [203, 0, 113, 255]);
        for (length, service, protocol) in [(60_u16, 0, 4), (1500, 0xff, 41), (0xffff, 0xb8, 17)] {
            let [high, low] = length.to_be_bytes();
            let mut header = vec![0x45, service, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            header.extend(source.into_iter().chain(destination));
            let known = outer_sum(source.into(), destination.into());
            let rest =
                u64::from(length.to_be()) + (u64::from(service) << 8) + (u64::from(protocol) << 8);
            assert_eq!(!fold(u64::from(known) + rest), whole(&header));
        }
    }

    #[test]
    fn a_change_makes_up_for_what_becomes_another() {
        let ends: [(IpAddr, u16); 4] = [
            ("10.0.0.100".parse().unwrap(), 80),
            ("192.168.255.255".parse().unwrap(), 65_535),
            ("fd00::1".parse().unwrap(), 443),
            ("2001:db8:ffff::7".parse().unwrap(), 0),
        ];
        let bytes = |(address, port): (IpAddr, u16)| {
            let mut bytes = vec![0x12, 0x34];
            match address {
                IpAddr::V4(v4) => bytes.extend(v4.octets()),
                IpAddr::V6(v6) => bytes.extend(v6.octets()),
            }
            bytes.extend(port.to_be_bytes());
            bytes
        };
        for (old, new) in [(0, 1), (1, 0), (2, 3), (3, 2), (0, 0)] {
            let (old, new) = (ends[old], ends[new]);
            let change = end_change(old, new);
            let check = u64::from(!whole(&bytes(old)));
            assert_eq!(!fold(check + u64::from(change)), whole(&bytes(new)), "{old:?} {new:?}");
            let port = |of: (IpAddr, u16)| (of.0, 9);
            let (old, new) = (port(old), port(new));
            assert_eq!(
                end_change(old, new),
                fold(u64::from(address_change(old.0, new.0)) + 0xffff)
            );
        }
    }
}
