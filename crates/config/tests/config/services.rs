//! What is made of the services of a file.

use crate::accepted::{MS, desired, services};
use crate::support::{self, SMALL, check_on, host};
use buoy_config::Code;
use buoy_model::limits::SERVICE_SOURCES_MAX;
use buoy_model::{
    BackendLife, Balance, Check, CheckKind, Eject, FlowFields, Forward, Mode, Pace, Ports,
    Protocol, SendProxy, SourceAddress, Via,
};
use std::sync::Arc;

#[test]
fn a_service_has_the_defaults_of_its_mode() {
    let base = "backends = [\"10.0.0.21:8443\"]\n";
    type Row = (&'static str, Mode, Balance, SendProxy);
    let table: [Row; 10] = [
        ("", Mode::Kernel, Balance::Hash(FlowFields::Connection), SendProxy::Off),
        ("mode = \"kernel\"", Mode::Kernel, Balance::Hash(FlowFields::Connection), SendProxy::Off),
        ("mode = \"proxy\"", Mode::Proxy, Balance::RoundRobin, SendProxy::Off),
        ("balance = \"leastconn\"", Mode::Proxy, Balance::LeastConnections, SendProxy::Off),
        ("send_proxy = \"v2\"", Mode::Proxy, Balance::RoundRobin, SendProxy::V2),
        ("send_proxy = \"v1\"", Mode::Proxy, Balance::RoundRobin, SendProxy::V1),
        ("accept_proxy = true", Mode::Proxy, Balance::RoundRobin, SendProxy::Off),
        (
            "sni = { \"*.example.org\" = \"10.0.0.21:8443\" }",
            Mode::Proxy,
            Balance::RoundRobin,
            SendProxy::Off,
        ),
        ("balance = \"roundrobin\"", Mode::Kernel, Balance::RoundRobin, SendProxy::Off),
        (
            "mode = \"proxy\"\nbalance = \"hash\"",
            Mode::Proxy,
            Balance::Hash(FlowFields::Connection),
            SendProxy::Off,
        ),
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
            askers: None,
            load: None,
            via: None,
            port: None,
            pace: Pace {
                every: MS(1_000),
                every_down: MS(1_000),
                timeout: MS(1_000),
                rise: 2,
                fall: 3,
            },
        };
        assert_eq!(service.check, Some(check));
    }
}

#[test]
fn a_service_of_mode_xdp_is_what_the_file_says() {
    use {
        FlowFields::{Client, Connection},
        Forward::{Dsr, Gue, Nat, Tunnel},
    };
    let table: [(&str, Forward, FlowFields); 9] = [
        ("forward = \"tunnel\"\nencapsulation = \"ipip\"", Tunnel, Connection),
        ("forward = \"tunnel\"\nencapsulation = \"gue\"", Gue { port: 6080 }, Connection),
        ("forward = \"tunnel\"\nencapsulation = \"gue:9886\"", Gue { port: 9886 }, Connection),
        ("forward = \"dsr\"", Dsr, Connection),
        ("mode = \"xdp\"\nforward = \"tunnel\"", Tunnel, Connection),
        ("forward = \"nat\"\npersist = \"client\"", Nat, Client),
        ("forward = \"dsr\"\nbalance = \"maglev\"", Dsr, Connection),
        ("forward = \"dsr\"\nbalance = \"source\"", Dsr, Client),
        ("forward = \"dsr\"\nbalance = \"hash\"\nsource = \"client\"", Dsr, Connection),
    ];
    for (lines, forward, flow) in table {
        let text = format!("port = \"443/tcp\"\nbackends = [\"10.0.0.21:443\"]\n{lines}");
        let service = services(&text).remove(0);
        assert_eq!(service.mode, Mode::Xdp { forward, flow }, "{lines}");
        assert_eq!(service.balance, Balance::Hash(flow), "{lines}");
        assert_eq!(service.source, SourceAddress::Client, "{lines}");
        assert!(service.check.is_some());
    }
}

#[test]
fn a_check_goes_the_way_of_the_service_where_the_file_says_so() {
    for (forward, via, expected) in [
        ("dsr", ", via = \"direct\"", Some(Via::Direct)),
        ("tunnel", ", via = \"tunnel\"", Some(Via::Tunnel)),
        ("tunnel\"\nencapsulation = \"gue", ", via = \"tunnel\"", Some(Via::Tunnel)),
        ("dsr", "", None),
    ] {
        let service = services(&format!(
            "port = \"443/tcp\"\nbackends = [\"10.0.0.21\"]\nforward = \"{forward}\"\n\
             check = {{ tcp = true{via} }}"
        ));
        assert_eq!(service[0].check.as_ref().unwrap().via, expected, "{forward}{via}");
    }
}

