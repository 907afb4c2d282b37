//! Real servers that `buoy backend` has prepared, and given back at the end of a test.

use super::Cluster;
use buoy_lab::backend::Backend;
use buoy_lab::servers::Prepared;

/// Backends that an operator has prepared, with what they serve; given back when dropped.
#[derive(Default)]
pub(crate) struct Servers {
    pub(crate) running: Vec<Backend>,
    prepared: Prepared,
}

impl Servers {
    /// As an operator prepares a backend for these VIPs.
    pub(crate) fn prepare(&mut self, cluster: &Cluster, host: &str, vips: &[&str], forward: &str) {
        let inside = cluster.segment.inside(host).unwrap();
        self.prepared.add(inside, vips, forward).unwrap();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.running.clear();
        let given_back = self.prepared.give_back();
        assert!(std::thread::panicking() || given_back.is_ok(), "{given_back:?}");
    }
}
