//! What the faces of an agent cost: memory and time when nobody looks, how fast the API answers with many VIPs, and
//! whether two hundred who ask, a page that is open, or hundreds of harmful servers delay its heartbeats (`beats`).

mod beats;

use super::floor::{self, Work};
use super::many::MASS;
use super::ready::Ready;
use super::report;
use crate::agent::{Buoy, config_head};
use crate::keepalived::Keepalived;
use crate::peer::Peer;
use crate::probe::{median, percentile};
use crate::segment::Segment;
use crate::topology::{Topology, wide_ipv4};
use crate::{Error, Result, agent, namespace, privilege};
use beats::Heartbeats;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long agents may take until every VIP has an owner.
const OWNED_MAX: Duration = Duration::from_secs(60);
/// What a daemon does in its first seconds is not its everyday work.
const SETTLE: Duration = Duration::from_secs(15);
/// The same, for a daemon with one VIP.
const SETTLE_ONE: Duration = Duration::from_secs(8);
/// How often Buoy, the bare heartbeats and keepalived take turns.
const ROUNDS: usize = 3;
/// The goal for one VIP, in hundredths of one processor.
const GOAL: f64 = 0.3;
/// Where heartbeats are fewer: what it is called, how many nodes, and what is in the file.
const CALMER: [(&str, usize, &str); 3] = [
    ("1 VIP, heartbeats every 50 ms, a lease of 160 ms", 3, "heartbeat = \"50ms\"\n"),
    ("1 VIP, heartbeats every 100 ms, a lease of 320 ms", 3, "heartbeat = \"100ms\"\n"),
    ("1 VIP, a node without peers", 1, ""),
];
/// Questions of each kind, one after the other.
const QUESTIONS: usize = 300;
/// Backends of each of the many VIPs.
const BACKENDS: usize = 10;

/// What the caller may choose.
#[derive(Clone, Debug)]
pub struct FacesOptions {
    /// How long each is measured.
    pub time: Duration,
    /// Where the report goes.
    pub report: PathBuf,
}

/// A daemon at rest.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// Bytes of memory of all of its processes.
    memory: u64,
    work: Work,
}

/// One round: all three have the same machine, which sleeps as deeply for each.
#[derive(Clone, Copy, Debug)]
struct Round {
    buoy: Rest,
    /// The same heartbeats with nothing behind them.
    bare: Work,
    /// Of two nodes, the owner.
    keepalived: Rest,
}

/// How long a question takes.
#[derive(Clone, Debug)]
struct Asked {
    what: &'static str,
    took: Took,
    /// What the same bytes take from a server that has them ready, and how many they are.
    ready: Option<(Took, usize)>,
}

/// How long many of them take.
#[derive(Clone, Copy, Debug)]
struct Took {
    median: Duration,
    p99: Duration,
}

/// Measures and writes the report. May restart this program in a user namespace, so call it first.
pub fn faces(options: &FacesOptions) -> Result<()> {
    let mode = privilege::acquire()?;
    namespace::remove_all_on_signal();
    agent::program()?;
    println!("One VIP, {}: Buoy, bare heartbeats and keepalived in turns.", mode.describe());
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 1..ROUNDS {
        let (segment, buoy) = stand(1, 0, SETTLE_ONE)?;
        rounds.push(round(&segment, buoy, options.time / 4)?);
    }
    let (segment, mut buoy) = stand(1, 0, SETTLE_ONE)?;
    let heartbeats = beats::measure(&segment, &mut buoy, options.time)?;
    drop(buoy);
    drop(segment);
    let (segment, buoy) = stand(1, 0, SETTLE_ONE)?;
    rounds.push(round(&segment, buoy, options.time / 4)?);
    drop(segment);
    println!("One VIP, of a node without peers and with slower heartbeats.");
    let calmer = CALMER.map(|(_, nodes, settings)| {
        let (segment, mut buoy) = stand_with(nodes, settings, (1, 0), SETTLE_ONE)?;
        let calm = rest(&mut buoy, options.time / 2)?;
        drop((buoy, segment));
        Ok(calm)
    });
    let calmer = calmer.into_iter().collect::<Result<Vec<Rest>>>()?;
    println!("{MASS} VIPs with {BACKENDS} backends each.");
    let (segment, mut buoy) = stand(MASS, BACKENDS, SETTLE)?;
    let many = rest(&mut buoy, options.time)?;
    let asked = ask(&buoy, &segment)?;
    let text = render(options, (&rounds, &calmer, many), &asked, &heartbeats);
    report::save(&options.report, &text)
}

