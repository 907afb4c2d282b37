//! What a thousand addresses cost: counted in system calls and waits, because time depends on the machine.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod segment;

use buoy_kernel::apply::Apply;
use buoy_kernel::clock;
use buoy_kernel::gate::{Gate, GateError};
use buoy_kernel::netlink::{AddressChange, Monitor, Requests};
use buoy_kernel::packet::Announcer;
use buoy_kernel::poll::Poller;
use buoy_model::{Action, Cidr, Guard, Instant, LinkId, Presence, SharedLease};
use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use segment::{Segment, cidr};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

const MANY: usize = 1_000;

/// Half of them of each family.
fn vips() -> Vec<Cidr> {
    let v4 = (0..500).map(|n| Ipv4Addr::from_bits(0x0a00_0100 + n).into());
    let v6 = (0..500).map(|n| Ipv6Addr::from_bits((0xfd00 << 112) + 0x100 + n).into());
    let v4 = v4.map(|address| Cidr::new(address, 32).unwrap());
    let v6 = v6.map(|address| Cidr::new(address, 64).unwrap());
    v4.chain(v6).collect()
}

fn add(link: LinkId, cidr: Cidr) -> AddressChange {
    AddressChange::Add { link, cidr, valid_lifetime: 60 }
}

#[test]
fn a_thousand_addresses_are_renewed_with_a_few_dozen_system_calls() {
    let test = "a_thousand_addresses_are_renewed_with_a_few_dozen_system_calls";
    let Some(segment) = Segment::new(test) else { return };
    let mut requests = Requests::open().unwrap();
    let link = segment.near;
    let on: Vec<_> = vips().into_iter().map(|cidr| add(link, cidr)).collect();
    let off: Vec<_> = vips().into_iter().map(|cidr| AddressChange::Remove { link, cidr }).collect();
    for (changes, left) in [(&on, MANY), (&on, MANY), (&off, 0)] {
        let before = requests.system_calls();
        requests.change_addresses(changes, &mut |at, error| panic!("{at}: {error}"));
        let calls = requests.system_calls() - before;
        assert!(calls <= 40, "{calls} system calls for {MANY} addresses");
        assert_eq!(requests.list_ours().unwrap().len(), left);
    }
}

#[test]
fn one_refused_change_is_named_and_hinders_no_other() {
    let Some(segment) = Segment::new("one_refused_change_is_named_and_hinders_no_other") else {
        return;
    };
    let mut requests = Requests::open().unwrap();
    let mut changes: Vec<_> = vips().into_iter().map(|cidr| add(segment.near, cidr)).collect();
    // First, last and in the middle of what goes out together.
    let wrong = [0, 63, 64, 100, MANY - 1];
    for at in wrong {
        changes[at] = add(LinkId(4_000), vips()[at]);
    }
    let mut refused = Vec::new();
    requests.change_addresses(&changes, &mut |at, error| refused.push((at, error.errno())));
    assert_eq!(refused, wrong.map(|at| (at, Errno::ENODEV)));
    assert_eq!(requests.list_ours().unwrap().len(), MANY - wrong.len());
    // In the same order as they were given: on, off, on again.
    let cidr = cidr("10.9.9.9/32");
    let link = segment.near;
    let flap = [add(link, cidr), AddressChange::Remove { link, cidr }, add(link, cidr)];
    requests.change_addresses(&flap, &mut |at, error| panic!("{at}: {error}"));
    assert!(requests.list_ours().unwrap().iter().any(|a| a.cidr == cidr));
}

#[test]
fn renewals_do_not_wake_who_listens_for_losses() {
    let test = "renewals_do_not_wake_who_listens_for_losses";
    let Some(segment) = Segment::new(test) else { return };
    let mut requests = Requests::open().unwrap();
    let link = segment.near;
    let on: Vec<_> = vips().into_iter().map(|cidr| add(link, cidr)).collect();
    let mut ignore = |_, error| panic!("{error}");
    requests.change_addresses(&on, &mut ignore);
    let mut monitor = Monitor::open().unwrap();
    let mut poller = Poller::new();
    assert!(poller.watch(0, &monitor));
    let mut news = Vec::new();
    // The interface itself may still be settling, and that is news; renewals are none.
    let is_left_asleep = (0..20).any(|_| {
        monitor.read(&mut |said| news.push(said)).unwrap();
        requests.change_addresses(&on, &mut ignore);
        poller.wait(Some(Instant::ZERO)).unwrap().is_empty()
    });
    assert!(is_left_asleep, "woken by each of twenty renewals: {news:?}");
    assert!(!format!("{news:?}").contains("Address"), "{news:?}");
    requests.change_addresses(&[AddressChange::Remove { link, cidr: vips()[0] }], &mut ignore);
    assert!(poller.wait(Some(clock::now() + segment::PATIENCE)).unwrap().contains(0));
}

#[test]
fn a_thousand_addresses_at_once_do_not_hold_up_the_loop() {
    let test = "a_thousand_addresses_at_once_do_not_hold_up_the_loop";
    let Some(segment) = Segment::new(test) else { return };
    let gate = match Gate::open(&[segment.near]) {
        Ok(gate) => gate,
        Err(GateError::Permission) => {
            eprintln!("SKIPPED: {test}: BPF programs are not permitted here");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let mut apply = Apply::new(Requests::open().unwrap(), Announcer::open().unwrap(), Some(gate));
    let link = segment.near;
    let waits = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().voluntary_context_switches();
    let before = waits();
    let lease = SharedLease::Majority;
    apply.apply(&Action::Renew { lease, until: clock::now() + Duration::from_secs(60) }).unwrap();
    for cidr in vips() {
        let fence = Action::Fence {
            address: cidr.address(),
            link,
            until: Instant::ZERO,
            lease: Some(lease),
            guard: Guard::Traffic,
        };
        apply.apply(&fence).unwrap();
        apply
            .apply(&Action::AddAddress {
                link,
                cidr,
                valid_lifetime: 60,
                presence: Presence::Assigned,
            })
            .unwrap();
    }
    let waits = waits() - before;
    // Each change would be one, if the loop waited for the kernel.
    assert!(waits < 50, "the loop waited {waits} times");
    // More addresses come into the configuration meanwhile: what was ordered is carried out first, nothing is lost.
    apply.make_room(2 * MANY);
    assert_eq!(apply.pending(), 0);
    assert_eq!(Requests::open().unwrap().list_ours().unwrap().len(), MANY);
    apply.close().unwrap();
}
