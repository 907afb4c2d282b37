//! Remembers how many connections each client has opened lately, in room for so many clients.
//!
//! A client that is not there owes nothing. It takes the place, among eight, of the one that owes least: what
//! drives others out loses its own first, and nobody is refused for want of room.

use buoy_model::limits::RATE_CLIENTS_MAX;
use buoy_model::{Rate, client};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Places that a client may have.
const WAYS: usize = 8;
const SETS: usize = RATE_CLIENTS_MAX / WAYS;
const _: () = assert!(SETS.is_power_of_two() && SETS * WAYS == RATE_CLIENTS_MAX);

/// Who it is, and when nothing is owed any more.
type Bucket = Option<(IpAddr, Instant)>;

#[derive(Debug, Default)]
pub(crate) struct Limiter {
    /// Which set a client is in, not to be guessed by it.
    hasher: RandomState,
    /// Empty until the first client comes.
    buckets: Vec<[Bucket; WAYS]>,
}

impl Limiter {
    /// Whether this client may open one more now, which then counts.
    pub(crate) fn admits(&mut self, rate: Rate, now: Instant, from: IpAddr) -> bool {
        let who = client(from);
        let hash = self.hasher.hash_one(who);
        if self.buckets.is_empty() {
            self.buckets.resize(SETS, [None; WAYS]);
        }
        let set = usize::try_from(hash % SETS as u64).ok().and_then(|at| self.buckets.get_mut(at));
        let debt = |bucket: &Bucket| {
            bucket.map_or(Duration::ZERO, |(_, until)| until.saturating_duration_since(now))
        };
        let worth = |bucket: &&mut Bucket| match bucket {
            Some((other, _)) if *other == who => None,
            other => Some(debt(other)),
        };
        let Some(bucket) = set.and_then(|set| set.iter_mut().min_by_key(worth)) else {
            return true;
        };
        let owed = match bucket {
            Some((other, _)) if *other == who => debt(bucket),
            Some(_) | None => Duration::ZERO,
        };
        match rate.after(owed) {
            Some(after) => {
                *bucket = Some((who, now + after));
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_model::Per;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_client_has_a_bucket_and_a_subnet_of_ipv6_is_one() {
        let rate = Rate::new(10, Per::Second, 2).unwrap();
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        for from in ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00:0:0:1::1"].map(ip) {
            let is: Vec<_> = (0..3).map(|_| limiter.admits(rate, start, from)).collect();
            assert_eq!(is, [true, true, false], "{from}");
        }
        assert!(!limiter.admits(rate, start, ip("fd00::ffff:2")));
        let later = start + Duration::from_millis(100);
        assert!(limiter.admits(rate, later, ip("10.0.0.1")));
        assert!(!limiter.admits(rate, later, ip("10.0.0.1")));
        // Another rate holds at once.
        assert!(limiter.admits(Rate::new(100, Per::Second, 100).unwrap(), later, ip("10.0.0.1")));
    }

    #[test]
    fn a_flood_of_clients_refuses_no_quiet_one_and_frees_no_busy_one() {
        let rate = Rate::new(1, Per::Minute, 3).unwrap();
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        let (busy, mut freed) = (ip("10.0.0.1"), 0);
        for n in 0..300_000_u32 {
            assert!(limiter.admits(rate, now, IpAddr::from((0x0b00_0000 + n).to_be_bytes())));
            freed += u32::from(limiter.admits(rate, now, busy));
        }
        assert_eq!(freed, 3);
        for n in 0..100 {
            assert!(limiter.admits(rate, now, ip(&format!("10.0.1.{n}"))));
        }
    }
}
