//! `buoy backend`: orders about backends of services (`service.rs`), and what makes this host a real server for VIPs that arrive by dsr or tunnel, and undoes it.
//!
//! No agent is asked and none is needed: what is done stays in the kernel until it is undone or the host
//! boots. `check` says what would drop packets or tell others of the VIP; `buoy doctor` says the same.

use crate::doctor::{self, Finding, Verdict};
use crate::failure::{Exit, Failure};
use crate::output::{self, Form};
use crate::service;
use crate::table::{Align, Table, Tone, plain};
use buoy_kernel::backend::{
    Backend, Condition, Counts, FOLDER, Health, Outcome, Prepared, Run, Tunnel, Vips, Wanted, Which,
};
use serde::Serialize;
use std::net::IpAddr;
use std::path::Path;

/// What a tunnel costs, and where it is felt.
fn tunnel_note(tunnel: Tunnel) -> String {
    let (v4, v6) = tunnel.overhead();
    format!(
        "the outer header takes {v4} bytes (IPv4) or {v6} (IPv6): give the way from the director an MTU \
         that is larger by that, or let this host ask for smaller segments (ip route change default ... \
         advmss 1400); see docs/backend.md"
    )
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show the backends of a service, or of all, with what is ordered of them
    Ls(service::LsArguments),
    /// Give a backend no new connections, on all nodes; those that it has go on
    Drain(service::DrainArguments),
    /// End a drain or a maintenance: its checks and its agent decide again
    Enable(service::EnableArguments),
    /// Take a backend out for maintenance, on all nodes: its connections are cut, and it is not checked
    Disable(service::DisableArguments),
    /// Give a backend another weight, on all nodes, until its service leaves the file
    Weight(service::WeightArguments),
    /// Say what connections a backend has from this node
    Flows(service::FlowsArguments),
    /// Prepare this host to serve VIPs; twice is once
    Add(AddArguments),
    /// Say what would drop packets for VIPs, or tell others that they are here; changes nothing
    Check(CheckArguments),
    /// Undo what `add` did, exactly
    Remove(RemoveArguments),
    /// Show the VIPs that this host is prepared for
    List(ListArguments),
}

#[derive(clap::Args, Debug)]
pub(crate) struct AddArguments {
    /// Addresses, without a prefix
    #[arg(required = true, value_name = "VIP", value_parser = address)]
    vips: Vec<IpAddr>,
    /// Packets come wrapped into others (IPv4 or IPv6 in either), and not as they are (dsr): ipip, gue or
    /// gue:PORT, as the director's `encapsulation` says, or both as in ipip,gue; ipip where none is given
    #[arg(
        long,
        value_name = "ENCAPSULATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "ipip"
    )]
    tunnel: Option<Tunnel>,
    /// Where packets come in; else the interface of the VIP's subnet, or of the default route
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(clap::Args, Debug)]
pub(crate) struct CheckArguments {
    /// Addresses, without a prefix; none: all that this host is prepared for
    #[arg(value_name = "VIP", value_parser = address)]
    vips: Vec<IpAddr>,
    /// Packets come wrapped into others, as for `add`
    #[arg(
        long,
        value_name = "ENCAPSULATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "ipip",
        requires = "vips"
    )]
    tunnel: Option<Tunnel>,
    /// Where packets come in
    #[arg(long, value_name = "NAME", requires = "vips")]
    interface: Option<String>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(clap::Args, Debug)]
