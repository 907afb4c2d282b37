//! Holds the programs to what each frame deserves, with the kernel's own test run.

use super::*;
use aya::programs::{TestRun, TestRunOptions};
use buoy_model::Mac;
use buoy_wire::arp::{ArpPacket, Operation};
use buoy_wire::{arp, ndp};
use buoy_xdp::GateEntry;
use nix::errno::Errno;
use std::net::{Ipv4Addr, Ipv6Addr};

const LOOPBACK: LinkId = LinkId(1); // where the kernel's own test says that a frame is
const PASS: u32 = u32::MAX; // TC_ACT_UNSPEC
const DROP: u32 = 2; // TC_ACT_SHOT
const THEIR_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);

const CLOSED: Opening = until(Instant::ZERO);

const fn until(until: Instant) -> Opening {
    Opening { until, lease: None, guard: Guard::Neighbours }
}

/// A gate that is attached nowhere.
fn gate(test: &str) -> Option<Gate> {
    match Gate::open(&[]) {
        Ok(gate) => Some(gate),
        Err(GateError::Permission) => {
            eprintln!("SKIPPED: {test}: BPF programs are not permitted here");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn verdict(gate: &mut Gate, direction: Direction, frame: &[u8]) -> u32 {
    let program = classifier(&mut gate.programs, direction).unwrap();
    let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
    program.test_run(options).unwrap().return_value
}

fn reply(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let packet = ArpPacket {
        operation: Operation::Reply,
        sender_mac: OUR_MAC,
        sender,
        target_mac: THEIR_MAC,
        target,
    };
    packet.emit(THEIR_MAC).to_vec()
}

/// Name, direction, frame, and what becomes of it when the gate is closed.
fn frames() -> Vec<(&'static str, Direction, Vec<u8>, u32)> {
    use Direction::{Egress, Ingress};
    let ask = |from, target| arp::emit_request(THEIR_MAC, from, target).to_vec();
    let solicit = |from, target| ndp::emit_solicitation(THEIR_MAC, from, target).to_vec();
    let tagged = |mut frame: Vec<u8>| {
        frame.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
        frame
    };
    let cut = |mut frame: Vec<u8>, length| {
        frame.truncate(length);
        frame
    };
    let mut probe = solicit(OTHER6, VIP6);
    probe[14 + 8..14 + 24].fill(0);
    let mut data6 = solicit(OTHER6, VIP6);
    data6[14 + 6] = 6; // TCP
    let mut echo = solicit(OTHER6, VIP6);
    echo[14 + 40] = 128;
    vec![
        ("who has the VIP?", Ingress, ask(OTHER, VIP), DROP),
        ("a probe for the VIP", Ingress, ask(Ipv4Addr::UNSPECIFIED, VIP), DROP),
        ("who has another?", Ingress, ask(OTHER, OTHER), PASS),
        ("the VIP asks", Ingress, ask(VIP, OTHER), PASS),
        ("others announce the VIP", Ingress, arp::emit_gratuitous(THEIR_MAC, VIP).to_vec(), PASS),
        ("others answer for the VIP", Ingress, reply(VIP, OTHER), PASS),
        ("others answer the VIP", Ingress, reply(OTHER, VIP), PASS),
        ("we answer for the VIP", Egress, reply(VIP, OTHER), DROP),
        ("we announce the VIP", Egress, arp::emit_gratuitous(OUR_MAC, VIP).to_vec(), DROP),
        ("we ask from the VIP", Egress, ask(VIP, OTHER), DROP),
        ("we ask for the VIP", Egress, ask(OTHER, VIP), PASS),
        ("we answer for another", Egress, reply(OTHER, VIP), PASS),
        ("who has the VIP? (6)", Ingress, solicit(OTHER6, VIP6), DROP),
        ("a probe for the VIP (6)", Ingress, probe, DROP),
        ("who has another? (6)", Ingress, solicit(OTHER6, OTHER6), PASS),
        (
            "others announce the VIP (6)",
            Ingress,
            ndp::emit_unsolicited(THEIR_MAC, VIP6, false).to_vec(),
            PASS,
        ),
        (
            "we announce the VIP (6)",
            Egress,
            ndp::emit_unsolicited(OUR_MAC, VIP6, false).to_vec(),
            DROP,
        ),
        ("we ask from the VIP (6)", Egress, solicit(VIP6, OTHER6), DROP),
        ("we ask for the VIP (6)", Egress, solicit(OTHER6, VIP6), PASS),
        ("another network's question", Ingress, tagged(ask(OTHER, VIP)), PASS),
        ("not ICMPv6", Ingress, data6, PASS),
        ("an echo request", Ingress, echo, PASS),
        ("half a question", Ingress, cut(ask(OTHER, VIP), 41), PASS),
        ("half a question (6)", Ingress, cut(solicit(OTHER6, VIP6), 77), PASS),
    ]
}

/// An IP packet as far as the gate looks at it, between two hardware addresses.
fn between(to: Mac, from: Mac, v6: bool, protocol: u8) -> Vec<u8> {
    let mut frame = vec![0; 14 + 40 + 24];
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.0);
    let (ethertype, version, at) = if v6 { (0x86dd, 0x60, 6) } else { (0x0800, 0x45, 9) };
    frame[12..14].copy_from_slice(&u16::to_be_bytes(ethertype));
    frame[14] = version;
    frame[14 + at] = protocol;
    frame
}

#[test]
fn a_backup_hears_nothing_at_the_hardware_address_of_its_virtual_router_and_says_nothing_from_it() {
    use Direction::{Egress, Ingress};
    let test = "a_backup_hears_nothing_at_the_hardware_address_of_its_virtual_router_and_says_nothing_from_it";
    let Some(mut gate) = gate(test) else { return };
    let (v4, v6) = (Mac([0, 0, 0x5e, 0, 1, 51]), Mac([0, 0, 0x5e, 0, 2, 51]));
    let near = Mac([0, 0, 0x5e, 0, 3, 51]); // of nobody's virtual router
    let everybody = Mac([0xff; 6]);
    let (tcp, vrrp, icmp6) = (6, 112, 58);
    let frames = [
        ("to it", Ingress, between(v4, THEIR_MAC, false, tcp), DROP),
        ("to it (6)", Ingress, between(v6, THEIR_MAC, true, tcp), DROP),
        ("from it to everybody", Ingress, between(everybody, v4, false, vrrp), PASS),
        ("to the host", Ingress, between(OUR_MAC, v4, false, tcp), PASS),
        ("to one like it", Ingress, between(near, THEIR_MAC, false, tcp), PASS),
        ("a packet from it", Egress, between(THEIR_MAC, v4, false, tcp), DROP),
        ("a report from it", Egress, between(everybody, v6, true, icmp6), DROP),
        ("an advertisement", Egress, between(everybody, v4, false, vrrp), PASS),
        ("an advertisement (6)", Egress, between(everybody, v6, true, vrrp), PASS),
        ("from the host to it", Egress, between(v4, OUR_MAC, false, tcp), PASS),
    ];
    let hold = |gate: &mut Gate, when: &str, closed: bool| {
        for (name, direction, frame, verdict_closed) in &frames {
            let expected = if closed { *verdict_closed } else { PASS };
            assert_eq!(verdict(gate, *direction, frame), expected, "{when}: {name}");
        }
    };
    hold(&mut gate, "no entry", false);
    gate.set_router(LOOPBACK, CLOSED).unwrap();
    hold(&mut gate, "closed", true);
    gate.set_router(LOOPBACK, until(clock::now() + Duration::from_secs(60))).unwrap();
    hold(&mut gate, "open", false);
    gate.leases.set_master(true);
    hold(&mut gate, "another process has closed everything", true);
    gate.leases.set_master(false);
    gate.remove(LOOPBACK, Ipv6Addr::UNSPECIFIED.into()).unwrap();
    hold(&mut gate, "forgotten", false);
    let counters = gate.counters();
    assert_eq!((counters.traffic_in, counters.traffic_out), (2 * 2, 2 * 2));
}

#[test]
fn a_closed_gate_drops_questions_and_claims_and_nothing_else() {
    let test = "a_closed_gate_drops_questions_and_claims_and_nothing_else";
    let Some(mut gate) = gate(test) else { return };
    for (name, direction, frame, _) in frames() {
        assert_eq!(verdict(&mut gate, direction, &frame), PASS, "{name}: no entry");
    }
    for address in [VIP.into(), VIP6.into()] {
        gate.set(LOOPBACK, address, CLOSED).unwrap();
    }
    for (name, direction, frame, closed) in frames() {
        assert_eq!(verdict(&mut gate, direction, &frame), closed, "{name}: closed");
    }
    for address in [VIP.into(), VIP6.into()] {
        gate.set(LOOPBACK, address, until(clock::now() + Duration::from_secs(60))).unwrap();
    }
    for (name, direction, frame, _) in frames() {
        assert_eq!(verdict(&mut gate, direction, &frame), PASS, "{name}: open");
    }
    let dropped = |wanted| {
        let all = frames().into_iter();
        all.filter(|&(_, direction, _, closed)| direction == wanted && closed == DROP).count()
    };
    let counters = gate.counters();
    assert_eq!(counters.ingress, dropped(Direction::Ingress) as u64);
    assert_eq!(counters.egress, dropped(Direction::Egress) as u64);
}

#[test]
fn an_ipv6_address_is_guarded_on_its_own_interface_and_an_ipv4_address_on_all() {
    let test = "an_ipv6_address_is_guarded_on_its_own_interface_and_an_ipv4_address_on_all";
    let Some(mut gate) = gate(test) else { return };
    for address in [VIP.into(), VIP6.into()] {
        gate.set(LinkId(7), address, CLOSED).unwrap();
    }
    let question = arp::emit_request(THEIR_MAC, OTHER, VIP);
    assert_eq!(verdict(&mut gate, Direction::Ingress, &question), DROP);
    let question = ndp::emit_solicitation(THEIR_MAC, OTHER6, VIP6);
    assert_eq!(verdict(&mut gate, Direction::Ingress, &question), PASS);
}

#[test]
fn a_full_gate_says_which_address_it_cannot_take() {
    let Some(mut gate) = gate("a_full_gate_says_which_address_it_cannot_take") else { return };
    let address = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n));
    let full = (0..=buoy_xdp::GATE_ADDRESSES_MAX)
        .find_map(|n| gate.set(LOOPBACK, address(n), CLOSED).err());
    let expected =
        GateError::Write { address: address(buoy_xdp::GATE_ADDRESSES_MAX), errno: Errno::E2BIG };
    assert_eq!(full, Some(expected));
}

