//! Turns what was measured into a page for people.

use super::XdpOptions;
use super::cases::{Case, Subject, named};
use super::goals::{self, Goal, Limit, Outcome};
use super::live::{Load, Path};
use super::measure::{net, net_of_parts};
use super::one::BACKENDS;
use super::world::{Family, How};
use crate::bench::report::machine;
use buoy_kernel::fast::Length;
use buoy_kernel::rig::Floor;
use std::fmt::Write;
use std::time::Duration;

/// The whole page, in Markdown.
pub(super) fn render(
    options: &XdpOptions,
    outcome: &Outcome,
    lengths: &[Length],
    took: Duration,
) -> String {
    let mut text = circumstances(options, took);
    text += &goals_reached(&goals::goals(outcome));
    text += &floor_differs(outcome);
    text += &packets(outcome, &goals::all_cases(&outcome.services));
    text += &frames(outcome);
    text += &tables(outcome);
    text += &programs(lengths);
    text
}

fn circumstances(options: &XdpOptions, took: Duration) -> String {
    let XdpOptions { rounds, packets, only, .. } = options;
    let only = if only.is_empty() { String::new() } else { format!(" --only {}", only.join(",")) };
    format!(
        "# What a packet costs on the fast path\n\n\
         Written by `make bench-xdp` (`buoy lab bench xdp --rounds {rounds} --packets {packets}{only}`), which took {:.0} s.\n\n\
         | | |\n|---|---|\n{}| processor mitigations | {} |\n\n\
         Ratios are within this run. \"Net\" is without what the measuring costs (a program that does nothing, in \
         the same\nrun); all figures are of the best round, unless they say otherwise. `docs/lab.md` says how each \
         is taken.\n",
        took.as_secs_f64(),
        machine(),
        std::fs::read_to_string("/sys/devices/system/cpu/vulnerabilities/spectre_v2")
            .unwrap_or_default()
            .trim(),
    )
}

fn goals_reached(goals: &[Goal]) -> String {
    let met = goals.iter().filter(|goal| goal.is_met() == Some(true)).count();
    let mut text = format!(
        "\n## Goals\n\n{met} of {} are met.\n\n| goal | limit | measured | met |\n|---|--:|--:|---|\n",
        goals.len()
    );
    for goal in goals {
        let limit = match goal.limit {
            Limit::AtMost(limit) => format!("<= {limit}{}", goal.unit),
            Limit::AtLeast(limit) => format!(">= {limit}{}", goal.unit),
        };
        let value = goal.value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}{}", goal.unit));
        let met = match goal.is_met() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "not measured",
        };
        let _infallible = writeln!(text, "| {} | {limit} | {value} | {met} |", goal.what);
    }
    text
}

/// What a ratio to the least of the floors is worth.
fn floor_differs(outcome: &Outcome) -> String {
    let Some((least, most)) = net_of_parts(&outcome.figures, named::ARRAY) else {
        return String::new();
    };
    let hit = net(&outcome.figures, named::hit(How::Dsr, Family::V4)).unwrap_or_default();
    format!(
        "\nParse + array is so little that it differs within this run: {least:.1} to {most:.1} ns in its five parts, each of \
         which\nhas a best round. By these, the {hit:.1} ns of dsr are {:.1}x to {:.1}x.\n",
        hit / most,
        hit / least.max(0.1)
    )
}

fn packets(outcome: &Outcome, cases: &[Case]) -> String {
    let mut text = String::from(
        "\n## One packet, in nanoseconds of this thread\n\n\
         | case | net | to parse + array | to parse + IPIP | with the measuring: best | 1 of 10 | median |\n\
         |---|--:|--:|--:|--:|--:|--:|\n",
    );
    let floor =
        |floor| net(&outcome.figures, Case::floor(floor, Family::V4)).filter(|&ns| 0.0 < ns);
    let (array, ipip) = (floor(Floor::Array), floor(Floor::Tunnel));
    for &case in cases {
        let (Some(figure), Some(net)) = (outcome.figures.get(&case), net(&outcome.figures, case))
        else {
            continue;
        };
        let to = |floor: Option<f64>| {
            floor.map_or_else(|| "-".to_owned(), |ns| format!("{:.2}", net / ns))
        };
        let is_nothing = matches!(case.subject, Subject::Floor(Floor::Nothing, _));
        let (array, ipip) = if is_nothing { (to(None), to(None)) } else { (to(array), to(ipip)) };
        let _infallible = writeln!(
            text,
            "| {} | {net:.1} | {array} | {ipip} | {:.1} | {:.1} | {:.1} |",
            case.name(),
            figure.best,
            figure.tenth,
            figure.median
        );
    }
    text
}

