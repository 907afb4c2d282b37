//! VIPs that ask a pool for addresses, with real agents: what they get is served, kept, and nobody's else.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::{ClientError, ConfigRequest, PoolView, ReservationRequest};
use buoy_lab::peer::Peer;
use buoy_lab::probe::http::HttpProbe;
use buoy_lab::probe::udp::UdpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::{ECHO_PORT, HTTP_PORT};
use nix::sys::signal::Signal;
use std::net::Ipv4Addr;
use support::{Cluster, MS, SOON, VIP, cluster, wait_event, wait_for};

/// Ten addresses, and one VIP that asks for one of them.
const POOL: &str = "
[[pool]]
name = \"web\"
addresses = \"10.77.0.110-119/24\"
auto_assign = true

[[vip]]
name = \"shop\"
pool = \"web\"
";

fn pool(cluster: &Cluster, node: &str) -> PoolView {
    cluster.buoy.client(node).unwrap().pools().unwrap().pools.remove(0)
}

/// The address that the pool gave to a VIP, as a node has it in force.
fn address(cluster: &Cluster, node: &str, vip: &str) -> Option<Ipv4Addr> {
    let addresses = pool(cluster, node).addresses.into_iter();
    let mut its = addresses.filter(|a| a.vip.as_deref() == Some(vip));
    its.next().map(|a| a.address.parse().unwrap())
}

