//! What the fast path answers for addresses that are on no interface: ARP, NDP and ping, byte for byte and on a wire.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod packets;
mod questions;
mod segment;
mod world;

use buoy_kernel::apply::Apply;
use buoy_kernel::clock;
use buoy_kernel::fast::{Fast, Verdict};
use buoy_kernel::gate::{Answered, Gate, GateError, MasterSwitch, Opening};
use buoy_kernel::netlink::Requests;
use buoy_kernel::offload::{self, Offload};
use buoy_kernel::packet::Announcer;
use buoy_model::{Action, FrameKind, Guard, Instant, LinkId, Mac, Presence, SharedLease};
use packets::icmp;
use questions::{
    ALL_NODES, ASKER, BROADCAST, HERE, MANY, OPTION_NONCE, OPTION_SOURCE, Solicitation,
    advertisement, arp, group_of, option, solicitation,
};
use segment::{PATIENCE, Segment, cidr, run, wait_until};
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;
use world::{open, path};

const LOOPBACK: LinkId = LinkId(1);
const V4: &str = "10.0.0.100";
const V6: &str = "fd00::100";
/// Another one that this host serves, on its interface.
const ASSIGNED: &str = "10.0.0.101";
const QUIET: Duration = Duration::from_millis(50);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn until(until: Instant) -> Opening {
    Opening { until, lease: None, guard: Guard::Neighbours }
}

fn long() -> Opening {
    until(clock::now() + Duration::from_secs(60))
}

const CLOSED: Opening = Opening { until: Instant::ZERO, lease: None, guard: Guard::Neighbours };

fn answered(address: &str, link: LinkId, router: bool) -> Answered {
    Answered { address: ip(address), link, mac: HERE, router }
}

/// The programs of the fast path, the gate, and both VIPs served through the loopback interface.
fn serving(test: &str, router: bool) -> Option<(Fast, Gate)> {
    let mut fast = open(test, &path())?;
    let mut gate = Gate::open(&[]).unwrap();
    let answers = [answered(V4, LOOPBACK, router), answered(V6, LOOPBACK, router)];
    gate.answer_for(&answers).unwrap();
    fast.answer_by(Some(&gate.answerer().unwrap())).unwrap();
    for vip in [V4, V6] {
        gate.set(LOOPBACK, ip(vip), long()).unwrap();
        gate.speak_for(LOOPBACK, ip(vip)).unwrap();
    }
    Some((fast, gate))
}

