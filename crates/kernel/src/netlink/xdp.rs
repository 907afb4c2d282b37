//! XDP programs on interfaces in the words of route netlink.
//!
//! What is attached like this belongs to the interface and to no process: it stays when whoever put it there
//! ends, without a bpffs to pin it in.

use super::message::{Message, Request, attributes, word};
use super::{NetlinkError, Requests};
use buoy_model::LinkId;
use std::os::fd::{AsRawFd, BorrowedFd};

const FIXED_LEN: usize = 16; // struct ifinfomsg
const IFLA_XDP: u16 = 43;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_EXPECTED_FD: u16 = 8;
/// `XDP_FLAGS_UPDATE_IF_NOEXIST`, `_SKB_MODE`, `_DRV_MODE` and `_REPLACE`.
const ONLY_IF_NONE: u32 = 1 << 0;
const GENERIC: u32 = 1 << 1;
const DRIVER: u32 = 1 << 2;
const REPLACE: u32 = 1 << 4;
/// `XDP_ATTACHED_DRV` and `XDP_ATTACHED_SKB`.
const ATTACHED_DRIVER: u8 = 1;
const ATTACHED_GENERIC: u8 = 2;
const NO_PROGRAM: i32 = -1;

/// Where a program sees frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum XdpPlace {
    /// In the driver.
    Driver,
    /// Behind it.
    Generic,
    /// In the hardware, or in several places: nothing of ours.
    Other,
}

impl XdpPlace {
    const fn flags(self) -> u32 {
        match self {
            Self::Driver => DRIVER,
            Self::Generic => GENERIC,
            Self::Other => 0,
        }
    }
}

/// The program on an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct XdpFacts {
    pub(crate) link: LinkId,
    pub(crate) place: XdpPlace,
    /// The id of the program.
    pub(crate) program: Option<u32>,
}

impl Requests {
    /// The interfaces with an XDP program on them.
    pub(crate) fn xdp(&mut self) -> Result<Vec<XdpFacts>, NetlinkError> {
        let fixed = [0; FIXED_LEN];
        self.collect(&mut Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &fixed), parse)
    }

    /// Puts a program on an interface where none is, or in the place of this one and no other.
    pub(crate) fn put_xdp(
        &mut self,
        link: LinkId,
        place: XdpPlace,
        program: BorrowedFd<'_>,
        instead_of: Option<BorrowedFd<'_>>,
    ) -> Result<(), NetlinkError> {
        self.order(&mut change(link, place, program.as_raw_fd(), instead_of))
    }

    /// Takes this program off an interface, and no other.
    pub(crate) fn remove_xdp(
        &mut self,
        link: LinkId,
        place: XdpPlace,
        program: BorrowedFd<'_>,
    ) -> Result<(), NetlinkError> {
        self.order(&mut change(link, place, NO_PROGRAM, Some(program)))
    }
}

fn change(
    link: LinkId,
    place: XdpPlace,
    program: i32,
    instead_of: Option<BorrowedFd<'_>>,
) -> Request {
    let mut fixed = [0; FIXED_LEN];
    fixed[4..8].copy_from_slice(&link.0.to_ne_bytes());
    let mut request = Request::new(libc::RTM_SETLINK, libc::NLM_F_ACK, &fixed);
    let how = if instead_of.is_some() { REPLACE } else { ONLY_IF_NONE };
    request.nest(IFLA_XDP, |xdp| {
        xdp.attribute(IFLA_XDP_FD, &program.to_ne_bytes())
            .attribute(IFLA_XDP_FLAGS, &(place.flags() | how).to_ne_bytes());
        if let Some(old) = instead_of {
            xdp.attribute(IFLA_XDP_EXPECTED_FD, &old.as_raw_fd().to_ne_bytes());
        }
    });
    request
}

fn parse(message: &Message<'_>) -> Option<XdpFacts> {
    let link = LinkId(word(message.payload, 4)?);
    let mut all = attributes(message.payload.get(FIXED_LEN..)?);
    let (_, xdp) = all.find(|&(kind, _)| kind == IFLA_XDP)?;
    let (mut attached, mut program) = (0, None);
    for (kind, value) in attributes(xdp) {
        match kind {
            IFLA_XDP_ATTACHED => attached = *value.first()?,
            IFLA_XDP_PROG_ID => program = word(value, 0),
            _ => {}
        }
    }
    let place = match attached {
        0 => return None,
        ATTACHED_DRIVER => XdpPlace::Driver,
        ATTACHED_GENERIC => XdpPlace::Generic,
        _ => XdpPlace::Other,
    };
    Some(XdpFacts { link, place, program })
}

#[cfg(test)]
mod tests {
    use super::super::message::messages;
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_the_kernel_says_of_a_program_is_read() {
        for (attached, place) in
            [(1, XdpPlace::Driver), (2, XdpPlace::Generic), (3, XdpPlace::Other)]
        {
            let mut fixed = [0; FIXED_LEN];
            fixed[4] = 7;
            let mut request = Request::new(libc::RTM_NEWLINK, 0, &fixed);
            request.nest(IFLA_XDP, |xdp| {
                xdp.attribute(IFLA_XDP_ATTACHED, &[attached])
                    .attribute(IFLA_XDP_PROG_ID, &9_u32.to_ne_bytes());
            });
            let bytes = request.finish(1).to_vec();
            let facts = messages(&bytes).find_map(|m| parse(&m)).unwrap();
            assert_eq!(facts, XdpFacts { link: LinkId(7), place, program: Some(9) });
            for length in 0..bytes.len() - 16 {
                let payload = &bytes[16..16 + length];
                let _ = parse(&Message { kind: 16, flags: 0, sequence: 1, payload });
            }
        }
    }

    #[test]
    fn only_what_is_known_is_replaced() {
        let flags = |mut request: Request| {
            let bytes = request.finish(1).to_vec();
            let message = messages(&bytes).next().unwrap();
            let (_, xdp) = attributes(&message.payload[FIXED_LEN..]).next().unwrap();
            let found = attributes(xdp).find(|&(kind, _)| kind == IFLA_XDP_FLAGS);
            let flags = word(found.unwrap().1, 0).unwrap();
            (flags, attributes(xdp).any(|(kind, _)| kind == IFLA_XDP_EXPECTED_FD))
        };
        let stdin = std::io::stdin();
        let first = change(LinkId(1), XdpPlace::Driver, 3, None);
        assert_eq!(flags(first), (DRIVER | ONLY_IF_NONE, false));
        let next = change(LinkId(1), XdpPlace::Generic, 3, Some(stdin.as_fd()));
        assert_eq!(flags(next), (GENERIC | REPLACE, true));
    }
}