fn stand(vips: usize, backends: usize, settle: Duration) -> Result<(Segment, Buoy)> {
    stand_with(3, "", (vips, backends), settle)
}

fn stand_with(
    nodes: usize,
    settings: &str,
    (vips, backends): (usize, usize),
    settle: Duration,
) -> Result<(Segment, Buoy)> {
    let segment = Segment::build(Topology::with_nodes(nodes).with_wide_subnet(), &mut |_| {})?;
    let mut text = config_head(&segment.topology) + settings;
    for n in 0..vips {
        // Infallible: a `String` takes whatever is written to it.
        let _ = writeln!(text, "[[vip]]\nname = \"vip{n}\"\naddress = \"{}/16\"", wide_ipv4(n));
        text.push_str("prefer = [\"n1\"]\n");
        if backends > 0 {
            let all = (0..backends).map(|b| format!("\"10.99.{}.{}:80\"", n % 250, b + 1));
            let all: Vec<String> = all.collect();
            let _ = writeln!(
                text,
                "[[vip.service]]\nport = \"80/tcp\"\nbackends = [{}]\ncheck = false",
                all.join(", ")
            );
        }
    }
    let mut buoy = Buoy::new(&segment, &text)?;
    buoy.start_all(&segment)?;
    let owned = |status: &buoy_api::ClusterStatus| status.vips.iter().all(|vip| vip.mine);
    buoy.wait_status("n1", OWNED_MAX, "n1 to own every VIP", owned)?;
    std::thread::sleep(settle);
    Ok((segment, buoy))
}

/// All three, one after the other.
fn round(segment: &Segment, mut buoy: Buoy, time: Duration) -> Result<Round> {
    let rested = rest(&mut buoy, time)?;
    drop(buoy);
    let bare = floor::work(segment, time)?;
    Ok(Round { buoy: rested, bare, keepalived: keepalived(segment, time)? })
}

/// keepalived with one VRRP instance that advertises as often as Buoy's heartbeats go.
fn keepalived(segment: &Segment, time: Duration) -> Result<Rest> {
    let mut keepalived =
        Keepalived::with_instances(floor::INTERVAL, vec![vec![(wide_ipv4(0), 16)]])?;
    for node in keepalived.nodes() {
        keepalived.start(segment, node)?;
    }
    std::thread::sleep(SETTLE_ONE);
    rest(&mut keepalived, time)
}

fn rest(peer: &mut impl Peer, time: Duration) -> Result<Rest> {
    let process = peer.process("n1")?;
    let pids: Vec<u32> = std::iter::once(process.pid()).chain(process.children()).collect();
    let (before, from) = (floor::worked(&pids)?, Instant::now());
    std::thread::sleep(time);
    let work = floor::worked(&pids)?.since(before, from.elapsed());
    Ok(Rest { memory: resident(&pids), work })
}

/// Bytes that processes of one program have in memory: the program itself is there once.
fn resident(pids: &[u32]) -> u64 {
    let kib = |pid: u32, name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.unwrap_or_default()
    };
    let own = pids.iter().map(|pid| kib(*pid, "RssAnon:") + kib(*pid, "RssShmem:"));
    let program = pids.iter().map(|pid| kib(*pid, "RssFile:")).max();
    (own.sum::<u64>() + program.unwrap_or_default()) << 10
}

