//! Takes what an operator wants: a node out of service, a group to another node or kept where it is.

use crate::Node;
use alloc::vec::Vec;
use buoy_model::{Action, Fact, Instant, Order, Record};

impl Node {
    pub(crate) fn order(&mut self, now: Instant, order: Order, out: &mut Vec<Action>) {
        let fact = match order {
            Order::Drain { reason, .. } => {
                self.draining = Some(reason.clone());
                Fact::Drained { reason }
            }
            Order::Undrain if self.draining.is_none() => return,
            Order::Undrain => {
                self.draining = None;
                Fact::Undrained
            }
            Order::Move { .. } | Order::Hold { .. } | Order::Release { .. } => return,
        };
        out.push(Action::Record(Record { at: now, group: None, fact }));
        self.unsettled = true;
        self.news = true;
    }
}
