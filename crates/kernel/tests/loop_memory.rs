//! Proves that what the loop allocates waits for no other thread: its memory is there, and comes back without a lock.

#![allow(clippy::unwrap_used, clippy::panic)] // All of it is test.

use buoy_kernel::memory::{self, Memory};
use nix::sys::resource::{UsageWho, getrusage};
use std::collections::BTreeMap;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

#[global_allocator]
static MEMORY: Memory = Memory;

const GROUPS: usize = 1000;

fn faults() -> i64 {
    getrusage(UsageWho::RUSAGE_THREAD).unwrap().minor_page_faults()
}

/// As a takeover allocates: a list that grows, a map, and a small block for each group. So many bytes and some.
fn takeover() -> (Vec<[u64; 12]>, BTreeMap<usize, Vec<u8>>, usize) {
    let mut actions = Vec::new();
    (0..3 * GROUPS).for_each(|n| actions.push([n as u64; 12]));
    let map = (0..GROUPS).map(|n| (n, vec![7; 100 + n % 300])).collect();
    (actions, map, 3 * GROUPS * 96 + GROUPS * 100)
}

fn on_the_loop(test: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        assert!(
            memory::claim(GROUPS).unwrap(),
            "one thread of a process has it, and no test ran before"
        );
        test();
    })
    .join()
    .unwrap();
}

/// One test: a process has one loop.
#[test]
fn what_the_loop_allocates_waits_for_no_other_thread() {
    on_the_loop(|| {
        memory_is_there_before_it_is_used();
        what_others_free_is_used_again();
        what_is_used_again_is_as_new();
        more_groups_get_more_room();
        what_others_allocated_is_freed_by_others();
        let is_second = thread::spawn(|| memory::claim(GROUPS).unwrap()).join().unwrap();
        assert!(!is_second);
    });
}

fn memory_is_there_before_it_is_used() {
    let (before, cut) = (faults(), memory::in_use().cut);
    let (actions, map, bytes) = takeover();
    let faults = faults() - before;
    let pages = i64::try_from(bytes / 4096).unwrap();
    // The code itself is touched for the first time, too.
    assert!(faults < pages / 3, "{faults} page faults for {pages} pages");
    assert!(memory::in_use().cut >= cut + bytes, "{:?}", memory::in_use());
    assert!(memory::in_use().cut <= memory::in_use().room, "{:?}", memory::in_use());
    drop((actions, map));
    let cut = memory::in_use().cut;
    drop(takeover());
    assert_eq!(memory::in_use().cut, cut, "what the loop has freed, it takes again");
}

fn what_others_free_is_used_again() {
    let (hand, handed) = sync_channel(0);
    let (done, freed) = channel();
    let other = thread::spawn(move || {
        while let Ok(all) = handed.recv() {
            drop(all);
            done.send(()).unwrap();
        }
    });
    let mut cut = Vec::new();
    for _ in 0..20 {
        hand.send(takeover()).unwrap();
        freed.recv().unwrap();
        cut.push(memory::in_use().cut);
    }
    drop(hand);
    other.join().unwrap();
    // Channels take a block now and then.
    assert!(cut[19] - cut[1] < 4096, "{cut:?}");
}

fn what_is_used_again_is_as_new() {
    for size in [1, 16, 17, 1000, 4096, 5000, 100_000, 1 << 20, (1 << 20) + 1] {
        drop(vec![0xff_u8; size]);
        assert!(vec![0_u8; size].iter().all(|byte| *byte == 0), "{size}");
        let mut grown = vec![3_u8; size];
        grown.extend_from_slice(&[4; 40]);
        grown.shrink_to_fit();
        assert!(grown[..size].iter().all(|byte| *byte == 3), "{size}");
        assert!(grown[size..].iter().all(|byte| *byte == 4), "{size}");
    }
    // A block of the C library that the loop goes on with.
    let mut foreign = thread::spawn(|| vec![5_u8; 300]).join().unwrap();
    foreign.extend_from_slice(&[6; 3000]);
    assert_eq!((foreign[299], foreign[300], foreign.len()), (5, 6, 3300));
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// The C library gives a large block back to the kernel when it is freed.
fn what_others_allocated_is_freed_by_others() {
    const LARGE: usize = 16 << 20;
    let blocks =
        thread::spawn(|| (vec![5_u8; LARGE], [vec![6_u8; 1], vec![7; 300], vec![8; 5000]]));
    let blocks = blocks.join().unwrap();
    let before = resident();
    drop(blocks);
    assert!(resident() + LARGE / 2 > before, "the loop has freed it itself");
    thread::spawn(|| drop(std::hint::black_box(vec![0_u8; 100]))).join().unwrap();
    assert!(resident() + LARGE / 2 < before, "nobody has freed it");
}

fn more_groups_get_more_room() {
    let before = memory::in_use().room;
    memory::make_room(2 * GROUPS);
    assert!(memory::in_use().room > before);
    let room = memory::in_use().room;
    memory::make_room(1);
    assert_eq!(memory::in_use().room, room, "what is there stays");
}
