//! What the fast path does with ordinary packets: packets in, packets out, byte for byte.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod cases;
mod packets;
mod world;

use buoy_kernel::fast::{Capacity, Fast, Fate as Traced, Packet as Made, Verdict};
use buoy_model::{Mac, Protocol};
use buoy_xdp::forward::{Drop, hash_flow};
use cases::Fate::{Changed, Pass};
use cases::{C4, C6, Case, Shape, check, dropped, far, near};
use packets::{ACK, Packet, SYN, icmp, raw, tcp, udp};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use world::{FAR_MAC, FAR_ROUTER, ip, open, path, way};

#[test]
fn packets_for_a_dsr_service_get_another_ethernet_address() {
    let test = "packets_for_a_dsr_service_get_another_ethernet_address";
    let Some(fast) = open(test, &path()) else { return };
    let (vip4, vip6) = ("10.0.0.100:80", "[fd00::100]:80");
    let cases: Vec<Case> = vec![
        ("a SYN", tcp(C4, vip4).syn(), near(tcp(C4, vip4).syn(), 11)),
        ("data", tcp(C4, vip4).long(100), near(tcp(C4, vip4).long(100), 11)),
        ("all that fits", tcp(C4, vip4).long(1460), near(tcp(C4, vip4).long(1460), 11)),
        ("a RST", tcp(C4, vip4).flags(4), near(tcp(C4, vip4).flags(4), 11)),
        ("no flags at all", tcp(C4, vip4).flags(0), near(tcp(C4, vip4).flags(0), 11)),
        ("a TTL of 1", tcp(C4, vip4).ttl(1), near(tcp(C4, vip4).ttl(1), 11)),
        ("marked", tcp(C4, vip4).class(0xb9), near(tcp(C4, vip4).class(0xb9), 11)),
        ("DF", tcp(C4, vip4).dont_fragment(), near(tcp(C4, vip4).dont_fragment(), 11)),
        ("padded", tcp(C4, vip4).padding(6), near(tcp(C4, vip4).padding(6), 11)),
        ("port 0", tcp("10.9.0.9:0", vip4), near(tcp("10.9.0.9:0", vip4), 11)),
        ("from a VIP", tcp("10.0.0.101:9", vip4), near(tcp("10.0.0.101:9", vip4), 11)),
        ("UDP", udp(C4, "10.0.0.100:53").long(9), near(udp(C4, "10.0.0.100:53").long(9), 12)),
        ("empty UDP", udp(C4, "10.0.0.100:53"), near(udp(C4, "10.0.0.100:53"), 12)),
        (
            "UDP without a checksum",
            udp(C4, "10.0.0.100:53").unsummed(),
            near(udp(C4, "10.0.0.100:53").unsummed(), 12),
        ),
        ("options", tcp(C4, vip4).options(&[1, 1, 1, 1]), {
            near(tcp(C4, vip4).options(&[1, 1, 1, 1]), 11)
        }),
        ("all options", tcp(C4, vip4).options(&[1; 40]).long(5), {
            near(tcp(C4, vip4).options(&[1; 40]).long(5), 11)
        }),
        ("IPv6 SYN", tcp(C6, vip6).syn(), near(tcp(C6, vip6).syn(), 0x11)),
        ("IPv6 data", tcp(C6, vip6).long(1440), near(tcp(C6, vip6).long(1440), 0x11)),
        ("IPv6 marked", tcp(C6, vip6).class(0x5b), near(tcp(C6, vip6).class(0x5b), 0x11)),
        ("IPv6 labelled", tcp(C6, vip6).label(0xabcde), near(tcp(C6, vip6).label(0xabcde), 0x11)),
        ("IPv6 one hop left", tcp(C6, vip6).ttl(1), near(tcp(C6, vip6).ttl(1), 0x11)),
        ("IPv6 UDP", udp(C6, "[fd00::100]:53"), near(udp(C6, "[fd00::100]:53"), 0x12)),
        ("hop by hop", tcp(C6, vip6).extension(0, 1), near(tcp(C6, vip6).extension(0, 1), 0x11)),
        ("two extensions", tcp(C6, vip6).extension(60, 2).extension(0, 1), {
            near(tcp(C6, vip6).extension(60, 2).extension(0, 1), 0x11)
        }),
    ];
    check(&fast, &cases);
}

