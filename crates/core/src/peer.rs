//! What this node knows of one peer: its life, whether it is heard, what it claims.
//!
//! A datagram counts when it belongs to the session and is newer than the last one. A session with a
//! new incarnation begins only when the datagram echoes our challenge, which is fresh for every
//! session: a recording of an earlier life cannot know it. No clock and no memory of the past is needed.

use crate::random::Random;
use crate::status::Beats;
use alloc::vec::Vec;
use buoy_model::limits::STRANGERS_MAX;
use buoy_model::{
    Claim, ClaimKind, GroupId, Header, Incarnation, Instant, ListVersion, Message, MessageKind,
    NodeId, Sequence, WireVersion,
};
use core::time::Duration;

/// Heartbeats in flight whose answers still count.
const SENT_MAX: usize = 64;
/// What was sent before says nothing of how the path is now.
const LATELY: Duration = Duration::from_secs(10);
const _: () = assert!(SENT_MAX <= u8::MAX as usize);
/// A node that knows the second version has said so within so many datagrams.
const FIRST_VERSION_AFTER: u32 = 8;

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    /// Its place in `Desired::nodes`.
    pub(crate) index: usize,
    session: Session,
    /// What it must echo before its next new incarnation is believed.
    pub(crate) challenge: u64,
    /// What it wants to be echoed.
    pub(crate) echo: u64,
    pub(crate) draining: bool,
    pub(crate) digest: Option<u32>,
    /// The term that it asked for last.
    pub(crate) term: Duration,
    /// What it said last of each group, sorted by group.
    pub(crate) offers: Vec<Offer>,
    /// It asks for votes for one of them.
    asks: bool,
    /// Which list of its claims that is.
    pub(crate) list: ListVersion,
    /// Which list of ours it knows.
    pub(crate) knows: ListVersion,
    /// Groups of ours that its last answer excepted.
    pub(crate) has_exceptions: bool,
    speech: Speech,
    /// When its last heartbeat came in.
    beat_heard_at: Option<Instant>,
    /// Our latest heartbeats to it.
    sent: [Sent; SENT_MAX],
    pub(crate) round_trip: Option<Duration>,
    answered_at: Option<Instant>,
    /// Until when it said that it grants nothing.
    pub(crate) silent_until: Instant,
    before: Incarnation,
    /// A life that spoke without proof: its last datagram, and how many there were.
    stranger: (Incarnation, Sequence, u32),
}

/// Which form of the wire format it has shown to know in this session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Speech {
    /// Not the second one yet; it was heard so often in the first. It is spoken to in both by turns.
    Unknown {
        heard: u32,
        turn: WireVersion,
    },
    Knows(WireVersion),
}

/// A claim with its age.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Offer {
    pub(crate) claim: Claim,
    /// Since when it offers itself for the group.
    pub(crate) since: Instant,
    /// Since when the claim is of this kind.
    pub(crate) kind_since: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Session {
    Unknown,
    Up { incarnation: Incarnation, newest: Newest, heard_at: Instant },
    Down { incarnation: Incarnation, newest: Newest, heard_at: Instant },
}

/// The newest datagram of each kind. They are counted apart: an answer that overtakes a heartbeat on
/// the way makes it no older, and nodes that beat in phase would lose several in a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Newest {
    heartbeat: Sequence,
    answer: Sequence,
}

/// What a datagram turned out to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reception {
    /// Of the session and new.
    Fresh,
    /// The first of a session.
    Begins,
    /// Of the session, but overtaken by a newer one.
    Late,
    /// Of a life that has not proven itself yet.
    Unproven,
    /// Of a second agent under this name.
    Duplicate,
}

/// A heartbeat of ours, as far as its answer needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    sequence: Sequence,
    pub(crate) at: Instant,
    /// What it asked for; a reload may have changed the term since.
    pub(crate) term: Duration,
    answered: bool,
}

impl Peer {
    pub(crate) fn new(id: NodeId, index: usize, random: &mut Random) -> Self {
        Self {
            id,
            index,
            session: Session::Unknown,
            challenge: random.next() | 1,
            echo: 0,
            draining: false,
            digest: None,
            term: Duration::ZERO,
            offers: Vec::new(),
            asks: false,
            list: ListVersion(0),
            knows: ListVersion(0),
            has_exceptions: false,
            speech: Speech::NEW,
            beat_heard_at: None,
            sent: [Sent::NOTHING; SENT_MAX],
            round_trip: None,
            answered_at: None,
            silent_until: Instant::ZERO,
            before: Incarnation(0),
            stranger: (Incarnation(0), Sequence(0), 0),
        }
    }

