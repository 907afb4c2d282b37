//! Remembers who served each group last, and how that ended: why an address has no owner is told from it.

use crate::Node;
use alloc::vec::Vec;
use buoy_model::{Action, Cause, ClaimKind, Fact, Instant, NodeId, Record, Safety};
use core::time::Duration;

/// How the last known owner of a group ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum LastOwner {
    #[default]
    Nobody,
    Serves {
        node: NodeId,
        since: Instant,
    },
    Released {
        node: NodeId,
    },
    Silent {
        node: NodeId,
        silent: Duration,
    },
    Died {
        node: NodeId,
    },
}

impl LastOwner {
    /// Why a group has no owner.
    pub(crate) const fn orphaned(self) -> Cause {
        match self {
            Self::Nobody | Self::Serves { .. } => Cause::NoOwner,
            Self::Released { node } => Cause::OwnerReleased { node },
            Self::Silent { node, silent } => Cause::OwnerSilent { node, silent },
            Self::Died { node } => Cause::OwnerDied { node },
        }
    }
}

impl Node {
    /// Notes who serves what after a peer's claims have changed.
    pub(crate) fn watch_owners(&mut self, now: Instant, at: usize, out: &mut Vec<Action>) {
        self.verdicts.last_owner.resize(self.desired.groups.len(), LastOwner::Nobody);
        let peer = &self.peers[at];
        for (i, group) in self.desired.groups.iter().enumerate() {
            let last = &mut self.verdicts.last_owner[i];
            let offer = peer.offer(group.id);
            if let Some(offer) = offer {
                self.owned[i].epoch = self.owned[i].epoch.max(offer.claim.epoch);
            }
            let was = matches!(last, LastOwner::Serves { node, .. } if *node == peer.id);
            match offer.filter(|o| o.claim.kind.serves()) {
                Some(offer) if !was => {
                    *last = LastOwner::Serves { node: peer.id, since: now };
                    self.owned[i].another_serves();
                    let fact = Fact::OwnerHeard { node: peer.id, epoch: offer.claim.epoch };
                    let record = Record { at: now, group: Some(group.id), fact };
                    if self.owned[i].holding().is_none() {
                        self.owned[i].last_change = Some(record.clone());
                    }
                    out.push(Action::Record(record));
                    let ours = self.owned[i].holding().filter(|h| h.yielding.is_none());
                    let both = ours.filter(|_| offer.claim.kind == ClaimKind::Holds);
                    if let (Some(holding), Safety::Available) = (both, group.safety) {
                        let known = &self.verdicts.unheard_since;
                        let before = known.iter().find(|(node, _)| *node == peer.id);
                        let began = before.map_or(holding.since, |(_, at)| holding.since.max(*at));
                        let fact = Fact::Overlap { node: peer.id, at_most: now.since(began) };
                        out.push(Action::Record(Record { at: now, group: Some(group.id), fact }));
                        self.verdicts.overlaps += 1;
                    }
                }
                None if was => *last = LastOwner::Released { node: peer.id },
                Some(_) | None => {}
            }
        }
    }

    /// A peer fell silent.
    pub(crate) fn lose(
        &mut self,
        now: Instant,
        at: usize,
        silent: Duration,
        out: &mut Vec<Action>,
    ) {
        let node = self.peers[at].id;
        let fact = Fact::PeerDown { node, silent };
        self.end_owner(now, node, LastOwner::Silent { node, silent }, fact, out);
        let heard_at = self.peers[at].heard_at().unwrap_or(now);
        match self.verdicts.unheard_since.iter_mut().find(|(known, _)| *known == node) {
            Some((_, since)) => *since = heard_at,
            None => self.verdicts.unheard_since.push((node, heard_at)),
        }
    }

    /// A peer's agent is dead, and somebody said so: nothing answers for its addresses any more.
    pub(crate) fn mourn(&mut self, now: Instant, at: usize, out: &mut Vec<Action>) {
        let node = self.peers[at].id;
        self.end_owner(now, node, LastOwner::Died { node }, Fact::PeerGoodbye { node }, out);
    }

    fn end_owner(
        &mut self,
        now: Instant,
        node: NodeId,
        end: LastOwner,
        fact: Fact,
        out: &mut Vec<Action>,
    ) {
        out.push(Action::Record(Record { at: now, group: None, fact }));
        for last in &mut self.verdicts.last_owner {
            if matches!(last, LastOwner::Serves { node: owner, .. } if *owner == node) {
                *last = end;
            }
        }
        self.unsettled = true;
    }
}
