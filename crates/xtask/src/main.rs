//! The steps of CI, the same on every machine: `check`, `test` and the count of a test run.
//!
//! `make check` and `make test` call it after `scripts/install-deps`. The repository's rules
//! themselves are tests beside this program: `tests/tidy/`.

#![allow(clippy::print_stdout, reason = "a program for people: what it says is its result")]

mod steps;
mod summary;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("check") => steps::check(),
        Some("test") => steps::test(),
        Some("test-summary") => steps::count(&arguments[1..]),
        Some(_) | None => {
            println!("cargo run -p buoy-xtask -- check | test | test-summary FILE...");
            ExitCode::from(2)
        }
    }
}
