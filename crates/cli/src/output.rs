//! Writes to standard output: never panics when the reader has gone, colour only for a terminal.

use crate::failure::Failure;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Columns of a terminal that does not say how wide it is.
const WIDTH_DEFAULT: usize = 100;

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Form {
    /// For people.
    #[default]
    #[value(alias = "text")]
    Table,
    /// For programs.
    Json,
    /// For people who read much, and for files.
    Yaml,
}

/// Prints a value for programs; as a table every command sets its own.
pub(crate) fn value(form: Form, value: &impl Serialize) -> Result<(), Failure> {
    match form {
        Form::Table | Form::Json => json(value),
        Form::Yaml => {
            let yaml = serde_saphyr::to_string(value).map_err(Failure::failed)?;
            text(&format!("{}\n", yaml.trim_end()))
        }
    }
}

/// Prints text as it is.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        // `buoy status | head`: the reader has what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::failed(format!("cannot write to standard output: {error}"))),
    }
}

/// Prints a value as JSON for a person's eyes and `jq` alike.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
    text(&format!("{json}\n"))
}

/// Prints one value of a stream for programs: a line of JSON, or a document of YAML.
pub(crate) fn item(form: Form, value: &impl Serialize) -> Result<(), Failure> {
    match form {
        Form::Table | Form::Json => {
            let json = serde_json::to_string(value).map_err(Failure::failed)?;
            text(&format!("{json}\n"))
        }
        Form::Yaml => {
            text("---\n")?;
            self::value(form, value)
        }
    }
}

/// Says on one line of a person's terminal what goes on; an empty text takes the line away.
#[expect(clippy::print_stderr, reason = "progress is for the terminal, and no part of the answer")]
pub(crate) fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

/// Whether standard output is a person's terminal that likes colour (<https://no-color.org>).
pub(crate) fn colour() -> bool {
    wants_colour(terminal(), |name| std::env::var_os(name).map(|v| !v.is_empty()))
}

/// Whether standard error is.
pub(crate) fn error_colour() -> bool {
    wants_colour(io::stderr().is_terminal(), |name| std::env::var_os(name).map(|v| !v.is_empty()))
}

fn wants_colour(terminal: bool, variable: impl Fn(&str) -> Option<bool>) -> bool {
    terminal && variable("NO_COLOR") != Some(true)
}

/// Whether standard output is a person's terminal.
pub(crate) fn terminal() -> bool {
    io::stdout().is_terminal()
}

/// Columns of the terminal.
pub(crate) fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    columns.unwrap_or(WIDTH_DEFAULT)
}

/// Columns to set running text in: those of a terminal. A program that reads gets whole lines.
pub(crate) fn wrap() -> usize {
    if terminal() { width() } else { usize::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_that_did_not_refuse_it() {
        assert!(wants_colour(true, |_| None));
        assert!(wants_colour(true, |_| Some(false)), "an empty NO_COLOR refuses nothing");
        assert!(!wants_colour(true, |name| Some(name == "NO_COLOR")));
        assert!(!wants_colour(false, |_| None));
    }
}
