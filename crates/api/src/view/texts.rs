//! Makes the whole status as text, and keeps the text of each VIP for as long as nothing but its ages is to be told anew.
//!
//! With a thousand VIPs nearly all of the answer is what it was a moment ago: names, sentences, ten thousand backends.
//! Making that anew is most of what a question costs. So a text is kept with what it was made from, of a VIP and of what
//! is behind it apart (a peer that is silent changes the sentences of all VIPs, and no backend), and is used again where
//! that is still the same. What grows by itself is written into gaps that the texts have for it.

use super::{CheckReport, ServiceReport, View, millis, service_problems, vip_problem};
use crate::status::ServiceView;
use buoy_core::GroupStatus;
use buoy_model::{Desired, Group, GroupId};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Where the ages of a VIP belong. In no text can this be a part of a value: quotes of strings are escaped there.
const AGES: &str = "\"since_ms\":null,\"lease_left_ms\":null";
/// Where its services belong.
const BEHIND: &str = "\"services\":[]";
/// Where the VIPs of a status belong.
const VIPS: &str = "\"vips\":[]";
/// A wall clock that went so far from this host's own, in milliseconds, was set: all times of day are told anew.
const CLOCK_STEP: u64 = 500;

/// The texts of all VIPs.
#[derive(Debug)]
pub struct Texts {
    desired: Arc<Desired>,
    /// What the wall clock showed when this host's own began.
    began: u64,
    /// In the order of names.
    vips: Vec<(GroupId, Option<VipText>)>,
    /// How many were made.
    made: u64,
}

/// The text of one VIP, and what it was made from.
#[derive(Debug)]
struct VipText {
    status: Option<GroupStatus>,
    checks: Vec<CheckReport>,
    behind: BehindText,
    /// Until its ages, until its services, and the rest.
    parts: [String; 3],
}

/// The text of what is balanced behind it, and what that was made from.
#[derive(Debug)]
struct BehindText {
    reports: Vec<ServiceReport>,
    problems: Vec<String>,
    text: String,
}

impl Texts {
    /// None yet, for this configuration.
    pub fn new(desired: Arc<Desired>) -> Self {
        let mut groups: Vec<&Group> = desired.groups.iter().collect();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        let vips = groups.into_iter().map(|group| (group.id, None)).collect();
        Self { desired, began: 0, vips, made: 0 }
    }

    /// Whether they are of this configuration.
    pub fn are_of(&self, desired: &Arc<Desired>) -> bool {
        Arc::ptr_eq(&self.desired, desired)
    }

    /// How many texts were made: while it stays, nothing was told of any VIP but ages.
    pub const fn made(&self) -> u64 {
        self.made
    }

    /// Makes anew what is not as it was.
    pub fn update(&mut self, view: &View<'_>) {
        let began = view.now.saturating_sub(whole_millis(view.status.at.as_nanos()));
        if CLOCK_STEP < began.abs_diff(self.began) {
            self.vips.iter_mut().for_each(|(_, text)| *text = None);
            self.began = began;
        }
        let known: BTreeMap<GroupId, &GroupStatus> =
            view.status.groups.iter().map(|status| (status.id, status)).collect();
        for (id, kept) in &mut self.vips {
            let Some(group) = self.desired.group(*id) else { continue };
            let status = known.get(id).copied();
            let behind = view.services_of(*id);
            let checks: Vec<CheckReport> = match group.checks.is_empty() {
                true => Vec::new(),
                false => view.host.checks.iter().filter(|c| c.group == *id).cloned().collect(),
            };
            let is_behind_as_it_was = kept.as_ref().is_some_and(|kept| kept.behind.is_of(behind));
            let is_as_it_was = is_behind_as_it_was
                && kept.as_ref().is_some_and(|kept| kept.is_of(status, &checks));
            if is_as_it_was {
                continue;
            }
            self.made += 1;
            let behind = match kept.take().filter(|_| is_behind_as_it_was) {
                Some(kept) => kept.behind,
                None => BehindText::make(view, group, behind),
            };
            *kept = Some(VipText::make(view, (group, status), checks, behind));
        }
    }

