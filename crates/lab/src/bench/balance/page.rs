//! Judges what was measured and turns it into a page for people: each goal a ratio within one run.

use super::stand::System;
use super::{BalanceOptions, CONNECTIONS, Load, Outcome, PACE, STREAMS, Turn};
use crate::bench::report::machine;
use crate::probe::percentile;
use std::fmt::Write as _;
use std::time::Duration;

/// What mode "proxy" is to reach against HAProxy in each.
const GOAL: f64 = 1.2;
/// What mode "kernel" is to reach against rules by hand: the same.
const GOAL_KERNEL: f64 = 0.95;

impl Load {
    const fn title(self) -> &'static str {
        match self {
            Self::Connections => "connections per second",
            Self::Questions => "requests per second on kept connections",
            Self::Stream => "throughput, MB/s",
            Self::Paced => "p99 latency of paced requests, us",
        }
    }
}

/// The figure of a turn that is judged, in the unit of the title.
fn figure(load: Load, turn: &Turn) -> f64 {
    match load {
        Load::Connections | Load::Questions => turn.figures.rate(),
        Load::Stream => turn.figures.rate() / 1e6,
        Load::Paced => percentile(&turn.figures.waits, 99).as_secs_f64() * 1e6,
    }
}

/// One turn on one line, for the terminal.
pub(super) fn line(load: Load, system: System, turn: &Turn) -> String {
    format!(
        "{:<42} {:<20} {:>10.0}, p99 {:>6.0} us, {} failed",
        load.title(),
        system.name(),
        figure(load, turn),
        percentile(&turn.figures.waits, 99).as_secs_f64() * 1e6,
        turn.figures.failed
    )
}

fn median(mut all: Vec<f64>) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    all.get(all.len().saturating_sub(1) / 2).copied()
}

fn figures(outcome: &Outcome, load: Load, system: System) -> Vec<f64> {
    let turns = outcome.turns.get(&(load, system));
    turns.into_iter().flatten().map(|turn| figure(load, turn)).collect()
}

/// The median of the turns' ratios: both sides of each had the machine at nearly the same time.
fn ratio(outcome: &Outcome, load: Load, mine: System, other: System) -> Option<f64> {
    let (mine, other) = (figures(outcome, load, mine), figures(outcome, load, other));
    let pairs = mine.iter().zip(&other);
    median(match load {
        // Less is better.
        Load::Paced => pairs.map(|(mine, other)| other / mine).collect(),
        Load::Connections | Load::Questions | Load::Stream => {
            pairs.map(|(mine, other)| mine / other).collect()
        }
    })
}

/// The whole page, in Markdown.
pub(super) fn render(options: &BalanceOptions, outcome: &Outcome, took: Duration) -> String {
    let BalanceOptions { rounds, turn, idle, only, .. } = options;
    let only =
        if only.is_empty() { String::new() } else { format!(" --only \"{}\"", only.join(",")) };
    let mut text = format!(
        "# Balancing: Buoy beside HAProxy, nginx and nftables\n\n\
         Written by `make bench-balance` (`buoy lab bench balance --rounds {rounds} --seconds {} --idle {idle}{only}`), \
         which took {:.0} s.\n\n| | |\n|---|---|\n{}\n\
         Each system stands in a namespace of its own between the same clients and the same backends, and all take \
         turns in each\nround, in one order and in the next round in the other. Clients, backends and system share the processors. A ratio is \
         the median of the\nratios of all turns, and greater is better.\n",
        turn.as_secs_f64(),
        took.as_secs_f64(),
        machine(),
    );
    text += &goals(outcome);
    for load in Load::ALL {
        text += &table(outcome, load);
    }
    text += &idle_table(outcome);
    if !outcome.notes.is_empty() {
        text += "\n## What went wrong or was left out\n\n";
        for note in &outcome.notes {
            let _infallible = writeln!(text, "- {note}");
        }
    }
    text
}

fn goals(outcome: &Outcome) -> String {
    let mut text =
        String::from("\n## Goals\n\n| goal | limit | measured | met |\n|---|--:|--:|---|\n");
    let mut add = |what: String, limit: f64, value: Option<f64>| {
        let shown = value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let met = match value {
            None => "not measured",
            Some(value) if value >= limit => "yes",
            Some(_) => "no",
        };
        let _infallible = writeln!(text, "| {what} | >= {limit} | {shown} | {met} |");
    };
    for (mine, other, limit) in
        [(System::Proxy, System::Haproxy, GOAL), (System::Kernel, System::Nftables, GOAL_KERNEL)]
    {
        for load in Load::ALL {
            let what = format!("{} to {}: {}", mine.name(), other.name(), load.title());
            add(what, limit, ratio(outcome, load, mine, other));
        }
    }
    let idle = |system| outcome.idle.get(&system).map(|idle| idle.bytes.max(1) as f64);
    let what = format!(
        "{} to {}: memory of idle connections",
        System::Proxy.name(),
        System::Haproxy.name()
    );
    let value = idle(System::Haproxy).zip(idle(System::Proxy)).map(|(other, mine)| other / mine);
    add(what, GOAL, value);
    text + &possible(outcome)
}

