//! Compares a backend with the others of its service, where its share follows how long its answers take.
//!
//! What all answers take is looked at once a second for each service, whoever has asked: a thousand backends would
//! else each look at a thousand.

use super::ask::Said;
use super::{Key, States};
use buoy_core::load;
use buoy_model::{BackendState, GroupId, Instant, Load, Ports, Protocol};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How long what is usual counts as that.
const EVERY: Duration = Duration::from_secs(1);

/// A service, in the order of its backends' keys.
type Of = (GroupId, IpAddr, Protocol, Ports);

/// How long answers of the backends of each service usually take.
#[derive(Debug, Default)]
pub(super) struct Usual(BTreeMap<Of, (Instant, Option<Duration>)>);

impl Usual {
    /// The share that an answer is worth; `None`: it does not say.
    pub(super) fn wanted(
        &mut self,
        now: Instant,
        load: &Load,
        (key, known): (&Key, &States),
        (said, took): (&Said, Duration),
    ) -> Option<u16> {
        match load {
            Load::Header(_) => said.load.map(load::of_load),
            Load::Latency => {
                let usual = self.of(now, key, known).unwrap_or(took);
                Some(load::of_latency(took, usual))
            }
        }
    }

    fn of(&mut self, now: Instant, key: &Key, known: &States) -> Option<Duration> {
        let Key { group, address, protocol, ports, .. } = *key;
        let of = (group, address, protocol, ports);
        if let Some((at, usual)) = self.0.get(&of)
            && now < *at + EVERY
        {
            return *usual;
        }
        // What is not there any more is forgotten with the rest, now and then.
        self.0.retain(|_, (at, _)| now < *at + 10 * EVERY);
        let usual = usual(key, known);
        self.0.insert(of, (now, usual));
        usual
    }
}

/// The usual time among the backends of the service that are up.
pub(crate) fn usual(key: &Key, known: &States) -> Option<Duration> {
    let first = Key { backend: String::new(), ..key.clone() };
    let of_it = |other: &Key| {
        (other.group, other.address, other.protocol, other.ports)
            == (key.group, key.address, key.protocol, key.ports)
    };
    let all = known.range(first..).take_while(|(other, _)| of_it(other));
    let up = all.filter(|(_, health)| health.state != BackendState::Down);
    load::usual(up.filter_map(|(_, health)| health.last_latency).collect())
}
