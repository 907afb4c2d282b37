//! `buoy service`, and `buoy backend` as far as it is about the backends of services: shows them, and orders
//! what is to be otherwise while the agents run.
//!
//! An order is given to the agent of any node. It holds there when the command ends, and on the others as soon as
//! they hear of it.

use crate::Asking;
use crate::consent::Consent;
use crate::failure::Failure;
use crate::listing::Listing;
use crate::output;
use crate::table::{Align, Table, Tone, plain};
use crate::time;
use crate::vip;
use crate::why;
use buoy_api::{
    BackendFlows, BackendOrderRequest, FlowsReply, FlowsView, ServiceFlowsReply, ServiceReply,
    ServicesReply, segment,
};
use std::time::Duration;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// One line for each service
    Ls(Listing),
    /// One service with its backends
    Show(ShowArguments),
    /// Add a service to a VIP on all nodes
    Add(vip::AddServiceArguments),
    /// Take a service away on all nodes
    Rm(vip::RemoveServiceArguments),
    /// Add servers to a service, or take them away
    #[command(subcommand)]
    Backend(vip::BackendCommand),
}

#[derive(clap::Args, Debug)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    asking: Asking,
    /// As in web:443/tcp; what tells it from the others is enough
    service: String,
}

#[derive(clap::Args, Debug)]
pub(crate) struct LsArguments {
    #[command(flatten)]
    listing: Listing,
    /// As in web:443/tcp; without it: those of all services
    service: Option<String>,
}

/// Which backend, and how the answer looks.
#[derive(clap::Args, Debug)]
pub(crate) struct Backend {
    #[command(flatten)]
    asking: Asking,
    /// As in web:443/tcp; what tells it from the others is enough
    service: String,
    /// The backend's name, or its address and port
    backend: String,
}

impl Backend {
    fn named(&self) -> String {
        format!("{} of {}", plain(&self.backend), plain(&self.service))
    }
}

#[derive(clap::Args, Debug)]
pub(crate) struct DrainArguments {
    #[command(flatten)]
    backend: Backend,
    /// After so long what is left is cut, as in 10m; without it a connection may take as long as it takes
    #[arg(long = "for", value_name = "TIME", value_parser = time::duration)]
    time: Option<Duration>,
    #[command(flatten)]
    consent: Consent,
    /// For the record and for `buoy why`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct EnableArguments {
    #[command(flatten)]
    backend: Backend,
    /// Take connections while its checks pass, also where its agent asks for none
    #[arg(long)]
    ready: bool,
    /// For the record and for `buoy why`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct DisableArguments {
    #[command(flatten)]
    backend: Backend,
    #[command(flatten)]
    consent: Consent,
    /// For the record and for `buoy why`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct WeightArguments {
    #[command(flatten)]
    backend: Backend,
    /// As in 10, or 50% of that of the file, or `configured`; 0 takes no new connections
    weight: String,
    /// For the record and for `buoy why`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct FlowsArguments {
    #[command(flatten)]
    asking: Asking,
    /// As in web:443/tcp; what tells it from the others is enough
    service: String,
    /// The backend's name, or its address and port; without it: all backends of the service
    backend: Option<String>,
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Add(arguments) => vip::add_service(arguments),
        Command::Rm(arguments) => vip::remove_service(arguments),
        Command::Backend(command) => vip::backend(command),
        Command::Ls(listing) => {
            let table = |reply: &ServicesReply| services(&reply.services, output::colour());
            listing.show("/v1/services", |reply| reply, table)
        }
        Command::Show(ShowArguments { asking, service }) => {
            let reply = asking.client()?.service(&service)?;
            asking.show(&reply, |reply| service_screen(reply, output::colour()))
        }
    }
}

pub(crate) fn list_backends(arguments: &LsArguments) -> Result<(), Failure> {
    let table = |services: &Vec<ServiceReply>| backends(services).render(output::colour());
    match &arguments.service {
        Some(service) => {
            let target = format!("/v1/services/{}", segment(service));
            arguments.listing.show(&target, |service: ServiceReply| vec![service], table)
        }
        None => arguments.listing.show("/v1/services", |all: ServicesReply| all.services, table),
    }
}

pub(crate) fn drain(arguments: DrainArguments) -> Result<(), Failure> {
    let DrainArguments { backend, time, consent, reason } = arguments;
    let after = time.map_or_else(String::new, |_| ", and what is left then is cut".into());
    let question = format!("Drain {}? It gets no new connections{after}.", backend.named());
    if !consent.given(backend.asking.output, &question)? {
        return Ok(());
    }
    let for_ms = time.map(time::millis);
    order(&backend, "drain", &BackendOrderRequest { reason, for_ms, weight: None })
}

