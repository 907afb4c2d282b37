//! Proves on a real kernel that ranges of ports are forwarded as `kernel::nft` promises.

// The whole file is tests: a failed `unwrap` is a failed test.
#![allow(clippy::unwrap_used)]

mod balancers;
mod talk;

use balancers::{Family, Lab, forward, hash};
use buoy_kernel::conntrack::{self, Flows};
use buoy_kernel::nft::{self, Forward, Spread};
use buoy_model::{Cidr, Ports, Protocol, SourceRule, Sources};
use std::net::{SocketAddr, TcpListener};
use talk::greet_and_echo;

fn range(first: u16, last: u16) -> Ports {
    Ports::new(first, last).unwrap()
}

/// All ports but some, which keep their numbers; a range that moves to another one, where one port is not
/// its own; and one port that nobody is behind.
fn ranges(family: Family, protocol: Protocol) -> Vec<Forward> {
    let at = |ports: Ports, within: &[Ports], port: u16, servers: &[u8]| {
        let backends: Vec<SocketAddr> =
            servers.iter().map(|n| SocketAddr::new(family.address(*n), port)).collect();
        let spread = match backends.as_slice() {
            [] => Spread::Refuse,
            _ => hash(backends.clone()),
        };
        let within = within.to_vec();
        Forward { ports, within, spread, backends, ..forward(family, protocol, hash) }
    };
    let one = Ports::one;
    vec![
        at(Ports::ALL, &[one(22), range(7000, 7099), one(7080), one(9)], 0, &[21]),
        at(range(7000, 7099), &[one(7080)], 8001, &[22]),
        at(one(22), &[], 8080, &[22]),
        at(one(7080), &[], 8080, &[21]),
        at(one(9), &[], 8080, &[]),
    ]
}

fn all_ranges() -> Vec<Forward> {
    let families = [Family::V4, Family::V6].into_iter();
    let protocols = |family| [(family, Protocol::Tcp), (family, Protocol::Udp)];
    families.flat_map(protocols).flat_map(|(family, protocol)| ranges(family, protocol)).collect()
}

#[test]
fn a_port_stands_against_a_range_and_a_range_against_all_ports() {
    let test = "a_port_stands_against_a_range_and_a_range_against_all_ports";
    let Some(lab) = Lab::new(test) else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&all_ranges());
    // 7079 is 79 above 7000, and 8080 is 79 above 8001.
    let table = [(8080, Some("s1")), (7079, Some("s2")), (22, Some("s2")), (7080, Some("s1"))];
    let table = table.into_iter().chain([(9, None), (8079, None), (7078, None)]);
    for (port, server) in table {
        for family in [Family::V4, Family::V6] {
            let to = SocketAddr::new(family.vip(), port);
            let got = lab.connect("client", to).map(|c| c.server).ok();
            assert_eq!(got.as_deref(), server, "{to} tcp");
            let got = lab.ask("client", to).map(|(server, _)| server).ok();
            assert_eq!(got.as_deref(), server, "{to} udp");
        }
    }
    let observed = lab.inside("a", nft::observe).unwrap().unwrap();
    let refused = |f: &Forward| observed.counts(f).refused > 0;
    for forward in &all_ranges() {
        let counts = observed.counts(forward);
        assert_eq!(forward.spread == Spread::Refuse, refused(forward), "{forward:?}");
        assert!(counts.packets > 0, "{forward:?}");
    }
    // Twice is once, and what is not there any more leaves no counter.
    lab.apply(&all_ranges());
    lab.apply(&ranges(Family::V4, Protocol::Tcp));
    let left = lab.inside("a", nft::observe).unwrap().unwrap();
    let gone = all_ranges().into_iter().skip(5);
    assert!(gone.into_iter().all(|f| left.counts(&f) == nft::Counts::default()));
}

