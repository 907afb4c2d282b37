//! The types of the HTTP API, exactly as they travel in JSON.
//!
//! Names instead of ids, milliseconds in fields that end in `_ms`, sentences ready to print. A
//! reader ignores fields that it does not know, so that an old client reads a new agent.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `GET /v1/status`: the cluster as this node sees it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The node that answers.
    pub node: String,
    /// Version of its agent.
    pub version: String,
    /// Generation of its configuration: grows with every accepted change.
    pub generation: u64,
    /// Digest of all that must be the same on every host, in hex.
    pub digest: String,
    /// The operator's reason, while the node is drained.
    pub draining: Option<String>,
    /// The lines of defence against a second owner: which stand on this host, which lack, and why.
    pub defences: Vec<String>,
    /// What is wrong with this host or this cluster, as sentences that say what to do.
    pub problems: Vec<String>,
    /// The real-time loop.
    #[serde(rename = "loop")]
    pub loop_: LoopView,
    /// All members, the answering one among them.
    pub nodes: Vec<NodeView>,
    /// All VIPs.
    pub vips: Vec<VipView>,
    /// The latest records, oldest first.
    pub events: Vec<EventView>,
}

/// The real-time loop of the agent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct LoopView {
    /// How it is scheduled, as in "SCHED_FIFO 50, memory locked".
    pub realtime: String,
    /// What it counted: datagrams refused by reason, late wake-ups and the like.
    pub counters: BTreeMap<String, u64>,
}

/// One member of the cluster.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Where its agent listens.
    pub address: String,
    /// Whether it is the node that answers.
    pub me: bool,
    /// Heard lately.
    pub alive: bool,
    /// How long ago it was last heard; null: never, or itself.
    pub heard_ms: Option<f64>,
    /// Round trip of the last answered heartbeat; null: never, or itself.
    pub round_trip_ms: Option<f64>,
    /// Whether it answers, so that the path works both ways.
    pub hears_us: bool,
    /// Whether it is drained.
    pub draining: bool,
    /// Digest of its configuration in hex, once heard.
    pub digest: Option<String>,
    /// It has started lately and grants nothing for so much longer: do not take the next node down
    /// before; null: it votes, or has not been asked.
    pub votes_in_ms: Option<f64>,
    /// How many VIPs it owns.
    pub owns: usize,
    /// All of this in one sentence.
    pub state: String,
}

/// One VIP (a group of addresses that move together).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct VipView {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<VipAddressView>,
    /// Who owns it, as far as the answering node has heard.
    pub owner: Option<String>,
    /// Whether that is the node that answers.
    pub mine: bool,
    /// Grows at every change of owner.
    pub epoch: u32,
    /// Since when this owner is known.
    pub since_ms: Option<f64>,
    /// How much longer the answering node may serve it without a new vote; null when it does not.
    pub lease_left_ms: Option<f64>,
    /// Whose votes the answering node holds for it.
    pub votes: Vec<String>,
    /// How many votes an owner needs; 0 where it needs none.
    pub votes_needed: usize,
    /// `exclusive` or `available`.
    pub safety: String,
    /// When a better node gets it back, as a clause.
    pub failback: String,
    /// What is balanced behind it.
    pub services: Vec<ServiceView>,
    /// Every member, best first, and why it does or does not own the VIP.
    pub candidates: Vec<CandidateView>,
    /// The last change of owner that the answering node saw.
    pub last_change: Option<EventView>,
    /// What is wrong with it, if anything, as one sentence.
    pub problem: Option<String>,
}

/// One address of a VIP.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct VipAddressView {
    /// With its prefix.
    pub address: String,
    /// The interface that carries it on the answering node; null: it cannot live there.
    pub interface: Option<String>,
}

/// One port of a VIP.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ServiceView {
    /// As in `443/tcp`.
    pub port: String,
    /// `kernel` or `proxy`.
    pub mode: String,
    /// `hash`, `roundrobin` or `leastconn`.
    pub balance: String,
    /// The servers behind it, in the file's order.
    pub backends: Vec<BackendView>,
    /// How many of them may get new connections.
    pub up: usize,
    /// What is wrong with forwarding on the answering node, if anything.
    pub problem: Option<String>,
}

/// One server behind a service.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct BackendView {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// `up`, `down` or `unknown` (not checked yet; counts as up).
    pub state: String,
    /// Why, in the words of its last check.
    pub reason: String,
    /// Its share relative to the others.
    pub weight: u16,
    /// Used only when no other is up.
    pub backup: bool,
}

/// One member's place in the line for a VIP.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct CandidateView {
    /// Which.
    pub node: String,
    /// Its place in `prefer`, counted from 1.
    pub preferred: Option<usize>,
    /// `owner`, `wants`, `candidate` or `excluded`.
    pub standing: String,
    /// Why, as a sentence.
    pub reason: String,
}

/// One thing that happened.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct EventView {
    /// When, in milliseconds since 1970 by this host's wall clock.
    pub at: u64,
    /// Which VIP it is about, if one.
    pub vip: Option<String>,
    /// What it is, for programs.
    pub kind: String,
    /// What it is, for people.
    pub sentence: String,
}

/// `GET /v1/vips/{vip}/why`: why the VIP is where it is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct WhyReply {
    /// The node that answers.
    pub node: String,
    /// The answer in one sentence.
    pub answer: String,
    /// The VIP with all candidates.
    pub vip: VipView,
    /// What happened to it, oldest first.
    pub history: Vec<EventView>,
}

/// `GET /v1/vips/{vip}/owner` on the owner; elsewhere the answer is 503 and a `Problem`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct OwnerReply {
    /// Which VIP.
    pub vip: String,
    /// The owner, which answers.
    pub owner: String,
    /// The epoch it owns it in.
    pub epoch: u32,
}

/// `GET /v1/events?n=100`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct EventsReply {
    /// The latest, oldest first.
    pub events: Vec<EventView>,
}

/// The body of `POST /v1/drain`; may be empty.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// For the record and for `buoy why`.
    pub reason: Option<String>,
}

/// The answer to `POST /v1/drain` and `POST /v1/undrain`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct DrainReply {
    /// The node that answers.
    pub node: String,
    /// The reason as recorded, with who asked; null after an undrain.
    pub draining: Option<String>,
    /// How many VIPs it owned when it was asked.
    pub owned: usize,
}

/// The answer to `POST /v1/reload`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReloadReply {
    /// Generation of the configuration that is in force now.
    pub generation: u64,
    /// What changed, one line each; empty: nothing.
    pub changes: Vec<String>,
    /// Warnings of the check.
    pub warnings: Vec<String>,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Problem {
    /// For programs, as in `unknown_vip`.
    pub code: String,
    /// What is wrong.
    pub title: String,
    /// The particulars, and what to do.
    pub detail: String,
}
