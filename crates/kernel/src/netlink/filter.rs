//! clsact and its BPF filters in the words of route netlink.
//!
//! clsact and not TCX, because Debian 12's kernel 6.1 has no TCX. Filters stay when the process that attached
//! them dies, without a bpffs (which `ip netns exec` hides); a TCX link would not.

use super::message::{Message, Request, attributes, word};
use super::{NetlinkError, Requests};
use buoy_model::LinkId;
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

const FIXED_LEN: usize = 20; // struct tcmsg
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
/// The program's return value is the verdict.
const DIRECT_ACTION: u32 = 1;
const CLSACT_PARENT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;

/// Before all others, so that no other filter's verdict hides a frame from the gate.
const PRIORITY: u32 = 1;
/// Our place among the filters of that priority.
const HANDLE: u32 = super::PROTOCOL_MARK as u32;

/// Which way frames go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    /// From the wire.
    Ingress,
    /// To the wire.
    Egress,
}

impl Direction {
    /// Both of them.
    pub(crate) const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    const fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

/// The place of one filter of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Hook {
    pub(crate) link: LinkId,
    pub(crate) direction: Direction,
}

/// A filter as the kernel lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Filter {
    handle: u32,
    priority: u32,
    /// The name of its program, as it was attached.
    pub(crate) name: String,
    /// The id of its program.
    pub(crate) program: Option<u32>,
}

impl Requests {
    /// Makes a place for filters; says whether it was missing.
    pub(crate) fn add_clsact(&mut self, link: LinkId) -> Result<bool, NetlinkError> {
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let fixed = fixed(link, CLSACT_HANDLE, CLSACT_PARENT, 0);
        let mut request = Request::new(libc::RTM_NEWQDISC, flags, &fixed);
        request.attribute(TCA_KIND, b"clsact\0");
        match self.order(&mut request) {
            Ok(()) => Ok(true),
            Err(NetlinkError::Refused { errno: Errno::EEXIST, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the place for filters, and with it all that are left there.
    pub(crate) fn remove_clsact(&mut self, link: LinkId) -> Result<(), NetlinkError> {
        let fixed = fixed(link, CLSACT_HANDLE, CLSACT_PARENT, 0);
        let mut request = Request::new(libc::RTM_DELQDISC, libc::NLM_F_ACK, &fixed);
        gone_is_fine(self.order(request.attribute(TCA_KIND, b"clsact\0")))
    }

    /// Puts our program in its place; one that is there already is replaced without a gap.
    pub(crate) fn set_filter(
        &mut self,
        hook: Hook,
        program: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<(), NetlinkError> {
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let mut request = Request::new(libc::RTM_NEWTFILTER, flags, &ours(hook));
        request.attribute(TCA_KIND, b"bpf\0").nest(TCA_OPTIONS, |options| {
            options
                .attribute(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes())
                .attribute(TCA_BPF_NAME, name.to_bytes_with_nul())
                .attribute(TCA_BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes());
        });
        self.order(&mut request)
    }

    /// Takes our program from its place; being gone already is success.
    pub(crate) fn remove_filter(&mut self, hook: Hook) -> Result<(), NetlinkError> {
        let mut request = Request::new(libc::RTM_DELTFILTER, libc::NLM_F_ACK, &ours(hook));
        gone_is_fine(self.order(request.attribute(TCA_KIND, b"bpf\0")))
    }

    /// All filters in a place.
    pub(crate) fn filters(&mut self, hook: Hook) -> Result<Vec<Filter>, NetlinkError> {
        let fixed = fixed(hook.link, 0, hook.direction.parent(), 0);
        let mut request = Request::new(libc::RTM_GETTFILTER, libc::NLM_F_DUMP, &fixed);
        let filters = self.collect(&mut request, parse);
        match filters {
            Err(NetlinkError::Refused { errno: Errno::EINVAL | Errno::ENOENT, .. }) => {
                Ok(Vec::new()) // no clsact, so no filters
            }
            Ok(_) | Err(_) => filters,
        }
    }
}

impl Filter {
    /// Whether it is in the place where ours goes.
    pub(crate) fn is_in_our_place(&self) -> bool {
        self.priority == PRIORITY && self.handle == HANDLE
    }
}

fn ours(hook: Hook) -> [u8; FIXED_LEN] {
    let every_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or(0).to_be();
    let information = PRIORITY << 16 | u32::from(every_protocol);
    fixed(hook.link, HANDLE, hook.direction.parent(), information)
}

fn fixed(link: LinkId, handle: u32, parent: u32, information: u32) -> [u8; FIXED_LEN] {
    let mut fixed = [0; FIXED_LEN];
    fixed[4..8].copy_from_slice(&link.0.to_ne_bytes());
    fixed[8..12].copy_from_slice(&handle.to_ne_bytes());
    fixed[12..16].copy_from_slice(&parent.to_ne_bytes());
    fixed[16..20].copy_from_slice(&information.to_ne_bytes());
    fixed
}

fn gone_is_fine(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(NetlinkError::Refused {
            errno: Errno::ENOENT | Errno::ENODEV | Errno::EINVAL, ..
        }) => Ok(()),
        Ok(()) | Err(_) => result,
    }
}

fn parse(message: &Message<'_>) -> Option<Filter> {
    let handle = word(message.payload, 8)?;
    let priority = word(message.payload, 16)? >> 16;
    let mut filter = Filter { handle, priority, name: String::new(), program: None };
    let attribute = |wanted| {
        let mut all = attributes(message.payload.get(FIXED_LEN..)?);
        all.find(|&(kind, _)| kind == wanted).map(|(_, value)| value)
    };
    // The options of other kinds of filters have other meanings.
    let options = attribute(TCA_OPTIONS).filter(|_| attribute(TCA_KIND) == Some(b"bpf\0"));
    for (kind, value) in attributes(options.unwrap_or(&[])) {
        match kind {
            TCA_BPF_NAME => {
                let name = value.strip_suffix(&[0]).unwrap_or(value);
                filter.name = String::from_utf8_lossy(name).into_owned();
            }
            TCA_BPF_ID => filter.program = word(value, 0),
            _ => {}
        }
    }
    Some(filter)
}
