//! Renders the services whose packets keep their addresses (direct server return): a table of its own at the
//! ingress of the VIP's interface, where a packet goes on to its backend before the kernel asks whose it is.
//!
//! The kernel finds the backend's Ethernet address by itself and takes one off the TTL. No connection is known
//! here, so a backend is hashed for every packet: where a slot gets another backend, its connections break,
//! and later fragments, which name no port, pass by to the kernel.

use super::{
    DENIED, Error, Family, Forward, Observed, Of, begin, chain, choice, counter, deny, is_tcp,
    limit, observe_of, ports, remove_of, replace,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const FAMILY: &str = "netdev";

/// Makes the kernel forward exactly this, by interfaces that are all there. Twice is the same as once; counters
/// go on counting. Of a service, what translates it (`source`, `relays`) does not matter here.
pub fn apply(forwards: &[Forward]) -> Result<(), Error> {
    if forwards.is_empty() {
        return remove();
    }
    replace(FAMILY, observe()?.as_ref(), |observed| render(forwards, observed))
}

/// Takes the table away; being gone already is success.
pub fn remove() -> Result<(), Error> {
    remove_of(&[FAMILY])
}

/// What the kernel has; `None` when there is no table.
pub fn observe() -> Result<Option<Observed>, Error> {
    observe_of(FAMILY)
}

/// The whole table as a script for `nft -f`, from whatever `observed` says is there.
pub fn render(forwards: &[Forward], observed: Option<&Observed>) -> String {
    let mut text = begin(FAMILY, forwards, &[DENIED], observed);
    let mut by_link: BTreeMap<&str, Vec<&Forward>> = BTreeMap::new();
    for forward in forwards {
        by_link.entry(&forward.link).or_default().push(forward);
    }
    for (link, forwards) in by_link {
        let hook = format!("filter hook ingress device \"{link}\" priority filter");
        chain(&mut text, &chain_of(link), &hook);
        for family in [Family::V4, Family::V6] {
            let of = |f: &&Forward| Family::of(f.vip) == family;
            let services: Vec<&Forward> = forwards.iter().copied().filter(of).collect();
            deny::render(&services, family, "", &mut text);
            limit::render(&services, family, "", &mut text);
            services.iter().for_each(|forward| send(forward, family, &mut text));
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

/// The name of an interface's chain: that of an interface may have what that of a chain may not.
fn chain_of(link: &str) -> String {
    let mut name = String::from("ingress_");
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

/// Counts a packet, and sends it to its backend.
fn send(forward: &Forward, family: Family, text: &mut String) {
    let Some(ports) = ports::matched(forward) else { return };
    let (ip, protocol) = (family.word(), forward.protocol.name());
    let matched = format!("{ip} daddr {} {protocol} dport {ports}", forward.vip);
    let mut count = |what: &str, of| {
        let _ = writeln!(text, "\t\t{matched} {what}counter name \"{}\"", counter(forward, of));
    };
    count("", Of::Traffic);
    if is_tcp(forward) {
        count("tcp flags & (syn | ack) == syn ", Of::Connections);
    }
    let Some((key, list)) = choice(&forward.spread, ip, protocol) else {
        let name = counter(forward, Of::Refused);
        let _ = writeln!(text, "\t\t{matched} counter name \"{name}\" drop");
        return;
    };
    let entries: Vec<String> =
        list.iter().enumerate().map(|(i, b)| format!("{i} : {}", b.ip())).collect();
    let _ = writeln!(
        text,
        "\t\t{matched} fwd {ip} to {key} map {{ {} }} device \"{}\"",
        entries.join(", "),
        forward.link
    );
}
