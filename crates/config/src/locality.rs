//! Reads where peers and backends are, and holds them against each other: which backends are near to a VIP's owner.

use crate::cluster::check_name;
use crate::keys::{service, top};
use crate::peers::Peers;
use crate::report::{At, Problems, Span, listed, shown};
use crate::tree::{self, Section, Word};
use crate::vip::Vip;
use crate::{Code, value};
use buoy_model::{Backend, Locality, Location, Node, Service};
use std::collections::BTreeSet;
use toml::de::DeValue;

/// `locality` of a service.
pub(crate) fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Locality> {
    let words = [("node", Word::Now(Locality::Node)), ("zone", Word::Now(Locality::Zone))];
    section.word(&service::LOCALITY, &words, problems).map(|word| word.value)
}

/// `zones = { lb1 = "a" }`.
pub(crate) fn read_zones(top: &Section<'_>, peers: &mut Peers, problems: &mut Problems<'_>) {
    let Some(value) = top.raw(&top::ZONES) else { return };
    let DeValue::Table(table) = value.get_ref() else {
        tree::wrong_type(&top::ZONES, value, problems);
        return;
    };
    for (name, zone) in table {
        let name = At::new(name.get_ref().as_ref(), name.span());
        let found = peers.find_owner(&name, top::ZONES.name, problems);
        let Some(text) = zone.get_ref().as_str() else {
            tree::wrong_type(&top::ZONES, zone, problems);
            continue;
        };
        if !check_name(top::ZONES.name, &At::new(text, zone.span()), problems) {
            continue;
        }
        let peer =
            peers.list.iter_mut().find(|p| found.as_ref().is_some_and(|f| p.id() == f.value));
        if let Some(peer) = peer {
            peer.zone = Some(text.to_owned());
        }
    }
}

/// `zone=NAME` or `node=NAME` of a backend; whether the word is one of them.
pub(crate) fn read_option(
    text: &At<&str>,
    word: &str,
    backend: &mut Backend,
    problems: &mut Problems<'_>,
) -> bool {
    let (key, name) = match word.split_once('=') {
        Some((key @ ("zone" | "node"), name)) => (key, name),
        Some(_) | None => return false,
    };
    let at = At::new(name, tree::inside(text, word, problems));
    if !check_name(key, &at, problems) {
        return true;
    }
    if backend.location.is_some() {
        let message = format!("\"{}\" says twice where the backend is", shown(text.value));
        let reason = "what is on a node is in its zone";
        problems.add(Code::BadBackend, &at.span, message, reason, "remove one of the two");
        return true;
    }
    let name = name.to_owned();
    let is_node = key == "node";
    backend.location = Some(if is_node { Location::Node(name) } else { Location::Zone(name) });
    true
}

/// What only the whole file tells: whether somebody is near to somebody.
pub(crate) fn check(vips: &[Vip], peers: &Peers, problems: &mut Problems<'_>) {
    if !peers.is_complete() {
        return;
    }
    let nodes = peers.nodes();
    // A pool has the same service at each address: once is enough.
    let mut seen = BTreeSet::new();
    let services = vips.iter().flat_map(|vip| &vip.services);
    for At { value: service, span } in services.filter(|s| seen.insert(s.span.start)) {
        match service.life.locality {
            None => refuse_idle(service, span, problems),
            Some(locality) => refuse_lost((service, locality), span, &nodes, problems),
        }
        refuse_strangers(service, span, &nodes, problems);
    }
}

fn refuse_idle(service: &Service, span: &Span, problems: &mut Problems<'_>) {
    let placed = service.backends.iter().find(|backend| backend.location.is_some());
    let Some(backend) = placed else { return };
    let message = format!("{} says where it is, and nobody asks", backend.name);
    let reason = "the service has no `locality`";
    let fix = "add locality = \"zone\" or \"node\", or remove zone=NAME and node=NAME";
    problems.add(Code::NeedsOther, span, message, reason, fix);
}

/// Where nobody is near to anybody, or not known to be.
fn refuse_lost(
    (service, locality): (&Service, Locality),
    span: &Span,
    nodes: &[Node],
    problems: &mut Problems<'_>,
) {
    if !service.front.routes.is_empty() {
        let message = "`locality` and `sni` contradict each other";
        let reason = "the backends of one name would rest because of those of another";
        let fix = "remove `locality`, or make a service of its own for each name";
        problems.add(Code::Contradiction, span, message, reason, fix);
        return;
    }
    let owners = || nodes.iter().filter(|node| !node.witness);
    let mut lacking = owners().filter(|node| node.zone.is_none());
    if let (Locality::Zone, Some(node)) = (locality, lacking.next()) {
        let message = format!("nobody knows the zone of {}", node.name);
        let reason =
            "with locality = \"zone\" the backends in the zone of the VIP's owner come first";
        let fix = format!("add {} to `zones` at the top of the file", node.name);
        problems.add(Code::BadLocality, span, message, reason, fix);
        return;
    }
    let is_near = |backend: &Backend| owners().any(|owner| locality.is_near(nodes, owner, backend));
    if service.discovered.is_empty() && !service.backends.iter().any(is_near) {
        let (word, fix) = match locality {
            Locality::Node => ("node", "write it into the backends that run on a peer: node=lb1"),
            Locality::Zone => ("zone", "write it into the backends: zone=a"),
        };
        let message = format!("no backend is near to any peer by its {word}");
        let reason = "so `locality` would change nothing";
        problems.add(Code::BadLocality, span, message, reason, fix);
    }
}

/// Nodes that are none, and zones without a peer.
fn refuse_strangers(service: &Service, span: &Span, nodes: &[Node], problems: &mut Problems<'_>) {
    for backend in &service.backends {
        match &backend.location {
            Some(Location::Node(name)) if nodes.iter().all(|node| node.name != *name) => {
                let names = || nodes.iter().map(|node| node.name.as_str());
                let message = format!("{} is on \"{name}\", which is not a peer", backend.name);
                let reason = format!("the peers are {}", listed(names()));
                let fix = match value::nearest(name, names()) {
                    Some(near) => format!("did you mean node={near}?"),
                    None => "write the name of a peer, or zone=NAME".to_owned(),
                };
                problems.add(Code::UnknownNode, span, message, reason, fix);
            }
            Some(Location::Zone(name)) => {
                let zones: BTreeSet<&str> =
                    nodes.iter().filter_map(|n| n.zone.as_deref()).collect();
                if zones.contains(name.as_str()) || service.life.locality.is_none() {
                    continue;
                }
                let message = format!("{} is in \"{name}\", where no peer is", backend.name);
                let reason = "it takes connections only when the near ones are not enough";
                let fix = match value::nearest(name, zones) {
                    Some(near) => format!("did you mean zone={near}?"),
                    None => "name the zone of a peer in `zones`, if that is not what you want"
                        .to_owned(),
                };
                problems.add(Code::LonelyZone, span, message, reason, fix);
            }
            Some(Location::Node(_)) | None => {}
        }
    }
}
