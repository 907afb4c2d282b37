//! Answers what there is, as lists that can be waited for and followed, and their items.

use super::failure::Failure;
use super::openapi::{Operation, count, text};
use super::paging::{About, Page};
use super::stream::{Asked, News, Tagged, message, place, revised, streamed};
use super::write::{node_tag, vip_tag};
use super::{Agent, Snapshot, alive, ask_loop, orders, whole};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use buoy_api::view::DatedRecord;
use buoy_api::{
    BudgetReply, ClusterReply, ClusterStatus, EventView, EventsReply, FailoversReply, NodeReply,
    NodesReply, VipReply, VipsReply,
};
use buoy_model::GroupId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// Records in an answer that does not say how many.
const EVENTS_DEFAULT: usize = 100;
/// Media type of a table.
const CSV: &str = "text/csv";

pub(super) fn routes<A: Agent>() -> Router<Arc<A>> {
    Router::new()
        .route("/readyz", get(ready::<A>))
        .route("/v1/readyz", get(ready::<A>))
        .route("/v1/status", get(whole::status::<A>))
        .route("/v1/cluster", get(cluster::<A>))
        .route("/v1/nodes", get(nodes::<A>))
        .route("/v1/nodes/{node}", get(node::<A>).patch(orders::patch_node::<A>))
        .route("/v1/vips", get(vips::<A>))
        .route("/v1/vips/{vip}", get(vip::<A>))
        .route("/v1/events", get(events::<A>))
        .route("/v1/failovers", get(failovers::<A>))
        .route("/v1/budget", get(budget::<A>))
}

pub(super) fn operations() -> Vec<Operation> {
    let get = |path, id, summary| Operation::new("get", path, id, summary);
    let ready =
        "Whether this node does its part: it answers, its configuration is in force, and it votes.";
    let vip = "Only what is about this VIP: its name, or one of its addresses.";
    vec![
        get("/readyz", "readyz", ready).answers_with("text/plain", text()),
        get("/v1/readyz", "readyz_v1", ready).answers_with("text/plain", text()),
        get("/v1/status", "status", "The cluster as this node sees it: all of it.")
            .answers::<ClusterStatus>()
            .list()
            .unless_known(),
        get("/v1/cluster", "cluster", "The cluster as a whole.").answers::<ClusterReply>().list(),
        get("/v1/nodes", "nodes", "All members.").answers::<NodesReply>().list(),
        get("/v1/nodes/{node}", "node", "One member.").answers::<NodeReply>().list().tagged(),
        get("/v1/vips", "vips", "All VIPs.").answers::<VipsReply>().paged(),
        get("/v1/vips/{vip}", "vip", "One VIP: what it should be, and what it is.")
            .answers::<VipReply>()
            .list()
            .tagged(),
        get(
            "/v1/events",
            "events",
            "What happened lately, oldest first; as a stream each record, once.",
        )
        .answers::<EventsReply>()
        .list()
        .query("n", count(), "At most so many, the latest; 100 unless it is said.")
        .query("vip", text(), vip)
        .query(
            "since_ms",
            count_ms(),
            "Only what is not older, in milliseconds since 1970.",
        )
        .query("until_ms", count_ms(), "Only what is not younger, in milliseconds since 1970."),
        get(
            "/v1/budget",
            "budget",
            "How well each VIP has kept its promise, as this node has seen since its agent started.",
        )
        .answers::<BudgetReply>()
        .list(),
        get("/v1/failovers", "failovers", "The takeovers that this node made, with their phases.")
            .answers::<FailoversReply>()
            .list()
            .answers_with(CSV, text())
            .query("n", count(), "At most so many, the latest; 100 unless it is said.")
            .query("vip", text(), vip)
            .query(
                "format",
                json!({ "type": "string", "enum": ["json", "csv"] }),
                "Or by `Accept: text/csv`.",
            ),
    ]
}

fn count_ms() -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX })
}

/// Whether this node does its part: it answers, its configuration is in force, and it votes.
async fn ready<A: Agent>(State(agent): State<Arc<A>>) -> Result<&'static str, Failure> {
    let not_yet = |detail: &str| {
        let title = "this node is not ready";
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", title, detail)
    };
    if agent.changes().is_over() {
        return Err(not_yet("its agent stops"));
    }
    let status = ask_loop(&*agent, None).await?;
    if status.generation != agent.desired().generation {
        return Err(not_yet("a new configuration is not in force yet"));
    }
    match status.nodes.iter().find(|node| node.id == status.me).map(|me| me.votes_in) {
        Some(None) => Ok("ready\n"),
        Some(Some(_)) => Err(not_yet("it has started lately, and grants no votes yet")),
        None => Err(not_yet("it is no member")),
    }
}

async fn cluster<A: Agent>(State(agent): State<Arc<A>>, asked: Asked) -> Result<Response, Failure> {
    let make = |agent: Arc<A>| async move {
        let snapshot = Snapshot::of(&*agent, 0).await?;
        Ok(ClusterReply { revision: snapshot.revision, ..snapshot.view().summary() })
    };
    asked.answer(agent, "cluster", make).await
}

