//! Decides what weight backends have while some of them ask for another share than the file gives.
//!
//! A share is a percentage of a backend's own weight; 0 takes no new connections. Weights are kept small, since
//! tables grow with them: all are divided by what they have in common.

use buoy_model::Backend;

/// The share of a backend that asks for nothing else.
const WHOLE: u16 = 100;

/// Gives each backend its share; `shares` goes with `backends`, and a missing one is whole. With whole
/// shares alone nothing changes.
pub fn weigh(backends: &mut [Backend], shares: &[u16]) {
    if shares.iter().all(|share| *share == WHOLE) {
        return;
    }
    let share = |place: usize| shares.get(place).copied().unwrap_or(WHOLE);
    let weighed =
        |(place, backend): (usize, &Backend)| u32::from(backend.weight) * u32::from(share(place));
    let weights: alloc::vec::Vec<u32> = backends.iter().enumerate().map(weighed).collect();
    let common = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
    for (backend, weight) in backends.iter_mut().zip(weights) {
        // At most 256 times 255, so it fits.
        backend.weight = u16::try_from(weight / common).unwrap_or(u16::MAX);
    }
}

const fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    fn weighed(weights: &[u16], shares: &[u16]) -> Vec<u16> {
        let backend = |(place, weight): (usize, &u16)| Backend {
            weight: *weight,
            ..Backend::new(&place.to_string(), ([10, 0, 0, 1], 80).into())
        };
        let mut backends: Vec<_> = weights.iter().enumerate().map(backend).collect();
        weigh(&mut backends, shares);
        backends.iter().map(|backend| backend.weight).collect()
    }

    #[test]
    fn a_share_is_a_percentage_of_the_own_weight_and_weights_stay_small() {
        let table: [(&[u16], &[u16], &[u16]); 8] = [
            (&[2, 4], &[100, 100], &[2, 4]),
            (&[2, 4], &[], &[2, 4]),
            (&[1, 1, 1], &[75, 100, 100], &[3, 4, 4]),
            (&[1, 1], &[0, 100], &[0, 1]),
            (&[3, 1], &[50, 50], &[3, 1]),
            (&[1, 1], &[0, 0], &[0, 0]),
            (&[1, 1], &[200], &[2, 1]),
            (&[256, 1], &[255, 1], &[65_280, 1]),
        ];
        for (weights, shares, expected) in table {
            assert_eq!(weighed(weights, shares), expected, "{weights:?} {shares:?}");
        }
    }
}
