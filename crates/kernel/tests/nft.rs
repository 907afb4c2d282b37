//! Proves on a real kernel that forwarding does what `kernel::nft` promises: own namespaces with a
//! client, two balancers and two backends on one switch.

// The whole file is tests: a failed `unwrap` is a failed test, and a skipped test must be seen.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod talk;

use buoy_kernel::conntrack::{self, Flows};
use buoy_kernel::nft::{self, Forward, Spread};
use buoy_model::{Ports, Protocol, SourceAddress};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use talk::{Connection, greet_and_echo, ip};

const PATIENCE: Duration = Duration::from_secs(10);
const HOSTS: [(&str, u8); 5] = [("client", 1), ("a", 11), ("b", 12), ("s1", 21), ("s2", 22)];

#[derive(Clone, Copy, Debug)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn address(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => format!("10.9.0.{host}").parse().unwrap(),
            Self::V6 => format!("fd00:9::{host}").parse().unwrap(),
        }
    }

    fn vip(self) -> IpAddr {
        self.address(100)
    }
}

/// Five hosts on a switch. Gone when dropped.
struct Lab {
    run: String,
}

impl Lab {
    /// `None`, and a line that says why, where namespaces or nft are missing.
    fn new(test: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let lab = Self { run: format!("buoy-{}-{count}", std::process::id()) };
        if let Err(reason) = lab.build() {
            eprintln!("SKIPPED: {test}: {reason}");
            return None;
        }
        Some(lab)
    }

