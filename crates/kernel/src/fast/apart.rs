//! Services where more than a slot decides, in the words of the programs (`bpf/forward/apart.h`), and back: how much
//! of a client's address counts, for how long it gets the same backend, and what connection ids call servers.

use buoy_model::limits::STICK_MAX;
use buoy_model::{
    CONFIG_UNROUTABLE, FastService, FlowFields, Prefixes, Protocol, Quic, SERVER_ID_MAX, ServerId,
    Standing,
};
use buoy_xdp::forward::{
    self, APART, Backend, CLIENT_UNIT, FLOW_CLIENT, FLOW_CONNECTION, STANDING_DOWN, STANDING_KEEPS,
    STANDING_UP, Service, key_of_server,
};
use std::net::IpAddr;
use std::time::Duration;

// The age of what is known of a client is fifteen bits long.
const _: () = assert!(STICK_MAX.as_secs() >> CLIENT_UNIT < 1 << 15);

const IPV4_BITS: u8 = 96;

/// The bits that the hash is over.
pub(super) const fn flow(service: &FastService) -> u8 {
    match (service.flow, service.address) {
        (FlowFields::Connection, _) => FLOW_CONNECTION,
        (flow, IpAddr::V4(_)) => IPV4_BITS + flow.bits(service.address),
        (flow, IpAddr::V6(_)) => flow.bits(service.address),
    }
}

/// What `flow` was made from.
pub(super) fn fields(service: &Service) -> FlowFields {
    let prefixes = match (service.flow, IpAddr::from(service.address)) {
        (FLOW_CONNECTION, _) => None,
        (bits, IpAddr::V4(_)) => Prefixes::new(bits.saturating_sub(IPV4_BITS), 128),
        (bits, IpAddr::V6(_)) => Prefixes::new(32, bits),
    };
    prefixes.map_or(FlowFields::Connection, FlowFields::of_prefixes)
}

/// For how long clients get the same backend.
pub(super) fn stick(service: &FastService) -> u16 {
    // Not less than it is said to be.
    let units = service.stick.map_or(0, |stick| stick.as_millis().div_ceil(1000 << CLIENT_UNIT));
    u16::try_from(units).unwrap_or(u16::MAX)
}

/// What `stick` was made from, in whole units.
pub(super) fn stick_of(service: &Service) -> Option<Duration> {
    let units = u64::from(service.stick);
    (units != 0).then(|| Duration::from_secs(units << CLIENT_UNIT))
}

/// What names its servers.
pub(super) fn quic(service: &FastService) -> u8 {
    service.quic.map_or(0, |Quic { config, length }| forward::quic(length, config))
}

/// What `quic` was made from.
pub(super) fn quic_of(service: &Service) -> Option<Quic> {
    let (length, config) = (service.quic & 15, service.quic >> 4);
    (length != 0).then_some(Quic { config, length })
}

/// In the guard of a service.
pub(super) const fn guard(flow: u8, stick: u16, quic: u8) -> u32 {
    let is_prefix = flow != FLOW_CONNECTION && flow != FLOW_CLIENT;
    if is_prefix || stick != 0 || quic != 0 { APART } else { 0 }
}

/// What the programs cannot do.
pub(super) fn fault(service: &FastService) -> Option<&'static str> {
    let Quic { config, length } = service.quic.unwrap_or(Quic { config: 0, length: 1 });
    let is_known = |length: u8| (1..=SERVER_ID_MAX).contains(&usize::from(length));
    let mut ids: Vec<ServerId> = service.backends.iter().filter_map(|b| b.server_id).collect();
    ids.sort_unstable();
    if service.flow.behind(service.address) != service.flow {
        Some("how much counts of an address of the other family does not matter, and is said")
    } else if service.stick.is_some_and(|stick| stick > STICK_MAX || stick.is_zero()) {
        Some("clients cannot keep their backend for so long, or for no time")
    } else if service.stick.is_some() && service.flow == FlowFields::Connection {
        Some("clients keep their backend, but each of their connections is hashed for itself")
    } else if !service.pool.is_empty() && (service.stick.is_some() || service.quic.is_some()) {
        Some("flows that have another source know their backend by themselves")
    } else if service.quic.is_some() && service.protocol == Protocol::Tcp {
        Some("only datagrams have connection ids")
    } else if config >= CONFIG_UNROUTABLE || !is_known(length) {
        Some("connection ids are not so")
    } else if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        Some("connection ids call two of its servers the same")
    } else if service.quic.is_none() && !ids.is_empty()
        || ids.iter().any(|id| service.quic.is_some() && id.length() != length)
    {
        Some("a server is called by an id that is not of the service")
    } else {
        None
    }
}

/// The key that leads to a backend by its name.
pub(super) fn key(service: &Service, backend: &Backend) -> Option<u64> {
    server_id(service, backend)?;
    Some(key_of_server(service.address, service.first, backend.server_id))
}

/// What connection ids call a backend.
pub(super) fn server_id(service: &Service, backend: &Backend) -> Option<ServerId> {
    let quic = quic_of(service)?;
    ServerId::of_number(quic.length, backend.server_id).filter(|_| backend.named != 0)
}

/// As the programs read it.
pub(super) const fn standing(standing: Standing) -> u16 {
    match standing {
        Standing::Down => STANDING_DOWN,
        Standing::Keeps => STANDING_KEEPS,
        Standing::Up => STANDING_UP,
    }
}

/// What `standing` was made from.
pub(super) const fn standing_of(backend: &Backend) -> Standing {
    match backend.standing {
        STANDING_UP => Standing::Up,
        STANDING_KEEPS => Standing::Keeps,
        _ => Standing::Down,
    }
}
