//! Keeps the flows of one fast-path service where they are while its backends change.
//!
//! A slot that gets another backend keeps the one it had, as `previous`, for `FAST_DRAIN`: the kernel
//! sends new flows to `current` and remembers them, and all that it does not remember to `previous`.
//! So nothing has to be known of flows that began before the change. What a slot does:
//!
//! ```text
//!   settled on A ── B gets it ──► A until then, B new ── time over, or A down ──► settled on B
//!                                  │            │
//!                             C gets it     A gets it back
//!                                  ▼            ▼
//!              A until its time, C new;    A new and old;
//!              B's are remembered          B's are remembered
//! ```
//!
//! A second change in the middle of the first needs no third name in the slot: the flows of the backend
//! in between were all remembered, since they began while the slot was in a change. They keep it for
//! `FAST_DRAIN` from the second change, and the first backend keeps its own deadline, so that a drained
//! server is free when it was said to be, however often another one comes and goes.
//!
//! Flows that may break: those of a backend that is down or not in the service any more (at once);
//! those that outlive the deadline on a backend that lost their slot; and after a second change
//! those of the backend in between that the kernel had no room to remember. No others.
//!
//! A place names the same address as long as that backend is in the service, and rests for
//! `FAST_DRAIN` after it left, because the kernel may still remember flows for it.
//!
//! Absent on purpose: flows, checks, and which backend deserves which slot (`maglev`).

use crate::history::{self, Malformed};
use crate::random::mix;
use alloc::vec;
use alloc::vec::Vec;
use buoy_model::limits::{FAST_DRAIN, FAST_PLACES_MAX, SERVICE_BACKENDS_MAX};
use buoy_model::{FastBackend, FastService, History, HistorySlot, Instant, Slot};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A backend of the service, whether or not it takes new flows.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Member {
    /// Who it is: a server is its address, whatever the file calls it.
    pub address: SocketAddr,
    /// Whether it can serve the flows it has.
    pub alive: bool,
}

/// The table of one service, and what it was.
#[derive(Clone, Debug, Default)]
pub struct Transition {
    places: Places,
    /// Who takes new flows, by place.
    current: Vec<u16>,
    /// The slots in a change, sorted by slot.
    moving: Vec<Moving>,
    /// Slots of the newest table. The slots of a larger one stay until nothing moves: a flow's old
    /// backend can be found in the old table only.
    size: usize,
    deadline: Option<Instant>,
}

/// A slot in a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Moving {
    slot: usize,
    change: Change,
}

/// What is left of the past in a slot; with neither, it is settled.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Change {
    /// Who serves the flows that are not remembered.
    previous: Option<Previous>,
    /// Until then remembered flows keep backends that are neither `current` nor `previous`.
    remembered_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Previous {
    place: u16,
    until: Instant,
}

impl Transition {
    /// Goes on where another agent on this host left off. What was in a change begins its time anew:
    /// a restart may lengthen a drain, never shorten it. Follow it with `change`, which tells who is alive.
    pub fn adopt(now: Instant, service: &FastService) -> Self {
        let until = now + FAST_DRAIN;
        let places = Places::adopt(now, &service.backends);
        let moving = service.slots.iter().enumerate().filter(|(_, s)| s.previous != s.current);
        let moving = moving.map(|(slot, s)| {
            let previous = (s.previous < Slot::REMEMBERED).then_some(s.previous);
            let previous = previous.map(|place| Previous { place, until });
            Moving { slot, change: Change { previous, remembered_until: Some(until) } }
        });
        let mut adopted = Self {
            places,
            moving: moving.collect(),
            current: service.slots.iter().map(|s| s.current).collect(),
            size: service.slots.len(),
            deadline: None,
        };
        if !adopted.current.len().is_power_of_two() {
            adopted = Self::default(); // Not a table of ours.
        }
        adopted.settle(now);
        adopted
    }

