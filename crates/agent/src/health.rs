//! Runs the check of every backend and publishes what is known of it.
//!
//! [`start`] follows the configuration: one task per checked backend, each driving a machine
//! of `core::check` with the clock and the network. What is known is in a `watch` channel, whose
//! receivers are woken when a backend turns up or down or takes another share (and not for every new reason or
//! latency).
//! A backend that is not in the map is not checked, which counts as up. A reload keeps what is
//! known of a backend whose address stays.

pub(crate) mod ask;
pub(crate) mod rounds;

use ask::{Asker, Target};
use buoy_core::backend_orders::BackendOrders;
use buoy_kernel::clock;
use buoy_model::{
    BackendId, BackendOrder, BackendState, Check, Desired, Duty, GroupId, Instant, Ports, Protocol,
    Service, name_key,
};
use rounds::{Kept, News, Rounds, Tasks};
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
    Kept::start(|states| follow(desired, orders, states))
}

/// What a check does: when it changes, the check starts again.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Asked {
    /// Where the backend itself listens; the check may name another port.
    backend: SocketAddr,
    check: Check,
}

async fn follow(
    mut desired: watch::Receiver<Arc<Desired>>,
    mut orders: watch::Receiver<Arc<BackendOrders>>,
    states: Arc<watch::Sender<States>>,
) {
    let mut tasks: Tasks<Key, Asked> = Tasks::default();
    loop {
        let mut wanted = wanted(&desired.borrow_and_update());
        let moved = |(key, was): &(&Key, &Asked)| {
            wanted.get(key).is_none_or(|asked| asked.backend != was.backend)
        };
        let forgotten: Vec<Key> = tasks.asked().filter(moved).map(|(key, _)| key.clone()).collect();
        // What is known of a backend that is spared stays: it is as it was when it is asked again.
        let spared = Arc::clone(&orders.borrow_and_update());
        let configured: BTreeSet<Key> = wanted.keys().cloned().collect();
        wanted.retain(|key, _| spared.of(&key.id()).is_none_or(|o| o.duty != Duty::Maint));
        tasks.end(&wanted);
        states.send_if_modified(|states| {
            let before = states.len();
            states.retain(|key, _| configured.contains(key) && !forgotten.contains(key));
            states.len() != before
        });
        tasks.start(wanted, |key, asked| {
            tokio::spawn(keep_asking(key, asked, Arc::clone(&states))).abort_handle()
        });
        let changed = tokio::select! {
            changed = desired.changed() => changed,
            changed = orders.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
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

/// Checks one backend for ever.
async fn keep_asking(key: Key, asked: Asked, states: Arc<watch::Sender<States>>) {
    let target = Target { name: key.backend.clone(), address: address(&asked) };
    let asker = Arc::new(Asker::new(&asked.check.kind, &target));
    let known = states.borrow().get(&key).map_or(BackendState::Unknown, |known| known.state);
    let rounds =
        Rounds { pace: asked.check.pace, known, first: jitter(&key, asked.check.pace.every) };
    let ask = || {
        let asker = Arc::clone(&asker);
        async move { asker.ask().await }
    };
    let mut warned = String::new();
    rounds::keep_asking(rounds, ask, |news| {
        say(&key, &news);
        warn(&key, &news, &mut warned);
        publish(&states, &key, news);
    })
    .await;
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

/// Keeps what is known, and wakes the readers when the backend has turned.
fn publish(states: &watch::Sender<States>, key: &Key, news: News) {
    states.send_if_modified(|states| {
        let known = states.entry(key.clone()).or_insert_with(BackendHealth::unknown);
        if let Some(reason) = news.reason {
            known.reason = reason;
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
    });
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
