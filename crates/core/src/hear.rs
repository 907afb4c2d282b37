//! Takes what a peer says: its session first, then its claims or its verdicts.

use crate::Node;
use crate::ownership::State;
use crate::peer::Reception;
use crate::voter::Asker;
use crate::votes::lease_end;
use alloc::sync::Arc;
use alloc::vec::Vec;
use buoy_model::{Action, Fact, Instant, Leg, Message, MessageKind, NodeId, Record, Verdict};
use core::time::Duration;

impl Node {
    /// A datagram of a peer: its session first, then what it says.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        message: &Message,
        _leg: Leg,
        out: &mut Vec<Action>,
    ) {
        let Some(at) = self.peers.iter().position(|p| p.id == message.header.from) else {
            self.ignored.stranger += 1;
            return;
        };
        let stale_too = self.accepts_stale();
        let (kind, header) = (message.kind, &message.header);
        let reception = self.peers[at].receive(now, kind, header, stale_too, &mut self.random);
        let node = self.peers[at].id;
        match reception {
            // An answer counts from when it was asked for, however late it is; but it is no sign of life.
            Reception::Late if message.kind == MessageKind::Answer => {}
            Reception::Late => {
                self.ignored.stale += 1;
                return;
            }
            Reception::Unproven => {
                self.ignored.unproven += 1;
                return;
            }
            Reception::Duplicate => {
                self.ignored.duplicate += 1;
                let fact = Fact::DuplicateNode { node };
                out.push(Action::Record(Record { at: now, group: None, fact }));
                if self.peers[at].incarnation() != Some(message.header.incarnation) {
                    return;
                }
            }
            Reception::Begins => {
                let incarnation = message.header.incarnation;
                let fact = Fact::PeerUp { node, incarnation };
                out.push(Action::Record(Record { at: now, group: None, fact }));
                self.announce_again(now);
                self.unsettled = true;
            }
            Reception::Fresh => {}
        }
        match message.kind {
            MessageKind::Heartbeat => self.hear_heartbeat(now, at, message, out),
            MessageKind::Answer => self.hear_answer(now, at, message, out),
            MessageKind::Goodbye => {}
        }
    }

    fn hear_heartbeat(
        &mut self,
        now: Instant,
        at: usize,
        message: &Message,
        out: &mut Vec<Action>,
    ) {
        let peer = &mut self.peers[at];
        let asker =
            Asker { node: peer.id, incarnation: message.header.incarnation, term: message.term };
        if peer.take_claims(now, message) {
            self.unsettled = true;
            self.watch_owners(now, at, out);
        }
        self.voter.hear(now, asker, &message.claims, &mut self.grants);
        self.answered = message.header.sequence;
        out.push(Action::Answer { to: asker.node });
    }

    fn hear_answer(&mut self, now: Instant, at: usize, message: &Message, out: &mut Vec<Action>) {
        let Some(sent) = self.peers[at].take_answer(now, message.answered) else { return };
        let index = self.peers[at].index;
        let end = lease_end(self.counts_from(sent.at, now), sent.term);
        let end = self.with_drift_margin(end);
        let desired = Arc::clone(&self.desired);
        for grant in &message.grants {
            let Some(i) = desired.group_index(grant.group) else { continue };
            let ownership = &mut self.owned[i];
            ownership.epoch = ownership.epoch.max(grant.epoch);
            match grant.verdict {
                Verdict::Granted => {
                    if let Some(votes) = ownership.votes_mut() {
                        votes.add(index, message.answered, end);
                    }
                    self.count(now, &desired, i, out);
                }
                Verdict::Promised { to, remaining } => self.refused(now, i, to, remaining),
                Verdict::Silent { remaining } => {
                    self.peers[at].silent_until = now + remaining;
                    self.ask_again(now, remaining);
                }
            }
        }
    }

    /// A voter has promised the group to another: ask when that ends; step back from a tie.
    fn refused(&mut self, now: Instant, i: usize, to: NodeId, remaining: Duration) {
        let term = self.term();
        let State::Wanting { since, .. } = &self.owned[i].state else { return };
        let since = *since;
        self.ask_again(now, remaining);
        let rival_asks = to != self.desired.me
            && self
                .peers
                .iter()
                .any(|p| p.id == to && p.serves(self.desired.groups[i].id).is_none());
        if rival_asks && now.since(since) > term * 2 {
            let nanos = u64::try_from(term.as_nanos()).unwrap_or(u64::MAX).max(1);
            let pause = term + Duration::from_nanos(self.random.next() % (2 * nanos));
            self.owned[i].step_back(now + pause);
            self.voter.give_back(self.me(), self.desired.groups[i].id);
            self.news = true;
        }
    }

    pub(crate) fn ask_again(&mut self, now: Instant, remaining: Duration) {
        // Not sooner than a fifth of a beat, or a refusal would echo to and fro.
        let at = now + remaining.max(self.desired.timing.heartbeat / 5);
        if at < self.beat_at {
            self.ask_again_at = Some(self.ask_again_at.map_or(at, |known| known.min(at)));
        }
    }
}
