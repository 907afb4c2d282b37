//! Reads the configuration for this host, and says which changes of it need more than a reload.

use buoy_config::{Checked, Host, Report};
use buoy_kernel::host;
use buoy_kernel::netlink::NetlinkError;
use buoy_model::{Desired, GroupId};
use std::fmt;
use std::net::IpAddr;
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
    let address = |d: &Desired| d.node(d.me).map(buoy_model::Node::address);
    if address(before) != address(after) {
        return Some("this node's own address or port changed: restart the agent".into());
    }
    if before.cluster != after.cluster {
        return Some("the cluster's name changed: restart the agent".into());
    }
    if let Some(moved) = moved_address(before, after) {
        return Some(moved);
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

/// An address that would be under another lease: while the file is rolled out, one host would serve
/// it under the old lease and another under the new one.
fn moved_address(before: &Desired, after: &Desired) -> Option<String> {
    let places = |d: &Desired| -> Vec<(IpAddr, GroupId, String)> {
        let of = |g: &buoy_model::Group| {
            g.addresses.iter().map(|a| (a.cidr.address(), g.id, g.name.clone())).collect::<Vec<_>>()
        };
        d.groups.iter().flat_map(of).collect()
    };
    let old = places(before);
    places(after).into_iter().find_map(|(address, id, name)| {
        let (_, _, was) = old.iter().find(|(a, old, _)| *a == address && *old != id)?;
        Some(format!(
            "the address {address} moves from the lease of vip {was} to that of vip {name}: two hosts \
             could serve it while the file is rolled out; take it out on all hosts first, then put it \
             back in its new place"
        ))
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
    use buoy_model::{Cidr, ClusterId, Failback, Group, Node, NodeId, Safety, Timing, VipAddress};
    use std::time::Duration;

    fn desired(names: &[&str]) -> Desired {
        let mut nodes: Vec<Node> =
            names.iter().map(|name| Node::new(name, ([10, 0, 0, 1], 4747).into())).collect();
        nodes.sort_by_key(|n| n.id);
        Desired {
            leg_links: vec![None],
            generation: 1,
            digest: 0,
            cluster: ClusterId(1),
            cluster_name: "buoy".into(),
            me: NodeId::of("a"),
            nodes,
            timing: Timing {
                heartbeat: Duration::from_millis(10),
                lease: Duration::from_millis(50),
                lease_max: Duration::from_millis(50),
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

    fn with_groups(groups: &[(&str, &[u8])]) -> Desired {
        let mut desired = desired(&["a"]);
        desired.groups = groups
            .iter()
            .map(|(name, addresses)| Group {
                id: GroupId::of([10, 0, 0, *addresses.iter().min().unwrap()].into()),
                name: (*name).into(),
                addresses: addresses
                    .iter()
                    .map(|n| VipAddress {
                        cidr: Cidr::new([10, 0, 0, *n].into(), 24).unwrap(),
                        link: None,
                        link_name: String::new(),
                        vip_name: "web".into(),
                    })
                    .collect(),
                safety: Safety::Exclusive,
                nodes: vec![],
                prefer: vec![],
                failback: Failback::Never,
                apart: None,
                checks: vec![],
                services: vec![],
            })
            .collect();
        desired
    }

    #[test]
    fn a_vip_may_be_renamed_but_an_address_may_not_change_its_lease() {
        let before = with_groups(&[("web", &[100, 101])]);
        assert_eq!(needs_more_than_a_reload(&before, &with_groups(&[("www", &[100, 101])])), None);
        assert_eq!(needs_more_than_a_reload(&before, &with_groups(&[("web", &[100])])), None);
        let split = with_groups(&[("web", &[100]), ("db", &[101])]);
        let told = needs_more_than_a_reload(&before, &split).unwrap();
        assert!(told.contains("10.0.0.101 moves from the lease of vip web to that of vip db"));
    }

    #[test]
    fn a_new_own_address_needs_a_restart() {
        let before = desired(&["a"]);
        let mut after = before.clone();
        after.nodes[0].addresses = vec![([10, 0, 0, 2], 4747).into()];
        assert!(needs_more_than_a_reload(&before, &after).unwrap().contains("restart"));
    }
}
