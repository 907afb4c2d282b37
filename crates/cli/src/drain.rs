//! `buoy drain` and `buoy undrain`: takes this node out of service, and puts it back.

use crate::failure::{Exit, Failure};
use crate::output::{self, Form};
use crate::{AgentSocket, time};
use buoy_api::{Client, ClientError, ClusterStatus, DrainReply, DrainRequest, words};
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
    /// Back in service by itself after so long, as in 30m
    #[arg(long = "for", value_name = "TIME", value_parser = time::duration)]
    time: Option<Duration>,
    /// For the record and for `buoy why`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Succeed only when this node owns nothing any more
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "wait")]
    timeout: u64,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(clap::Args, Debug)]
pub(crate) struct UndrainArguments {
    #[command(flatten)]
    agent: AgentSocket,
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
    let client = arguments.agent.client()?;
    let request =
        DrainRequest { reason: arguments.reason, for_ms: arguments.time.map(time::millis) };
    let reply = client.drain_for(&request)?;
    let limit = if arguments.wait { Duration::from_secs(arguments.timeout) } else { WATCH };
    let started = Instant::now();
    let status = watch(&client, limit)?;
    let took = started.elapsed();
    let unfinished = !is_done(&status);
    if arguments.output != Form::Table {
        let outcome = Outcome {
            node: reply.node,
            draining: status.draining.clone(),
            owned: reply.owned,
            kept: kept(&status).into_iter().map(str::to_owned).collect(),
            took_ms: time::millis(took),
        };
        output::value(arguments.output, &outcome)?;
        let failed = arguments.wait && unfinished;
        return if failed { Err(Failure::said(Exit::Failed)) } else { Ok(()) };
    }
    let text = drained(&reply, &status, took);
    if arguments.wait && unfinished {
        return Err(Failure::failed(text));
    }
    output::text(&format!("{text}\n{}\n", end(reply.for_ms)))
}

/// What came of it, for people.
fn drained(reply: &DrainReply, status: &ClusterStatus, took: Duration) -> String {
    let DrainReply { node, owned, .. } = reply;
    let Some(reason) = &status.draining else {
        return format!("{node} is not drained any more: somebody put it back");
    };
    let took = words::span(took);
    let moved = match (kept(status).as_slice(), owned) {
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

/// What ends the drain.
fn end(for_ms: Option<u64>) -> String {
    let Some(millis) = for_ms else { return "`buoy undrain` puts it back into service".into() };
    let time = words::written(Duration::from_millis(millis));
    format!("it is back in service in {time}, or with `buoy undrain`")
}

pub(crate) fn undrain(arguments: &UndrainArguments) -> Result<(), Failure> {
    let reply = arguments.agent.client()?.undrain()?;
    match arguments.output {
        form @ (Form::Json | Form::Yaml) => output::value(form, &reply),
        Form::Table => output::text(&format!("{} takes part again\n", reply.node)),
    }
}

/// Looks until the node has given everything away, or the time is over.
fn watch(client: &Client, limit: Duration) -> Result<ClusterStatus, ClientError> {
    let deadline = Instant::now() + limit;
    loop {
        let status = client.status()?;
        if is_done(&status) || deadline < Instant::now() {
            return Ok(status);
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn is_done(status: &ClusterStatus) -> bool {
    status.draining.is_some() && kept(status).is_empty()
}

/// The VIPs that the node has not given away.
fn kept(status: &ClusterStatus) -> Vec<&str> {
    let mine = status.vips.iter().filter(|vip| vip.mine || vip.lease_left_ms.is_some());
    mine.map(|vip| vip.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::VipView;

    #[test]
    fn a_drain_says_what_came_of_it_and_what_ends_it() {
        let reply = |owned| DrainReply { node: "lb1".into(), owned, ..DrainReply::default() };
        let status = |kept: &[&str]| ClusterStatus {
            draining: Some("patching (by ann)".into()),
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
            let text = drained(&reply(owned), &status(kept), took);
            assert_eq!(text, format!("lb1 is drained: patching (by ann); {expected}"));
        }
        let text = drained(&reply(1), &ClusterStatus::default(), took);
        assert_eq!(text, "lb1 is not drained any more: somebody put it back");
        assert_eq!(end(None), "`buoy undrain` puts it back into service");
        assert_eq!(end(Some(1_800_000)), "it is back in service in 30m, or with `buoy undrain`");
    }

    fn vip(name: &str, mine: bool, lease_left_ms: Option<f64>) -> VipView {
        VipView { name: name.into(), mine, lease_left_ms, ..VipView::default() }
    }

    #[test]
    fn a_vip_is_given_away_only_when_its_lease_is_over_too() {
        let vips = vec![vip("a", true, None), vip("b", false, Some(3.0)), vip("c", false, None)];
        assert_eq!(kept(&ClusterStatus { vips, ..ClusterStatus::default() }), ["a", "b"]);
    }
}
