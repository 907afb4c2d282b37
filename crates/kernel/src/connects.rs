//! Opens many TCP connections, one after the other without waiting, and says which of them came to be.
//!
//! For checks: a connection is wanted for nothing but the answer to its first packet. So that is all that is
//! sent: the last part of the handshake is held back, and the connection is reset as soon as it is known
//! to be possible. The server's program is not woken for it, nothing waits in its queue, and
//! no port of this host stays taken (`TIME_WAIT`).
//!
//! Most answers are there before the last question of a round is sent, so they are looked at first, and only
//! what is late is given to `epoll`.
//!
//! Where many are asked, a socket for each costs more than all else. Then who was well is asked without one
//! (`probes`); who does not answer at once, or was not well, is asked by a socket, which knows all that the kernel does.

mod probes;

use crate::sys;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockProtocol, SockType};
use probes::Probes;
use socket2::{SockAddr, Socket};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// How many are told at once.
const EVENTS: usize = 64;

/// So many are worth asking without sockets.
const MANY: usize = 256;
/// Who has not answered a segment for so long is asked by a socket too.
const SILENCE: Duration = Duration::from_millis(200);
/// Those that are remembered for not having been well; beyond that they are forgotten.
const DOUBTED_MAX: usize = 65_536;

/// What the answer is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Care {
    /// A wrong "no" is one of several that count, and the time may be a little more than it took.
    Usual,
    /// It decides alone, or its time does.
    Full,
}

