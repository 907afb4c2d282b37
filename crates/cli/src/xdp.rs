//! `buoy xdp`: takes away what Buoy has left in the kernel.

use crate::AgentSocket;
use crate::failure::Failure;
use crate::output;
use buoy_api::ClientError;
use buoy_kernel::leftovers;

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Take away all that a stopped agent leaves in the kernel of this host: forwarding ends at once
    ///
    /// XDP programs with their maps and rules of nftables stay when the agent stops, so that a restart drops no
    /// packet; where it was killed, the gate and addresses as well. This is for a host that Buoy leaves for good.
    Detach(DetachArguments),
}

#[derive(clap::Args, Debug)]
pub(crate) struct DetachArguments {
    #[command(flatten)]
    agent: AgentSocket,
}

pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Detach(arguments) => detach(arguments),
    }
}

fn detach(arguments: &DetachArguments) -> Result<(), Failure> {
    match arguments.agent.client()?.status() {
        Err(ClientError::NotListening { .. }) => {}
        Ok(_) | Err(_) => {
            return Err(Failure::failed(
                "the agent runs and would attach its programs again: stop it first (systemctl stop \
                 buoy), or take the services of mode \"xdp\" out of its file and run `buoy reload`",
            ));
        }
    }
    let gone = leftovers::remove().map_err(|stays| {
        Failure::failed(format!("not all of it is gone: {stays} (are you root?)"))
    })?;
    if gone.is_empty() {
        return output::text("nothing of Buoy is in the kernel of this host\n");
    }
    output::text(&format!("gone from this host: {}\n", gone.join(", ")))
}
