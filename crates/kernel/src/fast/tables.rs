//! The services of the host in the memory of the programs, and how one table replaces another.
//!
//! A service that changes in more than single slots is written anew beside the old one; then the entries
//! that lead to it are redirected, each with one store. What the old one occupied is used again only
//! after every program that may still look at it has ended. So a packet sees the old table or the new.

mod amend;
mod clients;
mod exact;
mod flows;
mod settings;

use super::FastError;
use super::apart;
use super::buckets::{Buckets, Entries};
use super::extents::Extents;
use super::limits;
use super::lines::{self, Lines, lines_of};
use super::links;
use super::memory::Region;
use super::plan::{self, Key, Kinds, backends_of, way_to};
use super::pools::Pools;
use super::sources::Lists;
use super::{Resolve, Unreached, Way, WhyNot};
use amend::Differences;
use buoy_model::{FastBackend, FastPath, FastService, Slot};
use buoy_xdp::forward::{
    self, Address, BITMAP_WORDS, Backend, EXACT_MAX, LINKS_MAX, NEXT_HOP_LOCAL, OWN_MAX, POOLED,
    SLOTS_IN_LINE, Service, bit_of, key_of_vip, next_hop,
};
use clients::Clients;
use flows::Flows;
pub use flows::Learned;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Words of [`Backend`] that change: the next hop, the source of the outer header, and the one with the
/// identity, and the one with what is known of a checksum.
const NEXT_HOP: usize = 0;
const SOURCE: usize = 3;
const FACTS: usize = 5;
const DELTA: usize = 6;
/// Words of `Settings`: the one with the flags, and those of the bitmaps and lists.
pub(super) const TICK: usize = 3;
const VIPS: usize = 4;
const SOURCES: usize = VIPS + BITMAP_WORDS;
const OWN: usize = SOURCES + BITMAP_WORDS;
/// That of a link with its address and MTU; the next one has its index.
pub(super) const LINKS: usize = OWN + 2 * OWN_MAX;
/// Those of the exact matches.
const EXACT_IPV4: usize = LINKS + 2 * LINKS_MAX;
const EXACT_IPV6: usize = EXACT_IPV4 + 2 * EXACT_MAX;

/// The maps.
pub(super) struct Regions {
    pub(super) settings: Region,
    pub(super) buckets: Region,
    pub(super) reverse: Region,
    pub(super) services: Region,
    pub(super) slots: Region,
    pub(super) backends: Region,
    pub(super) lists: Lists,
    pub(super) pools: Pools,
    pub(super) remembered: Region,
    pub(super) clients: Region,
}

/// What a run with more room takes from the maps of one with less.
pub(super) struct Earlier {
    pub(super) settings: Region,
    pub(super) pools: [Region; 3],
}

/// A service that packets can get to.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    /// Its place among the services.
    pub(super) place: u32,
    /// What is written there.
    pub(super) service: Service,
    /// Its backends as they were wanted last; `None`: an earlier run wrote them.
    pub(super) told: Option<Arc<[FastBackend]>>,
}

pub(super) struct Tables {
    settings: Region,
    buckets: Buckets,
    reverse: Buckets,
    services: Region,
    lines: Lines,
    backends: Region,
    lists: Lists,
    pools: Pools,
    flows: Flows,
    clients: Clients,
    free_services: Extents,
    free_backends: Extents,
    placed: BTreeMap<Key, Placed>,
    /// Addresses of this host that it asks translated backends from.
    own: BTreeSet<Address>,
    /// The seconds at the last `tick`.
    counted: Option<u64>,
    /// The entries are those of `placed`.
    is_switched: bool,
    /// No entry leads to them any more, but a program may still be on its way.
    retired: Vec<(Key, Placed)>,
    /// Some entries may lead to them, after an error.
    uncertain: Vec<(Key, Placed)>,
}

