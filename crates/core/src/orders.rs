//! Takes what an operator wants: a node out of service or as it is, a group to another node or kept where it is.
//!
//! An order is given to the node that it is about: the owner of a group, or the node to be drained or cordoned.
//! A hold or a pin ends with the ownership that it is about: a failure moves the group all the same.

use crate::Exclusion;
use crate::Node;
use crate::ownership::State;
use crate::view::Note;
use crate::why;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use buoy_model::{
    Action, Cause, Claim, ClaimKind, Fact, Group, GroupId, Instant, Node as Member, NodeId, Order,
    Record,
};
use core::fmt;

/// Why a group stays at its new owner after a move.
pub(crate) const MOVED_HERE: &str = "moved here by an operator";

/// What operators want of one group that this node serves, or is about to.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupOrders {
    /// It stays here.
    pub(crate) held: Option<Held>,
    /// It goes there.
    pub(crate) moving: Option<Moving>,
}

/// A group that stays where it is, whatever better node there is.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// In the operator's words.
    pub(crate) reason: String,
    /// When it is free to move again by itself.
    pub(crate) until: Option<Instant>,
    told: bool,
}

/// A group that an operator moves.
#[derive(Clone, Debug)]
pub(crate) struct Moving {
    pub(crate) to: NodeId,
    /// In the operator's words.
    pub(crate) reason: String,
    pub(crate) since: Instant,
}

/// Why an order cannot be followed, with what to do instead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OrderError {
    /// No such group on this node.
    UnknownGroup {
        /// Which.
        group: GroupId,
    },
    /// Another node owns it, or nobody does.
    NotOwner {
        /// The group's name.
        vip: String,
        /// The owner's name.
        owner: Option<String>,
    },
    /// No such node in the cluster.
    UnknownNode {
        /// The group's name.
        vip: String,
        /// Which.
        node: NodeId,
    },
    /// It is to move to where it is.
    AlreadyThere {
        /// The group's name.
        vip: String,
        /// The owner's name.
        node: String,
    },
    /// That node cannot take it.
    NotACandidate {
        /// The group's name.
        vip: String,
        /// The node's name.
        node: String,
        /// Why it cannot.
        why: Exclusion,
    },
    /// The end of a drain or a hold is over already.
    EndsInThePast,
    /// VRRP decides who owns it, and knows no such order.
    ByVrrp {
        /// The group's name.
        vip: String,
    },
    /// The agent ends: it gives everything away as it is.
    Stopping,
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownGroup { group } => write!(
                f,
                "this node knows no VIP #{:08x}: reload it with the configuration that has it",
                group.0
            ),
            Self::NotOwner { vip, owner: Some(owner) } => {
                write!(f, "{vip} is owned by {owner}: give the order there")
            }
            Self::NotOwner { vip, owner: None } => {
                write!(f, "nobody owns {vip}: see why first, with `buoy why {vip}`")
            }
            Self::UnknownNode { vip, node } => write!(
                f,
                "{vip} cannot move to node #{:08x}, which is not in the configuration: name one of its `nodes`",
                node.0
            ),
            Self::AlreadyThere { vip, node } => {
                write!(f, "{vip} is on {node} already: to keep it there, hold it")
            }
            Self::NotACandidate { vip, node, why } => write!(
                f,
                "{vip} cannot move to {node}, which {}: mend that first, or name another node",
                exclusion_clause(why)
            ),
            Self::EndsInThePast => {
                f.write_str("the order would be over before it begins: give an end in the future")
            }
            Self::ByVrrp { vip } => write!(
                f,
                "{vip} belongs to whoever has the best VRRP priority: drain this node, or change `priority`"
            ),
            Self::Stopping => {
                f.write_str("the agent ends and gives everything away: wait for the new owner")
            }
        }
    }
}

impl core::error::Error for OrderError {}

/// An exclusion as a clause that follows "which".
fn exclusion_clause(why: &Exclusion) -> String {
    match why {
        Exclusion::NotAllowed => "is not among its `nodes`".into(),
        Exclusion::Witness => "is a witness and never owns".into(),
        Exclusion::NeverHeard => "was never heard".into(),
        Exclusion::Silent(silent) => format!("has been silent for {} ms", silent.as_millis()),
        Exclusion::Draining => "is drained".into(),
        Exclusion::NoCarrier(_) => "has no carrier".into(),
        Exclusion::NotOffered => "does not offer itself".into(),
        Exclusion::Unchecked => "has not checked its backends yet".into(),
        Exclusion::NoBackend => "sees no backend up (or fewer than `quorum`)".into(),
        Exclusion::CheckFails(check) => format!("fails the check {check}"),
        Exclusion::Unheard(_) => "is deaf where the VIP is announced".into(),
        Exclusion::Damped(_) => "has come and gone too often lately".into(),
        Exclusion::Cordoned => "is cordoned".into(),
        Exclusion::Reluctant => "takes it only if nobody else can".into(),
        Exclusion::NoMajority => "hears too few nodes for a majority".into(),
        Exclusion::Listening(_) => "has started lately".into(),
    }
}

