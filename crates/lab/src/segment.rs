//! A built topology: namespaces, switch, backends that serve, and a folder for its files.

use crate::backend::{Backend, EchoServer};
use crate::namespace::Namespace;
use crate::switch::{Switch, unknown_host};
use crate::topology::{Host, Role, Topology, ipv4, ipv6};
use crate::{Error, Result, namespace};
use buoy_kernel::offload::{self, Offload};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The port that every echo speaks on (RFC 862).
pub const ECHO_PORT: u16 = 7;
/// The port of the echo that runs on the nodes themselves, for VIPs without a service.
pub const LOCAL_PORT: u16 = 9;
/// The port of the web servers.
pub const HTTP_PORT: u16 = 80;
/// The port where a backend expects a PROXY header before HTTP.
pub const PROXY_PORT: u16 = 8080;

/// The lab as it stands.
#[derive(Debug)]
pub struct Segment {
    /// What was built.
    pub topology: Topology,
    /// Where cables are cut.
    pub switch: Switch,
    backends: Vec<Backend>,
    echoes: Vec<EchoServer>,
    // Last, because the servers above live inside.
    hosts: Vec<Namespace>,
    folder: TempDir,
}

impl Segment {
    /// Builds it under the pid of this process; `note` hears of each step.
    pub fn build(topology: Topology, note: &mut dyn FnMut(&str)) -> Result<Self> {
        // Tests of one process may stand side by side.
        static BUILT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let nth = BUILT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let pid = std::process::id();
        let run = if nth == 0 { pid.to_string() } else { format!("{pid}-{nth}") };
        Self::build_as(&run, topology, note)
    }

    /// Builds it under another name, which no sweep takes for that of a process.
    pub fn build_as(run: &str, topology: Topology, note: &mut dyn FnMut(&str)) -> Result<Self> {
        namespace::sweep();
        let folder = namespace::folder(run)?;
        note("switch");
        let switch = Switch::create(run)?;
        let mut hosts = Vec::new();
        for host in &topology.hosts {
            note(host.name);
            let inside = Namespace::create(run, host.name)?;
            hosts.push(inside);
        }
        note("cables");
        switch.connect(&topology, &hosts)?;
        let mut segment =
            Self { topology, switch, backends: Vec::new(), echoes: Vec::new(), hosts, folder };
        note("servers");
        segment.start_servers()?;
        Ok(segment)
    }

    fn start_servers(&mut self) -> Result<()> {
        for (host, inside) in self.topology.hosts.iter().zip(&self.hosts) {
            match host.role {
                Role::Backend => self.backends.push(Backend::start(inside, host)?),
                Role::Node => {
                    let at = [IpAddr::from(ipv4(100)), ipv4(101).into(), ipv6(100).into()];
                    let at = at.map(|ip| SocketAddr::new(ip, LOCAL_PORT));
                    self.echoes.push(EchoServer::start(inside, host.name, &at)?);
                }
                Role::Witness | Role::Client | Role::Observer => {}
            }
        }
        Ok(())
    }

    /// Makes cables that XDP works over: both ends compute their checksums, and take what XDP sends.
    pub fn suit_xdp(&self) -> Result<()> {
        let suit = |inside: &Namespace, interface: &str| {
            inside
                .enter(|| {
                    offload::set(interface, Offload::Gather, true)?;
                    offload::set(interface, Offload::SendChecksums, false)
                })?
                .map_err(Error::system(format!("make {interface} one for XDP")))
        };
        for (host, inside) in self.topology.hosts.iter().zip(&self.hosts) {
            suit(inside, "eth0")?;
            suit(self.switch.namespace(), host.name)?;
        }
        Ok(())
    }

    /// A folder of its own, removed with the lab.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in that folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The host of that name.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.topology.hosts.iter().find(|h| h.name == name).ok_or_else(|| unknown_host(name))
    }

    /// The namespace of that host.
    pub fn inside(&self, name: &str) -> Result<&Namespace> {
        let place = self.topology.hosts.iter().position(|h| h.name == name);
        place.and_then(|i| self.hosts.get(i)).ok_or_else(|| unknown_host(name))
    }

    /// The servers of that backend.
    pub fn backend(&mut self, name: &str) -> Result<&mut Backend> {
        self.backends.iter_mut().find(|b| b.name() == name).ok_or_else(|| unknown_host(name))
    }
}
