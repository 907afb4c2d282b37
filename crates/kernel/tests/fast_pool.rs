//! What the fast path does with flows whose both ends are translated: packets in, packets out, byte for byte; and
//! that no two flows ever share a port.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod cases;
mod packets;
mod pools;
mod world;

use buoy_kernel::fast::{Capacity, Fast, Probe, Verdict};
use buoy_model::{FastPath, Forward, Mac, Protocol, Slot};
use buoy_xdp::forward::Drop;
use buoy_xdp::pool::{
    PORT_FIRST, PORT_LAST, TCP_OPENING_SECONDS, TCP_OVER_SECONDS, TCP_SECONDS, UDP_OPENING_SECONDS,
    UDP_SECONDS,
};
use cases::Fate::{Changed, Pass, Transmit};
use cases::{C4, C6, Case, Shape, check, dropped};
use nix::sched::{CloneFlags, unshare};
use packets::{ACK, NEAR, Packet, ROUTER, SYN, icmp, tcp, udp};
use pools::{client, one, pooled, pools, port_of, source_of};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use world::{FAR_MAC, FAR_ROUTER, LOOPBACK_MAC, ip, mac_of, open, service, way};

const RST: u8 = 0x04;
const FIN: u8 = 0x01;

/// A service of the world, with what it is seen as from both sides.
#[derive(Clone, Copy)]
struct Side {
    new: fn(&str, &str) -> Packet,
    client: &'static str,
    vip: &'static str,
    backend: &'static str,
    macs: (Mac, Mac),
}

const SIDES: [Side; 4] = [
    Side {
        new: tcp,
        client: C4,
        vip: "10.0.0.106:80",
        backend: "10.0.0.36:8080",
        macs: (mac_of(36), LOOPBACK_MAC),
    },
    Side {
        new: udp,
        client: C4,
        vip: "10.0.0.106:53",
        backend: "10.0.2.37:5353",
        macs: (FAR_ROUTER, FAR_MAC),
    },
    Side {
        new: tcp,
        client: C6,
        vip: "[fd00::106]:80",
        backend: "[fd00::36]:8080",
        macs: (mac_of(0x36), LOOPBACK_MAC),
    },
    Side {
        new: udp,
        client: C6,
        vip: "[fd00::106]:53",
        backend: "[fd00:2::37]:5353",
        macs: (FAR_ROUTER, FAR_MAC),
    },
];

impl Side {
    fn asked(&self) -> Packet {
        (self.new)(self.client, self.vip)
    }

    fn is_udp(&self) -> bool {
        self.macs.1 == FAR_MAC
    }

    /// What becomes of a packet on its way to the backend.
    fn out(&self, packet: Packet, pool: &str) -> Packet {
        packet.from(pool).to(self.backend).hop().macs(self.macs.0, self.macs.1)
    }

    /// Opens the flow, and says as whom the backend sees it.
    fn open(&self, fast: &Fast) -> String {
        let tried = fast.try_frame(&self.asked().syn_of_tcp().frame()).unwrap();
        assert!(matches!(tried.verdict, Verdict::Transmit | Verdict::Redirect), "{tried:?}");
        source_of(&tried.frame).to_string()
    }

    fn sent(&self, packet: Packet) -> cases::Fate {
        if self.is_udp() { cases::Fate::Redirect(packet) } else { Transmit(packet) }
    }
}

