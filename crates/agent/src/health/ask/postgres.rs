//! Asks PostgreSQL whether it takes connections, and whether it is the primary or a replica.
//!
//! Without a role it is asked like `pg_isready` does: whoever asks for a password takes connections. A role
//! needs a session, which is had without a password only: a check holds no secrets of a database.
//! (PostgreSQL documentation, chapter "Message Formats".)

use super::{Answer, CLOSED, Said};
use buoy_model::PostgresRole;
use buoy_model::limits::CHECK_ANSWER_MAX;
use buoy_wire::answer::postgres::{Opening, message, open, row, startup};
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
