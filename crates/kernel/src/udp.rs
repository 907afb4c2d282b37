//! Carries the datagrams of the lease protocol, on every leg of this node.

use crate::port;
use crate::sys::{self, Queue};
use buoy_model::Leg;
use buoy_model::limits::LEGS_MAX;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

/// Internetwork control, as routing protocols have it (RFC 2474 §4.2.2.2, class selector 6).
const TRAFFIC_CLASS: u32 = 0xc0;
/// The band of `pfifo_fast` that goes before ordinary traffic; more would need CAP_NET_ADMIN.
const PRIORITY: u32 = 6;
/// Bytes of room for the longest lists of a whole cluster while the loop is away.
const QUEUE_LEN: i32 = 4 << 20;

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

/// The sockets of the lease protocol: one for each leg, bound to the leg's own address, so that
/// what is sent on a leg comes from it.
#[derive(Debug)]
pub struct Transport {
    legs: Vec<UdpSocket>,
    /// Of each leg: this host did not have its address when it was opened.
    absent: Vec<Leg>,
    /// The leg to be read next, so that a flood on one cannot hide the others.
    next: usize,
}

impl Transport {
    /// Listens on all of this node's addresses. One that this host does not have yet (its interface
    /// is down) is listened on as soon as it has: the kernel is told to bind it anyway. Only when it
    /// has none of them is that an error.
    pub fn open(addresses: &[SocketAddr]) -> Result<Self, BindError> {
        let mut transport = Self { legs: Vec::new(), absent: Vec::new(), next: 0 };
        for (leg, &address) in (0..).map(Leg).zip(addresses.iter().take(LEGS_MAX)) {
            let socket = match open(address, Bind::Present) {
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
                    transport.absent.push(leg);
                    // The last one is not forgiven: a host that has no address of this node is
                    // another node.
                    let all = transport.absent.len() == addresses.len();
                    if all { Err(error) } else { open(address, Bind::Anyway) }
                }
                opened => opened,
            };
            transport.legs.push(socket.map_err(|cause| refused(address, cause))?);
        }
        Ok(transport)
    }

    /// The legs whose address this host did not have when they were opened.
    pub fn absent(&self) -> &[Leg] {
        &self.absent
    }

    /// The descriptors to watch, by leg.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.legs.iter().map(AsFd::as_fd)
    }

    /// Sends one datagram on a leg; never waits, never allocates.
    pub fn send(&self, leg: Leg, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let socket = self.leg(leg)?;
        socket.send_to(datagram, to).map(|_| ())
    }

    /// The next datagram, and the leg that it came in on, if there is one; never waits, never
    /// allocates. One that is longer than the buffer is cut, so a buffer should be longer than what
    /// is accepted. After an error the next call looks at the next leg.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr, Leg)>> {
        for _ in 0..self.legs.len() {
            let leg = self.next;
            self.next = (leg + 1) % self.legs.len();
            if let Some((length, from)) = receive(&self.legs[leg], buffer)? {
                return Ok(Some((length, from, Leg(u8::try_from(leg).unwrap_or(u8::MAX)))));
            }
        }
        Ok(None)
    }

    /// How many datagrams the kernel has dropped because they were not received in time; only grows.
    pub fn dropped(&self) -> u32 {
        self.legs.iter().map(sys::socket_drops).fold(0, u32::wrapping_add)
    }

    /// Where a leg listens.
    pub fn local(&self, leg: Leg) -> io::Result<SocketAddr> {
        self.leg(leg)?.local_addr()
    }

    fn leg(&self, leg: Leg) -> io::Result<&UdpSocket> {
        self.legs.get(usize::from(leg.0)).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
    loop {
        match socket.recv_from(buffer) {
            Ok(received) => return Ok(Some(received)),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(None),
                Some(libc::EINTR) => {}
                Some(_) | None => return Err(error),
            },
        }
    }
}

fn refused(address: SocketAddr, cause: io::Error) -> BindError {
    let in_use = cause.kind() == io::ErrorKind::AddrInUse;
    let holder = in_use.then(|| port::holder(address.port())).flatten();
    BindError { address, cause, holder }
}

/// Whether a leg's address must be there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Bind {
    Present,
    Anyway,
}

