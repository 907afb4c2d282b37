//! Whether every message has one form in each version on the wire and every other form is refused.

use super::*;
use alloc::vec;
use buoy_model::Claim;
use buoy_model::limits::{DATAGRAM_MAX, GROUPS_MAX, GROUPS_MAX_V1};

fn header() -> Header {
    Header {
        cluster: ClusterId(0x0102_0304),
        from: NodeId(0x1111_1111),
        to: NodeId(0x2222_2222),
        incarnation: Incarnation(0x3333_3333_3333_3333),
        peer_incarnation: Incarnation(0x4444_4444_4444_4444),
        sequence: Sequence(0x55),
        challenge: 0x66,
        echo: 0x77,
    }
}

/// What both versions can say.
fn heartbeat(version: WireVersion) -> Message {
    Message {
        header: header(),
        version,
        kind: MessageKind::Heartbeat,
        draining: true,
        digest: 0x0a0b_0c0d,
        term: Duration::from_millis(50),
        list: ListVersion(if version == WireVersion::V1 { 0 } else { 0xe1 }),
        claims: vec![
            Claim::new(GroupId(1), ClaimKind::Eligible, Epoch(0)),
            Claim::new(GroupId(2), ClaimKind::Wants, Epoch(7)),
            Claim::new(GroupId(3), ClaimKind::Holds, Epoch(8)),
            Claim::new(GroupId(u32::MAX), ClaimKind::Yields, Epoch(u32::MAX)),
        ],
        ..Message::default()
    }
}

/// What only the second one can: kept here, given to somebody.
fn handover() -> Message {
    let mut message = heartbeat(WireVersion::V2);
    message.claims[2].held = true;
    message.claims[3].held = true;
    message.claims[3].to = NodeId(0x2222_2222);
    message
}

fn repeated() -> Message {
    Message { repeats: true, draining: false, claims: vec![], ..heartbeat(WireVersion::V2) }
}

fn answer(version: WireVersion) -> Message {
    let remaining = Duration::from_micros(49_999);
    let promised = Verdict::Promised { to: NodeId(0x2222_2222), remaining };
    let (list, rest) = match version {
        WireVersion::V1 => (ListVersion(0), Rest::Unsaid),
        WireVersion::V2 => (ListVersion(0xe1), Rest::Granted),
    };
    Message {
        header: header(),
        version,
        kind: MessageKind::Answer,
        list,
        answered: Sequence(0x99),
        rest,
        grants: vec![
            Grant { group: GroupId(1), verdict: Verdict::Granted, epoch: Epoch(7) },
            Grant { group: GroupId(2), verdict: promised, epoch: Epoch(8) },
            Grant { group: GroupId(9), verdict: Verdict::Silent { remaining }, epoch: Epoch(9) },
        ],
        ..Message::default()
    }
}

fn unknown() -> Message {
    Message { rest: Rest::Unknown, grants: vec![], ..answer(WireVersion::V2) }
}

fn silent() -> Message {
    let remaining = Duration::from_micros(0x0102_0304);
    Message { rest: Rest::Silent { remaining }, ..unknown() }
}

fn goodbye() -> Message {
    Message { header: header(), kind: MessageKind::Goodbye, ..Message::default() }
}

/// One of every shape.
fn all() -> [Message; 9] {
    let (v1, v2) = (WireVersion::V1, WireVersion::V2);
    let heartbeats = [heartbeat(v1), heartbeat(v2), handover(), repeated()];
    let [a, b, c, d] = heartbeats;
    [a, answer(v1), b, answer(v2), c, unknown(), d, silent(), goodbye()]
}

fn bytes(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    emit(message, 0xc0ff_ee00, &mut out);
    out
}

fn parse(bytes: &[u8]) -> Result<Message, Reject> {
    let mut message = Message::default();
    Envelope::parse(bytes)?.fill(&mut message).map(|()| message)
}

#[test]
fn a_heartbeat_of_the_first_version_is_these_bytes() {
    #[rustfmt::skip]
    let expected = [
        b'B', b'U', b'O', b'Y', 1, 1, 0xc0, 0xff, 0xee, 0x00,
        1, 2, 3, 4, 0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x22, 0x22,
        0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33,
        0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44,
        0, 0, 0, 0, 0, 0, 0, 0x55, 0, 0, 0, 0, 0, 0, 0, 0x66, 0, 0, 0, 0, 0, 0, 0, 0x77,
        1, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0, 0xc3, 0x50, 0, 4,
        0, 0, 0, 1, 0, 0, 0, 0, 0,
        0, 0, 0, 2, 1, 0, 0, 0, 7,
        0, 0, 0, 3, 2, 0, 0, 0, 8,
        0xff, 0xff, 0xff, 0xff, 3, 0xff, 0xff, 0xff, 0xff,
    ];
    assert_eq!(bytes(&heartbeat(WireVersion::V1)), expected);
}

