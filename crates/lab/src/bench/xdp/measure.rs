//! Runs all cases in turns, round by round, so that a bad moment of the machine hits all of them, and checks
//! every verdict and the last packet of each run.

use super::cases::{Case, Kind, Subject};
use super::verify;
use super::world::{self, World};
use crate::{Error, Result};
use buoy_kernel::fast::Fast;
use buoy_kernel::rig::{Rig, Run};
use buoy_model::{LinkId, Slot};
use buoy_xdp::forward;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// Frames that are tried come in by the loopback interface of this namespace.
pub(super) const LOOPBACK: LinkId = LinkId(1);
/// Packets that go before those that are measured: caches that another case has emptied.
const WARM: u32 = 200;

/// The floors are small, and all else is compared with them: they have their turn before every so many other cases.
const BETWEEN_FLOORS: usize = 12;
/// Of the rounds: what differs among them, a run cannot say better than that.
pub(super) const PARTS: usize = 5;

/// Nanoseconds of one packet, with what the measuring costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    /// The best round.
    pub(super) best: f64,
    /// Nine of ten rounds were slower.
    pub(super) tenth: f64,
    pub(super) median: f64,
    /// The best round of each part of the run.
    pub(super) parts: [f64; PARTS],
}

/// What was measured, by case.
pub(super) type Figures = BTreeMap<Case, Figure>;

/// A loaded fast path with its services.
pub(super) struct Loaded {
    pub(super) fast: Fast,
    /// Of all its services.
    pub(super) slots: Arc<[Slot]>,
}

/// For `map_err`: there is no fast path here.
pub(super) fn refused(error: buoy_kernel::fast::FastError) -> Error {
    Error::Forbidden { reason: error.to_string() }
}

/// All cases in turns.
pub(super) fn measure(
    rig: &mut Rig,
    worlds: &mut BTreeMap<World, Loaded>,
    cases: &[Case],
    rounds: usize,
    packets: u32,
) -> Result<Figures> {
    let mut times: BTreeMap<Case, Vec<f64>> = BTreeMap::new();
    let turns = turns(cases);
    for round in 0..rounds {
        for &case in &turns {
            let loaded = match case.subject {
                Subject::Floor(floor, _) => {
                    rig.aim_at_floor(floor).map_err(refused)?;
                    None
                }
                Subject::Buoy(world) => {
                    let loaded = worlds.get_mut(&world);
                    let loaded = loaded.ok_or_else(|| Error::Unknown { what: case.name() })?;
                    rig.aim_at(&mut loaded.fast).map_err(refused)?;
                    Some(&*loaded)
                }
            };
            rig.set(&case.traffic());
            rig.run(WARM).map_err(refused)?;
            let run = rig.run(packets).map_err(refused)?;
            check(case, loaded, &run)?;
            let each = run.time.as_secs_f64() * 1e9 / f64::from(packets);
            times.entry(case).or_default().push(each);
        }
        if (round + 1) % 20 == 0 {
            println!("  {} of {rounds} rounds", round + 1);
        }
    }
    Ok(times.into_iter().map(|(case, times)| (case, figure(times))).collect())
}

/// The order of one round.
fn turns(cases: &[Case]) -> Vec<Case> {
    let is_floor = |case: &Case| matches!(case.subject, Subject::Floor(..));
    let (floors, others): (Vec<Case>, Vec<Case>) = cases.iter().partition(|case| is_floor(case));
    let others = others.chunks(BETWEEN_FLOORS).flat_map(|some| [&floors, some].concat());
    others.chain(floors.iter().copied()).collect()
}

fn figure(mut times: Vec<f64>) -> Figure {
    let mut parts = [0.0; PARTS];
    for (part, times) in parts.iter_mut().zip(times.chunks(times.len().div_ceil(PARTS).max(1))) {
        *part = times.iter().copied().fold(f64::INFINITY, f64::min);
    }
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    Figure { best: at(0), tenth: at(10), median: at(50), parts }
}

