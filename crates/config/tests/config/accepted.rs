//! What is accepted, what it becomes, and what holds where the file says nothing.

use crate::support::{self, KEY_2, SMALL, accepted, check_on, cidr, host};
use buoy_config::{HostAddress, key};
use buoy_model::limits::CHECK_TLS_WARN_DEFAULT;
use buoy_model::limits::{HEARTBEAT_DEFAULT, LEASE_DEFAULT};
use buoy_model::{
    Check, CheckKind, ClusterId, Desired, Failback, Group, HttpCheck, LinkId, Load, NodeId, Pace,
    PostgresRole, Presence, Protocol, Running, Safety, Service, Sought, Statuses, Timing, TlsCheck,
    VipAddress,
};
use std::time::Duration;

pub(crate) const MS: fn(u64) -> Duration = Duration::from_millis;

pub(crate) fn desired(text: &str) -> Desired {
    accepted(text).desired
}

/// The first group of `SMALL` with more lines.
pub(crate) fn group(lines: &str) -> Group {
    desired(&format!("{SMALL}{lines}\n")).groups.remove(0)
}

/// The services of one `[[vip.service]]`.
pub(crate) fn services(lines: &str) -> Vec<Service> {
    group(&format!("[[vip.service]]\n{lines}\n")).services
}

#[test]
fn four_lines_are_a_complete_wish() {
    let desired = desired(SMALL);
    assert_eq!(desired.cluster_name, "buoy");
    assert_eq!(desired.cluster, ClusterId::of("buoy"));
    assert_eq!(desired.me, NodeId::of("10.0.0.11"));
    assert_eq!(desired.generation, 1);
    assert_eq!(
        (desired.timing.heartbeat, desired.timing.lease),
        (HEARTBEAT_DEFAULT, LEASE_DEFAULT)
    );
    assert!(desired.nodes.is_sorted_by_key(|n| n.id));
    assert_eq!(desired.node(desired.me).unwrap().address(), "10.0.0.11:4747".parse().unwrap());
    let group = &desired.groups[0];
    assert_eq!(group.name, "10.0.0.100");
    let address = VipAddress {
        cidr: cidr("10.0.0.100/24"),
        link: Some(LinkId(2)),
        link_name: "eth0".to_owned(),
        vip_name: "10.0.0.100".to_owned(),
        presence: Presence::Assigned,
    };
    assert_eq!(group.addresses, [address]);
    assert_eq!(group.safety, Safety::Available);
    assert_eq!(group.nodes, desired.nodes.iter().map(|n| n.id).collect::<Vec<_>>());
    assert_eq!(
        (&group.prefer, group.failback, &group.services),
        (&vec![], Failback::Never, &vec![])
    );
}

#[test]
fn three_peers_are_exclusive_unless_the_file_says_otherwise() {
    let three = SMALL.replace("\"10.0.0.12\"", "\"10.0.0.12\", \"10.0.0.13\"");
    for (line, top) in
        [("", true), ("safety = \"available\"", true), ("safety = \"available\"", false)]
    {
        let text = if top { format!("{line}\n{three}") } else { format!("{three}{line}\n") };
        let expected = if line.is_empty() { Safety::Exclusive } else { Safety::Available };
        assert_eq!(desired(&text).groups[0].safety, expected, "{text}");
    }
    let mixed = format!("safety = \"available\"\n{three}safety = \"exclusive\"\n");
    assert_eq!(desired(&mixed).groups[0].safety, Safety::Exclusive);
}

#[test]
fn a_slower_heartbeat_stretches_the_default_lease() {
    for (top, heartbeat, lease) in [
        ("heartbeat = \"5ms\"", 5, 32),
        ("heartbeat = \"11ms\"", 11, 36),
        ("heartbeat = \"100ms\"", 100, 320),
        ("heartbeat = \"800ms\"", 800, 2_500),
        ("heartbeat = \"20ms\"\nlease = \"80ms\"", 20, 80),
    ] {
        let timing = desired(&format!("{top}\n{SMALL}")).timing;
        assert_eq!((timing.heartbeat, timing.lease), (MS(heartbeat), MS(lease)), "{top}");
    }
}

