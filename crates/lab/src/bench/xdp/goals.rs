//! What was aimed at, and whether it was reached: each goal a ratio within one run, so that it says something on
//! other machines, or a time.

use super::cases::named::{self, Flood};
use super::cases::{self, Case};
use super::live::{Live, Load, Path};
use super::measure::{Figures, net};
use super::one::One;
use super::tables::{Cost, Down};
use super::world::{Family, How};
use buoy_kernel::rig::Floor;

/// All that was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) figures: Figures,
    pub(super) live: Live,
    pub(super) costs: Vec<Cost>,
    pub(super) down: Option<Down>,
    pub(super) one: Option<One>,
    /// Numbers of services, beside one.
    pub(super) services: Vec<u32>,
}

impl Outcome {
    /// How much longer the other way of frames takes.
    pub(super) fn times_as_fast(&self, path: Path, than: Path, load: Load) -> Option<f64> {
        let best = |path| self.live.get(&(path, load)).map(|figure| figure.0);
        Some(best(than)? / best(path)?)
    }
}

/// Which side of the limit is the right one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// One goal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Goal {
    pub(super) what: String,
    pub(super) limit: Limit,
    /// `None`: not measured in this run.
    pub(super) value: Option<f64>,
    pub(super) unit: &'static str,
}

impl Goal {
    pub(super) fn is_met(&self) -> Option<bool> {
        self.value.map(|value| match self.limit {
            Limit::AtMost(limit) => value <= limit,
            Limit::AtLeast(limit) => limit <= value,
        })
    }
}

/// All of them.
pub(super) fn goals(outcome: &Outcome) -> Vec<Goal> {
    let mut goals = packets(outcome);
    goals.extend(services_and_families(outcome));
    goals.extend(frames(outcome));
    goals.extend(times(outcome));
    goals
}

fn goal(what: impl Into<String>, limit: Limit, value: Option<f64>) -> Goal {
    Goal { what: what.into(), limit, value, unit: "x" }
}

fn ratio(outcome: &Outcome, case: Case, to: Case) -> Option<f64> {
    Some(net(&outcome.figures, case)? / net(&outcome.figures, to)?)
}

fn packets(outcome: &Outcome) -> Vec<Goal> {
    use Limit::AtMost;
    let v4 = |how| named::hit(how, Family::V4);
    let to_ipip = |case| ratio(outcome, case, named::IPIP);
    let to_array = |case| ratio(outcome, case, named::ARRAY);
    let million = named::million(How::Tunnel, Family::V4);
    vec![
        goal("tunnel, 1 flow, to parse + IPIP", AtMost(2.1), to_ipip(v4(How::Tunnel))),
        goal("tunnel, 1 M flows, to parse + IPIP", AtMost(3.7), to_ipip(million)),
        goal(
            "tunnel, SYN of 1 M flows, to parse + IPIP",
            AtMost(3.2),
            to_ipip(named::flood(Flood::Million)),
        ),
        goal(
            "tunnel, SYN of 16 M flows, to parse + IPIP",
            AtMost(3.2),
            to_ipip(named::flood(Flood::Sixteen)),
        ),
        goal("dsr, 1 flow, to parse + array", AtMost(5.0), to_array(v4(How::Dsr))),
        goal("nat, 1 flow, to parse + IPIP", AtMost(2.1), to_ipip(v4(How::Nat))),
        goal(
            "not ours, beside tunnels, to parse + IPIP",
            AtMost(0.32),
            to_ipip(named::not_ours(How::Tunnel)),
        ),
        goal(
            "not ours, beside nat, to parse + IPIP",
            AtMost(0.32),
            to_ipip(named::not_ours(How::Nat)),
        ),
    ]
}

