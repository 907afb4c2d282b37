//! Makes the calling thread run when it must: in memory, before ordinary threads, on time.

use crate::{program, sys};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use std::{fmt, fs};

/// Above ordinary threads, and below the kernel's own at 99 and its interrupt threads at 50.
const PRIORITY: i32 = 49;
/// Before ordinary threads, and behind every loop of this host: what is done beside it is not to hold it up.
const BESIDE: i32 = PRIORITY - 1;
/// Deeper than the loop's calls go.
const LOOP_STACK: usize = 256 << 10;
/// Deeper than the supervisor's calls go: it looks, says goodbye, and takes addresses off.
const SUPERVISOR_STACK: usize = 96 << 10;
/// The smallest page of any machine.
const PAGE: usize = 4096;
const CAP_IPC_LOCK: u64 = 1 << 14;

/// What the thread got of what it asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Realtime {
    /// The program, and all memory that the process has touched, stay in RAM.
    pub locked: Result<(), Missing>,
    /// The thread runs under `SCHED_FIFO`.
    pub priority: Result<(), Missing>,
}

/// Something that was not granted: why, and what to do about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Missing(String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Asks for all of it, for the loop's thread; goes on with what it gets.
pub fn enter() -> Realtime {
    enter_with(touch_stack::<LOOP_STACK>)
}

/// The same for the supervisor, whose process has one thread.
pub fn enter_supervisor() -> Realtime {
    enter_with(touch_stack::<SUPERVISOR_STACK>)
}

fn enter_with(touch_stack: fn()) -> Realtime {
    // Timers of ordinary threads may be 50 us late to save power.
    let _ = prctl::set_timerslack(1);
    // What the start has freed: the C library cannot give back what is locked.
    sys::trim_heap();
    Realtime { locked: lock(touch_stack), priority: schedule(PRIORITY) }
}

fn lock(touch_stack: fn()) -> Result<(), Missing> {
    // With a finite limit the lock would succeed now and make a later allocation fail.
    if !may_lock_everything() {
        return Err(Missing(
            "memory is not locked, so a host that swaps can delay a heartbeat: give \
             CAP_IPC_LOCK, or LimitMEMLOCK=infinity"
                .to_owned(),
        ));
    }
    lock_touched()?;
    touch_stack();
    // What a takeover runs may not have run yet when its host is short of memory.
    program::keep().map_err(|error| not_locked(&error))
}

fn lock_touched() -> Result<(), Missing> {
    // What has been touched stays. All that is mapped would be each thread's whole stack, and every arena of the heap.
    let on_fault = MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
    let all = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault;
    mlockall(all).map_err(|errno| not_locked(&errno.desc()))
}

fn not_locked(why: &dyn fmt::Display) -> Missing {
    Missing(format!("memory is not locked: {why} (a container's memory limit?)"))
}

/// The deepest call of the thread finds its stack in memory.
#[inline(never)]
fn touch_stack<const DEPTH: usize>() {
    let mut stack = [0_u8; DEPTH];
    stack.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    std::hint::black_box(&mut stack);
}

/// Puts the calling thread before ordinary ones, and behind the loop.
pub(crate) fn schedule_beside() -> Result<(), Missing> {
    schedule(BESIDE)
}

fn schedule(priority: i32) -> Result<(), Missing> {
    sys::schedule_fifo(priority).map_err(|error| {
        Missing(format!(
            "the loop runs as an ordinary thread, so a busy host can delay a heartbeat: {error}: \
             give CAP_SYS_NICE, or LimitRTPRIO={PRIORITY}"
        ))
    })
}

fn may_lock_everything() -> bool {
    let unlimited =
        getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY);
    unlimited || (has_capability(CAP_IPC_LOCK) && in_first_user_namespace())
}

fn has_capability(capability: u64) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|bits| bits & capability != 0)
}

/// In another one the capabilities are the namespace's own, and locking is not among them.
fn in_first_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_locked_is_the_program_and_not_what_was_never_touched() {
        if enter().locked.is_err() {
            return;
        }
        let never_touched = Vec::<u8>::with_capacity(64 << 20);
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
        };
        let program = fs::metadata("/proc/self/exe").unwrap().len() as usize >> 10;
        assert!(program / 4 < kib("VmRSS:"), "{status}");
        assert!(kib("VmRSS:") < program + (48 << 10), "{status}");
        drop(never_touched);
    }

    #[test]
    fn memory_that_is_free_again_is_given_back_before_the_rest_is_locked() {
        let blocks: Vec<Vec<u8>> = (0..1000).map(|_| vec![1; 16 << 10]).collect();
        let last = blocks.last().cloned();
        let kib = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
        };
        let before = kib();
        drop(blocks);
        let _ = enter();
        assert!(kib() + (12 << 10) < before, "{} KiB, and before {before}", kib());
        assert_eq!(last.map(|block| block.len()), Some(16 << 10));
    }

    #[test]
    fn what_is_not_granted_says_what_to_give() {
        let Realtime { locked, priority } = enter();
        if let Err(missing) = &locked {
            assert!(missing.to_string().starts_with("memory is not locked"), "{missing}");
        }
        if let Err(missing) = &priority {
            assert!(missing.to_string().contains("CAP_SYS_NICE"), "{missing}");
        }
        let policy = fs::read_to_string("/proc/thread-self/sched").unwrap_or_default();
        let fifo = policy.lines().any(|l| l.starts_with("policy") && l.ends_with(" 1"));
        assert_eq!(fifo, priority.is_ok() && !policy.is_empty());
    }
    #[test]
    fn what_is_done_beside_the_loop_runs_behind_it() {
        let priority = || {
            let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
            // proc_pid_stat(5): the name in brackets is field 2, the priority field 40.
            let (_, rest) = stat.rsplit_once(") ").unwrap();
            rest.split(' ').nth(37).unwrap().parse::<i32>().unwrap()
        };
        let ordered = std::thread::spawn(move || schedule_beside().map(|()| priority()));
        let turning = std::thread::spawn(move || enter().priority.map(|()| priority()));
        let (beside, turns) = (ordered.join().unwrap(), turning.join().unwrap());
        if let (Ok(beside), Ok(turns)) = (beside, turns) {
            assert!(0 < beside && beside < turns, "{beside} {turns}");
        }
    }
}
