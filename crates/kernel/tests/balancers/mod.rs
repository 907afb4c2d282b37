//! Two balancers, two backends and a client on one switch: what the tests of `kernel::nft` begin with.

// Each file of tests uses a part of it, and a failed `unwrap` is a failed test.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::print_stderr)]

use crate::talk::{Connection, greet_and_echo, ip};
use buoy_kernel::nft::{self, Forward, Spread};
use buoy_model::{Ports, Protocol, SourceAddress};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(10);
pub const HOSTS: [(&str, u8); 5] = [("client", 1), ("a", 11), ("b", 12), ("s1", 21), ("s2", 22)];

#[derive(Clone, Copy, Debug)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn address(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => format!("10.9.0.{host}").parse().unwrap(),
            Self::V6 => format!("fd00:9::{host}").parse().unwrap(),
        }
    }

    pub fn vip(self) -> IpAddr {
        self.address(100)
    }
}

/// Below the ports that the kernel gives away, and above those of the services.
const FIRST_PORT: u16 = 20000;

/// Five hosts on a switch. Gone when dropped.
pub struct Lab {
    run: String,
    /// The port of the next UDP socket.
    port: AtomicU16,
    /// What was applied last.
    applied: Mutex<Option<Vec<Forward>>>,
}

impl Lab {
    /// `None`, and a line that says why, where namespaces or nft are missing.
    pub fn new(test: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let run = format!("buoy-{}-{count}", std::process::id());
        let lab = Self { run, port: AtomicU16::new(FIRST_PORT), applied: Mutex::default() };
        if let Err(reason) = lab.build() {
            eprintln!("SKIPPED: {test}: {reason}");
            return None;
        }
        Some(lab)
    }

    pub fn build(&self) -> Result<(), String> {
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
        self.inside("a", || nft::apply(&[], None).map_err(|e| e.to_string()))?;
        let found = Command::new("nft").arg("--version").stdout(Stdio::null()).status();
        found.map(|_| ()).map_err(|_| "no nft on this host".into())
    }

    pub fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.run)
    }

    /// Runs `work` in a thread that lives in the host's namespace; sockets made there stay there.
    pub fn inside<T: Send>(&self, host: &str, work: impl FnOnce() -> T + Send) -> T {
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
    pub fn own(&self, owner: &str) {
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

    /// Both balancers get the same rules: one by what has changed, and one by what it finds.
    pub fn apply(&self, forwards: &[Forward]) {
        let before = self.applied.lock().unwrap().replace(forwards.to_vec());
        for (balancer, before) in [("a", before.as_deref()), ("b", None)] {
            self.inside(balancer, || {
                nft::enable_forwarding(true, true).unwrap();
                nft::apply(forwards, before).unwrap();
                nft::enable_pickup().unwrap();
            });
        }
    }

    /// Servers that greet with their name and the peer they see, and then echo.
    pub fn serve(&self) {
        for (server, number) in [("s1", 21), ("s2", 22)] {
            for family in [Family::V4, Family::V6] {
                self.serve_at(server, SocketAddr::new(family.address(number), 8080));
            }
        }
    }

    /// The same of one address of a server.
    pub fn serve_at(&self, server: &'static str, at: SocketAddr) {
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

    pub fn connect(&self, from: &str, to: SocketAddr) -> std::io::Result<Connection> {
        let stream = self.inside(from, || TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut connection = Connection { stream, server: String::new(), peer: String::new() };
        let line = connection.line()?;
        let (server, peer) = line.split_once(' ').unwrap();
        (connection.server, connection.peer) = (server.into(), peer.into());
        Ok(connection)
    }

    /// A UDP socket that speaks with one service, from a port that no socket of this lab had before:
    /// conntrack gives a port that comes again the backend that its flow had.
    pub fn socket(&self, from: &str, to: SocketAddr) -> std::io::Result<UdpSocket> {
        let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
        let own = self.port.fetch_add(1, Ordering::Relaxed);
        let socket = self.inside(from, || UdpSocket::bind((any, own)))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        Ok(socket)
    }

    /// One question over UDP from a port of its own: who answered, and whom did it see?
    pub fn ask(&self, from: &str, to: SocketAddr) -> std::io::Result<(String, String)> {
        answer(&self.socket(from, to)?)
    }
}

pub fn answer(socket: &UdpSocket) -> std::io::Result<(String, String)> {
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

pub fn forward(
    family: Family,
    protocol: Protocol,
    spread: fn(Vec<SocketAddr>) -> Spread,
) -> Forward {
    let backends = vec![backend(family, 21), backend(family, 22)];
    Forward {
        vip: family.vip(),
        ports: Ports::one(80),
        within: vec![],
        protocol,
        source: SourceAddress::Vip,
        sources: Arc::default(),
        new_connections: None,
        spread: spread(backends.clone()),
        stick: None,
        standing: vec![],
        quic: None,
        backends,
        relays: vec![],
        link: "eth0".into(),
    }
}

/// By hash, one slot for each.
pub fn hash(backends: Vec<SocketAddr>) -> Spread {
    Spread::Hash(backends.into())
}

/// In turns, one for each.
pub fn turns(backends: Vec<SocketAddr>) -> Spread {
    Spread::Turns(backends.into())
}

pub fn backend(family: Family, host: u8) -> SocketAddr {
    SocketAddr::new(family.address(host), 8080)
}

/// The same service in both families and over both protocols.
pub fn everywhere(spread: fn(Vec<SocketAddr>) -> Spread) -> Vec<Forward> {
    let mut all = Vec::new();
    for family in [Family::V4, Family::V6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            all.push(forward(family, protocol, spread));
        }
    }
    all
}

pub fn service(family: Family) -> SocketAddr {
    SocketAddr::new(family.vip(), 80)
}
