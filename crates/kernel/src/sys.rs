//! The system calls that no safe crate offers as we need them; the only `unsafe` of the tree.

mod pool;

pub(crate) use pool::{claim_pool, grow_pool, pool_in_use};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Turns the `-1` of a system call into its error.
fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn length_of<T>() -> libc::socklen_t {
    // Socket addresses and options are tens of bytes.
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

/// The descriptors that whoever started this process has passed from 3 on; the second call has none.
pub(crate) fn inherited(count: u32) -> Vec<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Relaxed) {
        return Vec::new();
    }
    let last = i32::try_from(count).unwrap_or(0).saturating_add(3);
    let is_open = |fd: &i32| {
        // SAFETY: no memory is passed, and a number that is no descriptor is an error.
        checked(unsafe { libc::fcntl(*fd, libc::F_SETFD, libc::FD_CLOEXEC) }).is_ok()
    };
    // SAFETY: by the manager's protocol these are this process's own, it is told so once, and nobody else
    // in it takes them: `TAKEN` lets one caller through.
    (3..last).filter(is_open).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

/// A route netlink socket, subscribed to these groups (bits of `RTMGRP_*`).
pub(crate) fn netlink(groups: u32, flags: i32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags;
    // SAFETY: no memory is passed.
    let fd = checked(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) })?;
    // SAFETY: the descriptor was just opened and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero bytes are a valid sockaddr_nl: port 0 lets the kernel choose.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = family(libc::AF_NETLINK);
    address.nl_groups = groups;
    let pointer = (&raw const address).cast::<libc::sockaddr>();
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    checked(unsafe { libc::bind(fd.as_raw_fd(), pointer, length_of::<libc::sockaddr_nl>()) })?;
    Ok(fd)
}

/// Binds a packet socket to one interface and one Ethernet type.
pub(crate) fn bind_packet(fd: &impl AsRawFd, link: u32, ethertype: u16) -> io::Result<()> {
    let address = link_address(link, ethertype);
    let pointer = (&raw const address).cast::<libc::sockaddr>();
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    checked(unsafe { libc::bind(fd.as_raw_fd(), pointer, length_of::<libc::sockaddr_ll>()) })?;
    Ok(())
}

/// Sends one whole Ethernet frame out of an interface.
pub(crate) fn send_packet(
    fd: &impl AsRawFd,
    link: u32,
    ethertype: u16,
    frame: &[u8],
) -> io::Result<()> {
    let address = link_address(link, ethertype);
    let pointer = (&raw const address).cast::<libc::sockaddr>();
    let length = length_of::<libc::sockaddr_ll>();
    // SAFETY: frame and address are borrowed for the call, and their lengths are given with them.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            pointer,
            length,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn link_address(link: u32, ethertype: u16) -> libc::sockaddr_ll {
    // SAFETY: all-zero bytes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = family(libc::AF_PACKET);
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = i32::try_from(link).unwrap_or(-1);
    address
}

fn family(family: i32) -> libc::sa_family_t {
    // The families are small constants.
    libc::sa_family_t::try_from(family).unwrap_or(0)
}

/// Sets a socket option that is an `int`.
pub(crate) fn set_option(fd: &impl AsRawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let pointer = (&raw const value).cast();
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    checked(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, pointer, length_of::<i32>()) })?;
    Ok(())
}

/// A queue of a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Queue {
    Received,
    Sent,
}

/// Sets the bytes of a queue; beyond net.core.rmem_max and wmem_max only with CAP_NET_ADMIN.
pub(crate) fn set_queue(fd: &impl AsRawFd, queue: Queue, length: i32) -> io::Result<()> {
    let (forced, asked) = match queue {
        Queue::Received => (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        Queue::Sent => (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    };
    set_option(fd, libc::SOL_SOCKET, forced, length)
        .or_else(|_| set_option(fd, libc::SOL_SOCKET, asked, length))
}

/// How long a connection's packets take there and back, as TCP has measured it.
pub(crate) fn round_trip(fd: &impl AsRawFd) -> io::Result<Duration> {
    // SAFETY: numbers alone, of which zero is one.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = length_of::<libc::tcp_info>();
    let pointer = (&raw mut info).cast::<libc::c_void>();
    // SAFETY: the pointer and the length describe `info`, which outlives the call.
    checked(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            pointer,
            &raw mut length,
        )
    })?;
    Ok(Duration::from_micros(info.tcpi_rtt.into()))
}

/// How many datagrams the kernel dropped because this socket was read too late.
pub(crate) fn socket_drops(fd: &impl AsRawFd) -> u32 {
    // SK_MEMINFO_DROPS of linux/sock_diag.h; the array may grow, so more room than needed.
    const DROPS: usize = 8;
    let mut words = [0_u32; 16];
    let mut length = length_of::<[u32; 16]>();
    let pointer = words.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `length` bytes to `words` and the new length to `length`.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            pointer,
            &raw mut length,
        )
    };
    if result < 0 { 0 } else { words[DROPS] }
}

