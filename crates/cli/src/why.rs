//! `buoy why`: why a VIP is where it is, and why it is not elsewhere.

use crate::AgentSocket;
use crate::events::moment;
use crate::failure::Failure;
use crate::output::{self, Form};
use crate::status::span;
use crate::table::{Align, Table, Tone, plain, wrapped};
use buoy_api::{BackendView, CandidateView, HeldView, PhasesView, ServiceView, VipView, WhyReply};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Its name, or one of its addresses
    vip: String,
    /// Why this node does or does not own it, and no more
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let reply = arguments.agent.client()?.why(&arguments.vip)?;
    if let Some(node) = &arguments.node {
        let standing = Standing::of(&reply, node)?;
        return match arguments.output {
            form @ (Form::Json | Form::Yaml) => output::value(form, &standing),
            Form::Table => output::text(&standing.said(output::wrap())),
        };
    }
    match arguments.output {
        form @ (Form::Json | Form::Yaml) => output::value(form, &reply),
        Form::Table => output::text(&screen(&reply, output::colour(), output::wrap())),
    }
}

/// What one node is to a VIP.
#[derive(Serialize)]
struct Standing<'r> {
    vip: &'r str,
    owner: Option<&'r str>,
    /// Its place in line, counted from 1; null: it is not in line.
    place: Option<usize>,
    candidate: &'r CandidateView,
    /// The node that says so.
    seen_from: &'r str,
}

impl<'r> Standing<'r> {
    fn of(reply: &'r WhyReply, node: &str) -> Result<Self, Failure> {
        let vip = &reply.vip;
        let Some(candidate) = vip.candidates.iter().find(|candidate| candidate.node == node) else {
            let names: Vec<&str> = vip.candidates.iter().map(|c| c.node.as_str()).collect();
            return Err(Failure::failed(format!(
                "there is no node {node:?}: the configuration has {}",
                names.join(", ")
            )));
        };
        let waits = |c: &&CandidateView| c.standing == "candidate" || c.standing == "wants";
        let place = vip.candidates.iter().filter(waits).position(|c| c.node == node);
        Ok(Self {
            vip: &vip.name,
            owner: vip.owner.as_deref(),
            place: place.map(|place| place + 1),
            candidate,
            seen_from: &reply.node,
        })
    }

    fn said(&self, width: usize) -> String {
        let Self { vip, owner, candidate, seen_from, .. } = self;
        let CandidateView { node, reason, .. } = candidate;
        let elsewhere = match owner {
            Some(owner) if owner != node => format!("; {owner} has it"),
            Some(_) => String::new(),
            None => "; nobody has it".into(),
        };
        let answer = match (candidate.standing.as_str(), self.place) {
            ("owner", _) => format!("{node} owns {vip}."),
            ("wants", _) => format!("{node} does not own {vip} yet: {reason}{elsewhere}."),
            (_, Some(1)) => format!("{node} does not own {vip}, and is next: {reason}{elsewhere}."),
            (_, Some(place)) => {
                let before = place - 1;
                let nodes = if before == 1 { "node is" } else { "nodes are" };
                format!(
                    "{node} does not own {vip}: {reason}, but {before} {nodes} before it in line{elsewhere}."
                )
            }
            (_, None) => format!("{node} cannot own {vip}: {reason}{elsewhere}."),
        };
        let prefer = candidate.preferred.map(|place| format!(" It is number {place} of `prefer`."));
        let answer = format!("{answer}{} Seen from {seen_from}.", prefer.unwrap_or_default());
        format!("{}\n", wrapped(&plain(&answer), 0, width))
    }
}

fn screen(reply: &WhyReply, colour: bool, width: usize) -> String {
    let vip = &reply.vip;
    let answer = wrapped(&plain(&reply.answer), 0, width);
    let mut text = format!("{answer}\n\n{}", facts(vip, &reply.node, width));
    text.push_str(&format!("\n{}", candidates(vip).render(colour)));
    if !vip.checks.is_empty() {
        text.push_str(&format!("\n{}", checks(vip, &reply.node).render(colour)));
    }
    if !vip.services.is_empty() {
        text.push_str(&format!("\n{}", backends(vip).render(colour)));
    }
    let teller = reply.told_by.as_ref().unwrap_or(&reply.node);
    if let Some(phases) = &reply.phases {
        text.push_str(&format!("\n{}", takeover(phases, teller).render(colour)));
    }
    if !reply.history.is_empty() {
        let whose = reply.told_by.as_ref().map(|node| format!(", as {node} tells it"));
        text.push_str(&format!("\nHISTORY (UTC){}\n", plain(&whose.unwrap_or_default())));
    }
    for event in &reply.history {
        text.push_str(&format!("  {}  {}\n", moment(event.at), plain(&event.sentence)));
    }
    text
}

