//! Runs seeds by hand: many to search, hours of them to be sure, one to look at.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

use buoy_sim::{Hours, Scenario, Trace, World, run_hours, run_seeds};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

const USAGE: &str = "usage: buoy-sim run --seeds FROM..TO
       buoy-sim hours --hours N [--jobs J] [--from SEED]
       buoy-sim replay SEED
       buoy-sim replay --long SEED [--lines N]";
/// How many of the last lines of a long day are shown.
const LINES: usize = 2_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["run", "--seeds", range] => parse_range(range).map(|(from, to)| run(from, to)),
        ["hours", ref options @ ..] => hours(options),
        ["replay", "--long", seed] => seed.parse().ok().map(|seed| replay_long(seed, LINES)),
        ["replay", "--long", seed, "--lines", lines] => {
            let parsed = seed.parse().ok().zip(lines.parse().ok());
            parsed.map(|(seed, lines)| replay_long(seed, lines))
        }
        ["replay", seed] => seed.parse().ok().map(replay),
        _ => None,
    };
    done.unwrap_or_else(|| {
        eprintln!("{USAGE}");
        ExitCode::from(2)
    })
}

fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.split_once("..")?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

fn run(from: u64, to: u64) -> ExitCode {
    let report = run_seeds(from..to);
    for failure in &report.failures {
        println!("{failure}");
    }
    println!("{report}");
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn hours(options: &[&str]) -> Option<ExitCode> {
    let (mut wanted, mut jobs, mut from) = (None, None, 0);
    for pair in options.chunks(2) {
        match pair {
            ["--hours", n] => wanted = Some(n.parse::<f64>().ok().filter(|n| n.is_finite())?),
            ["--jobs", n] => jobs = Some(n.parse::<usize>().ok()?),
            ["--from", n] => from = n.parse().ok()?,
            _ => return None,
        }
    }
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let told = AtomicU64::new(0);
    let result = run_hours(wanted?, from, jobs.unwrap_or_else(processors), |so_far| {
        let percent = (so_far.hours() * 100.0 / wanted.unwrap_or(1.0)) as u64;
        if told.fetch_max(percent, Ordering::Relaxed) < percent {
            progress(so_far, percent);
        }
    });
    println!("{result}");
    Some(if result.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn progress(so_far: &Hours, percent: u64) {
    let (hours, failed) = (so_far.hours(), so_far.failures.len());
    eprintln!("{percent} %: {hours:.0} cluster-hours, {failed} violations");
}

fn replay(seed: u64) -> ExitCode {
    show(Scenario::of_seed(seed), Trace::keeping(usize::MAX))
}

fn replay_long(seed: u64, lines: usize) -> ExitCode {
    show(Scenario::long(seed), Trace::keeping(lines))
}

fn show(mut scenario: Scenario, trace: Trace) -> ExitCode {
    let mut world = World::new(scenario.clone(), trace);
    scenario.faults.truncate(1_000);
    println!("{scenario:#?}");
    // Whatever an assertion has to say comes after the lines that led to it.
    let result = buoy_sim::run_caught(&mut world);
    for line in world.trace().lines() {
        println!("{line}");
    }
    match result {
        Ok(outcome) => {
            println!("{outcome:#?}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}
