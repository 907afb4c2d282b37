//! What should be there, and what is done about it.

use super::report::engine;
use super::*;
use crate::health::BackendHealth;
use crate::sample::{backend, service};
use buoy_kernel::nft::Spread;
use buoy_model::limits::BALANCE_SLOTS;
use buoy_model::{
    self as model, Check, CheckKind, Duty, FlowFields, Instant, NodeId, OnDown, Pace, Presence,
};
use std::net::Ipv4Addr;

const VIP: &str = "10.0.0.100";

/// What should be there, where XDP refuses nothing.
fn wanted(desired: &Desired, states: &States) -> Wanted {
    super::wanted(desired, states, &BTreeMap::new())
}

fn desired(vips: &[&str], services: Vec<Service>) -> Desired {
    crate::sample::desired(vips, "eth0", services)
}

fn down(place: Place, name: &str) -> (Key, BackendHealth) {
    let Place { group, address, protocol, ports } = place;
    let health = BackendHealth {
        state: BackendState::Down,
        reason: "connection refused".into(),
        urgent: false,
        since: Instant::ZERO,
        last_latency: None,
        share: 100,
        load: None,
        ordered: None,
    };
    (Key { group, address, protocol, ports, backend: name.into() }, health)
}

const WEB: Place = Place {
    group: crate::sample::GROUP,
    address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100)),
    protocol: Protocol::Tcp,
    ports: Ports::one(80),
};

fn two() -> Vec<Backend> {
    vec![backend("web1", "10.0.0.21:8080"), backend("web2", "10.0.0.22:8080")]
}

#[test]
fn a_backend_that_is_down_has_no_slot_and_stays_guarded() {
    let desired = desired(&[VIP], vec![service(Mode::Kernel, VIP, 80, two())]);
    let all = wanted(&desired, &States::new());
    let Spread::Hash(slots) = &all.kernel[0].1.spread else { panic!("{all:?}") };
    assert_eq!(slots.len(), BALANCE_SLOTS);
    assert!(slots.backends().contains(&"10.0.0.21:8080".parse().unwrap()));

    let one = wanted(&desired, &States::from([down(WEB, "web1")]));
    let forward = &one.kernel[0].1;
    assert_eq!(forward.spread, Spread::Hash(vec!["10.0.0.22:8080".parse().unwrap(); 256].into()));
    assert_eq!(forward.backends.len(), 2, "its connections may live on");

    let none = wanted(&desired, &States::from([down(WEB, "web1"), down(WEB, "web2")]));
    assert_eq!(none.kernel[0].1.spread, Spread::Refuse);
}

#[test]
fn connections_of_who_is_down_are_cut_where_the_file_says_so() {
    let web1: SocketAddr = "10.0.0.21:8080".parse().unwrap();
    for (on_down, is_cut) in
        [(None, false), (Some(OnDown::Keep), false), (Some(OnDown::Reset), true)]
    {
        for mode in [Mode::Kernel, Mode::Proxy] {
            let mut service = service(mode, VIP, 80, two());
            service.life.on_down = on_down;
            let all = wanted(&desired(&[VIP], vec![service]), &States::from([down(WEB, "web1")]));
            let dead: Vec<SocketAddr> = all.dead.iter().map(|flows| flows.backend).collect();
            let cut = all.proxies.values().flat_map(|proxy| &proxy.cut).map(|b| b.address);
            let all: Vec<SocketAddr> = dead.into_iter().chain(cut).collect();
            assert_eq!(all, if is_cut { vec![web1] } else { vec![] }, "{mode:?} {on_down:?}");
        }
    }
}

#[test]
fn kernel_services_stay_within_a_family_and_say_so() {
    let mut backends = two();
    let both = [VIP, "fd00::100"];
    let on_both = |backends| {
        let mut service = service(Mode::Kernel, VIP, 80, backends);
        service.addresses.push("fd00::100".parse().unwrap());
        wanted(&desired(&both, vec![service]), &States::new())
    };
    let all = on_both(backends.clone());
    assert_eq!(all.kernel[1].1.spread, Spread::Refuse);
    let said = &all.problems[&WEB];
    assert!(said.contains("fd00::100 has no IPv6 backend"), "{said}");
    assert!(said.contains("mode = \"proxy\""), "{said}");

    backends.push(backend("web3", "[fd00::23]:8080"));
    let all = on_both(backends);
    assert!(all.problems.is_empty());
    assert_eq!(all.kernel[0].1.backends.len(), 2);
    assert_eq!(all.kernel[1].1.backends, ["[fd00::23]:8080".parse().unwrap()]);
}

