//! Answers with all that there is, or lists of VIPs, services and backends: from texts that are kept while somebody asks.
//!
//! Who asks again names the tag of what he has, and is told when nothing but ages and counters is another. Texts
//! that nobody has asked for lately are given back: an agent that nobody watches keeps none.

use super::failure::Failure;
use super::paging::Paged;
use super::stream::{Asked, Reply, Text, revised};
use super::written::written;
use super::{Agent, Snapshot, wall_clock};
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use buoy_api::view::{Pieces, Texts};
use buoy_api::{BackendsReply, ClusterStatus, ServicesReply, VipsReply};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Records in a status.
const STATUS_EVENTS: usize = 10;
/// How long texts are kept that nobody asks for.
const KEPT: Duration = Duration::from_secs(10);

/// The texts, while somebody asks.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Option<Kept>>);

#[derive(Debug)]
struct Kept {
    texts: Texts,
    /// Of no other texts, before or after: when they were begun.
    name: u64,
    asked: Instant,
}

impl Answers {
    /// Nothing that holds the lock can panic halfway through a change.
    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives them back when nobody has asked for them for a while.
    async fn wither(&self) {
        while let Some(until) = self.wither_at(Instant::now()) {
            sleep_until(until).await;
        }
        buoy_kernel::program::trim();
    }

    /// Gives them back, if it is time; else when it is.
    fn wither_at(&self, now: Instant) -> Option<Instant> {
        let mut kept = self.lock();
        let until = kept.as_ref().map(|kept| kept.asked + KEPT).filter(|until| now < *until);
        if until.is_none() {
            *kept = None;
        }
        until
    }
}

/// The whole status, ready to be sent.
pub(super) struct Whole {
    text: Pieces,
    tag: String,
}

impl Reply for Whole {
    fn text(self) -> Pieces {
        self.text
    }
}