/// What holds for the VIP as a whole, one line each.
fn facts(vip: &VipView, me: &str, width: usize) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("{name:<9} {}\n", wrapped(value, 10, width)));
    };
    for address in &vip.addresses {
        let interface = address.interface.as_ref();
        let place = interface.map_or_else(
            || format!("no interface of {me} may carry it"),
            |name| match address.answered {
                true => format!("answered for by XDP on {name} of {me}, and on no interface"),
                false => format!("on {name} of {me}"),
            },
        );
        let name = if address.vip.is_empty() || address.vip == vip.name {
            String::new()
        } else {
            format!(" ({})", address.vip)
        };
        line("address", &format!("{}{name} {place}", address.address));
    }
    line("safety", &format!("{}: {}", vip.safety, vip.safety_means));
    line("failback", &vip.failback);
    for router in &vip.vrrp {
        line("vrrp", &plain(&router.says));
    }
    if !vip.refused.is_empty() {
        let counts = vip.refused.iter().map(|(reason, count)| format!("{reason} {count}"));
        line("refused", &format!("packets of VRRP: {}", counts.collect::<Vec<_>>().join(", ")));
    }
    if let (Some(owner), Some(heir)) = (&vip.owner, &vip.yields_to) {
        line("handover", &format!("{owner} gives it to {heir} right now"));
    }
    if let Some(held) = &vip.held {
        line("held", &plain(&held_words(held)));
    }
    line("epoch", &vip.epoch.to_string());
    if !vip.votes.is_empty() {
        line("votes", &format!("{} (held by {me})", vip.votes.join(", ")));
    }
    if let Some(left) = vip.lease_left_ms {
        line("lease", &format!("{me} may serve it for another {}", span(left)));
    }
    for service in &vip.services {
        if let Some(rate) = &service.new_connections {
            let refused = service.limited.unwrap_or(0);
            let said =
                format!("{} takes {rate} of a client; {me} has refused {refused}", service.port);
            line("limit", &said);
        }
    }
    if let Some(problem) = &vip.problem {
        line("problem", &plain(problem));
    }
    text
}

/// As in "patching (by ann), for another 4m0s".
pub(crate) fn held_words(held: &HeldView) -> String {
    let reason = match held.reason.as_str() {
        "" => "by an operator (its owner knows the reason)",
        reason => reason,
    };
    let left = held.left_ms;
    left.map_or_else(|| reason.to_owned(), |left| format!("{reason}, for another {}", span(left)))
}

/// The phases of the last takeover, in order of time.
fn takeover(phases: &PhasesView, me: &str) -> Table<3> {
    let mut table = Table::new([
        ("LAST TAKEOVER", Align::Left),
        ("AT", Align::Right),
        ("WHAT WAS DONE", Align::Left),
    ]);
    let silence = if phases.detect_ms == 0.0 {
        "the last owner gave it up itself, or nobody had it".to_owned()
    } else {
        format!("after {} of silence the last owner was given up", span(phases.detect_ms))
    };
    let first = phases.first_packet_ms.map_or_else(|| "> 1 s".into(), span);
    let rows = [
        ("detect", "0 ms".to_owned(), silence),
        (
            "decide",
            span(phases.decide_ms),
            format!("{me} had the right to serve it (epoch {})", phases.epoch),
        ),
        ("address", span(phases.address_ms), "the address was there, the gate open".into()),
        ("announce", span(phases.announce_ms), "the segment was told".into()),
        ("first packet", first, "a packet for the address came in".into()),
    ];
    for (phase, at, what) in rows {
        table.row(Tone::Plain, [phase.into(), at, what]);
    }
    table
}

