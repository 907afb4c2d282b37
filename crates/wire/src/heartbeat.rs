//! The datagrams of the lease protocol: `model::Message` to bytes and back.
//!
//! All numbers are big-endian, durations are microseconds.
//!
//! ```text
//!  0       4   5   6       10      14      18      22           30           38
//! +-------+---+---+-------+-------+-------+-------+------------+------------+
//! | BUOY  | 1 |knd| key id|cluster| from  |  to   |incarnation | peer's     |
//! +-------+---+---+-------+-------+-------+-------+------------+------------+
//!  38           46           54           62
//! +------------+------------+------------+------------- - -+----------------+
//! |  sequence  | challenge  |    echo    |  body           | tag (16 bytes) |
//! +------------+------------+------------+------------- - -+----------------+
//!
//! heartbeat (knd 1)  flags u8 (bit 0: draining)  digest u32  term u32  count u16
//!                    then `count` claims:  group u32  kind u8  epoch u32
//! answer    (knd 2)  answered u64  count u16
//!                    then `count` grants:  group u32  verdict u8  to u32  remaining u32  epoch u32
//!
//! claim kind: 0 eligible, 1 wants, 2 holds, 3 yields, 4 reluctant
//! verdict:    0 granted (to and remaining are 0), 1 promised, 2 silent (to is 0)
//! ```
//!
//! A message has exactly one form on the wire: unused fields and bits are zero, groups ascend, and
//! the body ends where its count says. The tag is the concern of `seal`.

use crate::Reject;
use crate::bytes::Reader;
use alloc::vec::Vec;
use buoy_model::limits::{DATAGRAM_MAX, GROUPS_MAX, LEASE_MAX};
use buoy_model::{
    Claim, ClaimKind, ClusterId, Epoch, Grant, GroupId, Header, Incarnation, Message, MessageKind,
    NodeId, Sequence, Verdict,
};
use core::time::Duration;

/// What every datagram begins with.
pub const MAGIC: [u8; 4] = *b"BUOY";
/// The version of the format; a node of another version is not understood, and counted.
pub const VERSION: u8 = 1;
/// Bytes before the body.
pub const ENVELOPE_LEN: usize = 62;

const KIND_HEARTBEAT: u8 = 1;
const KIND_ANSWER: u8 = 2;
const KIND_GOODBYE: u8 = 3;
const FLAG_DRAINING: u8 = 1;
const HEARTBEAT_LEN: usize = 11;
const CLAIM_LEN: usize = 9;
const ANSWER_LEN: usize = 10;
const GRANT_LEN: usize = 17;

const _: () = assert!(
    ENVELOPE_LEN + HEARTBEAT_LEN + GROUPS_MAX * CLAIM_LEN + crate::TAG_LEN <= DATAGRAM_MAX
        && ENVELOPE_LEN + ANSWER_LEN + GROUPS_MAX * GRANT_LEN + crate::TAG_LEN <= DATAGRAM_MAX
);

/// A datagram whose frame was understood and whose body was not looked at yet.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// Which key is said to have signed it.
    pub key: u32,
    /// Who speaks to whom.
    pub header: Header,
    kind: u8,
    body: &'a [u8],
}

/// Replaces `out` by the message, up to and without the tag.
///
/// What exceeds `GROUPS_MAX` is left out; `config` lets no such cluster begin.
pub fn emit(message: &Message, key: u32, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
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
    match message.kind {
        MessageKind::Heartbeat => emit_heartbeat(message, out),
        MessageKind::Answer => emit_answer(message, out),
        MessageKind::Goodbye => {}
    }
}

fn emit_heartbeat(message: &Message, out: &mut Vec<u8>) {
    debug_assert!(message.claims.len() <= GROUPS_MAX);
    debug_assert!(message.claims.is_sorted_by(|a, b| a.group < b.group));
    let claims = &message.claims[..message.claims.len().min(GROUPS_MAX)];
    out.push(if message.draining { FLAG_DRAINING } else { 0 });
    out.extend_from_slice(&message.digest.to_be_bytes());
    out.extend_from_slice(&micros(message.term).to_be_bytes());
    emit_count(claims.len(), out);
    for claim in claims {
        out.extend_from_slice(&claim.group.0.to_be_bytes());
        out.push(match claim.kind {
            ClaimKind::Eligible => 0,
            ClaimKind::Wants => 1,
            ClaimKind::Holds => 2,
            ClaimKind::Yields => 3,
            ClaimKind::Reluctant => 4,
        });
        out.extend_from_slice(&claim.epoch.0.to_be_bytes());
    }
}

