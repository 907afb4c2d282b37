//! Reads one `[[pool]]`: many addresses with the same wishes, each a VIP of its own, or, with `auto_assign`,
//! addresses that `[[vip]]` ask for.

use crate::Code;
use crate::cluster::{self, Cluster};
use crate::keys::{Key, pool, vip as keys};
use crate::range::{self, Range};
use crate::report::{At, Problems, Span, shown};
use crate::tree::Section;
use crate::value;
use crate::vip::{self, Vip};
use crate::{forward, settings};
use buoy_model::limits::{GROUPS_MAX, POOL_PORTS_MAX};
use buoy_model::{Cidr, Giving, Mode, Pool, Service};
use core::net::IpAddr;
use std::collections::{HashMap, HashSet};

/// The largest number that says which pool is asked first.
const PRIORITY_MAX: u32 = 1000;

/// A pool as it is written.
pub(crate) struct Drafted {
    pub(crate) pool: Pool,
    pub(crate) name: At<()>,
    /// Where each of its blocks stands.
    pub(crate) spans: Vec<Span>,
    /// Of VIPs that have their address from here and say no other.
    pub(crate) interface: Option<At<String>>,
    /// Its addresses, where each is a VIP of its own.
    pub(crate) vips: Vec<Vip>,
}

pub(crate) fn read(
    section: &Section<'_>,
    cluster: &Cluster,
    problems: &mut Problems<'_>,
) -> Drafted {
    let interface = vip::read_interface(section, problems);
    if !section.has(&pool::NAME) {
        section.miss(&pool::NAME, problems);
    }
    let name = section.text(&pool::NAME, problems);
    let name = name.filter(|n| cluster::check_name("name", n, problems));
    let giving = read_giving(section, problems);
    let skips_ends = section.flag(&pool::SKIP_ENDS, problems).is_some_and(|flag| flag.value);
    let priority = section.number(&pool::PRIORITY, 1..=PRIORITY_MAX, problems).map(|n| n.value);
    let ranges = read_ranges(section, problems);
    let mut pool = Pool {
        name: name.as_ref().map_or("pool", |n| n.value).to_owned(),
        giving,
        priority,
        blocks: ranges.iter().filter_map(|range| range.value.block()).collect(),
        skips_ends,
        hosts: Vec::new(),
        reserved: Vec::new(),
        given: Vec::new(),
    };
    let legs = cluster.peers.list.iter().flat_map(|peer| &peer.legs).map(|leg| leg.value.ip());
    pool.hosts = legs.filter(|leg| pool.can_be_asked() && pool.contains(*leg)).collect();
    let spans = ranges.iter().filter(|range| range.value.block().is_some());
    let spans = spans.map(|range| range.span.clone()).collect();
    let vips = match giving {
        Giving::Each => {
            let name = name.as_ref();
            read_each(section, cluster, (name, &ranges, skips_ends), interface.clone(), problems)
        }
        Giving::Named | Giving::Auto => {
            refuse_wishes(section, problems);
            for range in &ranges {
                refuse_unusable(range, interface.is_some(), problems);
            }
            Vec::new()
        }
    };
    let name = At::new((), name.map_or_else(|| section.span().clone(), |n| n.span));
    Drafted { pool, name, spans, interface, vips }
}

fn read_giving(section: &Section<'_>, problems: &mut Problems<'_>) -> Giving {
    let auto = section.flag(&pool::AUTO_ASSIGN, problems);
    let giving = match (auto, section.has(&pool::AUTO_ASSIGN)) {
        (Some(At { value: true, .. }), _) => Giving::Auto,
        (Some(At { value: false, .. }), _) | (None, true) => Giving::Named,
        (None, false) => Giving::Each,
    };
    if let (Giving::Each | Giving::Named, Some(span)) = (giving, section.key_span(&pool::PRIORITY))
    {
        let message = "`priority` does nothing here";
        let reason = "it says which pool gives to a VIP that asks any, and this one does not";
        let fix = "remove it, or write auto_assign = true";
        problems.add(Code::NeedsOther, &span, message, reason, fix);
    }
    giving
}

/// What VIPs say themselves.
const WISHES: [&Key; 8] = [
    &keys::ASSIGN,
    &keys::NODES,
    &keys::PREFER,
    &keys::FAILBACK,
    &keys::SAFETY,
    &keys::APART,
    &keys::CHECK,
    &pool::SERVICE,
];

fn refuse_wishes(section: &Section<'_>, problems: &mut Problems<'_>) {
    for key in WISHES {
        let Some(span) = section.key_span(key) else { continue };
        let message = format!("`{}` does nothing in a pool with `auto_assign`", key.name);
        let reason = "its addresses are those of [[vip]] that ask for one, and these say it";
        let fix = "write it in each [[vip]], or remove `auto_assign`: then each address is a VIP";
        problems.add(Code::OfEachVip, &span, message, reason, fix);
    }
}

