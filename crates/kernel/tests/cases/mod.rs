//! Packets and what should become of them, tried one after the other.
#![allow(dead_code)] // Each test takes what it needs.

use super::packets::Packet;
use super::world::{FAR_MAC, FAR_ROUTER, LOOPBACK_MAC, mac_of};
use buoy_kernel::fast::{Fast, Verdict};
use buoy_xdp::forward::Drop;

/// Clients.
pub(crate) const C4: &str = "10.9.0.9:1234";
pub(crate) const C6: &str = "[fd09::9]:1234";

/// What should become of a packet.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// To the kernel, as it was.
    Pass,
    /// To the kernel, so.
    Changed(Packet),
    Drop(Drop),
    /// Out of the interface that it came in by, so.
    Transmit(Packet),
    /// Out of the other one.
    Redirect(Packet),
}

pub(crate) type Case = (&'static str, Packet, Fate);
pub(crate) type Shape = (&'static str, fn(Packet) -> Packet);

pub(crate) fn dropped(reason: Drop) -> Fate {
    Fate::Drop(reason)
}

/// To a backend on the segment.
pub(crate) fn near(packet: Packet, last: u8) -> Fate {
    Fate::Transmit(packet.macs(mac_of(last), LOOPBACK_MAC))
}

/// To the router behind the other interface.
pub(crate) fn far(packet: Packet) -> Fate {
    Fate::Redirect(packet.macs(FAR_ROUTER, FAR_MAC))
}

pub(crate) fn check(fast: &Fast, cases: &[Case]) {
    let mut wrong = Vec::new();
    for (name, packet, wanted) in cases {
        let frame = packet.frame();
        let before = fast.dropped();
        let tried = fast.try_frame(&frame).unwrap();
        let after = fast.dropped();
        let (verdict, expected) = match wanted {
            Fate::Pass => (Verdict::Pass, frame.clone()),
            Fate::Changed(packet) => (Verdict::Pass, packet.frame()),
            // What it looked like then is nobody's business.
            Fate::Drop(_) => (Verdict::Drop, tried.frame.clone()),
            Fate::Transmit(packet) => (Verdict::Transmit, packet.frame()),
            Fate::Redirect(packet) => (Verdict::Redirect, packet.frame()),
        };
        let reasons: Vec<Drop> =
            after.into_iter().filter(|(r, n)| before[r] != *n).map(|(r, _)| r).collect();
        let counted = match wanted {
            Fate::Drop(reason) => reasons == [*reason],
            Fate::Pass | Fate::Changed(_) | Fate::Transmit(_) | Fate::Redirect(_) => {
                reasons.is_empty() || reasons == [Drop::TooBig]
            }
        };
        if tried.verdict != verdict || tried.frame != expected || !counted {
            wrong.push(format!(
                "{name}: {:?} instead of {verdict:?}, dropped: {reasons:?}\n  {:02x?}\n  {expected:02x?}",
                tried.verdict, tried.frame
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    eprintln!("{} cases", cases.len());
}
