//! Answers about the configuration and takes edits of it: on any node, for all of them.
//!
//! Every write takes `?dry_run=1`, which says what would come of it, and `If-Match` with the revision that its
//! author has seen. Both the revision and the tag are those of `GET /v1/config`.

use super::failure::Failure;
use super::openapi::Operation;
use super::orders::{Body, Reason, needed};
use super::stream::{Asked, Tagged};
use super::write::{self, Reasoned, Write};
use super::{Agent, Asker, names};
use crate::edits::{BackendWish, By, EditRefusal, Place, ServiceWish, Unplanned, Wish};
use axum::extract::{ConnectInfo, FromRequestParts, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use buoy_api::{ConfigReply, ConfigRequest, EditReply, HistoryReply, RollbackRequest, ValuesReply};
use buoy_store::Refused;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;

const SERVICE: &str = "/v1/services/{service}";
/// A backend's object, below its service.
const BACKEND: &str = "/v1/services/{service}/backends/{backend}";

pub(super) fn routes<A: Agent>() -> Router<Arc<A>> {
    Router::new()
        .route("/v1/config", get(config::<A>))
        .route("/v1/config/values", get(values::<A>))
        .route("/v1/config/history", get(history::<A>))
        .route("/v1/config/validate", post(validate::<A>))
        .route("/v1/config/diff", post(diff::<A>))
        .route("/v1/config/apply", post(apply::<A>))
        .route("/v1/config/rollback", post(rollback::<A>))
        .route("/v1/config/vips", get(vips::<A>))
        .route("/v1/config/vips/{vip}", get(vip::<A>))
        .route("/v1/config/services/{service}", get(service::<A>))
        .route("/v1/vips", post(add::<A>))
        .route("/v1/vips/{vip}", put(put_vip::<A>).patch(patch_vip::<A>).delete(remove_vip::<A>))
        .route(
            "/v1/services/{service}",
            put(put_service::<A>).patch(patch_service::<A>).delete(remove_service::<A>),
        )
        .route(
            "/v1/services/{service}/backends/{backend}",
            put(put_backend::<A>).patch(patch_backend::<A>).delete(remove_backend::<A>),
        )
}

const VIP_KEYS: &str = "The keys of [[vip]] in the file.";
const SERVICE_KEYS: &str = "The keys of [[vip.service]] in the file; `port` may be left out.";

/// What can be asked here.
pub(super) fn operations() -> Vec<Operation> {
    let mut all = questions();
    all.extend(edits());
    all
}

fn questions() -> Vec<Operation> {
    let vip = json!({ "type": "object", "description": VIP_KEYS });
    vec![
        Operation::new(
            "get",
            "/v1/config",
            "config",
            "The configuration, and where each part of it comes from.",
        )
        .answers::<ConfigReply>()
        .list()
        .tagged(),
        Operation::new(
            "get",
            "/v1/config/values",
            "values",
            "Every value, and the line of the file or the edit that it comes from.",
        )
        .answers::<ValuesReply>()
        .list(),
        Operation::new("get", "/v1/config/history", "history", "What was edited, by whom and why.")
            .answers::<HistoryReply>()
            .list(),
        Operation::new(
            "get",
            "/v1/config/vips",
            "written_vips",
            "All VIPs as they are written, by name.",
        )
        .answers_with("application/json", json!({ "type": "object" }))
        .list()
        .tagged(),
        Operation::new(
            "get",
            "/v1/config/vips/{vip}",
            "written_vip",
            "A VIP as it is written: what PUT takes.",
        )
        .answers_with("application/json", vip)
        .tagged(),
        Operation::new(
            "get",
            "/v1/config/services/{service}",
            "written_service",
            "A service as it is written: what PUT takes.",
        )
        .answers_with("application/json", json!({ "type": "object", "description": SERVICE_KEYS }))
        .tagged(),
        Operation::new(
            "post",
            "/v1/config/validate",
            "validate",
            "Whether a text could be a file of this node.",
        )
        .takes::<ConfigRequest>(true)
        .refuses(422, "It could not: the answer says where and why.")
        .answers::<EditReply>(),
    ]
}

fn edits() -> Vec<Operation> {
    let write = |method, path, id: &str, says: &str| {
        let agreed =
            "The nodes of the cluster could not agree on it now: the answer says what they lack.";
        let refused = "It is well-formed, and what would hold with it is refused: the answer says where and why.";
        let edit =
            Operation::new(method, path, id, says).refuses(422, refused).refuses(503, agreed);
        edit.changes().answers::<EditReply>().tagged()
    };
    // Its body is the object itself, so the reason is beside it.
    let object = |method, path, id, says| write(method, path, id, says).reasoned();
    let vip = || json!({ "type": "object", "description": VIP_KEYS });
    let service = || json!({ "type": "object", "description": SERVICE_KEYS });
    let backend = || {
        let says = "address, and what else a text of `backends` may have: weight, max, id, zone, node, backup.";
        json!({ "type": "object", "description": says })
    };
    vec![
        write(
            "post",
            "/v1/config/diff",
            "diff",
            "What a text would change on all nodes; changes nothing.",
        )
        .takes::<ConfigRequest>(true),
        write("post", "/v1/config/apply", "apply", "Make a text hold on all nodes.")
            .takes::<ConfigRequest>(true),
        write("post", "/v1/config/rollback", "rollback", "Make it as it was after a revision.")
            .takes::<RollbackRequest>(true),
        object("post", "/v1/vips", "add_vip", "Add a VIP.").takes_json(vip(), true),
        object("put", "/v1/vips/{vip}", "put_vip", "Make a VIP be this.").takes_json(vip(), true),
        object("patch", "/v1/vips/{vip}", "patch_vip", "Change keys of a VIP (RFC 7396).")
            .takes_json(vip(), true),
        object("delete", "/v1/vips/{vip}", "remove_vip", "Take a VIP away."),
        object("put", SERVICE, "put_service", "Make a service of a VIP be this.")
            .takes_json(service(), true),
        object("patch", SERVICE, "patch_service", "Change keys of a service (RFC 7396).")
            .takes_json(service(), true),
        object("delete", SERVICE, "remove_service", "Take a service of a VIP away."),
        object("put", BACKEND, "put_backend", "Make a backend of a service be this.")
            .takes_json(backend(), true),
        object("patch", BACKEND, "patch_backend", "Change keys of a backend (RFC 7396).")
            .takes_json(backend(), true),
        object("delete", BACKEND, "remove_backend", "Take a backend of a service away."),
    ]
}

/// An answer with the revision as its tag.
pub(super) fn tagged(revision: u64, answer: &impl Serialize) -> Response {
    write::tagged(Json(answer).into_response(), &tag(revision))
}

pub(super) fn tag(revision: u64) -> String {
    format!("\"{revision}\"")
}

async fn config<A: Agent>(State(agent): State<Arc<A>>, asked: Asked) -> Result<Response, Failure> {
    let make = |agent: Arc<A>| async move {
        let reply: ConfigReply = agent.edits().view(&agent.desired());
        Ok(Tagged(tag(reply.revision), reply))
    };
    asked.answer(agent, "config", make).await
}

async fn values<A: Agent>(State(agent): State<Arc<A>>, asked: Asked) -> Result<Response, Failure> {
    let make = |agent: Arc<A>| async move { Ok(agent.edits().values(&agent.desired())) };
    asked.answer(agent, "values", make).await
}

async fn history<A: Agent>(State(agent): State<Arc<A>>, asked: Asked) -> Result<Response, Failure> {
    let make = |agent: Arc<A>| async move { Ok(agent.edits().history(&agent.desired())) };
    asked.answer(agent, "history", make).await
}

/// All VIPs as they are written, by name.
async fn vips<A: Agent>(State(agent): State<Arc<A>>, asked: Asked) -> Result<Response, Failure> {
    let make = |agent: Arc<A>| async move {
        let (revision, vips) = agent.edits().vips();
        Ok(Tagged(tag(revision), vips))
    };
    asked.answer(agent, "vips", make).await
}

/// One VIP as it is written: what `PUT` takes.
async fn vip<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(vip): Path<String>,
) -> Result<Response, Failure> {
    let found = agent.edits().vip(&vip, &agent.desired());
    let (revision, vip) = found.ok_or_else(|| Failure::unknown_vip(&vip, &agent.desired()))?;
    Ok(tagged(revision, &vip))
}

