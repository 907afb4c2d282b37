//! Services of mode "xdp" with real agents: every way of forwarding, and what outlives an agent.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::ServiceView;
use buoy_kernel::fast::{Capture, HOLD};
use buoy_lab::fault::Fault;
use buoy_lab::peer::Peer;
use buoy_lab::probe::http::HttpProbe;
use buoy_lab::probe::tcp::TcpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::ECHO_PORT;
use buoy_lab::topology::Topology;
use buoy_lab::trial::CONNECTIONS;
use nix::net::if_::{Interface, if_nameindex};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket,
};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use support::servers::{Servers, XDP, wait_forwarded};
use support::{Cluster, LEASE, LOCAL, MS, SOON, VIP, prepared_on, wait_for};

const CLIENT: Ipv4Addr = buoy_lab::topology::ipv4(50);
const BACKENDS: [&str; 2] = ["web1", "web2"];

/// The services of most tests, by XDP; "gue" is a tunnel in UDP.
fn services(forward: &str) -> String {
    let forward = match forward {
        "gue" => "tunnel\"\nencapsulation = \"gue:9886",
        other => other,
    };
    let at = |port: u16| match forward {
        "nat" => format!("[\"web1 10.77.0.21:{port}\", \"web2 10.77.0.22:{port}\"]"),
        _ => "[\"web1 10.77.0.21\", \"web2 10.77.0.22\"]".to_owned(),
    };
    let service = |(port, protocol): (u16, &str)| {
        format!(
            "[[vip.service]]\nport = \"{port}/{protocol}\"\nforward = \"{forward}\"\nbackends = {}\n",
            at(port)
        )
    };
    [(80, "tcp"), (7, "tcp"), (7, "udp")].map(service).concat()
}

/// Three agents that run, backends that are prepared for this way of forwarding, and their servers.
fn cluster(test: &str, forward: &str) -> Option<(Cluster, Servers)> {
    forwarded_by(test, forward, XDP)
}

/// The same by any engine. Where it is not XDP, another program has its place on the interfaces of the nodes.
fn forwarded_by(test: &str, forward: &str, engine: &str) -> Option<(Cluster, Servers)> {
    let vips = format!("{LOCAL}{}", services(forward));
    let mut cluster = prepared_on(test, Topology::with_nodes(3), LEASE, &vips)?;
    cluster.segment.suit_xdp().unwrap();
    let mut servers = Servers::behind(&cluster, &[VIP.into()], forward);
    if !engine.starts_with("XDP") {
        for node in cluster.buoy.nodes() {
            servers.prepare(&cluster, node, &["10.77.0.222"], "tunnel");
        }
    }
    cluster.buoy.start_all(&cluster.segment).unwrap();
    wait_forwarded(&cluster, engine);
    Some((cluster, servers))
}

fn survive(test: &str, forward: &str, fault: Fault) {
    let Some((mut cluster, _servers)) = cluster(test, forward) else { return };
    let figures = cluster.session().trial(fault, |_, _| {}).unwrap().unwrap();
    assert!(figures.to.is_some(), "{figures:?}");
    assert!(figures.breaks.is_empty(), "{figures:?}");
    assert_eq!((figures.survived, figures.connections), (CONNECTIONS, CONNECTIONS), "{figures:?}");
    assert_eq!(figures.two_answerers, Duration::ZERO, "{figures:?}");
    assert!(figures.requests.sent > 20, "{figures:?}");
    // A backend sees who asks.
    assert!(figures.requests.clients.iter().all(|c| c.starts_with("10.77.0.50")), "{figures:?}");
    assert_eq!(figures.requests.by.len(), 2, "{figures:?}");
}

