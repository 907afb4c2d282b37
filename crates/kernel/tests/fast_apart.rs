//! Services where more than a slot decides who gets a packet: networks of clients, clients that come back, datagrams
//! that name their server, and what becomes of connections of who is down.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod cases;
mod packets;
mod world;

use buoy_kernel::fast::{Fast, Verdict};
use buoy_model::{
    FastPath, FlowFields, Forward, Prefixes, Protocol, Quic, ServerId, Slot, Standing,
};
use buoy_xdp::forward::Drop;
use cases::{Case, check, dropped, near};
use packets::{Packet, icmp, tcp, udp};
use std::sync::Arc;
use std::time::Duration;
use world::{open, service, way};

const VIP: &str = "10.0.0.100:443";
const BACKENDS: [&str; 3] = ["10.0.0.11:0", "10.0.0.12:0", "10.0.0.13:0"];
const V6: [&str; 3] = ["[fd00::11]:0", "[fd00::12]:0", "[fd00::13]:0"];

fn one(protocol: Protocol, flow: FlowFields, stick: Option<u64>) -> FastPath {
    let mut service = service(protocol, "10.0.0.100", (443, 443), Forward::Dsr, &BACKENDS);
    (service.flow, service.stick) = (flow, stick.map(Duration::from_secs));
    FastPath { seed: 5, services: vec![service] }
}

/// All slots from one backend to another.
fn between(path: &FastPath, previous: u16, current: u16) -> FastPath {
    let mut path = path.clone();
    path.services[0].slots = vec![Slot { current, previous }; 64].into();
    path
}

fn bits(v4: u8, v6: u8) -> FlowFields {
    FlowFields::of_prefixes(Prefixes::new(v4, v6).unwrap())
}

/// Which backend gets it, by the last byte of its Ethernet address.
fn taker(fast: &Fast, packet: &Packet) -> u8 {
    let tried = fast.try_frame(&packet.frame()).unwrap();
    assert_eq!(tried.verdict, Verdict::Transmit);
    tried.frame[5]
}

fn syn(from: &str) -> Packet {
    tcp(from, VIP).syn()
}

#[test]
fn all_clients_of_a_network_go_to_one_backend() {
    let test = "all_clients_of_a_network_go_to_one_backend";
    let mut path = one(Protocol::Tcp, bits(24, 128), None);
    let mut v6 = service(Protocol::Tcp, "fd00::100", (443, 443), Forward::Dsr, &V6);
    v6.flow = bits(32, 60);
    path.services.push(v6);
    let Some(fast) = open(test, &path) else { return };
    assert_eq!(fast.path(), path);
    let takers = |at: &dyn Fn(u32) -> String, vip: &str| -> Vec<u8> {
        (0..64).map(|n| taker(&fast, &tcp(&at(n), vip).syn())).collect()
    };
    let is_one = |list: Vec<u8>| list.iter().all(|taker| *taker == list[0]);
    for net in 0..20 {
        assert!(is_one(takers(&|n| format!("10.9.{net}.{}:{}", n * 3, 1000 + n), VIP)));
        let host = |n: u32| format!("[fd09:0:0:{net:x}{:x}::{n:x}]:{}", n % 16, 1000 + n);
        assert!(is_one(takers(&host, "[fd00::100]:443")));
    }
    assert!(!is_one(takers(&|n| format!("10.9.{n}.1:1000"), VIP)));
    assert!(!is_one(takers(&|n| format!("[fd09:0:0:{n:x}0::1]:1000"), "[fd00::100]:443")));
}

