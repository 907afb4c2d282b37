//! Words of the settings by themselves: the seconds that flows get old by, and the flags.

use super::super::links;
use super::{Earlier, TICK, Tables};
use buoy_xdp::forward::{self, halves};
use std::sync::atomic::Ordering;

impl Tables {
    /// So many seconds are over since some moment. What an earlier run counted goes on, from the first call on.
    pub(in super::super) fn tick(&mut self, seconds: u64) {
        let word = self.settings.word(0, TICK);
        let (now, _) = halves(word.load(Ordering::Relaxed));
        let counted = self.counted.unwrap_or(if now == 0 { 0 } else { seconds });
        let now = u64::from(now) + seconds.saturating_sub(counted);
        // Who captures sets and takes a flag meanwhile.
        let next = |word: u64| Some(now & 0xffff_ffff | word >> 32 << 32);
        let _ = word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, next);
        self.counted = Some(seconds);
        self.clients.sweep(
            now & 0xffff_ffff,
            self.placed.values().map(|p| p.service.stick).filter(|s| *s != 0),
        );
    }

    /// From now on what goes out where it came in is redirected there, or transmitted.
    pub(in super::super) fn send_back_by_redirect(&self, by_redirect: bool) {
        self.set_flag(forward::BACK_BY_REDIRECT, by_redirect);
        links::follow_flag(&self.settings);
    }

    /// Goes on with the flows of maps that had less room, and with their time.
    pub(in super::super) fn carry_over(&mut self, earlier: &Earlier) {
        self.pools.carry_over(&earlier.pools);
        self.flows.begin(&self.pools);
        let (now, _) = halves(earlier.settings.word(0, TICK).load(Ordering::Relaxed));
        self.settings.change(0, TICK, now.into());
    }

    pub(super) fn set_flag(&self, flag: u64, is_set: bool) {
        let word = self.settings.word(0, TICK);
        if is_set {
            word.fetch_or(flag << 32, Ordering::SeqCst);
        } else {
            word.fetch_and(!(flag << 32), Ordering::SeqCst);
        }
    }
}
