//! The threads that carry TCP: one for each processor, each with a runtime of its own.
//!
//! A connection lives on the thread that accepted it, with both of its sockets, so that nothing of it wakes another
//! thread. Every thread has a listener of its own for each port (`SO_REUSEPORT`), and the kernel spreads who comes.
//! `stop` ends all of them between two steps of every connection: whatever is dropped then is whole.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// More threads than this would mostly wait for each other's packets.
const THREADS_MAX: usize = 16;

static THREADS: OnceLock<Threads> = OnceLock::new();

/// All threads of this process.
#[derive(Debug)]
pub(crate) struct Threads {
    handles: Vec<Handle>,
    running: Mutex<Vec<Running>>,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Starts them the first time; where a thread cannot be started, the caller's runtime takes its part.
pub(crate) fn all() -> &'static Threads {
    THREADS.get_or_init(|| {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let started: Vec<(Handle, Running)> = (0..count).filter_map(start).collect();
        let (handles, running): (Vec<Handle>, Vec<Running>) = started.into_iter().unzip();
        let handles = if handles.is_empty() { vec![Handle::current()] } else { handles };
        Threads { handles, running: Mutex::new(running) }
    })
}

fn start(number: usize) -> Option<(Handle, Running)> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.inspect_err(|error| tracing::warn!(%error, "no runtime for the proxy")).ok()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    let work = move || {
        // An error says that nobody can stop it any more: the process ends.
        let _ = runtime.block_on(stopped);
    };
    let name = format!("buoy-proxy-{number}");
    let thread = std::thread::Builder::new().name(name).spawn(work);
    let thread =
        thread.inspect_err(|error| tracing::warn!(%error, "no thread for the proxy")).ok()?;
    Some((handle, Running { stop, thread }))
}

impl Threads {
    pub(crate) fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// Drops everything that they carry, and returns when that is done.
    fn stop(&self) {
        let running =
            std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        let threads: Vec<JoinHandle<()>> = running
            .into_iter()
            .map(|Running { stop, thread }| {
                let _ended_by_itself = stop.send(());
                thread
            })
            .collect();
        for thread in threads {
            if thread.join().is_err() {
                tracing::warn!("a thread of the proxy had ended before");
            }
        }
    }
}

/// Ends the threads, if there are any; nothing is carried from then on.
pub(crate) fn stop() {
    if let Some(threads) = THREADS.get() {
        threads.stop();
    }
}
