//! The one binary: reads the command line and hands over to the file of the command.
//!
//! One file per group of commands. A new command is a file with a clap `Args` and a `run`, and a
//! line each in [`Command`] and `run` below. Commands return what went wrong as a [`Failure`]; only
//! this file ends the process.

mod agent;
mod backend;
mod capture;
mod config;
mod consent;
mod doctor;
mod drain;
mod drill;
mod events;
mod failure;
mod import;
mod key;
mod lab;
mod listing;
mod manual;
mod neigh;
mod node;
mod orders;
mod output;
mod page;
mod path;
mod pool;
mod progress;
mod reload;
mod service;
mod status;
mod supervise;
mod support;
mod table;
mod time;
mod token;
mod top;
mod version;
mod vip;
mod vrrp;
mod whoami;
mod why;
mod witness;
mod xdp;

use buoy_kernel::memory::Memory;
use clap::{Args, Parser, Subcommand};
use failure::Failure;
use output::Form;
use std::path::PathBuf;
use std::process::ExitCode;

/// The loop of the agent has memory of its own; every other thread and command that of the C library.
#[global_allocator]
static MEMORY: Memory = Memory;

/// Keeps IP addresses above water: a virtual-IP system for Linux.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no agent answers, 4 not allowed or not without --yes, 78 bad configuration.
/// Of `buoy doctor`: 0 all is well, 1 warnings, 2 something is broken.
#[derive(Debug, Parser)]
#[command(name = "buoy", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run this node (as a service: systemctl start buoy)
    Agent(agent::Arguments),
    /// Run this node as a witness, which votes and never owns
    Witness(agent::Arguments),
    /// Check, explain and edit the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Turn a file of another program into Buoy's: the text on standard output, what is left out on standard error
    #[command(subcommand)]
    Import(import::Command),
    /// One screen: nodes, VIPs, owners, since when, why not
    Status(status::Arguments),
    /// The cluster live in this terminal: owners, rates, backends, events
    Top(top::Arguments),
    /// Say why a VIP is where it is
    Why(why::Arguments),
    /// Say where a packet of a client would go on this node
    Path(path::Arguments),
    /// Show packets where XDP forwards, rewrites or drops them, and say why
    Capture(capture::Arguments),
    /// Open the web page of this node to your browser, until Ctrl-C
    Page(page::Arguments),
    /// Show what happened lately
    Events(events::Arguments),
    /// Say whether this host is fit for its duty, and how to mend what is not
    Doctor(doctor::Arguments),
    /// Show the nodes; let one take nothing new, and keep what it has
    #[command(subcommand)]
    Node(node::Command),
    /// Show pools of addresses; keep an address for somebody
    #[command(subcommand)]
    Pool(pool::Command),
    /// Show the VIPs; add or remove them, on all nodes
    #[command(subcommand)]
    Vip(vip::Command),
    /// Show the virtual routers of VRRP: state, priority, who is active, what was refused
    #[command(subcommand)]
    Vrrp(vrrp::Command),
    /// Show the services behind the VIPs, add or remove them
    #[command(subcommand)]
    Service(service::Command),
    /// Drain, disable or weigh a backend of a service; or make this host a real server (dsr, tunnel)
    #[command(subcommand)]
    Backend(backend::Command),
    /// Give a VIP to another node
    Move(orders::MoveArguments),
    /// Keep a VIP on the node that owns it
    Hold(orders::HoldArguments),
    /// End a hold, or the pin of a move: the VIP goes where it belongs
    Release(orders::ReleaseArguments),
    /// Have the owner of a VIP tell its neighbours again who has it
    #[command(subcommand)]
    Neigh(neigh::Command),
    /// Take a node out of service: its VIPs move to the others
    Drain(drain::DrainArguments),
    /// Put a node back into service
    Undrain(drain::UndrainArguments),
    /// Break the owner of a VIP on purpose, and say how long each step of the takeover takes
    Drill(drill::Arguments),
    /// Make the agent read its file again and apply the difference
    Reload(reload::Arguments),
    /// Make the cluster's keys, and change them without an outage
    #[command(subcommand)]
    Key(key::Command),
    /// Let users in to the API over TCP
    #[command(subcommand)]
    Token(token::Command),
    /// Take away what Buoy has left in the kernel
    #[command(subcommand)]
    Xdp(xdp::Command),
    /// Run a cluster in network namespaces on this machine
    #[command(subcommand)]
    Lab(lab::Command),
    /// What the agent runs beside itself
    #[command(hide = true)]
    Supervise(supervise::Arguments),
    /// Collect what somebody needs who is to find a fault
    #[command(subcommand)]
    Support(support::Command),
    /// Say who the agent takes you for, and what you may do
    Whoami(whoami::Arguments),
    /// Print what a shell needs to complete commands
    Completions(manual::CompletionsArguments),
    /// Print or write manual pages
    Man(manual::ManArguments),
    /// Say what this binary is
    Version(version::Arguments),
}

/// Where the agent is, for commands that ask it.
#[derive(Args, Debug)]
struct AgentSocket {
    /// The agent's UNIX socket
    #[arg(long, value_name = "PATH", default_value = buoy_api::SOCKET_DEFAULT)]
    socket: PathBuf,
}

