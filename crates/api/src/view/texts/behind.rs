//! Keeps the texts of what is balanced behind one VIP: as parts of its own text, and as items of the lists of services
//! and of backends.

use super::json;
use super::pieces::Pieces;
use crate::services::{BackendReply, ServiceReply, backend_tag, haproxy_name, ordered_in};
use crate::status::{BackendView, ServiceView};
use crate::view::{ServiceReport, View, service_problems};
use buoy_model::{BackendId, Group, Service};
use hyper::body::Bytes;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Where the backends of a service belong. In no text can this be a part of a value: quotes of strings are escaped there.
const BACKENDS: &str = "\"backends\":[]";

/// What is behind one VIP, and what that was made from.
#[derive(Debug)]
pub(super) struct BehindText {
    /// No other text has it, before or after.
    pub(super) number: u64,
    /// What is wrong with it, as sentences.
    pub(super) problems: Vec<String>,
    reports: Vec<Arc<ServiceReport>>,
    /// Something of it is ordered.
    is_ordered: bool,
    /// All services, as the VIP has them: in the order of the file.
    text: Bytes,
    services: Vec<ServiceText>,
    /// Their places in the order of their addresses.
    by_address: Vec<usize>,
}

/// One service.
#[derive(Debug)]
pub(super) struct ServiceText {
    pub(super) name: String,
    /// It in the text of all.
    text: Bytes,
    /// An item of the list of services, until the service itself.
    head: Bytes,
    /// Where each of its backends is in its text.
    backends: Vec<Range<usize>>,
    /// They as items of their list, once somebody has asked for that.
    items: OnceLock<Bytes>,
}

impl BehindText {
    pub(super) fn make(
        view: &View<'_>,
        group: &Group,
        reports: &[Arc<ServiceReport>],
        number: u64,
    ) -> Self {
        let (mut problems, mut text, mut parts) = (Vec::new(), String::from("["), Vec::new());
        for (n, service) in group.services.iter().enumerate() {
            if 0 < n {
                text.push(',');
            }
            let shown = view.service(group, service);
            problems.extend(service_problems(&shown));
            let from = text.len();
            let backends = write(shown, &mut text);
            parts.push((from..text.len(), backends));
        }
        text.push(']');
        let text = Bytes::from(text.into_bytes().into_boxed_slice());
        let services = group.services.iter().zip(parts);
        let services = services.map(|(service, (at, backends))| ServiceText {
            name: crate::services::service_name(group, service),
            text: text.slice(at),
            head: head(view, group, service),
            backends,
            items: OnceLock::new(),
        });
        let addresses = |i: &usize| -> Vec<String> {
            let its = group.services.get(*i).map_or(&[][..], |service| &service.addresses);
            its.iter().map(ToString::to_string).collect()
        };
        let mut by_address: Vec<usize> = (0..group.services.len()).collect();
        by_address.sort_by_cached_key(addresses);
        let mut all = reports.iter().flat_map(|report| &report.backends);
        Self {
            number,
            problems,
            is_ordered: all.any(|backend| backend.order.is_some()),
            reports: reports.to_vec(),
            services: services.collect(),
            text,
            by_address,
        }
    }

    /// Whether these would give this text. What is ordered of a backend is told with the time that is left: always anew.
    pub(super) fn is_of(&self, reports: &[Arc<ServiceReport>]) -> bool {
        let are_same =
            |(a, b): (&Arc<ServiceReport>, &Arc<ServiceReport>)| Arc::ptr_eq(a, b) || a == b;
        self.reports.len() == reports.len()
            && self.reports.iter().zip(reports).all(are_same)
            && !self.is_ordered
    }

    /// All services, as the VIP has them.
    pub(super) const fn text(&self) -> &Bytes {
        &self.text
    }

    /// In the order of the file, each with what it is of.
    pub(super) fn services<'t>(
        &'t self,
        group: &'t Group,
    ) -> impl Iterator<Item = (&'t ServiceText, Source<'t>)> {
        let source = move |service| Source { group, service, reports: &self.reports };
        self.services.iter().zip(group.services.iter().map(source))
    }

    /// In the order of the list of services.
    pub(super) fn by_address(&self) -> impl Iterator<Item = &ServiceText> {
        self.by_address.iter().filter_map(|i| self.services.get(*i))
    }
}

/// What the text of a service is of.
#[derive(Clone, Copy)]
pub(super) struct Source<'t> {
    group: &'t Group,
    service: &'t Service,
    reports: &'t [Arc<ServiceReport>],
}

impl ServiceText {
    /// As an item of the list of services.
    pub(super) fn write_item(&self, out: &mut Pieces) {
        out.kept(&self.head);
        out.kept(&self.text);
        out.own(|own| own.push(b'}'));
    }

    /// Its backends, as items of their list.
    pub(super) fn write_backends(&self, source: Source<'_>, out: &mut Pieces) {
        out.kept(self.items.get_or_init(|| self.items(source)));
    }

    pub(super) const fn has_backends(&self) -> bool {
        !self.backends.is_empty()
    }

    fn items(&self, Source { group, service, reports }: Source<'_>) -> Bytes {
        let (vip, name) = (group.name.clone(), self.name.clone());
        let item = BackendReply { vip, service: name, ..BackendReply::default() };
        let [head, _] = cut(&json(&item), &json(&BackendView::default()));
        let mut out = Vec::new();
        for (at, backend) in self.backends.iter().zip(&service.backends) {
            if !out.is_empty() {
                out.push(b',');
            }
            let order = ordered_in(reports, &BackendId::of(service, &backend.name));
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(self.text.get(at.clone()).unwrap_or_default());
            out.extend_from_slice(b",\"etag\":");
            out.extend_from_slice(json(&backend_tag(order.as_ref())).as_bytes());
            out.push(b'}');
        }
        out.into_boxed_slice().into()
    }
}

/// Where each of its backends is, from where it begins on.
fn write(mut shown: ServiceView, text: &mut String) -> Vec<Range<usize>> {
    let from = text.len();
    let backends = std::mem::take(&mut shown.backends);
    let [before, after] = cut(&json(&shown), BACKENDS);
    text.push_str(&before);
    text.push_str("\"backends\":[");
    let mut places = Vec::with_capacity(backends.len());
    for (n, backend) in backends.iter().enumerate() {
        if 0 < n {
            text.push(',');
        }
        let begin = text.len() - from;
        text.push_str(&json(backend));
        places.push(begin..text.len() - from);
    }
    text.push(']');
    text.push_str(&after);
    places
}

/// An item of the list of services, until the service itself.
fn head(view: &View<'_>, group: &Group, service: &Service) -> Bytes {
    let item = ServiceReply {
        node: view.desired.node_name(view.desired.me).into(),
        vip: group.name.clone(),
        addresses: service.addresses.iter().map(ToString::to_string).collect(),
        haproxy: haproxy_name(group, service),
        service: ServiceView::default(),
    };
    let [head, _] = cut(&json(&item), &json(&ServiceView::default()));
    head.into_bytes().into_boxed_slice().into()
}

/// What is before the gap, and what is behind it.
fn cut(text: &str, gap: &str) -> [String; 2] {
    let (before, after) = text.split_once(gap).unwrap_or((text, ""));
    [before.to_owned(), after.to_owned()]
}
