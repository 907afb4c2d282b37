//! Decides what the fast path of this host should be: which services, with which backends and tables.
//!
//! A host has every service of mode "xdp" on an address that it may own, owner or not, so that a failover
//! has nothing to set up. Each address, protocol and port is a service of its own, with a table made
//! from the backends of the address's family and their states (`balance::shares`, `maglev`), and a
//! memory of what the table was (`transition`). What nobody changed is not computed again: one backend
//! that goes down costs the services that have it, and services with the same backends share the work.
//!
//! Absent on purpose: maps, interfaces and neighbours (the kernel crate fills them in), and checks.

mod making;

use crate::history::Malformed;
use crate::maglev::{Base, Table};
use crate::random::mix;
use crate::transition::Transition;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use buoy_model::limits::MOVED_PORTS_MAX;
use buoy_model::{
    Backend, BackendState, Desired, FastBackend, FastPath, FastService, FlowFields, Forward, Group,
    History, Instant, Mode, Node, OnDown, Ports, Presence, Protocol, Quic, Rate, Service, Slot,
    Sources, Standing,
};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use making::{Changes, Making, Tables, Wish, Wishes};

/// What nftables does for a service where XDP cannot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Substitute {
    /// It gives packets the backend's address.
    Translate,
    /// It gives them the backend's Ethernet address.
    Direct,
    /// It lets them through to this host.
    Deliver,
}

/// Who forwards in place of XDP, if anybody can. For an address that is on no interface, nobody else answers.
pub fn substitute(desired: &Desired, group: &Group, service: &Service) -> Option<Substitute> {
    match service.mode {
        Mode::Kernel | Mode::Proxy => None,
        Mode::Xdp { .. } if is_answered(group, service) => None,
        // nftables puts no packet into another.
        Mode::Xdp { forward: Forward::Tunnel | Forward::Gue { .. }, .. } => None,
        Mode::Xdp { forward: Forward::Local, .. } => Some(Substitute::Deliver),
        Mode::Xdp { forward: Forward::Dsr, .. } => {
            are_neighbours(desired, group, service).then_some(Substitute::Direct)
        }
        Mode::Xdp { forward: Forward::Nat, .. } => {
            is_translatable(service).then_some(Substitute::Translate)
        }
    }
}

/// Whether nftables finds all backends: it sends out of the interface of the VIP only, and not to this host.
fn are_neighbours(desired: &Desired, group: &Group, service: &Service) -> bool {
    let here = group.addresses.iter().map(|a| a.cidr);
    service.backends.iter().map(|b| b.address.ip()).all(|backend| {
        let mut vips = here.clone().filter(|cidr| service.addresses.contains(&cidr.address()));
        let is_near = vips
            .all(|cidr| cidr.address().is_ipv4() != backend.is_ipv4() || cidr.contains(backend));
        let is_node = |node: &Node| node.addresses.iter().any(|a| a.ip() == backend);
        is_near && !desired.nodes.iter().any(is_node)
    })
}

/// The ports of a range either keep their numbers in nftables, or all backends begin at the same one and each
/// port is listed.
fn is_translatable(service: &Service) -> bool {
    let (ports, backends) = (service.ports, &service.backends);
    let other = |a: &Backend, b: &Backend| {
        a.address.is_ipv4() == b.address.is_ipv4() && a.address.port() != b.address.port()
    };
    let is_apart = backends.iter().any(|a| backends.iter().any(|b| other(a, b)));
    let is_moved = backends.iter().any(|b| b.address.port() != ports.first());
    let is_long = usize::from(ports.distance()) >= MOVED_PORTS_MAX;
    ports.is_one() || !(is_apart || is_moved && is_long)
}

/// Whether an address of the service is on no interface, so that the fast path answers for it.
pub fn is_answered(group: &Group, service: &Service) -> bool {
    let mut of_it =
        group.addresses.iter().filter(|a| service.addresses.contains(&a.cidr.address()));
    of_it.any(|address| address.presence == Presence::Answered)
}

/// The fast path of a host over time.
#[derive(Clone, Debug)]
pub struct Fast {
    seed: u64,
    services: BTreeMap<Key, Entry>,
    /// Those that `tick` makes others of.
    draining: BTreeSet<Key>,
    /// Those that may differ from what `changed` has told.
    touched: BTreeSet<Key>,
    /// Some have come or gone since.
    is_other: bool,
}

