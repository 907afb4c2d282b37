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
//! after each host. So a cut is made at the switch, where the host cannot notice it. With a second
//! network (10.78.0.0/24, its ports are called `n1b` and so on) the nodes have a second leg `eth1`.

use std::net::{Ipv4Addr, Ipv6Addr};

/// What a host is there for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Runs an agent (or a peer's daemon) and may own addresses.
    Node,
    /// Runs an agent that votes and never owns.
    Witness,
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
    /// Whether nodes and witness stand on a second network too.
    pub second_network: bool,
    /// Whether all hosts are in 10.80.0.0/16 as well, where there is room for a thousand VIPs.
    pub wide: bool,
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
        Self { hosts, second_network: false, wide: false }
    }

    /// Adds a second network.
    #[must_use]
    pub fn with_second_network(mut self) -> Self {
        self.second_network = true;
        self
    }

    /// Adds a host that only votes.
    #[must_use]
    pub fn with_witness(mut self) -> Self {
        let place = self.hosts.iter().position(|h| h.role != Role::Node).unwrap_or_default();
        self.hosts.insert(place, Host { name: "w1", number: 19, role: Role::Witness });
        self
    }

    /// Adds a subnet for many VIPs.
    #[must_use]
    pub fn with_wide_subnet(mut self) -> Self {
        self.wide = true;
        self
    }

    /// The names of the nodes that may own something, in order.
    pub fn nodes(&self) -> Vec<&'static str> {
        self.hosts.iter().filter(|h| h.role == Role::Node).map(|h| h.name).collect()
    }

    /// The names of all hosts with an agent, in order.
    pub fn members(&self) -> Vec<&'static str> {
        self.hosts.iter().filter(|h| h.is_member()).map(|h| h.name).collect()
    }

    /// The addresses of a host's first interface, with their prefixes.
    pub fn addresses(&self, host: &Host) -> Vec<String> {
        let mut all = vec![format!("{}/24", host.ipv4()), format!("{}/64 nodad", host.ipv6())];
        if self.wide {
            all.push(format!("{}/16", Ipv4Addr::new(10, 80, 255, host.number)));
        }
        all
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

    /// Whether an agent runs on it.
    pub const fn is_member(&self) -> bool {
        match self.role {
            Role::Node | Role::Witness => true,
            Role::Backend | Role::Client | Role::Observer => false,
        }
    }

    /// Its address on the second network.
    pub const fn second_ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, 0, self.number)
    }

    /// The switch's port of its second leg.
    pub fn second_port(&self) -> String {
        format!("{}b", self.name)
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

/// The n-th of up to 60,000 VIPs of the wide subnet, counted from 0.
pub fn wide_ipv4(n: usize) -> Ipv4Addr {
    let n = u16::try_from(n).unwrap_or(u16::MAX);
    let [high, low] = (0x0100 + n).to_be_bytes();
    Ipv4Addr::new(10, 80, high, low)
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
        assert_eq!(wide_ipv4(0).to_string(), "10.80.1.0");
        assert_eq!(wide_ipv4(999).to_string(), "10.80.4.231");
    }

    #[test]
    fn no_two_hosts_share_a_number() {
        let topology = Topology::with_nodes(5).with_witness();
        let mut numbers: Vec<u8> = topology.hosts.iter().map(|h| h.number).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
        assert_eq!(topology.members().len(), 6);
        assert_eq!(topology.nodes().len(), 5);
    }
}
