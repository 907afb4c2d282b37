//! An interface in the words of route netlink.

use super::message::{Message, Request, attributes, half, word};
use buoy_model::{LinkId, Mac};

const FIXED_LEN: usize = 16; // struct ifinfomsg
const UP: u32 = libc::IFF_UP as u32;
/// The driver's carrier; not in `libc` (linux/if.h).
const LOWER_UP: u32 = 1 << 16;
/// RFC 2863's operational state. It follows the carrier, but only then are the queues open: what is
/// sent between the two is lost without an error.
const RUNNING: u32 = libc::IFF_RUNNING as u32;

/// An interface of this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinkFacts {
    /// Its index.
    pub id: LinkId,
    /// Its name.
    pub name: String,
    /// Administratively up, with carrier.
    pub up: bool,
    /// Its Ethernet address; `None` where it has none, so nothing can be announced there.
    pub mac: Option<Mac>,
}

/// Asks for all interfaces.
pub(super) fn dump() -> Request {
    Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; FIXED_LEN])
}

/// What a message says of an interface, without its name, so without allocating.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct LinkState<'a> {
    pub(super) id: LinkId,
    pub(super) up: bool,
    pub(super) mac: Option<Mac>,
    pub(super) name: &'a [u8],
}

pub(super) fn parse<'a>(message: &Message<'a>) -> Option<LinkState<'a>> {
    // Bridges tell of their ports in the same words; a port that leaves its bridge is not gone.
    if i32::from(*message.payload.first()?) != libc::AF_UNSPEC {
        return None;
    }
    let ethernet = half(message.payload, 2)? == libc::ARPHRD_ETHER;
    let flags = word(message.payload, 8)?;
    let (mut mac, mut name): (_, &[u8]) = (None, &[]);
    for (kind, value) in attributes(message.payload.get(FIXED_LEN..)?) {
        match kind {
            libc::IFLA_ADDRESS if ethernet => mac = value.try_into().ok().map(Mac),
            libc::IFLA_IFNAME => name = value.strip_suffix(&[0]).unwrap_or(value),
            _ => {}
        }
    }
    let up = flags & (UP | LOWER_UP | RUNNING) == UP | LOWER_UP | RUNNING;
    Some(LinkState { id: LinkId(word(message.payload, 4)?), up, mac, name })
}

impl From<LinkState<'_>> for LinkFacts {
    fn from(state: LinkState<'_>) -> Self {
        let name = String::from_utf8_lossy(state.name).into_owned();
        Self { id: state.id, name, up: state.up, mac: state.mac }
    }
}
