//! Lets backends rest that are far from the owner of their VIP, while enough are near.

use super::owned::Owners;
use super::{Place, known};
use crate::health::States;
use buoy_core::locality;
use buoy_model::{Desired, Group, NodeId, Service};
use std::sync::Arc;

/// The configuration with weight 0 for all that rest now; the same one where none does.
pub(super) fn kept_near(desired: Arc<Desired>, states: &States, owners: &Owners) -> Arc<Desired> {
    if owners.is_empty() {
        return desired;
    }
    let mut near = Desired::clone(&desired);
    let mut is_same = true;
    for (group, was) in near.groups.iter_mut().zip(&desired.groups) {
        let owner = owners.get(&group.id).copied();
        for (service, was_service) in group.services.iter_mut().zip(&was.services) {
            let resting = resting(&desired, (was, was_service), owner, states);
            for (backend, _) in service.backends.iter_mut().zip(resting).filter(|(_, rests)| *rests)
            {
                backend.weight = 0;
                is_same = false;
            }
        }
    }
    if is_same { desired } else { Arc::new(near) }
}

/// Which backends of a service rest.
pub(super) fn resting(
    desired: &Desired,
    (group, service): (&Group, &Service),
    owner: Option<NodeId>,
    states: &States,
) -> Vec<bool> {
    if service.life.locality.is_none() {
        return vec![false; service.backends.len()];
    }
    let known = known(&Place::of(group, service), &service.backends, states);
    locality::resting(desired, service, owner, &known)
}
