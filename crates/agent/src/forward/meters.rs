//! Counts the connections of backends now, for whoever asks: by the engine that forwards their service.

use super::conntracked::Counts;
use super::rows::within;
use super::{Forward, Place, dead};
use buoy_api::FlowsView;
use buoy_kernel::conntrack::Flows;
use buoy_model::{Backend, Group, Mode, Service};
use buoy_proxy::{BackendCounts, Meter};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The proxies that run, by what they carry: a service has one for each of its ports and addresses.
type All = BTreeMap<Place, Vec<Meter>>;

/// The proxies that run, for whoever wants to know what they carry.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters(Arc<Mutex<All>>);

impl Meters {
    /// These run now.
    pub(super) fn set(&self, all: impl Iterator<Item = (Place, Meter)>) {
        let mut known = All::new();
        for (place, meter) in all {
            known.entry(place).or_default().push(meter);
        }
        *self.lock() = known;
    }

    /// Nothing that holds the lock can panic halfway through a change.
    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all proxies of a service know of its backends; one that left and came back while it had connections is
    /// there twice.
    fn counts(&self, place: &Place) -> Vec<BackendCounts> {
        let all = self.lock();
        let of_service = all.get(place).into_iter().flatten();
        of_service.flat_map(|meter| meter.counts().backends).collect()
    }

    /// Which backends of a service are left alone, and for how long still, although their checks say nothing against
    /// them.
    pub(super) fn ejected(&self, place: &Place) -> Vec<(String, Duration)> {
        let all = self.counts(place).into_iter();
        all.filter_map(|b| b.ejected.map(|left| (b.name, left))).collect()
    }
}

/// What is carried to a backend.
fn carried(counts: &[BackendCounts], backend: &Backend) -> FlowsView {
    let source = "the proxy on this node";
    let mut sum = FlowsView {
        open: Some(0),
        opened: Some(0),
        packets: None,
        bytes: Some(0),
        bytes_back: Some(0),
        source: source.into(),
    };
    for counts in counts.iter().filter(|b| b.name == backend.name) {
        let add = |sum: &mut Option<u64>, n: u64| *sum = sum.map(|sum| sum + n);
        add(&mut sum.open, counts.active.into());
        add(&mut sum.opened, counts.connections);
        add(&mut sum.bytes, counts.bytes_to);
        add(&mut sum.bytes_back, counts.bytes_from);
    }
    sum
}

/// Why a backend gets no connections although its checks say nothing against it, in words.
pub(super) fn left_alone(left: Duration) -> String {
    format!("left alone for {} s more: connections to it fail", left.as_secs() + 1)
}

/// Who counts the connections of a service.
enum Counter {
    Proxy,
    Conntrack,
    Xdp,
    /// nftables forwards it as it comes, without conntrack.
    Nobody,
}

impl Forward {
    /// What is known of the connections of these services' backends on this host, in their order.
    pub async fn flows(&self, services: &[(&Group, &Service)]) -> Vec<Vec<FlowsView>> {
        let by_conntrack = |(group, service): &(&Group, &Service)| {
            let is_it = matches!(self.counter(group, service), Counter::Conntrack);
            if is_it { translated(group, service) } else { Vec::new() }
        };
        let needed: Vec<Flows> = services.iter().flat_map(by_conntrack).collect();
        let all = || {
            let desired = self.desired.borrow();
            let all = desired.groups.iter().flat_map(|g| g.services.iter().map(move |s| (g, s)));
            all.flat_map(|both| by_conntrack(&both)).collect()
        };
        let counts = self.conntracked.count(&needed, all).await;
        let of_service = |(group, service): &(&Group, &Service)| {
            let place = Place::of(group, service);
            let counter = self.counter(group, service);
            let by_proxy = self.meters.counts(&place);
            let of = |backend| match counter {
                Counter::Proxy => carried(&by_proxy, backend),
                Counter::Conntrack => by_conntrack_of(&counts, group, service, backend),
                Counter::Xdp => self.by_xdp(&place, backend),
                Counter::Nobody => FlowsView {
                    source: "nftables forwards it in place of XDP, and counts no connections"
                        .into(),
                    ..FlowsView::default()
                },
            };
            service.backends.iter().map(of).collect()
        };
        services.iter().map(of_service).collect()
    }

    fn counter(&self, group: &Group, service: &Service) -> Counter {
        let is_refused = || self.findings().refused.contains(&Place::of(group, service));
        match service.mode {
            Mode::Proxy => Counter::Proxy,
            Mode::Kernel => Counter::Conntrack,
            Mode::Xdp { .. } if !is_refused() => Counter::Xdp,
            Mode::Xdp { forward: buoy_model::Forward::Nat, .. } => Counter::Conntrack,
            Mode::Xdp { .. } => Counter::Nobody,
        }
    }

    fn by_xdp(&self, place: &Place, backend: &Backend) -> FlowsView {
        let counted = self.counted();
        let count = counted.backends.get(&(*place, backend.address)).copied().unwrap_or_default();
        FlowsView {
            // Of most flows nothing is kept, so nobody knows when they end.
            open: None,
            opened: Some(count.flows),
            packets: Some(count.packets),
            bytes: Some(count.bytes),
            bytes_back: None,
            source: "XDP on this node, which keeps nothing of open connections; `opened` is of TCP"
                .into(),
        }
    }
}

/// What conntrack has of a service's backends.
pub(super) fn translated(group: &Group, service: &Service) -> Vec<Flows> {
    service.backends.iter().flat_map(|backend| translated_to(group, service, backend)).collect()
}

/// What conntrack has of a backend: of each VIP, without ports that are another service's.
fn translated_to(group: &Group, service: &Service, backend: &Backend) -> Vec<Flows> {
    let vips = group.addresses.iter().map(|a| a.cidr.address());
    let vips = vips.filter(|vip| {
        service.addresses.contains(vip) && vip.is_ipv4() == backend.address.is_ipv4()
    });
    let of_vip = |vip| {
        let own = service.ports.without(&within(group, vip, service));
        own.into_iter().map(move |ports| dead::flows(service, vip, ports, backend))
    };
    vips.flat_map(of_vip).collect()
}

/// The kernel knows each connection.
fn by_conntrack_of(
    counts: &Result<Arc<Counts>, String>,
    group: &Group,
    service: &Service,
    backend: &Backend,
) -> FlowsView {
    match counts {
        Ok(counts) => {
            let all = translated_to(group, service, backend);
            FlowsView {
                open: Some(all.iter().filter_map(|flows| counts.get(flows)).sum()),
                source: "conntrack on this node, which keeps a session of UDP until it was silent for a while"
                    .into(),
                ..FlowsView::default()
            }
        }
        Err(error) => FlowsView { source: error.clone(), ..FlowsView::default() },
    }
}