/// A service, in the order of `FastPath::services`.
pub type Key = (IpAddr, Protocol, Ports);

/// What hosts call a service among themselves, in short.
pub fn name_of((address, protocol, ports): Key) -> u64 {
    let bits = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let protocol = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let (first, distance) = (u64::from(ports.first()), u64::from(ports.distance()));
    let service = distance << 32 | first << 8 | protocol;
    [(bits >> 64) as u64, bits as u64, service].into_iter().fold(0, |hash, word| mix(hash ^ word))
}

#[derive(Clone, Debug)]
struct Entry {
    forward: Forward,
    flow: FlowFields,
    stick: Option<Duration>,
    quic: Option<Quic>,
    sources: Arc<Sources>,
    new_connections: Option<Rate>,
    pool: Arc<[IpAddr]>,
    /// What the table was made from; `None`: not made here.
    wish: Option<Arc<Wish>>,
    /// The table while all are up; `None`: not made yet, or nobody takes flows.
    base: Option<Arc<Base>>,
    past: Arc<Past>,
    /// Of the table without its past; 0 without a table.
    digest: u32,
    /// The history of another host that was followed last, and what became of it here.
    followed: Option<(u64, u64)>,
}

/// A table and what it was. Services that have always had the same backends share one.
#[derive(Debug, Default)]
struct Past {
    transition: Transition,
    /// As the kernel needs it, and so whom slots name: both are the same ones as long as they say the same.
    slots: Arc<[Slot]>,
    backends: Arc<[FastBackend]>,
    /// `Transition::fingerprint`.
    fingerprint: u64,
}

