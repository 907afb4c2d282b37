//! Every decision: leases, placement, announcements, checks, balance, targets and why.
//!
//! Pure: `Node::handle(now, event, &mut out)` and `Node::deadline()`; time, randomness and settings
//! are arguments. Absent on purpose: I/O, clocks, threads, hash maps, `unsafe`, failure.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod node;
mod status;

pub use node::{Fence, Node, Settings};
pub use status::{Candidate, Exclusion, GroupStatus, NodeStatus, Standing, Status};
