//! Frames that really go through veth pairs: by the fast path, by programs that do a part of its work, and by
//! nftables, each in a namespace of its own, in turns.
//!
//! ```text
//! gen: sink on gen-x  <== veth ==>  lb-x: a floor, or the fast path      back out of the same interface
//!                                   lb-x: nftables ==> out  <== veth ==> end: nobody takes them
//! ```
//! The generator's time is part of every figure; so is that of the kernel's thread that goes on where a
//! softirq ends.

use super::cases::{self, Kind};
use super::measure::refused;
use super::world::{self, ACK, BACKENDS, Family, How, OWN_MAC, SYN, World, frame};
use crate::namespace::Namespace;
use crate::{Error, Result};
use buoy_kernel::fast::{Capacity, Fast, Verdict};
use buoy_kernel::offload::{self, Offload};
use buoy_kernel::rig::{Floor, Rig, Traffic};
use buoy_model::LinkId;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Frames of one turn. Connections of a namespace are not more than `nf_conntrack_max` together.
const FRAMES: u32 = 40_000;
const NEW_FLOWS: u32 = 8_000;
/// Nearly all must arrive, or else what is lost makes a path look cheap.
const ARRIVE: f64 = 0.99;

/// Who passes frames on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Path {
    Floor(Floor),
    Buoy(How),
    /// By direct server return where the other end of the veth is thought to run no XDP.
    Redirected,
    Nft,
}

impl Path {
    pub(super) const ALL: [Self; 8] = [
        Self::Floor(Floor::Swap),
        Self::Floor(Floor::Array),
        Self::Floor(Floor::Tunnel),
        Self::Buoy(How::Dsr),
        Self::Buoy(How::Tunnel),
        Self::Buoy(How::Nat),
        Self::Redirected,
        Self::Nft,
    ];

    pub(super) fn name(self) -> String {
        match self {
            Self::Floor(floor) => cases::floor_name(floor).to_owned(),
            Self::Buoy(how) => format!("buoy {}", how.name()),
            Self::Redirected => "buoy dsr, redirected".to_owned(),
            Self::Nft => "nftables DNAT".to_owned(),
        }
    }

    const fn short(self) -> &'static str {
        match self {
            Self::Floor(Floor::Array) => "array",
            Self::Floor(Floor::Tunnel) => "ipip",
            Self::Floor(Floor::Swap | Floor::Nothing | Floor::Pass | Floor::Sink) => "swap",
            Self::Buoy(how) => how.name(),
            Self::Redirected => "back",
            Self::Nft => "nft",
        }
    }
}

/// Which frames.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Load {
    OneFlow,
    ManyFlows,
    NewFlows,
}

impl Load {
    pub(super) const ALL: [Self; 3] = [Self::OneFlow, Self::ManyFlows, Self::NewFlows];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OneFlow => "1 flow",
            Self::ManyFlows => "64 k flows",
            Self::NewFlows => "each a new flow",
        }
    }

    const fn of(self) -> (Kind, u64, u32) {
        match self {
            Self::OneFlow => (Kind::Data, 1, FRAMES),
            Self::ManyFlows => (Kind::Data, 1 << 16, FRAMES),
            Self::NewFlows => (Kind::Syn, 1 << 24, NEW_FLOWS),
        }
    }
}

/// Nanoseconds of one frame, the generator's included: the best round and the middle one.
pub(super) type Live = BTreeMap<(Path, Load), (f64, f64)>;

/// One path with its interfaces.
struct Stand {
    path: Path,
    /// The generator's end.
    link: LinkId,
    inside: Namespace,
    /// Keeps it there.
    _fast: Option<Fast>,
    _end: Option<Namespace>,
}

