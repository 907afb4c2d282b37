//! What is balanced behind a VIP: ports, backends, checks.

use crate::check::Check;
use crate::discovery::Discovery;
use crate::fast::Forward;
use crate::flow_fields::FlowFields;
use crate::limits::{
    PROXY_CONNECT_DEFAULT, PROXY_CONNECTIONS_DEFAULT, PROXY_IDLE_TCP_DEFAULT,
    PROXY_QUEUE_TIMEOUT_DEFAULT,
};
use crate::quic::ServerId;
use crate::{Front, Locality, Location, Ports, Rate, Sources};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

/// Ports of a VIP, mostly one, and the backends behind them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// The VIPs of the group that it listens on.
    pub addresses: Vec<IpAddr>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The ports on the VIP. Of two services that have a port, it is that of the smaller range.
    pub ports: Ports,
    /// Which engine forwards.
    pub mode: Mode,
    /// Which backend a new connection gets.
    pub balance: Balance,
    /// Which source address a backend sees; there is a choice where addresses are translated.
    pub source: SourceAddress,
    /// Whether the backend is told who the client is, in `Mode::Proxy`.
    pub send_proxy: SendProxy,
    /// Concurrent connections (or UDP sessions) in `Mode::Proxy`.
    pub connections_max: u32,
    /// A connection without a byte in either direction for so long is closed, in `Mode::Proxy`.
    pub idle_timeout: Duration,
    /// How long a backend may take to accept, in `Mode::Proxy`.
    pub connect_timeout: Duration,
    /// Whom it is there for; one list for all ports and addresses that share it.
    pub sources: Arc<Sources>,
    /// How many new connections one client may open; `None`: any number.
    pub new_connections: Option<Rate>,
    /// How backends are treated over time.
    pub life: BackendLife,
    /// What is heard of a connection before it is given to a backend, in `Mode::Proxy`.
    pub front: Front,
    /// Where the connections go, in the file's order.
    pub backends: Vec<Backend>,
    /// Where more of them are looked for; what was found is among them.
    pub discovered: Vec<Discovery>,
    /// How backends are checked; `None`: always up.
    pub check: Option<Check>,
}

impl Service {
    /// A TCP service of backends that are not checked, as a file has it that says nothing else.
    pub fn new(mode: Mode, addresses: Vec<IpAddr>, ports: Ports, backends: Vec<Backend>) -> Self {
        let (balance, source) = match mode {
            Mode::Kernel => (Balance::Hash(FlowFields::Connection), SourceAddress::Vip),
            Mode::Xdp { flow, .. } => (Balance::Hash(flow), SourceAddress::Client),
            Mode::Proxy => (Balance::RoundRobin, SourceAddress::Vip),
        };
        Self {
            addresses,
            protocol: Protocol::Tcp,
            ports,
            mode,
            balance,
            source,
            send_proxy: SendProxy::Off,
            connections_max: PROXY_CONNECTIONS_DEFAULT,
            idle_timeout: PROXY_IDLE_TCP_DEFAULT,
            connect_timeout: PROXY_CONNECT_DEFAULT,
            sources: Arc::default(),
            new_connections: None,
            life: BackendLife::default(),
            front: Front::default(),
            backends,
            discovered: Vec::new(),
            check: None,
        }
    }
}

/// How backends are treated over time; the queue, slow start and ejection in `Mode::Proxy` only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BackendLife {
    /// Fewer backends than so many are not enough: then backups take their place.
    pub quorum: u16,
    /// Connections that may wait while all backends have their maximum.
    pub queue: u32,
    /// How long each of them waits.
    pub queue_timeout: Duration,
    /// How long a backend that has come up grows into its share; `None`: it has it at once.
    pub slow_start: Option<Duration>,
    /// When a backend is left alone for what connections have seen of it; `None`: never.
    pub eject: Option<Eject>,
    /// For how long which clients still get the backend they had; `None`: as balancing says.
    pub stick: Option<Stick>,
    /// What becomes of connections whose backend fails its check; `None`: see `Service::on_down`.
    pub on_down: Option<OnDown>,
    /// Whether those that are near to the VIP's owner are enough as long as there are `quorum` of them; `None`: all
    /// take part.
    pub locality: Option<Locality>,
}

/// For how long a client that was silent still gets the backend it had, as long as that one is up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stick {
    /// For how long.
    pub timeout: Duration,
    /// What makes clients one.
    pub client: FlowFields,
}

/// What becomes of TCP connections whose backend fails its check. Flows of UDP always get another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnDown {
    /// They stay with it, and end with it or by their own time limits.
    Keep,
    /// Their clients are told.
    Reset,
}

/// When a backend is left alone for what connections have seen of it, whatever its checks say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Eject {
    /// After so many failures in a row.
    pub after: u32,
    /// For so long the first time, and twice as long each time that it did not help.
    pub time: Duration,
}

