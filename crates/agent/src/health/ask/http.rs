//! Sends one HTTP request and judges the answer: its status, and what its body holds.
//!
//! Redirects are not followed: a backend that sends clients elsewhere has answered. Of the body only
//! `CHECK_BODY_MAX` bytes are read, and none where nothing is looked for in it.

use super::{Answer, CLOSED, Said, http2};
use buoy_model::limits::CHECK_BODY_MAX;
use buoy_model::{HttpCheck, Sought, Statuses};
use buoy_wire::answer;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use regex::bytes::Regex;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes of the head of an answer; the least that the HTTP library allows.
pub(super) const HEAD_MAX: usize = 8192;
/// Who asks.
pub(super) const AGENT: &str = concat!("buoy/", env!("CARGO_PKG_VERSION"));

/// What is looked for in a body, ready for use.
#[derive(Debug)]
pub(super) enum Pattern {
    /// The body is not read.
    Any,
    Text(String),
    Regex(Regex),
    /// `config` has tried it; said all the same where it cannot be.
    Unusable(String),
}

impl Pattern {
    pub(super) fn new(sought: Option<&Sought>) -> Self {
        match sought {
            None => Self::Any,
            Some(Sought::Text(text)) => Self::Text(text.clone()),
            Some(Sought::Regex(text)) => match buoy_config::expression(text) {
                Ok(regex) => Self::Regex(regex),
                Err(error) => Self::Unusable(format!("`body_regex` cannot be used: {error}")),
            },
        }
    }

    /// Whether the body must be read.
    const fn wants_body(&self) -> bool {
        match self {
            Self::Any | Self::Unusable(_) => false,
            Self::Text(_) | Self::Regex(_) => true,
        }
    }

    fn judge(&self, body: &Body) -> Result<(), String> {
        let (found, sought) = match self {
            Self::Any => return Ok(()),
            Self::Unusable(reason) => return Err(reason.clone()),
            Self::Text(text) => {
                let bytes = text.as_bytes();
                let found = body.bytes.windows(bytes.len().max(1)).any(|window| window == bytes);
                (found, format!("\"{text}\""))
            }
            Self::Regex(regex) => (regex.is_match(&body.bytes), format!("/{regex}/")),
        };
        match (found, body.whole) {
            (true, true | false) => Ok(()),
            (false, true) => Err(format!("{sought} is not in the answer")),
            (false, false) => {
                let kib = CHECK_BODY_MAX >> 10;
                Err(format!("{sought} is not in the first {kib} KiB of the answer"))
            }
        }
    }
}

/// What was read of a body.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    /// Whether that is all.
    pub(super) whole: bool,
}

impl Body {
    /// Takes what fits; whether there is room for more.
    pub(super) fn add(&mut self, piece: &[u8]) -> bool {
        let room = CHECK_BODY_MAX - self.bytes.len();
        self.bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        piece.len() < room
    }
}

/// One request and its answer.
pub(super) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    http: &HttpCheck,
    address: SocketAddr,
    (pattern, load): (&Pattern, Option<&str>),
) -> Answer {
    let host = http.host.clone().unwrap_or_else(|| address.to_string());
    let (status, body, headers) = if http.http2 {
        let scheme = if http.tls.is_some() { "https" } else { "http" };
        let request = request(http, &format!("{scheme}://{host}{}", http.path))?;
        let answer = http2::exchange(stream, request.map(|_| ()), None, pattern.wants_body());
        let answer = answer.await?;
        (answer.status, answer.body, answer.headers)
    } else {
        let mut request = request(http, &http.path)?;
        let headers = request.headers_mut();
        let host = HeaderValue::try_from(host).map_err(|e| unsendable(&e))?;
        headers.insert(HOST, host);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        exchange(stream, request, pattern.wants_body()).await?
    };
    judge(status, &http.expect)?;
    pattern.judge(&body)?;
    Ok(load.map_or_else(Said::default, |name| loaded(name, headers.get(name))))
}

/// A server that does not say how loaded it is, is well all the same, and takes what it took.
fn loaded(name: &str, value: Option<&HeaderValue>) -> Said {
    let value = value.map(HeaderValue::as_bytes);
    let load = value.and_then(answer::lines::load);
    let warning = match (load, value) {
        (Some(_), _) => String::new(),
        (None, None) => format!("the answer has no header {name} that says its load"),
        (None, Some(value)) => {
            let value = answer::shown(value);
            format!("its header {name} is no load in percent: \"{value}\"")
        }
    };
    Said { load, warning, ..Said::default() }
}

