//! `buoy status -o wide`: the same screen with what else is known of each node, VIP and backend.

use super::{address, owner, service, span};
use crate::table::{Align, Table, Tone};
use crate::why;
use buoy_api::{ClusterStatus, NodeView, VipView};

/// All nodes.
pub(super) fn nodes(nodes: &[NodeView]) -> Table<9> {
    let mut table = Table::new([
        ("NODE", Align::Left),
        ("STATE", Align::Left),
        ("OWNS", Align::Right),
        ("RTT", Align::Right),
        ("LOSS", Align::Right),
        ("HEARD", Align::Right),
        ("LEGS", Align::Right),
        ("CONFIG", Align::Left),
        ("ADDRESS", Align::Left),
    ]);
    for node in nodes {
        let tone = if node.alive && (node.me || node.hears_us) { Tone::Plain } else { Tone::Wrong };
        let alive = node.legs.iter().filter(|leg| leg.alive).count();
        let legs = format!("{alive}/{}", node.legs.len());
        let cells = [
            if node.me { format!("{} *", node.name) } else { node.name.clone() },
            node.state.clone(),
            node.owns.to_string(),
            node.round_trip_ms.filter(|_| node.alive).map_or_else(String::new, span),
            node.loss_percent.map_or_else(String::new, |loss| format!("{loss:.0} %")),
            node.heard_ms.map_or_else(String::new, |ms| format!("{} ago", span(ms))),
            if node.me { String::new() } else { legs },
            node.digest.clone().unwrap_or_default(),
            node.address.clone(),
        ];
        table.row(tone, cells);
    }
    table
}

/// All VIPs.
pub(super) fn vips(vips: &[VipView]) -> Table<12> {
    let mut table = Table::new([
        ("VIP", Align::Left),
        ("ADDRESS", Align::Left),
        ("INTERFACE", Align::Left),
        ("OWNER", Align::Left),
        ("NEXT", Align::Left),
        ("EPOCH", Align::Right),
        ("SINCE", Align::Right),
        ("VOTES", Align::Right),
        ("LEASE", Align::Right),
        ("SAFETY", Align::Left),
        ("SERVICES", Align::Left),
        ("PROBLEM", Align::Left),
    ]);
    for vip in vips {
        let tone = if vip.problem.is_some() { Tone::Wrong } else { Tone::Plain };
        let at = |n: usize| vip.addresses.get(n).map(address).unwrap_or_default();
        let on = |n: usize| vip.addresses.get(n).and_then(|a| a.interface.clone());
        let behind = |n: usize| vip.services.get(n).map(service).unwrap_or_default();
        let cells = [
            vip.name.clone(),
            at(0),
            on(0).unwrap_or_default(),
            owner(vip),
            next(vip),
            vip.epoch.to_string(),
            vip.since_ms.map_or_else(String::new, span),
            votes(vip),
            vip.lease_left_ms.map_or_else(String::new, span),
            vip.safety.clone(),
            behind(0),
            vip.problem.clone().unwrap_or_default(),
        ];
        table.row(tone, cells);
        for n in 1..vip.addresses.len().max(vip.services.len()) {
            let mut cells = [const { String::new() }; 12];
            (cells[1], cells[2], cells[10]) = (at(n), on(n).unwrap_or_default(), behind(n));
            table.continuation(tone, cells);
        }
    }
    table
}

/// Whose turn it is when its owner goes.
fn next(vip: &VipView) -> String {
    let could = vip.candidates.iter().find(|candidate| candidate.standing == "candidate");
    could.map_or_else(String::new, |candidate| candidate.node.clone())
}

/// As in `2/2`: what the answering node holds of what an owner needs.
fn votes(vip: &VipView) -> String {
    let asks = vip.mine || !vip.votes.is_empty();
    match vip.votes_needed {
        needed if asks && needed > 0 => format!("{}/{needed}", vip.votes.len()),
        _ => String::new(),
    }
}

/// The backends of all services; `None` where there are none.
pub(super) fn backends(status: &ClusterStatus) -> Option<Table<8>> {
    let mut services = status.vips.iter().flat_map(|vip| &vip.services).peekable();
    services.peek()?;
    Some(why::backends_of(services))
}

#[cfg(test)]
mod tests {
    use super::super::{screen, tests::status};
    use buoy_api::{BackendView, CandidateView, LegView};

    #[test]
    fn the_wide_screen_says_what_else_is_known() {
        let mut status = status();
        let leg = |alive| LegView { leg: 1, alive, ..LegView::default() };
        status.nodes[1].legs = vec![leg(true), leg(false)];
        (status.nodes[1].loss_percent, status.nodes[1].heard_ms) = (Some(2.0), Some(4.0));
        status.vips[1].votes_needed = 2;
        let web = &mut status.vips[0];
        web.addresses[0].interface = Some("eth0".into());
        (web.votes, web.votes_needed) = (vec!["lb1".into(), "lb2".into()], 2);
        (web.lease_left_ms, web.safety) = (Some(31.0), "exclusive".into());
        let candidate = |node: &str, standing: &str| CandidateView {
            node: node.into(),
            standing: standing.into(),
            ..CandidateView::default()
        };
        web.candidates = vec![candidate("lb1", "owner"), candidate("lb2", "candidate")];
        web.services[0].name = "web:443/tcp".into();
        web.services[0].backends = vec![BackendView {
            name: "web1".into(),
            address: "10.0.0.21:8443".into(),
            state: "up".into(),
            weight: 1,
            ..BackendView::default()
        }];
        let expected = "
NODE   STATE    OWNS     RTT  LOSS       HEARD  LEGS  CONFIG    ADDRESS
lb1 *  healthy     0       -     -           -     -  00007f3c  10.0.0.11:4747
lb2    healthy     0  0.2 ms   2 %  4.0 ms ago   1/2  00007f3c  10.0.0.11:4747

VIP  ADDRESS           INTERFACE  OWNER  NEXT  EPOCH  SINCE  VOTES  LEASE  SAFETY     SERVICES        PROBLEM
web  10.0.0.100/24     eth0       lb1    lb2      41   2d3h    2/2  31 ms  exclusive  443/tcp 2/1 up  web3: HTTP 503
     2001:db8::100/64
db   10.0.0.200/24     -          -      -         7      -      -      -  -          -               -

SERVICE      BACKEND  ADDRESS         STATE  WEIGHT  OPENED  DROPPED  REASON
web:443/tcp  web1     10.0.0.21:8443  up          1       -        -  -
";
        let screen = screen(&status, true, (false, usize::MAX));
        assert!(screen.ends_with(expected), "{screen}");
    }
}
