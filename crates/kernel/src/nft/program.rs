//! Runs the `nft` program: a script goes in, and what it says comes out.

use super::Error;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

/// Runs `nft` in this thread's network namespace and returns what it printed.
pub(super) fn run(arguments: &[&str], input: &str) -> Result<String, Error> {
    let child = Command::new("nft")
        .args(arguments)
        .env("LC_ALL", "C")
        .env("PATH", search_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing),
        Err(error) => return Err(Error::Run(error)),
    };
    // `nft` reads all of its input before it says a word, so neither waits for the other.
    let fed = child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(Error::Run)?;
    if output.status.success() {
        fed.map_err(Error::Run)?;
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // The first line names the error; the rest repeats the rule, which may be long.
    let said = said.lines().next().unwrap_or("no reason given").chars().take(300).collect();
    Err(Error::Refused { said })
}

/// `nft` lives in a directory that is not in everybody's path.
fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin:/usr/local/sbin")
}
