//! Decides how long a backend is left alone for what connections have seen of it.
//!
//! So many failures in a row, and it is out for the configured time; out again before it has worked, and it is out for
//! twice as long, up to `EJECT_MAX`. What works once is as good as new. Whether everybody is out is not known here: who picks
//! takes those who are out where there is nobody else.
//!
//! Absent on purpose: clocks (time is since any moment that stays the same).

use buoy_model::Eject;
use buoy_model::limits::EJECT_MAX;
use core::time::Duration;

/// What was seen of one backend.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Trust {
    /// Failures since it last worked, or since it was last out.
    failures: u32,
    /// How often it was out since it last worked.
    times: u32,
    out_until: Duration,
}

impl Trust {
    /// A connection failed; true if the backend is out from now on.
    pub fn failed(&mut self, now: Duration, eject: Eject) -> bool {
        // Connections that began before it was out say nothing new.
        if self.left(now).is_some() {
            return false;
        }
        self.failures += 1;
        if self.failures < eject.after {
            return false;
        }
        let longer = 1_u32.checked_shl(self.times).unwrap_or(u32::MAX);
        self.out_until = now + eject.time.saturating_mul(longer).min(EJECT_MAX);
        self.times = self.times.saturating_add(1);
        self.failures = 0;
        true
    }

    /// A connection was answered.
    pub fn worked(&mut self, now: Duration) {
        // By a connection of before, or as the last resort: it stays out for its time, and then begins anew.
        *self = match self.left(now) {
            Some(_) => Self { failures: 0, ..*self },
            None => Self::default(),
        };
    }

    /// How long it stays out; `None`: it is not.
    pub fn left(&self, now: Duration) -> Option<Duration> {
        self.out_until.checked_sub(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EJECT: Eject = Eject { after: 3, time: S(10) };

    #[allow(non_snake_case)]
    const fn S(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Fails until it is out, and says for how long.
    fn out(trust: &mut Trust, now: Duration) -> Duration {
        assert!(!trust.failed(now, EJECT) && !trust.failed(now, EJECT));
        assert!(trust.left(now).is_none());
        assert!(trust.failed(now, EJECT));
        trust.left(now).unwrap_or_default()
    }

    #[test]
    fn failures_in_a_row_put_it_out_for_longer_and_longer() {
        let (mut trust, mut now) = (Trust::default(), S(100));
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(out(&mut trust, now), S(seconds));
            // What began before and fails now changes nothing.
            assert!(!trust.failed(now + S(1), EJECT));
            now += S(seconds);
            assert_eq!(trust.left(now), None);
        }
        trust.worked(now);
        assert_eq!(out(&mut trust, now), S(10));
    }

    #[test]
    fn what_works_in_between_starts_the_count_anew() {
        let mut trust = Trust::default();
        for _ in 0..100 {
            assert!(!trust.failed(S(1), EJECT) && !trust.failed(S(1), EJECT));
            trust.worked(S(1));
        }
        assert_eq!(out(&mut trust, S(2)), S(10));
        trust.worked(S(3));
        assert_eq!(trust.left(S(3)), Some(S(9)), "an answer of before does not bring it back");
        assert_eq!(out(&mut trust, S(12)), S(20));
    }

    #[test]
    fn no_number_of_times_overflows() {
        let eject = Eject { after: 1, time: EJECT_MAX };
        let (mut trust, mut now) = (Trust::default(), S(1));
        for _ in 0..100 {
            assert!(trust.failed(now, eject));
            now += EJECT_MAX;
        }
    }
}
