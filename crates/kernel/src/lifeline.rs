//! What the agent's loop shares with its supervisor, so that its death is seen at once.
//!
//! A few pages of memory that both processes map. The loop's thread holds a robust futex in it: when
//! the thread dies, of whatever cause, the kernel marks the futex and wakes the supervisor, before
//! it frees the memory of the process. (A pipe, a socket and a pidfd all wait for that: 10 ms where
//! 64 MiB are in use, 50 ms where 256 MiB are.) The time that the loop notes every turn tells a hung
//! loop from a living one, and until when nobody has to look. The goodbyes to the peers lie ready, sealed, each under a
//! sequence lock: one that the loop was just writing when it died is never sent.
//!
//! No clock can be stepped here: the loop notes `CLOCK_BOOTTIME`, and the supervisor sleeps by
//! `CLOCK_MONOTONIC`.

use crate::{clock, sys};
use buoy_model::Instant;
use buoy_model::limits::{LEGS_MAX, NODES_MAX};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Pid, ftruncate, gettid};
use std::fmt;
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

/// Goodbyes that can lie ready: one for each peer and leg.
pub const GOODBYES_MAX: usize = NODES_MAX * LEGS_MAX;
const NANOS_PER_MICRO: u64 = 1000;
/// Functions of the kernel that are named of a thread that stands still.
const CALLS_MAX: usize = 6;
/// Bytes of the longest goodbye.
pub const GOODBYE_LEN_MAX: usize = 256;

// Where things are, in words of 32 bits.
const ROBUST_HEAD: usize = 0; // struct robust_list_head: three pointers
const ROBUST_ENTRY: usize = 6; // struct robust_list: one pointer
const FUTEX: usize = 8;
const ENDED: usize = 9;
const TURNED_US: usize = 10; // goes round after 71 minutes
const PATIENCE_US: usize = 11;
const LEGS: usize = 16;
const GOODBYES: usize = LEGS + LEGS_MAX * ADDRESS_LEN;
const WORDS: usize = GOODBYES + GOODBYES_MAX * GOODBYE_WORDS;

const ADDRESS_LEN: usize = 7; // family, port, scope, four words of address

// One goodbye: its sequence lock, its length, its address, its bytes.
const LOCK: usize = 0;
const LENGTH: usize = 1;
const ADDRESS: usize = 2;
const BYTES: usize = ADDRESS + ADDRESS_LEN;
const GOODBYE_WORDS: usize = BYTES + GOODBYE_LEN_MAX / 4;

const _: () = assert!(ROBUST_HEAD + 3 * size_of::<usize>() / 4 <= ROBUST_ENTRY);
const _: () = assert!(ROBUST_ENTRY + size_of::<usize>() / 4 <= FUTEX && PATIENCE_US < LEGS);

/// Why a lifeline cannot be had.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LifelineError {
    /// The kernel gives no shared memory.
    Memory(Errno),
    /// What was handed over is not a lifeline of this version.
    Foreign,
    /// Another thread holds it.
    Held,
    /// The kernel takes no list of robust futexes.
    Robust(Errno),
    /// A process cannot be watched.
    Process(Errno),
}

impl fmt::Display for LifelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(errno) => write!(f, "no memory to share (memfd): {}", errno.desc()),
            Self::Foreign => f.write_str("what was handed over is not a lifeline of this version"),
            Self::Held => f.write_str("another thread holds the lifeline already"),
            Self::Robust(errno) => write!(f, "no robust futex: {}", errno.desc()),
            Self::Process(errno) => write!(f, "the agent cannot be watched: {}", errno.desc()),
        }
    }
}

impl std::error::Error for LifelineError {}

/// The shared memory, as the agent makes it.
#[derive(Debug)]
pub struct Lifeline {
    words: &'static [AtomicU32],
    file: OwnedFd,
}

