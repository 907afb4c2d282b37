//! What people have today in that story: HAProxy or nftables behind keepalived, the latter with conntrackd, which
//! tells the other nodes what the kernel knows of each connection.

use super::{Balancer, SERVERS, Server, VIP, address, plain_ways};
use crate::fault::Fault;
use crate::keepalived::Keepalived;
use crate::peer::Peer;
use crate::probe::crowd::Way;
use crate::process::{Process, wait_until};
use crate::segment::{ECHO_PORT, HTTP_PORT, Segment};
use crate::{Error, Result, command};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How often keepalived says that it is there.
const ADVERTISEMENTS: Duration = Duration::from_secs(1);
/// How long the nodes have to tell each other about connections, or to take another configuration.
const SETTLE: Duration = Duration::from_secs(3);
const START_MAX: Duration = Duration::from_secs(15);

/// HAProxy on all nodes, and keepalived for the VIP.
#[derive(Debug)]
pub struct Haproxy {
    keepalived: Keepalived,
    program: PathBuf,
    processes: BTreeMap<String, Process>,
}

/// nftables that translates to the servers, conntrackd on all nodes, and keepalived for the VIP.
#[derive(Debug)]
pub struct Conntrackd {
    keepalived: Keepalived,
    program: PathBuf,
    processes: BTreeMap<String, Process>,
}

impl Haproxy {
    /// An error says what to install.
    pub fn new(segment: &Segment) -> Result<Self> {
        let program = command::require("haproxy", "apt-get install haproxy")?;
        Ok(Self { keepalived: keepalived(segment)?, program, processes: BTreeMap::new() })
    }

    fn write(&self, segment: &Segment, node: &str, servers: &[Server]) -> Result<PathBuf> {
        let mut text =
            "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server \
                        1h\n  balance roundrobin\n"
                .to_owned();
        for port in [ECHO_PORT, HTTP_PORT] {
            let _infallible = writeln!(text, "listen on{port}\n  bind {VIP}:{port}");
            for (name, weight) in servers {
                let at = address(name)?;
                let _infallible =
                    writeln!(text, "  server {name} {at}:{port} check inter 1s weight {weight}");
            }
        }
        write(segment, &format!("haproxy-{node}.cfg"), &text)
    }

    fn launch(&mut self, segment: &Segment, node: &str, servers: &[Server]) -> Result<()> {
        let inside = segment.inside(node)?;
        // It listens on an address that the node has not got yet.
        inside.sysctl("ipv4.ip_nonlocal_bind", "1")?;
        let config = self.write(segment, node, servers)?;
        let mut command = Command::new(&self.program);
        command.args(["-W", "-db", "-f"]).arg(config);
        let log = segment.file(&format!("haproxy-{node}.log"));
        self.processes.insert(node.to_owned(), Process::start(inside, command, &log)?);
        Ok(())
    }
}

impl Balancer for Haproxy {
    fn name(&self) -> &'static str {
        "HAProxy, keepalived"
    }

    fn ways(&self) -> Vec<Way> {
        plain_ways()
    }

    fn start(&mut self, segment: &Segment, servers: &[Server]) -> Result<()> {
        for node in segment.topology.members() {
            self.launch(segment, node, servers)?;
        }
        start_keepalived(&mut self.keepalived, segment)
    }

    fn owner(&mut self, segment: &Segment) -> Result<Option<String>> {
        holder(segment)
    }

    fn settle(&mut self, _: &Segment, _flows: usize, _anew: Option<&str>) -> Result<()> {
        std::thread::sleep(SETTLE);
        Ok(())
    }

    fn change(&mut self, segment: &Segment, servers: &[Server]) -> Result<()> {
        for (node, process) in &self.processes {
            self.write(segment, node, servers)?;
            // A reload: who is connected stays with the process that was there before.
            process.signal(Signal::SIGUSR2)?;
        }
        std::thread::sleep(SETTLE);
        Ok(())
    }

    fn power_off(&mut self, segment: &Segment, node: &str) -> Result<()> {
        self.processes.remove(node);
        Fault::PowerOff.inject(segment, &mut self.keepalived, node).map(drop)
    }

    fn come_back(&mut self, segment: &Segment, node: &str, servers: &[Server]) -> Result<()> {
        self.launch(segment, node, servers)?;
        come_back(&mut self.keepalived, segment, node)
    }

    fn leave(&mut self, _segment: &Segment, node: &str) -> Result<()> {
        self.keepalived.process(node)?.signal(Signal::SIGTERM)
    }
}