async fn nodes<A: Agent>(State(agent): State<Arc<A>>, asked: Asked) -> Result<Response, Failure> {
    let make = |agent: Arc<A>| async move {
        let snapshot = Snapshot::bare(&*agent).await?;
        let nodes = snapshot.view().nodes();
        Ok(NodesReply { node: snapshot.me(), revision: snapshot.revision, nodes })
    };
    asked.answer(agent, "nodes", make).await
}

async fn node<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, Failure> {
    let make = move |agent: Arc<A>| {
        let name = name.clone();
        async move {
            let reply = one_node(&Snapshot::of(&*agent, 0).await?, &name)?;
            Ok(Tagged(reply.etag.clone(), reply))
        }
    };
    asked.answer(agent, "node", make).await
}

/// One member with what it owns and could.
pub(super) fn one_node(snapshot: &Snapshot, name: &str) -> Result<NodeReply, Failure> {
    let view = snapshot.view();
    let unknown = || Failure::unknown_node(name, &snapshot.desired);
    let member = view.nodes().into_iter().find(|node| node.name == name).ok_or_else(unknown)?;
    let vips = view.vips();
    let named = |wanted: &str| {
        let is_it = |vip: &&buoy_api::VipView| {
            vip.candidates.iter().any(|c| c.node == member.name && c.standing == wanted)
        };
        vips.iter().filter(is_it).map(|vip| vip.name.clone()).collect()
    };
    Ok(NodeReply {
        node: snapshot.me(),
        revision: snapshot.revision,
        draining: snapshot.status.draining.clone().filter(|_| member.me),
        drain_left_ms: view.drain_left_ms().filter(|_| member.me),
        cordoned: snapshot.status.cordoned.clone().filter(|_| member.me),
        owns: vips
            .iter()
            .filter(|vip| vip.owner.as_ref() == Some(&member.name))
            .map(|vip| vip.name.clone())
            .collect(),
        could_take: named("candidate"),
        etag: node_tag(snapshot, name),
        member,
    })
}

async fn vips<A: Agent>(
    State(agent): State<Arc<A>>,
    page: Page,
    asked: Asked,
) -> Result<Response, Failure> {
    page.answer(agent, (asked, "vips"), About::Vips, whole::vips).await
}

pub(super) async fn services<A: Agent>(
    State(agent): State<Arc<A>>,
    page: Page,
    asked: Asked,
) -> Result<Response, Failure> {
    page.answer(agent, (asked, "services"), About::Behind, whole::services).await
}

pub(super) async fn backends<A: Agent>(
    State(agent): State<Arc<A>>,
    page: Page,
    asked: Asked,
) -> Result<Response, Failure> {
    page.answer(agent, (asked, "backends"), About::Behind, whole::backends).await
}

async fn vip<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, Failure> {
    let make = move |agent: Arc<A>| {
        let name = name.clone();
        async move {
            let snapshot = Snapshot::about(&*agent, super::group(&*agent, &name)?).await?;
            let group = snapshot.group(&name)?;
            let (vip, etag) = (snapshot.view().vip(group), vip_tag(&snapshot.status, group.id));
            let (node, revision) = (snapshot.me(), snapshot.revision);
            Ok(Tagged(etag.clone(), VipReply { node, revision, etag, vip }))
        }
    };
    asked.answer(agent, "vip", make).await
}

#[derive(Clone, Deserialize)]
struct EventsQuery {
    n: Option<u32>,
    vip: Option<String>,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
}

/// Which records are asked for.
#[derive(Clone)]
struct Meant {
    n: usize,
    group: Option<GroupId>,
    between_ms: std::ops::RangeInclusive<u64>,
}

impl Meant {
    fn of<A: Agent>(
        agent: &A,
        query: Result<Query<EventsQuery>, QueryRejection>,
    ) -> Result<Self, Failure> {
        let Query(EventsQuery { n, vip, since_ms, until_ms }) =
            query.map_err(|error| Failure::query(&error))?;
        let group = match vip.map(|vip| super::group(agent, &vip).map_err(|why| (vip, why))) {
            Some(Err((vip, why))) => Some(gone(agent, &vip).ok_or(why)?),
            Some(Ok(group)) => Some(group),
            None => None,
        };
        let between_ms = since_ms.unwrap_or_default()..=until_ms.unwrap_or(u64::MAX);
        Ok(Self { n: n.map_or(EVENTS_DEFAULT, |n| n as usize), group, between_ms })
    }

    fn has(&self, dated: &DatedRecord) -> bool {
        self.between_ms.contains(&dated.at)
            && self.group.is_none_or(|g| dated.record.group == Some(g))
    }
}

/// A VIP that has left the configuration, by the name that it had.
fn gone<A: Agent>(agent: &A, vip: &str) -> Option<GroupId> {
    let all = agent.events(usize::MAX);
    all.iter().rev().find(|dated| dated.vip.as_deref() == Some(vip))?.record.group
}

