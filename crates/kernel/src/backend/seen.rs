//! What is seen of this host before it is changed or checked.

use super::BackendError;
use super::decap::{self, OnInterface};
use super::plan::LOOPBACK;
use super::state::Vips;
use crate::netlink::{LinkFacts, Requests};
use crate::{nft, sysctl};
use buoy_model::Cidr;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Reads a setting of the kernel, as in `net/ipv4/conf/all/arp_ignore`.
pub(super) type Setting<'s> = &'s dyn Fn(&str) -> Option<String>;

/// An address on an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Address {
    pub(super) interface: String,
    pub(super) cidr: Cidr,
    /// The agent put it there, because this node owns the VIP.
    pub(super) owned: bool,
    /// It carries the mark of what is put on loopback here.
    pub(super) prepared: bool,
}

/// This host, at the moment of asking.
pub(super) struct Seen<'s> {
    /// Interfaces but loopback, and whether they are up.
    pub(super) interfaces: BTreeMap<String, bool>,
    /// Those without Ethernet headers.
    pub(super) bare: BTreeSet<String>,
    pub(super) addresses: Vec<Address>,
    /// XDP programs, by interface.
    pub(super) programs: BTreeMap<String, OnInterface>,
    /// By which interface the way to the rest of the world leads, for IPv4 and IPv6.
    pub(super) default_routes: Vec<String>,
    /// Chains of other people that drop what they do not accept.
    pub(super) filters: Vec<String>,
    pub(super) read: Setting<'s>,
}

/// The kernel's own value.
pub(super) fn setting(path: &str) -> Option<String> {
    sysctl::read(path).ok()
}

impl<'s> Seen<'s> {
    pub(super) fn now(requests: &mut Requests, read: Setting<'s>) -> Result<Self, BackendError> {
        let links = requests.links()?;
        let name = |id| links.iter().find(|link| link.id == id).map(|link| link.name.clone());
        let address = |facts: crate::netlink::AddressFacts| {
            Some(Address {
                interface: name(facts.link)?,
                cidr: facts.cidr,
                owned: facts.ours,
                prepared: facts.prepared,
            })
        };
        let addresses = requests.addresses()?.into_iter().filter_map(address).collect();
        let programs = decap::observe(requests)?.into_iter();
        let programs = programs.filter_map(|(link, program)| Some((name(link)?, program)));
        // Nobody's addresses: the way there is the one to everything that no route names.
        let far =
            [Ipv4Addr::new(240, 0, 0, 1).into(), Ipv6Addr::from_bits((0x2000 << 112) + 1).into()];
        let route = |to| requests.route(to).ok().flatten().and_then(|route| name(route.link));
        let default_routes = far.into_iter().filter_map(route).collect();
        let but_loopback = |link: &&LinkFacts| link.name != LOOPBACK;
        Ok(Self {
            interfaces: links.iter().filter(but_loopback).map(|l| (l.name.clone(), l.up)).collect(),
            bare: links.iter().filter(|l| l.mac.is_none()).map(|l| l.name.clone()).collect(),
            addresses,
            programs: programs.collect(),
            default_routes,
            filters: nft::filter::dropping_input(),
            read,
        })
    }

    pub(super) fn setting(&self, path: &str) -> Option<String> {
        (self.read)(path)
    }

    pub(super) fn has_interface(&self, name: &str) -> bool {
        self.interfaces.contains_key(name)
    }

    pub(super) fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.interfaces.keys().map(String::as_str)
    }

    /// By which interface packets for the address surely come.
    pub(super) fn interface_for(&self, address: IpAddr) -> Option<String> {
        let real = || self.addresses.iter().filter(|a| a.interface != LOOPBACK);
        let beside = real().find(|a| a.cidr.address() != address && a.cidr.contains(address));
        let beside = beside.map(|a| &a.interface);
        let at = usize::from(address.is_ipv6()).min(self.default_routes.len().saturating_sub(1));
        let only = || self.interfaces.keys().next().filter(|_| self.interfaces.len() == 1);
        beside.or_else(|| self.default_routes.get(at)).or_else(only).cloned()
    }

    /// IPv4 packets may leave by more than one of them.
    pub(super) fn has_several_ways_out(&self) -> bool {
        let with_ipv4 = self.addresses.iter().filter(|a| a.cidr.address().is_ipv4());
        let names: BTreeSet<&String> = with_ipv4.map(|a| &a.interface).collect();
        names.into_iter().filter(|name| *name != LOOPBACK).count() > 1
    }

    fn with(&self, address: IpAddr) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |a| a.cidr.address() == address)
    }

    fn is_whole(address: &Address) -> bool {
        address.cidr.prefix() == if address.cidr.address().is_ipv4() { 32 } else { 128 }
    }

    /// It is there as it should be.
    pub(super) fn on_loopback(&self, address: IpAddr) -> bool {
        self.with(address).any(|a| a.interface == LOOPBACK && Self::is_whole(a))
    }

    pub(super) fn is_prepared(&self, address: IpAddr) -> bool {
        self.with(address).any(|a| a.interface == LOOPBACK && a.prepared)
    }

    /// All that carry the mark of what is put on loopback here.
    pub(super) fn prepared(&self) -> Vec<IpAddr> {
        let prepared = self.addresses.iter().filter(|a| a.interface == LOOPBACK && a.prepared);
        prepared.map(|a| a.cidr.address()).collect()
    }

    /// Where else it is, and the agent did not put it there.
    pub(super) fn elsewhere(&self, address: IpAddr) -> Vec<(&str, Cidr)> {
        let there = self.with(address).filter(|a| a.interface != LOOPBACK && !a.owned);
        there.map(|a| (a.interface.as_str(), a.cidr)).collect()
    }

    /// On loopback with more addresses than its own.
    pub(super) fn too_wide(&self, address: IpAddr) -> Vec<Cidr> {
        let wide = self.with(address).filter(|a| a.interface == LOOPBACK && !Self::is_whole(a));
        wide.map(|a| a.cidr).collect()
    }

    /// The addresses that a director may wrap packets for: all of this host that are its own.
    pub(super) fn own(&self, vips: &Vips) -> BTreeSet<IpAddr> {
        let is_own = |a: &&Address| {
            let address = a.cidr.address();
            let is_near = match address {
                IpAddr::V4(_) => false,
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
            !(a.owned
                || a.prepared
                || address.is_loopback()
                || is_near
                || vips.contains_key(&address))
        };
        self.addresses.iter().filter(is_own).map(|a| a.cidr.address()).collect()
    }
}
