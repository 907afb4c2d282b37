//! Gives addresses of pools to the `[[vip]]` that ask for one: the same on every host, and the same again.
//!
//! ```text
//! reserved for it ─► that one; else ─► the search begins where the VIP's name says, and takes the first that is free
//! ```
//!
//! What is free is neither written anywhere, nor reserved, nor a peer's, nor given to a VIP before it in the file.
//! So a VIP at the end of the file takes nothing from the others. What a VIP got is kept as a reservation by the
//! agent, and holds whatever is edited later.
//! Absent on purpose: a memory. It is the file's reservations, and those that the store has.

use crate::Code;
use crate::cluster;
use crate::keys::{reservation, top, vip};
use crate::pool::Drafted;
use crate::report::{At, Problems, Span, choice, shown};
use crate::tree::{Section, Word};
use crate::value;
use crate::vip::Vip;
use buoy_model::limits::GROUPS_MAX;
use buoy_model::{Block, Cidr, Given, Giving, Pool, Reserved};
use core::net::IpAddr;
use std::collections::HashSet;

/// What asks any pool.
const ANY: &str = "*";

/// What a VIP has from pools.
#[derive(Clone, Debug, Default)]
pub(crate) struct Got {
    /// `None`: it asks no pool, and says its addresses itself.
    pub(crate) addresses: Option<Vec<At<Cidr>>>,
    /// That of the pool.
    pub(crate) interface: Option<At<String>>,
}

/// The pools, with what is reserved in them.
pub(crate) struct Pools {
    all: Vec<Drafted>,
    reserved: Vec<At<Reserved>>,
    taken: HashSet<IpAddr>,
}

impl Pools {
    /// The pools with what is reserved in them.
    pub(crate) fn read(top: &Section<'_>, all: Vec<Drafted>, problems: &mut Problems<'_>) -> Self {
        refuse_overlaps(&all, problems);
        let reserved = read_reservations(top, &all, problems);
        let mut pools = Self { all, reserved, taken: HashSet::new() };
        for At { value, .. } in &pools.reserved {
            let of = |drafted: &&mut Drafted| drafted.pool.contains(value.address);
            if let Some(drafted) = pools.all.iter_mut().find(of) {
                drafted.pool.reserved.push(value.clone());
            }
        }
        pools
    }

    /// The VIPs of pools whose addresses are such.
    pub(crate) fn take_each(&mut self) -> Vec<Vip> {
        self.all.iter_mut().flat_map(|drafted| std::mem::take(&mut drafted.vips)).collect()
    }

    /// What is known of them when all is given.
    pub(crate) fn into_model(self) -> Vec<Pool> {
        self.all.into_iter().map(|drafted| drafted.pool).collect()
    }

