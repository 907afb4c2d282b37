//! Says which flows must not go on: to backends that are down, and to those that are to have none by order.
//!
//! A TCP connection ends with its backend by itself, so only an order ends one that would go on, or a service that
//! wants its clients told (`on_down`). A UDP flow goes on for as long as its client asks.

use super::{Place, Wanted};
use crate::health::States;
use buoy_kernel::conntrack::Flows;
use buoy_model::{Backend, BackendState, OnDown, Ports, Service};
use std::net::IpAddr;

/// The backends of the service whose connections are cut.
pub(super) fn cut<'s>(
    place: &Place,
    service: &'s Service,
    states: &States,
) -> impl Iterator<Item = &'s Backend> {
    let is_cut = move |b: &&Backend| is_over(place, service, b, states);
    service.backends.iter().filter(is_cut)
}

/// Whether the connections of a backend are not to go on.
fn is_over(place: &Place, service: &Service, backend: &Backend, states: &States) -> bool {
    states.get(&place.key(backend)).is_some_and(|known| {
        let is_down = known.state == BackendState::Down;
        known.is_cut() || (is_down && service.on_down() == OnDown::Reset)
    })
}

/// What conntrack is to forget of one address of a service.
pub(super) fn want(
    wanted: &mut Wanted,
    place: Place,
    vip: IpAddr,
    (service, within): (&Service, &[Ports]),
    states: &States,
) {
    let is_dead = |backend: &&Backend| is_over(&place, service, backend, states);
    let own = service.ports.without(within);
    let same = service.backends.iter().filter(|b| b.address.is_ipv4() == vip.is_ipv4());
    for backend in same.filter(is_dead) {
        wanted.dead.extend(own.iter().map(|ports| flows(service, vip, *ports, backend)));
    }
}

/// The flows of these ports of a service to one of its backends.
pub(super) fn flows(service: &Service, vip: IpAddr, ports: Ports, backend: &Backend) -> Flows {
    let above = ports.first() - service.ports.first();
    let mut to = backend.address;
    to.set_port(to.port().wrapping_add(above));
    Flows { protocol: service.protocol, vip, ports, backend: to }
}
