//! Loads a balancer and answers behind it: one thread with epoll on each side, the same for every system.
//!
//! A client's first byte says what it wants: `Q` an answer to each question of `MESSAGE` bytes, `S` bytes
//! without end. Clients read streams without copying them (`MSG_TRUNC`), so that the load costs as little as it can.

use crate::{Error, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Bytes of a question, and of an answer.
pub(super) const MESSAGE: usize = 64;
/// What a stream is written from.
pub(super) const BLOCK: usize = 256 << 10;
/// Events that are taken from the kernel at once.
pub(super) const EVENTS: usize = 256;
/// How long an attempt may take before the system counts as broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// What clients do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Connect, ask once, close, and again.
    Connect,
    /// Ask again and again on the same connections, as soon as there is an answer.
    Ask,
    /// The same, so many questions a second by the clock, whatever the answers do.
    Paced(u32),
    /// Receive without end.
    Stream,
}

/// What a turn of a load gave.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// Connections, questions or bytes, by the kind.
    pub(super) done: u64,
    /// From the first to the last.
    pub(super) took: Duration,
    /// How long each question waited for its answer, not for `Kind::Stream`.
    pub(super) waits: Vec<Duration>,
    /// Connections that ended as they should not.
    pub(super) failed: u64,
}

impl Figures {
    pub(super) fn rate(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// A connection of a client.
struct Client {
    stream: TcpStream,
    /// When the question that is open was asked, or should have been.
    asked: Option<Instant>,
    heard: usize,
}

pub(super) fn epoll() -> Result<Epoll> {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(Error::errno("make an epoll"))
}

fn both_edges(data: u64) -> EpollEvent {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    EpollEvent::new(flags, data)
}

/// Begins to connect; what became of it is told by the first event.
fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
        Ok(()) | Err(_) => Ok(socket.into()),
    }
}

/// Loads `to` by so many connections for so long. To be called inside the clients' namespace.
pub(super) fn run(
    to: SocketAddr,
    kind: Kind,
    connections: usize,
    time: Duration,
) -> Result<Figures> {
    let mut load = Load::new(to, kind, connections)?;
    load.run(time)?;
    Ok(load.figures)
}

struct Load {
    to: SocketAddr,
    kind: Kind,
    epoll: Epoll,
    clients: Vec<Client>,
    figures: Figures,
    /// Of paced questions: when the next one is due, and who asks it.
    due: Instant,
    next: usize,
    /// Where streams would go.
    nowhere: Vec<u8>,
}

impl Load {
    fn new(to: SocketAddr, kind: Kind, connections: usize) -> Result<Self> {
        let mut load = Self {
            to,
            kind,
            epoll: epoll()?,
            clients: Vec::with_capacity(connections),
            figures: Figures::default(),
            due: Instant::now(),
            next: 0,
            nowhere: vec![0; BLOCK],
        };
        for _ in 0..connections {
            let stream = connect(to).map_err(Error::system(format!("connect to {to}")))?;
            load.add(load.clients.len(), &stream)?;
            load.clients.push(Client { stream, asked: None, heard: 0 });
        }
        Ok(load)
    }

    fn add(&self, place: usize, stream: &TcpStream) -> Result<()> {
        self.epoll.add(stream, both_edges(place as u64)).map_err(Error::errno("watch a connection"))
    }

    fn run(&mut self, time: Duration) -> Result<()> {
        let start = Instant::now();
        let end = start + time;
        self.due = start;
        let mut events = [EpollEvent::empty(); EVENTS];
        let mut now = start;
        while now < end {
            let nap = match self.kind {
                Kind::Paced(_) => self.due.min(end),
                Kind::Connect | Kind::Ask | Kind::Stream => end,
            }
            .saturating_duration_since(now);
            let nap = EpollTimeout::try_from(nap).unwrap_or(EpollTimeout::ZERO);
            let count =
                self.epoll.wait(&mut events, nap).map_err(Error::errno("wait for answers"))?;
            now = Instant::now();
            for event in events.iter().take(count) {
                self.handle(usize::try_from(event.data()).unwrap_or(0), event.events(), now)?;
            }
            if let Kind::Paced(rate) = self.kind {
                self.ask_what_is_due(now, rate);
            }
        }
        self.figures.took = start.elapsed();
        match self.figures.done {
            0 => Err(Error::Late { awaited: format!("anything from {}", self.to), log: None }),
            _ => Ok(()),
        }
    }

