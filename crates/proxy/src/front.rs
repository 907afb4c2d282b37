//! Hears the beginning of a connection: whose it is (PROXY protocol) and which server it wants (TLS).
//!
//! Bounded in bytes and in time: a header of `HEADER_MAX`, a first message of `HELLO_MAX`, and
//! `PROXY_FRONT_TIMEOUT` for both. What was heard beyond the header is kept and told to the backend.

use crate::Settings;
use crate::hello::{self, HELLO_MAX, Hello};
use crate::incoming::{self, HEADER_MAX, Incoming};
use crate::pool::Pool;
use crate::tcp::Arrived;
use buoy_model::Named;
use buoy_model::limits::PROXY_FRONT_TIMEOUT;
use std::io;
use std::net::SocketAddr;
use tokio::io::AsyncReadExt as _;
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
    /// The server that its datagram names.
    pub(crate) named: Named,
    /// What it has said already.
    pub(crate) said: Vec<u8>,
}

impl Caller {
    pub(crate) fn new(client: SocketAddr) -> Self {
        Self { client, service: None, name: None, named: Named::Nobody, said: Vec::new() }
    }
}

/// Whether there is something to hear before a backend is chosen.
pub(crate) fn is_heard(settings: &Settings, from: SocketAddr) -> bool {
    settings.has_names() || settings.front.believes(from.ip())
}

/// Hears it; `None`: not in order, counted, to be reset.
pub(crate) async fn hear(
    arrived: &mut Arrived,
    pool: &Pool,
    settings: &Settings,
) -> Option<Caller> {
    let from = arrived.from;
    let heard = timeout(PROXY_FRONT_TIMEOUT, begin(arrived, settings)).await;
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

async fn begin(arrived: &mut Arrived, settings: &Settings) -> io::Result<Caller> {
    let mut caller = Caller::new(arrived.from);
    let mut header = 0;
    if settings.front.believes(arrived.from.ip()) {
        loop {
            match incoming::parse(&arrived.said) {
                Incoming::Header(length, ends) => {
                    header = length;
                    if let Some((client, service)) = ends {
                        (caller.client, caller.service) = (client, Some(service));
                    }
                    break;
                }
                Incoming::More => more(arrived, HEADER_MAX + PIECE).await?,
                Incoming::Bad => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "no PROXY header"));
                }
            }
        }
    }
    if settings.has_names() {
        loop {
            match hello::parse(arrived.said.get(header..).unwrap_or_default()) {
                Hello::Name(name) => {
                    caller.name = Some(name);
                    break;
                }
                Hello::Nameless => break,
                Hello::More => more(arrived, HELLO_MAX + HEADER_MAX + PIECE).await?,
            }
        }
    }
    // What was heard stays with the client as well, until it has a backend.
    caller.said = arrived.said.get(header..).unwrap_or_default().to_vec();
    Ok(caller)
}

async fn more(arrived: &mut Arrived, most: usize) -> io::Result<()> {
    let Arrived { client, said, .. } = arrived;
    let client = client.as_mut().ok_or(io::ErrorKind::NotConnected)?;
    if most <= said.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more than a beginning has"));
    }
    said.reserve(PIECE);
    match client.take(PIECE as u64).read_buf(said).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
