//! The interfaces that packets leave by, in the settings: a place for each, for as long as there is room.

use super::NextHop;
use super::memory::Region;
use super::tables::{LINKS, TICK};
use buoy_xdp::forward::{BACK_BY_REDIRECT, BY_REDIRECT, LINKS_MAX, Link, halves, hardware};
use std::sync::atomic::Ordering;

/// The place of a next hop's link, with its address and MTU as they are now; `None` when there are too many.
pub(super) fn place(settings: &Region, hop: &NextHop) -> Option<u16> {
    let places = || 1..LINKS_MAX;
    let place = places()
        .find(|&place| index(settings, place) == hop.link.0)
        .or_else(|| places().find(|&place| index(settings, place) == 0))?;
    let link = Link { mac: hardware(hop.link_mac.0, hop.mtu), index: hop.link.0.into() };
    settings.change(0, LINKS + 2 * place, link.mac);
    settings.change(0, LINKS + 2 * place + 1, link.index | by_redirect(settings));
    u16::try_from(place).ok()
}

/// After the flag has become another one, all links go by it.
pub(super) fn follow_flag(settings: &Region) {
    for place in (1..LINKS_MAX).filter(|&place| index(settings, place) != 0) {
        let index = u64::from(index(settings, place)) | by_redirect(settings);
        settings.change(0, LINKS + 2 * place + 1, index);
    }
}

fn index(settings: &Region, place: usize) -> u32 {
    halves(settings.word(0, LINKS + 2 * place + 1).load(Ordering::Relaxed)).0
}

fn by_redirect(settings: &Region) -> u64 {
    let (_, flags) = halves(settings.word(0, TICK).load(Ordering::Relaxed));
    if u64::from(flags) & BACK_BY_REDIRECT != 0 { BY_REDIRECT } else { 0 }
}
