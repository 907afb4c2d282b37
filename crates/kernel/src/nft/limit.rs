//! Renders how often a client may connect: one set of buckets and one rule for each service with a limit.
//!
//! It stands behind `deny`, so who is refused anyway takes nothing. Only what opens a connection is looked at:
//! for conntrack a connection that is picked up in its middle is new as well, as after a failover. What is not
//! asked for any more leaves the set by itself, and where a set is full others are let through. A set is named
//! after its limit too, because a bucket keeps the limit that it was made with.

use super::{Family, Forward, Of, TABLE, counter, ports};
use buoy_model::limits::RATE_CLIENTS_MAX;
use buoy_model::{Per, Protocol, Rate};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// What the names of all sets have.
pub(super) const MARK: &str = "_limit_";

/// The sets that the kernel has and nobody wants any more; before the table, which makes the others.
pub(super) fn forget(
    family: &str,
    forwards: &[Forward],
    known: &BTreeSet<String>,
    text: &mut String,
) {
    let wanted: BTreeSet<String> =
        forwards.iter().filter_map(|f| Some(name(f, f.new_connections?))).collect();
    for stale in known.difference(&wanted).filter(|name| name.contains(MARK)) {
        let _ = writeln!(text, "delete set {family} {TABLE} {stale}");
    }
}

/// The sets of all services.
pub(super) fn sets(forwards: &[Forward], text: &mut String) {
    for forward in forwards {
        let Some(rate) = forward.new_connections else { continue };
        let kind = match Family::of(forward.vip) {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        let _ = writeln!(
            text,
            "\tset {} {{ type {kind}; size {RATE_CLIENTS_MAX}; flags dynamic, timeout; }}",
            name(forward, rate)
        );
    }
}

/// The rules of one family; each begins with what only new connections match.
pub(super) fn render(services: &[&Forward], family: Family, is_new: &str, text: &mut String) {
    let ip = family.word();
    for forward in services {
        let (Some(rate), Some(own)) = (forward.new_connections, ports::matched(forward)) else {
            continue;
        };
        let opens = match forward.protocol {
            Protocol::Tcp => "tcp flags & (syn | ack) == syn ",
            Protocol::Udp => "",
        };
        let client = match family {
            Family::V4 => "ip saddr",
            Family::V6 => "ip6 saddr & ffff:ffff:ffff:ffff::",
        };
        // Whoever has been away so long owes nothing.
        let timeout = rate.span().as_secs() + 1;
        let per = match rate.per() {
            Per::Second => "second",
            Per::Minute => "minute",
            Per::Hour => "hour",
        };
        let _ = writeln!(
            text,
            "\t\t{is_new}{ip} daddr {} {} dport {own} {opens}update @{} {{ {client} timeout {timeout}s \
             limit rate over {}/{per} burst {} packets }} counter name \"{}\" drop",
            forward.vip,
            forward.protocol.name(),
            name(forward, rate),
            rate.number(),
            rate.burst(),
            counter(forward, Of::Limited),
        );
    }
}

fn name(forward: &Forward, rate: Rate) -> String {
    let vip = forward.vip.to_string().replace(':', "_");
    let (protocol, letter) = (forward.protocol.name(), rate.per().letter());
    let (number, burst) = (rate.number(), rate.burst());
    let ports = ports::named(forward.ports);
    format!("{protocol}_{ports}_{vip}{MARK}{number}{letter}_{burst}")
}

/// The names of all sets in what `nft` lists.
pub(super) fn parse_sets(text: &str) -> impl Iterator<Item = String> + use<> {
    parse_sets_with(MARK, text)
}

/// The names of sets that have this in them.
pub(super) fn parse_sets_with(mark: &str, text: &str) -> impl Iterator<Item = String> + use<> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let name = |pair: &[&str]| match pair {
        ["set", name] if name.contains(mark) => Some((*name).to_owned()),
        _ => None,
    };
    let names: BTreeSet<String> = words.windows(2).filter_map(name).collect();
    names.into_iter()
}
