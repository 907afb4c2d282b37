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
pub(crate) mod rounds;

use board::Board;
use buoy_core::backend_orders::BackendOrders;
use buoy_kernel::clock;
use buoy_model::{
    BackendId, BackendOrder, BackendState, Check, Desired, GroupId, Instant, Ports, Protocol,
    Service, name_key,
};
use rounds::{Kept, News};
use std::collections::BTreeMap;
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
    /// The share of its weight that it takes, in percent: 100 unless its agent says otherwise.
    pub share: u16,
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
            share: ask::WHOLE_SHARE,
            ordered: None,
        }
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

/// What is known of every checked backend.
pub type States = BTreeMap<Key, BackendHealth>;

/// Starts checking what the configuration names and no order spares, now and after every change of
/// either. To be called inside a tokio runtime.
pub fn start(
    desired: watch::Receiver<Arc<Desired>>,
    orders: watch::Receiver<Arc<BackendOrders>>,
) -> Kept<States> {
    Kept::start(|states| async move {
        match Board::new(states) {
            Ok(board) => board.run(desired, orders).await,
            Err(error) => tracing::error!("no backend can be checked: {error}"),
        }
    })
}

/// What a check does: when it changes, the check starts again.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Asked {
    /// Where the backend itself listens; the check may name another port.
    backend: SocketAddr,
    check: Check,
}

fn wanted(desired: &Desired) -> BTreeMap<Key, Asked> {
    let mut all = BTreeMap::new();
    for group in &desired.groups {
        for service in &group.services {
            let Some(check) = &service.check else { continue };
            for backend in &service.backends {
                let key = Key::of(group.id, service, &backend.name);
                all.insert(key, Asked { backend: backend.address, check: check.clone() });
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
    if !states.contains_key(key) {
        states.insert(key.clone(), BackendHealth::unknown());
    }
    let Some(known) = states.get_mut(key) else { return false };
    if let Some(reason) = news.reason {
        known.reason = reason;
        known.urgent = news.urgent;
    }
    known.last_latency = news.latency.or(known.last_latency);
    let turned = known.state != news.state;
    if turned {
        known.state = news.state;
        known.since = clock::now();
    }
    let share = news.share.unwrap_or(known.share);
    let weighed = known.share != share;
    known.share = share;
    turned || weighed
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