#[test]
fn both_ends_are_translated_and_answers_go_back_to_the_client() {
    let test = "both_ends_are_translated_and_answers_go_back_to_the_client";
    let Some(fast) = open(test, &pools()) else { return };
    let shapes: [Shape; 8] = [
        ("plain", |p| p),
        ("data", |p| p.long(333)),
        ("odd", |p| p.long(1)),
        ("marked", |p| p.class(0xff)),
        ("two hops left", |p| p.ttl(2)),
        ("all hops left", |p| p.ttl(255)),
        ("padded", |p| p.padding(18)),
        ("full", |p| p.long(1440)),
    ];
    let allowed = ["10.0.0.106", "10.0.0.50", "10.0.0.51", "fd00::50", "fd00::51", "fd00::106"];
    for side in SIDES {
        let pool = side.open(&fast);
        let seen: SocketAddr = pool.parse().unwrap();
        assert!(allowed.contains(&seen.ip().to_string().as_str()), "{seen}");
        assert!((PORT_FIRST..=PORT_LAST).contains(&seen.port()), "{seen}");
        let mut cases: Vec<Case> = Vec::new();
        for (name, shape) in shapes {
            let p = shape(side.asked());
            cases.push((name, p.clone(), side.sent(side.out(p, &pool))));
            let p = shape((side.new)(side.backend, &pool));
            cases.push((name, p.clone(), Changed(p.from(side.vip).to(side.client))));
        }
        if side.is_udp() {
            let p = side.asked().unsummed();
            cases.push(("no checksum", p.clone(), side.sent(side.out(p, &pool))));
        }
        let p = (side.new)(side.backend, &pool).ttl(1);
        cases.push(("the kernel counts hops", p.clone(), {
            Changed(p.from(side.vip).to(side.client))
        }));
        cases.push(("no hop left", side.asked().ttl(1), dropped(Drop::TimeToLive)));
        let more = |p: Packet| {
            if seen.is_ipv4() { p.options(&[1; 12]) } else { p.extension(60, 1).extension(0, 2) }
        };
        let p = more(side.asked().long(5));
        cases.push(("more headers", p.clone(), side.sent(side.out(p, &pool))));
        let p = more((side.new)(side.backend, &pool).long(5));
        cases.push(("more headers back", p.clone(), Changed(p.from(side.vip).to(side.client))));
        let other = |port: u16| SocketAddr::new(seen.ip(), port).to_string();
        for port in [seen.port() - 1, seen.port() ^ 8, 1023, 0, 32_768, 65_535] {
            cases.push(("a port of nobody", (side.new)(side.backend, &other(port)), Pass));
        }
        let stranger = side.backend.replace("36]", "31]").replace(".36:", ".31:");
        let stranger = stranger.replace("37]", "32]").replace(".37:", ".32:");
        cases.push(("another backend", (side.new)(&stranger, &pool), Pass));
        cases.push(("a client", (side.new)(side.client, &pool), Pass));
        let port = format!("{}1", &side.backend[..side.backend.len() - 1]);
        cases.push(("another port of the backend", (side.new)(&port, &pool), Pass));
        let cut = (side.new)(side.backend, &pool).long(20);
        let length = cut.frame().len();
        let is_vip = side.vip.parse::<SocketAddr>().unwrap().ip() == seen.ip();
        let fate = if is_vip { dropped(Drop::Truncated) } else { Pass };
        cases.push(("a cut answer", cut.cut(length - 1), fate));
        check(&fast, &cases);
    }
}

/// Every value of the two bytes that a datagram carries: among them those whose sum needs 0xffff in place of
/// zero, both ways.
#[test]
fn a_udp_checksum_is_never_the_one_that_says_none() {
    let test = "a_udp_checksum_is_never_the_one_that_says_none";
    let Some(fast) = open(test, &pools()) else { return };
    for side in [SIDES[1], SIDES[3]] {
        let pool = side.open(&fast);
        for word in (0..=u16::MAX).step_by(3) {
            let p = side.asked().payload(&word.to_be_bytes());
            let tried = fast.try_frame(&p.frame()).unwrap();
            assert_eq!(tried.frame, side.out(p, &pool).frame(), "{word}");
            let p = udp(side.backend, &pool).payload(&word.to_be_bytes());
            let tried = fast.try_frame(&p.frame()).unwrap();
            assert_eq!(tried.frame, p.from(side.vip).to(side.client).frame(), "{word}");
        }
    }
}

