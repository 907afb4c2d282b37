//! Asks this host one thing once: a process, a server, a program, a file, an interface, a gateway.
//!
//! The caller limits the time and drops the question. What may wait on the kernel or on a disk is asked
//! on a thread of its own, one question at a time, so that a hanging file system holds up
//! neither the other checks nor the end of the agent. What is wrong comes back in words for people.

use super::exec;
use crate::health::ask::{Answer, Asker as ServerAsker, Said};
use buoy_kernel::netlink::Requests;
use buoy_kernel::reach;
use buoy_model::{LinkId, NodeCheck, NodeCheckKind};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// Bytes of a thread's stack; a question needs a few pages, and the agent's memory is locked.
const STACK: usize = 256 << 10;
/// What the kernel keeps of a process's name (`TASK_COMM_LEN` less its end).
const COMM_MAX: usize = 15;

/// The question of one check.
#[derive(Debug)]
pub(super) struct Asker {
    question: Question,
    timeout: Duration,
    apart: Apart,
}

#[derive(Debug)]
enum Question {
    Process {
        name: String,
        /// Whom it was found as last; looked at before the others.
        last: Arc<AtomicU32>,
    },
    Server(ServerAsker),
    Exec {
        program: String,
        arguments: Vec<String>,
    },
    File {
        path: String,
        present: bool,
    },
    Link {
        name: String,
    },
    Gateway {
        address: IpAddr,
        link: Option<LinkId>,
    },
}

impl Asker {
    pub(super) fn new(check: &NodeCheck) -> Self {
        let question = match check.kind.clone() {
            NodeCheckKind::Process { name } => Question::Process { name, last: Arc::default() },
            NodeCheckKind::Server { address, kind } => {
                Question::Server(ServerAsker::new(&kind, address))
            }
            NodeCheckKind::Exec { program, arguments } => Question::Exec { program, arguments },
            NodeCheckKind::File { path, present } => Question::File { path, present },
            NodeCheckKind::Link { name } => Question::Link { name },
            NodeCheckKind::Gateway { address, link } => Question::Gateway { address, link },
        };
        Self { question, timeout: check.pace.timeout, apart: Apart::new() }
    }

    /// `Err` says what is wrong.
    pub(super) async fn ask(&self) -> Answer {
        let said = match &self.question {
            Question::Process { name, last } => {
                let (name, last) = (name.clone(), Arc::clone(last));
                self.apart.run(move |_| process(&name, &last)).await
            }
            Question::Server(asker) => return asker.ask().await,
            Question::Exec { program, arguments } => {
                exec::run(&self.apart, program, arguments).await
            }
            Question::File { path, present } => {
                let (path, present) = (path.clone(), *present);
                self.apart.run(move |_| file(&path, present)).await
            }
            Question::Link { name } => {
                let name = name.clone();
                self.apart.run(move |_| link(&name)).await
            }
            Question::Gateway { address, link: None } => {
                Err(format!("no interface of this host leads to {address}"))
            }
            Question::Gateway { address, link: Some(link) } => {
                let (address, link, within) = (*address, *link, self.timeout);
                self.apart
                    .run(move |wanted| {
                        reach::ask(link, address, within, wanted).map_err(|e| e.to_string())
                    })
                    .await
            }
        };
        said.map(|()| Said::default())
    }
}

/// Threads for what may wait, one at a time.
#[derive(Debug)]
pub(super) struct Apart {
    turn: Arc<Semaphore>,
}

impl Apart {
    pub(super) fn new() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)) }
    }

    /// Runs the work on a thread of its own, once the one before has ended. The work can ask whether
    /// its answer is still wanted.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Fn() -> bool) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        // Nobody closes it.
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|e| e.to_string())?;
        let (answer, asked) = oneshot::channel();
        let thread = thread::Builder::new().name("buoy-check".into()).stack_size(STACK);
        thread
            .spawn(move || {
                let said = work(&|| !answer.is_closed());
                drop(turn);
                // Given up meanwhile: then nobody wants to know.
                let _ = answer.send(said);
            })
            .map_err(|e| format!("no thread to ask on: {e}"))?;
        asked.await.unwrap_or_else(|_| Err("the thread that asked has ended".into()))
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

fn file(path: &str, present: bool) -> Result<(), String> {
    match (Path::new(path).try_exists(), present) {
        (Ok(true), true) | (Ok(false), false) => Ok(()),
        (Ok(true), false) => Err(format!("{path} is there")),
        (Ok(false), true) => Err(format!("{path} is not there")),
        (Err(error), true | false) => Err(format!("cannot look for {path}: {error}")),
    }
}

fn link(name: &str) -> Result<(), String> {
    let links = Requests::open().and_then(|mut requests| requests.links());
    let links = links.map_err(|e| format!("cannot list the interfaces: {e}"))?;
    match links.iter().find(|link| link.name == name) {
        Some(link) if link.up => Ok(()),
        Some(_) => Err(format!("{name} is down or has no carrier")),
        None => Err(format!("there is no interface {name}")),
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

    #[tokio::test]
    async fn a_question_that_hangs_holds_up_the_next_one_of_its_check_and_nothing_else() {
        let apart = Apart::new();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let hanging = apart.run(move |_| held.recv().map_err(|e| e.to_string()));
        let given_up = tokio::time::timeout(Duration::from_millis(20), hanging).await;
        assert!(given_up.is_err());
        let next = apart.run(|_| Ok(7));
        tokio::pin!(next);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut next).await.is_err());
        assert_eq!(Apart::new().run(|_| Ok(8)).await, Ok(8), "another check");
        release.send(()).unwrap();
        assert_eq!(next.await, Ok(7));
    }

    #[tokio::test]
    async fn a_question_that_was_given_up_can_know_it() {
        let apart = Apart::new();
        let (tell, told) = std::sync::mpsc::channel();
        let asked = apart.run(move |wanted| {
            while wanted() {
                thread::yield_now();
            }
            tell.send(()).map_err(|e| e.to_string())
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), asked).await.is_err());
        told.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}
