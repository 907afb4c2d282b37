//! Whether every message has one form on the wire and every other form is refused.

use super::*;
use alloc::vec;

fn heartbeat() -> Message {
    Message {
        header: Header {
            cluster: ClusterId(0x0102_0304),
            from: NodeId(0x1111_1111),
            to: NodeId(0x2222_2222),
            incarnation: Incarnation(0x3333_3333_3333_3333),
            peer_incarnation: Incarnation(0x4444_4444_4444_4444),
            sequence: Sequence(0x55),
            challenge: 0x66,
            echo: 0x77,
        },
        kind: MessageKind::Heartbeat,
        draining: true,
        digest: 0x0a0b_0c0d,
        term: Duration::from_millis(50),
        claims: vec![
            Claim { group: GroupId(1), kind: ClaimKind::Eligible, epoch: Epoch(0) },
            Claim { group: GroupId(2), kind: ClaimKind::Wants, epoch: Epoch(7) },
            Claim { group: GroupId(3), kind: ClaimKind::Holds, epoch: Epoch(8) },
            Claim { group: GroupId(u32::MAX), kind: ClaimKind::Yields, epoch: Epoch(u32::MAX) },
        ],
        ..Message::default()
    }
}

fn answer() -> Message {
    let remaining = Duration::from_micros(49_999);
    let promised = Verdict::Promised { to: NodeId(0x2222_2222), remaining };
    Message {
        header: heartbeat().header,
        kind: MessageKind::Answer,
        answered: Sequence(0x99),
        grants: vec![
            Grant { group: GroupId(1), verdict: Verdict::Granted, epoch: Epoch(7) },
            Grant { group: GroupId(2), verdict: promised, epoch: Epoch(8) },
            Grant { group: GroupId(9), verdict: Verdict::Silent { remaining }, epoch: Epoch(9) },
        ],
        ..Message::default()
    }
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
fn a_heartbeat_is_these_bytes() {
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
    assert_eq!(bytes(&heartbeat()), expected);
}

#[test]
fn an_answer_is_these_bytes_after_the_envelope() {
    #[rustfmt::skip]
    let expected = [
        0, 0, 0, 0, 0, 0, 0, 0x99, 0, 3,
        0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7,
        0, 0, 0, 2, 1, 0x22, 0x22, 0x22, 0x22, 0, 0, 0xc3, 0x4f, 0, 0, 0, 8,
        0, 0, 0, 9, 2, 0, 0, 0, 0, 0, 0, 0xc3, 0x4f, 0, 0, 0, 9,
    ];
    let bytes = bytes(&answer());
    assert_eq!(bytes[..6], *b"BUOY\x01\x02");
    assert_eq!(bytes[ENVELOPE_LEN..], expected);
}

#[test]
fn both_kinds_come_back_as_they_went() {
    for message in [heartbeat(), answer()] {
        assert_eq!(parse(&bytes(&message)), Ok(message));
    }
}

#[test]
fn a_message_is_refilled_without_a_trace_of_the_last_one() {
    let mut message = Message::default();
    for expected in [heartbeat(), answer(), heartbeat(), answer()] {
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
        for sent in [heartbeat(), answer()] {
            emit(&sent, 1, &mut out);
            Envelope::parse(&out).and_then(|e| e.fill(&mut message)).unwrap();
        }
        let now = (out.as_ptr(), message.claims.as_ptr(), message.grants.as_ptr());
        assert_eq!(*seen.get_or_insert(now), now);
    }
}

#[test]
fn the_largest_message_fits_and_comes_back() {
    let mut largest = answer();
    let remaining = Duration::from_micros(1);
    let promised = Verdict::Promised { to: NodeId(1), remaining };
    let grant = |n| Grant { group: GroupId(n), verdict: promised, epoch: Epoch(n) };
    largest.grants = (0..GROUPS_MAX as u32).map(grant).collect();
    let bytes = bytes(&largest);
    assert!(bytes.len() + crate::TAG_LEN <= DATAGRAM_MAX);
    assert_eq!(parse(&bytes), Ok(largest));
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
    for message in [heartbeat(), answer()] {
        let bytes = bytes(&message);
        for len in 0..bytes.len() {
            assert!(parse(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(parse(&longer), Err(Reject::Malformed), "one byte too many");
    }
}

#[test]
fn every_broken_rule_is_malformed() {
    let (h, a) = (bytes(&heartbeat()), bytes(&answer()));
    let lease_over = (LEASE_MAX.as_micros() as u32 + 1).to_be_bytes();
    let body = ENVELOPE_LEN;
    let cases: [(&[u8], usize, &[u8], &str); 20] = [
        (&h, 5, &[0], "kind 0"),
        (&h, 5, &[2], "a heartbeat that says it is an answer"),
        (&h, 5, &[3], "kind 3"),
        (&h, 22, &[0; 8], "no incarnation"),
        (&h, 38, &[0; 8], "no sequence"),
        (&h, body, &[2], "a flag of the future"),
        (&h, body + 5, &[0; 4], "no term"),
        (&h, body + 5, &lease_over, "a term longer than LEASE_MAX"),
        (&h, body + 9, &[0, 3], "fewer claims than bytes"),
        (&h, body + 9, &[0, 5], "more claims than bytes"),
        (&h, body + 9, &[1, 1], "more claims than GROUPS_MAX"),
        (&h, body + 15, &[5], "claim kind 5"),
        (&h, body + 20, &[0, 0, 0, 1], "a group twice"),
        (&h, body + 20, &[0, 0, 0, 0], "groups out of order"),
        (&a, body, &[0; 8], "an answer to nothing"),
        (&a, body + 14, &[3], "verdict 3"),
        (&a, body + 15, &[0, 0, 0, 1], "granted, yet to another"),
        (&a, body + 19, &[0, 0, 0, 1], "granted, yet remaining"),
        (&a, body + 44 + 5, &[0, 0, 0, 1], "silent, yet promised"),
        (&a, body + 27, &[0, 0, 0, 1], "a group twice"),
    ];
    for (bytes, at, instead, rule) in cases {
        let mut bytes = bytes.to_vec();
        bytes[at..at + instead.len()].copy_from_slice(instead);
        assert_eq!(parse(&bytes), Err(Reject::Malformed), "{rule}");
    }
}

#[test]
fn the_limits_of_a_term_are_within_bounds() {
    for term in [Duration::from_micros(1), LEASE_MAX] {
        let message = Message { term, ..heartbeat() };
        assert_eq!(parse(&bytes(&message)), Ok(message));
    }
}
