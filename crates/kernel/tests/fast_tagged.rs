//! What the fast path does with frames that have a VLAN tag: byte for byte, and on a wire.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod cases;
mod hosts;
mod packets;
mod world;

use buoy_kernel::fast::{Capacity, Fast, Neighbours};
use buoy_kernel::{clock, host};
use buoy_model::{FastPath, Forward, LinkId, Protocol};
use buoy_xdp::forward::Drop;
use cases::Fate::{Changed, Pass, Redirect, Transmit};
use cases::{C4, C6, Case, check, dropped, near};
use hosts::{Hosts, know_all};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};
use packets::{NEAR, Packet, ROUTER, icmp, raw, tcp, udp};
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::time::Duration;
use world::{FAR_MAC, FAR_ROUTER, LOOPBACK, open, path, permitted, service};

/// What becomes of a packet that leaves by another interface: it has no tag any more.
fn beyond(packet: Packet) -> cases::Fate {
    Redirect(packet.untagged().macs(FAR_ROUTER, FAR_MAC))
}

#[test]
fn a_packet_keeps_its_tag_where_it_leaves_as_it_came() {
    let test = "a_packet_keeps_its_tag_where_it_leaves_as_it_came";
    let Some(fast) = open(test, &path()) else { return };
    let mut cases: Vec<Case> = Vec::new();
    for (id, priority) in [(1, 0), (7, 5), (4094, 7), (0, 0), (0, 6)] {
        let tagged = |packet: Packet| packet.vlan(id, priority);
        for length in [0, 1, 400, 1460] {
            let p = tagged(tcp(C4, "10.0.0.100:80").long(length));
            cases.push(("dsr", p.clone(), near(p, 11)));
        }
        let p = tagged(udp(C4, "10.0.0.100:53").padding(18));
        cases.push(("dsr, padded", p.clone(), near(p, 12)));
        let p = tagged(tcp(C6, "[fd00::100]:80"));
        cases.push(("dsr of IPv6", p.clone(), near(p, 0x11)));
        let p = tagged(udp(C4, "10.0.0.100:443"));
        cases.push((
            "tunnel",
            p.clone(),
            near(p.clone().hop().within("10.0.0.1", "10.0.0.22"), 22),
        ));
        let p = tagged(tcp(C4, "10.0.0.101:80"));
        let translated = p.clone().to("10.0.0.31:8080").hop();
        cases.push(("nat", p, near(translated, 31)));
        let p = tagged(tcp(C6, "[fd00::101]:80"));
        let translated = p.clone().to("[fd00::31]:8080").hop();
        cases.push(("nat of IPv6", p, near(translated, 0x31)));
        let p = tagged(tcp(C4, "10.0.0.100:443"));
        let wrapped = p.clone().hop().within("10.0.1.1", "10.0.2.21");
        cases.push(("a tunnel beyond a router", p, beyond(wrapped)));
        let p = tagged(udp(C4, "10.0.0.101:53"));
        let translated = p.clone().to("10.0.2.32:5353").hop();
        cases.push(("nat beyond a router", p, beyond(translated)));
        let p = tagged(tcp(C4, "10.0.0.100:80").options(&[1; 8]));
        cases.push(("options", p.clone(), near(p, 11)));
        let p = tagged(tcp(C6, "[fd00::100]:80").extension(60, 1));
        cases.push(("an extension", p.clone(), near(p, 0x11)));
    }
    check(&fast, &cases);
}

#[test]
fn what_is_unusual_is_so_with_a_tag_too() {
    let test = "what_is_unusual_is_so_with_a_tag_too";
    let Some(fast) = open(test, &path()) else { return };
    let tagged = |packet: Packet| packet.vlan(7, 3);
    let pieces = tcp(C4, "10.0.0.100:80").id(99).long(100).pieces(48);
    let mut cases: Vec<Case> = Vec::new();
    for piece in pieces {
        let piece = tagged(piece);
        cases.push(("a piece", piece.clone(), near(piece, 11)));
    }
    let sent = tcp("10.0.0.100:80", C4).long(20).frame()[14..].to_vec();
    let error = tagged(icmp("10.5.0.1", "10.0.0.100", 3, 4).rest([0, 0, 5, 0]).payload(&sent));
    let large = tcp(C4, "10.0.0.100:443").long(1460);
    let refusal = icmp("10.0.0.100", "10.9.0.9", 3, 4)
        .rest([0, 0, 5, 0xc8])
        .payload(&large.frame()[14..14 + 128])
        .ttl(64)
        .id(0)
        .dont_fragment()
        .macs(ROUTER, NEAR);
    let of_tcp = tcp(C4, "10.0.0.100:80").poke(16, &[0, 39]).frame()[14..].to_vec();
    let untagged = tcp(C4, "10.0.0.100:80");
    cases.extend([
        ("an error", error.clone(), near(error, 11)),
        ("what does not fit", tagged(large), Transmit(tagged(refusal))),
        ("no backend", tagged(tcp(C4, "10.0.0.103:80").syn()), dropped(Drop::NoBackend)),
        ("no neighbour", tagged(tcp(C4, "10.0.0.103:81")), dropped(Drop::NoNeighbour)),
        ("no hop left", tagged(tcp(C4, "10.0.0.101:80").ttl(1)), dropped(Drop::TimeToLive)),
        ("no room for TCP", tagged(raw("10.9.0.9", "10.0.0.100", 6).payload(&of_tcp[20..39])), {
            dropped(Drop::TcpHeader)
        }),
        ("this host", tagged(tcp(C4, "10.0.0.103:83")), Pass),
        // What one packet leaves behind is nothing to the next.
        ("none", untagged.clone(), near(untagged, 11)),
    ]);
    check(&fast, &cases);
}

