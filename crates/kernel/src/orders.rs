//! Changes addresses beside the loop, which must not wait for the kernel's lock.
//!
//! Every change of an address takes the RTNL lock, and whoever creates or removes interfaces on
//! this host holds it: a few containers that come and go make a renewal wait for tens of
//! milliseconds, and that is a lease. Measured beside veth pairs that come and go: a renewal from
//! the loop took up to 52 ms, giving the order took 39 us at most. So where the gate stands, which
//! needs no lock, a thread of its own gives these orders, in their order and many in one system
//! call: a thousand addresses are renewed every two seconds. It runs behind the loops of this host, so
//! none of them waits for a thousand addresses. Without a gate the loop gives them
//! itself: then an address must be gone before anybody else is told, and the lease is long enough
//! to wait.

use crate::netlink::{AddressChange, NetlinkError, Requests};
use crate::{clock, realtime};
use buoy_model::limits::{GROUP_ADDRESSES_MAX, GROUPS_MAX};
use buoy_model::{Cidr, Instant, LinkId};
use nix::errno::Errno;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SendError, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

/// Room for a small cluster, which may grow a little.
const ROOM_MIN: usize = 2 * GROUPS_MAX;
/// Every address of a cluster at once.
const ROOM_MAX: usize = GROUPS_MAX * GROUP_ADDRESSES_MAX;
/// Added, renewed and removed again before the kernel has done anything, and some.
const ORDERS_EACH: usize = 4;
/// Outcomes that the loop has not looked at; past it the thread waits for the loop.
const OUTCOMES_MAX: usize = 256;
/// Orders taken together; what is told of them comes when all are carried out.
const BATCH_MAX: usize = 256;

/// What became of an order, where that is worth telling.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// There was nothing to take off.
    NotThere { link: LinkId, cidr: Cidr },
    /// The kernel refused.
    Failed { order: AddressChange, cause: NetlinkError },
}

/// The loop's end of the thread.
pub(crate) struct Orders {
    /// `None` only while it is closed.
    sender: Option<SyncSender<AddressChange>>,
    outcomes: Receiver<Outcome>,
    pending: Arc<AtomicUsize>,
    /// When the last order was carried out.
    last: Arc<AtomicU64>,
    /// Orders that may wait; all of their memory is there and locked, so no more than it takes.
    room: usize,
    thread: Option<JoinHandle<()>>,
}

/// How many orders may wait where there are so many addresses.
pub(crate) fn room_for(addresses: usize) -> usize {
    addresses.saturating_mul(ORDERS_EACH).clamp(ROOM_MIN, ROOM_MAX)
}

impl Orders {
    /// Starts the thread.
    pub(crate) fn start(mut requests: Requests, room: usize) -> io::Result<Self> {
        let (sender, orders) = sync_channel(room);
        let (tell, outcomes) = sync_channel(OUTCOMES_MAX);
        let pending = Arc::new(AtomicUsize::new(0));
        let last = Arc::new(AtomicU64::new(0));
        let (left, done) = (Arc::clone(&pending), Arc::clone(&last));
        let thread = Builder::new().name("buoy-addresses".to_owned()).spawn(move || {
            // An address that comes late is an outage. Missing permission is told for the loop.
            let _ = realtime::schedule_beside();
            let mut batch = Vec::with_capacity(BATCH_MAX);
            while let Ok(first) = orders.recv() {
                batch.clear();
                batch.push(first);
                batch.extend(orders.try_iter().take(BATCH_MAX - 1));
                if carry_out(&mut requests, &batch, &tell).is_err() {
                    return; // nobody listens any more
                }
                done.store(clock::now().as_nanos(), Ordering::Relaxed);
                left.fetch_sub(batch.len(), Ordering::Release);
            }
        })?;
        Ok(Self { sender: Some(sender), outcomes, pending, last, room, thread: Some(thread) })
    }

    /// Gives an order; never waits, never allocates.
    pub(crate) fn give(&self, order: AddressChange) -> Result<(), NetlinkError> {
        self.pending.fetch_add(1, Ordering::Relaxed);
        let given = self.sender.as_ref().is_some_and(|sender| sender.try_send(order).is_ok());
        if given {
            return Ok(());
        }
        self.pending.fetch_sub(1, Ordering::Relaxed);
        Err(NetlinkError::NoAnswer(Errno::EBUSY))
    }

    /// How many orders may wait.
    pub(crate) const fn room(&self) -> usize {
        self.room
    }

    /// Takes the place of another one whose orders are all carried out.
    pub(crate) fn follow(&self, before: &Self) {
        self.last.store(before.last.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The next outcome that is worth telling, if there is one.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.outcomes.try_recv().ok()
    }

    /// How many orders are not carried out yet.
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// When the last order was carried out, if none is left.
    pub(crate) fn carried_out_at(&self) -> Option<Instant> {
        let idle = self.pending() == 0;
        idle.then(|| Instant::from_nanos(self.last.load(Ordering::Relaxed)))
    }

    /// Waits until all orders are carried out, and ends the thread.
    pub(crate) fn close(mut self) {
        drop(self.sender.take());
        // It may be waiting for somebody to look at what it has to tell.
        while self.outcomes.recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn carry_out(
    requests: &mut Requests,
    batch: &[AddressChange],
    tell: &SyncSender<Outcome>,
) -> Result<(), SendError<Outcome>> {
    let mut heard = Ok(());
    requests.change_addresses(batch, &mut |at, cause| {
        let outcome = match batch[at] {
            AddressChange::Remove { link, cidr } if batch[at].is_done_already(cause.errno()) => {
                Outcome::NotThere { link, cidr }
            }
            AddressChange::Add { .. } | AddressChange::Remove { .. } => {
                Outcome::Failed { order: batch[at], cause }
            }
        };
        if heard.is_ok() {
            heard = tell.send(outcome);
        }
    });
    heard
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_what_a_cluster_may_want_at_once() {
        let table = [(0, 2048), (512, 2048), (513, 2052), (1000, 4000), (usize::MAX, 65_536)];
        for (addresses, room) in table {
            assert_eq!(room_for(addresses), room, "{addresses}");
        }
    }
}
