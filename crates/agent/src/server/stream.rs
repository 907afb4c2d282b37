//! Answers a list now, when something has changed (`?wait=30s&since=REVISION`), or each time something does
//! (`Accept: text/event-stream`).
//!
//! A stream has a task of its own and one message on its way. While a client does not take it, what else happens
//! is not kept for him: the next message tells what holds then. Who takes nothing for too long is sent away. So
//! no client can make the agent keep anything for him, and none of this is near the real-time loop.

use super::Agent;
use super::changes::{Changes, WATCHERS_MAX};
use super::failure::Failure;
use super::write::tagged;
use super::written::written;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Query};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use buoy_api::view::Pieces;
use buoy_api::{LAST_EVENT_ID, STREAM_TYPE, WAIT_MAX};
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};

/// What to name as `since`: of lists that have no room for it too.
const REVISION: HeaderName = HeaderName::from_static("buoy-revision");
/// Media type of answers.
const JSON: &str = "application/json";
/// Least time between two messages: at most ten a second.
const PACE: Duration = Duration::from_millis(100);
/// After so long without news a comment says that the agent is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client may leave a message lying.
const SLOW_MAX: Duration = Duration::from_secs(10);
/// Shortest and longest time of `every`.
const EVERY: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

/// How a list is asked for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Asked {
    /// For how long at most to wait for news.
    wait: Option<Duration>,
    /// What the client knows already.
    pub(super) since: Option<u64>,
    /// Of a stream: tell again after so long, news or not.
    every: Option<Duration>,
    /// Each time something happens, and not once.
    stream: bool,
}

#[derive(Deserialize)]
struct AskedQuery {
    wait: Option<String>,
    since: Option<u64>,
    every: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = Query::<AskedQuery>::try_from_uri(&parts.uri);
        let Query(AskedQuery { wait, since, every }) =
            query.map_err(|error| Failure::query(&error))?;
        let said = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let stream = said(ACCEPT.as_str()).is_some_and(|accepted| accepted.contains(STREAM_TYPE));
        let last = match said(LAST_EVENT_ID) {
            Some(last) if stream => Some(last.trim().parse().map_err(|_| {
                Failure::bad_query("`Last-Event-ID` is not a number that this agent gave")
            })?),
            Some(_) | None => None,
        };
        let wait = wait.map(|wait| time("wait", &wait)).transpose()?;
        if wait.is_some_and(|wait| WAIT_MAX < wait) {
            let most = WAIT_MAX.as_secs();
            return Err(Failure::bad_query(format!("`wait` is at most {most}s")));
        }
        let every = every.map(|every| time("every", &every)).transpose()?;
        if every.is_some_and(|every| !stream || !EVERY.contains(&every)) {
            let what =
                "`every` is from 1s to 1h, and only of a stream: `Accept: text/event-stream`";
            return Err(Failure::bad_query(what));
        }
        Ok(Self { wait, since: last.or(since), every, stream })
    }
}

/// As in `500ms`, `30s` and `2m`.
fn time(name: &str, text: &str) -> Result<Duration, Failure> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number = digits.parse::<u32>().ok().filter(|_| is_number && unit != 0);
    let millis = number.and_then(|n| u64::from(n).checked_mul(unit));
    millis.map(Duration::from_millis).ok_or_else(|| {
        Failure::bad_query(format!("`{name}` is a time as in 30s, 500ms or 1m, not {text:?}"))
    })
}

/// The answer with what to name as `since`.
pub(super) fn revised(mut response: Response, revision: u64) -> Response {
    response.headers_mut().insert(REVISION, HeaderValue::from(revision));
    response
}

/// What an answer is made of.
pub(super) trait Reply {
    /// It as JSON, in one line.
    fn text(self) -> Pieces;

    /// What a change may name, where it has that.
    fn tag(&self) -> Option<String> {
        None
    }
}

impl<T: Serialize> Reply for T {
    fn text(self) -> Pieces {
        // Infallible: the types that travel have no keys that are no strings.
        serde_json::to_vec(&self).unwrap_or_default().into()
    }
}

