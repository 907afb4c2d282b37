//! Gives out the support archive, which a child of the agent makes: `buoy support dump --into -`.
//!
//! It is collected by the very command that operators run, so both have the same parts and leave out the same
//! secrets. As a child it can be as slow as its tools, and takes nothing of the agent but a pipe.

use super::failure::Failure;
use super::openapi::{Operation, text};
use super::{Agent, Asker};
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use buoy_api::MeReply;
use hyper::body::Frame;
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdout};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::timeout;

/// Media type of the archive.
const ARCHIVE: &str = "application/gzip";
/// Archives under way: each runs a dozen programs.
static PLACES: Semaphore = Semaphore::const_new(1);
/// How long an archive may take.
const MAKING_MAX: Duration = Duration::from_secs(300);
/// Bytes that are handed on at a time.
const CHUNK: usize = 64 << 10;

pub(super) fn routes<A: Agent>() -> Router<Arc<A>> {
    Router::new().route("/v1/me", get(me::<A>)).route("/v1/support", get(support::<A>))
}

pub(super) fn operations() -> Vec<Operation> {
    let archive =
        "What `buoy support dump` collects on this node, without secrets; for the role admin.";
    vec![
        Operation::new("get", "/v1/me", "me", "Who asks, and what he may do.").answers::<MeReply>(),
        Operation::new("get", "/v1/support", "support", archive)
            .answers_with(ARCHIVE, text())
            .refuses(503, "Another one is being made."),
    ]
}

async fn me<A: Agent>(
    State(agent): State<Arc<A>>,
    ConnectInfo(asker): ConnectInfo<Asker>,
) -> Json<MeReply> {
    let desired = agent.desired();
    Json(asker.introduce(desired.node_name(desired.me)))
}

async fn support<A: Agent>(
    State(agent): State<Arc<A>>,
    ConnectInfo(asker): ConnectInfo<Asker>,
) -> Result<Response, Failure> {
    let place = PLACES.try_acquire().map_err(|_| Failure::another_archive())?;
    let mut command = agent.support_dump();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| Failure::internal(&error))?;
    let out = child.stdout.take().ok_or_else(|| Failure::internal(&io::Error::other("no pipe")))?;
    tracing::info!(by = asker.name(), "a support archive is made");
    let (sender, chunks) = mpsc::channel(1);
    drop(tokio::spawn(hand_on(place, child, out, sender)));
    let node = agent.desired();
    let name: String = node
        .node_name(node.me)
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
        .collect();
    let head = [
        (CONTENT_TYPE, ARCHIVE.to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"buoy-support-{name}.tar.gz\"")),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((head, Body::new(Chunks(chunks))).into_response())
}

/// Hands on what the child writes until it ends; a client that has gone ends it.
async fn hand_on(
    place: SemaphorePermit<'static>,
    child: Child,
    out: ChildStdout,
    chunks: mpsc::Sender<io::Result<Bytes>>,
) {
    let made = timeout(MAKING_MAX, copy(child, out, &chunks)).await;
    let why = match made {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(_) => Some(io::Error::other(format!("it took more than {MAKING_MAX:?}"))),
    };
    if let Some(why) = why {
        tracing::warn!("the support archive is not whole: {why}");
        // Where nobody takes it, he has gone.
        drop(chunks.send(Err(why)).await);
    }
    drop(place);
}

async fn copy(
    mut child: Child,
    mut out: ChildStdout,
    chunks: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut room = vec![0; CHUNK];
    loop {
        let length = tokio::select! {
            length = out.read(&mut room) => length?,
            () = chunks.closed() => return Err(io::Error::other("nobody takes it any more")),
        };
        if length == 0 {
            break;
        }
        let chunk = Bytes::copy_from_slice(&room[..length]);
        chunks.send(Ok(chunk)).await.map_err(|_| io::Error::other("nobody takes it any more"))?;
    }
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("its maker: {status}"))) }
}

/// The body of the answer.
struct Chunks(mpsc::Receiver<io::Result<Bytes>>);

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|bytes| bytes.map(Frame::data)))
    }
}

impl Failure {
    fn another_archive() -> Self {
        let title = "another support archive is being made";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", title, "one at a time")
            .fix("ask again when it is done")
    }
}
