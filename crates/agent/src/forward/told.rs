//! Remembers which reports somebody has, and what they were made of: as long as nothing of that has changed they need
//! not be compared with it, and of ten thousand backends nearly all are as they were a moment ago.

use crate::health::Change;
use buoy_api::view::ServiceReport;
use buoy_model::{Desired, Mode, Service};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The reports that somebody has. Whoever asks gets the same ones as long as they say what is.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Of which configuration they are.
    desired: Weak<Desired>,
    services: Vec<Slot>,
}

/// The latest report of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    report: Weak<ServiceReport>,
    made_of: Option<MadeOf>,
}

/// All that a report is made of beside the configuration, by the numbers of its last changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct MadeOf {
    /// What is known of its group's backends, and what their checks say.
    health: [Change; 2],
    findings: u64,
    /// Where XDP counts.
    counted: Option<u64>,
}

impl MadeOf {
    /// `None`: it is made of something too that has no number, or changes by itself.
    pub(super) fn of(
        service: &Service,
        health: [Change; 2],
        [findings, counted]: [u64; 2],
    ) -> Option<Self> {
        let follows_load = service.check.as_ref().is_some_and(|check| check.load.is_some());
        let follows_owner = service.life.locality.is_some();
        let (is_watched, counted) = match service.mode {
            Mode::Kernel => (false, None),
            Mode::Proxy => (service.life.eject.is_some(), None),
            Mode::Xdp { .. } => (false, Some(counted)),
        };
        let is_numbered = !follows_load && !follows_owner && !is_watched;
        is_numbered.then_some(Self { health, findings, counted })
    }
}

impl Told {
    /// What was told last of each service of that configuration, in its order.
    pub(super) fn each<T>(&self, desired: &Arc<Desired>, tell: impl FnOnce(&mut [Slot]) -> T) -> T {
        let mut kept = self.lock();
        if !std::ptr::eq(kept.desired.as_ptr(), Arc::as_ptr(desired)) {
            let services = desired.groups.iter().map(|group| group.services.len()).sum();
            *kept = Kept {
                desired: Arc::downgrade(desired),
                services: vec![Slot::default(); services],
            };
        }
        tell(&mut kept.services)
    }

    /// Nothing that holds the lock can panic halfway through a change.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The report that is made of just this; `None`: what is now is to be looked at.
    pub(super) fn made_of(&self, now: Option<MadeOf>) -> Option<Arc<ServiceReport>> {
        if now.is_some() && self.made_of == now { self.latest() } else { None }
    }

    /// The latest one, if somebody has it still.
    pub(super) fn latest(&self) -> Option<Arc<ServiceReport>> {
        self.report.upgrade()
    }

    /// It says what is, and is made of this.
    pub(super) fn keep(&mut self, report: &Arc<ServiceReport>, made_of: Option<MadeOf>) {
        *self = Self { report: Arc::downgrade(report), made_of };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{BackendHealth, Key, States};
    use crate::sample::{GROUP, service};
    use buoy_model::{Check, CheckKind, Eject, FlowFields, Forward, Load, Locality, Pace};
    use std::time::Duration;

    #[test]
    fn a_report_is_made_again_when_what_it_is_made_of_has_changed() {
        let xdp = Mode::Xdp { forward: Forward::Dsr, flow: FlowFields::Connection };
        let none = [Change::default(); 2];
        for (mode, counts) in [(Mode::Kernel, false), (Mode::Proxy, false), (xdp, true)] {
            let service = service(mode, "10.0.0.100", 80, vec![]);
            let first = MadeOf::of(&service, none, [1, 1]);
            assert_eq!(first, MadeOf::of(&service, none, [1, 1]), "{mode:?}");
            assert_ne!(first, MadeOf::of(&service, none, [2, 1]), "{mode:?}");
            assert_eq!(first != MadeOf::of(&service, none, [1, 2]), counts, "{mode:?}");
            let known = (Key::of(GROUP, &service, "web1"), BackendHealth::unknown());
            let change = States::from([known]).change_of(GROUP);
            for health in [[change, none[1]], [none[0], change]] {
                assert_ne!(first, MadeOf::of(&service, health, [1, 1]), "{mode:?}");
            }
        }
    }

    type Alter = fn(&mut Service);

    #[test]
    fn what_changes_by_itself_is_looked_at_each_time() {
        let table: [(&str, Alter); 3] = [
            ("a load", |service| {
                let second = Duration::from_secs(1);
                let pace =
                    Pace { every: second, every_down: second, timeout: second, fall: 1, rise: 1 };
                let load = Some(Load::Latency);
                let kind = CheckKind::Tcp;
                service.check =
                    Some(Check { kind, port: None, via: None, pace, askers: None, load });
            }),
            ("an owner", |service| service.life.locality = Some(Locality::Zone)),
            ("failures", |service| {
                service.life.eject = Some(Eject { after: 3, time: Duration::from_secs(1) });
            }),
        ];
        for (what, change) in table {
            let mut service = service(Mode::Proxy, "10.0.0.100", 80, vec![]);
            let is_numbered = |s: &Service| MadeOf::of(s, Default::default(), [0, 0]).is_some();
            assert!(is_numbered(&service));
            change(&mut service);
            assert!(!is_numbered(&service), "{what}");
        }
    }
}
