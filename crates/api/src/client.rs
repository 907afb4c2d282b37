//! Asks the agent over its UNIX socket; errors are in the operator's words.

use crate::config::{
    ConfigReply, ConfigRequest, EditReply, HistoryReply, RollbackRequest, ValuesReply,
};
use crate::lists::{NodesReply, VipReply, VipsReply};
use crate::me::MeReply;
use crate::order::{
    AnnounceRequest, DrainReply, DrainRequest, HoldRequest, MoveRequest, NodePatch, OrderReply,
    ReleaseRequest, UndrainRequest,
};
use crate::path::PathReply;
use crate::problem::Problem;
use crate::services::{
    BackendOrderReply, BackendOrderRequest, FlowsReply, ServiceFlowsReply, ServiceReply,
    ServicesReply,
};
use crate::status::{ClusterStatus, EventsReply, OwnerReply, ReloadReply, WhyReply};
use crate::{REPLY_MAX, SOCKET_DEFAULT};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// How long a support archive may take: each of its programs has some seconds.
const SUPPORT_TIMEOUT: Duration = Duration::from_secs(300);
/// How long an answer may take: the agent itself gives up on its loop much earlier.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A reload may wait for `nft` and for all services of a large file.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// A blocking client; every question is a connection of its own, so the agent may restart between.
#[derive(Debug)]
pub struct Client {
    pub(crate) path: PathBuf,
    pub(crate) runtime: Runtime,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens on the socket.
    NotListening {
        /// Which socket.
        path: PathBuf,
    },
    /// The socket is not for this user.
    NotAllowed {
        /// Which socket.
        path: PathBuf,
    },
    /// The agent accepted but did not answer.
    Silent {
        /// Which socket.
        path: PathBuf,
        /// For so long.
        waited: Duration,
    },
    /// The connection broke, or could not be made for another reason.
    Broken {
        /// Which socket.
        path: PathBuf,
        /// What the kernel or the protocol said.
        reason: String,
    },
    /// The agent answered that it will not.
    Refused(Box<Problem>),
    /// The answer is not one of this API.
    NotUnderstood {
        /// What was asked.
        asked: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

/// An edit of one object, with its keys as in the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// A VIP that there is not.
    AddVip(Value),
    /// Other values of some keys of a VIP (RFC 7396).
    PatchVip(String, Value),
    /// No such VIP any more.
    RemoveVip(String),
    /// No such service any more.
    RemoveService(String),
    /// A backend of a service that is this.
    PutBackend(String, String, Value),
    /// No such backend of the service any more.
    RemoveBackend(String, String),
}

impl Client {
    /// A client of the agent on that socket. Nothing is asked yet, so the agent may start later.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let path = path.as_ref().to_path_buf();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| refused(&path, &error))?;
        Ok(Self { path, runtime })
    }

    /// A client of the agent on the usual socket.
    pub fn connect_default() -> Result<Self, ClientError> {
        Self::connect(SOCKET_DEFAULT)
    }

    /// The cluster as the agent's node sees it.
    pub fn status(&self) -> Result<ClusterStatus, ClientError> {
        self.get("/v1/status")
    }

    /// All VIPs, as the agent's node sees them.
    pub fn vips(&self) -> Result<VipsReply, ClientError> {
        self.get("/v1/vips")
    }

    /// One VIP, by name or by address.
    pub fn vip(&self, vip: &str) -> Result<VipReply, ClientError> {
        self.get(&format!("/v1/vips/{}", segment(vip)))
    }

    /// Why a VIP (by name or by address) is where it is.
    pub fn why(&self, vip: &str) -> Result<WhyReply, ClientError> {
        self.get(&format!("/v1/vips/{}/why", segment(vip)))
    }

    /// Whether the agent's node owns the VIP: `Refused` with code `not_owner` when not.
    pub fn owner(&self, vip: &str) -> Result<OwnerReply, ClientError> {
        self.get(&format!("/v1/vips/{}/owner", segment(vip)))
    }

