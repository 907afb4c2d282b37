//! Opens many TCP connections, one after the other without waiting, and says which of them came to be.
//!
//! For checks: a connection is wanted for nothing but the answer to its first packet. So that is all that is
//! sent: the last part of the handshake is held back, and the connection is reset as soon as it is known
//! to be possible. The server's program is not woken for it, nothing waits in its queue, and
//! no port of this host stays taken (`TIME_WAIT`).
//!
//! Most answers are there before the last question of a round is sent, so they are looked at first, and only
//! what is late is given to `epoll`.

use crate::sys;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockProtocol, SockType};
use socket2::{SockAddr, Socket};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// How many are told at once.
const EVENTS: usize = 64;

/// Connections that are being opened.
#[derive(Debug)]
pub struct Connects {
    epoll: Epoll,
    /// Begun since the last look.
    fresh: Vec<Open>,
    /// What `epoll` tells of.
    late: HashMap<u64, Socket>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    socket: Socket,
    address: SockAddr,
}

/// The caller's number of a connection, and what became of it: how long its answer took, by the
/// kernel's own measurement.
pub type Outcome = (u64, io::Result<Duration>);

impl Connects {
    /// None yet.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, fresh: Vec::new(), late: HashMap::new() })
    }

    /// Begins one, under a number that no other has. What fails at once is told at once.
    pub fn start(&mut self, number: u64, address: SocketAddr) -> Option<Outcome> {
        match begin(address) {
            Ok((socket, address)) => {
                self.fresh.push(Open { number, socket, address });
                None
            }
            Err(error) => Some((number, Err(error))),
        }
    }

    /// What became of those begun since the last look. `wait` tells of the others.
    pub fn look(&mut self, out: &mut Vec<Outcome>) {
        for Open { number, socket, address } in self.fresh.drain(..) {
            match answered(&socket, &address) {
                Some(outcome) => out.push((number, outcome)),
                None => {
                    let event = EpollEvent::new(EpollFlags::EPOLLOUT, number);
                    match self.epoll.add(&socket, event) {
                        Ok(()) => drop(self.late.insert(number, socket)),
                        Err(error) => out.push((number, Err(error.into()))),
                    }
                }
            }
        }
    }

    /// Whether there is something to be told by `wait`, some time.
    pub fn is_waiting(&self) -> bool {
        !self.late.is_empty()
    }

    /// What became of the others by now, without waiting.
    pub fn wait(&mut self, out: &mut Vec<Outcome>) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in events.iter().take(count) {
                if let Some(socket) = self.late.remove(&event.data()) {
                    let outcome = socket.take_error().and_then(|error| match error {
                        None => sys::round_trip(&socket),
                        Some(error) => Err(error),
                    });
                    out.push((event.data(), outcome));
                }
            }
            if count < EVENTS {
                return Ok(());
            }
        }
    }

    /// Nobody wants to know any more.
    pub fn give_up(&mut self, number: u64) {
        if self.late.remove(&number).is_none() {
            self.fresh.retain(|open| open.number != number);
        }
    }
}

fn begin(address: SocketAddr) -> io::Result<(Socket, SockAddr)> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
    let socket = Socket::from(socket);
    socket.set_linger(Some(Duration::ZERO))?;
    // Holds the acknowledgement back: the reset comes in its place.
    sys::set_option(&socket, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 0)?;
    let address = SockAddr::from(address);
    match socket.connect(&address) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok((socket, address))
}

/// Whether there is an answer, and which: a second `connect` tells what became of the first.
fn answered(socket: &Socket, address: &SockAddr) -> Option<io::Result<Duration>> {
    let Err(error) = socket.connect(address) else { return Some(sys::round_trip(socket)) };
    match error.raw_os_error() {
        Some(libc::EALREADY | libc::EINPROGRESS) => None,
        Some(libc::EISCONN) => Some(sys::round_trip(socket)),
        _ => Some(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Instant;

    fn all(connects: &mut Connects, mut out: Vec<Outcome>, count: usize) -> Vec<Outcome> {
        connects.look(&mut out);
        let end = Instant::now() + Duration::from_secs(20);
        while out.len() < count && Instant::now() < end {
            connects.wait(&mut out).unwrap();
            std::thread::yield_now();
        }
        out.sort_by_key(|(number, _)| *number);
        out
    }

    #[test]
    fn a_thousand_connections_are_told_each_for_itself_and_wake_no_server() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let here = server.local_addr().unwrap();
        let six = TcpListener::bind("[::1]:0").unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut connects = Connects::new().unwrap();
        let mut out = Vec::new();
        for number in 0..1000 {
            let address = match number % 3 {
                0 => here,
                1 => six.local_addr().unwrap(),
                _ => gone,
            };
            out.extend(connects.start(number, address));
        }
        let out = all(&mut connects, out, 1000);
        assert_eq!(out.len(), 1000);
        for (number, outcome) in out {
            if let Ok(took) = &outcome {
                assert!(!took.is_zero() && *took < Duration::from_secs(1), "{took:?}");
            }
            let refused = outcome.err().map(|error| error.kind());
            let expected = (number % 3 == 2).then_some(io::ErrorKind::ConnectionRefused);
            assert_eq!(refused, expected, "{number}");
        }
        let accepted = server.accept().map(|_| ()).map_err(|error| error.kind());
        assert_eq!(accepted, Err(io::ErrorKind::WouldBlock), "the handshake was never complete");
    }

    #[test]
    fn a_server_that_says_nothing_is_waited_for_until_it_is_given_up() {
        // A queue of one connection: the next ones get no answer.
        let domain = socket2::Domain::IPV4;
        let server = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        server.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        server.listen(0).unwrap();
        let address = server.local_addr().unwrap().as_socket().unwrap();
        let _taken = std::net::TcpStream::connect(address).unwrap();
        let mut connects = Connects::new().unwrap();
        assert!(connects.start(7, address).is_none());
        let mut out = Vec::new();
        connects.look(&mut out);
        connects.wait(&mut out).unwrap();
        assert!(out.is_empty(), "{out:?}");
        connects.give_up(7);
        drop(server);
        connects.wait(&mut out).unwrap();
        assert!(out.is_empty(), "{out:?}");
    }
}
