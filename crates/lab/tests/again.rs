//! Clients that come again, datagrams that name their server, and connections of who is down: each in all three
//! engines, with real agents.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::BackendOrderRequest;
use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use buoy_lab::segment::ECHO_PORT;
use buoy_lab::topology::Topology;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use support::servers::Servers;
use support::{Cluster, LEASE, LOCAL, MS, SOON, VIP, prepared_on};

const HERE: Ipv4Addr = buoy_lab::topology::ipv4(50);
/// Other addresses of the client, from this one on.
const THERE: Ipv4Addr = buoy_lab::topology::ipv4(150);
const OTHERS: u8 = 60;
/// The VIP of XDP: the backends have it, so nobody else may answer for it.
const FAST: Ipv4Addr = buoy_lab::topology::ipv4(101);
/// Ports of the services, by engine. Where packets keep their port, it is that of the servers.
const LINES: [(u16, &str); 3] =
    [(1007, "mode = \"kernel\""), (3007, "mode = \"proxy\""), (ECHO_PORT, "forward = \"dsr\"")];

/// The VIP of a port, and its name.
const fn vip(port: u16) -> (Ipv4Addr, &'static str) {
    if port == ECHO_PORT { (FAST, "fast") } else { (VIP, "web") }
}

fn service(port: u16, protocol: &str, ids: [&str; 2], lines: &str) -> String {
    let to = if port == ECHO_PORT { "" } else { ":7" };
    format!(
        "[[vip.service]]\nport = \"{port}/{protocol}\"\n{lines}\n\
         backends = [\"web1 10.77.0.21{to}{}\", \"web2 10.77.0.22{to}{}\"]\n",
        ids[0], ids[1]
    )
}

/// One agent, and a client with two addresses. The last service is that of XDP.
fn cluster(test: &str, services: &[String]) -> Option<(Cluster, Servers)> {
    let (fast, slow) = services.split_last()?;
    let head = "[[vip]]\nname = \"fast\"\naddress = \"10.77.0.101/24\"\n";
    let vips = format!("{LOCAL}{}{head}{fast}", slow.concat());
    let mut cluster = prepared_on(test, Topology::with_nodes(1), LEASE, &vips)?;
    cluster.segment.suit_xdp().unwrap();
    let client = cluster.segment.inside("client").unwrap();
    for number in 150..150 + OTHERS {
        let address = buoy_lab::topology::ipv4(number);
        client.ip(&format!("address add {address}/24 dev eth0")).unwrap();
    }
    let servers = Servers::behind(&cluster, &[FAST.into()], "dsr");
    cluster.buoy.start_all(&cluster.segment).unwrap();
    Some((cluster, servers))
}

fn order(cluster: &Cluster, service: &str, backend: &str, verb: &str) {
    let request = BackendOrderRequest { reason: None, for_ms: None, weight: None };
    let client = cluster.buoy.client(cluster.buoy.nodes().remove(0)).unwrap();
    client.order_backend((service, backend), verb, &request).unwrap();
}

/// Says a line, and hears who answers.
fn who(stream: &mut TcpStream) -> io::Result<&'static str> {
    stream.write_all(b"who\n")?;
    let mut answer = [0; 64];
    match stream.read(&mut answer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(named(&answer[..length])),
    }
}

fn named(answer: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(answer);
    ["web1", "web2"].into_iter().find(|name| text.contains(name)).unwrap()
}

fn connect(cluster: &Cluster, from: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let open = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect_timeout(&SocketAddr::from((vip(port).0, port)).into(), 500 * MS)?;
        Ok::<_, io::Error>(TcpStream::from(socket))
    };
    let stream = cluster.segment.inside("client").unwrap().enter(open).unwrap()?;
    stream.set_read_timeout(Some(SOON))?;
    Ok(stream)
}

fn ask(cluster: &Cluster, from: Ipv4Addr, port: u16) -> io::Result<&'static str> {
    who(&mut connect(cluster, from, port)?)
}

fn wait_answered(cluster: &Cluster) {
    for (port, _) in LINES {
        wait_until(2 * SOON, "an answer", || Ok(ask(cluster, HERE, port).is_ok())).unwrap();
    }
}

#[test]
fn a_client_gets_the_backend_it_had_and_stays_there_while_that_one_is_drained() {
    let test = "a_client_gets_the_backend_it_had_and_stays_there_while_that_one_is_drained";
    let lines = "persist_timeout = \"10m\"\ncheck = false";
    let services =
        LINES.map(|(port, engine)| service(port, "tcp", ["", ""], &format!("{engine}\n{lines}")));
    let Some((cluster, _servers)) = cluster(test, &services) else { return };
    wait_answered(&cluster);
    let mut strangers = (150..150 + OTHERS).map(buoy_lab::topology::ipv4);
    for (port, engine) in LINES {
        let had = ask(&cluster, HERE, port).unwrap();
        let other = if had == "web1" { "web2" } else { "web1" };
        let name = format!("{}:{port}", vip(port).1);
        order(&cluster, &name, had, "drain");
        // Each time another one: who has come before the order is known by now.
        let goes = || {
            std::thread::sleep(300 * MS);
            strangers.next().is_some_and(|from| ask(&cluster, from, port).unwrap() == other)
        };
        assert!(std::iter::repeat_with(goes).take(15).any(|goes| goes), "{engine}");
        for _ in 0..5 {
            assert_eq!(ask(&cluster, HERE, port).unwrap(), had, "{engine}");
        }
        order(&cluster, &name, had, "disable");
        wait_until(SOON, "who is disabled to be left", || {
            Ok(ask(&cluster, HERE, port).is_ok_and(|by| by == other))
        })
        .unwrap();
        order(&cluster, &name, had, "enable");
        std::thread::sleep(300 * MS);
        for _ in 0..5 {
            assert_eq!(ask(&cluster, HERE, port).unwrap(), other, "{engine}: it has another now");
        }
    }
}

