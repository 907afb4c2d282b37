//! Decides whether one backend is up, from the answers it gives or owes.
//!
//! A backend is asked every `every`, counted from question to question, so that a slow answer
//! does not stretch the rhythm. `fall` failures in a row turn it down, `rise` passes in a row turn
//! it up. Not asked yet is `Unknown`, which counts as up; the first answer of all decides at once,
//! as in HAProxy, because a start should not send traffic to a dead backend for `fall` rounds.
//! What is down is asked every `every_down`. While answers speak against the verdict, the shorter of
//! both holds: then a decision is near, and it should not wait for a rhythm made for calm times.
//!
//! The promise: a backend that stops answering is down within `interval * fall + timeout`, where
//! `interval` is the longer of `every` and `timeout` (one question at a time is under way).
//!
//! Absent on purpose: sockets, reasons in words, and the clock. The driver asks, and reports with
//! the number of the question, so that an answer which comes after its time changes nothing.

use alloc::vec::Vec;
use buoy_model::{BackendState, Fitness, Instant, Pace};
use core::time::Duration;

/// How well a host could serve a group: a check of the host itself that fails weighs more than backends
/// that it does not reach.
pub fn fitness(failing: Option<&str>, backends: BackendState) -> Fitness {
    use BackendState::{Down, Unknown, Up};
    match (failing, backends) {
        (Some(check), Up | Unknown | Down) => Fitness::CheckFails { check: check.into() },
        (None, Up) => Fitness::Fit,
        (None, Unknown) => Fitness::Unchecked,
        (None, Down) => Fitness::NoBackend,
    }
}

/// Zero would ask in a loop or decide from nothing: the least is a millisecond and one answer.
fn sound(pace: Pace) -> Pace {
    let least = Duration::from_millis(1);
    Pace {
        every: pace.every.max(least),
        every_down: pace.every_down.max(least),
        timeout: pace.timeout.max(least),
        rise: pace.rise.max(1),
        fall: pace.fall.max(1),
    }
}

/// The number of a question; answers carry it back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Question(pub u32);

/// What can happen to a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// `deadline()` may have passed.
    Tick,
    /// The backend gave the right answer.
    Passed(Question),
    /// The backend gave a wrong answer, or the driver could not ask.
    Failed(Question),
}

/// What the driver must do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Ask now, and report with this number.
    Ask(Question),
    /// Stop waiting for the answer: its time is over, and it was counted as a failure.
    GiveUp(Question),
    /// The backend may get new connections.
    TurnedUp,
    /// The backend gets no new connections.
    TurnedDown,
}

/// The check of one backend.
#[derive(Clone, Debug)]
pub struct Health {
    pace: Pace,
    verdict: BackendState,
    /// Answers in a row that speak against the verdict.
    against: u32,
    question: Question,
    state: State,
}

/// Each timer lives in the one state that uses it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Resting { ask_at: Instant },
    Asking { asked_at: Instant, give_up_at: Instant },
}

impl Health {
    /// Starts from what is known of the backend. `jitter` below `every` keeps a hundred checks from
    /// starting in the same millisecond; the rhythm keeps them apart from then on.
    pub fn new(pace: Pace, known: BackendState, now: Instant, jitter: Duration) -> Self {
        let pace = sound(pace);
        let ask_at = now + jitter.min(pace.every);
        let state = State::Resting { ask_at };
        Self { pace, verdict: known, against: 0, question: Question(0), state }
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        match (self.state, event) {
            (State::Resting { ask_at }, Event::Tick) if now < ask_at => {}
            (State::Resting { .. }, Event::Tick) => self.ask(now, out),
            // Too late: that question was already counted as failed.
            (State::Resting { .. }, Event::Passed(..) | Event::Failed(..)) => {}

            (State::Asking { give_up_at, .. }, Event::Tick) if now < give_up_at => {}
            (State::Asking { asked_at, .. }, Event::Tick) => {
                out.push(Action::GiveUp(self.question));
                self.count_failure(out);
                self.rest(now, asked_at);
            }
            (State::Asking { .. }, Event::Passed(question) | Event::Failed(question))
                if question != self.question => {}
            (State::Asking { asked_at, .. }, Event::Passed(..)) => {
                self.count_pass(out);
                self.rest(now, asked_at);
            }
            (State::Asking { asked_at, .. }, Event::Failed(..)) => {
                self.count_failure(out);
                self.rest(now, asked_at);
            }
        }
    }

    /// When to call `handle` with `Event::Tick`.
    pub fn deadline(&self) -> Instant {
        match self.state {
            State::Resting { ask_at } => ask_at,
            State::Asking { give_up_at, .. } => give_up_at,
        }
    }

    /// What is known of the backend now.
    pub fn verdict(&self) -> BackendState {
        self.verdict
    }

    fn ask(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.question = Question(self.question.0.wrapping_add(1));
        self.state = State::Asking { asked_at: now, give_up_at: now + self.pace.timeout };
        out.push(Action::Ask(self.question));
    }

