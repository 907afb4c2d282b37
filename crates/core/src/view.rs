//! What one look at the cluster shows: who serves how much, and what is on its way to whom.
//!
//! Groups are judged one after the other, and each judgement changes the view for the next one. `why`
//! explains from a view of its own, by the same steps.

use crate::Node;
use crate::placement::{self, Loads, Members, Place, Share};
use alloc::sync::Arc;
use alloc::vec::Vec;
use buoy_model::limits::NODES_MAX;
use buoy_model::{ClaimKind, Desired, Failback, Group, Instant};
use core::time::Duration;

/// A successor that was named and does not come forward in this time is passed over.
pub(crate) const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(2);
/// A move that nobody needs is not tried again for so long after it failed.
pub(crate) const SUCCESSOR_RETRY: Duration = Duration::from_secs(10);

const NO_LABEL: u16 = u16::MAX;

/// The view, and what is remembered from one look to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The configuration that the tables are of.
    of: Option<Arc<Desired>>,
    /// For each group, the members that it could go to and that it does not prefer one above another.
    equals: Vec<Members>,
    /// For each group, the number of its `apart` label.
    labels: Vec<u16>,
    /// For each group, whether it leaves no node that is fit.
    stays: Vec<bool>,
    loads: Loads,
    /// For each group, whose loads it is in.
    counted: Vec<Members>,
    /// Groups without an owner, and to whom they are to go as this node sees it.
    plans: Vec<(usize, usize)>,
    /// For each label, how many of its groups each member serves.
    together: Vec<Loads>,
    /// For each label, who serves a group of it that may go elsewhere.
    crowded: Vec<Members>,
    /// For each member, to whom it could give a group for the sake of balance.
    gives: [Members; NODES_MAX],
    /// No group (more) moves for the sake of balance: one is on its way, or some have no owner yet.
    pub(crate) moving: bool,
    /// When time alone may change a judgement.
    pub(crate) review_at: Option<Instant>,
    /// For each group, who is to have it from this node; it counts there already.
    handovers: Vec<Option<Handover>>,
    /// For each group, whom its last owner named: the one that goes first when it has let go.
    heirs: Vec<Option<usize>>,
    /// For each group, until when it is not given to a better node.
    resting: Vec<Instant>,
    /// What the judgements found out about orders, for `conclude`.
    pub(crate) notes: Vec<(usize, Note)>,
}

/// A group on its way to a named successor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Handover {
    pub(crate) to: usize,
    pub(crate) since: Instant,
    pub(crate) errand: Errand,
    /// Who did not come forward before.
    tried: Members,
}

/// Why it goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Errand {
    /// It cannot stay.
    Must,
    /// There is a better place.
    Better,
    /// An operator wants it there and nowhere else.
    Order,
}

/// What a judgement found out about an order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Note {
    /// An operator moves the group to this node, so it stays here.
    Pinned,
    /// The node to which an operator moves it does not come forward.
    MoveFailed,
}

impl View {
    /// Counts what everyone serves, or is named to.
    pub(crate) fn look(&mut self, node: &Node, now: Instant) {
        self.learn(&node.desired);
        self.loads = [0; NODES_MAX];
        self.together.fill([0; NODES_MAX]);
        self.crowded.fill(Members::NONE);
        self.counted.fill(Members::NONE);
        self.gives = [Members::default(); NODES_MAX];
        self.moving = false;
        self.plans.clear();
        if now < node.listening_until {
            self.review(node.listening_until);
        }
        for peer in node.peers.iter().filter(|p| p.is_alive()) {
            let mut groups = node.desired.groups.iter().enumerate().peekable();
            for claim in peer.offers.iter().map(|o| o.claim).filter(|c| c.kind.serves()) {
                while groups.next_if(|(_, g)| g.id < claim.group).is_some() {}
                let Some((i, _)) = groups.next_if(|(_, g)| g.id == claim.group) else {
                    self.loads[peer.index] += 1;
                    continue;
                };
                let heir = node.desired.node_index(claim.to);
                match (claim.kind == ClaimKind::Yields, heir) {
                    (true, Some(heir)) => self.count(i, heir),
                    (true, None) | (false, None | Some(_)) => self.count(i, peer.index),
                }
                if claim.kind == ClaimKind::Holds && !claim.held {
                    self.may_give(i, peer.index);
                }
            }
        }
        for i in (0..node.owned.len()).filter(|i| node.owned[*i].holding().is_some()) {
            match self.handovers[i] {
                Some(handover) => {
                    self.moving |= handover.errand == Errand::Better;
                    self.count(i, handover.to);
                }
                None => self.count(i, node.me),
            }
            if !node.is_held(i) {
                self.may_give(i, node.me);
            }
        }
    }

