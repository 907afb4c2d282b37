//! Holds VIPs against each other and against the peers: nothing may be two things at once.

use crate::Code;
use crate::cluster;
use crate::peers::Peers;
use crate::report::{At, Problems, Span};
use crate::vip::Vip;
use buoy_model::GroupId;
use core::net::IpAddr;
use std::collections::HashMap;

pub(crate) fn check(vips: &[Vip], peers: &Peers, problems: &mut Problems<'_>) {
    refuse_same_address(vips, problems);
    refuse_same_name(vips, problems);
    refuse_same_key(vips, problems);
    refuse_peers(vips, peers, problems);
}

fn refuse_same_address(vips: &[Vip], problems: &mut Problems<'_>) {
    let mut seen: HashMap<IpAddr, &Span> = HashMap::new();
    for At { value: cidr, span } in vips.iter().flat_map(|vip| &vip.addresses) {
        match seen.get(&cidr.address()) {
            Some(first) => {
                let message = format!("{} is a VIP twice", cidr.address());
                let (again, first) = ((span, "again here"), (*first, "first here"));
                problems.add_pair(Code::DuplicateVip, again, first, message, "remove one of them");
            }
            None => {
                seen.insert(cidr.address(), span);
            }
        }
    }
}

fn refuse_same_name(vips: &[Vip], problems: &mut Problems<'_>) {
    let mut seen: HashMap<&str, &Vip> = HashMap::new();
    for vip in vips {
        let Some(first) = seen.insert(&vip.name.value, vip) else { continue };
        // Two VIPs without a name and with one address: said already, as a double address.
        if first.addresses.iter().any(|a| a.span == first.name.span)
            && vip.addresses.iter().any(|a| a.span == vip.name.span)
        {
            continue;
        }
        let message = format!("two VIPs are called \"{}\"", vip.name.value);
        let (again, first) = ((&vip.name.span, "again here"), (&first.name.span, "first here"));
        problems.add_pair(Code::DuplicateName, again, first, message, "rename one of them");
    }
}

/// Two VIPs with one key on the wire: only an IPv6 address can have the key of another.
fn refuse_same_key(vips: &[Vip], problems: &mut Problems<'_>) {
    let mut seen: HashMap<GroupId, &Vip> = HashMap::new();
    for vip in vips {
        let Some(first) = seen.insert(vip.id(), vip) else { continue };
        let smallest = |v: &Vip| v.addresses.iter().map(|a| a.value.address()).min();
        // One address twice was said already.
        if smallest(vip) != smallest(first) {
            cluster::collision("VIPs", &vip.name, &first.name, vip.id().0, problems);
        }
    }
}

fn refuse_peers(vips: &[Vip], peers: &Peers, problems: &mut Problems<'_>) {
    for At { value: cidr, span } in vips.iter().flat_map(|vip| &vip.addresses) {
        let Some(peer) = peers.list.iter().find_map(|p| p.leg(cidr.address())) else { continue };
        let message = format!("the VIP {} is the address of a peer", cidr.address());
        let (vip, peer) =
            ((span, "a VIP moves, so it cannot be one host's own"), (&peer.span, "the peer"));
        problems.add_pair(
            Code::VipIsPeer,
            vip,
            peer,
            message,
            "choose a free address of the subnet",
        );
    }
}