#[test]
fn a_lease_grows_up_to_lease_max_and_never_begins_above_it() {
    for (top, lease, longest) in [
        ("", 32, 300),
        ("lease = \"500ms\"", 500, 500),
        ("heartbeat = \"100ms\"", 320, 320),
        ("lease = \"40ms\"\nlease_max = \"40ms\"", 40, 40),
        ("lease_max = \"1s\"", 32, 1_000),
    ] {
        let timing = desired(&format!("{top}\n{SMALL}")).timing;
        assert_eq!((timing.lease, timing.lease_max), (MS(lease), MS(longest)), "{top}");
    }
}

#[test]
fn a_node_without_peers_turns_seldom_unless_the_file_or_vrrp_asks_for_more() {
    let vrrp = "vrrp = { id = 51, peers = \"10.0.0.20\" }";
    for (top, more, expected) in [
        ("", "", [100, 320, 320]),
        ("heartbeat = \"10ms\"", "", [10, 32, 300]),
        ("lease = \"60ms\"", "", [10, 60, 300]),
        ("lease_max = \"1s\"", "", [10, 32, 1_000]),
        ("", vrrp, [10, 32, 300]),
    ] {
        let text = format!("{}{more}\n", with_peers("[\"10.0.0.11\"]", top));
        let Timing { heartbeat, lease, lease_max } = desired(&text).timing;
        assert_eq!([heartbeat, lease, lease_max], expected.map(MS), "{text}");
        let elsewhere = buoy_config::check_offline(&text, "buoy.toml").unwrap();
        assert_eq!(elsewhere.timing, desired(&text).timing, "{text}");
        assert_eq!(elsewhere.digest, desired(&text).digest, "{text}");
    }
}

