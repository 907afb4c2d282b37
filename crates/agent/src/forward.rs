//! Makes the kernel and the proxies forward what the configuration and the checks say.
//!
//! Level-triggered: every round computes all that should be there ([`wanted`], pure), compares it with
//! what was done, and does the difference. A round comes with every change of the configuration or of
//! a backend, after a back-off while something does not work, and every `AUDIT` anyway, because somebody may
//! have flushed nftables. What does not work is a sentence in [`Forward::services`], and other
//! services go on.
//!
//! When the agent stops, the kernel's table and the XDP programs stay: a restart must not drop a packet.
//! What XDP cannot forward on this host and nftables can, nftables does, and it is said.

mod conntracked;
mod dead;
mod engines;
mod meters;
mod near;
mod owned;
mod proxied;
mod refusal;
mod report;
mod rows;
mod shares;
mod told;
mod xdp;

pub use refusal::Refusal;
pub use xdp::Traced;

use crate::health::{self, Key, States};
use crate::{exchange, realtime};
use buoy_core::balance;
use buoy_core::fast::{Substitute, substitute};
use buoy_kernel::conntrack::Flows;
use buoy_kernel::fast::Packet;
use buoy_kernel::gate::Answerer;
use buoy_kernel::nft;
use buoy_model::{
    self as model, Backend, BackendState, Desired, Group, GroupId, Mode, Ports, Protocol, Service,
};
use buoy_proxy::Settings;
use engines::Engines;
use rows::row;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time;

/// How often the kernel is asked whether the table is still there.
const AUDIT: Duration = Duration::from_secs(5);
/// First pause after something did not work; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Longest pause after something did not work.
const RETRY_LAST: Duration = Duration::from_secs(30);
/// So long the first round waits until it is known who owns what, where tables depend on it.
const SETTLE: Duration = Duration::from_secs(1);

/// Forwarding on this host. Proxies end when this is dropped; the kernel's table and the programs stay.
#[derive(Debug)]
pub struct Forward {
    desired: watch::Receiver<Arc<Desired>>,
    states: watch::Receiver<States>,
    checked: watch::Receiver<States>,
    findings: Arc<Mutex<Findings>>,
    by_xdp: watch::Receiver<Option<xdp::Found>>,
    tracer: xdp::Tracer,
    joiner: xdp::Joiner,
    counted: Arc<Mutex<xdp::Counted>>,
    meters: meters::Meters,
    conntracked: conntracked::Conntracked,
    refusal: Refusal,
    told: told::Told,
    owners: Arc<watch::Sender<owned::Owners>>,
    task: AbortHandle,
}

/// What this host can forward, for who owns what.
#[derive(Clone, Debug)]
pub struct Ability(watch::Receiver<Option<xdp::Found>>);

impl Ability {
    /// Says of which groups this host cannot forward a service, as far as it is known; nothing is at the
    /// start.
    pub fn lacks(&mut self) -> impl Fn(&Desired, &Group) -> bool + use<> {
        let found = self.0.borrow_and_update().clone();
        move |desired, group| {
            group.services.iter().any(|service| match (service.mode, &found) {
                (Mode::Kernel | Mode::Proxy, _) => false,
                (Mode::Xdp { .. }, None) => true,
                (Mode::Xdp { .. }, Some(found)) => {
                    substitute(desired, group, service).is_none()
                        && found.refused.contains_key(&Place::of(group, service))
                }
            })
        }
    }

    /// Waits for something else; an error at the end.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.0.changed().await
    }
}

impl Forward {
    /// Starts forwarding what the configuration names to the backends that are up: by what is known of them, and what
    /// their checks say, in words that follow at once. The seed of flows
    /// is the cluster's, and the answerer that of the gate, or why there is none. To be called inside a tokio
    /// runtime.
    pub fn start(
        desired: watch::Receiver<Arc<Desired>>,
        (states, checked): (watch::Receiver<States>, watch::Receiver<States>),
        seed: watch::Receiver<u64>,
        answerer: Result<Answerer, String>,
        refusal: Refusal,
    ) -> io::Result<Self> {
        let findings = Arc::new(Mutex::new(Findings::default()));
        let (owners, owned) = watch::channel(owned::Owners::new());
        let owners = Arc::new(owners);
        let (watched, known) = (desired.clone(), states.clone());
        let news = News { desired: watched, states: known, seed, owners: owned };
        let engine = xdp::Engine::start(answerer)?;
        let (by_xdp, tracer, joiner) = (engine.found.clone(), engine.tracer(), engine.joiner());
        let counted = Arc::clone(&engine.counted);
        let meters = meters::Meters::default();
        let engines = Engines::new(meters.clone(), refusal.clone());
        let task = tokio::spawn(follow(news, engine, engines, Arc::clone(&findings)));
        let task = task.abort_handle();
        Ok(Self {
            desired,
            states,
            checked,
            findings,
            by_xdp,
            tracer,
            joiner,
            counted,
            meters,
            conntracked: conntracked::Conntracked::default(),
            refusal,
            told: told::Told::default(),
            owners,
            task,
        })
    }

