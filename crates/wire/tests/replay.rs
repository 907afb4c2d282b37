//! Throws damaged and random bytes at every parser: none panics, and what parses has one form only.
//!
//! The inputs follow from a printed seed. The same promises are held by the targets in `fuzz/`,
//! which run for as long as one lets them.

mod random;

use buoy_model::limits::{GROUPS_MAX, GROUPS_MAX_V1, KEY_LEN, LEASE_MAX};
use buoy_model::{
    Claim, ClaimKind, ClusterId, Epoch, ExchangeHeader, Grant, GroupId, Header, Incarnation,
    ListVersion, Mac, Message, MessageKind, NodeId, Rest, Sequence, Topic, Verdict, WireVersion,
};
use buoy_wire::heartbeat::{self, Envelope};
use buoy_wire::{Key, Keyring, Reject, arp, ndp};
use random::{Random, inputs};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

const SEED: u64 = 0x0b0e_0001;
const CLUSTER: ClusterId = ClusterId(7);
const ME: NodeId = NodeId(2);

impl Random {
    /// One to four changes of any kind.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let byte = self.byte();
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                4 => bytes.extend(std::iter::repeat_n(byte, at)),
                _ if at < bytes.len() => bytes[at] = byte,
                _ => bytes.push(byte),
            }
        }
    }

    fn duration(&mut self, max: Duration) -> Duration {
        Duration::from_micros(1 + self.next() % max.as_micros() as u64)
    }

    fn groups(&mut self, version: WireVersion) -> Vec<GroupId> {
        let all = if version == WireVersion::V1 { GROUPS_MAX_V1 } else { GROUPS_MAX };
        let most = if self.below(50) == 0 { all } else { 4 };
        let mut groups: Vec<_> =
            (0..self.below(most + 1)).map(|_| GroupId(self.next() as u32)).collect();
        groups.sort();
        groups.dedup();
        groups
    }

    fn header(&mut self) -> Header {
        Header {
            cluster: CLUSTER,
            from: NodeId(1),
            to: ME,
            incarnation: Incarnation(self.next() | 1),
            peer_incarnation: Incarnation(self.next()),
            sequence: Sequence(self.next() | 1),
            challenge: self.next(),
            echo: self.next(),
        }
    }

    fn message(&mut self) -> Message {
        let header = self.header();
        let version = if self.below(2) == 0 { WireVersion::V1 } else { WireVersion::V2 };
        let base = Message { header, version, ..Message::default() };
        match self.below(if version == WireVersion::V1 { 8 } else { 9 }) {
            0..4 => self.heartbeat(base),
            4..8 => self.answer(base),
            _ => Message { kind: MessageKind::Goodbye, ..base },
        }
    }

    fn heartbeat(&mut self, base: Message) -> Message {
        let kinds = [
            ClaimKind::Eligible,
            ClaimKind::Reluctant,
            ClaimKind::Wants,
            ClaimKind::Holds,
            ClaimKind::Yields,
        ];
        let second = base.version == WireVersion::V2;
        let epoch = Epoch(self.next() as u32);
        let repeats = second && self.below(3) == 0;
        let mut claims = Vec::new();
        for group in if repeats { vec![] } else { self.groups(base.version) } {
            let kind = kinds[self.below(kinds.len())];
            let mut claim = Claim::new(group, kind, epoch);
            claim.held = second && kind.serves() && self.below(2) == 0;
            if second && kind == ClaimKind::Yields {
                claim.to = NodeId(self.next() as u32);
            }
            claims.push(claim);
        }
        let list = ListVersion(if second { self.next() as u32 | 1 } else { 0 });
        let (draining, digest) = (self.below(2) == 0, self.next() as u32);
        let term = self.duration(LEASE_MAX);
        Message { draining, digest, term, list, repeats, claims, ..base }
    }

    fn answer(&mut self, base: Message) -> Message {
        let (list, rest) = match (base.version, self.below(4)) {
            (WireVersion::V1, _) => (0, Rest::Unsaid),
            (WireVersion::V2, 0) => (self.next() as u32, Rest::Unknown),
            (WireVersion::V2, 1) => {
                (self.next() as u32, Rest::Silent { remaining: self.duration(LEASE_MAX) })
            }
            (WireVersion::V2, _) => (self.next() as u32, Rest::Granted),
        };
        let (epoch, to) = (Epoch(self.next() as u32), NodeId(self.next() as u32));
        let remaining = self.duration(LEASE_MAX);
        let verdicts =
            [Verdict::Granted, Verdict::Promised { to, remaining }, Verdict::Silent { remaining }];
        let groups = match rest {
            Rest::Unsaid | Rest::Granted => self.groups(base.version),
            Rest::Unknown | Rest::Silent { .. } => vec![],
        };
        let grant = |group| Grant { group, verdict: verdicts[self.below(3)], epoch };
        let grants = groups.into_iter().map(grant).collect();
        let (kind, answered) = (MessageKind::Answer, Sequence(self.next() | 1));
        Message { kind, answered, list: ListVersion(list), rest, grants, ..base }
    }
}

