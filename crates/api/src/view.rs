//! Makes the answers of the API from what the core, the checks and the host know. Pure.

mod nodes;
mod reports;
mod texts;

pub use reports::{BackendReport, CheckReport, DatedRecord, HostReport, ServiceReport};
pub use texts::{Of, Pieces, Texts};

use crate::lists::{ClusterReply, FailoverView};
use crate::services::{OrderedView, ordered_view, service_name};
use crate::status::{
    BackendView, CandidateView, CheckView, ClusterStatus, EventView, HeldView, LoopView, NodeView,
    PhasesView, ServiceView, TimingView, VipAddressView, VipView, WhyReply,
};
use crate::vrrp;
use crate::words::{self, Words};
use buoy_core::{Candidate, GroupStatus, Hold, Ignored, Standing};
use buoy_model::{
    Backend, BackendOrder, BackendState, Desired, Duty, Epoch, Fact, Group, GroupId, NodeCheck,
    NodeId, Presence, Record, Safety, Service, VipAddress,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The share of a backend that takes all of its weight.
const WHOLE: u16 = 100;

/// All that an answer is made of, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The configuration in force.
    pub desired: &'a Desired,
    /// What the node knows of the cluster.
    pub status: &'a buoy_core::Status,
    /// The moment of `status` by the wall clock, in milliseconds since 1970.
    pub now: u64,
    /// What the slow side knows of the services, those of a group together, in the order of the groups' ids.
    pub services: &'a [Arc<ServiceReport>],
    /// What is to be said of the host.
    pub host: &'a HostReport,
    /// The latest records, oldest first.
    pub events: &'a [DatedRecord],
}

