//! Decides which backends of a service take new connections, and which of them takes which.
//!
//! The table of `BALANCE_SLOTS` slots is the same on every node that knows the same backends, and
//! so a connection finds its backend again after the VIP has moved. Each slot ranks the backends
//! by a hash of the backend's name and the slot (rendezvous); each backend has as many places as
//! its weight deserves. Slots ask for their best backend, full backends keep those that rank them
//! highest (the stable assignment of Gale and Shapley). So shares are exact to one slot, and a
//! backend that comes or goes moves its own slots and few others.
//!
//! Absent on purpose: addresses of clients (the engines hash them) and floating point, which may
//! round differently on two machines.

use alloc::vec;
use alloc::vec::Vec;
use buoy_model::limits::BALANCE_SLOTS;
use buoy_model::{Backend, BackendState, name_key};

/// A backend that takes new connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share {
    /// Its place in `Service::backends`.
    pub backend: usize,
    /// Its weight, never zero.
    pub weight: u16,
}

/// Who takes new connections: everybody who is up (or not checked yet) and has a weight; backups
/// only when there is nobody else. `states` goes with `backends`; a missing state is `Unknown`.
pub fn shares(backends: &[Backend], states: &[BackendState]) -> Vec<Share> {
    shares_of_quorum(backends, states, 1)
}

/// The same where fewer than so many are not enough: backups take their place, if one of them is up.
pub fn shares_of_quorum(backends: &[Backend], states: &[BackendState], quorum: u16) -> Vec<Share> {
    let active = |backup: bool| -> Vec<Share> {
        backends
            .iter()
            .enumerate()
            .filter(|(i, b)| {
                let up = match states.get(*i) {
                    Some(BackendState::Up | BackendState::Unknown) | None => true,
                    Some(BackendState::Down) => false,
                };
                up && b.weight != 0 && b.backup == backup
            })
            .map(|(backend, b)| Share { backend, weight: b.weight })
            .collect()
    };
    let first = active(false);
    if first.len() < usize::from(quorum.max(1)) {
        let backups = active(true);
        // Few are better than none.
        if !backups.is_empty() {
            return backups;
        }
    }
    first
}

/// Whether enough of them are up for a host to serve clients well: the quorum, or a backup.
pub fn is_enough(backends: &[Backend], states: &[BackendState], quorum: u16) -> bool {
    let shares = shares_of_quorum(backends, states, quorum);
    let is_backup = |share: &Share| backends.get(share.backend).is_some_and(|b| b.backup);
    usize::from(quorum) <= shares.len() || shares.iter().any(is_backup)
}

/// Which backend a hash value goes to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    slots: Vec<usize>,
    digest: u32,
}

impl Table {
    /// `None` when nobody takes connections.
    pub fn new(backends: &[Backend], shares: &[Share]) -> Option<Self> {
        if shares.is_empty() {
            return None;
        }
        // Sorted by name, so that the order of the lines in the file does not matter.
        let mut entrants: Vec<Entrant> = shares
            .iter()
            .filter_map(|s| {
                let backend = backends.get(s.backend)?;
                Some(Entrant { share: *s, id: name_key(&backend.name), name: &backend.name })
            })
            .collect();
        entrants.sort_by_key(|e| (e.id, e.name));
        let slots = assign(&entrants);
        let mut digest: u32 = 0x811c_9dc5;
        for &i in &slots {
            for byte in entrants[i].id.to_be_bytes() {
                digest = (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193);
            }
        }
        Some(Self { slots: slots.into_iter().map(|i| entrants[i].share.backend).collect(), digest })
    }

    /// The backend of each slot, as its place in `Service::backends`.
    pub fn slots(&self) -> &[usize] {
        &self.slots
    }

    /// Hash of who has which slot: equal on two nodes that send every flow to the same backend.
    pub const fn digest(&self) -> u32 {
        self.digest
    }
}

