//! `buoy drain` and `buoy undrain`: takes a node out of service, and puts it back.

use crate::consent::Consent;
use crate::failure::{Exit, Failure};
use crate::output::{self, Form};
use crate::progress::Progress;
use crate::table::plain;
use crate::{AgentSocket, time};
use buoy_api::{
    Client, ClientError, ClusterStatus, DrainReply, DrainRequest, NodePatch, VipView, words,
};
use serde::Serialize;
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks at the status while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a drain is watched without `--wait`: a planned move takes milliseconds.
const WATCH: Duration = Duration::from_secs(3);

#[derive(clap::Args, Debug)]
pub(crate) struct DrainArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Its name; without it: this node
    node: Option<String>,
    /// Back in service by itself after so long, as in 30m
    #[arg(long = "for", value_name = "TIME", value_parser = time::duration)]
    time: Option<Duration>,
    /// For the record and for `buoy why`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Succeed only when it owns nothing any more
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "wait")]
    timeout: u64,
    #[command(flatten)]
    consent: Consent,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(clap::Args, Debug)]
pub(crate) struct UndrainArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Its name; without it: this node
    node: Option<String>,
    /// For the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// What came of a drain.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Outcome {
    node: String,
    draining: Option<String>,
    /// How many VIPs it owned when it was asked.
    owned: usize,
    /// Those that it still owns.
    kept: Vec<String>,
    took_ms: u64,
}

pub(crate) fn drain(arguments: DrainArguments) -> Result<(), Failure> {
    let who = arguments.node.as_deref().unwrap_or("this node");
    let question = format!("Take {} out of service? Its VIPs go to the other nodes.", plain(who));
    if !arguments.consent.given(arguments.output, &question)? {
        return Ok(());
    }
    let client = arguments.agent.client()?;
    let (reason, for_ms) = (arguments.reason, arguments.time.map(time::millis));
    let reply = match &arguments.node {
        Some(node) => {
            let patch = NodePatch { drain: Some(true), reason, for_ms, ..NodePatch::default() };
            client.patch_node(node, &patch)?
        }
        None => client.drain_for(&DrainRequest { reason, for_ms })?,
    };
    let limit = if arguments.wait { Duration::from_secs(arguments.timeout) } else { WATCH };
    let started = Instant::now();
    let status = watch(&client, &reply.node, limit)?;
    let took = started.elapsed();
    let unfinished = !is_done(&status, &reply.node);
    if arguments.output != Form::Table {
        let outcome = Outcome {
            kept: kept(&status, &reply.node).into_iter().map(str::to_owned).collect(),
            draining: reply.draining.filter(|_| is_drained(&status, &reply.node)),
            owned: reply.owned,
            node: reply.node,
            took_ms: time::millis(took),
        };
        output::value(arguments.output, &outcome)?;
        let failed = arguments.wait && unfinished;
        return if failed { Err(Failure::said(Exit::Failed)) } else { Ok(()) };
    }
    let text = outcome(&reply, &status, took);
    if arguments.wait && unfinished {
        return Err(Failure::failed(text));
    }
    output::text(&format!("{text}\n{}\n", end(reply.for_ms, arguments.node.as_deref())))
}

/// What came of it, for people.
pub(crate) fn outcome(reply: &DrainReply, status: &ClusterStatus, took: Duration) -> String {
    let DrainReply { node, owned, draining, .. } = reply;
    let Some(reason) = draining.as_ref().filter(|_| is_drained(status, node)) else {
        return format!("{node} is not drained any more: somebody put it back");
    };
    let took = words::span(took);
    let moved = match (kept(status, node).as_slice(), owned) {
        ([], 0) => "it owned no VIP".to_owned(),
        ([], 1) => format!("its VIP is on another node after {took}"),
        ([], n) => format!("its {n} VIPs are on other nodes after {took}"),
        (kept, _) => format!(
            "after {took} it still owns {}, which no other node can take (`buoy why {}` says why)",
            kept.join(", "),
            kept[0]
        ),
    };
    format!("{node} is drained: {reason}; {moved}")
}

/// What ends the drain, given where this one was given: of another node it names that node.
fn end(for_ms: Option<u64>, node: Option<&str>) -> String {
    let command = format!("buoy undrain {}", node.unwrap_or_default());
    let command = command.trim_end();
    let Some(millis) = for_ms else { return format!("`{command}` puts it back into service") };
    let time = words::written(Duration::from_millis(millis));
    format!("it is back in service in {time}, or with `{command}`")
}

pub(crate) fn undrain(arguments: UndrainArguments) -> Result<(), Failure> {
    let client = arguments.agent.client()?;
    let reason = arguments.reason;
    let reply = match &arguments.node {
        Some(node) => {
            let patch = NodePatch { drain: Some(false), reason, ..NodePatch::default() };
            client.patch_node(node, &patch)?
        }
        None => client.undrain(reason)?,
    };
    match arguments.output {
        form @ (Form::Json | Form::Yaml) => output::value(form, &reply),
        Form::Table => output::text(&format!("{} takes part again\n", reply.node)),
    }
}