    /// The same of another host, which has the service's address: what it knows of flows, this one knows then.
    /// Follow it with `change`, which tells who is alive.
    pub fn of_history(now: Instant, history: &History) -> Result<Self, Malformed> {
        history::check(history)?;
        let change = |slot: &HistorySlot| Change {
            previous: history::until(now, slot.previous_for)
                .map(|until| Previous { place: slot.previous, until }),
            remembered_until: history::until(now, slot.remembered_for),
        };
        let moving = |s: &HistorySlot| Moving { slot: s.slot.into(), change: change(s) };
        let place = |address: &SocketAddr| Place { address: *address, state: PlaceState::Alive };
        let mut transition = Self {
            places: Places(history.backends.iter().map(place).collect()),
            current: history.current.clone(),
            moving: history.moving.iter().map(moving).collect(),
            size: usize::try_from(history.size).unwrap_or(0),
            deadline: None,
        };
        transition.settle(now);
        Ok(transition)
    }

    /// What another host needs to go on as this one does.
    pub fn history(&self, now: Instant) -> History {
        let slot = |moving: &Moving| {
            let change = moving.change.at(now);
            let previous = change.previous;
            HistorySlot {
                slot: u16::try_from(moving.slot).unwrap_or(u16::MAX),
                previous: previous.map_or(0, |p| p.place),
                previous_for: history::seconds_until(now, previous.map(|p| p.until)),
                remembered_for: history::seconds_until(now, change.remembered_until),
            }
        };
        let is_left = |slot: &HistorySlot| slot.previous_for > 0 || slot.remembered_for > 0;
        History {
            backends: self.places.0.iter().map(|place| place.address).collect(),
            size: u32::try_from(self.size).unwrap_or(0),
            current: self.current.clone(),
            moving: self.moving.iter().map(slot).filter(is_left).collect(),
        }
    }

