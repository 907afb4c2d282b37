//! A backend that fails leaves in time, alone, and comes back when it is well.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::ClusterStatus;
use buoy_lab::backend::Backend;
use buoy_lab::peer::Peer;
use buoy_lab::probe::Window;
use buoy_lab::probe::http::HttpProbe;
use buoy_lab::probe::tcp::TcpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::{ECHO_PORT, HTTP_PORT};
use buoy_lab::topology::Topology;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::servers::Servers;
use support::{LEASE, LOCAL, MS, SOON, VIP, cluster, prepared_on};

/// Fall 2 at every 200 ms with a timeout of 200 ms: gone after 600 ms, and a little for the machine.
const GONE_MAX: Duration = Duration::from_millis(600 + 500);

fn services(check: &str) -> String {
    let service = |port: u16| {
        format!(
            "[[vip.service]]\nport = \"{port}/tcp\"\n\
             backends = [\"web1 10.77.0.21:{port}\", \"web2 10.77.0.22:{port}\"]\n\
             check = {{ {check}, every = \"200ms\", timeout = \"200ms\", fall = 2, rise = 2 }}\n"
        )
    };
    format!("{LOCAL}{}{}", service(HTTP_PORT), service(ECHO_PORT))
}

/// Whether a backend of the first service has that state.
fn is(status: &ClusterStatus, name: &str, state: &str) -> bool {
    let services = status.vips.iter().flat_map(|vip| &vip.services);
    let mut backends = services.take(1).flat_map(|service| &service.backends);
    backends.any(|backend| backend.name == name && backend.state == state)
}

#[test]
fn a_dead_backend_leaves_in_time_and_the_other_keeps_its_connections() {
    let test = "a_dead_backend_leaves_in_time_and_the_other_keeps_its_connections";
    let Some(mut cluster) = cluster(test, 3, &services("tcp = true")) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let up = |status: &ClusterStatus| is(status, "web1", "up") && is(status, "web2", "up");
    cluster.buoy.wait_status(&owner, SOON, "both backends up", up).unwrap();
    let client = cluster.segment.inside("client").unwrap();
    let tcp = TcpProbe::start(client, (VIP, ECHO_PORT).into(), 40).unwrap();
    let http = HttpProbe::start(client, (VIP, HTTP_PORT).into(), 5 * MS).unwrap();
    let opened = Instant::now();
    wait_until(SOON, "lines", || Ok(tcp.figures(opened).survived == 40)).unwrap();
    let healthy = tcp.alive_at("web2");
    assert!(0 < healthy && healthy < 40, "both backends have connections");

    let died = Instant::now();
    cluster.segment.backend("web1").unwrap().set_listening(false);
    let down = |status: &ClusterStatus| is(status, "web1", "down");
    cluster.buoy.wait_status(&owner, SOON, "web1 down", down).unwrap();
    let took = died.elapsed();
    assert!(took < GONE_MAX, "it took {took:?}");

    // nft may be at work for the other service of that backend, whose check failed a moment before.
    let from = Instant::now() + 300 * MS;
    let requests = || http.figures(Window { from, to: Instant::now() });
    wait_until(SOON, "100 requests", || Ok(requests().sent > 100)).unwrap();
    assert_eq!(requests().lost, 0, "{:?}", requests());
    assert_eq!(requests().by.get("web1"), None);
    assert_eq!(tcp.alive_at("web2"), healthy, "connections of the healthy one");

    cluster.segment.backend("web1").unwrap().set_listening(true);
    wait_until(SOON, "web1 to get requests again", || Ok(requests().by.contains_key("web1")))
        .unwrap();
    assert_eq!(tcp.alive_at("web2"), healthy, "connections of the healthy one");
}

#[test]
fn a_backend_that_answers_503_leaves() {
    let test = "a_backend_that_answers_503_leaves";
    let check = "http = \"GET /health\", port = 80";
    let Some(mut cluster) = cluster(test, 3, &services(check)) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let up = |status: &ClusterStatus| is(status, "web1", "up") && is(status, "web2", "up");
    cluster.buoy.wait_status(&owner, SOON, "both backends up", up).unwrap();

    cluster.segment.backend("web2").unwrap().set_healthy(false);
    let down = |status: &ClusterStatus| is(status, "web2", "down");
    let status = cluster.buoy.wait_status(&owner, SOON, "web2 down", down).unwrap();
    let reason = &status.vips[0].services[0].backends[1].reason;
    assert!(reason.contains("503"), "the reason is {reason:?}");
    cluster.segment.backend("web2").unwrap().set_healthy(true);
    cluster.buoy.wait_status(&owner, SOON, "web2 up again", up).unwrap();
}

