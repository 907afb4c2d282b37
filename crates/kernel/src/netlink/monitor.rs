//! Hears from the kernel what changed on interfaces and addresses, whoever changed it.

use super::message::{Message, messages};
use super::requests::last;
use super::{NetlinkError, address, link};
use crate::sys;
use buoy_model::{Cidr, LinkId, Mac};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
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
    /// An address was added or renewed, by us or by others.
    AddressAdded {
        /// On which interface.
        link: LinkId,
        /// Which.
        cidr: Cidr,
        /// Whether it carries our mark.
        ours: bool,
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
    /// Subscribes to interfaces and addresses; reads no more than is there.
    pub fn open() -> Result<Self, NetlinkError> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let socket = sys::netlink(groups.cast_unsigned(), libc::SOCK_NONBLOCK)
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
        libc::RTM_NEWADDR => {
            let facts = address::parse(message)?;
            Some(News::AddressAdded { link: facts.link, cidr: facts.cidr, ours: facts.ours })
        }
        libc::RTM_DELADDR => {
            let facts = address::parse(message)?;
            Some(News::AddressGone { link: facts.link, cidr: facts.cidr })
        }
        _ => None,
    }
}
