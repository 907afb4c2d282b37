//! Some services change where they are: what a backend that goes down costs does not depend on how many others there are.

use super::super::plan::{self, Key};
use super::super::{Resolve, lines};
use super::{Tables, lines_of};
use buoy_model::{FastService, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A table that is there, as it is to be.
struct Rewrite {
    slots: Arc<[Slot]>,
    /// Who wants it so.
    services: BTreeSet<Key>,
}

impl Tables {
    /// Makes these services so, as `apply` would with all others as they are; whether that was possible. It is where
    /// only slots differ, and who of the backends is there. Else nothing was touched.
    pub(in super::super) fn amend(
        &mut self,
        seed: u64,
        services: &[FastService],
        resolve: Resolve<'_>,
    ) -> bool {
        if !self.is_switched || !self.uncertain.is_empty() || self.seed() != seed {
            return false;
        }
        let mut rewrites: BTreeMap<u32, Rewrite> = BTreeMap::new();
        let mut pairs = Vec::with_capacity(services.len());
        for wanted in services {
            let key = Key::from(wanted);
            let Some(placed) = self.placed.get(&key) else { return false };
            if !self.is_like(placed, wanted) || plan::is_faulty(wanted) {
                return false;
            }
            let slots = || Rewrite { slots: Arc::clone(&wanted.slots), services: BTreeSet::new() };
            let rewrite = rewrites.entry(lines_of(&placed.service).start).or_insert_with(slots);
            if !lines::is_same(&rewrite.slots, &wanted.slots) || !rewrite.services.insert(key) {
                return false;
            }
            pairs.push((wanted, placed.service));
        }
        if !rewrites.iter().all(|(first, rewrite)| self.is_theirs(*first, rewrite)) {
            return false;
        }
        let rewrites = rewrites.into_iter().map(|(first, rewrite)| (first, rewrite.slots));
        self.rewrite(&pairs, rewrites.collect(), resolve);
        true
    }

    /// Whether no other service has this table, or it stays as it is.
    fn is_theirs(&self, first: u32, rewrite: &Rewrite) -> bool {
        // Those are of nobody's concern, and no table leads there again before they are free.
        let retired = self.retired.iter().filter(|(_, old)| lines_of(&old.service).start == first);
        let users = self.lines.users(first).saturating_sub(retired.count());
        users <= rewrite.services.len() || self.lines.is(first, &rewrite.slots)
    }
}
