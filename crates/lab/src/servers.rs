//! Real servers that `buoy backend` has prepared for a VIP, and given back at the end.

use crate::namespace::Namespace;
use crate::{Error, Result, agent};
use std::path::PathBuf;
use std::process::{Command, Output};

/// What an operator has prepared; given back when dropped.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Each as a program and the namespace where it ran.
    places: Vec<(PathBuf, String)>,
}

impl Prepared {
    /// As an operator prepares a backend for these VIPs; `forward` is the service's way to forward.
    pub fn add(&mut self, inside: &Namespace, vips: &[&str], forward: &str) -> Result<()> {
        let mut words = [&["backend", "add"], vips].concat();
        words.extend(match forward {
            "tunnel" => Some("--tunnel"),
            "gue" => Some("--tunnel=gue:9886"),
            _ => None,
        });
        let program = agent::program()?;
        let mut command = Command::new(&program);
        let output = inside.enter(|| command.args(&words).output())?;
        whole("backend add", output)?;
        self.places.push((program, inside.name().to_owned()));
        Ok(())
    }

    /// Undoes it, everywhere, also where something before it failed.
    pub fn give_back(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        for (program, inside) in self.places.drain(..) {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &inside]).arg(program);
            let output = command.args(["backend", "remove", "--all"]).output();
            outcome = outcome.and(whole("backend remove", output));
        }
        outcome
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // Who wants to know asks before.
        let _unheard = self.give_back();
    }
}

fn whole(what: &str, output: std::io::Result<Output>) -> Result<()> {
    let output = output.map_err(Error::system(format!("run buoy {what}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Command { line: format!("buoy {what}"), said })
}
