//! Random services under random changes, from a printed seed: what holds for every table and transition.

// A failed `unwrap` is a failed test, and the seed is printed.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use buoy_core::balance::{Share, shares};
use buoy_core::maglev::Table;
use buoy_core::transition::{Member, Transition};
use buoy_model::limits::{BACKEND_WEIGHT_MAX, FAST_DRAIN, FAST_PLACES_MAX, SERVICE_BACKENDS_MAX};
use buoy_model::{Backend, BackendState, Instant, Slot};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Rounds of each test.
const ROUNDS: usize = 60;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % limit
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }

    /// Small and equal weights mostly, as people write them.
    fn weight(&mut self) -> u16 {
        let most = [1, 1, 4, 16, usize::from(BACKEND_WEIGHT_MAX)][self.below(5)];
        u16::try_from(1 + self.below(most)).unwrap()
    }

    fn backends(&mut self, most: usize) -> Vec<Backend> {
        let count = 2 + self.below(most - 1);
        let salt = self.next();
        (0..count).map(|i| backend(&format!("{salt:x}-{i}"), i, self.weight())).collect()
    }
}

fn random() -> Random {
    let seed = std::env::var("BUOY_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x6275_6f79);
    println!("seed {seed}; BUOY_SEED={seed} repeats this run");
    Random(seed | 1)
}

fn backend(name: &str, i: usize, weight: u16) -> Backend {
    let [high, low] = u16::try_from(i).unwrap().to_be_bytes();
    let address = SocketAddr::from(([10, 0, high, low], 80));
    Backend { weight, ..Backend::new(name, address) }
}

fn table(backends: &[Backend], shares: &[Share]) -> Table {
    Table::new(backends, shares).unwrap()
}

#[test]
fn shares_are_within_a_slot_of_weights() {
    let mut random = random();
    for _ in 0..ROUNDS {
        let set = random.backends(SERVICE_BACKENDS_MAX);
        let table = table(&set, &shares(&set, &[]));
        let slots = table.slots().len();
        let total: usize = set.iter().map(|b| usize::from(b.weight)).sum();
        let mut counts = vec![0; set.len()];
        table.slots().iter().for_each(|&place| counts[usize::from(place)] += 1);
        for (backend, &count) in set.iter().zip(&counts) {
            // |count - slots * weight / total| < 1, without a fraction.
            let exact = slots * usize::from(backend.weight);
            let off = (count * total).abs_diff(exact);
            assert!(off < total, "{count} of {slots} for {} of {total}", backend.weight);
            assert!(0 < count);
        }
    }
}

#[test]
fn the_order_of_lines_changes_nothing() {
    let mut random = random();
    for _ in 0..ROUNDS {
        let set = random.backends(40);
        let mut shuffled = set.clone();
        random.shuffle(&mut shuffled);
        let (a, b) = (table(&set, &shares(&set, &[])), table(&shuffled, &shares(&shuffled, &[])));
        assert_eq!(a.digest(), b.digest());
        let same = |(a, b): (&u16, &u16)| set[usize::from(*a)] == shuffled[usize::from(*b)];
        assert!(a.slots().iter().zip(b.slots()).all(same));
    }
}

/// Slots that go from one backend to another though both tables have the two.
fn needless(before: &Table, after: &Table, gone: usize) -> usize {
    let pairs = before.slots().iter().zip(after.slots());
    pairs.filter(|(b, a)| b != a && usize::from(**b) != gone).count()
}

#[test]
fn a_backend_that_comes_or_goes_moves_its_slots_and_few_others() {
    let mut random = random();
    let mut worst = (0, 1);
    for round in 0..ROUNDS {
        let mut set = random.backends(SERVICE_BACKENDS_MAX);
        if round % 2 == 0 {
            set.iter_mut().for_each(|b| b.weight = 1);
        }
        let gone = random.below(set.len());
        let all = table(&set, &shares(&set, &[]));
        let mut states = vec![BackendState::Up; set.len()];
        states[gone] = BackendState::Down;
        let left = table(&set, &shares(&set, &states));
        assert!(!left.slots().iter().any(|&place| usize::from(place) == gone));
        // The same number whichever is first: what comes moves as much as what goes.
        let moved = needless(&all, &left, gone);
        let slots = all.slots().len();
        if worst.0 * slots < moved * worst.1 {
            worst = (moved, slots);
        }
        assert!(moved * 1000 < slots * 35, "{moved} of {slots}, {} backends", set.len());
    }
    println!("worst: {} of {} slots moved without need", worst.0, worst.1);
}

/// A flow and where it has to go, as the kernel's program does it.
#[derive(Clone, Copy, Debug)]
struct Flow {
    hash: usize,
    server: SocketAddr,
    /// When its server lost its slot; `None`: not yet.
    lost: Option<Instant>,
}

/// What the kernel does with a packet: the rules of `Slot`.
struct Kernel {
    remembered: BTreeMap<usize, u16>,
}

impl Kernel {
    fn server(transition: &Transition, place: u16) -> Option<SocketAddr> {
        let backends = transition.backends();
        let address = backends.get(usize::from(place))?.address;
        (!address.ip().is_unspecified()).then_some(address)
    }

    fn begin(
        &mut self,
        transition: &Transition,
        slots: &[Slot],
        flow: usize,
        hash: usize,
    ) -> Option<SocketAddr> {
        let slot = slots.get(hash & slots.len().saturating_sub(1))?;
        if slot.current != slot.previous {
            self.remembered.insert(flow, slot.current);
        } else {
            self.remembered.remove(&flow);
        }
        Self::server(transition, slot.current)
    }

    fn go_on(
        &self,
        transition: &Transition,
        slots: &[Slot],
        flow: usize,
        hash: usize,
    ) -> Option<SocketAddr> {
        let slot = slots.get(hash & slots.len().saturating_sub(1))?;
        if slot.current == slot.previous {
            return Self::server(transition, slot.current);
        }
        let remembered = self.remembered.get(&flow).and_then(|&p| Self::server(transition, p));
        let previous = || Self::server(transition, slot.previous);
        remembered.or_else(previous).or_else(|| Self::server(transition, slot.current))
    }
}

/// Flows begin at random times while backends come, go, drain and die; each keeps its server as long as
/// that one is alive, and for `FAST_DRAIN` after the change in which it lost the slot.
#[test]
fn a_flow_stays_where_it_is_until_its_time_is_over() {
    let mut random = random();
    for _ in 0..12 {
        let mut set = random.backends(24);
        let mut states = vec![BackendState::Up; set.len()];
        let mut now = Instant::ZERO;
        let mut transition = Transition::default();
        let mut kernel = Kernel { remembered: BTreeMap::new() };
        let mut flows: BTreeMap<usize, Flow> = BTreeMap::new();
        let (mut next, mut broken) = (0, 0);
        for _ in 0..40 {
            let owners = change(&mut random, &mut set, &mut states, &mut transition, now);
            for step in 0..3 {
                let slots = transition.slots();
                let alive = |server: SocketAddr| {
                    let at = set.iter().position(|b| b.address == server);
                    at.is_some_and(|i| states[i] == BackendState::Up)
                };
                flows.retain(|&id, flow| {
                    let owner = owners.get(flow.hash & owners.len().saturating_sub(1));
                    if owner == Some(&flow.server) {
                        flow.lost = None;
                    } else {
                        flow.lost = flow.lost.or(Some(now));
                    }
                    let over = flow.lost.is_some_and(|lost| lost + FAST_DRAIN <= now);
                    let got = kernel.go_on(&transition, &slots, id, flow.hash);
                    if alive(flow.server) && !over {
                        assert_eq!(got, Some(flow.server), "flow {id} {flow:?} at {now:?}");
                    }
                    broken += usize::from(got != Some(flow.server));
                    got == Some(flow.server)
                });
                for _ in 0..20 {
                    let hash = usize::try_from(random.next() >> 8).unwrap();
                    if let Some(server) = kernel.begin(&transition, &slots, next, hash) {
                        assert!(alive(server), "a new flow goes to a backend that is up");
                        flows.insert(next, Flow { hash, server, lost: None });
                    }
                    next += 1;
                }
                if step < 2 {
                    now = now + Duration::from_secs(u64::try_from(random.below(200)).unwrap());
                    transition.tick(now);
                }
            }
            assert!(transition.backends().len() <= FAST_PLACES_MAX);
        }
        println!("{next} flows, {broken} broken by servers that went or by time");
    }
}

/// Something happens to the backends; the answer is who has each slot of the new table.
fn change(
    random: &mut Random,
    set: &mut Vec<Backend>,
    states: &mut Vec<BackendState>,
    transition: &mut Transition,
    now: Instant,
) -> Vec<SocketAddr> {
    let at = random.below(set.len());
    match random.below(6) {
        0 | 1 => {
            let turned = states[at] == BackendState::Up;
            states[at] = if turned { BackendState::Down } else { BackendState::Up };
        }
        2 => set[at].weight = if set[at].weight == 0 { random.weight() } else { 0 },
        3 => set[at].weight = random.weight(),
        4 if 2 < set.len() => {
            set.remove(at);
            states.remove(at);
        }
        _ if set.len() < SERVICE_BACKENDS_MAX => {
            let i = random.below(2000) + 1;
            if set.iter().all(|b| b.address != backend("", i, 1).address) {
                set.push(backend(&format!("late{i}"), i, random.weight()));
                states.push(BackendState::Up);
            }
        }
        _ => {}
    }
    let member = |(b, s): (&Backend, &BackendState)| Member {
        address: b.address,
        alive: *s == BackendState::Up,
    };
    let members: Vec<Member> = set.iter().zip(states.iter()).map(member).collect();
    let table = Table::new(set, &shares(set, states));
    let slots = table.as_ref().map_or(&[][..], |t| t.slots());
    transition.change(now, &members, slots);
    slots.iter().map(|&place| set[usize::from(place)].address).collect()
}