/// All paths and loads in turns.
pub(super) fn measure(rig: &mut Rig, rounds: usize) -> Result<Live> {
    let run = std::process::id().to_string();
    let generator = Namespace::create(&run, "gen")?;
    generator.sysctl("ipv6.conf.default.disable_ipv6", "1")?;
    let mut stands = Vec::new();
    for path in Path::ALL {
        stands.push(Stand::build(&run, path, &generator, rig)?);
    }
    let mut times: BTreeMap<(Path, Load), Vec<f64>> = BTreeMap::new();
    for round in 0..=rounds {
        for load in Load::ALL {
            for stand in &stands {
                let each = generator.enter(|| stand.turn(rig, load, round == 0))??;
                // The first one finds nothing prepared.
                if round > 0 {
                    times.entry((stand.path, load)).or_default().push(each);
                }
            }
        }
    }
    let figures = times.into_iter().map(|(key, mut times)| {
        times.sort_by(f64::total_cmp);
        (key, (times[0], times[times.len() / 2]))
    });
    Ok(figures.collect())
}

impl Stand {
    fn build(run: &str, path: Path, generator: &Namespace, rig: &mut Rig) -> Result<Self> {
        let short = path.short();
        let inside = Namespace::create(run, &format!("lb-{short}"))?;
        inside.sysctl("ipv6.conf.default.disable_ipv6", "1")?;
        let (here, there) = (format!("gen-{short}"), format!("lb-{short}"));
        let mac = crate::topology::format_mac(OWN_MAC.0);
        generator.ip(&format!(
            "link add {here} type veth peer name {there} netns {} address {mac}",
            inside.name()
        ))?;
        generator.ip(&format!("link set {here} up"))?;
        inside.ip(&format!("link set {there} up"))?;
        let link = generator.enter(|| {
            let link = index(&here)?;
            without_checksums(&here)?;
            rig.attach(Floor::Sink, link).map_err(refused)?;
            Ok::<_, Error>(link)
        })??;
        let mut stand = Self { path, link, inside, _fast: None, _end: None };
        match path {
            Path::Floor(floor) => stand.inside.enter(|| {
                without_checksums(&there)?;
                rig.attach(floor, index(&there)?).map_err(refused)
            })??,
            Path::Buoy(how) => {
                let fast = stand.inside.enter(|| balance(&there, how))??;
                // As on a network card: the generator's end runs XDP too.
                fast.transmit_back();
                stand._fast = Some(fast);
            }
            Path::Redirected => {
                stand._fast = Some(stand.inside.enter(|| balance(&there, How::Dsr))??);
            }
            Path::Nft => stand._end = Some(translate(run, &stand.inside, &there)?),
        }
        Ok(stand)
    }

