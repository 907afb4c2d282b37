//! Drives the real agent: its file and key, its process, and what it says over its socket.

use crate::fault::END_MAX;
use crate::peer::Peer;
use crate::process::{Process, wait_until};
use crate::segment::Segment;
use crate::topology::{Host, Role, Topology};
use crate::{Error, Result};
use buoy_api::{Client, ClientError, ClusterStatus};
use buoy_model::limits::LEASE_WITHOUT_GATE;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long an agent may take to answer after its start.
pub const START_MAX: Duration = Duration::from_secs(10);
/// A key that protects nothing but this lab.
const KEY: &str = "6275 6f79 6c61 6221 0001 0203 0405 0607 0809 0a0b 0c0d 0e0f 1011 1213 1415 1617";

/// Buoy on some nodes.
#[derive(Debug)]
pub struct Buoy {
    name: String,
    program: PathBuf,
    folder: PathBuf,
    nodes: Vec<&'static str>,
    exclusive: bool,
    agents: BTreeMap<String, (Process, Instant)>,
    /// Made once: what an order costs to prepare is no part of how fast it is carried out.
    clients: BTreeMap<String, Client>,
    /// A command that the agents are started through, as in `unshare --mount`; it must end in an
    /// `exec` of its arguments, so that signals reach the agent.
    pub through: Vec<String>,
}

impl Buoy {
    /// On all nodes of the segment, with one file for all of them.
    pub fn new(segment: &Segment, config: &str) -> Result<Self> {
        let buoy = Self {
            name: "buoy".to_owned(),
            program: program()?,
            folder: segment.folder().to_owned(),
            nodes: segment.topology.members(),
            exclusive: true,
            agents: BTreeMap::new(),
            clients: BTreeMap::new(),
            through: Vec::new(),
        };
        for node in &buoy.nodes {
            let folder = buoy.folder.join(node);
            std::fs::create_dir_all(&folder).map_err(Error::system("make a folder"))?;
            buoy.write_key(node, &KEY.replace(' ', ""))?;
            buoy.write_config(node, config)?;
        }
        Ok(buoy)
    }

    /// Lets two owners pass: the configuration says `safety = "available"`.
    #[must_use]
    pub fn available(mut self) -> Self {
        self.exclusive = false;
        self
    }

    /// Starts all agents and waits until each answers.
    pub fn start_all(&mut self, segment: &Segment) -> Result<()> {
        for node in self.nodes.clone() {
            self.launch(segment, node)?;
        }
        for node in self.nodes.clone() {
            self.wait_answer(node)?;
        }
        Ok(())
    }

    /// Starts an agent without waiting for its answer.
    pub fn launch(&mut self, segment: &Segment, node: &str) -> Result<()> {
        self.agents.remove(node);
        let mut command = match self.through.split_first() {
            None => Command::new(&self.program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.program);
                command
            }
        };
        command.arg("agent").arg("--config").arg(self.config(node));
        command.arg("--socket").arg(self.socket(node));
        let process = Process::start(segment.inside(node)?, command, &self.log(node))?;
        self.agents.insert(node.to_owned(), (process, Instant::now()));
        Ok(())
    }

    /// Waits until the agent answers over its socket, or says how it ended.
    pub fn wait_answer(&mut self, node: &str) -> Result<()> {
        let log = self.log(node);
        let late = |_| Error::Late {
            awaited: format!("an answer of the agent of {node}"),
            log: Some(log.clone()),
        };
        let client = self.client(node)?;
        let agent = self.process(node)?;
        wait_until(START_MAX, "", || {
            if !agent.is_running() {
                return Err(Error::Agent { node: node.to_owned(), said: agent.output() });
            }
            Ok(client.status().is_ok())
        })
        .map(drop)
        .map_err(|error| if let Error::Late { .. } = error { late(error) } else { error })
    }

    /// What the agent of a node knows.
    pub fn status(&self, node: &str) -> Result<ClusterStatus> {
        self.client(node)?.status().map_err(refused(node))
    }

    /// A client of the agent of a node.
    pub fn client(&self, node: &str) -> Result<Client> {
        Client::connect(self.socket(node)).map_err(refused(node))
    }

    /// Waits until a node's status looks as it should.
    pub fn wait_status(
        &self,
        node: &str,
        at_most: Duration,
        awaited: &str,
        condition: impl Fn(&ClusterStatus) -> bool,
    ) -> Result<ClusterStatus> {
        let mut seen = None;
        let client = self.client(node)?;
        wait_until(at_most, &format!("{awaited}, as {node} sees it"), || {
            seen = client.status().ok().filter(|status| condition(status));
            Ok(seen.is_some())
        })?;
        seen.ok_or(Error::Unknown { what: "status".to_owned() })
    }

    /// Who owns a VIP in the eyes of a node.
    pub fn owner(&self, node: &str, vip: &str) -> Option<String> {
        let status = self.status(node).ok()?;
        status.vips.into_iter().find(|v| v.name == vip)?.owner
    }

    /// Replaces the file of a node; the agent is not told.
    pub fn write_config(&self, node: &str, text: &str) -> Result<()> {
        std::fs::write(self.config(node), text).map_err(Error::system("write the configuration"))
    }

    /// Replaces the key of a node.
    pub fn write_key(&self, node: &str, digits: &str) -> Result<()> {
        let path = self.folder.join(node).join("cluster.key");
        let mut file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::system(format!("open {}", path.display())))?;
        std::io::Write::write_all(&mut file, format!("{digits}\n").as_bytes())
            .map_err(Error::system("write the key"))
    }

    /// Ends all agents in order: what they leave behind when they are killed fences their addresses on.
    pub fn end(mut self) -> Result<()> {
        for (process, _) in self.agents.values() {
            process.signal(Signal::SIGTERM)?;
        }
        self.agents.values_mut().try_for_each(|(process, _)| process.wait_end(END_MAX).map(drop))
    }

    /// Asks an agent to read its file again, as `systemctl reload` does.
    pub fn reload(&mut self, node: &str) -> Result<()> {
        self.process(node)?.signal(Signal::SIGHUP)
    }

    /// Where a node's file is.
    pub fn config(&self, node: &str) -> PathBuf {
        self.folder.join(node).join("buoy.toml")
    }

    /// Where a node's agent listens.
    pub fn socket(&self, node: &str) -> PathBuf {
        self.folder.join(format!("{node}.sock"))
    }

    /// Where a node's agent writes its log.
    pub fn log(&self, node: &str) -> PathBuf {
        self.folder.join(format!("{node}.log"))
    }

    /// The binary that is tested.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

