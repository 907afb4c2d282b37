//! Holds the programs to what each frame deserves, with the kernel's own test run.

use super::*;
use aya::programs::{TestRun, TestRunOptions};
use buoy_model::Mac;
use buoy_wire::arp::{ArpPacket, Operation};
use buoy_wire::{arp, ndp};
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