impl Lifeline {
    /// Fresh memory, of a length that nobody can change. It stays mapped until the process ends.
    pub fn create() -> Result<Self, LifelineError> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"buoy-lifeline", flags).map_err(LifelineError::Memory)?;
        let length = i64::try_from(size_of::<[u32; WORDS]>()).unwrap_or(0);
        ftruncate(&file, length).map_err(LifelineError::Memory)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals())).map_err(LifelineError::Memory)?;
        let words = map(&file)?;
        Ok(Self { words, file })
    }

    /// Says from which addresses this host speaks, by leg.
    pub fn set_legs(&self, legs: impl IntoIterator<Item = SocketAddr>) {
        for (leg, address) in legs.into_iter().take(LEGS_MAX).enumerate() {
            write_address(&self.words[LEGS + leg * ADDRESS_LEN..][..ADDRESS_LEN], Some(address));
        }
    }

    /// Makes the calling thread the one whose death counts, from now until it ends or says `end`.
    pub fn hold(&self) -> Result<Hold, LifelineError> {
        let words = self.words;
        if words[FUTEX].load(Ordering::Relaxed) & libc::FUTEX_TID_MASK != 0 {
            return Err(LifelineError::Held);
        }
        // The list has one entry. `futex_offset` leads from it to its futex, and nothing is pending.
        let (head, entry) = (place(words, ROBUST_HEAD), place(words, ROBUST_ENTRY));
        let pointers = [entry, place(words, FUTEX) - entry, 0];
        for (i, pointer) in pointers.into_iter().enumerate() {
            write_pointer(&words[ROBUST_HEAD..], i, pointer);
        }
        write_pointer(&words[ROBUST_ENTRY..], 0, head);
        sys::set_robust_list(words).map_err(|e| LifelineError::Robust(errno(&e)))?;
        // Not a plain store: a supervisor may have noted that it waits.
        words[FUTEX].fetch_or(gettid().as_raw().cast_unsigned(), Ordering::Release);
        Ok(Hold { words, on_this_thread: PhantomData })
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The loop's end. It belongs to the thread that took it.
#[derive(Debug)]
pub struct Hold {
    words: &'static [AtomicU32],
    on_this_thread: PhantomData<*const ()>,
}

/// A goodbye is longer than there is room for, or there is no such place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoRoom;

impl Hold {
    /// The loop turns at this moment: to be called every turn.
    pub fn beat(&self, now: Instant) {
        self.words[TURNED_US].store(micros(now), Ordering::Relaxed);
    }

    /// For how long the turns may stand still before the loop counts as hung.
    pub fn set_patience(&self, patience: Duration) {
        let micros = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
        self.words[PATIENCE_US].store(micros, Ordering::Relaxed);
    }

    /// Keeps a sealed goodbye ready in this place (`peer * LEGS_MAX + leg`).
    pub fn set_goodbye(&self, slot: usize, to: SocketAddr, sealed: &[u8]) -> Result<(), NoRoom> {
        if sealed.len() > GOODBYE_LEN_MAX {
            return Err(NoRoom);
        }
        let length = u32::try_from(sealed.len()).unwrap_or(0);
        let words = self.goodbye(slot)?;
        locked(words, || {
            words[LENGTH].store(length, Ordering::Relaxed);
            write_address(&words[ADDRESS..BYTES], Some(to));
            for (word, bytes) in words[BYTES..].iter().zip(sealed.chunks(4)) {
                let mut padded = [0; 4];
                padded[..bytes.len()].copy_from_slice(bytes);
                word.store(u32::from_ne_bytes(padded), Ordering::Relaxed);
            }
        });
        Ok(())
    }

    /// Nothing is to be said there any more.
    pub fn clear_goodbye(&self, slot: usize) -> Result<(), NoRoom> {
        let words = self.goodbye(slot)?;
        locked(words, || words[LENGTH].store(0, Ordering::Relaxed));
        Ok(())
    }

    /// The orderly end: everything is given away, so the supervisor has nothing to do but end too.
    pub fn end(self) {
        self.words[ENDED].store(1, Ordering::Release);
        sys::futex_wake(&self.words[FUTEX]);
    }

    fn goodbye(&self, slot: usize) -> Result<&'static [AtomicU32], NoRoom> {
        goodbyes(self.words).nth(slot).ok_or(NoRoom)
    }
}

