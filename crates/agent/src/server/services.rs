//! Answers about services, and takes orders of their backends: on any node, for all nodes.

use super::failure::Failure;
use super::orders::{Body, Reason, length, parsed};
use super::stream::Asked;
use super::{Agent, Asker, Snapshot, names, wall_clock};
use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use axum::response::Response;
use buoy_api::{
    BackendOrderReply, BackendOrderRequest, FlowsReply, ServiceReply, ServicesReply, Words,
    haproxy_name, ordered_view, service_name,
};
use buoy_core::backend_orders::Change;
use buoy_model::limits::{BACKEND_WEIGHT_MAX, CHECK_SHARE_MAX};
use buoy_model::{BackendId, Duty, Group, OrderedWeight, Service};
use std::sync::Arc;

pub(super) async fn all<A: Agent>(
    State(agent): State<Arc<A>>,
    asked: Asked,
) -> Result<Response, Failure> {
    asked.answer(agent, "services", listed).await
}

async fn listed<A: Agent>(agent: Arc<A>) -> Result<ServicesReply, Failure> {
    let snapshot = Snapshot::of(&*agent, 0).await?;
    let mut services: Vec<ServiceReply> =
        names::services(&snapshot.desired).map(|(g, s)| shown(&snapshot, g, s)).collect();
    services.sort_by(|a, b| (&a.vip, &a.addresses).cmp(&(&b.vip, &b.addresses)));
    let node = snapshot.desired.node_name(snapshot.desired.me).into();
    Ok(ServicesReply { node, revision: snapshot.revision, services })
}

pub(super) async fn one<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(service): Path<String>,
) -> Result<Json<ServiceReply>, Failure> {
    let snapshot = Snapshot::of(&*agent, 0).await?;
    let (group, service) = names::service(&snapshot.desired, &service)?;
    Ok(Json(shown(&snapshot, group, service)))
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
    Path((service, backend)): Path<(String, String)>,
) -> Result<Json<FlowsReply>, Failure> {
    let desired = agent.desired();
    let (group, service) = names::service(&desired, &service)?;
    let name = names::backend((group, service), &backend)?.name.clone();
    let reports = agent.services();
    let report = reports.into_iter().find(|r| {
        (r.group, r.protocol, r.ports, Some(&r.address))
            == (group.id, service.protocol, service.ports, service.addresses.first())
    });
    let flows = agent.flows(&BackendId::of(service, &name)).await.unwrap_or_default();
    Ok(Json(FlowsReply {
        node: desired.node_name(desired.me).into(),
        service: service_name(group, service),
        backend: name,
        engine: report.map_or_else(String::new, |report| report.engine),
        flows,
    }))
}

pub(super) async fn order<A: Agent>(
    State(agent): State<Arc<A>>,
    Path((service, backend, verb)): Path<(String, String, String)>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    body: Body,
) -> Result<Json<BackendOrderReply>, Failure> {
    let request: BackendOrderRequest = parsed(body)?;
    let reason = Reason::of(request.reason.as_deref(), &asker)?.recorded;
    let desired = agent.desired();
    let (group, service) = names::service(&desired, &service)?;
    let change = change(&verb, &request)?;
    let name = names::backend((group, service), &backend)?.name.clone();
    let given = agent.order_backend(BackendId::of(service, &name), change, reason).await?;
    Ok(Json(BackendOrderReply {
        node: desired.node_name(desired.me).into(),
        service: service_name(group, service),
        backend: name,
        order: ordered_view(&Words::new(&desired), &given, wall_clock()),
    }))
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
