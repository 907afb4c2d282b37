//! Some services change where they are: what a backend that goes down costs does not depend on how many others there are.
//!
//! Services with the same backends are told so by one list of them: what is other in the next list is looked for
//! once, and of each service only those backends are touched.

use super::super::plan::{self, Key, Kinds, Seen, way_to};
use super::super::{Resolve, apart, limits, lines};
use super::{FACTS, NEXT_HOP, Placed, Tables, lines_of};
use buoy_model::{FastBackend, FastService, Slot};
use buoy_xdp::forward::{self, Address, Backend, Service};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// A table that is there, as it is to be.
struct Rewrite {
    slots: Arc<[Slot]>,
    /// How many services want it so.
    services: usize,
}

/// A service that stays where it is.
pub(super) struct Step<'w> {
    wanted: &'w FastService,
    service: Service,
    /// Those of its backends that may not be what they were.
    others: Rc<[usize]>,
    /// Whether its list of backends is the one that it had.
    is_told: bool,
}

impl<'w> Step<'w> {
    /// Those backends: which one of the service's, where it lies, and what it is to be.
    pub(super) fn backends(&self) -> impl Iterator<Item = (usize, u32, &'w FastBackend)> {
        let first = self.service.backends_first;
        self.others.iter().filter_map(move |&at| {
            let place = first.checked_add(u32::try_from(at).ok()?)?;
            Some((at, place, self.wanted.backends.get(at)?))
        })
    }
}

/// Where lists of backends differ, looked for once for each pair of them. Both live as long as this is in use, so
/// each has its address for itself.
#[derive(Default)]
pub(super) struct Differences(BTreeMap<[*const FastBackend; 2], Rc<[usize]>>);

impl Differences {
    fn of(
        &mut self,
        told: Option<&Arc<[FastBackend]>>,
        wanted: &Arc<[FastBackend]>,
    ) -> Rc<[usize]> {
        let address = |list: &Arc<[FastBackend]>| Arc::as_ptr(list).cast::<FastBackend>();
        let pair = [told.map_or(std::ptr::null(), address), address(wanted)];
        let look = || {
            let is_other = |&at: &usize| told.is_none_or(|told| told.get(at) != wanted.get(at));
            (0..wanted.len()).filter(is_other).collect()
        };
        Rc::clone(self.0.entry(pair).or_insert_with(look))
    }
}

impl Tables {
    /// Makes these services so, as `apply` would with all others as they are; whether that was possible. It is where
    /// only slots differ, and who of the backends is there, and they come in the order of their keys, each once.
    /// Else nothing was touched.
    pub(in super::super) fn amend(
        &mut self,
        seed: u64,
        services: &[FastService],
        resolve: Resolve<'_>,
    ) -> bool {
        if !self.is_switched || !self.uncertain.is_empty() || self.seed() != seed {
            return false;
        }
        let Some((steps, rewrites)) = self.steps(services) else { return false };
        if !rewrites.iter().all(|(first, rewrite)| self.is_theirs(*first, rewrite)) {
            return false;
        }
        let rewrites = rewrites.into_iter().map(|(first, rewrite)| (first, rewrite.slots));
        self.rewrite(&steps, rewrites.collect(), resolve);
        self.tell(&steps);
        true
    }

