//! What balancing costs: mode "proxy" beside HAProxy and nginx, mode "kernel" beside nftables by hand, in one run.
//!
//! All systems stand at once, each in a namespace of its own between the same clients and the same backends
//! (`stand`), and take turns load by load, round by round, so that a bad moment of the machine hits all of them. `load`
//! makes the load and answers it, `bare` is the least that a proxy can be, `page` judges and writes it down.

mod bare;
mod load;
mod page;
mod stand;

use crate::{Result, command, namespace, privilege};
use load::{Figures, Kind};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use stand::{Field, System};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Questions a second of the load whose waits are judged: well below what any of them can.
const PACE: u32 = 4000;
/// Connections of each load.
const CONNECTIONS: usize = 64;
const STREAMS: usize = 8;
/// How long the memory of idle connections may settle.
const SETTLE: Duration = Duration::from_millis(1500);

/// What the caller may choose.
#[derive(Clone, Debug)]
pub struct BalanceOptions {
    /// How often each system has its turn with each load.
    pub rounds: usize,
    /// How long a turn is.
    pub turn: Duration,
    /// Idle connections whose memory is measured.
    pub idle: usize,
    /// Only systems whose name has one of these words; without any: all.
    pub only: Vec<String>,
    /// Where the report goes.
    pub report: PathBuf,
}

/// A load, in the order of the page.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Load {
    Connections,
    Questions,
    Stream,
    Paced,
}

impl Load {
    const ALL: [Self; 4] = [Self::Connections, Self::Questions, Self::Stream, Self::Paced];

    /// How many turns a round has, and what part of a turn each of them takes. A p99 of waits leaps from turn to turn by
    /// when the machine gives whom a processor, several times more than systems differ: it takes many to tell two apart.
    const fn turns(self) -> (u32, u32) {
        match self {
            Self::Paced => (8, 4),
            Self::Connections | Self::Questions | Self::Stream => (1, 1),
        }
    }

    fn run(self, system: System, turn: Duration) -> Result<Figures> {
        let (kind, connections) = match self {
            Self::Connections => (Kind::Connect, CONNECTIONS),
            Self::Questions => (Kind::Ask, CONNECTIONS),
            Self::Stream => (Kind::Stream, STREAMS),
            Self::Paced => (Kind::Paced(PACE), CONNECTIONS),
        };
        load::run(system.target(), kind, connections, turn)
    }
}

/// One turn of a system.
#[derive(Clone, Debug)]
struct Turn {
    figures: Figures,
    /// Processor time of the system's own processes meanwhile.
    cpu: Option<Duration>,
}

/// What idle connections take.
#[derive(Clone, Copy, Debug)]
struct Idle {
    connections: usize,
    bytes: u64,
}

/// All that was measured.
#[derive(Debug, Default)]
struct Outcome {
    turns: BTreeMap<(Load, System), Vec<Turn>>,
    idle: BTreeMap<System, Idle>,
    notes: Vec<String>,
}

/// Measures and writes the report. May restart this program in a user namespace, so call it first.
pub fn balance(options: &BalanceOptions) -> Result<()> {
    let start = Instant::now();
    privilege::acquire()?;
    namespace::remove_all_on_signal();
    command::require("nft", "apt-get install nftables")?;
    let folder = namespace::folder(&std::process::id().to_string())?;
    let mut outcome = Outcome::default();
    let descriptors = raise_descriptors();
    // Each connection takes two of a proxy, and of this process; HAProxy wants half a one more for pipes.
    let most = descriptors.saturating_sub(500) * 2 / 5;
    let mut field = Field::build(folder.path(), most, &options.only)?;
    for system in &field.missing {
        outcome.notes.push(format!("{} is not installed and was left out", system.name()));
    }
    for round in 0..options.rounds {
        println!("Round {} of {}.", round + 1, options.rounds);
        for load in Load::ALL {
            let (turns, part) = load.turns();
            for _ in 0..turns {
                take_turns((load, options.turn / part), &field, &mut outcome)?;
            }
        }
        // Nobody always comes after the same one.
        field.stands.reverse();
    }
    let idle = options.idle.min(most.saturating_sub(CONNECTIONS));
    if idle < options.idle {
        outcome.notes.push(format!(
            "{idle} idle connections instead of {}: a process may have {descriptors} descriptors here",
            options.idle
        ));
    }
    measure_idle(&field, idle, &mut outcome)?;
    drop(field);
    let text = page::render(options, &outcome, start.elapsed());
    crate::bench::report::save(&options.report, &text)
}

/// Each system once.
fn take_turns((load, time): (Load, Duration), field: &Field, outcome: &mut Outcome) -> Result<()> {
    for stand in &field.stands {
        let before = stand.cpu_time();
        let figures = match field.clients.enter(|| load.run(stand.system, time))? {
            Ok(figures) => figures,
            Err(error) => {
                outcome.notes.push(format!("{}, {load:?}: {error}", stand.system.name()));
                continue;
            }
        };
        let after = stand.cpu_time();
        let cpu = after.zip(before).map(|(after, before)| after.saturating_sub(before));
        let turn = Turn { figures, cpu };
        println!("  {}", page::line(load, stand.system, &turn));
        outcome.turns.entry((load, stand.system)).or_default().push(turn);
    }
    Ok(())
}

/// As many as this process may have, which the programs that it starts inherit.
fn raise_descriptors() -> usize {
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok();
    let most: u64 = most.and_then(|text| text.trim().parse().ok()).unwrap_or(20_000);
    // Without the right to more, what is allowed is taken.
    if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_err()
        && let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
    {
        let _kept_as_it_is = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let now = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from(now).unwrap_or(usize::MAX)
}

fn measure_idle(field: &Field, connections: usize, outcome: &mut Outcome) -> Result<()> {
    for stand in field.stands.iter().filter(|stand| stand.system.is_proxy()) {
        let before = stand.memory();
        let open = field.clients.enter(|| load::open(stand.system.target(), connections))?;
        match open {
            Ok(open) => {
                std::thread::sleep(SETTLE);
                let bytes = stand.memory().zip(before).map(|(now, then)| now.saturating_sub(then));
                if let Some(bytes) = bytes {
                    println!(
                        "  {connections} idle connections of {}: {bytes} bytes",
                        stand.system.name()
                    );
                    outcome.idle.insert(stand.system, Idle { connections, bytes });
                }
                drop(open);
            }
            Err(error) => {
                outcome.notes.push(format!("{}, idle connections: {error}", stand.system.name()));
            }
        }
    }
    Ok(())
}
