//! Judges the first packet of MySQL.

use super::{Answer, Said, shown};
use alloc::format;

/// A greeting of protocol 10 passes; an error is told.
pub fn judge(packet: &[u8]) -> Answer {
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
    use super::*;

    #[test]
    fn a_greeting_passes_and_an_error_is_told() {
        let err = |text: &str| Err(alloc::string::String::from(text));
        assert!(judge(b"\x0a8.0.36\0\x08\0\0\0").is_ok());
        let full = b"\xff\x10\x04Too many connections";
        assert_eq!(judge(full), err("MySQL says error 1040: Too many connections"));
        for wrong in [b"".as_slice(), b"\x0a", b"\x0a\0", b"\x0a8.0.36", b"\x098\0", b"\xff\x10"] {
            assert_eq!(judge(wrong), err("the answer is not MySQL"));
        }
    }
}
