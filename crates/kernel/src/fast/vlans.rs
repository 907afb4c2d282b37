//! The VLANs that this host has an interface for, in their map: frames of those are that interface's.

use super::FastError;
use super::error::refused;
use aya::maps::{HashMap, MapData};
use buoy_model::LinkId;
use buoy_xdp::forward::vlan_key;
use std::collections::BTreeSet;

/// By the interface that frames with the tag come in by, and the VLAN's number.
pub type Vlan = (LinkId, u16);

pub(super) struct Vlans {
    map: HashMap<MapData, [u8; 8], u32>,
    /// What is in the map.
    known: BTreeSet<Vlan>,
}

impl Vlans {
    /// With what an earlier run has left.
    pub(super) fn new(map: HashMap<MapData, [u8; 8], u32>) -> Result<Self, FastError> {
        let known = map.keys().map(|key| key.map(|key| read(&key)).map_err(|e| refused(&e)));
        let known = known.collect::<Result<_, _>>()?;
        Ok(Self { map, known })
    }

    /// These, and no others.
    pub(super) fn set(&mut self, vlans: &BTreeSet<Vlan>) -> Result<(), FastError> {
        for gone in self.known.difference(vlans) {
            self.map.remove(&key(*gone)).map_err(|e| refused(&e))?;
        }
        for new in vlans.difference(&self.known) {
            self.map.insert(key(*new), 1, 0).map_err(|e| refused(&e))?;
        }
        self.known.clone_from(vlans);
        Ok(())
    }
}

fn key((link, id): Vlan) -> [u8; 8] {
    vlan_key(link.0, id.into())
}

fn read(key: &[u8; 8]) -> Vlan {
    let [a, b, c, d, low, high, _, _] = *key;
    (LinkId(u32::from_le_bytes([a, b, c, d])), u16::from_le_bytes([low, high]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        for vlan in [(LinkId(1), 1), (LinkId(u32::MAX), 4094), (LinkId(0x1020_3040), 0x0102)] {
            assert_eq!(read(&key(vlan)), vlan);
        }
    }
}
