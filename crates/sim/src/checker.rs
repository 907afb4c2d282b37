//! Judges a run by who answers for which address, as a neighbour on the segment would see it.

use crate::host::Host;
use crate::scenario::Scenario;
use buoy_model::limits::{
    DRIFT_DIVISOR, LEASE_MAX, LEASE_WITHOUT_GATE, PASSED_OVER_AFTER, SILENT_HEARTBEATS,
};
use buoy_model::{Group, NodeId, Safety};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// How long after the last fault every group has its one owner: a voter that has just started is
/// silent for the longest term, a promise to the dead may have been made for a term without gate, two
/// that ask at once step back for up to three of those, and who asks in vain is passed over.
pub const CONVERGENCE: Duration = LEASE_MAX
    .saturating_add(Duration::from_millis(LEASE_MAX.as_millis() as u64 / DRIFT_DIVISOR as u64))
    .saturating_add(PASSED_OVER_AFTER)
    .saturating_add(LEASE_WITHOUT_GATE)
    .saturating_add(Duration::from_millis(
        3 * LEASE_WITHOUT_GATE.as_millis() as u64 + 50 * SILENT_HEARTBEATS as u64,
    ));

/// A better node that was named and did not come forward is named again after so long.
const NAMED_AGAIN: Duration = Duration::from_secs(12);

/// How long after the last fault an owner may still change for a good reason: the voters' silence is
/// over, everybody who asks in vain is passed over, who did not come forward was named again, and the
/// slowest failback of a scenario is done.
pub(crate) const RESTLESS: Duration = LEASE_MAX
    .saturating_add(NAMED_AGAIN)
    .saturating_add(Duration::from_millis(LEASE_MAX.as_millis() as u64 / DRIFT_DIVISOR as u64))
    .saturating_add(PASSED_OVER_AFTER)
    .saturating_add(Duration::from_secs(1));

/// How long a settled cluster is watched at least.
pub(crate) const STABLE: Duration = Duration::from_millis(1_500);

/// A promise that was broken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Violation {
    /// Two hosts answered for an address of an exclusive group.
    TwoOwners {
        /// When, in nanoseconds of true time.
        at: u64,
        /// Which address.
        address: IpAddr,
        /// Which hosts.
        hosts: [usize; 2],
    },
    /// A group has not the owner that it should have, so long after the last fault.
    NotConverged {
        /// The group's name.
        group: String,
        /// Who answers for its addresses.
        answering: Vec<usize>,
        /// Who should, one of these.
        expected: Vec<usize>,
    },
    /// A group lost or changed its owner though nothing was broken any more.
    Unstable {
        /// When, in nanoseconds of true time.
        at: u64,
    },
    /// A group changed hands more often than it may.
    Flaps {
        /// When, in nanoseconds of true time.
        at: u64,
        /// Which group, by its place.
        group: usize,
        /// How often it did.
        changes: u32,
    },
    /// A group moved that need not have, or to a host that should not have got it.
    NeedlessMove {
        /// When, in nanoseconds of true time.
        at: u64,
        /// Which group, by its place.
        group: usize,
        /// Who had it.
        from: Option<usize>,
        /// Who has it.
        to: usize,
    },
    /// Groups that can be anywhere are spread unevenly.
    Uneven {
        /// When, in nanoseconds of true time.
        at: u64,
        /// How many each host has.
        loads: Vec<usize>,
    },
    /// What a node says of its decision is not its decision.
    Untrue {
        /// When, in nanoseconds of true time.
        at: u64,
        /// Which host.
        host: usize,
        /// What does not agree.
        contradiction: String,
    },
    /// A machine asks to be woken at a moment that is over.
    Spins {
        /// When, in nanoseconds of true time.
        at: u64,
        /// Which host.
        host: usize,
    },
    /// A machine's own assertion failed; its words are on the standard error.
    Panicked,
    /// A datagram that nobody tampered with was not understood.
    Misunderstood {
        /// When, in nanoseconds of true time.
        at: u64,
        /// Which host.
        host: usize,
        /// Why.
        reject: buoy_wire::Reject,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |at: &u64| *at as f64 / 1e6;
        match self {
            Self::TwoOwners { at, address, hosts: [a, b] } => {
                write!(f, "single_owner: n{a} and n{b} both answer for {address} at {} ms", ms(at))
            }
            Self::NotConverged { group, answering, expected } => write!(
                f,
                "convergence: {group} is answered for by {answering:?}, should be one of \
                 {expected:?} within {CONVERGENCE:?}"
            ),
            Self::Unstable { at } => {
                write!(f, "stability: an owner changed in calm weather before {} ms", ms(at))
            }
            Self::Flaps { at, group, changes } => {
                write!(
                    f,
                    "no_flap: group {group} changes hands too often ({changes}) at {} ms",
                    ms(at)
                )
            }
            Self::NeedlessMove { at, group, from, to } => write!(
                f,
                "minimal_moves: group {group} moves from {from:?} to n{to} at {} ms, and need not",
                ms(at)
            ),
            Self::Uneven { at, loads } => {
                write!(f, "minimal_moves: uneven spread {loads:?} at {} ms", ms(at))
            }
            Self::Untrue { at, host, contradiction } => {
                write!(f, "why_is_true: n{host} at {} ms: {contradiction}", ms(at))
            }
            Self::Spins { at, host } => {
                write!(f, "progress: n{host} asks for a deadline of the past at {} ms", ms(at))
            }
            Self::Panicked => write!(f, "an assertion of a machine failed"),
            Self::Misunderstood { at, host, reject } => {
                write!(f, "codec: n{host} rejects a sound datagram ({reject}) at {} ms", ms(at))
            }
        }
    }
}

