//! Renders the services whose packets are translated: hooks that look a packet's service up once, however many there
//! are, and chains of each service.

use super::ports::{self, NOT_FIRST};
use super::ruleset::{Elements, Ruleset, TableFamily};
use super::{
    DENIED, Family, Forward, GUARDED, INVALID, Of, SEED, Slots, Spread, counter, deny, is_tcp,
    limit, name, named, stick, word,
};
use buoy_model::{Ports, Protocol, SourceAddress};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The chain that has rules wherever there is a service.
pub(super) const GUARD: &str = "guard";

/// So many services of one family are told apart by rules, one by one: a look into a map costs a packet more than that.
/// Measured with one service: 3 % of what a connection costs, 4 % of a question on one that is open.
const COMPARED_MAX: usize = 4;

/// The table of these services.
pub(super) fn ruleset(forwards: &[Forward]) -> Ruleset {
    let mut ruleset = Ruleset::new(TableFamily::Inet);
    if forwards.is_empty() {
        return ruleset;
    }
    for name in [GUARDED, INVALID, DENIED] {
        ruleset.counter(name.to_owned());
    }
    for forward in forwards {
        counters(forward, &mut ruleset);
    }
    let by_family = Family::BOTH.map(|family| {
        let of = |forward: &&Forward| Family::of(forward.vip) == family;
        (family, forwards.iter().filter(of).collect::<Vec<_>>())
    });
    // Before what gives packets to backends.
    guard(&by_family, &mut ruleset);
    refuse(&by_family, &mut ruleset);
    source(&by_family, &mut ruleset);
    pick(&by_family, &mut ruleset);
    ruleset
}

type ByFamily<'f> = [(Family, Vec<&'f Forward>); 2];

/// What counts a service, and the sets that remember its clients.
pub(super) fn counters(forward: &Forward, ruleset: &mut Ruleset) {
    let limited = forward.new_connections.map(|_| Of::Limited);
    let stuck = forward.stick.map(|_| Of::Stuck);
    let unnamed = forward.quic.as_ref().map(|_| Of::Unnamed);
    let always = [Of::Traffic, Of::Connections, Of::Refused];
    let all = always.into_iter().chain(limited).chain(stuck).chain(unnamed);
    all.for_each(|of| ruleset.counter(counter(forward, of)));
    limit::set(forward, ruleset);
    stick::sets(forward, ruleset);
}

/// How `nft` looks a packet's service up.
pub(super) fn key(family: Family) -> String {
    format!("{} daddr . meta l4proto . th dport", family.word())
}

/// The type of that.
pub(super) fn key_type(family: Family) -> String {
    format!("{} . inet_proto . inet_service", family.address())
}

/// What the packets of a service lead to, by all ports that it has.
pub(super) fn lead(forward: &Forward, to: &str, elements: &mut Elements) {
    for ports in ports::own(forward) {
        let key =
            format!("{} . {} . {}", forward.vip, forward.protocol.name(), ports::written(ports));
        elements.add(key, !ports.is_one(), to.to_owned());
    }
}

/// What becomes of the packets of a service.
#[derive(Clone, Copy)]
enum To {
    Chain,
    Counter,
}

/// Rules that find a packet's service and do with it what that service is to have.
fn found(
    what: &str,
    to: To,
    family: Family,
    all: &[(&Forward, String)],
    ruleset: &mut Ruleset,
) -> Vec<String> {
    let (ip, key) = (family.word(), key(family));
    let apart: Vec<_> =
        all.iter().flat_map(|(f, to)| ports::own(f).into_iter().map(move |p| (f, p, to))).collect();
    if apart.len() <= COMPARED_MAX {
        let rule = |(forward, ports, does): (&&Forward, Ports, &String)| {
            let (vip, protocol) = (forward.vip, forward.protocol.name());
            let is_it = format!("{ip} daddr {vip} {protocol} dport {}", ports::written(ports));
            match to {
                To::Chain => format!("{is_it} {does}"),
                To::Counter => format!("{is_it} counter name {does}"),
            }
        };
        return apart.into_iter().map(rule).collect();
    }
    let mut elements = Elements::default();
    all.iter().for_each(|(forward, to)| lead(forward, to, &mut elements));
    let of = match to {
        To::Chain => "verdict",
        To::Counter => "counter",
    };
    let name = format!("{what}_{ip}");
    let sets = ruleset.shared(&name, &key_type(family), Some(of), elements).into_iter();
    let rule = |set| match to {
        To::Chain => format!("{key} vmap @{set}"),
        To::Counter => format!("counter name {key} map @{set}"),
    };
    sets.map(rule).collect()
}

