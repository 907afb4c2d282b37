//! What operators order over the HTTP API, exactly as it travels in JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of `POST /v1/drain`; may be empty.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// For the record and for `buoy why`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub reason: Option<String>,
    /// After so long the node takes part again by itself; absent: not by itself.
    #[serde(default, deserialize_with = "crate::whole", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31_536_000_000_u64)]
    pub for_ms: Option<u64>,
}

/// The body of `POST /v1/undrain`; may be empty.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UndrainRequest {
    /// For the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub reason: Option<String>,
}

/// The answer to `POST /v1/drain`, `POST /v1/undrain` and `PATCH /v1/nodes/{node}`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct DrainReply {
    /// The node that answers.
    pub node: String,
    /// The reason as recorded, with who asked; null after an undrain.
    pub draining: Option<String>,
    /// When the node takes part again by itself, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// While the node is cordoned: the reason as recorded, with who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordoned: Option<String>,
    /// How many VIPs it owned when it was asked.
    pub owned: usize,
    /// Nothing was done: it was only asked what would be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// What would be, as sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub would: Vec<String>,
}

/// The body of `POST /v1/vips/{vip}/move`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The node that is to own it.
    pub to: String,
    /// For the record and for `buoy why`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub reason: Option<String>,
}

/// The body of `POST /v1/vips/{vip}/hold`; may be empty.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// For the record and for `buoy why`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub reason: Option<String>,
    /// After so long it is free to move again by itself; absent: not by itself.
    #[serde(default, deserialize_with = "crate::whole", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31_536_000_000_u64)]
    pub for_ms: Option<u64>,
}

/// The body of `POST /v1/vips/{vip}/release`; may be empty.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// For the record and for `buoy why`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub reason: Option<String>,
}

/// The body of `POST /v1/vips/{vip}/announce`; may be empty.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnnounceRequest {
    /// For the record and for `buoy why`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub reason: Option<String>,
}

/// The answer to `POST /v1/vips/{vip}/move`, `hold`, `release` and `announce`: the order was given. What comes of
/// it is in the status.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct OrderReply {
    /// The VIP's name.
    pub vip: String,
    /// The node that answers, which owned it when it was asked.
    pub node: String,
    /// The epoch that it owned it in.
    pub epoch: u32,
    /// `move`, `hold`, `release` or `announce`.
    pub order: String,
    /// To whom it is to go, of a move.
    pub to: Option<String>,
    /// When a hold ends by itself, if it does.
    pub for_ms: Option<u64>,
    /// The reason as recorded, with who asked.
    pub reason: String,
    /// Nothing was done: it was only asked what would be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// What would be, as sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub would: Vec<String>,
}

/// The body of `PATCH /v1/nodes/{node}`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePatch {
    /// Whether the node is to be out of service; absent: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<bool>,
    /// Whether the node is to take nothing new and keep what it has; absent: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordon: Option<bool>,
    /// For the record and for `buoy why`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub reason: Option<String>,
    /// Of a drain: after so long the node takes part again by itself; absent: not by itself.
    #[serde(default, deserialize_with = "crate::whole", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31_536_000_000_u64)]
    pub for_ms: Option<u64>,
}
