//! What a node can say about itself when asked: values for `status`, `why`, metrics and the page.

use crate::budget::{Slack, Uptime};
use alloc::string::String;
use alloc::vec::Vec;
use buoy_model::{AdvertReject, Epoch, GroupId, Incarnation, Instant, LinkId, NodeId, Record};
use core::net::IpAddr;
use core::time::Duration;

/// The whole node at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// When it was asked.
    pub at: Instant,
    /// Who it is.
    pub me: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Generation of its configuration.
    pub generation: u64,
    /// Digest of its configuration.
    pub digest: u32,
    /// The operator's reason, while it is drained.
    pub draining: Option<String>,
    /// For how much longer it is drained, if the operator gave an end.
    pub draining_for: Option<Duration>,
    /// The operator's reason, while it is cordoned.
    pub cordoned: Option<String>,
    /// The term that this node asks for now.
    pub term: Duration,
    /// Who has to agree before it serves an exclusive group.
    pub quorum: Quorum,
    /// How often since the start two nodes turned out to have served a group at once
    /// (`Safety::Available` only).
    pub overlaps: u64,
    /// All members, itself among them, sorted by id.
    pub nodes: Vec<NodeStatus>,
    /// All groups, sorted by id.
    pub groups: Vec<GroupStatus>,
    /// Authentic datagrams that changed nothing.
    pub ignored: Ignored,
}

/// The votes of the cluster, as this node counts them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Quorum {
    /// Members, each with one vote.
    pub members: usize,
    /// Members that vote and never own.
    pub witnesses: usize,
    /// Votes that an exclusive group needs.
    pub needed: usize,
    /// Members that are heard now, this node among them.
    pub heard: usize,
}

/// Authentic datagrams that changed nothing, by reason, since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ignored {
    /// Older than one heard before: late, repeated or replayed.
    pub stale: u64,
    /// Of a life that has not proven itself: a restart under way, or a replay.
    pub unproven: u64,
    /// Of a second agent under one name.
    pub duplicate: u64,
    /// Of a node that is not in the configuration.
    pub stranger: u64,
    /// Advertisements of VRRP about virtual routers that this node has no part in.
    pub foreign_router: u64,
}

/// Heartbeats of the last moments, as far as they had the time to be answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Beats {
    /// So many were sent.
    pub sent: u8,
    /// So many of them got no answer.
    pub unanswered: u8,
}

/// One member, as this node sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeStatus {
    /// Who.
    pub id: NodeId,
    /// Heard lately (always, for itself).
    pub alive: bool,
    /// How long ago it was last heard; `None`: never, or itself.
    pub heard: Option<Duration>,
    /// It may be silent for so long before it counts as gone.
    pub silence: Duration,
    /// How long ago it was heard, leg by leg, for the legs that both nodes have; empty: itself.
    pub legs: Vec<Option<Duration>>,
    /// Round trip of the last answered heartbeat; `None`: never, or itself.
    pub round_trip: Option<Duration>,
    /// How many of this node's latest heartbeats to it were answered.
    pub beats: Beats,
    /// Whether it answers this node's heartbeats, so the path works both ways.
    pub hears_us: bool,
    /// Whether it is drained.
    pub draining: bool,
    /// Votes and never owns.
    pub witness: bool,
    /// Digest of its configuration, once heard.
    pub digest: Option<u32>,
    /// It has started lately and grants nothing for so much longer; `None`: it votes, or has not
    /// been asked.
    pub votes_in: Option<Duration>,
    /// How many groups it serves.
    pub owns: usize,
}

/// One group, as this node sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupStatus {
    /// Which.
    pub id: GroupId,
    /// Who serves it, as far as this node has heard.
    pub owner: Option<NodeId>,
    /// The highest epoch heard of.
    pub epoch: Epoch,
    /// Since when this owner is known here.
    pub since: Option<Duration>,
    /// How much longer this node may serve it; `None` when it does not.
    pub lease_left: Option<Duration>,
    /// Which members' votes this node holds for it, itself among them.
    pub votes: Vec<NodeId>,
    /// To whom its owner gives it right now.
    pub yields_to: Option<NodeId>,
    /// An operator keeps it where it is.
    pub held: Option<Hold>,
    /// Every member, best first, with the reason why it does or does not own the group.
    pub candidates: Vec<Candidate>,
    /// The last change of owner that this node saw.
    pub last_change: Option<Record>,
    /// Its virtual routers, where VRRP decides about it.
    pub vrrp: Vec<RouterStatus>,
    /// How many packets about them were refused for which reason since the start; only what came.
    pub refused: Vec<(AdvertReject, u64)>,
    /// For how long it was served and for how long not, as far as this node has seen; `None`: VRRP decides about it.
    pub uptime: Option<Uptime>,
    /// What was left of its lease when this node renewed that; `None`: it is not served here, or by a lease of its own.
    pub slack: Option<Slack>,
}