impl Node {
    /// How many groups this node serves now.
    pub fn serves_now(&self) -> usize {
        self.owned.iter().filter(|owned| owned.holding().is_some()).count()
    }

    /// Whether the order can be followed; to be asked before it is given.
    pub fn can_follow(&self, now: Instant, order: &Order) -> Result<(), OrderError> {
        if self.is_stopping() {
            return Err(OrderError::Stopping);
        }
        let in_time = |until: &Option<Instant>| match until {
            Some(until) if *until <= now => Err(OrderError::EndsInThePast),
            Some(_) | None => Ok(()),
        };
        match order {
            Order::Drain { reason: _, until } => in_time(until),
            Order::Undrain { reason: _ }
            | Order::Cordon { reason: _ }
            | Order::Uncordon { reason: _ } => Ok(()),
            Order::Move { group, to, reason: _ } => self.can_move(now, *group, *to),
            Order::Hold { group, reason: _, until } => {
                self.owned_group(*group)?;
                in_time(until)
            }
            Order::Release { group, reason: _ } | Order::Announce { group, reason: _ } => {
                self.owned_group(*group).map(|_| ())
            }
        }
    }

    fn owned_group(&self, id: GroupId) -> Result<usize, OrderError> {
        let Some(i) = self.desired.group_index(id) else {
            return Err(OrderError::UnknownGroup { group: id });
        };
        if self.owned[i].routers.is_some() {
            return Err(OrderError::ByVrrp { vip: self.desired.groups[i].name.clone() });
        }
        if self.owned[i].holding().is_some() {
            return Ok(i);
        }
        let group = &self.desired.groups[i];
        let owner = self.rival(group).map(|(at, _)| self.desired.nodes[at].name.clone());
        Err(OrderError::NotOwner { vip: group.name.clone(), owner })
    }

    fn can_move(&self, now: Instant, group: GroupId, to: NodeId) -> Result<(), OrderError> {
        let group: &Group = &self.desired.groups[self.owned_group(group)?];
        let vip = group.name.clone();
        let Some(index) = self.desired.node_index(to) else {
            return Err(OrderError::UnknownNode { vip, node: to });
        };
        let member: &Member = &self.desired.nodes[index];
        let node = member.name.clone();
        if index == self.me {
            return Err(OrderError::AlreadyThere { vip, node });
        }
        if self.could_take(now, group, index) {
            return Ok(());
        }
        let excluded = why::peer_exclusion(self, now, group, index);
        let why = excluded.unwrap_or(Exclusion::NotOffered);
        Err(OrderError::NotACandidate { vip, node, why })
    }

    /// Follows an order; one that cannot be followed changes nothing.
    pub(crate) fn order(&mut self, now: Instant, order: Order, out: &mut Vec<Action>) {
        if self.can_follow(now, &order).is_err() {
            return;
        }
        let told = match order {
            Order::Drain { reason, until } => {
                self.draining = Some(reason.clone());
                self.drain_until = until;
                Some((None, Fact::Drained { reason }))
            }
            Order::Undrain { reason } => self.undrain(reason).map(|fact| (None, fact)),
            Order::Cordon { reason } => {
                self.cordoned = Some(reason.clone());
                Some((None, Fact::Cordoned { reason }))
            }
            Order::Uncordon { reason } => {
                self.cordoned.take().map(|_| (None, Fact::Uncordoned { reason }))
            }
            Order::Move { group, to, reason } => {
                if let Some(i) = self.desired.group_index(group) {
                    self.owned[i].orders.moving = Some(Moving { to, reason, since: now });
                }
                None
            }
            Order::Hold { group, reason, until } => {
                if let Some(i) = self.desired.group_index(group) {
                    let held = Held { reason: reason.clone(), until, told: true };
                    self.owned[i].orders = GroupOrders { held: Some(held), moving: None };
                }
                Some((Some(group), Fact::Held { reason }))
            }
            Order::Announce { group, reason } => {
                self.announce_one(now, group, out);
                Some((Some(group), Fact::Announced { reason }))
            }
            Order::Release { group, reason } => {
                let i = self.desired.group_index(group);
                let orders = i.map(|i| core::mem::take(&mut self.owned[i].orders));
                orders.and_then(|o| o.held).map(|_| (Some(group), Fact::Freed { reason }))
            }
        };
        if let Some((group, fact)) = told {
            out.push(Action::Record(Record { at: now, group, fact }));
        }
        self.note_ends();
        self.beat_now();
    }

