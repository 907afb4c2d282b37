//! Looks for files and processes of this host. To be called where it may wait (`apart`).

use super::{Answer, Said};
use buoy_model::limits::CHECK_BODY_MAX;
use buoy_wire::answer::text;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

/// What the kernel keeps of a process's name (`TASK_COMM_LEN` less its end).
const COMM_MAX: usize = 15;
/// Bytes of a file that holds a number.
const PIDFILE_MAX: u64 = 32;

/// Looks for a process by its name, and remembers where it was.
#[derive(Clone, Debug)]
pub(crate) struct Seeker {
    name: String,
    /// Whom it was found as last; looked at before the others.
    last: Arc<AtomicU32>,
}

impl Seeker {
    pub(crate) fn new(name: String) -> Self {
        Self { name, last: Arc::default() }
    }

    pub(crate) fn look(&self) -> Result<(), String> {
        process(&self.name, &self.last)
    }
}

/// Whether a process of that name runs; one that has ended and waits for its parent does not.
fn process(name: &str, last: &AtomicU32) -> Result<(), String> {
    let name = name.as_bytes();
    let comm = &name[..name.len().min(COMM_MAX)];
    if is_called(last.load(Relaxed), comm) {
        return Ok(());
    }
    let all = fs::read_dir("/proc").map_err(|e| format!("cannot read /proc: {e}"))?;
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    match pids.into_iter().find(|pid| is_called(*pid, comm)) {
        Some(pid) => {
            last.store(pid, Relaxed);
            Ok(())
        }
        None => Err(format!("no process is called {}", String::from_utf8_lossy(comm))),
    }
}

fn is_called(pid: u32, comm: &[u8]) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    parse_stat(&stat).is_some_and(|(name, state)| name == comm && !matches!(state, b'Z' | b'X'))
}

/// Name and state of `PID (NAME) STATE ..`; the name may hold parentheses and spaces.
fn parse_stat(stat: &[u8]) -> Option<(&[u8], u8)> {
    let open = stat.iter().position(|b| *b == b'(')?;
    let close = stat.iter().rposition(|b| *b == b')')?;
    Some((stat.get(open + 1..close)?, *stat.get(close + 2)?))
}

/// Whether a file is there, or is not.
pub(crate) fn present(path: &str, present: bool) -> Result<(), String> {
    match (Path::new(path).try_exists(), present) {
        (Ok(true), true) | (Ok(false), false) => Ok(()),
        (Ok(true), false) => Err(format!("{path} is there")),
        (Ok(false), true) => Err(format!("{path} is not there")),
        (Err(error), true | false) => Err(format!("cannot look for {path}: {error}")),
    }
}

/// Whether the process whose number is in the file runs.
pub(super) fn pidfile(path: &str) -> Result<(), String> {
    let mut text = String::new();
    open(path)?
        .take(PIDFILE_MAX)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot read {path}: {error}"))?;
    let pid: u32 =
        text.trim().parse().map_err(|_| format!("{path} holds no number of a process"))?;
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    match parse_stat(&stat) {
        Some((_, b'Z' | b'X')) | None => Err(format!("process {pid} of {path} does not run")),
        Some(_) => Ok(()),
    }
}

/// What is asked of a file.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) path: String,
    pub(super) contains: Option<String>,
    pub(super) age_max: Option<Duration>,
    pub(super) weighs: bool,
}

/// Whether the file is as it should be, and what share it says.
pub(super) fn file(wanted: &Wanted) -> Answer {
    let Wanted { path, contains, age_max, weighs } = wanted;
    if contains.is_none() && age_max.is_none() && !weighs {
        return present(path, true).map(|()| Said::default());
    }
    let file = open(path)?;
    let unreadable = |error: io::Error| format!("cannot read {path}: {error}");
    if let Some(most) = age_max {
        let written = file.metadata().and_then(|facts| facts.modified()).map_err(unreadable)?;
        // A time to come is that of a clock that was set: the file is new.
        let age = SystemTime::now().duration_since(written).unwrap_or_default();
        if *most < age {
            return Err(format!("{path} was written {}s ago", age.as_secs()));
        }
    }
    if contains.is_none() && !weighs {
        return Ok(Said::default());
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(CHECK_BODY_MAX).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut bytes).map_err(unreadable)?;
    text::judge(path, &bytes, contains.as_deref(), *weighs)
}

/// Opens a file that can be read to its end: neither a pipe nor a device, which might never end.
fn open(path: &str) -> Result<fs::File, String> {
    let options = fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path);
    let file = options.map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            return format!("{path} is not there");
        }
        format!("cannot read {path}: {error}")
    })?;
    match file.metadata() {
        Ok(facts) if facts.is_file() => Ok(file),
        Ok(_) => Err(format!("{path} is not a file")),
        Err(error) => Err(format!("cannot read {path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_what_separates_it() {
        type Case<'a> = (&'a [u8], Option<(&'a [u8], u8)>);
        let cases: [Case<'_>; 5] = [
            (b"12 (nginx) S 1 12 12 0", Some((b"nginx", b'S'))),
            (b"12 (a) Z (b) R 1 12", Some((b"a) Z (b", b'R'))),
            (b"12 () Z 1", Some((b"", b'Z'))),
            (b"12 (cut", None),
            (b"", None),
        ];
        for (stat, expected) in cases {
            assert_eq!(parse_stat(stat), expected);
        }
    }
}