    fn build(&self) -> Result<(), String> {
        ip(&["netns", "add", &self.name("switch")])?;
        ip(&["-n", &self.name("switch"), "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &self.name("switch"), "link", "set", "br0", "up"])?;
        for (host, number) in HOSTS {
            let (switch, name) = (self.name("switch"), self.name(host));
            ip(&["netns", "add", &name])?;
            let peer = format!("p-{host}");
            let (v4, v6) = (format!("10.9.0.{number}/24"), format!("fd00:9::{number}/64"));
            let link =
                ["link", "add", &peer, "type", "veth", "peer", "name", "eth0", "netns", &name];
            ip(&[&["-n", &switch][..], &link[..]].concat())?;
            ip(&["-n", &switch, "link", "set", &peer, "master", "br0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&["-n", &name, "address", "add", &v4, "dev", "eth0"])?;
            ip(&["-n", &name, "address", "add", &v6, "dev", "eth0", "nodad"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        }
        self.inside("a", || nft::apply(&[]).map_err(|e| e.to_string()))?;
        let found = Command::new("nft").arg("--version").stdout(Stdio::null()).status();
        found.map(|_| ()).map_err(|_| "no nft on this host".into())
    }

    fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.run)
    }

    /// Runs `work` in a thread that lives in the host's namespace; sockets made there stay there.
    fn inside<T: Send>(&self, host: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name(host));
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let namespace = std::fs::File::open(path).unwrap();
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// Gives the VIPs to one balancer, as a failover does, and tells the others: after the move, or
    /// a late acknowledgement would ask again while the old owner still answers.
    fn own(&self, owner: &str) {
        let is_balancer = |host: &&str| ["a", "b"].contains(host);
        let hosts = || HOSTS.iter().map(|(host, _)| *host);
        for balancer in hosts().filter(is_balancer) {
            for cidr in ["10.9.0.100/24", "fd00:9::100/64"] {
                let verb: &[&str] = match balancer == owner {
                    true => &["address", "replace", cidr, "dev", "eth0", "nodad"],
                    false => &["address", "del", cidr, "dev", "eth0"],
                };
                // Taking an address from who does not have it fails, and is what we want.
                let _ = ip(&[&["-n", &self.name(balancer)][..], verb].concat());
            }
        }
        for other in hosts().filter(|host| !is_balancer(host)) {
            for address in ["10.9.0.100", "fd00:9::100"] {
                ip(&["-n", &self.name(other), "neigh", "flush", "to", address]).unwrap();
            }
        }
    }

    /// Both balancers get the same rules.
    fn apply(&self, forwards: &[Forward]) {
        for balancer in ["a", "b"] {
            self.inside(balancer, || {
                nft::enable_forwarding(true, true).unwrap();
                nft::apply(forwards).unwrap();
                nft::enable_pickup().unwrap();
            });
        }
    }

    /// Servers that greet with their name and the peer they see, and then echo.
    fn serve(&self) {
        for (server, number) in [("s1", 21), ("s2", 22)] {
            for family in [Family::V4, Family::V6] {
                let at = SocketAddr::new(family.address(number), 8080);
                let tcp = self.inside(server, || TcpListener::bind(at).unwrap());
                let udp = self.inside(server, || UdpSocket::bind(at).unwrap());
                std::thread::spawn(move || {
                    for stream in tcp.incoming().flatten() {
                        std::thread::spawn(move || greet_and_echo(server, stream));
                    }
                });
                std::thread::spawn(move || {
                    let mut buffer = [0; 2048];
                    while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                        let _ = udp.send_to(format!("{server} {}\n", peer.ip()).as_bytes(), peer);
                    }
                });
            }
        }
    }

    fn connect(&self, from: &str, to: SocketAddr) -> std::io::Result<Connection> {
        let stream = self.inside(from, || TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut connection = Connection { stream, server: String::new(), peer: String::new() };
        let line = connection.line()?;
        let (server, peer) = line.split_once(' ').unwrap();
        (connection.server, connection.peer) = (server.into(), peer.into());
        Ok(connection)
    }

    /// A UDP socket that speaks with one service.
    fn socket(&self, from: &str, to: SocketAddr) -> std::io::Result<UdpSocket> {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = self.inside(from, || UdpSocket::bind(any))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        Ok(socket)
    }

    /// One question over UDP from a port of its own: who answered, and whom did it see?
    fn ask(&self, from: &str, to: SocketAddr) -> std::io::Result<(String, String)> {
        answer(&self.socket(from, to)?)
    }
}

fn answer(socket: &UdpSocket) -> std::io::Result<(String, String)> {
    socket.send(b"who?")?;
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..length]).trim().to_owned();
    let (server, peer) = text.split_once(' ').unwrap();
    Ok((server.into(), peer.into()))
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (host, _) in HOSTS.into_iter().chain([("switch", 0)]) {
            let _ = ip(&["netns", "delete", &self.name(host)]);
        }
    }
}

fn forward(family: Family, protocol: Protocol, spread: fn(Vec<SocketAddr>) -> Spread) -> Forward {
    let backends = vec![backend(family, 21), backend(family, 22)];
    Forward {
        vip: family.vip(),
        ports: Ports::one(80),
        within: vec![],
        protocol,
        source: SourceAddress::Vip,
        sources: Arc::default(),
        spread: spread(backends.clone()),
        backends,
        relays: vec![],
        link: "eth0".into(),
    }
}

fn backend(family: Family, host: u8) -> SocketAddr {
    SocketAddr::new(family.address(host), 8080)
}

/// The same service in both families and over both protocols.
fn everywhere(spread: fn(Vec<SocketAddr>) -> Spread) -> Vec<Forward> {
    let mut all = Vec::new();
    for family in [Family::V4, Family::V6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            all.push(forward(family, protocol, spread));
        }
    }
    all
}

fn service(family: Family) -> SocketAddr {
    SocketAddr::new(family.vip(), 80)
}

