//! Speaks with netfilter in the kernel (nfnetlink): one question at a time, on a socket of its own.

use crate::netlink::message::{Request, attributes, messages};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Marks an attribute that has others in it.
pub(crate) const NESTED: u16 = 0x8000;
/// Bytes of `nfgenmsg`, which stands before the attributes.
pub(crate) const BEFORE: usize = 4;

pub(crate) fn open() -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    // The kernel always answers; should it not, the caller must not hang.
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(5))?;
    Ok(socket)
}

/// Sends a request and hands each entry of the answer over, up to its end.
pub(crate) fn exchange(
    socket: &OwnedFd,
    request: &mut Request,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    // One question at a time on a socket of its own needs no place in a conversation.
    send(socket.as_raw_fd(), request.finish(0), MsgFlags::empty())?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for message in messages(&buffer[..length]) {
            match i32::from(message.kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let code = message.payload.first_chunk();
                    let code = code.map_or(-libc::EPROTO, |b| i32::from_ne_bytes(*b));
                    return match code {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                _ => each(message.payload),
            }
        }
    }
}

/// A question or an order about what is of that family.
pub(crate) fn request(kind: u16, flags: i32, family: i32) -> Request {
    Request::new(kind, flags, &[u8::try_from(family).unwrap_or(0), 0, 0, 0])
}

/// The value of the first attribute of that type.
pub(crate) fn find(all: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(all).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}
