//! Runs the fast path, and simple programs to compare it with, on packet after packet and takes the time.
//!
//! The time is that of the calling thread: `BPF_PROG_TEST_RUN` runs programs in it, and frames that are sent
//! out of a virtual interface go through the other end in it too, for the most part. What the packets are
//! like is in `buoy_xdp::bench`.

use crate::fast::{Fast, FastError, Verdict, refused};
use crate::sys::{self, Trial};
use aya::maps::{Array, Map, MapData, PerCpuArray, ProgramArray};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{ProgramError, ProgramFd, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use buoy_model::LinkId;
use buoy_xdp::bench;
use nix::time::{ClockId, clock_gettime};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Time of this thread on a processor.
pub fn thread_time() -> Duration {
    // The clock exists on every kernel.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// A program that does a known part of the work.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Floor {
    /// Nothing: what the measuring itself costs.
    Nothing,
    /// Swaps the Ethernet addresses and sends the frame back.
    Swap,
    /// Parses it, looks a backend up in an array, and sends the frame there.
    Array,
    /// The same in an IP packet.
    Tunnel,
    /// Leaves it to the kernel.
    Pass,
    /// Counts it and drops it.
    Sink,
}

impl Floor {
    const fn program(self) -> &'static str {
        match self {
            Self::Nothing => bench::NOTHING,
            Self::Swap => bench::SWAP,
            Self::Array => bench::ARRAY,
            Self::Tunnel => bench::IPIP,
            Self::Pass => bench::PASS,
            Self::Sink => bench::SINK,
        }
    }
}

/// What the packets are like.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// The packet that all are made from: its source address and port are the first of the flows.
    pub frame: Vec<u8>,
    /// How many flows, a power of two.
    pub flows: u64,
    /// Services that they are for, from that one on.
    pub services: u64,
    /// What is right.
    pub verdict: Verdict,
}

/// What a run was.
#[derive(Clone, Debug)]
pub struct Run {
    /// Time of this thread for all packets.
    pub time: Duration,
    /// Packets with another verdict than the right one.
    pub wrong: u64,
    /// The number of the last packet.
    pub number: u64,
    /// What became of it.
    pub frame: Vec<u8>,
}

/// The loaded programs.
pub struct Rig {
    programs: Ebpf,
    target: ProgramArray<MapData>,
    plan: sys::Shared,
    /// Kept open for its memory.
    _plan: MapData,
    arrived: PerCpuArray<MapData, u64>,
    dispatch: OwnedFd,
    generate: OwnedFd,
    links: Vec<(Floor, XdpLinkId)>,
}

/// From one packet's number to the next one's: odd, so that all flows have their turn, and far apart.
const STEP: u64 = 0x9e37_79b1;
/// More than any outer header.
const GROWTH_MAX: usize = 64;

impl Rig {
    /// Loads the programs.
    pub fn open() -> Result<Self, FastError> {
        let mut programs = EbpfLoader::new().load(bench::BENCH).map_err(|e| refused(&e))?;
        for name in bench::PROGRAMS {
            program(&mut programs, name)?.load().map_err(|e| refused(&e))?;
        }
        let plan = array(&mut programs, bench::PLAN)?;
        let memory = sys::Shared::map(&plan.fd(), bench::PLAN_WORDS);
        let memory = memory.map_err(|e| refused(&e))?;
        fill_reals(&mut programs)?;
        let target = taken(&mut programs, bench::TARGET)?;
        let arrived = taken(&mut programs, bench::ARRIVED)?;
        let copy = |fd: &ProgramFd| fd.as_fd().try_clone_to_owned().map_err(|e| refused(&e));
        let dispatch = copy(fd(&mut programs, bench::DISPATCH)?)?;
        let generate = copy(fd(&mut programs, bench::GENERATE)?)?;
        let target = ProgramArray::try_from(target).map_err(|e| refused(&e))?;
        let arrived = PerCpuArray::try_from(arrived).map_err(|e| refused(&e))?;
        Ok(Self {
            programs,
            target,
            plan: memory,
            _plan: plan,
            arrived,
            dispatch,
            generate,
            links: Vec::new(),
        })
    }

    /// From now on `run` runs the fast path.
    pub fn aim_at(&mut self, fast: &mut Fast) -> Result<(), FastError> {
        self.target.set(0, fast.entrance()?, 0).map_err(|e| refused(&e))
    }

    /// From now on `run` runs a floor.
    pub fn aim_at_floor(&mut self, floor: Floor) -> Result<(), FastError> {
        let floor = fd(&mut self.programs, floor.program())?;
        self.target.set(0, floor, 0).map_err(|e| refused(&e))
    }

