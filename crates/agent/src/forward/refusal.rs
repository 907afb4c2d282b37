//! Drops the packets for addresses with `accept = false` before this host can own them, and not only once a round comes.

use super::engines::refuse;
use buoy_model::Desired;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Addresses whose packets are dropped before anybody here can own them, whatever a round that is under way found.
#[derive(Clone, Debug, Default)]
pub struct Refusal(pub(super) Arc<tokio::sync::Mutex<BTreeSet<IpAddr>>>);

impl Refusal {
    /// To be called before the loop gets this configuration: packets that come first would get through. Rounds do the
    /// rest, and say what does not work.
    pub async fn begin(&self, desired: &Desired) {
        let mut refused = self.0.lock().await;
        let wanted = unaccepted(desired);
        let all: BTreeSet<IpAddr> = refused.union(&wanted).copied().collect();
        if all != *refused {
            refuse(all).await;
        }
        *refused = wanted;
    }
}

/// Addresses that this host answers for without taking their packets: where it may own them, owner or not, so that a
/// failover has nothing to set up.
pub(super) fn unaccepted(desired: &Desired) -> BTreeSet<IpAddr> {
    let routers = desired.groups.iter().flat_map(|group| &group.vrrp);
    let refusing = routers.filter(|router| router.link.is_some() && !router.takes_packets());
    refusing.flat_map(|router| router.addresses.iter().copied()).collect()
}
