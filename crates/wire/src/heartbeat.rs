//! The datagrams of the lease protocol: `model::Message` to bytes and back.
//!
//! All numbers are big-endian, durations are microseconds. Every version begins with the same envelope:
//!
//! ```text
//!  0       4   5   6       10      14      18      22           30           38
//! +-------+---+---+-------+-------+-------+-------+------------+------------+
//! | BUOY  |ver|knd| key id|cluster| from  |  to   |incarnation | peer's     |
//! +-------+---+---+-------+-------+-------+-------+------------+------------+
//!  38           46           54           62
//! +------------+------------+------------+------------- - -+----------------+
//! |  sequence  | challenge  |    echo    |  body           | tag (16 bytes) |
//! +------------+------------+------------+------------- - -+----------------+
//!
//! knd: 1 heartbeat, 2 answer, 3 goodbye (from version 2 on)
//! ```
//!
//! The body is the concern of `v1` and `v2`. A message has exactly one form in each version: unused
//! fields and bits are zero, groups ascend, and the body ends where its count says. The tag is the
//! concern of `seal`.

mod v1;
mod v2;

use crate::Reject;
use crate::bytes::Reader;
use alloc::vec::Vec;
use buoy_model::limits::LEASE_MAX;
use buoy_model::{
    ClaimKind, ClusterId, Epoch, Grant, GroupId, Header, Incarnation, ListVersion, Message,
    MessageKind, NodeId, Rest, Sequence, Verdict, WireVersion,
};
use core::ops::RangeInclusive;
use core::time::Duration;

/// What every datagram begins with.
pub const MAGIC: [u8; 4] = *b"BUOY";
/// Bytes before the body.
pub const ENVELOPE_LEN: usize = 62;

const VERSION_1: u8 = 1;
const VERSION_2: u8 = 2;
const KIND_HEARTBEAT: u8 = 1;
const KIND_ANSWER: u8 = 2;
const KIND_GOODBYE: u8 = 3;
const FLAG_DRAINING: u8 = 1;
const GRANT_LEN: usize = 17;

/// A datagram whose frame was understood and whose body was not looked at yet.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// Which key is said to have signed it.
    pub key: u32,
    /// In which form the body is.
    pub version: WireVersion,
    /// Who speaks to whom.
    pub header: Header,
    kind: u8,
    body: &'a [u8],
}

/// Replaces `out` by the message in the form that its `version` says, up to and without the tag.
///
/// What exceeds the version's number of groups is left out; `config` lets no such cluster begin.
pub fn emit(message: &Message, key: u32, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&MAGIC);
    out.push(match message.version {
        WireVersion::V1 => VERSION_1,
        WireVersion::V2 => VERSION_2,
    });
    out.push(match message.kind {
        MessageKind::Heartbeat => KIND_HEARTBEAT,
        MessageKind::Answer => KIND_ANSWER,
        MessageKind::Goodbye => KIND_GOODBYE,
    });
    out.extend_from_slice(&key.to_be_bytes());
    let header = &message.header;
    for word in [header.cluster.0, header.from.0, header.to.0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    let (incarnation, peer) = (header.incarnation.0, header.peer_incarnation.0);
    for word in [incarnation, peer, header.sequence.0, header.challenge, header.echo] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    debug_assert_eq!(out.len(), ENVELOPE_LEN);
    match message.version {
        WireVersion::V1 => v1::emit(message, out),
        WireVersion::V2 => v2::emit(message, out),
    }
}

impl<'a> Envelope<'a> {
    /// Reads what comes before the body; `bytes` is the datagram without its tag.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Reject> {
        if bytes.len() < ENVELOPE_LEN {
            return Err(Reject::TooShort);
        }
        let mut reader = Reader::new(bytes);
        if reader.array().ok_or(Reject::TooShort)? != MAGIC {
            return Err(Reject::Magic);
        }
        let version = match reader.u8().ok_or(Reject::TooShort)? {
            VERSION_1 => WireVersion::V1,
            VERSION_2 => WireVersion::V2,
            _ => return Err(Reject::Version),
        };
        Self::parse_rest(reader, version).ok_or(Reject::TooShort)
    }

    fn parse_rest(mut reader: Reader<'a>, version: WireVersion) -> Option<Self> {
        let kind = reader.u8()?;
        let key = reader.u32()?;
        let header = Header {
            cluster: ClusterId(reader.u32()?),
            from: NodeId(reader.u32()?),
            to: NodeId(reader.u32()?),
            incarnation: Incarnation(reader.u64()?),
            peer_incarnation: Incarnation(reader.u64()?),
            sequence: Sequence(reader.u64()?),
            challenge: reader.u64()?,
            echo: reader.u64()?,
        };
        Some(Self { key, version, header, kind, body: reader.rest() })
    }

    /// Reads the body and fills the message, reusing its vectors. After an error the message is
    /// valid in form and means nothing.
    pub fn fill(&self, message: &mut Message) -> Result<(), Reject> {
        message.header = self.header;
        message.version = self.version;
        message.draining = false;
        message.digest = 0;
        message.term = Duration::ZERO;
        message.list = ListVersion(0);
        message.repeats = false;
        message.claims.clear();
        message.answered = Sequence(0);
        message.rest = Rest::Unsaid;
        message.grants.clear();
        if self.header.incarnation.0 == 0 || self.header.sequence.0 == 0 {
            return Err(Reject::Malformed);
        }
        message.kind = match self.kind {
            KIND_HEARTBEAT => MessageKind::Heartbeat,
            KIND_ANSWER => MessageKind::Answer,
            KIND_GOODBYE => MessageKind::Goodbye,
            _ => return Err(Reject::Malformed),
        };
        let body = Reader::new(self.body);
        match self.version {
            WireVersion::V1 => v1::parse(body, message),
            WireVersion::V2 => v2::parse(body, message),
        }
        .ok_or(Reject::Malformed)
    }
}

