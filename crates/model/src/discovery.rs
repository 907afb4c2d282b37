//! Backends that the file does not name one by one: it says where to look for them.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// One entry of `backends` that stands for many.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Discovery {
    /// The entry as it is written, by which what was found for it is known.
    pub text: String,
    /// Where to look.
    pub place: DiscoveryPlace,
    /// What follows each backend that is found there: ` weight=2 backup`, or nothing.
    pub settings: String,
    /// Who is asked for names; empty: whom the host asks.
    pub resolvers: Vec<SocketAddr>,
}

/// Where backends are looked for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum DiscoveryPlace {
    /// The addresses of a name (RFC 1035 A, RFC 3596 AAAA).
    Name {
        /// Fully qualified, without the last dot.
        name: String,
        /// `None`: that of the service.
        port: Option<u16>,
    },
    /// The servers of a name, with ports, weights and backups (RFC 2782 SRV).
    Servers {
        /// Fully qualified, without the last dot.
        name: String,
    },
    /// A file with one backend in each line.
    File {
        /// Its path; what is relative is so to the configuration.
        path: String,
    },
}
