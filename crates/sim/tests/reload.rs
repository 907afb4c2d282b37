//! What a new configuration may not break while the hosts get it one after the other.

use buoy_model::{Failback, Timing};
use buoy_sim::{Fault, Scenario, Trace, Weather, World};
use std::time::Duration;

const MS: u64 = 1_000_000;

/// The owner's file changes its lease at the moment when nobody hears it any more, with the answers
/// to what it has said before still on their way.
fn changes_its_lease(before: u64, after: u64, heard_for: u64) {
    for seed in 0..20 {
        let mut scenario = Scenario::quiet(seed, 3, 1);
        let timing = |lease| Timing {
            heartbeat: Duration::from_millis(10),
            lease: Duration::from_millis(lease),
            lease_max: Duration::from_millis(lease),
        };
        scenario.timing = timing(before);
        scenario.weather = Weather { delay: 8 * MS..12 * MS, ..Weather::CALM };
        scenario.groups[0].prefer = vec![scenario.hosts[0].id];
        scenario.groups[0].failback = Failback::After(Duration::ZERO);
        scenario.calm_at = 8_000 * MS;
        let at = 5_000 * MS + seed * MS;
        scenario.faults = vec![
            (at, Fault::Reload { host: 0, groups: u64::MAX, timing: Some(timing(after)) }),
            (at + heard_for * MS, Fault::Cut { from: 0b001, to: 0b111 }),
        ];
        let result = World::new(scenario, Trace::short()).run();
        assert!(result.is_ok(), "seed {seed}: {result:?}");
    }
}

#[test]
fn a_longer_lease_counts_only_for_what_was_asked_with_it() {
    changes_its_lease(60, 2_000, 0);
}

#[test]
fn a_shorter_lease_does_not_shorten_what_was_promised() {
    changes_its_lease(2_000, 60, 100);
}
