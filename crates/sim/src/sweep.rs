//! Runs many seeds and says which ones broke a promise, with all that is needed to look at them.

use crate::checker::Violation;
use crate::scenario::Scenario;
use crate::statistics::Statistics;
use crate::trace::Trace;
use crate::world::{Outcome, World};
use core::ops::Range;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What came of some seeds.
#[derive(Debug, Default)]
pub struct Report {
    /// How many were run.
    pub seeds: u64,
    /// Those that broke a promise.
    pub failures: Vec<Failure>,
    /// What all of them together were made of.
    pub total: Statistics,
    /// How much time was simulated, in nanoseconds.
    pub simulated: u64,
    /// The longest time from the last fault until all was settled, in nanoseconds.
    pub slowest: u64,
    /// The seed that took it.
    pub slowest_seed: u64,
}

/// A seed that broke a promise.
#[derive(Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// Which promise.
    pub violation: Violation,
    /// The last lines of its trace.
    pub trace: Vec<String>,
}

/// Runs every seed of a range.
pub fn run_seeds(seeds: Range<u64>) -> Report {
    let mut report = Report::default();
    for seed in seeds {
        let mut world = World::new(Scenario::of_seed(seed), Trace::short());
        report.seeds += 1;
        match run_caught(&mut world) {
            Ok(outcome) => report.add(seed, &outcome),
            Err(violation) => {
                let trace = world.trace().lines().map(|line| line.to_string()).collect();
                report.failures.push(Failure { seed, violation, trace });
            }
        }
    }
    report
}

/// Runs a world; a failed assertion of a machine is a violation like any other.
pub fn run_caught(world: &mut World) -> Result<Outcome, Violation> {
    catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or(Err(Violation::Panicked))
}

impl Report {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.total.add(&outcome.statistics);
        self.simulated += outcome.simulated;
        if outcome.settled_after > self.slowest {
            self.slowest = outcome.settled_after;
            self.slowest_seed = seed;
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}: {}", self.seed, self.violation)?;
        writeln!(f, "look at it: cargo run -q -p buoy-sim -- replay {}", self.seed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, t) = (self.failures.len(), &self.total);
        write!(
            f,
            "{} seeds, {failed} failed; {} s simulated, {} events, {} datagrams, {} faults, \
             {} acquisitions ({} from a silent owner, {} from one whose death was told), {} leases \
             expired, {} addresses left by a dead or frozen agent, {} explanations compared; slowest \
             to settle: seed {} with {} ms",
            self.seeds,
            self.simulated / 1_000_000_000,
            t.events,
            t.datagrams,
            t.all_faults(),
            t.acquired,
            t.taken_over,
            t.goodbyes,
            t.expired,
            t.orphaned,
            t.explained,
            self.slowest_seed,
            self.slowest / 1_000_000
        )
    }
}