#[test]
fn without_any_backend_clients_are_refused_at_once_and_told_why() {
    let test = "without_any_backend_clients_are_refused_at_once_and_told_why";
    let Some(mut cluster) = cluster(test, 3, &services("tcp = true")) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    for backend in ["web1", "web2"] {
        cluster.segment.backend(backend).unwrap().set_listening(false);
    }
    let down = |status: &ClusterStatus| is(status, "web1", "down") && is(status, "web2", "down");
    cluster.buoy.wait_status(&owner, SOON, "both down", down).unwrap();
    let client = cluster.segment.inside("client").unwrap();
    let http = HttpProbe::start(client, (VIP, HTTP_PORT).into(), 20 * MS).unwrap();
    let from = Instant::now() + 300 * MS;
    let requests = || http.figures(Window { from, to: Instant::now() });
    wait_until(SOON, "10 requests", || Ok(requests().sent > 10)).unwrap();
    assert_eq!(requests().why, ["connection refused"]);
    let problem = |status: &ClusterStatus| {
        status.vips.iter().flat_map(|vip| &vip.services).any(|service| service.up == 0)
    };
    cluster.buoy.wait_status(&owner, SOON, "nobody up in the status", problem).unwrap();
}

/// One service by each way on which packets keep the VIP, and checks on it.
fn on_the_vip() -> String {
    let service = |port: u16, forward: &str, check: &str| {
        format!(
            "[[vip.service]]\nport = \"{port}/tcp\"\nforward = {forward}\n\
             backends = [\"web1 10.77.0.21\", \"web2 10.77.0.22\"]\n\
             check = {{ {check}, every = \"200ms\", timeout = \"200ms\", fall = 2, rise = 2 }}\n"
        )
    };
    let direct = "http = \"GET /health\", via = \"direct\"";
    let tunnel = "tcp = true, via = \"tunnel\"";
    let gue = "\"tunnel\"\nencapsulation = \"gue:9886\"";
    format!("{LOCAL}{}{}", service(80, "\"dsr\"", direct), service(7, gue, tunnel))
}

#[test]
fn a_backend_without_the_vip_is_down_on_every_node_until_it_is_prepared() {
    let test = "a_backend_without_the_vip_is_down_on_every_node_until_it_is_prepared";
    let cluster = prepared_on(test, Topology::with_nodes(2), LEASE, &on_the_vip());
    let Some(mut cluster) = cluster else { return };
    cluster.segment.suit_xdp().unwrap();
    let mut servers = Servers::default();
    prepare(&mut servers, &cluster, "web1");
    cluster.buoy.start_all(&cluster.segment).unwrap();
    let node = |cluster: &support::Cluster, node: &str, web2: &str| {
        let is_so = |status: &ClusterStatus| {
            let services: Vec<_> = status.vips.iter().flat_map(|vip| &vip.services).collect();
            let all = |name: &str, state: &str| {
                let backends = services.iter().flat_map(|service| &service.backends);
                let mut those = backends.filter(|backend| backend.name == name);
                those.all(|backend| backend.state == state)
            };
            !services.is_empty() && all("web1", "up") && all("web2", web2)
        };
        cluster.buoy.wait_status(node, SOON, "web1 up, and web2 as it is", is_so).unwrap()
    };
    for name in cluster.buoy.nodes() {
        cluster.wait_owned(name);
        let status = node(&cluster, name, "down");
        let reasons = status.vips[0].services.iter().map(|s| s.backends[1].reason.as_str());
        let expected = [
            "does not answer on the VIP 10.77.0.100 (via direct) within 200ms: if it is up, run \
             `buoy backend add 10.77.0.100` there",
            "does not answer on the VIP 10.77.0.100 (via tunnel) within 200ms: if it is up, run \
             `buoy backend add 10.77.0.100 --tunnel=gue:9886` there",
        ];
        assert_eq!(reasons.collect::<Vec<_>>(), expected, "{name}");
        // It is well where nobody asks for the service.
        let inside = cluster.segment.inside(name).unwrap();
        let itself = inside.enter(|| TcpStream::connect(("10.77.0.22", HTTP_PORT)));
        itself.unwrap().unwrap();
    }
    prepare(&mut servers, &cluster, "web2");
    for name in cluster.buoy.nodes() {
        node(&cluster, name, "up");
    }
    // A server that has the VIP and does not listen there says so at once.
    drop(servers.running.pop());
    let status = cluster.buoy.wait_status("n1", SOON, "web2 down", |s| is(s, "web2", "down"));
    let reason = &status.unwrap().vips[0].services[0].backends[1].reason;
    assert_eq!(reason, "on the VIP 10.77.0.100: connection refused");
}

/// As an operator prepares a backend, with a server on the VIP.
fn prepare(servers: &mut Servers, cluster: &support::Cluster, name: &'static str) {
    servers.prepare(cluster, name, &["10.77.0.100"], "gue");
    let inside = cluster.segment.inside(name).unwrap();
    servers.running.push(Backend::start_at(inside, name, &[VIP.into()]).unwrap());
}
