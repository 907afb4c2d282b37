//! Finds the server's name in the first message of a TLS client, without ending TLS.
//!
//! RFC 8446 section 4.1.2 and RFC 6066 section 3. Total and bounded: the message may be in pieces, over records and over
//! segments, as long as it is no longer than `HELLO_MAX`. A name that is no host name is none.

/// The longest first message that is looked through, with the heads of its records.
pub(crate) const HELLO_MAX: usize = 16 << 10;
/// The longest host name.
const NAME_MAX: usize = 253;
const RECORD_HEAD: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;

/// What the first bytes of a connection ask for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Hello {
    /// Not enough yet to tell.
    More,
    /// The server of this name, in small letters.
    Name(String),
    /// TLS that names nobody, or no TLS.
    Nameless,
}

pub(crate) fn parse(bytes: &[u8]) -> Hello {
    match message(bytes) {
        Ok(message) => match name(&message) {
            Some(name) => Hello::Name(name),
            None => Hello::Nameless,
        },
        Err(Lack::More) if bytes.len() < HELLO_MAX => Hello::More,
        Err(Lack::More | Lack::NotTls) => Hello::Nameless,
    }
}

enum Lack {
    More,
    NotTls,
}

/// The body of the ClientHello, put together from its records.
fn message(bytes: &[u8]) -> Result<Vec<u8>, Lack> {
    let (mut rest, mut message) = (bytes, Vec::new());
    loop {
        match rest.first() {
            None => return Err(Lack::More),
            Some(&HANDSHAKE) => {}
            Some(_) => return Err(Lack::NotTls),
        }
        if rest.get(1).is_some_and(|major| *major != 3) {
            return Err(Lack::NotTls);
        }
        let Some(&[_, _, _, high, low]) = rest.get(..RECORD_HEAD) else { return Err(Lack::More) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        // RFC 8446 section 5.1: no empty pieces, and none longer than 2^14.
        if length == 0 || 1 << 14 < length {
            return Err(Lack::NotTls);
        }
        let body = rest.get(RECORD_HEAD..).unwrap_or_default();
        message.extend_from_slice(body.get(..length).unwrap_or(body));
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(Lack::NotTls);
        }
        if let Some(&[_, high, middle, low]) = message.get(..4) {
            let whole = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if HELLO_MAX < whole {
                return Err(Lack::NotTls);
            }
            if message.len() >= 4 + whole {
                message.truncate(4 + whole);
                message.drain(..4);
                return Ok(message);
            }
        }
        rest = body.get(length..).ok_or(Lack::More)?;
    }
}

/// Bytes that are taken from the front, or not there.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    /// What a length of so many bytes stands before.
    fn block(&mut self, bytes: usize) -> Option<Self> {
        let length = self.number(bytes)?;
        self.take(length).map(Self)
    }
}

fn name(message: &[u8]) -> Option<String> {
    let mut reader = Reader(message);
    // Version and random.
    reader.take(2 + 32)?;
    let _session = reader.block(1)?;
    let _ciphers = reader.block(2)?;
    let _compressions = reader.block(1)?;
    let mut extensions = reader.block(2)?;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut extension = extensions.block(2)?;
        if kind == usize::from(SERVER_NAME) {
            let mut names = extension.block(2)?;
            // Of each type one at most, and only one type was ever defined.
            let kind = names.number(1)?;
            let name = names.block(2)?;
            return (kind == 0).then(|| host(name.0)).flatten();
        }
    }
    None
}

fn host(bytes: &[u8]) -> Option<String> {
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let is_name = !bytes.is_empty() && bytes.len() <= NAME_MAX && bytes.iter().all(is_part);
    let text = std::str::from_utf8(bytes).ok().filter(|_| is_name)?;
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    Some(name).filter(|name| !name.is_empty())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(bytes: usize, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        [&length[length.len() - bytes..], content].concat()
    }

    /// A ClientHello as a message, without a record around it.
    fn hello(name: Option<&[u8]>) -> Vec<u8> {
        let mut extensions = [&[0, 43][..], &block(2, &[2, 3, 4])].concat();
        if let Some(name) = name {
            let list = block(2, &[&[0][..], &block(2, name)].concat());
            extensions.extend([&[0, 0][..], &block(2, &list)].concat());
        }
        let body = [
            &[3, 3][..],
            &[7; 32],
            &block(1, &[9; 32]),
            &block(2, &[0x13, 1]),
            &block(1, &[0]),
            &block(2, &extensions),
        ]
        .concat();
        [&[CLIENT_HELLO][..], &block(3, &body)].concat()
    }

    /// In records of so many bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |piece: &[u8]| [&[HANDSHAKE, 3, 1][..], &block(2, piece)].concat();
        message.chunks(size).flat_map(record).collect()
    }

    #[test]
    fn the_name_is_found_however_the_message_is_cut() {
        let message = hello(Some(b"Www.Example.ORG."));
        for size in [1, 3, 40, 41, 500] {
            let bytes = records(&message, size);
            assert_eq!(parse(&bytes), Hello::Name("www.example.org".into()), "{size}");
            for part in 0..bytes.len() {
                assert_eq!(parse(&bytes[..part]), Hello::More, "{size} {part}");
            }
            // What follows changes nothing.
            let followed = [&bytes[..], b"\x17\x03\x03\0\0"].concat();
            assert_eq!(parse(&followed), Hello::Name("www.example.org".into()));
        }
    }

    #[test]
    fn what_names_nobody_is_nameless_at_once() {
        for bytes in [
            records(&hello(None), 500),
            records(&hello(Some(b"")), 500),
            records(&hello(Some(b".")), 500),
            records(&hello(Some(b"a b")), 500),
            records(&hello(Some(&[0xff, 0xfe])), 500),
            records(&hello(Some(&[b'a'; 254])), 500),
            records(&[2, 0, 0, 1, 0], 500),
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"SSH-2.0-OpenSSH\r\n".to_vec(),
            vec![HANDSHAKE, 2],
            vec![HANDSHAKE, 3, 1, 0, 0],
            vec![HANDSHAKE, 3, 1, 0x40, 1],
            vec![HANDSHAKE, 3, 1, 0, 9, CLIENT_HELLO, 1, 0, 0],
        ] {
            assert_eq!(parse(&bytes), Hello::Nameless, "{bytes:?}");
        }
    }

    #[test]
    fn a_message_without_end_is_given_up() {
        let long = [&[CLIENT_HELLO, 0, 0x40, 0][..], &[0; HELLO_MAX]].concat();
        let bytes = records(&long, 1);
        assert_eq!(parse(&bytes[..HELLO_MAX - 1]), Hello::More);
        assert_eq!(parse(&bytes[..HELLO_MAX]), Hello::Nameless);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_host_name_or_none(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
            shape in 0..3_u8, flips in proptest::collection::vec((0..400_usize, any::<u8>()), 0..4)
        ) {
            match shape {
                0 => {}
                1 => bytes = records(&[&[CLIENT_HELLO, 0, 1, 0][..], &bytes].concat(), 100),
                _ => {
                    bytes = records(&hello(Some(b"www.example.org")), 90);
                    for (place, value) in flips {
                        if let Some(byte) = bytes.get_mut(place) {
                            *byte = value;
                        }
                    }
                }
            }
            if let Hello::Name(name) = parse(&bytes) {
                prop_assert!(!name.is_empty());
                prop_assert!(name.len() <= NAME_MAX && !name.contains(|c: char| c.is_uppercase()));
            }
        }
    }
}
