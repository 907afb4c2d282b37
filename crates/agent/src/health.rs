//! Runs the check of every backend and publishes what is known of it.
//!
//! [`Health::start`] follows the configuration: one task per checked backend, each driving a machine
//! of `core::check` with the clock and the network. What is known is in a `watch` channel, whose
//! receivers are woken when a backend turns up or down (and not for every new reason or latency).
//! A backend that is not in the map is not checked, which counts as up. A reload keeps what is
//! known of a backend whose address stays.

mod ask;

use ask::Asker;
use buoy_core::check::{self, Action, Event, Question};
use buoy_kernel::clock;
use buoy_model::{BackendState, Check, Desired, GroupId, Instant, Protocol, name_key};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time;

/// One backend of one service of one group.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// The group.
    pub group: GroupId,
    /// The service's protocol.
    pub protocol: Protocol,
    /// The service's port.
    pub port: u16,
    /// The backend's name.
    pub backend: String,
}

/// What is known of a backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendHealth {
    /// Whether it may get new connections.
    pub state: BackendState,
    /// What was wrong with its last answer, in words; empty when nothing was.
    pub reason: String,
    /// Since when it is in this state.
    pub since: Instant,
    /// How long its last right answer took.
    pub last_latency: Option<Duration>,
}

/// What is known of every checked backend.
pub type States = BTreeMap<Key, BackendHealth>;

/// All checks of this host. They end when this is dropped.
#[derive(Debug)]
pub struct Health {
    states: watch::Receiver<States>,
    task: AbortHandle,
}

impl Health {
    /// Starts checking what the configuration names, now and after every change of it. To be called
    /// inside a tokio runtime.
    pub fn start(desired: watch::Receiver<Arc<Desired>>) -> Self {
        let (sender, states) = watch::channel(States::new());
        let task = tokio::spawn(follow(desired, Arc::new(sender)));
        Self { states, task: task.abort_handle() }
    }

