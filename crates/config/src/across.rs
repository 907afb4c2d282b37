//! Holds VIPs against each other and against the peers: nothing may be two things at once.

use crate::Code;
use crate::bundle::Bundle;
use crate::cluster;
use crate::locality;
use crate::peers::Peers;
use crate::report::{At, Problems, Span};
use crate::source;
use crate::value;
use crate::vip::Vip;
use buoy_model::{Cidr, Forward, GroupId, Mode, Ports, Protocol, Service, SourceAddress};
use core::net::IpAddr;
use std::collections::{BTreeSet, HashMap};

pub(crate) fn check(vips: &[Vip], peers: &Peers, problems: &mut Problems<'_>) {
    refuse_same_address(vips, problems);
    refuse_same_name(vips, problems);
    refuse_peers(vips, peers, problems);
    refuse_shared_backends(vips, problems);
    locality::check(vips, peers, problems);
}

/// What concerns VIPs as they move: together, or apart.
pub(crate) fn check_bundles(bundles: &[Bundle], problems: &mut Problems<'_>) {
    refuse_same_key(bundles, problems);
    refuse_foreign_name(bundles, problems);
    warn_of_lonely_labels(bundles, problems);
    source::check_bundles(bundles, problems);
}

/// Two ranges may have hundreds of addresses in common: they are told once.
fn refuse_same_address(vips: &[Vip], problems: &mut Problems<'_>) {
    let mut seen: HashMap<IpAddr, Vec<(&Vip, &At<Cidr>)>> = HashMap::new();
    let mut twice: Vec<(IpAddr, &Span, &Span, usize, &str)> = Vec::new();
    for (vip, address) in vips.iter().flat_map(|vip| vip.addresses.iter().map(move |a| (vip, a))) {
        let At { value: cidr, span } = address;
        let holders = seen.entry(cidr.address()).or_default();
        let stranger = holders.iter().find(|(other, at)| !may_share((other, at), (vip, address)));
        let Some((other, At { span: first, .. })) = stranger else {
            for (other, _) in holders.iter() {
                refuse_same_port(cidr.address(), other, vip, problems);
            }
            holders.push((vip, address));
            continue;
        };
        let fix = match (&other.group, &vip.group) {
            (Some(one), Some(other)) if one.value == other.value => {
                "give each a name and services on other ports, to share it; or remove one of them"
            }
            _ => "remove one of them",
        };
        let same = |(_, again, other, ..): &&mut (_, &Span, &Span, _, _)| {
            (*again, *other) == (span, first)
        };
        match twice.iter_mut().rev().find(same) {
            Some((_, _, _, more, _)) => *more += 1,
            None => twice.push((cidr.address(), span, first, 0, fix)),
        }
    }
    for (address, span, first, more, fix) in twice {
        let message = match more {
            0 => format!("{address} is a VIP twice"),
            more => format!("{address} and {more} more addresses are VIPs twice"),
        };
        let (again, first) = ((span, "again here"), (first, "first here"));
        problems.add_pair(Code::DuplicateVip, again, first, message, fix);
    }
}

/// Two VIPs may have one address if they move as one, and each has its ports there.
fn may_share((one, at): (&Vip, &At<Cidr>), (other, again): (&Vip, &At<Cidr>)) -> bool {
    let label = |vip: &Vip| vip.group.as_ref().map(|group| group.value.clone());
    let interface = |vip: &Vip| vip.interface.as_ref().map(|name| name.value.clone());
    let moves_as_one = one.group.is_some() && label(one) == label(other);
    let has_ports = !one.services.is_empty() && !other.services.is_empty();
    let is_placed_alike = at.value == again.value
        && one.presence == other.presence
        && interface(one) == interface(other);
    moves_as_one && has_ports && is_placed_alike && one.name.value != other.name.value
}

