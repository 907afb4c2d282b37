//! Renders which clients get the backend that they had: a set of clients for each backend, and two rules.
//!
//! The first packet of a connection is looked for in the sets of the backends that are up, and what it then is
//! given to is written into its set on its way out. A set of a backend that is down is not there, so whoever had it
//! is in one set at most; what nobody has asked for leaves its set by itself. A set is named after its time and its
//! clients too, because its elements have those that they were made with.

use super::limit::parse_sets_with;
use super::{Family, Forward, Of, TABLE, counter, ports};
use buoy_model::limits::STICK_CLIENTS_MAX;
use buoy_model::{FlowFields, Stick};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the names of all sets have.
const MARK: &str = "_stick_";

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

/// The sets that the kernel has and nobody wants any more; before the table, which makes the others.
pub(super) fn forget(
    family: &str,
    forwards: &[Forward],
    known: &BTreeSet<String>,
    text: &mut String,
) {
    let wanted: BTreeSet<String> = forwards
        .iter()
        .flat_map(|f| all(f).map(|(stick, backend)| name(f, stick, backend)))
        .collect();
    for stale in known.difference(&wanted).filter(|name| name.contains(MARK)) {
        let _ = writeln!(text, "delete set {family} {TABLE} {stale}");
    }
}

/// The sets of all services.
pub(super) fn sets(forwards: &[Forward], text: &mut String) {
    for forward in forwards {
        let kind = match Family::of(forward.vip) {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        for (stick, backend) in all(forward) {
            let _ = writeln!(
                text,
                "\tset {} {{ type {kind}; size {STICK_CLIENTS_MAX}; flags dynamic, timeout; }}",
                name(forward, stick, backend)
            );
        }
    }
}

/// Gives a connection of a client that is known to the backend that it had.
pub(super) fn pick(forward: &Forward, family: Family, matched: &str, text: &mut String) {
    let (ip, protocol) = (family.word(), forward.protocol.name());
    for (stick, backend) in all(forward) {
        let _ = writeln!(
            text,
            "\t\t{ip} daddr {} {protocol} dport {matched} {} @{} counter name \"{}\" \
             counter name \"{}\" dnat {ip} to {}",
            forward.vip,
            client(ip, stick.client),
            name(forward, stick, backend),
            counter(forward, Of::Stuck),
            counter(forward, Of::Connections),
            written(forward, backend),
        );
    }
}

/// Remembers the client of a connection that was given to a backend.
pub(super) fn learn(forward: &Forward, matched: &str, text: &mut String) {
    let ip = Family::of(forward.vip).word();
    let protocol = forward.protocol.name();
    for (stick, backend) in all(forward) {
        let port = match forward.ports.is_one() {
            true => format!(" {protocol} dport {}", backend.port()),
            false => String::new(),
        };
        let _ = writeln!(
            text,
            "\t\tct status dnat meta l4proto {protocol} ct original {ip} daddr {} ct original \
             proto-dst {matched} {ip} daddr {}{port} update @{} {{ {} timeout {}s }}",
            forward.vip,
            backend.ip(),
            name(forward, stick, backend),
            client(ip, stick.client),
            stick.timeout.as_secs(),
        );
    }
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

fn name(forward: &Forward, stick: Stick, backend: SocketAddr) -> String {
    let word = |ip: IpAddr| ip.to_string().replace(':', "_");
    let (protocol, ports) = (forward.protocol.name(), ports::named(forward.ports));
    let bits = stick.client.bits(forward.vip);
    let seconds = stick.timeout.as_secs();
    let (vip, to, port) = (word(forward.vip), word(backend.ip()), backend.port());
    format!("{protocol}_{ports}_{vip}{MARK}{seconds}_{bits}_{to}_{port}")
}

/// The names of all sets in what `nft` lists.
pub(super) fn parse_sets(text: &str) -> impl Iterator<Item = String> + use<> {
    parse_sets_with(MARK, text)
}
