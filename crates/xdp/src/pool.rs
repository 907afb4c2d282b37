//! The layout of the tables of ports that flows have in place of their clients': the same as in
//! `bpf/forward/pool.h`, where the idea is.

use crate::forward::{Address, BUCKET_WAYS, MIX_C, halves, hash_address, spread};

/// Name of the array of [`Pool`], one for each table.
pub const POOLS: &str = "fast_pools";
/// Name of the array of buckets of the states of all ports of all tables.
pub const PORTS: &str = "fast_ports";
/// Name of the array of what is written about each of them.
pub const POOLED_PORTS: &str = "fast_pooled";
/// Name of the array of [`Outlets`], one for each service.
pub const OUTLETS: &str = "fast_outlets";

/// Addresses of one service.
pub const POOL_ADDRESSES_MAX: usize = 8;
/// Ports of one table, with those that are not used.
pub const POOL_PORTS: u32 = 32_768;
/// The first port that is used.
pub const PORT_FIRST: u16 = 1024;
/// The last one: the kernel begins to take its own above (`net.ipv4.ip_local_port_range`).
pub const PORT_LAST: u16 = 32_767;
/// Buckets of one table.
pub const POOL_BUCKETS: u32 = POOL_PORTS / BUCKET_WAYS as u32;
/// Words of one entry about a port.
pub const POOLED_WORDS: usize = 8;

/// The state of a port that a service has: no flow gets it.
pub const PORT_KEPT: u64 = 0x80_0000;

/// Seconds after which the port of a silent flow may be taken by another, and the flow goes on until then. A
/// TCP connection until both sides have spoken and the client again.
pub const TCP_OPENING_SECONDS: u64 = 10;
/// A TCP connection.
pub const TCP_SECONDS: u64 = 900;
/// A TCP connection that both sides have ended, or one of them has reset.
pub const TCP_OVER_SECONDS: u64 = 10;
/// UDP until it is answered.
pub const UDP_OPENING_SECONDS: u64 = 30;
/// UDP.
pub const UDP_SECONDS: u64 = 60;

/// An address whose ports flows of one protocol have.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Pool {
    /// The address.
    pub address: Address,
    /// As in the IP header; zero: nothing is here.
    pub protocol: u8,
    /// Zero.
    pub spares: [u8; 15],
}

/// The tables of the addresses that backends of a service see in place of its clients'.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Outlets {
    /// How many of `tables` count.
    pub count: u32,
    /// Zero.
    pub spare: u32,
    /// As places of [`Pool`].
    pub tables: [u16; POOL_ADDRESSES_MAX],
}

impl Outlets {
    /// As it lies in its map.
    pub fn to_words(self) -> [u64; 3] {
        let word = |tables: &[u16]| tables.iter().rev().fold(0, |w, &t| w << 16 | u64::from(t));
        let [a, b, c, d, e, f, g, h] = self.tables;
        [self.count.into(), word(&[a, b, c, d]), word(&[e, f, g, h])]
    }

    /// What `to_words` gave.
    pub fn from_words([count, low, high]: [u64; 3]) -> Self {
        let (count, _) = halves(count);
        let table = |at: usize| {
            let bytes = [low, high][at / 4].to_le_bytes();
            u16::from_le_bytes([bytes[at % 4 * 2], bytes[at % 4 * 2 + 1]])
        };
        Self { count, spare: 0, tables: core::array::from_fn(table) }
    }

    /// Those that count.
    pub fn tables(&self) -> &[u16] {
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        &self.tables[..count.min(POOL_ADDRESSES_MAX)]
    }
}

// The same size is asserted in bpf/forward/layout.h.
const _: () = assert!(size_of::<Pool>() == 32);
const _: () = assert!(size_of::<Outlets>() == 24);
const _: () = assert!(PORT_LAST as u32 == POOL_PORTS - 1);

const KEY_POOL: u64 = 1 << 37;

impl Pool {
    /// As it lies in its map.
    pub fn to_words(self) -> [u64; 4] {
        [self.address.high, self.address.low, self.protocol.into(), 0]
    }

    /// What `to_words` gave.
    pub const fn from_words(words: [u64; 4]) -> Self {
        let [high, low, protocol, _] = words;
        let [protocol, ..] = protocol.to_le_bytes();
        Self { address: Address { high, low }, protocol, spares: [0; 15] }
    }

    /// The key that leads to its table.
    pub fn key(self) -> u64 {
        let protocol = u64::from(self.protocol) << 24;
        spread((hash_address(self.address) ^ KEY_POOL ^ protocol).wrapping_mul(MIX_C))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_read_as_it_was_written_and_each_protocol_has_a_key() {
        let pool = Pool { address: Address { high: 1, low: 2 }, protocol: 17, spares: [0; 15] };
        assert_eq!(Pool::from_words(pool.to_words()), pool);
        assert_ne!(pool.key(), Pool { protocol: 6, ..pool }.key());
        let tables = [1, 2, 0xfffe, 0, 5, 6, 7, 0x1234];
        let outlets = Outlets { count: 3, spare: 0, tables };
        assert_eq!(Outlets::from_words(outlets.to_words()), outlets);
        assert_eq!(outlets.tables(), [1, 2, 0xfffe]);
    }
}
