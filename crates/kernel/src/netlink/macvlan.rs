//! Interfaces with a hardware address of their own on another one (macvlan), in the words of route netlink.

use super::message::{Message, Request, attributes, word};
use super::{NetlinkError, Requests};
use buoy_model::{LinkId, Mac};

const FIXED_LEN: usize = 16; // struct ifinfomsg
const KIND: &[u8] = b"macvlan";
/// `IFLA_MACVLAN_MODE`, and of its values that of `bridge` (linux/if_link.h).
const IFLA_MACVLAN_MODE: u16 = 1;
const MODE_BRIDGE: u32 = 4;
const UP: u32 = libc::IFF_UP as u32;

/// Such an interface of this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct MacvlanFacts {
    pub(crate) link: LinkId,
    pub(crate) name: String,
    /// The interface that it is on.
    pub(crate) parent: LinkId,
    pub(crate) mac: Option<Mac>,
    /// In the mode that we make them in.
    pub(crate) bridges: bool,
    /// What somebody has written on it.
    pub(crate) alias: String,
    /// Administratively up.
    pub(crate) is_up: bool,
}

impl Requests {
    /// All of this host.
    pub(crate) fn macvlans(&mut self) -> Result<Vec<MacvlanFacts>, NetlinkError> {
        let mut dump = Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; FIXED_LEN]);
        self.collect(&mut dump, parse)
    }

    /// Makes one, still down: its settings come first.
    pub(crate) fn make_macvlan(
        &mut self,
        name: &str,
        parent: LinkId,
        mac: Mac,
    ) -> Result<(), NetlinkError> {
        self.order(&mut make(name, parent, mac))
    }

    /// Writes on an interface what it is for.
    pub(crate) fn set_alias(&mut self, link: LinkId, alias: &str) -> Result<(), NetlinkError> {
        self.order(set(link, 0).attribute(libc::IFLA_IFALIAS, alias.as_bytes()))
    }

    /// Brings an interface up.
    pub(crate) fn set_up(&mut self, link: LinkId) -> Result<(), NetlinkError> {
        self.order(&mut set(link, UP))
    }

    /// Removes an interface, with all that is on it.
    pub(crate) fn remove_link(&mut self, link: LinkId) -> Result<(), NetlinkError> {
        let mut request = Request::new(libc::RTM_DELLINK, libc::NLM_F_ACK, &fixed(link, 0));
        self.order(&mut request)
    }

    /// Gives an interface the route that every link-local address needs, and that the kernel makes only with one of its own.
    pub(crate) fn add_link_local_route(&mut self, link: LinkId) -> Result<(), NetlinkError> {
        self.order(&mut link_local_route(link))
    }
}

fn make(name: &str, parent: LinkId, mac: Mac) -> Request {
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut request = Request::new(libc::RTM_NEWLINK, flags, &[0; FIXED_LEN]);
    request.attribute(libc::IFLA_IFNAME, name.as_bytes());
    request.attribute(libc::IFLA_LINK, &parent.0.to_ne_bytes());
    request.attribute(libc::IFLA_ADDRESS, &mac.0);
    request.nest(libc::IFLA_LINKINFO, |info| {
        info.attribute(libc::IFLA_INFO_KIND, KIND).nest(libc::IFLA_INFO_DATA, |data| {
            data.attribute(IFLA_MACVLAN_MODE, &MODE_BRIDGE.to_ne_bytes());
        });
    });
    request
}

fn set(link: LinkId, flags: u32) -> Request {
    Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &fixed(link, flags))
}

fn fixed(link: LinkId, flags: u32) -> [u8; FIXED_LEN] {
    let mut fixed = [0; FIXED_LEN];
    fixed[4..8].copy_from_slice(&link.0.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&flags.to_ne_bytes()); // those, and no others
    fixed
}