    /// From now on packets are such. Their numbers go on, so the flows of a flood are never the same twice.
    pub fn set(&self, traffic: &Traffic) {
        let is_ipv6 = traffic.frame.get(12..14) == Some(&[0x86, 0xdd]);
        let plan = [
            (bench::STEP, STEP),
            (bench::MASK, traffic.flows.next_power_of_two() - 1),
            (bench::SERVICES, traffic.services),
            (bench::VERDICT, code(traffic.verdict)),
            (bench::WRONG, 0),
            (bench::IS_IPV6, u64::from(is_ipv6)),
            (bench::SUM, if is_ipv6 { 0 } else { header_sum(&traffic.frame) }),
        ];
        let mut frame = traffic.frame.clone();
        frame.resize(8 * (bench::PLAN_WORDS - bench::FRAME), 0);
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, b| word << 8 | u64::from(*b));
        let frame = frame.chunks(8).map(word);
        for (at, value) in plan.into_iter().chain((bench::FRAME..).zip(frame)) {
            self.word(at, value);
        }
    }

    fn word(&self, at: usize, value: u64) {
        self.plan.words()[at].store(value, Ordering::SeqCst);
    }

    fn read(&self, at: usize) -> u64 {
        self.plan.words()[at].load(Ordering::SeqCst)
    }

    /// Has so many packets made and the program run on each.
    pub fn run(&self, packets: u32) -> Result<Run, FastError> {
        let is_ipv6 = self.read(bench::IS_IPV6) != 0;
        let length = if is_ipv6 { bench::FRAME_IPV6 } else { bench::FRAME_IPV4 };
        let input = vec![0; length];
        let mut frame = vec![0; length + GROWTH_MAX];
        self.word(bench::WRONG, 0);
        let before = thread_time();
        let (_, length) =
            sys::run_program(&self.dispatch, Trial::Again(packets, &input), &mut frame)
                .map_err(|e| refused(&e))?;
        let time = thread_time() - before;
        frame.truncate(length);
        let number = self.read(bench::NEXT).wrapping_sub(STEP);
        Ok(Run { time, wrong: self.read(bench::WRONG), number, frame })
    }

    /// Puts a floor on an interface of this thread's network namespace.
    pub fn attach(&mut self, floor: Floor, link: LinkId) -> Result<(), FastError> {
        let failed = |e: ProgramError| FastError::Attach { link, reason: e.to_string() };
        let program = program(&mut self.programs, floor.program())?;
        let id = program.attach_to_if_index(link.0, XdpMode::Driver).map_err(failed)?;
        self.links.push((floor, id));
        Ok(())
    }

    /// Takes what was attached last away again.
    pub fn detach_last(&mut self) -> Result<(), FastError> {
        let Some((floor, id)) = self.links.pop() else { return Ok(()) };
        program(&mut self.programs, floor.program())?.detach(id).map_err(|e| refused(&e))
    }

    /// Sends so many packets out of an interface of this thread's network namespace.
    pub fn send(&self, link: LinkId, packets: u32) -> Result<Duration, FastError> {
        let is_ipv6 = self.read(bench::IS_IPV6) != 0;
        let input = vec![0; if is_ipv6 { bench::FRAME_IPV6 } else { bench::FRAME_IPV4 }];
        let before = thread_time();
        sys::run_program(&self.generate, Trial::Live(packets, link.0, &input), &mut [])
            .map_err(|e| refused(&e))?;
        Ok(thread_time() - before)
    }

    /// What the sink has seen in all.
    pub fn arrived(&self) -> u64 {
        self.arrived.get(&0, 0).map_or(0, |counts| counts.iter().sum())
    }
}

/// The sum over an IPv4 header as 32-bit words of memory, but for its checksum and addresses.
fn header_sum(frame: &[u8]) -> u64 {
    let words = frame.get(14..26).unwrap_or_default().chunks_exact(4);
    let with_check: u64 =
        words.map(|w| u64::from(u32::from_le_bytes([w[0], w[1], w[2], w[3]]))).sum();
    let check = frame.get(24..26).map_or(0, |c| u64::from(u16::from_le_bytes([c[0], c[1]])));
    with_check - (check << 16)
}

const fn code(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Aborted => 0,
        Verdict::Drop => 1,
        Verdict::Pass => 2,
        Verdict::Transmit => 3,
        Verdict::Redirect => 4,
    }
}

/// Backends of the floors: somewhere.
fn fill_reals(programs: &mut Ebpf) -> Result<(), FastError> {
    let mut reals: Array<MapData, [u64; bench::REAL_WORDS]> =
        taken(programs, bench::REALS)?.try_into().map_err(|e: aya::maps::MapError| refused(&e))?;
    for at in 0..bench::REALS_LEN as u32 {
        let mac = 0x0002 | u64::from(at.swap_bytes()) << 16;
        let pair = u64::from(u32::from_le_bytes([10, 9, 8, 7])) << 32
            | u64::from(u32::from_le_bytes([11, 0, 0, 0]) | at << 24);
        let mut real = [0; bench::REAL_WORDS];
        (real[0], real[1]) = (mac, pair);
        reals.set(at, real, 0).map_err(|e| refused(&e))?;
    }
    Ok(())
}

fn program<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, FastError> {
    let missing = || FastError::Load { reason: format!("there is no `{name}` in it") };
    programs.program_mut(name).and_then(|p| p.try_into().ok()).ok_or_else(missing)
}

fn fd<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a ProgramFd, FastError> {
    program(programs, name)?.fd().map_err(|e| refused(&e))
}

fn taken(programs: &mut Ebpf, name: &str) -> Result<Map, FastError> {
    let missing = || FastError::Load { reason: format!("there is no map `{name}` in it") };
    programs.take_map(name).ok_or_else(missing)
}

fn array(programs: &mut Ebpf, name: &str) -> Result<MapData, FastError> {
    let Map::Array(map) = taken(programs, name)? else {
        return Err(FastError::Load { reason: format!("its map `{name}` is not an array") });
    };
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_leaves_out_what_differs_from_packet_to_packet() {
        let mut frame = vec![0; 64];
        frame[14..34].copy_from_slice(&[
            0x45, 0, 0, 40, 1, 2, 0x40, 0, 64, 6, 0xaa, 0xbb, 1, 2, 3, 4, 5, 6, 7, 8,
        ]);
        let sum = header_sum(&frame);
        frame[24..34].fill(0);
        assert_eq!(header_sum(&frame), sum);
        frame[22] = 63;
        assert_eq!(header_sum(&frame), sum - 1);
    }
}
