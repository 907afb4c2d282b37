//! Takes what a peer says: its session first, then its claims or its verdicts.

use crate::Node;
use crate::ownership::{Ownership, State};
use crate::peer::Reception;
use crate::voter::Asker;
use crate::votes::lease_end;
use alloc::sync::Arc;
use alloc::vec::Vec;
use buoy_model::{
    Action, Claim, ClaimKind, Desired, Fact, Grant, Instant, Leg, ListVersion, Message,
    MessageKind, NodeId, Record, Rest, Safety, Verdict, WireVersion,
};
use core::time::Duration;

impl Node {
    /// A datagram of a peer: its session first, then what it says.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        message: &Message,
        leg: Leg,
        out: &mut Vec<Action>,
    ) {
        let Some(at) = self.peers.iter().position(|p| p.id == message.header.from) else {
            self.ignored.stranger += 1;
            return;
        };
        if !self.is_for_this_life(at, message) {
            self.ignored.stale += 1;
            return;
        }
        self.legs.heard(leg, self.peers[at].index, now);
        let stale_too = self.accepts_stale();
        let (kind, header) = (message.kind, &message.header);
        let reception = match kind {
            MessageKind::Goodbye => return self.hear_goodbye(now, at, out),
            MessageKind::Heartbeat | MessageKind::Answer => {
                self.peers[at].receive(now, kind, header, stale_too, &mut self.random)
            }
        };
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
                // A new life is met at the usual pace: what it must echo is in our heartbeats.
                self.stir(now);
                return;
            }
            Reception::Duplicate => {
                self.ignored.duplicate += 1;
                let fact = Fact::DuplicateNode { node };
                out.push(Action::Record(Record { at: now, group: None, fact }));
                if self.peers[at].incarnation() != Some(message.header.incarnation) {
                    return;
                }
                self.begin(now, at, out);
            }
            Reception::Begins => {
                let incarnation = message.header.incarnation;
                let fact = Fact::PeerUp { node, incarnation };
                out.push(Action::Record(Record { at: now, group: None, fact }));
                self.begin(now, at, out);
            }
            Reception::Fresh => {}
        }
        if self.peers[at].note_version(message.version) {
            out.push(Action::PrepareGoodbye { to: node });
        }
        match message.kind {
            MessageKind::Heartbeat => self.hear_heartbeat(now, at, message, out),
            MessageKind::Answer => self.hear_answer(now, at, message, out),
            MessageKind::Goodbye => {}
        }
    }

    /// An answer to an earlier life of ours is none to this one, and a goodbye ends the life that it
    /// was made in.
    fn is_for_this_life(&self, at: usize, message: &Message) -> bool {
        let is_ours = message.header.peer_incarnation == self.settings.incarnation;
        match message.kind {
            MessageKind::Heartbeat => true,
            MessageKind::Answer => is_ours,
            MessageKind::Goodbye => {
                let is_theirs = self.peers[at].incarnation() == Some(message.header.incarnation);
                is_ours && is_theirs || self.believes_any_goodbye()
            }
        }
    }

    /// A session begins: what was agreed in another one is over.
    fn begin(&mut self, now: Instant, at: usize, out: &mut Vec<Action>) {
        self.announce_again(now);
        self.shuffle(now, out);
        self.stir(now);
        self.unsettled = true;
        // Whoever is heard says at once what it serves, and the others follow within a term.
        self.listening_until = self.listening_until.min(now + self.silence());
        let peer = &self.peers[at];
        if peer.knows_goodbyes() {
            out.push(Action::PrepareGoodbye { to: peer.id });
        }
    }

    /// The agent of a peer is dead, and nothing answers for its addresses any more.
    fn hear_goodbye(&mut self, now: Instant, at: usize, out: &mut Vec<Action>) {
        let peer = &self.peers[at];
        let (node, incarnation) = (peer.id, peer.incarnation().unwrap_or_default());
        self.voter.give_back_all(Asker { node, incarnation, term: Duration::ZERO });
        if peer.is_alive() {
            self.mourn(now, at, out);
        }
        self.peers[at].farewell(now);
        self.beat_now();
    }

    fn hear_heartbeat(
        &mut self,
        now: Instant,
        at: usize,
        message: &Message,
        out: &mut Vec<Action>,
    ) {
        let timing = self.desired.timing;
        let peer = &mut self.peers[at];
        // What it says of backends counts from when on it has the same file.
        self.unsettled |= peer.digest != Some(message.digest);
        let asker =
            Asker { node: peer.id, incarnation: message.header.incarnation, term: message.term };
        if let Some(gap) = peer.take_beat(now, message).filter(|gap| *gap <= timing.lease_max) {
            self.tempo.gap(now, timing, gap);
        }
        let is_known = !message.repeats || peer.list == message.list;
        let mut changed = peer.take_draining(message.draining);
        if !message.repeats {
            changed |= peer.take_claims(now, message);
        }
        if changed {
            self.unsettled = true;
            self.watch_owners(now, at, out);
            self.hand_over(now, at, out);
            // What it has given back can be asked for at once.
            self.news |= self.owned.iter().any(Ownership::is_wanting);
        }
        self.reply.version = message.version;
        self.reply.answered = message.header.sequence;
        self.reply.list = message.list;
        self.reply.rest = self.vote(now, at, asker, message, is_known);
        out.push(Action::Answer { to: asker.node });
    }

    /// Asks the voter for what a heartbeat asks for; the verdicts are in `reply.grants`.
    fn vote(
        &mut self,
        now: Instant,
        at: usize,
        asker: Asker,
        message: &Message,
        is_known: bool,
    ) -> Rest {
        let grants = &mut self.reply.grants;
        grants.clear();
        let is_credulous = message.repeats && self.voter.repeat(now, asker, message.list);
        if is_credulous {
            return Rest::Granted;
        }
        if !is_known {
            return Rest::Unknown;
        }
        if message.repeats {
            // Not granted whole the last time: group by group again.
            let claims = &mut self.scratch.claims;
            claims.clear();
            claims.extend(self.peers[at].offers.iter().map(|o| o.claim));
            self.voter.hear(now, asker, message.list, claims, grants);
            return rest(self.voter.silent_until().since(now), message.version, claims, grants);
        }
        self.voter.hear(now, asker, message.list, &message.claims, grants);
        rest(self.voter.silent_until().since(now), message.version, &message.claims, grants)
    }

    /// The successor of a group that this node yields is ready: it may have it.
    fn hand_over(&mut self, now: Instant, at: usize, out: &mut Vec<Action>) {
        let desired = Arc::clone(&self.desired);
        let successor = self.peers[at].id;
        for i in 0..desired.groups.len() {
            if self.owned[i].yields_to() == successor {
                self.hand_over_if_wanted(now, &desired, i, out);
            }
        }
    }

    /// Gives a group up that this node yields, if its successor asks for it.
    pub(crate) fn hand_over_if_wanted(
        &mut self,
        now: Instant,
        desired: &Desired,
        i: usize,
        out: &mut Vec<Action>,
    ) {
        let id = desired.groups[i].id;
        let Some(yielding) = self.owned[i].holding().and_then(|h| h.yielding.as_ref()) else {
            return;
        };
        let wants = |kind| kind == ClaimKind::Wants;
        let mut successors = self.peers.iter().filter(|p| p.id == yielding.to && p.is_alive());
        let is_ready = successors.any(|p| p.offer(id).is_some_and(|o| wants(o.claim.kind)));
        if is_ready {
            let cause = yielding.cause.clone();
            let context = self.context(now, desired, i);
            self.owned[i].hand_over(context, cause, out);
            self.voter.give_back(self.me(), id);
            self.look_again();
            self.beat_now();
        }
    }

    fn hear_answer(&mut self, now: Instant, at: usize, message: &Message, out: &mut Vec<Action>) {
        let Some(sent) = self.peers[at].take_answer(now, message.answered) else { return };
        let timing = self.desired.timing;
        let asked_seldom = self.rests();
        let gap = self.peers[at].note_answer(now).filter(|_| !asked_seldom);
        if let Some(gap) = gap.filter(|gap| *gap <= timing.lease_max) {
            self.tempo.gap(now, timing, gap);
        }
        let end = lease_end(self.counts_from(sent.at, now), sent.term);
        let end = self.with_drift_margin(end);
        let index = self.peers[at].index;
        match message.rest {
            Rest::Unsaid => self.take_grants(now, at, message, end, out),
            // What an overtaken answer excepts, or does not, is no news of today.
            Rest::Granted if !self.renewals.is_news(index, message.answered) => {}
            Rest::Granted => {
                self.except(now, at, message, out);
                self.renewals.add(index, message.answered, end);
                self.peers[at].knows = message.list;
                self.recount(now, out);
            }
            Rest::Unknown => {
                self.peers[at].knows = ListVersion(0);
                self.news = true;
            }
            Rest::Silent { remaining } => {
                self.peers[at].knows = message.list;
                self.peers[at].silent_until = now + remaining;
                self.ask_again(now, remaining);
            }
        }
    }

    /// The verdicts of an answer that lists them all.
    fn take_grants(
        &mut self,
        now: Instant,
        at: usize,
        message: &Message,
        end: Instant,
        out: &mut Vec<Action>,
    ) {
        let index = self.peers[at].index;
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
                Verdict::Promised { to, remaining } => self.refused(now, i, to, remaining, out),
                Verdict::Silent { remaining } => {
                    self.peers[at].silent_until = now + remaining;
                    self.ask_again(now, remaining);
                }
            }
        }
    }

    /// The verdicts of an answer that grants the rest: these groups are not part of it.
    fn except(&mut self, now: Instant, at: usize, message: &Message, out: &mut Vec<Action>) {
        let index = self.peers[at].index;
        let had_exceptions = core::mem::take(&mut self.peers[at].has_exceptions);
        let desired = Arc::clone(&self.desired);
        if had_exceptions {
            for votes in self.owned.iter_mut().filter_map(Ownership::votes_mut) {
                votes.except(index, false);
            }
            self.look_again();
        }
        for grant in &message.grants {
            let Some(i) = desired.group_index(grant.group) else { continue };
            let context = self.context(now, &desired, i);
            let ownership = &mut self.owned[i];
            ownership.epoch = ownership.epoch.max(grant.epoch);
            // Where no votes are needed, none are missed.
            let is_voted = desired.groups[i].safety == Safety::Exclusive;
            if grant.verdict == Verdict::Granted || !is_voted {
                continue;
            }
            self.peers[at].has_exceptions = true;
            ownership.part(context, out);
            if let Some(votes) = ownership.votes_mut() {
                votes.except(index, true);
            }
            self.look_again();
            match grant.verdict {
                Verdict::Granted => {}
                Verdict::Promised { to, remaining } => self.refused(now, i, to, remaining, out),
                Verdict::Silent { remaining } => self.ask_again(now, remaining),
            }
        }
    }

    /// A voter has promised the group to another: ask when that ends; step back from a tie.
    fn refused(
        &mut self,
        now: Instant,
        i: usize,
        to: NodeId,
        remaining: Duration,
        out: &mut Vec<Action>,
    ) {
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
            let desired = Arc::clone(&self.desired);
            self.owned[i].step_back(&desired.groups[i], now + pause, out);
            self.look_again();
            self.unsaid = true;
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

/// What an answer says of the groups that it does not list. In the second version those are the ones
/// that are granted, and of which the voter knows no later epoch.
fn rest(silent: Duration, version: WireVersion, claims: &[Claim], grants: &mut Vec<Grant>) -> Rest {
    match version {
        WireVersion::V1 => Rest::Unsaid,
        WireVersion::V2 if !silent.is_zero() => {
            grants.clear();
            Rest::Silent { remaining: silent }
        }
        WireVersion::V2 => {
            let claimed = |group| claims.binary_search_by_key(&group, |c| c.group);
            grants.retain(|g| {
                let is_news = |i: usize| claims[i].epoch < g.epoch;
                g.verdict != Verdict::Granted || claimed(g.group).is_ok_and(is_news)
            });
            Rest::Granted
        }
    }
}
