//! What this host tells others about flows, and hears from them: `tables/flows.rs` says what that is.

use super::Fast;
use super::tables::Learned;
use buoy_model::{Remembered, Translation};

/// What others are told.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct News {
    /// Flows that were opened while their slot changed hands.
    pub remembered: Vec<Remembered>,
    /// Flows that have a port of a pool.
    pub translations: Vec<Translation>,
}

/// Where telling everything goes on; what is told already is absent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// At so many words of remembered flows.
    remembered: Option<usize>,
    /// At so many ports of all pools.
    ports: Option<usize>,
}

impl Place {
    /// Where it begins.
    pub const FIRST: Self = Self { remembered: Some(0), ports: Some(0) };
}

impl Fast {
    /// What became known of flows since the last call, and is to be told now: so much of each kind at most, the rest
    /// with the next call. While no slot is in a change, nobody asks for remembered flows.
    pub fn news(&mut self, is_in_change: bool, most: (usize, usize)) -> News {
        let (remembered, translations) = most;
        News {
            remembered: if is_in_change {
                self.tables.remembered_news(remembered)
            } else {
                Vec::new()
            },
            translations: self.tables.translation_news(translations),
        }
    }

    /// All that is known of flows, piece by piece: so much of each kind at most, and where to go on. Both kinds go
    /// side by side, for whoever is told may be the next owner before it has heard all.
    pub fn all_from(&self, place: Place, most: (usize, usize)) -> (News, Option<Place>) {
        let (remembered, after) = place
            .remembered
            .map_or_else(Default::default, |from| self.tables.remembered_from(from, most.0));
        let (translations, ports) = place
            .ports
            .map_or_else(Default::default, |from| self.tables.translations_from(from, most.1));
        let next = Place { remembered: after, ports };
        let is_done = next.remembered.is_none() && next.ports.is_none();
        (News { remembered, translations }, (!is_done).then_some(next))
    }

    /// Lets the programs remember flows of another host.
    pub fn remember(&mut self, flows: &[Remembered]) -> Learned {
        self.tables.remember(flows)
    }

    /// Lets the programs know the ports of flows of another host.
    pub fn translate(&mut self, flows: &[Translation]) -> Learned {
        self.tables.translate(flows)
    }
}