#[test]
fn every_family_and_protocol_is_forwarded_and_backends_see_the_vip() {
    let Some(lab) = Lab::new("every_family_and_protocol_is_forwarded") else { return };
    lab.serve();
    lab.own("a");
    let forwards = everywhere(Spread::Hash);
    lab.apply(&forwards);
    for family in [Family::V4, Family::V6] {
        let mut connection = lab.connect("client", service(family)).unwrap();
        assert_eq!(connection.peer, family.vip().to_string());
        assert!(connection.echoes("hello").unwrap());
        let (_, peer) = lab.ask("client", service(family)).unwrap();
        assert_eq!(peer, family.vip().to_string(), "udp {family:?}");
    }
    let observed = lab.inside("a", nft::observe).unwrap().unwrap();
    for forward in &forwards {
        let counts = observed.counts(forward);
        assert_eq!(counts.connections, 1, "{forward:?}");
        assert!(0 < counts.packets && 0 < counts.bytes, "{counts:?}");
    }
}

#[test]
fn a_hash_table_gives_each_backend_its_slots() {
    let Some(lab) = Lab::new("a_hash_table_gives_each_backend_its_slots") else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&[forward(Family::V4, Protocol::Udp, |b| {
        Spread::Hash((0..256).map(|i| b[usize::from(i % 4 == 0)]).collect())
    })]);
    let mut got = BTreeMap::<String, u32>::new();
    for _ in 0..400 {
        *got.entry(lab.ask("client", service(Family::V4)).unwrap().0).or_default() += 1;
    }
    // 3 to 1 of 400: 300 to 100, with a standard deviation of 9.
    assert!((55..=145).contains(&got["s2"]), "{got:?}");
    assert_eq!(got["s1"] + got["s2"], 400);
}

#[test]
fn turns_alternate() {
    let Some(lab) = Lab::new("turns_alternate") else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&everywhere(Spread::Turns));
    for family in [Family::V4, Family::V6] {
        let asked: Vec<_> =
            (0..6).map(|_| lab.connect("client", service(family)).unwrap().server).collect();
        for pair in asked.windows(2) {
            assert_ne!(pair[0], pair[1], "{family:?} {asked:?}");
        }
    }
}

#[test]
fn a_connection_goes_on_when_the_vip_moves_to_the_other_balancer() {
    let Some(lab) = Lab::new("a_connection_goes_on_when_the_vip_moves") else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&everywhere(|b| Spread::Hash((0..256).map(|i| b[i % 2]).collect())));
    for family in [Family::V4, Family::V6] {
        lab.own("a");
        let mut open: Vec<_> =
            (0..20).map(|_| lab.connect("client", service(family)).unwrap()).collect();
        for connection in &mut open {
            assert!(connection.echoes("before").unwrap());
        }
        lab.own("b");
        for (i, connection) in open.iter_mut().enumerate() {
            assert!(connection.echoes("after").unwrap(), "{family:?} connection {i}");
        }
        // Far beyond the window that the first owner's conntrack remembers.
        for _ in 0..200 {
            assert!(open[0].echoes(&"long ".repeat(1000)).unwrap());
        }
        lab.own("a");
        for connection in &mut open {
            assert!(connection.echoes("and back").unwrap(), "{family:?}");
        }
    }
}

#[test]
fn a_backend_that_speaks_first_after_a_failover_is_not_reset() {
    let Some(lab) = Lab::new("a_backend_that_speaks_first_after_a_failover") else { return };
    let mut guarded = 0;
    lab.own("a");
    lab.apply(&everywhere(Spread::Hash));
    for family in [Family::V4, Family::V6] {
        lab.own("a");
        let listeners: Vec<_> = [("s1", 21), ("s2", 22)]
            .map(|(server, number)| {
                lab.inside(server, || TcpListener::bind(backend(family, number)).unwrap())
            })
            .into();
        let mut client = lab
            .inside("client", || TcpStream::connect_timeout(&service(family), PATIENCE))
            .unwrap();
        let mut server = accept_any(&listeners);
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        lab.own("b");
        server.write_all(b"news").unwrap();
        let before = guarded;
        wait_for("the guard to drop the answer", || {
            guarded = lab.inside("b", nft::observe).unwrap().unwrap().guarded();
            before < guarded
        });
        assert_eq!(resets(&lab, "b"), 0, "{family:?}");
        assert!(server.take_error().unwrap().is_none(), "{family:?}");
        client.write_all(b"y").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut news = [0; 4];
        client.read_exact(&mut news).unwrap();
        assert_eq!(&news, b"news", "{family:?}");
        server.read_exact(&mut [0]).unwrap();
    }
}

