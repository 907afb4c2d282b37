//! How long a group is without an owner after one fault, on the clock of the world.

use buoy_core::patience;
use buoy_model::{Failback, Safety, Timing};
use buoy_sim::{Fault, Scenario, Statistics, Trace, World};
use std::time::Duration;

const HEARTBEAT: Duration = Duration::from_millis(10);
const LEASE: Duration = Duration::from_millis(100);
/// When the fault strikes: the voters have ended their silence and the first host owns the group.
const AT: Duration = Duration::from_secs(5);
const OWNER: usize = 0;

fn scenario(seed: u64, hosts: usize, safety: Safety, fault: Fault) -> Scenario {
    let mut scenario = Scenario::quiet(seed, hosts, 1);
    scenario.timing = Timing { heartbeat: HEARTBEAT, lease: LEASE, lease_max: LEASE };
    scenario.groups[0].safety = safety;
    scenario.groups[0].prefer = vec![scenario.hosts[OWNER].id];
    scenario.groups[0].failback = Failback::Never;
    // Not always at the same point of a beat.
    let at = AT + Duration::from_micros(seed * 700);
    scenario.faults = vec![(at.as_nanos() as u64, fault)];
    scenario.calm_at = (AT + Duration::from_secs(1)).as_nanos() as u64;
    scenario
}

fn run(scenario: Scenario) -> Statistics {
    let mut world = World::new(scenario, Trace::short());
    world.run().expect("every promise is kept").statistics
}

/// The time from the fault until another node has taken the group.
fn outage(scenario: Scenario) -> Duration {
    let at = scenario.faults[0].0;
    let statistics = run(scenario);
    // Once at the start and once after the fault; where no votes are asked for, two that start at the
    // same moment may both begin.
    assert!((2..=3).contains(&statistics.acquired), "{statistics:?}");
    assert!(statistics.last_acquired > at);
    Duration::from_nanos(statistics.last_acquired - at)
}

fn within(longest: Duration, hosts: usize, safety: Safety, fault: Fault) {
    for seed in 0..15 {
        let outage = outage(scenario(seed, hosts, safety, fault.clone()));
        assert!(outage <= longest, "{fault:?}, seed {seed}: {outage:?} is more than {longest:?}");
    }
}

#[test]
fn a_dead_owner_is_succeeded_when_its_lease_is_over() {
    for hosts in [3, 5] {
        let fault = Fault::CrashAgent { host: OWNER };
        within(LEASE + HEARTBEAT / 2, hosts, Safety::Exclusive, fault);
    }
}

#[test]
fn a_frozen_owner_is_succeeded_when_its_lease_is_over() {
    let fault = Fault::Freeze { host: OWNER, time: Duration::from_millis(900), alone: true };
    within(LEASE + HEARTBEAT / 2, 3, Safety::Exclusive, fault);
}

#[test]
fn an_owner_that_nobody_hears_is_succeeded_when_its_lease_is_over() {
    let fault = Fault::Cut { from: 1 << OWNER, to: u64::MAX };
    within(LEASE + HEARTBEAT / 2, 3, Safety::Exclusive, fault);
}

#[test]
fn an_owner_that_falls_silent_together_with_the_next_in_line_is_succeeded_when_both_were_missed() {
    // A node at rest is missed later than an owner: once it is, and was expected to speak.
    for seed in 0..15 {
        let both = 1 << OWNER | 1 << 1;
        let mut scenario =
            scenario(seed, 5, Safety::Exclusive, Fault::Cut { from: both, to: u64::MAX });
        let next = scenario.hosts[1].id;
        scenario.groups[0].prefer.push(next);
        let outage = outage(scenario);
        let longest = LEASE * 2 + HEARTBEAT;
        assert!(outage <= longest, "seed {seed}: {outage:?} is more than {longest:?}");
    }
}

#[test]
fn a_planned_move_takes_a_round_trip() {
    for fault in [Fault::Drain { host: OWNER, on: true }, Fault::Stop { host: OWNER }] {
        within(Duration::from_millis(2), 3, Safety::Exclusive, fault.clone());
        within(Duration::from_millis(2), 2, Safety::Available, fault);
    }
}

#[test]
fn a_lost_carrier_is_succeeded_within_a_round_trip() {
    let fault = Fault::Carrier { host: OWNER, up: false };
    within(Duration::from_millis(2), 3, Safety::Exclusive, fault.clone());
    within(Duration::from_millis(2), 2, Safety::Available, fault);
}

#[test]
fn without_a_majority_to_ask_a_dead_owner_is_succeeded_when_it_has_been_silent() {
    let fault = Fault::CrashAgent { host: OWNER };
    within(LEASE + HEARTBEAT, 2, Safety::Available, fault);
}

#[test]
fn where_a_supervisor_lives_a_dead_owner_is_succeeded_within_five_milliseconds() {
    let mut times: Vec<_> = (0..40)
        .map(|seed| {
            let fault = Fault::CrashAgent { host: OWNER };
            let mut scenario = scenario(seed, 3, Safety::Exclusive, fault);
            scenario.hosts[OWNER].supervised = true;
            outage(scenario)
        })
        .collect();
    times.sort();
    // Now and then the supervisor is dead, too; then the lease decides.
    assert!(times[30] <= Duration::from_millis(5), "{times:?}");
    assert!(*times.last().unwrap() <= LEASE + HEARTBEAT / 2, "{times:?}");
}

#[test]
fn where_a_supervisor_lives_a_hanging_owner_is_succeeded_when_it_has_missed_some_beats() {
    let mut times: Vec<_> = (0..40)
        .map(|seed| {
            let fault =
                Fault::Freeze { host: OWNER, time: Duration::from_millis(900), alone: true };
            let mut scenario = scenario(seed, 3, Safety::Exclusive, fault);
            scenario.hosts[OWNER].supervised = true;
            outage(scenario)
        })
        .collect();
    times.sort();
    let patience = patience::with_loop(true, HEARTBEAT, LEASE, 1);
    assert!(times[30] <= patience + HEARTBEAT / 2, "{times:?}");
}

#[test]
fn a_planned_move_leaves_nobody_answering_for_two_milliseconds_at_most() {
    let to = 1;
    for fault in [
        Fault::Drain { host: OWNER, on: true },
        Fault::Stop { host: OWNER },
        Fault::Move { group: 0, to },
    ] {
        for seed in 0..15 {
            for (hosts, safety, longest) in
                [(3, Safety::Exclusive, 2_000_000), (2, Safety::Available, 0)]
            {
                let scenario = scenario(seed, hosts, safety, fault.clone());
                let gap = run(scenario).longest_gap;
                assert!(gap <= longest, "{fault:?}, {safety:?}, seed {seed}: {gap} ns");
            }
        }
    }
}

#[test]
fn a_host_that_sleeps_for_an_hour_wakes_silent() {
    for (seed, seconds) in [(1, 10), (2, 60), (3, 3_600)] {
        let fault = Fault::Suspend { host: OWNER, time: Duration::from_secs(seconds) };
        let mut scenario = scenario(seed, 3, Safety::Exclusive, fault);
        // An hour of beats of 10 ms would take minutes.
        let (heartbeat, lease) = (Duration::from_millis(500), Duration::from_secs(2));
        scenario.timing = Timing { heartbeat, lease, lease_max: lease };
        scenario.calm_at = (AT.as_secs() + seconds + 3) * 1_000_000_000;
        let statistics = run(scenario);
        assert!(statistics.taken_over >= 1, "{statistics:?}");
    }
}
