//! `buoy lab`: a cluster in network namespaces on this machine.

use crate::failure::{Exit, Failure};
use buoy_lab::bench::{self, Case};
use buoy_lab::demo;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Build the lab and leave it standing
    Up,
    /// Take away what `up` left
    Down,
    /// Break everything before your eyes and measure it; exit 0 only if every promise held
    Demo(DemoArguments),
    /// Measure against keepalived, and write down the figures
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// The same faults for Buoy and keepalived in turns; idle cost, many VIPs, minutes of calm
    Failover(FailoverArguments),
    /// What many VIPs cost that have nothing to do, and whether one of them moves
    Idle(IdleArguments),
    /// What it costs to ask many backends every second, beside a bare loop that connects as often
    Checks(ChecksArguments),
    /// Which of many connections outlive owners that die, beside HAProxy, nftables and conntrackd
    Connections(ConnectionsArguments),
    /// What API and page cost: memory, processor, answers with many VIPs, heartbeats while 200 ask or 300 checks meet harm
    Faces(FacesArguments),
    /// What a packet costs on the fast path, beside simple programs and nftables, and what its tables cost
    Xdp(XdpArguments),
    /// Mode "proxy" beside HAProxy and nginx, mode "kernel" beside nftables by hand
    Balance(BalanceArguments),
}

#[derive(clap::Args, Debug)]
pub(crate) struct BalanceArguments {
    /// How often each system has its turn with each load
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// How long a turn is
    #[arg(long, value_name = "S", default_value_t = 1.5)]
    seconds: f64,
    /// Idle connections whose memory is measured
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    idle: u32,
    /// Only to see that it works: one short round, few connections
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "idle"])]
    quick: bool,
    /// Only systems whose name has one of these words, as in `--only "kernel,by hand"`
    #[arg(long, value_name = "WORD,..", value_delimiter = ',')]
    only: Vec<String>,
    /// Where the report goes
    #[arg(long, value_name = "FILE", default_value = "bench/results/balance.md")]
    report: PathBuf,
}

#[derive(clap::Args, Debug)]
pub(crate) struct XdpArguments {
    /// How often each case has its turn
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    rounds: u16,
    /// Packets of one turn
    #[arg(long, value_name = "N", default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    packets: u32,
    /// Numbers of services beside one; 10,000 take 6 GiB of memory
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1000, 10_000], value_parser = clap::value_parser!(u32).range(2..=10_000))]
    services: Vec<u32>,
    /// Only the packets whose case has one of these words in its name, beside the floors; the word `frames`
    /// stands for the frames through veth pairs, `down` for the backend that goes down
    #[arg(long, value_name = "WORD,..", value_delimiter = ',')]
    only: Vec<String>,
    /// Where the report goes
    #[arg(long, value_name = "FILE", default_value = "bench/results/xdp.md")]
    report: PathBuf,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ChecksArguments {
    /// How many backends, each asked once a second
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(100..=50_000))]
    backends: u16,
    /// How long each is measured
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// Where the report goes
    #[arg(long, value_name = "FILE", default_value = "bench/results/checks.md")]
    report: PathBuf,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ConnectionsArguments {
    /// How many connections each system has
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u16).range(60..=5000))]
    connections: u16,
    /// Where the report goes
    #[arg(long, value_name = "FILE", default_value = "bench/results/connections.md")]
    report: PathBuf,
}

#[derive(clap::Args, Debug)]
pub(crate) struct FacesArguments {
    /// How long each is measured
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Where the report goes
    #[arg(long, value_name = "FILE", default_value = "bench/results/faces.md")]
    report: PathBuf,
}

#[derive(clap::Args, Debug)]
pub(crate) struct IdleArguments {
    /// How many VIPs, all on one node
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1000))]
    vips: u16,
    /// For how long
    #[arg(long, value_name = "M", default_value_t = 10.0)]
    minutes: f64,
    /// Where the report goes
    #[arg(long, value_name = "FILE", default_value = "bench/results/idle.md")]
    report: PathBuf,
}

