//! Asks the kernel for something and waits for its answer.

use super::message::{Message, Request, attributes, messages, word};
use super::{AddressChange, AddressFacts, LinkFacts, address, link};
use crate::sys;
use buoy_model::{Cidr, LinkId};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// The kernel answers while it is asked; this bounds the wait for an answer that got lost.
const ANSWER_MAX_MS: i64 = 200;
const BUFFER_LEN: usize = 32 << 10;
const DUMP_TRIES_MAX: u32 = 8;
/// Orders in one datagram: if all are refused, the refusals still fit the queue of the socket.
const BATCH_MAX: usize = 64;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words.
const ERROR_WORDS: u16 = 1;
/// `NLM_F_ACK_TLVS` and `NLM_F_CAPPED`: words follow; the request is not repeated before them.
const ANSWER_HAS_WORDS: u16 = 0x200;
const ANSWER_IS_CAPPED: u16 = 0x100;

/// Why the kernel did not do what it was asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NetlinkError {
    /// There is no netlink socket to be had.
    Socket(Errno),
    /// The kernel said no.
    Refused {
        /// Its reason.
        errno: Errno,
        /// Its own words; often empty.
        words: String,
    },
    /// The kernel did not answer in time, or the answer made no sense.
    NoAnswer(Errno),
}

impl NetlinkError {
    /// The error number, to decide by.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Socket(errno) | Self::Refused { errno, .. } | Self::NoAnswer(errno) => *errno,
        }
    }
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(errno) => write!(f, "no netlink socket: {}", errno.desc())?,
            Self::Refused { errno, words } if words.is_empty() => f.write_str(errno.desc())?,
            Self::Refused { errno, words } => write!(f, "{} ({words})", errno.desc())?,
            Self::NoAnswer(errno) => write!(f, "the kernel did not answer: {}", errno.desc())?,
        }
        if self.errno() == Errno::EPERM {
            f.write_str(": run as root, or with CAP_NET_ADMIN in this network namespace")?;
        }
        Ok(())
    }
}

impl std::error::Error for NetlinkError {}

/// The socket for questions and orders.
pub struct Requests {
    socket: OwnedFd,
    sequence: u32,
    buffer: Box<[u8]>,
    /// The orders that go out together.
    batch: Vec<u8>,
    calls: u64,
}

