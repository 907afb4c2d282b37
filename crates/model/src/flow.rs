//! What hosts tell each other of flows that no hash explains: those that a slot in a change remembers, and those
//! that have a port of a pool.

use crate::Protocol;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// A flow that was opened while its slot changed hands, as the kernel remembers it: by hashes, which all hosts of a
/// cluster make in the same way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Remembered {
    /// Where its hash says that it is looked for.
    pub bucket: u16,
    /// The other half of its hash.
    pub mark: u32,
    /// Its backend: a place in the service, and a check of who is there. The same on two hosts whose tables have the
    /// same past.
    pub identity: u16,
    /// Seconds since its last packet.
    pub idle: u16,
}

/// A flow whose backend sees an address and port of a pool in place of its client's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Translation {
    /// The transport.
    pub protocol: Protocol,
    /// Who opened it.
    pub client: SocketAddr,
    /// What it asked.
    pub vip: SocketAddr,
    /// Who has it.
    pub backend: SocketAddr,
    /// As whom the backend sees it.
    pub seen_as: SocketAddr,
    /// What was seen of it.
    pub signs: FlowSigns,
    /// Seconds since its last packet.
    pub idle: u16,
}

impl Translation {
    /// Whether all its addresses are of one IP version.
    pub const fn is_of_one_family(&self) -> bool {
        let v4 = self.client.is_ipv4();
        self.vip.is_ipv4() == v4 && self.backend.is_ipv4() == v4 && self.seen_as.is_ipv4() == v4
    }
}

/// What was seen of a flow that has a port: how long it keeps it depends on that.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FlowSigns(u8);

impl FlowSigns {
    /// Its backend has answered.
    pub const ANSWERED: Self = Self(1);
    /// And its client has spoken again.
    pub const ESTABLISHED: Self = Self(2);
    /// Its client has ended it.
    pub const CLIENT_DONE: Self = Self(4);
    /// Its backend has.
    pub const BACKEND_DONE: Self = Self(8);
    /// Either has reset it.
    pub const RESET: Self = Self(16);

    /// As the kernel and datagrams have them; other bits are dropped.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 31)
    }

    /// What `from_bits` takes.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of these were seen.
    pub const fn has(self, signs: Self) -> bool {
        self.0 & signs.0 == signs.0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether a TCP connection is over.
    pub const fn is_over(self) -> bool {
        self.has(Self::RESET) || self.has(Self(Self::CLIENT_DONE.0 | Self::BACKEND_DONE.0))
    }
}

/// The table of one service of the fast path with what it was: all that another host needs to send every flow where
/// this one does.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct History {
    /// Whom slots name, by place.
    pub backends: Vec<SocketAddr>,
    /// Slots of the newest table; a power of two, or none. There may be more while something is in a change.
    pub size: u32,
    /// The place of who takes new flows, by slot; a power of two of them, or none.
    pub current: Vec<u16>,
    /// The slots in a change, sorted.
    pub moving: Vec<HistorySlot>,
}

/// A slot in a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HistorySlot {
    /// Which.
    pub slot: u16,
    /// The place of who had it, and for how many seconds more: none is zero.
    pub previous: u16,
    /// See `previous`.
    pub previous_for: u16,
    /// For how many seconds more remembered flows are looked up.
    pub remembered_for: u16,
}

/// What hosts tell each other about flows and tables.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FlowNews {
    /// Flows that were opened while their slot changed hands.
    Remembered(Vec<Remembered>),
    /// Flows that have a port of a pool.
    Translations(Vec<Translation>),
    /// Which history the services have whose addresses the sender has: hashes of both.
    Histories(Vec<(u64, u64)>),
    /// Pieces of this history are wanted, from this one on.
    Ask(u64, u16),
    /// One of so many pieces of a history.
    Piece(HistoryPiece),
}

/// A part of a history's bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HistoryPiece {
    /// The hash of the history.
    pub history: u64,
    /// Which one it is.
    pub index: u16,
    /// Of how many.
    pub count: u16,
    /// Its bytes.
    pub bytes: Vec<u8>,
}