#[test]
fn a_proxy_gets_the_backends_that_are_up() {
    let desired = desired(&[VIP], vec![service(Mode::Proxy, VIP, 80, two())]);
    let all = wanted(&desired, &States::from([down(WEB, "web2")]));
    let at = ("10.0.0.100:80".parse().unwrap(), Protocol::Tcp);
    let names: Vec<_> = all.proxies[&at].backends.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(names, ["web1"]);
    assert!(all.kernel.is_empty());
}

#[test]
fn what_xdp_refuses_nftables_forwards_where_it_can() {
    for (forward, flow) in [
        (model::Forward::Nat, FlowFields::Connection),
        (model::Forward::Nat, FlowFields::Client),
        (model::Forward::Dsr, FlowFields::Connection),
        (model::Forward::Tunnel, FlowFields::Client),
        (model::Forward::Gue { port: 6080 }, FlowFields::Connection),
        (model::Forward::Local, FlowFields::Connection),
    ] {
        let mut service = service(Mode::Xdp { forward, flow }, VIP, 80, two());
        service.source = model::SourceAddress::Client;
        if forward == model::Forward::Local {
            service.backends.clear();
        }
        let desired = desired(&[VIP], vec![service]);
        let all = super::wanted(&desired, &States::new(), &BTreeMap::new());
        assert!(all.kernel.is_empty() && all.problems.is_empty(), "the XDP engine has it");
        let refused = BTreeMap::from([(WEB, "no BPF here".to_owned())]);
        let all = super::wanted(&desired, &States::new(), &refused);
        let said = &all.problems[&WEB];
        assert!(said.starts_with("no BPF here; "), "{said}");
        let spread =
            all.kernel.first().map(|(_, forward)| (&forward.spread, forward.source.clone()));
        assert!(all.kernel.iter().all(|(_, forward)| forward.link == "eth0"), "as any other");
        match (forward, flow) {
            (model::Forward::Nat, FlowFields::Connection) => {
                assert!(matches!(spread, Some((Spread::Hash(_), model::SourceAddress::Client))));
            }
            (model::Forward::Nat, FlowFields::Client | FlowFields::Prefix(_)) => {
                assert!(matches!(spread, Some((Spread::HashClient(..), _))), "{spread:?}");
            }
            (model::Forward::Local, _) => {
                assert!(matches!(spread, Some((Spread::Local, _))), "{spread:?}");
                assert!(
                    behind(&desired.groups[0], &States::new()) != BackendState::Down,
                    "it needs none"
                );
            }
            (model::Forward::Dsr, _) => {
                assert_eq!(spread, None);
                let (place, row) = &all.direct[0];
                assert_eq!((*place, row.link.as_str()), (WEB, "eth0"));
                assert!(matches!(row.spread, Spread::Hash(_)), "{row:?}");
                assert!(said.contains("nftables forwards it instead"), "{said}");
            }
            (model::Forward::Tunnel | model::Forward::Gue { .. }, _) => {
                assert_eq!(spread, None);
                assert!(all.direct.is_empty());
                assert!(said.ends_with("nothing is forwarded"), "{said}");
            }
        }
    }
}

#[test]
fn nftables_forwards_nothing_for_an_address_that_only_xdp_answers_for() {
    let mode = Mode::Xdp { forward: model::Forward::Nat, flow: FlowFields::Connection };
    let mut desired = desired(&[VIP], vec![service(mode, VIP, 80, two())]);
    let refused = BTreeMap::from([(WEB, "no BPF here".to_owned())]);
    let found = xdp::Found { refused: refused.clone(), ..xdp::Found::default() };
    let (_tell, found) = watch::channel(Some(found));
    let mut ability = Ability(found);
    for (presence, lacks) in [(Presence::Assigned, false), (Presence::Answered, true)] {
        desired.groups[0].addresses[0].presence = presence;
        let group = &desired.groups[0];
        let all = super::wanted(&desired, &States::new(), &refused);
        assert_eq!(all.kernel.is_empty(), lacks);
        assert_eq!(all.problems[&WEB].ends_with("nothing is forwarded"), lacks);
        assert_eq!(ability.lacks()(&desired, group), lacks);
        let instead = substitute(&desired, group, &group.services[0]);
        let said = engine(&group.services[0], Some(instead), &[]);
        assert_eq!(said, if lacks { "none" } else { "nftables in place of XDP" });
    }
}

