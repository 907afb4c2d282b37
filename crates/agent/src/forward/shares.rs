//! Applies the shares that backends ask for through their agents to what is forwarded.

use super::Place;
use crate::health::States;
use buoy_core::weigh::weigh;
use buoy_model::Desired;
use std::sync::Arc;

/// The configuration with the weights that hold now; the same one where nobody asks for another share.
pub(super) fn weighed(desired: &Arc<Desired>, states: &States) -> Arc<Desired> {
    const WHOLE: u16 = 100;
    if states.values().all(|known| known.share == WHOLE) {
        return Arc::clone(desired);
    }
    let mut weighed = Desired::clone(desired);
    for (group, original) in weighed.groups.iter_mut().zip(&desired.groups) {
        for (service, was) in group.services.iter_mut().zip(&original.services) {
            let place = Place::of(original, was);
            let share =
                |known: Option<&crate::health::BackendHealth>| known.map_or(WHOLE, |k| k.share);
            let shares = was.backends.iter().map(|b| share(states.get(&place.key(b))));
            weigh(&mut service.backends, &shares.collect::<Vec<_>>());
        }
    }
    Arc::new(weighed)
}