const OUR_ETHERNET: Mac = Mac([0; 6]); // that of the interface of the kernel's own test

/// The smallest IP packet, from and to these addresses.
fn packet(to_mac: Mac, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let mut frame = [&to_mac.0[..], &THEIR_MAC.0[..]].concat();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 17, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("two families"),
    }
    frame
}

/// A VIP and another address, of each family.
fn families() -> [(IpAddr, IpAddr); 2] {
    [(VIP.into(), OTHER.into()), (VIP6.into(), OTHER6.into())]
}

fn question(vip: IpAddr) -> Vec<u8> {
    match vip {
        IpAddr::V4(vip) => arp::emit_request(THEIR_MAC, OTHER, vip).to_vec(),
        IpAddr::V6(vip) => ndp::emit_solicitation(THEIR_MAC, OTHER6, vip).to_vec(),
    }
}

fn soon() -> Instant {
    clock::now() + Duration::from_secs(60)
}

#[test]
fn all_traffic_of_an_exclusive_address_stops_with_its_lease_and_of_others_goes_on() {
    let test = "all_traffic_of_an_exclusive_address_stops_with_its_lease_and_of_others_goes_on";
    let Some(mut gate) = gate(test) else { return };
    for (vip, other) in families() {
        // Direction, packet, what becomes of it behind a closed `Guard::Traffic`.
        let table = [
            (Direction::Ingress, packet(OUR_ETHERNET, other, vip), DROP),
            (Direction::Egress, packet(THEIR_MAC, vip, other), DROP),
            // The other way round it is another owner's.
            (Direction::Ingress, packet(OUR_ETHERNET, vip, other), PASS),
            (Direction::Egress, packet(THEIR_MAC, other, vip), PASS),
            // For another host's Ethernet address: none of this one's stack.
            (Direction::Ingress, packet(OUR_MAC, other, vip), PASS),
        ];
        let each = |gate: &mut Gate, closed: bool| {
            for (direction, frame, verdict_closed) in &table {
                let expected = if closed { *verdict_closed } else { PASS };
                assert_eq!(verdict(gate, *direction, frame), expected, "{vip} {direction:?}");
            }
        };
        each(&mut gate, false);
        gate.set(LOOPBACK, vip, Opening { guard: Guard::Traffic, ..CLOSED }).unwrap();
        each(&mut gate, false); // it is not here
        gate.present(LOOPBACK, vip, Duration::from_secs(6)).unwrap();
        for guard in [Guard::Neighbours, Guard::Traffic] {
            for until in [soon(), Instant::ZERO] {
                gate.set(LOOPBACK, vip, Opening { until, lease: None, guard }).unwrap();
                each(&mut gate, guard == Guard::Traffic && until == Instant::ZERO);
            }
        }
        // What asks for the address is counted as a question.
        let before = gate.counters();
        assert_eq!(verdict(&mut gate, Direction::Ingress, &question(vip)), DROP);
        assert_eq!(gate.counters().ingress, before.ingress + 1);
        gate.shut(LOOPBACK, vip).unwrap();
        each(&mut gate, true);
        // Taken off this host, its packets are on their way to another one; questions are not.
        gate.absent(LOOPBACK, vip);
        each(&mut gate, false);
        assert_eq!(verdict(&mut gate, Direction::Ingress, &question(vip)), DROP);
    }
    let counters = gate.counters();
    assert_eq!((counters.traffic_in, counters.traffic_out), (4, 4));
}

