//! Takes a new configuration: only the difference is acted on, everything else goes on as it was.

use crate::Node;
use crate::last_owner::LastOwner;
use crate::ownership::{self, Ownership, State};
use crate::peer::Peer;
use crate::votes::Votes;
use alloc::sync::Arc;
use alloc::vec::Vec;
use buoy_model::{Action, Cause, Desired, Group, Instant, Safety, SharedLease, VipAddress};

impl Node {
    pub(crate) fn reload(&mut self, now: Instant, wanted: Arc<Desired>, out: &mut Vec<Action>) {
        let before = core::mem::replace(&mut self.desired, wanted);
        let desired = Arc::clone(&self.desired);
        self.me = desired.node_index(desired.me).unwrap_or_default();
        let moved: Vec<Option<usize>> =
            before.nodes.iter().map(|n| desired.node_index(n.id)).collect();
        self.reload_peers(&desired);
        self.reload_groups(now, &before, &desired, out);
        self.legs.renumber(|old| moved.get(old).copied().flatten());
        self.renewals.renumber(|old| moved.get(old).copied().flatten());
        for ownership in &mut self.owned {
            if let Some(votes) = ownership.votes_mut() {
                votes.renumber(|old| moved.get(old).copied().flatten());
            }
        }
        self.look_again();
        self.beat_now();
    }

    fn reload_peers(&mut self, desired: &Desired) {
        let mut before = core::mem::take(&mut self.peers);
        for (index, node) in desired.nodes.iter().enumerate() {
            if index == self.me {
                continue;
            }
            let known = before.iter().position(|p| p.id == node.id);
            let peer = match known {
                Some(i) => {
                    let mut peer = before.swap_remove(i);
                    peer.index = index;
                    peer
                }
                None => Peer::new(node.id, index, &mut self.random),
            };
            self.peers.push(peer);
        }
    }

    fn reload_groups(
        &mut self,
        now: Instant,
        before: &Desired,
        desired: &Desired,
        out: &mut Vec<Action>,
    ) {
        let mut owned = core::mem::take(&mut self.owned);
        let mut last_owner = core::mem::take(&mut self.verdicts.last_owner);
        last_owner.resize(before.groups.len(), LastOwner::Nobody);
        for (group, ownership) in before.groups.iter().zip(&mut owned) {
            if desired.group(group.id).is_some_and(|g| decides_alike(g, group)) {
                continue;
            }
            match ownership.holding() {
                Some(_) => ownership.release(now, group, Cause::Reload, out),
                None => ownership.stop_wanting(group, Instant::ZERO, out),
            }
            if let Some(routers) = &mut ownership.routers {
                routers.stop(group, out);
            }
            self.voter.give_back(self.me(), group.id);
        }
        for (i, group) in desired.groups.iter().enumerate() {
            let known = before.group_index(group.id);
            let known = known.filter(|k| decides_alike(&before.groups[*k], group));
            match known {
                Some(k) => {
                    self.owned.push(owned[k].clone());
                    if before.groups[k].services != group.services {
                        self.owned[i].forget_backends();
                    }
                    self.verdicts.last_owner.push(last_owner[k]);
                    self.reload_addresses(now, &before.groups[k], desired, i, out);
                }
                None => {
                    self.owned.push(Ownership::new(group));
                    self.verdicts.last_owner.push(LastOwner::Nobody);
                    ownership::fence(group, Instant::ZERO, None, out);
                }
            }
        }
    }

    /// Addresses that a held group lost or gained.
    fn reload_addresses(
        &mut self,
        now: Instant,
        before: &Group,
        desired: &Desired,
        i: usize,
        out: &mut Vec<Action>,
    ) {
        let group = &desired.groups[i];
        if before.addresses == group.addresses {
            return;
        }
        let context = self.context(now, desired, i);
        let State::Holding(holding) = &mut self.owned[i].state else {
            self.owned[i].stop_wanting(before, Instant::ZERO, out);
            ownership::fence(group, Instant::ZERO, None, out);
            return;
        };
        let place = |a: &VipAddress| (a.cidr, a.link, a.presence);
        for address in &before.addresses {
            let stays = group.addresses.iter().any(|a| place(a) == place(address));
            if let (false, Some(link)) = (stays, address.link) {
                let closed = Action::Fence {
                    address: address.cidr.address(),
                    link,
                    until: Instant::ZERO,
                    lease: None,
                    guard: ownership::guard(group),
                };
                let (cidr, presence) = (address.cidr, address.presence);
                out.extend([closed, Action::RemoveAddress { link, cidr, presence }]);
            }
        }
        holding.announcements.again(now);
        let until = holding.until(context.shared_until);
        // A lease that VRRP promises is the group's own.
        let lease = holding.shares.then_some(match group.safety {
            Safety::Exclusive => SharedLease::Majority,
            Safety::Available => SharedLease::Loop,
        });
        ownership::fence(group, until, lease, out);
        ownership::add_addresses(context, until, out);
    }
}

/// Who owns it is decided in the same way: by the same kind of lease, or between the same virtual routers.
fn decides_alike(before: &Group, group: &Group) -> bool {
    let routers = |group: &'_ Group| -> Vec<_> {
        group.vrrp.iter().map(|r| (r.id, r.v6, r.link, r.version, r.virtual_mac)).collect()
    };
    before.safety == group.safety && routers(before) == routers(group)
}

impl Ownership {
    /// The votes, in the states that have some.
    pub(crate) fn votes_mut(&mut self) -> Option<&mut Votes> {
        match &mut self.state {
            State::Idle { .. } => None,
            State::Wanting { votes, .. } => Some(votes),
            State::Holding(holding) => Some(&mut holding.votes),
        }
    }
}
