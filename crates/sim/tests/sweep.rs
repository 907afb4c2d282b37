//! 256 clusters, each with a bad day of its own: nobody ever answers twice, and all is well in the end.

use buoy_sim::{Fault, Scenario, Trace, World, run_hours, run_seeds};

/// Runs a quarter of the seeds. Also makes sure that the days were bad: a sweep in which nothing
/// happens proves nothing.
fn sweep(seeds: core::ops::Range<u64>) {
    let report = run_seeds(seeds);
    let failures: String = report.failures.iter().map(|f| format!("{f}\n")).collect();
    assert!(failures.is_empty(), "\n{failures}{report}");
    assert!(report.total.all_faults() > 50 * report.seeds, "too little broke: {report}");
    assert!(report.total.acquired > 5 * report.seeds, "too little moved: {report}");
    assert!(report.total.taken_over > report.seeds / 2, "too few takeovers: {report}");
    assert!(report.total.expired > report.seeds / 2, "too few leases ended: {report}");
    assert!(report.total.orphaned > report.seeds, "too few owners stopped dead: {report}");
    assert!(report.total.goodbyes > 0, "no death was told: {report}");
    assert!(report.total.explained > 50 * report.seeds, "too little was explained: {report}");
}

#[test]
fn no_promise_is_broken_in_seeds_0_to_64() {
    sweep(0..64);
}

#[test]
fn no_promise_is_broken_in_seeds_64_to_128() {
    sweep(64..128);
}

#[test]
fn no_promise_is_broken_in_seeds_128_to_192() {
    sweep(128..192);
}

#[test]
fn no_promise_is_broken_in_seeds_192_to_256() {
    sweep(192..256);
}

#[test]
fn hours_are_counted_and_every_kind_of_fault_occurs() {
    // The third and the fourth seed of four are days of many hours.
    let hours = run_hours(0.05, 0, 1, |_| {});
    assert!(hours.failures.is_empty(), "{hours}");
    assert!(hours.hours() >= 0.05, "{hours}");
    assert_eq!(hours.profiles[0].clusters, 1, "{hours}");
    let days = (0..400).map(Scenario::of_seed).chain((0..200).map(Scenario::long));
    let mut occur = [0; Fault::NAMES.len()];
    for (_, fault) in days.flat_map(|day| day.faults) {
        if let Some(kind) = fault.kind() {
            occur[kind] += 1;
        }
    }
    assert!(occur.iter().all(|n| *n > 10), "{occur:?} of {:?}", Fault::NAMES);
}

#[test]
fn one_seed_is_one_trace() {
    let hash = |seed| {
        let mut world = World::new(Scenario::of_seed(seed), Trace::short());
        world.run().map(|outcome| (outcome.hash, outcome.statistics))
    };
    let all: Vec<_> = (0..6).map(hash).collect();
    let again: Vec<_> = (0..6).map(hash).collect();
    assert_eq!(all, again);
    for (i, this) in all.iter().enumerate() {
        assert!(!all[..i].contains(this), "two seeds have one trace");
    }
}
