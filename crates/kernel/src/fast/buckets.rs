//! The table that leads the programs from a key to a place: a change is one store.
//!
//! An entry that was taken out leaves a mark, so that a program that is on its way past it still finds
//! what lies further on. `wanted` is the whole table as it should be; what differs is changed.

use super::FastError;
use super::memory::Region;
use buoy_xdp::forward::{BUCKET_PROBES, BUCKET_WAYS, halves};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// From keys to places.
pub(super) type Entries = BTreeMap<u64, u32>;

pub(super) struct Buckets {
    region: Region,
    /// What is in it.
    entries: Entries,
}

/// Where an entry lies.
#[derive(Clone, Copy)]
struct Spot {
    bucket: u32,
    way: usize,
}

impl Buckets {
    pub(super) const fn new(region: Region) -> Self {
        Self { region, entries: BTreeMap::new() }
    }

    /// The number of buckets less one: how the programs cut a hash.
    pub(super) const fn mask(&self) -> u32 {
        self.region.len() - 1
    }

    /// The places that entries of an earlier run lead to.
    pub(super) fn places(&self) -> Vec<u32> {
        let all = (0..self.region.len()).flat_map(|b| self.region.read::<BUCKET_WAYS>(b));
        let mut places: Vec<u32> = all.filter_map(place_in).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Knows this entry of an earlier run, if it is there.
    pub(super) fn adopt(&mut self, key: u64, place: u32) {
        if let Some(spot) = self.find(key)
            && place_in(self.entry(spot)) == Some(place)
        {
            self.entries.insert(key, place);
        }
    }

    /// Takes out what no adopted entry accounts for.
    pub(super) fn clear_unknown(&self) {
        let known: Vec<(u32, usize)> = self
            .entries
            .keys()
            .filter_map(|&key| self.find(key))
            .map(|spot| (spot.bucket, spot.way))
            .collect();
        let known: std::collections::BTreeSet<_> = known.into_iter().collect();
        for bucket in 0..self.region.len() {
            for way in 0..BUCKET_WAYS {
                let entry = self.entry(Spot { bucket, way });
                if place_in(entry).is_some() && !known.contains(&(bucket, way)) {
                    self.put(Spot { bucket, way }, taken_out(entry));
                }
            }
        }
    }

    /// Adds what is missing and redirects what leads elsewhere; nothing is taken out.
    pub(super) fn add(&mut self, wanted: &Entries) -> Result<(), FastError> {
        for (&key, &place) in wanted {
            if self.entries.get(&key) == Some(&place) {
                continue;
            }
            let replaces = self.entries.contains_key(&key);
            self.set(key, place, replaces)?;
            self.entries.insert(key, place);
        }
        Ok(())
    }

    /// Takes out what is not wanted.
    pub(super) fn retain(&mut self, wanted: &Entries) {
        let gone: Vec<u64> =
            self.entries.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for key in gone {
            if let Some(spot) = self.find(key) {
                self.put(spot, taken_out(self.entry(spot)));
            }
            self.entries.remove(&key);
        }
    }

    fn set(&self, key: u64, place: u32, replaces: bool) -> Result<(), FastError> {
        let full = FastError::Full { what: "entries of one place in the table of services" };
        let spot = match self.find(key) {
            // Two keys that the programs could not tell apart.
            Some(spot) if !replaces && place_in(self.entry(spot)).is_some() => return Err(full),
            Some(spot) => Some(spot),
            None => self.way_of(key).find(|&spot| place_in(self.entry(spot)).is_none()),
        };
        self.put(spot.ok_or(full)?, key >> 32 << 32 | u64::from(place + 1));
        Ok(())
    }

    /// The entry with the key's mark, as the programs look for it.
    fn find(&self, key: u64) -> Option<Spot> {
        let on_the_way = self.way_of(key).take_while(|&spot| self.entry(spot) != 0);
        on_the_way.into_iter().find(|&spot| self.entry(spot) >> 32 == key >> 32)
    }

    /// Where the programs look for a key, in their order.
    fn way_of(&self, key: u64) -> impl Iterator<Item = Spot> {
        let (low, _) = halves(key);
        let mask = self.mask();
        (0..BUCKET_PROBES)
            .map(move |probe| low.wrapping_add(probe) & mask)
            .flat_map(|bucket| (0..BUCKET_WAYS).map(move |way| Spot { bucket, way }))
    }

    fn entry(&self, spot: Spot) -> u64 {
        self.region.word(spot.bucket, spot.way).load(Ordering::Relaxed)
    }

    fn put(&self, spot: Spot, entry: u64) {
        self.region.word(spot.bucket, spot.way).store(entry, Ordering::SeqCst);
    }
}

fn place_in(entry: u64) -> Option<u32> {
    halves(entry).0.checked_sub(1)
}

/// What is left of an entry; never zero, which would be the end of the way.
const fn taken_out(entry: u64) -> u64 {
    let mark = entry >> 32 << 32;
    if mark == 0 { 1 << 32 } else { mark }
}
