//! The second version's bodies: a list of claims is named, and left out once it is known.
//!
//! ```text
//! heartbeat  flags u8 (bit 0: draining, bit 1: repeats)  digest u32  term u32  list u32  count u16
//!            then `count` claims:  group u32  kind u8  epoch u32  [to u32]
//!            who repeats has no claims in here: they are those of the list, which the receiver knows
//! answer     answered u64  list u32  rest u8  [remaining u32]  count u16
//!            then `count` grants, as in version 1: of what was asked for, those that are not as `rest` says
//! goodbye    nothing
//!
//! claim kind: bits 0..6 as in version 1; bit 7: held (only of one that serves)
//! to:         only of one that yields: who is to take it, 0 for whoever is best
//! rest:       1 granted; without grants: 2 unknown, 3 silent for `remaining`
//! ```

use super::{
    FLAG_DRAINING, GRANT_LEN, emit_claim_kind, emit_count, emit_grants, micros, parse_claim_kind,
    parse_count, parse_duration, parse_grants, parse_term,
};
use crate::bytes::Reader;
use alloc::vec::Vec;
use buoy_model::limits::{DATAGRAM_MAX, GROUPS_MAX};
use buoy_model::{
    Claim, ClaimKind, Epoch, GroupId, ListVersion, Message, MessageKind, NodeId, Rest, Sequence,
};

const FLAG_REPEATS: u8 = 2;
const KIND_HELD: u8 = 0x80;
const REST_GRANTED: u8 = 1;
const REST_UNKNOWN: u8 = 2;
const REST_SILENT: u8 = 3;
const HEARTBEAT_LEN: usize = 15;
const CLAIM_LEN: usize = 9;
const CLAIM_LEN_MAX: usize = 13;
const ANSWER_LEN: usize = 15;
const AROUND: usize = super::ENVELOPE_LEN + crate::TAG_LEN;

const _: () = assert!(
    AROUND + HEARTBEAT_LEN + GROUPS_MAX * CLAIM_LEN_MAX <= DATAGRAM_MAX
        && AROUND + ANSWER_LEN + GROUPS_MAX * GRANT_LEN <= DATAGRAM_MAX
        && GROUPS_MAX <= u16::MAX as usize
);

pub(super) fn emit(message: &Message, out: &mut Vec<u8>) {
    match message.kind {
        MessageKind::Heartbeat => emit_heartbeat(message, out),
        MessageKind::Answer => emit_answer(message, out),
        MessageKind::Goodbye => {}
    }
}

fn emit_heartbeat(message: &Message, out: &mut Vec<u8>) {
    debug_assert!(message.list.0 >= 1, "a list of claims has a name");
    debug_assert!(message.claims.len() <= GROUPS_MAX);
    debug_assert!(message.claims.is_sorted_by(|a, b| a.group < b.group));
    let most = if message.repeats { 0 } else { GROUPS_MAX };
    let claims = &message.claims[..message.claims.len().min(most)];
    let draining = if message.draining { FLAG_DRAINING } else { 0 };
    let repeats = if message.repeats { FLAG_REPEATS } else { 0 };
    out.push(draining | repeats);
    out.extend_from_slice(&message.digest.to_be_bytes());
    out.extend_from_slice(&micros(message.term).to_be_bytes());
    out.extend_from_slice(&message.list.0.to_be_bytes());
    emit_count(claims.len(), out);
    for claim in claims {
        let held = if claim.held && claim.kind.serves() { KIND_HELD } else { 0 };
        out.extend_from_slice(&claim.group.0.to_be_bytes());
        out.push(emit_claim_kind(claim.kind) | held);
        out.extend_from_slice(&claim.epoch.0.to_be_bytes());
        if claim.kind == ClaimKind::Yields {
            out.extend_from_slice(&claim.to.0.to_be_bytes());
        }
    }
}

fn emit_answer(message: &Message, out: &mut Vec<u8>) {
    out.extend_from_slice(&message.answered.0.to_be_bytes());
    out.extend_from_slice(&message.list.0.to_be_bytes());
    let most = match message.rest {
        Rest::Granted => {
            out.push(REST_GRANTED);
            GROUPS_MAX
        }
        Rest::Unsaid | Rest::Unknown => {
            debug_assert_ne!(message.rest, Rest::Unsaid, "this version says it");
            // If not, nothing is granted by mistake.
            out.push(REST_UNKNOWN);
            0
        }
        Rest::Silent { remaining } => {
            out.push(REST_SILENT);
            out.extend_from_slice(&micros(remaining).to_be_bytes());
            0
        }
    };
    emit_grants(message, most, out);
}

pub(super) fn parse(mut reader: Reader<'_>, message: &mut Message) -> Option<()> {
    match message.kind {
        MessageKind::Heartbeat => parse_heartbeat(&mut reader, message)?,
        MessageKind::Answer => parse_answer(&mut reader, message)?,
        MessageKind::Goodbye => {}
    }
    reader.end()
}

fn parse_heartbeat(reader: &mut Reader<'_>, message: &mut Message) -> Option<()> {
    let flags = reader.u8()?;
    if flags & !(FLAG_DRAINING | FLAG_REPEATS) != 0 {
        return None;
    }
    message.draining = flags & FLAG_DRAINING != 0;
    message.repeats = flags & FLAG_REPEATS != 0;
    message.digest = reader.u32()?;
    message.term = parse_term(reader)?;
    message.list = ListVersion(reader.u32().filter(|n| *n != 0)?);
    let most = if message.repeats { 0 } else { GROUPS_MAX };
    for _ in 0..parse_count(reader, most, CLAIM_LEN..=CLAIM_LEN_MAX)? {
        let claim = parse_claim(reader)?;
        if message.claims.last().is_some_and(|last| last.group >= claim.group) {
            return None;
        }
        message.claims.push(claim);
    }
    Some(())
}

fn parse_claim(reader: &mut Reader<'_>) -> Option<Claim> {
    let group = GroupId(reader.u32()?);
    let byte = reader.u8()?;
    let (kind, held) = (parse_claim_kind(byte & !KIND_HELD)?, byte & KIND_HELD != 0);
    if held && !kind.serves() {
        return None;
    }
    let epoch = Epoch(reader.u32()?);
    let to = NodeId(if kind == ClaimKind::Yields { reader.u32()? } else { 0 });
    Some(Claim { group, kind, epoch, held, to })
}

fn parse_answer(reader: &mut Reader<'_>, message: &mut Message) -> Option<()> {
    message.answered = Sequence(reader.u64().filter(|n| *n != 0)?);
    message.list = ListVersion(reader.u32()?);
    let (rest, most) = match reader.u8()? {
        REST_GRANTED => (Rest::Granted, GROUPS_MAX),
        REST_UNKNOWN => (Rest::Unknown, 0),
        REST_SILENT => (Rest::Silent { remaining: parse_duration(reader)? }, 0),
        _ => return None,
    };
    message.rest = rest;
    parse_grants(reader, most, message)
}
