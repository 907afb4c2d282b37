//! Shares the checks of backends among the nodes: tells the others what this one has found, and makes of all
//! answers what holds.
//!
//! Who asks and what the answers come to is decided by [`buoy_core::jury`]. This carries it: every answer goes
//! out when it turns and again every second, a tenth of them each tenth, so that a thousand backends are no burst. What
//! holds is published where the answers of unshared checks are, so whoever forwards need not know of it;
//! this node's own answers stay apart (`opinions`), for whether it can serve is for itself to find.

use super::{BackendHealth, Key, States, WHOLE_SHARE, wanted};
use crate::exchange::{Handle, News};
use buoy_core::jury::{Jury, Verdict, Verdicts};
use buoy_kernel::clock;
use buoy_model::{BackendState, Desired, Measured, NodeId, Opinion, Subject, Told, Topic};
use buoy_wire::exchange::answers;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time;

/// How often a part of the answers is said again.
const BEAT: Duration = Duration::from_millis(100);
/// In so many beats all of them are.
const PARTS: u64 = 10;

/// What this task is told, and what it tells.
pub(super) struct Ends {
    pub(super) desired: watch::Receiver<Arc<Desired>>,
    /// What this node has found itself.
    pub(super) opinions: watch::Receiver<States>,
    /// What holds, of shared checks and others.
    pub(super) states: Arc<watch::Sender<States>>,
    /// What others ask in this node's place.
    pub(super) spared: watch::Sender<BTreeSet<Key>>,
    /// Why this node's answers do not count.
    pub(super) doubt: watch::Sender<Option<String>>,
}

/// Runs for as long as the configuration can change.
pub(super) async fn share(ends: Ends, exchange: Handle) {
    let mut parcels = exchange.subscribe(Topic::Answers);
    let mut sharing = Sharing::new(ends, exchange);
    sharing.adopt();
    let mut beat = time::interval(BEAT);
    beat.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = sharing.ends.desired.changed() => {
                if changed.is_err() {
                    return;
                }
                sharing.adopt();
            }
            changed = sharing.ends.opinions.changed() => {
                if changed.is_err() {
                    return;
                }
                sharing.tell_news();
            }
            Some(news) = parcels.recv() => {
                sharing.hear(news);
                // What has come meanwhile is judged together.
                while let Ok(news) = parcels.try_recv() {
                    sharing.hear(news);
                }
            }
            // Where nothing is shared there is nothing to say again.
            _ = beat.tick(), if !sharing.subjects.is_empty() => sharing.beat(),
        }
        if sharing.turned {
            sharing.judge();
        }
    }
}

/// The task's own.
struct Sharing {
    ends: Ends,
    exchange: Handle,
    jury: Jury,
    me: NodeId,
    /// What is shared, each asked by so many.
    subjects: BTreeMap<Subject, usize>,
    keys: BTreeMap<Subject, Key>,
    /// What was found here and told last.
    own: BTreeMap<Subject, Told>,
    /// What was said in words or measured, where something was.
    words: BTreeMap<(Subject, NodeId), (String, Measured)>,
    /// Whether something was heard that may change what holds.
    turned: bool,
    beats: u64,
}

impl Sharing {
    fn new(ends: Ends, exchange: Handle) -> Self {
        let me = ends.desired.borrow().me;
        Self {
            ends,
            exchange,
            jury: Jury::new(me),
            me,
            subjects: BTreeMap::new(),
            keys: BTreeMap::new(),
            own: BTreeMap::new(),
            words: BTreeMap::new(),
            turned: true,
            beats: 0,
        }
    }

    /// Takes over what the configuration shares.
    fn adopt(&mut self) {
        let wanted = wanted(&self.ends.desired.borrow_and_update());
        let gone = |key: &Key| !wanted.contains_key(key);
        let left: BTreeSet<Key> = self.keys.values().filter(|key| gone(key)).cloned().collect();
        self.subjects.clear();
        self.keys.clear();
        for (key, asked) in wanted {
            if let Some(askers) = asked.check.askers {
                let subject = subject(&key);
                self.subjects.insert(subject, askers.get().into());
                self.keys.insert(subject, key);
            }
        }
        self.ends.states.send_if_modified(|states| {
            let before = states.len();
            if !left.is_empty() {
                states.retain(|key| !left.contains(key));
            }
            states.len() != before
        });
        self.words.retain(|(subject, _), _| self.keys.contains_key(subject));
        self.turned = true;
        self.tell_news();
    }

