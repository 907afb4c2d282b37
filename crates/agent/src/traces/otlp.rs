//! What a collector is told of takeovers: OTLP in its JSON form, with ids as hexadecimal digits and 64-bit numbers as texts.
//!
//! JSON and not protobuf: the crates for that would weigh more than all that is said here, and every collector takes both.

use buoy_model::Desired;
use serde::Serialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `SPAN_KIND_INTERNAL`.
const INTERNAL: u8 = 1;
/// Random bytes of one takeover: the id of its trace, and of six spans at most.
const RANDOM_LEN: usize = 16 + 6 * 8;

/// A takeover of this node.
#[derive(Clone, Debug)]
pub(super) struct Takeover {
    pub(super) vip: String,
    /// Who had it, if that is known.
    pub(super) from: Option<String>,
    pub(super) epoch: u32,
    pub(super) reason: String,
    /// When this node decided to want it.
    pub(super) wanted: SystemTime,
}

/// How it went on: each counted from when it was wanted, but `detect`, which ended then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phases {
    pub(super) detect: Duration,
    pub(super) decide: Duration,
    pub(super) address: Duration,
    pub(super) announce: Duration,
    pub(super) first_packet: Option<Duration>,
}

/// The body of `POST /v1/traces`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    resource_spans: [ResourceSpans; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans {
    resource: Resource,
    scope_spans: [ScopeSpans; 1],
}

#[derive(Debug, Serialize)]
struct Resource {
    attributes: Vec<Attribute>,
}

#[derive(Debug, Serialize)]
struct ScopeSpans {
    scope: Scope,
    spans: Vec<Span>,
}

#[derive(Debug, Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: &'static str,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute>,
}

#[derive(Debug, Serialize)]
struct Attribute {
    key: &'static str,
    value: Value,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Value {
    StringValue(String),
    IntValue(String),
}

/// All of them as one request.
pub(super) fn request(
    desired: &Desired,
    host: &str,
    takeovers: &[(Takeover, Phases)],
) -> Result<Vec<u8>, String> {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let me = desired.node_name(desired.me);
    let attributes = vec![
        text("service.name", "buoy"),
        text("service.version", VERSION),
        text("service.namespace", &desired.cluster_name),
        text("service.instance.id", me),
        text("host.name", host),
    ];
    let mut spans = Vec::new();
    for (takeover, phases) in takeovers {
        spans.extend(spans_of(takeover, *phases, me)?);
    }
    let scope = Scope { name: "buoy.failover", version: VERSION };
    let scope_spans = [ScopeSpans { scope, spans }];
    let resource_spans = [ResourceSpans { resource: Resource { attributes }, scope_spans }];
    serde_json::to_vec(&Request { resource_spans }).map_err(|error| error.to_string())
}

/// The whole, and below it the phases that there were.
fn spans_of(takeover: &Takeover, phases: Phases, me: &str) -> Result<Vec<Span>, String> {
    let mut random = [0; RANDOM_LEN];
    getrandom::fill(&mut random).map_err(|error| format!("no random numbers: {error}"))?;
    let (trace, rest) = random.split_at(16);
    let (trace, mut ids) = (hex(trace), rest.chunks(8).map(hex));
    let root = ids.next().unwrap_or_default();
    let Phases { detect, decide, address, announce, first_packet } = phases;
    let wanted = takeover.wanted.duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = wanted.saturating_sub(detect);
    let decided = wanted + decide;
    // The address and its announcement go out side by side, once the votes are there.
    let children = [
        (!detect.is_zero()).then_some(("detect", start, wanted)),
        Some(("decide", wanted, decided)),
        Some(("address", decided, wanted + address)),
        Some(("announce", decided, wanted + announce)),
        first_packet.map(|took| ("first_packet", decided, wanted + took)),
    ];
    let children: Vec<_> = children.into_iter().flatten().collect();
    let end = children.iter().map(|(_, _, end)| *end).max().unwrap_or(decided);
    let span = |name, parent: Option<&String>, id, start: Duration, end: Duration| Span {
        trace_id: trace.clone(),
        span_id: id,
        parent_span_id: parent.cloned(),
        name,
        kind: INTERNAL,
        start_time_unix_nano: start.as_nanos().to_string(),
        end_time_unix_nano: end.as_nanos().to_string(),
        attributes: Vec::new(),
    };
    let whole = span("failover", None, root.clone(), start, end);
    let mut spans = vec![Span { attributes: attributes(takeover, me), ..whole }];
    let below = children.into_iter().zip(ids);
    spans.extend(below.map(|((name, start, end), id)| span(name, Some(&root), id, start, end)));
    Ok(spans)
}

fn attributes(takeover: &Takeover, me: &str) -> Vec<Attribute> {
    let epoch = Value::IntValue(takeover.epoch.to_string());
    let mut attributes = vec![
        text("buoy.vip", &takeover.vip),
        text("buoy.to", me),
        Attribute { key: "buoy.epoch", value: epoch },
        text("buoy.reason", &takeover.reason),
    ];
    attributes.extend(takeover.from.as_deref().map(|from| text("buoy.from", from)));
    attributes
}

fn text(key: &'static str, value: &str) -> Attribute {
    Attribute { key, value: Value::StringValue(value.to_owned()) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
