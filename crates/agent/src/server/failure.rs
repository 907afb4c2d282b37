//! The answers of the API that are not a success: a status code and a `Problem` in JSON.

use super::names::NameError;
use super::{LoopGone, ReloadRefusal};
use axum::Json;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use buoy_api::{BODY_MAX, ORDER_FOR_MAX, Problem, REASON_MAX};
use buoy_core::OrderError;
use buoy_core::backend_orders::Full;
use buoy_model::Desired;
use buoy_model::limits::BACKEND_ORDERS_MAX;

/// Names of VIPs or nodes repeated in a message.
const NAMES_SHOWN: usize = 10;

/// One refusal.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    problem: Problem,
}

impl Failure {
    fn new(status: StatusCode, code: &str, title: &str, detail: impl Into<String>) -> Self {
        let problem = Problem { code: code.into(), title: title.into(), detail: detail.into() };
        Self { status, problem }
    }

    pub(super) fn unknown_path() -> Self {
        let detail = "see GET /v1/status; the paths are in the documentation of the API";
        Self::new(StatusCode::NOT_FOUND, "unknown_path", "there is no such path", detail)
    }

    pub(super) fn method() -> Self {
        let detail = "GET asks, POST changes";
        let title = "this path does not take this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", title, detail)
    }

    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        let title = "the answer could not be made";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, error.to_string())
    }

    pub(super) fn unknown_vip(vip: &str, desired: &Desired) -> Self {
        let names = desired.groups.iter().map(|group| group.name.as_str()).collect();
        let detail = the_configuration_has(names, "the configuration has no VIP");
        let title = format!("there is no VIP {vip:?}");
        Self::new(StatusCode::NOT_FOUND, "unknown_vip", &title, detail)
    }

    pub(super) fn unknown_node(node: &str, desired: &Desired) -> Self {
        let names = desired.nodes.iter().map(|node| node.name.as_str()).collect();
        let detail = the_configuration_has(names, "the configuration has no node");
        let title = format!("there is no node {node:?}");
        Self::new(StatusCode::NOT_FOUND, "unknown_node", &title, detail)
    }

    pub(super) fn order_for_another(vip: &str, me: &str, owner: &str, command: &str) -> Self {
        let title = format!("{me} does not own {vip}");
        let detail = format!("{owner} does: run on {owner}: {command}");
        Self::new(StatusCode::CONFLICT, "not_owner", &title, detail)
    }

    pub(super) fn no_owner(vip: &str) -> Self {
        let title = format!("nobody owns {vip}");
        let detail = format!("`buoy why {vip}` says why");
        Self::new(StatusCode::CONFLICT, "no_owner", &title, detail)
    }

    pub(super) fn drained(me: &str, reason: &str) -> Self {
        let title = format!("{me} is drained, so it keeps nothing");
        let detail = format!("{reason}; `buoy undrain` puts it back into service");
        Self::new(StatusCode::CONFLICT, "drained", &title, detail)
    }

    pub(super) fn cannot_take(node: &str, vip: &str, reason: &str) -> Self {
        let title = format!("{node} cannot take {vip}");
        Self::new(StatusCode::CONFLICT, "cannot_take", &title, reason)
    }

    pub(super) fn length() -> Self {
        let days = ORDER_FOR_MAX.as_secs() / 86_400;
        let detail = format!("more than nothing and at most {days} days; without it: for good");
        Self::new(StatusCode::BAD_REQUEST, "for", "that is no time to last", detail)
    }

    pub(super) fn not_owner(vip: &str, me: &str, owner: Option<&str>) -> Self {
        let detail = owner.map_or_else(|| "nobody does".into(), |owner| format!("{owner} does"));
        let title = format!("{me} does not own {vip}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_owner", &title, detail)
    }

    pub(super) fn unknown_verb(verb: &str) -> Self {
        let detail = "a backend takes drain, disable, enable, ready and weight";
        let title = format!("{verb:?} is no order");
        Self::new(StatusCode::NOT_FOUND, "unknown_verb", &title, detail)
    }

    pub(super) fn weight(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "weight", "that is no weight", detail)
    }

    pub(super) fn not_of_it(what: &str, verb: &str) -> Self {
        let title = format!("{verb} takes no {what}");
        let detail = "`for_ms` is of drain, `weight` of weight";
        Self::new(StatusCode::BAD_REQUEST, "not_of_it", &title, detail)
    }

    pub(super) fn query(error: &QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "query", "the query is not valid", error.body_text())
    }

    pub(super) fn families() -> Self {
        let detail = "give the client and the VIP as two IPv4 or as two IPv6 addresses";
        Self::new(StatusCode::BAD_REQUEST, "families", "the addresses are of two families", detail)
    }

    pub(super) fn body(error: &BytesRejection) -> Self {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = format!("at most {BODY_MAX} bytes");
            return Self::new(error.status(), "too_large", "the request is too large", detail);
        }
        Self::new(error.status(), "body", "the request cannot be read", error.body_text())
    }

    pub(super) fn json(error: &serde_json::Error) -> Self {
        let title = "the request is not the JSON that this path takes";
        Self::new(StatusCode::BAD_REQUEST, "json", title, error.to_string())
    }

    pub(super) fn reason_too_long() -> Self {
        let detail = format!("at most {REASON_MAX} characters");
        Self::new(StatusCode::BAD_REQUEST, "reason", "the reason is too long", detail)
    }
}

/// What there is instead of a name that is not there.
fn the_configuration_has(mut names: Vec<&str>, none: &str) -> String {
    names.sort_unstable();
    let more = names.len().saturating_sub(NAMES_SHOWN);
    names.truncate(NAMES_SHOWN);
    match (names.is_empty(), more) {
        (true, _) => none.into(),
        (false, 0) => format!("the configuration has {}", names.join(", ")),
        (false, more) => format!("the configuration has {} and {more} more", names.join(", ")),
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        let (status, code) = match &error {
            NameError::Service { .. } => (StatusCode::NOT_FOUND, "unknown_service"),
            NameError::Ambiguous { .. } => (StatusCode::CONFLICT, "ambiguous"),
            NameError::Backend { .. } => (StatusCode::NOT_FOUND, "unknown_backend"),
        };
        let (title, detail) = error.said();
        Self::new(status, code, &title, detail)
    }
}

impl From<Full> for Failure {
    fn from(Full: Full) -> Self {
        let title = "there are too many orders of backends";
        let detail = format!(
            "{BACKEND_ORDERS_MAX} are kept, those that took another back among them; they end when \
             their backends leave the file"
        );
        Self::new(StatusCode::CONFLICT, "too_many_orders", title, detail)
    }
}

impl From<LoopGone> for Failure {
    fn from(gone: LoopGone) -> Self {
        let title = "the agent cannot answer";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "loop_gone", title, gone.to_string())
    }
}

impl From<OrderError> for Failure {
    fn from(error: OrderError) -> Self {
        let title = "the order cannot be followed";
        Self::new(StatusCode::CONFLICT, "cannot_follow", title, error.to_string())
    }
}

impl From<ReloadRefusal> for Failure {
    fn from(refusal: ReloadRefusal) -> Self {
        match refusal {
            ReloadRefusal::Invalid(report) => {
                let title = "the configuration is refused; the running one stays in force";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "config", title, report)
            }
            ReloadRefusal::LoopGone => LoopGone.into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.problem)).into_response()
    }
}
