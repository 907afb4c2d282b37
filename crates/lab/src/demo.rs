//! Tells the story of an address that stays above water, and ends with figures that anybody can check.
//!
//! First each fault happens once, before the reader's eyes; then it is repeated, and then the
//! same happens to the peers that are installed. The demo fails if a promise did not hold.

#![allow(clippy::print_stdout, reason = "the demo is what it prints")]

use crate::agent::{Buoy, config_head};
use crate::capture::Capture;
use crate::fault::Fault;
use crate::keepalived::Keepalived;
use crate::peer::Peer;
use crate::probe::{http, median};
use crate::segment::{ECHO_PORT, HTTP_PORT, Segment};
use crate::topology::{Topology, ipv4};
use crate::trial::{CONNECTIONS, Figures, Session, TAKEOVER_MAX};
use crate::{Error, Result, namespace, privilege, table};
use serde_json::{Value, json};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the demo is silent at most.
const DOT_EVERY: Duration = Duration::from_millis(2_500);

/// The faults, the planned one first.
const FAULTS: [Fault; 6] =
    [Fault::Drain, Fault::Terminate, Fault::Kill, Fault::Freeze, Fault::Unplug, Fault::SilentCut];

/// What the caller may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often each fault happens to Buoy.
    pub repeats: usize,
    /// Whether keepalived stands beside it, where it is installed.
    pub peers: bool,
    /// Where the raw figures go.
    pub json: Option<PathBuf>,
    /// Where a capture of the whole segment goes.
    pub capture: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { repeats: 5, peers: true, json: None, capture: None }
    }
}

impl Options {
    /// For those in a hurry: each fault twice, and the fastest setting of keepalived once.
    pub fn quick() -> Self {
        Self { repeats: 2, ..Self::default() }
    }

    /// keepalived's settings to compare with, and how often each fault happens to them: at its
    /// default of one second every fault takes so long that twice must do.
    fn peer_settings(&self) -> Vec<(Duration, usize)> {
        let fast = (Duration::from_millis(100), self.repeats.div_ceil(2));
        let default = (Duration::from_secs(1), self.repeats.div_ceil(3));
        match (self.peers, self.repeats) {
            (false, _) => Vec::new(),
            (true, ..=2) => vec![fast],
            (true, _) => vec![fast, default],
        }
    }
}

/// How it ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Promises that did not hold, one sentence each.
    pub broken: Vec<String>,
}

impl Outcome {
    /// Whether every step held.
    pub fn held(&self) -> bool {
        self.broken.is_empty()
    }
}

/// All trials of one fault with one peer; no trials: the peer knows no such fault.
struct Row {
    peer: String,
    fault: Fault,
    trials: Vec<Figures>,
}

/// Runs the demo: builds the lab, tells, measures, prints the table. May restart this program in a
/// user namespace, so call it first thing.
pub fn run(options: &Options) -> Result<Outcome> {
    let start = Instant::now();
    let mode = privilege::acquire()?;
    namespace::remove_all_on_signal();
    println!("Buoy: what happens to an address when its host breaks");
    println!("Everything happens in network namespaces of this machine, {}.\n", mode.describe());

    let vip = ipv4(100);
    let segment = build()?;
    let _capture = capture(options, &segment)?;
    let mut buoy = Buoy::new(&segment, &config(&segment.topology))?;
    let mut outcome = Outcome::default();
    let mut rows = start_cluster(&mut buoy, &segment)
        .and_then(|()| story(&segment, &mut buoy, vip, options, &mut outcome))
        .inspect_err(|_| show_logs(&buoy))?;
    buoy.end()?;

    for (interval, repeats) in options.peer_settings() {
        match compare(&segment, vip, interval, repeats) {
            Ok(more) => rows.extend(more),
            Err(error @ Error::Missing { .. }) => {
                println!("\nSKIPPED: the comparison with keepalived: {error}");
                break;
            }
            Err(error) => println!("\nThe comparison with keepalived ended early: {error}"),
        }
    }
    conclude(&rows, options, &outcome, start)?;
    Ok(outcome)
}

