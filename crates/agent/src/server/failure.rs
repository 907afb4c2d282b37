//! The answers of the API that are not a success: a status code and a `Problem` in JSON.

use super::{LoopGone, ReloadRefusal};
use axum::Json;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use buoy_api::{BODY_MAX, Problem, REASON_MAX};
use buoy_model::Desired;

/// Names of VIPs repeated in a message.
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

    pub(super) fn unknown_vip(vip: &str, desired: &Desired) -> Self {
        let mut names: Vec<_> = desired.groups.iter().map(|group| group.name.as_str()).collect();
        names.sort_unstable();
        let more = names.len().saturating_sub(NAMES_SHOWN);
        names.truncate(NAMES_SHOWN);
        let detail = match (names.is_empty(), more) {
            (true, _) => "the configuration has no VIP".into(),
            (false, 0) => format!("the configuration has {}", names.join(", ")),
            (false, more) => format!("the configuration has {} and {more} more", names.join(", ")),
        };
        let title = format!("there is no VIP {vip:?}");
        Self::new(StatusCode::NOT_FOUND, "unknown_vip", &title, detail)
    }

    pub(super) fn not_owner(vip: &str, me: &str, owner: Option<&str>) -> Self {
        let detail = owner.map_or_else(|| "nobody does".into(), |owner| format!("{owner} does"));
        let title = format!("{me} does not own {vip}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_owner", &title, detail)
    }

    pub(super) fn query(error: &QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "query", "the query is not valid", error.body_text())
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

impl From<LoopGone> for Failure {
    fn from(gone: LoopGone) -> Self {
        let title = "the agent cannot answer";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "loop_gone", title, gone.to_string())
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