    fn rest(&mut self, now: Instant, asked_at: Instant) {
        // A driver that was frozen owes one question, not all that it missed.
        let ask_at = (asked_at + self.pace()).max(now);
        self.state = State::Resting { ask_at };
    }

    /// From the last question to the next, by what is known of the backend.
    fn pace(&self) -> Duration {
        let Pace { every, every_down, .. } = self.pace;
        match (self.verdict, self.against) {
            (BackendState::Unknown | BackendState::Up, 0) => every,
            (BackendState::Down, 0) => every_down,
            (BackendState::Unknown | BackendState::Up | BackendState::Down, 1..) => {
                every.min(every_down)
            }
        }
    }

    fn count_pass(&mut self, out: &mut Vec<Action>) {
        match self.verdict {
            BackendState::Up => self.against = 0,
            BackendState::Unknown => self.turn_up(out),
            BackendState::Down => {
                self.against += 1;
                if self.pace.rise <= self.against {
                    self.turn_up(out);
                }
            }
        }
    }

    fn count_failure(&mut self, out: &mut Vec<Action>) {
        match self.verdict {
            BackendState::Down => self.against = 0,
            BackendState::Unknown => self.turn_down(out),
            BackendState::Up => {
                self.against += 1;
                if self.pace.fall <= self.against {
                    self.turn_down(out);
                }
            }
        }
    }

    fn turn_up(&mut self, out: &mut Vec<Action>) {
        self.verdict = BackendState::Up;
        self.against = 0;
        out.push(Action::TurnedUp);
    }

