//! Asks all backends in one task: whose turn it is, what is under way, and what came of it.
//!
//! Ten thousand backends that are asked every second would be ten thousand tasks and timers, most of whose work is
//! to wake up. Here they are places in one list, in the order of when each has something to do, and
//! what falls due at almost the same time is done together: connections are begun for all of them before the first
//! answer is looked at (`buoy_kernel::connects`). Questions that take more than one answer have a
//! task each, for as long as they last. When and how often is decided by `core::check`, for each backend.

use super::ask::vip::{Aside, Path, Programs, Vips};
use super::ask::{self, Asker, Target, WHOLE_SHARE};
use super::loads::Usual;
use super::rounds::News;
use super::{Asked, Key, Place, States, address, jitter, publish, say, wanted, warn};
use buoy_core::backend_orders::BackendOrders;
use buoy_core::check::{self, Action, Event, Question};
use buoy_core::load::Share;
use buoy_kernel::connects::{Care, Connects, Outcome};
use buoy_kernel::via::Via;
use buoy_model::{BackendState, CheckKind, Desired, Duty, Instant};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time;

/// How many connections are begun before their answers are looked at: so many take well below a millisecond.
const TOGETHER: usize = 32;
/// What falls due within so much time is done at once, where there are many backends.
const COARSE: Duration = Duration::from_millis(10);
/// The same where there are few.
const FINE: Duration = Duration::from_millis(1);
/// How long nobody waits for where nothing is due.
const IDLE: Duration = Duration::from_secs(3600);
/// So many backends are many.
const MANY: usize = 1000;

/// What the board is told, and what it tells.
pub(super) struct Ends {
    /// What holds of checks that this node does not share.
    pub(super) states: Arc<watch::Sender<States>>,
    /// What this node has found by checks that it shares.
    pub(super) opinions: watch::Sender<States>,
    /// What other nodes ask in its place.
    pub(super) spared: watch::Receiver<BTreeSet<Key>>,
    /// Whether there is anybody to share with.
    pub(super) shares: bool,
}

/// The checks of all backends.
pub(super) struct Board {
    start: time::Instant,
    places: BTreeMap<Key, usize>,
    /// By place; a place that is free is used again.
    checks: Vec<Option<Check>>,
    free: Vec<usize>,
    /// Who has something to do next. What does not hold any more stays until its time.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    connects: Connects,
    others: JoinSet<Answer>,
    /// For backends that are asked on VIPs, as long as there are such; why it is not there.
    programs: Option<Result<Programs, String>>,
    ends: Ends,
    usual: Usual,
    news: Vec<(usize, News)>,
    /// For use again.
    actions: Vec<Action>,
    outcomes: Vec<Outcome>,
}

struct Check {
    key: Key,
    asked: Asked,
    machine: check::Health,
    asker: Arc<Asker>,
    /// When it is in `Board::due`.
    armed: Option<Instant>,
    pending: Option<Pending>,
    /// The last warning that was said.
    warned: String,
    /// Its share, where that follows its load.
    share: Option<Share>,
}

/// A question under way. Its end is the end of all that it holds.
struct Pending {
    question: Question,
    asked_at: Instant,
    /// `None`: a connection, which is in `Board::connects` under the number of its place.
    task: Option<Task>,
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Answer {
    place: usize,
    asker: Arc<Asker>,
    question: Question,
    said: ask::Answer,
}

impl Board {
    /// Empty. To be called inside a tokio runtime.
    pub(super) fn new(ends: Ends) -> io::Result<Self> {
        Ok(Self {
            start: time::Instant::now(),
            places: BTreeMap::new(),
            checks: Vec::new(),
            free: Vec::new(),
            due: BinaryHeap::new(),
            connects: Connects::new()?,
            others: JoinSet::new(),
            programs: None,
            ends,
            usual: Usual::default(),
            news: Vec::new(),
            actions: Vec::new(),
            outcomes: Vec::new(),
        })
    }

    /// Asks what the configuration names, until nobody can change that any more.
    pub(super) async fn run(
        mut self,
        mut desired: watch::Receiver<Arc<Desired>>,
        mut orders: watch::Receiver<Arc<BackendOrders>>,
    ) {
        self.follow(wanted(&desired.borrow_and_update()), &orders.borrow_and_update());
        loop {
            let wake = self.wake();
            tokio::select! {
                biased;
                changed = changed(&mut desired, &mut orders) => {
                    if changed.is_err() {
                        return;
                    }
                    self.follow(wanted(&desired.borrow_and_update()), &orders.borrow_and_update());
                }
                changed = self.ends.spared.changed(), if self.ends.shares => {
                    if changed.is_err() {
                        return;
                    }
                    self.follow(wanted(&desired.borrow_and_update()), &orders.borrow_and_update());
                }
                Some(done) = self.others.join_next(), if !self.others.is_empty() => {
                    self.answer(done.ok());
                    while let Some(done) = self.others.try_join_next() {
                        self.answer(done.ok());
                    }
                }
                () = time::sleep_until(wake) => self.tick(),
            }
            self.tell();
        }
    }

