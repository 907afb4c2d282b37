//! The HTTP API as values: what the agent answers, in which words, and a client that asks.
//!
//! `status` has the types of the largest answer, `lists` those of its parts, `problem` that of a refusal, `order` those of what operators order, `path` those of made-up packets, `pools` those of pools of addresses, `matrix` what each node hears of each other, `budget` how well each VIP has kept its promise,
//! `services` those of services and orders of their backends, `view` makes them from what the core knows, `words`
//! turns decisions into sentences for the log, the status and the event list alike, and `client`
//! asks over the agent's UNIX socket. A new endpoint is a type here, a route in the agent's
//! `server.rs` and a method of `Client`.

#![forbid(unsafe_code)]

mod budget;
pub mod client;
mod config;
mod drills;
mod instances;
mod lists;
mod matrix;
mod me;
mod order;
mod path;
pub mod pools;
mod problem;
mod services;
pub mod status;
mod stream;
pub mod view;
mod vrrp;
pub mod words;

pub use budget::{BudgetReply, BudgetView};
pub use client::{Client, ClientError, Edit, segment};
pub use config::{
    BaseView, ConfigReply, ConfigRequest, EditReply, HistoryReply, Origin, OriginView,
    RevisionView, RollbackRequest, StoreView, ValueView, ValuesReply,
};
pub use drills::{DRILL_REPEAT_MAX, DrillRequest, DrillTakeoverView, DrillView, DrillsReply};
pub use instances::{VrrpInstanceView, VrrpInstancesReply};
pub use lists::{
    ClusterReply, FailoverView, FailoversReply, NodeReply, NodesReply, VipReply, VipsReply,
};
pub use matrix::{HeardView, MatrixReply, MatrixRow, VipRoutersView};
pub use me::MeReply;
pub use order::{
    AnnounceRequest, DrainReply, DrainRequest, HoldRequest, MoveRequest, NodePatch, OrderReply,
    ReleaseRequest, UndrainRequest,
};
pub use path::{PathReply, WayView};
pub use pools::{
    PoolAddressView, PoolReply, PoolView, PoolsReply, ReservationRequest, ReservationView,
    ReservationsReply, ReservedReply,
};
pub use problem::{ConfigProblem, PROBLEM_TYPE, Problem, Span};
pub use services::{
    BackendFlows, BackendOrderReply, BackendOrderRequest, BackendReply, BackendsReply, FlowsReply,
    FlowsView, OrderedView, ServiceFlowsReply, ServiceReply, ServicesReply, backend_tag,
    haproxy_name, ordered_in, ordered_view, service_name,
};
pub use status::{
    BackendView, CandidateView, CheckView, ClusterStatus, EventView, EventsReply, HeldView,
    LegView, LinkView, LoopView, NodeView, OwnerReply, PhasesView, ReloadReply, ServiceView,
    TimingView, Traffic, VipAddressView, VipView, WhyReply,
};
pub use stream::StreamEvent;
pub use vrrp::{RouterHeardView, RouterView};
pub use words::Words;

use serde::Deserialize as _;
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

/// A whole number, or nothing. For JSON schema 5.0 is one, and some languages know no other numbers.
fn whole<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(reader)? else { return Ok(None) };
    // So far every whole number is one of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let is_whole = |n: &f64| n.fract() == 0.0 && (0.0..=EXACT).contains(n);
    let read = number.as_u64().or_else(|| number.as_f64().filter(is_whole).map(|n| n as u64));
    read.map(Some).ok_or_else(|| serde::de::Error::custom("a whole number is asked for"))
}

#[cfg(test)]
mod tests {
    use crate::DrainRequest;

    #[test]
    fn a_time_is_a_whole_number_however_it_is_written() {
        let read = |text: &str| serde_json::from_str::<DrainRequest>(text).map(|r| r.for_ms).ok();
        assert_eq!(read(r#"{"for_ms":5}"#), Some(Some(5)));
        assert_eq!(read(r#"{"for_ms":5.0}"#), Some(Some(5)));
        assert_eq!(read(r#"{"for_ms":null}"#), Some(None));
        assert_eq!(read("{}"), Some(None));
        for wrong in
            [r#"{"for_ms":5.5}"#, r#"{"for_ms":-1}"#, r#"{"for_ms":1e300}"#, r#"{"for_ms":"5"}"#]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
