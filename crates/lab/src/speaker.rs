//! Other speakers of VRRP with whatever configuration a test writes: Debian's keepalived.

use crate::process::Process;
use crate::segment::Segment;
use crate::{Error, Result, command};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// How long a daemon may take to end after it was asked to.
const END_MAX: Duration = Duration::from_secs(10);

/// keepalived on one node.
#[derive(Debug)]
pub struct Speaker {
    program: PathBuf,
    node: &'static str,
    daemon: Option<Process>,
    starts: u32,
}

impl Speaker {
    /// Not started yet; an error says how to install it.
    pub fn keepalived(node: &'static str) -> Result<Self> {
        let program = command::require("keepalived", "apt-get install keepalived")?;
        Ok(Self { program, node, daemon: None, starts: 0 })
    }

    /// Where it runs.
    pub const fn node(&self) -> &'static str {
        self.node
    }

    /// Starts it (anew) with these instances, each the inside of a `vrrp_instance`.
    pub fn start(&mut self, segment: &Segment, instances: &[String]) -> Result<()> {
        self.daemon = None;
        self.starts += 1;
        let folder = segment.file(&format!("speaker-{}-{}", self.node, self.starts));
        std::fs::create_dir_all(&folder).map_err(Error::system("make a folder"))?;
        let mut text = format!("global_defs {{\n  router_id {}\n}}\n", self.node);
        for (number, instance) in (1..).zip(instances) {
            text += &format!("vrrp_instance v{number} {{\n{instance}}}\n");
        }
        let config = folder.join("keepalived.conf");
        std::fs::write(&config, text).map_err(Error::system("write the file"))?;
        let mut command = Command::new(&self.program);
        command
            .args(["--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file"])
            .arg(config)
            .arg("--pid")
            .arg(folder.join("main.pid"))
            .arg("--vrrp_pid")
            .arg(folder.join("vrrp.pid"));
        let log = folder.join("log");
        self.daemon = Some(Process::start(segment.inside(self.node)?, command, &log)?);
        Ok(())
    }

    /// Ends it in order: it says that it stops.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        daemon.signal(Signal::SIGTERM)?;
        daemon.wait_end(END_MAX).map(drop)
    }

    /// Kills it and what it has started, as a crash does: what it did stays.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        daemon.signal_family(Signal::SIGKILL)?;
        daemon.wait_end(END_MAX).map(drop)
    }

    /// What it has said.
    pub fn output(&self) -> String {
        self.daemon.as_ref().map(Process::output).unwrap_or_default()
    }
}
