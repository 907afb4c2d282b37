//! Services of mode "xdp" with real agents: every way of forwarding, and what outlives an agent.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::ServiceView;
use buoy_lab::backend::Backend;
use buoy_lab::fault::Fault;
use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use buoy_lab::topology::Topology;
use buoy_lab::trial::CONNECTIONS;
use std::time::Duration;
use support::{Cluster, LEASE, LOCAL, SOON, VIP, prepared_on};

const BACKENDS: [&str; 2] = ["web1", "web2"];

/// The services of most tests, by XDP.
fn services(forward: &str) -> String {
    let at = |port: u16| match forward {
        "nat" => format!("[\"web1 10.77.0.21:{port}\", \"web2 10.77.0.22:{port}\"]"),
        _ => "[\"web1 10.77.0.21\", \"web2 10.77.0.22\"]".to_owned(),
    };
    let service = |(port, protocol): (u16, &str)| {
        format!(
            "[[vip.service]]\nport = \"{port}/{protocol}\"\nforward = \"{forward}\"\nbackends = {}\n",
            at(port)
        )
    };
    [(80, "tcp"), (7, "tcp"), (7, "udp")].map(service).concat()
}

/// Three agents that run, backends that are prepared for this way of forwarding, and their servers.
fn cluster(test: &str, forward: &str) -> Option<(Cluster, Vec<Backend>)> {
    let vips = format!("{LOCAL}{}", services(forward));
    let mut cluster = prepared_on(test, Topology::with_nodes(3), LEASE, &vips)?;
    cluster.segment.suit_xdp().unwrap();
    let mut servers = Vec::new();
    for name in BACKENDS {
        let inside = cluster.segment.inside(name).unwrap();
        if forward == "nat" {
            // Its answers go back through the owner, whoever that is.
            inside.ip(&format!("route add 10.77.0.50/32 via {VIP}")).unwrap();
            continue;
        }
        for setting in ["arp_ignore", "arp_announce"] {
            let value = if setting == "arp_ignore" { "1" } else { "2" };
            inside.sysctl(&format!("ipv4.conf.all.{setting}"), value).unwrap();
        }
        inside.ip(&format!("addr add {VIP}/32 dev lo")).unwrap();
        servers.push(Backend::start_at(inside, name, &[VIP.into()]).unwrap());
    }
    cluster.buoy.start_all(&cluster.segment).unwrap();
    for node in cluster.buoy.nodes() {
        cluster.wait_owned(node);
        let is_attached = |service: &ServiceView| service.engine == "XDP (eth0: driver)";
        wait_until(2 * SOON, "XDP forwarding", || {
            let status = cluster.buoy.client(node).unwrap().status();
            Ok(status.is_ok_and(|s| s.vips.iter().flat_map(|v| &v.services).all(is_attached)))
        })
        .unwrap();
    }
    Some((cluster, servers))
}

fn survive(test: &str, forward: &str, fault: Fault) {
    let Some((mut cluster, _servers)) = cluster(test, forward) else { return };
    let figures = cluster.session().trial(fault, |_, _| {}).unwrap().unwrap();
    assert!(figures.to.is_some(), "{figures:?}");
    assert!(figures.breaks.is_empty(), "{figures:?}");
    assert_eq!((figures.survived, figures.connections), (CONNECTIONS, CONNECTIONS), "{figures:?}");
    assert_eq!(figures.two_answerers, Duration::ZERO, "{figures:?}");
    assert!(figures.requests.sent > 20, "{figures:?}");
    // A backend sees who asks.
    assert!(figures.requests.clients.iter().all(|c| c.starts_with("10.77.0.50")), "{figures:?}");
    assert_eq!(figures.requests.by.len(), 2, "{figures:?}");
}

#[test]
fn connections_by_dsr_outlive_their_owner() {
    survive("connections_by_dsr_outlive_their_owner", "dsr", Fault::PowerOff);
}

#[test]
fn connections_by_nat_outlive_their_owner() {
    survive("connections_by_nat_outlive_their_owner", "nat", Fault::PowerOff);
}

#[test]
fn a_planned_move_of_a_dsr_service_loses_no_request() {
    let test = "a_planned_move_of_a_dsr_service_loses_no_request";
    let Some((mut cluster, _servers)) = cluster(test, "dsr") else { return };
    let figures = cluster.session().trial(Fault::Drain, |_, _| {}).unwrap().unwrap();
    assert_eq!(figures.requests.lost, 0, "{figures:?}");
    assert_eq!((figures.survived, figures.connections), (CONNECTIONS, CONNECTIONS), "{figures:?}");
}
