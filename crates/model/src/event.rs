//! What can happen to a node. The driver turns packets, kernel news and orders into these.

use crate::{Desired, GroupId, HeardAdvert, Instant, Leg, LinkId, Mac, Message, NodeId};
use alloc::string::String;
use alloc::sync::Arc;
use core::net::IpAddr;

/// One thing that happened, at the `now` it is handed over with.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// `deadline()` may have passed. Sockets were read before, so silence is silence.
    Tick,
    /// A datagram that was sealed with a key of ours and parsed.
    Heard {
        /// What it says.
        message: &'a Message,
        /// Our leg that it came in on.
        leg: Leg,
    },
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
    /// A packet of VRRP.
    Advert(&'a HeardAdvert),
    /// What the checks of this node that weigh something add to its VRRP priorities, all together.
    Weight {
        /// Of which group.
        group: GroupId,
        /// Added to the priority.
        weight: i16,
    },
    /// Whether this node could serve the group well, by its own checks.
    Fitness {
        /// Which group.
        group: GroupId,
        /// Whether it could, or why not.
        fitness: Fitness,
    },
    /// A new configuration that passed every check.
    Reload(Arc<Desired>),
    /// An operator wants something of this node, or of a group that it owns.
    Order(Order),
    /// The agent ends: give everything away, in order.
    Stop,
}

/// How well this node could serve a group.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Fitness {
    /// Each of its services has a backend up, and each of its checks passes.
    #[default]
    Fit,
    /// A service has no backend that is known to be up, and not all are known to be down: good enough to keep a
    /// group, and no reason for another node to give its own up.
    Unchecked,
    /// A service has no backend up, as seen from here.
    NoBackend,
    /// A check on this node fails.
    CheckFails {
        /// Its name.
        check: String,
    },
}

/// What an operator can want. Each has a reason, for the record and for `buoy why`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Order {
    /// Give every group away and take none.
    Drain {
        /// In the operator's words.
        reason: String,
        /// When the node takes part again by itself.
        until: Option<Instant>,
    },
    /// Take part again.
    Undrain {
        /// In the operator's words.
        reason: String,
    },
    /// Keep what is here and take nothing that another node can take.
    Cordon {
        /// In the operator's words.
        reason: String,
    },
    /// Take like any other node again.
    Uncordon {
        /// In the operator's words.
        reason: String,
    },
    /// Give this group to that node; it stays there until somebody moves or releases it.
    Move {
        /// Which, owned by this node.
        group: GroupId,
        /// To whom.
        to: NodeId,
        /// In the operator's words.
        reason: String,
    },
    /// Keep this group on this node, whatever better node there is; a failure still moves it.
    Hold {
        /// Which, owned by this node.
        group: GroupId,
        /// In the operator's words.
        reason: String,
        /// When it is free to move again by itself.
        until: Option<Instant>,
    },
    /// Tell the neighbours again, now, who has the addresses of this group.
    Announce {
        /// Which, owned by this node.
        group: GroupId,
        /// In the operator's words.
        reason: String,
    },
    /// The end of a hold, or of what a move pinned: the group goes where it belongs.
    Release {
        /// Which, owned by this node.
        group: GroupId,
        /// In the operator's words.
        reason: String,
    },
}
