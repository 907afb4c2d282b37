//! Renders ports: which are a service's own, how `nft` matches them, and where they lead.
//!
//! `nft` wants the elements of a set apart, so a range is written as what others leave of it.

use super::Forward;
use buoy_model::Ports;
use std::collections::BTreeMap;

/// Says that a segment does not open a connection. A range may have the ports that a backend calls others
/// from, and these are not answers.
pub(crate) const NOT_FIRST: &str = "tcp flags & (fin | syn | rst | ack) != syn";

/// What others leave of its ports.
pub(super) fn own(forward: &Forward) -> Vec<Ports> {
    forward.ports.without(&forward.within)
}

/// How its ports are matched; `None` where others have them all.
pub(super) fn matched(forward: &Forward) -> Option<String> {
    match own(forward).as_slice() {
        [] => None,
        [ports] => Some(written(*ports)),
        many => {
            let many: Vec<String> = many.iter().map(|ports| written(*ports)).collect();
            Some(format!("{{ {} }}", many.join(", ")))
        }
    }
}

/// The name of its ports in a counter.
pub(super) fn named(ports: Ports) -> String {
    if ports == Ports::ALL { "all".to_owned() } else { ports.to_string() }
}

/// As `nft` reads it.
pub(crate) fn written(ports: Ports) -> String {
    if ports.is_one() {
        ports.first().to_string()
    } else {
        format!("{}-{}", ports.first(), ports.last())
    }
}

/// What follows the address that a flow is given, where the ports of a range get other numbers.
pub(super) fn moved(forward: &Forward) -> String {
    // Of a range all backends begin at the same port.
    let base = forward.backends.first().map_or(forward.ports.first(), |b| b.port());
    if base == forward.ports.first() {
        return String::new();
    }
    let ports = own(forward).into_iter().flat_map(|own| own.first()..=own.last());
    let to = |port: u16| base.wrapping_add(port - forward.ports.first());
    let entries: Vec<String> = ports.map(|port| format!("{port} : {}", to(port))).collect();
    format!(" : {} dport map {{ {} }}", forward.protocol.name(), entries.join(", "))
}

/// The ports that answers of its backends come from, with the words of an element before and behind them.
pub(crate) fn answering(forward: &Forward) -> impl Iterator<Item = (String, Ports)> {
    forward.backends.iter().flat_map(|backend| {
        let base = backend.port().wrapping_sub(forward.ports.first());
        let at = move |own: Ports| own.at(own.first().wrapping_add(base));
        own(forward).into_iter().filter_map(at).map(|ports| (backend.ip().to_string(), ports))
    })
}

/// Elements of a set without a port twice, and whether each is a range: services may share backends.
pub(crate) fn elements(
    all: impl Iterator<Item = (String, Ports, String)>,
) -> impl Iterator<Item = (String, bool)> {
    let mut ports_of: BTreeMap<(String, String), Vec<Ports>> = BTreeMap::new();
    for (before, ports, behind) in all {
        ports_of.entry((before, behind)).or_default().push(ports);
    }
    ports_of.into_iter().flat_map(|((before, behind), ports)| {
        let written =
            move |ports: Ports| (format!("{before} . {}{behind}", written(ports)), !ports.is_one());
        apart(ports).into_iter().map(written)
    })
}

/// Ports that overlap as one.
pub(crate) fn apart(mut all: Vec<Ports>) -> Vec<Ports> {
    all.sort_unstable();
    let mut apart: Vec<Ports> = Vec::new();
    for ports in all {
        match apart.last_mut().filter(|last| last.overlaps(ports)) {
            Some(last) => {
                let end = last.last().max(ports.last());
                *last = Ports::new(last.first(), end).unwrap_or(*last);
            }
            None => apart.push(ports),
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_a_set_have_no_port_in_common() {
        let ports = |first, last| Ports::new(first, last).unwrap();
        let list = [("b", 10, 19), ("a", 80, 80), ("b", 15, 30), ("a", 80, 80), ("b", 31, 31)];
        let list = list.map(|(ip, first, last)| (ip.to_owned(), ports(first, last), " . v".into()));
        let set: Vec<_> = elements(list.into_iter()).collect();
        let wanted = [("a . 80 . v", false), ("b . 10-30 . v", true), ("b . 31 . v", false)];
        assert_eq!(set, wanted.map(|(element, is_range)| (element.to_owned(), is_range)));
    }
}
