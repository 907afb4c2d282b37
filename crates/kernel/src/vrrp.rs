//! Speaks and hears protocol 112: one raw socket for each family, with the groups of VRRP joined on the interfaces that
//! have a virtual router.
//!
//! Nothing is looked at here but the IP header: what a packet says is `wire`'s to read and `core`'s to judge.

use crate::sys::{self, Queue};
use buoy_model::LinkId;
use buoy_wire::vrrp::{GROUP_V4, GROUP_V6, PROTOCOL};
use nix::errno::Errno;
use nix::sys::socket::{
    self, ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Internetwork control, as every speaker of VRRP marks it.
const TRAFFIC_CLASS: u8 = 0xc0;
/// What cannot have crossed a router (RFC 9568 §5.1.1.3).
const TTL: u8 = 255;
const IPV4_HEADER: usize = 20;
/// An advertisement of 255 IPv6 addresses, with its trailer and an IP header with options.
const PACKET_MAX: usize = 60 + 8 + 255 * 16 + 28;
/// Packets read before anything else is looked at.
const PACKETS_PER_TURN: usize = 512;
/// Bytes of room for what 255 routers of each of a few speakers say at once while the loop is away.
const QUEUE_LEN: i32 = 2 << 20;

/// A packet that came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet<'b> {
    /// On which interface.
    pub link: LinkId,
    /// Where it says that it comes from.
    pub source: IpAddr,
    /// Where it was sent to.
    pub destination: IpAddr,
    /// Its TTL or hop limit.
    pub ttl: u8,
    /// What follows the IP header.
    pub message: &'b [u8],
}

/// The sockets of VRRP; none where nothing is spoken.
pub struct Routers {
    v4: Option<Socket>,
    v6: Option<Socket>,
    /// Interface, and whether over IPv6; sorted.
    joined: Vec<(LinkId, bool)>,
    buffer: Box<[u8]>,
    /// Room for what the kernel says of a packet.
    control: Vec<u8>,
    frame: Vec<u8>,
}

impl Default for Routers {
    fn default() -> Self {
        Self {
            v4: None,
            v6: None,
            joined: Vec::new(),
            buffer: vec![0; PACKET_MAX].into_boxed_slice(),
            control: nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo, i32),
            frame: Vec::with_capacity(PACKET_MAX),
        }
    }
}

impl Routers {
    /// Speaks and hears on these interfaces (`true`: over IPv6) and on no others; what could not be, as sentences.
    pub fn listen(&mut self, mut wanted: Vec<(LinkId, bool)>) -> Vec<String> {
        wanted.sort_unstable();
        wanted.dedup();
        let mut problems = Vec::new();
        for v6 in [false, true] {
            let is_wanted = wanted.iter().any(|(_, family)| *family == v6);
            let socket = if v6 { &mut self.v6 } else { &mut self.v4 };
            if !is_wanted {
                *socket = None;
                self.joined.retain(|(_, family)| *family != v6);
            } else if socket.is_none() {
                match open(v6) {
                    Ok(opened) => *socket = Some(opened),
                    Err(error) => problems.push(unopened(v6, &error)),
                }
            }
        }
        let before = std::mem::take(&mut self.joined);
        for (link, v6) in before.iter().filter(|place| !wanted.contains(place)) {
            // An interface that is gone has left already.
            let _ = self.socket(*v6).map(|socket| leave(socket, *link, *v6));
        }
        for place in wanted {
            let Some(socket) = self.socket(place.1) else { continue };
            match before.contains(&place).then_some(()).map_or_else(|| join(socket, place), Ok) {
                Ok(()) => self.joined.push(place),
                Err(error) => problems.push(format!(
                    "no VRRP over IPv{} on interface {}: its group cannot be joined: {error}",
                    if place.1 { 6 } else { 4 },
                    place.0.0
                )),
            }
        }
        problems
    }