/// What a proxy could reach that did nothing but carry.
fn possible(outcome: &Outcome) -> String {
    let mut text = format!(
        "\n{} reads, writes, and does nothing else: no proxy with sockets and epoll goes far beyond it.\n\n\
         | its ratio to | {} | {} |\n|---|--:|--:|\n",
        System::Bare.name(),
        System::Haproxy.name(),
        System::Proxy.name()
    );
    for load in Load::ALL {
        let to = |other| {
            let ratio = ratio(outcome, load, System::Bare, other);
            ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
        };
        let (haproxy, proxy) = (to(System::Haproxy), to(System::Proxy));
        let _infallible = writeln!(text, "| {} | {haproxy} | {proxy} |", load.title());
    }
    text
}

fn table(outcome: &Outcome, load: Load) -> String {
    let how = match load {
        Load::Connections => format!(
            "{CONNECTIONS} clients connect, ask once, close, and again. The processor time is that of the system's \
             own processes\nfor each connection; what the kernel does for it in interrupts is not in it."
        ),
        Load::Questions => {
            format!("{CONNECTIONS} connections, each with one question of 64 bytes open at a time.")
        }
        Load::Stream => format!("{STREAMS} connections on which the backend writes without end."),
        Load::Paced => {
            format!(
                "{PACE} questions a second by the clock, over {CONNECTIONS} connections; {} turns in each round, each {} \
                 times shorter than\nof the other loads. A p99 is mostly when the machine gives whom a processor.",
                load.turns().0,
                load.turns().1
            )
        }
    };
    let mut text = format!(
        "\n## {}\n\n{how}\n\n| system | median | worst turn | best turn | p99 latency, us | processor time of each, us | failed |\n\
         |---|--:|--:|--:|--:|--:|--:|\n",
        load.title()
    );
    for system in System::ALL {
        let Some(turns) = outcome.turns.get(&(load, system)) else { continue };
        let all = figures(outcome, load, system);
        let (least, most) =
            all.iter().fold((f64::MAX, 0.0_f64), |(l, m), x| (l.min(*x), m.max(*x)));
        let (worst, best) = if load == Load::Paced { (most, least) } else { (least, most) };
        let p99 = median(
            turns.iter().map(|t| percentile(&t.figures.waits, 99).as_secs_f64() * 1e6).collect(),
        );
        let p99 = p99.filter(|_| load != Load::Stream);
        let unit = if load == Load::Stream { 1e6 } else { 1.0 };
        let cpu = median(
            turns
                .iter()
                .filter_map(|t| {
                    Some(t.cpu?.as_secs_f64() * 1e6 * unit / t.figures.done.max(1) as f64)
                })
                .collect(),
        );
        let shown = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let failed: u64 = turns.iter().map(|turn| turn.figures.failed).sum();
        let _infallible = writeln!(
            text,
            "| {} | {} | {worst:.0} | {best:.0} | {} | {} | {failed} |",
            system.name(),
            shown(median(all), 0),
            shown(p99, 0),
            shown(cpu, 1)
        );
    }
    text
}

fn idle_table(outcome: &Outcome) -> String {
    let mut text = String::from(
        "\n## Memory of idle connections\n\nAnonymous memory of all processes of the system, beyond what it had \
         before. What the kernel keeps for sockets is the same for all.\n\n\
         | system | connections | MiB | bytes for each |\n|---|--:|--:|--:|\n",
    );
    for (system, idle) in &outcome.idle {
        let _infallible = writeln!(
            text,
            "| {} | {} | {:.1} | {} |",
            system.name(),
            idle.connections,
            idle.bytes as f64 / f64::from(1 << 20),
            idle.bytes / idle.connections.max(1) as u64
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::load::Figures;
    use super::*;

    fn turn(done: u64) -> Turn {
        Turn {
            figures: Figures {
                done,
                took: Duration::from_secs(1),
                waits: vec![Duration::from_micros(done)],
                failed: 0,
            },
            cpu: None,
        }
    }

    #[test]
    fn a_ratio_is_that_of_rounds_and_for_latency_the_other_way_round() {
        let mut outcome = Outcome::default();
        for load in [Load::Connections, Load::Paced] {
            outcome.turns.insert((load, System::Proxy), [120, 240, 360].map(turn).to_vec());
            outcome.turns.insert((load, System::Haproxy), [100, 200, 600].map(turn).to_vec());
        }
        let of = |load| ratio(&outcome, load, System::Proxy, System::Haproxy);
        assert_eq!(of(Load::Connections), Some(1.2));
        assert_eq!(of(Load::Stream), None);
        assert!(of(Load::Paced).is_some_and(|ratio| (ratio - 200.0 / 240.0).abs() < 1e-9));
        let page = goals(&outcome);
        assert!(page.contains("connections per second | >= 1.2 | 1.20 | yes |"), "{page}");
        assert!(page.contains("us | >= 1.2 | 0.83 | no |"), "{page}");
        assert!(
            page.contains("memory of idle connections | >= 1.2 | - | not measured |"),
            "{page}"
        );
    }
}
