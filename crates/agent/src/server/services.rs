//! Answers about services, and takes orders of their backends: on any node, for all nodes.

use super::failure::Failure;
use super::names::NameError;
use super::openapi::Operation;
use super::orders::{Body, Reason, length, parsed};
use super::stream::{Asked, Tagged};
use super::write::{Write, tagged};
use super::{Agent, Asker, Snapshot, names, wall_clock};
use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use axum::response::{IntoResponse as _, Response};
use buoy_api::{
    BackendFlows, BackendOrderReply, BackendOrderRequest, BackendReply, BackendsReply, FlowsReply,
    ORDER_FOR_MAX, REASON_MAX, ServiceFlowsReply, ServiceReply, ServicesReply, Words, backend_tag,
    haproxy_name, ordered_in, ordered_view, service_name,
};
use buoy_core::backend_orders::{BackendOrders, Change, Full};
use buoy_model::limits::{BACKEND_WEIGHT_MAX, CHECK_SHARE_MAX};
use buoy_model::{BackendId, BackendOrder, Desired, Duty, Group, OrderedWeight, Service};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn operations() -> Vec<Operation> {
    let get = |path, id, summary| Operation::new("get", path, id, summary);
    let read = [
        get("/v1/services", "services", "All services, as this node forwards them.")
            .answers::<ServicesReply>()
            .paged(),
        get("/v1/services/{service}", "service", "One service.").answers::<ServiceReply>().list(),
        get("/v1/backends", "backends", "Every backend of every service.")
            .answers::<BackendsReply>()
            .paged(),
        get("/v1/services/{service}/backends/{backend}", "backend", "One backend.")
            .answers::<BackendReply>()
            .list()
            .tagged(),
        get(
            "/v1/services/{service}/flows",
            "flows",
            "What this node knows of the connections of a service's backends.",
        )
        .answers::<ServiceFlowsReply>(),
        get(
            "/v1/services/{service}/backends/{backend}/flows",
            "backend_flows",
            "What this node knows of the connections of a backend.",
        )
        .answers::<FlowsReply>(),
    ];
    read.into_iter().chain(order_operations()).collect()
}

fn order_operations() -> impl Iterator<Item = Operation> {
    let reason = json!({ "type": ["string", "null"], "maxLength": REASON_MAX });
    let for_ms = json!({ "type": ["integer", "null"], "minimum": 1, "maximum": ORDER_FOR_MAX.as_millis() as u64 });
    let of = |properties: Value, required: &[&str]| json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    let plain = of(json!({ "reason": reason }), &[]);
    let drain = of(json!({ "reason": reason, "for_ms": for_ms }), &[]);
    let weight = of(
        json!({ "reason": reason, "weight": { "type": "string", "pattern": WEIGHT } }),
        &["weight"],
    );
    let orders = [
        (
            "/v1/services/{service}/backends/{backend}/drain",
            "backend_drain",
            "No new connections.",
            drain,
        ),
        (
            "/v1/services/{service}/backends/{backend}/disable",
            "backend_disable",
            "No connections, no checks.",
            plain.clone(),
        ),
        (
            "/v1/services/{service}/backends/{backend}/enable",
            "backend_enable",
            "As configured.",
            plain.clone(),
        ),
        (
            "/v1/services/{service}/backends/{backend}/ready",
            "backend_ready",
            "Connections while its checks pass.",
            plain,
        ),
        (
            "/v1/services/{service}/backends/{backend}/weight",
            "backend_weight",
            "Another weight.",
            weight,
        ),
    ];
    orders.into_iter().map(|(path, id, summary, body)| {
        let is_needed = id == "backend_weight";
        Operation::new("post", path, id, summary)
            .takes_json(body, is_needed)
            .changes()
            .answers::<BackendOrderReply>()
            .tagged()
    })
}

/// What a weight looks like in JSON schema: what `weight` reads.
const WEIGHT: &str =
    "^(configured|25[0-6]|(2[0-4]|1?[0-9])?[0-9]|(25[0-5]|(2[0-4]|1?[0-9])?[0-9])%)$";

