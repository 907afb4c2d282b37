//! Speaks with netfilter in the kernel (nfnetlink): one question at a time, on a socket of its own.

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Marks an attribute that has others in it.
pub(crate) const NESTED: u16 = 0x8000;
/// `nlmsghdr` and `nfgenmsg`.
const HEADER: usize = 16 + 4;

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
    request: &[u8],
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((kind, body, next)) = split_message(rest) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let code = body.first_chunk().map_or(-libc::EPROTO, |b| i32::from_ne_bytes(*b));
                    return match code {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                _ => each(body),
            }
            rest = next;
        }
    }
}

/// The type and body of the first message, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
    let body = bytes.get(16..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, next))
}

/// A question or an order about what is of that family.
pub(crate) fn message(kind: u16, flags: i32, family: i32, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + attributes.len()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(HEADER + attributes.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or(0).to_ne_bytes());
    bytes.extend([0; 8]); // sequence and port: one question at a time on a socket of its own
    bytes.extend([u8::try_from(family).unwrap_or(0), 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = u16::try_from(length).unwrap_or(0).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// The value of the first attribute of that type.
pub(crate) fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes([*attributes.get(2)?, *attributes.get(3)?]);
        let value = attributes.get(4..length)?;
        if kind & !NESTED == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_end_early_are_not_found_and_do_no_harm() {
        let good = [attribute(1, &[1, 2, 3]), attribute(2 | NESTED, &[9; 8])].concat();
        assert_eq!(find(&good, 1), Some(&[1, 2, 3][..]));
        assert_eq!(find(&good, 2), Some(&[9; 8][..]));
        assert_eq!(find(&good, 3), None);
        for end in 0..good.len() {
            assert!(find(&good[..end], 2).is_none(), "{end}");
        }
        // A length of zero must not loop for ever.
        assert_eq!(find(&[0; 64], 2), None);
        assert!(split_message(&[0; 64]).is_none());
    }
}