    /// What each of the `[[vip]]` gets.
    pub(crate) fn give(&mut self, vips: &[Section<'_>], problems: &mut Problems<'_>) -> Vec<Got> {
        // What is written stands, wherever in the file.
        for vip in vips {
            self.taken.extend(written(vip).into_iter().filter_map(|text| address_of(text.value)));
        }
        let names = vips.iter().filter(|vip| asks(vip)).filter_map(name_of);
        let asking: HashSet<String> = names.map(|name| name.value.to_owned()).collect();
        // What a VIP had that asks no more is free.
        self.reserved.retain(|r| !r.value.given || asking.contains(&r.value.holder));
        self.taken.extend(self.reserved.iter().map(|r| r.value.address));
        vips.iter().map(|vip| self.give_one(vip, problems)).collect()
    }

    fn give_one(&mut self, section: &Section<'_>, problems: &mut Problems<'_>) -> Got {
        let asked = section.text(&vip::POOL, problems);
        let family = section.word(&vip::FAMILY, &FAMILIES, problems);
        let says_address = section.has(&vip::ADDRESS);
        if let (Some(family), true) = (&family, asked.is_none() || says_address) {
            let message = "`family` does nothing here";
            let reason = "it says which addresses a VIP gets that asks a pool for any of its own";
            let fix = "remove it, or write `pool` and no `address`";
            problems.add(Code::NeedsOther, &family.span, message, reason, fix);
        }
        let Some(asked) = asked else { return Got::default() };
        let found = self.find(&asked, problems);
        let none = Got { addresses: Some(Vec::new()), interface: None };
        if found.is_empty() {
            return none;
        }
        if says_address {
            return self.named(section, &asked, &found, problems);
        }
        if !section.has(&vip::NAME) {
            section.miss(&vip::NAME, problems);
        }
        let Some(name) = name_of(section) else { return none };
        let family = family.map(|family| family.value);
        let Some((at, addresses)) = self.choose(name.value, family, &found) else {
            self.refuse_exhausted(&asked, family, &found, problems);
            return none;
        };
        let drafted = &mut self.all[at];
        let vip = || name.value.to_owned();
        let given = addresses.iter().map(|cidr| Given { vip: vip(), address: cidr.address() });
        drafted.pool.given.extend(given);
        self.taken.extend(addresses.iter().map(|cidr| cidr.address()));
        let addresses = addresses.into_iter().map(|cidr| At::new(cidr, asked.span.clone()));
        Got { addresses: Some(addresses.collect()), interface: drafted.interface.clone() }
    }

    /// The pools that are meant, the first to be asked before the others.
    fn find(&self, asked: &At<&str>, problems: &mut Problems<'_>) -> Vec<usize> {
        let places = || self.all.iter().enumerate();
        if asked.value == ANY {
            let auto = places().filter(|(_, drafted)| drafted.pool.giving == Giving::Auto);
            let mut found: Vec<usize> = auto.map(|(at, _)| at).collect();
            found.sort_by_key(|at| self.all[*at].pool.priority.unwrap_or(u32::MAX));
            if found.is_empty() {
                let message = "no pool gives its addresses to a VIP that asks any";
                let reason = "a pool with auto_assign = true does";
                let fix = "write auto_assign = true in a [[pool]], or the name of a pool here";
                problems.add(Code::UnknownPool, &asked.span, message, reason, fix);
            }
            return found;
        }
        let Some((at, drafted)) = places().find(|(_, d)| d.pool.name == asked.value) else {
            let names = || self.all.iter().filter(|d| d.pool.can_be_asked()).map(|d| &d.pool.name);
            let message = format!("there is no pool \"{}\"", shown(asked.value));
            let fix = match value::nearest(asked.value, names().map(String::as_str)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None if names().next().is_none() => {
                    "add a [[pool]] of this name with auto_assign = true".to_owned()
                }
                None => format!("write {}", choice(names().map(|name| format!("\"{name}\"")))),
            };
            let reason = "`pool` takes the name of a [[pool]] with `auto_assign`";
            problems.add(Code::UnknownPool, &asked.span, message, reason, fix);
            return Vec::new();
        };
        if !drafted.pool.can_be_asked() {
            let message = format!("the pool \"{}\" gives no address", shown(asked.value));
            let (again, first) = (
                (&asked.span, "asked here"),
                (&drafted.name.span, "each of its addresses is a VIP of its own"),
            );
            let fix = "write auto_assign = false in the pool: then VIPs ask for its addresses";
            problems.add_pair(Code::NotToAsk, again, first, message, fix);
            return Vec::new();
        }
        vec![at]
    }

    /// The addresses that the VIP says itself: those of the pool.
    fn named(
        &self,
        section: &Section<'_>,
        asked: &At<&str>,
        found: &[usize],
        problems: &mut Problems<'_>,
    ) -> Got {
        let mut interface = None;
        let mut addresses = Vec::new();
        for text in written(section) {
            // What is no address at all is refused where VIPs are read.
            let Some(address) = address_of(text.value) else {
                return Got { addresses: None, interface };
            };
            let of = found.iter().map(|at| &self.all[*at]);
            let Some(drafted) = of.into_iter().find(|d| d.pool.contains(address)) else {
                let pools = found.iter().map(|at| &self.all[*at].pool);
                let blocks: Vec<String> =
                    pools.flat_map(|p| &p.blocks).map(Block::to_string).collect();
                let message = format!("{address} is not in the pool \"{}\"", shown(asked.value));
                let reason = format!("it has {}", choice(blocks));
                let fix = "write one of these, or remove `address` to get one that is free";
                problems.add(Code::OutsidePool, &text.span, message, reason, fix);
                continue;
            };
            interface = interface.or_else(|| drafted.interface.clone());
            let Some(cidr) = drafted.pool.cidr(address) else { continue };
            let written = text.value.split_once('/').map(|(_, prefix)| prefix);
            if written.is_some_and(|prefix| prefix.parse() != Ok(cidr.prefix())) {
                let message = format!("\"{}\" has not the prefix of its pool", shown(text.value));
                let fix = format!("write \"{address}\", or \"{cidr}\"");
                let reason = "addresses of a pool are of the subnet that the pool says";
                problems.add(Code::OutsidePool, &text.span, message, reason, fix);
            }
            addresses.push(At::new(cidr, text.span.clone()));
        }
        Got { addresses: Some(addresses), interface }
    }

    /// What the first pool that has enough gives.
    fn choose(
        &self,
        name: &str,
        family: Option<Family>,
        found: &[usize],
    ) -> Option<(usize, Vec<Cidr>)> {
        let has_reserved = |at: &&usize| self.reserved(name, &self.all[**at].pool).next().is_some();
        let first = found.iter().find(has_reserved);
        let choose = |at: &usize| {
            let pool = &self.all[*at].pool;
            let versions = [true, false].into_iter().filter(|ipv4| match family {
                Some(Family::Ipv4) => *ipv4,
                Some(Family::Ipv6) => !ipv4,
                Some(Family::Dual) => true,
                None => pool.has(*ipv4),
            });
            let one = |ipv4: bool| {
                let mut own = self.reserved(name, pool).filter(|a| a.is_ipv4() == ipv4);
                if let Some(own) =
                    own.find(|address| !pool.given.iter().any(|g| g.address == *address))
                {
                    return pool.cidr(own);
                }
                let seed = seed(&pool.name, name);
                pool.free(seed, ipv4, |address| !self.taken.contains(&address))
            };
            Some((*at, versions.map(one).collect::<Option<Vec<Cidr>>>()?))
        };
        first.into_iter().chain(found).find_map(choose)
    }

    /// What is reserved for a name in a pool, what people said before what the agent kept.
    fn reserved<'p>(&'p self, name: &'p str, pool: &'p Pool) -> impl Iterator<Item = IpAddr> + 'p {
        let of = move |given: bool| {
            let all = self.reserved.iter().map(|r| &r.value);
            let its = all.filter(move |r| r.holder == name && r.given == given);
            its.map(|r| r.address).filter(|address| pool.contains(*address))
        };
        of(false).chain(of(true))
    }

    fn refuse_exhausted(
        &self,
        asked: &At<&str>,
        family: Option<Family>,
        found: &[usize],
        problems: &mut Problems<'_>,
    ) {
        let kind = match family {
            Some(Family::Ipv4) => "IPv4 ",
            Some(Family::Ipv6) => "IPv6 ",
            Some(Family::Dual) | None => "",
        };
        let what = match found {
            [one] => format!("the pool \"{}\"", shown(&self.all[*one].pool.name)),
            _ => "no pool".to_owned(),
        };
        let verb = if found.len() == 1 { "has no" } else { "has an" };
        let message = format!("{what} {verb} {kind}address left");
        let pools = found.iter().map(|at| &self.all[*at].pool);
        let [size, reserved] = [
            pools.clone().map(Pool::size).fold(0, u128::saturating_add).to_string(),
            pools
                .map(|pool| pool.reserved.iter().filter(|r| !r.given).count())
                .sum::<usize>()
                .to_string(),
        ];
        let reason = match family {
            Some(Family::Dual) => {
                format!(
                    "of {size} addresses ({reserved} reserved) one of each IP version is needed"
                )
            }
            Some(Family::Ipv4 | Family::Ipv6) | None => {
                format!("{size} addresses, {reserved} of them reserved, and the others are VIPs")
            }
        };
        let fix = "add addresses to the pool, or release one that nobody needs";
        problems.add(Code::PoolExhausted, &asked.span, message, reason, fix);
    }
}