#[test]
fn a_way_of_balancing_has_its_own_name_and_that_of_others() {
    use Balance::{
        First, Hash, LeastConnections, Maglev, Random, Rendezvous, RoundRobin, ShortestDelay,
    };
    use FlowFields::{Client, Connection};
    let table = [
        ("balance = \"source\"", Mode::Kernel, Hash(Client)),
        ("balance = \"sh\"", Mode::Kernel, Hash(Client)),
        ("persist = \"client\"", Mode::Kernel, Hash(Client)),
        ("balance = \"hash\"\npersist = \"client\"", Mode::Kernel, Hash(Client)),
        ("balance = \"wrr\"", Mode::Kernel, RoundRobin),
        ("mode = \"proxy\"\npersist = \"client\"", Mode::Proxy, Hash(Client)),
        ("mode = \"proxy\"\nbalance = \"source\"", Mode::Proxy, Hash(Client)),
        ("mode = \"proxy\"\nbalance = \"maglev\"", Mode::Proxy, Maglev(Connection)),
        ("mode = \"proxy\"\nbalance = \"mh\"\npersist = \"client\"", Mode::Proxy, Maglev(Client)),
        ("mode = \"proxy\"\nbalance = \"rr\"", Mode::Proxy, RoundRobin),
        ("balance = \"rendezvous\"", Mode::Proxy, Rendezvous(Connection)),
        ("balance = \"rendezvous\"\npersist = \"client\"", Mode::Proxy, Rendezvous(Client)),
        ("balance = \"wlc\"", Mode::Proxy, LeastConnections),
        ("balance = \"sed\"", Mode::Proxy, ShortestDelay),
        ("balance = \"random\"", Mode::Proxy, Random),
        ("balance = \"first\"\nbackend_max_connections = 9", Mode::Proxy, First),
    ];
    for (lines, mode, balance) in table {
        let text = format!("port = \"443/tcp\"\nbackends = [\"10.0.0.21:443\"]\n{lines}");
        let service = services(&text).remove(0);
        assert_eq!((service.mode, service.balance), (mode, balance), "{lines}");
    }
}

#[test]
fn a_backend_has_its_own_maximum_or_that_of_all() {
    let text = "port = \"443/tcp\"\nmode = \"proxy\"\nbackend_max_connections = 50\n\
                backends = [\"10.0.0.21:443 max=7 weight=3\", \"10.0.0.22:443\"]";
    let service = services(text).remove(0);
    assert_eq!(service.life, BackendLife::default());
    let long = format!(
        "{text}\nqueue = 9\nqueue_timeout = \"3s\"\nslow_start = \"30s\"\nquorum = 2\neject_after = 5\neject_time = \"20s\""
    );
    let life = BackendLife {
        quorum: 2,
        queue: 9,
        queue_timeout: MS(3_000),
        slow_start: Some(MS(30_000)),
        eject: Some(Eject { after: 5, time: MS(20_000) }),
        ..BackendLife::default()
    };
    assert_eq!(services(&long).remove(0).life, life);
    let backends = service.backends;
    assert_eq!(backends[0].connections_max, Some(7));
    assert_eq!(backends[0].weight, 3);
    assert_eq!(backends[1].connections_max, Some(50));
    let first = "port = \"443/tcp\"\nbalance = \"first\"\n\
                 backends = [\"10.0.0.21:443 max=7\", \"sorry 10.0.0.22:443 backup\"]";
    let backends = services(first).remove(0).backends;
    assert_eq!(backends[1].connections_max, None, "the last resort needs none");
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
fn what_the_owner_serves_itself_has_ports_and_lists_and_nothing_else() {
    let text = "port = [\"22/tcp\", \"*/udp\"]\nforward = \"local\"\nallow = \"10.0.0.0/8\"\n\
                [[vip.service]]\nport = \"53/udp\"\nmode = \"proxy\"\nbackends = [\"10.0.0.21:53\"]\n\
                [[vip.service]]\nport = \"*/tcp\"\nbackends = [\"10.0.0.21\"]\ncheck = false";
    let services = services(text);
    let local = Mode::Xdp { forward: Forward::Local, flow: FlowFields::Connection };
    for service in &services[..2] {
        assert_eq!((service.mode, service.backends.len()), (local, 0));
        assert!(service.check.is_none() && !service.sources.is_empty());
    }
    assert_eq!(services.len(), 4);
    // In a pool as well, where an address without backends of its family has no other service.
    let pool = "[[pool]]\nname = \"p\"\naddresses = [\"10.0.0.150-151/24\"]\n\
                [[pool.service]]\nport = \"22/tcp\"\nforward = \"local\"";
    assert!(desired(&format!("{SMALL}{pool}\n")).groups[1..].iter().all(|g| g.services.len() == 1));
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
    let gue = ["gue", "gue:9886"].map(|e| format!("forward = \"tunnel\"\nencapsulation = \"{e}\""));
    all.extend(gue.iter().map(|lines| digest(lines)));
    let tunnel = digest("forward = \"tunnel\"");
    assert_eq!(digest("forward = \"tunnel\"\nencapsulation = \"ipip\""), tunnel);
    assert_eq!(digest("forward = \"tunnel\"\nencapsulation = \"gue:6080\""), digest(&gue[0]));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 7);
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
fn names_of_servers_lead_to_backends_and_whom_a_header_is_believed_is_a_list() {
    let text = "port = \"443/tcp\"\naccept_proxy = \"10.0.0.0/8\"\n\
                backends = [\"a 10.0.0.21:443\", \"b 10.0.0.22:443\", \"c 10.0.0.23:443\"]\n\
                sni = { \"A.example\" = \"a\", \"*.b.example\" = [\"b\", \"a\"] }";
    let service = services(text).remove(0);
    let believes = |ip: &str| service.front.believes(ip.parse().unwrap());
    assert!(believes("10.1.2.3") && !believes("192.0.2.1") && !believes("fd00::1"));
    let routes: Vec<_> =
        service.front.routes.iter().map(|r| (r.name.to_string(), r.backends.join(" "))).collect();
    let expected = [("a.example", "a"), ("*.b.example", "b a")];
    assert_eq!(routes, expected.map(|(name, backends)| (name.to_owned(), backends.to_owned())));
    let all = services("port = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]\naccept_proxy = true");
    assert!(["10.1.2.3", "fd00::1"].iter().all(|ip| all[0].front.believes(ip.parse().unwrap())));
    let none = services("port = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]\naccept_proxy = false");
    assert_eq!(none[0].front, buoy_model::Front::default());
}
