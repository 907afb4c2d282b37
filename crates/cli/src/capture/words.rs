//! What was done with a packet, in words, and what to do about it. Pure.

use super::frame;
use buoy_kernel::fast::{Action, Captured, Drop};
use buoy_model::Forward;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How backends and interfaces are called.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) backends: BTreeMap<IpAddr, String>,
    pub(super) links: BTreeMap<u32, String>,
}

impl Names {
    pub(super) fn link(&self, index: u32) -> String {
        self.links.get(&index).cloned().unwrap_or_else(|| format!("interface {index}"))
    }
}

/// What was done, why, and how to mend it; the last two may be empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Done {
    /// One word: `sent`, `here`, `translated`, `answered`, `refused`, `dropped` or `passed`.
    pub(super) verdict: &'static str,
    pub(super) said: String,
    pub(super) fix: &'static str,
}

/// Of a packet.
pub(super) fn done(captured: &Captured, names: &Names) -> Done {
    let plain = |verdict, said: String| Done { verdict, said, fix: "" };
    let left = captured.left.as_ref();
    match captured.action {
        Action::Sent(backend, forward) => {
            let how = match forward {
                Some(Forward::Dsr) => "dsr",
                Some(Forward::Tunnel) => "tunnel",
                Some(Forward::Gue { .. }) => "gue",
                Some(Forward::Nat) => "nat",
                Some(Forward::Local) => "local",
                None => "sent",
            };
            let headers = left.and_then(|left| frame::read(&left.head));
            let has_port = matches!(forward, Some(Forward::Nat | Forward::Gue { .. }));
            let to = match headers {
                Some(headers) if has_port => headers.to.to_string(),
                _ => backend.to_string(),
            };
            let to =
                names.backends.get(&backend).map_or_else(|| to.clone(), |n| format!("{n} ({to})"));
            let by =
                left.map_or_else(String::new, |left| format!(" by {}", names.link(left.link.0)));
            plain("sent", format!("{how} to {to}{by}"))
        }
        Action::Here => plain("here", "stays here: this host is its backend".into()),
        Action::Translated => {
            let vip = left.and_then(|left| frame::read(&left.head));
            let vip = vip.map_or_else(String::new, |headers| format!(" {}", headers.from));
            plain("translated", format!("an answer, from{vip} again; the kernel forwards it"))
        }
        Action::Answered => plain("answered", "answered by XDP itself, as a ping is".into()),
        Action::Passed => plain("passed", "left to the kernel of this host, untouched".into()),
        Action::Refused(reason) => {
            let (why, fix) = why(reason);
            Done {
                verdict: "refused",
                said: format!("REFUSED, and its sender is told: {why}"),
                fix,
            }
        }
        Action::Dropped(None) => plain("dropped", "DROPPED: the program does not say why".into()),
        Action::Dropped(Some(reason)) => {
            let (why, fix) = why(reason);
            Done { verdict: "dropped", said: format!("DROPPED: {why}"), fix }
        }
    }
}

/// What XDP was told, as the kernel numbers it (linux/bpf.h).
pub(super) fn xdp_verdict(captured: &Captured) -> u64 {
    let is_back = captured.left.as_ref().is_some_and(|left| left.link == captured.came.link);
    match captured.action {
        Action::Dropped(_) => 1,
        Action::Here | Action::Translated | Action::Passed => 2,
        Action::Sent(..) | Action::Answered | Action::Refused(_) if is_back => 3,
        Action::Sent(..) | Action::Answered | Action::Refused(_) => 4,
    }
}

/// The word of `--reason`.
pub(super) fn reason_word(reason: Drop) -> String {
    reason.name().replace(' ', "-")
}

const SENDER: &str =
    "look at the sender, and at what lies between: it or the way here damages packets";

/// Why, and how to mend it.
pub(super) const fn why(reason: Drop) -> (&'static str, &'static str) {
    match reason {
        Drop::NoBackend => (
            "no backend of the service takes it",
            "`buoy status` says which backends are down, and why",
        ),
        Drop::NoNeighbour => (
            "the Ethernet address on the way to its backend is not known",
            "`buoy status` names the backend; it must answer ARP or NDP (is it up, is its VLAN right?), \
             or the router to it must",
        ),
        Drop::TooBig => (
            "it is larger than the MTU on the way to its backend",
            "raise the MTU between here and the backends, or let clients send less (`buoy doctor` says \
             how much is missing)",
        ),
        Drop::TimeToLive => (
            "its time to live is over",
            "a traceroute does that; otherwise look for a loop of routes",
        ),
        Drop::Limit => (
            "its client opens more connections than `new_connections` of the service lets it",
            "raise the limit or its burst if the client may; many people behind one address are one client",
        ),
        Drop::NoRoom => (
            "the driver leaves no room before the frame for another header, or the packet is too short to be quoted to its sender",
            "use forward = \"dsr\" or \"nat\", or a network card whose driver leaves room; if the packet is short, look for an MTU below 150 (`ip link`)",
        ),
        Drop::NoPort => (
            "no address of `source` has a port left for another flow",
            "add addresses to `source`: each has room for some thirty thousand flows of TCP, and of UDP",
        ),
        Drop::Source => (
            "`allow` and `deny` of the service do not let this client in",
            "if it should be, change them in the file and run `buoy reload`",
        ),
        Drop::Truncated => ("the frame is shorter than its IP header says", SENDER),
        Drop::IpHeader => ("an IP header makes no sense", SENDER),
        Drop::TcpHeader => ("its TCP header is not whole", SENDER),
        Drop::UdpHeader => ("its UDP header is not whole", SENDER),
        Drop::Icmp => ("its ICMP message is not whole", SENDER),
    }
}