    /// Tells other nodes about flows and hears of theirs, from now on. To be called inside a tokio runtime.
    pub fn join(&self, exchange: exchange::Handle, node: realtime::Handle) {
        let owned = owned::watch(node, self.desired.clone(), Arc::clone(&self.owners));
        self.joiner.join(xdp::Peers::new(exchange, owned));
    }

    /// What the XDP program does with such a packet; why that is not known, in words.
    pub async fn trace(&self, packet: Packet) -> Result<Traced, String> {
        self.tracer.trace(packet).await
    }

    /// Ends forwarding by proxies; what they carry goes on.
    pub fn stop(&self) {
        self.task.abort();
    }

    /// What is to be dropped before the loop gets another configuration.
    pub const fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// What this host can forward.
    pub fn ability(&self) -> Ability {
        Ability(self.by_xdp.clone())
    }

    /// What is wrong with forwarding on this host as a whole.
    pub fn problems(&self) -> Vec<String> {
        self.findings().host.clone()
    }

    /// What all services have done together, by name; not older than `AUDIT`.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let counted = self.counted();
        let findings = self.findings();
        let all = findings.counters.iter().chain(&counted.totals);
        all.map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    fn counted(&self) -> MutexGuard<'_, xdp::Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing that holds the lock can panic halfway through a change.
    fn findings(&self) -> MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a round found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Findings {
    /// What does not work, in sentences that say what to do.
    services: BTreeMap<Place, String>,
    host: Vec<String>,
    counters: BTreeMap<&'static str, u64>,
    /// Hash of who gets which flow, of what XDP forwards.
    tables: BTreeMap<Place, u32>,
    /// Connections that nftables and proxies have refused for the rate of their client.
    limited: BTreeMap<Place, u64>,
    /// How the XDP program sees the frames of each interface.
    attached: Vec<String>,
    /// What XDP cannot forward here.
    refused: BTreeSet<Place>,
    /// While it stays, all that services are told of is the same.
    number: u64,
}

impl Findings {
    fn add(&mut self, by_xdp: xdp::Found) {
        self.services.extend(by_xdp.problems);
        self.host.extend(by_xdp.host);
        self.tables = by_xdp.tables;
        self.attached = by_xdp.attached;
        self.refused = by_xdp.refused.into_keys().collect();
    }

    /// These come after those; what counts all services together is told of none.
    fn follow(&mut self, before: &Self) {
        let Self { services, host: _, counters: _, tables, limited, attached, refused, number: _ } =
            &*self;
        let are_same = (services, tables, limited)
            == (&before.services, &before.tables, &before.limited)
            && (attached, refused) == (&before.attached, &before.refused);
        self.number = before.number + u64::from(!are_same);
    }
}

/// Whether every service of the group has a backend that is up, and its quorum; `Unknown`: if those that were not
/// checked yet turn out to be.
pub fn behind(group: &Group, states: &States) -> BackendState {
    let on = || group.services.iter().filter(|service| !is_local(service));
    let serves = |unknown| on().all(|service| has_backends(group, service, states, unknown));
    match (serves(BackendState::Up), serves(BackendState::Down)) {
        (_, true) => BackendState::Up,
        (true, false) => BackendState::Unknown,
        (false, false) => BackendState::Down,
    }
}

/// The same of one service, where those that were not checked yet count as `unknown`.
fn has_backends(group: &Group, service: &Service, states: &States, unknown: BackendState) -> bool {
    let place = Place::of(group, service);
    let unknown = service.check.as_ref().map_or(BackendState::Up, |_| unknown);
    let known = |backends: &[Backend]| -> Vec<BackendState> {
        let known = known(&place, backends, states).into_iter();
        known.map(|state| if state == BackendState::Unknown { unknown } else { state }).collect()
    };
    known(&service.backends).contains(&BackendState::Up) && has_quorum(service, known)
}

/// Whether no backups are needed, or one is there: of each IP version where it is not translated.
fn has_quorum(service: &Service, known: impl Fn(&[Backend]) -> Vec<BackendState>) -> bool {
    let quorum = service.life.quorum;
    let is_met = |backends: &[Backend]| {
        backends.is_empty() || balance::is_enough(backends, &known(backends), quorum)
    };
    match service.mode {
        _ if quorum <= 1 => true,
        Mode::Proxy => is_met(&service.backends),
        Mode::Kernel | Mode::Xdp { .. } => {
            let (v4, v6): (Vec<Backend>, Vec<Backend>) =
                service.backends.iter().cloned().partition(|b| b.address.is_ipv4());
            is_met(&v4) && is_met(&v6)
        }
    }
}

/// Whether the owner takes its packets itself.
const fn is_local(service: &Service) -> bool {
    matches!(service.mode, Mode::Xdp { forward: model::Forward::Local, .. })
}

/// One service of one group.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Place {
    group: GroupId,
    /// The first of the service's addresses.
    address: IpAddr,
    protocol: Protocol,
    ports: Ports,
}

