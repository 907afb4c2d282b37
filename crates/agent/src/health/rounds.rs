//! Asks in rounds: drives one machine of `core::check` with the clock and tells what came of it.
//!
//! Shared by the checks of backends and those of this host; what is asked is the caller's. `Kept` is
//! what others see of either: a map of states, and a wake-up when one turns.

use super::ask;
use buoy_core::check::{self, Action, Event, Question};
use buoy_model::{BackendState, Instant, Pace};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time;

/// States that a task keeps up to date. It ends, and all that it asks, when this is dropped.
#[derive(Debug)]
pub struct Kept<S> {
    states: watch::Receiver<S>,
    task: AbortHandle,
}

impl<S: Default> Kept<S> {
    /// Starts the task. To be called inside a tokio runtime.
    pub(crate) fn start<F>(keep: impl FnOnce(Arc<watch::Sender<S>>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, states) = watch::channel(S::default());
        let task = tokio::spawn(keep(Arc::new(sender)));
        Self { states, task: task.abort_handle() }
    }

    /// What is known, and a wake-up when something turns.
    pub fn states(&self) -> watch::Receiver<S> {
        self.states.clone()
    }
}

impl<S> Drop for Kept<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How one thing is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    pub(crate) pace: Pace,
    /// What was known before.
    pub(crate) known: BackendState,
    /// How long the first question waits, so that not all are asked at once.
    pub(crate) first: Duration,
}

/// What came of one turn.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) state: BackendState,
    /// Whether the state is another than before.
    pub(crate) turned: bool,
    /// What was wrong, or is worth knowing of a right answer; empty when nothing is. `None` when there was
    /// no answer.
    pub(crate) reason: Option<String>,
    /// Whether that is of something that will break if nobody acts.
    pub(crate) urgent: bool,
    /// How long a right answer took.
    pub(crate) latency: Option<Duration>,
    /// The share of its weight that a right answer asked for, in percent.
    pub(crate) share: Option<u16>,
    /// How loaded it said that it is, in percent.
    pub(crate) load: Option<u8>,
}

type Answer = (Question, ask::Answer, Duration);
type Pending = Option<Pin<Box<dyn Future<Output = Answer> + Send>>>;

/// Asks for ever. A question that takes too long is dropped, and all that it holds with it.
pub(crate) async fn keep_asking<Q>(rounds: Rounds, ask: impl Fn() -> Q, mut tell: impl FnMut(News))
where
    Q: Future<Output = ask::Answer> + Send + 'static,
{
    let start = time::Instant::now();
    let now = || {
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Instant::from_nanos(nanos)
    };
    let mut machine = check::Health::new(rounds.pace, rounds.known, now(), rounds.first);
    // A question is asked in here, so that giving it up drops it and its connection.
    let mut pending: Pending = None;
    let mut out = Vec::new();
    loop {
        let due = start + Duration::from_nanos(machine.deadline().as_nanos());
        let (mut reason, mut latency, mut share) = (None, None, None);
        let mut urgent = false;
        let event = tokio::select! {
            biased;
            (question, answer, took) = answer(&mut pending) => {
                pending = None;
                match answer {
                    Ok(said) => {
                        (reason, latency) = (Some(said.warning), Some(took));
                        (share, urgent) = (Some(said.share), said.urgent);
                        Event::Passed(question)
                    }
                    Err(said) => {
                        reason = Some(said);
                        Event::Failed(question)
                    }
                }
            }
            () = time::sleep_until(due) => Event::Tick,
        };
        machine.handle(now(), event, &mut out);
        let mut turned = false;
        for action in out.drain(..) {
            match action {
                Action::Ask(question) => pending = Some(timed(question, ask())),
                Action::GiveUp(_) => {
                    pending = None;
                    reason = Some(format!("timed out after {:?}", rounds.pace.timeout));
                }
                Action::TurnedUp | Action::TurnedDown => turned = true,
            }
        }
        let (state, load) = (machine.verdict(), None);
        tell(News { state, turned, reason, urgent, latency, share, load });
    }
}

fn timed<Q>(number: Question, question: Q) -> Pin<Box<dyn Future<Output = Answer> + Send>>
where
    Q: Future<Output = ask::Answer> + Send + 'static,
{
    Box::pin(async move {
        let start = time::Instant::now();
        let answer = question.await;
        (number, answer, start.elapsed())
    })
}

/// The answer to the question under way; waits for ever when there is none.
async fn answer(pending: &mut Pending) -> Answer {
    match pending {
        Some(question) => question.await,
        None => std::future::pending().await,
    }
}

/// One task for each thing that is asked; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Tasks<K, A>(BTreeMap<K, Running<A>>);

#[derive(Debug)]
struct Running<A> {
    asked: A,
    task: AbortHandle,
}

impl<A> Drop for Running<A> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K, A> Default for Tasks<K, A> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Clone + Ord, A: Clone + Eq> Tasks<K, A> {
    /// Ends what is not wanted in just this way any more.
    pub(crate) fn end(&mut self, wanted: &BTreeMap<K, A>) {
        self.0.retain(|key, was| wanted.get(key) == Some(&was.asked));
    }

    /// Starts what is wanted and does not run.
    pub(crate) fn start(&mut self, wanted: BTreeMap<K, A>, start: impl Fn(K, A) -> AbortHandle) {
        for (key, asked) in wanted {
            self.0
                .entry(key.clone())
                .or_insert_with(|| Running { asked: asked.clone(), task: start(key, asked) });
        }
    }
}
