//! Routes and rules go where the VIP goes, come back when somebody removes them, and do not outlive an agent.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use nix::sys::signal::Signal;
use support::{Cluster, SOON, VIP, cluster};

const WITH: &str = "routes = [\"192.168.3.0/24 via 10.77.0.50\", \"default via 10.77.0.50 src 10.77.0.100 table 100\"]\n\
                    rules = \"from 10.77.0.100 table 100\"\n";

fn vip(more: &str) -> String {
    format!(
        "[[vip]]\nname = \"web\"\naddress = \"{VIP}/24\"\nprefer = [\"n1\"]\nfailback = \"now\"\n{more}"
    )
}

/// What of ours a host has: routes of the main table, of the other one, and rules.
fn there(cluster: &Cluster, host: &str) -> [usize; 3] {
    let inside = cluster.segment.inside(host).unwrap();
    let lines = |line: &str| inside.ip(line).unwrap_or_default().lines().count();
    [
        lines("route show proto 176"),
        lines("route show table 100 proto 176"),
        inside.ip("rule show").unwrap().matches("from 10.77.0.100 lookup 100").count(),
    ]
}

fn wait_there(cluster: &Cluster, host: &str, expected: [usize; 3], when: &str) {
    let waited = wait_until(SOON, "", || Ok(there(cluster, host) == expected));
    let found = there(cluster, host);
    assert!(waited.is_ok(), "{when}: {host} has {found:?}, not {expected:?}");
}

#[test]
fn routes_and_rules_are_where_the_vip_is_and_nowhere_else() {
    let test = "routes_and_rules_are_where_the_vip_is_and_nowhere_else";
    let Some(mut cluster) = cluster(test, 3, &vip(WITH)) else { return };
    let (all, none) = ([1, 1, 1], [0, 0, 0]);
    wait_there(&cluster, "n1", all, "at first");
    assert_eq!(there(&cluster, "n2"), none);
    // What a client beyond that router is answered by.
    let way = "route get 192.168.3.9 from 10.77.0.100";
    let inside = cluster.segment.inside("n1").unwrap();
    assert!(inside.ip(way).unwrap().contains("via 10.77.0.50"));
    for line in ["route delete 192.168.3.0/24", "rule delete from 10.77.0.100 table 100"] {
        cluster.segment.inside("n1").unwrap().ip(line).unwrap();
        wait_there(&cluster, "n1", all, line);
    }
    cluster.buoy.drain("n1", true).unwrap();
    wait_there(&cluster, "n1", none, "drained");
    let has = |host: &&str| there(&cluster, host) == all;
    wait_until(SOON, "another one", || Ok(["n2", "n3"].iter().any(has))).unwrap();
    cluster.buoy.drain("n1", false).unwrap();
    wait_there(&cluster, "n1", all, "back");
    for host in ["n2", "n3"] {
        wait_there(&cluster, host, none, "back at n1");
    }
    // Its supervisor, or else the next agent.
    let pid = cluster.buoy.protocol_process("n1").unwrap();
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    wait_there(&cluster, "n1", none, "killed");
    cluster.buoy.start(&cluster.segment, "n1").unwrap();
    wait_there(&cluster, "n1", all, "started again");
    let head = support::config_head(&cluster.segment.topology);
    cluster.buoy.write_config("n1", &format!("{head}{}", vip(""))).unwrap();
    cluster.buoy.reload("n1").unwrap();
    wait_there(&cluster, "n1", none, "without them");
}