impl View<'_> {
    /// The answer to `GET /v1/status`.
    pub fn cluster(&self) -> ClusterStatus {
        ClusterStatus { vips: self.vips(), ..self.cluster_alone() }
    }

    /// The same without VIPs.
    pub fn cluster_alone(&self) -> ClusterStatus {
        let desired = self.desired;
        ClusterStatus {
            cluster: desired.cluster_name.clone(),
            node: desired.node_name(desired.me).into(),
            version: env!("CARGO_PKG_VERSION").into(),
            generation: self.status.generation,
            digest: digest(self.status.digest),
            pid: self.host.pid,
            witness: desired.node(desired.me).is_some_and(|me| me.witness),
            draining: self.status.draining.clone(),
            cordoned: self.status.cordoned.clone(),
            drain_left_ms: self.status.draining_for.map(millis),
            timing: self.timing(),
            links: self.links(),
            safety: self.safety(),
            overlaps: self.status.overlaps,
            defences: self.host.defences.clone(),
            problems: self.problems(),
            loop_: LoopView { realtime: self.host.realtime.clone(), counters: self.counters() },
            revision: 0,
            nodes: self.nodes(),
            vips: Vec::new(),
            events: self.events.iter().map(|event| self.event(event)).collect(),
        }
    }

    /// The answer to `GET /v1/cluster`.
    pub fn summary(&self) -> ClusterReply {
        let (desired, quorum) = (self.desired, self.status.quorum);
        let mine = digest(self.status.digest);
        let differs =
            |node: &NodeView| node.alive && node.digest.as_ref().is_some_and(|d| *d != mine);
        let owned: BTreeSet<GroupId> =
            self.status.groups.iter().filter(|g| g.owner.is_some()).map(|g| g.id).collect();
        let unowned = desired.groups.iter().filter(|group| !owned.contains(&group.id));
        ClusterReply {
            cluster: desired.cluster_name.clone(),
            node: desired.node_name(desired.me).into(),
            revision: 0,
            version: env!("CARGO_PKG_VERSION").into(),
            generation: self.status.generation,
            other_digests: self.nodes().into_iter().filter(differs).map(|node| node.name).collect(),
            digest: mine,
            members: quorum.members,
            witnesses: quorum.witnesses,
            heard: quorum.heard,
            votes_needed: quorum.needed,
            quorum: quorum.needed <= quorum.heard,
            timing: self.timing(),
            overlaps: self.status.overlaps,
            vips: desired.groups.len(),
            unowned: by_name(unowned.map(|group| group.name.clone()), |name| name),
            problems: self.problems(),
        }
    }

    /// All members, by name.
    pub fn nodes(&self) -> Vec<NodeView> {
        by_name(self.status.nodes.iter().map(|n| self.node(n)), |n| &n.name)
    }

    /// All VIPs, by name.
    pub fn vips(&self) -> Vec<VipView> {
        let all: Vec<GroupId> = self.desired.groups.iter().map(|group| group.id).collect();
        self.vips_of(&all)
    }

    /// Those of them, by name.
    fn vips_of(&self, groups: &[GroupId]) -> Vec<VipView> {
        let known: BTreeMap<GroupId, &GroupStatus> =
            self.status.groups.iter().map(|status| (status.id, status)).collect();
        let groups = groups.iter().filter_map(|id| self.desired.group(*id));
        by_name(groups.map(|g| self.vip_as(g, known.get(&g.id).copied())), |v| &v.name)
    }

    /// The takeovers among the events, oldest first.
    pub fn failovers(&self) -> Vec<FailoverView> {
        let mut all: Vec<(Option<GroupId>, FailoverView)> = Vec::new();
        for dated @ DatedRecord { seq, at, record, vip: _ } in self.events {
            if let Fact::Acquired { epoch, cause, took } = &record.fact {
                let failover = FailoverView {
                    seq: *seq,
                    at: *at,
                    vip: about_vip(&self.words(), dated).unwrap_or_default(),
                    epoch: epoch.0,
                    cause: self.words().cause(cause),
                    took_ms: millis(*took),
                    phases: None,
                };
                all.push((record.group, failover));
            } else if let Some(measured) = phases(&record.fact) {
                let its = |(group, f): &&mut (Option<GroupId>, FailoverView)| {
                    *group == record.group && f.epoch == measured.epoch
                };
                if let Some((_, failover)) = all.iter_mut().rev().find(its) {
                    failover.phases = Some(measured);
                }
            }
        }
        all.into_iter().map(|(_, failover)| failover).collect()
    }

    fn timing(&self) -> TimingView {
        let timing = self.desired.timing;
        TimingView {
            heartbeat_ms: millis(timing.heartbeat),
            lease_ms: millis(timing.lease),
            lease_max_ms: millis(timing.lease_max),
            term_ms: Some(millis(self.status.term)),
            term_reason: self.term_reason().map(str::to_owned),
        }
    }

    /// The answer to `GET /v1/vips/{vip}/why`.
    pub fn why(&self, group: &Group) -> WhyReply {
        let vip = self.vip(group);
        let about_it = self.events.iter().filter(|dated| dated.record.group == Some(group.id));
        WhyReply {
            told_by: None,
            node: self.words().node(self.desired.me),
            answer: self.answer(group, &vip),
            phases: about_it.clone().rev().find_map(|dated| phases(&dated.record.fact)),
            history: about_it.map(|event| self.event(event)).collect(),
            vip,
        }
    }

    /// Why the VIP is where it is, in one sentence.
    fn answer(&self, group: &Group, vip: &VipView) -> String {
        let Some(owner) = &vip.owner else {
            if let Some(router) = &vip.router {
                return format!("The router {router} has {} by VRRP.", vip.name);
            }
            return format!("Nobody owns {}: {}.", vip.name, line(vip));
        };
        let since = vip.since_ms.map_or_else(String::new, |ms| {
            format!(
                " for {}",
                words::span(Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default())
            )
        });
        // The cause is in a record of whoever took it or gave it up; the others only heard of it.
        let about_it =
            self.events.iter().rev().filter(|dated| dated.record.group == Some(group.id));
        let cause = about_it
            .map(|dated| &dated.record.fact)
            .find(|fact| epoch_with_cause(fact).is_some_and(|epoch| vip.epoch <= epoch.0 + 1))
            .map(|fact| self.words().fact(fact));
        match cause {
            Some(cause) => format!("{owner} has owned {}{since}; {cause}.", vip.name),
            None if vip.mine => format!("{owner} has owned {}{since}.", vip.name),
            None => format!(
                "{owner} has owned {}{since}; `buoy why {}` on {owner} knows the cause.",
                vip.name, vip.name
            ),
        }
    }

    /// One record with names and a sentence.
    pub fn event(&self, dated: &DatedRecord) -> EventView {
        event(&self.words(), dated)
    }

    /// When this node takes part again by itself, if it is drained and does.
    pub fn drain_left_ms(&self) -> Option<f64> {
        self.status.draining_for.map(millis)
    }

    /// What the loop counted, with what the core ignored of it.
    fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = self.host.counters.clone();
        let Ignored { stale, unproven, duplicate, stranger, foreign_router } = self.status.ignored;
        let ignored = [
            ("ignored_stale", stale),
            ("ignored_unproven", unproven),
            ("ignored_duplicate", duplicate),
            ("ignored_stranger", stranger),
            ("ignored_foreign_router", foreign_router),
        ];
        counters.extend(ignored.map(|(name, count)| (name.into(), count)));
        counters
    }

    pub(crate) fn words(&self) -> Words<'_> {
        Words::new(self.desired)
    }

    /// One VIP.
    pub fn vip(&self, group: &Group) -> VipView {
        self.vip_as(group, self.status.groups.iter().find(|status| status.id == group.id))
    }

    fn vip_as(&self, group: &Group, status: Option<&GroupStatus>) -> VipView {
        let services: Vec<_> = group.services.iter().map(|s| self.service(group, s)).collect();
        let alone = self.vip_alone(group, status);
        let problem = vip_problem(&alone, services.iter().flat_map(service_problems));
        VipView { services, problem, ..alone }
    }

    /// A VIP without what is behind it, and whether anything is wrong with it.
    fn vip_alone(&self, group: &Group, status: Option<&GroupStatus>) -> VipView {
        let words = self.words();
        let mut vip = VipView {
            name: group.name.clone(),
            addresses: group.addresses.iter().map(address).collect(),
            safety: words::safety(group.safety).into(),
            safety_means: words::safety_means(self.desired, group),
            checks: group.checks.iter().map(|c| self.check(group.id, c)).collect(),
            failback: words::failback(group.failback),
            votes_needed: match group.safety {
                Safety::Exclusive => self.desired.majority(),
                Safety::Available => 0,
            },
            ..VipView::default()
        };
        if let Some(status) = status {
            vip.owner = status.owner.map(|owner| words.node(owner));
            vip.mine = status.owner == Some(self.desired.me);
            vip.epoch = status.epoch.0;
            vip.since_ms = status.since.map(millis);
            vip.lease_left_ms = status.lease_left.map(millis);
            vip.yields_to = status.yields_to.map(|node| words.node(node));
            vip.held = status.held.as_ref().map(held);
            vip.votes = status.votes.iter().map(|voter| words.node(*voter)).collect();
            vip.vrrp = vrrp::routers(status);
            vip.refused = vrrp::refused(status);
            vip.router = vrrp::elsewhere(status);
            vip.candidates = status.candidates.iter().map(|c| self.candidate(c)).collect();
            vip.last_change = status.last_change.as_ref().map(|record| {
                let age = self.status.at.since(record.at).as_millis();
                let at = self.now.saturating_sub(u64::try_from(age).unwrap_or(u64::MAX));
                told(&self.words(), at, record)
            });
        }
        vip
    }

    pub(crate) fn check(&self, group: GroupId, check: &NodeCheck) -> CheckView {
        let report = self.host.checks.iter().find(|r| (r.group, &r.name) == (group, &check.name));
        let (state, reason) = match report.map(|report| (report.passes, &report.reason)) {
            Some((Some(true), reason)) => ("pass", reason.clone()),
            Some((Some(false), reason)) => ("fail", reason.clone()),
            Some((None, _)) | None => ("unknown", "not asked yet: counts as passing".into()),
        };
        let asks = words::asks(&check.kind);
        CheckView { name: check.name.clone(), asks, state: state.into(), reason }
    }

    fn candidate(&self, candidate: &Candidate) -> CandidateView {
        let standing = match &candidate.standing {
            Standing::Owner => "owner",
            Standing::Wants => "wants",
            Standing::Candidate => "candidate",
            Standing::Excluded(_) => "excluded",
        };
        CandidateView {
            node: self.words().node(candidate.node),
            preferred: candidate.preferred.map(|place| place + 1),
            standing: standing.into(),
            reason: self.words().standing(&candidate.standing),
        }
    }

    /// What the slow side knows of the services of one group.
    pub fn services_of(&self, group: GroupId) -> &[Arc<ServiceReport>] {
        let from = self.services.partition_point(|report| report.group < group);
        let its = &self.services[from..];
        &its[..its.partition_point(|report| report.group == group)]
    }

    /// One service with its backends.
    pub fn service(&self, group: &Group, service: &Service) -> ServiceView {
        let report = self.services_of(group.id).iter().find(|report| {
            (report.protocol, report.ports, Some(&report.address))
                == (service.protocol, service.ports, service.addresses.first())
        });
        let reports = report.map_or(&[][..], |report| &report.backends);
        let backends: Vec<_> =
            service.backends.iter().map(|b| self.backend(b, service, reports)).collect();
        ServiceView {
            name: service_name(group, service),
            port: format!("{}/{}", service.ports, service.protocol.name()),
            mode: words::mode(service.mode).into(),
            balance: words::balance(service.balance).into(),
            up: backends.iter().filter(|backend| takes_connections(backend)).count(),
            backends,
            engine: report.map_or_else(String::new, |report| report.engine.clone()),
            table: report.and_then(|report| report.table).map(|hash| format!("{hash:08x}")),
            problem: report.and_then(|report| report.problem.clone()),
            new_connections: service.new_connections.map(|rate| rate.to_string()),
            limited: report.and_then(|report| report.limited),
            dropped: report.map_or_else(BTreeMap::new, |report| counts(&report.dropped)),
        }
    }

    fn backend(
        &self,
        backend: &Backend,
        service: &Service,
        reports: &[BackendReport],
    ) -> BackendView {
        let report = reports.iter().find(|report| report.name == backend.name);
        let state = report.map_or(BackendState::Unknown, |report| report.state);
        let said = report.map_or("", |report| report.reason.as_str());
        let reason = match (state, said, &service.check) {
            (BackendState::Unknown, "", None) => "no check: counts as up",
            (BackendState::Unknown, "", Some(_)) => "not checked yet: counts as up",
            (BackendState::Unknown | BackendState::Up | BackendState::Down, said, _) => said,
        };
        let order = report.and_then(|report| report.order.as_ref());
        let by_order = order.and_then(|order| match (order.duty, state) {
            (Duty::Maint, _) => Some("maint"),
            (Duty::Drain { .. }, BackendState::Up | BackendState::Unknown) => Some("drain"),
            (Duty::Drain { until: Some(until) }, BackendState::Down) if until <= self.now => {
                Some("drain")
            }
            (Duty::Drain { .. }, BackendState::Down) | (Duty::Configured | Duty::Ready, _) => None,
        });
        let order = order.filter(|order| !order.is_configured()).map(|o| self.ordered(o));
        let reason = match (&order, by_order) {
            (Some(order), Some(_)) => order.sentence.clone(),
            (Some(_) | None, _) => reason.into(),
        };
        BackendView {
            name: backend.name.clone(),
            address: backend.address.to_string(),
            state: by_order.unwrap_or(words::backend_state(state)).into(),
            reason,
            weight: backend.weight,
            backup: backend.backup,
            urgent: report.is_some_and(|report| report.urgent),
            share: report.map(|report| report.share).filter(|share| *share != WHOLE),
            order,
            traffic: report.and_then(|report| report.traffic),
            dropped: report.map_or_else(BTreeMap::new, |report| counts(&report.dropped)),
        }
    }

    /// What holds for a backend by order.
    pub fn ordered(&self, order: &BackendOrder) -> OrderedView {
        ordered_view(&self.words(), order, self.now)
    }
}