impl Requests {
    /// Opens the socket.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = sys::netlink(0, 0).map_err(|e| NetlinkError::Socket(last(&e)))?;
        let timeout = TimeVal::new(0, ANSWER_MAX_MS * 1000);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout).map_err(NetlinkError::Socket)?;
        // Without these two an error is a bare number, and its answer as long as its request.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            sys::set_option(&socket, libc::SOL_NETLINK, option, 1)
                .map_err(|e| NetlinkError::Socket(last(&e)))?;
        }
        let buffer = vec![0; BUFFER_LEN].into_boxed_slice();
        let batch = Vec::with_capacity(BUFFER_LEN);
        Ok(Self { socket, sequence: 0, buffer, batch, calls: 0 })
    }

    /// Puts an address of ours on an interface, or renews its lifetime there (seconds).
    pub fn add_address(
        &mut self,
        link: LinkId,
        cidr: Cidr,
        valid_lifetime: u32,
    ) -> Result<(), NetlinkError> {
        self.order(&mut address::add(link, cidr, valid_lifetime))
    }

    /// Puts a VIP of a real server on its loopback interface, if it is not there yet.
    pub fn add_to_loopback(
        &mut self,
        loopback: LinkId,
        address: IpAddr,
    ) -> Result<(), NetlinkError> {
        match self.order(&mut address::add_to_loopback(loopback, address)) {
            Err(NetlinkError::Refused { errno: Errno::EEXIST, .. }) => Ok(()),
            other => other,
        }
    }

    /// Takes an address off an interface; says whether it was there.
    pub fn remove_address(&mut self, link: LinkId, cidr: Cidr) -> Result<bool, NetlinkError> {
        match self.order(&mut address::remove(link, cidr)) {
            Ok(()) => Ok(true),
            Err(NetlinkError::Refused { errno: Errno::EADDRNOTAVAIL | Errno::ENODEV, .. }) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes all these changes in their order, many in one system call. What is refused is told by
    /// its place; the others are made all the same.
    pub fn change_addresses(
        &mut self,
        changes: &[AddressChange],
        refused: &mut dyn FnMut(usize, NetlinkError),
    ) {
        for (index, batch) in changes.chunks(BATCH_MAX).enumerate() {
            let first = index * BATCH_MAX;
            let answered = self.change_together(batch, &mut |at, error| refused(first + at, error));
            if answered.is_ok() {
                continue;
            }
            // Some were made and nobody knows which: to make one twice is to make it once.
            for (at, change) in (first..).zip(batch) {
                if let Err(error) = self.order(&mut change.request()) {
                    refused(at, error);
                }
            }
        }
    }

    fn change_together(
        &mut self,
        batch: &[AddressChange],
        refused: &mut dyn FnMut(usize, NetlinkError),
    ) -> Result<(), NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        self.batch.clear();
        for (index, change) in (1..).zip(batch) {
            let mut request = change.request();
            if index < batch.len() {
                request.without_acknowledgement();
            }
            self.sequence = self.sequence.wrapping_add(1);
            self.batch.extend_from_slice(request.finish(self.sequence));
        }
        self.calls += 1;
        send(self.socket.as_raw_fd(), &self.batch, MsgFlags::empty())
            .map_err(NetlinkError::NoAnswer)?;
        let last = self.sequence;
        loop {
            let length = self.receive()?;
            for answer in messages(&self.buffer[..length]) {
                let at = usize::try_from(answer.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                // Further on: the late answer to an order that was given up.
                if at >= batch.len() {
                    continue;
                }
                if let Err(error) = outcome(&answer) {
                    refused(at, error);
                }
                if answer.sequence == last {
                    return Ok(());
                }
            }
        }
    }

    /// How many system calls it has made, for tests that count them.
    pub const fn system_calls(&self) -> u64 {
        self.calls
    }

    /// All addresses of this host.
    pub fn addresses(&mut self) -> Result<Vec<AddressFacts>, NetlinkError> {
        self.collect(&mut address::dump(), address::parse)
    }

    /// The addresses that carry our mark.
    pub fn list_ours(&mut self) -> Result<Vec<AddressFacts>, NetlinkError> {
        let mut addresses = self.addresses()?;
        addresses.retain(|a| a.ours);
        Ok(addresses)
    }

    /// All interfaces of this host.
    pub fn links(&mut self) -> Result<Vec<LinkFacts>, NetlinkError> {
        self.collect(&mut link::dump(), |message| link::parse(message).map(LinkFacts::from))
    }

    /// Gives an order and waits for its acknowledgement. Allocates only for an error's words.
    pub(super) fn order(&mut self, request: &mut Request) -> Result<(), NetlinkError> {
        let sequence = self.send(request)?;
        loop {
            let length = self.receive()?;
            let answer = messages(&self.buffer[..length]).find(|m| m.sequence == sequence);
            // Another sequence number: the late answer to an order that was given up.
            let Some(answer) = answer else { continue };
            return outcome(&answer);
        }
    }

    /// Asks for a list; again, if it changed while it was told.
    pub(super) fn collect<T>(
        &mut self,
        request: &mut Request,
        parse: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_TRIES_MAX {
            if let Some(list) = self.collect_once(request, &parse)? {
                return Ok(list);
            }
        }
        Err(NetlinkError::NoAnswer(Errno::EINTR))
    }

    fn collect_once<T>(
        &mut self,
        request: &mut Request,
        parse: &impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        let sequence = self.send(request)?;
        let mut list = Vec::new();
        let mut whole = true;
        loop {
            let length = self.receive()?;
            for message in messages(&self.buffer[..length]).filter(|m| m.sequence == sequence) {
                whole &= i32::from(message.flags) & libc::NLM_F_DUMP_INTR == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(whole.then_some(list)),
                    libc::NLMSG_ERROR => {
                        outcome(&message)?;
                        return Ok(whole.then_some(list));
                    }
                    _ => list.extend(parse(&message)),
                }
            }
        }
    }

    fn send(&mut self, request: &mut Request) -> Result<u32, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.finish(self.sequence);
        self.calls += 1;
        send(self.socket.as_raw_fd(), bytes, MsgFlags::empty()).map_err(NetlinkError::NoAnswer)?;
        Ok(self.sequence)
    }

    fn receive(&mut self) -> Result<usize, NetlinkError> {
        loop {
            self.calls += 1;
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => return Ok(length),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(NetlinkError::NoAnswer(errno)),
            }
        }
    }
}

/// What an answer of type `NLMSG_ERROR` says: success is the error 0.
fn outcome(answer: &Message<'_>) -> Result<(), NetlinkError> {
    if i32::from(answer.kind) != libc::NLMSG_ERROR {
        return Err(NetlinkError::NoAnswer(Errno::EBADMSG));
    }
    let code = word(answer.payload, 0).map_or(-libc::EBADMSG, u32::cast_signed);
    if code == 0 {
        return Ok(());
    }
    let errno = Errno::from_raw(code.saturating_neg());
    Err(NetlinkError::Refused { errno, words: words(answer).unwrap_or_default() })
}

fn words(answer: &Message<'_>) -> Option<String> {
    if answer.flags & ANSWER_HAS_WORDS == 0 {
        return None;
    }
    // The error, then the header of the request, and its content where it is not capped.
    let content = usize::try_from(word(answer.payload, 4)?).ok()?;
    let repeated = if answer.flags & ANSWER_IS_CAPPED == 0 { content } else { 16 };
    let rest = answer.payload.get(4 + repeated.next_multiple_of(4)..)?;
    let (_, text) = attributes(rest).find(|&(kind, _)| kind == ERROR_WORDS)?;
    Some(String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned())
}

/// The error number inside an error of a system call.
pub(super) fn last(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
