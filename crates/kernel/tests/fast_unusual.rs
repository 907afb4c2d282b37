//! What the fast path does with everything that is not ordinary: packets in, packets out, byte for byte.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod cases;
mod packets;
mod world;

use buoy_kernel::fast::{Capacity, Fast, NextHop, Verdict, Way};
use buoy_xdp::forward::{Drop, hash_flow};
use cases::Fate::{Pass, Transmit};
use cases::{C4, C6, Case, check, dropped, far, near};
use packets::{NEAR, Packet, ROUTER, icmp, raw, tcp, udp};
use world::{open, path, permitted, way};

#[test]
fn what_is_not_ours_passes_untouched() {
    let test = "what_is_not_ours_passes_untouched";
    let Some(fast) = open(test, &path()) else { return };
    let vlan = |packet: Packet| packet.poke(12, &[0x81, 0, 0, 5]);
    let cases: Vec<Case> = vec![
        ("another address", tcp(C4, "10.0.0.200:80").syn(), Pass),
        ("another IPv6 address", tcp(C6, "[fd00::200]:80"), Pass),
        ("another port", tcp(C4, "10.0.0.100:81").syn(), Pass),
        ("another IPv6 port", udp(C6, "[fd00::100]:54"), Pass),
        ("another transport", udp(C4, "10.0.0.100:80"), Pass),
        ("ESP", raw("fd09::9", "fd00::100", 50).payload(&[0; 40]), Pass),
        ("IPIP", raw("10.9.0.9", "10.0.0.100", 4).payload(&[0; 40]), Pass),
        ("no next header", raw("fd09::9", "fd00::100", 59), Pass),
        ("a routing header", tcp(C6, "[fd00::100]:80").extension(43, 1), Pass),
        ("ARP", tcp(C4, "10.0.0.100:80").poke(12, &[8, 6]), Pass),
        ("a VLAN", vlan(tcp(C4, "10.0.0.100:80")), Pass),
        ("IPv4 said to be IPv6", tcp(C4, "10.0.0.100:80").poke(12, &[0x86, 0xdd]), Pass),
        ("nothing but Ethernet", tcp(C4, "10.0.0.100:80").cut(14), Pass),
        ("half an IPv4 header", tcp(C4, "10.0.0.100:80").cut(33), Pass),
        ("half an IPv6 header", tcp(C6, "[fd00::100]:80").cut(53), Pass),
        ("malformed, to another", tcp(C4, "10.0.0.200:80").poke(14, &[0x41]), Pass),
        ("cut, to another", tcp(C4, "10.0.0.200:80").cut(40), Pass),
        ("a mapped address", tcp(C6, "[::ffff:10.0.0.100]:80"), Pass),
        ("from a VIP", tcp("10.0.0.100:80", C4), Pass),
        ("from a backend of DSR", tcp("10.0.0.11:80", C4), Pass),
        ("another port of a backend", tcp("10.0.0.31:8081", C4), Pass),
        ("another transport of a backend", udp("10.0.0.31:8080", C4), Pass),
        ("beyond a backend's ports", tcp("10.0.0.33:18000", C4), Pass),
        ("below a backend's ports", tcp("10.0.0.33:16999", C4), Pass),
        ("a ping to another", icmp("10.9.0.9", "10.0.0.200", 8, 0), Pass),
        ("an answer to a ping", icmp("10.9.0.9", "10.0.0.100", 0, 0), Pass),
        ("a ping of a strange code", icmp("10.9.0.9", "10.0.0.100", 8, 1), Pass),
        ("a ping with options", icmp("10.9.0.9", "10.0.0.100", 8, 0).options(&[1; 4]), Pass),
        ("a solicitation", icmp("fd09::9", "fd00::100", 135, 0).payload(&[0; 16]), Pass),
        ("an advertisement", icmp("fd09::9", "fd00::100", 136, 0).payload(&[0; 16]), Pass),
    ];
    check(&fast, &cases);
}

