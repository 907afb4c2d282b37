//! Keeps edits in etcd, for those who run it: the same rules, with etcd's revision in place of a log of our own.
//!
//! Under `/buoy/CLUSTER/` there is one key for each entry and each remembered revision, and `head`, which every edit
//! writes: an edit is one transaction that is taken only if `head` is still the one it was made on. Nodes watch all
//! of it, read all of it when something changes, and keep it on disk, so that they start without etcd.
//! It is spoken to by its JSON gateway (`/v3/kv`, `/v3/watch`) in plain HTTP, or with TLS (`secured`).

use crate::Refused;
use crate::disk::Failed;
use crate::secured::EtcdTls;
use crate::state::{Edit, Entry, Outcome, Revision, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// How long one server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of an answer: all entries and revisions, in base64.
const ANSWER_MAX: usize = 32 << 20;
/// How soon a server that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// All is read again so often, in case a watch has died without a word.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The store in etcd; ends when it is dropped.
pub struct Etcd {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    servers: Vec<String>,
    tls: Option<EtcdTls>,
    /// What all keys begin with.
    prefix: String,
    shown: watch::Sender<Arc<State>>,
    /// Where all of it is kept.
    file: PathBuf,
    problem: Mutex<Option<String>>,
}

/// What every edit writes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct Head {
    revision: u64,
    forgotten: u64,
}

/// All there is, and where in etcd's history that was.
struct Read {
    state: State,
    /// Revision of `head`; 0: there is none.
    head: u64,
    /// Revision of all of etcd.
    at: u64,
}

#[derive(Deserialize)]
struct Range {
    header: Header,
    #[serde(default)]
    kvs: Vec<Kv>,
}

#[derive(Deserialize)]
struct Header {
    revision: String,
}

#[derive(Deserialize)]
struct Kv {
    key: String,
    #[serde(default)]
    value: String,
    mod_revision: String,
}

/// etcd answered that it will not.
#[derive(Debug)]
struct Answered(String);

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd refuses: {}", self.0)
    }
}

impl std::error::Error for Answered {}

#[derive(Deserialize)]
struct Txn {
    #[serde(default)]
    succeeded: bool,
}

