//! Says what would drop packets for a VIP on a real server, or tell the segment that the VIP is there.

use super::decap::OnInterface;
use super::plan::{LOOPBACK, Rule, effective, listed, said};
use super::seen::Seen;
use super::state::Vips;
use super::tunnel::Tunnel;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// How well something is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    /// As it should be.
    Ok,
    /// Packets come through, but not all that might.
    Warn,
    /// Packets are dropped, or somebody hears of the VIP who must not.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Condition {
    /// How well it is.
    pub health: Health,
    /// What was looked at, in a word.
    pub about: &'static str,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where nothing is to be done.
    pub fix: String,
}

impl Condition {
    fn ok(about: &'static str, found: String) -> Self {
        Self { health: Health::Ok, about, found, fix: String::new() }
    }

    fn fail(about: &'static str, found: String, fix: String) -> Self {
        Self { health: Health::Fail, about, found, fix }
    }
}

/// Everything that packets for these VIPs meet.
pub(super) fn conditions(vips: &Vips, seen: &Seen<'_>) -> Vec<Condition> {
    let mut conditions = addresses(vips, seen);
    let mut interfaces: BTreeSet<&str> = BTreeSet::new();
    for vip in vips.values() {
        if interfaces.insert(&vip.interface) {
            conditions.extend(interface(&vip.interface, vips, seen));
        }
    }
    if vips.keys().any(IpAddr::is_ipv4) {
        conditions.extend(silence(seen));
    }
    conditions.extend(firewall(seen));
    conditions
}

/// What rules do to a packet is known when it comes; that there are some is known before.
fn firewall(seen: &Seen<'_>) -> Option<Condition> {
    let chains = listed(seen.filters.iter().map(String::as_str));
    (!seen.filters.is_empty()).then(|| {
        let found = format!(
            "nftables drops what no rule accepts ({chains}): it must accept the VIP's ports from clients, \
             not from the director, whom the packets do not come from"
        );
        Condition::ok("firewall", found)
    })
}

fn addresses(vips: &Vips, seen: &Seen<'_>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for (address, vip) in vips {
        let before = conditions.len();
        for (interface, cidr) in seen.elsewhere(*address) {
            conditions.push(Condition::fail(
                "address",
                format!(
                    "{address} is on {interface}: this host answers for it on the segment, beside \
                     the director"
                ),
                format!("ip address del {cidr} dev {interface}"),
            ));
        }
        for cidr in seen.too_wide(*address) {
            conditions.push(Condition::fail(
                "address",
                format!("{LOOPBACK} has {cidr}, which makes the whole subnet local to this host"),
                format!("ip address del {cidr} dev {LOOPBACK}"),
            ));
        }
        if !seen.on_loopback(*address) {
            let tunnel = vip.tunnel.option();
            conditions.push(Condition::fail(
                "address",
                format!("{address} is not on {LOOPBACK}: packets for it are not for this host"),
                format!("buoy backend add {address}{tunnel}"),
            ));
        }
        if conditions.len() == before {
            conditions.push(Condition::ok("address", format!("{address} is on {LOOPBACK}")));
        }
    }
    conditions
}

/// What packets that come by this interface meet.
fn interface(name: &str, vips: &Vips, seen: &Seen<'_>) -> Vec<Condition> {
    let here = || vips.iter().filter(|(_, vip)| vip.interface == name);
    let up = match seen.interfaces.get(name) {
        None => {
            let found = format!("there is no {name}, by which packets were to come");
            let fix = format!(
                "buoy backend add {} --interface, with one of {}",
                here().map(|(address, _)| address.to_string()).collect::<Vec<_>>().join(" "),
                listed(seen.interfaces())
            );
            return vec![Condition::fail("interface", found, fix)];
        }
        Some(true) => Condition::ok("interface", format!("{name} is up")),
        Some(false) => Condition::fail(
            "interface",
            format!("{name} is down or has no carrier"),
            format!("ip link set {name} up; else look at its cable"),
        ),
    };
    let mut conditions = vec![up];
    if here().any(|(address, _)| address.is_ipv4()) {
        conditions.push(reverse_path(name, seen));
    }
    if here().any(|(address, _)| address.is_ipv6())
        && seen.setting(&format!("net/ipv6/conf/{name}/disable_ipv6")).as_deref() != Some("0")
    {
        conditions.push(Condition::fail(
            "disable_ipv6",
            format!("IPv6 is switched off on {name}, which drops all of it"),
            format!("sysctl -w net/ipv6/conf/{name}/disable_ipv6=0"),
        ));
    }
    let tunnel = here().map(|(address, vip)| (*address, vip.tunnel));
    let tunnel: BTreeMap<IpAddr, Tunnel> = tunnel.filter(|(_, t)| t.is_any()).collect();
    if !tunnel.is_empty() {
        conditions.extend(decapsulation(name, &tunnel, vips, seen));
    }
    conditions
}

