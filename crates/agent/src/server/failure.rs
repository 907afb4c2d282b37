//! The answers of the API that are not a success: a status code and a `Problem` (RFC 9457).

use super::names::NameError;
use super::{LoopGone, ReloadRefusal};
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use buoy_api::{BODY_MAX, ConfigProblem, ORDER_FOR_MAX, PROBLEM_TYPE, Problem, REASON_MAX, Span};
use buoy_config::{Report, Severity};
use buoy_core::OrderError;
use buoy_core::backend_orders::Full;
use buoy_model::Desired;
use buoy_model::limits::BACKEND_ORDERS_MAX;
use std::time::Duration;

/// Names of VIPs or nodes repeated in a message.
const NAMES_SHOWN: usize = 10;

/// Seconds after which an agent that is too busy may be asked again.
const BUSY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// One refusal.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    problem: Box<Problem>,
    /// Of what is there now.
    tag: Option<HeaderValue>,
}

impl Failure {
    /// A refusal with the stable word of its kind. What to do about it is its `fix`.
    pub(super) fn new(
        status: StatusCode,
        code: &str,
        title: &str,
        detail: impl Into<String>,
    ) -> Self {
        let problem = Box::new(Problem::new(status.as_u16(), code, title, detail));
        Self { status, problem, tag: None }
    }

    /// The same with what to do about it.
    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.problem.fix = Some(fix.into());
        self
    }

    /// What is said.
    pub(super) fn problem(&self) -> &Problem {
        &self.problem
    }

    pub(super) fn unknown_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_path", "there is no such path", "")
            .fix("see GET /v1/status; the paths are in the documentation of the API")
    }

    /// A path that nobody means: it would be another one for some proxy on the way.
    pub(super) fn path(detail: &str) -> Self {
        let title = "the path is not one of this API";
        Self::new(StatusCode::BAD_REQUEST, "path", title, detail)
            .fix("write each name as one segment, with what has a meaning in a URL as %XX")
    }

    pub(super) fn method() -> Self {
        let title = "this path does not take this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", title, "")
            .fix("GET asks, POST changes; `allow` has those that there are")
    }

    pub(super) fn depth(most: usize) -> Self {
        let detail = format!("at most {most} levels");
        Self::new(StatusCode::BAD_REQUEST, "depth", "the JSON is nested too deep", detail)
    }

    pub(super) fn head(most: usize) -> Self {
        let title = "the head of the request is too large";
        let detail = format!("at most {most} bytes");
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head", title, detail)
    }

    pub(super) fn slow_body(limit: Duration) -> Self {
        let title = "the request did not arrive in time";
        let detail = format!("all of it within {} s", limit.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow", title, detail)
    }

    pub(super) fn timeout(limit: Duration) -> Self {
        let title = "the agent did not come to an answer";
        let detail = format!("within {} s", limit.as_secs());
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", title, detail)
            .fix("its log says why (journalctl -u buoy)")
    }

    pub(super) fn watchers(most: usize) -> Self {
        let title = "too many wait for news already";
        let detail = format!("at most {most} at the same time");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "watchers", title, detail)
            .fix("ask again later, or without `wait` and not for a stream")
    }

    /// Somebody was faster, or the client looked at something else.
    /// The same with the tag of what holds instead.
    pub(super) fn tag(mut self, tag: &str) -> Self {
        self.tag = HeaderValue::from_str(tag).ok();
        self
    }

    pub(super) fn precondition(tag: &str) -> Self {
        let title = "it is not what `If-Match` says any more";
        let detail = format!("its tag is {tag} now");
        let failure = Self::new(StatusCode::PRECONDITION_FAILED, "precondition", title, detail)
            .fix("read it again, decide again, and send the tag that was read");
        Self { tag: HeaderValue::from_str(tag).ok(), ..failure }
    }

    pub(super) fn if_match() -> Self {
        let title = "`If-Match` is not a list of entity tags";
        Self::new(StatusCode::BAD_REQUEST, "if_match", title, "")
            .fix("send the `etag` of the last answer with its quotes, or *")
    }

    /// A change that only the node itself can make.
    pub(super) fn another_node(node: &str, me: &str, command: &str) -> Self {
        let title = format!("this is {me}, and only {node} itself can do that");
        Self::new(StatusCode::MISDIRECTED_REQUEST, "another_node", &title, "")
            .fix(format!("ask the agent of {node}, or run there: {command}"))
    }

    pub(super) fn bad_query(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "query", "the query is not valid", detail)
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
        Self::new(StatusCode::CONFLICT, "not_owner", &title, format!("{owner} does"))
            .fix(format!("run on {owner}: {command}"))
    }

    pub(super) fn no_owner(vip: &str) -> Self {
        let title = format!("nobody owns {vip}");
        Self::new(StatusCode::CONFLICT, "no_owner", &title, "")
            .fix(format!("`buoy why {vip}` says why"))
    }

    pub(super) fn drained(me: &str, reason: &str) -> Self {
        let title = format!("{me} is drained, so it keeps nothing");
        Self::new(StatusCode::CONFLICT, "drained", &title, reason)
            .fix("`buoy undrain` puts it back into service")
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

    pub(super) fn nothing_asked(fix: &str) -> Self {
        let title = "the request asks for nothing";
        Self::new(StatusCode::BAD_REQUEST, "nothing", title, "").fix(fix)
    }

    pub(super) fn two_orders() -> Self {
        let title = "the request asks for two things at once";
        Self::new(StatusCode::BAD_REQUEST, "two_orders", title, "")
            .fix("send `drain` and `cordon` one after the other")
    }

    pub(super) fn not_of_it(what: &str, verb: &str) -> Self {
        let title = format!("{verb} takes no {what}");
        let detail = "`for_ms` is of drain, `weight` of weight";
        Self::new(StatusCode::BAD_REQUEST, "not_of_it", &title, detail)
    }

    pub(super) fn query(error: &QueryRejection) -> Self {
        Self::bad_query(error.body_text())
    }

    pub(super) fn families() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "families", "the addresses are of two families", "")
            .fix("give the client and the VIP as two IPv4 or as two IPv6 addresses")
    }

    pub(super) fn body(error: &BytesRejection) -> Self {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Self::too_large();
        }
        Self::new(error.status(), "body", "the request cannot be read", error.body_text())
    }

    pub(super) fn too_large() -> Self {
        let detail = format!("at most {BODY_MAX} bytes");
        let title = "the request is too large";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", title, detail)
    }

    pub(super) fn broken_body(error: &dyn std::fmt::Display) -> Self {
        let title = "the request cannot be read";
        Self::new(StatusCode::BAD_REQUEST, "body", title, error.to_string())
    }

    pub(super) fn json(error: &serde_json::Error) -> Self {
        let title = "the request is not the JSON that this path takes";
        Self::new(StatusCode::BAD_REQUEST, "json", title, error.to_string())
    }

    pub(super) fn no_object(wanted: &str) -> Self {
        let title = "the request is not the JSON that this path takes";
        Self::new(StatusCode::BAD_REQUEST, "json", title, wanted)
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
            ReloadRefusal::File(report) => Self::file(&report),
            ReloadRefusal::LoopGone => LoopGone.into(),
        }
    }
}