impl Fast {
    /// Nothing yet. The seed (`Keyring::flow_seed`) must be the same on all nodes and unknown to clients.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            services: BTreeMap::new(),
            draining: BTreeSet::new(),
            touched: BTreeSet::new(),
            is_other: false,
        }
    }

    /// What it began with.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Goes on where another agent on this host left off, as far as it had the same seed: flows of
    /// another seed are in other slots. `change` must follow.
    pub fn adopt(seed: u64, now: Instant, path: &FastPath) -> Self {
        let mut fast = Self::new(seed);
        let mut pasts = BTreeMap::new();
        for service in path.services.iter().filter(|_| path.seed == seed) {
            let backends: Vec<_> = service.backends.iter().map(|b| b.address).collect();
            let past = pasts.entry((service.slots.as_ptr(), service.slots.len(), backends));
            let past = past.or_insert_with(|| {
                let left = (&service.slots, &service.backends);
                Arc::new(Past::of(Transition::adopt(now, service), left))
            });
            let (forward, flow, past) = (service.forward, service.flow, Arc::clone(past));
            let sources = Arc::clone(&service.sources);
            let (pool, new_connections) = (Arc::clone(&service.pool), service.new_connections);
            let entry = Entry {
                forward,
                flow,
                stick: service.stick,
                quic: service.quic,
                sources,
                new_connections,
                pool,
                wish: None,
                base: None,
                past,
                digest: 0,
                followed: None,
            };
            if let Some(ports) = Ports::new(service.ports.0, service.ports.1) {
                fast.put((service.address, service.protocol, ports), entry);
            }
        }
        fast.is_other = true;
        fast
    }

    /// People want something else, or a backend has another state. To be called whenever either may be
    /// so: what is as before costs little.
    pub fn change(
        &mut self,
        now: Instant,
        desired: &Desired,
        state: impl Fn(&Group, &Service, &Backend) -> Standing,
    ) {
        let mut making = Making::default();
        let mut before = core::mem::take(&mut self.services);
        self.draining.clear();
        for group in &desired.groups {
            for service in &group.services {
                self.serve(now, (group, service), &state, &mut before, &mut making);
            }
        }
        self.is_other |= !before.is_empty();
    }

    /// The same where only backends of these services have another state, in a time that does not depend on the
    /// others.
    pub fn change_of<'d>(
        &mut self,
        now: Instant,
        services: impl Iterator<Item = (&'d Group, &'d Service)>,
        state: impl Fn(&Group, &Service, &Backend) -> Standing,
    ) {
        let mut making = Making::default();
        for (group, service) in services {
            let keys = addresses(group, service).map(|a| (a, service.protocol, service.ports));
            let known = keys.filter_map(|key| self.services.remove_entry(&key));
            let mut before: BTreeMap<Key, Entry> = known.collect();
            self.serve(now, (group, service), &state, &mut before, &mut making);
            self.is_other |= !before.is_empty();
        }
    }

    /// Makes a service what it should be, of what it was.
    fn serve(
        &mut self,
        now: Instant,
        (group, service): (&Group, &Service),
        state: &impl Fn(&Group, &Service, &Backend) -> Standing,
        before: &mut BTreeMap<Key, Entry>,
        making: &mut Making,
    ) {
        let Mode::Xdp { forward, flow } = service.mode else { return };
        let mut wishes = Wishes::default();
        let quorum = service.life.quorum;
        for address in addresses(group, service) {
            let key = (address, service.protocol, service.ports);
            let flow = flow.behind(address);
            let was = before.remove(&key);
            let known = was.as_ref().filter(|entry| entry.flow == flow).cloned();
            let mut entry =
                known.unwrap_or_else(|| Entry::new(service, (forward, flow), &making.nothing));
            entry.forward = forward;
            (entry.stick, entry.quic) = (service.life.stick.map(|s| s.timeout), service.front.quic);
            entry.sources = Arc::clone(&service.sources);
            entry.new_connections = service.new_connections;
            let pool = service.source.in_place_of_clients(address);
            if pool[..] != entry.pool[..] {
                entry.pool = pool.into();
            }
            let same = |b: &&Backend| b.address.is_ipv4() == address.is_ipv4();
            let owner = [owner(address, service.ports)];
            let backends = match forward {
                Forward::Local => &owner[..],
                Forward::Dsr | Forward::Tunnel | Forward::Gue { .. } | Forward::Nat => {
                    &service.backends
                }
            };
            let able = backends.iter().filter(same);
            let able = able.map(|b| (b, state(group, service, b)));
            if !entry.wish.as_ref().is_some_and(|wish| wish.is(quorum, able.clone())) {
                let wish = wishes.of(address, quorum, able);
                let made = making.tables.of(wish, entry.base.take());
                let table = made.as_ref().map(|made| &*made.table);
                entry.past = making.changes.of(now, &entry.past, wish, table);
                entry.digest = table.map_or(0, Table::digest);
                entry.base = made.map(|made| made.base);
                entry.wish = Some(Arc::clone(wish));
            }
            self.is_other |= was.is_none();
            if !was.is_some_and(|was| was.is_as(&entry)) {
                self.touched.insert(key);
            }
            let twice = self.put(key, entry);
            debug_assert!(twice.is_none(), "config lets a port be served once");
        }
    }

    /// Keeps a service; what was there before.
    fn put(&mut self, key: Key, entry: Entry) -> Option<Entry> {
        if entry.past.transition.deadline().is_some() {
            self.draining.insert(key);
        } else {
            self.draining.remove(&key);
        }
        self.services.insert(key, entry)
    }

    /// The services that may not be what they were when this was asked before; `None`: some have come or gone,
    /// and `path` says what should be there.
    pub fn changed(&mut self) -> Option<Vec<FastService>> {
        let touched = core::mem::take(&mut self.touched);
        if core::mem::take(&mut self.is_other) {
            return None;
        }
        let touched = touched.iter().filter_map(|key| self.services.get_key_value(key));
        Some(touched.map(|(key, entry)| entry.service(*key)).collect())
    }

    /// To be called when `deadline` has passed.
    pub fn tick(&mut self, now: Instant) {
        let mut ticked: BTreeMap<*const Past, Arc<Past>> = BTreeMap::new();
        let mut kept = Vec::new();
        for key in self.draining.iter().copied().collect::<Vec<_>>() {
            let Some(entry) = self.services.get_mut(&key) else { continue };
            if entry.past.transition.deadline().is_none_or(|at| now < at) {
                continue;
            }
            let next = ticked.entry(Arc::as_ptr(&entry.past)).or_insert_with(|| {
                let mut transition = entry.past.transition.clone();
                transition.tick(now);
                Arc::new(Past::of(transition, entry.past.told()))
            });
            // The one before lives as long as this loop: nothing else gets its address.
            let before = core::mem::replace(&mut entry.past, Arc::clone(next));
            if next.transition.deadline().is_none() {
                self.draining.remove(&key);
            }
            self.touched.insert(key);
            kept.push(before);
        }
    }

    /// When to call `tick`: then a backend has had its time to finish, and `path` is another.
    pub fn deadline(&self) -> Option<Instant> {
        self.drained().filter_map(|entry| entry.past.transition.deadline()).min()
    }

    fn drained(&self) -> impl Iterator<Item = &Entry> {
        self.draining.iter().filter_map(|key| self.services.get(key))
    }

    /// What should be there now.
    pub fn path(&self) -> FastPath {
        FastPath { seed: self.seed, services: self.services().collect() }
    }

    /// The services of `path`, one after the other: a thousand tables at once are many megabytes.
    pub fn services(&self) -> impl Iterator<Item = FastService> {
        self.services.iter().map(|(key, entry)| entry.service(*key))
    }

    /// The hash of each service's history, which is equal on two hosts that send every flow to the same backend.
    pub fn histories(&self) -> impl Iterator<Item = (Key, u64)> {
        self.services.iter().map(|(key, entry)| (*key, entry.past.fingerprint))
    }

    /// The history with that hash, if some service has it.
    pub fn history(&self, now: Instant, fingerprint: u64) -> Option<History> {
        let mut pasts = self.services.values().map(|entry| &entry.past);
        let past = pasts.find(|past| past.fingerprint == fingerprint)?;
        Some(past.transition.history(now))
    }

    /// Whether a service has another past here than another host says, and this host has not made its own of that
    /// one already.
    pub fn differs(&self, key: Key, told: u64) -> bool {
        let entry = self.services.get(&key);
        entry.is_some_and(|entry| {
            let own = entry.past.fingerprint;
            own != told && entry.followed != Some((told, own))
        })
    }

    /// Makes the past of another host that of these services; what this host sees otherwise is a change after it.
    pub fn follow(
        &mut self,
        now: Instant,
        keys: impl Iterator<Item = Key>,
        (told, history): (u64, &History),
    ) -> Result<(), Malformed> {
        let transition = Transition::of_history(now, history)?;
        let before = Arc::new(Past::of(transition, Past::default().told()));
        let (mut tables, mut changes) = (Tables::default(), Changes::default());
        for key in keys {
            let Some(mut entry) = self.services.get(&key).cloned() else { continue };
            let Some(wish) = &entry.wish else { continue };
            let made = tables.of(wish, entry.base.take());
            let table = made.as_ref().map(|made| &*made.table);
            entry.past = changes.of(now, &before, wish, table);
            entry.base = made.map(|made| made.base);
            entry.followed = Some((told, entry.past.fingerprint));
            self.touched.insert(key);
            self.put(key, entry);
        }
        Ok(())
    }

    /// Slots in a change, of all services together.
    pub fn moving(&self) -> usize {
        self.drained().map(|entry| entry.past.transition.moving()).sum()
    }

    /// Equal on two nodes that send every new flow to the same backend. What a change leaves behind does
    /// not count, since one of them may have seen the change and the other not.
    pub fn digest(&self) -> u32 {
        self.digest_of(self.services.keys().copied())
    }

    /// The same of some services: addresses, protocols and ports. One that is not here counts as one
    /// without a table.
    pub fn digest_of(&self, services: impl Iterator<Item = Key>) -> u32 {
        let mut hash = mix(self.seed);
        for key in services {
            let (address, protocol, ports) = key;
            let digest = self.services.get(&key).map_or(0, |entry| entry.digest);
            let [high, low] = match address {
                IpAddr::V4(v4) => [0, u64::from(v4.to_bits())],
                IpAddr::V6(v6) => [(v6.to_bits() >> 64) as u64, v6.to_bits() as u64],
            };
            let protocol = match protocol {
                Protocol::Tcp => 6,
                Protocol::Udp => 17,
            };
            let (first, distance) = (u64::from(ports.first()), u64::from(ports.distance()));
            let service = distance << 32 | first << 8 | protocol;
            for word in [high, low, service, u64::from(digest)] {
                hash = mix(hash.rotate_left(17) ^ word);
            }
        }
        (hash >> 32) as u32
    }
}

