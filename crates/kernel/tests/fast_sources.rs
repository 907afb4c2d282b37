//! Services that are not there for everybody: who gets through, and what becomes of the lists.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod cases;
mod packets;
mod world;

use buoy_kernel::fast::{Capacity, Fast, FastError, Verdict};
use buoy_model::{Cidr, FastPath, FastService, Forward, Protocol, SourceRule, Sources, network};
use buoy_xdp::forward::Drop;
use cases::Fate::Pass;
use cases::{C4, C6, Case, check, dropped, far, near};
use packets::{Packet, icmp, raw, tcp, udp};
use std::net::IpAddr;
use std::sync::Arc;
use world::{ip, open, path, service, sources, way};

/// `C4` and `C6` are let in, their neighbours are not, and whole subnets are not.
const LIST: [&str; 5] = ["10.9.0.0/16", "!10.9.0.0/28", "10.9.0.9/32", "fd09::/16", "!fd09::8/126"];
const ALONE: [&str; 1] = ["fd09::9/128"];

/// The services of the other tests, with this list.
fn limited(list: &[&str]) -> FastPath {
    let mut path = path();
    let list = sources(list);
    for service in &mut path.services {
        service.sources = Arc::clone(&list);
    }
    path
}

#[test]
fn who_is_refused_is_dropped_and_who_is_not_goes_on_in_every_shape() {
    let test = "who_is_refused_is_dropped_and_who_is_not_goes_on_in_every_shape";
    let Some(mut fast) = open(test, &limited(&[&LIST[..], &ALONE[..]].concat())) else { return };
    let no = || dropped(Drop::Source);
    let (vip4, vip6) = ("10.0.0.100:80", "[fd00::100]:80");
    let (other4, other6) = ("10.9.0.10:1234", "[fd09::a]:1234");
    let mut cases: Vec<Case> = vec![
        ("allowed", tcp(C4, vip4).syn(), near(tcp(C4, vip4).syn(), 11)),
        ("refused", tcp(other4, vip4).syn(), no()),
        ("an established one", tcp(other4, vip4).long(9), no()),
        ("the first of the subnet", tcp("10.9.0.0:1", vip4), no()),
        ("the last of the subnet", tcp("10.9.0.15:1", vip4), no()),
        ("the next one", tcp("10.9.0.16:1", vip4), near(tcp("10.9.0.16:1", vip4), 11)),
        ("of whom nothing is said", tcp("192.0.2.1:1", vip4), no()),
        ("of IPv6", tcp(C6, vip6).syn(), near(tcp(C6, vip6).syn(), 0x11)),
        ("refused of IPv6", tcp(other6, vip6).syn(), no()),
        ("nothing said of IPv6", tcp("[fd0a::1]:1", vip6), no()),
        ("options", tcp(other4, vip4).options(&[1; 8]), no()),
        ("extensions", tcp(other6, vip6).extension(60, 2).extension(0, 1), no()),
        ("UDP", udp(other4, "10.0.0.100:53"), no()),
        ("a tunnel", tcp(other4, "10.0.0.100:443"), no()),
        ("a translated one", tcp(other4, "10.0.0.101:80"), no()),
        ("a service without backends", tcp(other4, "10.0.0.103:80"), no()),
        ("what does not fit", tcp(other4, "10.0.0.100:443").long(1460), no()),
        ("a malformed one", tcp(other4, vip4).poke(46, &[0x40]), dropped(Drop::TcpHeader)),
        ("no service", tcp(other4, "10.0.0.100:99"), Pass),
        ("another protocol", raw("10.9.0.10", "10.0.0.100", 47), Pass),
    ];
    for piece in udp(other4, "10.0.0.100:53").long(2000).id(7).pieces(808) {
        cases.push(("a piece", piece, no()));
    }
    for piece in udp(other6, "[fd00::100]:53").long(2000).id(70_000).pieces(808) {
        cases.push(("a piece of IPv6", piece, no()));
    }
    for piece in udp(C4, "10.0.0.100:53").long(2000).id(7).pieces(808) {
        cases.push(("an allowed piece", piece.clone(), near(piece, 12)));
    }
    let complain = |from: &str, about: &Packet| {
        icmp(from, "10.0.0.100", 3, 4).rest([0, 0, 5, 0]).payload(&about.frame()[14..])
    };
    let (known, unknown) = (tcp(vip4, C4).long(20), tcp(vip4, other4).long(20));
    let router = complain("10.5.0.1", &known);
    cases.push(("a router's error", router.clone(), near(router, 11)));
    cases.push(("an error about a refused flow", complain("10.5.0.1", &unknown), no()));
    cases.push(("an error from an allowed client", complain("10.9.0.9", &unknown), no()));
    check(&fast, &cases);

    // Another list, on the same services: at once, and backwards.
    fast.apply(&limited(&["!10.9.0.9/32", "!fd09::9/128"]), &mut way).unwrap();
    check(
        &fast,
        &[
            ("refused now", tcp(C4, vip4), no()),
            ("refused now of IPv6", tcp(C6, vip6), no()),
            ("allowed now", tcp(other4, vip4), near(tcp(other4, vip4), 11)),
            ("allowed now of IPv6", tcp(other6, vip6), near(tcp(other6, vip6), 0x11)),
        ],
    );
    let tunnel = tcp(other4, "10.0.0.100:443");
    check(
        &fast,
        &[("a tunnel", tunnel.clone(), far(tunnel.clone().hop().within("10.0.1.1", "10.0.2.21")))],
    );
    fast.apply(&path(), &mut way).unwrap();
    check(&fast, &[("everybody", tcp(C4, vip4), near(tcp(C4, vip4), 11))]);
}

