//! The HTTP API as values: what the agent answers, in which words, and a client that asks.
//!
//! `status` has the types of every answer, `view` makes them from what the core knows, `words`
//! turns decisions into sentences for the log, the status and the event list alike, and `client`
//! asks over the agent's UNIX socket. A new endpoint is a type here, a route in the agent's
//! `server.rs` and a method of `Client`.

#![forbid(unsafe_code)]

pub mod client;
pub mod status;
pub mod view;
pub mod words;

pub use client::{Client, ClientError};
pub use status::{
    BackendView, CandidateView, ClusterStatus, DrainReply, DrainRequest, EventView, EventsReply,
    LoopView, NodeView, OwnerReply, Problem, ReloadReply, ServiceView, VipAddressView, VipView,
    WhyReply,
};
pub use words::Words;

/// Where the agent listens, unless told otherwise.
pub const SOCKET_DEFAULT: &str = "/run/buoy/api.sock";
/// Bytes of a request's body.
pub const BODY_MAX: usize = 64 << 10;
/// Bytes of an answer that the client is ready to read.
pub const REPLY_MAX: usize = 64 << 20;
/// Characters of an operator's reason for a drain.
pub const REASON_MAX: usize = 200;