impl Failure {
    /// A configuration with errors: the whole report for people, and each of its problems for programs.
    pub(super) fn file(report: &Report) -> Self {
        let title = "the configuration is refused; the running one stays in force";
        let mut failure =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "config", title, report.render(100, false));
        let first = report.problems().iter().find(|p| p.severity == Severity::Error);
        failure.problem.fix = first.map(|first| first.fix.clone());
        failure.problem.span = first.map(|p| Span { line: p.line, column: p.column });
        failure.problem.problems = report.problems().iter().map(config_problem).collect();
        failure
    }
}

/// A problem of a configuration as the API tells it.
pub(crate) fn config_problem(problem: &buoy_config::Problem) -> ConfigProblem {
    ConfigProblem {
        code: problem.code.id().into(),
        severity: problem.severity.name().into(),
        message: problem.message.clone(),
        reason: problem.reason.clone(),
        fix: problem.fix.clone(),
        span: Span { line: problem.line, column: problem.column },
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let kind = [(CONTENT_TYPE, PROBLEM_TYPE), (CACHE_CONTROL, "no-store")];
        let mut response = (self.status, kind, body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE && self.problem.code == "watchers" {
            response.headers_mut().insert(RETRY_AFTER, BUSY_SECONDS);
        }
        if let Some(tag) = self.tag {
            response.headers_mut().insert(ETAG, tag);
        }
        response
    }
}
