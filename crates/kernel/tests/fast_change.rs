//! Which backend a flow has while tables change under it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod packets;
mod world;

use buoy_kernel::fast::{Capacity, Fast, FastError, Verdict};
use buoy_model::{FastPath, FastService, FlowFields, Forward, Protocol, Slot};
use packets::{Packet, tcp, udp};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use world::{open, service, way};

const VIP: &str = "10.0.0.100:80";
const BACKENDS: [&str; 3] = ["10.0.0.11:0", "10.0.0.12:0", "10.0.0.13:0"];

fn one(protocol: Protocol, backends: &[&str]) -> FastPath {
    let service = service(protocol, "10.0.0.100", (80, 80), Forward::Dsr, backends);
    FastPath { seed: 5, services: vec![service] }
}

/// All slots from one backend to another.
fn between(mut path: FastPath, previous: u16, current: u16) -> FastPath {
    path.services[0].slots = vec![Slot { current, previous }; 64];
    path
}

/// Which backend gets it, by the last byte of its Ethernet address.
fn taker(fast: &Fast, packet: &Packet) -> u8 {
    let tried = fast.try_frame(&packet.frame()).unwrap();
    assert_eq!(tried.verdict, Verdict::Transmit);
    tried.frame[5]
}

fn client(n: u16) -> String {
    format!("10.9.{}.{}:{}", n >> 8, n & 0xff, 1000 + n % 7)
}

#[test]
fn flows_are_spread_over_all_backends_and_stay_where_they_are() {
    let test = "flows_are_spread_over_all_backends_and_stay_where_they_are";
    let path = one(Protocol::Tcp, &BACKENDS);
    let Some(fast) = open(test, &path) else { return };
    let mut shares = BTreeMap::new();
    for n in 0..3000 {
        let first = taker(&fast, &tcp(&client(n), VIP).syn());
        assert_eq!(taker(&fast, &tcp(&client(n), VIP)), first);
        *shares.entry(first).or_insert(0) += 1;
    }
    assert_eq!(shares.len(), 3);
    assert!(shares.values().all(|n| (850..1150).contains(n)), "{shares:?}");
}

#[test]
fn all_that_a_client_opens_goes_to_one_backend_where_it_is_to_be_so() {
    let test = "all_that_a_client_opens_goes_to_one_backend_where_it_is_to_be_so";
    let mut path = one(Protocol::Tcp, &BACKENDS);
    path.services[0].flow = FlowFields::Client;
    let Some(fast) = open(test, &path) else { return };
    for host in 1..50 {
        let takers: Vec<u8> = (0..20)
            .map(|port| taker(&fast, &tcp(&format!("10.9.0.{host}:{}", 1000 + port), VIP).syn()))
            .collect();
        assert!(takers.iter().all(|t| *t == takers[0]), "{takers:?}");
    }
}

#[test]
fn a_connection_stays_with_its_backend_while_its_slot_changes_hands() {
    let test = "a_connection_stays_with_its_backend_while_its_slot_changes_hands";
    let path = one(Protocol::Tcp, &BACKENDS);
    let Some(mut fast) = open(test, &between(path.clone(), 0, 0)) else { return };
    fast.apply(&between(path.clone(), 0, 1), &mut way).unwrap();
    // Opened before: with the previous one. Opened since: with the current one.
    for n in 0..100 {
        assert_eq!(taker(&fast, &tcp(&client(n), VIP)), 11);
    }
    for n in 100..200 {
        assert_eq!(taker(&fast, &tcp(&client(n), VIP).syn()), 12);
        assert_eq!(taker(&fast, &tcp(&client(n), VIP)), 12);
    }
    // Places change, identities do not.
    let turned = one(Protocol::Tcp, &["10.0.0.13:0", "10.0.0.12:0", "10.0.0.11:0"]);
    fast.apply(&between(turned, 2, 1), &mut way).unwrap();
    for n in 0..200 {
        assert_eq!(taker(&fast, &tcp(&client(n), VIP)), if n < 100 { 11 } else { 12 });
    }
    // A second change: those of the current one are now those of the previous one.
    fast.apply(&between(path.clone(), 1, 2), &mut way).unwrap();
    for n in 100..200 {
        assert_eq!(taker(&fast, &tcp(&client(n), VIP)), 12);
        assert_eq!(taker(&fast, &tcp(&client(n), VIP).syn()), 13);
        assert_eq!(taker(&fast, &tcp(&client(n), VIP)), 13);
    }
    fast.apply(&between(path, 2, 2), &mut way).unwrap();
    assert_eq!(taker(&fast, &tcp(&client(0), VIP)), 13);
}

