//! What two agents say to each other, as values; `wire` turns them into bytes and back.
//!
//! A heartbeat says what its sender holds and wants. An answer says what the voter grants. Both
//! carry the same header, which makes a datagram worthless outside the session it was made for.

use crate::{ClusterId, Epoch, GroupId, Incarnation, ListVersion, NodeId, Sequence};
use alloc::vec::Vec;
use core::time::Duration;

/// One datagram. The vectors are kept and refilled, so that steady state allocates nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Message {
    /// Who speaks to whom, and when in their lives.
    pub header: Header,
    /// The form on the wire: of one that was heard, or of one to be sent.
    pub version: WireVersion,
    /// Heartbeat, answer or goodbye: says which of the fields below are meant.
    pub kind: MessageKind,
    /// Heartbeat: the sender gives its groups away and takes none.
    pub draining: bool,
    /// Heartbeat: digest of the sender's configuration, for people.
    pub digest: u32,
    /// Heartbeat: the term the sender asks for, which depends on its kernel's fence.
    pub term: Duration,
    /// Heartbeat: which list of claims of the sender's life this is. Answer: which one the voter knows.
    pub list: ListVersion,
    /// Heartbeat: the claims are those of `list`, which the receiver knows; none are in here.
    pub repeats: bool,
    /// Heartbeat: the groups the sender can own, sorted by id.
    pub claims: Vec<Claim>,
    /// Answer: the heartbeat that is answered.
    pub answered: Sequence,
    /// Answer: what holds for the groups that were asked for and are not in `grants`.
    pub rest: Rest,
    /// Answer: verdicts, sorted by group.
    pub grants: Vec<Grant>,
}

/// The form of a datagram. A node speaks the newest one that its peer has shown to know.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum WireVersion {
    /// Every claim in every heartbeat, every verdict in every answer; no goodbye.
    V1,
    /// Lists that are named once they are known, goodbyes, handovers to a named node.
    #[default]
    V2,
}

impl WireVersion {
    /// All that this program speaks, oldest first.
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// As people count them.
    pub const fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// What an answer says of the groups that it does not list.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Rest {
    /// Nothing: the list is complete (`WireVersion::V1`).
    #[default]
    Unsaid,
    /// They are granted.
    Granted,
    /// The voter does not know the list that was named: send it whole. Nothing is granted.
    Unknown,
    /// The voter knows the list, has started lately and grants nothing yet; `grants` is empty.
    /// (On the wire `rest` 3, then the microseconds as u32; all others have no such field.)
    Silent {
        /// For how long at most.
        remaining: Duration,
    },
}

/// What both kinds of datagram begin with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Header {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The sender's life.
    pub incarnation: Incarnation,
    /// The receiver's life as the sender knows it; zero: not yet.
    pub peer_incarnation: Incarnation,
    /// The datagram's place in the sender's life.
    pub sequence: Sequence,
    /// Proof asked of the receiver before its new incarnation is believed.
    pub challenge: u64,
    /// The last challenge heard from the receiver.
    pub echo: u64,
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MessageKind {
    /// Sent every interval, and at once when something changed.
    #[default]
    Heartbeat,
    /// Sent in return for a heartbeat.
    Answer,
    /// The sender's life is over, and nothing answers for its addresses any more. Made in advance and
    /// sent by whoever saw it die.
    Goodbye,
}

/// What a node says of one group that it could own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claim {
    /// The group.
    pub group: GroupId,
    /// What the sender is to it.
    pub kind: ClaimKind,
    /// The epoch of a holder; else the highest the sender has heard of.
    pub epoch: Epoch,
    /// Of a holder: an operator wants it to stay where it is.
    pub held: bool,
    /// `ClaimKind::Yields`: who is to take it; zero: whoever is best.
    pub to: NodeId,
}

impl Claim {
    /// A claim without more to say.
    pub const fn new(group: GroupId, kind: ClaimKind, epoch: Epoch) -> Self {
        Self { group, kind, epoch, held: false, to: NodeId(0) }
    }
}

/// What a node is to a group.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ClaimKind {
    /// Could own it, asks for nothing; any grant it had is returned.
    Eligible,
    /// Could own it, but sees no backend up: only if nobody else can. Asks for nothing.
    Reluctant,
    /// Asks for votes, serves nothing.
    Wants,
    /// Serves it, asks for the votes again.
    Holds,
    /// Serves it, asks for the votes again, and gives it away as soon as another is ready to serve.
    Yields,
}

impl ClaimKind {
    /// Whether the sender asks for this voter's grant.
    pub const fn asks(self) -> bool {
        match self {
            Self::Wants | Self::Holds | Self::Yields => true,
            Self::Eligible | Self::Reluctant => false,
        }
    }

    /// Whether the sender serves the group.
    pub const fn serves(self) -> bool {
        match self {
            Self::Holds | Self::Yields => true,
            Self::Wants | Self::Eligible | Self::Reluctant => false,
        }
    }
}

/// A voter's word on one group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Grant {
    /// The group.
    pub group: GroupId,
    /// Yes, or why not.
    pub verdict: Verdict,
    /// The highest epoch the voter has heard of.
    pub epoch: Epoch,
}

/// What a voter says when asked for a grant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Yours for the term you asked for, counted from when you sent.
    Granted,
    /// Promised to another for that much longer.
    Promised {
        /// To whom.
        to: NodeId,
        /// For how long at most.
        remaining: Duration,
    },
    /// The voter has started lately and may have forgotten a promise.
    Silent {
        /// For how long at most.
        remaining: Duration,
    },
}