    /// To wait for, with their places among two.
    pub fn fds(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let sockets = [&self.v4, &self.v6].into_iter().enumerate();
        sockets.filter_map(|(place, socket)| Some((place, socket.as_ref()?.as_fd())))
    }

    /// Sends a message out of an interface, or to a peer wherever that is.
    pub fn send(
        &mut self,
        link: LinkId,
        source: IpAddr,
        destination: IpAddr,
        message: &[u8],
    ) -> io::Result<()> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.send_v4(link, source, destination, message)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.send_v6(link, source, destination, message)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                Err(io::ErrorKind::InvalidInput.into())
            }
        }
    }

    fn send_v4(
        &mut self,
        link: LinkId,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        message: &[u8],
    ) -> io::Result<()> {
        let socket = self.v4.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        self.frame.clear();
        let length = u16::try_from(IPV4_HEADER + message.len()).unwrap_or(u16::MAX);
        self.frame.extend([4 << 4 | 5, TRAFFIC_CLASS]);
        self.frame.extend(length.to_be_bytes());
        // The kernel numbers the packet and makes the checksum of its header.
        self.frame.extend([0, 0, 0, 0, TTL, PROTOCOL, 0, 0]);
        self.frame.extend(source.octets());
        self.frame.extend(destination.octets());
        self.frame.extend(message);
        let info = libc::in_pktinfo {
            ipi_ifindex: out_of(link, destination.is_multicast()),
            ipi_spec_dst: libc::in_addr { s_addr: 0 },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        send(socket, &self.frame, &control, &to)
    }

    fn send_v6(
        &self,
        link: LinkId,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        message: &[u8],
    ) -> io::Result<()> {
        let socket = self.v6.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let stays = destination.is_multicast() || destination.is_unicast_link_local();
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
            ipi6_ifindex: u32::try_from(out_of(link, stays)).unwrap_or(0),
        };
        let scope = if stays { link.0 } else { 0 };
        let to = SockaddrIn6::from(SocketAddrV6::new(destination, 0, 0, scope));
        let control = [ControlMessage::Ipv6PacketInfo(&info)];
        send(socket, message, &control, &to)
    }

    /// Hands over what came in; never waits.
    pub fn receive(&mut self, tell: &mut dyn FnMut(Packet<'_>)) {
        for v6 in [false, true] {
            for _ in 0..PACKETS_PER_TURN {
                let socket = if v6 { &self.v6 } else { &self.v4 };
                let Some(socket) = socket else { break };
                let (buffer, control) = (&mut self.buffer[..], &mut self.control[..]);
                let packet = if v6 {
                    receive_v6(socket, buffer, control)
                } else {
                    receive_v4(socket, buffer, control)
                };
                match packet {
                    Received::Packet(packet) => tell(packet),
                    Received::Unfit => {}
                    Received::Nothing => break,
                }
            }
        }
    }

    const fn socket(&self, v6: bool) -> Option<&Socket> {
        if v6 { self.v6.as_ref() } else { self.v4.as_ref() }
    }
}

/// What one look at a socket brings.
enum Received<'b> {
    Packet(Packet<'b>),
    /// Too short for its own header, or the kernel did not say where it came in.
    Unfit,
    Nothing,
}

/// What stays on the segment leaves by that interface; what does not, by whichever leads there.
fn out_of(link: LinkId, stays: bool) -> i32 {
    if stays { i32::try_from(link.0).unwrap_or(0) } else { 0 }
}

