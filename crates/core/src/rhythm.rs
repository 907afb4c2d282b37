//! Spreads what every group needs now and then, so that a thousand of them do not need it at once.
//!
//! Groups that came in one takeover would be renewed and announced in one step of the loop for ever, and
//! the next heartbeat would wait for it. The share of a group is a matter of its id alone.

use buoy_model::{GroupId, Instant};
use core::time::Duration;

/// Parts that a period is cut into; so many batches instead of one.
const PARTS: u32 = 32;
/// Of these, the ones by which a group may be early.
const EARLY_PARTS_BITS: u32 = 4;

/// By how much a group is early for the first time: less than half of the period.
pub(crate) fn early(group: GroupId, period: Duration) -> Duration {
    // Fibonacci hashing: neighbouring ids fall far apart.
    let part = group.0.wrapping_mul(0x9e37_79b9) >> (u32::BITS - EARLY_PARTS_BITS);
    period / PARTS * part
}

/// When it is due again that was due at `at`: a late loop changes nobody's rhythm, or all that waited
/// for it would stay together.
pub(crate) fn next(at: Instant, now: Instant, period: Duration) -> Instant {
    let next = at + period;
    if now < next { next } else { now + period }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_thousand_groups_fall_into_sixteen_batches_of_about_the_same_size() {
        let mut batches = [0; 16];
        for id in 0x0a50_0000..0x0a50_0000 + 1000 {
            let early = early(GroupId(id), SECOND);
            assert!(early < SECOND / 2);
            batches[(early.as_nanos() * u128::from(PARTS) / SECOND.as_nanos()) as usize] += 1;
        }
        assert!(batches.iter().all(|n| (50..=75).contains(n)), "{batches:?}");
    }

    #[test]
    fn a_late_loop_changes_nobodys_rhythm() {
        let at = Instant::ZERO + SECOND;
        assert_eq!(next(at, at, SECOND), at + SECOND);
        assert_eq!(next(at, at + SECOND / 2, SECOND), at + SECOND);
        assert_eq!(
            next(at, at + SECOND * 3, SECOND),
            at + SECOND * 4,
            "what was missed is left out"
        );
    }
}
