//! What the loop tells its supervisor: that it turns, how long it may stand still, and which goodbyes
//! to say for it.

use buoy_core::patience;
use buoy_kernel::clock;
use buoy_kernel::lifeline::{Hold, Lifeline, LifelineError, NoRoom};
use buoy_model::limits::{LEGS_MAX, NODES_MAX};
use buoy_model::{Desired, Instant, NodeId};
use std::net::SocketAddr;
use std::time::Duration;

/// How long work may take that is allowed to be slow: a reload, a list of a thousand addresses.
const SLOW: Duration = Duration::from_secs(10);
/// The loop's side of the lifeline; without one all of this does nothing.
pub(crate) struct Pulse {
    hold: Option<Hold>,
    /// The loop runs before ordinary threads.
    realtime: bool,
    heartbeat: Duration,
    term: Duration,
    groups: usize,
    /// Whose goodbyes are kept in which places.
    peers: [Option<NodeId>; NODES_MAX],
}

impl Pulse {
    /// Makes the calling thread the loop. Until its first `settle` it may be slow.
    pub(crate) fn take(
        lifeline: Option<&Lifeline>,
        realtime: bool,
    ) -> (Self, Option<LifelineError>) {
        let (hold, error) = match lifeline.map(Lifeline::hold) {
            Some(Ok(hold)) => (Some(hold), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        let (heartbeat, term, peers) = (SLOW, SLOW, [None; NODES_MAX]);
        let pulse = Self { hold, realtime, heartbeat, term, groups: 0, peers };
        pulse.allow(SLOW);
        pulse.beat(clock::now());
        (pulse, error)
    }

    /// The loop turns at this moment.
    pub(crate) fn beat(&self, now: Instant) {
        self.hold.iter().for_each(|hold| hold.beat(now));
    }

    /// From now on it turns this often, asks for this term and has so many groups.
    pub(crate) fn settle(&mut self, heartbeat: Duration, term: Duration, groups: usize) {
        if (self.heartbeat, self.term, self.groups) != (heartbeat, term, groups) {
            (self.heartbeat, self.term, self.groups) = (heartbeat, term, groups);
            self.beat(clock::now());
            self.allow(self.patience());
        }
    }

    fn patience(&self) -> Duration {
        patience::with_loop(self.realtime, self.heartbeat, self.term, self.groups)
    }

    /// Does something that may take longer than the loop may otherwise stand still.
    pub(crate) fn slowly<T>(&self, work: impl FnOnce() -> T) -> T {
        self.allow(SLOW);
        self.beat(clock::now());
        let result = work();
        self.beat(clock::now());
        self.allow(self.patience());
        result
    }

    /// Keeps a sealed goodbye for a peer ready, for each of the legs that it is to be said on.
    /// Whether there is room for it.
    pub(crate) fn keep_goodbye(
        &mut self,
        peer: NodeId,
        legs: impl Iterator<Item = SocketAddr>,
        sealed: &[u8],
    ) -> bool {
        let known = self.peers.iter().position(|known| *known == Some(peer));
        let free = || self.peers.iter().position(Option::is_none);
        let Some(at) = known.or_else(free) else { return false };
        self.peers[at] = Some(peer);
        let Some(hold) = &self.hold else { return true };
        let first = at * LEGS_MAX;
        let mut next = first;
        let mut fits = true;
        for address in legs.take(LEGS_MAX) {
            fits &= hold.set_goodbye(next, address, sealed).is_ok();
            next += 1;
        }
        (next..first + LEGS_MAX).all(|slot| hold.clear_goodbye(slot).is_ok()) && fits
    }

    /// After a reload: nothing is to be said to those who are no members any more. Gives the others
    /// whose goodbyes are kept: they may have to be sealed anew.
    pub(crate) fn keep_members(&mut self, desired: &Desired) -> [Option<NodeId>; NODES_MAX] {
        for (at, peer) in self.peers.iter_mut().enumerate() {
            if peer.is_some_and(|peer| desired.node(peer).is_none()) {
                *peer = None;
                for slot in at * LEGS_MAX..(at + 1) * LEGS_MAX {
                    let cleared = self.hold.as_ref().map(|hold| hold.clear_goodbye(slot));
                    debug_assert_ne!(cleared, Some(Err(NoRoom)), "there is a slot for each peer");
                }
            }
        }
        self.peers
    }

    /// Everything is given away: there is nothing to supervise any more.
    pub(crate) fn end(self) {
        self.hold.into_iter().for_each(Hold::end);
    }

    fn allow(&self, patience: Duration) {
        self.hold.iter().for_each(|hold| hold.set_patience(patience));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_kernel::lifeline::{Seen, Watch};

    const MS: Duration = Duration::from_millis(1);
    fn told(watch: &Watch) -> Vec<(usize, SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        watch.goodbyes(|leg, to, sealed| all.push((leg, to, sealed.to_vec())));
        all
    }

    #[test]
    fn slow_work_is_allowed_and_then_no_more() {
        let lifeline = Lifeline::create().unwrap();
        let watch = Watch::open(&lifeline).unwrap();
        let (mut pulse, error) = Pulse::take(Some(&lifeline), true);
        assert_eq!(error, None);
        assert_eq!(watch.patience(), SLOW);
        pulse.settle(10 * MS, 36 * MS, 2);
        assert_eq!(watch.patience(), 35 * MS + MS / 10);
        let before = watch.look();
        pulse.slowly(|| {
            assert_eq!(watch.patience(), SLOW);
            std::thread::sleep(MS);
        });
        assert_eq!(watch.patience(), 35 * MS + MS / 10);
        assert_ne!(watch.look(), before, "it counts anew after slow work");
        pulse.end();
        assert_eq!(watch.look(), Seen::Ended);
    }

    #[test]
    fn a_goodbye_is_kept_for_each_leg_of_each_peer_and_the_newest_counts() {
        let lifeline = Lifeline::create().unwrap();
        let watch = Watch::open(&lifeline).unwrap();
        let (mut pulse, _) = Pulse::take(Some(&lifeline), true);
        let [a, b, c]: [SocketAddr; 3] =
            ["10.0.0.2:1", "10.1.0.2:1", "10.0.0.3:1"].map(|address| address.parse().unwrap());
        assert!(pulse.keep_goodbye(NodeId(2), [a, b].into_iter(), b"old"));
        assert!(pulse.keep_goodbye(NodeId(3), [c].into_iter(), b"third"));
        assert!(pulse.keep_goodbye(NodeId(2), [b].into_iter(), b"new"));
        assert_eq!(told(&watch), [(0, b, b"new".to_vec()), (0, c, b"third".to_vec())]);
        for more in 0..NODES_MAX as u32 - 2 {
            assert!(pulse.keep_goodbye(NodeId(100 + more), [c].into_iter(), b"more"));
        }
        assert!(!pulse.keep_goodbye(NodeId(99), [c].into_iter(), b"too many"));
    }
}