#[test]
fn errors_are_translated_with_what_they_quote_both_ways() {
    let test = "errors_are_translated_with_what_they_quote_both_ways";
    let Some(fast) = open(test, &pools()) else { return };
    for side in SIDES {
        let pool = side.open(&fast);
        let v4 = side.client == C4;
        let host = |end: &str| end.parse::<SocketAddr>().unwrap().ip().to_string();
        let router = if v4 { "10.5.0.1" } else { "fd05::1" };
        // The first bytes of the quoted packet only: nobody looks at its checksum.
        let says = |from: &str, about: Packet, kind: u8, code: u8| {
            let to = about.frame();
            let quoted = &to[14..14 + if v4 { 28 } else { 48 }];
            let mut check = quoted.to_vec();
            if side.is_udp() {
                // The checksum of UDP is among them.
                let at = check.len() - 2;
                check[at..].copy_from_slice(&[0xab, 0xcd]);
            }
            let back = SocketAddr::new(source_of(&to).ip(), 0).ip().to_string();
            icmp(from, &back, kind, code).rest([0, 0, 5, 0]).payload(&check)
        };
        let answered = (side.new)(side.vip, side.client).long(20);
        let answer = (side.new)(side.backend, &pool).long(20);
        let asked = side.asked().long(20);
        let sent = (side.new)(&pool, side.backend).long(20);
        let kinds: &[(u8, u8)] = if v4 {
            &[(3, 4), (3, 1), (11, 0), (12, 0)]
        } else {
            &[(2, 0), (1, 4), (3, 0), (4, 1)]
        };
        let mut cases: Vec<Case> = Vec::new();
        for &(kind, code) in kinds {
            // On the way to the client something is wrong with an answer.
            let p = says(router, answered.clone(), kind, code);
            let became = says(&host(&pool), answer.clone(), kind, code);
            let became = became.hop().macs(side.macs.0, side.macs.1);
            cases.push(("to the backend", p.clone(), side.sent(became)));
            cases.push(("no hop left", p.ttl(1), dropped(Drop::TimeToLive)));
            // On the way to the backend with a question.
            for from in [router, &host(side.backend)] {
                let p = says(from, sent.clone(), kind, code);
                let became = says(&host(side.vip), asked.clone(), kind, code);
                cases.push(("to the client", p, Changed(became)));
            }
        }
        let (kind, code) = kinds[0];
        let stranger = if v4 { "10.9.9.9:7" } else { "[fd09::99]:7" };
        let other = (side.new)(side.vip, stranger);
        cases.push(("about nobody's answer", says(router, other, kind, code), Pass));
        let other = (side.new)(&pool, stranger);
        cases.push(("about what was not sent", says(router, other, kind, code), Pass));
        check(&fast, &cases);
    }
}

#[test]
fn the_sender_is_told_what_does_not_fit() {
    let test = "the_sender_is_told_what_does_not_fit";
    let Some(fast) = open(test, &pools()) else { return };
    for side in SIDES {
        side.open(&fast);
        let p = side.asked().long(1500);
        let host = |end: &str| end.parse::<SocketAddr>().unwrap().ip().to_string();
        let (kind, code) = if side.client == C4 { (3, 4) } else { (2, 0) };
        let told = icmp(&host(side.vip), &host(side.client), kind, code)
            .rest([0, 0, 5, 0xdc])
            .payload(&p.frame()[14..14 + 128])
            .ttl(64)
            .id(0)
            .dont_fragment()
            .macs(ROUTER, NEAR);
        check(&fast, &[("too long", p, Transmit(told))]);
    }
}

#[test]
fn the_pieces_of_a_datagram_follow_the_first_one_both_ways() {
    let test = "the_pieces_of_a_datagram_follow_the_first_one_both_ways";
    let Some(fast) = open(test, &pools()) else { return };
    for side in [SIDES[1], SIDES[3]] {
        let pool = side.open(&fast);
        let mut cases: Vec<Case> = Vec::new();
        let p = side.asked().long(2000).id(7);
        let became = side.out(p.clone(), &pool);
        cases.push(("before the first", p.pieces(808)[1].clone(), Pass));
        for (piece, became) in p.pieces(808).into_iter().zip(became.pieces(808)) {
            cases.push(("a piece", piece, side.sent(became)));
        }
        let p = udp(side.backend, &pool).long(2000).id(7);
        let became = p.clone().from(side.vip).to(side.client);
        cases.push(("before the first", p.pieces(808)[1].clone(), Pass));
        for (piece, became) in p.pieces(808).into_iter().zip(became.pieces(808)) {
            cases.push(("a piece of an answer", piece, Changed(became)));
        }
        check(&fast, &cases);
    }
}