/// A number that the network namespace of this socket has alone, until the host is booted again.
pub(crate) fn namespace_cookie(fd: &impl AsRawFd) -> io::Result<u64> {
    const NETNS_COOKIE: i32 = 71; // SO_NETNS_COOKIE
    let mut cookie = 0_u64;
    let mut length = length_of::<u64>();
    let (pointer, option) = ((&raw mut cookie).cast(), libc::SOL_SOCKET);
    // SAFETY: the kernel writes at most `length` bytes to `cookie` and the new length to `length`.
    checked(unsafe {
        libc::getsockopt(fd.as_raw_fd(), option, NETNS_COOKIE, pointer, &raw mut length)
    })?;
    Ok(cookie)
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Waits until one of these can be read, or so long; `None` waits for ever. Gives how many can.
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<i32> {
    let timeout = timeout.map(timespec);
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // Every caller has at most `poll::FDS_MAX` of them.
    let count = libc::nfds_t::try_from(fds.len()).unwrap_or(0);
    // SAFETY: the kernel writes to the `count` entries of `fds` only; the timeout is null or
    // lives until the end of this function; a null mask leaves signals as they are.
    checked(unsafe { libc::ppoll(fds.as_mut_ptr(), count, timeout, std::ptr::null()) })
}

/// Puts the calling thread under `SCHED_FIFO`; what it forks starts as an ordinary process.
pub(crate) fn schedule_fifo(priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel reads `parameters`, which outlives the call; 0 is the calling thread.
    checked(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) })?;
    Ok(())
}

/// Brings a mapping of this process into memory and keeps it there.
pub(crate) fn lock_memory(from: usize, length: usize) -> io::Result<()> {
    // SAFETY: the kernel looks the range up among this process's mappings, and reads or writes none of it for us.
    checked(unsafe { libc::mlock(std::ptr::without_provenance(from), length) })?;
    Ok(())
}

/// Takes out of memory what is as it was in its file, locked or not; it is read again when it is used, and locked
/// again. The range must be of a mapping that nobody writes to.
pub(crate) fn forget_unchanged(from: usize, length: usize) -> io::Result<()> {
    let range = std::ptr::without_provenance_mut(from);
    // SAFETY: the caller says that the range holds what the file holds, so whoever reads it next reads the same.
    checked(unsafe { libc::madvise(range, length, libc::MADV_DONTNEED_LOCKED) })?;
    Ok(())
}

/// Gives memory that was freed back to the kernel, where the C library can.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no memory is passed, and only what was freed goes.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has large blocks of memory given back to the kernel as soon as they are freed, where the C library can: otherwise
/// it takes the largest block that was ever freed for the everyday size, and keeps what is smaller.
pub(crate) fn return_blocks_from(bytes: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: no memory is passed; only allocations to come are made otherwise.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, bytes);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

/// Has all threads allocate from one place, where the C library can: with one for each, what a thread needs for a
/// moment is kept for ever, once for each of them.
pub(crate) fn share_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no memory is passed; only where allocations to come are made changes.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Marks every descriptor from that one on to be closed by the next `exec`.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: no memory is passed, and no descriptor is closed in this process.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Empties the set of capabilities that this thread would pass on to a program of any user.
pub(crate) fn pass_no_capability_on() -> io::Result<()> {
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL;
    // SAFETY: no memory is passed; only what this thread may pass on shrinks.
    let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Memory that is shared with the kernel or with another process, as words that both may change
/// at any time. It stays mapped until this is dropped, whatever becomes of the descriptor.
#[derive(Debug)]
pub(crate) struct Shared {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the memory belongs to no thread, and all access to it is atomic.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps the first so many words of what the descriptor stands for; it must be that long.
    pub(crate) fn map(fd: &impl AsFd, words: usize) -> io::Result<Self> {
        let length = words.checked_mul(size_of::<u64>()).filter(|&length| length > 0);
        let length = length.ok_or(io::ErrorKind::InvalidInput)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: no address is asked for, so nothing that is mapped already is touched.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd, 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, words })
    }

    /// The words.
    pub(crate) const fn words(&self) -> &[AtomicU64] {
        // SAFETY: `map` mapped so many words, page-aligned, readable and writable, and they stay
        // until `drop`; any bits are an `AtomicU64`, and whoever else writes them may do so.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let length = self.words.saturating_mul(size_of::<u64>());
        // SAFETY: exactly what `map` mapped, and no reference to it outlives `self`.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), length) };
    }
}

/// Maps the first words of a file, shared with whoever else maps it, until the process ends. The
/// caller has made sure that the file is that long and cannot shrink.
pub(crate) fn map_shared(fd: &impl AsRawFd, count: usize) -> io::Result<&'static [AtomicU32]> {
    let length = count * size_of::<AtomicU32>();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the kernel chooses the place, so no memory in use is replaced.
    let pointer = unsafe {
        libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
    };
    if pointer == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is that long, aligned to a page and never taken away; any bytes are valid
    // words, and what other processes write at the same time is what atomics are for.
    Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), count) })
}