pub(crate) struct RemoveArguments {
    /// Addresses, without a prefix
    #[arg(
        value_name = "VIP",
        value_parser = address,
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    vips: Vec<IpAddr>,
    /// Every VIP that this host is prepared for
    #[arg(long)]
    all: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ListArguments {
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// A VIP for programs.
#[derive(Serialize)]
struct VipView {
    address: IpAddr,
    interface: String,
    forward: &'static str,
    /// What packets of a tunnel come in.
    #[serde(skip_serializing_if = "Option::is_none")]
    encapsulation: Option<String>,
    /// It was on the loopback interface already, so it stays there.
    was_there: bool,
}

/// What was done, or would be, for programs.
#[derive(Serialize)]
struct Done {
    dry_run: bool,
    steps: Vec<String>,
    notes: Vec<String>,
    vips: Vec<VipView>,
}

/// What was decapsulated on an interface, for programs.
#[derive(Serialize)]
struct DecapsulatedView {
    interface: String,
    packets: u64,
    malformed: u64,
    fragments: u64,
    congestion: u64,
}

/// All that is prepared, for programs.
#[derive(Serialize)]
struct List {
    vips: Vec<VipView>,
    decapsulated: Vec<DecapsulatedView>,
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Ls(arguments) => service::list_backends(&arguments),
        Command::Drain(arguments) => service::drain(arguments),
        Command::Enable(arguments) => service::enable(arguments),
        Command::Disable(arguments) => service::disable(arguments),
        Command::Weight(arguments) => service::weigh(arguments),
        Command::Flows(arguments) => service::flows(&arguments),
        Command::Add(arguments) => add(&arguments),
        Command::Check(arguments) => check(&arguments),
        Command::Remove(arguments) => remove(&arguments),
        Command::List(arguments) => list(&arguments),
    }
}

/// What `buoy doctor` says of this host as a real server; nothing where it is none.
pub(crate) fn examine() -> Vec<Finding> {
    let findings = || {
        let mut backend = Backend::open(Path::new(FOLDER))?;
        if backend.prepared()?.is_empty() { Ok(Vec::new()) } else { backend.check(&[]) }
    };
    match findings() {
        Ok(conditions) => conditions.into_iter().map(finding).collect(),
        Err(error) => vec![Finding::fail(
            "backend",
            format!("whether this host is a real server cannot be told: {error}"),
            "run it as root, on the host itself",
        )],
    }
}

fn open() -> Result<Backend, Failure> {
    Backend::open(Path::new(FOLDER)).map_err(Failure::failed)
}

fn wanted(vips: &[IpAddr], tunnel: Option<Tunnel>, interface: Option<&String>) -> Vec<Wanted> {
    let tunnel = tunnel.unwrap_or_default();
    let wanted = |&address| Wanted { address, tunnel, interface: interface.cloned() };
    vips.iter().map(wanted).collect()
}

fn add(arguments: &AddArguments) -> Result<(), Failure> {
    let mut backend = open()?;
    let wanted = wanted(&arguments.vips, arguments.tunnel, arguments.interface.as_ref());
    let run = if arguments.dry_run { Run::Dry } else { Run::Real };
    let mut outcome = backend.add(&wanted, run).map_err(Failure::failed)?;
    if let Some(tunnel) = arguments.tunnel.filter(|_| !outcome.steps.is_empty()) {
        outcome.notes.push(tunnel_note(tunnel));
    }
    let mut text = steps(&outcome, run, "this host is prepared already: nothing to do");
    let found = match run {
        Run::Dry => Vec::new(),
        Run::Real => backend.check(&wanted).map_err(Failure::failed)?,
    };
    let bad = found.into_iter().map(finding).filter(|finding| finding.verdict != Verdict::Ok);
    let bad: Vec<Finding> = bad.collect();
    match arguments.output {
        form @ (Form::Json | Form::Yaml) => output::value(form, &done(outcome, run, &bad))?,
        Form::Table => {
            if run == Run::Real {
                text.push_str(&ready(&wanted, &outcome.vips));
            }
            if !bad.is_empty() {
                text.push_str("\nbut not all is well yet:\n");
                text.push_str(&doctor::screen(&bad, output::colour(), output::wrap()));
            }
            output::text(&text)?;
        }
    }
    ended(&bad)
}

fn ended(findings: &[Finding]) -> Result<(), Failure> {
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
    if failed { Err(Failure::said(Exit::Failed)) } else { Ok(()) }
}

fn ready(wanted: &[Wanted], vips: &Vips) -> String {
    let of = |wanted: &Wanted| Some((wanted.address, vips.get(&wanted.address.to_canonical())?));
    let line = |(address, vip): (IpAddr, &Prepared)| {
        let how = match vip.tunnel {
            Tunnel::NONE => "as they are (dsr)".to_owned(),
            tunnel => format!("tunnelled ({tunnel})"),
        };
        format!(
            "{address} is prepared until the next boot: packets come by {}, {how}\n",
            plain(&vip.interface)
        )
    };
    wanted.iter().filter_map(of).map(line).collect()
}

fn check(arguments: &CheckArguments) -> Result<(), Failure> {
    let mut backend = open()?;
    let wanted = wanted(&arguments.vips, arguments.tunnel, arguments.interface.as_ref());
    if wanted.is_empty() && backend.prepared().map_err(Failure::failed)?.is_empty() {
        return Err(Failure::failed(
            "this host is prepared for no VIP: prepare it (buoy backend add VIP), or name the VIPs \
             to check",
        ));
    }
    let conditions = backend.check(&wanted).map_err(Failure::failed)?;
    let findings: Vec<Finding> = conditions.into_iter().map(finding).collect();
    doctor::show(&findings, arguments.output)?;
    ended(&findings)
}

fn finding(condition: Condition) -> Finding {
    let verdict = match condition.health {
        Health::Ok => Verdict::Ok,
        Health::Warn => Verdict::Warn,
        Health::Fail => Verdict::Fail,
    };
    Finding {
        verdict,
        about: condition.about,
        found: condition.found,
        fix: condition.fix,
        remedy: None,
    }
}

fn remove(arguments: &RemoveArguments) -> Result<(), Failure> {
    let mut backend = open()?;
    let addresses = arguments.vips.iter().map(IpAddr::to_canonical).collect();
    let which = if arguments.all { Which::All } else { Which::These(addresses) };
    let run = if arguments.dry_run { Run::Dry } else { Run::Real };
    let before = backend.prepared().map_err(Failure::failed)?;
    let mut outcome = backend.remove(&which, run).map_err(Failure::failed)?;
    let unknown = arguments.vips.iter().filter(|vip| !before.contains_key(&vip.to_canonical()));
    outcome.notes.extend(unknown.map(|vip| format!("this host is not prepared for {vip}")));
    for (address, _) in before.iter().filter(|(_, vip)| vip.found) {
        if !outcome.vips.contains_key(address) {
            outcome.notes.push(format!("{address} stays on lo, where it was before"));
        }
    }
    match arguments.output {
        form @ (Form::Json | Form::Yaml) => output::value(form, &done(outcome, run, &[])),
        Form::Table => output::text(&steps(&outcome, run, "nothing to undo")),
    }
}

/// What was done, a line for each, and what is to be said about it.
fn steps(outcome: &Outcome, run: Run, nothing: &str) -> String {
    let mut text = String::new();
    match (outcome.steps.is_empty(), run) {
        (true, _) => text.push_str(&format!("{nothing}\n")),
        (false, Run::Dry) => {
            text.push_str("nothing is changed; without --dry-run this would be done:\n")
        }
        (false, Run::Real) => {}
    }
    for step in &outcome.steps {
        text.push_str(&format!("  {}\n", plain(&step.to_string())));
    }
    for note in &outcome.notes {
        text.push_str(&format!(
            "note: {}\n",
            crate::table::wrapped(&plain(note), 6, output::wrap())
        ));
    }
    text
}

fn done(outcome: Outcome, run: Run, bad: &[Finding]) -> Done {
    let wrong = bad.iter().map(|finding| format!("{}; fix: {}", finding.found, finding.fix));
    Done {
        dry_run: run == Run::Dry,
        steps: outcome.steps.iter().map(ToString::to_string).collect(),
        notes: outcome.notes.into_iter().chain(wrong).collect(),
        vips: views(outcome.vips),
    }
}

fn views(vips: Vips) -> Vec<VipView> {
    let view = |(address, vip): (IpAddr, Prepared)| VipView {
        address,
        forward: if vip.tunnel.is_any() { "tunnel" } else { "dsr" },
        encapsulation: vip.tunnel.is_any().then(|| vip.tunnel.to_string()),
        interface: vip.interface,
        was_there: vip.found,
    };
    vips.into_iter().map(view).collect()
}

fn forward(vip: &Prepared) -> String {
    match vip.tunnel {
        Tunnel::NONE => "dsr".to_owned(),
        Tunnel::IPIP => "tunnel".to_owned(),
        tunnel => format!("tunnel ({tunnel})"),
    }
}

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let mut backend = open()?;
    let vips = backend.prepared().map_err(Failure::failed)?;
    let counts = backend.counts().map_err(Failure::failed)?;
    match arguments.output {
        form @ (Form::Json | Form::Yaml) => {
            let view = |(interface, counts): (String, Counts)| DecapsulatedView {
                interface,
                packets: counts.decapsulated,
                malformed: counts.malformed,
                fragments: counts.fragments,
                congestion: counts.congestion,
            };
            let decapsulated = counts.into_iter().map(view).collect();
            output::value(form, &List { vips: views(vips), decapsulated })
        }
        Form::Table => output::text(&listed(&vips, &counts, output::colour())),
    }
}

