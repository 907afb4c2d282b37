//! Lays what is ordered of backends over what their checks say, now and whenever either changes or a time is over.

use super::millis;
use crate::health::{Key, Ordered, States};
use buoy_core::backend_orders::{self as orders, BackendOrders};
use buoy_model::{BackendId, BackendState, Desired};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time;

/// A wall clock that is set moves the end of a drain: it is looked at again at least so often.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Starts laying; the first value holds already. To be called inside a tokio runtime.
pub(super) fn start(
    desired: watch::Receiver<Arc<Desired>>,
    orders: watch::Receiver<Arc<BackendOrders>>,
    checked: watch::Receiver<States>,
) -> watch::Receiver<States> {
    let first = overlaid(&desired.borrow(), &checked.borrow(), &orders.borrow(), millis());
    let (tell, states) = watch::channel(first);
    tokio::spawn(follow(desired, orders, checked, tell));
    states
}

async fn follow(
    mut desired: watch::Receiver<Arc<Desired>>,
    mut orders: watch::Receiver<Arc<BackendOrders>>,
    mut checked: watch::Receiver<States>,
    tell: watch::Sender<States>,
) {
    loop {
        let now = millis();
        let wait = {
            let orders = orders.borrow_and_update();
            let states =
                overlaid(&desired.borrow_and_update(), &checked.borrow_and_update(), &orders, now);
            // A check that only words its answer anew wakes nobody here either.
            tell.send_if_modified(|known| {
                let turned = !is_same(known, &states);
                *known = states;
                turned
            });
            orders.deadline(now).map(|at| Duration::from_millis(at - now).min(LOOK_AGAIN))
        };
        let changed = tokio::select! {
            changed = desired.changed() => changed,
            changed = orders.changed() => changed,
            changed = checked.changed() => changed,
            () = tell.closed() => return,
            () = time::sleep(wait.unwrap_or(Duration::MAX)), if wait.is_some() => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

/// What is known of backends at a moment.
fn overlaid(desired: &Desired, checked: &States, orders: &BackendOrders, now: u64) -> States {
    let mut states = checked.clone();
    for order in orders.all().filter(|order| !order.is_configured()) {
        let Some(key) = key(desired, &order.backend) else { continue };
        let keeps = orders::effect(order.duty, now).keeps;
        states.change(&key, |known| {
            if !keeps {
                known.state = BackendState::Down;
            }
            known.ordered = Some(Ordered { order: order.clone(), keeps });
            (true, ())
        });
    }
    states
}

fn key(desired: &Desired, id: &BackendId) -> Option<Key> {
    let all = desired.groups.iter().flat_map(|g| g.services.iter().map(move |s| (g, s)));
    let mut all = all.filter(|(_, service)| BackendId::of(service, &id.name) == *id);
    all.next().map(|(group, service)| Key::of(group.id, service, &id.name))
}

/// Whether nobody who forwards would do anything else.
fn is_same(before: &States, after: &States) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|((was, old), (is, new))| {
            was == is
                && (old.state, old.share, &old.ordered) == (new.state, new.share, &new.ordered)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::BackendHealth;
    use crate::sample::{backend, desired, service};
    use buoy_core::backend_orders::Change;
    use buoy_model::{Duty, Mode, NodeId, OrderedWeight};

    #[test]
    fn an_order_is_part_of_what_is_known_of_a_backend() {
        let backends = vec![backend("web1", "10.0.0.21:80"), backend("web2", "10.0.0.22:80")];
        let service = service(Mode::Proxy, "10.0.0.100", 80, backends);
        let id = BackendId::of(&service, "web1");
        let desired = desired(&["10.0.0.100"], "eth0", vec![service]);
        let key = key(&desired, &id).expect("it is there");
        let up = BackendHealth { state: BackendState::Up, ..BackendHealth::unknown() };
        // What is ordered, the moment, what its check says, what is known then, whether it is cut.
        let until = Duty::Drain { until: Some(10) };
        let table = [
            (Duty::Drain { until: None }, 0, Some(&up), BackendState::Up, false),
            (until, 9, None, BackendState::Unknown, false),
            (until, 10, Some(&up), BackendState::Down, true),
            (Duty::Maint, 0, Some(&up), BackendState::Down, true),
            (Duty::Maint, 0, None, BackendState::Down, true),
            (Duty::Ready, 0, None, BackendState::Unknown, false),
        ];
        for (duty, now, checked, state, is_cut) in table {
            let mut orders = BackendOrders::default();
            orders
                .give((1, NodeId(1)), id.clone(), Change::Duty(duty), "by ann".into())
                .expect("there is room");
            let checked = checked.map(|known| (key.clone(), known.clone()));
            let states = overlaid(&desired, &checked.into_iter().collect(), &orders, now);
            let known = &states[&key];
            assert_eq!((known.state, known.is_cut()), (state, is_cut), "{duty:?} at {now}");
            let reason = known.ordered.as_ref().map(|ordered| ordered.order.reason.as_str());
            assert_eq!(reason, Some("by ann"));
        }
        let mut orders = BackendOrders::default();
        let back = Change::Weight(OrderedWeight::Configured);
        orders.give((1, NodeId(1)), id, back, String::new()).expect("there is room");
        assert!(overlaid(&desired, &States::new(), &orders, 0).is_empty(), "nothing is ordered");
    }
}