    /// Where what is found is kept.
    fn found(&self, asked: &Asked) -> &watch::Sender<States> {
        match self.ends.shares && asked.is_shared() {
            true => &self.ends.opinions,
            false => &self.ends.states,
        }
    }

    /// Begins what is new and ends what is not wanted in just this way any more. What is known of a
    /// backend whose address stays is kept, and so is what is known of one that an order spares: it is as it was
    /// when it is asked again.
    fn follow(&mut self, mut wanted: BTreeMap<Key, Asked>, orders: &BackendOrders) {
        let moved = |key: &Key, was: &Asked| {
            wanted.get(key).is_none_or(|asked| asked.backend != was.backend)
        };
        let checks = self.checks.iter().flatten();
        let forgotten = checks.filter(|check| moved(&check.key, &check.asked));
        let forgotten: BTreeSet<Key> = forgotten.map(|check| check.key.clone()).collect();
        keep_only(&self.ends.states, |key| wanted.contains_key(key) && !forgotten.contains(key));
        wanted.retain(|key, _| orders.of(&key.id()).is_none_or(|o| o.duty != Duty::Maint));
        let shares = self.ends.shares;
        let is_shared = |asked: &Asked| shares && asked.is_shared();
        {
            let spared = self.ends.spared.borrow_and_update();
            wanted.retain(|key, asked| !(is_shared(asked) && spared.contains(key)));
        }
        keep_only(&self.ends.opinions, |key| {
            wanted.get(key).is_some_and(is_shared) && !forgotten.contains(key)
        });
        let ended = |check: &&Check| wanted.get(&check.key) != Some(&check.asked);
        let ended = self.checks.iter().flatten().filter(ended);
        for key in ended.map(|check| check.key.clone()).collect::<Vec<_>>() {
            self.end(&key);
        }
        if !wanted.values().any(|asked| matches!(asked.place, Place::Vips { .. })) {
            self.programs = None;
        }
        let is_plain = |asked: &&Asked| asked.check.kind == CheckKind::Tcp;
        self.connects.expect(wanted.values().filter(is_plain).count());
        for (key, asked) in wanted {
            if !self.places.contains_key(&key) {
                self.begin(key, asked);
            }
        }
    }

    fn path(&mut self, asked: &Asked) -> Path {
        let (vips, wrap) = match &asked.place {
            Place::Itself => return Path::Itself,
            Place::Member => {
                let reason = "it is a host of the cluster, which passes packets for the VIP on";
                return Path::Instead(Aside { reason: reason.to_owned(), urgent: false });
            }
            Place::Vips { vips, wrap } => (vips, *wrap),
        };
        let programs = self.programs.get_or_insert_with(|| {
            let via = Via::open().map_err(|error| error.to_string());
            via.map(|via| Arc::new(Mutex::new(via)))
        });
        let vips = match programs {
            Ok(programs) => Vips::new(programs, vips, asked.backend.ip(), wrap),
            Err(reason) => Err(reason.clone()),
        };
        vips.map_or_else(|reason| Path::Instead(Aside { reason, urgent: true }), Path::Vips)
    }

    fn end(&mut self, key: &Key) {
        let Some(place) = self.places.remove(key) else { return };
        self.give_up(place);
        self.checks[place] = None;
        self.free.push(place);
    }

    fn begin(&mut self, key: Key, asked: Asked) {
        let target = Target { name: key.backend.clone(), address: address(&asked) };
        // What all answers come to is the best guess of what this node will find.
        let known = self.ends.states.borrow().get(&key).map(|known| known.state);
        let own = self.found(&asked).borrow().get(&key).map(|known| known.state);
        let known = own.or(known).unwrap_or(BackendState::Unknown);
        let first = jitter(&key, asked.check.pace.every);
        let check = Check {
            machine: check::Health::new(asked.check.pace, known, self.now(), first),
            asker: Arc::new(
                Asker::by(self.path(&asked), &asked.check.kind, &target)
                    .with_load(asked.check.load.as_ref()),
            ),
            key: key.clone(),
            asked,
            armed: None,
            pending: None,
            warned: String::new(),
            share: None,
        };
        let place = self.free.pop().unwrap_or(self.checks.len());
        if place == self.checks.len() {
            self.checks.push(None);
        }
        self.checks[place] = Some(check);
        self.places.insert(key, place);
        self.arm(place);
    }

