//! Reads the gate that an earlier run left standing, of this release or of the one before.

use super::entries::{Key, Slots};
use aya::maps::{Array, HashMap, Map, MapData, MapInfo};
use aya::programs::loaded_programs;
use buoy_xdp::{
    GATE_DEADLINES_V1, GATE_ENTRIES, GATE_GUARD_TRAFFIC, GATE_LEASE_MASK, GATE_LEASES,
    GATE_LEASES_LEN, GATE_SLOTS, GateEntry,
};

/// What a program that is attached already lets pass and until when, as entries of their own: the
/// process that renewed its shared leases is gone. `None`: its maps are of a form not known here.
pub(super) fn entries(program: u32) -> Option<Vec<(Key, GateEntry)>> {
    let info = loaded_programs().flatten().find(|info| info.id() == program)?;
    let maps = info.map_ids().ok()??;
    now(&maps).or_else(|| before(&maps))
}

/// The form that this release has.
fn now(maps: &[u32]) -> Option<Vec<(Key, GateEntry)>> {
    let slots: Slots = HashMap::try_from(Map::HashMap(named(maps, GATE_SLOTS)?)).ok()?;
    let entries: Array<MapData, [u64; 4]> =
        Array::try_from(Map::Array(named(maps, GATE_ENTRIES)?)).ok()?;
    let leases: Array<MapData, [u64; 2]> =
        Array::try_from(Map::Array(named(maps, GATE_LEASES)?)).ok()?;
    let mut shared = [[0; 2]; GATE_LEASES_LEN];
    for (index, lease) in (0..).zip(&mut shared) {
        *lease = leases.get(&index, 0).ok()?;
    }
    let closed = shared[0][0] != 0;
    let mut found = Vec::new();
    for (key, slot) in slots.iter().flatten() {
        let [deadline, until, _, rule] = entries.get(&slot, 0).ok()?;
        let lease = match usize::try_from(rule & GATE_LEASE_MASK).ok()? {
            0 => [0; 2],
            index => *shared.get(index)?,
        };
        let deadline = if closed { 0 } else { deadline.max(lease[0]) };
        let entry = GateEntry {
            deadline,
            until: until.max(lease[1]),
            first_packet: 0,
            rule: rule & GATE_GUARD_TRAFFIC,
        };
        found.push((key, entry));
    }
    Some(found)
}

/// The form of the first release: an address led straight to its deadline and its stale bound.
fn before(maps: &[u32]) -> Option<Vec<(Key, GateEntry)>> {
    let deadlines: HashMap<MapData, Key, [u64; 2]> =
        HashMap::try_from(Map::HashMap(named(maps, GATE_DEADLINES_V1)?)).ok()?;
    let entry = |[deadline, until]: [u64; 2]| GateEntry { deadline, until, ..GateEntry::default() };
    Some(deadlines.iter().flatten().map(|(key, words)| (key, entry(words))).collect())
}

fn named(maps: &[u32], name: &str) -> Option<MapData> {
    let is_it =
        |id: &&u32| MapInfo::from_id(**id).is_ok_and(|info| info.name_as_str() == Some(name));
    MapData::from_id(*maps.iter().find(is_it)?).ok()
}

#[cfg(test)]
#[path = "earlier_tests.rs"]
mod tests;