/// What is reserved is for who it is reserved for.
pub(crate) fn refuse_reserved(vips: &[Vip], pools: &Pools, problems: &mut Problems<'_>) {
    for vip in vips {
        for At { value: cidr, span } in &vip.addresses {
            let is_it = |r: &&At<Reserved>| r.value.address == cidr.address();
            let Some(kept) = pools.reserved.iter().find(is_it) else { continue };
            let shares = |other: &Vip| {
                let group = |vip: &Vip| vip.group.as_ref().map(|label| label.value.clone());
                other.name.value == kept.value.holder
                    && group(other).is_some()
                    && group(other) == group(vip)
            };
            if kept.value.holder == vip.name.value || vips.iter().any(shares) {
                continue;
            }
            let message =
                format!("{} is reserved for {}", cidr.address(), shown(&kept.value.holder));
            let (again, first) = ((span, "a VIP here"), (&kept.span, "reserved here"));
            let fix = "take another address, or release this one";
            problems.add_pair(Code::AddressReserved, again, first, message, fix);
        }
    }
}

#[derive(Clone, Copy)]
enum Family {
    Ipv4,
    Ipv6,
    Dual,
}

const FAMILIES: [(&str, Word<Family>); 3] = [
    ("ipv4", Word::Now(Family::Ipv4)),
    ("ipv6", Word::Now(Family::Ipv6)),
    ("dual", Word::Now(Family::Dual)),
];

