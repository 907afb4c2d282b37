//! What the real kernel does with the addresses that we give it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod segment;

use buoy_config::Host;
use buoy_kernel::netlink::Requests;
use buoy_kernel::{clock, host, poll::Poller};
use nix::errno::Errno;
use segment::{Segment, cidr, ip, wait_until};
use std::net::UdpSocket;
use std::time::Duration;

const VIPS: [&str; 2] = ["10.0.0.100/24", "fd00::100/64"];

#[test]
fn doing_it_twice_is_doing_it_once() {
    let Some(segment) = Segment::new("doing_it_twice_is_doing_it_once") else { return };
    let mut requests = Requests::open().unwrap();
    for vip in VIPS.map(cidr) {
        for _ in 0..2 {
            requests.add_address(segment.near, vip, 60).unwrap();
            let ours = requests.list_ours().unwrap();
            assert_eq!(ours.iter().map(|a| a.cidr).collect::<Vec<_>>(), [vip]);
        }
        assert!(requests.remove_address(segment.near, vip).unwrap());
        assert!(!requests.remove_address(segment.near, vip).unwrap());
        assert_eq!(requests.list_ours().unwrap(), []);
    }
}

#[test]
fn an_address_carries_our_mark_and_no_other_does() {
    let Some(segment) = Segment::new("an_address_carries_our_mark_and_no_other_does") else {
        return;
    };
    let mut requests = Requests::open().unwrap();
    for vip in VIPS.map(cidr) {
        requests.add_address(segment.near, vip, 60).unwrap();
    }
    let addresses = requests.addresses().unwrap();
    let marked: Vec<_> = addresses.iter().filter(|a| a.ours).map(|a| a.cidr).collect();
    assert_eq!(marked, VIPS.map(cidr));
    assert!(addresses.iter().any(|a| !a.ours && a.cidr == cidr("10.0.0.1/24")));
}

#[test]
fn an_ipv6_address_serves_at_once_and_is_never_the_source_of_a_connection() {
    let test = "an_ipv6_address_serves_at_once_and_is_never_the_source_of_a_connection";
    let Some(segment) = Segment::new(test) else { return };
    // Without it the kernel would choose by the longest common prefix, and fd00::3 would win.
    let vip = cidr("fd00::3/64");
    let mut requests = Requests::open().unwrap();
    requests.add_address(segment.near, vip, 60).unwrap();
    let added = requests.list_ours().unwrap();
    assert!(added.iter().all(|a| !a.tentative), "{added:?}");
    let mut asker = segment.asker();
    assert_eq!(asker.find(vip.address()), Some(segment.near_mac));
    let socket = UdpSocket::bind("[::]:0").unwrap();
    socket.connect("[fd00::2]:9").unwrap();
    assert_eq!(socket.local_addr().unwrap().ip().to_string(), "fd00::1");
}

#[test]
fn an_ipv4_address_is_never_the_source_of_a_connection() {
    let Some(segment) = Segment::new("an_ipv4_address_is_never_the_source_of_a_connection") else {
        return;
    };
    let mut requests = Requests::open().unwrap();
    for vip in ["10.0.0.3/24", "10.0.0.4/32"].map(cidr) {
        requests.add_address(segment.near, vip, 60).unwrap();
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("10.0.0.2:9").unwrap();
        assert_eq!(socket.local_addr().unwrap().ip().to_string(), "10.0.0.1");
    }
}

#[test]
fn an_address_brings_no_route_to_its_subnet() {
    let Some(segment) = Segment::new("an_address_brings_no_route_to_its_subnet") else { return };
    let mut requests = Requests::open().unwrap();
    let subnets = || (ip("-4 route show"), ip("-6 route show"));
    let before = subnets();
    for vip in ["10.0.0.100/24", "10.9.0.100/24", "fd00::100/64", "fd09::100/64"].map(cidr) {
        requests.add_address(segment.near, vip, 60).unwrap();
    }
    assert_eq!(subnets(), before);
}

#[test]
fn an_address_that_is_not_refreshed_goes_by_itself_and_a_refreshed_one_stays() {
    let test = "an_address_that_is_not_refreshed_goes_by_itself_and_a_refreshed_one_stays";
    let Some(segment) = Segment::new(test) else { return };
    let mut requests = Requests::open().unwrap();
    let present = |requests: &mut Requests| requests.list_ours().unwrap().len();
    let mut nothing = Poller::new();
    for _ in 0..8 {
        for vip in VIPS.map(cidr) {
            requests.add_address(segment.near, vip, 1).unwrap();
        }
        nothing.wait(Some(clock::now() + Duration::from_millis(300))).unwrap();
        assert_eq!(present(&mut requests), VIPS.len());
    }
    let last_refresh = clock::now();
    wait_until("both have expired", || present(&mut requests) == 0);
    let lag = clock::now().since(last_refresh);
    assert!(lag < Duration::from_secs(3), "{lag:?}");
}

#[test]
fn a_refusal_says_what_the_kernel_says() {
    let Some(_segment) = Segment::new("a_refusal_says_what_the_kernel_says") else { return };
    let mut requests = Requests::open().unwrap();
    let nowhere = buoy_model::LinkId(4_000);
    let error = requests.add_address(nowhere, cidr("10.0.0.100/24"), 60).unwrap_err();
    assert_eq!(error.errno(), Errno::ENODEV);
    assert_ne!(error.to_string(), "");
    assert!(!requests.remove_address(nowhere, cidr("10.0.0.100/24")).unwrap());
}

#[test]
fn a_configuration_is_checked_against_what_is_really_here() {
    let test = "a_configuration_is_checked_against_what_is_really_here";
    let Some(segment) = Segment::new(test) else { return };
    Requests::open().unwrap().add_address(segment.near, cidr(VIPS[0]), 60).unwrap();
    let facts = host::facts().unwrap();
    assert_eq!(facts.link(segment.near).unwrap().mac, Some(segment.near_mac));
    let host = Host::from(&facts);
    assert_eq!(host.hostname, facts.hostname);
    let near = host.links.iter().find(|link| link.name == "near").unwrap();
    assert!(near.up);
    let is_ours = |text: &str| near.addresses.iter().find(|a| a.cidr == cidr(text)).unwrap().ours;
    assert!(is_ours(VIPS[0]));
    assert!(!is_ours("10.0.0.1/24"));
    let loopback = facts.links.iter().find(|link| link.name == "lo").unwrap();
    assert_eq!(loopback.mac, None);
}
