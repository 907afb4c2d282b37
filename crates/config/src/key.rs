//! Reads and writes key files: one line of 64 hexadecimal digits, `#` begins a comment.
//!
//! No error repeats what the file holds: an almost right key is still a secret.

use buoy_model::limits::KEY_LEN;
use buoy_wire::Key;
use core::fmt;

/// Why a text is not a key file. Lines and columns are from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyError {
    /// It has no line besides comments.
    Empty,
    /// It has a second line besides comments.
    SecondLine {
        /// Which.
        line: usize,
    },
    /// A character is no hexadecimal digit.
    NotHex {
        /// In which line.
        line: usize,
        /// At which character.
        column: usize,
    },
    /// The number of digits is not 64.
    Length {
        /// How many there are.
        digits: usize,
    },
    /// Every byte is zero: a placeholder, not a key.
    Zero,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "it holds no key"),
            Self::SecondLine { line } => {
                write!(f, "line {line} is a second key; one file holds one")
            }
            Self::NotHex { line, column } => {
                write!(f, "line {line}, column {column}: not a hexadecimal digit")
            }
            Self::Length { digits } => {
                write!(f, "it has {digits} hexadecimal digits, a key has {}", 2 * KEY_LEN)
            }
            Self::Zero => write!(f, "every digit is 0, which anybody can guess"),
        }
    }
}

impl core::error::Error for KeyError {}

/// The key that a key file holds.
pub fn parse(text: &str) -> Result<Key, KeyError> {
    bytes(text).map(Key::new)
}

/// A key file that holds this key.
pub fn format(key: &[u8; KEY_LEN]) -> String {
    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "# Key of a Buoy cluster: the same file on every host, readable by root only.\n{digits}\n"
    )
}

/// The bytes behind the digits.
pub(crate) fn bytes(text: &str) -> Result<[u8; KEY_LEN], KeyError> {
    let mut key = None;
    for (i, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default();
        let digits = content.trim();
        if digits.is_empty() {
            continue;
        }
        if key.is_some() {
            return Err(KeyError::SecondLine { line: i + 1 });
        }
        let indent = content.chars().take_while(|c| c.is_whitespace()).count();
        key = Some(line_bytes(digits, i + 1, indent)?);
    }
    match key {
        None => Err(KeyError::Empty),
        Some(key) if key == [0; KEY_LEN] => Err(KeyError::Zero),
        Some(key) => Ok(key),
    }
}

fn line_bytes(digits: &str, line: usize, indent: usize) -> Result<[u8; KEY_LEN], KeyError> {
    let mut key = [0; KEY_LEN];
    for (i, c) in digits.chars().enumerate() {
        let Some(digit) = c.to_digit(16).and_then(|d| u8::try_from(d).ok()) else {
            return Err(KeyError::NotHex { line, column: indent + i + 1 });
        };
        if let Some(byte) = key.get_mut(i / 2) {
            *byte = *byte << 4 | digit;
        }
    }
    let digits = digits.chars().count();
    if digits == 2 * KEY_LEN { Ok(key) } else { Err(KeyError::Length { digits }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";

    #[test]
    fn what_is_written_is_read_back() {
        let mut key = [7; KEY_LEN];
        key[31] = 0xff;
        assert_eq!(bytes(&format(&key)), Ok(key));
    }

    #[test]
    fn comments_blank_lines_and_case_do_not_matter() {
        let plain = bytes(DIGITS).unwrap();
        for text in [
            format!("# made today\n\n  {DIGITS}  # end\n\n"),
            DIGITS.to_uppercase(),
            format!("{DIGITS}\r\n"),
        ] {
            assert_eq!(bytes(&text), Ok(plain), "{text:?}");
        }
    }

    #[test]
    fn every_fault_of_a_key_file_has_its_error() {
        let table = [
            (String::new(), KeyError::Empty),
            ("# only a comment\n".to_owned(), KeyError::Empty),
            (format!("{DIGITS}\n{DIGITS}\n"), KeyError::SecondLine { line: 2 }),
            (format!("\n {}", DIGITS.replace('b', "x")), KeyError::NotHex { line: 2, column: 25 }),
            (DIGITS[1..].to_owned(), KeyError::Length { digits: 63 }),
            (format!("{DIGITS}00"), KeyError::Length { digits: 66 }),
            ("0".repeat(64), KeyError::Zero),
        ];
        for (text, error) in table {
            assert_eq!(bytes(&text), Err(error), "{text:?}");
            assert!(!error.to_string().contains("0001"), "the content is not repeated");
        }
    }
}
