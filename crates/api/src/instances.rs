//! What each virtual router of VRRP is on the answering node, as it travels in JSON.

use crate::stream::read;
use crate::view::View;
use crate::vrrp::{RouterHeardView, counts, router as view_of};
use crate::{Client, ClientError, segment};
use buoy_core::{GroupStatus, RouterState, RouterStatus, Standing};
use buoy_model::{Group, VirtualRouter, VrrpVersion};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use utoipa::ToSchema;

/// `GET /v1/vrrp/instances`: the virtual routers of all VIPs whose owner is decided by VRRP.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct VrrpInstancesReply {
    /// The node that answers, and that they are told of.
    pub node: String,
    /// As in the status.
    pub revision: u64,
    /// By group, in the file's order of each.
    pub instances: Vec<VrrpInstanceView>,
}

/// A virtual router (RFC 9568) on the answering node.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct VrrpInstanceView {
    /// The VIP that it is of.
    pub vip: String,
    /// The VIPs that move together, as the file calls them; the VIP's own name where it moves alone.
    pub group: String,
    /// What it says of addresses.
    pub addresses: Vec<String>,
    /// Where it speaks; empty: this node has no part in it.
    pub interface: String,
    /// Its identifier (VRID).
    pub id: u8,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// 2 or 3.
    pub version: u8,
    /// `active`, `backup`, `due` (it could be active, and waits for the others of its group) or `stopped`.
    pub state: String,
    /// What the node says of itself now.
    pub priority: u8,
    /// What the file gives it.
    pub configured_priority: u8,
    /// Why the one is not the other, a sentence each.
    pub because: Vec<String>,
    /// The address of the active router; null: nobody is known to be.
    pub active: Option<String>,
    /// Which member that is; null: no member.
    pub active_node: Option<String>,
    /// The interval that counts: the own one, or in version 3 that of the active router.
    pub interval_ms: u64,
    /// The own interval.
    pub own_interval_ms: u64,
    /// The address that it speaks from; null: it has none.
    pub source: Option<String>,
    /// Whom it speaks to; empty: everybody, by multicast.
    pub peers: Vec<String>,
    /// Whether the active one takes packets for the addresses (Accept_Mode).
    pub accept: bool,
    /// The hardware address that moves with the addresses; null: they are reached at that of their owner.
    pub virtual_mac: Option<String>,
    /// Who was heard last as the active one; null: nobody, or the node is.
    pub heard: Option<RouterHeardView>,
    /// A backup: how long until it takes over if nobody better is heard.
    pub takes_over_in_ms: Option<u64>,
    /// Advertisements that it has sent, to all peers together once, since the agent knows it.
    pub adverts_sent: u64,
    /// Advertisements of others that were believed.
    pub adverts_received: u64,
    /// Those that were not, by reason.
    pub adverts_refused: BTreeMap<String, u64>,
    /// The same in a sentence.
    pub says: String,
}