impl Peer for Buoy {
    fn name(&self) -> &str {
        &self.name
    }

    fn nodes(&self) -> Vec<&'static str> {
        self.nodes.clone()
    }

    fn start(&mut self, segment: &Segment, node: &str) -> Result<()> {
        self.launch(segment, node)?;
        self.wait_answer(node)
    }

    fn process(&mut self, node: &str) -> Result<&mut Process> {
        let agent = self.agents.get_mut(node).map(|(process, _)| process);
        agent.ok_or_else(|| Error::Unknown { what: format!("agent on {node}") })
    }

    fn protocol_process(&mut self, node: &str) -> Result<Pid> {
        Ok(Pid::from_raw(self.process(node)?.pid().cast_signed()))
    }

    fn drain(&mut self, node: &str, out: bool) -> Result<bool> {
        if !self.clients.contains_key(node) {
            self.clients.insert(node.to_owned(), self.client(node)?);
        }
        let Some(client) = self.clients.get(node) else { return Ok(false) };
        let done = if out { client.drain(Some("lab".to_owned())) } else { client.undrain(None) };
        done.map(|_reply| true).map_err(refused(node))
    }

    fn is_ready(&mut self, node: &str) -> bool {
        let all = self.nodes.len();
        let since = self.agents.get(node).map(|(_, since)| since.elapsed()).unwrap_or_default();
        // A voter that has just started grants nothing for the longest term it may have promised.
        let votes = LEASE_WITHOUT_GATE + Duration::from_millis(300) < since;
        votes
            && self.status(node).is_ok_and(|status| {
                let mut candidates = status.vips.iter().flat_map(|vip| &vip.candidates);
                status.draining.is_none()
                    && status.nodes.iter().all(|n| n.votes_in_ms.is_none())
                    && status.nodes.iter().filter(|n| n.me || (n.alive && n.hears_us)).count()
                        == all
                    && !candidates.any(|c| c.node == node && c.standing == "excluded")
                    && !sees_a_backend_down(&status)
            })
    }

    fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    fn why(&mut self, node: &str, vip: Ipv4Addr) -> Option<String> {
        self.client(node).ok()?.why(&vip.to_string()).ok().map(|reply| reply.answer)
    }
}

/// The head of every configuration of the lab: all members of a topology over IPv4, and the key.
pub fn config_head(topology: &Topology) -> String {
    let table = |role: Role| {
        let of_role = topology.hosts.iter().filter(|host| host.role == role);
        of_role.map(|host| member(topology, host)).collect::<Vec<_>>().join(", ")
    };
    let (peers, witness) = (table(Role::Node), table(Role::Witness));
    let witness = match witness.is_empty() {
        true => String::new(),
        false => format!("witness = {{ {witness} }}\n"),
    };
    format!("peers = {{ {peers} }}\n{witness}secret = \"file:cluster.key\"\n")
}

fn member(topology: &Topology, host: &Host) -> String {
    let (name, first, second) = (host.name, host.ipv4(), host.second_ipv4());
    match topology.second_network {
        true => format!("{name} = [\"{first}\", \"{second}\"]"),
        false => format!("{name} = \"{first}\""),
    }
}

/// The `buoy` to test: `BUOY_BIN`, this very program, or the one that was built beside it.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BUOY_BIN") {
        return Ok(path.into());
    }
    let this = std::env::current_exe().map_err(Error::system("find this program"))?;
    let beside = this.ancestors().skip(1).take(3).map(|folder| folder.join("buoy"));
    beside.into_iter().find(|file| file.is_file()).ok_or(Error::Missing {
        program: "buoy".to_owned(),
        remedy: "build it first (cargo build -p buoy-cli), or name it in BUOY_BIN",
    })
}

/// After a cut a node's checks take a while to find the backends well again.
fn sees_a_backend_down(status: &ClusterStatus) -> bool {
    let services = status.vips.iter().flat_map(|vip| &vip.services);
    services.flat_map(|service| &service.backends).any(|backend| backend.state == "down")
}

fn refused(node: &str) -> impl Fn(ClientError) -> Error {
    let node = node.to_owned();
    move |error| Error::Agent { node: node.clone(), said: error.to_string() }
}