fn frames(outcome: &Outcome) -> String {
    if outcome.live.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n## Frames through veth pairs, in nanoseconds\n\nThe generator and the end of the frame included. Best \
         round, and the median in brackets.\n\n| path |",
    );
    for load in Load::ALL {
        let _infallible = write!(text, " {} |", load.name());
    }
    text += "\n|---|--:|--:|--:|\n";
    for path in Path::ALL {
        let _infallible = write!(text, "| {} |", path.name());
        for load in Load::ALL {
            let figure = outcome.live.get(&(path, load));
            let cell = figure.map_or_else(
                || "-".to_owned(),
                |(best, median)| format!("{best:.0} ({median:.0})"),
            );
            let _infallible = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text + &reach(outcome)
}

/// What programs that do a part of the work reach of a bare XDP_TX: nobody who does all of it goes beyond them.
fn reach(outcome: &Outcome) -> String {
    let of = |floor| {
        let (path, bare) = (Path::Floor(floor), Path::Floor(Floor::Swap));
        outcome.times_as_fast(path, bare, Load::OneFlow)
    };
    match (of(Floor::Array), of(Floor::Tunnel)) {
        (Some(array), Some(tunnel)) => format!(
            "\nTo a bare XDP_TX, 1 flow: parse + array {array:.2}x, parse + IPIP {tunnel:.2}x. No tunnel goes beyond the latter.\n"
        ),
        (None, _) | (_, None) => String::new(),
    }
}

fn tables(outcome: &Outcome) -> String {
    let mut text = String::from(
        "\n## Tables\n\nAll services have the same 100 backends, and so one table. A change is one of those down \
         or up,\nfor all services at once. The table is changed once, and for each service one entry \
         of\n`fast_backends`: its next hop, and who it is.\n\n\
         | services | slots | maps, MiB | apply, ms | the same again, ms | a change, ms |\n\
         |--:|--:|--:|--:|--:|--:|\n",
    );
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    for cost in &outcome.costs {
        let _infallible = writeln!(
            text,
            "| {} | {} | {:.0} | {:.1} | {:.1} | {:.2} |",
            cost.services,
            cost.slots,
            cost.bytes as f64 / f64::from(1 << 20),
            ms(cost.apply),
            ms(cost.again),
            ms(cost.change)
        );
    }
    if let Some(down) = &outcome.down {
        let _infallible = writeln!(
            text,
            "\nOne backend of 100 down, one service of {} slots, {} of which change: {:.2} ms in all, the median; the \
             table\n{:.2} ms, what was before {:.2} ms, the kernel's memory {:.2} ms.",
            down.slots,
            down.moved,
            ms(down.all),
            ms(down.table),
            ms(down.transition),
            ms(down.apply)
        );
    }
    if let Some(one) = &outcome.one {
        let _infallible = writeln!(
            text,
            "\nOne backend of {BACKENDS} down, of one of {} services with backends of their own and {} slots each: {:.3} ms \
             in all, the\nmedian; what should be there {:.3} ms, the kernel's memory {:.3} ms. Where all services are \
             looked at, as after an edit\nof the file: {:.1} ms.",
            one.services,
            one.slots,
            ms(one.all),
            ms(one.core),
            ms(one.kernel),
            ms(one.whole)
        );
    }
    text
}

fn programs(lengths: &[Length]) -> String {
    let mut text = String::from(
        "\n## Programs\n\n| program | instructions that the verifier went through | instructions, bytes | machine code, bytes |\n\
         |---|--:|--:|--:|\n",
    );
    for length in lengths {
        let Length { name, verified, translated, compiled } = length;
        let _infallible = writeln!(text, "| {name} | {verified} | {translated} | {compiled} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::measure::{Figure, PARTS};
    use super::*;

    #[test]
    fn a_goal_that_was_missed_is_not_hidden() {
        let goal =
            |value| Goal { what: "x".to_owned(), limit: Limit::AtMost(2.0), value, unit: "x" };
        let text = goals_reached(&[goal(Some(1.0)), goal(Some(2.5)), goal(None)]);
        assert!(text.contains("1 of 3 are met"), "{text}");
        assert!(text.contains("| x | <= 2x | 2.50x | **no** |"), "{text}");
        assert!(text.contains("| x | <= 2x | - | not measured |"), "{text}");
    }

    #[test]
    fn a_ratio_to_a_floor_stands_beside_how_much_the_floor_differs() {
        let mut outcome = Outcome::default();
        assert_eq!(floor_differs(&outcome), "");
        let nothing = Case::floor(Floor::Nothing, Family::V4);
        let hit = named::hit(How::Dsr, Family::V4);
        for (case, best, parts) in [
            (nothing, 40.0, [40.0; PARTS]),
            (named::ARRAY, 42.0, [42.0, 43.0, 44.0, 42.5, 42.5]),
            (hit, 60.0, [60.0; PARTS]),
        ] {
            outcome.figures.insert(case, Figure { best, tenth: best, median: best, parts });
        }
        let text = floor_differs(&outcome);
        assert!(text.contains("2.0 to 4.0 ns"), "{text}");
        assert!(text.contains("the 20.0 ns of dsr are 5.0x to 10.0x"), "{text}");
    }

    #[test]
    fn packets_stand_beside_the_floors_of_the_same_run() {
        let mut outcome = Outcome::default();
        let cases = goals::all_cases(&[]);
        for (case, best) in [(cases[0], 10.0), (cases[2], 15.0), (cases[3], 30.0)] {
            outcome
                .figures
                .insert(case, Figure { best, tenth: best, median: best, parts: [best; PARTS] });
        }
        let hit = super::super::cases::named::hit(How::Dsr, Family::V4);
        outcome
            .figures
            .insert(hit, Figure { best: 50.0, tenth: 51.0, median: 52.0, parts: [50.0; PARTS] });
        let text = packets(&outcome, &cases);
        assert!(
            text.contains("| dsr IPv4: 1 flow | 40.0 | 8.00 | 2.00 | 50.0 | 51.0 | 52.0 |"),
            "{text}"
        );
    }
}
