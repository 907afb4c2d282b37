//! Connections outlive the balancers: two thousand of them while owners die and backends come and go.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says what is wrong by failing"
)]

mod support;

use buoy_lab::outlive::{self, Agents, Size};
use buoy_lab::peer::Peer;
use buoy_lab::{agent, privilege, skip};
use support::LEASE;

#[test]
fn connections_outlive_owners_and_changes_of_backends() {
    let test = "connections_outlive_owners_and_changes_of_backends";
    if let Some(reason) = privilege::missing() {
        return skip(test, &reason);
    }
    if let Err(error) = agent::program() {
        return skip(test, &error.to_string());
    }
    let count = |name: &str, default| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let size = Size { at_first: count("OUTLIVE_FLOWS", 440), between: count("OUTLIVE_MORE", 30) };
    let segment = outlive::segment(&mut |_| {}).unwrap();
    let mut agents = Agents::new(&segment, LEASE).unwrap();
    let stages = outlive::run(&segment, &mut agents, size, &mut |stage| {
        eprintln!("{}, after {:?}: {:?}", stage.when, stage.took, stage.figures);
    });
    for node in agents.buoy.nodes() {
        let log = std::fs::read_to_string(agents.buoy.log(node)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("--- the agent of {node}:");
        lines[lines.len().saturating_sub(60)..].iter().for_each(|line| eprintln!("{line}"));
    }
    for stage in stages.unwrap() {
        let (opened, alive) = stage.sum();
        assert!(0 < opened && alive == opened, "{}: {:?}", stage.when, stage.figures);
    }
    agents.give_back().unwrap();
}
