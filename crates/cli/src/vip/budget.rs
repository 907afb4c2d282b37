//! `buoy vip budget`: how well each VIP has kept its promise, as this node has seen.

use crate::Asking;
use crate::failure::Failure;
use crate::output;
use crate::table::{Align, Table, Tone};
use buoy_api::{BudgetReply, BudgetView, words};
use std::time::Duration;

#[derive(clap::Args, Debug)]
pub(crate) struct BudgetArguments {
    #[command(flatten)]
    asking: Asking,
    /// This one alone, by its name
    vip: Option<String>,
}

pub(super) fn run(arguments: BudgetArguments) -> Result<(), Failure> {
    let BudgetArguments { asking, vip } = arguments;
    let client = asking.client()?;
    let mut reply = client.budget()?;
    if let Some(vip) = vip {
        // An address is as good as a name, and what is neither is refused as everywhere.
        let name = client.vip(&vip)?.vip.name;
        reply.vips.retain(|known| known.vip == name);
    }
    asking.show(&reply, |reply| screen(reply, output::colour()))
}

fn screen(reply: &BudgetReply, colour: bool) -> String {
    let mut table = Table::new([
        ("VIP", Align::Left),
        ("OWNER", Align::Left),
        ("SERVED", Align::Right),
        ("OF", Align::Right),
        ("GAPS", Align::Right),
        ("P50", Align::Right),
        ("P99", Align::Right),
        ("SLACK", Align::Right),
        ("LEAST", Align::Right),
        ("NOTE", Align::Left),
    ]);
    for vip in &reply.vips {
        let tone = if vip.over_bound > 0 { Tone::Wrong } else { Tone::Plain };
        let known = vip.unknown.is_none();
        let cells = [
            vip.vip.clone(),
            vip.owner.clone().unwrap_or_else(|| "-".into()),
            vip.availability.map_or_else(String::new, percent),
            if known { span(Some(vip.known_ms)) } else { String::new() },
            if known { vip.gaps.to_string() } else { String::new() },
            span(vip.gap_p50_ms),
            span(vip.gap_p99_ms),
            span(vip.slack_ms),
            span(vip.slack_least_ms),
            note(vip),
        ];
        table.row(tone, cells);
    }
    format!(
        "{}\nNobody may serve a VIP for {} at most while a node is left that can take it; leases last {} now.\n",
        table.render(colour),
        span(Some(reply.bound_ms)),
        span(Some(reply.term_ms)),
    )
}

fn note(vip: &BudgetView) -> String {
    let mut notes: Vec<String> = vip.unknown.iter().cloned().collect();
    if vip.over_bound > 0 {
        notes.push(format!("{} over the bound", vip.over_bound));
    }
    if vip.unknown_ms > 0.0 {
        notes.push(format!("not known for {}", span(Some(vip.unknown_ms))));
    }
    notes.join("; ")
}

/// Never more nines than there were: `99.99 %` is not rounded up to all.
fn percent(part: f64) -> String {
    let shown = (part * 1e6).floor() / 1e4;
    if shown >= 100.0 { "100 %".into() } else { format!("{shown:.4} %") }
}

fn span(ms: Option<f64>) -> String {
    let span = |ms: f64| words::span(Duration::from_secs_f64(ms.max(0.0) / 1000.0));
    ms.map_or_else(String::new, span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vip_has_its_line_and_what_is_not_known_is_said() {
        let web = BudgetView {
            vip: "web".into(),
            owner: Some("lb1".into()),
            availability: Some(0.999_999_9),
            known_ms: 7_200_000.0,
            unserved_ms: 0.7,
            unknown_ms: 1500.0,
            gaps: 2,
            gap_p50_ms: Some(41.0),
            gap_p99_ms: Some(350.0),
            over_bound: 1,
            slack_ms: Some(31.0),
            slack_least_ms: Some(12.0),
            ..BudgetView::default()
        };
        let db = BudgetView {
            vip: "db".into(),
            unknown: Some("nobody has been seen to serve it yet".into()),
            ..BudgetView::default()
        };
        let reply = BudgetReply {
            bound_ms: 314.0,
            term_ms: 50.0,
            vips: vec![web, db],
            ..BudgetReply::default()
        };
        let text = screen(&reply, false);
        let line = |vip: &str| text.lines().find(|line| line.starts_with(vip)).unwrap().to_owned();
        for part in
            ["lb1", "99.9999 %", "41 ms", "350 ms", "12 ms", "1 over the bound; not known for"]
        {
            assert!(line("web").contains(part), "{part}: {text}");
        }
        assert!(line("db").ends_with("nobody has been seen to serve it yet"), "{text}");
        assert!(text.contains("for 314 ms at most"), "{text}");
        assert_eq!((percent(1.0), percent(0.5)), ("100 %".into(), "50.0000 %".into()));
    }
}