#[test]
fn connections_to_ranges_go_on_when_the_vip_moves_and_backends_may_ask_the_vip() {
    let test = "connections_to_ranges_go_on_when_the_vip_moves";
    let Some(lab) = Lab::new(test) else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&all_ranges());
    for family in [Family::V4, Family::V6] {
        lab.own("a");
        let ports = [8080, 7079, 22, 7080];
        let connect = |port| lab.connect("client", SocketAddr::new(family.vip(), port)).unwrap();
        let mut open: Vec<_> = ports.map(connect).into();
        // A backend that opens a connection from a port of the range is no answer.
        let to = SocketAddr::new(family.vip(), 7079);
        let mut asked = lab.connect("s1", to).unwrap();
        assert!(asked.server == "s2" && asked.echoes("from a backend").unwrap());
        lab.own("b");
        for connection in &mut open {
            assert!(connection.echoes("after").unwrap(), "{family:?} {}", connection.server);
        }
        // It speaks first, and nobody here knows the connection: nothing is reset.
        lab.own("a");
        for connection in &mut open {
            assert!(connection.echoes("and back").unwrap(), "{family:?} {}", connection.server);
        }
    }
}

#[test]
fn udp_flows_of_a_range_are_forgotten_port_by_port() {
    let Some(lab) = Lab::new("udp_flows_of_a_range_are_forgotten") else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&all_ranges());
    for family in [Family::V4, Family::V6] {
        let ask = |port| lab.ask("client", SocketAddr::new(family.vip(), port)).unwrap();
        ask(7079);
        ask(8080);
        let flows = |ports, server, port| Flows {
            protocol: Protocol::Udp,
            vip: family.vip(),
            ports,
            backend: SocketAddr::new(family.address(server), port),
        };
        let asked = [
            flows(range(7000, 7079), 22, 8000),
            flows(range(7000, 7078), 22, 8001),
            flows(range(7000, 7079), 22, 8001),
            flows(Ports::ALL, 21, 0),
            Flows { protocol: Protocol::Tcp, ..flows(Ports::ALL, 21, 0) },
        ];
        let counted = lab.inside("a", || conntrack::count(&asked)).unwrap();
        assert_eq!(counted, [0, 0, 1, 1, 0], "{family:?}");
        let forget = |flows: Flows| lab.inside("a", || conntrack::forget(&flows)).unwrap();
        assert_eq!(forget(flows(range(7000, 7079), 22, 8000)), 0, "another distance");
        assert_eq!(forget(flows(range(7000, 7078), 22, 8001)), 0, "another range");
        assert_eq!(forget(flows(range(7000, 7079), 22, 8001)), 1);
        assert_eq!(forget(flows(Ports::ALL, 21, 0)), 1);
        assert_eq!(lab.inside("a", || conntrack::count(&asked)).unwrap(), [0; 5], "{family:?}");
    }
}

#[test]
fn what_the_owner_takes_itself_is_let_through_out_of_a_range_around_it() {
    let test = "what_the_owner_takes_itself_is_let_through";
    let Some(lab) = Lab::new(test) else { return };
    lab.serve();
    lab.own("a");
    for family in [Family::V4, Family::V6] {
        let mut forwards = ranges(family, Protocol::Tcp);
        forwards.truncate(1);
        let local = Forward {
            ports: Ports::one(22),
            spread: Spread::Local,
            backends: vec![],
            ..forward(family, Protocol::Tcp, hash)
        };
        forwards.push(local.clone());
        lab.apply(&forwards);
        let at = SocketAddr::new(family.vip(), 22);
        let listener = lab.inside("a", || TcpListener::bind(at).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || greet_and_echo("owner", stream));
            }
        });
        let mut connection = lab.connect("client", at).unwrap();
        assert_eq!(connection.server, "owner");
        assert_eq!(connection.peer, family.address(1).to_string());
        assert!(connection.echoes("before").unwrap());
        let beside = lab.connect("client", SocketAddr::new(family.vip(), 8080)).unwrap();
        assert_eq!(beside.server, "s1");
        let observed = lab.inside("a", nft::observe).unwrap().unwrap();
        assert!(observed.counts(&local).packets > 3);
        // Whom the service is not there for gets nothing through, before and after.
        let client = Cidr::new(family.address(1), if family.vip().is_ipv4() { 32 } else { 128 });
        let rule = SourceRule { prefix: client.unwrap(), allows: false };
        let sources = std::sync::Arc::new(Sources::new([rule]).unwrap());
        let denied = Forward { sources, ..local };
        lab.apply(&[forwards[0].clone(), denied]);
        let before = lab.inside("a", nft::observe).unwrap().unwrap().denied();
        connection.stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        assert!(connection.echoes("after").is_err());
        assert!(lab.inside("a", nft::observe).unwrap().unwrap().denied() > before);
    }
}