fn open(address: SocketAddr, bind: Bind) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // The marks and the queues are worth having and not worth failing for.
    let _ = sys::set_queue(&socket, Queue::Received, QUEUE_LEN);
    let _ = sys::set_queue(&socket, Queue::Sent, QUEUE_LEN);
    let _ = match address.ip() {
        IpAddr::V4(_) => socket.set_tos_v4(TRAFFIC_CLASS).and_then(|()| may_fragment(&socket)),
        IpAddr::V6(_) => {
            socket.set_only_v6(true).and_then(|()| socket.set_tclass_v6(TRAFFIC_CLASS))
        }
    };
    // After the traffic class, which sets the priority too.
    let _ = socket.set_priority(PRIORITY);
    match (bind, address.ip()) {
        (Bind::Present, IpAddr::V4(_) | IpAddr::V6(_)) => {}
        (Bind::Anyway, IpAddr::V4(_)) => socket.set_freebind_v4(true)?,
        (Bind::Anyway, IpAddr::V6(_)) => socket.set_freebind_v6(true)?,
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A long list of claims is longer than a frame: routers may cut it too, and what they say about
/// their limits (which anybody can forge) changes nothing. IPv6 routers never cut; there the
/// default asks the path.
fn may_fragment(socket: &Socket) -> io::Result<()> {
    sys::set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, poll::Poller};
    use std::time::Duration;

    const LEG: Leg = Leg(0);

    fn loopback(address: &str) -> Transport {
        Transport::open(&[address.parse().unwrap()]).unwrap()
    }

    #[test]
    fn a_datagram_arrives_with_its_senders_address() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (here, mut there) = (loopback(address), loopback(address));
            let mut buffer = [0; 16];
            assert_eq!(there.receive(&mut buffer).unwrap(), None);
            here.send(LEG, there.local(LEG).unwrap(), b"ahoy").unwrap();
            let mut poller = Poller::new();
            assert!(poller.watch(0, &there.fds().next().unwrap()));
            let ready = poller.wait(Some(clock::now() + Duration::from_secs(5))).unwrap();
            assert!(ready.contains(0));
            let received = there.receive(&mut buffer).unwrap();
            assert_eq!(received, Some((4, here.local(LEG).unwrap(), LEG)));
            assert_eq!(&buffer[..4], b"ahoy");
            assert_eq!(there.dropped(), 0);
        }
    }

    #[test]
    fn a_port_in_use_says_who_has_it_and_what_to_do() {
        let first = loopback("127.0.0.1:0");
        let error = Transport::open(&[first.local(LEG).unwrap()]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
        assert!(text.contains("set another `port`"), "{text}");
    }

    #[test]
    fn an_address_of_another_host_is_named() {
        let error = Transport::open(&["192.0.2.1:4747".parse().unwrap()]).unwrap_err();
        assert!(error.to_string().contains("this host does not have 192.0.2.1"), "{error}");
    }

    #[test]
    fn each_leg_is_bound_to_its_own_address_and_speaks_from_it() {
        let both = ["127.0.0.1:0".parse().unwrap(), "127.0.0.2:0".parse().unwrap()];
        let (here, mut there) = (Transport::open(&both).unwrap(), Transport::open(&both).unwrap());
        let legs = [Leg(0), Leg(1)];
        for leg in legs {
            here.send(leg, there.local(leg).unwrap(), &[leg.0]).unwrap();
        }
        let mut buffer = [0; 16];
        let mut heard = Vec::new();
        let mut poller = Poller::new();
        for (token, fd) in there.fds().enumerate() {
            assert!(poller.watch(token, &fd));
        }
        let deadline = clock::now() + Duration::from_secs(5);
        while heard.len() < legs.len() && clock::now() < deadline {
            poller.wait(Some(deadline)).unwrap();
            while let Some((length, from, leg)) = there.receive(&mut buffer).unwrap() {
                assert_eq!(&buffer[..length], [leg.0]);
                heard.push((leg, from));
            }
        }
        heard.sort_unstable();
        assert_eq!(heard, legs.map(|leg| (leg, here.local(leg).unwrap())));
        assert!(here.send(Leg(2), both[0], b"ahoy").is_err());
    }

    #[test]
    fn a_leg_without_its_address_does_not_hinder_the_others() {
        let lost: SocketAddr = "192.0.2.1:0".parse().unwrap();
        let lost6: SocketAddr = "[2001:db8::1]:0".parse().unwrap();
        let transport = Transport::open(&[lost, "127.0.0.1:0".parse().unwrap(), lost6]).unwrap();
        assert_eq!(transport.absent(), [Leg(0), Leg(2)]);
        assert_eq!(transport.fds().count(), 3);
        let own = transport.local(Leg(1)).unwrap();
        transport.send(Leg(1), own, b"ahoy").unwrap();
        assert!(transport.send(Leg(0), own, b"ahoy").is_err());
        // A host that has none of them is another node.
        let error = Transport::open(&[lost, lost6]).unwrap_err();
        assert!(error.to_string().contains("this host does not have"), "{error}");
    }

    #[test]
    fn the_longest_datagram_arrives_whole() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (here, mut there) = (loopback(address), loopback(address));
            let datagram = vec![7; buoy_model::limits::DATAGRAM_MAX];
            let to = there.local(LEG).unwrap();
            // A few at once, also where only a small queue is permitted.
            for _ in 0..4 {
                here.send(LEG, to, &datagram).unwrap();
            }
            let mut buffer = vec![0; buoy_model::limits::DATAGRAM_MAX + 1];
            for _ in 0..4 {
                let received = there.receive(&mut buffer).unwrap();
                assert_eq!(received, Some((datagram.len(), here.local(LEG).unwrap(), LEG)));
            }
            assert_eq!(there.dropped(), 0);
        }
    }

    #[test]
    fn what_comes_too_fast_is_counted() {
        let (here, there) = (loopback("127.0.0.1:0"), loopback("127.0.0.1:0"));
        let to = there.local(LEG).unwrap();
        let mut sent = 0;
        while there.dropped() == 0 && sent < 100_000 {
            here.send(LEG, to, &[0; 1024]).unwrap();
            sent += 1;
        }
        assert!(there.dropped() > 0, "{sent} datagrams of 1 KiB were queued");
    }
}
