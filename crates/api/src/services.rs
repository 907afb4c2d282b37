//! Services and what is ordered of their backends, exactly as it travels in JSON, and what they are called.

use crate::status::{BackendView, ServiceView};
use crate::view::ServiceReport;
use crate::words::{self, Words};
use buoy_model::{BackendId, BackendOrder, Duty, Group, OrderedWeight, Service};
use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// The answer to `GET /v1/services`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct ServicesReply {
    /// The node that answers.
    pub node: String,
    /// As in the status.
    pub revision: u64,
    /// All services, in the order of VIPs.
    pub services: Vec<ServiceReply>,
    /// What to name as `after` for the rest, where `limit` has left one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The answer to `GET /v1/services/{service}`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct ServiceReply {
    /// The node that answers.
    pub node: String,
    /// The name of the VIP, or of its group.
    pub vip: String,
    /// The addresses that it listens on.
    pub addresses: Vec<String>,
    /// What HAProxy's commands call it, as in `web:443-tcp`.
    pub haproxy: String,
    /// The service itself.
    pub service: ServiceView,
}

/// What holds for a backend by order of an operator.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct OrderedView {
    /// `configured`, `ready`, `drain` or `maint`.
    pub duty: String,
    /// `10` or `50%`; null: as the file and the backend's agent say.
    pub weight: Option<String>,
    /// When a drain cuts what is left, in milliseconds since 1970; null: never.
    pub until: Option<u64>,
    /// Who ordered it, and why.
    pub reason: String,
    /// The node that was told.
    pub node: String,
    /// When, in milliseconds since 1970 by that node's clock.
    pub at: u64,
    /// All of this for people.
    pub sentence: String,
}

/// The body of `POST /v1/services/{service}/backends/{backend}/drain`, `disable`, `enable`, `ready` and
/// `weight`; may be empty but for `weight`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendOrderRequest {
    /// For the record and for `buoy why`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub reason: Option<String>,
    /// Of a drain: after so long what is left is cut; absent: never.
    #[serde(default, deserialize_with = "crate::whole", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31_536_000_000_u64)]
    pub for_ms: Option<u64>,
    /// Of a weight: `10`, `50%` or `configured`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = "^(configured|25[0-6]|(2[0-4]|1?[0-9])?[0-9]|(25[0-5]|(2[0-4]|1?[0-9])?[0-9])%)$"
    )]
    pub weight: Option<String>,
}

/// The answer: the order was taken, and holds on this node. The others follow.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct BackendOrderReply {
    /// The node that answers.
    pub node: String,
    /// The service's name.
    pub service: String,
    /// The backend's name.
    pub backend: String,
    /// All that holds for it now; of a dry run, that would hold.
    pub order: OrderedView,
    /// Nothing was done: it was only asked what would be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// `GET /v1/backends`: every backend of every service.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct BackendsReply {
    /// The node that answers.
    pub node: String,
    /// As in the status.
    pub revision: u64,
    /// All of them, in the order of services.
    pub backends: Vec<BackendReply>,
    /// What to name as `after` for the rest, where `limit` has left one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET /v1/services/{service}/backends/{backend}`: one backend.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct BackendReply {
    /// The VIP, or its group.
    pub vip: String,
    /// The service.
    pub service: String,
    /// The backend.
    pub backend: BackendView,
    /// Of what is ordered of it, for `If-Match`.
    pub etag: String,
}

/// The answer to `GET /v1/services/{service}/flows`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct ServiceFlowsReply {
    /// The node that answers.
    pub node: String,
    /// The service's name.
    pub service: String,
    /// What forwards the service here.
    pub engine: String,
    /// Its backends, in the order of the configuration.
    pub backends: Vec<BackendFlows>,
}

/// One backend of them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct BackendFlows {
    /// The backend's name.
    pub backend: String,
    /// What is known of its connections.
    pub flows: FlowsView,
}

/// The answer to `GET /v1/services/{service}/backends/{backend}/flows`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct FlowsReply {
    /// The node that answers.
    pub node: String,
    /// The service's name.
    pub service: String,
    /// The backend's name.
    pub backend: String,
    /// What forwards the service here.
    pub engine: String,
    /// What is known of its connections.
    pub flows: FlowsView,
}

/// What the answering node knows of a backend's connections; null: its engine does not know.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct FlowsView {
    /// Connections, or sessions of UDP, that are open now.
    pub open: Option<u64>,
    /// Those that were opened since the engine began to count.
    pub opened: Option<u64>,
    /// Packets of clients.
    pub packets: Option<u64>,
    /// Bytes from clients.
    pub bytes: Option<u64>,
    /// Bytes to clients.
    pub bytes_back: Option<u64>,
    /// Where the numbers come from, and what they leave out.
    pub source: String,
}

/// What commands call a service, as in `web:443/tcp`.
pub fn service_name(group: &Group, service: &Service) -> String {
    format!("{}:{}/{}", vip_name(group, service), service.ports, service.protocol.name())
}

/// What HAProxy's commands call it, as in `web:443-tcp`: a slash parts a service from its server there.
pub fn haproxy_name(group: &Group, service: &Service) -> String {
    service_name(group, service).replace('/', "-")
}

fn vip_name(group: &Group, service: &Service) -> String {
    let name = match group.vip_of(service) {
        Some(name) if !name.is_empty() => name,
        Some(_) | None => &group.name,
    };
    if name.parse::<Ipv6Addr>().is_ok() { format!("[{name}]") } else { name.to_owned() }
}

