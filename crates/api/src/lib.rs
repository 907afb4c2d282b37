//! The HTTP API as values: what the agent answers, in which words, and a client that asks.
//!
//! `status` has the types of the largest answer, `lists` those of its parts, `problem` that of a refusal, `order` those of what operators order, `path` those of made-up packets,
//! `services` those of services and orders of their backends, `view` makes them from what the core knows, `words`
//! turns decisions into sentences for the log, the status and the event list alike, and `client`
//! asks over the agent's UNIX socket. A new endpoint is a type here, a route in the agent's
//! `server.rs` and a method of `Client`.

#![forbid(unsafe_code)]

pub mod client;
mod config;
mod lists;
mod order;
mod path;
mod problem;
mod services;
pub mod status;
mod stream;
pub mod view;
pub mod words;

pub use client::{Client, ClientError};
pub use config::{
    BaseView, ConfigReply, ConfigRequest, EditReply, HistoryReply, Origin, OriginView,
    RevisionView, RollbackRequest, StoreView,
};
pub use lists::{
    ClusterReply, FailoverView, FailoversReply, NodeReply, NodesReply, VipReply, VipsReply,
};
pub use order::{
    DrainReply, DrainRequest, HoldRequest, MoveRequest, NodePatch, OrderReply, ReleaseRequest,
};
pub use path::{PathReply, WayView};
pub use problem::{ConfigProblem, PROBLEM_TYPE, Problem, Span};
pub use services::{
    BackendOrderReply, BackendOrderRequest, BackendReply, BackendsReply, FlowsReply, FlowsView,
    OrderedView, ServiceReply, ServicesReply, haproxy_name, ordered_view, service_name,
};
pub use status::{
    BackendView, CandidateView, CheckView, ClusterStatus, EventView, EventsReply, HeldView,
    LegView, LinkView, LoopView, NodeView, OwnerReply, PhasesView, ReloadReply, ServiceView,
    TimingView, Traffic, VipAddressView, VipView, WhyReply,
};
pub use stream::StreamEvent;
pub use words::Words;

use std::time::Duration;

/// Where the agent listens, unless told otherwise.
pub const SOCKET_DEFAULT: &str = "/run/buoy/api.sock";
/// Bytes of a request's body.
pub const BODY_MAX: usize = 1 << 20;
/// Media type of a stream of events.
pub const STREAM_TYPE: &str = "text/event-stream";
/// Header with the number of the last event that a client of a stream has seen.
pub const LAST_EVENT_ID: &str = "last-event-id";
/// Longest wait for news (`?wait=`).
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Bytes of an answer that the client is ready to read.
pub const REPLY_MAX: usize = 64 << 20;
/// Characters of an operator's reason.
pub const REASON_MAX: usize = 200;
/// Longest hold or drain that ends by itself: what is longer is for good.
pub const ORDER_FOR_MAX: Duration = Duration::from_secs(365 * 86_400);
