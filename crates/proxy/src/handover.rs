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

/// How long connections that have no backend yet may take to get one, before they wait for the next agent.
const OPENING_MAX: Duration = Duration::from_millis(100);
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
    /// A client that has no backend yet.
    Waiting(Waiting),
}

/// A client that has no backend yet.
#[derive(Debug)]
pub struct Waiting {
    /// Where it connected to.
    pub service: SocketAddr,
    /// Where it came from.
    pub from: SocketAddr,
    /// Its socket.
    pub client: TcpStream,
    /// All that it has said, from the first byte.
    pub said: Vec<u8>,
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
    all.sort_by_key(|handed| !matches!(handed, Handed::Listener { .. }));
    all
}

/// Keeps what an earlier run has left, for the proxies that will be started.
pub fn inherit(all: Vec<Handed>) {
    INHERITED.lock().unwrap_or_else(PoisonError::into_inner).extend(all);
}

/// What there is of one address.
#[derive(Default)]
pub(crate) struct Inherited {
    pub(crate) listeners: Vec<TcpListener>,
    pairs: Vec<Pair>,
    waiting: Vec<Waiting>,
}

/// The listening sockets and the connections of that address.
pub(crate) fn claim(at: SocketAddr) -> Inherited {
    let mut inherited = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    let (mine, others) =
        std::mem::take(&mut *inherited).into_iter().partition(|handed| match handed {
            Handed::Listener { address, .. } => *address == at,
            Handed::Pair(pair) => pair.service == at,
            Handed::Waiting(waiting) => waiting.service == at,
        });
    *inherited = others;
    split(mine)
}

fn split(all: Vec<Handed>) -> Inherited {
    let mut inherited = Inherited::default();
    for handed in all {
        match handed {
            Handed::Listener { socket, .. } => inherited.listeners.push(socket),
            Handed::Pair(pair) => inherited.pairs.push(pair),
            Handed::Waiting(waiting) => inherited.waiting.push(waiting),
        }
    }
    inherited
}

/// All proxies that there are have been started: what is left has no service any more. Its listening sockets are
/// closed, its connections go on to their end.
pub fn settle() {
    let left = std::mem::take(&mut *INHERITED.lock().unwrap_or_else(PoisonError::into_inner));
    for pair in split(left).pairs {
        let pool = Arc::new(Pool::new(pair.service, Settings::of_nobody(), &[]));
        carry_on(Inherited { pairs: vec![pair], ..Inherited::default() }, &pool);
    }
}

/// Spreads connections over the threads.
pub(crate) fn carry_on(inherited: Inherited, pool: &Arc<Pool>) {
    let mut handles = threads::all().handles().iter().cycle();
    for (pair, handle) in inherited.pairs.into_iter().zip(&mut handles) {
        handle.spawn(tcp::go_on(pair, Arc::clone(pool)));
    }
    for (waiting, handle) in inherited.waiting.into_iter().zip(&mut handles) {
        handle.spawn(tcp::arrive(waiting, Arc::clone(pool)));
    }
}
