//! How to get to backends, as the kernel's routes and neighbours say it.
//!
//! Read when asked, for all backends at once; a neighbour that is not known is looked for, so that it
//! is known the next time.

use super::FastError;
use crate::netlink::{Requests, RouteFacts};
use buoy_model::{LinkId, Mac};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How to get to an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// It is this host's.
    Local,
    /// Over an interface.
    Via(NextHop),
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
    macs: BTreeMap<(LinkId, IpAddr), Mac>,
    routes: BTreeMap<IpAddr, Option<RouteFacts>>,
}

impl Neighbours {
    /// Asks the kernel.
    pub fn open() -> Result<Self, FastError> {
        let mut neighbours = Self {
            requests: Requests::open()?,
            links: BTreeMap::new(),
            macs: BTreeMap::new(),
            routes: BTreeMap::new(),
        };
        neighbours.read()?;
        Ok(neighbours)
    }

    /// Asks again: interfaces and neighbours at once, routes as they are needed.
    pub fn read(&mut self) -> Result<(), FastError> {
        let mtus: BTreeMap<_, _> = self.requests.mtus()?.into_iter().collect();
        let links = self.requests.links()?.into_iter();
        let known = links.filter_map(|link| {
            let mtu = u16::try_from(*mtus.get(&link.id)?).unwrap_or(u16::MAX);
            Some((link.id, (link.mac?, mtu)))
        });
        self.links = known.collect();
        let neighbours = self.requests.neighbours()?.into_iter();
        self.macs = neighbours.map(|n| ((n.link, n.address), n.mac)).collect();
        self.routes.clear();
        Ok(())
    }

    /// The way to an address, for `Fast::apply` and `Fast::refresh`. A neighbour on it that is not
    /// known is looked for.
    pub fn resolve(&mut self, to: IpAddr) -> Option<Way> {
        let route = self.route(to)?;
        if route.is_local {
            return Some(Way::Local);
        }
        let &(link_mac, mtu) = self.links.get(&route.link)?;
        let next = route.gateway.unwrap_or(to);
        let mac = self.macs.get(&(route.link, next)).copied();
        if mac.is_none() {
            // It is asked for again the next time, whatever becomes of this.
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
            mac,
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