/// A virtual router, as this node sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouterStatus {
    /// Its identifier (VRID).
    pub id: u8,
    /// Over IPv6.
    pub v6: bool,
    /// What this node is to it.
    pub state: RouterState,
    /// What this node says of itself now, with what its checks add.
    pub priority: u8,
    /// Time between two advertisements of whoever is active.
    pub interval: Duration,
    /// Who was heard last as the active one.
    pub heard: Option<RouterHeard>,
    /// A backup: how long until it takes over if nobody better is heard.
    pub takes_over_in: Option<Duration>,
    /// What its checks add to its priority, or take away.
    pub weight: i16,
    /// Others go first, whatever they have: that is why its priority is 1.
    pub gives_precedence: bool,
    /// How many packets it has sent and heard since it is known to this agent.
    pub traffic: RouterTraffic,
}

/// Advertisements of one virtual router on this node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RouterTraffic {
    /// Times that it was said what this node is.
    pub sent: u64,
    /// Packets of others that were believed.
    pub heard: u64,
    /// Those that were not, for each reason that there was.
    pub refused: Vec<(AdvertReject, u64)>,
}

/// What a node is to a virtual router (RFC 9568 §6.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RouterState {
    /// Takes no part.
    Stopped,
    /// Listens.
    Backup,
    /// Could be active, and waits until the whole group can.
    Due,
    /// Serves.
    Active,
}

/// Another router, as it was heard last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RouterHeard {
    /// Its address.
    pub source: IpAddr,
    /// What it says of itself.
    pub priority: u8,
    /// How long ago.
    pub ago: Duration,
}

/// A group that an operator keeps where it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hold {
    /// In the operator's words; `None`: only the owner knows.
    pub reason: Option<String>,
    /// For how much longer; `None`: until somebody moves or releases it, or only the owner knows.
    pub remaining: Option<Duration>,
}

/// One member's place in the line for a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// Who.
    pub node: NodeId,
    /// Its place in `prefer`, counted from 0.
    pub preferred: Option<usize>,
    /// What it is to the group.
    pub standing: Standing,
}

/// What a member is to a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// Serves it.
    Owner,
    /// Asks for votes.
    Wants,
    /// Could take it.
    Candidate,
    /// Cannot take it.
    Excluded(Exclusion),
}

/// Why a member cannot take a group, or only if nobody else can.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Exclusion {
    /// Not among the group's `nodes`.
    NotAllowed,
    /// Votes and never owns.
    Witness,
    /// Never heard since this agent started.
    NeverHeard,
    /// Not heard for so long.
    Silent(Duration),
    /// The operator drains it.
    Draining,
    /// Its interface has no carrier (known of this node only).
    NoCarrier(LinkId),
    /// Heard, but does not offer itself: no carrier there, or another configuration.
    NotOffered,
    /// It says that it takes it only if nobody else can; it knows why.
    Reluctant,
    /// It does not know yet of any backend of a service whether it is up: only if nobody else can (known of this node
    /// only).
    Unchecked,
    /// It sees no backend of a service up: only if nobody else can (known of this node only).
    NoBackend,
    /// A check of this name fails there: only if nobody else can (known of this node only).
    CheckFails(String),
    /// No live peer is heard on the interface, while another leg hears one: only if nobody else can
    /// (known of this node only).
    Unheard(LinkId),
    /// It came and went too often lately: only if nobody else can, for so much longer (known of this
    /// node only).
    Damped(Duration),
    /// The operator wants nothing new there: only if nobody else can (known of this node only).
    Cordoned,
    /// It hears too few members for a majority, so it asks for nothing (known of this node only).
    NoMajority,
    /// This agent has started lately and is still listening for owners.
    Listening(Duration),
}