/// What is asked of this node itself.
fn checks(vip: &VipView, me: &str) -> Table<4> {
    let mut table = Table::new([
        ("CHECK", Align::Left),
        ("ASKS", Align::Left),
        ("STATE", Align::Left),
        ("REASON", Align::Left),
    ]);
    for check in &vip.checks {
        let tone = if check.state == "fail" { Tone::Wrong } else { Tone::Plain };
        let asks = format!("{} on {me}", check.asks);
        table.row(tone, [check.name.clone(), asks, check.state.clone(), check.reason.clone()]);
    }
    table
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

fn backends(vip: &VipView) -> Table<8> {
    backend_table(vip.services.iter().map(|service| {
        let by = if service.engine.is_empty() { &service.mode } else { &service.engine };
        (format!("{} {by} {}", service.port, service.balance), service)
    }))
}

/// The backends of all these services.
pub(crate) fn backends_of<'s>(services: impl Iterator<Item = &'s ServiceView>) -> Table<8> {
    backend_table(services.map(|service| (service.name.clone(), service)))
}

/// The same, with what each service is called.
fn backend_table<'s>(services: impl Iterator<Item = (String, &'s ServiceView)>) -> Table<8> {
    let mut table = Table::new([
        ("SERVICE", Align::Left),
        ("BACKEND", Align::Left),
        ("ADDRESS", Align::Left),
        ("STATE", Align::Left),
        ("WEIGHT", Align::Right),
        ("OPENED", Align::Right),
        ("DROPPED", Align::Right),
        ("REASON", Align::Left),
    ]);
    for (name, service) in services {
        for backend in &service.backends {
            backend_row(&mut table, name.clone(), backend);
        }
    }
    table
}

/// What a table of backends says of one, behind its service.
fn backend_row(table: &mut Table<8>, service: String, backend: &BackendView) {
    let tone = if backend.state == "down" { Tone::Wrong } else { Tone::Plain };
    let backup = if backend.backup { " backup" } else { "" };
    table.row(
        tone,
        [
            service,
            backend.name.clone(),
            backend.address.clone(),
            format!("{}{backup}", backend.state),
            weight(backend),
            opened(backend),
            lost(backend),
            backend.reason.clone(),
        ],
    );
}

/// As in `2`, or `2, by order 50%`.
fn weight(backend: &BackendView) -> String {
    let ordered = backend.order.as_ref().and_then(|order| order.weight.as_ref());
    ordered.map_or_else(
        || backend.weight.to_string(),
        |ordered| format!("{}, by order {ordered}", backend.weight),
    )
}

/// Connections that were opened to a backend through this node, where that is known.
fn opened(backend: &BackendView) -> String {
    backend.traffic.map_or_else(String::new, |traffic| traffic.connections.to_string())
}

/// Packets for a backend that this node has dropped, where there are any.
fn lost(backend: &BackendView) -> String {
    match backend.dropped.values().sum::<u64>() {
        0 => String::new(),
        sum => sum.to_string(),
    }
}

