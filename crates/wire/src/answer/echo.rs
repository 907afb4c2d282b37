//! An ICMP echo as bytes, and what answers it (RFC 792, RFC 4443 §4.1).

use crate::checksum;
use core::net::IpAddr;

/// Bytes of the largest message that is looked at: an IPv4 header with options, and an echo.
pub const MESSAGE_MAX: usize = 128;
/// Type, code, checksum, identifier, sequence number.
const HEAD: usize = 8;

/// One question, told from all others by its mark.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Echo {
    mark: [u8; 4],
    ipv6: bool,
}

impl Echo {
    /// A question to that address; the mark should be random.
    pub const fn new(address: IpAddr, mark: [u8; 4]) -> Self {
        Self { mark, ipv6: address.is_ipv6() }
    }

    /// The bytes to send. The kernel fills in the checksum of ICMPv6.
    pub fn question(self) -> [u8; HEAD] {
        const ECHO_V4: u8 = 8;
        const ECHO_V6: u8 = 128;
        let [a, b, c, d] = self.mark;
        if self.ipv6 {
            return [ECHO_V6, 0, 0, 0, a, b, c, d];
        }
        let sum = checksum::add(0, &[ECHO_V4, 0, 0, 0, a, b, c, d]);
        let [high, low] = checksum::fold(sum).to_be_bytes();
        [ECHO_V4, 0, high, low, a, b, c, d]
    }

    /// Whether what was heard answers the question. Over IPv4 the kernel leaves the IP header in front.
    pub fn is_answer(self, heard: &[u8]) -> bool {
        const REPLY_V4: u8 = 0;
        const REPLY_V6: u8 = 129;
        let (reply, message) = if self.ipv6 {
            (REPLY_V6, Some(heard))
        } else {
            let header = heard.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
            (REPLY_V4, heard.get(header..).filter(|_| 20 <= header))
        };
        let head = message.and_then(<[u8]>::first_chunk::<HEAD>);
        head.is_some_and(|[kind, code, _, _, mark @ ..]| {
            (*kind, *code, *mark) == (reply, 0, self.mark)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    #[test]
    fn only_the_reply_with_the_mark_is_an_answer() {
        let echo = Echo::new(IpAddr::V4(Ipv4Addr::LOCALHOST), [0x12, 0x34, 0, 1]);
        assert_eq!(echo.question(), [8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1]);
        let ip = [&[0x45_u8][..], &[0; 19]].concat();
        let heard = |message: &[u8]| echo.is_answer(&[&ip, message].concat());
        assert!(heard(&[0, 0, 0xed, 0xca, 0x12, 0x34, 0, 1]));
        assert!(heard(&[0, 0, 0xed, 0xca, 0x12, 0x34, 0, 1, 9, 9]));
        assert!(!heard(&[8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1]), "the question itself, on loopback");
        assert!(!heard(&[0, 1, 0, 0, 0x12, 0x34, 0, 1]));
        assert!(!heard(&[0, 0, 0, 0, 0x12, 0x34, 0, 2]));
        assert!(!heard(&[0, 0, 0, 0, 0x12, 0x34, 0]));
        assert!(!echo.is_answer(&[]) && !echo.is_answer(&[0x41]) && !echo.is_answer(&[0x4f; 30]));
        let echo = Echo::new("::1".parse().unwrap(), [1, 2, 3, 4]);
        assert_eq!(echo.question(), [128, 0, 0, 0, 1, 2, 3, 4]);
        assert!(echo.is_answer(&[129, 0, 7, 7, 1, 2, 3, 4]));
        assert!(!echo.is_answer(&[128, 0, 7, 7, 1, 2, 3, 4]) && !echo.is_answer(&[129, 0, 7]));
    }
}
