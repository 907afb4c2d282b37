//! The daemon: the real-time loop, health checks, the API server, reload.
//!
//! [`run`] reads the configuration, opens what the loop needs (so that what is missing is said before
//! anything changes), starts the loop on a thread of its own, and keeps everything that may be slow on
//! a runtime beside it. The two meet in bounded channels only.

mod advert;
pub mod backend_orders;
mod configuration;
mod conflicts;
pub mod counters;
mod daemon;
mod discovery;
pub mod edits;
pub mod exchange;
pub mod fitness;
pub mod forward;
mod hardware;
pub mod health;
mod hooks;
mod log;
mod metrics;
mod phases;
mod post;
mod pulse;
pub mod realtime;
mod routes;
#[cfg(test)]
#[path = "../tests/sample/mod.rs"]
mod sample;
pub mod server;
mod succession;
mod supervision;
pub mod supervisor;
mod systemd;
mod traces;

pub use configuration::{ConfigurationError, load, this_host};
pub use hardware::StartError;
pub use log::Format as LogFormat;

use backend_orders::BackendOrders;
use daemon::{Daemon, Published};
use discovery::Accepted;
use edits::Edits;
use exchange::Exchange;
use forward::{Forward, Refusal};
use metrics::Totals;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use realtime::{Command, Running};
use server::Agent as _;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use systemd::Systemd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How long the loop may take to give everything away.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long after a start everything that it began is done.
const SETTLED: Duration = Duration::from_secs(10);
/// What has not run for so long is not kept in memory, unless a takeover needs it.
const LATELY: Duration = Duration::from_secs(60);

/// Where things are.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// The API's UNIX socket.
    pub socket: PathBuf,
    /// Where orders of backends are kept; `None`: beside the socket.
    pub orders: Option<PathBuf>,
    /// The directory where edits are kept; `None`: beside the socket.
    pub store: Option<PathBuf>,
    /// How log lines look.
    pub log: LogFormat,
}

impl Options {
    fn orders_file(&self) -> PathBuf {
        self.orders.clone().unwrap_or_else(|| self.beside(".orders"))
    }

    fn store_directory(&self) -> PathBuf {
        self.store.clone().unwrap_or_else(|| self.beside(".store"))
    }

    fn beside(&self, end: &str) -> PathBuf {
        let mut name = self.socket.as_os_str().to_owned();
        name.push(end);
        name.into()
    }
}

/// Why the agent ended other than by being told to.
#[derive(Debug)]
pub enum RunError {
    /// The configuration is not usable: exit code 78 (`EX_CONFIG`).
    Configuration(ConfigurationError),
    /// The kernel refuses something without which there is no agent.
    Start(StartError),
    /// The slow side cannot start.
    Runtime(std::io::Error),
    /// The API's socket is not to be had.
    Socket(server::SocketError),
    /// The loop ended by itself.
    LoopEnded,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(cause) => cause.fmt(f),
            Self::Start(cause) => cause.fmt(f),
            Self::Runtime(cause) => write!(f, "the runtime does not start: {cause}"),
            Self::Socket(cause) => cause.fmt(f),
            Self::LoopEnded => f.write_str("the real-time loop ended by itself; see the log above"),
        }
    }
}

impl std::error::Error for RunError {}