/// Segments that this host's own kernel reset.
fn resets(lab: &Lab, host: &str) -> u64 {
    let text = lab.inside(host, || std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|l| l.starts_with("Tcp:"))
        .map(|l| l.split_whitespace().collect())
        .collect();
    let column = rows[0].iter().position(|c| *c == "OutRsts").unwrap();
    rows[1][column].parse().unwrap()
}

fn accept_any(listeners: &[TcpListener]) -> TcpStream {
    let mut found = None;
    wait_for("a backend to be asked", || {
        found = listeners.iter().find_map(|l| {
            l.set_nonblocking(true).unwrap();
            l.accept().ok()
        });
        found.is_some()
    });
    let (stream, _) = found.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_backend_that_leaves_takes_no_connection_and_breaks_none() {
    let Some(lab) = Lab::new("a_backend_that_leaves_breaks_no_connection") else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&[forward(Family::V4, Protocol::Tcp, Spread::Turns)]);
    let mut open: Vec<_> =
        (0..4).map(|_| lab.connect("client", service(Family::V4)).unwrap()).collect();
    assert!(open.iter().any(|c| c.server == "s1") && open.iter().any(|c| c.server == "s2"));
    lab.apply(&[forward(Family::V4, Protocol::Tcp, |b| Spread::Turns(vec![b[1]]))]);
    for connection in &mut open {
        assert!(connection.echoes("still here").unwrap(), "{}", connection.server);
    }
    for _ in 0..4 {
        assert_eq!(lab.connect("client", service(Family::V4)).unwrap().server, "s2");
    }
}

#[test]
fn a_udp_client_that_keeps_its_port_leaves_a_dead_backend_when_told() {
    let Some(lab) = Lab::new("a_udp_client_that_keeps_its_port_leaves_a_dead_backend") else {
        return;
    };
    lab.serve();
    lab.own("a");
    for family in [Family::V4, Family::V6] {
        let only = |spread: fn(Vec<SocketAddr>) -> Spread| [forward(family, Protocol::Udp, spread)];
        lab.apply(&only(|b| Spread::Turns(vec![b[0]])));
        let client = lab.socket("client", service(family)).unwrap();
        let other = lab.socket("client", service(family)).unwrap();
        assert_eq!(answer(&client).unwrap().0, "s1");
        assert_eq!(answer(&other).unwrap().0, "s1");
        lab.apply(&only(|b| Spread::Turns(vec![b[1]])));
        assert_eq!(answer(&client).unwrap().0, "s1", "conntrack keeps the flow");
        let (service, s1, s2) = (service(family), backend(family, 21), backend(family, 22));
        let flows = |backend| Flows {
            protocol: Protocol::Udp,
            vip: service.ip(),
            ports: Ports::one(service.port()),
            backend,
        };
        let forget = |flows| lab.inside("a", || conntrack::forget(&flows).unwrap());
        assert_eq!(forget(flows(s2)), 0, "nobody is there yet");
        assert_eq!(forget(flows(s1)), 2);
        assert_eq!(answer(&client).unwrap().0, "s2");
        assert_eq!(answer(&other).unwrap().0, "s2");
        assert_eq!(forget(flows(s1)), 0);
    }
}

