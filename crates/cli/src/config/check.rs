//! `buoy config check`: every problem of a file at once, before anything changes.

use super::FILE_DEFAULT;
use crate::failure::{Exit, Failure};
use crate::output::{self, Form};
use buoy_agent::ConfigurationError;
use buoy_config::Report;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The configuration file
    #[arg(value_name = "FILE", default_value = FILE_DEFAULT)]
    file: PathBuf,
    /// Leave out what needs this host: its addresses, interfaces and key files
    #[arg(long)]
    offline: bool,
    /// Take a warning for an error: exit 78
    #[arg(long)]
    deny_warnings: bool,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let result = if arguments.offline {
        check_offline(&arguments.file)
    } else {
        check_here(&arguments.file)?
    };
    match arguments.output {
        form @ (Form::Json | Form::Yaml) => {
            output::value(form, &Verdict::of(&arguments.file, &result))?
        }
        Form::Table => say(&arguments.file, &result)?,
    }
    let is_fine = match &result {
        Ok(good) => !arguments.deny_warnings || good.warnings.warnings() == 0,
        Err(_) => false,
    };
    if is_fine { Ok(()) } else { Err(Failure::said(Exit::Config)) }
}

/// What a good file says, and what is to be known about it.
struct Good {
    summary: String,
    warnings: Report,
}

fn check_offline(file: &Path) -> Result<Good, Report> {
    let checked = buoy_config::load_offline(file)?;
    let (nodes, vips) = (checked.nodes.len(), checked.groups.len());
    let size = size(&checked.cluster_name, nodes, vips, checked.digest);
    let summary = format!("{size}; this host was not looked at");
    Ok(Good { summary, warnings: checked.warnings })
}

fn check_here(file: &Path) -> Result<Result<Good, Report>, Failure> {
    let checked = match buoy_agent::load(file) {
        Ok(checked) => checked,
        Err(ConfigurationError::Invalid(report)) => return Ok(Err(report)),
        Err(error @ (ConfigurationError::Host(_) | ConfigurationError::Unlayable(_))) => {
            return Err(Failure::failed(error));
        }
    };
    let desired = &checked.desired;
    let (nodes, vips) = (desired.nodes.len(), desired.groups.len());
    let size = size(&desired.cluster_name, nodes, vips, desired.digest);
    let summary = format!("{size}; this host is {}", desired.node_name(desired.me));
    Ok(Ok(Good { summary, warnings: checked.warnings }))
}

fn size(cluster: &str, nodes: usize, vips: usize, digest: u32) -> String {
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    format!(
        "cluster {cluster}, {nodes} node{}, {vips} VIP{}, digest {digest:08x} (the same on every host)",
        plural(nodes),
        plural(vips),
    )
}

fn say(file: &Path, result: &Result<Good, Report>) -> Result<(), Failure> {
    let report = match result {
        Ok(good) => &good.warnings,
        Err(report) => report,
    };
    output::text(&report.render(output::width(), output::colour()))?;
    match result {
        Ok(good) => output::text(&format!("{}: ok: {}\n", file.display(), good.summary)),
        Err(report) => {
            let errors = report.errors() + report.left_out();
            let plural = if errors == 1 { "error" } else { "errors" };
            output::text(&format!("\n{}: {errors} {plural}; nothing was changed\n", file.display()))
        }
    }
}

/// The machine form.
#[derive(Serialize)]
struct Verdict {
    file: String,
    ok: bool,
    summary: Option<String>,
    errors: usize,
    warnings: usize,
    left_out: usize,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    code: &'static str,
    severity: &'static str,
    line: usize,
    column: usize,
    message: String,
    reason: String,
    fix: String,
}

impl Verdict {
    fn of(file: &Path, result: &Result<Good, Report>) -> Self {
        let report = match result {
            Ok(good) => &good.warnings,
            Err(report) => report,
        };
        let problem = |problem: &buoy_config::Problem| Problem {
            code: problem.code.id(),
            severity: problem.severity.name(),
            line: problem.line,
            column: problem.column,
            message: problem.message.clone(),
            reason: problem.reason.clone(),
            fix: problem.fix.clone(),
        };
        Self {
            file: file.display().to_string(),
            ok: result.is_ok(),
            summary: result.as_ref().ok().map(|good| good.summary.clone()),
            errors: report.errors(),
            warnings: report.warnings(),
            left_out: report.left_out(),
            problems: report.problems().iter().map(problem).collect(),
        }
    }
}
