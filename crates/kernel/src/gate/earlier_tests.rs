//! Holds a new run to what an earlier one left standing, in a namespace of its own.

use super::*;
use crate::gate::{Gate, GateError, Opening};
use crate::host;
use crate::netlink::{Direction, Hook, Requests};
use crate::{clock, gate};
use aya::EbpfLoader;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use buoy_model::{Cidr, Guard, Instant, LinkId, Mac, SharedLease};
use buoy_wire::arp;
use buoy_xdp::GateKey;
use nix::sched::{CloneFlags, unshare};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

/// The programs of the first release, as they were committed then.
#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);
static FIRST_RELEASE: Aligned<{ include_bytes!("../../tests/fixtures/gate-v1.bpf.o").len() }> =
    Aligned(*include_bytes!("../../tests/fixtures/gate-v1.bpf.o"));

const LASTS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const OVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
const STALE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 102);
const PASS: u32 = u32::MAX;
const DROP: u32 = 2;

/// An interface in a namespace of this thread's own.
fn interface(test: &str) -> Option<LinkId> {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("SKIPPED: {test}: no network namespace: {errno}");
        return None;
    }
    match Gate::open(&[]) {
        Ok(_) => {}
        Err(GateError::Permission) => {
            eprintln!("SKIPPED: {test}: BPF programs are not permitted here");
            return None;
        }
        Err(error) => panic!("{error}"),
    }
    let made = Command::new("ip")
        .args("link add here type veth peer name there".split(' '))
        .status()
        .unwrap();
    assert!(made.success());
    host::facts().unwrap().links.iter().find(|link| link.name == "here").map(|link| link.id)
}

fn asked(gate: &mut Gate, vip: Ipv4Addr) -> u32 {
    let question = arp::emit_request(Mac([2, 0, 0, 0, 0, 9]), Ipv4Addr::new(10, 0, 0, 9), vip);
    let program = gate::classifier(&mut gate.programs, Direction::Ingress).unwrap();
    let options = TestRunOptions { data_in: Some(&question), ..TestRunOptions::new() };
    program.test_run(options).unwrap().return_value
}

#[test]
fn a_gate_of_the_first_release_is_taken_over() {
    let Some(link) = interface("a_gate_of_the_first_release_is_taken_over") else { return };
    let mut old = EbpfLoader::new().load(&FIRST_RELEASE.0).unwrap();
    let mut requests = Requests::open().unwrap();
    requests.add_clsact(link).unwrap();
    for (direction, name) in
        [(Direction::Ingress, "gate_ingress"), (Direction::Egress, "gate_egress")]
    {
        let program: &mut SchedClassifier = old.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
        let fd = program.fd().unwrap().as_fd();
        requests.set_filter(Hook { link, direction }, fd, c"buoy_gate").unwrap();
    }
    let map = old.take_map(GATE_DEADLINES_V1).unwrap();
    let mut deadlines: HashMap<MapData, Key, [u64; 2]> = map.try_into().unwrap();
    let deadline = (clock::now() + Duration::from_secs(60)).as_nanos();
    for (address, words) in [(LASTS, [deadline, u64::MAX]), (OVER, [1, u64::MAX]), (STALE, [1, 1])]
    {
        let key = GateKey::new(address.into(), link.0).to_bytes();
        deadlines.insert(key, words, 0).unwrap();
    }
    let mut gate = Gate::open(&[link]).unwrap();
    assert_eq!(asked(&mut gate, LASTS), PASS);
    assert_eq!(asked(&mut gate, OVER), DROP);
    assert!(!gate.entries.contains(&GateKey::new(STALE.into(), 0).to_bytes()));
    gate.close().unwrap();
}

#[test]
fn what_shared_leases_promised_is_taken_over_and_what_the_master_switch_closed_stays_closed() {
    let test =
        "what_shared_leases_promised_is_taken_over_and_what_the_master_switch_closed_stays_closed";
    let Some(link) = interface(test) else { return };
    let mut first = Gate::open(&[link]).unwrap();
    let follows = |lease| Opening { until: Instant::ZERO, lease, guard: Guard::Traffic };
    first.set(link, LASTS.into(), follows(Some(SharedLease::Majority))).unwrap();
    first.set(link, OVER.into(), follows(Some(SharedLease::Loop))).unwrap();
    first.renew(SharedLease::Majority, clock::now() + Duration::from_secs(60));
    first.renew(SharedLease::Loop, clock::now());
    let mut second = Gate::open(&[link]).unwrap();
    assert_eq!(asked(&mut second, LASTS), PASS);
    assert_eq!(asked(&mut second, OVER), DROP);
    // The second one's leases are its own.
    second.renew(SharedLease::Loop, clock::now() + Duration::from_secs(60));
    assert_eq!(asked(&mut second, OVER), DROP);

    gate::MasterSwitch::open(second.leases_fd()).unwrap().close_all();
    let mut third = Gate::open(&[link]).unwrap();
    assert_eq!(asked(&mut third, LASTS), DROP);
    third.set(link, LASTS.into(), follows(Some(SharedLease::Majority))).unwrap();
    third.renew(SharedLease::Majority, clock::now() + Duration::from_secs(60));
    assert_eq!(asked(&mut third, LASTS), PASS);
    third.close().unwrap();
}

#[test]
fn an_address_of_an_earlier_run_of_which_nothing_is_known_starts_closed() {
    let test = "an_address_of_an_earlier_run_of_which_nothing_is_known_starts_closed";
    let Some(link) = interface(test) else { return };
    let cidr = Cidr::new(IpAddr::V4(LASTS), 24).unwrap();
    Requests::open().unwrap().add_address(link, cidr, 60).unwrap();
    let mut gate = Gate::open(&[link]).unwrap();
    assert_eq!(asked(&mut gate, LASTS), DROP);
    assert_eq!(asked(&mut gate, OVER), PASS);
    gate.close().unwrap();
}
