//! The interfaces that packets leave by, in the settings: a place for each, for as long as there is room.

use super::NextHop;
use super::memory::Region;
use super::tables::LINKS;
use buoy_xdp::forward::{LINKS_MAX, Link, hardware};
use std::sync::atomic::Ordering;

/// The place of a next hop's link, with its address and MTU as they are now; `None` when there are too many.
pub(super) fn place(settings: &Region, hop: &NextHop) -> Option<u16> {
    let index = |place: usize| settings.word(0, LINKS + 2 * place + 1).load(Ordering::Relaxed);
    let places = || 1..LINKS_MAX;
    let place = places()
        .find(|&place| index(place) == u64::from(hop.link.0))
        .or_else(|| places().find(|&place| index(place) == 0))?;
    let link = Link { mac: hardware(hop.link_mac.0, hop.mtu), index: hop.link.0.into() };
    settings.change(0, LINKS + 2 * place, link.mac);
    settings.change(0, LINKS + 2 * place + 1, link.index);
    u16::try_from(place).ok()
}
