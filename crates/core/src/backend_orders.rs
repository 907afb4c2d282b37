//! Decides what holds for a backend that operators have orders for: all nodes alike, whoever was told.
//!
//! Each node keeps the latest order of each backend and repeats it to the others. An order says all that
//! holds for its backend, and the one with the larger version stands (`OrderVersion`), so it does not
//! matter in which order, how often or by which way they come. An order that takes everything back stays as
//! well: a node that was away may still have the one before. What is not in the configuration is dropped.
//!
//! Absent on purpose: clocks (moments are arguments), files, the network, and what engines do.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use buoy_model::limits::{BACKEND_ORDERS_MAX, BACKEND_WEIGHT_MAX, CHECK_SHARE_MAX};
use buoy_model::{
    Backend, BackendId, BackendOrder, Desired, Duty, NodeId, OrderVersion, OrderedWeight, Service,
};

/// The share of a backend that nobody asks anything else of.
const WHOLE: u16 = 100;

/// What an operator wants to be otherwise.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// What it is there for.
    Duty(Duty),
    /// What weight it has.
    Weight(OrderedWeight),
}

/// What came of an order that another node, or a file, has told of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// It holds now.
    News,
    /// It was known, or a later one is.
    Known,
    /// This configuration has no such backend. It may in a moment, so whoever said it says it again.
    Unknown,
    /// There are too many.
    Full,
}

/// There are `BACKEND_ORDERS_MAX` orders.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full;

/// What an order makes of a backend at a moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Effect {
    /// Whether it may have connections at all; without, those that it has are cut.
    pub keeps: bool,
    /// Whether it is asked how it is.
    pub is_checked: bool,
}

/// The latest order of each backend.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BackendOrders(BTreeMap<BackendId, BackendOrder>);

impl BackendOrders {
    /// An operator orders something here, at this moment by the wall clock in microseconds. The order is
    /// later than any that is known, also where a clock has been set back.
    pub fn give(
        &mut self,
        (now, me): (u64, NodeId),
        backend: BackendId,
        change: Change,
        reason: String,
    ) -> Result<&BackendOrder, Full> {
        if self.0.len() >= BACKEND_ORDERS_MAX && !self.0.contains_key(&backend) {
            return Err(Full);
        }
        let fresh = || BackendOrder {
            backend: backend.clone(),
            duty: Duty::Configured,
            weight: OrderedWeight::Configured,
            version: OrderVersion::default(),
            reason: String::new(),
        };
        let order = self.0.entry(backend.clone()).or_insert_with(fresh);
        let micros = now.max(order.version.micros.saturating_add(1));
        order.version = OrderVersion { micros, node: me };
        order.reason = reason;
        match change {
            Change::Duty(duty) => order.duty = duty,
            Change::Weight(weight) => order.weight = weight,
        }
        Ok(order)
    }

    /// Another node, or the file of an earlier run, tells of an order.
    pub fn hear(&mut self, desired: &Desired, order: BackendOrder) -> Heard {
        if !has(desired, &order.backend) {
            return Heard::Unknown;
        }
        let is_full = self.0.len() >= BACKEND_ORDERS_MAX;
        match self.0.get_mut(&order.backend) {
            // Of two with one version the larger stands, so that all nodes end with the same.
            Some(known) if rank(&order) <= rank(known) => return Heard::Known,
            Some(known) => *known = order,
            None if is_full => return Heard::Full,
            None => {
                self.0.insert(order.backend.clone(), order);
            }
        }
        Heard::News
    }

    /// Drops the orders of backends that are gone.
    pub fn follow(&mut self, desired: &Desired) -> Vec<BackendOrder> {
        self.0.extract_if(.., |backend, _| !has(desired, backend)).map(|(_, order)| order).collect()
    }

    /// What is ordered of that backend.
    pub fn of(&self, backend: &BackendId) -> Option<&BackendOrder> {
        self.0.get(backend)
    }

    /// All of them, by backend.
    pub fn all(&self) -> impl Iterator<Item = &BackendOrder> {
        self.0.values()
    }

    /// The next moment, in milliseconds since 1970, at which one has another effect.
    pub fn deadline(&self, now: u64) -> Option<u64> {
        let ends = self.0.values().filter_map(|order| match order.duty {
            Duty::Drain { until } => until,
            Duty::Configured | Duty::Ready | Duty::Maint => None,
        });
        ends.filter(|until| now < *until).min()
    }
}

/// Whether the order's time is over, so that what is left is cut.
fn is_over(duty: Duty, now: u64) -> bool {
    match duty {
        Duty::Drain { until } => until.is_some_and(|until| until <= now),
        Duty::Configured | Duty::Ready | Duty::Maint => false,
    }
}

/// What it makes of its backend at a moment in milliseconds since 1970.
pub fn effect(duty: Duty, now: u64) -> Effect {
    let is_maint = duty == Duty::Maint;
    Effect { keeps: !is_maint && !is_over(duty, now), is_checked: !is_maint }
}

/// The weight that shares are taken of, and the share in percent: of the weight in the file and the share
/// that the backend's agent asks for. An order wins over the agent, but a weight puts nothing into service
/// that the agent drains.
pub fn weight(configured: u16, asked: u16, order: &BackendOrder) -> (u16, u16) {
    let asked = match order.duty {
        Duty::Drain { .. } | Duty::Maint => 0,
        Duty::Ready if asked == 0 => WHOLE,
        Duty::Ready | Duty::Configured => asked,
    };
    match order.weight {
        OrderedWeight::Configured => (configured, asked),
        OrderedWeight::Fixed(_) | OrderedWeight::Percent(_) if asked == 0 => (configured, 0),
        OrderedWeight::Fixed(weight) => (weight.min(BACKEND_WEIGHT_MAX), WHOLE),
        OrderedWeight::Percent(share) => (configured, share.min(CHECK_SHARE_MAX)),
    }
}

/// The service and the backend of that id.
pub fn find<'d>(desired: &'d Desired, id: &BackendId) -> Option<(&'d Service, &'d Backend)> {
    let services = desired.groups.iter().flat_map(|group| &group.services);
    let mut named = services.filter(|service| {
        (service.addresses.first(), service.protocol, service.ports)
            == (Some(&id.address), id.protocol, id.ports)
    });
    named.find_map(|service| {
        let backend = service.backends.iter().find(|backend| backend.name == id.name)?;
        Some((service, backend))
    })
}

fn has(desired: &Desired, id: &BackendId) -> bool {
    find(desired, id).is_some()
}

/// Of two orders of one backend the one that ranks higher stands.
fn rank(order: &BackendOrder) -> (OrderVersion, Duty, OrderedWeight, &str) {
    (order.version, order.duty, order.weight, &order.reason)
}

#[cfg(test)]
#[path = "backend_orders_tests.rs"]
mod tests;