impl Conntrackd {
    /// An error says what to install.
    pub fn new(segment: &Segment) -> Result<Self> {
        let program = command::require("conntrackd", "apt-get install conntrackd")?;
        let keepalived = keepalived(segment)?.with_owner_hooks(segment.folder());
        Ok(Self { keepalived, program, processes: BTreeMap::new() })
    }

    /// What its guide has for the node that becomes the owner: it reads what its kernel knows, with what it was
    /// told, and tells all of it to the others.
    fn write_hook(&self, segment: &Segment, node: &str, config: &Path) -> Result<()> {
        let line = format!("{} -C {}", self.program.display(), config.display());
        let hook = write(
            segment,
            &format!("owner-{node}"),
            &format!("#!/bin/sh\n{line} -R\n{line} -B\n"),
        )?;
        let may_run = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(hook, may_run).map_err(Error::system("make a hook a program"))
    }

    fn launch(&mut self, segment: &Segment, node: &str, servers: &[Server]) -> Result<()> {
        let inside = segment.inside(node)?;
        inside.sysctl("ipv4.ip_forward", "1")?;
        inside.sysctl("ipv4.conf.all.send_redirects", "0")?;
        inside.sysctl("ipv4.conf.eth0.send_redirects", "0")?;
        inside.nft(&ruleset(servers)?)?;
        // Its guide asks for it: a connection that comes back from another node is not out of window.
        inside.sysctl("netfilter.nf_conntrack_tcp_be_liberal", "1")?;
        let config = sync_config(segment, node)?;
        for leftover in ["lock", "ctl"] {
            // What a killed daemon leaves would keep a new one from starting.
            let _none =
                std::fs::remove_file(segment.file(&format!("conntrackd-{node}.{leftover}")));
        }
        self.write_hook(segment, node, &config)?;
        let mut command = Command::new(&self.program);
        command.arg("-C").arg(config);
        let log = segment.file(&format!("conntrackd-{node}.log"));
        self.processes.insert(node.to_owned(), Process::start(inside, command, &log)?);
        Ok(())
    }

    /// Has the conntrackd of a node do something.
    fn order(&self, segment: &Segment, node: &str, order: &str) -> Result<()> {
        let config = segment.file(&format!("conntrackd-{node}.conf"));
        let config = config.to_string_lossy().into_owned();
        let words = ["-C", &config, order];
        segment.inside(node)?.enter(|| command::run(&self.program, &words, ""))?.map(drop)
    }
}

impl Balancer for Conntrackd {
    fn name(&self) -> &'static str {
        "nftables, conntrackd, keepalived"
    }

    fn ways(&self) -> Vec<Way> {
        plain_ways()
    }

    fn start(&mut self, segment: &Segment, servers: &[Server]) -> Result<()> {
        for node in segment.topology.members() {
            self.launch(segment, node, servers)?;
        }
        start_keepalived(&mut self.keepalived, segment)
    }

    fn owner(&mut self, segment: &Segment) -> Result<Option<String>> {
        holder(segment)
    }

    fn settle(&mut self, segment: &Segment, _flows: usize, anew: Option<&str>) -> Result<()> {
        if let Some(node) = anew {
            // As its guide has it for a node that comes back: the others tell it what they know.
            self.order(segment, node, "-n")?;
        }
        std::thread::sleep(SETTLE);
        Ok(())
    }

    fn change(&mut self, segment: &Segment, servers: &[Server]) -> Result<()> {
        for node in self.processes.keys() {
            segment.inside(node)?.nft(&ruleset(servers)?)?;
        }
        Ok(())
    }

    fn power_off(&mut self, segment: &Segment, node: &str) -> Result<()> {
        self.processes.remove(node);
        Fault::PowerOff.inject(segment, &mut self.keepalived, node).map(drop)
    }

    fn come_back(&mut self, segment: &Segment, node: &str, servers: &[Server]) -> Result<()> {
        come_back(&mut self.keepalived, segment, node)?;
        self.launch(segment, node, servers)?;
        let started = || Ok(self.order(segment, node, "-s").is_ok());
        wait_until(START_MAX, "conntrackd to start", started)?;
        // A host that boots knows no connection.
        self.order(segment, node, "-F")
    }

    fn leave(&mut self, _segment: &Segment, node: &str) -> Result<()> {
        self.keepalived.process(node)?.signal(Signal::SIGTERM)
    }
}