/// One service as it is written: what `PUT` takes.
async fn service<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(service): Path<String>,
) -> Result<Response, Failure> {
    let place = place(&*agent, &service)?;
    let found = agent.edits().service(&place, &agent.desired());
    let (revision, service) = found.ok_or_else(|| Failure::from(place.of_no_vip()))?;
    Ok(tagged(revision, &service))
}

/// Who edits, and how.
pub(super) fn by(
    agent: &impl Agent,
    asker: &Asker,
    write: &Write,
    reason: Option<&str>,
) -> Result<By, Failure> {
    let reason = Reason::of(reason, asker)?.said;
    let (user, dry_run) = (asker.name(), write.dry_run);
    Ok(By { user, reason, seen: seen(agent, write)?, dry_run })
}

/// The revision that the author has seen.
fn seen(agent: &impl Agent, write: &Write) -> Result<Option<u64>, Failure> {
    let Some(tags) = write.tags() else { return Ok(None) };
    let number = |tag: &String| tag.trim_matches('"').parse::<u64>().ok();
    match tags.iter().find_map(number) {
        Some(number) => Ok(Some(number)),
        // It is the tag of something else.
        None => Err(Failure::precondition(&format!("\"{}\"", agent.edits().revision()))),
    }
}

/// Has an edit taken and puts it into force here; the other nodes do the same by themselves.
async fn edit<A: Agent>(agent: &A, wish: Wish, by: By) -> Result<Response, Failure> {
    let reply = edited(agent, wish, by).await?;
    Ok(tagged(reply.revision, &reply))
}

