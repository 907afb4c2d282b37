//! Reads `routes` and `rules` of a `[[vip]]`: routing that goes where the VIP goes, in the words of `ip`.
//!
//! A text is a destination (routes only) and words in pairs, each at most once. Names of interfaces become the
//! numbers of this host in [`place`], on hosts that may own the VIP.
//! Absent on purpose: whether the kernel takes a route; it depends on the addresses of the moment.

use crate::Code;
use crate::bundle::Bundle;
use crate::host::{self, Host};
use crate::keys::{Key, vip as keys};
use crate::report::{At, Problems, choice, shown};
use crate::tree::{self, Section};
use crate::value::{self, Unfit};
use crate::vip::{self, Vip};
use buoy_model::limits::{VIP_ROUTES_MAX, VIP_RULES_MAX};
use buoy_model::{Cidr, NodeId, TABLE_MAIN, VirtualRoute, VirtualRule};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

/// What may follow the destination of a route.
const OF_ROUTE: [&str; 5] = ["via", "dev", "src", "table", "metric"];
/// What a rule is made of.
const OF_RULE: [&str; 6] = ["from", "to", "iif", "fwmark", "priority", "table"];

/// A route as the file says it: its interface is a name yet.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    route: VirtualRoute,
    dev: Option<At<String>>,
}

/// What is wrong with a text, and with which part of it.
struct Fault<'t> {
    part: &'t str,
    reason: String,
    fix: String,
}

impl<'t> Fault<'t> {
    fn new(part: &'t str, reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { part, reason: reason.into(), fix: fix.into() }
    }
}

/// The routes of a `[[vip]]`; a wrong one is reported and left out.
pub(crate) fn read_routes(section: &Section<'_>, problems: &mut Problems<'_>) -> Vec<At<Route>> {
    let read = |text: &At<&str>, problems: &mut Problems<'_>| {
        let (route, dev) = match parse_route(text.value) {
            Ok(parsed) => parsed,
            Err(fault) => return refuse(Code::BadRoute, "a route", text, fault, problems),
        };
        let dev = match dev {
            Some(dev) => Some(read_interface(text, dev, problems)?),
            None => None,
        };
        Some(Route { route, dev })
    };
    read_list(section, &keys::ROUTES, VIP_ROUTES_MAX, read, problems)
}

/// The rules of a `[[vip]]`; a wrong one is reported and left out.
pub(crate) fn read_rules(
    section: &Section<'_>,
    problems: &mut Problems<'_>,
) -> Vec<At<VirtualRule>> {
    let read = |text: &At<&str>, problems: &mut Problems<'_>| match parse_rule(text.value) {
        Ok((rule, None)) => Some(rule),
        Ok((rule, Some(name))) => read_interface(text, name, problems).map(|_| rule),
        Err(fault) => refuse(Code::BadRule, "a rule", text, fault, problems),
    };
    read_list(section, &keys::RULES, VIP_RULES_MAX, read, problems)
}

/// What is wrong with a text as an entry of `routes`, and what to do; `None`: nothing that a file alone can tell.
pub fn route_fault(text: &str) -> Option<String> {
    said(parse_route(text))
}

/// The same of `rules`.
pub fn rule_fault(text: &str) -> Option<String> {
    said(parse_rule(text))
}

fn said<T>(parsed: Result<T, Fault<'_>>) -> Option<String> {
    parsed.err().map(|fault| match fault.part {
        "" => format!("{}; {}", fault.reason, fault.fix),
        part => format!("\"{}\": {}; {}", shown(part), fault.reason, fault.fix),
    })
}

