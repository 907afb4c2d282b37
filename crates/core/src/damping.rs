//! Remembers what came and went lately, so that ownership does not come and go with it.
//!
//! Every loss of a subject counts. After one, the node is reluctant (it takes only what nobody else
//! can) until the subject has stayed back for a hold time that doubles with each loss remembered; one
//! loss is forgotten for every `FORGET_AFTER` of calm. So a link that toggles every second for a minute
//! moves a group away once and back once, whatever `failback` says.

use alloc::vec::Vec;
use buoy_model::{GroupId, Instant, LinkId};
use core::time::Duration;

/// The hold time after the first loss that counts.
const HOLD_FIRST: Duration = Duration::from_millis(2_500);
/// The longest hold time.
const HOLD_MAX: Duration = Duration::from_secs(120);
/// The longest hold time of checks, which are slow to change their minds by themselves.
const HOLD_CHECKS_MAX: Duration = Duration::from_secs(20);
/// One loss is forgotten after so long without another.
const FORGET_AFTER: Duration = Duration::from_secs(120);
/// More doublings than this are past `HOLD_MAX` anyway.
const DOUBLINGS_MAX: u32 = 6;

const _: () = assert!(HOLD_FIRST.as_millis() << DOUBLINGS_MAX >= HOLD_MAX.as_millis());

/// What can come and go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Subject {
    /// The carrier of an interface.
    Carrier(LinkId),
    /// The peers that are heard on an interface.
    Voices(LinkId),
    /// This node's own checks for a group. They have a rise and a fall of their own, so the first
    /// loss of all is forgiven.
    Checks(GroupId),
}

/// All subjects that were lost lately; a handful at most, and none most of the time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Damping {
    flaps: Vec<Flap>,
}

#[derive(Clone, Copy, Debug)]
struct Flap {
    subject: Subject,
    losses: u32,
    /// The longest hold that was told.
    told: Duration,
    state: State,
}

/// Each timer lives in the one state that uses it.
#[derive(Clone, Copy, Debug)]
enum State {
    Lost,
    /// Back, and not trusted before `until`.
    Returning {
        since: Instant,
        until: Instant,
    },
    /// Back and trusted; remembered for the next loss.
    Calm {
        since: Instant,
    },
}

impl Damping {
    /// The subject was lost.
    pub(crate) fn lost(&mut self, now: Instant, subject: Subject) {
        self.forget(now);
        let Some(flap) = self.flaps.iter_mut().find(|f| f.subject == subject) else {
            self.flaps.push(Flap { subject, losses: 1, told: Duration::ZERO, state: State::Lost });
            return;
        };
        match flap.state {
            State::Lost => {}
            State::Returning { since, .. } | State::Calm { since } => {
                flap.losses = flap.losses.saturating_sub(forgotten(since, now)) + 1;
                flap.state = State::Lost;
            }
        }
    }

    /// The subject is back: for how long it is not trusted, if that is worth a record, which it is
    /// when it grew by more than one loss.
    pub(crate) fn back(&mut self, now: Instant, subject: Subject) -> Option<Duration> {
        let flap = self.flaps.iter_mut().find(|f| f.subject == subject)?;
        match flap.state {
            State::Returning { .. } | State::Calm { .. } => None,
            State::Lost => {
                let hold = hold(subject, flap.losses);
                flap.state = State::Returning { since: now, until: now + hold };
                let told = flap.losses > 1 && hold > flap.told;
                flap.told = flap.told.max(hold);
                told.then_some(hold)
            }
        }
    }

    /// For how much longer the subject, which is back, is not trusted.
    pub(crate) fn remaining(&self, now: Instant, subject: Subject) -> Option<Duration> {
        let flap = self.flaps.iter().find(|f| f.subject == subject)?;
        match flap.state {
            State::Returning { until, .. } if now < until => Some(until.since(now)),
            State::Returning { .. } | State::Lost | State::Calm { .. } => None,
        }
    }

    /// Ends the hold times that are over; whether there was one.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let mut ended = false;
        for flap in &mut self.flaps {
            match flap.state {
                State::Returning { since, until } if until <= now => {
                    flap.state = State::Calm { since };
                    ended = true;
                }
                State::Returning { .. } | State::Lost | State::Calm { .. } => {}
            }
        }
        ended
    }

    /// When a hold time ends.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.flaps
            .iter()
            .filter_map(|flap| match flap.state {
                State::Returning { until, .. } => Some(until),
                State::Lost | State::Calm { .. } => None,
            })
            .min()
    }

    /// Drops what has been calm for long enough to be like new.
    fn forget(&mut self, now: Instant) {
        self.flaps.retain(|flap| match flap.state {
            State::Lost | State::Returning { .. } => true,
            State::Calm { since } => forgotten(since, now) < flap.losses,
        });
    }
}

fn forgotten(since: Instant, now: Instant) -> u32 {
    u32::try_from(now.since(since).as_nanos() / FORGET_AFTER.as_nanos()).unwrap_or(u32::MAX)
}

