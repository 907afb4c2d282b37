//! Services that are not there for everybody: the same lists, clients and answers in all three engines.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::backend::Backend;
use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use buoy_lab::segment::ECHO_PORT;
use buoy_lab::topology::{Topology, ipv6};
use socket2::{Domain, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;
use support::{Cluster, LEASE, MS, SOON, VIP, config_head, prepared_on};

const VIPS: &str = "[[vip]]\nname = \"web\"\naddress = [\"10.77.0.100/24\", \"fd77::100/64\"]\n";
/// Two of each family on one host.
const CLIENTS: [&str; 4] = ["10.77.0.50", "10.77.0.150", "fd77::50", "fd77::150"];
/// Longer than any answer takes here.
const NO_ANSWER: Duration = Duration::from_millis(500);

/// Lines of the service, which of the clients it is there for, and whether the connection that the first of
/// them has from before goes on in kernel and XDP.
type Case = (&'static str, [bool; 4], bool);

const CASES: [Case; 6] = [
    ("", [true; 4], true),
    ("allow = [\"10.77.0.50\", \"fd77::50\"]", [true, false, true, false], true),
    ("deny = [\"10.77.0.0/25\", \"fd77::/120\"]", [false, true, false, true], false),
    ("allow = \"10.77.0.0/24\"\ndeny = \"10.77.0.128/25\"", [true, false, false, false], true),
    (
        "allow = [\"fd77::/64\"]\ndeny = [\"fd77::100/120\", \"10.77.0.50\"]",
        [false, false, true, false],
        false,
    ),
    ("allow = [\"::/0\", \"10.77.0.0/26\"]", [true, false, true, true], true),
];

fn vips(engine: &str, lines: &str) -> String {
    let (mode, port) = match engine {
        "xdp" => ("forward = \"dsr\"".to_owned(), String::new()),
        mode => (format!("mode = \"{mode}\""), format!(":{ECHO_PORT}")),
    };
    let backends = ["10.77.0.21", "10.77.0.22", "fd77::21", "fd77::22"].map(|address| {
        match (address.contains(':'), port.is_empty()) {
            (true, false) => format!("\"[{address}]{port}\""),
            (true, true) | (false, _) => format!("\"{address}{port}\""),
        }
    });
    format!(
        "{VIPS}[[vip.service]]\nport = [\"7/tcp\", \"7/udp\"]\n{mode}\nbackends = [{}]\n{lines}\n",
        backends.join(", ")
    )
}

fn cluster(test: &str, engine: &str) -> Option<(Cluster, Vec<Backend>)> {
    let mut cluster = prepared_on(test, Topology::with_nodes(3), LEASE, &vips(engine, ""))?;
    let mut servers = Vec::new();
    if engine == "xdp" {
        cluster.segment.suit_xdp().unwrap();
        for name in ["web1", "web2"] {
            let inside = cluster.segment.inside(name).unwrap();
            inside.sysctl("ipv4.conf.all.arp_ignore", "1").unwrap();
            inside.sysctl("ipv4.conf.all.arp_announce", "2").unwrap();
            inside.ip(&format!("addr add {VIP}/32 dev lo")).unwrap();
            inside.ip(&format!("addr add {}/128 dev lo nodad", ipv6(100))).unwrap();
            let at = [VIP.into(), ipv6(100).into()];
            servers.push(Backend::start_at(inside, name, &at).unwrap());
        }
    }
    let client = cluster.segment.inside("client").unwrap();
    client.ip("addr add 10.77.0.150/24 dev eth0").unwrap();
    client.ip("addr add fd77::150/64 dev eth0 nodad").unwrap();
    cluster.buoy.start_all(&cluster.segment).unwrap();
    for node in cluster.buoy.nodes() {
        cluster.wait_owned(node);
    }
    Some((cluster, servers))
}

/// A socket of the client's address that knows the service.
fn socket(from: &str, kind: Type) -> io::Result<Socket> {
    let from: IpAddr = from.parse().unwrap();
    let to: IpAddr = if from.is_ipv4() { VIP.into() } else { ipv6(100).into() };
    let socket = Socket::new(Domain::for_address(SocketAddr::new(from, 0)), kind, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&SocketAddr::new(to, ECHO_PORT).into(), NO_ANSWER)?;
    socket.set_read_timeout(Some(NO_ANSWER))?;
    Ok(socket)
}

/// Whether the service answers this client.
fn answers(cluster: &Cluster, from: &str, kind: Type) -> bool {
    let client = cluster.segment.inside("client").unwrap();
    let ask = || -> io::Result<usize> {
        let mut socket = socket(from, kind)?;
        socket.write_all(b"who\n")?;
        socket.read(&mut [0; 64])
    };
    client.enter(ask).unwrap().is_ok_and(|length| length != 0)
}

/// Whether this word comes back on an open connection, after what may have been on its way.
fn echoes(stream: &mut TcpStream, word: &str) -> bool {
    let (mut said, mut buffer) = (String::new(), [0; 64]);
    if stream.write_all(format!("{word}\n").as_bytes()).is_err() {
        return false;
    }
    while !said.contains(word) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return false,
            Ok(length) => said += &String::from_utf8_lossy(&buffer[..length]),
        }
    }
    true
}