fn listed(vips: &Vips, counts: &[(String, Counts)], colour: bool) -> String {
    if vips.is_empty() {
        return "this host is prepared for no VIP: buoy backend add VIP\n".to_owned();
    }
    let columns = [("VIP", Align::Left), ("FORWARD", Align::Left), ("INTERFACE", Align::Left)];
    let mut table = Table::new(columns);
    for (address, vip) in vips {
        let cells = [address.to_string(), forward(vip), vip.interface.clone()];
        table.row(Tone::Plain, cells);
    }
    let mut text = table.render(colour);
    for (interface, Counts { decapsulated, .. }) in counts {
        let interface = plain(interface);
        text.push_str(&format!("\n{decapsulated} packets were decapsulated on {interface}\n"));
    }
    text
}

/// An address, and a hint where it has a prefix as in the configuration.
fn address(text: &str) -> Result<IpAddr, String> {
    match text.split_once('/') {
        Some((address, _)) if address.parse::<IpAddr>().is_ok() => {
            Err(format!("without the prefix: {address}"))
        }
        Some(_) | None => {
            text.parse().map_err(|_| "an IPv4 or IPv6 address, as in 10.0.0.100".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vips() -> Vips {
        let prepared = |tunnel| Prepared { interface: "eth0".into(), tunnel, found: false };
        Vips::from([
            ("10.0.0.100".parse().unwrap(), prepared(Tunnel::IPIP)),
            ("10.0.0.101".parse().unwrap(), prepared("ipip,gue:9886".parse().unwrap())),
            ("fd00::100".parse().unwrap(), prepared(Tunnel::NONE)),
        ])
    }

    #[test]
    fn a_vip_is_given_without_its_prefix() {
        assert_eq!(address("10.0.0.100"), Ok([10, 0, 0, 100].into()));
        assert_eq!(address("10.0.0.100/24"), Err("without the prefix: 10.0.0.100".into()));
        assert!(address("web").unwrap_err().contains("as in 10.0.0.100"));
    }

    #[test]
    fn the_list_says_how_packets_come() {
        let counts = [("eth0".to_owned(), Counts { decapsulated: 7, ..Counts::default() })];
        let expected = "\
VIP         FORWARD                 INTERFACE
10.0.0.100  tunnel                  eth0
10.0.0.101  tunnel (ipip,gue:9886)  eth0
fd00::100   dsr                     eth0

7 packets were decapsulated on eth0
";
        assert_eq!(listed(&vips(), &counts, false), expected);
        assert!(listed(&Vips::new(), &[], false).contains("buoy backend add VIP"));
        let value = serde_json::to_value(views(vips())).unwrap();
        let of = |at: usize| [&value[at]["forward"], &value[at]["encapsulation"]];
        assert_eq!(of(0), ["tunnel", "ipip"]);
        assert_eq!(of(1), ["tunnel", "ipip,gue:9886"]);
        assert_eq!(of(2), [&serde_json::json!("dsr"), &serde_json::Value::Null]);
        assert_eq!(value[2]["address"], "fd00::100");
    }
}
