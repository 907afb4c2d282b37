//! Asks one server once, in the protocol that the check names.
//!
//! The caller limits the time and drops the question, and with it all that it holds; here the size
//! of an answer is limited. What is wrong comes back in words for people. One file for each protocol.

mod certificate;
mod http;
mod http2;
#[cfg(test)]
pub(crate) mod noise;
mod tls;

use buoy_model::{CheckKind, HttpCheck};
use http::Pattern;
use std::io;
use std::net::SocketAddr;
use tls::Handshake;
use tokio::net::TcpStream;

/// What a right answer says besides that it is right.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Said {
    /// What people should know, in words; mostly nothing.
    pub(crate) warning: String,
}

/// `Err` says what is wrong.
pub(crate) type Answer = Result<Said, String>;

/// The question for one server.
#[derive(Debug)]
pub(crate) struct Asker {
    question: Question,
    address: SocketAddr,
}

#[derive(Debug)]
enum Question {
    Tcp,
    Tls(Handshake),
    Http { http: Box<HttpCheck>, tls: Option<Handshake>, pattern: Pattern },
}

impl Asker {
    pub(crate) fn new(kind: &CheckKind, address: SocketAddr) -> Self {
        let question = match kind {
            CheckKind::Tcp => Question::Tcp,
            CheckKind::Tls { host, tls } => {
                Question::Tls(Handshake::new(tls, host.as_deref(), address, &[]))
            }
            CheckKind::Http(http) => {
                let protocols: &[&[u8]] = if http.http2 { &[b"h2"] } else { &[] };
                let tls = http
                    .tls
                    .as_ref()
                    .map(|tls| Handshake::new(tls, http.host.as_deref(), address, protocols));
                let pattern = Pattern::new(http.body.as_ref());
                Question::Http { http: http.clone(), tls, pattern }
            }
        };
        Self { question, address }
    }

    pub(crate) async fn ask(&self) -> Answer {
        let stream = TcpStream::connect(self.address).await.map_err(|e| explain(&e))?;
        match &self.question {
            Question::Tcp => Ok(Said::default()),
            Question::Tls(handshake) => {
                let (_stream, said) = handshake.shake(stream).await?;
                Ok(said)
            }
            Question::Http { http, tls: None, pattern } => {
                http::ask(stream, http, self.address, pattern).await?;
                Ok(Said::default())
            }
            Question::Http { http, tls: Some(handshake), pattern } => {
                let (stream, said) = handshake.shake(stream).await?;
                http::ask(stream, http, self.address, pattern).await?;
                Ok(said)
            }
        }
    }
}

/// Why there is no connection.
fn explain(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return "connection refused".into();
    }
    if error.kind() == io::ErrorKind::HostUnreachable
        || error.kind() == io::ErrorKind::NetworkUnreachable
    {
        return "no route to the host".into();
    }
    format!("cannot connect: {error}")
}

/// What a server that closes the connection too early is said to do.
const CLOSED: &str = "closed the connection without an answer";
