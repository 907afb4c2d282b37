//! Tells other hosts which flows the programs remember here, and lets the programs know those of other hosts.
//!
//! All of it is in memory that is shared with the programs, so what is new is found by comparing with what was told
//! (`Said`), and what is heard is written as the programs write: a place is taken by one compare and swap. What is
//! told is only what stands: a connection whose client has answered its server, a datagram's flow that was answered;
//! so a flood of packets that open something is told to nobody.
//!
//! What another host says is never believed beyond itself: it goes where the hash of the flow itself leads, to a
//! backend that is there, and takes no place from a flow that the programs here have seen since.

use super::super::memory::Region;
use super::super::plan;
use super::super::pools::Pools;
use super::super::said::Said;
use super::{Key, Placed, TICK, Tables, backends_of};
use buoy_model::{FlowSigns, Protocol, Remembered, Translation};
use buoy_xdp::flow::{
    Exception, POOL_PROBES, Pooled, PortState, TICK_MASK, age, bucket_of, hash_ends,
};
use buoy_xdp::forward::{BUCKET_WAYS, EXCEPTIONS_MAX, POOLED, halves};
use buoy_xdp::pool::{Outlets, POOL_PORTS, PORT_FIRST, PORT_KEPT, PORT_LAST, Pool};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// A remembered flow that goes on is told again after so long, far less than it is remembered.
const REMEMBERED_AGAIN: u64 = 60;
/// A flow with a port is told again after this part of the time that it keeps it.
const PORT_AGAIN: u64 = 4;

/// What was told of flows.
pub(in super::super) struct Flows {
    remembered: Region,
    said: Said,
    /// By table, with whose it was.
    ports: BTreeMap<u32, (Pool, Said)>,
}

/// What became of what another host said.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Learned {
    /// The programs know these now.
    pub taken: u64,
    /// These they knew, as well or better.
    pub known: u64,
    /// For these was no place, or nobody whom they could go to.
    pub refused: u64,
}

impl Flows {
    /// What is there already is of an earlier run, or of others.
    pub(in super::super) fn new(remembered: Region, pools: &Pools) -> Self {
        let said = Said::new(words_of(&remembered, 0..REMEMBERED_WORDS));
        let mut flows = Self { remembered, said, ports: BTreeMap::new() };
        flows.begin(pools);
        flows
    }

    /// The tables of ports are those of an earlier run.
    pub(in super::super) fn begin(&mut self, pools: &Pools) {
        let known = |(table, pool)| (table, (pool, Said::new(pools.states(table))));
        self.ports = pools.all().map(known).collect();
    }

    /// What was told of a table of ports. One that is another address's now was emptied before.
    fn of(&mut self, table: u32, pool: Pool) -> &mut Said {
        let new = || (pool, Said::new(std::iter::repeat_n(0, POOL_PORTS as usize)));
        let known = self.ports.entry(table).or_insert_with(new);
        if known.0 != pool {
            *known = new();
        }
        &mut known.1
    }
}

fn words_of(region: &Region, range: Range<usize>) -> impl Iterator<Item = u64> {
    region.words(range).iter().map(|word| word.load(Ordering::Relaxed))
}

/// How many words the remembered flows are.
pub(in super::super) const REMEMBERED_WORDS: usize = EXCEPTIONS_MAX as usize * BUCKET_WAYS;

impl Tables {
    fn now(&self) -> u32 {
        halves(self.settings.word(0, TICK).load(Ordering::Relaxed)).0 & TICK_MASK
    }

    /// Remembered flows that are news, `most` of them; the others are next time's.
    pub(in super::super) fn remembered_news(&mut self, most: usize) -> Vec<Remembered> {
        let now = self.now();
        let Flows { remembered: region, said, .. } = &mut self.flows;
        let is_news = |(at, word): &(usize, u64)| {
            let known = Exception::from_word(said.last(*at));
            Exception::from_word(*word).is_some_and(|entry| {
                let same = known.filter(|k| (k.mark, k.identity) == (entry.mark, entry.identity));
                let told = same.filter(|k| k.is_established).map(|k| age(entry.tick, k.tick));
                is_told(&entry, now) && told.is_none_or(|since| REMEMBERED_AGAIN <= since)
            })
        };
        let words = words_of(region, 0..REMEMBERED_WORDS);
        let news: Vec<_> = said.other(0, words).filter(is_news).take(most).collect();
        news.iter().for_each(|&(at, word)| said.tell(at, word));
        news.into_iter().filter_map(|(at, word)| remembered(at, word, now)).collect()
    }