/// Feeds `inputs()`, two thirds of them damaged forms of what `valid` makes; returns how many parsed.
fn replay(
    mut valid: impl FnMut(&mut Random) -> Vec<u8>,
    mut parses: impl FnMut(&[u8]) -> bool,
) -> usize {
    let mut random = Random(SEED);
    (0..inputs())
        .filter(|i| {
            let bytes = if i % 3 == 0 {
                random.bytes(200)
            } else {
                let mut bytes = valid(&mut random);
                random.damage(&mut bytes);
                bytes
            };
            parses(&bytes)
        })
        .count()
}

#[test]
fn any_random_message_comes_back_from_its_sealed_form() {
    println!("seed {SEED:#x}");
    let keyring = Keyring::new(vec![Key::new([7; KEY_LEN])]).unwrap();
    let mut random = Random(SEED);
    let (mut bytes, mut opened) = (Vec::new(), Message::default());
    for _ in 0..5_000 {
        let message = random.message();
        keyring.seal(&message, &mut bytes);
        assert_eq!(keyring.open(CLUSTER, ME, &bytes, &mut opened), Ok(()));
        assert_eq!(opened, message);
    }
}

#[test]
fn any_input_that_parses_as_a_datagram_has_no_other_form() {
    println!("seed {SEED:#x}");
    let (mut message, mut again) = (Message::default(), Vec::new());
    let parsed = replay(
        |random| {
            let mut bytes = Vec::new();
            heartbeat::emit(&random.message(), 1, &mut bytes);
            bytes
        },
        |bytes| {
            let Ok(envelope) = Envelope::parse(bytes) else { return false };
            if envelope.fill(&mut message).is_err() {
                return false;
            }
            heartbeat::emit(&message, envelope.key, &mut again);
            assert_eq!(again, bytes);
            true
        },
    );
    assert!(parsed > inputs() / 100, "only {parsed} of the inputs got past the parser");
}

#[test]
fn any_input_that_was_damaged_is_not_opened() {
    println!("seed {SEED:#x}");
    let keyring = Keyring::new(vec![Key::new([7; KEY_LEN])]).unwrap();
    let original = std::cell::RefCell::new(Vec::new());
    let mut message = Message::default();
    let mut seen = [0; Reject::ALL.len()];
    let opened = replay(
        |random| {
            let mut bytes = original.borrow_mut();
            keyring.seal(&random.message(), &mut bytes);
            bytes.clone()
        },
        |bytes| match keyring.open(CLUSTER, ME, bytes, &mut message) {
            Ok(()) => {
                assert_eq!(bytes, *original.borrow(), "a change went unnoticed");
                true
            }
            Err(reject) => {
                seen[reject.index()] += 1;
                false
            }
        },
    );
    // Some damage undoes itself; nearly none does.
    assert!(opened < inputs() / 100, "{opened} were opened");
    assert!(seen[Reject::Forged.index()] > inputs() / 10, "{seen:?}");
}