/// Looks until the node has given everything away, or the time is over.
pub(crate) fn watch(
    client: &Client,
    node: &str,
    limit: Duration,
) -> Result<ClusterStatus, ClientError> {
    let deadline = Instant::now() + limit;
    let progress = Progress::start(&format!("{node} is being drained"));
    loop {
        let status = client.status()?;
        progress.say(left(&kept(&status, node), node));
        if is_done(&status, node) || deadline < Instant::now() {
            return Ok(status);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// What a drain waits for.
fn left(kept: &[&str], node: &str) -> String {
    match kept {
        [] => format!("{node} is being drained"),
        [one] => format!("{node} still owns {one}"),
        [first, .., last] => {
            format!("{node} still owns {} VIPs, from {first} to {last}", kept.len())
        }
    }
}

pub(crate) fn is_done(status: &ClusterStatus, node: &str) -> bool {
    is_drained(status, node) && kept(status, node).is_empty()
}

/// Whether it takes nothing, as the node that answers knows.
fn is_drained(status: &ClusterStatus, node: &str) -> bool {
    status.nodes.iter().any(|known| known.name == node && known.draining)
}

/// The VIPs that the node has not given away.
fn kept<'s>(status: &'s ClusterStatus, node: &str) -> Vec<&'s str> {
    let is_me = status.node == node;
    let has = |vip: &&VipView| match is_me {
        true => vip.mine || vip.lease_left_ms.is_some(),
        false => vip.owner.as_deref() == Some(node),
    };
    status.vips.iter().filter(has).map(|vip| vip.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::NodeView;

    #[test]
    fn a_drain_says_what_came_of_it_and_what_ends_it() {
        let reply = |owned| DrainReply {
            node: "lb1".into(),
            draining: Some("patching (by ann)".into()),
            owned,
            ..DrainReply::default()
        };
        let drained_node = NodeView { name: "lb1".into(), draining: true, ..NodeView::default() };
        let status = |kept: &[&str]| ClusterStatus {
            node: "lb1".into(),
            nodes: vec![drained_node.clone()],
            vips: kept.iter().map(|name| vip(name, true, None)).collect(),
            ..ClusterStatus::default()
        };
        let table: [(usize, &[&str], &str); 4] = [
            (0, &[], "it owned no VIP"),
            (1, &[], "its VIP is on another node after 6.2 ms"),
            (2, &[], "its 2 VIPs are on other nodes after 6.2 ms"),
            (
                2,
                &["web", "db"],
                "after 6.2 ms it still owns web, db, which no other node can take \
                 (`buoy why web` says why)",
            ),
        ];
        let took = Duration::from_micros(6_200);
        for (owned, kept, expected) in table {
            let text = outcome(&reply(owned), &status(kept), took);
            assert_eq!(text, format!("lb1 is drained: patching (by ann); {expected}"));
        }
        let text = outcome(&reply(1), &ClusterStatus::default(), took);
        assert_eq!(text, "lb1 is not drained any more: somebody put it back");
        assert_eq!(end(None, None), "`buoy undrain` puts it back into service");
        let in_time = "it is back in service in 30m, or with `buoy undrain";
        assert_eq!(end(Some(1_800_000), None), format!("{in_time}`"));
        // Without its name the command would be about the node where it is typed.
        assert_eq!(end(None, Some("lb2")), "`buoy undrain lb2` puts it back into service");
        assert_eq!(end(Some(1_800_000), Some("lb2")), format!("{in_time} lb2`"));
    }

    fn vip(name: &str, mine: bool, lease_left_ms: Option<f64>) -> VipView {
        VipView { name: name.into(), mine, lease_left_ms, ..VipView::default() }
    }

    #[test]
    fn a_vip_is_given_away_only_when_its_lease_is_over_too() {
        let vips = vec![vip("a", true, None), vip("b", false, Some(3.0)), vip("c", false, None)];
        let status = ClusterStatus { node: "lb1".into(), vips, ..ClusterStatus::default() };
        assert_eq!(kept(&status, "lb1"), ["a", "b"]);
        assert_eq!(left(&kept(&status, "lb1"), "lb1"), "lb1 still owns 2 VIPs, from a to b");
        assert_eq!(left(&["a"], "lb1"), "lb1 still owns a");
        assert_eq!(left(&[], "lb1"), "lb1 is being drained");
    }

    #[test]
    fn another_node_is_done_when_it_says_so_and_others_own_what_it_had() {
        let owned = |owner: &str| VipView {
            name: "web".into(),
            owner: Some(owner.into()),
            mine: owner == "lb1",
            lease_left_ms: Some(3.0).filter(|_| owner == "lb1"),
            ..VipView::default()
        };
        let status = |draining, owner| ClusterStatus {
            node: "lb1".into(),
            nodes: vec![NodeView { name: "lb2".into(), draining, ..NodeView::default() }],
            vips: vec![owned(owner)],
            ..ClusterStatus::default()
        };
        let table =
            [(false, "lb1", false), (true, "lb2", false), (true, "lb1", true), (true, "lb3", true)];
        for (draining, owner, done) in table {
            assert_eq!(is_done(&status(draining, owner), "lb2"), done, "{draining} {owner}");
        }
    }
}
