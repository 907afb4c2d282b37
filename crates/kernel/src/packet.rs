//! Says and hears on the segment who has which address: ARP and neighbour discovery frames.

use crate::sys::{self, Queue};
use buoy_model::{FrameKind, LinkId, Mac};
use buoy_wire::ndp::Neighbour;
use buoy_wire::{arp, ndp};
use socket2::{Domain, SockFilter, Socket, Type};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Longer than any ARP or neighbour discovery frame with options.
const FRAME_MAX: usize = 1536;
/// Frames read from one socket at one call: a storm must not keep the loop from its leases.
const FRAMES_PER_READ: usize = 32;
/// Bytes of frames under way: a thousand addresses are announced in one go, and the kernel counts about
/// 800 bytes for each.
const QUEUE_LEN: i32 = 4 << 20;

/// Somebody said something about an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// Somebody said that an address is theirs.
    Claim {
        /// Heard on which interface.
        link: LinkId,
        /// Which address.
        address: IpAddr,
        /// Who says so.
        mac: Mac,
    },
}

/// Why this host cannot listen to or speak on a segment.
#[derive(Debug)]
pub enum PacketError {
    /// Packet sockets are not permitted.
    Permission,
    /// The kernel refused.
    Refused {
        /// On which interface; zero: on none yet.
        link: LinkId,
        /// Its reason.
        cause: io::Error,
    },
    /// The interface has no Ethernet address, so nothing can be announced there.
    NoEthernet {
        /// Which.
        link: LinkId,
    },
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission => f.write_str(
                "packet sockets are not permitted: run as root, or with CAP_NET_RAW in this \
                 network namespace",
            ),
            Self::Refused { link, cause } => write!(f, "interface {}: {cause}", link.0),
            Self::NoEthernet { link } => write!(
                f,
                "interface {} is not known as an Ethernet interface: an address cannot be \
                 announced there",
                link.0
            ),
        }
    }
}

impl std::error::Error for PacketError {}

impl PacketError {
    fn refused(link: LinkId, cause: io::Error) -> Self {
        if cause.kind() == io::ErrorKind::PermissionDenied {
            Self::Permission
        } else {
            Self::Refused { link, cause }
        }
    }
}

/// Hears what others on one segment say about addresses.
pub struct Listener {
    link: LinkId,
    mac: Mac,
    arp: Socket,
    ndp: Socket,
}

impl Listener {
    /// Listens on an interface; what `mac` says, its own address, is not heard.
    pub fn open(link: LinkId, mac: Mac) -> Result<Self, PacketError> {
        let listen = |ethertype, filter: &[SockFilter]| {
            listen(link, ethertype, filter).map_err(|e| PacketError::refused(link, e))
        };
        let arp = listen(ETHERTYPE_ARP, &[])?;
        let ndp = listen(ETHERTYPE_IPV6, &NEIGHBOUR_MESSAGES)?;
        Ok(Self { link, mac, arp, ndp })
    }

    /// The two descriptors to watch.
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.arp.as_fd(), self.ndp.as_fd()]
    }

    /// The interface.
    pub const fn link(&self) -> LinkId {
        self.link
    }

    /// The interface has another Ethernet address now.
    pub const fn set_mac(&mut self, mac: Mac) {
        self.mac = mac;
    }

    /// Hands over what there is to hear; never waits, never allocates.
    pub fn read(&mut self, tell: &mut dyn FnMut(Heard)) -> Result<(), PacketError> {
        let (link, own) = (self.link, self.mac);
        let mut claim = |claim: Option<(IpAddr, Mac)>| match claim {
            Some((address, mac)) if mac != own => tell(Heard::Claim { link, address, mac }),
            Some(_) | None => {}
        };
        read(&self.arp, |frame| claim(claim_of_arp(frame)))
            .and_then(|()| read(&self.ndp, |frame| claim(claim_of_ndp(frame))))
            .map_err(|cause| PacketError::Refused { link, cause })
    }
}

fn claim_of_arp(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    let (address, mac) = arp::parse(frame)?.claim()?;
    Some((address.into(), mac))
}

fn claim_of_ndp(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    match ndp::parse(frame)? {
        Neighbour::Advertisement(said) => Some((said.target.into(), said.target_mac?)),
        // Who asks from an address says that it is there (RFC 4861 §7.2.3); who asks from none
        // only tests it (RFC 4862 §5.4.2).
        Neighbour::Solicitation(asked) if asked.source.is_unspecified() => None,
        Neighbour::Solicitation(asked) => Some((asked.source.into(), asked.source_mac?)),
    }
}