#[test]
fn a_connection_that_is_not_known_is_the_kernels_to_reset() {
    let test = "a_connection_that_is_not_known_is_the_kernels_to_reset";
    let Some(fast) = open(test, &pools()) else { return };
    let mut cases: Vec<Case> = Vec::new();
    for flags in [ACK, SYN | ACK, FIN | ACK, RST, 0] {
        for side in [SIDES[0], SIDES[2]] {
            cases.push(("in the middle", side.asked().flags(flags).long(9), Pass));
        }
    }
    check(&fast, &cases);
    let pool = SIDES[0].open(&fast);
    let p = SIDES[0].asked().long(9);
    check(&fast, &[("then it is", p.clone(), Transmit(SIDES[0].out(p, &pool)))]);
}

const VIP: &str = "10.0.0.106:80";
const ALL_PORTS: usize = (PORT_LAST - PORT_FIRST + 1) as usize;

#[test]
fn no_two_flows_share_a_port_and_what_finds_none_is_dropped_and_counted() {
    let test = "no_two_flows_share_a_port_and_what_finds_none_is_dropped_and_counted";
    let Some(mut fast) = open(test, &one()) else { return };
    let probe = fast.probe().unwrap();
    let many = 40_000;
    let found: Vec<_> = (0..many).map(|n| port_of(&probe, &tcp(&client(n), VIP).syn())).collect();
    let ports: BTreeSet<_> = found.iter().flatten().collect();
    let given = found.iter().flatten().count();
    assert_eq!(ports.len(), given, "some port was given twice");
    assert!(ports.iter().all(|p| (PORT_FIRST..=PORT_LAST).contains(&p.port())));
    assert_eq!(fast.dropped()[&Drop::NoPort], u64::from(many) - given as u64);
    // Nearly all are used, and no flow is dropped before most are.
    assert!(given > ALL_PORTS * 99 / 100, "{given} of {ALL_PORTS}");
    let first = found.iter().position(Option::is_none).unwrap();
    assert!(first > ALL_PORTS * 6 / 10, "{first}");
    // Whoever has one keeps it.
    for n in (0..many).step_by(101) {
        let again = port_of(&probe, &tcp(&client(n), VIP).syn());
        assert_eq!(again, found[n as usize], "{n}");
    }
}

#[test]
fn flows_that_begin_at_the_same_time_never_share_a_port() {
    let test = "flows_that_begin_at_the_same_time_never_share_a_port";
    let Some(mut fast) = open(test, &one()) else { return };
    let probes = [fast.probe().unwrap(), fast.probe().unwrap()];
    let found: Vec<Vec<_>> = thread::scope(|scope| {
        let all = probes.iter().zip(0..).map(|(probe, at)| {
            scope.spawn(move || {
                let opened = (0..18_000).map(|n| tcp(&client(2 * n + at), VIP).syn());
                opened.map(|packet| port_of(probe, &packet)).collect()
            })
        });
        let all: Vec<_> = all.collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let given: Vec<_> = found.iter().flatten().flatten().collect();
    let ports: BTreeSet<_> = given.iter().collect();
    assert_eq!(ports.len(), given.len(), "some port was given twice");
    assert!(given.len() > ALL_PORTS * 9 / 10, "{}", given.len());
    // Both directions of a flow at once: no packet of either is lost or goes astray.
    let client = client(0);
    let pool = found[0][0].unwrap().to_string();
    let mut ticks = 0;
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let p = tcp(&client, VIP).long(9);
            let wanted = SIDES[0].out(p.clone(), &pool).frame();
            (0..20_000).all(|_| probes[0].try_frame(&p.frame()).unwrap().frame == wanted)
        });
        let answering = scope.spawn(|| {
            let p = tcp(SIDES[0].backend, &pool).long(9);
            let wanted = p.clone().from(VIP).to(&client).frame();
            (0..20_000).all(|_| probes[1].try_frame(&p.frame()).unwrap().frame == wanted)
        });
        while !asking.is_finished() || !answering.is_finished() {
            ticks += 1;
            fast.tick(ticks);
        }
        assert!(asking.join().unwrap() && answering.join().unwrap());
    });
}

