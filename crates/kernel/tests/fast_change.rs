//! Which backend a flow has while tables change under it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod packets;
mod world;

use buoy_kernel::fast::{Capacity, Fast, FastError, Verdict};
use buoy_model::{FastPath, FastService, FlowFields, Forward, Protocol, Slot};
use buoy_xdp::exact::Exact;
use buoy_xdp::forward::{Address, Service};
use packets::{Packet, tcp, udp};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
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
    path.services[0].slots = vec![Slot { current, previous }; 64].into();
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
fn a_thousand_flows_and_a_hundred_thousand_are_shared_by_the_slots() {
    let test = "a_thousand_flows_and_a_hundred_thousand_are_shared_by_the_slots";
    // Who deserves which slot is `core::maglev`'s, and exact to one; here it is the hash of the program.
    let weights = [1_u64, 2, 5];
    let of = |n: usize| {
        let current = [0, 1, 1, 2, 2, 2, 2, 2][n % 8];
        Slot { current, previous: current }
    };
    let mut path = one(Protocol::Tcp, &BACKENDS);
    path.services[0].slots = (0..4096).map(of).collect::<Vec<_>>().into();
    let Some(mut fast) = open(test, &path) else { return };
    let address = |n: u64| format!("10.{}.{}.{}", 16 + (n >> 16), n >> 8 & 0xff, n & 0xff);
    // By address alone each flow has an address of its own; else some have one in common, and another port.
    for (flow, ports) in [(FlowFields::Connection, 7), (FlowFields::Client, 1)] {
        path.services[0].flow = flow;
        fast.apply(&path, &mut way).unwrap();
        let mut clients = 0..;
        for count in [1000, 100_000_u64] {
            let mut got = BTreeMap::<u8, u64>::new();
            for n in clients.by_ref().take(count as usize) {
                let client = format!("{}:{}", address(n / ports), 1000 + n % ports);
                *got.entry(taker(&fast, &tcp(&client, VIP).syn())).or_default() += 1;
            }
            for (got, weight) in got.values().zip(weights) {
                let of = weight as f64 / 8.0;
                // Clients fall on slots by chance: 4.5 times the standard deviation.
                let allowed = 4.5 * (count as f64 * of * (1.0 - of)).sqrt();
                let share = count * weight / 8;
                assert!(got.abs_diff(share) as f64 <= allowed, "{got} of {count}, not {share}");
            }
            assert_eq!(got.len(), 3);
        }
    }
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
    // A second change: those in between are remembered, whoever is the current one and the previous one.
    fast.apply(&between(path.clone(), 0, 2), &mut way).unwrap();
    for n in 200..300 {
        assert_eq!(taker(&fast, &tcp(&client(n), VIP).syn()), 13);
    }
    for n in 0..300 {
        assert_eq!(taker(&fast, &tcp(&client(n), VIP)), 11 + (n / 100) as u8);
    }
    fast.apply(&between(path.clone(), Slot::REMEMBERED, 0), &mut way).unwrap();
    for n in 0..300 {
        assert_eq!(taker(&fast, &tcp(&client(n), VIP)), 11 + (n / 100) as u8);
    }
    fast.apply(&between(path, 0, 0), &mut way).unwrap();
    assert_eq!(taker(&fast, &tcp(&client(250), VIP)), 11);
}

#[test]
fn who_is_not_there_any_more_gets_nothing_and_its_flows_go_the_way_of_their_slot() {
    let test = "who_is_not_there_any_more_gets_nothing_and_its_flows_go_the_way_of_their_slot";
    let path = one(Protocol::Tcp, &BACKENDS);
    let Some(mut fast) = open(test, &between(path.clone(), 0, 1)) else { return };
    let flow = client(1);
    assert_eq!(taker(&fast, &tcp(&flow, VIP).syn()), 12);
    let mut without = between(path.clone(), 0, 2);
    Arc::make_mut(&mut without.services[0].backends)[1].address = "0.0.0.0:0".parse().unwrap();
    fast.apply(&without, &mut way).unwrap();
    assert_eq!(fast.path(), without);
    assert_eq!(taker(&fast, &tcp(&flow, VIP)), 11);
    Arc::make_mut(&mut without.services[0].backends)[0].address = "0.0.0.0:0".parse().unwrap();
    fast.apply(&without, &mut way).unwrap();
    assert_eq!(taker(&fast, &tcp(&flow, VIP)), 13, "the previous one is not there either");
    fast.apply(&between(path.clone(), 0, 2), &mut way).unwrap();
    assert_eq!(taker(&fast, &tcp(&flow, VIP)), 12, "it is back, and so are its flows");
    // Another server in its place is not taken for it.
    let other = one(Protocol::Tcp, &[BACKENDS[0], "10.0.0.14:0", BACKENDS[2]]);
    fast.apply(&between(other, 0, 2), &mut way).unwrap();
    assert_eq!(taker(&fast, &tcp(&flow, VIP)), 11);
    fast.apply(&between(path, 0, Slot::NOBODY), &mut way).unwrap();
    assert_eq!(taker(&fast, &tcp(&flow, VIP)), 12);
    let new = fast.try_frame(&tcp(&client(2), VIP).syn().frame()).unwrap();
    assert_eq!(new.verdict, Verdict::Drop, "nobody takes new ones");
    assert_eq!(taker(&fast, &tcp(&client(2), VIP)), 11);
}