pub(super) async fn edited<A: Agent>(agent: &A, wish: Wish, by: By) -> Result<EditReply, Failure> {
    let mut reply: EditReply = agent.edits().edit(&wish, &by, &agent.desired()).await?;
    if !by.dry_run {
        tracing::info!(by = by.user, revision = reply.revision, reason = by.reason, "edit");
        // It is agreed: what this node makes of it is another matter.
        reply.refused_here = agent.follow_edits().await.err().map(|refusal| refusal.report());
    }
    Ok(reply)
}

/// A whole configuration: as TOML, or in JSON with a reason.
fn text(headers: &HeaderMap, body: Body) -> Result<ConfigRequest, Failure> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("text/") || kind.starts_with("application/toml") {
        let body = body.map_err(|error| Failure::body(&error))?;
        let text = String::from_utf8(body.to_vec()).map_err(|error| {
            let title = "the configuration is not UTF-8";
            Failure::new(StatusCode::BAD_REQUEST, "text", title, error.to_string())
        })?;
        return Ok(ConfigRequest { text, reason: None });
    }
    needed(body)
}

async fn validate<A: Agent>(
    State(agent): State<Arc<A>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<EditReply>, Failure> {
    let ConfigRequest { text, .. } = text(&headers, body)?;
    let desired = agent.desired();
    Ok(Json(agent.edits().validate(text, desired.node_name(desired.me))?))
}

async fn diff<A: Agent>(
    State(agent): State<Arc<A>>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    write: Write,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let ConfigRequest { text, reason } = text(&headers, body)?;
    let by = By { dry_run: true, ..by(&*agent, &asker, &write, reason.as_deref())? };
    edit(&*agent, Wish::Text(text), by).await
}

async fn apply<A: Agent>(
    State(agent): State<Arc<A>>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    write: Write,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let ConfigRequest { text, reason } = text(&headers, body)?;
    let by = by(&*agent, &asker, &write, reason.as_deref())?;
    edit(&*agent, Wish::Text(text), by).await
}

async fn rollback<A: Agent>(
    State(agent): State<Arc<A>>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    write: Write,
    body: Body,
) -> Result<Response, Failure> {
    let RollbackRequest { revision, reason } = needed(body)?;
    let by = by(&*agent, &asker, &write, reason.as_deref())?;
    edit(&*agent, Wish::Rollback(revision), by).await
}

/// Who edits one object: the connection says who it is, the query and the headers say how, and the object is the body.
pub(super) struct Editor(pub(super) By);

impl<A: Agent> FromRequestParts<Arc<A>> for Editor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, agent: &Arc<A>) -> Result<Self, Failure> {
        let asker = ConnectInfo::<Asker>::from_request_parts(parts, agent).await;
        let ConnectInfo(asker) = asker.map_err(|error| {
            let title = "nobody is known to ask";
            Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, error.body_text())
        })?;
        let Reasoned { write, reason } = Reasoned::from_request_parts(parts, agent).await?;
        Ok(Self(by(&**agent, &asker, &write, reason.as_deref())?))
    }
}