    /// The latest records, at most so many, oldest first.
    pub fn events(&self, count: usize) -> Result<EventsReply, ClientError> {
        self.get(&format!("/v1/events?n={count}"))
    }

    /// The latest records about one VIP or since a moment (milliseconds since 1970), oldest first.
    pub fn events_of(
        &self,
        count: usize,
        vip: Option<&str>,
        since: Option<u64>,
    ) -> Result<EventsReply, ClientError> {
        self.events_between(count, vip, (since, None))
    }

    /// The same, and nothing that happened later than the second moment.
    pub fn events_between(
        &self,
        count: usize,
        vip: Option<&str>,
        (since, until): (Option<u64>, Option<u64>),
    ) -> Result<EventsReply, ClientError> {
        let mut target = format!("/v1/events?n={count}");
        if let Some(vip) = vip {
            target.push_str(&format!("&vip={}", segment(vip)));
        }
        if let Some(since) = since {
            target.push_str(&format!("&since_ms={since}"));
        }
        if let Some(until) = until {
            target.push_str(&format!("&until_ms={until}"));
        }
        self.get(&target)
    }

    /// Where a packet of that client would go, `tcp` or `udp`.
    pub fn path(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        protocol: &str,
    ) -> Result<PathReply, ClientError> {
        let (from, to) = (segment(&from.to_string()), segment(&to.to_string()));
        self.get(&format!("/v1/path?from={from}&to={to}&protocol={protocol}"))
    }

    /// Takes the agent's node out of service until somebody puts it back.
    pub fn drain(&self, reason: Option<String>) -> Result<DrainReply, ClientError> {
        self.drain_for(&DrainRequest { reason, for_ms: None })
    }

    /// Takes the agent's node out of service, for a time if the request says so.
    pub fn drain_for(&self, request: &DrainRequest) -> Result<DrainReply, ClientError> {
        self.post("/v1/drain", request)
    }

    /// Gives a VIP that the agent's node owns to another; it stays there until it is released.
    pub fn move_vip(&self, vip: &str, request: &MoveRequest) -> Result<OrderReply, ClientError> {
        self.post(&format!("/v1/vips/{}/move", segment(vip)), request)
    }

    /// Keeps a VIP on the agent's node, which owns it.
    pub fn hold(&self, vip: &str, request: &HoldRequest) -> Result<OrderReply, ClientError> {
        self.post(&format!("/v1/vips/{}/hold", segment(vip)), request)
    }

    /// Ends a hold, or the pin of a move.
    pub fn release(&self, vip: &str, request: &ReleaseRequest) -> Result<OrderReply, ClientError> {
        self.post(&format!("/v1/vips/{}/release", segment(vip)), request)
    }

    /// Has the owner of a VIP tell its neighbours again who has it.
    pub fn announce(
        &self,
        vip: &str,
        request: &AnnounceRequest,
    ) -> Result<OrderReply, ClientError> {
        self.post(&format!("/v1/vips/{}/announce", segment(vip)), request)
    }

    /// All services, as the agent's node forwards them.
    pub fn services(&self) -> Result<ServicesReply, ClientError> {
        self.get("/v1/services")
    }

    /// The page that monitoring reads.
    pub fn metrics(&self) -> Result<String, ClientError> {
        let page = self.bytes(Method::GET, "/metrics", Vec::new(), ANSWER_TIMEOUT)?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    }

    /// One service, by its name or what is left of it where that is enough.
    pub fn service(&self, service: &str) -> Result<ServiceReply, ClientError> {
        self.get(&format!("/v1/services/{}", segment(service)))
    }

    /// What the agent's node knows of the connections of a service's backends.
    pub fn flows_of_all(&self, service: &str) -> Result<ServiceFlowsReply, ClientError> {
        self.get(&format!("/v1/services/{}/flows", segment(service)))
    }

    /// What the agent's node knows of the connections of a backend.
    pub fn flows(&self, service: &str, backend: &str) -> Result<FlowsReply, ClientError> {
        let (service, backend) = (segment(service), segment(backend));
        self.get(&format!("/v1/services/{service}/backends/{backend}/flows"))
    }

