//! The election of one virtual router (RFC 9568 §6.4), pure: who is heard, who is better, and when silence is long
//! enough.
//!
//! ```text
//!              start                        silence, or a release and the skew
//!   stopped ──────────► backup ───────────────────────────────► due
//!      ▲                  ▲  ▲ ◄───── somebody better is heard ───┤
//!      │ stop             │  └──────────── somebody better ◄── active
//!      └── any state      └── the address-lease ended ─────────────┘
//! ```
//!
//! `due` is what RFC 9568 does not have: this router could be active. It is at once, unless others of its group
//! must be due as well (a sync group moves as one).
//!
//! Where we do more than the RFC: who hears a worse one takes over after its skew instead of waiting for the whole
//! silence (so the best of several comes first), and an answer to a worse one is said at most once in
//! `ANSWER_SPACING`, whatever arrives.

use buoy_model::{Instant, PRIORITY_OWNER, PRIORITY_RELEASE, VirtualRouter, VrrpVersion};
use core::net::IpAddr;
use core::time::Duration;

/// How often a worse or a stopping one is answered at most.
pub(crate) const ANSWER_SPACING: Duration = Duration::from_millis(10);

/// So many intervals of silence mean that the active router is gone (RFC 9568 §6.1).
const INTERVALS_OF_SILENCE: u32 = 3;

/// One virtual router on this host.
#[derive(Clone, Debug)]
pub(crate) struct Election {
    pub(crate) state: State,
    /// The interval that counts for silence: ours, or in version 3 that of the active router.
    pub(crate) interval: Duration,
    /// Who was active when heard last, and with what.
    pub(crate) heard: Option<Heard>,
    /// Since when only worse ones are heard.
    worse_since: Option<Instant>,
    answered_at: Option<Instant>,
}

/// What this host is to the virtual router.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// Takes no part.
    Stopped,
    /// Listens.
    Backup {
        /// When the active router has been silent for too long.
        down_at: Instant,
        /// Why that may be soon.
        reason: Reason,
    },
    /// Could be active, for that reason; since then.
    Due { since: Instant, reason: Reason },
    /// Serves, and says so again at `advert_at`.
    Active { advert_at: Instant },
}

/// Why a backup becomes active.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reason {
    /// Nobody better was heard for three intervals and the skew.
    Silence,
    /// The active router said that it stops.
    Release,
    /// The active router is worse.
    Preempt,
    /// The addresses are this host's own (priority 255).
    Owner,
}

/// An advertisement that was believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Heard {
    pub(crate) at: Instant,
    pub(crate) source: IpAddr,
    pub(crate) priority: u8,
    pub(crate) interval: Duration,
}

/// What an advertisement means between two that are active.
#[derive(Clone, Copy, Debug)]
enum Word {
    /// Its sender stops.
    Stops,
    /// Its sender goes before this host.
    ComesFirst,
    /// This host goes before its sender.
    ComesAfter,
}

/// What this host brings to an election.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    /// Its priority as of now, never 0.
    pub(crate) priority: u8,
    pub(crate) source: Option<IpAddr>,
    pub(crate) interval: Duration,
    /// How long worse ones are suffered before this host takes over; `None`: for ever.
    pub(crate) preempt: Option<Duration>,
    /// Version 3 learns the interval of the active router.
    pub(crate) learns: bool,
    /// Version 2 counts its skew in fractions of one second.
    pub(crate) version: VrrpVersion,
}

/// What is to be done after a step.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Step {
    /// Nothing.
    #[default]
    Stay,
    /// Say now what is said every interval.
    Advertise,
    /// Somebody better is active: stop serving.
    Yield,
}

impl Own {
    /// What `router` says of this host, whose checks add so much.
    pub(crate) fn new(router: &VirtualRouter, weight: i16, preempt: Option<Duration>) -> Self {
        Self {
            priority: weighed(router.priority, weight),
            source: router.source,
            interval: router.interval,
            preempt,
            learns: router.version == VrrpVersion::V3,
            version: router.version,
        }
    }

