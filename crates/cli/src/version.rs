//! `buoy version`: what this binary is, and with `--check` what every node runs.

use crate::AgentSocket;
use crate::failure::{Exit, Failure};
use crate::output::{self, Form};
use crate::table::{Align, Table, Tone};
use buoy_api::MatrixReply;
use serde::Serialize;
use std::collections::BTreeSet;

/// What this binary is of.
const MINE: &str = env!("CARGO_PKG_VERSION");

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Compare what the agents of all nodes run: exit 1 where two do not understand each other, or one does not say
    #[arg(long)]
    check: bool,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    architecture: &'static str,
    build: &'static str,
}

/// What every node runs.
#[derive(Serialize)]
struct Comparison {
    /// All are known, and any two understand each other.
    ok: bool,
    /// The version of this command.
    command: &'static str,
    nodes: Vec<Runs>,
    /// What to know about it.
    says: Vec<String>,
}

/// What one node runs.
#[derive(Serialize)]
struct Runs {
    node: String,
    version: Option<String>,
    /// Forms of datagrams that it speaks.
    wire: Vec<u8>,
    /// Why its version is not known.
    unknown: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.check {
        return check(arguments);
    }
    let version = Version {
        version: MINE,
        architecture: std::env::consts::ARCH,
        build: if cfg!(debug_assertions) { "debug" } else { "release" },
    };
    match arguments.output {
        form @ (Form::Json | Form::Yaml) => output::value(form, &version),
        Form::Table => output::text(&format!(
            "buoy {} ({}, {} build)\n",
            version.version, version.architecture, version.build
        )),
    }
}

fn check(arguments: &Arguments) -> Result<(), Failure> {
    let comparison = compare(&arguments.agent.client()?.matrix()?);
    match arguments.output {
        form @ (Form::Json | Form::Yaml) => output::value(form, &comparison)?,
        Form::Table => output::text(&screen(&comparison, output::colour()))?,
    }
    if comparison.ok { Ok(()) } else { Err(Failure::said(Exit::Failed)) }
}

fn compare(reply: &MatrixReply) -> Comparison {
    let runs = |row: &buoy_api::MatrixRow| {
        let known = Some(row.version.clone()).filter(|version| !version.is_empty());
        let unsaid = || "its agent is older than this question".to_owned();
        let silent = row.unknown.clone().or_else(|| known.is_none().then(unsaid));
        let wire = row.wire.clone();
        Runs { node: row.node.clone(), version: known, wire, unknown: silent }
    };
    let nodes: Vec<Runs> = reply.rows.iter().map(runs).collect();
    let mut says = Vec::new();
    let versions: BTreeSet<&str> = nodes.iter().filter_map(|n| n.version.as_deref()).collect();
    let known: Vec<&Runs> = nodes.iter().filter(|node| node.version.is_some()).collect();
    let mut ok = known.len() == nodes.len();
    let strangers = known.iter().enumerate().flat_map(|(n, a)| {
        known[n + 1..]
            .iter()
            .filter(|b| !a.wire.iter().any(|w| b.wire.contains(w)))
            .map(|b| (*a, *b))
    });
    for (a, b) in strangers.collect::<Vec<_>>() {
        ok = false;
        says.push(format!(
            "{} and {} do not understand each other: upgrade the older one",
            a.node, b.node
        ));
    }
    let all = versions.iter().copied().collect::<Vec<_>>().join(" and ");
    match (versions.len(), ok) {
        (1, true) => says.push(format!("all nodes run {all}")),
        (1, false) => says.push(format!("all nodes that say it run {all}")),
        (_, true) => says.push(format!(
            "{all} understand each other; run them beside each other no longer than an upgrade takes"
        )),
        (_, false) => {}
    }
    let me = nodes.iter().find(|node| node.node == reply.node).and_then(|n| n.version.as_deref());
    if let Some(version) = me.filter(|version| *version != MINE) {
        says.push(format!(
            "this command is {MINE}, and the agent of {} runs {version}: restart it",
            reply.node
        ));
    }
    Comparison { ok, command: MINE, nodes, says }
}

fn screen(comparison: &Comparison, colour: bool) -> String {
    let mut table = Table::new([
        ("NODE", Align::Left),
        ("VERSION", Align::Left),
        ("WIRE", Align::Left),
        ("UNKNOWN", Align::Left),
    ]);
    for node in &comparison.nodes {
        let tone = if node.unknown.is_some() { Tone::Wrong } else { Tone::Plain };
        let wire: Vec<String> = node.wire.iter().map(ToString::to_string).collect();
        let cells = [
            node.node.clone(),
            node.version.clone().unwrap_or_default(),
            wire.join(", "),
            node.unknown.clone().unwrap_or_default(),
        ];
        table.row(tone, cells);
    }
    let says: String = comparison.says.iter().map(|line| format!("{line}\n")).collect();
    format!("{}\n{says}", table.render(colour))
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::MatrixRow;

    fn row(node: &str, version: &str, wire: &[u8]) -> MatrixRow {
        let (node, version) = (node.to_owned(), version.to_owned());
        MatrixRow { node, version, wire: wire.into(), ..MatrixRow::default() }
    }

    #[test]
    fn nodes_are_compared_by_what_they_run_and_speak() {
        let of = |rows: Vec<MatrixRow>| compare(&MatrixReply { node: "lb1".into(), rows });
        let same = of(vec![row("lb1", MINE, &[1, 2]), row("lb2", MINE, &[1, 2])]);
        assert_eq!((same.ok, same.says), (true, vec![format!("all nodes run {MINE}")]));

        let upgrade = of(vec![row("lb1", "0.0.1", &[1, 2]), row("lb2", MINE, &[2, 3])]);
        assert!(upgrade.ok, "{:?}", upgrade.says);
        assert!(upgrade.says[0].contains("understand each other"), "{:?}", upgrade.says);
        assert!(
            upgrade.says[1].ends_with("the agent of lb1 runs 0.0.1: restart it"),
            "{:?}",
            upgrade.says
        );

        let apart = of(vec![row("lb1", MINE, &[2]), row("lb2", "9.0.0", &[3])]);
        assert_eq!(apart.says, ["lb1 and lb2 do not understand each other: upgrade the older one"]);
        assert!(!apart.ok);

        let silent = MatrixRow::unknown("lb3", "no answer within 1 s");
        let partly = of(vec![row("lb1", MINE, &[2]), row("lb2", "", &[]), silent]);
        assert!(!partly.ok);
        let screen = screen(&partly, false);
        assert!(screen.contains("lb2   -        -     its agent is older"), "{screen}");
        assert!(screen.contains("no answer within 1 s"), "{screen}");
        assert!(screen.ends_with(&format!("all nodes that say it run {MINE}\n")), "{screen}");
    }
}