fn check(case: Case, loaded: Option<&Loaded>, run: &Run) -> Result<()> {
    let wrong = |said: &str| {
        let said = format!("{}: {said}: {:02x?}", case.name(), run.frame);
        Err(Error::Agent { node: "fast path".to_owned(), said })
    };
    if run.wrong != 0 {
        return wrong(&format!("{} packets had another verdict", run.wrong));
    }
    let (Subject::Buoy(world), Some(loaded)) = (case.subject, loaded) else { return Ok(()) };
    let traffic = case.traffic();
    let before = verify::packet(&traffic.frame, run.number, traffic.flows, traffic.services);
    if case.kind == Kind::NotOurs {
        return if run.frame == before { Ok(()) } else { wrong("it changed") };
    }
    // In a change, who had a slot before depends on what came before.
    let place = if world.in_change { None } else { place_of(loaded, &before) };
    match verify::fault(world.forward, &before, &run.frame, place) {
        Some(fault) => wrong(fault),
        None => Ok(()),
    }
}

/// The backend that the table of the first service has for a packet.
fn place_of(loaded: &Loaded, frame: &[u8]) -> Option<u16> {
    let (client, port): (IpAddr, &[u8]) = match verify::family_of(frame) {
        world::Family::V4 => {
            let bytes: [u8; 4] = frame.get(26..30)?.try_into().ok()?;
            (Ipv4Addr::from(bytes).into(), frame.get(34..36)?)
        }
        world::Family::V6 => {
            let bytes: [u8; 16] = frame.get(22..38)?.try_into().ok()?;
            (Ipv6Addr::from(bytes).into(), frame.get(54..56)?)
        }
    };
    let port = u16::from_be_bytes(port.try_into().ok()?);
    let hash = forward::hash_flow(world::SEED, client, port);
    let mask = u64::try_from(loaded.slots.len()).ok()?.checked_sub(1)?;
    loaded.slots.get(usize::try_from(hash & mask).ok()?).map(|slot| slot.current)
}

/// Nanoseconds of a packet without what the measuring costs.
pub(super) fn net(figures: &Figures, case: Case) -> Option<f64> {
    let nothing = Case::floor(buoy_kernel::rig::Floor::Nothing, case.family());
    Some(figures.get(&case)?.best - figures.get(&nothing)?.best)
}

/// The same, least and most of the parts of the run; `None` where there were too few rounds.
pub(super) fn net_of_parts(figures: &Figures, case: Case) -> Option<(f64, f64)> {
    let nothing = Case::floor(buoy_kernel::rig::Floor::Nothing, case.family());
    let (case, nothing) = (figures.get(&case)?.parts, figures.get(&nothing)?.parts);
    if nothing.contains(&0.0) {
        return None;
    }
    let nets = case.iter().zip(nothing).map(|(case, nothing)| case - nothing);
    Some(nets.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), net| {
        (least.min(net), most.max(net))
    }))
}

/// The time of one piece of work.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = std::time::Instant::now();
    let done = work();
    (done, start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_best_round_the_tenth_and_the_middle() {
        let times: Vec<f64> = (0..100).rev().map(f64::from).collect();
        let parts = [80.0, 60.0, 40.0, 20.0, 0.0];
        assert_eq!(figure(times), Figure { best: 0.0, tenth: 10.0, median: 50.0, parts });
    }

    #[test]
    fn floors_have_their_turn_among_the_other_cases() {
        let cases = [super::super::cases::floors(), super::super::cases::cases(&[])].concat();
        let turns = turns(&cases);
        let is_array = |case: &&Case| **case == super::super::cases::named::ARRAY;
        let others = cases.len() - super::super::cases::floors().len();
        assert_eq!(turns.iter().filter(is_array).count(), others.div_ceil(BETWEEN_FLOORS) + 1);
        for case in &cases {
            assert!(turns.contains(case), "{}", case.name());
        }
    }

    #[test]
    fn how_much_a_floor_differs_within_a_run_is_said_where_there_were_rounds_enough() {
        let case = super::super::cases::named::ARRAY;
        let nothing = Case::floor(buoy_kernel::rig::Floor::Nothing, case.family());
        let figures = |rounds: usize| {
            let (floor, idle) = ([44.0, 43.0, 42.0, 45.0, 43.5], [40.0, 41.0, 40.0, 40.0, 40.0]);
            let of = |times: [f64; 5]| figure(times[..rounds].to_vec());
            Figures::from([(case, of(floor)), (nothing, of(idle))])
        };
        assert_eq!(net_of_parts(&figures(5), case), Some((2.0, 5.0)));
        assert_eq!(net_of_parts(&figures(4), case), None);
    }
}
