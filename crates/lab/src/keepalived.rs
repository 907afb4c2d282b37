//! Drives keepalived, with the same forwarding on its nodes as Buoy has, so that only ownership differs.

use crate::peer::Peer;
use crate::process::Process;
use crate::segment::{ECHO_PORT, HTTP_PORT, Segment};
use crate::topology::ipv4;
use crate::{Error, Result, command};
use buoy_core::balance;
use buoy_kernel::nft::{Forward, Spread, script};
use buoy_model::{Backend, Ports, Protocol, SourceAddress};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// An address and the length of its prefix.
pub type Cidr = (Ipv4Addr, u8);

/// How long after its start a daemon is taken to listen to its master: more than three intervals
/// of one second.
const SETTLED: f64 = 4.0;

/// keepalived, on the first two nodes unless it is told others.
#[derive(Debug)]
pub struct Keepalived {
    name: String,
    nodes: Vec<&'static str>,
    program: PathBuf,
    advert_interval: Duration,
    /// What the first instance runs when it becomes the owner: on each node a program of that folder.
    owner_hooks: Option<PathBuf>,
    /// The addresses of each VRRP instance, with their prefixes.
    instances: Vec<Vec<Cidr>>,
    /// The address whose services are forwarded.
    forwarded: Option<Ipv4Addr>,
    daemons: BTreeMap<String, (Process, Instant)>,
    /// The process of each daemon that speaks VRRP, and since when it is there.
    speakers: BTreeMap<String, (u32, Instant)>,
}

impl Keepalived {
    /// One instance with one forwarded VIP; an error says how to install keepalived.
    pub fn new(vip: Ipv4Addr, advert_interval: Duration) -> Result<Self> {
        let mut keepalived = Self::with_instances(advert_interval, vec![vec![(vip, 24)]])?;
        keepalived.forwarded = Some(vip);
        Ok(keepalived)
    }

    /// With those instances (255 at most), whose addresses are served by their owner itself.
    pub fn with_instances(advert_interval: Duration, instances: Vec<Vec<Cidr>>) -> Result<Self> {
        let program = command::require("keepalived", "apt-get install keepalived")?;
        Ok(Self {
            name: format!("keepalived {} s", advert_interval.as_secs_f64()),
            nodes: vec!["n1", "n2"],
            program,
            owner_hooks: None,
            advert_interval,
            instances,
            forwarded: None,
            daemons: BTreeMap::new(),
            speakers: BTreeMap::new(),
        })
    }

    /// On these nodes, the first of which is preferred.
    #[must_use]
    pub fn on(mut self, nodes: Vec<&'static str>) -> Self {
        self.nodes = nodes;
        self
    }

    /// Has a node run its program of that folder, `owner-NODE`, when it becomes the owner.
    #[must_use]
    pub fn with_owner_hooks(mut self, folder: &Path) -> Self {
        self.owner_hooks = Some(folder.to_owned());
        self
    }

    /// Adds an address to the first instance, served by its owner itself.
    #[must_use]
    pub fn beside(mut self, vip: Ipv4Addr) -> Self {
        self.instances.iter_mut().take(1).for_each(|addresses| addresses.push((vip, 24)));
        self
    }

    /// Makes the nodes forward, with the very ruleset that Buoy would use.
    fn prepare(&self, segment: &Segment, node: &str) -> Result<()> {
        let Some(vip) = self.forwarded else { return Ok(()) };
        let inside = segment.inside(node)?;
        inside.sysctl("ipv4.ip_forward", "1")?;
        inside.sysctl("ipv4.conf.all.send_redirects", "0")?;
        inside.sysctl("ipv4.conf.eth0.send_redirects", "0")?;
        inside.nft(&script(&forwards(vip)))?;
        // Buoy sets it too: a connection that comes back from another node is not out of window.
        inside.sysctl("netfilter.nf_conntrack_tcp_be_liberal", "1")
    }

    fn config(&self, node: &str) -> String {
        let priority = if node == "n1" { 100 } else { 90 };
        let interval = self.advert_interval.as_secs_f64();
        let mut text = format!("global_defs {{\n  router_id {node}\n  script_user root\n}}\n");
        for (number, addresses) in (1..).zip(&self.instances) {
            text += &format!(
                "vrrp_instance v{number} {{\n  version 3\n  state BACKUP\n  nopreempt\n  interface \
                 eth0\n  virtual_router_id {number}\n  priority {priority}\n  advert_int {interval}\n"
            );
            if let Some(folder) = self.owner_hooks.as_ref().filter(|_| number == 1) {
                text += &format!("  notify_master \"{}/owner-{node}\"\n", folder.display());
            }
            // More than twenty do not fit an advertisement.
            let (told, untold) = addresses.split_at(addresses.len().min(20));
            for (block, addresses) in
                [("virtual_ipaddress", told), ("virtual_ipaddress_excluded", untold)]
            {
                if !addresses.is_empty() {
                    text += &format!("  {block} {{\n");
                    for (address, prefix) in addresses {
                        text += &format!("    {address}/{prefix}\n");
                    }
                    text += "  }\n";
                }
            }
            text += "}\n";
        }
        text
    }
}