#[test]
fn packets_for_a_tunnel_service_are_wrapped_any_family_in_any() {
    let test = "packets_for_a_tunnel_service_are_wrapped_any_family_in_any";
    let path = path();
    let Some(fast) = open(test, &path) else { return };
    let (vip4, vip6) = ("10.0.0.100:443", "[fd00::100]:443");
    let v4 = |packet: &Packet| far(packet.clone().hop().within("10.0.1.1", "10.0.2.21"));
    let label = |client: &str| {
        let client: std::net::SocketAddr = client.parse().unwrap();
        (hash_flow(path.seed, client.ip(), client.port()) >> 44) as u32
    };
    let v6 = |packet: &Packet, client| {
        far(packet.clone().hop().within("fd00:1::1", "fd00:2::21").label(label(client)))
    };
    let other4 = "10.0.0.100:444";
    let other6 = "[fd00::100]:444";
    let near_udp = |p: &Packet| near(p.clone().hop().within("10.0.0.1", "10.0.0.22"), 22);
    let mut cases: Vec<Case> = Vec::new();
    let shapes: [Shape; 7] = [
        ("SYN", |p| p.syn()),
        ("data", |p| p.long(333)),
        ("marked", |p| p.class(0x2f)),
        ("two hops left", |p| p.ttl(2)),
        ("DF", |p| p.dont_fragment()),
        ("padded", |p| p.padding(6)),
        ("odd", |p| p.long(7)),
    ];
    for (name, shape) in shapes {
        let packet = shape(tcp(C4, vip4));
        cases.push((name, packet.clone(), v4(&packet)));
        let packet = shape(tcp(C4, other4));
        cases.push((name, packet.clone(), v6(&packet, C4)));
        let packet = shape(tcp(C6, vip6));
        cases.push((name, packet.clone(), v6(&packet, C6)));
        let packet = shape(tcp(C6, other6));
        cases.push((name, packet.clone(), v4(&packet)));
        if name != "SYN" {
            let packet = shape(udp(C4, vip4));
            cases.push((name, packet.clone(), near_udp(&packet)));
        }
    }
    let options = tcp(C4, vip4).options(&[1; 8]).long(3);
    cases.push(("options", options.clone(), v4(&options)));
    let fits = tcp(C4, vip4).long(1440);
    cases.push(("all that fits", fits.clone(), v4(&fits)));
    let fits = tcp(C6, vip6).long(1400);
    cases.push(("all that fits", fits.clone(), v6(&fits, C6)));
    // It would be forwarded with no hop left (RFC 2003 section 3.1, RFC 2473 section 3.1).
    for ttl in [0, 1] {
        for to in [vip4, other4] {
            cases.push(("no hop left", tcp(C4, to).ttl(ttl), dropped(Drop::TimeToLive)));
        }
        for to in [vip6, other6] {
            cases.push(("no hop left", tcp(C6, to).ttl(ttl), dropped(Drop::TimeToLive)));
        }
    }
    check(&fast, &cases);
}

