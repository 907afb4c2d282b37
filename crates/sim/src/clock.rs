//! A host's own clock: it starts anywhere and runs a little too fast or too slow.
//!
//! True time is known to the simulator alone. It is nanoseconds from the start of the run.

use buoy_model::Instant;

const MILLION: i128 = 1_000_000;

/// A clock that is a straight line since it was last bent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    true_anchor: u64,
    local_anchor: u64,
    /// Parts per million by which it is too fast.
    drift: i64,
}

impl Clock {
    /// A clock that shows `local` at this true time.
    pub(crate) const fn new(true_time: u64, local: u64, drift: i64) -> Self {
        Self { true_anchor: true_time, local_anchor: local, drift }
    }

    /// What it shows.
    pub(crate) fn local(&self, true_time: u64) -> Instant {
        debug_assert!(self.true_anchor <= true_time);
        let passed = i128::from(true_time - self.true_anchor);
        let ticked = passed * (MILLION + i128::from(self.drift)) / MILLION;
        Instant::from_nanos(self.local_anchor + ticked as u64)
    }

    /// The first true time, not before its last bend, at which it shows `local` or later.
    pub(crate) fn when(&self, local: Instant) -> u64 {
        let wanted = i128::from(local.as_nanos().saturating_sub(self.local_anchor));
        let rate = MILLION + i128::from(self.drift);
        let passed = (wanted * MILLION + rate - 1) / rate;
        self.true_anchor.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// Changes its rate from now on.
    pub(crate) fn bend(&mut self, true_time: u64, drift: i64) {
        *self = Self::new(true_time, self.local(true_time).as_nanos(), drift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn a_deadline_is_reached_when_it_says_and_not_a_nanosecond_earlier() {
        let mut random = Random::new(7);
        for _ in 0..10_000 {
            let anchor = random.within(0..1 << 40);
            let clock = Clock::new(anchor, random.within(0..1 << 50), random.drift(7_500));
            let deadline = clock.local(anchor + random.within(1..1 << 40));
            let at = clock.when(deadline);
            assert!(clock.local(at) >= deadline);
            assert!(at == anchor || clock.local(at - 1) < deadline);
        }
    }

    #[test]
    fn a_bend_does_not_step_the_clock() {
        let mut clock = Clock::new(100, 1_000_000, 5_000);
        let before = clock.local(1_000_100);
        clock.bend(1_000_100, -5_000);
        assert_eq!(clock.local(1_000_100), before);
        assert_eq!(clock.local(2_000_100).as_nanos() - before.as_nanos(), 995_000);
    }

    #[test]
    fn what_is_long_past_is_due_since_the_bend() {
        assert_eq!(Clock::new(5, 100, 0).when(Instant::ZERO), 5);
    }
}
