//! Reads the first packet of a MySQL server: its greeting, or why there is none.

use super::lines::shown;
use super::{Answer, CLOSED, Said};
use buoy_model::limits::CHECK_ANSWER_MAX;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

pub(super) async fn ask(mut stream: TcpStream) -> Answer {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(|_| CLOSED.to_owned())?;
    let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
    // The first packet of a connection has the number 0.
    if head[2] != 0 || head[3] != 0 || length == 0 || CHECK_ANSWER_MAX < length {
        return Err("the answer is not MySQL".into());
    }
    let mut packet = vec![0; length];
    stream.read_exact(&mut packet).await.map_err(|_| CLOSED.to_owned())?;
    judge(&packet)
}

fn judge(packet: &[u8]) -> Answer {
    match packet {
        // Protocol 10: the version, ended by a zero, and the number of the connection.
        [10, rest @ ..] => match rest.iter().position(|b| *b == 0) {
            Some(1..) => Ok(Said::default()),
            Some(0) | None => Err("the answer is not MySQL".into()),
        },
        [0xff, low, high, message @ ..] => {
            let number = u16::from_le_bytes([*low, *high]);
            Err(format!("MySQL says error {number}: {}", shown(message)))
        }
        _ => Err("the answer is not MySQL".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise::Noise;
    use super::*;

    #[test]
    fn a_greeting_passes_and_an_error_is_told() {
        let err = |text: &str| Err(text.to_owned());
        assert!(judge(b"\x0a8.0.36\0\x08\0\0\0").is_ok());
        let full = b"\xff\x10\x04Too many connections";
        assert_eq!(judge(full), err("MySQL says error 1040: Too many connections"));
        for wrong in [b"".as_slice(), b"\x0a", b"\x0a\0", b"\x0a8.0.36", b"\x098\0", b"\xff\x10"] {
            assert_eq!(judge(wrong), err("the answer is not MySQL"));
        }
        let mut noise = Noise::new(7);
        for _ in 0..1_000_000 {
            let mut packet = noise.bytes(24);
            if let Some(first) = packet.first_mut() {
                *first = [*first, 10, 0xff][usize::from(*first) % 3];
            }
            let _ = judge(&packet);
        }
    }
}