fn ask(buoy: &Buoy, segment: &Segment) -> Result<Vec<Asked>> {
    let client = buoy.client("n1")?;
    // On a machine with fewer processors than agents it may have given some of them up meanwhile.
    let mine = client.status().map_err(failed)?.vips.into_iter().find(|vip| vip.mine);
    let none =
        || Error::Agent { node: "n1".to_owned(), said: "it owns no VIP any more".to_owned() };
    let vip = mine.ok_or_else(none)?.name;
    let page = format!("/v1/vips?limit=50&after={vip}");
    let questions: [(&str, &str); 11] = [
        ("who owns one VIP (`/v1/vips/{vip}/owner`)", &format!("/v1/vips/{vip}/owner")),
        ("why one VIP is where it is (`/v1/vips/{vip}/why`)", &format!("/v1/vips/{vip}/why")),
        ("one service (`/v1/services/{service}`)", &format!("/v1/services/{vip}:80-tcp")),
        ("20 events (`/v1/events`)", "/v1/events?n=20"),
        ("a page of 50 VIPs, with their backends (`/v1/vips?limit=50`)", &page),
        ("50 VIPs' services (`/v1/services?limit=50`)", "/v1/services?limit=50"),
        ("50 VIPs' backends (`/v1/backends?limit=50`)", "/v1/backends?limit=50"),
        ("all VIPs (`/v1/vips`)", "/v1/vips"),
        ("all services (`/v1/services`)", "/v1/services"),
        ("all backends (`/v1/backends`)", "/v1/backends"),
        ("all that there is (`/v1/status`)", "/v1/status"),
    ];
    let mut asked = Vec::new();
    for (what, target) in questions {
        let body = client.text(target).map_err(failed)?;
        let took = time(&|| client.text(target).map(drop))?;
        let path = segment.file("ready.sock");
        let ready = Ready::start(&path, &body)?;
        let bare = buoy_api::Client::connect(&path).map_err(failed)?;
        let bare = time(&|| bare.text("/").map(drop))?;
        drop(ready);
        asked.push(Asked { what, took, ready: Some((bare, body.len())) });
    }
    let mut understood = |what, ask: &dyn Fn() -> Answered| -> Result<()> {
        asked.push(Asked { what, took: time(ask)?, ready: None });
        Ok(())
    };
    understood("the page of 50 VIPs, asked for and understood by the client", &|| {
        client.vips_page(50, Some(&vip)).map(drop)
    })?;
    understood(
        "all that there is, understood: ten thousand backends, each with its name and its reason",
        &|| client.status().map(drop),
    )?;
    Ok(asked)
}

type Answered = std::result::Result<(), buoy_api::ClientError>;

fn failed(error: buoy_api::ClientError) -> Error {
    Error::Agent { node: "n1".to_owned(), said: error.to_string() }
}

/// How long the same question takes, again and again.
fn time(ask: &dyn Fn() -> Answered) -> Result<Took> {
    let mut took = Vec::with_capacity(QUESTIONS);
    for _ in 0..QUESTIONS {
        let from = Instant::now();
        ask().map_err(failed)?;
        took.push(from.elapsed());
    }
    Ok(Took { median: median(&took), p99: percentile(&took, 99) })
}

fn kept(is_kept: bool) -> &'static str {
    if is_kept { "kept" } else { "missed" }
}

/// The value in the middle of what the rounds say.
fn middle<T>(rounds: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Memory and time when nobody looks: medians of the rounds, and of what they say of each other.
fn render_rest(rounds: &[Round], calmer: &[Rest], many: Rest) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut text = format!(
        "## When nobody looks\n\nThe owner of all VIPs, of three nodes with the defaults: memory of agent and supervisor (resident; what both have of the program counts once), hundredths of one processor of both, \
         and how often one of their threads gets a processor (`/proc/PID/task/*/schedstat`). Medians of {ROUNDS} rounds, in each of which Buoy, the bare heartbeats and keepalived take turns: most of what a wake costs \
         is that a processor has slept before, and how deeply depends on the machine and the moment. Backends are not checked here (`bench-checks` has that).\n\n\
         | | memory, MiB | goal | processor, % | goal | wakes a second | each, us |\n|---|--:|---|--:|---|--:|--:|\n"
    );
    let work = |of: &dyn Fn(&Round) -> Work, goal: &str| {
        let share = middle(rounds, |round| of(round).share);
        let wakes = middle(rounds, |round| of(round).wakes);
        let each = middle(rounds, |round| of(round).each());
        format!("{share:.2} | {goal} | {wakes:.0} | {each:.0} |")
    };
    let share = middle(rounds, |round| round.buoy.work.share);
    let one = work(&|round| round.buoy.work, &format!("{GOAL}: {}", kept(share <= GOAL)));
    let bare = work(&|round| round.bare, "");
    let keepalived = work(&|round| round.keepalived.work, "");
    let mass = work(&|_| many.work, "");
    let mut calm = String::new();
    for ((name, ..), rest) in CALMER.iter().zip(calmer) {
        let work = work(&|_| rest.work, &format!("{GOAL}: {}", kept(rest.work.share <= GOAL)));
        // Infallible: a `String` takes whatever is written to it.
        let _ = writeln!(calm, "| {name} | {:.1} | | {work}", mib(rest.memory));
    }
    let memory = middle(rounds, |round| mib(round.buoy.memory));
    let theirs = middle(rounds, |round| mib(round.keepalived.memory));
    let many = mib(many.memory);
    // Infallible: a `String` takes whatever is written to it.
    let _ = writeln!(
        text,
        "| 1 VIP | {memory:.1} | 15: {} | {one}\n| the same heartbeats, bare | | | {bare}\n\
         | keepalived, 1 VIP on two nodes, an advertisement every 10 ms | {theirs:.1} | | {keepalived}\n\
         {calm}| {MASS} VIPs with {BACKENDS} backends each | {many:.1} | 80: {} | {mass}",
        kept(memory <= 15.0),
        kept(many <= 80.0),
    );
    let wakes = middle(rounds, |round| round.bare.wakes);
    let is_possible = middle(rounds, |round| round.bare.share) <= GOAL;
    let _ = writeln!(
        text,
        "\nIn one round Buoy takes {:.2} times what the bare heartbeats take, and {:.2} times what keepalived takes. The goal of {GOAL} % leaves {:.0} us for each of the {wakes:.0} wakes of the bare heartbeats, \
         which take {:.0} us here: what says a heartbeat every 10 ms to two nodes and answers theirs {} keep it on this machine, whatever else it does.",
        middle(rounds, |round| round.buoy.work.share / round.bare.share),
        middle(rounds, |round| round.buoy.work.share / round.keepalived.work.share),
        GOAL * 1e4 / wakes,
        middle(rounds, |round| round.bare.each()),
        if is_possible { "can" } else { "cannot" },
    );
    text
}

