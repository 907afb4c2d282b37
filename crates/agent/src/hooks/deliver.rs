//! Tells one thing: runs a program, writes a line into a named pipe, or posts it, signed; the latter two again while nobody takes it.

use super::message::{StateTold, Telling, Told};
use crate::health::ask::apart::Apart;
use crate::health::ask::exec::{self, Program};
use crate::post::Server;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use buoy_model::{Hook, HookAct};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use std::io::ErrorKind;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;
use tokio::time::{self, Instant};

/// First pause before a server is told again; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Longest pause.
const PAUSE_LAST: Duration = Duration::from_secs(60);
/// Longest pause of a line for a pipe: whoever begins to read wants to know what is.
const PAUSE_LAST_FIFO: Duration = Duration::from_secs(1);

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
        telling: &Telling,
        turns: &Semaphore,
    ) -> Result<(), String> {
        let (retry, pause_last) = match &hook.act {
            HookAct::Run { .. } => (Duration::ZERO, PAUSE_LAST),
            HookAct::Fifo { retry, .. } => (*retry, PAUSE_LAST_FIFO),
            HookAct::Post { retry, .. } => (*retry, PAUSE_LAST),
        };
        let end = Instant::now() + retry;
        let mut pause = PAUSE_FIRST;
        loop {
            let outcome = {
                // Nobody closes it.
                let _turn = turns.acquire().await.map_err(|error| error.to_string())?;
                let late = Failed::Now(format!("it took longer than {:?}", hook.timeout));
                let once = self.once(&hook.act, telling);
                time::timeout(hook.timeout, once).await.unwrap_or(Err(late))
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(Failed::ForGood(why)) => return Err(why),
                Err(Failed::Now(why)) if end < Instant::now() + pause => return Err(why),
                Err(Failed::Now(_)) => time::sleep(pause).await,
            }
            pause = (pause * 2).min(pause_last);
        }
    }

    async fn once(&self, act: &HookAct, telling: &Telling) -> Result<(), Failed> {
        match (act, telling) {
            (HookAct::Run { program, arguments, user, style: _ }, Telling::Event(told)) => {
                let environment = vec![
                    ("BUOY_TOPIC", told.message.topic.name().to_owned()),
                    ("BUOY_KIND", told.message.kind.to_owned()),
                    ("BUOY_VIP", told.message.vip.clone().unwrap_or_default()),
                ];
                let input = Some(line(told)?);
                self.run((program, user), arguments.clone(), environment, input).await
            }
            (HookAct::Run { program, arguments, user, style: _ }, Telling::State(state)) => {
                let arguments = arguments.iter().cloned().chain(state.arguments()).collect();
                self.run((program, user), arguments, Vec::new(), None).await
            }
            (HookAct::Fifo { path, retry: _ }, Telling::State(state)) => write(path, state).await,
            (HookAct::Post { host, port, path, ca, key, retry: _ }, Telling::Event(told)) => {
                let to = (host.as_str(), *port, path.as_str());
                post(to, ca.as_deref(), key.as_deref(), &told.id, &line(told)?).await
            }
            // The hook has become another one while this waited: it is not for it.
            (HookAct::Fifo { .. }, Telling::Event(_))
            | (HookAct::Post { .. }, Telling::State(_)) => Ok(()),
        }
    }

    async fn run(
        &self,
        (path, user): (&str, &str),
        arguments: Vec<String>,
        environment: Vec<(&'static str, String)>,
        input: Option<Vec<u8>>,
    ) -> Result<(), Failed> {
        let (path, user) = (path.to_owned(), Some(user.to_owned()));
        let program = Program { path, arguments, environment, input, user, heard: false };
        let ran = exec::run(&self.apart, &program).await;
        ran.map(drop).map_err(|why| Failed::ForGood(format!("{}: {why}", program.path)))
    }
}

fn line(told: &Told) -> Result<Vec<u8>, Failed> {
    told.line().map_err(Failed::ForGood)
}

/// Writes a line in one piece. Nothing waits in a pipe that nobody reads: it would be lost with this end of it.
async fn write(path: &str, state: &StateTold) -> Result<(), Failed> {
    let why = |error: std::io::Error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENXIO) => Failed::Now(format!("{path}: nobody reads it")),
        Some(_) | None if error.kind() == ErrorKind::InvalidInput => {
            Failed::ForGood(format!("{path} is no named pipe: remove it, or write another path"))
        }
        Some(_) | None => Failed::Now(format!("{path}: {error}")),
    };
    // As keepalived does: who comes later finds it, for root alone unless somebody says otherwise.
    match nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => {
            return Err(Failed::Now(format!("cannot make the named pipe {path}: {error}")));
        }
    }
    let mut pipe = pipe::OpenOptions::new().open_sender(path).map_err(why)?;
    pipe.write_all(state.line().as_bytes()).await.map_err(why)
}

async fn post(
    (host, port, path): (&str, u16, &str),
    ca: Option<&str>,
    key: Option<&str>,
    id: &str,
    line: &[u8],
) -> Result<(), Failed> {
    let server = Server { host, port, ca };
    let authority = server.authority();
    let request = request((&authority, path), key, id, line)?;
    let status = server.send(request).await.map_err(Failed::Now)?;
    let said = format!("{authority} answered {status}");
    if status.is_success() {
        Ok(())
    } else if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        Err(Failed::Now(said))
    } else {
        Err(Failed::ForGood(said))
    }
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