/// After conntrack has seen the packet and before it is given to a backend.
fn guard(by_family: &ByFamily<'_>, ruleset: &mut Ruleset) {
    // Answers are nobody's business here once their connection is known; until then they have no direction, or are
    // the first of one.
    let mut rules = vec!["ct direction reply accept".to_owned()];
    for (family, services) in by_family {
        rules.extend(entered(*family, services, ruleset));
    }
    rules.push("ct state established,related accept".to_owned());
    for (family, services) in by_family {
        rules.extend(invalid(*family, services, ruleset));
        rules.extend(answers(*family, services, ruleset));
    }
    let at = "filter hook prerouting priority mangle".to_owned();
    ruleset.hook(GUARD.to_owned(), at, rules);
}

/// Refuses whom a service is not there for, or who asks too often, and counts the others.
fn entered(family: Family, services: &[&Forward], ruleset: &mut Ruleset) -> Vec<String> {
    let (mut checked, mut counted) = (Vec::new(), Vec::new());
    for forward in services.iter().copied() {
        let mut rules = deny::rules(forward, family, "ct direction original ", ruleset);
        rules.extend(limit::rule(forward, family, "ct state new "));
        if !rules.is_empty() {
            let chain = ruleset.chain(&format!("enter_{}", name(forward)), &rules);
            checked.push((forward, format!("jump {chain}")));
        }
        counted.push((forward, format!("\"{}\"", counter(forward, Of::Traffic))));
    }
    let mut rules = found("enter", To::Chain, family, &checked, ruleset);
    rules.extend(found("traffic", To::Counter, family, &counted, ruleset));
    rules
}

/// Drops a segment that fits no connection, as after a failover without pick-up. What this host takes itself is
/// the business of its own firewall.
fn invalid(family: Family, services: &[&Forward], ruleset: &mut Ruleset) -> Vec<String> {
    let mut all = Elements::default();
    for forward in services.iter().filter(|f| is_tcp(f) && f.spread != Spread::Local) {
        for ports in ports::own(forward) {
            let key = format!("{} . {}", forward.vip, ports::written(ports));
            all.add(key, !ports.is_one(), String::new());
        }
    }
    let (ip, of) = (family.word(), format!("{} . inet_service", family.address()));
    let sets = ruleset.shared(&format!("invalid_{ip}"), &of, None, all).into_iter();
    sets.map(|set| {
        format!("ct state invalid {ip} daddr . tcp dport @{set} counter name \"{INVALID}\" drop")
    })
    .collect()
}

