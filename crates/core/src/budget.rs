//! Counts for how long each group was served and for how long by nobody, and what was left of leases when they were renewed.
//!
//! It is what this node has seen: from the first owner that it has heard of, in this life of its agent. While it hears no
//! majority it knows nothing of owners elsewhere, and that time counts as neither.

use crate::Node;
use crate::last_owner::LastOwner;
use buoy_model::limits::{GAPS_KEPT, SLACK_MINUTES};
use buoy_model::{Instant, NodeId, Safety};
use core::time::Duration;

/// An owner whose successor is heard has gone silent if so many of its heartbeats are missing; else it has let go.
const BEATS_MISSED: u32 = 2;

/// What a node has seen of one group.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Uptime {
    /// For how long somebody served it.
    pub served: Duration,
    /// For how long nobody did.
    pub unserved: Duration,
    /// For how long this node could not know.
    pub unknown: Duration,
    /// The times without an owner, once they were over.
    pub gaps: Gaps,
}

/// How long each of the latest times without an owner was.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Gaps {
    /// In microseconds; the oldest is overwritten.
    latest: [u32; GAPS_KEPT],
    count: usize,
}

/// What was left of a lease when it was renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slack {
    /// The last time.
    pub last: Duration,
    /// The least of the last hour.
    pub least: Duration,
}

impl Gaps {
    /// How many there were.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Those that are kept, in no order.
    pub fn latest(&self) -> impl Iterator<Item = Duration> {
        let kept = self.latest.iter().take(self.count);
        kept.map(|micros| Duration::from_micros(u64::from(*micros)))
    }

    fn add(&mut self, gap: Duration) {
        self.latest[self.count % GAPS_KEPT] = micros(gap);
        self.count += 1;
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// Who serves a group, as far as its uptime is concerned.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Is {
    /// Nobody has been seen to serve it yet.
    #[default]
    Unseen,
    Mine,
    Others(NodeId),
    Nobodys,
    /// This node hears too few to know.
    Unknown,
}

impl Is {
    const fn is_served(self) -> bool {
        matches!(self, Self::Mine | Self::Others(_))
    }

    const fn is_elsewhere(self) -> bool {
        matches!(self, Self::Others(_))
    }
}

/// The stopwatch of one group.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    is: Is,
    since: Instant,
    seen: Uptime,
}

impl Watch {
    /// This node hears too few. If it missed the owner no longer ago, it was deaf then already.
    fn doubt(&mut self, now: Instant, no_longer: Duration) {
        if self.is == Is::Nobodys && now.since(self.since) <= no_longer {
            self.is = Is::Unknown;
        }
    }

    /// Somebody serves it now, or nobody; the owner before fell silent so long ago, or has said that it let go.
    fn note(&mut self, now: Instant, is: Is, silent: Duration) {
        let is_before_the_first = self.is == Is::Unseen && !is.is_served();
        if self.is == is || is_before_the_first {
            return;
        }
        let (was, since) = (self.is, self.since);
        // Silence is noticed late; from when on it was not served is known then.
        let was_lost = was.is_elsewhere() && is != Is::Unknown;
        let ended = if was_lost { since.max(now - silent) } else { now };
        self.count(ended);
        self.is = is;
        if !is.is_served() {
            return;
        }
        let gap = match was {
            Is::Nobodys => now.since(since),
            Is::Others(_) => now.since(ended),
            Is::Unseen | Is::Mine | Is::Unknown => Duration::ZERO,
        };
        if was_lost {
            self.seen.unserved += gap;
            self.since = now;
        }
        // What is given up and taken in one step was served all the time.
        if !gap.is_zero() {
            self.seen.gaps.add(gap);
        }
    }

    /// The time until then is what it was.
    fn count(&mut self, until: Instant) {
        let spell = until.since(self.since);
        match self.is {
            Is::Unseen => {}
            Is::Mine | Is::Others(_) => self.seen.served += spell,
            Is::Nobodys => self.seen.unserved += spell,
            Is::Unknown => self.seen.unknown += spell,
        }
        self.since = until;
    }

    /// What there was until now.
    pub(crate) fn seen(mut self, now: Instant) -> Uptime {
        self.count(now.max(self.since));
        self.seen
    }
}

/// What was left of one lease at its renewals: the least of each minute, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Slacks {
    least: [u32; SLACK_MINUTES],
    minute: u64,
    last: Option<Duration>,
}

impl Slacks {
    const NEW: Self = Self { least: [u32::MAX; SLACK_MINUTES], minute: 0, last: None };

