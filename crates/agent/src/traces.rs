//! Tells a collector of OpenTelemetry about each takeover of this node: one trace, with its phases as spans.
//!
//! `otlp` is what is said. Nothing here waits for a collector: who has news leaves them in a queue with an end and
//! goes on; one task sends them, and what a collector does not take for a while is dropped and counted.

mod otlp;

use crate::post::Server;
use buoy_api::words::Words;
use buoy_model::limits::{TRACES_BATCH_MAX, TRACES_QUEUE_MAX, TRACES_RETRY, TRACES_TIMEOUT};
use buoy_model::{Cause, Desired, Epoch, Fact, GroupId, Record, Traces};
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use otlp::{Phases, Takeover};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};

/// First pause before spans are sent again; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);

/// The traces of this host.
#[derive(Clone, Debug)]
pub(crate) struct Tracing(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    desired: watch::Receiver<Arc<Desired>>,
    /// As the host calls itself.
    host: String,
    /// Takeovers whose phases are not known yet, one of each group.
    begun: Mutex<BTreeMap<GroupId, (Epoch, Takeover)>>,
    waiting: Mutex<VecDeque<(Takeover, Phases)>>,
    come: Notify,
    /// Why the last takeovers were not taken.
    failure: Mutex<Option<String>>,
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// Why spans were not taken, and whether another attempt may help.
enum Failed {
    Now(String),
    ForGood(String),
}

impl Tracing {
    /// Follows this configuration.
    pub(crate) fn new(desired: watch::Receiver<Arc<Desired>>) -> Self {
        Self(Arc::new(Shared {
            desired,
            host: buoy_kernel::host::hostname(),
            begun: Mutex::default(),
            waiting: Mutex::default(),
            come: Notify::new(),
            failure: Mutex::default(),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }))
    }

    /// Something happened at this moment of the wall clock.
    pub(crate) fn hear(&self, record: &Record, at: SystemTime) {
        let desired = Arc::clone(&self.0.desired.borrow());
        let (Some(group), Some(_)) = (record.group, &desired.traces) else { return };
        if let Fact::Acquired { epoch, cause, took } = &record.fact {
            let words = Words::new(&desired);
            let takeover = Takeover {
                vip: words.vip(record).unwrap_or_default(),
                from: owner_before(cause, &words),
                epoch: epoch.0,
                reason: words.cause(cause),
                wanted: at.checked_sub(*took).unwrap_or(UNIX_EPOCH),
            };
            let mut begun = lock(&self.0.begun);
            begun.retain(|id, _| desired.group(*id).is_some());
            begun.insert(group, (*epoch, takeover));
        } else if let Fact::Served { epoch, detect, decide, address, announce, first_packet } =
            record.fact
        {
            let begun = lock(&self.0.begun).remove(&group);
            if let Some((_, takeover)) = begun.filter(|(of, _)| *of == epoch) {
                let phases = Phases { detect, decide, address, announce, first_packet };
                self.0.push((takeover, phases));
            }
        }
    }

    /// Sends what comes, for ever.
    pub(crate) async fn keep(self) {
        loop {
            let batch = self.0.next().await;
            let outcome = self.0.deliver(&batch).await;
            self.0.note(batch.len(), outcome);
        }
    }

    /// What is wrong now, in a sentence.
    pub(crate) fn problem(&self) -> Option<String> {
        self.0.desired.borrow().traces.as_ref()?;
        let failure = lock(&self.0.failure);
        failure.as_ref().map(|why| format!("traces: {why}; takeovers are not told there"))
    }

    /// Takeovers that were told, and that were not.
    pub(crate) fn counters(&self) -> [(&'static str, u64); 2] {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [("traces_sent", count(&self.0.sent)), ("traces_dropped", count(&self.0.dropped))]
    }
}

impl Shared {
    fn push(&self, told: (Takeover, Phases)) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= TRACES_QUEUE_MAX {
            waiting.pop_front();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        waiting.push_back(told);
        self.come.notify_one();
    }

    /// All that waits, so much as is sent at a time.
    async fn next(&self) -> Vec<(Takeover, Phases)> {
        loop {
            let batch: Vec<_> = {
                let mut waiting = lock(&self.waiting);
                let count = waiting.len().min(TRACES_BATCH_MAX);
                waiting.drain(..count).collect()
            };
            if !batch.is_empty() {
                return batch;
            }
            self.come.notified().await;
        }
    }

    /// Tries again for a while where that may help; always where the file says at that moment.
    async fn deliver(&self, batch: &[(Takeover, Phases)]) -> Result<(), String> {
        let body = {
            let desired = Arc::clone(&self.desired.borrow());
            otlp::request(&desired, &self.host, batch)?
        };
        let end = Instant::now() + TRACES_RETRY;
        let mut pause = PAUSE_FIRST;
        loop {
            let Some(traces) = self.desired.borrow().traces.clone() else {
                return Err("there is no collector in the configuration any more".into());
            };
            let sent = time::timeout(TRACES_TIMEOUT, send(&traces, body.clone())).await;
            let late = |_| {
                let within = buoy_api::words::written(TRACES_TIMEOUT);
                Err(Failed::Now(format!(
                    "{}: no answer within {within}",
                    server(&traces).authority()
                )))
            };
            let why = match sent.unwrap_or_else(late) {
                Ok(()) => return Ok(()),
                Err(Failed::ForGood(why)) => return Err(why),
                Err(Failed::Now(why)) => why,
            };
            if Instant::now() + pause >= end {
                return Err(why);
            }
            // It is known while it is tried again.
            self.fail(why);
            time::sleep(pause).await;
            pause *= 2;
        }
    }

    fn note(&self, count: usize, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.sent.fetch_add(count as u64, Ordering::Relaxed);
                if lock(&self.failure).take().is_some() {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(why) => {
                self.dropped.fetch_add(count as u64, Ordering::Relaxed);
                self.fail(why);
            }
        }
    }

    fn fail(&self, why: String) {
        let mut failure = lock(&self.failure);
        if failure.as_ref() != Some(&why) {
            tracing::warn!("spans of takeovers could not be sent: {why}");
        }
        *failure = Some(why);
    }
}

fn server(traces: &Traces) -> Server<'_> {
    Server { host: &traces.host, port: traces.port, ca: traces.ca.as_deref() }
}

/// Sends it once.
async fn send(traces: &Traces, body: Vec<u8>) -> Result<(), Failed> {
    let server = server(traces);
    let authority = server.authority();
    let request = Request::builder()
        .method(Method::POST)
        .uri(&traces.path)
        .header("host", &authority)
        .header("user-agent", concat!("buoy/", env!("CARGO_PKG_VERSION")))
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .map_err(|error| Failed::ForGood(error.to_string()))?;
    let status = server.send(request).await.map_err(Failed::Now)?;
    let said = || format!("{authority} answered {status} to POST {}", traces.path);
    // Those that may be tried again (OTLP 1.x, "Retryable Response Codes").
    let again = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    if status.is_success() {
        Ok(())
    } else if again.contains(&status) {
        Err(Failed::Now(said()))
    } else {
        Err(Failed::ForGood(said()))
    }
}

/// Who had it before, as far as the cause says.
fn owner_before(cause: &Cause, words: &Words<'_>) -> Option<String> {
    match cause {
        Cause::OwnerSilent { node, .. }
        | Cause::OwnerReleased { node }
        | Cause::OwnerDied { node }
        | Cause::BetterOwner { node } => Some(words.node(*node)),
        Cause::RouterSilent { source, .. }
        | Cause::RouterWorse { source, .. }
        | Cause::RouterBetter { source, .. } => Some(source.to_string()),
        Cause::NoOwner
        | Cause::Moved { .. }
        | Cause::CheckFailed { .. }
        | Cause::Unheard { .. }
        | Cause::LeaseExpired
        | Cause::Drain
        | Cause::Stop
        | Cause::CarrierLost { .. }
        | Cause::Failback { .. }
        | Cause::RouterReleased
        | Cause::NoBackend
        | Cause::Reload
        | Cause::Stalled => None,
    }
}

/// Nothing that holds it can panic halfway through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