fn asks(vip: &Section<'_>) -> bool {
    vip.has(&vip::POOL) && !vip.has(&vip::ADDRESS)
}

fn name_of<'t>(vip: &Section<'t>) -> Option<At<&'t str>> {
    let value = vip.raw(&vip::NAME)?;
    let name = value.get_ref().as_str()?;
    value::name_fault(name).is_none().then(|| At::new(name, value.span()))
}

/// The addresses as the VIP has them; what is wrong with them is told where they are read.
fn written<'t>(vip: &Section<'t>) -> Vec<At<&'t str>> {
    let Some(value) = vip.raw(&vip::ADDRESS) else { return Vec::new() };
    let text = |value: &'t toml::Spanned<toml::de::DeValue<'t>>| {
        Some(At::new(value.get_ref().as_str()?, value.span()))
    };
    match value.get_ref().as_array() {
        Some(list) => list.iter().filter_map(text).collect(),
        None => text(value).into_iter().collect(),
    }
}

fn address_of(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

/// Where the search for an address begins: FNV-1a of 64 bits over both names.
fn seed(pool: &str, vip: &str) -> u64 {
    let bytes = pool.bytes().chain([0]).chain(vip.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Two pools that VIPs ask would give one address twice.
fn refuse_overlaps(all: &[Drafted], problems: &mut Problems<'_>) {
    let rows = |drafted: &'_ Drafted| {
        let rows: Vec<(Block, Span)> =
            drafted.pool.blocks.iter().copied().zip(drafted.spans.iter().cloned()).collect();
        rows
    };
    let mut open: Vec<(usize, Block, Span)> = all
        .iter()
        .enumerate()
        .flat_map(|(at, drafted)| rows(drafted).into_iter().map(move |(b, s)| (at, b, s)))
        .collect();
    open.sort_by_key(|(_, block, span)| (block.first(), span.start));
    let Some(mut widest) = open.first().cloned() else { return };
    for next in open.into_iter().skip(1) {
        let asked = all[widest.0].pool.can_be_asked() || all[next.0].pool.can_be_asked();
        if asked && widest.1.overlaps(next.1) {
            let (first, again) = match widest.2.start < next.2.start {
                true => (&widest, &next),
                false => (&next, &widest),
            };
            let message = format!("{} and {} overlap", again.1, first.1);
            let (again, first) = ((&again.2, "again here"), (&first.2, "first here"));
            let fix = "let each address be in one pool, once";
            problems.add_pair(Code::PoolsOverlap, again, first, message, fix);
        }
        if next.1.last() > widest.1.last() {
            widest = next;
        }
    }
}

fn read_reservations(
    top: &Section<'_>,
    pools: &[Drafted],
    problems: &mut Problems<'_>,
) -> Vec<At<Reserved>> {
    let sections = top.sections(&top::RESERVATION, &reservation::SCHEMA, problems);
    let mut all: Vec<At<Reserved>> = Vec::new();
    for section in &sections {
        let Some(reserved) = read_reservation(section, pools, problems) else { continue };
        if let Some(first) = all.iter().find(|r| r.value.address == reserved.value.address) {
            let message = format!("{} is reserved twice", reserved.value.address);
            let (again, first) = ((&reserved.span, "again here"), (&first.span, "first here"));
            problems.add_pair(Code::BadReservation, again, first, message, "remove one of them");
            continue;
        }
        all.push(reserved);
    }
    let spans: Vec<At<()>> = sections.iter().map(|s| At::new((), s.span().clone())).collect();
    let fix = "leave addresses out of the pool that nobody shall have";
    crate::vip::refuse_too_many("reservations", &spans, 2 * GROUPS_MAX, fix, problems);
    all.truncate(2 * GROUPS_MAX);
    all
}

fn read_reservation(
    section: &Section<'_>,
    pools: &[Drafted],
    problems: &mut Problems<'_>,
) -> Option<At<Reserved>> {
    for key in [&reservation::ADDRESS, &reservation::FOR] {
        if !section.has(key) {
            section.miss(key, problems);
        }
    }
    let text = section.text(&reservation::ADDRESS, problems);
    let holder = section.text(&reservation::FOR, problems);
    let holder = holder.filter(|name| cluster::check_name("for", name, problems));
    let given = section.flag(&reservation::GIVEN, problems).is_some_and(|flag| flag.value);
    let text = text?;
    let Ok(address) = text.value.parse::<IpAddr>() else {
        let message = format!("\"{}\" is not an address", shown(text.value));
        let fix = "write the address alone, as in \"10.0.0.150\"";
        problems.add(Code::BadVip, &text.span, message, value::address_fault(text.value), fix);
        return None;
    };
    let pool = pools.iter().find(|drafted| drafted.pool.contains(address));
    let Some(pool) = pool.filter(|drafted| drafted.pool.can_be_asked()) else {
        let message = format!("{address} is in no pool that VIPs ask");
        let reason = match pool {
            Some(drafted) => format!(
                "in the pool \"{}\" each address is a VIP already",
                shown(&drafted.pool.name)
            ),
            None => "a reservation keeps an address of a [[pool]] with `auto_assign`".to_owned(),
        };
        let fix = "write an address of such a pool, or remove the reservation";
        problems.add(Code::BadReservation, &text.span, message, reason, fix);
        return None;
    };
    if pool.pool.hosts.contains(&address) {
        let message = format!("{address} is the address of a peer");
        let fix = "reserve another one; peers keep theirs without it";
        problems.add(Code::BadReservation, &text.span, message, "no VIP gets it in any case", fix);
        return None;
    }
    let holder = holder?.value.to_owned();
    Some(At::new(Reserved { address, holder, given }, text.span))
}
