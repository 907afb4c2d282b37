//! What heartbeats cost whoever sends them: three threads that carry the datagrams of an owner and of two nodes that
//! serve nothing, of the same length and as often, and do nothing else. No agent with such a pace goes below it.

use crate::segment::Segment;
use crate::{Error, Result};
use buoy_model::limits::REST_HEARTBEAT;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// As the agent's default has it.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);
/// A heartbeat with one VIP, sealed.
const LENGTH: usize = 93;
/// Beside the agent's own.
const PORT: u16 = 4749;
const HEARTBEAT: u8 = 1;
const ANSWER: u8 = 2;

/// What somebody does in a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// Hundredths of one processor.
    pub share: f64,
    /// How often a thread got a processor, in a second.
    pub wakes: f64,
}

impl Work {
    /// Microseconds for each wake.
    pub(super) fn each(self) -> f64 {
        self.share * 1e4 / self.wakes
    }
}

/// What threads have done so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Worked {
    nanos: u64,
    wakes: u64,
}

impl Worked {
    /// From `schedstat` of a thread: nanoseconds on a processor, of waiting for one, and how often it got one.
    fn parse(schedstat: &str) -> Option<Self> {
        let mut fields = schedstat.split_ascii_whitespace();
        let nanos = fields.next()?.parse().ok()?;
        Some(Self { nanos, wakes: fields.nth(1)?.parse().ok()? })
    }

    /// What was done since `before`, which is so long ago.
    pub(super) fn since(self, before: Self, time: Duration) -> Work {
        let a_second = |count: u64| count as f64 / time.as_secs_f64();
        Work {
            share: a_second(self.nanos.saturating_sub(before.nanos)) / 1e7,
            wakes: a_second(self.wakes.saturating_sub(before.wakes)),
        }
    }
}

/// What all threads of these processes have done so far. One that has ended meanwhile counts no more: an agent starts
/// programs that come and go.
pub(super) fn worked(pids: &[u32]) -> Result<Worked> {
    let mut all = Worked::default();
    for pid in pids {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let text = std::fs::read_to_string(task.path().join("schedstat"));
            if let Some(one) = Worked::parse(&text.unwrap_or_default()) {
                all.nanos += one.nanos;
                all.wakes += one.wakes;
            }
        }
    }
    let gone = || Error::Unknown { what: format!("what processes {pids:?} have done") };
    if all == Worked::default() { Err(gone()) } else { Ok(all) }
}

/// What the owner's thread does.
pub(super) fn work(segment: &Segment, time: Duration) -> Result<Work> {
    let nodes = segment.topology.nodes();
    let addresses =
        nodes.iter().map(|node| Ok(segment.host(node)?.ipv4())).collect::<Result<Vec<_>>>()?;
    let mut threads = Vec::new();
    for (node, own) in nodes.iter().zip(addresses.iter().copied()) {
        let peers: Vec<_> = addresses.iter().copied().filter(|peer| *peer != own).collect();
        // The first node is the owner.
        let interval = if threads.is_empty() { INTERVAL } else { REST_HEARTBEAT };
        let beat = move || beat(own, &peers, interval, time);
        threads.push(segment.inside(node)?.spawn("floor", beat)?);
    }
    let failed = Error::system("carry bare heartbeats");
    let done: std::result::Result<Vec<Worked>, std::io::Error> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        .collect();
    let done = done.map_err(failed)?.first().copied().unwrap_or_default();
    Ok(done.since(Worked::default(), time))
}

/// Says a heartbeat to every peer at each interval, and answers theirs; what that took.
fn beat(
    own: Ipv4Addr,
    peers: &[Ipv4Addr],
    interval: Duration,
    time: Duration,
) -> std::io::Result<Worked> {
    let socket = UdpSocket::bind(SocketAddrV4::new(own, PORT))?;
    socket.set_nonblocking(true)?;
    let mut buffer = [0; 2 * LENGTH];
    let heartbeat = [HEARTBEAT; LENGTH];
    let before = own_work()?;
    let end = Instant::now() + time;
    let mut next = Instant::now();
    while Instant::now() < end {
        let wait = TimeSpec::from_duration(next.saturating_duration_since(Instant::now()));
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        ppoll(&mut fds, Some(wait), None)?;
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if buffer.first() == Some(&HEARTBEAT) {
                // A peer that has ended already refuses: that costs what an answer costs.
                let _ = socket.send_to(&[ANSWER; LENGTH][..length.min(LENGTH)], from);
            }
        }
        if next <= Instant::now() {
            for peer in peers {
                let _ = socket.send_to(&heartbeat, SocketAddrV4::new(*peer, PORT));
            }
            next += interval;
        }
    }
    let after = own_work()?;
    Ok(Worked { nanos: after.nanos - before.nanos, wakes: after.wakes - before.wakes })
}

fn own_work() -> std::io::Result<Worked> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Worked::parse(&text).ok_or_else(|| std::io::Error::other(format!("what is {text:?}?")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_wake_costs_is_known_from_time_and_count() {
        assert_eq!(Worked::parse("1500000 77 30\n"), Some(Worked { nanos: 1_500_000, wakes: 30 }));
        assert_eq!(Worked::parse("1500000 77"), None);
        let before = Worked { nanos: 500_000, wakes: 10 };
        let after = Worked { nanos: 20_500_000, wakes: 410 };
        let work = after.since(before, Duration::from_secs(2));
        for (value, expected) in [(work.share, 1.0), (work.wakes, 200.0), (work.each(), 50.0)] {
            assert!((value - expected).abs() < 1e-9, "{work:?}");
        }
    }

    #[test]
    fn a_thread_that_sleeps_is_seen_to_wake() {
        let before = own_work().unwrap();
        (0..5).for_each(|_| std::thread::sleep(Duration::from_millis(1)));
        let after = own_work().unwrap();
        assert!(before.wakes + 5 <= after.wakes, "{before:?} {after:?}");
        assert!(after.wakes <= worked(&[std::process::id(), u32::MAX]).unwrap().wakes);
        assert!(worked(&[u32::MAX]).is_err(), "none of them is there");
    }
}