/// Random lists of nested prefixes.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Few of them, so that prefixes lie within each other.
    fn address(&mut self, v4: bool) -> IpAddr {
        let [a, b, c, d] = std::array::from_fn(|_| self.below(3) as u8);
        match v4 {
            true => IpAddr::from([10 + a, b, c << 6, d]),
            false => {
                IpAddr::from([0xfd00 + u16::from(a), 0, 0, b.into(), 0, c.into(), 0, d.into()])
            }
        }
    }

    fn list(&mut self) -> Arc<Sources> {
        let mut rules: Vec<SourceRule> = Vec::new();
        for _ in 0..self.below(12) {
            let v4 = self.below(2) == 0;
            let address = self.address(v4);
            let length = if v4 { self.below(33) } else { self.below(129) } as u8;
            let prefix = network(Cidr::new(address, length).unwrap());
            if rules.iter().all(|rule| rule.prefix != prefix) {
                rules.push(SourceRule { prefix, allows: self.below(3) == 0 });
            }
        }
        Arc::new(Sources::new(rules).unwrap())
    }
}

/// Whether a client gets through to the service of its family.
fn lets_in(fast: &Fast, client: IpAddr, port: u16) -> bool {
    let vip = if client.is_ipv4() { "10.0.0.100" } else { "fd00::100" };
    let from = std::net::SocketAddr::new(client, 1234).to_string();
    let to = std::net::SocketAddr::new(ip(vip), port).to_string();
    let tried = fast.try_frame(&tcp(&from, &to).frame()).unwrap();
    assert!([Verdict::Transmit, Verdict::Drop].contains(&tried.verdict), "{client}");
    tried.verdict == Verdict::Transmit
}

fn two(port: u16, sources: &Arc<Sources>) -> [FastService; 2] {
    let of = |vip, backend| service(Protocol::Tcp, vip, (port, port), Forward::Dsr, &[backend]);
    let both = [of("10.0.0.100", "10.0.0.11:0"), of("fd00::100", "[fd00::11]:0")];
    both.map(|service| FastService { sources: Arc::clone(sources), ..service })
}

#[test]
fn the_programs_decide_as_the_model_does() {
    let test = "the_programs_decide_as_the_model_does";
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let Some(mut fast) = open(test, &path()) else { return };
    for round in 0..60 {
        let lists: Vec<_> = (0..4).map(|_| dice.list()).collect();
        let services = (1..).zip(&lists).flat_map(|(port, list)| two(port, list));
        let mut services: Vec<_> = services.collect();
        services.sort_by_key(|s| (s.address, s.protocol, s.ports));
        let path = FastPath { seed: 1, services };
        fast.apply(&path, &mut way).unwrap();
        assert_eq!(fast.path(), path);
        for n in 0..100 {
            let client = dice.address(n % 2 == 0);
            for (port, list) in (1..).zip(&lists) {
                let is = lets_in(&fast, client, port);
                assert_eq!(is, list.allows(client), "{round}: {client} {:?}", list.rules());
            }
        }
    }
}

fn long_list(number: u32, length: u32) -> Arc<Sources> {
    let rule = |n: u32| {
        let address = IpAddr::from((10 << 24 | number << 12 | n << 2).to_be_bytes());
        SourceRule { prefix: Cidr::new(address, 30).unwrap(), allows: true }
    };
    Arc::new(Sources::new((0..length).map(rule)).unwrap())
}

#[test]
fn lists_make_room_for_others_and_too_many_are_refused() {
    let test = "lists_make_room_for_others_and_too_many_are_refused";
    let many = |from: u32, count: u32| {
        let services = (from..from + count)
            .map(|n| two((n - from + 1) as u16, &long_list(n, 1000))[0].clone())
            .collect();
        FastPath { seed: 1, services }
    };
    let Some(mut fast) = open(test, &many(0, 25)) else { return };
    // Each time 25,000 go when 25,000 others have come; there is room for 65,536.
    for round in 1..5 {
        fast.apply(&many(round * 25, 25), &mut way).unwrap();
        let inside = IpAddr::from((10 << 24 | (round * 25) << 12).to_be_bytes());
        assert!(lets_in(&fast, inside, 1) && !lets_in(&fast, inside, 2));
    }
    let before = fast.path();
    let refused = fast.apply(&many(200, 60), &mut way).unwrap_err();
    assert!(matches!(refused, FastError::Service { .. }), "{refused}");
    assert!(refused.to_string().contains("too many prefixes"), "{refused}");
    assert_eq!(fast.path(), before);
    fast.apply(&many(300, 25), &mut way).unwrap();

    // One list for all takes no more room than for one.
    let list = long_list(999, 1000);
    let services = (1..=500).map(|port| two(port, &list)[0].clone()).collect();
    let shared = FastPath { seed: 1, services };
    let mut fast = Fast::open_unpinned(Capacity::of(&shared)).unwrap();
    fast.apply(&shared, &mut way).unwrap();
    assert_eq!(fast.path(), shared);
}