    fn handle(&mut self, place: usize, flags: EpollFlags, now: Instant) -> Result<()> {
        let Some(client) = self.clients.get_mut(place) else { return Ok(()) };
        if flags.contains(EpollFlags::EPOLLERR) {
            return self.again(place);
        }
        match self.kind {
            Kind::Stream => {
                if client.asked.is_none() && flags.contains(EpollFlags::EPOLLOUT) {
                    client.asked = Some(now);
                    let _seen_by_reading = client.stream.write(&[b'S'; MESSAGE]);
                }
                self.figures.done += discard(&client.stream, &mut self.nowhere);
                return Ok(());
            }
            Kind::Connect | Kind::Ask => {
                if client.asked.is_none() && flags.contains(EpollFlags::EPOLLOUT) {
                    ask(client, now);
                }
            }
            Kind::Paced(_) => {}
        }
        if !flags.contains(EpollFlags::EPOLLIN) {
            return Ok(());
        }
        let mut buffer = [0; 4 * MESSAGE];
        loop {
            match client.stream.read(&mut buffer) {
                Ok(0) => return self.again(place),
                Ok(length) => client.heard += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return self.again(place),
            }
            if client.heard >= MESSAGE {
                client.heard -= MESSAGE;
                self.figures.done += 1;
                if let Some(asked) = client.asked.take() {
                    self.figures.waits.push(asked.elapsed());
                }
                match self.kind {
                    Kind::Connect => return self.renew(place),
                    // One question is open at a time, so there is nothing more to read.
                    Kind::Ask => {
                        ask(client, Instant::now());
                        return Ok(());
                    }
                    Kind::Paced(_) | Kind::Stream => return Ok(()),
                }
            }
        }
    }

    /// A connection that ended as it should not: counted, and another one is opened.
    fn again(&mut self, place: usize) -> Result<()> {
        self.figures.failed += 1;
        if self.figures.failed > 1000 {
            let awaited = format!("{} to keep its connections", self.to);
            return Err(Error::Late { awaited, log: None });
        }
        self.renew(place)
    }

    fn renew(&mut self, place: usize) -> Result<()> {
        let stream = connect(self.to).map_err(Error::system(format!("connect to {}", self.to)))?;
        self.add(place, &stream)?;
        // The one before is closed here, and with that no longer watched.
        self.clients[place] = Client { stream, asked: None, heard: 0 };
        Ok(())
    }

    /// By the clock, so that an answer that is late delays no question after it.
    fn ask_what_is_due(&mut self, now: Instant, rate: u32) {
        let beat = Duration::from_secs(1) / rate;
        while self.due <= now {
            let place = self.next % self.clients.len().max(1);
            let client = &mut self.clients[place];
            // Who still waits for an answer is asked with it: the wait counts from when it was due.
            if client.asked.is_none() {
                ask(client, now);
                client.asked = Some(self.due);
            }
            self.next += 1;
            self.due += beat;
        }
    }
}

fn ask(client: &mut Client, now: Instant) {
    client.asked = Some(now);
    // A connection that is broken says so by an event.
    let _seen_by_reading = client.stream.write(&[b'Q'; MESSAGE]);
}

/// Takes what has arrived without looking at it.
fn discard(stream: &TcpStream, nowhere: &mut [u8]) -> u64 {
    let mut taken = 0;
    loop {
        // The kernel copies nothing with MSG_TRUNC, and needs the length alone.
        match recv(stream.as_raw_fd(), nowhere, MsgFlags::MSG_TRUNC) {
            Ok(0) | Err(_) => return taken,
            Ok(length) => taken += length as u64,
        }
    }
}