    fn now(&self) -> Instant {
        let nanos = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Instant::from_nanos(nanos)
    }

    /// When there is something to do: rounded up, so that neighbours are done together.
    fn wake(&self) -> time::Instant {
        let grain = if self.places.len() < MANY { FINE } else { COARSE };
        let next = self.due.peek().map(|Reverse((next, _))| *next);
        // Answers that are late are looked for as often as that.
        let look = self.connects.is_waiting().then(|| self.now());
        let Some(next) = next.into_iter().chain(look).min() else {
            return time::Instant::now() + IDLE;
        };
        let grain = u64::try_from(grain.as_nanos()).unwrap_or(1);
        self.start + Duration::from_nanos((next.as_nanos() / grain + 1).saturating_mul(grain))
    }

    /// Sees to it that the check has its turn when its machine wants it.
    fn arm(&mut self, place: usize) {
        let Some(check) = self.checks[place].as_mut() else { return };
        let at = check.machine.deadline();
        if check.armed.is_none_or(|armed| at < armed) {
            check.armed = Some(at);
            self.due.push(Reverse((at, place)));
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        if self.connects.is_waiting() {
            // It cannot fail: the descriptor is its own.
            let _ = self.connects.wait(&mut self.outcomes);
            self.hear();
        }
        let mut begun = 0;
        while let Some(Reverse((at, place))) = self.due.peek().copied() {
            if now < at {
                break;
            }
            self.due.pop();
            let Some(check) = self.checks[place].as_mut() else { continue };
            if check.armed != Some(at) {
                continue;
            }
            check.armed = None;
            begun += usize::from(self.step(place, self.now(), Event::Tick, Heard::Nothing));
            if begun == TOGETHER {
                begun = 0;
                self.look();
            }
        }
        self.look();
    }

    /// What came of the connections that were begun.
    fn look(&mut self) {
        self.connects.look(&mut self.outcomes);
        self.hear();
    }

    fn hear(&mut self) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        for (number, outcome) in outcomes.drain(..) {
            let place = usize::try_from(number).unwrap_or(usize::MAX);
            let check = self.checks.get(place).and_then(Option::as_ref);
            let Some(pending) = check.and_then(|check| check.pending.as_ref()) else { continue };
            let question = pending.question;
            let took = outcome.as_ref().copied().unwrap_or_default();
            let said = outcome.map(|_| ask::Said::default()).map_err(|e| ask::explain(&e));
            self.judge(place, (question, took), said);
        }
        self.outcomes = outcomes;
    }

    fn answer(&mut self, answer: Option<Answer>) {
        // A task that was ended has no answer.
        let Some(Answer { place, asker, question, said }) = answer else { return };
        let check = self.checks.get(place).and_then(Option::as_ref);
        let Some(check) = check.filter(|check| Arc::ptr_eq(&check.asker, &asker)) else { return };
        let Some(pending) = &check.pending else { return };
        if pending.question == question {
            let took = self.now().since(pending.asked_at);
            self.judge(place, (question, took), said);
        }
    }

    fn judge(&mut self, place: usize, (question, took): (Question, Duration), said: ask::Answer) {
        if let Some(check) = self.checks[place].as_mut() {
            check.pending = None;
        }
        let (event, heard) = match said {
            Ok(said) => (Event::Passed(question), Heard::Well(said, took)),
            Err(reason) => (Event::Failed(question), Heard::Ill(reason)),
        };
        self.step(place, self.now(), event, heard);
    }

