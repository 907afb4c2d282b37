//! Speaks with the kernel about interfaces, addresses and filters.
//!
//! Two sockets: one asks and waits for the answer, the other hears the news. On one socket our own
//! changes would be mixed into the answers.

mod address;
mod filter;
mod link;
mod message;
mod monitor;
mod neighbour;
mod requests;

pub use address::{AddressChange, AddressFacts};
pub(crate) use filter::{Direction, Hook};
pub use link::LinkFacts;
pub use monitor::{Monitor, News};
pub use neighbour::{NeighbourFacts, RouteFacts};
pub use requests::{NetlinkError, Requests};

/// The mark of our addresses, IFA_PROTO: what carries it was put there by Buoy.
pub const PROTOCOL_MARK: u8 = 0xb0;
