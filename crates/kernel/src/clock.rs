//! Tells the time as the machines and the gate count it.

use buoy_model::Instant;
use nix::time::{ClockId, clock_gettime};

/// Now, by `CLOCK_BOOTTIME`: nobody can step it, and it goes on during suspend.
pub fn now() -> Instant {
    Instant::from_nanos(read(ClockId::CLOCK_BOOTTIME))
}

/// Now, by `CLOCK_MONOTONIC`, which stands still during suspend, as kernel timers do.
pub(crate) fn monotonic() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

fn read(clock: ClockId) -> u64 {
    // Both clocks exist on every kernel that this crate runs on, so there is nothing to fail.
    clock_gettime(clock).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_only_goes_forward_and_never_stands_at_zero() {
        let first = now();
        let second = now();
        assert!(Instant::ZERO < first);
        assert!(first <= second);
        assert!(monotonic() <= now().as_nanos());
    }
}
