//! Whether the network carries what services of mode "xdp" send: room for whole packets, and how fast. Pure.
//!
//! A client's packet may be as large as the MTU of the interface that the VIP is on. What the fast path makes of
//! it, with an outer header or not, must fit the interface towards the backend: it fragments nothing.

use super::Finding;
use buoy_api::ClusterStatus;
use buoy_kernel::fast::Way;
use buoy_model::{Desired, Forward, LinkId, Mode, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Names that one finding gives.
const SHOWN: usize = 3;
/// The largest MTU that drivers take XDP with that sees a frame in one piece: a page less the room before and
/// behind it. Some have even less.
const ONE_PAGE: u32 = 3_498;
/// Headers of IPv4 or IPv6, and TCP: what an MSS is smaller by than an MTU.
const TCP_HEADERS: [u32; 2] = [40, 60];

/// An interface, as far as it matters here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) mtu: u32,
}

/// What is known of the host.
pub(super) struct Host<'h> {
    pub(super) interfaces: &'h BTreeMap<LinkId, Interface>,
    /// The way to a backend.
    pub(super) way: &'h mut dyn FnMut(IpAddr) -> Option<Way>,
    /// The driver of an interface, by its name.
    pub(super) driver: &'h dyn Fn(&str) -> Option<String>,
}

/// Examines what services of mode "xdp" meet on their way.
pub(super) fn examine(
    desired: &Desired,
    status: Option<&ClusterStatus>,
    host: &mut Host<'_>,
) -> Vec<Finding> {
    let mut findings = rooms(desired, host);
    findings.extend(status.map(|status| slow(status, host)).unwrap_or_default());
    findings
}

/// Backends that a client's largest packet is too large for, all for one reason.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Narrow {
    /// Where clients' packets come in, and how large those are.
    vip: (String, u32),
    /// Where they go out, and how large they may be.
    out: (String, u32),
    /// What is put before each.
    overhead: u32,
    is_ipv4: bool,
    how: &'static str,
}

fn rooms(desired: &Desired, host: &mut Host<'_>) -> Vec<Finding> {
    let mut narrow: BTreeMap<Narrow, BTreeSet<String>> = BTreeMap::new();
    let mut looked_at = 0;
    for (group, service) in
        desired.groups.iter().flat_map(|g| g.services.iter().map(move |s| (g, s)))
    {
        let Mode::Xdp { forward, .. } = service.mode else { continue };
        for address in &service.addresses {
            let on = group.addresses.iter().find(|vip| vip.cidr.address() == *address);
            let Some(vip) = on.and_then(|vip| host.interfaces.get(&vip.link?)).cloned() else {
                continue;
            };
            for (way, backend) in ways(service, *address, forward, host) {
                looked_at += 1;
                let Some(out) = way else { continue };
                let overhead = overhead(forward, backend.1);
                if vip.mtu + overhead <= out.mtu {
                    continue;
                }
                let of = Narrow {
                    vip: (vip.name.clone(), vip.mtu),
                    out: (out.name, out.mtu),
                    overhead,
                    is_ipv4: address.is_ipv4(),
                    how: how(forward),
                };
                let named = format!(
                    "{} {}/{} to {}",
                    group.name,
                    service.ports,
                    service.protocol.name(),
                    backend.0
                );
                narrow.entry(of).or_default().insert(named);
            }
        }
    }
    if narrow.is_empty() && looked_at > 0 {
        return vec![Finding::ok(
            "mtu",
            "a client's largest packet has room on the way to every backend of mode \"xdp\"",
        )];
    }
    narrow.into_iter().map(|(narrow, services)| too_narrow(&narrow, &services)).collect()
}

/// The interface to each backend that a packet for this address may go to, if there is one; its name and address.
fn ways(
    service: &Service,
    vip: IpAddr,
    forward: Forward,
    host: &mut Host<'_>,
) -> Vec<(Option<Interface>, (String, IpAddr))> {
    let takes = |ip: IpAddr| is_wrapped(forward) || ip.is_ipv4() == vip.is_ipv4();
    let backends = service.backends.iter().filter(|backend| takes(backend.address.ip()));
    let mut out = |backend: &buoy_model::Backend| {
        let ip = backend.address.ip();
        let interface = match (host.way)(ip) {
            Some(Way::Via(hop)) => host.interfaces.get(&hop.link).cloned(),
            Some(Way::Local) | None => None,
        };
        (interface, (backend.name.clone(), ip))
    };
    backends.map(&mut out).collect()
}