#[test]
fn of_a_vlan_all_else_passes_untouched() {
    let test = "of_a_vlan_all_else_passes_untouched";
    let Some(mut fast) = open(test, &path()) else { return };
    let tagged = |packet: Packet| packet.vlan(7, 1);
    let mut cases: Vec<Case> = vec![
        ("another address", tagged(tcp(C4, "10.0.0.200:80").syn()), Pass),
        ("another IPv6 address", tagged(tcp(C6, "[fd00::200]:80")), Pass),
        ("another port", tagged(tcp(C4, "10.0.0.100:81").syn()), Pass),
        ("another transport", tagged(raw("10.9.0.9", "10.0.0.100", 132).payload(&[0; 8])), Pass),
        ("a ping", tagged(icmp("10.9.0.9", "10.0.0.100", 8, 0)), Pass),
        ("a ping of IPv6", tagged(icmp("fd09::9", "fd00::100", 128, 0)), Pass),
        ("a solicitation", tagged(icmp("fd09::9", "fd00::100", 135, 0).payload(&[0; 16])), Pass),
        ("to a group", tagged(icmp("fd09::9", "ff02::1:ff00:100", 135, 0).payload(&[0; 16])), Pass),
        ("ARP", tagged(tcp(C4, "10.0.0.100:80")).poke(16, &[8, 6]), Pass),
        ("an answer", tagged(tcp("10.0.0.31:8080", C4)), Pass),
        ("a mapped address", tagged(tcp(C6, "[::ffff:10.0.0.100]:80")), Pass),
        ("malformed, to another", tagged(tcp(C4, "10.0.0.200:80").poke(18, &[0x41])), Pass),
        ("a tag within", tagged(tcp(C4, "10.0.0.100:80")).poke(16, &[0x81, 0]), Pass),
        ("a provider's", tagged(tcp(C4, "10.0.0.100:80")).poke(12, &[0x88, 0xa8]), Pass),
    ];
    for length in [14, 15, 17, 18, 19, 37] {
        cases.push(("a cut frame", tagged(tcp(C4, "10.0.0.100:80")).cut(length), Pass));
    }
    for length in [57, 40] {
        cases.push(("a cut IPv6 frame", tagged(tcp(C6, "[fd00::100]:80")).cut(length), Pass));
    }
    check(&fast, &cases);
    // Where this host has an interface for a VLAN, its frames are that interface's.
    let forwarded = |id: u16| tcp(C4, "10.0.0.100:80").vlan(id, 0);
    let goes = |id| ("no interface", forwarded(id), near(forwarded(id), 11));
    let stays = |id| ("an interface", forwarded(id), Pass);
    fast.leave_vlans(&BTreeSet::from([(LOOPBACK, 7), (LOOPBACK, 9), (LinkId(5), 8)])).unwrap();
    check(&fast, &[stays(7), goes(8), stays(9), goes(0)]);
    fast.leave_vlans(&BTreeSet::from([(LOOPBACK, 8)])).unwrap();
    check(&fast, &[goes(7), stays(8), goes(9)]);
}

