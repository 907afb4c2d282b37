//! Runs one program as a question: exit code 0 passes, and nothing of it stays behind.
//!
//! It is started without a shell, in `/`, with a bare environment, without input, and in a process
//! group of its own. Whatever ends the question (its exit, the timeout, a reload, the end of
//! the agent) ends the whole group. What it says is read to its end, and the first bytes are kept for people.
//! A program that asks a backend runs as a user of its own, without any capability and without a way to get one.

use super::apart::Apart;
use buoy_kernel::{confinement, descriptors};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, Uid, User};
use std::convert::Infallible;
use std::io::{self, PipeWriter, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::time;

/// Bytes of output that are kept.
const SAID_MAX: usize = 512;
/// Bytes of input: a new pipe holds 64 KiB (pipe(7)).
const INPUT_MAX: usize = 32 << 10;
/// How long the last words of a program that has ended may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// Where programs are looked for by the program; its own path is absolute.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Its absolute path.
    pub(crate) path: String,
    pub(crate) arguments: Vec<String>,
    /// More of its environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// What it reads; `None`: nothing.
    pub(crate) input: Option<Vec<u8>>,
    /// Whose rights it has; `None`: those of the agent.
    pub(crate) user: Option<String>,
    /// Whether what it says counts where it passes.
    pub(crate) heard: bool,
}

/// What it has said where it passes; `Err` says what is wrong, with the program's own words.
pub(crate) async fn run(apart: &Apart, program: &Program) -> Result<Vec<u8>, String> {
    let start = |error: io::Error| format!("cannot start {}: {error}", program.path);
    let (reader, writer) = io::pipe().map_err(start)?;
    let reader = Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(start)?;
    let command = command(program, writer).map_err(start)?;
    let leash = Leash::default();
    let end = {
        let (path, user, leash) = (program.path.clone(), program.user.clone(), leash.clone());
        apart.run(move |_| {
            let command = match user {
                Some(user) => confine(command, &user)?,
                None => command,
            };
            leash.follow(command).map_err(|error| explain(&path, &error))
        })
    };
    // Dropped with the question, whichever way it ends.
    let _leash = Cut(leash);
    let mut said = Vec::new();
    let status = tokio::select! {
        biased;
        status = end => status?,
        never = keep(&reader, &mut said) => match never {},
    };
    if !status.success() || program.heard {
        // All of the group is dead, so the pipe ends, unless something has left the group with it.
        let _ = time::timeout(LAST_WORDS, read_to_end(&reader, &mut said)).await;
    }
    judge(status, &said).map(|()| said)
}

fn command(program: &Program, writer: PipeWriter) -> io::Result<Command> {
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .envs(program.environment.iter().map(|(name, value)| (*name, value)))
        .current_dir("/")
        .process_group(0)
        .stdin(input(program.input.as_deref())?)
        .stdout(writer.try_clone()?)
        .stderr(writer);
    Ok(command)
}

/// What is read, in a pipe that holds all of it: nobody has to write while the program runs.
fn input(bytes: Option<&[u8]>) -> io::Result<Stdio> {
    let Some(bytes) = bytes else { return Ok(Stdio::null()) };
    if bytes.len() > INPUT_MAX {
        return Err(io::Error::other(format!("its input is longer than {INPUT_MAX} bytes")));
    }
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(bytes)?;
    Ok(reader.into())
}

/// Takes all rights from what this thread will start, which is then that user. The thread cannot have them back
/// either, so it is one that ends.
fn confine(mut command: Command, user: &str) -> Result<Command, String> {
    let found = match user.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(user),
    };
    let found = found.map_err(|error| format!("cannot look for the user {user}: {error}"))?;
    let User { uid, gid, .. } = found.ok_or_else(|| format!("this host has no user {user}"))?;
    if uid.is_root() {
        return Err(format!("{user} is root, as whom no such program is run"));
    }
    confinement::begin().map_err(|error| format!("cannot confine a program: {error}"))?;
    // The standard library also leaves every other group where the agent is root.
    command.gid(gid.as_raw()).uid(uid.as_raw());
    Ok(command)
}

