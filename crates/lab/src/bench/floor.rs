//! What heartbeats cost whoever sends them: three threads that carry the datagrams of an owner and of two nodes that
//! serve nothing, of the same length and as often, and do nothing else. No agent with such a pace goes below it.

use crate::segment::Segment;
use crate::{Error, Result};
use buoy_model::limits::REST_HEARTBEAT;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
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

/// What one of the threads used, in hundredths of one processor.
pub(super) fn share(segment: &Segment, time: Duration) -> Result<f64> {
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
    let used: std::result::Result<Vec<Duration>, std::io::Error> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        .collect();
    let used = used.map_err(failed)?.first().copied().unwrap_or_default();
    Ok(100.0 * used.as_secs_f64() / time.as_secs_f64())
}

/// Says a heartbeat to every peer at each interval, and answers theirs; how much of a processor that took.
fn beat(
    own: Ipv4Addr,
    peers: &[Ipv4Addr],
    interval: Duration,
    time: Duration,
) -> std::io::Result<Duration> {
    let socket = UdpSocket::bind(SocketAddrV4::new(own, PORT))?;
    socket.set_nonblocking(true)?;
    let mut buffer = [0; 2 * LENGTH];
    let heartbeat = [HEARTBEAT; LENGTH];
    let before = used()?;
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
    Ok(used()?.saturating_sub(before))
}

fn used() -> std::io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