#[test]
fn a_client_that_comes_again_in_time_gets_the_backend_it_had() {
    let test = "a_client_that_comes_again_in_time_gets_the_backend_it_had";
    for (protocol, packet) in
        [(Protocol::Tcp, syn as fn(&str) -> Packet), (Protocol::Udp, |from: &str| udp(from, VIP))]
    {
        let path = one(protocol, bits(24, 128), Some(60));
        let Some(mut fast) = open(test, &between(&path, 0, 0)) else { return };
        fast.tick(100);
        assert_eq!(taker(&fast, &packet("10.9.0.1:1000")), 11);
        // Another has the slot: who is known stays, from any port and address of its network.
        fast.apply(&between(&path, 1, 1), &mut way).unwrap();
        assert_eq!(fast.path(), between(&path, 1, 1));
        for from in ["10.9.0.1:1000", "10.9.0.1:1001", "10.9.0.77:5"] {
            assert_eq!(taker(&fast, &packet(from)), 11, "{from}");
        }
        assert_eq!(taker(&fast, &packet("10.9.1.1:1000")), 12);
        // Each time counts anew, and who does not come for longer is as anybody else.
        for seconds in [159, 218] {
            fast.tick(seconds);
            assert_eq!(taker(&fast, &packet("10.9.0.1:1002")), 11);
        }
        fast.tick(218 + 68);
        assert_eq!(taker(&fast, &packet("10.9.0.1:1003")), 12);
        // Who is drained keeps its clients, who is down does not, and its return changes nothing.
        fast.apply(&between(&path, 2, 2), &mut way).unwrap();
        assert_eq!(taker(&fast, &packet("10.9.0.1:1004")), 12);
        for standing in [Standing::Down, Standing::Keeps, Standing::Up] {
            let mut path = between(&path, 2, 2);
            Arc::make_mut(&mut path.services[0].backends)[1].standing = standing;
            fast.apply(&path, &mut way).unwrap();
            assert_eq!(fast.path(), path);
            assert_eq!(taker(&fast, &packet("10.9.0.1:1005")), 13, "{standing:?}");
        }
    }
}

#[test]
fn connections_stay_where_they_are_whatever_their_client_gets_next() {
    let test = "connections_stay_where_they_are_whatever_their_client_gets_next";
    let path = one(Protocol::Tcp, FlowFields::Client, Some(60));
    let Some(mut fast) = open(test, &between(&path, 0, 0)) else { return };
    fast.tick(100);
    let (first, second, third) = ("10.9.0.1:1", "10.9.0.1:2", "10.9.0.1:3");
    assert_eq!(taker(&fast, &syn(first)), 11);
    assert_eq!(taker(&fast, &tcp(first, VIP)), 11);
    // Its backend is down and keeps what it has: the client's next connection goes elsewhere.
    let mut down = between(&path, 0, 1);
    Arc::make_mut(&mut down.services[0].backends)[0].standing = Standing::Keeps;
    fast.apply(&down, &mut way).unwrap();
    assert_eq!(taker(&fast, &syn(second)), 12);
    for (flow, wanted) in [(first, 11), (second, 12)] {
        assert_eq!(taker(&fast, &tcp(flow, VIP)), wanted, "{flow}");
    }
    // It is back, and has the slot: all three stay.
    fast.apply(&between(&path, Slot::REMEMBERED, 0), &mut way).unwrap();
    assert_eq!(taker(&fast, &syn(third)), 12);
    for (flow, wanted) in [(first, 11), (second, 12), (third, 12)] {
        assert_eq!(taker(&fast, &tcp(flow, VIP)), wanted, "{flow}");
    }
    // An error about an answer goes where the connection is.
    let about = tcp(VIP, third).payload(&[0; 8]).frame()[14..].to_vec();
    let error = icmp("10.5.0.1", "10.0.0.100", 3, 1).payload(&about);
    assert_eq!(taker(&fast, &error), 12);
    // A connection that is silent for longer than clients are known goes on.
    fast.apply(&between(&path, 0, 0), &mut way).unwrap();
    fast.tick(100 + 200);
    assert_eq!(taker(&fast, &tcp(third, VIP)), 12);
    assert_eq!(taker(&fast, &syn("10.9.0.1:4")), 12, "its client has spoken");
}

#[test]
fn a_flood_takes_no_client_from_anybody() {
    let test = "a_flood_takes_no_client_from_anybody";
    let path = one(Protocol::Tcp, FlowFields::Client, Some(600));
    let Some(mut fast) = open(test, &between(&path, 0, 0)) else { return };
    fast.tick(100);
    let client = |n: u32| format!("10.9.{}.{}:7", n >> 8, n & 0xff);
    for n in 0..1000 {
        fast.try_frame(&syn(&client(n)).frame()).unwrap();
        fast.try_frame(&tcp(&client(n), VIP).frame()).unwrap();
    }
    // The table has room for 131,072.
    for n in 0..200_000_u32 {
        let [_, b, c, d] = n.to_be_bytes();
        fast.try_frame(&syn(&format!("20.{b}.{c}.{d}:7")).frame()).unwrap();
    }
    fast.apply(&between(&path, 1, 1), &mut way).unwrap();
    let kept = (0..1000).filter(|n| taker(&fast, &syn(&client(*n))) == 11).count();
    assert_eq!(kept, 1000);
    // Who was heard of once makes room.
    fast.tick(100 + 20);
    assert_eq!(taker(&fast, &syn("30.0.0.1:7")), 12);
    fast.apply(&between(&path, 2, 2), &mut way).unwrap();
    assert_eq!(taker(&fast, &syn("30.0.0.1:7")), 12);
}

