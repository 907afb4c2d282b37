//! What is said on a real segment about an address, and who hears it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod segment;

use buoy_kernel::packet::{Announcer, Heard, Listener};
use buoy_kernel::{clock, poll::Poller};
use buoy_model::{FrameKind, Mac};
use segment::{Segment, cidr, ip, wait_until};
use std::net::IpAddr;
use std::time::Duration;

const VIPS: [&str; 2] = ["10.0.0.100/24", "fd00::100/64"];

fn announcer(segment: &Segment) -> Announcer {
    let mut announcer = Announcer::open().unwrap();
    announcer.set_link(segment.near, segment.near_mac, false);
    announcer
}

/// Reads until the claim of `last` comes, and gives all claims until then.
fn claims_until(listener: &mut Listener, last: IpAddr) -> Vec<(IpAddr, Mac)> {
    let mut claims = Vec::new();
    wait_until("the last claim is heard", || {
        listener
            .read(&mut |Heard::Claim { address, mac, .. }| claims.push((address, mac)))
            .unwrap();
        claims.iter().any(|&(address, _)| address == last)
    });
    claims
}

#[test]
fn an_announcement_corrects_what_the_neighbours_believe() {
    let test = "an_announcement_corrects_what_the_neighbours_believe";
    let Some(segment) = Segment::new(test) else { return };
    let announcer = announcer(&segment);
    for vip in VIPS {
        let address = cidr(vip).address();
        let learn = format!("neigh replace {address} lladdr 02:00:00:00:00:77 dev far nud stale");
        segment.there(|| ip(&learn));
        announcer.announce(segment.near, address, FrameKind::Gratuitous).unwrap();
        let believed = format!("{address} lladdr {}", segment.near_mac);
        segment.there(|| {
            wait_until("the neighbour believes", || ip("neigh show dev far").contains(&believed));
        });
    }
}

#[test]
fn a_foreign_claim_is_heard_and_our_own_is_not() {
    let Some(segment) = Segment::new("a_foreign_claim_is_heard_and_our_own_is_not") else { return };
    let here = announcer(&segment);
    let mut listener = segment.there(|| Listener::open(segment.far, segment.far_mac).unwrap());
    let there = segment.there(|| {
        let mut announcer = Announcer::open().unwrap();
        announcer.set_link(segment.far, segment.far_mac, false);
        announcer
    });
    for vip in VIPS {
        let address = cidr(vip).address();
        let kinds = [FrameKind::Gratuitous, FrameKind::Defence];
        for kind in kinds {
            there.announce(segment.far, address, kind).unwrap();
            here.announce(segment.near, address, kind).unwrap();
            assert_eq!(claims_until(&mut listener, address), [(address, segment.near_mac)]);
        }
    }
}

#[test]
fn a_question_for_an_address_claims_the_askers_and_not_the_one_asked_for() {
    let test = "a_question_for_an_address_claims_the_askers_and_not_the_one_asked_for";
    let Some(segment) = Segment::new(test) else { return };
    let here = announcer(&segment);
    let mut listener = segment.there(|| Listener::open(segment.far, segment.far_mac).unwrap());
    for (from, target) in [("10.0.0.1", "10.0.0.100"), ("fd00::1", "fd00::2")] {
        let from: IpAddr = from.parse().unwrap();
        here.ask(segment.near, from, target.parse().unwrap()).unwrap();
        assert_eq!(claims_until(&mut listener, from), [(from, segment.near_mac)]);
    }
    let mixed = here.ask(segment.near, "10.0.0.1".parse().unwrap(), "fd00::2".parse().unwrap());
    assert!(mixed.is_err());
}

#[test]
fn other_traffic_does_not_wake_the_listener() {
    let Some(segment) = Segment::new("other_traffic_does_not_wake_the_listener") else { return };
    // The neighbours know each other, so that nothing but data is sent.
    let known = |own: Mac, name: &str, number: u8| {
        for address in [format!("10.0.0.{number}"), format!("fd00::{number}")] {
            ip(&format!("neigh replace {address} lladdr {own} dev {name} nud permanent"));
        }
    };
    known(segment.far_mac, "near", 2);
    segment.there(|| known(segment.near_mac, "far", 1));
    let listener = segment.there(|| Listener::open(segment.far, segment.far_mac).unwrap());
    let mut poller = Poller::new();
    for (token, fd) in listener.fds().iter().enumerate() {
        assert!(poller.watch(token, fd));
    }
    for to in ["10.0.0.2:9", "[fd00::2]:9"] {
        let receiver = segment.there(|| std::net::UdpSocket::bind(to).unwrap());
        receiver.set_read_timeout(Some(segment::PATIENCE)).unwrap();
        let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let sender = std::net::UdpSocket::bind(any).unwrap();
        sender.send_to(b"data", to).unwrap();
        assert_eq!(receiver.recv(&mut [0; 16]).unwrap(), 4);
        let ready = poller.wait(Some(clock::now() + Duration::from_millis(1))).unwrap();
        assert!(ready.is_empty(), "{to}");
    }
}
