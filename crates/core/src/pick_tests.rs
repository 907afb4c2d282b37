//! Each way of choosing is as even as the reference says, keeps to maximums, and moves no client without need.

use super::*;
use alloc::format;
use alloc::vec;
use core::net::Ipv4Addr;

const CONNECTION: FlowFields = FlowFields::Connection;
const CLIENT: FlowFields = FlowFields::Client;

const ALL: [Balance; 10] = [
    Balance::Hash(CONNECTION),
    Balance::Hash(CLIENT),
    Balance::Maglev(CONNECTION),
    Balance::Maglev(CLIENT),
    Balance::Rendezvous(CONNECTION),
    Balance::RoundRobin,
    Balance::LeastConnections,
    Balance::ShortestDelay,
    Balance::Random,
    Balance::First,
];

/// Weights from equal to far apart, and the larger numbers of backends.
const WEIGHTS: [&[u16]; 5] =
    [&[1, 1, 1], &[1, 2, 3], &[5, 1, 1], &[100, 7, 30, 1, 256], &[3, 1, 3, 1, 3, 1, 3, 1]];

fn backends(weights: &[u16], max: Option<u32>) -> Vec<Backend> {
    let backend = |(i, &weight): (usize, &u16)| Backend {
        name: format!("web{i}"),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
        weight,
        backup: false,
        connections_max: max,
        server_id: None,
        location: None,
    };
    weights.iter().enumerate().map(backend).collect()
}

fn idle(_: usize) -> Seen {
    Seen { active: 0, grown: GROWN, avoid: false }
}

fn busy(active: u32) -> Seen {
    Seen { active, ..idle(0) }
}

/// A client that comes once: address and port from one number.
fn client(number: u64) -> SocketAddr {
    let hash = mix(number.wrapping_add(0x1234_5678)).to_be_bytes();
    let port = u16::from_be_bytes([hash[4], hash[5]]) | 1024;
    SocketAddr::from(([10, hash[0], hash[1], hash[2]], port))
}

fn place(picked: Picked) -> usize {
    match picked {
        Picked::Backend(place) => place,
        Picked::Full | Picked::Nobody => panic!("{picked:?}"),
    }
}

/// How many of so many connections each got; none of them ends.
fn filled(balance: Balance, weights: &[u16], connections: u64) -> Vec<u32> {
    let mut picker = Picker::new(balance, &backends(weights, None), 7);
    let mut counts = vec![0; weights.len()];
    for number in 0..connections {
        let at = place(picker.pick(client(number), |i| busy(counts[i])));
        counts[at] += 1;
    }
    counts
}

/// How far each count is from its share, at most.
fn deviation(counts: &[u32], weights: &[u16]) -> f64 {
    let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
    let sum: f64 = counts.iter().map(|&n| f64::from(n)).sum();
    let of = |(&count, &weight): (&u32, &u16)| {
        (f64::from(count) - sum * f64::from(weight) / total).abs()
    };
    counts.iter().zip(weights).map(of).fold(0.0, f64::max)
}

/// Pearson's statistic of counts against shares.
fn chi_square(counts: &[u32], shares: &[f64]) -> f64 {
    let total: f64 = shares.iter().sum();
    let sum: f64 = counts.iter().map(|&n| f64::from(n)).sum();
    let of = |(&count, &share): (&u32, &f64)| {
        let expected = sum * share / total;
        (f64::from(count) - expected).powi(2) / expected
    };
    counts.iter().zip(shares).map(of).sum()
}

/// The value that Pearson's statistic stays below in 999 of 1000 runs (Wilson and Hilferty; 1 % too large at most).
fn chi_square_bound(freedom: usize) -> f64 {
    let k = freedom as f64;
    k * (3.09 * (2.0 / (9.0 * k)).sqrt() + 1.0 - 2.0 / (9.0 * k)).powi(3)
}

#[test]
fn turns_are_exact_in_each_round_and_never_off_by_more_than_the_others_are_many() {
    for weights in WEIGHTS {
        for connections in [1000, 100_000] {
            let counts = filled(Balance::RoundRobin, weights, connections);
            let off = deviation(&counts, weights);
            assert!(off < weights.len() as f64, "{weights:?} {connections}: {counts:?} {off}");
        }
        let round: u64 = weights.iter().map(|&w| u64::from(w)).sum();
        let counts = filled(Balance::RoundRobin, weights, 10 * round);
        assert!(deviation(&counts, weights) < 1e-6, "{weights:?}: {counts:?}");
    }
}

#[test]
fn who_counts_connections_fills_in_proportion_to_less_than_one_for_each_backend() {
    for balance in [Balance::LeastConnections, Balance::ShortestDelay] {
        for weights in WEIGHTS {
            for connections in [1000, 100_000] {
                let counts = filled(balance, weights, connections);
                let off = deviation(&counts, weights);
                assert!(off < weights.len() as f64, "{balance:?} {weights:?}: {counts:?} {off}");
            }
        }
    }
}

