//! Neighbours and routes in the words of route netlink: where a packet to an address goes next.

use super::message::{Message, Request, attributes, half, word};
use super::{NetlinkError, Requests};
use buoy_model::{LinkId, Mac};
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const NEIGHBOUR_LEN: usize = 12; // struct ndmsg
const ROUTE_LEN: usize = 12; // struct rtmsg
const LINK_LEN: usize = 16; // struct ifinfomsg
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NTF_USE: u8 = 1;
/// Not in `libc` for every C library.
const RTA_VIA: u16 = 18;
const NUD_NONE: u16 = 0;
/// Not in `libc` (linux/if_link.h, linux/if_ether.h).
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_PROTOCOL: u16 = 5;
const ETH_P_8021Q: u16 = 0x8100;
/// The address is known, or was a moment ago and is good until another one is heard of.
const NUD_VALID: u16 = libc::NUD_PERMANENT
    | libc::NUD_NOARP
    | libc::NUD_REACHABLE
    | libc::NUD_PROBE
    | libc::NUD_STALE
    | libc::NUD_DELAY;

/// A neighbour whose Ethernet address is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NeighbourFacts {
    /// On which interface.
    pub link: LinkId,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
    /// It was heard lately, is being asked, or need not be.
    pub is_fresh: bool,
}

/// What goes through an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CableFacts {
    /// Which interface.
    pub link: LinkId,
    /// Its MTU.
    pub mtu: u32,
    /// It is one end of a virtual Ethernet cable.
    pub is_veth: bool,
    /// It has the frames of a VLAN (IEEE 802.1Q): the interface that they come in by with their tag, and the
    /// tag's number.
    pub vlan: Option<(LinkId, u16)>,
}

/// Where a packet from this host to an address goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RouteFacts {
    /// The address is this host's own.
    pub is_local: bool,
    /// Out of which interface.
    pub link: LinkId,
    /// To which router; `None`: to the address itself.
    pub gateway: Option<IpAddr>,
    /// From which address of this host.
    pub source: Option<IpAddr>,
}

impl Requests {
    /// All neighbours whose Ethernet addresses are known.
    pub fn neighbours(&mut self) -> Result<Vec<NeighbourFacts>, NetlinkError> {
        let fixed = [0; NEIGHBOUR_LEN];
        self.collect(&mut Request::new(libc::RTM_GETNEIGH, libc::NLM_F_DUMP, &fixed), neighbour)
    }

