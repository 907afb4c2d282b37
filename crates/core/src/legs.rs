//! Tells an interface that is deaf from a network that is silent: peers are heard leg by leg.
//!
//! A cable may carry light and no frames, or end in the wrong VLAN. Where all live peers are unheard on
//! every leg of an interface while another leg hears one of them, it is this host's interface that is
//! deaf, and what is announced there goes nowhere.

use crate::placement::Members;
use buoy_model::limits::{LEGS_MAX, NODES_MAX};
use buoy_model::{Instant, Leg, LinkId};
use core::time::Duration;

/// When each peer was heard last, leg by leg, and which interfaces are deaf.
#[derive(Clone, Debug)]
pub(crate) struct Legs {
    heard: [Ears; NODES_MAX],
    /// Deaf interfaces; one for each leg at most.
    deaf: [Option<(LinkId, Instant)>; LEGS_MAX],
    /// When it was looked at last.
    looked_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ears {
    at: [Option<Instant>; LEGS_MAX],
    /// Since when it is alive: a leg has a while to be heard for the first time.
    alive_since: Option<Instant>,
}

/// What a look needs to know of the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around<'a> {
    /// The peers that are heard at all.
    pub(crate) alive: Members,
    /// How many legs each member has.
    pub(crate) legs: [u8; NODES_MAX],
    /// The interface of each of our legs.
    pub(crate) links: &'a [Option<LinkId>],
    /// Interfaces without carrier: they are known to be deaf.
    pub(crate) down: &'a [LinkId],
    /// After so long without a word a peer counts as unheard on a leg.
    pub(crate) silence: Duration,
}

/// What a look found to be different from the one before.
pub(crate) type Changes = [Option<(LinkId, bool)>; 2 * LEGS_MAX];

impl Default for Legs {
    fn default() -> Self {
        Self { heard: [Ears::default(); NODES_MAX], deaf: [None; LEGS_MAX], looked_at: None }
    }
}

impl Legs {
    /// A datagram of that peer came in on that leg.
    pub(crate) fn heard(&mut self, leg: Leg, peer: usize, now: Instant) {
        if let Some(at) = self.heard.get_mut(peer).and_then(|e| e.at.get_mut(usize::from(leg.0))) {
            *at = Some(now);
        }
    }

    /// When that peer was heard last on that leg.
    pub(crate) fn last(&self, peer: usize, leg: usize) -> Option<Instant> {
        self.heard.get(peer).and_then(|e| e.at.get(leg).copied().flatten())
    }

    /// Whether nobody is heard on that interface, while another leg hears somebody.
    pub(crate) fn is_deaf(&self, link: LinkId) -> bool {
        self.deaf_since(link).is_some()
    }

    /// Since when that is so.
    pub(crate) fn deaf_since(&self, link: LinkId) -> Option<Instant> {
        self.deaf.iter().flatten().find(|(deaf, _)| *deaf == link).map(|(_, since)| *since)
    }

    /// When the last look was, before this one.
    pub(crate) fn looked_at(&mut self, now: Instant) -> Instant {
        self.looked_at.replace(now).unwrap_or(now)
    }

    /// Our own loop came late: what could not be heard meanwhile is not held against a leg.
    pub(crate) fn excuse(&mut self, late: Duration, now: Instant) {
        for at in self.heard.iter_mut().flat_map(|e| &mut e.at).flatten() {
            *at = (*at + late).min(now);
        }
    }

    /// A reload gave the members new places.
    pub(crate) fn renumber(&mut self, moved: impl Fn(usize) -> Option<usize>) {
        let before = core::mem::replace(&mut self.heard, [Ears::default(); NODES_MAX]);
        for (old, ears) in before.into_iter().enumerate() {
            if let Some(place) = moved(old).and_then(|new| self.heard.get_mut(new)) {
                *place = ears;
            }
        }
    }

    /// Looks which interfaces are deaf now; which ones turned deaf (true) or hear again (false).
    pub(crate) fn look(&mut self, now: Instant, around: &Around<'_>) -> Changes {
        for (peer, ears) in self.heard.iter_mut().enumerate() {
            match (around.alive.contains(peer), ears.alive_since) {
                (true, None) => ears.alive_since = Some(now),
                (false, Some(_)) => ears.alive_since = None,
                (true, Some(_)) | (false, None) => {}
            }
        }
        let mut deaf = [None; LEGS_MAX];
        for (leg, link) in around.links.iter().take(LEGS_MAX).enumerate() {
            let Some(link) = *link else { continue };
            if !deaf.contains(&Some(link)) && self.turns_deaf(now, around, link) {
                deaf[leg] = Some(link);
            }
        }
        let mut changes: Changes = [None; 2 * LEGS_MAX];
        for (i, link) in self.deaf.iter().enumerate() {
            let over = link.map(|(l, _)| l).filter(|l| !deaf.contains(&Some(*l)));
            changes[i] = over.map(|l| (l, false));
        }
        for (i, link) in deaf.iter().enumerate() {
            let fresh = link.filter(|l| !self.is_deaf(*l));
            changes[LEGS_MAX + i] = fresh.map(|l| (l, true));
        }
        self.deaf = deaf.map(|link| link.map(|l| (l, self.deaf_since(l).unwrap_or(now))));
        changes
    }