    /// Makes the tables of a new configuration.
    fn learn(&mut self, desired: &Arc<Desired>) {
        if self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, desired)) {
            return;
        }
        self.of = Some(Arc::clone(desired));
        let mut labels: Vec<&str> =
            desired.groups.iter().filter_map(|g| g.apart.as_deref()).collect();
        labels.sort_unstable();
        labels.dedup();
        let number =
            |label: &str| labels.binary_search(&label).ok().and_then(|n| u16::try_from(n).ok());
        self.counted = alloc::vec![Members::NONE; desired.groups.len()];
        self.labels = desired
            .groups
            .iter()
            .map(|g| g.apart.as_deref().and_then(number).unwrap_or(NO_LABEL))
            .collect();
        self.together = alloc::vec![[0; NODES_MAX]; labels.len()];
        self.crowded = alloc::vec![Members::NONE; labels.len()];
        self.stays = desired.groups.iter().map(|g| g.failback == Failback::Never).collect();
        self.equals = desired.groups.iter().map(|g| equals(desired, g)).collect();
        // Members may have new places, so a handover under way is named anew.
        self.handovers = alloc::vec![None; desired.groups.len()];
        self.heirs = alloc::vec![None; desired.groups.len()];
        self.resting = alloc::vec![Instant::ZERO; desired.groups.len()];
        self.notes.clear();
    }

    fn may_give(&mut self, i: usize, member: usize) {
        if !self.stays[i]
            && let Some(crowded) = self.crowded.get_mut(usize::from(self.labels[i]))
        {
            crowded.insert(member);
        }
        if self.equals[i].contains(member) {
            self.gives[member] = self.gives[member].union(self.equals[i].without(member));
        }
    }

    /// Counts a group for a member, once: two may serve it, or ask for it, at a time.
    pub(crate) fn count(&mut self, i: usize, member: usize) {
        if self.counted[i].contains(member) {
            return;
        }
        self.counted[i].insert(member);
        self.loads[member] += 1;
        if let Some(together) = self.together.get_mut(usize::from(self.labels[i])) {
            together[member] += 1;
        }
    }

    /// A group without an owner should go there: the next ones are shared out with that in mind.
    pub(crate) fn plan(&mut self, i: usize, member: usize) {
        if !self.counted[i].contains(member) {
            self.plans.push((i, member));
            self.count(i, member);
        }
    }

    /// What is served is weighed by what everyone knows, and others may plan otherwise: or two nodes
    /// would each think itself the fuller one, and give a group to and fro.
    pub(crate) fn set_plans_aside(&mut self, node: &Node) {
        while let Some((i, member)) = self.plans.pop() {
            let came_true = member == node.me && node.owned[i].holding().is_some();
            if !came_true {
                self.moving = true;
                self.discount(i, member);
            }
        }
    }

    fn discount(&mut self, i: usize, member: usize) {
        if !self.counted[i].contains(member) {
            return;
        }
        self.counted[i] = self.counted[i].without(member);
        self.loads[member] -= 1;
        if let Some(together) = self.together.get_mut(usize::from(self.labels[i])) {
            together[member] -= 1;
        }
    }

    fn together(&self, i: usize, member: usize) -> u16 {
        self.together.get(usize::from(self.labels[i])).map_or(0, |t| t[member])
    }

    /// The place that a member has, or would have if the group were not counted for it yet.
    pub(crate) fn place(&self, desired: &Desired, i: usize, member: usize) -> Place {
        let counted = u16::from(self.counted[i].contains(member));
        let (load, together) = (self.loads[member] - counted, self.together(i, member));
        let together = together.saturating_sub(counted);
        placement::place(&desired.groups[i], &desired.nodes[member], load, together)
    }

    /// The best of the candidates.
    pub(crate) fn best(&self, desired: &Desired, i: usize, candidates: Members) -> Option<usize> {
        candidates.iter().min_by_key(|m| self.place(desired, i, *m))
    }

    /// Whether of all who could give to that member, this one is the fullest. Only the fullest gives,
    /// or two would give at once where one is enough, and one of them would take back.
    pub(crate) fn is_fullest(&self, desired: &Desired, to: usize, member: usize) -> bool {
        let givers = (0..desired.nodes.len()).rev().filter(|n| self.gives[*n].contains(to));
        let share = |n: &usize| Share::of(&desired.nodes[*n], self.loads[*n].saturating_sub(1));
        givers.max_by_key(share) == Some(member)
    }

    /// Whether of all who could give a group of this label, this member serves the most of them: who keeps what he has
    /// must not stand in the way of the others.
    pub(crate) fn is_most_crowded(&self, i: usize, member: usize) -> bool {
        let of_label = self.crowded.get(usize::from(self.labels[i]));
        let crowded = |n: &usize| of_label.is_some_and(|members| members.contains(*n));
        let most = (0..NODES_MAX).rev().filter(crowded).max_by_key(|n| self.together(i, *n));
        most == Some(member)
    }

    /// The handover of the group that is under way.
    pub(crate) fn handover(&self, i: usize) -> Option<Handover> {
        self.handovers.get(i).copied().flatten()
    }

    /// Names who is to have a group that `from` serves.
    pub(crate) fn hand(&mut self, i: usize, from: usize, handover: Handover) {
        match self.handovers[i].replace(handover) {
            Some(before) => self.discount(i, before.to),
            None => self.discount(i, from),
        }
        self.count(i, handover.to);
    }

    /// The group stays with `member`, which serves it.
    pub(crate) fn keep(&mut self, i: usize, member: usize) {
        if let Some(before) = self.handovers[i].take() {
            self.discount(i, before.to);
            self.count(i, member);
        }
    }

    /// The group is not served here (any more).
    pub(crate) fn let_go(&mut self, i: usize) {
        if let Some(handover) = self.handovers[i].take() {
            self.heirs[i] = Some(handover.to);
        }
    }

    /// Whom the owner, or the last one, named.
    pub(crate) fn heir(&self, i: usize) -> Option<usize> {
        self.heirs[i]
    }

    pub(crate) fn note_heir(&mut self, i: usize, heir: Option<usize>) {
        self.heirs[i] = heir;
    }

    /// The group stays for a while, for the better node did not come forward.
    pub(crate) fn rest(&mut self, i: usize, until: Instant) {
        self.resting[i] = until;
    }

    pub(crate) fn resting_until(&self, i: usize) -> Instant {
        self.resting[i]
    }

    pub(crate) fn review(&mut self, at: Instant) {
        self.review_at = Some(self.review_at.map_or(at, |known| known.min(at)));
    }
}

