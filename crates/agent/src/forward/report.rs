//! Tells what this host forwards, by which engine, and what is known of the backends.

use super::meters::{Meters, left_alone};
use super::told::{MadeOf, Slot};
use super::{Findings, Forward, Place, near, owned::Owners, shares, xdp};
use crate::health::{BackendHealth, Key, States, WHOLE_SHARE, usual};
use buoy_api::Traffic;
use buoy_api::view::{BackendReport, ServiceReport};
use buoy_core::fast::{Substitute, substitute};
use buoy_model::{
    Backend, BackendOrder, BackendState, Desired, Group, GroupId, Instant, Load, Mode, Service,
};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

impl Forward {
    /// Each service, of some groups (in the order of their ids) or of all, in the order of `Desired` (two of a group may share
    /// a port), what keeps this host from forwarding it, and its backends.
    pub fn services(&self, of: Option<&[GroupId]>) -> Vec<Arc<ServiceReport>> {
        let desired = Arc::clone(&self.desired.borrow());
        let (states, owners) = (self.states.borrow(), self.owners.borrow());
        let checked = self.checked.borrow();
        let (counted, findings) = (self.counted(), self.findings());
        let look = Look {
            desired: &desired,
            weighed: OnceCell::new(),
            states: &states,
            checked: &checked,
            owners: &owners,
            findings: &findings,
            counted: &counted,
            meters: &self.meters,
        };
        self.told.each(&desired, |mut slots| {
            let mut all = Vec::with_capacity(if of.is_none() { slots.len() } else { 0 });
            for (at, group) in desired.groups.iter().enumerate() {
                let its;
                (its, slots) = slots.split_at_mut(group.services.len());
                if of.is_some_and(|of| of.binary_search(&group.id).is_err()) {
                    continue;
                }
                let health = [look.states, look.checked].map(|known| known.change_of(group.id));
                for (n, (slot, service)) in its.iter_mut().zip(&group.services).enumerate() {
                    let made_of = MadeOf::of(service, health, [findings.number, counted.number]);
                    let known = slot.made_of(made_of);
                    all.push(
                        known
                            .unwrap_or_else(|| look.tell(slot, made_of, (group, service), (at, n))),
                    );
                }
            }
            all
        })
    }
}

/// All that reports are made of, at one moment.
struct Look<'l> {
    desired: &'l Arc<Desired>,
    /// The same with the weights that hold now, once somebody may rest.
    weighed: OnceCell<Arc<Desired>>,
    states: &'l States,
    /// What checks say, of which `states` has no wording that came since somebody was woken.
    checked: &'l States,
    owners: &'l Owners,
    findings: &'l Findings,
    counted: &'l xdp::Counted,
    meters: &'l Meters,
}

/// What is known of one backend, or what its checks say.
type Known<'l> = (&'l Key, &'l BackendHealth);

/// What a report tells of a service.
struct Seen<'l> {
    problem: Option<String>,
    engine: Cow<'static, str>,
    table: Option<u32>,
    limited: Option<u64>,
    dropped: Option<&'l xdp::Reasons>,
    backends: Vec<SeenBackend<'l>>,
}

/// What it tells of a backend.
struct SeenBackend<'l> {
    name: &'l str,
    state: BackendState,
    reason: Cow<'l, str>,
    urgent: bool,
    share: u16,
    traffic: Option<Traffic>,
    dropped: Option<&'l xdp::Reasons>,
    since: Option<Instant>,
    order: Option<&'l BackendOrder>,
}

/// Whether a report has just these; of most there is nothing to say.
fn are_told(seen: Option<&xdp::Reasons>, told: &xdp::Reasons) -> bool {
    seen.map_or(told.is_empty(), |seen| seen == told)
}

impl<'l> Look<'l> {
    /// What is, of the service at that place of that group: as it was told last, where that says it.
    fn tell(
        &self,
        slot: &mut Slot,
        made_of: Option<MadeOf>,
        (group, service): (&'l Group, &'l Service),
        at: (usize, usize),
    ) -> Arc<ServiceReport> {
        let place = Place::of(group, service);
        // What a proxy leaves alone it takes again by itself.
        let made_of = made_of.filter(|_| self.meters.ejected(&place).is_empty());
        let seen = self.seen(place, (group, service), at);
        let latest = slot.latest().filter(|latest| seen.is_told_by(latest));
        let report = latest.unwrap_or_else(|| Arc::new(seen.report(place)));
        slot.keep(&report, made_of);
        report
    }

