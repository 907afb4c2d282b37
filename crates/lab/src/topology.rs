//! Topologies as data: which hosts stand on the segment, and with which numbers.
//!
//! ```text
//!   n1 .11   n2 .12   n3 .13   web1 .21   web2 .22   client .50   observer .60
//!     |        |        |        |          |           |             |
//!   ==+========+========+========+==========+===========+=============+==  switch (a bridge)
//!                10.77.0.0/24 and fd77::/64
//! ```
//!
//! Every host is a namespace with one interface `eth0`; the switch is one too, and has a port named
//! after each host. So a cut is made at the switch, where the host cannot notice it.

use std::net::{Ipv4Addr, Ipv6Addr};

/// What a host is there for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Runs an agent (or a peer's daemon) and may own addresses.
    Node,
    /// Serves what is balanced.
    Backend,
    /// Asks, as a user would.
    Client,
    /// Watches who answers for an address.
    Observer,
}

/// One host of the segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Host {
    /// Its name, also that of its port at the switch.
    pub name: &'static str,
    /// The last byte of its addresses.
    pub number: u8,
    /// What it is there for.
    pub role: Role,
}

/// A segment with its hosts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Topology {
    /// The hosts, nodes first.
    pub hosts: Vec<Host>,
}

const NODES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

impl Topology {
    /// So many nodes (at most five), two backends, a client and an observer.
    pub fn with_nodes(count: usize) -> Self {
        let mut hosts: Vec<Host> = (11u8..)
            .zip(NODES)
            .take(count)
            .map(|(number, name)| Host { name, number, role: Role::Node })
            .collect();
        hosts.extend([
            Host { name: "web1", number: 21, role: Role::Backend },
            Host { name: "web2", number: 22, role: Role::Backend },
            Host { name: "client", number: 50, role: Role::Client },
            Host { name: "observer", number: 60, role: Role::Observer },
        ]);
        Self { hosts }
    }

    /// The names of the nodes, in order.
    pub fn nodes(&self) -> Vec<&'static str> {
        self.hosts.iter().filter(|h| h.role == Role::Node).map(|h| h.name).collect()
    }

    /// The host whose interface has that MAC.
    pub fn by_mac(&self, mac: [u8; 6]) -> Option<&Host> {
        self.hosts.iter().find(|host| host.mac() == mac)
    }
}

impl Host {
    /// Its IPv4 address.
    pub const fn ipv4(&self) -> Ipv4Addr {
        ipv4(self.number)
    }

    /// Its IPv6 address.
    pub fn ipv6(&self) -> Ipv6Addr {
        ipv6(self.number)
    }

    /// The MAC of its interface.
    pub const fn mac(&self) -> [u8; 6] {
        [0x02, 0x00, 0x00, 0x77, 0x00, self.number]
    }
}

/// An IPv4 address of the segment.
pub const fn ipv4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// An IPv6 address of the segment, with the same digits as its IPv4 one.
pub fn ipv6(number: u8) -> Ipv6Addr {
    let digits = u16::from_str_radix(&number.to_string(), 16).unwrap_or_default();
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, digits)
}

/// A MAC for people.
pub fn format_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_show_the_same_number() {
        assert_eq!(ipv4(21).to_string(), "10.77.0.21");
        assert_eq!(ipv6(21).to_string(), "fd77::21");
        assert_eq!(ipv6(100).to_string(), "fd77::100");
    }

    #[test]
    fn no_two_hosts_share_a_number() {
        let mut numbers: Vec<u8> = Topology::with_nodes(5).hosts.iter().map(|h| h.number).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }
}