/// Connections that are being opened.
#[derive(Debug)]
pub struct Connects {
    epoll: Epoll,
    /// Begun since the last look.
    fresh: Vec<Open>,
    /// What `epoll` tells of.
    late: HashMap<u64, (Socket, SocketAddr)>,
    /// Where many are asked and this process may.
    probes: Option<Probes>,
    /// Who was not well lately.
    doubted: HashSet<SocketAddr>,
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
        let (fresh, late) = (Vec::new(), HashMap::new());
        Ok(Self { epoll, fresh, late, probes: None, doubted: HashSet::new() })
    }

    /// So many are asked again and again from now on.
    pub fn expect(&mut self, count: usize) {
        match (&self.probes, count < MANY) {
            (None, false) => self.probes = Probes::open().ok(),
            // A few more or less do not matter; what waits is waited for.
            (Some(probes), true) if count < MANY / 2 && !probes.is_waiting() => self.probes = None,
            (None | Some(_), true) | (Some(_), false) => {}
        }
    }

    /// Begins one, under a number that no other has. What fails at once is told at once.
    pub fn start(&mut self, number: u64, address: SocketAddr, care: Care) -> Option<Outcome> {
        if care == Care::Usual
            && !self.doubted.contains(&address)
            && self.probes.as_mut().is_some_and(|probes| probes.ask(number, address))
        {
            return None;
        }
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
        if let Some(probes) = &mut self.probes {
            probes.send();
        }
        self.hear(out);
        for open in std::mem::take(&mut self.fresh) {
            match answered(&open.socket, &open.address) {
                Some(outcome) => {
                    let address = open.address.as_socket();
                    if let Some(address) = address.filter(|_| outcome.is_ok()) {
                        self.doubted.remove(&address);
                    }
                    out.push((open.number, outcome));
                }
                None => self.watch(open, out),
            }
        }
    }

    /// Has `epoll` tell of it.
    fn watch(&mut self, Open { number, socket, address }: Open, out: &mut Vec<Outcome>) {
        let event = EpollEvent::new(EpollFlags::EPOLLOUT, number);
        match (self.epoll.add(&socket, event), address.as_socket()) {
            (Ok(()), Some(address)) => drop(self.late.insert(number, (socket, address))),
            (Ok(()), None) => out.push((number, Err(Errno::EAFNOSUPPORT.into()))),
            (Err(error), _) => out.push((number, Err(error.into()))),
        }
    }

    /// What became of those without sockets.
    fn hear(&mut self, out: &mut Vec<Outcome>) {
        let Some(probes) = &mut self.probes else { return };
        let mut heard = Vec::new();
        probes.hear(&mut heard);
        for (number, address, took, open) in heard {
            if open {
                out.push((number, Ok(took)));
            } else {
                self.doubt(address);
                out.push((number, Err(Errno::ECONNREFUSED.into())));
            }
        }
    }

    /// It is asked by sockets until one of them has found it well.
    fn doubt(&mut self, address: SocketAddr) {
        if self.doubted.len() == DOUBTED_MAX {
            self.doubted.clear();
        }
        self.doubted.insert(address);
    }

    /// Whether there is something to be told by `wait`, some time.
    pub fn is_waiting(&self) -> bool {
        !self.late.is_empty() || self.probes.as_ref().is_some_and(Probes::is_waiting)
    }

    /// What became of the others by now, without waiting.
    pub fn wait(&mut self, out: &mut Vec<Outcome>) -> io::Result<()> {
        self.hear(out);
        let silent = self.probes.as_mut().map(|probes| probes.silent(SILENCE)).unwrap_or_default();
        for (number, address) in silent {
            self.doubt(address);
            match begin(address) {
                Ok((socket, address)) => self.watch(Open { number, socket, address }, out),
                Err(error) => out.push((number, Err(error))),
            }
        }
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in events.iter().take(count) {
                if let Some((socket, address)) = self.late.remove(&event.data()) {
                    let outcome = socket.take_error().and_then(|error| match error {
                        None => sys::round_trip(&socket),
                        Some(error) => Err(error),
                    });
                    if outcome.is_ok() {
                        self.doubted.remove(&address);
                    }
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
        if let Some(address) = self.probes.as_mut().and_then(|probes| probes.forget(number)) {
            self.doubt(address);
        } else if self.late.remove(&number).is_none() {
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
        a_thousand(0);
    }

    #[test]
    fn so_are_a_thousand_without_sockets() {
        a_thousand(1000);
    }

    fn a_thousand(expected: usize) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let here = server.local_addr().unwrap();
        let six = TcpListener::bind("[::1]:0").unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut connects = Connects::new().unwrap();
        connects.expect(expected);
        let mut out = Vec::new();
        for number in 0..1000 {
            let address = match number % 3 {
                0 => here,
                1 => six.local_addr().unwrap(),
                _ => gone,
            };
            out.extend(connects.start(number, address, Care::Usual));
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
        given_up(false);
        given_up(true);
    }

    fn given_up(cheaply: bool) {
        // A queue of one connection: the next ones get no answer.
        let domain = socket2::Domain::IPV4;
        let server = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        server.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        server.listen(0).unwrap();
        let address = server.local_addr().unwrap().as_socket().unwrap();
        let _taken = std::net::TcpStream::connect(address).unwrap();
        let mut connects = Connects::new().unwrap();
        connects.expect(if cheaply { 1000 } else { 0 });
        assert!(connects.start(7, address, Care::Usual).is_none());
        let mut out = Vec::new();
        connects.look(&mut out);
        connects.wait(&mut out).unwrap();
        assert!(out.is_empty(), "{out:?}");
        connects.give_up(7);
        drop(server);
        connects.wait(&mut out).unwrap();
        assert!(out.is_empty(), "{out:?}");
    }

    /// Whether the next question to it is one without a socket, which is then given up.
    fn is_cheap(connects: &mut Connects, address: SocketAddr) -> bool {
        assert!(connects.start(9, address, Care::Usual).is_none());
        let cheap = connects.fresh.is_empty();
        let probes = connects.probes.as_mut().unwrap();
        probes.forget(9);
        connects.give_up(9);
        cheap
    }

    #[test]
    fn who_was_not_well_is_asked_by_a_socket_until_it_is() {
        let mut connects = Connects::new().unwrap();
        connects.expect(1000);
        if connects.probes.is_none() {
            return;
        }
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(is_cheap(&mut connects, gone));
        assert!(connects.start(1, gone, Care::Usual).is_none());
        let out = all(&mut connects, Vec::new(), 1);
        let refused = out[0].1.as_ref().map_err(io::Error::kind);
        assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused));
        assert!(!is_cheap(&mut connects, gone));
        let _server = TcpListener::bind(gone).unwrap();
        assert!(connects.start(2, gone, Care::Usual).is_none());
        assert!(all(&mut connects, Vec::new(), 1)[0].1.is_ok());
        assert!(is_cheap(&mut connects, gone));
        assert!(connects.start(3, gone, Care::Full).is_none());
        assert_eq!(connects.fresh.len(), 1, "with full care");
        connects.give_up(3);
        connects.expect(0);
        assert!(connects.probes.is_none());
    }

    #[test]
    fn who_does_not_answer_a_segment_is_asked_by_a_socket_within_the_same_question() {
        let mut connects = Connects::new().unwrap();
        connects.expect(1000);
        if connects.probes.is_none() {
            return;
        }
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        assert!(connects.start(5, address, Care::Usual).is_none());
        // As if the segment had been lost.
        connects.probes.as_mut().unwrap().lose();
        let out = all(&mut connects, Vec::new(), 1);
        assert!(matches!(out.as_slice(), [(5, Ok(_))]), "{out:?}");
        assert!(!connects.doubted.contains(&address), "the socket has found it well");
    }
}
