//! Drills as they travel in JSON: a VIP is moved to another node and back, as planned, and it is measured how that went.

use crate::status::PhasesView;
use crate::{Client, ClientError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How often a VIP may be moved there and back in one drill.
pub const DRILL_REPEAT_MAX: u64 = 20;

/// The body of `POST /v1/drills`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrillRequest {
    /// The VIP, by name or by address.
    pub vip: String,
    /// To which node it goes, and back; null: the next best.
    #[serde(default)]
    pub to: Option<String>,
    /// How often; null: once.
    #[serde(default, deserialize_with = "crate::whole")]
    #[schema(minimum = 1, maximum = 20)]
    pub repeat: Option<u64>,
    /// Why, for the record.
    #[serde(default)]
    #[schema(max_length = 200)]
    pub reason: Option<String>,
}

/// `GET /v1/drills`: the drills that were begun on the answering node.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct DrillsReply {
    /// The node that answers.
    pub node: String,
    /// The latest 16, oldest first.
    pub drills: Vec<DrillView>,
}

/// One drill.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct DrillView {
    /// Its number on the answering node; 0: it was only asked what would be.
    pub id: u64,
    /// Which VIP is moved.
    pub vip: String,
    /// The node that owned it before.
    pub from: String,
    /// The node that it goes to, and back from.
    pub to: String,
    /// How often.
    pub repeat: u64,
    /// The reason as recorded, with who asked.
    pub reason: String,
    /// When it began, in milliseconds since 1970.
    pub at: u64,
    /// It goes on.
    pub running: bool,
    /// Why it ended before its time.
    pub failed: Option<String>,
    /// What was done so far.
    pub takeovers: Vec<DrillTakeoverView>,
    /// Nothing was done: it was only asked what would be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// What would be, as sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub would: Vec<String>,
}

/// One takeover of a drill.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct DrillTakeoverView {
    /// Who gave it away.
    pub from: String,
    /// Who took it.
    pub to: String,
    /// The epoch that began.
    pub epoch: u32,
    /// From the order until the answering node saw it done; it looks every 5 ms.
    pub seen_ms: f64,
    /// For how long nobody served it, as far as the answering node has seen.
    pub unserved_ms: f64,
    /// How its steps went; null: another node took it, and has them on record.
    pub phases: Option<PhasesView>,
}

impl Client {
    /// Begins a drill, or says what it would do.
    pub fn begin_drill(
        &self,
        request: &DrillRequest,
        dry_run: bool,
    ) -> Result<DrillView, ClientError> {
        let dry_run = if dry_run { "?dry_run=1" } else { "" };
        self.write(&format!("/v1/drills{dry_run}"), request, None)
    }

    /// The drills that were begun on this node.
    pub fn drills(&self) -> Result<DrillsReply, ClientError> {
        self.get("/v1/drills")
    }
}
