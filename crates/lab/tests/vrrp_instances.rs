//! What the virtual routers of VRRP are on each of two hosts, asked of real agents: by the API and by the command.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::VrrpInstanceView;
use buoy_lab::process::wait_until;
use std::process::Command;
use support::{Cluster, SOON, cluster};

/// Two VIPs of one group under VRRP, and one under the lease.
fn vips(fit: &str) -> String {
    format!(
        "[[vip]]\nname = \"web\"\naddress = \"10.77.0.100/24\"\ngroup = \"front\"\nfailback = \"now\"\n\
         vrrp = {{ id = 51, interval = \"200ms\", priority = {{ n1 = 150, n2 = 100 }} }}\n\
         check = {{ name = \"fit\", file = \"{fit}\", every = \"50ms\", timeout = \"50ms\", weight = -60 }}\n\
         [[vip]]\nname = \"db\"\naddress = \"10.77.0.101/24\"\ngroup = \"front\"\n\
         vrrp = {{ id = 52, interval = \"200ms\", priority = {{ n1 = 120, n2 = 110 }} }}\n\
         [[vip]]\nname = \"plain\"\naddress = \"10.77.0.102/24\"\n"
    )
}

fn instances(cluster: &Cluster, node: &str, vip: Option<&str>) -> Vec<VrrpInstanceView> {
    cluster.buoy.client(node).unwrap().vrrp_instances(vip).unwrap().instances
}

fn named(all: &[VrrpInstanceView], vip: &str) -> VrrpInstanceView {
    all.iter().find(|instance| instance.vip == vip).unwrap().clone()
}

/// What the command says.
fn said(cluster: &Cluster, node: &str, words: &[&str]) -> String {
    let socket = cluster.buoy.socket(node);
    let all = ["vrrp"].into_iter().chain(words.iter().copied());
    let ran = Command::new(cluster.buoy.program()).args(all).arg("--socket").arg(socket).output();
    String::from_utf8(ran.unwrap().stdout).unwrap()
}

#[test]
fn every_node_tells_of_its_virtual_routers_and_why_a_priority_is_another() {
    let test = "every_node_tells_of_its_virtual_routers_and_why_a_priority_is_another";
    let folder = tempfile::tempdir().unwrap();
    let fit = folder.path().join("fit");
    std::fs::write(&fit, "").unwrap();
    let Some(cluster) = cluster(test, 2, &vips(&fit.display().to_string())) else { return };
    let settled = || {
        let (ours, theirs) = (instances(&cluster, "n1", None), instances(&cluster, "n2", None));
        let is = |all: &[VrrpInstanceView], state| all.iter().all(|i| i.state == state);
        let heard = theirs.iter().all(|i| i.adverts_received > 1 && i.active_node.is_some());
        Ok(ours.len() == 2 && is(&ours, "active") && is(&theirs, "backup") && heard)
    };
    wait_until(SOON, "n1 to be active for both", settled).unwrap();
    let (ours, theirs) = (instances(&cluster, "n1", None), instances(&cluster, "n2", None));
    let (web, backup) = (named(&ours, "web"), named(&theirs, "web"));
    let place = (web.id, web.version, web.group.as_str(), web.interface.as_str());
    assert_eq!(place, (51, 3, "front", "eth0"));
    assert_eq!((web.priority, web.configured_priority, web.because.len()), (150, 150, 0));
    let active = (web.active.as_deref(), web.active_node.as_deref());
    assert_eq!(active, (Some("10.77.0.11"), Some("n1")));
    assert_eq!(
        (backup.active.as_deref(), backup.active_node.as_deref()),
        active,
        "both say the same"
    );
    assert_eq!((backup.priority, backup.interval_ms), (100, 200));
    assert!(web.adverts_sent > 1 && backup.takes_over_in_ms.is_some());
    // A group is asked for by any of its names and addresses; what the lease decides about has none.
    for name in ["web", "db", "front", "10.77.0.101"] {
        assert_eq!(instances(&cluster, "n1", Some(name)).len(), 2, "{name}");
    }
    assert_eq!(instances(&cluster, "n1", Some("plain")), []);
    let unknown = cluster.buoy.client("n1").unwrap().vrrp_instances(Some("nobody")).unwrap_err();
    assert!(unknown.to_string().contains("nobody"), "{unknown}");

    std::fs::remove_file(&fit).unwrap();
    let lowered = || Ok(named(&instances(&cluster, "n1", None), "web").priority == 90);
    wait_until(SOON, "the check to weigh", lowered).unwrap();
    let web = named(&instances(&cluster, "n1", None), "web");
    assert_eq!(web.configured_priority, 150);
    assert!(web.because[0].starts_with("check fit fails: -60"), "{:?}", web.because);

    let list = said(&cluster, "n1", &["ls"]);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let line = list.lines().map(words).find(|words| words[0] == "web").unwrap();
    assert_eq!(line[1..9], ["51", "ipv4", "eth0", "active", "90", "(150)", "n1", "10.77.0.11"]);
    assert!(list.starts_with("VIP") && !list.contains("plain"), "{list}");
    let shown = said(&cluster, "n2", &["show", "web"]);
    assert!(shown.contains("web VRID 51") && shown.contains("check fit fails: -60"), "{shown}");
    let json = said(&cluster, "n2", &["ls", "-o", "json"]);
    assert!(json.contains("\"adverts_received\""), "{json}");
}
