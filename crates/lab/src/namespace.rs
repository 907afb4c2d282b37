//! Network namespaces that are gone when their owner is, whatever happened in between.
//!
//! Every name is `buoy-<run>-<host>`, where a run is the pid of the process that made it (or `lab`
//! for the one that `buoy lab up` leaves standing). Drop removes a namespace and what runs in it;
//! a signal removes all of this process; and every start sweeps away what a killed process left.

use crate::{Error, Result, command};
use buoy_kernel::fast::Fast;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};
use std::thread::JoinHandle;

/// Where iproute2 keeps the names.
const FOLDER: &str = "/run/netns";

/// What the name of every folder of the lab begins with, before the run.
const FILES: &str = "buoy-lab-";

/// Held while a program is started, and for good once a signal takes the lab down: what started then would be in a
/// namespace whose processes have been ended already.
pub(crate) static STARTING: Mutex<()> = Mutex::new(());
/// Names that this process has to remove.
static LIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Folders that go with them when a signal ends this process.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// One namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes a namespace with its loopback up.
    pub fn create(run: &str, host: &str) -> Result<Self> {
        let name = format!("buoy-{run}-{host}");
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        command::ip(&format!("netns add {name}"))?;
        let path = Path::new(FOLDER).join(&name);
        let file = File::open(&path).map_err(Error::system(format!("open {}", path.display())))?;
        command::ip(&format!("-n {name} link set lo up"))?;
        Ok(Self { name, file })
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a closure inside. Sockets and processes that it makes stay there.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                Ok::<T, nix::errno::Errno>(inside())
            });
            match thread.join() {
                Ok(done) => done.map_err(Error::errno(format!("enter {}", self.name))),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts a thread that lives inside.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        inside: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        self.enter(|| {
            // A new thread inherits the namespace of the one that starts it.
            std::thread::Builder::new().name(name.to_owned()).spawn(inside)
        })?
        .map_err(Error::system(format!("start thread {name}")))
    }

    /// Sets a kernel parameter under `/proc/sys/net`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys/net").join(key.replace('.', "/"));
        self.enter(|| std::fs::write(&path, value))?
            .map_err(Error::system(format!("set net.{key} in {}", self.name)))
    }

    /// Runs `ip` inside.
    pub fn ip(&self, line: &str) -> Result<String> {
        command::ip(&format!("-n {} {line}", self.name))
    }

    /// Feeds a script to `nft` inside; it is applied as a whole or not at all.
    pub fn nft(&self, script: &str) -> Result<String> {
        let program = command::require("nft", "apt-get install nftables")?;
        self.enter(|| command::run(&program, &["-f", "-"], script))?
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).retain(|name| *name != self.name);
    }
}

/// Ends what runs in a namespace and takes its name away; being gone already is success.
pub(crate) fn remove(name: &str) {
    for _round in 0..3 {
        let pids = command::ip(&format!("netns pids {name}")).unwrap_or_default();
        let mut found = false;
        for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
            // Our own threads live inside too; they end with us.
            if pid != std::process::id().cast_signed() {
                found |= kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok();
            }
        }
        if !found {
            break;
        }
    }
    take_programs_away(name);
    let _gone_already = command::ip(&format!("netns del {name}"));
}

/// Pinned XDP programs outlive the namespace that they were attached in.
fn take_programs_away(name: &str) {
    let Ok(file) = File::open(Path::new(FOLDER).join(name)) else { return };
    let inside = std::thread::spawn(move || {
        if setns(&file, CloneFlags::CLONE_NEWNET).is_ok() && Fast::kept() {
            let _gone_already = Fast::detach_earlier();
        }
    });
    let _nothing_to_say = inside.join();
}

/// Removes every namespace that this process made, and the folders that go with them.
pub fn remove_all() {
    let names = std::mem::take(&mut *LIVE.lock().unwrap_or_else(PoisonError::into_inner));
    names.iter().for_each(|name| remove(name));
    let folders = std::mem::take(&mut *FOLDERS.lock().unwrap_or_else(PoisonError::into_inner));
    for folder in folders {
        let _gone_already = std::fs::remove_dir_all(folder);
    }
}

/// A folder for the files of a run, removed when dropped, by a signal, or by a later sweep.
pub(crate) fn folder(run: &str) -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new()
        .prefix(&format!("{FILES}{run}-"))
        .tempdir()
        .map_err(Error::system("make a folder for the lab's files"))?;
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).push(folder.path().to_owned());
    Ok(folder)
}

/// All namespaces of a run, by their full names.
pub fn of_run(run: &str) -> Vec<String> {
    let prefix = format!("buoy-{run}-");
    names(Path::new(FOLDER)).into_iter().filter(|name| name.starts_with(&prefix)).collect()
}

/// Removes what labs left behind whose process is dead; returns how many namespaces there were.
pub fn sweep() -> usize {
    for name in names(&std::env::temp_dir()) {
        if name.strip_prefix(FILES).is_some_and(is_dead) {
            // Another user's is left to that user.
            let _not_ours = std::fs::remove_dir_all(std::env::temp_dir().join(name));
        }
    }
    let dead: Vec<String> = names(Path::new(FOLDER))
        .into_iter()
        .filter(|name| name.strip_prefix("buoy-").is_some_and(is_dead))
        .collect();
    dead.iter().for_each(|name| remove(name));
    dead.len()
}

/// Whether what follows is the pid of a process that is no more.
fn is_dead(rest: &str) -> bool {
    let mut parts = rest.split('-');
    let pid = parts.next().and_then(|run| run.parse::<u32>().ok());
    // Something must follow: `buoy-lab-0` is the folder of `up` for user 0.
    pid.is_some_and(|pid| !is_alive(pid)) && parts.next().is_some()
}

/// Whether a process runs; one that has ended and waits for its parent does not.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; the state follows the last one.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(folder) = std::fs::read_dir(folder) else { return Vec::new() };
    folder.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// From now on SIGINT, SIGTERM and SIGHUP take the lab down before they end this process.
///
/// To be called from the main thread before others start: they inherit the blocked signals.
pub fn remove_all_on_signal() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        if signals.thread_block().is_err() {
            return;
        }
        let _detached = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            if let Ok(signal) = signals.wait() {
                let _nothing_more = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
                remove_all();
                std::process::exit(128 + signal as i32);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_gone_when_its_owner_is() {
        if let Some(reason) = crate::privilege::missing() {
            return crate::skip("a_namespace_is_gone_when_its_owner_is", &reason);
        }
        let run = format!("{}", std::process::id());
        let path = {
            let namespace = Namespace::create(&run, "raii").unwrap();
            let path = Path::new(FOLDER).join(namespace.name());
            assert!(path.exists());
            let links = namespace.ip("-oneline link show").unwrap();
            assert_eq!(links.lines().count(), 1, "only a loopback: {links}");
            path
        };
        assert!(!path.exists());
    }

    #[test]
    fn the_sweep_takes_the_dead_and_leaves_the_living() {
        if let Some(reason) = crate::privilege::missing() {
            return crate::skip("the_sweep_takes_the_dead_and_leaves_the_living", &reason);
        }
        // Larger than any pid of Linux (2^22), so this run's process is surely dead.
        let dead = Namespace::create("4194999", "swept").unwrap();
        let living = Namespace::create(&std::process::id().to_string(), "stays").unwrap();
        assert!(sweep() >= 1);
        assert!(!Path::new(FOLDER).join(dead.name()).exists());
        assert!(Path::new(FOLDER).join(living.name()).exists());
    }
}