    /// Equal where every flow goes to the same backend, as long as none is over: deadlines do not count.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = mix(self.size as u64 ^ (self.current.len() as u64) << 32);
        let mut add = |word: u64| hash = mix(hash.rotate_left(17) ^ word);
        for place in &self.places.0 {
            let port = u64::from(place.address.port());
            let bits = match place.address.ip() {
                IpAddr::V4(v4) => u128::from(v4.to_bits()),
                IpAddr::V6(v6) => v6.to_bits(),
            };
            add((bits >> 64) as u64);
            add(bits as u64 ^ port << 48);
        }
        for slots in self.current.chunks(4) {
            add(slots.iter().fold(0, |word, slot| word << 16 | u64::from(*slot)));
        }
        for Moving { slot, change } in &self.moving {
            let previous = change.previous.map_or(Slot::REMEMBERED, |p| p.place);
            add((*slot as u64) << 16 | u64::from(previous));
        }
        hash
    }

    /// The service has these backends now, and its table is this one: places in `members`, a power of
    /// two of them; none when nobody takes new flows.
    pub fn change(&mut self, now: Instant, members: &[Member], table: &[u16]) {
        debug_assert!(table.is_empty() || table.len().is_power_of_two());
        let members = &members[..members.len().min(SERVICE_BACKENDS_MAX)];
        self.expire(now);
        let place_of = self.places.update(now, members);
        self.grow(table.len());
        let mut change_of = Changes { moving: self.moving.iter().peekable() };
        let mut moving = Vec::new();
        for (slot, owner) in self.current.iter_mut().enumerate() {
            let place = match table.len() {
                0 => None,
                len => place_of.get(usize::from(table[slot & (len - 1)])).copied(),
            };
            let (old, new) = (*owner, place.unwrap_or(Slot::NOBODY));
            let change = change_of.of(slot);
            *owner = new;
            if old == new && change == Change::default() {
                continue;
            }
            let change = change.followed_by(now, old, new, &self.places);
            // At the start and when a backend goes down, whole tables settle at once.
            if change != Change::default() {
                moving.push(Moving { slot, change });
            }
        }
        self.moving = moving;
        self.size = table.len();
        self.settle(now);
    }

    /// To be called when `deadline` has passed.
    pub fn tick(&mut self, now: Instant) {
        if self.deadline.is_some_and(|at| at <= now) {
            self.expire(now);
            self.settle(now);
        }
        debug_assert!(self.deadline().is_none_or(|at| now < at));
    }

    /// When to call `tick`; `None`: nothing is in a change.
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whom the slots name, by place.
    pub fn backends(&self) -> Vec<FastBackend> {
        self.places.0.iter().map(|place| FastBackend::new(place.shown())).collect()
    }

    /// The table as the kernel needs it; empty when nobody takes flows and nobody has any.
    pub fn slots(&self) -> Vec<Slot> {
        let settled = |&current: &u16| Slot { current, previous: current };
        let mut slots: Vec<Slot> = self.current.iter().map(settled).collect();
        for Moving { slot, change } in &self.moving {
            slots[*slot].previous = change.previous.map_or(Slot::REMEMBERED, |p| p.place);
        }
        slots
    }

    /// How many slots are in a change.
    pub const fn moving(&self) -> usize {
        self.moving.len()
    }

    /// Makes room for a larger table by writing the present one twice, and again: each flow finds in
    /// the copy what it found before.
    fn grow(&mut self, slots: usize) {
        if self.current.is_empty() {
            self.current = vec![Slot::NOBODY; slots];
        }
        while self.current.len() < slots {
            let len = self.current.len();
            self.current.extend_from_within(..);
            let copies = |moving: &Moving| Moving { slot: moving.slot + len, ..*moving };
            let copies: Vec<Moving> = self.moving.iter().map(copies).collect();
            self.moving.extend(copies);
        }
    }

    /// Forgets what is over.
    fn expire(&mut self, now: Instant) {
        for moving in &mut self.moving {
            moving.change = moving.change.at(now);
        }
    }

    /// Drops the slots that are settled; a table that was larger than it need be gets smaller when all
    /// are, since it holds the smaller one several times then.
    fn settle(&mut self, now: Instant) {
        self.moving.retain(|moving| moving.change != Change::default());
        self.deadline = self.moving.iter().filter_map(|moving| moving.change.deadline()).min();
        if self.moving.is_empty() {
            self.current.truncate(self.size);
        }
        self.check_invariants(now);
    }

    fn check_invariants(&self, now: Instant) {
        debug_assert!(self.deadline.is_none_or(|at| now < at));
        debug_assert!(self.moving.is_sorted_by(|a, b| a.slot < b.slot));
        debug_assert!(self.moving.last().is_none_or(|last| last.slot < self.current.len()));
        debug_assert!(self.size <= self.current.len());
        if cfg!(debug_assertions) {
            for moving in &self.moving {
                let previous = moving.change.previous.map(|p| p.place);
                debug_assert!(previous != Some(self.current[moving.slot]));
                debug_assert!(previous != Some(Slot::NOBODY));
            }
        }
    }
}

impl Change {
    /// What is left of the past after the slot went from one backend to another, or kept its own while
    /// others came and went.
    fn followed_by(self, now: Instant, old: u16, new: u16, places: &Places) -> Self {
        let until = now + FAST_DRAIN;
        let previous = self.previous.filter(|p| places.is_alive(p.place));
        if old == new {
            return Self { previous, ..self };
        }
        let keeps_flows = places.is_alive(old);
        let remembered_until = if keeps_flows { Some(until) } else { self.remembered_until };
        match previous {
            // It is back before its flows were over: they are at home, and those since are remembered.
            Some(back) if back.place == new => Self { previous: None, remembered_until },
            Some(first) => Self { previous: Some(first), remembered_until },
            None => Self {
                previous: keeps_flows.then_some(Previous { place: old, until }),
                remembered_until: self.remembered_until,
            },
        }
    }

    fn at(self, now: Instant) -> Self {
        Self {
            previous: self.previous.filter(|p| now < p.until),
            remembered_until: self.remembered_until.filter(|until| now < *until),
        }
    }

    fn deadline(self) -> Option<Instant> {
        let previous = self.previous.map(|p| p.until);
        previous.into_iter().chain(self.remembered_until).min()
    }
}

/// Walks along the slots in a change beside a walk along all slots.
struct Changes<'m> {
    moving: core::iter::Peekable<core::slice::Iter<'m, Moving>>,
}

