//! Asks the health service of gRPC (`grpc.health.v1.Health/Check`), whose two messages are a few bytes each.

use super::http::{AGENT, unsendable};
use super::http2::{self, Exchanged};
use super::lines::shown;
use super::{Answer, Said};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, TE, USER_AGENT};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};

/// What stands before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

pub(super) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
    host: Option<&str>,
    service: &str,
    secure: bool,
) -> Answer {
    let scheme = if secure { "https" } else { "http" };
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    let request = Request::post(format!("{scheme}://{host}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, AGENT)
        .body(())
        .map_err(|e| unsendable(&e))?;
    let answer = http2::exchange(stream, request, Some(question(service)), true).await?;
    judge(&answer)
}

/// `HealthCheckRequest { service }`. `config` keeps names to 255 bytes.
fn question(service: &str) -> Bytes {
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
    [&[0], length.to_be_bytes().as_slice(), &message].concat().into()
}

fn judge(answer: &Exchanged) -> Answer {
    if answer.status != 200 {
        return Err(format!("HTTP {} instead of 200", answer.status));
    }
    let header = |name: &str| answer.trailers.get(name).or_else(|| answer.headers.get(name));
    let code = header("grpc-status").map(|value| value.as_bytes());
    match code {
        Some(b"0") => {}
        Some(b"5") => return Err("gRPC does not know that service".into()),
        Some(b"12") => return Err("the server has no grpc.health.v1".into()),
        Some(code) => {
            let words = header("grpc-message").map_or(&[][..], |value| value.as_bytes());
            return Err(format!("gRPC says error {} {}", shown(code), shown(words)).trim().into());
        }
        None => return Err("the answer is not gRPC".into()),
    }
    match status(&answer.body.bytes) {
        Some(1) => Ok(Said::default()),
        Some(2) => Err("gRPC says NOT_SERVING".into()),
        Some(0) => Err("gRPC says UNKNOWN".into()),
        Some(3) => Err("gRPC does not know that service".into()),
        Some(other) => Err(format!("gRPC says status {other}")),
        None => Err("the answer is not gRPC".into()),
    }
}

/// `HealthCheckResponse { status }`; left out it is 0.
fn status(body: &[u8]) -> Option<u64> {
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
    use super::super::noise::Noise;
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

    #[test]
    fn whatever_comes_as_a_message_of_grpc_is_no_panic() {
        let mut noise = Noise::new(9);
        for _ in 0..1_000_000 {
            let message = noise.bytes(16);
            let length = u8::try_from(message.len()).unwrap();
            let _ = status(&[&[0, 0, 0, 0, length], message.as_slice()].concat());
        }
    }
}
