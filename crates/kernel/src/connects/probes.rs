//! Asks whether ports are open without a socket for each: a SYN is written, and its answer read off the wire.
//!
//! All questions come from one port of each IP version, which is bound and listens for nothing: so the kernel takes an
//! answer for one to nobody and resets it, and no connection comes to be. What answers is read from a packet
//! socket with a filter on that port, which is bound to one Ethernet type and so sees nothing of what is sent. An answer
//! counts if it acknowledges the random number of a question that waits, from where that went.
//!
//! It says "open" and "refused" and nothing else. Who does not answer soon is for the caller to ask otherwise: a
//! source that is not this host's any more, a segment that was lost, a host that is gone.

use crate::netlink::Requests;
use crate::sys;
use buoy_wire::answer::segment::{self, HEARD_MAX, Heard};
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg,
};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime};

/// Read at once.
const BATCH: usize = 64;
/// A source address is asked for again after so long.
const SOURCE_AGE: Duration = Duration::from_secs(30);
/// Answers that may wait to be read: a round of all backends.
const QUEUE: i32 = 16 << 20;
/// Whatever a packet socket is bound to: all interfaces.
const EVERY_LINK: u32 = 0;

/// One IP version.
#[derive(Debug)]
struct Version {
    sends: Socket,
    hears: Socket,
    /// Holds the port.
    _port: Socket,
    port: u16,
    /// To be sent.
    questions: Vec<(u64, SocketAddr, Vec<u8>)>,
    /// How many answers are waited for.
    awaited: usize,
}

#[derive(Debug)]
struct Waiting {
    to: SocketAddr,
    sequence: u32,
    /// By the clock of the kernel's time stamps, when it was sent.
    sent: SystemTime,
    since: Instant,
}

/// Questions without sockets.
pub(super) struct Probes {
    v4: Version,
    v6: Version,
    routes: Requests,
    sources: HashMap<IpAddr, (Option<IpAddr>, Instant)>,
    waiting: HashMap<u64, Waiting>,
    /// By sequence number.
    numbers: HashMap<u32, u64>,
    random: RandomState,
    asked: u64,
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Probes {
    /// An error where this process has no right to it.
    pub(super) fn open() -> io::Result<Self> {
        let routes = Requests::open().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self {
            v4: Version::open(Domain::IPV4)?,
            v6: Version::open(Domain::IPV6)?,
            routes,
            sources: HashMap::new(),
            waiting: HashMap::new(),
            numbers: HashMap::new(),
            random: RandomState::new(),
            asked: 0,
        })
    }

    /// Whether it will be asked; not where there is no route to it.
    pub(super) fn ask(&mut self, number: u64, to: SocketAddr) -> bool {
        let Some(source) = self.source(to.ip()) else { return false };
        self.asked += 1;
        let [_, _, _, _, bytes @ ..] = self.random.hash_one((self.asked, to)).to_be_bytes();
        let sequence = u32::from_be_bytes(bytes);
        if self.numbers.contains_key(&sequence) {
            return false;
        }
        let version = if to.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        let packet = segment::question(SocketAddr::new(source, version.port), to, sequence);
        version.questions.push((number, to, packet));
        version.awaited += 1;
        self.numbers.insert(sequence, number);
        let (sent, since) = (SystemTime::now(), Instant::now());
        self.waiting.insert(number, Waiting { to, sequence, sent, since });
        true
    }

    fn source(&mut self, to: IpAddr) -> Option<IpAddr> {
        let now = Instant::now();
        if let Some((source, asked)) = self.sources.get(&to)
            && now.duration_since(*asked) < SOURCE_AGE
        {
            return *source;
        }
        let route = self.routes.route(to).ok().flatten();
        let source = route.and_then(|route| route.source);
        let source = source.filter(|source| source.is_ipv4() == to.is_ipv4());
        self.sources.insert(to, (source, now));
        source
    }

