//! Spreads what every group needs now and then, so that a thousand of them do not need it at once.
//!
//! Groups that came in one takeover would be renewed and announced in one step of the loop for ever, and
//! the next heartbeat would wait for it. The share of a group is a matter of its id alone.

use buoy_model::limits::{
    ADDRESS_REFRESH, ADDRESS_REFRESH_GATED, ADDRESS_REFRESH_MAX, ADDRESS_REFRESH_PER_GROUP,
    VALID_LIFETIME_GATED, VALID_LIFETIME_UNGATED,
};
use buoy_model::{GroupId, Instant};
use core::time::Duration;

/// Parts that a period is cut into; so many batches instead of one.
const PARTS: u32 = 32;
/// Of these, the ones by which a group may be early.
const EARLY_PARTS_BITS: u32 = 4;

/// For how long the kernel keeps an address that is not renewed, and how often it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Lifetime {
    /// In whole seconds, as the kernel counts it.
    pub(crate) valid: u32,
    pub(crate) refresh: Duration,
}

impl Lifetime {
    /// Behind a gate it is the second line of defence, and may be longer where there is much to renew.
    pub(crate) fn of(gated: bool, groups: usize) -> Self {
        if !gated {
            return Self { valid: VALID_LIFETIME_UNGATED, refresh: ADDRESS_REFRESH };
        }
        let groups = u32::try_from(groups).unwrap_or(u32::MAX);
        let refresh = ADDRESS_REFRESH_PER_GROUP.saturating_mul(groups);
        let refresh = refresh.clamp(ADDRESS_REFRESH_GATED, ADDRESS_REFRESH_MAX);
        if refresh == ADDRESS_REFRESH_GATED {
            return Self { valid: VALID_LIFETIME_GATED, refresh };
        }
        // One lost renewal must not cost the address.
        let seconds = u32::try_from((refresh * 2).as_secs()).unwrap_or(u32::MAX);
        Self { valid: seconds.saturating_add(1), refresh }
    }
}

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
    use buoy_model::limits::VALID_LIFETIME_MAX;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn many_groups_are_renewed_less_often_and_live_for_two_renewals() {
        for (groups, valid, refresh) in
            [(1, 9, 4_000), (400, 9, 4_000), (450, 10, 4_500), (500, 11, 5_000), (1000, 21, 10_000)]
        {
            let expected = Lifetime { valid, refresh: Duration::from_millis(refresh) };
            assert_eq!(Lifetime::of(true, groups), expected, "{groups} groups");
            assert!(expected.refresh * 2 < SECOND * valid);
        }
        assert_eq!(Lifetime::of(true, usize::MAX).valid, VALID_LIFETIME_MAX);
        let few = Lifetime { valid: VALID_LIFETIME_UNGATED, refresh: ADDRESS_REFRESH };
        assert_eq!(Lifetime::of(false, 1000), few, "there it is the fence");
    }

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