impl Peer for Keepalived {
    fn name(&self) -> &str {
        &self.name
    }

    fn nodes(&self) -> Vec<&'static str> {
        self.nodes.clone()
    }

    fn start(&mut self, segment: &Segment, node: &str) -> Result<()> {
        self.daemons.remove(node);
        self.prepare(segment, node)?;
        let folder = segment.file(&format!("keepalived-{node}"));
        std::fs::create_dir_all(&folder).map_err(Error::system("make a folder"))?;
        let config = folder.join("keepalived.conf");
        std::fs::write(&config, self.config(node)).map_err(Error::system("write the file"))?;
        for leftover in ["main.pid", "vrrp.pid"] {
            // The pid file of a killed daemon would keep a new one from starting.
            let _none = std::fs::remove_file(folder.join(leftover));
        }
        let command = self.command(&folder, &config);
        let log = segment.file(&format!("keepalived-{node}.log"));
        let process = Process::start(segment.inside(node)?, command, &log)?;
        self.daemons.insert(node.to_owned(), (process, Instant::now()));
        Ok(())
    }

    fn process(&mut self, node: &str) -> Result<&mut Process> {
        let daemon = self.daemons.get_mut(node).map(|(process, _)| process);
        daemon.ok_or_else(|| Error::Unknown { what: format!("keepalived on {node}") })
    }

    fn protocol_process(&mut self, node: &str) -> Result<Pid> {
        // The parent only watches; its one child speaks VRRP.
        let children = self.process(node)?.children();
        let first = children.first().map(|pid| Pid::from_raw(pid.cast_signed()));
        first
            .ok_or_else(|| Error::Unknown { what: format!("VRRP process of keepalived on {node}") })
    }

    fn drain(&mut self, _node: &str, _out: bool) -> Result<bool> {
        Ok(false)
    }

    fn is_ready(&mut self, node: &str) -> bool {
        let settled = SETTLED * self.advert_interval.as_secs_f64();
        let Some((process, _)) = self.daemons.get_mut(node) else { return false };
        let speaker = if process.is_running() { process.children().first().copied() } else { None };
        let Some(pid) = speaker else { return false };
        let now = (pid, Instant::now());
        let known = self.speakers.entry(node.to_owned()).or_insert(now);
        if known.0 != pid {
            *known = now;
        }
        settled < known.1.elapsed().as_secs_f64()
    }

    fn is_exclusive(&self) -> bool {
        false
    }

    fn why(&mut self, _node: &str, _vip: Ipv4Addr) -> Option<String> {
        None
    }
}

impl Keepalived {
    /// Ends the daemon of a node and takes away what it and the lab set there.
    pub fn leave(&mut self, segment: &Segment, node: &str) -> Result<()> {
        self.daemons.remove(node);
        let inside = segment.inside(node)?;
        let present = inside.ip("-oneline addr show dev eth0")?;
        for (address, prefix) in self.instances.iter().flatten() {
            if present.contains(&format!(" {address}/")) {
                inside.ip(&format!("addr del {address}/{prefix} dev eth0"))?;
            }
        }
        inside.nft("flush ruleset").map(drop)
    }

    fn command(&self, folder: &Path, config: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["--dont-fork", "--log-console", "--vrrp", "--use-file"])
            .arg(config)
            .arg("--pid")
            .arg(folder.join("main.pid"))
            .arg("--vrrp_pid")
            .arg(folder.join("vrrp.pid"));
        command
    }
}

/// The services of the demo's VIP, as Buoy's own table of backends gives them out.
fn forwards(vip: Ipv4Addr) -> Vec<Forward> {
    let services =
        [(HTTP_PORT, Protocol::Tcp), (ECHO_PORT, Protocol::Tcp), (ECHO_PORT, Protocol::Udp)];
    services.map(|(port, protocol)| forward(vip, port, protocol)).to_vec()
}

fn forward(vip: Ipv4Addr, port: u16, protocol: Protocol) -> Forward {
    let backends: Vec<Backend> = [("web1", 21), ("web2", 22)]
        .map(|(name, number)| Backend::new(name, SocketAddr::from((ipv4(number), port))))
        .to_vec();
    let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
    let spread = balance::Table::new(&backends, &balance::shares(&backends, &[]))
        .map_or(Spread::Refuse, |table| {
            Spread::Hash(table.slots().iter().map(|place| addresses[*place]).collect())
        });
    Forward {
        vip: vip.into(),
        ports: Ports::one(port),
        within: Vec::new(),
        protocol,
        source: SourceAddress::Vip,
        spread,
        backends: addresses,
        sources: std::sync::Arc::default(),
        new_connections: None,
        stick: None,
        standing: Vec::new(),
        quic: None,
        relays: Vec::new(),
        link: "eth0".to_owned(),
    }
}
