//! Says what this node claims and grants: fills in the datagrams, and asks for votes.
//!
//! The claims are a list with a name. A peer that knows the list is sent its name alone, so that a
//! thousand groups cost one small datagram; what it grants then holds for each group on the list.

use crate::Node;
use crate::votes::lease_end;
use alloc::sync::Arc;
use alloc::vec::Vec;
use buoy_model::limits::GROUPS_MAX;
use buoy_model::{
    Action, Claim, Grant, Instant, ListVersion, Message, MessageKind, NodeId, Rest, Safety,
    Sequence, SharedLease, Verdict, WireVersion,
};
use core::time::Duration;

/// The answer to the heartbeat that was heard last.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) version: WireVersion,
    pub(crate) answered: Sequence,
    pub(crate) list: ListVersion,
    pub(crate) rest: Rest,
    pub(crate) grants: Vec<Grant>,
}

/// Lists that are filled and emptied within one step; kept for their room.
#[derive(Clone, Debug)]
pub(crate) struct Scratch {
    pub(crate) claims: Vec<Claim>,
    grants: Vec<Grant>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { claims: Vec::with_capacity(GROUPS_MAX), grants: Vec::with_capacity(GROUPS_MAX) }
    }
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            version: WireVersion::default(),
            answered: Sequence(0),
            list: ListVersion(0),
            rest: Rest::default(),
            grants: Vec::with_capacity(GROUPS_MAX),
        }
    }
}

impl Node {
    /// Fills in the datagram that an `Action::Heartbeat`, `Answer` or `PrepareGoodbye` speaks of. To be
    /// called for each such action before the next event is handled, with the time before it is sent.
    pub fn compose(
        &mut self,
        now: Instant,
        action: &Action,
        message: &mut Message,
    ) -> Option<NodeId> {
        let (to, kind) = match action {
            Action::Heartbeat { to } => (*to, MessageKind::Heartbeat),
            Action::Answer { to } => (*to, MessageKind::Answer),
            Action::PrepareGoodbye { to } => (*to, MessageKind::Goodbye),
            Action::Fence { .. }
            | Action::Renew { .. }
            | Action::AddAddress { .. }
            | Action::RemoveAddress { .. }
            | Action::Announce { .. }
            | Action::Advertise { .. }
            | Action::Record(_)
            | Action::Stopped => return None,
        };
        let at = self.peers.iter().position(|p| p.id == to)?;
        message.claims.clear();
        message.grants.clear();
        message.repeats = false;
        message.rest = Rest::Unsaid;
        match kind {
            MessageKind::Heartbeat => {
                let sequence = self.address(at, kind, message);
                self.claim(at, message);
                self.peers[at].note_sent(sequence, now, message.term);
            }
            MessageKind::Answer => {
                self.address(at, kind, message);
                message.version = self.reply.version;
                message.answered = self.reply.answered;
                message.list = self.reply.list;
                message.rest = self.reply.rest;
                message.grants.extend_from_slice(&self.reply.grants);
            }
            MessageKind::Goodbye => {
                self.address(at, kind, message);
                message.version = WireVersion::V2;
                // The last word of this life, whatever is said before it.
                message.header.sequence = Sequence(u64::MAX);
            }
        }
        Some(to)
    }

    fn address(&mut self, at: usize, kind: MessageKind, message: &mut Message) -> Sequence {
        self.sequence.0 += 1;
        let peer = &self.peers[at];
        let header = &mut message.header;
        header.cluster = self.desired.cluster;
        header.from = self.desired.me;
        header.to = peer.id;
        header.incarnation = self.settings.incarnation;
        header.peer_incarnation = peer.incarnation().unwrap_or_default();
        header.sequence = self.sequence;
        header.challenge = peer.challenge;
        header.echo = peer.echo;
        message.kind = kind;
        self.sequence
    }

