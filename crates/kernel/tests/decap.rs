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
        let ip = |text: &str| text.parse().unwrap();
        let decap =
            Decap { vips: ["10.1.0.100", "fd01::100"].map(ip).into(), own: SERVERS.map(ip).into() };
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
