//! The types of the HTTP API, exactly as they travel in JSON.
//!
//! Names instead of ids, milliseconds in fields that end in `_ms`, sentences ready to print. A
//! reader ignores fields that it does not know and does without those that it misses, so that
//! client and agent may be of different versions while a host is upgraded.

use crate::client::ANSWER_TIMEOUT;
use crate::services::OrderedView;
use crate::vrrp::RouterView;
use crate::{Client, ClientError};
use hyper::Method;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// `GET /v1/status`: the cluster as this node sees it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The node that answers.
    pub node: String,
    /// Grows with whatever changes: `?wait=30s&since=` this one answers when something has.
    pub revision: u64,
    /// Version of its agent.
    pub version: String,
    /// Generation of its configuration: grows with every accepted change.
    pub generation: u64,
    /// Digest of all that must be the same on every host, in hex.
    pub digest: String,
    /// The agent's process; null where the answer comes from none.
    pub pid: Option<u32>,
    /// Whether this node only votes and never owns.
    pub witness: bool,
    /// The operator's reason, while the node is drained.
    pub draining: Option<String>,
    /// When the node takes part again by itself, if it does.
    pub drain_left_ms: Option<f64>,
    /// The operator's reason, while the node keeps what it has and takes nothing new.
    pub cordoned: Option<String>,
    /// Beats and terms.
    pub timing: TimingView,
    /// This node's interfaces that carry VIPs or legs, where there is something to say of them.
    pub links: Vec<LinkView>,
    /// What `exclusive` and `available` mean for the VIPs of this cluster, a sentence or two each.
    pub safety: Vec<String>,
    /// How often two nodes served one `available` VIP at once, as far as this agent has noticed.
    pub overlaps: u64,
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

/// How often nodes speak and how long a promise lasts.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct TimingView {
    /// Time between two heartbeats.
    pub heartbeat_ms: f64,
    /// Shortest term of a lease.
    pub lease_ms: f64,
    /// How far the term grows on a bad network or a busy host.
    pub lease_max_ms: f64,
    /// The term that this node asks for now.
    pub term_ms: Option<f64>,
    /// Why it is not the shortest one; null where it is.
    pub term_reason: Option<String>,
}

/// An interface of the answering node of which there is something to say.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct LinkView {
    /// Its name.
    pub name: String,
    /// None of the live peers is heard there, while another leg hears them.
    pub unheard: bool,
    /// It came and went too often: takes only what nobody else can for so much longer.
    pub damped_left_ms: Option<f64>,
}

/// The real-time loop of the agent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct LoopView {
    /// How it is scheduled, as in "SCHED_FIFO 50, memory locked".
    pub realtime: String,
    /// What it counted: datagrams refused by reason, late wake-ups and the like.
    pub counters: BTreeMap<String, u64>,
}

/// One member of the cluster.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Where its agent listens: its first leg.
    pub address: String,
    /// All its legs, as heard from here.
    pub legs: Vec<LegView>,
    /// Whether it only votes and never owns.
    pub witness: bool,
    /// Whether it is the node that answers.
    pub me: bool,
    /// Heard lately.
    pub alive: bool,
    /// How long ago it was last heard; null: never, or itself.
    pub heard_ms: Option<f64>,
    /// Round trip of the last answered heartbeat; null: never, or itself.
    pub round_trip_ms: Option<f64>,
    /// How many of the heartbeats sent to it in the last moments got no answer, in percent; null: none had the time
    /// to be answered, or itself.
    pub loss_percent: Option<f64>,
    /// Whether it answers, so that the path works both ways.
    pub hears_us: bool,
    /// Whether it is drained.
    pub draining: bool,
    /// Whether it is cordoned; known of the answering node only.
    pub cordoned: bool,
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

/// One way between the answering node and another: leg n of one speaks to leg n of the other.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct LegView {
    /// Its place in the file, counted from 1.
    pub leg: u8,
    /// Where the other node listens.
    pub address: String,
    /// How long ago the other node was last heard on it; null: never, or itself.
    pub heard_ms: Option<f64>,
    /// Whether that is lately.
    pub alive: bool,
}

/// One VIP (a group of addresses that move together).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
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
    /// What that means in this cluster, in a sentence or two.
    pub safety_means: String,
    /// To whom its owner gives it right now.
    pub yields_to: Option<String>,
    /// An operator keeps it where it is; null: it goes where it belongs.
    pub held: Option<HeldView>,
    /// What is asked of the answering node itself before it takes it.
    pub checks: Vec<CheckView>,
    /// When a better node gets it back, as a clause.
    pub failback: String,
    /// What is balanced behind it.
    pub services: Vec<ServiceView>,
    /// Every member, best first, and why it does or does not own the VIP.
    pub candidates: Vec<CandidateView>,
    /// The last change of owner that the answering node saw.
    pub last_change: Option<EventView>,
    /// The virtual routers that decide who owns it; empty: the lease does.
    pub vrrp: Vec<RouterView>,
    /// The router that has it by VRRP, where that is no node of this cluster, as in `10.77.0.12 (priority 150)`.
    pub router: Option<String>,
    /// How many packets about them were refused here for which reason since the start.
    pub refused: BTreeMap<String, u64>,
    /// What is wrong with it, if anything, as one sentence.
    pub problem: Option<String>,
}

/// An operator's word that a VIP stays where it is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct HeldView {
    /// In the operator's words, with who asked; empty where only its owner knows.
    pub reason: String,
    /// When it is free again by itself, if it is.
    pub left_ms: Option<f64>,
}

