//! Runs Buoy and keepalived side by side through the same faults and writes down what their users felt.
//!
//! All systems stand at once, each on a segment of its own, and take their turns fault by fault
//! (A B C D A B C D ...), so that a bad minute of the machine hits all of them. While one recovers, the
//! next one has its turn. `stand` is a system with its segment, `trial` one fault, `calm` the minutes
//! in which nothing should happen, `many` the cost and the takeover of many VIPs, `report` the file.
//! `idle` is a measurement of its own: many VIPs, and nothing else on the machine; so is `checks`: many backends. `connections`
//! asks which connections outlive the balancer, and `faces` what API and page cost, beside `floor`: bare heartbeats.

#![allow(clippy::print_stdout, reason = "says how far it is")]

mod balance;
mod calm;
mod checks;
mod connections;
mod faces;
mod floor;
mod idle;
mod many;
mod ready;
mod report;
mod stand;
mod trial;
mod xdp;

use crate::fault::Fault;
use crate::probe::stall::StallMeter;
use crate::{Error, Result, command, namespace, privilege};
use stand::Stand;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use balance::{BalanceOptions, balance};
pub use calm::Calm;
pub use checks::{ChecksOptions, checks};
pub use connections::{ConnectionsOptions, connections};
pub use faces::{FacesOptions, faces};
pub use idle::{IdleOptions, idle};
pub use many::{Idle, Mass};
pub use trial::Sample;
pub use xdp::{XdpOptions, xdp};

/// The whole run ends by then; what was not done is left out and said.
pub const RUN_MAX: Duration = Duration::from_secs(60 * 60);
/// What one trial takes, roughly, beyond the takeover itself.
const TRIAL: Duration = Duration::from_millis(1_800);
/// What measuring an idle daemon takes, roughly.
const IDLE: Duration = Duration::from_secs(12);
/// What all takeovers of many VIPs take, roughly.
const MASS: Duration = Duration::from_secs(60);

/// A system under test, with its setting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum System {
    /// Buoy with its defaults on three nodes.
    Buoy,
    /// keepalived on two nodes, with that interval between advertisements.
    Keepalived(Duration),
}

impl System {
    /// All, in the order of their turns.
    pub const ALL: [Self; 4] = [
        Self::Buoy,
        Self::Keepalived(Duration::from_secs(1)),
        Self::Keepalived(Duration::from_millis(100)),
        Self::Keepalived(Duration::from_millis(10)),
    ];

    /// For tables.
    pub fn name(self) -> String {
        match self {
            Self::Buoy => "buoy".to_owned(),
            Self::Keepalived(interval) => format!("keepalived {} s", interval.as_secs_f64()),
        }
    }
}

/// A kind of fault, of which each system has its own form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Case {
    /// The owner is taken out of service on purpose.
    Planned,
    /// The process that runs the protocol dies.
    Crash,
    /// All processes of the daemon die.
    CrashAll,
    /// The process that runs the protocol stands still.
    Freeze,
    /// The owner loses its carrier.
    Unplug,
    /// Nothing comes from or to the owner any more.
    SilentCut,
}

impl Case {
    /// All, the planned one first.
    pub const ALL: [Self; 6] =
        [Self::Planned, Self::Crash, Self::CrashAll, Self::Freeze, Self::Unplug, Self::SilentCut];

    /// The word for the command line and for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Crash => "crash",
            Self::CrashAll => "crash-all",
            Self::Freeze => "freeze",
            Self::Unplug => "unplug",
            Self::SilentCut => "cut",
        }
    }

    /// What happens, in words.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Planned => "`buoy drain` on the owner; keepalived: SIGTERM, its nearest",
            Self::Crash => {
                "SIGKILL of the process that runs the protocol (the agent; the VRRP child)"
            }
            Self::CrashAll => "SIGKILL of all processes of the daemon at once",
            Self::Freeze => "SIGSTOP of the process that runs the protocol",
            Self::Unplug => "the cable is pulled: the owner loses its carrier",
            Self::SilentCut => "the switch drops all frames of the owner, which keeps its carrier",
        }
    }

    /// What is done to a system.
    pub const fn fault(self, system: System) -> Fault {
        match (self, system) {
            (Self::Planned, System::Buoy) => Fault::Drain,
            (Self::Planned, System::Keepalived(_)) => Fault::Terminate,
            (Self::Crash, _) => Fault::Crash,
            (Self::CrashAll, _) => Fault::Kill,
            (Self::Freeze, _) => Fault::Hang,
            (Self::Unplug, _) => Fault::Unplug,
            (Self::SilentCut, _) => Fault::SilentCut,
        }
    }

    /// How long a system needs for it, roughly.
    fn estimate(self, system: System) -> Duration {
        match (self, system) {
            (_, System::Buoy) | (Self::Planned, _) => Duration::from_millis(100),
            (_, System::Keepalived(interval)) => 4 * interval,
        }
    }
}

/// What the caller may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often each fault happens to each system.
    pub repeat: usize,
    /// How long nothing should happen under load, and again under loss; zero leaves both out.
    pub minutes: Duration,
    /// Only this fault, and nothing else.
    pub only: Option<Case>,
    /// Where the report goes.
    pub report: PathBuf,
}

impl Options {
    /// Whether a case has its turn in a round: one of two deaths by SIGKILL, every other time.
    fn takes_part(&self, case: Case, round: usize) -> bool {
        case != Case::CrashAll || self.only.is_some() || round.is_multiple_of(2)
    }
}

