//! Whose the packets are that are dropped: each is counted for its service and, where it had one, for its backend.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod cases;
mod packets;
mod pools;
mod watched;
mod world;

use buoy_kernel::fast::{Capacity, Fast, Key, Losses};
use buoy_model::{FastPath, FlowFields, Forward, Protocol, Slot};
use buoy_xdp::forward::{Drop, LOST_MIN};
use cases::{C4, C6};
use packets::{Packet, icmp, tcp, udp};
use pools::{one, pooled};
use std::net::SocketAddr;
use std::sync::Arc;
use watched::open_pinned;
use world::{hourly, open, path, service, sources, way};

/// What is counted of a packet: the service, the backend, why.
type Loss = (Key, Option<SocketAddr>, Drop);
type Case = (&'static str, Packet, Option<Loss>);

fn key(vip: &str, protocol: Protocol) -> Key {
    let vip: SocketAddr = vip.parse().unwrap();
    Key { address: vip.ip(), protocol, ports: (vip.port(), vip.port()) }
}

fn of_service(vip: &str, protocol: Protocol, reason: Drop) -> Option<Loss> {
    Some((key(vip, protocol), None, reason))
}

fn of_backend(vip: &str, protocol: Protocol, backend: &str, reason: Drop) -> Option<Loss> {
    Some((key(vip, protocol), Some(backend.parse().unwrap()), reason))
}

fn add(to: &mut Losses, (key, backend, reason): Loss, count: u64) {
    *to.services.entry(key).or_default().entry(reason).or_default() += count;
    if let Some(backend) = backend {
        let counts = to.backends.entry((key, backend)).or_default();
        *counts.entry(reason).or_default() += count;
    }
}

/// Each packet is counted as it is said to be, and nothing else is.
fn check(fast: &Fast, cases: &[Case]) {
    for (name, packet, loss) in cases {
        let mut wanted = fast.counters().lost;
        fast.try_frame(&packet.frame()).unwrap();
        if let Some(loss) = *loss {
            add(&mut wanted, loss, 1);
        }
        assert_eq!(fast.counters().lost, wanted, "{name}");
    }
}

/// The services of the other tests, and of each kind some that nobody gets a packet of.
fn lossy() -> FastPath {
    use Forward::{Dsr, Nat, Tunnel};
    use Protocol::{Tcp, Udp};
    let one = |port| (port, port);
    let mut path = path();
    let mut denied = service(Tcp, "10.0.0.107", one(80), Dsr, &["10.0.0.11:0"]);
    denied.sources = sources(&["!10.9.0.0/24"]);
    let mut limited = service(Tcp, "10.0.0.107", one(81), Dsr, &["10.0.0.11:0"]);
    limited.new_connections = hourly(1);
    let mut moves = service(Tcp, "10.0.0.107", one(82), Dsr, &["10.0.0.99:0", "10.0.0.11:0"]);
    moves.slots = [Slot { current: 0, previous: 1 }; 64].into();
    let mut apart = service(Tcp, "10.0.0.107", one(83), Dsr, &["10.0.0.99:0"]);
    apart.flow = FlowFields::Client;
    apart.stick = Some(std::time::Duration::from_secs(60));
    let mut nobody = service(Udp, "fd00::107", one(53), Nat, &["[fd00::31]:53"]);
    nobody.slots = [Slot { current: Slot::NOBODY, previous: Slot::NOBODY }; 64].into();
    let mut nobody_pooled = pooled(Tcp, "10.0.0.107", 85, &["10.0.0.36:80"], &["10.0.0.50"]);
    nobody_pooled.slots = [Slot { current: Slot::NOBODY, previous: Slot::NOBODY }; 64].into();
    path.services.extend([
        denied,
        limited,
        moves,
        apart,
        nobody,
        nobody_pooled,
        pooled(Tcp, "10.0.0.107", 84, &["10.0.0.99:8080"], &["10.0.0.50"]),
        pooled(Tcp, "10.0.0.107", 86, &["10.0.0.36:80"], &["10.0.0.50"]),
        service(Tcp, "fd00::107", one(80), Tunnel, &["10.0.0.99:0"]),
    ]);
    path
}

#[test]
fn what_is_dropped_is_counted_for_its_service_and_its_backend_by_reason() {
    let test = "what_is_dropped_is_counted_for_its_service_and_its_backend_by_reason";
    let Some(fast) = open(test, &lossy()) else { return };
    assert_eq!(fast.counters().lost, Losses::default());
    let (t, u) = (Protocol::Tcp, Protocol::Udp);
    let options = |packet: Packet| packet.options(&[1; 4]);
    let one = of_service("10.0.0.103:80", t, Drop::NoBackend);
    let far = of_backend("10.0.0.103:81", t, "10.0.0.99:0", Drop::NoNeighbour);
    let nat = of_backend("10.0.0.101:80", t, "10.0.0.31:8080", Drop::TimeToLive);
    let source = of_service("10.0.0.107:80", t, Drop::Source);
    let apart = of_backend("10.0.0.107:83", t, "10.0.0.99:0", Drop::NoNeighbour);
    let pool = of_backend("10.0.0.107:84", t, "10.0.0.99:8080", Drop::NoNeighbour);
    let big = of_backend("10.0.0.100:80", t, "10.0.0.11:0", Drop::TooBig);
    let limit = of_service("10.0.0.107:81", t, Drop::Limit);
    let complaint = icmp("10.5.0.1", "10.0.0.103", 3, 4).rest([0, 0, 5, 0]);
    let about = tcp("10.0.0.103:81", C4).long(20).frame();
    let cases: Vec<Case> = vec![
        ("nobody", tcp(C4, "10.0.0.103:80"), one),
        ("nobody, and options", options(tcp(C4, "10.0.0.103:80")), one),
        ("nobody in its slot", udp(C6, "[fd00::107]:53"), {
            of_service("[fd00::107]:53", u, Drop::NoBackend)
        }),
        ("no neighbour", tcp(C4, "10.0.0.103:81"), far),
        ("no neighbour, and options", options(tcp(C4, "10.0.0.103:81")), far),
        ("no neighbour, of an error", complaint.payload(&about[14..]), far),
        ("no neighbour, in a VLAN", tcp(C4, "10.0.0.103:81").vlan(0, 3), far),
        ("no neighbour, of a tunnel", tcp(C6, "[fd00::107]:80"), {
            of_backend("[fd00::107]:80", t, "10.0.0.99:0", Drop::NoNeighbour)
        }),
        ("no neighbour, in a slot that moves", tcp(C4, "10.0.0.107:82").syn(), {
            of_backend("10.0.0.107:82", t, "10.0.0.99:0", Drop::NoNeighbour)
        }),
        ("no neighbour, apart", tcp(C4, "10.0.0.107:83").syn(), apart),
        ("no neighbour, out of a pool", tcp(C4, "10.0.0.107:84").syn(), pool),
        ("nobody, out of a pool", tcp(C4, "10.0.0.107:85").syn(), {
            of_service("10.0.0.107:85", t, Drop::NoBackend)
        }),
        ("no hop left, translated", tcp(C4, "10.0.0.101:80").ttl(1), nat),
        ("no hop left, translated, and options", options(tcp(C4, "10.0.0.101:80").ttl(1)), nat),
        ("no hop left, translated, of IPv6", udp(C6, "[fd00::101]:53").ttl(1), {
            of_backend("[fd00::101]:53", u, "[fd00:2::32]:5353", Drop::TimeToLive)
        }),
        ("no hop left, into a tunnel", tcp(C4, "10.0.0.100:443").ttl(1), {
            of_backend("10.0.0.100:443", t, "10.0.2.21:0", Drop::TimeToLive)
        }),
        ("no hop left, out of a pool", tcp(C4, "10.0.0.107:86").syn().ttl(1), {
            of_backend("10.0.0.107:86", t, "10.0.0.36:80", Drop::TimeToLive)
        }),
        ("too big", tcp(C4, "10.0.0.100:80").long(1480), big),
        ("too big, with a tunnel around it", tcp(C6, "[fd00::100]:443").long(1430), {
            of_backend("[fd00::100]:443", t, "[fd00:2::21]:0", Drop::TooBig)
        }),
        ("not for this client", tcp(C4, "10.0.0.107:80"), source),
        ("not for this client, and options", options(tcp(C4, "10.0.0.107:80")), source),
        ("the first", tcp(C4, "10.0.0.107:81").syn(), None),
        ("one more than may be", tcp(C4, "10.0.0.107:81").syn(), limit),
        ("one more, and options", options(tcp(C4, "10.0.0.107:81").syn()), limit),
        // It may be for any.
        ("malformed", tcp(C4, "10.0.0.100:80").poke(46, &[0x40]), None),
        ("well", tcp(C4, "10.0.0.100:80"), None),
        ("not ours", tcp(C4, "10.0.0.200:80"), None),
    ];
    check(&fast, &cases);
    let counters = fast.counters();
    let lost: u64 = counters.lost.services.values().flat_map(|by| by.values()).sum();
    let dropped: u64 = counters.dropped.values().sum();
    assert_eq!((lost, dropped), (cases.len() as u64 - 4, cases.len() as u64 - 3));
}

/// A later piece has no port: nobody knows which service has refused the first one.
#[test]
fn a_later_piece_is_counted_for_the_backend_that_its_first_one_went_to() {
    let test = "a_later_piece_is_counted_for_the_backend_that_its_first_one_went_to";
    let Some(fast) = open(test, &lossy()) else { return };
    let far = of_backend("10.0.0.103:81", Protocol::Tcp, "10.0.0.99:0", Drop::NoNeighbour);
    let whole = tcp(C4, "10.0.0.103:81").long(400).id(7);
    let cases: Vec<Case> =
        whole.pieces(200).into_iter().map(|piece| ("a piece", piece, far)).collect();
    assert!(cases.len() > 1);
    check(&fast, &cases);
    let mut pieces = tcp(C4, "10.0.0.107:80").long(400).id(8).pieces(200).into_iter();
    let first = of_service("10.0.0.107:80", Protocol::Tcp, Drop::Source);
    let later = pieces.clone().skip(1).map(|piece| ("refused, and after it", piece, None));
    let cases: Vec<Case> =
        pieces.by_ref().take(1).map(|piece| ("refused", piece, first)).chain(later).collect();
    check(&fast, &cases);
}

#[test]
fn a_flow_that_finds_no_port_is_counted_for_the_backend_that_it_would_have_had() {
    let test = "a_flow_that_finds_no_port_is_counted_for_the_backend_that_it_would_have_had";
    let Some(fast) = open(test, &one()) else { return };
    for n in 0..34_000 {
        fast.try_frame(&tcp(&pools::client(n), "10.0.0.106:80").syn().frame()).unwrap();
    }
    let counters = fast.counters();
    let dropped = counters.dropped[&Drop::NoPort];
    assert!(dropped > 0);
    let mut wanted = Losses::default();
    let loss = of_backend("10.0.0.106:80", Protocol::Tcp, "10.0.0.36:8080", Drop::NoPort);
    add(&mut wanted, loss.unwrap(), dropped);
    assert_eq!(counters.lost, wanted);
}

/// Another service comes to the places that a changed one had, and has lost nothing.
#[test]
fn what_was_counted_stays_with_a_service_and_comes_to_no_other() {
    let test = "what_was_counted_stays_with_a_service_and_comes_to_no_other";
    let Some(mut fast) = open(test, &path()) else { return };
    let mut wanted = Losses::default();
    let far = of_backend("10.0.0.103:81", Protocol::Tcp, "10.0.0.99:0", Drop::NoNeighbour).unwrap();
    let nobody = of_service("10.0.0.103:80", Protocol::Tcp, Drop::NoBackend).unwrap();
    let lose = |fast: &Fast, wanted: &mut Losses| {
        for (vip, loss) in [("10.0.0.103:81", far), ("10.0.0.103:80", nobody)] {
            fast.try_frame(&tcp(C4, vip).frame()).unwrap();
            add(wanted, loss, 1);
        }
        assert_eq!(fast.counters().lost, *wanted);
    };
    lose(&fast, &mut wanted);
    for round in 0..3 {
        // Elsewhere in the maps each time, where others were before.
        let mut other = path();
        for service in &mut other.services {
            let more = if round % 2 == 0 { "10.0.0.77:0" } else { "10.0.0.78:0" };
            if service.address.is_ipv4() && !service.backends.is_empty() {
                let mut backends = service.backends.to_vec();
                backends.push(buoy_model::FastBackend::new(more.parse().unwrap()));
                service.backends = backends.into();
            }
        }
        for path in [other, path()] {
            fast.apply(&path, &mut way).unwrap();
            assert_eq!(fast.counters().lost, wanted);
            lose(&fast, &mut wanted);
        }
    }
}

#[test]
fn what_was_counted_is_there_after_another_run_has_taken_over() {
    let test = "what_was_counted_is_there_after_another_run_has_taken_over";
    let Some(fast) = open_pinned(test, &path()) else { return };
    fast.try_frame(&tcp(C4, "10.0.0.103:81").frame()).unwrap();
    fast.try_frame(&tcp(C4, "10.0.0.103:80").frame()).unwrap();
    let lost = fast.counters().lost;
    assert_eq!((lost.services.len(), lost.backends.len()), (2, 1));
    std::mem::drop(fast);
    let mut again = Fast::open(Capacity::LEAST).unwrap();
    assert_eq!(again.counters().lost, lost);
    again.apply(&path(), &mut way).unwrap();
    assert_eq!(again.counters().lost, lost);
    again.detach();
}

/// What does not fit into the map of whose they were is still dropped, and counted for the host.
#[test]
fn more_losers_than_there_is_room_for_are_counted_for_the_host_alone() {
    let test = "more_losers_than_there_is_room_for_are_counted_for_the_host_alone";
    let count = 5000;
    assert!(LOST_MIN < count);
    let none = service(Protocol::Tcp, "10.0.0.103", (80, 80), Forward::Dsr, &[]);
    let with_port = |n: u32| {
        let port = 1000 + n as u16;
        let mut service = none.clone();
        (service.ports, service.slots) = ((port, port), Arc::clone(&none.slots));
        service
    };
    let path = FastPath { seed: 1, services: (0..count).map(with_port).collect() };
    let Some(fast) = open(test, &path) else { return };
    for n in 0..count {
        fast.try_frame(&tcp(C4, &format!("10.0.0.103:{}", 1000 + n)).frame()).unwrap();
    }
    let counters = fast.counters();
    assert_eq!(counters.dropped[&Drop::NoBackend], u64::from(count));
    assert_eq!(counters.lost.services.len(), LOST_MIN as usize);
}