    fn note(&mut self, now: Instant, left: Duration) {
        self.turn(now);
        let least = &mut self.least[Self::place(self.minute)];
        *least = micros(left).min(*least);
        self.last = Some(left);
    }

    /// Forgets the minutes that are more than an hour ago.
    fn turn(&mut self, now: Instant) {
        let minute = now.as_nanos() / 60_000_000_000;
        let passed = minute.saturating_sub(self.minute).min(SLACK_MINUTES as u64);
        (0..passed).for_each(|ago| self.least[Self::place(minute - ago)] = u32::MAX);
        self.minute = self.minute.max(minute);
    }

    const fn place(minute: u64) -> usize {
        (minute % SLACK_MINUTES as u64) as usize
    }

    fn view(mut self, now: Instant) -> Option<Slack> {
        self.turn(now);
        let least = self.least.iter().copied().min().filter(|least| *least < u32::MAX)?;
        Some(Slack { last: self.last?, least: Duration::from_micros(u64::from(least)) })
    }
}

/// Of the lease that a majority renews, and of that which the loop renews itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewed {
    majority: Slacks,
    looped: Slacks,
}

impl Renewed {
    pub(crate) const fn new() -> Self {
        Self { majority: Slacks::NEW, looped: Slacks::NEW }
    }

    /// The lease that groups of this kind share is renewed before that end.
    pub(crate) fn note(&mut self, now: Instant, safety: Safety, until: Instant) {
        match safety {
            Safety::Exclusive => self.majority.note(now, until.since(now)),
            Safety::Available => self.looped.note(now, until.since(now)),
        }
    }

    /// What was left lately.
    pub(crate) fn slack(&self, now: Instant, safety: Safety) -> Option<Slack> {
        match safety {
            Safety::Exclusive => self.majority.view(now),
            Safety::Available => self.looped.view(now),
        }
    }
}

