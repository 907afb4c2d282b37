//! Decides which clients a service is there for: the longest prefix that contains an address.
//!
//! Both families lie in one space, IPv4 as `::ffff:a.b.c.d`, as in the maps of the fast path; a prefix of
//! IPv6 says nothing of IPv4 all the same. For looking up, the prefixes are flattened once into the ranges of
//! addresses that are refused: sorted, disjoint, and none touches another.

use crate::Cidr;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

/// What is written of one prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SourceRule {
    /// Whom it is about; without host bits.
    pub prefix: Cidr,
    /// Whether they are let in.
    pub allows: bool,
}

/// Whom a service is there for. The default lets everybody in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sources {
    /// Sorted by family, address and length; no prefix twice.
    rules: Vec<SourceRule>,
    /// First and last address of what is refused.
    refused: Vec<(u128, u128)>,
}

/// The first and the last address that stand for IPv4.
const IPV4: (u128, u128) = (0xffff << 32, 0xffff << 32 | 0xffff_ffff);

impl Sources {
    /// `None`: a prefix is there twice, has host bits, or is IPv4 written as IPv6.
    pub fn new(rules: impl IntoIterator<Item = SourceRule>) -> Option<Self> {
        let mut rules: Vec<SourceRule> = rules.into_iter().collect();
        rules.sort_by_key(|rule| rule.prefix);
        let is_twice = rules.windows(2).any(|pair| pair[0].prefix == pair[1].prefix);
        let is_wrong =
            |rule: &SourceRule| network(rule.prefix) != rule.prefix || is_mapped(rule.prefix);
        if is_twice || rules.iter().any(is_wrong) {
            return None;
        }
        let refused = flatten(&rules);
        Some(Self { rules, refused })
    }

    /// All that is written.
    pub fn rules(&self) -> &[SourceRule] {
        &self.rules
    }

    /// Nothing is written, so everybody is let in.
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether those are let in of whom nothing is written.
    pub fn allows_others(&self) -> bool {
        allows_others(&self.rules)
    }

    /// Whether this client is let in.
    pub fn allows(&self, source: IpAddr) -> bool {
        let source = bits(source);
        let after = self.refused.partition_point(|(first, _)| *first <= source);
        let before = after.checked_sub(1).and_then(|at| self.refused.get(at));
        before.is_none_or(|(_, last)| *last < source)
    }

    /// The ranges of addresses that are refused, in the family of `like`: sorted, disjoint, not adjacent.
    pub fn refused(&self, like: IpAddr) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let v4 = like.is_ipv4();
        let (least, most) = if v4 { IPV4 } else { (0, u128::MAX) };
        let here = move |&(first, last): &(u128, u128)| (first.max(least), last.min(most));
        let ranges = self.refused.iter().map(here).filter(|(first, last)| first <= last);
        ranges.map(move |(first, last)| (shown(first, v4), shown(last, v4)))
    }
}

/// The prefix with nothing behind it.
pub fn network(prefix: Cidr) -> Cidr {
    let (first, _) = range(prefix);
    let address = shown(first, prefix.address().is_ipv4());
    Cidr::new(address, prefix.prefix()).unwrap_or(prefix)
}

/// Whether it is a prefix of IPv4, written as one of IPv6.
pub fn is_mapped(prefix: Cidr) -> bool {
    let (first, last) = range(prefix);
    prefix.address().is_ipv6() && IPV4.0 <= first && last <= IPV4.1
}

fn allows_others(rules: &[SourceRule]) -> bool {
    !rules.iter().any(|rule| rule.allows)
}

const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn shown(bits: u128, v4: bool) -> IpAddr {
    let v6 = Ipv6Addr::from_bits(bits);
    v6.to_ipv4_mapped().filter(|_| v4).map_or(IpAddr::V6(v6), IpAddr::V4)
}

/// First and last address.
fn range(prefix: Cidr) -> (u128, u128) {
    let longest = if prefix.address().is_ipv4() { 32 } else { 128 };
    let behind = u128::MAX.checked_shr(128 - (longest - u32::from(prefix.prefix()))).unwrap_or(0);
    let first = bits(prefix.address()) & !behind;
    (first, first | behind)
}

/// Walks through all addresses; of the prefixes around the one at hand the innermost decides.
fn flatten(rules: &[SourceRule]) -> Vec<(u128, u128)> {
    let others = allows_others(rules);
    let mut all: Vec<((u128, u128), bool)> =
        rules.iter().map(|rule| (range(rule.prefix), rule.allows)).collect();
    // What IPv6 says of a prefix around these addresses is not said of IPv4.
    if !all.iter().any(|(range, _)| *range == IPV4) {
        all.push((IPV4, others));
    }
    all.sort_by_key(|((first, last), _)| (*first, core::cmp::Reverse(*last)));
    let mut walk = Walk { at: Some(0), refused: Vec::new() };
    let mut around = Vec::from([(u128::MAX, others)]);
    for ((first, last), allows) in all {
        while let Some((end, _)) = around.last().filter(|(end, _)| *end < first) {
            walk.to(*end, around.pop().is_some_and(|(_, allows)| allows));
        }
        if let (Some(before), Some((_, allows))) = (first.checked_sub(1), around.last()) {
            walk.to(before, *allows);
        }
        around.push((last, allows));
    }
    while let Some((end, allows)) = around.pop() {
        walk.to(end, allows);
    }
    walk.refused
}

struct Walk {
    /// The first address that was not looked at; `None` behind the last.
    at: Option<u128>,
    refused: Vec<(u128, u128)>,
}

impl Walk {
    /// From here to there it is all the same.
    fn to(&mut self, last: u128, allows: bool) {
        let Some(first) = self.at.filter(|first| *first <= last) else { return };
        self.at = last.checked_add(1);
        match self.refused.last_mut() {
            _ if allows => {}
            Some((_, before)) if before.checked_add(1) == Some(first) => *before = last,
            Some(_) | None => self.refused.push((first, last)),
        }
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