    /// Takes the header of an authentic datagram.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        kind: MessageKind,
        header: &Header,
        accept_stale: bool,
        random: &mut Random,
    ) -> Reception {
        match self.session {
            Session::Up { incarnation, mut newest, heard_at }
                if incarnation == header.incarnation =>
            {
                let is_latest = newest.is_before(header.sequence);
                if !newest.advance(kind, header.sequence) && !accept_stale {
                    return Reception::Late;
                }
                if is_latest {
                    self.begin(now, header, newest);
                } else {
                    // Overtaken by one of the other kind: it counts, and is no sign of life.
                    self.session = Session::Up { incarnation, newest, heard_at };
                }
                Reception::Fresh
            }
            Session::Down { incarnation, mut newest, .. } if incarnation == header.incarnation => {
                if !newest.is_before(header.sequence) && !accept_stale {
                    return Reception::Late;
                }
                newest.advance(kind, header.sequence);
                // What it said before the silence is no news of today.
                self.forget();
                self.begin(now, header, newest);
                Reception::Begins
            }
            Session::Unknown | Session::Up { .. } | Session::Down { .. } => {
                self.meet(now, header, random)
            }
        }
    }

    /// A life that is not the session's: believed when it knows our challenge.
    fn meet(&mut self, now: Instant, header: &Header, random: &mut Random) -> Reception {
        if header.echo != self.challenge {
            self.echo = header.challenge;
            return self.count_stranger(header);
        }
        let again = header.incarnation == self.before;
        if let Some(incarnation) = self.incarnation() {
            self.before = incarnation;
        }
        self.challenge = random.next() | 1;
        self.stranger = (Incarnation(0), Sequence(0), 0);
        self.forget();
        self.speech = Speech::NEW;
        self.sent = [Sent::NOTHING; SENT_MAX];
        let (heartbeat, answer) = (header.sequence, header.sequence);
        self.begin(now, header, Newest { heartbeat, answer });
        // A life that ended does not come back: two agents take turns under one name.
        if again { Reception::Duplicate } else { Reception::Begins }
    }

    /// One that speaks on and on beside the session, and can never prove itself, is a second agent.
    fn count_stranger(&mut self, header: &Header) -> Reception {
        let (incarnation, sequence, count) = self.stranger;
        if incarnation != header.incarnation {
            self.stranger = (header.incarnation, header.sequence, 1);
            return Reception::Unproven;
        }
        if header.sequence <= sequence || !self.is_alive() {
            return Reception::Unproven;
        }
        let told = count + 1 == STRANGERS_MAX;
        self.stranger = (incarnation, header.sequence, if told { 0 } else { count + 1 });
        if told { Reception::Duplicate } else { Reception::Unproven }
    }

    fn begin(&mut self, now: Instant, header: &Header, newest: Newest) {
        self.echo = header.challenge;
        self.session = Session::Up { incarnation: header.incarnation, newest, heard_at: now };
    }

    /// A session begins: of the one before, or of another life, nothing counts.
    fn forget(&mut self) {
        self.offers.clear();
        self.asks = false;
        self.list = ListVersion(0);
        self.knows = ListVersion(0);
        self.beat_heard_at = None;
        self.answered_at = None;
    }

    /// Its agent is dead, by its own last words: nothing of this life counts any more.
    pub(crate) fn farewell(&mut self, now: Instant) {
        let Some(incarnation) = self.incarnation() else { return };
        let (heartbeat, answer) = (Sequence(u64::MAX), Sequence(u64::MAX));
        let newest = Newest { heartbeat, answer };
        let heard_at = self.heard_at().unwrap_or(now);
        self.session = Session::Down { incarnation, newest, heard_at };
        self.forget();
    }

    /// Takes what a heartbeat says, but for its claims; the gap since the one before, in a session.
    pub(crate) fn take_beat(&mut self, now: Instant, message: &Message) -> Option<Duration> {
        self.digest = Some(message.digest);
        self.term = message.term;
        let before = self.beat_heard_at.replace(now);
        // How often one at rest speaks says nothing of the network.
        before.filter(|_| !self.may_rest()).map(|at| now.since(at))
    }

    /// Notes in which form it speaks; true at the first datagram of the second one.
    pub(crate) fn note_version(&mut self, version: WireVersion) -> bool {
        match (&mut self.speech, version) {
            (Speech::Knows(WireVersion::V2), WireVersion::V1 | WireVersion::V2) => false,
            (Speech::Unknown { .. } | Speech::Knows(WireVersion::V1), WireVersion::V2) => {
                self.speech = Speech::Knows(WireVersion::V2);
                true
            }
            (Speech::Unknown { heard, .. }, WireVersion::V1) => {
                *heard += 1;
                if *heard >= FIRST_VERSION_AFTER {
                    self.speech = Speech::Knows(WireVersion::V1);
                }
                false
            }
            (Speech::Knows(WireVersion::V1), WireVersion::V1) => false,
        }
    }

    /// Whether it can be told goodbye.
    pub(crate) const fn knows_goodbyes(&self) -> bool {
        matches!(self.speech, Speech::Knows(WireVersion::V2))
    }

    /// In which form to send it the next heartbeat.
    pub(crate) const fn speak(&mut self) -> WireVersion {
        match &mut self.speech {
            Speech::Knows(version) => *version,
            Speech::Unknown { turn, .. } => {
                let next = match turn {
                    WireVersion::V1 => WireVersion::V2,
                    WireVersion::V2 => WireVersion::V1,
                };
                core::mem::replace(turn, next)
            }
        }
    }

    /// Takes whether it drains; true when that is new.
    pub(crate) const fn take_draining(&mut self, draining: bool) -> bool {
        core::mem::replace(&mut self.draining, draining) != draining
    }

    /// Takes the claims of a heartbeat; whether anything is different from before.
    pub(crate) fn take_claims(&mut self, now: Instant, message: &Message) -> bool {
        let mut changed = false;
        self.list = message.list;
        self.asks = message.claims.iter().any(|claim| claim.kind.asks());
        if self.offers.len() == message.claims.len() {
            for (offer, claim) in self.offers.iter_mut().zip(&message.claims) {
                changed |= offer.update(now, claim);
            }
            return changed;
        }
        let before = core::mem::take(&mut self.offers);
        for claim in &message.claims {
            let known = before.binary_search_by_key(&claim.group, |o| o.claim.group);
            let mut offer = known.map(|i| before[i]).unwrap_or(Offer {
                claim: *claim,
                since: now,
                kind_since: now,
            });
            offer.update(now, claim);
            self.offers.push(offer);
        }
        true
    }

    /// What it said last of a group.
    pub(crate) fn offer(&self, group: GroupId) -> Option<&Offer> {
        let i = self.offers.binary_search_by_key(&group, |o| o.claim.group).ok()?;
        Some(&self.offers[i])
    }

    /// What it serves, as far as it was heard lately.
    pub(crate) fn serves(&self, group: GroupId) -> Option<&Offer> {
        if !self.is_alive() {
            return None;
        }
        self.offer(group).filter(|o| o.claim.kind.serves())
    }

    /// Remembers a heartbeat: votes count from when it was sent, for the term that it asked for.
    pub(crate) fn note_sent(&mut self, sequence: Sequence, at: Instant, term: Duration) {
        self.sent[slot(sequence)] = Sent { sequence, at, term, answered: false };
    }

    /// The heartbeat that is answered; `None` when it is too old to matter.
    pub(crate) fn take_answer(&mut self, now: Instant, answered: Sequence) -> Option<Sent> {
        let sent = &mut self.sent[slot(answered)];
        if sent.sequence != answered || answered == Sequence(0) {
            return None;
        }
        sent.answered = true;
        self.round_trip = Some(now.since(sent.at));
        Some(*sent)
    }

    /// How many of the latest heartbeats to it went unanswered, of those that had the time to be answered.
    pub(crate) fn unanswered(&self, now: Instant, patience: Duration) -> Beats {
        let is_due = |sent: &&Sent| {
            let age = now.since(sent.at);
            sent.sequence != Sequence(0) && patience <= age && age <= LATELY
        };
        let mut beats = Beats { sent: 0, unanswered: 0 };
        for sent in self.sent.iter().filter(is_due) {
            beats.sent += 1;
            beats.unanswered += u8::from(!sent.answered);
        }
        beats
    }

    /// Notes that it answers; the gap since the answer before, in a session.
    pub(crate) fn note_answer(&mut self, now: Instant) -> Option<Duration> {
        let before = self.answered_at.replace(now);
        before.map(|at| now.since(at))
    }

    /// Declares it gone when it was silent for too long; how long it was silent.
    pub(crate) fn expire(&mut self, now: Instant, silence: Duration) -> Option<Duration> {
        match self.session {
            Session::Up { incarnation, newest, heard_at } if heard_at + silence <= now => {
                self.session = Session::Down { incarnation, newest, heard_at };
                Some(now.since(heard_at))
            }
            Session::Up { .. } | Session::Down { .. } | Session::Unknown => None,
        }
    }

    /// Our own loop came late: what could not be heard meanwhile is not held against the peer.
    pub(crate) fn excuse(&mut self, late: Duration, now: Instant) {
        match &mut self.session {
            Session::Up { heard_at, .. } => *heard_at = (*heard_at + late).min(now),
            Session::Down { .. } | Session::Unknown => {}
        }
    }

    /// It was at rest, as we were, and is not any more: nothing that was not said until now is missing.
    pub(crate) fn spare(&mut self, quiet: Duration, now: Instant) {
        self.excuse(quiet, now);
        let answered_at = self.answered_at.map(|at| (at + quiet).min(now));
        self.answered_at = answered_at;
    }

    /// Whether it may say little, as far as we know it: it serves nothing and asks for nothing.
    pub(crate) const fn may_rest(&self) -> bool {
        self.is_alive() && self.list.0 != 0 && !self.asks
    }

    /// When `expire` is due.
    pub(crate) fn silent_at(&self, silence: Duration) -> Option<Instant> {
        match self.session {
            Session::Up { heard_at, .. } => Some(heard_at + silence),
            Session::Down { .. } | Session::Unknown => None,
        }
    }

    pub(crate) const fn is_alive(&self) -> bool {
        matches!(self.session, Session::Up { .. })
    }

    pub(crate) const fn incarnation(&self) -> Option<Incarnation> {
        match self.session {
            Session::Up { incarnation, .. } | Session::Down { incarnation, .. } => {
                Some(incarnation)
            }
            Session::Unknown => None,
        }
    }

    pub(crate) const fn heard_at(&self) -> Option<Instant> {
        match self.session {
            Session::Up { heard_at, .. } | Session::Down { heard_at, .. } => Some(heard_at),
            Session::Unknown => None,
        }
    }

    /// Whether it answered us within that time.
    pub(crate) fn hears_us(&self, now: Instant, within: Duration) -> bool {
        self.answered_at.is_some_and(|at| now.since(at) <= within)
    }
}

