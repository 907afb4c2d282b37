//! How long others bear silence: peers that of a node, a supervisor that of its loop.
//!
//! A peer that is silent may have lost datagrams or wait for a processor; a loop that stands still
//! should be ended before its peers notice.

use buoy_model::Timing;
use buoy_model::limits::SILENT_HEARTBEATS;
use core::time::Duration;

/// An ordinary thread on a busy host waits for its turn so many times longer.
const ORDINARY: u32 = 4;

/// How long a peer may be silent that asked for this term: as long as nobody else is given what it
/// holds, as long as we would ask for ourselves, and never for less than some missed beats.
pub(crate) fn with_peer(timing: Timing, ours: Duration, theirs: Duration) -> Duration {
    let Timing { heartbeat, lease_max, .. } = timing;
    // The last beat that counts may take a fifth of one to come.
    let missed = heartbeat * SILENT_HEARTBEATS + heartbeat / 5;
    missed.max(ours).max(theirs.min(lease_max))
}

/// How long a loop may stand still that turns this often and asks for this term: as long as its peers
/// bear its silence, and for a long term only half of it, so that a hang is over before they notice it.
pub fn with_loop(realtime: bool, heartbeat: Duration, term: Duration) -> Duration {
    let missed = heartbeat * SILENT_HEARTBEATS + heartbeat / 2;
    let patience = missed.max(term / 2);
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
            assert_eq!(with_peer(timing, ours * MS, theirs * MS), expected * MS, "{ours} {theirs}");
        }
    }

    #[test]
    fn the_patience_with_a_loop_is_that_of_its_peers() {
        let table = [
            (true, 10, 36, 35),
            (true, 10, 300, 150),
            (true, 100, 36, 350),
            (true, 10, 2500, 1250),
            (false, 10, 36, 140),
        ];
        for (realtime, heartbeat, term, expected) in table {
            let patience = with_loop(realtime, heartbeat * MS, term * MS);
            assert_eq!(patience, expected * MS, "{realtime}, {heartbeat}, {term}");
        }
    }
}
