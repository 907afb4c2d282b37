//! Orders of operators on their way to the node that they are for, over the connections by which nodes agree.
//!
//! An errand is sent once, on a connection of its own: on one that has been silent for long it could be lost after it was
//! taken, and would have to be sent again to find out.

use serde::{Deserialize, Serialize};
use std::fmt;
use tokio::sync::oneshot;

/// Errands that wait for the agent; it takes them at once.
pub(crate) const WAITING_MAX: usize = 16;

/// A request of the API, and who made it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Errand {
    /// As in HTTP.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// JSON.
    pub body: String,
    /// The user, as the node knows him that he has asked.
    pub user: String,
    /// What he may do there.
    pub role: String,
}

/// What came of it, as in HTTP.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Done {
    /// The status code.
    pub status: u16,
    /// The entity tag.
    pub tag: Option<String>,
    /// JSON.
    pub body: String,
}

/// An errand that has come here.
#[derive(Debug)]
pub struct Arrived {
    /// The name of the node that sent it.
    pub from: String,
    /// What is asked.
    pub errand: Errand,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Done>,
}

/// Why there is no report of an errand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Lost {
    /// There is no way to other nodes: why.
    NoWay(String),
    /// It was not sent: why.
    Unsent(String),
    /// It was sent, and no answer came: it may have been done, or be done yet. What the network said.
    Unsure(String),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NoWay(why) | Self::Unsent(why) | Self::Unsure(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for Lost {}
