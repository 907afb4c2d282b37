//! The tables of ports that flows have in place of their clients': one for each address and protocol.
//!
//! A table stays with its address when no service leads to it any more, with the flows that are in it, until
//! another address needs its place. So there need be no more than are wanted at one time.

use super::FastError;
use super::memory::Region;
use super::plan;
use super::tables::Placed;
use buoy_model::{FastPath, FastService};
use buoy_xdp::flow::Pooled;
use buoy_xdp::forward::{Address, BUCKET_WAYS, POOLED, Service};
use buoy_xdp::pool::{Outlets, POOL_BUCKETS, POOL_PORTS, PORT_FIRST, PORT_KEPT, PORT_LAST, Pool};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) struct Pools {
    pools: Region,
    ports: Region,
    /// What is written about ports.
    pooled: Region,
    /// Which tables a service has, by its place.
    outlets: Region,
    /// By their place.
    tables: BTreeMap<u32, Pool>,
}

impl Pools {
    /// With what an earlier run has left.
    pub(super) fn new(pools: Region, ports: Region, pooled: Region, outlets: Region) -> Self {
        let mut known = Self { pools, ports, pooled, outlets, tables: BTreeMap::new() };
        known.read();
        known
    }

    fn read(&mut self) {
        let all = (0..self.room()).map(|place| (place, Pool::from_words(self.pools.read(place))));
        self.tables = all.filter(|(_, pool)| pool.protocol != 0).collect();
    }

    fn room(&self) -> u32 {
        self.pools.len().min(self.ports.len() / POOL_BUCKETS)
    }

    /// Goes on with the flows of maps that had less room.
    pub(super) fn carry_over(&mut self, earlier: &[Region; 3]) {
        for (to, from) in [&self.pools, &self.ports, &self.pooled].into_iter().zip(earlier) {
            to.copy(from);
        }
        self.read();
    }

