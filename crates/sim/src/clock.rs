//! A host's own clock: it starts anywhere and runs a little too fast or too slow.
//!
//! True time is known to the simulator alone. It is nanoseconds from the start of the run.

use buoy_model::Instant;

const MILLION: i64 = 1_000_000;

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
        let passed = true_time - self.true_anchor;
        let ahead = scale(passed, self.drift, MILLION);
        Instant::from_nanos((self.local_anchor + passed).saturating_add_signed(ahead))
    }

    /// The first true time, not before its last bend, at which it shows `local` or later.
    pub(crate) fn when(&self, local: Instant) -> u64 {
        let wanted = local.as_nanos().saturating_sub(self.local_anchor);
        // Exact: the smallest whole number whose reading is not less than what is wanted.
        let ahead = scale(wanted, self.drift, MILLION + self.drift);
        self.true_anchor.saturating_add(wanted.saturating_add_signed(-ahead))
    }

    /// Changes its rate from now on.
    pub(crate) fn bend(&mut self, true_time: u64, drift: i64) {
        *self = Self::new(true_time, self.local(true_time).as_nanos(), drift);
    }
}

/// `time * by / of`, rounded down.
fn scale(time: u64, by: i64, of: i64) -> i64 {
    match i64::try_from(time).ok().and_then(|time| time.checked_mul(by)) {
        Some(product) => product.div_euclid(of),
        // Of some weeks or more.
        None => {
            let wide = (i128::from(time) * i128::from(by)).div_euclid(i128::from(of));
            i64::try_from(wide).unwrap_or(i64::MAX)
        }
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
    fn never_stays_never() {
        for drift in [-7_500, 0, 7_500] {
            let clock = Clock::new(5, 100, drift);
            assert!(clock.when(Instant::from_nanos(u64::MAX)) > u64::MAX / 2);
            assert!(clock.local(1 << 62).as_nanos() > 1 << 61);
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
