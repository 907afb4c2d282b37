//! A cluster of real agents for one test, with the logs shown when the test fails.

#![allow(dead_code, reason = "each file of tests uses a part of it")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what is wrong")]

pub(crate) mod servers;

use buoy_lab::agent::{self, Buoy};
use buoy_lab::peer::Peer;
use buoy_lab::probe::Window;
use buoy_lab::probe::arp::ArpObserver;
use buoy_lab::probe::http::{Figures, HttpProbe};
use buoy_lab::process::wait_until;
use buoy_lab::segment::Segment;
use buoy_lab::topology::Topology;
use buoy_lab::trial::Session;
use buoy_lab::{privilege, skip};
use nix::unistd::Pid;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// One millisecond.
pub(crate) const MS: Duration = Duration::from_millis(1);
/// How long anything may take that should take far less.
pub(crate) const SOON: Duration = Duration::from_secs(15);
/// The VIP of most tests.
pub(crate) const VIP: Ipv4Addr = buoy_lab::topology::ipv4(100);
/// One VIP that its owner serves itself.
pub(crate) const LOCAL: &str = "[[vip]]\nname = \"web\"\naddress = \"10.77.0.100/24\"\n";
/// Three services of `LOCAL`: HTTP, lines over TCP, echo over UDP.
pub(crate) const SERVICES: &str = "
[[vip.service]]
port = \"80/tcp\"
backends = [\"web1 10.77.0.21:80\", \"web2 10.77.0.22:80\"]
[[vip.service]]
port = \"7/tcp\"
backends = [\"web1 10.77.0.21:7\", \"web2 10.77.0.22:7\"]
[[vip.service]]
port = \"7/udp\"
backends = [\"web1 10.77.0.21:7\", \"web2 10.77.0.22:7\"]
";

/// A segment with agents on its nodes.
pub(crate) struct Cluster {
    /// The agents; first, so that they end before their hosts.
    pub(crate) buoy: Buoy,
    /// The hosts.
    pub(crate) segment: Segment,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in self.buoy.nodes() {
                eprintln!("--- the agent of {node}:");
                let log = std::fs::read_to_string(self.buoy.log(node)).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                for line in &lines[lines.len().saturating_sub(60)..] {
                    eprintln!("{line}");
                }
            }
        }
    }
}

/// The lease of most tests, as a line of the file. Shared machines stand still for some hundred milliseconds now and
/// then; a test about what is done, not how fast, should not see an owner change for that. The
/// demo measures the defaults.
pub(crate) const LEASE: &str = "lease = \"400ms\"\n";

/// The head of most files here.
pub(crate) fn config_head(topology: &Topology) -> String {
    format!("{}{LEASE}", agent::config_head(topology))
}

/// The hosts and the files, agents not started; `None` when this host cannot, which is said.
pub(crate) fn prepared(test: &str, nodes: usize, vips: &str) -> Option<Cluster> {
    prepared_on(test, Topology::with_nodes(nodes), LEASE, vips)
}

/// The same on another topology, with other lines at the top of the file.
pub(crate) fn prepared_on(
    test: &str,
    topology: Topology,
    top: &str,
    vips: &str,
) -> Option<Cluster> {
    if let Some(reason) = privilege::missing() {
        skip(test, &reason);
        return None;
    }
    if let Err(error) = agent::program() {
        skip(test, &error.to_string());
        return None;
    }
    let segment = Segment::build(topology, &mut |_| {}).unwrap();
    let config = format!("{}{top}{vips}", agent::config_head(&segment.topology));
    let buoy = Buoy::new(&segment, &config).unwrap();
    Some(Cluster { buoy, segment })
}

/// A running cluster in which every VIP has an owner.
pub(crate) fn cluster(test: &str, nodes: usize, vips: &str) -> Option<Cluster> {
    running(test, Topology::with_nodes(nodes), LEASE, vips)
}

/// The same on another topology, with other lines at the top of the file.
pub(crate) fn running(test: &str, topology: Topology, top: &str, vips: &str) -> Option<Cluster> {
    let mut cluster = prepared_on(test, topology, top, vips)?;
    cluster.buoy.start_all(&cluster.segment).unwrap();
    for node in cluster.buoy.nodes() {
        cluster.wait_owned(node);
    }
    Some(cluster)
}

/// How many of its latest events of that kind a node shows.
pub(crate) fn events(cluster: &Cluster, node: &str, kind: &str) -> usize {
    let reply = cluster.buoy.client(node).unwrap().events(200);
    reply.map_or(0, |reply| reply.events.iter().filter(|event| event.kind == kind).count())
}

/// Waits until a node shows an event of that kind.
pub(crate) fn wait_event(cluster: &Cluster, node: &str, kind: &str) {
    let awaited = format!("event {kind} at {node}");
    wait_until(SOON, &awaited, || Ok(events(cluster, node, kind) != 0)).unwrap();
}

/// Requests until these were answered as they should be; those before are not counted.
pub(crate) fn wait_for(http: &HttpProbe, what: &str, is_it: impl Fn(&Figures) -> bool) {
    let mut from = Instant::now();
    wait_until(SOON, what, || {
        let figures = http.figures(since(from));
        let done = figures.sent > 60 && is_it(&figures);
        if figures.sent > 60 && !done {
            from = Instant::now();
        }
        Ok(done)
    })
    .unwrap();
}

/// From a moment until now.
pub(crate) fn since(from: Instant) -> Window {
    Window { from, to: Instant::now() }
}

impl Cluster {
    /// Waits until a node knows an owner for every VIP.
    pub(crate) fn wait_owned(&self, node: &str) {
        let owned = |status: &buoy_api::ClusterStatus| {
            !status.vips.is_empty() && status.vips.iter().all(|vip| vip.owner.is_some())
        };
        self.buoy.wait_status(node, SOON, "an owner for every VIP", owned).unwrap();
    }

    /// Starts the probes against `VIP`, which needs `SERVICES`.
    pub(crate) fn session(&mut self) -> Session<'_> {
        Session::begin(&self.segment, &mut self.buoy, VIP).unwrap()
    }

    /// Watches who answers for some addresses.
    pub(crate) fn observer(&self, addresses: &[Ipv4Addr]) -> ArpObserver {
        ArpObserver::start(self.segment.inside("observer").unwrap(), addresses).unwrap()
    }

    /// The node that answers for an address, once exactly one does.
    pub(crate) fn wait_answerer(&self, observer: &ArpObserver, address: Ipv4Addr) -> String {
        let mut owner = None;
        wait_until(SOON, "one answerer", || {
            owner = observer.owner(address);
            Ok(owner.is_some())
        })
        .unwrap();
        self.segment.topology.by_mac(owner.unwrap()).unwrap().name.to_owned()
    }

    /// Waits until that node answers for `VIP`.
    pub(crate) fn wait_at(&self, observer: &ArpObserver, node: &str) {
        let mac = self.segment.host(node).unwrap().mac();
        wait_until(2 * SOON, &format!("{node} to answer"), || Ok(observer.owner(VIP) == Some(mac)))
            .unwrap();
    }

    /// The node that answers for an address, once it is another than that.
    pub(crate) fn wait_other(
        &self,
        observer: &ArpObserver,
        address: Ipv4Addr,
        than: &str,
    ) -> String {
        let mut name = String::new();
        wait_until(SOON, &format!("another answerer than {than}"), || {
            let mac = observer.owner(address);
            let host = mac.and_then(|mac| self.segment.topology.by_mac(mac));
            name = host.map(|host| host.name.to_owned()).unwrap_or_default();
            Ok(!name.is_empty() && name != than)
        })
        .unwrap();
        name
    }

    /// Whether an address is on the interface of a host.
    pub(crate) fn has_address(&self, host: &str, address: &str) -> bool {
        let inside = self.segment.inside(host).unwrap();
        inside.ip("-oneline addr show dev eth0").unwrap().contains(&format!(" {address}/"))
    }
}

/// Lets time pass while an observer asks so many questions; returns the window.
pub(crate) fn watch(observer: &ArpObserver, questions: usize) -> Window {
    let from = Instant::now();
    let asked = || observer.asked(Window { from, to: Instant::now() });
    wait_until(6 * SOON, "the observer's questions", || Ok(questions <= asked())).unwrap();
    Window { from, to: Instant::now() - 5 * MS }
}

/// The process that watches the agent of a node.
pub(crate) fn supervisor(cluster: &mut Cluster, node: &str) -> Pid {
    let agent = cluster.buoy.process(node).unwrap().pid();
    let mut found = None;
    wait_until(SOON, "a supervisor", || {
        found = children(agent).into_iter().find(|child| {
            let line = std::fs::read_to_string(format!("/proc/{child}/cmdline"));
            line.is_ok_and(|line| line.split('\0').any(|word| word == "supervise"))
        });
        Ok(found.is_some())
    })
    .unwrap();
    Pid::from_raw(found.unwrap())
}

fn children(pid: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let lists = tasks.into_iter().flatten().flatten();
    let lists = lists.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|l| l.split_whitespace().map(|c| c.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}