impl Newest {
    /// Whether a datagram comes after all of them.
    fn is_before(self, sequence: Sequence) -> bool {
        self.heartbeat.max(self.answer) < sequence
    }

    /// Takes the next datagram of its kind; false when it is none.
    fn advance(&mut self, kind: MessageKind, sequence: Sequence) -> bool {
        let newest = match kind {
            MessageKind::Heartbeat | MessageKind::Goodbye => &mut self.heartbeat,
            MessageKind::Answer => &mut self.answer,
        };
        let is_newer = *newest < sequence;
        *newest = (*newest).max(sequence);
        is_newer
    }
}

impl Speech {
    const NEW: Self = Self::Unknown { heard: 0, turn: WireVersion::V2 };
}

impl Sent {
    const NOTHING: Self =
        Self { sequence: Sequence(0), at: Instant::ZERO, term: Duration::ZERO, answered: false };
}

impl Offer {
    fn update(&mut self, now: Instant, claim: &Claim) -> bool {
        if self.claim == *claim {
            return false;
        }
        if self.claim.group != claim.group {
            self.since = now;
        }
        if self.claim.group != claim.group || self.claim.kind != claim.kind {
            self.kind_since = now;
        }
        self.claim = *claim;
        true
    }

    /// Whether it has been asking for votes in vain for so long that others may go ahead.
    pub(crate) fn in_vain(&self, now: Instant, patience: Duration) -> bool {
        self.claim.kind == ClaimKind::Wants && now.since(self.kind_since) >= patience
    }
}

