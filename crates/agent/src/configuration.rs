//! Reads the configuration for this host, and says which changes of it need more than a reload.

use buoy_config::{Checked, Host, Report};
use buoy_kernel::host;
use buoy_kernel::netlink::NetlinkError;
use buoy_model::Desired;
use std::fmt;
use std::path::Path;

/// Why there is no configuration to run.
#[derive(Debug)]
pub enum ConfigurationError {
    /// The kernel does not say which interfaces and addresses there are.
    Host(NetlinkError),
    /// The file has problems.
    Invalid(Report),
}

impl ConfigurationError {
    /// The whole message, for a terminal or a log.
    pub fn render(&self, width: usize, colour: bool) -> String {
        match self {
            Self::Host(cause) => format!("this host's interfaces cannot be read: {cause}"),
            Self::Invalid(report) => report.render(width, colour),
        }
    }
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(100, false))
    }
}

impl std::error::Error for ConfigurationError {}

/// Reads and checks a file for this host.
pub fn load(path: &Path) -> Result<Checked, ConfigurationError> {
    let host = this_host().map_err(ConfigurationError::Host)?;
    buoy_config::load(path, &host).map_err(ConfigurationError::Invalid)
}

/// This host as a configuration sees it.
pub fn this_host() -> Result<Host, NetlinkError> {
    Ok(Host::from(&host::facts()?))
}

/// Why a running agent cannot go from one configuration to the other; `None`: it can.
pub(crate) fn needs_more_than_a_reload(before: &Desired, after: &Desired) -> Option<String> {
    if before.me != after.me {
        return Some(format!(
            "this node would be {} instead of {}: restart the agent",
            after.node_name(after.me),
            before.node_name(before.me)
        ));
    }
    let address = |d: &Desired| d.node(d.me).map(|n| n.address);
    if address(before) != address(after) {
        return Some("this node's own address or port changed: restart the agent".into());
    }
    if before.cluster != after.cluster {
        return Some("the cluster's name changed: restart the agent".into());
    }
    let left = before.nodes.iter().filter(|n| after.node(n.id).is_none()).count();
    let joined = after.nodes.iter().filter(|n| before.node(n.id).is_none()).count();
    // Majorities of n and n + 1 nodes always have a member in common; with a bigger step two
    // majorities could exist side by side while the file is rolled out.
    (left + joined > 1).then(|| {
        format!(
            "{joined} peers join and {left} leave: change one at a time, on all hosts, so that no \
             two majorities exist side by side"
        )
    })
}

/// What is different, one line each, for people.
pub(crate) fn changes(before: &Desired, after: &Desired) -> Vec<String> {
    let mut changes = Vec::new();
    let joined = after.nodes.iter().filter(|n| before.node(n.id).is_none());
    changes.extend(joined.map(|n| format!("peer {} joins", n.name)));
    let left = before.nodes.iter().filter(|n| after.node(n.id).is_none());
    changes.extend(left.map(|n| format!("peer {} leaves", n.name)));
    if before.timing != after.timing {
        changes.push("heartbeat and lease changed".into());
    }
    for group in &after.groups {
        match before.group(group.id) {
            None => changes.push(format!("vip {} is new", group.name)),
            Some(old) if old != group => changes.push(format!("vip {} changed", group.name)),
            Some(_) => {}
        }
    }
    let gone = before.groups.iter().filter(|g| after.group(g.id).is_none());
    changes.extend(gone.map(|g| format!("vip {} is gone", g.name)));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_model::{ClusterId, Node, NodeId, Timing};
    use std::time::Duration;

    fn desired(names: &[&str]) -> Desired {
        let mut nodes: Vec<Node> = names
            .iter()
            .map(|name| Node {
                id: NodeId::of(name),
                name: (*name).into(),
                address: ([10, 0, 0, 1], 4747).into(),
            })
            .collect();
        nodes.sort_by_key(|n| n.id);
        Desired {
            generation: 1,
            digest: 0,
            cluster: ClusterId(1),
            cluster_name: "buoy".into(),
            me: NodeId::of("a"),
            nodes,
            timing: Timing {
                heartbeat: Duration::from_millis(10),
                lease: Duration::from_millis(50),
            },
            groups: vec![],
        }
    }

    #[test]
    fn members_change_one_at_a_time() {
        let three = desired(&["a", "b", "c"]);
        assert_eq!(needs_more_than_a_reload(&three, &desired(&["a", "b", "c", "d"])), None);
        assert_eq!(needs_more_than_a_reload(&three, &desired(&["a", "b"])), None);
        let five = desired(&["a", "b", "c", "d", "e"]);
        let told = needs_more_than_a_reload(&three, &five).unwrap();
        assert!(told.contains("one at a time"), "{told}");
        assert!(needs_more_than_a_reload(&three, &desired(&["a", "b", "x"])).is_some());
    }

    #[test]
    fn a_new_own_address_needs_a_restart() {
        let before = desired(&["a"]);
        let mut after = before.clone();
        after.nodes[0].address = ([10, 0, 0, 2], 4747).into();
        assert!(needs_more_than_a_reload(&before, &after).unwrap().contains("restart"));
    }
}
