//! Which connections outlive the balancer: the same story for Buoy, for HAProxy and for nftables with conntrackd,
//! the latter two behind keepalived.

use super::report;
use crate::outlive::{self, Agents, Balancer, Conntrackd, Haproxy, Size, Stage};
use crate::segment::Segment;
use crate::{Error, Result, agent, namespace, privilege};
use std::fmt::Write as _;
use std::path::PathBuf;

/// What the caller may choose.
#[derive(Clone, Debug)]
pub struct ConnectionsOptions {
    /// How many connections, over all ways of a system.
    pub connections: usize,
    /// Where the report goes.
    pub report: PathBuf,
}

/// What became of the connections of one system, or why nothing is known of it.
struct Told {
    name: &'static str,
    stages: Result<Vec<Stage>>,
}

/// Runs the story for each system and writes the report. May restart this program in a user namespace, so call
/// it first.
pub fn connections(options: &ConnectionsOptions) -> Result<()> {
    let mode = privilege::acquire()?;
    namespace::remove_all_on_signal();
    agent::program()?;
    println!("{} connections, {}.", options.connections, mode.describe());
    let told = [
        tell(options, |segment| Agents::new(segment, "")),
        tell(options, Haproxy::behind),
        tell(options, Conntrackd::behind),
    ];
    let text = render(options, &told);
    report::save(&options.report, &text)?;
    let ours = told.into_iter().next().map_or(Ok(Vec::new()), |told| told.stages)?;
    match ours.iter().map(Stage::sum).find(|(opened, alive)| alive != opened) {
        None => Ok(()),
        Some((opened, alive)) => Err(Error::Agent {
            node: "Buoy".to_owned(),
            said: format!("{} of {opened} connections were lost", opened - alive),
        }),
    }
}

fn tell<B: Balancer>(
    options: &ConnectionsOptions,
    make: impl FnOnce(&Segment) -> Result<B>,
) -> Told {
    println!("{}", B::NAME);
    let story = || {
        let segment = outlive::segment(&mut |_| {})?;
        let mut system = make(&segment)?;
        // A fifth of them comes in between, in three parts.
        let ways = system.ways().len();
        let between = options.connections / ways / 15;
        let size = Size { at_first: options.connections / ways - 3 * between, between };
        outlive::run(&segment, &mut system, size, &mut |stage| {
            let (opened, alive) = stage.sum();
            println!("  {}: {alive} of {opened}, {:.1} s", stage.when, stage.took.as_secs_f64());
        })
    };
    let stages = story();
    if let Err(error) = &stages {
        println!("  {error}");
    }
    Told { name: B::NAME, stages }
}

fn render(options: &ConnectionsOptions, told: &[Told]) -> String {
    let mut text = format!(
        "# Connections that outlive the balancer\n\nWritten by `buoy lab bench connections --connections {}`.\n\n| | |\n\
         |---|---|\n{}\nThree nodes, two servers and a third one; TCP connections that stay open and are asked at each stage.\n\
         One counts as alive if the server that it was opened to answers on it within 4 s. No server dies.\n\n",
        options.connections,
        report::machine()
    );
    let known: Vec<(&str, &[Stage])> = told
        .iter()
        .filter_map(|told| told.stages.as_deref().ok().map(|stages| (told.name, stages)))
        .collect();
    let mut heads = "| after |".to_owned();
    let mut rule = "|---|".to_owned();
    for (name, _) in &known {
        let _infallible = write!(heads, " {name} |");
        rule += "---|";
    }
    let _infallible = writeln!(text, "{heads}\n{rule}");
    let count = known.iter().map(|(_, stages)| stages.len()).max().unwrap_or(0);
    for place in 0..count {
        let of = |stages: &[Stage]| {
            stages.get(place).map_or_else(String::new, |stage| {
                let (opened, alive) = stage.sum();
                format!(" {alive} of {opened} |")
            })
        };
        let when = known.iter().find_map(|(_, stages)| stages.get(place)).map_or("", |s| s.when);
        let cells: String = known.iter().map(|(_, stages)| of(stages)).collect();
        let _infallible = writeln!(text, "| {when} |{cells}");
    }
    text += "\nHow they were lost, and through what, at the end:\n\n";
    for (name, stages) in &known {
        for (way, figures) in stages.last().map(|stage| &stage.figures).into_iter().flatten() {
            let lost: Vec<String> =
                figures.lost.iter().map(|(why, count)| format!("{count} {why}")).collect();
            let lost = if lost.is_empty() { "none".to_owned() } else { lost.join(", ") };
            let _infallible = writeln!(
                text,
                "- {name}, {way}: {} of {} alive; lost: {lost}",
                figures.survived, figures.opened
            );
        }
    }
    for Told { name, stages } in told {
        if let Err(error) = stages {
            let _infallible = writeln!(text, "\n{name} is missing: {error}");
        }
    }
    text + "\nkeepalived sends every second; all of its nodes are backups without preemption. conntrackd tells all\n\
            nodes by multicast (mode NOTRACK) and puts what it is told into the kernel at once; who becomes the owner\n\
            tells the others all that it knows (`-R`, `-B`). A node that comes back has no memory, and is told by the\n\
            others (`-n`) before the next one leaves.\n"
}
