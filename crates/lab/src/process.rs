//! A program of the lab: started in a namespace, logged to a file, ended with its children.

use crate::namespace::{Namespace, STARTING};
use crate::{Error, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How often a condition is looked at again while it is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running (or ended) program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a program in a namespace; what it prints is appended to `log`.
    pub fn start(namespace: &Namespace, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(Error::system(format!("open {}", log.display())))?;
        let second = file.try_clone().map_err(Error::system("share the log"))?;
        command.stdin(Stdio::null()).stdout(file).stderr(second);
        let doing = format!("start {}", command.get_program().to_string_lossy());
        let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let child = namespace
            .enter(|| {
                // A child inherits the mask of its thread, and ours may hold back SIGTERM.
                SigSet::all().thread_unblock()?;
                command.spawn()
            })?
            .map_err(Error::system(doing))?;
        Ok(Self { child, log: log.to_owned(), ended: None })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Everything that it has printed so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal to it and to all its descendants, the youngest first: whoever watches over
    /// another one is hit before it can see that.
    pub fn signal_family(&self, signal: Signal) -> Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        // The youngest first: a supervisor that outlives its agent for a moment does its duty in it.
        for pid in family(self.child.id()).into_iter().rev() {
            // A child that has just ended needs no signal.
            let _gone = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
        Ok(())
    }

    /// Sends a signal to the program alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .map_err(Error::errno(format!("send {signal} to {}", self.child.id())))
    }

    /// The processor time that it and its descendants have used so far, by `/proc/PID/stat`.
    pub fn cpu_time(&self) -> Duration {
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
        let per_second = per_second.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
        let ticks: u64 = family(self.child.id()).into_iter().map(cpu_ticks).sum();
        Duration::from_millis(ticks * 1000 / per_second)
    }

    /// Its children.
    pub fn children(&self) -> Vec<u32> {
        children(self.child.id())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_none()
    }

    /// Waits for its end.
    pub fn wait_end(&mut self, at_most: Duration) -> Result<ExitStatus> {
        let awaited = format!("process {} to end", self.child.id());
        wait_until(at_most, &awaited, || Ok(!self.is_running()))
            .map_err(|_late| Error::Late { awaited, log: Some(self.log.clone()) })?;
        self.ended.ok_or(Error::Unknown { what: "exit status".to_owned() })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            let _gone = self.signal_family(Signal::SIGKILL);
            let _reaped = self.child.wait();
        }
    }
}

/// A process and its descendants, the eldest first.
fn family(eldest: u32) -> Vec<u32> {
    let mut all = vec![eldest];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        next += 1;
        all.extend(children(pid));
    }
    all
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let of_task = |task: std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("children")).unwrap_or_default()
    };
    let texts: Vec<String> = tasks.flatten().map(of_task).collect();
    texts
        .iter()
        .flat_map(|text| text.split_whitespace())
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Ticks in user and in kernel mode; a process that is gone has none.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; `utime` is the 12th field after it.
    let rest = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Looks at a condition until it holds.
pub fn wait_until(
    at_most: Duration,
    awaited: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let start = Instant::now();
    loop {
        if condition()? {
            return Ok(start.elapsed());
        }
        if at_most <= start.elapsed() {
            return Err(Error::Late { awaited: awaited.to_owned(), log: None });
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