/// In the zone of its owner, in each mode; those by XDP are open while another node gets the VIP.
#[test]
fn connections_go_to_the_owners_neighbours_and_those_that_are_open_outlive_it() {
    let test = "connections_go_to_the_owners_neighbours_and_those_that_are_open_outlive_it";
    let service = |(port, to, lines): (u16, u16, &str)| {
        format!(
            "[[vip.service]]\nport = \"{port}/tcp\"\nlocality = \"zone\"\n{lines}\n\
             backends = [\"web1 10.77.0.21:{to} zone=a\", \"web2 10.77.0.22:{to} zone=b\"]\n\
             check = {{ tcp = true, every = \"100ms\", fall = 1, rise = 1 }}\n"
        )
    };
    let ways = [(7, 7, "forward = \"nat\""), (80, 80, ""), (8080, 80, "mode = \"proxy\"")];
    let vips = format!("{LOCAL}nodes = [\"n1\", \"n2\"]\n{}", ways.map(service).concat());
    let top = format!("{LEASE}zones = {{ n1 = \"a\", n2 = \"b\", n3 = \"b\" }}\n");
    let Some(mut cluster) = prepared_on(test, Topology::with_nodes(3), &top, &vips) else { return };
    cluster.segment.suit_xdp().unwrap();
    for name in BACKENDS {
        let inside = cluster.segment.inside(name).unwrap();
        inside.ip(&format!("route add 10.77.0.50/32 via {VIP}")).unwrap();
    }
    cluster.buoy.start_all(&cluster.segment).unwrap();
    for node in ["n1", "n2"] {
        cluster.wait_owned(node);
        let by_xdp = |service: &ServiceView| service.engine == XDP;
        wait_until(2 * SOON, "XDP forwarding", || {
            let status = cluster.buoy.client(node).unwrap().status();
            Ok(status.is_ok_and(|s| s.vips.iter().flat_map(|v| &v.services).any(by_xdp)))
        })
        .unwrap();
    }
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let (near, far) = if owner == "n1" { ("web1", "web2") } else { ("web2", "web1") };
    let client = cluster.segment.inside("client").unwrap();
    let probes =
        [80, 8080].map(|port| HttpProbe::start(client, (VIP, port).into(), 5 * MS).unwrap());
    let only = |name: &str| {
        for http in &probes {
            wait_for(http, &format!("{name} alone"), |f| f.by.keys().eq([name]) && f.lost == 0);
        }
    };
    only(near);
    cluster.segment.backend(near).unwrap().set_listening(false);
    only(far);
    cluster.segment.backend(near).unwrap().set_listening(true);
    only(near);
    let status = cluster.buoy.status(&owner).unwrap();
    let resting = status.vips[0].services[0].backends.iter().find(|b| b.name == far).unwrap();
    assert!(resting.reason.contains(&format!("near to {owner}")), "{}", resting.reason);
    let client = cluster.segment.inside("client").unwrap();
    let tcp = TcpProbe::start(client, (VIP, ECHO_PORT).into(), 40).unwrap();
    // Their slots have had another backend, so the next owner has to be told of each of them.
    let told = Instant::now() + Duration::from_secs(1);
    wait_until(SOON, "lines", || Ok(tcp.figures(told).survived == 40)).unwrap();
    assert_eq!(tcp.alive_at(near), 40, "{:?}", tcp.backends());

    Fault::PowerOff.inject(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
    cluster.wait_other(&observer, VIP, &owner);
    only(far);
    let moved = Instant::now();
    wait_until(SOON, "lines again", || Ok(tcp.figures(moved).survived == 40)).unwrap();
    assert_eq!(tcp.alive_at(near), 40, "{:?}", tcp.backends());
    let client = cluster.segment.inside("client").unwrap();
    let new = TcpProbe::start(client, (VIP, ECHO_PORT).into(), 10).unwrap();
    wait_until(SOON, "new lines", || Ok(new.alive_at(far) == 10)).unwrap();
}

#[test]
fn connections_by_dsr_outlive_their_owner() {
    survive("connections_by_dsr_outlive_their_owner", "dsr", Fault::PowerOff);
}

#[test]
fn connections_by_nat_outlive_their_owner() {
    survive("connections_by_nat_outlive_their_owner", "nat", Fault::PowerOff);
}

/// The hash that each node shows of the table of its first service, sorted and without doubles.
fn tables(cluster: &Cluster) -> Vec<Option<String>> {
    let shown = |node| {
        let status = cluster.buoy.client(node).unwrap().status().unwrap();
        status.vips[0].services[0].table.clone()
    };
    let mut all: Vec<_> = cluster.buoy.nodes().into_iter().map(shown).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Waits until all nodes show the same hash, and a right one.
fn one_table(cluster: &Cluster, what: &str, is_it: &dyn Fn(&str) -> bool) -> String {
    let mut seen = String::new();
    wait_until(2 * SOON, what, || {
        let [Some(table)] = &tables(cluster)[..] else { return Ok(false) };
        seen.clone_from(table);
        Ok(is_it(&seen))
    })
    .unwrap();
    seen
}

#[test]
fn all_nodes_have_one_table_whoever_is_up() {
    let test = "all_nodes_have_one_table_whoever_is_up";
    let Some((mut cluster, _servers)) = cluster(test, "dsr") else { return };
    let first = one_table(&cluster, "one table", &|table| !table.is_empty());
    cluster.segment.backend(BACKENDS[0]).unwrap().set_listening(false);
    let second = one_table(&cluster, "another one, on all nodes", &|table| table != first);
    cluster.segment.backend(BACKENDS[0]).unwrap().set_listening(true);
    one_table(&cluster, "the first one again", &|table| table == first);
    assert_ne!(first, second);
}

/// What another program keeps XDP from, nftables forwards: new connections get to both backends, which see
/// who asks, and a drain of the owner breaks none.
fn stand_in(test: &str, forward: &str) {
    let instead = forwarded_by(test, forward, "nftables in place of XDP");
    let Some((mut cluster, _servers)) = instead else { return };
    let figures = cluster.session().trial(Fault::Drain, |_, _| {}).unwrap().unwrap();
    assert!(figures.to.is_some(), "{figures:?}");
    assert_eq!((figures.survived, figures.connections), (CONNECTIONS, CONNECTIONS), "{figures:?}");
    assert!(figures.requests.clients.iter().all(|c| c.starts_with("10.77.0.50")), "{figures:?}");
    assert_eq!(figures.requests.by.len(), 2, "{figures:?}");
}

#[test]
fn nftables_sends_directly_where_xdp_cannot() {
    stand_in("nftables_sends_directly_where_xdp_cannot", "dsr");
}

#[test]
fn nftables_translates_where_xdp_cannot() {
    stand_in("nftables_translates_where_xdp_cannot", "nat");
}

#[test]
fn connections_by_tunnel_outlive_their_owner() {
    survive("connections_by_tunnel_outlive_their_owner", "tunnel", Fault::PowerOff);
}

#[test]
fn connections_by_gue_outlive_their_owner() {
    survive("connections_by_gue_outlive_their_owner", "gue", Fault::PowerOff);
}

#[test]
fn a_tunnel_in_udp_is_said_to_be_one() {
    let test = "a_tunnel_in_udp_is_said_to_be_one";
    let Some((cluster, _servers)) = cluster(test, "gue") else { return };
    let (done, said) = buoy(&cluster, "n1", &["path", "10.77.0.50:41000", "10.77.0.100:7"]);
    let answer = answerer(&cluster, 41_000);
    let (name, address) = if answer.contains("web1") {
        ("web1", "10.77.0.21:9886")
    } else {
        ("web2", "10.77.0.22:9886")
    };
    assert!(done && said.contains(&format!("goes to {name}")), "{answer}: {said}");
    assert!(said.contains(&format!("in a UDP packet (GUE) to {address}")), "{said}");
}

#[test]
fn a_planned_move_of_a_dsr_service_loses_no_request() {
    let test = "a_planned_move_of_a_dsr_service_loses_no_request";
    let Some((mut cluster, _servers)) = cluster(test, "dsr") else { return };
    let figures = cluster.session().trial(Fault::Drain, |_, _| {}).unwrap().unwrap();
    assert_eq!(figures.requests.lost, 0, "{figures:?}");
    assert_eq!((figures.survived, figures.connections), (CONNECTIONS, CONNECTIONS), "{figures:?}");
}

/// Whether only the agent is killed or its supervisor with it, another node has the VIP so soon, and sends each packet
/// to the same backend, that nothing breaks. That the programs go on meanwhile is not seen here: it passes too where XDP
/// is detached right after the agent's death (tried by hand).
#[test]
fn an_agent_that_is_killed_breaks_no_connection_by_dsr() {
    let test = "an_agent_that_is_killed_breaks_no_connection_by_dsr";
    for fault in [Fault::Crash, Fault::Kill] {
        survive(test, "dsr", fault);
    }
}

/// Who answers a connection from this port of the client.
fn answerer(cluster: &Cluster, port: u16) -> String {
    let client = cluster.segment.inside("client").unwrap();
    let ask = || -> std::io::Result<String> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((CLIENT, port)).into())?;
        socket.connect_timeout(&SocketAddr::from((VIP, ECHO_PORT)).into(), SOON)?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"who\n")?;
        let mut answer = [0; 64];
        let length = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    client.enter(ask).unwrap().unwrap()
}

