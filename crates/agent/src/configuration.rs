//! Reads the configuration for this host, and says which changes of it need more than a reload.

use buoy_api::words;
use buoy_config::layer::Unlayable;
use buoy_config::{Checked, Host, Report};
use buoy_kernel::host;
use buoy_kernel::netlink::NetlinkError;
use buoy_model::{Desired, Group, GroupId, Node, Timing};
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
    /// What was edited cannot be laid over the file.
    Unlayable(Unlayable),
}

impl ConfigurationError {
    /// The whole message, for a terminal or a log.
    pub fn render(&self, width: usize, colour: bool) -> String {
        match self {
            Self::Host(cause) => format!("this host's interfaces cannot be read: {cause}"),
            Self::Invalid(report) => report.render(width, colour),
            Self::Unlayable(why) => why.to_string(),
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
    // The sockets are open since the start, and those of other nodes are only sent to.
    let legs = |d: &Desired| d.node(d.me).map(|me| me.addresses.clone());
    if legs(before) != legs(after) {
        return Some(
            "this node's own addresses or its port changed: `buoy drain --wait`, then restart the \
             agent (a change of another node's addresses needs no restart here)"
                .into(),
        );
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
            "{joined} members join and {left} leave (a witness counts too): change one at a time, on \
             all hosts, so that no two majorities exist side by side"
        )
    })
}

/// An address that would be under another lease: while the file is rolled out, one host would serve
/// it under the old lease and another under the new one. That is what becomes of addresses when VIPs
/// are put together into a `group`, or taken out of one.
fn moved_address(before: &Desired, after: &Desired) -> Option<String> {
    let places = |d: &Desired| -> Vec<(IpAddr, GroupId, String)> {
        let of = |g: &Group| {
            g.addresses.iter().map(|a| (a.cidr.address(), g.id, g.name.clone())).collect::<Vec<_>>()
        };
        d.groups.iter().flat_map(of).collect()
    };
    let old = places(before);
    places(after).into_iter().find_map(|(address, id, name)| {
        let (_, _, was) = old.iter().find(|(a, old, _)| *a == address && *old != id)?;
        let why = if *was == name {
            // A lease is named after the smallest address under it.
            format!("the lease of vip {name} changes with its smallest address, so {address} moves")
        } else {
            format!("the address {address} moves from the lease of vip {was} to that of vip {name}")
        };
        Some(format!(
            "{why}: two hosts could serve it while the file is rolled out; take it out on all hosts \
             first, then put it back in its new place"
        ))
    })
}