impl Node {
    /// Looks who serves what now; owners of VRRP's groups are not all known to this node.
    pub(crate) fn watch_uptime(&mut self, now: Instant) {
        let heard = 1 + self.peers.iter().filter(|peer| peer.is_alive()).count();
        let knows = self.majority(&self.desired) <= heard;
        let heartbeat = self.desired.timing.heartbeat;
        // The owner is missed first, and those who were at rest one silence after it.
        let doubt = self.silence() * 2 + heartbeat;
        for (i, ownership) in self.owned.iter_mut().enumerate() {
            if ownership.routers.is_some() {
                continue;
            }
            let last = self.verdicts.last_owner.get(i).copied().unwrap_or_default();
            let elsewhere = match last {
                LastOwner::Serves { node, .. } => Is::Others(node),
                LastOwner::Nobody
                | LastOwner::Released { .. }
                | LastOwner::Silent { .. }
                | LastOwner::Died { .. } => {
                    if knows {
                        Is::Nobodys
                    } else {
                        Is::Unknown
                    }
                }
            };
            let is = if ownership.holding().is_some() { Is::Mine } else { elsewhere };
            let silent = match last {
                LastOwner::Silent { silent, .. } => silent,
                // Another has it before this node has missed the owner before.
                LastOwner::Serves { node, .. } => {
                    let before =
                        self.peers.iter().find(|peer| Is::Others(peer.id) == ownership.watch.is);
                    let before = before.filter(|peer| peer.id != node);
                    let silent = before.and_then(|peer| Some(now.since(peer.heard_at()?)));
                    silent.filter(|silent| BEATS_MISSED * heartbeat < *silent).unwrap_or_default()
                }
                LastOwner::Nobody | LastOwner::Released { .. } | LastOwner::Died { .. } => {
                    Duration::ZERO
                }
            };
            if is == Is::Unknown {
                ownership.watch.doubt(now, doubt);
            }
            ownership.watch.note(now, is, silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const MS: Duration = Duration::from_millis(1);

    const LB2: Is = Is::Others(NodeId(2));
    const LB3: Is = Is::Others(NodeId(3));

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn gaps(seen: &Uptime) -> Vec<Duration> {
        seen.gaps.latest().collect()
    }

    #[test]
    fn time_is_served_or_not_or_not_known_and_adds_up() {
        let mut watch = Watch::default();
        watch.note(at(5), Is::Nobodys, Duration::ZERO);
        assert_eq!(watch.seen(at(50)), Uptime::default(), "before the first owner nothing counts");
        watch.note(at(100), LB2, Duration::ZERO);
        // It was silent for 40 ms when that was noticed, and another took it 10 ms later.
        watch.note(at(1100), Is::Nobodys, 40 * MS);
        watch.note(at(1110), Is::Mine, 40 * MS);
        let seen = watch.seen(at(2000));
        assert_eq!((seen.served, seen.unserved), (960 * MS + 890 * MS, 50 * MS));
        assert_eq!(gaps(&seen), [50 * MS]);
        // What this node gives up itself was served until then, whatever the owner before did.
        watch.note(at(2000), Is::Nobodys, 40 * MS);
        watch.note(at(2001), LB2, Duration::ZERO);
        assert_eq!(gaps(&watch.seen(at(2001))), [50 * MS, MS]);
        watch.note(at(2100), Is::Unknown, Duration::ZERO);
        watch.note(at(2300), LB2, Duration::ZERO);
        let seen = watch.seen(at(2300));
        assert_eq!((seen.unknown, seen.unserved, seen.gaps.count()), (200 * MS, 51 * MS, 2));
        assert_eq!(seen.served + seen.unserved + seen.unknown, 2200 * MS);
    }

    #[test]
    fn who_misses_the_owner_and_then_all_others_was_deaf_from_the_first() {
        for (doubt, unknown, unserved) in [(80, 100, 0), (79, 20, 80)] {
            let mut watch = Watch::default();
            watch.note(at(0), LB2, Duration::ZERO);
            watch.note(at(1000), Is::Nobodys, 40 * MS);
            watch.doubt(at(1040), doubt * MS);
            watch.note(at(1040), Is::Unknown, Duration::ZERO);
            let seen = watch.seen(at(1060));
            let expected = (960 * MS, unknown * MS, unserved * MS);
            assert_eq!((seen.served, seen.unknown, seen.unserved), expected, "{doubt}");
        }
    }

    #[test]
    fn a_takeover_within_one_step_was_a_gap_too() {
        let mut watch = Watch::default();
        watch.note(at(100), LB2, Duration::ZERO);
        watch.note(at(1000), Is::Mine, 30 * MS);
        let seen = watch.seen(at(1000));
        assert_eq!(
            (seen.served, seen.unserved, gaps(&seen)),
            (870 * MS, 30 * MS, [30 * MS].into())
        );
        let mut heard = Watch::default();
        heard.note(at(100), LB2, Duration::ZERO);
        heard.note(at(1000), LB3, 45 * MS);
        heard.note(at(1100), LB2, Duration::ZERO);
        let seen = heard.seen(at(1200));
        assert_eq!(
            (seen.served, seen.unserved, gaps(&seen)),
            (1055 * MS, 45 * MS, [45 * MS].into())
        );
        let mut planned = Watch::default();
        planned.note(at(100), LB2, Duration::ZERO);
        planned.note(at(1000), Is::Mine, Duration::ZERO);
        assert_eq!(planned.seen(at(1000)).gaps.count(), 0);
    }

    #[test]
    fn an_owner_that_was_silent_since_before_it_was_known_did_not_serve_before() {
        let mut watch = Watch::default();
        watch.note(at(100), LB2, Duration::ZERO);
        watch.note(at(110), Is::Nobodys, 40 * MS);
        let seen = watch.seen(at(120));
        assert_eq!((seen.served, seen.unserved), (Duration::ZERO, 20 * MS));
    }

    #[test]
    fn the_latest_gaps_are_kept_and_all_are_counted() {
        let mut gaps = Gaps::default();
        (0..=GAPS_KEPT as u64).for_each(|ms| gaps.add(Duration::from_millis(ms)));
        assert_eq!(gaps.count(), GAPS_KEPT + 1);
        let kept: Vec<Duration> = gaps.latest().collect();
        assert_eq!((kept.len(), kept.iter().min()), (GAPS_KEPT, Some(&MS)), "0 ms is forgotten");
        gaps.add(Duration::from_secs(1 << 40));
        assert!(gaps.latest().any(|gap| gap > Duration::from_secs(4000)));
    }

    #[test]
    fn the_least_slack_is_that_of_an_hour() {
        let minutes = |n: u64| at(n * 60_000);
        let mut slacks = Slacks::NEW;
        assert_eq!(slacks.view(minutes(10)), None);
        slacks.note(minutes(10), 30 * MS);
        slacks.note(minutes(10), 4 * MS);
        slacks.note(minutes(11), 35 * MS);
        assert_eq!(slacks.view(minutes(69)), Some(Slack { last: 35 * MS, least: 4 * MS }));
        assert_eq!(slacks.view(minutes(70)), Some(Slack { last: 35 * MS, least: 35 * MS }));
        assert_eq!(slacks.view(minutes(71)), None, "nothing was renewed for an hour");
        slacks.note(minutes(500), 20 * MS);
        assert_eq!(slacks.view(minutes(500)), Some(Slack { last: 20 * MS, least: 20 * MS }));
    }
}