#[derive(clap::Args, Debug)]
pub(crate) struct FailoverArguments {
    /// How often each fault happens to each system
    #[arg(long, value_name = "N", default_value_t = 20)]
    repeat: usize,
    /// How long nothing should happen, under load and again under loss; 0 leaves both out
    #[arg(long, value_name = "M", default_value_t = 10.0)]
    minutes: f64,
    /// This fault and nothing else
    #[arg(long, value_name = "FAULT", value_enum)]
    only: Option<Only>,
    /// Where the report goes; the raw figures go beside it, in JSON
    #[arg(long, value_name = "FILE", default_value = "bench/results/failover.md")]
    report: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Only {
    Planned,
    Crash,
    CrashAll,
    Freeze,
    Unplug,
    Cut,
}

impl Only {
    const fn case(self) -> Case {
        match self {
            Self::Planned => Case::Planned,
            Self::Crash => Case::Crash,
            Self::CrashAll => Case::CrashAll,
            Self::Freeze => Case::Freeze,
            Self::Unplug => Case::Unplug,
            Self::Cut => Case::SilentCut,
        }
    }
}

#[derive(clap::Args, Debug)]
pub(crate) struct DemoArguments {
    /// For those in a hurry: fewer repetitions
    #[arg(long, conflicts_with = "repeats")]
    quick: bool,
    /// How often each fault happens
    #[arg(long, value_name = "N")]
    repeats: Option<usize>,
    /// Leave out the comparison with keepalived
    #[arg(long)]
    no_peers: bool,
    /// Write the raw figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a capture of the whole segment to this file
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up => buoy_lab::up().map_err(Failure::failed),
        Command::Down => buoy_lab::down().map_err(Failure::failed),
        Command::Demo(arguments) => demo(arguments),
        Command::Bench(Bench::Failover(arguments)) => failover(arguments),
        Command::Bench(Bench::Idle(arguments)) => idle(arguments),
        Command::Bench(Bench::Checks(arguments)) => checks(arguments),
        Command::Bench(Bench::Connections(arguments)) => connections(arguments),
        Command::Bench(Bench::Faces(arguments)) => faces(arguments),
        Command::Bench(Bench::Xdp(arguments)) => xdp(arguments),
        Command::Bench(Bench::Balance(arguments)) => balance(arguments),
    }
}

fn minutes(asked: f64) -> Result<Duration, Failure> {
    let minutes = Duration::try_from_secs_f64(asked * 60.0);
    minutes.map_err(|error| Failure::failed(format!("--minutes: {error}")))
}

fn idle(arguments: IdleArguments) -> Result<(), Failure> {
    let options = bench::IdleOptions {
        vips: arguments.vips.into(),
        minutes: minutes(arguments.minutes)?,
        report: arguments.report,
    };
    bench::idle(&options).map_err(Failure::failed)
}

fn checks(arguments: ChecksArguments) -> Result<(), Failure> {
    let options = bench::ChecksOptions {
        backends: arguments.backends.into(),
        time: Duration::from_secs(arguments.seconds.into()),
        report: arguments.report,
    };
    bench::checks(&options).map_err(Failure::failed)
}

fn connections(arguments: ConnectionsArguments) -> Result<(), Failure> {
    let options = bench::ConnectionsOptions {
        connections: arguments.connections.into(),
        report: arguments.report,
    };
    bench::connections(&options).map_err(Failure::failed)
}

fn faces(arguments: FacesArguments) -> Result<(), Failure> {
    let options = bench::FacesOptions {
        time: Duration::from_secs(arguments.seconds.into()),
        report: arguments.report,
    };
    bench::faces(&options).map_err(Failure::failed)
}

fn xdp(arguments: XdpArguments) -> Result<(), Failure> {
    let options = bench::XdpOptions {
        rounds: arguments.rounds.into(),
        packets: arguments.packets,
        services: arguments.services,
        only: arguments.only,
        report: arguments.report,
    };
    bench::xdp(&options).map_err(Failure::failed)
}

fn balance(arguments: BalanceArguments) -> Result<(), Failure> {
    let (rounds, seconds, idle) = match arguments.quick {
        true => (1, 0.1, 200),
        false => (arguments.rounds, arguments.seconds, arguments.idle),
    };
    let turn = Duration::try_from_secs_f64(seconds).ok().filter(|turn| !turn.is_zero());
    let turn = turn.ok_or_else(|| Failure::failed("--seconds: a turn takes some time"))?;
    let options = bench::BalanceOptions {
        rounds: rounds.into(),
        turn,
        idle: usize::try_from(idle).unwrap_or(usize::MAX),
        only: arguments.only,
        report: arguments.report,
    };
    bench::balance(&options).map_err(Failure::failed)
}

fn failover(arguments: FailoverArguments) -> Result<(), Failure> {
    let options = bench::Options {
        repeat: arguments.repeat,
        minutes: minutes(arguments.minutes)?,
        only: arguments.only.map(Only::case),
        report: arguments.report,
    };
    bench::failover(&options).map(drop).map_err(Failure::failed)
}

fn demo(arguments: DemoArguments) -> Result<(), Failure> {
    let mut options =
        if arguments.quick { demo::Options::quick() } else { demo::Options::default() };
    options.repeats = arguments.repeats.unwrap_or(options.repeats);
    options.peers = options.peers && !arguments.no_peers;
    options.json = arguments.json;
    options.capture = arguments.capture;
    let outcome = demo::run(&options).map_err(Failure::failed)?;
    // The demo has said which promise was broken.
    if outcome.held() { Ok(()) } else { Err(Failure::said(Exit::Failed)) }
}