pub(super) async fn one<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(service): Path<String>,
    asked: Asked,
) -> Result<Response, Failure> {
    let make = move |agent: Arc<A>| {
        let service = service.clone();
        async move {
            let group = names::service(&agent.desired(), &service)?.0.id;
            let snapshot = Snapshot::about(&*agent, group).await?;
            let (group, service) = names::service(&snapshot.desired, &service)?;
            Ok(shown(&snapshot, group, service))
        }
    };
    asked.answer(agent, "service", make).await
}

fn shown(snapshot: &Snapshot, group: &Group, service: &Service) -> ServiceReply {
    ServiceReply {
        node: snapshot.desired.node_name(snapshot.desired.me).into(),
        vip: group.name.clone(),
        addresses: service.addresses.iter().map(ToString::to_string).collect(),
        haproxy: haproxy_name(group, service),
        service: snapshot.view().service(group, service),
    }
}

pub(super) async fn flows<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(service): Path<String>,
) -> Result<Json<ServiceFlowsReply>, Failure> {
    let desired = agent.desired();
    let found = names::service(&desired, &service)?;
    Ok(Json(counted(&*agent, &desired, found).await))
}

pub(super) async fn flows_of<A: Agent>(
    State(agent): State<Arc<A>>,
    Path((service, backend)): Path<(String, String)>,
) -> Result<Json<FlowsReply>, Failure> {
    let desired = agent.desired();
    let found = names::service(&desired, &service)?;
    let backend = names::backend(found, &backend)?.name.clone();
    let ServiceFlowsReply { node, service, engine, backends } =
        counted(&*agent, &desired, found).await;
    let flows = backends.into_iter().find(|of| of.backend == backend);
    let flows = flows.map(|of| of.flows).unwrap_or_default();
    Ok(Json(FlowsReply { node, service, backend, engine, flows }))
}

async fn counted<A: Agent>(
    agent: &A,
    desired: &Desired,
    (group, service): (&Group, &Service),
) -> ServiceFlowsReply {
    let reports = agent.services(Some(&[group.id]));
    let report = reports.into_iter().find(|r| {
        (r.protocol, r.ports, Some(&r.address))
            == (service.protocol, service.ports, service.addresses.first())
    });
    let flows = agent.flows(&[(group, service)]).await.into_iter().flatten();
    let names = service.backends.iter().map(|backend| backend.name.clone());
    ServiceFlowsReply {
        node: desired.node_name(desired.me).into(),
        service: service_name(group, service),
        engine: report.map_or_else(String::new, |report| report.engine.clone()),
        backends: names
            .zip(flows)
            .map(|(backend, flows)| BackendFlows { backend, flows })
            .collect(),
    }
}

pub(super) async fn order<A: Agent>(
    State(agent): State<Arc<A>>,
    Path((service, backend, verb)): Path<(String, String, String)>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    write: Write,
    body: Body,
) -> Result<Response, Failure> {
    let request: BackendOrderRequest = parsed(body)?;
    let reason = Reason::of(request.reason.as_deref(), &asker)?.recorded;
    let desired = agent.desired();
    let (group, service) = names::service(&desired, &service)?;
    let change = change(&verb, &request)?;
    let name = names::backend((group, service), &backend)?.name.clone();
    let id = BackendId::of(service, &name);
    let _turn = write.turn(&*agent).await;
    let known = ordered_in(&agent.services(Some(&[group.id])), &id);
    write.check(&backend_tag(known.as_ref()))?;
    let given = if write.dry_run {
        rehearsed(&desired, known, id, change, reason)?
    } else {
        agent.order_backend(id, change, reason).await?
    };
    let reply = BackendOrderReply {
        node: desired.node_name(desired.me).into(),
        service: service_name(group, service),
        backend: name,
        order: ordered_view(&Words::new(&desired), &given, wall_clock()),
        dry_run: write.dry_run,
    };
    let reply = Json(reply).into_response();
    Ok(if write.dry_run { reply } else { tagged(reply, &backend_tag(Some(&given))) })
}

/// The order as it would be, with what holds already.
fn rehearsed(
    desired: &Desired,
    known: Option<BackendOrder>,
    backend: BackendId,
    change: Change,
    reason: String,
) -> Result<BackendOrder, Full> {
    let mut orders = BackendOrders::default();
    if let Some(known) = known {
        orders.hear(desired, known);
    }
    let now = (wall_clock().saturating_mul(1_000), desired.me);
    orders.give(now, backend, change, reason).cloned()
}