fn hold(subject: Subject, losses: u32) -> Duration {
    let (counted, longest) = match subject {
        Subject::Carrier(_) | Subject::Voices(_) => (losses, HOLD_MAX),
        Subject::Checks(_) => (losses.saturating_sub(1), HOLD_CHECKS_MAX),
    };
    match counted {
        0 => Duration::ZERO,
        n => (HOLD_FIRST * (1 << (n - 1).min(DOUBLINGS_MAX))).min(longest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Subject = Subject::Carrier(LinkId(3));

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn the_hold_doubles_with_each_loss_up_to_two_minutes() {
        let mut damping = Damping::default();
        let mut now = at(1);
        let mut holds = alloc::vec::Vec::new();
        for _ in 0..10 {
            damping.lost(now, LINK);
            damping.back(now, LINK);
            holds.push(damping.remaining(now, LINK).unwrap().as_millis());
            now = now + Duration::from_millis(1);
        }
        let table =
            [2_500, 5_000, 10_000, 20_000, 40_000, 80_000, 120_000, 120_000, 120_000, 120_000];
        assert_eq!(holds, table);
    }

    #[test]
    fn every_state_and_every_event() {
        let mut damping = Damping::default();
        // Unknown: coming back is no news, and nothing is due.
        assert_eq!(damping.back(at(0), LINK), None);
        assert_eq!((damping.remaining(at(0), LINK), damping.deadline()), (None, None));
        assert!(!damping.expire(at(0)));
        // Lost: nothing runs, and a second word of the same loss does not count.
        damping.lost(at(0), LINK);
        damping.lost(at(5), LINK);
        assert_eq!((damping.remaining(at(5), LINK), damping.deadline()), (None, None));
        assert!(!damping.expire(at(5)));
        // Returning: reluctant until the end of the hold of one loss, and a second word changes nothing.
        assert_eq!(damping.back(at(10), LINK), None, "the first loss is not worth a record");
        assert_eq!(damping.back(at(20), LINK), None);
        assert_eq!(damping.deadline(), Some(at(2_510)));
        assert!(!damping.expire(at(2_509)));
        assert_eq!(damping.remaining(at(2_509), LINK), Some(Duration::from_millis(1)));
        assert_eq!(damping.remaining(at(2_510), LINK), None);
        assert!(damping.expire(at(2_510)));
        assert!(!damping.expire(at(2_511)), "once");
        // Calm: nothing is due; the next loss counts as the second.
        assert_eq!((damping.back(at(3_000), LINK), damping.deadline()), (None, None));
        damping.lost(at(4_000), LINK);
        assert_eq!(damping.back(at(4_000), LINK), Some(Duration::from_secs(5)), "now it is");
        // Returning, and lost again.
        damping.lost(at(4_100), LINK);
        assert_eq!((damping.remaining(at(4_100), LINK), damping.deadline()), (None, None));
    }

    #[test]
    fn one_loss_is_forgotten_for_every_two_minutes_of_calm() {
        for (calm, losses) in [(0, 4), (119, 4), (120, 3), (240, 2), (360, 1), (9_999, 1)] {
            let mut damping = Damping::default();
            for n in 0..3 {
                damping.lost(at(n), LINK);
                damping.back(at(n), LINK);
            }
            damping.expire(at(300_000));
            let again = at(2) + Duration::from_secs(calm);
            damping.expire(again);
            damping.lost(again, LINK);
            damping.back(again, LINK);
            let hold = damping.remaining(again, LINK);
            assert_eq!(hold, Some(super::hold(LINK, losses)), "after {calm} s of calm");
        }
    }

    #[test]
    fn a_minute_of_flapping_is_told_a_handful_of_times() {
        let mut damping = Damping::default();
        let told = (0..30)
            .filter(|n| {
                damping.lost(at(n * 2_000), LINK);
                damping.back(at(n * 2_000 + 1_000), LINK).is_some()
            })
            .count();
        assert_eq!(told, 6, "5, 10, 20, 40, 80 and 120 s");
    }

    #[test]
    fn the_first_failure_of_a_check_is_forgiven() {
        let checks = Subject::Checks(GroupId(1));
        let mut damping = Damping::default();
        damping.lost(at(0), checks);
        damping.back(at(1), checks);
        assert_eq!(damping.remaining(at(1), checks), None);
        damping.lost(at(2), checks);
        damping.back(at(3), checks);
        assert_eq!(damping.remaining(at(3), checks), Some(HOLD_FIRST));
        for n in 4..20 {
            damping.lost(at(n), checks);
            damping.back(at(n), checks);
        }
        assert_eq!(damping.remaining(at(19), checks), Some(HOLD_CHECKS_MAX));
    }

    #[test]
    fn subjects_do_not_share_their_losses() {
        let mut damping = Damping::default();
        let others = [Subject::Carrier(LinkId(4)), Subject::Voices(LinkId(3))];
        damping.lost(at(0), LINK);
        damping.back(at(0), LINK);
        for other in others {
            assert_eq!(damping.remaining(at(0), other), None);
        }
        assert!(damping.remaining(at(0), LINK).is_some());
    }
}
