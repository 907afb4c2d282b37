//! Tells programs and servers what happens, as `[[hook]]` says: of each VIP one event after the other.
//!
//! `message` is what is said, `standing` what keepalived would say, `deliver` how. Each hook has a lane for each VIP, and one for what is about none: a queue, and a task
//! that tells what is in it in order. Nothing here waits for a hook: who has news leaves them and goes on.

mod deliver;
mod message;
mod standing;

pub(crate) use message::Message;

use crate::fitness;
use crate::health::{Key, States};
use buoy_model::limits::{HOOK_LAST_WORDS, HOOK_QUEUE_MAX};
use buoy_model::{BackendState, Desired, GroupId, Hook, HookTopic, Record};
use deliver::Runner;
use message::Telling;
use standing::{News, Standings};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;

/// How often it is looked whether all is told.
const LOOK: std::time::Duration = std::time::Duration::from_millis(5);
/// Tellings that run at a time.
const AT_ONCE: usize = 8;

/// A hook, and what it is told about.
type LaneKey = (String, Option<GroupId>);

/// All hooks of this host.
#[derive(Clone, Debug)]
pub(crate) struct Hooks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    desired: watch::Receiver<Arc<Desired>>,
    lanes: Mutex<BTreeMap<LaneKey, Lane>>,
    /// What is wrong with hooks, by name.
    failures: Mutex<BTreeMap<String, String>>,
    turns: Semaphore,
    ids: message::Ids,
    standings: Mutex<Standings>,
    told: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// A queue, and the task that tells what is in it.
#[derive(Debug)]
struct Lane {
    queue: Arc<Queue>,
    task: AbortHandle,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<VecDeque<Arc<Telling>>>,
    come: Notify,
    /// What waits, and what is being told.
    open: AtomicUsize,
}

impl Hooks {
    /// Follows this configuration.
    pub(crate) fn new(desired: watch::Receiver<Arc<Desired>>) -> Self {
        Self(Arc::new(Shared {
            desired,
            lanes: Mutex::default(),
            failures: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
            ids: message::Ids::new(),
            standings: Mutex::default(),
            told: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }))
    }

    /// Something happened, to this group or to none. To be called inside a tokio runtime.
    pub(crate) fn tell(&self, group: Option<GroupId>, message: Message) {
        let desired = Arc::clone(&self.0.desired.borrow());
        let hears = |hook: &&Hook| {
            let about = hook.groups.is_empty() || group.is_some_and(|g| hook.groups.contains(&g));
            about && hook.act.hears_events() && hook.topics.contains(&message.topic)
        };
        let hooks: Vec<&Hook> = desired.hooks.iter().filter(hears).collect();
        if hooks.is_empty() {
            return;
        }
        let told = Arc::new(Telling::Event(Box::new(self.0.ids.number(message, &desired))));
        self.0.queue(&desired, &hooks, group, &told);
    }

    /// What a record means to those who were written for keepalived.
    pub(crate) fn hear(&self, record: &Record) {
        let desired = Arc::clone(&self.0.desired.borrow());
        let mut standings = lock(&self.0.standings);
        let news = standings.hear(&desired, record);
        self.0.tell_states(&desired, news);
    }

