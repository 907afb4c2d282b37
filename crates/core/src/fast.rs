//! Decides what the fast path of this host should be: which services, with which backends and tables.
//!
//! A host has every service of mode "xdp" on an address that it may own, owner or not, so that a failover
//! has nothing to set up. Each address, protocol and port is a service of its own, with a table made
//! from the backends of the address's family and their states (`balance::shares`, `maglev`), and a
//! memory of what the table was (`transition`). What nobody changed is not computed again: one backend
//! that goes down costs the services that have it, and services with the same backends share the work.
//!
//! Absent on purpose: maps, interfaces and neighbours (the kernel crate fills them in), and checks.

use crate::balance::{self, Share};
use crate::history::Malformed;
use crate::maglev::{Base, Table};
use crate::random::mix;
use crate::transition::{Member, Transition};
use alloc::collections::BTreeMap;
use alloc::string::String;
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
    /// As the kernel needs it.
    slots: Arc<[Slot]>,
    /// `Transition::fingerprint`.
    fingerprint: u64,
}

impl Fast {
    /// Nothing yet. The seed (`Keyring::flow_seed`) must be the same on all nodes and unknown to clients.
    pub const fn new(seed: u64) -> Self {
        Self { seed, services: BTreeMap::new() }
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
                Arc::new(Past::of(Transition::adopt(now, service), &service.slots))
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
                fast.services.insert((service.address, service.protocol, ports), entry);
            }
        }
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
        let mut tables = Tables::default();
        let mut changes = Changes::default();
        let nothing = Arc::new(Past::default());
        let mut before = core::mem::take(&mut self.services);
        for group in &desired.groups {
            for service in &group.services {
                let Mode::Xdp { forward, flow } = service.mode else { continue };
                let mut wishes = Wishes::default();
                let quorum = service.life.quorum;
                for address in addresses(group, service) {
                    let key = (address, service.protocol, service.ports);
                    let flow = flow.behind(address);
                    let known = before.remove(&key).filter(|entry| entry.flow == flow);
                    let mut entry = known.unwrap_or_else(|| Entry {
                        forward,
                        flow,
                        stick: None,
                        quic: None,
                        sources: Arc::clone(&service.sources),
                        new_connections: service.new_connections,
                        pool: Arc::default(),
                        wish: None,
                        base: None,
                        past: Arc::clone(&nothing),
                        digest: 0,
                        followed: None,
                    });
                    entry.forward = forward;
                    (entry.stick, entry.quic) =
                        (service.life.stick.map(|s| s.timeout), service.front.quic);
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
                        let made = tables.of(wish, entry.base.take());
                        let table = made.as_ref().map(|made| &*made.table);
                        entry.past = changes.of(now, &entry.past, wish, table);
                        entry.digest = table.map_or(0, Table::digest);
                        entry.base = made.map(|made| made.base);
                        entry.wish = Some(Arc::clone(wish));
                    }
                    let twice = self.services.insert(key, entry);
                    debug_assert!(twice.is_none(), "config lets a port be served once");
                }
            }
        }
    }

    /// To be called when `deadline` has passed.
    pub fn tick(&mut self, now: Instant) {
        let mut ticked: BTreeMap<*const Past, Arc<Past>> = BTreeMap::new();
        let mut kept = Vec::new();
        let is_due = |e: &&mut Entry| e.past.transition.deadline().is_some_and(|at| at <= now);

        for entry in self.services.values_mut().filter(is_due) {
            let next = ticked.entry(Arc::as_ptr(&entry.past)).or_insert_with(|| {
                let mut transition = entry.past.transition.clone();
                transition.tick(now);
                Arc::new(Past::of(transition, &entry.past.slots))
            });
            // The one before lives as long as this loop: nothing else gets its address.
            let before = core::mem::replace(&mut entry.past, Arc::clone(next));
            kept.push(before);
        }
    }

    /// When to call `tick`: then a backend has had its time to finish, and `path` is another.
    pub fn deadline(&self) -> Option<Instant> {
        self.services.values().filter_map(|entry| entry.past.transition.deadline()).min()
    }

    /// What should be there now.
    pub fn path(&self) -> FastPath {
        FastPath { seed: self.seed, services: self.services().collect() }
    }

    /// The services of `path`, one after the other: a thousand tables at once are many megabytes.
    pub fn services(&self) -> impl Iterator<Item = FastService> {
        self.services.iter().map(|(&(address, protocol, ports), entry)| FastService {
            address,
            protocol,
            ports: (ports.first(), ports.last()),
            forward: entry.forward,
            flow: entry.flow,
            stick: entry.stick,
            quic: entry.quic,
            sources: Arc::clone(&entry.sources),
            new_connections: entry.new_connections,
            pool: Arc::clone(&entry.pool),
            backends: entry.backends(),
            slots: Arc::clone(&entry.past.slots),
        })
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
        let before = Arc::new(Past::of(transition, &Arc::default()));
        let (mut tables, mut changes) = (Tables::default(), Changes::default());
        for key in keys {
            let Some(entry) = self.services.get_mut(&key) else { continue };
            let Some(wish) = &entry.wish else { continue };
            let made = tables.of(wish, entry.base.take());
            let table = made.as_ref().map(|made| &*made.table);
            entry.past = changes.of(now, &before, wish, table);
            entry.base = made.map(|made| made.base);
            entry.followed = Some((told, entry.past.fingerprint));
        }
        Ok(())
    }

    /// Slots in a change, of all services together.
    pub fn moving(&self) -> usize {
        self.services.values().map(|entry| entry.past.transition.moving()).sum()
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
    /// Whom slots name. How they stand and what they are called matters only where a slot alone does not decide.
    fn backends(&self) -> Vec<FastBackend> {
        let mut backends = self.past.transition.backends();
        if self.stick.is_none() && self.quic.is_none() {
            return backends;
        }
        let known = |of: SocketAddr| {
            let wish = self.wish.as_ref()?;
            let at = wish.backends.iter().position(|b| b.address == of)?;
            Some((wish.standings[at], wish.backends[at].server_id))
        };
        for backend in &mut backends {
            let (standing, server_id) = known(backend.address).unwrap_or((Standing::Down, None));
            backend.standing = standing;
            backend.server_id = server_id.filter(|_| self.quic.is_some());
        }
        backends
    }
}