fn counts(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
}

fn held(hold: &Hold) -> HeldView {
    HeldView {
        reason: hold.reason.clone().unwrap_or_default(),
        left_ms: hold.remaining.map(millis),
    }
}

fn address(address: &VipAddress) -> VipAddressView {
    VipAddressView {
        address: address.cidr.to_string(),
        interface: address.link.map(|_| address.link_name.clone()),
        vip: address.vip_name.clone(),
        answered: address.presence == Presence::Answered,
    }
}

/// Whether it may get new connections.
fn takes_connections(backend: &BackendView) -> bool {
    !matches!(backend.state.as_str(), "down" | "drain" | "maint")
}

/// What an operator should look at first: nobody serves it, else what is behind it.
fn vip_problem(vip: &VipView, behind: impl IntoIterator<Item = String>) -> Option<String> {
    if vip.owner.is_none() && vip.router.is_none() {
        return Some(format!("no owner: {}", line(vip)));
    }
    let failing = vip.checks.iter().filter(|check| check.state == "fail");
    let checks = failing.map(|check| format!("check {} fails here: {}", check.name, check.reason));
    let all: Vec<_> = checks.chain(behind).collect();
    if all.is_empty() { None } else { Some(all.join("; ")) }
}

fn service_problems(service: &ServiceView) -> Vec<String> {
    let mut problems: Vec<_> =
        service.problem.iter().map(|problem| format!("{}: {problem}", service.port)).collect();
    let down = words::backend_state(BackendState::Down);
    let failed: Vec<_> = service.backends.iter().filter(|b| b.state == down).collect();
    if service.up == 0 && !service.backends.is_empty() {
        problems.push(format!("{}: no backend is up", service.port));
    }
    problems.extend(failed.iter().map(|backend| match backend.reason.as_str() {
        "" => format!("{} is down", backend.name),
        reason => format!("{}: {reason}", backend.name),
    }));
    // Nothing is wrong yet, so it comes last.
    let urgent = service.backends.iter().filter(|b| b.state != down && b.urgent);
    problems.extend(urgent.map(|backend| format!("{}: {}", backend.name, backend.reason)));
    problems
}

