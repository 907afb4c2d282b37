//! Ranges of ports, all ports, and what is excepted from them, with real agents and in both engines.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use buoy_lab::topology::Topology;
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use support::{Cluster, LEASE, LOCAL, SOON, VIP, prepared_on};

/// All ports to the first server, with the ports that clients ask; a range to the second one, that moves;
/// one port of that range to the first again; and one that the owner takes itself. Both servers echo on port 7.
fn services(engine: &str) -> String {
    let service = |port: &str, backends: &str, more: &str| {
        format!("[[vip.service]]\nport = {port}\nbackends = [{backends}]\n{engine}\n{more}\n")
    };
    let check = "check = { tcp = true, port = 7 }";
    [
        service("[\"*/tcp\", \"*/udp\"]", "\"web1 10.77.0.21\"", check),
        service("[\"1000-1099/tcp\", \"1000-1099/udp\"]", "\"web2 10.77.0.22:2\"", check),
        service("[\"1006/tcp\", \"1006/udp\"]", "\"other 10.77.0.23:7\"", "check = false"),
        "[[vip.service]]\nport = \"22/tcp\"\nforward = \"local\"\ndeny = \"10.77.0.150\"\n".into(),
    ]
    .concat()
}

/// What answers a line on that port; nothing: nobody does.
fn asked(cluster: &Cluster, from: &str, port: u16, kind: Type) -> String {
    let ask = || -> std::io::Result<String> {
        let wait = Duration::from_millis(500);
        let mut socket = Socket::new(Domain::IPV4, kind, None)?;
        socket.bind(&SocketAddr::new(from.parse().unwrap(), 0).into())?;
        socket.connect_timeout(&SocketAddr::new(VIP.into(), port).into(), wait)?;
        socket.set_read_timeout(Some(wait))?;
        socket.write_all(b"who\n")?;
        let mut buffer = [0; 64];
        let length = socket.read(&mut buffer)?;
        let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
        // A connection begins with the name, a datagram ends with it.
        Ok(said.split_whitespace().find(|word| *word != "who").unwrap_or_default().to_owned())
    };
    let client = cluster.segment.inside("client").unwrap();
    client.enter(ask).unwrap().unwrap_or_default()
}

fn cluster(test: &str, engine: &str) -> Option<Cluster> {
    let vips = format!("{LOCAL}{}", services(engine));
    let mut cluster = prepared_on(test, Topology::with_nodes(2), LEASE, &vips)?;
    cluster.segment.suit_xdp().unwrap();
    for name in ["web1", "web2"] {
        // Answers of translated backends go back through the owner.
        let inside = cluster.segment.inside(name).unwrap();
        for client in ["10.77.0.50", "10.77.0.150"] {
            inside.ip(&format!("route add {client}/32 via {VIP}")).unwrap();
        }
    }
    let client = cluster.segment.inside("client").unwrap();
    client.ip("addr add 10.77.0.150/24 dev eth0").unwrap();
    for node in cluster.buoy.nodes() {
        let name = node.to_owned();
        let inside = cluster.segment.inside(node).unwrap();
        let listener = inside.enter(|| TcpListener::bind("0.0.0.0:22")).unwrap().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.write_all(format!("{name} \n").as_bytes());
            }
        });
    }
    cluster.buoy.start_all(&cluster.segment).unwrap();
    for node in cluster.buoy.nodes() {
        cluster.wait_owned(node);
    }
    Some(cluster)
}

fn every_port(test: &str, engine: &str) {
    let Some(cluster) = cluster(test, engine) else { return };
    // It moves once in the beginning, where the other one has its programs first.
    let owner = || {
        let status = cluster.buoy.client("n1").unwrap().status().unwrap();
        status.vips[0].owner.clone().unwrap_or_default()
    };
    let table = [
        (7, "web1"),
        // 1005 is 5 above 1000, and 7 is 5 above 2.
        (1005, "web2"),
        (1004, ""),
        (1006, ""),
        (1007, ""),
        (5005, ""),
    ];
    for kind in [Type::STREAM, Type::DGRAM] {
        for (port, server) in table {
            let said = format!("{engine} {kind:?} {port}: {server}");
            let get = || Ok(asked(&cluster, "10.77.0.50", port, kind) == server);
            wait_until(2 * SOON, &said, get).unwrap();
        }
    }
    let client = |from| asked(&cluster, from, 22, Type::STREAM);
    wait_until(2 * SOON, "the owner itself", || Ok(client("10.77.0.50") == owner())).unwrap();
    wait_until(2 * SOON, "nobody for who is refused", || Ok(client("10.77.0.150").is_empty()))
        .unwrap();
    let status = cluster.buoy.client(&owner()).unwrap().status().unwrap();
    let ports: Vec<_> = status.vips[0].services.iter().map(|s| s.port.as_str()).collect();
    let wanted =
        ["*/tcp", "*/udp", "1000-1099/tcp", "1000-1099/udp", "1006/tcp", "1006/udp", "22/tcp"];
    assert_eq!(ports, wanted);
    let engines = status.vips[0].services.iter().map(|s| s.engine.as_str());
    let is_xdp = engines.map(|engine| engine.starts_with("XDP")).collect::<Vec<_>>();
    assert_eq!(is_xdp[..6], [!engine.is_empty(); 6]);
    assert!(is_xdp[6]);
}

#[test]
fn xdp_translates_ranges_and_all_ports_but_some() {
    every_port("xdp_translates_ranges_and_all_ports_but_some", "forward = \"nat\"");
}

#[test]
fn nftables_forwards_ranges_and_all_ports_but_some() {
    every_port("nftables_forwards_ranges_and_all_ports_but_some", "");
}
