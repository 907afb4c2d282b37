//! The blocks of the loop's own memory (`memory`), as the program's global allocator.

use crate::memory::{ALIGNED, CLASSES, Memory, class, length};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};

/// Addresses for the pool of one thread (`memory`); only what is asked for is touched, and so there.
const POOL: usize = 64 << 20;

/// Blocks of the pool: `free` and `cut` belong to the one thread that has it, `returned` to all.
struct Pool {
    start: AtomicPtr<u8>,
    /// Bytes from the start that are cut into blocks.
    cut: AtomicUsize,
    /// Bytes from the start that were touched.
    touched: AtomicUsize,
    free: [AtomicPtr<u8>; CLASSES],
    returned: [AtomicPtr<u8>; CLASSES],
}

static POOL_OF_THE_LOOP: Pool = Pool {
    start: AtomicPtr::new(null_mut()),
    cut: AtomicUsize::new(0),
    touched: AtomicUsize::new(0),
    free: [const { AtomicPtr::new(null_mut()) }; CLASSES],
    returned: [const { AtomicPtr::new(null_mut()) }; CLASSES],
};

/// Blocks of the C library that the loop has done with, for others to free: to free one is to take a lock that they hold.
static LEFT_TO_OTHERS: AtomicPtr<Left> = AtomicPtr::new(null_mut());

/// What is written into such a block.
struct Left {
    next: *mut Left,
    layout: Layout,
}

thread_local! {
    /// Whether this thread has the pool. It is no more than a byte: to ask for it allocates nothing.
    static HAS_POOL: Cell<bool> = const { Cell::new(false) };
}

