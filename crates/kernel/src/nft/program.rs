//! Runs the `nft` program: a script goes in, and what it says comes out.

use super::Error;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// `nft` lives in a directory that is not in everybody's path.
const ELSEWHERE: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Runs `nft` in this thread's network namespace and returns what it printed.
pub(super) fn run(arguments: &[&str], input: &str) -> Result<String, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = find("nft", &path).ok_or(Error::Missing)?;
    let mut child = match start(&program, arguments) {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing),
        Err(error) => return Err(Error::Run(error)),
    };
    // `nft` reads all of its input before it says a word, so neither waits for the other.
    let fed = child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(Error::Run)?;
    if output.status.success() {
        fed.map_err(Error::Run)?;
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // The first line names the error; the rest repeats the rule, which may be long.
    let said = said.lines().next().unwrap_or("no reason given").chars().take(300).collect();
    Err(Error::Refused { said })
}

/// Starts it without a fork, which copies the tables of all memory under the lock that a page fault waits for, and makes
/// a page fault of the next write to every page: tens of milliseconds for the loop, which is a lease. The standard
/// library forks for a name without its path where the child alone has another `PATH`, and for another user.
fn start(program: &Path, arguments: &[&str]) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C");
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