type Case = (&'static str, Vec<u8>, Option<Vec<u8>>);

fn check(fast: &Fast, cases: &[Case]) {
    let mut wrong = Vec::new();
    for (name, frame, answer) in cases {
        let tried = fast.try_frame(frame).unwrap();
        let expected = match answer {
            Some(answer) => (Verdict::Transmit, answer),
            None => (Verdict::Pass, frame),
        };
        if (tried.verdict, &tried.frame) != expected {
            wrong.push(format!(
                "{name}: {:?}\n  {:02x?}\n  {expected:02x?}",
                tried.verdict, tried.frame
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    eprintln!("{} cases", cases.len());
}

/// A frame with some bytes changed.
fn poke(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

fn cut(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.truncate(length);
    frame
}

fn padded(mut frame: Vec<u8>, byte: u8, length: usize) -> Vec<u8> {
    frame.resize(length, byte);
    frame
}

#[test]
fn arp_requests_for_a_served_address_are_answered_and_nothing_else_is() {
    let test = "arp_requests_for_a_served_address_are_answered_and_nothing_else_is";
    let Some((fast, mut gate)) = serving(test, false) else { return };
    gate.set(LOOPBACK, ip(ASSIGNED), long()).unwrap();
    let ask = |to: Mac, sender: &str| arp(1, (ASKER, to), (ASKER, sender), (Mac::default(), V4));
    let reply = |sender: &str| Some(arp(2, (HERE, ASKER), (HERE, V4), (ASKER, sender)));
    let usual = || ask(BROADCAST, "10.0.0.9");
    let behind = Mac([2, 0, 0, 0, 0, 0xbb]);
    let of = |sender: Mac| arp(1, (behind, BROADCAST), (sender, "10.0.0.9"), (Mac::default(), V4));
    let cases: Vec<Case> = vec![
        ("a broadcast request", usual(), reply("10.0.0.9")),
        ("a request to our Ethernet address", ask(HERE, "10.0.0.9"), reply("10.0.0.9")),
        ("a probe", ask(BROADCAST, "0.0.0.0"), reply("0.0.0.0")),
        ("from another subnet", ask(BROADCAST, "192.0.2.9"), reply("192.0.2.9")),
        ("the padding stays", padded(usual(), 7, 60), reply("10.0.0.9").map(|f| padded(f, 7, 60))),
        ("the answer goes to whom the message names", of(ASKER), reply("10.0.0.9")),
        ("a gratuitous request", ask(BROADCAST, V4), None),
        ("a reply", poke(usual(), 20, &[0, 2]), None),
        ("RARP in ARP's frame", poke(usual(), 20, &[0, 3]), None),
        ("to another Ethernet address", ask(Mac([2, 0, 0, 0, 0, 0x78]), "10.0.0.9"), None),
        ("to a group", ask(Mac([1, 0, 0x5e, 0, 0, 1]), "10.0.0.9"), None),
        ("another hardware", poke(usual(), 14, &[0, 6]), None),
        ("another protocol", poke(usual(), 16, &[0x86, 0xdd]), None),
        ("longer hardware addresses", poke(usual(), 18, &[8]), None),
        ("longer protocol addresses", poke(usual(), 19, &[16]), None),
        ("cut by a byte", cut(usual(), 41), None),
        ("nothing but Ethernet", cut(usual(), 14), None),
        ("a VLAN", poke(usual(), 12, &[0x81, 0]), None),
        ("RARP", poke(usual(), 12, &[0x80, 0x35]), None),
        ("from no Ethernet address", of(Mac::default()), None),
        ("from a group's Ethernet address", of(Mac([3, 0, 0, 0, 0, 1])), None),
        ("from everybody", of(BROADCAST), None),
        ("from a group", ask(BROADCAST, "224.0.0.1"), None),
        ("from a loopback address", ask(BROADCAST, "127.0.0.1"), None),
        ("from this network's number", ask(BROADCAST, "0.0.0.1"), None),
        ("from everybody's address", ask(BROADCAST, "255.255.255.255"), None),
        ("for an address of nobody", poke(usual(), 38, &[10, 0, 0, 200]), None),
        ("for an address on the interface", poke(usual(), 38, &[10, 0, 0, 101]), None),
        ("a claim to another address that we serve", ask(BROADCAST, ASSIGNED), None),
    ];
    check(&fast, &cases);
    assert_eq!(gate.counters().answered, 6);
    // Who claims an address that we do not serve any more is its owner.
    gate.set(LOOPBACK, ip(ASSIGNED), CLOSED).unwrap();
    check(&fast, &[("from another VIP's owner", ask(BROADCAST, ASSIGNED), reply(ASSIGNED))]);
}

/// A solicitation of the VIP with one thing different.
fn but(change: impl FnOnce(&mut Solicitation)) -> Vec<u8> {
    let mut asked = Solicitation::of(V6);
    change(&mut asked);
    solicitation(&asked)
}

fn usual() -> Vec<u8> {
    but(|_| {})
}

/// To the address itself, as by who has it in its table.
fn unicast(asked: &mut Solicitation) {
    (asked.to, asked.destination) = (HERE, ip(V6));
}

/// By who wants the address for itself.
fn probing(asked: &mut Solicitation) {
    (asked.source, asked.options) = (ip("::"), Vec::new());
}

fn nonce() -> Vec<u8> {
    option(OPTION_NONCE, Mac([9, 8, 7, 6, 5, 4]))
}

/// The address of who asks, behind so many other options.
fn late(count: usize) -> Vec<u8> {
    (0..count).flat_map(|_| nonce()).chain(option(OPTION_SOURCE, ASKER)).collect()
}

#[test]
fn solicitations_of_a_served_address_are_answered() {
    let test = "solicitations_of_a_served_address_are_answered";
    let Some((fast, mut gate)) = serving(test, false) else { return };
    let reply = |flags: u8| Some(advertisement(flags, (HERE, ASKER), V6, "fd00::9"));
    let solicited = || reply(0x60);
    let defended = || Some(advertisement(0x20, (HERE, ALL_NODES), V6, "ff02::1"));
    let other = Mac([2, 0, 0, 0, 0, 0xbb]);
    let of_other = Some(advertisement(0x60, (HERE, other), V6, "fd00::9"));
    let local = Some(advertisement(0x60, (HERE, ASKER), V6, "fe80::9"));
    let cases: Vec<Case> = vec![
        ("to the group", usual(), solicited()),
        ("to the group, without option", but(|s| s.options.clear()), solicited()),
        ("unicast", but(unicast), solicited()),
        ("unicast without option", but(|s| (unicast(s), s.options.clear()).0), solicited()),
        ("an option says where", but(|s| s.options = option(OPTION_SOURCE, other)), of_other),
        ("from a link-local address", but(|s| s.source = ip("fe80::9")), local),
        ("a test of the address", but(probing), defended()),
        ("a test with a nonce", but(|s| (probing(s), s.options = nonce()).0), defended()),
        ("64 bytes of options", but(|s| s.options = late(7)), solicited()),
        ("bytes behind the packet", padded(usual(), 5, 100), solicited()),
    ];
    check(&fast, &cases);
    assert_eq!(gate.counters().answered, 10);
    gate.answer_for(&[answered(V6, LOOPBACK, true)]).unwrap();
    check(&fast, &[("a router says so", usual(), reply(0xe0))]);
}

#[test]
fn what_rfc_4861_calls_invalid_is_not_answered() {
    let test = "what_rfc_4861_calls_invalid_is_not_answered";
    let Some((fast, gate)) = serving(test, false) else { return };
    let source = |mac| option(OPTION_SOURCE, mac);
    let units = |length: u8| poke(source(ASKER), 1, &[length]);
    let probe = |change: fn(&mut Solicitation)| but(|s| (probing(s), change(s)).0);
    let cases: Vec<Case> = vec![
        ("72 bytes of options", but(|s| s.options = late(8)), None),
        ("a test that says where", probe(|s| s.options = late(0)), None),
        ("a test not of the group", probe(unicast), None),
        ("an option of length 0", but(|s| s.options = units(0)), None),
        ("an option beyond the end", but(|s| s.options = units(2)), None),
        ("a long address", but(|s| s.options = [units(2), vec![0; 8]].concat()), None),
        ("no address in the option", but(|s| s.options = source(Mac::default())), None),
        ("a group in the option", but(|s| s.options = source(MANY)), None),
        ("half an option", but(|s| s.options = vec![1, 1, 2, 0]), None),
        ("cut by a byte", cut(usual(), 85), None),
        ("shorter than it says", poke(usual(), 18, &[0, 40]), None),
        ("shorter than a solicitation", poke(usual(), 18, &[0, 16]), None),
        ("cut in the target", cut(usual(), 77), None),
        ("cut behind the IPv6 header", cut(usual(), 54), None),
        ("from behind a router", but(|s| s.hops = 254), None),
        ("a code", but(|s| s.code = 1), None),
        ("no checksum", poke(usual(), 56, &[0, 0]), None),
        ("a byte that does not sum up", poke(usual(), 85, &[8]), None),
        ("from a group", but(|s| s.source = ip("ff02::9")), None),
        ("a group as the target", but(|s| s.target = ip("ff02::100")), None),
        ("an extension header", poke(usual(), 20, &[0]), None),
        ("version 4", poke(usual(), 14, &[0x40]), None),
    ];
    check(&fast, &cases);
    assert_eq!(gate.counters().answered, 0);
}

#[test]
fn solicitations_that_are_not_for_a_served_address_are_passed() {
    let test = "solicitations_that_are_not_for_a_served_address_are_passed";
    let Some((fast, mut gate)) = serving(test, false) else { return };
    gate.set(LOOPBACK, ip("fd00::77"), long()).unwrap();
    let cases: Vec<Case> = vec![
        ("an advertisement", but(|s| s.kind = 136), None),
        ("to another's group", but(|s| s.destination = group_of("fd00::200")), None),
        ("to all nodes", but(|s| (s.to, s.destination) = (ALL_NODES, ip("ff02::1"))), None),
        ("to another host", but(|s| s.to = Mac([2, 0, 0, 0, 0, 0x78])), None),
        ("by broadcast", but(|s| s.to = BROADCAST), None),
        ("another target of the group", but(|s| s.target = ip("fd00:1::100")), None),
        ("a target of nobody", solicitation(&Solicitation::of("fd00::200")), None),
        ("a VIP on its interface", solicitation(&Solicitation::of("fd00::101")), None),
        ("a claim to another address that we serve", but(|s| s.source = ip("fd00::77")), None),
        ("a ping to all nodes", icmp("fd09::9", "ff02::1", 128, 0).frame(), None),
        ("multicast DNS", packets::udp("[fd09::9]:5353", "[ff02::fb]:5353").frame(), None),
    ];
    check(&fast, &cases);
    assert_eq!(gate.counters().answered, 0);
}

/// What asks for either VIP, by all three ways.
fn questions() -> [(&'static str, Vec<u8>); 5] {
    let request = arp(1, (ASKER, BROADCAST), (ASKER, "10.0.0.9"), (Mac::default(), V4));
    let unicast = Solicitation { to: HERE, destination: ip(V6), ..Solicitation::of(V6) };
    [
        ("ARP", request),
        ("NDP", solicitation(&Solicitation::of(V6))),
        ("unicast NDP", solicitation(&unicast)),
        ("ping", icmp("10.9.0.9", V4, 8, 0).long(40).frame()),
        ("IPv6 ping", icmp("fd09::9", V6, 128, 0).long(40).frame()),
    ]
}

/// Which of them are answered.
fn heard(fast: &Fast) -> Vec<&'static str> {
    let tried = questions().map(|(name, frame)| (name, fast.try_frame(&frame).unwrap().verdict));
    let answered = tried.into_iter().filter(|(_, verdict)| *verdict != Verdict::Pass);
    answered.map(|(name, _)| name).collect()
}

const ALL: [&str; 5] = ["ARP", "NDP", "unicast NDP", "ping", "IPv6 ping"];

#[test]
fn nothing_is_answered_without_a_lease() {
    let test = "nothing_is_answered_without_a_lease";
    let Some((fast, mut gate)) = serving(test, false) else { return };
    let both = |gate: &mut Gate, opening| {
        for vip in [V4, V6] {
            gate.set(LOOPBACK, ip(vip), opening).unwrap();
        }
    };
    assert_eq!(heard(&fast), ALL);
    both(&mut gate, CLOSED);
    assert!(heard(&fast).is_empty());
    assert_eq!(gate.counters().silent, 5);
    both(&mut gate, until(clock::now() + Duration::from_millis(300)));
    assert_eq!(heard(&fast), ALL);
    std::thread::sleep(Duration::from_millis(310));
    assert!(heard(&fast).is_empty());
    // The lease that all share.
    let lease = SharedLease::Majority;
    both(&mut gate, Opening { lease: Some(lease), ..CLOSED });
    assert!(heard(&fast).is_empty());
    gate.renew(lease, clock::now() + Duration::from_secs(60));
    assert_eq!(heard(&fast), ALL);
    // Given away, whatever the lease says.
    gate.absent(LOOPBACK, ip(V4));
    assert_eq!(heard(&fast), ALL[1..].iter().copied().filter(|n| *n != "ping").collect::<Vec<_>>());
    gate.speak_for(LOOPBACK, ip(V4)).unwrap();
    assert_eq!(heard(&fast), ALL);
    // What the supervisor of a dead agent does.
    MasterSwitch::open(gate.leases_fd()).unwrap().close_all();
    assert!(heard(&fast).is_empty());
}

#[test]
fn a_question_is_answered_where_the_address_lives_and_a_ping_wherever_it_comes_in() {
    let test = "a_question_is_answered_where_the_address_lives_and_a_ping_wherever_it_comes_in";
    let Some((fast, mut gate)) = serving(test, false) else { return };
    let elsewhere = LinkId(77);
    gate.answer_for(&[answered(V4, elsewhere, false), answered(V6, elsewhere, false)]).unwrap();
    assert_eq!(heard(&fast), ["ping"], "an IPv6 lease is one of an interface");
    for vip in [V4, V6] {
        assert!(gate.speak_for(LOOPBACK, ip(vip)).is_err());
        gate.set(elsewhere, ip(vip), long()).unwrap();
        gate.speak_for(elsewhere, ip(vip)).unwrap();
    }
    assert_eq!(heard(&fast), ["ping", "IPv6 ping"]);
    // Not one of those any more: the kernel has it, and a ping is answered as for any VIP.
    gate.answer_for(&[]).unwrap();
    for vip in [V4, V6] {
        gate.set(elsewhere, ip(vip), CLOSED).unwrap();
    }
    assert_eq!(heard(&fast), ["ping", "IPv6 ping"]);
}

#[test]
fn without_the_gate_questions_are_the_kernels() {
    let test = "without_the_gate_questions_are_the_kernels";
    let Some((mut fast, gate)) = serving(test, false) else { return };
    for _ in 0..2 {
        fast.answer_by(None).unwrap();
        assert_eq!(heard(&fast), ["ping", "IPv6 ping"]);
    }
    drop(gate);
}

#[test]
fn the_next_gate_answers_nothing_that_it_was_not_told_to() {
    let test = "the_next_gate_answers_nothing_that_it_was_not_told_to";
    let Some(segment) = Segment::new(test) else { return };
    let Some((mut fast, mut gate)) = served_on(&segment, test) else { return };
    let mut asker = segment.asker();
    for vip in [V4, V6] {
        assert_eq!(asker.find(ip(vip)), Some(segment.near_mac));
    }
    let mut next = Gate::open(&[segment.near]).unwrap();
    next.answer_for(&answers_on(&segment)).unwrap();
    fast.answer_by(Some(&next.answerer().unwrap())).unwrap();
    for vip in [V4, V6] {
        assert_eq!(asker.ask(ip(vip), QUIET), None);
        // It has what the first promised, and speaks again when it is told to.
        next.speak_for(segment.near, ip(vip)).unwrap();
        assert_eq!(asker.find(ip(vip)), Some(segment.near_mac));
    }
    gate.set(segment.near, ip(V4), CLOSED).unwrap();
    assert_eq!(asker.find(ip(V4)), Some(segment.near_mac), "the first one is nobody any more");
}

fn answers_on(segment: &Segment) -> [Answered; 2] {
    [V4, V6].map(|vip| Answered { mac: segment.near_mac, ..answered(vip, segment.near, false) })
}

/// Both VIPs served on a real segment, and on no interface.
fn served_on(segment: &Segment, test: &str) -> Option<(Fast, Gate)> {
    let mut fast = open(test, &path())?;
    // A veth takes what XDP sends to it only so; and its peer computes the checksums that XDP looks at.
    segment.there(|| {
        offload::set("far", Offload::Gather, true).unwrap();
        offload::set("far", Offload::SendChecksums, false).unwrap();
    });
    let mut gate = match Gate::open(&[segment.near]) {
        Ok(gate) => gate,
        Err(GateError::Permission) => return None,
        Err(error) => panic!("{error}"),
    };
    gate.answer_for(&answers_on(segment)).unwrap();
    fast.answer_by(Some(&gate.answerer().unwrap())).unwrap();
    fast.attach(segment.near).unwrap();
    for vip in [V4, V6] {
        gate.set(segment.near, ip(vip), long()).unwrap();
        gate.speak_for(segment.near, ip(vip)).unwrap();
    }
    Some((fast, gate))
}

#[test]
fn a_real_host_resolves_and_respects_an_address_that_is_on_no_interface() {
    let test = "a_real_host_resolves_and_respects_an_address_that_is_on_no_interface";
    let Some(segment) = Segment::new(test) else { return };
    let Some((_fast, mut gate)) = served_on(&segment, test) else { return };
    let told = |vip: &str| {
        let neighbours = run("ip", &format!("neigh show to {vip} dev far"));
        neighbours.contains(&mac_text(segment.near_mac))
    };
    segment.there(|| {
        for vip in [V4, V6] {
            let socket = UdpSocket::bind((if ip(vip).is_ipv4() { "0.0.0.0" } else { "::" }, 0));
            socket.unwrap().send_to(b"?", (ip(vip), 9)).unwrap();
            wait_until("its kernel knows the neighbour", || told(vip));
        }
        // Whoever wants it for itself is told that it is taken (RFC 4862 section 5.4).
        run("ip", &format!("addr add {V6}/64 dev far"));
        wait_until("the address is found to be taken", || {
            run("ip", "-6 addr show dev far").contains("dadfailed")
        });
        run("ip", &format!("addr del {V6}/64 dev far"));
    });
    // At the end of the lease it is nowhere.
    let mut asker = segment.asker();
    for vip in [V4, V6] {
        gate.set(segment.near, ip(vip), CLOSED).unwrap();
        assert_eq!(asker.ask(ip(vip), QUIET), None);
    }
    assert_eq!(run("ip", "addr show dev near").matches(V4).count(), 0);
}

fn mac_text(Mac(bytes): Mac) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

#[test]
fn actions_say_and_unsay_an_address_without_touching_the_interface() {
    let test = "actions_say_and_unsay_an_address_without_touching_the_interface";
    let Some(segment) = Segment::new(test) else { return };
    let Some((_fast, gate)) = served_on(&segment, test) else { return };
    let mut announcer = Announcer::open().unwrap();
    announcer.set_link(segment.near, segment.near_mac, false);
    let mut apply = Apply::new(Requests::open().unwrap(), announcer, Some(gate));
    let (link, presence) = (segment.near, Presence::Answered);
    let mut asker = segment.asker();
    for vip in [format!("{V4}/24"), format!("{V6}/64")].iter().map(|vip| cidr(vip)) {
        let address = vip.address();
        let fence =
            |until| Action::Fence { address, link, until, lease: None, guard: Guard::Neighbours };
        let lasting = fence(clock::now() + Duration::from_secs(60));
        let add = Action::AddAddress { link, cidr: vip, valid_lifetime: 60, presence };
        let remove = Action::RemoveAddress { link, cidr: vip, presence };
        let announce = Action::Announce { link, address, kind: FrameKind::Gratuitous };
        for _ in 0..2 {
            apply.apply(&fence(Instant::ZERO)).unwrap();
            apply.apply(&add).unwrap();
            assert_eq!(asker.ask(address, QUIET), None, "ready behind a closed gate");
            apply.apply(&lasting).unwrap();
            assert_eq!(asker.find(address), Some(segment.near_mac));
            apply.apply(&announce).unwrap();
            assert_eq!(asker.hear(address, PATIENCE), Some(segment.near_mac));
            apply.apply(&remove).unwrap();
            apply.apply(&remove).unwrap();
            assert_eq!(asker.ask(address, QUIET), None);
        }
        // From one presence to the other: the news that it is off the interface come late.
        let there = Action::AddAddress {
            link,
            cidr: vip,
            valid_lifetime: 60,
            presence: Presence::Assigned,
        };
        let off = Action::RemoveAddress { link, cidr: vip, presence: Presence::Assigned };
        for action in [&there, &off, &add] {
            apply.apply(action).unwrap();
        }
        wait_until("the orders are carried out", || apply.pending() == 0);
        apply.observe_all(&mut |_| {});
        assert_eq!(asker.find(address), Some(segment.near_mac));
        assert_eq!(Requests::open().unwrap().list_ours().unwrap(), []);
    }
    let other = cidr("10.0.0.177/24");
    let unknown = Action::AddAddress { link, cidr: other, valid_lifetime: 60, presence };
    let said = apply.apply(&unknown).unwrap_err().to_string();
    assert!(said.contains("nothing answers for 10.0.0.177"), "{said}");
    apply.close().unwrap();
}

#[test]
fn another_ethernet_address_of_the_interface_is_told_at_once() {
    let test = "another_ethernet_address_of_the_interface_is_told_at_once";
    let Some((fast, mut gate)) = serving(test, false) else { return };
    let other = Mac([2, 0, 0, 0, 0, 0x99]);
    gate.set_mac(LinkId(77), Mac::default()).unwrap();
    gate.set_mac(LOOPBACK, other).unwrap();
    let request = arp(1, (ASKER, BROADCAST), (ASKER, "10.0.0.9"), (Mac::default(), V4));
    let reply = arp(2, (other, ASKER), (other, V4), (ASKER, "10.0.0.9"));
    check(&fast, &[("ARP", request, Some(reply))]);
}
