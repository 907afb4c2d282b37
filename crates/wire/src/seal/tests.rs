//! Whether nothing but an unchanged datagram of a member for this node gets through.

use super::*;
use alloc::format;
use alloc::vec;
use buoy_model::{Header, Incarnation, ListVersion, MessageKind, Sequence, WireVersion};
use core::time::Duration;

const CLUSTER: ClusterId = ClusterId::of("buoy");
const ME: NodeId = NodeId(2);

fn key(n: u8) -> Key {
    Key::new([n; KEY_LEN])
}

fn keyring(keys: &[u8]) -> Keyring {
    Keyring::new(keys.iter().map(|n| key(*n)).collect()).unwrap()
}

fn message() -> Message {
    Message {
        header: Header {
            cluster: CLUSTER,
            from: NodeId(1),
            to: ME,
            incarnation: Incarnation(3),
            sequence: Sequence(4),
            ..Header::default()
        },
        version: WireVersion::V1,
        term: Duration::from_millis(50),
        ..Message::default()
    }
}

fn sealed(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    keyring(&[1]).seal(message, &mut out);
    out
}

fn open(keys: &[u8], bytes: &[u8]) -> Result<Message, Reject> {
    let mut into = Message::default();
    keyring(keys).open(CLUSTER, ME, bytes, &mut into).map(|()| into)
}

/// Seals bytes that no message has the form of.
fn sealed_raw(mut bytes: Vec<u8>) -> Vec<u8> {
    let tag = key(1).sign(&bytes);
    bytes.extend_from_slice(&tag);
    bytes
}

#[test]
fn a_sealed_message_is_these_bytes() {
    #[rustfmt::skip]
    let expected = [
        0x42, 0x55, 0x4f, 0x59, 0x01, 0x01, 0x72, 0xcd, 0x6e, 0x84, 0x65, 0x42, 0x24, 0x9c, 0x00, 0x00,
        0x00, 0x01, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0xc3, 0x50, 0x00, 0x00, 0x7c, 0x6f, 0xc0, 0x83, 0xb2, 0x9a, 0xd7,
        0xbe, 0x48, 0x7a, 0x3a, 0x93, 0x30, 0xe3, 0x00, 0x84,
    ];
    assert_eq!(sealed(&message()), expected);
    assert_eq!(open(&[1], &expected), Ok(message()));
}

#[test]
fn both_versions_are_sealed_and_opened_alike() {
    for version in [WireVersion::V1, WireVersion::V2] {
        let list = ListVersion(if version == WireVersion::V1 { 0 } else { 7 });
        let message = Message { version, list, ..message() };
        assert_eq!(open(&[1], &sealed(&message)), Ok(message));
    }
    let (version, term) = (WireVersion::V2, Duration::ZERO);
    let goodbye = Message { version, term, kind: MessageKind::Goodbye, ..message() };
    assert_eq!(sealed(&goodbye).len(), heartbeat::ENVELOPE_LEN + TAG_LEN);
    assert_eq!(open(&[1], &sealed(&goodbye)), Ok(goodbye));
}

#[test]
fn any_key_of_the_ring_opens_and_the_first_one_signs() {
    let bytes = sealed(&message());
    assert_eq!(open(&[2, 1], &bytes), Ok(message()));
    assert_eq!(open(&[2], &bytes), Err(Reject::UnknownKey));
    let mut out = Vec::new();
    keyring(&[2, 1]).seal(&message(), &mut out);
    assert_eq!(open(&[2], &out), Ok(message()));
}

#[test]
fn every_reason_to_reject_can_be_reached_and_comes_in_its_order() {
    let short = vec![b'x'; heartbeat::ENVELOPE_LEN + TAG_LEN - 1];
    let with = |at: usize, byte: u8| {
        let mut bytes = sealed(&message());
        bytes[at] = byte;
        bytes
    };
    let from = |header: Header| sealed(&Message { header, ..message() });
    let header = message().header;
    let mut late = sealed(&message());
    late.truncate(late.len() - TAG_LEN);
    late[5] = 9;
    let cases: [(Vec<u8>, Reject); Reject::ALL.len()] = [
        (short, Reject::TooShort),
        (vec![b'x'; DATAGRAM_MAX + 1], Reject::TooLong),
        (vec![b'x'; 100], Reject::Magic),
        (with(4, 3), Reject::Version),
        (with(6, 0xff), Reject::UnknownKey),
        (with(5, 2), Reject::Forged),
        (from(Header { cluster: ClusterId(0), from: ME, ..header }), Reject::Cluster),
        (from(Header { from: ME, to: NodeId(9), ..header }), Reject::Own),
        (from(Header { to: NodeId(9), ..header }), Reject::NotForUs),
        (sealed_raw(late), Reject::Malformed),
    ];
    for ((bytes, expected), reason) in cases.into_iter().zip(Reject::ALL) {
        assert_eq!(expected, reason, "the table follows the order of the checks");
        assert_eq!(open(&[1], &bytes), Err(expected));
    }
}

#[test]
fn every_reason_has_its_own_name_and_place() {
    for (i, reason) in Reject::ALL.into_iter().enumerate() {
        assert_eq!(reason.index(), i);
        assert!(Reject::ALL[..i].iter().all(|earlier| earlier.name() != reason.name()));
    }
}

#[test]
fn no_single_bit_can_be_changed() {
    let sealed = sealed(&message());
    for bit in 0..sealed.len() * 8 {
        let mut bytes = sealed.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&[1], &bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn no_byte_can_be_cut_off_or_added() {
    let sealed = sealed(&message());
    for len in 0..sealed.len() {
        assert!(open(&[1], &sealed[..len]).is_err(), "{len} bytes");
    }
    for byte in [0, 0xff] {
        assert_eq!(open(&[1], &[&sealed[..], &[byte]].concat()), Err(Reject::Forged));
    }
}

#[test]
fn a_key_is_named_by_its_hash_and_shows_no_more() {
    assert_eq!(key(1).id(), 0x72cd_6e84);
    assert_eq!(format!("{:?}", key(1)), "Key(72cd6e84)");
}

#[test]
fn a_keyring_has_between_one_and_four_different_keys() {
    let ring = |keys: &[u8]| Keyring::new(keys.iter().map(|n| key(*n)).collect()).map(|_| ());
    assert_eq!(ring(&[]), Err(KeyringError::Empty));
    assert_eq!(ring(&[1, 2, 3, 4]), Ok(()));
    assert_eq!(ring(&[1, 2, 3, 4, 5]), Err(KeyringError::TooMany(5)));
    assert_eq!(ring(&[1, 2, 1]), Err(KeyringError::Twice(key(1).id())));
}

#[test]
fn the_seed_of_flows_follows_the_cluster_and_the_key_that_signs() {
    let seed = |keys: &[u8], cluster: u32| keyring(keys).flow_seed(ClusterId(cluster));
    assert_eq!(seed(&[1], 7), seed(&[1], 7));
    assert_eq!(seed(&[1, 2], 7), seed(&[1], 7), "a key that is only accepted changes nothing");
    assert_ne!(seed(&[2, 1], 7), seed(&[1], 7));
    assert_ne!(seed(&[1], 8), seed(&[1], 7));
    // Two versions of Buoy in one cluster must agree: a changed number here breaks upgrades.
    assert_eq!(seed(&[1], 7), 849_014_595_536_997_927);
}