/// What the supervisor sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    /// The loop's thread is dead, and had not said that it would end.
    Died,
    /// The agent ended in order.
    Ended,
    /// The loop lives, and turned last at this moment.
    Alive(Instant),
}

/// The supervisor's end.
#[derive(Debug)]
pub struct Watch {
    words: &'static [AtomicU32],
}

impl Watch {
    /// From what the agent handed over.
    pub fn open(file: &impl AsFd) -> Result<Self, LifelineError> {
        let sealed = fcntl(file, FcntlArg::F_GET_SEALS).map_err(|_| LifelineError::Foreign)?;
        let length = nix::sys::stat::fstat(file).map_err(|_| LifelineError::Foreign)?.st_size;
        let expected = i64::try_from(size_of::<[u32; WORDS]>()).unwrap_or(0);
        // Without the seals a file that is cut would kill whoever reads it (SIGBUS).
        if !SealFlag::from_bits_truncate(sealed).contains(seals()) || length != expected {
            return Err(LifelineError::Foreign);
        }
        Ok(Self { words: map(file)? })
    }

    /// Sleeps until the loop has died or ended, or for so long at most.
    pub fn wait(&self, at_most: Duration) -> Seen {
        let futex = &self.words[FUTEX];
        // The kernel wakes only whom it was told of; and as the same word says who holds and who
        // died, a death before this moment is in the value, and one after it finds the note.
        let noted = futex.fetch_or(libc::FUTEX_WAITERS, Ordering::AcqRel) | libc::FUTEX_WAITERS;
        if !self.has_ended() && noted & libc::FUTEX_OWNER_DIED == 0 {
            // However it ends, what counts is what the words say then.
            let _ = sys::futex_wait(futex, noted, at_most);
        }
        self.look()
    }

    /// What is so now.
    pub fn look(&self) -> Seen {
        // The death first: it may come between the two looks, but never after an orderly end.
        let died = self.words[FUTEX].load(Ordering::Acquire) & libc::FUTEX_OWNER_DIED != 0;
        match (self.has_ended(), died) {
            (true, _) => Seen::Ended,
            (false, true) => Seen::Died,
            (false, false) => {
                let noted = self.words[TURNED_US].load(Ordering::Relaxed);
                Seen::Alive(moment(noted, clock::now()))
            }
        }
    }

    /// For how long the turns may stand still before the loop counts as hung.
    pub fn patience(&self) -> Duration {
        Duration::from_micros(self.words[PATIENCE_US].load(Ordering::Relaxed).into())
    }

    /// Where the loop's thread is, as long as it lives.
    pub fn whereabouts(&self, agent: u32) -> Option<Whereabouts> {
        let stat = fs::read_to_string(self.about_thread(agent, "stat")).ok()?;
        Whereabouts::from_stat(&stat)
    }

    /// The functions of the kernel in which the loop's thread is, the innermost first; "" where the
    /// kernel does not say it, or where it is in none.
    pub fn calls(&self, agent: u32) -> String {
        let stack = fs::read_to_string(self.about_thread(agent, "stack")).unwrap_or_default();
        let names = stack.lines().filter_map(|line| line.split_once("] ")?.1.split('+').next());
        names.take(CALLS_MAX).collect::<Vec<_>>().join(" < ")
    }

    fn about_thread(&self, agent: u32, file: &str) -> String {
        let thread = self.words[FUTEX].load(Ordering::Relaxed) & libc::FUTEX_TID_MASK;
        format!("/proc/{agent}/task/{thread}/{file}")
    }

    /// From which addresses this host speaks, by leg.
    pub fn legs(&self) -> impl Iterator<Item = Option<SocketAddr>> {
        self.words[LEGS..GOODBYES].chunks_exact(ADDRESS_LEN).map(read_address)
    }