    /// All remembered flows from a place on, `most` of them, and the place after them; none at the end.
    pub(in super::super) fn remembered_from(
        &self,
        from: usize,
        most: usize,
    ) -> (Vec<Remembered>, Option<usize>) {
        let now = self.now();
        let range = from.min(REMEMBERED_WORDS)..REMEMBERED_WORDS;
        let words = (from..).zip(words_of(&self.flows.remembered, range));
        let words = words.filter(|(_, word)| *word != 0);
        let told = |(at, word): (usize, u64)| {
            let entry = Exception::from_word(word).filter(|entry| is_told(entry, now))?;
            remembered(at, entry.to_word(), now).map(|known| (at, known))
        };
        let found: Vec<_> = words.filter_map(told).take(most).collect();
        let next = found.last().filter(|_| found.len() == most).map(|(at, _)| at + 1);
        (found.into_iter().map(|(_, known)| known).collect(), next)
    }

    /// Lets the programs remember flows of another host.
    pub(in super::super) fn remember(&mut self, flows: &[Remembered]) -> Learned {
        let now = self.now();
        let mut learned = Learned::default();
        for flow in flows {
            self.remember_one(flow, now, &mut learned);
        }
        learned
    }

    fn remember_one(&mut self, flow: &Remembered, now: u32, learned: &mut Learned) {
        let Flows { remembered: region, said, .. } = &mut self.flows;
        let tick = now.wrapping_sub(u32::from(flow.idle)) & TICK_MASK;
        let (mark, identity) = (flow.mark, flow.identity);
        let next = Exception { mark, identity, is_established: true, tick };
        if identity == 0 || next.is_outdated(now) {
            learned.refused += 1;
            return;
        }
        let first = usize::from(flow.bucket) * BUCKET_WAYS;
        let mut place = None;
        for way in 0..BUCKET_WAYS {
            let word = region.word(flow.bucket.into(), way).load(Ordering::Relaxed);
            let known = Exception::from_word(word);
            if let Some(known) = known.filter(|known| known.mark == mark) {
                // What a packet was seen of here is known better here.
                let is_older = age(now, known.tick) >= u64::from(flow.idle);
                let is_heard = said.is_heard(first + way, word);
                let gives_way = known.is_outdated(now) || (is_heard && is_older && known != next);
                place = gives_way.then_some((way, word));
                learned.known += u64::from(!gives_way);
                if !gives_way {
                    return;
                }
                break;
            }
            let is_free = known.is_none_or(|known| known.is_outdated(now));
            place = place.or(is_free.then_some((way, word)));
        }
        let Some((way, word)) = place else {
            learned.refused += 1;
            return;
        };
        let (target, next) = (region.word(flow.bucket.into(), way), next.to_word());
        if target.compare_exchange(word, next, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            said.hear(first + way, next);
            learned.taken += 1;
        } else {
            learned.refused += 1;
        }
    }

    /// Flows with a port that are news, `most` of them; the others are next time's.
    pub(in super::super) fn translation_news(&mut self, most: usize) -> Vec<Translation> {
        let now = self.now();
        let mut news = Vec::new();
        for (table, pool) in self.pools.all() {
            let said = self.flows.of(table, pool);
            let is_news = |(at, word): &(usize, u64)| {
                let (was, is) = (PortState(said.last(*at)), PortState(*word));
                let is_as_told =
                    was.is_taken() && (was.mark(), was.signs()) == (is.mark(), is.signs());
                let again = is.lasts(pool.protocol) / PORT_AGAIN;
                stands(is, pool.protocol, now)
                    && !(is_as_told && age(is.tick(), was.tick()) < again.max(1))
            };
            let room = most - news.len().min(most);
            let found: Vec<_> =
                said.other(0, self.pools.states(table)).filter(is_news).take(room).collect();
            for (at, word) in found {
                if let Some(known) = translation(&self.pools, (table, pool), at, word, now) {
                    said.tell(at, word);
                    news.push(known);
                }
            }
        }
        news
    }

