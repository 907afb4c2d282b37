//! Routes and rules of routing that go where a VIP goes.

use crate::{Cidr, LinkId};
use alloc::string::String;
use core::net::IpAddr;

/// A route that is there where the VIP is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct VirtualRoute {
    /// Where it leads; with a prefix of 0 everywhere.
    pub to: Cidr,
    /// The next hop; `None`: it is on the link.
    pub via: Option<IpAddr>,
    /// The interface that it leads through here; `None`: the one that leads to the next hop.
    pub link: Option<LinkId>,
    /// The address that this host speaks from when it uses it.
    pub source: Option<IpAddr>,
    /// The routing table; 254 is the main one.
    pub table: u32,
    /// Of several routes to one place the least counts; 0: as the kernel gives it.
    pub metric: u32,
}

/// A rule that says which packets a routing table is for, and is there where the VIP is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct VirtualRule {
    /// Packets of IPv6.
    pub v6: bool,
    /// From there; `None`: from anywhere.
    pub from: Option<Cidr>,
    /// To there; `None`: to anywhere.
    pub to: Option<Cidr>,
    /// That came in through this interface, by name.
    pub incoming: Option<String>,
    /// That carry this mark.
    pub mark: Option<u32>,
    /// The routing table.
    pub table: u32,
    /// The least comes first; `None`: as the kernel gives it.
    pub priority: Option<u32>,
}

/// The main routing table (`RT_TABLE_MAIN`).
pub const TABLE_MAIN: u32 = 254;