/// `SMALL` with other peers, and lines before `[[vip]]`.
fn with_peers(peers: &str, lines: &str) -> String {
    format!("{lines}\n{}", SMALL.replace(r#"["10.0.0.11", "10.0.0.12"]"#, peers))
}

#[test]
fn a_host_is_found_by_any_of_its_legs_and_knows_the_interface_of_each() {
    let peers =
        r#"{ lb1 = ["10.9.0.11", "192.168.5.11:5000"], lb2 = ["10.9.0.12", "192.168.5.12"] }"#;
    let desired = desired(&with_peers(peers, ""));
    assert_eq!(desired.me, NodeId::of("lb1"));
    assert_eq!(desired.leg_links, [None, Some(LinkId(3))]);
    let legs = ["10.9.0.11:4747", "192.168.5.11:5000"].map(|a| a.parse().unwrap());
    assert_eq!(desired.node(desired.me).unwrap().addresses, legs);
}

#[test]
fn a_witness_makes_two_peers_exclusive_and_owns_nothing() {
    let small = desired(SMALL);
    for witness in ["\"10.0.0.13\"", "[\"10.0.0.13\"]", "{ w = [\"10.0.0.13\"] }"] {
        let desired = desired(&format!("witness = {witness}\n{SMALL}"));
        let witnesses: Vec<_> = desired.nodes.iter().filter(|n| n.witness).collect();
        assert_eq!((desired.nodes.len(), witnesses.len(), desired.majority()), (3, 1, 2));
        assert_eq!(witnesses[0].address(), "10.0.0.13:4747".parse().unwrap());
        assert_eq!(desired.groups[0].safety, Safety::Exclusive, "{witness}");
        assert_eq!(desired.groups[0].nodes, small.groups[0].nodes);
        assert_ne!(desired.digest, small.digest);
    }
}

#[test]
fn a_host_that_only_votes_needs_no_interface_for_any_vip() {
    let peers = r#"{ lb1 = "10.0.0.21", lb2 = "10.0.0.22" }"#;
    let text = with_peers(peers, "witness = { w = \"10.0.0.11\" }")
        .replace("10.0.0.100/24", "172.16.0.1/24");
    let checked = accepted(&text);
    assert!(checked.warnings.is_empty(), "{}", checked.warnings);
    assert_eq!(checked.desired.me, NodeId::of("w"));
    assert_eq!(checked.desired.groups[0].addresses[0].link, None);
}

#[test]
fn weights_are_of_peers_and_one_unless_the_file_says_otherwise() {
    let peers = r#"{ lb1 = "10.0.0.11", lb2 = "10.0.0.12", lb3 = "10.0.0.13" }"#;
    let desired = desired(&with_peers(peers, "weights = { lb1 = 3, lb2 = 0 }"));
    for (name, weight) in [("lb1", 3), ("lb2", 0), ("lb3", 1)] {
        assert_eq!(desired.node(NodeId::of(name)).unwrap().weight, weight, "{name}");
    }
}

#[test]
fn peers_have_names_ports_and_both_families() {
    let peers = r#"{ lb1 = ["10.0.0.11", "2001:db8::11"], lb2 = ["10.0.0.12:5000", "[2001:db8::12]:5000"] }"#;
    let text = SMALL.replace(r#"["10.0.0.11", "10.0.0.12"]"#, peers);
    let desired = desired(&format!("port = 4000\n{text}"));
    for (name, legs) in [
        ("lb1", ["10.0.0.11:4000", "[2001:db8::11]:4000"]),
        ("lb2", ["10.0.0.12:5000", "[2001:db8::12]:5000"]),
    ] {
        let node = desired.node(NodeId::of(name)).unwrap();
        assert_eq!(
            (node.name.as_str(), &node.addresses),
            (name, &legs.map(|l| l.parse().unwrap()).to_vec())
        );
    }
    assert_eq!(desired.me, NodeId::of("lb1"));
}

#[test]
fn a_table_of_peers_may_have_its_own_header() {
    let text = "secret = \"file:cluster.key\"\n[peers]\nlb1 = \"10.0.0.11\"\nlb2 = \"10.0.0.12\"\n[[vip]]\naddress = \"10.0.0.100/24\"\nprefer = [\"lb2\"]\n";
    assert_eq!(desired(text).groups[0].prefer, [NodeId::of("lb2")]);
}

#[test]
fn failback_is_never_now_or_a_time() {
    for (line, failback) in [
        ("", Failback::Never),
        ("failback = \"never\"", Failback::Never),
        ("failback = \"now\"", Failback::After(Duration::ZERO)),
        ("failback = \"30s\"", Failback::After(MS(30_000))),
        ("failback = \"5m\"", Failback::After(MS(300_000))),
    ] {
        assert_eq!(group(line).failback, failback, "{line}");
    }
}

#[test]
fn a_vip_of_nodes_elsewhere_asks_nothing_of_this_host() {
    let text = format!("{SMALL}nodes = [\"10.0.0.12\"]\ninterface = \"eth9\"\n")
        .replace("10.0.0.100/24", "172.16.0.1/24");
    let group = &desired(&text).groups[0];
    assert_eq!((group.addresses[0].link, group.nodes.len()), (None, 1));
}

#[test]
fn addresses_that_buoy_put_there_say_nothing_about_the_host() {
    let mut host = host();
    // The VIP itself, and another of ours whose subnet the host does not have otherwise.
    for (link, address) in [(1, "10.0.0.100/24"), (2, "172.16.0.1/24")] {
        host.links[link].addresses.push(HostAddress { cidr: cidr(address), ours: true });
    }
    assert!(check_on(SMALL, &host).is_ok());
    let elsewhere = SMALL.replace("10.0.0.100", "172.16.0.2");
    assert!(check_on(&elsewhere, &host).unwrap_err().to_string().contains("no subnet"));
}

#[test]
fn the_interface_is_found_by_subnet_or_taken_as_named() {
    for (address, more, name) in [
        ("10.0.0.100/24", "", "eth0"),
        ("10.0.0.100/32", "", "eth0"),
        ("192.168.5.100/24", "", "eth1"),
        ("2001:db8::100/64", "", "eth0"),
        ("172.16.0.1/24", "interface = \"eth1\"", "eth1"),
        ("fe80::1/64", "interface = \"eth1\"", "eth1"),
    ] {
        let text = format!("{}{more}\n", SMALL.replace("10.0.0.100/24", address));
        assert_eq!(desired(&text).groups[0].addresses[0].link_name, name, "{address} {more}");
    }
}

/// The check of a service of TCP.
fn check(text: &str) -> Option<Check> {
    services(&format!("port = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]\ncheck = {text}"))
        .remove(0)
        .check
}

#[test]
fn a_check_is_what_the_file_says() {
    assert_eq!(check("false"), None);
    let quick = check("{ tcp = true, every = \"200ms\", port = 81 }").unwrap();
    assert_eq!((quick.pace.every, quick.pace.timeout, quick.port), (MS(200), MS(200), Some(81)));
    let shared = check("{ tcp = true, askers = 3 }").unwrap();
    assert_eq!((shared.askers.map(u8::from), quick.askers), (Some(3), None));
    let loads = |text: &str| check(text).map(|check| (check.load, check.askers.map(u8::from)));
    let by_header = Load::Header("X-Load".to_owned());
    for (text, load) in [
        ("{ http = \"GET /\", load = \"header X-Load\" }", (Some(by_header), Some(3))),
        ("{ tcp = true, load = \"latency\" }", (Some(Load::Latency), Some(3))),
        ("{ tcp = true, load = \"latency\", askers = 1 }", (Some(Load::Latency), Some(1))),
        ("{ tcp = true }", (None, None)),
    ] {
        assert_eq!(loads(text), Some(load), "{text}");
    }
    let http = check("{ http = \"GET /health?deep=1\", tls = true, ca = \"ca.pem\", host = \"a.example\", expect = 204, every = \"2s\", timeout = \"500ms\", fall = 1, rise = 4 }").unwrap();
    let statuses = |first, last| Statuses::new(first, last).unwrap();
    let plain = HttpCheck {
        method: "GET".to_owned(),
        path: "/health?deep=1".to_owned(),
        host: Some("a.example".to_owned()),
        headers: vec![],
        http2: false,
        tls: Some(TlsCheck {
            ca: Some("/etc/buoy/ca.pem".to_owned()),
            warn: CHECK_TLS_WARN_DEFAULT,
        }),
        expect: vec![statuses(204, 204)],
        body: None,
    };
    let paced = Check {
        kind: plain.clone().into(),
        askers: None,
        load: None,
        via: None,
        port: None,
        pace: Pace { every: MS(2_000), every_down: MS(2_000), timeout: MS(500), rise: 4, fall: 1 },
    };
    assert_eq!(http, paced);
}

#[test]
fn an_http_check_sends_and_expects_what_the_file_says() {
    let statuses = |first, last| Statuses::new(first, last).unwrap();
    let all = check(
        "{ http = \"HEAD /x\", headers = [\"X-A: b: c\", \"Accept:*/*\"], http2 = true, tls = true, \
         tls_warn = \"30d\", expect = [200, \"300-399\"], every_down = \"250ms\" }",
    );
    let all = all.unwrap();
    let headers = [("X-A", "b: c"), ("Accept", "*/*")];
    let expected = HttpCheck {
        method: "HEAD".to_owned(),
        path: "/x".to_owned(),
        host: None,
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        http2: true,
        tls: Some(TlsCheck { ca: None, warn: MS(30 * 24 * 3_600_000) }),
        expect: vec![statuses(200, 200), statuses(300, 399)],
        body: None,
    };
    assert_eq!(all.kind, expected.into());
    assert_eq!(
        (all.pace.every, all.pace.every_down, all.pace.timeout),
        (MS(1_000), MS(250), MS(250))
    );
    for (body, sought) in [
        ("body = \"a.b\"", Sought::Text("a.b".to_owned())),
        ("body_regex = \"^a.b\"", Sought::Regex("^a.b".to_owned())),
    ] {
        let CheckKind::Http(http) =
            check(&format!("{{ http = \"POST /\", {body} }}")).unwrap().kind
        else {
            panic!("{body} is no HTTP check");
        };
        assert_eq!((http.body, http.expect), (Some(sought), vec![Statuses::WELL]));
    }
}

#[test]
fn a_check_may_ask_by_many_protocols() {
    let host =
        services("port = \"*/tcp\"\nbackends = [\"10.0.0.21\"]\ncheck = { icmp = true }").remove(0);
    assert_eq!(host.check.map(|check| check.kind), Some(CheckKind::Icmp), "no port is asked");
    let postgres = |role, user: &str| CheckKind::Postgres { role, user: user.to_owned() };
    let dns = |name: &str, record: &str| CheckKind::Dns {
        name: name.to_owned(),
        record: record.to_owned(),
        over: Protocol::Tcp,
    };
    let udp =
        |send: &[u8], expect: &[u8]| CheckKind::Udp { send: send.into(), expect: expect.into() };
    let grpc =
        |service: &str| CheckKind::Grpc { service: service.to_owned(), host: None, tls: None };
    let exec = |arguments: &[&str], user: &str, weighs| CheckKind::Exec {
        program: "/usr/local/lib/fit".to_owned(),
        arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
        user: user.to_owned(),
        weighs,
    };
    let file = |path: &str, contains: Option<&str>, age_max, weighs| CheckKind::File {
        path: path.to_owned(),
        contains: contains.map(str::to_owned),
        age_max,
        weighs,
    };
    let table = [
        ("redis = true", CheckKind::Redis),
        ("smtp = true", CheckKind::Smtp),
        ("mysql = true", CheckKind::Mysql),
        ("icmp = true", CheckKind::Icmp),
        ("postgres = true", postgres(None, "postgres")),
        ("postgres = \"primary\", user = \"b\"", postgres(Some(PostgresRole::Primary), "b")),
        ("postgres = \"replica\"", postgres(Some(PostgresRole::Replica), "postgres")),
        ("agent = true, port = 81", CheckKind::Agent),
        ("dns = \"Example.org. aaaa\"", dns("Example.org", "AAAA")),
        ("dns = \". NS\"", dns("", "NS")),
        ("udp = { send = \"ping\" }", udp(b"ping", b"")),
        ("udp = { send = \"hex:00 fF\", expect = \"\\r\\n\" }", udp(b"\0\xff", b"\r\n")),
        ("grpc = true", grpc("")),
        ("exec = \"/usr/local/lib/fit\"", exec(&[], "nobody", false)),
        (
            "exec = [\"/usr/local/lib/fit\", \"{port}\"], user = \"www-data\", weight = true",
            exec(&["{port}"], "www-data", true),
        ),
        ("file = \"/run/{name}\"", file("/run/{name}", None, None, false)),
        (
            "file = \"/run/a\", contains = \"ready\", max_age = \"30s\", weight = true",
            file("/run/a", Some("ready"), Some(MS(30_000)), true),
        ),
        ("process = \"nginx\"", CheckKind::Process(Running::Called("nginx".to_owned()))),
        ("pidfile = \"/run/a.pid\"", CheckKind::Process(Running::In("/run/a.pid".to_owned()))),
        ("grpc = \"shop.Cart\"", grpc("shop.Cart")),
    ];
    for (text, kind) in table {
        assert_eq!(check(&format!("{{ {text} }}")).unwrap().kind, kind, "{text}");
    }
    let tls = TlsCheck { ca: Some("/etc/buoy/ca.pem".to_owned()), warn: MS(0) };
    let kind = CheckKind::Tls { host: Some("a.example".to_owned()), tls };
    let text = "{ tls = true, host = \"a.example\", ca = \"ca.pem\", tls_warn = \"0s\" }";
    assert_eq!(check(text).unwrap().kind, kind);
}

#[test]
fn a_proxy_may_change_the_family_and_reach_this_host() {
    let services = services(
        "port = \"80/tcp\"\nmode = \"proxy\"\nbackends = [\"127.0.0.1:80\", \"[2001:db8::21]:80\"]",
    );
    assert_eq!(services[0].backends.len(), 2);
}

#[test]
fn two_keys_are_in_use_while_the_key_is_changed() {
    let text = SMALL.replace("\"file:cluster.key\"", "[\"file:second.key\", \"file:cluster.key\"]");
    let checked = accepted(&text);
    let expected = format!("{:08x}", key::parse(KEY_2).unwrap().id());
    let shown = format!("{:?}", checked.keyring);
    assert!(shown.contains(&expected), "the first key signs: {shown}");
    assert!(checked.warnings.is_empty());
}

#[test]
fn hosts_must_agree_on_what_checks_ask() {
    let checked = |check: &str| {
        let service = "port = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]";
        format!("{SMALL}[[vip.service]]\n{service}\ncheck = {check}\n")
    };
    let checks = [
        checked("{ tls = true }"),
        checked("{ redis = true }"),
        checked("{ smtp = true }"),
        checked("{ mysql = true }"),
        checked("{ icmp = true }"),
        checked("{ postgres = true }"),
        checked("{ postgres = \"primary\" }"),
        checked("{ postgres = true, user = \"buoy\" }"),
        checked("{ agent = true }"),
        checked("{ grpc = true }"),
        checked("{ grpc = \"shop.Cart\" }"),
        checked("{ dns = \"example.org A\" }"),
        checked("{ dns = \"example.org MX\" }"),
        checked("{ udp = { send = \"ping\" } }"),
        checked("{ udp = { send = \"ping\", expect = \"pong\" } }"),
        checked("{ http = \"HEAD /\" }"),
        checked("{ http = \"GET /\", tls = true }"),
        checked("{ http = \"GET /\", http2 = true }"),
        checked("{ http = \"GET /\", headers = \"A: b\" }"),
        checked("{ http = \"GET /\", body = \"ready\" }"),
        checked("{ http = \"GET /\", body_regex = \"ready\" }"),
        checked("{ http = \"GET /\", expect = \"200-299\" }"),
        checked("{ http = \"GET /\", every_down = \"2s\" }"),
        checked("{ tcp = true }"),
    ];
    let mut seen = vec![];
    for text in checks {
        let digest = accepted(&text).desired.digest;
        assert!(!seen.contains(&digest), "{text}");
        seen.push(digest);
    }
}

#[test]
fn the_digest_is_of_what_hosts_must_agree_on() {
    let digest = |text: &str| desired(text).digest;
    let same = digest(SMALL);
    let reordered = SMALL.replace(r#"["10.0.0.11", "10.0.0.12"]"#, r#"["10.0.0.12", "10.0.0.11"]"#);
    for text in [
        reordered,
        format!("# a comment\n{SMALL}failback = \"never\"\nname = \"10.0.0.100\"\n"),
        format!(
            "heartbeat = \"10ms\"\nlease = \"32ms\"\nlease_max = \"300ms\"\nport = 4747\ncluster = \"buoy\"\nnode = \"10.0.0.11\"\n{SMALL}"
        ),
        SMALL.replace("file:cluster.key", "file:second.key"),
    ] {
        assert_eq!(digest(&text), same, "{text}");
    }
    let mut other = host();
    other.links[1].name = "enp3s0".to_owned();
    other.links[1].addresses[0].cidr = cidr("10.0.0.12/24");
    assert_eq!(check_on(SMALL, &other).unwrap().desired.digest, same, "on the other host");
    assert_eq!(buoy_config::check_offline(SMALL, "x").unwrap().digest, same, "without a host");
    let differing = [
        format!("cluster = \"other\"\n{SMALL}"),
        format!("lease = \"60ms\"\n{SMALL}"),
        format!("port = 4748\n{SMALL}"),
        format!("lease_max = \"1s\"\n{SMALL}"),
        format!("witness = \"10.0.0.13\"\n{SMALL}"),
        format!("weights = {{ \"10.0.0.12\" = 2 }}\n{SMALL}"),
        SMALL.replace("100/24", "101/24"),
        format!("{SMALL}failback = \"30s\"\n"),
        format!("{SMALL}prefer = [\"10.0.0.12\"]\n"),
        format!("{SMALL}nodes = [\"10.0.0.11\"]\n"),
        format!("{SMALL}[[vip.service]]\nport = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]\n"),
        format!(
            "{SMALL}[[vip.service]]\nport = \"80/tcp\"\nbackends = [\"10.0.0.21:80 weight=2\"]\n"
        ),
        format!(
            "{SMALL}[[vip.service]]\nport = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]\ncheck = false\n"
        ),
        format!(
            "{SMALL}[[vip.service]]\nport = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]\ncheck = {{ http = \"GET /\" }}\n"
        ),
    ];
    let mut seen = vec![same];
    for text in differing {
        let digest = digest(&text);
        assert!(!seen.contains(&digest), "{text}");
        seen.push(digest);
    }
}

#[test]
fn a_socket_for_the_commands_of_haproxy_is_each_hosts_own() {
    let without = desired(SMALL);
    let with = desired(&format!("haproxy_socket = \"/run/buoy/haproxy.sock\"\n{SMALL}"));
    assert_eq!(without.haproxy_socket, None);
    assert_eq!(with.haproxy_socket.as_deref(), Some("/run/buoy/haproxy.sock"));
    assert_eq!(without.digest, with.digest);
    // The kernel takes 107 bytes, and eight are for the name that it has until it is in place.
    for (length, is_right) in [(99, true), (100, false)] {
        let text = format!("haproxy_socket = \"/{}\"\n{SMALL}", "s".repeat(length - 1));
        assert_eq!(buoy_config::check_offline(&text, "x").is_ok(), is_right, "{length}");
    }
}

#[test]
fn a_cluster_on_one_host_is_for_trying_things_out() {
    let text = "peers = { a = \"127.0.0.1:4001\", b = \"127.0.0.1:4002\" }\nsecret = \"file:cluster.key\"\nnode = \"b\"\n[[vip]]\naddress = \"10.0.0.100/24\"\n";
    assert_eq!(desired(text).me, NodeId::of("b"));
    let report = support::report(&text.replace("node = \"b\"\n", ""));
    assert!(report.to_string().contains("this host is two peers"), "{report}");
}

#[test]
fn a_vip_may_be_on_no_interface_where_all_of_it_is_forwarded() {
    let service =
        "[[vip.service]]\nport = \"80/tcp\"\nforward = \"nat\"\nbackends = [\"10.0.0.21:80\"]\n";
    let presence = |assign: &str| {
        let desired = desired(&format!("{SMALL}{assign}\n{service}"));
        (desired.groups[0].addresses[0].presence, desired.digest)
    };
    let (assigned, digest) = presence("");
    assert_eq!(assigned, Presence::Assigned);
    assert_eq!(presence("assign = true"), (assigned, digest));
    let (answered, other) = presence("assign = false");
    assert_eq!(answered, Presence::Answered);
    assert_ne!(digest, other, "all hosts must agree");
    let pool = service.replace("vip.", "pool.").replace("nat", "dsr").replace(":80\"", "\"");
    let head = SMALL.split("[[vip]]").next().unwrap();
    let pool = format!(
        "{head}[[pool]]\nname = \"web\"\naddresses = [\"10.0.0.150-151/24\"]\nassign = false\n{pool}"
    );
    let groups = desired(&pool).groups;
    assert_eq!(groups.len(), 2);
    assert!(groups.iter().all(|g| g.addresses[0].presence == Presence::Answered));
    // It needs no address of its subnet on the interface that is named.
    let far = SMALL.replace("10.0.0.100/24", "192.0.2.7/32");
    let far = desired(&format!("{far}interface = \"eth1\"\nassign = false\n{service}"));
    assert_eq!(far.groups[0].addresses[0].link_name, "eth1");
}