#[test]
fn who_is_down_keeps_its_connections_or_another_answers_them() {
    let test = "who_is_down_keeps_its_connections_or_another_answers_them";
    let path = one(Protocol::Tcp, FlowFields::Connection, None);
    let Some(mut fast) = open(test, &between(&path, 0, 0)) else { return };
    let packet = tcp("10.9.0.1:1000", VIP).payload(b"hello");
    // What `core` makes of `on_down = "keep"`, and of `"reset"`: there it knows no such connection, and resets it.
    fast.apply(&between(&path, 0, 1), &mut way).unwrap();
    check(&fast, &[("keep", packet.clone(), near(packet.clone(), 11))]);
    fast.apply(&between(&path, 1, 1), &mut way).unwrap();
    check(&fast, &[("reset", packet.clone(), near(packet.clone(), 12))]);
    fast.apply(&between(&path, Slot::NOBODY, Slot::NOBODY), &mut way).unwrap();
    check(&fast, &[("nobody is left", packet, dropped(Drop::NoBackend))]);
}

/// Servers `0a01`, `0a02` and `0a03`, behind a VIP of each family.
fn named() -> FastPath {
    let mut path = FastPath { seed: 5, services: Vec::new() };
    for (vip, backends) in [("10.0.0.100", BACKENDS), ("fd00::100", V6)] {
        let mut service = service(Protocol::Udp, vip, (443, 443), Forward::Dsr, &backends);
        service.quic = Some(Quic { config: 2, length: 2 });
        for (n, backend) in (1..).zip(Arc::make_mut(&mut service.backends)) {
            backend.server_id = ServerId::new(&[0x0a, n]);
        }
        path.services.push(service);
    }
    path
}

fn short(head: u8, server: [u8; 2]) -> Vec<u8> {
    [&[0x45, head][..], &server, &[1, 2, 3, 4, 5]].concat()
}

fn long(head: u8, server: [u8; 2]) -> Vec<u8> {
    [&[0xc7, 0, 0, 0, 1, 8, head][..], &server, &[1, 2, 3, 4, 5, 0, 9]].concat()
}

