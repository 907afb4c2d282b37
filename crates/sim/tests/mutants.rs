//! Proves that the checkers bite: each fault put into the protocol on purpose is caught, and the
//! same days without it break no promise.
#![cfg(feature = "mutants")]

use buoy_core::Mutation;
use buoy_model::limits::LEASE_MAX;
use buoy_model::{Failback, Timing};
use buoy_sim::{Fault, Outcome, Scenario, Trace, Violation, Weather, World, run_caught};
use std::time::Duration;

/// Seeds within which a fault must have been seen.
const SEEDS: u64 = 60;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Bits of hosts.
const OWNER: u64 = 0b001;
const RIVAL: u64 = 0b100;
const ALL: u64 = 0b111;

fn run(mut scenario: Scenario, mutation: Option<Mutation>) -> Result<Outcome, Violation> {
    scenario.mutation = mutation;
    run_caught(&mut World::new(scenario, Trace::short()))
}

/// The first seed that sees the mutation; up to there, none may complain without it.
fn caught(mutation: Mutation, day: fn(u64) -> Scenario) -> Option<Violation> {
    (0..SEEDS).find_map(|seed| {
        assert_eq!(run(day(seed), None).err(), None, "seed {seed}, without the mutation");
        run(day(seed), Some(mutation)).err()
    })
}

fn gets_two_owners(mutation: Mutation, day: fn(u64) -> Scenario) {
    let violation = caught(mutation, day);
    assert!(matches!(violation, Some(Violation::TwoOwners { .. })), "{violation:?}");
}

/// Three hosts and one group that the first one gets back whenever it can.
fn three(seed: u64, lease: Duration, days: u64) -> Scenario {
    let mut scenario = Scenario::quiet(seed, 3, 1);
    scenario.timing = Timing { heartbeat: Duration::from_millis(10), lease, lease_max: lease };
    scenario.groups[0].prefer = vec![scenario.hosts[0].id];
    scenario.groups[0].failback = Failback::After(Duration::ZERO);
    scenario.calm_at = days * SECOND;
    scenario
}

/// Cuts off what the owner says, now and then for a while, and lets it hear everything.
fn mute_the_owner(scenario: &mut Scenario, every: u64, lasting: u64) {
    let cut = Fault::Cut { from: OWNER, to: ALL };
    let mend = Fault::Mend { from: OWNER, to: ALL };
    let mut at = 4 * SECOND;
    while at < scenario.calm_at {
        scenario.faults.extend([(at, cut.clone()), (at + lasting, mend.clone())]);
        at += every + scenario.seed % 10 * MS;
    }
}

/// The rival hears nothing of the owner and asks all the time; the third one's vote decides.
fn a_rival_that_asks_all_the_time(seed: u64, lease: Duration) -> Scenario {
    let mut scenario = three(seed, lease, 12);
    scenario.faults = vec![
        (4 * SECOND, Fault::Cut { from: OWNER, to: RIVAL }),
        (4 * SECOND, Fault::Cut { from: RIVAL, to: OWNER }),
    ];
    scenario
}

#[test]
fn half_of_the_votes_is_not_enough() {
    gets_two_owners(Mutation::HalfIsMajority, |seed| {
        let mut scenario = Scenario::quiet(seed, 4, 2);
        let (left, right) = (0b0011, 0b1100);
        scenario.faults = vec![
            (5 * SECOND, Fault::Cut { from: left, to: right }),
            (5 * SECOND, Fault::Cut { from: right, to: left }),
        ];
        scenario.calm_at = 7 * SECOND;
        scenario
    });
}

#[test]
fn a_voter_must_not_grant_twice() {
    gets_two_owners(Mutation::GrantTwice, Scenario::of_seed);
}

#[test]
fn serving_must_end_before_it_is_said() {
    gets_two_owners(Mutation::SayBeforeRelease, Scenario::of_seed);
}

#[test]
fn somebody_must_ask() {
    let violation = caught(Mutation::NeverClaim, Scenario::of_seed);
    assert!(matches!(violation, Some(Violation::NotConverged { .. })), "{violation:?}");
}

#[test]
fn a_vote_must_count_from_when_it_was_asked_for() {
    gets_two_owners(Mutation::CountFromReceipt, |seed| {
        let mut scenario = three(seed, Duration::from_millis(50), 20);
        // Some answers come so late that the promise they tell of is nearly over.
        scenario.weather = Weather { late: 300, tail: 10 * MS..45 * MS, ..Weather::CALM };
        mute_the_owner(&mut scenario, 700 * MS, 250 * MS);
        scenario
    });
}

#[test]
fn a_holder_must_allow_for_clocks_that_drift_apart() {
    gets_two_owners(Mutation::NoDriftMargin, |seed| {
        let mut scenario = three(seed, LEASE_MAX, 20);
        // As far apart as they may be: the owner's is slow, the voters' are fast.
        for (host, drift) in scenario.hosts.iter_mut().zip([-7_500, 7_500, 7_500]) {
            host.drift = drift;
        }
        mute_the_owner(&mut scenario, 5 * SECOND, 3 * SECOND);
        scenario
    });
}

