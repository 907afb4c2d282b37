//! Which order holds, on every node alike, and what it makes of a backend.

use super::*;
use alloc::format;
use alloc::vec;
use buoy_model::{Group, GroupId, Mode, Ports, Protocol, Safety};
use core::net::IpAddr;
use core::time::Duration;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn desired(backends: &[&str]) -> Desired {
    let vip: IpAddr = [10, 0, 0, 100].into();
    let backend = |name: &&str| Backend::new(name, ([10, 0, 0, 21], 80).into());
    let service = Service::new(
        Mode::Proxy,
        vec![vip],
        Ports::one(80),
        backends.iter().map(backend).collect(),
    );
    let _beat = Duration::from_millis(10);
    let group = Group {
        safety: Safety::Available,
        nodes: vec![A],
        services: vec![service],
        ..Group::new(GroupId(1), "web", vec![])
    };
    Desired::new("test", A, vec![], vec![group])
}

fn id(name: &str) -> BackendId {
    let address = [10, 0, 0, 100].into();
    BackendId { address, protocol: Protocol::Tcp, ports: Ports::one(80), name: name.into() }
}

const DRAIN: Change = Change::Duty(Duty::Drain { until: None });

#[test]
fn whoever_was_told_last_wins_in_whatever_order_the_nodes_hear() {
    let desired = desired(&["web1"]);
    let (mut a, mut b) = (BackendOrders::default(), BackendOrders::default());
    let first = a.give((100, A), id("web1"), DRAIN, "by ann".into()).unwrap().clone();
    let second = b.give((101, B), id("web1"), Change::Duty(Duty::Maint), "by bob".into());
    let second = second.unwrap().clone();
    assert_eq!(a.hear(&desired, second.clone()), Heard::News);
    assert_eq!(b.hear(&desired, first.clone()), Heard::Known);
    assert_eq!((&a, a.of(&id("web1"))), (&b, Some(&second)));
    assert_eq!(a.hear(&desired, second), Heard::Known, "repeated");
    // The clock of A is far behind: what it is told now is still later.
    let third = a.give((5, A), id("web1"), Change::Duty(Duty::Ready), String::new()).unwrap();
    assert_eq!(third.version, OrderVersion { micros: 102, node: A });
    assert_eq!(b.hear(&desired, third.clone()), Heard::News);
    assert_eq!(a, b);
}

#[test]
fn two_orders_of_one_version_end_alike_on_all_nodes() {
    let desired = desired(&["web1"]);
    let order = |duty| BackendOrder {
        backend: id("web1"),
        duty,
        weight: OrderedWeight::Configured,
        version: OrderVersion { micros: 7, node: A },
        reason: String::new(),
    };
    let orders = [order(Duty::Ready), order(Duty::Maint)];
    let (mut a, mut b) = (BackendOrders::default(), BackendOrders::default());
    for n in [0, 1] {
        a.hear(&desired, orders[n].clone());
        b.hear(&desired, orders[1 - n].clone());
    }
    assert_eq!(a, b);
    assert_eq!(a.of(&id("web1")), Some(&orders[1]));
}

#[test]
fn what_is_taken_back_stays_taken_back() {
    let desired = desired(&["web1"]);
    let mut a = BackendOrders::default();
    let drain = a.give((1, A), id("web1"), DRAIN, String::new()).unwrap().clone();
    let back = Change::Duty(Duty::Configured);
    assert!(a.give((2, A), id("web1"), back, String::new()).unwrap().is_configured());
    assert_eq!(a.hear(&desired, drain), Heard::Known, "of a node that was away");
    assert!(a.of(&id("web1")).unwrap().is_configured());
}

#[test]
fn one_order_leaves_the_rest_of_another_alone() {
    let mut a = BackendOrders::default();
    let half = Change::Weight(OrderedWeight::Percent(50));
    a.give((1, A), id("web1"), DRAIN, String::new()).unwrap();
    a.give((2, A), id("web1"), half, String::new()).unwrap();
    let order = a.give((3, A), id("web1"), Change::Duty(Duty::Configured), String::new()).unwrap();
    assert_eq!((order.duty, order.weight), (Duty::Configured, OrderedWeight::Percent(50)));
}

