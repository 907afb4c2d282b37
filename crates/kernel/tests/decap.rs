//! The program of a real server on single frames: what it takes out, byte for byte, and what it leaves alone.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod packets;

use buoy_kernel::backend::{Counts, Decap, Decapsulator};
use packets::{Packet, icmp, raw, tcp, udp};

const PASS: u32 = 2;
const DROP: u32 = 1;

/// Director, server and VIP of either family.
const DIRECTORS: [&str; 2] = ["10.2.0.1", "fd02::1"];
const SERVERS: [&str; 2] = ["10.2.0.2", "fd02::2"];
const CLIENTS: [&str; 2] = ["192.0.2.7:40000", "[2001:db8::7]:40000"];
const VIPS: [&str; 2] = ["10.1.0.100:80", "[fd01::100]:80"];
/// Each family in each.
const PAIRS: [(usize, usize); 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];

struct Server {
    decapsulator: Decapsulator,
}

impl Server {
    /// `None`, and a line that says so, where BPF programs are not permitted.
    fn new(test: &str) -> Option<Self> {
        Self::of(test, [("10.1.0.100", "ipip"), ("fd01::100", "ipip")])
    }

    fn of<const N: usize>(test: &str, vips: [(&str, &str); N]) -> Option<Self> {
        let vips = vips.map(|(vip, tunnel)| (vip.parse().unwrap(), tunnel.parse().unwrap()));
        let own = SERVERS.map(|server| server.parse().unwrap());
        let decap = Decap { vips: vips.into(), own: own.into() };
        match Decapsulator::load(&decap) {
            Ok(decapsulator) => Some(Self { decapsulator }),
            Err(error) if error.contains("may not load") => {
                eprintln!("SKIPPED: {test}: BPF programs are not permitted here");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn try_frame(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        self.decapsulator.try_frame(frame).unwrap()
    }

    /// Gives what was within, and nothing else.
    fn takes_out(&mut self, outer: &Packet, inner: &Packet, what: &str) {
        let before = self.counts();
        assert_eq!(self.try_frame(&outer.frame()), (PASS, inner.frame()), "{what}");
        let after = self.counts();
        assert_eq!(after.decapsulated, before.decapsulated + 1, "{what}");
    }

    /// Passes it as it is.
    fn leaves_alone(&mut self, frame: &[u8], what: &str) {
        let before = self.counts();
        assert_eq!(self.try_frame(frame), (PASS, frame.to_vec()), "{what}");
        assert_eq!(self.counts().decapsulated, before.decapsulated, "{what}");
    }

    fn counts(&mut self) -> Counts {
        self.decapsulator.counts().unwrap()
    }
}

fn wrapped(inner: &Packet, outer: usize) -> Packet {
    inner.within(DIRECTORS[outer], SERVERS[outer])
}

#[test]
fn each_family_in_each_is_taken_out_byte_for_byte() {
    let test = "each_family_in_each_is_taken_out_byte_for_byte";
    let Some(mut server) = Server::new(test) else { return };
    for (outer, inner) in PAIRS {
        let (client, vip) = (CLIENTS[inner], VIPS[inner]);
        let packets = [
            tcp(client, vip).syn(),
            tcp(client, vip).long(1400),
            tcp(client, vip).payload(b"x"),
            udp(client, vip).payload(b"question"),
            udp(client, vip).unsummed(),
            tcp(client, vip).class(0xb8).ttl(1),
            raw(&host(client), &host(vip), 132).payload(&[1; 12]),
            icmp(&host(client), &host(vip), 8, 0),
        ];
        for packet in packets {
            let what = format!("{outer} {inner} {packet:?}");
            server.takes_out(&wrapped(&packet, outer), &packet, &what);
        }
        let pieces = udp(client, vip).long(3000).pieces(1400);
        for piece in pieces {
            server.takes_out(&wrapped(&piece, outer), &piece, "a fragment within");
        }
    }
    let options = tcp(CLIENTS[0], VIPS[0]).options(&[0x94, 4, 0, 0]);
    server.takes_out(&wrapped(&options, 0), &options, "options within");
    let extension = tcp(CLIENTS[1], VIPS[1]).extension(60, 1);
    server.takes_out(&wrapped(&extension, 1), &extension, "an extension header within");
    assert_eq!(server.counts().malformed, 0);
}

fn host(socket: &str) -> String {
    socket.parse::<std::net::SocketAddr>().unwrap().ip().to_string()
}

/// Short frames are filled up to 60 bytes on the wire; what is behind the packet stays behind it.
#[test]
fn what_fills_a_short_frame_up_does_no_harm() {
    let Some(mut server) = Server::new("what_fills_a_short_frame_up_does_no_harm") else { return };
    for (outer, inner) in PAIRS {
        let packet = udp(CLIENTS[inner], VIPS[inner]).padding(6);
        server.takes_out(&wrapped(&packet, outer), &packet, "padding");
    }
}

#[test]
fn what_is_for_nobody_here_passes_untouched() {
    let Some(mut server) = Server::new("what_is_for_nobody_here_passes_untouched") else { return };
    for (outer, inner) in PAIRS {
        let packet = tcp(CLIENTS[inner], VIPS[inner]);
        let frames = [
            ("not wrapped", packet.clone()),
            ("another VIP within", {
                let to = ["10.1.0.101:80", "[fd01::101]:80"][inner];
                wrapped(&packet.clone().to(to), outer)
            }),
            ("this host's own address within", {
                let to = ["10.2.0.2:80", "[fd02::2]:80"][inner];
                wrapped(&packet.clone().to(to), outer)
            }),
            ("for another server", {
                packet.within(DIRECTORS[outer], ["10.2.0.3", "fd02::3"][outer])
            }),
            (
                "for the VIP itself",
                packet.within(DIRECTORS[outer], ["10.1.0.100", "fd01::100"][outer]),
            ),
            ("wrapped twice", wrapped(&wrapped(&packet, outer), outer)),
            ("another protocol", raw(DIRECTORS[outer], SERVERS[outer], 47).payload(&[0; 60])),
            ("nothing within", raw(DIRECTORS[outer], SERVERS[outer], [4, 41][inner])),
        ];
        for (what, packet) in frames {
            server.leaves_alone(&packet.frame(), &format!("{what}: {outer} {inner}"));
        }
    }
    assert_eq!(server.counts(), Counts::default());
    // With a VLAN tag, and what is no IP at all.
    let plain = wrapped(&tcp(CLIENTS[0], VIPS[0]), 0).frame();
    let tagged = [&plain[..12], &[0x81, 0, 0, 7], &plain[12..]].concat();
    server.leaves_alone(&tagged, "a VLAN tag");
    let arp = [&plain[..12], &[8, 6], &[0; 46][..]].concat();
    server.leaves_alone(&arp, "ARP");
}

/// Offsets are from the start of the frame: 14 for the outer header, 34 or 54 for the inner one.
#[test]
fn what_is_not_sane_passes_untouched_and_is_counted_where_it_is_for_a_vip() {
    let test = "what_is_not_sane_passes_untouched_and_is_counted_where_it_is_for_a_vip";
    let Some(mut server) = Server::new(test) else { return };
    let (v4, v6) = (tcp(CLIENTS[0], VIPS[0]).long(100), tcp(CLIENTS[1], VIPS[1]).long(100));
    let long = 20 + 20 + 100 + 1_u16;
    let malformed = [
        ("another version within", wrapped(&v4, 0).poke(34, &[0x65])),
        ("a header too short within", wrapped(&v4, 0).poke(34, &[0x44])),
        ("shorter than its header within", wrapped(&v4, 0).poke(36, &[0, 19])),
        ("a header longer than the packet", wrapped(&v4, 0).poke(34, &[0x4f]).poke(36, &[0, 59])),
        ("longer than what it is in", wrapped(&v4, 0).poke(36, &long.to_be_bytes())),
        ("longer in IPv6", wrapped(&v4, 1).poke(56, &long.to_be_bytes())),
        ("another version in IPv6", wrapped(&v6, 1).poke(54, &[0x45])),
        ("IPv6 longer than what it is in", wrapped(&v6, 1).poke(58, &[0, 121])),
        ("IPv6 longer in IPv4", wrapped(&v6, 0).poke(38, &[0xff, 0xff])),
    ];
    let count = malformed.len() as u64;
    for (what, packet) in malformed {
        server.leaves_alone(&packet.frame(), what);
    }
    assert_eq!(server.counts().malformed, count);
    let untouched = [
        ("a wrong checksum without", wrapped(&v4, 0).poke(24, &[0x12, 0x34])),
        ("outer options", wrapped(&v4, 0).options(&[0x94, 4, 0, 0])),
        ("outer extension header", wrapped(&v6, 1).extension(60, 1)),
        ("another version without", wrapped(&v4, 0).poke(14, &[0x55])),
        ("another version without, IPv6", wrapped(&v6, 1).poke(14, &[0x40])),
        ("an outer length of nothing", wrapped(&v4, 0).poke(16, &[0, 0])),
        ("an outer length past the frame", wrapped(&v4, 0).poke(16, &[0xff, 0xff])),
        ("an outer length past the frame, IPv6", wrapped(&v6, 1).poke(18, &[0xff, 0xff])),
    ];
    for (what, packet) in untouched {
        server.leaves_alone(&packet.frame(), what);
    }
    assert_eq!(server.counts(), Counts { malformed: count, ..Counts::default() });
    for piece in wrapped(&v4, 0).pieces(64) {
        server.leaves_alone(&piece.frame(), "an outer fragment");
    }
    assert_eq!(server.counts().fragments, 3);
}

#[test]
fn no_cut_of_a_frame_is_read_past_its_end() {
    let Some(mut server) = Server::new("no_cut_of_a_frame_is_read_past_its_end") else { return };
    for (outer, inner) in PAIRS {
        let packet = wrapped(&tcp(CLIENTS[inner], VIPS[inner]).long(30), outer);
        for length in 14..packet.frame().len() {
            server.leaves_alone(&packet.clone().cut(length).frame(), &format!("{length}"));
        }
    }
}

/// RFC 6040 section 4.2, figure 4.
#[test]
fn a_mark_of_congestion_on_the_way_is_not_lost() {
    let Some(mut server) = Server::new("a_mark_of_congestion_on_the_way_is_not_lost") else {
        return;
    };
    for (outer, inner) in PAIRS {
        for (inside, outside, after) in [
            (0, 0, Some(0)),
            (0, 1, Some(0)),
            (0, 2, Some(0)),
            (0, 3, None),
            (1, 0, Some(1)),
            (1, 1, Some(1)),
            (1, 2, Some(1)),
            (1, 3, Some(3)),
            (2, 0, Some(2)),
            (2, 2, Some(2)),
            (2, 3, Some(3)),
            (3, 0, Some(3)),
            (3, 1, Some(3)),
            (3, 2, Some(3)),
            (3, 3, Some(3)),
        ] {
            let what = format!("{outer} {inner}: {inside} in {outside}");
            let packet = |ecn: u8| tcp(CLIENTS[inner], VIPS[inner]).class(0xa0 | ecn);
            let sent = wrapped(&packet(inside), outer).class(outside);
            match after {
                Some(after) => server.takes_out(&sent, &packet(after), &what),
                None => assert_eq!(server.try_frame(&sent.frame()), (DROP, sent.frame()), "{what}"),
            }
        }
    }
    assert_eq!(server.counts().congestion, 4);
}

/// In UDP to a port of either server; what is behind the UDP header is first.
fn in_udp(inner: &Packet, header: &[u8], outer: usize, port: u16) -> Packet {
    let ends = [
        ("10.2.0.1:50000".to_owned(), format!("10.2.0.2:{port}")),
        ("[fd02::1]:50000".to_owned(), format!("[fd02::2]:{port}")),
    ];
    let (from, to) = &ends[outer];
    let bytes = [header, &inner.frame()[14..]].concat();
    udp(from, to).unsummed().payload(&bytes).ttl(64)
}

/// The four bytes of variant 0 before a packet of this family.
const fn variant_0(inner: usize) -> [u8; 4] {
    [0, [4, 41][inner], 0, 0]
}

const GUE_VIPS: [(&str, &str); 2] = [("10.1.0.100", "gue"), ("fd01::100", "ipip,gue")];

#[test]
fn each_family_is_taken_out_of_udp_of_each_byte_for_byte() {
    let test = "each_family_is_taken_out_of_udp_of_each_byte_for_byte";
    let Some(mut server) = Server::of(test, GUE_VIPS) else { return };
    for (outer, inner) in PAIRS {
        let (client, vip) = (CLIENTS[inner], VIPS[inner]);
        for packet in [
            tcp(client, vip).syn(),
            tcp(client, vip).long(1400),
            udp(client, vip).payload(b"question"),
            udp(client, vip).unsummed(),
            tcp(client, vip).class(0xb8).ttl(1),
            icmp(&host(client), &host(vip), 8, 0),
        ] {
            let what = format!("{outer} {inner} {packet:?}");
            server.takes_out(&in_udp(&packet, &[], outer, 6080), &packet, &what);
            server.takes_out(&in_udp(&packet, &variant_0(inner), outer, 6080), &packet, &what);
        }
        for piece in udp(client, vip).long(3000).pieces(1400) {
            server.takes_out(&in_udp(&piece, &[], outer, 6080), &piece, "a fragment within");
        }
        // What fills a short frame up stays behind.
        let packet = udp(client, vip);
        let padded = in_udp(&packet, &[], outer, 6080).padding(6);
        server.takes_out(&padded, &packet.padding(6), "padding");
    }
    assert_eq!(server.counts().malformed, 0);
}

#[test]
fn a_vip_is_taken_out_of_what_it_was_prepared_for_and_nothing_else() {
    let test = "a_vip_is_taken_out_of_what_it_was_prepared_for_and_nothing_else";
    let table = [
        ("ipip", [true, false, false]),
        ("gue", [false, true, false]),
        ("gue:9886", [false, false, true]),
        ("ipip,gue", [true, true, false]),
        ("ipip,gue:9886", [true, false, true]),
    ];
    for (tunnel, taken) in table {
        // Another VIP has the other ports, so that their bits are set.
        let vips = [("10.1.0.100", tunnel), ("10.1.0.77", "gue"), ("10.1.0.78", "gue:9886")];
        let Some(mut server) = Server::of(test, vips) else { return };
        let packet = tcp(CLIENTS[0], VIPS[0]).long(9);
        let ways = [
            wrapped(&packet, 0),
            in_udp(&packet, &[], 0, 6080),
            in_udp(&packet, &variant_0(0), 1, 9886),
        ];
        for (at, outer) in ways.iter().enumerate() {
            let what = format!("{tunnel} {at}");
            if taken[at] {
                server.takes_out(outer, &packet, &what);
            } else {
                server.leaves_alone(&outer.frame(), &what);
            }
        }
    }
}

#[test]
fn other_datagrams_and_what_is_no_gue_pass_untouched() {
    let test = "other_datagrams_and_what_is_no_gue_pass_untouched";
    let Some(mut server) = Server::of(test, GUE_VIPS) else { return };
    for (outer, inner) in PAIRS {
        let packet = tcp(CLIENTS[inner], VIPS[inner]).long(40);
        let good = in_udp(&packet, &[], outer, 6080);
        let header = [34, 54][outer];
        let length = (good.frame().len() - header) as u16;
        let frames = [
            ("another port", in_udp(&packet, &[], outer, 6081)),
            ("port 0", in_udp(&packet, &[], outer, 0)),
            ("another VIP within", {
                let to = ["10.1.0.101:80", "[fd01::101]:80"][inner];
                in_udp(&packet.clone().to(to), &[], outer, 6080)
            }),
            ("this host's own address within", {
                let to = ["10.2.0.2:80", "[fd02::2]:80"][inner];
                in_udp(&packet.clone().to(to), &[], outer, 6080)
            }),
            ("for another server", { good.clone().to(["10.2.0.3:6080", "[fd02::3]:6080"][outer]) }),
            ("for the VIP itself", {
                good.clone().to(["10.1.0.100:6080", "[fd01::100]:6080"][outer])
            }),
            ("variant 1 of another version", good.clone().poke(header + 8, &[0x50])),
            ("variant 2", good.clone().poke(header + 8, &[0x80])),
            ("control", in_udp(&packet, &[0x20, 4, 0, 0], outer, 6080)),
            ("extensions", in_udp(&packet, &[1, [4, 41][inner], 0, 0, 0, 0, 0, 0], outer, 6080)),
            ("flags", in_udp(&packet, &[0, [4, 41][inner], 0x80, 0], outer, 6080)),
            ("private flags", in_udp(&packet, &[0, [4, 41][inner], 0, 1], outer, 6080)),
            ("another protocol", in_udp(&packet, &[0, 47, 0, 0], outer, 6080)),
            ("the other family", in_udp(&packet, &variant_0(1 - inner), outer, 6080)),
            ("a datagram of nothing", good.clone().poke(header + 4, &[0, 8])),
            ("a datagram of less", good.clone().poke(header + 4, &[0, 0])),
            ("a datagram longer than what it is in", {
                good.clone().poke(header + 4, &(length + 1).to_be_bytes())
            }),
        ];
        for (what, packet) in frames {
            server.leaves_alone(&packet.frame(), &format!("{what}: {outer} {inner}"));
        }
        for length in 14..good.frame().len() {
            server.leaves_alone(&good.clone().cut(length).frame(), &format!("cut to {length}"));
        }
        let long = in_udp(&packet, &variant_0(inner), outer, 6080);
        for length in 14..long.frame().len() {
            server.leaves_alone(&long.clone().cut(length).frame(), &format!("cut to {length}"));
        }
    }
    let before = server.counts();
    assert_eq!(before.fragments, 0);
    // A packet within that says it is longer than the datagram.
    let packet = tcp(CLIENTS[0], VIPS[0]).long(40);
    let lying = in_udp(&packet, &[], 0, 6080).poke(44, &[0, 81]);
    server.leaves_alone(&lying.frame(), "longer than the datagram");
    assert_eq!(server.counts().malformed, before.malformed + 1);
    for piece in in_udp(&packet, &[], 0, 6080).pieces(64) {
        server.leaves_alone(&piece.frame(), "an outer fragment");
    }
    assert_eq!(server.counts().fragments, 1, "the one that has the port");
}

#[test]
fn a_mark_of_congestion_on_a_datagram_is_not_lost() {
    let test = "a_mark_of_congestion_on_a_datagram_is_not_lost";
    let Some(mut server) = Server::of(test, GUE_VIPS) else { return };
    for (outer, inner) in PAIRS {
        for (header, length) in [(variant_0(inner), 0), (variant_0(inner), 4)] {
            for (inside, outside, after) in
                [(0, 0, Some(0)), (0, 3, None), (1, 3, Some(3)), (2, 3, Some(3)), (3, 0, Some(3))]
            {
                let what = format!("{outer} {inner} {length}: {inside} in {outside}");
                let packet = |ecn: u8| tcp(CLIENTS[inner], VIPS[inner]).class(0xa0 | ecn);
                let sent = in_udp(&packet(inside), &header[..length], outer, 6080).class(outside);
                match after {
                    Some(after) => server.takes_out(&sent, &packet(after), &what),
                    None => {
                        let gone = (DROP, sent.frame());
                        assert_eq!(server.try_frame(&sent.frame()), gone, "{what}");
                    }
                }
            }
        }
    }
}
