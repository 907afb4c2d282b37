//! Turns what was measured into a page for people and into raw figures for programs.

use super::idle::{IdleOptions, Quiet};
use super::{Case, Options, Outcome, Sample, System};
use crate::probe::{median, percentile};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The setting of keepalived that Buoy is measured against.
const RIVAL: System = System::Keepalived(Duration::from_millis(10));
/// A trial in which the machine stood still for so long tells little.
const DISTURBED: Duration = Duration::from_millis(5);

/// One trial on one line, for the terminal.
pub(super) fn line(sample: &Sample) -> String {
    let served =
        sample.served.map_or_else(|| "never".to_owned(), |took| format!("{:.1} ms", ms(took)));
    format!(
        "{:<10} {:<16} {} -> served {served}, {} lost, gap {:.0} ms, {} of {} connections, two for {:.0} \
         ms, machine stood still {:.0} ms",
        sample.case.name(),
        sample.system.name(),
        sample.from,
        sample.lost,
        ms(sample.gap),
        sample.survived,
        sample.connections,
        ms(sample.two_answerers),
        ms(sample.stall)
    )
}

/// Writes a report, in a folder that may not be there yet.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::system("make the folder of the report"))?;
    }
    std::fs::write(path, text).map_err(Error::system(format!("write {}", path.display())))
}

/// Writes a report and shows it.
pub(super) fn save(path: &Path, text: &str) -> Result<()> {
    write(path, text)?;
    println!("\n{text}\nWritten to {}.", path.display());
    Ok(())
}

/// The whole page, in Markdown.
pub(super) fn render(options: &Options, outcome: &Outcome, took: Duration) -> String {
    let mut text = String::from("# Failover: Buoy and keepalived side by side\n\n");
    text += &circumstances(options, took);
    text += &faults(outcome);
    text += &ratios(outcome);
    text += &idle(outcome);
    text += &mass(outcome);
    text += &calm(outcome);
    if !outcome.notes.is_empty() {
        text += "\n## What went wrong or was left out\n\n";
        for note in &outcome.notes {
            text += &format!("- {note}\n");
        }
    }
    text
}

/// The page about a cluster that has nothing to do.
pub(super) fn render_idle(options: &IdleOptions, quiet: &Quiet) -> String {
    let Quiet { idle, stall, stalls, said } = quiet;
    let mut text = format!(
        "# {} VIPs that have nothing to do\n\n\
         Written by `buoy lab bench idle --vips {} --minutes {}`.\n\n| | |\n|---|---|\n{}\n\
         Three nodes with the defaults (a heartbeat every 10 ms), all VIPs on one of them. Hundredths of one\n\
         processor, all processes of the agent. A takeover is an epoch that began.\n\n\
         | owner | busiest other node | takeovers | minutes | machine stood still: worst, ms | 20 ms and more |\n\
         |--:|--:|--:|--:|--:|--:|\n| {:.2} | {:.2} | {} | {:.1} | {:.0} | {stalls} times |\n",
        idle.vips,
        options.vips,
        options.minutes.as_secs_f64() / 60.0,
        machine(),
        idle.owner,
        idle.other,
        idle.takeovers.map_or_else(|| "-".to_owned(), |count| count.to_string()),
        idle.time.as_secs_f64() / 60.0,
        ms(*stall),
    );
    if !said.is_empty() {
        text += "\n## What the nodes wrote meanwhile\n\n```\n";
        text += &said.join("\n");
        text += "\n```\n";
    }
    text
}

/// Rows that say where and with what.
pub(super) fn machine() -> String {
    let commit = ask("git", &["describe", "--always", "--dirty", "--abbrev=12"]);
    let (cpu, cpus) = processors();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "| commit | {commit} |\n| kernel | {} |\n| machine | {cpus} x {cpu}, {} |\n",
        kernel.trim(),
        memory()
    )
}

fn circumstances(options: &Options, took: Duration) -> String {
    let only = options.only.map(|case| format!(" --only {}", case.name())).unwrap_or_default();
    format!(
        "Written by `make bench-failover` (`buoy lab bench failover --repeat {} --minutes {}{only}`), \
         which took {:.0} minutes.\n\n\
         | | |\n|---|---|\n{}| keepalived | {} |\n\n\
         All systems stand at once, each on a segment of network namespaces of its own, and take turns fault by\n\
         fault. Buoy runs on three nodes with its defaults; keepalived on two, VRRPv3, `nopreempt`, three times: \
         with\n`advert_int` 1 (its default), 0.1 and 0.01 (its floor). Times are in ms; `docs/lab.md` says how \
         each is taken.\n",
        options.repeat,
        options.minutes.as_secs_f64() / 60.0,
        took.as_secs_f64() / 60.0,
        machine(),
        ask("keepalived", &["--version"]),
    )
}