/// One round of weighted round robin, smooth: a backend of weight 2 among ones of weight 1 does
/// not get its two turns in a row. Backends by their place in `Service::backends`.
pub fn rotation(shares: &[Share]) -> Vec<usize> {
    let turns = turns(shares);
    let total: i64 = turns.iter().sum();
    let mut credit = vec![0_i64; turns.len()];
    let mut out = Vec::new();
    for _ in 0..total {
        for (credit, turns) in credit.iter_mut().zip(&turns) {
            *credit += turns;
        }
        // The first of the richest, so that equal weights go in the file's order.
        let richest = (0..credit.len()).max_by_key(|&i| (credit[i], core::cmp::Reverse(i)));
        let Some(i) = richest else { break };
        credit[i] -= total;
        out.push(shares[i].backend);
    }
    out
}

/// Turns of each share in one round: the weights in lowest terms, or what fits `BALANCE_SLOTS`.
fn turns(shares: &[Share]) -> Vec<i64> {
    let divisor = shares.iter().fold(0, |a, s| greatest_common_divisor(a, s.weight)).max(1);
    let total: usize = shares.iter().map(|s| usize::from(s.weight / divisor)).sum();
    if total <= BALANCE_SLOTS {
        shares.iter().map(|s| i64::from(s.weight / divisor)).collect()
    } else {
        let places = places(&shares.iter().map(|s| s.weight).collect::<Vec<_>>());
        places.into_iter().map(|p| i64::try_from(p).unwrap_or(i64::MAX)).collect()
    }
}

const fn greatest_common_divisor(a: u16, b: u16) -> u16 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

struct Entrant<'a> {
    share: Share,
    id: u32,
    name: &'a str,
}

