//! Runs the check of every backend and publishes what is known of it.
//!
//! [`start`] follows the configuration: one task asks all backends (`board`), each by a machine
//! of `core::check`. What is known is in a `watch` channel, whose
//! receivers are woken when a backend turns up or down or takes another share (and not for every new reason or
//! latency).
//! A backend that is not in the map is not checked, which counts as up. A reload keeps what is
//! known of a backend whose address stays.

pub(crate) mod ask;
mod board;
mod loads;
pub(crate) mod rounds;
mod shared;
mod states;

use crate::exchange::Handle;
pub(crate) use ask::WHOLE_SHARE;
use board::Board;
use buoy_core::backend_orders::BackendOrders;
use buoy_kernel::clock;
use buoy_kernel::via::Wrap;
use buoy_model::{
    Backend, BackendId, BackendOrder, BackendState, Check, Desired, Forward, GroupId, Instant,
    Mode, Ports, Protocol, Service, name_key,
};
pub(crate) use loads::usual;
use rounds::{Kept, News};
pub use states::{Change, States};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// One backend of one service of one group.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// The group.
    pub group: GroupId,
    /// The service's first address: two services of a group may share a port.
    pub address: IpAddr,
    /// The service's protocol.
    pub protocol: Protocol,
    /// The service's ports.
    pub ports: Ports,
    /// The backend's name.
    pub backend: String,
}

impl Key {
    /// The key of a backend of that service.
    pub fn of(group: GroupId, service: &Service, backend: &str) -> Self {
        Self {
            group,
            address: first_address(service),
            protocol: service.protocol,
            ports: service.ports,
            backend: backend.to_owned(),
        }
    }

    /// What orders call it.
    pub fn id(&self) -> BackendId {
        let Self { address, protocol, ports, .. } = *self;
        BackendId { address, protocol, ports, name: self.backend.clone() }
    }
}

/// What tells a service from another one on the same port of its group.
pub(crate) fn first_address(service: &Service) -> IpAddr {
    debug_assert!(!service.addresses.is_empty(), "config gives every service an address");
    service.addresses.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// What is known of a backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendHealth {
    /// Whether it may get new connections.
    pub state: BackendState,
    /// What was wrong with its last answer, or is worth knowing of it, in words; empty when nothing is.
    pub reason: String,
    /// Whether it is well, and the reason is of something that will break if nobody acts.
    pub urgent: bool,
    /// Since when it is in this state.
    pub since: Instant,
    /// How long its last right answer took.
    pub last_latency: Option<Duration>,
    /// The share of its weight that it takes, in percent: 100 unless its agent or its load says otherwise.
    pub share: u16,
    /// How loaded it says that it is, in percent.
    pub load: Option<u8>,
    /// What operators have ordered of it.
    pub ordered: Option<Ordered>,
}

impl BackendHealth {
    /// Nothing is known yet.
    pub fn unknown() -> Self {
        Self {
            state: BackendState::Unknown,
            reason: String::new(),
            urgent: false,
            since: clock::now(),
            last_latency: None,
            share: WHOLE_SHARE,
            load: None,
            ordered: None,
        }
    }

    /// Says why it is what it is; whether that is another.
    fn say(&mut self, reason: String, urgent: bool) -> bool {
        let is_another = (self.reason.as_str(), self.urgent) != (reason.as_str(), urgent);
        (self.reason, self.urgent) = (reason, urgent);
        is_another
    }

    /// It is in that state now; whether it was in another.
    fn turn(&mut self, state: BackendState, now: Instant) -> bool {
        let turned = self.state != state;
        if turned {
            (self.state, self.since) = (state, now);
        }
        turned
    }

    /// It takes that share; whether it took another.
    const fn weigh(&mut self, share: u16) -> bool {
        let weighed = self.share != share;
        self.share = share;
        weighed
    }

    /// Whether they are the same but for loads and latencies.
    fn is_told_as(&self, other: &Self) -> bool {
        let Self { state, reason, urgent, since, last_latency: _, share, load: _, ordered } = self;
        (state, reason, urgent, since) == (&other.state, &other.reason, &other.urgent, &other.since)
            && (share, ordered) == (&other.share, &other.ordered)
    }

    /// Whether connections that it has are to be cut.
    pub fn is_cut(&self) -> bool {
        self.ordered.as_ref().is_some_and(|ordered| !ordered.keeps)
    }
}

/// An order, and what it makes of a backend now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ordered {
    /// The order.
    pub order: BackendOrder,
    /// Whether the backend may have connections; without, its state is `Down`.
    pub keeps: bool,
}

/// The checks of backends; they end when this is dropped.
#[derive(Debug)]
pub struct Health {
    kept: Kept<States>,
    opinions: watch::Receiver<States>,
    doubt: watch::Receiver<Option<String>>,
}

impl Health {
    /// What holds of every checked backend, and a wake-up when something turns.
    pub fn states(&self) -> watch::Receiver<States> {
        self.kept.states()
    }

    /// What this node itself has found by checks that it shares with others.
    pub fn opinions(&self) -> watch::Receiver<States> {
        self.opinions.clone()
    }

    /// Why nobody counts what this node finds, if so.
    pub fn doubt(&self) -> watch::Receiver<Option<String>> {
        self.doubt.clone()
    }
}