/// Stands for the host that owns the VIP, where no other one is behind it.
fn owner(vip: IpAddr, ports: Ports) -> Backend {
    let address = SocketAddr::new(vip, ports.first());
    Backend::new("owner", address)
}

/// The addresses of the service that this host may own.
fn addresses<'g>(group: &'g Group, service: &'g Service) -> impl Iterator<Item = IpAddr> + 'g {
    let here = group.addresses.iter().filter(|address| address.link.is_some());
    here.map(|a| a.cidr.address()).filter(|address| service.addresses.contains(address))
}

/// What a backend of the service gets in this state; `is_cut`: people want it to have nothing.
pub const fn standing(service: &Service, state: BackendState, is_cut: bool) -> Standing {
    if is_cut {
        return Standing::Down;
    }
    match (state, service.on_down()) {
        (BackendState::Up | BackendState::Unknown, OnDown::Keep | OnDown::Reset) => Standing::Up,
        (BackendState::Down, OnDown::Keep) => Standing::Keeps,
        (BackendState::Down, OnDown::Reset) => Standing::Down,
    }
}

impl Entry {
    /// One of which nothing is known yet.
    fn new(service: &Service, (forward, flow): (Forward, FlowFields), nothing: &Arc<Past>) -> Self {
        Self {
            forward,
            flow,
            stick: None,
            quic: None,
            sources: Arc::clone(&service.sources),
            new_connections: service.new_connections,
            pool: Arc::default(),
            wish: None,
            base: None,
            past: Arc::clone(nothing),
            digest: 0,
            followed: None,
        }
    }

