//! Measures for how long the machine itself stood still, so that its sleep is not blamed on anybody.
//!
//! A thread before all others (`SCHED_FIFO` 90) wakes every millisecond. When even this one comes late,
//! the host or its hypervisor ran nobody: no agent, no daemon, no probe. Its clock goes on meanwhile
//! (`CLOCK_MONOTONIC`), so a wall clock that is set does not count.

use super::{Metronome, TICK, Window};
use crate::command;
use crate::{Error, Result};
use nix::unistd::gettid;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Before every thread that is measured.
const PRIORITY: u8 = 90;
/// Before ordinary threads, and far behind an agent's loop (49).
const PROBE_PRIORITY: u8 = 5;
/// Lateness that is not worth a note.
const NOTED_FROM: Duration = Duration::from_millis(1);

/// One time that the machine stood still.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stall {
    /// When the meter should have been woken.
    pub at: Instant,
    /// How much later it was.
    pub late: Duration,
}

/// The meter; it ends when dropped.
#[derive(Debug)]
pub struct StallMeter {
    stalls: Arc<Mutex<Vec<Stall>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StallMeter {
    /// Starts to measure.
    pub fn start() -> Result<Self> {
        let stalls = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (its_stalls, its_stop) = (Arc::clone(&stalls), Arc::clone(&stop));
        let measure = move || {
            // Without the right to it, it measures as an ordinary thread: more stalls, never fewer.
            let _ordinary = go_first(PRIORITY);
            let mut metronome = Metronome::new(TICK);
            let mut last = Instant::now();
            while !its_stop.load(Ordering::Relaxed) {
                metronome.wait();
                let now = Instant::now();
                let late = (now - last).saturating_sub(TICK);
                if NOTED_FROM <= late {
                    let stall = Stall { at: last + TICK, late };
                    its_stalls.lock().unwrap_or_else(PoisonError::into_inner).push(stall);
                }
                last = now;
            }
        };
        let thread = std::thread::Builder::new().name("stall meter".to_owned()).spawn(measure);
        let thread = Some(thread.map_err(Error::system("start the stall meter"))?);
        Ok(Self { stalls, stop, thread })
    }

    /// The longest that the machine stood still in a window.
    pub fn worst(&self, window: Window) -> Duration {
        self.within(window).into_iter().map(|stall| stall.late).max().unwrap_or_default()
    }

    /// All such times in a window that were at least so long.
    pub fn count(&self, window: Window, at_least: Duration) -> usize {
        self.within(window).into_iter().filter(|stall| at_least <= stall.late).count()
    }

    fn within(&self, window: Window) -> Vec<Stall> {
        let stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        let touches = |stall: &&Stall| stall.at < window.to && window.from < stall.at + stall.late;
        stalls.iter().filter(touches).copied().collect()
    }
}

impl Drop for StallMeter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Lets the calling thread, a probe, run before ordinary ones, where that is allowed.
pub(crate) fn go_first_as_a_probe() {
    let _ordinary = go_first(PROBE_PRIORITY);
}

/// Puts the calling thread under `SCHED_FIFO`.
fn go_first(priority: u8) -> Result<()> {
    let chrt = command::require("chrt", "apt-get install util-linux")?;
    let (priority, thread) = (priority.to_string(), gettid().to_string());
    command::run(&chrt, &["--fifo", "--pid", &priority, &thread], "").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_counts_in_every_window_that_it_touches() {
        let start = Instant::now();
        let stall = Stall { at: start + ms(10), late: ms(20) };
        let meter = StallMeter {
            stalls: Arc::new(Mutex::new(vec![stall])),
            stop: Arc::default(),
            thread: None,
        };
        for (from, to, worst) in [(0, 10, 0), (0, 11, 20), (15, 16, 20), (29, 40, 20), (30, 40, 0)]
        {
            let window = Window { from: start + ms(from), to: start + ms(to) };
            assert_eq!(meter.worst(window), ms(worst), "{from}..{to}");
        }
    }

    #[test]
    fn a_meter_that_runs_notes_few_long_stalls() {
        let meter = StallMeter::start().unwrap();
        let from = Instant::now();
        let window = || Window { from, to: Instant::now() };
        crate::process::wait_until(ms(500), "half a second", || Ok(false)).unwrap_err();
        // It must not take its own beat for stalls: then each of 500 beats would be one.
        assert!(meter.count(window(), Duration::ZERO) < 250);
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
}
