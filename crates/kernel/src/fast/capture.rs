//! Shows packets where the fast path drops or rewrites them, before and after: nobody behind it can see that.
//!
//! The maps that an earlier run or the agent pinned are opened beside it, so this works whether or not an
//! agent runs. The programs show what is wanted until a moment that has to be put off again and again by
//! `renew`; when this process is gone, that moment comes, and the next packet ends it.

use super::memory::Region;
use super::pins::Pins;
use super::tables::TICK;
use crate::clock;
use crate::gate::errno_of;
use aya::maps::{Map, MapData, RingBuf};
use buoy_model::{Cidr, Forward, LinkId};
use buoy_xdp::forward::{
    Address, Drop, FORWARD_DSR, FORWARD_GUE, FORWARD_NAT, FORWARD_TUNNEL, SETTINGS, Settings,
};
use buoy_xdp::watch::{
    CAPTURE, Origin, Record, WATCH, WATCH_MISSED, WATCH_UNTIL, WATCH_WORDS, WATCHED, Watch,
};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fmt;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long packets are shown without `renew`.
pub const HOLD: Duration = Duration::from_secs(3);

const SETTINGS_WORDS: usize = size_of::<Settings>() / size_of::<u64>();

/// Which packets are wanted; all that are forwarded or dropped, if nothing is said.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Shown {
    /// For this VIP.
    pub vip: Option<IpAddr>,
    /// For this port of it. What has no port that can be seen, as ICMP, is shown as well.
    pub port: Option<u16>,
    /// From these clients, and answers to them.
    pub client: Option<Cidr>,
    /// What became of them.
    pub only: Only,
}

/// What became of the packets that are wanted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Only {
    /// Forwarded, answered or dropped.
    #[default]
    Handled,
    /// Also left to the kernel, though they are for a VIP.
    Everything,
    /// Dropped, or refused in an answer to their sender; for this reason alone, if there is one.
    Dropped(Option<Drop>),
}

/// What the fast path did with a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Sent to a backend, this way; nothing: in a way that this program does not know.
    Sent(IpAddr, Option<Forward>),
    /// Left to this host, which is the backend.
    Here,
    /// An answer of a translated backend, which got its VIP back and was left to the kernel.
    Translated,
    /// Answered by the program itself, as a ping is.
    Answered,
    /// Its sender was told why it goes no further.
    Refused(Drop),
    /// Dropped; the reason, if the program says one.
    Dropped(Option<Drop>),
    /// Left to the kernel untouched.
    Passed,
}

/// A frame, as far as it was kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// How it begins.
    pub head: Vec<u8>,
    /// How long all of it is.
    pub length: u32,
    /// Where it came in, or goes out.
    pub link: LinkId,
}

/// One packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Captured {
    /// When it came: nanoseconds since 1970.
    pub at: u64,
    /// What was done.
    pub action: Action,
    /// As it came.
    pub came: Frame,
    /// As it left, where it was rewritten or answered. What is left to the kernel goes on in the interface
    /// that it came in by.
    pub left: Option<Frame>,
}

/// Why nothing can be captured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CaptureError {
    /// No fast path is in this network namespace.
    Nothing,
    /// There is one, of another version of this program.
    OtherVersion,
    /// Somebody else captures.
    Busy,
    /// This process may not.
    Permission,
    /// The kernel did not do it.
    Kernel(String),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str(
                "no XDP programs of Buoy are here: no service of this host is forwarded by XDP \
                 (`buoy status` names the engine of each). What nftables or the proxy do can be seen \
                 with `tcpdump`, and `nft monitor trace`",
            ),
            Self::OtherVersion => f.write_str(
                "the XDP programs in the kernel are of another version of Buoy: restart the agent \
                 (systemctl restart buoy), which replaces them without losing a packet",
            ),
            Self::Busy => f.write_str(
                "another `buoy capture` runs on this host: end it first, or wait until it ends",
            ),
            Self::Permission => f.write_str("only root may see packets: run it with sudo"),
            Self::Kernel(reason) => write!(f, "packets cannot be captured: {reason}"),
        }
    }
}

impl std::error::Error for CaptureError {}

/// Packets as they come. Dropping it ends it.
pub struct Capture {
    wanted: Shown,
    maps: Maps,
    /// Keeps others out.
    _alone: Flock<File>,
    /// Of the wall clock, above the monotonic one.
    offset: u64,
    /// In maps that were replaced meanwhile.
    missed: u64,
}

struct Maps {
    settings: Region,
    settings_id: u32,
    watch: Region,
    ring: RingBuf<MapData>,
}

