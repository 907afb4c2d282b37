//! What people want of this host: complete, checked, immutable.
//!
//! For a running host `config` is the only maker. What is in a `Desired` needs no check anywhere else: names are
//! unique, nodes and groups are sorted by id, every address has a subnet on the hosts that may own it. The simulator,
//! benches and tests have no file: for them `new` is what a file says that says nothing else.

use crate::check::{CheckKind, Pace};
use crate::hook::Hook;
use crate::limits::{HEARTBEAT_DEFAULT, LEASE_CEILING_DEFAULT, LEASE_DEFAULT};
use crate::pool::Pool;
use crate::ports::Ports;
use crate::service::{Protocol, Service};
use crate::{
    Cidr, ClusterId, GroupId, LinkId, NodeId, Traces, VirtualRoute, VirtualRouter, VirtualRule,
};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
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
    /// The interface that carries each of this host's legs; `None` where it is not known.
    pub leg_links: Vec<Option<LinkId>>,
    /// Beats and terms.
    pub timing: Timing,
    /// Where HAProxy's runtime commands are listened to; `None`: nowhere.
    pub haproxy_socket: Option<String>,
    /// Where monitoring reads metrics over TCP; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Under whose names metrics are told as well.
    pub metric_aliases: Vec<MetricAlias>,
    /// Where the spans of takeovers are sent to; `None`: nowhere.
    pub traces: Option<Traces>,
    /// Who is told when something happens.
    pub hooks: Vec<Hook>,
    /// Where VIPs have their addresses from.
    pub pools: Vec<Pool>,
    /// All groups, sorted by id.
    pub groups: Vec<Group>,
}

impl Desired {
    /// A cluster of these nodes and groups, both sorted by id.
    pub fn new(cluster_name: &str, me: NodeId, nodes: Vec<Node>, groups: Vec<Group>) -> Self {
        Self {
            generation: 1,
            digest: 0,
            cluster: ClusterId::of(cluster_name),
            cluster_name: cluster_name.into(),
            me,
            nodes,
            leg_links: alloc::vec![None],
            timing: Timing::default(),
            haproxy_socket: None,
            metrics: None,
            metric_aliases: Vec::new(),
            traces: None,
            hooks: Vec::new(),
            pools: Vec::new(),
            groups,
        }
    }
}

/// Whose names of metrics are used as well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MetricAlias {
    /// Those of keepalived's exporters.
    Keepalived,
    /// MetalLB's.
    Metallb,
}

/// A member of the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// The node's id on the wire.
    pub id: NodeId,
    /// The node's name.
    pub name: String,
    /// Where its agent listens: its legs, the first one before the others. The n-th leg of one node
    /// speaks to the n-th leg of another.
    pub addresses: Vec<SocketAddr>,
    /// Its share of a pool relative to the others; 0 takes only what nobody else can.
    pub weight: u16,
    /// Votes and never owns.
    pub witness: bool,
    /// Where it is, together with others and with backends.
    pub zone: Option<String>,
}

impl Node {
    /// A member with one leg that shares evenly.
    pub fn new(name: &str, address: SocketAddr) -> Self {
        let (id, name) = (NodeId::of(name), name.into());
        Self { id, name, addresses: alloc::vec![address], weight: 1, witness: false, zone: None }
    }

    /// Its first leg.
    pub fn address(&self) -> SocketAddr {
        debug_assert!(!self.addresses.is_empty(), "config gives every node a leg");
        self.addresses.first().copied().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Where its agent listens for the exchange: its legs, each at the next port (or, after the last port, the one
    /// before).
    pub fn exchange(&self) -> impl ExactSizeIterator<Item = SocketAddr> + '_ {
        self.addresses.iter().map(|leg| {
            let port = leg.port();
            SocketAddr::new(leg.ip(), port.checked_add(1).unwrap_or(port - 1))
        })
    }
}

/// How often nodes speak and how long a promise lasts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// Term of a grant where the kernel gate stands, on a calm network.
    pub lease: Duration,
    /// How far the term grows where datagrams are lost or hosts stall; equal to `lease`: not at all.
    pub lease_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: HEARTBEAT_DEFAULT,
            lease: LEASE_DEFAULT,
            lease_max: LEASE_CEILING_DEFAULT,
        }
    }
}