/// Lets through IPv6 frames whose first header is ICMPv6 of type 135 or 136.
const NEIGHBOUR_MESSAGES: [SockFilter; 7] = [
    SockFilter::new(LOAD_BYTE, 0, 0, 14 + 6), // next header
    SockFilter::new(JUMP_EQUAL, 0, 4, 58),
    SockFilter::new(LOAD_BYTE, 0, 0, 14 + 40), // type
    SockFilter::new(JUMP_EQUAL, 1, 0, 135),
    SockFilter::new(JUMP_EQUAL, 0, 1, 136),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
    SockFilter::new(RETURN, 0, 0, 0),
];
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

fn packet_socket() -> io::Result<Socket> {
    // No protocol yet, so that nothing arrives before the filter stands and the interface is set.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listen(link: LinkId, ethertype: u16, filter: &[SockFilter]) -> io::Result<Socket> {
    let socket = packet_socket()?;
    if !filter.is_empty() {
        socket.attach_filter(filter)?;
    }
    sys::bind_packet(&socket, link.0, ethertype)?;
    Ok(socket)
}

fn read(socket: &Socket, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut frame = [0; FRAME_MAX];
    for _ in 0..FRAMES_PER_READ {
        match io::Read::read(&mut &*socket, &mut frame) {
            Ok(length) => each(&frame[..length]),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(()),
                Some(libc::EINTR) => {}
                // The interface went down: said once here, and the monitor says it too.
                Some(libc::ENETDOWN) => return Ok(()),
                Some(_) | None => return Err(error),
            },
        }
    }
    Ok(())
}

/// Tells segments who has an address, and asks them.
pub struct Announcer {
    socket: Socket,
    links: Vec<Speaker>,
}

/// What is needed to speak on one interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Speaker {
    link: LinkId,
    mac: Mac,
    router: bool,
}

impl Announcer {
    /// Opens the socket; it hears nothing.
    pub fn open() -> Result<Self, PacketError> {
        let socket = packet_socket().map_err(|e| PacketError::refused(LinkId(0), e))?;
        // Beside the heartbeats: before ordinary traffic in a full queue.
        let _ = socket.set_priority(6);
        // Worth having and not worth failing for.
        let _ = sys::set_queue(&socket, Queue::Sent, QUEUE_LEN);
        Ok(Self { socket, links: Vec::new() })
    }

    /// Sets the Ethernet address of an interface, and whether the host routes IPv6 there.
    pub fn set_link(&mut self, link: LinkId, mac: Mac, router: bool) {
        self.links.retain(|s| s.link != link);
        self.links.push(Speaker { link, mac, router });
    }

    /// The interface has another Ethernet address now.
    pub fn set_mac(&mut self, link: LinkId, mac: Mac) {
        for speaker in self.links.iter_mut().filter(|s| s.link == link) {
            speaker.mac = mac;
        }
    }

    /// Says that the address is here. One frame, no allocation.
    pub fn announce(
        &self,
        link: LinkId,
        address: IpAddr,
        kind: FrameKind,
    ) -> Result<(), PacketError> {
        let Speaker { mac, router, .. } = self.speaker(link)?;
        let sent = match (kind, address) {
            // A defence is one broadcast announcement, in the same words (RFC 5227 §2.4 b).
            (FrameKind::Gratuitous | FrameKind::Defence, IpAddr::V4(v4)) => {
                let frame = arp::emit_gratuitous(mac, v4);
                sys::send_packet(&self.socket, link.0, ETHERTYPE_ARP, &frame)
            }
            (FrameKind::Gratuitous | FrameKind::Defence, IpAddr::V6(v6)) => {
                let frame = ndp::emit_unsolicited(mac, v6, router);
                sys::send_packet(&self.socket, link.0, ETHERTYPE_IPV6, &frame)
            }
        };
        sent.map_err(|cause| PacketError::Refused { link, cause })
    }

    /// Asks the segment who has the address, from an address of this host. One frame, no
    /// allocation; who answers is for a `Listener` to hear.
    pub fn ask(&self, link: LinkId, from: IpAddr, target: IpAddr) -> Result<(), PacketError> {
        let mac = self.speaker(link)?.mac;
        let sent = match (from, target) {
            (IpAddr::V4(from), IpAddr::V4(target)) => {
                let frame = arp::emit_request(mac, from, target);
                sys::send_packet(&self.socket, link.0, ETHERTYPE_ARP, &frame)
            }
            (IpAddr::V6(from), IpAddr::V6(target)) => {
                let frame = ndp::emit_solicitation(mac, from, target);
                sys::send_packet(&self.socket, link.0, ETHERTYPE_IPV6, &frame)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
            }
        };
        sent.map_err(|cause| PacketError::Refused { link, cause })
    }

    fn speaker(&self, link: LinkId) -> Result<Speaker, PacketError> {
        let speaker = self.links.iter().find(|s| s.link == link);
        speaker.copied().ok_or(PacketError::NoEthernet { link })
    }
}
