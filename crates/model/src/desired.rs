//! What people want of this host: complete, checked, immutable.
//!
//! `config` is the only maker. What is in a `Desired` needs no check anywhere else: names are
//! unique, nodes and groups are sorted by id, every address has a subnet on the hosts that may own it.

use crate::service::Service;
use crate::{Cidr, ClusterId, GroupId, LinkId, NodeId};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

/// The whole wish, as one host sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Desired {
    /// Grows with every accepted change on this host; the first is 1.
    pub generation: u64,
    /// Hash of all that must be the same on every host; shown, compared, never trusted.
    pub digest: u32,
    /// The cluster's id on the wire.
    pub cluster: ClusterId,
    /// The cluster's name.
    pub cluster_name: String,
    /// This host.
    pub me: NodeId,
    /// All members, this host among them, sorted by id.
    pub nodes: Vec<Node>,
    /// Beats and terms.
    pub timing: Timing,
    /// All groups, sorted by id.
    pub groups: Vec<Group>,
}

/// A member of the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// The node's id on the wire.
    pub id: NodeId,
    /// The node's name.
    pub name: String,
    /// Where its agent listens.
    pub address: SocketAddr,
}

/// How often nodes speak and how long a promise lasts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// Term of a grant where the kernel gate stands.
    pub lease: Duration,
}

/// VIPs that move together, with the services on them; one `[[vip]]` of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Group {
    /// The group's id on the wire.
    pub id: GroupId,
    /// The group's name; the address where the file gives none.
    pub name: String,
    /// The addresses, in the file's order.
    pub addresses: Vec<VipAddress>,
    /// Whether two owners are worse than none.
    pub safety: Safety,
    /// Nodes that may own it, sorted by id.
    pub nodes: Vec<NodeId>,
    /// Nodes that should, best first.
    pub prefer: Vec<NodeId>,
    /// When a better node gets it back.
    pub failback: Failback,
    /// What is balanced behind it; empty: delivered to this host.
    pub services: Vec<Service>,
}

/// One address of a group, and where it lives on this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VipAddress {
    /// The address with its subnet's prefix.
    pub cidr: Cidr,
    /// The interface that carries it here; `None` where this host is not among the group's nodes.
    pub link: Option<LinkId>,
    /// That interface's name, for people.
    pub link_name: String,
}

/// What to do when the cluster is cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Safety {
    /// Only with the votes of a majority: never two owners, perhaps none.
    Exclusive,
    /// Whoever hears no better owner: never none, two while the cluster is cut.
    Available,
}

/// When a group goes back to a node that is better than its owner.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failback {
    /// Not by itself.
    Never,
    /// When the better node has been fit for so long; zero is "now".
    After(Duration),
}

impl Desired {
    /// The member of that id.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.node_index(id).map(|i| &self.nodes[i])
    }

    /// Its place in `nodes`.
    pub fn node_index(&self, id: NodeId) -> Option<usize> {
        self.nodes.binary_search_by_key(&id, |n| n.id).ok()
    }

    /// The name of a node, for people.
    pub fn node_name(&self, id: NodeId) -> &str {
        self.node(id).map_or("?", |n| &n.name)
    }

    /// The group of that id.
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.group_index(id).map(|i| &self.groups[i])
    }

    /// Its place in `groups`.
    pub fn group_index(&self, id: GroupId) -> Option<usize> {
        self.groups.binary_search_by_key(&id, |g| g.id).ok()
    }

    /// The group of that name, or with that address.
    pub fn find_group(&self, name: &str) -> Option<&Group> {
        let address = name.split('/').next().unwrap_or(name).parse().ok();
        self.groups.iter().find(|g| g.name == name).or_else(|| {
            self.groups
                .iter()
                .find(|g| g.addresses.iter().any(|a| Some(a.cidr.address()) == address))
        })
    }

    /// How many votes make a majority.
    pub fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }
}