/// It is not balanced: its checksum (CRC32c) has no part that could be amended, so `nat` would sum up each packet.
#[test]
fn sctp_for_a_vip_passes_untouched() {
    let Some(fast) = open("sctp_for_a_vip_passes_untouched", &path()) else { return };
    // A whole INIT (RFC 9260 sections 3.1 and 3.3.2), so that it passes for its protocol and not for its length.
    let init = |from: (&str, u16), to: (&str, u16)| {
        let mut payload = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
        payload.extend([0, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef]);
        payload.extend([1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1]);
        raw(from.0, to.0, 132).payload(&payload)
    };
    let (v4, v6) = (("10.9.0.9", 1234), ("fd09::9", 1234));
    let cases: Vec<Case> = vec![
        ("to dsr", init(v4, ("10.0.0.100", 80)), Pass),
        ("to dsr, IPv6", init(v6, ("fd00::100", 80)), Pass),
        ("to a tunnel", init(v4, ("10.0.0.100", 443)), Pass),
        ("to a tunnel, IPv6", init(v6, ("fd00::100", 443)), Pass),
        ("to GUE", init(v4, ("10.0.0.100", 445)), Pass),
        ("to GUE, IPv6", init(v6, ("fd00::100", 445)), Pass),
        ("to nat", init(v4, ("10.0.0.101", 80)), Pass),
        ("to nat, IPv6", init(v6, ("fd00::101", 80)), Pass),
        ("behind an extension", init(v6, ("fd00::101", 80)).extension(60, 1), Pass),
        ("from a translated backend", init(("10.0.0.31", 8080), v4), Pass),
        ("from a translated backend, IPv6", init(("fd00::31", 8080), v6), Pass),
        ("with no hop left", init(v4, ("10.0.0.101", 80)).ttl(1), Pass),
    ];
    check(&fast, &cases);
    // The same addresses and ports are of services: TCP does not pass there.
    let ours: Vec<Case> = vec![
        ("TCP", tcp(C4, "10.0.0.100:80"), near(tcp(C4, "10.0.0.100:80"), 11)),
        ("IPv6 TCP", tcp(C6, "[fd00::100]:80"), near(tcp(C6, "[fd00::100]:80"), 0x11)),
    ];
    check(&fast, &ours);
}

