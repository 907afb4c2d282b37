//! What agents tell each other beside the lease protocol, where nothing waits for it: datagrams of a channel of
//! their own, so that no amount of it can delay a heartbeat.
//!
//! The channel promises neither delivery nor order. Who uses it repeats what holds, and gives a peer that came
//! all there is.

use crate::{ClusterId, Incarnation, NodeId, Sequence};

/// What every datagram of the exchange begins with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ExchangeHeader {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The sender's life.
    pub incarnation: Incarnation,
    /// Its place in the sender's life.
    pub sequence: Sequence,
    /// What the receiver has to say to be believed in its turn.
    pub challenge: u64,
    /// The last challenge that the sender has believed from the receiver; zero: none yet.
    pub echo: u64,
}

/// What a datagram of the exchange is about.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Topic {
    /// Nothing but that the sender is there.
    Hello,
    /// What people have ordered for backends.
    Orders,
    /// What checks of backends have found.
    Answers,
    /// Flows and translations that hashing does not explain.
    Flows,
}

impl Topic {
    /// Each once, in the order of the numbers on the wire.
    pub const ALL: [Self; 4] = [Self::Hello, Self::Orders, Self::Answers, Self::Flows];

    /// Its place in `ALL`.
    pub const fn index(self) -> usize {
        self as usize
    }
}
