//! Sends checks of backends on the way that clients' packets take, and brings the answers back to who asked.
//!
//! A socket asks the backend's own address, so the kernel knows the way; its mark leads two small programs on the
//! interface (`crates/xdp/bpf/via.bpf.c`) to what it is about. The one for what goes out makes the packet one for the VIP,
//! in a tunnel if the service has one, and the other makes the answer one of the backend again. They are there as
//! long as this is; nothing is pinned.
//!
//! A packet of a check never gets to the backend's own address: its socket is bound to an interface with the programs on
//! it, and they drop what they cannot change. It has a TTL of 1, so that a host without the VIP that routes does not pass it
//! on to one that has it. Each socket has a port for itself, as two that ask one VIP could not be told apart otherwise.

use crate::clock;
use crate::gate::errno_of;
use crate::netlink::{NetlinkError, Requests, RouteFacts};
use crate::sys;
use aya::maps::{Array, MapData};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use buoy_model::{Instant, LinkId};
use buoy_xdp::via::{self, EGRESS, INGRESS, MARK, TARGET_WORDS, TARGETS, TARGETS_MAX};
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::time::Duration;
use std::{fmt, io};

pub use via::{Target, Wrap};

/// How often an interface is looked at for whether the programs are still there.
const AUDIT: Duration = Duration::from_secs(5);
/// The largest segment in a tunnel: two IPv6 headers, UDP and TCP fit into the least MTU of IPv6 with it.
const SEGMENT_MAX: u32 = 1152;
/// Enough for a neighbour; a router drops it.
const HOPS: u32 = 1;

/// Why a backend cannot be asked on a VIP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ViaError {
    /// This host cannot ask anybody that way.
    Unable(String),
    /// Clients' packets would not get there either.
    NoWay(String),
}

impl fmt::Display for ViaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unable(reason) | Self::NoWay(reason)) = self;
        f.write_str(reason)
    }
}

impl std::error::Error for ViaError {}

impl From<NetlinkError> for ViaError {
    fn from(cause: NetlinkError) -> Self {
        Self::Unable(format!("the routes of this host cannot be read: {cause}"))
    }
}

/// What packets have by which the programs know them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark(u32);

/// How a question leaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Out {
    /// The backend is this host, which has the VIP: it is asked there like by anybody else.
    Local,
    /// By an interface with the programs on it.
    By {
        /// Which.
        link: LinkId,
        /// What the packets have.
        mark: Mark,
        /// Whether they go in a tunnel.
        wrapped: bool,
    },
}

/// How much of a connection is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handshake {
    /// All of it: it is spoken over.
    Whole,
    /// All but its last packet, which is held back for a moment: nothing is said, and the server's program is not woken
    /// for it (`connects`).
    HeldBack,
}

/// The programs, and what is asked by them.
pub struct Via {
    programs: Ebpf,
    targets: Array<MapData, [u32; TARGET_WORDS]>,
    asked: BTreeMap<u32, Target>,
    /// Places below this were given to somebody; those that are free again are used first.
    used: u32,
    free: Vec<u32>,
    requests: Requests,
    /// Interfaces, and when they were looked at.
    looked: BTreeMap<LinkId, Instant>,
}