#[test]
fn the_malformed_is_dropped_and_counted_by_reason() {
    let test = "the_malformed_is_dropped_and_counted_by_reason";
    let Some(fast) = open(test, &path()) else { return };
    let tcp4 = || tcp(C4, "10.0.0.100:80").long(20);
    let udp4 = || udp(C4, "10.0.0.100:53").long(20);
    let tcp6 = || tcp(C6, "[fd00::100]:80").long(20);
    let udp6 = || udp(C6, "[fd00::100]:53").long(20);
    let (ip_header, cut) = (Drop::IpHeader, Drop::Truncated);
    let (of_tcp, of_udp) = (Drop::TcpHeader, Drop::UdpHeader);
    let mut cases: Vec<Case> = vec![
        ("version 6 in IPv4", tcp4().poke(14, &[0x65]), dropped(ip_header)),
        ("version 0", tcp4().poke(14, &[0x05]), dropped(ip_header)),
        ("a header of four words", tcp4().poke(14, &[0x44]), dropped(ip_header)),
        ("a header of no words", tcp4().poke(14, &[0x40]), dropped(ip_header)),
        ("a length of 0", tcp4().poke(16, &[0, 0]), dropped(ip_header)),
        ("a length below the header", tcp4().poke(16, &[0, 19]), dropped(ip_header)),
        ("options beyond the length", tcp4().poke(14, &[0x4f]).poke(16, &[0, 40]), {
            dropped(ip_header)
        }),
        ("longer than the frame", tcp4().poke(16, &[0, 61]), dropped(cut)),
        ("much longer", tcp4().poke(16, &[0xff, 0xff]), dropped(cut)),
        ("options beyond the frame", tcp4().poke(14, &[0x4f]).cut(50), dropped(cut)),
        ("no room for TCP", tcp4().poke(16, &[0, 39]), dropped(of_tcp)),
        ("nothing but the IP header", tcp4().poke(16, &[0, 20]), dropped(of_tcp)),
        ("TCP of four words", tcp4().poke(46, &[0x40]), dropped(of_tcp)),
        ("TCP of no words", tcp4().poke(46, &[0]), dropped(of_tcp)),
        ("TCP options beyond", tcp4().poke(46, &[0xf0]), dropped(of_tcp)),
        ("all of it an IP header", tcp4().poke(14, &[0x4f]), dropped(of_tcp)),
        ("no room for UDP", udp4().poke(16, &[0, 27]), dropped(of_udp)),
        ("UDP of 7 bytes", udp4().poke(38, &[0, 7]), dropped(of_udp)),
        ("UDP of 0 bytes", udp4().poke(38, &[0, 0]), dropped(of_udp)),
        ("longer UDP than IP", udp4().poke(38, &[0, 29]), dropped(of_udp)),
        ("much longer UDP", udp4().poke(38, &[0xff, 0xff]), dropped(of_udp)),
        ("version 4 in IPv6", tcp6().poke(14, &[0x40]), dropped(ip_header)),
        ("version 0 in IPv6", tcp6().poke(14, &[0]), dropped(ip_header)),
        ("IPv6 longer than the frame", tcp6().poke(18, &[0, 41]), dropped(cut)),
        ("IPv6 much longer", tcp6().poke(18, &[0xff, 0xff]), dropped(cut)),
        ("IPv6 without a payload", tcp6().poke(18, &[0, 0]), dropped(of_tcp)),
        ("IPv6 without room for TCP", tcp6().poke(18, &[0, 19]), dropped(of_tcp)),
        ("IPv6 TCP of four words", tcp6().poke(66, &[0x4f]), dropped(of_tcp)),
        ("IPv6 TCP options beyond", tcp6().poke(66, &[0xff]), dropped(of_tcp)),
        ("IPv6 without room for UDP", udp6().poke(18, &[0, 7]), dropped(of_udp)),
        ("IPv6 UDP of 7 bytes", udp6().poke(58, &[0, 7]), dropped(of_udp)),
        ("IPv6 longer UDP than IP", udp6().poke(58, &[0, 29]), dropped(of_udp)),
        ("an extension beyond", tcp6().extension(0, 1).poke(55, &[9]), dropped(ip_header)),
        ("an extension that is cut", tcp6().extension(0, 1).poke(18, &[0, 7]), dropped(ip_header)),
        ("ICMP of 7 bytes", icmp("10.9.0.9", "10.0.0.100", 8, 0).poke(16, &[0, 27]), {
            dropped(Drop::Icmp)
        }),
        ("ICMPv6 of 7 bytes", icmp("fd09::9", "fd00::100", 128, 0).poke(18, &[0, 7]), {
            dropped(Drop::Icmp)
        }),
        ("an error about nothing", icmp("10.9.0.9", "10.0.0.100", 3, 1), dropped(Drop::Icmp)),
        ("an IPv6 error about nothing", icmp("fd09::9", "fd00::100", 1, 1), dropped(Drop::Icmp)),
    ];
    let four = (0..4).fold(tcp6(), |packet, _| packet.extension(60, 1));
    cases.push(("four extensions", four, dropped(ip_header)));
    let three = (0..3).fold(tcp6(), |packet, _| packet.extension(60, 1));
    cases.push(("three extensions", three.clone(), near(three, 0x11)));
    for length in [34, 35, 37, 53, 73] {
        cases.push(("a cut frame", tcp4().cut(length), dropped(cut)));
        cases.push(("a cut frame", udp4().cut(length.min(61)), dropped(cut)));
    }
    for length in [54, 55, 73, 93] {
        cases.push(("a cut IPv6 frame", tcp6().cut(length), dropped(cut)));
        cases.push(("a cut IPv6 frame", udp6().cut(length.min(81)), dropped(cut)));
    }
    check(&fast, &cases);
}

#[test]
fn what_no_backend_can_take_is_dropped() {
    let test = "what_no_backend_can_take_is_dropped";
    let Some(fast) = open(test, &path()) else { return };
    let cases: Vec<Case> = vec![
        ("nobody", tcp(C4, "10.0.0.103:80").syn(), dropped(Drop::NoBackend)),
        ("not known yet", tcp(C4, "10.0.0.103:81"), dropped(Drop::NoNeighbour)),
        ("DSR through a router", tcp(C4, "10.0.0.103:82"), dropped(Drop::NoNeighbour)),
        ("this host", tcp(C4, "10.0.0.103:83"), Pass),
        ("this host, translated", tcp(C4, "10.0.0.103:84"), dropped(Drop::NoNeighbour)),
    ];
    check(&fast, &cases);
}

#[test]
fn the_vip_answers_to_ping() {
    let test = "the_vip_answers_to_ping";
    let Some(fast) = open(test, &path()) else { return };
    let ask = |from: &str, to: &str, kind| icmp(from, to, kind, 0).rest([1, 2, 0, 9]).long(56);
    let mut cases: Vec<Case> = Vec::new();
    for ttl in [1, 61, 64, 255] {
        let p = ask("10.9.0.9", "10.0.0.100", 8).ttl(ttl);
        let answer = ask("10.0.0.100", "10.9.0.9", 0).ttl(64).macs(ROUTER, NEAR);
        cases.push(("ping", p, Transmit(answer)));
        let p = ask("fd09::9", "fd00::100", 128).ttl(ttl);
        let answer = ask("fd00::100", "fd09::9", 129).ttl(64).macs(ROUTER, NEAR);
        cases.push(("ping of IPv6", p, Transmit(answer)));
    }
    check(&fast, &cases);
}

