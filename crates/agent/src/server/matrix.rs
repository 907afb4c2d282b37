//! Answers what each node hears of each other: its own row from what it knows, those of others by asking them.
//!
//! They are asked as orders are passed on (`errands`), with a request that changes nothing. However many look, each is
//! asked once a second at most.

use super::errands::question;
use super::failure::Failure;
use super::openapi::Operation;
use super::{Agent, Asker, Snapshot};
use axum::extract::{ConnectInfo, Path, State};
use axum::routing::get;
use axum::{Extension, Json, Router};
use buoy_api::{MatrixReply, MatrixRow, Problem, segment};
use buoy_store::Done;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// How long others may take to answer: who looks at all of them should not wait for one.
const LIMIT: Duration = Duration::from_secs(1);
/// What was asked so lately is not asked again.
const FRESH: Duration = Duration::from_secs(1);

/// What the others said last, and when that was.
#[derive(Default)]
struct Said(Mutex<Option<(Instant, MatrixReply)>>);

pub(super) fn routes<A: Agent>() -> Router<Arc<A>> {
    Router::new()
        .route("/v1/matrix", get(all::<A>))
        .route("/v1/matrix/{node}", get(one::<A>))
        .layer(Extension(Arc::new(Said::default())))
}

/// What can be asked here.
pub(super) fn operations() -> Vec<Operation> {
    let unreached = "That node cannot be reached, or did not answer in time: the answer says why.";
    vec![
        Operation::new(
            "get",
            "/v1/matrix",
            "matrix",
            "How each node hears each other, and its virtual routers: asked of all of them.",
        )
        .answers::<MatrixReply>(),
        Operation::new("get", "/v1/matrix/{node}", "matrix_row", "The same of one node.")
            .refuses(502, unreached)
            .answers::<MatrixRow>(),
    ]
}

async fn all<A: Agent>(
    State(agent): State<Arc<A>>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    Extension(said): Extension<Arc<Said>>,
) -> Result<Json<MatrixReply>, Failure> {
    // Who comes while they are being asked waits for the same answers.
    let mut said = said.0.lock().await;
    if let Some((_, reply)) = said.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
        return Ok(Json(reply.clone()));
    }
    let snapshot = Snapshot::bare(&*agent).await?;
    let (desired, mut asking) = (&snapshot.desired, JoinSet::new());
    for node in desired.nodes.iter().filter(|node| node.id != desired.me) {
        let (agent, asker, name) = (Arc::clone(&agent), asker.clone(), node.name.clone());
        asking.spawn(async move {
            let answer = ask(&*agent, &asker, &name).await;
            answer.unwrap_or_else(|why| MatrixRow::unknown(&name, why))
        });
    }
    let mut rows = asking.join_all().await;
    rows.push(snapshot.view().row());
    rows.sort_by(|a, b| a.node.cmp(&b.node));
    let reply = MatrixReply { node: snapshot.me(), rows };
    *said = Some((Instant::now(), reply.clone()));
    Ok(Json(reply))
}

async fn one<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(name): Path<String>,
    ConnectInfo(asker): ConnectInfo<Asker>,
) -> Result<Json<MatrixRow>, Failure> {
    let snapshot = Snapshot::bare(&*agent).await?;
    if name == snapshot.me() {
        return Ok(Json(snapshot.view().row()));
    }
    if !snapshot.desired.nodes.iter().any(|node| node.name == name) {
        return Err(Failure::unknown_node(&name, &snapshot.desired));
    }
    let row = ask(&*agent, &asker, &name).await;
    row.map(Json).map_err(|why| Failure::unheard_of(&name, &why))
}

/// Its row, in its own words; why there is none.
async fn ask<A: Agent>(agent: &A, asker: &Asker, node: &str) -> Result<MatrixRow, String> {
    let target = format!("/v1/matrix/{}", segment(node));
    let errand = question(asker, target).ok_or("a question is passed on once")?;
    match timeout(LIMIT, agent.send(node, errand)).await {
        Ok(Ok(Done { status: 200, body, .. })) => serde_json::from_str(&body)
            .map_err(|error| format!("its answer is not understood: {error}")),
        Ok(Ok(Done { status, body, .. })) => Err(serde_json::from_str::<Problem>(&body)
            .map_or_else(|_| format!("it answered with {status}"), |problem| problem.title)),
        Ok(Err(lost)) => Err(lost.to_string()),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}
