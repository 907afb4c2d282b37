//! Says in the API's words what was edited, and where each part of the configuration comes from.

use super::{Edits, layer};
use buoy_api::{
    BaseView, ConfigProblem, ConfigReply, HistoryReply, Origin, OriginView, RevisionView, StoreView,
};
use buoy_config::Report;
use buoy_model::Desired;
use buoy_store::{Change, Content, State};
use similar::{ChangeTag, TextDiff};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};
use toml::Table;

/// Milliseconds since 1970 by the wall clock; only for people.
pub(super) fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn problems(report: &Report) -> Vec<ConfigProblem> {
    report.problems().iter().map(crate::server::config_problem).collect()
}

/// What an edit makes different in the text, entry by entry.
pub(super) fn difference(file: &str, state: &State, changes: &[Change]) -> Vec<String> {
    let entries = layer::take_apart(file).map(|(_, entries)| entries).unwrap_or_default();
    let none = Content::AsFile;
    let before = |key: &str| state.entries.get(key).map_or(&none, |entry| &entry.content);
    let of = |change: &Change| lines(&entries, &change.key, before(&change.key), &change.content);
    changes.iter().flat_map(of).collect()
}

fn lines(
    entries: &BTreeMap<String, Table>,
    key: &str,
    before: &Content,
    after: &Content,
) -> Vec<String> {
    let (before, after) = (text(entries, key, before), text(entries, key, after));
    let diff = TextDiff::from_lines(&before, &after);
    let mut all = vec![key.to_owned()];
    for change in diff.iter_all_changes() {
        let sign = match change.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => ' ',
        };
        all.push(format!("{sign} {}", change.value().trim_end_matches('\n')));
    }
    all
}

/// The table as it would be written; nothing where there is none.
fn text(entries: &BTreeMap<String, Table>, key: &str, content: &Content) -> String {
    let table = match content {
        Content::AsFile => entries.get(key).cloned(),
        Content::Hidden => None,
        Content::Set(value) => super::plan::table(value).ok(),
    };
    table.and_then(|table| layer::written(key, &table).ok()).unwrap_or_default()
}

impl Edits {
    /// The answer to `GET /v1/config`.
    pub(crate) fn view(&self, desired: &Desired) -> ConfigReply {
        let state = self.now();
        let (base, in_force) = {
            let held = self.held();
            (held.base.clone(), held.revision)
        };
        // What cannot be laid over the file is a problem in the status, and the file is what there is.
        let layered = layer::lay_over(&base, &super::overs(&state));
        let text = layered.map_or_else(|_| base.clone(), |layered| layered.text);
        let summary = self.summary();
        ConfigReply {
            node: desired.node_name(desired.me).into(),
            revision: state.revision,
            in_force,
            base: BaseView {
                path: self.path.display().to_string(),
                digest: format!("{:08x}", desired.digest),
            },
            text,
            entries: origins(&base, &state),
            store: StoreView {
                kind: summary.kind.into(),
                leader: summary.leader,
                voters: summary.voters,
            },
        }
    }

    /// The answer to `GET /v1/config/history`.
    pub(crate) fn history(&self, desired: &Desired) -> HistoryReply {
        let state = self.now();
        let base = self.held().base.clone();
        let entries = layer::take_apart(&base).map(|(_, entries)| entries).unwrap_or_default();
        let view = |revision: &buoy_store::Revision| RevisionView {
            revision: revision.revision,
            at_ms: revision.at_ms,
            user: revision.user.clone(),
            node: revision.node.clone(),
            reason: revision.reason.clone(),
            entries: revision.changes.iter().map(|change| change.key.clone()).collect(),
            diff: revision
                .changes
                .iter()
                .flat_map(|change| lines(&entries, &change.key, &change.before, &change.after))
                .collect(),
        };
        HistoryReply {
            node: desired.node_name(desired.me).into(),
            revision: state.revision,
            revisions: state.history.iter().map(view).collect(),
        }
    }

    /// All VIPs as they are written, by name.
    pub(crate) fn vips(&self) -> (u64, BTreeMap<String, serde_json::Value>) {
        let state = self.now();
        let base = self.held().base.clone();
        let Ok(plan) = super::Plan::new(&base, &state) else { return Default::default() };
        let vip = |name: String| {
            let table = plan.vip(&name)?;
            Some((name, super::plan::json(&table)))
        };
        (state.revision, plan.names().into_iter().filter_map(vip).collect())
    }

    /// The revision that a write of this VIP has to have seen, and the VIP as JSON.
    pub(crate) fn vip(&self, asked: &str, desired: &Desired) -> Option<(u64, serde_json::Value)> {
        let state = self.now();
        let base = self.held().base.clone();
        let plan = super::Plan::new(&base, &state).ok()?;
        let name = plan.find(&plan.meant(asked, desired))?;
        let table = plan.vip(&name)?;
        Some((state.revision, super::plan::json(&table)))
    }

    /// The same of a service.
    pub(crate) fn service(
        &self,
        place: &super::Place,
        desired: &Desired,
    ) -> Option<(u64, serde_json::Value)> {
        let state = self.now();
        let base = self.held().base.clone();
        let plan = super::Plan::new(&base, &state).ok()?;
        let table = plan.service(&place.meant(&plan, desired))?;
        Some((state.revision, super::plan::json(&table)))
    }
}

fn origins(file: &str, state: &State) -> Vec<OriginView> {
    let edited = |path: &str| {
        let entry = state.entries.get(path)?;
        let hidden = match entry.content {
            Content::AsFile => return None,
            Content::Hidden => true,
            Content::Set(_) => false,
        };
        let (user, at_ms, revision) = (entry.user.clone(), entry.at_ms, entry.revision);
        Some(Origin::Api { user, at_ms, revision, hidden })
    };
    let places = layer::places(file);
    let view = |(path, line): &(String, usize)| OriginView {
        path: path.clone(),
        origin: edited(path).unwrap_or(Origin::File { line: *line }),
    };
    let mut all: Vec<OriginView> = places.iter().map(view).collect();
    let is_new = |key: &&String| !places.iter().any(|(path, _)| path == *key);
    for key in state.entries.keys().filter(is_new) {
        all.extend(edited(key).map(|origin| OriginView { path: key.clone(), origin }));
    }
    all
}