pub(super) async fn status<A: Agent>(
    State(agent): State<Arc<A>>,
    headers: HeaderMap,
    asked: Asked,
) -> Result<Response, Failure> {
    if asked.is_stream() {
        return asked.answer(agent, "status", whole).await;
    }
    asked.waited(&*agent).await?;
    let snapshot = Snapshot::of(&*agent, STATUS_EVENTS).await?;
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known: Vec<&str> = known.flat_map(|tags| tags.split(',').map(str::trim)).collect();
    let is_known = |tag: &str| known.iter().any(|known| *known == "*" || is_equal(known, tag));
    let answer = match told(&agent, &snapshot, is_known) {
        Ok(Whole { text, tag }) => {
            let head = [(CONTENT_TYPE, "application/json".to_owned()), (ETAG, tag)];
            (head, written(text)).into_response()
        }
        Err(tag) => (StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response(),
    };
    Ok(revised(answer, snapshot.revision))
}

/// Weak comparison (RFC 9110 section 8.8.3.2).
fn is_equal(known: &str, tag: &str) -> bool {
    known.trim_start_matches("W/") == tag.trim_start_matches("W/")
}

/// The VIPs of a page.
pub(super) fn vips<A: Agent>(agent: &Arc<A>, page: &Paged) -> Text {
    let Paged { snapshot, groups, next } = page;
    let (node, revision, next) = (snapshot.me(), snapshot.revision, next.clone());
    let frame = VipsReply { node, revision, vips: Vec::new(), next };
    let (view, of) = (snapshot.view(), groups.as_deref());
    Text(kept(agent, snapshot, |kept| {
        kept.texts.update(&view, of);
        kept.texts.vips(&view, &frame, of)
    }))
}

/// The services of its VIPs.
pub(super) fn services<A: Agent>(agent: &Arc<A>, page: &Paged) -> Text {
    let Paged { snapshot, groups, next } = page;
    let (node, revision, next) = (snapshot.me(), snapshot.revision, next.clone());
    let frame = ServicesReply { node, revision, services: Vec::new(), next };
    Text(kept(agent, snapshot, |kept| {
        kept.texts.update_behind(&snapshot.view(), groups.as_deref());
        kept.texts.services(&frame, groups.as_deref())
    }))
}

/// The backends of its VIPs.
pub(super) fn backends<A: Agent>(agent: &Arc<A>, page: &Paged) -> Text {
    let Paged { snapshot, groups, next } = page;
    let (node, revision, next) = (snapshot.me(), snapshot.revision, next.clone());
    let frame = BackendsReply { node, revision, backends: Vec::new(), next };
    Text(kept(agent, snapshot, |kept| {
        kept.texts.update_behind(&snapshot.view(), groups.as_deref());
        kept.texts.backends(&frame, groups.as_deref())
    }))
}

async fn whole<A: Agent>(agent: Arc<A>) -> Result<Whole, Failure> {
    let snapshot = Snapshot::of(&*agent, STATUS_EVENTS).await?;
    let (Ok(whole) | Err(whole)) =
        told(&agent, &snapshot, |_| false).map_err(|tag| Whole { text: Pieces::default(), tag });
    Ok(whole)
}

/// The status at that moment; its tag alone where that is known.
fn told<A: Agent>(
    agent: &Arc<A>,
    snapshot: &Snapshot,
    is_known: impl Fn(&str) -> bool,
) -> Result<Whole, String> {
    let view = snapshot.view();
    let status = ClusterStatus { revision: snapshot.revision, ..view.cluster_alone() };
    kept(agent, snapshot, |Kept { texts, name, .. }| {
        texts.update(&view, None);
        let tag = format!("W/\"{name:x}-{:x}-{:08x}\"", texts.made(), mark(&status) >> 32);
        match is_known(&tag) {
            true => Err(tag),
            false => Ok(Whole { text: texts.status(&view, &status), tag }),
        }
    })
}

/// What is made of the texts of that configuration, as they are kept.
fn kept<A: Agent, T>(agent: &Arc<A>, snapshot: &Snapshot, make: impl FnOnce(&mut Kept) -> T) -> T {
    let mut answers = agent.answers().lock();
    let is_first = answers.is_none();
    let kept = answers.take().filter(|kept| kept.texts.are_of(&snapshot.desired));
    let kept = answers.insert(kept.unwrap_or_else(|| Kept {
        texts: Texts::new(Arc::clone(&snapshot.desired)),
        name: wall_clock(),
        asked: Instant::now(),
    }));
    kept.asked = Instant::now();
    if is_first {
        let agent = Arc::clone(agent);
        drop(tokio::spawn(async move { agent.answers().wither().await }));
    }
    make(kept)
}

/// A hash of all in it that is news when it changes, but for VIPs: not of ages, round trips and counters, which always do.
fn mark(status: &ClusterStatus) -> u64 {
    let mut hash = DefaultHasher::new();
    // Every record makes a revision of its own.
    (status.revision, status.generation, &status.digest, status.overlaps).hash(&mut hash);
    (&status.draining, &status.cordoned, &status.defences, &status.problems).hash(&mut hash);
    status.timing.term_ms.map(f64::to_bits).hash(&mut hash);
    for link in &status.links {
        (&link.name, link.unheard, link.damped_left_ms.is_some()).hash(&mut hash);
    }
    for node in &status.nodes {
        (&node.name, node.alive, node.hears_us, node.draining, node.cordoned).hash(&mut hash);
        (&node.digest, node.votes_in_ms.is_some(), node.owns).hash(&mut hash);
        node.legs.iter().for_each(|leg| leg.alive.hash(&mut hash));
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn texts_that_nobody_asks_for_are_given_back() {
        let answers = Answers::default();
        let texts = Texts::new(Arc::new(super::super::tests::desired()));
        let began = Instant::now();
        *answers.lock() = Some(Kept { texts, name: 1, asked: began });
        let asks = async {
            tokio::time::sleep(KEPT / 2).await;
            answers.lock().as_mut().expect("it is time yet").asked = Instant::now();
        };
        tokio::join!(asks, answers.wither());
        assert_eq!(began.elapsed(), KEPT + KEPT / 2, "so long after it was asked for last");
        assert!(answers.lock().is_none());
    }

    #[test]
    fn tags_of_ages_are_compared_as_weak_ones() {
        for known in ["W/\"1-2-3\"", "\"1-2-3\""] {
            assert!(is_equal(known, "W/\"1-2-3\""), "{known}");
        }
        assert!(!is_equal("W/\"1-2-4\"", "W/\"1-2-3\""));
    }
}