    fn claim(&mut self, at: usize, message: &mut Message) {
        message.draining = self.draining.is_some() || self.is_stopping();
        message.digest = self.desired.digest;
        message.term = self.term();
        message.version = self.peers[at].speak();
        match message.version {
            WireVersion::V1 => message.list = ListVersion(0),
            WireVersion::V2 => {
                message.list = self.list;
                message.repeats = self.peers[at].knows == self.list;
            }
        }
        if !message.repeats {
            message.claims.extend_from_slice(&self.said);
        }
    }

    /// What this node says of its groups now: a new list if anything is different.
    fn say(&mut self, now: Instant) {
        if !core::mem::take(&mut self.unsaid) {
            return;
        }
        let before = core::mem::take(&mut self.said);
        let mut said = core::mem::take(&mut self.scratch.claims);
        said.clear();
        said.extend((0..self.owned.len()).filter_map(|i| self.claim_of(now, i)));
        if said != before || self.list == ListVersion(0) {
            self.list.0 += 1;
        }
        self.said = said;
        self.scratch.claims = before;
    }

    /// Asks our own vote and everybody else's.
    pub(crate) fn speak(&mut self, now: Instant, out: &mut Vec<Action>) {
        let before = self.loop_until;
        self.loop_until = lease_end(now, self.tempo.term(self.desired.timing));
        if self.sharers.looped {
            self.renewed.note(now, Safety::Available, before);
            out.push(Action::Renew { lease: SharedLease::Loop, until: self.loop_until });
        }
        self.say(now);
        let refused_for = self.ask_own_vote(now);
        self.recount(now, out);
        // What the count changed is in this very heartbeat.
        self.say(now);
        self.news = false;
        self.settle_pace(now, now < self.beat_at);
        self.peers.iter().for_each(|p| out.push(Action::Heartbeat { to: p.id }));
        self.beat_at = now + self.interval();
        self.ask_again(now, refused_for);
    }

    /// The voter in this node is asked like any other; how long it refuses, if it does.
    fn ask_own_vote(&mut self, now: Instant) -> Duration {
        let me = self.me();
        // A round of its own, so that a node without peers has rounds too.
        self.sequence.0 += 1;
        let round = self.sequence;
        let silent = self.voter.silent_until().since(now);
        if !silent.is_zero() {
            return silent;
        }
        self.renewals.add(self.me, round, lease_end(now, me.term));
        if self.voter.repeat(now, me, self.list) {
            return Duration::MAX;
        }
        let mut grants = core::mem::take(&mut self.scratch.grants);
        self.voter.hear(now, me, self.list, &self.said, &mut grants);
        let mut refused_for = Duration::MAX;
        for grant in &grants {
            let Some(i) = self.desired.group_index(grant.group) else { continue };
            let refused = match grant.verdict {
                Verdict::Granted => None,
                Verdict::Promised { remaining, .. } | Verdict::Silent { remaining } => {
                    Some(remaining)
                }
            };
            if self.desired.groups[i].safety == Safety::Exclusive {
                refused_for = refused_for.min(refused.unwrap_or(Duration::MAX));
            }
            if let Some(votes) = self.owned[i].votes_mut() {
                votes.except(self.me, refused.is_some());
            }
        }
        self.scratch.grants = grants;
        refused_for
    }

    /// Renews the lease that the groups share, and looks at those that do not share it (yet).
    pub(crate) fn recount(&mut self, now: Instant, out: &mut Vec<Action>) {
        let desired = Arc::clone(&self.desired);
        let before = self.renewals.shared_until;
        let later = self.renewals.renew(self.shares_from(&desired));
        if later && self.sharers.majority {
            self.renewed.note(now, Safety::Exclusive, before);
            let until = self.renewals.shared_until;
            out.push(Action::Renew { lease: SharedLease::Majority, until });
        }
        if !self.counts {
            return;
        }
        self.counts = false;
        for i in 0..desired.groups.len() {
            if self.owned[i].has_own_lease() {
                self.counts = true;
                self.count(now, &desired, i, out);
            }
        }
    }
}
