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
    if arguments.output == Form::Json {
        output::json(&Outcome {
            node: reply.node,
            draining: status.draining.clone(),
            owned: reply.owned,
            kept: kept(&status).into_iter().map(str::to_owned).collect(),
            took_ms: time::millis(took),
        })?;
        let failed = arguments.wait && unfinished;
        return if failed { Err(Failure::said(Exit::Failed)) } else { Ok(()) };
    }
    output::text(&drained(&reply))?;
    if !unfinished {
        let nothing =
            format!("{} owns nothing any more, after {}\n", reply.node, words::span(took));
        return if reply.owned == 0 { Ok(()) } else { output::text(&nothing) };
    }
    if arguments.wait {
        return Err(Failure::failed(late(limit, &status)));
    }
    output::text(&format!("{}\n", late(limit, &status)))
}

/// What was ordered, for people.
fn drained(reply: &DrainReply) -> String {
    let reason = reply.draining.as_deref().unwrap_or_default();
    let moving = match reply.owned {
        0 => "it owned no VIP".to_owned(),
        1 => "its VIP moves to another node".to_owned(),
        n => format!("its {n} VIPs move to the other nodes"),
    };
    let back = reply.for_ms.map_or_else(
        || "`buoy undrain` puts it back into service".to_owned(),
        |millis| {
            let time = words::written(Duration::from_millis(millis));
            format!("it is back in service in {time}, or with `buoy undrain`")
        },
    );
    format!("{} is drained: {reason}; {moving}\n{back}\n", reply.node)
}

pub(crate) fn undrain(arguments: &UndrainArguments) -> Result<(), Failure> {
    let reply = arguments.agent.client()?.undrain()?;
    match arguments.output {
        Form::Json => output::json(&reply),
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

fn late(limit: Duration, status: &ClusterStatus) -> String {
    let seconds = limit.as_secs();
    if status.draining.is_none() {
        return format!("after {seconds} s this node is not drained: somebody put it back");
    }
    format!(
        "after {seconds} s this node still owns {}: no other node can take it (`buoy why` says why)",
        kept(status).join(", ")
    )
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
    fn a_drain_says_for_how_long_and_what_ends_it() {
        let reply = DrainReply {
            node: "lb1".into(),
            draining: Some("patching (by ann)".into()),
            for_ms: None,
            owned: 2,
        };
        assert_eq!(
            drained(&reply),
            "lb1 is drained: patching (by ann); its 2 VIPs move to the other nodes\n\
             `buoy undrain` puts it back into service\n"
        );
        let reply = DrainReply { for_ms: Some(1_800_000), owned: 0, ..reply };
        assert_eq!(
            drained(&reply),
            "lb1 is drained: patching (by ann); it owned no VIP\n\
             it is back in service in 30m, or with `buoy undrain`\n"
        );
    }

    #[test]
    fn a_vip_is_given_away_only_when_its_lease_is_over_too() {
        let vip = |name: &str, mine, lease_left_ms| VipView {
            name: name.into(),
            mine,
            lease_left_ms,
            ..VipView::default()
        };
        let vips = vec![vip("a", true, None), vip("b", false, Some(3.0)), vip("c", false, None)];
        assert_eq!(kept(&ClusterStatus { vips, ..ClusterStatus::default() }), ["a", "b"]);
    }
}
