//! Writes and reads the messages of `grpc.health.v1`.

use alloc::vec::Vec;

/// Whether it is compressed, and its length.
const PREFIX: usize = 5;

/// `HealthCheckRequest { service }`. Names have at most 255 bytes.
pub fn question(service: &str) -> Vec<u8> {
    const SERVICE: u8 = 1 << 3 | 2;
    let name = &service.as_bytes()[..service.len().min(255)];
    let mut message = Vec::new();
    if !name.is_empty() {
        message.push(SERVICE);
        let mut length = name.len();
        while 0x80 <= length {
            message.push(0x80 | u8::try_from(length & 0x7f).unwrap_or(0));
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or(0));
        message.extend_from_slice(name);
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], length.to_be_bytes().as_slice(), &message].concat()
}

/// `HealthCheckResponse { status }`; left out it is 0.
pub fn status(body: &[u8]) -> Option<u64> {
    let (&[compressed, a, b, c, d], rest) = body.split_first_chunk::<PREFIX>()?;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    let mut message = rest.get(..length).filter(|_| compressed == 0)?;
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let skipped = match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

/// Seven bits a byte, the lowest first, ten bytes at most.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for place in 0..10 {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << (7 * place);
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_are_known_bytes() {
        assert_eq!(&question("")[..], b"\0\0\0\0\0");
        assert_eq!(&question("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        assert_eq!(&question(&"x".repeat(200))[..8], b"\0\0\0\0\xcb\x0a\xc8\x01");
        let table: [(&[u8], Option<u64>); 9] = [
            (b"\0\0\0\0\x02\x08\x01", Some(1)),
            (b"\0\0\0\0\x02\x08\x02", Some(2)),
            (b"\0\0\0\0\0", Some(0)),
            (b"\0\0\0\0\x06\x12\x02hi\x08\x01", Some(1)),
            (b"\x01\0\0\0\x02\x08\x01", None),
            (b"\0\0\0\0\x03\x08\x01", None),
            (b"\0\0\0\0\x01\x08", None),
            (b"\0\0\0\0\x02\x12\x7f", None),
            (b"", None),
        ];
        for (body, expected) in table {
            assert_eq!(status(body), expected, "{body:?}");
        }
    }
}
