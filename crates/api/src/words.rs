//! Turns decisions into plain English, for the log, `status`, `why` and the event list alike.
//!
//! One sentence per fact, with names instead of ids. The VIP itself is always "it": every reader
//! prints its name beside the sentence.

use crate::vrrp;
use buoy_core::{Exclusion, Standing};
use buoy_model::{
    BackendState, Balance, Cause, CheckKind, Desired, Fact, Failback, FlowFields, Group, HttpCheck,
    LinkId, Mode, Node, NodeCheckKind, NodeId, Record, Safety, Statuses,
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

    /// The configuration whose names these are.
    pub const fn desired(&self) -> &'a Desired {
        self.desired
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
            Fact::Occupied { address, mac } => format!(
                "{mac} answers for {address}, which no node of the cluster has: the configuration with it is refused; \
                 choose another address, or take it off that host"
            ),
            Fact::Conflict { address, mac, defended, claims } => format!(
                "{mac} claims {address}, which {me} serves ({}{}): \
                 unless it is a node of this cluster, find that host and take the address off it",
                if *defended { "answered" } else { "answered less than 10 s ago" },
                repeated(*claims)
            ),
            Fact::Restored { address } => {
                format!("somebody removed {address} from {me}; it was put back")
            }
            Fact::Link { link, up } => {
                let carrier = if *up { "has carrier" } else { "lost its carrier" };
                format!("{} of {me} {carrier}", self.link(*link))
            }
            Fact::Stalled { late } => {
                format!("the agent of {me} was not run by the kernel for {}", span(*late))
            }
            Fact::PeerGoodbye { node } => {
                format!("the agent of {} died, and its addresses are withdrawn", self.node(*node))
            }
            Fact::Served { epoch, detect, decide, address, announce, first_packet } => {
                let steps = [("votes", decide), ("address", address), ("announced", announce)];
                let steps = steps.map(|(step, at)| format!("{step} {}, ", span(*at))).concat();
                let (silence, first) = (detected(*detect), arrived(*first_packet));
                format!("{me} serves it (epoch {epoch}): {silence}{steps}{first}")
            }
            Fact::Overlap { node, at_most } => format!(
                "{me} and {} both served it while they did not hear each other, for {} at most",
                self.node(*node),
                span(*at_most)
            ),
            Fact::Unheard { link, now } => self.unheard(*link, *now),
            Fact::Damped { link, remaining } => self.damped(*link, *remaining),
            Fact::Tempo { term } => format!("{me} asks for leases of {} now", span(*term)),
            Fact::Held { reason } => format!("{me} keeps it: {reason}"),
            Fact::Freed { reason } => format!("it may leave {me} again: {reason}"),
            Fact::Announced { reason } => format!("{me} tells the neighbours again: {reason}"),
            Fact::Drained { reason } => format!("{me} is drained: {reason}"),
            Fact::Undrained { reason } => format!("{me} takes part again: {reason}"),
            Fact::Cordoned { reason } => format!("{me} is cordoned: {reason}"),
            Fact::Uncordoned { reason } => format!("{me} takes VIPs like any other: {reason}"),
            Fact::BackendOrdered { order } => self.ordered(order),
            Fact::AdvertRefused { .. } | Fact::AdvertDiffers { .. } => vrrp::fact(fact),
            Fact::BackendOrderDropped { backend } => self.dropped(backend),
        }
    }

    fn dropped(&self, backend: &buoy_model::BackendId) -> String {
        format!("no service has {} any more: its order is dropped", self.backend(backend))
    }

    fn unheard(&self, link: LinkId, now: bool) -> String {
        let (link, me) = (self.link(link), self.node(self.desired.me));
        if now {
            return format!(
                "no live node is heard on {link} of {me}, while another leg hears them"
            );
        }
        format!("nodes are heard again on {link} of {me}")
    }

    fn damped(&self, link: LinkId, remaining: Duration) -> String {
        let me = self.node(self.desired.me);
        format!(
            "{} of {me} came and went too often: {me} takes only what nobody else can for {}",
            self.link(link),
            span(remaining)
        )
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
            Cause::OwnerDied { node } => format!("the agent of {} died", self.node(*node)),
            // Only the one who gave it away has heard the operator.
            Cause::Moved { to, .. } if *to == self.desired.me => "an operator moved it here".into(),
            Cause::Moved { to, reason } => {
                format!("the operator moved it to {}: {reason}", self.node(*to))
            }
            Cause::CheckFailed { check } => {
                format!("{me} fails the check {check}, and another node does not")
            }
            Cause::Unheard { link } => {
                format!("{me} hears nobody on {}, while another leg does", self.link(*link))
            }
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
            Cause::RouterSilent { .. }
            | Cause::RouterReleased
            | Cause::RouterWorse { .. }
            | Cause::RouterBetter { .. } => vrrp::cause(cause).unwrap_or_default(),
            Cause::Reload => format!("the configuration of {me} changed"),
            Cause::NoBackend => {
                format!("{me} saw no backend up (or fewer than `quorum`), and another node did")
            }
            Cause::Stalled => format!("the agent of {me} was frozen for longer than the lease"),
        }
    }

    /// Why a member is what it is to a group, as a sentence without its name.
    pub fn standing(&self, standing: &Standing) -> String {
        match standing {
            Standing::Owner => "owns it".into(),
            Standing::Wants => "asks for votes".into(),
            Standing::Candidate => "could take it".into(),
            Standing::Excluded(exclusion) => self.exclusion(exclusion),
        }
    }

    /// Why a member cannot take a group.
    pub fn exclusion(&self, exclusion: &Exclusion) -> String {
        let last = "takes it only if nobody else can";
        match exclusion {
            Exclusion::NotAllowed => "not among the `nodes` of this VIP".into(),
            Exclusion::Witness => "a witness: votes and never owns".into(),
            Exclusion::NeverHeard => "never heard since this agent started".into(),
            Exclusion::Silent(silent) => format!("silent for {}", span(*silent)),
            Exclusion::Draining => "drained by the operator".into(),
            Exclusion::NoCarrier(link) => format!("{} has no carrier", self.link(*link)),
            Exclusion::NotOffered => {
                "heard, but does not offer itself: no carrier there, or another configuration"
                    .into()
            }
            Exclusion::Reluctant => format!("{last}; its own `buoy why` says why"),
            Exclusion::Unchecked => format!("has not checked its backends yet: {last}"),
            Exclusion::NoBackend => format!("sees no backend up (or fewer than `quorum`): {last}"),
            Exclusion::CheckFails(check) => format!("fails the check {check}: {last}"),
            Exclusion::Unheard(link) => {
                format!("hears nobody on {}, while another leg does: {last}", self.link(*link))
            }
            Exclusion::Damped(left) => {
                format!("came and went too often: {last} for another {}", span(*left))
            }
            Exclusion::Cordoned => format!("cordoned by the operator: {last}"),
            Exclusion::NoMajority => {
                "hears too few nodes for a majority, so it asks for no votes".into()
            }
            Exclusion::Listening(left) => {
                format!("started lately: listens for owners for another {}", span(*left))
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

/// As in ", 3 times"; once goes without saying.
fn repeated(times: u32) -> String {
    if times > 1 { format!(", {times} times") } else { String::new() }
}

/// The first phase of a takeover, where the last owner did not say itself that it gave it up.
fn detected(silence: Duration) -> String {
    if silence.is_zero() { String::new() } else { format!("silence {}, ", span(silence)) }
}

/// The last phase of a takeover.
fn arrived(first_packet: Option<Duration>) -> String {
    first_packet.map_or_else(
        || "no packet within a second".into(),
        |first| format!("first packet {}", span(first)),
    )
}

/// What a node is asked about itself, as a clause that holds when the check passes.
pub fn asks(kind: &NodeCheckKind) -> String {
    match kind {
        NodeCheckKind::Process { name } => format!("process {name} runs"),
        NodeCheckKind::Server { address, kind: CheckKind::Tcp } => {
            format!("{address} accepts connections")
        }
        NodeCheckKind::Server { address, kind: CheckKind::Http(http) } => {
            let HttpCheck { path, tls, expect, .. } = &**http;
            let scheme = if tls.is_some() { "https" } else { "http" };
            let answer = match expect.as_slice() {
                [Statuses::WELL] => "well".into(),
                list => list.iter().map(Statuses::to_string).collect::<Vec<_>>().join(" or "),
            };
            format!("{scheme}://{address}{path} answers {answer}")
        }
        NodeCheckKind::Server { address, kind } => format!("{address} answers by {}", kind.name()),
        NodeCheckKind::Exec { program, .. } => format!("{program} ends with exit code 0"),
        NodeCheckKind::File { path, present: true } => format!("{path} is there"),
        NodeCheckKind::File { path, present: false } => format!("{path} is not there"),
        NodeCheckKind::Link { name } => format!("{name} has carrier"),
        NodeCheckKind::Gateway { address, .. } => format!("{address} answers on the segment"),
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
        Fact::PeerGoodbye { .. } => "peer_goodbye",
        Fact::Served { .. } => "served",
        Fact::Overlap { .. } => "overlap",
        Fact::Unheard { now: true, .. } => "unheard",
        Fact::Unheard { now: false, .. } => "heard_again",
        Fact::Damped { .. } => "damped",
        Fact::Tempo { .. } => "tempo",
        Fact::Held { .. } => "held",
        Fact::Freed { .. } => "freed",
        Fact::Announced { .. } => "announced",
        Fact::DuplicateNode { .. } => "duplicate_node",
        Fact::Occupied { .. } => "occupied",
        Fact::Conflict { .. } => "conflict",
        Fact::Restored { .. } => "restored",
        Fact::Link { up: true, .. } => "link_up",
        Fact::Link { up: false, .. } => "link_down",
        Fact::Stalled { .. } => "stalled",
        Fact::Drained { .. } => "drained",
        Fact::AdvertRefused { .. } => "advert_refused",
        Fact::AdvertDiffers { .. } => "advert_differs",
        Fact::Undrained { .. } => "undrained",
        Fact::Cordoned { .. } => "cordoned",
        Fact::Uncordoned { .. } => "uncordoned",
        Fact::BackendOrdered { .. } => "backend_ordered",
        Fact::BackendOrderDropped { .. } => "backend_order_dropped",
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
        | Fact::Served { .. }
        | Fact::Unheard { now: false, .. }
        | Fact::Tempo { .. }
        | Fact::Held { .. }
        | Fact::Freed { .. }
        | Fact::Announced { .. }
        | Fact::Drained { .. }
        | Fact::BackendOrdered { .. }
        | Fact::BackendOrderDropped { .. }
        | Fact::Cordoned { .. }
        | Fact::Uncordoned { .. }
        | Fact::Undrained { .. } => Gravity::Info,
        Fact::PeerDown { .. }
        | Fact::PeerGoodbye { .. }
        | Fact::Overlap { .. }
        | Fact::Unheard { now: true, .. }
        | Fact::Damped { .. }
        | Fact::Conflict { .. }
        | Fact::Restored { .. }
        | Fact::AdvertRefused { .. }
        | Fact::AdvertDiffers { .. }
        | Fact::Occupied { .. }
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

/// What a safety means for a group in this cluster, in words for those who must choose.
pub fn safety_means(desired: &Desired, group: &Group) -> String {
    let all = desired.nodes.len();
    let needed = desired.majority();
    let able = names(able(desired, group));
    let witnesses = names(desired.nodes.iter().filter(|n| n.witness));
    if !group.vrrp.is_empty() {
        return "whoever has the best VRRP priority on the segment serves it, Buoy or not: if the                 network is cut, each side does; and without `auth` anybody on the segment can take it"
            .into();
    }
    match (group.safety, able.as_slice()) {
        (Safety::Exclusive, _) if all == 1 => "never two owners, as there is one node".into(),
        (Safety::Exclusive, _) if all == 2 => {
            let both = listed(&names(desired.nodes.iter()));
            format!(
                "never two owners: an owner needs the votes of both {both}, so while one of them is \
                 down, or the network between them is cut, nobody serves it. A witness, a third \
                 host that only votes, ends that"
            )
        }
        (Safety::Exclusive, _) => {
            let witness = match witnesses.as_slice() {
                [] => String::new(),
                some => format!(" ({} only to vote)", listed(some)),
            };
            format!(
                "never two owners: an owner needs the votes of {needed} of the {all} \
                 nodes{witness}. If the network is cut, only a side with {needed} of them can \
                 serve it"
            )
        }
        (Safety::Available, [] | [_]) => "it has one node to be on".into(),
        (Safety::Available, [one, other]) => format!(
            "served as long as one of {one} and {other} lives: if the network between {one} and \
             {other} is cut, both serve it until it heals; then one is left within a heartbeat, and \
             the overlap is recorded{}",
            exclusive_advice(all)
        ),
        (Safety::Available, _) => format!(
            "served as long as one node lives: if the network is cut, each side serves it until it \
             heals; then one is left within a heartbeat, and the overlap is recorded{}",
            exclusive_advice(all)
        ),
    }
}

/// The nodes that may own a group.
pub(crate) fn able<'d>(desired: &'d Desired, group: &'d Group) -> impl Iterator<Item = &'d Node> {
    let may = |node: &&Node| group.nodes.is_empty() || group.nodes.contains(&node.id);
    desired.nodes.iter().filter(|node| !node.witness).filter(may)
}

const fn exclusive_advice(nodes: usize) -> &'static str {
    if nodes > 2 {
        ". With `safety = \"exclusive\"` it never has two owners"
    } else {
        ". With a witness, a third host that only votes, `safety = \"exclusive\"` gives it never \
         two owners"
    }
}

/// In the order people look for: the ids on the wire are hashes.
fn names<'d>(nodes: impl Iterator<Item = &'d Node>) -> Vec<&'d str> {
    let mut names: Vec<&str> = nodes.map(|node| node.name.as_str()).collect();
    names.sort_unstable();
    names
}

/// As in "lb1, lb2 and lb3".
pub(crate) fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).into(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
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
        Mode::Xdp { .. } => "xdp",
    }
}

