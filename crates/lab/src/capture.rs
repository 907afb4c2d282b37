//! Records what passes an interface of the lab, for people who want to look at every packet.

use crate::namespace::Namespace;
use crate::process::{Process, wait_until};
use crate::{Result, command};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A running capture; the file is complete when it is dropped.
#[derive(Debug)]
pub struct Capture {
    process: Process,
}

impl Capture {
    /// Records everything on an interface of a namespace into a pcap file.
    pub fn start(inside: &Namespace, interface: &str, file: &Path) -> Result<Self> {
        let program = command::require("tcpdump", "apt-get install tcpdump")?;
        let mut command = Command::new(program);
        command.args(["-i", interface, "--immediate-mode", "-U", "-Z", "root", "-w"]).arg(file);
        let process = Process::start(inside, command, &file.with_extension("log"))?;
        wait_until(Duration::from_secs(5), "tcpdump to listen", || Ok(file.exists()))?;
        Ok(Self { process })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // SIGTERM, so that it writes what it still holds.
        let _asked = self.process.signal(Signal::SIGTERM);
        let _ended = self.process.wait_end(Duration::from_secs(2));
    }
}
