//! What the loop counts: written by one thread without waiting, read by whoever asks.

use buoy_wire::Reject;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Everything the loop counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Datagrams that were authentic and in their place.
    pub received: AtomicU64,
    /// Datagrams that left.
    pub sent: AtomicU64,
    /// Datagrams that the kernel refused to send.
    pub unsent: AtomicU64,
    /// Advertisements of VRRP that left.
    pub adverts: AtomicU64,
    /// Advertisements of VRRP that the kernel refused to send.
    pub unadvertised: AtomicU64,
    /// Datagrams that were not believed, by reason.
    pub rejected: [AtomicU64; Reject::ALL.len()],
    /// Wake-ups that came more than a heartbeat after their time.
    pub late: AtomicU64,
    /// Announcements that were not sent, because the loop was frozen after they were decided.
    pub stalled: AtomicU64,
    /// Actions that the kernel refused.
    pub failed: AtomicU64,
    /// Reports for which there was no room.
    pub unreported: AtomicU64,
}

impl Counters {
    /// One more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more.
    pub fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    /// One more datagram that was not believed.
    pub fn reject(&self, reason: Reject) {
        Self::count(&self.rejected[reason.index()]);
    }

    /// How many datagrams were not believed for this reason.
    pub fn rejected(&self, reason: Reject) -> u64 {
        self.rejected[reason.index()].load(Ordering::Relaxed)
    }

    /// All of them by name.
    pub fn read(&self) -> BTreeMap<String, u64> {
        let plain = [
            ("datagrams_received", &self.received),
            ("datagrams_sent", &self.sent),
            ("datagrams_unsent", &self.unsent),
            ("adverts_sent", &self.adverts),
            ("adverts_unsent", &self.unadvertised),
            ("late_wakeups", &self.late),
            ("stalled_announcements", &self.stalled),
            ("failed_actions", &self.failed),
            ("unreported", &self.unreported),
        ];
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut all: BTreeMap<String, u64> =
            plain.iter().map(|(name, counter)| ((*name).into(), value(counter))).collect();
        for reason in Reject::ALL {
            all.insert(format!("rejected_{}", reason.name()), self.rejected(reason));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let counters = Counters::default();
        for (n, reason) in Reject::ALL.iter().enumerate() {
            (0..=n).for_each(|_| counters.reject(*reason));
        }
        let read = counters.read();
        for (n, reason) in Reject::ALL.iter().enumerate() {
            assert_eq!(read[&format!("rejected_{}", reason.name())], n as u64 + 1);
        }
    }
}
