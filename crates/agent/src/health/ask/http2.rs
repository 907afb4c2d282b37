//! Exchanges one request and its answer by HTTP/2, with everything that a server may send bounded.
//!
//! The connection lives in the question and nowhere else: no task is left behind when it is dropped.

use super::CLOSED;
use super::http::{Body, HEAD_MAX, driven, unsendable};
use buoy_model::limits::CHECK_BODY_MAX;
use h2::client::{Builder, SendRequest};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes that a server may send before it waits for us, on the stream and on the connection.
const WINDOW: u32 = 65_535;

/// What came back.
#[derive(Debug)]
pub(super) struct Exchanged {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    /// What followed the body, where it was read.
    pub(super) trailers: HeaderMap,
}

/// One request, with or without content. The body is read where it is wanted.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<()>,
    content: Option<Bytes>,
    wants_body: bool,
) -> Result<Exchanged, String> {
    const { assert!(CHECK_BODY_MAX <= 1 << 16) };
    let (sender, connection) = Builder::new()
        .max_header_list_size(HEAD_MAX as u32)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|e| in_words(&e))?;
    driven(talk(sender, request, content, wants_body), connection).await
}

async fn talk(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    content: Option<Bytes>,
    wants_body: bool,
) -> Result<Exchanged, String> {
    let mut sender = sender.ready().await.map_err(|e| in_words(&e))?;
    let (answer, mut sending) =
        sender.send_request(request, content.is_none()).map_err(|e| unsendable(&e))?;
    if let Some(content) = content {
        sending.send_data(content, true).map_err(|e| in_words(&e))?;
    }
    let answer = answer.await.map_err(|e| in_words(&e))?;
    let (head, mut incoming) = answer.into_parts();
    let mut answer = Exchanged {
        status: head.status.as_u16(),
        headers: head.headers,
        body: Body::default(),
        trailers: HeaderMap::new(),
    };
    if !wants_body {
        return Ok(answer);
    }
    while let Some(piece) = incoming.data().await {
        let piece = piece.map_err(|e| in_words(&e))?;
        let _ = incoming.flow_control().release_capacity(piece.len());
        if !answer.body.add(&piece) {
            return Ok(answer);
        }
    }
    answer.body.whole = true;
    answer.trailers = incoming.trailers().await.map_err(|e| in_words(&e))?.unwrap_or_default();
    Ok(answer)
}

fn in_words(error: &h2::Error) -> String {
    let lost = |error: &io::Error| {
        error.kind() == io::ErrorKind::UnexpectedEof
            || error.kind() == io::ErrorKind::ConnectionReset
            || error.kind() == io::ErrorKind::BrokenPipe
    };
    match (error.get_io(), error.reason()) {
        (Some(io), _) if lost(io) => CLOSED.into(),
        (Some(io), _) => format!("no answer: {io}"),
        (None, Some(h2::Reason::PROTOCOL_ERROR | h2::Reason::FRAME_SIZE_ERROR))
            if error.is_library() =>
        {
            "the answer is not HTTP/2".into()
        }
        (None, Some(reason)) => format!("HTTP/2: {}", reason.description()),
        (None, None) => format!("HTTP/2: {error}"),
    }
}
