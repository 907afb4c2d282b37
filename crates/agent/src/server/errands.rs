//! Passes an order on to the node that it is about, and does those that other nodes pass on.
//!
//! It goes as the same request of this API over the connections by which the nodes agree on edits, which only holders of
//! the cluster's key can open, and is answered by the routes that answer everybody. Who asked goes with it, and stands in
//! the records there. It is passed on once: where it arrives it is done or refused.

use super::failure::Failure;
use super::write::{Write, tagged};
use super::{Agent, Asker, router};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use buoy_api::{BODY_MAX, PROBLEM_TYPE};
use buoy_config::Role;
use buoy_store::{Arrived, Done, Errand, Lost};
use http_body_util::{BodyExt as _, Limited};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::mpsc;

/// An order as a request.
pub(super) struct Passed<'a, T> {
    /// The node that it is about.
    pub(super) to: &'a str,
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: &'a T,
}

/// The answer of the node that the order is about; `refusal` where there is no way to it.
pub(super) async fn pass_on<A: Agent, T: Serialize + Sync>(
    agent: &A,
    asker: &Asker,
    write: &Write,
    Passed { to, method, path, body }: Passed<'_, T>,
    refusal: Failure,
) -> Result<Response, Failure> {
    let Some(role) = asker.passes_on() else { return Err(refusal) };
    let target = if write.dry_run { format!("{path}?dry_run=1") } else { path };
    let body = serde_json::to_string(body).map_err(|error| Failure::internal(&error))?;
    let (user, role) = (asker.name(), role.name().to_owned());
    tracing::info!(to, target, by = user, "an order is passed on");
    let errand = Errand { method: method.into(), target, body, user, role };
    match agent.send(to, errand).await {
        Ok(report) => Ok(response(report)),
        Err(Lost::NoWay(_)) => Err(refusal),
        Err(Lost::Unsent(why)) => Err(Failure::unreachable(to, &why, &refusal)),
        Err(Lost::Unsure(why)) => Err(Failure::unsure(to, &why)),
    }
}

/// A question to another node, on behalf of whoever may pass one on. It is done with the least of rights.
pub(super) fn question(asker: &Asker, target: String) -> Option<Errand> {
    asker.passes_on()?;
    let (method, role) = ("GET".to_owned(), Role::Read.name().to_owned());
    Some(Errand { method, target, body: String::new(), user: asker.name(), role })
}

fn response(Done { status, tag, body }: Done) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let kind = if status.is_success() { "application/json" } else { PROBLEM_TYPE };
    let head = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")];
    let response = (status, head, body).into_response();
    match tag {
        Some(tag) => tagged(response, &tag),
        None => response,
    }
}

/// Does what other nodes send, each on a task of its own, until none can come any more.
pub(crate) async fn keep<A: Agent>(agent: Arc<A>, arrived: Option<mpsc::Receiver<Arrived>>) {
    let Some(mut arrived) = arrived else { return };
    let routes = TowerToHyperService::new(router(agent));
    while let Some(Arrived { from, errand, answer }) = arrived.recv().await {
        let routes = routes.clone();
        drop(tokio::spawn(async move {
            let response = match request(&from, errand) {
                // It has an answer for everything.
                Ok(request) => routes.call(request).await.unwrap_or_else(|never| match never {}),
                Err(failure) => failure.into_response(),
            };
            // Who asked may have gone.
            drop(answer.send(report(response).await));
        }));
    }
}

fn request(from: &str, errand: Errand) -> Result<Request, Failure> {
    let Errand { method, target, body, user, role } = errand;
    let path = target.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let is_order = matches!(
        (method.as_str(), segments.as_slice()),
        ("POST", ["v1", "vips", _, "move" | "hold" | "release" | "announce"])
            | ("PATCH", ["v1", "nodes", _])
            | ("GET", ["v1", "matrix", _] | ["v1", "vips", _, "why"])
    );
    let role = Role::parse(&role).filter(|_| is_order).ok_or_else(Failure::no_errand)?;
    let request = Request::builder().method(method.as_str()).uri(target);
    let request = request.header(CONTENT_TYPE, "application/json").body(Body::from(body));
    let mut request = request.map_err(|error| Failure::internal(&error))?;
    let plain: String = user.chars().filter(|c| !c.is_control()).collect();
    request.extensions_mut().insert(ConnectInfo(Asker::passed_on(plain, role, from.to_owned())));
    Ok(request)
}

async fn report(response: Response) -> Done {
    let (head, body) = response.into_parts();
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let tag = head.headers.get(ETAG).and_then(text);
    match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => {
            let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            Done { status: head.status.as_u16(), tag, body }
        }
        Err(_) => Done { status: 500, tag: None, body: String::new() },
    }
}

impl Failure {
    /// The node was not reached, so nothing was done; `refusal` says what to do instead.
    fn unreachable(node: &str, why: &str, refusal: &Self) -> Self {
        let title = format!("{node} cannot be reached, so nothing was done");
        let failure = Self::new(StatusCode::BAD_GATEWAY, "unreachable", &title, why);
        match &refusal.problem().fix {
            Some(fix) => failure.fix(fix.clone()),
            None => failure,
        }
    }

    fn unsure(node: &str, why: &str) -> Self {
        let title = format!("{node} has not said what came of it");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "unsure", &title, why)
            .fix("it may have been done: look at `buoy status` before you try again")
    }

    fn no_errand() -> Self {
        let title = "another node may not ask that of this one";
        Self::new(
            StatusCode::FORBIDDEN,
            "no_errand",
            title,
            "only orders of VIPs and of this node, what it hears, and why it owns a VIP",
        )
    }

    /// What that node hears is not known, and why.
    pub(super) fn unheard_of(node: &str, why: &str) -> Self {
        let title = format!("{node} has not said what it hears");
        Self::new(StatusCode::BAD_GATEWAY, "unreachable", &title, why)
            .fix(format!("run on {node}: buoy status"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_nodes_may_pass_on_orders_and_nothing_else() {
        let of = |method: &str, target: &str, role: &str| {
            let errand = Errand {
                method: method.into(),
                target: target.into(),
                body: "{}".into(),
                user: "ann\n".into(),
                role: role.into(),
            };
            request("lb2", errand).map_err(|failure| failure.problem().code.clone())
        };
        let order = of("POST", "/v1/vips/web/move?dry_run=1", "operate").unwrap();
        let asker = order.extensions().get::<ConnectInfo<Asker>>().unwrap();
        assert_eq!(asker.0.name(), "ann on lb2");
        assert!(asker.0.passes_on().is_none(), "once");
        assert!(of("PATCH", "/v1/nodes/lb1", "admin").is_ok());
        assert!(of("POST", "/v1/vips/web/announce", "operate").is_ok());
        assert!(of("GET", "/v1/matrix/lb1", "read").is_ok());
        assert!(of("GET", "/v1/vips/web/why", "read").is_ok());
        for (method, target, role) in [
            ("POST", "/v1/reload", "admin"),
            ("GET", "/v1/support", "admin"),
            ("GET", "/v1/matrix", "read"),
            ("PUT", "/v1/vips/web", "admin"),
            ("POST", "/v1/vips/web/why", "admin"),
            ("POST", "/v1/vips/web/move", "king"),
        ] {
            assert_eq!(of(method, target, role).err(), Some("no_errand".into()), "{target}");
        }
    }
}
