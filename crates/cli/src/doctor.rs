//! `buoy doctor`: whether this host is fit for its duty, and how to mend what is not.
//!
//! Asks the agent, where one runs, and looks at the host itself in any case. Each finding is one
//! line; what is not well has its remedy below it.

mod agent;
mod host;
mod network;
mod remedy;

use crate::AgentSocket;
use crate::failure::{Exit, Failure};
use crate::output::{self, Form};
use crate::table::{painted, plain, wrapped};
use buoy_api::ClientError;
use remedy::Remedy;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = crate::config::FILE_DEFAULT)]
    config: PathBuf,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    /// Mend what can be mended without a decision of yours, and look again
    #[arg(long)]
    fix: bool,
    /// With --fix: mend also what moves traffic
    #[arg(long, requires = "fix")]
    yes: bool,
}

/// How well something is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// The cluster works, but not as well as it could.
    Warn,
    /// The host cannot do its duty.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Finding {
    pub(crate) verdict: Verdict,
    /// What was looked at, in a word.
    pub(crate) about: &'static str,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it; empty where nothing is to be done.
    pub(crate) fix: String,
    /// How `--fix` does it.
    #[serde(skip)]
    pub(crate) remedy: Option<Remedy>,
}

impl Finding {
    fn ok(about: &'static str, found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, about, found: found.into(), fix: String::new(), remedy: None }
    }

    fn warn(about: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, about, found: found.into(), fix: fix.into(), remedy: None }
    }

    pub(crate) fn fail(
        about: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Fail, about, found: found.into(), fix: fix.into(), remedy: None }
    }

    fn mended_by(self, remedy: Remedy) -> Self {
        Self { remedy: Some(remedy), ..self }
    }
}

/// All findings, as JSON.
#[derive(Debug, Serialize)]
struct Reply<'f> {
    /// Nothing failed.
    ok: bool,
    findings: &'f [Finding],
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut findings = examine(&arguments.agent, &arguments.config)?;
    if arguments.fix {
        let client = arguments.agent.client()?;
        let mended = remedy::apply(&findings, &client, arguments.yes);
        findings = examine(&arguments.agent, &arguments.config)?;
        findings.extend(mended);
    }
    show(&findings, arguments.output)?;
    exit(&findings)
}

/// 0 where all is well, 1 with warnings, 2 where something is broken: what monitoring wants to know.
fn exit(findings: &[Finding]) -> Result<(), Failure> {
    match findings.iter().map(|finding| finding.verdict).max() {
        None | Some(Verdict::Ok) => Ok(()),
        Some(Verdict::Warn) => Err(Failure::said(Exit::Failed)),
        Some(Verdict::Fail) => Err(Failure::said(Exit::Nothing)),
    }
}

/// Looks at the host, and at what its agent knows.
pub(crate) fn examine(agent: &AgentSocket, config: &Path) -> Result<Vec<Finding>, Failure> {
    let status = agent.client()?.status();
    let backend = crate::backend::examine();
    let is_backend_only = matches!(&status, Err(ClientError::NotListening { .. }))
        && !backend.is_empty()
        && !config.exists();
    if is_backend_only {
        let found = format!(
            "none runs and there is no {}: this host is a real server only",
            config.display()
        );
        return Ok(backend.into_iter().chain([Finding::ok("agent", found)]).collect());
    }
    let mut findings = host::examine(config, status.as_ref().ok());
    match &status {
        Ok(status) => findings.extend(agent::examine(status)),
        Err(error) => findings.push(unreachable(error)),
    }
    findings.extend(backend);
    Ok(findings)
}

/// Prints findings in this form.
pub(crate) fn show(findings: &[Finding], form: Form) -> Result<(), Failure> {
    match form {
        form @ (Form::Json | Form::Yaml) => {
            let ok = findings.iter().all(|finding| finding.verdict != Verdict::Fail);
            output::value(form, &Reply { ok, findings })
        }
        Form::Table => output::text(&screen(findings, output::colour(), output::wrap())),
    }
}

