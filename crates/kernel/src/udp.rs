//! Carries the datagrams of the lease protocol.

use crate::{port, sys};
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

/// Internetwork control, as routing protocols have it (RFC 2474 §4.2.2.2, class selector 6).
const TRAFFIC_CLASS: u32 = 0xc0;
/// The band of `pfifo_fast` that goes before ordinary traffic; more would need CAP_NET_ADMIN.
const PRIORITY: u32 = 6;
/// Room for the heartbeats of a whole cluster while the loop is away.
const QUEUE_LEN: usize = 1 << 20;

/// Why the agent cannot listen.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
    holder: Option<port::Holder>,
}

impl BindError {
    /// What the kernel said.
    pub const fn cause(&self) -> &io::Error {
        &self.cause
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, port) = (self.address, self.address.port());
        write!(f, "cannot listen on UDP {address}: ")?;
        match (self.cause.kind(), &self.holder) {
            (io::ErrorKind::AddrInUse, Some(holder)) => write!(
                f,
                "{holder} has it: stop that process, or set another `port` in the configuration of \
                 every node"
            ),
            (io::ErrorKind::AddrInUse, None) => write!(
                f,
                "another process has it (`ss -lunp sport = :{port}` tells which): stop it, or set \
                 another `port` in the configuration of every node"
            ),
            (io::ErrorKind::AddrNotAvailable, _) => write!(
                f,
                "this host does not have {}: correct `peers`, or configure the address first",
                self.address.ip()
            ),
            (_, _) => write!(f, "{}", self.cause),
        }
    }
}

impl std::error::Error for BindError {}

/// The socket of the lease protocol.
#[derive(Debug)]
pub struct Transport {
    socket: UdpSocket,
}

impl Transport {
    /// Listens on this node's address.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        open(address).map(|socket| Self { socket }).map_err(|cause| {
            let in_use = cause.kind() == io::ErrorKind::AddrInUse;
            let holder = in_use.then(|| port::holder(address.port())).flatten();
            BindError { address, cause, holder }
        })
    }

    /// Sends one datagram; never waits, never allocates.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_to(datagram, to).map(|_| ())
    }

    /// The next datagram, if there is one; never waits, never allocates. One that is longer than
    /// the buffer is cut, so a buffer should be longer than what is accepted.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
        loop {
            match self.socket.recv_from(buffer) {
                Ok(received) => return Ok(Some(received)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(None),
                    Some(libc::EINTR) => {}
                    Some(_) | None => return Err(error),
                },
            }
        }
    }

    /// How many datagrams the kernel has dropped because they were not received in time; only grows.
    pub fn dropped(&self) -> u32 {
        sys::socket_drops(&self.socket)
    }

    /// Where it listens.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // The marks and the queue are worth having and not worth failing for.
    let _ = socket.set_recv_buffer_size(QUEUE_LEN);
    let _ = match address.ip() {
        IpAddr::V4(_) => socket.set_tos_v4(TRAFFIC_CLASS),
        IpAddr::V6(_) => {
            socket.set_only_v6(true).and_then(|()| socket.set_tclass_v6(TRAFFIC_CLASS))
        }
    };
    // After the traffic class, which sets the priority too.
    let _ = socket.set_priority(PRIORITY);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, poll::Poller};
    use std::time::Duration;

    fn loopback(address: &str) -> Transport {
        Transport::bind(address.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_datagram_arrives_with_its_senders_address() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (here, there) = (loopback(address), loopback(address));
            let mut buffer = [0; 16];
            assert_eq!(there.receive(&mut buffer).unwrap(), None);
            here.send(there.local().unwrap(), b"ahoy").unwrap();
            let mut poller = Poller::new();
            assert!(poller.watch(0, &there));
            let ready = poller.wait(Some(clock::now() + Duration::from_secs(5))).unwrap();
            assert!(ready.contains(0));
            let received = there.receive(&mut buffer).unwrap();
            assert_eq!(received, Some((4, here.local().unwrap())));
            assert_eq!(&buffer[..4], b"ahoy");
            assert_eq!(there.dropped(), 0);
        }
    }

    #[test]
    fn a_port_in_use_says_who_has_it_and_what_to_do() {
        let first = loopback("127.0.0.1:0");
        let error = Transport::bind(first.local().unwrap()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
        assert!(text.contains("set another `port`"), "{text}");
    }

    #[test]
    fn an_address_of_another_host_is_named() {
        let error = Transport::bind("192.0.2.1:4747".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("this host does not have 192.0.2.1"), "{error}");
    }

    #[test]
    fn what_comes_too_fast_is_counted() {
        let (here, there) = (loopback("127.0.0.1:0"), loopback("127.0.0.1:0"));
        let to = there.local().unwrap();
        let mut sent = 0;
        while there.dropped() == 0 && sent < 100_000 {
            here.send(to, &[0; 1024]).unwrap();
            sent += 1;
        }
        assert!(there.dropped() > 0, "{sent} datagrams of 1 KiB were queued");
    }
}