fn faults(outcome: &Outcome) -> String {
    let mut text = String::new();
    for case in Case::ALL {
        let of_case: Vec<&Sample> = outcome.samples.iter().filter(|s| s.case == case).collect();
        if of_case.is_empty() {
            continue;
        }
        let _infallible = write!(
            text,
            "\n## {}\n\n{}.\n\n\
             | system | N | served: median | p99 | worst | undisturbed median | lost: median | worst | \
             longest gap: median | worst | connections | two answerers: worst | machine stood still |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
            case.name(),
            case.describe()
        );
        for system in System::ALL {
            let samples: Vec<&Sample> =
                of_case.iter().copied().filter(|s| s.system == system).collect();
            if !samples.is_empty() {
                text += &row(system, &samples);
            }
        }
    }
    text
}

fn row(system: System, samples: &[&Sample]) -> String {
    let served: Vec<Duration> = samples.iter().filter_map(|s| s.served).collect();
    let never = samples.len() - served.len();
    let calm = |s: &&&Sample| s.stall < DISTURBED;
    let undisturbed: Vec<Duration> = samples.iter().filter(calm).filter_map(|s| s.served).collect();
    let gaps: Vec<Duration> = samples.iter().map(|s| s.gap).collect();
    let mut lost: Vec<usize> = samples.iter().map(|s| s.lost).collect();
    lost.sort_unstable();
    let worst = |all: &[Duration]| ms(all.iter().max().copied().unwrap_or_default());
    let longest = |read: fn(&Sample) -> Duration| {
        ms(samples.iter().map(|s| read(s)).max().unwrap_or_default())
    };
    let survived: usize = samples.iter().map(|s| s.survived).sum();
    let connections: usize = samples.iter().map(|s| s.connections).sum();
    format!(
        "| {} | {}{} | {:.1} | {:.1} | {:.1} | {:.1} ({}) | {} | {} | {:.0} | {:.0} | {survived} of \
         {connections} | {:.0} | {:.0} |\n",
        system.name(),
        samples.len(),
        if never == 0 { String::new() } else { format!(" ({never} never)") },
        ms(median(&served)),
        ms(percentile(&served, 99)),
        worst(&served),
        ms(median(&undisturbed)),
        undisturbed.len(),
        lost.get(lost.len().saturating_sub(1) / 2).copied().unwrap_or_default(),
        lost.last().copied().unwrap_or_default(),
        ms(median(&gaps)),
        worst(&gaps),
        longest(|s| s.two_answerers),
        longest(|s| s.stall),
    )
}

/// Buoy against the fastest setting of keepalived, in this very run.
fn ratios(outcome: &Outcome) -> String {
    let of = |case: Case, system: System| -> Vec<Duration> {
        let mine = outcome.samples.iter().filter(|s| s.case == case && s.system == system);
        mine.filter_map(|s| s.served).collect()
    };
    let mut rows = String::new();
    for case in Case::ALL {
        let (buoy, rival) = (of(case, System::Buoy), of(case, RIVAL));
        if buoy.is_empty() || rival.is_empty() {
            continue;
        }
        let target = match case {
            Case::Planned | Case::Crash => "<= 0.2",
            Case::SilentCut => "<= 1.0",
            Case::CrashAll | Case::Freeze | Case::Unplug => "-",
        };
        let (buoy, rival) = (ms(median(&buoy)), ms(median(&rival)));
        let _infallible = writeln!(
            rows,
            "| {} | {buoy:.1} | {rival:.1} | {:.2} | {target} |",
            case.name(),
            buoy / rival.max(0.001)
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "\n## Against keepalived at its floor\n\nMedian until the new owner serves, `advert_int 0.01`, same \
         run.\n\n| fault | buoy | keepalived 0.01 s | ratio | target |\n|---|--:|--:|--:|--:|\n{rows}"
    )
}

fn idle(outcome: &Outcome) -> String {
    if outcome.idle.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n## Daemons that have nothing to do\n\nHundredths of one processor, all processes of the daemon. \
         keepalived has one VRRP instance for each VIP.\n\n\
         | system | VIPs | owner | other node | takeovers meanwhile |\n|---|--:|--:|--:|--:|\n",
    );
    for idle in &outcome.idle {
        let takeovers = idle.takeovers.map_or_else(
            || "-".to_owned(),
            |count| format!("{count} in {:.0} s", idle.time.as_secs_f64()),
        );
        text += &format!(
            "| {} | {} | {:.2} | {:.2} | {takeovers} |\n",
            idle.system, idle.vips, idle.owner, idle.other
        );
    }
    text
}