#[test]
fn an_address_is_open_until_its_own_deadline_or_the_end_of_its_shared_lease() {
    let test = "an_address_is_open_until_its_own_deadline_or_the_end_of_its_shared_lease";
    let Some(mut gate) = gate(test) else { return };
    let (over, lasts) = (Instant::ZERO, soon());
    let shared = [None, Some(SharedLease::Majority), Some(SharedLease::Loop)];
    for (vip, _) in families() {
        for lease in shared {
            for (own, majority, by_loop) in [
                (over, over, over),
                (lasts, over, over),
                (over, lasts, over),
                (over, over, lasts),
                (lasts, lasts, lasts),
            ] {
                let opening = Opening { until: own, lease, guard: Guard::Neighbours };
                gate.set(LOOPBACK, vip, opening).unwrap();
                gate.renew(SharedLease::Majority, majority);
                gate.renew(SharedLease::Loop, by_loop);
                let is_open = match lease {
                    None => own == lasts,
                    Some(SharedLease::Majority) => own == lasts || majority == lasts,
                    Some(SharedLease::Loop) => own == lasts || by_loop == lasts,
                };
                let expected = if is_open { PASS } else { DROP };
                let heard = verdict(&mut gate, Direction::Ingress, &question(vip));
                assert_eq!(heard, expected, "{vip} {lease:?} {own:?} {majority:?} {by_loop:?}");
            }
        }
    }
}

