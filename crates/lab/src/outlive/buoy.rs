//! Buoy in that story: connections through `dsr`, `tunnel`, `nat`, and `nat` with a pool.

use super::{Balancer, OWNER_MAX, SERVERS, Server, VIP, address, ipv4};
use crate::agent::{Buoy, config_head};
use crate::backend::Backend;
use crate::fault::Fault;
use crate::peer::Peer;
use crate::probe::crowd::{Speech, Way};
use crate::process::wait_until;
use crate::segment::Segment;
use crate::servers::Prepared;
use crate::{Error, Result};
use buoy_kernel::fast::Fast;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A client whose answers go back through the owner of the second VIP.
const BEHIND: Ipv4Addr = ipv4(150);
const SECOND_VIP: Ipv4Addr = ipv4(101);

/// Buoy on all nodes.
#[derive(Debug)]
pub struct Agents {
    /// The agents.
    pub buoy: Buoy,
    /// Lines at the top of the configuration.
    top: &'static str,
    /// Nodes that run.
    running: Vec<&'static str>,
    servers: Vec<Backend>,
    prepared: Prepared,
}

impl Agents {
    /// With these lines at the top of the configuration.
    pub fn new(segment: &Segment, top: &'static str) -> Result<Self> {
        let buoy = Buoy::new(segment, "")?;
        let running = buoy.nodes();
        Ok(Self { buoy, top, running, servers: Vec::new(), prepared: Prepared::default() })
    }

    /// Says whether the servers could be given back as they were.
    pub fn give_back(&mut self) -> Result<()> {
        self.servers.clear();
        self.prepared.give_back()
    }

    fn config(&self, segment: &Segment, servers: &[Server]) -> Result<String> {
        Ok(format!("{}{}{}", config_head(&segment.topology), self.top, vips(servers)?))
    }

    fn prepare_servers(&mut self, segment: &Segment) -> Result<()> {
        segment.suit_xdp()?;
        segment.inside("client")?.ip(&format!("addr add {BEHIND}/24 dev eth0"))?;
        for name in SERVERS {
            let inside = segment.inside(name)?;
            self.prepared.add(inside, &[&VIP.to_string()], "tunnel")?;
            self.servers.push(Backend::start_at(inside, name, &[VIP.into()])?);
            inside.sysctl("ipv4.conf.all.accept_redirects", "0")?;
            inside.sysctl("ipv4.conf.eth0.accept_redirects", "0")?;
            inside.ip(&format!("route add {BEHIND}/32 via {SECOND_VIP}"))?;
        }
        Ok(())
    }

    fn wait_for_xdp(&self, node: &str) -> Result<()> {
        wait_until(2 * OWNER_MAX, "XDP forwarding", || {
            let status = self.buoy.client(node)?.status();
            Ok(status.is_ok_and(|status| {
                let owned = status.vips.iter().all(|vip| vip.owner.is_some());
                let mut services = status.vips.iter().flat_map(|v| &v.services);
                owned && services.all(|service| service.engine == "XDP (eth0: driver)")
            }))
        })
        .map(drop)
    }

    /// Waits until a node was told of so many translations, and has followed so many pasts of others. Remembered
    /// flows are told first, so that it knows them too.
    fn wait_told(&self, node: &str, flows: usize, histories: u64) -> Result<()> {
        let counter = |name: &str| -> Result<u64> {
            Ok(self.buoy.status(node)?.loop_.counters.get(name).copied().unwrap_or(0))
        };
        wait_until(OWNER_MAX, &format!("{node} to be told of {flows} translations"), || {
            let is_told = flows as u64 <= counter("flows_translations_learned")?;
            Ok(is_told && histories <= counter("flows_histories_followed")?)
        })
        .map(drop)
    }
}