    /// All flows with a port from a place on, `most` of them, and the place after them; none at the end.
    pub(in super::super) fn translations_from(
        &self,
        from: usize,
        most: usize,
    ) -> (Vec<Translation>, Option<usize>) {
        let now = self.now();
        let ports = POOL_PORTS as usize;
        let mut found = Vec::new();
        for (table, pool) in self.pools.all() {
            let first = usize::try_from(table).unwrap_or(0) * ports;
            for (at, word) in self.pools.states(table).enumerate() {
                if word == 0 || first + at < from || !stands(PortState(word), pool.protocol, now) {
                    continue;
                }
                if found.len() == most {
                    return (found, Some(first + at));
                }
                found.extend(translation(&self.pools, (table, pool), at, word, now));
            }
        }
        (found, None)
    }

    /// Lets the programs know ports of flows of another host.
    pub(in super::super) fn translate(&mut self, flows: &[Translation]) -> Learned {
        let now = self.now();
        let mut learned = Learned::default();
        for flow in flows {
            match self.translate_one(flow, now) {
                Some(true) => learned.taken += 1,
                Some(false) => learned.known += 1,
                None => learned.refused += 1,
            }
        }
        learned
    }

    /// Whether the flow has the port now and had not; `None`: it cannot have it.
    fn translate_one(&mut self, flow: &Translation, now: u32) -> Option<bool> {
        let claim = self.claim(flow)?;
        let Claim { table, pool, index, at, .. } = claim;
        let said = self.flows.of(table, pool);
        let word = self.pools.state(index).load(Ordering::Acquire);
        let is = PortState(word);
        let tick = now.wrapping_sub(u32::from(flow.idle)) & TICK_MASK;
        let next = PortState::taken(claim.mark(), flow.signs.bits(), tick);
        // What a packet was seen of here is known better here.
        let gives_way = said.is_heard(at, word) && u64::from(flow.idle) <= age(now, is.tick());
        let is_same =
            is.is_taken() && is.mark() == claim.mark() && self.pools.pooled(index) == claim.entry;
        let can_be_taken = gives_way || is.is_free(now, pool.protocol);
        if is_same && (!can_be_taken || is == next) {
            return Some(false);
        }
        let is_wanted = word & PORT_KEPT == 0 && !next.is_free(now, pool.protocol);
        if !can_be_taken || !is_wanted || !self.leave_other_ports(&claim) {
            return None;
        }
        // As the programs take a port: while it is busy, nobody else can.
        let busy = PortState::busy(claim.mark(), now).0;
        let state = self.pools.state(index);
        state.compare_exchange(word, busy, Ordering::SeqCst, Ordering::Relaxed).ok()?;
        self.pools.settle(index, claim.entry);
        state.compare_exchange(busy, next.0, Ordering::SeqCst, Ordering::Relaxed).ok()?;
        self.flows.of(table, pool).hear(at, next.0);
        Some(!is_same)
    }

    /// The port that another host says a flow has, if the programs here would look for the flow there.
    fn claim(&self, flow: &Translation) -> Option<Claim> {
        let protocol = plan::number(flow.protocol);
        let (vip, port) = (flow.vip, flow.seen_as.port());
        let placed = self.service_at(vip, flow.protocol)?;
        let service = &placed.service;
        if service.guard & POOLED == 0 || !(PORT_FIRST..=PORT_LAST).contains(&port) {
            return None;
        }
        let above = vip.port() - service.first;
        let is_it = |&(_, place): &(usize, u32)| {
            let backend = self.backend(place);
            backend.identity != 0
                && IpAddr::from(backend.address) == flow.backend.ip()
                && backend.port.wrapping_add(above) == flow.backend.port()
        };
        let (_, place) = backends_of(service).enumerate().find(is_it)?;
        let identity = self.backend(place).identity;
        let address = flow.seen_as.ip().into();
        let (table, pool) =
            self.pools.all().find(|(_, p)| (p.address, p.protocol) == (address, protocol))?;
        let index = table * POOL_PORTS + u32::from(port);
        let hash = hash_ends(self.seed(), flow.client, vip, protocol);
        let outlets = self.pools.of(placed);
        let bucket = Some(index / BUCKET_WAYS as u32);
        (0..POOL_PROBES).find(|probe| bucket_of(&outlets, hash, *probe) == bucket)?;
        let entry = Pooled { client: flow.client, vip, backend: flow.backend, identity };
        Some(Claim { entry, hash, outlets, table, pool, index, at: port.into() })
    }

