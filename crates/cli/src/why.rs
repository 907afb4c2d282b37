//! `buoy why`: why a VIP is where it is, and why it is not elsewhere.

use crate::AgentSocket;
use crate::events::moment;
use crate::failure::Failure;
use crate::output::{self, Form};
use crate::status::span;
use crate::table::{Align, Table, Tone, plain};
use buoy_api::{VipView, WhyReply};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Its name, or one of its addresses
    vip: String,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let reply = arguments.agent.client()?.why(&arguments.vip)?;
    match arguments.output {
        Form::Json => output::json(&reply),
        Form::Table => output::text(&screen(&reply, output::colour())),
    }
}

fn screen(reply: &WhyReply, colour: bool) -> String {
    let vip = &reply.vip;
    let mut text = format!("{}\n\n{}", plain(&reply.answer), facts(vip, &reply.node));
    text.push_str(&format!("\n{}", candidates(vip).render(colour)));
    if !vip.services.is_empty() {
        text.push_str(&format!("\n{}", backends(vip).render(colour)));
    }
    for (n, event) in reply.history.iter().enumerate() {
        let heading = if n == 0 { "\nHISTORY (UTC)\n" } else { "" };
        text.push_str(&format!("{heading}  {}  {}\n", moment(event.at), plain(&event.sentence)));
    }
    text
}

/// What holds for the VIP as a whole, one line each.
fn facts(vip: &VipView, me: &str) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("{name:<9} {value}\n"));
    };
    for address in &vip.addresses {
        let interface = address.interface.as_ref();
        let place = interface.map_or_else(
            || format!("no interface of {me} may carry it"),
            |name| format!("on {name} of {me}"),
        );
        line("address", &format!("{} {place}", address.address));
    }
    let safety = match vip.votes_needed {
        0 => format!("{}: no votes needed", vip.safety),
        needed => format!("{}: an owner needs {needed} votes", vip.safety),
    };
    line("safety", &safety);
    line("failback", &vip.failback);
    line("epoch", &vip.epoch.to_string());
    if !vip.votes.is_empty() {
        line("votes", &format!("{} (held by {me})", vip.votes.join(", ")));
    }
    if let Some(left) = vip.lease_left_ms {
        line("lease", &format!("{me} may serve it for another {}", span(left)));
    }
    if let Some(problem) = &vip.problem {
        line("problem", &plain(problem));
    }
    text
}

fn candidates(vip: &VipView) -> Table<4> {
    let mut table = Table::new([
        ("NODE", Align::Left),
        ("PREFER", Align::Right),
        ("STANDING", Align::Left),
        ("REASON", Align::Left),
    ]);
    for candidate in &vip.candidates {
        table.row(
            Tone::Plain,
            [
                candidate.node.clone(),
                candidate.preferred.map_or_else(String::new, |place| place.to_string()),
                candidate.standing.clone(),
                candidate.reason.clone(),
            ],
        );
    }
    table
}

fn backends(vip: &VipView) -> Table<6> {
    let mut table = Table::new([
        ("SERVICE", Align::Left),
        ("BACKEND", Align::Left),
        ("ADDRESS", Align::Left),
        ("STATE", Align::Left),
        ("WEIGHT", Align::Right),
        ("REASON", Align::Left),
    ]);
    for service in &vip.services {
        for backend in &service.backends {
            let tone = if backend.state == "down" { Tone::Wrong } else { Tone::Plain };
            let backup = if backend.backup { " backup" } else { "" };
            table.row(
                tone,
                [
                    format!("{} {} {}", service.port, service.mode, service.balance),
                    backend.name.clone(),
                    backend.address.clone(),
                    format!("{}{backup}", backend.state),
                    backend.weight.to_string(),
                    backend.reason.clone(),
                ],
            );
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::{BackendView, CandidateView, EventView, ServiceView, VipAddressView};

    fn reply() -> WhyReply {
        let candidate = |node: &str, preferred, standing: &str, reason: &str| CandidateView {
            node: node.into(),
            preferred,
            standing: standing.into(),
            reason: reason.into(),
        };
        let backend = BackendView {
            name: "web1".into(),
            address: "10.0.0.21:8443".into(),
            state: "down".into(),
            reason: "HTTP 503".into(),
            weight: 1,
            backup: true,
        };
        let service = ServiceView {
            port: "443/tcp".into(),
            mode: "kernel".into(),
            balance: "hash".into(),
            backends: vec![backend],
            ..ServiceView::default()
        };
        let vip = VipView {
            name: "web".into(),
            addresses: vec![VipAddressView {
                address: "10.0.0.100/24".into(),
                interface: Some("eth0".into()),
            }],
            epoch: 7,
            lease_left_ms: Some(44.2),
            votes: vec!["lb1".into(), "lb3".into()],
            votes_needed: 2,
            safety: "exclusive".into(),
            failback: "never".into(),
            services: vec![service],
            candidates: vec![
                candidate("lb1", Some(1), "owner", "owns it"),
                candidate("lb2", None, "excluded", "silent for 4.0 s"),
            ],
            ..VipView::default()
        };
        WhyReply {
            node: "lb1".into(),
            answer: "lb1 has owned web for 1m0s: lb2 was silent.".into(),
            vip,
            history: vec![EventView {
                sentence: "lb1 took it over".into(),
                ..EventView::default()
            }],
        }
    }

    #[test]
    fn the_answer_comes_first_and_its_grounds_below() {
        let expected = "\
lb1 has owned web for 1m0s: lb2 was silent.

address   10.0.0.100/24 on eth0 of lb1
safety    exclusive: an owner needs 2 votes
failback  never
epoch     7
votes     lb1, lb3 (held by lb1)
lease     lb1 may serve it for another 44 ms

NODE  PREFER  STANDING  REASON
lb1        1  owner     owns it
lb2        -  excluded  silent for 4.0 s

SERVICE              BACKEND  ADDRESS         STATE        WEIGHT  REASON
443/tcp kernel hash  web1     10.0.0.21:8443  down backup       1  HTTP 503

HISTORY (UTC)
  1970-01-01 00:00:00.000  lb1 took it over
";
        assert_eq!(screen(&reply(), false), expected);
    }
}
