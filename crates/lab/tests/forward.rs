//! What passes through a VIP arrives at a backend, and goes on arriving while the VIP moves.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::fault::Fault;
use buoy_lab::probe::Window;
use buoy_lab::probe::http::{self, HttpProbe};
use buoy_lab::probe::tcp::TcpProbe;
use buoy_lab::probe::udp::UdpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::{ECHO_PORT, HTTP_PORT};
use buoy_lab::topology::ipv6;
use buoy_lab::trial::{CONNECTIONS, Figures};
use std::time::{Duration, Instant};
use support::{LOCAL, MS, SERVICES, SOON, VIP, cluster};

fn trials(test: &str, fault: Fault, count: usize) -> Option<Vec<Figures>> {
    let mut cluster = cluster(test, 3, &format!("{LOCAL}{SERVICES}"))?;
    let mut session = cluster.session();
    let all = (0..count).map(|_| session.trial(fault, |_, _| {}).unwrap().unwrap());
    Some(all.collect())
}

#[test]
fn a_planned_move_loses_no_request_and_no_connection() {
    let test = "a_planned_move_loses_no_request_and_no_connection";
    for figures in trials(test, Fault::Drain, 3).unwrap_or_default() {
        assert_eq!(figures.requests.lost, 0, "{figures:?}");
        assert!(figures.requests.sent > 20, "{figures:?}");
        assert_eq!((figures.survived, figures.connections), (CONNECTIONS, CONNECTIONS));
        assert!(figures.to.is_some(), "{figures:?}");
        assert_eq!(figures.two_answerers, Duration::ZERO, "{figures:?}");
    }
}

/// None is reset. The few whose answer was on its way at that very moment may wait for their client
/// to speak again, which this client never does (`docs/design/forwarding.md`).
fn assert_they_go_on(figures: &Figures) {
    assert!(figures.breaks.is_empty(), "{figures:?}");
    assert_eq!(figures.connections, CONNECTIONS);
    assert!(figures.survived >= CONNECTIONS * 9 / 10, "{figures:?}");
}

#[test]
fn a_crash_of_the_agent_resets_no_connection() {
    let test = "a_crash_of_the_agent_resets_no_connection";
    trials(test, Fault::Kill, 2).unwrap_or_default().iter().for_each(assert_they_go_on);
}

#[test]
fn a_host_without_power_resets_no_connection() {
    let test = "a_host_without_power_resets_no_connection";
    trials(test, Fault::PowerOff, 2).unwrap_or_default().iter().for_each(assert_they_go_on);
}

#[test]
fn both_backends_get_their_share_over_both_families() {
    let test = "both_backends_get_their_share_over_both_families";
    let vip = "
[[vip]]
name = \"web\"
address = \"fd77::100/64\"
[[vip.service]]
port = \"80/tcp\"
backends = [\"web1 [fd77::21]:80\", \"web2 [fd77::22]:80\"]
[[vip.service]]
port = \"7/udp\"
backends = [\"web1 [fd77::21]:7\", \"web2 [fd77::22]:7\"]
[[vip]]
name = \"old\"
address = \"10.77.0.100/24\"
[[vip.service]]
port = \"80/tcp\"
backends = [\"web1 10.77.0.21:80\", \"web2 10.77.0.22:80\"]
";
    let Some(cluster) = cluster(test, 3, vip) else { return };
    let client = cluster.segment.inside("client").unwrap();
    for vip in [std::net::IpAddr::from(ipv6(100)), VIP.into()] {
        let probe = HttpProbe::start(client, (vip, HTTP_PORT).into(), 5 * MS).unwrap();
        // Neighbours and rules are there once the first answer is.
        let start = Instant::now();
        let answers = |from| probe.figures(Window { from, to: Instant::now() });
        wait_until(SOON, "an answer", || Ok(!answers(start).by.is_empty())).unwrap();
        let from = Instant::now();
        wait_until(SOON, "200 answers", || Ok(answers(from).sent > 200)).unwrap();
        let figures = answers(from);
        assert_eq!(figures.lost, 0, "{vip}: {figures:?}");
        assert!(figures.by["web1"] > 40 && figures.by["web2"] > 40, "{vip}: {figures:?}");
        assert_eq!(figures.clients.len(), 1, "{vip}: {figures:?}");
        assert!(
            figures.clients.first().unwrap().contains(&vip.to_string()),
            "the VIP is the source"
        );
    }
    let probe = UdpProbe::start(client, (ipv6(100), ECHO_PORT).into()).unwrap();
    wait_until(SOON, "UDP over IPv6", || Ok(100 * MS < probe.well_for())).unwrap();
}

#[test]
fn a_proxy_tells_the_backend_who_the_client_is() {
    let test = "a_proxy_tells_the_backend_who_the_client_is";
    let services = "
[[vip.service]]
port = \"80/tcp\"
mode = \"proxy\"
send_proxy = \"v2\"
backends = [\"web1 10.77.0.21:8080\", \"web2 10.77.0.22:8080\"]
check = false
[[vip.service]]
port = \"7/tcp\"
mode = \"proxy\"
balance = \"leastconn\"
backends = [\"web1 10.77.0.21:7\", \"web2 10.77.0.22:7\"]
[[vip.service]]
port = \"7/udp\"
mode = \"proxy\"
backends = [\"web1 10.77.0.21:7\", \"web2 10.77.0.22:7\"]
";
    let Some(cluster) = cluster(test, 3, &format!("{LOCAL}{services}")) else { return };
    let client = cluster.segment.inside("client").unwrap();
    let mut answer = String::new();
    wait_until(SOON, "an answer through the proxy", || {
        answer = http::get(client, (VIP, HTTP_PORT).into(), 1000 * MS).unwrap_or_default();
        Ok(answer.starts_with("HTTP/1.1 200"))
    })
    .unwrap();
    assert!(answer.contains("X-Client: 10.77.0.50:"), "{answer}");

    let tcp = TcpProbe::start(client, (VIP, ECHO_PORT).into(), 20).unwrap();
    let from = Instant::now();
    wait_until(SOON, "lines", || Ok(tcp.figures(from).survived == 20)).unwrap();
    let even = [("web1".to_owned(), 10), ("web2".to_owned(), 10)];
    assert_eq!(tcp.backends(), even, "leastconn");

    let udp = UdpProbe::start(client, (VIP, ECHO_PORT).into()).unwrap();
    wait_until(SOON, "UDP through the proxy", || Ok(100 * MS < udp.well_for())).unwrap();
}

#[test]
fn a_proxied_vip_serves_again_on_its_new_owner() {
    let test = "a_proxied_vip_serves_again_on_its_new_owner";
    let services = SERVICES.replace("\nbackends", "\nmode = \"proxy\"\nbackends");
    let Some(mut cluster) = cluster(test, 3, &format!("{LOCAL}{services}")) else { return };
    let figures = cluster.session().trial(Fault::PowerOff, |_, _| {}).unwrap().unwrap();
    assert!(figures.to.is_some(), "{figures:?}");
    assert!(figures.outage < 2000 * MS, "{figures:?}");
}
