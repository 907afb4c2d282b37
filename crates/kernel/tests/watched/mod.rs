//! A fast path that is pinned, in a network namespace of its own, so that packets can be captured beside it.
#![allow(dead_code)] // Each test takes what it needs.

use super::world::{permitted, way};
use buoy_kernel::fast::{Capacity, Fast};
use buoy_model::FastPath;
use nix::sched::{CloneFlags, unshare};

/// `None`, and a line that says so, where that is not permitted. The thread stays in the namespace.
pub(crate) fn open_pinned(test: &str, path: &FastPath) -> Option<Fast> {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("SKIPPED: {test}: no network namespace: {errno}");
        return None;
    }
    // A namespace may have the number of one whose test has failed.
    let _ = Fast::detach_earlier();
    let mut fast = permitted(test, Fast::open(Capacity::of(path)))?;
    assert_eq!(fast.unpinned(), None);
    fast.apply(path, &mut way).unwrap();
    Some(fast)
}
