//! Finds the interfaces that carry this host's legs, so that a loss of one is noticed by its carrier.

use crate::Code;
use crate::host::Host;
use crate::peers::Peers;
use crate::report::{At, Problems};
use buoy_model::{LinkId, NodeId};
use core::net::SocketAddr;

/// The interface of each leg of `me`; `None` where the host does not have the address right now.
pub(crate) fn links(
    peers: &Peers,
    me: NodeId,
    host: &Host,
    problems: &mut Problems<'_>,
) -> Vec<Option<LinkId>> {
    let Some(peer) = peers.list.iter().find(|p| p.id() == me) else { return Vec::new() };
    let link = |leg: &At<SocketAddr>| {
        let mut own = host.own();
        own.find(|(_, cidr)| cidr.address() == leg.value.ip()).map(|(link, _)| link)
    };
    let found: Vec<_> = peer.legs.iter().map(|leg| (leg, link(leg))).collect();
    // A host without any of them is not this peer, and that is said elsewhere.
    let some = found.iter().any(|(_, link)| link.is_some());
    for (n, (leg, link)) in found.iter().enumerate() {
        let Some(link) = link else {
            if some {
                warn_of_absence(leg, host, problems);
            }
            continue;
        };
        let first = found[..n].iter().find(|(_, first)| first.is_some_and(|f| f.id == link.id));
        let Some((first, _)) = first else { continue };
        let message = format!("two addresses of this host are on {}", link.name);
        let reason = "when it fails, both are silent: there is no second path";
        let fix = "write an address on another interface, or only one of them";
        let first = (&first.span, "on the same interface");
        problems.add_pair(Code::SameLink, (&leg.span, reason), first, message, fix);
    }
    found.into_iter().map(|(_, link)| link.map(|l| l.id)).collect()
}

fn warn_of_absence(leg: &At<SocketAddr>, host: &Host, problems: &mut Problems<'_>) {
    let address = leg.value.ip();
    let message = format!("this host does not have its address {address}");
    let reason = host.described();
    let fix = "give it to an interface; until then the peers are heard by the other addresses only";
    problems.add(Code::LegAbsent, &leg.span, message, reason, fix);
}
