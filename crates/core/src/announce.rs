//! When to tell the segment who has an address: at once, on a short schedule, then now and then;
//! and again when somebody else claims it (RFC 5227 §2.4).

use buoy_model::Instant;
use buoy_model::limits::{ANNOUNCE_AT, ANNOUNCE_REFRESH, DEFEND_INTERVAL};

/// The schedule of one group that this node serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Announcements {
    began: Instant,
    step: usize,
    at: Instant,
    defended_at: Option<Instant>,
}

impl Announcements {
    /// The first announcement is due at once.
    pub(crate) const fn begin(now: Instant) -> Self {
        Self { began: now, step: 0, at: now, defended_at: None }
    }

    /// Whether an announcement is due; the next one is then set.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        self.step += 1;
        self.at = match ANNOUNCE_AT.get(self.step) {
            Some(after) => (self.began + *after).max(now),
            None => now + ANNOUNCE_REFRESH,
        };
        if self.at == now {
            // A late caller gets one announcement, not the whole backlog.
            self.at = now + ANNOUNCE_AT[1];
        }
        true
    }

    /// Starts the schedule again: a cut healed, or the address had to be put back.
    pub(crate) const fn again(&mut self, now: Instant) {
        self.began = now;
        self.step = 0;
        self.at = now;
    }

    /// Whether a foreign claim is to be answered. RFC 5227 §2.4 (c): keep the address and defend it,
    /// but not in a fight that fills the segment.
    pub(crate) fn defend(&mut self, now: Instant) -> bool {
        if self.defended_at.is_some_and(|at| now < at + DEFEND_INTERVAL) {
            return false;
        }
        self.defended_at = Some(now);
        true
    }

    /// When the next announcement is due.
    pub(crate) const fn deadline(&self) -> Instant {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn the_schedule_is_0_10_100_1000_ms_and_then_a_minute() {
        let start = Instant::from_nanos(5);
        let mut announcements = Announcements::begin(start);
        let mut sent = alloc::vec::Vec::new();
        for _ in 0..6 {
            let at = announcements.deadline();
            assert!(announcements.is_due(at));
            assert!(announcements.deadline() > at);
            sent.push(at.since(start).as_millis());
        }
        assert_eq!(sent, [0, 10, 100, 1_000, 61_000, 121_000]);
    }

    #[test]
    fn a_late_loop_sends_one_announcement_and_goes_on() {
        let mut announcements = Announcements::begin(Instant::ZERO);
        let late = Instant::ZERO + Duration::from_secs(5);
        assert!(announcements.is_due(late));
        assert!(!announcements.is_due(late));
    }

    #[test]
    fn a_defence_is_repeated_at_most_every_ten_seconds() {
        let mut announcements = Announcements::begin(Instant::ZERO);
        assert!(announcements.defend(Instant::ZERO));
        assert!(!announcements.defend(Instant::ZERO + DEFEND_INTERVAL - Duration::from_nanos(1)));
        assert!(announcements.defend(Instant::ZERO + DEFEND_INTERVAL));
    }
}
