//! `buoy agent`: runs this node.

use crate::failure::{Exit, Failure};
use crate::output;
use buoy_agent::{LogFormat, Options, RunError};
use std::path::PathBuf;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = crate::config::FILE_DEFAULT)]
    pub(crate) config: PathBuf,
    /// Where to listen for the other commands
    #[arg(long, value_name = "PATH", default_value = buoy_api::SOCKET_DEFAULT)]
    socket: PathBuf,
    /// Where orders of backends are kept over a restart; else in a file beside the socket
    #[arg(long, value_name = "FILE")]
    orders: Option<PathBuf>,
    /// The directory where edits are kept over a restart; else one beside the socket
    #[arg(long, value_name = "DIRECTORY")]
    store: Option<PathBuf>,
    /// How log lines look (the environment variable BUOY_LOG sets the level)
    #[arg(long, value_enum, default_value_t)]
    log: Log,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum Log {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON object a line
    Json,
}

impl Log {
    pub(crate) const fn format(self) -> LogFormat {
        match self {
            Self::Text => LogFormat::Text,
            Self::Json => LogFormat::Json,
        }
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let log = arguments.log.format();
    let Arguments { config, socket, orders, store, .. } = arguments;
    let options = Options { config, socket, orders, store, log };
    buoy_agent::run(&options).map_err(|error| failure(&error))
}

fn failure(error: &RunError) -> Failure {
    if let RunError::Configuration(cause) = error {
        let report = cause.render(output::width(), output::error_colour());
        let message = format!("the configuration is refused\n{report}");
        return Failure { exit: Exit::Config, message };
    }
    Failure::failed(error)
}