fn buoy(cluster: &Cluster, node: &str, words: &[&str]) -> (bool, String) {
    let socket = cluster.buoy.socket(node);
    let mut command = Command::new(cluster.buoy.program());
    command.args(words).arg("--socket").arg(socket);
    let output = cluster.segment.inside(node).unwrap().enter(|| command.output()).unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn is_attached(cluster: &Cluster, node: &str) -> bool {
    cluster.segment.inside(node).unwrap().ip("link show dev eth0").unwrap().contains("xdp")
}

#[test]
fn every_node_says_where_a_packet_goes_and_there_it_goes() {
    let test = "every_node_says_where_a_packet_goes_and_there_it_goes";
    let Some((mut cluster, _servers)) = cluster(test, "dsr") else { return };
    let nodes = cluster.buoy.nodes();
    for port in 41_000..41_006 {
        let says = |node: &str| {
            let client = cluster.buoy.client(node).unwrap();
            let (from, to) = ((CLIENT, port).into(), (VIP, ECHO_PORT).into());
            let way = client.path(from, to, "tcp").unwrap().ways.remove(0);
            assert_eq!((way.of.as_str(), way.verdict.as_str()), ("any connection", "sent"));
            way.backend.unwrap()
        };
        let said: Vec<String> = nodes.iter().map(|node| says(node)).collect();
        assert!(said.iter().all(|name| *name == said[0]), "{said:?}");
        let answer = answerer(&cluster, port);
        assert!(answer.contains(&said[0]), "{answer} and not {}", said[0]);
    }
    let (done, said) = buoy(&cluster, "n1", &["path", "10.77.0.50", "10.77.0.100:80"]);
    assert!(done && said.contains("any connection goes to web"), "{said}");
    let (done, said) = buoy(&cluster, "n1", &["path", "10.77.0.50", "10.77.0.100:22"]);
    assert!(done && said.contains("no service has this address and port"), "{said}");
    let (_, said) = buoy(&cluster, "n1", &["doctor"]);
    assert!(said.contains(&format!("{XDP} forwards web 80/tcp, web 7/tcp, web 7/udp")), "{said}");

    // A file without such services takes the programs away, and so does an order after the end.
    let head = support::config_head(&cluster.segment.topology);
    cluster.buoy.write_config("n1", &format!("{head}{LOCAL}")).unwrap();
    cluster.buoy.reload("n1").unwrap();
    wait_until(SOON, "n1 to be without programs", || Ok(!is_attached(&cluster, "n1"))).unwrap();
    let (done, said) = buoy(&cluster, "n2", &["xdp", "detach"]);
    assert!(!done && said.contains("stop it first"), "{said}");
    let end = cluster.buoy.process("n2").unwrap();
    end.signal(Signal::SIGTERM).unwrap();
    end.wait_end(SOON).unwrap();
    assert!(is_attached(&cluster, "n2"), "a restart drops no packet");
    let (done, said) = buoy(&cluster, "n2", &["xdp", "detach"]);
    assert!(done && said.contains("gone from this host: the XDP programs"), "{said}");
    wait_until(SOON, "n2 to be without programs", || Ok(!is_attached(&cluster, "n2"))).unwrap();
    let (done, said) = buoy(&cluster, "n2", &["xdp", "detach"]);
    assert!(done && said.contains("nothing of Buoy"), "{said}");
}

/// A command that prints packets, and what it has printed so far.
struct Watching {
    command: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn start(cluster: &Cluster, node: &str, words: &[&str]) -> Self {
        let mut command = Command::new(cluster.buoy.program());
        command.arg("capture").args(words).args(["--seconds", "60", "-o", "json", "--socket"]);
        command.arg(cluster.buoy.socket(node)).stdout(Stdio::piped());
        let inside = cluster.segment.inside(node).unwrap();
        let mut command = inside.enter(|| command.spawn()).unwrap().unwrap();
        let output = BufReader::new(command.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        wait_until(SOON, "the capture to begin", || {
            Ok(inside.enter(Capture::is_on).unwrap() == Ok(true))
        })
        .unwrap();
        Self { command, lines }
    }

    /// The next packet of which this is said.
    fn wait_for(&self, words: &[&str]) -> String {
        loop {
            let line = self.lines.recv_timeout(SOON);
            assert!(line.is_ok(), "no packet with {words:?}");
            let line = line.unwrap();
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
        }
    }
}

#[test]
fn a_capture_shows_where_packets_go_and_ends_with_its_command() {
    let test = "a_capture_shows_where_packets_go_and_ends_with_its_command";
    let Some((mut cluster, _servers)) = cluster(test, "dsr") else { return };
    let client = cluster.segment.inside("client").unwrap();
    client.ip("addr add 10.77.0.150/24 dev eth0").unwrap();
    let head = support::config_head(&cluster.segment.topology);
    let denying =
        services("dsr").replace("[[vip.service]]\n", "[[vip.service]]\ndeny = \"10.77.0.150\"\n");
    for node in cluster.buoy.nodes() {
        cluster.buoy.write_config(node, &format!("{head}{LOCAL}{denying}")).unwrap();
        cluster.buoy.reload(node).unwrap();
    }
    let owner = cluster.buoy.owner("n1", "web").unwrap();
    let inside = cluster.segment.inside(&owner).unwrap();
    let is_on = || inside.enter(Capture::is_on).unwrap().unwrap();
    assert!(!is_on());
    let mut watching = Watching::start(&cluster, &owner, &["10.77.0.100:7"]);
    let answer = answerer(&cluster, 41_100);
    let line = watching.wait_for(&["10.77.0.50:41100", "SYN", "\"sent\"", "dsr to web"]);
    assert!(line.contains("\"interface\":\"eth0\",") && line.contains("\"by\":\"eth0\""), "{line}");
    let said = line.split("dsr to ").nth(1).unwrap();
    assert!(answer.contains(&said[..4]), "{answer} and not as in {line}");
    // What nobody else can say: that it came, and why nothing came of it.
    let ask = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.bind(&SocketAddr::from(([10, 77, 0, 150], 0)).into()).unwrap();
        let to = SocketAddr::from((VIP, ECHO_PORT));
        // The list is in force a moment after it was read.
        for _ in 0..50 {
            socket.send_to(b"who\n", &to.into()).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    client.enter(ask).unwrap();
    watching.wait_for(&["10.77.0.150:", "\"dropped\"", "do not let this client in", "buoy reload"]);
    let (done, said) = buoy(&cluster, &owner, &["capture"]);
    assert!(!done && said.contains("another `buoy capture` runs"), "{said}");
    // Killed, it cannot take anything back; the kernel does.
    watching.command.kill().unwrap();
    watching.command.wait().unwrap();
    wait_until(3 * HOLD, "the capture to end", || {
        client.enter(ask).unwrap();
        Ok(!is_on())
    })
    .unwrap();
    // An agent that has ended leaves its programs, and what they do can be seen.
    let mac = cluster.segment.inside(&owner).unwrap().ip("-brief link show dev eth0").unwrap();
    let mac = mac.split_whitespace().nth(2).unwrap().to_owned();
    client.ip(&format!("neigh replace {VIP} lladdr {mac} dev eth0 nud permanent")).unwrap();
    let agent = cluster.buoy.process(&owner).unwrap();
    agent.signal(Signal::SIGTERM).unwrap();
    agent.wait_end(SOON).unwrap();
    let mut watching = Watching::start(&cluster, &owner, &["--reason", "source", "--count", "1"]);
    let client = cluster.segment.inside("client").unwrap();
    client.enter(ask).unwrap();
    let line = watching.wait_for(&["10.77.0.150:"]);
    assert!(line.contains("\"dropped\""), "{line}");
    assert!(watching.command.wait().unwrap().success());
    assert_eq!(cluster.segment.inside(&owner).unwrap().enter(Capture::is_on).unwrap(), Ok(false));
}

/// Where the switch saw a packet of one connection: at the port of which host, and whether it came from there or went there.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Sight {
    port: String,
    is_from: bool,
    /// Sender and destination of each IP header, the outermost first.
    headers: Vec<(Ipv4Addr, Ipv4Addr)>,
}

/// Sees all frames at all ports of the switch, where nothing of a host can hide or invent any.
struct SwitchEye {
    socket: OwnedFd,
    ports: BTreeMap<usize, String>,
}

impl SwitchEye {
    fn open(cluster: &Cluster) -> Self {
        let open = || {
            let (kind, all) = (SockType::Raw, SockProtocol::EthAll);
            let socket = socket(AddressFamily::Packet, kind, SockFlag::SOCK_NONBLOCK, all);
            let name =
                |i: &Interface| (i.index() as usize, i.name().to_string_lossy().into_owned());
            let ports = if_nameindex().unwrap().iter().map(name).collect();
            Self { socket: socket.unwrap(), ports }
        };
        cluster.segment.switch.namespace().enter(open).unwrap()
    }

    /// What was seen until now with this port number of TCP in it.
    fn sights(&self, port: u16) -> Vec<Sight> {
        const OUTGOING: u8 = 4; // PACKET_OUTGOING: the switch sends it to the host at this port
        let (mut sights, mut buffer) = (Vec::new(), [0; 2048]);
        while let Ok((length, from)) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
            let from = from.unwrap();
            let Some(headers) = headers(&buffer[..length], port) else { continue };
            let name = self.ports[&from.ifindex()].clone();
            sights.push(Sight { port: name, is_from: from.pkttype() != OUTGOING, headers });
        }
        sights
    }
}

/// The IPv4 headers of a frame, if a TCP header with this port is in it.
fn headers(frame: &[u8], port: u16) -> Option<Vec<(Ipv4Addr, Ipv4Addr)>> {
    if frame.get(12..14)? != [8, 0] {
        return None;
    }
    let (mut headers, mut at) = (Vec::new(), 14);
    loop {
        let ip = frame.get(at..at + 20)?;
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
        headers.push((address(12), address(16)));
        at += 20;
        match ip[9] {
            4 => {}
            6 => break,
            _ => return None,
        }
    }
    let ports = frame.get(at..at + 4)?;
    ports.chunks(2).any(|two| two == port.to_be_bytes()).then_some(headers)
}

/// The frames at the switch show by which hosts a request and its answer go.
fn prove_path(test: &str, forward: &str) {
    let Some((cluster, _servers)) = cluster(test, forward) else { return };
    let owner = cluster.buoy.owner("n1", "web").unwrap();
    let address = |name: &str| buoy_lab::topology::ipv4(cluster.segment.host(name).unwrap().number);
    let ours = address(&owner);
    for port in [41_200, 41_201, 41_202, 41_203] {
        let eye = SwitchEye::open(&cluster);
        let answer = answerer(&cluster, port);
        let name = BACKENDS.into_iter().find(|name| answer.contains(name)).unwrap();
        let sights = eye.sights(port);
        let server = address(name);
        let is_at = |port: &str, is_from: bool, headers: &[(Ipv4Addr, Ipv4Addr)]| {
            let wanted = Sight { port: port.to_owned(), is_from, headers: headers.to_vec() };
            sights.contains(&wanted)
        };
        let request = match forward {
            "dsr" => vec![(CLIENT, VIP)],
            "tunnel" => vec![(ours, server), (CLIENT, VIP)],
            _ => vec![(CLIENT, server)],
        };
        // There, by the owner in every way.
        assert!(is_at("client", true, &[(CLIENT, VIP)]), "{sights:?}");
        assert!(is_at(&owner, false, &[(CLIENT, VIP)]), "{sights:?}");
        assert!(is_at(&owner, true, &request), "{sights:?}");
        assert!(is_at(name, false, &request), "{sights:?}");
        // And back, from the VIP in every way.
        assert!(is_at("client", false, &[(VIP, CLIENT)]), "{sights:?}");
        let by_owner = sights
            .iter()
            .any(|s| s.port == owner && s.headers.last().is_some_and(|(_, to)| *to == CLIENT));
        if forward == "nat" {
            assert!(is_at(name, true, &[(server, CLIENT)]), "{sights:?}");
            assert!(is_at(&owner, false, &[(server, CLIENT)]), "{sights:?}");
            assert!(is_at(&owner, true, &[(VIP, CLIENT)]), "{sights:?}");
        } else {
            assert!(is_at(name, true, &[(VIP, CLIENT)]), "{sights:?}");
            assert!(!by_owner, "an answer came by the owner: {sights:?}");
        }
    }
}

#[test]
fn frames_prove_that_answers_by_dsr_go_to_the_client_itself() {
    prove_path("frames_prove_that_answers_by_dsr_go_to_the_client_itself", "dsr");
}

#[test]
fn frames_prove_that_answers_by_tunnel_go_to_the_client_itself() {
    prove_path("frames_prove_that_answers_by_tunnel_go_to_the_client_itself", "tunnel");
}

#[test]
fn frames_prove_that_answers_by_nat_come_back_by_the_owner() {
    prove_path("frames_prove_that_answers_by_nat_come_back_by_the_owner", "nat");
}
