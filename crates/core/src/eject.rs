//! Decides how long a backend is left alone for what connections have seen of it.
//!
//! So many failures in a row, and it is out for the configured time; out again before it has worked, and it is out for
//! twice as long, up to `EJECT_MAX`. What works once is as good as new. Whether everybody is out is not known here: who picks
//! takes those who are out where there is nobody else.
//!
//! Who ends connections sees each fail. Who forwards packets, and does not even see the answers, sees that clients ask to
//! be let in and do not go on: [`Beginnings`].
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

/// Whether those of a service that are out are left alone at all: where nobody else is up, there is nobody to take their
/// place. Of each backend: whether it is out, and whether it is up.
pub fn has_others(mut backends: impl Iterator<Item = (bool, bool)>) -> bool {
    backends.any(|(is_out, is_up)| !is_out && is_up)
}

/// What the packets of clients to one backend say, counted from time to time.
///
/// Who is let in goes on: his first SYN is followed by an acknowledgement at least. Who is refused sends nothing more, and who gets no
/// answer the same SYN again. So where more connections were asked for than there were other packets, by that many failed;
/// packets of older connections make it fewer, never more. What was asked for between two looks is judged at the third one: until
/// then it had the time to go on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Beginnings {
    /// All that was counted at the last look.
    counted: Packets,
    /// What came between that look and the one before.
    lately: Packets,
}

/// Packets of clients.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Packets {
    /// First packets of connections, also when they are said again.
    pub opening: u64,
    /// All others.
    pub others: u64,
}

/// What a look at them shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shown {
    /// Nothing: nobody asked to be let in.
    Nothing,
    /// Connections went on.
    Worked,
    /// At least so many did not.
    Failed(u64),
}

impl Beginnings {
    /// From now on: what was counted before is no news.
    pub const fn new(counted: Packets) -> Self {
        Self { counted, lately: Packets { opening: 0, others: 0 } }
    }

    /// Looks at all that was counted until now, a second or more after the last look.
    pub fn look(&mut self, counted: Packets) -> Shown {
        let since = |now: u64, before: u64| now.checked_sub(before);
        let opening = since(counted.opening, self.counted.opening);
        let others = since(counted.others, self.counted.others);
        let (Some(opening), Some(others)) = (opening, others) else {
            // The counters began anew.
            *self = Self::new(counted);
            return Shown::Nothing;
        };
        let before = core::mem::replace(&mut self.lately, Packets { opening, others });
        self.counted = counted;
        let went_on = before.others + others;
        match before.opening {
            0 => Shown::Nothing,
            asked if asked <= went_on => Shown::Worked,
            asked => Shown::Failed(asked - went_on),
        }
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
    fn nobody_is_left_alone_for_want_of_others() {
        let (out, other, down) = ((true, true), (false, true), (false, false));
        for (backends, expected) in [
            (&[out, other][..], true),
            (&[out, out], false),
            (&[out, down], false),
            (&[out, down, other], true),
            (&[], false),
        ] {
            assert_eq!(has_others(backends.iter().copied()), expected, "{backends:?}");
        }
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

    /// Name, what comes before each look, and what each shows.
    type Case = (&'static str, &'static [(u64, u64)], &'static [Shown]);

    /// What each look shows, at so many first and so many other packets since the one before.
    fn shown(looks: &[(u64, u64)]) -> alloc::vec::Vec<Shown> {
        let mut counted = Packets { opening: 7, others: 9 };
        let mut beginnings = Beginnings::new(counted);
        let look = |&(opening, others): &(u64, u64)| {
            counted.opening += opening;
            counted.others += others;
            beginnings.look(counted)
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn clients_that_do_not_go_on_were_not_let_in() {
        use Shown::{Failed, Nothing, Worked};
        let table: [Case; 7] = [
            ("nobody comes", &[(0, 0), (0, 5), (0, 0)], &[Nothing, Nothing, Nothing]),
            ("all are let in", &[(3, 9), (2, 8), (0, 1)], &[Nothing, Worked, Worked]),
            ("none is", &[(3, 0), (2, 0), (0, 0)], &[Nothing, Failed(3), Failed(2)]),
            ("the answer takes a while", &[(9, 0), (0, 9)], &[Nothing, Worked]),
            ("half of them are let in", &[(10, 15), (0, 0)], &[Nothing, Worked]),
            ("an old connection goes on", &[(5, 2), (0, 0)], &[Nothing, Failed(3)]),
            ("nobody asks any more", &[(5, 0), (0, 0), (0, 0)], &[Nothing, Failed(5), Nothing]),
        ];
        for (case, looks, expected) in table {
            assert_eq!(shown(looks), expected, "{case}");
        }
    }

    #[test]
    fn counters_that_begin_anew_say_nothing_of_the_past() {
        let of = |opening, others| Packets { opening, others };
        let mut beginnings = Beginnings::new(of(100, 0));
        assert_eq!(beginnings.look(of(200, 0)), Shown::Nothing);
        assert_eq!(beginnings.look(of(3, 0)), Shown::Nothing, "begun anew");
        assert_eq!(beginnings.look(of(8, 0)), Shown::Nothing);
        assert_eq!(beginnings.look(of(8, 0)), Shown::Failed(5));
    }
}