impl Changes<'_> {
    fn of(&mut self, slot: usize) -> Change {
        self.moving.next_if(|moving| moving.slot == slot).map_or(Change::default(), |m| m.change)
    }
}

/// Who is at which place.
#[derive(Clone, Debug, Default)]
struct Places(Vec<Place>);

#[derive(Clone, Copy, Debug)]
struct Place {
    address: SocketAddr,
    state: PlaceState,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum PlaceState {
    /// Serves the flows it has.
    Alive,
    /// In the service, and down.
    Down,
    /// Not in the service since then.
    Gone(Instant),
}

impl Place {
    fn shown(&self) -> SocketAddr {
        let nobody = match self.address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        match self.state {
            PlaceState::Alive => self.address,
            PlaceState::Down | PlaceState::Gone(_) => SocketAddr::new(nobody, 0),
        }
    }
}

impl Places {
    fn adopt(now: Instant, backends: &[FastBackend]) -> Self {
        let place = |backend: &FastBackend| {
            let somebody = !backend.address.ip().is_unspecified();
            let state = if somebody { PlaceState::Alive } else { PlaceState::Gone(now) };
            Place { address: backend.address, state }
        };
        Self(backends.iter().take(FAST_PLACES_MAX).map(place).collect())
    }

    fn is_alive(&self, place: u16) -> bool {
        self.0.get(usize::from(place)).is_some_and(|p| p.state == PlaceState::Alive)
    }

    /// The place of each member, in their order.
    fn update(&mut self, now: Instant, members: &[Member]) -> Vec<u16> {
        // Before anybody leaves: a place that becomes free now still stands in the slots.
        let mut free = self.gone();
        for place in &mut self.0 {
            let member = members.iter().find(|m| m.address == place.address);
            place.state = match (member, place.state) {
                (Some(member), PlaceState::Alive | PlaceState::Down | PlaceState::Gone(_))
                    if member.alive =>
                {
                    PlaceState::Alive
                }
                (Some(_), PlaceState::Alive | PlaceState::Down | PlaceState::Gone(_)) => {
                    PlaceState::Down
                }
                (None, PlaceState::Alive | PlaceState::Down) => PlaceState::Gone(now),
                (None, PlaceState::Gone(since)) => PlaceState::Gone(since),
            };
        }
        free.retain(|&(_, i)| matches!(self.0[i].state, PlaceState::Gone(_)));
        let mut free = free.into_iter().peekable();
        // By address, so that two nodes that begin with the same backends have the same places.
        let is_new = |member: &&Member| self.0.iter().all(|p| p.address != member.address);
        let mut new: Vec<Member> = members.iter().filter(is_new).copied().collect();
        new.sort_unstable_by_key(|m| m.address);
        new.dedup_by_key(|m| m.address);
        for Member { address, alive } in new {
            let state = if alive { PlaceState::Alive } else { PlaceState::Down };
            let full = FAST_PLACES_MAX <= self.0.len();
            let rested = |&(since, _): &(Instant, usize)| full || since + FAST_DRAIN <= now;
            match free.next_if(rested) {
                Some((_, i)) => self.0[i] = Place { address, state },
                None => self.0.push(Place { address, state }),
            }
        }
        debug_assert!(self.0.len() <= FAST_PLACES_MAX, "half of them were free before");
        let place_of = |member: &Member| {
            let at = self.0.iter().position(|p| p.address == member.address);
            at.and_then(|at| u16::try_from(at).ok()).unwrap_or(Slot::NOBODY)
        };
        members.iter().map(place_of).collect()
    }

    /// Places that nobody has, with the time since when, the one that has rested longest first.
    fn gone(&self) -> Vec<(Instant, usize)> {
        let since = |(i, place): (usize, &Place)| match place.state {
            PlaceState::Gone(since) => Some((since, i)),
            PlaceState::Alive | PlaceState::Down => None,
        };
        let mut gone: Vec<_> = self.0.iter().enumerate().filter_map(since).collect();
        gone.sort_unstable();
        gone
    }
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
