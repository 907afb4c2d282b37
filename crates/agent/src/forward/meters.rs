//! Counts the connections of one backend now, for whoever asks: by the engine that forwards its service.

use super::{Forward, Place, dead};
use buoy_api::FlowsView;
use buoy_kernel::conntrack;
use buoy_model::{Backend, Desired, Group, Mode, Protocol, Service};
use buoy_proxy::Meter;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The proxies that run, by where they listen.
type All = BTreeMap<(SocketAddr, Protocol), (Place, Meter)>;

/// The proxies that run, for whoever wants to know what they carry.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters(Arc<Mutex<All>>);

impl Meters {
    /// These run now.
    pub(super) fn set(&self, all: All) {
        *self.lock() = all;
    }

    /// Nothing that holds the lock can panic halfway through a change.
    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a backend gets no connections although its checks say nothing against it.
    pub(super) fn ejected(&self, place: &Place, backend: &Backend) -> Option<String> {
        let all = self.lock();
        let of_service = all.values().filter(|(at, _)| at == place);
        let counts = of_service.flat_map(|(_, meter)| meter.counts().backends);
        let left = counts.filter(|b| b.name == backend.name).filter_map(|b| b.ejected).max()?;
        Some(left_alone(left))
    }

    /// What all proxies of a service carry to a backend.
    pub(super) fn of(&self, place: &Place, backend: &Backend) -> FlowsView {
        let source = "the proxy on this node";
        let mut sum = FlowsView {
            open: Some(0),
            opened: Some(0),
            packets: None,
            bytes: Some(0),
            bytes_back: Some(0),
            source: source.into(),
        };
        let all = self.lock();
        for (_, meter) in all.values().filter(|(at, _)| at == place) {
            // A backend that left and came back while it had connections is there twice.
            for counts in meter.counts().backends.iter().filter(|b| b.name == backend.name) {
                let add = |sum: &mut Option<u64>, n: u64| *sum = sum.map(|sum| sum + n);
                add(&mut sum.open, counts.active.into());
                add(&mut sum.opened, counts.connections);
                add(&mut sum.bytes, counts.bytes_to);
                add(&mut sum.bytes_back, counts.bytes_from);
            }
        }
        sum
    }
}

/// Why a backend gets no connections although its checks say nothing against it, in words.
pub(super) fn left_alone(left: Duration) -> String {
    format!("left alone for {} s more: connections to it fail", left.as_secs() + 1)
}

impl Forward {
    /// What is known of the connections of that backend on this host.
    pub async fn flows(&self, desired: &Desired, id: &buoy_model::BackendId) -> Option<FlowsView> {
        let all = desired.groups.iter().flat_map(|g| g.services.iter().map(move |s| (g, s)));
        let is_it = |service: &Service| buoy_model::BackendId::of(service, &id.name) == *id;
        let (group, service) = all.into_iter().find(|(_, service)| is_it(service))?;
        let backend = service.backends.iter().find(|backend| backend.name == id.name)?;
        let place = Place::of(group, service);
        let refused = self.findings().refused.contains(&place);
        Some(match service.mode {
            Mode::Proxy => self.meters.of(&place, backend),
            Mode::Kernel => by_conntrack(group, service, backend).await,
            Mode::Xdp { forward: buoy_model::Forward::Nat, .. } if refused => {
                by_conntrack(group, service, backend).await
            }
            Mode::Xdp { .. } if refused => FlowsView {
                source: "nftables forwards it in place of XDP, and counts no connections".into(),
                ..FlowsView::default()
            },
            Mode::Xdp { .. } => self.by_xdp(&place, backend),
        })
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

/// The kernel knows each connection; one that is over stays in its list for a while.
async fn by_conntrack(group: &Group, service: &Service, backend: &Backend) -> FlowsView {
    let vips = group.addresses.iter().map(|a| a.cidr.address());
    let vips = vips.filter(|vip| service.addresses.contains(vip));
    let vips = vips.filter(|vip| vip.is_ipv4() == backend.address.is_ipv4());
    let all: Vec<_> = vips.map(|vip| dead::flows(service, vip, service.ports, backend)).collect();
    let count = move || all.iter().try_fold(0, |sum, flows| Ok(sum + conntrack::count(flows)?));
    let counted: std::io::Result<usize> = tokio::task::spawn_blocking(count)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()));
    match counted {
        Ok(open) => FlowsView {
            open: u64::try_from(open).ok(),
            source: "conntrack on this node, which keeps a connection that is over for up to two minutes"
                .into(),
            ..FlowsView::default()
        },
        Err(error) => FlowsView {
            source: format!("conntrack cannot be asked: {error}"),
            ..FlowsView::default()
        },
    }
}