    /// The goodbyes that lie ready, whole ones only: leg, receiver and length; the bytes are in
    /// `buffer` during the call. Allocates nothing.
    pub fn goodbyes(&self, mut tell: impl FnMut(usize, SocketAddr, &[u8])) {
        let mut buffer = [0; GOODBYE_LEN_MAX];
        for (slot, words) in goodbyes(self.words).enumerate() {
            if let Some((to, length)) = read_goodbye(words, &mut buffer) {
                tell(slot % LEGS_MAX, to, &buffer[..length]);
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.words[ENDED].load(Ordering::Acquire) != 0
    }
}

/// Where a thread is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Whereabouts {
    /// It sleeps in the kernel until that has done something, and dies of no signal before.
    pub waits_for_kernel: bool,
    /// The processor on which it was last.
    pub processor: usize,
}

impl Whereabouts {
    /// From proc(5), `/proc/PID/stat`: `state` is field 3, `processor` field 39.
    fn from_stat(stat: &str) -> Option<Self> {
        // The name before the last parenthesis may contain anything.
        let (_, after_name) = stat.rsplit_once(") ")?;
        let mut fields = after_name.split_ascii_whitespace();
        let waits_for_kernel = fields.next()? == "D";
        Some(Self { waits_for_kernel, processor: fields.nth(35)?.parse().ok()? })
    }
}

/// A process, and no other that gets its number later.
#[derive(Debug)]
pub struct Process {
    handle: OwnedFd,
    pid: u32,
}

impl Process {
    /// The process of that number.
    pub fn open(pid: u32) -> Result<Self, LifelineError> {
        let handle = sys::pidfd_open(pid.cast_signed());
        let handle = handle.map_err(|e| LifelineError::Process(errno(&e)))?;
        Ok(Self { handle, pid })
    }

