//! Renders the services whose packets keep their addresses (direct server return): a table of its own at the
//! ingress of the VIP's interface, where a packet goes on to its backend before the kernel asks whose it is.
//!
//! The kernel finds the backend's Ethernet address by itself and takes one off the TTL. No connection is known
//! here, so a backend is hashed for every packet: where a slot gets another backend, its connections break,
//! and later fragments, which name no port, pass by to the kernel.

use super::ruleset::{Elements, Ruleset, TableFamily};
use super::translate::{self, choice};
use super::{
    DENIED, Error, Family, Forward, Observed, Of, counter, deny, is_tcp, limit, name, observe_of,
    remove_of, replace,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const FAMILY: TableFamily = TableFamily::Netdev;

/// Makes the kernel forward exactly this, by interfaces that are all there. Twice is the same as once; counters
/// go on counting. Of a service, what translates it (`source`, `relays`) does not matter here.
pub fn apply(forwards: &[Forward], before: Option<&[Forward]>) -> Result<(), Error> {
    if forwards.is_empty() {
        return remove();
    }
    let before = before.map(|before| [ruleset(before)]);
    replace(&[ruleset(forwards)], before.as_ref().map(<[Ruleset; 1]>::as_slice))
}

/// Takes the table away; being gone already is success.
pub fn remove() -> Result<(), Error> {
    remove_of(&[FAMILY])
}

/// What the kernel has; `None` when there is no table.
pub fn observe() -> Result<Option<Observed>, Error> {
    observe_of(FAMILY, None)
}

/// The table of these services.
pub(super) fn ruleset(forwards: &[Forward]) -> Ruleset {
    let mut ruleset = Ruleset::new(FAMILY);
    let mut by_link: BTreeMap<&str, Vec<&Forward>> = BTreeMap::new();
    for forward in forwards {
        ruleset.counter(DENIED.to_owned());
        translate::counters(forward, &mut ruleset);
        by_link.entry(&forward.link).or_default().push(forward);
    }
    for (link, forwards) in by_link {
        let (mut hook, link_in_names) = (Vec::new(), word_of(link));
        for family in Family::BOTH {
            let mut all = Elements::default();
            for forward in forwards.iter().filter(|f| Family::of(f.vip) == family) {
                let rules = send(forward, family, &mut ruleset);
                let chain = ruleset.chain(&format!("send_{}", name(forward)), &rules);
                translate::lead(forward, &format!("goto {chain}"), &mut all);
            }
            let (key, of) = (translate::key(family), translate::key_type(family));
            let set = format!("send_{link_in_names}_{}", family.word());
            let sets = ruleset.shared(&set, &of, Some("verdict"), all).into_iter();
            hook.extend(sets.map(|set| format!("{key} vmap @{set}")));
        }
        let at = format!("filter hook ingress device \"{link}\" priority filter");
        ruleset.hook(format!("ingress_{link_in_names}"), at, hook);
    }
    ruleset
}

/// An interface in a name, which may not have all that the name of an interface may.
fn word_of(link: &str) -> String {
    let mut name = String::new();
    for byte in link.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => name.push(char::from(byte)),
            _ => {
                let _ = write!(name, "_{byte:02x}");
            }
        }
    }
    name
}

/// Count a packet, and send it to its backend.
fn send(forward: &Forward, family: Family, ruleset: &mut Ruleset) -> Vec<String> {
    let (ip, protocol) = (family.word(), forward.protocol.name());
    let mut rules = deny::rules(forward, family, "", ruleset);
    rules.extend(limit::rule(forward, family, ""));
    let count = |of| format!("counter name \"{}\"", counter(forward, of));
    rules.push(count(Of::Traffic));
    if is_tcp(forward) {
        rules.push(format!("tcp flags & (syn | ack) == syn {}", count(Of::Connections)));
    }
    let Some((key, list)) = choice(&forward.spread, ip, protocol) else {
        rules.push(format!("{} drop", count(Of::Refused)));
        return rules;
    };
    let entries: Vec<String> =
        list.iter().enumerate().map(|(i, b)| format!("{i} : {}", b.ip())).collect();
    rules.push(format!(
        "fwd {ip} to {key} map {{ {} }} device \"{}\"",
        entries.join(", "),
        forward.link
    ));
    rules
}