#[test]
fn orders_of_backends_that_are_gone_are_dropped_and_told() {
    let (with, without) = (desired(&["web1", "web2"]), desired(&["web2"]));
    let mut a = BackendOrders::default();
    let order = a.give((1, A), id("web1"), DRAIN, String::new()).unwrap().clone();
    a.give((1, A), id("web2"), DRAIN, String::new()).unwrap();
    assert_eq!(a.follow(&with), []);
    assert_eq!(a.follow(&without), core::slice::from_ref(&order));
    assert_eq!(a.hear(&without, order.clone()), Heard::Unknown);
    assert_eq!(a.hear(&with, order), Heard::News, "it has come back");
}

#[test]
fn there_are_only_so_many() {
    let mut a = BackendOrders::default();
    for n in 0..BACKEND_ORDERS_MAX {
        a.give((1, A), id(&format!("web{n}")), DRAIN, String::new()).unwrap();
    }
    assert_eq!(a.give((1, A), id("more"), DRAIN, String::new()), Err(Full));
    assert!(a.give((1, A), id("web7"), DRAIN, String::new()).is_ok(), "one that is there");
    let more = BackendOrder { backend: id("more"), ..a.of(&id("web7")).unwrap().clone() };
    assert_eq!(a.hear(&desired(&["more"]), more), Heard::Full);
}

#[test]
fn a_drain_cuts_what_is_left_at_its_end_and_maintenance_at_once() {
    let until = |until| Duty::Drain { until: Some(until) };
    // The duty, the moment, whether connections stay, whether it is checked.
    let table = [
        (Duty::Configured, 0, true, true),
        (Duty::Ready, 0, true, true),
        (Duty::Drain { until: None }, u64::MAX, true, true),
        (until(10), 9, true, true),
        (until(10), 10, false, true),
        (Duty::Maint, 0, false, false),
    ];
    for (duty, now, keeps, is_checked) in table {
        assert_eq!(effect(duty, now), Effect { keeps, is_checked }, "{duty:?} at {now}");
    }
    let mut a = BackendOrders::default();
    for (name, duty) in [("web1", until(30)), ("web2", until(20)), ("web3", Duty::Maint)] {
        a.give((1, A), id(name), Change::Duty(duty), String::new()).unwrap();
    }
    let deadlines = [0, 19, 20, 30].map(|now| a.deadline(now));
    assert_eq!(deadlines, [Some(20), Some(20), Some(30), None]);
}

#[test]
fn an_order_wins_over_the_agent_of_the_backend() {
    use OrderedWeight::{Configured, Fixed, Percent};
    let drain = Duty::Drain { until: None };
    // The duty, the weight, the weight in the file, what the agent asks for: weight and share.
    let table = [
        (Duty::Configured, Configured, 3, 100, (3, 100)),
        (Duty::Configured, Configured, 3, 40, (3, 40)),
        (Duty::Configured, Configured, 3, 0, (3, 0)),
        (Duty::Ready, Configured, 3, 0, (3, 100)),
        (Duty::Ready, Configured, 3, 40, (3, 40)),
        (drain, Configured, 3, 100, (3, 0)),
        (drain, Fixed(9), 3, 100, (3, 0)),
        (Duty::Maint, Configured, 3, 100, (3, 0)),
        (Duty::Configured, Fixed(9), 3, 40, (9, 100)),
        (Duty::Configured, Fixed(0), 3, 100, (0, 100)),
        (Duty::Configured, Fixed(999), 3, 100, (256, 100)),
        (Duty::Configured, Fixed(9), 3, 0, (3, 0)),
        (Duty::Ready, Fixed(9), 3, 0, (9, 100)),
        (Duty::Configured, Percent(50), 3, 40, (3, 50)),
        (Duty::Configured, Percent(9_999), 3, 40, (3, 255)),
    ];
    let mut a = BackendOrders::default();
    for (duty, ordered, configured, asked, expected) in table {
        a.give((1, A), id("web1"), Change::Duty(duty), String::new()).unwrap();
        a.give((1, A), id("web1"), Change::Weight(ordered), String::new()).unwrap();
        let order = a.of(&id("web1")).unwrap();
        assert_eq!(weight(configured, asked, order), expected, "{duty:?} {ordered:?} {asked}");
    }
}
