//! Hears from the kernel what changed on interfaces and addresses, whoever changed it.

use super::message::{Message, messages};
use super::requests::last;
use super::{NetlinkError, address, link};
use crate::sys;
use buoy_model::{Cidr, LinkId, Mac};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use socket2::{SockFilter, SockRef};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Room for a few thousand changes that come while the loop is away.
const QUEUE_LEN: i32 = 4 << 20;
const BUFFER_LEN: usize = 32 << 10;
/// Datagrams read at one call: a storm of news must not keep the loop from its leases.
const READS_MAX: usize = 64;

/// Something that changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum News {
    /// An interface, as it is now. Said for many reasons, also when nothing here changed.
    Link {
        /// Which.
        link: LinkId,
        /// Administratively up, with carrier; a removed interface is down for ever.
        up: bool,
        /// Its Ethernet address.
        mac: Option<Mac>,
    },
    /// An address was removed: by us, by others, or at the end of its lifetime.
    AddressGone {
        /// From which interface.
        link: LinkId,
        /// Which.
        cidr: Cidr,
    },
    /// There was more news than room for it: ask for everything.
    Overrun,
}

/// The socket for news.
pub struct Monitor {
    socket: OwnedFd,
    buffer: Box<[u8]>,
}

impl Monitor {
    /// Subscribes to interfaces and to addresses that go. That an address came or was renewed is
    /// dropped in the kernel: we renew ours all the time, and a thousand of them must not wake the
    /// loop a thousand times.
    pub fn open() -> Result<Self, NetlinkError> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let socket = sys::netlink(groups.cast_unsigned(), libc::SOCK_NONBLOCK)
            .map_err(|e| NetlinkError::Socket(last(&e)))?;
        SockRef::from(&socket)
            .attach_filter(&NOT_NEW_ADDRESSES)
            .map_err(|e| NetlinkError::Socket(last(&e)))?;
        // Beyond net.core.rmem_max only with CAP_NET_ADMIN; a smaller queue overruns sooner.
        if sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, QUEUE_LEN).is_err() {
            let _ = sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, QUEUE_LEN);
        }
        Ok(Self { socket, buffer: vec![0; BUFFER_LEN].into_boxed_slice() })
    }

    /// Hands over the news there is, oldest first; never waits, never allocates. What is more than
    /// one call reads is still readable afterwards.
    pub fn read(&mut self, tell: &mut dyn FnMut(News)) -> Result<(), NetlinkError> {
        for _ in 0..READS_MAX {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => {
                    messages(&self.buffer[..length]).filter_map(|m| news(&m)).for_each(&mut *tell);
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => tell(News::Overrun),
                Err(errno) => return Err(NetlinkError::NoAnswer(errno)),
            }
        }
        Ok(())
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Lets through every message but `RTM_NEWADDR`, by the type in its header, which is in the byte
/// order of the host while a filter reads in that of the network.
const NOT_NEW_ADDRESSES: [SockFilter; 4] = [
    SockFilter::new(LOAD_HALF, 0, 0, 4),
    SockFilter::new(JUMP_EQUAL, 0, 1, libc::RTM_NEWADDR.to_be() as u32),
    SockFilter::new(RETURN, 0, 0, 0),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
];
const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

fn news(message: &Message<'_>) -> Option<News> {
    match message.kind {
        libc::RTM_NEWLINK => {
            let state = link::parse(message)?;
            Some(News::Link { link: state.id, up: state.up, mac: state.mac })
        }
        libc::RTM_DELLINK => {
            let state = link::parse(message)?;
            Some(News::Link { link: state.id, up: false, mac: state.mac })
        }
        libc::RTM_DELADDR => {
            let facts = address::parse(message)?;
            Some(News::AddressGone { link: facts.link, cidr: facts.cidr })
        }
        _ => None,
    }
}
