//! The switch of the segment: a bridge in a namespace of its own, where cables are cut.

use crate::namespace::Namespace;
use crate::topology::Topology;
use crate::{Error, Result, command};
use std::collections::BTreeMap;
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

/// The switch.
#[derive(Debug)]
pub struct Switch {
    namespace: Namespace,
    rules: Mutex<BTreeMap<String, PortRule>>,
}

impl Switch {
    /// Makes the bridge.
    pub fn create(run: &str) -> Result<Self> {
        let namespace = Namespace::create(run, "switch")?;
        // Without IPv6 the bridge itself says nothing on the segment.
        namespace.sysctl("ipv6.conf.all.disable_ipv6", "1")?;
        namespace.sysctl("ipv6.conf.default.disable_ipv6", "1")?;
        namespace.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
        namespace.ip("link set br0 up")?;
        Ok(Self { namespace, rules: Mutex::new(BTreeMap::new()) })
    }

    /// Where it is.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Gives every host of the topology its cable.
    pub fn connect(&self, topology: &Topology, hosts: &[Namespace]) -> Result<()> {
        let switch = self.namespace.name();
        let mut cables = Vec::new();
        let mut ports = Vec::new();
        for (host, namespace) in topology.hosts.iter().zip(hosts) {
            let mac = crate::topology::format_mac(host.mac());
            cables.push(format!(
                "link add {name} netns {switch} type veth peer name eth0 netns {inside} address {mac}",
                name = host.name,
                inside = namespace.name()
            ));
            ports.push(format!("link set {} master br0 up", host.name));
        }
        command::ip_batch(None, &cables)?;
        command::ip_batch(Some(switch), &ports)?;
        for (host, namespace) in topology.hosts.iter().zip(hosts) {
            let lines = [
                "link set eth0 up".to_owned(),
                format!("addr add {}/24 dev eth0", host.ipv4()),
                format!("addr add {}/64 dev eth0 nodad", host.ipv6()),
            ];
            command::ip_batch(Some(namespace.name()), &lines)?;
        }
        Ok(())
    }

    /// Takes the carrier of a host away, or gives it back: a pulled cable.
    pub fn set_carrier(&self, host: &str, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        self.namespace.ip(&format!("link set {host} {state}")).map(drop)
    }

    /// What the port of that host does from now on; all at once, and only at the switch.
    pub fn set_rule(&self, host: &str, rule: PortRule) -> Result<()> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.insert(host.to_owned(), rule);
        self.namespace.nft(&script(&rules)).map(drop)
    }
}

/// The whole ruleset of the switch, which replaces the one before it.
fn script(rules: &BTreeMap<String, PortRule>) -> String {
    let mut lines = String::new();
    for (host, rule) in rules {
        if rule.from_host {
            lines += &format!("    iifname \"{host}\" drop\n");
        }
        if rule.to_host {
            lines += &format!("    oifname \"{host}\" drop\n");
        }
        if 0 < rule.loss_percent {
            let loss = rule.loss_percent;
            lines += &format!("    iifname \"{host}\" numgen random mod 100 < {loss} drop\n");
            lines += &format!("    oifname \"{host}\" numgen random mod 100 < {loss} drop\n");
        }
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

    #[test]
    fn a_port_without_faults_has_no_rule() {
        let rules = BTreeMap::from([("n1".to_owned(), PortRule::default())]);
        assert!(!script(&rules).contains("n1"));
    }

    #[test]
    fn a_one_way_cut_drops_one_direction_only() {
        let rule = PortRule { from_host: true, ..PortRule::default() };
        let text = script(&BTreeMap::from([("n1".to_owned(), rule)]));
        assert!(text.contains("iifname \"n1\" drop"));
        assert!(!text.contains("oifname"));
    }
}