#[test]
fn a_datagram_goes_to_the_server_that_it_names() {
    let test = "a_datagram_goes_to_the_server_that_it_names";
    let Some(mut fast) = open(test, &named()) else { return };
    assert_eq!(fast.path(), named());
    let clients = ["10.9.0.9:1234", "10.9.7.7:4321", "10.0.0.200:1"];
    let mut cases: Vec<Case> = Vec::new();
    for from in clients {
        for n in 1..4_u8 {
            for data in [short(0x5f, [0x0a, n]), long(0x40, [0x0a, n])] {
                let packet = udp(from, VIP).payload(&data);
                cases.push(("v4", packet.clone(), near(packet, 10 + n)));
                let packet = udp("[fd09::9]:1234", "[fd00::100]:443").payload(&data);
                // The last byte of fd00::11 is 0x11.
                cases.push(("v6", packet.clone(), near(packet, 0x10 + n)));
                let optioned = udp(from, VIP).payload(&data).options(&[1; 4]);
                cases.push(("options", optioned.clone(), near(optioned, 10 + n)));
            }
        }
    }
    check(&fast, &cases);
    assert_eq!(unnamed(&fast), 0);
    // All pieces of a datagram go where the first one goes.
    let data = [short(0x5f, [0x0a, 3]), vec![0; 100]].concat();
    for piece in udp("10.9.0.9:1234", VIP).payload(&data).id(7).pieces(48) {
        check(&fast, &[("piece", piece.clone(), near(piece, 13))]);
    }
    // One that is drained is named still, one that is down is not, and then the hash decides.
    let by_hash = taker(&fast, &udp("10.9.0.9:1234", VIP));
    let other = if by_hash == 11 { 12 } else { 11 };
    let mut path = named();
    path.services[0].slots =
        vec![Slot { current: u16::from(by_hash) - 11, previous: u16::from(by_hash) - 11 }; 64]
            .into();
    let packet = udp("10.9.0.9:1234", VIP).payload(&short(0x40, [0x0a, other - 10]));
    for (standing, wanted) in
        [(Standing::Up, other), (Standing::Keeps, by_hash), (Standing::Down, by_hash)]
    {
        Arc::make_mut(&mut path.services[0].backends)[usize::from(other) - 11].standing = standing;
        fast.apply(&path, &mut way).unwrap();
        check(&fast, &[("standing", packet.clone(), near(packet.clone(), wanted))]);
    }
    // It has another name now.
    Arc::make_mut(&mut path.services[0].backends)[usize::from(other) - 11].standing = Standing::Up;
    Arc::make_mut(&mut path.services[0].backends)[usize::from(other) - 11].server_id =
        ServerId::new(&[0xff, 0xff]);
    fast.apply(&path, &mut way).unwrap();
    assert_eq!(taker(&fast, &packet), by_hash);
    let renamed = udp("10.9.0.9:1234", VIP).payload(&short(0x40, [0xff, 0xff]));
    assert_eq!(taker(&fast, &renamed), other);
}

fn unnamed(fast: &Fast) -> u64 {
    fast.counters().forwarded.values().map(|count| count.unnamed).sum()
}

#[test]
fn what_names_nobody_goes_by_the_hash_and_is_counted() {
    let test = "what_names_nobody_goes_by_the_hash_and_is_counted";
    let Some(fast) = open(test, &named()) else { return };
    let from = "10.9.0.9:1234";
    let by_hash = taker(&fast, &udp(from, VIP).payload(&[]));
    let mut counted = 0;
    for (what, data, counts) in [
        ("nothing", vec![], 0),
        ("another config", short(0x20, [0x0a, 1]), 1),
        ("an id that nobody has", short(0x40, [0x0b, 1]), 1),
        ("cut in the id", short(0x40, [0x0a, 1])[..3].to_vec(), 1),
        ("cut behind the first byte", vec![0x40], 1),
        ("a client that begins", long(0x20, [0x0a, 1]), 0),
        ("one whose id looks like ours", long(0x40, [0x0b, 1]), 0),
        ("an id of no bytes", vec![0xc0, 0, 0, 0, 1, 0, 0x40, 0x0a, 1, 0], 0),
        ("an id that is too short", vec![0xc0, 0, 0, 0, 1, 2, 0x40, 0x0a, 1, 0], 0),
        ("an id that ends behind the datagram", vec![0xc0, 0, 0, 0, 1, 200, 0x40, 0x0a, 1], 0),
        ("cut before the id's length", vec![0xc0, 0, 0, 0, 1], 0),
    ] {
        // Padding says nothing.
        let packet = udp(from, VIP).payload(&data).padding(20);
        check(&fast, &[(what, packet.clone(), near(packet, by_hash))]);
        counted += counts;
        assert_eq!(unnamed(&fast), counted, "{what}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let Some(mut fast) = open("what_cannot_be_is_refused", &named()) else { return };
    let wrong: [fn(&mut FastPath); 6] = [
        |path| Arc::make_mut(&mut path.services[0].backends)[0].server_id = ServerId::new(&[1]),
        |path| {
            Arc::make_mut(&mut path.services[0].backends)[0].server_id =
                path.services[0].backends[1].server_id
        },
        |path| path.services[0].quic = None,
        |path| path.services[0].protocol = Protocol::Tcp,
        |path| path.services[0].stick = Some(Duration::from_secs(60)),
        |path| path.services[0].flow = bits(24, 64),
    ];
    for (n, wrong) in wrong.into_iter().enumerate() {
        let mut path = named();
        wrong(&mut path);
        assert!(fast.apply(&path, &mut way).is_err(), "{n}");
    }
    fast.apply(&named(), &mut way).unwrap();
}