    /// Which backends of a service rest; none of one that keeps nobody near.
    fn resting(&self, group: &Group, service: &Service, (at, n): (usize, usize)) -> Vec<bool> {
        if service.life.locality.is_none() {
            return Vec::new();
        }
        let weighed = self.weighed.get_or_init(|| match self.owners.is_empty() {
            // Weights count only where somebody may rest.
            true => Arc::clone(self.desired),
            false => shares::weighed(self.desired, self.states),
        });
        let group = weighed.groups.get(at).unwrap_or(group);
        let service = group.services.get(n).unwrap_or(service);
        let owner = self.owners.get(&group.id).copied();
        near::resting(weighed, (group, service), owner, self.states)
    }

    fn seen(
        &self,
        place: Place,
        (group, service): (&'l Group, &'l Service),
        at: (usize, usize),
    ) -> Seen<'l> {
        let owner = self.owners.get(&group.id).copied();
        let resting = self.resting(group, service, at);
        let owner = owner.map_or("", |owner| self.desired.node_name(owner));
        let instead = self.findings.refused.contains(&place);
        let instead = instead.then(|| substitute(self.desired, group, service));
        let problem = self.findings.services.get(&place);
        Seen {
            problem: problem.map(|known| wrong(service, known, instead.is_some())),
            engine: engine(service, instead, &self.findings.attached),
            table: self.findings.tables.get(&place).copied(),
            backends: self.backends(place, service, &Rests { owner, resting }),
            limited: service.new_connections.map(|_| {
                let elsewhere = self.findings.limited.get(&place).copied();
                elsewhere.unwrap_or(0) + self.counted.refused(&place)
            }),
            dropped: self.counted.lost.get(&place),
        }
    }

    fn backends(
        &self,
        place: Place,
        service: &'l Service,
        rests: &Rests<'_>,
    ) -> Vec<SeenBackend<'l>> {
        let Self { states, checked, counted, .. } = *self;
        let (of_service, words) = (of(states, &place), of(checked, &place));
        let ejected = self.meters.ejected(&place);
        let seen =
            |(i, backend): (usize, &'l Backend)| {
                let known = named(&of_service, &backend.name).map(|(_, known)| known);
                let state = known.map_or(BackendState::Unknown, |known| known.state);
                let words = named(&words, &backend.name);
                let traffic = counted.backends.get(&(place, backend.address)).map(|count| {
                    Traffic { connections: count.flows, packets: count.packets, bytes: count.bytes }
                });
                let by_proxy = ejected.iter().filter(|(name, _)| *name == backend.name);
                let left = || counted.ejected.get(&(place, backend.address)).copied();
                let ejected = by_proxy.map(|(_, left)| *left).max().or_else(left).map(left_alone);
                let said = words.map(|words| (state, words));
                let because = || reason(service, said, checked, &rests.of(i, service));
                SeenBackend {
                    name: &backend.name,
                    state,
                    reason: ejected.map_or_else(because, Cow::Owned),
                    urgent: words.is_some_and(|(_, said)| said.urgent),
                    share: known.map_or(WHOLE_SHARE, |known| known.share),
                    traffic,
                    dropped: counted.lost_by.get(&(place, backend.address)),
                    since: known.map(|known| known.since),
                    order: known.and_then(|known| known.ordered.as_ref()).map(|o| &o.order),
                }
            };
        service.backends.iter().enumerate().map(seen).collect()
    }
}

/// What is known of the backends of a service, by their names: one search for all of them, for their keys differ in
/// the name alone, and are beside each other.
fn of<'l>(states: &'l States, place: &Place) -> Vec<Known<'l>> {
    match states.is_empty() {
        true => Vec::new(),
        false => states.range(place.first_key()..).take_while(|(key, _)| place.has(key)).collect(),
    }
}

fn named<'l>(of_service: &[Known<'l>], name: &str) -> Option<Known<'l>> {
    let at = of_service.binary_search_by(|(key, _)| key.backend.as_str().cmp(name));
    at.ok().and_then(|at| of_service.get(at)).copied()
}

impl Seen<'_> {
    /// Whether a report of that service says just this.
    fn is_told_by(&self, report: &ServiceReport) -> bool {
        (self.problem.as_ref(), self.engine.as_ref())
            == (report.problem.as_ref(), report.engine.as_str())
            && (self.table, self.limited) == (report.table, report.limited)
            && are_told(self.dropped, &report.dropped)
            && self.backends.len() == report.backends.len()
            && self.backends.iter().zip(&report.backends).all(|(seen, told)| seen.is_told_by(told))
    }

    fn report(self, place: Place) -> ServiceReport {
        ServiceReport {
            group: place.group,
            address: place.address,
            protocol: place.protocol,
            ports: place.ports,
            problem: self.problem,
            engine: self.engine.into_owned(),
            table: self.table,
            limited: self.limited,
            dropped: self.dropped.cloned().unwrap_or_default(),
            backends: self.backends.into_iter().map(SeenBackend::report).collect(),
        }
    }
}

