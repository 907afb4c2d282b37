//! `buoy vrrp`: what the virtual routers of VRRP are on this node, whom they hear, and what they refuse.

use crate::failure::Failure;
use crate::output::{self, Form};
use crate::status::{LOOK_EVERY, draw, span};
use crate::table::{Align, Table, Tone, plain};
use crate::{Asking, status};
use buoy_api::{ClientError, VrrpInstanceView, VrrpInstancesReply};

/// Without `virtual_mac`.
const OWNERS_MAC: &str = "the hardware address of its owner";

/// Where there is none.
const NONE: &str = "no VIP is owned by VRRP: `vrrp` of a [[vip]] makes it so\n";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// One line for each virtual router, as this node sees it
    Ls(LsArguments),
    /// The virtual routers of a VIP and of what moves with it, line by line
    Show(ShowArguments),
}

#[derive(clap::Args, Debug)]
pub(crate) struct LsArguments {
    #[command(flatten)]
    asking: Asking,
    /// Go on with every change, and at least every second, until Ctrl-C; JSON is one object a line then
    #[arg(short, long)]
    watch: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    asking: Asking,
    /// Its name, or one of its addresses
    vip: String,
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Ls(LsArguments { asking, watch: false }) => {
            let reply = asking.client()?.vrrp_instances(None)?;
            asking.show(&reply, |reply| list(&reply.instances, output::colour()))
        }
        Command::Ls(LsArguments { asking, watch: true }) => watch(&asking),
        Command::Show(ShowArguments { asking, vip }) => {
            let reply = asking.client()?.vrrp_instances(Some(&vip))?;
            asking.show(&reply, |reply| match reply.instances.as_slice() {
                [] => format!("{} is owned by lease, and has no virtual router\n", plain(&vip)),
                all => all.iter().map(one).collect::<Vec<_>>().join("\n"),
            })
        }
    }
}