/// Ends the program and its group, from whichever thread.
#[derive(Clone, Debug, Default)]
struct Leash(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Starting,
    /// The process with this number is ours, alive or not yet reaped, so the number is not another's.
    Running(Pid),
    Over,
}

impl Leash {
    /// Starts the program, waits for its end, and ends what it has left in its group.
    fn follow(&self, mut command: Command) -> io::Result<ExitStatus> {
        // Needs Linux 5.11; before, what the agent itself has inherited is passed on.
        let _ = descriptors::keep_from_programs();
        let mut child = command.spawn()?;
        // It holds the pipe, which would never end.
        drop(command);
        let pid = Pid::from_raw(child.id().cast_signed());
        {
            let mut state = self.state();
            match *state {
                State::Starting => *state = State::Running(pid),
                State::Running(_) | State::Over => kill(pid),
            }
        }
        // Leaves the process as it is, so that its number stays taken until the group is gone.
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR)
        {
        }
        self.reap(&mut child, pid)
    }

    fn reap(&self, child: &mut Child, pid: Pid) -> io::Result<ExitStatus> {
        let mut state = self.state();
        kill(pid);
        *state = State::Over;
        child.wait()
    }

    fn cut(&self) {
        let mut state = self.state();
        match *state {
            State::Starting => *state = State::Over,
            State::Running(pid) => kill(pid),
            State::Over => {}
        }
    }

    /// Nothing that holds the lock can panic halfway through a change.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Cut(Leash);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// Being gone already is success.
fn kill(group: Pid) {
    let _ = killpg(group, Signal::SIGKILL);
}

/// Reads for ever: after the end of its output a program may go on without a word.
async fn keep(reader: &Receiver, said: &mut Vec<u8>) -> Infallible {
    read_to_end(reader, said).await;
    std::future::pending().await
}

/// What is past the limit is read and dropped, so that the program is not held up.
async fn read_to_end(reader: &Receiver, said: &mut Vec<u8>) {
    let mut bytes = [0; 4096];
    while reader.readable().await.is_ok() {
        match reader.try_read(&mut bytes) {
            Ok(0) => return,
            Ok(length) => {
                let room = SAID_MAX - said.len();
                said.extend_from_slice(&bytes[..length.min(room)]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

fn judge(status: ExitStatus, said: &[u8]) -> Result<(), String> {
    let ended = match (status.code(), status.signal()) {
        (Some(0), _) => return Ok(()),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    };
    let said = in_words(said);
    Err(if said.is_empty() { ended } else { format!("{ended}: {said}") })
}

/// One line for people: what a terminal would obey is left out.
fn in_words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn explain(program: &str, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        return format!("there is no program {program}");
    }
    // EPERM: not of the program, but of the change of the user.
    if error.raw_os_error() == Some(Errno::EPERM as i32) {
        return format!(
            "the agent may not change the user: it needs CAP_SETUID and CAP_SETGID to run {program}"
        );
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return format!("{program} may not be run: make it executable (chmod +x)");
    }
    format!("cannot start {program}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_words_and_without_control_characters() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        let cases: [(ExitStatus, &[u8], Result<(), &str>); 5] = [
            (exited(0), b"noise", Ok(())),
            (exited(3), b"", Err("exit code 3")),
            (exited(1), b"no\r\n\x1b[31mred \t line\n", Err("exit code 1: no [31mred line")),
            (exited(2), b"\xff", Err("exit code 2: \u{fffd}")),
            (ExitStatus::from_raw(9), b"half", Err("ended by signal 9: half")),
        ];
        for (status, said, expected) in cases {
            assert_eq!(judge(status, said), expected.map_err(str::to_owned));
        }
    }
}
