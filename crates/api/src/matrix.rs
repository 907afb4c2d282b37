//! What each node of the cluster hears of each other, as it travels in JSON: a row for each, told by that node itself.

use crate::view::View;
use crate::vrrp::{self, RouterView};
use crate::{Client, ClientError, segment};
use buoy_model::WireVersion;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// `GET /v1/matrix`: how all nodes hear each other.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct MatrixReply {
    /// The node that answers. It has asked the others, not longer ago than a second.
    pub node: String,
    /// A row for each member, by name.
    pub rows: Vec<MatrixRow>,
}

/// `GET /v1/matrix/{node}`: what one node says of itself and of the others.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct MatrixRow {
    /// Which.
    pub node: String,
    /// Why nothing is known of what it hears; null: all else here is known.
    pub unknown: Option<String>,
    /// The version of its program; empty: it is older than this field.
    pub version: String,
    /// Forms of datagrams that it speaks.
    pub wire: Vec<u8>,
    /// Ids of the cluster's keys that it has, in hex; the first one's signs, all are accepted.
    pub keys: Vec<String>,
    /// The operator's reason, while it is drained.
    pub draining: Option<String>,
    /// The operator's reason, while it is cordoned.
    pub cordoned: Option<String>,
    /// How it hears each other member.
    pub hears: Vec<HeardView>,
    /// Its virtual routers, for each VIP whose owner is decided by VRRP.
    pub vrrp: Vec<VipRoutersView>,
}

/// How one node hears another.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct HeardView {
    /// The other.
    pub node: String,
    /// Heard lately.
    pub alive: bool,
    /// How long ago it was last heard; null: never.
    pub heard_ms: Option<f64>,
    /// Whether it answers, so that the path works both ways.
    pub answers: bool,
    /// Round trip of the last heartbeat that it answered; null: never.
    pub round_trip_ms: Option<f64>,
    /// How many heartbeats of the last moments it did not answer, in percent; null: none had the time to be answered.
    pub loss_percent: Option<f64>,
}

/// The virtual routers of a VIP on one node.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct VipRoutersView {
    /// The VIP.
    pub vip: String,
    /// One for each of its identifiers and IP versions.
    pub routers: Vec<RouterView>,
    /// How many packets about them the node refused for which reason since its start.
    pub refused: BTreeMap<String, u64>,
}

impl MatrixRow {
    /// Of a node that did not say.
    pub fn unknown(node: &str, why: impl Into<String>) -> Self {
        Self { node: node.into(), unknown: Some(why.into()), ..Self::default() }
    }
}

impl View<'_> {
    /// What the answering node says.
    pub fn row(&self) -> MatrixRow {
        let others = self.nodes().into_iter().filter(|node| !node.me);
        let name = |id| self.desired.group(id).map_or_else(String::new, |group| group.name.clone());
        let routed = self.status.groups.iter().filter(|group| !group.vrrp.is_empty());
        let mut vrrp: Vec<VipRoutersView> = routed
            .map(|group| VipRoutersView {
                vip: name(group.id),
                routers: vrrp::routers(group),
                refused: vrrp::refused(group),
            })
            .collect();
        vrrp.sort_by(|a, b| a.vip.cmp(&b.vip));
        MatrixRow {
            node: self.desired.node_name(self.desired.me).into(),
            unknown: None,
            version: self.host.version.clone(),
            wire: WireVersion::ALL.map(WireVersion::number).into(),
            keys: self.host.keys.iter().map(|id| format!("{id:08x}")).collect(),
            draining: self.status.draining.clone(),
            cordoned: self.status.cordoned.clone(),
            hears: others
                .map(|node| HeardView {
                    node: node.name,
                    alive: node.alive,
                    heard_ms: node.heard_ms,
                    answers: node.hears_us,
                    round_trip_ms: node.round_trip_ms,
                    loss_percent: node.loss_percent,
                })
                .collect(),
            vrrp,
        }
    }
}

impl Client {
    /// How all nodes hear each other.
    pub fn matrix(&self) -> Result<MatrixReply, ClientError> {
        self.get("/v1/matrix")
    }

    /// How one node hears the others.
    pub fn matrix_row(&self, node: &str) -> Result<MatrixRow, ClientError> {
        self.get(&format!("/v1/matrix/{}", segment(node)))
    }
}
