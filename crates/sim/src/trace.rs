//! What happened, one line per event; two runs of a seed have the same hash or the run is not a function of the seed.

use crate::fault::Fault;
use buoy_model::{Cidr, FrameKind, Instant, MessageKind, Record, Sequence, SharedLease};
use buoy_wire::Reject;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// Lines kept for whoever wants to know how it came to a failure.
const KEPT: usize = 80;

/// The events of a run.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: Fnv,
    last: VecDeque<Line>,
    kept: usize,
}

/// One event at its true time, on a host or (`None`) in the world.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Line {
    at: u64,
    host: Option<usize>,
    what: What,
}

/// What can be seen from outside of the machines.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Broke(Fault),
    Calm,
    Started,
    Died,
    Resumed,
    Woke,
    Mourned,
    Ordered(String),
    Sent { to: usize, kind: MessageKind, sequence: Sequence },
    Lost { to: usize, leg: usize },
    Overflowed,
    Heard { from: usize, leg: u8, kind: MessageKind, sequence: Sequence },
    Rejected(Reject),
    Gate { address: IpAddr, until: Instant, lease: Option<SharedLease> },
    Renewed { lease: SharedLease, until: Instant },
    Added { cidr: Cidr, valid: u32 },
    Removed { cidr: Cidr },
    Expired { address: IpAddr },
    Announced { address: IpAddr, kind: FrameKind },
    Fact(Record),
    Stopped,
}

/// FNV-1a with 64 bits.
#[derive(Clone, Copy, Debug)]
struct Fnv(u64);

impl Trace {
    /// An empty trace that keeps the last lines.
    pub const fn short() -> Self {
        Self::keeping(KEPT)
    }

    /// An empty trace that keeps so many lines.
    pub const fn keeping(kept: usize) -> Self {
        Self { hash: Fnv(0xcbf2_9ce4_8422_2325), last: VecDeque::new(), kept }
    }

    /// No trace at all, and no hash: for hours that nobody will read.
    pub const fn off() -> Self {
        Self::keeping(0)
    }

    /// The hash of all lines so far.
    pub const fn hash(&self) -> u64 {
        self.hash.0
    }

    /// The lines that were kept.
    pub fn lines(&self) -> impl Iterator<Item = impl fmt::Display> {
        self.last.iter()
    }

    pub(crate) fn push(&mut self, at: u64, host: Option<usize>, what: What) {
        if self.kept == 0 {
            return;
        }
        let line = Line { at, host, what };
        line.hash(&mut self.hash);
        if self.last.len() >= self.kept {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

impl Hash for What {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            // Rare, and full of text: their printed form will do.
            Self::Broke(fault) => format!("{fault:?}").hash(state),
            Self::Fact(record) => format!("{record:?}").hash(state),
            Self::Calm
            | Self::Started
            | Self::Died
            | Self::Resumed
            | Self::Woke
            | Self::Mourned
            | Self::Overflowed
            | Self::Stopped => {}
            Self::Ordered(order) => order.hash(state),
            Self::Sent { to, kind, sequence } => (*to, *kind as u8, sequence).hash(state),
            Self::Heard { from, leg, kind, sequence } => {
                (*from, leg, *kind as u8, sequence).hash(state);
            }
            Self::Lost { to, leg } => (to, leg).hash(state),
            Self::Rejected(reject) => reject.hash(state),
            Self::Gate { address, until, lease } => {
                (address, until, lease.map(|lease| lease as u8)).hash(state);
            }
            Self::Renewed { lease, until } => (*lease as u8, until).hash(state),
            Self::Added { cidr, valid } => (cidr, valid).hash(state),
            Self::Removed { cidr } => cidr.hash(state),
            Self::Expired { address } => address.hash(state),
            Self::Announced { address, kind } => (address, *kind as u8).hash(state),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ms, ns) = (self.at / 1_000_000, self.at % 1_000_000);
        match self.host {
            Some(host) => write!(f, "{ms:>7}.{ns:06} ms  n{host}    {}", self.what),
            None => write!(f, "{ms:>7}.{ns:06} ms  world {}", self.what),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broke(fault) => write!(f, "{fault:?}"),
            Self::Calm => write!(f, "calm: nothing breaks any more"),
            Self::Started => write!(f, "starts"),
            Self::Died => write!(f, "dies"),
            Self::Resumed => write!(f, "goes on"),
            Self::Woke => write!(f, "tick"),
            Self::Sent { to, kind, sequence } => write!(f, "-> n{to} {kind:?} {}", sequence.0),
            Self::Mourned => write!(f, "the supervisor says goodbye"),
            Self::Ordered(order) => write!(f, "is ordered: {order}"),
            Self::Lost { to, leg } => write!(f, "-> n{to} on leg {leg} lost"),
            Self::Overflowed => write!(f, "socket full, datagram dropped"),
            Self::Heard { from, leg, kind, sequence } => {
                write!(f, "<- n{from} on leg {leg} {kind:?} {}", sequence.0)
            }
            Self::Rejected(reject) => write!(f, "<- rejected: {reject}"),
            Self::Gate { address, until, lease } => {
                write!(f, "gate {address} until {until:?} (its clock)")?;
                lease.map_or(Ok(()), |lease| write!(f, " and as long as {lease:?}"))
            }
            Self::Renewed { lease, until } => write!(f, "renews {lease:?} until {until:?}"),
            Self::Added { cidr, valid } => write!(f, "add {cidr} for {valid} s"),
            Self::Removed { cidr } => write!(f, "remove {cidr}"),
            Self::Expired { address } => {
                write!(f, "kernel removes {address}: its lifetime is over")
            }
            Self::Announced { address, kind } => write!(f, "announce {address} ({kind:?})"),
            Self::Fact(record) => {
                write!(f, "{:?} (its clock) {:?}", record.at, record.fact)?;
                record.group.map_or(Ok(()), |group| write!(f, " group {:08x}", group.0))
            }
            Self::Stopped => write!(f, "has stopped in order"),
        }
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