fn render(
    options: &FacesOptions,
    (rounds, calmer, many): (&[Round], &[Rest], Rest),
    asked: &[Asked],
    heartbeats: &Heartbeats,
) -> String {
    let mut text = format!(
        "# What the faces of an agent cost\n\nWritten by `make bench-faces` (`buoy lab bench faces --seconds {}`).\n\n\
         | | |\n|---|---|\n{}\n",
        options.time.as_secs(),
        report::machine(),
    );
    text.push_str(&render_rest(rounds, calmer, many));
    let _ = write!(
        text,
        "\n## The API with {MASS} VIPs\n\nA client on the UNIX socket, {QUESTIONS} questions of each kind, one connection each. Goal: 5 ms. Beside each answer: how many bytes it has, \
         and what the same bytes take from a server that has them ready and does nothing else.\n\n\
         | | bytes | median, ms | 99 %, ms | | ready: median | 99 % |\n|---|--:|--:|--:|---|--:|--:|\n"
    );
    text.extend(asked.iter().map(row));
    text.push_str(&beats::render(heartbeats));
    text
}

/// One line of the table of answers.
fn row(Asked { what, took, ready }: &Asked) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let verdict = if ms(took.p99) <= 5.0 { "kept" } else { "missed" };
    let bytes = ready.map_or_else(String::new, |(_, bytes)| bytes.to_string());
    let bare = ready.map_or_else(
        || " | ".to_owned(),
        |(bare, _)| format!("{:.2} | {:.2}", ms(bare.median), ms(bare.p99)),
    );
    let (median, p99) = (ms(took.median), ms(took.p99));
    format!("| {what} | {bytes} | {median:.2} | {p99:.2} | {verdict} | {bare} |\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_compared_within_a_round() {
        let work = |share| Work { share, wakes: 100.0 };
        let round = |buoy, bare| Round {
            buoy: Rest { memory: 14 << 20, work: work(buoy) },
            bare: work(bare),
            keepalived: Rest { memory: 11 << 20, work: work(bare / 2.0) },
        };
        let rounds = [round(0.3, 0.2), round(3.0, 2.0), round(1.4, 1.0)];
        let many = Rest { memory: 90 << 20, work: work(7.0) };
        let calmer = [Rest { memory: 14 << 20, work: work(0.2) }];
        let text = render_rest(&rounds, &calmer, many);
        for line in [
            "| 1 VIP | 14.0 | 15: kept | 1.40 | 0.3: missed | 100 | 140 |",
            "| the same heartbeats, bare | | | 1.00 |  | 100 | 100 |",
            "| 1 VIP, heartbeats every 50 ms, a lease of 160 ms | 14.0 | | 0.20 | 0.3: kept | 100 | 20 |",
            "| 1000 VIPs with 10 backends each | 90.0 | 80: missed | 7.00 |  | 100 | 700 |",
            "Buoy takes 1.50 times what the bare heartbeats take, and 3.00 times what keepalived takes.",
            "leaves 30 us for each of the 100 wakes of the bare heartbeats, which take 100 us here",
            "answers theirs cannot keep it",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let text = render_rest(&[round(0.3, 0.2)], &[], many);
        assert!(text.contains("0.3: kept") && text.contains("theirs can keep it"), "{text}");
    }
}
