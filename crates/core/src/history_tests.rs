//! That a host which follows another one sends every flow where that one does, whatever either has seen before.

use super::*;
use crate::random::Random;
use crate::transition::{Member, Transition};
use alloc::collections::BTreeMap;
use alloc::vec;
use core::net::SocketAddr;

const SLOTS: usize = 16;

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(n).unwrap()], 80))
}

/// A host with its table and what the programs remember: who has a flow, by its place as they do.
#[derive(Clone, Default)]
struct Host {
    table: Transition,
    remembered: BTreeMap<usize, u16>,
}

impl Host {
    /// Each slot is of the first of `order` that takes flows; `down` are members all the same.
    fn change(&mut self, now: u64, order: &[usize], down: &[usize]) {
        let members: Vec<Member> = order
            .iter()
            .map(|n| Member { address: address(*n), alive: !down.contains(n) })
            .collect();
        let takes: Vec<u16> =
            (0..members.len()).filter(|i| members[*i].alive).map(|i| i as u16).collect();
        let table: Vec<u16> = match takes.len() {
            0 => Vec::new(),
            len => (0..SLOTS).map(|slot| takes[(slot * 7 + slot / 3) % len]).collect(),
        };
        self.table.change(at(now), &members, &table);
    }

    fn shown(&self, place: u16) -> Option<SocketAddr> {
        let backends = self.table.backends();
        let backend = backends.get(usize::from(place))?.address;
        (!backend.ip().is_unspecified()).then_some(backend)
    }

    /// What `bpf/forward/choose.h` does: a flow that opens, and one that goes on.
    fn open(&mut self, flow: usize) -> Option<SocketAddr> {
        let slot = *self.table.slots().get(flow % SLOTS)?;
        if slot.current != slot.previous {
            self.remembered.insert(flow, slot.current);
        }
        self.shown(slot.current)
    }

    fn who_has(&self, flow: usize) -> Option<SocketAddr> {
        let slot = *self.table.slots().get(flow % SLOTS)?;
        if slot.current == slot.previous {
            return self.shown(slot.current);
        }
        let remembered = self.remembered.get(&flow).and_then(|place| self.shown(*place));
        remembered.or_else(|| self.shown(slot.previous)).or_else(|| self.shown(slot.current))
    }

    /// Begins with the past of another host, and with what it remembers.
    fn follow(&mut self, now: u64, other: &Self, order: &[usize], down: &[usize]) {
        let history = other.table.history(at(now));
        self.table = Transition::of_history(at(now), &history).unwrap();
        self.remembered.extend(other.remembered.iter().map(|(flow, place)| (*flow, *place)));
        self.change(now, order, down);
    }
}

/// Backends in an order by lot, some of them.
fn some(random: &mut Random) -> Vec<usize> {
    let mut all: Vec<usize> = (1..=5).collect();
    for i in 0..all.len() {
        let j = i + usize::try_from(random.next() % (all.len() - i) as u64).unwrap();
        all.swap(i, j);
    }
    all.truncate(2 + usize::try_from(random.next() % 3).unwrap());
    all
}

/// A hundred clusters: an owner with changes and flows between them, and another host with changes of its own in
/// another order, that follows at some moment, takes over, and sees more changes.
#[test]
fn whoever_follows_the_owner_sends_every_flow_to_its_backend() {
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let (mut owner, mut other) = (Host::default(), Host::default());
        let (mut flows, mut gone): (BTreeMap<usize, SocketAddr>, Vec<SocketAddr>) =
            Default::default();
        let (mut now, mut next, mut order) = (0, 0, Vec::new());
        for _ in 0..3 + random.next() % 5 {
            now += random.next() % 40;
            let before = order;
            order = some(&mut random);
            owner.change(now, &order, &[]);
            // Who leaves without a drain takes its flows with it.
            gone.extend(before.iter().filter(|n| !order.contains(n)).map(|n| address(*n)));
            flows.retain(|_, backend| !gone.contains(backend));
            gone.clear();
            if random.next().is_multiple_of(2) {
                other.change(now, &some(&mut random), &[]);
            }
            for _ in 0..8 {
                flows.extend(owner.open(next).map(|backend| (next, backend)));
                next += 1;
            }
        }
        assert!(flows.iter().all(|(flow, backend)| owner.who_has(*flow) == Some(*backend)));
        other.follow(now + 1, &owner, &order, &[]);
        assert_eq!(other.table.fingerprint(), owner.table.fingerprint(), "seed {seed}");
        // The owner is gone. Drains and failures are this one's alone now.
        for _ in 0..random.next() % 4 {
            let down = order[usize::try_from(random.next() % order.len() as u64).unwrap()];
            if random.next().is_multiple_of(2) {
                order.rotate_left(1);
                other.change(now + 2, &order, &[]);
            } else {
                other.change(now + 2, &order, &[down]);
                flows.retain(|_, backend| *backend != address(down));
                other.change(now + 3, &order, &[]);
            }
            for _ in 0..8 {
                flows.extend(other.open(next).map(|backend| (next, backend)));
                next += 1;
            }
        }
        for (flow, backend) in &flows {
            assert_eq!(other.who_has(*flow), Some(*backend), "seed {seed}, flow {flow}");
        }
    }
}

