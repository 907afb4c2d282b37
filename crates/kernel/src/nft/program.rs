//! Runs the `nft` program: a script goes in, and what it says comes out.

use super::Error;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io::{self, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// `nft` lives in a directory that is not in everybody's path.
const ELSEWHERE: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// How long it may take. The kernel's part of 10,000 services is a second or two.
pub(super) const TIME_MAX: Duration = Duration::from_secs(10);

/// Runs `nft` in this thread's network namespace and returns what it printed.
pub(super) fn run(arguments: &[&str], input: &str) -> Result<String, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = find("nft", &path).ok_or(Error::Missing)?;
    let child = match start(&program, arguments) {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing),
        Err(error) => return Err(Error::Run(error)),
    };
    let Talk { fed, said: [printed, complaint], status } = talk(child, input, TIME_MAX)?;
    if status.success() {
        fed.map_err(Error::Run)?;
        return Ok(String::from_utf8_lossy(&printed).into_owned());
    }
    let said = String::from_utf8_lossy(&complaint);
    // The first line names the error; the rest repeats the rule, which may be long.
    let said = said.lines().next().unwrap_or("no reason given").chars().take(300).collect();
    Err(Error::Refused { said })
}

/// What came of a program.
struct Talk {
    fed: io::Result<()>,
    /// On its output, and what it complained of.
    said: [Vec<u8>; 2],
    status: ExitStatus,
}

/// Feeds a program and hears it to its end. One that takes too long is ended, with all that it started: nothing of it
/// goes on beside the next attempt.
fn talk(mut child: Child, input: &str, at_most: Duration) -> Result<Talk, Error> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let (heard, ends) = channel();
        let fed = scope.spawn(|| match stdin {
            Some(mut pipe) => pipe.write_all(input.as_bytes()),
            None => Ok(()),
        });
        let complaint = scope.spawn(|| hear(stderr));
        let printed = scope.spawn(move || {
            let said = hear(stdout);
            // Who has given up needs no word of it.
            let _ = heard.send(());
            said
        });
        let in_time = ended(&mut child, &ends, at_most);
        // Only now, for these end when the program has.
        let (fed, printed, complaint) = (fed.join(), printed.join(), complaint.join());
        let status = in_time?;
        let lost = || io::Error::other("a thread that talks to `nft` ended");
        let said = [printed, complaint].map(|said| said.map_err(|_| lost()).and_then(|said| said));
        let [printed, complaint] = said;
        Ok(Talk {
            fed: fed.map_err(|_| lost()).and_then(|fed| fed),
            said: [printed.map_err(Error::Run)?, complaint.map_err(Error::Run)?],
            status,
        })
    })
}

/// Waits until it has closed its output, and then for its end.
fn ended(child: &mut Child, ends: &Receiver<()>, at_most: Duration) -> Result<ExitStatus, Error> {
    let is_late = ends.recv_timeout(at_most).is_err();
    if is_late {
        // It is not waited for yet, so the number is its own. It may be over by itself.
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    }
    let status = child.wait().map_err(Error::Run)?;
    if is_late { Err(Error::Late { after: at_most }) } else { Ok(status) }
}

fn hear(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut said))?;
    Ok(said)
}

/// Starts it without a fork, which copies the tables of all memory under the lock that a page fault waits for, and makes
/// a page fault of the next write to every page: tens of milliseconds for the loop, which is a lease. The standard
/// library forks for a name without its path where the child alone has another `PATH`, and for another user. It has a
/// group of its own, to be ended with whatever it starts.
fn start(program: &Path, arguments: &[&str]) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// Where a program is, by folders of the path and those that are often not in it.
fn find(program: &str, path: &OsStr) -> Option<PathBuf> {
    let folders = std::env::split_paths(path).chain(ELSEWHERE.map(PathBuf::from));
    folders
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(is_program)
}

fn is_program(file: &PathBuf) -> bool {
    nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::resource::{UsageWho, getrusage};

    #[test]
    fn a_program_is_found_by_its_whole_path() {
        let shell = find("sh", OsStr::new("usr/bin::/nowhere:/bin"));
        assert_eq!(shell.as_deref(), Some(Path::new("/bin/sh")));
        assert_eq!(find("no-such-program", OsStr::new("/bin")), None);
        // A folder of that name, and a file that is none to run.
        assert_eq!(find("etc", OsStr::new("/")), None);
        assert_eq!(find("passwd", OsStr::new("/etc")), None);
    }

    /// A program that does not read, or not end, with what it has started, is over when the time is.
    #[test]
    fn a_program_that_takes_too_long_is_ended_and_nothing_of_it_goes_on() {
        let folder = std::env::temp_dir().join(format!("buoy-slow-nft-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let (mark, slow) = (folder.join("mark"), folder.join("nft"));
        let text = format!(
            "#!/bin/sh\n(sleep 1; echo late >{}) &\nsleep 1\necho late >{}\n",
            mark.display(),
            mark.display()
        );
        std::fs::write(&slow, text).unwrap();
        let may_run = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&slow, may_run).unwrap();
        // More than a pipe holds.
        let input = "x".repeat(1 << 20);
        let (child, begun) = (start(&slow, &[]).unwrap(), std::time::Instant::now());
        let said = talk(child, &input, Duration::from_millis(100)).map(|_| ()).unwrap_err();
        assert_eq!(said.to_string(), "`nft` has not answered for 100ms, and was ended");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        thread::sleep(Duration::from_millis(1500));
        let went_on = mark.exists();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(!went_on, "it went on");

        let child = start(Path::new("/bin/cat"), &[]).unwrap();
        let talk = talk(child, &input, TIME_MAX).unwrap();
        assert!(talk.status.success() && talk.fed.is_ok());
        assert_eq!(talk.said, [input.into_bytes(), Vec::new()]);
    }

    #[test]
    fn what_is_started_copies_no_memory_of_this_process() {
        const PAGES: usize = 1024;
        let mut memory = vec![1_u8; PAGES << 12];
        let mut faults_of_a_write = || {
            let faults = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().minor_page_faults();
            let before = faults();
            memory.iter_mut().step_by(1 << 12).for_each(|byte| *byte += 1);
            faults() - before
        };
        faults_of_a_write();
        let program = find("true", OsStr::new("/bin")).unwrap();
        assert!(start(&program, &[]).unwrap().wait().unwrap().success());
        let faults = faults_of_a_write();
        assert!(faults < PAGES as i64 / 8, "{faults} page faults");
    }
}
