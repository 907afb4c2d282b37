//! What becomes of a datagram between two hosts: lost, late, twice, cut off, or again much later.

use crate::random::Random;
use core::ops::Range;

/// Recordings kept for replay.
const RECORDINGS_MAX: usize = 512;
/// Datagrams recorded, of a thousand that say what the next ones say, too.
pub(crate) const ORDINARY: u64 = 20;
/// Goodbyes recorded, of a thousand: whoever listens keeps what is seldom said.
pub(crate) const RARE: u64 = 1_000;

/// How the network behaves when it is not cut.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Weather {
    /// Datagrams lost, of a thousand.
    pub loss: u64,
    /// Datagrams delivered twice, of a thousand.
    pub twice: u64,
    /// Datagrams delayed by `tail` instead of `delay`, of a thousand.
    pub late: u64,
    /// Usual delay in nanoseconds. A wide range reorders.
    pub delay: Range<u64>,
    /// Unusual delay in nanoseconds.
    pub tail: Range<u64>,
}

impl Weather {
    /// One switch, nothing else going on.
    pub const CALM: Self =
        Self { loss: 0, twice: 0, late: 0, delay: 50_000..300_000, tail: 300_000..300_001 };
    /// Busy: now and then something is late or lost.
    pub const BUSY: Self =
        Self { loss: 5, twice: 2, late: 20, delay: 50_000..2_000_000, tail: 2_000_000..30_000_000 };
    /// Bad: much is lost, late, doubled and out of order.
    pub const BAD: Self = Self {
        loss: 120,
        twice: 30,
        late: 100,
        delay: 50_000..5_000_000,
        tail: 5_000_000..80_000_000,
    };
    /// Far: every answer takes longer than a heartbeat.
    pub const FAR: Self = Self {
        loss: 10,
        twice: 5,
        late: 20,
        delay: 8_000_000..14_000_000,
        tail: 14_000_000..60_000_000,
    };
}

/// The networks between all hosts, one for each leg.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    random: Random,
    pub(crate) weather: Weather,
    hosts: usize,
    legs: usize,
    /// How many faults cut each directed pair on each leg at the moment.
    cuts: Vec<u32>,
    recordings: Vec<Recording>,
}

/// A datagram of the past: to which host, on which leg.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recording {
    pub(crate) to: u8,
    pub(crate) leg: u8,
    pub(crate) datagram: u32,
}

/// From where to where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) leg: usize,
}

/// All legs.
pub(crate) const EVERY_LEG: u64 = u64::MAX;

impl Network {
    pub(crate) fn new(hosts: usize, legs: usize, weather: Weather, random: Random) -> Self {
        let cuts = vec![0; legs * hosts * hosts];
        Self { random, weather, hosts, legs, cuts, recordings: Vec::new() }
    }

    /// Cuts every path from one set of hosts to another on these legs, or takes one such cut back.
    pub(crate) fn cut(&mut self, legs: u64, from: u64, to: u64, heal: bool) {
        for leg in (0..self.legs).filter(|leg| legs & 1 << leg != 0) {
            for a in 0..self.hosts {
                for b in 0..self.hosts {
                    if from & 1 << a != 0 && to & 1 << b != 0 && a != b {
                        let at = self.at(Path { from: a, to: b, leg });
                        let cuts = &mut self.cuts[at];
                        *cuts = if heal { cuts.saturating_sub(1) } else { *cuts + 1 };
                    }
                }
            }
        }
    }

    const fn at(&self, path: Path) -> usize {
        (path.leg * self.hosts + path.from) * self.hosts + path.to
    }

    /// Takes every cut back and lets the weather calm down.
    pub(crate) fn heal(&mut self) {
        self.cuts.fill(0);
        self.weather = Weather::CALM;
    }

    /// How long each copy of a datagram takes; none: it is lost.
    pub(crate) fn carry(&mut self, path: Path) -> [Option<u64>; 2] {
        if self.cuts[self.at(path)] > 0 || self.random.permille(self.weather.loss) {
            return [None, None];
        }
        let again = self.random.permille(self.weather.twice);
        [Some(self.delay()), again.then(|| self.delay())]
    }

    fn delay(&mut self) -> u64 {
        let late = self.random.permille(self.weather.late);
        let range = if late { &self.weather.tail } else { &self.weather.delay };
        self.random.within(range.clone())
    }

    /// Keeps so many datagrams of a thousand; answers what to forget instead, and whether it was kept.
    pub(crate) fn record(
        &mut self,
        recording: Recording,
        permille: u64,
    ) -> (bool, Option<Recording>) {
        if !self.random.permille(permille) {
            return (false, None);
        }
        if self.recordings.len() < RECORDINGS_MAX {
            self.recordings.push(recording);
            return (true, None);
        }
        let at = self.random.index(RECORDINGS_MAX);
        (true, Some(std::mem::replace(&mut self.recordings[at], recording)))
    }

    /// A datagram of the past.
    pub(crate) fn replay(&mut self) -> Option<Recording> {
        if self.recordings.is_empty() {
            return None;
        }
        let at = self.random.index(self.recordings.len());
        Some(self.recordings[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrives(network: &mut Network, from: usize, to: usize, leg: usize) -> bool {
        network.carry(Path { from, to, leg })[0].is_some()
    }

    #[test]
    fn a_cut_has_a_direction_and_two_cuts_need_two_heals() {
        let mut network = Network::new(3, 1, Weather::CALM, Random::new(1));
        network.cut(EVERY_LEG, 0b001, 0b110, false);
        network.cut(EVERY_LEG, 0b001, 0b010, false);
        assert!(!arrives(&mut network, 0, 1, 0));
        assert!(!arrives(&mut network, 0, 2, 0));
        assert!(arrives(&mut network, 1, 0, 0));
        network.cut(EVERY_LEG, 0b001, 0b110, true);
        assert!(!arrives(&mut network, 0, 1, 0));
        assert!(arrives(&mut network, 0, 2, 0));
        network.heal();
        assert!(arrives(&mut network, 0, 1, 0));
    }

    #[test]
    fn a_cut_of_one_leg_leaves_the_other() {
        let mut network = Network::new(2, 2, Weather::CALM, Random::new(1));
        network.cut(0b10, 0b01, 0b10, false);
        assert!(arrives(&mut network, 0, 1, 0));
        assert!(!arrives(&mut network, 0, 1, 1));
        assert!(arrives(&mut network, 1, 0, 1));
    }

    #[test]
    fn weather_does_what_it_says() {
        let mut network = Network::new(2, 1, Weather::BAD, Random::new(1));
        let path = Path { from: 0, to: 1, leg: 0 };
        let carried: Vec<_> = (0..10_000).map(|_| network.carry(path)).collect();
        let count = |n: fn(&[Option<u64>; 2]) -> bool| carried.iter().filter(|c| n(c)).count();
        assert!((1_000..1_400).contains(&count(|c| c[0].is_none())));
        assert!((200..400).contains(&count(|c| c[1].is_some())));
        assert!((800..1_200).contains(&count(|c| c[0].is_some_and(|d| d > 5_000_000))));
    }

    #[test]
    fn what_is_recorded_can_be_replayed() {
        let mut network = Network::new(2, 1, Weather::CALM, Random::new(1));
        assert!(network.replay().is_none());
        let kept = (0..5_000).filter(|i| {
            let (kept, forgotten) =
                network.record(Recording { to: 1, leg: 0, datagram: *i }, ORDINARY);
            assert!(forgotten.is_none());
            kept
        });
        assert!((50..200).contains(&kept.count()));
        assert!(network.replay().is_some());
    }
}
