//! Answers why a VIP is where it is, whichever node is asked.
//!
//! Why somebody took it is known to whoever took it: the others only heard of it. So its owner is asked, as a row of
//! the matrix is, and where it does not answer this node says what it knows, and where to ask.

use super::errands::question;
use super::failure::Failure;
use super::openapi::Operation;
use super::{Agent, Asker, Snapshot, group};
use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use buoy_api::{WhyReply, segment};
use buoy_store::Done;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Records in an answer.
const EVENTS: usize = 20;
/// How long the owner may take to answer: it may be gone, which is when people ask.
const LIMIT: Duration = Duration::from_secs(1);

pub(super) fn operation() -> Operation {
    Operation::new("get", "/v1/vips/{vip}/why", "why", "Why a VIP is where it is.")
        .answers::<WhyReply>()
}

pub(super) async fn why<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(vip): Path<String>,
    ConnectInfo(asker): ConnectInfo<Asker>,
) -> Result<Json<WhyReply>, Failure> {
    let group = group(&*agent, &vip)?;
    let snapshot =
        Snapshot { events: agent.events_of(group), ..Snapshot::about(&*agent, group).await? };
    let mut reply = snapshot.view().why(snapshot.group(&vip)?);
    let surplus = reply.history.len().saturating_sub(EVENTS);
    reply.history.drain(..surplus);
    if let Some(told) = told(&*agent, &asker, &reply).await {
        reply.answer = told.answer;
        reply.phases = told.phases;
        reply.history = told.history;
        // The reason of a hold is known to its owner, too.
        reply.vip.held = told.vip.held;
        reply.told_by = Some(told.node);
    }
    Ok(Json(reply))
}

/// What its owner says, if that is another node which answers and owns it still.
async fn told<A: Agent>(agent: &A, asker: &Asker, here: &WhyReply) -> Option<WhyReply> {
    let owner = here.vip.owner.as_deref().filter(|owner| *owner != here.node)?;
    let errand = question(asker, format!("/v1/vips/{}/why", segment(&here.vip.name)))?;
    let sent = timeout(LIMIT, agent.send(owner, errand)).await.ok()?;
    let Ok(Done { status: 200, body, .. }) = sent else { return None };
    let told: WhyReply = serde_json::from_str(&body).ok()?;
    (told.node == owner && told.vip.mine).then_some(told)
}
