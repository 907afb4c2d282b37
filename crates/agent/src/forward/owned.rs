//! Which groups this node serves, for who tells others about their flows, and who owns the others, for tables that
//! depend on that.

use crate::realtime::Handle;
use buoy_core::{GroupStatus, Status, locality};
use buoy_model::{Desired, GroupId, Mode, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time;

/// How often the loop is asked. Others follow a new owner not sooner than this.
const EVERY: Duration = Duration::from_millis(500);

/// Groups by their number.
pub(super) type Owned = BTreeSet<GroupId>;

/// Who owns groups of which a service follows that; who was the last to, where nobody does.
pub(super) type Owners = BTreeMap<GroupId, NodeId>;

/// Asks the loop again and again, while there are services whose flows others are told about, or whose tables follow
/// the owner of their VIP.
pub(super) fn watch(
    handle: Handle,
    desired: watch::Receiver<Arc<Desired>>,
    owners: Arc<watch::Sender<Owners>>,
) -> watch::Receiver<Owned> {
    let (tell, owned) = watch::channel(Owned::new());
    tokio::spawn(async move {
        let mut turns = time::interval(EVERY);
        turns.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        while !tell.is_closed() {
            turns.tick().await;
            let wanted = Arc::clone(&desired.borrow());
            let (has_flows, follows) = (has_flows(&wanted), followed(&wanted));
            let mut now = Owned::new();
            let mut by = Owners::new();
            if has_flows || !follows.is_empty() {
                let Ok(status) = handle.status(None).await else { return };
                let serves = |group: &GroupStatus| group.lease_left.map(|_| group.id);
                now = status.groups.iter().filter_map(serves).collect();
                by = owners_now(&status, &follows, &owners.borrow());
            }
            if !has_flows {
                now.clear();
            }
            set(&tell, now);
            set(&owners, by);
        }
    });
    owned
}

fn set<T: PartialEq>(to: &watch::Sender<T>, now: T) {
    to.send_if_modified(|known| {
        let changed = *known != now;
        *known = now;
        changed
    });
}

/// Of these groups, who owns them, or who is known to have been the last.
fn owners_now(status: &Status, follows: &BTreeSet<GroupId>, before: &Owners) -> Owners {
    let followed = status.groups.iter().filter(|group| follows.contains(&group.id));
    let owner = |group: &GroupStatus| {
        let own = group.lease_left.map(|_| status.me);
        let owner = own.or(group.owner).or_else(|| before.get(&group.id).copied());
        owner.map(|owner| (group.id, owner))
    };
    followed.filter_map(owner).collect()
}

/// Groups of which a service has another table for another owner.
pub(super) fn followed(desired: &Desired) -> BTreeSet<GroupId> {
    let follows = desired.groups.iter().filter(|group| locality::is_followed(group));
    follows.map(|group| group.id).collect()
}

fn has_flows(desired: &Desired) -> bool {
    let mut services = desired.groups.iter().flat_map(|group| &group.services);
    desired.nodes.len() > 1 && services.any(|service| matches!(service.mode, Mode::Xdp { .. }))
}