#[test]
fn any_input_that_parses_as_arp_has_no_other_form() {
    println!("seed {SEED:#x}");
    let parsed = replay(
        |random| {
            let address = Ipv4Addr::from_bits(random.next() as u32);
            arp::emit_gratuitous(Mac([2; 6]), address).to_vec()
        },
        |bytes| {
            let Some(packet) = arp::parse(bytes) else { return false };
            let again = packet.emit(Mac::BROADCAST);
            // The Ethernet header is not part of the packet, nor is the padding.
            assert_eq!(again[14..42], bytes[14..42]);
            true
        },
    );
    assert!(parsed > inputs() / 100, "only {parsed} of the inputs got past the parser");
}

/// Makes the ICMPv6 checksum right (RFC 4443 §2.3), if the frame is long enough to have one.
fn resum(frame: &mut [u8]) {
    let [_, _, _, _, len @ ..] = frame.get(14..20).unwrap_or_default() else { return };
    let end = 54 + usize::from(u16::from_be_bytes([len[0], len[1]]));
    if end < 58 || frame.len() < end {
        return;
    }
    frame[56..58].fill(0);
    let words = frame[22..end].chunks(2);
    let word = |w: &[u8]| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0));
    let mut sum = words.map(word).sum::<u32>() + 58 + (end - 54) as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[56..58].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[test]
fn any_input_that_parses_as_ndp_holds_what_rfc_4861_demands() {
    println!("seed {SEED:#x}");
    let parsed = replay(
        |random| {
            let target = Ipv6Addr::from_bits(u128::from(random.next()) | 1 << 125);
            let mac = Mac([2; 6]);
            if random.below(2) == 0 {
                ndp::emit_unsolicited(mac, target, random.below(2) == 0).to_vec()
            } else {
                ndp::emit_solicitation(mac, Ipv6Addr::from_bits(1 << 125 | 1), target).to_vec()
            }
        },
        |bytes| {
            // A wrong sum would hide all that comes after its check.
            let mut bytes = bytes.to_vec();
            resum(&mut bytes);
            let Some(neighbour) = ndp::parse(&bytes) else { return false };
            assert_eq!(bytes[21], 255, "the hop limit");
            assert_eq!(bytes[55], 0, "the code");
            match neighbour {
                ndp::Neighbour::Solicitation(asked) => {
                    assert!(!asked.target.is_multicast());
                    assert!(!asked.source.is_unspecified() || asked.source_mac.is_none());
                }
                ndp::Neighbour::Advertisement(said) => {
                    assert!(!said.target.is_multicast());
                    assert!(!said.solicited || bytes[38] != 0xff);
                }
            }
            true
        },
    );
    assert!(parsed > inputs() / 100, "only {parsed} of the inputs got past the parser");
}

/// The exchange's frame has one form, and its seal opens nothing that was changed.
#[test]
fn any_datagram_of_the_exchange_is_refused_or_has_one_form() {
    use buoy_wire::exchange::{self, Frame};
    let mut random = Random(SEED ^ 5);
    let keyring = Keyring::new(vec![Key::new([7; KEY_LEN])]).unwrap();
    let header = ExchangeHeader {
        cluster: CLUSTER,
        from: NodeId(1),
        to: ME,
        incarnation: Incarnation(9),
        sequence: Sequence(3),
        challenge: 1,
        echo: 2,
    };
    let (mut good, mut again) = (Vec::new(), Vec::new());
    keyring.seal_exchange(header, Topic::Flows, b"flows", &mut good);
    let opened = keyring.open_exchange(CLUSTER, ME, &good).unwrap();
    assert_eq!((opened.header, opened.topic, opened.body), (header, Topic::Flows, &b"flows"[..]));
    for _ in 0..inputs() / 10 {
        let mut bytes = if random.below(4) == 0 { random.bytes(120) } else { good.clone() };
        random.damage(&mut bytes);
        if bytes != good {
            assert!(keyring.open_exchange(CLUSTER, ME, &bytes).is_err(), "{bytes:?}");
        }
        if let Ok(frame) = Frame::parse(&bytes) {
            exchange::emit(&frame, &mut again);
            assert_eq!(again, bytes);
        }
    }
}