fn read_list<T>(
    section: &Section<'_>,
    key: &Key,
    most: usize,
    read: impl Fn(&At<&str>, &mut Problems<'_>) -> Option<T>,
    problems: &mut Problems<'_>,
) -> Vec<At<T>> {
    let Some(texts) = section.texts(key, problems) else { return Vec::new() };
    let fix = "leave some out, or give them to a second [[vip]] of the same `group`";
    vip::refuse_too_many(key.name, &texts.value, most, fix, problems);
    let texts = texts.value.iter().take(most);
    texts.filter_map(|text| Some(At::new(read(text, problems)?, text.span.clone()))).collect()
}

fn refuse<T>(
    code: Code,
    what: &str,
    text: &At<&str>,
    fault: Fault<'_>,
    problems: &mut Problems<'_>,
) -> Option<T> {
    let span = tree::inside(text, fault.part, problems);
    let message = format!("\"{}\" is not {what}", shown(text.value));
    problems.add(code, &span, message, fault.reason, fault.fix);
    None
}

fn read_interface(text: &At<&str>, name: &str, problems: &mut Problems<'_>) -> Option<At<String>> {
    let name = At::new(name, tree::inside(text, name, problems));
    vip::check_interface(&name, problems).then(|| At::new(name.value.to_owned(), name.span))
}

/// A route, and the name of its interface.
fn parse_route(text: &str) -> Result<(VirtualRoute, Option<&str>), Fault<'_>> {
    const AS_IN: &str = "write it as in \"192.168.3.0/24 via 10.0.0.1\"";
    let mut words = text.split_ascii_whitespace();
    let Some(to) = words.next() else { return Err(Fault::new(text, "it is empty", AS_IN)) };
    if OF_ROUTE.contains(&to) {
        return Err(Fault::new(to, "a route begins with where it leads", AS_IN));
    }
    let named = if to == "default" { None } else { Some(prefix(to)?) };
    let said = Said::read(words, &OF_ROUTE)?;
    let via = said.of("via").map(host_address).transpose()?;
    let source = said.of("src").map(host_address).transpose()?;
    let to_text = to;
    // Said of no IP version, it is of that of the others.
    let like = via.or(source).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let to = named.unwrap_or_else(|| everywhere(like.is_ipv6()));
    let other = |address: &Option<IpAddr>| {
        address.is_some_and(|address| address.is_ipv6() != to.address().is_ipv6())
    };
    for (word, address) in [("via", via), ("src", source)] {
        if other(&address) {
            let part = said.of(word).unwrap_or(text);
            let reason = format!("{to_text} and {part} are not of one IP version");
            return Err(Fault::new(part, reason, "write two routes, one of each version"));
        }
    }
    let dev = said.of("dev");
    match via {
        None if dev.is_none() => {
            let reason = "it says neither the next hop nor the interface";
            let fix = "add `via ADDRESS`, or `dev INTERFACE` where the destination is on the link";
            return Err(Fault::new(text, reason, fix));
        }
        Some(hop) if dev.is_none() && value::unfit(hop) == Some(Unfit::LinkLocal) => {
            let reason = format!("{hop} is link-local: it exists on every segment");
            return Err(Fault::new(said.of("via").unwrap_or(text), reason, "add `dev INTERFACE`"));
        }
        Some(_) | None => {}
    }
    let metric = said.of("metric").map(|metric| number(metric, 0)).transpose()?.unwrap_or(0);
    let table = said.of("table").map(table).transpose()?.unwrap_or(TABLE_MAIN);
    Ok((VirtualRoute { to, via, link: None, source, table, metric }, dev))
}