fn every_case(test: &str, engine: &str) {
    let Some((mut cluster, _servers)) = cluster(test, engine) else { return };
    let client = cluster.segment.inside("client").unwrap();
    let mut open: Option<TcpStream> = None;
    for (n, (lines, there_for, goes_on)) in CASES.into_iter().enumerate() {
        let word = format!("word-{n}");
        let head = config_head(&cluster.segment.topology);
        for node in cluster.buoy.nodes() {
            cluster.buoy.write_config(node, &format!("{head}{}", vips(engine, lines))).unwrap();
            cluster.buoy.reload(node).unwrap();
        }
        for kind in [Type::STREAM, Type::DGRAM] {
            let mut is = [false; 4];
            let said = format!("{engine} {kind:?}: {there_for:?} of {lines}");
            wait_until(2 * SOON, &said, || {
                is = CLIENTS.map(|from| answers(&cluster, from, kind));
                Ok(is == there_for)
            })
            .unwrap();
        }
        let stream = open.get_or_insert_with(|| {
            client.enter(|| socket(CLIENTS[0], Type::STREAM)).unwrap().unwrap().into()
        });
        if goes_on || engine == "proxy" {
            // What was on its way while it was refused is sent again by and by.
            stream.set_read_timeout(Some(SOON)).unwrap();
            assert!(echoes(stream, &word), "{engine}: {lines}");
        } else {
            stream.set_read_timeout(Some(NO_ANSWER)).unwrap();
            assert!(!echoes(stream, &word), "{engine}: {lines}");
        }
    }
    let counter = match engine {
        "kernel" => "forward_denied",
        "proxy" => "proxy_denied",
        _ => "xdp_dropped_source",
    };
    wait_until(SOON, counter, || {
        let denied = |node: &&str| {
            let status = cluster.buoy.status(node);
            status.is_ok_and(|status| status.loop_.counters.get(counter).is_some_and(|n| *n > 0))
        };
        std::thread::sleep(50 * MS);
        Ok(cluster.buoy.nodes().iter().any(denied))
    })
    .unwrap();
}

#[test]
fn nftables_refuses_whom_the_lists_refuse() {
    every_case("nftables_refuses_whom_the_lists_refuse", "kernel");
}

#[test]
fn the_proxy_refuses_whom_the_lists_refuse() {
    every_case("the_proxy_refuses_whom_the_lists_refuse", "proxy");
}

#[test]
fn xdp_refuses_whom_the_lists_refuse() {
    every_case("xdp_refuses_whom_the_lists_refuse", "xdp");
}
