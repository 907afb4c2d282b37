//! Applies the shares that backends ask for through their agents or by their load, and operators by order, to what is forwarded.

use super::Place;
use crate::health::{BackendHealth, States};
use buoy_core::backend_orders;
use buoy_core::weigh::weigh;
use buoy_model::Desired;
use std::sync::Arc;

/// The share of a backend of which nothing else is known.
const WHOLE: u16 = 100;

/// The configuration with the weights that hold now; the same one where nobody asks for another share.
pub(super) fn weighed(desired: &Arc<Desired>, states: &States) -> Arc<Desired> {
    if states.values().all(|known| known.share == WHOLE && known.ordered.is_none()) {
        return Arc::clone(desired);
    }
    let mut weighed = Desired::clone(desired);
    for (group, original) in weighed.groups.iter_mut().zip(&desired.groups) {
        for (service, was) in group.services.iter_mut().zip(&original.services) {
            let place = Place::of(original, was);
            let mut shares = Vec::with_capacity(was.backends.len());
            for (backend, was) in service.backends.iter_mut().zip(&was.backends) {
                let known = states.get(&place.key(was));
                let (weight, share) = weight(was.weight, known);
                backend.weight = weight;
                shares.push(share);
            }
            weigh(&mut service.backends, &shares);
        }
    }
    Arc::new(weighed)
}

/// The weight that shares are taken of, and the share.
fn weight(configured: u16, known: Option<&BackendHealth>) -> (u16, u16) {
    let share = known.map_or(WHOLE, |known| known.share);
    match known.and_then(|known| known.ordered.as_ref()) {
        Some(ordered) => backend_orders::weight(configured, share, &ordered.order),
        None => (configured, share),
    }
}
