//! Tells one event: runs a program, or posts it, signed, and again while the server does not take it.

use super::message::Told;
use crate::health::ask::apart::Apart;
use crate::health::ask::exec::{self, Program};
use crate::health::ask::tls::Handshake;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use buoy_model::{Hook, HookAct, TlsCheck};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{self, Instant};

/// First pause before a server is told again; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Longest pause.
const PAUSE_LAST: Duration = Duration::from_secs(60);
/// Bytes of a head of an answer.
const HEAD_MAX: usize = 16 << 10;

/// Who tells for one lane.
#[derive(Debug)]
pub(super) struct Runner {
    apart: Apart,
}

/// Why a telling did not work, and whether another one may.
enum Failed {
    Now(String),
    ForGood(String),
}

impl Runner {
    pub(super) fn new() -> Self {
        Self { apart: Apart::new() }
    }

    /// Tells it, for as long as the hook says; at most so many do at a time, and none that waits.
    pub(super) async fn deliver(
        &self,
        hook: &Hook,
        told: &Told,
        turns: &Semaphore,
    ) -> Result<(), String> {
        let line = told.line()?;
        let retry = match &hook.act {
            HookAct::Run { .. } => Duration::ZERO,
            HookAct::Post { retry, .. } => *retry,
        };
        let end = Instant::now() + retry;
        let mut pause = PAUSE_FIRST;
        loop {
            let outcome = {
                // Nobody closes it.
                let _turn = turns.acquire().await.map_err(|error| error.to_string())?;
                let late = Failed::Now(format!("it took longer than {:?}", hook.timeout));
                let once = self.once(&hook.act, told, &line);
                time::timeout(hook.timeout, once).await.unwrap_or(Err(late))
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(Failed::ForGood(why)) => return Err(why),
                Err(Failed::Now(why)) if end < Instant::now() + pause => return Err(why),
                Err(Failed::Now(_)) => time::sleep(pause).await,
            }
            pause = (pause * 2).min(PAUSE_LAST);
        }
    }

    async fn once(&self, act: &HookAct, told: &Told, line: &[u8]) -> Result<(), Failed> {
        match act {
            HookAct::Run { program, arguments, user } => {
                let program = Program {
                    path: program.clone(),
                    arguments: arguments.clone(),
                    environment: vec![
                        ("BUOY_TOPIC", told.message.topic.name().to_owned()),
                        ("BUOY_KIND", told.message.kind.to_owned()),
                        ("BUOY_VIP", told.message.vip.clone().unwrap_or_default()),
                    ],
                    input: Some(line.to_vec()),
                    user: Some(user.clone()),
                    heard: false,
                };
                let ran = exec::run(&self.apart, &program).await;
                ran.map(drop).map_err(|why| Failed::ForGood(format!("{}: {why}", program.path)))
            }
            HookAct::Post { host, port, path, ca, key, retry: _ } => {
                let to = (host.as_str(), *port, path.as_str());
                post(to, ca.as_deref(), key.as_deref(), &told.id, line).await
            }
        }
    }
}

async fn post(
    (host, port, path): (&str, u16, &str),
    ca: Option<&str>,
    key: Option<&str>,
    id: &str,
    line: &[u8],
) -> Result<(), Failed> {
    let authority = authority(host, port, ca.is_some());
    let request = request((&authority, path), key, id, line)?;
    let to = |error: &dyn std::fmt::Display| Failed::Now(format!("{authority}: {error}"));
    let stream = TcpStream::connect((host, port)).await.map_err(|error| to(&error))?;
    let status = match ca {
        None => exchange(stream, request).await,
        Some(ca) => {
            let tls = TlsCheck { ca: Some(ca.to_owned()), warn: Duration::ZERO };
            let unspecified = SocketAddr::from(([0, 0, 0, 0], port));
            let handshake = Handshake::new(&tls, Some(host), unspecified, &[]);
            let (stream, _) = handshake.shake(stream).await.map_err(|error| to(&error))?;
            exchange(stream, request).await
        }
    };
    let status = status.map_err(|error| to(&error))?;
    let said = format!("{authority} answered {status}");
    if status.is_success() {
        Ok(())
    } else if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        Err(Failed::Now(said))
    } else {
        Err(Failed::ForGood(said))
    }
}

/// As in a `Host` header.
fn authority(host: &str, port: u16, is_tls: bool) -> String {
    let is_v6 = host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
    let host = if is_v6 { format!("[{host}]") } else { host.to_owned() };
    let is_usual = port == if is_tls { 443 } else { 80 };
    if is_usual { host } else { format!("{host}:{port}") }
}

fn request(
    (authority, path): (&str, &str),
    key: Option<&str>,
    id: &str,
    line: &[u8],
) -> Result<Request<Full<Bytes>>, Failed> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let moment = since.as_secs().to_string();
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("host", authority)
        .header("user-agent", concat!("buoy/", env!("CARGO_PKG_VERSION")))
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", &moment);
    if let Some(key) = key {
        let text = std::fs::read_to_string(key);
        let text = text.map_err(|error| Failed::Now(format!("{key}: {error}")))?;
        let key = buoy_config::key::parse(&text)
            .map_err(|error| Failed::Now(format!("{key}: {error}")))?;
        request = request.header("webhook-signature", signature(&key, id, &moment, line));
    }
    let body = Full::new(Bytes::copy_from_slice(line));
    request.body(body).map_err(|error| Failed::ForGood(error.to_string()))
}

/// As Standard Webhooks has it.
pub(super) fn signature(key: &buoy_wire::Key, id: &str, moment: &str, line: &[u8]) -> String {
    let mut signed = format!("{id}.{moment}.").into_bytes();
    signed.extend(line);
    format!("v1,{}", STANDARD.encode(key.mac(&signed)))
}

/// The status of the answer; its body is nobody's.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, hyper::Error> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The answer may have come with the end.
        ended = connection => {
            ended?;
            answer.await
        }
    };
    Ok(answer?.status())
}