/// Every candidate with its reason, for a VIP that nobody serves.
fn line(vip: &VipView) -> String {
    let votes = vip.candidates.iter().any(|c| c.standing == "wants") && vip.votes_needed > 0;
    let mut reasons: Vec<_> =
        vip.candidates.iter().map(|c| format!("{} {}", c.node, c.reason)).collect();
    if votes {
        reasons.push(format!("{} of {} votes needed", vip.votes.len(), vip.votes_needed));
    }
    if reasons.is_empty() { "the agent has just started".into() } else { reasons.join(", ") }
}

/// The epoch that a record with a cause is about.
const fn epoch_with_cause(fact: &Fact) -> Option<Epoch> {
    if let Fact::Acquired { epoch, .. } | Fact::Released { epoch, .. } = fact {
        return Some(*epoch);
    }
    None
}

/// The node that took a VIP or gave it up, or the peer that a record is about.
const fn about(fact: &Fact, me: NodeId) -> Option<NodeId> {
    match fact {
        Fact::Acquired { .. } | Fact::Released { .. } | Fact::Served { .. } => Some(me),
        Fact::OwnerHeard { node, .. }
        | Fact::PeerUp { node, .. }
        | Fact::PeerDown { node, .. }
        | Fact::PeerGoodbye { node }
        | Fact::Overlap { node, .. }
        | Fact::DuplicateNode { node } => Some(*node),
        Fact::Unheard { .. }
        | Fact::Damped { .. }
        | Fact::Tempo { .. }
        | Fact::Held { .. }
        | Fact::Freed { .. }
        | Fact::Announced { .. }
        | Fact::BackendOrdered { .. }
        | Fact::BackendOrderDropped { .. }
        | Fact::Occupied { .. }
        | Fact::Conflict { .. }
        | Fact::Restored { .. }
        | Fact::Link { .. }
        | Fact::Stalled { .. }
        | Fact::AdvertRefused { .. }
        | Fact::AdvertDiffers { .. }
        | Fact::Drained { .. }
        | Fact::Undrained { .. }
        | Fact::Cordoned { .. }
        | Fact::Uncordoned { .. } => None,
    }
}