/// The records, now, when there is one after `since`, or each when it is made.
async fn events<A: Agent>(
    State(agent): State<Arc<A>>,
    query: Result<Query<EventsQuery>, QueryRejection>,
    asked: Asked,
) -> Result<Response, Failure> {
    let meant = Meant::of(&*agent, query)?;
    if asked.is_stream() {
        let place = place(agent.changes())?;
        return Ok(streamed(move |told| async move {
            let _place = place;
            let mut known = asked.since.unwrap_or_default();
            let mut first = asked.since.is_none();
            let mut seen = 0;
            while let News::Revision(now) = told.news(agent.changes(), seen, None).await {
                seen = now;
                // One that knows nothing has lost nothing, and gets the latest.
                let most = if first { meant.n } else { usize::MAX };
                let (new, lost) = new_events(&*agent, &meant, known, most);
                if lost && !first && !told.take(gap(known)).await {
                    return;
                }
                first = false;
                for event in &new {
                    let seq = event.seq.unwrap_or_default();
                    if !told.take(message("event", seq, event)).await {
                        return;
                    }
                    known = known.max(seq);
                }
            }
        }));
    }
    if let Some(wait) = asked.wait() {
        let _place = place(agent.changes())?;
        let until = tokio::time::Instant::now() + wait;
        let since = asked.since.unwrap_or_else(|| agent.changes().now());
        loop {
            let seen = agent.changes().now();
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let is_new = !agent.events_after(since, 1, &|dated| meant.has(dated)).0.is_empty();
            if is_new || left.is_zero() || agent.changes().is_over() {
                break;
            }
            agent.changes().other_than(seen, left).await;
        }
        return listed(&*agent, &meant, since).await;
    }
    listed(&*agent, &meant, asked.since.unwrap_or_default()).await
}

async fn listed<A: Agent>(agent: &A, meant: &Meant, since: u64) -> Result<Response, Failure> {
    let revision = agent.changes().now();
    // The loop knows nothing of records, but an agent without it is no agent.
    alive(agent).await?;
    let (events, _) = new_events(agent, meant, since, meant.n);
    Ok(revised(Json(EventsReply { revision, events }).into_response(), revision))
}

/// The latest of those after `since`, at most so many, and whether some before them are forgotten.
fn new_events<A: Agent>(
    agent: &A,
    meant: &Meant,
    since: u64,
    most: usize,
) -> (Vec<EventView>, bool) {
    let (new, lost) = agent.events_after(since, most, &|dated| meant.has(dated));
    let desired = agent.desired();
    let words = buoy_api::Words::new(&desired);
    (new.iter().map(|dated| buoy_api::view::event(&words, dated)).collect(), lost)
}

/// Told to a reader who was away for so long that records are forgotten.
fn gap(after: u64) -> axum::body::Bytes {
    #[derive(Serialize)]
    struct Gap {
        after: u64,
        detail: &'static str,
    }
    let detail = "records that came after this one are forgotten: only the latest are kept";
    message("gap", after, &Gap { after, detail })
}

async fn budget<A: Agent>(State(agent): State<Arc<A>>, asked: Asked) -> Result<Response, Failure> {
    let make = |agent: Arc<A>| async move {
        let snapshot = Snapshot::bare(&*agent).await?;
        Ok(snapshot.view().budget(snapshot.revision))
    };
    asked.answer(agent, "budget", make).await
}

#[derive(Clone, Deserialize)]
struct FailoversQuery {
    n: Option<u32>,
    vip: Option<String>,
    format: Option<Format>,
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Csv,
}

async fn failovers<A: Agent>(
    State(agent): State<Arc<A>>,
    query: Result<Query<FailoversQuery>, QueryRejection>,
    headers: HeaderMap,
    asked: Asked,
) -> Result<Response, Failure> {
    let Query(FailoversQuery { n, vip, format }) = query.map_err(|error| Failure::query(&error))?;
    let most = n.map_or(EVENTS_DEFAULT, |n| n as usize);
    let make = move |agent: Arc<A>| {
        let vip = vip.clone();
        async move {
            let snapshot = Snapshot::of(&*agent, usize::MAX).await?;
            let name = vip.map(|vip| snapshot.group(&vip).map(|g| g.name.clone())).transpose()?;
            let mut failovers = snapshot.view().failovers();
            failovers.retain(|failover| name.as_ref().is_none_or(|name| failover.vip == *name));
            let surplus = failovers.len().saturating_sub(most);
            failovers.drain(..surplus);
            let (node, revision) = (snapshot.me(), snapshot.revision);
            Ok(FailoversReply { node, revision, failovers })
        }
    };
    let accepts = headers.get(ACCEPT).and_then(|accepted| accepted.to_str().ok());
    let wants_table = accepts.is_some_and(|accepted| accepted.contains(CSV));
    if format.map_or(wants_table, |format| format == Format::Csv) {
        let table = make(agent).await?.csv();
        let kind = format!("{CSV}; charset=utf-8; header=present");
        return Ok(([(CONTENT_TYPE, kind)], table).into_response());
    }
    asked.answer(agent, "failovers", make).await
}
