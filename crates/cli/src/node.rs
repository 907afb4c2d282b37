//! `buoy node`: the members of the cluster, and what one of them is to do with VIPs.

use crate::AgentSocket;
use crate::failure::Failure;
use crate::output::{self, Form};
use crate::status;
use buoy_api::{DrainReply, NodePatch};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// One line for each node, as this one hears it
    Ls(LsArguments),
    /// Keep what the node owns, and let it take nothing that another node can take
    Cordon(CordonArguments),
    /// Let it take VIPs like any other node again
    Uncordon(UncordonArguments),
}

#[derive(clap::Args, Debug)]
pub(crate) struct LsArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(clap::Args, Debug)]
pub(crate) struct CordonArguments {
    #[command(flatten)]
    which: Which,
    /// For the record and for `buoy why`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct UncordonArguments {
    #[command(flatten)]
    which: Which,
}

/// Which node, and how the answer looks.
#[derive(clap::Args, Debug)]
struct Which {
    #[command(flatten)]
    agent: AgentSocket,
    /// Its name; without it: this node
    node: Option<String>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Ls(LsArguments { agent, output }) => {
            let reply = agent.client()?.nodes()?;
            match output {
                form @ (Form::Json | Form::Yaml) => output::value(form, &reply),
                Form::Table => output::text(&status::nodes(&reply.nodes).render(output::colour())),
            }
        }
        Command::Cordon(CordonArguments { which, reason }) => {
            let patch = NodePatch { cordon: Some(true), reason, ..NodePatch::default() };
            order(&which, &patch)
        }
        Command::Uncordon(UncordonArguments { which }) => {
            order(&which, &NodePatch { cordon: Some(false), ..NodePatch::default() })
        }
    }
}

fn order(which: &Which, patch: &NodePatch) -> Result<(), Failure> {
    let client = which.agent.client()?;
    let node = match &which.node {
        Some(node) => node.clone(),
        None => client.nodes()?.node,
    };
    let reply = client.patch_node(&node, patch)?;
    match which.output {
        form @ (Form::Json | Form::Yaml) => output::value(form, &reply),
        Form::Table => output::text(&format!("{}\n", said(&reply))),
    }
}

/// What holds now, for people.
fn said(reply: &DrainReply) -> String {
    let DrainReply { node, owned, .. } = reply;
    let Some(reason) = &reply.cordoned else {
        return format!("{node} takes VIPs like any other node again");
    };
    let keeps = match owned {
        0 => "it owns no VIP".to_owned(),
        1 => "it keeps its VIP".to_owned(),
        n => format!("it keeps its {n} VIPs"),
    };
    format!(
        "{node} is cordoned: {reason}; {keeps}, and takes another only if no other node can\n\
         `buoy node uncordon` ends it, and so does a restart of its agent"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cordon_says_what_stays_and_what_ends_it() {
        let reply = |owned, reason: Option<&str>| DrainReply {
            node: "lb1".into(),
            owned,
            cordoned: reason.map(str::to_owned),
            ..DrainReply::default()
        };
        let table = [(0, "it owns no VIP"), (1, "it keeps its VIP"), (3, "it keeps its 3 VIPs")];
        for (owned, keeps) in table {
            let text = said(&reply(owned, Some("disk (by ann)")));
            let first = text.lines().next().unwrap_or_default();
            let takes = "and takes another only if no other node can";
            assert_eq!(first, format!("lb1 is cordoned: disk (by ann); {keeps}, {takes}"));
        }
        assert_eq!(said(&reply(3, None)), "lb1 takes VIPs like any other node again");
    }
}
