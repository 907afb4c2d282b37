//! The barest proxy there can be with sockets and epoll: what it reaches, no proxy of this kind goes far beyond.
//!
//! It reads and writes, and keeps what is not taken. No limits, no times, no counters, no balancing but one backend
//! after the other.

use super::load::{BLOCK, EVENTS, epoll};
use crate::{Error, Result};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What is read at once, as much as Buoy's proxy and HAProxy do.
const PIECE: usize = 16 << 10;

/// A client and its backend, in this order.
struct Pair {
    ends: [TcpStream; 2],
    /// What each of them has not taken yet.
    rest: [Vec<u8>; 2],
    /// Whose end was passed on.
    ended: [bool; 2],
}

/// One thread of it.
struct Bare<'a> {
    epoll: Epoll,
    listener: TcpListener,
    backends: &'a [SocketAddr],
    next: usize,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

/// Carries what comes to `at` until it is told to stop. To be called inside the balancer's namespace, by each of
/// its threads.
pub(super) fn carry(at: SocketAddr, backends: &[SocketAddr], stop: &AtomicBool) -> Result<()> {
    let listener = listen(at).map_err(Error::system(format!("listen at {at}")))?;
    let epoll = epoll()?;
    epoll
        .add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 0))
        .map_err(Error::errno("watch a listener"))?;
    let (pairs, free, buffer) = (Vec::new(), Vec::new(), vec![0; PIECE.min(BLOCK)]);
    let mut bare = Bare { epoll, listener, backends, next: 0, pairs, free, buffer };
    let mut events = [EpollEvent::empty(); EVENTS];
    while !stop.load(Relaxed) {
        let count = bare.epoll.wait(&mut events, 100_u8).map_err(Error::errno("wait"))?;
        for event in events.iter().take(count) {
            match event.data().checked_sub(1) {
                None => bare.accept()?,
                Some(place) => bare.pass(usize::try_from(place).unwrap_or(0) / 2),
            }
        }
    }
    Ok(())
}

fn listen(at: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&at.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

impl Bare<'_> {
    fn accept(&mut self) -> Result<()> {
        loop {
            let client = match self.listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Error::system("accept")(error)),
            };
            let to = self.backends[self.next % self.backends.len()];
            self.next += 1;
            let pair = open(client, to).map_err(Error::system(format!("connect to {to}")))?;
            let place = self.free.pop().unwrap_or(self.pairs.len());
            for (side, end) in pair.ends.iter().enumerate() {
                let flags = EpollFlags::EPOLLIN
                    | EpollFlags::EPOLLOUT
                    | EpollFlags::EPOLLRDHUP
                    | EpollFlags::EPOLLET;
                let event = EpollEvent::new(flags, (1 + 2 * place + side) as u64);
                self.epoll.add(end, event).map_err(Error::errno("watch a connection"))?;
            }
            match self.pairs.get_mut(place) {
                Some(free) => *free = Some(pair),
                None => self.pairs.push(Some(pair)),
            }
        }
    }

    /// Passes on whatever can be, both ways.
    fn pass(&mut self, place: usize) {
        let Some(Some(pair)) = self.pairs.get_mut(place) else { return };
        let went = [0, 1].into_iter().try_for_each(|side| pair.pass(side, &mut self.buffer));
        if went.is_err() || pair.ended == [true; 2] {
            self.pairs[place] = None;
            self.free.push(place);
        }
    }
}

fn open(client: TcpStream, to: SocketAddr) -> std::io::Result<Pair> {
    client.set_nonblocking(true)?;
    client.set_nodelay(true)?;
    let backend = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
    backend.set_tcp_nodelay(true)?;
    match backend.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let ends = [client, backend.into()];
    Ok(Pair { ends, rest: Default::default(), ended: [false; 2] })
}

impl Pair {
    /// Passes on what one end has said.
    fn pass(&mut self, from: usize, buffer: &mut [u8]) -> std::io::Result<()> {
        let to = 1 - from;
        loop {
            let rest = &mut self.rest[to];
            if !rest.is_empty() {
                let taken = or_nothing((&self.ends[to]).write(rest))?;
                rest.drain(..taken);
                if !rest.is_empty() {
                    return Ok(());
                }
            }
            if self.ended[from] {
                return Ok(());
            }
            let length = match (&self.ends[from]).read(buffer) {
                Err(error) if is_not_yet(&error) => return Ok(()),
                Err(error) => return Err(error),
                Ok(0) => {
                    self.ended[from] = true;
                    // Where both have ended, closing says so.
                    if !self.ended[to] {
                        self.ends[to].shutdown(std::net::Shutdown::Write)?;
                    }
                    return Ok(());
                }
                Ok(length) => length,
            };
            let taken = or_nothing((&self.ends[to]).write(&buffer[..length]))?;
            rest.extend_from_slice(&buffer[taken..length]);
            if length < buffer.len() && rest.is_empty() {
                // There was no more, and what comes is told anew.
                return Ok(());
            }
        }
    }
}

fn or_nothing(written: std::io::Result<usize>) -> std::io::Result<usize> {
    match written {
        Err(error) if is_not_yet(&error) => Ok(0),
        written => written,
    }
}

/// Nothing to read, no room to write, or not connected yet.
fn is_not_yet(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(nix::libc::ENOTCONN)
}
