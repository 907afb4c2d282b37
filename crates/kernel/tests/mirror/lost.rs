//! Whose the packets are that are dropped, once more and simply: what the programs should count of them.

use super::{Fate, Mirror};
use buoy_kernel::fast::{Fast, Key, Losses, Reasons};
use buoy_xdp::forward::Drop;
use std::cell::Cell;
use std::collections::BTreeMap;

/// The service, and the backend that it was for already.
type Whose = (usize, Option<usize>, Drop);

#[derive(Default)]
pub(crate) struct Lost {
    /// Of the packet at hand.
    last: Cell<Option<Whose>>,
    /// What should be counted.
    wanted: Losses,
    /// Packets of which nobody knows what became of them.
    unsure: u64,
    /// All that was compared.
    pub(crate) compared: u64,
}

impl Mirror<'_> {
    /// The packet is dropped.
    pub(super) fn lose(&self, at: usize, backend: Option<usize>, reason: Drop) -> Fate {
        self.lost.last.set(Some((at, backend, reason)));
        Fate::Drop(reason)
    }

    /// Another one comes.
    pub(super) fn begin_losses(&self) {
        self.lost.last.set(None);
    }

    /// The packet at hand went as it was judged, or nobody knows.
    pub(crate) fn count_losses(&mut self, is_known: bool) {
        if !is_known {
            self.lost.unsure += 1;
            return;
        }
        let Some((at, backend, reason)) = self.lost.last.take() else { return };
        let service = &self.path.services[at];
        let key = Key::from(service);
        let wanted = &mut self.lost.wanted;
        *wanted.services.entry(key).or_default().entry(reason).or_default() += 1;
        if let Some(backend) = backend {
            let of = (key, service.backends[backend].address);
            *wanted.backends.entry(of).or_default().entry(reason).or_default() += 1;
        }
    }

    /// What was counted since the last time is what should have been.
    pub(crate) fn compare_losses(&mut self, fast: &Fast) {
        let is = fast.counters().lost;
        let (wanted, unsure) = (&self.lost.wanted, self.lost.unsure);
        let other = difference(&is.services, &wanted.services);
        assert!(other <= unsure, "{other} of services, {unsure}: {is:?}\ninstead of {wanted:?}");
        let other = difference(&is.backends, &wanted.backends);
        assert!(other <= unsure, "{other} of backends, {unsure}: {is:?}\ninstead of {wanted:?}");
        self.lost.compared += is.backends.values().flat_map(BTreeMap::values).sum::<u64>();
    }

    /// From now on: whoever is there now has lost so many.
    pub(crate) fn begin_to_compare_losses(&mut self, fast: &Fast) {
        (self.lost.wanted, self.lost.unsure) = (fast.counters().lost, 0);
    }
}

fn difference<K: Ord + Copy>(is: &BTreeMap<K, Reasons>, wanted: &BTreeMap<K, Reasons>) -> u64 {
    let flat = |all: &BTreeMap<K, Reasons>| -> BTreeMap<(K, Drop), u64> {
        let each = all.iter().flat_map(|(k, counts)| counts.iter().map(|(r, n)| ((*k, *r), *n)));
        each.collect()
    };
    let (is, wanted) = (flat(is), flat(wanted));
    let of = |all: &BTreeMap<(K, Drop), u64>, at| all.get(at).copied().unwrap_or_default();
    let all: std::collections::BTreeSet<_> = is.keys().chain(wanted.keys()).collect();
    all.into_iter().map(|at| of(&is, at).abs_diff(of(&wanted, at))).sum()
}
