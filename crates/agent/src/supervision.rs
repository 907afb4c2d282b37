//! The agent's side of its supervisor: starts it, and starts another when it dies.

use crate::log::Format;
use crate::realtime::Report;
use buoy_kernel::lifeline::Lifeline;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, sleep};
use std::time::Duration;
use tokio::sync::mpsc;

/// Time from the death of a supervisor to the next one, so that one that cannot run costs little.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The supervisor as the agent knows it.
#[derive(Clone, Debug)]
pub(crate) struct Supervision {
    stands: Arc<AtomicBool>,
}

impl Supervision {
    /// There is none, because there is nothing to share with it.
    pub(crate) fn none() -> Self {
        Self { stands: Arc::new(AtomicBool::new(false)) }
    }

    /// Starts the supervisor, and a thread that sees to it that there is one.
    pub(crate) fn start(
        lifeline: Lifeline,
        leases: Option<OwnedFd>,
        log: Format,
        report: mpsc::Sender<Report>,
    ) -> io::Result<Self> {
        let post = Post { lifeline, leases, log };
        let first = post.man()?;
        let supervision = Self { stands: Arc::new(AtomicBool::new(true)) };
        let stands = Arc::clone(&supervision.stands);
        Builder::new()
            .name("buoy-watch".into())
            .spawn(move || post.keep_manned(first, &stands, &report))?;
        Ok(supervision)
    }

    /// Whether it runs.
    pub(crate) fn stands(&self) -> bool {
        self.stands.load(Ordering::Relaxed)
    }
}

/// What every supervisor is given.
struct Post {
    lifeline: Lifeline,
    leases: Option<OwnedFd>,
    log: Format,
}

impl Post {
    fn man(&self) -> io::Result<Child> {
        // This very program, also after the file was replaced by a newer one.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("buoy").arg("supervise").arg("--agent").arg(std::process::id().to_string());
        command.arg("--log").arg(match self.log {
            Format::Text => "text",
            Format::Json => "json",
        });
        if let Some(leases) = &self.leases {
            command.arg("--gated").stdout(leases.try_clone()?);
        } else {
            command.stdout(Stdio::null());
        }
        // As its standard input and output the descriptors reach this child and no other.
        command.stdin(self.lifeline.as_fd().try_clone_to_owned()?);
        command.env_clear().envs(std::env::var("BUOY_LOG").map(|level| ("BUOY_LOG", level)));
        command.current_dir("/").spawn()
    }

    fn keep_manned(&self, first: Child, stands: &AtomicBool, report: &mpsc::Sender<Report>) {
        let mut child = Ok(first);
        loop {
            let lost = match child {
                Ok(mut child) => {
                    let ended = child.wait();
                    // It ends well only when the agent does.
                    if ended.as_ref().is_ok_and(ExitStatus::success) {
                        return;
                    }
                    ended.map_or_else(|error| error.to_string(), |status| status.to_string())
                }
                Err(error) => format!("it does not start: {error}"),
            };
            stands.store(false, Ordering::Relaxed);
            let problem = format!(
                "the supervisor is gone ({lost}): until another one runs, a crash of the agent is \
                 noticed by its silence only"
            );
            if report.try_send(Report::Problem(problem)).is_err() && report.is_closed() {
                return;
            }
            sleep(AGAIN_AFTER);
            child = self.man();
            stands.store(child.is_ok(), Ordering::Relaxed);
        }
    }
}
