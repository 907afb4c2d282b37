//! Finds this host in the file, and the interface that carries each VIP here.

use crate::Code;
use crate::cluster::Cluster;
use crate::peers::Peer;
use crate::report::{At, Problems, listed};
use crate::value::{self, Unfit};
use crate::vip::Vip;
use buoy_model::{Cidr, LinkId, NodeId, VipAddress};
use core::fmt;
use core::net::IpAddr;

/// What the rules about this host need to know of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Host {
    /// Its name, for messages.
    pub hostname: String,
    /// Its interfaces.
    pub links: Vec<HostLink>,
}

/// One interface of the host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostLink {
    /// The kernel's index.
    pub id: LinkId,
    /// The interface's name.
    pub name: String,
    /// Administratively up, with carrier.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<HostAddress>,
}

/// One address of an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HostAddress {
    /// The address and its subnet.
    pub cidr: Cidr,
    /// Whether Buoy put it there; then it says nothing about the host itself.
    pub ours: bool,
}

impl Host {
    /// Addresses that belong to the host itself, each with its interface.
    pub(crate) fn own(&self) -> impl Iterator<Item = (&HostLink, Cidr)> {
        self.links
            .iter()
            .flat_map(|link| link.addresses.iter().filter(|a| !a.ours).map(move |a| (link, a.cidr)))
    }

    /// The host's subnets as a sentence: `lb1 has 10.0.1.11/24 (eth0) and ...`.
    pub(crate) fn described(&self) -> String {
        let name = if self.hostname.is_empty() { "this host" } else { &self.hostname };
        let own = self.own().filter(|(_, cidr)| value::unfit(cidr.address()).is_none());
        let own = own.map(|(link, cidr)| Owned { cidr, link: &link.name });
        format!("{name} has {}", listed(own))
    }
}

struct Owned<'h> {
    cidr: Cidr,
    link: &'h str,
}

impl fmt::Display for Owned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.cidr, self.link)
    }
}

/// Which of the peers this host is.
pub(crate) fn find_me(
    cluster: &Cluster,
    host: &Host,
    problems: &mut Problems<'_>,
) -> Option<NodeId> {
    let here = |address: IpAddr| host.own().any(|(_, cidr)| cidr.address() == address);
    let peers = &cluster.peers;
    if let Some(node) = &cluster.node {
        let peer = peers.list.iter().find(|p| NodeId::of(&p.name.value) == node.value)?;
        if !peer.legs.is_empty() && !peer.legs.iter().any(|leg| here(leg.value.ip())) {
            let addresses = listed(peer.legs.iter().map(|leg| leg.value.ip()));
            let message = format!(
                "this host is said to be {}, but does not have {addresses}",
                peer.name.value
            );
            let fix = "remove `node`, or give the host this address";
            problems.add(Code::AddressAbsent, &node.span, message, host.described(), fix);
        }
        return Some(node.value);
    }
    let leg = |p: &Peer| p.legs.iter().find(|leg| here(leg.value.ip())).cloned();
    let mut mine: Vec<&Peer> = peers.list.iter().filter(|p| leg(p).is_some()).collect();
    // Two peers of one address were reported as such.
    mine.dedup_by_key(|p| leg(p).map(|leg| leg.value));
    match mine.as_slice() {
        [me] => Some(NodeId::of(&me.name.value)),
        [] => {
            // A peer that could not be read may be this host.
            if peers.is_complete() && !peers.list.is_empty() {
                let fix = "add an address of this host to `peers`; on a machine outside the cluster use `buoy config check --offline`";
                problems.add(
                    Code::NotAMember,
                    &peers.span,
                    "this host is not among the peers",
                    host.described(),
                    fix,
                );
            }
            None
        }
        [first, second, ..] => {
            let message =
                format!("this host is two peers: {}", listed(mine.iter().map(|p| &p.name.value)));
            let fix = format!(
                "write node = \"{}\" on this host, or keep one of its addresses",
                first.name.value
            );
            let span = |p: &Peer| leg(p).map_or(p.name.span.clone(), |leg| leg.span);
            problems.add_pair(
                Code::TwoMembers,
                (&span(second), "also an address of this host"),
                (&span(first), "an address of this host"),
                message,
                fix,
            );
            None
        }
    }
}

/// Where the addresses of a VIP that this host may own live here.
pub(crate) fn place(vip: &Vip, host: &Host, problems: &mut Problems<'_>) -> Vec<VipAddress> {
    let named = match &vip.interface {
        Some(name) => {
            let fix = "remove the line: the interface is found by its subnet";
            let link = find_interface(name, host, fix, problems);
            if link.is_none() {
                return elsewhere(vip);
            }
            link
        }
        None => None,
    };
    vip.addresses
        .iter()
        .map(|address| {
            refuse_own(address, host, problems);
            let link = match named {
                Some(link) => {
                    warn_of_other_interface(address, link, host, problems);
                    Some(link)
                }
                None => find_link(address, host, problems),
            };
            VipAddress {
                cidr: address.value,
                link: link.map(|l| l.id),
                link_name: link.map(|l| l.name.clone()).unwrap_or_default(),
                vip_name: vip.name.value.clone(),
                presence: vip.presence,
            }
        })
        .collect()
}

/// The addresses of a VIP that this host cannot own.
pub(crate) fn elsewhere(vip: &Vip) -> Vec<VipAddress> {
    let absent = |a: &At<Cidr>| VipAddress {
        cidr: a.value,
        link: None,
        link_name: String::new(),
        vip_name: vip.name.value.clone(),
        presence: vip.presence,
    };
    vip.addresses.iter().map(absent).collect()
}

