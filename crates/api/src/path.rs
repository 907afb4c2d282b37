//! Where a packet of a client would go, exactly as it travels in JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer to `GET /v1/path`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct PathReply {
    /// The node that answers.
    pub node: String,
    /// The client.
    pub from: String,
    /// The VIP and its port.
    pub to: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The VIP's name; null where no VIP has this address.
    pub vip: Option<String>,
    /// What forwards it on this node, as in `XDP (eth0: driver)`; empty where no service has this port.
    pub engine: String,
    /// What becomes of it. Where a connection that begins goes another way than one that is open, two.
    pub ways: Vec<WayView>,
}

/// What becomes of a packet.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct WayView {
    /// Which packet: `a new connection`, `an open connection`, `any connection`, `a datagram` or `any packet`.
    pub of: String,
    /// `sent`, `dropped`, `passed` (the kernel has it) or `unknown`.
    pub verdict: String,
    /// The name of the backend that gets it.
    pub backend: Option<String>,
    /// How, or why not, as a sentence.
    pub reason: String,
}