    /// Sends what was asked since the last time.
    pub(super) fn send(&mut self) {
        for version in [&mut self.v4, &mut self.v6] {
            if version.questions.is_empty() {
                continue;
            }
            let (first, count) = (SystemTime::now(), version.questions.len());
            version.send();
            // One after the other: each has its own moment.
            let each = first.elapsed().unwrap_or_default() / u32::try_from(count).unwrap_or(1);
            for (at, (number, _, _)) in (0..).zip(version.questions.drain(..)) {
                if let Some(waiting) = self.waiting.get_mut(&number) {
                    waiting.sent = first + each * at;
                }
            }
        }
    }

    /// Whether anybody is waited for.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What was answered: the number, to whom it went, how long it took, and whether it is open.
    pub(super) fn hear(&mut self, out: &mut Vec<(u64, SocketAddr, Duration, bool)>) {
        let mut heard = Vec::new();
        for version in [&self.v4, &self.v6] {
            if version.awaited > 0 {
                version.hear(&mut heard);
            }
        }
        for (Heard { from, sequence, open }, at) in heard {
            let Some(&number) = self.numbers.get(&sequence) else { continue };
            let Some(waiting) = self.waiting.get(&number).filter(|w| w.to == from) else {
                continue;
            };
            let took = at.duration_since(waiting.sent).unwrap_or_default();
            self.forget(number);
            out.push((number, from, took.max(Duration::from_nanos(1)), open));
        }
    }

    /// Nobody wants to know any more; whom it was asked.
    pub(super) fn forget(&mut self, number: u64) -> Option<SocketAddr> {
        let waiting = self.waiting.remove(&number)?;
        self.numbers.remove(&waiting.sequence);
        let version = if waiting.to.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        version.awaited -= 1;
        version.questions.retain(|(other, _, _)| *other != number);
        Some(waiting.to)
    }

    /// What would be sent is not.
    #[cfg(test)]
    pub(super) fn lose(&mut self) {
        self.v4.questions.clear();
        self.v6.questions.clear();
    }

    /// Those that have not answered for so long, which are forgotten.
    pub(super) fn silent(&mut self, time: Duration) -> Vec<(u64, SocketAddr)> {
        let late = self.waiting.iter().filter(|(_, waiting)| time <= waiting.since.elapsed());
        let late: Vec<_> = late.map(|(number, waiting)| (*number, waiting.to)).collect();
        for (number, to) in &late {
            self.forget(*number);
            self.sources.remove(&to.ip());
        }
        late
    }
}

