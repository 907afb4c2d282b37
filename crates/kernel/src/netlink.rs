//! Speaks with the kernel about interfaces, addresses and filters.
//!
//! Two sockets: one asks and waits for the answer, the other hears the news. On one socket our own
//! changes would be mixed into the answers.

mod address;
mod filter;
mod link;
mod macvlan;
pub(crate) mod message;
mod monitor;
mod neighbour;
mod requests;
mod virtual_routes;
mod xdp;

pub use address::{AddressChange, AddressFacts};
pub(crate) use filter::{Direction, Filter, Hook};
pub use link::LinkFacts;
pub(crate) use macvlan::MacvlanFacts;
pub use monitor::{Monitor, News};
pub use neighbour::{NeighbourFacts, RouteFacts};
pub use requests::{NetlinkError, Requests};
pub use virtual_routes::{is_route, is_rule};
pub(crate) use xdp::{XdpFacts, XdpPlace};

/// The mark of our addresses, IFA_PROTO: what carries it was put there by Buoy.
pub const PROTOCOL_MARK: u8 = 0xb0;

/// The mark of the VIPs of a real server: the agent must not take them for its own.
pub const BACKEND_MARK: u8 = 0xb1;

/// A socket of this network namespace, to ask what belongs to the namespace itself.
pub(crate) fn any_socket() -> std::io::Result<std::os::fd::OwnedFd> {
    crate::sys::netlink(0, 0)
}