    /// The tables, with their places.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, Pool)> {
        self.tables.iter().map(|(place, pool)| (*place, *pool))
    }

    /// The states of all ports of a table.
    pub(super) fn states(&self, table: u32) -> impl Iterator<Item = u64> {
        let ports = POOL_PORTS as usize;
        let first = usize::try_from(table).unwrap_or(usize::MAX).saturating_mul(ports);
        let words = self.ports.words(first..first.saturating_add(ports));
        words.iter().map(|word| word.load(Ordering::Relaxed))
    }

    /// The state of a port, counted over all tables.
    pub(super) fn state(&self, port: u32) -> &AtomicU64 {
        self.ports.word(port / BUCKET_WAYS as u32, port as usize % BUCKET_WAYS)
    }

    /// What is written about a port; valid where its state says so.
    pub(super) fn pooled(&self, port: u32) -> Pooled {
        Pooled::from_words(self.pooled.read(port))
    }

    /// Writes about a port that is busy.
    pub(super) fn settle(&self, port: u32, entry: Pooled) {
        self.pooled.write(port, entry.to_words());
    }

    /// Whether what an earlier run wrote of a service's tables can be so.
    pub(super) fn fits(&self, place: u32, service: &Service) -> bool {
        let table = |place: &u16| self.tables.get(&u32::from(*place));
        let is_one = |pool: Option<&Pool>| pool.is_some_and(|p| p.protocol == service.protocol);
        let outlets = self.of(&Placed { place, service: *service, told: None });
        outlets.tables().iter().all(|place| is_one(table(place)))
    }

    /// A table for each address that is wanted: then `place` has all of them. Whether one became another address's:
    /// then services that have it stay where they are, and what leads to it does not.
    pub(super) fn prepare(&mut self, path: &FastPath) -> Result<bool, FastError> {
        let mut is_other = false;
        let wanted = plan::pools(path);
        let known: BTreeSet<Pool> = self.tables.values().copied().collect();
        for &pool in wanted.difference(&known) {
            let unused =
                |(place, other): (&u32, &Pool)| (!wanted.contains(other)).then_some(*place);
            let empty = (0..self.room()).find(|place| !self.tables.contains_key(place));
            let place = empty.or_else(|| self.tables.iter().find_map(unused));
            let place = place.ok_or(FastError::Full { what: "addresses in place of clients'" })?;
            self.pools.write(place, Pool::default().to_words());
            for bucket in 0..POOL_BUCKETS {
                self.ports.write(place * POOL_BUCKETS + bucket, [0; BUCKET_WAYS]);
            }
            self.pools.write(place, pool.to_words());
            is_other |= self.tables.insert(place, pool).is_some();
        }
        Ok(is_other)
    }

    /// The tables that a service is to have, in the order of its addresses.
    pub(super) fn place(&self, service: &FastService) -> Outlets {
        let mut outlets = Outlets::default();
        let tables = plan::pools_of(service).filter_map(|pool| {
            let (place, _) = self.tables.iter().find(|(_, known)| **known == pool)?;
            u16::try_from(*place).ok()
        });
        for (at, place) in outlets.tables.iter_mut().zip(tables) {
            *at = place;
            outlets.count += 1;
        }
        outlets
    }

    /// Writes them where no program looks yet.
    pub(super) fn lead(&self, service: u32, outlets: Outlets) {
        self.outlets.write(service, outlets.to_words());
    }

    /// The tables that a service has.
    pub(super) fn of(&self, placed: &Placed) -> Outlets {
        match placed.service.guard & POOLED {
            0 => Outlets::default(),
            _ => Outlets::from_words(self.outlets.read(placed.place)),
        }
    }

    /// Whether a service has the tables of these addresses.
    pub(super) fn is(&self, placed: &Placed, wanted: &FastService) -> bool {
        match (wanted.pool.is_empty(), placed.service.guard & POOLED) {
            (true, guard) => guard == 0,
            (false, _) => {
                let outlets = self.place(wanted);
                // An address without a table is another one than those that are there.
                outlets.tables().len() == wanted.pool.len() && outlets == self.of(placed)
            }
        }
    }

    /// What a service has, as `place` was given it.
    pub(super) fn addresses(&self, placed: &Placed) -> Arc<[IpAddr]> {
        let outlets = self.of(placed);
        let places = outlets.tables().iter();
        let tables = places.filter_map(|place| self.tables.get(&u32::from(*place)));
        tables.map(|pool| IpAddr::from(pool.address)).collect()
    }

    /// The tables that these services have, by their places.
    pub(super) fn used<'p>(&self, placed: impl Iterator<Item = &'p Placed>) -> BTreeMap<u32, Pool> {
        let tables = placed.flat_map(|placed| self.of(placed).tables().to_vec());
        let used = tables.map(u32::from);
        used.filter_map(|place| Some((place, *self.tables.get(&place)?))).collect()
    }

    /// What leads to the tables of these services: by address and protocol, and by the address alone to any
    /// that it has.
    pub(super) fn entries<'p>(&self, placed: impl Iterator<Item = &'p Placed>) -> Vec<(u64, u32)> {
        let used = self.used(placed).into_iter();
        let keys = |pool: Pool| [Pool { protocol: 0, ..pool }.key(), pool.key()];
        used.flat_map(|(place, pool)| keys(pool).map(|key| (key, place))).collect()
    }

    /// Keeps the ports of services from flows, where an address has both.
    pub(super) fn keep<'p>(&self, placed: impl Iterator<Item = &'p Placed>) {
        let mut kept: BTreeMap<(Address, u8), Vec<(u16, u16)>> = BTreeMap::new();
        for Placed { service, .. } in placed {
            let ports = kept.entry((service.address, service.protocol)).or_default();
            ports.push((service.first, service.last));
        }
        for (&place, pool) in &self.tables {
            let ports = kept.get(&(pool.address, pool.protocol)).map_or(&[][..], Vec::as_slice);
            let mut is_kept = vec![false; usize::from(PORT_LAST) + 1];
            for &(first, last) in ports {
                let range = usize::from(first)..=usize::from(last.min(PORT_LAST));
                is_kept.get_mut(range).into_iter().for_each(|range| range.fill(true));
            }
            for port in PORT_FIRST..=PORT_LAST {
                let bucket = place * POOL_BUCKETS + u32::from(port) / BUCKET_WAYS as u32;
                let state = self.ports.word(bucket, usize::from(port) % BUCKET_WAYS);
                let is = state.load(Ordering::Relaxed) == PORT_KEPT;
                match (is, is_kept[usize::from(port)]) {
                    (false, true) => state.store(PORT_KEPT, Ordering::SeqCst),
                    (true, false) => state.store(0, Ordering::SeqCst),
                    (true, true) | (false, false) => {}
                }
            }
        }
    }
}
