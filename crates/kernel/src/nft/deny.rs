//! Renders who is refused: a chain for each list of clients and family, over ranges that do not overlap.
//!
//! It stands before everything else that a service does, so it holds for established connections as well.

use super::ruleset::Ruleset;
use super::{DENIED, Family, Forward};
use buoy_model::Sources;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a service's chain begins with; it matches what only packets of clients do. Services with the same list share
/// what it is.
pub(super) fn rules(
    forward: &Forward,
    family: Family,
    of_client: &str,
    ruleset: &mut Ruleset,
) -> Vec<String> {
    if forward.sources.is_empty() {
        return Vec::new();
    }
    let Some(from) = refused(&forward.sources, family) else { return Vec::new() };
    // An answer of a backend may go to the same port, where a client has that one.
    let rule = format!("{of_client}{from}counter name \"{DENIED}\" drop");
    vec![format!("jump {}", ruleset.chain("deny", &[rule]))]
}

/// The match of whoever is refused; empty for everybody, `None` for nobody.
fn refused(sources: &Sources, family: Family) -> Option<String> {
    let (least, most) = match family {
        Family::V4 => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::BROADCAST)),
        Family::V6 => {
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)))
        }
    };
    let ranges: Vec<_> = sources.refused(least).collect();
    if ranges == [(least, most)] {
        return Some(String::new());
    }
    let written = |(first, last): &(IpAddr, IpAddr)| match first == last {
        true => plain(*first),
        false => format!("{}-{}", plain(*first), plain(*last)),
    };
    let set: Vec<_> = ranges.iter().map(written).collect();
    let word = family.word();
    (!set.is_empty()).then(|| format!("{word} saddr {{ {} }} ", set.join(", ")))
}

/// Without dots in IPv6, which not every version of `nft` reads.
fn plain(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6.segments().map(|s| format!("{s:x}")).join(":"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_model::{Cidr, SourceRule};

    fn sources(list: &[(&str, u8, bool)]) -> Sources {
        let rule = |&(address, length, allows): &(&str, u8, bool)| SourceRule {
            prefix: Cidr::new(address.parse().unwrap(), length).unwrap(),
            allows,
        };
        Sources::new(list.iter().map(rule)).unwrap()
    }

    #[test]
    fn who_is_refused_is_a_set_of_ranges_or_everybody_or_nobody() {
        let list = sources(&[("10.0.0.0", 8, true), ("10.1.2.3", 32, false)]);
        let v4 = "ip saddr { 0.0.0.0-9.255.255.255, 10.1.2.3, 11.0.0.0-255.255.255.255 } ";
        assert_eq!(refused(&list, Family::V4).unwrap(), v4);
        let only = sources(&[("fd00::", 16, true)]);
        assert_eq!(refused(&only, Family::V4).unwrap(), "");
        let v6 = "ip6 saddr { 0:0:0:0:0:0:0:0-fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff, \
                  fd01:0:0:0:0:0:0:0-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff } ";
        assert_eq!(refused(&only, Family::V6).unwrap(), v6);
        assert_eq!(refused(&sources(&[("fd00::", 16, false)]), Family::V4), None);
    }
}
