//! `buoy config`: what a file says, before anything changes, and what is edited over it.

mod check;
mod convert;
mod edit;
mod explain;
mod format;
mod schema;

pub(crate) use edit::{AGREED, CHECKED, Consent, during};

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
    /// Write a configuration as TOML, JSON or YAML; comments stay behind
    Convert(convert::Arguments),
    /// Print a JSON Schema of the file, for editors
    Schema,
    /// Print the configuration in force: the file, with what was edited over it
    Show(edit::ShowArguments),
    /// Say what a text would change on all nodes; changes nothing
    Diff(edit::DiffArguments),
    /// Make a text hold on all nodes: what it has of VIPs, over their files
    Apply(edit::ApplyArguments),
    /// Show what was edited, by whom and why
    History(edit::HistoryArguments),
    /// Make it as it was after a revision, on all nodes
    Rollback(edit::RollbackArguments),
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Fmt(arguments) => format::run(&arguments),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Schema => schema::run(),
        Command::Show(arguments) => edit::show(&arguments),
        Command::Diff(arguments) => edit::diff(&arguments),
        Command::Apply(arguments) => edit::apply(arguments),
        Command::History(arguments) => edit::history(&arguments),
        Command::Rollback(arguments) => edit::rollback(arguments),
    }
}