/// The interface of a name; where there is none, and none is called alike, `fix` says what to do.
pub(crate) fn find_interface<'h>(
    name: &At<String>,
    host: &'h Host,
    fix: &str,
    problems: &mut Problems<'_>,
) -> Option<&'h HostLink> {
    let link = host.links.iter().find(|link| link.name == name.value);
    if link.is_none() {
        refuse_interface(name, host, fix, problems);
    }
    link
}

fn refuse_interface(name: &At<String>, host: &Host, fix: &str, problems: &mut Problems<'_>) {
    let message = format!("this host has no interface {}", name.value);
    let names = || host.links.iter().map(|l| l.name.as_str());
    let reason = format!("its interfaces are {}", listed(names()));
    let fix = match value::nearest(&name.value, names()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => fix.to_owned(),
    };
    problems.add_once(Code::NoInterface, &name.span, message, reason, fix);
}

fn refuse_own(address: &At<Cidr>, host: &Host, problems: &mut Problems<'_>) {
    let vip = address.value.address();
    let Some((link, own)) = host.own().find(|(_, own)| own.address() == vip) else { return };
    let message = format!("{vip} is this host's own address");
    let reason = format!("{} has it as {own}, not put there by Buoy", link.name);
    let fix = format!(
        "choose a free address; or, if it is a leftover, remove it: ip address del {own} dev {}",
        link.name
    );
    problems.add(Code::HostAddress, &address.span, message, reason, fix);
}

/// The interface whose subnet holds the address: the narrowest, the first one that is up.
pub(crate) fn best_link(vip: IpAddr, host: &Host) -> Option<(&HostLink, Cidr)> {
    // An address without a subnet (/32, /128) has no room for a VIP.
    let narrow = |cidr: Cidr| cidr.prefix() < if vip.is_ipv4() { 32 } else { 128 };
    host.own()
        .filter(|(_, own)| own.contains(vip) && narrow(*own))
        .max_by_key(|(link, own)| (own.prefix(), link.up, core::cmp::Reverse(link.id)))
}

fn find_link<'h>(
    address: &At<Cidr>,
    host: &'h Host,
    problems: &mut Problems<'_>,
) -> Option<&'h HostLink> {
    let vip = address.value;
    let Some((link, own)) = best_link(vip.address(), host) else {
        let message = format!("no subnet of this host contains the VIP {}", vip.address());
        problems.add_once(
            Code::NoSubnet,
            &address.span,
            message,
            host.described(),
            subnet_fix(vip, host),
        );
        return None;
    };
    // A single host's prefix is how other systems write a VIP, and it works.
    let single = vip.prefix() == if vip.address().is_ipv4() { 32 } else { 128 };
    if own.prefix() != vip.prefix() && !single {
        let message = format!("the prefix of {vip} is not that of its subnet");
        let reason = format!("{} has {own}", link.name);
        let fix = format!("write \"{}/{}\"", vip.address(), own.prefix());
        problems.add_once(Code::PrefixDiffers, &address.span, message, reason, fix);
    }
    Some(link)
}

fn warn_of_other_interface(
    address: &At<Cidr>,
    named: &HostLink,
    host: &Host,
    problems: &mut Problems<'_>,
) {
    let vip = address.value.address();
    if matches!(value::unfit(vip), Some(Unfit::LinkLocal))
        || named.addresses.iter().any(|a| !a.ours && a.cidr.contains(vip))
    {
        return;
    }
    let Some((link, own)) = best_link(vip, host) else { return };
    let message = format!("{vip} is in the subnet of {}, not of {}", link.name, named.name);
    let reason = format!("{} has {own}", link.name);
    let fix = format!("write interface = \"{}\", or remove the line", link.name);
    problems.add_once(Code::OtherInterface, &address.span, message, reason, fix);
}

/// The same host part in the local subnet that is most alike: mostly a digit was mistyped.
fn subnet_fix(vip: Cidr, host: &Host) -> String {
    let alike = |own: Cidr| match (own.address(), vip.address()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    };
    let usable = host.own().filter(|(_, own)| {
        let same_family = own.address().is_ipv4() == vip.address().is_ipv4();
        same_family && value::unfit(own.address()).is_none() && moved(vip, *own).is_some()
    });
    let best = usable.max_by_key(|(link, own)| (alike(*own), core::cmp::Reverse(link.id)));
    let other = "set `interface = \"...\"`, or name the hosts that have the subnet in `nodes`";
    match best.and_then(|(_, own)| moved(vip, own)) {
        Some(moved) => format!("did you mean \"{moved}\"? Else {other}"),
        None => format!("give an interface an address in {vip}, {other}"),
    }
}

/// The VIP's host part in another subnet, where that is an address of its own.
fn moved(vip: Cidr, own: Cidr) -> Option<Cidr> {
    let address: IpAddr = match (vip.address(), own.address()) {
        (IpAddr::V4(vip), IpAddr::V4(own_address)) => {
            let host_mask = u32::MAX.checked_shr(u32::from(own.prefix())).unwrap_or(0);
            let host = vip.to_bits() & host_mask;
            (0 < host && host < host_mask).then_some(())?;
            core::net::Ipv4Addr::from_bits(own_address.to_bits() & !host_mask | host).into()
        }
        (IpAddr::V6(vip), IpAddr::V6(own_address)) => {
            let host_mask = u128::MAX.checked_shr(u32::from(own.prefix())).unwrap_or(0);
            let host = vip.to_bits() & host_mask;
            (host > 0).then_some(())?;
            core::net::Ipv6Addr::from_bits(own_address.to_bits() & !host_mask | host).into()
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    Cidr::new(address, own.prefix()).filter(|_| address != own.address())
}