/// A question to the answering node itself, and its answer.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct CheckView {
    /// What people call it.
    pub name: String,
    /// What is asked, as in "process postgres runs".
    pub asks: String,
    /// `pass`, `fail` or `unknown` (not asked yet; counts as passing).
    pub state: String,
    /// Why, in the words of the last answer.
    pub reason: String,
}

/// One address of a VIP.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct VipAddressView {
    /// With its prefix.
    pub address: String,
    /// The interface that carries it on the answering node; null: it cannot live there.
    pub interface: Option<String>,
    /// The name of the VIP that it comes from, where several move together.
    pub vip: String,
    /// It is on no interface: XDP answers for it there.
    pub answered: bool,
}

/// One port of a VIP.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct ServiceView {
    /// What commands call it, as in `web:443/tcp`.
    pub name: String,
    /// As in `443/tcp`.
    pub port: String,
    /// `kernel`, `proxy` or `xdp`.
    pub mode: String,
    /// What forwards it on the answering node, as in `nftables` or `XDP (eth0: driver)`.
    pub engine: String,
    /// Hash of who gets which new flow in mode `xdp`, as in `0b00c0de`: equal on all nodes that know the same
    /// backends to be up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The word of `balance`, as in `hash` or `leastconn`.
    pub balance: String,
    /// The servers behind it, in the file's order.
    pub backends: Vec<BackendView>,
    /// How many of them may get new connections.
    pub up: usize,
    /// What is wrong with forwarding on the answering node, if anything.
    pub problem: Option<String>,
    /// How many connections one client may open, as in `100/s burst=100`; null: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_connections: Option<String>,
    /// How often the answering node has refused one for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limited: Option<u64>,
    /// How many of its packets the answering node has dropped for which reason (`no_neighbour`, `source` and the like),
    /// in mode `xdp`; those of its backends are among them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<String, u64>,
}

/// One server behind a service.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct BackendView {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// `up`, `down` or `unknown` (not checked yet; counts as up); by order `drain` or `maint`.
    pub state: String,
    /// Why, in the words of its last check or of who ordered it.
    pub reason: String,
    /// Its share relative to the others, as the file has it.
    pub weight: u16,
    /// What holds for it by order of an operator, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderedView>,
    /// Used only when no other is up.
    pub backup: bool,
    /// It is well, and `reason` is of something that will break if nobody acts: a certificate that ends.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub urgent: bool,
    /// The share of its weight that it takes by the word of its agent or by its load, in percent; null: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<u16>,
    /// What the answering node has forwarded to it, where the engine counts that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// How many packets for it the answering node has dropped for which reason (`no_neighbour`, `too_big` and the like),
    /// in mode `xdp`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<String, u64>,
}

/// What was forwarded, since the engine began to count.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct Traffic {
    /// TCP connections that were opened.
    pub connections: u64,
    /// Packets of clients.
    pub packets: u64,
    /// Bytes of them, from the IP header on.
    pub bytes: u64,
}

/// One member's place in the line for a VIP.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
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
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct EventView {
    /// Grows from record to record: the revision that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// When, in milliseconds since 1970 by this host's wall clock.
    pub at: u64,
    /// Which VIP it is about, if one.
    pub vip: Option<String>,
    /// Which node it is about: the one that took the VIP or gave it up, or the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What it is, for programs.
    pub kind: String,
    /// What it is, for people.
    pub sentence: String,
    /// How the takeover went on, where this is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phases: Option<PhasesView>,
}

/// The phases of a takeover, each counted from the decision to want the VIP.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct PhasesView {
    /// The epoch that began.
    pub epoch: u32,
    /// How long the last owner had been silent when it was given up; 0: it said so itself.
    pub detect_ms: f64,
    /// The votes were there.
    pub decide_ms: f64,
    /// The address was on the interface, with the gate open.
    pub address_ms: f64,
    /// The first announcement was out.
    pub announce_ms: f64,
    /// The first packet for the address came in; null: not within a second.
    pub first_packet_ms: Option<f64>,
}

/// `GET /v1/vips/{vip}/why`: why the VIP is where it is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct WhyReply {
    /// The node that answers.
    pub node: String,
    /// The answer in one sentence.
    pub answer: String,
    /// Whose words the answer, the phases and the history are, where they are those of the owner and it is another node.
    #[serde(default)]
    pub told_by: Option<String>,
    /// The VIP with all candidates.
    pub vip: VipView,
    /// How the last takeover of it went, if who says so took it.
    pub phases: Option<PhasesView>,
    /// What happened to it, oldest first.
    pub history: Vec<EventView>,
}

/// `GET /v1/vips/{vip}/owner` on the owner; elsewhere the answer is 503 and a `Problem`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct OwnerReply {
    /// Which VIP.
    pub vip: String,
    /// The owner, which answers.
    pub owner: String,
    /// The epoch it owns it in.
    pub epoch: u32,
}

/// `GET /v1/events?n=100&vip=web&since_ms=1795366923045&until_ms=1795366983045`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct EventsReply {
    /// With `?since=` this one the next question asks for what came after.
    pub revision: u64,
    /// The latest, oldest first.
    pub events: Vec<EventView>,
}

/// The answer to `POST /v1/reload`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct ReloadReply {
    /// Generation of the configuration that is in force now.
    pub generation: u64,
    /// What changed, one line each; empty: nothing.
    pub changes: Vec<String>,
    /// Warnings of the check.
    pub warnings: Vec<String>,
    /// Nothing was done: it was only asked what would be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

impl Client {
    /// An answer as it travels: read whole, and not understood.
    pub fn text(&self, target: &str) -> Result<Vec<u8>, ClientError> {
        Ok(self.bytes(Method::GET, target, Vec::new(), ANSWER_TIMEOUT)?.into())
    }
}