#[test]
fn a_priority_is_no_vlan() {
    let test = "a_priority_is_no_vlan";
    let Some(fast) = open(test, &path()) else { return };
    let tagged = |packet: Packet| packet.vlan(0, 5);
    let ask = |from: &str, to: &str, kind| icmp(from, to, kind, 0).rest([1, 2, 0, 9]).long(56);
    let pong = ask("10.0.0.100", "10.9.0.9", 0).ttl(64).macs(ROUTER, NEAR);
    let pong6 = ask("fd00::100", "fd09::9", 129).ttl(64).macs(ROUTER, NEAR);
    let answer = tcp("10.0.0.31:8080", C4).flags(0x12);
    let answer6 = tcp("[fd00::31]:8080", C6).flags(0x12);
    let cases: Vec<Case> = vec![
        ("a ping", tagged(ask("10.9.0.9", "10.0.0.100", 8)), Transmit(tagged(pong))),
        ("a ping of IPv6", tagged(ask("fd09::9", "fd00::100", 128)), Transmit(tagged(pong6))),
        ("an answer", tagged(answer.clone()), Changed(tagged(answer.from("10.0.0.101:80")))),
        ("an IPv6 answer", tagged(answer6.clone()), {
            Changed(tagged(answer6.from("[fd00::101]:80")))
        }),
        ("of nobody", tagged(tcp("10.0.0.31:8081", C4)), Pass),
        ("another address", tagged(tcp(C4, "10.0.0.200:80")), Pass),
        ("ARP", tagged(tcp(C4, "10.0.0.100:80")).poke(16, &[8, 6]), Pass),
        ("to a group", tagged(icmp("fd09::9", "ff02::1:ff00:100", 135, 0).payload(&[0; 16])), Pass),
    ];
    check(&fast, &cases);
}

const VIP: &str = "10.1.0.100";

/// Frames to the VIP with a tag, from the client until one has arrived there or at the server.
fn arrives(hosts: &Hosts, at_server: bool, packet: &Packet) {
    let count = || hosts::run("nft", "list table netdev seen").contains("packets 0 ");
    let has_come = || if at_server { !hosts.at_server(count) } else { !hosts.at_client(count) };
    let frame = packet.frame();
    let client = hosts.at_client(|| {
        let ends = getifaddrs().unwrap().filter(|i| i.interface_name == "client");
        ends.filter_map(|i| i.address?.as_link_addr().copied()).next().unwrap()
    });
    let flags = SockFlag::SOCK_CLOEXEC;
    let raw =
        hosts.at_client(|| socket(AddressFamily::Packet, SockType::Raw, flags, None).unwrap());
    let deadline = clock::now() + Duration::from_secs(10);
    while !has_come() {
        assert!(clock::now() < deadline, "nothing came");
        sendto(raw.as_raw_fd(), &frame, &client, MsgFlags::empty()).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Counts frames to the VIP that come in by this interface, with this tag or without one.
fn count_by(interface: &str, tag: &str) {
    for words in [
        "add table netdev seen".to_owned(),
        format!(
            "add chain netdev seen come {{ type filter hook ingress device {interface} priority 0; }}"
        ),
        format!("add rule netdev seen come {tag} ip daddr {VIP} tcp dport 80 counter drop"),
    ] {
        hosts::run("nft", &words);
    }
}

#[test]
fn on_a_wire_a_tag_is_kept_on_the_way_back_and_left_off_beyond() {
    let test = "on_a_wire_a_tag_is_kept_on_the_way_back_and_left_off_beyond";
    let Some(hosts) = Hosts::new(test) else { return };
    // One backend is where the packets come from, the other one is not.
    for (backend, tag, at_server) in
        [("10.1.0.2:0", "vlan id 7 vlan pcp 5", false), ("10.2.0.2:0", "meta protocol ip", true)]
    {
        let services = vec![service(Protocol::Tcp, VIP, (80, 80), Forward::Dsr, &[backend])];
        let path = FastPath { seed: 7, services };
        let Some(mut fast) = permitted(test, Fast::open_unpinned(Capacity::of(&path))) else {
            return;
        };
        let mut neighbours = Neighbours::open().unwrap();
        fast.apply(&path, &mut |to| neighbours.resolve(to)).unwrap();
        know_all(&mut fast, &mut neighbours);
        let links = host::facts().unwrap().links.into_iter();
        for link in links.filter(|l| l.name.starts_with("to-")) {
            fast.attach(link.id).unwrap();
        }
        let here = |name: &str| {
            let links = host::facts().unwrap().links.into_iter();
            links.filter(|l| l.name == name).find_map(|l| l.mac).unwrap()
        };
        let (to, from) = (here("to-client"), hosts.at_client(|| here("client")));
        if at_server {
            hosts.at_server(|| count_by("server", tag));
        } else {
            hosts.at_client(|| count_by("client", tag));
        }
        let packet = tcp("10.1.0.2:999", "10.1.0.100:80").vlan(7, 5).macs(to, from);
        arrives(&hosts, at_server, &packet);
    }
}