fn open(v6: bool) -> io::Result<Socket> {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(PROTOCOL))))?;
    socket.set_nonblocking(true)?;
    // Worth having and not worth failing for.
    let _ = sys::set_queue(&socket, Queue::Received, QUEUE_LEN);
    let set = |level, name, value| sys::set_option(&socket, level, name, value);
    if v6 {
        set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        set(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
        set(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, i32::from(TTL))?;
        set(libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, i32::from(TTL))?;
        set(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, i32::from(TRAFFIC_CLASS))?;
        set(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, 0)?;
        // With a virtual hardware address it leaves from another interface than the one whose address it is sent from.
        set(libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1)?;
    } else {
        set(libc::IPPROTO_IP, libc::IP_HDRINCL, 1)?;
        set(libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        set(libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 0)?;
        // What others on this host have joined is not for us.
        set(libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, 0)?;
    }
    Ok(socket)
}

fn unopened(v6: bool, error: &io::Error) -> String {
    let family = if v6 { 6 } else { 4 };
    if error.kind() == io::ErrorKind::PermissionDenied {
        return format!(
            "no VRRP over IPv{family}: raw sockets are not allowed: run as root, or give CAP_NET_RAW"
        );
    }
    format!("no VRRP over IPv{family}: no raw socket: {error}")
}

fn join(socket: &Socket, (link, v6): (LinkId, bool)) -> io::Result<()> {
    if v6 {
        return socket.join_multicast_v6(&GROUP_V6, link.0);
    }
    socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(link.0))
}

fn leave(socket: &Socket, link: LinkId, v6: bool) -> io::Result<()> {
    if v6 {
        return socket.leave_multicast_v6(&GROUP_V6, link.0);
    }
    socket.leave_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(link.0))
}

fn send<A: SockaddrLike>(
    socket: &Socket,
    bytes: &[u8],
    control: &[ControlMessage<'_>],
    to: &A,
) -> io::Result<()> {
    let bytes = [IoSlice::new(bytes)];
    let flags = MsgFlags::MSG_DONTWAIT;
    socket::sendmsg(socket.as_raw_fd(), &bytes, control, flags, Some(to))?;
    Ok(())
}

fn receive_v4<'b>(socket: &Socket, buffer: &'b mut [u8], control: &mut [u8]) -> Received<'b> {
    let mut link = None;
    let length = {
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = socket.as_raw_fd();
        let got = match socket::recvmsg::<SockaddrIn>(fd, &mut slices, Some(control), flags) {
            Ok(got) => got,
            Err(Errno::EINTR) => return Received::Unfit,
            Err(_) => return Received::Nothing,
        };
        for message in got.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
                link = u32::try_from(info.ipi_ifindex).ok().map(LinkId);
            }
        }
        got.bytes
    };
    let packet = &buffer[..length];
    let (Some(link), Some(header)) = (link, packet.first_chunk::<IPV4_HEADER>()) else {
        return Received::Unfit;
    };
    let Some(message) = packet.get(usize::from(header[0] & 0xf) * 4..) else {
        return Received::Unfit;
    };
    let address =
        |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (source, destination) = (address(12), address(16));
    Received::Packet(Packet { link, source, destination, ttl: header[8], message })
}

fn receive_v6<'b>(socket: &Socket, buffer: &'b mut [u8], control: &mut [u8]) -> Received<'b> {
    let (mut to, mut ttl) = (None, None);
    let (length, from) = {
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = socket.as_raw_fd();
        let got = match socket::recvmsg::<SockaddrIn6>(fd, &mut slices, Some(control), flags) {
            Ok(got) => got,
            Err(Errno::EINTR) => return Received::Unfit,
            Err(_) => return Received::Nothing,
        };
        for message in got.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::Ipv6PacketInfo(info) = message {
                to = Some((LinkId(info.ipi6_ifindex), Ipv6Addr::from(info.ipi6_addr.s6_addr)));
            } else if let ControlMessageOwned::Ipv6HopLimit(limit) = message {
                ttl = u8::try_from(limit).ok();
            }
        }
        (got.bytes, got.address.map(|address| address.ip()))
    };
    let (Some((link, destination)), Some(ttl), Some(source)) = (to, ttl, from) else {
        return Received::Unfit;
    };
    let (source, destination) = (source.into(), destination.into());
    Received::Packet(Packet { link, source, destination, ttl, message: &buffer[..length] })
}