/// A group that has not the owner it should have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Unsettled {
    group: String,
    answering: Vec<usize>,
    expected: Vec<usize>,
}

impl From<Unsettled> for Violation {
    fn from(Unsettled { group, answering, expected }: Unsettled) -> Self {
        Self::NotConverged { group, answering, expected }
    }
}

/// How things stand on a host, for what may be expected of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fitness {
    pub(crate) running: bool,
    pub(crate) draining: bool,
    pub(crate) carrier: bool,
    /// It hears nobody where the VIPs are, and others do.
    pub(crate) unheard: bool,
}

/// `single_owner`: the first other host that answers for an address which this host now answers for.
pub(crate) fn second_owner(hosts: &[Host], host: usize, now: u64, address: usize) -> Option<usize> {
    if !hosts[host].answers(now, address) {
        return None;
    }
    (0..hosts.len()).find(|other| *other != host && hosts[*other].answers(now, address))
}

/// `convergence`: the first group that has not the owner it should have.
pub(crate) fn unsettled(
    scenario: &Scenario,
    hosts: &[Host],
    fitness: &[Fitness],
    now: u64,
) -> Option<Unsettled> {
    (0..scenario.groups.len()).find_map(|i| {
        let expected = expected(scenario, &scenario.groups[i], fitness);
        let places: Vec<_> = scenario.places(i).into_iter().map(|(_, _, place)| place).collect();
        let any = |host: &usize| places.iter().any(|place| hosts[*host].answers(now, *place));
        let all = |host: usize| places.iter().all(|place| hosts[host].answers(now, *place));
        let answering: Vec<_> = (0..hosts.len()).filter(any).collect();
        let sole = match answering[..] {
            [host] => all(host).then_some(host),
            _ => None,
        };
        let settled = match &expected {
            Expected::OneOf(able) => sole.is_some_and(|host| able.contains(&host)),
            Expected::NoneOr(able) => {
                sole.is_some_and(|host| able.contains(&host)) || answering.is_empty()
            }
        };
        let (Expected::OneOf(able) | Expected::NoneOr(able)) = expected;
        let group = scenario.groups[i].name.clone();
        (!settled).then_some(Unsettled { group, answering, expected: able })
    })
}

enum Expected {
    OneOf(Vec<usize>),
    /// Nobody is fit; those who have it may keep it.
    NoneOr(Vec<usize>),
}

