//! The clients of services that give them the same backend again: the programs write them, and what is old is taken
//! away here, as no program knows how long it is of use to another service. Here it is said too which backends get them.

use super::super::apart;
use super::super::memory::Region;
use super::Tables;
use super::amend::Step;
use buoy_xdp::flow::TICK_MASK;
use buoy_xdp::forward::{BUCKET_WAYS, Backend, CLIENT_UNIT, REMEMBERED_SECONDS};
use std::sync::atomic::Ordering;

/// It is looked for old ones after so many units of time.
const EVERY: u32 = 4;
/// The word of [`Backend`] with its standing.
const STANDING: usize = 6;

pub(super) struct Clients {
    region: Region,
    /// When it was looked last, in units.
    swept: u32,
}

impl Clients {
    pub(super) const fn new(region: Region) -> Self {
        Self { region, swept: 0 }
    }

    /// Forgets those that no service of these times needs. A connection may be silent for as long as a remembered
    /// flow, whatever its service says of new ones.
    pub(super) fn sweep(&mut self, seconds: u64, sticks: impl Iterator<Item = u16>) {
        let (now, _) = buoy_xdp::forward::halves(seconds >> CLIENT_UNIT);
        let Some(longest) = sticks.max() else { return };
        if now.wrapping_sub(self.swept) < EVERY {
            return;
        }
        self.swept = now;
        let longest = u64::from(longest).max(REMEMBERED_SECONDS >> CLIENT_UNIT);
        let words = usize::try_from(self.region.len()).unwrap_or(0) * BUCKET_WAYS;
        for word in self.region.words(0..words) {
            let entry = word.load(Ordering::Relaxed);
            let (low, _) = buoy_xdp::forward::halves(entry);
            if entry != 0 && u64::from(now.wrapping_sub(low) & TICK_MASK) > longest {
                // A program that has seen the client meanwhile is right.
                let _ = word.compare_exchange(entry, 0, Ordering::SeqCst, Ordering::Relaxed);
            }
        }
    }
}

impl Tables {
    /// Who is up, and who keeps what he has.
    pub(super) fn stand(&self, steps: &[Step<'_>]) {
        for step in steps {
            for (_, place, backend) in step.backends() {
                let standing = apart::standing(backend.standing);
                let word = Backend { standing, ..self.backend(place) }.to_words()[STANDING];
                self.backends.change(place, STANDING, word);
            }
        }
    }
}
