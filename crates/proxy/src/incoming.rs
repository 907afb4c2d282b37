//! Reads the PROXY protocol header, version 1 or 2, that says who the client of a connection is.
//!
//! After haproxy.org's `proxy-protocol.txt`, sections 2.1 and 2.2. Total: every sequence of bytes is a header, the
//! beginning of one, or none. What follows the header is the connection's own.

use crate::header::SIGNATURE;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, with its end.
const LINE_MAX: usize = 107;
/// The longest header of version 2 that is taken: addresses of any family, and room for what senders add.
pub(crate) const HEADER_MAX: usize = 4096;
const FIXED: usize = 16;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Incoming {
    /// Not enough yet to tell.
    More,
    /// A header of so many bytes; the client and what it connected to, where it speaks for somebody else.
    Header(usize, Option<(SocketAddr, SocketAddr)>),
    /// No header.
    Bad,
}

pub(crate) fn parse(bytes: &[u8]) -> Incoming {
    match bytes.first() {
        None => Incoming::More,
        Some(b'P') => line(bytes),
        Some(_) => binary(bytes),
    }
}

/// Version 1: `PROXY TCP4 192.0.2.1 10.0.0.100 56324 443\r\n`.
fn line(bytes: &[u8]) -> Incoming {
    let start = b"PROXY ";
    let length = bytes.len().min(start.len());
    if bytes[..length] != start[..length] {
        return Incoming::Bad;
    }
    let end = bytes.windows(2).take(LINE_MAX - 1).position(|pair| pair == b"\r\n");
    let Some(end) = end else {
        return if bytes.len() < LINE_MAX { Incoming::More } else { Incoming::Bad };
    };
    let text = std::str::from_utf8(bytes.get(start.len()..end).unwrap_or_default());
    let Ok(text) = text else { return Incoming::Bad };
    // What follows the word says nothing that could be relied on.
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Incoming::Header(end + 2, None);
    }
    match ends(text) {
        Some(ends) => Incoming::Header(end + 2, Some(ends)),
        None => Incoming::Bad,
    }
}