/// Takes every port that is free: as many as flows find among all that are tried.
fn flood(probe: &Probe, packet: fn(&str, &str) -> Packet, round: u32) -> BTreeSet<SocketAddr> {
    let clients = (0..70_000).map(|n| client(round * 100_000 + n));
    clients.filter_map(|client| port_of(probe, &packet(&client, VIP).syn_of_tcp())).collect()
}

#[test]
fn a_port_stays_with_its_flow_as_long_as_is_said_and_is_free_then() {
    let test = "a_port_stays_with_its_flow_as_long_as_is_said_and_is_free_then";
    let Some(mut fast) = open(test, &one()) else { return };
    let probe = fast.probe().unwrap();
    let flow = |n: u32| client(1_500_000 + n);
    let asked = |n, flags| tcp(&flow(n), VIP).flags(flags);
    let mut pools = Vec::new();
    // 0: only opened. 1: established. 2: ended by both. 3: ended by the client. 4: reset.
    for n in 0..5 {
        let pool = port_of(&probe, &asked(n, SYN)).unwrap();
        let answers = |flags| tcp(SIDES[0].backend, &pool.to_string()).flags(flags);
        if n != 0 {
            probe.try_frame(&answers(SYN | ACK).frame()).unwrap();
            assert_eq!(port_of(&probe, &asked(n, ACK)), Some(pool));
        }
        if n == 2 || n == 3 {
            assert_eq!(port_of(&probe, &asked(n, FIN | ACK)), Some(pool));
        }
        if n == 2 {
            probe.try_frame(&answers(FIN | ACK).frame()).unwrap();
        }
        if n == 4 {
            probe.try_frame(&answers(RST).frame()).unwrap();
        }
        pools.push(pool);
    }
    let taken_of = |fast: &mut Fast, seconds: u64, round, of: &[usize]| {
        fast.tick(seconds);
        let taken = flood(&probe, tcp, round);
        of.iter().copied().filter(|&n| taken.contains(&pools[n])).collect::<Vec<_>>()
    };
    assert_eq!(TCP_OPENING_SECONDS, TCP_OVER_SECONDS);
    let all = [0, 1, 2, 3, 4];
    assert_eq!(taken_of(&mut fast, TCP_OPENING_SECONDS, 0, &all), []);
    assert_eq!(taken_of(&mut fast, TCP_OPENING_SECONDS + 1, 1, &all), [0, 2, 4]);
    assert_eq!(taken_of(&mut fast, TCP_SECONDS, 2, &[1, 3]), []);
    // One that speaks in time stays, from either side.
    assert_eq!(port_of(&probe, &asked(1, ACK)), Some(pools[1]));
    assert_eq!(taken_of(&mut fast, TCP_SECONDS + 1, 3, &[1, 3]), [3]);
    fast.tick(2 * TCP_SECONDS);
    probe.try_frame(&tcp(SIDES[0].backend, &pools[1].to_string()).frame()).unwrap();
    assert_eq!(taken_of(&mut fast, 3 * TCP_SECONDS, 4, &[1]), []);
    assert_eq!(taken_of(&mut fast, 3 * TCP_SECONDS + 1, 5, &[1]), [1]);
    check(&fast, &[("gone", tcp(&flow(1), VIP), Pass)]);
}

#[test]
fn a_port_of_udp_stays_longer_when_it_was_answered() {
    let test = "a_port_of_udp_stays_longer_when_it_was_answered";
    let mut path = one();
    path.services[0].protocol = Protocol::Udp;
    let Some(mut fast) = open(test, &path) else { return };
    let probe = fast.probe().unwrap();
    let flow = |n: u32| client(1_500_000 + n);
    let pools = [0, 1].map(|n| port_of(&probe, &udp(&flow(n), VIP)).unwrap());
    probe.try_frame(&udp(SIDES[0].backend, &pools[1].to_string()).frame()).unwrap();
    let taken_at = |fast: &mut Fast, seconds: u64, round| {
        fast.tick(seconds);
        let taken = flood(&probe, udp, round);
        pools.map(|pool| taken.contains(&pool))
    };
    assert_eq!(taken_at(&mut fast, UDP_OPENING_SECONDS, 0), [false, false]);
    assert_eq!(taken_at(&mut fast, UDP_OPENING_SECONDS + 1, 1), [true, false]);
    assert_eq!(taken_at(&mut fast, UDP_SECONDS, 2), [false, false]);
    assert!(taken_at(&mut fast, UDP_SECONDS + 1, 3)[1]);
}

