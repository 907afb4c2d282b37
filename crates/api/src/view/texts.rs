//! Makes the whole status and the lists as text, and keeps the text of each VIP for as long as nothing but its ages is to be
//! told anew.
//!
//! With a thousand VIPs nearly all of the answer is what it was a moment ago: names, sentences, ten thousand backends.
//! Making that anew is most of what a question costs. So a text is kept with what it was made from, of a VIP and of what
//! is behind it apart (a peer that is silent changes the sentences of all VIPs, and no backend), and is used again where
//! that is still the same. What grows by itself is written into gaps that the texts have for it.

mod behind;
mod pieces;

pub use pieces::Pieces;

use super::{CheckReport, ServiceReport, View, millis, vip_problem};
use crate::lists::VipsReply;
use crate::services::{BackendsReply, ServicesReply};
use crate::status::ClusterStatus;
use behind::{BehindText, ServiceText, Source};
use buoy_core::GroupStatus;
use buoy_model::{Desired, Group, GroupId};
use hyper::body::Bytes;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Where the ages of a VIP belong. In no text can this be a part of a value: quotes of strings are escaped there.
const AGES: &str = "\"since_ms\":null,\"lease_left_ms\":null";
/// What is before the first of them.
const SINCE: &str = "\"since_ms\":";
/// What is before the second.
const LEASE_LEFT: &str = ",\"lease_left_ms\":";
/// Where its services belong, and those of their list.
const SERVICES: &str = "\"services\":[]";
/// Where the VIPs of a status belong.
const VIPS: &str = "\"vips\":[]";
/// Where the items of the list of backends belong.
const BACKENDS: &str = "\"backends\":[]";
/// A wall clock that went so far from this host's own, in milliseconds, was set: all times of day are told anew.
const CLOCK_STEP: u64 = 500;

/// Which VIPs an answer is about, in the order of their ids; `None`: all.
pub type Of<'a> = Option<&'a [GroupId]>;

/// The texts of all VIPs that were asked for.
#[derive(Debug)]
pub struct Texts {
    desired: Arc<Desired>,
    /// What the wall clock showed when this host's own began.
    began: u64,
    /// In the order of names.
    vips: Vec<Vip>,
    /// How many were made.
    made: u64,
}

#[derive(Debug)]
struct Vip {
    id: GroupId,
    /// Its place in the configuration.
    at: usize,
    kept: Kept,
}

/// What is kept of one VIP.
#[derive(Debug, Default)]
struct Kept {
    behind: Option<BehindText>,
    /// Never without what is behind it.
    alone: Option<VipText>,
}

/// The text of one VIP without what is behind it, and what it was made from.
#[derive(Debug)]
struct VipText {
    status: Option<GroupStatus>,
    checks: Vec<CheckReport>,
    /// Which text of what is behind it says what is wrong there.
    behind: u64,
    /// Until its ages, until its services, and the rest.
    parts: [Bytes; 3],
}