fn ends(text: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut words = text.split(' ');
    let mut next = || words.next();
    let (family, source, destination) = (next()?, next()?, next()?);
    let (source, destination): (IpAddr, IpAddr) = match family {
        "TCP4" => {
            (source.parse::<Ipv4Addr>().ok()?.into(), destination.parse::<Ipv4Addr>().ok()?.into())
        }
        "TCP6" => {
            (source.parse::<Ipv6Addr>().ok()?.into(), destination.parse::<Ipv6Addr>().ok()?.into())
        }
        _ => return None,
    };
    let (from, to) = (port(next()?)?, port(next()?)?);
    match next() {
        None => Some((SocketAddr::new(source, from), SocketAddr::new(destination, to))),
        Some(_) => None,
    }
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// Version 2.
fn binary(bytes: &[u8]) -> Incoming {
    let length = bytes.len().min(SIGNATURE.len());
    if bytes[..length] != SIGNATURE[..length] {
        return Incoming::Bad;
    }
    let Some(&[version_command, family, high, low]) = bytes.get(SIGNATURE.len()..FIXED) else {
        return Incoming::More;
    };
    let end = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if HEADER_MAX < end || version_command >> 4 != 2 {
        return Incoming::Bad;
    }
    let Some(body) = bytes.get(FIXED..end) else { return Incoming::More };
    match (version_command & 0xf, family) {
        // LOCAL: the sender speaks for itself, as for a health check.
        (0, _) => Incoming::Header(end, None),
        (1, 0x11) => match addresses::<4>(body) {
            Some(ends) => Incoming::Header(end, Some(ends)),
            None => Incoming::Bad,
        },
        (1, 0x21) => match addresses::<16>(body) {
            Some(ends) => Incoming::Header(end, Some(ends)),
            None => Incoming::Bad,
        },
        // A family that has no addresses for us: the sender's own counts, says the protocol.
        (1, _) => Incoming::Header(end, None),
        _ => Incoming::Bad,
    }
}

fn addresses<const N: usize>(body: &[u8]) -> Option<(SocketAddr, SocketAddr)>
where
    IpAddr: From<[u8; N]>,
{
    let ip = |at: usize| -> Option<IpAddr> {
        let octets: [u8; N] = body.get(at..at + N)?.try_into().ok()?;
        Some(IpAddr::from(octets).to_canonical())
    };
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let source = SocketAddr::new(ip(0)?, port(2 * N)?);
    Some((source, SocketAddr::new(ip(N)?, port(2 * N + 2)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header;
    use buoy_model::SendProxy;
    use proptest::prelude::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_line_of_version_1_names_both_ends() {
        let header = b"PROXY TCP4 192.0.2.1 10.0.0.100 56324 443\r\nGET";
        let ends = Some((at("192.0.2.1:56324"), at("10.0.0.100:443")));
        assert_eq!(parse(header), Incoming::Header(header.len() - 3, ends));
        let header = b"PROXY TCP6 2001:db8::1 2001:db8::64 1 2\r\n";
        let ends = Some((at("[2001:db8::1]:1"), at("[2001:db8::64]:2")));
        assert_eq!(parse(header), Incoming::Header(header.len(), ends));
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), Incoming::Header(15, None));
        assert_eq!(parse(b"PROXY UNKNOWN ffff::1 x 0 0\r\n"), Incoming::Header(29, None));
    }

    #[test]
    fn what_is_no_line_is_refused_as_soon_as_that_is_seen() {
        for bad in [
            "PROXY TCP4 192.0.2.1 10.0.0.100 56324\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.100 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.100 56324 65536\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.100 +1 443\r\n",
            "PROXY TCP4 2001:db8::1 10.0.0.100 1 443\r\n",
            "PROXY  TCP4 192.0.2.1 10.0.0.100 1 443\r\n",
            "PROXY UDP4 192.0.2.1 10.0.0.100 1 443\r\n",
            "PROXY\r\n",
            "POST / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), Incoming::Bad, "{bad:?}");
        }
        let endless = format!("PROXY TCP4 {}", "1".repeat(LINE_MAX));
        assert_eq!(parse(&endless.as_bytes()[..LINE_MAX - 1]), Incoming::More);
        assert_eq!(parse(endless.as_bytes()), Incoming::Bad);
    }

    #[test]
    fn what_is_sent_is_what_is_heard_whole_or_in_pieces() {
        for (client, service) in
            [("192.0.2.1:56324", "10.0.0.100:443"), ("[2001:db8::1]:4000", "[2001:db8::64]:53")]
        {
            for version in [SendProxy::V1, SendProxy::V2] {
                let mut bytes = header::emit(version, at(client), at(service));
                let length = bytes.len();
                bytes.extend(b"GET /");
                let whole = Incoming::Header(length, Some((at(client), at(service))));
                assert_eq!(parse(&bytes), whole, "{version:?} {client}");
                for part in 0..length {
                    assert_eq!(parse(&bytes[..part]), Incoming::More, "{version:?} {part}");
                }
            }
        }
    }

    #[test]
    fn version_2_may_be_local_of_another_family_or_longer_but_not_without_end() {
        let header = |command: u8, family: u8, body: &[u8]| {
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            [&SIGNATURE[..], &[command, family], &length, body].concat()
        };
        assert_eq!(parse(&header(0x20, 0, &[])), Incoming::Header(16, None));
        assert_eq!(parse(&header(0x21, 0x31, &[0; 216])), Incoming::Header(232, None));
        let mut with_more = vec![10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2];
        with_more.extend([0x03, 0, 4, 1, 2, 3, 4]);
        let ends = Some((at("10.0.0.1:1"), at("10.0.0.2:2")));
        assert_eq!(parse(&header(0x21, 0x11, &with_more)), Incoming::Header(35, ends));
        for bad in [
            header(0x21, 0x11, &[0; 11]),
            header(0x21, 0x21, &[0; 35]),
            header(0x11, 0x11, &[0; 12]),
            header(0x22, 0x11, &[0; 12]),
            header(0x21, 0x11, &[0; HEADER_MAX]),
        ] {
            assert_eq!(parse(&bad), Incoming::Bad, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_alike_whole_and_in_pieces(
            start in 0..4_u8, bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let start: &[u8] = match start {
                0 => b"",
                1 => b"PROXY TCP4 ",
                2 => &SIGNATURE,
                _ => b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0",
            };
            let bytes = [start, &bytes].concat();
            let whole = parse(&bytes);
            if let Incoming::Header(length, _) = whole {
                prop_assert!(length <= bytes.len() && length <= HEADER_MAX);
                prop_assert_eq!(parse(&bytes[..length]), whole);
                prop_assert_eq!(parse(&bytes[..length - 1]), Incoming::More);
            }
        }
    }
}
