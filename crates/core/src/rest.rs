//! Lets a node that serves nothing and asks for nothing speak less often, and bears with peers that do.
//!
//! What such a node says keeps no lease, and its peers know it already. Who serves still speaks to it every
//! interval and hears it answer, so both miss each other as soon as ever. Only of two nodes at rest one would miss
//! the other late; but news, such as an owner that falls silent, wakes both, and from then on they expect to be
//! heard at the usual pace. Nobody has to be told who rests: a node does only while each peer that it hears knows
//! its claims, and they show it.

use crate::Node;
use crate::patience::WithPeers;
use crate::peer::Peer;
use buoy_model::Instant;
use buoy_model::limits::{REST_HEARTBEAT, SILENT_HEARTBEATS};
use core::time::Duration;

/// Without news for so long a node may rest: what was lost on the way has been said again by then.
const RESTS_AFTER: Duration = Duration::from_secs(1);
/// A node at rest may be silent for so long, as one that does not rest may for as many of its beats.
const REST_SILENCE: Duration =
    Duration::from_nanos(REST_HEARTBEAT.as_nanos() as u64 * SILENT_HEARTBEATS as u64)
        .saturating_add(Duration::from_nanos(REST_HEARTBEAT.as_nanos() as u64 / 5));

/// Whether this node rests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// It speaks every interval, and has done so since the last news.
    Usual { stirred_at: Instant },
    /// It speaks now and then.
    Rests,
}

impl Node {
    /// How often this node speaks when nothing happens.
    pub fn interval(&self) -> Duration {
        let heartbeat = self.desired.timing.heartbeat;
        match self.pace {
            Pace::Usual { .. } => heartbeat,
            Pace::Rests => heartbeat.max(REST_HEARTBEAT),
        }
    }

    /// Something happened: this node speaks at its usual pace, and expects as much of others.
    pub(crate) fn stir(&mut self, now: Instant) {
        let before = core::mem::replace(&mut self.pace, Pace::Usual { stirred_at: now });
        match before {
            Pace::Usual { .. } => {}
            Pace::Rests => {
                // What nobody said was not missing until now.
                let quiet = REST_HEARTBEAT;
                self.peers.iter_mut().filter(|p| p.may_rest()).for_each(|p| p.spare(quiet, now));
                self.beat_at = self.beat_at.min(now + self.desired.timing.heartbeat);
            }
        }
    }

    /// Settles the pace until the next beat. `news`: this beat is not the one that was due.
    pub(crate) fn settle_pace(&mut self, now: Instant, news: bool) {
        let has_cause = news || !self.needs_no_beats();
        match self.pace {
            Pace::Usual { .. } | Pace::Rests if has_cause => self.stir(now),
            Pace::Usual { stirred_at } if stirred_at + RESTS_AFTER <= now => {
                self.pace = Pace::Rests
            }
            Pace::Usual { .. } | Pace::Rests => {}
        }
    }

    /// Whether nothing hangs on what this node says, and everybody who hears it knows that.
    fn needs_no_beats(&self) -> bool {
        self.has_listened
            && self.stop_at.is_none()
            && self.ask_again_at.is_none()
            // Where legs are compared, each must be heard at the usual pace.
            && self.desired.leg_links.len() < 2
            && !self.said.iter().any(|claim| claim.kind.asks())
            && self.peers.iter().filter(|p| p.is_alive()).all(|p| p.knows == self.list)
    }

    fn patience(&self) -> WithPeers {
        let timing = self.desired.timing;
        WithPeers::new(timing, self.tempo.term(timing))
    }

    /// How long this peer may be silent.
    pub(crate) fn silence_of(&self, peer: &Peer) -> Duration {
        let usual = self.patience().one(peer.term);
        if self.hears_seldom(peer) { usual.max(REST_SILENCE) } else { usual }
    }

    /// How long any peer may be silent.
    pub(crate) fn silence(&self) -> Duration {
        let longest = self.peers.iter().map(|peer| self.silence_of(peer)).max();
        longest.unwrap_or(self.desired.timing.lease)
    }

    /// Whether it may say nothing for a while, and we do not ask it to answer more often.
    const fn hears_seldom(&self, peer: &Peer) -> bool {
        self.rests() && peer.may_rest()
    }

    /// Whether it speaks now and then only, and so is answered now and then only.
    pub(crate) const fn rests(&self) -> bool {
        match self.pace {
            Pace::Usual { .. } => false,
            Pace::Rests => true,
        }
    }
}