    /// How much later than others this host comes forward (RFC 9568 §6.1, RFC 3768 §6.1).
    pub(crate) fn skew(self, interval: Duration) -> Duration {
        let unit = match self.version {
            VrrpVersion::V2 => Duration::from_secs(1),
            VrrpVersion::V3 => interval,
        };
        unit * (256 - u32::from(self.priority)) / 256
    }

    fn silence(self, interval: Duration) -> Duration {
        interval * INTERVALS_OF_SILENCE + self.skew(interval)
    }

    /// Whether the other goes first when both are active.
    fn is_worse_than(self, other: Heard) -> bool {
        let tie = || self.source.is_none_or(|own| own < other.source);
        self.priority < other.priority || self.priority == other.priority && tie()
    }
}

/// The priority with what checks add and take away. Only whoever has the addresses as its own has 255, and 0 means
/// to stop.
pub(crate) fn weighed(priority: u8, weight: i16) -> u8 {
    if priority == PRIORITY_OWNER {
        return priority;
    }
    let sum = (i16::from(priority).saturating_add(weight)).clamp(1, i16::from(PRIORITY_OWNER) - 1);
    u8::try_from(sum).unwrap_or(priority)
}

impl Election {
    pub(crate) const fn new(interval: Duration) -> Self {
        Self { state: State::Stopped, interval, heard: None, worse_since: None, answered_at: None }
    }

    /// Takes part from now on.
    pub(crate) fn start(&mut self, now: Instant, own: Own) {
        match self.state {
            State::Stopped if own.priority == PRIORITY_OWNER => {
                self.interval = own.interval;
                self.state = State::Due { since: now, reason: Reason::Owner };
            }
            State::Stopped => {
                self.interval = own.interval;
                self.listen(now, own);
            }
            State::Backup { .. } | State::Due { .. } | State::Active { .. } => {}
        }
    }

    /// Takes no part any more. True where others are to be told (RFC 9568 §6.4.3).
    pub(crate) const fn stop(&mut self) -> bool {
        self.worse_since = None;
        self.heard = None;
        match core::mem::replace(&mut self.state, State::Stopped) {
            State::Stopped | State::Backup { .. } | State::Due { .. } => false,
            State::Active { .. } => true,
        }
    }

    /// Serves no more, for whatever reason, and listens.
    pub(crate) fn step_down(&mut self, now: Instant, own: Own) {
        match self.state {
            State::Active { .. } | State::Due { .. } => self.listen(now, own),
            State::Stopped | State::Backup { .. } => {}
        }
    }

    /// Serves from now on: its group does.
    pub(crate) fn activate(&mut self, now: Instant, own: Own) {
        match self.state {
            State::Due { .. } | State::Backup { .. } => {
                self.worse_since = None;
                self.interval = own.interval;
                self.state = State::Active { advert_at: now + own.interval };
            }
            State::Stopped | State::Active { .. } => debug_assert!(false, "only a backup begins"),
        }
    }

    /// Time has passed. What is to be said is to be said now.
    pub(crate) fn tick(&mut self, now: Instant, own: Own) -> Step {
        match self.state {
            State::Stopped | State::Due { .. } => Step::Stay,
            State::Backup { down_at, .. } if now < down_at => Step::Stay,
            State::Backup { reason, .. } => {
                self.state = State::Due { since: now, reason };
                Step::Stay
            }
            State::Active { advert_at } if now < advert_at => Step::Stay,
            State::Active { advert_at } => {
                // Kept in step where it can be; after a stall a new beginning.
                let next = advert_at + own.interval;
                let next = if next <= now { now + own.interval } else { next };
                self.state = State::Active { advert_at: next };
                Step::Advertise
            }
        }
    }

    /// An advertisement that passed every check.
    pub(crate) fn hear(&mut self, now: Instant, own: Own, heard: Heard) -> Step {
        let word = if heard.priority == PRIORITY_RELEASE {
            Word::Stops
        } else if own.is_worse_than(heard) {
            Word::ComesFirst
        } else {
            Word::ComesAfter
        };
        match (self.state, word) {
            (State::Stopped, Word::Stops | Word::ComesFirst | Word::ComesAfter) => Step::Stay,
            (State::Backup { .. } | State::Due { .. }, Word::Stops) => {
                self.heard = None;
                self.worse_since = None;
                self.hasten(now + own.skew(self.interval), Reason::Release);
                Step::Stay
            }
            (State::Backup { .. } | State::Due { .. }, Word::ComesFirst | Word::ComesAfter) => {
                self.hear_active(now, own, heard);
                Step::Stay
            }
            (State::Active { .. }, Word::ComesFirst) => {
                self.follow(now, own, heard);
                Step::Yield
            }
            (State::Active { .. }, Word::Stops | Word::ComesAfter) => self.answer(now),
        }
    }