impl Tables {
    pub(super) fn new(regions: Regions) -> Self {
        let Regions { settings, buckets, reverse, services, slots, backends, .. } = regions;
        let mut tables = Self {
            settings,
            free_services: Extents::new(0..services.len()),
            free_backends: Extents::new(0..backends.len()),
            buckets: Buckets::new(buckets),
            reverse: Buckets::new(reverse),
            services,
            lines: Lines::new(slots),
            backends,
            lists: regions.lists,
            flows: Flows::new(regions.remembered, &regions.pools),
            clients: Clients::new(regions.clients),
            pools: regions.pools,
            placed: BTreeMap::new(),
            own: BTreeSet::new(),
            counted: None,
            is_switched: false,
            retired: Vec::new(),
            uncertain: Vec::new(),
        };
        tables.adopt();
        tables
    }

    /// Knows again what an earlier run placed.
    fn adopt(&mut self) {
        for place in self.buckets.places() {
            if place >= self.services.len() {
                continue;
            }
            let service = Service::from_words(self.services.read(place));
            if !self.take_at(place, &service) {
                continue;
            }
            let Some(key) = Key::of(&service) else { continue };
            for entry in plan::keys(&service) {
                self.buckets.adopt(entry, place);
            }
            self.buckets.adopt(key_of_vip(service.address), place);
            self.adopt_reverse(&service);
            let placed = Placed { place, service, told: None };
            if let Some(other) = self.placed.insert(key, placed) {
                // The run ended while it replaced one with the other.
                self.retired.push((key, other));
            }
        }
        for (key, place) in self.pools.entries(self.placed.values()) {
            self.reverse.adopt(key, place);
        }
        self.buckets.clear_unknown();
        self.free_exact();
        self.write_exact(&self.placed);
        self.reverse.clear_unknown();
        self.lists.clear_unknown();
    }

    fn adopt_reverse(&mut self, service: &Service) {
        for place in backends_of(service) {
            let backend = Backend::from_words(self.backends.read(place));
            for entry in plan::reverse_keys(service, &backend) {
                self.reverse.adopt(entry, place);
            }
        }
    }

    fn take_at(&mut self, place: u32, service: &Service) -> bool {
        if !self.pools.fits(place, service) || !self.free_services.take_at(place..place + 1) {
            return false;
        }
        if !self.free_backends.take_at(backends_of(service)) {
            self.free_services.give_back(place..place + 1);
            return false;
        }
        if !self.lines.adopt(service) {
            self.free_services.give_back(place..place + 1);
            self.free_backends.give_back(backends_of(service));
            return false;
        }
        if !self.lists.adopt(limits::list_of(service)) {
            self.free_services.give_back(place..place + 1);
            self.free_backends.give_back(backends_of(service));
            self.lines.release(service);
            return false;
        }
        true
    }

    /// What packets can get to.
    pub(super) fn placed(&self) -> impl Iterator<Item = (&Key, &Placed)> {
        self.placed.iter()
    }

    /// What the programs may still look at, until `free`.
    pub(super) fn retired(&self) -> &[(Key, Placed)] {
        &self.retired
    }

    pub(super) fn backend(&self, place: u32) -> Backend {
        Backend::from_words(self.backends.read(place))
    }

    /// No program looks at what is retired any more.
    pub(super) fn free(&mut self) {
        for (_, old) in std::mem::take(&mut self.retired) {
            self.free_services.give_back(old.place..old.place + 1);
            self.lines.release(&old.service);
            self.lists.release(limits::list_of(&old.service));
            self.free_backends.give_back(backends_of(&old.service));
        }
        self.free_exact();
    }

    /// What is there, as `apply` was given it.
    pub(super) fn path(&self) -> FastPath {
        let services = self.placed.iter().filter_map(|(key, placed)| {
            let service = &placed.service;
            let forward = plan::forward_of(service)?;
            let shown = |at| plan::shown(service, &self.backend(at));
            let backends = backends_of(service).map(shown).collect();
            let Key { address, protocol, ports } = *key;
            Some(FastService {
                address,
                protocol,
                ports,
                forward,
                flow: apart::fields(service),
                stick: apart::stick_of(service),
                quic: apart::quic_of(service),
                sources: self.lists.get(limits::list_of(service)),
                new_connections: limits::of(service),
                pool: self.pools.addresses(placed),
                backends,
                slots: self.lines.slots(service),
            })
        });
        FastPath { seed: self.seed(), services: services.collect() }
    }

    fn seed(&self) -> u64 {
        self.settings.word(0, 0).load(Ordering::Relaxed)
    }

