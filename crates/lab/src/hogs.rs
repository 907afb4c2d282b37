//! Programs that only burn processor time, so that the systems under test must share it.

use crate::namespace::Namespace;
use crate::process::Process;
use crate::{Result, command};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What a hog is: the shell does nothing, for ever.
const BURN: &str = "while :; do :; done";

/// How much the hogs give way to others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Niceness {
    /// Ordinary programs.
    Ordinary,
    /// They give way (nice 19).
    Nice,
}

/// Running hogs; they end when dropped, and after their time in any case.
#[derive(Debug)]
pub struct Hogs {
    processes: Vec<Process>,
}

impl Hogs {
    /// Starts so many, for so long at most, also if this program is killed.
    ///
    /// They live in a namespace of the lab, so that what sweeps that away takes them too.
    pub fn start(
        inside: &Namespace,
        count: usize,
        niceness: Niceness,
        at_most: Duration,
        log: &Path,
    ) -> Result<Self> {
        let timeout = command::require("timeout", "apt-get install coreutils")?;
        let level = match niceness {
            Niceness::Ordinary => "0",
            Niceness::Nice => "19",
        };
        let mut processes = Vec::new();
        for _ in 0..count {
            let mut command = Command::new(&timeout);
            command.arg("--signal=KILL").arg(format!("{}", at_most.as_secs().max(1)));
            command.args(["nice", "-n", level, "sh", "-c", BURN]);
            processes.push(Process::start(inside, command, log)?);
        }
        Ok(Self { processes })
    }

    /// The processor time that they have burnt so far.
    pub fn burnt(&self) -> Duration {
        self.processes.iter().map(Process::cpu_time).sum()
    }
}