#[test]
fn datagrams_do_not_say_what_is_new_so_all_of_them_stay_until_the_change_is_over() {
    let test = "datagrams_do_not_say_what_is_new_so_all_of_them_stay_until_the_change_is_over";
    let path = one(Protocol::Udp, &BACKENDS);
    let Some(mut fast) = open(test, &between(path.clone(), 0, 1)) else { return };
    assert!((0..50).all(|n| taker(&fast, &udp(&client(n), VIP)) == 11));
    fast.apply(&between(path, 1, 1), &mut way).unwrap();
    assert!((0..50).all(|n| taker(&fast, &udp(&client(n), VIP)) == 12));
}

/// Services with one table, as `core` gives them, and what becomes of it.
#[test]
fn services_share_a_table_until_one_of_them_needs_another() {
    let test = "services_share_a_table_until_one_of_them_needs_another";
    let of = |n: u16| service(Protocol::Tcp, "10.0.0.100", (n, n), Forward::Dsr, &BACKENDS);
    let table = |slot: Slot| -> Arc<[Slot]> { vec![slot; 65_536].into() };
    let settled = |n: u16| Slot { current: n, previous: n };
    let mut path = FastPath { seed: 5, services: (0..1000).map(of).collect() };
    let set = |path: &mut FastPath, table: &Arc<[Slot]>| {
        path.services.iter_mut().for_each(|s| s.slots = Arc::clone(table));
    };
    set(&mut path, &table(settled(0)));
    // Room for three tables, not for a thousand.
    let Some(mut fast) = open(test, &path) else { return };
    let to = |fast: &Fast, port: u16| taker(fast, &tcp(&client(1), &format!("10.0.0.100:{port}")));
    let all = |fast: &Fast| (1..1000).map(|port| to(fast, port)).collect::<Vec<u8>>();
    assert_eq!(all(&fast), [11; 999]);
    set(&mut path, &table(settled(1)));
    fast.apply(&path, &mut way).unwrap();
    assert_eq!(all(&fast), [12; 999]);
    path.services[500].slots = table(settled(2));
    fast.apply(&path, &mut way).unwrap();
    assert_eq!((to(&fast, 499), to(&fast, 500), to(&fast, 501)), (12, 13, 12));
    assert_eq!(fast.path(), path);
    path.services.remove(0);
    set(&mut path, &table(settled(0)));
    for _ in 0..4 {
        fast.apply(&path, &mut way).unwrap();
        assert_eq!(all(&fast), [11; 999]);
        let first = path.services[3].slots.clone();
        path.services[3].slots = table(settled(1));
        fast.apply(&path, &mut way).unwrap();
        assert_eq!((to(&fast, 3), to(&fast, 4), to(&fast, 5)), (11, 12, 11));
        path.services[3].slots = first;
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
    fast.tick(200);
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
        (broken(&|p| p.services[0].slots = p.services[0].slots[..63].into()), "power of two"),
        (
            broken(&|p| Arc::make_mut(&mut p.services[0].slots)[9].current = 3),
            "that it does not have",
        ),
        (
            broken(&|p| Arc::make_mut(&mut p.services[0].slots)[9].previous = 3),
            "that it does not have",
        ),
        (
            broken(&|p| {
                p.services[0].forward = Forward::Nat;
                Arc::make_mut(&mut p.services[0].backends)[0].address =
                    "[fd00::1]:80".parse().unwrap();
            }),
            "other family",
        ),
        (
            broken(&|p| {
                p.services[0].forward = Forward::Nat;
                p.services[0].ports = (80, 90);
                Arc::make_mut(&mut p.services[0].backends)[0].address =
                    "10.0.0.1:65530".parse().unwrap();
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

/// Of services of one port, two may have one place among the exact matches.
#[test]
fn services_with_one_exact_place_are_told_apart_and_none_outlives_its_service() {
    let test = "services_with_one_exact_place_are_told_apart_and_none_outlives_its_service";
    let [vip, other_vip] = ["10.0.0.100", "10.0.0.101"];
    let place = |vip: &str, port| {
        let address = Address::from(vip.parse::<IpAddr>().unwrap());
        let (slots_count, backends_count, protocol) = (4096, 1, 6);
        let of_one =
            Service { address, protocol, slots_count, backends_count, ..Service::default() };
        Exact::of(&Service { first: port, last: port, ..of_one }).unwrap().place()
    };
    let (first, second) = (1..1000_u16)
        .flat_map(|a| (1..1000).map(move |b| (a, b)))
        .find(|&(a, b)| place(vip, a) == place(other_vip, b))
        .unwrap();
    let of = |vip, ports, backend| service(Protocol::Tcp, vip, ports, Forward::Dsr, &[backend]);
    let one = of(vip, (first, first), BACKENDS[0]);
    let other = of(other_vip, (second, second), BACKENDS[1]);
    let others = [vip, other_vip].map(|vip| of(vip, (1, 1000), BACKENDS[2]));
    let with = |services: &[&FastService]| {
        let services = others.iter().chain(services.iter().copied()).cloned().collect();
        FastPath { seed: 5, services }
    };
    let Some(mut fast) = open(test, &with(&[&one, &other])) else { return };
    let to = |fast: &Fast, vip, port| taker(fast, &tcp(&client(1), &format!("{vip}:{port}")));
    let both = |fast: &Fast| (to(fast, vip, first), to(fast, other_vip, second));
    assert_eq!(both(&fast), (11, 12));
    // A place is another one's only with the change after the one that made it free.
    let steps: [(&[&FastService], _); 7] = [
        (&[&one], (11, 13)),
        (&[&other], (13, 12)),
        (&[&other], (13, 12)),
        (&[&one, &other], (11, 12)),
        (&[], (13, 13)),
        (&[&one, &other], (11, 12)),
        (&[], (13, 13)),
    ];
    for (services, takers) in steps {
        fast.apply(&with(services), &mut way).unwrap();
        assert_eq!(both(&fast), takers);
    }
}
