//! What changes something: states and weights of servers, in HAProxy's words and with its refusals.

use super::super::names::{self, NameError};
use super::super::services;
use super::{Agent, Session, TIMEOUT_MAX};
use buoy_core::backend_orders::{self, Change};
use buoy_model::limits::BACKEND_WEIGHT_MAX;
use buoy_model::{Backend, BackendId, BackendOrder, Desired, Duty, OrderedWeight, Service};
use std::time::Duration;

/// What can be set of a server here.
const USAGE: &str = "usage: set server <backend>/<server> state | weight\n";

/// The backend that `web:443-tcp/web1` means; else what HAProxy would say.
fn find<'d>(desired: &'d Desired, name: &str) -> Result<(&'d Service, &'d Backend), String> {
    // A service may be written with a slash, a backend has none.
    let Some((service, backend)) = name.rsplit_once('/') else {
        return Err("Require 'backend/server'.\n".into());
    };
    let (group, service) = names::service(desired, service).map_err(|error| match error {
        NameError::Service { .. } | NameError::Backend { .. } => "No such backend.\n".to_owned(),
        NameError::Ambiguous { .. } => {
            let (title, detail) = error.said();
            format!("No such backend: {title}: {detail}.\n")
        }
    })?;
    let backend =
        names::backend((group, service), backend).map_err(|_| "No such server.\n".to_owned())?;
    Ok((service, backend))
}

async fn order<A: Agent>(
    agent: &A,
    who: &str,
    name: &str,
    change: impl FnOnce() -> Result<Change, String>,
) -> String {
    let desired = agent.desired();
    let (service, backend) = match find(&desired, name) {
        Ok(found) => found,
        Err(said) => return said,
    };
    let change = match change() {
        Ok(change) => change,
        Err(said) => return said,
    };
    let reason = format!("by {who}, over the HAProxy socket");
    match agent.order_backend(BackendId::of(service, &backend.name), change, reason).await {
        Ok(_) => String::new(),
        Err(backend_orders::Full) => "There are too many orders.\n".into(),
    }
}

pub(super) async fn server<A: Agent>(agent: &A, who: &str, words: &[&str]) -> String {
    match words {
        [name, "state", state @ ..] => {
            let state = state.first().copied().unwrap_or_default();
            order(agent, who, name, || duty(state)).await
        }
        [name, "weight", weight @ ..] => {
            let weight = weight.first().copied().unwrap_or_default();
            order(agent, who, name, || weighs(weight)).await
        }
        [name, ..] => match find(&agent.desired(), name) {
            Ok(_) => USAGE.into(),
            Err(said) => said,
        },
        [] => "Require 'backend/server'.\n".into(),
    }
}

pub(super) async fn state<A: Agent>(agent: &A, who: &str, words: &[&str], state: &str) -> String {
    let name = words.first().copied().unwrap_or_default();
    order(agent, who, name, || duty(state)).await
}

pub(super) async fn weight<A: Agent>(agent: &A, who: &str, words: &[&str]) -> String {
    let name = words.first().copied().unwrap_or_default();
    let weight = words.get(1).copied().unwrap_or_default();
    order(agent, who, name, || weighs(weight)).await
}

/// `ready` is what the file, the checks and the backend's agent say, as with HAProxy.
fn duty(state: &str) -> Result<Change, String> {
    let duty = match state {
        "ready" => Duty::Configured,
        "drain" => Duty::Drain { until: None },
        "maint" => Duty::Maint,
        _ => return Err("'set server <srv> state' expects 'ready', 'drain' and 'maint'.\n".into()),
    };
    Ok(Change::Duty(duty))
}

fn weighs(text: &str) -> Result<Change, String> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("Empty weight string empty or preceded by garbage\n".into());
    }
    match services::weight(text) {
        Ok(weight) => Ok(Change::Weight(weight)),
        Err(why) if text.ends_with('%') => Err(format!("Relative weight: {why}.\n")),
        Err(_) => Err(format!(
            "Absolute weight can only be between 0 and {BACKEND_WEIGHT_MAX} inclusive.\n"
        )),
    }
}

/// As in `5 (initial 10)`.
pub(super) fn weight_of<A: Agent>(agent: &A, words: &[&str]) -> String {
    let desired = agent.desired();
    let (service, backend) = match find(&desired, words.first().copied().unwrap_or_default()) {
        Ok(found) => found,
        Err(said) => return said,
    };
    let ordered = standing(agent, &BackendId::of(service, &backend.name));
    let weight = weighed(backend.weight, ordered.map(|order| order.weight).unwrap_or_default());
    format!("{weight} (initial {})\n", backend.weight)
}

/// Who puts a server into maintenance ends its connections by that; Ansible says this after it.
pub(super) fn shut<A: Agent>(agent: &A, words: &[&str]) -> String {
    let desired = agent.desired();
    let (service, backend) = match find(&desired, words.first().copied().unwrap_or_default()) {
        Ok(found) => found,
        Err(said) => return said,
    };
    let ordered = standing(agent, &BackendId::of(service, &backend.name));
    match ordered.map(|order| order.duty) {
        Some(Duty::Maint) => String::new(),
        Some(Duty::Configured | Duty::Ready | Duty::Drain { .. }) | None => {
            "Connections end here when their server is put into maintenance: use 'disable server'.\n".into()
        }
    }
}

/// What was ordered of a backend.
fn standing<A: Agent>(agent: &A, id: &BackendId) -> Option<BackendOrder> {
    let reports = agent.services(None);
    let mut orders = reports.iter().flat_map(|r| &r.backends).filter_map(|b| b.order.as_ref());
    orders.find(|order| order.backend == *id).cloned()
}

/// The weight that holds, in the measure of the file.
pub(super) fn weighed(configured: u16, ordered: OrderedWeight) -> u32 {
    match ordered {
        OrderedWeight::Configured => configured.into(),
        OrderedWeight::Fixed(weight) => weight.into(),
        // Rounded up, as with HAProxy: a little of something is not nothing.
        OrderedWeight::Percent(share) => (u32::from(configured) * u32::from(share)).div_ceil(100),
    }
}

pub(super) fn timeout(session: &mut Session, words: &[&str]) -> String {
    let seconds = words.first().and_then(|delay| delay.trim_end_matches('s').parse().ok());
    match seconds.filter(|seconds| *seconds != 0) {
        Some(seconds) => {
            session.timeout = Duration::from_secs(seconds).min(TIMEOUT_MAX);
            String::new()
        }
        None => "Invalid timeout value.\n".into(),
    }
}