/// Starts checking what the configuration names and no order spares, now and after every change of
/// either; with an exchange together with the other nodes, where the configuration says so. To be called inside
/// a tokio runtime.
pub fn start(
    desired: watch::Receiver<Arc<Desired>>,
    orders: watch::Receiver<Arc<BackendOrders>>,
    exchange: Option<Handle>,
) -> Health {
    let (found, opinions) = watch::channel(States::new());
    let (spare, spared) = watch::channel(BTreeSet::new());
    let (say, doubt) = watch::channel(None);
    let own = opinions.clone();
    let kept = Kept::start(|states| async move {
        let shares = exchange.is_some();
        let ends = board::Ends { states: Arc::clone(&states), opinions: found, spared, shares };
        let board = match Board::new(ends) {
            Ok(board) => board,
            Err(error) => {
                tracing::error!("no backend can be checked: {error}");
                return;
            }
        };
        let Some(exchange) = exchange else { return board.run(desired, orders).await };
        let watched = desired.clone();
        let ends = shared::Ends { desired, opinions: own, states, spared: spare, doubt: say };
        tokio::join!(board.run(watched, orders), shared::share(ends, exchange));
    });
    Health { kept, opinions, doubt }
}

/// What is seen from here: what this node has found itself, and what holds of all that it does not ask.
pub fn seen_from_here<'a>(states: &'a States, opinions: &States) -> Cow<'a, States> {
    if opinions.is_empty() {
        return Cow::Borrowed(states);
    }
    let mut seen = states.clone();
    for (key, own) in opinions {
        match seen.get(key) {
            // What operators have ordered holds whatever is found.
            Some(known) if known.ordered.is_some() => {}
            Some(_) | None => seen.change(key, |known| (true, known.clone_from(own))),
        }
    }
    Cow::Owned(seen)
}

/// What a check does: when it changes, the check starts again.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Asked {
    /// Where the backend itself listens; the check may name another port.
    backend: SocketAddr,
    check: Check,
    place: Place,
}

/// Where a backend is asked.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Place {
    /// At its own address.
    Itself,
    /// There as well, and not on the VIPs: it is another host of the cluster, which passes what is for a VIP on.
    Member,
    /// On the VIPs of its service, on the way of the service.
    Vips { vips: Vec<IpAddr>, wrap: Wrap },
}

impl Place {
    fn of(desired: &Desired, service: &Service, check: &Check, backend: &Backend) -> Self {
        let (Some(_), Mode::Xdp { forward, .. }) = (check.via, service.mode) else {
            return Self::Itself;
        };
        let wrap = match forward {
            Forward::Dsr => Wrap::Not,
            Forward::Tunnel => Wrap::InIp,
            Forward::Gue { port } => Wrap::InUdp(port),
            // `config` refuses it.
            Forward::Nat | Forward::Local => return Self::Itself,
        };
        let ip = backend.address.ip();
        let others = desired.nodes.iter().filter(|node| node.id != desired.me);
        let mut others = others.flat_map(|node| &node.addresses);
        if wrap == Wrap::Not && others.any(|address| address.ip() == ip) {
            return Self::Member;
        }
        let vips = service.addresses.iter().filter(|vip| vip.is_ipv4() == ip.is_ipv4());
        Self::Vips { vips: vips.copied().collect(), wrap }
    }
}

impl Asked {
    /// Whether nodes ask in each other's place.
    const fn is_shared(&self) -> bool {
        self.check.askers.is_some()
    }
}

fn wanted(desired: &Desired) -> BTreeMap<Key, Asked> {
    let mut all = BTreeMap::new();
    for group in &desired.groups {
        for service in &group.services {
            let Some(check) = &service.check else { continue };
            for backend in &service.backends {
                let key = Key::of(group.id, service, &backend.name);
                let place = Place::of(desired, service, check, backend);
                all.insert(key, Asked { backend: backend.address, check: check.clone(), place });
            }
        }
    }
    all
}

fn say(key: &Key, news: &News) {
    let Key { backend, ports, .. } = key;
    let port = tracing::field::display(ports);
    match (news.turned, news.state) {
        (false, BackendState::Up | BackendState::Down) | (_, BackendState::Unknown) => {}
        (true, BackendState::Up) => tracing::info!(backend, port, "the backend is up"),
        (true, BackendState::Down) => {
            let reason = news.reason.as_deref().unwrap_or_default();
            tracing::warn!(backend, port, reason, "the backend is down");
        }
    }
}

/// Says what is worth knowing of a right answer, once for each wording.
fn warn(Key { backend, ports, .. }: &Key, news: &News, warned: &mut String) {
    // A right answer has a latency.
    let Some(warning) = news.latency.and(news.reason.as_deref()) else { return };
    if !warning.is_empty() && warning != warned {
        let port = tracing::field::display(ports);
        tracing::warn!(backend, port, warning, "the backend is well, with a warning");
    }
    warning.clone_into(warned);
}

/// Keeps what is known; whether the backend has turned or takes another share, which readers are woken for.
fn publish(states: &mut States, key: &Key, news: News) -> bool {
    states.change(key, |known| {
        let worded = news.reason.is_some_and(|reason| known.say(reason, news.urgent));
        known.last_latency = news.latency.or(known.last_latency);
        known.load = news.load.or(known.load);
        let turned = known.turn(news.state, clock::now());
        let weighed = known.weigh(news.share.unwrap_or(known.share));
        (worded || turned || weighed, turned || weighed)
    })
}

/// Where to ask: the backend itself, or the port that the check names.
fn address(asked: &Asked) -> SocketAddr {
    let port = asked.check.port.unwrap_or_else(|| asked.backend.port());
    SocketAddr::new(asked.backend.ip(), port)
}

/// Spreads the first questions over one interval: by name, so that nothing has to be remembered.
fn jitter(key: &Key, every: Duration) -> Duration {
    let hash = name_key(&format!("{}/{}/{}/{}", key.group.0, key.address, key.ports, key.backend));
    every.mul_f64(f64::from(hash) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