    /// What is known, and a wake-up when a backend turns.
    pub fn states(&self) -> watch::Receiver<States> {
        self.states.clone()
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a check does: when it changes, the check starts again.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Asked {
    /// Where the backend itself listens; the check may name another port.
    backend: SocketAddr,
    check: Check,
}

#[derive(Debug)]
struct Running {
    asked: Asked,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(mut desired: watch::Receiver<Arc<Desired>>, states: Arc<watch::Sender<States>>) {
    let mut running: BTreeMap<Key, Running> = BTreeMap::new();
    loop {
        let wanted = wanted(&desired.borrow_and_update());
        let moved = |key: &Key, was: &Running| {
            wanted.get(key).is_none_or(|asked| asked.backend != was.asked.backend)
        };
        let forgotten: Vec<Key> =
            running.iter().filter(|(k, r)| moved(k, r)).map(|(k, _)| k.clone()).collect();
        running.retain(|key, was| wanted.get(key) == Some(&was.asked));
        states.send_if_modified(|states| {
            let before = states.len();
            states.retain(|key, _| !forgotten.contains(key));
            states.len() != before
        });
        for (key, asked) in wanted {
            running.entry(key.clone()).or_insert_with(|| {
                let task = tokio::spawn(keep_asking(key, asked.clone(), Arc::clone(&states)));
                Running { asked, task: task.abort_handle() }
            });
        }
        if desired.changed().await.is_err() {
            return;
        }
    }
}

fn wanted(desired: &Desired) -> BTreeMap<Key, Asked> {
    let mut all = BTreeMap::new();
    for group in &desired.groups {
        for service in &group.services {
            let Some(check) = &service.check else { continue };
            for backend in &service.backends {
                let key = Key {
                    group: group.id,
                    protocol: service.protocol,
                    port: service.port,
                    backend: backend.name.clone(),
                };
                all.insert(key, Asked { backend: backend.address, check: check.clone() });
            }
        }
    }
    all
}

type Answer = (Question, Result<(), String>, Duration);
type Pending = Option<Pin<Box<dyn Future<Output = Answer> + Send>>>;

/// Checks one backend for ever.
async fn keep_asking(key: Key, asked: Asked, states: Arc<watch::Sender<States>>) {
    let asker = Arc::new(Asker::new(&asked.check.kind, address(&asked)));
    let start = time::Instant::now();
    let now = || {
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Instant::from_nanos(nanos)
    };
    let known = states.borrow().get(&key).map_or(BackendState::Unknown, |known| known.state);
    let jitter = jitter(&key, asked.check.every);
    let mut machine = check::Health::new((&asked.check).into(), known, now(), jitter);
    // A question is asked in here, so that giving it up drops it and its connection.
    let mut pending: Pending = None;
    let mut out = Vec::new();
    loop {
        let due = start + Duration::from_nanos(machine.deadline().as_nanos());
        let mut heard = Heard::default();
        let event = tokio::select! {
            biased;
            (question, answer, took) = answer(&mut pending) => {
                pending = None;
                match answer {
                    Ok(()) => {
                        heard = Heard { reason: Some(String::new()), latency: Some(took) };
                        Event::Passed(question)
                    }
                    Err(reason) => {
                        heard.reason = Some(reason);
                        Event::Failed(question)
                    }
                }
            }
            () = time::sleep_until(due) => Event::Tick,
        };
        machine.handle(now(), event, &mut out);
        for action in &out {
            match action {
                Action::Ask(question) => pending = Some(ask(Arc::clone(&asker), *question)),
                Action::GiveUp(_) => {
                    pending = None;
                    heard.reason = Some(format!("timed out after {:?}", asked.check.timeout));
                }
                Action::TurnedUp | Action::TurnedDown => {}
            }
        }
        say(&key, &out, &heard);
        out.clear();
        publish(&states, &key, machine.verdict(), heard);
    }
}

/// What the last answer told.
#[derive(Debug, Default)]
struct Heard {
    /// What was wrong, empty when nothing was; `None` when there was no answer.
    reason: Option<String>,
    latency: Option<Duration>,
}

fn ask(asker: Arc<Asker>, question: Question) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
    Box::pin(async move {
        let start = time::Instant::now();
        let answer = asker.ask().await;
        (question, answer, start.elapsed())
    })
}

/// The answer to the question under way; waits for ever when there is none.
async fn answer(pending: &mut Pending) -> Answer {
    match pending {
        Some(question) => question.await,
        None => std::future::pending().await,
    }
}

fn say(key: &Key, actions: &[Action], heard: &Heard) {
    let Key { backend, port, .. } = key;
    for action in actions {
        match action {
            Action::Ask(_) | Action::GiveUp(_) => {}
            Action::TurnedUp => tracing::info!(backend, port, "the backend is up"),
            Action::TurnedDown => {
                let reason = heard.reason.as_deref().unwrap_or_default();
                tracing::warn!(backend, port, reason, "the backend is down");
            }
        }
    }
}

/// Keeps what is known, and wakes the readers when the backend has turned.
fn publish(states: &watch::Sender<States>, key: &Key, state: BackendState, heard: Heard) {
    states.send_if_modified(|states| {
        let known = states.entry(key.clone()).or_insert_with(|| BackendHealth {
            state: BackendState::Unknown,
            reason: String::new(),
            since: clock::now(),
            last_latency: None,
        });
        if let Some(reason) = heard.reason {
            known.reason = reason;
        }
        known.last_latency = heard.latency.or(known.last_latency);
        let turned = known.state != state;
        if turned {
            known.state = state;
            known.since = clock::now();
        }
        turned
    });
}

/// Where to ask: the backend itself, or the port that the check names.
fn address(asked: &Asked) -> SocketAddr {
    let port = asked.check.port.unwrap_or_else(|| asked.backend.port());
    SocketAddr::new(asked.backend.ip(), port)
}

/// Spreads the first questions over one interval: by name, so that nothing has to be remembered.
fn jitter(key: &Key, every: Duration) -> Duration {
    let hash = name_key(&format!("{}/{}/{}", key.group.0, key.port, key.backend));
    every.mul_f64(f64::from(hash) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