fn services_and_families(outcome: &Outcome) -> Vec<Goal> {
    let mut goals = Vec::new();
    for &services in &outcome.services {
        let value = ratio(outcome, named::many_services(services), named::many_services(1));
        goals.push(goal(
            format!("one of {services} services to one service, 64 k flows"),
            Limit::AtMost(1.3),
            value,
        ));
    }
    for how in How::MAIN {
        for (case, flows) in
            [(named::hit as fn(How, Family) -> Case, "1 flow"), (named::million, "1 M flows")]
        {
            let value = ratio(outcome, case(how, Family::V6), case(how, Family::V4));
            goals.push(goal(
                format!("{} IPv6 to IPv4, {flows}", how.name()),
                Limit::AtMost(1.3),
                value,
            ));
        }
    }
    goals
}

fn frames(outcome: &Outcome) -> Vec<Goal> {
    let mut goals = Vec::new();
    for how in How::MAIN {
        for load in Load::ALL {
            let least = if load == Load::NewFlows { 8.0 } else { 4.0 };
            let what = format!("{} frames to nftables DNAT, {}", how.name(), load.name());
            let value = outcome.times_as_fast(Path::Buoy(how), Path::Nft, load);
            goals.push(goal(what, Limit::AtLeast(least), value));
        }
        let load = Load::OneFlow;
        goals.push(goal(
            format!("{} frames to a bare XDP_TX, {}", how.name(), load.name()),
            Limit::AtLeast(0.85),
            outcome.times_as_fast(Path::Buoy(how), Path::Floor(Floor::Swap), load),
        ));
    }
    goals
}

fn times(outcome: &Outcome) -> Vec<Goal> {
    let most = outcome.costs.iter().max_by_key(|cost| cost.services);
    let ms = |what: &str, limit, value: Option<std::time::Duration>| Goal {
        what: what.to_owned(),
        limit: Limit::AtMost(limit),
        value: value.map(|time| time.as_secs_f64() * 1e3),
        unit: " ms",
    };
    let services = most.map_or(0, |cost| cost.services);
    let many = outcome.one.as_ref().map_or(0, |one| one.services);
    vec![
        ms(
            &format!("apply {services} services x 100 backends"),
            2000.0,
            most.map(|cost| cost.apply),
        ),
        ms(
            "one backend down until the last slot, one service",
            1.0,
            outcome.down.as_ref().map(|d| d.all),
        ),
        ms(
            &format!("one backend of one of {many} services down until the last slot"),
            1.0,
            outcome.one.as_ref().map(|one| one.all),
        ),
        ms(
            &format!("the same in the kernel for all of {services} services"),
            1.0,
            most.map(|cost| cost.change),
        ),
    ]
}

/// Every case that is measured, in the order of the page.
pub(super) fn all_cases(services: &[u32]) -> Vec<Case> {
    [cases::floors(), cases::cases(services)].concat()
}

#[cfg(test)]
mod tests {
    use super::super::measure::{Figure, PARTS};
    use super::*;

    fn figure(best: f64) -> Figure {
        Figure { best, tenth: best, median: best, parts: [best; PARTS] }
    }

    #[test]
    fn a_goal_is_judged_without_what_the_measuring_costs() {
        let mut outcome = Outcome::default();
        let nothing = Case::floor(Floor::Nothing, Family::V4);
        for (case, best) in
            [(nothing, 10.0), (named::IPIP, 30.0), (named::hit(How::Tunnel, Family::V4), 60.0)]
        {
            outcome.figures.insert(case, figure(best));
        }
        let goals = packets(&outcome);
        assert_eq!(goals[0].value, Some(2.5));
        assert_eq!(goals[0].is_met(), Some(false));
        assert_eq!(goals[1].is_met(), None);
    }

    #[test]
    fn frames_are_judged_by_how_much_longer_the_other_takes() {
        let mut outcome = Outcome::default();
        outcome.live.insert((Path::Nft, Load::NewFlows), (2000.0, 2000.0));
        outcome.live.insert((Path::Buoy(How::Dsr), Load::NewFlows), (200.0, 300.0));
        let goals = frames(&outcome);
        let reached: Vec<_> = goals.iter().filter_map(|g| Some((g.value?, g.is_met()?))).collect();
        assert_eq!(reached, [(10.0, true)]);
    }
}