    /// Whether nothing of `service` was made anew.
    fn is_as(&self, other: &Self) -> bool {
        let wish = |entry: &Self| entry.wish.as_ref().map(Arc::as_ptr);
        self.forward == other.forward
            && self.flow == other.flow
            && (self.stick, self.quic) == (other.stick, other.quic)
            && self.new_connections == other.new_connections
            && Arc::ptr_eq(&self.sources, &other.sources)
            && Arc::ptr_eq(&self.pool, &other.pool)
            && Arc::ptr_eq(&self.past, &other.past)
            && wish(self) == wish(other)
    }

    /// As the kernel needs it.
    fn service(&self, (address, protocol, ports): Key) -> FastService {
        FastService {
            address,
            protocol,
            ports: (ports.first(), ports.last()),
            forward: self.forward,
            flow: self.flow,
            stick: self.stick,
            quic: self.quic,
            sources: Arc::clone(&self.sources),
            new_connections: self.new_connections,
            pool: Arc::clone(&self.pool),
            backends: self.backends(),
            slots: Arc::clone(&self.past.slots),
        }
    }

    /// Whom slots name. How they stand and what they are called matters only where a slot alone does not decide.
    fn backends(&self) -> Arc<[FastBackend]> {
        if self.stick.is_none() && self.quic.is_none() {
            return Arc::clone(&self.past.backends);
        }
        let known = |of: SocketAddr| {
            let wish = self.wish.as_ref()?;
            let at = wish.backends.iter().position(|b| b.address == of)?;
            Some((wish.standings[at], wish.backends[at].server_id))
        };
        let stands = |&FastBackend { address, .. }: &FastBackend| {
            let (standing, server_id) = known(address).unwrap_or((Standing::Down, None));
            FastBackend { address, standing, server_id: server_id.filter(|_| self.quic.is_some()) }
        };
        self.past.backends.iter().map(stands).collect()
    }
}

impl Past {
    fn of(transition: Transition, before: (&Arc<[Slot]>, &Arc<[FastBackend]>)) -> Self {
        let fingerprint = transition.fingerprint();
        let slots = kept(before.0, transition.slots());
        let backends = kept(before.1, transition.backends());
        Self { transition, slots, backends, fingerprint }
    }

    const fn told(&self) -> (&Arc<[Slot]>, &Arc<[FastBackend]>) {
        (&self.slots, &self.backends)
    }
}

/// The list of before, where it says the same: who has it sees at once that nothing is other.
fn kept<T: PartialEq>(before: &Arc<[T]>, now: Vec<T>) -> Arc<[T]> {
    if now[..] == before[..] { Arc::clone(before) } else { now.into() }
}

#[cfg(test)]
#[path = "fast_tests.rs"]
mod tests;
