//! Keeps the backends of one proxy, who is busy how much, and what was counted.

use crate::Settings;
use crate::again::Again;
use crate::counts::{BackendCounts, Counts};
use crate::front::Caller;
use crate::limiter::Limiter;
use buoy_core::eject::Trust;
use buoy_core::pick::{GROWN, Picked, Picker, Seen, grown};
use buoy_core::routes;
use buoy_model::{Backend, BackendLife, Balance, ServerName};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

/// Everything that the connections of a proxy share.
#[derive(Debug)]
pub(crate) struct Pool {
    address: SocketAddr,
    inner: Mutex<Inner>,
    accepted: AtomicU64,
    active: AtomicU32,
    refused: AtomicU64,
    denied: AtomicU64,
    limited: AtomicU64,
    throttled: AtomicU64,
    unheard: AtomicU64,
    ejections: AtomicU64,
    waiting: AtomicU32,
    queued: AtomicU64,
    unserved: AtomicU64,
    /// A backend has room for one connection more, or things have changed. In the order of waiting.
    freed: Arc<Notify>,
    /// What backends' ages are counted from.
    start: Instant,
    /// A connection ended, or the limit changed.
    pub(crate) room: Notify,
}

#[derive(Debug)]
struct Inner {
    settings: Arc<Settings>,
    limiter: Limiter,
    /// Who takes connections of which name, the other names last; one where there are no names.
    lanes: Vec<Lane>,
    /// Those that take new connections.
    current: Vec<Arc<Entry>>,
    /// Those that left and are not empty yet.
    leaving: Vec<Arc<Entry>>,
    /// Those that take no new sessions and finish those that they have.
    finishing: Vec<(String, SocketAddr)>,
    /// Who gets the one that it had, or names one.
    again: Again,
}

impl Inner {
    /// The backend of that name: one that is not known is leaving.
    fn entry_of(&mut self, name: &str, address: SocketAddr) -> Arc<Entry> {
        let Self { current, leaving, .. } = self;
        let is_it = |entry: &&Arc<Entry>| entry.name == name && entry.address == address;
        let known = current.iter().chain(leaving.iter()).find(is_it).map(Arc::clone);
        known.unwrap_or_else(|| {
            let entry = Arc::new(Entry::new(name.to_owned(), address));
            leaving.push(Arc::clone(&entry));
            entry
        })
    }
}

/// Backends that connections of one name go to.
#[derive(Debug)]
struct Lane {
    name: Option<ServerName>,
    picker: Picker,
    /// In the picker's order.
    entries: Vec<Arc<Entry>>,
}

impl Lane {
    fn new(
        name: Option<ServerName>,
        balance: Balance,
        members: &[(&Backend, &Arc<Entry>)],
    ) -> Self {
        let backends: Vec<Backend> =
            members.iter().map(|(backend, _)| (*backend).clone()).collect();
        let entries = members.iter().map(|(_, entry)| Arc::clone(entry)).collect();
        Self { name, picker: Picker::new(balance, &backends, seed()), entries }
    }
}

/// One backend and its counters.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    connections: AtomicU64,
    active: AtomicU32,
    failures: AtomicU64,
    /// What connections have seen of it.
    trust: Mutex<Trust>,
    /// When it came up, in nanoseconds since the pool's start; 0: long ago.
    risen: AtomicU64,
    pub(crate) bytes_to: AtomicU64,
    pub(crate) bytes_from: AtomicU64,
    /// Its connections are to end, and nobody gets a new one.
    cut: watch::Sender<bool>,
}

/// A place among the connections of a proxy; given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Pool>);

/// A connection of a backend; given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) entry: Arc<Entry>,
    freed: Arc<Notify>,
}

/// What a connection is given.
#[derive(Debug)]
pub(crate) enum Given {
    Turn(Turn),
    /// All backends have their maximum.
    Full,
    Nobody,
}

/// A place in the queue; given back when dropped.
struct Waiting<'p>(&'p Pool);

