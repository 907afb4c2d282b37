//! A backend that fails leaves in time, alone, and comes back when it is well.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::ClusterStatus;
use buoy_lab::probe::Window;
use buoy_lab::probe::http::HttpProbe;
use buoy_lab::probe::tcp::TcpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::{ECHO_PORT, HTTP_PORT};
use std::time::{Duration, Instant};
use support::{LOCAL, MS, SOON, VIP, cluster};

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