#[test]
fn packets_for_a_gue_service_are_wrapped_in_udp_any_family_in_any() {
    let test = "packets_for_a_gue_service_are_wrapped_in_udp_any_family_in_any";
    let path = path();
    let Some(fast) = open(test, &path) else { return };
    let hash = |client: &str| {
        let client: std::net::SocketAddr = client.parse().unwrap();
        hash_flow(path.seed, client.ip(), client.port())
    };
    let port = |client: &str| {
        let port = 49_152 + (hash(client) >> 50);
        assert!((49_152..=65_535).contains(&port));
        port
    };
    let v4 = |packet: &Packet, client| {
        far(packet.clone().hop().in_udp(&format!("10.0.1.1:{}", port(client)), "10.0.2.21:6080"))
    };
    let v6 = |packet: &Packet, client| {
        let outer = packet
            .clone()
            .hop()
            .in_udp(&format!("[fd00:1::1]:{}", port(client)), "[fd00:2::21]:6080");
        far(outer.label((hash(client) >> 44) as u32))
    };
    let near_udp = |packet: &Packet, client| {
        near(
            packet.clone().hop().in_udp(&format!("10.0.0.1:{}", port(client)), "10.0.0.22:9886"),
            22,
        )
    };
    let mut cases: Vec<Case> = Vec::new();
    let shapes: [Shape; 8] = [
        ("SYN", |p| p.syn()),
        ("data", |p| p.long(333)),
        ("marked", |p| p.class(0x2f)),
        ("congested", |p| p.class(3)),
        ("two hops left", |p| p.ttl(2)),
        ("DF", |p| p.dont_fragment()),
        ("padded", |p| p.padding(6)),
        ("odd", |p| p.long(7)),
    ];
    for (name, shape) in shapes {
        for c4 in [C4, "10.9.0.9:1235", "10.9.200.1:65535"] {
            let packet = shape(tcp(c4, "10.0.0.100:445"));
            cases.push((name, packet.clone(), v4(&packet, c4)));
            let packet = shape(tcp(c4, "10.0.0.100:446"));
            cases.push((name, packet.clone(), v6(&packet, c4)));
            if name != "SYN" {
                let packet = shape(udp(c4, "10.0.0.100:445"));
                cases.push((name, packet.clone(), near_udp(&packet, c4)));
            }
        }
        let packet = shape(tcp(C6, "[fd00::100]:445"));
        cases.push((name, packet.clone(), v6(&packet, C6)));
        let packet = shape(tcp(C6, "[fd00::100]:446"));
        cases.push((name, packet.clone(), v4(&packet, C6)));
    }
    let options = tcp(C4, "10.0.0.100:445").options(&[1; 8]).long(3);
    cases.push(("options", options.clone(), v4(&options, C4)));
    let fits = tcp(C4, "10.0.0.100:445").long(1500 - 28 - 40);
    cases.push(("all that fits", fits.clone(), v4(&fits, C4)));
    let fits = tcp(C6, "[fd00::100]:445").long(1500 - 48 - 60);
    cases.push(("all that fits", fits.clone(), v6(&fits, C6)));
    for ttl in [0, 1] {
        let (v4, v6) = (udp(C4, "10.0.0.100:445"), tcp(C6, "[fd00::100]:446"));
        cases.extend([v4, v6].map(|p| ("no hop left", p.ttl(ttl), dropped(Drop::TimeToLive))));
    }
    check(&fast, &cases);
    let ports: std::collections::BTreeSet<_> =
        (0..1000).map(|n| port(&format!("10.9.0.9:{}", 1000 + n))).collect();
    assert!(ports.len() > 900, "flows are spread: {}", ports.len());
}

/// What was written is read again as it was, and another port is another service.
#[test]
fn the_port_of_gue_is_known_again_and_can_change() {
    let test = "the_port_of_gue_is_known_again_and_can_change";
    let mut path = path();
    let Some(mut fast) = open(test, &path) else { return };
    let sent_to = |fast: &Fast| {
        let tried = fast.try_frame(&tcp(C4, "10.0.0.100:445").frame()).unwrap();
        u16::from_be_bytes([tried.frame[36], tried.frame[37]])
    };
    for port in [6080, 1, 65_535] {
        let is_it = |s: &&mut buoy_model::FastService| {
            matches!(s.forward, buoy_model::Forward::Gue { .. }) && s.ports.0 == 445
        };
        for service in path.services.iter_mut().filter(is_it) {
            service.forward = buoy_model::Forward::Gue { port };
        }
        path.services.sort_by_key(|s| (s.address, s.protocol, s.ports.0));
        fast.apply(&path, &mut way).unwrap();
        assert_eq!(sent_to(&fast), port);
        assert_eq!(fast.path(), path);
    }
}

