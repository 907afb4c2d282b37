//! The switch of the segment: a bridge in a namespace of its own, where cables are cut.

use crate::namespace::Namespace;
use crate::topology::Topology;
use crate::{Error, Result, command};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// What a port does to frames; the carrier of the host stays.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PortRule {
    /// Frames that the host sends are dropped.
    pub from_host: bool,
    /// Frames to the host are dropped.
    pub to_host: bool,
    /// So many of a hundred frames are dropped, in each direction.
    pub loss_percent: u8,
}

/// What the switch does to frames besides passing them on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Rules {
    ports: BTreeMap<String, PortRule>,
    /// Pairs of hosts whose frames to each other are dropped.
    apart: BTreeSet<(String, String)>,
    /// So many of a hundred frames are dropped, whoever sends them.
    loss_percent: u8,
}

/// The switch, or two of them that know nothing of each other.
#[derive(Debug)]
pub struct Switch {
    namespace: Namespace,
    rules: Mutex<Rules>,
}

impl Switch {
    /// Makes the bridges.
    pub fn create(run: &str) -> Result<Self> {
        let namespace = Namespace::create(run, "switch")?;
        // Without IPv6 the bridge itself says nothing on the segment.
        namespace.sysctl("ipv6.conf.all.disable_ipv6", "1")?;
        namespace.sysctl("ipv6.conf.default.disable_ipv6", "1")?;
        for bridge in ["br0", "br1"] {
            namespace.ip(&format!(
                "link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
            ))?;
            namespace.ip(&format!("link set {bridge} up"))?;
        }
        Ok(Self { namespace, rules: Mutex::new(Rules::default()) })
    }

    /// Where it is.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Gives every host of the topology its cables.
    pub fn connect(&self, topology: &Topology, hosts: &[Namespace]) -> Result<()> {
        let switch = self.namespace.name();
        let mut cables = Vec::new();
        let mut ports = Vec::new();
        let mut lay = |port: &str, bridge: &str, inside: &Namespace, interface: &str, mac| {
            let mac = crate::topology::format_mac(mac);
            cables.push(format!(
                "link add {port} netns {switch} type veth peer name {interface} netns {inside} \
                 address {mac}",
                inside = inside.name()
            ));
            ports.push(format!("link set {port} master {bridge} up"));
        };
        for (host, inside) in topology.hosts.iter().zip(hosts) {
            lay(host.name, "br0", inside, "eth0", host.mac());
            if topology.second_network && host.is_member() {
                let [a, b, c, _, e, f] = host.mac();
                lay(&host.second_port(), "br1", inside, "eth1", [a, b, c, 0x78, e, f]);
            }
        }
        command::ip_batch(None, &cables)?;
        command::ip_batch(Some(switch), &ports)?;
        for (host, inside) in topology.hosts.iter().zip(hosts) {
            let mut lines = vec!["link set eth0 up".to_owned()];
            let first = topology.addresses(host).into_iter();
            lines.extend(first.map(|address| format!("addr add dev eth0 {address}")));
            if topology.second_network && host.is_member() {
                lines.push("link set eth1 up".to_owned());
                lines.push(format!("addr add {}/24 dev eth1", host.second_ipv4()));
            }
            command::ip_batch(Some(inside.name()), &lines)?;
        }
        Ok(())
    }

    /// Takes the carrier of a port away, or gives it back: a pulled cable.
    pub fn set_carrier(&self, port: &str, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        self.namespace.ip(&format!("link set {port} {state}")).map(drop)
    }

    /// What a port does from now on; all at once, and only at the switch.
    pub fn set_rule(&self, port: &str, rule: PortRule) -> Result<()> {
        self.change(|rules| {
            rules.ports.insert(port.to_owned(), rule);
        })
    }

    /// Drops what two hosts send to each other, on the first network, or passes it on again.
    pub fn set_apart(&self, one: &str, other: &str, apart: bool) -> Result<()> {
        self.change(|rules| {
            let pair = (one.to_owned(), other.to_owned());
            if apart {
                rules.apart.insert(pair)
            } else {
                rules.apart.remove(&pair)
            };
        })
    }

    /// Drops so many of a hundred frames from now on, whoever sends them.
    pub fn set_loss(&self, percent: u8) -> Result<()> {
        self.change(|rules| rules.loss_percent = percent)
    }

    fn change(&self, how: impl FnOnce(&mut Rules)) -> Result<()> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        how(&mut rules);
        self.namespace.nft(&script(&rules)).map(drop)
    }
}

/// The whole ruleset of the switch, which replaces the one before it.
fn script(rules: &Rules) -> String {
    let mut lines = String::new();
    for (one, other) in &rules.apart {
        lines += &format!("    iifname \"{one}\" oifname \"{other}\" drop\n");
        lines += &format!("    iifname \"{other}\" oifname \"{one}\" drop\n");
    }
    for (port, rule) in &rules.ports {
        if rule.from_host {
            lines += &format!("    iifname \"{port}\" drop\n");
        }
        if rule.to_host {
            lines += &format!("    oifname \"{port}\" drop\n");
        }
        if 0 < rule.loss_percent {
            let loss = rule.loss_percent;
            lines += &format!("    iifname \"{port}\" numgen random mod 100 < {loss} drop\n");
            lines += &format!("    oifname \"{port}\" numgen random mod 100 < {loss} drop\n");
        }
    }
    if 0 < rules.loss_percent {
        lines += &format!("    numgen random mod 100 < {} drop\n", rules.loss_percent);
    }
    format!(
        "table bridge cuts\ndelete table bridge cuts\ntable bridge cuts {{\n  chain forward {{\n    \
         type filter hook forward priority 0; policy accept;\n{lines}  }}\n}}\n"
    )
}

/// An unknown host named by a caller.
pub(crate) fn unknown_host(name: &str) -> Error {
    Error::Unknown { what: format!("host {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, rule: PortRule) -> String {
        let ports = BTreeMap::from([(name.to_owned(), rule)]);
        script(&Rules { ports, ..Rules::default() })
    }

    #[test]
    fn a_port_without_faults_has_no_rule() {
        assert!(!port("n1", PortRule::default()).contains("n1"));
    }

    #[test]
    fn a_one_way_cut_drops_one_direction_only() {
        let text = port("n1", PortRule { from_host: true, ..PortRule::default() });
        assert!(text.contains("iifname \"n1\" drop"));
        assert!(!text.contains("oifname"));
    }

    #[test]
    fn a_frame_on_a_lossy_segment_is_drawn_for_once() {
        let text = script(&Rules { loss_percent: 10, ..Rules::default() });
        assert_eq!(text.matches("numgen random mod 100 < 10 drop").count(), 1);
        assert!(!text.contains("iifname"));
    }
}