#[test]
fn a_datagram_flow_that_is_not_known_goes_to_the_current_backend() {
    let test = "a_datagram_flow_that_is_not_known_goes_to_the_current_backend";
    let path = one(Protocol::Udp, &BACKENDS);
    let Some(mut fast) = open(test, &between(path.clone(), 0, 1)) else { return };
    for n in 0..50 {
        assert_eq!(taker(&fast, &udp(&client(n), VIP)), 12);
    }
    // The known ones stay with what is the previous one now.
    fast.apply(&between(path, 1, 2), &mut way).unwrap();
    for n in 0..100 {
        assert_eq!(taker(&fast, &udp(&client(n), VIP)), if n < 50 { 12 } else { 13 });
    }
}

/// More SYNs than are remembered: who finds no room goes where it will be looked for.
#[test]
fn a_flood_of_syns_takes_no_backend_from_anybody() {
    let test = "a_flood_of_syns_takes_no_backend_from_anybody";
    let path = one(Protocol::Tcp, &BACKENDS);
    let Some(mut fast) = open(test, &between(path, 0, 1)) else { return };
    let good: Vec<u8> = (0..200)
        .map(|n| {
            let first = taker(&fast, &tcp(&client(n), VIP).syn());
            assert_eq!(taker(&fast, &tcp(&client(n), VIP)), first);
            first
        })
        .collect();
    let mut refused = 0;
    for n in 0..700_000_u32 {
        let from = format!("10.{}.{}.{}:{}", 16 + (n >> 16), n >> 8 & 0xff, n & 0xff, n % 60_000);
        let first = taker(&fast, &tcp(&from, VIP).syn());
        refused += u32::from(first == 11);
        if n % 1000 == 0 {
            assert_eq!(taker(&fast, &tcp(&from, VIP)), first);
        }
    }
    assert!(refused > 100_000, "{refused}");
    for (n, first) in (0..).zip(&good) {
        assert_eq!(taker(&fast, &tcp(&client(n), VIP)), *first);
    }
    // What was opened and never heard of again gets old, and makes room.
    fast.tick(3000);
    for n in 1000..1200 {
        assert_eq!(taker(&fast, &tcp(&client(n), VIP).syn()), 12);
    }
    for (n, first) in (0..).zip(&good) {
        assert_eq!(taker(&fast, &tcp(&client(n), VIP)), *first);
    }
}

#[test]
fn while_tables_are_replaced_every_packet_finds_one() {
    let test = "while_tables_are_replaced_every_packet_finds_one";
    let small = one(Protocol::Tcp, &BACKENDS[..1]);
    let mut large = one(Protocol::Tcp, &BACKENDS[1..]);
    large.services[0].slots =
        (0..1024).map(|n| n % 2).map(|n| Slot { current: n, previous: n }).collect();
    let Some(mut fast) = open(test, &small) else { return };
    let probe = fast.probe().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut seen = BTreeMap::new();
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n = (n + 1) % 5000;
                let tried = probe.try_frame(&tcp(&client(n), VIP).frame()).unwrap();
                assert_eq!(tried.verdict, Verdict::Transmit);
                assert!((11..=13).contains(&tried.frame[5]));
                *seen.entry(tried.frame[5]).or_insert(0) += 1;
            }
            seen
        });
        for n in 0..300 {
            fast.apply(if n % 2 == 0 { &large } else { &small }, &mut way).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        let seen = asking.join().unwrap();
        eprintln!("{seen:?}");
        assert_eq!(seen.len(), 3);
    });
}