/// A rule, and the name of the interface that packets come in through.
fn parse_rule(text: &str) -> Result<(VirtualRule, Option<&str>), Fault<'_>> {
    let said = Said::read(text.split_ascii_whitespace(), &OF_RULE)?;
    let end = |word: &str| match said.of(word) {
        None | Some("all") => Ok(None),
        Some(text) => prefix(text).map(Some),
    };
    let (from, to) = (end("from")?, end("to")?);
    let v6 = from.or(to).is_some_and(|cidr| cidr.address().is_ipv6());
    if let Some(other) = to.filter(|to| to.address().is_ipv6() != v6) {
        let reason = format!("{other} and what `from` says are not of one IP version");
        let part = said.of("to").unwrap_or(text);
        return Err(Fault::new(part, reason, "write two rules, one of each version"));
    }
    let mark = said.of("fwmark").map(|mark| number(mark, 1)).transpose()?;
    let incoming = said.of("iif");
    // A prefix of 0 says the IP version and nothing else.
    let narrow = |cidr: Option<Cidr>| cidr.filter(|cidr| cidr.prefix() > 0);
    let (from, to) = (narrow(from), narrow(to));
    if from.is_none() && to.is_none() && mark.is_none() && incoming.is_none() {
        let reason = "it would be for every packet of the host";
        let fix = "add `from PREFIX`, `to PREFIX`, `iif INTERFACE` or `fwmark NUMBER`";
        return Err(Fault::new(text, reason, fix));
    }
    let Some(to_table) = said.of("table") else {
        let reason = "it does not say which routing table the packets are for";
        return Err(Fault::new(text, reason, "add `table NUMBER`, as in \"table 100\""));
    };
    let table = table(to_table)?;
    // 0 is the place of the rule for the host's own addresses.
    let priority = said.of("priority").map(|priority| number(priority, 1)).transpose()?;
    let name = incoming.map(str::to_owned);
    Ok((VirtualRule { v6, from, to, incoming: name, mark, table, priority }, incoming))
}

/// Words in pairs.
struct Said<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Said<'t> {
    /// Words of `known`, each at most once and with what comes after it.
    fn read(
        mut words: impl Iterator<Item = &'t str>,
        known: &[&'static str],
    ) -> Result<Self, Fault<'t>> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        while let Some(word) = words.next() {
            // As `ip rule` shows them.
            let meant = match word {
                "pref" => "priority",
                "lookup" => "table",
                _ => word,
            };
            if !known.contains(&meant) {
                let reason = format!("the words here are {}", choice(known));
                let fix = match value::nearest(word, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("remove \"{}\"", shown(word)),
                };
                return Err(Fault::new(word, reason, fix));
            }
            if pairs.iter().any(|(before, _)| *before == meant) {
                return Err(Fault::new(word, format!("`{meant}` is there twice"), "remove one"));
            }
            let Some(value) = words.next() else {
                let reason = format!("nothing comes after `{word}`");
                return Err(Fault::new(word, reason, "write it, or remove the word"));
            };
            pairs.push((meant, value));
        }
        Ok(Self(pairs))
    }

    fn of(&self, word: &str) -> Option<&'t str> {
        self.0.iter().find(|(said, _)| *said == word).map(|(_, value)| *value)
    }
}

fn everywhere(v6: bool) -> Cidr {
    let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    Cidr::new(any, 0).expect("every address has a prefix of 0")
}

/// An address or a prefix without host bits, as the kernel wants it.
fn prefix(text: &str) -> Result<Cidr, Fault<'_>> {
    const FIX: &str = "write a prefix, as in \"192.168.3.0/24\"";
    let (address_text, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address_text.parse::<IpAddr>() else {
        return Err(Fault::new(text, value::address_fault(address_text), FIX));
    };
    let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => Some(longest),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        Some(_) => None,
    };
    let Some(cidr) = length.and_then(|length| Cidr::new(address, length)) else {
        let reason = format!("the length of a prefix is a number from 0 to {longest} here");
        return Err(Fault::new(text, reason, FIX));
    };
    let first = first_of(cidr);
    if first != address {
        let reason = format!("{address} is one address of the prefix, and not its first");
        let fix = format!("write \"{first}/{}\", or {address} alone", cidr.prefix());
        return Err(Fault::new(text, reason, fix));
    }
    Ok(cidr)
}

/// The address of a prefix whose host bits are zero.
fn first_of(cidr: Cidr) -> IpAddr {
    let length = u32::from(cidr.prefix());
    match cidr.address() {
        IpAddr::V4(address) => {
            let host = u32::MAX.checked_shr(length).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & !host).into()
        }
        IpAddr::V6(address) => {
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & !host).into()
        }
    }
}