#[test]
fn a_service_without_backends_refuses_at_once_and_counts_it() {
    let Some(lab) = Lab::new("a_service_without_backends_refuses_at_once") else { return };
    lab.own("a");
    let forwards = everywhere(|_| Spread::Refuse);
    lab.apply(&forwards);
    for family in [Family::V4, Family::V6] {
        let tcp = lab.connect("client", service(family)).err().unwrap();
        assert_eq!(tcp.kind(), ErrorKind::ConnectionRefused, "tcp {family:?}");
        let udp = lab.ask("client", service(family)).err().unwrap();
        assert_eq!(udp.kind(), ErrorKind::ConnectionRefused, "udp {family:?}");
    }
    let observed = lab.inside("a", nft::observe).unwrap().unwrap();
    for forward in &forwards {
        assert_eq!(observed.counts(forward).refused, 1, "{forward:?}");
    }
}

#[test]
fn a_backend_sees_the_client_itself_when_asked_to_and_after_a_failover() {
    let Some(lab) = Lab::new("a_backend_sees_the_client_itself") else { return };
    lab.serve();
    lab.own("a");
    // The condition of `source = "client"`: answers are routed through the VIP's owner.
    for server in ["s1", "s2"] {
        let name = lab.name(server);
        ip(&["-n", &name, "route", "add", "10.9.0.1/32", "via", "10.9.0.100"]).unwrap();
    }
    let mut wanted = forward(Family::V4, Protocol::Tcp, Spread::Hash);
    wanted.source = SourceAddress::Client;
    lab.apply(&[wanted]);
    let mut open: Vec<_> =
        (0..10).map(|_| lab.connect("client", service(Family::V4)).unwrap()).collect();
    for connection in &mut open {
        assert_eq!(connection.peer, "10.9.0.1");
        assert!(connection.echoes("hello").unwrap());
    }
    lab.own("b");
    for connection in &mut open {
        assert!(connection.echoes("after").unwrap());
    }
}

#[test]
fn an_answer_under_way_reaches_its_client_through_the_old_owner() {
    let Some(lab) = Lab::new("an_answer_under_way_reaches_its_client") else { return };
    for family in [Family::V4, Family::V6] {
        lab.own("a");
        lab.apply(&everywhere(Spread::Hash));
        let other = |host| {
            let mut forwards = everywhere(Spread::Hash);
            let is_its = |f: &&mut Forward| f.vip == family.vip();
            forwards.iter_mut().filter(is_its).for_each(|f| f.relays = vec![family.address(host)]);
            forwards
        };
        lab.inside("a", || nft::apply(&other(12)).unwrap());
        lab.inside("b", || nft::apply(&other(11)).unwrap());
        let listeners: Vec<_> = [("s1", 21), ("s2", 22)]
            .map(|(server, number)| {
                lab.inside(server, || TcpListener::bind(backend(family, number)).unwrap())
            })
            .into();
        let mut client = lab
            .inside("client", || TcpStream::connect_timeout(&service(family), PATIENCE))
            .unwrap();
        let mut server = accept_any(&listeners);
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        lab.own("b");
        // The client has nothing to say, so only the old owner knows whose answer this is.
        server.write_all(b"news").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut news = [0; 4];
        client.read_exact(&mut news).unwrap();
        assert_eq!(&news, b"news", "{family:?}");
    }
}

#[test]
fn the_balancers_reach_their_own_services() {
    let Some(lab) = Lab::new("the_balancers_reach_their_own_services") else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&everywhere(Spread::Hash));
    for family in [Family::V4, Family::V6] {
        for balancer in ["a", "b"] {
            let mut connection = lab.connect(balancer, service(family)).unwrap();
            assert!(connection.echoes("hello").unwrap(), "{family:?} {balancer}");
        }
    }
}

#[test]
fn a_backend_that_is_a_client_too_is_served() {
    let Some(lab) = Lab::new("a_backend_that_is_a_client_too_is_served") else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&everywhere(Spread::Turns));
    for family in [Family::V4, Family::V6] {
        for _ in 0..2 {
            assert!(lab.connect("s1", service(family)).unwrap().echoes("hello").unwrap());
        }
    }
}