impl Texts {
    /// None yet, for this configuration.
    pub fn new(desired: Arc<Desired>) -> Self {
        let mut groups: Vec<(usize, &Group)> = desired.groups.iter().enumerate().collect();
        groups.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        let vip = |(at, group): (usize, &Group)| Vip { id: group.id, at, kept: Kept::default() };
        let vips = groups.into_iter().map(vip).collect();
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

    /// Makes anew what is not as it was of those VIPs, about which the view knows all.
    pub fn update(&mut self, view: &View<'_>, of: Of<'_>) {
        let began = view.now.saturating_sub(whole_millis(view.status.at.as_nanos()));
        if CLOCK_STEP < began.abs_diff(self.began) {
            self.vips.iter_mut().for_each(|vip| vip.kept.alone = None);
            self.began = began;
        }
        let reports = by_group(&self.desired, view);
        for Vip { id, at, kept } in self.vips.iter_mut().filter(|vip| is_of(vip.id, of)) {
            let group = &self.desired.groups[*at];
            let is_behind_new = kept.update_behind(view, (group, reports[*at]), self.made + 1);
            let is_alone_new = kept.update_alone(view, (group, known(view, (*id, *at))));
            self.made += u64::from(is_behind_new || is_alone_new);
        }
    }

    /// The same of what is behind them alone: of the VIPs themselves the view need know nothing.
    pub fn update_behind(&mut self, view: &View<'_>, of: Of<'_>) {
        let reports = by_group(&self.desired, view);
        for Vip { at, kept, .. } in self.vips.iter_mut().filter(|vip| is_of(vip.id, of)) {
            let behind = (&self.desired.groups[*at], reports[*at]);
            self.made += u64::from(kept.update_behind(view, behind, self.made + 1));
        }
    }

    /// The status, whose frame has no VIPs.
    pub fn status(&self, view: &View<'_>, frame: &ClusterStatus) -> Pieces {
        self.with_vips(view, frame, None)
    }

    /// The list of VIPs, whose frame has none.
    pub fn vips(&self, view: &View<'_>, frame: &VipsReply, of: Of<'_>) -> Pieces {
        self.with_vips(view, frame, of)
    }

    /// The list of services, whose frame has none.
    pub fn services(&self, frame: &ServicesReply, of: Of<'_>) -> Pieces {
        let services = self.behind(of).flat_map(|(_, behind)| behind.by_address());
        framed(frame, SERVICES, services, ServiceText::write_item)
    }

    /// The list of backends, whose frame has none.
    pub fn backends(&self, frame: &BackendsReply, of: Of<'_>) -> Pieces {
        let mut services: Vec<(&ServiceText, Source<'_>)> = self
            .behind(of)
            .flat_map(|(at, behind)| behind.services(&self.desired.groups[at]))
            .filter(|(service, _)| service.has_backends())
            .collect();
        services.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        framed(frame, BACKENDS, services.into_iter(), |(service, source), out| {
            service.write_backends(source, out);
        })
    }

    /// With the places of their groups.
    fn behind(&self, of: Of<'_>) -> impl Iterator<Item = (usize, &BehindText)> {
        let those = self.vips.iter().filter(move |vip| is_of(vip.id, of));
        those.filter_map(|vip| Some((vip.at, vip.kept.behind.as_ref()?)))
    }

    fn with_vips(&self, view: &View<'_>, frame: &impl Serialize, of: Of<'_>) -> Pieces {
        let those = self.vips.iter().filter(|vip| is_of(vip.id, of));
        let texts = those.filter_map(|Vip { id, at, kept }| {
            Some(((*id, *at), kept.alone.as_ref()?, kept.behind.as_ref()?))
        });
        framed(frame, VIPS, texts, |(vip, text, behind), out| {
            text.write(known(view, vip), behind, out);
        })
    }
}

impl Kept {
    /// Whether it was made anew, with that number.
    fn update_behind(
        &mut self,
        view: &View<'_>,
        (group, reports): (&Group, &[Arc<ServiceReport>]),
        number: u64,
    ) -> bool {
        if self.behind.as_ref().is_some_and(|behind| behind.is_of(reports)) {
            return false;
        }
        self.behind = Some(BehindText::make(view, group, reports, number));
        true
    }

    /// Whether it was made anew.
    fn update_alone(
        &mut self,
        view: &View<'_>,
        (group, status): (&Group, Option<&GroupStatus>),
    ) -> bool {
        let Some(behind) = &self.behind else { return false };
        let checks: Vec<CheckReport> = match group.checks.is_empty() {
            true => Vec::new(),
            false => view.host.checks.iter().filter(|c| c.group == group.id).cloned().collect(),
        };
        let is_as_it_was =
            |kept: &VipText| kept.behind == behind.number && kept.is_of(status, &checks);
        if self.alone.as_ref().is_some_and(is_as_it_was) {
            return false;
        }
        self.alone = Some(VipText::make(view, (group, status), checks, behind));
        true
    }
}

impl VipText {
    fn make(
        view: &View<'_>,
        (group, status): (&Group, Option<&GroupStatus>),
        checks: Vec<CheckReport>,
        behind: &BehindText,
    ) -> Self {
        let mut vip = view.vip_alone(group, status);
        (vip.since_ms, vip.lease_left_ms) = (None, None);
        vip.problem = vip_problem(&vip, behind.problems.iter().cloned());
        let text = json(&vip);
        let (before, after) = text.split_once(AGES).unwrap_or((&text, ""));
        let (between, after) = after.split_once(SERVICES).unwrap_or((after, ""));
        let parts =
            [format!("{before}{SINCE}"), format!("{between}\"services\":"), after.to_owned()]
                .map(|part| Bytes::from(part.into_bytes().into_boxed_slice()));
        Self { status: status.cloned(), checks, behind: behind.number, parts }
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

    fn write(&self, status: Option<&GroupStatus>, behind: &BehindText, out: &mut Pieces) {
        let [before, between, after] = &self.parts;
        let ages = |status: &GroupStatus| (status.since, status.lease_left);
        let (since, lease_left) = status.map(ages).unwrap_or_default();
        out.kept(before);
        out.own(|own| {
            write_age(since, own);
            own.extend_from_slice(LEASE_LEFT.as_bytes());
            write_age(lease_left, own);
        });
        out.kept(between);
        out.kept(behind.text());
        out.kept(after);
    }
}

fn is_of(id: GroupId, of: Of<'_>) -> bool {
    of.is_none_or(|of| of.binary_search(&id).is_ok())
}

/// What is known of a group, which is at that place where something is known of all.
fn known<'v>(view: &View<'v>, (id, at): (GroupId, usize)) -> Option<&'v GroupStatus> {
    let groups = &view.status.groups;
    let there = groups.get(at).filter(|status| status.id == id);
    there.or_else(|| groups.get(groups.binary_search_by_key(&id, |status| status.id).ok()?))
}

/// The reports of each group in the order of the configuration: both have the order of ids.
fn by_group<'v>(desired: &Desired, view: &View<'v>) -> Vec<&'v [Arc<ServiceReport>]> {
    let mut rest = view.services;
    let of_group = |group: &Group| {
        let before = rest.iter().take_while(|report| report.group < group.id).count();
        rest = &rest[before..];
        let count = rest.iter().take_while(|report| report.group == group.id).count();
        let its;
        (its, rest) = rest.split_at(count);
        its
    };
    desired.groups.iter().map(of_group).collect()
}

