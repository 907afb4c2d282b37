//! A flood of SYNs in mode "xdp": connections that are open go on where they are, also while slots change hands.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what is wrong")]

mod support;

use buoy_api::BackendOrderRequest;
use buoy_lab::probe::tcp::TcpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::ECHO_PORT;
use buoy_lab::topology::Topology;
use buoy_wire::answer::segment;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;
use support::servers::{Servers, XDP, wait_forwarded};
use support::{Cluster, LEASE, LOCAL, MS, SOON, VIP, prepared_on};

/// Connections that are open from the beginning to the end.
const LINES: usize = 40;
/// SYNs of one wave, each from an address and port of its own.
const SYNS: u32 = 40_000;
/// Sent without a pause.
const BURST: u32 = 200;

/// Clients that nobody answers: 198.18.0.0/15 is for tests (RFC 2544), and the segment has no way there.
fn client_of(number: u32) -> SocketAddr {
    let [_, high, low, _] = (number << 1).to_be_bytes();
    (Ipv4Addr::new(198, 18 | high & 1, low, 1), 1024 + (number % 50_000) as u16).into()
}

/// Opens so many connections and answers nothing.
fn flood(cluster: &Cluster, from: u32) {
    let client = cluster.segment.inside("client").unwrap();
    let run = || {
        /// IPPROTO_RAW: what is sent has its IP header.
        const RAW: i32 = 255;
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW))).unwrap();
        let vip = SocketAddr::from((VIP, ECHO_PORT));
        for number in from..from + SYNS {
            let syn = segment::question(client_of(number), vip, number);
            socket.send_to(&syn, &SockAddr::from(vip)).unwrap();
            if number % BURST == 0 {
                std::thread::sleep(MS);
            }
        }
    };
    client.enter(run).unwrap();
}

/// Connections that n1 has seen being opened, by all backends.
fn opened(cluster: &Cluster) -> u64 {
    let status = cluster.buoy.client("n1").unwrap().status().unwrap();
    let backends = status.vips.iter().flat_map(|v| &v.services).flat_map(|s| &s.backends);
    backends.filter_map(|backend| backend.traffic).map(|traffic| traffic.connections).sum()
}

fn cluster(test: &str, forward: &str) -> Option<(Cluster, Servers)> {
    let service = format!(
        "[[vip.service]]\nport = \"7/tcp\"\nforward = \"{forward}\"\nbackends = [\"web1 10.77.0.21\", \"web2 10.77.0.22\"]\n"
    );
    let vips = format!("{LOCAL}{service}");
    let mut cluster = prepared_on(test, Topology::with_nodes(1), LEASE, &vips)?;
    cluster.segment.suit_xdp().unwrap();
    let servers = Servers::behind(&cluster, &[VIP.into()], forward);
    cluster.buoy.start_all(&cluster.segment).unwrap();
    wait_forwarded(&cluster, XDP);
    Some((cluster, servers))
}

/// What the table says of a flow decides, so a flood has nothing to push out; and where a slot changes hands, what is
/// remembered of new flows takes no place from old ones.
fn stands(test: &str, forward: &str) {
    let Some((cluster, _servers)) = cluster(test, forward) else { return };
    let client = cluster.segment.inside("client").unwrap();
    let lines = TcpProbe::start(client, (VIP, ECHO_PORT).into(), LINES).unwrap();
    let from = Instant::now();
    let all_answer = |since: Instant, what: &str| {
        wait_until(2 * SOON, what, || Ok(lines.figures(since).survived == LINES)).unwrap();
        assert_eq!(lines.figures(from).broken, 0, "{what}");
    };
    all_answer(from, "lines");
    let with_whom = lines.backends();
    assert_eq!(with_whom.len(), 2, "{with_whom:?}");
    let before = opened(&cluster);
    flood(&cluster, 0);
    all_answer(Instant::now(), "lines after a flood");
    // All slots of web2 go to web1 now: connections that are open stay, and each SYN is remembered, if there is room.
    let order =
        BackendOrderRequest { reason: Some("a test".to_owned()), for_ms: None, weight: None };
    let api = cluster.buoy.client("n1").unwrap();
    api.order_backend(("web:7", "web2"), "drain", &order).unwrap();
    let is_drained = |status: &buoy_api::ClusterStatus| {
        let mut backends =
            status.vips.iter().flat_map(|v| &v.services).flat_map(|s| s.backends.iter());
        backends.any(|backend| backend.name == "web2" && backend.state == "drain")
    };
    cluster.buoy.wait_status("n1", SOON, "web2 shown as drain", is_drained).unwrap();
    flood(&cluster, SYNS);
    all_answer(Instant::now(), "lines after a flood in a change");
    assert_eq!(lines.backends(), with_whom, "who was with whom");
    // The flood was one: its packets did not get lost before.
    wait_until(2 * SOON, "the counts", || Ok(before + u64::from(SYNS) < opened(&cluster))).unwrap();
    let slowest = lines.figures(from).slowest;
    eprintln!("{forward}: {} SYNs, slowest answer {slowest:?}", opened(&cluster) - before);
}

#[test]
fn connections_by_dsr_go_on_in_a_flood_of_syns() {
    stands("connections_by_dsr_go_on_in_a_flood_of_syns", "dsr");
}

#[test]
fn connections_by_tunnel_go_on_in_a_flood_of_syns() {
    stands("connections_by_tunnel_go_on_in_a_flood_of_syns", "tunnel");
}