#[test]
fn where_nftables_forwards_instead_it_says_that_nobody_is_left_alone() {
    let mode = Mode::Xdp { forward: model::Forward::Nat, flow: FlowFields::Connection };
    let mut service = service(mode, VIP, 80, two());
    let known = "no BPF here".to_owned();
    assert_eq!(report::wrong(&service, &known, true), known);
    let after = 3;
    service.life.eject = Some(model::Eject { after, time: Duration::from_secs(10) });
    assert_eq!(report::wrong(&service, &known, false), known, "XDP forwards it");
    let said = report::wrong(&service, &known, true);
    assert!(said.contains("`eject_after` leaves no backend alone"), "{said}");
}

#[test]
fn a_host_that_cannot_own_a_group_forwards_nothing_of_it() {
    let mut desired = desired(
        &[VIP],
        vec![service(Mode::Kernel, VIP, 80, two()), service(Mode::Proxy, VIP, 81, two())],
    );
    desired.groups[0].addresses[0].link = None;
    let all = wanted(&desired, &States::new());
    assert!(all.kernel.is_empty() && all.proxies.is_empty());
}

#[test]
fn two_vips_of_one_group_have_their_own_backends_on_the_same_port() {
    let vips = [VIP, "10.0.0.101"];
    for mode in [Mode::Kernel, Mode::Proxy] {
        // One name for two backends, as in two files of the same template.
        let services = vec![
            service(mode, VIP, 80, vec![backend("web", "10.0.0.21:8080")]),
            service(mode, vips[1], 80, vec![backend("web", "10.0.0.22:8080")]),
        ];
        let mut desired = desired(&vips, services);
        let all = wanted(&desired, &States::new());
        let kernel = all.kernel.iter().map(|(_, forward)| {
            (SocketAddr::new(forward.vip, forward.ports.first()), forward.backends.clone())
        });
        let proxies = all.proxies.iter().map(|((at, _), wish)| {
            (*at, wish.backends.iter().map(|b| b.address).collect::<Vec<_>>())
        });
        let all: BTreeMap<SocketAddr, Vec<SocketAddr>> = kernel.chain(proxies).collect();
        let expected = [("10.0.0.100:80", "10.0.0.21:8080"), ("10.0.0.101:80", "10.0.0.22:8080")];
        let expected = expected.map(|(at, to)| (at.parse().unwrap(), vec![to.parse().unwrap()]));
        assert_eq!(all, BTreeMap::from(expected), "{mode:?}");

        // The first one's backend is down: that is its own affair, but the group is not well served.
        let states = States::from([down(WEB, "web")]);
        let all = wanted(&desired, &states);
        let refusing = all.kernel.iter().filter(|(_, f)| f.spread == Spread::Refuse).count();
        let empty = all.proxies.values().filter(|wish| wish.backends.is_empty()).count();
        assert_eq!(refusing + empty, 1, "{mode:?}");
        assert!(behind(&desired.groups[0], &states) == BackendState::Down);
        desired.groups[0].services.remove(0);
        assert!(behind(&desired.groups[0], &states) != BackendState::Down);
    }
}

#[test]
fn below_the_quorum_backups_serve_or_the_group_is_not_well_served() {
    for mode in [Mode::Kernel, Mode::Proxy] {
        let mut backends = two();
        let sorry = Backend { name: "sorry".into(), backup: true, ..backends[1].clone() };
        let mut desired = desired(&[VIP], vec![service(mode, VIP, 80, backends.clone())]);
        desired.groups[0].services[0].life.quorum = 2;
        let name = backends[0].name.clone();
        let place = Place::of(&desired.groups[0], &desired.groups[0].services[0]);
        let (_, health) = down(WEB, "web");
        let states = States::from([(place.key(&backends[0]), health)]);
        assert!(behind(&desired.groups[0], &States::new()) != BackendState::Down, "{mode:?}");
        assert!(
            behind(&desired.groups[0], &states) == BackendState::Down,
            "{mode:?}: {name} is down"
        );
        let served = |desired: &Desired| -> BTreeSet<SocketAddr> {
            let all = wanted(desired, &states);
            let proxies = all.proxies.values().flat_map(|wish| &wish.backends).map(|b| b.address);
            let kernel = all.kernel.iter().flat_map(|(_, row)| match &row.spread {
                Spread::Hash(slots) | Spread::HashClient(slots, _) | Spread::Turns(slots) => {
                    slots.backends().to_vec()
                }
                Spread::Refuse | Spread::Local => vec![],
            });
            proxies.chain(kernel).collect()
        };
        assert_eq!(served(&desired), BTreeSet::from([backends[1].address]), "{mode:?}");
        let sorry = Backend { address: "10.0.0.29:8080".parse().unwrap(), ..sorry };
        backends.push(sorry.clone());
        desired.groups[0].services[0].backends = backends;
        assert!(
            behind(&desired.groups[0], &states) != BackendState::Down,
            "{mode:?}: the backup serves"
        );
        assert_eq!(served(&desired), BTreeSet::from([sorry.address]), "{mode:?}");
    }
}