    /// Its number, which is another's when it is dead and gone.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills it; one that is gone already is fine.
    pub fn kill(&self) -> Result<(), LifelineError> {
        match sys::pidfd_send_signal(&self.handle, libc::SIGKILL) {
            Err(error) if errno(&error) != Errno::ESRCH => {
                Err(LifelineError::Process(errno(&error)))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether all of it is dead, at the latest after so long.
    pub fn wait_end(&self, at_most: Duration) -> bool {
        let mut poller = crate::poll::Poller::new();
        poller.watch(0, &self.handle);
        let deadline = crate::clock::now() + at_most;
        poller.wait(Some(deadline)).is_ok_and(|ready| ready.contains(0))
    }
}

/// Puts the calling thread, the supervisor's only one, before the loop that it watches: on one
/// processor a loop that spins would never let it run.
pub fn schedule_supervisor() -> io::Result<()> {
    const PRIORITY: i32 = 50;
    sys::schedule_fifo(PRIORITY)
}

/// Does something on one processor; where that is not permitted, anywhere.
pub fn on_processor<T>(processor: usize, act: impl FnOnce() -> T) -> T {
    let this_thread = Pid::from_raw(0);
    let before = sched_getaffinity(this_thread);
    let mut only = CpuSet::new();
    let _ = only.set(processor).and_then(|()| sched_setaffinity(this_thread, &only));
    let result = act();
    let _ = before.and_then(|before| sched_setaffinity(this_thread, &before));
    result
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

fn map(file: &impl AsFd) -> Result<&'static [AtomicU32], LifelineError> {
    use std::os::fd::AsRawFd;
    sys::map_shared(&file.as_fd().as_raw_fd(), WORDS).map_err(|e| LifelineError::Memory(errno(&e)))
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// The part of a time that is noted.
fn micros(at: Instant) -> u32 {
    // Cut on purpose: what is left goes round.
    (at.as_nanos() / NANOS_PER_MICRO) as u32
}

/// The moment that was noted. A turn longer ago than half of what fits is taken for one of now: who
/// asks has given up on the loop long before that, or waits for the kernel with it.
fn moment(noted: u32, now: Instant) -> Instant {
    let ago = micros(now).wrapping_sub(noted);
    let ago = if ago <= u32::MAX / 2 { ago } else { 0 };
    let micros = (now.as_nanos() / NANOS_PER_MICRO).saturating_sub(ago.into());
    Instant::from_nanos(micros * NANOS_PER_MICRO)
}

/// The address of a word, in this process.
fn place(words: &'static [AtomicU32], at: usize) -> usize {
    words[at].as_ptr().expose_provenance()
}

fn write_pointer(words: &[AtomicU32], index: usize, value: usize) {
    let bytes = value.to_ne_bytes();
    let at = index * bytes.len() / 4;
    for (word, four) in words[at..].iter().zip(bytes.as_chunks().0) {
        word.store(u32::from_ne_bytes(*four), Ordering::Relaxed);
    }
}

fn goodbyes(words: &'static [AtomicU32]) -> impl Iterator<Item = &'static [AtomicU32]> {
    words[GOODBYES..].chunks_exact(GOODBYE_WORDS)
}

/// Changes a goodbye so that a reader can tell a whole one: the lock is odd meanwhile.
fn locked(words: &[AtomicU32], change: impl FnOnce()) {
    // There is one writer. After one that died half-way the lock is odd for ever, and nobody writes.
    let lock = words[LOCK].load(Ordering::Relaxed);
    words[LOCK].store(lock.wrapping_add(1), Ordering::Relaxed);
    fence(Ordering::Release);
    change();
    words[LOCK].store(lock.wrapping_add(2), Ordering::Release);
}

fn read_goodbye(
    words: &[AtomicU32],
    buffer: &mut [u8; GOODBYE_LEN_MAX],
) -> Option<(SocketAddr, usize)> {
    let lock = words[LOCK].load(Ordering::Acquire);
    let length = usize::try_from(words[LENGTH].load(Ordering::Relaxed)).ok()?;
    let to = read_address(&words[ADDRESS..BYTES]);
    for (word, four) in words[BYTES..].iter().zip(buffer.as_chunks_mut::<4>().0) {
        *four = word.load(Ordering::Relaxed).to_ne_bytes();
    }
    fence(Ordering::Acquire);
    let is_whole = lock.is_multiple_of(2) && lock == words[LOCK].load(Ordering::Relaxed);
    let is_there = 0 < length && length <= GOODBYE_LEN_MAX;
    to.filter(|_| is_whole && is_there).map(|to| (to, length))
}

fn write_address(words: &[AtomicU32], address: Option<SocketAddr>) {
    let (family, scope, bits) = match address {
        None => (0, 0, 0),
        Some(SocketAddr::V4(v4)) => (4, 0, v4.ip().to_bits().into()),
        Some(SocketAddr::V6(v6)) => (6, v6.scope_id(), v6.ip().to_bits()),
    };
    let port = address.map_or(0, |address| address.port().into());
    let [a, b, c, d] = [96, 64, 32, 0]
        .map(|shift| u32::try_from(bits >> shift & u128::from(u32::MAX)).unwrap_or_default());
    for (word, value) in words.iter().zip([family, port, scope, a, b, c, d]) {
        word.store(value, Ordering::Relaxed);
    }
}

fn read_address(words: &[AtomicU32]) -> Option<SocketAddr> {
    let mut values = [0; ADDRESS_LEN];
    for (value, word) in values.iter_mut().zip(words) {
        *value = word.load(Ordering::Relaxed);
    }
    let [family, port, scope, a, b, c, d] = values;
    let port = u16::try_from(port).ok()?;
    let bits = [a, b, c, d].into_iter().fold(0, |bits, word| bits << 32 | u128::from(word));
    match family {
        4 => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(d)), port)),
        6 => Some(SocketAddrV6::new(Ipv6Addr::from_bits(bits), port, 0, scope).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
