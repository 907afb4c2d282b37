//! Says what this node claims and grants: fills in the datagrams, and asks for votes.

use crate::Node;
use crate::votes::lease_end;
use alloc::sync::Arc;
use alloc::vec::Vec;
use buoy_model::{Action, Claim, Instant, Message, MessageKind, NodeId, Safety, Sequence, Verdict};
use core::time::Duration;

impl Node {
    /// Fills in the datagram that an `Action::Heartbeat` or `Action::Answer` speaks of. To be called
    /// for each such action before the next event is handled, with the time before it is sent.
    pub fn compose(
        &mut self,
        now: Instant,
        action: &Action,
        message: &mut Message,
    ) -> Option<NodeId> {
        let (to, kind) = match action {
            Action::Heartbeat { to } => (*to, MessageKind::Heartbeat),
            Action::Answer { to, .. } => (*to, MessageKind::Answer),
            Action::PrepareGoodbye { to } => (*to, MessageKind::Goodbye),
            Action::Fence { .. }
            | Action::Renew { .. }
            | Action::AddAddress { .. }
            | Action::RemoveAddress { .. }
            | Action::Announce { .. }
            | Action::Record(_)
            | Action::Stopped => return None,
        };
        let at = self.peers.iter().position(|p| p.id == to)?;
        self.sequence.0 += 1;
        let sequence = self.sequence;
        self.address(at, kind, message);
        match kind {
            MessageKind::Heartbeat => {
                self.claim(now, message);
                self.peers[at].note_sent(sequence, now, message.term);
            }
            MessageKind::Answer => {
                message.claims.clear();
                message.answered = self.answered;
                message.grants.clear();
                message.grants.extend_from_slice(&self.grants);
            }
            MessageKind::Goodbye => {
                message.claims.clear();
                message.grants.clear();
            }
        }
        Some(to)
    }

    fn address(&self, at: usize, kind: MessageKind, message: &mut Message) {
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
    }

    fn claim(&self, now: Instant, message: &mut Message) {
        message.draining = self.draining.is_some() || self.is_stopping();
        message.digest = self.desired.digest;
        message.term = self.term();
        message.grants.clear();
        message.claims.clear();
        for (group, ownership) in self.desired.groups.iter().zip(&self.owned) {
            let kind = ownership.claim();
            if !kind.asks() && (!self.is_able(group) || !self.is_open(now)) {
                continue;
            }
            message.claims.push(Claim::new(group.id, kind, ownership.epoch));
        }
    }

    /// Asks our own vote and everybody else's.
    pub(crate) fn speak(&mut self, now: Instant, out: &mut Vec<Action>) {
        let desired = Arc::clone(&self.desired);
        let me = self.me();
        let end = lease_end(now, me.term);
        let next = Sequence(self.sequence.0 + 1);
        let mut refused_for = Duration::MAX;
        for (i, group) in desired.groups.iter().enumerate() {
            if !self.owned[i].claim().asks() {
                continue;
            }
            if group.safety == Safety::Exclusive {
                let epoch = self.owned[i].epoch;
                match self.voter.ask(now, me, group.id, epoch) {
                    Verdict::Granted => {
                        let votes = self.owned[i].votes_mut();
                        votes.map(|v| v.add(self.me, next, end)).unwrap_or_default();
                    }
                    Verdict::Promised { remaining, .. } | Verdict::Silent { remaining } => {
                        refused_for = refused_for.min(remaining);
                    }
                }
            }
            self.count(now, &desired, i, out);
        }
        // What the count changed is in this very heartbeat.
        self.news = false;
        self.peers.iter().for_each(|p| out.push(Action::Heartbeat { to: p.id }));
        self.beat_at = now + desired.timing.heartbeat;
        self.ask_again(now, refused_for);
    }
}
