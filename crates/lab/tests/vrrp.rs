//! VRRP on the wire with Debian's keepalived: who owns the address, how it changes hands, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use buoy_lab::skip;
use buoy_lab::speaker::Speaker;
use buoy_lab::topology::ipv4;
use std::time::Duration;
use support::{Cluster, SOON, prepared_on};

/// Where keepalived runs; Buoy runs on `n1`.
const OTHER: &str = "n2";

/// Buoy on `n1` and keepalived on `n2`, both not started; each is a cluster of its own.
struct Pair {
    cluster: Cluster,
    keepalived: Speaker,
}

/// A way of speaking, as both sides are told it.
#[derive(Clone, Copy, Debug)]
struct Way {
    version: u8,
    v6: bool,
    unicast: bool,
    interval: Duration,
}

const WAYS: [Way; 6] = [
    Way { version: 3, v6: false, unicast: false, interval: Duration::from_millis(100) },
    Way { version: 3, v6: false, unicast: true, interval: Duration::from_millis(100) },
    Way { version: 3, v6: true, unicast: false, interval: Duration::from_millis(100) },
    Way { version: 3, v6: true, unicast: true, interval: Duration::from_millis(100) },
    Way { version: 2, v6: false, unicast: false, interval: Duration::from_secs(1) },
    Way { version: 2, v6: false, unicast: true, interval: Duration::from_secs(1) },
];

impl Way {
    fn vip(self) -> &'static str {
        if self.v6 { "2001:db8:77::100" } else { "10.77.0.100" }
    }

    fn host(self, number: u8) -> String {
        if self.v6 {
            buoy_lab::topology::ipv6(number).to_string()
        } else {
            ipv4(number).to_string()
        }
    }

    /// `[[vip]]` of Buoy.
    fn vip_table(self, priority: u8, more: &str) -> String {
        let prefix = if self.v6 { 64 } else { 24 };
        // keepalived 2.2.7 sends unicast over IPv6 with the usual hop limit of 64.
        let peers = match (self.unicast, self.v6) {
            (false, _) => String::new(),
            (true, false) => format!(", peers = \"{}\"", self.host(12)),
            (true, true) => format!(", peers = \"{}\", min_ttl = 64", self.host(12)),
        };
        let (version, interval) = (self.version, self.interval.as_millis());
        format!(
            "[[vip]]\nname = \"web\"\naddress = \"{}/{prefix}\"\ninterface = \"eth0\"\nvrrp = {{ id = 51, version = {version}, \
             interval = \"{interval}ms\", priority = {priority}{peers} }}\n{more}\n",
            self.vip()
        )
    }

    /// The same for keepalived.
    fn instance(self, priority: u8, more: &str) -> String {
        let prefix = if self.v6 { 64 } else { 24 };
        let peers = if self.unicast {
            format!(
                "  unicast_src_ip {}\n  unicast_peer {{\n    {}\n  }}\n",
                self.host(12),
                self.host(11)
            )
        } else {
            String::new()
        };
        format!(
            "  version {}\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n  priority {priority}\n  \
             advert_int {}\n{peers}  virtual_ipaddress {{\n    {}/{prefix} dev eth0\n  }}\n{more}",
            self.version,
            self.interval.as_secs_f64(),
            self.vip()
        )
    }
}

impl Pair {
    /// `None` when this host cannot, which is said.
    fn new(test: &str) -> Option<Self> {
        let keepalived = match Speaker::keepalived(OTHER) {
            Ok(keepalived) => keepalived,
            Err(error) => {
                skip(test, &error.to_string());
                return None;
            }
        };
        let topology = buoy_lab::topology::Topology::with_nodes(2);
        Some(Self { cluster: prepared_on(test, topology, "", "")?, keepalived })
    }

    fn start_buoy(&mut self, vips: &str) {
        let text =
            format!("peers = {{ n1 = \"10.77.0.11\" }}\nsecret = \"file:cluster.key\"\n{vips}");
        self.cluster.buoy.write_config("n1", &text).unwrap();
        self.cluster.buoy.start(&self.cluster.segment, "n1").unwrap();
    }

    fn start_keepalived(&mut self, instance: String) {
        self.keepalived.start(&self.cluster.segment, &[instance]).unwrap();
    }

    /// Who has the address on its interface.
    fn holders(&self, vip: &str) -> Vec<&'static str> {
        ["n1", OTHER].into_iter().filter(|node| self.cluster.has_address(node, vip)).collect()
    }

    fn wait_holders(&self, vip: &str, expected: &[&str], when: &str) {
        let waited = wait_until(SOON, "", || Ok(self.holders(vip) == expected));
        assert!(
            waited.is_ok(),
            "{when}: {vip} is on {:?}, not on {expected:?}; n1 refused {:?}; keepalived said:\n{}",
            self.holders(vip),
            self.cluster.buoy.status("n1").map(|status| status.vips[0].refused.clone()),
            self.keepalived.output()
        );
    }
}

#[test]
fn the_better_priority_owns_it_in_every_way_of_speaking() {
    let test = "the_better_priority_owns_it_in_every_way_of_speaking";
    for way in WAYS {
        let Some(mut pair) = Pair::new(test) else { return };
        let when = format!("{way:?}");
        pair.start_buoy(&way.vip_table(100, "failback = \"now\""));
        pair.wait_holders(way.vip(), &["n1"], &format!("{when}: alone"));
        pair.start_keepalived(way.instance(150, ""));
        pair.wait_holders(way.vip(), &[OTHER], &format!("{when}: keepalived is better"));
        // It says that it stops: the skew is enough.
        pair.keepalived.stop().unwrap();
        pair.wait_holders(way.vip(), &["n1"], &format!("{when}: keepalived stopped"));
        pair.start_keepalived(way.instance(50, ""));
        pair.cluster.buoy.drain("n1", true).unwrap();
        pair.wait_holders(way.vip(), &[OTHER], &format!("{when}: Buoy is drained"));
        pair.cluster.buoy.drain("n1", false).unwrap();
        pair.wait_holders(way.vip(), &["n1"], &format!("{when}: Buoy takes part again"));
        let status = pair.cluster.buoy.status("n1").unwrap();
        let vip = &status.vips[0];
        assert_eq!((vip.vrrp[0].state.as_str(), vip.vrrp[0].priority), ("active", 100), "{when}");
        assert!(vip.refused.is_empty(), "{when}: {:?}", vip.refused);
    }
}
