//! Which groups this node serves, for who tells others about their flows.

use crate::realtime::Handle;
use buoy_model::{Desired, GroupId, Mode};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time;

/// How often the loop is asked. Others follow a new owner not sooner than this.
const EVERY: Duration = Duration::from_millis(500);

/// Groups by their number.
pub(super) type Owned = BTreeSet<GroupId>;

/// Asks the loop again and again, while there are services whose flows others are told about.
pub(super) fn watch(
    handle: Handle,
    desired: watch::Receiver<Arc<Desired>>,
) -> watch::Receiver<Owned> {
    let (tell, owned) = watch::channel(Owned::new());
    tokio::spawn(async move {
        let mut turns = time::interval(EVERY);
        turns.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        while !tell.is_closed() {
            turns.tick().await;
            let wanted = has_flows(&desired.borrow());
            let serves = |group: buoy_core::GroupStatus| group.lease_left.map(|_| group.id);
            let now = match wanted {
                true => match handle.status().await {
                    Ok(status) => status.groups.into_iter().filter_map(serves).collect(),
                    Err(_) => return,
                },
                false => Owned::new(),
            };
            tell.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
        }
    });
    owned
}

fn has_flows(desired: &Desired) -> bool {
    let mut services = desired.groups.iter().flat_map(|group| &group.services);
    desired.nodes.len() > 1 && services.any(|service| matches!(service.mode, Mode::Xdp { .. }))
}