/// Makes `head` the list of robust futexes of the calling thread: when it dies, however it dies, the
/// kernel marks each futex on the list and wakes whoever waits for it (get_robust_list(2)).
pub(crate) fn set_robust_list(head: &'static [AtomicU32]) -> io::Result<()> {
    let length = 3 * size_of::<usize>(); // struct robust_list_head
    if size_of_val(head) < length {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the memory is never unmapped, and the kernel checks every address that it follows from
    // there. The C library's own list of this thread is replaced: nothing here uses its robust mutexes.
    let result = unsafe { libc::syscall(libc::SYS_set_robust_list, head.as_ptr(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sleeps until somebody wakes this futex, or so long by `CLOCK_MONOTONIC`; not at all when it has
/// another value than expected.
pub(crate) fn futex_wait(futex: &AtomicU32, expected: u32, timeout: Duration) -> io::Result<()> {
    let timeout = timespec(timeout);
    let (pointer, timeout) = (futex.as_ptr(), &raw const timeout);
    // SAFETY: futex and timeout outlive the call; the kernel only reads them.
    let result =
        unsafe { libc::syscall(libc::SYS_futex, pointer, libc::FUTEX_WAIT, expected, timeout) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Wakes whoever sleeps on this futex.
pub(crate) fn futex_wake(futex: &AtomicU32) {
    // SAFETY: the kernel uses the address only to find the sleepers.
    unsafe { libc::syscall(libc::SYS_futex, futex.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// A handle on a process that stays this process's, whoever gets its number later.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = checked(i32::try_from(fd).unwrap_or(-1))?;
    // SAFETY: the descriptor was just opened and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to the process of that handle; an error when it is gone.
pub(crate) fn pidfd_send_signal(fd: &impl AsRawFd, signal: i32) -> io::Result<()> {
    let no_details = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null pointer stands for the details that kill(2) would give.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, no_details, 0)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The part of `union bpf_attr` that `BPF_PROG_TEST_RUN` reads and writes (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    input_len: u32,
    output_len: u32,
    input: u64,
    output: u64,
    repeat: u32,
    duration: u32,
    context_input_len: u32,
    context_output_len: u32,
    context_input: u64,
    context_output: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// How to run a program.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trial<'a> {
    /// So often on the same buffer; what the last run made of it comes back.
    Again(u32, &'a [u8]),
    /// So often on frames that then are sent, as if they had come in by this interface.
    Live(u32, u32, &'a [u8]),
}

/// Runs a loaded XDP program. Gives what it returned, and how many bytes of `output` are what it made of
/// the bytes; of frames that are sent, nothing.
pub(crate) fn run_program(
    program: &impl AsRawFd,
    trial: Trial<'_>,
    output: &mut [u8],
) -> io::Result<(u32, usize)> {
    const TEST_RUN: i32 = 10; // BPF_PROG_TEST_RUN
    const LIVE_FRAMES: u32 = 2; // BPF_F_TEST_XDP_LIVE_FRAMES
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut run = TestRun { program: program.as_raw_fd().cast_unsigned(), ..TestRun::default() };
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
    let mut context = [0_u32; 6];
    let input = match trial {
        Trial::Again(repeat, input) => {
            run.repeat = repeat;
            run.output_len = u32::try_from(output.len()).map_err(too_long)?;
            run.output = output.as_mut_ptr() as u64;
            input
        }
        Trial::Live(count, link, input) => {
            run.repeat = count;
            run.flags = LIVE_FRAMES;
            context[1] = u32::try_from(input.len()).map_err(too_long)?;
            context[3] = link;
            run.context_input = context.as_ptr() as u64;
            run.context_input_len = u32::try_from(size_of_val(&context)).map_err(too_long)?;
            input
        }
    };
    run.input = input.as_ptr() as u64;
    run.input_len = u32::try_from(input.len()).map_err(too_long)?;
    // SAFETY: all lengths are those of the slices and of `context`, which are borrowed or live for the call: the
    // kernel reads from `input` and `context` and writes to `output`. `run` is as long as is said, and the
    // kernel writes its results there.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, TEST_RUN, &raw mut run, size_of::<TestRun>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((run.result, usize::try_from(run.output_len).unwrap_or(0).min(output.len())))
}

/// Waits until every BPF program that is running on any CPU has ended.
pub(crate) fn wait_for_programs() -> io::Result<()> {
    const GLOBAL: i32 = 1; // MEMBARRIER_CMD_GLOBAL: a grace period of RCU, under which programs run
    // SAFETY: no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Switches an offload of an interface of this namespace (`SIOCETHTOOL` with `struct ethtool_value`).
pub(crate) fn set_offload(
    socket: &impl AsRawFd,
    name: &std::ffi::CStr,
    command: u32,
    on: bool,
) -> io::Result<()> {
    let bytes = name.to_bytes_with_nul();
    if bytes.len() > libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut value = [command, u32::from(on)];
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(bytes) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: the kernel reads the request and the two words that it points to, and may write to those; both
    // outlive the call.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) })?;
    Ok(())
}
