//! Decides which backends of a service rest because enough others are nearer to the VIP's owner.
//!
//! Near is what runs on the owner, or in its zone. As long as as many near backends are up as the service's quorum
//! asks for (one, if it asks for nothing), those that are far take no new connections, as if their weight
//! were 0: what they have goes on. With fewer all of them take part. Backups stay backups: they come
//! after all others, near or far.
//!
//! Every node decides this for the present owner, whoever it is itself. So all nodes have one table, and another
//! owner is a change of the table like any other: where an engine remembers what a table was, open connections
//! stay with the backend that they have.
//!
//! Absent on purpose: who owns what, and what is known of backends.

use alloc::vec;
use alloc::vec::Vec;
use buoy_model::{BackendState, Desired, Group, Mode, NodeId, Service};

/// Which backends rest, one answer for each; without an owner none does. A missing state is `Unknown`.
pub fn resting(
    desired: &Desired,
    service: &Service,
    owner: Option<NodeId>,
    states: &[BackendState],
) -> Vec<bool> {
    let mut resting = vec![false; service.backends.len()];
    let owner = owner.and_then(|owner| desired.node(owner));
    let Some((locality, owner)) = service.life.locality.zip(owner) else { return resting };
    for family in families(service) {
        let is_near = |i: &usize| locality.is_near(&desired.nodes, owner, &service.backends[*i]);
        let takes = |i: &usize| {
            let backend = &service.backends[*i];
            let is_down = match states.get(*i) {
                Some(BackendState::Down) => true,
                Some(BackendState::Up | BackendState::Unknown) | None => false,
            };
            backend.weight != 0 && !backend.backup && !is_down
        };
        let near = family.iter().filter(|i| is_near(i) && takes(i)).count();
        if near < usize::from(service.life.quorum.max(1)) {
            continue;
        }
        for i in family.into_iter().filter(|i| !is_near(i) && !service.backends[*i].backup) {
            resting[i] = true;
        }
    }
    resting
}

/// Whether some service has another table for another owner.
pub fn is_followed(group: &Group) -> bool {
    group.services.iter().any(|service| service.life.locality.is_some())
}

/// Only a proxy lets backends of one IP version take the place of those of the other.
fn families(service: &Service) -> Vec<Vec<usize>> {
    let all = 0..service.backends.len();
    match service.mode {
        Mode::Proxy => vec![all.collect()],
        Mode::Kernel | Mode::Xdp { .. } => {
            let (v4, v6) = all.partition(|i| service.backends[*i].address.is_ipv4());
            vec![v4, v6]
        }
    }
}

#[cfg(test)]
#[path = "locality_tests.rs"]
mod tests;