    /// Orders something of a backend: `drain`, `disable`, `enable`, `ready` or `weight`.
    pub fn order_backend(
        &self,
        (service, backend): (&str, &str),
        verb: &str,
        request: &BackendOrderRequest,
    ) -> Result<BackendOrderReply, ClientError> {
        let (service, backend) = (segment(service), segment(backend));
        self.post(&format!("/v1/services/{service}/backends/{backend}/{verb}"), request)
    }

    /// Puts the agent's node back into service.
    pub fn undrain(&self, reason: Option<String>) -> Result<DrainReply, ClientError> {
        self.post("/v1/undrain", &UndrainRequest { reason })
    }

    /// Drains or cordons a node, or takes that back.
    pub fn patch_node(&self, node: &str, request: &NodePatch) -> Result<DrainReply, ClientError> {
        let body = serde_json::to_vec(request).unwrap_or_default();
        let target = format!("/v1/nodes/{}", segment(node));
        self.ask(Method::PATCH, &target, body, ANSWER_TIMEOUT)
    }

    /// Who asks, and what he may do.
    pub fn me(&self) -> Result<MeReply, ClientError> {
        self.get("/v1/me")
    }

    /// The support archive of the agent's node: a tar file, compressed by gzip.
    pub fn support(&self) -> Result<Vec<u8>, ClientError> {
        Ok(self.bytes(Method::GET, "/v1/support", Vec::new(), SUPPORT_TIMEOUT)?.into())
    }

    /// All members, as the agent's node sees them.
    pub fn nodes(&self) -> Result<NodesReply, ClientError> {
        self.get("/v1/nodes")
    }

    /// Makes the agent read its file again; `Refused` with code `config` when the file is invalid.
    pub fn reload(&self) -> Result<ReloadReply, ClientError> {
        self.ask(Method::POST, "/v1/reload", Vec::new(), RELOAD_TIMEOUT)
    }

    /// What that would change; changes nothing.
    pub fn rehearse_reload(&self) -> Result<ReloadReply, ClientError> {
        self.ask(Method::POST, "/v1/reload?dry_run=1", Vec::new(), RELOAD_TIMEOUT)
    }

    /// The configuration, and where each part of it comes from.
    pub fn config(&self) -> Result<ConfigReply, ClientError> {
        self.get("/v1/config")
    }

    /// Every value of it, and where each comes from.
    pub fn config_values(&self) -> Result<ValuesReply, ClientError> {
        self.get("/v1/config/values")
    }

    /// What a text would change.
    pub fn config_diff(&self, request: &ConfigRequest) -> Result<EditReply, ClientError> {
        self.write("/v1/config/diff", request, None)
    }

    /// Makes a text hold on all nodes, if nobody has changed the same since that revision.
    pub fn config_apply(
        &self,
        request: &ConfigRequest,
        seen: u64,
    ) -> Result<EditReply, ClientError> {
        self.write("/v1/config/apply", request, Some(seen))
    }

    /// What was edited.
    pub fn config_history(&self) -> Result<HistoryReply, ClientError> {
        self.get("/v1/config/history")
    }

    /// Makes it as it was after a revision; without one that was seen it is only tried.
    pub fn config_rollback(
        &self,
        request: &RollbackRequest,
        seen: Option<u64>,
    ) -> Result<EditReply, ClientError> {
        let dry_run = if seen.is_none() { "?dry_run=1" } else { "" };
        self.write(&format!("/v1/config/rollback{dry_run}"), request, seen)
    }

    /// A VIP as it is written: the keys of `[[vip]]`.
    pub fn written_vip(&self, vip: &str) -> Result<Value, ClientError> {
        self.get(&format!("/v1/config/vips/{}", segment(vip)))
    }

