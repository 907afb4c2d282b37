//! Decides what becomes of the addresses that an earlier run left on this host.
//!
//! They carry our mark (IFA_PROTO). What the configuration still puts on the same interface stays,
//! so that it need not be put there again, and is silent until this run has a lease for it; if it
//! gets none, the kernel removes it at the end of its lifetime. All else goes at once. Where there
//! is no gate, nothing could keep it silent, so all of it goes.

use crate::apply::ApplyError;
use crate::netlink::AddressFacts;
use buoy_model::{Desired, LinkId, Presence, VipAddress};
use std::net::IpAddr;

/// What was done with what an earlier run left.
#[derive(Debug, Default)]
pub struct Adopted {
    /// Still there, and silent.
    pub kept: Vec<AddressFacts>,
    /// Taken away.
    pub removed: Vec<AddressFacts>,
    /// What could not be done.
    pub problems: Vec<ApplyError>,
}

/// What stays, and what goes.
pub(crate) fn sort(
    left: Vec<AddressFacts>,
    desired: &Desired,
    home: impl Fn(LinkId, IpAddr) -> LinkId,
    gated: bool,
) -> (Vec<AddressFacts>, Vec<AddressFacts>) {
    let wanted = |left: &AddressFacts| {
        let mut addresses = desired.groups.iter().flat_map(|group| &group.addresses);
        let here = |a: &VipAddress| {
            let link = a.link.map(|link| home(link, a.cidr.address()));
            link == Some(left.link) && a.cidr == left.cidr
        };
        addresses.any(|a| here(a) && a.presence == Presence::Assigned)
    };
    left.into_iter().partition(|address| gated && wanted(address))
}