const fn emit_claim_kind(kind: ClaimKind) -> u8 {
    match kind {
        ClaimKind::Eligible => 0,
        ClaimKind::Wants => 1,
        ClaimKind::Holds => 2,
        ClaimKind::Yields => 3,
        ClaimKind::Reluctant => 4,
    }
}

const fn parse_claim_kind(byte: u8) -> Option<ClaimKind> {
    match byte {
        0 => Some(ClaimKind::Eligible),
        1 => Some(ClaimKind::Wants),
        2 => Some(ClaimKind::Holds),
        3 => Some(ClaimKind::Yields),
        4 => Some(ClaimKind::Reluctant),
        _ => None,
    }
}

fn emit_count(count: usize, out: &mut Vec<u8>) {
    debug_assert!(count <= usize::from(u16::MAX), "every limit of groups fits");
    out.extend_from_slice(&(count as u16).to_be_bytes());
}

fn emit_grants(message: &Message, most: usize, out: &mut Vec<u8>) {
    debug_assert!(message.grants.is_sorted_by(|a, b| a.group < b.group));
    let grants = &message.grants[..message.grants.len().min(most)];
    emit_count(grants.len(), out);
    for grant in grants {
        let (verdict, to, remaining) = match grant.verdict {
            Verdict::Granted => (0, 0, 0),
            Verdict::Promised { to, remaining } => (1, to.0, micros(remaining)),
            Verdict::Silent { remaining } => (2, 0, micros(remaining)),
        };
        out.extend_from_slice(&grant.group.0.to_be_bytes());
        out.push(verdict);
        for word in [to, remaining, grant.epoch.0] {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }
}

fn parse_grants(reader: &mut Reader<'_>, most: usize, message: &mut Message) -> Option<()> {
    for _ in 0..parse_count(reader, most, GRANT_LEN..=GRANT_LEN)? {
        let group = GroupId(reader.u32()?);
        let verdict = (reader.u8()?, NodeId(reader.u32()?), parse_duration(reader)?);
        let verdict = match verdict {
            (0, NodeId(0), Duration::ZERO) => Verdict::Granted,
            (1, to, remaining) => Verdict::Promised { to, remaining },
            (2, NodeId(0), remaining) => Verdict::Silent { remaining },
            _ => return None,
        };
        let epoch = Epoch(reader.u32()?);
        if message.grants.last().is_some_and(|last| last.group >= group) {
            return None;
        }
        message.grants.push(Grant { group, verdict, epoch });
    }
    Some(())
}

/// The number of entries that follow, when it is within bounds and so many bytes are there as that
/// many entries of these lengths can have.
fn parse_count(reader: &mut Reader<'_>, most: usize, len: RangeInclusive<usize>) -> Option<usize> {
    let count = usize::from(reader.u16()?);
    let bytes = reader.rest().len();
    let fits = count * len.start() <= bytes && bytes <= count * len.end();
    (count <= most && fits).then_some(count)
}

/// Rounded up: a promise that is thought longer than it is does no harm, a shorter one would.
fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1000)).unwrap_or(u32::MAX)
}

fn parse_duration(reader: &mut Reader<'_>) -> Option<Duration> {
    reader.u32().map(|n| Duration::from_micros(n.into()))
}

/// A longer term would outlive the silence that a voter keeps after its restart.
fn parse_term(reader: &mut Reader<'_>) -> Option<Duration> {
    parse_duration(reader).filter(|term| !term.is_zero() && *term <= LEASE_MAX)
}

#[cfg(test)]
mod tests;
