//! A day full of faults.
//!
//! Each seed has its own taste: it breaks a few kinds of things often rather than all kinds a
//! little, because faults find bugs in company (swarm testing, Groce et al. 2012).

use crate::fault::{Fault, Schedule};
use crate::network::Weather;
use crate::random::Random;
use crate::scenario;
use buoy_model::Fitness;
use core::ops::Range;
use core::time::Duration;

const MS: u64 = 1_000_000;

/// What a seed likes to break.
const KINDS: usize = 20;

/// What there is to break, and how fast.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    pub(crate) hosts: usize,
    pub(crate) legs: usize,
    pub(crate) groups: usize,
    /// Parts per million by which a clock may be wrong.
    pub(crate) drift_max: i64,
    /// How long a beat of this cluster is, compared with the usual one: its days pass as slowly.
    pub(crate) pace: u64,
    /// Between two faults, on average and before `pace`.
    pub(crate) every: u64,
}

/// Faults between two moments, each with its repair where it has one (maybe after the end).
pub(crate) fn schedule(random: &mut Random, ground: &Ground, span: Range<u64>) -> Schedule {
    let mut taste: [u64; KINDS] = core::array::from_fn(|_| random.pick(&[0, 0, 1, 1, 4]));
    if random.permille(500) {
        // A voter that has just started is silent for long: where nobody dies, more happens.
        taste[..3].fill(0);
    }
    // What needs company is rare if left to chance.
    taste[3..=5].iter_mut().for_each(|weight| *weight *= 2);
    taste[13] = random.pick(&[0, 2, 6]);
    let mut day = Day { random, ground, faults: Schedule::new() };
    let mut at = span.start;
    while at < span.end {
        day.one(&taste, at);
        at += day.random.within(MS..2 * ground.every * ground.pace);
    }
    let mut faults = day.faults;
    // Stable, so that faults of one moment keep their order.
    faults.sort_by_key(|(at, _)| *at);
    faults
}

struct Day<'a> {
    random: &'a mut Random,
    ground: &'a Ground,
    faults: Schedule,
}

