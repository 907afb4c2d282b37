//! Whose packets the fast path of a real agent drops, and why, is told wherever somebody may look for it.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::ServiceView;
use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use buoy_lab::topology::Topology;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use support::servers::{XDP, wait_forwarded};
use support::{Cluster, LEASE, LOCAL, SOON, VIP, prepared_on};

/// A backend that nobody is, and a client that may not ask.
const SERVICE: &str = "[[vip.service]]\nport = \"7/udp\"\nforward = \"dsr\"\ndeny = \"10.77.0.150\"\n\
                       backends = [\"web1 10.77.0.21\", \"gone 10.77.0.99\"]\n";

fn service(cluster: &Cluster) -> Option<ServiceView> {
    let status = cluster.buoy.status("n1").ok()?;
    status.vips.into_iter().flat_map(|vip| vip.services).next()
}

/// So many datagrams, each of another flow.
fn ask(cluster: &Cluster, from: [u8; 4], count: usize) {
    let ask = move || {
        for _ in 0..count {
            let socket = UdpSocket::bind(SocketAddr::from((from, 0))).unwrap();
            let _ = socket.send_to(b"who\n", (VIP, 7));
        }
    };
    cluster.segment.inside("client").unwrap().enter(ask).unwrap();
}

fn buoy(cluster: &Cluster, words: &[&str]) -> String {
    let mut command = Command::new(cluster.buoy.program());
    command.args(words).arg("--socket").arg(cluster.buoy.socket("n1"));
    let inside = cluster.segment.inside("n1").unwrap();
    String::from_utf8(inside.enter(|| command.output()).unwrap().unwrap().stdout).unwrap()
}

fn metrics(cluster: &Cluster) -> String {
    let get = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((VIP, 9120))?;
        stream.set_read_timeout(Some(SOON))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    cluster.segment.inside("client").unwrap().enter(get).unwrap().unwrap()
}

#[test]
fn what_is_dropped_is_told_of_the_service_and_of_the_backend_also_after_a_kill() {
    let test = "what_is_dropped_is_told_of_the_service_and_of_the_backend_also_after_a_kill";
    let top = format!("{LEASE}metrics = \"0.0.0.0:9120\"\n");
    let vips = format!("{LOCAL}{SERVICE}");
    let Some(mut cluster) = prepared_on(test, Topology::with_nodes(1), &top, &vips) else { return };
    cluster.segment.suit_xdp().unwrap();
    let client = cluster.segment.inside("client").unwrap();
    client.ip("addr add 10.77.0.150/24 dev eth0").unwrap();
    cluster.buoy.start_all(&cluster.segment).unwrap();
    wait_forwarded(&cluster, XDP);
    assert!(service(&cluster).unwrap().dropped.is_empty());

    let dropped = |cluster: &Cluster, reason: &str| {
        service(cluster).and_then(|s| s.dropped.get(reason).copied()).unwrap_or_default()
    };
    // The neighbour that there is may not be known yet, so nobody counts how many are dropped first.
    wait_until(2 * SOON, "drops", || {
        ask(&cluster, [10, 77, 0, 50], 20);
        ask(&cluster, [10, 77, 0, 150], 5);
        Ok(dropped(&cluster, "no_neighbour") > 20 && dropped(&cluster, "source") > 20)
    })
    .unwrap();
    let seen = service(&cluster).unwrap();
    assert_eq!(
        seen.dropped.keys().map(String::as_str).collect::<Vec<_>>(),
        ["no_neighbour", "source"]
    );
    let gone = seen.backends.iter().find(|b| b.name == "gone").unwrap();
    assert!(gone.dropped["no_neighbour"] > 10, "{seen:?}");
    assert_eq!(gone.dropped.len(), 1, "whom the list keeps out had no backend: {seen:?}");
    let of_backends = seen.backends.iter().filter_map(|b| b.dropped.get("no_neighbour"));
    assert_eq!(of_backends.sum::<u64>(), seen.dropped["no_neighbour"], "{seen:?}");

    let said = buoy(&cluster, &["service", "show", "web:7/udp"]);
    assert!(said.contains("dropped   here: no neighbour "), "{said}");
    assert!(said.contains(", source ") && said.contains("of those, for gone: no nei"), "{said}");
    let said = buoy(&cluster, &["backend", "ls"]);
    let count = gone.dropped["no_neighbour"].to_string();
    let line = said.lines().find(|line| line.contains(" gone ")).unwrap();
    assert!(line.split_whitespace().any(|word| word == count), "{count} is not in {said}");
    let page = metrics(&cluster);
    for (name, count) in [
        ("service_dropped_total{reason=\"source\"", seen.dropped["source"]),
        (
            "backend_dropped_total{backend=\"gone\",reason=\"no_neighbour\"",
            gone.dropped["no_neighbour"],
        ),
    ] {
        let line = format!("buoy_{name},service=\"web:7/udp\"}} {count}");
        assert!(page.lines().any(|has| has == line), "{line} is not in\n{page}");
    }

    // The programs have the counts, and they go on whatever becomes of the agent.
    cluster.buoy.process("n1").unwrap().signal(Signal::SIGKILL).unwrap();
    cluster.buoy.process("n1").unwrap().wait_end(SOON).unwrap();
    ask(&cluster, [10, 77, 0, 150], 7);
    let inside = cluster.buoy.launch(&cluster.segment, "n1");
    inside.unwrap();
    cluster.buoy.wait_answer("n1").unwrap();
    wait_until(2 * SOON, "the counts again", || {
        Ok(service(&cluster).is_some_and(|s| s.dropped.contains_key("source")))
    })
    .unwrap();
    let again = service(&cluster).unwrap();
    assert!(again.dropped["no_neighbour"] >= seen.dropped["no_neighbour"], "{again:?}");
    assert!(again.dropped["source"] >= seen.dropped["source"], "{again:?}");
}
