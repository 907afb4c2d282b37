//! Orders over a restart, a reload, and where the file is not to be had.

use super::*;
use crate::sample::{backend, desired, service};
use buoy_model::{Duty, Mode, OrderedWeight};

fn two(names: &[&str]) -> (watch::Sender<Arc<Desired>>, BackendId) {
    let backends = names.iter().map(|name| backend(name, "10.0.0.21:80")).collect();
    let service = service(Mode::Proxy, "10.0.0.100", 80, backends);
    let id = BackendId::of(&service, "web1");
    (watch::Sender::new(Arc::new(desired(&["10.0.0.100"], "eth0", vec![service]))), id)
}

const DRAIN: Change = Change::Duty(Duty::Drain { until: None });

#[tokio::test]
async fn a_restart_forgets_no_order_and_a_reload_drops_those_of_backends_that_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.json");
    let (wanted, id) = two(&["web1", "web2"]);
    let (orders, mut told) = BackendOrders::start(wanted.subscribe(), file.clone());
    let given = orders.give(id.clone(), DRAIN, "by ann".into()).await.unwrap();
    let half = Change::Weight(OrderedWeight::Percent(50));
    let second = BackendId { name: "web2".into(), ..id.clone() };
    orders.give(second.clone(), half, "by bob".into()).await.unwrap();
    let ordered = Fact::BackendOrdered { order: given.clone() };
    assert_eq!(told.recv().await, Some((id.clone(), ordered)));

    let (again, _) = BackendOrders::start(wanted.subscribe(), file.clone());
    assert_eq!(again.watch().borrow().of(&id), Some(&given));
    assert_eq!(again.problem(), None);

    let mut kept = again.watch();
    let (after, _) = two(&["web2"]);
    wanted.send_replace(Arc::clone(&after.borrow()));
    kept.changed().await.unwrap();
    assert_eq!(kept.borrow().of(&id), None);
    assert!(kept.borrow().of(&second).is_some());
    told.recv().await.unwrap();
    let dropped = Fact::BackendOrderDropped { backend: id.clone() };
    assert_eq!(told.recv().await, Some((id, dropped)));
}

#[tokio::test]
async fn an_order_that_cannot_be_kept_holds_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (wanted, id) = two(&["web1"]);
    // A file is in the place of its folder.
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (orders, _told) = BackendOrders::start(wanted.subscribe(), file.join("orders.json"));
    orders.give(id.clone(), DRAIN, "by ann".into()).await.unwrap();
    assert!(orders.watch().borrow().of(&id).is_some());
    assert!(orders.problem().unwrap().contains("end with this agent"), "{:?}", orders.problem());
}

#[tokio::test]
async fn what_is_known_of_backends_follows_orders_and_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let (wanted, id) = two(&["web1"]);
    let file = folder.path().join("orders.json");
    let (orders, _told) = BackendOrders::start(wanted.subscribe(), file);
    let (_checks, checked) = watch::channel(States::new());
    let mut states = orders.states(checked);
    assert!(states.borrow().is_empty());
    let until = millis() + 30;
    let drain = Duty::Drain { until: Some(until) };
    orders.give(id, Change::Duty(drain), String::new()).await.unwrap();
    let is_cut = |states: &States| states.values().any(crate::health::BackendHealth::is_cut);
    let drains = |states: &States| !states.is_empty();
    states.wait_for(drains).await.unwrap();
    states.wait_for(is_cut).await.unwrap();
    assert!(until <= millis(), "not before its time");
}

/// Node `n` of two in a network that only this test uses, with its orders and its place in the exchange.
struct Node {
    orders: BackendOrders,
    _exchange: crate::exchange::Exchange,
    _keys: watch::Sender<buoy_wire::Keyring>,
    _wanted: watch::Sender<Arc<Desired>>,
    _told: mpsc::Receiver<Told>,
    id: BackendId,
}

fn node(folder: &std::path::Path, n: u8, backends: &[&str]) -> Node {
    let (wanted, id) = two(backends);
    wanted.send_modify(|desired| {
        let desired = Arc::make_mut(desired);
        let node = |n: u8| buoy_model::Node::new(&format!("n{n}"), ([127, 78, 1, n], 4747).into());
        desired.nodes = (1..=2).map(node).collect();
        desired.nodes.sort_by_key(|node| node.id);
        desired.me = buoy_model::NodeId::of(&format!("n{n}"));
    });
    let keyring = buoy_wire::Keyring::new(vec![buoy_wire::Key::new([7; 32])]).unwrap();
    let (keys, keyring) = watch::channel(keyring);
    let exchange = crate::exchange::Exchange::start(wanted.subscribe(), keyring).unwrap();
    let file = folder.join(format!("{n}.orders"));
    let (orders, told) = BackendOrders::start(wanted.subscribe(), file);
    orders.share(exchange.handle());
    Node { orders, _exchange: exchange, _keys: keys, _wanted: wanted, _told: told, id }
}

async fn has(node: &Node, duty: Duty) {
    let mut kept = node.orders.watch();
    let has = |kept: &Arc<orders::BackendOrders>| kept.of(&node.id).is_some_and(|o| o.duty == duty);
    tokio::time::timeout(crate::sample::PATIENCE, kept.wait_for(has)).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_one_node_is_told_holds_on_all_and_one_that_was_away_hears_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let backends = ["web1", "web2"];
    let a = node(folder.path(), 1, &backends);
    let drain = Duty::Drain { until: None };
    a.orders.give(a.id.clone(), Change::Duty(drain), "by ann".into()).await.unwrap();
    {
        let b = node(folder.path(), 2, &backends);
        has(&b, drain).await;
        b.orders.give(b.id.clone(), Change::Duty(Duty::Maint), "by bob".into()).await.unwrap();
        has(&a, Duty::Maint).await;
    }
    a.orders.give(a.id.clone(), Change::Duty(Duty::Configured), "by ann".into()).await.unwrap();
    // Its file still says maintenance, and what it says is older.
    let b = node(folder.path(), 2, &backends);
    has(&b, Duty::Configured).await;
    assert!(a.orders.watch().borrow().of(&a.id).unwrap().is_configured());
}
