//! Hands answers that no connection here knows to the nodes that may know it.
//!
//! When a VIP moves, its backends answer to the new owner at once, also what clients asked through the
//! old one. The old one still knows those connections: a copy goes to each other candidate, whoever
//! knows it translates it and passes it on to its client, and everybody else's guard drops it. In
//! tables of their own, because nftables duplicates packets in `ip` and `ip6` tables only.

use crate::nft::ports::{self, NOT_FIRST};
use crate::nft::{Forward, TABLE};
use buoy_model::Protocol;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Adds both tables to a script for `nft -f`, in place of those that are there.
pub(crate) fn render(forwards: &[Forward], text: &mut String) {
    for (ip, is_ours) in [("ip", IpAddr::is_ipv4 as fn(&IpAddr) -> bool), ("ip6", IpAddr::is_ipv6)]
    {
        // `add` first, so that `delete` always finds one.
        let _ = writeln!(text, "add table {ip} {TABLE}\ndelete table {ip} {TABLE}");
        let rules: BTreeSet<String> =
            forwards.iter().filter(|f| is_ours(&f.vip)).filter_map(|f| rule(ip, f)).collect();
        if rules.is_empty() {
            continue;
        }
        let _ = writeln!(text, "table {ip} {TABLE} {{\n\tchain relay {{");
        // Before the guard, which drops the original.
        let _ = writeln!(text, "\t\ttype filter hook prerouting priority -151; policy accept;");
        rules.iter().for_each(|rule| text.push_str(rule));
        text.push_str("\t}\n}\n");
    }
}

/// Only where the VIP is: a copy that comes back to a node without it ends there.
fn rule(ip: &str, forward: &Forward) -> Option<String> {
    let Forward { vip, protocol, source, backends, relays, link, .. } = forward;
    let seen = source.in_place_of_clients(*vip);
    if seen.is_empty() || relays.is_empty() || backends.is_empty() {
        return None;
    }
    let seen: Vec<String> = seen.iter().map(ToString::to_string).collect();
    let seen = match &seen[..] {
        [one] => one.clone(),
        many => format!("{{ {} }}", many.join(", ")),
    };
    let protocol = protocol.name();
    let places = ports::answering(forward).map(|(backend, ports)| (backend, ports, String::new()));
    let places = ports::elements(places).collect::<Vec<_>>().join(", ");
    if places.is_empty() {
        return None;
    }
    // Of many ports a backend may use one to ask the VIP itself.
    let not_first = match forward.protocol {
        Protocol::Tcp if !forward.ports.is_one() => format!(" {NOT_FIRST}"),
        Protocol::Tcp | Protocol::Udp => String::new(),
    };
    let copies: String =
        relays.iter().map(|to| format!(" dup to {to} device \"{link}\"")).collect();
    Some(format!(
        "\t\tct state {{ new, invalid }} {ip} daddr {seen} fib daddr type local \
         {ip} saddr . {protocol} sport {{ {places} }}{not_first}{copies}\n"
    ))
}
