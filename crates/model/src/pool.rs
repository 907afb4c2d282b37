//! Addresses that belong together: those that are VIPs of their own, and those that VIPs ask for.

use crate::Cidr;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One `[[pool]]` of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pool {
    /// The pool's name.
    pub name: String,
    /// Who gets its addresses.
    pub giving: Giving,
    /// Of pools that can be asked without a name, the smallest is asked first; `None`: after those with one.
    pub priority: Option<u32>,
    /// Its addresses, in the file's order; none twice.
    pub blocks: Vec<Block>,
    /// IPv4 addresses that end in .0 or .255 are not given.
    pub skips_ends: bool,
    /// Addresses in it that hosts of the cluster have themselves.
    pub hosts: Vec<IpAddr>,
    /// Addresses that are kept for somebody.
    pub reserved: Vec<Reserved>,
    /// The VIPs that asked, each with an address that it got.
    pub given: Vec<Given>,
}

/// Who gets the addresses of a pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Giving {
    /// Each is a VIP of its own.
    Each,
    /// VIPs that name the pool.
    Named,
    /// Those, and VIPs that ask any pool.
    Auto,
}

/// An address that is kept for somebody.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reserved {
    /// Which.
    pub address: IpAddr,
    /// For whom: the name of a VIP, or of something else that has it.
    pub holder: String,
    /// Made by the agent, so that a VIP keeps what it got; goes when the VIP asks no more.
    pub given: bool,
}

/// What a VIP got.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Given {
    /// The VIP's name.
    pub vip: String,
    /// One of its addresses.
    pub address: IpAddr,
}

/// Addresses in a row, of one subnet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Block {
    first: IpAddr,
    last: IpAddr,
    prefix: u8,
}

impl Block {
    /// `None` where that is no row of addresses, or no prefix of theirs.
    pub fn new(first: IpAddr, last: IpAddr, prefix: u8) -> Option<Self> {
        let is_row = first.is_ipv4() == last.is_ipv4() && first <= last;
        let fits = Cidr::new(first, prefix).is_some_and(|subnet| subnet.contains(last));
        (is_row && fits).then_some(Self { first, last, prefix })
    }

    /// The first address, with its prefix.
    pub const fn first(self) -> IpAddr {
        self.first
    }

    /// The last address.
    pub const fn last(self) -> IpAddr {
        self.last
    }

    /// The length of the prefix of their subnet.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it is of IPv4.
    pub const fn is_ipv4(self) -> bool {
        self.first.is_ipv4()
    }

    /// Whether the address is one of them.
    pub fn contains(self, address: IpAddr) -> bool {
        // `IpAddr` sorts IPv4 before IPv6.
        self.first <= address && address <= self.last
    }

    /// Whether some address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many there are, less one: all of IPv6 are one more than there are numbers.
    const fn span(self) -> u128 {
        bits(self.last) - bits(self.first)
    }

    /// How many there are; of more than a number can say, the largest.
    pub const fn count(self) -> u128 {
        self.span().saturating_add(1)
    }

    /// How many of them end in .0 or .255.
    const fn ends(self) -> u128 {
        if !self.is_ipv4() {
            return 0;
        }
        // Of the numbers below `n`, those whose last eight bits are 0 or 255.
        const fn below(n: u128) -> u128 {
            2 * (n / 256) + if n.is_multiple_of(256) { 0 } else { 1 }
        }
        below(bits(self.last) + 1) - below(bits(self.first))
    }

    fn nth(self, n: u128) -> Option<IpAddr> {
        let at = bits(self.first).checked_add(n)?;
        Some(match self.first {
            IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(at).ok()?).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(at).into(),
        })
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl Pool {
    /// Whether a VIP can ask for one of its addresses.
    pub const fn can_be_asked(&self) -> bool {
        match self.giving {
            Giving::Each => false,
            Giving::Named | Giving::Auto => true,
        }
    }

    /// Whether the address is in one of its blocks.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.blocks.iter().any(|block| block.contains(address))
    }

    /// The address with the prefix of its subnet; `None`: it is not one of the pool's.
    pub fn cidr(&self, address: IpAddr) -> Option<Cidr> {
        let block = self.blocks.iter().find(|block| block.contains(address))?;
        Cidr::new(address, block.prefix)
    }

    /// Whether it is one that the pool gives to nobody by itself.
    pub fn skips(&self, address: IpAddr) -> bool {
        self.is_end(address) || self.hosts.contains(&address)
    }