/// The configuration's VIPs, with these backends.
fn vips(servers: &[Server]) -> Result<String> {
    let list = |port: &str| -> Result<String> {
        let of = |(name, weight): &Server| -> Result<String> {
            Ok(format!("\"{name} {}{port} weight={weight}\"", address(name)?))
        };
        Ok(servers.iter().map(of).collect::<Result<Vec<_>>>()?.join(", "))
    };
    let service = |port: u16, lines: &str, to: &str| -> Result<String> {
        let list = list(to)?;
        Ok(format!("[[vip.service]]\nport = \"{port}/tcp\"\n{lines}\nbackends = [{list}]\n"))
    };
    let pool = "forward = \"nat\"\nsource = [\"10.77.0.104\", \"10.77.0.105\"]";
    let group = |name: &str, addresses: &str| {
        format!("[[vip]]\nname = \"{name}\"\ngroup = \"all\"\naddress = [{addresses}]\n")
    };
    Ok([
        group("web", "\"10.77.0.100/24\", \"10.77.0.104/24\", \"10.77.0.105/24\""),
        service(7, "forward = \"dsr\"", "")?,
        service(80, "forward = \"tunnel\"", "")?,
        service(3007, pool, ":80")?,
        group("nat", &format!("\"{SECOND_VIP}/24\"")),
        service(2007, "forward = \"nat\"", ":7")?,
    ]
    .concat())
}

impl Balancer for Agents {
    const NAME: &'static str = "Buoy";

    fn ways(&self) -> Vec<Way> {
        let way = |kind, from: Ipv4Addr, to: Ipv4Addr, port, speech| Way {
            kind,
            from: IpAddr::from(from),
            to: SocketAddr::new(to.into(), port),
            speech,
        };
        let client = ipv4(50);
        vec![
            way("dsr", client, VIP, 7, Speech::Lines),
            way("tunnel", client, VIP, 80, Speech::Http),
            way("nat", BEHIND, SECOND_VIP, 2007, Speech::Lines),
            way("nat with a pool", client, VIP, 3007, Speech::Http),
        ]
    }

    fn start(&mut self, segment: &Segment, servers: &[Server]) -> Result<()> {
        self.prepare_servers(segment)?;
        let text = self.config(segment, servers)?;
        for node in &self.running {
            self.buoy.write_config(node, &text)?;
        }
        self.buoy.start_all(segment)?;
        self.running.iter().try_for_each(|node| self.wait_for_xdp(node))
    }

    fn owner(&mut self, _segment: &Segment) -> Result<Option<String>> {
        let asked = *self.running.first().ok_or(Error::Unknown { what: "a node".to_owned() })?;
        Ok(self.buoy.owner(asked, "all").filter(|owner| !owner.is_empty()))
    }

    fn settle(&mut self, segment: &Segment, flows: usize, anew: Option<&str>) -> Result<()> {
        if let Some(node) = anew {
            return self.wait_told(node, flows, 1);
        }
        let owner = self.owner(segment)?;
        let others = self.running.iter().filter(|node| Some(**node) != owner.as_deref());
        others.into_iter().try_for_each(|node| self.wait_told(node, flows, 0))
    }

    fn change(&mut self, segment: &Segment, servers: &[Server]) -> Result<()> {
        let table = |buoy: &Buoy, node: &str| -> Result<Option<String>> {
            let status = buoy.status(node)?;
            let service = status.vips.first().and_then(|vip| vip.services.first());
            Ok(service.and_then(|service| service.table.clone()))
        };
        let text = self.config(segment, servers)?;
        let mut before = Vec::new();
        for node in &self.running {
            before.push(table(&self.buoy, node)?);
            self.buoy.write_config(node, &text)?;
            self.buoy.reload(node)?;
        }
        for (node, before) in self.running.iter().zip(before) {
            let is_other = || Ok(table(&self.buoy, node)? != before);
            wait_until(OWNER_MAX, "another table", is_other)?;
        }
        Ok(())
    }

    fn power_off(&mut self, segment: &Segment, node: &str) -> Result<()> {
        self.running.retain(|name| *name != node);
        Fault::PowerOff.inject(segment, &mut self.buoy, node).map(drop)
    }

    fn come_back(&mut self, segment: &Segment, node: &str, servers: &[Server]) -> Result<()> {
        let forget = segment.inside(node)?.enter(Fast::detach_earlier)?;
        let forget =
            forget.map_err(|error| Error::Agent { node: node.to_owned(), said: error.to_string() });
        forget?;
        self.buoy.write_config(node, &self.config(segment, servers)?)?;
        Fault::PowerOff.heal(segment, &mut self.buoy, node)?;
        let nodes = self.buoy.nodes();
        self.running.extend(nodes.into_iter().find(|name| *name == node));
        self.wait_for_xdp(node)
    }

    fn leave(&mut self, _segment: &Segment, node: &str) -> Result<()> {
        self.buoy.drain(node, true).map(drop)
    }
}