fn keepalived(segment: &Segment) -> Result<Keepalived> {
    let keepalived = Keepalived::with_instances(ADVERTISEMENTS, vec![vec![(VIP, 24)]])?;
    Ok(keepalived.on(segment.topology.members()))
}

fn start_keepalived(keepalived: &mut Keepalived, segment: &Segment) -> Result<()> {
    let nodes = keepalived.nodes();
    nodes.iter().try_for_each(|node| keepalived.start(segment, node))?;
    wait_until(START_MAX, "keepalived to be ready", || {
        Ok(nodes.iter().all(|node| keepalived.is_ready(node)))
    })
    .map(drop)
}

fn come_back(keepalived: &mut Keepalived, segment: &Segment, node: &str) -> Result<()> {
    Fault::PowerOff.heal(segment, keepalived, node)?;
    wait_until(START_MAX, "keepalived to be ready", || Ok(keepalived.is_ready(node))).map(drop)
}

/// The one node with a carrier that has the VIP.
fn holder(segment: &Segment) -> Result<Option<String>> {
    let mut holders = Vec::new();
    for node in segment.topology.members() {
        let inside = segment.inside(node)?;
        let has_it = inside.ip("-oneline addr show dev eth0")?.contains(&format!(" {VIP}/"));
        if has_it && inside.ip("link show eth0")?.contains("LOWER_UP") {
            holders.push(node.to_owned());
        }
    }
    Ok(if holders.len() == 1 { holders.pop() } else { None })
}

fn write(segment: &Segment, name: &str, text: &str) -> Result<PathBuf> {
    let path = segment.file(name);
    std::fs::write(&path, text).map_err(Error::system(format!("write {}", path.display())))?;
    Ok(path)
}

/// New connections go to the servers by the client's address and port; servers see the VIP.
fn ruleset(servers: &[Server]) -> Result<String> {
    let mut taking: Vec<Ipv4Addr> = Vec::new();
    for (name, weight) in servers {
        if *weight != 0 {
            taking.push(address(name)?);
        }
    }
    let map: Vec<String> =
        (0..).zip(&taking).map(|(n, at): (u32, _)| format!("{n} : {at}")).collect();
    let all: Result<Vec<String>> =
        SERVERS.iter().map(|name| Ok(address(name)?.to_string())).collect();
    Ok(format!(
        "table ip balance {{}}\nflush table ip balance\ntable ip balance {{\n  chain in {{\n    type nat hook \
         prerouting priority dstnat;\n    ip daddr {VIP} tcp dport {{ {ECHO_PORT}, {HTTP_PORT} }} dnat to jhash ip \
         saddr . tcp sport mod {} map {{ {} }}\n  }}\n  chain out {{\n    type nat hook postrouting priority \
         srcnat;\n    ip daddr {{ {} }} ct status dnat snat to {VIP}\n  }}\n}}\n",
        taking.len(),
        map.join(", "),
        all?.join(", ")
    ))
}

/// Every node tells all others what it sees, and puts what it is told into its kernel at once.
fn sync_config(segment: &Segment, node: &str) -> Result<PathBuf> {
    let mut ignored = "IPv4_address 127.0.0.1\n".to_owned();
    for name in segment.topology.members() {
        let _infallible = writeln!(ignored, "      IPv4_address {}", segment.host(name)?.ipv4());
    }
    let own = segment.host(node)?.ipv4();
    let folder = segment.folder().display();
    let text = format!(
        "Sync {{\n  Mode NOTRACK {{\n    DisableExternalCache on\n    StartupResync on\n  }}\n  Multicast {{\n    IPv4_address \
         225.0.0.50\n    Group 3780\n    IPv4_interface {own}\n    Interface eth0\n    SndSocketBuffer 1249280\n    \
         RcvSocketBuffer 1249280\n    Checksum on\n  }}\n}}\nGeneral {{\n  HashSize 8192\n  HashLimit 65535\n  \
         LogFile off\n  LockFile {folder}/conntrackd-{node}.lock\n  UNIX {{\n    Path {folder}/conntrackd-{node}.ctl\n  }}\n  \
         NetlinkBufferSize 2097152\n  NetlinkBufferSizeMaxGrowth 8388608\n  Filter From Userspace {{\n    \
         Protocol Accept {{\n      TCP\n    }}\n    Address Ignore {{\n      {ignored}    }}\n  }}\n}}\n"
    );
    write(segment, &format!("conntrackd-{node}.conf"), &text)
}
