//! Runs one step after another, says how long each took, and goes on after a failure.
//!
//! A run that stops at the first failure hides the second. Only what cannot be told without a
//! step is left out: nothing is tested when the workspace does not build.

use crate::summary::{self, Count};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// One command, and how it is called in the list at the end.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    /// What the step counted: a JUnit file of nextest, or nothing.
    junit: Option<&'static str>,
}

const FORMAT: Step = Step { name: "format", arguments: &["fmt", "--all", "--check"], junit: None };

const CLIPPY: Step = Step {
    name: "clippy",
    arguments: &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
    junit: None,
};

const CLIPPY_MUTANTS: Step = Step {
    name: "clippy, with the faults put in on purpose",
    arguments: &[
        "clippy",
        "--locked",
        "-p",
        "buoy-sim",
        "--features",
        "mutants",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ],
    junit: None,
};

/// The fuzz targets are a workspace of their own, so nothing else would notice that they do not compile. Without
/// libFuzzer, which needs a C++ compiler and is only to be linked; and in a folder of its own, for it is of other features.
const FUZZ: Step = Step {
    name: "clippy of the fuzz targets",
    arguments: &[
        "clippy",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--target-dir",
        "target/fuzz",
        "--locked",
        "--no-default-features",
        "--",
        "-D",
        "warnings",
    ],
    junit: None,
};

const FUZZ_FORMAT: Step = Step {
    name: "format of the fuzz targets",
    arguments: &["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"],
    junit: None,
};

const DENY: Step = Step {
    name: "licences, bans, sources",
    arguments: &["deny", "--offline", "check", "licenses", "bans", "sources"],
    junit: None,
};

const TIDY: Step = Step {
    name: "house rules",
    arguments: &["test", "--quiet", "--locked", "-p", "buoy-xtask", "--test", "tidy"],
    junit: None,
};

const BUILD: Step = Step {
    name: "build",
    arguments: &["build", "--workspace", "--all-targets", "--locked"],
    junit: None,
};

const TESTS: Step = Step {
    name: "tests",
    arguments: &["nextest", "run", "--workspace", "--locked"],
    junit: Some("target/nextest/default/junit.xml"),
};

const MUTANTS: Step = Step {
    name: "mutants of the protocol",
    arguments: &[
        "nextest",
        "run",
        "--locked",
        "-p",
        "buoy-sim",
        "--features",
        "mutants",
        "--test",
        "mutants",
        "--profile",
        "mutants",
    ],
    junit: Some("target/nextest/mutants/junit.xml"),
};

/// What is looked at without running any of it.
const STATIC: [Step; 6] = [FORMAT, FUZZ_FORMAT, CLIPPY, CLIPPY_MUTANTS, FUZZ, DENY];

/// What a step came to.
struct Outcome {
    name: &'static str,
    ok: bool,
    took: Duration,
    count: Count,
}

/// Everything that needs no running system: format, lints, licences, house rules.
pub(crate) fn check() -> ExitCode {
    let outcomes: Vec<Outcome> = STATIC.iter().chain([&TIDY]).map(run).collect();
    show(&outcomes);
    exit_code(outcomes.iter().all(|outcome| outcome.ok))
}

/// `check`, then every test, then the count alone on the last line, for CI to read.
pub(crate) fn test() -> ExitCode {
    let mut outcomes: Vec<Outcome> = STATIC.iter().map(run).collect();
    let build = run(&BUILD);
    let built = build.ok;
    outcomes.push(build);
    if built {
        outcomes.push(run(&TESTS));
        outcomes.push(run(&MUTANTS));
    }
    show(&outcomes);
    conclude(outcomes.into_iter().map(|outcome| outcome.count).sum())
}

/// Counts finished runs from the JUnit files they left.
pub(crate) fn count(files: &[String]) -> ExitCode {
    conclude(files.iter().map(|file| count_file(Path::new(file))).sum())
}

fn run(step: &Step) -> Outcome {
    println!("\n== {}: cargo {}", step.name, step.arguments.join(" "));
    let junit = step.junit.map(|file| root().join(file));
    if let Some(file) = &junit {
        // Else an older run would be counted when this one does not get so far. Absent is fine.
        drop(std::fs::remove_file(file));
    }
    let started = Instant::now();
    let status = cargo().args(step.arguments).current_dir(root()).status();
    let took = started.elapsed();
    let ok = match status {
        Ok(status) => status.success(),
        Err(error) => {
            println!("cannot run cargo: {error}");
            false
        }
    };
    let mut count = junit.map_or_else(Count::default, |file| count_file(&file));
    if !ok && count.failed == 0 {
        // A step that failed without a failed test is a failure all the same.
        count.failed = 1;
    }
    Outcome { name: step.name, ok, took, count }
}

/// Cargo, without what an outer cargo said about this very package: build scripts that look at it
/// (that of ring does) would run again whenever somebody calls cargo by hand in between.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let ours = ["CARGO_MANIFEST_", "CARGO_PKG_"];
        if name.to_str().is_some_and(|name| ours.iter().any(|start| name.starts_with(start))) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// A file that cannot be read counts as one failure: its tests did not run.
fn count_file(file: &Path) -> Count {
    match std::fs::read_to_string(file) {
        Ok(text) => summary::count(&text),
        Err(error) => {
            println!("no test results in {}: {error}", file.display());
            Count { failed: 1, ..Count::default() }
        }
    }
}

fn show(outcomes: &[Outcome]) {
    println!("\n== steps");
    for Outcome { name, ok, took, count: _ } in outcomes {
        let verdict = if *ok { "ok" } else { "FAILED" };
        println!("{verdict:>8}  {:>6.1} s  {name}", took.as_secs_f64());
    }
    let total: Duration = outcomes.iter().map(|outcome| outcome.took).sum();
    println!("          {:>6.1} s  in all", total.as_secs_f64());
}

fn conclude(count: Count) -> ExitCode {
    if !count.skips.is_empty() {
        println!("\n== skipped: not tested on this machine");
        for skip in &count.skips {
            println!("{skip}");
        }
    }
    println!("\n{}", count.line());
    exit_code(count.failed == 0 && count.passed > 0)
}

fn exit_code(ok: bool) -> ExitCode {
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map_or_else(PathBuf::new, Into::into)
}