#[test]
fn a_voter_that_has_started_must_be_silent() {
    gets_two_owners(Mutation::NoRestartSilence, |seed| {
        let mut scenario = a_rival_that_asks_all_the_time(seed, Duration::from_secs(1));
        for at in [5 * SECOND, 9 * SECOND] {
            let (crash, start) = (Fault::CrashAgent { host: 1 }, Fault::Start { host: 1 });
            scenario.faults.extend([(at, crash), (at + 20 * MS, start)]);
        }
        scenario
    });
}

#[test]
fn a_datagram_of_the_past_must_not_count() {
    gets_two_owners(Mutation::AcceptStale, |seed| {
        let mut scenario = three(seed, Duration::from_millis(50), 20);
        // A list of claims is said in full only when it is new: the owner says many, and some are recorded.
        scenario.faults.extend((0..120).map(|i| {
            let drain = Fault::Drain { host: 0, on: i % 2 == 0 };
            (3 * SECOND + i * 50 * MS, drain)
        }));
        for (from, to) in [(OWNER, RIVAL), (RIVAL, OWNER)] {
            scenario.faults.push((10 * SECOND, Fault::Cut { from, to }));
        }
        let replays = (41..80).map(|i| (i * 250 * MS, Fault::Replay { count: 60 }));
        scenario.faults.extend(replays);
        scenario
    });
}

#[test]
fn a_goodbye_must_be_of_the_life_that_is_heard() {
    gets_two_owners(Mutation::AnyGoodbye, |seed| {
        let mut scenario = three(seed, Duration::from_millis(50), 30);
        scenario.hosts[0].supervised = true;
        // Many deaths, so that some goodbyes are recorded, and recordings of all of them.
        for second in 4..28 {
            let at = second * SECOND;
            scenario.faults.extend([
                (at, Fault::CrashAgent { host: 0 }),
                (at + 20 * MS, Fault::Start { host: 0 }),
            ]);
            for tenth in 1..10 {
                let at = at + tenth * 100 * MS;
                scenario.faults.push((at, Fault::Replay { count: 50 }));
            }
        }
        scenario
    });
}

#[test]
fn a_list_that_has_run_out_must_be_granted_anew() {
    gets_two_owners(Mutation::CredulousVoter, |seed| {
        let mut scenario = Scenario::quiet(seed, 5, 1);
        scenario.groups[0].prefer = vec![scenario.hosts[0].id];
        scenario.groups[0].failback = Failback::After(Duration::ZERO);
        scenario.calm_at = 12 * SECOND;
        // The rival does not hear the owner and asks all the time; now and then one voter does not hear
        // it for longer than a lease, and another one after that.
        let rival = 0b1_0000;
        for (from, to) in [(OWNER, rival), (rival, OWNER)] {
            scenario.faults.push((4 * SECOND, Fault::Cut { from, to }));
        }
        let mut at = 4_100 * MS;
        while at < scenario.calm_at {
            for (to, begin, end) in [(0b1000, 0, 80), (0b0010, 70, 250)] {
                let (begin, end) = (at + begin * MS, at + end * MS);
                scenario.faults.push((begin, Fault::Cut { from: OWNER, to }));
                scenario.faults.push((end, Fault::Mend { from: OWNER, to }));
            }
            at += 400 * MS + seed % 10 * MS;
        }
        scenario
    });
}

#[test]
fn a_shared_lease_must_be_renewed_by_a_majority() {
    gets_two_owners(Mutation::ShareWithoutMajority, |seed| {
        let mut scenario = three(seed, Duration::from_millis(50), 8);
        for (from, to) in [(OWNER, ALL), (ALL, OWNER)] {
            scenario.faults.push((4 * SECOND, Fault::Cut { from, to }));
        }
        scenario
    });
}

#[test]
fn a_link_that_toggles_must_be_damped() {
    let violation = caught(Mutation::NoDamping, |seed| Scenario::of_seed(9 + 32 * (seed % 8)));
    assert!(matches!(violation, Some(Violation::Flaps { .. })), "{violation:?}");
}

#[test]
fn a_node_that_comes_must_move_no_more_than_its_share() {
    let days = |seed| Scenario::of_seed(21 + 32 * (seed % 8));
    let violation = caught(Mutation::ShuffleOnArrival, days);
    let moved = matches!(
        violation,
        Some(Violation::NeedlessMove { .. } | Violation::Flaps { .. } | Violation::Uneven { .. })
    );
    assert!(moved, "{violation:?}");
}

#[test]
fn a_cordoned_node_must_take_nothing_that_another_can_take() {
    let violation = caught(Mutation::IgnoreCordon, |seed| Scenario::of_seed(13 + 32 * (seed % 8)));
    assert!(matches!(violation, Some(Violation::NeedlessMove { .. })), "{violation:?}");
}

#[test]
fn time_must_go_on() {
    let violation = caught(Mutation::Overdue, Scenario::of_seed);
    assert!(matches!(violation, Some(Violation::Spins { .. })), "{violation:?}");
}

#[test]
fn why_must_be_true() {
    let violation = caught(Mutation::LyingWhy, Scenario::of_seed);
    assert!(matches!(violation, Some(Violation::Untrue { .. })), "{violation:?}");
}
