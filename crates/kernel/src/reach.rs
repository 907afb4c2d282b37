//! Asks whether a neighbour is there: by ARP over IPv4, by neighbour discovery over IPv6.
//!
//! The answer to a ping would need a route, and a source that may be a VIP. Here a frame leaves through
//! one interface, from an address of its own that is no VIP; over IPv4 also from none (an RFC 5227
//! probe), where the interface has no address in the neighbour's subnet. Whatever the neighbour says of its
//! address while we listen counts: who speaks is there.

use crate::clock;
use crate::host::{self, Link};
use crate::netlink::NetlinkError;
use crate::packet::{Announcer, Heard, Listener, PacketError};
use crate::poll::Poller;
use buoy_model::{Instant, LinkId, Mac};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Questions within the time for an answer: one lost frame is no lost neighbour.
const QUESTIONS: u32 = 3;
/// Longest time between two questions, and until a lost interest is noticed.
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Debug)]
pub enum ReachError {
    /// The neighbour has not answered.
    Silent {
        /// Who was asked.
        target: IpAddr,
        /// Through which interface.
        link: String,
    },
    /// The interface is not there, or not an Ethernet interface.
    NoLink {
        /// Which.
        link: LinkId,
    },
    /// The interface cannot carry a question now.
    Down {
        /// Its name.
        link: String,
    },
    /// The interface has no address to ask from.
    NoSource {
        /// Its name.
        link: String,
    },
    /// This host cannot be asked about itself.
    Host(NetlinkError),
    /// The segment cannot be spoken to.
    Packet(PacketError),
    /// Waiting failed.
    Wait(io::Error),
}

impl fmt::Display for ReachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { target, link } => write!(f, "{target} does not answer on {link}"),
            Self::NoLink { link } => {
                write!(f, "interface {} is gone, or is no Ethernet interface", link.0)
            }
            Self::Down { link } => write!(f, "{link} is down or has no carrier"),
            Self::NoSource { link } => write!(
                f,
                "{link} has no IPv6 address of its own to ask from: give it one, or see that \
                 net.ipv6.conf.{link}.disable_ipv6 is 0"
            ),
            Self::Host(cause) => write!(f, "cannot list the interfaces: {cause}"),
            Self::Packet(cause) => cause.fmt(f),
            Self::Wait(cause) => write!(f, "cannot wait for an answer: {cause}"),
        }
    }
}

impl std::error::Error for ReachError {}

/// Asks through an interface whether somebody there has the address, and waits so long for an answer. Ends
/// early, as if nobody had answered, when the answer is not wanted any more.
pub fn ask(
    link: LinkId,
    target: IpAddr,
    within: Duration,
    is_wanted: &dyn Fn() -> bool,
) -> Result<(), ReachError> {
    let end = clock::now() + within;
    let facts = host::facts().map_err(ReachError::Host)?;
    if facts.links.iter().flat_map(|l| &l.addresses).any(|a| a.cidr.address() == target) {
        // It is this host: nobody else would answer.
        return Ok(());
    }
    let here = facts.link(link).ok_or(ReachError::NoLink { link })?;
    let mac = here.mac.ok_or(ReachError::NoLink { link })?;
    let name = || here.name.clone();
    if !here.up {
        return Err(ReachError::Down { link: name() });
    }
    let from = source(here, target).ok_or_else(|| ReachError::NoSource { link: name() })?;
    let mut listener = Listener::open(link, mac).map_err(ReachError::Packet)?;
    let mut announcer = Announcer::open().map_err(ReachError::Packet)?;
    announcer.set_link(link, mac, false);
    let between = (within / QUESTIONS).min(AGAIN_MAX);
    while is_wanted() && clock::now() < end {
        announcer.ask(link, from, target).map_err(ReachError::Packet)?;
        let until = (clock::now() + between).min(end);
        if hears(&mut listener, target, until)? {
            return Ok(());
        }
    }
    Err(ReachError::Silent { target, link: name() })
}

/// Somebody on the segment who has an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    /// Which address.
    pub address: IpAddr,
    /// Whose.
    pub mac: Mac,
    /// On which interface that was heard.
    pub link: String,
}

