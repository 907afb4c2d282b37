//! Every pair of state and event of one election, and the order of the skews.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn own(priority: u8) -> Own {
    Own {
        priority,
        source: Some([10, 0, 0, 2].into()),
        interval: SECOND,
        preempt: Some(Duration::ZERO),
        learns: true,
        version: VrrpVersion::V3,
    }
}

fn heard(now: Instant, priority: u8) -> Heard {
    Heard { at: now, source: [10, 0, 0, 1].into(), priority, interval: SECOND }
}

fn in_state(state: State) -> Election {
    Election { state, ..Election::new(SECOND) }
}

fn backup(down_at: Instant) -> State {
    State::Backup { down_at, reason: Reason::Silence }
}

const fn active() -> State {
    State::Active { advert_at: Instant::from_nanos(5_000_000_000) }
}

fn due() -> State {
    State::Due { since: at(1), reason: Reason::Silence }
}

#[test]
fn whoever_starts_listens_unless_the_addresses_are_its_own() {
    let mut election = Election::new(SECOND);
    election.start(at(0), own(100));
    // RFC 9568 §6.1: 3 s and (256 - 100) / 256 s.
    assert_eq!(election.state, backup(at(3000) + SECOND * 156 / 256));
    let mut election = Election::new(SECOND);
    election.start(at(0), own(255));
    assert_eq!(election.state, State::Due { since: at(0), reason: Reason::Owner });
    for state in [backup(at(9)), due(), active()] {
        let mut election = in_state(state);
        election.start(at(1), own(100));
        assert_eq!(election.state, state, "a second start changes nothing");
    }
}

#[test]
fn the_end_is_told_by_whoever_was_active() {
    let cases = [(State::Stopped, false), (backup(at(9)), false), (due(), false), (active(), true)];
    for (state, told) in cases {
        let mut election = in_state(state);
        assert_eq!(election.stop(), told, "{state:?}");
        assert_eq!(election.state, State::Stopped);
    }
}

#[test]
fn every_state_hears_a_release_a_worse_an_equal_and_a_better_one() {
    let now = at(1000);
    let skew = own(100).skew(SECOND);
    let released = State::Backup { down_at: now + skew, reason: Reason::Release };
    let preempts = State::Backup { down_at: now + skew, reason: Reason::Preempt };
    let listens = backup(now + SECOND * 3 + skew);
    let soon = backup(now + skew / 2);
    // (in, priority heard) -> (out, step)
    let cases = [
        (State::Stopped, 0, State::Stopped, Step::Stay),
        (State::Stopped, 99, State::Stopped, Step::Stay),
        (State::Stopped, 100, State::Stopped, Step::Stay),
        (State::Stopped, 101, State::Stopped, Step::Stay),
        (backup(at(9000)), 0, released, Step::Stay),
        (backup(at(9000)), 99, preempts, Step::Stay),
        (backup(at(9000)), 100, listens, Step::Stay),
        (backup(at(9000)), 101, listens, Step::Stay),
        // What is sooner already stays.
        (soon, 0, soon, Step::Stay),
        (soon, 99, soon, Step::Stay),
        (due(), 0, due(), Step::Stay),
        (due(), 99, due(), Step::Stay),
        (due(), 100, listens, Step::Stay),
        (due(), 101, listens, Step::Stay),
        (active(), 0, active(), Step::Advertise),
        (active(), 99, active(), Step::Advertise),
        // 10.0.0.1 is less than 10.0.0.2.
        (active(), 100, active(), Step::Advertise),
        (active(), 101, listens, Step::Yield),
    ];
    for (state, priority, expected, step) in cases {
        let mut election = in_state(state);
        let took = election.hear(now, own(100), heard(now, priority));
        assert_eq!((election.state, took), (expected, step), "{state:?} hears {priority}");
    }
}