impl Service {
    /// What becomes of flows whose backend fails its check. Who asks by datagrams would go on asking the dead; a
    /// connection is left alone where it is known one by one, and in `Mode::Xdp`, where keeping it takes the slot a
    /// change of five minutes, only by order.
    pub const fn on_down(&self) -> OnDown {
        match (self.protocol, self.life.on_down, self.mode) {
            (Protocol::Udp, _, _) | (Protocol::Tcp, None, Mode::Xdp { .. }) => OnDown::Reset,
            (Protocol::Tcp, Some(on_down), _) => on_down,
            (Protocol::Tcp, None, Mode::Kernel | Mode::Proxy) => OnDown::Keep,
        }
    }
}

impl Default for BackendLife {
    fn default() -> Self {
        Self {
            quorum: 1,
            queue: 0,
            queue_timeout: PROXY_QUEUE_TIMEOUT_DEFAULT,
            slow_start: None,
            eject: None,
            stick: None,
            on_down: None,
            locality: None,
        }
    }
}

/// One server behind a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backend {
    /// Its name; `address:port` where the file gives none.
    pub name: String,
    /// Where it listens; of a service with many ports, where the first one leads.
    pub address: SocketAddr,
    /// Its share relative to the others; 0 takes no new connections.
    pub weight: u16,
    /// Used only when no other backend is up.
    pub backup: bool,
    /// Concurrent connections that it gets from one port of one host, in `Mode::Proxy`; `None`: any number.
    pub connections_max: Option<u32>,
    /// What connection ids of QUIC call it.
    pub server_id: Option<ServerId>,
    /// Where it is, as the file says it; `None`: on the node that has its address, if one has.
    pub location: Option<Location>,
}

impl Backend {
    /// A backend that shares evenly.
    pub fn new(name: &str, address: SocketAddr) -> Self {
        Self {
            name: name.into(),
            address,
            weight: 1,
            backup: false,
            connections_max: None,
            server_id: None,
            location: None,
        }
    }
}

/// Whether a backend may get new connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BackendState {
    /// Not checked yet: counts as up, so that a restart of the agent empties no service.
    Unknown,
    /// Passed its check.
    Up,
    /// Failed its check.
    Down,
}

/// Transport of a service.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As in `443/tcp`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The engine that forwards a service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// nftables DNAT in the kernel.
    Kernel,
    /// Terminated in userspace.
    Proxy,
    /// In XDP, before the kernel's network stack: by consistent hashing, without a state for each flow.
    Xdp {
        /// How packets get to a backend.
        forward: Forward,
        /// What makes packets one flow.
        flow: FlowFields,
    },
}

/// How a backend is picked for a new connection. Each counts weights.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Balance {
    /// By what makes connections of a client one, the same on every node: connections survive a failover. In
    /// `Mode::Xdp` the only way there is, with the fields of the mode.
    Hash(FlowFields),
    /// The same over the table of Maglev, which has more slots (`Mode::Proxy` only; in `Mode::Xdp` it is `Hash`).
    Maglev(FlowFields),
    /// The same without a table: each backend is ranked for each client (`Mode::Proxy` only).
    Rendezvous(FlowFields),
    /// One after the other, smoothly.
    RoundRobin,
    /// The one with the fewest connections per weight (`Mode::Proxy` only).
    LeastConnections,
    /// The one with the fewest connections per weight once it has the new one (`Mode::Proxy` only).
    ShortestDelay,
    /// Of two by lot, the one with the fewer connections per weight (`Mode::Proxy` only).
    Random,
    /// The first one that has fewer connections than it may have (`Mode::Proxy` only).
    First,
}

impl Balance {
    /// What makes connections of a client one, where that decides.
    pub const fn fields(self) -> Option<FlowFields> {
        match self {
            Self::Hash(fields) | Self::Maglev(fields) | Self::Rendezvous(fields) => Some(fields),
            Self::RoundRobin
            | Self::LeastConnections
            | Self::ShortestDelay
            | Self::Random
            | Self::First => None,
        }
    }
}

/// The source address that a backend sees.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SourceAddress {
    /// The VIP: answers come back to whoever owns it, in any topology.
    Vip,
    /// The client's own: the backends must route their answers through the VIP's owner.
    Client,
    /// One of these, of the VIP's version, which its owner has as well.
    Pool(Arc<[IpAddr]>),
}

impl SourceAddress {
    /// The addresses that a backend sees in place of a client's, behind this VIP; none: the client's own.
    pub fn in_place_of_clients(&self, vip: IpAddr) -> Vec<IpAddr> {
        match self {
            Self::Vip => alloc::vec![vip],
            Self::Client => Vec::new(),
            Self::Pool(list) => {
                list.iter().copied().filter(|ip| ip.is_ipv4() == vip.is_ipv4()).collect()
            }
        }
    }
}

/// The PROXY protocol towards the backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SendProxy {
    /// Nothing is added.
    Off,
    /// Version 1, a line of text.
    V1,
    /// Version 2, binary.
    V2,
}