    /// Edits one VIP, service or backend, by whoever has seen that revision, for that reason; or only says what would be.
    pub fn edit(
        &self,
        edit: &Edit,
        seen: Option<u64>,
        reason: Option<&str>,
        dry_run: bool,
    ) -> Result<EditReply, ClientError> {
        let backend = |service: &str, backend: &str| {
            format!("/v1/services/{}/backends/{}", segment(service), segment(backend))
        };
        let (method, target, body) = match edit {
            Edit::AddVip(vip) => (Method::POST, "/v1/vips".to_owned(), vip),
            Edit::PatchVip(name, patch) => {
                (Method::PATCH, format!("/v1/vips/{}", segment(name)), patch)
            }
            Edit::RemoveVip(name) => {
                (Method::DELETE, format!("/v1/vips/{}", segment(name)), &Value::Null)
            }
            Edit::RemoveService(name) => {
                (Method::DELETE, format!("/v1/services/{}", segment(name)), &Value::Null)
            }
            Edit::PutBackend(service, name, value) => (Method::PUT, backend(service, name), value),
            Edit::RemoveBackend(service, name) => {
                (Method::DELETE, backend(service, name), &Value::Null)
            }
        };
        self.change(method, &format!("{target}{}", query(reason, dry_run)), body, seen)
    }

    /// A write by whoever has seen that revision.
    pub(crate) fn write<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &impl Serialize,
        seen: Option<u64>,
    ) -> Result<T, ClientError> {
        self.change(Method::POST, target, body, seen)
    }

    /// The same by another method.
    pub(crate) fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: &impl Serialize,
        seen: Option<u64>,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).unwrap_or_default();
        let asked = format!("{method} {target}");
        let mut request = Request::builder().method(method).uri(target);
        if let Some(seen) = seen {
            request = request.header("if-match", format!("\"{seen}\""));
        }
        let body = self.bytes_of(request, asked.clone(), body, RELOAD_TIMEOUT)?;
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::NotUnderstood { asked, reason: error.to_string() })
    }

    fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.ask(Method::POST, target, body, ANSWER_TIMEOUT)
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, target, Vec::new(), ANSWER_TIMEOUT)
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let asked = format!("{method} {target}");
        let body = self.bytes(method, target, body, limit)?;
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::NotUnderstood { asked, reason: error.to_string() })
    }

    pub(crate) fn bytes(
        &self,
        method: Method,
        target: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Bytes, ClientError> {
        let asked = format!("{method} {target}");
        self.bytes_of(Request::builder().method(method).uri(target), asked, body, limit)
    }

    fn bytes_of(
        &self,
        request: Builder,
        asked: String,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Bytes, ClientError> {
        let answer = async {
            let response = self.send(request, body).await?;
            let success = response.status().is_success();
            let body = Limited::new(response.into_body(), REPLY_MAX).collect().await;
            Ok((success, body.map_err(|error| self.broken(&error.to_string()))?.to_bytes()))
        };
        // The timer must be made inside the runtime that drives it.
        let (success, body) = self
            .runtime
            .block_on(async { tokio::time::timeout(limit, answer).await })
            .map_err(|_| ClientError::Silent { path: self.path.clone(), waited: limit })??;
        if success { Ok(body) } else { Err(problem(asked, &body)) }
    }

    /// One request on a connection of its own, and the beginning of its answer.
    pub(crate) async fn send(
        &self,
        request: Builder,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let broken = |error: hyper::Error| self.broken(&error.to_string());
        let stream = UnixStream::connect(&self.path).await;
        let stream = stream.map_err(|error| refused(&self.path, &error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let request = request
            .header("host", "buoy")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken(&error.to_string()))?;
        // It ends with the sender; how it ended is known to the sender's error.
        drop(tokio::spawn(connection));
        sender.send_request(request).await.map_err(broken)
    }

    fn broken(&self, reason: &str) -> ClientError {
        ClientError::Broken { path: self.path.clone(), reason: reason.into() }
    }
}

pub(crate) fn problem(asked: String, body: &[u8]) -> ClientError {
    serde_json::from_slice(body).map_or_else(
        |error| ClientError::NotUnderstood { asked, reason: error.to_string() },
        |problem| ClientError::Refused(Box::new(problem)),
    )
}

fn refused(path: &Path, error: &io::Error) -> ClientError {
    let path = path.to_path_buf();
    // Not a `match`: the kernel has many more kinds, and they are told in its own words.
    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
        ClientError::NotListening { path }
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        ClientError::NotAllowed { path }
    } else {
        ClientError::Broken { path, reason: error.to_string() }
    }
}

/// How an object is edited.
pub(crate) fn query(reason: Option<&str>, dry_run: bool) -> String {
    let dry_run = dry_run.then(|| "dry_run=1".to_owned());
    let reason = reason.map(|reason| format!("reason={}", segment(reason)));
    let all: Vec<String> = [dry_run, reason].into_iter().flatten().collect();
    if all.is_empty() { String::new() } else { format!("?{}", all.join("&")) }
}

/// One segment of a path: whatever has a meaning of its own in a URL is escaped (RFC 3986 §2.1).
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotListening { path } => write!(
                f,
                "no agent is listening on {}: is `buoy agent` running? (systemctl status buoy)",
                path.display()
            ),
            Self::NotAllowed { path } => write!(
                f,
                "{} is not for this user: join group buoy (usermod -aG buoy NAME, then log in \
                 again) or use sudo",
                path.display()
            ),
            Self::Silent { path, waited } => write!(
                f,
                "the agent on {} did not answer within {} s: its log says why \
                 (journalctl -u buoy)",
                path.display(),
                waited.as_secs()
            ),
            Self::Broken { path, reason } => {
                write!(f, "the connection to the agent on {} failed: {reason}", path.display())
            }
            Self::Refused(problem) => match problem.particulars() {
                particulars if particulars.is_empty() => f.write_str(&problem.title),
                particulars => write!(f, "{}: {particulars}", problem.title),
            },
            Self::NotUnderstood { asked, reason } => write!(
                f,
                "the answer to {asked} is not one of this API ({reason}): is the agent of another \
                 version? (`buoy status -o json` has its version)"
            ),
        }
    }
}

