//! Counts the packets that services and backends did not get, by reason.
//!
//! The programs keep such a count by places in the maps, and only where a packet was dropped: it is read as a whole.
//! What is counted of a service is what was dropped before it had a backend; here its backends' are added.

use super::plan::{Key, backends_of};
use super::tables::{Placed, Tables};
use aya::maps::{MapData, PerCpuHashMap};
use buoy_xdp::forward::{Drop, Whose};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// How many packets were dropped for which reason.
pub type Reasons = BTreeMap<Drop, u64>;

/// Packets that services and backends did not get.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Losses {
    /// All of each service.
    pub services: BTreeMap<Key, Reasons>,
    /// Those of them that were for a backend.
    pub backends: BTreeMap<(Key, SocketAddr), Reasons>,
}

impl Losses {
    fn add(&mut self, key: Key, backend: Option<SocketAddr>, counts: &Reasons) {
        for (reason, count) in counts {
            *self.services.entry(key).or_default().entry(*reason).or_default() += count;
            if let Some(backend) = backend {
                let of_backend = self.backends.entry((key, backend)).or_default();
                *of_backend.entry(*reason).or_default() += count;
            }
        }
    }
}

/// The programs' map.
pub(super) struct Lost {
    map: PerCpuHashMap<MapData, u64, u64>,
    /// Of services that are not placed any more, or elsewhere.
    totals: Losses,
}

/// What is in the map, by place.
type Counts = BTreeMap<Whose, Reasons>;

impl Lost {
    /// With what an earlier run has left of these.
    pub(super) fn new(map: PerCpuHashMap<MapData, u64, u64>, tables: &Tables) -> Self {
        let mut lost = Self { map, totals: Losses::default() };
        let mut counts = lost.read();
        for placed in tables.placed().map(|(_, placed)| placed) {
            places(placed).for_each(|whose| drop(counts.remove(&whose)));
        }
        for placed in tables.retired().iter().map(|(_, placed)| placed) {
            places(placed).for_each(|whose| drop(counts.remove(&whose)));
        }
        // Whoever comes to these places has lost nothing yet.
        lost.forget(&counts);
        lost
    }

    /// Since the map was made.
    pub(super) fn count(&self, tables: &Tables) -> Losses {
        let (mut losses, counts) = (self.totals.clone(), self.read());
        if !counts.is_empty() {
            for (key, placed) in tables.placed() {
                add_all(&mut losses, &counts, (*key, placed), tables);
            }
            for (key, placed) in tables.retired() {
                add_all(&mut losses, &counts, (*key, placed), tables);
            }
        }
        losses
    }

    /// Keeps what those have lost whose places others will have.
    pub(super) fn retire(&mut self, tables: &Tables) {
        let mut counts = self.read();
        if counts.is_empty() {
            return;
        }
        let mut gone = Counts::new();
        for (key, placed) in tables.retired() {
            add_all(&mut self.totals, &counts, (*key, placed), tables);
            gone.extend(places(placed).filter_map(|whose| counts.remove_entry(&whose)));
        }
        self.forget(&gone);
    }

    fn read(&self) -> Counts {
        let mut counts = Counts::new();
        // One that cannot be read was never there, or another thread takes everything away.
        for (key, values) in self.map.iter().filter_map(Result::ok) {
            if let Some((whose, reason)) = Whose::of_key(key) {
                counts.entry(whose).or_default().insert(reason, values.iter().sum());
            }
        }
        counts
    }

    fn forget(&mut self, counts: &Counts) {
        for (whose, reasons) in counts {
            for reason in reasons.keys() {
                let _ = self.map.remove(&whose.key(*reason));
            }
        }
    }
}

/// Whose drops are a service's.
fn places(placed: &Placed) -> impl Iterator<Item = Whose> {
    let backends = backends_of(&placed.service).map(Whose::Backend);
    std::iter::once(Whose::Service(placed.place)).chain(backends)
}

fn add_all(losses: &mut Losses, counts: &Counts, (key, placed): (Key, &Placed), tables: &Tables) {
    let of = |whose| counts.get(&whose);
    if let Some(counts) = of(Whose::Service(placed.place)) {
        losses.add(key, None, counts);
    }
    for place in backends_of(&placed.service) {
        let Some(counts) = of(Whose::Backend(place)) else { continue };
        let backend = tables.backend(place);
        let address = SocketAddr::new(backend.address.into(), backend.port);
        losses.add(key, Some(address), counts);
    }
}
