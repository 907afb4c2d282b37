//! What a Maglev table promises: shares, stability, and one table for all nodes.

use super::*;
use crate::balance::shares;
use alloc::format;
use buoy_model::BackendState;
use buoy_model::limits::SERVICE_BACKENDS_MAX;
use core::net::{Ipv4Addr, SocketAddr};

fn backends(weights: &[u16]) -> Vec<Backend> {
    let backend = |(i, &weight): (usize, &u16)| Backend {
        weight,
        ..Backend::new(&format!("web{i}"), SocketAddr::from((Ipv4Addr::LOCALHOST, 80)))
    };
    weights.iter().enumerate().map(backend).collect()
}

fn table(backends: &[Backend]) -> Table {
    Table::new(backends, &shares(backends, &[])).unwrap()
}

/// The table when these are down.
fn without(backends: &[Backend], down: &[usize]) -> Table {
    let mut left = shares(backends, &[]);
    left.retain(|s| !down.contains(&s.backend));
    Table::new(backends, &left).unwrap()
}

fn slots_of(table: &Table, place: usize) -> usize {
    table.slots().iter().filter(|&&p| usize::from(p) == place).count()
}

/// Slots that changed their backend though neither of the two tables lacks it.
fn moved_needlessly(before: &Table, after: &Table, gone: &[usize]) -> usize {
    let pairs = before.slots().iter().zip(after.slots());
    pairs.filter(|(b, a)| b != a && !gone.contains(&usize::from(**b))).count()
}

#[test]
fn the_size_leaves_a_slot_for_the_smallest_weight_among_the_largest() {
    for (backends, slots) in
        [(1, 4096), (16, 4096), (17, 16_384), (64, 16_384), (65, 65_536), (128, 65_536)]
    {
        assert_eq!(size(backends), slots, "{backends}");
    }
    for n in 2..=SERVICE_BACKENDS_MAX {
        let mut weights = vec![BACKEND_WEIGHT_MAX; n];
        weights[n / 2] = 1;
        let quotas = quotas(&weights, size(n));
        assert!(quotas.iter().all(|&q| 0 < q), "{n}");
        assert_eq!(quotas.iter().sum::<usize>(), size(n));
    }
}

#[test]
fn shares_follow_weights_to_less_than_one_slot() {
    for weights in [
        &[1_u16][..],
        &[1, 1],
        &[1, 1, 1],
        &[1, 256],
        &[5, 7, 11, 13, 17],
        &[256, 1, 1, 256, 3],
        &[1; 40],
        &[7; 128],
    ] {
        let table = table(&backends(weights));
        let total: usize = weights.iter().map(|&w| usize::from(w)).sum();
        for (i, &weight) in weights.iter().enumerate() {
            let exact = table.slots().len() * usize::from(weight) / total;
            let got = slots_of(&table, i);
            assert!((exact..=exact + 1).contains(&got), "{weights:?}: {i} has {got}");
        }
    }
}

#[test]
fn without_anybody_there_is_no_table() {
    let set = backends(&[1, 1]);
    assert_eq!(Table::new(&set, &[]), None);
    assert_eq!(Table::new(&[], &[]), None);
    let weightless = [Share { backend: 0, weight: 0 }];
    assert_eq!(Table::new(&set, &weightless), None);
    let astray = [Share { backend: 9, weight: 1 }];
    assert_eq!(Table::new(&set, &astray), None, "a share of nobody in the list");
}

#[test]
fn a_backend_that_is_down_does_not_change_the_size() {
    let set = backends(&[1; 17]);
    let left: Vec<usize> = (1..17).collect();
    assert_eq!(without(&set, &left).slots().len(), table(&set).slots().len());
}

#[test]
fn the_order_in_the_file_does_not_matter() {
    let set = backends(&[1, 2, 3, 4, 5]);
    let mut reversed = set.clone();
    reversed.reverse();
    let (a, b) = (table(&set), table(&reversed));
    assert_eq!(a.digest(), b.digest());
    for (a, b) in a.slots().iter().zip(b.slots()) {
        assert_eq!(set[usize::from(*a)].name, reversed[usize::from(*b)].name);
    }
}

#[test]
fn two_names_with_one_key_have_a_slot_each() {
    // FNV-1a gives both names the same 32 bits, so they have one order of slots and take turns in it.
    let mut set = backends(&[1, 1]);
    (set[0].name, set[1].name) = ("costarring".into(), "liquid".into());
    assert_eq!(name_key("costarring"), name_key("liquid"));
    let table = table(&set);
    assert_eq!((slots_of(&table, 0), slots_of(&table, 1)), (2048, 2048));
}

#[test]
fn a_backend_that_goes_moves_its_own_slots_and_few_others() {
    // Beside those that had to move, in thousandths of the table.
    for (n, most) in [(2, 0), (3, 5), (10, 15), (16, 20), (50, 15), (64, 20), (100, 10), (128, 10)]
    {
        let set = backends(&vec![1; n]);
        let before = table(&set);
        let mut worst = 0;
        for gone in (0..n).step_by(n.div_ceil(16)) {
            let mut left = set.clone();
            left.remove(gone);
            let mut after = table(&left);
            // The places of those behind it are one less.
            after.slots.iter_mut().for_each(|place| *place += u16::from(gone <= (*place).into()));
            worst = worst.max(moved_needlessly(&before, &after, &[gone]));
        }
        let slots = before.slots().len();
        assert!(worst * 1000 <= most * slots, "{n}: {worst} of {slots}");
    }
}

