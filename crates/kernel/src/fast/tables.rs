//! The services of the host in the memory of the programs, and how one table replaces another.
//!
//! A service that changes in more than single slots is written anew beside the old one; then the entries
//! that lead to it are redirected, each with one store. What the old one occupied is used again only
//! after every program that may still look at it has ended. So a packet sees the old table or the new.

use super::FastError;
use super::buckets::{Buckets, Entries};
use super::extents::Extents;
use super::memory::Region;
use super::plan::{self, Key};
use super::{Resolve, Way};
use buoy_model::{FastPath, FastService, LinkId, Mac};
use buoy_xdp::forward::{
    Address, BITMAP_WORDS, Backend, LINKS_MAX, Link, NEXT_HOP_LOCAL, SLOTS_IN_LINE, Service,
    bit_of, hardware, key_of_vip, next_hop,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::Ordering;

/// Words of [`Backend`] that change: the next hop, and the source of the outer header.
const NEXT_HOP: usize = 0;
const SOURCE: usize = 3;
/// Words of `Settings` before the bitmaps.
const VIPS: usize = 4;
const SOURCES: usize = VIPS + BITMAP_WORDS;

/// The maps.
pub(super) struct Regions {
    pub(super) settings: Region,
    pub(super) buckets: Region,
    pub(super) reverse: Region,
    pub(super) services: Region,
    pub(super) slots: Region,
    pub(super) backends: Region,
    pub(super) links: Region,
}

/// A service that packets can get to.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    /// Its place among the services.
    pub(super) place: u32,
    /// What is written there.
    pub(super) service: Service,
}

pub(super) struct Tables {
    settings: Region,
    buckets: Buckets,
    reverse: Buckets,
    services: Region,
    slots: Region,
    backends: Region,
    links: Region,
    free_services: Extents,
    /// In lines.
    free_slots: Extents,
    free_backends: Extents,
    placed: BTreeMap<Key, Placed>,
    /// No entry leads to them any more, but a program may still be on its way.
    retired: Vec<(Key, Placed)>,
    /// Some entries may lead to them, after an error.
    uncertain: Vec<(Key, Placed)>,
}

impl Tables {
    pub(super) fn new(regions: Regions) -> Self {
        let Regions { settings, buckets, reverse, services, slots, backends, links } = regions;
        let mut tables = Self {
            settings,
            free_services: Extents::new(0..services.len()),
            free_slots: Extents::new(0..slots.len()),
            free_backends: Extents::new(0..backends.len()),
            buckets: Buckets::new(buckets),
            reverse: Buckets::new(reverse),
            services,
            slots,
            backends,
            links,
            placed: BTreeMap::new(),
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
            let placed = Placed { place, service };
            if let Some(other) = self.placed.insert(key, placed) {
                // The run ended while it replaced one with the other.
                self.retired.push((key, other));
            }
        }
        self.buckets.clear_unknown();
        self.reverse.clear_unknown();
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
        if !self.free_services.take_at(place..place + 1) {
            return false;
        }
        if !self.free_backends.take_at(backends_of(service)) {
            self.free_services.give_back(place..place + 1);
            return false;
        }
        if !self.free_slots.take_at(lines_of(service)) {
            self.free_services.give_back(place..place + 1);
            self.free_backends.give_back(backends_of(service));
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
            self.free_slots.give_back(lines_of(&old.service));
            self.free_backends.give_back(backends_of(&old.service));
        }
    }

    /// Makes it so. After an error, what was there before goes on, with or without some of the changes.
    pub(super) fn apply(&mut self, path: &FastPath, resolve: Resolve<'_>) -> Result<(), FastError> {
        plan::check(path)?;
        let mut next = BTreeMap::new();
        for service in &path.services {
            let key = Key::from(service);
            let placed = match self.placed.get(&key) {
                Some(placed) if self.is_like(placed, service) => placed.clone(),
                Some(_) | None => match self.place(service, resolve) {
                    Ok(placed) => placed,
                    Err(error) => {
                        self.give_up(&next);
                        return Err(error);
                    }
                },
            };
            next.insert(key, placed);
        }
        if let Err(error) = self.switch(path.seed, &next) {
            // Entries may lead to either, so neither is used for anything else.
            let new = next.into_iter().filter(|(key, new)| self.is_new(key, new));
            let new: Vec<_> = new.collect();
            self.uncertain.extend(new);
            return Err(error);
        }
        self.retired.append(&mut self.uncertain);
        for service in &path.services {
            self.write_slots(&next[&Key::from(service)].service, service);
        }
        for (key, old) in std::mem::replace(&mut self.placed, next) {
            if self.placed.get(&key).is_none_or(|new| new.place != old.place) {
                self.retired.push((key, old));
            }
        }
        Ok(())
    }