#[test]
fn packets_for_a_nat_service_get_another_destination() {
    let test = "packets_for_a_nat_service_get_another_destination";
    let Some(fast) = open(test, &path()) else { return };
    let (vip4, dns4) = ("10.0.0.101:80", "10.0.0.101:53");
    let (vip6, dns6) = ("[fd00::101]:80", "[fd00::101]:53");
    let mut cases: Vec<Case> = Vec::new();
    let shapes: [Shape; 7] = [
        ("plain", |p| p),
        ("data", |p| p.long(333)),
        ("odd", |p| p.long(1)),
        ("marked", |p| p.class(0xff)),
        ("two hops left", |p| p.ttl(2)),
        ("all hops left", |p| p.ttl(255)),
        ("padded", |p| p.padding(18)),
    ];
    for (name, shape) in shapes {
        for client in ["10.9.0.9:1234", "10.9.255.255:65535", "10.9.0.0:0"] {
            let p = shape(tcp(client, vip4));
            cases.push((name, p.clone(), near(p.to("10.0.0.31:8080").hop(), 31)));
            let p = shape(udp(client, dns4));
            cases.push((name, p.clone(), far(p.to("10.0.2.32:5353").hop())));
        }
        let p = shape(tcp(C6, vip6));
        cases.push((name, p.clone(), near(p.to("[fd00::31]:8080").hop(), 0x31)));
        let p = shape(udp(C6, dns6));
        cases.push((name, p.clone(), far(p.to("[fd00:2::32]:5353").hop())));
    }
    let p = udp(C4, dns4).unsummed();
    cases.push(("no checksum stays none", p.clone(), far(p.to("10.0.2.32:5353").hop())));
    let p = tcp(C4, vip4).syn();
    cases.push(("SYN", p.clone(), near(p.to("10.0.0.31:8080").hop(), 31)));
    let p = tcp(C4, vip4).options(&[1; 12]).long(3);
    cases.push(("options", p.clone(), near(p.to("10.0.0.31:8080").hop(), 31)));
    let p = tcp(C6, vip6).extension(60, 1).long(3);
    cases.push(("extension", p.clone(), near(p.to("[fd00::31]:8080").hop(), 0x31)));
    for (from, to) in [("7000", "17000"), ("7001", "17001"), ("7999", "17999")] {
        let p = tcp(C4, &format!("10.0.0.101:{from}"));
        let to = format!("10.0.0.33:{to}");
        cases.push(("a range of ports", p.clone(), near(p.to(&to).hop(), 33)));
    }
    for ttl in [0, 1] {
        cases.push(("no hop left", tcp(C4, vip4).ttl(ttl), dropped(Drop::TimeToLive)));
        cases.push(("no hop left", udp(C6, dns6).ttl(ttl), dropped(Drop::TimeToLive)));
    }
    check(&fast, &cases);
}

#[test]
fn answers_of_translated_backends_get_the_vip_as_their_source() {
    let test = "answers_of_translated_backends_get_the_vip_as_their_source";
    let Some(fast) = open(test, &path()) else { return };
    let mut cases: Vec<Case> = Vec::new();
    // On to the kernel, which forwards them.
    let table = [
        (tcp("10.0.0.31:8080", C4), "10.0.0.101:80"),
        (tcp("10.0.0.31:8080", C4).flags(SYN | ACK), "10.0.0.101:80"),
        (tcp("10.0.0.31:8080", C4).long(1460), "10.0.0.101:80"),
        (tcp("10.0.0.31:8080", C4).ttl(1).padding(6), "10.0.0.101:80"),
        (udp("10.0.2.32:5353", C4).long(101), "10.0.0.101:53"),
        (udp("10.0.2.32:5353", C4).unsummed(), "10.0.0.101:53"),
        (tcp("10.0.0.33:17000", C4), "10.0.0.101:7000"),
        (tcp("10.0.0.33:17999", C4), "10.0.0.101:7999"),
        (tcp("[fd00::31]:8080", C6).long(3), "[fd00::101]:80"),
        (udp("[fd00:2::32]:5353", C6).class(9), "[fd00::101]:53"),
    ];
    for (packet, vip) in table {
        cases.push(("answer", packet.clone(), Changed(packet.from(vip))));
    }
    let answer = || tcp("10.0.0.31:8080", C4).long(20);
    cases.push(("a piece", answer().pieces(24)[0].clone(), Pass));
    cases.push(("options", answer().options(&[1; 4]), Pass));
    // What this host asks itself, as its checks do.
    cases.push(("to this host", tcp("10.0.0.31:8080", "10.0.0.1:40000"), Pass));
    cases.push(("over IPv6", tcp("[fd00::31]:8080", "[fd00::1]:40000"), Pass));
    cases.push(("an extension", tcp("[fd00::31]:8080", C6).extension(60, 1), Pass));
    cases.push(("malformed", answer().poke(46, &[0x40]), Pass));
    cases.push(("cut", answer().cut(60), Pass));
    cases.push(("to a service", tcp("10.0.0.31:8080", "10.0.0.100:80"), {
        near(tcp("10.0.0.31:8080", "10.0.0.100:80"), 11)
    }));
    cases.push(("to a VIP, but no service", tcp("10.0.0.31:8080", "10.0.0.100:9"), {
        Changed(tcp("10.0.0.101:80", "10.0.0.100:9"))
    }));
    check(&fast, &cases);
}

