//! Userspace forwarding of TCP and UDP, with the PROXY protocol.
//!
//! One `Proxy` is one port of one VIP. It listens whether or not the address is on this host yet, so
//! that a failover finds it ready. `update` changes settings and backends; what is already
//! connected goes on, whatever happens to its backend in the list. `stop` ends listening, and
//! connections run to their end.
//!
//! Absent on purpose: health (the caller hands over only backends that are up) and names of VIPs.

#![forbid(unsafe_code)]

mod again;
mod bind;
mod counts;
mod front;
pub mod handover;
pub mod header;
mod hello;
mod incoming;
mod limiter;
mod pool;
mod tcp;
mod threads;
mod udp;

pub use bind::StartError;
pub use counts::{BackendCounts, Counts};

use buoy_model::limits::{PROXY_CONNECT_DEFAULT, PROXY_IDLE_TCP_DEFAULT};
use buoy_model::{
    Backend, BackendLife, Balance, Front, Protocol, Rate, SendProxy, ServerName, Service, Sources,
};
use pool::Pool;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// How connections are carried. May change while they are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Which backend a new connection gets.
    pub balance: Balance,
    /// Whether the backend is told who the client is.
    pub send_proxy: SendProxy,
    /// Concurrent connections or UDP sessions.
    pub connections_max: u32,
    /// A connection without a byte in either direction for so long is closed.
    pub idle_timeout: Duration,
    /// How long a backend may take to accept.
    pub connect_timeout: Duration,
    /// Whom it listens to: a connection of somebody else is closed, a datagram is not heard.
    pub sources: Arc<Sources>,
    /// How many connections or UDP sessions one client may open: what is more is refused likewise.
    pub new_connections: Option<Rate>,
    /// How backends are treated over time.
    pub life: BackendLife,
    /// What is heard of a connection before it is given to a backend.
    pub front: Front,
    /// Who takes connections of which server name now; none: all backends are for all.
    pub lanes: Arc<[Lane]>,
}

/// The backends that take connections of one server name now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lane {
    /// `None`: all other names.
    pub name: Option<ServerName>,
    /// Their names.
    pub backends: Vec<String>,
}

impl Settings {
    /// For what is carried to its end without a service.
    pub(crate) fn of_nobody() -> Self {
        Self {
            balance: Balance::RoundRobin,
            send_proxy: SendProxy::Off,
            connections_max: 0,
            idle_timeout: PROXY_IDLE_TCP_DEFAULT,
            connect_timeout: PROXY_CONNECT_DEFAULT,
            sources: Arc::default(),
            new_connections: None,
            life: BackendLife::default(),
            front: Front::default(),
            lanes: Arc::default(),
        }
    }

    /// Whether it matters which server a client asks for.
    pub(crate) fn has_names(&self) -> bool {
        self.lanes.iter().any(|lane| lane.name.is_some())
    }
}

impl From<&Service> for Settings {
    fn from(service: &Service) -> Self {
        Self {
            balance: service.balance,
            send_proxy: service.send_proxy,
            connections_max: service.connections_max,
            idle_timeout: service.idle_timeout,
            connect_timeout: service.connect_timeout,
            sources: Arc::clone(&service.sources),
            new_connections: service.new_connections,
            life: service.life,
            front: service.front.clone(),
            lanes: Arc::default(),
        }
    }
}

/// One listening port and what it carries.
#[derive(Debug)]
pub struct Proxy {
    pool: Arc<Pool>,
    address: SocketAddr,
    listening: Vec<AbortHandle>,
}

impl Proxy {
    /// Listens. To be called inside a tokio runtime.
    pub fn start(
        address: SocketAddr,
        protocol: Protocol,
        settings: Settings,
        backends: &[Backend],
    ) -> Result<Self, StartError> {
        match protocol {
            Protocol::Tcp => Self::start_tcp(address, settings, backends),
            Protocol::Udp => {
                let socket = bind::udp(address)?;
                let address = socket.local_addr().unwrap_or(address);
                let pool = Arc::new(Pool::new(address, settings, backends));
                let task = tokio::spawn(udp::listen(socket, Arc::clone(&pool)));
                Ok(Self { pool, address, listening: vec![task.abort_handle()] })
            }
        }
    }

    /// With what an earlier run has left of this address, if anything.
    fn start_tcp(
        address: SocketAddr,
        settings: Settings,
        backends: &[Backend],
    ) -> Result<Self, StartError> {
        let handles = threads::all().handles();
        let mut inherited = handover::claim(address);
        let mut listeners = std::mem::take(&mut inherited.listeners);
        if listeners.is_empty() {
            listeners = bind::tcp(address, handles.len())?;
        }
        let address = listeners.first().and_then(|l| l.local_addr().ok()).unwrap_or(address);
        let pool = Arc::new(Pool::new(address, settings, backends));
        let listen = |(listener, handle): (TcpListener, &Handle)| {
            let pool = Arc::clone(&pool);
            handle.spawn(tcp::start(listener, address, pool)).abort_handle()
        };
        let listening = listeners.into_iter().zip(handles.iter().cycle()).map(listen).collect();
        handover::carry_on(inherited, &pool);
        Ok(Self { pool, address, listening })
    }

    /// Takes new settings and the backends that are up now, for new connections.
    pub fn update(&self, settings: Settings, backends: &[Backend]) {
        self.pool.update(settings, backends);
    }

    /// Lets sessions of UDP go on with these backends, though they take no new ones.
    pub fn keep(&self, backends: &[Backend]) {
        self.pool.keep(backends);
    }

    /// Ends the TCP connections of these backends, with a reset to both ends. Sessions of UDP find another
    /// backend by themselves, as soon as theirs takes no new ones.
    pub fn cut(&self, backends: &[Backend]) {
        self.pool.cut(backends);
    }

    /// Tells what it does for as long as somebody wants to know.
    pub fn meter(&self) -> Meter {
        Meter(Arc::clone(&self.pool))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.pool.counts()
    }

    /// Ends listening. TCP connections run to their end; UDP sessions live through the listening
    /// socket and end with it.
    pub fn stop(self) {}
}

/// Tells what a proxy has done so far, wherever it is.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Pool>);

impl Meter {
    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.iter().for_each(AbortHandle::abort);
    }
}