    /// One turn: nanoseconds of a frame. In the generator's namespace.
    fn turn(&self, rig: &mut Rig, load: Load, is_first: bool) -> Result<f64> {
        let (kind, flows, frames) = load.of();
        // All flows are there before they are measured.
        let frames = if is_first {
            frames.max(u32::try_from(2 * flows.min(1 << 16)).unwrap_or(0))
        } else {
            frames
        };
        let flags = if kind == Kind::Syn { SYN } else { ACK };
        rig.set(&Traffic {
            frame: frame(world::vip(Family::V4, 0), flags),
            flows,
            services: 1,
            verdict: Verdict::Transmit,
        });
        let processor = settle();
        let before = (self.passed(rig)?, softirq_time(processor));
        let time = rig.send(self.link, frames).map_err(refused)?;
        let mut arrived = 0;
        for _wait in 0..50 {
            arrived = self.passed(rig)? - before.0;
            if arrived >= u64::from(frames) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let time = time + softirq_time(processor).saturating_sub(before.1);
        let part = arrived as f64 / f64::from(frames);
        if part < ARRIVE {
            let said = format!("{}: {arrived} of {frames} frames arrived", load.name());
            return Err(Error::Agent { node: self.path.name(), said });
        }
        Ok(time.as_secs_f64() * 1e9 / f64::from(frames))
    }

    /// Frames that got through so far.
    fn passed(&self, rig: &Rig) -> Result<u64> {
        match self.path {
            Path::Floor(_) | Path::Buoy(_) | Path::Redirected => Ok(rig.arrived()),
            Path::Nft => self.inside.enter(sent_by_out),
        }
    }
}

fn index(name: &str) -> Result<LinkId> {
    let index = nix::net::if_::if_nametoindex(name);
    index.map(LinkId).map_err(Error::errno(format!("find {name}")))
}

fn without_checksums(name: &str) -> Result<()> {
    offload::set(name, Offload::SendChecksums, false)
        .map_err(Error::system(format!("switch the checksums of {name} off")))
}

/// The fast path with one service on this interface of this thread's namespace.
fn balance(interface: &str, how: How) -> Result<Fast> {
    without_checksums(interface)?;
    let link = index(interface)?;
    let path = World::one(how, Family::V4).path()?;
    let mut fast = Fast::open_unpinned(Capacity::of(&path)).map_err(refused)?;
    fast.apply(&path, &mut |to| world::way(link, OWN_MAC, to)).map_err(refused)?;
    fast.attach(link).map_err(refused)?;
    Ok(fast)
}

/// The same service by nftables, its backends behind another interface. It takes frames as cheaply as it can:
/// gathered, without a program before it, and without looking at checksums.
fn translate(run: &str, inside: &Namespace, interface: &str) -> Result<Namespace> {
    let end = Namespace::create(run, "end")?;
    end.sysctl("ipv6.conf.default.disable_ipv6", "1")?;
    inside.ip(&format!("link add out type veth peer name end netns {}", end.name()))?;
    end.ip("link set end up")?;
    for line in [
        "link set out up",
        "addr add 10.201.0.1/24 dev out",
        "neigh add 10.201.0.2 lladdr 02:00:00:00:00:02 nud permanent dev out",
        "route add 11.0.0.0/8 via 10.201.0.2",
    ] {
        inside.ip(line)?;
    }
    inside.ip(&format!("addr add {}/16 dev {interface}", world::own(Family::V4)))?;
    for (key, value) in [
        ("ipv4.ip_forward", "1"),
        ("ipv4.conf.all.rp_filter", "0"),
        ("ipv4.conf.default.rp_filter", "0"),
        (&format!("ipv4.conf.{interface}.rp_filter"), "0"),
    ] {
        inside.sysctl(key, value)?;
    }
    let backends = (0..BACKENDS).fold(String::new(), |mut text, n| {
        let comma = if n == 0 { "" } else { ", " };
        let _infallible = write!(text, "{comma}{n} : {} . 8080", world::backend(Family::V4, n));
        text
    });
    let vip = world::vip(Family::V4, 0);
    inside.nft(&format!(
        "table ip bench {{\nchain pre {{\ntype nat hook prerouting priority dstnat\n\
         ip daddr {} tcp dport {} dnat ip to jhash ip saddr . tcp sport mod {BACKENDS} seed 0x62756f79 map {{ {backends} }}\n}}\n}}\n",
        vip.ip(),
        vip.port()
    ))?;
    inside.sysctl("netfilter.nf_conntrack_checksum", "0")?;
    inside.enter(|| {
        offload::set(interface, Offload::Gather, true)
            .map_err(Error::system("gather frames before nftables"))
    })??;
    Ok(end)
}

/// What the interface towards the backends sent, in this thread's namespace.
fn sent_by_out() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("out:"));
    line.and_then(|rest| rest.split_whitespace().nth(9)?.parse().ok()).unwrap_or(0)
}

/// Stays on one processor, and says which.
fn settle() -> usize {
    let mut only = CpuSet::new();
    let _ = only.set(0).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only));
    0
}

/// The time of the kernel's thread that takes over what softirqs leave.
fn softirq_time(processor: usize) -> Duration {
    let name = format!("ksoftirqd/{processor}\n");
    let Ok(processes) = std::fs::read_dir("/proc") else { return Duration::ZERO };
    for process in processes.flatten() {
        let path = process.path();
        if std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm == name) {
            let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
            let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
            return Duration::from_nanos(nanos.unwrap_or(0));
        }
    }
    Duration::ZERO
}