/// Nobody could say which of the two VIPs an answer is from.
#[test]
fn answers_of_what_belongs_to_two_services_are_left_alone() {
    let test = "answers_of_what_belongs_to_two_services_are_left_alone";
    let mut path = path();
    path.services.push(world::service(
        buoy_model::Protocol::Tcp,
        "10.0.0.105",
        (80, 80),
        buoy_model::Forward::Nat,
        &["10.0.0.31:8080"],
    ));
    let Some(mut fast) = open(test, &path) else { return };
    let answer = tcp("10.0.0.31:8080", C4);
    check(&fast, &[("to either", answer.clone(), Pass)]);
    path.services.pop();
    fast.apply(&path, &mut way).unwrap();
    check(&fast, &[("to one", answer.clone(), Changed(answer.from("10.0.0.101:80")))]);
}

/// A VIP, its ports, and the backend that they lead to.
type Translated = (&'static str, (u16, u16), &'static str);

/// What an answer from a port of the backend becomes; nothing: it is left alone.
type Answer = (u16, &'static str);

/// What is there, and what becomes of answers.
const SHARED: [(&str, &[Translated], &[Answer]); 4] = [
    (
        "all ports keep their numbers, and one within has the backend as well",
        &[
            ("10.0.0.106", (0, 65_535), "10.0.0.51:0"),
            ("10.0.0.106", (22, 22), "10.0.0.51:22"),
            ("10.0.0.106", (8000, 8063), "10.0.0.51:8000"),
        ],
        &[
            (0, "10.0.0.106:0"),
            (22, "10.0.0.106:22"),
            (8000, "10.0.0.106:8000"),
            (8063, "10.0.0.106:8063"),
            (65_535, "10.0.0.106:65535"),
        ],
    ),
    (
        "the same block in both",
        &[
            ("10.0.0.106", (8000, 8099), "10.0.0.51:9024"),
            ("10.0.0.106", (8000, 8063), "10.0.0.51:9024"),
        ],
        &[(9024, "10.0.0.106:8000"), (9087, "10.0.0.106:8063"), (9123, "10.0.0.106:8099")],
    ),
    (
        "one port of a range is another one's",
        &[
            ("10.0.0.106", (8000, 8099), "10.0.0.51:9000"),
            ("10.0.0.107", (80, 80), "10.0.0.51:9050"),
        ],
        &[
            (8999, ""),
            (9000, "10.0.0.106:8000"),
            (9049, "10.0.0.106:8049"),
            (9050, ""),
            (9051, "10.0.0.106:8051"),
            (9099, "10.0.0.106:8099"),
            (9100, ""),
        ],
    ),
    (
        "the distance differs",
        &[
            ("10.0.0.106", (8000, 8009), "10.0.0.51:9000"),
            ("10.0.0.106", (8100, 8109), "10.0.0.51:9005"),
        ],
        &[
            (9004, "10.0.0.106:8004"),
            (9005, ""),
            (9009, ""),
            (9010, "10.0.0.106:8105"),
            (9014, "10.0.0.106:8109"),
        ],
    ),
];

/// Where ranges have ports in common, an answer is translated if it becomes the same in all of them.
#[test]
fn answers_from_a_port_of_two_ranges_are_one_or_nobodys() {
    let test = "answers_from_a_port_of_two_ranges_are_one_or_nobodys";
    let Some(mut fast) = open(test, &path()) else { return };
    let nat = |&(vip, ports, backend): &Translated| {
        let tcp = buoy_model::Protocol::Tcp;
        world::service(tcp, vip, ports, buoy_model::Forward::Nat, &[backend])
    };
    for (name, services, answers) in SHARED {
        let mut path = path();
        path.services.extend(services.iter().map(nat));
        path.services.sort_by_key(|s| (s.address, s.protocol, s.ports));
        fast.apply(&path, &mut way).unwrap();
        let case = |&(port, vip): &Answer| {
            let answer = tcp(&format!("10.0.0.51:{port}"), C4);
            let verdict = if vip.is_empty() { Pass } else { Changed(answer.clone().from(vip)) };
            (name, answer, verdict)
        };
        check(&fast, &answers.iter().map(case).collect::<Vec<_>>());
    }
}

/// UDP from every port: among these sums are those that need 0xffff in place of zero.
#[test]
fn a_translated_udp_checksum_is_never_the_one_that_says_none() {
    let test = "a_translated_udp_checksum_is_never_the_one_that_says_none";
    let Some(fast) = open(test, &path()) else { return };
    for port in 0..=u16::MAX {
        let packet = udp(&format!("10.9.0.9:{port}"), "10.0.0.101:53");
        let wanted = packet.clone().to("10.0.2.32:5353").hop().macs(FAR_ROUTER, FAR_MAC);
        let tried = fast.try_frame(&packet.frame()).unwrap();
        assert_eq!(tried.frame, wanted.frame(), "{port}");
    }
}

#[test]
fn one_port_stands_against_a_range_and_a_range_against_all_ports() {
    let test = "one_port_stands_against_a_range_and_a_range_against_all_ports";
    let Some(fast) = open(test, &path()) else { return };
    let mut cases: Vec<Case> = Vec::new();
    let table = [
        (0, 13),
        (1, 13),
        (7999, 13),
        (8000, 14),
        (8041, 14),
        (8042, 15),
        (8043, 14),
        (8099, 14),
        (8100, 13),
        (65_535, 13),
    ];
    for (port, last) in table {
        let packet = tcp(C4, &format!("10.0.0.102:{port}"));
        cases.push(("by port", packet.clone(), near(packet, last)));
    }
    cases.push(("another transport", udp(C4, "10.0.0.102:80"), Pass));
    check(&fast, &cases);
}

#[test]
fn packets_bytes_and_flows_are_counted_for_each_backend() {
    let test = "packets_bytes_and_flows_are_counted_for_each_backend";
    let path = path();
    let Some(mut fast) = open(test, &path) else { return };
    for packet in [
        tcp(C4, "10.0.0.100:80").syn(),
        tcp(C4, "10.0.0.100:80").flags(SYN | ACK),
        tcp(C4, "10.0.0.100:80").long(100),
        tcp(C4, "10.0.0.100:80").poke(14, &[0x44]),
        udp(C4, "10.0.0.100:53").long(2),
    ] {
        fast.try_frame(&packet.frame()).unwrap();
    }
    let counts = |fast: &Fast| {
        let forwarded = fast.counters().forwarded;
        let of = |backend: &str| {
            let found: Vec<_> =
                forwarded.iter().filter(|((_, b), _)| b.ip() == ip(backend)).collect();
            assert_eq!(found.len(), 1);
            (found[0].1.packets, found[0].1.bytes, found[0].1.flows)
        };
        (of("10.0.0.11"), of("10.0.0.12"), of("10.0.0.13"))
    };
    let expected = ((3, 40 + 40 + 140, 1), (1, 30, 0), (0, 0, 0));
    assert_eq!(counts(&fast), expected);
    // A new table takes nothing away, and what is used again begins at zero.
    let mut changed = path.clone();
    changed.services[0].slots = path.services[0].slots[..32].into();
    for next in [&changed, &path, &changed, &path] {
        fast.apply(next, &mut way).unwrap();
        assert_eq!(counts(&fast), expected);
    }
}

#[test]
fn without_services_everything_passes() {
    let test = "without_services_everything_passes";
    let empty = buoy_model::FastPath::default();
    let Some(fast) = open(test, &empty) else { return };
    assert_eq!(Capacity::of(&empty), Capacity::of(&empty));
    let cases: Vec<Case> = vec![
        ("TCP", tcp(C4, "10.0.0.100:80"), Pass),
        ("zeros", raw("0.0.0.0", "0.0.0.0", 0), Pass),
        ("IPv6 zeros", raw("::", "::", 0), Pass),
        ("ping", icmp("10.9.0.9", "10.0.0.100", 8, 0), Pass),
        ("no MACs", tcp(C4, "10.0.0.100:80").macs(Mac::default(), Mac::default()), Pass),
    ];
    check(&fast, &cases);
}

#[test]
fn what_the_owner_takes_itself_is_counted_and_passed_and_lists_hold_for_it() {
    let test = "what_the_owner_takes_itself_is_counted_and_passed";
    let mut path = path();
    let (tcp_, local) = (buoy_model::Protocol::Tcp, buoy_model::Forward::Local);
    let mut one = world::service(tcp_, "10.0.0.102", (22, 22), local, &["10.0.0.102:22"]);
    one.sources = world::sources(&["!10.9.0.10/32"]);
    path.services.push(one);
    path.services.push(world::service(tcp_, "fd00::102", (20, 29), local, &["[fd00::102]:20"]));
    path.services.sort_by_key(|s| (s.address, s.protocol, s.ports));
    let Some(fast) = open(test, &path) else { return };
    let to = || tcp(C4, "10.0.0.102:22");
    let range = tcp(C4, "10.0.0.102:23");
    let cases = [
        ("plain", to().syn(), Pass),
        ("options", to().options(&[1; 12]), Pass),
        ("larger than any way out", to().long(3000), Pass),
        ("a first piece", to().long(100).pieces(24)[0].clone(), Pass),
        ("its last piece", to().long(100).pieces(24).pop().unwrap(), Pass),
        ("no hop left", to().ttl(1), Pass),
        ("IPv6", tcp(C6, "[fd00::102]:29"), Pass),
        ("refused", tcp("10.9.0.10:4000", "10.0.0.102:22"), dropped(Drop::Source)),
        ("beside it", range.clone(), near(range, 13)),
        ("another transport", udp(C4, "10.0.0.102:22"), Pass),
    ];
    check(&fast, &cases);
    let forwarded = fast.counters().forwarded;
    let of = |vip: &str| {
        let mut all = forwarded.iter().filter(|((_, backend), _)| backend.ip() == ip(vip));
        all.next().map(|(_, count)| (count.packets, count.flows))
    };
    // The same packet is given to the program from each buffer that `check` tries.
    let (packets, flows) = of("10.0.0.102").unwrap();
    assert_eq!(packets, 6 * flows, "the first of six opens a connection");
    assert!(flows > 0 && of("fd00::102").unwrap().0 > 0);
}

#[test]
fn a_trace_names_its_own_reason_while_others_are_dropped() {
    let test = "a_trace_names_its_own_reason_while_others_are_dropped";
    let Some(mut fast) = open(test, &path()) else { return };
    let probe = fast.probe().unwrap();
    let other = tcp(C4, "10.0.0.100:80").poke(16, &[0, 39]).frame();
    let packet = Made {
        from: C4.parse().unwrap(),
        to: "10.0.0.103:80".parse().unwrap(),
        protocol: Protocol::Tcp,
        opens: true,
    };
    let is_over = AtomicBool::new(false);
    let wrong = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            while !is_over.load(Relaxed) {
                assert_eq!(probe.try_frame(&other).unwrap().verdict, Verdict::Drop);
            }
        });
        let others_dropped = || fast.dropped()[&Drop::TcpHeader];
        let (mut beside, mut wrong) = (0, Vec::new());
        while beside < 30 && !others.is_finished() {
            let before = others_dropped();
            let fate = fast.trace(&packet).unwrap();
            beside += u32::from(before < others_dropped());
            wrong.extend(Some(fate).filter(|f| *f != Traced::Dropped(Some(Drop::NoBackend))));
        }
        is_over.store(true, Relaxed);
        others.join().unwrap();
        wrong
    });
    assert!(wrong.is_empty(), "{} wrong, as {:?}", wrong.len(), wrong.first());
}
