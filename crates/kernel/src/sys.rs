//! The system calls that no safe crate offers as we need them; the only `unsafe` of the tree.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Turns the `-1` of a system call into its error.
fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn length_of<T>() -> libc::socklen_t {
    // Socket addresses and options are tens of bytes.
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

/// A route netlink socket, subscribed to these groups (bits of `RTMGRP_*`).
pub(crate) fn netlink(groups: u32, flags: i32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags;
    // SAFETY: no memory is passed.
    let fd = checked(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) })?;
    // SAFETY: the descriptor was just opened and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero bytes are a valid sockaddr_nl: port 0 lets the kernel choose.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = family(libc::AF_NETLINK);
    address.nl_groups = groups;
    let pointer = (&raw const address).cast::<libc::sockaddr>();
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    checked(unsafe { libc::bind(fd.as_raw_fd(), pointer, length_of::<libc::sockaddr_nl>()) })?;
    Ok(fd)
}

/// Binds a packet socket to one interface and one Ethernet type.
pub(crate) fn bind_packet(fd: &impl AsRawFd, link: u32, ethertype: u16) -> io::Result<()> {
    let address = link_address(link, ethertype);
    let pointer = (&raw const address).cast::<libc::sockaddr>();
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    checked(unsafe { libc::bind(fd.as_raw_fd(), pointer, length_of::<libc::sockaddr_ll>()) })?;
    Ok(())
}

/// Sends one whole Ethernet frame out of an interface.
pub(crate) fn send_packet(
    fd: &impl AsRawFd,
    link: u32,
    ethertype: u16,
    frame: &[u8],
) -> io::Result<()> {
    let address = link_address(link, ethertype);
    let pointer = (&raw const address).cast::<libc::sockaddr>();
    let length = length_of::<libc::sockaddr_ll>();
    // SAFETY: frame and address are borrowed for the call, and their lengths are given with them.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            pointer,
            length,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn link_address(link: u32, ethertype: u16) -> libc::sockaddr_ll {
    // SAFETY: all-zero bytes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = family(libc::AF_PACKET);
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = i32::try_from(link).unwrap_or(-1);
    address
}

fn family(family: i32) -> libc::sa_family_t {
    // The families are small constants.
    libc::sa_family_t::try_from(family).unwrap_or(0)
}

/// Sets a socket option that is an `int`.
pub(crate) fn set_option(fd: &impl AsRawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let pointer = (&raw const value).cast();
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    checked(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, pointer, length_of::<i32>()) })?;
    Ok(())
}

/// How many datagrams the kernel dropped because this socket was read too late.
pub(crate) fn socket_drops(fd: &impl AsRawFd) -> u32 {
    // SK_MEMINFO_DROPS of linux/sock_diag.h; the array may grow, so more room than needed.
    const DROPS: usize = 8;
    let mut words = [0_u32; 16];
    let mut length = length_of::<[u32; 16]>();
    let pointer = words.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `length` bytes to `words` and the new length to `length`.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            pointer,
            &raw mut length,
        )
    };
    if result < 0 { 0 } else { words[DROPS] }
}

/// Waits until one of these can be read, or so long; `None` waits for ever. Gives how many can.
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<i32> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // Every caller has at most `poll::FDS_MAX` of them.
    let count = libc::nfds_t::try_from(fds.len()).unwrap_or(0);
    // SAFETY: the kernel writes to the `count` entries of `fds` only; the timeout is null or
    // lives until the end of this function; a null mask leaves signals as they are.
    checked(unsafe { libc::ppoll(fds.as_mut_ptr(), count, timeout, std::ptr::null()) })
}

/// Puts the calling thread under `SCHED_FIFO`; what it forks starts as an ordinary process.
pub(crate) fn schedule_fifo(priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel reads `parameters`, which outlives the call; 0 is the calling thread.
    checked(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) })?;
    Ok(())
}