impl Day<'_> {
    fn one(&mut self, taste: &[u64; KINDS], at: u64) {
        let host = self.random.index(self.ground.hosts);
        let group = self.random.index(self.ground.groups);
        let all = (1 << self.ground.hosts) - 1;
        let repair = at + self.time(20 * MS, 4_000 * MS);
        match weighted(self.random, taste) {
            0 => self.then(at, Fault::CrashAgent { host }, repair, Fault::Start { host }),
            1 => self.then(at, Fault::CrashHost { host }, repair, Fault::Start { host }),
            2 => self.then(at, Fault::Stop { host }, repair, Fault::Start { host }),
            3 => {
                let time = Duration::from_nanos(self.time(MS, 5_000 * MS));
                let alone = self.random.permille(500);
                self.faults.push((at, Fault::Freeze { host, time, alone }));
            }
            4 => {
                // One host, or any split, cut off in both directions.
                let one = self.random.permille(400);
                let side = if one { 1 << host } else { self.random.within(1..all + 1) };
                self.apart(side, all & !side, at..repair);
            }
            5 => {
                let (from, to) = self.one_way(host, all);
                self.then(at, Fault::Cut { from, to }, repair, Fault::Mend { from, to });
            }
            6 => {
                let weather = [Weather::CALM, Weather::BUSY, Weather::BAD, Weather::FAR];
                let next = self.random.index(weather.len());
                self.faults.push((at, Fault::Weather(weather[next].clone())));
            }
            7 => {
                let (down, up) = (false, true);
                let repaired = Fault::Carrier { host, up };
                self.then(at, Fault::Carrier { host, up: down }, repair, repaired);
            }
            8 => self.drain(host, at, repair),
            9 => self.faults.push((at, Fault::Delete { host, group })),
            10 => self.faults.push((at, Fault::Claim { host, group })),
            11 => self.reload(at),
            12 => {
                let ppm = self.random.drift(self.ground.drift_max);
                self.faults.push((at, Fault::Drift { host, ppm }));
                let count = 1 + self.random.index(50);
                self.faults.push((repair, Fault::Replay { count }));
            }
            13 => self.feud(at),
            14 => {
                let time = Duration::from_nanos(self.time(20 * MS, 10_000 * MS));
                self.faults.push((at, Fault::Suspend { host, time }));
            }
            15 => self.leg(host, all, at, repair),
            16 => self.faults.push((at, Fault::Move { group, to: host })),
            17 => {
                let time = self.random.permille(500);
                let time = time.then(|| Duration::from_nanos(self.time(20 * MS, 2_000 * MS)));
                self.then(at, Fault::Hold { group, time }, repair, Fault::Release { group });
            }
            18 => self.unfit(host, group, at, repair),
            _ => self.flicker(host, all, at),
        }
    }

    fn then(&mut self, at: u64, fault: Fault, repair: u64, repaired: Fault) {
        self.faults.extend([(at, fault), (repair, repaired)]);
    }

    /// A time between these, on the scale of the cluster's beats; short ones as often as long ones.
    fn time(&mut self, min: u64, max: u64) -> u64 {
        let pace = self.ground.pace;
        logarithmic(self.random, min, max * pace)
    }

    fn one_way(&mut self, host: usize, all: u64) -> (u64, u64) {
        let (from, to) = (1 << host, self.random.within(1..all + 1));
        if self.random.permille(500) { (from, to) } else { (to, from) }
    }

    /// Out of service, or as it is and no more.
    fn drain(&mut self, host: usize, at: u64, repair: u64) {
        let (on, off) = (true, false);
        match self.random.within(0..10) {
            0..3 => {
                let time = Duration::from_nanos(repair - at);
                self.faults.push((at, Fault::DrainFor { host, time }));
            }
            3..6 => {
                let back = Fault::Cordon { host, on: off };
                self.then(at, Fault::Cordon { host, on }, repair, back);
            }
            _ => self.then(at, Fault::Drain { host, on }, repair, Fault::Drain { host, on: off }),
        }
    }

    fn unfit(&mut self, host: usize, group: usize, at: u64, repair: u64) {
        let fitness = match self.random.index(3) {
            0 => Fitness::CheckFails { check: "simulated".into() },
            1 => Fitness::NoBackend,
            _ => Fitness::Unchecked,
        };
        let well = Fault::Unfit { host, group, fitness: Fitness::Fit };
        self.then(at, Fault::Unfit { host, group, fitness }, repair, well);
    }

    /// One network of one host fails, whole or in one direction.
    fn leg(&mut self, host: usize, all: u64, at: u64, repair: u64) {
        let leg = self.random.index(self.ground.legs);
        let paths = if self.random.permille(500) {
            vec![(1 << host, all), (all, 1 << host)]
        } else {
            vec![self.one_way(host, all)]
        };
        for (from, to) in paths {
            let (cut, mend) = (Fault::CutLeg { leg, from, to }, Fault::MendLeg { leg, from, to });
            self.then(at, cut, repair, mend);
        }
    }

    /// A link that comes and goes some times in a row.
    fn flicker(&mut self, host: usize, all: u64, mut at: u64) {
        let carrier = self.random.permille(500);
        for _ in 0..self.random.within(2..8) {
            let (down, pause) = (self.time(5 * MS, 300 * MS), self.time(5 * MS, 300 * MS));
            if carrier {
                let up = Fault::Carrier { host, up: true };
                self.then(at, Fault::Carrier { host, up: false }, at + down, up);
            } else {
                self.apart(1 << host, all & !(1 << host), at..at + down);
            }
            at += down + pause;
        }
    }

    /// The file reaches each host when it does, and some never.
    fn reload(&mut self, at: u64) {
        let groups = self.random.within(0..1 << self.ground.groups.min(63));
        let timing = self.random.permille(150) && self.ground.pace == 1;
        let timing = timing.then(|| scenario::timing(self.random));
        for host in 0..self.ground.hosts {
            let at = at + self.random.within(0..500 * MS);
            if self.random.permille(800) {
                self.faults.push((at, Fault::Reload { host, groups, timing }));
            }
        }
    }

    /// Nothing gets from one side to the other, nor back.
    fn apart(&mut self, side: u64, other: u64, time: Range<u64>) {
        for (from, to) in [(side, other), (other, side)] {
            self.then(time.start, Fault::Cut { from, to }, time.end, Fault::Mend { from, to });
        }
    }

    /// Two hosts that do not hear each other want the same things, and those whose votes they need have
    /// troubles of their own: this is where a promise that is broken shows.
    fn feud(&mut self, at: u64) {
        let (hosts, pace) = (self.ground.hosts, self.ground.pace);
        let owner = self.random.index(hosts);
        let rival = (owner + 1 + self.random.index(hosts - 1)) % hosts;
        let end = at + self.random.within(500 * MS..3_000 * MS) * pace;
        self.apart(1 << owner, 1 << rival, at..end);
        for _ in 0..self.random.within(2..9) {
            let at = self.random.within(at..end);
            let host = self.random.index(hosts);
            let soon = at + self.time(MS, 300 * MS);
            match self.random.index(6) {
                0 => {
                    let start = at + self.random.within(MS..40 * MS);
                    self.then(at, Fault::CrashAgent { host }, start, Fault::Start { host });
                }
                1 => {
                    let time = Duration::from_nanos(soon - at);
                    self.faults.push((at, Fault::Freeze { host: owner, time, alone: false }));
                }
                2 => self.faults.push((at, Fault::Replay { count: 20 })),
                3 => {
                    let (from, to) = (1 << owner, u64::MAX);
                    self.then(at, Fault::Cut { from, to }, soon, Fault::Mend { from, to });
                }
                4 => {
                    let group = self.random.index(self.ground.groups);
                    self.faults.push((at, Fault::Move { group, to: rival }));
                }
                _ => {
                    let calm = Fault::Weather(Weather::CALM);
                    self.then(at, Fault::Weather(Weather::FAR), soon, calm);
                }
            }
        }
    }
}

fn weighted(random: &mut Random, weights: &[u64; KINDS]) -> usize {
    let sum: u64 = weights.iter().sum();
    if sum == 0 {
        return random.index(KINDS);
    }
    let mut left = random.within(0..sum);
    weights
        .iter()
        .position(|w| {
            let here = left < *w;
            left = left.saturating_sub(*w);
            here
        })
        .unwrap_or_default()
}

/// Short ones as often as long ones, whatever the unit.
fn logarithmic(random: &mut Random, min: u64, max: u64) -> u64 {
    let doublings = (max / min).ilog2() + 1;
    let scale = min << random.within(0..doublings.into());
    random.within(scale..2 * scale).min(max)
}