fn request(http: &HttpCheck, uri: &str) -> Result<Request<Empty<Bytes>>, String> {
    let method = Method::try_from(http.method.as_str()).map_err(|e| unsendable(&e))?;
    let request = Request::builder().method(method).uri(uri).header(USER_AGENT, AGENT);
    let mut request = request.body(Empty::new()).map_err(|e| unsendable(&e))?;
    for (name, value) in &http.headers {
        let name = HeaderName::try_from(name).map_err(|e| unsendable(&e))?;
        let value = HeaderValue::try_from(value).map_err(|e| unsendable(&e))?;
        if name == USER_AGENT {
            request.headers_mut().insert(name, value);
        } else {
            request.headers_mut().append(name, value);
        }
    }
    Ok(request)
}

pub(super) fn unsendable(error: &dyn std::error::Error) -> String {
    format!("the check cannot be sent: {error}")
}

fn judge(status: u16, expect: &[Statuses]) -> Result<(), String> {
    if expect.iter().any(|range| range.contains(status)) {
        return Ok(());
    }
    let wanted: Vec<String> = expect.iter().map(Statuses::to_string).collect();
    Err(format!("HTTP {status} instead of {}", wanted.join(" or ")))
}

/// HTTP/1.1.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
    wants_body: bool,
) -> Result<(u16, Body, HeaderMap), String> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| in_words(&e))?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|e| in_words(&e))?;
        let (head, body) = answer.into_parts();
        let body = if wants_body { read(body).await? } else { Body::default() };
        Ok((head.status.as_u16(), body, head.headers))
    };
    driven(answer, connection).await
}

/// An answer, while its connection is kept going. It may be complete when that ends.
pub(super) async fn driven<T>(answer: impl Future<Output = T>, connection: impl Future) -> T {
    tokio::pin!(answer, connection);
    let mut open = true;
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            _ = &mut connection, if open => open = false,
        }
    }
}

async fn read(mut incoming: Incoming) -> Result<Body, String> {
    let mut body = Body::default();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|_| "the answer broke off".to_owned())?;
        if frame.data_ref().is_some_and(|piece| !body.add(piece)) {
            return Ok(body);
        }
    }
    body.whole = true;
    Ok(body)
}

fn in_words(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        "the answer's head is too long".into()
    } else if error.is_parse() {
        "the answer is not HTTP".into()
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        CLOSED.into()
    } else {
        format!("no answer: {error}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_beside_what_was_expected() {
        let range = |first, last| Statuses::new(first, last).unwrap();
        let list = [range(200, 200), range(300, 399), range(404, 404)];
        for status in [200, 301, 399, 404] {
            assert_eq!(judge(status, &list), Ok(()));
        }
        let said = "HTTP 403 instead of 200 or 300-399 or 404";
        assert_eq!(judge(403, &list), Err(said.to_owned()));
        assert_eq!(judge(503, &[Statuses::WELL]), Err("HTTP 503 instead of 200-399".into()));
    }

    #[test]
    fn a_body_is_kept_to_its_limit_and_what_is_past_it_is_not_found() {
        let mut body = Body::default();
        assert!(body.add(&vec![b'x'; CHECK_BODY_MAX - 3]));
        assert!(!body.add(b"ready"));
        assert_eq!(body.bytes.len(), CHECK_BODY_MAX);
        let pattern = |text: &str| Pattern::new(Some(&Sought::Text(text.into())));
        assert_eq!(pattern("xrea").judge(&body), Ok(()));
        let said = "\"ready\" is not in the first 64 KiB of the answer";
        assert_eq!(pattern("ready").judge(&body), Err(said.to_owned()));
        let body = Body { bytes: b"\xff\xfe ready\n".to_vec(), whole: true };
        assert_eq!(pattern("ready").judge(&body), Ok(()), "other bytes than UTF-8 do not matter");
        assert_eq!(pattern("ok").judge(&body), Err("\"ok\" is not in the answer".to_owned()));
        let regex = |text: &str| Pattern::new(Some(&Sought::Regex(text.into())));
        assert!(regex("^.. rea[d]y").judge(&body).is_err(), "a character is UTF-8");
        assert_eq!(regex("(?-u)^.. rea[d]y").judge(&body), Ok(()));
        assert_eq!(regex("^ok").judge(&body), Err("/^ok/ is not in the answer".to_owned()));
    }
}