impl Words<'_> {
    /// As in `web1 of web:443/tcp`.
    pub fn backend(&self, id: &BackendId) -> String {
        let is_it = |service: &Service| BackendId::of(service, &id.name) == *id;
        let all = self.desired().groups.iter().flat_map(|g| g.services.iter().map(move |s| (g, s)));
        let service = all.into_iter().find(|(_, service)| is_it(service)).map_or_else(
            || format!("{}:{}/{}", id.address, id.ports, id.protocol.name()),
            |(group, service)| service_name(group, service),
        );
        format!("{} of {service}", id.name)
    }

    /// All that holds for a backend by an order, as a sentence.
    pub fn ordered(&self, order: &BackendOrder) -> String {
        format!("{} {}", self.backend(&order.backend), self.order(order))
    }

    /// The same without its name.
    pub fn order(&self, order: &BackendOrder) -> String {
        let at = order.version.micros / 1000;
        let duty = match (order.duty, order.weight) {
            (Duty::Configured, OrderedWeight::Configured) => "is as configured".to_owned(),
            (Duty::Configured, _) => String::new(),
            (Duty::Ready, _) => "takes connections while its checks pass".into(),
            (Duty::Drain { until: None }, _) => "takes no new connections".into(),
            (Duty::Drain { until: Some(until) }, _) => {
                let time = Duration::from_millis(until.saturating_sub(at));
                format!("takes no new connections, and has none after {}", words::written(time))
            }
            (Duty::Maint, _) => "is in maintenance: no connections, no checks".into(),
        };
        let weight = match order.weight {
            OrderedWeight::Configured => String::new(),
            OrderedWeight::Fixed(weight) => format!("has weight {weight}"),
            OrderedWeight::Percent(share) => format!("has {share} % of its weight"),
        };
        let both = if duty.is_empty() || weight.is_empty() { "" } else { ", and " };
        let node = self.node(order.version.node);
        format!("{duty}{both}{weight} by order: {}, on {node}", order.reason)
    }
}

/// What holds for a backend, at a moment in milliseconds since 1970.
pub fn ordered_view(words: &Words<'_>, order: &BackendOrder, now: u64) -> OrderedView {
    let (duty, until) = match order.duty {
        Duty::Configured => ("configured", None),
        Duty::Ready => ("ready", None),
        Duty::Drain { until } => ("drain", until),
        Duty::Maint => ("maint", None),
    };
    let over = until.is_some_and(|until| until <= now);
    let sentence = words.order(order);
    OrderedView {
        duty: duty.into(),
        weight: match order.weight {
            OrderedWeight::Configured => None,
            OrderedWeight::Fixed(weight) => Some(weight.to_string()),
            OrderedWeight::Percent(share) => Some(format!("{share}%")),
        },
        until,
        reason: order.reason.clone(),
        node: words.node(order.version.node),
        at: order.version.micros / 1000,
        sentence: if over { format!("{sentence} (its time is over)") } else { sentence },
    }
}

/// The tag of a backend: what is ordered of it, by when and where that was.
pub fn backend_tag(order: Option<&BackendOrder>) -> String {
    match order.map(|order| order.version) {
        Some(version) => format!("\"{:x}-{:08x}\"", version.micros, version.node.0),
        None => "\"0\"".into(),
    }
}

/// What is ordered of a backend, by the report of its service.
pub fn ordered_in(reports: &[Arc<ServiceReport>], backend: &BackendId) -> Option<BackendOrder> {
    let report = reports.iter().find(|report| {
        (report.protocol, report.ports, report.address)
            == (backend.protocol, backend.ports, backend.address)
    })?;
    report.backends.iter().find(|known| known.name == backend.name)?.order.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_model::{Desired, Node, NodeId, OrderVersion, Ports, Protocol};

    fn desired() -> Desired {
        let _beat = Duration::from_millis(10);
        Desired::new(
            "test",
            NodeId::of("lb2"),
            vec![Node::new("lb1", ([10, 0, 0, 11], 4747).into())],
            vec![],
        )
    }

    #[test]
    fn an_order_is_a_sentence_with_who_gave_it_and_where() {
        let desired = desired();
        let words = Words::new(&desired);
        let order = |duty, weight| BackendOrder {
            backend: BackendId {
                address: [10, 0, 0, 100].into(),
                protocol: Protocol::Tcp,
                ports: Ports::one(443),
                name: "web1".into(),
            },
            duty,
            weight,
            version: OrderVersion { micros: 5_000_000, node: NodeId::of("lb1") },
            reason: "patching (by ann)".into(),
        };
        let timed = Duty::Drain { until: Some(605_000) };
        let configured = OrderedWeight::Configured;
        let table = [
            (Duty::Configured, configured, "is as configured"),
            (Duty::Ready, configured, "takes connections while its checks pass"),
            (Duty::Drain { until: None }, configured, "takes no new connections"),
            (timed, configured, "takes no new connections, and has none after 10m"),
            (Duty::Maint, configured, "is in maintenance: no connections, no checks"),
            (Duty::Configured, OrderedWeight::Fixed(7), "has weight 7"),
            (
                Duty::Ready,
                OrderedWeight::Percent(50),
                "takes connections while its checks pass, and has 50 % of its weight",
            ),
        ];
        for (duty, weight, said) in table {
            let by = "by order: patching (by ann), on lb1";
            let order = order(duty, weight);
            assert_eq!(
                words.ordered(&order),
                format!("web1 of 10.0.0.100:443/tcp {said} {by}"),
                "a service that is gone is its address"
            );
            let view = ordered_view(&words, &order, 604_999);
            assert_eq!(view.sentence, format!("{said} {by}"));
            assert_eq!((view.node.as_str(), view.at), ("lb1", 5_000));
        }
        let over = ordered_view(&words, &order(timed, configured), 605_000);
        assert!(over.sentence.ends_with("on lb1 (its time is over)"), "{}", over.sentence);
        assert_eq!((over.duty.as_str(), over.until), ("drain", Some(605_000)));
    }
}
