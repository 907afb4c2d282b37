//! Wrong routes and rules, for `cases.rs`, and what right ones become on this host.

use crate::cases::Case;
use crate::support::{self, SMALL, cidr};
use buoy_config::Code;
use buoy_model::limits::{VIP_ROUTES_MAX, VIP_RULES_MAX};
use buoy_model::{LinkId, TABLE_MAIN, VirtualRoute, VirtualRule};

/// After `[[vip]]`.
pub(crate) const ROUTES: &[Case] = &[
    (Code::WrongType, "routes = »5", "192.168.3.0/24 via 10.0.0.1"),
    (Code::EmptyList, "routes = »[]", "remove the line"),
    (Code::UnknownKey, "»virtual_routes = []", "as in `routes = "),
    (Code::UnknownKey, "»virtual_rules = []", "as in `rules = "),
    (Code::BadRoute, "routes = »\"\"", "192.168.3.0/24 via"),
    (Code::BadRoute, "routes = \"»via 10.0.0.1\"", "192.168.3.0/24 via"),
    (Code::BadRoute, "routes = \"»192.168.3.0/24\"", "add `via ADDRESS`, or `dev INTERFACE`"),
    (Code::BadRoute, "routes = \"»192.168.3.0/33 dev eth0\"", "192.168.3.0/24"),
    (Code::BadRoute, "routes = \"»192.168.3.0/+4 dev eth0\"", "192.168.3.0/24"),
    (Code::BadRoute, "routes = \"»192.168.3.7/24 dev eth0\"", "\"192.168.3.0/24\", or 192.168.3.7"),
    (Code::BadRoute, "routes = \"»2001:db8::1/64 dev eth0\"", "\"2001:db8::/64\""),
    (Code::BadRoute, "routes = \"»blackhole 10.9.0.0/16\"", "192.168.3.0/24"),
    (Code::BadRoute, "routes = \"10.9.0.0/16 »vai 10.0.0.1\"", "did you mean `via`?"),
    (Code::BadRoute, "routes = \"10.9.0.0/16 »nexthop via 10.0.0.1\"", "remove \"nexthop\""),
    (Code::BadRoute, "routes = \"10.9.0.0/16 dev eth0 »dev eth1\"", "remove one"),
    (Code::BadRoute, "routes = \"10.9.0.0/16 »via\"", "write it, or remove the word"),
    (Code::BadRoute, "routes = \"10.9.0.0/16 via »10.0.0.1/24\"", "without a prefix"),
    (Code::BadRoute, "routes = \"10.9.0.0/16 via »router\"", "address of a host"),
    (Code::BadRoute, "routes = \"10.9.0.0/16 via »224.0.0.1\"", "address of a host"),
    (Code::BadRoute, "routes = \"10.9.0.0/16 via »2001:db8::1\"", "one of each version"),
    (Code::BadRoute, "routes = \"default via 10.0.0.1 src »2001:db8::1\"", "one of each version"),
    (Code::BadRoute, "routes = \"2001:db8:9::/48 via »fe80::1\"", "add `dev INTERFACE`"),
    (Code::BadRoute, "routes = \"default dev eth0 table »0\"", "as 0xHEX"),
    (Code::BadRoute, "routes = \"default dev eth0 table »4294967296\"", "as 0xHEX"),
    (Code::BadRoute, "routes = \"default dev eth0 table »uplink\"", "table 100"),
    (Code::BadRoute, "routes = \"default dev eth0 metric »low\"", "as 0xHEX"),
    (
        Code::BadRoute,
        "routes = [\"default via 10.0.0.1\", »\"0.0.0.0/0 via 10.0.0.2 table 254\"]",
        "another `metric` or `table`",
    ),
    (
        Code::BadRoute,
        "routes = [\"default via 2001:db8::1\", »\"::/0 via 2001:db8::2 metric 1024\"]",
        "another `metric` or `table`",
    ),
    (
        Code::BadRoute,
        "routes = \"default via 10.0.0.1\"\n[[vip]]\naddress = \"10.0.0.101/24\"\nroutes = »\"default via 10.0.0.1\"",
        "remove one",
    ),
    (Code::BadName, "routes = \"default dev »a/b\"", "`ip link`"),
    (Code::NoInterface, "routes = \"default dev »eht0\"", "did you mean \"eth0\"?"),
    (Code::NoInterface, "routes = \"default dev »uplink\"", "that have it in `nodes`"),
    (Code::WrongType, "rules = »true", "from 10.0.0.100 table 100"),
    (Code::BadRule, "rules = »\"\"", "add `from PREFIX`"),
    (Code::BadRule, "rules = \"»table 100\"", "add `from PREFIX`"),
    (Code::BadRule, "rules = \"»from all table 100\"", "add `from PREFIX`"),
    (Code::BadRule, "rules = \"»to ::/0 table 100\"", "add `from PREFIX`"),
    (Code::BadRule, "rules = \"»from 10.0.0.100\"", "table 100"),
    (Code::BadRule, "rules = \"from »10.0.0.100/24 table 100\"", "\"10.0.0.0/24\""),
    (Code::BadRule, "rules = \"from 10.0.0.100 to »::1 table 100\"", "one of each version"),
    (Code::BadRule, "rules = \"iif eth0 »oif eth1 table 100\"", "did you mean `iif`?"),
    (Code::BadRule, "rules = \"fwmark »0 table 100\"", "as 0xHEX"),
    (Code::BadRule, "rules = \"fwmark »0x5/0xff table 100\"", "as 0xHEX"),
    (Code::BadRule, "rules = \"fwmark »0x table 100\"", "as 0xHEX"),
    (Code::BadRule, "rules = \"iif eth0 table 100 priority »0\"", "as 0xHEX"),
    (Code::BadRule, "rules = \"iif eth0 table 100 »lookup 101\"", "remove one"),
    (Code::BadName, "rules = \"iif »an-interface-of-17 table 100\"", "`ip link`"),
    (
        Code::BadRule,
        "rules = [\"iif eth0 table 100\", »\"from 0.0.0.0/0 iif eth0 lookup 0x64\"]",
        "one `group`",
    ),
];