#[test]
fn the_other_nodes_are_named_for_each_address() {
    let mut desired = desired(&[VIP], vec![service(Mode::Kernel, VIP, 80, two())]);
    let other = buoy_model::Node::new("other", "10.0.0.12:4747".parse().unwrap());
    desired.groups[0].nodes = vec![NodeId(1), other.id];
    desired.nodes = vec![other];
    let all = wanted(&desired, &States::new());
    assert_eq!(all.kernel[0].1.relays, ["10.0.0.12".parse::<IpAddr>().unwrap()]);
    assert_eq!(all.kernel[0].1.link, "eth0");
}

#[tokio::test]
async fn a_port_in_use_is_a_sentence_and_the_other_services_go_on() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let free_port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let services =
        [taken_port, free_port].map(|port| service(Mode::Proxy, "127.0.0.1", port, two())).into();
    let wish = desired(&["127.0.0.1"], services);
    let mut engines = Engines::default();
    let mut problems = Findings::default();
    engines.wish(wanted(&wish, &States::new()));
    engines.converge_proxies(&mut problems);
    assert!(engines.failing);
    let said = &problems.services
        [&Place { ports: Ports::one(taken_port), address: [127, 0, 0, 1].into(), ..WEB }];
    assert!(said.contains("is in use by"), "{said}");
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", free_port)).await.is_ok());

    // The other process goes: the next round succeeds, and does not disturb the first service.
    drop(taken);
    let (mut engines, mut problems) = (engines, Findings::default());
    engines.failing = false;
    engines.wish(wanted(&wish, &States::new()));
    engines.converge_proxies(&mut problems);
    assert_eq!(problems, Findings::default());
    assert_eq!(engines.proxies.len(), 2);
}

