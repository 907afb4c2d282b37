//! What `buoy capture` shows of packets: which, how they came and left, and that it ends by itself.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod cases;
mod packets;
mod watched;
mod world;

use buoy_kernel::clock;
use buoy_kernel::fast::{
    Action, Capacity, Capture, CaptureError, Captured, Fast, HOLD, Only, Shown,
};
use buoy_kernel::poll::Poller;
use buoy_model::{Cidr, Forward};
use buoy_xdp::forward::{Drop, hash_flow};
use buoy_xdp::watch::HEAD_LEN;
use cases::{C4, C6};
use packets::{Packet, icmp, raw, tcp, udp};
use std::time::Duration;
use watched::open_pinned;
use world::{FAR, FAR_MAC, FAR_ROUTER, LOOPBACK, LOOPBACK_MAC, ip, mac_of, path, way};

const ALL: Shown = Shown { vip: None, port: None, client: None, only: Only::Everything };

fn is_watched() -> bool {
    Capture::is_on().unwrap()
}

/// What is shown of each, in order.
fn shown(fast: &Fast, capture: &mut Capture, packets: &[Packet]) -> Vec<Captured> {
    for packet in packets {
        fast.try_frame(&packet.frame()).unwrap();
    }
    std::iter::from_fn(|| capture.take()).collect()
}

#[test]
fn a_packet_is_shown_as_it_came_and_as_it_left() {
    let test = "a_packet_is_shown_as_it_came_and_as_it_left";
    let Some(fast) = open_pinned(test, &path()) else { return };
    let mut capture = Capture::begin(ALL).unwrap();
    let near = |packet: Packet, last: u8| Some((packet.macs(mac_of(last), LOOPBACK_MAC), LOOPBACK));
    let far = |packet: Packet| Some((packet.macs(FAR_ROUTER, FAR_MAC), FAR));
    let refused = |reason| Action::Dropped(Some(reason));
    let sent = |to: &str, forward| Action::Sent(ip(to), Some(forward));
    let (dsr, tunnelled) = (tcp(C4, "10.0.0.100:80").long(30), tcp(C4, "10.0.0.100:443").long(7));
    let in_udp = tcp(C4, "10.0.0.100:445").long(7);
    let client: std::net::SocketAddr = C4.parse().unwrap();
    let port = 49_152 + (hash_flow(path().seed, client.ip(), client.port()) >> 50);
    let from = format!("10.0.1.1:{port}");
    let answer = tcp("10.0.0.31:8080", C4).flags(0x12);
    let translated = answer.clone().from("10.0.0.101:80");
    let six = tcp(C6, "[fd00::101]:80").long(3);
    let cases = [
        (dsr.clone(), sent("10.0.0.11", Forward::Dsr), near(dsr, 11)),
        (
            tunnelled.clone(),
            sent("10.0.2.21", Forward::Tunnel),
            far(tunnelled.clone().hop().within("10.0.1.1", "10.0.2.21")),
        ),
        (
            in_udp.clone(),
            sent("10.0.2.21", Forward::Gue { port: 6080 }),
            far(in_udp.clone().hop().in_udp(&from, "10.0.2.21:6080")),
        ),
        (six.clone(), sent("fd00::31", Forward::Nat), near(six.hop().to("[fd00::31]:8080"), 0x31)),
        (answer, Action::Translated, Some((translated, LOOPBACK))),
        (tcp(C4, "10.0.0.103:80"), refused(Drop::NoBackend), None),
        (tcp(C4, "10.0.0.103:81"), refused(Drop::NoNeighbour), None),
        (tcp(C4, "10.0.0.100:80").poke(46, &[0x40]), refused(Drop::TcpHeader), None),
        (tcp(C4, "10.0.0.103:83"), Action::Here, None),
        (tcp(C4, "10.0.0.100:99"), Action::Passed, None),
        (raw("10.9.0.10", "10.0.0.100", 47), Action::Passed, None),
    ];
    for (packet, action, left) in cases {
        let all = shown(&fast, &mut capture, std::slice::from_ref(&packet));
        let [captured] = &all[..] else { panic!("{packet:?}: {all:?}") };
        assert_eq!(captured.action, action, "{packet:?}");
        assert_eq!((&captured.came.head, captured.came.link), (&packet.frame(), LOOPBACK));
        let is = captured.left.as_ref().map(|frame| (frame.head.clone(), frame.link));
        assert_eq!(is, left.map(|(packet, link)| (packet.frame(), link)), "{packet:?}");
    }
    // Neither for a VIP nor from a backend, or from one that nothing is translated for.
    let others = [tcp(C4, "10.0.0.5:80"), tcp("10.0.0.11:80", C4), tcp("10.0.0.31:9", C4)];
    assert_eq!(shown(&fast, &mut capture, &others), []);
    // What does not fit, and a ping: answers of the program itself.
    let large = tcp(C4, "10.0.0.100:443").long(1460);
    let ping = icmp("10.9.0.9", "10.0.0.100", 8, 0).long(56);
    let all = shown(&fast, &mut capture, &[large, ping]);
    let actions: Vec<Action> = all.iter().map(|captured| captured.action).collect();
    assert_eq!(actions, [Action::Refused(Drop::TooBig), Action::Answered]);
    assert_eq!((all[0].came.head.len(), all[0].came.length), (HEAD_LEN, 14 + 20 + 20 + 1460));
    assert!(all.iter().all(|c| c.left.as_ref().is_some_and(|left| left.head[23] == 1)));
    assert!(all[0].at <= all[1].at);
    assert_eq!(capture.missed(), 0);
    drop(capture);
    fast.detach();
}

