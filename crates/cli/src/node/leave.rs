//! `buoy node leave`: a node gives everything away for good, and is told what makes it no member any more.
//!
//! Who the members are is in the file of every host, since leases count on it: no command changes that over the network.

use crate::drain::{is_done, outcome, watch};
use crate::failure::Failure;
use crate::{Asking, time};
use buoy_api::{ClusterStatus, NodePatch};
use serde::Serialize;
use std::time::{Duration, Instant};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    asking: Asking,
    /// Its name; without it: this node
    node: Option<String>,
    /// For the record and for `buoy why`
    #[arg(long, value_name = "TEXT", default_value = "it leaves the cluster")]
    reason: String,
    /// How long it may take to give everything away
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time::duration)]
    timeout: Duration,
}

/// What came of it, and what is left to do by hand.
#[derive(Serialize)]
struct Left {
    node: String,
    /// What became of its VIPs.
    sentence: String,
    /// In this order.
    next: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let client = arguments.asking.client()?;
    let before = client.status()?;
    let node = arguments.node.clone().unwrap_or_else(|| before.node.clone());
    let next = next(&before, &node)?;
    let reason = Some(arguments.reason.clone());
    let patch = NodePatch { drain: Some(true), reason, ..NodePatch::default() };
    let reply = client.patch_node(&node, &patch)?;
    let started = Instant::now();
    let status = watch(&client, &node, arguments.timeout)?;
    let sentence = outcome(&reply, &status, started.elapsed());
    if !is_done(&status, &node) {
        return Err(Failure::failed(format!("{sentence}; `buoy undrain {node}` takes it back")));
    }
    let left = Left { node, sentence, next };
    arguments.asking.show(&left, said)
}

fn said(left: &Left) -> String {
    let steps = left.next.iter().enumerate();
    let steps: String = steps.map(|(n, step)| format!("  {}. {step}\n", n + 1)).collect();
    format!("{}\nIt still votes. To make it no member any more:\n{steps}", left.sentence)
}

/// What is left to do by hand.
fn next(status: &ClusterStatus, node: &str) -> Result<Vec<String>, Failure> {
    if !status.nodes.iter().any(|known| known.name == node) {
        let names: Vec<&str> = status.nodes.iter().map(|node| node.name.as_str()).collect();
        let names = names.join(", ");
        return Err(Failure::failed(format!("there is no node {node:?}: the cluster has {names}")));
    }
    let others: Vec<&str> =
        status.nodes.iter().map(|known| known.name.as_str()).filter(|name| *name != node).collect();
    if others.is_empty() {
        let why = "it is the only node: stop its agent, or take the VIPs out of its file";
        return Err(Failure::failed(format!("{node} cannot leave: {why}")));
    }
    let silent = status.nodes.iter().find(|known| !known.alive && known.name != node);
    if let Some(silent) = silent {
        return Err(Failure::failed(format!(
            "{node} should not leave now: {} is not heard, and would be missing too; bring it back first",
            silent.name
        )));
    }
    let votes = others.len() / 2 + 1;
    Ok(vec![
        format!("on {node}: systemctl disable --now buoy"),
        format!(
            "on {}: take {node} out of `peers` (or `witness`, and out of `prefer` and `nodes`) of the file, and run \
             `buoy reload`, one host after the other",
            others.join(", ")
        ),
        format!("from then on {votes} of {} nodes are a majority", others.len()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::NodeView;

    #[test]
    fn who_leaves_is_told_what_the_others_have_to_do() {
        let node = |name: &str, alive| NodeView { name: name.into(), alive, ..NodeView::default() };
        let status = |nodes| ClusterStatus { nodes, ..ClusterStatus::default() };
        let three = status(vec![node("lb1", true), node("lb2", true), node("lb3", true)]);
        let steps = next(&three, "lb2").unwrap();
        assert_eq!(steps[0], "on lb2: systemctl disable --now buoy");
        assert!(steps[1].starts_with("on lb1, lb3: take lb2 out of `peers`"), "{}", steps[1]);
        assert_eq!(steps[2], "from then on 2 of 2 nodes are a majority");
        let left = Left { node: "lb2".into(), sentence: "lb2 is drained".into(), next: steps };
        assert!(said(&left).contains("\n  1. on lb2: "), "{}", said(&left));
        let table = [
            (status(vec![node("lb1", true)]), "lb1", "the only node"),
            (status(vec![node("lb1", true)]), "lb9", "the cluster has lb1"),
            (status(vec![node("lb1", true), node("lb2", false)]), "lb1", "lb2 is not heard"),
        ];
        for (status, node, why) in table {
            let refused = next(&status, node).unwrap_err();
            assert!(refused.message.contains(why), "{}", refused.message);
        }
        let gone = status(vec![node("lb1", true), node("lb2", false)]);
        assert!(next(&gone, "lb2").is_ok(), "a dead one may go");
    }
}