    /// Redirects the entries from what was to what is next.
    fn switch(&mut self, seed: u64, next: &BTreeMap<Key, Placed>) -> Result<(), FastError> {
        let (entries, reverse, sources) = self.entries_of(next);
        self.buckets.add(&entries)?;
        self.reverse.add(&reverse)?;
        let vips: BTreeSet<Address> = next.values().map(|p| p.service.address).collect();
        let sizes = plan::sizes(next.values().map(|p| &p.service));
        let reverse_sizes = plan::reverse_sizes(next.values(), |place| self.backend(place));
        self.settings.change(0, 0, seed);
        let masks = u64::from(self.buckets.mask()) | u64::from(self.reverse.mask()) << 32;
        self.settings.change(0, 1, masks);
        self.settings.change(0, 2, u64::from(sizes) | u64::from(reverse_sizes) << 32);
        self.write_bitmap(VIPS, &vips);
        self.write_bitmap(SOURCES, &sources);
        self.buckets.retain(&entries);
        self.reverse.retain(&reverse);
        Ok(())
    }

    /// All entries that there should be, and the addresses that answers come from.
    fn entries_of(&self, next: &BTreeMap<Key, Placed>) -> (Entries, Entries, BTreeSet<Address>) {
        let mut entries = Entries::new();
        let mut reverse: BTreeMap<u64, Option<u32>> = BTreeMap::new();
        let mut sources = BTreeSet::new();
        // Two ranges may have a block in common: the smaller one has it.
        let mut all: Vec<&Placed> = next.values().collect();
        all.sort_by_key(|placed| Reverse(placed.service.last - placed.service.first));
        for placed in all {
            entries.extend(plan::keys(&placed.service).map(|key| (key, placed.place)));
            entries.entry(key_of_vip(placed.service.address)).or_insert(placed.place);
            for place in backends_of(&placed.service) {
                let backend = self.backend(place);
                for key in plan::reverse_keys(&placed.service, &backend) {
                    sources.insert(backend.address);
                    // What belongs to two services is translated for neither.
                    reverse.entry(key).and_modify(|p| *p = None).or_insert(Some(place));
                }
            }
        }
        let reverse = reverse.into_iter().filter_map(|(key, place)| Some((key, place?))).collect();
        (entries, reverse, sources)
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

    /// Whether it differs in slots at most.
    fn is_like(&self, placed: &Placed, wanted: &FastService) -> bool {
        let service = &placed.service;
        let is = (service.forward, service.flow, service.slots_count, service.backends_count);
        is == plan::kinds(wanted)
            && backends_of(service).zip(&wanted.backends).all(|(place, wanted)| {
                let backend = self.backend(place);
                backend.address == Address::from(wanted.address.ip())
                    && backend.port == wanted.address.port()
            })
    }

    /// Writes a service where nothing is yet.
    fn place(&mut self, wanted: &FastService, resolve: Resolve<'_>) -> Result<Placed, FastError> {
        let (forward, flow, slots_count, backends_count) = plan::kinds(wanted);
        let full = |what| FastError::Full { what };
        let place = self.free_services.take(1).ok_or_else(|| full("services"))?.start;
        let Some(backends) = self.free_backends.take(backends_count) else {
            self.free_services.give_back(place..place + 1);
            return Err(full("backends"));
        };
        let Some(lines) = self.free_slots.take(slots_count.div_ceil(SLOTS_IN_LINE)) else {
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
            ..Service::default()
        };
        self.services.write(place, service.to_words());
        for (at, mut backend) in backends.zip(plan::backends(wanted, place)) {
            let way = resolve(IpAddr::from(backend.address));
            (backend.next_hop, backend.source) = self.reached(&service, way);
            self.backends.write(at, backend.to_words());
        }
        self.write_slots(&service, wanted);
        Ok(Placed { place, service })
    }

    /// Each slot is read by itself, so each may change by itself.
    fn write_slots(&self, service: &Service, wanted: &FastService) {
        for (line, slots) in lines_of(service).zip(wanted.slots.chunks(SLOTS_IN_LINE as usize)) {
            for (at, pair) in slots.chunks(2).enumerate() {
                let word = pair.iter().rev().fold(0, |word, slot| {
                    word << 32 | u64::from(slot.current) | u64::from(slot.previous) << 16
                });
                self.slots.change(line, at, word);
            }
        }
    }

    /// Nothing leads to these that are not placed.
    fn give_up(&mut self, next: &BTreeMap<Key, Placed>) {
        let new: Vec<_> = next.iter().filter(|(key, new)| self.is_new(key, new)).collect();
        self.retired.extend(new.into_iter().map(|(key, new)| (*key, new.clone())));
    }

    fn is_new(&self, key: &Key, new: &Placed) -> bool {
        self.placed.get(key).is_none_or(|placed| placed.place != new.place)
    }

    /// Asks again for the ways to all backends, and says how many are not known.
    pub(super) fn refresh(&mut self, resolve: Resolve<'_>) -> usize {
        let placed: Vec<Service> = self.placed.values().map(|p| p.service).collect();
        let mut unknown = 0;
        for service in placed {
            for place in backends_of(&service) {
                let backend = self.backend(place);
                let way = resolve(IpAddr::from(backend.address));
                let (hop, source) = self.reached(&service, way);
                unknown += usize::from(hop == 0);
                if source != backend.source {
                    // Not a packet with half a source: rather none for a moment.
                    self.backends.change(place, NEXT_HOP, 0);
                    self.backends.change(place, SOURCE, source.high);
                    self.backends.change(place, SOURCE + 1, source.low);
                }
                self.backends.change(place, NEXT_HOP, hop);
            }
        }
        unknown
    }

    /// The next hop as it lies in a backend, and the source of what is sent there.
    fn reached(&self, service: &Service, way: Option<Way>) -> (u64, Address) {
        let nowhere = (0, Address::default());
        match way {
            // The answer of a translated local process would leave the host untranslated.
            Some(Way::Local) if service.forward == buoy_xdp::forward::FORWARD_NAT => nowhere,
            Some(Way::Local) => (NEXT_HOP_LOCAL, Address::default()),
            // A router would send a packet for the VIP straight back.
            Some(Way::Via(hop))
                if hop.is_gateway && service.forward == buoy_xdp::forward::FORWARD_DSR =>
            {
                nowhere
            }
            Some(Way::Via(hop)) => match self.link(hop.link, hop.link_mac, hop.mtu).zip(hop.mac) {
                Some((link, mac)) => (next_hop(mac.0, link), hop.source.into()),
                None => nowhere,
            },
            None => nowhere,
        }
    }

    /// The place of a link, with its address and MTU as they are now; `None` when there are too many.
    fn link(&self, id: LinkId, mac: Mac, mtu: u16) -> Option<u16> {
        let index = |place: u32| self.links.word(place, 1).load(Ordering::Relaxed);
        let places = || 1..LINKS_MAX;
        let place = places()
            .find(|&place| index(place) == u64::from(id.0))
            .or_else(|| places().find(|&place| index(place) == 0))?;
        let link = Link { mac: hardware(mac.0, mtu), index: id.0.into() };
        self.links.change(place, 0, link.mac);
        self.links.change(place, 1, link.index);
        u16::try_from(place).ok()
    }

    /// So many seconds are over since some moment.
    pub(super) fn tick(&self, seconds: u64) {
        self.settings.change(0, 3, seconds & 0xffff_ffff);
    }
}

/// The places of a service's backends.
pub(super) const fn backends_of(service: &Service) -> std::ops::Range<u32> {
    service.backends_first..service.backends_first.saturating_add(service.backends_count)
}

const fn lines_of(service: &Service) -> std::ops::Range<u32> {
    let first = service.slots_first / SLOTS_IN_LINE;
    first..first + service.slots_count.div_ceil(SLOTS_IN_LINE)
}
