//! Loads the object with its settings, and takes programs and maps out of it, each with its type.

use super::FastError;
use super::error::refused;
use super::memory::Region;
use super::pins::Pins;
use super::pools::Pools;
use super::sources::Lists;
use super::tables::{Earlier, Regions};
use aya::maps::{Array, IterableMap, Map, MapData};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use buoy_xdp::address::Object;
use buoy_xdp::forward::{
    self, BACKENDS, BUCKETS, CLIENTS, EXCEPTIONS, REVERSE, SERVICES, SETTINGS, SLOTS, SOURCES,
};
use buoy_xdp::pool::{self, OUTLETS, POOLED_PORTS, POOLS, PORTS};
use std::os::fd::{AsFd, AsRawFd};

/// The map can be mapped into memory.
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// Words of the settings.
const SETTINGS_WORDS: usize = size_of::<forward::Settings>() / size_of::<u64>();

/// Loads it with the settings of an earlier run, or new ones: those are kept open until the programs are loaded.
pub(super) fn load(
    loader: &mut EbpfLoader<'_>,
    pins: Option<&Pins>,
) -> Result<(Ebpf, MapData), FastError> {
    let wrong = |reason: String| FastError::Load { reason };
    let settings = match pins.and_then(|pins| pins.earlier(SETTINGS)) {
        Some(settings) => settings,
        None => new_settings(pins)?,
    };
    let number = u32::try_from(settings.fd().as_fd().as_raw_fd());
    let object = Object::new(number.map_err(|e| wrong(e.to_string()))?);
    let programs = loader.load(object.bytes()).map_err(|e| refused(&e))?;
    Ok((programs, settings))
}

fn new_settings(pins: Option<&Pins>) -> Result<MapData, FastError> {
    type Settings = Array<MapData, [u64; SETTINGS_WORDS]>;
    let made = Settings::create(1, BPF_F_MMAPABLE).map_err(|e| refused(&e))?;
    let map = IterableMap::map(&made);
    if let Some(pins) = pins {
        map.pin(pins.map(SETTINGS)).map_err(|e| refused(&e))?;
    }
    let fd = map.fd().as_fd().try_clone_to_owned();
    let fd = fd.map_err(|e| FastError::Load { reason: e.to_string() })?;
    MapData::from_fd(fd).map_err(|e| refused(&e))
}

pub(super) fn regions(programs: &mut Ebpf, settings: MapData) -> Result<Regions, FastError> {
    let words = size_of::<u64>();
    let settings = Region::new(settings, SETTINGS_WORDS)?;
    let mut region = |name, bytes: usize| Region::new(array(programs, name)?, bytes / words);
    Ok(Regions {
        settings,
        buckets: region(BUCKETS, 64)?,
        reverse: region(REVERSE, 64)?,
        services: region(SERVICES, size_of::<forward::Service>())?,
        slots: region(SLOTS, 64)?,
        backends: region(BACKENDS, size_of::<forward::Backend>())?,
        pools: Pools::new(
            region(POOLS, size_of::<pool::Pool>())?,
            region(PORTS, 64)?,
            region(POOLED_PORTS, pool::POOLED_WORDS * words)?,
            region(OUTLETS, size_of::<pool::Outlets>())?,
        ),
        remembered: region(EXCEPTIONS, 64)?,
        clients: region(CLIENTS, 64)?,
        lists: Lists::new(typed(programs, SOURCES)?)?,
    })
}

/// The tables of ports of an earlier run, which go on in larger ones.
pub(super) fn earlier_flows(pins: &Pins) -> Option<Earlier> {
    let region = |name, bytes| Region::new(pins.earlier(name)?, bytes / size_of::<u64>()).ok();
    let pools = [
        region(POOLS, size_of::<pool::Pool>())?,
        region(PORTS, 64)?,
        region(POOLED_PORTS, pool::POOLED_WORDS * size_of::<u64>())?,
    ];
    Some(Earlier { settings: region(SETTINGS, size_of::<forward::Settings>())?, pools })
}

pub(super) fn program<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, FastError> {
    let missing = || FastError::Load { reason: format!("there is no `{name}` in it") };
    programs.program_mut(name).and_then(|p| p.try_into().ok()).ok_or_else(missing)
}

fn take(programs: &mut Ebpf, name: &str) -> Result<Map, FastError> {
    let missing = || FastError::Load { reason: format!("there is no map `{name}` in it") };
    programs.take_map(name).ok_or_else(missing)
}

pub(super) fn typed<T: TryFrom<Map>>(programs: &mut Ebpf, name: &str) -> Result<T, FastError> {
    let wrong = |_| FastError::Load { reason: format!("its map `{name}` is of another type") };
    take(programs, name)?.try_into().map_err(wrong)
}

fn array(programs: &mut Ebpf, name: &str) -> Result<MapData, FastError> {
    let Map::Array(map) = take(programs, name)? else {
        return Err(FastError::Load { reason: format!("its map `{name}` is not an array") });
    };
    Ok(map)
}
