//! Tells the other nodes what is ordered: at once what is new, now and then all there is, and to a peer that came all.
//!
//! The exchange promises nothing, so what holds is said again and again; the versions of orders make it no matter how
//! often, and by whom. A node says on what it hears, so that two that do not reach each other know the same.

use super::BackendOrders;
use crate::exchange::{Handle, News};
use buoy_core::backend_orders as orders;
use buoy_model::{BackendOrder, NodeId, Topic};
use buoy_wire::orders::{emit, parse};
use std::sync::Arc;
use std::time::Duration;
use tokio::time;

/// From one repetition to the next.
const REPEAT: Duration = Duration::from_secs(2);
/// Bodies of one repetition: the rest has its turn later, so that no network is flooded by many orders.
const REPEATED: usize = 8;

/// Keeps telling and hearing.
pub(super) async fn keep(orders: BackendOrders, exchange: Handle) {
    let mut news = exchange.subscribe(Topic::Orders);
    let mut kept = orders.watch();
    let mut told = Arc::clone(&kept.borrow_and_update());
    let mut repeat = time::interval(REPEAT);
    repeat.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut turn = 0;
    loop {
        tokio::select! {
            news = news.recv() => match news {
                Some(News::Came(peer)) => say(&exchange, Some(peer), told.all()),
                Some(News::Left(_)) => {}
                Some(News::Parcel(peer, body)) => hear(&orders, peer, &body).await,
                None => return,
            },
            changed = kept.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = Arc::clone(&kept.borrow_and_update());
                say(&exchange, None, news_of(&told, &now));
                told = now;
            }
            _ = repeat.tick() => turn = again(&exchange, &told, turn),
        }
    }
}

fn say<'o>(exchange: &Handle, to: Option<NodeId>, orders: impl Iterator<Item = &'o BackendOrder>) {
    for body in emit(orders) {
        exchange.send(to, Topic::Orders, body);
    }
}

/// What is not as it was.
fn news_of<'o>(
    before: &orders::BackendOrders,
    now: &'o orders::BackendOrders,
) -> impl Iterator<Item = &'o BackendOrder> {
    now.all().filter(|order| before.of(&order.backend) != Some(*order))
}

/// Says a part of all again; where the next part begins.
fn again(exchange: &Handle, orders: &orders::BackendOrders, turn: usize) -> usize {
    let bodies = emit(orders.all());
    let from = if turn < bodies.len() { turn } else { 0 };
    for body in bodies.into_iter().skip(from).take(REPEATED) {
        exchange.send(None, Topic::Orders, body);
    }
    from + REPEATED
}

async fn hear(orders: &BackendOrders, peer: NodeId, body: &[u8]) {
    match parse(body) {
        Some(told) => orders.hear(told).await,
        // It has our key, so it is of another version.
        None => tracing::debug!(peer = peer.0, "orders that are not understood"),
    }
}