fn mass(outcome: &Outcome) -> String {
    if outcome.mass.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n## Many VIPs taken over at once\n\nTime until an address is answered for or announced from its new \
         place. keepalived carries them in four\ninstances: there are no more than 255 VRRP ids.\n\n\
         | system | fault | answered | first | median | last | machine stood still |\n\
         |---|---|--:|--:|--:|--:|--:|\n",
    );
    for mass in &outcome.mass {
        text += &format!(
            "| {} | {} | {} of {} | {:.0} | {:.0} | {:.0} | {:.0} |\n",
            mass.system,
            mass.fault.name(),
            mass.answered,
            mass.vips,
            ms(mass.first),
            ms(mass.median),
            ms(mass.last),
            ms(mass.stall)
        );
    }
    text
}

fn calm(outcome: &Outcome) -> String {
    if outcome.calm.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n## Minutes in which nothing should happen\n\nAll systems at once. Every takeover is a false one.\n\n\
         | system | disturbance | minutes | takeovers | two answerers | machine stood still: worst | 20 ms and \
         more |\n|---|---|--:|--:|--:|--:|--:|\n",
    );
    for calm in &outcome.calm {
        text += &format!(
            "| {} | {} | {:.1} | {} | {:.0} | {:.0} | {} times |\n",
            calm.system,
            calm.disturbance,
            calm.time.as_secs_f64() / 60.0,
            calm.takeovers,
            ms(calm.two_answerers),
            ms(calm.stall),
            calm.stalls
        );
    }
    text
}

/// Every figure, one object for each trial.
pub(super) fn raw(outcome: &Outcome) -> Value {
    let sample = |s: &Sample| {
        json!({
            "system": s.system.name(), "fault": s.case.name(), "from": s.from,
            "served_ms": s.served.map(ms), "lost": s.lost, "gap_ms": ms(s.gap),
            "connections": s.connections, "survived": s.survived,
            "two_answerers_ms": ms(s.two_answerers), "stall_ms": ms(s.stall),
        })
    };
    json!({
        "systems": outcome.systems,
        "trials": outcome.samples.iter().map(sample).collect::<Vec<_>>(),
        "notes": outcome.notes,
    })
}

fn processors() -> (String, usize) {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("model name").and_then(|rest| rest.split_once(": ")))
        .map(|(_, name)| name.trim())
        .collect();
    (names.first().copied().unwrap_or("unknown processor").to_owned(), names.len())
}

fn memory() -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    format!("{} GiB", kib.unwrap_or_default() >> 20)
}

/// The first line of what a program says, wherever it says it.
fn ask(program: &str, words: &[&str]) -> String {
    let Some(path) = crate::command::find(program) else { return "not installed".to_owned() };
    let Ok(output) = Command::new(path).args(words).output() else { return "unknown".to_owned() };
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let said = String::from_utf8_lossy(&said);
    said.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(system: System, case: Case, served: u64) -> Sample {
        Sample {
            system,
            case,
            from: "n1".to_owned(),
            served: Some(Duration::from_millis(served)),
            lost: 3,
            gap: Duration::from_millis(served),
            connections: 20,
            survived: 19,
            two_answerers: Duration::ZERO,
            stall: Duration::ZERO,
        }
    }

    #[test]
    fn the_page_sets_buoy_against_the_fastest_setting_of_the_same_run() {
        let samples = vec![
            sample(System::Buoy, Case::Crash, 4),
            sample(RIVAL, Case::Crash, 40),
            sample(System::Keepalived(Duration::from_secs(1)), Case::Crash, 3600),
        ];
        let outcome = Outcome { samples, ..Outcome::default() };
        assert!(ratios(&outcome).contains("| crash | 4.0 | 40.0 | 0.10 | <= 0.2 |"));
        let table = faults(&outcome);
        assert!(table.contains("| keepalived 1 s | 1 | 3600.0 |"), "{table}");
        assert!(!table.contains("## planned"));
    }
}