/// As in `no neighbour 12, source 3`.
pub(crate) fn reasons(dropped: &BTreeMap<String, u64>) -> String {
    let each = dropped.iter().map(|(reason, n)| format!("{} {n}", reason.replace('_', " ")));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::{CheckView, EventView, ServiceView, Traffic, VipAddressView};

    fn backend() -> BackendView {
        BackendView {
            name: "web1".into(),
            address: "10.0.0.21:8443".into(),
            state: "down".into(),
            reason: "HTTP 503".into(),
            weight: 1,
            backup: true,
            traffic: Some(Traffic { connections: 12, packets: 99, bytes: 4_000 }),
            ..BackendView::default()
        }
    }

    fn reply() -> WhyReply {
        let candidate = |node: &str, preferred, standing: &str, reason: &str| CandidateView {
            node: node.into(),
            preferred,
            standing: standing.into(),
            reason: reason.into(),
        };
        let service = ServiceView {
            port: "443/tcp".into(),
            mode: "kernel".into(),
            balance: "hash".into(),
            backends: vec![backend()],
            new_connections: Some("100/s burst=200".into()),
            limited: Some(17),
            ..ServiceView::default()
        };
        let vip = VipView {
            name: "web".into(),
            addresses: vec![VipAddressView {
                address: "10.0.0.100/24".into(),
                interface: Some("eth0".into()),
                vip: "web".into(),
                answered: false,
            }],
            epoch: 7,
            lease_left_ms: Some(44.2),
            votes: vec!["lb1".into(), "lb3".into()],
            votes_needed: 2,
            safety: "exclusive".into(),
            safety_means: "never two owners".into(),
            held: Some(HeldView { reason: "patching (by ann)".into(), left_ms: Some(240_000.0) }),
            checks: vec![CheckView {
                name: "postgres".into(),
                asks: "process postgres runs".into(),
                state: "fail".into(),
                reason: "no such process".into(),
            }],
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
            told_by: None,
            vip,
            phases: Some(PhasesView {
                epoch: 7,
                detect_ms: 37.0,
                decide_ms: 1.2,
                address_ms: 1.5,
                announce_ms: 1.6,
                first_packet_ms: None,
            }),
            history: vec![EventView {
                seq: None,
                sentence: "lb1 took it over".into(),
                ..EventView::default()
            }],
        }
    }

    #[test]
    fn of_one_node_it_is_said_why_it_has_it_or_not() {
        let mut reply = reply();
        reply.vip.name = "web".into();
        reply.vip.owner = Some("lb1".into());
        let candidate = |node: &str| CandidateView {
            node: node.into(),
            standing: "candidate".into(),
            reason: "could take it".into(),
            preferred: None,
        };
        reply.vip.candidates.extend([candidate("lb3"), candidate("lb4")]);
        let table = [
            ("lb1", "lb1 owns web. It is number 1 of `prefer`. Seen from lb1.\n"),
            ("lb2", "lb2 cannot own web: silent for 4.0 s; lb1 has it. Seen from lb1.\n"),
            (
                "lb3",
                "lb3 does not own web, and is next: could take it; lb1 has it. Seen from lb1.\n",
            ),
            (
                "lb4",
                "lb4 does not own web: could take it, but 1 node is before it in line; lb1 has it. \
                 Seen from lb1.\n",
            ),
        ];
        for (node, expected) in table {
            assert_eq!(Standing::of(&reply, node).unwrap().said(usize::MAX), expected);
        }
        reply.vip.owner = None;
        let said = Standing::of(&reply, "lb2").unwrap().said(usize::MAX);
        assert_eq!(said, "lb2 cannot own web: silent for 4.0 s; nobody has it. Seen from lb1.\n");
        let unknown = Standing::of(&reply, "lb9").err().unwrap();
        assert!(unknown.message.contains("lb1, lb2, lb3, lb4"), "{unknown:?}");
    }

    #[test]
    fn the_answer_comes_first_and_its_grounds_below() {
        let expected = "\
lb1 has owned web for 1m0s: lb2 was silent.

address   10.0.0.100/24 on eth0 of lb1
safety    exclusive: never two owners
failback  never
held      patching (by ann), for another 4m0s
epoch     7
votes     lb1, lb3 (held by lb1)
lease     lb1 may serve it for another 44 ms
limit     443/tcp takes 100/s burst=200 of a client; lb1 has refused 17

NODE  PREFER  STANDING  REASON
lb1        1  owner     owns it
lb2        -  excluded  silent for 4.0 s

CHECK     ASKS                          STATE  REASON
postgres  process postgres runs on lb1  fail   no such process

SERVICE              BACKEND  ADDRESS         STATE        WEIGHT  OPENED  DROPPED  REASON
443/tcp kernel hash  web1     10.0.0.21:8443  down backup       1      12        -  HTTP 503

LAST TAKEOVER      AT  WHAT WAS DONE
detect           0 ms  after 37 ms of silence the last owner was given up
decide         1.2 ms  lb1 had the right to serve it (epoch 7)
address        1.5 ms  the address was there, the gate open
announce       1.6 ms  the segment was told
first packet    > 1 s  a packet for the address came in

HISTORY (UTC)
  1970-01-01 00:00:00.000  lb1 took it over
";
        assert_eq!(screen(&reply(), false, usize::MAX), expected);
        // The owner tells it, and took it; what holds here is told by the node that was asked.
        let told = WhyReply { node: "lb3".into(), told_by: Some("lb1".into()), ..reply() };
        let said = screen(&told, false, usize::MAX);
        for part in [
            "on eth0 of lb3\n",
            "1.2 ms  lb1 had the right to serve it",
            "\nHISTORY (UTC), as lb1 tells it\n",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