impl<'p> Waiting<'p> {
    /// `None`: there is none left.
    fn new(pool: &'p Pool, queue: u32) -> Option<Self> {
        let more = |n| (n < queue).then_some(n + 1);
        pool.waiting.fetch_update(Relaxed, Relaxed, more).ok()?;
        pool.queued.fetch_add(1, Relaxed);
        Some(Self(pool))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Pool {
    pub(crate) fn new(address: SocketAddr, settings: Settings, backends: &[Backend]) -> Self {
        let inner = Inner {
            settings: Arc::new(settings.clone()),
            limiter: Limiter::default(),
            lanes: vec![],
            current: vec![],
            leaving: vec![],
            finishing: vec![],
            again: Again::default(),
        };
        let pool = Self {
            address,
            inner: Mutex::new(inner),
            accepted: AtomicU64::new(0),
            active: AtomicU32::new(0),
            refused: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            unheard: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            queued: AtomicU64::new(0),
            unserved: AtomicU64::new(0),
            freed: Arc::default(),
            start: Instant::now(),
            room: Notify::new(),
        };
        pool.update(settings, backends);
        // Who is there at the start has been there before.
        pool.lock().current.iter().for_each(|entry| entry.risen.store(0, Relaxed));
        pool
    }

    pub(crate) fn update(&self, settings: Settings, backends: &[Backend]) {
        let mut inner = self.lock();
        let before = std::mem::take(&mut inner.current);
        let now = self.age().max(1);
        let known: Vec<_> = before.iter().chain(&inner.leaving).map(Arc::clone).collect();
        inner.current = backends
            .iter()
            .map(|b| {
                let same = known.iter().find(|k| k.name == b.name && k.address == b.address);
                same.map_or_else(|| Arc::new(Entry::new(b.name.clone(), b.address)), Arc::clone)
            })
            .collect();
        let is_new = |entry: &&Arc<Entry>| !before.iter().any(|b| Arc::ptr_eq(b, entry));
        inner.current.iter().filter(is_new).for_each(|entry| entry.risen.store(now, Relaxed));
        inner.leaving = known
            .into_iter()
            .filter(|k| k.active.load(Relaxed) != 0)
            .filter(|k| !inner.current.iter().any(|c| Arc::ptr_eq(c, k)))
            .collect();
        let members: Vec<_> = backends.iter().zip(&inner.current).collect();
        let lane = |lane: &crate::Lane| {
            let named = members.iter().filter(|(b, _)| lane.backends.contains(&b.name));
            Lane::new(lane.name.clone(), settings.balance, &named.copied().collect::<Vec<_>>())
        };
        let lanes = match settings.lanes.is_empty() {
            true => vec![Lane::new(None, settings.balance, &members)],
            false => settings.lanes.iter().map(lane).collect(),
        };
        drop(members);
        inner.lanes = lanes;
        inner.again.take(backends);
        inner.settings = Arc::new(settings);
        drop(inner);
        self.room.notify_waiters();
        self.freed.notify_waiters();
        // And who has looked, but does not listen yet.
        self.freed.notify_one();
    }

    /// Sessions of these go on.
    pub(crate) fn keep(&self, backends: &[Backend]) {
        let named = |b: &Backend| (b.name.clone(), b.address);
        let mut inner = self.lock();
        inner.finishing = backends.iter().map(named).collect();
        inner.again.finish(backends);
    }

    /// Ends the connections of these backends. One that comes back begins anew.
    pub(crate) fn cut(&self, backends: &[Backend]) {
        let mut inner = self.lock();
        let is_meant = |entry: &Arc<Entry>| {
            backends.iter().any(|b| b.name == entry.name && b.address == entry.address)
        };
        let cut: Vec<_> = inner.leaving.extract_if(.., |entry| is_meant(entry)).collect();
        drop(inner);
        for entry in cut {
            entry.cut.send_replace(true);
        }
    }

    /// Nanoseconds since the start.
    fn age(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.lock().settings)
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A seat, or `None` at the limit.
    pub(crate) fn take_seat(self: &Arc<Self>) -> Option<Seat> {
        let limit = self.settings().connections_max;
        let taken =
            self.active.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).is_ok();
        taken.then(|| Seat(Arc::clone(self)))
    }

    /// A seat, whatever the limit.
    pub(crate) fn sit(self: &Arc<Self>) -> Seat {
        self.active.fetch_add(1, Relaxed);
        Seat(Arc::clone(self))
    }

    /// Waits until there are fewer connections than the limit.
    pub(crate) async fn wait_for_room(&self) {
        let mut met = false;
        loop {
            // Listen first: a seat given back between the look and the wait must wake us.
            let mut room = pin!(self.room.notified());
            room.as_mut().enable();
            if self.active.load(Relaxed) < self.settings().connections_max {
                return;
            }
            if !met {
                self.limited.fetch_add(1, Relaxed);
                met = true;
            }
            room.await;
        }
    }

    /// Gives a connection of this client to a backend, and waits for its turn where all are full. `gone` ends
    /// when nobody wants it any more.
    pub(crate) async fn turn(
        &self,
        caller: &Caller,
        avoid: Option<&Turn>,
        gone: impl Future<Output = ()>,
    ) -> Option<Turn> {
        // Nobody overtakes those who wait.
        if self.waiting.load(Relaxed) == 0 {
            match self.pick(caller, avoid) {
                Given::Turn(turn) => return Some(turn),
                Given::Nobody => return None,
                Given::Full => {}
            }
        }
        let life = self.lock().settings.life;
        let Some(_place) = Waiting::new(self, life.queue) else {
            self.unserved.fetch_add(1, Relaxed);
            return None;
        };
        let mut too_long = pin!(sleep(life.queue_timeout));
        let mut gone = pin!(gone);
        loop {
            // What was freed since the look above is kept for who listens next. A place that is given to somebody
            // who leaves at that moment goes on to the next one.
            tokio::select! {
                () = self.freed.notified() => {}
                () = &mut too_long => {
                    self.unserved.fetch_add(1, Relaxed);
                    return None;
                }
                () = &mut gone => return None,
            }
            match self.pick(caller, avoid) {
                Given::Turn(turn) => {
                    // Of several places that were freed before anybody listened, one was kept.
                    if self.has_room() {
                        self.freed.notify_one();
                    }
                    return Some(turn);
                }
                Given::Nobody => return None,
                Given::Full => {}
            }
        }
    }

    fn has_room(&self) -> bool {
        let inner = self.lock();
        let has_room =
            |lane: &Lane| lane.picker.has_room(|place| lane.entries[place].active.load(Relaxed));
        inner.lanes.iter().any(has_room)
    }

    /// Gives a connection of this client to a backend, now or not at all.
    pub(crate) fn pick(&self, caller: &Caller, avoid: Option<&Turn>) -> Given {
        let now = self.age();
        let mut inner = self.lock();
        let lanes = &inner.lanes;
        let names = lanes.iter().map(|lane| lane.name.as_ref());
        let Some(lane) = routes::find(names, caller.name.as_deref()) else { return Given::Nobody };
        if let Some(entry) = self.again(&mut inner, lane, (caller, avoid), now) {
            return Given::Turn(self.given(&entry));
        }
        let Inner { lanes, settings, again, .. } = &mut *inner;
        let Lane { picker, entries, .. } = &mut lanes[lane];
        let BackendLife { slow_start, eject, .. } = settings.life;
        let see = |place: usize| {
            let entry = &entries[place];
            let avoid = avoid.is_some_and(|turn| Arc::ptr_eq(&turn.entry, entry))
                || (eject.is_some() && entry.ejected(now).is_some());
            let grown = slow_start.map_or(GROWN, |slow_start| entry.grown(now, slow_start));
            Seen { active: entry.active.load(Relaxed), grown, avoid }
        };
        match picker.pick(caller.client, see) {
            // Under the lock, so that no other connection is given the same room.
            Picked::Backend(place) => {
                again.learn(settings, Duration::from_nanos(now), caller, &entries[place].name);
                Given::Turn(self.given(&entries[place]))
            }
            Picked::Full => Given::Full,
            Picked::Nobody => Given::Nobody,
        }
    }

    /// The backend that the client had, or that its datagram names, if that one takes it.
    fn again(
        &self,
        inner: &mut Inner,
        lane: usize,
        (caller, avoid): (&Caller, Option<&Turn>),
        now: u64,
    ) -> Option<Arc<Entry>> {
        let found = inner.again.find(&inner.settings, Duration::from_nanos(now), caller)?;
        let entry = inner.entry_of(&found.name, found.address);
        let lane = &inner.lanes[lane];
        let is_of_lane = lane.name.is_none() || lane.entries.iter().any(|e| Arc::ptr_eq(e, &entry));
        let is_avoided = avoid.is_some_and(|turn| Arc::ptr_eq(&turn.entry, &entry))
            || (inner.settings.life.eject.is_some() && entry.ejected(now).is_some());
        let takes = is_of_lane && !is_avoided && entry.active.load(Relaxed) < found.max;
        if takes {
            let Inner { again, settings, .. } = inner;
            again.took(settings, Duration::from_nanos(now), caller, &found);
        }
        takes.then_some(entry)
    }

    fn given(&self, entry: &Arc<Entry>) -> Turn {
        entry.active.fetch_add(1, Relaxed);
        entry.connections.fetch_add(1, Relaxed);
        Turn { entry: Arc::clone(entry), freed: Arc::clone(&self.freed) }
    }

    /// A connection of this backend that there is already.
    pub(crate) fn turn_of(&self, name: &str, address: SocketAddr) -> Turn {
        let entry = self.lock().entry_of(name, address);
        self.given(&entry)
    }

    /// A connection did not come to be, or ended before the backend said anything.
    pub(crate) fn count_failure(&self, entry: &Entry) {
        entry.failures.fetch_add(1, Relaxed);
        let Some(eject) = self.settings().life.eject else { return };
        let now = Duration::from_nanos(self.age());
        if entry.trust().failed(now, eject) {
            self.ejections.fetch_add(1, Relaxed);
            let left = entry.trust().left(now).unwrap_or_default();
            tracing::warn!(
                backend = entry.name,
                seconds = left.as_secs(),
                "a backend is left alone: connections to it fail, one after the other"
            );
        }
    }

    /// A backend has said something on a connection.
    pub(crate) fn count_success(&self, entry: &Entry) {
        let mut trust = entry.trust();
        // Mostly there is nothing to forgive, and nobody asks what time it is.
        if *trust != Trust::default() {
            trust.worked(Duration::from_nanos(self.age()));
        }
    }

    /// Whether the backend takes new connections, or finishes those that it has.
    pub(crate) fn is_current(&self, entry: &Arc<Entry>) -> bool {
        let inner = self.lock();
        inner.current.iter().any(|c| Arc::ptr_eq(c, entry))
            || inner.finishing.iter().any(|(n, a)| *n == entry.name && *a == entry.address)
    }

    pub(crate) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    /// Whether the service is there for this client; counted if not.
    pub(crate) fn admits(&self, client: SocketAddr) -> bool {
        let sources = Arc::clone(&self.lock().settings.sources);
        let is_allowed = sources.allows(client.ip());
        if !is_allowed {
            self.denied.fetch_add(1, Relaxed);
        }
        is_allowed
    }

    /// Whether an accepted connection is listened to; whom a header names is not known yet.
    pub(crate) fn greets(&self, from: SocketAddr) -> bool {
        let settings = self.settings();
        settings.front.believes(from.ip()) || (self.admits(from) && self.admits_new(from))
    }

    /// Whether this client may open one more connection or session; counted, one way or the other.
    pub(crate) fn admits_new(&self, client: SocketAddr) -> bool {
        let mut inner = self.lock();
        let Some(rate) = inner.settings.new_connections else { return true };
        let may = inner.limiter.admits(rate, std::time::Instant::now(), client.ip());
        drop(inner);
        if !may {
            self.throttled.fetch_add(1, Relaxed);
        }
        may
    }

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_unheard(&self) {
        self.unheard.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_limited(&self) {
        self.limited.fetch_add(1, Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let now = self.age();
        let inner = self.lock();
        Counts {
            accepted: self.accepted.load(Relaxed),
            active: self.active.load(Relaxed),
            refused: self.refused.load(Relaxed),
            denied: self.denied.load(Relaxed),
            limited: self.limited.load(Relaxed),
            throttled: self.throttled.load(Relaxed),
            unheard: self.unheard.load(Relaxed),
            ejections: self.ejections.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            queued: self.queued.load(Relaxed),
            unserved: self.unserved.load(Relaxed),
            stuck: inner.again.stuck,
            unnamed: inner.again.unnamed,
            backends: inner
                .current
                .iter()
                .chain(inner.leaving.iter().filter(|e| e.active.load(Relaxed) != 0))
                .map(|e| e.counts(now))
                .collect(),
        }
    }

    /// Nothing that holds the lock can panic halfway through a change.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of lots, not to be guessed by clients.
fn seed() -> u64 {
    RandomState::new().hash_one(())
}

impl Entry {
    fn new(name: String, address: SocketAddr) -> Self {
        Self {
            name,
            address,
            connections: AtomicU64::new(0),
            active: AtomicU32::new(0),
            failures: AtomicU64::new(0),
            trust: Mutex::default(),
            risen: AtomicU64::new(0),
            bytes_to: AtomicU64::new(0),
            bytes_from: AtomicU64::new(0),
            cut: watch::Sender::new(false),
        }
    }

    /// Returns when its connections are to end.
    pub(crate) async fn cut(&self) {
        let mut cut = self.cut.subscribe();
        // The sender is in the entry itself, which lives as long as this is asked of it.
        let _ = cut.wait_for(|cut| *cut).await;
    }

    fn grown(&self, now: u64, slow_start: Duration) -> u16 {
        match self.risen.load(Relaxed) {
            0 => GROWN,
            risen => grown(Duration::from_nanos(now.saturating_sub(risen)), slow_start),
        }
    }

    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it is left alone.
    fn ejected(&self, now: u64) -> Option<Duration> {
        self.trust().left(Duration::from_nanos(now))
    }

    fn counts(&self, now: u64) -> BackendCounts {
        BackendCounts {
            name: self.name.clone(),
            connections: self.connections.load(Relaxed),
            active: self.active.load(Relaxed),
            failures: self.failures.load(Relaxed),
            ejected: self.ejected(now),
            bytes_to: self.bytes_to.load(Relaxed),
            bytes_from: self.bytes_from.load(Relaxed),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
        self.0.room.notify_waiters();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.entry.active.fetch_sub(1, Relaxed);
        self.freed.notify_one();
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
