//! Hears the beginning of a connection: whose it is (PROXY protocol) and which server it wants (TLS).
//!
//! Bounded in bytes and in time: a header of `HEADER_MAX`, a first message of `HELLO_MAX`, and
//! `PROXY_FRONT_TIMEOUT` for both. What was heard beyond the header is kept and told to the backend.

use crate::Settings;
use crate::hello::{self, HELLO_MAX, Hello};
use crate::incoming::{self, HEADER_MAX, Incoming};
use crate::pool::Pool;
use buoy_model::limits::PROXY_FRONT_TIMEOUT;
use std::io;
use std::net::SocketAddr;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What is taken from the kernel at once.
const PIECE: usize = 2048;

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) client: SocketAddr,
    /// What it connected to, where a header says so.
    pub(crate) service: Option<SocketAddr>,
    /// The server that it asks for.
    pub(crate) name: Option<String>,
    /// What it has said already.
    pub(crate) said: Vec<u8>,
}

impl Caller {
    pub(crate) fn new(client: SocketAddr) -> Self {
        Self { client, service: None, name: None, said: Vec::new() }
    }
}

/// Whether there is something to hear before a backend is chosen.
pub(crate) fn is_heard(settings: &Settings, from: SocketAddr) -> bool {
    settings.has_names() || settings.front.believes(from.ip())
}

/// Hears it; `None`: not in order, counted, to be reset.
pub(crate) async fn hear(
    client: &mut TcpStream,
    from: SocketAddr,
    pool: &Pool,
    settings: &Settings,
) -> Option<Caller> {
    let heard = timeout(PROXY_FRONT_TIMEOUT, begin(client, from, settings)).await;
    let caller = match heard {
        Ok(Ok(caller)) => caller,
        Ok(Err(error)) => {
            tracing::debug!(client = %from, %error, "connection does not begin as it should");
            pool.count_unheard();
            return None;
        }
        Err(_) => {
            tracing::debug!(client = %from, "connection does not begin in time");
            pool.count_unheard();
            return None;
        }
    };
    // Whoever was not announced by somebody else was looked at when it came.
    let is_known = !settings.front.believes(from.ip());
    let is_let_in = is_known || (pool.admits(caller.client) && pool.admits_new(caller.client));
    is_let_in.then_some(caller)
}

async fn begin(
    client: &mut TcpStream,
    from: SocketAddr,
    settings: &Settings,
) -> io::Result<Caller> {
    let mut caller = Caller::new(from);
    if settings.front.believes(from.ip()) {
        loop {
            match incoming::parse(&caller.said) {
                Incoming::Header(length, ends) => {
                    caller.said.drain(..length);
                    if let Some((client, service)) = ends {
                        (caller.client, caller.service) = (client, Some(service));
                    }
                    break;
                }
                Incoming::More => more(client, &mut caller.said, HEADER_MAX + PIECE).await?,
                Incoming::Bad => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "no PROXY header"));
                }
            }
        }
    }
    if settings.has_names() {
        loop {
            match hello::parse(&caller.said) {
                Hello::Name(name) => {
                    caller.name = Some(name);
                    break;
                }
                Hello::Nameless => break,
                Hello::More => {
                    more(client, &mut caller.said, HELLO_MAX + HEADER_MAX + PIECE).await?
                }
            }
        }
    }
    Ok(caller)
}

async fn more(client: &mut TcpStream, said: &mut Vec<u8>, most: usize) -> io::Result<()> {
    if most <= said.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more than a beginning has"));
    }
    said.reserve(PIECE);
    match client.take(PIECE as u64).read_buf(said).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
