//! Other speakers of VRRP with whatever configuration a test writes: Debian's keepalived, and FRR's vrrpd.

use crate::process::{Process, wait_until};
use crate::segment::Segment;
use crate::{Error, Result, command};
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
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

/// Where Debian puts FRR's daemons.
const FRR: &str = "/usr/lib/frr";
/// The interface with the virtual MAC that vrrpd looks for.
const FRR_LINK: &str = "vrrp51";

/// FRR's zebra and vrrpd on one node, for the virtual router 51 on `eth0`.
#[derive(Debug)]
pub struct Frr {
    node: &'static str,
    daemons: Vec<Process>,
    starts: u32,
    /// Of the daemons that run.
    folder: Option<tempfile::TempDir>,
}

impl Frr {
    /// Not started yet; an error says how to install it.
    pub fn new(node: &'static str) -> Result<Self> {
        if !Path::new(FRR).join("vrrpd").exists() {
            let (program, remedy) = ("vrrpd".to_owned(), "apt-get install frr");
            return Err(Error::Missing { program, remedy });
        }
        Ok(Self { node, daemons: Vec::new(), starts: 0, folder: None })
    }

    /// Starts it (anew) with these lines about `eth0`. It wants an interface of its own with the virtual MAC and the
    /// address.
    pub fn start(&mut self, segment: &Segment, vip: &str, lines: &[String]) -> Result<()> {
        self.daemons.clear();
        let inside = segment.inside(self.node)?;
        self.starts += 1;
        if self.starts == 1 {
            let family = if vip.contains(':') { 2 } else { 1 };
            inside.ip(&format!(
                "link add {FRR_LINK} link eth0 address 00:00:5e:00:0{family}:33 type macvlan mode bridge"
            ))?;
            inside.ip(&format!("addr add {vip} dev {FRR_LINK}"))?;
            inside.ip(&format!("link set {FRR_LINK} up"))?;
        }
        // The daemons drop their rights to the user frr, who cannot enter the lab's own folder.
        let kept = tempfile::Builder::new().prefix("buoy-frr-").tempdir();
        let kept = kept.map_err(Error::system("make a folder"))?;
        std::fs::set_permissions(kept.path(), std::fs::Permissions::from_mode(0o777))
            .map_err(Error::system("open the folder"))?;
        let folder = kept.path().to_owned();
        let (socket, zebra) = (folder.join("zserv.api"), folder.join("zebra.conf"));
        let vrrpd = folder.join("vrrpd.conf");
        let text: String = lines.iter().map(|line| format!(" {line}\n")).collect();
        let write = |path: &Path, text: &str| {
            std::fs::write(path, text).map_err(Error::system("write the file"))
        };
        write(&zebra, "hostname lab\n")?;
        write(&vrrpd, &format!("hostname lab\ninterface eth0\n{text}exit\n"))?;
        for (name, config) in [("zebra", &zebra), ("vrrpd", &vrrpd)] {
            let mut command = Command::new(Path::new(FRR).join(name));
            command.args(["-P", "0", "--log", "stdout"]);
            command.arg("-f").arg(config).arg("-z").arg(&socket);
            command.arg("-i").arg(folder.join(format!("{name}.pid")));
            command.arg("--vty_socket").arg(&folder);
            let log = segment.file(&format!("{name}-{}-{}.log", self.node, self.starts));
            self.daemons.push(Process::start(inside, command, &log)?);
            let there = || Ok(socket.exists());
            wait_until(END_MAX, "zebra to listen", there)?;
        }
        self.folder = Some(kept);
        Ok(())
    }

    /// Ends it in order: it says that it stops.
    pub fn stop(&mut self) -> Result<()> {
        for mut daemon in self.daemons.drain(..).rev() {
            daemon.signal(Signal::SIGTERM)?;
            daemon.wait_end(END_MAX)?;
        }
        Ok(())
    }

    /// What it has said.
    pub fn output(&self) -> String {
        self.daemons.iter().map(Process::output).collect()
    }
}