fn expected(scenario: &Scenario, group: &Group, fitness: &[Fitness]) -> Expected {
    let running = fitness.iter().filter(|f| f.running).count();
    if group.safety == Safety::Exclusive && running < fitness.len() / 2 + 1 {
        return Expected::NoneOr(Vec::new());
    }
    let may = |id: NodeId| group.nodes.binary_search(&id).is_ok();
    let able = (0..fitness.len())
        .filter(|i| fitness[*i].running && fitness[*i].carrier && may(scenario.hosts[*i].id));
    let (drained, fit): (Vec<_>, Vec<_>) = able.partition(|i| fitness[*i].draining);
    if fit.is_empty() {
        return Expected::NoneOr(drained);
    }
    let heard: Vec<_> = fit.iter().copied().filter(|i| !fitness[*i].unheard).collect();
    Expected::OneOf(if heard.is_empty() { fit } else { heard })
}

/// How many groups each host answers for.
pub(crate) fn loads(scenario: &Scenario, hosts: &[Host], now: u64) -> Vec<usize> {
    let mut loads = vec![0; hosts.len()];
    for group in 0..scenario.groups.len() {
        let places = scenario.places(group);
        for (load, host) in loads.iter_mut().zip(hosts) {
            *load += usize::from(places.iter().any(|(_, _, place)| host.answers(now, *place)));
        }
    }
    loads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::scenario::LINK;
    use buoy_core::Fence;
    use buoy_model::Instant;

    const FIT: Fitness = Fitness { running: true, draining: false, carrier: true, unheard: false };

    fn bench() -> (Scenario, Vec<Host>) {
        let mut scenario = Scenario::quiet(1, 3, 1);
        scenario.addresses = vec![scenario.groups[0].addresses[0].cidr.address()];
        let hosts = (0..3).map(|_| Host::new(Clock::new(0, 0, 0), Fence::Gate, 1)).collect();
        (scenario, hosts)
    }

    fn give(host: &mut Host) {
        host.add(0, LINK, 0, 2, Duration::ZERO);
        host.set_gate(0, Instant::from_nanos(1_000), None);
    }

    #[test]
    fn two_that_answer_are_seen_and_one_after_the_other_is_not() {
        let (_, mut hosts) = bench();
        give(&mut hosts[0]);
        assert_eq!(second_owner(&hosts, 0, 999, 0), None);
        give(&mut hosts[2]);
        assert_eq!(second_owner(&hosts, 2, 999, 0), Some(0));
        hosts[0].set_gate(0, Instant::ZERO, None);
        assert_eq!(second_owner(&hosts, 2, 999, 0), None);
    }

    #[test]
    fn convergence_wants_one_owner_that_is_fit() {
        let (scenario, mut hosts) = bench();
        let drained = Fitness { draining: true, ..FIT };
        let dead = Fitness { running: false, ..FIT };
        let unheard = Fitness { unheard: true, ..FIT };
        let settled =
            |hosts: &[Host], fitness: &[Fitness]| unsettled(&scenario, hosts, fitness, 0).is_none();
        assert!(!settled(&hosts, &[FIT; 3]), "nobody has it");
        assert!(settled(&hosts, &[FIT, dead, dead]), "without a majority nobody may");
        assert!(settled(&hosts, &[drained; 3]), "nobody wants it");
        give(&mut hosts[1]);
        assert!(settled(&hosts, &[FIT; 3]));
        assert!(!settled(&hosts, &[FIT, drained, FIT]), "it should have gone elsewhere");
        assert!(!settled(&hosts, &[FIT, unheard, FIT]), "nobody hears it there");
        assert!(settled(&hosts, &[drained, unheard, dead]), "there is no other");
        assert!(settled(&hosts, &[drained; 3]), "it has nowhere to go");
        assert!(!settled(&hosts, &[FIT, dead, dead]));
        give(&mut hosts[0]);
        assert!(!settled(&hosts, &[FIT; 3]), "two have it");
    }
}
