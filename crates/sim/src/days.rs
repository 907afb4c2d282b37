//! Days that are about one thing: a link or a peer that comes and goes, a node that leaves a pool and
//! comes back; and days that last for hours.

use crate::fault::Fault;
use crate::ledger::Watch;
use crate::network::Weather;
use crate::random::Random;
use crate::scenario::{LINK, OTHER_LINK, Scenario};
use buoy_model::limits::LEASE_MAX;
use buoy_model::{Failback, Safety, Timing};
use std::time::Duration;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Long enough after the start for everything to be where it belongs.
const SETTLED: u64 = 9 * SECOND;

/// What toggles.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Toggle {
    Link,
    Peer,
}

/// A link, or a whole host's network, goes and comes every second for a minute.
pub(crate) fn toggling(seed: u64) -> Scenario {
    let mut random = Random::new(seed);
    let hosts = random.pick(&[2, 3, 3, 4]);
    let groups = random.within(1..4) as usize;
    let mut scenario = Scenario::quiet(seed, hosts, groups);
    scenario.timing.lease_max = Duration::from_millis(300);
    scenario.legs =
        random.pick(&[0, 1]).eq(&0).then(|| vec![OTHER_LINK]).unwrap_or(vec![OTHER_LINK, LINK]);
    let toggle = random.pick(&[Toggle::Link, Toggle::Link, Toggle::Peer]);
    let exclusive = hosts > 2 && toggle == Toggle::Peer;
    let failback = random.pick(&[
        Failback::After(Duration::ZERO),
        Failback::After(Duration::from_millis(500)),
        Failback::Never,
    ]);
    for group in &mut scenario.groups {
        group.prefer = vec![scenario.hosts[0].id];
        // Only links are damped; a peer that is gone for good half of the time comes back as often
        // as it is told to.
        group.failback = if toggle == Toggle::Link { failback } else { Failback::Never };
        group.safety = if exclusive { Safety::Exclusive } else { group.safety };
    }
    let down = random.within(100..900) * MS;
    let all = (1 << hosts) - 2;
    for second in 0..60 {
        let at = SETTLED + second * SECOND;
        let (end, host) = (at + down, 0);
        match toggle {
            Toggle::Link => scenario.faults.extend([
                (at, Fault::Carrier { host, up: false }),
                (end, Fault::Carrier { host, up: true }),
            ]),
            Toggle::Peer => scenario.faults.extend([
                (at, Fault::Cut { from: 1, to: all }),
                (at, Fault::Cut { from: all, to: 1 }),
                (end, Fault::Mend { from: 1, to: all }),
                (end, Fault::Mend { from: all, to: 1 }),
            ]),
        }
    }
    scenario.calm_at = SETTLED + 60 * SECOND;
    // Two hosts that do not hear each other may both serve an available group, each time.
    let each = if toggle == Toggle::Peer && !exclusive { 200 } else { 2 };
    scenario.watches.push(Watch {
        span: SETTLED..scenario.calm_at,
        each,
        all: u32::MAX,
        from: None,
        to: None,
        about: None,
        aloof: None,
        spread: vec![],
    });
    scenario
}

/// A node leaves a pool, planned or not, and comes back.
pub(crate) fn tide(seed: u64) -> Scenario {
    let mut random = Random::new(seed);
    let hosts = random.pick(&[3, 3, 4, 5]);
    let groups = random.within(4..30) as usize;
    let mut scenario = Scenario::quiet(seed, hosts, groups);
    scenario.timing.lease_max = Duration::from_millis(300);
    let back = random.permille(600);
    for group in &mut scenario.groups {
        group.failback = if back { Failback::After(Duration::ZERO) } else { Failback::Never };
    }
    for host in &mut scenario.hosts {
        host.supervised = random.permille(500);
    }
    let host = random.index(hosts);
    let (gone, comes) = match random.index(4) {
        0 => (Fault::CrashAgent { host }, Fault::Start { host }),
        1 => (Fault::CrashHost { host }, Fault::Start { host }),
        2 => (Fault::Stop { host }, Fault::Start { host }),
        _ => (Fault::Drain { host, on: true }, Fault::Drain { host, on: false }),
    };
    let (gone_at, comes_at) = (SETTLED, SETTLED + 6 * SECOND);
    scenario.calm_at = comes_at + 10 * SECOND;
    // What a supervisor buries may be started anew at once, and then gets its share back earlier.
    let may_return = matches!(gone, Fault::CrashAgent { .. }) && scenario.hosts[host].supervised;
    scenario.faults = vec![(gone_at, gone), (comes_at, comes)];
    let all: Vec<_> = (0..hosts).collect();
    let others: Vec<_> = all.iter().copied().filter(|other| *other != host).collect();
    let any = Watch {
        span: 0..0,
        each: 1,
        all: u32::MAX,
        from: None,
        to: None,
        about: None,
        aloof: None,
        spread: vec![],
    };
    // Until it comes back only what it had moves; then it gets its share back, or nothing.
    let share = groups.div_ceil(hosts) as u32;
    scenario.watches = vec![
        Watch { span: SECOND * 6..gone_at, each: 0, spread: all.clone(), ..any.clone() },
        if may_return {
            Watch { span: gone_at..comes_at, each: 2, about: Some(host), ..any.clone() }
        } else {
            Watch { span: gone_at..comes_at, from: Some(host), spread: others, ..any.clone() }
        },
        Watch {
            span: comes_at..scenario.calm_at,
            all: if back { share } else { 0 },
            to: Some(host),
            spread: if back { all } else { vec![] },
            ..any
        },
    ];
    scenario
}

