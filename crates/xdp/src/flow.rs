//! What the programs keep of flows, word by word: those that a slot in a change remembers (`bpf/forward/choose.h`)
//! and those that have a port of a pool (`bpf/forward/pool.h`).

use crate::forward::{
    Address, BUCKET_WAYS, EXCEPTIONS_MAX, MIX_A, REMEMBERED_SECONDS, halves, hash_address,
    hash_flow, spread,
};
use crate::pool::{
    Outlets, POOL_ADDRESSES_MAX, POOL_BUCKETS, POOLED_WORDS, PORT_FIRST, PORT_KEPT,
    TCP_OPENING_SECONDS, TCP_OVER_SECONDS, TCP_SECONDS, UDP_OPENING_SECONDS, UDP_SECONDS,
};
use core::net::SocketAddr;

/// The part of the seconds that this side counts which is kept with a flow.
pub const TICK_MASK: u32 = 0x7fff;
/// Seconds after which a connection that was opened in a changed slot and never heard of again makes room.
pub const FRESH_SECONDS: u64 = 10;
/// Buckets that a flow of a pool looks into.
pub const POOL_PROBES: u32 = 8;

const ESTABLISHED: u32 = 0x8000;

/// How many seconds lie between a moment and the one that was kept with a flow.
pub const fn age(now: u32, then: u32) -> u64 {
    (now.wrapping_sub(then) & TICK_MASK) as u64
}

/// The hash by which a flow is remembered, in a slot that changes hands and in a pool.
pub fn hash_ends(seed: u64, client: SocketAddr, vip: SocketAddr, protocol: u8) -> u64 {
    let port = u64::from(vip.port());
    let end = hash_address(vip.ip().into()) ^ port ^ u64::from(protocol) << 16;
    spread((hash_flow(seed, client.ip(), client.port()) ^ end).wrapping_mul(MIX_A))
}

/// A flow that was opened while its slot changed hands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exception {
    /// The high half of [`hash_ends`]; the low half says the bucket.
    pub mark: u32,
    /// Its backend, see [`crate::forward::identity`].
    pub identity: u16,
    /// It was heard of again.
    pub is_established: bool,
    /// When its last packet came.
    pub tick: u32,
}

impl Exception {
    /// As it lies in its bucket.
    pub fn to_word(self) -> u64 {
        let state = if self.is_established { ESTABLISHED } else { 0 } | self.tick & TICK_MASK;
        u64::from(self.mark) << 32 | u64::from(self.identity) << 16 | u64::from(state)
    }

    /// What `to_word` gave; `None`: nothing is there.
    pub fn from_word(word: u64) -> Option<Self> {
        let (low, mark) = halves(word);
        let [.., i0, i1] = low.to_le_bytes();
        (low != 0).then_some(Self {
            mark,
            identity: u16::from_le_bytes([i0, i1]),
            is_established: low & ESTABLISHED != 0,
            tick: low & TICK_MASK,
        })
    }

    /// Whether its place may be taken.
    pub const fn is_outdated(&self, now: u32) -> bool {
        let most = if self.is_established { REMEMBERED_SECONDS } else { FRESH_SECONDS };
        age(now, self.tick) > most
    }

    /// The bucket that a hash says.
    pub const fn bucket_of(hash: u64) -> u32 {
        // The mask is far below 32 bits.
        hash as u32 & (EXCEPTIONS_MAX - 1)
    }
}

/// The state of a port of a pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortState(pub u64);

impl PortState {
    const TAKEN: u64 = 0x1_0000;
    const BUSY: u64 = 0x40_0000;
    const SIGNS: u32 = 17;
    const SIGNS_MASK: u64 = 31;

    /// Some flow has it, and what is written about it is whole.
    pub const fn taken(mark: u32, signs: u8, tick: u32) -> Self {
        let signs = (signs as u64 & Self::SIGNS_MASK) << Self::SIGNS;
        Self((mark as u64) << 32 | Self::TAKEN | signs | (tick & TICK_MASK) as u64)
    }

    /// What is written about it is not whole.
    pub const fn busy(mark: u32, tick: u32) -> Self {
        Self((mark as u64) << 32 | Self::BUSY | (tick & TICK_MASK) as u64)
    }

    /// Whether some flow has it, and what is written about it is whole.
    pub const fn is_taken(self) -> bool {
        self.0 & Self::TAKEN != 0
    }

    /// Of the flow's hash.
    pub fn mark(self) -> u32 {
        halves(self.0).1
    }

    /// What was seen of the flow, as `buoy_model::FlowSigns` has it.
    pub const fn signs(self) -> u8 {
        (self.0 >> Self::SIGNS & Self::SIGNS_MASK) as u8
    }

    /// When its last packet came.
    pub fn tick(self) -> u32 {
        halves(self.0).0 & TICK_MASK
    }

