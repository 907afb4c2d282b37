//! What `bpf/forward/watch.h` is told to show of packets, and its records, as they lie in memory.

use crate::forward::{Address, Drop};

/// Name of the array of one [`Watch`].
pub const WATCH: &str = "fast_watch";
/// Name of the per-CPU array that a packet is kept in between its coming and its record.
pub const SEEN: &str = "fast_seen";
/// Name of the ring of [`Record`]s.
pub const CAPTURE: &str = "fast_capture";

/// In the word of the flags of `Settings`: somebody watches.
pub const WATCHED: u64 = 2;
/// Words of a [`Watch`].
pub const WATCH_WORDS: usize = 10;
/// The word of a [`Watch`] with the moment that it ends at, by the monotonic clock.
pub const WATCH_UNTIL: usize = 0;
/// The word with how many records were lost.
pub const WATCH_MISSED: usize = 8;
/// Bytes of a frame that are kept, as it came and as it left.
pub const HEAD_LEN: usize = 192;
/// Bytes of a record.
pub const RECORD_LEN: usize = 56 + 2 * HEAD_LEN;

const ONLY_DROPPED: u64 = 1;
const ALSO_PASSED: u64 = 2;
const ORIGIN_REASON: u32 = 0x0040_0000;
const ORIGIN_ANSWER: u32 = 0x003f_ffff;

/// Which packets are shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Watch {
    /// Of this VIP only.
    pub vip: Option<Address>,
    /// Of this port only.
    pub port: Option<u16>,
    /// Of clients that have these bits, where the second address has ones.
    pub client: (Address, Address),
    /// Only those that were dropped.
    pub only_dropped: bool,
    /// Only those that were dropped for this reason.
    pub reason: Option<Drop>,
    /// Also those that were left to the kernel.
    pub also_passed: bool,
}

impl Watch {
    /// As it lies in its map; it ends at that moment.
    pub fn to_words(&self, until: u64) -> [u64; WATCH_WORDS] {
        let vip = self.vip.unwrap_or_default();
        let (client, mask) = self.client;
        let only_dropped = if self.only_dropped { ONLY_DROPPED } else { 0 };
        let also_passed = if self.also_passed { ALSO_PASSED } else { 0 };
        let reason = self.reason.map_or(0, |reason| reason as u64 + 1);
        let rest =
            u64::from(self.port.unwrap_or(0)) | (only_dropped | also_passed) << 16 | reason << 32;
        [until, vip.high, vip.low, client.high, client.low, mask.high, mask.low, rest, 0, 0]
    }
}

/// Why the program did with a packet what it did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// Nothing that it says.
    Unsaid,
    /// It is for a backend.
    Backend,
    /// It is an answer of a translated backend.
    Answer,
    /// A reason to drop it; with [`Drop::TooBig`] its sender may have been told instead.
    Refused(Drop),
}

/// One packet that was shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// When it came, by the monotonic clock.
    pub at: u64,
    /// Its backend.
    pub backend: Option<Address>,
    /// What XDP was told to do.
    pub action: u32,
    /// Why.
    pub origin: Origin,
    /// The index of the interface that it came in by.
    pub ingress: u32,
    /// That of the one that it left by; zero: none.
    pub egress: u32,
    /// The length of the frame that came, and of the one that left; zero: it did not leave as another one.
    pub lengths: [u32; 2],
    /// One of `forward::FORWARD_*`, where there is a backend.
    pub forward: u8,
    /// How the frame begins that came, and the one that left.
    pub heads: [Vec<u8>; 2],
}

impl Record {
    /// Reads what the program wrote; nothing if that is of another length or says what it never does.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != RECORD_LEN {
            return None;
        }
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let half = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let backend = Address { high: word(8)?, low: word(16)? };
        let origin = match half(28)? {
            0 => Origin::Unsaid,
            ORIGIN_ANSWER => Origin::Answer,
            code if code & ORIGIN_REASON == 0 => Origin::Backend,
            code => {
                let reason = usize::try_from(code & !ORIGIN_REASON).ok()?;
                Origin::Refused(*Drop::ALL.get(reason)?)
            }
        };
        let lengths = [half(40)?, half(44)?];
        let head = |at: usize, length: u32| {
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(HEAD_LEN);
            bytes.get(at..at + length).map(<[u8]>::to_vec)
        };
        Some(Self {
            at: word(0)?,
            backend: Some(backend).filter(|backend| *backend != Address::default()),
            action: half(24)?,
            origin,
            ingress: half(32)?,
            egress: half(36)?,
            lengths,
            forward: *bytes.get(50)?,
            heads: [head(56, lengths[0])?, head(56 + HEAD_LEN, lengths[1])?],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_writes_is_read_and_nothing_else() {
        let mut bytes = vec![0_u8; RECORD_LEN];
        bytes[0] = 7;
        bytes[24] = 1;
        bytes[28..32].copy_from_slice(&(ORIGIN_REASON | Drop::Source as u32).to_le_bytes());
        bytes[32] = 3;
        bytes[40] = 20;
        bytes[56] = 0xaa;
        let record = Record::parse(&bytes).unwrap();
        assert_eq!((record.at, record.action, record.ingress), (7, 1, 3));
        assert_eq!(record.origin, Origin::Refused(Drop::Source));
        assert_eq!(record.backend, None);
        assert_eq!((record.heads[0].len(), record.heads[0][0]), (20, 0xaa));
        assert_eq!(record.heads[1], []);
        assert_eq!(Record::parse(&bytes[1..]), None);
        bytes[28..32].copy_from_slice(&(ORIGIN_REASON | 0xffff).to_le_bytes());
        assert_eq!(Record::parse(&bytes), None, "a reason that nobody knows");
        // A frame longer than what is kept.
        bytes[28..32].copy_from_slice(&ORIGIN_ANSWER.to_le_bytes());
        bytes[40..44].copy_from_slice(&1514_u32.to_le_bytes());
        let record = Record::parse(&bytes).unwrap();
        assert_eq!((record.origin, record.heads[0].len()), (Origin::Answer, HEAD_LEN));
    }
}
