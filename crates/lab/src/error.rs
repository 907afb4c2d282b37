//! What can go wrong in the lab itself, said so that a person knows what to do next.

use std::fmt;
use std::path::PathBuf;

/// The lab's own failures; what the system under test does wrong is an outcome, not an error.
#[derive(Debug)]
pub enum Error {
    /// A command of the host failed.
    Command {
        /// The whole command line.
        line: String,
        /// What it said.
        said: String,
    },
    /// A program that the lab needs is not installed.
    Missing {
        /// Its name.
        program: String,
        /// How to get it.
        remedy: &'static str,
    },
    /// A system call failed.
    System {
        /// What was tried.
        doing: String,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// Something expected did not happen in time.
    Late {
        /// What was waited for.
        awaited: String,
        /// Where to look.
        log: Option<PathBuf>,
    },
    /// The host does not allow what the lab needs.
    Forbidden {
        /// What, and what would help.
        reason: String,
    },
    /// An agent did not answer as it should.
    Agent {
        /// Which node's.
        node: String,
        /// What it said instead.
        said: String,
    },
    /// Somebody asked for something that the lab does not have.
    Unknown {
        /// What.
        what: String,
    },
}

/// What everything in the lab returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err`: a failed system call, and what it was for.
    pub fn system(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source }
    }

    /// For `map_err` on calls of `nix`.
    pub fn errno(doing: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> Self {
        let doing = doing.into();
        move |errno| Self::System { doing, source: errno.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { line, said } => write!(f, "`{line}` failed: {}", said.trim()),
            Self::Missing { program, remedy } => write!(f, "{program} is not installed: {remedy}"),
            Self::System { doing, source } => write!(f, "{doing}: {source}"),
            Self::Late { awaited, log: None } => write!(f, "waited in vain for {awaited}"),
            Self::Late { awaited, log: Some(log) } => {
                write!(f, "waited in vain for {awaited}; see {}", log.display())
            }
            Self::Agent { node, said } => write!(f, "the agent of {node}: {said}"),
            Self::Forbidden { reason } => f.write_str(reason),
            Self::Unknown { what } => write!(f, "there is no {what} in this lab"),
        }
    }
}

impl std::error::Error for Error {}
