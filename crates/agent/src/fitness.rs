//! Asks this host itself whether it could serve each group, so that ownership follows the application.
//!
//! [`start`] follows the configuration: one task per question about a group that this host
//! may own, in the rounds of `core::check` (`rise`, `fall`, one question at a time). What many groups
//! ask alike is asked once: a pool of a thousand VIPs asks its gateway once. What is known is in a
//! `watch` channel; [`report`] joins it with the health of the backends and tells the loop.
//!
//! A check that has not been answered passes: a restart of the agent or a new check moves nothing
//! before there is a reason. Its first answer decides at once. A reload keeps what is known of a
//! check whose question stays.

mod ask;

use crate::forward::{self, Ability};
use crate::health;
use crate::health::rounds::{self, Kept, News, Rounds, Tasks};
use crate::realtime::{Command, Handle};
use ask::Asker;
use buoy_core::check;
use buoy_kernel::clock;
use buoy_model::{BackendState, Desired, Fitness, Group, GroupId, Instant, NodeCheck, name_key};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The first questions are spread over so much time at most: a host that is not fit should not be an
/// owner for longer after its start.
const FIRST_WITHIN: Duration = Duration::from_millis(250);
/// First pause after the loop took no order; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(10);
/// Longest pause after the loop took no order.
const RETRY_LAST: Duration = Duration::from_secs(1);

/// One check of one group.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// The group.
    pub group: GroupId,
    /// The check's name.
    pub check: String,
}

/// What is known of a check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckState {
    /// `Down` fails, `Up` passes, and so does `Unknown`, not answered yet.
    pub state: BackendState,
    /// What was wrong with its last answer, in words; empty when nothing was.
    pub reason: String,
    /// Since when it is in this state.
    pub since: Instant,
    /// When it was answered, or given up, last.
    pub answered: Instant,
}

/// What is known of every check of this host; those not answered yet are missing.
pub type States = BTreeMap<Key, CheckState>;

/// Starts asking what the configuration names, now and after every change of it. To be called inside
/// a tokio runtime.
pub fn start(desired: watch::Receiver<Arc<Desired>>) -> Kept<States> {
    Kept::start(|states| follow(desired, states))
}

/// What the checks of this host mean for one group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Judged {
    /// Which.
    pub group: GroupId,
    /// How well this host could serve it.
    pub fitness: Fitness,
    /// What is added to its priority of VRRP.
    pub weight: i16,
}

/// How well this host could serve each group; `lacks` says of which it cannot forward a service.
pub fn judge(
    desired: &Desired,
    checks: &States,
    backends: &health::States,
    lacks: impl Fn(&Desired, &Group) -> bool,
) -> Vec<Judged> {
    let judge = |group: &Group| {
        let failing = failing(group, checks).map(|check| check.name.as_str());
        let failing = failing.or_else(|| lacks(desired, group).then_some(FORWARDING));
        let fitness = check::fitness(failing, forward::behind(group, backends));
        Judged { group: group.id, fitness, weight: weight(group, checks) }
    };
    desired.groups.iter().map(judge).collect()
}

/// What the checks that weigh something add: those that pass what is positive, those that fail what is negative. One
/// that was not answered yet passes, as all others do.
fn weight(group: &Group, checks: &States) -> i16 {
    let weighs = group.checks.iter().filter_map(|check| Some((check, check.weight?)));
    let counts = weighs.filter(|(check, weight)| fails(group, check, checks) == (*weight < 0));
    counts.fold(0, |sum, (_, weight)| sum.saturating_add(weight))
}

/// What people read where a host cannot forward a service of the group.
const FORWARDING: &str = "forwarding by XDP";

/// The first check of the group, in the file's order, that fails.
fn failing<'a>(group: &'a Group, checks: &States) -> Option<&'a NodeCheck> {
    let decides = |check: &&NodeCheck| check.weight.is_none();
    group.checks.iter().filter(decides).find(|check| fails(group, check, checks))
}

fn fails(group: &Group, check: &NodeCheck, checks: &States) -> bool {
    let key = Key { group: group.id, check: check.name.clone() };
    checks.get(&key).is_some_and(|known| known.state == BackendState::Down)
}