pub(crate) fn enable(arguments: EnableArguments) -> Result<(), Failure> {
    let EnableArguments { backend, ready, reason } = arguments;
    let verb = if ready { "ready" } else { "enable" };
    order(&backend, verb, &BackendOrderRequest { reason, ..BackendOrderRequest::default() })
}

pub(crate) fn disable(arguments: DisableArguments) -> Result<(), Failure> {
    let DisableArguments { backend, consent, reason } = arguments;
    let question = format!("Disable {}? Its connections are cut.", backend.named());
    if !consent.given(backend.asking.output, &question)? {
        return Ok(());
    }
    order(&backend, "disable", &BackendOrderRequest { reason, ..BackendOrderRequest::default() })
}

pub(crate) fn weigh(arguments: WeightArguments) -> Result<(), Failure> {
    let WeightArguments { backend, weight, reason } = arguments;
    let weight = Some(weight);
    order(&backend, "weight", &BackendOrderRequest { reason, for_ms: None, weight })
}

fn order(backend: &Backend, verb: &str, request: &BackendOrderRequest) -> Result<(), Failure> {
    let name = (backend.service.as_str(), backend.backend.as_str());
    let reply = backend.asking.client()?.order_backend(name, verb, request)?;
    backend.asking.show(&reply, |reply| {
        let said = format!("{} of {} {}", reply.backend, reply.service, reply.order.sentence);
        format!("{}\n", plain(&said))
    })
}

pub(crate) fn flows(arguments: &FlowsArguments) -> Result<(), Failure> {
    let FlowsArguments { asking, service, backend } = arguments;
    match backend {
        Some(backend) => asking.show(&asking.client()?.flows(service, backend)?, flows_screen),
        None => asking.show(&asking.client()?.flows_of_all(service)?, |reply| {
            flows_table(reply, output::colour())
        }),
    }
}

fn flows_table(reply: &ServiceFlowsReply, colour: bool) -> String {
    let row = |of: &BackendFlows| {
        let number = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
        (of.backend.clone(), numbers(&of.flows).map(number))
    };
    let table = counted(reply.backends.iter().map(row));
    // One engine counts all of them.
    let source = reply.backends.first().map_or("", |of| of.flows.source.as_str());
    let first = format!("{} on {}, by {}: {source}", reply.service, reply.node, reply.engine);
    format!("{}\n{}", plain(&first), table.render(colour))
}

fn flows_screen(reply: &FlowsReply) -> String {
    let flows = &reply.flows;
    let mut text = format!("{} of {} on {}\n", reply.backend, reply.service, reply.node);
    let numbers = [
        ("open", flows.open),
        ("opened", flows.opened),
        ("packets", flows.packets),
        ("bytes", flows.bytes),
        ("back", flows.bytes_back),
    ];
    for (name, number) in numbers {
        let number = number.map_or_else(|| "not known".into(), |n| n.to_string());
        text.push_str(&format!("  {name:<8} {number}\n"));
    }
    text.push_str(&format!("  source   {}\n", flows.source));
    plain_lines(&text)
}

/// A table of backends with their `numbers`, in words.
pub(crate) fn counted(rows: impl Iterator<Item = (String, [String; 5])>) -> Table<6> {
    let mut table = Table::new([
        ("BACKEND", Align::Left),
        ("OPEN", Align::Right),
        ("OPENED", Align::Right),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
        ("BACK", Align::Right),
    ]);
    for (backend, [open, opened, packets, bytes, back]) in rows {
        table.row(Tone::Plain, [backend, open, opened, packets, bytes, back]);
    }
    table
}

/// Open, opened, packets, bytes, and bytes back.
pub(crate) const fn numbers(flows: &FlowsView) -> [Option<u64>; 5] {
    let FlowsView { open, opened, packets, bytes, bytes_back, source: _ } = flows;
    [*open, *opened, *packets, *bytes, *bytes_back]
}

/// What came from the agent must not steer the terminal.
pub(crate) fn plain_lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", plain(line))).collect()
}

fn services(all: &[ServiceReply], colour: bool) -> String {
    if all.is_empty() {
        return "no service: add a [[vip.service]] to the file and run `buoy reload`\n".into();
    }
    let mut table = Table::new([
        ("SERVICE", Align::Left),
        ("ADDRESS", Align::Left),
        ("ENGINE", Align::Left),
        ("BALANCE", Align::Left),
        ("UP", Align::Right),
        ("PROBLEM", Align::Left),
    ]);
    for reply in all {
        let service = &reply.service;
        let is_wrong = service.problem.is_some() || service.up == 0;
        table.row(
            if is_wrong { Tone::Wrong } else { Tone::Plain },
            [
                service.name.clone(),
                reply.addresses.join(" "),
                service.engine.clone(),
                service.balance.clone(),
                format!("{}/{}", service.up, service.backends.len()),
                service.problem.clone().unwrap_or_default(),
            ],
        );
    }
    table.render(colour)
}

