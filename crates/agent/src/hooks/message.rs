//! What hooks are told: one JSON object, whose fields stay, or what keepalived tells its scripts.

use buoy_api::PhasesView;
use buoy_model::{Desired, Fact, HookTopic, VrrpState};
use serde::{Serialize, Serializer};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Message {
    /// What kind of thing.
    #[serde(serialize_with = "name")]
    pub(crate) topic: HookTopic,
    /// What it is, for programs.
    pub(crate) kind: &'static str,
    /// Which VIP it is about.
    pub(crate) vip: Option<String>,
    /// What it is, for people.
    pub(crate) sentence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phases: Option<PhasesView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backend: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

fn name<S: Serializer>(topic: &HookTopic, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(topic.name())
}

impl Message {
    pub(crate) fn new(
        topic: HookTopic,
        kind: &'static str,
        vip: Option<&str>,
        sentence: String,
    ) -> Self {
        let vip = vip.map(str::to_owned);
        Self {
            topic,
            kind,
            vip,
            sentence,
            phases: None,
            service: None,
            backend: None,
            state: None,
            reason: None,
        }
    }
}

impl Message {
    /// What a record says.
    pub(crate) fn of(kind: &'static str, vip: Option<&str>, sentence: &str, fact: &Fact) -> Self {
        let message = Self::new(topic(fact), kind, vip, sentence.to_owned());
        Self { phases: buoy_api::view::phases(fact), ..message }
    }
}

/// What a record is about.
const fn topic(fact: &Fact) -> HookTopic {
    match fact {
        Fact::Acquired { .. }
        | Fact::Released { .. }
        | Fact::OwnerHeard { .. }
        | Fact::Served { .. }
        | Fact::Overlap { .. }
        | Fact::Held { .. }
        | Fact::Freed { .. }
        | Fact::Announced { .. }
        | Fact::Occupied { .. }
        | Fact::Conflict { .. }
        | Fact::Restored { .. }
        | Fact::AdvertRefused { .. }
        | Fact::AdvertDiffers { .. } => HookTopic::Ownership,
        Fact::BackendOrdered { .. } | Fact::BackendOrderDropped { .. } => HookTopic::Health,
        Fact::PeerUp { .. }
        | Fact::PeerDown { .. }
        | Fact::PeerGoodbye { .. }
        | Fact::Unheard { .. }
        | Fact::Damped { .. }
        | Fact::Tempo { .. }
        | Fact::DuplicateNode { .. }
        | Fact::Link { .. }
        | Fact::Stalled { .. }
        | Fact::Drained { .. }
        | Fact::Undrained { .. }
        | Fact::Cordoned { .. }
        | Fact::Uncordoned { .. } => HookTopic::Nodes,
    }
}

/// What is told to one hook at one time.
#[derive(Clone, Debug)]
pub(crate) enum Telling {
    Event(Box<Told>),
    State(StateTold),
}

/// In which state a VIP is on this node, as keepalived would say it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct StateTold {
    pub(crate) kind: CallKind,
    pub(crate) name: String,
    pub(crate) state: VrrpState,
    pub(crate) priority: u32,
}

/// What the name is of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CallKind {
    /// A VIP.
    Instance,
    /// VIPs that move together.
    Group,
}

impl StateTold {
    /// The last four arguments of a `notify` script (keepalived.conf(5)).
    pub(crate) fn arguments(&self) -> [String; 4] {
        let kind = self.kind.name().to_owned();
        [kind, self.name.clone(), self.state.name().to_owned(), self.priority.to_string()]
    }

    /// A line of `vrrp_notify_fifo` (keepalived.conf(5)).
    pub(crate) fn line(&self) -> String {
        format!("{} \"{}\" {} {}\n", self.kind.name(), self.name, self.state.name(), self.priority)
    }
}

impl CallKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Instance => "INSTANCE",
            Self::Group => "GROUP",
        }
    }
}

/// A message on its way.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Told {
    /// The same when it is told again, and no other's.
    pub(crate) id: String,
    /// When, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    pub(crate) cluster: String,
    /// Who tells.
    pub(crate) node: String,
    #[serde(flatten)]
    pub(crate) message: Message,
}

impl Told {
    /// One line.
    pub(crate) fn line(&self) -> Result<Vec<u8>, String> {
        let mut line = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        line.push(b'\n');
        Ok(line)
    }
}

/// Numbers messages.
#[derive(Debug)]
pub(crate) struct Ids {
    /// Of this life of the agent.
    life: u64,
    next: AtomicU64,
}

impl Ids {
    pub(crate) fn new() -> Self {
        let mut life = [0; 8];
        // Without random numbers the time is different enough.
        let life = match getrandom::fill(&mut life) {
            Ok(()) => u64::from_le_bytes(life),
            Err(_) => now_ms(),
        };
        Self { life, next: AtomicU64::new(1) }
    }

    pub(crate) fn number(&self, message: Message, desired: &Desired) -> Told {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Told {
            id: format!("{:016x}-{number}", self.life),
            at_ms: now_ms(),
            cluster: desired.cluster_name.clone(),
            node: desired.node_name(desired.me).to_owned(),
            message,
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
