//! What is kept of every decision, so that every decision can be asked about.

use crate::{
    AdvertReject, BackendId, BackendOrder, Epoch, GroupId, Incarnation, Instant, LinkId, Mac,
    NodeId,
};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

/// One fact with its moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// When, on this node's clock.
    pub at: Instant,
    /// Which group it is about, if one.
    pub group: Option<GroupId>,
    /// What.
    pub fact: Fact,
}

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fact {
    /// This node took the group.
    Acquired {
        /// The epoch it begins.
        epoch: Epoch,
        /// Why.
        cause: Cause,
        /// From the moment it decided to want the group until it had it.
        took: Duration,
    },
    /// This node gave the group up.
    Released {
        /// The epoch it ends.
        epoch: Epoch,
        /// Why.
        cause: Cause,
    },
    /// Another node serves the group now, as far as this one has heard.
    OwnerHeard {
        /// Who.
        node: NodeId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A peer is heard.
    PeerUp {
        /// Which.
        node: NodeId,
        /// Its life.
        incarnation: Incarnation,
    },
    /// A peer is not heard any more.
    PeerDown {
        /// Which.
        node: NodeId,
        /// For how long.
        silent: Duration,
    },
    /// A peer said goodbye: its agent is dead, and nothing answers for its addresses.
    PeerGoodbye {
        /// Which.
        node: NodeId,
    },
    /// How the takeover went on, in order of time, each counted from the decision to want the group.
    Served {
        /// The epoch that it is about.
        epoch: Epoch,
        /// How long the last owner had been silent when it was given up; zero where it said so itself.
        detect: Duration,
        /// The votes were there.
        decide: Duration,
        /// The address is on the interface, with the gate open.
        address: Duration,
        /// The first announcement is out.
        announce: Duration,
        /// The first packet for the address came in; `None`: not within a second.
        first_packet: Option<Duration>,
    },
    /// Two nodes served the group at once while they did not hear each other (`Safety::Available`).
    Overlap {
        /// The other one.
        node: NodeId,
        /// For how long at most: since the other one was last heard before.
        at_most: Duration,
    },
    /// None of the live peers is heard where a VIP is announced, while another leg hears them.
    Unheard {
        /// On which interface.
        link: LinkId,
        /// Whether it is so now, or over.
        now: bool,
    },
    /// An interface came and went too often: this node takes only what nobody else can.
    Damped {
        /// Which interface.
        link: LinkId,
        /// For how long, if it stays up from now on.
        remaining: Duration,
    },
    /// This node asks for longer or shorter terms, because of what the network and the host do.
    Tempo {
        /// The new term.
        term: Duration,
    },
    /// An operator keeps the group here.
    Held {
        /// In the operator's words.
        reason: String,
    },
    /// The group is free to move again.
    Freed {
        /// In the operator's words, or why by itself.
        reason: String,
    },
    /// An operator orders something of a backend, here or on another node.
    BackendOrdered {
        /// All that holds for it now.
        order: BackendOrder,
    },
    /// An order ends: its backend is in the configuration no more.
    BackendOrderDropped {
        /// Which backend.
        backend: BackendId,
    },
    /// Two agents say they are the same node.
    DuplicateNode {
        /// Which name.
        node: NodeId,
    },
    /// Somebody on the segment has an address that a new configuration would use; it is not used.
    Occupied {
        /// Which address.
        address: IpAddr,
        /// Who.
        mac: Mac,
    },
    /// Somebody else claims an address that this node serves.
    Conflict {
        /// Which address.
        address: IpAddr,
        /// Who.
        mac: Mac,
        /// Whether it was answered (at most once in `DEFEND_INTERVAL`).
        defended: bool,
        /// How many such claims there were since the last record of it.
        claims: u32,
    },
    /// Somebody removed an address that this node serves; it was put back.
    Restored {
        /// Which address.
        address: IpAddr,
    },
    /// An interface lost or regained its carrier.
    Link {
        /// Which.
        link: LinkId,
        /// What it is now.
        up: bool,
    },
    /// This node's own loop came late by that much, more than its lease.
    Stalled {
        /// How late.
        late: Duration,
    },
    /// Packets of VRRP were refused for one reason; the last one came from there.
    AdvertRefused {
        /// The virtual router.
        id: u8,
        /// Over IPv6.
        v6: bool,
        /// Why.
        reason: AdvertReject,
        /// From where, as the packet says.
        source: IpAddr,
        /// How many there were since the last record of it.
        count: u64,
    },
    /// Another router says other addresses of the same virtual router (RFC 9568 §7.1: no reason to refuse it).
    AdvertDiffers {
        /// The virtual router.
        id: u8,
        /// Over IPv6.
        v6: bool,
        /// Who says so.
        source: IpAddr,
        /// Which it says.
        addresses: Vec<IpAddr>,
    },
    /// An operator had the neighbours told again who has the addresses.
    Announced {
        /// In the operator's words.
        reason: String,
    },
    /// The node was taken out of service.
    Drained {
        /// In the operator's words.
        reason: String,
    },
    /// The node takes part again.
    Undrained {
        /// In the operator's words, or that the time of the drain is over.
        reason: String,
    },
    /// The node keeps what it has and takes nothing that another can take.
    Cordoned {
        /// In the operator's words.
        reason: String,
    },
    /// The node takes like any other again.
    Uncordoned {
        /// In the operator's words.
        reason: String,
    },
}

impl Fact {
    /// Whether this is about who owns a group.
    pub const fn is_change_of_owner(&self) -> bool {
        match self {
            Self::Acquired { .. }
            | Self::Released { .. }
            | Self::OwnerHeard { .. }
            | Self::Served { .. }
            | Self::Overlap { .. } => true,
            Self::PeerUp { .. }
            | Self::PeerDown { .. }
            | Self::PeerGoodbye { .. }
            | Self::Unheard { .. }
            | Self::Damped { .. }
            | Self::Tempo { .. }
            | Self::Held { .. }
            | Self::Freed { .. }
            | Self::Announced { .. }
            | Self::DuplicateNode { .. }
            | Self::Occupied { .. }
            | Self::Conflict { .. }
            | Self::Restored { .. }
            | Self::Link { .. }
            | Self::Stalled { .. }
            | Self::AdvertRefused { .. }
            | Self::AdvertDiffers { .. }
            | Self::Drained { .. }
            | Self::BackendOrdered { .. }
            | Self::BackendOrderDropped { .. }
            | Self::Undrained { .. }
            | Self::Cordoned { .. }
            | Self::Uncordoned { .. } => false,
        }
    }
}

/// Why a group changed hands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cause {
    /// Nobody had it.
    NoOwner,
    /// Its owner fell silent.
    OwnerSilent {
        /// Who.
        node: NodeId,
        /// For how long when this node decided.
        silent: Duration,
    },
    /// Its owner gave it up.
    OwnerReleased {
        /// Who.
        node: NodeId,
    },
    /// Its owner's agent died, and somebody said so.
    OwnerDied {
        /// Who.
        node: NodeId,
    },
    /// An operator moved it.
    Moved {
        /// To whom.
        to: NodeId,
        /// In the operator's words.
        reason: String,
    },
    /// A check on this node fails, and another node passes.
    CheckFailed {
        /// Its name.
        check: String,
    },
    /// No live peer is heard where the VIP is announced, while another leg hears them.
    Unheard {
        /// On which interface.
        link: LinkId,
    },
    /// This node lost its majority for a whole term.
    LeaseExpired,
    /// The operator drains this node.
    Drain,
    /// The agent ends.
    Stop,
    /// The interface lost its carrier.
    CarrierLost {
        /// Which.
        link: LinkId,
    },
    /// A better node is fit again.
    Failback {
        /// Which.
        to: NodeId,
    },
    /// A better owner was heard (`Safety::Available` only).
    BetterOwner {
        /// Which.
        node: NodeId,
    },
    /// By VRRP: the active router has been silent.
    RouterSilent {
        /// Who.
        source: IpAddr,
        /// For how long when this node decided.
        silent: Duration,
    },
    /// By VRRP: the active router said that it stops.
    RouterReleased,
    /// By VRRP: the active router is worse than this node.
    RouterWorse {
        /// Who.
        source: IpAddr,
        /// What it says of itself.
        priority: u8,
    },
    /// By VRRP: a better router is active.
    RouterBetter {
        /// Who.
        source: IpAddr,
        /// What it says of itself.
        priority: u8,
    },
    /// This node sees no backend of a service up, and another does.
    NoBackend,
    /// The group, or this node's part in it, left the configuration.
    Reload,
    /// The loop was frozen for longer than the lease.
    Stalled,
}