#[test]
fn counters_outlive_a_change_and_the_last_service_takes_the_table_along() {
    let Some(lab) = Lab::new("counters_outlive_a_change") else { return };
    lab.serve();
    lab.own("a");
    let all = everywhere(Spread::Hash);
    lab.apply(&all);
    lab.ask("client", service(Family::V4)).unwrap();
    let udp = &all[1];
    lab.apply(&all[..2]);
    lab.apply(&all[..2]);
    let observed = lab.inside("a", nft::observe).unwrap().unwrap();
    assert_eq!(observed.counts(udp).connections, 1);
    lab.apply(&[]);
    assert!(lab.inside("a", nft::observe).unwrap().is_none());
    lab.apply(&[]);
}

#[test]
fn a_table_of_another_version_is_replaced() {
    let Some(lab) = Lab::new("a_table_of_another_version_is_replaced") else { return };
    lab.serve();
    lab.own("a");
    lab.inside("a", || {
        let old = "table inet buoy {\nchain guard {\ntype filter hook forward priority 7;\n}\n}";
        let status = Command::new("nft").arg(old).status().unwrap();
        assert!(status.success());
    });
    lab.apply(&everywhere(Spread::Hash));
    assert!(lab.connect("client", service(Family::V4)).is_ok());
}

#[test]
fn forwarding_is_switched_on_once_and_said() {
    let Some(lab) = Lab::new("forwarding_is_switched_on_once_and_said") else { return };
    let (first, second) = lab.inside("a", || {
        // A new namespace may inherit the host's settings.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "0").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_ra", "1").unwrap();
        let first = nft::enable_forwarding(true, true).unwrap();
        let ra = std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/accept_ra").unwrap();
        assert_eq!(ra.trim(), "2", "a router that needs advertisements keeps listening");
        (first, nft::enable_forwarding(true, true).unwrap())
    });
    assert!(first.contains(&"net.ipv4.ip_forward was 0, now 1".to_owned()), "{first:?}");
    assert!(first.contains(&"net.ipv6.conf.all.forwarding was 0, now 1".to_owned()), "{first:?}");
    assert!(second.is_empty(), "{second:?}");
    assert!(lab.inside("a", nft::pickup_problem).is_none());
}

fn range(first: u16, last: u16) -> Ports {
    Ports::new(first, last).unwrap()
}

/// All ports but some, which keep their numbers; a range that moves to another one, where one port is not
/// its own; and one port that nobody is behind.
fn ranges(family: Family, protocol: Protocol) -> Vec<Forward> {
    let at = |ports: Ports, within: &[Ports], port: u16, servers: &[u8]| {
        let backends: Vec<SocketAddr> =
            servers.iter().map(|n| SocketAddr::new(family.address(*n), port)).collect();
        let spread = match backends.as_slice() {
            [] => Spread::Refuse,
            _ => Spread::Hash(backends.clone()),
        };
        let within = within.to_vec();
        Forward { ports, within, spread, backends, ..forward(family, protocol, Spread::Hash) }
    };
    let one = Ports::one;
    vec![
        at(Ports::ALL, &[one(22), range(7000, 7099), one(7080), one(9)], 0, &[21]),
        at(range(7000, 7099), &[one(7080)], 8001, &[22]),
        at(one(22), &[], 8080, &[22]),
        at(one(7080), &[], 8080, &[21]),
        at(one(9), &[], 8080, &[]),
    ]
}

fn all_ranges() -> Vec<Forward> {
    let families = [Family::V4, Family::V6].into_iter();
    let protocols = |family| [(family, Protocol::Tcp), (family, Protocol::Udp)];
    families.flat_map(protocols).flat_map(|(family, protocol)| ranges(family, protocol)).collect()
}

