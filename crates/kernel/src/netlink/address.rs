//! An address in the words of route netlink.

use super::message::{Message, Request, attributes, word};
use super::{BACKEND_MARK, PROTOCOL_MARK};
use buoy_model::{Cidr, LinkId};
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const FIXED_LEN: usize = 8; // struct ifaddrmsg
const IFA_PROTO: u16 = 11;

/// An address on an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AddressFacts {
    /// On which interface.
    pub link: LinkId,
    /// Which address, with its prefix.
    pub cidr: Cidr,
    /// Whether it carries our mark.
    pub ours: bool,
    /// Whether it carries the mark of a VIP of a real server.
    pub prepared: bool,
    /// Whether the kernel is still looking for another owner, and so does not answer for it yet.
    pub tentative: bool,
}

/// One change of an address of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddressChange {
    /// Put it on, or renew it.
    Add {
        /// On which interface.
        link: LinkId,
        /// Which address, with its prefix.
        cidr: Cidr,
        /// Seconds until the kernel removes it by itself.
        valid_lifetime: u32,
    },
    /// Take it off.
    Remove {
        /// From which interface.
        link: LinkId,
        /// Which address, with its prefix.
        cidr: Cidr,
    },
}

impl AddressChange {
    /// Whether a refusal for this reason says that there is nothing to take off.
    pub fn is_done_already(&self, errno: Errno) -> bool {
        match self {
            Self::Add { .. } => false,
            Self::Remove { .. } => matches!(errno, Errno::EADDRNOTAVAIL | Errno::ENODEV),
        }
    }

    pub(super) fn request(&self) -> Request {
        match *self {
            Self::Add { link, cidr, valid_lifetime } => add(link, cidr, valid_lifetime),
            Self::Remove { link, cidr } => remove(link, cidr),
        }
    }
}

/// Puts an address on an interface or renews it there.
pub(super) fn add(link: LinkId, cidr: Cidr, valid_lifetime: u32) -> Request {
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut request =
        Request::new(libc::RTM_NEWADDR, flags, &fixed(link, cidr.address(), cidr.prefix()));
    local(&mut request, cidr.address());
    // NODAD: duplicate address detection would keep an IPv6 address silent for 1 to 2 seconds.
    // NOPREFIXROUTE: the host has a route to its subnet; ours would vanish with the address.
    let flags = libc::IFA_F_NODAD | libc::IFA_F_NOPREFIXROUTE;
    request.attribute(libc::IFA_FLAGS, &flags.to_ne_bytes());
    // An IPv6 address with no preferred time left serves what comes in and is never chosen as the
    // source of what goes out (RFC 6724 rule 3). IPv4 knows no such rule: the kernel chooses the
    // subnet's first address, and a VIP joins later.
    let preferred = match cidr.address() {
        IpAddr::V4(_) => valid_lifetime,
        IpAddr::V6(_) => 0,
    };
    let mut lifetimes = [0; 16]; // struct ifa_cacheinfo
    lifetimes[0..4].copy_from_slice(&preferred.to_ne_bytes());
    lifetimes[4..8].copy_from_slice(&valid_lifetime.to_ne_bytes());
    request.attribute(libc::IFA_CACHEINFO, &lifetimes);
    request.attribute(IFA_PROTO, &[PROTOCOL_MARK]);
    request
}

/// Puts a VIP of a real server on its loopback interface, for good.
pub(super) fn add_to_loopback(link: LinkId, address: IpAddr) -> Request {
    let (prefix, preferred) = match address {
        IpAddr::V4(_) => (32, u32::MAX),
        // Never chosen as a source, as in `add`.
        IpAddr::V6(_) => (128, 0),
    };
    let mut fixed = fixed(link, address, prefix);
    // The same for IPv4: of scope host, it is the source only of who binds to it. IPv6 ignores it.
    fixed[3] = libc::RT_SCOPE_HOST;
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut request = Request::new(libc::RTM_NEWADDR, flags, &fixed);
    local(&mut request, address);
    request.attribute(libc::IFA_FLAGS, &libc::IFA_F_NODAD.to_ne_bytes());
    let mut lifetimes = [0; 16]; // struct ifa_cacheinfo
    lifetimes[0..4].copy_from_slice(&preferred.to_ne_bytes());
    lifetimes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    request.attribute(libc::IFA_CACHEINFO, &lifetimes);
    request.attribute(IFA_PROTO, &[BACKEND_MARK]);
    request
}

/// Takes an address off an interface.
pub(super) fn remove(link: LinkId, cidr: Cidr) -> Request {
    let mut request = Request::new(
        libc::RTM_DELADDR,
        libc::NLM_F_ACK,
        &fixed(link, cidr.address(), cidr.prefix()),
    );
    local(&mut request, cidr.address());
    request
}

/// Asks for all addresses.
pub(super) fn dump() -> Request {
    Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; FIXED_LEN])
}