/// An agent that does not answer, and what that means.
fn unreachable(error: &ClientError) -> Finding {
    let fix = match error {
        ClientError::NotListening { .. } => {
            "start it (systemctl start buoy); if it ends again, its log says why \
             (journalctl -u buoy)"
        }
        ClientError::NotAllowed { .. }
        | ClientError::Silent { .. }
        | ClientError::Broken { .. }
        | ClientError::Refused(_)
        | ClientError::NotUnderstood { .. } => {
            "what the agent knows (peers, lines of defence, VIPs) was not examined"
        }
    };
    Finding::fail("agent", error.to_string(), fix)
}

pub(crate) fn screen(findings: &[Finding], colour: bool, width: usize) -> String {
    let column = findings.iter().map(|finding| finding.about.len()).max().unwrap_or_default();
    let mut text = String::new();
    for Finding { verdict, about, found, fix, .. } in findings {
        let (word, paint) = match verdict {
            Verdict::Ok => ("ok", ""),
            Verdict::Warn => ("warn", "33"),
            Verdict::Fail => ("FAIL", "31"),
        };
        let found = wrapped(&plain(found), 8 + column, width);
        let line = format!("{word:<4}  {about:<column$}  {found}");
        text.push_str(&painted(&line, paint, colour));
        if !fix.is_empty() {
            let fix = wrapped(&plain(&format!("fix: {fix}")), 8 + column, width);
            text.push_str(&format!("{:1$}{fix}\n", "", 8 + column));
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (warnings, failures) = (count(Verdict::Warn), count(Verdict::Fail));
    let summary = match (warnings, failures) {
        (0, 0) => "all is well".to_owned(),
        (warnings, failures) => {
            format!("{} and {}", counted(failures, "failure"), counted(warnings, "warning"))
        }
    };
    format!("{text}\n{summary}\n")
}

/// As in "no failure", "1 failure", "2 failures".
fn counted(n: usize, word: &str) -> String {
    match n {
        0 => format!("no {word}"),
        1 => format!("1 {word}"),
        n => format!("{n} {word}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_and_each_fault_has_its_remedy_below() {
        let findings = [
            Finding::ok("configuration", "buoy.toml is good"),
            Finding::warn("gate", "there is none", "give CAP_BPF"),
            Finding::fail("peer", "lb2 is silent", "start it"),
        ];
        let expected = "\
ok    configuration  buoy.toml is good
warn  gate           there is none
                     fix: give CAP_BPF
FAIL  peer           lb2 is silent
                     fix: start it

1 failure and 1 warning
";
        assert_eq!(screen(&findings, false, usize::MAX), expected);
        assert!(screen(&findings[..1], false, usize::MAX).ends_with("\n\nall is well\n"));
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_finding() {
        let (ok, warn) = (Finding::ok("a", "b"), Finding::warn("a", "b", "c"));
        let fail = Finding::fail("a", "b", "c");
        let code = |all: &[&Finding]| {
            let all: Vec<Finding> = all.iter().map(|finding| (*finding).clone()).collect();
            exit(&all).map_or_else(|failure| failure.exit as u8, |()| 0)
        };
        assert_eq!((code(&[]), code(&[&ok])), (0, 0));
        assert_eq!((code(&[&warn, &ok]), code(&[&warn, &fail, &ok])), (1, 2));
    }

    #[test]
    fn programs_get_the_same_findings() {
        let findings = [Finding::fail("peer", "lb2 is silent", "start it")];
        let value = serde_json::to_value(Reply { ok: false, findings: &findings }).unwrap();
        assert_eq!(value["ok"], false);
        assert_eq!(value["findings"][0]["verdict"], "fail");
        assert_eq!(value["findings"][0]["about"], "peer");
        assert_eq!(value["findings"][0]["fix"], "start it");
    }
}
