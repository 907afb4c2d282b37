//! Answers where a packet of a client would go: the real program is asked.

use super::Agent;
use super::failure::Failure;
use super::openapi::Operation;
use crate::forward::Traced;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use buoy_api::{PathReply, WayView};
use buoy_kernel::fast::{Drop, Fate, Packet};
use buoy_model::{Desired, Forward, Group, Mode, Protocol, Service, SourceAddress};
use serde::Deserialize;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;

#[derive(Deserialize)]
pub(super) struct Asked {
    from: SocketAddr,
    to: SocketAddr,
    #[serde(default)]
    protocol: AskedProtocol,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AskedProtocol {
    #[default]
    Tcp,
    Udp,
}

pub(super) fn operations() -> Vec<Operation> {
    let address = || json!({ "type": "string", "examples": ["10.0.0.100:443"] });
    let required = |name: &str, what: &str| json!({ "name": name, "in": "query", "required": true, "schema": address(), "description": what });
    vec![
        Operation::new("get", "/v1/path", "path", "Where a packet of that client would go.")
            .parameter(required("from", "The client's address and port."))
            .parameter(required("to", "The VIP's address and port."))
            .query(
                "protocol",
                json!({ "type": "string", "enum": ["tcp", "udp"] }),
                "`tcp` unless it is said.",
            )
            .answers::<PathReply>(),
    ]
}

pub(super) async fn path<A: Agent>(
    State(agent): State<Arc<A>>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<PathReply>, Failure> {
    let Query(Asked { from, to, protocol }) = query.map_err(|error| Failure::query(&error))?;
    if from.is_ipv4() != to.is_ipv4() {
        return Err(Failure::families());
    }
    let protocol = match protocol {
        AskedProtocol::Tcp => Protocol::Tcp,
        AskedProtocol::Udp => Protocol::Udp,
    };
    let desired = agent.desired();
    let found = found(&desired, to, protocol);
    let group = desired.groups.iter().find(|g| has(g, to));
    let report = found.and_then(|(group, service)| {
        agent
            .services(None)
            .into_iter()
            .find(|r| (r.group, r.protocol, r.ports) == (group.id, service.protocol, service.ports))
    });
    let engine = report.map_or_else(String::new, |report| report.engine.clone());
    let ways = match found {
        Some((_, service)) if matches!(service.mode, Mode::Xdp { .. }) => {
            by_xdp(&*agent, service, Packet { from, to, protocol, opens: false }).await
        }
        Some((_, service)) if !service.sources.allows(from.ip()) => vec![any("dropped", DENIED)],
        Some((_, service)) => vec![elsewhere(service)],
        None => vec![any("passed", "no service has this address and port: the kernel has it")],
    };
    Ok(Json(PathReply {
        node: desired.node_name(desired.me).into(),
        from: from.to_string(),
        to: to.to_string(),
        protocol: protocol.name().into(),
        vip: group.map(|group| group.name.clone()),
        engine,
        ways,
    }))
}

fn has(group: &Group, to: SocketAddr) -> bool {
    group.addresses.iter().any(|address| address.cidr.address() == to.ip())
}

fn found(desired: &Desired, to: SocketAddr, protocol: Protocol) -> Option<(&Group, &Service)> {
    let all = desired.groups.iter().flat_map(|g| g.services.iter().map(move |s| (g, s)));
    let has_port = all.filter(|(_, service)| {
        service.addresses.contains(&to.ip())
            && service.protocol == protocol
            && service.ports.contains(to.port())
    });
    has_port.min_by_key(|(_, service)| service.ports.distance())
}

fn any(verdict: &str, reason: &str) -> WayView {
    let of = "any packet".into();
    WayView { of, verdict: verdict.into(), backend: None, reason: reason.into() }
}

/// Who decides in other engines cannot be asked without a real packet.
fn elsewhere(service: &Service) -> WayView {
    let names: Vec<&str> = service.backends.iter().map(|b| b.name.as_str()).collect();
    let reason = format!("one of {}; only mode \"xdp\" can say which", names.join(", "));
    any("unknown", &reason)
}

async fn by_xdp<A: Agent>(agent: &A, service: &Service, packet: Packet) -> Vec<WayView> {
    let old = way(service, agent.trace(packet).await);
    match packet.protocol {
        Protocol::Udp => vec![WayView { of: "a datagram".into(), ..old }],
        Protocol::Tcp => {
            let new = way(service, agent.trace(Packet { opens: true, ..packet }).await);
            if new == old {
                return vec![WayView { of: "any connection".into(), ..old }];
            }
            vec![
                WayView { of: "a new connection".into(), ..new },
                WayView { of: "an open connection".into(), ..old },
            ]
        }
    }
}

/// Said of a client that the service is not there for.
const DENIED: &str = "`allow` and `deny` of the service do not let this client in";

const fn why_dropped(reason: Drop) -> &'static str {
    match reason {
        Drop::NoBackend => "no backend takes it",
        Drop::NoNeighbour => "its backend cannot be reached; `buoy status` names it, and why",
        Drop::TooBig => "it does not fit the MTU on the way to its backend",
        Drop::TimeToLive => "its time to live is over",
        Drop::NoRoom => "the interface leaves no room for another header, or its MTU is below 150",
        Drop::Source => DENIED,
        Drop::Limit => "this client opens more connections than `new_connections` lets it",
        Drop::NoPort => "no port of its `source` addresses is free",
        Drop::Truncated | Drop::IpHeader | Drop::TcpHeader | Drop::UdpHeader | Drop::Icmp => {
            "it is malformed"
        }
    }
}

fn way(service: &Service, traced: Result<Traced, String>) -> WayView {
    let Traced { fate, backend, link } = match traced {
        Ok(traced) => traced,
        Err(reason) => {
            return any("unknown", &format!("the XDP program cannot be asked: {reason}"));
        }
    };
    let (mac, to, port) = match fate {
        Fate::Passed if service.source != SourceAddress::Client => {
            let how = "it has no port of the `source` addresses: the kernel resets it";
            return any("passed", how);
        }
        Fate::Passed if matches!(service.mode, Mode::Xdp { forward: Forward::Local, .. }) => {
            return any("passed", "whoever owns the VIP takes it itself");
        }
        Fate::Passed => return any("passed", "the program leaves it to the kernel"),
        Fate::Dropped(None) => return any("dropped", "the program does not say why"),
        Fate::Dropped(Some(reason)) => {
            return any("dropped", why_dropped(reason));
        }
        Fate::Sent { mac, to, port } => (mac, to, port),
    };
    let how = match service.mode {
        Mode::Xdp { forward: Forward::Gue { port }, .. } => {
            format!("in a UDP packet (GUE) to {}", SocketAddr::new(to, port))
        }
        Mode::Xdp { forward: Forward::Tunnel, .. } => format!("in an IP packet to {to}"),
        Mode::Xdp { forward: Forward::Nat, .. } => {
            let to = port.map_or_else(|| to.to_string(), |p| SocketAddr::new(to, p).to_string());
            format!("with the destination {to}")
        }
        Mode::Xdp { forward: Forward::Dsr | Forward::Local, .. } | Mode::Kernel | Mode::Proxy => {
            "as it is".into()
        }
    };
    let by = link.map_or_else(String::new, |link| format!(" by {link}"));
    let is_it = |b: &&buoy_model::Backend| Some(b.address) == backend;
    WayView {
        of: String::new(),
        verdict: "sent".into(),
        backend: service.backends.iter().find(is_it).map(|b| b.name.clone()),
        reason: format!("{how}, to the Ethernet address {mac}{by}"),
    }
}
