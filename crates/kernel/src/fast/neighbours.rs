//! How to get to backends, as the kernel's routes and neighbours say it.
//!
//! Read when asked, for all backends at once; a neighbour that is not known, or was not heard of for a
//! while, is looked for, so that it is known the next time.

use super::{FastError, Key, Vlan};
use crate::netlink::{Requests, RouteFacts};
use buoy_model::{LinkId, Mac};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How to get to an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// It is this host's.
    Local,
    /// Over an interface.
    Via(NextHop),
}

/// A backend that gets no packets, because of how the network is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Unreached {
    /// Of which service.
    pub service: Key,
    /// Its address.
    pub backend: IpAddr,
    /// Why.
    pub why: WhyNot,
}

/// Why a backend cannot be reached.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum WhyNot {
    /// This host has no route to it, or the route's interface has no Ethernet address.
    NoRoute,
    /// Nobody answers ARP or neighbour solicitations for it, or for the router to it (yet).
    NoNeighbour,
    /// A router is between, which would send the VIP's packets straight back.
    BehindRouter,
    /// It is this host, whose answers would leave untranslated.
    Local,
    /// The ways of this host leave by more interfaces than there is room for.
    NoLink,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoute => "this host has no route to it over an Ethernet interface: add one",
            Self::NoNeighbour => {
                "nobody answers ARP or NDP for it, or for the router on the way: look whether it is up"
            }
            Self::BehindRouter => {
                "a router is between, and \"dsr\" reaches neighbours only: use forward = \"tunnel\""
            }
            Self::Local => {
                "it is this host, where \"nat\" cannot translate its answers: use forward = \"dsr\""
            }
            Self::NoLink => "the ways to backends leave by too many interfaces",
        })
    }
}

/// The next station of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NextHop {
    /// Out of which interface.
    pub link: LinkId,
    /// The Ethernet address of the interface.
    pub link_mac: Mac,
    /// Its MTU.
    pub mtu: u16,
    /// The Ethernet address of who takes the packet; `None`: not known (yet).
    pub mac: Option<Mac>,
    /// The address of this host that packets there come from.
    pub source: IpAddr,
    /// A router, and not the address itself.
    pub is_gateway: bool,
}

/// What the kernel knows of the hosts around.
pub struct Neighbours {
    requests: Requests,
    links: BTreeMap<LinkId, (Mac, u16)>,
    vlans: BTreeSet<Vlan>,
    /// With whether each has been heard lately.
    macs: BTreeMap<(LinkId, IpAddr), (Mac, bool)>,
    routes: BTreeMap<IpAddr, Option<RouteFacts>>,
}

/// Whether an interface is one end of a virtual Ethernet cable.
pub(super) fn is_veth(link: LinkId) -> Result<bool, FastError> {
    Ok(Requests::open()?.is_one_a_veth(&[link])?)
}

impl Neighbours {
    /// Asks the kernel.
    pub fn open() -> Result<Self, FastError> {
        let mut neighbours = Self {
            requests: Requests::open()?,
            links: BTreeMap::new(),
            vlans: BTreeSet::new(),
            macs: BTreeMap::new(),
            routes: BTreeMap::new(),
        };
        neighbours.read()?;
        Ok(neighbours)
    }

    /// Asks again: interfaces and neighbours at once, routes as they are needed.
    pub fn read(&mut self) -> Result<(), FastError> {
        let cables = self.requests.cables()?;
        self.vlans = cables.iter().filter_map(|facts| facts.vlan).collect();
        let mtus: BTreeMap<_, _> =
            cables.into_iter().map(|facts| (facts.link, facts.mtu)).collect();
        let links = self.requests.links()?.into_iter();
        let known = links.filter_map(|link| {
            let mtu = u16::try_from(*mtus.get(&link.id)?).unwrap_or(u16::MAX);
            Some((link.id, (link.mac?, mtu)))
        });
        self.links = known.collect();
        let neighbours = self.requests.neighbours()?.into_iter();
        self.macs = neighbours.map(|n| ((n.link, n.address), (n.mac, n.is_fresh))).collect();
        self.routes.clear();
        Ok(())
    }

    /// The VLANs that this host has interfaces for.
    pub const fn vlans(&self) -> &BTreeSet<Vlan> {
        &self.vlans
    }

    /// The way to an address, for `Fast::apply` and `Fast::refresh`. A neighbour on it that is not
    /// known, or was not heard of for a while, is looked for.
    pub fn resolve(&mut self, to: IpAddr) -> Option<Way> {
        let route = self.route(to)?;
        if route.is_local {
            return Some(Way::Local);
        }
        let &(link_mac, mtu) = self.links.get(&route.link)?;
        let next = route.gateway.unwrap_or(to);
        let known = self.macs.get(&(route.link, next)).copied();
        // What XDP sends is no use in the kernel's eyes, so it would never find out that a neighbour
        // has another address now. It is asked again the next time, whatever becomes of this.
        if known.is_none_or(|(_, is_fresh)| !is_fresh) {
            let _ = self.requests.look_for(route.link, next);
        }
        let unspecified: IpAddr = match to {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Some(Way::Via(NextHop {
            link: route.link,
            link_mac,
            mtu,
            mac: known.map(|(mac, _)| mac),
            source: route.source.unwrap_or(unspecified),
            is_gateway: route.gateway.is_some(),
        }))
    }

    fn route(&mut self, to: IpAddr) -> Option<RouteFacts> {
        if let Some(&known) = self.routes.get(&to) {
            return known;
        }
        // Without an answer there is no way for now.
        let route = self.requests.route(to).ok().flatten();
        self.routes.insert(to, route);
        route
    }
}
