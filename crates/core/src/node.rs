//! One node of the cluster: carries events to the machines and their actions out.

use crate::Status;
use alloc::sync::Arc;
use alloc::vec::Vec;
use buoy_model::{Action, Desired, Event, Incarnation, Instant, Message, NodeId};

/// What a node is told once, at its start.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// This life; random, not zero.
    pub incarnation: Incarnation,
    /// Seed of the challenges; random.
    pub seed: u64,
    /// What stops this host from answering when its lease ends.
    pub fence: Fence,
}

/// The strongest line of defence of this host; it decides the term that the node asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fence {
    /// The kernel gate: stops at the deadline itself.
    Gate,
    /// The kernel's address lifetime: stops within `KERNEL_FENCE_LAG` of the last refresh.
    Lifetime,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    desired: Arc<Desired>,
}

impl Node {
    /// A node that has just started: it knows nobody, votes for nobody and listens.
    pub fn new(_now: Instant, desired: Arc<Desired>, _settings: Settings) -> Self {
        Self { desired }
    }

    /// Takes one event; what is to be done is appended to `out`, to be applied in order.
    pub fn handle(&mut self, _now: Instant, _event: Event<'_>, _out: &mut Vec<Action>) {}

    /// When to call `handle` with `Event::Tick`.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Fills in the datagram that an `Action::Heartbeat` or `Action::Answer` speaks of. To be called
    /// for each such action before the next event is handled.
    pub fn compose(
        &mut self,
        _now: Instant,
        _action: &Action,
        _message: &mut Message,
    ) -> Option<NodeId> {
        None
    }

    /// What this node knows and why it does what it does.
    pub fn status(&self, _now: Instant) -> Status {
        Status {
            at: _now,
            me: self.desired.me,
            incarnation: Incarnation(0),
            generation: self.desired.generation,
            digest: self.desired.digest,
            draining: None,
            nodes: Vec::new(),
            groups: Vec::new(),
        }
    }
}
