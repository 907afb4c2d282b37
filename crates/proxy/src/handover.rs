//! Takes connections and listening sockets out of an agent that ends, for the one that comes after it.
//!
//! `hand_over` stops the threads between two steps of every connection and gathers what they drop: both sockets of
//! a connection, and what was read from one and not yet written to the other. `inherit` keeps what
//! an earlier run has left until a proxy asks for it; what nobody has asked for by `settle` goes on by itself until its
//! end, as connections do whose service leaves the configuration.
//!
//! Absent on purpose: how it gets from one process to the next (the agent's business), and UDP, whose sessions are
//! over with the agent.

use crate::pool::Pool;
use crate::{Settings, tcp, threads};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long connections that have no backend yet may take to get one.
const OPENING_MAX: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Something of a proxy that outlives its agent.
#[derive(Debug)]
pub enum Handed {
    /// A listening socket of that address.
    Listener {
        /// Where.
        address: SocketAddr,
        /// It.
        socket: TcpListener,
    },
    /// A connection with both ends.
    Pair(Pair),
}

/// A connection with both ends.
#[derive(Debug)]
pub struct Pair {
    /// Where its client connected to.
    pub service: SocketAddr,
    /// The backend's name.
    pub name: String,
    /// The backend's address.
    pub address: SocketAddr,
    /// The client's socket.
    pub client: TcpStream,
    /// The backend's socket.
    pub backend: TcpStream,
    /// From the client to the backend.
    pub there: Half,
    /// From the backend to the client.
    pub back: Half,
}

/// One direction of a connection.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Half {
    /// What was read and not written.
    pub rest: Vec<u8>,
    /// Whether its end was passed on.
    pub ended: bool,
}

impl From<Pair> for Handed {
    fn from(pair: Pair) -> Self {
        Self::Pair(pair)
    }
}

/// Whether what is dropped is gathered.
static HANDING: AtomicBool = AtomicBool::new(false);
static HANDED: Mutex<Vec<Handed>> = Mutex::new(Vec::new());
static INHERITED: Mutex<Vec<Handed>> = Mutex::new(Vec::new());
/// Connections that were accepted and have no backend yet.
static OPENING: AtomicUsize = AtomicUsize::new(0);

/// One of those; a listening socket counts as well, as long as it may bring another one.
#[derive(Debug)]
pub(crate) struct Opening(());

impl Opening {
    pub(crate) fn new() -> Self {
        OPENING.fetch_add(1, SeqCst);
        Self(())
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        OPENING.fetch_sub(1, SeqCst);
    }
}

/// A listening socket, which is not closed while things are handed over.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: tokio::net::TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) _opening: Opening,
}

impl Drop for Listening {
    fn drop(&mut self) {
        collect(|| {
            let socket = self.listener.as_fd().try_clone_to_owned().ok()?.into();
            Some(Handed::Listener { address: self.address, socket })
        });
    }
}

/// Keeps what is being dropped, while things are handed over.
pub(crate) fn collect(take: impl FnOnce() -> Option<Handed>) {
    if HANDING.load(SeqCst)
        && let Some(handed) = take()
    {
        HANDED.lock().unwrap_or_else(PoisonError::into_inner).push(handed);
    }
}

/// Stops carrying and returns everything that can go on in another process, listeners first. `close` ends
/// accepting, and is called before connections that are just being opened get their time.
pub fn hand_over(close: impl FnOnce()) -> Vec<Handed> {
    HANDING.store(true, SeqCst);
    close();
    let start = Instant::now();
    while OPENING.load(SeqCst) != 0 && start.elapsed() < OPENING_MAX {
        std::thread::sleep(LOOK_AGAIN);
    }
    threads::stop();
    let mut all = std::mem::take(&mut *HANDED.lock().unwrap_or_else(PoisonError::into_inner));
    all.sort_by_key(|handed| matches!(handed, Handed::Pair(_)));
    all
}

/// Keeps what an earlier run has left, for the proxies that will be started.
pub fn inherit(all: Vec<Handed>) {
    INHERITED.lock().unwrap_or_else(PoisonError::into_inner).extend(all);
}

/// The listening sockets and the connections of that address.
pub(crate) fn claim(at: SocketAddr) -> (Vec<TcpListener>, Vec<Pair>) {
    let mut inherited = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    let (mine, others) =
        std::mem::take(&mut *inherited).into_iter().partition(|handed| match handed {
            Handed::Listener { address, .. } => *address == at,
            Handed::Pair(pair) => pair.service == at,
        });
    *inherited = others;
    split(mine)
}

fn split(all: Vec<Handed>) -> (Vec<TcpListener>, Vec<Pair>) {
    let (mut listeners, mut pairs) = (Vec::new(), Vec::new());
    for handed in all {
        match handed {
            Handed::Listener { socket, .. } => listeners.push(socket),
            Handed::Pair(pair) => pairs.push(pair),
        }
    }
    (listeners, pairs)
}

/// All proxies that there are have been started: what is left has no service any more. Its listening sockets are
/// closed, its connections go on to their end.
pub fn settle(settings: &Settings) {
    let left = std::mem::take(&mut *INHERITED.lock().unwrap_or_else(PoisonError::into_inner));
    let (_closed, pairs) = split(left);
    for pair in pairs {
        let pool = Arc::new(Pool::new(pair.service, settings.clone(), &[]));
        carry_on(vec![pair], &pool);
    }
}

/// Spreads connections over the threads.
pub(crate) fn carry_on(pairs: Vec<Pair>, pool: &Arc<Pool>) {
    let handles = threads::all().handles();
    for (pair, handle) in pairs.into_iter().zip(handles.iter().cycle()) {
        handle.spawn(tcp::go_on(pair, Arc::clone(pool)));
    }
}