    /// The way to an address; `None` where there is none.
    pub fn route(&mut self, to: IpAddr) -> Result<Option<RouteFacts>, NetlinkError> {
        let (family, prefix) = family(to);
        let mut fixed = [0; ROUTE_LEN];
        (fixed[0], fixed[1]) = (family, prefix);
        let mut request = Request::new(libc::RTM_GETROUTE, libc::NLM_F_ACK, &fixed);
        put_address(&mut request, libc::RTA_DST, to);
        match self.collect(&mut request, route) {
            Ok(routes) => Ok(routes.into_iter().next()),
            Err(NetlinkError::Refused {
                errno: Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel look for a neighbour, as if there were a packet for it.
    pub fn look_for(&mut self, link: LinkId, neighbour: IpAddr) -> Result<(), NetlinkError> {
        let mut fixed = [0; NEIGHBOUR_LEN];
        fixed[0] = family(neighbour).0;
        fixed[4..8].copy_from_slice(&link.0.to_ne_bytes());
        fixed[8..10].copy_from_slice(&NUD_NONE.to_ne_bytes());
        fixed[10] = NTF_USE;
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let mut request = Request::new(libc::RTM_NEWNEIGH, flags, &fixed);
        put_address(&mut request, NDA_DST, neighbour);
        self.order(&mut request)
    }

    /// What goes through each interface.
    pub fn cables(&mut self) -> Result<Vec<CableFacts>, NetlinkError> {
        let fixed = [0; LINK_LEN];
        self.collect(&mut Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &fixed), cable)
    }

    /// Whether one of these interfaces is one end of a virtual Ethernet cable.
    pub fn is_one_a_veth(&mut self, links: &[LinkId]) -> Result<bool, NetlinkError> {
        if links.is_empty() {
            return Ok(false);
        }
        Ok(self.cables()?.into_iter().any(|facts| facts.is_veth && links.contains(&facts.link)))
    }
}

fn family(address: IpAddr) -> (u8, u8) {
    let (family, prefix) = match address {
        IpAddr::V4(_) => (libc::AF_INET, 32),
        IpAddr::V6(_) => (libc::AF_INET6, 128),
    };
    (u8::try_from(family).unwrap_or(0), prefix)
}

pub(super) fn put_address(request: &mut Request, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => request.attribute(kind, &v4.octets()),
        IpAddr::V6(v6) => request.attribute(kind, &v6.octets()),
    };
}

pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(|b| Ipv4Addr::from(b).into());
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(|b| Ipv6Addr::from(b).into());
    v4().or_else(v6)
}

fn neighbour(message: &Message<'_>) -> Option<NeighbourFacts> {
    let state = half(message.payload, 8)?;
    if message.kind != libc::RTM_NEWNEIGH || state & NUD_VALID == 0 {
        return None;
    }
    let is_fresh = state & libc::NUD_STALE == 0;
    let link = LinkId(word(message.payload, 4)?);
    let (mut address, mut mac) = (None, None);
    for (kind, value) in attributes(message.payload.get(NEIGHBOUR_LEN..)?) {
        match kind {
            NDA_DST => address = ip(value),
            NDA_LLADDR => mac = value.try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some(NeighbourFacts { link, address: address?, mac: mac?, is_fresh })
}

fn route(message: &Message<'_>) -> Option<RouteFacts> {
    if message.kind != libc::RTM_NEWROUTE {
        return None;
    }
    let kind = *message.payload.get(7)?;
    if kind != libc::RTN_UNICAST && kind != libc::RTN_LOCAL {
        return None;
    }
    let (mut link, mut gateway, mut source) = (None, None, None);
    for (kind, value) in attributes(message.payload.get(ROUTE_LEN..)?) {
        match kind {
            libc::RTA_OIF => link = word(value, 0),
            libc::RTA_GATEWAY => gateway = ip(value),
            // An IPv4 route through an IPv6 router: its family, and then its address.
            RTA_VIA => gateway = value.get(2..).and_then(ip),
            libc::RTA_PREFSRC => source = ip(value),
            _ => {}
        }
    }
    let link = LinkId(link?);
    Some(RouteFacts { is_local: kind == libc::RTN_LOCAL, link, gateway, source })
}

fn cable(message: &Message<'_>) -> Option<CableFacts> {
    if i32::from(*message.payload.first()?) != libc::AF_UNSPEC {
        return None;
    }
    let link = LinkId(word(message.payload, 4)?);
    let (mut mtu, mut below) = (None, None);
    let (mut name, mut data): (&[u8], &[u8]) = (&[], &[]);
    for (kind, value) in attributes(message.payload.get(LINK_LEN..)?) {
        match kind {
            libc::IFLA_MTU => mtu = word(value, 0),
            libc::IFLA_LINK => below = word(value, 0).map(LinkId),
            libc::IFLA_LINKINFO => {
                for (kind, value) in attributes(value) {
                    match kind {
                        libc::IFLA_INFO_KIND => name = value.strip_suffix(&[0]).unwrap_or(value),
                        libc::IFLA_INFO_DATA => data = value,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let vlan = if name == b"vlan" { below.zip(vlan_id(data)) } else { None };
    Some(CableFacts { link, mtu: mtu?, is_veth: name == b"veth", vlan })
}

/// The number in an interface's tags, if they are of the usual kind.
fn vlan_id(data: &[u8]) -> Option<u16> {
    let (mut id, mut protocol) = (None, None);
    for (kind, value) in attributes(data) {
        match kind {
            IFLA_VLAN_ID => id = half(value, 0),
            IFLA_VLAN_PROTOCOL => protocol = value.get(..2),
            _ => {}
        }
    }
    id.filter(|_| protocol.is_none_or(|protocol| protocol == ETH_P_8021Q.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::message::messages;
    use super::*;

    fn read<T>(mut request: Request, parse: impl Fn(&Message<'_>) -> Option<T>) -> Option<T> {
        let bytes = request.finish(1).to_vec();
        // No cut of it is read past its end.
        for length in 0..bytes.len() - 16 {
            let payload = &bytes[16..16 + length];
            let _ = parse(&Message { kind: 28, flags: 0, sequence: 1, payload });
            let _ = parse(&Message { kind: 24, flags: 0, sequence: 1, payload });
        }
        messages(&bytes).find_map(|m| parse(&m))
    }

    fn said_neighbour(state: u16) -> Request {
        let mut fixed = [0; NEIGHBOUR_LEN];
        fixed[4] = 7;
        fixed[8..10].copy_from_slice(&state.to_ne_bytes());
        let mut request = Request::new(libc::RTM_NEWNEIGH, 0, &fixed);
        request.attribute(NDA_DST, &[10, 0, 0, 1]).attribute(NDA_LLADDR, &[2, 0, 0, 0, 0, 1]);
        request
    }

    #[test]
    fn a_neighbour_counts_while_its_address_is_good() {
        let known = NeighbourFacts {
            link: LinkId(7),
            address: "10.0.0.1".parse().unwrap(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            is_fresh: true,
        };
        for state in [libc::NUD_REACHABLE, libc::NUD_PROBE, libc::NUD_PERMANENT] {
            assert_eq!(read(said_neighbour(state), neighbour), Some(known));
        }
        let stale = NeighbourFacts { is_fresh: false, ..known };
        assert_eq!(read(said_neighbour(libc::NUD_STALE), neighbour), Some(stale));
        for state in [libc::NUD_INCOMPLETE, libc::NUD_FAILED, NUD_NONE] {
            assert_eq!(read(said_neighbour(state), neighbour), None);
        }
    }

    #[test]
    fn a_route_says_where_to_and_from_whom() {
        for (kind, is_local) in [(libc::RTN_UNICAST, false), (libc::RTN_LOCAL, true)] {
            let mut fixed = [0; ROUTE_LEN];
            fixed[7] = kind;
            let mut request = Request::new(libc::RTM_NEWROUTE, 0, &fixed);
            request.attribute(libc::RTA_OIF, &9_u32.to_ne_bytes());
            request.attribute(libc::RTA_GATEWAY, &[10, 0, 0, 254]);
            request.attribute(libc::RTA_PREFSRC, &[10, 0, 0, 1]);
            let facts = read(request, route).unwrap();
            assert_eq!((facts.link, facts.is_local), (LinkId(9), is_local));
            assert_eq!(facts.gateway, Some("10.0.0.254".parse().unwrap()));
            assert_eq!(facts.source, Some("10.0.0.1".parse().unwrap()));
        }
    }

    #[test]
    fn a_router_of_the_other_family_is_read() {
        let mut fixed = [0; ROUTE_LEN];
        fixed[7] = libc::RTN_UNICAST;
        let mut request = Request::new(libc::RTM_NEWROUTE, 0, &fixed);
        let router: Ipv6Addr = "fe80::1".parse().unwrap();
        let via = [&10_u16.to_ne_bytes()[..], &router.octets()].concat();
        request.attribute(libc::RTA_OIF, &9_u32.to_ne_bytes()).attribute(RTA_VIA, &via);
        assert_eq!(read(request, route).unwrap().gateway, Some(router.into()));
    }

    #[test]
    fn an_interface_of_a_vlan_says_which_and_below_it_another_one() {
        let nested = |parts: &[(u16, &[u8])]| {
            let mut request = Request::new(0, 0, &[]);
            for (kind, value) in parts {
                request.attribute(*kind, value);
            }
            request.finish(1)[16..].to_vec()
        };
        let said = |name: &[u8], protocol: u16| {
            let protocol = protocol.to_be_bytes();
            let data = nested(&[(IFLA_VLAN_ID, &[0x34, 2]), (IFLA_VLAN_PROTOCOL, &protocol)]);
            let info = nested(&[(libc::IFLA_INFO_KIND, name), (libc::IFLA_INFO_DATA, &data)]);
            let mut fixed = [0; LINK_LEN];
            fixed[4] = 9;
            let mut request = Request::new(libc::RTM_NEWLINK, 0, &fixed);
            request.attribute(libc::IFLA_MTU, &1500_u32.to_ne_bytes());
            request.attribute(libc::IFLA_LINK, &3_u32.to_ne_bytes());
            request.attribute(libc::IFLA_LINKINFO, &info);
            read(request, cable).unwrap()
        };
        let vlan = said(b"vlan\0", ETH_P_8021Q);
        assert_eq!((vlan.vlan, vlan.mtu, vlan.is_veth), (Some((LinkId(3), 0x234)), 1500, false));
        let of_a_provider = said(b"vlan\0", 0x88a8);
        assert_eq!(of_a_provider.vlan, None);
        let cable = said(b"veth\0", 0);
        assert_eq!((cable.vlan, cable.is_veth), (None, true));
    }
}
