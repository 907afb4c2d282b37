//! A small internet of network namespaces on one machine: the demo, the end-to-end tests, the benchmarks.
//!
//! `topology` says which hosts stand on the segment, `segment` builds it out of `namespace` and
//! `switch`, `agent` and `keepalived` are the systems under test (`peer` is what they have in
//! common), `fault` breaks things, `probe` sees what a user sees, `trial` puts these together and
//! `demo` tells the story. Nothing here touches an interface that the lab did not make.

#![forbid(unsafe_code)]

pub mod agent;
pub mod backend;
pub mod bench;
pub mod capture;
pub mod command;
pub mod demo;
mod error;
pub mod fault;
pub mod harm;
pub mod hogs;
pub mod keepalived;
pub mod namespace;
pub mod outlive;
pub mod peer;
pub mod privilege;
pub mod probe;
pub mod process;
pub mod segment;
pub mod servers;
pub mod speaker;
pub mod standing;
pub mod switch;
pub mod table;
pub mod topology;
pub mod trial;
pub mod up;

pub use error::{Error, Result};
pub use up::{down, up};

/// Says that a test was skipped, and why, in a form that the test steps count.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED: {test}: {reason}");
}