    /// The service that a packet for this port is for: of two that have it, the one with fewer.
    fn service_at(&self, vip: SocketAddr, protocol: Protocol) -> Option<&Placed> {
        let key = |first, last| Key { address: vip.ip(), protocol, ports: (first, last) };
        let begun = self.placed.range(key(0, 0)..=key(vip.port(), u16::MAX));
        let here = begun.filter(|(key, _)| vip.port() <= key.ports.1);
        here.min_by_key(|(key, _)| key.ports.1 - key.ports.0).map(|(_, placed)| placed)
    }

    /// Whether the flow has no other port than this one. Of what another host said last, the latest counts.
    fn leave_other_ports(&self, claim: &Claim) -> bool {
        let buckets = (0..POOL_PROBES).filter_map(|p| bucket_of(&claim.outlets, claim.hash, p));
        let ways = BUCKET_WAYS as u32;
        let ports = buckets.flat_map(|bucket| (0..ways).map(move |way| bucket * ways + way));
        ports.filter(|index| *index != claim.index).all(|index| {
            let state = self.pools.state(index);
            let word = state.load(Ordering::Acquire);
            let is = PortState(word);
            let ends = |pooled: &Pooled| (pooled.client, pooled.vip);
            let has_it = is.is_taken()
                && is.mark() == claim.mark()
                && ends(&self.pools.pooled(index)) == ends(&claim.entry);
            let at = usize::try_from(index % POOL_PORTS).unwrap_or(0);
            let said = self.flows.ports.get(&(index / POOL_PORTS));
            let gives_way = || said.is_some_and(|(_, said)| said.is_heard(at, word));
            let free = || state.compare_exchange(word, 0, Ordering::SeqCst, Ordering::Relaxed);
            !has_it || (gives_way() && free().is_ok())
        })
    }
}

/// A flow and its port, as the programs here would find it.
struct Claim {
    entry: Pooled,
    hash: u64,
    outlets: Outlets,
    table: u32,
    pool: Pool,
    /// Of the port, in all tables and in its own.
    index: u32,
    at: usize,
}

impl Claim {
    fn mark(&self) -> u32 {
        halves(self.hash).1
    }
}

/// Whether others are told of it.
const fn is_told(entry: &Exception, now: u32) -> bool {
    entry.is_established && !entry.is_outdated(now)
}

/// Whether others are told of it: a port that was only asked for may be of a flood.
fn stands(state: PortState, protocol: u8, now: u32) -> bool {
    let signs = FlowSigns::from_bits(state.signs());
    let needs = if protocol == plan::number(Protocol::Udp) {
        FlowSigns::ANSWERED
    } else {
        FlowSigns::ESTABLISHED
    };
    state.is_taken() && signs.has(needs) && !state.is_free(now, protocol)
}

fn remembered(at: usize, word: u64, now: u32) -> Option<Remembered> {
    let entry = Exception::from_word(word)?;
    let bucket = u16::try_from(at / BUCKET_WAYS).ok()?;
    let idle = u16::try_from(age(now, entry.tick)).ok()?;
    Some(Remembered { bucket, mark: entry.mark, identity: entry.identity, idle })
}

/// What is written about a port, if it is still the same flow's afterwards.
fn translation(
    pools: &Pools,
    (table, pool): (u32, Pool),
    at: usize,
    word: u64,
    now: u32,
) -> Option<Translation> {
    let port = u16::try_from(at).ok()?;
    let index = table * POOL_PORTS + u32::from(port);
    let Pooled { client, vip, backend, .. } = pools.pooled(index);
    let (was, is) = (PortState(word), PortState(pools.state(index).load(Ordering::Acquire)));
    let tcp = plan::number(Protocol::Tcp);
    let found = Translation {
        protocol: if pool.protocol == tcp { Protocol::Tcp } else { Protocol::Udp },
        client,
        vip,
        backend,
        seen_as: SocketAddr::new(pool.address.into(), port),
        signs: FlowSigns::from_bits(was.signs()),
        idle: u16::try_from(age(now, was.tick())).ok()?,
    };
    (is.is_taken() && is.mark() == was.mark()).then_some(found)
}