/// Ten thousand services, each changed, removed and put back: every one is found, and no other.
#[test]
fn many_services_are_found_each_by_its_own_port() {
    let test = "many_services_are_found_each_by_its_own_port";
    let of = |n: u16| {
        let address = format!("10.1.{}.{}", n >> 8, n & 0xff);
        let backend = format!("10.0.0.{}:{}", 1 + n % 90, 1000 + n / 90);
        service(Protocol::Tcp, &address, (n, n), Forward::Nat, &[&backend])
    };
    let all: Vec<FastService> = (0..10_000).map(of).collect();
    let half: Vec<FastService> = all.iter().step_by(2).cloned().collect();
    let path = |services: &[FastService]| FastPath { seed: 3, services: services.to_vec() };
    let Some(mut fast) = open(test, &path(&all)) else { return };
    for (services, step) in [(&all, 1), (&half, 2), (&all, 1)] {
        fast.apply(&path(services), &mut way).unwrap();
        for n in (0..10_000_u16).step_by(7) {
            let vip = format!("10.1.{}.{}:{n}", n >> 8, n & 0xff);
            let tried = fast.try_frame(&tcp("10.9.0.9:5", &vip).frame()).unwrap();
            let wanted = if n % step == 0 { Verdict::Transmit } else { Verdict::Pass };
            assert_eq!(tried.verdict, wanted, "{n}");
            if wanted == Verdict::Transmit {
                assert_eq!(tried.frame[5], (1 + n % 90) as u8, "{n}");
            }
        }
    }
}

#[test]
fn what_cannot_be_forwarded_is_refused_and_changes_nothing() {
    let test = "what_cannot_be_forwarded_is_refused_and_changes_nothing";
    let good = one(Protocol::Tcp, &BACKENDS);
    let Some(mut fast) = open(test, &good) else { return };
    let broken = |change: &dyn Fn(&mut FastPath)| {
        let mut path = good.clone();
        change(&mut path);
        path
    };
    let table = [
        (broken(&|p| p.services.push(p.services[0].clone())), "is there twice"),
        (broken(&|p| p.services[0].ports = (81, 80)), "above its last"),
        (broken(&|p| p.services[0].slots.truncate(63)), "power of two"),
        (broken(&|p| p.services[0].slots[9].current = 3), "that it does not have"),
        (broken(&|p| p.services[0].slots[9].previous = 3), "that it does not have"),
        (
            broken(&|p| {
                p.services[0].forward = Forward::Nat;
                p.services[0].backends[0].address = "[fd00::1]:80".parse().unwrap();
            }),
            "other family",
        ),
        (
            broken(&|p| {
                p.services[0].forward = Forward::Nat;
                p.services[0].ports = (80, 90);
                p.services[0].backends[0].address = "10.0.0.1:65530".parse().unwrap();
            }),
            "above a backend's port",
        ),
    ];
    for (path, words) in table {
        let error = fast.apply(&path, &mut way).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains("tcp 10.0.0.100:8"), "{error}");
        taker(&fast, &tcp("10.9.0.9:1", VIP));
    }
    let mut large = good.clone();
    for n in 0..200 {
        large.services.push(service(Protocol::Tcp, "10.0.0.101", (n, n), Forward::Dsr, &BACKENDS));
    }
    let Err(FastError::Full { .. }) = fast.apply(&large, &mut way) else { panic!() };
    taker(&fast, &tcp("10.9.0.9:1", VIP));
    for _ in 0..50 {
        fast.apply(&one(Protocol::Tcp, &BACKENDS[..2]), &mut way).unwrap();
        fast.apply(&good, &mut way).unwrap();
    }
    assert_ne!(Capacity::of(&large), Capacity::of(&good));
}