    /// Takes one event to its machine. Whether a connection was begun for it.
    fn step(&mut self, place: usize, now: Instant, event: Event, heard: Heard) -> bool {
        let Some(check) = self.checks[place].as_mut() else { return false };
        let mut actions = std::mem::take(&mut self.actions);
        check.machine.handle(now, event, &mut actions);
        let urgent = matches!(&heard, Heard::Well(said, _) if said.urgent);
        let (mut reason, latency, share, load) = match heard {
            Heard::Nothing => (None, None, None, None),
            Heard::Well(said, took) => {
                let share = match &check.asked.check.load {
                    Some(load) => {
                        let known = self.ends.states.borrow();
                        let wanted =
                            self.usual.wanted(now, load, (&check.key, &known), (&said, took));
                        // Who was not asked before goes on where others are.
                        let told = known.get(&check.key).map_or(WHOLE_SHARE, |known| known.share);
                        let share = check.share.get_or_insert_with(|| Share::new(told));
                        wanted.map(|wanted| share.follow(now, wanted))
                    }
                    None => Some(said.share),
                };
                (Some(said.warning), Some(took), share, said.load)
            }
            Heard::Ill(reason) => (Some(reason), None, None, None),
        };
        let (mut turned, mut begun) = (false, false);
        for action in actions.drain(..) {
            match action {
                Action::Ask(question) => begun |= self.ask(place, now, question),
                Action::GiveUp(_) => {
                    reason = Some(self.timed_out(place));
                    self.give_up(place);
                }
                Action::TurnedUp | Action::TurnedDown => turned = true,
            }
        }
        self.actions = actions;
        if turned || reason.is_some() || latency.is_some() {
            let state = self.checks[place].as_ref().map(|check| check.machine.verdict());
            let state = state.unwrap_or(BackendState::Unknown);
            self.news.push((place, News { state, turned, reason, urgent, latency, share, load }));
        }
        self.arm(place);
        begun
    }

    fn timed_out(&self, place: usize) -> String {
        let said = |check: &Check| check.asker.silence(check.asked.check.pace.timeout);
        self.checks[place].as_ref().map(said).unwrap_or_default()
    }

    /// Whether a connection was begun.
    fn ask(&mut self, place: usize, asked_at: Instant, question: Question) -> bool {
        let Some(check) = self.checks[place].as_mut() else { return false };
        if check.asked.check.kind == CheckKind::Tcp && check.asked.place == Place::Itself {
            check.pending = Some(Pending { question, asked_at, task: None });
            let number = u64::try_from(place).unwrap_or(u64::MAX);
            let failed = self.connects.start(number, address(&check.asked), care(&check.asked));
            self.outcomes.extend(failed);
            return true;
        }
        let asker = Arc::clone(&check.asker);
        let task = self.others.spawn(async move {
            let said = asker.ask().await;
            Answer { place, asker, question, said }
        });
        check.pending = Some(Pending { question, asked_at, task: Some(Task(task)) });
        false
    }

    /// Drops the question under way, and all that it holds.
    fn give_up(&mut self, place: usize) {
        let pending = self.checks[place].as_mut().and_then(|check| check.pending.take());
        if pending.is_some_and(|pending| pending.task.is_none()) {
            self.connects.give_up(u64::try_from(place).unwrap_or(u64::MAX));
        }
    }

    /// Says what has turned, and keeps what is known, all in one change.
    fn tell(&mut self) {
        if self.news.is_empty() {
            return;
        }
        let shares = self.ends.shares;
        let shared = |(place, _): &(usize, News)| {
            let check = self.checks[*place].as_ref();
            shares && check.is_some_and(|check| check.asked.is_shared())
        };
        let (shared, own): (Vec<_>, Vec<_>) = self.news.drain(..).partition(shared);
        let checks = &mut self.checks;
        let mut keep = |states: &mut States, news: Vec<(usize, News)>| {
            let mut woken = false;
            for (place, news) in news {
                let Some(check) = checks[place].as_mut() else { continue };
                say(&check.key, &news);
                warn(&check.key, &news, &mut check.warned);
                woken |= publish(states, &check.key, news);
            }
            woken
        };
        if !own.is_empty() {
            self.ends.states.send_if_modified(|states| keep(states, own));
        }
        if !shared.is_empty() {
            self.ends.opinions.send_if_modified(|states| keep(states, shared));
        }
    }
}

/// One answer may decide, or its time is what counts.
fn care(asked: &Asked) -> Care {
    let decides = asked.check.pace.fall == 1 || asked.check.load.is_some();
    if decides { Care::Full } else { Care::Usual }
}

/// What was heard of a backend in one step.
enum Heard {
    Nothing,
    Well(ask::Said, Duration),
    Ill(String),
}

fn keep_only(states: &watch::Sender<States>, stays: impl Fn(&Key) -> bool) {
    states.send_if_modified(|states| {
        let before = states.len();
        states.retain(&stays);
        states.len() != before
    });
}

/// Waits for another configuration or other orders.
async fn changed(
    desired: &mut watch::Receiver<Arc<Desired>>,
    orders: &mut watch::Receiver<Arc<BackendOrders>>,
) -> Result<(), watch::error::RecvError> {
    tokio::select! {
        changed = desired.changed() => changed,
        changed = orders.changed() => changed,
    }
}