impl Capture {
    /// Begins, for [`HOLD`].
    pub fn begin(wanted: Shown) -> Result<Self, CaptureError> {
        let pins = Pins::existing().ok_or(CaptureError::Nothing)?;
        if !pins.map(CAPTURE).exists() {
            let is_empty = pins.links().is_empty();
            return Err(if is_empty { CaptureError::Nothing } else { CaptureError::OtherVersion });
        }
        let folder = File::open(pins.maps()).map_err(|e| kernel(&e))?;
        let alone = Flock::lock(folder, FlockArg::LockExclusiveNonblock);
        let alone = alone.map_err(|(_, errno)| {
            if errno == Errno::EWOULDBLOCK {
                return CaptureError::Busy;
            }
            CaptureError::Kernel(errno.desc().to_owned())
        })?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let offset = u64::try_from(wall.as_nanos()).unwrap_or(0).saturating_sub(clock::monotonic());
        let maps = Maps::begin(&wanted, &pins)?;
        Ok(Self { wanted, maps, _alone: alone, offset, missed: 0 })
    }

    /// Goes on for [`HOLD`] from now, also where the agent has replaced its maps by larger ones.
    pub fn renew(&mut self) -> Result<(), CaptureError> {
        let pins = Pins::existing().ok_or(CaptureError::Nothing)?;
        let now = MapData::from_pin(pins.map(SETTINGS)).map_err(|_| CaptureError::Nothing)?;
        if id(&now)? == self.maps.settings_id {
            self.maps.hold();
            return Ok(());
        }
        self.maps.end();
        self.missed = self.missed();
        self.maps = Maps::begin(&self.wanted, &pins)?;
        Ok(())
    }

    /// The next one, if one has come. What cannot be read is counted as missed.
    pub fn take(&mut self) -> Option<Captured> {
        loop {
            let record = Record::parse(&self.maps.ring.next()?);
            match record {
                Some(record) => return Some(captured(record, self.offset)),
                None => self.missed += 1,
            }
        }
    }

    /// Whether the programs are told that somebody captures. After the end of one that was killed they are until
    /// the next packet comes.
    pub fn is_on() -> Result<bool, CaptureError> {
        let pins = Pins::existing().ok_or(CaptureError::Nothing)?;
        let map = MapData::from_pin(pins.map(SETTINGS)).map_err(|_| CaptureError::Nothing)?;
        let settings = Region::new(map, SETTINGS_WORDS);
        let settings = settings.map_err(|e| CaptureError::Kernel(e.to_string()))?;
        Ok(settings.word(0, TICK).load(Ordering::SeqCst) >> 32 & WATCHED != 0)
    }

    /// How many there was no room for.
    pub fn missed(&self) -> u64 {
        self.missed + self.maps.watch.word(0, WATCH_MISSED).load(Ordering::Relaxed)
    }
}

impl Maps {
    fn begin(wanted: &Shown, pins: &Pins) -> Result<Self, CaptureError> {
        let map = |name: &str| MapData::from_pin(pins.map(name)).map_err(|e| kernel(&e));
        let region = |map: MapData, words: usize| {
            Region::new(map, words).map_err(|e| CaptureError::Kernel(e.to_string()))
        };
        let settings = map(SETTINGS)?;
        let settings_id = id(&settings)?;
        let settings = region(settings, SETTINGS_WORDS)?;
        let watch = region(map(WATCH)?, WATCH_WORDS)?;
        let ring = Map::from_map_data(map(CAPTURE)?).and_then(RingBuf::try_from);
        let mut ring = ring.map_err(|e| kernel(&e))?;
        // Of one that came before.
        while ring.next().is_some() {}
        watch.write(0, watch_of(wanted).to_words(0));
        let maps = Self { settings, settings_id, watch, ring };
        maps.hold();
        Ok(maps)
    }

    fn hold(&self) {
        let hold = u64::try_from(HOLD.as_nanos()).unwrap_or(0);
        self.watch.change(0, WATCH_UNTIL, clock::monotonic() + hold);
        self.settings.word(0, TICK).fetch_or(WATCHED << 32, Ordering::SeqCst);
    }

    fn end(&self) {
        self.settings.word(0, TICK).fetch_and(!(WATCHED << 32), Ordering::SeqCst);
        self.watch.change(0, WATCH_UNTIL, 0);
    }
}

impl std::ops::Drop for Capture {
    fn drop(&mut self) {
        self.maps.end();
    }
}

impl AsFd for Capture {
    /// Can be read when a packet has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.maps.ring.as_fd()
    }
}