/// Connections that end: each lives as long as a lot says, so that order is no help.
#[test]
fn who_counts_connections_keeps_what_is_open_in_proportion_while_connections_end() {
    for balance in [Balance::LeastConnections, Balance::ShortestDelay] {
        for weights in WEIGHTS {
            let mut picker = Picker::new(balance, &backends(weights, None), 7);
            let mut random = Random::new(11);
            let mut open: Vec<usize> = Vec::new();
            let mut counts = vec![0_u32; weights.len()];
            for number in 0..100_000 {
                let at = place(picker.pick(client(number), |i| busy(counts[i])));
                counts[at] += 1;
                open.push(at);
                if 2000 < open.len() {
                    let lot = usize::try_from(random.next() >> 33).unwrap() % open.len();
                    counts[open.swap_remove(lot)] -= 1;
                }
            }
            // What ends is by lot, and one comes for one that goes.
            let off = deviation(&counts, weights);
            assert!(off <= 2.0 * weights.len() as f64, "{balance:?} {weights:?}: {counts:?} {off}");
        }
    }
}

#[test]
fn hashing_is_as_even_as_lots_over_the_shares_of_its_table() {
    for weights in WEIGHTS {
        let set = backends(weights, None);
        let all: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
        for connections in [1000, 100_000] {
            let bound = chi_square_bound(weights.len() - 1);
            for fields in [CONNECTION, CLIENT] {
                // The table of `Hash` has 256 slots, so its shares are those of whole slots.
                let shares = balance::shares(&set, &[]);
                let table = balance::Table::new(&set, &shares).unwrap();
                let slots = |i: usize| table.slots().iter().filter(|&&s| s == i).count() as f64;
                let of_slots: Vec<f64> = (0..weights.len()).map(slots).collect();
                for (balance, shares) in [
                    (Balance::Hash(fields), &of_slots),
                    (Balance::Maglev(fields), &all),
                    (Balance::Rendezvous(fields), &all),
                ] {
                    let counts = filled(balance, weights, connections);
                    let off = chi_square(&counts, shares);
                    assert!(off < bound, "{balance:?} {weights:?} {connections}: {counts:?} {off}");
                }
            }
        }
    }
}

#[test]
fn slots_are_exact_to_one() {
    for weights in WEIGHTS {
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        let of = |balance| Picker::new(balance, &backends(weights, None), 7).slots;
        for balance in [Balance::Hash(CONNECTION), Balance::Maglev(CONNECTION)] {
            let slots = of(balance);
            for (i, &weight) in weights.iter().enumerate() {
                let have = slots.iter().filter(|&&s| usize::from(s) == i).count() as f64;
                let share = slots.len() as f64 * f64::from(weight) / total;
                assert!((have - share).abs() < 1.0, "{balance:?} {weights:?} {i}: {have} {share}");
            }
        }
    }
}

/// A lot alone is off by the root of the number (300 of 100,000); the better of two by next to nothing.
#[test]
fn two_choices_keep_the_fullest_within_a_few_of_its_share() {
    for weights in WEIGHTS {
        for connections in [1000, 100_000] {
            let counts = filled(Balance::Random, weights, connections);
            let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            let level = connections as f64 / total;
            for (&count, &weight) in counts.iter().zip(weights) {
                // In connections for each weight: the level of each is that of all, but for a few.
                let off = (f64::from(count) - level * f64::from(weight)).abs();
                let few = 10.0 + 0.12 * level * f64::from(weight);
                assert!(off <= few, "{weights:?} {connections}: {counts:?}");
            }
        }
        if weights.iter().all(|w| *w == weights[0]) {
            let counts = filled(Balance::Random, weights, 100_000);
            assert!(deviation(&counts, weights) < 10.0, "{counts:?}");
        }
    }
}

#[test]
fn lots_are_in_proportion_to_weights_exactly() {
    for weights in WEIGHTS {
        let lots = Lots::new(weights);
        let mut parts = vec![0; weights.len()];
        for (i, &(kept, other)) in lots.lots.iter().enumerate() {
            parts[i] += kept;
            parts[other] += lots.total - kept;
        }
        let expected: Vec<u64> =
            weights.iter().map(|&w| u64::from(w) * weights.len() as u64).collect();
        assert_eq!(parts, expected, "{weights:?}");
        let (mut counts, mut random) = (vec![0; weights.len()], Random::new(3));
        (0..100_000).for_each(|_| counts[lots.draw(random.next()).unwrap()] += 1);
        let shares: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
        let off = chi_square(&counts, &shares);
        assert!(off < chi_square_bound(weights.len() - 1), "{weights:?}: {counts:?} {off}");
    }
    assert_eq!(Lots::new(&[]).draw(5), None);
    assert_eq!(Lots::new(&[0, 0]).draw(5), None);
}