#[test]
fn an_answer_of_the_first_version_is_these_bytes_after_the_envelope() {
    #[rustfmt::skip]
    let expected = [
        0, 0, 0, 0, 0, 0, 0, 0x99, 0, 3,
        0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7,
        0, 0, 0, 2, 1, 0x22, 0x22, 0x22, 0x22, 0, 0, 0xc3, 0x4f, 0, 0, 0, 8,
        0, 0, 0, 9, 2, 0, 0, 0, 0, 0, 0, 0xc3, 0x4f, 0, 0, 0, 9,
    ];
    let bytes = bytes(&answer(WireVersion::V1));
    assert_eq!(bytes[..6], *b"BUOY\x01\x02");
    assert_eq!(bytes[ENVELOPE_LEN..], expected);
}

#[test]
fn a_heartbeat_of_the_second_version_is_these_bytes() {
    #[rustfmt::skip]
    let expected = [
        1, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0, 0xc3, 0x50, 0, 0, 0, 0xe1, 0, 4,
        0, 0, 0, 1, 0, 0, 0, 0, 0,
        0, 0, 0, 2, 1, 0, 0, 0, 7,
        0, 0, 0, 3, 0x82, 0, 0, 0, 8,
        0xff, 0xff, 0xff, 0xff, 0x83, 0xff, 0xff, 0xff, 0xff, 0x22, 0x22, 0x22, 0x22,
    ];
    let envelope = bytes(&heartbeat(WireVersion::V1));
    let handover = bytes(&handover());
    assert_eq!(handover[..6], *b"BUOY\x02\x01");
    assert_eq!(handover[6..ENVELOPE_LEN], envelope[6..ENVELOPE_LEN]);
    assert_eq!(handover[ENVELOPE_LEN..], expected);
    #[rustfmt::skip]
    let expected = [2, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0, 0xc3, 0x50, 0, 0, 0, 0xe1, 0, 0];
    assert_eq!(bytes(&repeated())[ENVELOPE_LEN..], expected);
}

#[test]
fn an_answer_of_the_second_version_is_these_bytes_after_the_envelope() {
    #[rustfmt::skip]
    let expected = [
        0, 0, 0, 0, 0, 0, 0, 0x99, 0, 0, 0, 0xe1, 1, 0, 3,
        0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7,
        0, 0, 0, 2, 1, 0x22, 0x22, 0x22, 0x22, 0, 0, 0xc3, 0x4f, 0, 0, 0, 8,
        0, 0, 0, 9, 2, 0, 0, 0, 0, 0, 0, 0xc3, 0x4f, 0, 0, 0, 9,
    ];
    let bytes_of = |message: &Message| bytes(message)[ENVELOPE_LEN..].to_vec();
    assert_eq!(bytes(&answer(WireVersion::V2))[..6], *b"BUOY\x02\x02");
    assert_eq!(bytes_of(&answer(WireVersion::V2)), expected);
    let expected = [0, 0, 0, 0, 0, 0, 0, 0x99, 0, 0, 0, 0xe1, 2, 0, 0];
    assert_eq!(bytes_of(&unknown()), expected);
    let expected = [0, 0, 0, 0, 0, 0, 0, 0x99, 0, 0, 0, 0xe1, 3, 1, 2, 3, 4, 0, 0];
    assert_eq!(bytes_of(&silent()), expected);
}

#[test]
fn a_goodbye_is_an_envelope_and_nothing_else() {
    let bytes = bytes(&goodbye());
    assert_eq!(bytes[..6], *b"BUOY\x02\x03");
    assert_eq!(bytes.len(), ENVELOPE_LEN);
}

#[test]
fn every_shape_comes_back_as_it_went() {
    for message in all() {
        assert_eq!(parse(&bytes(&message)), Ok(message));
    }
}

#[test]
fn the_first_version_leaves_out_what_it_cannot_say() {
    let newer = Message { version: WireVersion::V1, ..handover() };
    assert_eq!(parse(&bytes(&newer)), Ok(heartbeat(WireVersion::V1)));
}

#[test]
fn only_who_serves_is_held_and_only_who_yields_names_a_successor() {
    let mut message = handover();
    for claim in &mut message.claims {
        (claim.held, claim.to) = (true, NodeId(0x2222_2222));
    }
    assert_eq!(parse(&bytes(&message)), Ok(handover()));
}

#[test]
fn a_version_that_is_not_known_is_refused_as_such() {
    for version in [0, 3, 0xff] {
        let mut bytes = bytes(&goodbye());
        bytes[4] = version;
        assert_eq!(parse(&bytes), Err(Reject::Version));
    }
}

