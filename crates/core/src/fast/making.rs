//! What services of the fast path are made from, and what is made once for all that are alike.

use super::Past;
use crate::balance::{self, Share};
use crate::maglev::{Base, Table};
use crate::transition::Member;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use buoy_model::{Backend, BackendState, Instant, Standing};
use core::net::IpAddr;

/// All that is made in one go.
#[derive(Default)]
pub(super) struct Making {
    pub(super) tables: Tables,
    pub(super) changes: Changes,
    pub(super) nothing: Arc<Past>,
}

/// Changes made in one go: what was one table and is to become the same stays one.
#[derive(Default)]
pub(super) struct Changes {
    /// With what was before, so that nothing else gets its address.
    made: BTreeMap<ChangeOf, (Arc<Past>, Arc<Past>)>,
}

/// What it was, who is in the service, and which table it gets.
type ChangeOf = (*const Past, Vec<Member>, Option<*const Table>);

impl Changes {
    pub(super) fn of(
        &mut self,
        now: Instant,
        before: &Arc<Past>,
        wish: &Wish,
        table: Option<&Table>,
    ) -> Arc<Past> {
        let key = (Arc::as_ptr(before), wish.members(), table.map(core::ptr::from_ref));
        let made = self.made.entry(key).or_insert_with_key(|(_, members, _)| {
            let mut transition = before.transition.clone();
            transition.change(now, members, table.map_or(&[][..], |table| table.slots()));
            let after = Past::of(transition, before.told());
            (Arc::clone(before), Arc::new(after))
        });
        Arc::clone(&made.1)
    }
}

/// What a table is made from.
#[derive(Debug)]
pub(super) struct Wish {
    /// Those of the address's family, in the file's order.
    pub(super) backends: Vec<Backend>,
    pub(super) standings: Vec<Standing>,
    /// Fewer of them are not enough.
    quorum: u16,
}

impl Wish {
    pub(super) fn is<'b>(
        &'b self,
        quorum: u16,
        able: impl Iterator<Item = (&'b Backend, Standing)>,
    ) -> bool {
        self.quorum == quorum && able.eq(self.backends.iter().zip(self.standings.iter().copied()))
    }

    pub(super) fn members(&self) -> Vec<Member> {
        // Who keeps what it has is to the table as one that is drained.
        let alive = |standing: Standing| standing != Standing::Down;
        let all = self.backends.iter().zip(&self.standings);
        all.map(|(b, &standing)| Member { address: b.address, alive: alive(standing) }).collect()
    }

    fn shares(&self) -> Vec<Share> {
        let state = |standing: &Standing| match standing {
            Standing::Up => BackendState::Up,
            Standing::Keeps | Standing::Down => BackendState::Down,
        };
        let states: Vec<BackendState> = self.standings.iter().map(state).collect();
        balance::shares_of_quorum(&self.backends, &states, self.quorum)
    }
}

/// The wishes of one service, one for each family.
#[derive(Default)]
pub(super) struct Wishes {
    v4: Option<Arc<Wish>>,
    v6: Option<Arc<Wish>>,
}

impl Wishes {
    pub(super) fn of<'b>(
        &mut self,
        vip: IpAddr,
        quorum: u16,
        able: impl Iterator<Item = (&'b Backend, Standing)>,
    ) -> &Arc<Wish> {
        let family = match vip {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        };
        family.get_or_insert_with(|| {
            let (backends, standings) = able.map(|(b, standing)| (b.clone(), standing)).unzip();
            Arc::new(Wish { backends, standings, quorum })
        })
    }
}

/// Tables made in one go: the addresses of a pool have the same backends.
#[derive(Default)]
pub(super) struct Tables {
    made: BTreeMap<MadeFrom, Option<Made>>,
}

/// The names of all backends, and the weights of those that share.
type MadeFrom = (Vec<String>, Vec<(usize, u16)>);

#[derive(Clone)]
pub(super) struct Made {
    pub(super) base: Arc<Base>,
    pub(super) table: Arc<Table>,
}

impl Tables {
    /// `base` is what the service had before: while only states change, it goes on.
    pub(super) fn of(&mut self, wish: &Wish, base: Option<Arc<Base>>) -> Option<Made> {
        let (backends, shares) = (&wish.backends, wish.shares());
        let names = backends.iter().map(|backend| backend.name.clone());
        let weights = shares.iter().map(|share| (share.backend, share.weight));
        let made = self.made.entry((names.collect(), weights.collect()));
        let make = || {
            let kept = base.filter(|base| base.is_of(backends, &shares));
            let base = match kept {
                Some(base) => base,
                None => Arc::new(Base::new(backends, &shares)?),
            };
            let table = Arc::new(base.table(&shares)?);
            Some(Made { base, table })
        };
        made.or_insert_with(make).clone()
    }
}
