//! Makes the answers of the API from what the core, the checks and the host know. Pure.

use crate::status::{
    BackendView, CandidateView, ClusterStatus, EventView, LoopView, NodeView, ServiceView,
    VipAddressView, VipView, WhyReply,
};
use crate::words::{self, Words};
use buoy_core::{Candidate, Ignored, NodeStatus, Standing};
use buoy_model::{
    Backend, BackendState, Desired, Group, GroupId, Protocol, Record, Safety, Service, VipAddress,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the slow side knows of one service on this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceReport {
    /// The service's group.
    pub group: GroupId,
    /// The service's protocol.
    pub protocol: Protocol,
    /// The service's port.
    pub port: u16,
    /// What keeps this host from forwarding it, as a sentence that says what to do.
    pub problem: Option<String>,
    /// Its backends, in any order; one that is not listed counts as not checked yet.
    pub backends: Vec<BackendReport>,
}

/// What the checks know of one backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendReport {
    /// Its name, as in `Desired`.
    pub name: String,
    /// Whether it may get new connections.
    pub state: BackendState,
    /// Why, as in "HTTP 503" or "connection refused"; empty where there is nothing to say.
    pub reason: String,
}

/// What is to be said of this host apart from ownership.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HostReport {
    /// The lines of defence, one sentence each: which stand, which lack and why.
    pub defences: Vec<String>,
    /// What is wrong, as sentences that say what to do.
    pub problems: Vec<String>,
    /// How the loop is scheduled, as in "SCHED_FIFO 50, memory locked".
    pub realtime: String,
    /// What was counted, by name: `rejected_forged`, `late_wakeups` and the like.
    pub counters: BTreeMap<String, u64>,
}

/// A record with its moment by the wall clock, in milliseconds since 1970.
pub type DatedRecord = (u64, Record);

/// All that an answer is made of, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The configuration in force.
    pub desired: &'a Desired,
    /// What the node knows of the cluster.
    pub status: &'a buoy_core::Status,
    /// The moment of `status` by the wall clock, in milliseconds since 1970.
    pub now: u64,
    /// What the slow side knows of the services.
    pub services: &'a [ServiceReport],
    /// What is to be said of the host.
    pub host: &'a HostReport,
    /// The latest records, oldest first.
    pub events: &'a [DatedRecord],
}