async fn add<A: Agent>(
    State(agent): State<Arc<A>>,
    Editor(by): Editor,
    body: Body,
) -> Result<Response, Failure> {
    edit(&*agent, Wish::Add(needed(body)?), by).await
}

async fn put_vip<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(name): Path<String>,
    Editor(by): Editor,
    body: Body,
) -> Result<Response, Failure> {
    edit(&*agent, Wish::Put(name, needed(body)?), by).await
}

async fn patch_vip<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(name): Path<String>,
    Editor(by): Editor,
    body: Body,
) -> Result<Response, Failure> {
    edit(&*agent, Wish::Patch(name, needed(body)?), by).await
}

async fn remove_vip<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(name): Path<String>,
    Editor(by): Editor,
) -> Result<Response, Failure> {
    edit(&*agent, Wish::Remove(name), by).await
}

async fn put_service<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(name): Path<String>,
    Editor(by): Editor,
    body: Body,
) -> Result<Response, Failure> {
    let place = match place(&*agent, &name) {
        // It need not be there yet.
        Err(unknown) => Place::parse(&name).ok_or(unknown)?,
        Ok(place) => place,
    };
    edit(&*agent, Wish::Service(place, ServiceWish::Put(needed(body)?)), by).await
}

async fn patch_service<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(name): Path<String>,
    Editor(by): Editor,
    body: Body,
) -> Result<Response, Failure> {
    let wish = ServiceWish::Patch(needed(body)?);
    edit(&*agent, Wish::Service(place(&*agent, &name)?, wish), by).await
}

async fn remove_service<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(name): Path<String>,
    Editor(by): Editor,
) -> Result<Response, Failure> {
    edit(&*agent, Wish::Service(place(&*agent, &name)?, ServiceWish::Remove), by).await
}

async fn put_backend<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(path): Path<(String, String)>,
    Editor(by): Editor,
    body: Body,
) -> Result<Response, Failure> {
    let wish = BackendWish::Put(needed(body)?);
    edit(&*agent, backend(&*agent, path, wish)?, by).await
}

async fn patch_backend<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(path): Path<(String, String)>,
    Editor(by): Editor,
    body: Body,
) -> Result<Response, Failure> {
    let wish = BackendWish::Patch(needed(body)?);
    edit(&*agent, backend(&*agent, path, wish)?, by).await
}

async fn remove_backend<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(path): Path<(String, String)>,
    Editor(by): Editor,
) -> Result<Response, Failure> {
    edit(&*agent, backend(&*agent, path, BackendWish::Remove)?, by).await
}

fn backend<A: Agent>(
    agent: &A,
    (service, backend): (String, String),
    wish: BackendWish,
) -> Result<Wish, Failure> {
    Ok(Wish::Backend(place(agent, &service)?, backend, wish))
}

/// Where the service of that name is written.
fn place<A: Agent>(agent: &A, name: &str) -> Result<Place, Failure> {
    let desired = agent.desired();
    let (group, service) = names::service(&desired, name)?;
    Ok(Place::of(group, service))
}

