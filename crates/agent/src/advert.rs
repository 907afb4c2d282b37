//! Between the core and the sockets of VRRP: values to packets, with the wall clock that a trailer needs, and back.

use buoy_kernel::vrrp::{Packet, Routers};
use buoy_model::{Action, Desired, HeardAdvert, LinkId, Proof, Stamp, VrrpAuth, VrrpHmac};
use buoy_wire::vrrp::{self, Envelope, GROUP_V4, GROUP_V6, Said};
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What trailers have said of the time here.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    last: u64,
}

impl Stamps {
    /// Later than any before, whatever becomes of the clock.
    fn next(&mut self) -> Stamp {
        let position = position(since_1970()).max(self.last.wrapping_add(1));
        self.last = position;
        // Cut to its parts on purpose: seconds, 1/65536 s, counter.
        Stamp {
            seconds: (position >> 32) as u32,
            fraction: (position >> 16) as u16,
            counter: position as u16,
        }
    }
}

/// Sends an advertisement to everybody on that interface, or to each peer; how many packets were sent, and how many
/// could not be.
pub(crate) fn send(
    action: &Action,
    link: LinkId,
    routers: &mut Routers,
    stamps: &mut Stamps,
) -> (u64, u64) {
    let Action::Advertise { router, priority, peers_are_plain } = action else { return (0, 0) };
    let Some(source) = router.source else { return (0, 1) };
    let everybody: IpAddr = if router.v6 { GROUP_V6.into() } else { GROUP_V4.into() };
    let multicast = router.peers.is_empty().then_some(everybody);
    let (mut sent, mut unsent) = (0, 0);
    for destination in multicast.into_iter().chain(router.peers.iter().copied()) {
        let envelope = Envelope { source, destination };
        let said =
            Said { priority: *priority, peers_are_plain: *peers_are_plain, stamp: stamps.next() };
        let message = vrrp::emit(router, envelope, said);
        match routers.send(link, source, destination, &message) {
            Ok(()) => sent += 1,
            Err(_) => unsent += 1,
        }
    }
    (sent, unsent)
}

/// What a packet says, for the core to judge; `None`: it is too short to be about any router.
pub(crate) fn read(desired: &Desired, packet: &Packet<'_>) -> Option<HeardAdvert> {
    let id = vrrp::router_id(packet.message)?;
    let envelope = Envelope { source: packet.source, destination: packet.destination };
    let advert = vrrp::parse(packet.message, envelope, keys(desired, packet, id));
    let clock_apart = advert.as_ref().map_or(Duration::ZERO, |advert| match advert.proof {
        Proof::Signed(stamp) => apart(stamp, since_1970()),
        Proof::None | Proof::Password(_) | Proof::Forged | Proof::Unknown(_) => Duration::ZERO,
    });
    Some(HeardAdvert {
        link: packet.link,
        source: packet.source,
        multicast: packet.destination.is_multicast(),
        ttl: packet.ttl,
        id,
        advert,
        clock_apart,
    })
}

fn keys<'d>(desired: &'d Desired, packet: &Packet<'_>, id: u8) -> Option<&'d VrrpHmac> {
    let mut routers = desired.groups.iter().flat_map(|group| &group.vrrp);
    match &routers.find(|router| router.is_at(packet.link, id, packet.source))?.auth {
        VrrpAuth::Hmac(hmac) => Some(hmac),
        VrrpAuth::None | VrrpAuth::Password(_) => None,
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds, modulo 2^32, and 1/65536 s; the counter is zero.
fn position(since_1970: Duration) -> u64 {
    let fraction = u64::from(since_1970.subsec_nanos()) * 65_536 / 1_000_000_000;
    since_1970.as_secs() << 32 | fraction << 16
}

/// How far a stamp is from a time, as whole seconds; they begin anew every 136 years.
fn apart(stamp: Stamp, since_1970: Duration) -> Duration {
    let now = since_1970.as_secs() as u32;
    let seconds = stamp.seconds.wrapping_sub(now).cast_signed().unsigned_abs();
    Duration::from_secs(seconds.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_whatever_the_clock_does() {
        let mut stamps = Stamps::default();
        let mut before = stamps.next();
        for _ in 0..100_000 {
            let stamp = stamps.next();
            assert!(before < stamp, "{before:?} {stamp:?}");
            before = stamp;
        }
        stamps.last = u64::MAX / 2;
        let ahead = stamps.next();
        assert!(ahead.position() > u64::MAX / 2, "a clock that was set back");
    }

    #[test]
    fn a_time_is_its_parts() {
        let half = Duration::new(0x6a00_0000, 500_000_000);
        assert_eq!(position(half), 0x6a00_0000_8000_0000);
        let stamp = Stamp { seconds: 0x6a00_0000, fraction: 0, counter: 0 };
        for (now, seconds) in [(0x6a00_0000, 0), (0x6a00_0006, 6), (0x69ff_fffa, 6)] {
            assert_eq!(apart(stamp, Duration::from_secs(now)), Duration::from_secs(seconds));
        }
        let late = Stamp { seconds: u32::MAX, ..stamp };
        assert_eq!(apart(late, Duration::from_secs(1 << 32)), Duration::from_secs(1));
    }
}