fn wait_kept(cluster: &Cluster, node: &str, vip: &str) {
    let is_kept = || {
        let all = cluster.buoy.client(node).unwrap().reservations();
        let is_it = |all: buoy_api::ReservationsReply| {
            all.reservations.iter().any(|r| r.given && r.vip.as_deref() == Some(vip))
        };
        Ok(all.is_ok_and(is_it))
    };
    wait_until(SOON, &format!("what {vip} has is kept on {node}"), is_kept).unwrap();
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (String, String) {
    let ClientError::Refused(problem) = result.expect_err("it is refused") else {
        return (String::new(), "there is no agent".into());
    };
    (problem.code.clone(), problem.detail.clone())
}

#[test]
fn a_vip_gets_an_address_of_its_pool_serves_and_keeps_it_and_nobody_else_gets_it() {
    let test = "a_vip_gets_an_address_of_its_pool_serves_and_keeps_it_and_nobody_else_gets_it";
    let Some(mut cluster) = cluster(test, 3, POOL) else { return };
    let nodes = cluster.buoy.nodes();
    let shop = address(&cluster, nodes[0], "shop").unwrap();
    for node in &nodes {
        assert_eq!(address(&cluster, node, "shop"), Some(shop), "all find the same");
    }
    let observer = cluster.observer(&[shop]);
    cluster.wait_answerer(&observer, shop);
    nodes.iter().for_each(|node| wait_kept(&cluster, node, "shop"));

    // Another one asks, by an edit; both stay what they are.
    let client = cluster.buoy.client(nodes[1]).unwrap();
    let config = client.config().unwrap();
    let text = format!("{}\n[[vip]]\nname = \"mail\"\npool = \"*\"\n", config.text);
    client.config_apply(&ConfigRequest { text, reason: None }, config.revision).unwrap();
    let mail = address(&cluster, nodes[1], "mail").unwrap();
    assert_ne!(mail, shop);
    let observer = cluster.observer(&[shop, mail]);
    cluster.wait_answerer(&observer, mail);

    // What is in use is neither reserved for others nor released, and the refusal says whose it is.
    let wish = |address: Option<Ipv4Addr>, holder: &str| ReservationRequest {
        pool: "web".into(),
        address: address.map(|address| address.to_string()),
        holder: holder.into(),
        reason: None,
    };
    let (code, detail) = refusal(client.reserve(&wish(Some(shop), "printer"), false));
    assert_eq!((code.as_str(), detail.as_str()), ("in_use", "the VIP shop has it"));
    let (code, detail) = refusal(client.free(mail.into(), None, false));
    assert_eq!((code.as_str(), detail.as_str()), ("in_use", "the VIP mail has it"));
    let would = client.reserve(&wish(None, "printer"), true).unwrap();
    let reserved = client.reserve(&wish(None, "printer"), false).unwrap();
    assert_eq!(would.address, reserved.address);
    let printer: Ipv4Addr = reserved.address.parse().unwrap();
    assert!(printer != shop && printer != mail);
    let (code, _) = refusal(client.reserve(&wish(Some(printer), "other"), false));
    assert_eq!(code, "reserved");
    let counts = pool(&cluster, nodes[1]);
    let one = cluster.buoy.client(nodes[1]).unwrap().pool("web").unwrap();
    assert_eq!(one.pool, counts);
    let unknown = cluster.buoy.client(nodes[1]).unwrap().pool("wob").unwrap_err();
    assert!(unknown.to_string().contains("did you mean web?"), "{unknown}");
    assert_eq!((counts.size, counts.used, counts.reserved, counts.free), (10, 2, 1, 7));
    let page = client.metrics().unwrap();
    assert!(page.contains("buoy_pool_addresses{pool=\"web\",state=\"free\"} 7"), "{page}");
    let freed = client.free(printer.into(), Some("it is gone & sold"), false).unwrap();
    assert_eq!(freed.refused_here, None);
    let history = client.config_history().unwrap().revisions;
    assert_eq!(history.last().unwrap().reason, "it is gone & sold");
    assert_eq!(pool(&cluster, nodes[1]).reserved, 0);

    // All agents start again: each VIP has what it had.
    for node in &nodes {
        cluster.buoy.process(node).unwrap().signal(Signal::SIGKILL).unwrap();
    }
    let Cluster { buoy, segment } = &mut cluster;
    buoy.start_all(segment).unwrap();
    for node in &nodes {
        cluster.wait_owned(node);
        let both = ["shop", "mail"].map(|vip| address(&cluster, node, vip));
        assert_eq!(both, [Some(shop), Some(mail)]);
    }
    cluster.wait_answerer(&observer, shop);
    cluster.wait_answerer(&observer, mail);
}

#[test]
fn an_address_that_a_stranger_has_comes_into_no_configuration_and_is_an_event() {
    let test = "an_address_that_a_stranger_has_comes_into_no_configuration_and_is_an_event";
    let Some(cluster) = cluster(test, 2, POOL) else { return };
    let foreign: Ipv4Addr = buoy_lab::topology::ipv4(119);
    let stranger = cluster.segment.inside("client").unwrap();
    stranger.ip(&format!("addr add {foreign}/24 dev eth0")).unwrap();
    let nodes = cluster.buoy.nodes();

    // By an edit.
    let client = cluster.buoy.client(nodes[0]).unwrap();
    let config = client.config().unwrap();
    let new = format!("\n[[vip]]\nname = \"new\"\npool = \"web\"\naddress = \"{foreign}\"\n");
    let request = ConfigRequest { text: format!("{}{new}", config.text), reason: None };
    let (code, detail) = refusal(client.config_apply(&request, config.revision));
    assert_eq!(code, "occupied", "{detail}");
    assert!(detail.contains("answers for it on eth0"), "{detail}");
    wait_event(&cluster, nodes[0], "occupied");

    // By a file.
    let file = std::fs::read_to_string(cluster.buoy.config(nodes[1])).unwrap();
    std::fs::write(cluster.buoy.config(nodes[1]), format!("{file}{new}")).unwrap();
    let said = cluster.buoy.client(nodes[1]).unwrap().reload().unwrap_err().to_string();
    assert!(said.contains(&format!("{foreign} is in use")), "{said}");
    wait_event(&cluster, nodes[1], "occupied");

    // The stranger leaves it.
    let stranger = cluster.segment.inside("client").unwrap();
    stranger.ip(&format!("addr del {foreign}/24 dev eth0")).unwrap();
    for node in &nodes {
        std::fs::write(cluster.buoy.config(node), format!("{file}{new}")).unwrap();
        // The second one asks when the first one may serve it: that is no stranger.
        cluster.buoy.client(node).unwrap().reload().unwrap();
        cluster.wait_owned(node);
    }
    let observer = cluster.observer(&[foreign]);
    cluster.wait_answerer(&observer, foreign);
}

#[test]
fn two_vips_with_one_address_are_served_by_one_owner_each_on_its_ports() {
    let test = "two_vips_with_one_address_are_served_by_one_owner_each_on_its_ports";
    let vip = |name: &str, port: &str, backend: &str| {
        format!(
            "[[vip]]\nname = \"{name}\"\ngroup = \"front\"\naddress = \"{VIP}/24\"\n\
             [[vip.service]]\nport = \"{port}\"\nbackends = [\"{backend}\"]\n"
        )
    };
    let vips =
        [vip("web", "80/tcp", "web1 10.77.0.21:80"), vip("echo", "7/udp", "web2 10.77.0.22:7")];
    let Some(cluster) = cluster(test, 2, &vips.concat()) else { return };
    let client = cluster.segment.inside("client").unwrap();
    let web = HttpProbe::start(client, (VIP, HTTP_PORT).into(), 5 * MS).unwrap();
    wait_for(&web, "HTTP of one VIP", |figures| figures.lost == 0 && figures.by.len() == 1);
    let echo = UdpProbe::start(client, (VIP, ECHO_PORT).into()).unwrap();
    wait_until(SOON, "UDP of the other", || Ok(100 * MS < echo.well_for())).unwrap();
    let node = cluster.buoy.client(cluster.buoy.nodes()[0]).unwrap();
    let mut names: Vec<String> =
        node.services().unwrap().services.into_iter().map(|service| service.service.name).collect();
    names.sort();
    assert_eq!(names, ["echo:7/udp", "web:80/tcp"]);
    let status = node.status().unwrap();
    assert_eq!(
        (status.vips.len(), status.vips[0].addresses.len()),
        (1, 1),
        "one lease, one address"
    );
    let (web, echo) = (node.why("web").unwrap().vip, node.why("echo").unwrap().vip);
    assert_eq!(web.owner, echo.owner);
}