#[test]
fn errors_go_to_the_backend_that_has_the_flow() {
    let test = "errors_go_to_the_backend_that_has_the_flow";
    let Some(fast) = open(test, &path()) else { return };
    // A router on the way from the VIP to the client complains.
    let complain = |about: &Packet, kind, code| {
        icmp("10.5.0.1", "10.0.0.100", kind, code).rest([0, 0, 5, 0]).payload(&about.frame()[14..])
    };
    let complain6 = |about: &Packet, kind| {
        icmp("fd05::1", "fd00::100", kind, 0).rest([0, 0, 5, 0]).payload(&about.frame()[14..])
    };
    let sent = tcp("10.0.0.100:80", C4).long(20);
    let sent6 = tcp("[fd00::100]:80", C6).long(20);
    let tunnelled = complain(&tcp("10.0.0.100:443", C4), 3, 4);
    let in_udp = complain(&tcp("10.0.0.100:445", C4), 3, 4);
    let from = format!("10.0.1.1:{}", source_port(C4));
    let mut cases: Vec<Case> = vec![
        ("tunnel", tunnelled.clone(), far(tunnelled.clone().hop().within("10.0.1.1", "10.0.2.21"))),
        ("gue", in_udp.clone(), far(in_udp.clone().hop().in_udp(&from, "10.0.2.21:6080"))),
        ("redirect", complain(&sent, 5, 0), Pass),
        ("about another's packet", complain(&tcp("10.0.0.200:80", C4), 3, 4), Pass),
        ("about another port", complain(&tcp("10.0.0.100:99", C4), 3, 4), Pass),
        ("about a ping", complain(&icmp("10.0.0.100", "10.9.0.9", 0, 0), 3, 1), Pass),
        ("a quoted header of 4 words", complain(&sent.clone().poke(14, &[0x44]), 3, 4), {
            dropped(Drop::Icmp)
        }),
        ("a quoted later piece", complain(&sent.clone().poke(20, &[0, 9]), 3, 4), Pass),
        ("a quotation that is cut", complain(&sent.clone().cut(41), 3, 4), dropped(Drop::Icmp)),
    ];
    for (kind, code) in [(3, 0), (3, 1), (3, 4), (11, 0), (12, 0)] {
        let p = complain(&sent, kind, code);
        cases.push(("dsr", p.clone(), near(p, 11)));
    }
    for kind in [1, 2, 3, 4] {
        let p = complain6(&sent6, kind);
        cases.push(("dsr of IPv6", p.clone(), near(p, 0x11)));
    }
    let quoted_options = complain(&sent.clone().options(&[1; 8]), 3, 4);
    cases.push(("quoted options", quoted_options.clone(), near(quoted_options, 11)));
    let shortest = complain(&sent.cut(42), 3, 4);
    cases.push(("the shortest quotation", shortest.clone(), near(shortest, 11)));
    check(&fast, &cases);
}

#[test]
fn errors_about_translated_packets_are_translated() {
    let test = "errors_about_translated_packets_are_translated";
    let Some(fast) = open(test, &path()) else { return };
    // Of the quoted packet the first bytes only: their checksum nobody looks at.
    let said = |from: &str, vip: &str, source: &str, client: &str, kind: u8| {
        let quoted = tcp(source, client).long(20).frame()[14..].to_vec();
        let length = if vip.contains('.') { 28 } else { 48 };
        icmp(from, vip, kind, if kind == 3 { 4 } else { 0 }).payload(&quoted[..length])
    };
    let before = said("10.5.0.1", "10.0.0.101", "10.0.0.101:80", C4, 3);
    let after = said("10.5.0.1", "10.0.0.31", "10.0.0.31:8080", C4, 3).hop();
    let before6 = said("fd05::1", "fd00::101", "[fd00::101]:80", C6, 2);
    let after6 = said("fd05::1", "fd00::31", "[fd00::31]:8080", C6, 2).hop();
    let cases: Vec<Case> = vec![
        ("nat", before.clone(), near(after, 31)),
        ("nat of IPv6", before6, near(after6, 0x31)),
        ("no hop left", before.ttl(1), dropped(Drop::TimeToLive)),
    ];
    check(&fast, &cases);
}