#[test]
fn one_store_closes_everything_and_nothing_reopens_it() {
    let test = "one_store_closes_everything_and_nothing_reopens_it";
    let Some(mut gate) = gate(test) else { return };
    let switch = MasterSwitch::open(gate.leases_fd()).unwrap();
    assert!(!switch.is_closed());
    gate.renew(SharedLease::Majority, soon());
    let lease = Some(SharedLease::Majority);
    let shared = Opening { until: Instant::ZERO, lease, guard: Guard::Traffic };
    let own = until(soon());
    for opening in [shared, own] {
        for (vip, _) in families() {
            gate.present(LOOPBACK, vip, Duration::from_secs(6)).unwrap();
            gate.set(LOOPBACK, vip, opening).unwrap();
            assert_eq!(verdict(&mut gate, Direction::Ingress, &question(vip)), PASS);
        }
    }
    gate.set(LOOPBACK, VIP.into(), shared).unwrap();
    switch.close_all();
    assert!(switch.is_closed());
    let all_closed = |gate: &mut Gate| {
        for (vip, other) in families() {
            assert_eq!(verdict(gate, Direction::Ingress, &question(vip)), DROP);
            let traffic = verdict(gate, Direction::Ingress, &packet(OUR_ETHERNET, other, vip));
            assert_eq!(traffic, if vip.is_ipv4() { DROP } else { PASS });
        }
    };
    all_closed(&mut gate);
    gate.renew(SharedLease::Majority, soon());
    for (vip, opening) in [(VIP.into(), shared), (VIP6.into(), own)] {
        gate.set(LOOPBACK, vip, opening).unwrap();
    }
    all_closed(&mut gate);
    // Once the addresses are gone, packets may pass by to the new owner; questions are not answered.
    switch.all_are_gone();
    for (vip, other) in families() {
        assert_eq!(verdict(&mut gate, Direction::Ingress, &question(vip)), DROP);
        let passing = packet(OUR_ETHERNET, other, vip);
        assert_eq!(verdict(&mut gate, Direction::Ingress, &passing), PASS);
    }
    // A run of its own has a switch of its own.
    let mut next = Gate::open(&[]).unwrap();
    next.set(LOOPBACK, VIP.into(), own).unwrap();
    assert_eq!(verdict(&mut next, Direction::Ingress, &question(VIP.into())), PASS);
}