impl std::error::Error for ClientError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_vip_is_one_segment_of_the_path() {
        let table = [
            ("web", "web"),
            ("10.0.0.100/24", "10.0.0.100%2F24"),
            ("2001:db8::100", "2001%3Adb8%3A%3A100"),
            ("a b?c#d%", "a%20b%3Fc%23d%25"),
            ("..", ".."),
        ];
        for (text, expected) in table {
            assert_eq!(segment(text), expected);
        }
    }

    #[test]
    fn an_absent_agent_is_named_with_its_socket_and_what_to_do() {
        let dir = std::env::temp_dir().join(format!("buoy-api-absent-{}", std::process::id()));
        let client = Client::connect(dir.join("api.sock")).unwrap();
        let error = client.status().expect_err("nobody listens there");
        let text = error.to_string();
        assert!(matches!(error, ClientError::NotListening { .. }), "{text}");
        assert!(text.starts_with("no agent is listening on /"), "{text}");
        assert!(text.contains("systemctl status buoy"), "{text}");
    }

    #[test]
    fn every_error_says_what_to_do_or_who_said_it() {
        let path = PathBuf::from("/run/buoy/api.sock");
        let problem = Problem::new(409, "c", "no", "");
        let table = [
            (ClientError::NotAllowed { path: path.clone() }, "join group buoy"),
            (
                ClientError::Silent { path: path.clone(), waited: Duration::from_secs(10) },
                "within 10 s",
            ),
            (ClientError::Broken { path, reason: "reset".into() }, "failed: reset"),
            (ClientError::Refused(Box::new(problem.clone())), "no"),
            (
                ClientError::Refused(Box::new(Problem { detail: "because".into(), ..problem })),
                "no: because",
            ),
            (ClientError::NotUnderstood { asked: "GET /x".into(), reason: "eof".into() }, "GET /x"),
        ];
        for (error, part) in table {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