/// The word of the file for a way of balancing.
pub const fn balance(balance: Balance) -> &'static str {
    match balance {
        Balance::Hash(FlowFields::Connection) => "hash",
        Balance::Hash(FlowFields::Client | FlowFields::Prefix(_)) => "source",
        Balance::Maglev(_) => "maglev",
        Balance::Rendezvous(_) => "rendezvous",
        Balance::RoundRobin => "roundrobin",
        Balance::LeastConnections => "leastconn",
        Balance::ShortestDelay => "sed",
        Balance::Random => "random",
        Balance::First => "first",
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

/// A duration as the file and the command line write it: a whole number of the largest unit that
/// holds it exactly.
pub fn written(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0ms".into(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// A duration as people say it: the two largest units, and no more digits than one can use.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let millis = duration.as_secs_f64() * 1e3;
    match seconds {
        0 if duration.is_zero() => "0 ms".into(),
        0 if millis < 0.095 => format!("{millis:.2} ms"),
        0 if millis < 9.95 => format!("{millis:.1} ms"),
        0 if millis < 999.5 => format!("{millis:.0} ms"),
        0..=9 => format!("{:.1} s", millis / 1e3),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds / 60 % 60),
        86_400.. => format!("{}d{}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_model::{
        Cidr, Epoch, Forward, GroupId, Incarnation, Instant, Mac, Timing, VipAddress,
    };
    use std::net::{IpAddr, Ipv4Addr};

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));

    fn desired() -> Desired {
        let node = |name: &str, last: u8| Node::new(name, ([10, 0, 0, last], 4747).into());
        let mut nodes = vec![node("lb1", 11), node("lb2", 12)];
        nodes.sort_by_key(|n| n.id);
        Desired {
            timing: Timing {
                heartbeat: Duration::from_millis(10),
                lease: Duration::from_millis(50),
                lease_max: Duration::from_millis(300),
            },
            ..Desired::new(
                "prod",
                NodeId::of("lb2"),
                nodes,
                vec![Group::new(
                    GroupId(buoy_model::name_key("web")),
                    "web",
                    vec![VipAddress {
                        cidr: Cidr::new(ADDRESS, 24).unwrap(),
                        link: Some(LinkId(3)),
                        link_name: "eth0".into(),
                        vip_name: "web".into(),
                        presence: buoy_model::Presence::Assigned,
                    }],
                )],
            )
        }
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn every_cause_is_a_clause_with_names() {
        let desired = desired();
        let words = Words::new(&desired);
        let lb1 = NodeId::of("lb1");
        let table = [
            (Cause::NoOwner, "nobody had it"),
            (Cause::OwnerSilent { node: lb1, silent: ms(37) }, "lb1 was silent for 37 ms"),
            (Cause::OwnerReleased { node: lb1 }, "lb1 gave it up"),
            (Cause::OwnerDied { node: lb1 }, "the agent of lb1 died"),
            (
                Cause::Moved { to: lb1, reason: "patching (by ann)".into() },
                "the operator moved it to lb1: patching (by ann)",
            ),
            (
                Cause::Moved { to: NodeId::of("lb2"), reason: String::new() },
                "an operator moved it here",
            ),
            (
                Cause::CheckFailed { check: "postgres".into() },
                "lb2 fails the check postgres, and another node does not",
            ),
            (
                Cause::Unheard { link: LinkId(3) },
                "lb2 hears nobody on eth0, while another leg does",
            ),
            (Cause::LeaseExpired, "lb2 was without a majority for a whole lease"),
            (Cause::Drain, "the operator drains lb2"),
            (Cause::Stop, "the agent of lb2 stops"),
            (Cause::CarrierLost { link: LinkId(3) }, "eth0 lost its carrier"),
            (Cause::CarrierLost { link: LinkId(9) }, "interface 9 lost its carrier"),
            (Cause::Failback { to: lb1 }, "lb1 is the better place and is fit again"),
            (Cause::BetterOwner { node: lb1 }, "lb1 owns it too and comes first"),
            (Cause::Reload, "the configuration of lb2 changed"),
            (
                Cause::NoBackend,
                "lb2 saw no backend up (or fewer than `quorum`), and another node did",
            ),
            (Cause::Stalled, "the agent of lb2 was frozen for longer than the lease"),
        ];
        for (cause, clause) in table {
            assert_eq!(words.cause(&cause), clause);
        }
    }

    fn assert_said(fact: &Fact, name: &str, grave: Gravity, sentence: &str) {
        let desired = desired();
        assert_eq!(Words::new(&desired).fact(fact), sentence);
        assert_eq!((kind(fact), gravity(fact)), (name, grave), "{sentence}");
    }

    #[test]
    fn every_fact_about_ownership_is_a_sentence_a_kind_and_a_gravity() {
        let (epoch, lb1) = (Epoch(7), NodeId::of("lb1"));
        let silent = Cause::OwnerSilent { node: lb1, silent: ms(37) };
        let table = [
            (
                Fact::Acquired { epoch, cause: silent, took: Duration::from_micros(1_230) },
                "acquired",
                "lb2 took it over: lb1 was silent for 37 ms (epoch 7, after 1.2 ms)",
            ),
            (
                Fact::Released { epoch, cause: Cause::Drain },
                "released",
                "lb2 gave it up: the operator drains lb2 (epoch 7)",
            ),
            (Fact::OwnerHeard { node: lb1, epoch }, "owner_heard", "lb1 owns it now (epoch 7)"),
            (
                Fact::Drained { reason: "kernel upgrade (by root)".into() },
                "drained",
                "lb2 is drained: kernel upgrade (by root)",
            ),
            (
                Fact::Undrained { reason: "done (by ann)".into() },
                "undrained",
                "lb2 takes part again: done (by ann)",
            ),
            (
                Fact::Cordoned { reason: "disk (by ann)".into() },
                "cordoned",
                "lb2 is cordoned: disk (by ann)",
            ),
            (
                Fact::Uncordoned { reason: "by ann".into() },
                "uncordoned",
                "lb2 takes VIPs like any other: by ann",
            ),
        ];
        for (fact, name, sentence) in table {
            assert_said(&fact, name, Gravity::Info, sentence);
        }
    }

    #[test]
    fn every_phase_of_a_takeover_is_told_in_its_order() {
        let served = |detect, first_packet| Fact::Served {
            epoch: Epoch(7),
            detect,
            decide: Duration::from_micros(1_200),
            address: Duration::from_micros(1_500),
            announce: Duration::from_micros(1_600),
            first_packet,
        };
        let phases = "votes 1.2 ms, address 1.5 ms, announced 1.6 ms";
        assert_said(
            &served(ms(37), Some(ms(20))),
            "served",
            Gravity::Info,
            &format!("lb2 serves it (epoch 7): silence 37 ms, {phases}, first packet 20 ms"),
        );
        assert_said(
            &served(Duration::ZERO, None),
            "served",
            Gravity::Info,
            &format!("lb2 serves it (epoch 7): {phases}, no packet within a second"),
        );
    }

    #[test]
    fn what_an_operator_ordered_is_told_in_the_operators_words() {
        let reason = || "patching (by ann)".to_owned();
        let table = [
            (Fact::Held { reason: reason() }, "held", "lb2 keeps it: patching (by ann)"),
            (
                Fact::Freed { reason: reason() },
                "freed",
                "it may leave lb2 again: patching (by ann)",
            ),
        ];
        for (fact, name, sentence) in table {
            assert_said(&fact, name, Gravity::Info, sentence);
        }
    }

    #[test]
    fn what_happens_to_a_leg_or_a_peer_says_what_it_means() {
        let (link, lb1) = (LinkId(3), NodeId::of("lb1"));
        let table = [
            (
                Fact::Unheard { link, now: true },
                "unheard",
                Gravity::Warn,
                "no live node is heard on eth0 of lb2, while another leg hears them",
            ),
            (
                Fact::Unheard { link, now: false },
                "heard_again",
                Gravity::Info,
                "nodes are heard again on eth0 of lb2",
            ),
            (
                Fact::Damped { link, remaining: Duration::from_secs(60) },
                "damped",
                Gravity::Warn,
                "eth0 of lb2 came and went too often: lb2 takes only what nobody else can for 1m0s",
            ),
            (
                Fact::Tempo { term: ms(90) },
                "tempo",
                Gravity::Info,
                "lb2 asks for leases of 90 ms now",
            ),
            (
                Fact::PeerGoodbye { node: lb1 },
                "peer_goodbye",
                Gravity::Warn,
                "the agent of lb1 died, and its addresses are withdrawn",
            ),
            (
                Fact::Overlap { node: lb1, at_most: ms(800) },
                "overlap",
                Gravity::Warn,
                "lb2 and lb1 both served it while they did not hear each other, for 800 ms at most",
            ),
        ];
        for (fact, name, grave, sentence) in table {
            assert_said(&fact, name, grave, sentence);
        }
    }

    #[test]
    fn both_safeties_are_explained_for_the_cluster_that_there_is() {
        let mut desired = desired();
        let means = |desired: &Desired, safety| {
            let group = Group { safety, ..desired.groups[0].clone() };
            safety_means(desired, &group)
        };
        let available = means(&desired, Safety::Available);
        for part in [
            "if the network between lb1 and lb2 is cut, both serve it until it heals",
            "one is left within a heartbeat",
            "With a witness",
        ] {
            assert!(available.contains(part), "{part}: {available}");
        }
        let exclusive = means(&desired, Safety::Exclusive);
        assert!(exclusive.contains("the votes of both lb1 and lb2"), "{exclusive}");
        assert!(exclusive.contains("nobody serves it"), "{exclusive}");
        let witness = Node { witness: true, ..Node::new("w1", ([10, 0, 0, 13], 4747).into()) };
        desired.nodes.push(witness);
        let exclusive = means(&desired, Safety::Exclusive);
        assert!(exclusive.contains("2 of the 3 nodes (w1 only to vote)"), "{exclusive}");
        let available = means(&desired, Safety::Available);
        assert!(available.contains("between lb1 and lb2"), "a witness serves nothing: {available}");
        assert!(!available.contains("With a witness"), "there is one: {available}");
    }

    #[test]
    fn a_check_of_the_node_says_what_it_asks() {
        let http = CheckKind::Http(Box::new(HttpCheck {
            method: "GET".into(),
            path: "/ready".into(),
            host: None,
            headers: vec![],
            http2: false,
            tls: Some(buoy_model::TlsCheck { ca: None, warn: Duration::ZERO }),
            expect: vec![Statuses::new(204, 204).unwrap(), Statuses::new(300, 399).unwrap()],
            body: None,
        }));
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 8443));
        let path = || "/run/maintenance".to_owned();
        let table = [
            (NodeCheckKind::Process { name: "postgres".into() }, "process postgres runs"),
            (
                NodeCheckKind::Server { address, kind: CheckKind::Tcp },
                "127.0.0.1:8443 accepts connections",
            ),
            (
                NodeCheckKind::Server { address, kind: http },
                "https://127.0.0.1:8443/ready answers 204 or 300-399",
            ),
            (
                NodeCheckKind::Exec { program: "/usr/bin/check".into(), arguments: vec![] },
                "/usr/bin/check ends with exit code 0",
            ),
            (NodeCheckKind::File { path: path(), present: true }, "/run/maintenance is there"),
            (NodeCheckKind::File { path: path(), present: false }, "/run/maintenance is not there"),
            (NodeCheckKind::Link { name: "eth1".into() }, "eth1 has carrier"),
            (
                NodeCheckKind::Gateway { address: ADDRESS, link: None },
                "10.0.0.100 answers on the segment",
            ),
        ];
        for (kind, text) in table {
            assert_eq!(asks(&kind), text);
        }
    }

    #[test]
    fn every_fact_about_a_conflict_says_what_to_do() {
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        let conflict =
            |defended, claims| Fact::Conflict { address: ADDRESS, mac, defended, claims };
        let claims = "02:00:00:00:00:09 claims 10.0.0.100, which lb2 serves";
        let advice =
            "unless it is a node of this cluster, find that host and take the address off it";
        assert_said(
            &conflict(true, 1),
            "conflict",
            Gravity::Warn,
            &format!("{claims} (answered): {advice}"),
        );
        assert_said(
            &conflict(false, 7),
            "conflict",
            Gravity::Warn,
            &format!("{claims} (answered less than 10 s ago, 7 times): {advice}"),
        );
        assert_said(
            &Fact::Occupied { address: "10.0.0.100".parse().unwrap(), mac: Mac([2; 6]) },
            "occupied",
            Gravity::Warn,
            "02:02:02:02:02:02 answers for 10.0.0.100, which no node of the cluster has: the configuration \
             with it is refused; choose another address, or take it off that host",
        );
        assert_said(
            &Fact::DuplicateNode { node: NodeId::of("lb1") },
            "duplicate_node",
            Gravity::Error,
            "two agents say that they are lb1: stop one of them, \
             or give it its own `node` name",
        );
    }

    #[test]
    fn every_fact_about_the_hosts_is_a_sentence_a_kind_and_a_gravity() {
        let (info, warn) = (Gravity::Info, Gravity::Warn);
        let (lb1, link) = (NodeId::of("lb1"), LinkId(3));
        let table = [
            (
                Fact::PeerUp { node: lb1, incarnation: Incarnation(4) },
                "peer_up",
                info,
                "lb1 is heard",
            ),
            (
                Fact::PeerDown { node: lb1, silent: ms(31) },
                "peer_down",
                warn,
                "lb1 has been silent for 31 ms",
            ),
            (
                Fact::Restored { address: ADDRESS },
                "restored",
                warn,
                "somebody removed 10.0.0.100 from lb2; it was put back",
            ),
            (Fact::Link { link, up: false }, "link_down", warn, "eth0 of lb2 lost its carrier"),
            (Fact::Link { link, up: true }, "link_up", info, "eth0 of lb2 has carrier"),
            (
                Fact::Stalled { late: ms(120) },
                "stalled",
                warn,
                "the agent of lb2 was not run by the kernel for 120 ms",
            ),
        ];
        for (fact, name, grave, sentence) in table {
            assert_said(&fact, name, grave, sentence);
        }
    }

    #[test]
    fn every_standing_has_its_reason() {
        let desired = desired();
        let words = Words::new(&desired);
        let out = Standing::Excluded;
        let table = [
            (Standing::Owner, "owns it"),
            (Standing::Wants, "asks for votes"),
            (Standing::Candidate, "could take it"),
            (out(Exclusion::NotAllowed), "not among the `nodes` of this VIP"),
            (out(Exclusion::NeverHeard), "never heard since this agent started"),
            (out(Exclusion::Silent(ms(4_200))), "silent for 4.2 s"),
            (out(Exclusion::Witness), "a witness: votes and never owns"),
            (
                out(Exclusion::Reluctant),
                "takes it only if nobody else can; its own `buoy why` says why",
            ),
            (
                out(Exclusion::Unchecked),
                "has not checked its backends yet: takes it only if nobody else can",
            ),
            (
                out(Exclusion::NoBackend),
                "sees no backend up (or fewer than `quorum`): takes it only if nobody else can",
            ),
            (
                out(Exclusion::CheckFails("postgres".into())),
                "fails the check postgres: takes it only if nobody else can",
            ),
            (
                out(Exclusion::Unheard(LinkId(3))),
                "hears nobody on eth0, while another leg does: takes it only if nobody else can",
            ),
            (
                out(Exclusion::Cordoned),
                "cordoned by the operator: takes it only if nobody else can",
            ),
            (
                out(Exclusion::Damped(Duration::from_secs(30))),
                "came and went too often: takes it only if nobody else can for another 30 s",
            ),
            (out(Exclusion::Draining), "drained by the operator"),
            (out(Exclusion::NoCarrier(LinkId(3))), "eth0 has no carrier"),
            (
                out(Exclusion::NotOffered),
                "heard, but does not offer itself: no carrier there, or another configuration",
            ),
            (
                out(Exclusion::NoMajority),
                "hears too few nodes for a majority, so it asks for no votes",
            ),
            (
                out(Exclusion::Listening(ms(50))),
                "started lately: listens for owners for another 50 ms",
            ),
        ];
        for (standing, reason) in table {
            assert_eq!(words.standing(&standing), reason);
        }
    }

    #[test]
    fn a_record_of_a_vip_that_left_the_file_still_has_a_name() {
        let desired = desired();
        let record = |group| Record {
            at: Instant::ZERO,
            group,
            fact: Fact::Undrained { reason: String::new() },
        };
        let words = Words::new(&desired);
        assert_eq!(
            words.vip(&record(Some(GroupId(buoy_model::name_key("web"))))).as_deref(),
            Some("web")
        );
        assert_eq!(words.vip(&record(Some(GroupId(0xab)))).as_deref(), Some("#000000ab"));
        assert_eq!(words.vip(&record(None)), None);
        assert_eq!(words.node(NodeId(0xcd)), "node #000000cd");
    }

    #[test]
    fn a_duration_has_the_digits_that_one_can_use() {
        let table = [
            (Duration::ZERO, "0 ms"),
            (Duration::from_micros(42), "0.04 ms"),
            (Duration::from_micros(230), "0.2 ms"),
            (Duration::from_micros(9_949), "9.9 ms"),
            (Duration::from_micros(9_960), "10 ms"),
            (ms(37), "37 ms"),
            (Duration::from_micros(999_700), "1.0 s"),
            (ms(1_240), "1.2 s"),
            (ms(9_990), "10.0 s"),
            (ms(59_990), "59 s"),
            (Duration::from_secs(252), "4m12s"),
            (Duration::from_secs(3_600), "1h0m"),
            (Duration::from_secs(2 * 86_400 + 3 * 3_600 + 59), "2d3h"),
        ];
        for (duration, text) in table {
            assert_eq!(span(duration), text, "{duration:?}");
        }
    }

    #[test]
    fn the_words_of_the_file_are_the_words_of_the_api() {
        assert_eq!(safety(Safety::Exclusive), "exclusive");
        assert_eq!(safety(Safety::Available), "available");
        assert_eq!(failback(Failback::Never), "never");
        assert_eq!(failback(Failback::After(Duration::ZERO)), "now");
        assert_eq!(failback(Failback::After(Duration::from_secs(30))), "after 30 s");
        assert_eq!(mode(Mode::Kernel), "kernel");
        assert_eq!(mode(Mode::Proxy), "proxy");
        let (forward, flow) = (Forward::Dsr, FlowFields::Connection);
        assert_eq!(mode(Mode::Xdp { forward, flow }), "xdp");
        assert_eq!(balance(Balance::Hash(FlowFields::Connection)), "hash");
        assert_eq!(balance(Balance::Hash(FlowFields::Client)), "source");
        assert_eq!(balance(Balance::Maglev(FlowFields::Client)), "maglev");
        assert_eq!(balance(Balance::Rendezvous(FlowFields::Client)), "rendezvous");
        assert_eq!(balance(Balance::ShortestDelay), "sed");
        assert_eq!(balance(Balance::Random), "random");
        assert_eq!(balance(Balance::First), "first");
        assert_eq!(balance(Balance::RoundRobin), "roundrobin");
        assert_eq!(balance(Balance::LeastConnections), "leastconn");
    }
}