impl Past {
    fn of(transition: Transition, before: &Arc<[Slot]>) -> Self {
        let slots = transition.slots();
        let is_same = slots[..] == before[..];
        let fingerprint = transition.fingerprint();
        let slots = if is_same { Arc::clone(before) } else { slots.into() };
        Self { transition, slots, fingerprint }
    }
}

/// Changes made in one go: what was one table and is to become the same stays one.
#[derive(Default)]
struct Changes {
    /// With what was before, so that nothing else gets its address.
    made: BTreeMap<ChangeOf, (Arc<Past>, Arc<Past>)>,
}

/// What it was, who is in the service, and which table it gets.
type ChangeOf = (*const Past, Vec<Member>, Option<*const Table>);

impl Changes {
    fn of(
        &mut self,
        now: Instant,
        before: &Arc<Past>,
        wish: &Wish,
        table: Option<&Table>,
    ) -> Arc<Past> {
        let key = (Arc::as_ptr(before), wish.members(), table.map(core::ptr::from_ref));
        let made = self.made.entry(key).or_insert_with_key(|(_, members, _)| {
            let mut transition = before.transition.clone();
            transition.change(now, members, table.map_or(&[][..], |table| table.slots()));
            let after = Past::of(transition, &before.slots);
            (Arc::clone(before), Arc::new(after))
        });
        Arc::clone(&made.1)
    }
}

/// What a table is made from.
#[derive(Debug)]
struct Wish {
    /// Those of the address's family, in the file's order.
    backends: Vec<Backend>,
    standings: Vec<Standing>,
    /// Fewer of them are not enough.
    quorum: u16,
}

impl Wish {
    fn is<'b>(&'b self, quorum: u16, able: impl Iterator<Item = (&'b Backend, Standing)>) -> bool {
        self.quorum == quorum && able.eq(self.backends.iter().zip(self.standings.iter().copied()))
    }

    fn members(&self) -> Vec<Member> {
        // Who keeps what it has is to the table as one that is drained.
        let alive = |standing: Standing| standing != Standing::Down;
        let all = self.backends.iter().zip(&self.standings);
        all.map(|(b, &standing)| Member { address: b.address, alive: alive(standing) }).collect()
    }

    fn shares(&self) -> Vec<Share> {
        let state = |standing: &Standing| match standing {
            Standing::Up => BackendState::Up,
            Standing::Keeps | Standing::Down => BackendState::Down,
        };
        let states: Vec<BackendState> = self.standings.iter().map(state).collect();
        balance::shares_of_quorum(&self.backends, &states, self.quorum)
    }
}

/// The wishes of one service, one for each family.
#[derive(Default)]
struct Wishes {
    v4: Option<Arc<Wish>>,
    v6: Option<Arc<Wish>>,
}

impl Wishes {
    fn of<'b>(
        &mut self,
        vip: IpAddr,
        quorum: u16,
        able: impl Iterator<Item = (&'b Backend, Standing)>,
    ) -> &Arc<Wish> {
        let family = match vip {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        };
        family.get_or_insert_with(|| {
            let (backends, standings) = able.map(|(b, standing)| (b.clone(), standing)).unzip();
            Arc::new(Wish { backends, standings, quorum })
        })
    }
}

/// Tables made in one go: the addresses of a pool have the same backends.
#[derive(Default)]
struct Tables {
    made: BTreeMap<MadeFrom, Option<Made>>,
}

/// The names of all backends, and the weights of those that share.
type MadeFrom = (Vec<String>, Vec<(usize, u16)>);

#[derive(Clone)]
struct Made {
    base: Arc<Base>,
    table: Arc<Table>,
}

impl Tables {
    /// `base` is what the service had before: while only states change, it goes on.
    fn of(&mut self, wish: &Wish, base: Option<Arc<Base>>) -> Option<Made> {
        let (backends, shares) = (&wish.backends, wish.shares());
        let names = backends.iter().map(|backend| backend.name.clone());
        let weights = shares.iter().map(|share| (share.backend, share.weight));
        let made = self.made.entry((names.collect(), weights.collect()));
        let make = || {
            let kept = base.filter(|base| base.is_of(backends, &shares));
            let base = match kept {
                Some(base) => base,
                None => Arc::new(Base::new(backends, &shares)?),
            };
            let table = Arc::new(base.table(&shares)?);
            Some(Made { base, table })
        };
        made.or_insert_with(make).clone()
    }
}

#[cfg(test)]
#[path = "fast_tests.rs"]
mod tests;
