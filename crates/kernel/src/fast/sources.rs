//! The lists of clients in their trie: services that have equal ones share one.
//!
//! A list is never changed. Another one is written whole under a number that nobody has, before a service
//! leads to it; the one before goes when no program can look at it any more.

use super::FastError;
use super::error::refused;
use aya::maps::MapData;
use aya::maps::lpm_trie::{Key, LpmTrie};
use buoy_model::limits::FAST_SOURCES_MAX;
use buoy_model::{Cidr, SourceRule, Sources};
use buoy_xdp::forward::{
    Address, SOURCE_ALLOWED, SOURCE_OTHERS, SOURCES_MAX, source_bits, source_key,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const _: () = assert!(SOURCES_MAX == FAST_SOURCES_MAX);

/// Prefixes in the trie, with what is said of them.
type Trie = LpmTrie<MapData, [u8; 20], u32>;

pub(super) struct Lists {
    trie: Trie,
    /// By their numbers, which begin with 1.
    lists: BTreeMap<u32, List>,
}

struct List {
    /// How many services lead to it.
    users: u32,
    sources: Arc<Sources>,
    /// All of it is in the trie, and nothing else.
    is_whole: bool,
}

impl Lists {
    /// With what an earlier run has left.
    pub(super) fn new(trie: Trie) -> Result<Self, FastError> {
        let mut left: BTreeMap<u32, (usize, Vec<SourceRule>)> = BTreeMap::new();
        for entry in trie.iter() {
            let (key, value) = entry.map_err(|e| refused(&e))?;
            let (number, rule) = read(&key, value);
            let (count, rules) = left.entry(number).or_default();
            *count += 1;
            rules.extend(rule.filter(|_| value & SOURCE_OTHERS == 0));
        }
        let list = |(number, (count, rules))| {
            let sources = Arc::new(Sources::new(rules).unwrap_or_default());
            let is_whole = !sources.is_empty() && entries(&sources).len() == count;
            (number, List { users: 0, sources, is_whole })
        };
        Ok(Self { trie, lists: left.into_iter().map(list).collect() })
    }

    /// Knows again the list of a service of an earlier run; whether it is there, and whole.
    pub(super) fn adopt(&mut self, number: u32) -> bool {
        let Some(list) = self.lists.get_mut(&number).filter(|list| list.is_whole) else {
            return number == 0;
        };
        list.users += 1;
        true
    }

    /// What no service leads to is of a run that ended before it was used, or after.
    pub(super) fn clear_unknown(&mut self) {
        let unknown = self.lists.iter().filter(|(_, list)| list.users == 0);
        for number in unknown.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.remove(number);
        }
    }

    /// The number of a list, written if it is not there yet; `None` where there is no room for it.
    pub(super) fn place(&mut self, sources: &Arc<Sources>) -> Option<u32> {
        if sources.is_empty() {
            return Some(0);
        }
        let like = self.lists.iter_mut().find(|(_, list)| is_same(&list.sources, sources));
        if let Some((number, list)) = like {
            list.users += 1;
            return Some(*number);
        }
        let number =
            self.lists.last_key_value().map_or(Some(1), |(last, _)| last.checked_add(1))?;
        let list = List { users: 1, sources: Arc::clone(sources), is_whole: true };
        self.lists.insert(number, list);
        for (address, length, value) in entries(sources) {
            let key = Key::new(source_bits(address, length), source_key(number, address));
            if self.trie.insert(&key, value, 0).is_err() {
                self.remove(number);
                return None;
            }
        }
        Some(number)
    }

    /// No program looks any more at one service that has it.
    pub(super) fn release(&mut self, number: u32) {
        let Some(list) = self.lists.get_mut(&number) else { return };
        list.users -= 1;
        if list.users == 0 {
            self.remove(number);
        }
    }

    /// What a service has.
    pub(super) fn get(&self, number: u32) -> Arc<Sources> {
        self.lists.get(&number).map(|list| Arc::clone(&list.sources)).unwrap_or_default()
    }

    /// Whether a service that has this list has what is wanted.
    pub(super) fn is(&self, number: u32, wanted: &Arc<Sources>) -> bool {
        let list = self.lists.get(&number);
        list.map_or_else(|| wanted.is_empty(), |list| is_same(&list.sources, wanted))
    }

    fn remove(&mut self, number: u32) {
        let Some(list) = self.lists.remove(&number) else { return };
        let keys: Vec<_> = if list.is_whole {
            let key = |(address, length, _)| {
                Key::new(source_bits(address, length), source_key(number, address))
            };
            entries(&list.sources).into_iter().map(key).collect()
        } else {
            self.trie.keys().flatten().filter(|key| list_of(&key.data()) == number).collect()
        };
        for key in keys {
            // What is not there need not go.
            let _ = self.trie.remove(&key);
        }
    }
}

/// Whether two lists say the same: seen at once where they are one.
pub(super) fn is_same(one: &Arc<Sources>, other: &Arc<Sources>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

/// What lies in the trie for a list: its rules, and what holds for all others of each family, since a prefix
/// of IPv6 around the addresses that stand for IPv4 says nothing of them.
fn entries(sources: &Sources) -> Vec<(IpAddr, u8, u32)> {
    let value = |allows: bool| if allows { SOURCE_ALLOWED } else { 0 };
    let rule =
        |rule: &SourceRule| (rule.prefix.address(), rule.prefix.prefix(), value(rule.allows));
    let mut all: Vec<_> = sources.rules().iter().map(rule).collect();
    for family in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
        let is_said = all.iter().any(|(address, length, _)| (*address, *length) == (family, 0));
        if !is_said {
            all.push((family, 0, SOURCE_OTHERS | value(sources.allows_others())));
        }
    }
    all
}

const fn list_of(data: &[u8; 20]) -> u32 {
    u32::from_le_bytes([data[0], data[1], data[2], data[3]])
}

/// What an entry of an earlier run says, if it is of an address.
fn read(key: &Key<[u8; 20]>, value: u32) -> (u32, Option<SourceRule>) {
    let data = key.data();
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| data[at + byte]));
    let address = IpAddr::from(Address { high: word(4), low: word(12) });
    let above = source_bits(address, 0);
    let length = key.prefix_len().checked_sub(above).and_then(|length| u8::try_from(length).ok());
    let rule = length.and_then(|length| {
        Some(SourceRule {
            prefix: Cidr::new(address, length)?,
            allows: value & SOURCE_ALLOWED != 0,
        })
    });
    (list_of(&data), rule)
}
