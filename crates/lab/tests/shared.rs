//! Nodes that share their checks know the same of every backend, and one whose own path is broken knows it.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::ClusterStatus;
use buoy_lab::segment::{ECHO_PORT, HTTP_PORT};
use std::time::Duration;
use support::{LOCAL, cluster};

/// An answer that is not said again counts for 5 s.
const SOON: Duration = Duration::from_secs(15);

fn services() -> String {
    let service = |port: u16| {
        format!(
            "[[vip.service]]\nport = \"{port}/tcp\"\n\
             backends = [\"web1 10.77.0.21:{port}\", \"web2 10.77.0.22:{port}\"]\n\
             check = {{ tcp = true, askers = 3, every = \"200ms\", timeout = \"200ms\", fall = 2, rise = 2 }}\n"
        )
    };
    format!("{LOCAL}{}{}", service(HTTP_PORT), service(ECHO_PORT))
}

/// Whether all services see that backend so.
fn all(status: &ClusterStatus, name: &str, state: &str) -> bool {
    let services = status.vips.iter().flat_map(|vip| &vip.services);
    let mut backends = services.flat_map(|service| &service.backends).filter(|b| b.name == name);
    backends.all(|backend| backend.state == state)
}

fn is_doubted(status: &ClusterStatus) -> bool {
    status.problems.iter().any(|problem| problem.contains("its answers do not count"))
}

#[test]
fn nodes_share_their_checks_and_know_the_same() {
    let test = "nodes_share_their_checks_and_know_the_same";
    let Some(mut cluster) = cluster(test, 3, &services()) else { return };
    let up = |status: &ClusterStatus| all(status, "web1", "up") && all(status, "web2", "up");
    for node in ["n1", "n2", "n3"] {
        cluster.buoy.wait_status(node, SOON, "both backends up", up).unwrap();
    }
    // The path of one node breaks: the others outvote it, and it knows that it is wrong.
    let n3 = cluster.segment.inside("n3").unwrap();
    n3.nft(
        "table ip cut {\n\
           chain out {\n\
             type filter hook output priority 0;\n\
             ip daddr { 10.77.0.21, 10.77.0.22 } tcp flags syn drop;\n\
           }\n\
         }\n",
    )
    .unwrap();
    let doubted = |status: &ClusterStatus| is_doubted(status) && up(status);
    let status = cluster.buoy.wait_status("n3", SOON, "n3 to doubt itself", doubted).unwrap();
    let reason = &status.vips[0].services[0].backends[0].reason;
    assert!(reason.is_empty() || reason.contains("find it down"), "{reason}");
    for node in ["n1", "n2"] {
        let status = cluster.buoy.status(node).unwrap();
        assert!(up(&status) && !is_doubted(&status), "{node}");
    }
    // What the others find holds on the node that cannot see it.
    cluster.segment.backend("web1").unwrap().set_listening(false);
    let down = |status: &ClusterStatus| all(status, "web1", "down") && all(status, "web2", "up");
    for node in ["n1", "n2", "n3"] {
        let status = cluster.buoy.wait_status(node, SOON, "web1 down", down).unwrap();
        let reason = &status.vips[0].services[0].backends[0].reason;
        assert!(reason.contains("agree)"), "{node}: {reason}");
    }
    cluster.segment.inside("n3").unwrap().nft("delete table ip cut").unwrap();
    cluster.segment.backend("web1").unwrap().set_listening(true);
    let well = |status: &ClusterStatus| up(status) && !is_doubted(status);
    for node in ["n1", "n2", "n3"] {
        cluster.buoy.wait_status(node, SOON, "both up again", well).unwrap();
    }
}
