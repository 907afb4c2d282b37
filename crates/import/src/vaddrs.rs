//! Reads a vaddrs file: one VIP a line, with its interface and its sub-interface.

use crate::draft::{Table, quoted};
use crate::notes::{Notes, shown};
use crate::{Imported, Options, finish};
use std::net::IpAddr;

/// Reads `text`, which is called `file`: lines `VIP interface sub-interface`, comments begin with `#`.
pub fn vaddrs(text: &str, file: &str, options: &Options) -> Imported {
    let mut notes = Notes::new(file);
    let mut seen: Vec<IpAddr> = Vec::new();
    let mut tables = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.split('#').next().unwrap_or_default();
        let words: Vec<&str> = content.split_whitespace().collect();
        let Some((vip, rest)) = words.split_first() else { continue };
        let Some((address, prefix)) = split(vip) else {
            notes.left(line, content.trim(), "its first word is no address");
            continue;
        };
        if seen.contains(&address) {
            notes.left(line, content.trim(), "the address was there before");
            continue;
        }
        seen.push(address);
        let mut table = Table::new("[[vip]]");
        let prefix = prefix.unwrap_or_else(|| {
            let usual = usual_prefix(address);
            notes.say(
                line,
                format!("{address} has no prefix: /{usual} is assumed, write that of its subnet"),
            );
            usual
        });
        table.set("address", quoted(&format!("{address}/{prefix}")));
        match rest.first() {
            Some(interface) => read_interface(line, interface, &mut table, &mut notes),
            None => notes.say(
                line,
                format!("{address} names no interface: the one with its subnet is taken"),
            ),
        }
        read_rest(line, rest, &mut notes);
        tables.push(table);
    }
    finish(tables, Table::new(""), options, notes)
}

fn read_interface(line: usize, word: &str, table: &mut Table, notes: &mut Notes) {
    let interface = word.split_once(':').map_or(word, |(interface, _)| interface);
    if interface != word {
        notes.say(
            line,
            format!("{} is written as {}: Buoy sets no labels", shown(word), shown(interface)),
        );
    }
    table.set("interface", quoted(interface));
}

/// What follows the interface.
fn read_rest(line: usize, rest: &[&str], notes: &mut Notes) {
    if let Some(sub) = rest.get(1) {
        notes.left(
            line,
            sub,
            "Buoy puts the address on the interface itself, without a sub-interface or label",
        );
    }
    for word in rest.iter().skip(2) {
        notes.left(line, word, "a line has an address, an interface and a sub-interface");
    }
}

/// Address and prefix, the latter also as a netmask; `None` where the first part is no address.
pub(crate) fn split(word: &str) -> Option<(IpAddr, Option<u8>)> {
    let (address, prefix) = match word.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (word, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => None,
        Some(text) => Some(
            text.parse()
                .ok()
                .or_else(|| netmask(text))
                .filter(|bits| (1..=longest).contains(bits))?,
        ),
    };
    Some((address, prefix))
}

/// The bits of `255.255.255.0`.
pub(crate) fn netmask(text: &str) -> Option<u8> {
    let mask = u32::from(text.parse::<std::net::Ipv4Addr>().ok()?);
    let bits = mask.leading_ones();
    (mask.count_ones() == bits).then(|| u8::try_from(bits).ok()).flatten()
}

/// What subnets mostly have.
pub(crate) const fn usual_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 24 } else { 64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_prefix_or_a_netmask() {
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        let cases = [
            ("10.0.0.1", ip("10.0.0.1"), None),
            ("10.0.0.1/24", ip("10.0.0.1"), Some(24)),
            ("10.0.0.1/255.255.255.128", ip("10.0.0.1"), Some(25)),
            ("2001:db8::1/64", ip("2001:db8::1"), Some(64)),
        ];
        for (word, address, prefix) in cases {
            assert_eq!(split(word), address.map(|address| (address, prefix)), "{word}");
        }
        for word in ["", "eth0", "10.0.0.1/33", "10.0.0.1/255.0.255.0", "10.0.0.1/x", "10.0.0.1/0"]
        {
            assert_eq!(split(word), None, "{word}");
        }
    }
}
