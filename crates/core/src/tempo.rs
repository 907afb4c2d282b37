//! How long a term this node asks for: short on a calm network, longer where datagrams are lost or
//! processors stall, so that neither is taken for a death.
//!
//! Every trouble is a gap: between two signs of life of a live peer, or between when our loop should
//! have run and when it did. The term covers such gaps twice over, and shrinks again when
//! they stay away. A voter never shortens what it has promised, so a change needs no agreement.

use buoy_model::{Instant, Timing};
use core::time::Duration;

/// So long after the last trouble, half of the margin goes; and again after each further time.
const HALVES_AFTER: Duration = Duration::from_secs(10);
/// A change of the term by less than one in so many is not worth a record.
const TOLD_FROM: u32 = 2;

/// The margin that past trouble asks for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tempo {
    margin: Duration,
    /// When half of it goes.
    halves_at: Instant,
    /// The term that was last recorded.
    told: Duration,
}

impl Tempo {
    /// A peer was heard, or our loop ran, after so long a gap; one heartbeat is what it should be.
    pub(crate) fn gap(&mut self, now: Instant, timing: Timing, gap: Duration) {
        let excess = gap.saturating_sub(timing.heartbeat);
        // A little late is no trouble: the shortest term covers it.
        if excess < timing.heartbeat {
            return;
        }
        // Lost datagrams come in runs, and the next run may be longer: twice over, and at once. A stall
        // that is long by itself is covered once, with the same room on top.
        let wanted = (excess * 2).min(excess + timing.heartbeat * 8);
        if self.margin <= wanted * 2 {
            self.margin = self.margin.max(wanted).min(timing.lease_max);
            self.halves_at = now + HALVES_AFTER;
        }
    }

    /// Lets time do its work; to be called now and then.
    pub(crate) fn calm(&mut self, now: Instant, timing: Timing) {
        while !self.margin.is_zero() && self.halves_at <= now {
            self.halves_at = self.halves_at + HALVES_AFTER;
            self.margin /= 2;
            if self.margin < timing.heartbeat / 2 {
                self.margin = Duration::ZERO;
            }
        }
    }

    /// The term to ask for.
    pub(crate) fn term(&self, timing: Timing) -> Duration {
        (timing.lease + self.margin).min(timing.lease_max.max(timing.lease))
    }

    /// The term, when it has become so different that people should know.
    pub(crate) fn news(&mut self, timing: Timing) -> Option<Duration> {
        let term = self.term(timing);
        let told = if self.told.is_zero() { timing.lease } else { self.told };
        let is_calm_again = term == timing.lease && told != timing.lease;
        if term >= told * TOLD_FROM || is_calm_again {
            self.told = term;
            return Some(term);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const TIMING: Timing = Timing {
        heartbeat: Duration::from_millis(10),
        lease: Duration::from_millis(36),
        lease_max: Duration::from_millis(300),
    };

    fn at(ms: u32) -> Instant {
        Instant::ZERO + MS * ms
    }

    fn after(gaps: &[u32]) -> Tempo {
        let mut tempo = Tempo::default();
        gaps.iter().for_each(|gap| tempo.gap(at(0), TIMING, MS * *gap));
        tempo
    }

    #[test]
    fn a_calm_network_gets_the_shortest_term() {
        assert_eq!(Tempo::default().term(TIMING), TIMING.lease);
        assert_eq!(after(&[10, 12, 19]).term(TIMING), TIMING.lease, "jitter is no loss");
    }

    #[test]
    fn a_run_of_losses_is_covered_twice_over() {
        for (gap, term) in [(20, 56), (30, 76), (40, 96), (60, 136), (100, 206), (1000, 300)] {
            assert_eq!(after(&[gap]).term(TIMING), MS * term, "a gap of {gap} ms");
        }
    }

    #[test]
    fn the_longest_gap_counts_and_a_shorter_one_does_not_shrink_it() {
        assert_eq!(after(&[40, 20]).term(TIMING), after(&[40]).term(TIMING));
        assert_eq!(after(&[20, 40]).term(TIMING), after(&[40]).term(TIMING));
    }

    #[test]
    fn the_margin_halves_every_ten_seconds_until_it_is_gone() {
        let mut tempo = after(&[60]);
        let mut terms = alloc::vec::Vec::new();
        for second in [9, 10, 20, 30, 40, 50, 60] {
            tempo.calm(at(second * 1000), TIMING);
            terms.push(tempo.term(TIMING).as_millis());
        }
        assert_eq!(terms, [136, 86, 61, 48, 42, 36, 36]);
    }

    #[test]
    fn trouble_that_goes_on_keeps_the_margin() {
        let mut tempo = Tempo::default();
        for second in 0..100 {
            tempo.gap(at(second * 1000), TIMING, MS * 30);
            tempo.calm(at(second * 1000), TIMING);
        }
        assert_eq!(tempo.term(TIMING), MS * 76);
    }

    #[test]
    fn equal_bounds_switch_it_off() {
        let fixed = Timing { lease_max: TIMING.lease, ..TIMING };
        let mut tempo = Tempo::default();
        tempo.gap(at(0), fixed, MS * 200);
        assert_eq!(tempo.term(fixed), fixed.lease);
    }

    #[test]
    fn people_hear_of_a_doubling_and_of_the_calm_after_it() {
        let mut tempo = after(&[20]);
        assert_eq!(tempo.news(TIMING), None);
        tempo.gap(at(0), TIMING, MS * 40);
        assert_eq!(tempo.news(TIMING), Some(MS * 96));
        assert_eq!(tempo.news(TIMING), None);
        tempo.calm(at(1_000_000), TIMING);
        assert_eq!(tempo.news(TIMING), Some(TIMING.lease));
    }
}