    /// What there is to do for these services; `None`: not all can be where they are.
    fn steps<'w>(
        &self,
        services: &'w [FastService],
    ) -> Option<(Vec<Step<'w>>, BTreeMap<u32, Rewrite>)> {
        let (mut differences, mut seen) = (Differences::default(), Seen::new());
        let (mut steps, mut rewrites) = (Vec::new(), BTreeMap::new());
        let mut last = None;
        // Mostly the next one is the one behind: that is found sooner than by its key.
        let Some(first) = services.first() else { return Some((steps, rewrites)) };
        let mut behind = self.placed.range(Key::from(first)..);
        for wanted in services {
            let key = Key::from(wanted);
            if last.replace(key).is_some_and(|last| last >= key) {
                return None;
            }
            let placed = match behind.next() {
                Some((known, placed)) if *known == key => placed,
                Some(_) | None => {
                    behind = self.placed.range(key..);
                    behind.next().filter(|(known, _)| **known == key)?.1
                }
            };
            let step = self.step(placed, wanted, &mut differences)?;
            // Of what it was told there is nothing to find fault with.
            let is_faulty = match step.is_told {
                true => plan::names_nobody(wanted, &mut seen),
                false => plan::is_faulty(wanted, &mut seen),
            };
            if is_faulty {
                return None;
            }
            let rewrite = || Rewrite { slots: Arc::clone(&wanted.slots), services: 0 };
            let rewrite = rewrites.entry(lines_of(&placed.service).start).or_insert_with(rewrite);
            if !lines::is_same(&rewrite.slots, &wanted.slots) {
                return None;
            }
            rewrite.services += 1;
            if !step.is_told {
                steps.push(step);
            }
        }
        Some((steps, rewrites))
    }

    /// Whether no other service has this table, or it stays as it is.
    fn is_theirs(&self, first: u32, rewrite: &Rewrite) -> bool {
        // Those are of nobody's concern, and no table leads there again before they are free.
        let retired = self.retired.iter().filter(|(_, old)| lines_of(&old.service).start == first);
        let users = self.lines.users(first).saturating_sub(retired.count());
        users <= rewrite.services || self.lines.is(first, &rewrite.slots)
    }

    /// What there is to do for a service that differs in its slots, and in who of its backends is there, at most.
    pub(super) fn step<'w>(
        &self,
        placed: &Placed,
        wanted: &'w FastService,
        differences: &mut Differences,
    ) -> Option<Step<'w>> {
        let service = placed.service;
        let is_like = Kinds::from(&service) == plan::kinds(wanted)
            && limits::of(&service) == wanted.new_connections
            && self.lists.is(limits::list_of(&service), &wanted.sources)
            && self.pools.is(placed, wanted);
        if !is_like {
            return None;
        }
        let told = placed.told.as_ref();
        let is_told = told.is_some_and(|told| Arc::ptr_eq(told, &wanted.backends));
        let others = differences.of(told, &wanted.backends);
        let step = Step { wanted, service, others, is_told };
        let is_where_it_was = |(_, place, wanted): (usize, u32, &FastBackend)| {
            let backend = self.backend(place);
            // Whoever is not there any more keeps its place.
            wanted.address.ip().is_unspecified()
                || (backend.address == Address::from(wanted.address.ip())
                    && backend.port == wanted.address.port()
                    && apart::server_id(&service, &backend) == wanted.server_id)
        };
        let is_where_it_was = step.backends().all(is_where_it_was);
        is_where_it_was.then_some(step)
    }

    /// Slots and backends that change where they are: who comes first comes before the slots that name it,
    /// who goes goes after.
    pub(super) fn rewrite(
        &mut self,
        steps: &[Step<'_>],
        mut rewrites: BTreeMap<u32, Arc<[Slot]>>,
        resolve: Resolve<'_>,
    ) {
        self.stand(steps);
        for is_there in [true, false] {
            for step in steps {
                for (at, place, backend) in step.backends() {
                    let ip = backend.address.ip();
                    if ip.is_unspecified() == is_there {
                        continue;
                    }
                    let identity = forward::identity(at, backend.address);
                    let known = self.backend(place);
                    if known.identity == identity {
                        continue;
                    }
                    let service = &step.service;
                    let way = is_there.then(|| self.reached(service, way_to(service, ip, resolve)));
                    let hop = way.and_then(Result::ok).unwrap_or_default().0;
                    let facts = Backend { identity, ..known }.to_words()[FACTS];
                    self.backends.change(place, NEXT_HOP, hop);
                    self.backends.change(place, FACTS, facts);
                }
            }
            for (first, slots) in std::mem::take(&mut rewrites) {
                self.lines.rewrite(first, &slots);
            }
        }
    }

    /// Keeps what these services were told, which come in the order of their keys.
    fn tell(&mut self, steps: &[Step<'_>]) {
        let Some(first) = steps.first() else { return };
        let mut behind = self.placed.range_mut(Key::from(first.wanted)..);
        for Step { wanted, .. } in steps {
            let key = Key::from(*wanted);
            let placed = match behind.next() {
                Some((known, placed)) if *known == key => Some(placed),
                Some(_) | None => {
                    behind = self.placed.range_mut(key..);
                    behind.next().filter(|(known, _)| **known == key).map(|(_, placed)| placed)
                }
            };
            debug_assert!(placed.is_some(), "only what is placed can be amended");
            placed.into_iter().for_each(|p| p.told = Some(Arc::clone(&wanted.backends)));
        }
    }
}
