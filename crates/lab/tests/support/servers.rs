//! Real servers that `buoy backend` has prepared, and given back at the end of a test.

use super::Cluster;
use buoy_lab::backend::Backend;
use std::path::PathBuf;
use std::process::Command;

/// Backends that an operator has prepared, with what they serve; given back when dropped.
#[derive(Default)]
pub(crate) struct Servers {
    pub(crate) running: Vec<Backend>,
    /// Each as a program and where it runs.
    prepared: Vec<(PathBuf, String)>,
}

impl Servers {
    /// As an operator prepares a backend for these VIPs.
    pub(crate) fn prepare(&mut self, cluster: &Cluster, host: &str, vips: &[&str], forward: &str) {
        let inside = cluster.segment.inside(host).unwrap();
        let mut words = [&["backend", "add"], vips].concat();
        words.extend(match forward {
            "tunnel" => Some("--tunnel"),
            "gue" => Some("--tunnel=gue:9886"),
            _ => None,
        });
        let mut command = Command::new(cluster.buoy.program());
        let output = inside.enter(|| command.args(&words).output()).unwrap().unwrap();
        assert!(output.status.success(), "{output:?}");
        self.prepared.push((cluster.buoy.program().into(), inside.name().into()));
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.running.clear();
        for (program, inside) in &self.prepared {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", inside]).arg(program);
            let removed = command.args(["backend", "remove", "--all"]).status();
            assert!(std::thread::panicking() || removed.is_ok_and(|status| status.success()));
        }
    }
}
