//! `buoy xdp`: takes away what XDP forwarding has left in the kernel.

use crate::AgentSocket;
use crate::failure::Failure;
use crate::output;
use buoy_api::ClientError;
use buoy_kernel::fast::Fast;

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Take the XDP programs off all interfaces of this host, with their maps: forwarding ends at once
    ///
    /// They stay when the agent stops, so that a restart drops no packet; this is for a host that Buoy
    /// leaves for good.
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
    if !Fast::kept() {
        return output::text("no XDP programs of Buoy are here\n");
    }
    Fast::detach_earlier().map_err(|reason| {
        Failure::failed(format!("the XDP programs stay: {reason} (are you root?)"))
    })?;
    if Fast::kept() {
        return Err(Failure::failed(
            "the XDP programs stay: their files under /sys/fs/bpf/buoy cannot be removed (are you root?)",
        ));
    }
    output::text("the XDP programs of Buoy and their maps are gone from this host\n")
}