impl Handover {
    pub(crate) const fn new(to: usize, since: Instant, errand: Errand) -> Self {
        Self { to, since, errand, tried: Members::NONE }
    }

    /// Whether the one that was named may still come forward.
    pub(crate) fn has_time(self, now: Instant) -> bool {
        now < self.since + SUCCESSOR_PATIENCE
    }

    /// The next one, after this one did not come forward: those who have not been asked go first.
    pub(crate) fn line(of: Option<Self>, others: Members) -> (Members, Members) {
        let tried = of.map_or(Members::NONE, |h| h.tried.with(h.to));
        let untried = others.except(tried);
        if untried.is_empty() { (others, Members::NONE) } else { (untried, tried) }
    }

    pub(crate) const fn after(self, tried: Members) -> Self {
        Self { tried, ..self }
    }

    /// The same handover, which has become necessary.
    pub(crate) const fn must(self) -> Self {
        Self { errand: Errand::Must, ..self }
    }
}

fn equals(desired: &Desired, group: &Group) -> Members {
    match group.failback {
        Failback::Never => Members::NONE,
        Failback::After(_) => group
            .nodes
            .iter()
            .filter(|id| !group.prefer.contains(id))
            .filter_map(|id| desired.node_index(*id))
            .filter(|m| !desired.nodes[*m].witness && desired.nodes[*m].weight > 0)
            .fold(Members::NONE, Members::with),
    }
}