fn build() -> Result<Segment> {
    let start = Instant::now();
    print!("Building the lab:");
    let segment = Segment::build(Topology::with_nodes(3), &mut |step| {
        print!(" {step}");
        flush();
    })?;
    println!(" ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(segment)
}

fn capture(options: &Options, segment: &Segment) -> Result<Option<Capture>> {
    let Some(file) = &options.capture else { return Ok(None) };
    match Capture::start(segment.switch.namespace(), "br0", file) {
        Ok(capture) => Ok(Some(capture)),
        Err(error @ Error::Missing { .. }) => {
            println!("SKIPPED: the capture: {error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Three VIPs: one balances over two web servers, two are served by their owners themselves.
pub fn config(topology: &Topology) -> String {
    let service = |port, protocol: &str| {
        format!(
            "  [[vip.service]]\n  port = \"{port}/{protocol}\"\n  \
             backends = [\"web1 {}:{port}\", \"web2 {}:{port}\"]\n",
            ipv4(21),
            ipv4(22)
        )
    };
    format!(
        "{}\n[[vip]]\nname = \"web\"\naddress = \"{}/24\"\n{}{}{}\n[[vip]]\nname = \"mail\"\n\
         address = \"{}/24\"\n\n[[vip]]\nname = \"db\"\naddress = \"{}/24\"\n",
        config_head(topology),
        ipv4(100),
        service(HTTP_PORT, "tcp"),
        service(ECHO_PORT, "tcp"),
        service(ECHO_PORT, "udp"),
        ipv4(101),
        ipv4(102),
    )
}

fn start_cluster(buoy: &mut Buoy, segment: &Segment) -> Result<()> {
    let start = Instant::now();
    print!("Starting three agents, the real ones:");
    flush();
    buoy.start_all(segment)?;
    println!(" they answer after {:.0} ms", ms(start.elapsed()));
    let first = buoy.nodes()[0];
    let status =
        buoy.wait_status(first, Duration::from_secs(10), "an owner for every VIP", |status| {
            status.vips.iter().all(|vip| vip.owner.is_some())
        })?;
    println!("  every VIP has an owner after {:.0} ms\n\nWho owns what:", ms(start.elapsed()));
    for vip in &status.vips {
        let addresses: Vec<_> = vip.addresses.iter().map(|a| a.address.as_str()).collect();
        let services: Vec<_> = vip.services.iter().map(|s| s.port.as_str()).collect();
        println!(
            "  {:<5} {:<15} {:<3} {}",
            vip.name,
            addresses.join(" "),
            vip.owner.as_deref().unwrap_or("nobody"),
            if services.is_empty() {
                "delivered to its owner".to_owned()
            } else {
                format!("{} balanced over web1 and web2", services.join(", "))
            }
        );
    }
    for defence in &status.defences {
        println!("  fence: {defence}");
    }
    Ok(())
}

fn story(
    segment: &Segment,
    buoy: &mut Buoy,
    vip: Ipv4Addr,
    options: &Options,
    outcome: &mut Outcome,
) -> Result<Vec<Row>> {
    println!(
        "\nA client asks {vip} all the time: 1000 datagrams and 200 short HTTP requests a second, and\n\
         {CONNECTIONS} connections that stay open. An observer asks a thousand times a second who has it."
    );
    let mut session = Session::begin(segment, buoy, vip)?;
    let mut rows = Vec::new();
    for (number, fault) in FAULTS.into_iter().enumerate() {
        println!("\n{}. {}", number + 1, fault.name());
        flush();
        let mut why = None;
        let ticker = Ticker::start();
        let figures = session.trial(fault, |session, figures| {
            why = figures.to.as_deref().and_then(|to| session.peer.why(to, vip));
        })?;
        if ticker.stop() {
            println!();
        }
        if let Some(figures) = &figures {
            tell(fault, figures, why.as_deref());
            judge(fault, figures, outcome);
        }
        rows.push(Row { peer: "buoy".to_owned(), fault, trials: figures.into_iter().collect() });
    }
    if 1 < options.repeats {
        println!("\nThe same again, so that it is no accident (outage seen by the client, in ms):");
    }
    for row in &mut rows {
        repeat(&mut session, row, options.repeats, |fault, f| judge(fault, f, outcome))?;
    }
    Ok(rows)
}

fn tell(fault: Fault, figures: &Figures, why: Option<&str>) {
    let from = &figures.from;
    println!(
        "   broken: {}",
        match fault {
            Fault::Drain => format!("nothing; {from}, which owned web, is taken out of service"),
            Fault::Terminate => format!("the agent of the owner {from} is stopped"),
            Fault::Kill => format!("the agent of the owner {from} is killed; its host lives on"),
            Fault::Freeze => format!("the agent of the owner {from} is frozen, and later thaws"),
            Fault::Unplug => format!("the cable of the owner {from} is pulled"),
            Fault::SilentCut => format!("the switch silently drops all frames of the owner {from}"),
            Fault::Crash
            | Fault::Hang
            | Fault::DeafSwitch
            | Fault::DeafHost
            | Fault::Loss(_)
            | Fault::PowerOff => fault.name(),
        }
    );
    match (&figures.to, figures.takeover) {
        (Some(to), Some(took)) => println!("   owner:  {to} answers after {:.1} ms", ms(took)),
        (None, _) | (_, None) => println!("   owner:  NOBODY TOOK OVER"),
    }
    println!(
        "   client: outage {}; of {} requests {} lost, {} late; {} of {} connections alive",
        outage(figures.outage),
        figures.requests.sent,
        figures.requests.lost,
        figures.requests.late,
        figures.survived,
        figures.connections,
    );
    println!(
        "   heal:   {from} is back: outage {}; time with two answerers {:.0} ms",
        outage(figures.outage_at_return),
        ms(figures.two_answerers)
    );
    if let Some(why) = why {
        println!("   why:    {why}");
    }
}

fn outage(outage: Duration) -> String {
    if outage.is_zero() { "none".to_owned() } else { format!("{:.1} ms", ms(outage)) }
}

/// Holds Buoy to its promises.
fn judge(fault: Fault, figures: &Figures, outcome: &mut Outcome) {
    let mut broken = |what: String| {
        println!("   BROKEN PROMISE: {what}");
        outcome.broken.push(format!("{}: {what}", fault.name()));
    };
    if figures.to.is_none() {
        broken(format!("nobody took over from {}", figures.from));
    }
    if !figures.two_answerers.is_zero() {
        broken(format!("two hosts answered for {:.0} ms", ms(figures.two_answerers)));
    }
    if fault == Fault::Drain && 0 < figures.requests.lost {
        let why = figures.requests.why.join(", ");
        broken(format!("a planned move lost {} requests ({why})", figures.requests.lost));
    }
}

fn repeat(
    session: &mut Session<'_>,
    row: &mut Row,
    repeats: usize,
    mut seen: impl FnMut(Fault, &Figures),
) -> Result<()> {
    if repeats <= row.trials.len() {
        return Ok(());
    }
    print!("  {:<18}", row.fault.name());
    for figures in &row.trials {
        print!(" {:>7.1}", ms(figures.outage));
    }
    flush();
    for _ in row.trials.len()..repeats {
        let ticker = Ticker::start();
        let figures = session.trial(row.fault, |_, _| {})?;
        ticker.stop();
        let Some(figures) = figures else {
            print!("     n/a");
            break;
        };
        print!(" {:>7.1}", ms(figures.outage));
        flush();
        seen(row.fault, &figures);
        row.trials.push(figures);
    }
    println!();
    Ok(())
}

fn compare(
    segment: &Segment,
    vip: Ipv4Addr,
    interval: Duration,
    repeats: usize,
) -> Result<Vec<Row>> {
    let mut keepalived = Keepalived::new(vip, interval)?;
    println!("\nThe same faults against {} in the same lab (outage in ms):", keepalived.name());
    for node in keepalived.nodes() {
        keepalived.start(segment, node)?;
    }
    let name = keepalived.name().to_owned();
    let mut session = Session::begin(segment, &mut keepalived, vip)?;
    let mut rows = Vec::new();
    for fault in FAULTS {
        let mut row = Row { peer: name.clone(), fault, trials: Vec::new() };
        repeat(&mut session, &mut row, repeats, |_, _| {})?;
        rows.push(row);
    }
    drop(session);
    for node in keepalived.nodes() {
        keepalived.leave(segment, node)?;
    }
    Ok(rows)
}

fn conclude(rows: &[Row], options: &Options, outcome: &Outcome, start: Instant) -> Result<()> {
    let headings = [
        "system",
        "fault",
        ">N",
        ">new owner",
        ">outage",
        ">worst",
        ">return",
        ">requests",
        ">lost",
        ">late",
        ">alive",
        ">two",
    ];
    let lines: Vec<Vec<String>> = rows.iter().map(line).collect();
    println!("\n{}", table::render(&headings, &lines));
    println!(
        "All times in ms. new owner: median time from the fault to its first answer to ARP. outage: median \
         and\nworst time without an answer to one datagram a millisecond; return: the worst when the \
         fault was healed.\nrequests: lost without an answer within {} s, or late after more than \
         {} s. alive: long connections that\nsurvived. two: the worst time in which two hosts \
         answered one ARP question.",
        http::ANSWER_MAX.as_secs_f64(),
        http::LATE.as_secs_f64(),
    );
    let stalls = rows.iter().flat_map(|row| &row.trials).map(|figures| figures.stall);
    let stall = ms(stalls.max().unwrap_or_default());
    println!("This machine let the lab's own clockwork stand still for up to {stall:.0} ms.");
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&raw(rows)).unwrap_or_default();
        std::fs::write(file, text).map_err(Error::system(format!("write {}", file.display())))?;
        println!("The raw figures are in {}.", file.display());
    }
    println!();
    for broken in &outcome.broken {
        println!("BROKEN PROMISE: {broken}");
    }
    let verdict = if outcome.held() { "Every step held" } else { "Not every step held" };
    println!("{verdict} ({:.0} s).", start.elapsed().as_secs_f64());
    Ok(())
}

fn line(row: &Row) -> Vec<String> {
    if row.trials.is_empty() {
        let dash = || "-".to_owned();
        let mut cells = vec![row.peer.clone(), row.fault.name(), "n/a".to_owned()];
        cells.extend([dash(), dash(), dash(), dash(), dash(), dash(), dash(), dash(), dash()]);
        return cells;
    }
    let of = |read: fn(&Figures) -> Duration| row.trials.iter().map(read).collect::<Vec<_>>();
    let worst = |all: Vec<Duration>| ms(all.into_iter().max().unwrap_or_default());
    let sum = |read: fn(&Figures) -> usize| row.trials.iter().map(read).sum::<usize>();
    vec![
        row.peer.clone(),
        row.fault.name(),
        row.trials.len().to_string(),
        format!("{:.1}", ms(median(&of(|f| f.takeover.unwrap_or(TAKEOVER_MAX))))),
        format!("{:.1}", ms(median(&of(|f| f.outage)))),
        format!("{:.1}", worst(of(|f| f.outage))),
        format!("{:.1}", worst(of(|f| f.outage_at_return))),
        sum(|f| f.requests.sent).to_string(),
        sum(|f| f.requests.lost).to_string(),
        sum(|f| f.requests.late).to_string(),
        format!("{}/{}", sum(|f| f.survived), sum(|f| f.connections)),
        format!("{:.0}", worst(of(|f| f.two_answerers))),
    ]
}

fn raw(rows: &[Row]) -> Value {
    let trial = |f: &Figures| {
        json!({
            "from": f.from,
            "to": f.to,
            "takeover_ms": f.takeover.map(ms),
            "outage_ms": ms(f.outage),
            "outage_at_return_ms": ms(f.outage_at_return),
            "datagrams_lost": f.datagrams_lost,
            "requests": f.requests.sent,
            "requests_lost": f.requests.lost,
            "requests_late": f.requests.late,
            "requests_why_lost": f.requests.why,
            "connections": f.connections,
            "connections_alive": f.survived,
            "connections_broken": f.breaks,
            "two_answerers_ms": ms(f.two_answerers),
            "unanswered_ms": ms(f.unanswered),
            "stall_ms": ms(f.stall),
        })
    };
    let row = |row: &Row| {
        let trials: Vec<Value> = row.trials.iter().map(trial).collect();
        json!({ "system": row.peer, "fault": row.fault.name(), "trials": trials })
    };
    Value::Array(rows.iter().map(row).collect())
}

fn show_logs(buoy: &Buoy) {
    for node in buoy.nodes() {
        let text = std::fs::read_to_string(buoy.log(node)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        println!("\nThe last lines of the agent of {node}:");
        for line in &lines[lines.len().saturating_sub(20)..] {
            println!("  {line}");
        }
    }
}

/// Prints a dot every now and then, so that nobody takes patience for a hang.
struct Ticker {
    stop: Sender<()>,
    thread: JoinHandle<bool>,
}

impl Ticker {
    fn start() -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut printed = false;
            while stopped.recv_timeout(DOT_EVERY) == Err(RecvTimeoutError::Timeout) {
                print!("{}", if printed { "." } else { " ." });
                flush();
                printed = true;
            }
            printed
        });
        Self { stop, thread }
    }

    /// Whether any dot was printed.
    fn stop(self) -> bool {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn flush() {
    // A closed output is noticed by the next line.
    let _closed = std::io::stdout().flush();
}