/// Two hosts with the same backends that saw them fail and come back in another order.
#[test]
fn two_hosts_that_saw_another_order_agree_after_the_exchange() {
    let order = [1, 2, 3, 4];
    let (mut one, mut other) = (Host::default(), Host::default());
    for (host, first, second) in [(&mut one, 1, 2), (&mut other, 2, 1)] {
        host.change(0, &order, &[]);
        host.change(1, &order, &[first]);
        host.change(2, &order, &[second]);
        host.change(3, &order, &[]);
    }
    assert_ne!(one.table.fingerprint(), other.table.fingerprint());
    other.follow(4, &one, &order, &[]);
    assert_eq!(one.table.fingerprint(), other.table.fingerprint());
    assert_eq!(one.table.slots(), other.table.slots());
    // Each change ends when it would have ended, not later than a second.
    let left = |host: &Host| host.table.deadline().unwrap().since(at(4)).as_secs_f64();
    assert!((left(&one) - left(&other)).abs() <= 1.0);
    // What one of them alone sees is a change after that past.
    other.follow(5, &one, &order, &[3]);
    assert_ne!(one.table.fingerprint(), other.table.fingerprint());
    assert!(other.table.slots().iter().all(|slot| other.shown(slot.current) != Some(address(3))));
}

#[test]
fn what_is_no_history_is_refused() {
    let slot = HistorySlot { slot: 1, previous: 0, previous_for: 9, remembered_for: 0 };
    let good = History {
        backends: vec![address(1), address(2)],
        size: 2,
        current: vec![0, 1],
        moving: vec![slot],
    };
    assert_eq!(check(&good), Ok(()));
    assert_eq!(check(&History::default()), Ok(()));
    let broken = |change: &dyn Fn(&mut History)| {
        let mut history = good.clone();
        change(&mut history);
        history
    };
    let all = [
        broken(&|h| h.backends = vec![address(1); FAST_PLACES_MAX + 1]),
        broken(&|h| h.size = 4),
        broken(&|h| h.current = vec![0, 1, 0]),
        broken(&|h| h.current = vec![0; 2 * FAST_SLOTS[2]]),
        broken(&|h| h.current[0] = 2),
        broken(&|h| h.moving[0].slot = 2),
        broken(&|h| h.moving[0].previous = 2),
        broken(&|h| h.moving[0].previous = 1),
        broken(&|h| h.moving[0].previous_for = 0),
        broken(&|h| h.moving = vec![slot, slot]),
    ];
    for (n, history) in all.iter().enumerate() {
        assert_eq!(check(history), Err(Malformed), "{n}");
        assert!(Transition::of_history(at(0), history).is_err(), "{n}");
    }
    // A deadline that lies beyond every drain is a drain's.
    let late = broken(&|h| h.moving[0].previous_for = u16::MAX);
    let table = Transition::of_history(at(7), &late).unwrap();
    assert_eq!(table.deadline(), Some(at(7) + FAST_DRAIN));
}

const PEER: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

fn ms(n: u64) -> Instant {
    at(100) + Duration::from_millis(n)
}

fn piece(index: u16, count: u16) -> HistoryPiece {
    HistoryPiece { history: 7, index, count, bytes: vec![u8::try_from(index).unwrap()] }
}

#[test]
fn a_difference_that_stays_is_asked_about_and_one_that_passes_is_not() {
    let mut following = Following::new(at(0));
    following.hear(ms(0), PEER, &[(1, 7), (2, 7), (3, 8)], |service, _| service < 3);
    assert_eq!(following.asks(ms(1000)), []);
    following.hear(ms(1000), PEER, &[(2, 7)], |_, _| false);
    assert_eq!(following.asks(ms(1500)), [(PEER, 7, 0)]);
    assert_eq!(following.asks(ms(1600)), [], "an answer takes a moment");
    assert_eq!(following.piece(ms(1600), OTHER, piece(0, 1)), None, "it was not asked");
    assert_eq!(following.piece(ms(1600), PEER, piece(1, 3)), None);
    assert_eq!(following.piece(ms(1600), PEER, piece(0, 3)), None);
    assert_eq!(following.asks(ms(1900)), [(PEER, 7, 2)], "what is missing");
    let whole = following.piece(ms(1901), PEER, piece(2, 3));
    assert_eq!(whole, Some((vec![0, 1, 2], vec![1])));
    assert_eq!(following.asks(ms(9000)), []);
    // Who has just begun asks at once.
    let mut following = Following::new(ms(0));
    following.hear(ms(0), PEER, &[(1, 7)], |_, _| true);
    assert_eq!(following.asks(ms(0)), [(PEER, 7, 0)]);
    following.forget(PEER);
    assert_eq!(following.asks(ms(900)), []);
}

#[test]
fn a_history_that_never_comes_makes_room_for_others() {
    let mut following = Following::new(ms(0));
    let told: Vec<(u64, u64)> = (0..100).map(|n| (n, n)).collect();
    following.hear(ms(0), PEER, &told, |_, _| true);
    assert_eq!(following.asks(ms(0)).len(), HISTORIES_MAX);
    let mut asked = 0;
    for turn in 1..400 {
        let asks = following.asks(ms(turn * 100));
        assert!(asks.len() <= HISTORIES_MAX);
        asked += asks.len();
    }
    assert!(asked > 100);
    let lie = HistoryPiece { history: 3, index: 9, count: 9, bytes: vec![] };
    assert_eq!(following.piece(ms(0), PEER, lie), None);
}