/// The phases of a takeover, if this is the record of them.
pub fn phases(fact: &Fact) -> Option<PhasesView> {
    let Fact::Served { epoch, detect, decide, address, announce, first_packet } = fact else {
        return None;
    };
    Some(PhasesView {
        epoch: epoch.0,
        detect_ms: millis(*detect),
        decide_ms: millis(*decide),
        address_ms: millis(*address),
        announce_ms: millis(*announce),
        first_packet_ms: first_packet.map(millis),
    })
}

/// One record with names and a sentence.
pub fn event(words: &Words<'_>, dated: &DatedRecord) -> EventView {
    let vip = about_vip(words, dated);
    EventView { seq: Some(dated.seq), vip, ..told(words, dated.at, &dated.record) }
}

/// What the VIP is called, or was when there was one.
fn about_vip(words: &Words<'_>, dated: &DatedRecord) -> Option<String> {
    let is_there = words.desired().group(dated.record.group?).is_some();
    match &dated.vip {
        Some(name) if !is_there => Some(name.as_ref().to_owned()),
        Some(_) | None => words.vip(&dated.record),
    }
}

fn told(words: &Words<'_>, at: u64, record: &Record) -> EventView {
    EventView {
        seq: None,
        at,
        vip: words.vip(record),
        node: about(&record.fact, words.desired().me).map(|node| words.node(node)),
        kind: words::kind(&record.fact).into(),
        sentence: words.fact(&record.fact),
        phases: phases(&record.fact),
    }
}

fn digest(digest: u32) -> String {
    format!("{digest:08x}")
}

