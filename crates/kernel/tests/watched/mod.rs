//! A fast path that is pinned, in a network namespace of its own, so that packets can be captured beside it.
#![allow(dead_code)] // Each test takes what it needs.

use super::world::{permitted, way};
use aya::maps::{Array, Map, MapData};
use buoy_kernel::fast::{Capacity, Fast};
use buoy_model::FastPath;
use buoy_xdp::forward::{LAYOUT, SETTINGS, Settings};
use buoy_xdp::watch::WATCHED;
use nix::sched::{CloneFlags, unshare};
use std::os::unix::fs::MetadataExt;

const WORDS: usize = size_of::<Settings>() / size_of::<u64>();

/// `None`, and a line that says so, where that is not permitted. The thread stays in the namespace.
pub(crate) fn open_pinned(test: &str, path: &FastPath) -> Option<Fast> {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("SKIPPED: {test}: no network namespace: {errno}");
        return None;
    }
    let mut fast = permitted(test, Fast::open(Capacity::of(path)))?;
    assert_eq!(fast.unpinned(), None);
    fast.apply(path, &mut way).unwrap();
    Some(fast)
}

/// Whether the programs are told that somebody captures.
pub(crate) fn is_watched() -> bool {
    let namespace = std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    let path = format!("/sys/fs/bpf/buoy/net-{namespace}/layout-{LAYOUT}/{SETTINGS}");
    let map = Map::from_map_data(MapData::from_pin(path).unwrap()).unwrap();
    let settings: Array<MapData, [u64; WORDS]> = map.try_into().unwrap();
    settings.get(&0, 0).unwrap()[3] >> 32 & WATCHED != 0
}
