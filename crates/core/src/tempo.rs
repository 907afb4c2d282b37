//! How long a term this node asks for: short on a calm network, longer where datagrams are lost or
//! processors stall, so that neither is taken for a death.
//!
//! Every trouble is a gap: between two signs of life of a live peer, or between when our loop should
//! have run and when it did. One that the shortest term covers is no more than a warning; a second one soon
//! after it, or one that is longer, makes the term longer, for as long as troubles come.
//! A voter never shortens what it has promised, so a change needs no agreement.

use buoy_model::{Instant, Timing};
use core::time::Duration;

/// So long after the last trouble, half of the margin goes; and again after each further time. As many
/// times longer as there were stalls lately.
const HALVES_AFTER: Duration = Duration::from_secs(2);
/// One stall is forgotten after so long without another.
const FORGET_AFTER: Duration = Duration::from_secs(10);
/// Stalls that are remembered.
const STALLS_MAX: u32 = 3;
/// Troubles that are further apart have nothing to do with each other.
const WARNS_FOR: Duration = Duration::from_secs(1);
/// A change of the term by less than one in so many is not worth a record.
const TOLD_FROM: u32 = 2;

/// The margin that past trouble asks for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tempo {
    margin: Duration,
    /// When half of it goes.
    halves_at: Instant,
    /// The last trouble. One trouble is seen in several gaps: of both peers, of answers, of our loop.
    trouble_at: Option<Instant>,
    /// Gaps that the shortest term does not cover, lately, and when one of them is forgotten.
    stalls: u32,
    forget_at: Instant,
    /// The term that was last recorded.
    told: Duration,
}

impl Tempo {
    /// A peer was heard, or our loop ran, after so long a gap; one heartbeat is what it should be.
    pub(crate) fn gap(&mut self, now: Instant, timing: Timing, gap: Duration) {
        let Timing { heartbeat, lease_max, .. } = timing;
        let excess = gap.saturating_sub(heartbeat);
        // A little late is no trouble: the shortest term covers it. Far too late is none either: no
        // term would.
        if excess < heartbeat / 2 || lease_max < gap {
            return;
        }
        let before = self.trouble_at.map(|at| now.since(at));
        let is_another = before.is_none_or(|ago| heartbeat < ago);
        if is_another {
            self.trouble_at = Some(now);
        }
        if is_another && timing.lease <= gap {
            self.stalls = (self.stalls + 1).min(STALLS_MAX);
            self.forget_at = now + FORGET_AFTER;
        }
        let is_warned = is_another && before.is_some_and(|ago| ago <= WARNS_FOR);
        if gap < timing.lease && !is_warned {
            return;
        }
        // Lost datagrams come in runs, and the next run may be longer: twice over. A stall that is
        // long by itself is covered once, with the same room on top.
        let wanted = (excess * 2).min(excess + heartbeat * 4).max(heartbeat * 2);
        if self.margin <= wanted * 2 {
            self.margin = self.margin.max(wanted).min(lease_max);
            self.halves_at = now + self.halves_after();
        }
    }

    /// Lets time do its work; to be called now and then.
    pub(crate) fn calm(&mut self, now: Instant, timing: Timing) {
        while self.stalls > 0 && self.forget_at <= now {
            self.forget_at = self.forget_at + FORGET_AFTER;
            self.stalls -= 1;
        }
        while !self.margin.is_zero() && self.halves_at <= now {
            self.halves_at = self.halves_at + self.halves_after();
            self.margin /= 2;
            if self.margin < timing.heartbeat / 2 {
                self.margin = Duration::ZERO;
            }
        }
    }

