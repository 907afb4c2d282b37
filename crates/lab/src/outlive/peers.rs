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

/// What balances on a node, while keepalived says which node has the VIP.
pub trait Software {
    /// With keepalived, for tables.
    const NAME: &'static str;
    /// Starts it on a node, with what it needs there.
    fn start(&self, segment: &Segment, node: &str, servers: &[Server]) -> Result<Process>;
    /// Gives it other servers.
    fn change(
        &self,
        segment: &Segment,
        node: &str,
        process: &Process,
        servers: &[Server],
    ) -> Result<()>;
    /// What a node is told that comes back, and runs again.
    fn return_to(&self, segment: &Segment, node: &str) -> Result<()>;
    /// What it is told before another one leaves.
    fn catch_up(&self, segment: &Segment, node: &str) -> Result<()>;
}

/// Some software on all nodes, and keepalived for the VIP.
#[derive(Debug)]
pub struct Behind<S> {
    keepalived: Keepalived,
    software: S,
    processes: BTreeMap<String, Process>,
}

impl<S: Software> Behind<S> {
    fn launch(&mut self, segment: &Segment, node: &str, servers: &[Server]) -> Result<()> {
        let process = self.software.start(segment, node, servers)?;
        self.processes.insert(node.to_owned(), process);
        Ok(())
    }

    /// Until no daemon has only just started.
    fn wait_ready(&mut self, nodes: &[&str]) -> Result<()> {
        wait_until(START_MAX, "keepalived to be ready", || {
            Ok(nodes.iter().all(|node| self.keepalived.is_ready(node)))
        })
        .map(drop)
    }
}

impl<S: Software> Balancer for Behind<S> {
    const NAME: &'static str = S::NAME;

    fn ways(&self) -> Vec<Way> {
        plain_ways()
    }

    fn start(&mut self, segment: &Segment, servers: &[Server]) -> Result<()> {
        let nodes = self.keepalived.nodes();
        for node in &nodes {
            self.launch(segment, node, servers)?;
            self.keepalived.start(segment, node)?;
        }
        self.wait_ready(&nodes)
    }

    fn owner(&mut self, segment: &Segment) -> Result<Option<String>> {
        holder(segment)
    }

    fn settle(&mut self, segment: &Segment, _flows: usize, anew: Option<&str>) -> Result<()> {
        if let Some(node) = anew {
            self.software.catch_up(segment, node)?;
        }
        std::thread::sleep(SETTLE);
        Ok(())
    }

    fn change(&mut self, segment: &Segment, servers: &[Server]) -> Result<()> {
        for (node, process) in &self.processes {
            self.software.change(segment, node, process, servers)?;
        }
        std::thread::sleep(SETTLE);
        Ok(())
    }

    fn power_off(&mut self, segment: &Segment, node: &str) -> Result<()> {
        self.processes.remove(node);
        Fault::PowerOff.inject(segment, &mut self.keepalived, node).map(drop)
    }

    fn come_back(&mut self, segment: &Segment, node: &str, servers: &[Server]) -> Result<()> {
        Fault::PowerOff.heal(segment, &mut self.keepalived, node)?;
        self.launch(segment, node, servers)?;
        self.software.return_to(segment, node)?;
        self.wait_ready(&[node])
    }

    fn leave(&mut self, _segment: &Segment, node: &str) -> Result<()> {
        self.keepalived.process(node)?.signal(Signal::SIGTERM)
    }
}

/// HAProxy.
#[derive(Debug)]
pub struct Haproxy(PathBuf);

impl Haproxy {
    /// Behind keepalived; an error says what to install.
    pub fn behind(segment: &Segment) -> Result<Behind<Self>> {
        let software = Self(command::require("haproxy", "apt-get install haproxy")?);
        Ok(Behind { keepalived: keepalived(segment)?, software, processes: BTreeMap::new() })
    }

    fn write(segment: &Segment, node: &str, servers: &[Server]) -> Result<PathBuf> {
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
}

impl Software for Haproxy {
    const NAME: &'static str = "HAProxy, keepalived";