    /// Tells the others at once what was found anew here.
    fn tell_news(&mut self) {
        let now = clock::now();
        let mut found = BTreeMap::new();
        {
            let opinions = self.ends.opinions.borrow_and_update();
            for (subject, key) in &self.keys {
                let Some(health) = opinions.get(key) else { continue };
                if health.state != BackendState::Unknown {
                    found.insert(*subject, told(*subject, health));
                }
            }
        }
        let mut news = Vec::new();
        for (subject, told) in &found {
            let before = self.own.get(subject).map(|told| told.opinion);
            if before != Some(told.opinion) {
                self.jury.hear(now, self.me, *subject, Some(told.opinion));
                news.push(told.clone());
            }
        }
        for subject in self.own.keys().filter(|subject| !found.contains_key(subject)) {
            self.jury.hear(now, self.me, *subject, None);
            let opinion = Opinion { state: BackendState::Unknown, share: WHOLE_SHARE };
            let (measured, words) = (Measured::default(), String::new());
            news.push(Told { subject: *subject, opinion, measured, words });
        }
        self.turned |= !news.is_empty();
        self.own = found;
        self.send(None, news.iter());
    }

    fn hear(&mut self, news: News) {
        let now = clock::now();
        match news {
            News::Came(peer) => {
                self.turned = true;
                self.send(Some(peer), self.own.values());
            }
            News::Left(peer) => {
                self.turned = true;
                self.jury.forget(peer);
                self.words.retain(|(_, node), _| *node != peer);
            }
            News::Parcel(peer, body) => {
                // What is not of this form is of another version: it says nothing to this one.
                for told in answers::parse(&body).unwrap_or_default() {
                    // Of a check that this node does not have (yet, or any more).
                    if !self.keys.contains_key(&told.subject) {
                        continue;
                    }
                    let Told { subject, opinion, measured, words } = told;
                    self.turned |= self.jury.hear(now, peer, subject, Some(opinion));
                    if words.is_empty() && measured == Measured::default() {
                        self.words.remove(&(subject, peer));
                    } else {
                        self.words.insert((subject, peer), (words, measured));
                    }
                }
            }
        }
    }

    /// Says a part of the answers again, and once a second looks at what has grown old.
    fn beat(&mut self) {
        self.beats += 1;
        let part = self.beats % PARTS;
        if part == 0 {
            // Reasons and latencies change without waking anybody.
            self.tell_news();
            self.turned |= !self.keys.is_empty();
        }
        self.send(None, self.own.values().filter(|told| told.subject.0 % PARTS == part));
    }