    /// Says in which state each VIP is here from the start on, and follows the checks of this host, for ever.
    pub(crate) async fn watch_checks(self, mut checks: watch::Receiver<fitness::States>) {
        let mut configured = self.0.desired.clone();
        loop {
            let desired = Arc::clone(&configured.borrow_and_update());
            {
                let mut standings = lock(&self.0.standings);
                let news = standings.follow(&desired, &checks.borrow_and_update());
                self.0.tell_states(&desired, news);
            }
            let changed = tokio::select! {
                changed = checks.changed() => changed,
                changed = configured.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Says that the agent ends, and waits a moment until everybody has been told everything.
    pub(crate) async fn stop(&self) {
        {
            let desired = Arc::clone(&self.0.desired.borrow());
            let mut standings = lock(&self.0.standings);
            let news = standings.stop(&desired);
            self.0.tell_states(&desired, news);
        }
        let is_open = || lock(&self.0.lanes).values().any(|lane| lane.queue.is_open());
        let silence = async {
            while is_open() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(HOOK_LAST_WORDS, silence).await.is_err() {
            tracing::warn!("some hooks were not told everything before the end");
        }
    }

    /// Tells of backends that turn up or down, for ever.
    pub(crate) async fn watch_health(self, mut states: watch::Receiver<States>) {
        let mut known = BTreeMap::new();
        loop {
            let now = states.borrow_and_update().clone();
            for (group, message) in turned(&self.0.desired.borrow(), &mut known, &now) {
                self.tell(Some(group), message);
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    /// What is wrong, a sentence for each hook.
    pub(crate) fn problems(&self) -> Vec<String> {
        let desired = self.0.desired.borrow();
        let failures = lock(&self.0.failures);
        let of = |hook: &Hook| failures.get(&hook.name).map(|why| (hook.name.clone(), why.clone()));
        desired
            .hooks
            .iter()
            .filter_map(of)
            .map(|(name, why)| format!("hook {name}: {why}"))
            .collect()
    }

    /// How often hooks were told.
    pub(crate) fn counters(&self) -> [(&'static str, u64); 3] {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("hooks_told", count(&self.0.told)),
            ("hooks_failed", count(&self.0.failed)),
            ("hooks_dropped", count(&self.0.dropped)),
        ]
    }
}

impl Lane {
    fn start(name: &str, shared: &Arc<Shared>) -> Self {
        let queue = Arc::new(Queue::default());
        // The lane is in `shared`, so its task must not keep it.
        let work = drive(name.to_owned(), Arc::clone(&queue), Arc::downgrade(shared));
        Self { queue, task: tokio::spawn(work).abort_handle() }
    }
}

impl Queue {
    /// Whether another one had to give way.
    fn push(&self, told: Arc<Telling>) -> bool {
        let mut waiting = lock(&self.waiting);
        let is_full = waiting.len() >= HOOK_QUEUE_MAX;
        if is_full {
            waiting.pop_front();
        } else {
            self.open.fetch_add(1, Ordering::Relaxed);
        }
        waiting.push_back(told);
        self.come.notify_one();
        is_full
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// One has been told, or need not be.
    fn close(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    async fn next(&self) -> Arc<Telling> {
        loop {
            if let Some(told) = lock(&self.waiting).pop_front() {
                return told;
            }
            self.come.notified().await;
        }
    }
}

/// Tells one after the other, for ever.
async fn drive(name: String, queue: Arc<Queue>, shared: std::sync::Weak<Shared>) {
    let runner = Runner::new();
    loop {
        let told = queue.next().await;
        let Some(shared) = shared.upgrade() else { return };
        let hook = shared.desired.borrow().hooks.iter().find(|hook| hook.name == name).cloned();
        // Gone meanwhile: nobody wants to be told.
        if let Some(hook) = hook {
            let outcome = runner.deliver(&hook, &told, &shared.turns).await;
            shared.note(&name, outcome);
        }
        queue.close();
    }
}

impl Shared {
    /// Leaves it to the lanes of these hooks.
    fn queue(
        self: &Arc<Self>,
        desired: &Desired,
        hooks: &[&Hook],
        group: Option<GroupId>,
        told: &Arc<Telling>,
    ) {
        let mut lanes = lock(&self.lanes);
        // Those of hooks and VIPs that are gone, when all is told.
        lanes.retain(|(name, group), lane| {
            let has_hook = desired.hooks.iter().any(|hook| hook.name == *name);
            let is_there = |id| desired.groups.iter().any(|group| group.id == id);
            has_hook && (lane.queue.is_open() || group.is_none_or(is_there))
        });
        for hook in hooks {
            let key = (hook.name.clone(), group);
            let lane = lanes.entry(key).or_insert_with(|| Lane::start(&hook.name, self));
            if lane.queue.push(Arc::clone(told)) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The caller holds the standings, so that states are told in their order.
    fn tell_states(self: &Arc<Self>, desired: &Desired, news: Vec<News>) {
        for (group, calls) in news {
            for call in calls {
                let hears = |hook: &&Hook| {
                    let about = hook.groups.is_empty() || hook.groups.contains(&group);
                    about && hook.act.hears(call.state)
                };
                let hooks: Vec<&Hook> = desired.hooks.iter().filter(hears).collect();
                if !hooks.is_empty() {
                    self.queue(desired, &hooks, Some(group), &Arc::new(Telling::State(call)));
                }
            }
        }
    }

    fn note(&self, name: &str, outcome: Result<(), String>) {
        let mut failures = lock(&self.failures);
        match outcome {
            Ok(()) => {
                self.told.fetch_add(1, Ordering::Relaxed);
                if failures.remove(name).is_some() {
                    tracing::info!(hook = name, "the hook works again");
                }
            }
            Err(why) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                if failures.get(name) != Some(&why) {
                    tracing::warn!(hook = name, "an event could not be told: {why}");
                }
                failures.insert(name.to_owned(), why);
            }
        }
    }
}

/// What became of backends since the last look.
fn turned(
    desired: &Desired,
    known: &mut BTreeMap<Key, BackendState>,
    now: &States,
) -> Vec<(GroupId, Message)> {
    let mut news = Vec::new();
    for (key, health) in now {
        let before = known.insert(key.clone(), health.state).unwrap_or(BackendState::Unknown);
        // The first answer of a backend that is up is no news.
        let is_first = before == BackendState::Unknown && health.state == BackendState::Up;
        if before == health.state || is_first || health.state == BackendState::Unknown {
            continue;
        }
        let (kind, state) = match health.state {
            BackendState::Up | BackendState::Unknown => ("backend_up", "up"),
            BackendState::Down => ("backend_down", "down"),
        };
        let Some(group) = desired.groups.iter().find(|group| group.id == key.group) else {
            continue;
        };
        let service = group.services.iter().find(|service| {
            (service.protocol, service.ports) == (key.protocol, key.ports)
                && crate::health::first_address(service) == key.address
        });
        let service = service.map(|service| buoy_api::service_name(group, service));
        let because =
            if health.reason.is_empty() { String::new() } else { format!(": {}", health.reason) };
        let of = service.as_deref().unwrap_or(&group.name);
        let sentence = format!("backend {} of {of} is {state}{because}", key.backend);
        let mut message = Message::new(HookTopic::Health, kind, Some(&group.name), sentence);
        message.service = service;
        message.backend = Some(key.backend.clone());
        message.state = Some(state);
        message.reason = Some(health.reason.clone());
        news.push((group.id, message));
    }
    known.retain(|key, _| now.contains_key(key));
    news
}

/// Nothing that holds it can panic halfway through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