/// The address of one host.
fn host_address(text: &str) -> Result<IpAddr, Fault<'_>> {
    let fix = "write the address of a host, without a prefix";
    let Ok(address) = text.parse::<IpAddr>() else {
        let reason = match text.contains('/') {
            true => "it is an address without a prefix",
            false => value::address_fault(text),
        };
        return Err(Fault::new(text, reason, fix));
    };
    match value::unfit(address) {
        None | Some(Unfit::LinkLocal) => Ok(address),
        Some(unfit) => Err(Fault::new(text, unfit.reason(), fix)),
    }
}

fn table(text: &str) -> Result<u32, Fault<'_>> {
    if text == "main" {
        return Ok(TABLE_MAIN);
    }
    let only = "names of tables differ from host to host; `main` does not";
    number(text, 1).map_err(|fault| match text.starts_with(|c: char| c.is_ascii_digit()) {
        true => fault,
        false => Fault::new(text, only, "write the number of the table, as in \"table 100\""),
    })
}

/// A number from `least`, also in hexadecimal digits after 0x.
fn number(text: &str, least: u32) -> Result<u32, Fault<'_>> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let sound = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u32::from_str_radix(digits, radix).ok().filter(|n| sound && *n >= least);
    number.ok_or_else(|| {
        let reason = format!("it is a number from {least} to {}", u32::MAX);
        Fault::new(text, reason, "write such a number, in decimal digits or as 0xHEX")
    })
}

/// Two alike on one host: the first VIP that goes would take away what the other needs.
pub(crate) fn check_bundles(bundles: &[Bundle], problems: &mut Problems<'_>) {
    // What the kernel tells routes apart by.
    let place = |route: &At<Route>| {
        let VirtualRoute { to, table, metric, .. } = route.value.route;
        // Without a metric a route of IPv6 gets this one (IP6_RT_PRIO_USER).
        let is_usual = to.address().is_ipv6() && metric == 0;
        (to, table, if is_usual { 1024 } else { metric })
    };
    let fix = "remove one, or give it another `metric` or `table`";
    refuse_alike((Code::BadRoute, "routes", fix), bundles, |vip| &vip.routes, place, problems);
    let fix = "remove one; VIPs that need the same rule can be one `group`";
    let whole = |rule: &At<VirtualRule>| rule.value.clone();
    refuse_alike((Code::BadRule, "rules", fix), bundles, |vip| &vip.rules, whole, problems);
}

fn refuse_alike<T, K: Ord>(
    (code, what, fix): (Code, &str, &str),
    bundles: &[Bundle],
    list: impl Fn(&Vip) -> &Vec<At<T>>,
    key: impl Fn(&At<T>) -> K,
    problems: &mut Problems<'_>,
) {
    let mut seen: BTreeMap<(K, NodeId), &At<T>> = BTreeMap::new();
    for bundle in bundles {
        for thing in bundle.vips.iter().flat_map(&list) {
            let mut before = None;
            for node in &bundle.nodes {
                let first = *seen.entry((key(thing), *node)).or_insert(thing);
                before = before.or(Some(first).filter(|first| !core::ptr::eq(*first, thing)));
            }
            if let Some(first) = before {
                let message = format!("two {what} are alike, and a host can have both");
                let (again, first) = ((&thing.span, "again here"), (&first.span, "first here"));
                problems.add_pair(code, again, first, message, fix);
            }
        }
    }
}

/// The routes of a group with the interfaces of this host, where it may own the group.
pub(crate) fn place(
    bundle: &Bundle,
    host: Option<&Host>,
    problems: &mut Problems<'_>,
) -> Vec<VirtualRoute> {
    let routes = bundle.vips.iter().flat_map(|vip| &vip.routes);
    let place = |route: &At<Route>| {
        let Route { route, dev } = &route.value;
        let link = host.zip(dev.as_ref()).and_then(|(host, name)| {
            let fix = "name another interface, or the hosts that have it in `nodes`";
            host::find_interface(name, host, fix, problems).map(|link| link.id)
        });
        VirtualRoute { link, ..route.clone() }
    };
    routes.map(place).collect()
}
