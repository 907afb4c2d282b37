//! VIPs that are on no interface, with real agents: who answers, who does not any more, and what clients notice.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::fault::Fault;
use buoy_lab::peer::Peer;
use buoy_lab::probe::ndp::{BEAT, NdpObserver};
use buoy_lab::process::wait_until;
use buoy_lab::segment::HTTP_PORT;
use buoy_lab::topology::{Topology, ipv6};
use buoy_lab::trial::CONNECTIONS;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use support::servers::{Servers, XDP, wait_forwarded};
use support::{Cluster, LEASE, MS, SOON, VIP, config_head, prepared_on, since};

const VIP6: &str = "fd77::100";

/// One VIP of both families, and services that XDP forwards.
fn vips(assign: bool, forward: &str) -> String {
    let mut text = format!(
        "[[vip]]\nname = \"web\"\naddress = [\"{VIP}/24\", \"{VIP6}/64\"]\nassign = {assign}\n"
    );
    for (port, protocol) in [(80, "tcp"), (7, "tcp"), (7, "udp")] {
        let port_of = |address: &str| match forward {
            "nat" => format!("{address}:{port}"),
            _ => address.to_owned(),
        };
        let backends: Vec<String> = [("web1", "21"), ("web2", "22")]
            .iter()
            .flat_map(|(name, last)| {
                let v4 = port_of(&format!("10.77.0.{last}"));
                let v6 = match forward {
                    "nat" => port_of(&format!("[fd77::{last}]")),
                    _ => format!("fd77::{last}"),
                };
                [format!("\"{name} {v4}\""), format!("\"{name}-6 {v6}\"")]
            })
            .collect();
        text.push_str(&format!(
            "[[vip.service]]\nport = \"{port}/{protocol}\"\nforward = \"{forward}\"\nbackends = [{}]\n",
            backends.join(", ")
        ));
    }
    text
}

fn cluster(test: &str, forward: &str) -> Option<(Cluster, Servers)> {
    let vips = vips(false, forward);
    let mut cluster = prepared_on(test, Topology::with_nodes(3), LEASE, &vips)?;
    cluster.segment.suit_xdp().unwrap();
    let servers = Servers::behind(&cluster, &[VIP.into(), VIP6.parse().unwrap()], forward);
    cluster.buoy.start_all(&cluster.segment).unwrap();
    wait_forwarded(&cluster, XDP);
    Some((cluster, servers))
}

fn survive(test: &str, forward: &str, fault: Fault) -> Option<()> {
    let (mut cluster, _servers) = cluster(test, forward)?;
    let figures = cluster.session().trial(fault, |_, _| {}).unwrap().unwrap();
    assert!(figures.to.is_some(), "{figures:?}");
    assert_ne!(figures.to.as_ref(), Some(&figures.from), "{figures:?}");
    assert!(figures.breaks.is_empty(), "{figures:?}");
    assert_eq!((figures.survived, figures.connections), (CONNECTIONS, CONNECTIONS), "{figures:?}");
    assert_eq!(figures.two_answerers, Duration::ZERO, "{figures:?}");
    assert!(figures.requests.clients.iter().all(|c| c.starts_with("10.77.0.50")), "{figures:?}");
    // The lease, an election, and what the machine stood still: as for a VIP on an interface.
    assert!(figures.takeover.unwrap() < 1500 * MS + figures.stall, "{figures:?}");
    for node in cluster.buoy.nodes() {
        assert!(!cluster.has_address(node, "10.77.0.100"));
        assert!(!cluster.has_address(node, VIP6));
    }
    Some(())
}

#[test]
fn a_frozen_owner_falls_silent_with_its_lease_and_its_connections_go_on() {
    survive(
        "a_frozen_owner_falls_silent_with_its_lease_and_its_connections_go_on",
        "dsr",
        Fault::Freeze,
    );
}

#[test]
fn answers_of_translated_backends_come_back_although_no_host_has_the_vip() {
    survive(
        "answers_of_translated_backends_come_back_although_no_host_has_the_vip",
        "nat",
        Fault::PowerOff,
    );
}

fn ask(cluster: &Cluster, vip: &str) -> bool {
    let at = SocketAddr::new(vip.parse().unwrap(), HTTP_PORT);
    let client = cluster.segment.inside("client").unwrap();
    client.enter(|| TcpStream::connect_timeout(&at, SOON)).unwrap().is_ok()
}

fn observer(cluster: &Cluster) -> NdpObserver {
    let from = cluster.segment.host("observer").unwrap().ipv6();
    NdpObserver::start(cluster.segment.inside("observer").unwrap(), from, ipv6(100)).unwrap()
}

#[test]
fn ipv6_neighbours_find_one_owner_at_a_time_and_a_reload_puts_the_vip_there_and_back() {
    let test = "ipv6_neighbours_find_one_owner_at_a_time_and_a_reload_puts_the_vip_there_and_back";
    let Some((mut cluster, _servers)) = cluster(test, "dsr") else { return };
    let observer = observer(&cluster);
    let from = Instant::now();
    let name = |cluster: &Cluster| {
        let host = cluster.segment.topology.by_mac(observer.owner()?)?;
        Some(host.name.to_owned())
    };
    wait_until(SOON, "an owner", || Ok(name(&cluster).is_some())).unwrap();
    assert!(ask(&cluster, VIP6) && ask(&cluster, "10.77.0.100"));
    let owner = name(&cluster).unwrap();
    Fault::Freeze.inject(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
    wait_until(SOON, "another answerer", || Ok(name(&cluster).is_some_and(|other| other != owner)))
        .unwrap();
    cluster.segment.inside("client").unwrap().ip("neigh flush dev eth0").unwrap();
    assert!(ask(&cluster, VIP6) && ask(&cluster, "10.77.0.100"));
    Fault::Freeze.heal(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
    // The healed host has its chance to answer.
    let healed = Instant::now();
    wait_until(SOON, "a second", || Ok(250 * BEAT < healed.elapsed())).unwrap();
    assert_eq!(observer.answered_by_two(since(from)), 0);

    // With another wish of its operator the owner has it on its interface, and then not any more.
    let owner = name(&cluster).unwrap();
    for assign in [true, false] {
        let text = format!("{}{}", config_head(&cluster.segment.topology), vips(assign, "dsr"));
        for node in cluster.buoy.nodes() {
            cluster.buoy.write_config(node, &text).unwrap();
            cluster.buoy.reload(node).unwrap();
        }
        wait_until(SOON, "the address there, or not", || {
            Ok(cluster.has_address(&owner, VIP6) == assign)
        })
        .unwrap();
        wait_until(SOON, "one answerer", || Ok(name(&cluster).is_some())).unwrap();
        assert!(ask(&cluster, VIP6) && ask(&cluster, "10.77.0.100"));
    }
    assert_eq!(observer.answered_by_two(since(from)), 0);
}
