//! Tells what this host forwards, by which engine, and what is known of the backends.

use super::meters::{Meters, left_alone};
use super::{Forward, Place, near, shares, xdp};
use crate::health::{BackendHealth, Key, States, WHOLE_SHARE, usual};
use buoy_api::Traffic;
use buoy_api::view::{BackendReport, ServiceReport};
use buoy_core::fast::{Substitute, substitute};
use buoy_model::{Backend, BackendState, GroupId, Load, Mode, Service};
use std::sync::Arc;
use std::time::Duration;

impl Forward {
    /// Each service, of some groups (in the order of their ids) or of all, in the order of `Desired` (two of a group may share
    /// a port), what keeps this host from forwarding it, and its backends.
    pub fn services(&self, of: Option<&[GroupId]>) -> Vec<ServiceReport> {
        let desired = Arc::clone(&self.desired.borrow());
        let states = self.states.borrow();
        let counted = self.counted();
        let findings = self.findings();
        let owners = self.owners.borrow();
        // Weights count only where somebody may rest.
        let weighed = match owners.is_empty() {
            true => Arc::clone(&desired),
            false => shares::weighed(&desired, &states),
        };
        let mut all = Vec::new();
        for (group, weighed_group) in desired.groups.iter().zip(&weighed.groups) {
            if of.is_some_and(|of| of.binary_search(&group.id).is_err()) {
                continue;
            }
            let owner = owners.get(&group.id).copied();
            for (service, weighed_service) in group.services.iter().zip(&weighed_group.services) {
                let place = Place::of(group, service);
                let of = (weighed_group, weighed_service);
                let resting = near::resting(&weighed, of, owner, &states);
                let rests =
                    Rests { owner: owner.map_or("", |owner| desired.node_name(owner)), resting };
                let instead = findings.refused.contains(&place);
                let instead = instead.then(|| substitute(&desired, group, service));
                all.push(ServiceReport {
                    group: group.id,
                    address: place.address,
                    protocol: service.protocol,
                    ports: service.ports,
                    problem: problem(service, findings.services.get(&place), instead.is_some()),
                    engine: engine(service, instead, &findings.attached),
                    table: findings.tables.get(&place).copied(),
                    backends: backends(
                        &place,
                        service,
                        (&states, &rests),
                        (&counted, &self.meters),
                    ),
                    limited: service.new_connections.map(|_| {
                        let elsewhere = findings.limited.get(&place).copied();
                        elsewhere.unwrap_or(0) + counted.refused(&place)
                    }),
                    dropped: counted.lost.get(&place).cloned().unwrap_or_default(),
                });
            }
        }
        all
    }
}

/// What is wrong with a service, in words. Nobody watches its packets where another engine has them in place of XDP.
pub(super) fn problem(
    service: &Service,
    known: Option<&String>,
    elsewhere: bool,
) -> Option<String> {
    let known = known?;
    let watched = matches!(service.mode, Mode::Xdp { .. }) && service.life.eject.is_some();
    Some(match elsewhere && watched {
        true => format!("{known}; meanwhile `eject_after` leaves no backend alone"),
        false => known.clone(),
    })
}

/// What forwards a service on this host, in words; `instead`: who does where XDP refused it.
pub(super) fn engine(
    service: &Service,
    instead: Option<Option<Substitute>>,
    attached: &[String],
) -> String {
    match (service.mode, instead) {
        (Mode::Kernel, _) => "nftables".into(),
        (Mode::Proxy, _) => "proxy".into(),
        (Mode::Xdp { .. }, Some(Some(_))) => "nftables in place of XDP".into(),
        (Mode::Xdp { .. }, Some(None)) => "none".into(),
        (Mode::Xdp { .. }, None) if attached.is_empty() => "none".into(),
        (Mode::Xdp { .. }, None) => format!("XDP ({})", attached.join(", ")),
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

fn backends(
    place: &Place,
    service: &Service,
    (states, rests): (&States, &Rests<'_>),
    (counted, meters): (&xdp::Counted, &Meters),
) -> Vec<BackendReport> {
    // One search for all of them: their keys differ in the name alone, and are beside each other.
    let of_service: Vec<(&Key, &BackendHealth)> = match states.is_empty() {
        true => Vec::new(),
        false => states.range(place.first_key()..).take_while(|(key, _)| place.has(key)).collect(),
    };
    let ejected = meters.ejected(place);
    let now = buoy_kernel::clock::now();
    let report = |(i, backend): (usize, &Backend)| {
        let at = of_service.binary_search_by(|(key, _)| key.backend.cmp(&backend.name));
        let checked = at.ok().and_then(|at| of_service.get(at)).copied();
        let known = checked.map(|(_, known)| known);
        let traffic = counted.backends.get(&(*place, backend.address)).map(|count| Traffic {
            connections: count.flows,
            packets: count.packets,
            bytes: count.bytes,
        });
        let by_proxy = ejected.iter().filter(|(name, _)| *name == backend.name);
        let left = || counted.ejected.get(&(*place, backend.address)).copied();
        let ejected = by_proxy.map(|(_, left)| *left).max().or_else(left).map(left_alone);
        BackendReport {
            traffic,
            dropped: counted.lost_by.get(&(*place, backend.address)).cloned().unwrap_or_default(),
            lasts: known.map(|known| now.since(known.since)),
            order: known.and_then(|known| known.ordered.as_ref()).map(|o| o.order.clone()),
            name: backend.name.clone(),
            state: known.map_or(BackendState::Unknown, |known| known.state),
            reason: ejected.unwrap_or_else(|| {
                let mut all = known.map_or_else(String::new, |known| known.reason.clone());
                let loaded = checked.map(|checked| loaded(service, checked, states));
                for said in [loaded.unwrap_or_default(), rests.of(i, service)] {
                    if !all.is_empty() && !said.is_empty() {
                        all.push_str("; ");
                    }
                    all.push_str(&said);
                }
                all
            }),
            urgent: known.is_some_and(|known| known.urgent),
            share: known.map_or(WHOLE_SHARE, |known| known.share),
        }
    };
    service.backends.iter().enumerate().map(report).collect()
}