fn watch(asking: &Asking) -> Result<(), Failure> {
    let client = asking.client()?;
    loop {
        let mut shown = Ok(());
        let ended = client.follow_vrrp(None, LOOK_EVERY, |answer| {
            shown = look(asking.output, answer);
            shown.is_ok()
        });
        shown?;
        // An agent that restarts is worth waiting for, before one's eyes.
        if let Err(error) = ended {
            look(asking.output, Err(error))?;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// One look of many.
fn look(form: Form, answer: Result<VrrpInstancesReply, ClientError>) -> Result<(), Failure> {
    match (form, answer) {
        (form @ (Form::Json | Form::Yaml), Ok(reply)) => output::item(form, &reply),
        (Form::Json | Form::Yaml, Err(error)) => Err(error.into()),
        (Form::Table, Ok(reply)) => draw(&list(&reply.instances, output::colour())),
        (Form::Table, Err(error)) => draw(&format!("{error}\n")),
    }
}

fn list(instances: &[VrrpInstanceView], colour: bool) -> String {
    if instances.is_empty() {
        return NONE.into();
    }
    let mut table = Table::new([
        ("VIP", Align::Left),
        ("VRID", Align::Right),
        ("FAMILY", Align::Left),
        ("INTERFACE", Align::Left),
        ("STATE", Align::Left),
        ("PRIORITY", Align::Right),
        ("ACTIVE", Align::Left),
        ("INTERVAL", Align::Right),
        ("SENT", Align::Right),
        ("HEARD", Align::Right),
        ("REFUSED", Align::Right),
        ("GROUP", Align::Left),
    ]);
    for instance in instances {
        let tone = if instance.active.is_none() { Tone::Wrong } else { Tone::Plain };
        let refused: u64 = instance.adverts_refused.values().sum();
        let group = if instance.group == instance.vip { "" } else { &instance.group };
        table.row(
            tone,
            [
                instance.vip.clone(),
                instance.id.to_string(),
                instance.family.clone(),
                instance.interface.clone(),
                instance.state.clone(),
                priority(instance),
                active(instance),
                status::span(instance.interval_ms as f64),
                instance.adverts_sent.to_string(),
                instance.adverts_received.to_string(),
                refused.to_string(),
                group.to_owned(),
            ],
        );
    }
    table.render(colour)
}

/// As it is, and in brackets what the file gives where that is something else.
fn priority(instance: &VrrpInstanceView) -> String {
    let VrrpInstanceView { priority, configured_priority, .. } = instance;
    match priority == configured_priority {
        true => priority.to_string(),
        false => format!("{priority} ({configured_priority})"),
    }
}

fn active(instance: &VrrpInstanceView) -> String {
    match (&instance.active_node, &instance.active) {
        (Some(node), Some(address)) => format!("{node} {address}"),
        (Some(only), None) | (None, Some(only)) => only.clone(),
        (None, None) => String::new(),
    }
}

fn one(instance: &VrrpInstanceView) -> String {
    let list = |all: &[String]| all.join(", ");
    let refused: Vec<String> = instance
        .adverts_refused
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    let peers = match instance.peers.as_slice() {
        [] => "everybody, by multicast".to_owned(),
        peers => list(peers),
    };
    let interval = match instance.interval_ms == instance.own_interval_ms {
        true => span(instance.interval_ms as f64),
        false => format!(
            "{}, learned from the active router; its own is {}",
            span(instance.interval_ms as f64),
            span(instance.own_interval_ms as f64)
        ),
    };
    let mut lines = vec![
        ("group", instance.group.clone()),
        ("addresses", list(&instance.addresses)),
        ("version", format!("{}, {}", instance.version, instance.family)),
        ("interface", instance.interface.clone()),
        ("reached at", instance.virtual_mac.clone().unwrap_or_else(|| OWNERS_MAC.into())),
        ("speaks from", instance.source.clone().unwrap_or_default()),
        ("speaks to", peers),
        ("state", instance.state.clone()),
        ("active router", active(instance)),
        ("priority", priority(instance)),
    ];
    lines.extend(instance.because.iter().map(|why| ("", why.clone())));
    lines.push(("interval", interval));
    if let Some(left) = instance.takes_over_in_ms {
        lines.push(("takes over in", format!("{}, if nobody better is heard", span(left as f64))));
    }
    let takes = if instance.accept { "taken for itself" } else { "dropped (accept = false)" };
    lines.extend([
        ("packets to it", takes.to_owned()),
        ("adverts sent", instance.adverts_sent.to_string()),
        ("adverts heard", instance.adverts_received.to_string()),
        ("refused", if refused.is_empty() { "0".into() } else { list(&refused) }),
    ]);
    let mut text = format!("{} VRID {}\n", plain(&instance.vip), instance.id);
    for (name, value) in lines {
        let value = if value.is_empty() { "-".into() } else { plain(&value) };
        text.push_str(&format!("  {name:<14}{value}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> VrrpInstanceView {
        VrrpInstanceView {
            vip: "web".into(),
            group: "front".into(),
            addresses: vec!["10.0.0.100".into(), "10.0.0.101".into()],
            interface: "eth0".into(),
            id: 51,
            family: "ipv4".into(),
            version: 3,
            state: "backup".into(),
            priority: 80,
            configured_priority: 100,
            because: vec!["check fit fails: -20 (no such process)".into()],
            active: Some("10.0.0.12".into()),
            interval_ms: 500,
            own_interval_ms: 1000,
            source: Some("10.0.0.11".into()),
            takes_over_in_ms: Some(1400),
            accept: true,
            virtual_mac: Some("00:00:5e:00:01:33".into()),
            adverts_sent: 3,
            adverts_received: 77,
            adverts_refused: [("ttl".into(), 2), ("checksum".into(), 1)].into(),
            ..VrrpInstanceView::default()
        }
    }

    #[test]
    fn a_virtual_router_is_one_line() {
        let expected = "\
VIP  VRID  FAMILY  INTERFACE  STATE   PRIORITY  ACTIVE     INTERVAL  SENT  HEARD  REFUSED  GROUP
web    51  ipv4    eth0       backup  80 (100)  10.0.0.12    500 ms     3     77        3  front
";
        assert_eq!(list(&[instance()], false), expected);
        assert_eq!(list(&[], false), NONE);
    }

    #[test]
    fn all_of_it_is_said_line_by_line_and_why_the_priority_is_another() {
        let expected = "\
web VRID 51
  group         front
  addresses     10.0.0.100, 10.0.0.101
  version       3, ipv4
  interface     eth0
  reached at    00:00:5e:00:01:33
  speaks from   10.0.0.11
  speaks to     everybody, by multicast
  state         backup
  active router 10.0.0.12
  priority      80 (100)
                check fit fails: -20 (no such process)
  interval      500 ms, learned from the active router; its own is 1.0 s
  takes over in 1.4 s, if nobody better is heard
  packets to it taken for itself
  adverts sent  3
  adverts heard 77
  refused       1 checksum, 2 ttl
";
        assert_eq!(one(&instance()), expected);
    }
}