/// Every address as a VIP of its own, in the file's order.
fn read_each(
    section: &Section<'_>,
    cluster: &Cluster,
    (name, ranges, skips_ends): (Option<&At<&str>>, &[At<Range>], bool),
    interface: Option<At<String>>,
    problems: &mut Problems<'_>,
) -> Vec<Vip> {
    let addresses = expand(ranges, skips_ends, interface.is_some(), problems);
    let settings = settings::read(section, &addresses, cluster, problems);
    let mut pool = Vec::new();
    let services =
        vip::read_services(section, &pool::SERVICE_SCHEMA, &addresses, &mut pool, problems);
    let presence = vip::read_presence(section, &pool::SERVICE_SCHEMA, &services, problems);
    refuse_too_many_ports(section, addresses.len(), services.len(), problems);
    let mut names = Names { pool: name.map_or("pool", |n| n.value), taken: HashSet::new() };
    let vip = |address: At<Cidr>| Vip {
        name: At::new(names.take(address.value), address.span.clone()),
        interface: interface.clone(),
        presence,
        group: None,
        settings: settings.clone(),
        services: services.iter().filter_map(|s| of_one(s, address.value.address())).collect(),
        pool: pool.clone(),
        vrrp: None,
        routes: Vec::new(),
        rules: Vec::new(),
        addresses: vec![address],
    };
    let vips: Vec<Vip> = addresses.into_iter().map(vip).collect();
    if let (Some(name), Some(_)) =
        (name, vips.iter().find(|v| value::name_fault(&v.name.value).is_some()))
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

fn read_ranges(section: &Section<'_>, problems: &mut Problems<'_>) -> Vec<At<Range>> {
    let Some(texts) = section.texts(&pool::ADDRESSES, problems) else {
        if !section.has(&pool::ADDRESSES) {
            section.miss(&pool::ADDRESSES, problems);
        }
        return Vec::new();
    };
    let mut ranges = Vec::new();
    for text in texts.value.iter().take(GROUPS_MAX) {
        match range::parse(text.value) {
            Ok(range) => ranges.push(At::new(range, text.span.clone())),
            Err((code, reason, fix)) => {
                let message = format!("\"{}\" is no range of addresses", shown(text.value));
                problems.add(code, &text.span, message, reason, fix);
            }
        }
    }
    ranges
}

/// Each address of the ranges, as long as there are no more than a cluster can hold.
fn expand(
    ranges: &[At<Range>],
    skips_ends: bool,
    has_interface: bool,
    problems: &mut Problems<'_>,
) -> Vec<At<Cidr>> {
    let mut addresses = Vec::new();
    for range in ranges {
        if addresses.len() > GROUPS_MAX {
            break; // Whoever counts the VIPs of all pools will say so.
        }
        add_range(range, skips_ends, has_interface, &mut addresses, problems);
    }
    addresses
}

fn add_range(
    range: &At<Range>,
    skips_ends: bool,
    has_interface: bool,
    addresses: &mut Vec<At<Cidr>>,
    problems: &mut Problems<'_>,
) {
    let count = range.value.count();
    if count.is_none_or(|count| count > GROUPS_MAX as u128) {
        let size = count.map_or_else(|| "too many".to_owned(), |n| n.to_string());
        let text = &problems.text()[range.span.clone()];
        let message = format!(
            "\"{}\" are {size} addresses: at most {GROUPS_MAX} are possible",
            shown(text.trim_matches('"'))
        );
        let reason = "each of them is a VIP of its own";
        let fix = "write a smaller range, or auto_assign = true: then VIPs ask for addresses";
        problems.add(Code::TooMany, &range.span, message, reason, fix);
        return;
    }
    let before = problems.count();
    for cidr in range.value.addresses() {
        if skips_ends && is_end(cidr.address()) {
            continue;
        }
        vip::refuse_unusable(cidr, &range.span, has_interface, problems);
        if problems.count() > before {
            return; // Of a range that is wrong one address is enough to say so.
        }
        addresses.push(At::new(cidr, range.span.clone()));
    }
}

/// Of a range that VIPs ask for, the ends say whether it can be used: it is of one subnet.
fn refuse_unusable(range: &At<Range>, has_interface: bool, problems: &mut Problems<'_>) {
    let Some(block) = range.value.block() else {
        let message = "there is no address in this range that a host can have";
        let reason = "the ends of a subnet are no hosts";
        problems.add(Code::UnusableVip, &range.span, message, reason, "write a larger range");
        return;
    };
    let before = problems.count();
    for address in [block.first(), block.last()] {
        if let (Some(cidr), true) = (Cidr::new(address, block.prefix()), problems.count() == before)
        {
            vip::refuse_unusable(cidr, &range.span, has_interface, problems);
        }
    }
}

const fn is_end(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => matches!(v4.octets()[3], 0 | 255),
        IpAddr::V6(_) => false,
    }
}
