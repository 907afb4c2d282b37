//! What can happen to a node. The driver turns packets, kernel news and orders into these.

use crate::{Desired, GroupId, LinkId, Mac, Message};
use alloc::string::String;
use alloc::sync::Arc;
use core::net::IpAddr;

/// One thing that happened, at the `now` it is handed over with.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// `deadline()` may have passed. Sockets were read before, so silence is silence.
    Tick,
    /// A datagram that was sealed with a key of ours and parsed.
    Heard(&'a Message),
    /// An interface can or cannot carry traffic.
    Link {
        /// Which.
        link: LinkId,
        /// Administratively up, with carrier.
        up: bool,
    },
    /// The kernel lost an address of ours that nobody here removed.
    AddressLost {
        /// On which interface.
        link: LinkId,
        /// Which.
        address: IpAddr,
    },
    /// Somebody else said that an address is theirs (ARP or NDP).
    ForeignClaim {
        /// Heard on which interface.
        link: LinkId,
        /// Which address.
        address: IpAddr,
        /// Who says so.
        mac: Mac,
    },
    /// Whether this node could serve the group well: each of its services has a backend up.
    Fitness {
        /// Which group.
        group: GroupId,
        /// Whether it could.
        fit: bool,
    },
    /// A new configuration that passed every check.
    Reload(Arc<Desired>),
    /// An operator takes this node out of service, or back in.
    Drain(DrainOrder),
    /// The agent ends: give everything away, in order.
    Stop,
}

/// Out of service, or back in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DrainOrder {
    /// Give every group away and take none.
    Drain {
        /// For the record and for `buoy why`.
        reason: String,
    },
    /// Take part again.
    Undrain,
}
