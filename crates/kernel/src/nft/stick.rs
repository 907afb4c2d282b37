//! Renders which clients get the backend that they had: a set of clients for each backend, and two rules.
//!
//! The first packet of a connection is looked for in the sets of the backends that are up, and what it then is
//! given to is written into its set on its way out. A set of a backend that is down is not there, so whoever had it
//! is in one set at most; what nobody has asked for leaves its set by itself. A set is named after its time and its
//! clients too, because its elements have those that they were made with.

use super::ruleset::Ruleset;
use super::{Family, Forward, Of, counter, name, ports, word};
use buoy_model::limits::STICK_CLIENTS_MAX;
use buoy_model::{FlowFields, Stick};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The client as far as it counts.
pub(super) fn client(ip: &str, fields: FlowFields) -> String {
    let mask: IpAddr = match (fields, ip) {
        (FlowFields::Connection | FlowFields::Client, _) => return format!("{ip} saddr"),
        (FlowFields::Prefix(prefixes), "ip") => {
            Ipv4Addr::from_bits(u32::MAX << (32 - prefixes.v4())).into()
        }
        (FlowFields::Prefix(prefixes), _) => {
            Ipv6Addr::from_bits(u128::MAX << (128 - prefixes.v6())).into()
        }
    };
    format!("{ip} saddr & {mask}")
}

/// The sets of a service.
pub(super) fn sets(forward: &Forward, ruleset: &mut Ruleset) {
    let kind = Family::of(forward.vip).address();
    for (stick, backend) in all(forward) {
        let definition = format!("type {kind}; size {STICK_CLIENTS_MAX}; flags dynamic, timeout;");
        ruleset.learning(set_of(forward, stick, backend), definition);
    }
}

/// Give a connection of a client that is known to the backend that it had.
pub(super) fn rules(forward: &Forward, family: Family) -> impl Iterator<Item = String> + '_ {
    let (ip, protocol) = (family.word(), forward.protocol.name());
    all(forward).map(move |(stick, backend)| {
        format!(
            "meta l4proto {protocol} {} @{} counter name \"{}\" counter name \"{}\" dnat {ip} to {}",
            client(ip, stick.client),
            set_of(forward, stick, backend),
            counter(forward, Of::Stuck),
            counter(forward, Of::Connections),
            written(forward, backend),
        )
    })
}

/// Remember the client of a connection, which matches this, that was given to a backend.
pub(super) fn learning(forward: &Forward, of: &str) -> impl Iterator<Item = String> {
    let ip = Family::of(forward.vip).word();
    let protocol = forward.protocol.name();
    all(forward).map(move |(stick, backend)| {
        let port = match forward.ports.is_one() {
            true => format!(" {protocol} dport {}", backend.port()),
            false => String::new(),
        };
        format!(
            "{of} {ip} daddr {}{port} update @{} {{ {} timeout {}s }}",
            backend.ip(),
            set_of(forward, stick, backend),
            client(ip, stick.client),
            stick.timeout.as_secs(),
        )
    })
}

/// What a connection is given, as `dnat` reads it.
pub(super) fn written(forward: &Forward, backend: SocketAddr) -> String {
    match (forward.ports.is_one(), backend) {
        (true, _) => backend.to_string(),
        (false, _) => format!("{}{}", backend.ip(), ports::moved(forward)),
    }
}

fn all(forward: &Forward) -> impl Iterator<Item = (Stick, SocketAddr)> + '_ {
    let stick = forward.stick.into_iter();
    stick.flat_map(|stick| forward.standing.iter().map(move |backend| (stick, *backend)))
}

fn set_of(forward: &Forward, stick: Stick, backend: SocketAddr) -> String {
    let bits = stick.client.bits(forward.vip);
    let (seconds, to) = (stick.timeout.as_secs(), word(backend.ip()));
    format!("{}_stick_{seconds}_{bits}_{to}_{}", name(forward), backend.port())
}
