//! What happened, one line per event; two runs of a seed have the same hash or the run is not a function of the seed.

use crate::fault::Fault;
use buoy_model::{Cidr, FrameKind, Instant, MessageKind, Record, Sequence};
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
    Sent { to: usize, kind: MessageKind, sequence: Sequence },
    Lost { to: usize },
    Overflowed,
    Heard { from: usize, kind: MessageKind, sequence: Sequence },
    Rejected(Reject),
    Gate { address: IpAddr, until: Instant },
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
    /// An empty trace that keeps the last lines, or all of them.
    pub const fn new(keep_all: bool) -> Self {
        let kept = if keep_all { usize::MAX } else { KEPT };
        Self { hash: Fnv(0xcbf2_9ce4_8422_2325), last: VecDeque::new(), kept }
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
            | Self::Overflowed
            | Self::Stopped => {}
            Self::Sent { to, kind, sequence } | Self::Heard { from: to, kind, sequence } => {
                (*to, *kind as u8, sequence).hash(state);
            }
            Self::Lost { to } => to.hash(state),
            Self::Rejected(reject) => reject.hash(state),
            Self::Gate { address, until } => (address, until).hash(state),
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
            Self::Lost { to } => write!(f, "-> n{to} lost"),
            Self::Overflowed => write!(f, "socket full, datagram dropped"),
            Self::Heard { from, kind, sequence } => {
                write!(f, "<- n{from} {kind:?} {}", sequence.0)
            }
            Self::Rejected(reject) => write!(f, "<- rejected: {reject}"),
            Self::Gate { address, until } => {
                write!(f, "gate {address} until {until:?} (its clock)")
            }
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