#[test]
fn time_passes_in_every_state() {
    let now = at(2000);
    let later = State::Active { advert_at: at(3500) };
    let cases = [
        (State::Stopped, State::Stopped, Step::Stay),
        (backup(at(2001)), backup(at(2001)), Step::Stay),
        (backup(now), State::Due { since: now, reason: Reason::Silence }, Step::Stay),
        (due(), due(), Step::Stay),
        (active(), active(), Step::Stay),
        (State::Active { advert_at: now }, State::Active { advert_at: at(3000) }, Step::Advertise),
        // Half an interval late: the next one keeps the beat.
        (
            State::Active { advert_at: at(1500) },
            State::Active { advert_at: at(2500) },
            Step::Advertise,
        ),
        (
            State::Active { advert_at: at(100) },
            State::Active { advert_at: at(3000) },
            Step::Advertise,
        ),
        (later, later, Step::Stay),
    ];
    for (state, expected, step) in cases {
        let mut election = in_state(state);
        assert_eq!(election.tick(now, own(100)), step, "{state:?}");
        assert_eq!(election.state, expected, "{state:?}");
    }
}

#[test]
fn a_group_that_takes_or_loses_takes_its_elections_along() {
    for state in [backup(at(9000)), due()] {
        let mut election = in_state(state);
        election.activate(at(10), own(100));
        assert_eq!(election.state, State::Active { advert_at: at(1010) });
    }
    let listens = backup(at(10) + SECOND * 3 + own(100).skew(SECOND));
    let cases = [
        (State::Stopped, State::Stopped),
        (backup(at(9)), backup(at(9))),
        (due(), listens),
        (active(), listens),
    ];
    for (state, expected) in cases {
        let mut election = in_state(state);
        election.step_down(at(10), own(100));
        assert_eq!(election.state, expected, "{state:?}");
    }
}

#[test]
fn skews_come_in_the_order_of_priorities() {
    for version in [VrrpVersion::V2, VrrpVersion::V3] {
        for interval in [Duration::from_millis(10), SECOND, Duration::from_secs(40)] {
            for better in 2..=254 {
                for worse in 1..better {
                    let skew = |priority| Own { version, ..own(priority) }.skew(interval);
                    assert!(skew(better) < skew(worse), "{version:?} {better} and {worse}");
                }
            }
        }
    }
    // RFC 9568 §6.1 at one second, and RFC 3768 §6.1 whatever the interval.
    assert_eq!(own(254).skew(SECOND), SECOND * 2 / 256);
    let v2 = Own { version: VrrpVersion::V2, ..own(100) };
    assert_eq!(v2.skew(SECOND * 3), SECOND * 156 / 256);
}

#[test]
fn a_tie_goes_to_the_greater_address_which_is_unsigned() {
    let cases = [
        ([10, 0, 0, 1], Step::Advertise),
        ([10, 0, 0, 3], Step::Yield),
        ([192, 0, 0, 1], Step::Yield),
    ];
    for (source, step) in cases {
        let mut election = in_state(active());
        let other = Heard { source: source.into(), ..heard(at(10), 100) };
        assert_eq!(election.hear(at(10), own(100), other), step, "{source:?}");
    }
    let mut election = in_state(active());
    let unknown = Own { source: None, ..own(100) };
    assert_eq!(election.hear(at(10), unknown, heard(at(10), 100)), Step::Yield);
}

#[test]
fn who_does_not_preempt_follows_a_worse_one_until_it_is_silent() {
    let mut election = in_state(backup(at(9000)));
    let patient = Own { preempt: None, ..own(200) };
    election.hear(at(1000), patient, heard(at(1000), 1));
    let down_at = at(1000) + SECOND * 3 + patient.skew(SECOND);
    assert_eq!(election.state, backup(down_at));
    election.tick(down_at, patient);
    assert_eq!(election.state, State::Due { since: down_at, reason: Reason::Silence });
}

