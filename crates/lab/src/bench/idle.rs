//! Minutes in which a cluster with many VIPs has nothing to do: what that costs, and whether anything
//! moves. Everything else in the benchmark is busy meanwhile; here the machine is left alone.

use super::many::{Idle, Standing};
use super::report;
use crate::probe::Window;
use crate::probe::stall::StallMeter;
use crate::{Result, agent, namespace, privilege};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A stall that is worth counting.
const LONG: Duration = Duration::from_millis(20);

/// What the caller may choose.
#[derive(Clone, Debug)]
pub struct IdleOptions {
    /// How many VIPs, all on one owner.
    pub vips: usize,
    /// For how long.
    pub minutes: Duration,
    /// Where the report goes.
    pub report: PathBuf,
}

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Quiet {
    pub(super) idle: Idle,
    /// The longest time that the machine itself stood still meanwhile.
    pub(super) stall: Duration,
    /// How often it stood still for 20 ms and more.
    pub(super) stalls: usize,
    /// What the owner said meanwhile that is no everyday matter.
    pub(super) said: Vec<String>,
}

/// Measures and writes the report. May restart this program in a user namespace, so call it first.
pub fn idle(options: &IdleOptions) -> Result<()> {
    let mode = privilege::acquire()?;
    namespace::remove_all_on_signal();
    agent::program()?;
    let seconds = options.minutes.as_secs();
    println!(
        "{} VIPs of Buoy have nothing to do for {seconds} s, {}.",
        options.vips,
        mode.describe()
    );
    let meter = StallMeter::start()?;
    let stand = Standing::begin(options.vips)?;
    let from = Instant::now();
    std::thread::sleep(options.minutes);
    let window = Window { from, to: Instant::now() };
    let (idle, said) = stand.end()?;
    let (stall, stalls) = (meter.worst(window), meter.count(window, LONG));
    let text = report::render_idle(options, &Quiet { idle, stall, stalls, said });
    report::save(&options.report, &text)
}
