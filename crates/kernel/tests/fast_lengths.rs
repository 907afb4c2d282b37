//! How much work the fast path is for the verifier, and how long its machine code is: none of it grows unnoticed.
//!
//! Both depend on the kernel and the architecture, so they are compared where they were written down. Bytes of
//! instructions are compared everywhere, by the house rules.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod world;

use buoy_kernel::fast::Length;
use world::{open, path};

const RECORD: &str = include_str!("../../xdp/bpf/lengths.txt");

fn recorded(name: &str) -> Option<(u64, u64)> {
    let line = RECORD.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    let mut words = line.split_whitespace().skip(2).map_while(|word| word.parse().ok());
    Some((words.next()?, words.next()?))
}

fn is_near(now: u32, then: u64) -> bool {
    u64::from(now).abs_diff(then) * 100 <= then * 5
}

#[test]
fn the_verifier_has_no_more_work_than_is_written_down() {
    let test = "the_verifier_has_no_more_work_than_is_written_down";
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let here = format!("kernel {} {}", release.trim(), std::env::consts::ARCH);
    let Some(mut fast) = open(test, &path()) else { return };
    let lengths = fast.lengths().unwrap();
    assert!(lengths.iter().all(|length| 0 < length.translated && 0 < length.compiled));
    if !RECORD.lines().any(|line| line == here) {
        eprintln!("SKIPPED: {test}: written down for another kernel than {here}: {lengths:?}");
        return;
    }
    let is_as_written = |length: &&Length| {
        recorded(length.name).is_some_and(|(verified, compiled)| {
            is_near(length.verified, verified) && is_near(length.compiled, compiled)
        })
    };
    let other: Vec<&Length> = lengths.iter().filter(|length| !is_as_written(length)).collect();
    assert!(
        other.is_empty(),
        "{other:?}: write it in crates/xdp/bpf/lengths.txt, and why in the commit"
    );
}