/// VIPs that move together, with the services on them: one `[[vip]]` of the file, all with one
/// `group`, or one address of a `[[pool]]`.
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
    /// Groups with the same label avoid each other's nodes.
    pub apart: Option<String>,
    /// Checks on this host that must pass for it to own the group.
    pub checks: Vec<NodeCheck>,
    /// What is balanced behind it; empty: delivered to this host.
    pub services: Vec<Service>,
    /// The virtual routers that decide who owns it, all at once; empty: the lease does.
    pub vrrp: Vec<Arc<VirtualRouter>>,
    /// VIPs that have addresses of another VIP of this group, and serve other ports there.
    pub shares: Vec<Share>,
    /// Routes that are here while this host has it.
    pub routes: Vec<VirtualRoute>,
    /// Rules that are here while this host has it.
    pub rules: Vec<VirtualRule>,
}

/// A VIP that has addresses of another one of its group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Share {
    /// The VIP's name.
    pub vip: String,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// The ports that it serves there.
    pub ports: Vec<(Protocol, Ports)>,
}

impl Group {
    /// These addresses, which move together and have no services.
    pub fn new(id: GroupId, name: &str, addresses: Vec<VipAddress>) -> Self {
        Self {
            id,
            name: name.into(),
            addresses,
            safety: Safety::Exclusive,
            nodes: Vec::new(),
            prefer: Vec::new(),
            failback: Failback::Never,
            apart: None,
            checks: Vec::new(),
            services: Vec::new(),
            vrrp: Vec::new(),
            shares: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// The name of the VIP that a service is of; `None`: none of this group's.
    pub fn vip_of(&self, service: &Service) -> Option<&str> {
        let address = *service.addresses.first()?;
        let has = |share: &&Share| {
            let ports = (service.protocol, service.ports);
            share.addresses.contains(&address) && share.ports.contains(&ports)
        };
        if let Some(share) = self.shares.iter().find(has) {
            return Some(&share.vip);
        }
        let vip = self.addresses.iter().find(|a| a.cidr.address() == address);
        vip.map(|vip| vip.vip_name.as_str())
    }
}

/// A question to this host itself: ownership follows the answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeCheck {
    /// What people call it.
    pub name: String,
    /// The question.
    pub kind: NodeCheckKind,
    /// How often, and how many answers decide.
    pub pace: Pace,
    /// It decides nothing, and is added to the priority of VRRP: while it passes if positive, while it fails
    /// if negative.
    pub weight: Option<i16>,
}

/// What a `NodeCheck` asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NodeCheckKind {
    /// A process of that name (`comm`) runs.
    Process {
        /// As in `/proc/PID/comm`.
        name: String,
    },
    /// A TCP or HTTP server answers.
    Server {
        /// Where.
        address: SocketAddr,
        /// In which way.
        kind: CheckKind,
    },
    /// A program ends with exit code 0. It is started without a shell.
    Exec {
        /// An absolute path.
        program: String,
        /// What follows it.
        arguments: Vec<String>,
    },
    /// A file is there, or is not.
    File {
        /// An absolute path.
        path: String,
        /// Whether it must be there.
        present: bool,
    },
    /// Another interface is up, with carrier.
    Link {
        /// Its name.
        name: String,
    },
    /// A router answers ARP or NDP on the VIP's segment.
    Gateway {
        /// Its address.
        address: IpAddr,
        /// The interface towards it; `None` where this host has none.
        link: Option<LinkId>,
    },
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
    /// The name of the `[[vip]]` that it comes from; that of the group where it has only one.
    pub vip_name: String,
    /// How its owner makes it be there.
    pub presence: Presence,
}

/// How the owner of an address makes it be there.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Presence {
    /// It is on the interface, and the kernel answers for it.
    #[default]
    Assigned,
    /// It is on no interface: the fast path answers ARP, NDP and ping for it, and forwards what is for it.
    Answered,
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

    /// The group of that name, with a VIP of that name, or with that address.
    pub fn find_group(&self, name: &str) -> Option<&Group> {
        let address = name.split('/').next().unwrap_or(name).parse().ok();
        let has = |a: &VipAddress| a.vip_name == name || Some(a.cidr.address()) == address;
        let named = self.groups.iter().find(|g| g.name == name);
        let shares = |g: &Group| g.shares.iter().any(|share| share.vip == name);
        named.or_else(|| self.groups.iter().find(|g| g.addresses.iter().any(has) || shares(g)))
    }

    /// How many votes make a majority.
    pub fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }
}