#[test]
fn a_message_is_refilled_without_a_trace_of_the_last_one() {
    let mut message = Message::default();
    for expected in all().into_iter().chain(all().into_iter().rev()) {
        let bytes = bytes(&expected);
        Envelope::parse(&bytes).and_then(|e| e.fill(&mut message)).unwrap();
        assert_eq!(message, expected);
    }
}

#[test]
fn steady_state_grows_no_buffer() {
    let (mut out, mut message) = (Vec::new(), Message::default());
    let mut seen = None;
    for _ in 0..3 {
        for sent in all() {
            emit(&sent, 1, &mut out);
            Envelope::parse(&out).and_then(|e| e.fill(&mut message)).unwrap();
        }
        let now = (out.as_ptr(), message.claims.as_ptr(), message.grants.as_ptr());
        assert_eq!(*seen.get_or_insert(now), now);
    }
}

#[test]
fn the_largest_messages_fit_and_come_back() {
    let remaining = Duration::from_micros(1);
    let promised = Verdict::Promised { to: NodeId(1), remaining };
    let grant = |n| Grant { group: GroupId(n), verdict: promised, epoch: Epoch(n) };
    let claim = |n| {
        let claim = Claim::new(GroupId(n), ClaimKind::Yields, Epoch(n));
        Claim { held: n % 2 == 0, to: NodeId(n), ..claim }
    };
    let plain = |n| Claim::new(GroupId(n), ClaimKind::Yields, Epoch(n));
    let (v1, v2) = (WireVersion::V1, WireVersion::V2);
    let (few, many) = (0..GROUPS_MAX_V1 as u32, 0..GROUPS_MAX as u32);
    let largest = [
        Message { claims: few.clone().map(plain).collect(), ..heartbeat(v1) },
        Message { grants: few.map(grant).collect(), ..answer(v1) },
        Message { claims: many.clone().map(claim).collect(), ..heartbeat(v2) },
        Message { grants: many.map(grant).collect(), ..answer(v2) },
    ];
    for message in largest {
        let bytes = bytes(&message);
        assert!(bytes.len() + crate::TAG_LEN <= DATAGRAM_MAX);
        assert_eq!(parse(&bytes), Ok(message));
    }
}

#[test]
fn to_the_first_version_more_groups_than_it_has_are_cut_off() {
    let claim = |n| Claim::new(GroupId(n), ClaimKind::Holds, Epoch(n));
    let claims = (0..GROUPS_MAX as u32).map(claim).collect();
    let mut message = Message { claims, ..heartbeat(WireVersion::V1) };
    let heard = parse(&bytes(&message)).unwrap();
    message.claims.truncate(GROUPS_MAX_V1);
    assert_eq!(heard, message);
}

#[test]
fn a_thousand_groups_that_are_repeated_fit_a_small_datagram() {
    assert!(bytes(&repeated()).len() + crate::TAG_LEN < 100);
    let granted = Message { grants: vec![], ..answer(WireVersion::V2) };
    assert!(bytes(&granted).len() + crate::TAG_LEN < 100);
}

#[test]
fn a_duration_is_never_told_shorter_than_it_is() {
    assert_eq!(micros(Duration::from_nanos(1)), 1);
    assert_eq!(micros(Duration::from_nanos(1000)), 1);
    assert_eq!(micros(Duration::from_nanos(1001)), 2);
    assert_eq!(micros(Duration::MAX), u32::MAX);
}

