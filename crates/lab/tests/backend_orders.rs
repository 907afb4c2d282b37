//! What operators order of backends, given on one node and followed by all, with real agents and connections.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::{BackendOrderRequest, MoveRequest};
use buoy_lab::peer::Peer;
use buoy_lab::probe::http::HttpProbe;
use buoy_lab::probe::tcp::TcpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::{ECHO_PORT, HTTP_PORT};
use std::time::Instant;
use support::{Cluster, LOCAL, MS, SOON, VIP, cluster, wait_for};

fn alone(http: &HttpProbe, name: &str) {
    wait_for(http, &format!("{name} alone"), |f| f.by.keys().eq([name]) && f.lost == 0);
}

fn order(cluster: &Cluster, node: &str, service: &str, verb: &str, weight: Option<&str>) {
    let reason = Some("a test".to_owned());
    let (weight, for_ms) = (weight.map(str::to_owned), None);
    let request = BackendOrderRequest { reason, for_ms, weight };
    let client = cluster.buoy.client(node).unwrap();
    client.order_backend((service, "web1"), verb, &request).unwrap();
}

/// Waits until every node shows the first backend of the first service like this.
fn wait_shown(cluster: &Cluster, state: &str) {
    for node in cluster.buoy.nodes() {
        let is_it = |status: &buoy_api::ClusterStatus| {
            let mut services = status.vips.iter().flat_map(|vip| &vip.services);
            services.any(|service| {
                let web1 = &service.backends[0];
                service.port == "80/tcp" && web1.state == state && web1.reason.contains("a test")
            })
        };
        cluster.buoy.wait_status(node, SOON, &format!("web1 shown as {state}"), is_it).unwrap();
    }
}

#[test]
fn a_backend_is_drained_and_disabled_on_all_nodes_by_one_word_to_any() {
    let test = "a_backend_is_drained_and_disabled_on_all_nodes_by_one_word_to_any";
    for mode in ["kernel", "proxy"] {
        let service = |port: u16| {
            format!(
                "[[vip.service]]\nport = \"{port}/tcp\"\nmode = \"{mode}\"\n\
                 backends = [\"web1 10.77.0.21:{port}\", \"web2 10.77.0.22:{port}\"]\n"
            )
        };
        let services = format!("{LOCAL}{}{}", service(HTTP_PORT), service(ECHO_PORT));
        let Some(cluster) = cluster(test, 3, &services) else { return };
        let observer = cluster.observer(&[VIP]);
        let owner = cluster.wait_answerer(&observer, VIP);
        let nodes = cluster.segment.topology.nodes();
        let other = *nodes.iter().find(|node| **node != owner).unwrap();
        let client = cluster.segment.inside("client").unwrap();
        let http = HttpProbe::start(client, (VIP, HTTP_PORT).into(), 5 * MS).unwrap();
        wait_for(&http, "both to be asked", |f| f.by.len() == 2);
        let tcp = TcpProbe::start(client, (VIP, ECHO_PORT).into(), 40).unwrap();
        let opened = Instant::now();
        wait_until(SOON, "lines", || Ok(tcp.figures(opened).survived == 40)).unwrap();
        let kept = tcp.alive_at("web1");
        assert!(0 < kept && kept < 40, "both backends have connections");

        // The node that is told does not forward a packet at this moment.
        order(&cluster, other, "web:7", "drain", None);
        order(&cluster, other, "web:80", "drain", None);
        alone(&http, "web2");
        assert_eq!(tcp.alive_at("web1"), kept, "{mode}: it finishes what it has");
        wait_shown(&cluster, "drain");
        let flows = cluster.buoy.client(&owner).unwrap().flows("web:7", "web1").unwrap().flows;
        assert!(flows.open.is_some_and(|open| kept as u64 <= open), "{mode}: {flows:?} {kept}");

        order(&cluster, other, "web:7", "disable", None);
        wait_until(SOON, "its connections to be cut", || Ok(tcp.alive_at("web1") == 0)).unwrap();
        let rest = 40 - kept as u64;
        wait_until(SOON, "the count to say so", || {
            let all = cluster.buoy.client(&owner)?.flows_of_all("web:7").unwrap().backends;
            let open: Vec<_> = all.iter().map(|b| (b.backend.as_str(), b.flows.open)).collect();
            Ok(matches!(open[..], [("web1", Some(0)), ("web2", Some(n))] if rest <= n))
        })
        .unwrap();

        let to = MoveRequest { to: other.into(), reason: None };
        cluster.buoy.client(&owner).unwrap().move_vip("web", &to).unwrap();
        cluster.wait_at(&observer, other);
        alone(&http, "web2");
        order(&cluster, &owner, "web:80", "enable", None);
        wait_for(&http, "web1 to get its share", |f| f.by.contains_key("web1"));
        order(&cluster, &owner, "web:80", "weight", Some("0"));
        alone(&http, "web2");
        order(&cluster, &owner, "web:80", "weight", Some("configured"));
        wait_for(&http, "web1 to get its share", |f| f.by.contains_key("web1"));
    }
}