/// Opens so many connections and keeps them. To be called inside the clients' namespace.
pub(super) fn open(to: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let mut all: Vec<TcpStream> = Vec::with_capacity(count);
    let end = Instant::now() + PATIENCE + Duration::from_millis(count as u64);
    while all.len() < count {
        // A few at a time, so that no backlog overflows; each is asked once, so that it stands to the backend.
        let batch = 64.min(count - all.len());
        let mut some = Vec::with_capacity(batch);
        for _ in 0..batch {
            let stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(Error::system(
                format!("connect to {to} for the {}th time", all.len() + 1),
            ))?;
            (&stream).write_all(&[b'Q'; MESSAGE]).map_err(Error::system("ask"))?;
            some.push(stream);
        }
        for stream in &some {
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let mut answer = [0; MESSAGE];
            let mut from: &TcpStream = stream;
            from.read_exact(&mut answer).map_err(Error::system(format!("hear from {to}")))?;
        }
        all.extend(some);
        if end < Instant::now() {
            return Err(Error::Late { awaited: format!("{count} connections to {to}"), log: None });
        }
    }
    Ok(all)
}

/// Answers at these addresses until told to stop. To be called inside the backends' namespace.
pub(super) fn serve(at: &[SocketAddr], stop: &Arc<AtomicBool>) -> Result<()> {
    let mut server =
        Server { epoll: epoll()?, listeners: Vec::new(), peers: Vec::new(), free: Vec::new() };
    for address in at {
        let listener = listen(*address).map_err(Error::system(format!("listen at {address}")))?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, server.listeners.len() as u64);
        server.epoll.add(&listener, event).map_err(Error::errno("watch a listener"))?;
        server.listeners.push(listener);
    }
    let block = vec![0; BLOCK];
    let mut events = [EpollEvent::empty(); EVENTS];
    while !stop.load(Relaxed) {
        let count =
            server.epoll.wait(&mut events, 100_u8).map_err(Error::errno("wait for clients"))?;
        for event in events.iter().take(count) {
            let place = usize::try_from(event.data()).unwrap_or(0);
            match place.checked_sub(server.listeners.len()) {
                None => server.accept(place)?,
                Some(peer) => server.answer(peer, &block),
            }
        }
    }
    Ok(())
}

fn listen(at: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

struct Server {
    epoll: Epoll,
    listeners: Vec<TcpListener>,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
}

/// A connection of a balancer.
struct Peer {
    stream: TcpStream,
    heard: usize,
    streams: bool,
}

impl Server {
    fn accept(&mut self, listener: usize) -> Result<()> {
        while let Ok((stream, _)) = self.listeners[listener].accept() {
            let _works_without = SockRef::from(&stream).set_tcp_nodelay(true);
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let place = self.free.pop().unwrap_or(self.peers.len());
            let data = (self.listeners.len() + place) as u64;
            self.epoll.add(&stream, both_edges(data)).map_err(Error::errno("watch a client"))?;
            let peer = Some(Peer { stream, heard: 0, streams: false });
            match self.peers.get_mut(place) {
                Some(free) => *free = peer,
                None => self.peers.push(peer),
            }
        }
        Ok(())
    }

    fn answer(&mut self, place: usize, block: &[u8]) {
        let Some(Some(peer)) = self.peers.get_mut(place) else { return };
        if !peer.go_on(block) {
            self.peers[place] = None;
            self.free.push(place);
        }
    }
}

impl Peer {
    /// False when the connection is over.
    fn go_on(&mut self, block: &[u8]) -> bool {
        let mut buffer = [0; 16 * MESSAGE];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    self.streams |= buffer[0] == b'S';
                    self.heard += length;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
            while !self.streams && self.heard >= MESSAGE {
                self.heard -= MESSAGE;
                if self.stream.write(&buffer[..MESSAGE]).is_err() {
                    return false;
                }
            }
        }
        while self.streams {
            match self.stream.write(block) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        true
    }
}