#[test]
fn another_descriptor_is_not_a_master_switch() {
    let nothing = std::fs::File::open("/dev/null").unwrap();
    assert!(MasterSwitch::open(nothing.as_fd()).is_err());
}

#[test]
fn the_first_packet_is_noted_once_for_each_opening() {
    let Some(mut gate) = gate("the_first_packet_is_noted_once_for_each_opening") else { return };
    for (vip, other) in families() {
        let arrives = packet(OUR_ETHERNET, other, vip);
        assert_eq!(gate.first_packet(LOOPBACK, vip), None);
        gate.present(LOOPBACK, vip, Duration::from_secs(6)).unwrap();
        let mut last = Instant::ZERO;
        for _ in 0..2 {
            // What is dropped, asked, or for another host is no packet for the address here.
            let closed = Opening { guard: Guard::Traffic, ..CLOSED };
            gate.set(LOOPBACK, vip, closed).unwrap();
            assert_eq!(verdict(&mut gate, Direction::Ingress, &arrives), DROP);
            gate.set(LOOPBACK, vip, until(soon())).unwrap();
            for frame in [question(vip), packet(OUR_MAC, other, vip)] {
                assert_eq!(verdict(&mut gate, Direction::Ingress, &frame), PASS);
            }
            assert_eq!(gate.first_packet(LOOPBACK, vip), None);
            let before = clock::now();
            assert_eq!(verdict(&mut gate, Direction::Ingress, &arrives), PASS);
            let first = gate.first_packet(LOOPBACK, vip).unwrap();
            assert!(last < first && before <= first && first <= clock::now());
            // Neither another packet nor a renewal makes it later.
            gate.set(LOOPBACK, vip, until(soon())).unwrap();
            assert_eq!(verdict(&mut gate, Direction::Ingress, &arrives), PASS);
            assert_eq!(gate.first_packet(LOOPBACK, vip), Some(first));
            last = first;
        }
    }
}

#[test]
fn an_entry_is_stale_only_when_its_own_bound_and_that_of_its_lease_are_over() {
    let test = "an_entry_is_stale_only_when_its_own_bound_and_that_of_its_lease_are_over";
    let Some(mut gate) = gate(test) else { return };
    let (vip, rule) = (VIP.into(), lease::index(SharedLease::Majority));
    gate.set(LOOPBACK, vip, CLOSED).unwrap();
    let write = |gate: &Gate, until| {
        let entry = gate.entries.find(&key(LOOPBACK, vip)).unwrap();
        entry.write(GateEntry { until, rule, ..GateEntry::default() });
    };
    write(&gate, u64::MAX);
    assert_eq!(verdict(&mut gate, Direction::Ingress, &question(vip)), DROP);
    // The lease was never renewed, so its bound is over too.
    write(&gate, 0);
    assert_eq!(verdict(&mut gate, Direction::Ingress, &question(vip)), PASS);
    gate.renew(SharedLease::Majority, Instant::ZERO);
    assert_eq!(verdict(&mut gate, Direction::Ingress, &question(vip)), DROP);
    // An address that is put on an interface has an entry that means something, and is closed.
    write(&gate, 0);
    gate.entries.find(&key(LOOPBACK, vip)).unwrap().shut();
    gate.present(LOOPBACK, VIP6.into(), Duration::from_secs(6)).unwrap();
    for (vip, _) in families() {
        assert_eq!(verdict(&mut gate, Direction::Ingress, &question(vip)), DROP);
    }
    assert_eq!(gate.counters().stale, 1);
}

#[test]
fn places_of_forgotten_addresses_are_used_again() {
    let Some(mut gate) = gate("places_of_forgotten_addresses_are_used_again") else { return };
    for n in 0..2 * buoy_xdp::GATE_ADDRESSES_MAX {
        let address = Ipv4Addr::from_bits(0x0a00_0000 + n).into();
        gate.set(LOOPBACK, address, until(soon())).unwrap();
        gate.remove(LOOPBACK, address).unwrap();
    }
    // A place that was open before is closed for the next.
    gate.present(LOOPBACK, VIP.into(), Duration::ZERO).unwrap();
    assert_eq!(verdict(&mut gate, Direction::Ingress, &question(VIP.into())), DROP);
}