    /// This host's priority has changed: what it says is to be said now.
    pub(crate) fn reweigh(&mut self, now: Instant, own: Own) -> Step {
        match self.state {
            State::Stopped | State::Due { .. } => Step::Stay,
            State::Backup { down_at, reason: Reason::Silence } => {
                // Whoever is better now comes forward as if that had been so all the time.
                if let Some(heard) = self.heard {
                    let down_at = heard.at + own.silence(self.interval);
                    self.state = State::Backup { down_at, reason: Reason::Silence };
                    if heard.priority < own.priority && own.preempt == Some(Duration::ZERO) {
                        self.hasten(now + own.skew(self.interval), Reason::Preempt);
                    }
                } else {
                    self.state = State::Backup { down_at, reason: Reason::Silence };
                }
                Step::Stay
            }
            State::Backup { reason: Reason::Preempt, .. }
                if self.heard.is_some_and(|heard| own.priority <= heard.priority) =>
            {
                let heard = self.heard.map_or(now, |heard| heard.at);
                let down_at = heard + own.silence(self.interval);
                self.state = State::Backup { down_at, reason: Reason::Silence };
                Step::Stay
            }
            State::Backup { reason: Reason::Preempt | Reason::Release | Reason::Owner, .. } => {
                Step::Stay
            }
            State::Active { .. } => {
                self.state = State::Active { advert_at: now + own.interval };
                Step::Advertise
            }
        }
    }

    /// When something is due by time alone.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Stopped | State::Due { .. } => None,
            State::Backup { down_at, .. } => Some(down_at),
            State::Active { advert_at } => Some(advert_at),
        }
    }

    /// How long others wait before one of them takes over, counted from what was said last.
    pub(crate) fn promise(own: Own) -> Duration {
        own.interval * INTERVALS_OF_SILENCE
    }

    fn listen(&mut self, now: Instant, own: Own) {
        let down_at = now + own.silence(self.interval);
        self.state = State::Backup { down_at, reason: Reason::Silence };
    }

    /// Somebody is active, and this host is not.
    fn hear_active(&mut self, now: Instant, own: Own, heard: Heard) {
        let is_worse = heard.priority < own.priority;
        match (is_worse, own.preempt) {
            (false, Some(_) | None) => {
                self.worse_since = None;
                self.follow(now, own, heard);
            }
            (true, None) => self.follow(now, own, heard),
            (true, Some(patience)) => {
                let since = *self.worse_since.get_or_insert(now);
                if now < since + patience {
                    self.follow(now, own, heard);
                    self.hasten(since + patience, Reason::Preempt);
                } else {
                    self.heard = Some(heard);
                    self.hasten(now + own.skew(self.interval), Reason::Preempt);
                }
            }
        }
    }

    /// Listens to one that is active.
    fn follow(&mut self, now: Instant, own: Own, heard: Heard) {
        self.heard = Some(heard);
        if own.learns {
            self.interval = heard.interval;
        }
        self.listen(now, own);
    }

    /// Comes forward at `at`, unless that is sooner already.
    fn hasten(&mut self, at: Instant, reason: Reason) {
        match self.state {
            State::Backup { down_at, .. } if down_at <= at => {}
            State::Backup { .. } => self.state = State::Backup { down_at: at, reason },
            // Due it stays: nobody better was heard.
            State::Stopped | State::Due { .. } | State::Active { .. } => {}
        }
    }

    /// Says to one that is worse, or stops, that this host is here.
    fn answer(&mut self, now: Instant) -> Step {
        if self.answered_at.is_some_and(|at| now < at + ANSWER_SPACING) {
            return Step::Stay;
        }
        self.answered_at = Some(now);
        Step::Advertise
    }
}

#[cfg(test)]
#[path = "vrrp_tests.rs"]
mod tests;