fn emit_answer(message: &Message, out: &mut Vec<u8>) {
    debug_assert!(message.grants.len() <= GROUPS_MAX);
    debug_assert!(message.grants.is_sorted_by(|a, b| a.group < b.group));
    let grants = &message.grants[..message.grants.len().min(GROUPS_MAX)];
    out.extend_from_slice(&message.answered.0.to_be_bytes());
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

fn emit_count(count: usize, out: &mut Vec<u8>) {
    const { assert!(GROUPS_MAX <= u16::MAX as usize) };
    out.extend_from_slice(&(count as u16).to_be_bytes());
}

/// Rounded up: a promise that is thought longer than it is does no harm, a shorter one would.
fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1000)).unwrap_or(u32::MAX)
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
        if reader.u8().ok_or(Reject::TooShort)? != VERSION {
            return Err(Reject::Version);
        }
        Self::parse_rest(reader).ok_or(Reject::TooShort)
    }

    fn parse_rest(mut reader: Reader<'a>) -> Option<Self> {
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
        Some(Self { key, header, kind, body: reader.rest() })
    }

    /// Reads the body and fills the message, reusing its vectors. After an error the message is
    /// valid in form and means nothing.
    pub fn fill(&self, message: &mut Message) -> Result<(), Reject> {
        message.header = self.header;
        message.draining = false;
        message.digest = 0;
        message.term = Duration::ZERO;
        message.claims.clear();
        message.answered = Sequence(0);
        message.grants.clear();
        if self.header.incarnation.0 == 0 || self.header.sequence.0 == 0 {
            return Err(Reject::Malformed);
        }
        let body = Reader::new(self.body);
        match self.kind {
            KIND_HEARTBEAT => parse_heartbeat(body, message),
            KIND_ANSWER => parse_answer(body, message),
            _ => None,
        }
        .ok_or(Reject::Malformed)
    }
}

fn parse_heartbeat(mut reader: Reader<'_>, message: &mut Message) -> Option<()> {
    message.kind = MessageKind::Heartbeat;
    message.draining = match reader.u8()? {
        0 => false,
        FLAG_DRAINING => true,
        _ => return None,
    };
    message.digest = reader.u32()?;
    message.term = parse_duration(&mut reader)?;
    // A longer term would outlive the silence that a voter keeps after its restart.
    if message.term.is_zero() || message.term > LEASE_MAX {
        return None;
    }
    for _ in 0..parse_count(&mut reader, CLAIM_LEN)? {
        let group = GroupId(reader.u32()?);
        let kind = match reader.u8()? {
            0 => ClaimKind::Eligible,
            1 => ClaimKind::Wants,
            2 => ClaimKind::Holds,
            3 => ClaimKind::Yields,
            4 => ClaimKind::Reluctant,
            _ => return None,
        };
        let epoch = Epoch(reader.u32()?);
        if message.claims.last().is_some_and(|last| last.group >= group) {
            return None;
        }
        message.claims.push(Claim::new(group, kind, epoch));
    }
    reader.end()
}

fn parse_answer(mut reader: Reader<'_>, message: &mut Message) -> Option<()> {
    message.kind = MessageKind::Answer;
    message.answered = Sequence(reader.u64()?);
    if message.answered.0 == 0 {
        return None;
    }
    for _ in 0..parse_count(&mut reader, GRANT_LEN)? {
        let group = GroupId(reader.u32()?);
        let verdict = (reader.u8()?, NodeId(reader.u32()?), parse_duration(&mut reader)?);
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
    reader.end()
}

/// The number of entries that follow, of `len` bytes each, when it is within bounds and they are all there.
fn parse_count(reader: &mut Reader<'_>, len: usize) -> Option<usize> {
    let count = usize::from(reader.u16()?);
    (count <= GROUPS_MAX && reader.rest().len() == count * len).then_some(count)
}

fn parse_duration(reader: &mut Reader<'_>) -> Option<Duration> {
    reader.u32().map(|n| Duration::from_micros(n.into()))
}

#[cfg(test)]
mod tests;
