//! Looks whether somebody on the segment has an address before the cluster uses it for the first time.
//!
//! That is when an address comes into the configuration, by an edit or a reload: nobody of the cluster can have it then,
//! and nothing waits for it. A takeover never comes by here. What is found refuses the configuration and is an event.
//! Absent on purpose: the start of an agent. Others of the cluster may serve by then, and who else has an address is
//! found by listening (`core::announce`).

use buoy_kernel::clock;
use buoy_kernel::reach::{self, Holder};
use buoy_model::{Desired, Fact, LinkId, Record};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take: three questions in this time, where RFC 5227 §1.1 takes some seconds.
const WITHIN: Duration = Duration::from_millis(600);
/// After so long it is known what a node has in force that was faster than this one.
pub(crate) const SETTLED: Duration = Duration::from_millis(300);

/// Asks who has these addresses.
pub(crate) type Probe = Arc<dyn Fn(&[(LinkId, IpAddr)]) -> Option<Holder> + Send + Sync>;

/// The address is somebody's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Occupied(pub(crate) Holder);

impl fmt::Display for Occupied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder { address, mac, link } = &self.0;
        write!(
            f,
            "{address} is in use: {mac} answers for it on {link}, and no node of the cluster has it; choose \
             another address, or take it off that host"
        )
    }
}

impl Occupied {
    pub(crate) fn record(&self) -> Record {
        let Holder { address, mac, link: _ } = self.0;
        Record { at: clock::now(), group: None, fact: Fact::Occupied { address, mac } }
    }
}

/// Asks the segments of this host.
pub(crate) fn of_this_host() -> Probe {
    Arc::new(|targets| match reach::holders(targets, WITHIN) {
        Ok(found) => found.into_iter().next(),
        Err(cause) => {
            tracing::warn!("whether somebody has the new addresses cannot be asked: {cause}");
            None
        }
    })
}

/// Who has an address that is new.
pub(crate) async fn look(probe: &Probe, before: &Desired, after: &Desired) -> Option<Occupied> {
    let targets = fresh(before, after);
    if targets.is_empty() {
        return None;
    }
    let probe = Arc::clone(probe);
    let asked = tokio::task::spawn_blocking(move || probe(&targets)).await;
    asked.ok().flatten().map(Occupied)
}

/// Addresses that were no VIPs before, where this host would have them. What VRRP owns may be a router's already.
fn fresh(before: &Desired, after: &Desired) -> Vec<(LinkId, IpAddr)> {
    let addresses = |desired: &'_ Desired| {
        let all = desired.groups.iter().flat_map(|group| &group.addresses);
        all.map(|address| address.cidr.address()).collect::<BTreeSet<_>>()
    };
    let known = addresses(before);
    let leased = after.groups.iter().filter(|group| group.vrrp.is_empty());
    let placed = leased.flat_map(|group| &group.addresses).filter_map(|address| {
        let target = address.cidr.address();
        (!known.contains(&target)).then_some((address.link?, target))
    });
    placed.collect()
}