    /// Whether an operator keeps the group here: by a hold, or with all that is here.
    pub(crate) fn is_held(&self, i: usize) -> bool {
        self.cordoned.is_some() || self.owned[i].orders.held.is_some()
    }

    fn undrain(&mut self, reason: String) -> Option<Fact> {
        self.drain_until = None;
        self.draining.take().map(|_| Fact::Undrained { reason })
    }

    /// Ends what was to end by now.
    pub(crate) fn end_orders(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.verdicts.orders_end_at.is_none_or(|at| now < at) {
            return;
        }
        if self.drain_until.is_some_and(|at| at <= now)
            && let Some(fact) = self.undrain("the time of the drain is over".into())
        {
            out.push(Action::Record(Record { at: now, group: None, fact }));
        }
        for (group, owned) in self.desired.groups.iter().zip(&mut self.owned) {
            let ends = owned.orders.held.as_ref().and_then(|h| h.until);
            if ends.is_some_and(|at| at <= now) {
                owned.orders.held = None;
                let fact = Fact::Freed { reason: "the time of the hold is over".into() };
                out.push(Action::Record(Record { at: now, group: Some(group.id), fact }));
            }
        }
        self.note_ends();
        self.beat_now();
    }

    fn note_ends(&mut self) {
        let holds = self.owned.iter().filter_map(|o| o.orders.held.as_ref()?.until);
        self.verdicts.orders_end_at = holds.chain(self.drain_until).min();
    }

    /// Follows up on what the judgements found out: pins what was moved here, ends moves that failed,
    /// and forgets what was wanted of groups that went.
    pub(crate) fn conclude(&mut self, now: Instant, out: &mut Vec<Action>) {
        for (i, note) in core::mem::take(&mut self.verdicts.view.notes) {
            let orders = &mut self.owned[i].orders;
            match note {
                Note::Pinned => {
                    let reason = MOVED_HERE.to_string();
                    orders.held.get_or_insert(Held { reason, until: None, told: false });
                }
                Note::MoveFailed => {
                    let Some(moving) = orders.moving.take() else { continue };
                    let to = self.desired.node_name(moving.to);
                    let reason = format!("{to} did not come forward: the move is given up");
                    let record = Fact::Freed { reason };
                    let group = Some(self.desired.groups[i].id);
                    out.push(Action::Record(Record { at: now, group, fact: record }));
                }
            }
        }
        let mut changed = false;
        for (group, owned) in self.desired.groups.iter().zip(&mut self.owned) {
            if owned.orders.held.is_none() && owned.orders.moving.is_none() {
                continue;
            }
            match &owned.state {
                State::Idle { .. } => {
                    owned.orders = GroupOrders::default();
                    changed = true;
                }
                State::Wanting { .. } => owned.orders.moving = None,
                State::Holding(_) => {
                    let Some(held) = owned.orders.held.as_mut().filter(|h| !h.told) else {
                        continue;
                    };
                    held.told = true;
                    let fact = Fact::Held { reason: held.reason.clone() };
                    out.push(Action::Record(Record { at: now, group: Some(group.id), fact }));
                }
            }
        }
        if changed {
            self.note_ends();
        }
    }

    /// What this node says of a group in its heartbeats; `None`: nothing, for it cannot own it now.
    pub(crate) fn claim_of(&self, now: Instant, i: usize) -> Option<Claim> {
        let (group, owned) = (&self.desired.groups[i], &self.owned[i]);
        let kind = match owned.claim() {
            ClaimKind::Eligible | ClaimKind::Reluctant => {
                // While it listens it offers itself already: whoever takes first leaves it its share.
                if !self.is_able(group) || self.gives_away() {
                    return None;
                }
                match self.reluctance(now, i) {
                    None if self.may_ask(group) => ClaimKind::Eligible,
                    Some(_) | None => ClaimKind::Reluctant,
                }
            }
            kind @ (ClaimKind::Wants | ClaimKind::Holds | ClaimKind::Yields) => kind,
        };
        let yielding = owned.holding().and_then(|h| h.yielding.as_ref());
        let held = match yielding.map(|y| &y.cause) {
            // Whoever takes it is to keep it.
            Some(Cause::Moved { .. }) => true,
            Some(_) => false,
            // Or others would wait for a fuller node to give that never does.
            None => owned.holding().is_some() && self.is_held(i),
        };
        Some(Claim { group: group.id, kind, epoch: owned.epoch, held, to: owned.yields_to() })
    }
}