    /// All VIPs, in a frame that has none: the status, or their list.
    pub fn whole(&self, view: &View<'_>, frame: &impl Serialize) -> String {
        let frame = json(frame);
        let (before, after) = frame.split_once(VIPS).unwrap_or((&frame, ""));
        let room: usize = self.vips.iter().flat_map(|(_, text)| text).map(VipText::room).sum();
        let mut out = String::with_capacity(frame.len() + room);
        out.push_str(before);
        out.push_str("\"vips\":[");
        let known: BTreeMap<GroupId, &GroupStatus> =
            view.status.groups.iter().map(|status| (status.id, status)).collect();
        let texts = self.vips.iter().filter_map(|(id, text)| Some((id, text.as_ref()?)));
        for (n, (id, text)) in texts.enumerate() {
            if 0 < n {
                out.push(',');
            }
            text.write(known.get(id).copied(), &mut out);
        }
        out.push(']');
        out.push_str(after);
        out
    }
}

impl VipText {
    fn make(
        view: &View<'_>,
        (group, status): (&Group, Option<&GroupStatus>),
        checks: Vec<CheckReport>,
        behind: BehindText,
    ) -> Self {
        let mut vip = view.vip_alone(group, status);
        (vip.since_ms, vip.lease_left_ms) = (None, None);
        vip.problem = vip_problem(&vip, behind.problems.clone());
        let text = json(&vip);
        let (before, after) = text.split_once(AGES).unwrap_or((&text, ""));
        let (between, after) = after.split_once(BEHIND).unwrap_or((after, ""));
        let parts = [before, between, after].map(str::to_owned);
        Self { status: status.cloned(), checks, behind, parts }
    }

    /// Whether that would give this text, whatever is behind it.
    fn is_of(&self, status: Option<&GroupStatus>, checks: &[CheckReport]) -> bool {
        let is_same = match (&self.status, status) {
            (Some(a), Some(b)) => is_same_but_ages(a, b),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        is_same && self.checks == checks
    }

    fn room(&self) -> usize {
        let parts: usize = self.parts.iter().map(String::len).sum();
        parts + self.behind.text.len() + AGES.len() + BEHIND.len() + 64
    }

    fn write(&self, status: Option<&GroupStatus>, out: &mut String) {
        let [before, between, after] = &self.parts;
        let ages = |status: &GroupStatus| (status.since, status.lease_left);
        let (since, lease_left) = status.map(ages).unwrap_or_default();
        out.push_str(before);
        out.push_str("\"since_ms\":");
        out.push_str(&age(since));
        out.push_str(",\"lease_left_ms\":");
        out.push_str(&age(lease_left));
        out.push_str(between);
        out.push_str("\"services\":");
        out.push_str(&self.behind.text);
        out.push_str(after);
    }
}

impl BehindText {
    fn make(view: &View<'_>, group: &Group, reports: &[ServiceReport]) -> Self {
        let services: Vec<ServiceView> =
            group.services.iter().map(|service| view.service(group, service)).collect();
        let problems = services.iter().flat_map(service_problems).collect();
        Self { reports: reports.to_vec(), problems, text: json(&services) }
    }