#[test]
fn only_what_is_asked_for_is_shown() {
    let test = "only_what_is_asked_for_is_shown";
    let Some(fast) = open_pinned(test, &path()) else { return };
    let other = "10.9.1.9:7";
    let packets = [
        tcp(C4, "10.0.0.100:80"),
        tcp(other, "10.0.0.100:80").options(&[1; 8]),
        udp(C4, "10.0.0.100:53"),
        tcp(C4, "10.0.0.101:80"),
        tcp(C6, "[fd00::100]:80"),
        tcp(C6, "[fd00::101]:80").ttl(1),
        tcp(C4, "10.0.0.103:80"),
        tcp("10.0.0.31:8080", C4),
        tcp("10.0.0.31:8080", other),
        tcp("[fd00::31]:8080", C6),
        tcp(other, "10.0.0.100:99"),
        icmp("10.9.0.9", "10.0.0.100", 13, 0),
    ];
    let vip = |text: &str| Shown { vip: Some(ip(text)), only: Only::Handled, ..ALL };
    let client = |text: &str, length: u8| Shown {
        client: Cidr::new(ip(text), length),
        only: Only::Handled,
        ..ALL
    };
    let only = |only| Shown { only, ..ALL };
    let cases: [(Shown, &[usize]); 14] = [
        (ALL, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (only(Only::Handled), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (vip("10.0.0.100"), &[0, 1, 2]),
        (Shown { port: Some(80), ..vip("10.0.0.100") }, &[0, 1]),
        (Shown { port: Some(80), only: Only::Everything, ..vip("10.0.0.100") }, &[0, 1, 11]),
        (Shown { port: Some(80), ..vip("10.0.0.101") }, &[3, 7, 8]),
        (Shown { port: Some(80), ..vip("fd00::101") }, &[5, 9]),
        (client("10.9.1.0", 24), &[1, 8]),
        (client("10.9.0.9", 32), &[0, 2, 3, 6, 7]),
        (client("fd09::", 16), &[4, 5, 9]),
        (Shown { client: Cidr::new(ip("10.9.1.9"), 32), ..vip("10.0.0.101") }, &[8]),
        (only(Only::Dropped(None)), &[5, 6]),
        (only(Only::Dropped(Some(Drop::TimeToLive))), &[5]),
        (Shown { only: Only::Dropped(Some(Drop::NoBackend)), ..vip("10.0.0.100") }, &[]),
    ];
    for (wanted, numbers) in cases {
        let mut capture = Capture::begin(wanted).unwrap();
        let is: Vec<_> = shown(&fast, &mut capture, &packets)
            .iter()
            .map(|c| packets.iter().position(|p| p.frame() == c.came.head).unwrap())
            .collect();
        assert_eq!(is, numbers, "{wanted:?}");
    }
    fast.detach();
}

#[test]
fn what_the_ring_has_no_room_for_is_counted() {
    let test = "what_the_ring_has_no_room_for_is_counted";
    let Some(fast) = open_pinned(test, &path()) else { return };
    let mut capture = Capture::begin(ALL).unwrap();
    let packets = vec![tcp(C4, "10.0.0.100:80"); 1000];
    let all = shown(&fast, &mut capture, &packets);
    assert!((500..1000).contains(&all.len()), "{}", all.len());
    assert_eq!(capture.missed(), 1000 - all.len() as u64);
    // There is room again.
    assert_eq!(shown(&fast, &mut capture, &packets[..10]).len(), 10);
    drop(capture);
    // What was missed was of that one.
    let capture = Capture::begin(ALL).unwrap();
    assert_eq!(capture.missed(), 0);
    drop(capture);
    fast.detach();
}

#[test]
fn it_ends_by_itself_unless_somebody_goes_on() {
    let test = "it_ends_by_itself_unless_somebody_goes_on";
    let Some(fast) = open_pinned(test, &path()) else { return };
    let packet = [tcp(C4, "10.0.0.100:80")];
    assert!(!is_watched());
    let mut capture = Capture::begin(ALL).unwrap();
    assert!(is_watched());
    assert_eq!(shown(&fast, &mut capture, &packet).len(), 1);
    // As if it had been killed: nobody says that it goes on.
    let end = clock::now() + HOLD;
    let mut nothing = Poller::new();
    while clock::now() <= end {
        nothing.wait(Some(end + Duration::from_millis(1))).unwrap();
    }
    assert!(is_watched());
    assert_eq!(shown(&fast, &mut capture, &packet), []);
    assert!(!is_watched(), "the first packet after it takes the bit away");
    capture.renew().unwrap();
    assert_eq!(shown(&fast, &mut capture, &packet).len(), 1);
    drop(capture);
    assert!(!is_watched());
    fast.detach();
}

#[test]
fn one_captures_at_a_time_and_goes_on_when_the_maps_are_replaced() {
    let test = "one_captures_at_a_time_and_goes_on_when_the_maps_are_replaced";
    let Some(fast) = open_pinned(test, &path()) else { return };
    let packet = [tcp(C4, "10.0.0.100:80")];
    let mut capture = Capture::begin(ALL).unwrap();
    assert_eq!(Capture::begin(ALL).err(), Some(CaptureError::Busy));
    let larger = Capacity { slots: 1 << 19, ..Capacity::of(&path()) };
    let mut next = Fast::open(larger).unwrap();
    next.apply(&path(), &mut way).unwrap();
    assert_eq!(shown(&next, &mut capture, &packet), []);
    capture.renew().unwrap();
    assert_eq!(shown(&next, &mut capture, &packet).len(), 1);
    assert_eq!(Capture::begin(ALL).err(), Some(CaptureError::Busy));
    // What the agent counts meanwhile leaves the bit alone, and the other way round.
    next.tick(7);
    assert!(is_watched());
    drop(fast);
    drop(capture);
    assert!(!is_watched());
    drop(Capture::begin(ALL).unwrap());
    let mut capture = Capture::begin(ALL).unwrap();
    next.detach();
    assert_eq!(capture.renew(), Err(CaptureError::Nothing));
    assert_eq!(Capture::begin(ALL).err(), Some(CaptureError::Nothing));
    assert_eq!(Capture::is_on(), Err(CaptureError::Nothing));
}
