//! Reads one `[[pool]]`: many addresses with the same wishes, each a VIP of its own.
//!
//! The last `/N` of a text is always the prefix of the subnet, as in `[[vip]]`:
//! ```text
//! 10.0.0.100-10.0.0.150/24   from one address to another
//! 10.0.0.100-150/24          the same, shorter
//! 10.0.0.64/28/24            a block of 16 addresses of a larger subnet
//! 10.0.1.0/28                a whole subnet, without its two ends
//! 10.0.0.100/24              one address
//! ```

use crate::Code;
use crate::cluster::{self, Cluster};
use crate::keys::pool;
use crate::report::{At, Problems, Span, shown};
use crate::tree::Section;
use crate::value;
use crate::vip::{self, Vip};
use crate::{forward, settings};
use buoy_model::limits::{GROUPS_MAX, POOL_PORTS_MAX};
use buoy_model::{Cidr, Mode, Service};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{HashMap, HashSet};

const FORM: &str = "write \"10.0.0.100-10.0.0.150/24\", \"10.0.0.64/28/24\" or \"10.0.0.100/24\": the last number is the prefix of the subnet";

/// Every address as a VIP of its own, in the file's order.
pub(crate) fn read(
    section: &Section<'_>,
    cluster: &Cluster,
    problems: &mut Problems<'_>,
) -> Vec<Vip> {
    let interface = vip::read_interface(section, problems);
    if !section.has(&pool::NAME) {
        section.miss(&pool::NAME, problems);
    }
    let name = section.text(&pool::NAME, problems);
    let name = name.filter(|n| cluster::check_name("name", n, problems));
    let addresses = read_addresses(section, interface.is_some(), problems);
    let settings = settings::read(section, &addresses, cluster, problems);
    let mut pool = Vec::new();
    let services =
        vip::read_services(section, &pool::SERVICE_SCHEMA, &addresses, &mut pool, problems);
    let presence = vip::read_presence(section, &pool::SERVICE_SCHEMA, &services, problems);
    refuse_too_many_ports(section, addresses.len(), services.len(), problems);
    let mut names =
        Names { pool: name.as_ref().map_or("pool", |n| n.value), taken: HashSet::new() };
    let vip = |address: At<Cidr>| Vip {
        name: At::new(names.take(address.value), address.span.clone()),
        interface: interface.clone(),
        presence,
        group: None,
        settings: settings.clone(),
        services: services.iter().filter_map(|s| of_one(s, address.value.address())).collect(),
        pool: pool.clone(),
        addresses: vec![address],
    };
    let vips: Vec<Vip> = addresses.into_iter().map(vip).collect();
    if let (Some(name), Some(_)) =
        (&name, vips.iter().find(|v| value::name_fault(&v.name.value).is_some()))
    {
        let message = format!("`name`: \"{}\" is too long for a pool", shown(name.value));
        let reason = "each VIP is called by it and the end of its address, in 63 bytes";
        let fix = "write a short name such as \"web\"";
        problems.add(Code::BadName, &name.span, message, reason, fix);
    }
    vips
}

/// Two pools of one name would have VIPs of one name, or not, by chance.
pub(crate) fn refuse_same_name(pools: &[Section<'_>], problems: &mut Problems<'_>) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for pool in pools {
        let name = pool.raw(&pool::NAME).and_then(|v| Some((v.get_ref().as_str()?, v.span())));
        let Some((name, span)) = name else { continue };
        let Some(first) = seen.insert(name, span.clone()) else { continue };
        let message = format!("two pools are called \"{}\"", shown(name));
        let (again, first) = ((&span, "again here"), (&first, "first here"));
        let fix = "rename one of them, or write all addresses into one";
        problems.add_pair(Code::DuplicateName, again, first, message, fix);
    }
}

/// A service of the pool as one of its addresses has it.
fn of_one(written: &At<Service>, address: IpAddr) -> Option<At<Service>> {
    let mut service = written.value.clone();
    service.addresses = vec![address];
    match service.mode {
        // Neither nftables nor XDP translates between IPv4 and IPv6.
        Mode::Kernel | Mode::Xdp { .. } => {
            service.backends.retain(|b| b.address.is_ipv4() == address.is_ipv4())
        }
        Mode::Proxy => {}
    }
    let is_open = !service.discovered.is_empty() || forward::is_local(service.mode);
    let is_there = is_open || !service.backends.is_empty();
    is_there.then(|| At::new(service, written.span.clone()))
}

