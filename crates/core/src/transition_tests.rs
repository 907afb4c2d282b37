//! Every way a slot can go through one change and two, and which flows it keeps.

use super::*;

const A: u16 = 0;
const B: u16 = 1;
const C: u16 = 2;
const D: u16 = 3;
const NOBODY: u16 = Slot::NOBODY;
const REMEMBERED: u16 = Slot::REMEMBERED;

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

/// Seconds.
const DRAIN: u64 = FAST_DRAIN.as_secs();

fn address(i: u16) -> SocketAddr {
    let [high, low] = i.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 80))
}

/// Members 0, 1, 2 and so on: `+` is alive, `-` is down, `.` is not in the service.
fn members(text: &str) -> Vec<Member> {
    let member = |(i, state): (u16, u8)| match state {
        b'+' => Some(Member { address: address(i), alive: true }),
        b'-' => Some(Member { address: address(i), alive: false }),
        b'.' => None,
        other => panic!("{other}"),
    };
    (0..).zip(text.bytes()).filter_map(member).collect()
}

/// A service of the four, with one slot, that the given one has. Places are numbers of members.
struct Service(Transition);

impl Service {
    fn of(owner: u16) -> Self {
        let mut service = Self(Transition::default());
        service.change(0, "++++", owner);
        service
    }

    fn change(&mut self, now: u64, text: &str, owner: u16) {
        let members = members(text);
        let at_place = members.iter().position(|m| m.address == address(owner));
        let table: Vec<u16> = at_place.into_iter().map(|i| u16::try_from(i).unwrap()).collect();
        self.0.change(at(now), &members, &table);
    }

    fn slot(&self) -> (u16, u16) {
        let slots = self.0.slots();
        slots.first().map_or((NOBODY, NOBODY), |s| (s.current, s.previous))
    }

    fn deadline(&self) -> Option<u64> {
        self.0.deadline().map(|at| at.as_nanos() / 1_000_000_000)
    }
}

