//! One of the places where edits can be kept, behind one face.

use crate::{Arrived, Done, Edit, Embedded, Errand, Etcd, Lost, Refused, State};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Where edits are kept.
pub enum Store {
    /// On the nodes themselves.
    Embedded(Embedded),
    /// In etcd.
    Etcd(Etcd),
    /// Nowhere, for a reason in words.
    Nowhere(watch::Sender<Arc<State>>, String),
}

impl Store {
    /// None, and why.
    pub fn nowhere(why: impl Into<String>) -> Self {
        Self::Nowhere(watch::Sender::default(), why.into())
    }

    /// What was edited, as far as this node knows.
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        match self {
            Self::Embedded(embedded) => embedded.state(),
            Self::Etcd(etcd) => etcd.state(),
            Self::Nowhere(state, _) => state.subscribe(),
        }
    }

    /// Has an edit taken: the number of the revision it became.
    pub async fn edit(&self, edit: Edit) -> Result<u64, Refused> {
        match self {
            Self::Embedded(embedded) => embedded.edit(edit).await,
            Self::Etcd(etcd) => etcd.edit(edit).await,
            Self::Nowhere(_, why) => Err(Refused::Broken(why.clone())),
        }
    }

    /// Sends an errand to another node: only where the nodes themselves keep edits do they speak to each other.
    pub async fn send(&self, node: &str, errand: Errand) -> Result<Done, Lost> {
        match self {
            Self::Embedded(embedded) => embedded.send(node, errand).await,
            Self::Etcd(_) => Err(Lost::NoWay("edits are kept in etcd".into())),
            Self::Nowhere(_, why) => Err(Lost::NoWay(why.clone())),
        }
    }

    /// The errands that other nodes send here from now on.
    pub fn errands(&self) -> Option<mpsc::Receiver<Arrived>> {
        match self {
            Self::Embedded(embedded) => Some(embedded.errands()),
            Self::Etcd(_) | Self::Nowhere(..) => None,
        }
    }

    /// What does not work, in sentences that say what to do.
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::Embedded(embedded) => embedded.problems(),
            Self::Etcd(etcd) => etcd.problems(),
            Self::Nowhere(..) => Vec::new(),
        }
    }

    /// What it is, and who agrees on edits at the moment.
    pub fn summary(&self) -> Summary {
        match self {
            Self::Embedded(embedded) => {
                Summary { kind: "embedded", leader: embedded.leader(), voters: embedded.voters() }
            }
            Self::Etcd(_) => Summary { kind: "etcd", leader: None, voters: Vec::new() },
            Self::Nowhere(..) => Summary { kind: "none", leader: None, voters: Vec::new() },
        }
    }
}

/// What a store is, for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Summary {
    /// As in the file.
    pub kind: &'static str,
    /// The node that orders edits.
    pub leader: Option<String>,
    /// The nodes whose majority takes an edit; none before the first one.
    pub voters: Vec<String>,
}