fn refuse_too_many_ports(
    section: &Section<'_>,
    addresses: usize,
    ports: usize,
    problems: &mut Problems<'_>,
) {
    if addresses * ports <= POOL_PORTS_MAX {
        return;
    }
    let message =
        format!("{ports} ports on {addresses} addresses: at most {POOL_PORTS_MAX} are possible");
    let reason = "each port of each address is a service of its own";
    let fix = "put the ports on fewer addresses";
    problems.add(Code::TooMany, section.span(), message, reason, fix);
}

/// Names of VIPs: the pool's, and as much of the end of the address as tells it from those before.
struct Names<'n> {
    pool: &'n str,
    taken: HashSet<String>,
}

impl Names<'_> {
    fn take(&mut self, cidr: Cidr) -> String {
        let parts: Vec<String> = match cidr.address() {
            IpAddr::V4(v4) => v4.octets().iter().map(u8::to_string).collect(),
            IpAddr::V6(v6) => v6.segments().iter().map(|s| format!("{s:x}")).collect(),
        };
        let separator = if cidr.address().is_ipv4() { "." } else { ":" };
        let name = |n: usize| format!("{}-{}", self.pool, parts[parts.len() - n..].join(separator));
        let free = (1..=parts.len()).map(name).find(|name| !self.taken.contains(name));
        // One address twice is said elsewhere; its name need not be another one.
        let name = free.unwrap_or_else(|| format!("{}-{}", self.pool, parts.join(separator)));
        self.taken.insert(name.clone());
        name
    }
}

fn read_addresses(
    section: &Section<'_>,
    has_interface: bool,
    problems: &mut Problems<'_>,
) -> Vec<At<Cidr>> {
    let Some(texts) = section.texts(&pool::ADDRESSES, problems) else {
        if !section.has(&pool::ADDRESSES) {
            section.miss(&pool::ADDRESSES, problems);
        }
        return Vec::new();
    };
    let mut addresses = Vec::new();
    for text in texts.value.iter().take(GROUPS_MAX) {
        if addresses.len() > GROUPS_MAX {
            break; // Whoever counts the VIPs of all pools will say so.
        }
        match parse(text.value) {
            Ok(range) => add_range(text, &range, has_interface, &mut addresses, problems),
            Err((code, reason, fix)) => {
                let message = format!("\"{}\" is no range of addresses", shown(text.value));
                problems.add(code, &text.span, message, reason, fix);
            }
        }
    }
    addresses
}

fn add_range(
    text: &At<&str>,
    range: &Range,
    has_interface: bool,
    addresses: &mut Vec<At<Cidr>>,
    problems: &mut Problems<'_>,
) {
    let count = range.last - range.first;
    if count >= GROUPS_MAX as u128 {
        let size = count.checked_add(1).map_or_else(|| "too many".to_owned(), |n| n.to_string());
        let message = format!(
            "\"{}\" are {size} addresses: at most {GROUPS_MAX} are possible",
            shown(text.value)
        );
        let reason = "each of them is a VIP of its own";
        problems.add(Code::TooMany, &text.span, message, reason, "write a smaller range");
        return;
    }
    let before = problems.count();
    for bits in range.first..=range.last {
        let Some(cidr) = Cidr::new(address_of(bits, range.v4), range.prefix) else { continue };
        if range.without_ends && vip::end_of_subnet(cidr).is_some() {
            continue;
        }
        vip::refuse_unusable(cidr, &text.span, has_interface, problems);
        if problems.count() > before {
            return; // Of a range that is wrong one address is enough to say so.
        }
        addresses.push(At::new(cidr, text.span.clone()));
    }
}

/// Addresses of one subnet, as numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Range {
    v4: bool,
    first: u128,
    last: u128,
    prefix: u8,
    /// Blocks and subnets are meant without the addresses that are no hosts.
    without_ends: bool,
}

/// Whether a text stands for addresses of a pool.
pub(crate) fn is_range(text: &str) -> bool {
    parse(text).is_ok()
}

type Fault = (Code, &'static str, String);

fn parse(text: &str) -> Result<Range, Fault> {
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