/// Who has one of these addresses already, before they are used here: each is asked for several times within that
/// time. Over IPv4 by probes, which claim nothing (RFC 5227 §2.1); over IPv6 by questions from an address of the
/// interface. What cannot be asked for, since its interface is down or has no address to ask from, has no holder.
pub fn holders(targets: &[(LinkId, IpAddr)], within: Duration) -> Result<Vec<Holder>, ReachError> {
    let facts = host::facts().map_err(ReachError::Host)?;
    let is_here = |target: IpAddr| {
        facts.links.iter().flat_map(|l| &l.addresses).any(|a| a.cidr.address() == target)
    };
    let mut announcer = Announcer::open().map_err(ReachError::Packet)?;
    let mut listeners: Vec<Listener> = Vec::new();
    let mut questions = Vec::new();
    for (id, target) in targets.iter().filter(|(_, target)| !is_here(*target)) {
        let Some(link) = facts.link(*id).filter(|link| link.up) else { continue };
        let (Some(mac), Some(from)) = (link.mac, source(link, *target)) else { continue };
        if !listeners.iter().any(|listener| listener.link() == *id) {
            listeners.push(Listener::open(*id, mac).map_err(ReachError::Packet)?);
            announcer.set_link(*id, mac, false);
        }
        let from = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { from };
        questions.push((*id, from, *target));
    }
    let mut found: Vec<Holder> = Vec::new();
    for _ in 0..QUESTIONS {
        if questions.is_empty() {
            break;
        }
        for (link, from, target) in &questions {
            announcer.ask(*link, *from, *target).map_err(ReachError::Packet)?;
        }
        let until = clock::now() + within / QUESTIONS;
        hear_all(&mut listeners, until, &mut |Heard::Claim { link, address, mac }| {
            let is_asked =
                questions.iter().any(|(id, _, target)| (*id, *target) == (link, address));
            if is_asked && !found.iter().any(|holder| holder.address == address) {
                let link = facts.link(link).map_or_else(String::new, |link| link.name.clone());
                found.push(Holder { address, mac, link });
            }
        })?;
        questions.retain(|(_, _, target)| !found.iter().any(|holder| holder.address == *target));
    }
    Ok(found)
}

/// All that is said before that moment.
fn hear_all(
    listeners: &mut [Listener],
    until: Instant,
    tell: &mut dyn FnMut(Heard),
) -> Result<(), ReachError> {
    loop {
        for listener in listeners.iter_mut() {
            listener.read(tell).map_err(ReachError::Packet)?;
        }
        if until <= clock::now() {
            return Ok(());
        }
        let mut poller = Poller::new();
        for (token, fd) in listeners.iter().flat_map(Listener::fds).enumerate() {
            poller.watch(token, &fd);
        }
        poller.wait(Some(until)).map_err(ReachError::Wait)?;
    }
}

/// An address of the interface that may ask: of the target's subnet; else none at all over IPv4, and
/// over IPv6 any, where a link-local one answers for all subnets.
fn source(link: &Link, target: IpAddr) -> Option<IpAddr> {
    let own = || link.addresses.iter().filter(|a| !a.ours).map(|a| a.cidr);
    let near = own().find(|cidr| cidr.contains(target)).map(|cidr| cidr.address());
    match target {
        IpAddr::V4(_) => near.or(Some(Ipv4Addr::UNSPECIFIED.into())),
        IpAddr::V6(_) => {
            let of_family = || own().map(|cidr| cidr.address()).filter(IpAddr::is_ipv6);
            near.or_else(|| of_family().find(is_link_local)).or_else(|| of_family().next())
        }
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Whether the target says a word before that moment.
fn hears(listener: &mut Listener, target: IpAddr, until: Instant) -> Result<bool, ReachError> {
    loop {
        let mut heard = false;
        listener
            .read(&mut |Heard::Claim { address, .. }| heard |= address == target)
            .map_err(ReachError::Packet)?;
        if heard || until <= clock::now() {
            return Ok(heard);
        }
        let mut poller = Poller::new();
        for (token, fd) in listener.fds().iter().enumerate() {
            poller.watch(token, fd);
        }
        poller.wait(Some(until)).map_err(ReachError::Wait)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Address;
    use buoy_model::Cidr;

    #[test]
    fn a_question_comes_from_an_own_address_and_never_from_a_vip() {
        let cases: [(&[&str], &str, Option<&str>); 9] = [
            (&["10.0.0.1/24"], "10.0.0.254", Some("10.0.0.1")),
            (&["10.9.0.1/24", "10.0.0.1/24"], "10.0.0.254", Some("10.0.0.1")),
            (&["vip 10.0.0.100/24", "10.0.0.1/24"], "10.0.0.254", Some("10.0.0.1")),
            (&["vip 10.0.0.100/24"], "10.0.0.254", Some("0.0.0.0")),
            (&["10.9.0.1/24"], "10.0.0.254", Some("0.0.0.0")),
            (&["fe80::1/64", "fd00::1/64"], "fd00::fe", Some("fd00::1")),
            (&["fd09::1/64", "fe80::1/64"], "fd00::fe", Some("fe80::1")),
            (&["vip fd00::100/64", "fd09::1/64"], "fd00::fe", Some("fd09::1")),
            (&["10.0.0.1/24", "vip fd00::100/64"], "fd00::fe", None),
        ];
        for (addresses, target, expected) in cases {
            let address = |text: &&str| {
                let cidr = text.trim_start_matches("vip ");
                let (address, prefix) = cidr.split_once('/').unwrap();
                let cidr = Cidr::new(address.parse().unwrap(), prefix.parse().unwrap()).unwrap();
                Address { cidr, ours: text.starts_with("vip") }
            };
            let link = Link {
                id: LinkId(1),
                name: "eth0".into(),
                up: true,
                mac: Some(Mac::default()),
                addresses: addresses.iter().map(address).collect(),
            };
            let from = source(&link, target.parse().unwrap());
            assert_eq!(from, expected.map(|e| e.parse().unwrap()), "{addresses:?} to {target}");
        }
    }
}
