//! Makes a row of a table of nftables of a service: who is behind it, and who gets a connection.

use super::{Place, Wanted, is_local, known};
use crate::health::States;
use buoy_core::balance::{self, Share, Table};
use buoy_kernel::nft::{self, Slots, Spread};
use buoy_model::{Backend, BackendState, Balance, FlowFields, Group, Mode, Ports, Service};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A row of a table of nftables, without the other nodes.
pub(super) fn row(
    wanted: &mut Wanted,
    place: Place,
    vip: IpAddr,
    (group, service): (&Group, &Service),
    states: &States,
) -> nft::Forward {
    let within = within(group, vip, service);
    // The kernel translates within a family only.
    let able: Vec<Backend> =
        service.backends.iter().filter(|b| b.address.is_ipv4() == vip.is_ipv4()).cloned().collect();
    if able.is_empty() && !is_local(service) {
        let family = if vip.is_ipv4() { "IPv4" } else { "IPv6" };
        wanted.problems.insert(
            place,
            format!("{vip} has no {family} backend: add one, or use mode = \"proxy\""),
        );
    }
    let known = known(&place, &able, states);
    let shares = balance::shares_of_quorum(&able, &known, service.life.quorum);
    let spread = match Table::new(&able, &shares) {
        None if is_local(service) => Spread::Local,
        None => Spread::Refuse,
        Some(table) => spread(service, &shares, &table, |i| able[i].address),
    };
    let here = group.addresses.iter().find(|a| a.cidr.address() == vip);
    nft::Forward {
        vip,
        ports: service.ports,
        within,
        protocol: service.protocol,
        source: service.source.clone(),
        sources: Arc::clone(&service.sources),
        new_connections: service.new_connections,
        spread,
        stick: service.life.stick,
        standing: standing(&able, &known).map(|b| b.address).collect(),
        quic: service.front.quic.map(|quic| {
            let named = standing(&able, &known).filter_map(|b| Some((b.server_id?, b.address)));
            (quic, named.collect())
        }),
        backends: able.iter().map(|b| b.address).collect(),
        relays: Vec::new(),
        link: here.map(|a| a.link_name.clone()).unwrap_or_default(),
    }
}

/// Those that are up, whether or not they take new connections.
fn standing<'b>(
    backends: &'b [Backend],
    known: &'b [BackendState],
) -> impl Iterator<Item = &'b Backend> {
    let all = backends.iter().zip(known);
    all.filter(|(_, state)| **state != BackendState::Down).map(|(backend, _)| backend)
}

/// How nftables gives connections to those who take them.
fn spread(
    service: &Service,
    shares: &[Share],
    table: &Table,
    address: impl Fn(usize) -> SocketAddr,
) -> Spread {
    let addresses = |list: &[usize]| list.iter().map(|&i| address(i)).collect::<Slots>();
    let fields = match (service.mode, service.balance) {
        (Mode::Xdp { flow, .. }, _) => flow,
        (Mode::Kernel | Mode::Proxy, balance) => balance.fields().unwrap_or(FlowFields::Connection),
    };
    match service.balance {
        Balance::RoundRobin => Spread::Turns(addresses(&balance::rotation(shares))),
        Balance::Hash(_) if fields != FlowFields::Connection => {
            Spread::HashClient(addresses(table.slots()), fields)
        }
        Balance::Hash(_)
        // `config` refuses these here: nftables has no such table, and counts no connections.
        | Balance::Maglev(_)
        | Balance::Rendezvous(_)
        | Balance::LeastConnections
        | Balance::ShortestDelay
        | Balance::Random
        | Balance::First => Spread::Hash(addresses(table.slots())),
    }
}

/// Ports of the service's range that belong to other services of that address.
pub(super) fn within(group: &Group, vip: IpAddr, service: &Service) -> Vec<Ports> {
    let others = group.services.iter().filter(|other| {
        other.addresses.contains(&vip)
            && other.protocol == service.protocol
            && other.ports != service.ports
            && service.ports.covers(other.ports)
    });
    others.map(|other| other.ports).collect()
}
