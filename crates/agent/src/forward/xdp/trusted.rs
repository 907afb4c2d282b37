//! Leaves backends alone that do not let clients in, as far as packets show it: nobody sees their answers here.

use super::{Counted, Order, Place};
use crate::health::Key;
use buoy_core::eject::{Beginnings, Packets, Shown, Trust, has_others};
use buoy_model::{BackendState, Desired, Eject, Group, Instant, Mode, Protocol, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Backends of services that leave some alone, and what was seen of them.
#[derive(Debug, Default)]
pub(super) struct Trusted {
    known: BTreeMap<Key, Known>,
    out: BTreeSet<Key>,
    ejections: u64,
}

#[derive(Debug)]
struct Known {
    beginnings: Beginnings,
    trust: Trust,
}

impl Trusted {
    /// Looks at what was counted, and says there who is left alone; whether those are others than before.
    pub(super) fn look(&mut self, now: Instant, desired: &Desired, counted: &mut Counted) -> bool {
        let now = now.since(Instant::ZERO);
        let mut before = std::mem::take(&mut self.known);
        let mut out = BTreeSet::new();
        for (group, service, eject) in services(desired) {
            let place = Place::of(group, service);
            for backend in &service.backends {
                let at = (place, backend.address);
                let count = counted.backends.get(&at).copied().unwrap_or_default();
                let others = count.packets.saturating_sub(count.flows);
                let packets = Packets { opening: count.flows, others };
                let key = place.key(backend);
                let mut known = before.remove(&key).unwrap_or_else(|| Known {
                    beginnings: Beginnings::new(packets),
                    trust: Trust::default(),
                });
                self.ejections += u64::from(known.look(now, packets, eject));
                if let Some(left) = known.trust.left(now) {
                    counted.ejected.insert(at, left);
                    out.insert(key.clone());
                }
                self.known.insert(key, known);
            }
        }
        counted.totals.insert("xdp_ejections", self.ejections);
        let changed = self.out != out;
        self.out = out;
        changed
    }

    /// The order, and whom it leaves alone: nobody of a service where nobody else is up.
    pub(super) fn applied_to(&self, order: &Order) -> Order {
        let mut out = BTreeSet::new();
        if !self.out.is_empty() {
            for (group, service, _) in services(&order.desired) {
                let place = Place::of(group, service);
                let mine = self.out.range(place.first_key()..).take_while(|key| place.has(key));
                let mine: Vec<&Key> = mine.collect();
                let is_up = |key: &Key| {
                    let known = order.states.get(key);
                    known.is_none_or(|known| known.state != BackendState::Down && !known.is_cut())
                };
                let all = service.backends.iter().map(|backend| place.key(backend));
                if has_others(all.map(|key| (mine.contains(&&key), is_up(&key)))) {
                    out.extend(mine.into_iter().cloned());
                }
            }
        }
        Order { out: Arc::new(out), ..order.clone() }
    }
}

impl Known {
    /// Whether it is left alone from now on.
    fn look(&mut self, now: Duration, packets: Packets, eject: Eject) -> bool {
        match self.beginnings.look(packets) {
            Shown::Nothing => false,
            Shown::Worked => {
                self.trust.worked(now);
                false
            }
            Shown::Failed(times) => {
                let times = times.min(u64::from(eject.after));
                // Those that are too many fail while it is out, and say nothing new.
                (0..times).fold(false, |is_out, _| is_out | self.trust.failed(now, eject))
            }
        }
    }
}

/// The services of mode "xdp" that leave backends alone.
fn services(desired: &Desired) -> impl Iterator<Item = (&Group, &Service, Eject)> {
    let all =
        desired.groups.iter().flat_map(|group| group.services.iter().map(move |s| (group, s)));
    let here = all.filter(|(_, service)| match service.mode {
        Mode::Xdp { .. } => service.protocol == Protocol::Tcp,
        Mode::Kernel | Mode::Proxy => false,
    });
    here.filter_map(|(group, service)| Some((group, service, service.life.eject?)))
}

#[cfg(test)]
mod tests {
    use super::super::turned::Turned;
    use super::*;
    use crate::health::{BackendHealth, States};
    use crate::sample::{backend, desired, service};
    use buoy_kernel::fast::Count;
    use buoy_model::{FlowFields, Forward};

    const VIP: &str = "10.0.0.100";
    const EJECT: Eject = Eject { after: 3, time: Duration::from_secs(10) };

    fn order() -> Order {
        let mode = Mode::Xdp { forward: Forward::Nat, flow: FlowFields::Connection };
        let both = vec![backend("web1", "10.0.0.21:80"), backend("web2", "10.0.0.22:80")];
        let mut service = service(mode, VIP, 80, both);
        service.life.eject = Some(EJECT);
        let desired = Arc::new(desired(&[VIP], "eth0", vec![service]));
        Order { desired, states: Arc::default(), out: Arc::default(), seed: 1 }
    }

    struct Bench {
        order: Order,
        trusted: Trusted,
        seconds: u64,
        counts: [Count; 2],
    }

    impl Bench {
        fn new() -> Self {
            let (order, trusted) = (order(), Trusted::default());
            let mut bench = Self { order, trusted, seconds: 100, counts: Default::default() };
            bench.pass([(0, 0); 2]);
            bench
        }

        /// A second with so many opening and other packets to each of both; whether others are left alone.
        fn pass(&mut self, packets: [(u64, u64); 2]) -> (bool, Counted) {
            self.seconds += 1;
            let (group, service, _) = services(&self.order.desired).next().expect("one service");
            let mut counted = Counted::default();
            for ((count, backend), (opening, others)) in
                self.counts.iter_mut().zip(&service.backends).zip(packets)
            {
                count.flows += opening;
                count.packets += opening + others;
                counted.backends.insert((Place::of(group, service), backend.address), *count);
            }
            let now = Instant::ZERO + Duration::from_secs(self.seconds);
            let changed = self.trusted.look(now, &self.order.desired, &mut counted);
            (changed, counted)
        }

        fn out(&self) -> Vec<String> {
            let applied = self.trusted.applied_to(&self.order);
            applied.out.iter().map(|key| key.backend.clone()).collect()
        }
    }

    #[test]
    fn who_lets_nobody_in_is_left_alone_for_its_time_and_then_for_longer() {
        let mut bench = Bench::new();
        assert!(!bench.pass([(2, 0), (4, 20)]).0);
        assert!(!bench.pass([(2, 0), (4, 20)]).0, "two have failed");
        let (changed, counted) = bench.pass([(2, 0), (4, 20)]);
        assert!(changed);
        assert_eq!(bench.out(), ["web1"]);
        assert_eq!(counted.totals["xdp_ejections"], 1);
        let left: Vec<_> = counted.ejected.values().copied().collect();
        assert_eq!(left, [EJECT.time]);
        for _ in 0..9 {
            assert!(!bench.pass([(0, 0), (6, 30)]).0);
        }
        assert!(bench.pass([(0, 0), (6, 30)]).0, "another chance");
        assert_eq!(bench.out(), Vec::<String>::new());
        bench.pass([(5, 0), (6, 30)]);
        let (_, counted) = bench.pass([(0, 0), (6, 30)]);
        assert_eq!(counted.ejected.values().copied().collect::<Vec<_>>(), [EJECT.time * 2]);
    }

    #[test]
    fn nobody_is_left_alone_where_nobody_else_is_up() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.pass([(3, 0), (3, 0)]);
        }
        assert_eq!(bench.trusted.out.len(), 2);
        assert_eq!(bench.out(), Vec::<String>::new());

        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.pass([(3, 0), (3, 9)]);
        }
        assert_eq!(bench.out(), ["web1"]);
        let (group, service, _) = services(&bench.order.desired).next().expect("one service");
        let key = Place::of(group, service).key(&service.backends[1]);
        let down = BackendHealth { state: BackendState::Down, ..BackendHealth::unknown() };
        bench.order.states = Arc::new(States::from([(key, down)]));
        assert_eq!(bench.out(), Vec::<String>::new(), "the other one is down");
    }

    #[test]
    fn its_service_alone_is_made_anew() {
        let mut bench = Bench::new();
        let before = bench.order.clone();
        for _ in 0..3 {
            bench.pass([(3, 0), (3, 9)]);
        }
        let out = bench.trusted.applied_to(&before);
        let turned = Turned::of(&before, &out).expect("people want the same");
        assert_eq!((turned.places.len(), turned.is_some_there), (1, false));
        let back = Turned::of(&out, &before).expect("people want the same");
        assert_eq!((back.places.len(), back.is_some_there), (1, true));
    }
}
