//! Writes and judges messages of PostgreSQL (its documentation, chapter "Message Formats").

use super::shown;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use buoy_model::PostgresRole;

const NOT_POSTGRES: &str = "the answer is not PostgreSQL";

/// A message of that kind.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind], length.to_be_bytes().as_slice(), body].concat()
}

/// The first message has no kind: protocol 3.0, who asks, and for which database.
pub fn startup(user: &str) -> Vec<u8> {
    let body = [
        b"\0\x03\0\0user\0".as_slice(),
        user.as_bytes(),
        b"\0database\0postgres\0application_name\0buoy\0\0",
    ]
    .concat();
    message(0, &body).split_off(1)
}

/// What a message says before there is a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opening {
    /// More follows.
    Goes,
    /// The server takes connections, and that is all that is asked.
    Takes,
    /// There is a session.
    Ready,
}

/// What that message means for who wants a session, or does not.
pub fn open(kind: u8, body: &[u8], wants_session: bool) -> Result<Opening, String> {
    match (kind, body) {
        (b'R', [0, 0, 0, 0]) | (b'S' | b'K' | b'N' | b'v', _) => Ok(Opening::Goes),
        (b'R', [0, 0, 0, 1..=15, ..]) if wants_session => {
            Err("it asks for a password: let the user in by `trust` in pg_hba.conf".into())
        }
        (b'R', [0, 0, 0, 1..=15, ..]) => Ok(Opening::Takes),
        (b'Z', [_]) => Ok(Opening::Ready),
        (b'E', fields) => refused(fields, wants_session),
        _ => Err(NOT_POSTGRES.into()),
    }
}

/// Whether who is refused has met a server that takes connections of others.
fn refused(fields: &[u8], wants_session: bool) -> Result<Opening, String> {
    let code = field(fields, b'C').ok_or(NOT_POSTGRES)?;
    let words = shown(field(fields, b'M').unwrap_or_default());
    // Class 28: invalid authorization; 3D000: no such database.
    let is_about_us = code.starts_with(b"28") || code == b"3D000";
    if is_about_us && !wants_session {
        return Ok(Opening::Takes);
    }
    Err(format!("PostgreSQL says {words} ({})", shown(code)))
}

/// A field of an error: its kind, its text, and a zero.
fn field(fields: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut all = fields.split(|b| *b == 0);
    all.find_map(|field| {
        field.split_first().filter(|(kind, _)| **kind == wanted).map(|(_, text)| text)
    })
}

/// The role, once the row comes that says it.
pub fn row(kind: u8, body: &[u8]) -> Result<Option<PostgresRole>, String> {
    match (kind, body) {
        // One column of one byte.
        (b'D', [0, 1, 0, 0, 0, 1, b't']) => Ok(Some(PostgresRole::Replica)),
        (b'D', [0, 1, 0, 0, 0, 1, b'f']) => Ok(Some(PostgresRole::Primary)),
        (b'T' | b'S' | b'N', _) => Ok(None),
        (b'E', fields) => {
            let words = shown(field(fields, b'M').unwrap_or_default());
            Err(format!("PostgreSQL says {words}"))
        }
        _ => Err(NOT_POSTGRES.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_is_known_bytes() {
        let known =
            b"\0\0\0\x38\0\x03\0\0user\0buoy\0database\0postgres\0application_name\0buoy\0\0";
        let mut expected = known.to_vec();
        expected[3] = u8::try_from(expected.len()).unwrap();
        assert_eq!(startup("buoy"), expected);
    }
}
