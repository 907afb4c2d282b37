//! What the API says of the configuration: its text, where each part of it comes from, and what was edited.

use crate::ConfigProblem;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// The answer to `GET /v1/config`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct ConfigReply {
    /// The node that answers.
    pub node: String,
    /// How many edits there were; the ETag is this number.
    pub revision: u64,
    /// The revision that is in force on this node: less while an edit is refused here.
    pub in_force: u64,
    /// The file below.
    pub base: BaseView,
    /// The whole configuration: the file, with what was edited over it.
    pub text: String,
    /// Where each part of it comes from.
    pub entries: Vec<OriginView>,
    /// Where edits are kept.
    pub store: StoreView,
}

/// The file of a node.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct BaseView {
    /// Where it is.
    pub path: String,
    /// The same on all nodes with the same configuration in force.
    pub digest: String,
}

/// Who keeps edits.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct StoreView {
    /// `embedded`, `etcd` or `none`.
    pub kind: String,
    /// The node that orders edits; null: none at the moment.
    pub leader: Option<String>,
    /// The nodes whose majority takes an edit; none before the first one.
    pub voters: Vec<String>,
}

/// One part of the configuration.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct OriginView {
    /// As in `vip/web`; a key of the file's top by its name.
    pub path: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a part of the configuration comes from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Origin {
    /// The file.
    File {
        /// The line in it, from 1.
        line: usize,
    },
    /// An edit.
    Api {
        /// Whose.
        user: String,
        /// When, in milliseconds since 1970 by the clock of the node that took it.
        at_ms: u64,
        /// Which.
        revision: u64,
        /// The edit hides what the file has.
        hidden: bool,
    },
}

impl Default for Origin {
    fn default() -> Self {
        Self::File { line: 0 }
    }
}

/// The answer to `GET /v1/config/values`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct ValuesReply {
    /// The node that answers.
    pub node: String,
    /// How many edits there were.
    pub revision: u64,
    /// The file of this node.
    pub path: String,
    /// Every value of the configuration, and those of the file that an edit removed.
    pub values: Vec<ValueView>,
}

/// One value of the configuration.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct ValueView {
    /// As in `vip/web.service[443/tcp].balance`; each item of a list is a value of its own.
    pub path: String,
    /// It, as TOML.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// A text to be checked, compared or applied.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigRequest {
    /// A whole configuration, as `GET /v1/config` gives it.
    pub text: String,
    /// Why, for the history.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A revision to go back to.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// How it was after this one.
    #[serde(deserialize_with = "whole")]
    pub revision: u64,
    /// Why, for the history.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A whole number: for JSON, and for who writes it in JavaScript, `1.0` is one.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let float = || number.as_f64().filter(|f| f.fract() == 0.0 && (0.0..=EXACT_MAX).contains(f));
    let whole = number.as_u64().or_else(|| float().map(|float| float as u64));
    whole.ok_or_else(|| D::Error::custom(format!("{number} is no whole number from 0 on")))
}

/// Up to this one a float is the number that was written (IEEE 754: 53 bits).
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// What came of an edit, or would come of it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct EditReply {
    /// The node that answers.
    pub node: String,
    /// The revision that holds now.
    pub revision: u64,
    /// Whether it was only tried.
    pub dry_run: bool,
    /// What is different in the text: lines that begin with `-`, `+` or a space, under one with the name of the part.
    pub diff: Vec<String>,
    /// What that means, one line each.
    pub changes: Vec<String>,
    /// Whether the whole would be taken as it is.
    pub valid: bool,
    /// What is wrong with it, or should be known.
    pub problems: Vec<ConfigProblem>,
    /// Why this node could not put it into force, though it was taken; null: it is in force.
    pub refused_here: Option<String>,
}

/// The answer to `GET /v1/config/history`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct HistoryReply {
    /// The node that answers.
    pub node: String,
    /// The revision that holds.
    pub revision: u64,
    /// The latest edits, oldest first.
    pub revisions: Vec<RevisionView>,
}

/// One edit.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct RevisionView {
    /// Its number.
    pub revision: u64,
    /// When, in milliseconds since 1970 by the clock of the node that took it.
    pub at_ms: u64,
    /// Whose it was.
    pub user: String,
    /// On which node it was asked for.
    pub node: String,
    /// Why; may be empty.
    pub reason: String,
    /// What it changed, by name.
    pub entries: Vec<String>,
    /// How.
    pub diff: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_a_whole_number_in_every_spelling() {
        let read = |text: &str| serde_json::from_str::<RollbackRequest>(text).map(|r| r.revision);
        for (text, revision) in [("3", 3), ("3.0", 3), ("3e2", 300), ("0.0", 0)] {
            assert_eq!(read(&format!("{{\"revision\": {text}}}")).unwrap(), revision);
        }
        for text in ["3.5", "-1", "-1.0", "1e300", "\"3\"", "null"] {
            assert!(read(&format!("{{\"revision\": {text}}}")).is_err(), "{text}");
        }
        assert!(read("{}").is_err());
    }
}