    fn halves_after(&self) -> Duration {
        HALVES_AFTER * self.stalls.max(1)
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
    use alloc::vec::Vec;

    const MS: Duration = Duration::from_millis(1);
    const TIMING: Timing = Timing {
        heartbeat: Duration::from_millis(10),
        lease: Duration::from_millis(36),
        lease_max: Duration::from_millis(300),
    };

    fn at(ms: u32) -> Instant {
        Instant::ZERO + MS * ms
    }

    /// After these gaps, each seen at its time.
    fn after(gaps: &[(u32, u32)]) -> Tempo {
        let mut tempo = Tempo::default();
        gaps.iter().for_each(|(ms, gap)| tempo.gap(at(*ms), TIMING, MS * *gap));
        tempo
    }

    fn term(gaps: &[(u32, u32)]) -> u128 {
        after(gaps).term(TIMING).as_millis()
    }

    #[test]
    fn a_calm_network_gets_the_shortest_term() {
        assert_eq!(Tempo::default().term(TIMING), TIMING.lease);
        assert_eq!(term(&[(0, 10), (20, 12), (40, 14)]), 36, "jitter is no loss");
    }

    #[test]
    fn one_trouble_that_the_term_covers_is_a_warning_and_the_next_one_is_believed() {
        for gap in [20, 30, 35] {
            assert_eq!(term(&[(0, gap)]), 36, "a gap of {gap} ms, once");
            assert_eq!(term(&[(0, gap), (1_001, gap)]), 36, "and again when it is forgotten");
        }
        for (gap, wanted) in [(15, 56), (20, 56), (30, 76), (35, 86)] {
            assert_eq!(term(&[(0, gap), (1_000, gap)]), wanted, "a gap of {gap} ms, twice");
        }
    }

    #[test]
    fn one_trouble_that_is_seen_in_several_gaps_is_one() {
        assert_eq!(term(&[(0, 20), (0, 22), (3, 20), (10, 25)]), 36);
        assert_eq!(term(&[(0, 20), (11, 20)]), 56);
    }

    #[test]
    fn a_gap_that_the_term_does_not_cover_counts_at_once() {
        for (gap, wanted) in [(36, 88), (40, 96), (60, 126), (100, 166), (250, 300), (301, 36)] {
            assert_eq!(term(&[(0, gap)]), wanted, "a gap of {gap} ms");
        }
    }

    #[test]
    fn the_longest_gap_counts_and_a_shorter_one_does_not_shrink_it() {
        assert_eq!(term(&[(0, 40), (100, 20)]), term(&[(0, 40)]));
        assert_eq!(term(&[(0, 40), (100, 60)]), 126);
    }

    #[test]
    fn the_margin_halves_every_two_seconds_until_it_is_gone() {
        let mut tempo = after(&[(0, 60)]);
        let mut terms = Vec::new();
        for second in [1, 2, 4, 6, 8, 10] {
            tempo.calm(at(second * 1000), TIMING);
            terms.push(tempo.term(TIMING).as_millis());
        }
        assert_eq!(terms, [126, 81, 58, 47, 41, 36]);
    }

    #[test]
    fn a_host_that_stalls_again_and_again_is_remembered_for_longer() {
        let mut tempo = after(&[(0, 60), (5_000, 60), (10_000, 60)]);
        for (second, term) in [(15, 126), (16, 81), (21, 81), (22, 58)] {
            tempo.calm(at(second * 1000), TIMING);
            assert_eq!(tempo.term(TIMING).as_millis(), term, "after {second} s");
        }
        tempo.calm(at(600_000), TIMING);
        tempo.gap(at(600_000), TIMING, MS * 60);
        tempo.calm(at(602_000), TIMING);
        assert_eq!(tempo.term(TIMING), MS * 81, "and forgotten");
    }

    #[test]
    fn trouble_that_goes_on_keeps_the_margin() {
        let mut tempo = Tempo::default();
        for tenth in 0..300 {
            tempo.gap(at(tenth * 100), TIMING, MS * 30);
            tempo.calm(at(tenth * 100), TIMING);
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
        let mut tempo = after(&[(0, 20), (100, 20)]);
        assert_eq!(tempo.news(TIMING), None);
        tempo.gap(at(200), TIMING, MS * 60);
        assert_eq!(tempo.news(TIMING), Some(MS * 126));
        assert_eq!(tempo.news(TIMING), None);
        tempo.calm(at(1_000_000), TIMING);
        assert_eq!(tempo.news(TIMING), Some(TIMING.lease));
    }
}