impl AgentSocket {
    fn client(&self) -> Result<buoy_api::Client, Failure> {
        Ok(buoy_api::Client::connect(&self.socket)?)
    }
}

/// What commands begin with that ask and show the answer.
#[derive(Args, Debug)]
struct Asking {
    #[command(flatten)]
    agent: AgentSocket,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

impl Asking {
    fn client(&self) -> Result<buoy_api::Client, Failure> {
        self.agent.client()
    }

    /// The answer in the form that was asked for; `screen` is the one for people.
    fn show<T: serde::Serialize>(
        &self,
        answer: &T,
        screen: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.output {
            form @ (Form::Json | Form::Yaml) => output::value(form, answer),
            Form::Table => output::text(&screen(answer)),
        }
    }
}

fn main() -> ExitCode {
    match run(CommandLine::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Agent(arguments) => agent::run(arguments),
        Command::Witness(arguments) => witness::run(arguments),
        Command::Config(command) => config::run(command),
        Command::Import(command) => import::run(&command),
        Command::Status(arguments) => status::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Why(arguments) => why::run(&arguments),
        Command::Path(arguments) => path::run(&arguments),
        Command::Capture(arguments) => capture::run(&arguments),
        Command::Page(arguments) => page::run(&arguments),
        Command::Events(arguments) => events::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Neigh(command) => neigh::run(command),
        Command::Node(command) => node::run(command),
        Command::Pool(command) => pool::run(command),
        Command::Vip(command) => vip::run(command),
        Command::Vrrp(command) => vrrp::run(command),
        Command::Service(command) => service::run(command),
        Command::Backend(command) => backend::run(command),
        Command::Move(arguments) => orders::move_vip(arguments),
        Command::Hold(arguments) => orders::hold(arguments),
        Command::Release(arguments) => orders::release(arguments),
        Command::Drain(arguments) => drain::drain(arguments),
        Command::Undrain(arguments) => drain::undrain(arguments),
        Command::Drill(arguments) => drill::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Key(command) => key::run(command),
        Command::Token(command) => token::run(&command),
        Command::Xdp(command) => xdp::run(&command),
        Command::Lab(command) => lab::run(command),
        Command::Supervise(arguments) => supervise::run(arguments),
        Command::Support(command) => support::run(command),
        Command::Whoami(arguments) => whoami::run(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
        Command::Version(arguments) => version::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    /// What there is, as users and their scripts know it: a name that goes is news for the changelog.
    #[rustfmt::skip]
    const TREE: [(&str, &str); 35] = [
        ("agent", ""),
        ("backend", "add | check | disable | drain | enable | flows | list | ls | remove | weight"),
        ("capture", ""),
        ("completions", ""),
        ("config", "apply | check | convert | diff | explain | fmt | history | rollback | schema | show"),
        ("doctor", ""),
        ("drain", ""),
        ("drill", ""),
        ("events", ""),
        ("hold", ""),
        ("import", "haproxy | keepalived | vaddrs"),
        ("key", "new | rotate | status"),
        ("lab", "bench | bench balance | bench checks | bench connections | bench faces | bench failover | bench idle | bench xdp | demo | down | up"),
        ("man", ""),
        ("move", ""),
        ("neigh", "announce"),
        ("node", "cordon | drain | leave | ls | matrix | uncordon | undrain"),
        ("page", ""),
        ("path", ""),
        ("pool", "ls | release | reserve | show"),
        ("release", ""),
        ("reload", ""),
        ("service", "add | backend | backend add | backend rm | ls | rm | show"),
        ("status", ""),
        ("support", "dump"),
        ("token", "new"),
        ("top", ""),
        ("undrain", ""),
        ("version", ""),
        ("vip", "add | budget | ls | rm | show"),
        ("vrrp", "ls | show"),
        ("whoami", ""),
        ("why", ""),
        ("witness", ""),
        ("xdp", "detach"),
    ];

    #[test]
    fn the_tree_of_commands_is_what_it_was_said_to_be() {
        fn below(command: &clap::Command, before: &str, all: &mut Vec<String>) {
            for command in command.get_subcommands().filter(|c| !c.is_hide_set()) {
                let path = format!("{before}{}", command.get_name());
                below(command, &format!("{path} "), all);
                all.push(path);
            }
        }
        let line = CommandLine::command();
        for command in line.get_subcommands().filter(|c| !c.is_hide_set()) {
            let mut all = Vec::new();
            below(command, "", &mut all);
            all.sort();
            let said = TREE.iter().find(|(name, _)| *name == command.get_name());
            let said = said.map(|(_, below)| *below);
            assert_eq!(said, Some(all.join(" | ").as_str()), "buoy {}", command.get_name());
        }
        for (name, _) in TREE {
            assert!(line.find_subcommand(name).is_some(), "buoy {name} is gone");
        }
    }

    #[test]
    fn every_command_says_what_it_is_for() {
        fn walk(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} says nothing", command.get_name());
            command.get_subcommands().for_each(walk);
        }
        walk(&CommandLine::command());
    }
}