#[test]
fn a_port_stands_against_a_range_and_a_range_against_all_ports() {
    let test = "a_port_stands_against_a_range_and_a_range_against_all_ports";
    let Some(lab) = Lab::new(test) else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&all_ranges());
    // 7079 is 79 above 7000, and 8080 is 79 above 8001.
    let table = [(8080, Some("s1")), (7079, Some("s2")), (22, Some("s2")), (7080, Some("s1"))];
    let table = table.into_iter().chain([(9, None), (8079, None), (7078, None)]);
    for (port, server) in table {
        for family in [Family::V4, Family::V6] {
            let to = SocketAddr::new(family.vip(), port);
            let got = lab.connect("client", to).map(|c| c.server).ok();
            assert_eq!(got.as_deref(), server, "{to} tcp");
            let got = lab.ask("client", to).map(|(server, _)| server).ok();
            assert_eq!(got.as_deref(), server, "{to} udp");
        }
    }
    let observed = lab.inside("a", nft::observe).unwrap().unwrap();
    let refused = |f: &Forward| observed.counts(f).refused > 0;
    for forward in &all_ranges() {
        let counts = observed.counts(forward);
        assert_eq!(forward.spread == Spread::Refuse, refused(forward), "{forward:?}");
        assert!(counts.packets > 0, "{forward:?}");
    }
    // Twice is once, and what is not there any more leaves no counter.
    lab.apply(&all_ranges());
    lab.apply(&ranges(Family::V4, Protocol::Tcp));
    let left = lab.inside("a", nft::observe).unwrap().unwrap();
    let gone = all_ranges().into_iter().skip(5);
    assert!(gone.into_iter().all(|f| left.counts(&f) == nft::Counts::default()));
}

#[test]
fn connections_to_ranges_go_on_when_the_vip_moves_and_backends_may_ask_the_vip() {
    let test = "connections_to_ranges_go_on_when_the_vip_moves";
    let Some(lab) = Lab::new(test) else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&all_ranges());
    for family in [Family::V4, Family::V6] {
        lab.own("a");
        let ports = [8080, 7079, 22, 7080];
        let connect = |port| lab.connect("client", SocketAddr::new(family.vip(), port)).unwrap();
        let mut open: Vec<_> = ports.map(connect).into();
        // A backend that opens a connection from a port of the range is no answer.
        let to = SocketAddr::new(family.vip(), 7079);
        let mut asked = lab.connect("s1", to).unwrap();
        assert!(asked.server == "s2" && asked.echoes("from a backend").unwrap());
        lab.own("b");
        for connection in &mut open {
            assert!(connection.echoes("after").unwrap(), "{family:?} {}", connection.server);
        }
        // It speaks first, and nobody here knows the connection: nothing is reset.
        lab.own("a");
        for connection in &mut open {
            assert!(connection.echoes("and back").unwrap(), "{family:?} {}", connection.server);
        }
    }
}

#[test]
fn udp_flows_of_a_range_are_forgotten_port_by_port() {
    let Some(lab) = Lab::new("udp_flows_of_a_range_are_forgotten") else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&all_ranges());
    for family in [Family::V4, Family::V6] {
        let ask = |port| lab.ask("client", SocketAddr::new(family.vip(), port)).unwrap();
        ask(7079);
        ask(8080);
        let flows = |ports, server, port| Flows {
            protocol: Protocol::Udp,
            vip: family.vip(),
            ports,
            backend: SocketAddr::new(family.address(server), port),
        };
        let forget = |flows: Flows| lab.inside("a", || conntrack::forget(&flows)).unwrap();
        assert_eq!(forget(flows(range(7000, 7079), 22, 8000)), 0, "another distance");
        assert_eq!(forget(flows(range(7000, 7078), 22, 8001)), 0, "another range");
        assert_eq!(forget(flows(range(7000, 7079), 22, 8001)), 1);
        assert_eq!(forget(flows(Ports::ALL, 21, 0)), 1);
    }
}