    /// Makes it so. After an error, what was there before goes on, with or without some of the changes.
    pub(super) fn apply(&mut self, path: &FastPath, resolve: Resolve<'_>) -> Result<(), FastError> {
        if path.services.len() == self.placed.len()
            && self.amend(path.seed, &path.services, resolve)
        {
            return Ok(());
        }
        plan::check(path)?;
        self.is_switched &= !self.pools.prepare(path)?;
        let mut differences = Differences::default();
        let rewrites = self.rewrites(path, &mut differences);
        let mut shared: BTreeMap<*const Slot, u32> = BTreeMap::new();
        let (mut next, mut steps) = (BTreeMap::new(), Vec::new());
        for service in &path.services {
            let key = Key::from(service);
            let placed = match self.placed.get(&key) {
                Some(placed) if self.stays(placed, service, &rewrites, &mut differences) => {
                    steps.extend(self.step(placed, service, &mut differences));
                    Placed { told: Some(Arc::clone(&service.backends)), ..placed.clone() }
                }
                Some(_) | None => {
                    let like = shared.get(&Arc::as_ptr(&service.slots).cast()).copied();
                    match self.place(service, like, resolve) {
                        Ok(placed) => placed,
                        Err(error) => {
                            self.give_up(&next);
                            return Err(error);
                        }
                    }
                }
            };
            let first = lines_of(&placed.service).start;
            shared.entry(Arc::as_ptr(&service.slots).cast()).or_insert(first);
            next.insert(key, placed);
        }
        if let Err(error) = self.switch_if_other(path.seed, &next) {
            // Entries may lead to either, so neither is used for anything else.
            let new = next.into_iter().filter(|(key, new)| self.is_new(key, new));
            let new: Vec<_> = new.collect();
            self.uncertain.extend(new);
            return Err(error);
        }
        self.retired.append(&mut self.uncertain);
        self.rewrite(&steps, rewrites, resolve);
        for (key, old) in std::mem::replace(&mut self.placed, next) {
            if self.placed.get(&key).is_none_or(|new| new.place != old.place) {
                self.retired.push((key, old));
            }
        }
        Ok(())
    }

    /// What becomes of the tables that are there: the first service that keeps one decides.
    fn rewrites(
        &self,
        path: &FastPath,
        differences: &mut Differences,
    ) -> BTreeMap<u32, Arc<[Slot]>> {
        let mut rewrites = BTreeMap::new();
        for service in &path.services {
            if let Some(placed) = self.placed.get(&Key::from(service))
                && self.step(placed, service, differences).is_some()
            {
                let first = lines_of(&placed.service).start;
                rewrites.entry(first).or_insert_with(|| Arc::clone(&service.slots));
            }
        }
        rewrites
    }

    /// Whether a service stays where it is, and its table becomes the right one.
    fn stays(
        &self,
        placed: &Placed,
        wanted: &FastService,
        rewrites: &BTreeMap<u32, Arc<[Slot]>>,
        differences: &mut Differences,
    ) -> bool {
        let table = rewrites.get(&lines_of(&placed.service).start);
        self.step(placed, wanted, differences).is_some()
            && table.is_some_and(|table| lines::is_same(table, &wanted.slots))
    }

    fn switch_if_other(
        &mut self,
        seed: u64,
        next: &BTreeMap<Key, Placed>,
    ) -> Result<(), FastError> {
        let is_where_it_was = self.is_switched
            && self.seed() == seed
            && self.placed.len() == next.len()
            && next.iter().all(|(key, new)| !self.is_new(key, new));
        self.is_switched = is_where_it_was;
        if !is_where_it_was {
            self.switch(seed, next)?;
            self.is_switched = true;
        }
        Ok(())
    }