    /// Seconds after which another flow may have it.
    pub const fn lasts(self, protocol: u8) -> u64 {
        const UDP: u8 = 17;
        let signs = self.signs();
        match protocol {
            UDP if signs & 1 != 0 => UDP_SECONDS,
            UDP => UDP_OPENING_SECONDS,
            _ if signs & 16 != 0 || signs & 12 == 12 => TCP_OVER_SECONDS,
            _ if signs & 2 != 0 => TCP_SECONDS,
            _ => TCP_OPENING_SECONDS,
        }
    }

    /// Whether a flow may take it.
    pub fn is_free(self, now: u32, protocol: u8) -> bool {
        self.0 == 0 || (self.0 & PORT_KEPT == 0 && age(now, self.tick()) > self.lasts(protocol))
    }
}

/// What is written about a port that a flow has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pooled {
    /// Who opened it.
    pub client: SocketAddr,
    /// What it asked.
    pub vip: SocketAddr,
    /// Who has it.
    pub backend: SocketAddr,
    /// Of the backend.
    pub identity: u16,
}

impl Pooled {
    /// As it lies in its map.
    pub fn to_words(self) -> [u64; POOLED_WORDS] {
        let words = |end: SocketAddr| Address::from(end.ip());
        let (client, vip, backend) = (words(self.client), words(self.vip), words(self.backend));
        let ports = u64::from(self.client.port().to_be())
            | u64::from(self.vip.port()) << 16
            | u64::from(self.backend.port().to_be()) << 32
            | u64::from(self.identity) << 48;
        [client.high, client.low, vip.high, vip.low, backend.high, backend.low, ports, 0]
    }

    /// What `to_words` gave.
    pub fn from_words(words: [u64; POOLED_WORDS]) -> Self {
        let [c0, c1, v0, v1, b0, b1, ports, _] = words;
        let [p0, p1, p2, p3, p4, p5, p6, p7] = ports.to_le_bytes();
        let end = |high, low, port| SocketAddr::new(Address { high, low }.into(), port);
        Self {
            client: end(c0, c1, u16::from_be_bytes([p0, p1])),
            vip: end(v0, v1, u16::from_le_bytes([p2, p3])),
            backend: end(b0, b1, u16::from_be_bytes([p4, p5])),
            identity: u16::from_le_bytes([p6, p7]),
        }
    }
}

/// The bucket of eight ports that a flow with this hash looks into, among those of all tables.
pub fn bucket_of(outlets: &Outlets, hash: u64, probe: u32) -> Option<u32> {
    let (low, _) = halves(hash);
    let first = u32::from(PORT_FIRST) / BUCKET_WAYS as u32;
    if outlets.count == 0 {
        return None;
    }
    let at = low.wrapping_add(probe) % outlets.count;
    let table = outlets.tables[usize::try_from(at).unwrap_or(0) & (POOL_ADDRESSES_MAX - 1)];
    let (above, _) = halves(hash >> 8);
    let part = above.wrapping_add((probe / outlets.count).wrapping_mul(0x5bd1)) & 0xffff;
    Some(u32::from(table) * POOL_BUCKETS + first + ((part * (POOL_BUCKETS - first)) >> 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remembered_flow_and_a_port_are_read_as_they_were_written() {
        let entry =
            Exception { mark: 0xdead_beef, identity: 0x1234, is_established: true, tick: 77 };
        assert_eq!(Exception::from_word(entry.to_word()), Some(entry));
        assert_eq!(Exception::from_word(0xffff_ffff_0000_0000), None);
        let ends = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        let v6: SocketAddr = "[fd00::7]:70".parse().unwrap();
        for client in [ends(4), v6] {
            let pooled = Pooled { client, vip: ends(80), backend: ends(8080), identity: 0x4321 };
            assert_eq!(Pooled::from_words(pooled.to_words()), pooled);
        }
        let state = PortState::taken(0xdead_beef, 3, 0x8005);
        assert_eq!((state.mark(), state.signs(), state.tick()), (0xdead_beef, 3, 5));
        assert!(state.is_taken() && !PortState::busy(1, 2).is_taken());
    }

    #[test]
    fn what_was_silent_for_long_enough_makes_room() {
        let old = |established| Exception {
            mark: 1,
            identity: 1,
            is_established: established,
            tick: 0x7ffa,
        };
        assert!(!old(false).is_outdated(4) && old(false).is_outdated(5));
        assert!(!old(true).is_outdated(294) && old(true).is_outdated(295));
        let lasts = |signs, protocol| PortState::taken(1, signs, 0).lasts(protocol);
        assert_eq!([lasts(0, 6), lasts(1, 6), lasts(3, 6)], [10, 10, 900]);
        assert_eq!([lasts(7, 6), lasts(15, 6), lasts(19, 6)], [900, 10, 10]);
        assert_eq!([lasts(0, 17), lasts(1, 17)], [30, 60]);
        assert!(PortState(0).is_free(5, 6) && !PortState(PORT_KEPT).is_free(500, 6));
    }
}