fn id(map: &MapData) -> Result<u32, CaptureError> {
    map.info().map(|info| info.id()).map_err(|e| kernel(&e))
}

fn kernel(error: &(dyn std::error::Error + 'static)) -> CaptureError {
    let errno = match error.downcast_ref::<std::io::Error>() {
        Some(error) => error.raw_os_error().map(Errno::from_raw),
        None => errno_of(error),
    };
    match errno {
        Some(Errno::EPERM | Errno::EACCES) => CaptureError::Permission,
        Some(errno) => CaptureError::Kernel(format!("{error}: {}", errno.desc())),
        None => CaptureError::Kernel(error.to_string()),
    }
}

fn watch_of(wanted: &Shown) -> Watch {
    let Shown { vip, port, client, only } = *wanted;
    Watch {
        vip: vip.map(Address::from),
        port,
        client: client.map(prefix).unwrap_or_default(),
        only_dropped: matches!(only, Only::Dropped(_)),
        reason: match only {
            Only::Dropped(reason) => reason,
            Only::Handled | Only::Everything => None,
        },
        also_passed: only == Only::Everything,
    }
}

/// The bits that an address must have, and which bits those are.
fn prefix(cidr: Cidr) -> (Address, Address) {
    let length = u32::from(cidr.prefix()) + if cidr.address().is_ipv4() { 96 } else { 0 };
    let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    let v6 = match cidr.address() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let words = |bits: u128| Address::from(IpAddr::from(std::net::Ipv6Addr::from_bits(bits)));
    (words(v6.to_bits() & mask), words(mask))
}

/// The port that a frame is sent to whose IP header has neither options nor extensions, as an outer one.
fn outer_port(head: &[u8]) -> Option<u16> {
    let at = if head.get(12..14)? == [0x08, 0x00] { 36 } else { 56 };
    Some(u16::from_be_bytes(head.get(at..at + 2)?.try_into().ok()?))
}

fn captured(record: Record, offset: u64) -> Captured {
    const DROP: u32 = 1;
    const PASS: u32 = 2;
    let Record { at, backend, action, origin, ingress, egress, lengths, forward, heads } = record;
    let [came, left] = heads;
    let forward = match forward {
        FORWARD_DSR => Some(Forward::Dsr),
        FORWARD_TUNNEL => Some(Forward::Tunnel),
        FORWARD_GUE => outer_port(&left).map(|port| Forward::Gue { port }),
        FORWARD_NAT => Some(Forward::Nat),
        _ => None,
    };
    let done = match (action, origin) {
        (DROP, Origin::Refused(reason)) => Action::Dropped(Some(reason)),
        (DROP, Origin::Unsaid | Origin::Backend | Origin::Answer) => Action::Dropped(None),
        (_, Origin::Refused(reason)) => Action::Refused(reason),
        (_, Origin::Answer) => Action::Translated,
        (PASS, Origin::Backend) => Action::Here,
        (PASS, Origin::Unsaid) => Action::Passed,
        (_, Origin::Backend) => match backend {
            Some(backend) => Action::Sent(backend.into(), forward),
            None => Action::Answered,
        },
        (_, Origin::Unsaid) => Action::Answered,
    };
    let egress = if egress == 0 { ingress } else { egress };
    let frame = |head, length, link| Frame { head, length, link: LinkId(link) };
    let left = (lengths[1] != 0).then(|| frame(left, lengths[1], egress));
    Captured {
        at: at.saturating_add(offset),
        action: done,
        came: frame(came, lengths[0], ingress),
        left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_bits_and_which_they_are() {
        let of = |text: &str| {
            let (address, length) = text.split_once('/').unwrap();
            let (is, mask) =
                prefix(Cidr::new(address.parse().unwrap(), length.parse().unwrap()).unwrap());
            let holds = |other: &str| {
                let other = Address::from(other.parse::<IpAddr>().unwrap());
                other.high & mask.high == is.high && other.low & mask.low == is.low
            };
            ["10.9.0.9", "10.9.1.9", "fd09::9", "fd10::9"].map(holds)
        };
        assert_eq!(of("10.9.0.0/24"), [true, false, false, false]);
        assert_eq!(of("10.9.1.9/32"), [false, true, false, false]);
        assert_eq!(of("0.0.0.0/0"), [true, true, false, false]);
        assert_eq!(of("fd09::/16"), [false, false, true, false]);
        assert_eq!(of("fd10::9/128"), [false, false, false, true]);
        assert_eq!(of("::/0"), [true; 4]);
    }
}
