//! The systems that are compared: each in a namespace of its own between clients and backends.
//!
//! ```text
//!   clients 10.N.1.1 --- 10.N.1.2 [ balancer, VIP 10.N.1.100 ] 10.N.2.2 --- 10.N.2.1 backends
//! ```

use super::{bare, load};
use crate::namespace::Namespace;
use crate::process::{Process, wait_until};
use crate::{Error, Result, agent, command};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// The port of every service.
const PORT: u16 = 80;
/// The ports of the backends, so that a balancer has enough of its own towards them.
const BACKENDS: std::ops::Range<u16> = 9001..9009;
const START_MAX: Duration = Duration::from_secs(20);

/// What is compared.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum System {
    /// Nothing between: what the load itself can do.
    Routed,
    Proxy,
    Haproxy,
    Nginx,
    Bare,
    Kernel,
    Nftables,
}

impl System {
    pub(super) const ALL: [Self; 7] = [
        Self::Routed,
        Self::Proxy,
        Self::Haproxy,
        Self::Nginx,
        Self::Bare,
        Self::Kernel,
        Self::Nftables,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Routed => "no balancer",
            Self::Proxy => "Buoy, mode \"proxy\"",
            Self::Haproxy => "HAProxy, mode tcp",
            Self::Nginx => "nginx, stream",
            Self::Bare => "A bare loop",
            Self::Kernel => "Buoy, mode \"kernel\"",
            Self::Nftables => "nftables by hand",
        }
    }

    /// Whether it ends connections itself, and so holds memory for each that can be measured.
    pub(super) const fn is_proxy(self) -> bool {
        match self {
            Self::Proxy | Self::Haproxy | Self::Nginx => true,
            Self::Routed | Self::Bare | Self::Kernel | Self::Nftables => false,
        }
    }

    fn is_there(self) -> bool {
        match self {
            Self::Routed | Self::Proxy | Self::Bare | Self::Kernel | Self::Nftables => true,
            Self::Haproxy => command::find("haproxy").is_some(),
            Self::Nginx => command::find("nginx").is_some() && stream_module().exists(),
        }
    }

    fn number(self) -> u8 {
        101 + self as u8
    }

    fn address(self, side: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number(), side, host)
    }

    fn vip(self) -> Ipv4Addr {
        self.address(1, 100)
    }

    /// What its clients connect to.
    pub(super) fn target(self) -> SocketAddr {
        match self {
            Self::Routed => self.backends()[0],
            Self::Proxy
            | Self::Haproxy
            | Self::Nginx
            | Self::Bare
            | Self::Kernel
            | Self::Nftables => SocketAddr::new(self.vip().into(), PORT),
        }
    }

    fn backends(self) -> Vec<SocketAddr> {
        BACKENDS.map(|port| SocketAddr::new(self.address(2, 1).into(), port)).collect()
    }
}

fn stream_module() -> PathBuf {
    "/usr/lib/nginx/modules/ngx_stream_module.so".into()
}

/// One system as it stands.
pub(super) struct Stand {
    pub(super) system: System,
    process: Option<Process>,
    _bare: Option<Threads>,
    _inside: Namespace,
}

/// All of them, with the load on both sides.
pub(super) struct Field {
    pub(super) stands: Vec<Stand>,
    pub(super) clients: Namespace,
    /// What is not installed here.
    pub(super) missing: Vec<System>,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<Result<()>>>,
    // Last, because the servers live inside.
    _backends: Namespace,
}

impl Field {
    /// `connections`: how many each system is told that it may have; `only`: words of names, none for all.
    pub(super) fn build(folder: &Path, connections: usize, only: &[String]) -> Result<Self> {
        let run = std::process::id().to_string();
        let clients = Namespace::create(&run, "clients")?;
        let backends = Namespace::create(&run, "backends")?;
        let (there, missing): (Vec<System>, Vec<System>) =
            wanted(only).partition(|system| system.is_there());
        let mut insides = Vec::new();
        for &system in &there {
            let inside = Namespace::create(&run, &format!("balancer{}", system.number()))?;
            connect(system, (&clients, 1), &inside)?;
            connect(system, (&backends, 2), &inside)?;
            ready(&inside)?;
            insides.push((system, inside));
        }
        ready(&clients)?;
        ready(&backends)?;
        let stop = Arc::new(AtomicBool::new(false));
        let at: Vec<SocketAddr> =
            BACKENDS.map(|port| (Ipv4Addr::UNSPECIFIED, port).into()).collect();
        let told = Arc::clone(&stop);
        let server = backends.spawn("backends", move || load::serve(&at, &told))?;
        let mut field = Self {
            stands: Vec::new(),
            clients,
            missing,
            stop,
            server: Some(server),
            _backends: backends,
        };
        for (system, inside) in insides {
            field.stands.push(Stand::start(system, inside, (folder, connections))?);
        }
        for stand in &field.stands {
            stand.wait(&field.clients)?;
        }
        Ok(field)
    }
}