/// A run begins to count anew, and what the one before remembers is not older for that.
#[test]
fn time_goes_on_in_the_next_run_and_in_one_with_more_room() {
    let test = "time_goes_on_in_the_next_run_and_in_one_with_more_room";
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        eprintln!("SKIPPED: {test}: no network namespace");
        return;
    }
    let path = one();
    let Some(mut fast) = world::permitted(test, Fast::open(Capacity::of(&path))) else { return };
    fast.apply(&path, &mut way).unwrap();
    fast.tick(5000);
    let pool = SIDES[0].open(&fast);
    fast.try_frame(&tcp(SIDES[0].backend, &pool).flags(SYN | ACK).frame()).unwrap();
    fast.try_frame(&tcp(C4, VIP).frame()).unwrap();
    for (round, pools) in [(0, 1), (1, 1), (2, 2)] {
        drop(fast);
        fast = Fast::open(Capacity { pools, ..Capacity::of(&path) }).unwrap();
        fast.apply(&path, &mut way).unwrap();
        for seconds in [700, 700 + TCP_SECONDS / 4] {
            fast.tick(seconds);
            let taken = flood(&fast.probe().unwrap(), tcp, 2 * round + u32::from(seconds > 700));
            // At first all ports are of the flood before.
            assert!(seconds == 700 || taken.len() > 1000, "{}", taken.len());
            assert!(!taken.contains(&pool.parse().unwrap()), "{round} {seconds}");
        }
    }
    fast.tick(700 + 2 * TCP_SECONDS);
    assert!(flood(&fast.probe().unwrap(), tcp, 9).contains(&pool.parse().unwrap()));
    fast.detach();
}

#[test]
fn a_flow_keeps_its_backend_while_that_is_there_and_its_port_longer() {
    let test = "a_flow_keeps_its_backend_while_that_is_there_and_its_port_longer";
    let mut path = one();
    let backends = ["10.0.0.36:8080", "10.0.0.35:8080"];
    path.services =
        vec![pooled(Protocol::Tcp, "10.0.0.106", 80, &backends, &["10.0.0.50", "10.0.0.51"])];
    let to = |path: &FastPath, at: u16| {
        let mut path = path.clone();
        path.services[0].slots = [Slot { current: at, previous: at }; 64].into();
        path
    };
    let Some(mut fast) = open(test, &to(&path, 0)) else { return };
    let pool = SIDES[0].open(&fast);
    let goes = |packet: Packet, last: u8| {
        let backend = format!("10.0.0.{last}:8080");
        let became = packet.clone().from(&pool).to(&backend).hop().macs(mac_of(last), LOOPBACK_MAC);
        ("to its backend", packet, Transmit(became))
    };
    let data = || tcp(C4, VIP).long(9);
    // Its slot is another's, and it stays, also where its opening comes once more.
    fast.apply(&to(&path, 1), &mut way).unwrap();
    check(&fast, &[goes(data(), 36), goes(tcp(C4, VIP).syn(), 36)]);
    let answer = tcp("10.0.0.36:8080", &pool);
    check(&fast, &[("an answer", answer.clone(), Changed(answer.from(VIP).to(C4)))]);
    // When it is over, the same port opens another.
    let over = tcp("10.0.0.36:8080", &pool).flags(RST | ACK);
    check(&fast, &[("a reset", over.clone(), Changed(over.from(VIP).to(C4)))]);
    check(&fast, &[goes(data(), 36), goes(tcp(C4, VIP).syn(), 35), goes(data(), 35)]);
    check(&fast, &[("of the one before", tcp("10.0.0.36:8080", &pool), Pass)]);
    // Its backend is down: it goes where its slot says, and is reset there.
    let mut down = to(&path, 0);
    Arc::make_mut(&mut down.services[0].backends)[1].address = "0.0.0.0:0".parse().unwrap();
    fast.apply(&down, &mut way).unwrap();
    check(&fast, &[goes(data(), 36)]);
    // And nobody is there.
    Arc::make_mut(&mut down.services[0].backends)[0].address = "0.0.0.0:0".parse().unwrap();
    down.services[0].slots = [].into();
    fast.apply(&down, &mut way).unwrap();
    check(&fast, &[("nobody", data(), dropped(Drop::NoBackend))]);
    // A service that changes in all but its pool keeps its flows.
    let mut limited = to(&path, 0);
    limited.services[0].sources = world::sources(&["10.9.0.0/16"]);
    fast.apply(&limited, &mut way).unwrap();
    check(&fast, &[goes(data(), 36)]);
    check(&fast, &[("refused", tcp("10.8.0.1:9", VIP).syn(), dropped(Drop::Source))]);
}

