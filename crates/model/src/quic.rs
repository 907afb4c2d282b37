//! The names of servers in connection ids of QUIC (draft-ietf-quic-load-balancers, section 3, without encryption).
//!
//! ```text
//!   first byte          then
//!   c c c x x x x x     server id, as long as all of the service      nonce ...
//!   └─┬─┘ config rotation: an id of another one is not for us
//! ```
//!
//! A server puts its id into each connection id that it gives out, so a client names it wherever it calls from.

use core::fmt;

/// Bytes of the longest server id: what fits a word.
pub const SERVER_ID_MAX: usize = 8;
/// Bits of config rotation that say that an id names nobody.
pub const CONFIG_UNROUTABLE: u8 = 7;

/// How datagrams of a service name their server.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Quic {
    /// The config rotation bits of ids that are ours: 0 to 6.
    pub config: u8,
    /// Bytes of each server id: 1 to `SERVER_ID_MAX`.
    pub length: u8,
}

/// What connection ids call a server.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServerId {
    length: u8,
    number: u64,
}

impl ServerId {
    /// Of these bytes; `None`: none, or too many.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let length = u8::try_from(bytes.len()).ok()?;
        let fits = (1..=SERVER_ID_MAX).contains(&bytes.len());
        let number = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        fits.then_some(Self { length, number })
    }

    /// As it is written: two digits for each byte.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; SERVER_ID_MAX];
        let digits = text.as_bytes();
        let (pairs, rest) = digits.as_chunks::<2>();
        if !rest.is_empty() || pairs.len() > SERVER_ID_MAX {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Self::new(bytes.get(..pairs.len())?)
    }

    /// Of so many bytes that are this number; `None`: none, or too many.
    pub fn of_number(length: u8, number: u64) -> Option<Self> {
        let bytes = number.to_be_bytes();
        Self::new(bytes.get(SERVER_ID_MAX.checked_sub(length.into())?..)?)
    }

    /// Its bytes as a number.
    pub const fn number(self) -> u64 {
        self.number
    }

    /// How many bytes it has.
    pub const fn length(self) -> u8 {
        self.length
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$x}", self.number, width = usize::from(self.length) * 2)
    }
}

/// Whom a datagram names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Named {
    /// This server, if there is one.
    Server(ServerId),
    /// The same, unless a client that begins has made it up.
    Perhaps(ServerId),
    /// Nobody, and it is of a connection that has got an id: a server that does not know the configuration gave it.
    Stranger,
    /// Nobody: it begins a connection, or is none of QUIC.
    Nobody,
}

impl Quic {
    /// Whom the bytes of a datagram name.
    pub fn named(self, datagram: &[u8]) -> Named {
        const LONG: u8 = 0x80;
        let Some(&first) = datagram.first() else { return Named::Nobody };
        let is_long = first & LONG != 0;
        // RFC 8999: of a long header, the version and the length of the id are before it.
        let id = match is_long {
            true => datagram.get(5).and_then(|length| datagram.get(6..6 + usize::from(*length))),
            false => datagram.get(1..),
        };
        let routed = id.and_then(|id| {
            let (head, rest) = id.split_first()?;
            let server = rest.get(..self.length.into())?;
            ServerId::new(server).filter(|_| head >> 5 == self.config)
        });
        match routed {
            Some(id) if is_long => Named::Perhaps(id),
            Some(id) => Named::Server(id),
            // A client that begins makes an id up.
            None if is_long => Named::Nobody,
            None => Named::Stranger,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use alloc::vec::Vec;

    fn id(text: &str) -> ServerId {
        ServerId::parse(text).unwrap()
    }

    #[test]
    fn a_server_id_is_read_as_it_is_shown() {
        for text in ["0a", "0a01", "0000", "ffffffffffffffff", "00112233445566"] {
            assert_eq!(id(text).to_string(), text);
            assert_eq!(ServerId::of_number(id(text).length(), id(text).number()), Some(id(text)));
        }
        assert_ne!(id("00"), id("0000"));
        for bad in ["", "0", "0a0", "xx", "0x0a", "-1", "001122334455667788", "ä"] {
            assert_eq!(ServerId::parse(bad), None, "{bad}");
        }
        assert_eq!(ServerId::of_number(9, 1), None);
        assert_eq!(ServerId::of_number(0, 1), None);
    }

    #[test]
    fn both_kinds_of_headers_name_a_server() {
        let quic = Quic { config: 2, length: 2 };
        let short = [0x40, 0x5f, 0x0a, 0x01, 9, 9];
        let long: Vec<u8> = [&[0xc3, 0, 0, 0, 1, 8][..], &short[1..], &[0; 20]].concat();
        assert_eq!(quic.named(&short), Named::Server(id("0a01")));
        assert_eq!(quic.named(&long), Named::Perhaps(id("0a01")));
        // Another configuration, and an id that is too short for ours.
        assert_eq!(Quic { config: 1, length: 2 }.named(&short), Named::Stranger);
        assert_eq!(Quic { config: 1, length: 2 }.named(&long), Named::Nobody);
        let empty: Vec<u8> = [&[0xc3, 0, 0, 0, 1, 2][..], &short[1..]].concat();
        assert_eq!(quic.named(&empty), Named::Nobody);
        for end in 0..4 {
            let named = if end == 0 { Named::Nobody } else { Named::Stranger };
            assert_eq!(quic.named(&short[..end]), named, "{end}");
        }
        assert_eq!(quic.named(&short[..4]), Named::Server(id("0a01")));
        for end in 0..14 {
            assert_eq!(quic.named(&long[..end]), Named::Nobody, "{end}");
        }
        assert_eq!(quic.named(&long[..14]), Named::Perhaps(id("0a01")));
    }
}