impl Version {
    fn open(domain: Domain) -> io::Result<Self> {
        /// IPPROTO_RAW: what is sent has its IP header, and nothing is heard.
        const RAW: i32 = 255;
        let (any, ethertype): (IpAddr, u16) = match domain {
            Domain::IPV4 => (Ipv4Addr::UNSPECIFIED.into(), 0x0800),
            _ => (Ipv6Addr::UNSPECIFIED.into(), 0x86dd),
        };
        let port = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if any.is_ipv6() {
            port.set_only_v6(true)?;
        }
        port.bind(&SockAddr::from(SocketAddr::new(any, 0)))?;
        let number = port.local_addr()?.as_socket().map_or(0, |address| address.port());
        let sends = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
        sends.set_nonblocking(true)?;
        sys::set_queue(&sends, sys::Queue::Sent, QUEUE)?;
        // Bound to no Ethernet type yet: nothing is heard before there is a filter.
        let hears = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        hears.set_nonblocking(true)?;
        hears.attach_filter(&filter(any.is_ipv4(), number))?;
        sys::set_queue(&hears, sys::Queue::Received, QUEUE)?;
        sys::set_option(&hears, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        sys::bind_packet(&hears, EVERY_LINK, ethertype)?;
        Ok(Self { sends, hears, _port: port, port: number, questions: Vec::new(), awaited: 0 })
    }

    /// What the kernel does not take is not answered, and so asked otherwise.
    fn send(&self) {
        let mut rest = self.questions.as_slice();
        while !rest.is_empty() {
            let slices: Vec<_> = rest.iter().map(|(_, _, packet)| [IoSlice::new(packet)]).collect();
            let to = rest.iter().map(|(_, to, _)| Some(host(*to)));
            let to: Vec<Option<SockaddrStorage>> = to.collect();
            let mut headers = MultiHeaders::preallocate(rest.len(), None);
            let flags = MsgFlags::empty();
            let sent = sendmmsg(self.sends.as_raw_fd(), &mut headers, &slices, to, [], flags);
            let sent = match sent {
                Ok(sent) => sent.count().max(1),
                Err(Errno::EINTR) => 0,
                // The first one is in the way.
                Err(_) => 1,
            };
            rest = rest.get(sent..).unwrap_or_default();
        }
    }

    fn hear(&self, out: &mut Vec<(Heard, SystemTime)>) {
        let mut buffers = [[0; HEARD_MAX]; BATCH];
        loop {
            let mut slices: Vec<_> = buffers.iter_mut().map(|b| [IoSliceMut::new(b)]).collect();
            let space = Some(nix::cmsg_space!(nix::sys::time::TimeSpec));
            let mut headers = MultiHeaders::<()>::preallocate(BATCH, space);
            let flags = MsgFlags::MSG_DONTWAIT;
            let fd = self.hears.as_raw_fd();
            let Ok(messages) = recvmmsg(fd, &mut headers, &mut slices, flags, None) else { return };
            let mut count = 0;
            for message in messages {
                count += 1;
                let stamp = message.cmsgs().ok().and_then(|mut all| all.find_map(stamp));
                let at = stamp.map_or_else(SystemTime::now, |time| SystemTime::UNIX_EPOCH + time);
                let packet = message.iovs().next().unwrap_or_default();
                out.extend(segment::heard(packet).map(|heard| (heard, at)));
            }
            if count < BATCH {
                return;
            }
        }
    }
}

fn stamp(message: ControlMessageOwned) -> Option<Duration> {
    if let ControlMessageOwned::ScmTimestampns(time) = message { Some(time.into()) } else { None }
}

/// A raw socket knows no ports.
fn host(to: SocketAddr) -> SockaddrStorage {
    SockaddrStorage::from(SocketAddr::new(to.ip(), 0))
}

/// TCP to that port; of IPv4 no later fragment, of IPv6 without extension headers.
fn filter(is_ipv4: bool, port: u16) -> Vec<SockFilter> {
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_HALF_BEHIND: u16 = 0x48;
    const HEADER_LENGTH: u16 = 0xb1;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let port = u32::from(port);
    if is_ipv4 {
        vec![
            SockFilter::new(LOAD_BYTE, 0, 0, 9),
            SockFilter::new(JUMP_EQUAL, 0, 6, 6),
            SockFilter::new(LOAD_HALF, 0, 0, 6),
            SockFilter::new(JUMP_SET, 4, 0, 0x1fff),
            SockFilter::new(HEADER_LENGTH, 0, 0, 0),
            SockFilter::new(LOAD_HALF_BEHIND, 0, 0, 2),
            SockFilter::new(JUMP_EQUAL, 0, 1, port),
            SockFilter::new(RETURN, 0, 0, HEARD_MAX as u32),
            SockFilter::new(RETURN, 0, 0, 0),
        ]
    } else {
        vec![
            SockFilter::new(LOAD_BYTE, 0, 0, 6),
            SockFilter::new(JUMP_EQUAL, 0, 3, 6),
            SockFilter::new(LOAD_HALF, 0, 0, 42),
            SockFilter::new(JUMP_EQUAL, 0, 1, port),
            SockFilter::new(RETURN, 0, 0, HEARD_MAX as u32),
            SockFilter::new(RETURN, 0, 0, 0),
        ]
    }
}