/// Tells the loop what the checks mean for ownership: now, and what is new after every change.
pub async fn report(
    handle: Handle,
    mut desired: watch::Receiver<Arc<Desired>>,
    mut checks: watch::Receiver<States>,
    (mut backends, mut opinions): (
        watch::Receiver<health::States>,
        watch::Receiver<health::States>,
    ),
    mut engine: Ability,
) {
    let mut told = Told::default();
    let mut pause = RETRY_FIRST;
    loop {
        let wanted = Arc::clone(&desired.borrow_and_update());
        let lacks = engine.lacks();
        let now = {
            let (backends, opinions) = (backends.borrow_and_update(), opinions.borrow_and_update());
            // Whether this host can serve is for itself to find: others may reach what it does not.
            let seen = health::seen_from_here(&backends, &opinions);
            judge(&wanted, &checks.borrow_and_update(), &seen, lacks)
        };
        let news = told.news(wanted.generation, &now);
        let refused = !news.is_empty() && handle.order(Command::Fitness(news)).is_err();
        if !refused {
            told = Told { generation: wanted.generation, groups: now };
        }
        let again = pause;
        pause = if refused { (pause * 2).min(RETRY_LAST) } else { RETRY_FIRST };
        let changed = tokio::select! {
            changed = desired.changed() => changed,
            changed = checks.changed() => changed,
            changed = backends.changed() => changed,
            changed = opinions.changed() => changed,
            changed = engine.changed() => changed,
            () = tokio::time::sleep(again), if refused => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

/// What the loop knows of the checks.
#[derive(Debug, Default)]
struct Told {
    generation: u64,
    groups: Vec<Judged>,
}

impl Told {
    /// What the loop must hear: the loop decides about each group that it hears of, so no more.
    fn news(&self, generation: u64, now: &[Judged]) -> Vec<Judged> {
        // A reload may have made a group anew. Both lists are in the order of `Desired`: by id.
        let same = self.generation == generation;
        let place = |id| self.groups.binary_search_by_key(&id, |judged| judged.group);
        let known =
            |of: &&Judged| same && place(of.group).is_ok_and(|place| self.groups[place] == **of);
        now.iter().filter(|of| !known(of)).cloned().collect()
    }
}

async fn follow(mut desired: watch::Receiver<Arc<Desired>>, states: Arc<watch::Sender<States>>) {
    let mut tasks: Tasks<Key, Shared> = Tasks::default();
    let mut asked: BTreeMap<Key, NodeCheck> = BTreeMap::new();
    loop {
        let wanted = wanted(&desired.borrow_and_update());
        let shared = share(&wanted);
        tasks.end(&shared);
        // Another rhythm is no other question.
        let stays = |key: &Key| match (wanted.get(key), asked.get(key)) {
            (Some(now), Some(before)) => now.kind == before.kind,
            (None, _) | (_, None) => false,
        };
        states.send_if_modified(|states| {
            let before = states.len();
            states.retain(|key, _| stays(key));
            states.len() != before
        });
        tasks.start(shared, |_, shared| {
            tokio::spawn(keep_asking(shared, Arc::clone(&states))).abort_handle()
        });
        asked = wanted;
        if desired.changed().await.is_err() {
            return;
        }
    }
}

/// One question, and all checks that ask it in one rhythm; there is at least one.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Shared {
    check: NodeCheck,
    keys: Vec<Key>,
}

fn share(checks: &BTreeMap<Key, NodeCheck>) -> BTreeMap<Key, Shared> {
    let mut all: Vec<Shared> = Vec::new();
    for (key, check) in checks {
        match all.iter_mut().find(|shared| asks_alike(&shared.check, check)) {
            Some(shared) => shared.keys.push(key.clone()),
            None => all.push(Shared { check: check.clone(), keys: vec![key.clone()] }),
        }
    }
    all.into_iter().filter_map(|shared| Some((shared.keys.first()?.clone(), shared))).collect()
}

/// Whether one answer serves both, whatever people call them.
fn asks_alike(one: &NodeCheck, other: &NodeCheck) -> bool {
    one.kind == other.kind && one.pace == other.pace
}

/// The checks of all groups that this host may own.
fn wanted(desired: &Desired) -> BTreeMap<Key, NodeCheck> {
    let groups = desired.groups.iter().filter(|group| group.nodes.contains(&desired.me));
    let checks = groups.flat_map(|group| {
        let key = |check: &NodeCheck| Key { group: group.id, check: check.name.clone() };
        group.checks.iter().map(move |check| (key(check), check.clone()))
    });
    checks.collect()
}

/// Asks one thing for ever.
async fn keep_asking(shared: Shared, states: Arc<watch::Sender<States>>) {
    let Shared { check, keys } = shared;
    let known = {
        let states = states.borrow();
        let known = keys.iter().find_map(|key| states.get(key));
        known.map_or(BackendState::Unknown, |known| known.state)
    };
    let rounds = Rounds { pace: check.pace, known, first: jitter(&keys, check.pace.every) };
    let asker = Arc::new(Asker::new(&check));
    let ask = || {
        let asker = Arc::clone(&asker);
        async move { asker.ask().await }
    };
    rounds::keep_asking(rounds, ask, |news| {
        say(&check.name, &news);
        publish(&states, &keys, &news);
    })
    .await;
}

fn say(check: &str, news: &News) {
    match (news.turned, news.state) {
        (false, BackendState::Up | BackendState::Down) | (_, BackendState::Unknown) => {}
        (true, BackendState::Up) => tracing::info!(check, "a check of this host passes"),
        (true, BackendState::Down) => {
            let reason = news.reason.as_deref().unwrap_or_default();
            tracing::warn!(check, reason, "a check of this host fails");
        }
    }
}

/// Keeps what is known, and wakes the readers when a check has turned.
fn publish(states: &watch::Sender<States>, keys: &[Key], news: &News) {
    // A question was asked, and that is all.
    let Some(reason) = &news.reason else { return };
    states.send_if_modified(|states| {
        let now = clock::now();
        let mut turned = false;
        for key in keys {
            let known = states.entry(key.clone()).or_insert_with(|| CheckState {
                state: BackendState::Unknown,
                reason: String::new(),
                since: now,
                answered: now,
            });
            known.reason.clone_from(reason);
            known.answered = now;
            if known.state != news.state {
                known.state = news.state;
                known.since = now;
                turned = true;
            }
        }
        turned
    });
}

/// Spreads the first questions by name, so that nothing has to be remembered.
fn jitter(keys: &[Key], every: Duration) -> Duration {
    let name = keys.first().map(|key| format!("{}/{}", key.group.0, key.check));
    let hash = name_key(&name.unwrap_or_default());
    every.min(FIRST_WITHIN).mul_f64(f64::from(hash) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