/// The systems whose name has one of these words; without any: all.
fn wanted(only: &[String]) -> impl Iterator<Item = System> {
    let is_meant = |system: &System| {
        only.is_empty() || only.iter().any(|word| system.name().contains(word.as_str()))
    };
    System::ALL.into_iter().filter(is_meant)
}

impl Drop for Field {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(Err(_) | Ok(Err(_))) = self.server.take().map(JoinHandle::join) {
            println!("The backends of the benchmark ended before it did.");
        }
    }
}

/// A cable from the balancer's `ethN` to a host's interface of the balancer's name.
fn connect(system: System, (host, side): (&Namespace, u8), inside: &Namespace) -> Result<()> {
    let there = format!("to{}", system.number());
    let here = format!("eth{}", side - 1);
    let (near, far) = (system.address(side, 2), system.address(side, 1));
    command::ip(&format!(
        "link add {here} netns {} type veth peer name {there} netns {}",
        inside.name(),
        host.name()
    ))?;
    for (at, name, address) in [(inside, &here, near), (host, &there, far)] {
        at.ip(&format!("address add {address}/24 dev {name}"))?;
        at.ip(&format!("link set {name} up"))?;
    }
    let other = 3 - side;
    host.ip(&format!("route add {}/24 via {near}", system.address(other, 0)))?;
    Ok(())
}

/// Ports for all connections, and those that were closed are used again.
fn ready(inside: &Namespace) -> Result<()> {
    inside.sysctl("ipv4.ip_local_port_range", "10000 65535")?;
    inside.sysctl("ipv4.tcp_tw_reuse", "1")?;
    inside.sysctl("ipv4.ip_forward", "1")?;
    inside.sysctl("core.somaxconn", "4096")
}

impl Stand {
    fn start(
        system: System,
        inside: Namespace,
        (folder, connections): (&Path, usize),
    ) -> Result<Self> {
        let folder = folder.join(system.number().to_string());
        std::fs::create_dir_all(&folder).map_err(Error::system("make a folder"))?;
        let mut bare = None;
        let process = match system {
            System::Routed => None,
            System::Bare => {
                bare = Some(Threads::start(system, &inside)?);
                None
            }
            System::Proxy => Some(buoy(system, ("proxy", connections), &inside, &folder)?),
            System::Kernel => Some(buoy(system, ("kernel", connections), &inside, &folder)?),
            System::Haproxy => Some(haproxy((system, connections), &inside, &folder)?),
            System::Nginx => Some(nginx((system, connections), &inside, &folder)?),
            System::Nftables => {
                inside.ip(&format!("address add {}/24 dev eth0", system.vip()))?;
                inside.nft(&ruleset(system))?;
                None
            }
        };
        Ok(Self { system, process, _bare: bare, _inside: inside })
    }

    /// Until a connection is answered.
    fn wait(&self, clients: &Namespace) -> Result<()> {
        let target = self.system.target();
        clients
            .enter(|| {
                wait_until(START_MAX, &format!("an answer of {}", self.system.name()), || {
                    let limit = Duration::from_millis(500);
                    Ok(TcpStream::connect_timeout(&target, limit)
                        .is_ok_and(|_| load::open(target, 1).is_ok()))
                })
            })?
            .map(drop)
            .map_err(|late| match &self.process {
                Some(process) => {
                    Error::Agent { node: self.system.name().to_owned(), said: process.output() }
                }
                None => late,
            })
    }

    /// Processor time of all its processes so far.
    pub(super) fn cpu_time(&self) -> Option<Duration> {
        self.process.as_ref().map(Process::cpu_time)
    }

    /// Memory that is resident in all its processes, in bytes.
    pub(super) fn memory(&self) -> Option<u64> {
        let process = self.process.as_ref()?;
        let mut pids = process.children();
        pids.push(process.pid());
        let of = |pid: u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        Some(pids.into_iter().filter_map(of).sum::<u64>() * 1024)
    }
}

