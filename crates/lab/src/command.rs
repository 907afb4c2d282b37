//! Runs the host's own tools (`ip`, `nft`) to the end, and keeps what they said when they fail.

use crate::{Error, Result};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the tools of an administrator are, beyond the `PATH` of a plain user.
const ADMIN_PATHS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Finds a program in `PATH` or among the administrator's.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(ADMIN_PATHS.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Finds a program or says how to get it.
pub fn require(program: &str, remedy: &'static str) -> Result<PathBuf> {
    find(program).ok_or_else(|| Error::Missing { program: program.to_owned(), remedy })
}

/// Runs `ip` with the words of `line`.
pub fn ip(line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    run(&require("ip", "apt-get install iproute2")?, &words, "")
}

/// Runs many lines of `ip` in one process; the first failure ends it.
pub fn ip_batch(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    let program = require("ip", "apt-get install iproute2")?;
    let words: Vec<&str> = match namespace {
        Some(name) => vec!["-n", name, "-batch", "-"],
        None => vec!["-batch", "-"],
    };
    run(&program, &words, &(lines.join("\n") + "\n")).map(drop)
}

/// Runs a program to its end with text on its standard input; returns what it printed.
pub fn run(program: &Path, words: &[&str], input: &str) -> Result<String> {
    let line = format!("{} {}", program.display(), words.join(" "));
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::system(line.clone()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early closes its input; its exit status says why.
        let _early_end = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(Error::system(line.clone()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = format!(
            "{} {}",
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
        Err(Error::Command { line, said })
    }
}