    fn turns_deaf(&self, now: Instant, around: &Around<'_>, link: LinkId) -> bool {
        if around.down.contains(&link) {
            return false;
        }
        let (mut speakers, mut elsewhere) = (0, false);
        for (leg, of) in around.links.iter().take(LEGS_MAX).enumerate() {
            for peer in around.alive.iter().filter(|p| usize::from(around.legs[*p]) > leg) {
                let here = *of == Some(link);
                match (here, self.hears(now, peer, leg, around.silence, here)) {
                    (true, true) => return false,
                    (true, false) => speakers += 1,
                    (false, heard) => elsewhere |= heard,
                }
            }
        }
        speakers > 0 && elsewhere
    }

    /// `patient`: a peer that has just come up counts as heard until it had its time.
    fn hears(
        &self,
        now: Instant,
        peer: usize,
        leg: usize,
        silence: Duration,
        patient: bool,
    ) -> bool {
        let ears = &self.heard[peer];
        let since = if patient { ears.alive_since } else { None };
        ears.at[leg].max(since).is_some_and(|at| now.since(at) <= silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LinkId = LinkId(10);
    const B: LinkId = LinkId(11);
    const SILENCE: Duration = Duration::from_millis(70);

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn around(links: &[Option<LinkId>]) -> Around<'_> {
        let alive = Members::default().with(1).with(2);
        Around { alive, legs: [2; NODES_MAX], links, down: &[], silence: SILENCE }
    }

    fn changed(changes: Changes) -> alloc::vec::Vec<(LinkId, bool)> {
        changes.into_iter().flatten().collect()
    }

    /// Hears on the legs given until 200 ms, looks every 10 ms: what changed, and when.
    fn story(
        around: &Around<'_>,
        voices: impl Fn(u64, usize, usize) -> bool,
    ) -> alloc::vec::Vec<(u64, LinkId, bool)> {
        let mut legs = Legs::default();
        let mut found = alloc::vec::Vec::new();
        for ms in (0..=400).step_by(10) {
            for (peer, leg) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
                if voices(ms, peer, leg) {
                    legs.heard(Leg(u8::try_from(leg).unwrap()), peer, at(ms));
                }
            }
            let changes = legs.look(at(ms), around);
            found.extend(changed(changes).into_iter().map(|(link, deaf)| (ms, link, deaf)));
        }
        found
    }

    #[test]
    fn an_interface_is_deaf_when_all_live_peers_are_heard_elsewhere_only() {
        let two = [Some(A), Some(B)];
        type Voices = fn(u64, usize, usize) -> bool;
        type Change = (u64, LinkId, bool);
        let table: &[(&str, Voices, &[Change])] = &[
            ("all is well", |_, _, _| true, &[]),
            ("nothing is heard anywhere", |_, _, _| false, &[]),
            ("one leg falls silent", |ms, _, leg| leg == 0 || ms <= 100, &[(180, B, true)]),
            ("one peer is still heard there", |_, peer, leg| leg == 0 || peer == 2, &[]),
            ("never heard on the leg", |_, _, leg| leg == 0, &[(80, B, true)]),
            ("both fall silent at once", |ms, _, _| ms <= 100, &[]),
            (
                "it hears again",
                |ms, _, leg| leg == 0 || ms <= 100 || ms >= 300,
                &[(180, B, true), (300, B, false)],
            ),
        ];
        for (name, voices, expected) in table {
            assert_eq!(story(&around(&two), voices), *expected, "{name}");
        }
    }

    #[test]
    fn what_no_peer_speaks_on_is_not_deaf() {
        let only_first = |_, _, leg: usize| leg == 0;
        let two = [Some(A), Some(B)];
        let mut one_leg = around(&two);
        one_leg.legs = [1; NODES_MAX];
        assert_eq!(story(&one_leg, only_first), []);
        let mut nobody = around(&two);
        nobody.alive = Members::default();
        assert_eq!(story(&nobody, only_first), []);
        let mut no_carrier = around(&two);
        no_carrier.down = &[B];
        assert_eq!(story(&no_carrier, only_first), [], "that is known already");
        let unknown = [Some(A), None];
        assert_eq!(story(&around(&unknown), only_first), []);
    }

    #[test]
    fn two_legs_of_one_interface_are_deaf_together_or_not() {
        let same = [Some(A), Some(A)];
        assert_eq!(story(&around(&same), |_, _, leg| leg == 0), []);
        assert_eq!(story(&around(&same), |ms, _, _| ms <= 100), []);
        let three = [Some(A), Some(B), Some(B)];
        let mut around = around(&three);
        around.legs = [3; NODES_MAX];
        assert_eq!(story(&around, |_, _, leg| leg == 0), [(80, B, true)]);
    }

    #[test]
    fn our_own_lateness_makes_nothing_deaf() {
        let links = [Some(A), Some(B)];
        let mut legs = Legs::default();
        for (peer, leg) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            legs.heard(Leg(leg), peer, at(0));
        }
        assert_eq!(changed(legs.look(at(0), &around(&links))), []);
        legs.excuse(Duration::from_secs(1), at(1_000));
        legs.heard(Leg(0), 1, at(1_000));
        assert_eq!(changed(legs.look(at(1_000), &around(&links))), []);
        assert_eq!(legs.last(2, 1), Some(at(1_000)));
        assert_eq!(legs.last(2, 3), None);
    }

    #[test]
    fn members_keep_their_ears_when_a_reload_moves_them() {
        let mut legs = Legs::default();
        legs.heard(Leg(1), 2, at(5));
        legs.renumber(|old| (old == 2).then_some(0));
        assert_eq!((legs.last(0, 1), legs.last(2, 1)), (Some(at(5)), None));
        legs.heard(Leg(200), 99, at(5));
    }
}
