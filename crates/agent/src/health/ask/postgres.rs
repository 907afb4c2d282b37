//! Asks PostgreSQL whether it takes connections, and whether it is the primary or a replica.
//!
//! Without a role it is asked like `pg_isready` does: whoever asks for a password takes connections. A role
//! needs a session, which is had without a password only: a check holds no secrets of a database.
//! (PostgreSQL documentation, chapter "Message Formats".)

use super::lines::shown;
use super::{Answer, CLOSED, Said};
use buoy_model::PostgresRole;
use buoy_model::limits::CHECK_ANSWER_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Kind and length of a message.
const HEAD: usize = 5;
const NOT_POSTGRES: &str = "the answer is not PostgreSQL";

pub(super) async fn ask(stream: TcpStream, role: Option<PostgresRole>, user: &str) -> Answer {
    let mut session = Session { stream, room: CHECK_ANSWER_MAX };
    session.say(&startup(user)).await?;
    loop {
        let (kind, body) = session.next().await?;
        match (open(kind, &body, role.is_some())?, role) {
            (Opening::Goes, _) => {}
            (Opening::Takes, _) | (Opening::Ready, None) => return Ok(Said::default()),
            (Opening::Ready, Some(role)) => return session.role(role).await,
        }
    }
}

/// One connection, of which so many bytes may still be read.
struct Session {
    stream: TcpStream,
    room: usize,
}

impl Session {
    async fn say(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).await.map_err(|_| CLOSED.to_owned())
    }

    /// Kind and content of the next message.
    async fn next(&mut self) -> Result<(u8, Vec<u8>), String> {
        let mut head = [0; HEAD];
        self.stream.read_exact(&mut head).await.map_err(|_| CLOSED.to_owned())?;
        let [kind, length @ ..] = head;
        // The length counts itself.
        let length = usize::try_from(u32::from_be_bytes(length)).ok();
        let length = length.and_then(|length| length.checked_sub(4)).ok_or(NOT_POSTGRES)?;
        if !kind.is_ascii_alphabetic() {
            return Err(NOT_POSTGRES.into());
        }
        self.room = self.room.checked_sub(HEAD + length).ok_or("the answer is too long")?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.map_err(|_| CLOSED.to_owned())?;
        Ok((kind, body))
    }

    async fn role(&mut self, wanted: PostgresRole) -> Answer {
        const TERMINATE: &[u8] = b"X\0\0\0\x04";
        self.say(&message(b'Q', b"SELECT pg_is_in_recovery()\0")).await?;
        loop {
            let (kind, body) = self.next().await?;
            if let Some(is) = row(kind, &body)? {
                // It has answered; whether it hears the goodbye does not matter.
                let _ = self.say(TERMINATE).await;
                return match (is, wanted) {
                    (PostgresRole::Primary, PostgresRole::Primary)
                    | (PostgresRole::Replica, PostgresRole::Replica) => Ok(Said::default()),
                    (PostgresRole::Primary, PostgresRole::Replica) => {
                        Err("it is the primary, not a replica".into())
                    }
                    (PostgresRole::Replica, PostgresRole::Primary) => {
                        Err("it is a replica, not the primary".into())
                    }
                };
            }
        }
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind], length.to_be_bytes().as_slice(), body].concat()
}

/// The first message has no kind: protocol 3.0, who asks, and for which database.
fn startup(user: &str) -> Vec<u8> {
    let body = [
        b"\0\x03\0\0user\0".as_slice(),
        user.as_bytes(),
        b"\0database\0postgres\0application_name\0buoy\0\0",
    ]
    .concat();
    message(0, &body).split_off(1)
}

/// What a message says before there is a session.
#[derive(Debug, Eq, PartialEq)]
enum Opening {
    /// More follows.
    Goes,
    /// The server takes connections, and that is all that is asked.
    Takes,
    Ready,
}

fn open(kind: u8, body: &[u8], wants_session: bool) -> Result<Opening, String> {
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
fn row(kind: u8, body: &[u8]) -> Result<Option<PostgresRole>, String> {
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
    use super::super::noise::Noise;
    use super::*;

    #[test]
    fn the_first_message_is_known_bytes() {
        let known =
            b"\0\0\0\x38\0\x03\0\0user\0buoy\0database\0postgres\0application_name\0buoy\0\0";
        let mut expected = known.to_vec();
        expected[3] = u8::try_from(expected.len()).unwrap();
        assert_eq!(startup("buoy"), expected);
    }

    #[test]
    fn whatever_comes_as_a_message_of_postgres_is_no_panic() {
        let mut noise = Noise::new(11);
        for _ in 0..500_000 {
            let body = noise.bytes(16);
            let kind = [b'R', b'E', b'D', noise.byte()][noise.below(4)];
            let _ = (open(kind, &body, noise.below(2) == 0), row(kind, &body));
        }
    }
}
