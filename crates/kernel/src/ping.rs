//! A raw socket for ICMP echoes (`buoy_wire::answer::echo`) that hears one host alone.
//!
//! Waiting is the caller's: the socket does not block.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

/// A socket that sends to this address and hears it. It is one of datagrams for its user, whatever the kernel
/// calls it.
pub fn open(address: IpAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::from(SocketAddr::new(address, 0)))?;
    Ok(UdpSocket::from(OwnedFd::from(socket)))
}