#[test]
fn ports_of_services_are_given_to_no_flow() {
    let test = "ports_of_services_are_given_to_no_flow";
    let mut path = one();
    path.services.push(service(
        Protocol::Tcp,
        "10.0.0.50",
        (1000, 30_000),
        Forward::Dsr,
        &["10.0.0.11:0"],
    ));
    let Some(mut fast) = open(test, &path) else { return };
    let probe = fast.probe().unwrap();
    let flows = |from: u32| {
        let found =
            (from..from + 2000).filter_map(|n| port_of(&probe, &tcp(&client(n), VIP).syn()));
        found.map(|pool| pool.port()).collect::<BTreeSet<u16>>()
    };
    let ports = flows(0);
    assert!(!ports.is_empty() && ports.iter().all(|&port| port > 30_000));
    // They are free when it goes, and not any more when it comes again.
    let with = path.clone();
    path.services.pop();
    fast.apply(&path, &mut way).unwrap();
    let ports = flows(10_000);
    assert!(ports.iter().filter(|&&port| port <= 30_000).count() > 1000);
    fast.apply(&with, &mut way).unwrap();
    assert!(flows(20_000).iter().all(|&port| port > 30_000));
}

#[test]
fn another_pool_takes_the_place_of_one_that_is_not_wanted_any_more() {
    let test = "another_pool_takes_the_place_of_one_that_is_not_wanted_any_more";
    let Some(mut fast) = open(test, &one()) else { return };
    let before = SIDES[0].open(&fast);
    let mut other = one();
    other.services[0].pool = [ip("10.0.0.51")].into();
    fast.apply(&other, &mut way).unwrap();
    assert_eq!(fast.path(), other);
    check(&fast, &[("its port is gone", tcp(C4, VIP), Pass)]);
    check(&fast, &[("an answer to it", tcp(SIDES[0].backend, &before), Pass)]);
    assert!(SIDES[0].open(&fast).starts_with("10.0.0.51:"));
    // More than there was room for takes another run.
    other.services[0].pool = [ip("10.0.0.51"), ip("10.0.0.52")].into();
    assert!(fast.apply(&other, &mut way).unwrap_err().to_string().contains("more room"));
    check(
        &fast,
        &[("of an answer", tcp(SIDES[0].client, VIP).flags(ACK), {
            let p = tcp(C4, VIP);
            let pool = SIDES[0].open(&fast);
            Transmit(SIDES[0].out(p, &pool))
        })],
    );
}

#[test]
fn pools_that_cannot_be_are_refused() {
    let test = "pools_that_cannot_be_are_refused";
    let Some(mut fast) = open(test, &one()) else { return };
    let mut refused = |change: &dyn Fn(&mut FastPath), why: &str| {
        let mut path = one();
        change(&mut path);
        let said = fast.apply(&path, &mut way).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    };
    refused(&|p| p.services[0].forward = Forward::Dsr, "only what is translated");
    refused(&|p| p.services[0].pool = [ip("fd00::50")].into(), "the other family");
    refused(&|p| p.services[0].pool = [ip("10.0.0.50"); 2].into(), "twice");
    let many = (1..10).map(|n| ip(&format!("10.0.3.{n}"))).collect::<Vec<_>>();
    refused(&|p| p.services[0].pool = many.clone().into(), "too many addresses");
    let all = service(Protocol::Tcp, "10.0.0.50", (0, 65_535), Forward::Dsr, &["10.0.0.11:0"]);
    refused(&|p| p.services.push(all.clone()), "has all ports");
}
