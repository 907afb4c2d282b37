//! `buoy lab`: a cluster in network namespaces on this machine.

use crate::failure::{Exit, Failure};
use buoy_lab::demo;
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Build the lab and leave it standing
    Up,
    /// Take away what `up` left
    Down,
    /// Break everything before your eyes and measure it; exit 0 only if every promise held
    Demo(DemoArguments),
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
    }
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