impl SeenBackend<'_> {
    fn is_told_by(&self, report: &BackendReport) -> bool {
        let Self { name, state, reason, urgent, share, traffic, dropped, since, order } = self;
        (*name, *state, reason.as_ref(), *urgent)
            == (report.name.as_str(), report.state, report.reason.as_str(), report.urgent)
            && (*share, *traffic, *since) == (report.share, report.traffic, report.since)
            && are_told(*dropped, &report.dropped)
            && *order == report.order.as_ref()
    }

    fn report(self) -> BackendReport {
        BackendReport {
            name: self.name.to_owned(),
            state: self.state,
            reason: self.reason.into_owned(),
            urgent: self.urgent,
            share: self.share,
            traffic: self.traffic,
            dropped: self.dropped.cloned().unwrap_or_default(),
            since: self.since,
            order: self.order.cloned(),
        }
    }
}

/// Why a backend is what it is, in words: what its checks say, its load, and whether it rests.
fn reason<'l>(
    service: &Service,
    said: Option<(BackendState, Known<'l>)>,
    checked: &States,
    rests: &str,
) -> Cow<'l, str> {
    let mut all = said.map_or(Cow::Borrowed(""), |(_, (_, said))| Cow::Borrowed(&*said.reason));
    let is_up = said.filter(|(state, _)| *state == BackendState::Up);
    let loaded = is_up.map(|(_, said)| loaded(service, said, checked)).unwrap_or_default();
    for said in [loaded.as_str(), rests].into_iter().filter(|said| !said.is_empty()) {
        if !all.is_empty() {
            all.to_mut().push_str("; ");
        }
        all.to_mut().push_str(said);
    }
    all
}

/// What is wrong with a service, in words. Nobody watches its packets where another engine has them in place of XDP.
pub(super) fn wrong(service: &Service, known: &str, elsewhere: bool) -> String {
    let watched = matches!(service.mode, Mode::Xdp { .. }) && service.life.eject.is_some();
    match elsewhere && watched {
        true => format!("{known}; meanwhile `eject_after` leaves no backend alone"),
        false => known.to_owned(),
    }
}

/// What forwards a service on this host, in words; `instead`: who does where XDP refused it.
pub(super) fn engine(
    service: &Service,
    instead: Option<Option<Substitute>>,
    attached: &[String],
) -> Cow<'static, str> {
    match (service.mode, instead) {
        (Mode::Kernel, _) => "nftables".into(),
        (Mode::Proxy, _) => "proxy".into(),
        (Mode::Xdp { .. }, Some(Some(_))) => "nftables in place of XDP".into(),
        (Mode::Xdp { .. }, Some(None)) => "none".into(),
        (Mode::Xdp { .. }, None) if attached.is_empty() => "none".into(),
        (Mode::Xdp { .. }, None) => format!("XDP ({})", attached.join(", ")).into(),
    }
}

/// Who takes no new connections because others are nearer.
struct Rests<'d> {
    owner: &'d str,
    resting: Vec<bool>,
}

impl Rests<'_> {
    /// Why the backend at that place does, in words; empty where it does not.
    fn of(&self, place: usize, service: &Service) -> String {
        if !self.resting.get(place).copied().unwrap_or_default() {
            return String::new();
        }
        let (owner, least) = (self.owner, service.life.quorum.max(1));
        format!(
            "rests: those near to {owner}, which owns the VIP, come first while {least} of them are up"
        )
    }
}

/// What share a backend takes for its load, and why, in words; empty where it follows none, or nothing is known.
fn loaded(service: &Service, (key, known): Known<'_>, checked: &States) -> String {
    let load = service.check.as_ref().and_then(|check| check.load.as_ref());
    let Some(load) = load else { return String::new() };
    let share = known.share;
    match (load, known.load, known.last_latency) {
        (Load::Header(name), Some(load), _) => {
            format!("share {share} % (load {load} % says {name})")
        }
        (Load::Latency, _, Some(took)) => {
            let usual = usual(key, checked).unwrap_or(took);
            let in_words = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
            format!(
                "share {share} % (its answer took {}, of its service {} are usual)",
                in_words(took),
                in_words(usual)
            )
        }
        (Load::Header(_), None, _) | (Load::Latency, _, None) => String::new(),
    }
}
