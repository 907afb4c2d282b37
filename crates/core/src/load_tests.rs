//! Shares follow loads and times without swinging, and connections follow the shares.

use super::*;
use crate::balance::{self, Table};
use crate::weigh::weigh;
use alloc::vec;
use buoy_model::Backend;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_share_follows_slowly_in_steps_and_not_below_its_floor() {
    let mut share = Share::new(100);
    let mut told = vec![];
    for second in 0..60 {
        told.push(share.follow(at(second * 1_000), of_load(100)));
    }
    assert_eq!(told.last(), Some(&FLOOR));
    for pair in told.windows(2) {
        assert!(pair[1] <= pair[0] && pair[0] - pair[1] <= 3 * STEP, "{told:?}");
        assert_eq!(pair[1] % STEP, 0);
    }
    for second in 60..180 {
        told.push(share.follow(at(second * 1_000), of_load(0)));
    }
    assert_eq!(told.last(), Some(&100), "{told:?}");
    // Twenty answers a second move it no faster.
    let mut quick = Share::new(100);
    let last = (0..100).map(|n| quick.follow(at(n * 50), of_load(100))).last();
    assert!(last >= Some(50), "{last:?} after five seconds");
    // It goes on from what others have told, and a load that trembles moves nothing.
    let mut taken = Share::new(40);
    let still = (0..100).map(|n| taken.follow(at(n * 1_000), 36 + (n % 9) as u16));
    assert!(still.collect::<Vec<_>>().iter().all(|share| *share == 40));
}

#[test]
fn whoever_takes_longer_than_the_others_takes_less_and_where_all_are_slow_nobody_does() {
    let table = [
        (ms(10), ms(10), 100),
        (ms(5), ms(10), 100),
        (ms(34), ms(10), 33),
        (ms(900), ms(900), 100),
        (ms(60_000), ms(1), FLOOR),
        // Three times as long, and nothing that matters.
        (Duration::from_micros(300), Duration::from_micros(100), 91),
        (Duration::ZERO, Duration::ZERO, 100),
    ];
    for (took, others, share) in table {
        assert_eq!(of_latency(took, others), share, "{took:?} of {others:?}");
    }
    assert_eq!(usual(vec![]), None);
    assert_eq!(usual(vec![ms(30), ms(10)]), Some(ms(10)), "one of two that is slow is");
    assert_eq!(usual(vec![ms(30), ms(10), ms(20)]), Some(ms(20)));
    assert_eq!(usual(vec![ms(9), ms(30), ms(10), ms(20)]), Some(ms(10)));
}

/// Backends that can do so much, under so much traffic: what each says after so long, and when shares moved.
fn run(
    speeds: &[f64],
    traffic: f64,
    wanted: impl Fn(&[f64], usize) -> u16,
) -> (Vec<f64>, Vec<u16>, Vec<u64>) {
    let mut shares = vec![Share::new(100); speeds.len()];
    let mut told: Vec<u16> = vec![100; speeds.len()];
    let loads = |told: &[u16]| -> Vec<f64> {
        let all: f64 = told.iter().map(|share| f64::from(*share)).sum();
        let load = |(share, speed): (&u16, &f64)| traffic * f64::from(*share) / all / speed;
        told.iter().zip(speeds).map(load).collect()
    };
    let mut moved = vec![];
    for second in 0..300_u64 {
        let now = loads(&told);
        let before = told.clone();
        for place in 0..speeds.len() {
            told[place] = shares[place].follow(at(second * 1_000), wanted(&now, place));
        }
        if told != before {
            moved.push(second);
        }
    }
    (loads(&told), told, moved)
}

fn spread(loads: &[f64]) -> f64 {
    let most = loads.iter().copied().fold(0.0, f64::max);
    most - loads.iter().copied().fold(f64::MAX, f64::min)
}

/// Speeds, and traffic in the same measure.
const CASES: [(&[f64], f64); 4] = [
    (&[2.0, 1.0], 1.5),
    (&[1.0, 1.0, 1.0], 1.8),
    (&[4.0, 2.0, 1.0, 1.0], 4.0),
    (&[1.0, 1.0, 0.25], 1.2),
];

#[test]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
fn shares_come_to_rest_where_loads_are_nearer_to_each_other() {
    for (speeds, traffic) in CASES {
        let of = |loads: &[f64], place: usize| of_load((100.0 * loads[place]).min(100.0) as u8);
        let equal: Vec<f64> = speeds.iter().map(|s| traffic / speeds.len() as f64 / s).collect();
        let (loads, told, moved) = run(speeds, traffic, of);
        assert!(
            spread(&loads) <= (spread(&equal) * 0.75).max(0.1),
            "{speeds:?}: {loads:?} {told:?}"
        );
        assert!(moved.last() < Some(&120), "{speeds:?}: moves at {moved:?}");
    }
}

/// A server with much to do takes longer: 10 ms / (1 - load), as a queue does.
#[test]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 1000 ms")]
fn shares_by_latency_come_to_rest_where_all_take_about_as_long() {
    let time = |load: f64| Duration::from_micros((10_000.0 / (1.0 - load.min(0.99))) as u64);
    for (speeds, traffic) in CASES {
        let of = |loads: &[f64], place: usize| {
            let times: Vec<Duration> = loads.iter().map(|load| time(*load)).collect();
            of_latency(times[place], usual(times).unwrap())
        };
        let (loads, told, moved) = run(speeds, traffic, of);
        let times: Vec<Duration> = loads.iter().map(|load| time(*load)).collect();
        let (most, least) = (*times.iter().max().unwrap(), *times.iter().min().unwrap());
        assert!(most < 3 * least, "{speeds:?}: {times:?} {told:?}");
        assert!(moved.last() < Some(&120), "{speeds:?}: moves at {moved:?}");
    }
}

#[test]
fn connections_go_by_the_shares_that_hold() {
    let backend = |n: u8| Backend::new(&alloc::format!("web{n}"), ([10, 0, 0, n], 80).into());
    let shares = [100_u16, 40, 10];
    let mut backends: Vec<Backend> = (1..=3).map(backend).collect();
    weigh(&mut backends, &shares);
    let of = balance::shares(&backends, &[]);
    let table = Table::new(&backends, &of).unwrap();
    let turns = balance::rotation(&of);
    for count in [1_000_usize, 100_000] {
        let (mut by_hash, mut by_turn) = ([0_usize; 3], [0_usize; 3]);
        for n in 0..count {
            let hash = crate::random::mix(n as u64) as usize;
            by_hash[table.slots()[hash % table.slots().len()]] += 1;
            by_turn[turns[n % turns.len()]] += 1;
        }
        for (place, share) in shares.iter().enumerate() {
            let due = count * usize::from(*share) / 150;
            // By chance a thousand differ by some; a slot of the table is a two hundred and fifty-sixth.
            let hash = by_hash[place].abs_diff(due);
            assert!(hash <= count / 256 + 3 * due.isqrt(), "{count}: {by_hash:?}");
            assert!(by_turn[place].abs_diff(due) <= turns.len(), "{count}: {by_turn:?}");
        }
    }
}
