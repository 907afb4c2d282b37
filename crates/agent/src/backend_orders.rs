//! Keeps what operators order of backends: over a restart in a file, over a reload, and in the states of backends.
//!
//! What holds is decided in `core::backend_orders`; here are the wall clock, the file, and who is told. Checks, engines
//! and the fitness of this host follow [`BackendOrders::states`], where an order is part of what is known of a backend.

mod file;
mod overlay;
mod share;

use crate::exchange::Handle;
use crate::health::States;
use buoy_core::backend_orders::{self as orders, Change, Full, Heard};
use buoy_model::{BackendId, BackendOrder, Desired, Fact};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};

/// Facts that wait to be told; what is more is in the log of orders only.
const FACTS_MAX: usize = 1024;

/// What happened to an order, and of which backend.
pub type Told = (BackendId, Fact);

/// The orders of this agent. A clone is the same.
#[derive(Clone, Debug)]
pub struct BackendOrders(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kept: watch::Sender<Arc<orders::BackendOrders>>,
    desired: watch::Receiver<Arc<Desired>>,
    file: PathBuf,
    facts: mpsc::Sender<Told>,
    /// One write at a time.
    writing: tokio::sync::Mutex<()>,
    /// Why the file does not hold what it should.
    problem: Mutex<Option<String>>,
}

impl BackendOrders {
    /// Goes on with the orders of an earlier run, and follows the configuration. What happens to orders comes out
    /// of the receiver. To be called inside a tokio runtime.
    pub fn start(
        desired: watch::Receiver<Arc<Desired>>,
        file: PathBuf,
    ) -> (Self, mpsc::Receiver<Told>) {
        let (facts, told) = mpsc::channel(FACTS_MAX);
        let mut kept = orders::BackendOrders::default();
        let mut problem = None;
        match file::read(&file) {
            Ok(known) => {
                for order in known {
                    let backend = order.backend.clone();
                    if kept.hear(&desired.borrow(), order) == Heard::Unknown {
                        let fact = Fact::BackendOrderDropped { backend: backend.clone() };
                        let _ = facts.try_send((backend, fact));
                    }
                }
            }
            Err(why) => {
                tracing::warn!("{why}");
                problem = Some(why);
            }
        }
        let shared = Shared {
            kept: watch::Sender::new(Arc::new(kept)),
            desired,
            file,
            facts,
            writing: tokio::sync::Mutex::default(),
            problem: Mutex::new(problem),
        };
        let orders = Self(Arc::new(shared));
        tokio::spawn(follow(orders.clone()));
        (orders, told)
    }

    /// What holds now, and a wake-up when it is something else.
    pub fn watch(&self) -> watch::Receiver<Arc<orders::BackendOrders>> {
        self.0.kept.subscribe()
    }

    /// What is known of backends, with what is ordered of them.
    pub fn states(&self, checked: watch::Receiver<States>) -> watch::Receiver<States> {
        overlay::start(self.0.desired.clone(), self.watch(), checked)
    }

    /// Tells the other nodes of the orders of this one from now on, and takes theirs. To be called inside a tokio
    /// runtime.
    pub fn share(&self, exchange: Handle) {
        tokio::spawn(share::keep(self.clone(), exchange));
    }

    /// Another node tells of orders. What it is that holds now is the same on all nodes in the end.
    async fn hear(&self, told: Vec<BackendOrder>) {
        let desired = Arc::clone(&self.0.desired.borrow());
        let mut news = Vec::new();
        self.0.kept.send_if_modified(|kept| {
            let kept = Arc::make_mut(kept);
            for order in told {
                match kept.hear(&desired, order.clone()) {
                    Heard::News => news.push(order),
                    Heard::Known | Heard::Unknown => {}
                    Heard::Full => tracing::warn!("there are too many orders: one is not taken"),
                }
            }
            !news.is_empty()
        });
        if news.is_empty() {
            return;
        }
        for order in news {
            self.tell(order.backend.clone(), Fact::BackendOrdered { order });
        }
        self.write().await;
    }

    /// An operator orders something here.
    pub async fn give(
        &self,
        backend: BackendId,
        change: Change,
        reason: String,
    ) -> Result<BackendOrder, Full> {
        let me = self.0.desired.borrow().me;
        let mut given = Err(Full);
        self.0.kept.send_modify(|kept| {
            let kept = Arc::make_mut(kept);
            given = kept.give((micros(), me), backend, change, reason).cloned();
        });
        let order = given?;
        self.tell(order.backend.clone(), Fact::BackendOrdered { order: order.clone() });
        // Before the operator is told that it holds.
        self.write().await;
        Ok(order)
    }

    /// Why orders may be lost with this agent, if they may.
    pub fn problem(&self) -> Option<String> {
        self.0.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, backend: BackendId, fact: Fact) {
        // Whoever reads them has ended, or has too much to read: the orders hold all the same.
        let _ = self.0.facts.try_send((backend, fact));
    }

    async fn write(&self) {
        let _one = self.0.writing.lock().await;
        let (kept, path) = (Arc::clone(&self.0.kept.borrow()), self.0.file.clone());
        let written = tokio::task::spawn_blocking(move || file::write(&path, kept.all())).await;
        let problem =
            written.unwrap_or_else(|_| Err("the thread that writes has ended".into())).err();
        let mut known = self.0.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = problem.as_ref().filter(|_| *known != problem) {
            tracing::warn!("{problem}");
        }
        *known = problem;
    }
}

/// Drops the orders of backends that a reload takes away.
async fn follow(orders: BackendOrders) {
    let mut desired = orders.0.desired.clone();
    while desired.changed().await.is_ok() {
        let now = Arc::clone(&desired.borrow_and_update());
        let mut dropped = Vec::new();
        orders.0.kept.send_if_modified(|kept| {
            dropped = Arc::make_mut(kept).follow(&now);
            !dropped.is_empty()
        });
        if dropped.is_empty() {
            continue;
        }
        for order in dropped.into_iter().filter(|order| !order.is_configured()) {
            let backend = order.backend;
            orders.tell(backend.clone(), Fact::BackendOrderDropped { backend });
        }
        orders.write().await;
    }
}

fn since_1970() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// By the wall clock, which orders are dated by.
fn micros() -> u64 {
    u64::try_from(since_1970().as_micros()).unwrap_or(u64::MAX)
}

/// The same, for moments at which something ends.
pub(crate) fn millis() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