    /// Whether these would give this text. What is ordered of a backend is told with the time that is left: always anew.
    fn is_of(&self, reports: &[ServiceReport]) -> bool {
        let is_ordered = |report: &ServiceReport| report.backends.iter().any(|b| b.order.is_some());
        let are_same = |(a, b): (&ServiceReport, &ServiceReport)| is_told_the_same(a, b);
        self.reports.len() == reports.len()
            && self.reports.iter().zip(reports).all(are_same)
            && !reports.iter().any(is_ordered)
    }
}

/// Whether two states of a group differ in nothing that the status tells, but in ages.
fn is_same_but_ages(a: &GroupStatus, b: &GroupStatus) -> bool {
    let GroupStatus {
        id,
        owner,
        epoch,
        since: _,
        lease_left: _,
        votes,
        yields_to,
        held,
        candidates,
        last_change,
        vrrp,
        refused,
        uptime: _,
        slack: _,
    } = a;
    (id, owner, epoch, yields_to) == (&b.id, &b.owner, &b.epoch, &b.yields_to)
        && (votes, held, last_change) == (&b.votes, &b.held, &b.last_change)
        && (candidates, vrrp, refused) == (&b.candidates, &b.vrrp, &b.refused)
}

/// Whether two reports of a service differ in nothing that the status tells.
fn is_told_the_same(a: &ServiceReport, b: &ServiceReport) -> bool {
    let ServiceReport {
        group,
        address,
        protocol,
        ports,
        problem,
        engine,
        table,
        limited,
        backends,
    } = a;
    let are_backends_same = || {
        backends.len() == b.backends.len()
            && backends.iter().zip(&b.backends).all(|(a, b)| {
                let super::BackendReport {
                    name,
                    state,
                    reason,
                    urgent,
                    share,
                    traffic,
                    lasts: _,
                    order,
                } = a;
                (name, state, reason, urgent) == (&b.name, &b.state, &b.reason, &b.urgent)
                    && (share, traffic, order) == (&b.share, &b.traffic, &b.order)
            })
    };
    (group, address, protocol, ports) == (&b.group, &b.address, &b.protocol, &b.ports)
        && (problem, engine, table, limited) == (&b.problem, &b.engine, &b.table, &b.limited)
        && are_backends_same()
}

fn age(age: Option<Duration>) -> String {
    json(&age.map(millis))
}

fn json(value: &impl Serialize) -> String {
    // Infallible: names, numbers and lists of them, no map with keys that are no strings.
    serde_json::to_string(value).unwrap_or_default()
}

const fn whole_millis(nanos: u64) -> u64 {
    nanos / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::super::{BackendReport, HostReport, tests};
    use super::*;
    use crate::lists::VipsReply;
    use buoy_core::{Candidate, Exclusion, Standing, Status};
    use buoy_model::{
        Backend, BackendId, BackendLife, BackendOrder, BackendState, Balance, Duty, Fact,
        FlowFields, Front, Mode, NodeCheck, NodeCheckKind, NodeId, OrderVersion, OrderedWeight,
        Pace, Ports, Protocol, Record, Safety, SendProxy, Service, SourceAddress,
    };

    /// lb1 asks; web has a service with two backends and a check, the other VIP has neither. Both have names that look
    /// like what texts are cut at.
    fn desired() -> Desired {
        let mut desired = tests::desired(Safety::Exclusive);
        let second = Duration::from_secs(1);
        let backend = |name: &str, n: u8| Backend::new(name, ([10, 0, 0, n], 80).into());
        let web = &mut desired.groups[0];
        web.services = vec![Service {
            addresses: vec![[10, 0, 0, 100].into()],
            protocol: Protocol::Tcp,
            ports: Ports::one(80),
            mode: Mode::Kernel,
            balance: Balance::Hash(FlowFields::Connection),
            source: SourceAddress::Vip,
            send_proxy: SendProxy::Off,
            connections_max: 1,
            idle_timeout: second,
            connect_timeout: second,
            sources: Arc::default(),
            new_connections: None,
            life: BackendLife::default(),
            front: Front::default(),
            backends: vec![backend("web1", 21), backend("\"vips\":[]", 22)],
            discovered: vec![],
            check: None,
        }];
        let pace = Pace { every: second, every_down: second, timeout: second, rise: 1, fall: 1 };
        let kind = NodeCheckKind::Process { name: BEHIND.into() };
        web.checks = vec![NodeCheck { name: "postgres".into(), kind, pace, weight: None }];
        let mut other = web.clone();
        (other.id, other.name) = (GroupId(2), AGES.into());
        (other.services, other.checks) = (vec![], vec![]);
        desired.groups.push(other);
        desired
    }

    /// What is known at one moment.
    struct Moment {
        now: u64,
        status: Status,
        services: Vec<ServiceReport>,
        host: HostReport,
    }

    fn moment() -> Moment {
        let mut status = tests::status(Some(NodeId(1)), vec![]);
        let mut other = status.groups[0].clone();
        (other.id, other.owner, other.since) = (GroupId(2), None, None);
        status.groups.push(other);
        let backend = |name: &str| BackendReport {
            name: name.into(),
            state: BackendState::Up,
            reason: String::new(),
            urgent: false,
            share: 100,
            traffic: None,
            lasts: Some(Duration::from_secs(9)),
            order: None,
        };
        let services = vec![ServiceReport {
            group: GroupId(1),
            address: [10, 0, 0, 100].into(),
            protocol: Protocol::Tcp,
            ports: Ports::one(80),
            problem: None,
            engine: "nftables".into(),
            table: None,
            limited: None,
            backends: vec![backend("web1"), backend("\"vips\":[]")],
        }];
        let check = CheckReport {
            group: GroupId(1),
            name: "postgres".into(),
            passes: Some(true),
            reason: String::new(),
        };
        let host = HostReport { checks: vec![check], ..HostReport::default() };
        Moment { now: 1_700_000_000_000, status, services, host }
    }

    /// The text is that of the status; so many texts were made for it.
    fn told(texts: &mut Texts, moment: &Moment, what: &str) -> u64 {
        let desired = Arc::clone(&texts.desired);
        let Moment { now, status, services, host } = moment;
        let view = View { desired: &desired, status, now: *now, services, host, events: &[] };
        let before = texts.made();
        texts.update(&view);
        let text = texts.whole(&view, &view.cluster_alone());
        let plain = serde_json::to_string(&view.cluster()).unwrap();
        assert_eq!(text, plain, "{what}");
        let list = VipsReply { node: "\"vips\":[]".into(), revision: 7, ..VipsReply::default() };
        let text = texts.whole(&view, &list);
        let plain = serde_json::to_string(&VipsReply { vips: view.vips(), ..list }).unwrap();
        assert_eq!(text, plain, "{what}");
        texts.made() - before
    }

    type Change = fn(&mut Moment);

    #[test]
    fn a_text_is_the_status_and_is_made_again_where_something_changed_and_nowhere_else() {
        let changes: [(&str, u64, Change); 12] = [
            ("nothing", 0, |_| ()),
            ("time", 0, |m| {
                m.now += 7_000;
                m.status.at = m.status.at + Duration::from_secs(7);
                m.status.groups[0].since = Some(Duration::from_secs(67));
                m.status.groups[0].lease_left = Some(Duration::from_millis(31));
                m.services[0].backends[0].lasts = Some(Duration::from_secs(16));
            }),
            ("an owner goes", 1, |m| m.status.groups[0].owner = None),
            ("an epoch", 1, |m| m.status.groups[1].epoch.0 += 1),
            ("a peer is silent", 2, |m| {
                let silent = Standing::Excluded(Exclusion::Silent(Duration::from_secs(4)));
                let line = Candidate { node: NodeId(2), preferred: None, standing: silent };
                m.status.groups.iter_mut().for_each(|g| g.candidates = vec![line.clone()]);
            }),
            ("a change of owner", 1, |m| {
                let fact = Fact::OwnerHeard { node: NodeId(2), epoch: buoy_model::Epoch(9) };
                let at = m.status.at;
                m.status.groups[1].last_change = Some(Record { at, group: None, fact });
            }),
            ("the clock is set", 2, |m| m.now += 3_600_000),
            ("a backend fails", 1, |m| {
                let backend = &mut m.services[0].backends[1];
                (backend.state, backend.reason) = (BackendState::Down, "refused".into());
            }),
            ("an engine", 1, |m| m.services[0].engine = "proxy".into()),
            ("a check fails", 1, |m| m.host.checks[0].passes = Some(false)),
            ("a service is not reported", 1, |m| m.services.clear()),
            ("a group is not known", 1, |m| m.status.groups.truncate(1)),
        ];
        let mut texts = Texts::new(Arc::new(desired()));
        let mut moment = moment();
        assert_eq!(told(&mut texts, &moment, "first"), 2);
        for (what, made, change) in changes {
            change(&mut moment);
            assert_eq!(told(&mut texts, &moment, what), made, "{what}");
            assert_eq!(told(&mut texts, &moment, what), 0, "{what}, and nothing more");
        }
    }

    #[test]
    fn what_is_ordered_is_told_with_the_time_that_is_left() {
        let mut texts = Texts::new(Arc::new(desired()));
        let mut moment = moment();
        moment.services[0].backends[0].order = Some(BackendOrder {
            backend: BackendId::of(&desired().groups[0].services[0], "web1"),
            duty: Duty::Drain { until: Some(moment.now + 30_000) },
            weight: OrderedWeight::Configured,
            version: OrderVersion { micros: 1, node: NodeId(1) },
            reason: "patching (by ann)".into(),
        });
        assert_eq!(told(&mut texts, &moment, "first"), 2);
        moment.now += 100;
        assert_eq!(told(&mut texts, &moment, "a moment later"), 1);
    }
}
