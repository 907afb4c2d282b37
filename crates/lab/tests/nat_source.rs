//! Backends that do not see their clients: none has a route to them, and all goes through the owner both ways.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::capture::Capture;
use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use buoy_lab::segment::ECHO_PORT;
use buoy_lab::topology::Topology;
use nix::sys::signal::Signal;
use std::io::{self, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::Command;
use support::servers::{XDP, wait_forwarded};
use support::{Cluster, LEASE, MS, SOON, VIP, prepared_on};

const CLIENT: &str = "10.77.0.50";
const BACKENDS: [&str; 2] = ["web1", "web2"];
const VIPS: &str = "[[vip]]\nname = \"web\"\n\
                    address = [\"10.77.0.100/24\", \"10.77.0.101/24\", \"10.77.0.102/24\"]\n";

/// Three agents, and two backends that could not answer a client: they drop what goes to it.
fn cluster(test: &str, lines: &str) -> Option<(Cluster, Vec<Capture>)> {
    let service = "[[vip.service]]\nport = [\"7/tcp\", \"7/udp\"]\n\
                   backends = [\"web1 10.77.0.21:7\", \"web2 10.77.0.22:7\"]\n";
    let vips = format!("{VIPS}{service}{lines}\n");
    let mut cluster = prepared_on(test, Topology::with_nodes(3), LEASE, &vips)?;
    cluster.segment.suit_xdp().unwrap();
    let mut captures = Vec::new();
    for name in BACKENDS {
        let inside = cluster.segment.inside(name).unwrap();
        inside.ip(&format!("route add blackhole {CLIENT}/32")).unwrap();
        let file = cluster.segment.file(&format!("{name}.pcap"));
        captures.push(Capture::start(inside, "eth0", &file).unwrap());
    }
    cluster.buoy.start_all(&cluster.segment).unwrap();
    for node in cluster.buoy.nodes() {
        cluster.wait_owned(node);
    }
    // Services on three addresses, of which the test asks one.
    wait_until(2 * SOON, "an answer", || Ok(connect(&cluster).is_ok())).unwrap();
    Some((cluster, captures))
}

fn connect(cluster: &Cluster) -> io::Result<TcpStream> {
    let client = cluster.segment.inside("client").unwrap();
    let mut stream =
        client.enter(|| TcpStream::connect_timeout(&(VIP, ECHO_PORT).into(), 500 * MS)).unwrap()?;
    stream.set_read_timeout(Some(SOON))?;
    echo(&mut stream)?;
    Ok(stream)
}

/// Says a line, and hears who answers.
fn echo(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"who\n")?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

fn datagrams_come_back(cluster: &Cluster) {
    let client = cluster.segment.inside("client").unwrap();
    let ask = || -> io::Result<usize> {
        let socket = UdpSocket::bind((CLIENT, 0))?;
        socket.connect((VIP, ECHO_PORT))?;
        socket.set_read_timeout(Some(500 * MS))?;
        socket.send(b"who\n")?;
        socket.recv(&mut [0; 64])
    };
    wait_until(SOON, "a datagram", || Ok(client.enter(ask).unwrap().is_ok())).unwrap();
}

/// How many of the frames that a backend saw are so.
fn frames(cluster: &Cluster, name: &str, filter: &str) -> usize {
    let mut command = Command::new("tcpdump");
    command.arg("-nr").arg(cluster.segment.file(&format!("{name}.pcap")));
    let output = command.arg(filter).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().count()
}

/// Opens connections until each backend has had one, and looks at what the backends saw.
fn all_goes_through_the_owner(cluster: &Cluster, captures: Vec<Capture>, seen: &[&str]) {
    for _ in 0..20 {
        connect(cluster).unwrap();
    }
    datagrams_come_back(cluster);
    drop(captures);
    let any = |side: &str| {
        seen.iter().map(|ip| format!("{side} host {ip}")).collect::<Vec<_>>().join(" or ")
    };
    for name in BACKENDS {
        assert_eq!(frames(cluster, name, &format!("ip host {CLIENT}")), 0, "{name}");
        let asked = frames(cluster, name, &format!("tcp dst port 7 and ({})", any("src")));
        let answered = frames(cluster, name, &format!("tcp src port 7 and ({})", any("dst")));
        assert!(asked > 3 && answered > 3, "{name}: {asked}, {answered}");
    }
}

#[test]
fn with_the_vip_as_source_backends_need_no_route_to_clients() {
    let test = "with_the_vip_as_source_backends_need_no_route_to_clients";
    let lines = "forward = \"nat\"\nsource = \"vip\"";
    let Some((cluster, captures)) = cluster(test, lines) else { return };
    wait_forwarded(&cluster, XDP);
    all_goes_through_the_owner(&cluster, captures, &["10.77.0.100"]);
}

#[test]
fn nftables_takes_addresses_of_a_list_as_well() {
    let test = "nftables_takes_addresses_of_a_list_as_well";
    let lines = "mode = \"kernel\"\nsource = [\"10.77.0.101\", \"10.77.0.102\"]";
    let Some((cluster, captures)) = cluster(test, lines) else { return };
    all_goes_through_the_owner(&cluster, captures, &["10.77.0.101", "10.77.0.102"]);
}

#[test]
fn flows_with_a_port_go_on_with_another_owner() {
    let test = "flows_with_a_port_go_on_with_another_owner";
    let lines = "forward = \"nat\"\nsource = [\"10.77.0.101\", \"10.77.0.102\"]";
    let Some((mut cluster, captures)) = cluster(test, lines) else { return };
    wait_forwarded(&cluster, XDP);
    all_goes_through_the_owner(&cluster, captures, &["10.77.0.101", "10.77.0.102"]);
    let owner = cluster.buoy.owner("n1", "web").unwrap();

    let mut stream = connect(&cluster).unwrap();
    let server = echo(&mut stream).unwrap();
    // It is told of within a fraction of a second, on a busy machine later.
    let told = |node: &str| {
        let counters = cluster.buoy.status(node).unwrap().loop_.counters;
        counters.get("flows_learned").copied().unwrap_or(0) >= 20
    };
    let others: Vec<_> = cluster.buoy.nodes().into_iter().filter(|node| *node != owner).collect();
    for node in &others {
        wait_until(SOON, "flows to be told", || Ok(told(node))).unwrap();
    }
    std::thread::sleep(500 * MS);

    let end = cluster.buoy.process(&owner).unwrap();
    end.signal(Signal::SIGTERM).unwrap();
    end.wait_end(SOON).unwrap();
    let other = others[0];
    wait_until(SOON, "another owner", || {
        Ok(cluster.buoy.owner(other, "web").is_some_and(|now| now != owner))
    })
    .unwrap();
    assert_eq!(echo(&mut stream).unwrap(), server);
    wait_until(SOON, "a new connection", || Ok(connect(&cluster).is_ok())).unwrap();
}
