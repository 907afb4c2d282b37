//! Services that clients may not connect to as often as they like: who is refused, and who never is.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod cases;
mod packets;
mod world;

use buoy_kernel::fast::{Fast, Verdict};
use buoy_model::{FastPath, Per, Protocol, Rate};
use buoy_xdp::forward::Drop;
use cases::Fate::Pass;
use cases::{C4, C6, Case, check, dropped, far, near};
use packets::{Packet, icmp, tcp, udp};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use world::{hourly, open, path, sources, way};

const VIP4: &str = "10.0.0.100:80";
const VIP6: &str = "[fd00::100]:80";

/// The services of the other tests, with this limit on those of TCP.
fn limited(rate: Option<Rate>) -> FastPath {
    let mut path = path();
    for service in path.services.iter_mut().filter(|s| s.protocol == Protocol::Tcp) {
        service.new_connections = rate;
    }
    path.services.sort_by_key(|s| (s.address, s.protocol, s.ports));
    path
}

fn no() -> cases::Fate {
    dropped(Drop::Limit)
}

/// The same packet as often as it gets through, and once more.
fn used_up(name: &'static str, packet: &Packet, fate: &cases::Fate, times: usize) -> Vec<Case> {
    let mut cases = vec![(name, packet.clone(), fate.clone()); times];
    cases.push((name, packet.clone(), no()));
    cases
}

#[test]
fn a_client_opens_so_many_and_no_more_in_every_shape() {
    let test = "a_client_opens_so_many_and_no_more_in_every_shape";
    let Some(fast) = open(test, &limited(hourly(2))) else { return };
    let syn = |from: &str, to: &str| tcp(from, to).syn();
    let (other4, same6, other6) = ("10.9.0.10:1", "[fd09::ffff:1]:1", "[fd09:0:0:1::9]:1");
    let mut cases = used_up("plain", &syn(C4, VIP4), &near(syn(C4, VIP4), 11), 2);
    cases.extend([
        ("from another port", syn("10.9.0.9:99", VIP4), no()),
        ("with options", syn(C4, VIP4).options(&[1; 8]), no()),
        ("what does not fit", syn(C4, VIP4).long(1480), no()),
        ("an established one", tcp(C4, VIP4), near(tcp(C4, VIP4), 11)),
        ("an answer", tcp(C4, VIP4).flags(0x12), near(tcp(C4, VIP4).flags(0x12), 11)),
        ("its end", tcp(C4, VIP4).flags(0x11), near(tcp(C4, VIP4).flags(0x11), 11)),
        ("another client", syn(other4, VIP4), near(syn(other4, VIP4), 11)),
        ("UDP", udp(C4, "10.0.0.100:53"), near(udp(C4, "10.0.0.100:53"), 12)),
        ("no service", syn(C4, "10.0.0.100:99"), Pass),
        ("a malformed one", syn(C4, VIP4).poke(46, &[0x40]), dropped(Drop::TcpHeader)),
    ]);
    let tunnel = far(syn(C4, "10.0.0.100:443").hop().within("10.0.1.1", "10.0.2.21"));
    cases.extend(used_up("another service", &syn(C4, "10.0.0.100:443"), &tunnel, 2));
    let first = |port: u16| syn(C4, &format!("10.0.0.101:{port}"));
    let translated = |port: u16| near(first(port).hop().to(&format!("10.0.0.33:1{port}")), 33);
    cases.extend([
        ("a range", first(7000), translated(7000)),
        ("its other port", first(7999), translated(7999)),
        ("any of its ports", first(7005), no()),
        ("no backend", syn(C4, "10.0.0.103:80"), dropped(Drop::NoBackend)),
    ]);
    cases.extend(used_up("IPv6", &syn(C6, VIP6), &near(syn(C6, VIP6), 0x11), 2));
    cases.extend([
        ("of the same subnet", syn(same6, VIP6), no()),
        ("with extensions", syn(same6, VIP6).extension(60, 2).extension(0, 1), no()),
        ("an established one of IPv6", tcp(C6, VIP6), near(tcp(C6, VIP6), 0x11)),
        ("of another subnet", syn(other6, VIP6), near(syn(other6, VIP6), 0x11)),
    ]);
    let options = |from: &str| syn(from, VIP4).options(&[1; 8]);
    cases.extend(used_up("options", &options("10.9.0.11:1"), &near(options("10.9.0.11:1"), 11), 2));
    let extension = syn("[fd0a::1]:1", VIP6).extension(60, 2);
    cases.extend(used_up("extensions", &extension, &near(extension.clone(), 0x11), 2));
    let pieces = syn("10.9.0.12:1", VIP4).long(2000).id(7).pieces(808);
    cases.extend(used_up("first pieces", &pieces[0], &near(pieces[0].clone(), 11), 2));
    let known = tcp(VIP4, C4).long(20);
    let error =
        icmp("10.5.0.1", "10.0.0.100", 3, 4).rest([0, 0, 5, 0]).payload(&known.frame()[14..]);
    cases.push(("an error about a connection", error.clone(), near(error, 11)));
    check(&fast, &cases);
    let counts = fast.counters();
    let refused: u64 = counts.forwarded.values().map(|count| count.refused).sum();
    assert_eq!(refused, counts.dropped[&Drop::Limit]);
}