    /// Redirects the entries from what was to what is next.
    fn switch(&mut self, seed: u64, next: &BTreeMap<Key, Placed>) -> Result<(), FastError> {
        self.pools.keep(next.values());
        let entries = Self::entries_of(next);
        let mut answers = plan::answers(next.values(), |place| self.backend(place));
        answers.entries.extend(self.pools.entries(next.values()));
        // Before the first service that has one, and after the last.
        let has_limits = next.values().any(|p| limits::of(&p.service).is_some());
        if has_limits {
            self.set_flag(forward::HAS_LIMITS, true);
        }
        self.buckets.add(&entries)?;
        self.write_exact(next);
        self.reverse.add(&answers.entries)?;
        let pools = self.pools.used(next.values());
        let mut vips: BTreeSet<Address> = next.values().map(|p| p.service.address).collect();
        // Whoever looks for what is not plain must look at what comes to a pool, too.
        vips.extend(pools.values().map(|pool| pool.address));
        self.set_flag(forward::HAS_POOLS, !pools.is_empty());
        let sizes = plan::sizes(next.values().map(|p| &p.service));
        self.settings.change(0, 0, seed);
        let masks = u64::from(self.buckets.mask()) | u64::from(self.reverse.mask()) << 32;
        self.settings.change(0, 1, masks);
        self.settings.change(0, 2, u64::from(sizes) | u64::from(answers.sizes) << 32);
        self.write_bitmap(VIPS, &vips);
        self.write_bitmap(SOURCES, &answers.sources);
        self.buckets.retain(&entries);
        self.reverse.retain(&answers.entries);
        self.set_flag(forward::HAS_LIMITS, has_limits);
        Ok(())
    }

    /// All entries that there should be.
    fn entries_of(next: &BTreeMap<Key, Placed>) -> Entries {
        let mut entries = Entries::new();
        // Two ranges may have a block in common: the smaller one has it.
        let mut all: Vec<&Placed> = next.values().collect();
        all.sort_by_key(|placed| Reverse(placed.service.last - placed.service.first));
        for placed in all {
            entries.extend(plan::keys(&placed.service).map(|key| (key, placed.place)));
            entries.entry(key_of_vip(placed.service.address)).or_insert(placed.place);
        }
        entries
    }

    fn write_bitmap(&self, first: usize, addresses: &BTreeSet<Address>) {
        let mut words = [0; BITMAP_WORDS];
        for &address in addresses {
            let (at, bit) = bit_of(address);
            words[at] |= bit;
        }
        for (at, word) in words.into_iter().enumerate() {
            self.settings.change(0, first + at, word);
        }
    }

    /// Writes a service where nothing is yet, after the list that says whom it is there for.
    fn place(
        &mut self,
        wanted: &FastService,
        like: Option<u32>,
        resolve: Resolve<'_>,
    ) -> Result<Placed, FastError> {
        let no_room = || FastError::Service {
            service: Key::from(wanted).to_string(),
            reason: "the lists of clients of all services have too many prefixes together",
        };
        let list = self.lists.place(&wanted.sources).ok_or_else(no_room)?;
        let placed = self.place_for(list, wanted, like, resolve);
        if placed.is_err() {
            self.lists.release(list);
        }
        placed
    }

    fn place_for(
        &mut self,
        list: u32,
        wanted: &FastService,
        like: Option<u32>,
        resolve: Resolve<'_>,
    ) -> Result<Placed, FastError> {
        let kinds = plan::kinds(wanted);
        let Kinds { forward, gue_port, flow, quic, stick, slots_count, backends_count } = kinds;
        let full = |what| FastError::Full { what };
        let place = self.free_services.take(1).ok_or_else(|| full("services"))?.start;
        let Some(backends) = self.free_backends.take(backends_count) else {
            self.free_services.give_back(place..place + 1);
            return Err(full("backends"));
        };
        let Some(lines) = self.lines.place(&wanted.slots, like) else {
            self.free_services.give_back(place..place + 1);
            self.free_backends.give_back(backends);
            return Err(full("slots"));
        };
        let service = Service {
            address: wanted.address.into(),
            first: wanted.ports.0,
            last: wanted.ports.1,
            protocol: plan::number(wanted.protocol),
            forward,
            flow,
            slots_first: lines.start * SLOTS_IN_LINE,
            slots_count,
            backends_first: backends.start,
            backends_count,
            guard: list
                | if wanted.pool.is_empty() { 0 } else { POOLED }
                | apart::guard(flow, stick, quic),
            gue_port,
            quic,
            stick,
            ..Service::default()
        };
        let service = limits::with(service, wanted.new_connections);
        self.pools.lead(place, self.pools.place(wanted));
        self.services.write(place, service.to_words());
        for (at, mut backend) in backends.zip(plan::backends(wanted, place)) {
            let to = Some(IpAddr::from(backend.address)).filter(|to| !to.is_unspecified());
            let way = to.and_then(|to| way_to(&service, to, resolve));
            self.own.extend(plan::own(&service, way));
            let way = self.reached(&service, way);
            (backend.next_hop, backend.source) = way.unwrap_or_default();
            backend.delta = plan::delta(&service, &backend);
            self.backends.write(at, backend.to_words());
        }
        self.write_own();
        Ok(Placed { place, service, told: Some(Arc::clone(&wanted.backends)) })
    }