impl Etcd {
    /// Starts with what is on disk, and waits for etcd so long.
    pub async fn start(
        (servers, tls): (Vec<String>, Option<EtcdTls>),
        cluster: &str,
        directory: &Path,
        wait: Duration,
    ) -> Result<Self, Failed> {
        std::fs::create_dir_all(directory)?;
        let file = directory.join("etcd.json");
        let known = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(error.into()),
        };
        let prefix = format!("/buoy/{cluster}/");
        let (shown, problem) = (watch::Sender::new(Arc::new(known)), Mutex::default());
        let shared = Arc::new(Shared { servers, tls, prefix, shown, file, problem });
        if let Ok(Ok(read)) = timeout(wait, shared.read()).await {
            shared.show(read.state).await;
        }
        let task = tokio::spawn(follow(Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, task })
    }

    /// What was edited, as far as this node knows.
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.shared.shown.subscribe()
    }

    /// Has etcd take an edit: the number of the revision it became.
    pub async fn edit(&self, edit: Edit) -> Result<u64, Refused> {
        let shared = &self.shared;
        let read = shared.read().await.map_err(|cause| Refused::NoEtcd(cause.to_string()))?;
        let mut next = read.state.clone();
        let revision = match next.apply(&edit) {
            Outcome::Taken(revision) => revision,
            Outcome::Moved(revision) => {
                shared.show(read.state).await;
                return Err(Refused::Moved(revision));
            }
            Outcome::Full(why) => return Err(Refused::Full(why)),
        };
        if revision == read.state.revision {
            return Ok(revision);
        }
        let txn = shared.transaction(&read, &next);
        match shared.ask::<Txn>("/v3/kv/txn", &txn).await {
            Ok(Txn { succeeded: true }) => {
                shared.show(next).await;
                return Ok(revision);
            }
            // An answer that was lost may have been a yes, and what is there says so.
            Ok(Txn { succeeded: false }) => {}
            Err(cause) if cause.is::<Answered>() => return Err(Refused::Full(cause.to_string())),
            Err(_) => {}
        }
        let read = shared.read().await.map_err(|_| Refused::Unsure)?;
        let (found, holds) = (read.state.find(edit.id), read.state.revision);
        shared.show(read.state).await;
        match found {
            Some(revision) => Ok(revision),
            None if holds == edit.on => Err(Refused::Unsure),
            None => Err(Refused::Moved(holds)),
        }
    }

    /// What does not work, in sentences that say what to do.
    pub fn problems(&self) -> Vec<String> {
        let problem = self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner);
        problem.clone().into_iter().collect()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn key(&self, name: &str) -> String {
        BASE64.encode(format!("{}{name}", self.prefix))
    }

    /// All keys with the prefix: up to the next text of the same length.
    fn all(&self) -> Value {
        let mut end = self.prefix.clone().into_bytes();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        json!({ "key": self.key(""), "range_end": BASE64.encode(end) })
    }

    async fn read(&self) -> Result<Read, Failed> {
        let range: Range = self.ask("/v3/kv/range", &self.all()).await?;
        let mut read =
            Read { state: State::default(), head: 0, at: range.header.revision.parse()? };
        let mut head = Head::default();
        let mut revisions: BTreeMap<u64, Revision> = BTreeMap::new();
        for Kv { key, value, mod_revision } in range.kvs {
            let key = String::from_utf8(BASE64.decode(key)?)?;
            let value = BASE64.decode(value)?;
            let name = key.strip_prefix(&self.prefix).unwrap_or(&key);
            if name == "head" {
                head = serde_json::from_slice(&value)?;
                read.head = mod_revision.parse()?;
            } else if let Some(name) = name.strip_prefix("entry/") {
                let entry: Entry = serde_json::from_slice(&value)?;
                read.state.entries.insert(name.to_owned(), entry);
            } else if name.starts_with("revision/") {
                let revision: Revision = serde_json::from_slice(&value)?;
                revisions.insert(revision.revision, revision);
            }
        }
        read.state.remember(head.revision, head.forgotten, revisions.into_values());
        Ok(read)
    }

    fn put(&self, name: &str, value: &impl Serialize) -> Value {
        let value = BASE64.encode(serde_json::to_vec(value).unwrap_or_default());
        json!({ "request_put": { "key": self.key(name), "value": value } })
    }

    /// From one state to the next one, if nobody else came first.
    fn transaction(&self, read: &Read, next: &State) -> Value {
        let delete = |name: &str| json!({ "request_delete_range": { "key": self.key(name) } });
        let revision = |number: u64| format!("revision/{number:020}");
        let head = Head { revision: next.revision, forgotten: next.forgotten() };
        let mut steps = vec![self.put("head", &head)];
        for (key, entry) in &next.entries {
            if read.state.entries.get(key) != Some(entry) {
                steps.push(self.put(&format!("entry/{key}"), entry));
            }
        }
        let gone = read.state.entries.keys().filter(|key| !next.entries.contains_key(*key));
        steps.extend(gone.map(|key| delete(&format!("entry/{key}"))));
        steps.extend(next.history.back().map(|last| self.put(&revision(last.revision), last)));
        let forgotten = read.state.history.iter().map(|r| r.revision);
        let forgotten = forgotten.take_while(|number| *number <= head.forgotten);
        steps.extend(forgotten.map(|number| delete(&revision(number))));
        let unchanged = json!({
            "key": self.key("head"), "target": "MOD", "result": "EQUAL",
            "mod_revision": read.head.to_string(),
        });
        json!({ "compare": [unchanged], "success": steps })
    }

    /// Shows it, after it is on disk.
    async fn show(&self, state: State) {
        let known = self.shown.borrow().revision;
        if state.revision <= known {
            return;
        }
        let (file, written) = (self.file.clone(), state.clone());
        let kept = tokio::task::spawn_blocking(move || keep(&file, &written)).await;
        if let Ok(Err(cause)) = kept {
            tracing::warn!("{} cannot be written: {cause}", self.file.display());
        }
        self.shown.send_if_modified(|shown| {
            let is_news = state.revision > shown.revision;
            if is_news {
                *shown = Arc::new(state);
            }
            is_news
        });
    }

    fn say(&self, problem: Option<String>) {
        let mut known = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = problem.as_ref().filter(|_| known.is_none()) {
            tracing::warn!("{problem}");
        }
        *known = problem;
    }

    /// Asks the servers in turn until one answers.
    async fn ask<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failed> {
        let mut last: Failed = "no server is named".into();
        for server in &self.servers {
            let asked = async {
                let response = self.call(server, path, body).await?;
                let (status, body) = (response.status(), response.into_body());
                let bytes = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
                if !status.is_success() {
                    let said: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
                    return Err(Box::new(Answered(said)) as Failed);
                }
                Ok(serde_json::from_slice(&bytes)?)
            };
            match timeout(ANSWER_TIMEOUT, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                // Another one would say the same.
                Ok(Err(cause)) if cause.is::<Answered>() => return Err(cause),
                Ok(Err(cause)) => last = format!("{server}: {cause}").into(),
                Err(_) => last = format!("{server}: no answer").into(),
            }
        }
        Err(last)
    }

    async fn call(
        &self,
        server: &str,
        path: &str,
        body: &Value,
    ) -> Result<Response<Incoming>, Failed> {
        let request = Request::post(path)
            .header("host", server)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(serde_json::to_vec(body)?)))?;
        let stream = TcpStream::connect(server).await?;
        match &self.tls {
            None => send(stream, request).await,
            Some(tls) => send(tls.secure(server, stream).await?, request).await,
        }
    }

    /// Waits until something changes after that revision, or for a while.
    async fn wait(&self, after: u64) -> Result<(), Failed> {
        let mut create = self.all();
        create["start_revision"] = (after + 1).to_string().into();
        let body = json!({ "create_request": create });
        let mut last: Failed = "no server is named".into();
        for server in &self.servers {
            match timeout(ANSWER_TIMEOUT, self.call(server, "/v3/watch", &body)).await {
                Ok(Ok(response)) => return events(response).await,
                Ok(Err(cause)) => last = cause,
                Err(_) => last = "no answer".into(),
            }
        }
        Err(last)
    }
}

