//! Turns decisions into plain English, for the log, `status`, `why` and the event list alike.
//!
//! One sentence per fact, with names instead of ids. The VIP itself is always "it": every reader
//! prints its name beside the sentence.

use buoy_core::{Exclusion, Standing};
use buoy_model::{
    BackendState, Balance, Cause, Desired, Fact, Failback, LinkId, Mode, NodeId, Record, Safety,
};
use std::time::Duration;

/// Speaks about one configuration.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    desired: &'a Desired,
}

/// How loudly a fact is to be said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gravity {
    /// A decision or a change that is in order.
    Info,
    /// Worth waking someone.
    Warn,
    /// The cluster cannot do its duty until someone acts.
    Error,
}

impl<'a> Words<'a> {
    /// Names are those of this configuration.
    pub const fn new(desired: &'a Desired) -> Self {
        Self { desired }
    }

    /// The name of the group that a record is about.
    pub fn vip(&self, record: &Record) -> Option<String> {
        let id = record.group?;
        // A reload may have taken the group out of the file; its last record still counts.
        Some(self.desired.group(id).map_or_else(|| format!("#{:08x}", id.0), |g| g.name.clone()))
    }

    /// What happened, as a sentence.
    pub fn fact(&self, fact: &Fact) -> String {
        let me = self.node(self.desired.me);
        match fact {
            Fact::Acquired { epoch, cause, took } => {
                let cause = self.cause(cause);
                format!("{me} took it over: {cause} (epoch {epoch}, after {})", span(*took))
            }
            Fact::Released { epoch, cause } => {
                format!("{me} gave it up: {} (epoch {epoch})", self.cause(cause))
            }
            Fact::OwnerHeard { node, epoch } => {
                format!("{} owns it now (epoch {epoch})", self.node(*node))
            }
            Fact::PeerUp { node, incarnation: _ } => format!("{} is heard", self.node(*node)),
            Fact::PeerDown { node, silent } => {
                format!("{} has been silent for {}", self.node(*node), span(*silent))
            }
            Fact::DuplicateNode { node } => format!(
                "two agents say that they are {}: stop one of them, or give it its own `node` name",
                self.node(*node)
            ),
            Fact::Conflict { address, mac, defended } => {
                let answer = if *defended { "answered" } else { "answered less than 10 s ago" };
                format!(
                    "{mac} claims {address}, which {me} serves ({answer}): \
                     find that host and take the address off it"
                )
            }
            Fact::Restored { address } => {
                format!("somebody removed {address} from {me}; it was put back")
            }
            Fact::Link { link, up: true } => format!("{} of {me} has carrier", self.link(*link)),
            Fact::Link { link, up: false } => {
                format!("{} of {me} lost its carrier", self.link(*link))
            }
            Fact::Stalled { late } => {
                format!("the agent of {me} was not run by the kernel for {}", span(*late))
            }
            Fact::Drained { reason } => format!("{me} is drained: {reason}"),
            Fact::Undrained => format!("{me} takes part again"),
        }
    }

    /// Why a group changed hands, as a clause that follows "took it over:" or "gave it up:".
    pub fn cause(&self, cause: &Cause) -> String {
        let me = self.node(self.desired.me);
        match cause {
            Cause::NoOwner => "nobody had it".into(),
            Cause::OwnerSilent { node, silent } => {
                format!("{} was silent for {}", self.node(*node), span(*silent))
            }
            Cause::OwnerReleased { node } => format!("{} gave it up", self.node(*node)),
            Cause::LeaseExpired => format!("{me} was without a majority for a whole lease"),
            Cause::Drain => format!("the operator drains {me}"),
            Cause::Stop => format!("the agent of {me} stops"),
            Cause::CarrierLost { link } => format!("{} lost its carrier", self.link(*link)),
            Cause::Failback { to } => {
                format!("{} is the better place and is fit again", self.node(*to))
            }
            Cause::BetterOwner { node } => {
                format!("{} owns it too and comes first", self.node(*node))
            }
            Cause::Reload => format!("the configuration of {me} changed"),
            Cause::Stalled => format!("the agent of {me} was frozen for longer than the lease"),
        }
    }

    /// Why a member is what it is to a group, as a sentence without its name.
    pub fn standing(&self, standing: Standing) -> String {
        match standing {
            Standing::Owner => "owns it".into(),
            Standing::Wants => "asks for votes".into(),
            Standing::Candidate => "could take it".into(),
            Standing::Excluded(exclusion) => self.exclusion(exclusion),
        }
    }

