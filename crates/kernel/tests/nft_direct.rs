//! Proves on a real kernel that nftables sends packets to backends as they are, and that these answer by
//! themselves.

// The whole file is tests: a failed `unwrap` is a failed test.
#![allow(clippy::unwrap_used)]

mod balancers;
mod talk;

use balancers::{Family, Lab, backend, everywhere, hash, service};
use buoy_kernel::nft::{self, Forward, Spread};
use buoy_kernel::sysctl;
use buoy_model::{Cidr, SourceRule, Sources};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use talk::ip;

/// Servers that have the VIPs and say so to nobody, as `buoy backend add` prepares them.
fn prepared(test: &str) -> Option<Lab> {
    let lab = Lab::new(test)?;
    for server in ["s1", "s2"] {
        lab.inside(server, || {
            for of in ["all", "eth0"] {
                sysctl::write(&format!("net/ipv4/conf/{of}/arp_ignore"), "1").unwrap();
                sysctl::write(&format!("net/ipv4/conf/{of}/arp_announce"), "2").unwrap();
            }
        });
        for cidr in ["10.9.0.100/32", "fd00:9::100/128"] {
            let flags: &[&str] = if cidr.contains(':') { &["nodad"] } else { &[] };
            let words = ["-n", &lab.name(server), "address", "add", cidr, "dev", "lo"];
            ip(&[&words[..], flags].concat()).unwrap();
        }
        for family in [Family::V4, Family::V6] {
            lab.serve_at(server, service(family));
        }
    }
    lab.own("a");
    Some(lab)
}

fn apply(lab: &Lab, forwards: &[Forward]) {
    lab.inside("a", || nft::direct::apply(forwards, None).unwrap());
}

#[test]
fn a_packet_goes_as_it_is_and_its_answer_past_the_balancer() {
    let Some(lab) = prepared("a_packet_goes_as_it_is") else { return };
    let forwards = everywhere(hash);
    apply(&lab, &forwards);
    // The kernel of the balancer forwards nothing: what comes through came at the ingress, and answers did not.
    let forwards_ip = lab.inside("a", || sysctl::read(sysctl::IPV4_FORWARD).unwrap());
    assert_eq!(forwards_ip, "0");
    for family in [Family::V4, Family::V6] {
        let mut servers = BTreeSet::new();
        let mut kept = Vec::new();
        for _ in 0..20 {
            let mut connection = lab.connect("client", service(family)).unwrap();
            assert_eq!(connection.peer, family.address(1).to_string(), "the client itself");
            assert!(connection.echoes("hello").unwrap());
            servers.insert(connection.server.clone());
            kept.push(connection);
        }
        assert_eq!(servers.len(), 2, "{family:?}");
        // Twice is the same as once, and connections go on.
        apply(&lab, &forwards);
        assert!(kept.iter_mut().all(|connection| connection.echoes("again").unwrap()));
        let (_, peer) = lab.ask("client", service(family)).unwrap();
        assert_eq!(peer, family.address(1).to_string(), "udp {family:?}");
    }
    let observed = lab.inside("a", nft::direct::observe).unwrap().unwrap();
    for forward in &forwards {
        let counts = observed.counts(forward);
        // A SYN that is sent twice, while a neighbour is looked for, is counted twice.
        let is_tcp = forward.protocol == buoy_model::Protocol::Tcp;
        assert_eq!(20 <= counts.connections, is_tcp, "{counts:?} {forward:?}");
        assert_eq!(counts.refused, 0, "{forward:?}");
        assert!(0 < counts.packets && 0 < counts.bytes, "{counts:?}");
    }
    lab.inside("a", || nft::direct::apply(&[], None)).unwrap();
    assert!(lab.inside("a", nft::direct::observe).unwrap().is_none());
}

#[test]
fn who_is_refused_and_a_service_without_backends_get_nothing_and_are_counted() {
    let Some(lab) = prepared("who_is_refused") else { return };
    let mut forwards = everywhere(|_| Spread::Refuse);
    apply(&lab, &forwards);
    let ask = |family| lab.socket("client", service(family)).unwrap();
    for family in [Family::V4, Family::V6] {
        ask(family).send(b"who?").unwrap();
    }
    let observed = || lab.inside("a", nft::direct::observe).unwrap().unwrap();
    let refused = |f: &Forward| observed().counts(f).refused;
    let udp = |f: &&Forward| f.protocol == buoy_model::Protocol::Udp;
    assert!(forwards.iter().filter(udp).all(|f| refused(f) == 1));

    let client = |family: Family| {
        let length = if family.vip().is_ipv4() { 32 } else { 128 };
        let prefix = Cidr::new(family.address(1), length).unwrap();
        SourceRule { prefix, allows: false }
    };
    let sources = Arc::new(Sources::new([Family::V4, Family::V6].map(client)).unwrap());
    for forward in &mut forwards {
        let family = if forward.vip.is_ipv4() { Family::V4 } else { Family::V6 };
        let slots: Vec<SocketAddr> = vec![backend(family, 21)];
        (forward.spread, forward.sources) = (hash(slots), Arc::clone(&sources));
    }
    apply(&lab, &forwards);
    for family in [Family::V4, Family::V6] {
        ask(family).send(b"who?").unwrap();
        // Somebody else is let in.
        assert_eq!(lab.ask("b", service(family)).unwrap().0, "s1", "{family:?}");
    }
    assert_eq!(observed().denied(), 2);
}
