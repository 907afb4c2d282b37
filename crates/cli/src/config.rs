//! `buoy config`: what a file says, before anything changes.

mod check;
mod explain;
mod format;
mod schema;

use crate::failure::Failure;

/// Where the configuration is, unless told otherwise.
pub(crate) const FILE_DEFAULT: &str = "/etc/buoy/buoy.toml";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Check a file for this host: exit 0 when it is usable, 78 when it is not
    Check(check::Arguments),
    /// Say what a key or a code of a message means, as in vip.service.balance or V0103
    Explain(explain::Arguments),
    /// Set a file in order: columns, indents and empty lines; comments and meaning stay
    Fmt(format::Arguments),
    /// Print a JSON Schema of the file, for editors
    Schema,
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Fmt(arguments) => format::run(&arguments),
        Command::Schema => schema::run(),
    }
}