fn refuse_same_port(address: IpAddr, one: &Vip, other: &Vip, problems: &mut Problems<'_>) {
    for At { value: service, span } in &other.services {
        let overlaps = |first: &&At<Service>| {
            first.value.protocol == service.protocol && first.value.ports.overlaps(service.ports)
        };
        let Some(first) = one.services.iter().find(overlaps) else { continue };
        let (ports, protocol) = (service.ports, service.protocol.name());
        let message = format!("{ports}/{protocol} of {address} is served by two VIPs");
        let (again, first) = ((span, "again here"), (&first.span, "first here"));
        let fix = "let each VIP serve other ports of the address that they share";
        problems.add_pair(Code::SharedPort, again, first, message, fix);
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

/// Two groups with one key on the wire: only an IPv6 address can have the key of another.
fn refuse_same_key(bundles: &[Bundle], problems: &mut Problems<'_>) {
    let mut seen: HashMap<GroupId, &Bundle> = HashMap::new();
    for bundle in bundles {
        let Some(first) = seen.insert(bundle.id(), bundle) else { continue };
        let smallest =
            |b: &Bundle| b.vips.iter().flat_map(|v| &v.addresses).map(|a| a.value.address()).min();
        // One address twice was said already.
        if smallest(bundle) != smallest(first) {
            cluster::collision("VIPs", &bundle.name, &first.name, bundle.id().0, problems);
        }
    }
}

/// A group and a VIP that is not in it, of one name: which one would an order mean?
fn refuse_foreign_name(bundles: &[Bundle], problems: &mut Problems<'_>) {
    let groups = bundles.iter().filter_map(|b| b.vips.first()?.group.as_ref());
    let groups: HashMap<&str, &At<String>> = groups.map(|g| (g.value.as_str(), g)).collect();
    for vip in bundles.iter().flat_map(|b| &b.vips) {
        let own = vip.group.as_ref().map(|g| g.value.as_str());
        let Some(group) = groups.get(vip.name.value.as_str()).filter(|g| own != Some(&g.value))
        else {
            continue;
        };
        let message = format!("a VIP and a group are called \"{}\"", group.value);
        let (again, first) = ((&vip.name.span, "the VIP is not in it"), (&group.span, "the group"));
        problems.add_pair(Code::DuplicateName, again, first, message, "rename one of them");
    }
}

/// A label that joins nothing is mostly mistyped.
fn warn_of_lonely_labels(bundles: &[Bundle], problems: &mut Problems<'_>) {
    let mut apart: HashMap<&str, usize> = HashMap::new();
    for label in bundles.iter().filter_map(|b| b.apart.as_ref()) {
        *apart.entry(&label.value).or_default() += 1;
    }
    let labels = || apart.keys().copied();
    for bundle in bundles {
        if let Some(label) =
            bundle.apart.as_ref().filter(|l| apart.get(l.value.as_str()) == Some(&1))
        {
            let others = labels().filter(|other| *other != label.value);
            warn_of_lonely("apart", label, others, problems);
        }
        if let (Some(label), 1) =
            (bundle.vips.first().and_then(|v| v.group.as_ref()), bundle.vips.len())
        {
            let groups = bundles.iter().filter_map(|b| b.vips.first()?.group.as_ref());
            let others = groups.map(|g| g.value.as_str()).filter(|other| *other != label.value);
            warn_of_lonely("group", label, others, problems);
        }
    }
}

fn warn_of_lonely<'v>(
    key: &str,
    label: &At<String>,
    others: impl Iterator<Item = &'v str>,
    problems: &mut Problems<'_>,
) {
    let message = format!("no other VIP has {key} = \"{}\"", label.value);
    let fix = match value::nearest(&label.value, others) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "write the same label at another VIP, or remove it".to_owned(),
    };
    let reason = "it joins VIPs, and here is only one";
    problems.add(Code::LonelyLabel, &label.span, message, reason, fix);
}

/// A range with addresses of several peers is told for each of them.
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

/// The ports of a backend that a translated service has, and what an answer from there becomes.
struct Claim<'v> {
    backend: IpAddr,
    protocol: Protocol,
    ports: Ports,
    /// It gets this address, and its port goes up by so much.
    becomes: (IpAddr, u16),
    span: &'v Span,
}

/// Nothing is remembered of a translated flow: by the address and port that an answer comes from it is known
/// which VIP and port it belongs to.
fn refuse_shared_backends(vips: &[Vip], problems: &mut Problems<'_>) {
    let mut claims: Vec<Claim<'_>> =
        vips.iter().flat_map(|vip| &vip.services).flat_map(claims).collect();
    claims.sort_by_key(|c| (c.backend, c.protocol, c.ports, c.span.start));
    // Of claims that are sorted, only those that have not ended can overlap the next one.
    let mut open: Vec<&Claim<'_>> = Vec::new();
    // A pool has the same backends at each address: once is enough.
    let mut told = BTreeSet::new();
    for claim in &claims {
        let of = |c: &Claim<'_>| (c.backend, c.protocol);
        open.retain(|other| of(other) == of(claim) && other.ports.overlaps(claim.ports));
        let Some(other) = open.iter().find(|other| other.becomes != claim.becomes) else {
            open.push(claim);
            continue;
        };
        let (first, again) = match other.span.start <= claim.span.start {
            true => (*other, claim),
            false => (claim, *other),
        };
        if told.insert((first.span.start, again.span.start)) {
            let (ports, protocol) = (again.ports, again.protocol.name());
            let message = format!("{ports}/{protocol} of backend {} is shared", claim.backend);
            let again = (again.span, "with \"nat\" the port of an answer tells whose it is");
            let fix = "let each VIP and port have a port of the backend, or write source = \"vip\"";
            let first = (first.span, "it is this one's already");
            problems.add_pair(Code::BackendShared, again, first, message, fix);
        }
    }
}

fn claims(At { value: service, span }: &At<Service>) -> impl Iterator<Item = Claim<'_>> {
    // Where backends see another address than the client's, an answer is known by where it goes.
    let is_nat = matches!(service.mode, Mode::Xdp { forward: Forward::Nat, .. })
        && service.source == SourceAddress::Client;
    let addresses = service.addresses.iter().filter(move |_| is_nat);
    addresses.flat_map(move |vip| {
        let able = service.backends.iter().map(|b| b.address);
        let able = able.filter(|backend| backend.is_ipv4() == vip.is_ipv4());
        able.filter_map(move |backend| {
            Some(Claim {
                backend: backend.ip(),
                protocol: service.protocol,
                // One that runs over the last port was told.
                ports: service.ports.at(backend.port())?,
                becomes: (*vip, service.ports.first().wrapping_sub(backend.port())),
                span,
            })
        })
    })
}
