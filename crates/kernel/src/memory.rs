//! The loop's own memory, so that no allocation of it waits for another thread.
//!
//! What threads of one process share is held by ordinary ones, and on a busy host one that is put aside holds it for
//! tens of milliseconds: the lock of an arena of the C library, which whoever frees what the loop has allocated takes
//! too, and the lock of the process's mappings, which growing an arena, a large block and a page that is touched first
//! take. So one thread, the loop's, has a pool: mapped, touched and locked before it turns, and its lists of free
//! blocks are its own. Other threads put what they free of it on lists beside them, by one atomic exchange, and the
//! loop takes these when its own are empty. What the loop frees that is the C library's, it leaves to them in the same
//! way: the next that allocates frees it.
//!
//! A block is as long as the next power of two, and stays so long for ever. What the pool has no room for, the C
//! library gives: the loop goes on, and may wait. All other threads have the C library as ever.

use crate::sys;
use std::alloc::Layout;
use std::io;

/// Lengths of blocks: 16 bytes, and so many times the double. A larger one is not of the pool.
pub(crate) const CLASSES: usize = 17;
/// The shortest block.
pub(crate) const SHORTEST: usize = 16;
/// No block begins at a multiple of more: a page.
pub(crate) const ALIGNED: usize = 4096;

/// What any cluster takes: buffers, and lists that have room for all groups there may be.
const ROOM_ANY: usize = 512 << 10;
/// What each group takes more: the state of it and of its voters, an answer about it, and all actions of a takeover.
const ROOM_GROUP: usize = 4 << 10;

/// The memory of the program: to be its global allocator.
#[derive(Clone, Copy, Debug)]
pub struct Memory;

/// How much of the pool is in use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Use {
    /// Bytes of blocks that there are, in use or free again.
    pub cut: usize,
    /// Bytes that are there and locked.
    pub room: usize,
}

/// Gives the pool to the calling thread, for ever, with room for so many groups. Only the first thread of a
/// process that asks gets it: whether this one did.
pub fn claim(groups: usize) -> io::Result<bool> {
    sys::claim_pool(room_for(groups))
}

/// Makes room for more groups, on the thread that has the pool; it may take a while.
pub fn make_room(groups: usize) {
    sys::grow_pool(room_for(groups));
}

/// How much of the pool is in use.
pub fn in_use() -> Use {
    let (cut, room) = sys::pool_in_use();
    Use { cut, room }
}

fn room_for(groups: usize) -> usize {
    groups.saturating_mul(ROOM_GROUP).saturating_add(ROOM_ANY)
}

/// Which list has blocks for that; `None`: no block is that long, or so aligned.
pub(crate) const fn class(layout: Layout) -> Option<usize> {
    if layout.align() > ALIGNED || layout.size() > SHORTEST << (CLASSES - 1) {
        return None;
    }
    let mut length = layout.size();
    if length < layout.align() {
        length = layout.align();
    }
    if length < SHORTEST {
        length = SHORTEST;
    }
    Some((length.next_power_of_two() / SHORTEST).trailing_zeros() as usize)
}

/// How long its blocks are.
pub(crate) const fn length(class: usize) -> usize {
    SHORTEST << class
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_long_enough_and_as_aligned_as_asked() {
        let table = [
            (0, 1, Some(16)),
            (1, 1, Some(16)),
            (16, 16, Some(16)),
            (17, 1, Some(32)),
            (1, 64, Some(64)),
            (4096, 4096, Some(4096)),
            (1, 8192, None),
            (1 << 20, 8, Some(1 << 20)),
            ((1 << 20) + 1, 8, None),
        ];
        for (size, align, expected) in table {
            let layout = Layout::from_size_align(size, align).unwrap();
            assert_eq!(class(layout).map(length), expected, "{size} {align}");
        }
    }

    #[test]
    fn room_follows_the_groups() {
        assert_eq!(room_for(1), ROOM_ANY + ROOM_GROUP);
        assert_eq!(room_for(1000), ROOM_ANY + 1000 * ROOM_GROUP);
        assert_eq!(room_for(usize::MAX), usize::MAX);
    }
}