impl From<EditRefusal> for Failure {
    fn from(refusal: EditRefusal) -> Self {
        let invalid = StatusCode::UNPROCESSABLE_ENTITY;
        match refusal {
            EditRefusal::Unplanned(unplanned) => unplanned.into(),
            EditRefusal::Conflict { key, user, at_ms, revision, now } => {
                let title = format!("{key} was changed since");
                let detail =
                    format!("by {user}, at {at_ms} ms, in revision {revision}; {now} holds now");
                Self::new(StatusCode::PRECONDITION_FAILED, "conflict", &title, detail)
                    .fix("look at what holds (GET /v1/config), and edit that")
                    .tag(&format!("\"{now}\""))
            }
            EditRefusal::Unseen { seen, now } => {
                let title = format!("no revision {seen} was seen here");
                let detail = format!(
                    "{now} holds now: the tag is of another store, or of this one before it was lost"
                );
                Self::new(StatusCode::PRECONDITION_FAILED, "precondition", &title, detail)
                    .fix("look at what holds (GET /v1/config), and edit that")
                    .tag(&format!("\"{now}\""))
            }
            EditRefusal::Unlayable(why) => {
                let title = "nothing can be laid over the file of this node";
                Self::new(invalid, "unlayable", title, why.to_string())
            }
            EditRefusal::Invalid(report) => Self::file(&report),
            EditRefusal::Needs(why) => {
                let title = "the edit is refused; the running configuration stays in force";
                Self::new(invalid, "config", title, why)
            }
            EditRefusal::Occupied(occupied) => {
                let title = format!("{} is in use", occupied.0.address);
                Self::new(StatusCode::CONFLICT, "occupied", &title, occupied.to_string())
                    .fix("choose another address; of a pool, reserve this one for who has it (`buoy pool reserve`)")
            }
            EditRefusal::Taken(given) => {
                let title = format!("{} would lose {}", given.vip, given.address);
                let detail = "a pool gave it this address, and the edit is about others";
                Self::new(StatusCode::CONFLICT, "in_use", &title, detail)
                    .fix("take another address, or give that VIP another one first")
            }
            EditRefusal::Host(why) => {
                let title = "this host cannot be looked at";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, why)
            }
            EditRefusal::Store(refused) => refused_by_the_store(&refused),
            EditRefusal::Off => {
                let title = "nothing can be edited here";
                let detail = "the file says store = \"none\"";
                Self::new(StatusCode::CONFLICT, "store_off", title, detail)
                    .fix("edit the file on every node and run `buoy reload`")
            }
        }
    }
}

impl From<Unplanned> for Failure {
    fn from(unplanned: Unplanned) -> Self {
        let invalid = StatusCode::UNPROCESSABLE_ENTITY;
        match unplanned {
            Unplanned::Malformed(why) => {
                Self::new(invalid, "malformed", "that is no configuration", why)
            }
            Unplanned::OnlyInFile(keys) => {
                let title = "this can only be changed in the file";
                let detail = format!("different from the file: {keys}");
                Self::new(invalid, "only_in_file", title, detail)
                    .fix("edit the file on every node, and run `buoy reload` on each")
            }
            Unplanned::Unknown(what, instead) => {
                Self::new(StatusCode::NOT_FOUND, "unknown", &what, instead)
            }
            Unplanned::Exists(name) => {
                let title = format!("there is a VIP {name} already");
                Self::new(StatusCode::CONFLICT, "exists", &title, "PUT and PATCH change it")
            }
            Unplanned::Forgotten { asked, oldest, newest } => {
                let title = format!("there is no revision {asked} to go back to");
                let detail = format!("there are {oldest} to {newest}");
                Self::new(StatusCode::NOT_FOUND, "no_such_revision", &title, detail)
            }
        }
    }
}

fn refused_by_the_store(refused: &Refused) -> Failure {
    let (status, code) = match refused {
        Refused::Moved(_) => (StatusCode::CONFLICT, "moved"),
        Refused::Full(_) => (StatusCode::UNPROCESSABLE_ENTITY, "full"),
        Refused::NoMajority { .. } => (StatusCode::SERVICE_UNAVAILABLE, "no_majority"),
        Refused::NoFounder(_) => (StatusCode::SERVICE_UNAVAILABLE, "no_founder"),
        Refused::NoEtcd(_) => (StatusCode::SERVICE_UNAVAILABLE, "no_etcd"),
        Refused::NotLeader => (StatusCode::SERVICE_UNAVAILABLE, "no_leader"),
        Refused::Unsure => (StatusCode::GATEWAY_TIMEOUT, "unsure"),
        Refused::Broken(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_broken"),
    };
    Failure::new(status, code, "the edit was not taken", refused.to_string())
}