impl View<'_> {
    /// The answer to `GET /v1/status`.
    pub fn cluster(&self) -> ClusterStatus {
        let desired = self.desired;
        ClusterStatus {
            cluster: desired.cluster_name.clone(),
            node: desired.node_name(desired.me).into(),
            version: env!("CARGO_PKG_VERSION").into(),
            generation: self.status.generation,
            digest: digest(self.status.digest),
            draining: self.status.draining.clone(),
            defences: self.host.defences.clone(),
            problems: self.problems(),
            loop_: LoopView { realtime: self.host.realtime.clone(), counters: self.counters() },
            nodes: by_name(self.status.nodes.iter().map(|n| self.node(n)), |n| &n.name),
            vips: by_name(desired.groups.iter().map(|g| self.vip(g)), |v| &v.name),
            events: self.events.iter().map(|event| self.event(event)).collect(),
        }
    }

    /// The answer to `GET /v1/vips/{vip}/why`.
    pub fn why(&self, group: &Group) -> WhyReply {
        let vip = self.vip(group);
        let about_it = self.events.iter().filter(|(_, record)| record.group == Some(group.id));
        WhyReply {
            node: self.words().node(self.desired.me),
            answer: answer(&vip),
            history: about_it.map(|event| self.event(event)).collect(),
            vip,
        }
    }

    /// One record with names and a sentence.
    pub fn event(&self, (at, record): &DatedRecord) -> EventView {
        let words = self.words();
        EventView {
            at: *at,
            vip: words.vip(record),
            kind: words::kind(&record.fact).into(),
            sentence: words.fact(&record.fact),
        }
    }

    /// What the loop counted, with what the core ignored of it.
    fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = self.host.counters.clone();
        let Ignored { stale, unproven, duplicate, stranger } = self.status.ignored;
        let ignored = [
            ("ignored_stale", stale),
            ("ignored_unproven", unproven),
            ("ignored_duplicate", duplicate),
            ("ignored_stranger", stranger),
        ];
        counters.extend(ignored.map(|(name, count)| (name.into(), count)));
        counters
    }

    fn words(&self) -> Words<'_> {
        Words::new(self.desired)
    }

    /// The host's own problems, and those that only a look at the whole cluster shows.
    fn problems(&self) -> Vec<String> {
        let mut problems = self.host.problems.clone();
        for node in &self.status.nodes {
            let name = self.words().node(node.id);
            let other = node.digest.is_some_and(|theirs| theirs != self.status.digest);
            if node.alive && other {
                problems.push(format!(
                    "{name} runs another configuration: \
                     copy the file to it and run `buoy reload` there"
                ));
            }
            if node.alive && !node.hears_us && node.id != self.desired.me {
                problems.push(format!(
                    "{name} is heard but does not answer: \
                     is UDP towards {name} filtered, or its key another?"
                ));
            }
        }
        problems
    }

    fn node(&self, node: &NodeStatus) -> NodeView {
        let member = self.desired.node(node.id);
        NodeView {
            name: self.words().node(node.id),
            address: member.map_or_else(String::new, |m| m.address.to_string()),
            me: node.id == self.desired.me,
            alive: node.alive,
            heard_ms: node.heard.map(millis),
            round_trip_ms: node.round_trip.map(millis),
            hears_us: node.hears_us,
            draining: node.draining,
            digest: node.digest.map(digest),
            owns: node.owns,
            state: self.node_state(node),
        }
    }

    fn node_state(&self, node: &NodeStatus) -> String {
        let me = node.id == self.desired.me;
        match (node.alive, node.heard) {
            (true, _) if node.draining => "drained".into(),
            (true, _) if !me && !node.hears_us => "does not answer".into(),
            (true, _) => "healthy".into(),
            (false, Some(heard)) => format!("silent for {}", words::span(heard)),
            (false, None) => "never heard".into(),
        }
    }

    fn vip(&self, group: &Group) -> VipView {
        let words = self.words();
        let mut vip = VipView {
            name: group.name.clone(),
            addresses: group.addresses.iter().map(address).collect(),
            safety: words::safety(group.safety).into(),
            failback: words::failback(group.failback),
            votes_needed: match group.safety {
                Safety::Exclusive => self.desired.majority(),
                Safety::Available => 0,
            },
            services: group.services.iter().map(|s| self.service(group.id, s)).collect(),
            ..VipView::default()
        };
        if let Some(status) = self.status.groups.iter().find(|g| g.id == group.id) {
            vip.owner = status.owner.map(|owner| words.node(owner));
            vip.mine = status.owner == Some(self.desired.me);
            vip.epoch = status.epoch.0;
            vip.since_ms = status.since.map(millis);
            vip.lease_left_ms = status.lease_left.map(millis);
            vip.votes = status.votes.iter().map(|voter| words.node(*voter)).collect();
            vip.candidates = status.candidates.iter().map(|c| self.candidate(c)).collect();
            vip.last_change = status.last_change.as_ref().map(|record| {
                let age = self.status.at.since(record.at).as_millis();
                let at = self.now.saturating_sub(u64::try_from(age).unwrap_or(u64::MAX));
                self.event(&(at, record.clone()))
            });
        }
        vip.problem = vip_problem(&vip);
        vip
    }

    fn candidate(&self, candidate: &Candidate) -> CandidateView {
        let standing = match candidate.standing {
            Standing::Owner => "owner",
            Standing::Wants => "wants",
            Standing::Candidate => "candidate",
            Standing::Excluded(_) => "excluded",
        };
        CandidateView {
            node: self.words().node(candidate.node),
            preferred: candidate.preferred.map(|place| place + 1),
            standing: standing.into(),
            reason: self.words().standing(candidate.standing),
        }
    }

    fn service(&self, group: GroupId, service: &Service) -> ServiceView {
        let report = self.services.iter().find(|report| {
            (report.group, report.protocol, report.port) == (group, service.protocol, service.port)
        });
        let reports = report.map_or(&[][..], |report| &report.backends);
        let backends: Vec<_> = service.backends.iter().map(|b| backend(b, reports)).collect();
        let down = words::backend_state(BackendState::Down);
        ServiceView {
            port: format!("{}/{}", service.port, service.protocol.name()),
            mode: words::mode(service.mode).into(),
            balance: words::balance(service.balance).into(),
            up: backends.iter().filter(|backend| backend.state != down).count(),
            backends,
            problem: report.and_then(|report| report.problem.clone()),
        }
    }
}

fn address(address: &VipAddress) -> VipAddressView {
    VipAddressView {
        address: address.cidr.to_string(),
        interface: address.link.map(|_| address.link_name.clone()),
    }
}

fn backend(backend: &Backend, reports: &[BackendReport]) -> BackendView {
    let report = reports.iter().find(|report| report.name == backend.name);
    BackendView {
        name: backend.name.clone(),
        address: backend.address.to_string(),
        state: words::backend_state(report.map_or(BackendState::Unknown, |r| r.state)).into(),
        reason: report.map_or_else(String::new, |r| r.reason.clone()),
        weight: backend.weight,
        backup: backend.backup,
    }
}

/// What an operator should look at first: nobody serves it, else what is behind it.
fn vip_problem(vip: &VipView) -> Option<String> {
    if vip.owner.is_none() {
        return Some(format!("no owner: {}", line(vip)));
    }
    let behind = vip.services.iter().flat_map(service_problems);
    let all: Vec<_> = behind.collect();
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

/// Why the VIP is where it is, in one sentence.
fn answer(vip: &VipView) -> String {
    let Some(owner) = &vip.owner else {
        return format!("Nobody owns {}: {}.", vip.name, line(vip));
    };
    let since = vip.since_ms.map_or_else(String::new, |ms| {
        format!(" for {}", words::span(Duration::from_secs_f64(ms.max(0.0) / 1e3)))
    });
    let cause = vip.last_change.as_ref().map_or_else(
        || "it owned it before this agent started".into(),
        |change| change.sentence.clone(),
    );
    format!("{owner} has owned {}{since}: {cause}.", vip.name)
}

fn digest(digest: u32) -> String {
    format!("{digest:08x}")
}

/// Milliseconds, no finer than a microsecond, so that JSON stays readable.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
/// In the order people look for: the ids on the wire are hashes.
fn by_name<T>(all: impl Iterator<Item = T>, name: impl Fn(&T) -> &String) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    all.sort_by(|a, b| name(a).cmp(name(b)));
    all
}
