//! What a node decides; the only way from `core` to the world.
//!
//! Actions are applied in order, and each so that doing it twice is doing it once.

use crate::{Cidr, GroupId, Instant, LinkId, NodeId, Presence, Record, VirtualRouter};
use alloc::sync::Arc;
use core::net::IpAddr;

/// One thing to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Send a heartbeat to this peer, on every leg: ask `Node::compose` for its content.
    Heartbeat {
        /// To whom.
        to: NodeId,
    },
    /// Answer the heartbeat just heard from this peer, on every leg: one may work in one direction
    /// only. Ask `Node::compose`.
    Answer {
        /// To whom.
        to: NodeId,
    },
    /// Keep a goodbye for this peer ready, for whoever sees this agent die: ask `Node::compose`.
    PrepareGoodbye {
        /// To whom.
        to: NodeId,
    },
    /// Let the kernel answer for this address until then and not a moment longer, whatever
    /// becomes of the agent. `Instant::ZERO` without a lease closes the gate at once.
    Fence {
        /// Which address.
        address: IpAddr,
        /// On which interface.
        link: LinkId,
        /// The end of the lease.
        until: Instant,
        /// Answer as long as this one lasts too, whichever ends later.
        lease: Option<SharedLease>,
        /// What stops past the end.
        guard: Guard,
    },
    /// Everything that is fenced with this lease may be answered for until then.
    Renew {
        /// Which lease.
        lease: SharedLease,
        /// Its end; it never moves back while something is fenced with it.
        until: Instant,
    },
    /// Put the address on the interface, or renew its lifetime there.
    AddAddress {
        /// On which interface.
        link: LinkId,
        /// Which address, with its prefix.
        cidr: Cidr,
        /// Seconds until the kernel removes it by itself.
        valid_lifetime: u32,
        /// Or answer for it there, without putting it there.
        presence: Presence,
    },
    /// Take the address off the interface; being gone already is success.
    RemoveAddress {
        /// From which interface.
        link: LinkId,
        /// Which address, with its prefix.
        cidr: Cidr,
        /// Or stop answering for it there.
        presence: Presence,
    },
    /// Tell the segment who has the address.
    Announce {
        /// On which interface.
        link: LinkId,
        /// Which address.
        address: IpAddr,
        /// In which words.
        kind: FrameKind,
    },
    /// Say by VRRP who is active: to everybody on the segment, or to each of the router's peers.
    Advertise {
        /// For which virtual router.
        router: Arc<VirtualRouter>,
        /// This host's priority as of now; 0: it stops.
        priority: u8,
        /// All that are heard use the checksum of the message alone.
        peers_are_plain: bool,
    },
    /// Something worth keeping: goes to the log, the status and the event list.
    Record(Record),
    /// All is given away: the agent may end (answer to `Event::Stop`).
    Stopped,
}

/// A lease that many addresses share, so that renewing a thousand of them is one store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SharedLease {
    /// Renewed by the votes of a majority.
    Majority,
    /// Renewed by the loop itself (`Safety::Available`): it ends when the agent is dead or frozen.
    Loop,
}

/// How much of an address stops when its lease is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guard {
    /// ARP and NDP: packets that still arrive are passed on, so that connections survive a move.
    Neighbours,
    /// All traffic from and to the address as well: two hosts never both speak for it.
    Traffic,
}

/// Which frame announces an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FrameKind {
    /// A gratuitous ARP request (RFC 5227 §3) or an unsolicited neighbour advertisement (RFC 4861 §7.2.6).
    Gratuitous,
    /// The same words, said because somebody else claimed the address (RFC 5227 §2.4).
    Defence,
}

impl Action {
    /// The group a record speaks of, for drivers that file by group.
    pub const fn group(&self) -> Option<GroupId> {
        match self {
            Self::Record(record) => record.group,
            Self::Heartbeat { .. }
            | Self::Answer { .. }
            | Self::PrepareGoodbye { .. }
            | Self::Renew { .. }
            | Self::Fence { .. }
            | Self::AddAddress { .. }
            | Self::RemoveAddress { .. }
            | Self::Announce { .. }
            | Self::Advertise { .. }
            | Self::Stopped => None,
        }
    }
}
