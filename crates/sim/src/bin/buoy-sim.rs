//! Runs seeds by hand: many to search, one to look at.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

use buoy_sim::{Scenario, World, run_seeds};
use std::process::ExitCode;

const USAGE: &str = "usage: buoy-sim run --seeds FROM..TO\n       buoy-sim replay SEED";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["run", "--seeds", range] => match parse_range(range) {
            Some((from, to)) => run(from, to),
            None => usage(),
        },
        ["replay", seed] => seed.parse().map_or_else(|_| usage(), replay),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
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

fn replay(seed: u64) -> ExitCode {
    let scenario = Scenario::of_seed(seed);
    println!("{scenario:#?}");
    let mut world = World::new(scenario, true);
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