/// Returns when the stream of a watch says more than that it is there; one JSON object a line.
async fn events(response: Response<Incoming>) -> Result<(), Failed> {
    let mut body = response.into_body();
    let mut line = Vec::new();
    let read = async {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            line.extend_from_slice(&data);
            while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                let rest = line.split_off(end + 1);
                let message: Value = serde_json::from_slice(&std::mem::replace(&mut line, rest))?;
                let result = &message["result"];
                // What is compacted is read as a whole.
                if result.get("events").is_some() || result["canceled"] == Value::Bool(true) {
                    return Ok(());
                }
            }
            if line.len() > ANSWER_MAX {
                return Err("an answer is too long".into());
            }
        }
        Err(Failed::from("the watch ended"))
    };
    timeout(LOOK_EVERY, read).await.unwrap_or(Ok(()))
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Failed> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender and the answer; how it ended is known to them.
    drop(tokio::spawn(connection));
    Ok(sender.send_request(request).await?)
}

/// Reads, shows and waits, for ever.
async fn follow(shared: Arc<Shared>) {
    loop {
        let turn = async {
            let read = shared.read().await?;
            shared.say(None);
            let at = read.at;
            shared.show(read.state).await;
            shared.wait(at).await
        };
        if let Err(cause) = turn.await {
            shared.say(Some(format!(
                "etcd does not answer ({cause}), so nothing can be edited; VIPs go on as they are"
            )));
            sleep(AGAIN).await;
        }
    }
}

/// Whole or not at all.
fn keep(file: &Path, state: &State) -> std::io::Result<()> {
    let new = file.with_extension("new");
    let mut out = std::fs::File::create(&new)?;
    out.write_all(&serde_json::to_vec(state)?)?;
    out.sync_all()?;
    std::fs::rename(&new, file)
}
