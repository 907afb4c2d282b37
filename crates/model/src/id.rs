//! Who and what is meant, in a form that fits a datagram and a map key.

use core::fmt;
use core::net::IpAddr;

/// A node, by the hash of its name: the same on every host, whatever the order of `peers`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeId(pub u32);

/// A group of VIPs that move together, by its smallest address: what two hosts must not both serve
/// is one lease on all of them, whatever each host's file calls it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GroupId(pub u32);

/// A cluster, by the hash of its name; keeps two clusters with one key apart.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClusterId(pub u32);

/// One life of an agent: random, never zero, new at every start.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Incarnation(pub u64);

/// Position of a datagram in its sender's life; every datagram takes the next one.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Sequence(pub u64);

/// Names one list of claims in its sender's life; grows with every change of the list, the first is 1.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ListVersion(pub u32);

/// One of the addresses of a node, by its place in the file.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Leg(pub u8);

/// Grows at every change of owner of a group.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Epoch(pub u32);

impl NodeId {
    /// The node of that name.
    pub const fn of(name: &str) -> Self {
        Self(name_key(name))
    }
}

impl GroupId {
    /// The group whose smallest address this is.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self(v4.to_bits()),
            IpAddr::V6(v6) => Self(key(&v6.octets())),
        }
    }
}

impl ClusterId {
    /// The cluster of that name.
    pub const fn of(name: &str) -> Self {
        Self(name_key(name))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The key of a name.
pub const fn name_key(name: &str) -> u32 {
    key(name.as_bytes())
}

/// FNV-1a: stable across builds and machines. Two things with one key are refused by `config`.
const fn key(bytes: &[u8]) -> u32 {
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fnv_1a_so_that_versions_agree() {
        assert_eq!(name_key(""), 0x811c_9dc5);
        assert_eq!(name_key("a"), 0xe40c_292c);
        assert_eq!(name_key("foobar"), 0xbf9c_f968);
    }
}