    fn start(&self, segment: &Segment, node: &str, servers: &[Server]) -> Result<Process> {
        let inside = segment.inside(node)?;
        // It listens on an address that the node has not got yet.
        inside.sysctl("ipv4.ip_nonlocal_bind", "1")?;
        let config = Self::write(segment, node, servers)?;
        let mut command = Command::new(&self.0);
        command.args(["-W", "-db", "-f"]).arg(config);
        Process::start(inside, command, &segment.file(&format!("haproxy-{node}.log")))
    }

    fn change(
        &self,
        segment: &Segment,
        node: &str,
        process: &Process,
        servers: &[Server],
    ) -> Result<()> {
        Self::write(segment, node, servers)?;
        // A reload: who is connected stays with the process that was there before.
        process.signal(Signal::SIGUSR2)
    }

    fn return_to(&self, _segment: &Segment, _node: &str) -> Result<()> {
        Ok(())
    }

    fn catch_up(&self, _segment: &Segment, _node: &str) -> Result<()> {
        // It knows nothing of the connections of others.
        Ok(())
    }
}

/// nftables, which translates to the servers, and conntrackd, which tells the other nodes.
#[derive(Debug)]
pub struct Conntrackd(PathBuf);

impl Conntrackd {
    /// Behind keepalived; an error says what to install.
    pub fn behind(segment: &Segment) -> Result<Behind<Self>> {
        let software = Self(command::require("conntrackd", "apt-get install conntrackd")?);
        let keepalived = keepalived(segment)?.with_owner_hooks(segment.folder());
        Ok(Behind { keepalived, software, processes: BTreeMap::new() })
    }

    /// What its guide has for the node that becomes the owner: it reads what its kernel knows, with what it was
    /// told, and tells all of it to the others.
    fn write_hook(&self, segment: &Segment, node: &str, config: &Path) -> Result<()> {
        let line = format!("{} -C {}", self.0.display(), config.display());
        let text = format!("#!/bin/sh\n{line} -R\n{line} -B\n");
        let hook = write(segment, &format!("owner-{node}"), &text)?;
        let may_run = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(hook, may_run).map_err(Error::system("make a hook a program"))
    }

    /// Has the conntrackd of a node do something.
    fn order(&self, segment: &Segment, node: &str, order: &str) -> Result<()> {
        let config = segment.file(&format!("conntrackd-{node}.conf"));
        let config = config.to_string_lossy().into_owned();
        let words = ["-C", &config, order];
        segment.inside(node)?.enter(|| command::run(&self.0, &words, ""))?.map(drop)
    }
}

impl Software for Conntrackd {
    const NAME: &'static str = "nftables, conntrackd, keepalived";

    fn start(&self, segment: &Segment, node: &str, servers: &[Server]) -> Result<Process> {
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
        let mut command = Command::new(&self.0);
        command.arg("-C").arg(config);
        Process::start(inside, command, &segment.file(&format!("conntrackd-{node}.log")))
    }

    fn change(
        &self,
        segment: &Segment,
        node: &str,
        _process: &Process,
        servers: &[Server],
    ) -> Result<()> {
        segment.inside(node)?.nft(&ruleset(servers)?).map(drop)
    }

    fn return_to(&self, segment: &Segment, node: &str) -> Result<()> {
        let started = || Ok(self.order(segment, node, "-s").is_ok());
        wait_until(START_MAX, "conntrackd to start", started)?;
        // A host that boots knows no connection.
        self.order(segment, node, "-F")
    }

    fn catch_up(&self, segment: &Segment, node: &str) -> Result<()> {
        // As its guide has it for a node that comes back: the others tell it what they know.
        self.order(segment, node, "-n")
    }
}

fn keepalived(segment: &Segment) -> Result<Keepalived> {
    let keepalived = Keepalived::with_instances(ADVERTISEMENTS, vec![vec![(VIP, 24)]])?;
    Ok(keepalived.on(segment.topology.members()))
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
