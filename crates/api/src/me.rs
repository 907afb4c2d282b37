//! Who asks, exactly as it travels in JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/me`: who asks, by whose word, and what he may do.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct MeReply {
    /// The node that answers.
    pub node: String,
    /// As it stands in the reason of every order.
    pub name: String,
    /// How that is known: `kernel` (on a socket), `token` or `certificate`.
    pub by: String,
    /// His number on this host; null over TCP.
    pub uid: Option<u32>,
    /// `read`, `operate` or `admin`.
    pub role: String,
    /// What he may do here, as sentences.
    pub may: Vec<String>,
}
