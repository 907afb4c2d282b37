//! Interfaces, hardware addresses and prefixes.

use core::fmt;
use core::net::IpAddr;

/// A network interface, by the kernel's index.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkId(pub u32);

/// An Ethernet address.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everyone on the segment.
    pub const BROADCAST: Self = Self([0xff; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address with the length of its subnet's prefix, as in `10.0.0.100/24`.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// `None` when the prefix is longer than the address.
    pub const fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let longest = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        if prefix <= longest { Some(Self { address, prefix }) } else { None }
    }

    /// The address alone.
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// The length of the prefix in bits.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether `other` lies in this subnet.
    pub fn contains(self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    fn v4(d: u8, prefix: u8) -> Cidr {
        Cidr::new(Ipv4Addr::new(10, 0, 0, d).into(), prefix).unwrap()
    }

    #[test]
    fn a_subnet_contains_its_own_family_only() {
        assert!(v4(1, 24).contains(Ipv4Addr::new(10, 0, 0, 200).into()));
        assert!(!v4(1, 24).contains(Ipv4Addr::new(10, 0, 1, 1).into()));
        assert!(v4(1, 0).contains(Ipv4Addr::new(99, 0, 1, 1).into()));
        assert!(!v4(1, 32).contains(Ipv4Addr::new(10, 0, 0, 2).into()));
        assert!(!v4(1, 0).contains(Ipv6Addr::LOCALHOST.into()));
        let v6 = Cidr::new("2001:db8::1".parse().unwrap(), 64).unwrap();
        assert!(v6.contains("2001:db8::ffff".parse().unwrap()));
        assert!(!v6.contains("2001:db8:1::1".parse().unwrap()));
    }

    #[test]
    fn a_prefix_longer_than_the_address_is_no_subnet() {
        assert!(Cidr::new(Ipv4Addr::LOCALHOST.into(), 33).is_none());
        assert!(Cidr::new(Ipv6Addr::LOCALHOST.into(), 129).is_none());
    }
}