fn tell(cluster: &Cluster, from: Ipv4Addr, port: u16, data: &[u8]) -> io::Result<&'static str> {
    let ask = || {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect((vip(port).0, port))?;
        socket.set_read_timeout(Some(500 * MS))?;
        socket.send(data)?;
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer)?;
        Ok(named(&answer[..length]))
    };
    cluster.segment.inside("client").unwrap().enter(ask).unwrap()
}

#[test]
fn a_client_of_quic_that_changes_its_address_reaches_the_same_server() {
    let test = "a_client_of_quic_that_changes_its_address_reaches_the_same_server";
    let services = LINES.map(|(port, engine)| {
        let lines = format!("{engine}\nquic = 3\ncheck = false");
        service(port, "udp", [" id=0a01", " id=0a02"], &lines)
    });
    let Some((cluster, _servers)) = cluster(test, &services) else { return };
    for (port, engine) in LINES {
        wait_until(2 * SOON, "a datagram", || Ok(tell(&cluster, HERE, port, b"\xc0").is_ok()))
            .unwrap();
        for n in 0..4 {
            for (id, server) in [(1, "web1"), (2, "web2")] {
                let data = [0x41, 0x60 | n, 0x0a, id, 9, 9, 9, 9];
                for from in [HERE, THERE] {
                    assert_eq!(tell(&cluster, from, port, &data).unwrap(), server, "{engine}");
                }
            }
        }
    }
}

#[test]
fn connections_of_who_is_down_are_reset_or_stay_as_the_file_says() {
    let test = "connections_of_who_is_down_are_reset_or_stay_as_the_file_says";
    let check =
        "check = { http = \"GET /health\", port = 80, every = \"200ms\", fall = 1, rise = 1 }";
    // XDP has one word here, and the other one is tried packet by packet.
    let [kernel, proxy, xdp] = LINES;
    let services = [
        (kernel, 0, "reset"),
        (kernel, 10, "keep"),
        (proxy, 0, "reset"),
        (proxy, 10, "keep"),
        (xdp, 0, "keep"),
    ];
    let file = services.map(|((port, engine), above, word)| {
        let lines = format!("{engine}\non_down = \"{word}\"\n{check}");
        service(port + above, "tcp", ["", ""], &lines)
    });
    let Some((mut cluster, _servers)) = cluster(test, &file) else { return };
    wait_answered(&cluster);
    let mut open = Vec::new();
    for ((port, engine), above, word) in services {
        // Until one is at the backend that will be down.
        let at_web1 = || {
            let mut stream = connect(&cluster, HERE, port + above)?;
            Ok::<_, io::Error>((who(&mut stream)? == "web1").then_some(stream))
        };
        let stream = (0..100).find_map(|_| at_web1().ok().flatten()).unwrap();
        open.push((stream, word == "keep", format!("{engine} {word}")));
    }
    cluster.segment.backend("web1").unwrap().set_healthy(false);
    for ((port, _), above, _) in services {
        wait_until(SOON, "web2 alone", || {
            let is_web2 = |_| ask(&cluster, HERE, port + above).is_ok_and(|by| by == "web2");
            Ok((0..10).all(is_web2))
        })
        .unwrap();
    }
    for (stream, keeps, what) in &mut open {
        if *keeps {
            assert_eq!(who(stream).unwrap(), "web1", "{what}");
        } else {
            // It is cut beside the change of who gets new ones, and may come a moment later.
            let mut said = None;
            wait_until(SOON, "its reset", || {
                said = who(stream).err();
                Ok(said.is_some())
            })
            .unwrap();
            let kind = said.map(|error| error.kind());
            assert_eq!(kind, Some(io::ErrorKind::ConnectionReset), "{what}");
        }
    }
    // A backend that was down for a moment has lost no connection.
    cluster.segment.backend("web1").unwrap().set_healthy(true);
    for ((port, _), above, _) in services {
        let found = || Ok(ask(&cluster, HERE, port + above).is_ok_and(|by| by == "web1"));
        wait_until(SOON, "web1 to be back", found).unwrap();
    }
    for (stream, _, what) in open.iter_mut().filter(|(_, keeps, _)| *keeps) {
        assert_eq!(who(stream).unwrap(), "web1", "{what}");
    }
}