/// Runs the agent until it is told to stop.
pub fn run(options: &Options) -> Result<(), RunError> {
    buoy_kernel::program::begin();
    log::start(options.log);
    end_on_panic();
    die_at_once();
    let systemd = Systemd::from_environment();
    // Before anything else is opened.
    buoy_proxy::handover::inherit(succession::take(systemd.manager().as_deref()));
    let checked = load(&options.config).map_err(RunError::Configuration)?;
    for warning in checked.warnings.problems() {
        tracing::warn!(line = warning.line, "{}: {}", warning.message, warning.fix);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    // The socket first: a second agent on this host must not get as far as the addresses.
    let sockets = runtime
        .block_on(async {
            let socket = server::Socket::open(&options.socket)?;
            Ok((socket, server::Socket::open_questions(&options.socket)?))
        })
        .map_err(RunError::Socket)?;
    let directory = options.store_directory();
    let edits = runtime.block_on(Edits::start(&options.config, &directory, &checked));
    let checked = edits.begin(checked);
    let mut accepted = Accepted::new(&options.config, &options.socket.with_extension("backends"));
    let checked = runtime.block_on(discovery::begin(&mut accepted, checked));
    let desired = Arc::new(checked.desired);
    let (keyring, api) = (checked.keyring.clone(), checked.api);
    let refusal = Refusal::default();
    runtime.block_on(refusal.begin(&desired));
    let running = realtime::start(Arc::clone(&desired), checked.keyring, &systemd, options.log)
        .map_err(RunError::Start)?;
    let wish = Wish { desired, keyring, api, accepted, edits, refusal };
    runtime.block_on(live(options, wish, running, sockets, systemd))
}

/// A panic in any thread ends the process, in every build: half an agent is worse than none, and the
/// supervisor knows what to do about a dead one.
fn end_on_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        std::process::abort();
    }));
}

/// Writes no core dump: as long as the kernel writes one, no thread of the process is dead, so nobody is
/// told. (With a pipe as `core_pattern` a limit of 0 still dumps, and 1 does not: core(5).)
fn die_at_once() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 1.min(hard), hard);
    }
}

/// What the configuration says.
struct Wish {
    desired: Arc<buoy_model::Desired>,
    keyring: buoy_wire::Keyring,
    api: Option<buoy_config::Api>,
    accepted: Accepted,
    edits: Edits,
    refusal: Refusal,
}

/// Everything that may be slow, until the end.
async fn live(
    options: &Options,
    Wish { desired, keyring, api, accepted, edits, refusal }: Wish,
    running: Running,
    (socket, questions): (server::Socket, server::Socket),
    systemd: Systemd,
) -> Result<(), RunError> {
    let Running { handle, reports, thread, answerer } = running;
    tracing::info!(node = desired.node_name(desired.me), "the agent runs: {}", handle.scheduling);
    for defence in &handle.defences {
        tracing::info!("{defence}");
    }
    let (seed, seeds) = watch::channel(keyring.flow_seed(desired.cluster));
    let (wanted, watched) = watch::channel(desired);
    let (keys, keyring) = watch::channel(keyring);
    let exchange = Exchange::start(watched.clone(), keyring).map_err(RunError::Runtime)?;
    let (backend_orders, ordered) = BackendOrders::start(watched.clone(), options.orders_file());
    backend_orders.share(exchange.handle());
    let looked = discovery::start(watched.clone());
    let shared = Some(exchange.handle());
    let health = health::start(watched.clone(), backend_orders.watch(), shared);
    let states = backend_orders.states(health.states());
    let checks = fitness::start(watched.clone());
    let (watch, known) = (watched.clone(), checks.states());
    let known_of = (states.clone(), health.states());
    let forward = Forward::start(watched, known_of, seeds, answerer, refusal);
    let forward = forward.map_err(RunError::Runtime)?;
    forward.join(exchange.handle(), handle.clone());
    let ability = forward.ability();
    let fit =
        fitness::report(handle.clone(), watch, known, (states.clone(), health.opinions()), ability);
    let fit = tokio::spawn(fit);
    let published =
        Published { desired: wanted, seed, keys, api: watch::Sender::new(Arc::new(api)) };
    let (engines, config) = ((forward, exchange), (edits, accepted, options.socket.clone()));
    let totals = Totals::new().map_err(|error| RunError::Runtime(std::io::Error::other(error)))?;
    let kept = (backend_orders, totals);
    let daemon = Arc::new(Daemon::new(handle, config, published, engines, kept));
    daemon.show_checks(checks.states(), health.doubt());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server::serve(socket, questions, Arc::clone(&daemon), async {
        let _ = stopped.await;
    }));
    let listening = {
        let daemon = Arc::clone(&daemon);
        tokio::spawn(async move { daemon.listen(reports).await })
    };
    let telling = {
        let daemon = Arc::clone(&daemon);
        tokio::spawn(async move { daemon.hear_orders(ordered).await })
    };
    let discovering = tokio::spawn({
        let (daemon, looked) = (Arc::clone(&daemon), looked.states());
        async move { daemon.discover(looked).await }
    });
    let watching = tokio::spawn(daemon.hooks().watch_health(states));
    let standing = tokio::spawn(daemon.hooks().watch_checks(checks.states()));
    let doors = tokio::spawn(Arc::clone(&daemon).keep_doors());
    let editing = tokio::spawn(follow_edits(Arc::clone(&daemon)));
    systemd.ready();
    let told = orders(&daemon, listening, &systemd).await;
    fit.abort();
    telling.abort();
    discovering.abort();
    [watching, standing, doors].iter().for_each(tokio::task::JoinHandle::abort);
    editing.abort();
    drop(stop);
    let _ = tokio::time::timeout(STOP_TIMEOUT, serving).await;
    let ended = tokio::task::spawn_blocking(move || thread.join());
    let _ = tokio::time::timeout(STOP_TIMEOUT, ended).await;
    hand_over(daemon, &systemd).await;
    told
}

