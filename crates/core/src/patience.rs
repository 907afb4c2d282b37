//! How long others bear silence: peers that of a node, a supervisor that of its loop.
//!
//! A peer that is silent may have lost datagrams or wait for a processor; a loop that stands still
//! should be ended before its peers notice.

use buoy_model::Timing;
use buoy_model::limits::SILENT_HEARTBEATS;
use core::time::Duration;

/// What one group may cost a loop within one turn, several times over: a takeover of a thousand takes
/// about 20 ms (judged, voted for, announced).
const WORK_PER_GROUP: Duration = Duration::from_micros(50);
/// An ordinary thread on a busy host waits for its turn so many times longer.
const ORDINARY: u32 = 4;

/// How long peers may be silent, by the term that we ask for ourselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WithPeers {
    least: Duration,
    most: Duration,
}

impl WithPeers {
    pub(crate) fn new(timing: Timing, ours: Duration) -> Self {
        let Timing { heartbeat, lease_max, .. } = timing;
        // The last beat that counts may take a fifth of one to come.
        let missed = heartbeat * SILENT_HEARTBEATS + heartbeat / 5;
        Self { least: missed.max(ours), most: lease_max }
    }

    /// How long one may be silent that asked for this term: as long as nobody else is given what it holds,
    /// as long as we would ask for ourselves, and never for less than some missed beats.
    pub(crate) fn one(self, theirs: Duration) -> Duration {
        self.least.max(theirs.min(self.most))
    }
}

/// How long a loop may stand still that turns this often, asks for this term and has so many groups: as
/// long as its peers bear its silence, and for a long term only half of it, so that a hang is over before
/// they notice it. Many groups at once are work and no hang; meanwhile the lease is the fence.
pub fn with_loop(realtime: bool, heartbeat: Duration, term: Duration, groups: usize) -> Duration {
    let missed = heartbeat * SILENT_HEARTBEATS + heartbeat / 2;
    let work = WORK_PER_GROUP * u32::try_from(groups).unwrap_or(u32::MAX);
    let patience = missed.max(term / 2) + work;
    if realtime { patience } else { patience * ORDINARY }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_peer_may_be_silent_for_the_longer_of_both_terms() {
        let timing = Timing { heartbeat: 10 * MS, lease: 32 * MS, lease_max: 300 * MS };
        for (ours, theirs, expected) in
            [(32, 32, 32), (32, 90, 90), (90, 32, 90), (32, 2_500, 300), (20, 20, 32)]
        {
            let patience = WithPeers::new(timing, ours * MS);
            assert_eq!(patience.one(theirs * MS), expected * MS, "{ours} {theirs}");
        }
    }

    #[test]
    fn the_patience_with_a_loop_is_that_of_its_peers() {
        let table = [
            (true, 10, 36, 0, 35),
            (true, 10, 300, 0, 150),
            (true, 100, 36, 0, 350),
            (true, 10, 2500, 0, 1250),
            (false, 10, 36, 0, 140),
            (true, 10, 36, 1000, 85),
        ];
        for (realtime, heartbeat, term, groups, expected) in table {
            let patience = with_loop(realtime, heartbeat * MS, term * MS, groups);
            assert_eq!(patience, expected * MS, "{realtime}, {heartbeat}, {term}, {groups}");
        }
    }
}