    fn is_end(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.skips_ends && matches!(v4.octets()[3], 0 | 255),
            IpAddr::V6(_) => false,
        }
    }

    /// Whether it has addresses of that IP version.
    pub fn has(&self, ipv4: bool) -> bool {
        self.blocks.iter().any(|block| block.is_ipv4() == ipv4)
    }

    /// How many addresses can be given.
    pub fn size(&self) -> u128 {
        let size = |block: &Block| match self.skips_ends {
            true => block.count() - block.ends(),
            false => block.count(),
        };
        let all = self.blocks.iter().map(size).fold(0, u128::saturating_add);
        // One that is skipped for its end is not counted as it is.
        let hosts = self.hosts.iter().filter(|host| !self.is_end(**host)).count();
        all.saturating_sub(hosts as u128)
    }

    /// An address of that IP version that is free, the same at every call: the search begins where the
    /// seed says. Where the pool grows at its end, few seeds begin elsewhere.
    pub fn free(&self, seed: u64, ipv4: bool, is_free: impl Fn(IpAddr) -> bool) -> Option<Cidr> {
        let blocks = || self.blocks.iter().filter(move |block| block.is_ipv4() == ipv4);
        let total = blocks().map(|block| block.count()).fold(0, u128::saturating_add);
        let begin = jump(seed, u64::try_from(total).unwrap_or(u64::MAX));
        let nth = |mut n: u128| {
            for block in blocks() {
                if n < block.count() {
                    return block.nth(n);
                }
                n -= block.count();
            }
            None
        };
        // It ends after as many steps as there are addresses that are not free.
        let mut step = 0;
        while step < total {
            let at = (u128::from(begin) + step) % total;
            let address = nth(at)?;
            if !self.skips(address) && is_free(address) {
                return self.cidr(address);
            }
            step += 1;
        }
        None
    }
}

const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits() as u128,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// One of `buckets` numbers: with one more of them, a seed keeps its number or gets the new one
/// (Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm").
fn jump(mut seed: u64, buckets: u64) -> u64 {
    let (mut at, mut next) = (0_u64, 0_u64);
    while next < buckets {
        at = next;
        seed = seed.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let draw = u128::from((seed >> 33) + 1);
        let far = (u128::from(at + 1) << 31) / draw;
        next = u64::try_from(far).unwrap_or(u64::MAX);
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn block(first: &str, last: &str, prefix: u8) -> Block {
        Block::new(first.parse().unwrap(), last.parse().unwrap(), prefix).unwrap()
    }

    fn pool(blocks: Vec<Block>) -> Pool {
        let (reserved, given) = (Vec::new(), Vec::new());
        let host: IpAddr = "10.0.0.252".parse().unwrap();
        let hosts = blocks.iter().filter(|block| block.contains(host)).map(|_| host).collect();
        Pool {
            name: "p".into(),
            giving: Giving::Auto,
            priority: None,
            hosts,
            blocks,
            skips_ends: true,
            reserved,
            given,
        }
    }

    #[test]
    fn a_pool_counts_what_it_can_give_and_gives_all_of_it() {
        for (first, last, size) in [
            ("10.0.0.250", "10.0.1.5", 9),
            ("10.0.0.0", "10.0.0.255", 253),
            ("10.0.1.255", "10.0.2.0", 0),
            ("10.0.0.7", "10.0.0.7", 1),
        ] {
            let pool = pool(vec![block(first, last, 16)]);
            let mut given = Vec::new();
            while let Some(cidr) = pool.free(7, true, |a| !given.contains(&a)) {
                assert!(pool.contains(cidr.address()) && !pool.skips(cidr.address()));
                given.push(cidr.address());
            }
            assert_eq!((given.len() as u128, pool.size()), (size, size), "{first}-{last}");
        }
    }

    #[test]
    fn a_block_of_all_there_is_has_its_size() {
        let six = pool(vec![block("2001:db8::", "2001:db8::ffff:ffff:ffff:ffff", 64)]);
        assert_eq!(six.size(), 1 << 64);
        let cidr = six.free(99, false, |_| true).unwrap();
        assert!(six.contains(cidr.address()) && cidr.prefix() == 64);
        assert_eq!(six.free(99, true, |_| true), None);
        let all = pool(vec![block("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 0)]);
        assert_eq!(all.size(), u128::MAX);
        assert!(all.free(3, false, |_| true).is_some());
    }

    #[test]
    fn a_pool_that_grows_moves_few() {
        let small = pool(vec![block("10.0.0.1", "10.0.0.100", 16)]);
        let large = pool(vec![block("10.0.0.1", "10.0.0.110", 16)]);
        let seeds = 0..1000_u64;
        let mix = |seed: u64| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let moved = seeds.filter(|seed| {
            let of = |pool: &Pool| pool.free(mix(*seed), true, |_| true);
            of(&small) != of(&large)
        });
        let moved = moved.count();
        assert!((50..150).contains(&moved), "{moved} of 1000, and the pool is a tenth larger");
    }

    #[test]
    fn a_row_is_of_one_subnet() {
        let new = |first: &str, last: &str, prefix| {
            Block::new(first.parse().unwrap(), last.parse().unwrap(), prefix)
        };
        assert_eq!(new("10.0.0.9", "10.0.0.1", 24), None);
        assert_eq!(new("10.0.0.9", "10.0.1.1", 24), None);
        assert_eq!(new("10.0.0.9", "2001:db8::1", 24), None);
        let (a, b) = (block("10.0.0.1", "10.0.0.9", 24), block("10.0.0.9", "10.0.0.20", 24));
        let c = block("10.0.0.10", "10.0.0.20", 24);
        assert_eq!((a.overlaps(b), a.overlaps(c)), (true, false));
    }
}