/// A node of a pool is cordoned; another leaves, planned or not, and comes back. In the end the cordoned one may be
/// the only one that is not drained.
pub(crate) fn cordon(seed: u64) -> Scenario {
    let mut random = Random::new(seed);
    let hosts = random.pick(&[3, 4, 4, 5]);
    let groups = random.within(4..30) as usize;
    let mut scenario = Scenario::quiet(seed, hosts, groups);
    scenario.timing.lease_max = Duration::from_millis(300);
    let back = random.permille(600);
    for group in &mut scenario.groups {
        group.failback = if back { Failback::After(Duration::ZERO) } else { Failback::Never };
    }
    let cordoned = random.index(hosts);
    let host = (cordoned + 1 + random.index(hosts - 1)) % hosts;
    let (gone, comes) = match random.index(3) {
        0 => (Fault::CrashHost { host }, Fault::Start { host }),
        1 => (Fault::Stop { host }, Fault::Start { host }),
        _ => (Fault::Drain { host, on: true }, Fault::Drain { host, on: false }),
    };
    let (from, gone_at, comes_at) = (SETTLED, SETTLED + 2 * SECOND, SETTLED + 8 * SECOND);
    let end = comes_at + 10 * SECOND;
    scenario.calm_at = end;
    scenario.faults = vec![
        (from, Fault::Cordon { host: cordoned, on: true }),
        (gone_at, gone),
        (comes_at, comes),
    ];
    let others: Vec<_> = (0..hosts).filter(|other| *other != cordoned).collect();
    let left = others.iter().copied().filter(|other| *other != host).collect();
    let any = Watch {
        span: from..end,
        each: u32::MAX,
        all: u32::MAX,
        from: None,
        to: None,
        about: None,
        aloof: Some(cordoned),
        spread: vec![],
    };
    scenario.watches = vec![
        Watch { span: from..gone_at, each: 0, ..any.clone() },
        Watch { span: gone_at..comes_at, from: Some(host), spread: left, ..any.clone() },
        Watch { spread: if back { others.clone() } else { vec![] }, ..any },
    ];
    scenario.cordoned = vec![cordoned];
    if random.permille(300) {
        // Nobody else is left: what is served moves to the cordoned one rather than nowhere.
        scenario.drained = others;
    }
    scenario
}

/// How fast the nodes of a long day beat.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    /// 10 ms, terms of 36 to 300 ms.
    Fast,
    /// 50 to 100 ms, terms of 250 to 1000 ms.
    Middle,
    /// 400 to 700 ms, terms of 1.6 to 2.5 s.
    Slow,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Middle, Self::Slow];

    /// What it is called in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast (10 ms, terms of 36..300 ms)",
            Self::Middle => "middle (50..100 ms, terms of 250..1000 ms)",
            Self::Slow => "slow (400..700 ms, terms of 1.6..2.5 s)",
        }
    }

    /// The profile of a seed: of four long days, two are slow.
    pub const fn of_seed(seed: u64) -> Self {
        match seed % 4 {
            0 => Self::Fast,
            1 => Self::Middle,
            _ => Self::Slow,
        }
    }

    fn timing(self, random: &mut Random) -> Timing {
        let (heartbeat, lease, lease_max) = match self {
            Self::Fast => (10, random.pick(&[36, 50, 100]), 300),
            Self::Middle => random.pick(&[(50, 250, 250), (50, 250, 1_000), (100, 400, 1_000)]),
            Self::Slow => random.pick(&[
                (400, 1_600, 2_500),
                (700, 2_500, 2_500),
                (700, 2_500, 2_500),
                (700, 2_500, 2_500),
            ]),
        };
        Timing {
            heartbeat: Duration::from_millis(heartbeat),
            lease: Duration::from_millis(lease),
            lease_max: Duration::from_millis(lease_max),
        }
    }
}

impl Scenario {
    /// A day of minutes to hours, with everything that a short one has, at the pace of its beats.
    pub fn long(seed: u64) -> Self {
        let profile = Profile::of_seed(seed);
        let mut random = Random::new(seed ^ 0x00da_ca1d_a75e_ed00);
        let hosts = match profile {
            Profile::Fast | Profile::Middle => random.pick(&[2, 3, 3, 3, 4, 5, 5, 7]),
            Profile::Slow => random.pick(&[2, 2, 2, 3, 3, 3, 3, 3, 3, 4]),
        };
        let groups = random.pick(&[1, 1, 1, 2, 2, 4]);
        let mut scenario = Self::quiet(seed, hosts, groups);
        scenario.timing = profile.timing(&mut random);
        let drift = scenario.furnish(&mut random, false);
        if random.permille(500) {
            // The second leg doubles the cost of an hour.
            scenario.legs.truncate(1);
        }
        let (pace, length) = match profile {
            Profile::Fast => (1, random.within(60..300)),
            Profile::Middle => (5, random.within(600..1_800)),
            Profile::Slow => (25, random.within(30 * 3_600..90 * 3_600)),
        };
        let start = LEASE_MAX.as_nanos() as u64 + SECOND;
        scenario.calm_at = start + length * SECOND;
        let every = random.pick(&[150, 400, 1_000, 2_000]) * MS;
        scenario.fill(&mut random, drift, pace, every, start);
        if profile == Profile::Slow {
            // Of the long days one in ten is sealed; all the others are.
            scenario.sealed = random.permille(100);
            if scenario.weather == Weather::BAD && random.permille(500) {
                scenario.weather = Weather::CALM;
            }
        }
        scenario
    }
}
