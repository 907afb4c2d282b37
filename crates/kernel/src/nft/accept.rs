//! Renders the addresses that this host answers for without taking their packets (Accept_Mode off, RFC 9568 §6.1): a
//! table of its own, which the services of the others neither need nor lose.
//!
//! It stands after translation, so what a service sends on to a backend is not concerned, and after the chain that
//! refuses clients of a service without backends, so they are told. ARP does not come by, and neighbour discovery must
//! pass (RFC 9568 §6.4.3). What this host sends to itself does not come from the segment.

use super::{ABSENT, Error, run};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The table.
pub const TABLE: &str = "buoy_accept";

/// Makes the kernel drop packets for exactly these. Twice is the same as once.
pub fn apply(addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
    run(&["-f", "-"], &render(addresses)).map(|_| ())
}

/// Takes the table away; being gone already is success.
pub fn remove() -> Result<(), Error> {
    match run(&["-f", "-"], &gone()) {
        // No program: then no table of ours either.
        Ok(_) | Err(Error::Missing) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the table is there.
pub fn is_there() -> Result<bool, Error> {
    match run(&["list", "chain", "inet", TABLE, "input"], "") {
        // Somebody may have flushed it.
        Ok(text) => Ok(text.contains(" drop")),
        Err(Error::Refused { said }) if said.contains(ABSENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A script that ends without the table; `add` first, so that `delete` always finds one.
fn gone() -> String {
    format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// The whole table as a script for `nft -f`, whatever is there.
fn render(addresses: &BTreeSet<IpAddr>) -> String {
    let mut text = gone();
    let _ = writeln!(text, "table inet {TABLE} {{");
    text.push_str("\tchain input {\n");
    text.push_str("\t\ttype filter hook input priority filter + 10; policy accept;\n");
    text.push_str("\t\tiifname \"lo\" accept\n");
    text.push_str("\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n");
    for (ip, v4) in [("ip", true), ("ip6", false)] {
        let own = addresses.iter().filter(|address| address.is_ipv4() == v4);
        let own: Vec<String> = own.map(ToString::to_string).collect();
        if !own.is_empty() {
            let _ = writeln!(text, "\t\t{ip} daddr {{ {} }} counter drop", own.join(", "));
        }
    }
    text.push_str("\t}\n}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_is_one_rule_after_what_must_pass() {
        let addresses = ["10.0.0.100", "fd00::1", "10.0.0.101"].map(|ip| ip.parse().unwrap());
        let text = render(&addresses.into());
        let rules: Vec<&str> = text.lines().filter(|line| line.starts_with("\t\t")).collect();
        assert_eq!(
            rules[1..],
            [
                "\t\tiifname \"lo\" accept",
                "\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
                "\t\tip daddr { 10.0.0.100, 10.0.0.101 } counter drop",
                "\t\tip6 daddr { fd00::1 } counter drop",
            ]
        );
    }

    #[test]
    fn a_family_without_addresses_has_no_rule() {
        let text = render(&["fd00::1".parse().unwrap()].into());
        assert!(!text.contains("ip daddr"), "{text}");
    }
}
