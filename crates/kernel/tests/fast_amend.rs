//! Whether a few services that change leave the tables that all of it, written anew, would be.
//!
//! `BUOY_SEED` gives the seed of a run that failed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod packets;
mod pools;
mod world;

use buoy_kernel::fast::Fast;
use buoy_model::{FastBackend, FastPath, FastService, Forward, Protocol, Slot};
use packets::tcp;
use pools::one;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use world::{ip, open, service, way};

const SERVICES: u16 = 24;
const STEPS: u32 = 400;
/// The first services have one table, and the same backends.
const ALIKE: usize = 4;

/// Numbers that a seed gives (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }
}

fn place(port: u16, at: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 11 + at as u8], 1000 + port))
}

fn first() -> FastPath {
    let one = |port: u16| {
        let backends: Vec<String> = (0..4).map(|at| place(port, at).to_string()).collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        let forward = [Forward::Dsr, Forward::Tunnel, Forward::Nat][usize::from(port % 3)];
        service(Protocol::Tcp, "10.0.0.100", (port, port), forward, &backends)
    };
    let mut path = FastPath { seed: 5, services: (1..=SERVICES).map(one).collect() };
    let shared = Arc::clone(&path.services[0].slots);
    let backends = Arc::clone(&path.services[0].backends);
    for alike in &mut path.services[..ALIKE] {
        (alike.slots, alike.backends) = (Arc::clone(&shared), Arc::clone(&backends));
    }
    path
}

/// One list of backends, some of which are nobody.
fn backends(dice: &mut Dice) -> Arc<[FastBackend]> {
    let mut one = |at: u16| {
        let is_there = at == 3 || dice.below(3) != 0;
        let nobody = SocketAddr::from(([0; 4], 0));
        FastBackend::new(if is_there { place(1, at) } else { nobody })
    };
    (0..4).map(&mut one).collect()
}

/// Random slots, some of which are in a change.
fn slots(dice: &mut Dice, count: usize) -> Arc<[Slot]> {
    let mut slot = |_| {
        let current = dice.below(4) as u16;
        let previous = if dice.below(3) == 0 { dice.below(4) as u16 } else { current };
        Slot { current, previous }
    };
    (0..count).map(&mut slot).collect()
}

/// What is different, by the places of services; beside slots and who is there, something else now and then.
fn step(dice: &mut Dice, path: &mut FastPath) -> Vec<usize> {
    let any = dice.below(u64::from(SERVICES)) as usize % path.services.len();
    match dice.below(16) {
        0 => {
            let all = slots(dice, 64);
            path.services[..ALIKE].iter_mut().for_each(|s| s.slots = Arc::clone(&all));
            (0..ALIKE).collect()
        }
        9 | 10 => {
            let all = backends(dice);
            path.services[..ALIKE].iter_mut().for_each(|s| s.backends = Arc::clone(&all));
            (0..ALIKE).collect()
        }
        1 => {
            path.services[any].slots = slots(dice, 128);
            vec![any]
        }
        2 => {
            let moved: SocketAddr = place(dice.below(9) as u16, dice.below(4) as u16);
            Arc::make_mut(&mut path.services[any].backends)[3].address = moved;
            vec![any]
        }
        3 => {
            path.seed += 1;
            vec![]
        }
        4..9 => {
            let at = dice.below(3) as usize;
            let port = if any < ALIKE { 1 } else { path.services[any].ports.0 };
            let backend = &mut Arc::make_mut(&mut path.services[any].backends)[at].address;
            let nobody = SocketAddr::from(([0; 4], 0));
            *backend = if *backend == nobody { place(port, at as u16) } else { nobody };
            vec![any]
        }
        _ => {
            let count = path.services[any].slots.len();
            path.services[any].slots = slots(dice, count);
            vec![any]
        }
    }
}

/// What becomes of packets that are remembered by nobody.
fn fates(fast: &Fast) -> Vec<(u32, Vec<u8>)> {
    let mut fates = Vec::new();
    for (port, n) in (1..=SERVICES).flat_map(|port| (0..16).map(move |n| (port, n))) {
        let packet = tcp(&format!("10.9.0.{n}:{}", 3000 + n), &format!("10.0.0.100:{port}"));
        let tried = fast.try_frame(&packet.frame()).unwrap();
        fates.push((tried.verdict as u32, tried.frame));
    }
    fates
}