#[test]
fn one_change_keeps_the_previous_backend_until_the_deadline_if_it_lives() {
    type Case = (&'static str, u16, (u16, u16));
    let cases: [Case; 8] = [
        ("++++", A, (A, A)),           // nothing happened
        ("++++", B, (B, A)),           // drained, or another weight
        ("-+++", B, (B, B)),           // down: at once
        (".+++", B, (B, B)),           // removed: at once
        ("+-..", A, (A, A)),           // others went
        ("++++", NOBODY, (NOBODY, A)), // all drained: A's flows go on, new ones are dropped
        ("----", NOBODY, (NOBODY, NOBODY)),
        ("....", NOBODY, (NOBODY, NOBODY)),
    ];
    for (members, owner, expected) in cases {
        let mut service = Service::of(A);
        service.change(1, members, owner);
        assert_eq!(service.slot(), expected, "{members} {owner}");
        let moves = expected.0 != expected.1;
        assert_eq!(service.deadline(), moves.then_some(1 + DRAIN), "{members} {owner}");
        service.0.tick(at(DRAIN));
        assert_eq!(service.slot(), expected, "not yet");
        service.0.tick(at(1 + DRAIN));
        assert_eq!(service.slot(), (expected.0, expected.0), "{members} {owner}: over");
        assert_eq!((service.deadline(), service.0.moving()), (None, 0));
    }
}

/// When A's time is over if B got its slot at 10.
const FIRST: u64 = 10 + DRAIN;
/// When B's time is over if it lost the slot at 20.
const SECOND: u64 = 20 + DRAIN;

/// A slot of A that B got at 10; then at 20 the second change.
#[test]
fn a_second_change_during_the_first() {
    type Case = (&'static str, u16, (u16, u16), &'static [(u64, (u16, u16))]);
    // The slot after the change, and what it becomes when: each time a deadline has passed.
    let cases: [Case; 12] = [
        // B keeps it: nothing new.
        ("++++", B, (B, A), &[(FIRST, (B, B))]),
        // A goes down or out: what it had is lost, and all others are B's.
        ("-+++", B, (B, B), &[]),
        (".+++", B, (B, B), &[]),
        // C gets it. Flows of A go on as `previous`, to A's own deadline; those of B are remembered.
        ("++++", C, (C, A), &[(FIRST, (C, REMEMBERED)), (SECOND, (C, C))]),
        // C gets it since B is down: B's flows are lost, nobody else's.
        ("+-++", C, (C, A), &[(FIRST, (C, C))]),
        ("+.++", C, (C, A), &[(FIRST, (C, C))]),
        // C gets it and A is down: now B serves whatever is not remembered.
        ("-+++", C, (C, B), &[(SECOND, (C, C))]),
        ("--++", C, (C, C), &[]),
        // A gets it back: its flows are at home, those of B are remembered.
        ("++++", A, (A, REMEMBERED), &[(SECOND, (A, A))]),
        ("+-++", A, (A, A), &[]),
        // Nobody takes new flows any more.
        ("++++", NOBODY, (NOBODY, A), &[(FIRST, (NOBODY, REMEMBERED)), (SECOND, (NOBODY, NOBODY))]),
        ("----", NOBODY, (NOBODY, NOBODY), &[]),
    ];
    for (members, owner, expected, later) in cases {
        let mut service = Service::of(A);
        service.change(10, "++++", B);
        assert_eq!(service.slot(), (B, A));
        service.change(20, members, owner);
        assert_eq!(service.slot(), expected, "{members} {owner}");
        for &(when, expected) in later {
            assert_eq!(service.deadline(), Some(when), "{members} {owner}");
            service.0.tick(at(when));
            assert_eq!(service.slot(), expected, "{members} {owner} at {when}");
        }
        assert_eq!(service.deadline(), None, "{members} {owner}");
    }
}

#[test]
fn a_third_change_keeps_what_the_second_kept() {
    let (first, third) = (10 + DRAIN, 30 + DRAIN);
    let mut service = Service::of(A);
    service.change(10, "++++", B);
    service.change(20, "++++", C);
    service.change(30, "++++", D);
    assert_eq!(service.slot(), (D, A), "B's and C's flows are remembered");
    service.0.tick(at(first));
    assert_eq!(service.slot(), (D, REMEMBERED));
    assert_eq!(service.deadline(), Some(third));
    // A gets it again: what is not remembered began while D had it.
    service.change(first + 1, "++++", A);
    assert_eq!(service.slot(), (A, D));
    service.0.tick(at(third));
    assert_eq!(service.slot(), (A, D), "D's time began when it lost the slot");
    service.0.tick(at(first + 1 + DRAIN));
    assert_eq!(service.slot(), (A, A));
}

#[test]
fn a_backend_that_comes_and_goes_does_not_keep_a_drained_one_busy() {
    let mut service = Service::of(A);
    service.change(0, "++++", B);
    for round in 1..10 {
        service.change(round * 60 - 30, "+-++", C);
        service.change(round * 60, "++++", B);
        let expected = if round * 60 < DRAIN { (B, A) } else { (B, C) };
        assert_eq!(service.slot(), expected, "{round}");
    }
}

#[test]
fn a_backend_that_was_down_takes_over_at_once_and_leaves_nothing_behind() {
    let mut service = Service::of(A);
    service.change(1, "-+++", B);
    service.change(2, "++++", A);
    assert_eq!(service.slot(), (A, B), "B has flows, A has lost its own");
    let mut service = Service::of(A);
    service.change(1, "----", NOBODY);
    assert_eq!((service.slot(), service.0.slots().len()), ((NOBODY, NOBODY), 0));
    service.change(2, "++++", A);
    assert_eq!(service.slot(), (A, A), "nobody had it in between");
}

#[test]
fn a_late_tick_does_what_earlier_ones_would_have_done() {
    let mut service = Service::of(A);
    service.change(10, "++++", B);
    service.change(20, "++++", C);
    service.0.tick(at(100_000));
    assert_eq!(service.slot(), (C, C));
    let mut service = Service::of(A);
    service.change(10, "++++", B);
    // Without a tick at all: the change itself knows that A's time is over.
    service.change(100_000, "++++", C);
    assert_eq!(service.slot(), (C, B));
}

fn table(owners: &[u16], slots: usize) -> Vec<u16> {
    (0..slots).map(|i| owners[i % owners.len()]).collect()
}

#[test]
fn a_larger_table_finds_each_flow_where_it_was() {
    let mut transition = Transition::default();
    transition.change(at(0), &members("+++"), &table(&[0, 1], 4));
    transition.change(at(1), &members("+++"), &table(&[2], 16));
    let slots = transition.slots();
    assert_eq!(slots.len(), 16);
    for (i, slot) in slots.iter().enumerate() {
        let previous = u16::from(i % 4 % 2 == 1);
        assert_eq!(*slot, Slot { current: 2, previous }, "slot {i} was slot {}", i % 4);
    }
}

#[test]
fn a_smaller_table_stands_in_the_larger_one_until_nothing_moves() {
    let mut transition = Transition::default();
    transition.change(at(0), &members("+++"), &table(&[0, 1, 2, 0], 16));
    transition.change(at(1), &members("+++"), &table(&[0, 1], 4));
    let slots = transition.slots();
    assert_eq!(slots.len(), 16);
    assert!(slots.iter().enumerate().all(|(i, s)| usize::from(s.current) == i % 2));
    let moving = slots.iter().filter(|s| s.current != s.previous).count();
    assert_eq!((moving, transition.moving()), (8, 8));
    transition.tick(at(1 + DRAIN));
    let slots = transition.slots();
    assert_eq!(slots.len(), 4);
    assert!(slots.iter().enumerate().all(|(i, s)| usize::from(s.current) == i % 2));
}

#[test]
fn a_place_stays_and_then_rests() {
    let mut transition = Transition::default();
    let place = |transition: &Transition, i: u16| {
        let backends = transition.backends();
        backends.iter().position(|b| b.address == address(i))
    };
    let here = |text: &str| members(text);
    transition.change(at(0), &here("+++"), &table(&[0], 4));
    assert_eq!([0, 1, 2].map(|i| place(&transition, i)), [Some(0), Some(1), Some(2)]);
    // The first leaves; the others keep their places, and a new one does not get that of the first.
    transition.change(at(1), &here(".+++"), &table(&[0], 4));
    assert_eq!([1, 2, 3].map(|i| place(&transition, i)), [Some(1), Some(2), Some(3)]);
    assert!(transition.backends()[0].address.ip().is_unspecified());
    // Who comes back has its old place, and whoever comes after the rest is over gets it.
    transition.change(at(2), &here("++++"), &table(&[0], 4));
    assert_eq!(place(&transition, 0), Some(0));
    transition.change(at(3), &here(".+++"), &table(&[0], 4));
    transition.change(at(3 + DRAIN), &here(".++++"), &table(&[0], 4));
    assert_eq!(place(&transition, 4), Some(0));
    // One that is down keeps its place, and nobody is sent there.
    transition.change(at(1000), &here(".-+++"), &table(&[1], 4));
    assert!(transition.backends()[1].address.ip().is_unspecified());
    transition.change(at(1001), &here(".++++"), &table(&[1], 4));
    assert_eq!(place(&transition, 1), Some(1));
}

#[test]
fn places_are_never_more_than_their_limit_however_fast_backends_come_and_go() {
    let mut transition = Transition::default();
    for round in 0..20 {
        let all = u16::try_from(SERVICE_BACKENDS_MAX).unwrap();
        let member = |i| Member { address: address(round * 100 + i), alive: true };
        let members: Vec<Member> = (0..all).map(member).collect();
        let before = transition.slots();
        transition.change(at(0), &members, &table(&(0..all).collect::<Vec<_>>(), 256));
        let backends = transition.backends();
        assert!(backends.len() <= FAST_PLACES_MAX);
        for (i, slot) in transition.slots().into_iter().enumerate() {
            let named = &members[i % members.len()];
            assert_eq!(backends[usize::from(slot.current)].address, named.address);
            // The place of one that left is never given to another in the same change.
            if slot.previous != slot.current && slot.previous < REMEMBERED {
                assert!([before[i].current, before[i].previous].contains(&slot.previous));
            }
        }
    }
}

#[test]
fn a_server_under_a_new_name_is_the_same_and_at_a_new_address_another() {
    let mut service = Service::of(A);
    service.change(1, "++++", A);
    assert_eq!(service.slot(), (A, A));
    // Its address changed: what was A is gone.
    let members: Vec<Member> = members(".+++....+");
    service.0.change(at(2), &members, &[3]);
    assert_eq!(service.slot(), (4, 4));
}

#[test]
fn what_another_agent_left_goes_on() {
    let mut service = Service::of(A);
    service.change(10, "++++", B);
    let left = FastService {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        protocol: buoy_model::Protocol::Tcp,
        ports: (80, 80),
        forward: buoy_model::Forward::Nat,
        flow: buoy_model::FlowFields::Connection,
        stick: None,
        quic: None,
        pool: alloc::sync::Arc::default(),
        sources: alloc::sync::Arc::default(),
        new_connections: None,
        backends: service.0.backends().into(),
        slots: service.0.slots().into(),
    };
    let mut next = Service(Transition::adopt(at(100), &left));
    assert_eq!((next.0.slots(), next.0.backends()), (left.slots.to_vec(), left.backends.to_vec()));
    next.change(101, "++++", B);
    assert_eq!(next.slot(), (B, A), "the same table is no change");
    assert_eq!(next.deadline(), Some(100 + DRAIN));
    next.change(102, ".+++", B);
    assert_eq!(next.slot(), (B, REMEMBERED), "whom the kernel may still remember is not known");
    next.0.tick(at(100 + DRAIN));
    assert_eq!(next.slot(), (B, B));
    let mut odd = left;
    odd.slots = odd.slots.iter().cycle().take(3).copied().collect();
    assert!(Transition::adopt(at(100), &odd).slots().is_empty(), "three slots are no table");
}
