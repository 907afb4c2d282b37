//! Whether the two ends of the exchange find each other through any network, and believe nothing twice.

use super::*;
use alloc::collections::BTreeSet;
use alloc::vec;
use buoy_model::{Node, Timing};

const MS: Duration = Duration::from_millis(1);

fn desired(me: &str, names: &[&str]) -> Desired {
    let at = core::net::SocketAddr::from(([10, 0, 0, 1], 4747));
    let mut nodes: Vec<Node> = names.iter().map(|name| Node::new(name, at)).collect();
    nodes.sort_by_key(|node| node.id);
    Desired {
        leg_links: vec![],
        timing: Timing { heartbeat: MS, lease: MS, lease_max: MS },
        ..Desired::new("test", NodeId::of(me), nodes, vec![])
    }
}

fn at(ms: u64) -> Instant {
    Instant::from_nanos(1_000_000_000 + ms * 1_000_000)
}

fn end(me: &str, life: u64) -> Exchange {
    Exchange::new(at(0), &desired(me, &["a", "b"]), Incarnation(life), life * 77)
}

fn hellos(of: &mut Exchange, now: Instant) -> Vec<ExchangeHeader> {
    let mut due = Vec::new();
    of.tick(now, &mut due);
    let hello = |due: Due| match due {
        Due::Hello(header) => Some(header),
        Due::Left(_) => None,
    };
    due.into_iter().filter_map(hello).collect()
}

/// Greets in both directions until both know each other; says in how many datagrams.
fn meet(a: &mut Exchange, b: &mut Exchange, now: Instant) -> usize {
    let mut on_the_way = hellos(a, now);
    let mut count = 0;
    while let Some(header) = on_the_way.pop() {
        count += 1;
        assert!(count < 10, "they do not find each other");
        let to = if header.to == a.me { &mut *a } else { &mut *b };
        match to.hear(now, &header) {
            Heard::Answer(answer) => on_the_way.push(answer),
            Heard::Came => on_the_way.extend(hellos(to, now)),
            Heard::Believed | Heard::Refused => {}
        }
    }
    count
}

#[test]
fn two_that_start_know_each_other_after_a_hello_each_way_and_one_more() {
    let (mut a, mut b) = (end("a", 1), end("b", 2));
    assert_eq!(a.header(b.me), None, "nobody is there yet");
    assert!(meet(&mut a, &mut b, at(0)) <= 4);
    let parcel = a.header(b.me).unwrap();
    assert_eq!(b.hear(at(1), &parcel), Heard::Believed);
    assert_eq!(b.hear(at(1), &parcel), Heard::Refused, "a second time");
    let back = b.header(a.me).unwrap();
    assert_eq!(a.hear(at(1), &back), Heard::Believed);
}

#[test]
fn datagrams_in_another_order_are_believed_once_each() {
    let (mut a, mut b) = (end("a", 1), end("b", 2));
    meet(&mut a, &mut b, at(0));
    let sent: Vec<ExchangeHeader> = (0..200).map(|_| a.header(b.me).unwrap()).collect();
    let newest = sent.len() - 1;
    assert_eq!(b.hear(at(1), &sent[newest]), Heard::Believed);
    for (n, header) in sent.iter().enumerate().take(newest) {
        let is_recent = newest - n < 128;
        let expected = if is_recent { Heard::Believed } else { Heard::Refused };
        assert_eq!(b.hear(at(1), header), expected, "{n}");
    }
    assert!(sent.iter().all(|header| b.hear(at(1), header) == Heard::Refused));
}

#[test]
fn what_an_earlier_life_said_is_worth_nothing() {
    let (mut a, mut b) = (end("a", 1), end("b", 2));
    meet(&mut a, &mut b, at(0));
    let recording: Vec<ExchangeHeader> = (0..5).map(|_| a.header(b.me).unwrap()).collect();
    let mut again = end("a", 3);
    meet(&mut again, &mut b, at(100));
    for header in &recording {
        assert!(matches!(b.hear(at(200), header), Heard::Answer(_) | Heard::Refused));
    }
    let now = again.header(b.me).unwrap();
    assert_eq!(b.hear(at(201), &now), Heard::Believed, "the recording changed nothing");
}

