//! Long-lived TCP connections that ask for a line again and again: do they outlive a failover?

use super::{Metronome, TICK};
use crate::namespace::Namespace;
use crate::{Error, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long opening one connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// One connection.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    asked: Option<Instant>,
    answered: Instant,
    slowest: Duration,
    broken: Option<ErrorKind>,
    backend: String,
}

/// What became of the connections.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Figures {
    /// Opened at the start.
    pub opened: usize,
    /// Never reset or closed, and answered a request that was sent after the given moment.
    pub survived: usize,
    /// Reset or closed by the other side.
    pub broken: usize,
    /// The longest wait for an answer.
    pub slowest: Duration,
    /// How each was broken.
    pub how: Vec<ErrorKind>,
}

/// The connections; they are closed when dropped.
#[derive(Debug)]
pub struct TcpProbe {
    connections: Arc<Mutex<Vec<Connection>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TcpProbe {
    /// Opens so many connections; each asks once in as many milliseconds.
    pub fn start(inside: &Namespace, to: SocketAddr, count: usize) -> Result<Self> {
        let opened = inside
            .enter(|| (0..count).map(|_| open(to)).collect::<std::io::Result<Vec<_>>>())?
            .map_err(Error::system(format!("open connections to {to}")))?;
        let connections = Arc::new(Mutex::new(opened));
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, its_stop) = (Arc::clone(&connections), Arc::clone(&stop));
        let thread = Some(inside.spawn("tcp probe", move || {
            let mut metronome = Metronome::new(TICK);
            let mut turn = 0;
            while !its_stop.load(Ordering::Relaxed) {
                metronome.wait();
                let mut connections = theirs.lock().unwrap_or_else(PoisonError::into_inner);
                if connections.is_empty() {
                    return;
                }
                turn = (turn + 1) % connections.len();
                connections[turn].take_turn();
            }
        })?);
        Ok(Self { connections, stop, thread })
    }

    /// What became of them, where surviving means an answer to a request sent after `since`.
    pub fn figures(&self, since: Instant) -> Figures {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let mut figures = Figures { opened: connections.len(), ..Figures::default() };
        for connection in connections.iter() {
            let waiting = connection.asked.map_or(Duration::ZERO, |asked| asked.elapsed());
            figures.slowest = figures.slowest.max(connection.slowest).max(waiting);
            match connection.broken {
                Some(how) => {
                    figures.broken += 1;
                    figures.how.push(how);
                }
                None if since < connection.answered => figures.survived += 1,
                None => {}
            }
        }
        figures
    }

    /// How many connections are with which backend.
    pub fn backends(&self) -> Vec<(String, usize)> {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = std::collections::BTreeMap::new();
        for connection in connections.iter() {
            *counts.entry(connection.backend.clone()).or_insert(0) += 1;
        }
        counts.into_iter().collect()
    }

    /// How many connections to that backend are not broken.
    pub fn alive_at(&self, backend: &str) -> usize {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.iter().filter(|c| c.backend == backend && c.broken.is_none()).count()
    }
}

impl Drop for TcpProbe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn open(to: SocketAddr) -> std::io::Result<Connection> {
    let stream = TcpStream::connect_timeout(&to, CONNECT_MAX)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(Connection {
        stream,
        asked: None,
        answered: Instant::now(),
        slowest: Duration::ZERO,
        broken: None,
        backend: String::new(),
    })
}

impl Connection {
    fn take_turn(&mut self) {
        if self.broken.is_some() {
            return;
        }
        self.hear();
        // One request at a time: a connection that waits does not pile up more of them.
        if self.broken.is_none() && self.asked.is_none() {
            match self.stream.write_all(b"still there?\n") {
                Ok(()) => self.asked = Some(Instant::now()),
                Err(error) => self.broken = Some(error.kind()),
            }
        }
    }

    fn hear(&mut self) {
        let mut bytes = [0; 256];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    self.broken = Some(ErrorKind::UnexpectedEof);
                    return;
                }
                Ok(length) => {
                    if let Some(asked) = self.asked.take() {
                        self.slowest = self.slowest.max(asked.elapsed());
                        // Counted from the question, so that an answer of before proves nothing.
                        self.answered = asked;
                    }
                    if self.backend.is_empty() {
                        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                        self.backend = text.split(' ').next().unwrap_or_default().to_owned();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.broken = Some(error.kind());
                    return;
                }
            }
        }
    }
}