/// What is read of a body is what its sender would write again, and a damaged one is refused or says something else.
#[test]
fn any_body_of_orders_is_refused_or_has_one_form() {
    use buoy_model::{BackendId, BackendOrder, Duty, OrderVersion, OrderedWeight, Ports, Protocol};
    use buoy_wire::orders::{emit, parse};
    let mut random = Random(SEED ^ 6);
    let order = |name: &str, duty, weight| BackendOrder {
        backend: BackendId {
            address: [10, 0, 0, 100].into(),
            protocol: Protocol::Udp,
            ports: Ports::new(8000, 8099).unwrap(),
            name: name.into(),
        },
        duty,
        weight,
        version: OrderVersion { micros: 1 << 50, node: ME },
        reason: "patching (by ann)".into(),
    };
    let drain = Duty::Drain { until: Some(1 << 40) };
    let orders = [
        order("web1", drain, OrderedWeight::Configured),
        order("web2", Duty::Maint, OrderedWeight::Percent(50)),
    ];
    let good = emit(orders.iter()).remove(0);
    let mut parsed = 0;
    for _ in 0..inputs() {
        let mut bytes = if random.below(4) == 0 { random.bytes(120) } else { good.clone() };
        random.damage(&mut bytes);
        if let Some(orders) = parse(&bytes).filter(|orders| !orders.is_empty()) {
            parsed += 1;
            assert_eq!(emit(orders.iter()), [bytes]);
        }
    }
    assert!(parsed > inputs() / 100, "only {parsed} of the inputs got past the parser");
}

/// The same of what hosts say of flows, and of the histories that go in pieces.
#[test]
fn any_body_of_flows_is_refused_or_has_one_form() {
    use buoy_wire::exchange::flows::{emit, emit_history, parse, parse_history};
    let mut random = Random(SEED ^ 7);
    let lengths = [10, 4 + 4 * 6, 16, 10, 30];
    let mut parsed = [0; 6];
    for _ in 0..inputs() {
        // A kind, and as much behind it as some of that kind would be.
        let kind = random.below(6);
        let mut bytes = vec![kind as u8];
        if let Some(length) = lengths.get(kind) {
            let count = if kind < 3 { random.below(4) } else { 1 };
            bytes.extend((0..length * count).map(|_| random.byte()));
        }
        if random.below(3) == 0 {
            random.damage(&mut bytes);
        }
        if let Some(news) = parse(&bytes) {
            parsed[usize::from(bytes[0])] += 1;
            assert_eq!(emit(&news), bytes);
        }
    }
    assert!(parsed[..5].iter().all(|&n| n > inputs() / 5000), "{parsed:?} got past the parser");

    let mut good = vec![0, 2, 4, 10, 0, 0, 1, 0, 80, 6];
    good.extend([0; 16]);
    good.extend([0, 80, 0, 0, 16, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 7, 0, 1, 0, 9, 0, 3]);
    let history = parse_history(&good).unwrap();
    assert_eq!((history.backends.len(), history.current.len(), history.moving.len()), (2, 2, 1));
    for _ in 0..inputs() {
        let mut bytes = good.clone();
        random.damage(&mut bytes);
        if let Some(history) = parse_history(&bytes) {
            assert_eq!(emit_history(&history), bytes);
        }
    }
}
