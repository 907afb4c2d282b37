//! Decides what share of its weight a backend takes that is loaded, by what it says or by how long its answers take.
//!
//! What is free of it is its share: idle is all, full is almost nothing. A backend whose answers take longer than
//! those of the others takes so much less as they take longer; where all are slow nobody takes less. Followed at once
//! that would swing: those who have little to do would get everything, and then have too much. So a share goes a
//! part of the way with each answer, by a few hundredths of its weight in a second at most, and in steps,
//! because every change of a share moves some connections of consistent hashing. It never falls below a floor: who
//! gets nothing can never show that it is well again.
//!
//! Absent on purpose: how the load was learned, who tells whom, and clocks.

use alloc::vec::Vec;
use buoy_model::Instant;
use core::time::Duration;

/// The least share of a backend that is up, in percent.
pub const FLOOR: u16 = 10;
/// Shares are rounded to so many percent, and told anew once they are twice as far from what was told: else
/// rounding alone would keep them moving.
pub const STEP: u16 = 5;
/// All of the weight, in percent.
const WHOLE: u16 = 100;
/// So many thousandths of its weight a share moves in a second at most.
const PACE: u64 = 100;
/// An answer moves a share by one part in so many of what lacks.
const PART: u64 = 4;
/// Thousandths in a percent.
const FINE: u64 = 10;
/// After so long without an answer the next one counts as if it were so much later.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Added to both times before they are compared: within a millisecond or two the network and the scheduler say more
/// than the backend does.
const SLACK: Duration = Duration::from_millis(2);

/// The share that a load in percent leaves.
pub fn of_load(load: u8) -> u16 {
    WHOLE.saturating_sub(load.into()).max(FLOOR)
}

/// The share of a backend whose answers take so long, where those of the others take about the second time.
pub fn of_latency(took: Duration, usual: Duration) -> u16 {
    let (took, usual) = ((took + SLACK).as_micros(), (usual + SLACK).as_micros());
    let share = usual * u128::from(WHOLE) / took;
    u16::try_from(share).unwrap_or(WHOLE).clamp(FLOOR, WHOLE)
}

/// The usual one of the times that answers take: the middle one, of two the shorter.
pub fn usual(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) / 2).copied()
}

/// The share of one backend, as it follows the load.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share {
    /// In thousandths of the weight.
    now: u64,
    /// In percent, as it was told last.
    told: u16,
    heard: Option<Instant>,
}

impl Share {
    /// Goes on from there, in percent: what others have told of the backend, or all of its weight.
    pub fn new(told: u16) -> Self {
        let told = told.clamp(FLOOR, WHOLE);
        Self { now: u64::from(told) * FINE, told, heard: None }
    }

    /// Goes towards a share in percent, and answers what holds.
    pub fn follow(&mut self, now: Instant, wanted: u16) -> u16 {
        let wanted = u64::from(wanted.clamp(FLOOR, WHOLE)) * FINE;
        let since = self.heard.map_or(Duration::from_secs(1), |heard| now.since(heard));
        let millis = u64::try_from(since.min(PAUSE_MAX).as_millis()).unwrap_or(0);
        let most = PACE * millis / 1000;
        let lacks = self.now.abs_diff(wanted);
        let by = lacks.div_ceil(PART).min(most);
        if 0 < by || lacks == 0 {
            // Many answers in a moment would else each be too near to the last one to count.
            self.heard = Some(now);
        }
        self.now = if wanted < self.now { self.now - by } else { self.now + by };
        let told = u64::from(self.told) * FINE;
        let ends = [u64::from(FLOOR) * FINE, u64::from(WHOLE) * FINE];
        let is_at_end = self.now == wanted && ends.contains(&wanted);
        if 2 * u64::from(STEP) * FINE <= self.now.abs_diff(told) || is_at_end {
            let steps = (self.now + u64::from(STEP) * FINE / 2) / (u64::from(STEP) * FINE);
            let percent = u16::try_from(steps).unwrap_or(0).saturating_mul(STEP);
            self.told = percent.clamp(FLOOR, WHOLE);
        }
        self.told
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
