//! `buoy drain` and `buoy undrain`: takes this node out of service, and puts it back.

use crate::failure::Failure;
use crate::{AgentSocket, output};
use buoy_api::{Client, ClusterStatus};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks at the status while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(clap::Args, Debug)]
pub(crate) struct DrainArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// For the record and for `buoy why`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Come back only when this node owns nothing any more
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "wait")]
    timeout: u64,
}

#[derive(clap::Args, Debug)]
pub(crate) struct UndrainArguments {
    #[command(flatten)]
    agent: AgentSocket,
}

pub(crate) fn drain(arguments: DrainArguments) -> Result<(), Failure> {
    let client = arguments.agent.client()?;
    let reply = client.drain(arguments.reason)?;
    let reason = reply.draining.unwrap_or_default();
    let moving = match reply.owned {
        0 => "it owned no VIP".to_owned(),
        1 => "its VIP moves to another node".to_owned(),
        n => format!("its {n} VIPs move to the other nodes"),
    };
    output::text(&format!("{} is drained: {reason}; {moving}\n", reply.node))?;
    if !arguments.wait {
        return output::text("`buoy undrain` puts it back into service\n");
    }
    let started = Instant::now();
    wait(&client, Duration::from_secs(arguments.timeout))?;
    let took = started.elapsed().as_millis();
    output::text(&format!("{} owns nothing any more, after {took} ms\n", reply.node))
}

pub(crate) fn undrain(arguments: &UndrainArguments) -> Result<(), Failure> {
    let reply = arguments.agent.client()?.undrain()?;
    output::text(&format!("{} takes part again\n", reply.node))
}

fn wait(client: &Client, limit: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    loop {
        let status = client.status()?;
        if kept(&status).is_empty() && status.draining.is_some() {
            return Ok(());
        }
        if deadline < Instant::now() {
            return Err(Failure::failed(late(limit, &status)));
        }
        thread::sleep(LOOK_EVERY);
    }
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