fn link_local_route(link: LinkId) -> Request {
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let (family, table) = (libc::AF_INET6.to_le_bytes()[0], libc::RT_TABLE_MAIN);
    // struct rtmsg: a /64 to what is on the link, as the kernel's own one is.
    let kind = [libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST];
    let fixed = [family, 64, 0, 0, table, libc::RTPROT_KERNEL, kind[0], kind[1], 0, 0, 0, 0];
    let mut request = Request::new(libc::RTM_NEWROUTE, flags, &fixed);
    let mut subnet = [0; 16];
    subnet[..2].copy_from_slice(&[0xfe, 0x80]);
    request.attribute(libc::RTA_DST, &subnet);
    request.attribute(libc::RTA_OIF, &link.0.to_ne_bytes());
    // The metric of the kernel's own (IP6_RT_PRIO_ADDRCONF).
    request.attribute(libc::RTA_PRIORITY, &256_u32.to_ne_bytes());
    request
}

fn parse(message: &Message<'_>) -> Option<MacvlanFacts> {
    if i32::from(*message.payload.first()?) != libc::AF_UNSPEC {
        return None;
    }
    let text = |value: &[u8]| {
        String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
    };
    let (mut name, mut alias) = (String::new(), String::new());
    let (mut parent, mut mac, mut kind, mut mode) = (None, None, &[][..], None);
    for (attribute, value) in attributes(message.payload.get(FIXED_LEN..)?) {
        match attribute {
            libc::IFLA_IFNAME => name = text(value),
            libc::IFLA_IFALIAS => alias = text(value),
            libc::IFLA_LINK => parent = word(value, 0).map(LinkId),
            libc::IFLA_ADDRESS => mac = value.try_into().ok().map(Mac),
            libc::IFLA_LINKINFO => {
                for (part, value) in attributes(value) {
                    match part {
                        libc::IFLA_INFO_KIND => kind = value.strip_suffix(&[0]).unwrap_or(value),
                        libc::IFLA_INFO_DATA => mode = of_data(value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    (kind == KIND).then_some(())?;
    let (link, flags) = (LinkId(word(message.payload, 4)?), word(message.payload, 8)?);
    let (bridges, is_up) = (mode == Some(MODE_BRIDGE), flags & UP != 0);
    Some(MacvlanFacts { link, name, parent: parent?, mac, bridges, alias, is_up })
}

fn of_data(data: &[u8]) -> Option<u32> {
    attributes(data).find(|&(kind, _)| kind == IFLA_MACVLAN_MODE).and_then(|(_, v)| word(v, 0))
}

#[cfg(test)]
mod tests {
    use super::super::message::messages;
    use super::*;

    const MAC: Mac = Mac([0, 0, 0x5e, 0, 1, 51]);

    /// What is sent to make one, as if the kernel told it.
    fn told(mut request: Request, kind: u16) -> Vec<u8> {
        let mut bytes = request.finish(1).to_vec();
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes
    }

    #[test]
    fn what_is_made_is_recognised() {
        let bytes = told(make("vrrp.51", LinkId(7), MAC), libc::RTM_NEWLINK);
        let facts = messages(&bytes).find_map(|message| parse(&message)).unwrap();
        let expected = MacvlanFacts {
            link: LinkId(0),
            name: "vrrp.51".into(),
            parent: LinkId(7),
            mac: Some(MAC),
            bridges: true,
            alias: String::new(),
            is_up: false,
        };
        assert_eq!(facts, expected);
    }

    #[test]
    fn an_interface_of_another_kind_is_none() {
        let bytes = told(set(LinkId(3), UP), libc::RTM_NEWLINK);
        assert!(messages(&bytes).all(|message| parse(&message).is_none()));
    }

    #[test]
    fn the_longest_name_and_alias_have_room() {
        let name = "vrrp6.255.12345";
        assert!(name.len() < libc::IFNAMSIZ);
        let mut request = make(name, LinkId(u32::MAX), MAC);
        assert_eq!(messages(request.finish(1)).count(), 1);
    }
}