/// Gives back the code that has not run lately, for ever: that of the start first.
async fn settle() {
    let mut wait = SETTLED;
    loop {
        tokio::time::sleep(wait).await;
        // A thread that panics ends the process: whatever comes back is an answer.
        let _ = tokio::task::spawn_blocking(buoy_kernel::program::give_back).await;
        wait = LATELY;
    }
}

/// Puts into force what is edited, keeps what pools gave, and no memory that is not needed.
async fn follow_edits(daemon: Arc<Daemon>) {
    tokio::join!(Arc::clone(&daemon).hear_edits(), edits::keep(daemon), settle());
}

/// What is carried goes on in the agent that is started next, where there is somebody who keeps it so long. Routes go.
async fn hand_over(daemon: Arc<Daemon>, systemd: &Systemd) {
    routes::remove(&daemon.desired());
    let Some(manager) = systemd.manager() else { return };
    let left = tokio::task::spawn_blocking(move || {
        let all = buoy_proxy::handover::hand_over(|| daemon.stop_forwarding());
        succession::leave(&manager, &all)
    });
    match left.await {
        Ok(Ok(0)) | Err(_) => {}
        Ok(Ok(connections)) => tracing::info!(connections, "connections wait for the next agent"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "connections of proxies are lost: nobody keeps them")
        }
    }
}

/// Follows signals until one of them says stop, or the loop has ended.
async fn orders(
    daemon: &Arc<Daemon>,
    mut listening: tokio::task::JoinHandle<()>,
    systemd: &Systemd,
) -> Result<(), RunError> {
    let open = |kind| signal(kind).map_err(RunError::Runtime);
    let mut hangup: Signal = open(SignalKind::hangup())?;
    let mut terminate: Signal = open(SignalKind::terminate())?;
    let mut interrupt: Signal = open(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = &mut listening => return Err(RunError::LoopEnded),
            // What came of it is in the log and in the status.
            _ = hangup.recv() => drop(daemon.reload().await),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("stopping: everything is given away first");
    systemd.stopping();
    if daemon.handle.order(Command::Stop).is_ok() {
        let _ = tokio::time::timeout(STOP_TIMEOUT, listening).await;
    }
    daemon.hooks().stop().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    #[test]
    fn a_panic_in_any_thread_ends_the_process_and_leaves_no_core() {
        const CHILD: &str = "BUOY_TEST_PANICS";
        let test = "tests::a_panic_in_any_thread_ends_the_process_and_leaves_no_core";
        if std::env::var_os(CHILD).is_some() {
            die_at_once();
            end_on_panic();
            let thread = std::thread::spawn(|| assert_eq!(1, 2, "on purpose"));
            let _ = thread.join();
            std::process::exit(0);
        }
        let this = std::env::current_exe().unwrap();
        let ended = Command::new(this).args(["--exact", test]).env(CHILD, "1").output().unwrap();
        assert_eq!(ended.status.signal(), Some(6), "{ended:?}");
        assert!(!ended.status.core_dumped(), "{ended:?}");
    }
}
