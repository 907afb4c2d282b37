//! Runs long days until so many hours of clusters have been simulated, on some processors.

use crate::checker::Violation;
use crate::days::Profile;
use crate::fault::Fault;
use crate::scenario::Scenario;
use crate::statistics::Statistics;
use crate::trace::Trace;
use crate::world::World;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const NANOS_PER_HOUR: f64 = 3.6e12;
/// After so many broken promises it is clear enough.
const FAILURES_MAX: usize = 10;

/// What came of it.
#[derive(Debug, Default)]
pub struct Hours {
    /// The first seed that was not begun.
    pub next_seed: u64,
    /// One for each of `Profile::ALL`.
    pub profiles: [Part; Profile::ALL.len()],
    /// Seeds that broke a promise, and which.
    pub failures: Vec<(u64, Violation)>,
    /// How long it took.
    pub took: Duration,
}

/// The clusters of one profile.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    /// How many there were.
    pub clusters: u64,
    /// Of the simulated time, that of clusters which sealed and opened their datagrams.
    pub sealed: u64,
    /// How much time was simulated, in nanoseconds.
    pub simulated: u64,
    /// What they cost: time of one processor.
    pub cost: Duration,
    /// What they were made of.
    pub total: Statistics,
}

impl Hours {
    /// Cluster-hours so far.
    pub fn hours(&self) -> f64 {
        self.profiles.iter().map(|part| part.simulated as f64).sum::<f64>() / NANOS_PER_HOUR
    }

    /// What all clusters together were made of.
    pub fn total(&self) -> Statistics {
        let mut total = Statistics::default();
        self.profiles.iter().for_each(|part| total.add(&part.total));
        total
    }
}

/// Simulates long days from a seed on, until they make so many hours or enough promises are broken.
/// `tell` is called after each day, by whoever ran it.
pub fn run_hours(hours: f64, first_seed: u64, jobs: usize, tell: impl Fn(&Hours) + Sync) -> Hours {
    let began = Instant::now();
    let shared = Mutex::new(Hours { next_seed: first_seed, ..Hours::default() });
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| while one(hours, &shared, &tell).is_some() {});
        }
    });
    let mut result = shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    result.took = began.elapsed();
    result
}

/// Runs the next day; `None` when there is no need for it.
fn one(hours: f64, shared: &Mutex<Hours>, tell: &impl Fn(&Hours)) -> Option<()> {
    let lock = || shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let seed = {
        let mut shared = lock();
        if hours <= shared.hours() || FAILURES_MAX <= shared.failures.len() {
            return None;
        }
        shared.next_seed += 1;
        shared.next_seed - 1
    };
    let scenario = Scenario::long(seed);
    let sealed = scenario.sealed;
    let began = processor_time();
    let mut world = World::new(scenario, Trace::off());
    let result = crate::run_caught(&mut world);
    let mut shared = lock();
    let place = Profile::ALL.iter().position(|profile| *profile == Profile::of_seed(seed));
    let part = &mut shared.profiles[place.unwrap_or_default()];
    part.clusters += 1;
    part.sealed += if sealed { world.simulated() } else { 0 };
    part.simulated += world.simulated();
    part.cost += processor_time().saturating_sub(began);
    match result {
        Ok(outcome) => part.total.add(&outcome.statistics),
        Err(violation) => shared.failures.push((seed, violation)),
    }
    tell(&shared);
    Some(())
}

/// How long this thread has had a processor; where the kernel does not say, the time of day.
fn processor_time() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat");
    let nanos = told.ok().and_then(|text| text.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| Duration::from_nanos(wall_nanos()), Duration::from_nanos)
}

fn wall_nanos() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    since.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        for (profile, part) in Profile::ALL.iter().zip(&self.profiles) {
            let hours = part.simulated as f64 / NANOS_PER_HOUR;
            let sealed = part.sealed as f64 / NANOS_PER_HOUR;
            let minutes = part.cost.as_secs_f64() / 60.0;
            writeln!(
                f,
                "{}: {hours:.1} cluster-hours ({sealed:.1} sealed) in {} clusters, {} faults, {} changes of \
                 owner, {} datagrams; {:.1} cluster-hours per minute of one processor",
                profile.name(),
                part.clusters,
                part.total.all_faults(),
                part.total.changes,
                part.total.datagrams,
                if minutes > 0.0 { hours / minutes } else { 0.0 },
            )?;
        }
        write!(f, "faults:")?;
        for (name, count) in Fault::NAMES.iter().zip(&total.faults) {
            write!(f, " {name} {count},")?;
        }
        writeln!(
            f,
            "\nowners: {} changes ({} from a silent owner, {} from one whose death was told), {} \
             leases expired, {} addresses left by a dead or frozen agent, {} explanations compared",
            total.changes,
            total.taken_over,
            total.goodbyes,
            total.expired,
            total.orphaned,
            total.explained
        )?;
        for (seed, violation) in &self.failures {
            writeln!(f, "seed {seed}: {violation}")?;
            writeln!(f, "look at it: {}", replay(*seed))?;
        }
        let minutes = self.took.as_secs_f64() / 60.0;
        write!(
            f,
            "{:.1} cluster-hours in {minutes:.1} minutes, {} faults, {} violations; next seed {}",
            self.hours(),
            total.all_faults(),
            self.failures.len(),
            self.next_seed
        )
    }
}

/// The command that shows a long day again.
pub(crate) fn replay(seed: u64) -> String {
    format!("cargo run --release -q -p buoy-sim -- replay --long {seed}")
}