#[test]
fn what_is_cut_anywhere_is_refused() {
    for message in all() {
        let bytes = bytes(&message);
        for len in 0..bytes.len() {
            assert!(parse(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(parse(&longer), Err(Reject::Malformed), "one byte too many");
    }
}

fn breaks(cases: &[(&[u8], usize, &[u8], &str)]) {
    for (bytes, at, instead, rule) in cases {
        let mut bytes = bytes.to_vec();
        bytes[*at..at + instead.len()].copy_from_slice(instead);
        assert_eq!(parse(&bytes), Err(Reject::Malformed), "{rule}");
    }
}

const BODY: usize = ENVELOPE_LEN;
const LEASE_OVER: [u8; 4] = (LEASE_MAX.as_micros() as u32 + 1).to_be_bytes();

#[test]
fn every_broken_rule_of_the_first_version_is_malformed() {
    let (h, a) = (bytes(&heartbeat(WireVersion::V1)), bytes(&answer(WireVersion::V1)));
    let (h, a) = (&h[..], &a[..]);
    breaks(&[
        (h, 5, &[0], "kind 0"),
        (h, 5, &[2], "a heartbeat that says it is an answer"),
        (h, 5, &[3], "a goodbye"),
        (h, 5, &[4], "kind 4"),
        (h, 22, &[0; 8], "no incarnation"),
        (h, 38, &[0; 8], "no sequence"),
        (h, BODY, &[2], "a flag of the future"),
        (h, BODY + 5, &[0; 4], "no term"),
        (h, BODY + 5, &LEASE_OVER, "a term longer than LEASE_MAX"),
        (h, BODY + 9, &[0, 3], "fewer claims than bytes"),
        (h, BODY + 9, &[0, 5], "more claims than bytes"),
        (h, BODY + 9, &[1, 1], "more claims than GROUPS_MAX_V1"),
        (h, BODY + 15, &[5], "claim kind 5"),
        (h, BODY + 33, &[0x82], "held"),
        (h, BODY + 20, &[0, 0, 0, 1], "a group twice"),
        (h, BODY + 20, &[0, 0, 0, 0], "groups out of order"),
        (a, BODY, &[0; 8], "an answer to nothing"),
        (a, BODY + 14, &[3], "verdict 3"),
        (a, BODY + 15, &[0, 0, 0, 1], "granted, yet to another"),
        (a, BODY + 19, &[0, 0, 0, 1], "granted, yet remaining"),
        (a, BODY + 44 + 5, &[0, 0, 0, 1], "silent, yet promised"),
        (a, BODY + 27, &[0, 0, 0, 1], "a group twice"),
    ]);
}

#[test]
fn every_broken_rule_of_the_second_version_is_malformed() {
    let (h, a) = (bytes(&handover()), bytes(&answer(WireVersion::V2)));
    let (g, r) = (bytes(&goodbye()), bytes(&repeated()));
    let (h, a, g, r) = (&h[..], &a[..], &g[..], &r[..]);
    let s = &bytes(&silent())[..];
    breaks(&[
        (h, 5, &[0], "kind 0"),
        (h, 5, &[2], "a heartbeat that says it is an answer"),
        (h, 5, &[3], "a goodbye with a body"),
        (h, 5, &[4], "kind 4"),
        (g, 5, &[1], "a heartbeat without a body"),
        (g, 4, &[1], "a goodbye of the first version"),
        (g, 22, &[0; 8], "no incarnation"),
        (h, 38, &[0; 8], "no sequence"),
        (h, 4, &[1], "the first version with a body of the second"),
        (h, BODY, &[4], "a flag of the future"),
        (h, BODY, &[2], "repeats, yet with claims"),
        (r, BODY + 13, &[0, 1], "repeats, yet counts a claim"),
        (h, BODY + 5, &[0; 4], "no term"),
        (h, BODY + 5, &LEASE_OVER, "a term longer than LEASE_MAX"),
        (h, BODY + 9, &[0; 4], "no list"),
        (h, BODY + 13, &[0, 3], "fewer claims than bytes"),
        (h, BODY + 13, &[0, 5], "more claims than bytes"),
        (h, BODY + 13, &[4, 1], "more claims than GROUPS_MAX"),
        (h, BODY + 19, &[5], "claim kind 5"),
        (h, BODY + 19, &[0x80], "held, yet serves nothing"),
        (h, BODY + 28, &[0x81], "held, yet serves nothing"),
        (h, BODY + 46, &[0x82], "a successor of one that does not yield"),
        (h, BODY + 24, &[0, 0, 0, 1], "a group twice"),
        (h, BODY + 24, &[0, 0, 0, 0], "groups out of order"),
        (a, BODY, &[0; 8], "an answer to nothing"),
        (a, BODY + 12, &[0], "unsaid"),
        (a, BODY + 12, &[2], "unknown, yet with verdicts"),
        (a, BODY + 12, &[3], "silent, yet with verdicts"),
        (a, BODY + 12, &[4], "rest 4"),
        (s, BODY + 17, &[0, 1], "silent, yet counts a verdict"),
        (s, BODY + 12, &[2], "unknown, yet remaining"),
        (a, BODY + 13, &[0, 2], "fewer verdicts than bytes"),
        (a, BODY + 19, &[3], "verdict 3"),
        (a, BODY + 20, &[0, 0, 0, 1], "granted, yet to another"),
        (a, BODY + 24, &[0, 0, 0, 1], "granted, yet remaining"),
        (a, BODY + 32, &[0, 0, 0, 1], "a group twice"),
        (a, BODY + 49 + 5, &[0, 0, 0, 1], "silent, yet promised"),
    ]);
}

#[test]
fn the_limits_of_a_term_are_within_bounds() {
    for version in [WireVersion::V1, WireVersion::V2] {
        for term in [Duration::from_micros(1), LEASE_MAX] {
            let message = Message { term, ..heartbeat(version) };
            assert_eq!(parse(&bytes(&message)), Ok(message));
        }
    }
}