/// Drops what backends send while their client has not been heard here yet.
fn answers(family: Family, services: &[&Forward], ruleset: &mut Ruleset) -> Vec<String> {
    let (ip, address) = (family.word(), family.address());
    let drop = format!("counter name \"{GUARDED}\" drop");
    let mut rules = Vec::new();
    for (protocol, of_ranges) in [
        (Protocol::Tcp, false),
        (Protocol::Tcp, true),
        (Protocol::Udp, false),
        (Protocol::Udp, true),
    ] {
        // The kernel would reset a connection whose client has not been heard here yet.
        let word = protocol.name();
        let of =
            services.iter().filter(|f| f.protocol == protocol && of_ranges != f.ports.is_one());
        let of =
            of.flat_map(|f| f.source.in_place_of_clients(f.vip).into_iter().map(move |s| (f, s)));
        let from = of.flat_map(|(f, seen)| {
            let to = format!(" . {seen}");
            ports::answering(f).map(move |(backend, ports)| (backend, ports, to.clone()))
        });
        let verdict = match (protocol, of_ranges) {
            (Protocol::Tcp, true) => format!("{NOT_FIRST} {drop}"),
            (Protocol::Tcp, false) | (Protocol::Udp, true | false) => drop.clone(),
        };
        let name = format!("answers_{word}_{ip}{}", if of_ranges { "_of_ranges" } else { "" });
        let key = format!("{address} . inet_service . {address}");
        let sets = ruleset.shared(&name, &key, None, places(from));
        let key = format!("ct state new,invalid {ip} saddr . {word} sport . {ip} daddr");
        rules.extend(sets.iter().map(|set| format!("{key} @{set} {verdict}")));
    }
    // With the client's address as source an answer would pass untranslated, and the client
    // would reset it.
    let of = services.iter().filter(|f| is_tcp(f) && f.source == SourceAddress::Client);
    let from = of.flat_map(|f| ports::answering(f));
    let from = from.map(|(backend, ports)| (backend, ports, String::new()));
    let key = format!("{address} . inet_service");
    let sets = ruleset.shared(&format!("answers_to_clients_{ip}"), &key, None, places(from));
    let key = format!("ct state new,invalid {ip} saddr . tcp sport");
    rules.extend(sets.iter().map(|set| format!("{key} @{set} {NOT_FIRST} {drop}")));
    rules
}

fn places(all: impl Iterator<Item = (String, Ports, String)>) -> Elements {
    let mut elements = Elements::default();
    for (element, is_range) in ports::elements(all) {
        elements.add(element, is_range, String::new());
    }
    elements
}

/// Gives a new connection to a backend, whether it comes from outside or from this host.
fn pick(by_family: &ByFamily<'_>, ruleset: &mut Ruleset) {
    let mut hook = Vec::new();
    for (family, services) in by_family {
        let rules = |forward: &Forward| {
            let mut rules = named::rules(forward, *family);
            rules.extend(stick::rules(forward, *family));
            rules.extend(given(forward, *family));
            rules
        };
        hook.extend(dispatched("pick", *family, services, rules, ruleset));
    }
    if !hook.is_empty() {
        let at = "nat hook prerouting priority dstnat".to_owned();
        ruleset.hook("arriving".to_owned(), at, hook.clone());
        ruleset.hook("local".to_owned(), "nat hook output priority -100".to_owned(), hook);
    }
}

/// Chains of services that have rules, and what leads a packet to its service's chain.
fn dispatched(
    what: &str,
    family: Family,
    services: &[&Forward],
    rules: impl Fn(&Forward) -> Vec<String>,
    ruleset: &mut Ruleset,
) -> Vec<String> {
    let mut all = Vec::new();
    for forward in services.iter().copied() {
        let rules = rules(forward);
        if !rules.is_empty() {
            let chain = ruleset.chain(&format!("{what}_{}", name(forward)), &rules);
            all.push((forward, format!("goto {chain}")));
        }
    }
    found(what, To::Chain, family, &all, ruleset)
}

/// The rule that gives a connection to a backend; none where nobody is there.
fn given(forward: &Forward, family: Family) -> Option<String> {
    let (ip, protocol) = (family.word(), forward.protocol.name());
    let (key, list) = choice(&forward.spread, ip, protocol)?;
    let counter = counter(forward, Of::Connections);
    let is_one = forward.ports.is_one();
    let mut rule =
        format!("meta l4proto {protocol} counter name \"{counter}\" dnat {ip} to {key} map {{ ");
    // Most of a ruleset is this: no string of its own for each of them.
    for (i, backend) in list.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        let _ = write!(rule, "{comma}{i} : {}", backend.ip());
        if is_one {
            let _ = write!(rule, " . {}", backend.port());
        }
    }
    rule.push_str(" }");
    if !is_one {
        rule.push_str(&ports::moved(forward));
    }
    Some(rule)
}