#[test]
fn a_backend_that_is_down_moves_its_own_slots_and_no_others() {
    for n in [2, 3, 10, 16, 17, 50, 64, 100, 128] {
        let set = backends(&vec![1; n]);
        let before = table(&set);
        for down in (0..n).step_by(n.div_ceil(16)) {
            let after = without(&set, &[down]);
            // A share of n may be rounded up and a share of n - 1 down.
            let most = if before.slots().len().is_multiple_of(n) { 0 } else { n };
            let moved = moved_needlessly(&before, &after, &[down]);
            assert!(moved <= most, "{n}: {moved}");
            assert_eq!(slots_of(&after, down), 0);
        }
    }
}

#[test]
fn a_second_one_that_is_down_moves_few_slots_of_the_others() {
    for (n, most) in [(3, 0), (10, 10), (16, 10), (64, 5), (100, 5), (128, 5)] {
        let set = backends(&vec![1; n]);
        let (before, after) = (without(&set, &[1]), without(&set, &[1, n - 1]));
        let moved = moved_needlessly(&before, &after, &[n - 1]);
        assert!(moved * 1000 <= most * before.slots().len(), "{n}: {moved}");
    }
}

#[test]
fn who_is_up_shares_by_weight_to_less_than_one_slot_whoever_is_down() {
    for (weights, down) in [
        (&[1_u16, 1, 1][..], &[1_usize][..]),
        (&[1, 256, 3], &[1]),
        (&[5, 7, 11, 13, 17], &[4, 0]),
        (&[256, 1, 1, 256, 3], &[0, 3]),
        (&[1; 100], &[7]),
        (&[1; 128], &[0, 1, 2, 3, 100, 101, 127]),
        (&[9; 128], &[5]),
    ] {
        let table = without(&backends(weights), down);
        let up = |i: &usize| !down.contains(i);
        let total: usize = (0..weights.len()).filter(up).map(|i| usize::from(weights[i])).sum();
        for i in (0..weights.len()).filter(up) {
            let exact = table.slots().len() * usize::from(weights[i]) / total;
            let got = slots_of(&table, i);
            assert!((exact..=exact + 1).contains(&got), "{weights:?} {down:?}: {i} has {got}");
        }
    }
}

#[test]
fn only_the_last_one_has_everything() {
    let set = backends(&[1; 128]);
    let table = without(&set, &(1..128).collect::<Vec<_>>());
    assert_eq!(slots_of(&table, 0), table.slots().len());
}

#[test]
fn slots_are_lent_by_state_and_not_by_history_or_place_in_the_file() {
    let set = backends(&[1, 2, 3, 4, 5]);
    let base = Base::new(&set, &shares(&set, &[])).unwrap();
    let mut left = shares(&set, &[]);
    left.remove(3);
    assert!(base.is_of(&set, &left), "a state is no reason for another base");
    let after = base.table(&left).unwrap();
    assert_eq!(after, without(&set, &[3]));
    assert_eq!(base.table(&shares(&set, &[])).unwrap(), table(&set), "back where it was");
    let mut reversed = set.clone();
    reversed.reverse();
    assert_eq!(after.digest(), without(&reversed, &[1]).digest());
    reversed[0].weight = 9;
    assert!(!base.is_of(&reversed, &shares(&reversed, &[])));
}

#[test]
fn backups_have_a_base_of_their_own() {
    let mut set = backends(&[1, 1, 1, 1]);
    set[2].backup = true;
    set[3].backup = true;
    let first = table(&set);
    assert_eq!([0, 1, 2, 3].map(|i| slots_of(&first, i)), [2048, 2048, 0, 0]);
    use BackendState::{Down, Up};
    let second = Table::new(&set, &shares(&set, &[Down, Down, Up, Up])).unwrap();
    assert_eq!([0, 1, 2, 3].map(|i| slots_of(&second, i)), [0, 0, 2048, 2048]);
    let last = Table::new(&set, &shares(&set, &[Down, Down, Down, Up])).unwrap();
    assert_eq!([0, 1, 2, 3].map(|i| slots_of(&last, i)), [0, 0, 0, 4096]);
}

#[test]
fn a_new_weight_moves_little_more_than_the_difference() {
    let before = backends(&[10; 10]);
    let mut after = before.clone();
    after[3].weight = 5;
    let (before, after) = (table(&before), table(&after));
    let moved = moved_needlessly(&before, &after, &[]);
    // A backend of ten gives half of its tenth away: 5 % of the slots, and as much again at most.
    assert!(moved * 10 <= before.slots().len(), "{moved} of {}", before.slots().len());
}

#[test]
fn the_table_of_today_is_the_table_of_tomorrow() {
    // Two versions of Buoy in one cluster must agree: a changed number here breaks upgrades.
    let digests = [&[1, 2, 3][..], &[1; 20], &[3; 100]].map(|w| table(&backends(w)).digest());
    assert_eq!(digests, [2_902_822_781, 1_490_786_574, 3_451_746_922]);
    let down = without(&backends(&[3; 100]), &[7, 70]).digest();
    assert_eq!(down, 972_828_463);
}
