//! Counts what changes, so that whoever waits for news is woken by them and asks for nothing else.
//!
//! The number is called the revision. Records, reloads and refusals of the kernel count at once. What makes no
//! record (a check's answer, a peer's drain) is looked for twice a second, and only while somebody waits: an
//! agent that nobody watches pays nothing for it.

use super::{Agent, ask_loop, wall_clock};
use buoy_api::view::ServiceReport;
use buoy_core::{Standing, Status};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::mem::discriminant;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, Notify, OwnedSemaphorePermit, Semaphore, watch};

/// Streams and long polls at the same time: fewer than connections, so that an order always finds room.
pub(crate) const WATCHERS_MAX: usize = 224;
/// Time between two looks for what makes no record.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// However many begin to watch at once, the loop is asked at most so often for them.
const LOOK_AT_MOST: Duration = Duration::from_millis(100);

/// The revision, and those who wait for the next.
#[derive(Debug)]
pub struct Changes {
    revision: watch::Sender<u64>,
    ended: watch::Sender<bool>,
    room: Arc<Semaphore>,
    watched: Notify,
    /// Changes that are for one state only are made one after the other.
    turn: Mutex<()>,
    /// Of what was seen at the last look.
    mark: AtomicU64,
}

impl Changes {
    /// Begins above whatever an agent that ran here before came to, as long as the clock is not set back: with
    /// the milliseconds since 1970, which a program in JavaScript can still count.
    pub(crate) fn new() -> Self {
        Self {
            revision: watch::Sender::new(wall_clock().max(1)),
            ended: watch::Sender::new(false),
            room: Arc::new(Semaphore::new(WATCHERS_MAX)),
            watched: Notify::new(),
            turn: Mutex::new(()),
            mark: AtomicU64::new(0),
        }
    }

    /// Something has changed; the revision that it makes.
    pub(crate) fn note(&self) -> u64 {
        let mut now = 0;
        self.revision.send_modify(|revision| {
            *revision += 1;
            now = *revision;
        });
        now
    }

    /// Waits until no other change is under way that is for one state only.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The revision.
    pub(crate) fn now(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Sends all away who wait: the agent stops.
    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
    }

    /// Whether the agent stops.
    pub(crate) fn is_over(&self) -> bool {
        *self.ended.borrow()
    }

    /// A place among those who wait; `None`: all are taken.
    pub(crate) fn watch(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.room).try_acquire_owned().ok()?;
        // What changed while nobody looked is seen before the first wait is over.
        self.watched.notify_one();
        Some(place)
    }

    /// Waits until the revision is another than that, the time is over, or the agent stops.
    pub(crate) async fn other_than(&self, known: u64, at_most: Duration) -> u64 {
        let mut revision = self.revision.subscribe();
        let mut ended = self.ended.subscribe();
        tokio::select! {
            _ = revision.wait_for(|now| *now != known) => {}
            _ = ended.wait_for(|ended| *ended) => {}
            () = tokio::time::sleep(at_most) => {}
        }
        self.now()
    }
}

/// Looks for what makes no record, while somebody waits; for ever.
pub(super) async fn look<A: Agent>(agent: Arc<A>) {
    let changes = agent.changes();
    // What is had is not made anew as long as it is so.
    let mut had = Vec::new();
    loop {
        if changes.room.available_permits() == WATCHERS_MAX {
            had.clear();
            changes.watched.notified().await;
        }
        let mark = match ask_loop(&*agent, None).await {
            Ok(status) => {
                let services = agent.services(None);
                let mark = mark(&status, &services, &agent.host().problems);
                had = services;
                mark
            }
            Err(_) => 1,
        };
        if changes.mark.swap(mark, Ordering::Relaxed) != mark {
            changes.note();
        }
        tokio::time::sleep(LOOK_AT_MOST).await;
        let again = changes.watched.notified();
        let _ = tokio::time::timeout(LOOK_EVERY - LOOK_AT_MOST, again).await;
    }
}

/// A hash of all that is news when it changes: not of ages, round trips and counters, which always do.
fn mark(status: &Status, services: &[Arc<ServiceReport>], problems: &[String]) -> u64 {
    let mut hash = DefaultHasher::new();
    (status.generation, status.term, status.overlaps).hash(&mut hash);
    (&status.draining, &status.cordoned).hash(&mut hash);
    for node in &status.nodes {
        (node.id, node.alive, node.hears_us, node.draining).hash(&mut hash);
        (node.digest, node.votes_in.is_some(), node.owns).hash(&mut hash);
    }
    for group in &status.groups {
        (group.id, group.owner, group.epoch, group.yields_to).hash(&mut hash);
        group.votes.hash(&mut hash);
        group.held.as_ref().map(|held| &held.reason).hash(&mut hash);
        for candidate in &group.candidates {
            candidate.node.hash(&mut hash);
            match &candidate.standing {
                Standing::Excluded(why) => discriminant(why).hash(&mut hash),
                standing @ (Standing::Owner | Standing::Wants | Standing::Candidate) => {
                    discriminant(standing).hash(&mut hash);
                }
            }
        }
    }
    for service in services {
        (service.group, service.address, &service.problem, &service.engine).hash(&mut hash);
        service.table.hash(&mut hash);
        for backend in &service.backends {
            (&backend.name, discriminant(&backend.state), &backend.reason).hash(&mut hash);
            (backend.urgent, backend.share).hash(&mut hash);
            backend.order.as_ref().map(|order| order.version.micros).hash(&mut hash);
        }
    }
    problems.hash(&mut hash);
    // 0 is before the first look, and 1 while the loop is gone.
    hash.finish().max(2)
}