    /// Nothing leads to these that are not placed.
    fn give_up(&mut self, next: &BTreeMap<Key, Placed>) {
        let new: Vec<_> = next.iter().filter(|(key, new)| self.is_new(key, new)).collect();
        self.retired.extend(new.into_iter().map(|(key, new)| (*key, new.clone())));
    }

    fn is_new(&self, key: &Key, new: &Placed) -> bool {
        self.placed.get(key).is_none_or(|placed| placed.place != new.place)
    }

    /// Asks again for the ways to all backends, and names those that cannot be reached.
    pub(super) fn refresh(&mut self, resolve: Resolve<'_>) -> Vec<Unreached> {
        let placed: Vec<(Key, Service)> =
            self.placed.iter().map(|(k, p)| (*k, p.service)).collect();
        let (mut unreached, mut owns) = (Vec::new(), BTreeSet::new());
        for (service_key, service) in placed {
            for place in backends_of(&service) {
                let backend = self.backend(place);
                let address = IpAddr::from(backend.address);
                if address.is_unspecified() {
                    continue;
                }
                let way = way_to(&service, address, resolve);
                // Of who is down as well: its answers to checks would be translated, and it would stay down.
                owns.extend(plan::own(&service, way));
                if backend.identity == 0 {
                    continue;
                }
                let way = self.reached(&service, way);
                if let Err(why) = way {
                    unreached.push(Unreached { service: service_key, backend: address, why });
                }
                let (hop, source) = way.unwrap_or_default();
                if source != backend.source {
                    // Not a packet with half a source: rather none for a moment.
                    self.backends.change(place, NEXT_HOP, 0);
                    self.backends.change(place, SOURCE, source.high);
                    self.backends.change(place, SOURCE + 1, source.low);
                    let delta = plan::delta(&service, &Backend { source, ..backend });
                    let delta = Backend { delta, ..self.backend(place) }.to_words()[DELTA];
                    self.backends.change(place, DELTA, delta);
                }
                self.backends.change(place, NEXT_HOP, hop);
            }
        }
        self.own = owns;
        self.write_own();
        unreached
    }

    fn write_own(&self) {
        for (at, address) in
            self.own.iter().chain(std::iter::repeat(&Address::default())).take(OWN_MAX).enumerate()
        {
            self.settings.change(0, OWN + 2 * at, address.high);
            self.settings.change(0, OWN + 2 * at + 1, address.low);
        }
    }

    /// The next hop as it lies in a backend, and the source of what is sent there.
    fn reached(&self, service: &Service, way: Option<Way>) -> Result<(u64, Address), WhyNot> {
        match way {
            None => Err(WhyNot::NoRoute),
            // The answer of a translated local process would leave the host untranslated.
            Some(Way::Local) if service.forward == forward::FORWARD_NAT => Err(WhyNot::Local),
            Some(Way::Local) => Ok((NEXT_HOP_LOCAL, Address::default())),
            // A router would send a packet for the VIP straight back.
            Some(Way::Via(hop)) if hop.is_gateway && service.forward == forward::FORWARD_DSR => {
                Err(WhyNot::BehindRouter)
            }
            Some(Way::Via(hop)) => {
                let mac = hop.mac.ok_or(WhyNot::NoNeighbour)?;
                let link = links::place(&self.settings, &hop).ok_or(WhyNot::NoLink)?;
                Ok((next_hop(mac.0, link), hop.source.into()))
            }
        }
    }
}