#[tokio::test]
async fn a_service_that_left_the_configuration_stops_listening() {
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let wish = desired(&["127.0.0.1"], vec![service(Mode::Proxy, "127.0.0.1", port, two())]);
    let mut engines = Engines::default();
    engines.wish(wanted(&wish, &States::new()));
    engines.converge_proxies(&mut Findings::default());
    assert!(tokio::net::TcpStream::connect(at).await.is_ok());
    engines.wish(Wanted::default());
    engines.converge_proxies(&mut Findings::default());
    time::timeout(Duration::from_secs(10), async {
        while tokio::net::TcpStream::connect(at).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[test]
fn what_others_have_of_a_range_is_left_out_of_it() {
    let of = |ports: Ports, mode| model::Service { ports, ..service(mode, VIP, 80, two()) };
    let (some, one) = (Ports::new(8000, 8099).unwrap(), Ports::one(8050));
    let mut all = of(Ports::ALL, Mode::Kernel);
    all.protocol = Protocol::Udp;
    all.backends[0].address.set_port(0);
    all.backends[1].address.set_port(0);
    let mut range = of(some, Mode::Kernel);
    range.protocol = Protocol::Udp;
    let mut port = of(one, Mode::Proxy);
    port.protocol = Protocol::Udp;
    let desired = desired(&[VIP], vec![all, range, port, of(Ports::one(9), Mode::Kernel)]);
    let at = |ports| Place { ports, protocol: Protocol::Udp, ..WEB };
    let states = States::from([down(at(Ports::ALL), "web1")]);
    let wanted = wanted(&desired, &states);
    let within: Vec<_> = wanted.kernel.iter().map(|(_, f)| (f.ports, f.within.clone())).collect();
    assert_eq!(
        within,
        [(Ports::ALL, vec![some, one]), (some, vec![one]), (Ports::one(9), vec![])],
        "ports of the same protocol"
    );
    // Flows of a backend that is down, by the ports that are the service's own.
    let dead: Vec<_> = wanted.dead.iter().map(|f| (f.ports, f.backend.port())).collect();
    let own = [(0, 7999), (8100, 65535)];
    assert_eq!(dead, own.map(|(first, last)| (Ports::new(first, last).unwrap(), first)));
    // So it is for who counts them.
    let counted = |ports| {
        let group = &desired.groups[0];
        let service = group.services.iter().find(|s| s.ports == ports).unwrap();
        let all = meters::translated(group, service).into_iter();
        all.map(|f| (f.ports.first(), f.ports.last(), f.backend.to_string())).collect::<Vec<_>>()
    };
    let of = |first, last, to: &str| (first, last, to.to_owned());
    let whole = [
        of(0, 7999, "10.0.0.21:0"),
        of(8100, 65535, "10.0.0.21:8100"),
        of(0, 7999, "10.0.0.22:0"),
        of(8100, 65535, "10.0.0.22:8100"),
    ];
    assert_eq!(counted(Ports::ALL), whole);
    assert_eq!(counted(one), [of(8050, 8050, "10.0.0.21:8080"), of(8050, 8050, "10.0.0.22:8080")]);
}

#[test]
fn a_share_that_a_backend_asks_for_changes_its_weight_and_nothing_else() {
    let backends = vec![backend("web1", "10.0.0.21:80"), backend("web2", "10.0.0.22:80")];
    let service = service(Mode::Kernel, "10.0.0.100", 80, backends);
    let desired = Arc::new(desired(&[VIP], vec![service]));
    let key = Place::of(&desired.groups[0], &desired.groups[0].services[0])
        .key(&desired.groups[0].services[0].backends[0]);
    let weights = |share| {
        let known = BackendHealth {
            state: BackendState::Up,
            reason: String::new(),
            urgent: false,
            since: Instant::ZERO,
            last_latency: None,
            share,
            load: None,
            ordered: None,
        };
        let weighed = shares::weighed(&desired, &States::from([(key.clone(), known)]));
        let backends = &weighed.groups[0].services[0].backends;
        let weights: Vec<u16> = backends.iter().map(|backend| backend.weight).collect();
        (Arc::ptr_eq(&weighed, &desired), weights)
    };
    assert_eq!(weights(100), (true, vec![1, 1]));
    assert_eq!(weights(40), (false, vec![2, 5]));
    assert_eq!(weights(0), (false, vec![0, 1]));
}

/// What is known of web1 after an order.
fn ordered(duty: Duty, keeps: bool) -> (Key, BackendHealth) {
    let place = WEB;
    let web1 = backend("web1", "10.0.0.21:8080");
    let mut orders = buoy_core::backend_orders::BackendOrders::default();
    let id = place.key(&web1).id();
    let change = buoy_core::backend_orders::Change::Duty(duty);
    let order = orders.give((1, NodeId(1)), id, change, String::new()).unwrap().clone();
    let state = if keeps { BackendState::Up } else { BackendState::Down };
    let ordered = Some(crate::health::Ordered { order, keeps });
    (place.key(&web1), BackendHealth { state, ordered, ..BackendHealth::unknown() })
}

#[test]
fn a_drained_backend_gets_nothing_new_and_one_in_maintenance_loses_what_it_has() {
    let until = Duty::Drain { until: Some(1) };
    for (duty, keeps) in [(until, true), (until, false), (Duty::Maint, false)] {
        let known = States::from([ordered(duty, keeps)]);
        let all = |mode| {
            let desired = Arc::new(desired(&[VIP], vec![service(mode, VIP, 80, two())]));
            wanted(&shares::weighed(&desired, &known), &known)
        };
        let kernel = all(Mode::Kernel);
        let web2: SocketAddr = "10.0.0.22:8080".parse().unwrap();
        assert_eq!(
            kernel.kernel[0].1.spread,
            Spread::Hash(vec![web2; 256].into()),
            "{duty:?} {keeps}"
        );
        let dead: Vec<_> = kernel.dead.iter().map(|flows| flows.backend.to_string()).collect();
        let cut: &[&str] = if keeps { &[] } else { &["10.0.0.21:8080"] };
        assert_eq!(dead, cut, "{duty:?} {keeps}");

        let proxies = all(Mode::Proxy).proxies;
        let proxy = proxies.values().next().unwrap();
        let names = |all: &[Backend]| all.iter().map(|b| b.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&proxy.backends), ["web2"], "{duty:?} {keeps}");
        let (finishing, cut) = (names(&proxy.finishing), names(&proxy.cut));
        let web1 = vec!["web1".to_owned()];
        let expected = if keeps { (web1, vec![]) } else { (vec![], web1) };
        assert_eq!((finishing, cut), expected, "{duty:?} {keeps}");
    }
}

#[test]
fn a_host_whose_backends_are_in_maintenance_serves_nobody_and_one_that_drains_goes_on() {
    let one = vec![backend("web1", "10.0.0.21:8080")];
    let desired = desired(&[VIP], vec![service(Mode::Kernel, VIP, 80, one)]);
    let drain = Duty::Drain { until: None };
    for (duty, keeps) in [(drain, true), (Duty::Maint, false)] {
        let known = States::from([ordered(duty, keeps)]);
        assert_eq!(behind(&desired.groups[0], &known) != BackendState::Down, keeps, "{duty:?}");
    }
}

#[test]
fn services_are_looked_at_again_when_a_round_finds_something_else_of_them() {
    type Change = fn(&mut Findings);
    let table: [(&str, bool, Change); 8] = [
        ("nothing", false, |_| ()),
        ("a problem", true, |found| found.services.extend([(WEB, "in use".into())])),
        ("a table", true, |found| found.tables.extend([(WEB, 7)])),
        ("a limit", true, |found| found.limited.extend([(WEB, 7)])),
        ("an interface", true, |found| found.attached.push("eth0: driver".into())),
        ("a refusal", true, |found| found.refused.extend([WEB])),
        ("the host", false, |found| found.host.push("no nft".into())),
        ("a counter", false, |found| found.counters.extend([("forward_connections", 7)])),
    ];
    let before = Findings { number: 3, ..Findings::default() };
    for (what, is_news, change) in table {
        let mut found = Findings::default();
        change(&mut found);
        found.follow(&before);
        assert_eq!(found.number, 3 + u64::from(is_news), "{what}");
    }
}

#[test]
fn services_are_looked_at_again_when_something_else_of_them_was_counted() {
    type Change = fn(&mut xdp::Counted);
    const OF: (Place, SocketAddr) = (WEB, SocketAddr::new(WEB.address, 80));
    let table: [(&str, bool, Change); 6] = [
        ("nothing", false, |_| ()),
        ("a backend", true, |counted| counted.backends.extend([(OF, Default::default())])),
        ("a loss", true, |counted| counted.lost.extend([(WEB, Default::default())])),
        ("that of a backend", true, |counted| counted.lost_by.extend([(OF, Default::default())])),
        ("one left alone", true, |counted| counted.ejected.extend([(OF, AUDIT)])),
        ("all together", false, |counted| counted.totals.extend([("xdp_packets", 7)])),
    ];
    let before = xdp::Counted { number: 3, ..Default::default() };
    for (what, is_news, change) in table {
        let mut counted = xdp::Counted::default();
        change(&mut counted);
        counted.follow(&before);
        assert_eq!(counted.number, 3 + u64::from(is_news), "{what}");
    }
}

#[test]
fn what_was_not_checked_yet_is_not_known_to_serve() {
    use BackendState::{Down, Unknown, Up};
    let pace = Pace {
        every: Duration::from_secs(1),
        every_down: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        rise: 1,
        fall: 1,
    };
    let check =
        Check { kind: CheckKind::Tcp, port: None, via: None, pace, askers: None, load: None };
    let (checked, unchecked) = (Some(check), None);
    // What is known of two backends, the quorum, and what it comes to.
    let cases = [
        (&checked, [Unknown, Unknown], 1, Unknown),
        (&checked, [Down, Unknown], 1, Unknown),
        (&checked, [Down, Down], 1, Down),
        (&checked, [Up, Unknown], 1, Up),
        (&checked, [Up, Unknown], 2, Unknown),
        (&checked, [Up, Up], 2, Up),
        (&checked, [Up, Down], 2, Down),
        (&unchecked, [Unknown, Unknown], 2, Up),
        (&unchecked, [Down, Unknown], 1, Up),
    ];
    for (check, states, quorum, expected) in cases {
        let mut desired = desired(&[VIP], vec![service(Mode::Kernel, VIP, 80, two())]);
        let service = &mut desired.groups[0].services[0];
        (service.check, service.life.quorum) = (check.clone(), quorum);
        let place = Place::of(&desired.groups[0], &desired.groups[0].services[0]);
        let health = |state| BackendHealth { state, ..BackendHealth::unknown() };
        let known =
            two().iter().zip(states).map(|(b, state)| (place.key(b), health(state))).collect();
        assert_eq!(behind(&desired.groups[0], &known), expected, "{states:?}, {quorum}");
    }
}