fn group(text: &str) -> (Vec<VirtualRoute>, Vec<VirtualRule>) {
    let checked = support::accepted(&format!("{SMALL}{text}\n"));
    let group = &checked.desired.groups[0];
    (group.routes.clone(), group.rules.clone())
}

fn route(to: &str) -> VirtualRoute {
    let to = cidr(to);
    VirtualRoute { to, via: None, link: None, source: None, table: TABLE_MAIN, metric: 0 }
}

fn rule(table: u32) -> VirtualRule {
    let (from, to, incoming) = (None, None, None);
    VirtualRule { v6: false, from, to, incoming, mark: None, table, priority: None }
}

fn ip(text: &str) -> Option<core::net::IpAddr> {
    Some(text.parse().expect("an address"))
}

#[test]
fn a_route_is_what_its_words_say_on_this_host() {
    let cases = [
        (
            "192.168.3.0/24 via 10.0.0.1",
            VirtualRoute { via: ip("10.0.0.1"), ..route("192.168.3.0/24") },
        ),
        ("192.168.3.7 dev eth1", VirtualRoute { link: Some(LinkId(3)), ..route("192.168.3.7/32") }),
        (
            "default via 10.0.0.254 dev eth1 src 10.0.0.100 table 100 metric 50",
            VirtualRoute {
                via: ip("10.0.0.254"),
                link: Some(LinkId(3)),
                source: ip("10.0.0.100"),
                table: 100,
                metric: 50,
                ..route("0.0.0.0/0")
            },
        ),
        ("default dev eth0", VirtualRoute { link: Some(LinkId(2)), ..route("0.0.0.0/0") }),
        ("default  metric 0x10\ttable main  via 2001:db8::1", {
            VirtualRoute { via: ip("2001:db8::1"), metric: 16, ..route("::/0") }
        }),
        (
            "default dev eth0 src 2001:db8::100",
            VirtualRoute { link: Some(LinkId(2)), source: ip("2001:db8::100"), ..route("::/0") },
        ),
        (
            "2001:db8:9::/48 via fe80::1 dev eth0 table 4294967295",
            VirtualRoute {
                via: ip("fe80::1"),
                link: Some(LinkId(2)),
                table: u32::MAX,
                ..route("2001:db8:9::/48")
            },
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(group(&format!("routes = '{text}'")).0, [expected], "{text}");
    }
}

#[test]
fn a_rule_is_what_its_words_say() {
    let cases = [
        (
            "from 10.0.0.100 table 100",
            VirtualRule { from: Some(cidr("10.0.0.100/32")), ..rule(100) },
        ),
        (
            "to 192.168.3.0/24 iif eth9 fwmark 0x5 table 100 priority 1000",
            VirtualRule {
                to: Some(cidr("192.168.3.0/24")),
                incoming: Some("eth9".to_owned()),
                mark: Some(5),
                priority: Some(1000),
                ..rule(100)
            },
        ),
        ("pref 7 from all fwmark 9 lookup main", {
            VirtualRule { mark: Some(9), priority: Some(7), ..rule(TABLE_MAIN) }
        }),
        ("from ::/0 fwmark 9 table 6", VirtualRule { v6: true, mark: Some(9), ..rule(6) }),
        (
            "from all to 2001:db8:9::/48 table 6",
            VirtualRule { v6: true, to: Some(cidr("2001:db8:9::/48")), ..rule(6) },
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(group(&format!("rules = \"{text}\"")).1, [expected], "{text}");
    }
}

#[test]
fn a_group_has_the_routes_and_rules_of_all_its_vips() {
    let text = r#"group = "edge"
routes = "10.9.0.0/16 via 10.0.0.1"
rules = "from 10.0.0.100 table 100"
[[vip]]
address = "10.0.0.101/24"
group = "edge"
routes = ["10.8.0.0/16 via 10.0.0.1", "10.9.0.0/16 via 10.0.0.1 metric 5"]
rules = ["from 10.0.0.101 table 100"]"#;
    let (routes, rules) = group(text);
    let to: Vec<String> = routes.iter().map(|route| route.to.to_string()).collect();
    assert_eq!(to, ["10.9.0.0/16", "10.8.0.0/16", "10.9.0.0/16"]);
    assert_eq!(rules.len(), 2);
}

#[test]
fn a_host_that_cannot_own_the_vip_needs_no_interface_of_its_routes() {
    let (routes, _) = group("nodes = [\"10.0.0.12\"]\nroutes = \"10.9.0.0/16 dev uplink\"");
    assert_eq!(routes, [route("10.9.0.0/16")]);
    let text = format!("{SMALL}routes = \"10.9.0.0/16 dev uplink\"\n");
    assert!(buoy_config::check_offline(&text, "/etc/buoy/buoy.toml").is_ok());
}

#[test]
fn vips_that_no_host_can_have_both_of_may_have_the_same_routes() {
    let text = |nodes: &str| {
        format!(
            "{SMALL}nodes = [\"10.0.0.11\"]\nroutes = \"default via 10.0.0.1\"\nrules = \"iif eth0 table 7\"\n[[vip]]\naddress = \"10.0.0.101/24\"\nnodes = [{nodes}]\nroutes = \"default via 10.0.0.2\"\nrules = \"iif eth0 table 7\"\n"
        )
    };
    assert!(support::report(&text("\"10.0.0.12\"")).is_empty());
    let report = support::report(&text("\"10.0.0.12\", \"10.0.0.11\""));
    let codes: Vec<Code> = report.problems().iter().map(|problem| problem.code).collect();
    assert_eq!(codes, [Code::BadRoute, Code::BadRule], "{report}");
}

#[test]
fn a_vip_has_so_many_of_each_and_no_more() {
    let list = |most: usize, text: &dyn Fn(usize) -> String| {
        let texts: Vec<String> = (0..most).map(|n| format!("{:?}", text(n))).collect();
        format!("[{}]", texts.join(", "))
    };
    let route = |n: usize| format!("10.9.{n}.0/24 via 10.0.0.1");
    let rule = |n: usize| format!("from 10.9.{n}.0/24 table 100");
    let text = |routes: usize, rules: usize| {
        format!("{SMALL}routes = {}\nrules = {}\n", list(routes, &route), list(rules, &rule))
    };
    let full = support::accepted(&text(VIP_ROUTES_MAX, VIP_RULES_MAX));
    assert_eq!(full.desired.groups[0].routes.len(), VIP_ROUTES_MAX);
    assert_eq!(full.desired.groups[0].rules.len(), VIP_RULES_MAX);
    for (routes, rules) in [(VIP_ROUTES_MAX + 1, 1), (1, VIP_RULES_MAX + 1)] {
        let report = support::report(&text(routes, rules));
        let codes: Vec<Code> = report.problems().iter().map(|problem| problem.code).collect();
        assert_eq!(codes, [Code::TooMany], "{report}");
    }
}

#[test]
fn what_a_route_says_is_in_the_digest() {
    let digest = |text: &str| support::accepted(&format!("{SMALL}{text}\n")).desired.digest;
    let texts = [
        "",
        "routes = \"default via 10.0.0.1\"",
        "routes = \"default via 10.0.0.2\"",
        "rules = \"iif eth0 table 1\"",
        "rules = \"iif eth1 table 1\"",
    ];
    let digests: std::collections::BTreeSet<u32> = texts.iter().map(|text| digest(text)).collect();
    assert_eq!(digests.len(), texts.len());
}