/// A frame with a list where its gap is.
fn framed<T>(
    frame: &impl Serialize,
    gap: &str,
    items: impl Iterator<Item = T>,
    write: impl Fn(T, &mut Pieces),
) -> Pieces {
    let frame = json(frame);
    let (before, after) = frame.split_once(gap).unwrap_or((&frame, ""));
    let mut out = Pieces::default();
    out.own(|own| {
        own.extend_from_slice(before.as_bytes());
        own.extend_from_slice(gap.trim_end_matches(']').as_bytes());
    });
    for (n, item) in items.enumerate() {
        if 0 < n {
            out.own(|own| own.push(b','));
        }
        write(item, &mut out);
    }
    out.own(|own| {
        own.push(b']');
        own.extend_from_slice(after.as_bytes());
    });
    out
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

fn write_age(age: Option<Duration>, out: &mut Vec<u8>) {
    // Infallible: a `Vec` takes whatever is written to it.
    let _ = serde_json::to_writer(out, &age.map(millis));
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
    use super::super::{BackendReport, HostReport, ServiceReport, tests};
    use super::*;
    use crate::services::{BackendReply, ServiceReply, backend_tag, haproxy_name, ordered_in};
    use buoy_core::{Candidate, Exclusion, Standing, Status};
    use buoy_model::{
        Backend, BackendId, BackendLife, BackendOrder, BackendState, Balance, Duty, Fact,
        FlowFields, Front, Mode, NodeCheck, NodeCheckKind, NodeId, OrderVersion, OrderedWeight,
        Pace, Ports, Protocol, Record, Safety, SendProxy, Service, SourceAddress,
    };
    use std::collections::BTreeMap;

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
        let kind = NodeCheckKind::Process { name: SERVICES.into() };
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
        services: Vec<Arc<ServiceReport>>,
        host: HostReport,
    }

    impl Moment {
        fn view<'a>(&'a self, desired: &'a Desired) -> View<'a> {
            let Self { now, status, services, host } = self;
            View { desired, status, now: *now, services, host, events: &[] }
        }
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
            dropped: BTreeMap::new(),
            since: Some(buoy_model::Instant::from_nanos(9)),
            order: None,
        };
        let services = vec![Arc::new(ServiceReport {
            group: GroupId(1),
            address: [10, 0, 0, 100].into(),
            protocol: Protocol::Tcp,
            ports: Ports::one(80),
            problem: None,
            engine: "nftables".into(),
            table: None,
            limited: None,
            dropped: BTreeMap::new(),
            backends: vec![backend("web1"), backend("\"vips\":[]")],
        })];
        let check = CheckReport {
            group: GroupId(1),
            name: "postgres".into(),
            passes: Some(true),
            reason: String::new(),
        };
        let host = HostReport { checks: vec![check], ..HostReport::default() };
        Moment { now: 1_700_000_000_000, status, services, host }
    }

    /// A report is never changed: this one comes in its place.
    fn first(moment: &mut Moment) -> &mut ServiceReport {
        Arc::make_mut(&mut moment.services[0])
    }

    /// The text is that of the status; so many texts were made for it.
    fn told(texts: &mut Texts, moment: &Moment, what: &str) -> u64 {
        let desired = Arc::clone(&texts.desired);
        let view = moment.view(&desired);
        let before = texts.made();
        texts.update(&view, None);
        let is = |text: Pieces, plain: String| {
            assert_eq!(text_of(text), plain, "{what}");
        };
        is(texts.status(&view, &view.cluster_alone()), json(&view.cluster()));
        let list = VipsReply { node: VIPS.into(), revision: 7, ..VipsReply::default() };
        let text = texts.vips(&view, &list, None);
        is(text, json(&VipsReply { vips: view.vips(), ..list }));
        let mut some = Texts::new(Arc::clone(&desired));
        for id in [GroupId(1), GroupId(2)] {
            some.update_behind(&view, Some(&[id]));
            some.update(&view, Some(&[id]));
            let vips = vec![view.vip(desired.group(id).unwrap())];
            let list = VipsReply { next: Some(VIPS.into()), ..VipsReply::default() };
            let text = some.vips(&view, &list, Some(&[id]));
            is(text, json(&VipsReply { vips, ..list }));
        }
        texts.made() - before
    }

    fn text_of(pieces: Pieces) -> String {
        String::from_utf8(pieces.whole()).unwrap()
    }

    /// The lists of what is behind the VIPs, as they are without texts.
    fn behind(desired: &Desired, view: &View<'_>) -> (Vec<ServiceReply>, Vec<BackendReply>) {
        let all = desired.groups.iter().flat_map(|g| g.services.iter().map(move |s| (g, s)));
        let item = |(group, service): (&Group, &Service)| ServiceReply {
            node: desired.node_name(desired.me).into(),
            vip: group.name.clone(),
            addresses: service.addresses.iter().map(ToString::to_string).collect(),
            haproxy: haproxy_name(group, service),
            service: view.service(group, service),
        };
        let mut services: Vec<ServiceReply> = all.clone().map(item).collect();
        services.sort_by(|a, b| (&a.vip, &a.addresses).cmp(&(&b.vip, &b.addresses)));
        let mut backends = Vec::new();
        for (group, service) in all {
            let shown = view.service(group, service);
            backends.extend(shown.backends.into_iter().map(|backend| {
                let id = BackendId::of(service, &backend.name);
                let etag = backend_tag(ordered_in(view.services, &id).as_ref());
                let (vip, service) = (group.name.clone(), shown.name.clone());
                BackendReply { vip, service, backend, etag }
            }));
        }
        backends.sort_by(|a, b| a.service.cmp(&b.service));
        (services, backends)
    }

    #[test]
    fn lists_of_what_is_behind_the_vips_are_made_of_the_same_texts() {
        let mut desired = desired();
        let (web, other) = desired.groups.split_at_mut(1);
        let service = |n: u8, port| Service {
            addresses: vec![[10, 0, 0, n].into()],
            ports: Ports::one(port),
            ..web[0].services[0].clone()
        };
        // Neither the order of addresses nor that of names is that of the file.
        other[0].services = vec![service(9, 443), service(10, 80)];
        other[0].services[1].backends.clear();
        other[0].name = "a".into();
        let desired = Arc::new(desired);
        let mut moment = moment();
        let mut texts = Texts::new(Arc::clone(&desired));
        let web1 = BackendId::of(&desired.groups[0].services[0], "web1");
        for what in ["first", "the same", "an order", "and over", "no report"] {
            let order = BackendOrder {
                backend: web1.clone(),
                duty: Duty::Drain { until: Some(moment.now + 30_000) },
                weight: OrderedWeight::Configured,
                version: OrderVersion { micros: 1, node: NodeId(1) },
                reason: BACKENDS.into(),
            };
            match what {
                "an order" => first(&mut moment).backends[0].order = Some(order),
                "and over" => moment.now += 60_000,
                "no report" => moment.services.clear(),
                _ => (),
            }
            let view = moment.view(&desired);
            let (services, backends) = behind(&desired, &view);
            assert_eq!((services.len(), backends.len()), (3, 4));
            texts.update_behind(&view, None);
            let list = ServicesReply { next: Some(SERVICES.into()), ..ServicesReply::default() };
            let text = text_of(texts.services(&list, None));
            assert_eq!(text, json(&ServicesReply { services, ..list }), "{what}");
            let list = BackendsReply { node: BACKENDS.into(), ..BackendsReply::default() };
            let text = text_of(texts.backends(&list, None));
            assert_eq!(text, json(&BackendsReply { backends, ..list }), "{what}");
        }
        let (view, of) = (moment.view(&desired), Some(&[GroupId(2)][..]));
        let mut some = Texts::new(Arc::clone(&desired));
        some.update_behind(&view, of);
        assert_eq!(some.made(), 1, "nothing is made of what is not asked for");
        let (services, backends) = behind(&desired, &view);
        let services = services.into_iter().filter(|item| item.vip == "a").collect();
        let backends = backends.into_iter().filter(|item| item.vip == "a").collect();
        let list = ServicesReply { services, ..ServicesReply::default() };
        let text = text_of(texts.services(&ServicesReply::default(), of));
        assert_eq!(text, json(&list));
        let list = BackendsReply { backends, ..BackendsReply::default() };
        let text = text_of(texts.backends(&BackendsReply::default(), of));
        assert_eq!(text, json(&list));
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
                let backend = &mut first(m).backends[1];
                (backend.state, backend.reason) = (BackendState::Down, "refused".into());
            }),
            ("an engine", 1, |m| first(m).engine = "proxy".into()),
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
        first(&mut moment).backends[0].order = Some(BackendOrder {
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
