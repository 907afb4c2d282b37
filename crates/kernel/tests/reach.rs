//! A router on a real segment: it answers, it is gone, it moves out of reach.

#![allow(clippy::unwrap_used, clippy::print_stderr)] // All of it is test.

mod segment;

use buoy_kernel::netlink::Requests;
use buoy_kernel::packet::{Heard, Listener};
use buoy_kernel::reach::{ReachError, ask, holders};
use buoy_model::LinkId;
use segment::{Segment, cidr, ip, wait_until};
use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

/// Far more than an answer takes.
const WITHIN: Duration = Duration::from_secs(5);
/// What a lost router costs.
const SHORT: Duration = Duration::from_millis(90);
const ROUTERS: [&str; 2] = ["10.0.0.2", "fd00::2"];

fn asked(segment: &Segment, router: &str, within: Duration) -> Result<(), ReachError> {
    ask(segment.near, router.parse().unwrap(), within, &|| true)
}

#[test]
fn a_router_that_answers_is_reached_and_one_that_left_is_not() {
    let test = "a_router_that_answers_is_reached_and_one_that_left_is_not";
    let Some(segment) = Segment::new(test) else { return };
    for router in ROUTERS {
        asked(&segment, router, WITHIN).unwrap();
        let address = if router.contains(':') { "fd00::2/64" } else { "10.0.0.2/24" };
        segment.there(|| ip(&format!("addr del {address} dev far")));
        let said = asked(&segment, router, SHORT).unwrap_err().to_string();
        assert_eq!(said, format!("{router} does not answer on near"));
        segment.there(|| ip(&format!("addr add {address} dev far")));
        // An IPv6 address is tentative at first.
        asked(&segment, router, WITHIN).unwrap();
    }
}

#[test]
fn a_router_is_reached_without_an_address_of_its_subnet() {
    let test = "a_router_is_reached_without_an_address_of_its_subnet";
    let Some(segment) = Segment::new(test) else { return };
    ip("addr del 10.0.0.1/24 dev near");
    ip("addr del fd00::1/64 dev near");
    for router in ROUTERS {
        asked(&segment, router, WITHIN).unwrap();
    }
}

#[test]
fn who_has_an_address_is_found_before_it_is_used_and_who_has_none_is_not() {
    let test = "who_has_an_address_is_found_before_it_is_used_and_who_has_none_is_not";
    let Some(segment) = Segment::new(test) else { return };
    for router in ROUTERS {
        // An IPv6 address is tentative at first.
        asked(&segment, router, WITHIN).unwrap();
    }
    let targets = ["10.0.0.2", "10.0.0.77", "fd00::2", "fd00::77", "10.0.0.1"];
    let targets = targets.map(|target| (segment.near, target.parse::<IpAddr>().unwrap()));
    let mut found = holders(&targets, Duration::from_secs(1)).unwrap();
    found.sort_by_key(|holder| holder.address);
    let addresses: Vec<String> = found.iter().map(|holder| holder.address.to_string()).collect();
    assert_eq!(addresses, ROUTERS, "neither those that nobody has nor the own one");
    assert!(found.iter().all(|holder| holder.link == "near" && holder.mac == found[0].mac));
    assert_eq!(holders(&[], WITHIN).unwrap(), []);
}

#[test]
fn a_question_claims_no_vip() {
    let Some(segment) = Segment::new("a_question_claims_no_vip") else { return };
    let vips = ["10.0.0.100/24", "fd00::100/64"].map(cidr);
    ip("addr del 10.0.0.1/24 dev near");
    ip("addr del fd00::1/64 dev near");
    let mut requests = Requests::open().unwrap();
    for vip in vips {
        requests.add_address(segment.near, vip, 60).unwrap();
    }
    let mut listener = segment.there(|| Listener::open(segment.far, segment.far_mac).unwrap());
    let mut claims: Vec<IpAddr> = Vec::new();
    for router in ROUTERS {
        asked(&segment, router, WITHIN).unwrap();
    }
    // An IPv6 question names its source, which tells us that both were heard.
    wait_until("the questions are heard", || {
        listener.read(&mut |Heard::Claim { address, .. }| claims.push(address)).unwrap();
        claims.iter().any(IpAddr::is_ipv6)
    });
    assert!(vips.iter().all(|vip| !claims.contains(&vip.address())), "{claims:?}");
}

#[test]
fn a_question_ends_when_nobody_wants_its_answer() {
    let test = "a_question_ends_when_nobody_wants_its_answer";
    let Some(segment) = Segment::new(test) else { return };
    let left = Cell::new(2);
    let wanted = || left.replace(left.get() - 1) > 0;
    let nobody = "10.0.0.77".parse().unwrap();
    let start = std::time::Instant::now();
    let hour = Duration::from_secs(3600);
    assert!(matches!(ask(segment.near, nobody, hour, &wanted), Err(ReachError::Silent { .. })));
    assert!(start.elapsed() < hour / 60);
}

#[test]
fn an_interface_that_cannot_ask_says_so() {
    let Some(segment) = Segment::new("an_interface_that_cannot_ask_says_so") else { return };
    let router: IpAddr = ROUTERS[0].parse().unwrap();
    let gone = ask(LinkId(9_999), router, SHORT, &|| true);
    assert!(matches!(gone, Err(ReachError::NoLink { .. })), "{gone:?}");
    segment.there(|| ip("link set far down"));
    wait_until("the carrier is lost", || {
        matches!(asked(&segment, ROUTERS[0], SHORT), Err(ReachError::Down { .. }))
    });
    let own = "10.0.0.1".parse().unwrap();
    assert!(ask(segment.near, own, SHORT, &|| true).is_ok(), "this host reaches itself");
}