#[test]
fn who_waits_before_it_preempts_waits_from_the_first_worse_one() {
    let mut election = in_state(backup(at(60_000)));
    let patient = Own { preempt: Some(SECOND * 5), ..own(200) };
    for second in 1..=5 {
        election.hear(at(second * 1000), patient, heard(at(second * 1000), 100));
        election.tick(at(second * 1000), patient);
        assert!(matches!(election.state, State::Backup { .. }), "after {second} s");
    }
    election.tick(at(6000), patient);
    assert_eq!(election.state, State::Due { since: at(6000), reason: Reason::Preempt });
    // A better one in between begins it anew.
    let mut election = in_state(backup(at(60_000)));
    election.hear(at(1000), patient, heard(at(1000), 100));
    election.hear(at(2000), patient, heard(at(2000), 201));
    election.hear(at(3000), patient, heard(at(3000), 100));
    election.tick(at(6000), patient);
    assert!(matches!(election.state, State::Backup { .. }));
}

#[test]
fn the_interval_is_learned_in_version_3_and_its_own_again_when_active() {
    let slow = Heard { interval: SECOND * 3, ..heard(at(0), 200) };
    let mut election = in_state(backup(at(9000)));
    election.hear(at(0), own(100), slow);
    assert_eq!(election.interval, SECOND * 3);
    assert_eq!(election.state, backup(at(9000) + SECOND * 3 * 156 / 256));
    election.activate(at(10), own(100));
    assert_eq!((election.interval, election.deadline()), (SECOND, Some(at(1010))));
    let mut election = in_state(backup(at(9000)));
    election.hear(at(0), Own { learns: false, ..own(100) }, slow);
    assert_eq!(election.interval, SECOND);
}

#[test]
fn a_flood_of_releases_is_answered_now_and_then() {
    let mut election = in_state(active());
    let mut answers = 0;
    for n in 0..10_000_u64 {
        let now = Instant::from_nanos(n * 10_000);
        let step = election.hear(now, own(100), heard(now, 0));
        answers += u32::from(step == Step::Advertise);
    }
    assert_eq!(answers, 10, "in 100 ms");
}

#[test]
fn another_priority_is_told_at_once_and_lets_a_backup_come_forward() {
    let mut election = in_state(active());
    assert_eq!(election.reweigh(at(10), own(50)), Step::Advertise);
    assert_eq!(election.state, State::Active { advert_at: at(1010) });
    for state in [State::Stopped, due()] {
        let mut election = in_state(state);
        assert_eq!(election.reweigh(at(10), own(50)), Step::Stay);
        assert_eq!(election.state, state);
    }
    let mut election = in_state(backup(at(9000)));
    election.hear(at(1000), own(90), heard(at(1000), 100));
    assert_eq!(election.reweigh(at(1010), own(110)), Step::Stay);
    let skew = own(110).skew(SECOND);
    assert_eq!(election.state, State::Backup { down_at: at(1010) + skew, reason: Reason::Preempt });
    // And back before it came forward.
    election.reweigh(at(1020), own(90));
    assert_eq!(election.state, backup(at(4000) + own(90).skew(SECOND)));
    // Not so where it does not preempt.
    let patient = Own { preempt: None, ..own(110) };
    let mut election = in_state(backup(at(9000)));
    election.hear(at(1000), Own { preempt: None, ..own(90) }, heard(at(1000), 100));
    election.reweigh(at(1010), patient);
    assert_eq!(election.state, backup(at(4000) + patient.skew(SECOND)));
}

#[test]
fn checks_move_the_priority_between_1_and_254_and_never_that_of_the_owner() {
    let cases = [
        (100, -20, 80),
        (100, -200, 1),
        (100, 200, 254),
        (254, 1, 254),
        (255, -100, 255),
        (1, -1, 1),
    ];
    for (priority, weight, expected) in cases {
        assert_eq!(weighed(priority, weight), expected, "{priority} {weight}");
    }
    assert_eq!(weighed(100, i16::MIN), 1);
}