/// What chooses a backend, and among whom; `None`: nobody is there.
pub(super) fn choice<'f>(
    spread: &'f Spread,
    ip: &str,
    protocol: &str,
) -> Option<(String, &'f Slots)> {
    match spread {
        Spread::Refuse | Spread::Local => None,
        Spread::Hash(slots) => {
            let hash = format!("jhash {ip} saddr . {protocol} sport mod {}", slots.len());
            Some((format!("{hash} seed {SEED:#x}"), slots))
        }
        Spread::HashClient(slots, fields) => {
            let client = stick::client(ip, *fields);
            let hash = format!("jhash {client} mod {}", slots.len());
            Some((format!("{hash} seed {SEED:#x}"), slots))
        }
        Spread::Turns(turns) => Some((format!("numgen inc mod {}", turns.len()), turns)),
    }
}

/// Makes answers come back to whoever owns the VIP: a chain for each VIP, for `nft` cannot look up a connection's
/// address and port together.
fn source(by_family: &ByFamily<'_>, ruleset: &mut Ruleset) {
    let mut hook = Vec::new();
    for (family, services) in by_family {
        let mut of_vip: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        for forward in services {
            let Some(ports) = ports::matched(forward) else { continue };
            let protocol = forward.protocol.name();
            let of = format!("meta l4proto {protocol} ct original proto-dst {ports}");
            let rules = of_vip.entry(forward.vip).or_default();
            rules.extend(stick::learning(forward, &of));
            // This host's own connections keep their source: their answers come here anyway.
            rules.extend(
                replaced(forward, *family).map(|to| format!("{of} fib saddr type != local {to}")),
            );
        }
        let mut all = Elements::default();
        for (vip, rules) in of_vip.into_iter().filter(|(_, rules)| !rules.is_empty()) {
            let chain = ruleset.chain(&format!("source_{}", word(vip)), &rules);
            all.add(vip.to_string(), false, format!("goto {chain}"));
        }
        let ip = family.word();
        let sets = ruleset.shared(&format!("source_{ip}"), family.address(), Some("verdict"), all);
        let rule = |set| format!("ct status dnat ct original {ip} daddr vmap @{set}");
        hook.extend(sets.into_iter().map(rule));
    }
    if !hook.is_empty() {
        let at = "nat hook postrouting priority srcnat".to_owned();
        ruleset.hook("source".to_owned(), at, hook);
    }
}

/// What a backend sees in place of the client.
fn replaced(forward: &Forward, family: Family) -> Option<String> {
    let (ip, protocol) = (family.word(), forward.protocol.name());
    match &forward.source.in_place_of_clients(forward.vip)[..] {
        [] => None,
        [one] => Some(format!("snat {ip} to {one}")),
        // The same one on each node.
        many => {
            let entries = many.iter().enumerate().map(|(n, seen)| format!("{n} : {seen}"));
            let entries = entries.collect::<Vec<_>>().join(", ");
            let hash = format!("jhash {ip} saddr . {protocol} sport mod {}", many.len());
            Some(format!("snat {ip} to {hash} seed {SEED:#x} map {{ {entries} }}"))
        }
    }
}

/// Tells clients at once that nobody is there, instead of letting them wait.
fn refuse(by_family: &ByFamily<'_>, ruleset: &mut Ruleset) {
    let mut hook = Vec::new();
    for (family, services) in by_family {
        let rules = |forward: &Forward| match forward.spread {
            Spread::Local | Spread::Hash(_) | Spread::HashClient(..) | Spread::Turns(_) => {
                Vec::new()
            }
            Spread::Refuse => {
                let with = match forward.protocol {
                    Protocol::Tcp => "tcp reset",
                    Protocol::Udp => "icmpx type port-unreachable",
                };
                let (protocol, name) = (forward.protocol.name(), counter(forward, Of::Refused));
                vec![format!("meta l4proto {protocol} counter name \"{name}\" reject with {with}")]
            }
        };
        let to = dispatched("refuse", *family, services, rules, ruleset);
        hook.extend(to.into_iter().map(|rule| format!("ct state new {rule}")));
    }
    if !hook.is_empty() {
        ruleset.hook("refuse".to_owned(), "filter hook input priority filter".to_owned(), hook);
    }
}
