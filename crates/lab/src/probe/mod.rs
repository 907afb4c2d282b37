//! What a user of a VIP sees: probes that run all the time, read in windows of time.

pub mod arp;
pub mod crowd;
pub mod http;
pub mod ndp;
pub mod stall;
pub mod sweep;
pub mod tcp;
pub mod udp;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

/// The beat of every probe.
pub const TICK: Duration = Duration::from_millis(1);

/// A stretch of time that figures are taken from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// Its first moment.
    pub from: Instant,
    /// The first moment after it.
    pub to: Instant,
}

impl Window {
    /// Whether a moment is in it.
    pub fn holds(&self, at: Instant) -> bool {
        self.from <= at && at < self.to
    }
}

/// Sleeps from beat to beat without drifting; beats that were missed are left out, not made up for.
#[derive(Debug)]
pub(crate) struct Metronome {
    next: Instant,
    beat: Duration,
}

impl Metronome {
    pub(crate) fn new(beat: Duration) -> Self {
        Self { next: Instant::now() + beat, beat }
    }

    pub(crate) fn wait(&mut self) {
        let now = Instant::now();
        if now < self.next {
            thread::sleep(self.next - now);
            self.next += self.beat;
        } else {
            self.next = now + self.beat;
        }
    }
}

impl Metronome {
    /// Waits for the beat or for something to read, whichever comes first; true at the beat.
    pub(crate) fn wait_or_read(&mut self, socket: &impl AsFd) -> bool {
        let now = Instant::now();
        if self.next <= now {
            self.next = now + self.beat;
            return true;
        }
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut fds, Some(TimeSpec::from(self.next - now)), None) {
            Ok(0) => {
                self.next += self.beat;
                true
            }
            // A signal is no news; the next look at the time tells.
            Ok(_) | Err(_) => false,
        }
    }
}

/// The middle one of some durations; zero of none.
pub fn median(durations: &[Duration]) -> Duration {
    percentile(durations, 50)
}

/// The value that so many of a hundred do not exceed; zero of none.
pub fn percentile(durations: &[Duration], percent: usize) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted.get((last * percent).div_ceil(100)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_hundred_are_the_numbers_themselves() {
        let durations: Vec<_> = (0..=100).rev().map(Duration::from_millis).collect();
        for percent in [0, 1, 50, 99, 100] {
            let expected = Duration::from_millis(percent as u64);
            assert_eq!(percentile(&durations, percent), expected);
        }
        assert_eq!(median(&[]), Duration::ZERO);
    }
}