#[test]
fn the_first_is_filled_before_the_second_gets_one() {
    for connections in [1000_u64, 100_000] {
        let max = u32::try_from(connections / 4).unwrap();
        let mut picker = Picker::new(Balance::First, &backends(&[1, 9, 5, 1, 1], Some(max)), 7);
        let mut counts = [0; 5];
        for number in 0..connections {
            let at = place(picker.pick(client(number), |i| busy(counts[i])));
            counts[at] += 1;
        }
        assert_eq!(counts, [max, max, max, max, 0], "whatever the weights");
    }
}

#[test]
fn turns_are_smooth() {
    let turns = |weights: &[u16], count: u64| -> Vec<usize> {
        let mut picker = Picker::new(Balance::RoundRobin, &backends(weights, None), 7);
        (0..count).map(|_| place(picker.pick(client(1), idle))).collect()
    };
    assert_eq!(turns(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
    assert_eq!(turns(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(turns(&[0, 1], 3), [1, 1, 1], "weight 0 takes nothing");
    assert_eq!(turns(&[255, 256], 5), [1, 0, 1, 0, 1]);
}

#[test]
fn the_fewest_connections_per_weight_win() {
    let cases: &[(Balance, &[u16], &[u32], usize)] = &[
        (Balance::LeastConnections, &[1, 1, 1], &[5, 3, 4], 1),
        (Balance::LeastConnections, &[1, 2], &[4, 7], 1),
        (Balance::LeastConnections, &[1, 2], &[3, 7], 0),
        (Balance::LeastConnections, &[1, 1], &[0, 1], 0),
        // An idle slow one is a better choice than a busy fast one only for who does not count the new one.
        (Balance::LeastConnections, &[1, 4], &[0, 1], 0),
        (Balance::ShortestDelay, &[1, 4], &[0, 1], 1),
        (Balance::ShortestDelay, &[1, 4], &[0, 4], 0),
        (Balance::ShortestDelay, &[1, 2], &[0, 0], 1),
    ];
    for (balance, weights, active, expected) in cases {
        let mut picker = Picker::new(*balance, &backends(weights, None), 7);
        let got = place(picker.pick(client(1), |i| busy(active[i])));
        assert_eq!(got, *expected, "{balance:?} {weights:?} {active:?}");
    }
    for balance in [Balance::LeastConnections, Balance::ShortestDelay] {
        let mut picker = Picker::new(balance, &backends(&[1, 1], None), 7);
        let turns: Vec<_> = (0..4).map(|_| place(picker.pick(client(1), idle))).collect();
        assert_eq!(turns, [0, 1, 0, 1], "equals take turns");
    }
}

#[test]
fn one_client_has_one_backend_whatever_happens_to_the_others() {
    for balance in [Balance::Hash, Balance::Maglev, Balance::Rendezvous] {
        let set = backends(&[1, 2, 3, 4], None);
        let mut picker = Picker::new(balance(CLIENT), &set, 7);
        for number in 0..500 {
            let from = client(number);
            let home = place(picker.pick(from, idle));
            let other_port = SocketAddr::new(from.ip(), from.port() ^ 1);
            assert_eq!(place(picker.pick(other_port, idle)), home, "by address only");
            // One that is avoided moves its own clients, and each of them always to the same place.
            let without = |gone: usize| move |i: usize| Seen { avoid: i == gone, ..idle(i) };
            for gone in 0..4 {
                let now = place(picker.pick(from, without(gone)));
                assert_eq!(now == home, gone != home, "{number}: {gone}");
                assert_eq!(place(picker.pick(from, without(gone))), now);
            }
        }
        let mut by_port = Picker::new(balance(CONNECTION), &set, 7);
        let ports = (1024..1074).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let places: Vec<usize> = ports.map(|from| place(by_port.pick(from, idle))).collect();
        assert!(places.iter().any(|p| *p != places[0]), "by port as well");
    }
}

#[test]
fn the_order_of_the_lines_moves_no_client() {
    let set = backends(&[1, 2, 3, 4], None);
    let mut reversed = set.clone();
    reversed.reverse();
    for balance in [Balance::Hash, Balance::Maglev, Balance::Rendezvous] {
        let mut one = Picker::new(balance(CONNECTION), &set, 7);
        let mut other = Picker::new(balance(CONNECTION), &reversed, 9);
        for number in 0..1000 {
            let (a, b) = (one.pick(client(number), idle), other.pick(client(number), idle));
            assert_eq!(set[place(a)].name, reversed[place(b)].name);
        }
    }
}

#[test]
fn a_backend_that_has_just_failed_is_avoided_while_there_is_another() {
    let avoided = |i: usize| Seen { avoid: i == 0, ..idle(i) };
    for balance in ALL {
        let mut picker = Picker::new(balance, &backends(&[9, 1], Some(5)), 7);
        for number in 0..50 {
            assert_eq!(picker.pick(client(number), avoided), Picked::Backend(1), "{balance:?}");
        }
        let mut alone = Picker::new(balance, &backends(&[1], None), 7);
        assert_eq!(alone.pick(client(1), avoided), Picked::Backend(0), "{balance:?}");
        let mut drained = Picker::new(balance, &backends(&[1, 0], None), 7);
        assert_eq!(drained.pick(client(1), avoided), Picked::Backend(0), "{balance:?}");
        for nobody in [&[][..], &[0, 0]] {
            let mut picker = Picker::new(balance, &backends(nobody, None), 7);
            assert_eq!(picker.pick(client(1), idle), Picked::Nobody, "{balance:?}");
        }
    }
}

#[test]
fn nobody_gets_more_than_its_maximum() {
    for balance in ALL {
        let mut picker = Picker::new(balance, &backends(&[1, 7, 2], Some(100)), 7);
        let mut counts = [0; 3];
        for number in 0..300 {
            let at = place(picker.pick(client(number), |i| busy(counts[i])));
            counts[at] += 1;
        }
        assert_eq!(counts, [100; 3], "{balance:?}");
        assert_eq!(picker.pick(client(1), |i| busy(counts[i])), Picked::Full, "{balance:?}");
        // One that is full and one that has just failed: there is a reason to wait for the first.
        let see = |i: usize| Seen { avoid: i == 0, ..busy(if i == 0 { 0 } else { 100 }) };
        assert_eq!(picker.pick(client(1), see), Picked::Full, "{balance:?}");
    }
}

/// One of four backends that has a part of its weight gets that part of what it would get: `p / (3 + p)`.
#[test]
fn a_backend_that_grows_gets_its_part() {
    let by_weight = [
        Balance::Hash(CONNECTION),
        Balance::Maglev(CONNECTION),
        Balance::Rendezvous(CONNECTION),
        Balance::RoundRobin,
    ];
    for balance in by_weight {
        for grown in [64, 256, 512, 1024] {
            let mut picker = Picker::new(balance, &backends(&[1; 4], None), 7);
            let part = f64::from(grown) / f64::from(GROWN);
            let mut counts = [0; 4];
            for number in 0..100_000 {
                let see = |i: usize| Seen { grown: if i == 2 { grown } else { GROWN }, ..idle(i) };
                let at = place(picker.pick(client(number), see));
                counts[at] += 1;
            }
            let shares = [1.0, 1.0, part, 1.0];
            let off = chi_square(&counts, &shares);
            // A table's slots are exact; its retries are as even as lots are.
            assert!(off < chi_square_bound(3), "{balance:?} {grown}: {counts:?} {off}");
        }
    }
    for balance in [Balance::LeastConnections, Balance::ShortestDelay, Balance::Random] {
        let mut picker = Picker::new(balance, &backends(&[1; 4], None), 7);
        let mut counts = [0_u32; 4];
        for number in 0..100_000 {
            let see =
                |i: usize| Seen { grown: if i == 2 { 256 } else { GROWN }, ..busy(counts[i]) };
            let at = place(picker.pick(client(number), see));
            counts[at] += 1;
        }
        let share = f64::from(counts[2]) / 100_000.0;
        assert!((share - 0.25 / 3.25).abs() < 0.01, "{balance:?}: {counts:?}");
    }
}

#[test]
fn a_share_grows_evenly() {
    let slow_start = Duration::from_secs(30);
    let at = |millis| grown(Duration::from_millis(millis), slow_start);
    assert_eq!([0, 7_500, 15_000, 30_000, 3_000_000].map(at), [0, 256, 512, 1024, 1024]);
    assert_eq!(grown(Duration::from_secs(1), Duration::ZERO), GROWN);
}

#[test]
fn everybody_new_at_once_is_as_if_nobody_were() {
    for balance in ALL {
        let mut picker = Picker::new(balance, &backends(&[1, 1], None), 7);
        for number in 0..100 {
            let new = |i: usize| Seen { grown: 0, ..idle(i) };
            assert!(matches!(picker.pick(client(number), new), Picked::Backend(_)), "{balance:?}");
        }
    }
}

#[test]
fn the_same_seed_picks_the_same() {
    let run = |seed| {
        let mut picker = Picker::new(Balance::Random, &backends(&[1; 8], None), seed);
        (0..100).map(|n| place(picker.pick(client(n), idle))).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
