//! How fast counters grow between two looks.

use buoy_api::{ClusterStatus, Traffic};
use std::collections::BTreeMap;
use std::time::Instant;

/// What went to a backend in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) connections: f64,
    pub(super) packets: f64,
    pub(super) bits: f64,
}

/// A backend, by the names of its service and its own.
type Key = (String, String);

/// The rates of all backends.
#[derive(Debug, Default)]
pub(super) struct Rates {
    at: Option<Instant>,
    before: BTreeMap<Key, Traffic>,
    now: BTreeMap<Key, Rate>,
}

impl Rates {
    /// Looks at the counters of now.
    pub(super) fn take(&mut self, status: &ClusterStatus, now: Instant) {
        let services = status.vips.iter().flat_map(|vip| &vip.services);
        let counters: BTreeMap<Key, Traffic> = services
            .flat_map(|service| {
                service.backends.iter().filter_map(|backend| {
                    let key = (service.name.clone(), backend.name.clone());
                    backend.traffic.map(|traffic| (key, traffic))
                })
            })
            .collect();
        let seconds = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        if seconds > 0.0 {
            let rate = |(key, is): (&Key, &Traffic)| {
                let was = self.before.get(key)?;
                // Counters that went back are new ones: the engine began again.
                let per = |was: u64, is: u64| is.checked_sub(was).unwrap_or(is) as f64 / seconds;
                let rate = Rate {
                    connections: per(was.connections, is.connections),
                    packets: per(was.packets, is.packets),
                    bits: per(was.bytes, is.bytes) * 8.0,
                };
                Some((key.clone(), rate))
            };
            self.now = counters.iter().filter_map(rate).collect();
        }
        (self.at, self.before) = (Some(now), counters);
    }

    /// Of one backend; `None`: its engine does not count, or it was seen once only.
    pub(super) fn of(&self, service: &str, backend: &str) -> Option<Rate> {
        self.now.get(&(service.to_owned(), backend.to_owned())).copied()
    }
}

/// Short and in three digits, as in `950`, `12.3k`, `4.56M`.
pub(super) fn short(value: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    let Some((by, unit)) = units.into_iter().find(|(by, _)| value >= *by) else {
        return format!("{value:.0}");
    };
    match value / by {
        value if value >= 100.0 => format!("{value:.0}{unit}"),
        value if value >= 10.0 => format!("{value:.1}{unit}"),
        value => format!("{value:.2}{unit}"),
    }
}
