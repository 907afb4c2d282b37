//! Hands answers that no connection here knows to the nodes that may know it.
//!
//! When a VIP moves, its backends answer to the new owner at once, also what clients asked through the
//! old one. The old one still knows those connections: a copy goes to each other candidate, whoever
//! knows it translates it and passes it on to its client, and everybody else's guard drops it. In
//! tables of their own, because nftables duplicates packets in `ip` and `ip6` tables only.

use crate::nft::ports::{self, NOT_FIRST};
use crate::nft::ruleset::{Elements, Ruleset};
use crate::nft::{Family, Forward};
use buoy_model::{Ports, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Where a backend answers from and to what, and all ports there with whom copies are for, by which link.
type Places<'f> = BTreeMap<(IpAddr, String), (Vec<Ports>, BTreeSet<(IpAddr, &'f str)>)>;

/// The table of a family.
pub(crate) fn ruleset(forwards: &[Forward], family: Family) -> Ruleset {
    let mut ruleset = Ruleset::new(family.table());
    let (ip, address) = (family.word(), family.address());
    let mut rules = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for of_ranges in [false, true] {
            let here = |f: &&Forward| {
                Family::of(f.vip) == family
                    && f.protocol == protocol
                    && of_ranges != f.ports.is_one()
            };
            let all = copied(forwards.iter().filter(here), &mut ruleset);
            let word = protocol.name();
            let name = format!("copy_{word}{}", if of_ranges { "_of_ranges" } else { "" });
            let key = format!("{address} . {address} . inet_service");
            // Of many ports a backend may use one to ask the VIP itself.
            let which = match protocol {
                Protocol::Tcp if of_ranges => format!("{NOT_FIRST} "),
                Protocol::Tcp | Protocol::Udp => String::new(),
            };
            let sets = ruleset.shared(&name, &key, Some("verdict"), all).into_iter();
            rules.extend(sets.map(|set| {
                format!(
                    "ct state new,invalid {which}{ip} daddr . {ip} saddr . {word} sport vmap @{set}"
                )
            }));
        }
    }
    if !rules.is_empty() {
        // Before the guard, which drops the original.
        let at = "filter hook prerouting priority -151".to_owned();
        ruleset.hook("relay".to_owned(), at, rules);
    }
    ruleset
}

/// What is copied, and to whom.
fn copied<'f>(forwards: impl Iterator<Item = &'f Forward>, ruleset: &mut Ruleset) -> Elements {
    let mut places = Places::new();
    for forward in forwards {
        for seen in forward.source.in_place_of_clients(forward.vip) {
            for (backend, ports) in ports::answering(forward) {
                let (all, copies) = places.entry((seen, backend)).or_default();
                all.push(ports);
                copies.extend(forward.relays.iter().map(|to| (*to, forward.link.as_str())));
            }
        }
    }
    let mut elements = Elements::default();
    for ((seen, backend), (ports, copies)) in places {
        if copies.is_empty() {
            continue;
        }
        // Only where the VIP is: a copy that comes back to a node without it ends there.
        let copies = copies.iter().map(|(to, link)| format!(" dup to {to} device \"{link}\""));
        let rule = format!("fib daddr type local{}", copies.collect::<String>());
        let chain = ruleset.chain("copy", &[rule]);
        for ports in ports::apart(ports) {
            let key = format!("{seen} . {backend} . {}", ports::written(ports));
            elements.add(key, !ports.is_one(), format!("goto {chain}"));
        }
    }
    elements
}