/// Gives the pool to the calling thread, if no other has it.
pub(crate) fn claim_pool(room: usize) -> io::Result<bool> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Relaxed) {
        return Ok(false);
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the kernel chooses the place, so no memory in use is replaced.
    let start = unsafe { libc::mmap(null_mut(), POOL, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    POOL_OF_THE_LOOP.start.store(start.cast(), Release);
    HAS_POOL.set(true);
    grow_pool(room);
    Ok(true)
}

/// Touches so much of the pool, if this thread has it.
pub(crate) fn grow_pool(room: usize) {
    let pool = &POOL_OF_THE_LOOP;
    let from = pool.touched.load(Relaxed).max(pool.cut.load(Relaxed));
    if !HAS_POOL.get() || room <= from {
        return;
    }
    let room = room.min(POOL);
    for at in (from..room).step_by(ALIGNED) {
        // SAFETY: inside of what `claim_pool` mapped, and past all that was ever given to anybody.
        unsafe { pool.start.load(Relaxed).add(at).write_volatile(0) };
    }
    pool.touched.store(room, Relaxed);
}

/// Bytes that are cut into blocks, and that were touched.
pub(crate) fn pool_in_use() -> (usize, usize) {
    let pool = &POOL_OF_THE_LOOP;
    (pool.cut.load(Relaxed), pool.touched.load(Relaxed))
}

impl Pool {
    fn has(&self, block: *mut u8) -> bool {
        let start = self.start.load(Acquire);
        !start.is_null() && block.addr().wrapping_sub(start.addr()) < POOL
    }

    /// For the thread that has the pool; null where there is no room.
    fn take(&self, class: usize) -> *mut u8 {
        let mut first = self.free[class].load(Relaxed);
        if first.is_null() {
            // All of them at once: none can come back between looking at the first and taking it.
            first = self.returned[class].swap(null_mut(), Acquire);
        }
        if first.is_null() {
            return self.cut(class);
        }
        // SAFETY: a block of a list is nobody's, at least 16 bytes long and so aligned, and begins with the next one.
        let next = unsafe { first.cast::<*mut u8>().read() };
        self.free[class].store(next, Relaxed);
        first
    }

    fn cut(&self, class: usize) -> *mut u8 {
        let at = self.cut.load(Relaxed).next_multiple_of(length(class).min(ALIGNED));
        let end = at + length(class);
        if end > POOL {
            return null_mut();
        }
        self.cut.store(end, Relaxed);
        // SAFETY: inside of what `claim_pool` mapped, which stays.
        unsafe { self.start.load(Relaxed).add(at) }
    }

    fn give_back(&self, class: usize, block: *mut u8) {
        let is_own = HAS_POOL.get();
        let list = if is_own { &self.free[class] } else { &self.returned[class] };
        let mut next = list.load(Relaxed);
        loop {
            // SAFETY: whoever gives a block back has done with it, and it is long enough and so aligned.
            unsafe { block.cast::<*mut u8>().write(next) };
            match list.compare_exchange_weak(next, block, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => next = now,
            }
        }
    }
}

/// As the C library is asked for it: with room for `Left`, which its smallest block has anyway.
fn outside(layout: Layout) -> Layout {
    let (size, align) =
        (layout.size().max(size_of::<Left>()), layout.align().max(align_of::<Left>()));
    Layout::from_size_align(size, align).unwrap_or(layout)
}

/// Leaves a block of the C library, asked for with this layout, to the next other thread that allocates.
fn leave_to_others(block: *mut u8, layout: Layout) {
    let left = block.cast::<Left>();
    let mut next = LEFT_TO_OTHERS.load(Relaxed);
    loop {
        // SAFETY: who frees a block has done with it, and `outside` made it long enough and so aligned.
        unsafe { left.write(Left { next, layout }) };
        match LEFT_TO_OTHERS.compare_exchange_weak(next, left, Release, Relaxed) {
            Ok(_) => return,
            Err(now) => next = now,
        }
    }
}

/// Frees what was left.
fn free_left() {
    if LEFT_TO_OTHERS.load(Relaxed).is_null() {
        return;
    }
    // All of them at once, so that each is one thread's.
    let mut left = LEFT_TO_OTHERS.swap(null_mut(), Acquire);
    while !left.is_null() {
        // SAFETY: `leave_to_others` wrote it, and the list was taken from all others.
        let Left { next, layout } = unsafe { left.read() };
        // SAFETY: a block of the C library, asked for with this layout, that nobody has any more.
        unsafe { System.dealloc(left.cast(), layout) };
        left = next;
    }
}

// SAFETY: a block of the pool is as long and as aligned as its class, which the layout alone decides, and is in one
// list or somebody's, never both. All else is the C library's.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !HAS_POOL.get() {
            free_left();
        } else if let Some(class) = class(layout) {
            let block = POOL_OF_THE_LOOP.take(class);
            if !block.is_null() {
                return block;
            }
        }
        // SAFETY: the caller's promise, and no shorter.
        unsafe { System.alloc(outside(layout)) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class(layout) {
            Some(class) if POOL_OF_THE_LOOP.has(block) => POOL_OF_THE_LOOP.give_back(class, block),
            Some(_) | None if HAS_POOL.get() => leave_to_others(block, outside(layout)),
            // SAFETY: the caller's promise, and no block of the pool.
            Some(_) | None => unsafe { System.dealloc(block, outside(layout)) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !HAS_POOL.get() {
            free_left();
            // SAFETY: the caller's promise, and no shorter.
            return unsafe { System.alloc_zeroed(outside(layout)) };
        }
        // SAFETY: the caller's promise.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: it was just given, so long at least.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise: the size is no larger than an `isize` when it is aligned.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let is_pool = POOL_OF_THE_LOOP.has(block);
        if !is_pool && !HAS_POOL.get() {
            // SAFETY: the caller's promise, and no block of the pool.
            return unsafe { System.realloc(block, outside(layout), outside(new).size()) };
        }
        if is_pool && class(new) == class(layout) {
            return block;
        }
        // SAFETY: the caller's promise.
        let to = unsafe { self.alloc(new) };
        if !to.is_null() {
            // SAFETY: both are so long at least, and not the same.
            unsafe { to.copy_from_nonoverlapping(block, layout.size().min(size)) };
            // SAFETY: the caller has done with the old one.
            unsafe { self.dealloc(block, layout) };
        }
        to
    }
}