/// One backend, with the tag that a change of it may name.
pub(super) async fn backend<A: Agent>(
    State(agent): State<Arc<A>>,
    Path((service, backend)): Path<(String, String)>,
    asked: Asked,
) -> Result<Response, Failure> {
    let make = move |agent: Arc<A>| {
        let (service, backend) = (service.clone(), backend.clone());
        async move {
            let group = names::service(&agent.desired(), &service)?.0.id;
            one_backend(&Snapshot::about(&*agent, group).await?, &service, &backend)
        }
    };
    asked.answer(agent, "backend", make).await
}

fn one_backend(
    snapshot: &Snapshot,
    service: &str,
    backend: &str,
) -> Result<Tagged<BackendReply>, Failure> {
    let (group, service) = names::service(&snapshot.desired, service)?;
    let name = &names::backend((group, service), backend)?.name;
    let shown = shown(snapshot, group, service);
    let unknown = || NameError::Backend {
        asked: backend.to_owned(),
        service: shown.service.name.clone(),
        known: vec![],
    };
    let view = shown.service.backends.iter().find(|b| b.name == *name).ok_or_else(unknown)?;
    let etag = backend_tag(ordered_in(&snapshot.services, &BackendId::of(service, name)).as_ref());
    let reply = BackendReply {
        vip: shown.vip.clone(),
        service: shown.service.name.clone(),
        backend: view.clone(),
        etag: etag.clone(),
    };
    Ok(Tagged(etag, reply))
}

/// What the verb and its body ask for.
fn change(verb: &str, request: &BackendOrderRequest) -> Result<Change, Failure> {
    if request.for_ms.is_some() && verb != "drain" {
        return Err(Failure::not_of_it("time", verb));
    }
    if request.weight.is_some() && verb != "weight" {
        return Err(Failure::not_of_it("weight", verb));
    }
    match verb {
        "drain" => {
            let time = length(request.for_ms)?;
            let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).ok();
            let until = time.and_then(millis).map(|time| wall_clock().saturating_add(time));
            Ok(Change::Duty(Duty::Drain { until }))
        }
        "disable" => Ok(Change::Duty(Duty::Maint)),
        "enable" => Ok(Change::Duty(Duty::Configured)),
        "ready" => Ok(Change::Duty(Duty::Ready)),
        "weight" => match weight(request.weight.as_deref().unwrap_or_default()) {
            Ok(weight) => Ok(Change::Weight(weight)),
            Err(why) => Err(Failure::weight(&why)),
        },
        _ => Err(Failure::unknown_verb(verb)),
    }
}

/// `10`, `50%` or `configured`; why not, in words.
pub(super) fn weight(text: &str) -> Result<OrderedWeight, String> {
    let number = |digits: &str, most: u16| {
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|n: &u16| is_number && *n <= most)
    };
    let read = match text.strip_suffix('%') {
        Some(share) => number(share, CHECK_SHARE_MAX).map(OrderedWeight::Percent),
        None if text == "configured" => Some(OrderedWeight::Configured),
        None => number(text, BACKEND_WEIGHT_MAX).map(OrderedWeight::Fixed),
    };
    read.ok_or_else(|| {
        format!(
            "0 to {BACKEND_WEIGHT_MAX}, 0% to {CHECK_SHARE_MAX}% of that of the file, or `configured`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_number_a_share_or_that_of_the_file() {
        let table = [
            ("0", Some(OrderedWeight::Fixed(0))),
            ("256", Some(OrderedWeight::Fixed(256))),
            ("257", None),
            ("0%", Some(OrderedWeight::Percent(0))),
            ("255%", Some(OrderedWeight::Percent(255))),
            ("256%", None),
            ("configured", Some(OrderedWeight::Configured)),
            ("", None),
            ("%", None),
            ("+5", None),
            ("-1", None),
            ("1.5", None),
            ("99999999", None),
        ];
        for (text, expected) in table {
            assert_eq!(weight(text).ok(), expected, "{text}");
        }
    }
}