impl View<'_> {
    /// All virtual routers, or those of one group.
    pub fn instances(&self, of: Option<&Group>) -> Vec<VrrpInstanceView> {
        let groups =
            self.desired.groups.iter().filter(|group| of.is_none_or(|of| of.id == group.id));
        let mut all = Vec::new();
        for group in groups {
            let Some(status) = self.status.groups.iter().find(|known| known.id == group.id) else {
                continue;
            };
            let routers = group.vrrp.iter().zip(&status.vrrp);
            all.extend(routers.map(|(router, known)| self.instance(group, status, router, known)));
        }
        all.sort_by(|a, b| a.group.cmp(&b.group));
        all
    }

    fn instance(
        &self,
        group: &Group,
        status: &GroupStatus,
        router: &VirtualRouter,
        known: &RouterStatus,
    ) -> VrrpInstanceView {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let text = |address: &IpAddr| address.to_string();
        let seen = view_of(known);
        let place = group.addresses.iter().find(|a| router.addresses.contains(&a.cidr.address()));
        let active = match known.state {
            RouterState::Active => router.source,
            RouterState::Backup | RouterState::Due | RouterState::Stopped => {
                known.heard.map(|heard| heard.source)
            }
        };
        VrrpInstanceView {
            vip: place.map_or_else(|| group.name.clone(), |address| address.vip_name.clone()),
            group: group.name.clone(),
            addresses: router.addresses.iter().map(text).collect(),
            interface: place
                .filter(|a| a.link.is_some())
                .map_or_else(String::new, |a| a.link_name.clone()),
            id: seen.id,
            family: seen.family,
            version: match router.version {
                VrrpVersion::V2 => 2,
                VrrpVersion::V3 => 3,
            },
            state: seen.state,
            priority: seen.priority,
            configured_priority: router.priority,
            because: self.because(group, status, router, known),
            active: active.as_ref().map(text),
            active_node: active.and_then(|address| self.member(known.state, address)),
            interval_ms: seen.interval_ms,
            own_interval_ms: millis(router.interval),
            source: router.source.as_ref().map(text),
            peers: router.peers.iter().map(text).collect(),
            accept: router.takes_packets(),
            virtual_mac: router.virtual_mac.then(|| router.mac().to_string()),
            heard: seen.heard,
            takes_over_in_ms: seen.takes_over_in_ms,
            adverts_sent: known.traffic.sent,
            adverts_received: known.traffic.heard,
            adverts_refused: counts(&known.traffic.refused),
            says: seen.says,
        }
    }

    fn member(&self, state: RouterState, address: IpAddr) -> Option<String> {
        if state == RouterState::Active {
            return Some(self.desired.node_name(self.desired.me).into());
        }
        let mut nodes = self.desired.nodes.iter();
        nodes
            .find(|node| node.addresses.iter().any(|leg| leg.ip() == address))
            .map(|node| node.name.clone())
    }

    /// Why the priority is not that of the file.
    fn because(
        &self,
        group: &Group,
        status: &GroupStatus,
        router: &VirtualRouter,
        known: &RouterStatus,
    ) -> Vec<String> {
        if known.gives_precedence {
            let mine = status.candidates.iter().find(|c| c.node == self.desired.me);
            let why = mine.map(|candidate| match &candidate.standing {
                Standing::Excluded(_) => self.words().standing(&candidate.standing),
                Standing::Owner | Standing::Wants | Standing::Candidate => String::new(),
            });
            let why = why
                .filter(|why| !why.is_empty())
                .map_or_else(String::new, |why| format!(": {why}"));
            return vec![format!("others go first, so it is 1{why}")];
        }
        if known.priority == router.priority {
            return Vec::new();
        }
        let weighs = group.checks.iter().filter_map(|check| Some((check, check.weight?)));
        let counting = weighs.filter_map(|(check, weight)| {
            let view = self.check(group.id, check);
            let fails = view.state == "fail";
            (fails == (weight < 0)).then(|| {
                let does = if fails { "fails" } else { "passes" };
                let why = if view.reason.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", view.reason)
                };
                format!("check {} {does}: {weight:+}{why}", check.name)
            })
        });
        let mut because: Vec<String> = counting.collect();
        if i32::from(router.priority) + i32::from(known.weight) != i32::from(known.priority) {
            because.push("a priority is 1 at least and 254 at most".into());
        }
        because
    }
}

impl Client {
    /// All virtual routers of the agent's node, or those of one VIP, by name or by address.
    pub fn vrrp_instances(&self, vip: Option<&str>) -> Result<VrrpInstancesReply, ClientError> {
        self.get(&target(vip, None))
    }

    /// The same now, each time something changes, and every so often.
    pub fn follow_vrrp(
        &self,
        vip: Option<&str>,
        every: Duration,
        mut seen: impl FnMut(Result<VrrpInstancesReply, ClientError>) -> bool,
    ) -> Result<(), ClientError> {
        let target = target(vip, Some(every));
        self.follow(&target, None, |event| seen(read(&target, &event)))
    }
}

fn target(vip: Option<&str>, every: Option<Duration>) -> String {
    let vip = vip.map(|vip| format!("vip={}", segment(vip)));
    let every = every.map(|every| format!("every={}s", every.as_secs().max(1)));
    let query: Vec<String> = vip.into_iter().chain(every).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("/v1/vrrp/instances{mark}{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_has_its_conditions() {
        let second = Some(Duration::from_millis(100));
        let cases = [
            (None, None, ""),
            (Some("a b"), None, "?vip=a%20b"),
            (None, second, "?every=1s"),
            (Some("web"), second, "?vip=web&every=1s"),
        ];
        for (vip, every, query) in cases {
            assert_eq!(target(vip, every), format!("/v1/vrrp/instances{query}"));
        }
    }
}