/// Where packets of this client are sent from in UDP.
fn source_port(client: &str) -> u64 {
    let client: std::net::SocketAddr = client.parse().unwrap();
    49_152 + (hash_flow(path().seed, client.ip(), client.port()) >> 50)
}

#[test]
fn the_pieces_of_a_datagram_go_where_the_first_one_goes() {
    let test = "the_pieces_of_a_datagram_go_where_the_first_one_goes";
    let Some(fast) = open(test, &path()) else { return };
    let dns4 = |id| udp(C4, "10.0.0.100:53").long(2000).id(id).pieces(808);
    let dns6 = |id| udp(C6, "[fd00::100]:53").long(2000).id(id).pieces(808);
    let nat4 = |id| udp(C4, "10.0.0.101:53").long(2000).id(id);
    let mut cases: Vec<Case> = Vec::new();
    for piece in dns4(7).into_iter().rev().take(2) {
        cases.push(("before the first", piece, Pass));
    }
    for piece in dns4(7) {
        cases.push(("dsr", piece.clone(), near(piece, 12)));
    }
    cases.push(("of another datagram", dns4(8)[1].clone(), Pass));
    for piece in dns6(70_000) {
        cases.push(("dsr of IPv6", piece.clone(), near(piece, 0x12)));
    }
    cases.push(("of another datagram", dns6(70_001)[1].clone(), Pass));
    // The checksum in the first piece is that of the whole.
    let after = nat4(9).to("10.0.2.32:5353").hop().pieces(808);
    for (piece, after) in nat4(9).pieces(808).into_iter().zip(after) {
        cases.push(("nat", piece, far(after)));
    }
    for piece in udp(C4, "10.0.0.100:443").long(2000).id(10).pieces(808) {
        cases.push((
            "tunnel",
            piece.clone(),
            near(piece.clone().hop().within("10.0.0.1", "10.0.0.22"), 22),
        ));
    }
    // What follows has no ports, so it comes from another port than the first one.
    for (at, piece) in
        udp(C4, "10.0.0.100:445").long(2000).id(11).pieces(808).into_iter().enumerate()
    {
        let from = format!("10.0.0.1:{}", source_port(if at == 0 { C4 } else { "10.9.0.9:0" }));
        cases.push((
            "gue",
            piece.clone(),
            near(piece.clone().hop().in_udp(&from, "10.0.0.22:9886"), 22),
        ));
    }
    for piece in udp(C4, "10.0.0.100:99").long(2000).id(7).pieces(808) {
        cases.push(("to the host itself, under a known number", piece, Pass));
    }
    cases.push(("a piece of a ping", icmp("10.9.0.9", "10.0.0.100", 8, 0).poke(20, &[0x20, 0]), {
        Pass
    }));
    let short = udp(C4, "10.0.0.100:53").poke(20, &[0x20, 0]).poke(16, &[0, 27]);
    cases.push(("a first piece too short", short, dropped(Drop::UdpHeader)));
    check(&fast, &cases);
}