/// All that was measured.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// One for each trial.
    pub samples: Vec<Sample>,
    /// What daemons cost that have nothing to do.
    pub idle: Vec<Idle>,
    /// The takeovers of many VIPs at once.
    pub mass: Vec<Mass>,
    /// Times in which nothing should have happened.
    pub calm: Vec<Calm>,
    /// What went wrong or was left out.
    pub notes: Vec<String>,
    /// The systems that took part.
    pub systems: Vec<String>,
}

/// Measures and writes the report. May restart this program in a user namespace, so call it first.
pub fn failover(options: &Options) -> Result<Outcome> {
    let start = Instant::now();
    let mode = privilege::acquire()?;
    namespace::remove_all_on_signal();
    // Said now, and not after the minutes that keepalived takes.
    crate::agent::program()?;
    let systems = systems();
    let cases = options.only.map_or_else(|| Case::ALL.to_vec(), |case| vec![case]);
    println!("Failover of {} systems side by side, {}.", systems.len(), mode.describe());
    let estimate = estimate(options, &systems, &cases);
    println!("This takes about {} minutes, and {} at most.", minutes(estimate), minutes(RUN_MAX));
    let mut outcome =
        Outcome { systems: systems.iter().map(|s| s.name()).collect(), ..Outcome::default() };
    if systems.len() < System::ALL.len() {
        outcome.notes.push("keepalived is not installed: Buoy ran alone".to_owned());
    }
    let meter = StallMeter::start()?;
    let deadline = start + RUN_MAX;
    if options.only.is_none() {
        many::measure(options, &systems, &meter, &mut outcome)?;
    }
    let mut stands = Vec::new();
    for system in &systems {
        println!("Starting {}.", system.name());
        stands.push(Stand::pair(*system)?);
    }
    // The minutes of calm are worth more than the last repetitions.
    let reserve = if options.only.is_none() { 2 * options.minutes } else { Duration::ZERO };
    repeat(options, &cases, &mut stands, &meter, deadline - reserve, &mut outcome);
    if options.only.is_none() && !options.minutes.is_zero() {
        calm::measure(options, &mut stands, &meter, &mut outcome)?;
    }
    drop(stands);
    let text = report::render(options, &outcome, start.elapsed());
    write(options, &text, &outcome)?;
    println!("\n{text}\nWritten to {}.", options.report.display());
    Ok(outcome)
}

fn systems() -> Vec<System> {
    let installed = command::find("keepalived").is_some();
    let fits = |system: &System| match system {
        System::Buoy => true,
        System::Keepalived(_) => installed,
    };
    System::ALL.into_iter().filter(fits).collect()
}

fn estimate(options: &Options, systems: &[System], cases: &[Case]) -> Duration {
    let mut all = Duration::ZERO;
    for system in systems {
        for case in cases {
            let rounds = (0..options.repeat).filter(|round| options.takes_part(*case, *round));
            let repeat = u32::try_from(rounds.count()).unwrap_or(u32::MAX);
            all += repeat * (TRIAL + case.estimate(*system));
        }
        if options.only.is_none() {
            all += IDLE * u32::try_from(many::counts(*system).len()).unwrap_or(1);
        }
    }
    if options.only.is_none() {
        all += MASS + 2 * options.minutes;
    }
    all
}

/// All faults of all systems in turns.
fn repeat(
    options: &Options,
    cases: &[Case],
    stands: &mut [Stand],
    meter: &StallMeter,
    deadline: Instant,
    outcome: &mut Outcome,
) {
    for round in 0..options.repeat {
        println!("Round {} of {}:", round + 1, options.repeat);
        for case in cases.iter().filter(|case| options.takes_part(**case, round)) {
            for stand in &mut *stands {
                if deadline < Instant::now() {
                    outcome.notes.push(format!(
                        "the time was up after {round} of {} repetitions",
                        options.repeat
                    ));
                    return;
                }
                match stand.trial(*case, meter) {
                    Ok(sample) => {
                        println!("  {}", report::line(&sample));
                        outcome.samples.push(sample);
                    }
                    Err(error) => {
                        let system = stand.system.name();
                        let note = format!(
                            "{system}, {}, round {}: {}",
                            case.name(),
                            round + 1,
                            brief(&error)
                        );
                        println!("  {note}");
                        outcome.notes.push(note);
                        if let Err(error) = stand.start_over() {
                            outcome
                                .notes
                                .push(format!("{system} did not start over: {}", brief(&error)));
                        }
                    }
                }
            }
        }
    }
}

fn write(options: &Options, text: &str, outcome: &Outcome) -> Result<()> {
    let path = &options.report;
    report::write(path, text)?;
    let raw = path.with_extension("json");
    let json = serde_json::to_string(&report::raw(outcome)).unwrap_or_default() + "\n";
    std::fs::write(&raw, json).map_err(Error::system(format!("write {}", raw.display())))
}

/// The first line of what went wrong: a page of figures has no room for more.
fn brief(error: &Error) -> String {
    let text = error.to_string();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    lines.next().map_or(first.clone(), |second| format!("{first} {}", second.trim()))
}

fn minutes(duration: Duration) -> u64 {
    duration.as_secs().div_ceil(60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_run_fits_its_time() {
        let options = Options {
            repeat: 20,
            minutes: Duration::from_secs(600),
            only: None,
            report: PathBuf::new(),
        };
        let estimate = estimate(&options, &System::ALL, &Case::ALL);
        assert!(estimate < RUN_MAX, "{estimate:?}");
    }
}