#[test]
fn who_is_silent_has_left_and_comes_again() {
    let (mut a, mut b) = (end("a", 1), end("b", 2));
    meet(&mut a, &mut b, at(0));
    let mut due = Vec::new();
    let late = at(0) + EXCHANGE_SILENCE;
    a.tick(late, &mut due);
    assert!(due.contains(&Due::Left(b.me)), "{due:?}");
    assert_eq!(a.present().count(), 0);
    assert_eq!(b.present().count(), 1, "b was not asked");
    // One of them has forgotten the other: both directions work again all the same.
    meet(&mut b, &mut a, late + MS * 100);
    let (there, back) = (a.header(b.me).unwrap(), b.header(a.me).unwrap());
    assert_eq!(b.hear(late + MS * 101, &there), Heard::Believed);
    assert_eq!(a.hear(late + MS * 101, &back), Heard::Believed);
}

#[test]
fn a_flood_of_recordings_makes_no_flood_of_answers() {
    let (mut a, mut b) = (end("a", 1), end("b", 2));
    let hello = hellos(&mut a, at(0))[0];
    let answers = (0..1000).filter(|ms| matches!(b.hear(at(*ms), &hello), Heard::Answer(_)));
    assert_eq!(answers.count(), 20);
}

#[test]
fn members_follow_the_configuration() {
    let mut a = end("a", 1);
    let mut b = end("b", 2);
    meet(&mut a, &mut b, at(0));
    assert_eq!(a.adopt(at(1), &desired("a", &["a", "c"])), [b.me]);
    assert_eq!(a.header(b.me), None);
    let stray = b.header(a.me).unwrap();
    assert_eq!(a.hear(at(2), &stray), Heard::Refused, "no member any more");
    assert_eq!(hellos(&mut a, at(2)).iter().map(|h| h.to).collect::<Vec<_>>(), [NodeId::of("c")]);
}

/// Any loss, repetition, order and restart: nothing is believed twice by one life, nothing of an earlier life
/// once a later one is known, and when the network is well again they find each other.
#[test]
fn any_network_is_survived() {
    for seed in 1..=200 {
        let mut random = Random::new(seed);
        let mut lives = 2;
        let mut ends = [end("a", 1), end("b", 2)];
        let mut wire: Vec<ExchangeHeader> = Vec::new();
        let mut believed: BTreeSet<(u64, u64, u64)> = BTreeSet::new();
        let mut newest = [0_u64; 2];
        for step in 0..2000_u64 {
            let now = at(step * 20);
            let is_well = step >= 1600;
            let which = (random.next() % 2) as usize;
            if !is_well && random.next().is_multiple_of(97) {
                lives += 1;
                ends[which] = end(["a", "b"][which], lives);
            }
            for one in &mut ends {
                wire.extend(hellos(one, now));
                let to = if one.me == NodeId::of("a") { "b" } else { "a" };
                wire.extend(one.header(NodeId::of(to)));
            }
            let deliveries = if is_well { wire.len() } else { (random.next() % 6) as usize };
            for _ in 0..deliveries.min(wire.len()) {
                // Recordings stay on the wire for ever while it is ill.
                let n = (random.next() % wire.len() as u64) as usize;
                let header = if is_well { wire.remove(0) } else { wire[n] };
                let to = usize::from(header.to == NodeId::of("b"));
                match ends[to].hear(now, &header) {
                    Heard::Answer(answer) => wire.push(answer),
                    Heard::Refused => {}
                    Heard::Believed | Heard::Came => {
                        let (by, of) = (ends[to].incarnation.0, header.incarnation.0);
                        let once = believed.insert((by, of, header.sequence.0));
                        assert!(once, "seed {seed}: {header:?} was believed twice");
                        assert!(of >= newest[1 - to], "seed {seed}: an earlier life was believed");
                        newest[1 - to] = of;
                    }
                }
            }
            if wire.len() > 3000 {
                wire.drain(..1500);
            }
        }
        assert!(ends.iter().all(|one| one.present().count() == 1), "seed {seed}: still strangers");
    }
}