const fn is_wrapped(forward: Forward) -> bool {
    match forward {
        Forward::Tunnel | Forward::Gue { .. } => true,
        Forward::Dsr | Forward::Nat | Forward::Local => false,
    }
}

const fn overhead(forward: Forward, backend: IpAddr) -> u32 {
    let outer = if backend.is_ipv4() { 20 } else { 40 };
    match forward {
        Forward::Tunnel => outer,
        Forward::Gue { .. } => outer + 8,
        Forward::Dsr | Forward::Nat | Forward::Local => 0,
    }
}

const fn how(forward: Forward) -> &'static str {
    match forward {
        Forward::Tunnel => "by tunnel",
        Forward::Gue { .. } => "by tunnel in UDP (gue)",
        Forward::Dsr => "by dsr",
        Forward::Nat => "by nat",
        Forward::Local => "local",
    }
}

fn too_narrow(narrow: &Narrow, services: &BTreeSet<String>) -> Finding {
    let Narrow { vip: (vip, mtu), out: (out, room), overhead, is_ipv4, how } = narrow;
    let fits = room.saturating_sub(*overhead);
    let grown = if *overhead == 0 {
        String::new()
    } else {
        format!(" (with {overhead} bytes of an outer header {})", mtu + overhead)
    };
    let found = format!(
        "{} {how}: packets of clients may have {mtu} bytes on {vip}{grown}, and {out} takes {room}. \
         Larger ones than {fits} are refused, and their sender is told by ICMP; where a firewall \
         keeps that from clients, their uploads hang",
        listed(services)
    );
    let [v4, v6] = TCP_HEADERS;
    let mss = fits.saturating_sub(if *is_ipv4 { v4 } else { v6 });
    let fix = format!(
        "raise the MTU to {} on {out}, on its switches and on the backends (ip link set {out} mtu {}); \
         or let the servers ask clients for less, each with `nft add rule inet filter output tcp \
         flags syn tcp option maxseg size set {mss}`",
        mtu + overhead,
        mtu + overhead
    );
    Finding::warn("mtu", found, fix)
}

fn listed(names: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Interfaces where the program is behind the driver, and the likely reason.
fn slow(status: &ClusterStatus, host: &Host<'_>) -> Vec<Finding> {
    let engines = status.vips.iter().flat_map(|vip| &vip.services).map(|s| s.engine.as_str());
    let names: BTreeSet<&str> = engines.flat_map(generic).collect();
    let finding = |name: &str| {
        let driver = (host.driver)(name);
        let whose = driver.map_or_else(String::new, |driver| format!(" (driver {driver})"));
        let mtu = host.interfaces.values().find(|known| known.name == name).map_or(0, |i| i.mtu);
        let found = format!(
            "{name}{whose} runs XDP in generic mode: the kernel makes a buffer of its own for each \
             packet first, which costs several times as much as the program"
        );
        if mtu > ONE_PAGE {
            let fix = format!(
                "its MTU of {mtu} is the likely reason, because a frame must fit one page for XDP: \
                 `ip link set {name} mtu {ONE_PAGE}` at most, on all hosts of that segment, and \
                 restart the agent; or leave it"
            );
            return Finding::warn("xdp mode", found, fix);
        }
        let fix = format!(
            "what a driver may want first: `ethtool -K {name} lro off rx-gro-hw off`, fewer queues \
             (`ethtool -L {name} combined N`: half of what it has), no other XDP program; then \
             restart the agent. Bonds and some cards have no XDP of their own; nothing is lost but speed"
        );
        Finding::warn("xdp mode", found, fix)
    };
    names.into_iter().map(finding).collect()
}

/// The interfaces that an engine says to be generic, as in `XDP (eth0: driver, eth1: generic)`.
fn generic(engine: &str) -> Vec<&str> {
    let inside = engine.split_once('(').map_or("", |(_, rest)| rest).trim_end_matches(')');
    let places = inside.split(", ").filter_map(|place| place.split_once(": "));
    places.filter(|(_, mode)| *mode == "generic").map(|(name, _)| name).collect()
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