const fn slot(sequence: Sequence) -> usize {
    (sequence.0 % SENT_MAX as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_model::ClusterId;

    fn header(incarnation: u64, sequence: u64, echo: u64) -> Header {
        Header {
            cluster: ClusterId(1),
            from: NodeId(2),
            to: NodeId(1),
            incarnation: Incarnation(incarnation),
            peer_incarnation: Incarnation(0),
            sequence: Sequence(sequence),
            challenge: 77,
            echo,
        }
    }

    struct Bench {
        peer: Peer,
        random: Random,
    }

    impl Bench {
        fn new() -> Self {
            let mut random = Random::new(1);
            Self { peer: Peer::new(NodeId(2), 1, &mut random), random }
        }
        fn hear(&mut self, incarnation: u64, sequence: u64, echo: u64) -> Reception {
            let header = header(incarnation, sequence, echo);
            let kind = MessageKind::Heartbeat;
            self.peer.receive(Instant::from_nanos(1), kind, &header, false, &mut self.random)
        }
    }

    #[test]
    fn a_life_is_believed_only_when_it_knows_our_challenge() {
        let mut b = Bench::new();
        assert_eq!(b.hear(5, 1, 0), Reception::Unproven);
        assert!(!b.peer.is_alive());
        assert_eq!(b.peer.echo, 77, "or it could never prove itself to us");
        let challenge = b.peer.challenge;
        assert_eq!(b.hear(5, 2, challenge), Reception::Begins);
        assert_eq!(b.hear(5, 3, 0), Reception::Fresh);
        assert_ne!(b.peer.challenge, challenge, "each challenge opens one session");
    }

    #[test]
    fn a_recording_of_an_earlier_life_changes_nothing() {
        let mut b = Bench::new();
        let first = b.peer.challenge;
        assert_eq!(b.hear(5, 2, first), Reception::Begins);
        let second = b.peer.challenge;
        assert_eq!(b.hear(6, 1, second), Reception::Begins);
        for echo in [first, second, 0] {
            assert_eq!(b.hear(5, 900, echo), Reception::Unproven);
        }
        assert_eq!(b.peer.incarnation(), Some(Incarnation(6)));
    }

    #[test]
    fn the_same_datagram_counts_once_and_a_late_one_never() {
        let mut b = Bench::new();
        let challenge = b.peer.challenge;
        assert_eq!(b.hear(5, 10, challenge), Reception::Begins);
        assert_eq!(b.hear(5, 10, challenge), Reception::Late);
        assert_eq!(b.hear(5, 9, challenge), Reception::Late);
        assert_eq!(b.hear(5, 11, 0), Reception::Fresh);
    }

    #[test]
    fn an_answer_that_overtakes_a_heartbeat_makes_it_no_older() {
        let mut b = Bench::new();
        let challenge = b.peer.challenge;
        assert_eq!(b.hear(5, 10, challenge), Reception::Begins);
        let now = Instant::from_nanos(1);
        let answer = |b: &mut Bench, sequence| {
            let header = header(5, sequence, 0);
            b.peer.receive(now, MessageKind::Answer, &header, false, &mut b.random)
        };
        assert_eq!(answer(&mut b, 12), Reception::Fresh);
        assert_eq!(b.hear(5, 11, 0), Reception::Fresh);
        assert_eq!(b.hear(5, 11, 0), Reception::Late);
        assert_eq!(answer(&mut b, 12), Reception::Late);
    }

    #[test]
    fn two_agents_under_one_name_are_told_apart_from_a_restart() {
        let mut b = Bench::new();
        let challenge = b.peer.challenge;
        assert_eq!(b.hear(5, 1, challenge), Reception::Begins);
        let challenge = b.peer.challenge;
        assert_eq!(b.hear(6, 1, challenge), Reception::Begins, "a restart");
        let challenge = b.peer.challenge;
        assert_eq!(b.hear(5, 2, challenge), Reception::Duplicate, "the dead do not come back");
        let heard: Vec<_> = (0..STRANGERS_MAX).map(|n| b.hear(9, u64::from(n) + 1, 0)).collect();
        assert_eq!(heard.last(), Some(&Reception::Duplicate), "one that can never prove itself");
    }

    #[test]
    fn heartbeats_that_had_the_time_and_got_no_answer_are_counted() {
        let mut b = Bench::new();
        let at = |ms| Instant::from_nanos(1) + Duration::from_millis(ms);
        let patience = Duration::from_millis(30);
        assert_eq!(b.peer.unanswered(at(0), patience), Beats { sent: 0, unanswered: 0 });
        for n in 1..=10 {
            b.peer.note_sent(Sequence(n), at(n * 10), Duration::ZERO);
            let answer = b.peer.take_answer(at(n * 10 + 1), Sequence(n)).is_some();
            assert!(answer);
        }
        for n in 11..=14 {
            b.peer.note_sent(Sequence(n), at(n * 10), Duration::ZERO);
        }
        // The last two may be answered yet.
        assert_eq!(b.peer.unanswered(at(150), patience), Beats { sent: 12, unanswered: 2 });
        assert_eq!(b.peer.unanswered(at(20_000), patience), Beats { sent: 0, unanswered: 0 });
    }

    #[test]
    fn our_own_lateness_is_not_held_against_a_peer() {
        let mut b = Bench::new();
        let challenge = b.peer.challenge;
        b.hear(5, 1, challenge);
        let silence = Duration::from_millis(35);
        let late = Instant::from_nanos(1) + Duration::from_millis(50);
        b.peer.excuse(Duration::from_millis(40), late);
        assert_eq!(b.peer.expire(late, silence), None);
        let later = late + silence;
        assert!(b.peer.expire(later, silence).is_some());
        assert!(!b.peer.is_alive());
    }
}