/// Gives every slot the index of an entrant.
fn assign(entrants: &[Entrant<'_>]) -> Vec<usize> {
    let weights: Vec<u16> = entrants.iter().map(|e| e.share.weight).collect();
    let places = places(&weights);
    let ranking: Vec<Vec<usize>> = (0..BALANCE_SLOTS).map(|slot| rank(entrants, slot)).collect();
    let mut asked = vec![0_usize; BALANCE_SLOTS];
    let mut taken: Vec<Vec<(u64, usize)>> = vec![Vec::new(); entrants.len()];
    let mut free: Vec<usize> = (0..BALANCE_SLOTS).rev().collect();
    while let Some(slot) = free.pop() {
        // The places add up to the slots, so a slot finds one before its ranking ends.
        let Some(&i) = ranking[slot].get(asked[slot]) else { continue };
        asked[slot] += 1;
        let offer = (cost(entrants[i].id, slot as u64), slot);
        let at = taken[i].partition_point(|have| *have < offer);
        taken[i].insert(at, offer);
        if places[i] < taken[i].len() {
            free.extend(taken[i].pop().map(|(_, loser)| loser));
        }
    }
    let mut slots = vec![0; BALANCE_SLOTS];
    for (i, taken) in taken.iter().enumerate() {
        for &(_, slot) in taken {
            slots[slot] = i;
        }
    }
    slots
}

/// How many slots each weight deserves: they add up to `BALANCE_SLOTS`, and nobody gets none.
fn places(weights: &[u16]) -> Vec<usize> {
    let total: usize = weights.iter().map(|&w| usize::from(w)).sum::<usize>().max(1);
    let mut places: Vec<usize> =
        weights.iter().map(|&w| usize::from(w) * BALANCE_SLOTS / total).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder
        .sort_by_key(|&i| core::cmp::Reverse(usize::from(weights[i]) * BALANCE_SLOTS % total));
    let left = BALANCE_SLOTS.saturating_sub(places.iter().sum());
    for &i in by_remainder.iter().cycle().take(left) {
        places[i] += 1;
    }
    for i in 0..places.len() {
        let richest = (0..places.len()).max_by_key(|&j| places[j]).unwrap_or(i);
        if places[i] == 0 && 1 < places[richest] {
            places[i] = 1;
            places[richest] -= 1;
        }
    }
    places
}

/// The entrants, best for this slot first: smallest `cost / weight` (weighted rendezvous).
fn rank(entrants: &[Entrant<'_>], slot: usize) -> Vec<usize> {
    let costs: Vec<u64> = entrants.iter().map(|e| cost(e.id, slot as u64)).collect();
    let mut order: Vec<usize> = (0..entrants.len()).collect();
    order.sort_by(|&a, &b| {
        let left = costs[a] * u64::from(entrants[b].share.weight);
        let right = costs[b] * u64::from(entrants[a].share.weight);
        // Entrants are sorted by id and name, so their order settles a tie alike everywhere.
        left.cmp(&right).then(a.cmp(&b))
    });
    order
}

/// `-log2` of a hash of the pair taken as a fraction of 1, with 24 binary places: below 2^30, so
/// that a product with a weight cannot overflow. `with` is a slot, or a client's key.
pub(crate) fn cost(id: u32, with: u64) -> u64 {
    let hash = mix((u64::from(id) << 32) ^ with) >> 32;
    (32 << FRACTION_BITS) - log2(hash + 1)
}

const FRACTION_BITS: u32 = 24;

/// Base-2 logarithm of `1..=2^32` in fixed point, digit by digit: squaring a number in `[1, 2)`
/// shifts its logarithm by one place.
const fn log2(x: u64) -> u64 {
    let whole = 63 - x.leading_zeros();
    let mut mantissa = (x << 31) >> whole; // 1.31 fixed point
    let mut result = whole as u64;
    let mut i = 0;
    while i < FRACTION_BITS {
        mantissa = (mantissa * mantissa) >> 31;
        result <<= 1;
        if mantissa >> 32 != 0 {
            mantissa >>= 1;
            result |= 1;
        }
        i += 1;
    }
    result
}

/// The finaliser of SplitMix64: every input bit reaches every output bit.
const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use core::net::{Ipv4Addr, SocketAddr};

    fn backend(name: &str, weight: u16, backup: bool) -> Backend {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
        Backend { weight, backup, ..Backend::new(name, address) }
    }

    fn backends(weights: &[u16]) -> Vec<Backend> {
        weights.iter().enumerate().map(|(i, &w)| backend(&format!("web{i}"), w, false)).collect()
    }

    fn all(backends: &[Backend]) -> Vec<Share> {
        shares(backends, &[])
    }

    fn slots_of(table: &Table, backend: usize) -> usize {
        table.slots().iter().filter(|&&b| b == backend).count()
    }

    #[test]
    fn who_takes_connections() {
        use BackendState::{Down, Unknown, Up};
        let set = [
            backend("a", 1, false),
            backend("b", 3, false),
            backend("drained", 0, false),
            backend("sorry", 1, true),
        ];
        let cases: &[(&[BackendState], &[usize])] = &[
            (&[Up, Up, Up, Up], &[0, 1]),
            (&[Unknown, Unknown, Unknown, Unknown], &[0, 1]),
            (&[], &[0, 1]),
            (&[Down, Up, Up, Up], &[1]),
            (&[Down, Down, Up, Up], &[3]),
            (&[Down, Down, Up, Unknown], &[3]),
            (&[Down, Down, Up, Down], &[]),
        ];
        for (states, expected) in cases {
            let got: Vec<_> = shares(&set, states).iter().map(|s| s.backend).collect();
            assert_eq!(got, *expected, "{states:?}");
        }
    }

    #[test]
    fn below_the_quorum_backups_take_over_and_few_are_better_than_none() {
        use BackendState::{Down, Up};
        let set = [
            backend("a", 1, false),
            backend("b", 3, false),
            backend("c", 1, false),
            backend("drained", 0, false),
            backend("sorry", 1, true),
        ];
        // The states, the quorum, who takes connections, and whether that is enough.
        type Case<'c> = ([BackendState; 5], u16, &'c [usize], bool);
        let cases: [Case<'_>; 7] = [
            ([Up, Up, Up, Up, Up], 3, &[0, 1, 2], true),
            ([Up, Up, Up, Up, Down], 3, &[0, 1, 2], true),
            ([Down, Up, Up, Up, Up], 2, &[1, 2], true),
            ([Down, Up, Up, Up, Up], 3, &[4], true),
            ([Down, Up, Up, Up, Down], 3, &[1, 2], false),
            ([Down, Down, Down, Up, Down], 1, &[], false),
            ([Down, Down, Up, Up, Down], 1, &[2], true),
        ];
        for (states, quorum, expected, enough) in cases {
            let shares = shares_of_quorum(&set, &states, quorum);
            let got: Vec<_> = shares.iter().map(|s| s.backend).collect();
            assert_eq!(got, *expected, "{states:?} {quorum}");
            assert_eq!(is_enough(&set, &states, quorum), enough, "{states:?} {quorum}");
        }
    }

    #[test]
    fn shares_follow_weights_to_one_slot() {
        for weights in [
            &[1_u16, 1][..],
            &[1, 1, 1],
            &[1, 3],
            &[2, 1, 1],
            &[5, 7, 11, 13, 17],
            &[256, 256],
            &[1; 40],
        ] {
            let set = backends(weights);
            let table = Table::new(&set, &all(&set)).unwrap();
            let total: usize = weights.iter().map(|&w| usize::from(w)).sum();
            for (i, &weight) in weights.iter().enumerate() {
                let exact = BALANCE_SLOTS * usize::from(weight) / total;
                let got = slots_of(&table, i);
                assert!((exact..=exact + 1).contains(&got), "{weights:?}: {i} has {got}");
            }
        }
    }

    #[test]
    fn nobody_with_a_weight_is_left_without_a_slot() {
        let mut weights = [256_u16; 128];
        weights[77] = 1;
        let set = backends(&weights);
        let table = Table::new(&set, &all(&set)).unwrap();
        for i in 0..128 {
            assert!(0 < slots_of(&table, i), "{i}");
        }
    }

    #[test]
    fn the_order_in_the_file_does_not_matter() {
        let set = backends(&[1, 2, 3, 4, 5]);
        let mut reversed = set.clone();
        reversed.reverse();
        let a = Table::new(&set, &all(&set)).unwrap();
        let b = Table::new(&reversed, &all(&reversed)).unwrap();
        assert_eq!(a.digest(), b.digest());
        for slot in 0..BALANCE_SLOTS {
            assert_eq!(set[a.slots()[slot]].name, reversed[b.slots()[slot]].name);
        }
    }

    #[test]
    fn the_table_of_today_is_the_table_of_tomorrow() {
        // Two versions of Buoy in one cluster must agree: a changed number here breaks upgrades.
        let set = backends(&[1, 2, 3]);
        assert_eq!(Table::new(&set, &all(&set)).unwrap().digest(), 297_444_557);
    }

    #[test]
    fn a_backend_that_goes_moves_its_own_slots_and_few_others() {
        let mut worst = 0;
        for n in 2..=16 {
            let set = backends(&vec![1; n]);
            let before = Table::new(&set, &all(&set)).unwrap();
            for gone in 0..n {
                let left: Vec<_> = all(&set).into_iter().filter(|s| s.backend != gone).collect();
                let after = Table::new(&set, &left).unwrap();
                let moved = (0..BALANCE_SLOTS)
                    .filter(|&i| before.slots()[i] != gone)
                    .filter(|&i| before.slots()[i] != after.slots()[i])
                    .count();
                worst = worst.max(moved);
            }
        }
        // Of 256 slots, beside those that had to move.
        assert!(worst <= 16, "{worst}");
    }

    #[test]
    fn turns_are_smooth_and_in_proportion() {
        let set = backends(&[5, 1, 1]);
        assert_eq!(rotation(&all(&set)), [0, 0, 1, 0, 2, 0, 0]);
        let set = backends(&[10, 10]);
        assert_eq!(rotation(&all(&set)), [0, 1], "in lowest terms");
        let set = backends(&[255, 256, 251]);
        let turns = rotation(&all(&set));
        assert_eq!(turns.len(), BALANCE_SLOTS, "bounded");
        assert_eq!(turns.iter().filter(|&&b| b == 1).count(), 86);
        assert!(rotation(&[]).is_empty());
    }

    #[test]
    fn the_logarithm_is_right_where_it_is_known() {
        for whole in 0..=32 {
            assert_eq!(log2(1 << whole), whole << FRACTION_BITS);
        }
        let three = log2(3) as f64 / f64::from(1 << FRACTION_BITS);
        assert!((three - 1.584_962_5).abs() < 1e-6, "{three}");
    }
}
