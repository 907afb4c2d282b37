//! The Internet checksum (RFC 1071), with and without the pseudo-headers of IPv4 and IPv6.

use core::net::IpAddr;

/// The sum of 16-bit words, not yet folded.
pub(crate) fn add(sum: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(2).fold(sum, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        sum + u64::from(u16::from_be_bytes([pair[0], low]))
    })
}

/// What goes into the field; over a message that holds its own checksum it is zero.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The sum of the pseudo-header (RFC 8200 §8.1; for IPv4 RFC 9293 §3.1).
pub(crate) fn pseudo_header(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    length: usize,
) -> u64 {
    let sum = length as u64 + u64::from(protocol);
    [source, destination].into_iter().fold(sum, |sum, address| match address {
        IpAddr::V4(v4) => add(sum, &v4.octets()),
        IpAddr::V6(v6) => add(sum, &v6.octets()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_and_an_odd_byte() {
        let words = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(add(0, &words)), !0xddf2);
        assert_eq!(fold(add(0, &[0x12])), !0x1200);
    }

    #[test]
    fn the_sum_over_a_message_with_its_checksum_is_zero() {
        let message = [0x31, 1, 100, 1, 0, 100, 0, 0, 10, 0, 0, 100];
        let (a, b) = ([10, 0, 0, 1].into(), [224, 0, 0, 18].into());
        let start = pseudo_header(a, b, 112, message.len());
        let sum = fold(add(start, &message));
        let mut whole = message;
        whole[6..8].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(fold(add(start, &whole)), 0);
        assert_ne!(fold(add(0, &whole)), 0);
    }
}
