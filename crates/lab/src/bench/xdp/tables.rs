//! What tables cost: memory, the time to write them, and the time from "this backend is down" to the last slot.

use super::measure::{LOOPBACK, refused, timed};
use super::world::{self, Family, How, World};
use crate::{Error, Result};
use buoy_core::balance::shares;
use buoy_core::maglev::{Base, Table};
use buoy_core::transition::{Member, Transition};
use buoy_kernel::fast::{Capacity, Fast};
use buoy_model::{BackendState, FastBackend, FastPath, Instant, Slot};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The backend that does.
const DOWN: usize = 7;
/// How often a backend goes down, and comes back.
const CHANGES: usize = 50;

/// What the tables of so many services cost.
#[derive(Clone, Debug, Default)]
pub(super) struct Cost {
    pub(super) services: u32,
    pub(super) slots: usize,
    /// Of all maps, as the kernel counts it.
    pub(super) bytes: u64,
    /// From nothing to all of it.
    pub(super) apply: Duration,
    /// The same again.
    pub(super) again: Duration,
    /// A backend that all services have goes down, or comes back: the middle of some.
    pub(super) change: Duration,
}

/// From "this backend is down" to the last slot, for one service: the middle of some.
#[derive(Clone, Debug, Default)]
pub(super) struct Down {
    pub(super) table: Duration,
    pub(super) transition: Duration,
    pub(super) apply: Duration,
    pub(super) all: Duration,
    pub(super) slots: usize,
    pub(super) moved: usize,
}

/// Opens a fast path, fills it, and changes it.
pub(super) fn cost(world: World) -> Result<(Cost, Fast, Arc<[Slot]>)> {
    let mut path = world.path()?;
    let capacity = Capacity::of(&path);
    let before = map_memory();
    let mut fast = Fast::open_unpinned(capacity).map_err(refused)?;
    let bytes = map_memory() - before;
    let (done, apply) = timed(|| write(&mut fast, &path));
    done?;
    let (done, again) = timed(|| write(&mut fast, &path));
    done?;
    let settled = path.services.first().map_or_else(|| Arc::from([]), |s| Arc::clone(&s.slots));
    let mut changes = Vec::new();
    let backends = world.backends();
    let all: Arc<[FastBackend]> = backends.iter().map(|b| FastBackend::new(b.address)).collect();
    let mut without = all.to_vec();
    // What is left to this host has one backend, and loses none.
    if let Some(one) = without.get_mut(DOWN) {
        *one = FastBackend::new(nobody(world.family));
    }
    let without: Arc<[FastBackend]> = without.into();
    for round in 0..CHANGES {
        let is_down = round % 2 == 0;
        let mut states = vec![BackendState::Up; backends.len()];
        if is_down && let Some(state) = states.get_mut(DOWN) {
            *state = BackendState::Down;
        }
        let table = Table::new(&backends, &shares(&backends, &states));
        let slots = table.iter().flat_map(|t| t.slots());
        let slot = |&current: &u16| Slot { current, previous: current };
        give(&mut path, &slots.map(slot).collect(), if is_down { &without } else { &all });
        let (done, took) = timed(|| write(&mut fast, &path));
        done?;
        changes.push(took);
    }
    give(&mut path, &settled, &all);
    write(&mut fast, &path)?;
    let cost = Cost {
        services: world.services,
        slots: settled.len(),
        bytes,
        apply,
        again,
        change: crate::probe::median(&changes),
    };
    Ok((cost, fast, settled))
}

fn give(path: &mut FastPath, slots: &Arc<[Slot]>, backends: &Arc<[FastBackend]>) {
    for service in &mut path.services {
        (service.slots, service.backends) = (Arc::clone(slots), Arc::clone(backends));
    }
}

fn nobody(family: Family) -> SocketAddr {
    match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
        Family::V6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

pub(super) fn write(fast: &mut Fast, path: &FastPath) -> Result<()> {
    fast.apply(path, &mut |to| world::way(LOOPBACK, world::OWN_MAC, to)).map_err(refused)
}

/// One service: its table as the agent makes it, its transition, and the slots in the kernel.
pub(super) fn down() -> Result<Down> {
    let world = World::one(How::Tunnel, Family::V4);
    let backends = world.backends();
    let no_table = || Error::Unknown { what: "table".to_owned() };
    let base = Base::new(&backends, &shares(&backends, &[])).ok_or_else(no_table)?;
    let mut path = world.path()?;
    let service =
        path.services.first_mut().ok_or_else(|| Error::Unknown { what: "service".to_owned() })?;
    let mut transition = Transition::adopt(Instant::ZERO, service);
    let mut fast = Fast::open_unpinned(Capacity::of(&path)).map_err(refused)?;
    write(&mut fast, &path)?;
    let mut times: [Vec<Duration>; 4] = Default::default();
    let mut moved = 0;
    for round in 0..2 * CHANGES {
        let is_down = round % 2 == 0;
        let state = |at| if is_down && at == DOWN { BackendState::Down } else { BackendState::Up };
        let states: Vec<_> = (0..backends.len()).map(state).collect();
        let (table, first) = timed(|| {
            let shares = shares(&backends, &states);
            base.is_of(&backends, &shares).then(|| base.table(&shares)).flatten()
        });
        let table = table.ok_or_else(no_table)?;
        let before = path.services[0].slots.clone();
        let ((), second) = timed(|| {
            let member = |(backend, state): (&buoy_model::Backend, &BackendState)| Member {
                address: backend.address,
                alive: *state == BackendState::Up,
            };
            let members: Vec<Member> = backends.iter().zip(&states).map(member).collect();
            transition.change(Instant::ZERO, &members, table.slots());
            path.services[0].backends = transition.backends().into();
            path.services[0].slots = transition.slots().into();
        });
        let (done, third) = timed(|| write(&mut fast, &path));
        done?;
        if is_down {
            for (times, took) in
                times.iter_mut().zip([first, second, third, first + second + third])
            {
                times.push(took);
            }
            moved =
                before.iter().zip(path.services[0].slots.iter()).filter(|(a, b)| a != b).count();
        }
        // The drain is over.
        if let Some(deadline) = transition.deadline() {
            transition.tick(deadline + Duration::from_secs(1));
            path.services[0].slots = transition.slots().into();
            write(&mut fast, &path)?;
        }
    }
    let [table, transition, apply, all] = times.map(|times| crate::probe::median(&times));
    Ok(Down { table, transition, apply, all, slots: path.services[0].slots.len(), moved })
}

/// Bytes of all maps that this process holds.
fn map_memory() -> u64 {
    let Ok(entries) = std::fs::read_dir("/proc/self/fdinfo") else { return 0 };
    let mut maps = BTreeMap::new();
    for entry in entries.flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse::<u64>().ok())
        };
        if let Some((id, bytes)) = number("map_id:").zip(number("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    maps.values().sum()
}
