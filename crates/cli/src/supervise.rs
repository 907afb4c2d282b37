//! `buoy supervise`: what the agent runs beside itself; not for people.

use crate::agent::Log;
use crate::failure::Failure;
use buoy_agent::supervisor::{self, Options};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The agent's process
    #[arg(long, value_name = "PID")]
    agent: u32,
    /// Standard output is the array of leases of a gate
    #[arg(long)]
    gated: bool,
    /// How log lines look
    #[arg(long, value_enum, default_value_t)]
    log: Log,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { agent, gated, log } = arguments;
    supervisor::run(Options { agent, gated, log: log.format() }).map(drop).map_err(Failure::failed)
}