impl Place {
    fn of(group: &Group, service: &Service) -> Self {
        let address = health::first_address(service);
        Self { group: group.id, address, protocol: service.protocol, ports: service.ports }
    }

    fn key(&self, backend: &Backend) -> Key {
        Key { backend: backend.name.clone(), ..self.first_key() }
    }

    /// No key of its backends comes before this one.
    const fn first_key(&self) -> Key {
        let Self { group, address, protocol, ports } = *self;
        Key { group, address, protocol, ports, backend: String::new() }
    }

    /// Whether it is that of one of its backends.
    fn has(&self, key: &Key) -> bool {
        let Self { group, address, protocol, ports } = self;
        (group, address, protocol, ports) == (&key.group, &key.address, &key.protocol, &key.ports)
    }
}

/// All that should be there.
#[derive(Debug, Default)]
struct Wanted {
    /// The kernel's table, with the service that each row is for.
    kernel: Vec<(Place, nft::Forward)>,
    /// The same of the table for packets that keep their addresses.
    direct: Vec<(Place, nft::Forward)>,
    /// Flows that would go on to a backend that is down, or is not to have any.
    dead: BTreeSet<Flows>,
    proxies: BTreeMap<(SocketAddr, Protocol), WantedProxy>,
    /// Addresses that this host answers for without taking their packets.
    unaccepted: BTreeSet<IpAddr>,
    /// What cannot be done, seen without trying.
    problems: BTreeMap<Place, String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct WantedProxy {
    place: Place,
    settings: Settings,
    /// Those that take connections now.
    backends: Vec<Backend>,
    /// Those that finish what they have.
    finishing: Vec<Backend>,
    /// Those whose connections are cut.
    cut: Vec<Backend>,
}

/// What should be there, from what people want, what is known of the backends, and what XDP refused.
fn wanted(desired: &Desired, states: &States, refused: &BTreeMap<Place, String>) -> Wanted {
    let mut wanted = Wanted { unaccepted: refusal::unaccepted(desired), ..Wanted::default() };
    for group in &desired.groups {
        let addresses = group.addresses.iter().filter(|a| a.link.is_some());
        for address in addresses.map(|a| a.cidr.address()) {
            let services = group.services.iter().filter(|s| s.addresses.contains(&address));
            for service in services {
                let place = Place::of(group, service);
                match service.mode {
                    Mode::Kernel => {
                        want_kernel(&mut wanted, place, address, (group, service), states);
                        relay(&mut wanted, desired, group, address);
                    }
                    Mode::Proxy => {
                        // `config` refuses ranges here.
                        let port = service.ports.first();
                        let at = (SocketAddr::new(address, port), service.protocol);
                        let known = known(&place, &service.backends, states);
                        let cut = dead::cut(&place, service, states).cloned().collect();
                        let proxy = proxied::wanted(place, service, &known, cut);
                        wanted.proxies.insert(at, proxy);
                    }
                    Mode::Xdp { .. } => {
                        let Some(reason) = refused.get(&place) else { continue };
                        let instead = match substitute(desired, group, service) {
                            Some(Substitute::Translate) => {
                                want_kernel(&mut wanted, place, address, (group, service), states);
                                relay(&mut wanted, desired, group, address);
                                "nftables forwards it instead, more slowly"
                            }
                            Some(Substitute::Deliver) => {
                                want_kernel(&mut wanted, place, address, (group, service), states);
                                "nftables counts and refuses instead"
                            }
                            Some(Substitute::Direct) => {
                                let row =
                                    row(&mut wanted, place, address, (group, service), states);
                                let forgets = row.stick.is_some() || row.quic.is_some();
                                wanted.direct.push((place, row));
                                if forgets {
                                    "nftables forwards it instead, more slowly, by the hash alone, \
                                     without `persist_timeout` and `quic`"
                                } else {
                                    "nftables forwards it instead, more slowly, and connections \
                                     break where a backend comes or goes"
                                }
                            }
                            None => "nothing is forwarded",
                        };
                        wanted.problems.insert(place, format!("{reason}; {instead}"));
                    }
                }
            }
        }
    }
    wanted
}

/// Names the other nodes that may know a connection of this address's latest service.
fn relay(wanted: &mut Wanted, desired: &Desired, group: &Group, vip: IpAddr) {
    let Some((_, forward)) = wanted.kernel.last_mut() else { return };
    let others = group.nodes.iter().filter(|node| **node != desired.me);
    let addresses = others.filter_map(|node| desired.node(*node)).map(|node| node.address().ip());
    forward.relays = addresses.filter(|ip| ip.is_ipv4() == vip.is_ipv4()).collect();
}

fn want_kernel(
    wanted: &mut Wanted,
    place: Place,
    vip: IpAddr,
    (group, service): (&Group, &Service),
    states: &States,
) {
    let row = row(wanted, place, vip, (group, service), states);
    dead::want(wanted, place, vip, (service, &row.within), states);
    wanted.kernel.push((place, row));
}

fn known(place: &Place, backends: &[Backend], states: &States) -> Vec<BackendState> {
    let state = |b| states.get(&place.key(b)).map_or(BackendState::Unknown, |known| known.state);
    backends.iter().map(state).collect()
}

/// What forwarding follows.
struct News {
    desired: watch::Receiver<Arc<Desired>>,
    states: watch::Receiver<States>,
    seed: watch::Receiver<u64>,
    owners: watch::Receiver<owned::Owners>,
}

impl News {
    /// Waits for the owners of groups whose tables depend on them: the first tables would else be changed at once.
    async fn settle(&mut self) {
        let desired = self.desired.clone();
        let all = |owners: &owned::Owners| {
            owned::followed(&desired.borrow()).iter().all(|group| owners.contains_key(group))
        };
        // Nobody may own them.
        let _ = time::timeout(SETTLE, self.owners.wait_for(all)).await;
    }

