//! Real servers that `buoy backend` has prepared, and given back at the end of a test.

use super::{Cluster, SOON, VIP};
use buoy_lab::backend::Backend;
use buoy_lab::peer::Peer;
use buoy_lab::servers::Prepared;
use std::net::IpAddr;

/// What a node says of the engine of its services where XDP forwards them.
pub(crate) const XDP: &str = "XDP (eth0: driver)";

/// Backends that an operator has prepared, with what they serve; given back when dropped.
#[derive(Default)]
pub(crate) struct Servers {
    pub(crate) running: Vec<Backend>,
    prepared: Prepared,
}

impl Servers {
    /// Both backends, for this way of forwarding: with servers on the VIPs, or, where addresses are translated, with
    /// a way back to the client through the owner, whoever that is.
    pub(crate) fn behind(cluster: &Cluster, vips: &[IpAddr], forward: &str) -> Self {
        let mut servers = Self::default();
        let texts: Vec<String> = vips.iter().map(ToString::to_string).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for name in ["web1", "web2"] {
            let inside = cluster.segment.inside(name).unwrap();
            if forward == "nat" {
                inside.ip(&format!("route add 10.77.0.50/32 via {VIP}")).unwrap();
                continue;
            }
            servers.prepare(cluster, name, &texts, forward);
            servers.running.push(Backend::start_at(inside, name, vips).unwrap());
        }
        servers
    }

    /// As an operator prepares a backend for these VIPs.
    pub(crate) fn prepare(&mut self, cluster: &Cluster, host: &str, vips: &[&str], forward: &str) {
        let inside = cluster.segment.inside(host).unwrap();
        self.prepared.add(inside, vips, forward).unwrap();
    }
}

/// Waits until each node knows an owner for every VIP, and has every service in this engine.
pub(crate) fn wait_forwarded(cluster: &Cluster, engine: &str) {
    let all = |status: &buoy_api::ClusterStatus| {
        status.vips.iter().flat_map(|vip| &vip.services).all(|service| service.engine == engine)
    };
    for node in cluster.buoy.nodes() {
        cluster.wait_owned(node);
        cluster.buoy.wait_status(node, 2 * SOON, engine, all).unwrap();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.running.clear();
        let given_back = self.prepared.give_back();
        assert!(std::thread::panicking() || given_back.is_ok(), "{given_back:?}");
    }
}