    /// Why a member cannot take a group.
    pub fn exclusion(&self, exclusion: Exclusion) -> String {
        match exclusion {
            Exclusion::NotAllowed => "not among the `nodes` of this VIP".into(),
            Exclusion::NeverHeard => "never heard since this agent started".into(),
            Exclusion::Silent(silent) => format!("silent for {}", span(silent)),
            Exclusion::Draining => "drained by the operator".into(),
            Exclusion::NoCarrier(link) => format!("{} has no carrier", self.link(link)),
            Exclusion::NotOffered => {
                "heard, but does not offer itself: no carrier there, or another configuration"
                    .into()
            }
            Exclusion::Listening(left) => {
                format!("started lately: listens for owners for another {}", span(left))
            }
        }
    }

    /// The name of a node; its id where the configuration has it no more.
    pub fn node(&self, id: NodeId) -> String {
        self.desired.node(id).map_or_else(|| format!("node #{:08x}", id.0), |n| n.name.clone())
    }

    /// The name of an interface that carries a VIP; its index for any other.
    pub fn link(&self, id: LinkId) -> String {
        let addresses = self.desired.groups.iter().flat_map(|g| &g.addresses);
        addresses
            .filter(|a| a.link == Some(id))
            .map(|a| a.link_name.clone())
            .find(|name| !name.is_empty())
            .unwrap_or_else(|| format!("interface {}", id.0))
    }
}

/// A fact's name for programs.
pub const fn kind(fact: &Fact) -> &'static str {
    match fact {
        Fact::Acquired { .. } => "acquired",
        Fact::Released { .. } => "released",
        Fact::OwnerHeard { .. } => "owner_heard",
        Fact::PeerUp { .. } => "peer_up",
        Fact::PeerDown { .. } => "peer_down",
        Fact::DuplicateNode { .. } => "duplicate_node",
        Fact::Conflict { .. } => "conflict",
        Fact::Restored { .. } => "restored",
        Fact::Link { up: true, .. } => "link_up",
        Fact::Link { up: false, .. } => "link_down",
        Fact::Stalled { .. } => "stalled",
        Fact::Drained { .. } => "drained",
        Fact::Undrained => "undrained",
    }
}

/// How loudly to log a fact.
pub const fn gravity(fact: &Fact) -> Gravity {
    match fact {
        Fact::Acquired { .. }
        | Fact::Released { .. }
        | Fact::OwnerHeard { .. }
        | Fact::PeerUp { .. }
        | Fact::Link { up: true, .. }
        | Fact::Drained { .. }
        | Fact::Undrained => Gravity::Info,
        Fact::PeerDown { .. }
        | Fact::Conflict { .. }
        | Fact::Restored { .. }
        | Fact::Link { up: false, .. }
        | Fact::Stalled { .. } => Gravity::Warn,
        Fact::DuplicateNode { .. } => Gravity::Error,
    }
}

/// The word of the file for a safety.
pub const fn safety(safety: Safety) -> &'static str {
    match safety {
        Safety::Exclusive => "exclusive",
        Safety::Available => "available",
    }
}

/// When a group goes back to a better node, as a clause.
pub fn failback(failback: Failback) -> String {
    match failback {
        Failback::Never => "never".into(),
        Failback::After(Duration::ZERO) => "now".into(),
        Failback::After(wait) => format!("after {}", span(wait)),
    }
}

/// The word of the file for an engine.
pub const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Kernel => "kernel",
        Mode::Proxy => "proxy",
    }
}

/// The word of the file for a way of balancing.
pub const fn balance(balance: Balance) -> &'static str {
    match balance {
        Balance::Hash => "hash",
        Balance::RoundRobin => "roundrobin",
        Balance::LeastConnections => "leastconn",
    }
}

/// A backend's state for programs.
pub const fn backend_state(state: BackendState) -> &'static str {
    match state {
        BackendState::Unknown => "unknown",
        BackendState::Up => "up",
        BackendState::Down => "down",
    }
}

/// A duration as people say it: the two largest units, and no more digits than one can use.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let millis = duration.as_secs_f64() * 1e3;
    match seconds {
        0 if duration.is_zero() => "0 ms".into(),
        0 if millis < 9.95 => format!("{millis:.1} ms"),
        0 if millis < 999.5 => format!("{millis:.0} ms"),
        0..=9 => format!("{:.1} s", millis / 1e3),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds / 60 % 60),
        86_400.. => format!("{}d{}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}
