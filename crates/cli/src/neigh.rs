//! `buoy neigh`: what the neighbours on the segment are told of VIPs.

use crate::Asking;
use crate::failure::Failure;
use crate::table::plain;
use buoy_api::{AnnounceRequest, OrderReply};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Have the owner of a VIP tell the segment again who has it (gratuitous ARP, unsolicited neighbour advertisements)
    Announce(AnnounceArguments),
}

#[derive(clap::Args, Debug)]
pub(crate) struct AnnounceArguments {
    #[command(flatten)]
    asking: Asking,
    /// Its name, or one of its addresses
    vip: String,
    /// For the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Announce(AnnounceArguments { asking, vip, reason }) => {
            let reply = asking.client()?.announce(&vip, &AnnounceRequest { reason })?;
            asking.show(&reply, |reply| format!("{}\n", plain(&said(reply))))
        }
    }
}

fn said(OrderReply { vip, node, reason, .. }: &OrderReply) -> String {
    format!(
        "{node} tells its neighbours again that it has {vip}, several times from now on: {reason}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_tells_the_neighbours_is_said() {
        let reply = OrderReply {
            vip: "web".into(),
            node: "lb2".into(),
            reason: "a new switch (by ann)".into(),
            ..OrderReply::default()
        };
        let expected = "lb2 tells its neighbours again that it has web, several times from now on: \
                        a new switch (by ann)";
        assert_eq!(said(&reply), expected);
    }
}
