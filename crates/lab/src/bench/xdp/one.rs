//! What it costs when one of many services, each with backends of its own, loses one: from its state to the last slot.

use super::measure::{LOOPBACK, refused, timed};
use super::tables::write;
use super::world::{self, Family, SEED};
use crate::{Error, Result};
use buoy_core::fast::{Fast, standing};
use buoy_kernel::fast::{self as kernel, Capacity};
use buoy_model::limits::FAST_DRAIN;
use buoy_model::{
    Backend, BackendState, Cidr, Desired, FlowFields, Forward, Group, GroupId, Instant, Mode,
    NodeId, Ports, Presence, Safety, Service, Standing, VipAddress,
};
use std::time::Duration;

/// Backends of one service.
pub(super) const BACKENDS: u32 = 10;
/// How often some backend goes down.
const CHANGES: u32 = 50;
/// How often it does while all services are looked at.
const WHOLE_CHANGES: u32 = 3;
/// Services of one address.
const PORTS: u32 = 10;

/// The middle of some.
#[derive(Clone, Debug, Default)]
pub(super) struct One {
    pub(super) services: u32,
    /// Slots of one service.
    pub(super) slots: usize,
    /// What should be there.
    pub(super) core: Duration,
    /// The kernel's memory.
    pub(super) kernel: Duration,
    pub(super) all: Duration,
    /// The same where all services are looked at, as after an edit of the file.
    pub(super) whole: Duration,
}

/// One backend of one of so many services goes down, and comes back.
pub(super) fn one_of(services: u32) -> Result<One> {
    let desired = desired(services);
    let mut fast = Fast::new(SEED);
    fast.change(Instant::ZERO, &desired, stands(None));
    let path = fast.path();
    let mut tables = kernel::Fast::open_unpinned(Capacity::of(&path)).map_err(refused)?;
    write(&mut tables, &path)?;
    let _all_of_it = fast.changed();
    let slots = path.services.first().map_or(0, |service| service.slots.len());
    drop(path);
    let (mut now, mut times) = (Instant::ZERO, [vec![], vec![], vec![]]);
    for round in 0..CHANGES {
        let (group, service) = pick(&desired, round * 7919 % services)?;
        let down = service.backends.get(3).map(|backend| backend.name.as_str());
        for down in [down, None] {
            let changed = || {
                fast.change_of(now, [(group, service)].into_iter(), stands(down));
                fast.changed()
            };
            let (changed, core) = timed(changed);
            let (done, kernel) = timed(|| amend(&mut tables, changed));
            done?;
            if down.is_some() {
                for (times, took) in times.iter_mut().zip([core, kernel, core + kernel]) {
                    times.push(took);
                }
            }
        }
        now = now + FAST_DRAIN + Duration::from_secs(1);
        fast.tick(now);
        let drained = fast.changed();
        amend(&mut tables, drained)?;
    }
    let mut whole = Vec::new();
    for round in 0..WHOLE_CHANGES {
        let (_, service) = pick(&desired, round)?;
        let down = service.backends.get(3).map(|backend| backend.name.as_str());
        let (done, took) = timed(|| {
            fast.change(now, &desired, stands(down));
            write(&mut tables, &fast.path())
        });
        done?;
        whole.push(took);
    }
    let [core, kernel, all] = times.map(|times| crate::probe::median(&times));
    Ok(One { services, slots, core, kernel, all, whole: crate::probe::median(&whole) })
}

fn amend(tables: &mut kernel::Fast, changed: Option<Vec<buoy_model::FastService>>) -> Result<()> {
    let way = &mut |to| world::way(LOOPBACK, world::OWN_MAC, to);
    if changed.is_some_and(|changed| tables.amend(SEED, &changed, way)) {
        return Ok(());
    }
    Err(Error::Unknown { what: "way to change one service alone".to_owned() })
}

fn stands(down: Option<&str>) -> impl Fn(&Group, &Service, &Backend) -> Standing + '_ {
    move |_, service, backend| {
        let is_down = down == Some(backend.name.as_str());
        let state = if is_down { BackendState::Down } else { BackendState::Up };
        standing(service, state, false)
    }
}

fn pick(desired: &Desired, number: u32) -> Result<(&Group, &Service)> {
    let (group, port) = (number / PORTS, number % PORTS);
    let at = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let group = desired.groups.get(at(group));
    let found = group.and_then(|group| Some((group, group.services.get(at(port))?)));
    found.ok_or_else(|| Error::Unknown { what: format!("service {number}") })
}

fn desired(services: u32) -> Desired {
    let _beat = Duration::from_millis(10);
    Desired::new(
        "bench",
        NodeId(1),
        vec![],
        (0..services.div_ceil(PORTS)).map(|number| group(number, services)).collect(),
    )
}

fn group(number: u32, services: u32) -> Group {
    let vip = world::vip(Family::V4, number).ip();
    let address = Cidr::new(vip, 16).map(|cidr| VipAddress {
        cidr,
        link: Some(LOOPBACK),
        link_name: "lo".into(),
        vip_name: "vip".into(),
        presence: Presence::Assigned,
    });
    let first = number * PORTS;
    Group {
        safety: Safety::Available,
        nodes: vec![NodeId(1)],
        services: (first..services.min(first + PORTS)).map(|n| service(vip, n)).collect(),
        ..Group::new(GroupId(number), &number.to_string(), address.into_iter().collect())
    }
}

fn service(vip: std::net::IpAddr, number: u32) -> Service {
    let backend = |at| {
        let address = world::backend(Family::V4, number * BACKENDS + at);
        Backend::new(&address.to_string(), (address, 80).into())
    };
    Service::new(
        Mode::Xdp { forward: Forward::Tunnel, flow: FlowFields::Connection },
        vec![vip],
        Ports::one(80 + (number % PORTS) as u16),
        (0..BACKENDS).map(backend).collect(),
    )
}