/// What is different, one line each, for people.
pub(crate) fn changes(before: &Desired, after: &Desired) -> Vec<String> {
    let mut changes = Vec::new();
    for node in &after.nodes {
        match before.node(node.id) {
            None if node.witness => changes.push(format!("witness {} joins", node.name)),
            None => changes.push(format!("peer {} joins", node.name)),
            Some(old) => changes.extend(node_changes(old, node)),
        }
    }
    let left = before.nodes.iter().filter(|n| after.node(n.id).is_none());
    changes.extend(left.map(|n| format!("peer {} leaves", n.name)));
    changes.extend(timing_changes(before.timing, after.timing));
    if before.haproxy_socket != after.haproxy_socket {
        let socket = after.haproxy_socket.as_deref().unwrap_or("gone");
        changes.push(format!("haproxy_socket is {socket}"));
    }
    if before.metrics != after.metrics {
        let at = after.metrics.map_or_else(|| "nowhere".to_owned(), |at| at.to_string());
        changes.push(format!("metrics are at {at}"));
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

/// What is different of a member.
fn node_changes(before: &Node, after: &Node) -> Vec<String> {
    let name = &after.name;
    let legs = before.addresses != after.addresses;
    let weight = before.weight != after.weight;
    let witness = match (before.witness, after.witness) {
        (false, true) => Some(format!("{name} is a witness now: it votes and never owns")),
        (true, false) => Some(format!("{name} is no witness any more: it may own")),
        (true, true) | (false, false) => None,
    };
    let addresses = || format!("peer {name} listens on {}", listed(&after.addresses));
    let weighs = || format!("peer {name} has weight {}", after.weight);
    [legs.then(addresses), weight.then(weighs), witness].into_iter().flatten().collect()
}

fn timing_changes(before: Timing, after: Timing) -> Vec<String> {
    let spans = [
        ("heartbeat", before.heartbeat, after.heartbeat),
        ("lease", before.lease, after.lease),
        ("lease_max", before.lease_max, after.lease_max),
    ];
    let changed = spans.into_iter().filter(|(_, before, after)| before != after);
    changed.map(|(name, _, after)| format!("{name} is {}", words::written(after))).collect()
}

fn listed(all: &[impl ToString]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_model::{Cidr, NodeId, VipAddress};
    use std::time::Duration;

    fn desired(names: &[&str]) -> Desired {
        let mut nodes: Vec<Node> =
            names.iter().map(|name| Node::new(name, ([10, 0, 0, 1], 4747).into())).collect();
        nodes.sort_by_key(|n| n.id);
        Desired {
            timing: Timing {
                heartbeat: Duration::from_millis(10),
                lease: Duration::from_millis(50),
                lease_max: Duration::from_millis(50),
            },
            ..Desired::new("buoy", NodeId::of("a"), nodes, vec![])
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
            .map(|(name, addresses)| {
                Group::new(
                    GroupId::of([10, 0, 0, *addresses.iter().min().unwrap()].into()),
                    name,
                    addresses
                        .iter()
                        .map(|n| VipAddress {
                            cidr: Cidr::new([10, 0, 0, *n].into(), 24).unwrap(),
                            link: None,
                            link_name: String::new(),
                            vip_name: "web".into(),
                            presence: buoy_model::Presence::Assigned,
                        })
                        .collect(),
                )
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
    fn a_witness_is_a_member_like_any_other_when_members_change() {
        let with_witness = |names: &[&str], witness: &str| {
            let mut desired = desired(names);
            for node in &mut desired.nodes {
                node.witness = node.name == witness;
            }
            desired
        };
        let two = desired(&["a", "b"]);
        let three = with_witness(&["a", "b", "w"], "w");
        assert_eq!(needs_more_than_a_reload(&two, &three), None);
        assert_eq!(needs_more_than_a_reload(&three, &two), None);
        let other = with_witness(&["a", "b", "v"], "v");
        let told = needs_more_than_a_reload(&three, &other).unwrap();
        assert!(told.contains("a witness counts too"), "{told}");
        // It votes before and after, so every majority has a member in common with every other.
        let owner = desired(&["a", "b", "w"]);
        assert_eq!(needs_more_than_a_reload(&three, &owner), None);
        assert_eq!(changes(&two, &three), ["witness w joins"]);
        assert_eq!(changes(&three, &owner), ["w is no witness any more: it may own"]);
        assert_eq!(changes(&owner, &three), ["w is a witness now: it votes and never owns"]);
    }

    #[test]
    fn legs_of_a_peer_and_terms_change_without_a_restart() {
        let before = desired(&["a", "b"]);
        let mut after = before.clone();
        for node in after.nodes.iter_mut().filter(|n| n.name == "b") {
            node.addresses.push(([10, 1, 0, 2], 4747).into());
            node.weight = 3;
        }
        after.timing.lease = Duration::from_millis(60);
        after.timing.lease_max = Duration::from_millis(300);
        assert_eq!(needs_more_than_a_reload(&before, &after), None);
        let told = [
            "peer b listens on 10.0.0.1:4747, 10.1.0.2:4747",
            "peer b has weight 3",
            "lease is 60ms",
            "lease_max is 300ms",
        ];
        assert_eq!(changes(&before, &after), told);
        assert_eq!(needs_more_than_a_reload(&after, &before), None, "and back");
    }

    #[test]
    fn vips_are_neither_put_together_nor_taken_apart_in_one_reload() {
        let apart = with_groups(&[("web", &[100]), ("db", &[101])]);
        let together = with_groups(&[("shop", &[100, 101])]);
        let told = needs_more_than_a_reload(&apart, &together).unwrap();
        assert!(told.contains("10.0.0.101 moves from the lease of vip db to that of vip shop"));
        let told = needs_more_than_a_reload(&together, &apart).unwrap();
        assert!(told.contains("10.0.0.101 moves from the lease of vip shop to that of vip db"));
        let without = with_groups(&[("web", &[100])]);
        assert_eq!(needs_more_than_a_reload(&apart, &without), None, "out on all hosts first");
        assert_eq!(needs_more_than_a_reload(&without, &together), None, "then back");
        let smaller = with_groups(&[("web", &[50, 100])]);
        let told = needs_more_than_a_reload(&without, &smaller).unwrap();
        assert!(told.contains("the lease of vip web changes with its smallest address"), "{told}");
    }

    #[test]
    fn a_new_own_address_needs_a_restart() {
        let before = desired(&["a"]);
        let mut after = before.clone();
        after.nodes[0].addresses = vec![([10, 0, 0, 2], 4747).into()];
        assert!(needs_more_than_a_reload(&before, &after).unwrap().contains("restart"));
        let mut after = before.clone();
        after.nodes[0].addresses.push(([10, 1, 0, 1], 4747).into());
        let told = needs_more_than_a_reload(&before, &after).unwrap();
        assert!(told.contains("restart"), "a leg more is a socket more: {told}");
    }
}