#[test]
fn the_sender_is_told_what_does_not_fit() {
    let test = "the_sender_is_told_what_does_not_fit";
    let Some(fast) = open(test, &path()) else { return };
    let told = |packet: &Packet, from: &str, to: &str, mtu: u16| {
        let (kind, code) = if from.contains('.') { (3, 4) } else { (2, 0) };
        let [high, low] = mtu.to_be_bytes();
        let answer = icmp(from, to, kind, code)
            .rest([0, 0, high, low])
            .payload(&packet.frame()[14..14 + 128])
            .ttl(64)
            .id(0)
            .dont_fragment()
            .macs(ROUTER, NEAR);
        Transmit(answer)
    };
    let mut cases: Vec<Case> = Vec::new();
    for length in [1441, 1442, 1460] {
        let p = tcp(C4, "10.0.0.100:443").long(length);
        cases.push(("IPv4 in IPv4", p.clone(), told(&p, "10.0.0.100", "10.9.0.9", 1480)));
        let p = tcp(C4, "10.0.0.100:444").long(length);
        cases.push(("IPv4 in IPv6", p.clone(), told(&p, "10.0.0.100", "10.9.0.9", 1460)));
        let p = tcp(C6, "[fd00::100]:443").long(length);
        cases.push(("IPv6 in IPv6", p.clone(), told(&p, "fd00::100", "fd09::9", 1460)));
        let p = tcp(C6, "[fd00::100]:444").long(length);
        cases.push(("IPv6 in IPv4", p.clone(), told(&p, "fd00::100", "fd09::9", 1480)));
    }
    for length in [1433, 1441, 1460] {
        let p = tcp(C4, "10.0.0.100:445").long(length);
        cases.push(("IPv4 in UDP", p.clone(), told(&p, "10.0.0.100", "10.9.0.9", 1472)));
        let p = tcp(C4, "10.0.0.100:446").long(length);
        cases.push(("IPv4 in UDP of IPv6", p.clone(), told(&p, "10.0.0.100", "10.9.0.9", 1452)));
        let p = tcp(C6, "[fd00::100]:445").long(length);
        cases.push(("IPv6 in UDP of IPv6", p.clone(), told(&p, "fd00::100", "fd09::9", 1452)));
        let p = tcp(C6, "[fd00::100]:446").long(length);
        cases.push(("IPv6 in UDP", p.clone(), told(&p, "fd00::100", "fd09::9", 1472)));
    }
    let p = udp(C4, "10.0.0.101:53").long(2000);
    cases.push(("nat", p.clone(), told(&p, "10.0.0.101", "10.9.0.9", 1500)));
    let p = tcp(C4, "10.0.0.100:443").options(&[1; 40]).dont_fragment().long(1460);
    cases.push(("options", p.clone(), told(&p, "10.0.0.100", "10.9.0.9", 1480)));
    let pieces = udp(C4, "10.0.0.100:443").long(3000).pieces(1488);
    cases.push((
        "a first piece",
        pieces[0].clone(),
        told(&pieces[0], "10.0.0.100", "10.9.0.9", 1480),
    ));
    cases.push(("a later piece", pieces[1].clone(), dropped(Drop::TooBig)));
    check(&fast, &cases);
}

/// On a link of so small an MTU that a packet may be too long for it and too short to be quoted.
#[test]
fn what_does_not_fit_and_is_too_short_to_be_quoted_has_no_room() {
    let test = "what_does_not_fit_and_is_too_short_to_be_quoted_has_no_room";
    let opened = Fast::open_unpinned(Capacity::of(&path()));
    let Some(mut fast) = permitted(test, opened) else { return };
    let mut narrow = |to| {
        way(to).map(|way| match way {
            Way::Local => Way::Local,
            Way::Via(hop) => Way::Via(NextHop { mtu: 100, ..hop }),
        })
    };
    fast.apply(&path(), &mut narrow).unwrap();
    let no_room = || dropped(Drop::NoRoom);
    let whole = |to: &str, length: usize| {
        let headers = if to.starts_with('[') { 60 } else { 40 };
        tcp(if headers == 60 { C6 } else { C4 }, to).long(length - headers)
    };
    let (dsr, dsr6) = ("10.0.0.100:80", "[fd00::100]:80");
    let (tunnel, tunnel6) = ("10.0.0.100:443", "[fd00::100]:443");
    let cases: Vec<Case> = vec![
        ("it fits", whole(dsr, 100), near(whole(dsr, 100), 11)),
        ("a byte more", whole(dsr, 101), no_room()),
        ("a byte too short", whole(dsr, 127), no_room()),
        ("a tunnel", whole(tunnel, 81), no_room()),
        ("in UDP", whole("10.0.0.100:445", 73), no_room()),
        ("nat", whole("10.0.0.101:80", 101), no_room()),
        ("IPv6, it fits", whole(dsr6, 100), near(whole(dsr6, 100), 0x11)),
        ("IPv6, a byte more", whole(dsr6, 101), no_room()),
        ("IPv6, a byte too short", whole(dsr6, 127), no_room()),
        ("an IPv6 tunnel", whole(tunnel6, 61), no_room()),
        ("IPv6 nat", whole("[fd00::101]:80", 101), no_room()),
        ("options", whole(dsr, 80).options(&[1; 40]), no_room()),
    ];
    check(&fast, &cases);
    // Where it can be quoted, it is.
    for (to, length) in [(dsr, 128), (dsr6, 128)] {
        let tried = fast.try_frame(&whole(to, length).frame()).unwrap();
        assert_eq!(tried.verdict, Verdict::Transmit);
    }
}

/// A kernel may go through at most a million instructions.
#[test]
fn the_verifier_has_more_room_than_the_programs_need() {
    let test = "the_verifier_has_more_room_than_the_programs_need";
    let Some(mut fast) = open(test, &path()) else { return };
    for length in fast.lengths().unwrap() {
        eprintln!("{length:?}");
        assert!(length.verified < 600_000, "{length:?}");
    }
}
