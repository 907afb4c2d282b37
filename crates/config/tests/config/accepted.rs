//! What is accepted, what it becomes, and what holds where the file says nothing.

use crate::support::{self, KEY_2, SMALL, accepted, check_on, cidr, host};
use buoy_config::{Code, HostAddress, key};
use buoy_model::limits::{HEARTBEAT_DEFAULT, LEASE_DEFAULT, SERVICE_SOURCES_MAX};
use buoy_model::{
    Balance, Check, CheckKind, ClusterId, Desired, Failback, FlowFields, Forward, Group, LinkId,
    Mode, NodeId, Ports, Protocol, Safety, SendProxy, Service, SourceAddress, VipAddress,
};
use std::sync::Arc;
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn desired(text: &str) -> Desired {
    accepted(text).desired
}

/// The first group of `SMALL` with more lines.
fn group(lines: &str) -> Group {
    desired(&format!("{SMALL}{lines}\n")).groups.remove(0)
}

/// The services of one `[[vip.service]]`.
fn services(lines: &str) -> Vec<Service> {
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

#[test]
fn a_service_has_the_defaults_of_its_mode() {
    let base = "backends = [\"10.0.0.21:8443\"]\n";
    type Row = (&'static str, Mode, Balance, SendProxy);
    let table: [Row; 7] = [
        ("", Mode::Kernel, Balance::Hash, SendProxy::Off),
        ("mode = \"kernel\"", Mode::Kernel, Balance::Hash, SendProxy::Off),
        ("mode = \"proxy\"", Mode::Proxy, Balance::RoundRobin, SendProxy::Off),
        ("balance = \"leastconn\"", Mode::Proxy, Balance::LeastConnections, SendProxy::Off),
        ("send_proxy = \"v2\"", Mode::Proxy, Balance::RoundRobin, SendProxy::V2),
        ("balance = \"roundrobin\"", Mode::Kernel, Balance::RoundRobin, SendProxy::Off),
        ("mode = \"proxy\"\nbalance = \"hash\"", Mode::Proxy, Balance::Hash, SendProxy::Off),
    ];
    for (lines, mode, balance, send_proxy) in table {
        let service = services(&format!("port = \"443/tcp\"\n{base}{lines}")).remove(0);
        assert_eq!(
            (service.mode, service.balance, service.send_proxy),
            (mode, balance, send_proxy),
            "{lines}"
        );
        assert_eq!((service.protocol, service.ports), (Protocol::Tcp, Ports::one(443)));
        assert_eq!(service.source, SourceAddress::Vip);
        assert_eq!(service.connections_max, 4096);
        assert_eq!((service.idle_timeout, service.connect_timeout), (MS(300_000), MS(2_000)));
        let backend = &service.backends[0];
        assert_eq!(
            (backend.name.as_str(), backend.weight, backend.backup),
            ("10.0.0.21:8443", 1, false)
        );
        let check = Check {
            kind: CheckKind::Tcp,
            port: None,
            every: MS(1_000),
            timeout: MS(1_000),
            rise: 2,
            fall: 3,
        };
        assert_eq!(service.check, Some(check));
    }
}

#[test]
fn a_service_of_mode_xdp_is_what_the_file_says() {
    use {
        FlowFields::{Client, Connection},
        Forward::{Dsr, Nat, Tunnel},
    };
    let table: [(&str, Forward, FlowFields); 5] = [
        ("forward = \"dsr\"", Dsr, Connection),
        ("mode = \"xdp\"\nforward = \"tunnel\"", Tunnel, Connection),
        ("forward = \"nat\"\npersist = \"client\"", Nat, Client),
        ("forward = \"dsr\"\nbalance = \"maglev\"", Dsr, Connection),
        ("forward = \"dsr\"\nbalance = \"hash\"\nsource = \"client\"", Dsr, Connection),
    ];
    for (lines, forward, flow) in table {
        let text = format!("port = \"443/tcp\"\nbackends = [\"10.0.0.21:443\"]\n{lines}");
        let service = services(&text).remove(0);
        assert_eq!(service.mode, Mode::Xdp { forward, flow }, "{lines}");
        assert_eq!(service.balance, Balance::Hash, "{lines}");
        assert_eq!(service.source, SourceAddress::Client, "{lines}");
        assert!(service.check.is_some());
    }
}

#[test]
fn source_is_a_word_or_addresses_of_the_group() {
    let source = |lines: &str| {
        let text = format!("port = \"443/tcp\"\nbackends = [\"10.0.0.21:443\"]\n{lines}");
        services(&text).remove(0).source
    };
    let pool = SourceAddress::Pool(["10.0.0.100".parse().unwrap()].into());
    for engine in ["mode = \"kernel\"", "forward = \"nat\""] {
        let source = |value: &str| source(&format!("{engine}\nsource = {value}"));
        assert_eq!(source("\"vip\""), SourceAddress::Vip, "{engine}");
        assert_eq!(source("\"client\""), SourceAddress::Client, "{engine}");
        assert_eq!(source("[\"10.0.0.100\"]"), pool, "{engine}");
        assert_eq!(source("\"10.0.0.100\""), pool, "{engine}");
    }
}

#[test]
fn allow_and_deny_are_one_list_for_all_ports_in_every_mode() {
    for mode in ["", "mode = \"proxy\"", "forward = \"dsr\""] {
        let services = services(&format!(
            "port = [\"80/tcp\", \"80/udp\"]\nbackends = [\"10.0.0.21:80\"]\n{mode}\n\
             allow = [\"2001:db8::/32\", \"10.0.0.0/8\"]\ndeny = \"10.0.0.7\""
        ));
        let sources = &services[0].sources;
        assert!(Arc::ptr_eq(sources, &services[1].sources), "{mode}");
        let rules = sources.rules().iter().map(|rule| format!("{} {}", rule.prefix, rule.allows));
        let wanted = ["10.0.0.0/8 true", "10.0.0.7/32 false", "2001:db8::/32 true"];
        assert_eq!(rules.collect::<Vec<_>>(), wanted, "{mode}");
    }
    let open = services("port = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]").remove(0);
    assert!(open.sources.is_empty() && open.sources.allows_others());
}

#[test]
fn new_connections_are_limited_in_every_mode_and_a_burst_is_the_number_itself() {
    for (mode, text, wanted) in [
        ("", "100/s", "100/s burst=100"),
        ("mode = \"proxy\"", "30/m burst=5", "30/m burst=5"),
        ("forward = \"dsr\"", "100000/h  burst=100000", "100000/h burst=100000"),
    ] {
        let service = services(&format!(
            "port = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]\n{mode}\nnew_connections = \"{text}\""
        ))
        .remove(0);
        assert_eq!(service.new_connections.unwrap().to_string(), wanted, "{mode}");
    }
    let udp = "port = \"53/udp\"\nbackends = [\"10.0.0.21:53\"]\nnew_connections = \"10/s\"";
    assert!(services(udp)[0].new_connections.is_some());
    let open = services("port = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]").remove(0);
    assert_eq!(open.new_connections, None);
}

#[test]
fn more_sources_than_a_service_can_have_are_refused_and_as_many_are_not() {
    let text = |count: usize| {
        let list: Vec<_> =
            (0..count).map(|n| format!("\"10.{}.{}.0/24\"", n / 256, n % 256)).collect();
        let list = list.join(", ");
        format!(
            "{SMALL}\n[[vip.service]]\nport = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]\nallow = [{list}]\n"
        )
    };
    let services = &desired(&text(SERVICE_SOURCES_MAX)).groups[0].services;
    assert_eq!(services[0].sources.rules().len(), SERVICE_SOURCES_MAX);
    let report = check_on(&text(SERVICE_SOURCES_MAX + 1), &host()).unwrap_err();
    let codes: Vec<_> = report.problems().iter().map(|p| p.code).collect();
    assert_eq!(codes, [Code::TooMany], "{report}");
}

#[test]
fn ports_are_one_some_in_a_row_or_all() {
    let text = "port = [\"443/tcp\", \"8000-8099/tcp\", \"8050-8050/udp\", \"*/udp\"]\n\
                backends = [\"10.0.0.21\", \"web2 10.0.0.22\"]\ncheck = { tcp = true, port = 22 }";
    for forward in ["", "forward = \"dsr\"", "forward = \"tunnel\"", "forward = \"nat\""] {
        let services = services(&format!("{text}\n{forward}"));
        let written: Vec<_> = services.iter().map(|s| s.ports.to_string()).collect();
        assert_eq!(written, ["443", "8000-8099", "8050", "*"], "{forward}");
        // Who has no port gets packets with the one that clients ask, from the first on.
        let places = services.iter().map(|s| s.backends[1].address.to_string());
        let wanted = ["10.0.0.22:443", "10.0.0.22:8000", "10.0.0.22:8050", "10.0.0.22:0"];
        assert_eq!(places.collect::<Vec<_>>(), wanted, "{forward}");
        assert!(services.iter().all(|s| s.backends[0].name == "10.0.0.21"), "{forward}");
    }
}

#[test]
fn the_first_port_of_a_range_may_become_another_one() {
    for (mode, last) in [("", 8099), ("forward = \"nat\"", 8099), ("forward = \"nat\"", 16_000)] {
        let backends = "backends = [\"10.0.0.21:9000\", \"10.0.0.22:9000\"]";
        let service =
            services(&format!("port = \"8000-{last}/tcp\"\n{backends}\n{mode}")).remove(0);
        assert_eq!(service.backends[1].address.port(), 9000);
        assert!(service.check.is_some(), "a backend is checked at its first port");
    }
    let far = "port = \"8000-8099/tcp\"\nforward = \"nat\"\nbackends = [\"10.0.0.21:65436\", \"10.0.0.22:1\"]";
    assert_eq!(services(far)[0].backends[0].address.port(), 65436);
}

#[test]
fn a_port_stands_against_a_range_and_a_range_against_all_ports() {
    let more = "[[vip.service]]\nport = [\"8000-8099/tcp\", \"8000/tcp\"]\nforward = \"nat\"\n\
                backends = [\"10.0.0.22:9000\"]\n\
                [[vip.service]]\nport = [\"22/tcp\", \"22/udp\"]\nforward = \"nat\"\n\
                backends = [\"10.0.0.23:22\"]";
    let text = "port = \"*/tcp\"\nforward = \"nat\"\nbackends = [\"10.0.0.21\"]\ncheck = false";
    let ports = services(&format!("{text}\n{more}"))
        .iter()
        .map(|s| s.ports.to_string())
        .collect::<Vec<_>>();
    assert_eq!(ports, ["*", "8000-8099", "8000", "22", "22"]);
    // Of a VIP in mode "kernel" a proxy may have a port.
    let text = "port = \"*/tcp\"\nbackends = [\"10.0.0.21\"]\ncheck = false\n\
                [[vip.service]]\nport = \"80/tcp\"\nmode = \"proxy\"\nbackends = [\"10.0.0.21:80\"]";
    assert_eq!(services(text).len(), 2);
}

#[test]
fn who_keeps_the_port_need_not_name_it() {
    let services = services(
        "port = [\"80/tcp\", \"443/udp\"]\nforward = \"dsr\"\n\
         backends = [\"web1 10.0.0.21\", \"10.0.0.22 weight=2\", \"10.0.0.29 backup\"]",
    );
    for (service, port) in services.iter().zip([80, 443]) {
        let backends: Vec<_> = service
            .backends
            .iter()
            .map(|b| (b.name.as_str(), b.address.to_string(), b.weight, b.backup))
            .collect();
        let at = |host: &str| format!("{host}:{port}");
        assert_eq!(
            backends,
            [
                ("web1", at("10.0.0.21"), 1, false),
                ("10.0.0.22", at("10.0.0.22"), 2, false),
                ("10.0.0.29", at("10.0.0.29"), 1, true),
            ]
        );
    }
}

#[test]
fn a_backend_of_dsr_is_in_the_subnet_where_the_file_tells_which() {
    let wish = |vip: &str, backends: &str| {
        let small = SMALL.replace("\"10.0.0.100/24\"", vip);
        let service = format!("port = \"80/tcp\"\nforward = \"dsr\"\nbackends = [{backends}]\n");
        support::check(&format!("{small}[[vip.service]]\n{service}")).is_ok()
    };
    assert!(wish("\"10.0.0.100/24\"", "\"10.0.0.21\""));
    assert!(!wish("\"10.0.0.100/24\"", "\"10.0.1.21\""));
    assert!(wish("\"10.0.0.100/32\"", "\"10.0.1.21\""), "says nothing of its subnet");
    let both = "[\"10.0.0.100/24\", \"2001:db8::100/64\"]";
    assert!(wish(both, "\"10.0.0.21\", \"2001:db8::21\""));
    assert!(!wish(both, "\"10.0.0.21\", \"2001:db8:1::21\""));
}

#[test]
fn the_words_of_xdp_count_for_the_digest() {
    let digest = |lines: &str| {
        let service = "[[vip.service]]\nport = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]";
        desired(&format!("{SMALL}{service}\n{lines}\n")).digest
    };
    let mut all =
        ["", "forward = \"dsr\"", "forward = \"nat\"", "forward = \"tunnel\""].map(digest).to_vec();
    all.push(digest("forward = \"dsr\"\npersist = \"client\""));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 5);
}

#[test]
fn a_list_of_ports_is_a_service_each() {
    let services = services("port = [\"53/tcp\", \"53/udp\"]\nbackends = [\"10.0.0.21:53\"]");
    assert_eq!(services.len(), 2);
    assert_eq!((services[1].protocol, services[1].idle_timeout), (Protocol::Udp, MS(30_000)));
    assert!(services[0].check.is_some(), "TCP is checked by connecting");
    assert!(services[1].check.is_none(), "UDP is not checked unless the file says how");
}

#[test]
fn backends_have_names_weights_and_reserves() {
    let services = services(
        "port = \"80/tcp\"\nbackends = [\"web1 10.0.0.21:80\", \"web2 10.0.0.22:80 weight=2\", \"10.0.0.29:80 weight=0 backup\"]",
    );
    let backends: Vec<_> =
        services[0].backends.iter().map(|b| (b.name.as_str(), b.weight, b.backup)).collect();
    assert_eq!(backends, [("web1", 1, false), ("web2", 2, false), ("10.0.0.29:80", 0, true)]);
}

#[test]
fn a_check_is_what_the_file_says() {
    let check = |text: &str| {
        services(&format!("port = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]\ncheck = {text}"))
            .remove(0)
            .check
    };
    assert_eq!(check("false"), None);
    let quick = check("{ tcp = true, every = \"200ms\", port = 81 }").unwrap();
    assert_eq!((quick.every, quick.timeout, quick.port), (MS(200), MS(200), Some(81)));
    let http = check("{ http = \"GET /health?deep=1\", tls = true, ca = \"ca.pem\", host = \"a.example\", expect = 204, every = \"2s\", timeout = \"500ms\", fall = 1, rise = 4 }").unwrap();
    let kind = CheckKind::Http {
        path: "/health?deep=1".to_owned(),
        host: Some("a.example".to_owned()),
        tls: true,
        ca: Some("/etc/buoy/ca.pem".to_owned()),
        expect: Some(204),
    };
    assert_eq!(
        http,
        Check { kind, port: None, every: MS(2_000), timeout: MS(500), rise: 4, fall: 1 }
    );
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
fn a_cluster_on_one_host_is_for_trying_things_out() {
    let text = "peers = { a = \"127.0.0.1:4001\", b = \"127.0.0.1:4002\" }\nsecret = \"file:cluster.key\"\nnode = \"b\"\n[[vip]]\naddress = \"10.0.0.100/24\"\n";
    assert_eq!(desired(text).me, NodeId::of("b"));
    let report = support::report(&text.replace("node = \"b\"\n", ""));
    assert!(report.to_string().contains("this host is two peers"), "{report}");
}