    fn send<'a>(&self, to: Option<NodeId>, all: impl Iterator<Item = &'a Told>) {
        let mut body = Vec::new();
        for told in all {
            if !answers::add(&mut body, told) {
                self.exchange.send(to, Topic::Answers, std::mem::take(&mut body));
                answers::add(&mut body, told);
            }
        }
        if !body.is_empty() {
            self.exchange.send(to, Topic::Answers, body);
        }
    }

    /// What all answers come to: who asks, what holds, and who is doubted.
    fn judge(&mut self) {
        self.turned = false;
        let mut there = self.exchange.present();
        there.push(self.me);
        let verdicts = self.jury.judge(clock::now(), &self.subjects, &there);
        let mine: BTreeSet<Subject> = verdicts.mine.iter().copied().collect();
        let others = self.keys.iter().filter(|(subject, _)| !mine.contains(subject));
        let spared: BTreeSet<Key> = others.map(|(_, key)| key.clone()).collect();
        self.ends.spared.send_if_modified(|known| {
            let changed = *known != spared;
            *known = spared;
            changed
        });
        self.publish(&verdicts);
        self.doubt(&verdicts);
    }

    fn publish(&self, verdicts: &Verdicts) {
        let desired = self.ends.desired.borrow();
        let opinions = self.ends.opinions.borrow();
        self.ends.states.send_if_modified(|states| {
            let mut woken = false;
            for (subject, verdict) in &verdicts.of {
                let Some(key) = self.keys.get(subject) else { continue };
                let reason = self.reason(*subject, verdict, &desired);
                let own = opinions.get(key);
                woken |= states.change(key, |known| {
                    let turned = known.turn(verdict.state, clock::now());
                    if turned {
                        say(key, verdict, &reason);
                    }
                    let weighed = known.weigh(verdict.share);
                    let worded = known.say(reason, own.is_some_and(|own| own.urgent));
                    // Loads and times are those of the node whose share holds.
                    let measured = self.measured(*subject, verdict.by);
                    let took = measured.took.or_else(|| own.and_then(|own| own.last_latency));
                    known.last_latency = took.or(known.last_latency);
                    known.load = measured.load.or(known.load);
                    (worded || turned || weighed, turned || weighed)
                });
            }
            woken
        });
    }

    fn measured(&self, subject: Subject, by: NodeId) -> Measured {
        let told = match by == self.me {
            true => self.own.get(&subject).map(|told| told.measured),
            false => self.words.get(&(subject, by)).map(|(_, measured)| *measured),
        };
        told.unwrap_or_default()
    }

    /// Why it holds: in the words of one who agrees, and of one who does not.
    fn reason(&self, subject: Subject, verdict: &Verdict, desired: &Desired) -> String {
        let words = |node: NodeId| match node == self.me {
            true => self.own.get(&subject).map(|told| told.words.as_str()),
            false => self.words.get(&(subject, node)).map(|(words, _)| words.as_str()),
        };
        let said = words(verdict.by).unwrap_or_default();
        let name = desired.node_name(verdict.by);
        match (verdict.state, said) {
            (BackendState::Down, said) => {
                let (agree, of) = (verdict.agree, verdict.of);
                format!("{said} (found by {name}, {agree} of {of} agree)")
            }
            (BackendState::Up | BackendState::Unknown, said) if verdict.agree < verdict.of => {
                let against = verdict.of - verdict.agree;
                format!("{against} of {} find it down {said}", verdict.of).trim_end().to_owned()
            }
            (BackendState::Up | BackendState::Unknown, said) => said.to_owned(),
        }
    }

    fn doubt(&self, verdicts: &Verdicts) {
        let desired = self.ends.desired.borrow();
        let me = verdicts.doubted.contains(&self.me).then(|| {
            "this node alone finds nearly all backends down that other nodes reach: its answers do not count; \
             look at its network and firewall"
                .to_owned()
        });
        self.ends.doubt.send_if_modified(|known| {
            let changed = *known != me;
            if let (true, Some(reason)) = (changed, &me) {
                tracing::warn!("{reason}");
            } else if changed {
                tracing::info!("the answers of this node about backends count again");
            }
            *known = me;
            changed
        });
        for node in verdicts.doubted.iter().filter(|node| **node != self.me) {
            let node = desired.node_name(*node);
            tracing::debug!(
                node,
                "finds nearly all backends down, alone: its answers do not count"
            );
        }
    }
}

/// The same on all nodes.
fn subject(key: &Key) -> Subject {
    let Key { group, address, protocol, ports, backend } = key;
    Subject::of(&format!("{}/{address}/{}/{ports}/{backend}", group.0, protocol.name()))
}

fn told(subject: Subject, health: &BackendHealth) -> Told {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let opinion = Opinion { state: health.state, share: health.share };
    let measured = Measured { load: health.load, took: health.last_latency };
    Told { subject, opinion, measured, words: health.reason.chars().map(clean).collect() }
}

fn say(Key { backend, ports, .. }: &Key, verdict: &Verdict, reason: &str) {
    let port = tracing::field::display(ports);
    match verdict.state {
        BackendState::Up => tracing::info!(backend, port, "the backend is up, by all answers"),
        BackendState::Down => {
            tracing::warn!(backend, port, reason, "the backend is down, by all answers")
        }
        BackendState::Unknown => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use buoy_model::{GroupId, Mode};

    #[test]
    fn backends_that_differ_in_anything_are_other_subjects() {
        let service = sample::service(Mode::Kernel, "10.0.0.100", 80, vec![]);
        let other = sample::service(Mode::Kernel, "10.0.0.101", 80, vec![]);
        let third = sample::service(Mode::Kernel, "10.0.0.100", 81, vec![]);
        let keys = [
            Key::of(GroupId(1), &service, "web1"),
            Key::of(GroupId(2), &service, "web1"),
            Key::of(GroupId(1), &other, "web1"),
            Key::of(GroupId(1), &third, "web1"),
            Key::of(GroupId(1), &service, "web2"),
        ];
        let all: BTreeSet<Subject> = keys.iter().map(subject).collect();
        assert_eq!(all.len(), keys.len());
    }
}
