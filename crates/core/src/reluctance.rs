//! Why this node takes a group only if nobody else can: one answer for claims, judgements and `why`.

use crate::Node;
use crate::damping::Subject;
use crate::legs::Around;
use crate::placement::Members;
use alloc::string::String;
use alloc::vec::Vec;
use buoy_model::limits::NODES_MAX;
use buoy_model::{Action, Cause, Fact, Fitness, Group, GroupId, Instant, LinkId, Record};
use core::time::Duration;

/// Longer than this without a look, and the loop was late: legs are not blamed for it.
const LATE_AFTER_BEATS: u32 = 2;
/// A leg has so many times the silence of a peer before it counts as unheard.
const UNHEARD_SILENCES: u32 = 2;

/// Why not, if not for want of others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Reluctance {
    /// It does not know yet of any backend of a service whether it is up.
    Unchecked,
    /// It sees no backend of a service up.
    NoBackend,
    /// A check of the group fails here.
    CheckFails(String),
    /// No live peer is heard where the group is announced, while another leg hears one.
    Unheard(LinkId),
    /// The carrier, the peers on it, or the checks came and went too often.
    Damped(Duration),
    /// An operator wants nothing new here.
    Cordoned,
}

impl Reluctance {
    /// Why a group that is served here has to go to a node that is fit, if it has to: what came and
    /// went is back, so it may stay, what is not known yet is no reason, and who is to take nothing new keeps what
    /// he has.
    pub(crate) fn cause(self) -> Option<Cause> {
        match self {
            Self::NoBackend => Some(Cause::NoBackend),
            Self::CheckFails(check) => Some(Cause::CheckFailed { check }),
            Self::Unheard(link) => Some(Cause::Unheard { link }),
            Self::Unchecked | Self::Damped(_) | Self::Cordoned => None,
        }
    }
}

impl Node {
    /// Why this node takes the group only if nobody else can; `None`: it is fit.
    pub(crate) fn reluctance(&self, now: Instant, i: usize) -> Option<Reluctance> {
        let group = &self.desired.groups[i];
        match &self.owned[i].fitness {
            Fitness::Unchecked => return Some(Reluctance::Unchecked),
            Fitness::NoBackend => return Some(Reluctance::NoBackend),
            Fitness::CheckFails { check } => return Some(Reluctance::CheckFails(check.clone())),
            Fitness::Fit => {}
        }
        let links = || group.addresses.iter().filter_map(|a| a.link);
        if let Some(link) = links().find(|l| self.legs.is_deaf(*l)) {
            return Some(Reluctance::Unheard(link));
        }
        let held = |subject| self.damping.remaining(now, subject);
        let damped = |subject| held(subject).filter(|_| !self.trusts_every_link());
        let cordoned = self.cordoned.is_some() && !self.ignores_cordons();
        links()
            .flat_map(|l| [Subject::Carrier(l), Subject::Voices(l)])
            .chain([Subject::Checks(group.id)])
            .filter_map(damped)
            .max()
            .map(Reluctance::Damped)
            // Last: whatever else is wrong here moves a group away, and this does not.
            .or_else(|| cordoned.then_some(Reluctance::Cordoned))
    }

    /// A carrier came or went.
    pub(crate) fn note_carrier(
        &mut self,
        now: Instant,
        link: LinkId,
        up: bool,
        out: &mut Vec<Action>,
    ) {
        if carries(&self.desired.groups, link) {
            self.note_flap(now, Subject::Carrier(link), link, !up, out);
        }
    }

    /// This node's checks for a group have another result.
    pub(crate) fn note_fitness(&mut self, now: Instant, group: GroupId, fit: bool) {
        let subject = Subject::Checks(group);
        if fit {
            self.damping.back(now, subject);
        } else {
            self.damping.lost(now, subject);
        }
    }

    fn note_flap(
        &mut self,
        now: Instant,
        subject: Subject,
        link: LinkId,
        lost: bool,
        out: &mut Vec<Action>,
    ) {
        if lost {
            self.damping.lost(now, subject);
        } else if let Some(remaining) = self.damping.back(now, subject) {
            let fact = Fact::Damped { link, remaining };
            out.push(Action::Record(Record { at: now, group: None, fact }));
        }
    }

    /// Looks at what time alone brings about: hold times that end, legs that fall silent.
    pub(crate) fn watch_time(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.damping.expire(now) {
            self.beat_now();
        }
        let late = now.since(self.legs.looked_at(now));
        if late > self.desired.timing.heartbeat * LATE_AFTER_BEATS {
            self.legs.excuse(late, now);
        }
        if self.desired.leg_links.len() < 2 {
            return;
        }
        let (mut alive, mut legs) = (Members::NONE, [0; NODES_MAX]);
        for peer in self.peers.iter().filter(|p| p.is_alive()) {
            let addresses = self.desired.nodes[peer.index].addresses.len();
            // An agent of the first wire version speaks on its first leg only.
            let spoken = if peer.knows_goodbyes() { addresses } else { addresses.min(1) };
            legs[peer.index] = u8::try_from(spoken).unwrap_or(u8::MAX);
            alive.insert(peer.index);
        }
        let around = Around {
            alive,
            legs,
            links: &self.desired.leg_links,
            down: &self.links_down,
            silence: self.silence() * UNHEARD_SILENCES,
        };
        let changes = self.legs.look(now, &around);
        for (link, deaf) in changes.into_iter().flatten() {
            if !carries(&self.desired.groups, link) {
                continue;
            }
            let fact = Fact::Unheard { link, now: deaf };
            out.push(Action::Record(Record { at: now, group: None, fact }));
            self.note_flap(now, Subject::Voices(link), link, deaf, out);
            self.beat_now();
        }
    }
}

/// Whether a group is announced there.
fn carries(groups: &[Group], link: LinkId) -> bool {
    groups.iter().any(|g| g.addresses.iter().any(|a| a.link == Some(link)))
}