impl fmt::Debug for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Via").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Via {
    /// Loads the programs; they are put on an interface when somebody is asked over it.
    pub fn open() -> Result<Self, ViaError> {
        let version = KernelVersion::current().map_err(|e| ViaError::Unable(e.to_string()))?;
        if version < KernelVersion::new(6, 6, 0) {
            let reason = "this kernel is older than Linux 6.6, and has no tcx".to_owned();
            return Err(ViaError::Unable(reason));
        }
        let mut programs = EbpfLoader::new().load(via::VIA).map_err(|e| refused(&e))?;
        for name in [EGRESS, INGRESS] {
            classifier(&mut programs, name)?.load().map_err(|e| refused(&e))?;
        }
        let targets = programs.take_map(TARGETS).and_then(|map| map.try_into().ok());
        let targets = targets.ok_or_else(|| missing(TARGETS))?;
        Ok(Self {
            programs,
            targets,
            asked: BTreeMap::new(),
            used: 0,
            free: Vec::new(),
            requests: Requests::open()?,
            looked: BTreeMap::new(),
        })
    }

    /// Somebody to be asked, until `remove`.
    pub fn add(&mut self, target: Target) -> Result<Mark, ViaError> {
        let place = self.free.pop().unwrap_or(self.used);
        if TARGETS_MAX <= place {
            let full = format!("more than {TARGETS_MAX} backends are asked on their VIPs");
            return Err(ViaError::Unable(full));
        }
        self.used = self.used.max(place + 1);
        self.targets.set(place, target.to_words(), 0).map_err(|e| refused(&e))?;
        self.asked.insert(place, target);
        Ok(Mark(MARK | place))
    }

    /// Nobody asks that any more, and no socket has the mark.
    pub fn remove(&mut self, Mark(mark): Mark) {
        let place = mark & !MARK;
        if self.asked.remove(&place).is_some() {
            self.free.push(place);
        }
        // Without an address it is nobody, and what has the mark is dropped.
        let _ = self.targets.set(place, [0; TARGET_WORDS], 0);
    }

    /// How a question to what was added leaves now.
    pub fn out(&mut self, mark: Mark) -> Result<Out, ViaError> {
        let Some(&Target { vip, backend, wrap }) = self.asked.get(&(mark.0 & !MARK)) else {
            return Err(ViaError::Unable("nobody is asked there".to_owned()));
        };
        let Some(route) = self.requests.route(backend)? else {
            return Err(no_way("this host has no route to the backend"));
        };
        if route.is_local {
            return match self.requests.route(vip)? {
                Some(RouteFacts { is_local: true, .. }) => Ok(Out::Local),
                _ => Err(ViaError::NoWay(format!(
                    "the backend is this host, which does not have {vip}: run `buoy backend add {vip}`"
                ))),
            };
        }
        if wrap == Wrap::Not && route.gateway.is_some() {
            return Err(no_way("a router is between, and \"dsr\" reaches neighbours only"));
        }
        self.attach(route.link)?;
        Ok(Out::By { link: route.link, mark, wrapped: wrap != Wrap::Not })
    }

    /// Puts the programs on an interface, where they are not there.
    fn attach(&mut self, link: LinkId) -> Result<(), ViaError> {
        let now = clock::now();
        if self.looked.get(&link).is_some_and(|looked| now.since(*looked) < AUDIT) {
            return Ok(());
        }
        let links = self.requests.links()?;
        let facts = links.into_iter().find(|facts| facts.id == link && facts.mac.is_some());
        let facts = facts.ok_or_else(|| no_way("the route to it is over no Ethernet interface"))?;
        for (name, direction) in [(EGRESS, TcAttachType::Egress), (INGRESS, TcAttachType::Ingress)]
        {
            let program = classifier(&mut self.programs, name)?;
            let own = program.info().map(|own| own.id()).map_err(|e| refused(&e))?;
            let there = SchedClassifier::query_tcx(&facts.name, direction);
            if there.is_ok_and(|(_, programs)| programs.iter().any(|p| p.id() == own)) {
                continue;
            }
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            program.attach_with_options(&facts.name, direction, first).map_err(|e| refused(&e))?;
        }
        self.looked.insert(link, now);
        Ok(())
    }
}

impl Out {
    /// A socket to open a connection by, which does not block. Its end is a reset: no port stays taken.
    pub fn stream(self, to: IpAddr, handshake: Handshake) -> io::Result<TcpStream> {
        let socket = self.socket(to, Type::STREAM, Protocol::TCP)?;
        socket.set_linger(Some(Duration::ZERO))?;
        if handshake == Handshake::HeldBack {
            sys::set_option(&socket, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 0)?;
        }
        if let Self::By { wrapped: true, .. } = self {
            socket.set_tcp_mss(SEGMENT_MAX)?;
        }
        Ok(socket.into())
    }

    /// A socket that sends datagrams and hears their answers, which does not block.
    pub fn datagrams(self, to: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.socket(to.ip(), Type::DGRAM, Protocol::UDP)?;
        socket.connect(&SockAddr::from(to))?;
        Ok(socket.into())
    }

    fn socket(self, to: IpAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let (domain, any): (Domain, IpAddr) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
            IpAddr::V6(_) => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
        };
        let socket = Socket::new(domain, kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        let Self::By { link, mark: Mark(mark), .. } = self else { return Ok(socket) };
        // Before it is bound to an interface: a port is its own on all of them.
        socket.bind(&SockAddr::from(SocketAddr::new(any, 0)))?;
        socket.set_mark(mark)?;
        match to {
            IpAddr::V4(_) => {
                socket.bind_device_by_index_v4(NonZeroU32::new(link.0))?;
                socket.set_ttl_v4(HOPS)?;
            }
            IpAddr::V6(_) => {
                socket.bind_device_by_index_v6(NonZeroU32::new(link.0))?;
                socket.set_unicast_hops_v6(HOPS)?;
            }
        }
        Ok(socket)
    }
}

fn classifier<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, ViaError> {
    let program = programs.program_mut(name).and_then(|program| program.try_into().ok());
    program.ok_or_else(|| missing(name))
}

fn missing(name: &str) -> ViaError {
    ViaError::Unable(format!("there is no `{name}` in the object file"))
}

fn no_way(reason: &str) -> ViaError {
    ViaError::NoWay(reason.to_owned())
}

/// Why the kernel did not take something.
fn refused(error: &(dyn std::error::Error + 'static)) -> ViaError {
    /// The log of the verifier may be long.
    const SAID_MAX: usize = 300;
    if errno_of(error) == Some(Errno::EPERM) {
        let reason = "this process may not load BPF programs: give it CAP_BPF and CAP_NET_ADMIN";
        return ViaError::Unable(reason.to_owned());
    }
    let said: String = error.to_string().chars().take(SAID_MAX).collect();
    let errno = errno_of(error).map(|errno| format!(" ({})", errno.desc()));
    let errno = errno.unwrap_or_default();
    ViaError::Unable(format!("the kernel does not take the programs: {said}{errno}"))
}
