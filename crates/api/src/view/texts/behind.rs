//! Keeps the texts of what is balanced behind one VIP: as parts of its own text, and as items of the lists of services
//! and of backends.

use super::json;
use crate::services::{BackendReply, ServiceReply, backend_tag, haproxy_name, ordered_in};
use crate::status::{BackendView, ServiceView};
use crate::view::{BackendReport, ServiceReport, View, service_problems};
use buoy_model::{BackendId, Group, Service};

/// Where the backends of a service belong. In no text can this be a part of a value: quotes of strings are escaped there.
const BACKENDS: &str = "\"backends\":[]";

/// What is behind one VIP, and what that was made from.
#[derive(Debug)]
pub(super) struct BehindText {
    /// No other text has it, before or after.
    pub(super) number: u64,
    /// What is wrong with it, as sentences.
    pub(super) problems: Vec<String>,
    reports: Vec<ServiceReport>,
    /// In the order of the file.
    services: Vec<ServiceText>,
    /// Their places in the order of their addresses.
    by_address: Vec<usize>,
}

/// One service.
#[derive(Debug)]
pub(super) struct ServiceText {
    pub(super) name: String,
    /// An item of the list of services, until the service itself.
    head: String,
    /// The service until its backends, and the rest.
    parts: [String; 2],
    /// An item of the list of backends, until the backend itself.
    backend_head: String,
    /// The backends, with commas between them.
    backends: String,
    /// Where each of them ends, and its tag as JSON.
    ends: Vec<(usize, String)>,
}

impl BehindText {
    pub(super) fn make(
        view: &View<'_>,
        group: &Group,
        reports: &[ServiceReport],
        number: u64,
    ) -> Self {
        let mut problems = Vec::new();
        let make = |service| ServiceText::make(view, (group, service), reports, &mut problems);
        let services: Vec<ServiceText> = group.services.iter().map(make).collect();
        let addresses = |i: &usize| -> Vec<String> {
            let its = group.services.get(*i).map_or(&[][..], |service| &service.addresses);
            its.iter().map(ToString::to_string).collect()
        };
        let mut by_address: Vec<usize> = (0..services.len()).collect();
        by_address.sort_by_cached_key(addresses);
        Self { number, problems, reports: reports.to_vec(), services, by_address }
    }

    /// Whether these would give this text. What is ordered of a backend is told with the time that is left: always anew.
    pub(super) fn is_of(&self, reports: &[ServiceReport]) -> bool {
        let is_ordered = |report: &ServiceReport| report.backends.iter().any(|b| b.order.is_some());
        let are_same = |(a, b): (&ServiceReport, &ServiceReport)| is_told_the_same(a, b);
        self.reports.len() == reports.len()
            && self.reports.iter().zip(reports).all(are_same)
            && !reports.iter().any(is_ordered)
    }

    /// So many bytes at most, as a part of the VIP.
    pub(super) fn room(&self) -> usize {
        self.services.iter().map(ServiceText::room).sum()
    }

    /// All services, as the VIP has them.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (n, service) in self.services.iter().enumerate() {
            comma(n, out);
            service.write(out);
        }
        out.push(b']');
    }

    /// In the order of the file.
    pub(super) fn services(&self) -> &[ServiceText] {
        &self.services
    }

    /// In the order of the list of services.
    pub(super) fn by_address(&self) -> impl Iterator<Item = &ServiceText> {
        self.by_address.iter().filter_map(|i| self.services.get(*i))
    }
}

