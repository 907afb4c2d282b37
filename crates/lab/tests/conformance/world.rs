//! One host that forwards, two backends and a client: what the cases do and ask, whoever forwards.

use crate::engine::{Engine, File, vips};
use crate::support::servers::Servers;
use crate::support::{Cluster, LEASE, SOON, VIP, config_head, prepared_on};
use buoy_lab::backend::Backend;
use buoy_lab::probe::http;
use buoy_lab::process::wait_until;
use buoy_lab::segment::ECHO_PORT;
use buoy_lab::topology::{Topology, ipv6};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// Two addresses of each family, which count as three clients: IPv6 by its subnet.
pub(crate) const CLIENTS: [&str; 4] = ["10.77.0.50", "10.77.0.150", "fd77::50", "fd77::150"];
/// The first of each family.
pub(crate) const BOTH: [&str; 2] = [CLIENTS[0], CLIENTS[2]];
pub(crate) const BACKENDS: [&str; 2] = ["web1", "web2"];
/// The only one.
pub(crate) const NODE: &str = "n1";
/// Longer than an answer takes here, and shorter than until a SYN is sent again.
pub(crate) const NO_ANSWER: Duration = Duration::from_millis(300);

/// What a client hears.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// This backend's name.
    From(String),
    /// A reset, or that nobody is there.
    Refusal,
    /// Nothing.
    Silence,
}

pub(crate) struct World {
    /// Given back before the cluster is gone.
    servers: Servers,
    pub(crate) cluster: Cluster,
    pub(crate) engine: Engine,
}

impl World {
    /// A running agent and backends that suit it.
    pub(crate) fn new(test: &str, engine: Engine) -> Option<Self> {
        let vips = vips(engine, &File::plain());
        let cluster = prepared_on(test, Topology::with_nodes(1), LEASE, &vips)?;
        let mut world = Self { servers: Servers::default(), cluster, engine };
        let client = world.cluster.segment.inside("client").unwrap();
        client.ip("addr add 10.77.0.150/24 dev eth0").unwrap();
        client.ip("addr add fd77::150/64 dev eth0 nodad").unwrap();
        if engine.is_xdp() {
            world.cluster.segment.suit_xdp().unwrap();
            BACKENDS.into_iter().for_each(|name| world.prepare(name));
        }
        world.cluster.buoy.start_all(&world.cluster.segment).unwrap();
        world.cluster.wait_owned(NODE);
        world.wait_engine();
        Some(world)
    }

    /// As an operator prepares a backend for this way of forwarding.
    fn prepare(&mut self, name: &'static str) {
        let inside = self.cluster.segment.inside(name).unwrap();
        let way = match self.engine {
            Engine::Dsr => "dsr",
            Engine::Tunnel => "tunnel",
            Engine::Gue => "gue",
            Engine::Kernel | Engine::Proxy => return,
            Engine::Nat => {
                // Its answers go back through the owner of the VIP.
                for family in ["ipv4", "ipv6"] {
                    inside.sysctl(&format!("{family}.conf.all.accept_redirects"), "0").unwrap();
                    inside.sysctl(&format!("{family}.conf.eth0.accept_redirects"), "0").unwrap();
                }
                for client in CLIENTS {
                    let (via, bits) = if client.contains(':') {
                        (ipv6(100).to_string(), 128)
                    } else {
                        (VIP.to_string(), 32)
                    };
                    inside.ip(&format!("route add {client}/{bits} via {via}")).unwrap();
                }
                return;
            }
        };
        let vips = ["10.77.0.100", &ipv6(100).to_string()];
        self.servers.prepare(&self.cluster, name, &vips, way);
        let at = [VIP.into(), ipv6(100).into()];
        self.servers.running.push(Backend::start_at(inside, name, &at).unwrap());
    }

    fn wait_engine(&self) {
        let shown = self.engine.shown();
        let is = |status: &buoy_api::ClusterStatus| {
            status.vips.iter().flat_map(|vip| &vip.services).all(|s| s.engine == shown)
        };
        self.cluster.buoy.wait_status(NODE, 2 * SOON, shown, is).unwrap();
    }

    /// Another file.
    pub(crate) fn reload(&mut self, file: &File) {
        let head = config_head(&self.cluster.segment.topology);
        let text = format!("{head}{}", vips(self.engine, file));
        self.cluster.buoy.write_config(NODE, &text).unwrap();
        self.cluster.buoy.reload(NODE).unwrap();
    }

    /// Makes the checks of a backend fail, or pass again; what is open there stays open.
    pub(crate) fn set_healthy(&mut self, name: &str, is_healthy: bool) {
        self.cluster.segment.backend(name).unwrap().set_healthy(is_healthy);
    }

    /// A socket of the client's address that knows the port of the VIP; of any port of its own: 0.
    pub(crate) fn socket(
        &self,
        from: (&str, u16),
        to: u16,
        kind: Type,
        patience: Duration,
    ) -> io::Result<TcpStream> {
        let ip: IpAddr = from.0.parse().unwrap();
        let vip: IpAddr = if ip.is_ipv4() { VIP.into() } else { ipv6(100).into() };
        let at = SocketAddr::new(ip, from.1);
        let connect = || {
            let socket = Socket::new(Domain::for_address(at), kind, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&at.into())?;
            socket.connect_timeout(&SocketAddr::new(vip, to).into(), patience)?;
            socket.set_read_timeout(Some(patience))?;
            // A port that is used again does not wait for what may be on its way.
            if kind == Type::STREAM {
                socket.set_linger((from.1 != 0).then_some(Duration::ZERO))?;
            }
            Ok(TcpStream::from(socket))
        };
        self.cluster.segment.inside("client").unwrap().enter(connect).unwrap()
    }