/// The threads of the bare loop, as many as the other proxies have.
struct Threads {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Threads {
    fn start(system: System, inside: &Namespace) -> Result<Self> {
        inside.ip(&format!("address add {}/24 dev eth0", system.vip()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for _ in 0..2 {
            let (told, backends) = (Arc::clone(&stop), system.backends());
            let carry = move || bare::carry(system.target(), &backends, &told);
            threads.push(inside.spawn("bare loop", carry)?);
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            if let Err(_) | Ok(Err(_)) = thread.join() {
                println!("The bare loop ended before the benchmark did.");
            }
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::system(format!("write {}", path.display())))
}

fn buoy(
    system: System,
    (mode, connections): (&str, usize),
    inside: &Namespace,
    folder: &Path,
) -> Result<Process> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let key = folder.join("cluster.key");
    let file =
        std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&key);
    let mut file = file.map_err(Error::system("write the key"))?;
    std::io::Write::write_all(&mut file, format!("{}\n", "5a".repeat(32)).as_bytes())
        .map_err(Error::system("write the key"))?;
    let backends: Vec<String> = system.backends().iter().map(|b| format!("\"{b}\"")).collect();
    let limit = match mode {
        "proxy" => format!("max_connections = {connections}\n"),
        _ => String::new(),
    };
    let config = folder.join("buoy.toml");
    let text = format!(
        "peers = {{ n1 = \"{}\" }}\nsecret = \"file:cluster.key\"\n\n[[vip]]\naddress = \"{}/24\"\n\n\
         [[vip.service]]\nport = \"{PORT}/tcp\"\nmode = \"{mode}\"\n{limit}check = false\nbackends = [{}]\n",
        system.address(1, 2),
        system.vip(),
        backends.join(", ")
    );
    write(&config, &text)?;
    let mut command = Command::new(agent::program()?);
    command.arg("agent").arg("--config").arg(config).arg("--socket").arg(folder.join("buoy.sock"));
    Process::start(inside, command, &folder.join("log"))
}

fn haproxy(
    (system, connections): (System, usize),
    inside: &Namespace,
    folder: &Path,
) -> Result<Process> {
    inside.ip(&format!("address add {}/24 dev eth0", system.vip()))?;
    let config = folder.join("haproxy.cfg");
    let mut text = format!(
        "global\n  nbthread 2\n  maxconn {connections}\n\ndefaults\n  mode tcp\n  timeout connect 2s\n  \
         timeout client 5m\n  timeout server 5m\n  option splice-auto\n  balance roundrobin\n\n\
         listen web\n  bind {}:{PORT} backlog 4096\n  maxconn {connections}\n",
        system.vip()
    );
    for (number, backend) in system.backends().iter().enumerate() {
        let _infallible = writeln!(text, "  server s{number} {backend}");
    }
    write(&config, &text)?;
    let mut command = Command::new(command::require("haproxy", "apt-get install haproxy")?);
    command.arg("-db").arg("-f").arg(config);
    Process::start(inside, command, &folder.join("log"))
}

fn nginx(
    (system, connections): (System, usize),
    inside: &Namespace,
    folder: &Path,
) -> Result<Process> {
    inside.ip(&format!("address add {}/24 dev eth0", system.vip()))?;
    let config = folder.join("nginx.conf");
    let servers: Vec<String> = system.backends().iter().map(|b| format!("server {b};")).collect();
    let text = format!(
        "load_module {};\nuser root;\ndaemon off;\nworker_processes 2;\n\n\
         pid {folder}/pid;\nerror_log {folder}/error.log;\n\
         events {{ worker_connections {}; }}\n\
         stream {{\n  upstream web {{ {} }}\n  server {{\n    listen {}:{PORT} backlog=4096 reuseport;\n    \
         proxy_pass web;\n    tcp_nodelay on;\n  }}\n}}\n",
        stream_module().display(),
        2 * connections,
        servers.join(" "),
        system.vip(),
        folder = folder.display()
    );
    write(&config, &text)?;
    let mut command = Command::new(command::require("nginx", "apt-get install nginx-light")?);
    command.arg("-c").arg(config);
    Process::start(inside, command, &folder.join("log"))
}

/// The shortest that does the same: the client's address and port choose the backend, which sees the VIP.
fn ruleset(system: System) -> String {
    let backends = system.backends();
    let map: Vec<String> = backends
        .iter()
        .enumerate()
        .map(|(number, b)| format!("{number} : {} . {}", b.ip(), b.port()))
        .collect();
    let vip = system.vip();
    format!(
        "table ip balance {{\n  chain in {{\n    type nat hook prerouting priority dstnat;\n    \
         ip daddr {vip} tcp dport {PORT} dnat to jhash ip saddr . tcp sport mod {} map {{ {} }}\n  }}\n  \
         chain out {{\n    type nat hook postrouting priority srcnat;\n    \
         ip daddr {} ct status dnat snat to {vip}\n  }}\n}}\n",
        backends.len(),
        map.join(", "),
        system.address(2, 1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_names_choose_systems() {
        let names = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            wanted(&words).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), System::ALL);
        assert_eq!(names(&["kernel", "by hand"]), [System::Kernel, System::Nftables]);
        assert_eq!(names(&["Buoy"]), [System::Proxy, System::Kernel]);
        assert_eq!(names(&["nobody"]), []);
    }
}
