//! Answers what the virtual routers of VRRP are on this node.

use super::failure::Failure;
use super::openapi::{Operation, text};
use super::stream::Asked;
use super::{Agent, Snapshot};
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use buoy_api::VrrpInstancesReply;
use serde::Deserialize;
use std::sync::Arc;

pub(super) fn routes<A: Agent>() -> Router<Arc<A>> {
    Router::new().route("/v1/vrrp/instances", get(instances::<A>))
}

/// What can be asked here.
pub(super) fn operations() -> Vec<Operation> {
    let what = "The virtual routers of this node, of the VIPs whose owner is decided by VRRP.";
    let vip =
        "Only those of this VIP and of what moves with it: its name, or one of its addresses.";
    let list = Operation::new("get", "/v1/vrrp/instances", "vrrp_instances", what);
    vec![list.answers::<VrrpInstancesReply>().list().query("vip", text(), vip)]
}

#[derive(Deserialize)]
struct Condition {
    vip: Option<String>,
}

async fn instances<A: Agent>(
    State(agent): State<Arc<A>>,
    query: Result<Query<Condition>, QueryRejection>,
    asked: Asked,
) -> Result<Response, Failure> {
    let Query(Condition { vip }) = query.map_err(|error| Failure::query(&error))?;
    // Before a stream begins: whoever misspelled it is told at once.
    let of = vip.map(|vip| super::group(&*agent, &vip)).transpose()?;
    let make = move |agent: Arc<A>| async move {
        let snapshot = match of {
            Some(group) => Snapshot::about(&*agent, group).await?,
            None => Snapshot::bare(&*agent).await?,
        };
        let of = of.map(|group| snapshot.desired.group(group));
        let instances = match of {
            // It was there when it was asked about.
            Some(None) => Vec::new(),
            Some(group) => snapshot.view().instances(group),
            None => snapshot.view().instances(None),
        };
        Ok(VrrpInstancesReply { node: snapshot.me(), revision: snapshot.revision, instances })
    };
    asked.answer(agent, "vrrp_instances", make).await
}
