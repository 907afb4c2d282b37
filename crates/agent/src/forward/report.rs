//! Tells what this host forwards, by which engine, and what is known of the backends.

use super::meters::{Meters, left_alone};
use super::{Findings, Forward, Place, near, owned::Owners, shares, xdp};
use crate::health::{BackendHealth, Key, States, WHOLE_SHARE, usual};
use buoy_api::Traffic;
use buoy_api::view::{BackendReport, ServiceReport};
use buoy_core::fast::{Substitute, substitute};
use buoy_model::{
    Backend, BackendOrder, BackendState, Desired, Group, GroupId, Instant, Load, Mode, Service,
};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// The reports that somebody has. Whoever asks gets the same ones as long as they say what is: of ten thousand
/// backends nearly all are as they were a moment ago.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<BTreeMap<Place, Weak<ServiceReport>>>);

impl Told {
    /// Nothing that holds the lock can panic halfway through a change.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Weak<ServiceReport>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are had from now on, too.
    fn keep(&self, new: Vec<(Place, Weak<ServiceReport>)>) {
        if !new.is_empty() {
            let mut told = self.lock();
            told.retain(|_, report| report.strong_count() > 0);
            told.extend(new);
        }
    }
}

impl Forward {
    /// Each service, of some groups (in the order of their ids) or of all, in the order of `Desired` (two of a group may share
    /// a port), what keeps this host from forwarding it, and its backends.
    pub fn services(&self, of: Option<&[GroupId]>) -> Vec<Arc<ServiceReport>> {
        let desired = Arc::clone(&self.desired.borrow());
        let (states, owners) = (self.states.borrow(), self.owners.borrow());
        let (counted, findings) = (self.counted(), self.findings());
        // Weights count only where somebody may rest.
        let weighed = match owners.is_empty() {
            true => Arc::clone(&desired),
            false => shares::weighed(&desired, &states),
        };
        let look = Look {
            desired: &desired,
            weighed: &weighed,
            states: &states,
            owners: &owners,
            findings: &findings,
            counted: &counted,
            meters: &self.meters,
        };
        let (mut all, mut new) = (Vec::new(), Vec::new());
        let told = self.told.lock();
        for (group, weighed) in desired.groups.iter().zip(&weighed.groups) {
            if of.is_some_and(|of| of.binary_search(&group.id).is_err()) {
                continue;
            }
            for (service, of) in group.services.iter().zip(&weighed.services) {
                let place = Place::of(group, service);
                let seen = look.seen(place, (group, service), (weighed, of));
                let known = told.get(&place).and_then(Weak::upgrade);
                all.push(known.filter(|known| seen.is_told_by(known)).unwrap_or_else(|| {
                    let report = Arc::new(seen.report(place));
                    new.push((place, Arc::downgrade(&report)));
                    report
                }));
            }
        }
        drop(told);
        self.told.keep(new);
        all
    }
}

/// All that reports are made of, at one moment.
struct Look<'l> {
    desired: &'l Desired,
    /// The same with the weights that hold now.
    weighed: &'l Desired,
    states: &'l States,
    owners: &'l Owners,
    findings: &'l Findings,
    counted: &'l xdp::Counted,
    meters: &'l Meters,
}

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
    fn seen(
        &self,
        place: Place,
        (group, service): (&'l Group, &'l Service),
        weighed: (&Group, &Service),
    ) -> Seen<'l> {
        let owner = self.owners.get(&group.id).copied();
        let resting = near::resting(self.weighed, weighed, owner, self.states);
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
        let Self { states, counted, .. } = *self;
        // One search for all of them: their keys differ in the name alone, and are beside each other.
        let of_service: Vec<(&Key, &BackendHealth)> = match states.is_empty() {
            true => Vec::new(),
            false => {
                states.range(place.first_key()..).take_while(|(key, _)| place.has(key)).collect()
            }
        };
        let ejected = self.meters.ejected(&place);
        let seen =
            |(i, backend): (usize, &'l Backend)| {
                let at = of_service.binary_search_by(|(key, _)| key.backend.cmp(&backend.name));
                let checked = at.ok().and_then(|at| of_service.get(at)).copied();
                let known = checked.map(|(_, known)| known);
                let traffic = counted.backends.get(&(place, backend.address)).map(|count| {
                    Traffic { connections: count.flows, packets: count.packets, bytes: count.bytes }
                });
                let by_proxy = ejected.iter().filter(|(name, _)| *name == backend.name);
                let left = || counted.ejected.get(&(place, backend.address)).copied();
                let ejected = by_proxy.map(|(_, left)| *left).max().or_else(left).map(left_alone);
                let because = || reason(service, checked, states, &rests.of(i, service));
                SeenBackend {
                    name: &backend.name,
                    state: known.map_or(BackendState::Unknown, |known| known.state),
                    reason: ejected.map_or_else(because, Cow::Owned),
                    urgent: known.is_some_and(|known| known.urgent),
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
    checked: Option<(&Key, &'l BackendHealth)>,
    states: &States,
    rests: &str,
) -> Cow<'l, str> {
    let mut all = checked.map_or(Cow::Borrowed(""), |(_, known)| Cow::Borrowed(&*known.reason));
    let loaded = checked.map(|checked| loaded(service, checked, states)).unwrap_or_default();
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
fn loaded(service: &Service, (key, known): (&Key, &BackendHealth), states: &States) -> String {
    let load = service.check.as_ref().and_then(|check| check.load.as_ref());
    let known = Some(known).filter(|known| known.state == BackendState::Up);
    let Some((load, known)) = load.zip(known) else { return String::new() };
    let share = known.share;
    match (load, known.load, known.last_latency) {
        (Load::Header(name), Some(load), _) => {
            format!("share {share} % (load {load} % says {name})")
        }
        (Load::Latency, _, Some(took)) => {
            let usual = usual(key, states).unwrap_or(took);
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
