//! What the answers are made from beside what the core knows: of services, of the host, and what has happened.

use crate::Traffic;
use buoy_model::{BackendOrder, BackendState, GroupId, Instant, Ports, Protocol, Record};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What the slow side knows of one service on this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceReport {
    /// The service's group.
    pub group: GroupId,
    /// The first of its addresses: two services of a group may share a port.
    pub address: IpAddr,
    /// The service's protocol.
    pub protocol: Protocol,
    /// The service's ports.
    pub ports: Ports,
    /// What keeps this host from forwarding it, as a sentence that says what to do.
    pub problem: Option<String>,
    /// What forwards it here, as in "nftables" or "XDP (eth0: driver)".
    pub engine: String,
    /// Hash of who gets which flow, where the engine has a table of it.
    pub table: Option<u32>,
    /// Connections refused here for the rate of their client, where the service has a limit.
    pub limited: Option<u64>,
    /// Packets for it that were dropped here, by reason, where the engine counts them; with those for its backends.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Its backends, in any order; one that is not listed counts as not checked yet.
    pub backends: Vec<BackendReport>,
}

/// What the checks know of one backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendReport {
    /// Its name, as in `Desired`.
    pub name: String,
    /// Whether it may get new connections.
    pub state: BackendState,
    /// Why, as in "HTTP 503" or "connection refused"; empty where there is nothing to say.
    pub reason: String,
    /// Whether it is well, and the reason is of something that will break if nobody acts.
    pub urgent: bool,
    /// The share of its weight that it takes by its own word or by its load, in percent.
    pub share: u16,
    /// What was forwarded to it here, where the engine counts that.
    pub traffic: Option<Traffic>,
    /// Packets for it that were dropped here, by reason, where the engine counts them.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Since when it is in its state, where it is checked.
    pub since: Option<Instant>,
    /// What operators have ordered of it.
    pub order: Option<BackendOrder>,
}

/// What is known of one check of this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckReport {
    /// The group that follows it.
    pub group: GroupId,
    /// Its name.
    pub name: String,
    /// Whether it passes; `None`: not asked yet, counts as passing.
    pub passes: Option<bool>,
    /// Why, in the words of the last answer.
    pub reason: String,
}

/// What is to be said of this host apart from ownership.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HostReport {
    /// The agent's process.
    pub pid: Option<u32>,
    /// The version of its program.
    pub version: String,
    /// Ids of the keys of the cluster that it has; the first one's signs.
    pub keys: Vec<u32>,
    /// The checks of this node, in any order; one that is not listed counts as not asked yet.
    pub checks: Vec<CheckReport>,
    /// The lines of defence, one sentence each: which stand, which lack and why.
    pub defences: Vec<String>,
    /// What is wrong, as sentences that say what to do.
    pub problems: Vec<String>,
    /// How the loop is scheduled, as in "SCHED_FIFO 50, memory locked".
    pub realtime: String,
    /// What was counted, by name: `rejected_forged`, `late_wakeups` and the like.
    pub counters: BTreeMap<String, u64>,
}

/// A record as the agent keeps it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DatedRecord {
    /// Its number; they grow, with gaps.
    pub seq: u64,
    /// Its moment by the wall clock, in milliseconds since 1970.
    pub at: u64,
    /// What happened.
    pub record: Record,
    /// What the VIP was called that it is about, where that has left the configuration since.
    pub vip: Option<Arc<str>>,
}