    /// The latest of all.
    fn now(&mut self) -> xdp::Order {
        let states = self.states.borrow_and_update().clone();
        let weighed = shares::weighed(&self.desired.borrow_and_update(), &states);
        xdp::Order {
            desired: near::kept_near(weighed, &states, &self.owners.borrow_and_update()),
            states: Arc::new(states),
            out: Arc::default(),
            seed: *self.seed.borrow_and_update(),
        }
    }

    /// Waits for something else; an error at the end.
    async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        tokio::select! {
            changed = self.desired.changed() => changed,
            changed = self.states.changed() => changed,
            changed = self.seed.changed() => changed,
            changed = self.owners.changed() => changed,
        }
    }
}

async fn follow(
    mut news: News,
    mut xdp: xdp::Engine,
    mut engines: Engines,
    findings: Arc<Mutex<Findings>>,
) {
    let mut pause = RETRY_FIRST;
    news.settle().await;
    let mut order = news.now();
    xdp.order(order.clone());
    let mut is_first = true;
    // What is wanted follows from the order and from this; to make it anew takes a while and memory.
    let mut refused = None;
    loop {
        let by_xdp = xdp.found.borrow_and_update().clone().unwrap_or_default();
        if refused.as_ref() != Some(&by_xdp.refused) {
            engines.wish(wanted(&order.desired, &order.states, &by_xdp.refused));
            refused = Some(by_xdp.refused.clone());
        }
        let mut found = engines.converge().await;
        found.add(by_xdp);
        if std::mem::take(&mut is_first) {
            buoy_proxy::handover::settle();
        }
        let wait = if engines.failing { pause } else { AUDIT };
        pause = if engines.failing { (pause * 2).min(RETRY_LAST) } else { RETRY_FIRST };
        say_what_is_new(&findings, &found);
        {
            let mut findings = findings.lock().unwrap_or_else(PoisonError::into_inner);
            found.follow(&findings);
            *findings = found;
        }
        tokio::select! {
            changed = news.changed() => {
                if changed.is_err() {
                    return;
                }
                order = news.now();
                refused = None;
                xdp.order(order.clone());
            }
            changed = xdp.found.changed() => if changed.is_err() { return },
            () = time::sleep(wait) => {}
        }
    }
}

fn say_what_is_new(before: &Mutex<Findings>, now: &Findings) {
    let before = before.lock().unwrap_or_else(PoisonError::into_inner);
    for (place, problem) in &now.services {
        if before.services.get(place) != Some(problem) {
            let (protocol, ports) = (place.protocol.name(), place.ports);
            tracing::warn!(
                port = %ports,
                protocol,
                "a service is not forwarded here as it should be: {problem}"
            );
        }
    }
    for problem in now.host.iter().filter(|p| !before.host.contains(p)) {
        tracing::warn!("{problem}");
    }
}

#[cfg(test)]
mod tests;