    /// What a client hears from the lines (TCP) or datagrams (UDP) behind a port.
    pub(crate) fn ask_at(
        &self,
        from: (&str, u16),
        to: u16,
        kind: Type,
        patience: Duration,
    ) -> Answer {
        let mut socket = match self.socket(from, to, kind, patience) {
            Ok(socket) => socket,
            Err(error) => return heard(&error),
        };
        if let Err(error) = socket.write_all(b"who\n") {
            return heard(&error);
        }
        let mut bytes = [0; 64];
        match socket.read(&mut bytes) {
            Ok(0) => Answer::Refusal,
            Ok(length) => {
                let said = String::from_utf8_lossy(&bytes[..length]);
                Answer::From(said.replace("who\n", "").trim().to_owned())
            }
            Err(error) => heard(&error),
        }
    }

    /// What a client hears at once, or not at all.
    pub(crate) fn ask(&self, from: &str, kind: Type) -> Answer {
        self.ask_at((from, 0), ECHO_PORT, kind, NO_ANSWER)
    }

    /// Who answers so many connections; all are answered.
    pub(crate) fn answerers(
        &self,
        from: &str,
        kind: Type,
        count: usize,
    ) -> BTreeMap<String, usize> {
        let mut by = BTreeMap::new();
        for n in 0..count {
            match self.ask_at((from, 0), ECHO_PORT, kind, SOON) {
                Answer::From(name) => *by.entry(name).or_default() += 1,
                other @ (Answer::Refusal | Answer::Silence) => {
                    unreachable!("{:?}, {from}, {n} of {count}: {other:?}", self.engine)
                }
            }
        }
        by
    }

    /// Waits until all new connections from both families are answered so, and only so.
    pub(crate) fn wait_all(&self, what: &str, kind: Type, wanted: &[&str]) {
        for from in BOTH {
            let mut seen = Vec::new();
            let waited = wait_until(2 * SOON, what, || {
                seen = (0..16).map(|_| self.ask(from, kind)).collect();
                let is = |answer: &Answer| matches!(answer, Answer::From(name) if wanted.contains(&name.as_str()));
                let has = |name: &&str| seen.contains(&Answer::From((*name).to_owned()));
                Ok(seen.iter().all(is) && wanted.iter().all(has))
            });
            assert!(waited.is_ok(), "{:?}: {what}: {from} {kind:?}: {seen:?}", self.engine);
        }
    }

    /// Waits until clients of both families hear this.
    pub(crate) fn wait_heard(&self, what: &str, from: &[&str], kind: Type, wanted: &Answer) {
        for from in from {
            let mut seen = Answer::Silence;
            let waited = wait_until(2 * SOON, what, || {
                seen = self.ask(from, kind);
                Ok(seen == *wanted)
            });
            assert!(waited.is_ok(), "{:?}: {what}: {from} {kind:?}: {seen:?}", self.engine);
        }
    }

    /// An open connection to each backend, from this client.
    pub(crate) fn open_to_both(&self, from: &str) -> [Open; 2] {
        BACKENDS.map(|name| {
            let mut found = None;
            wait_until(2 * SOON, &format!("a connection to {name}"), || {
                let stream = self.socket((from, 0), ECHO_PORT, Type::STREAM, SOON);
                found = stream.ok().map(Open);
                Ok(found.as_mut().is_some_and(|open| open.says("first").starts_with(name)))
            })
            .unwrap();
            found.unwrap()
        })
    }

    /// Who answers by HTTP, and whom it sees asking.
    pub(crate) fn by_http(&self, vip: IpAddr, port: u16) -> (String, IpAddr) {
        let client = self.cluster.segment.inside("client").unwrap();
        let mut found = None;
        wait_until(SOON, "an answer by HTTP", || {
            let answer = http::get(client, (vip, port).into(), SOON).unwrap_or_default();
            let line =
                |name: &str| answer.lines().find_map(|l| Some(l.strip_prefix(name)?.to_owned()));
            found = line("X-Backend: ").zip(line("X-Client: "));
            Ok(found.is_some())
        })
        .unwrap();
        let (name, seen) = found.unwrap();
        (name, seen.parse::<SocketAddr>().unwrap().ip().to_canonical())
    }
}

/// An established connection.
pub(crate) struct Open(pub(crate) TcpStream);

impl Open {
    /// The answer to a word, which begins with the name of who gives it; nothing: there is none.
    pub(crate) fn says(&mut self, word: &str) -> String {
        let (mut said, mut bytes) = (String::new(), [0; 64]);
        if self.0.write_all(format!("{word}\n").as_bytes()).is_err() {
            return String::new();
        }
        while !said.contains(word) {
            match self.0.read(&mut bytes) {
                Ok(0) | Err(_) => return String::new(),
                Ok(length) => said += &String::from_utf8_lossy(&bytes[..length]),
            }
        }
        said
    }

    /// Whether it goes on, after what may have been on its way.
    pub(crate) fn goes_on(&mut self, word: &str, patience: Duration) -> bool {
        self.0.set_read_timeout(Some(patience)).unwrap();
        !self.says(word).is_empty()
    }
}

fn heard(error: &io::Error) -> Answer {
    let is_silence = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
    if is_silence { Answer::Silence } else { Answer::Refusal }
}
