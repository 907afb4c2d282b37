//! Answers the HTTP API on the agent's UNIX socket.
//!
//! The server knows the agent only through [`Agent`]; the daemon implements it and a test's fake
//! does too.

use buoy_api::ReloadReply;
use buoy_api::view::{DatedRecord, HostReport, ServiceReport};
use buoy_core::Status;
use buoy_model::{Desired, DrainOrder};
use std::fmt;
use std::future::Future;
use std::sync::Arc;

/// What the server needs of the daemon. Implement the `async` ones with `async fn`.
pub trait Agent: Send + Sync + 'static {
    /// The configuration in force.
    fn desired(&self) -> Arc<Desired>;
    /// What the node knows, asked of the real-time loop.
    fn status(&self) -> impl Future<Output = Result<Status, LoopGone>> + Send;
    /// The latest records, at most so many, oldest first.
    fn events(&self, count: usize) -> Vec<DatedRecord>;
    /// What the checks and the engines know of the services, in any order.
    fn services(&self) -> Vec<ServiceReport>;
    /// Lines of defence, problems, scheduling and counters.
    fn host(&self) -> HostReport;
    /// Hands the order to the real-time loop; its reason says already who gave it.
    fn drain(&self, order: DrainOrder) -> impl Future<Output = Result<(), LoopGone>> + Send;
    /// Reads the file again and applies the difference; an invalid file changes nothing.
    fn reload(&self) -> impl Future<Output = Result<ReloadReply, ReloadRefusal>> + Send;
}

/// The real-time loop has ended or does not take orders.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LoopGone;

impl fmt::Display for LoopGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the agent's real-time loop does not answer; its log says why")
    }
}

impl std::error::Error for LoopGone {}

/// Why a reload changed nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReloadRefusal {
    /// The file is invalid: the whole report, ready to print.
    Invalid(String),
    /// There is nobody to apply it.
    LoopGone,
}

impl From<LoopGone> for ReloadRefusal {
    fn from(LoopGone: LoopGone) -> Self {
        Self::LoopGone
    }
}
