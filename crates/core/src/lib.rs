//! Every decision: leases, placement, announcements, checks, balance, targets and why.
//!
//! Pure: `Node::handle(now, event, &mut out)` and `Node::deadline()`; time, randomness and settings
//! are arguments. Absent on purpose: I/O, clocks, threads, hash maps, `unsafe`, failure.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod announce;
pub mod backend_orders;
pub mod balance;
mod budget;
pub mod check;
mod damping;
pub mod eject;
pub mod exchange;
pub mod fast;
mod hear;
pub mod history;
mod judge;
pub mod jury;
mod last_owner;
mod legs;
pub mod load;
pub mod locality;
pub mod maglev;
mod mutation;
mod node;
mod orders;
mod ownership;
pub mod patience;
mod peer;
pub mod pick;
mod placement;
mod random;
mod reload;
mod reluctance;
mod rest;
mod rhythm;
pub mod routes;
mod speak;
mod status;
pub mod stick;
mod tempo;
pub mod transition;
mod view;
mod voter;
mod votes;
mod vrrp;
mod vrrp_group;
pub mod weigh;
mod why;

pub use budget::{Gaps, Slack, Uptime};
#[cfg(feature = "mutants")]
pub use mutation::Mutation;
pub use node::{Fence, Node, Settings};
pub use orders::OrderError;
pub use status::{
    Beats, Candidate, Exclusion, GroupStatus, Hold, Ignored, NodeStatus, Quorum, RouterHeard,
    RouterState, RouterStatus, RouterTraffic, Standing, Status,
};