#[test]
fn who_is_not_let_in_at_all_takes_nothing_from_anybody() {
    let test = "who_is_not_let_in_at_all_takes_nothing_from_anybody";
    let with = |list: &[&str]| {
        let mut path = limited(hourly(2));
        path.services.iter_mut().for_each(|s| s.sources = sources(list));
        path
    };
    let Some(mut fast) = open(test, &with(&["!10.9.0.9/32"])) else { return };
    let syn = tcp(C4, VIP4).syn();
    let refused = dropped(Drop::Source);
    check(&fast, &vec![("refused", syn.clone(), refused.clone()); 5]);
    let unusual = syn.clone().options(&[1; 4]);
    check(&fast, &vec![("refused with options", unusual, refused); 5]);
    fast.apply(&with(&["10.9.0.9/32"]), &mut way).unwrap();
    assert_eq!(fast.path(), with(&["10.9.0.9/32"]));
    check(&fast, &used_up("allowed", &syn, &near(syn.clone(), 11), 2));
}

#[test]
fn another_limit_holds_at_once_and_none_is_none() {
    let test = "another_limit_holds_at_once_and_none_is_none";
    let Some(mut fast) = open(test, &path()) else { return };
    let syn = tcp(C4, VIP4).syn();
    let goes = || near(syn.clone(), 11);
    check(&fast, &vec![("without a limit", syn.clone(), goes()); 20]);
    // What a client owes stays: an hour of the first limit is as much of the second.
    for (rate, wanted) in [(hourly(1), 1), (hourly(3), 0)] {
        fast.apply(&limited(rate), &mut way).unwrap();
        assert_eq!(fast.path(), limited(rate));
        assert_eq!((0..20).filter(|_| passes(&fast, &syn)).count(), wanted, "{rate:?}");
    }
    // More than this one could have left behind.
    fast.apply(&limited(Rate::new(1, Per::Second, 1)), &mut way).unwrap();
    assert!(passes(&fast, &syn));
    fast.apply(&path(), &mut way).unwrap();
    check(&fast, &vec![("without one again", syn.clone(), goes()); 20]);
    check(&fast, &[("options", syn.clone().options(&[1; 4]), near(syn.options(&[1; 4]), 11))]);
}

fn passes(fast: &Fast, packet: &Packet) -> bool {
    fast.try_frame(&packet.frame()).unwrap().verdict == Verdict::Transmit
}

#[test]
fn a_bucket_fills_again_by_the_kernels_clock() {
    let test = "a_bucket_fills_again_by_the_kernels_clock";
    let rate = Rate::new(10, Per::Second, 2);
    let Some(fast) = open(test, &limited(rate)) else { return };
    let syn = tcp(C4, VIP4).syn();
    let start = Instant::now();
    let mut passed = 0;
    // No tick of an agent: nobody counts seconds here.
    while start.elapsed() < Duration::from_secs(1) {
        passed += u32::from(passes(&fast, &syn));
        std::thread::sleep(Duration::from_millis(5));
    }
    let most = 2 + start.elapsed().as_millis() as u32 / 100 + 1;
    assert!((8..=most).contains(&passed), "{passed} of {most}");
}

#[test]
fn a_flood_from_invented_addresses_stops_nobody_else() {
    let test = "a_flood_from_invented_addresses_stops_nobody_else";
    const FLOOD: u32 = 1_000_000;
    let Some(fast) = open(test, &limited(hourly(60))) else { return };
    let frame = tcp("10.9.0.9:1234", VIP4).frame();
    let established = tcp("192.0.2.1:5", VIP4).long(20);
    let quiet =
        |n: u32| tcp(&format!("192.0.2.{}:{}", 10 + n % 200, 1024 + n % 60_000), VIP4).syn();
    let busy = tcp("192.0.2.250:1", VIP4).syn();
    (0..60).for_each(|_| assert!(passes(&fast, &busy)));
    let start = Instant::now();
    let (mut passed, mut busy_passed) = (0_u32, 0_u64);
    for n in 0..FLOOD {
        let from = Ipv4Addr::from(0x0b00_0000 + n.wrapping_mul(2_654_435_761) % 0x5000_0000);
        let spoofed = flood(&frame, SocketAddr::from((from, 1024)));
        passed += u32::from(fast.try_frame(&spoofed).unwrap().verdict == Verdict::Transmit);
        if n % 100 == 0 {
            assert!(passes(&fast, &established), "{n}");
            assert!(passes(&fast, &quiet(n / 100)), "{n}");
            busy_passed += u64::from(passes(&fast, &busy));
        }
    }
    // Nobody of the flood has a bucket that is empty: they are as many as they are let through.
    assert_eq!(passed, FLOOD);
    assert!(
        busy_passed <= start.elapsed().as_secs() / 60,
        "who is refused stays so: {busy_passed}"
    );
}

/// The SYN of another client; checksums are not looked at.
fn flood(frame: &[u8], from: SocketAddr) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let SocketAddr::V4(from) = from else { panic!("IPv4 here") };
    frame[26..30].copy_from_slice(&from.ip().octets());
    frame[47] = 0x02;
    frame
}