#[test]
fn services_that_are_amended_are_as_if_all_had_been_written_anew() {
    let test = "services_that_are_amended_are_as_if_all_had_been_written_anew";
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let seed = std::env::var("BUOY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(since.as_nanos() as u64);
    eprintln!("BUOY_SEED={seed}");
    let (mut dice, mut path) = (Dice(seed), first());
    let Some(mut fast) = open(test, &path) else { return };
    let (mut amended, mut applied) = (0, 0);
    for n in 0..STEPS {
        let changed = step(&mut dice, &mut path);
        let changed: Vec<FastService> =
            changed.into_iter().map(|at| path.services[at].clone()).collect();
        if fast.amend(path.seed, &changed, &mut way) {
            amended += 1;
        } else {
            applied += 1;
            fast.apply(&path, &mut way).unwrap();
        }
        assert_eq!(fast.path(), path, "step {n} of seed {seed}");
        if n % 20 == 0 {
            let anew = open(test, &path).unwrap();
            assert!(fates(&fast) == fates(&anew), "step {n} of seed {seed}");
        }
    }
    assert!(amended > STEPS / 2 && applied > 0, "{amended} and {applied}");
}

#[test]
fn what_takes_more_than_slots_is_not_amended_and_nothing_is_touched() {
    let test = "what_takes_more_than_slots_is_not_amended_and_nothing_is_touched";
    let before = first();
    let Some(mut fast) = open(test, &before) else { return };
    let base = &before.services[ALIKE];
    let other = |change: &dyn Fn(&mut FastService)| {
        let mut service = base.clone();
        change(&mut service);
        service
    };
    let slot = |current| Slot { current, previous: current };
    let shared = FastService { slots: vec![slot(1); 64].into(), ..before.services[0].clone() };
    let cases = [
        other(&|s| s.ports = (99, 99)),
        other(&|s| s.slots = vec![slot(1); 128].into()),
        other(&|s| s.slots = vec![slot(4); 64].into()),
        other(&|s| s.forward = Forward::Gue { port: 6080 }),
        other(&|s| Arc::make_mut(&mut s.backends)[1].address = place(9, 0)),
        other(&|s| s.backends = s.backends[..3].into()),
        other(&|s| s.new_connections = world::hourly(3)),
        other(&|s| s.sources = world::sources(&["!10.0.0.0/8"])),
        shared,
    ];
    for (n, service) in cases.into_iter().enumerate() {
        assert!(!fast.amend(before.seed, &[service], &mut way), "case {n}");
        assert_eq!(fast.path(), before, "case {n}");
    }
    let twice = [base.clone(), base.clone()];
    assert!(!fast.amend(before.seed, &twice, &mut way));
    assert!(!fast.amend(before.seed + 1, std::slice::from_ref(base), &mut way));
    assert!(fast.amend(before.seed, std::slice::from_ref(base), &mut way));
}

/// Addresses in place of clients' are no matter of slots: which tables a service has is looked at before it is amended.
#[test]
fn a_service_is_not_amended_into_other_addresses_in_place_of_its_clients() {
    let test = "a_service_is_not_amended_into_other_addresses_in_place_of_its_clients";
    let mut path = one();
    path.services[0].pool = [ip("10.0.0.50"), ip("10.0.0.51")].into();
    let Some(mut fast) = open(test, &path) else { return };
    let with = |pool: &[&str]| FastService {
        pool: pool.iter().map(|text| ip(text)).collect(),
        ..path.services[0].clone()
    };
    for pool in [
        &["10.0.0.50", "10.0.0.51", "10.0.0.52"][..], // a new one has no table yet
        &["10.0.0.50", "10.0.0.52"],
        &["10.0.0.50"],
        &["10.0.0.51", "10.0.0.50"],
        &[],
    ] {
        assert!(!fast.amend(path.seed, &[with(pool)], &mut way), "{pool:?}");
        assert_eq!(fast.path(), path, "{pool:?}");
    }
    let same = with(&["10.0.0.50", "10.0.0.51"]);
    assert!(fast.amend(path.seed, std::slice::from_ref(&same), &mut way));
    // Written anew it has them, and is amended with these only.
    let other = with(&["10.0.0.52"]);
    path.services = vec![other.clone()];
    fast.apply(&path, &mut way).unwrap();
    assert_eq!(fast.path(), path);
    assert!(fast.amend(path.seed, &[other], &mut way));
    assert!(!fast.amend(path.seed, &[same], &mut way));
}

/// And not where it had none, or is to have none.
#[test]
fn a_service_is_not_amended_into_addresses_in_place_of_its_clients_that_it_had_none_of() {
    let test =
        "a_service_is_not_amended_into_addresses_in_place_of_its_clients_that_it_had_none_of";
    let mut path = one();
    let pooled = path.services[0].clone();
    path.services[0].pool = Arc::default();
    let Some(mut fast) = open(test, &path) else { return };
    assert!(!fast.amend(path.seed, &[pooled], &mut way));
    assert_eq!(fast.path(), path);
    assert!(fast.amend(path.seed, &path.services, &mut way));
}
