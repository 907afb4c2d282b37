//! What the real kernel makes of routes and rules that go along with a VIP.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod segment;

use buoy_kernel::netlink::{Requests, is_route, is_rule};
use buoy_model::{TABLE_MAIN, VirtualRoute, VirtualRule};
use segment::{Segment, cidr};
use std::net::IpAddr;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn route(to: &str, via: Option<&str>) -> VirtualRoute {
    let (link, source) = (None, None);
    VirtualRoute { to: cidr(to), via: via.map(ip), link, source, table: TABLE_MAIN, metric: 0 }
}

#[test]
fn what_is_set_is_found_and_removed_and_nothing_of_others_is() {
    let test = "what_is_set_is_found_and_removed_and_nothing_of_others_is";
    let Some(segment) = Segment::new(test) else { return };
    let mut requests = Requests::open().unwrap();
    let near = Some(segment.near);
    let routes = [
        route("192.168.3.0/24", Some("10.0.0.2")),
        // With the bits of a host, which mean nothing.
        VirtualRoute { table: 1000, metric: 7, ..route("192.168.4.9/24", Some("10.0.0.2")) },
        VirtualRoute { table: 100, ..route("0.0.0.0/0", Some("10.0.0.2")) },
        VirtualRoute { link: near, source: Some(ip("10.0.0.1")), ..route("192.168.5.1/32", None) },
        route("2001:db8::/32", Some("fd00::2")),
        VirtualRoute { link: near, table: 100, ..route("::/0", None) },
    ];
    let rule = |from: Option<&str>, to: Option<&str>| VirtualRule {
        v6: from.or(to).is_some_and(|text| text.contains(':')),
        from: from.map(cidr),
        to: to.map(cidr),
        incoming: None,
        mark: None,
        table: 100,
        priority: None,
    };
    let rules = [
        rule(Some("10.0.0.100/32"), None),
        VirtualRule { priority: Some(777), ..rule(Some("fd00::9/64"), Some("2001:db8::/32")) },
        VirtualRule {
            mark: Some(5),
            incoming: Some("lo".into()),
            table: 70_000,
            ..rule(None, None)
        },
    ];
    for route in &routes {
        requests.add_virtual_route(route).unwrap();
    }
    for rule in &rules {
        requests.add_virtual_rule(rule).unwrap();
    }
    let there = requests.virtual_routes().unwrap();
    assert_eq!(there.len(), routes.len(), "{there:?}");
    for route in &routes {
        assert!(there.iter().any(|known| is_route(route, known)), "{route:?} in {there:?}");
    }
    let there = requests.virtual_rules().unwrap();
    assert_eq!(there.len(), rules.len(), "{there:?}");
    for rule in &rules {
        assert!(there.iter().any(|known| is_rule(rule, known)), "{rule:?} in {there:?}");
    }
    // Twice is told: it may be somebody else's.
    assert!(requests.add_virtual_route(&routes[0]).is_err());
    requests.remove_virtual_route(&routes[0]).unwrap();
    requests.remove_virtual_route(&routes[0]).unwrap();
    assert_eq!(requests.virtual_routes().unwrap().len(), routes.len() - 1);
    let subnet = requests.route(ip("10.0.0.7")).unwrap().unwrap();
    requests.remove_all_virtual().unwrap();
    assert_eq!(requests.virtual_routes().unwrap(), []);
    assert_eq!(requests.virtual_rules().unwrap(), []);
    assert_eq!(requests.route(ip("10.0.0.7")).unwrap(), Some(subnet), "the host's own");
}