/// An answer that is text already.
pub(super) struct Text(pub(super) Pieces);

impl Reply for Text {
    fn text(self) -> Pieces {
        self.0
    }
}

/// An answer with a tag.
pub(super) struct Tagged<T>(pub(super) String, pub(super) T);

impl<T: Serialize> Reply for Tagged<T> {
    fn text(self) -> Pieces {
        self.1.text()
    }

    fn tag(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

impl Asked {
    /// Answers with what `make` makes, as it was asked for; `name` is that of the stream's events.
    pub(super) async fn answer<A, T, M, F>(
        self,
        agent: Arc<A>,
        name: &'static str,
        make: M,
    ) -> Result<Response, Failure>
    where
        A: Agent,
        T: Reply + Send,
        M: Fn(Arc<A>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, Failure>> + Send,
    {
        if self.stream {
            let place = place(agent.changes())?;
            return Ok(streamed(move |told| async move {
                let _place: OwnedSemaphorePermit = place;
                self.tell(&agent, name, make, told).await;
            }));
        }
        self.waited(&*agent).await?;
        // Of before all else: what changes meanwhile is news to whoever reads this.
        let revision = agent.changes().now();
        let reply = make(agent).await?;
        let tag = reply.tag();
        let answer = ([(CONTENT_TYPE, JSON)], written(reply.text())).into_response();
        let answer = revised(answer, revision);
        Ok(match tag {
            Some(tag) => tagged(answer, &tag),
            None => answer,
        })
    }

    /// Waits for news, if that was asked for.
    pub(super) async fn waited<A: Agent>(&self, agent: &A) -> Result<(), Failure> {
        let Some(wait) = self.wait else { return Ok(()) };
        let _place = place(agent.changes())?;
        let known = self.since.unwrap_or_else(|| agent.changes().now());
        agent.changes().other_than(known, wait).await;
        Ok(())
    }

    /// For how long to wait, if that was asked for.
    pub(super) const fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// Whether it is to be a stream.
    pub(super) const fn is_stream(&self) -> bool {
        self.stream
    }

    async fn tell<A, T, M, F>(self, agent: &Arc<A>, name: &str, make: M, told: Told)
    where
        A: Agent,
        T: Reply + Send,
        M: Fn(Arc<A>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let mut known = self.since.unwrap_or_default();
        let mut again = self.every.map(|every| Instant::now() + every);
        loop {
            let now = match told.news(agent.changes(), known, again).await {
                News::Revision(now) => now,
                News::Over => return,
            };
            let message = match make(Arc::clone(agent)).await {
                Ok(value) => message(name, now, value),
                Err(failure) => message("problem", now, failure.problem()),
            };
            if !told.take(message).await {
                return;
            }
            known = now;
            again = self.every.map(|every| Instant::now() + every);
            tokio::time::sleep(PACE).await;
        }
    }
}

/// A place among those who wait.
pub(super) fn place(changes: &Changes) -> Result<OwnedSemaphorePermit, Failure> {
    changes.watch().ok_or_else(|| Failure::watchers(WATCHERS_MAX))
}

/// What a stream has to do next.
pub(super) enum News {
    /// It is another revision, or time to tell again.
    Revision(u64),
    /// The client has gone, or the agent stops.
    Over,
}

/// The way of messages to one client.
#[derive(Clone, Debug)]
pub(super) struct Told(mpsc::Sender<Bytes>);

impl Told {
    /// Waits for another revision than the known one; says now and then that the agent is still there.
    pub(super) async fn news(&self, changes: &Changes, known: u64, again: Option<Instant>) -> News {
        loop {
            let left = again.map(|again| again.saturating_duration_since(Instant::now()));
            let wait = left.unwrap_or(KEEP_ALIVE).min(KEEP_ALIVE);
            let now = tokio::select! {
                now = changes.other_than(known, wait) => now,
                () = self.0.closed() => return News::Over,
            };
            if changes.is_over() {
                return News::Over;
            }
            if now != known || again.is_some_and(|again| again <= Instant::now()) {
                return News::Revision(now);
            }
            if !self.take(Bytes::from_static(b": still here\n\n")).await {
                return News::Over;
            }
        }
    }

    /// Gives the client a message; `false`: he has gone or is too slow.
    pub(super) async fn take(&self, message: Bytes) -> bool {
        match timeout(SLOW_MAX, self.0.send(message)).await {
            Ok(taken) => taken.is_ok(),
            Err(_) => {
                tracing::info!("the reader of a stream is too slow: sent away");
                false
            }
        }
    }
}

/// One message of a stream, as <https://html.spec.whatwg.org/multipage/server-sent-events.html> has it.
pub(super) fn message(name: &str, id: u64, value: impl Reply) -> Bytes {
    // JSON in one line has no line feed outside of its own escapes.
    let data = value.text().whole();
    let head = format!("id: {id}\nevent: {name}\ndata: ");
    let mut all = Vec::with_capacity(head.len() + data.len() + 2);
    all.extend_from_slice(head.as_bytes());
    all.extend_from_slice(&data);
    all.extend_from_slice(b"\n\n");
    all.into()
}

/// An answer that goes on for as long as `tell` has something to say and the client listens.
pub(super) fn streamed<F>(tell: impl FnOnce(Told) -> F) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, messages) = mpsc::channel(1);
    drop(tokio::spawn(tell(Told(sender))));
    let head = [(CONTENT_TYPE, STREAM_TYPE), (CACHE_CONTROL, "no-store")];
    (head, Body::new(Messages(messages))).into_response()
}

/// The body of a stream.
struct Messages(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|message| message.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: (&str, &str) = ("accept", "text/event-stream");

    type Headers = &'static [(&'static str, &'static str)];

    async fn asked(uri: &str, headers: Headers) -> Result<Asked, String> {
        let mut request = axum::http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let asked = Asked::from_request_parts(&mut parts, &()).await;
        asked.map_err(|failure| failure.problem().detail.clone())
    }

    #[tokio::test]
    async fn a_list_is_asked_for_now_later_or_for_ever() {
        let seconds = |n| Some(Duration::from_secs(n));
        let none = Asked::default();
        let table: [(&str, Headers, Asked); 6] = [
            ("/", &[], none),
            ("/?n=3&wait=30s&since=7", &[], Asked { wait: seconds(30), since: Some(7), ..none }),
            ("/?wait=1m", &[("last-event-id", "9")], Asked { wait: seconds(60), ..none }),
            ("/", &[STREAM], Asked { stream: true, ..none }),
            (
                "/?since=7&every=2s",
                &[STREAM, ("last-event-id", "9")],
                Asked { since: Some(9), every: seconds(2), stream: true, ..none },
            ),
            (
                "/",
                &[("accept", "text/html, text/event-stream;q=0.5")],
                Asked { stream: true, ..none },
            ),
        ];
        for (uri, headers, expected) in table {
            assert_eq!(asked(uri, headers).await, Ok(expected), "{uri}");
        }
        let wrong: [(&str, Headers, &str); 9] = [
            ("/?wait=61s", &[], "at most 60s"),
            ("/?wait=30", &[], "a time as in 30s"),
            ("/?wait=-1s", &[], "a time as in 30s"),
            ("/?wait=s", &[], "a time as in 30s"),
            ("/?wait=99999999999s", &[], "a time as in 30s"),
            ("/?since=x", &[], "invalid digit"),
            ("/?every=1s", &[], "only of a stream"),
            ("/?every=10ms", &[STREAM], "from 1s"),
            ("/", &[STREAM, ("last-event-id", "x")], "Last-Event-ID"),
        ];
        for (uri, headers, part) in wrong {
            let said = asked(uri, headers).await.expect_err(uri);
            assert!(said.contains(part), "{uri}: {said}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_sent_away() {
        let (sender, _messages) = mpsc::channel(1);
        let told = Told(sender);
        assert!(told.take("one".into()).await, "there is room for one");
        let began = Instant::now();
        assert!(!told.take("two".into()).await, "nobody takes the first");
        assert_eq!(began.elapsed(), SLOW_MAX);
    }
}
