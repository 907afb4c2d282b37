//! What every change of this API has in common: it may be a dry run, and may be for one state only.
//!
//! An entity tag is of what an operator can change, and of who owns a VIP: not of ages and counters, so it stays
//! the same until something has happened that he should know of. Changes that name one take turns, so that of two
//! for the same state one is refused.

use super::failure::Failure;
use super::{Agent, Snapshot};
use axum::extract::{FromRequestParts, Query};
use axum::http::HeaderValue;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::request::Parts;
use axum::response::Response;
use buoy_core::Status;
use buoy_model::{Desired, GroupId};
use serde::Deserialize;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use tokio::sync::MutexGuard;

/// How a change is asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Write {
    /// Only say what would be.
    pub(super) dry_run: bool,
    /// What the client believes to be so: any of these.
    if_match: Option<Vec<String>>,
}

/// A change that goes into the history, with a body that has no place for a reason: `?reason=` has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Reasoned {
    pub(super) write: Write,
    pub(super) reason: Option<String>,
}

/// Anything else is refused: a `dry_run` that is not understood would be done.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteQuery {
    dry_run: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReasonedQuery {
    dry_run: Option<String>,
    reason: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Write {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = Query::<WriteQuery>::try_from_uri(&parts.uri);
        let Query(WriteQuery { dry_run }) = query.map_err(|error| Failure::query(&error))?;
        Self::of(parts, dry_run.as_deref())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Reasoned {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = Query::<ReasonedQuery>::try_from_uri(&parts.uri);
        let Query(ReasonedQuery { dry_run, reason }) =
            query.map_err(|error| Failure::query(&error))?;
        Ok(Self { write: Write::of(parts, dry_run.as_deref())?, reason })
    }
}

impl Write {
    fn of(parts: &Parts, dry_run: Option<&str>) -> Result<Self, Failure> {
        let dry_run = match dry_run {
            None | Some("0" | "false") => false,
            Some("1" | "true") => true,
            Some(other) => {
                let detail = format!("`dry_run` is 1 or 0, not {other:?}");
                return Err(Failure::bad_query(detail));
            }
        };
        let mut tags = Vec::new();
        for value in parts.headers.get_all(IF_MATCH) {
            let text = value.to_str().map_err(|_| Failure::if_match())?;
            // Empty elements of a list are none (RFC 9110 section 5.6.1.2).
            for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
                let is_tag =
                    tag == "*" || (2 <= tag.len() && tag.starts_with('"') && tag.ends_with('"'));
                // A weak tag is equal to nothing here (RFC 9110 section 13.1.1), and no list is a mistake.
                if !is_tag && !tag.starts_with("W/") {
                    return Err(Failure::if_match());
                }
                tags.push(tag.to_owned());
            }
        }
        let if_match = parts.headers.contains_key(IF_MATCH).then_some(tags);
        Ok(Self { dry_run, if_match })
    }

    /// Waits for its turn, if the change is for one state only. Hold it until the change is made.
    pub(super) async fn turn<'a, A: Agent>(&self, agent: &'a A) -> Option<MutexGuard<'a, ()>> {
        match self.if_match {
            Some(_) => Some(agent.changes().turn().await),
            None => None,
        }
    }

    /// What the client believes to be so, if it says so; `*` is believed by everybody.
    pub(super) fn tags(&self) -> Option<&[String]> {
        self.if_match.as_deref().filter(|tags| !tags.iter().any(|tag| tag == "*"))
    }

    /// Refuses when the client believes something else than this.
    pub(super) fn check(&self, tag: &str) -> Result<(), Failure> {
        match &self.if_match {
            Some(tags) if !tags.iter().any(|known| known == tag || known == "*") => {
                Err(Failure::precondition(tag))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Of a VIP: who owns it in which epoch, and what is ordered.
pub(super) fn vip_tag(status: &Status, group: GroupId) -> String {
    let mut hash = DefaultHasher::new();
    let known = status.groups.iter().find(|known| known.id == group);
    if let Some(known) = known {
        (known.owner, known.yields_to).hash(&mut hash);
        known.held.as_ref().map(|held| &held.reason).hash(&mut hash);
    }
    tag(known.map_or(0, |known| known.epoch.0), &hash)
}

/// Of a member: whether it lives, is drained or cordoned, and in whose words, as far as the answering node knows.
pub(super) fn node_tag(snapshot: &Snapshot, name: &str) -> String {
    let status = &snapshot.status;
    let mut hash = DefaultHasher::new();
    let node = status.nodes.iter().find(|node| snapshot.desired.node_name(node.id) == name);
    if let Some(node) = node {
        (node.alive, node.draining).hash(&mut hash);
        let ordered = (&status.draining, &status.cordoned);
        (node.id == status.me).then_some(ordered).hash(&mut hash);
    }
    tag(0, &hash)
}

/// Of the configuration in force.
pub(super) fn config_tag(desired: &Desired) -> String {
    format!("\"{}\"", desired.generation)
}

fn tag(epoch: u32, hash: &DefaultHasher) -> String {
    format!("\"{epoch}-{:08x}\"", hash.finish() >> 32)
}

/// The answer with its tag.
pub(super) fn tagged(mut response: Response, tag: &str) -> Response {
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(uri: &str, tags: &[&str]) -> Result<Write, String> {
        let mut request = axum::http::Request::post(uri);
        for tag in tags {
            request = request.header("if-match", *tag);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let asked = Write::from_request_parts(&mut parts, &()).await;
        asked.map_err(|failure| failure.problem().code.clone())
    }

    #[tokio::test]
    async fn a_change_is_a_dry_run_or_not_and_for_one_state_or_any() {
        for (uri, dry_run) in
            [("/", false), ("/?dry_run=0", false), ("/?dry_run=1", true), ("/?dry_run=true", true)]
        {
            assert_eq!(asked(uri, &[]).await.unwrap().dry_run, dry_run, "{uri}");
        }
        for uri in ["/?dry_run=yes", "/?dry_run", "/?dryrun=1", "/?dry_run=1&x=2"] {
            assert_eq!(asked(uri, &[]).await, Err("query".into()), "{uri}");
        }
        let table: [(&[&str], bool); 8] = [
            (&[], true),
            (&["\"7-a\""], true),
            (&["\"6-a\", \"7-a\""], true),
            (&["\"6-a\"", "\"7-a\""], true),
            (&["*"], true),
            (&["\"6-a\""], false),
            (&["W/\"7-a\""], false),
            (&[""], false),
        ];
        for (tags, matches) in table {
            let checked = asked("/", tags).await.unwrap().check("\"7-a\"");
            assert_eq!(checked.is_ok(), matches, "{tags:?}");
        }
        for tags in [["7-a"], ["\""]] {
            assert_eq!(asked("/", &tags).await, Err("if_match".into()), "{tags:?}");
        }
    }
}