fn fixed(link: LinkId, address: IpAddr, prefix: u8) -> [u8; FIXED_LEN] {
    let family = match address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    let mut fixed = [0; FIXED_LEN];
    fixed[0] = u8::try_from(family).unwrap_or(0);
    fixed[1] = prefix;
    fixed[4..8].copy_from_slice(&link.0.to_ne_bytes());
    fixed
}

fn local(request: &mut Request, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            request.attribute(libc::IFA_LOCAL, &v4.octets());
            request.attribute(libc::IFA_ADDRESS, &v4.octets())
        }
        IpAddr::V6(v6) => {
            request.attribute(libc::IFA_LOCAL, &v6.octets());
            request.attribute(libc::IFA_ADDRESS, &v6.octets())
        }
    };
}

/// What the kernel says of one address; `None` when it is no address that we know how to read.
pub(super) fn parse(message: &Message<'_>) -> Option<AddressFacts> {
    let prefix = *message.payload.get(1)?;
    let link = LinkId(word(message.payload, 4)?);
    let (mut address, mut local, mut mark): (_, _, &[u8]) = (None, None, &[]);
    let mut flags = u32::from(*message.payload.get(2)?);
    for (kind, value) in attributes(message.payload.get(FIXED_LEN..)?) {
        match kind {
            libc::IFA_ADDRESS => address = ip(value),
            libc::IFA_LOCAL => local = ip(value),
            libc::IFA_FLAGS => flags = word(value, 0)?,
            IFA_PROTO => mark = value,
            _ => {}
        }
    }
    // IFA_ADDRESS is the peer's on a point-to-point interface; IFA_LOCAL, if there, is ours.
    let cidr = Cidr::new(local.or(address)?, prefix)?;
    Some(AddressFacts {
        link,
        cidr,
        ours: mark == [PROTOCOL_MARK],
        prepared: mark == [BACKEND_MARK],
        tentative: flags & libc::IFA_F_TENTATIVE != 0,
    })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(|b| Ipv4Addr::from(b).into());
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(|b| Ipv6Addr::from(b).into());
    v4().or_else(v6)
}

#[cfg(test)]
mod tests {
    use super::super::message::messages;
    use super::*;
    use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressProtocol};
    use netlink_packet_route::address::{AddressMessage, CacheInfo};

    fn cidr(text: &str, prefix: u8) -> Cidr {
        Cidr::new(text.parse().unwrap(), prefix).unwrap()
    }

    /// What another implementation reads in our bytes.
    fn second_opinion(mut request: Request) -> (u16, AddressMessage, bool) {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(request.finish(7));
        let message = message.unwrap();
        assert_eq!(message.header.sequence_number, 7);
        let NetlinkPayload::InnerMessage(inner) = message.payload else { panic!("no message") };
        if let RouteNetlinkMessage::NewAddress(address) = inner {
            (message.header.flags, address, true)
        } else if let RouteNetlinkMessage::DelAddress(address) = inner {
            (message.header.flags, address, false)
        } else {
            panic!("{inner:?}")
        }
    }

    #[test]
    fn an_added_address_says_all_that_the_kernel_must_know() {
        // Address, prefix, preferred seconds of 2 valid ones.
        let table = [("10.0.0.100", 24, 2), ("10.9.9.9", 32, 2), ("fd00::100", 64, 0)];
        for (text, prefix, preferred) in table {
            let (flags, message, is_new) = second_opinion(add(LinkId(5), cidr(text, prefix), 2));
            assert!(is_new);
            let wanted =
                libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
            assert_eq!(i32::from(flags), wanted);
            assert_eq!((message.header.index, message.header.prefix_len), (5, prefix));
            let address = text.parse().unwrap();
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_preferred = preferred;
            lifetime.ifa_valid = 2;
            assert_eq!(
                message.attributes,
                [
                    AddressAttribute::Local(address),
                    AddressAttribute::Address(address),
                    AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute),
                    AddressAttribute::CacheInfo(lifetime),
                    AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL_MARK)),
                ]
            );
        }
    }

    #[test]
    fn a_removed_address_is_named_with_its_prefix() {
        let (_, message, is_new) = second_opinion(remove(LinkId(5), cidr("10.0.0.100", 24)));
        assert!(!is_new);
        assert_eq!((message.header.index, message.header.prefix_len), (5, 24));
    }

    #[test]
    fn what_the_kernel_says_of_an_address_is_read() {
        for (text, prefix) in [("10.0.0.100", 24), ("fd00::100", 64)] {
            let mut request = add(LinkId(5), cidr(text, prefix), 2);
            let bytes = request.finish(1).to_vec();
            let facts = messages(&bytes).find_map(|m| parse(&m)).unwrap();
            assert_eq!((facts.link, facts.cidr), (LinkId(5), cidr(text, prefix)));
            assert!(facts.ours);
            assert!(!facts.tentative);
            // No cut of it is read past its end.
            for length in 0..bytes.len() - 16 {
                let payload = &bytes[16..16 + length];
                let _ = parse(&Message { kind: 20, flags: 0, sequence: 1, payload });
            }
        }
    }
}