/// Milliseconds, no finer than a microsecond, so that JSON stays readable.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// In the order people look for: the ids on the wire are hashes.
pub(crate) fn by_name<T>(all: impl Iterator<Item = T>, name: impl Fn(&T) -> &String) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    all.sort_by(|a, b| name(a).cmp(name(b)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_core::{Beats, Exclusion, GroupStatus, NodeStatus, Quorum, Status};
    use buoy_model::{Cause, Incarnation, Instant, Node, Pace, Timing};

    const fn lb(n: u32) -> NodeId {
        NodeId(n)
    }

    /// lb1 asks; the VIP is web.
    pub(super) fn desired(safety: Safety) -> Desired {
        let node = |n: u8| Node {
            id: lb(n.into()),
            ..Node::new(&format!("lb{n}"), ([10, 0, 0, n], 4747).into())
        };
        let group = Group { safety, ..Group::new(GroupId(1), "web", vec![]) };
        Desired {
            timing: Timing {
                heartbeat: Duration::from_millis(10),
                lease: Duration::from_millis(50),
                lease_max: Duration::from_millis(300),
            },
            ..Desired::new("prod", lb(1), vec![node(1), node(2), node(3)], vec![group])
        }
    }

    pub(super) fn status(owner: Option<NodeId>, candidates: Vec<Candidate>) -> Status {
        let group = GroupStatus {
            id: GroupId(1),
            owner,
            epoch: Epoch(7),
            since: Some(Duration::from_secs(60)),
            lease_left: None,
            votes: vec![lb(1)],
            yields_to: None,
            held: None,
            candidates,
            last_change: None,
            vrrp: vec![],
            refused: vec![],
            uptime: None,
            slack: None,
        };
        Status {
            at: Instant::from_nanos(5_000_000_000),
            me: lb(1),
            incarnation: Incarnation(1),
            generation: 1,
            digest: 0,
            draining: None,
            draining_for: None,
            cordoned: None,
            term: Duration::from_millis(50),
            quorum: Quorum::default(),
            overlaps: 0,
            nodes: vec![],
            groups: vec![group],
            ignored: Ignored::default(),
        }
    }

    fn record(fact: Fact) -> DatedRecord {
        let record = Record { at: Instant::ZERO, group: Some(GroupId(1)), fact };
        DatedRecord { seq: 1, at: 1, record, vip: None }
    }

    fn why(desired: &Desired, status: &Status, events: &[DatedRecord]) -> String {
        let host = HostReport::default();
        let view = View { desired, status, now: 9_000, services: &[], host: &host, events };
        view.why(&desired.groups[0]).answer
    }

    #[test]
    fn the_answer_has_the_cause_of_the_present_owner_only() {
        let desired = desired(Safety::Exclusive);
        let acquired = |epoch| {
            let took = Duration::from_millis(2);
            record(Fact::Acquired { epoch: Epoch(epoch), cause: Cause::NoOwner, took })
        };
        let released = |epoch| record(Fact::Released { epoch: Epoch(epoch), cause: Cause::Drain });
        let heard = record(Fact::OwnerHeard { node: lb(2), epoch: Epoch(7) });
        let took = "lb1 took it over: nobody had it (epoch 7, after 2.0 ms)";
        let gave = "lb1 gave it up: the operator drains lb1 (epoch 6)";
        let ask = "`buoy why web` on lb2 knows the cause";
        let table = [
            (1, vec![released(6), acquired(7)], format!("lb1 has owned web for 1m0s; {took}.")),
            (1, vec![acquired(5)], "lb1 has owned web for 1m0s.".into()),
            (2, vec![released(6), heard.clone()], format!("lb2 has owned web for 1m0s; {gave}.")),
            (2, vec![released(5), heard], format!("lb2 has owned web for 1m0s; {ask}.")),
        ];
        for (owner, events, answer) in table {
            assert_eq!(why(&desired, &status(Some(lb(owner)), vec![]), &events), answer);
        }
    }

    #[test]
    fn a_vip_without_an_owner_says_what_keeps_each_node() {
        let candidate = |n, standing: &Standing| {
            let standing = standing.clone();
            Candidate { node: lb(n), preferred: None, standing }
        };
        let silent = Standing::Excluded(buoy_core::Exclusion::Silent(Duration::from_secs(4)));
        let line = vec![candidate(1, &Standing::Wants), candidate(2, &silent)];
        let table = [
            (
                Safety::Exclusive,
                line.clone(),
                "Nobody owns web: lb1 asks for votes, lb2 silent for 4.0 s, 1 of 2 votes needed.",
            ),
            (Safety::Available, line, "Nobody owns web: lb1 asks for votes, lb2 silent for 4.0 s."),
            (Safety::Exclusive, vec![], "Nobody owns web: the agent has just started."),
        ];
        for (safety, candidates, answer) in table {
            assert_eq!(why(&desired(safety), &status(None, candidates), &[]), answer);
        }
    }

    fn screen(desired: &Desired, status: &Status, host: &HostReport) -> ClusterStatus {
        View { desired, status, now: 9_000, services: &[], host, events: &[] }.cluster()
    }

    #[test]
    fn a_leg_that_is_silent_while_another_is_heard_is_told() {
        let mut desired = desired(Safety::Exclusive);
        desired.nodes[1].addresses.push(([10, 1, 0, 2], 4747).into());
        let node = |legs| NodeStatus {
            id: lb(2),
            alive: true,
            heard: Some(Duration::from_millis(4)),
            silence: Duration::from_millis(320),
            legs,
            round_trip: None,
            beats: Beats::default(),
            hears_us: true,
            draining: false,
            witness: false,
            digest: Some(0),
            votes_in: None,
            owns: 0,
        };
        let (lately, long_ago) = (Duration::from_millis(4), Duration::from_secs(4));
        let table = [
            (vec![Some(lately), Some(lately)], "healthy", [true, true]),
            // As of one at rest.
            (vec![Some(lately), Some(Duration::from_millis(300))], "healthy", [true, true]),
            (vec![Some(lately), Some(long_ago)], "leg 2 silent", [true, false]),
            (vec![None, Some(lately)], "leg 1 silent", [false, true]),
        ];
        for (legs, state, alive) in table {
            let mut status = status(None, vec![]);
            status.nodes = vec![node(legs)];
            let screen = screen(&desired, &status, &HostReport::default());
            assert_eq!(screen.nodes[0].state, state);
            let seen: Vec<bool> = screen.nodes[0].legs.iter().map(|leg| leg.alive).collect();
            assert_eq!(seen, alive, "{state}");
            let told =
                screen.problems.iter().any(|p| p.contains("is silent while another is heard"));
            assert_eq!(told, state != "healthy", "{:?}", screen.problems);
        }
    }

    #[test]
    fn a_link_that_is_deaf_or_damped_is_told_with_what_follows() {
        let mut desired = desired(Safety::Exclusive);
        desired.groups[0].addresses = vec![VipAddress {
            cidr: buoy_model::Cidr::new([10, 0, 0, 100].into(), 24).unwrap(),
            link: Some(buoy_model::LinkId(3)),
            link_name: "eth0".into(),
            vip_name: "web".into(),
            presence: buoy_model::Presence::Assigned,
        }];
        let table = [
            (
                Exclusion::Unheard(buoy_model::LinkId(3)),
                "nobody is heard on eth0, while another leg hears them: \
                 its VIPs are taken here only if nobody else can",
            ),
            (
                Exclusion::Damped(Duration::from_secs(30)),
                "eth0 came and went too often: for another 30 s \
                 its VIPs are taken here only if nobody else can",
            ),
        ];
        for (exclusion, problem) in table {
            let standing = Standing::Excluded(exclusion);
            let line = vec![Candidate { node: lb(1), preferred: None, standing }];
            let screen = screen(&desired, &status(Some(lb(2)), line), &HostReport::default());
            assert_eq!(screen.links.len(), 1);
            assert_eq!(screen.links[0].name, "eth0");
            assert_eq!(screen.problems, [problem]);
        }
    }

    #[test]
    fn a_node_that_hears_too_few_says_what_it_cannot_serve() {
        let (exclusive, available) = (desired(Safety::Exclusive), desired(Safety::Available));
        let problems = |desired: &Desired, heard| {
            let mut status = status(None, vec![]);
            status.quorum = Quorum { members: 3, witnesses: 0, needed: 2, heard };
            screen(desired, &status, &HostReport::default()).problems
        };
        let told = "1 of 3 nodes is heard, itself included, and an exclusive VIP needs 2: \
                    lb1 serves none until it hears more";
        assert_eq!(problems(&exclusive, 1), [told]);
        assert_eq!(problems(&exclusive, 2), [""; 0]);
        assert_eq!(problems(&available, 1), [""; 0], "nobody's vote is needed");
    }

    #[test]
    fn a_silent_node_may_serve_an_available_vip_where_nobody_hears_it() {
        let node = |id: u32, alive| NodeStatus {
            id: lb(id),
            alive,
            heard: None,
            silence: Duration::from_millis(40),
            legs: vec![],
            round_trip: None,
            beats: Beats::default(),
            hears_us: alive,
            draining: false,
            witness: false,
            digest: None,
            votes_in: None,
            owns: 0,
        };
        let problems = |safety, two, three| {
            let mut status = status(Some(lb(1)), vec![]);
            status.nodes = vec![node(1, true), node(2, two), node(3, three)];
            screen(&desired(safety), &status, &HostReport::default()).problems
        };
        let cut = "where the network is cut and not the host dead";
        let one = format!("lb3 is not heard: {cut}, it serves web too");
        let two = format!("lb2 and lb3 are not heard: {cut}, they serve web too");
        assert_eq!(problems(Safety::Available, true, false), [one]);
        assert_eq!(problems(Safety::Available, false, false), [two]);
        assert_eq!(problems(Safety::Available, true, true), [""; 0]);
        assert_eq!(problems(Safety::Exclusive, false, false), [""; 0], "it needs votes");
    }

    #[test]
    fn a_longer_lease_says_why_it_is_longer() {
        let desired = desired(Safety::Exclusive);
        let table =
            [(50, None), (90, Some("datagrams were lost")), (2_500, Some("without a gate"))];
        for (term, reason) in table {
            let mut status = status(None, vec![]);
            status.term = Duration::from_millis(term);
            let timing = screen(&desired, &status, &HostReport::default()).timing;
            let said = timing.term_reason.unwrap_or_default();
            assert!(said.starts_with(reason.unwrap_or("")), "{term}: {said}");
            assert_eq!(said.is_empty(), reason.is_none(), "{term}: {said}");
        }
    }

    #[test]
    fn a_hold_and_the_checks_of_this_node_are_told_with_their_reasons() {
        let mut desired = desired(Safety::Exclusive);
        let check = |name: &str| NodeCheck {
            name: name.into(),
            kind: buoy_model::NodeCheckKind::Process { name: name.into() },
            pace: Pace {
                every: Duration::from_secs(1),
                every_down: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                rise: 1,
                fall: 1,
            },
            weight: None,
        };
        desired.groups[0].checks = vec![check("postgres"), check("nginx"), check("new")];
        let mut status = status(Some(lb(1)), vec![]);
        let reason = Some("patching (by ann)".to_owned());
        status.groups[0].held = Some(Hold { reason, remaining: Some(Duration::from_secs(60)) });
        status.groups[0].yields_to = Some(lb(2));
        let report = |name: &str, passes, reason: &str| CheckReport {
            group: GroupId(1),
            name: name.into(),
            passes,
            reason: reason.into(),
        };
        let checks = vec![
            report("nginx", Some(false), "no such process"),
            report("postgres", Some(true), "process 7"),
        ];
        let host = HostReport { checks, ..HostReport::default() };
        let vip = screen(&desired, &status, &host).vips.remove(0);
        let held = vip.held.expect("an operator holds it");
        assert_eq!((held.reason.as_str(), held.left_ms), ("patching (by ann)", Some(60_000.0)));
        assert_eq!(vip.yields_to.as_deref(), Some("lb2"));
        let seen: Vec<_> =
            vip.checks.iter().map(|c| (c.state.as_str(), c.reason.as_str())).collect();
        let unknown = "not asked yet: counts as passing";
        assert_eq!(
            seen,
            [("pass", "process 7"), ("fail", "no such process"), ("unknown", unknown)]
        );
        assert_eq!(vip.checks[0].asks, "process postgres runs");
        assert_eq!(vip.problem.as_deref(), Some("check nginx fails here: no such process"));
    }

    #[test]
    fn a_certificate_that_ends_is_a_problem_before_it_has_ended() {
        let backend = |name: &str, state: &str, reason: &str, urgent| BackendView {
            name: name.into(),
            state: state.into(),
            reason: reason.into(),
            urgent,
            ..BackendView::default()
        };
        let service = ServiceView {
            port: "443/tcp".into(),
            up: 2,
            backends: vec![
                backend("web1", "up", "the certificate ends in 3 days", true),
                backend("web2", "up", "its agent says 50% of its weight", false),
                backend("web3", "down", "connection refused", false),
            ],
            ..ServiceView::default()
        };
        let problems = service_problems(&service);
        assert_eq!(problems, ["web3: connection refused", "web1: the certificate ends in 3 days"]);
    }

    #[test]
    fn the_phases_of_a_takeover_are_kept_apart_from_its_cause() {
        let desired = desired(Safety::Exclusive);
        let acquired = Fact::Acquired {
            epoch: Epoch(7),
            cause: Cause::NoOwner,
            took: Duration::from_millis(2),
        };
        let served = Fact::Served {
            epoch: Epoch(7),
            detect: Duration::from_millis(37),
            decide: Duration::from_millis(1),
            address: Duration::from_millis(2),
            announce: Duration::from_millis(3),
            first_packet: Some(Duration::from_millis(4)),
        };
        let events = [record(acquired), record(served)];
        let status = status(Some(lb(1)), vec![]);
        let host = HostReport::default();
        let view = View {
            desired: &desired,
            status: &status,
            now: 9_000,
            services: &[],
            host: &host,
            events: &events,
        };
        let why = view.why(&desired.groups[0]);
        assert!(why.answer.contains("nobody had it"), "the cause: {}", why.answer);
        let phases = why.phases.expect("it was served");
        assert_eq!((phases.epoch, phases.detect_ms, phases.first_packet_ms), (7, 37.0, Some(4.0)));
        assert_eq!(why.history[0].phases, None);
        assert_eq!(why.history[1].phases, Some(phases));
    }

    #[test]
    fn the_last_change_is_dated_by_its_age_not_by_the_clock_then() {
        let desired = desired(Safety::Exclusive);
        let mut status = status(Some(lb(1)), vec![]);
        let at = Instant::from_nanos(3_000_000_000);
        let change =
            Record { at, group: Some(GroupId(1)), fact: Fact::Undrained { reason: String::new() } };
        status.groups[0].last_change = Some(change);
        let host = HostReport::default();
        let view = View {
            desired: &desired,
            status: &status,
            now: 9_000,
            services: &[],
            host: &host,
            events: &[],
        };
        let change = view.cluster().vips[0].last_change.clone().expect("there is one");
        assert_eq!(change.at, 7_000, "two seconds before now");
    }
}
