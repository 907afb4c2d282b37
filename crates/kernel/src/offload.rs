//! Switches what an interface does in place of the kernel, where XDP and that do not go together.

use crate::sys;
use std::ffi::CString;
use std::io;
use std::net::UdpSocket;

/// What an interface can do by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Offload {
    /// Checksums of what it sends. On a veth nobody computes them then, and XDP behind it forwards packets
    /// with wrong ones.
    SendChecksums,
    /// Gathers packets before the kernel sees them. A veth with it takes what XDP sends to it.
    Gather,
}

impl Offload {
    /// `ETHTOOL_STXCSUM` and `ETHTOOL_SGRO` of linux/ethtool.h.
    const fn command(self) -> u32 {
        match self {
            Self::SendChecksums => 0x17,
            Self::Gather => 0x2c,
        }
    }
}

/// Switches it on or off, on an interface of this thread's network namespace.
pub fn set(interface: &str, offload: Offload, on: bool) -> io::Result<()> {
    let name = CString::new(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
    // Any socket of the namespace will do.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    sys::set_offload(&socket, &name, offload.command(), on)
}