impl ServiceText {
    fn make(
        view: &View<'_>,
        (group, service): (&Group, &Service),
        reports: &[ServiceReport],
        problems: &mut Vec<String>,
    ) -> Self {
        let mut shown = view.service(group, service);
        problems.extend(service_problems(&shown));
        let (mut backends, mut ends) = (String::new(), Vec::new());
        for backend in std::mem::take(&mut shown.backends) {
            if !backends.is_empty() {
                backends.push(',');
            }
            backends.push_str(&json(&backend));
            let order = ordered_in(reports, &BackendId::of(service, &backend.name));
            ends.push((backends.len(), json(&backend_tag(order.as_ref()))));
        }
        let item = ServiceReply {
            node: view.desired.node_name(view.desired.me).into(),
            vip: group.name.clone(),
            addresses: service.addresses.iter().map(ToString::to_string).collect(),
            haproxy: haproxy_name(group, service),
            service: ServiceView::default(),
        };
        let (vip, name) = (group.name.clone(), shown.name.clone());
        let backend = BackendReply { vip, service: name, ..BackendReply::default() };
        let parts = cut(&json(&shown), BACKENDS);
        let [head, _] = cut(&json(&item), &json(&ServiceView::default()));
        let [backend_head, _] = cut(&json(&backend), &json(&BackendView::default()));
        Self { name: shown.name, head, parts, backend_head, backends, ends }
    }

    pub(super) fn room(&self) -> usize {
        let parts: usize = self.parts.iter().map(String::len).sum();
        self.head.len() + parts + self.backends.len() + BACKENDS.len() + 2
    }

    /// So many bytes at most, as items of the list of backends.
    pub(super) fn room_of_backends(&self) -> usize {
        let tags: usize = self.ends.iter().map(|(_, tag)| tag.len()).sum();
        let each = self.backend_head.len() + ",\"etag\":},".len();
        self.backends.len() + tags + self.ends.len() * each
    }

    fn write(&self, out: &mut Vec<u8>) {
        let [before, after] = &self.parts;
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(b"\"backends\":[");
        out.extend_from_slice(self.backends.as_bytes());
        out.push(b']');
        out.extend_from_slice(after.as_bytes());
    }

    /// As an item of the list of services.
    pub(super) fn write_item(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.head.as_bytes());
        self.write(out);
        out.push(b'}');
    }

    /// Its backends, as items of their list.
    pub(super) fn write_backends(&self, out: &mut Vec<u8>) {
        let mut from = 0;
        for (n, (end, tag)) in self.ends.iter().enumerate() {
            comma(n, out);
            out.extend_from_slice(self.backend_head.as_bytes());
            out.extend_from_slice(self.backends.get(from..*end).unwrap_or_default().as_bytes());
            out.extend_from_slice(b",\"etag\":");
            out.extend_from_slice(tag.as_bytes());
            out.push(b'}');
            from = end + 1;
        }
    }

    pub(super) const fn has_backends(&self) -> bool {
        !self.ends.is_empty()
    }
}

/// Before all but the first.
pub(super) fn comma(n: usize, out: &mut Vec<u8>) {
    if 0 < n {
        out.push(b',');
    }
}

/// What is before the gap, and what is behind it.
fn cut(text: &str, gap: &str) -> [String; 2] {
    let (before, after) = text.split_once(gap).unwrap_or((text, ""));
    [before.to_owned(), after.to_owned()]
}

/// Whether two reports of a service differ in nothing that is told of it.
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
        dropped,
        backends,
    } = a;
    let are_backends_same = || {
        backends.len() == b.backends.len()
            && backends.iter().zip(&b.backends).all(|(a, b)| {
                let BackendReport {
                    name,
                    state,
                    reason,
                    urgent,
                    share,
                    traffic,
                    dropped,
                    lasts: _,
                    order,
                } = a;
                (name, state, reason, urgent) == (&b.name, &b.state, &b.reason, &b.urgent)
                    && (share, traffic, order) == (&b.share, &b.traffic, &b.order)
                    && *dropped == b.dropped
            })
    };
    (group, address, protocol, ports) == (&b.group, &b.address, &b.protocol, &b.ports)
        && (problem, engine, table, limited) == (&b.problem, &b.engine, &b.table, &b.limited)
        && *dropped == b.dropped
        && are_backends_same()
}
