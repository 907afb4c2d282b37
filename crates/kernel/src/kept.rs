//! Descriptors that the service manager keeps for this service from one run to the next.
//!
//! The protocol is that of sd_notify(3) (`FDSTORE=1`) and sd_listen_fds(3), which any manager can speak. What is in
//! the store, the service has to know itself: the order in which descriptors come back is not promised.

use crate::sys;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// What the kernel takes in one message is 253.
const AT_ONCE: usize = 200;
/// What the store calls them.
const STORE: &[u8] = b"FDSTORE=1\nFDNAME=buoy\nFDPOLL=0";
/// Says that it need not keep them any longer.
const REMOVE: &[u8] = b"FDSTOREREMOVE=1\nFDNAME=buoy";
/// How long the manager may take for a message.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was kept for this run, from now on no longer by the manager: as long as it has a socket, that is not closed.
/// None where nobody has kept anything. The second call has nothing either.
pub fn take(manager: Option<&UnixDatagram>) -> Vec<OwnedFd> {
    let taken = inherited();
    if let (Some(manager), false) = (manager, taken.is_empty()) {
        // It would be told again at the next start.
        let _ = send(manager, REMOVE, &[]);
    }
    taken
}

fn inherited() -> Vec<OwnedFd> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => sys::inherited(count),
        (Some(_) | None, Some(_) | None) => Vec::new(),
    }
}

/// Gives descriptors to the manager behind this socket, and waits until it has them.
pub fn keep(manager: &UnixDatagram, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
    for some in raw.chunks(AT_ONCE) {
        send(manager, STORE, some)?;
    }
    // The manager closes this one when all before it is done; a process that ends sooner is nobody's.
    let (reader, writer) = io::pipe()?;
    send(manager, b"BARRIER=1", &[writer.as_raw_fd()])?;
    drop(writer);
    let mut wait = [PollFd::new(reader.as_fd(), PollFlags::empty())];
    let limit = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
    match poll(&mut wait, limit)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

fn send(manager: &UnixDatagram, text: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let rights = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(text)];
    loop {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match sendmsg::<UnixAddr>(manager.as_raw_fd(), &parts, rights, flags, None) {
            Ok(_) => return Ok(()),
            // Its queue is full, and it is slower than we are.
            Err(nix::errno::Errno::EAGAIN) => {
                let mut wait = [PollFd::new(manager.as_fd(), PollFlags::POLLOUT)];
                let limit = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
                if poll(&mut wait, limit)? == 0 {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}
