//! Reads a text that stands for addresses of one subnet.
//!
//! The last `/N` of a text is always the prefix of the subnet, as in `[[vip]]`:
//! ```text
//! 10.0.0.100-10.0.0.150/24   from one address to another
//! 10.0.0.100-150/24          the same, shorter
//! 10.0.0.64/28/24            a block of 16 addresses of a larger subnet
//! 10.0.1.0/28                a whole subnet, without its two ends
//! 10.0.0.100/24              one address
//! ```

use crate::{Code, value, vip};
use buoy_model::{Block, Cidr};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const FORM: &str = "write \"10.0.0.100-10.0.0.150/24\", \"10.0.0.64/28/24\" or \"10.0.0.100/24\": the last number is the prefix of the subnet";

/// Addresses of one subnet, as numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Range {
    v4: bool,
    first: u128,
    last: u128,
    prefix: u8,
    /// Blocks and subnets are meant without the addresses that are no hosts.
    without_ends: bool,
}

impl Range {
    /// How many addresses it is, as it is written; `None`: more than a number can say.
    pub(crate) const fn count(self) -> Option<u128> {
        (self.last - self.first).checked_add(1)
    }

    /// Each address that can be a host's.
    pub(crate) fn addresses(self) -> impl Iterator<Item = Cidr> {
        let cidr = move |bits| Cidr::new(address_of(bits, self.v4), self.prefix);
        let all = (self.first..=self.last).filter_map(cidr);
        all.filter(move |cidr| !self.without_ends || vip::end_of_subnet(*cidr).is_none())
    }

    /// The same as a row; `None`: it has no address that can be a host's.
    pub(crate) fn block(self) -> Option<Block> {
        let is_end = |bits: u128| {
            let cidr = Cidr::new(address_of(bits, self.v4), self.prefix);
            self.without_ends && cidr.is_some_and(|cidr| vip::end_of_subnet(cidr).is_some())
        };
        let first = self.first + u128::from(is_end(self.first));
        let last = self.last - u128::from(is_end(self.last));
        let of = |bits| address_of(bits, self.v4);
        (first <= last).then(|| Block::new(of(first), of(last), self.prefix))?
    }
}

/// Whether a text stands for addresses of a pool.
pub(crate) fn is_range(text: &str) -> bool {
    parse(text).is_ok()
}

pub(crate) type Fault = (Code, &'static str, String);

pub(crate) fn parse(text: &str) -> Result<Range, Fault> {
    let bad = |reason: &'static str| (Code::BadVip, reason, FORM.to_owned());
    let Some((addresses, prefix)) = text.rsplit_once('/') else {
        return Err((Code::BadPrefix, "the prefix of the subnet is missing", FORM.to_owned()));
    };
    let (first, rest) = match addresses.find(['-', '/']) {
        Some(at) => (&addresses[..at], Some(&addresses[at..])),
        None => (addresses, None),
    };
    let first: IpAddr = first.parse().map_err(|_| bad(value::address_fault(first)))?;
    let (v4, bits) = (first.is_ipv4(), bits_of(first));
    let longest: u8 = if v4 { 32 } else { 128 };
    let length = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|n| digits && (1..=longest).contains(n))
    };
    let impossible = || {
        let reason = if v4 {
            "a prefix is a number from 1 to 32"
        } else {
            "a prefix is a number from 1 to 128"
        };
        (Code::BadPrefix, reason, FORM.to_owned())
    };
    let prefix: u8 = length(prefix).ok_or_else(impossible)?;
    let hosts = |prefix: u8| {
        u128::MAX.checked_shl(u32::from(longest - prefix)).map_or(u128::MAX, |mask| !mask)
    };
    let whole = |first: u128, last: u128, without_ends: bool| Range {
        v4,
        first,
        last,
        prefix,
        without_ends,
    };
    let Some(rest) = rest else {
        // A point-to-point subnet (RFC 3021, RFC 6164) has no address that is not a host.
        let subnet = bits & hosts(prefix) == 0 && prefix < longest - 1;
        let last = if subnet { bits | hosts(prefix) } else { bits };
        return Ok(whole(bits, last, subnet));
    };
    if let Some(block) = rest.strip_prefix('/') {
        let block: u8 = length(block).ok_or_else(impossible)?;
        if block < prefix {
            return Err(bad("the block is larger than the subnet"));
        }
        if bits & hosts(block) != 0 {
            let begin = address_of(bits & !hosts(block), v4);
            let fix = format!("write \"{begin}/{block}/{prefix}\", or a range: \"{first}-...\"");
            return Err((Code::BadVip, "the block does not begin with this address", fix));
        }
        return Ok(whole(bits, bits | hosts(block), true));
    }
    let last = last_of(first, &rest[1..])
        .ok_or_else(|| bad("what comes after `-` is neither an address nor the end of one"))?;
    if last.is_ipv4() != v4 {
        return Err(bad("one end is IPv4, the other IPv6"));
    }
    let last = bits_of(last);
    if last < bits {
        return Err(bad("it ends before it begins"));
    }
    if (bits ^ last) & !hosts(prefix) != 0 {
        return Err(bad("its two ends are not in one subnet of this prefix"));
    }
    Ok(whole(bits, last, false))
}

/// The end of a range: an address, or only its last part.
fn last_of(first: IpAddr, text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    match first {
        IpAddr::V4(first) => {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let last: u8 = text.parse().ok().filter(|_| digits)?;
            let [a, b, c, _] = first.octets();
            Some(Ipv4Addr::new(a, b, c, last).into())
        }
        IpAddr::V6(first) => {
            let digits =
                (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
            let last = u16::from_str_radix(text, 16).ok().filter(|_| digits)?;
            let [a, b, c, d, e, f, g, _] = first.segments();
            Some(Ipv6Addr::new(a, b, c, d, e, f, g, last).into())
        }
    }
}

fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address_of(bits: u128, v4: bool) -> IpAddr {
    if v4 {
        // An IPv4 address is never more than 32 bits here.
        Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)).into()
    } else {
        Ipv6Addr::from_bits(bits).into()
    }
}