/// Strict checks drop clients whom this host would answer by another interface, if there is one.
fn reverse_path(name: &str, seen: &Seen<'_>) -> Condition {
    let of =
        |which: &str| seen.setting(&format!("net/ipv4/conf/{which}/rp_filter")).unwrap_or_default();
    if effective(&of(name), &of("all")) == 1 && seen.has_several_ways_out() {
        return Condition::fail(
            "rp_filter",
            format!("{name} drops clients whom this host would answer by another way (strict)"),
            format!("sysctl -w net/ipv4/conf/{name}/rp_filter=2"),
        );
    }
    Condition::ok("rp_filter", format!("{name} takes packets from wherever clients are"))
}

/// What prepares for these again: a command for each encapsulation.
fn add_again(name: &str, tunnel: &BTreeMap<IpAddr, Tunnel>) -> String {
    let mut by_option: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (vip, tunnel) in tunnel {
        by_option.entry(tunnel.option()).or_default().push(vip.to_string());
    }
    let commands = by_option.into_iter().map(|(option, vips)| {
        format!("buoy backend add {}{option} --interface {name}", vips.join(" "))
    });
    commands.collect::<Vec<_>>().join("; ")
}

fn decapsulation(
    name: &str,
    tunnel: &BTreeMap<IpAddr, Tunnel>,
    vips: &Vips,
    seen: &Seen<'_>,
) -> Vec<Condition> {
    let fix = || add_again(name, tunnel);
    let (decap, counts) = match seen.programs.get(name) {
        Some(OnInterface::Ours(decap, counts)) => (decap, counts),
        Some(OnInterface::Another(program)) => {
            let found =
                format!("{name} has another XDP program, {program}, so nothing is decapsulated");
            let fix = format!("ip link set dev {name} xdp off, if nobody needs it; then {}", fix());
            return vec![Condition::fail("tunnel", found, fix)];
        }
        None => {
            let found = format!("nothing decapsulates on {name}: tunnelled packets are dropped");
            return vec![Condition::fail("tunnel", found, fix())];
        }
    };
    let is_known = |vip: &IpAddr, tunnel: Tunnel| {
        decap.vips.get(vip).is_some_and(|known| known.covers(tunnel))
    };
    let unknown = tunnel.iter().filter(|(vip, tunnel)| !is_known(vip, **tunnel));
    let unknown: Vec<_> = unknown.map(|(vip, tunnel)| said(*vip, *tunnel)).collect();
    if !unknown.is_empty() {
        let found = format!("packets for {} are not decapsulated on {name}", listed(unknown));
        return vec![Condition::fail("tunnel", found, fix())];
    }
    let mut conditions = vec![Condition::ok(
        "tunnel",
        format!(
            "{name} decapsulates what is sent to {}: {} so far, {} malformed",
            listed(&decap.own),
            counts.decapsulated,
            counts.malformed
        ),
    )];
    let own = seen.own(vips);
    let new: Vec<_> = own.difference(&decap.own).collect();
    if !new.is_empty() {
        conditions.push(Condition {
            health: Health::Warn,
            about: "tunnel",
            found: format!("what is tunnelled to {} is not decapsulated yet", listed(new)),
            fix: fix(),
        });
    }
    if counts.fragments > 0 {
        let widest = decap.vips.values().fold(Tunnel::NONE, |all, tunnel| all.or(*tunnel));
        let (v4, v6) = widest.overhead();
        conditions.push(Condition {
            health: Health::Warn,
            about: "tunnel",
            found: format!(
                "{} tunnelled packets came to {name} in fragments, which are not put together",
                counts.fragments
            ),
            fix: format!(
                "a larger MTU between director and this host, by {v4} bytes (IPv4) or {v6} (IPv6)"
            ),
        });
    }
    conditions
}

/// Whether all interfaces keep silent about what is on loopback.
fn silence(seen: &Seen<'_>) -> Vec<Condition> {
    let answers = loud(Rule::Silent, "arp_ignore", "1", seen).map(|(names, fix)| {
        let found = format!("ARP for the VIP is answered on {names}, beside the director");
        Condition::fail("arp_ignore", found, fix)
    });
    let asks = loud(Rule::Modest, "arp_announce", "2", seen).map(|(names, fix)| {
        let found = format!(
            "neighbours are asked in the name of the VIP on {names}, which tells them that it is here"
        );
        Condition::fail("arp_announce", found, fix)
    });
    let conditions: Vec<_> = answers.into_iter().chain(asks).collect();
    if conditions.is_empty() {
        let found = "nobody is answered or asked for the VIP".to_owned();
        return vec![Condition::ok("ARP", found)];
    }
    conditions
}

/// The interfaces where this setting will not do, and how it would.
fn loud(rule: Rule, setting: &str, value: &str, seen: &Seen<'_>) -> Option<(String, String)> {
    let of =
        |which: &str| seen.setting(&format!("net/ipv4/conf/{which}/{setting}")).unwrap_or_default();
    let is_loud =
        |own: &str, all: &str| rule.value_for(&effective(own, all).to_string(), "").is_some();
    let all = of("all");
    let names: Vec<&str> = seen.interfaces().filter(|name| is_loud(&of(name), &all)).collect();
    if names.is_empty() {
        return None;
    }
    let mut fix = format!("sysctl -w net/ipv4/conf/all/{setting}={value}");
    for name in names.iter().filter(|name| is_loud(&of(name), value)) {
        fix.push_str(&format!(" net/ipv4/conf/{name}/{setting}={value}"));
    }
    Some((listed(names), fix))
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
