//! What a proxy should carry: those who take connections, and for which names, and those who finish or lose what they have.

use super::{Place, WantedProxy};
use buoy_core::routes;
use buoy_model::{Backend, BackendState, Service};
use buoy_proxy::{Lane, Settings};
use std::collections::BTreeSet;

/// One service's proxy.
pub(super) fn wanted(
    place: Place,
    service: &Service,
    known: &[BackendState],
    cut: Vec<Backend>,
) -> WantedProxy {
    let taking = routes::taking(service, known);
    let all: BTreeSet<usize> = taking.iter().flat_map(|lane| lane.places.iter().copied()).collect();
    let name = |i: &usize| service.backends[*i].name.clone();
    let lane = |lane: &routes::Taking| Lane {
        name: lane.name.clone(),
        backends: lane.places.iter().map(name).collect(),
    };
    let mut settings = Settings::from(service);
    if !service.front.routes.is_empty() {
        settings.lanes = taking.iter().map(lane).collect();
    }
    let backends = all.iter().map(|&i| service.backends[i].clone()).collect();
    WantedProxy { place, settings, backends, finishing: finishing(service, known), cut }
}

/// The backends that are up and take no new connections.
fn finishing(service: &Service, known: &[BackendState]) -> Vec<Backend> {
    let all = service.backends.iter().zip(known);
    let up = all.filter(|(backend, state)| backend.weight == 0 && **state != BackendState::Down);
    up.map(|(backend, _)| backend.clone()).collect()
}
