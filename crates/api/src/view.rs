//! Makes the answers of the API from what the core, the checks and the host know. Pure.

use buoy_model::{BackendState, Desired, GroupId, Protocol, Record};
use std::collections::BTreeMap;

/// What the slow side knows of one service on this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceReport {
    /// The service's group.
    pub group: GroupId,
    /// The service's protocol.
    pub protocol: Protocol,
    /// The service's port.
    pub port: u16,
    /// What keeps this host from forwarding it, as a sentence that says what to do.
    pub problem: Option<String>,
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
}

/// What is to be said of this host apart from ownership.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HostReport {
    /// The lines of defence, one sentence each: which stand, which lack and why.
    pub defences: Vec<String>,
    /// What is wrong, as sentences that say what to do.
    pub problems: Vec<String>,
    /// How the loop is scheduled, as in "SCHED_FIFO 50, memory locked".
    pub realtime: String,
    /// What was counted, by name: `rejected_forged`, `late_wakeups` and the like.
    pub counters: BTreeMap<String, u64>,
}

/// A record with its moment by the wall clock, in milliseconds since 1970.
pub type DatedRecord = (u64, Record);

/// All that an answer is made of, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The configuration in force.
    pub desired: &'a Desired,
    /// What the node knows of the cluster.
    pub status: &'a buoy_core::Status,
    /// The moment of `status` by the wall clock, in milliseconds since 1970.
    pub now: u64,
    /// What the slow side knows of the services.
    pub services: &'a [ServiceReport],
    /// What is to be said of the host.
    pub host: &'a HostReport,
    /// The latest records, oldest first.
    pub events: &'a [DatedRecord],
}