    fn turn_down(&mut self, out: &mut Vec<Action>) {
        self.verdict = BackendState::Down;
        self.against = 0;
        out.push(Action::TurnedDown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const MS: Duration = Duration::from_millis(1);

    fn pace(every: u32, timeout: u32, rise: u32, fall: u32) -> Pace {
        let every = every * MS;
        Pace { every, every_down: every, timeout: timeout * MS, rise, fall }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    /// Answers every question after `latency`, well until `dies_at`, and then never (`None`) or
    /// badly. Returns when the backend was found down.
    fn found_down(
        pace: Pace,
        jitter: u64,
        dies_at: u64,
        latency: u64,
        silent: bool,
    ) -> Option<u64> {
        let mut health =
            Health::new(pace, BackendState::Unknown, at(0), Duration::from_millis(jitter));
        let mut answers: Vec<(u64, Event)> = vec![];
        let mut out = vec![];
        for ms in 0..100_000 {
            let due: Vec<_> = answers.extract_if(.., |(when, _)| *when <= ms).collect();
            for (_, event) in due {
                health.handle(at(ms), event, &mut out);
            }
            while health.deadline() <= at(ms) {
                health.handle(at(ms), Event::Tick, &mut out);
            }
            for action in core::mem::take(&mut out) {
                match action {
                    Action::Ask(question) if ms + latency < dies_at => {
                        answers.push((ms + latency, Event::Passed(question)));
                    }
                    Action::Ask(question) if !silent => {
                        answers.push((ms + latency, Event::Failed(question)));
                    }
                    Action::TurnedDown => return Some(ms),
                    Action::Ask(_) | Action::GiveUp(_) | Action::TurnedUp => {}
                }
            }
        }
        None
    }

    /// The times from each question to the next, for answers that come at once.
    fn pauses(pace: Pace, known: BackendState, passes: &[bool]) -> Vec<u64> {
        let mut health = Health::new(pace, known, at(0), Duration::ZERO);
        let mut out = vec![];
        let mut pause = |pass: &bool| {
            let now = health.deadline();
            health.handle(now, Event::Tick, &mut out);
            let question = health.question;
            let event = if *pass { Event::Passed(question) } else { Event::Failed(question) };
            health.handle(now, event, &mut out);
            (health.deadline().as_nanos() - now.as_nanos()) / 1_000_000
        };
        passes.iter().map(&mut pause).collect()
    }

    #[test]
    fn what_fails_is_asked_at_its_own_pace_and_a_decision_never_waits_for_the_slower_one() {
        let paced = |every_down: u32| Pace { every_down: every_down * MS, ..pace(100, 10, 2, 3) };
        let answers =
            [true, false, true, false, false, false, false, true, false, true, true, true];
        // up, 1st failure, up again, 1st, 2nd, down, down, 1st pass, down, 1st pass, up, up
        let quick = [100, 20, 100, 20, 20, 20, 20, 20, 20, 20, 100, 100];
        let slow = [100, 100, 100, 100, 100, 900, 900, 100, 900, 100, 100, 100];
        assert_eq!(pauses(paced(20), BackendState::Up, &answers), quick);
        assert_eq!(pauses(paced(900), BackendState::Up, &answers), slow);
        for (known, pass, pause) in [
            (BackendState::Unknown, true, 100),
            (BackendState::Unknown, false, 20),
            (BackendState::Up, true, 100),
            (BackendState::Up, false, 20),
            (BackendState::Down, true, 20),
            (BackendState::Down, false, 20),
        ] {
            assert_eq!(pauses(paced(20), known, &[pass]), [pause], "{known:?} {pass}");
        }
    }

    #[test]
    fn a_backend_that_fails_leaves_within_interval_times_fall_plus_timeout() {
        for (every, timeout) in [(100, 100), (100, 30), (50, 49), (40, 90)] {
            for fall in 1..=4 {
                for dies_at in (500..700).step_by(7) {
                    for (latency, silent) in [(0, true), (20, true), (0, false), (29, false)] {
                        let every_down = MS * [every, 10, 3 * every][dies_at as usize % 3];
                        let pace = Pace { every_down, ..pace(every, timeout, 2, fall) };
                        let down = found_down(pace, 13, dies_at, latency, silent).unwrap();
                        let interval = u64::from(every.max(timeout));
                        let bound = interval * u64::from(fall) + u64::from(timeout);
                        assert!(dies_at <= down, "went down before it failed");
                        assert!(
                            down - dies_at <= bound,
                            "every {every} timeout {timeout} fall {fall} latency {latency}: \
                             {} > {bound}",
                            down - dies_at
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn fewer_failures_than_fall_change_nothing() {
        let mut health = Health::new(pace(10, 10, 1, 3), BackendState::Up, at(0), Duration::ZERO);
        let mut out = vec![];
        // Two failures, a pass, two failures: never three in a row.
        for pass in [false, false, true, false, false, true] {
            let now = health.deadline();
            health.handle(now, Event::Tick, &mut out);
            let question = health.question;
            let event = if pass { Event::Passed(question) } else { Event::Failed(question) };
            health.handle(now, event, &mut out);
        }
        assert!(out.iter().all(|a| matches!(a, Action::Ask(_))), "{out:?}");
        assert_eq!(health.verdict(), BackendState::Up);
    }

    #[test]
    fn a_backend_comes_back_after_rise_passes_in_a_row() {
        let mut health = Health::new(pace(10, 10, 2, 1), BackendState::Down, at(0), Duration::ZERO);
        let mut turned = vec![];
        for pass in [true, false, true, true] {
            let now = health.deadline();
            let mut out = vec![];
            health.handle(now, Event::Tick, &mut out);
            let question = health.question;
            let event = if pass { Event::Passed(question) } else { Event::Failed(question) };
            health.handle(now, event, &mut out);
            turned.push(out.contains(&Action::TurnedUp));
        }
        assert_eq!(turned, [false, false, false, true]);
    }

    #[test]
    fn the_first_answer_decides_at_once() {
        for (pass, expected) in [(true, BackendState::Up), (false, BackendState::Down)] {
            let mut health =
                Health::new(pace(10, 10, 5, 5), BackendState::Unknown, at(0), Duration::ZERO);
            let mut out = vec![];
            health.handle(at(0), Event::Tick, &mut out);
            let question = health.question;
            let event = if pass { Event::Passed(question) } else { Event::Failed(question) };
            health.handle(at(1), event, &mut out);
            assert_eq!(health.verdict(), expected);
        }
    }

    #[test]
    fn an_answer_after_its_time_changes_nothing() {
        let mut health = Health::new(pace(100, 10, 1, 1), BackendState::Up, at(0), Duration::ZERO);
        let mut out = vec![];
        health.handle(at(0), Event::Tick, &mut out);
        let late = health.question;
        health.handle(at(10), Event::Tick, &mut out);
        assert_eq!(health.verdict(), BackendState::Down);
        health.handle(at(11), Event::Passed(late), &mut out);
        assert_eq!(health.verdict(), BackendState::Down, "while resting");
        health.handle(at(100), Event::Tick, &mut out);
        health.handle(at(101), Event::Passed(late), &mut out);
        assert_eq!(health.verdict(), BackendState::Down, "while asking the next question");
    }

    #[test]
    fn a_frozen_driver_owes_one_question_and_not_a_burst() {
        let mut health = Health::new(pace(10, 5, 1, 3), BackendState::Up, at(0), Duration::ZERO);
        let mut out = vec![];
        health.handle(at(0), Event::Tick, &mut out);
        health.handle(at(60_000), Event::Tick, &mut out);
        health.handle(at(60_000), Event::Tick, &mut out);
        let asked = out.iter().filter(|a| matches!(a, Action::Ask(_))).count();
        assert_eq!(asked, 2);
        assert_eq!(health.verdict(), BackendState::Up, "one silence is one failure");
    }

    #[test]
    fn jitter_spreads_the_first_questions_and_is_never_longer_than_the_interval() {
        let first = |jitter| {
            Health::new(pace(100, 10, 1, 1), BackendState::Unknown, at(0), jitter).deadline()
        };
        assert_eq!(first(7 * MS), at(7));
        assert_eq!(first(99 * MS), at(99));
        assert_eq!(first(9_000 * MS), at(100));
    }
}