fn service_screen(reply: &ServiceReply, colour: bool) -> String {
    let service = &reply.service;
    let mut text = String::new();
    let mut line =
        |name: &str, value: &str| text.push_str(&format!("{name:<9} {}\n", plain(value)));
    line("service", &service.name);
    line("vip", &format!("{} ({})", reply.vip, reply.addresses.join(", ")));
    line("engine", &format!("{} on {}", service.engine, reply.node));
    line("balance", &service.balance);
    if let Some(table) = &service.table {
        line("table", table);
    }
    line("haproxy", &reply.haproxy);
    if let Some(problem) = &service.problem {
        line("problem", problem);
    }
    if !service.dropped.is_empty() {
        line("dropped", &format!("here: {}", why::reasons(&service.dropped)));
    }
    for backend in service.backends.iter().filter(|backend| !backend.dropped.is_empty()) {
        line("", &format!("of those, for {}: {}", backend.name, why::reasons(&backend.dropped)));
    }
    text.push_str(&format!("\n{}", backends(std::slice::from_ref(reply)).render(colour)));
    text
}

fn backends(all: &[ServiceReply]) -> Table<8> {
    why::backends_of(all.iter().map(|reply| &reply.service))
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::{BackendView, OrderedView, ServiceView};

    fn reply() -> ServiceReply {
        let half = OrderedView { weight: Some("50%".into()), ..OrderedView::default() };
        let backend = |name: &str, state: &str, order| BackendView {
            name: name.into(),
            address: "10.0.0.21:8443".into(),
            state: state.into(),
            weight: 4,
            order,
            ..BackendView::default()
        };
        ServiceReply {
            node: "lb1".into(),
            vip: "web".into(),
            addresses: vec!["10.0.0.100".into()],
            haproxy: "web:443-tcp".into(),
            service: ServiceView {
                name: "web:443/tcp".into(),
                engine: "proxy".into(),
                balance: "roundrobin".into(),
                up: 1,
                backends: vec![
                    backend("web1", "up", Some(half)),
                    BackendView {
                        dropped: [("no_neighbour".into(), 12)].into(),
                        reason: "patching\x1b[2J".into(),
                        ..backend("web2", "drain", None)
                    },
                ],
                dropped: [("no_neighbour".into(), 12), ("source".into(), 3)].into(),
                ..ServiceView::default()
            },
        }
    }

    #[test]
    fn a_service_is_shown_with_what_is_ordered_of_its_backends() {
        let screen = service_screen(&reply(), false);
        let expected = "\
service   web:443/tcp
vip       web (10.0.0.100)
engine    proxy on lb1
balance   roundrobin
haproxy   web:443-tcp
dropped   here: no neighbour 12, source 3
          of those, for web2: no neighbour 12

SERVICE      BACKEND  ADDRESS         STATE           WEIGHT  OPENED  DROPPED  REASON
web:443/tcp  web1     10.0.0.21:8443  up     4, by order 50%       -        -  -
web:443/tcp  web2     10.0.0.21:8443  drain                4       -       12  patching?[2J
";
        assert_eq!(screen, expected);
        let all = services(&[reply()], false);
        assert!(all.contains("web:443/tcp  10.0.0.100  proxy   roundrobin  1/2"), "{all}");
        assert!(services(&[], false).contains("[[vip.service]]"));
    }

    #[test]
    fn all_backends_of_a_service_are_counted_in_one_table() {
        let of = |backend: &str, open| BackendFlows {
            backend: backend.into(),
            flows: FlowsView { open, source: "conntrack".into(), ..FlowsView::default() },
        };
        let reply = ServiceFlowsReply {
            node: "lb1".into(),
            service: "web:443/tcp".into(),
            engine: "nftables".into(),
            backends: vec![of("web1", Some(17)), of("web\x1b2", None)],
        };
        let expected = "\
web:443/tcp on lb1, by nftables: conntrack
BACKEND  OPEN  OPENED  PACKETS  BYTES  BACK
web1       17       -        -      -     -
web?2       -       -        -      -     -
";
        assert_eq!(flows_table(&reply, false), expected);
    }

    #[test]
    fn what_is_not_known_of_connections_is_said_so() {
        let flows = FlowsView { open: Some(3), source: "the proxy".into(), ..FlowsView::default() };
        let reply = FlowsReply {
            node: "lb1".into(),
            service: "web:443/tcp".into(),
            backend: "web1".into(),
            engine: "proxy".into(),
            flows,
        };
        let expected = "\
web1 of web:443/tcp on lb1
  open     3
  opened   not known
  packets  not known
  bytes    not known
  back     not known
  source   the proxy
";
        assert_eq!(flows_screen(&reply), expected);
    }
}
