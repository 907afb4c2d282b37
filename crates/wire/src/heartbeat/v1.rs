//! The first version's bodies: every claim in every heartbeat, every verdict in every answer.
//!
//! ```text
//! heartbeat  flags u8 (bit 0: draining)  digest u32  term u32  count u16
//!            then `count` claims:  group u32  kind u8  epoch u32
//! answer     answered u64  count u16
//!            then `count` grants:  group u32  verdict u8  to u32  remaining u32  epoch u32
//!
//! claim kind: 0 eligible, 1 wants, 2 holds, 3 yields, 4 reluctant
//! verdict:    0 granted (to and remaining are 0), 1 promised, 2 silent (to is 0)
//! ```
//!
//! It has no goodbye, and does not say that a group is held or to whom one is yielded.

use super::{
    FLAG_DRAINING, GRANT_LEN, emit_claim_kind, emit_count, emit_grants, micros, parse_claim_kind,
    parse_count, parse_grants, parse_term,
};
use crate::bytes::Reader;
use alloc::vec::Vec;
use buoy_model::limits::{DATAGRAM_MAX, GROUPS_MAX_V1};
use buoy_model::{Claim, Epoch, GroupId, Message, MessageKind, Rest, Sequence};

const HEARTBEAT_LEN: usize = 11;
const CLAIM_LEN: usize = 9;
const ANSWER_LEN: usize = 10;
const AROUND: usize = super::ENVELOPE_LEN + crate::TAG_LEN;

const _: () = assert!(
    AROUND + HEARTBEAT_LEN + GROUPS_MAX_V1 * CLAIM_LEN <= DATAGRAM_MAX
        && AROUND + ANSWER_LEN + GROUPS_MAX_V1 * GRANT_LEN <= DATAGRAM_MAX
);

pub(super) fn emit(message: &Message, out: &mut Vec<u8>) {
    match message.kind {
        MessageKind::Heartbeat => emit_heartbeat(message, out),
        MessageKind::Answer => {
            debug_assert_eq!(message.rest, Rest::Unsaid, "this version cannot leave verdicts out");
            out.extend_from_slice(&message.answered.0.to_be_bytes());
            emit_grants(message, GROUPS_MAX_V1, out);
        }
        MessageKind::Goodbye => debug_assert!(false, "this version has no goodbye"),
    }
}

fn emit_heartbeat(message: &Message, out: &mut Vec<u8>) {
    debug_assert!(!message.repeats, "this version cannot leave claims out");
    debug_assert!(message.claims.is_sorted_by(|a, b| a.group < b.group));
    let claims = &message.claims[..message.claims.len().min(GROUPS_MAX_V1)];
    out.push(if message.draining { FLAG_DRAINING } else { 0 });
    out.extend_from_slice(&message.digest.to_be_bytes());
    out.extend_from_slice(&micros(message.term).to_be_bytes());
    emit_count(claims.len(), out);
    for claim in claims {
        out.extend_from_slice(&claim.group.0.to_be_bytes());
        out.push(emit_claim_kind(claim.kind));
        out.extend_from_slice(&claim.epoch.0.to_be_bytes());
    }
}

pub(super) fn parse(mut reader: Reader<'_>, message: &mut Message) -> Option<()> {
    match message.kind {
        MessageKind::Heartbeat => parse_heartbeat(&mut reader, message)?,
        MessageKind::Answer => {
            message.answered = Sequence(reader.u64().filter(|n| *n != 0)?);
            parse_grants(&mut reader, GROUPS_MAX_V1, message)?;
        }
        MessageKind::Goodbye => return None,
    }
    reader.end()
}

fn parse_heartbeat(reader: &mut Reader<'_>, message: &mut Message) -> Option<()> {
    message.draining = match reader.u8()? {
        0 => false,
        FLAG_DRAINING => true,
        _ => return None,
    };
    message.digest = reader.u32()?;
    message.term = parse_term(reader)?;
    for _ in 0..parse_count(reader, GROUPS_MAX_V1, CLAIM_LEN..=CLAIM_LEN)? {
        let group = GroupId(reader.u32()?);
        let kind = parse_claim_kind(reader.u8()?)?;
        let epoch = Epoch(reader.u32()?);
        if message.claims.last().is_some_and(|last| last.group >= group) {
            return None;
        }
        message.claims.push(Claim::new(group, kind, epoch));
    }
    Some(())
}
