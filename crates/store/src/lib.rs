//! What was edited beside the file: the same on all nodes, durable, with its history.
//!
//! ```text
//! edit ─► any node ─► the leader ─► a majority's disks ─► State on every node ─► the agent lays it over the file
//! ```
//!
//! `state` decides what an edit becomes; `embedded` has the nodes of the file agree on the order of edits (openraft,
//! with `raft`, `disk`, `net` and `serve` below it), `etcd` has a cluster of that do the same. Nothing that
//! moves an address waits for any of this: what was agreed stays on disk, and is used without asking.

#![forbid(unsafe_code)]

mod choice;
mod disk;
mod embedded;
mod errand;
mod etcd;
mod frame;
mod net;
mod raft;
mod secured;
mod serve;
pub mod state;
mod tls;

pub use choice::{Store, Summary};
pub use embedded::{Embedded, Options, Pace};
pub use errand::{Arrived, Done, Errand, Lost};
pub use etcd::Etcd;
pub use secured::EtcdTls;
pub use state::{Change, Changed, Content, Edit, Entry, NoSuchRevision, Revision, State};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// A node of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Where it listens, the best first.
    pub addresses: Vec<SocketAddr>,
    /// Votes and never owns.
    pub witness: bool,
}

/// Who agrees.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peers {
    /// The name of this node.
    pub me: String,
    /// The number of the cluster.
    pub cluster: u32,
    /// All nodes, this one among them.
    pub nodes: Vec<Peer>,
}

impl Peers {
    /// Who makes the first membership: one and the same on all nodes, so that there are never two.
    pub fn founder(&self) -> Option<&str> {
        let owners = || self.nodes.iter().filter(|peer| !peer.witness);
        let least = owners().min_by(|a, b| a.name.cmp(&b.name));
        least.or_else(|| self.nodes.first()).map(|peer| peer.name.as_str())
    }

    /// More than half of all.
    pub const fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }
}

/// Why an edit was not taken. Unless it says so, nothing was changed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Refused {
    /// Others came first; this revision holds.
    Moved(u64),
    /// It does not fit, in words.
    Full(String),
    /// Too few nodes answer.
    NoMajority {
        /// Nodes that do not.
        silent: Vec<String>,
        /// Nodes that must.
        needed: usize,
        /// Of so many.
        of: usize,
    },
    /// There was no edit before, and the node that takes the first one does not answer.
    NoFounder(String),
    /// The node that was asked does not lead.
    NotLeader,
    /// No answer came: it may have been taken, or be taken yet.
    Unsure,
    /// No server of etcd answers, in words.
    NoEtcd(String),
    /// The disk, or what is on it, fails.
    Broken(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved(revision) => write!(f, "revision {revision} came first; look at it and try again"),
            Self::Full(why) => f.write_str(why),
            Self::NoMajority { silent, needed, of } => write!(
                f,
                "an edit needs {needed} of {of} nodes, and {} not answer: start {} agent, or write the change into \
                 the file of every node; VIPs go on as they are",
                does(silent),
                if silent.len() > 1 { "an" } else { "its" }
            ),
            Self::NoFounder(name) => write!(
                f,
                "the first edit of all needs {name}, which does not answer: start its agent; later ones need any \
                 majority"
            ),
            Self::NotLeader => f.write_str("no node leads at the moment: try again in some seconds"),
            Self::Unsure => f.write_str(
                "no answer came, so the edit may have been taken: look at the history before trying again",
            ),
            Self::NoEtcd(why) => {
                write!(f, "etcd does not answer ({why}): look after it; VIPs go on as they are")
            }
            Self::Broken(why) => write!(f, "the store of this node does not work: {why}"),
        }
    }
}

impl std::error::Error for Refused {}

fn does(names: &[String]) -> String {
    let verb = if names.len() > 1 { "do" } else { "does" };
    format!("{} {verb}", names.join(", "))
}
