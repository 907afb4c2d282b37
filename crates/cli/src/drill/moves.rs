//! `buoy drill --kind move`: has the agent move a VIP to another node and back, and shows how that goes.

use super::{Arguments, LOOK_EVERY};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::progress::Progress;
use crate::table::{Align, Table, Tone};
use buoy_api::{Client, DrillRequest, DrillTakeoverView, DrillView, SOCKET_DEFAULT};
use buoy_lab::standing::Standing;
use std::thread;

pub(super) fn run(arguments: &Arguments, lab: Option<&Standing>) -> Result<(), Failure> {
    let of_lab = lab.and_then(|lab| lab.agents.first()).map(|(_, socket)| socket.as_path());
    let socket = arguments.socket.as_deref().or(of_lab).unwrap_or(SOCKET_DEFAULT.as_ref());
    let client = Client::connect(socket)?;
    let request = DrillRequest {
        vip: arguments.vip.clone(),
        to: arguments.to.clone(),
        repeat: u64::try_from(arguments.repeat).ok(),
        reason: arguments.reason.clone(),
    };
    if !arguments.yes {
        let would = client.begin_drill(&request, true)?.would;
        return Err(Failure::forbidden(format!("{}: say --yes if you mean it", would.join("; "))));
    }
    let begun = client.begin_drill(&request, false)?;
    let ended = follow(&client, &begun)?;
    output::text(&screen(&ended, output::colour()))?;
    match &ended.failed {
        Some(why) => Err(Failure::failed(format!("the drill ended before its time: {why}"))),
        None => Ok(()),
    }
}

/// Says each takeover as it is done, until the last one is.
fn follow(client: &Client, begun: &DrillView) -> Result<DrillView, Failure> {
    let mut said = 0;
    loop {
        let known = client.drills()?.drills.into_iter().find(|drill| drill.id == begun.id);
        let Some(drill) = known else {
            let message = "the agent knows nothing of the drill any more: was it started anew?";
            return Err(Failure { exit: Exit::Failed, message: message.into() });
        };
        for takeover in drill.takeovers.iter().skip(said) {
            output::text(&format!("{}: {}\n", said + 1, sentence(takeover)))?;
            said += 1;
        }
        if !drill.running {
            return Ok(drill);
        }
        let all = 2 * drill.repeat;
        let _progress = Progress::start(&format!("{said} of {all} moves are done"));
        thread::sleep(LOOK_EVERY);
    }
}

fn sentence(takeover: &DrillTakeoverView) -> String {
    let DrillTakeoverView { from, to, seen_ms, unserved_ms, .. } = takeover;
    format!("{from} -> {to}, seen after {seen_ms:.1} ms, without an owner for {unserved_ms:.1} ms")
}

fn screen(drill: &DrillView, colour: bool) -> String {
    let mut table = Table::new([
        ("FROM", Align::Left),
        ("TO", Align::Left),
        ("EPOCH", Align::Right),
        ("SEEN MS", Align::Right),
        ("NO OWNER MS", Align::Right),
        ("FIRST PACKET MS", Align::Right),
    ]);
    for takeover in &drill.takeovers {
        let first = takeover.phases.as_ref().and_then(|phases| phases.first_packet_ms);
        let cells = [
            takeover.from.clone(),
            takeover.to.clone(),
            takeover.epoch.to_string(),
            format!("{:.1}", takeover.seen_ms),
            format!("{:.1}", takeover.unserved_ms),
            first.map_or_else(|| "-".into(), |ms| format!("{ms:.1}")),
        ];
        table.row(Tone::Plain, cells);
    }
    let mut gaps: Vec<f64> = drill.takeovers.iter().map(|takeover| takeover.unserved_ms).collect();
    gaps.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (gaps.first(), gaps.last()) else {
        return "No takeover was done.\n".into();
    };
    let middle = gaps[(gaps.len() - 1) / 2];
    format!(
        "{}\n{} had no owner for {least:.1} ms at best, {middle:.1} ms in the middle, {most:.1} ms at worst ({} takeovers)\n",
        table.render(colour),
        drill.vip,
        gaps.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_a_drill_are_those_of_its_takeovers() {
        let takeover = |from: &str, to: &str, unserved_ms| DrillTakeoverView {
            from: from.into(),
            to: to.into(),
            unserved_ms,
            seen_ms: 9.0,
            ..DrillTakeoverView::default()
        };
        let takeovers = vec![takeover("lb1", "lb2", 3.25), takeover("lb2", "lb1", 0.5)];
        let drill = DrillView { vip: "web".into(), takeovers, ..DrillView::default() };
        let text = screen(&drill, false);
        assert!(
            text.contains("0.5 ms at best, 0.5 ms in the middle, 3.2 ms at worst (2 takeovers)"),
            "{text}"
        );
        assert_eq!(
            sentence(&drill.takeovers[0]),
            "lb1 -> lb2, seen after 9.0 ms, without an owner for 3.2 ms"
        );
        assert_eq!(screen(&DrillView::default(), false), "No takeover was done.\n");
    }
}
