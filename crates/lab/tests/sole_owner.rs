//! The only host of a VIP whose agent is killed: mode "xdp" goes on until the next agent, and then with it.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what is wrong")]

mod support;

use buoy_lab::fault::Fault;
use buoy_lab::peer::Peer;
use buoy_lab::probe::tcp::TcpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::ECHO_PORT;
use buoy_lab::topology::Topology;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::servers::{Servers, XDP, wait_forwarded};
use support::{Cluster, LEASE, LOCAL, MS, SOON, VIP, prepared_on};

/// Lines that are open from the beginning to the end.
const LINES: usize = 20;

fn cluster(test: &str, forward: &str) -> Option<(Cluster, Servers)> {
    let port = if forward == "nat" { ":7" } else { "" };
    let service = |protocol: &str| {
        format!(
            "[[vip.service]]\nport = \"7/{protocol}\"\nforward = \"{forward}\"\n\
             backends = [\"web1 10.77.0.21{port}\", \"web2 10.77.0.22{port}\"]\n"
        )
    };
    let vips = format!("{LOCAL}{}{}", service("tcp"), service("udp"));
    let mut cluster = prepared_on(test, Topology::with_nodes(1), LEASE, &vips)?;
    cluster.segment.suit_xdp().unwrap();
    let servers = Servers::behind(&cluster, &[VIP.into()], forward);
    cluster.buoy.start_all(&cluster.segment).unwrap();
    wait_forwarded(&cluster, XDP);
    Some((cluster, servers))
}

/// Datagrams, one after the other: how many were sent, and how many answered, however late.
struct Datagrams {
    counts: Arc<[AtomicUsize; 2]>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Datagrams {
    fn start(cluster: &Cluster) -> Self {
        let counts: Arc<[AtomicUsize; 2]> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let (its_counts, its_stop) = (Arc::clone(&counts), Arc::clone(&stop));
        let client = cluster.segment.inside("client").unwrap();
        let thread = client.spawn("datagrams", move || {
            let [sent, answered]: &[AtomicUsize; 2] = &its_counts;
            // Not connected: an ICMP error of one moment must not end it.
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
            let mut buffer = [0; 64];
            let mut ended = None;
            loop {
                if its_stop.load(Ordering::Relaxed) {
                    ended = ended.or_else(|| Some(Instant::now()));
                }
                let (all, heard) = (sent.load(Ordering::Relaxed), answered.load(Ordering::Relaxed));
                if ended.is_some_and(|at: Instant| heard == all || SOON / 5 < at.elapsed()) {
                    return;
                }
                if ended.is_none() && socket.send_to(b"who\n", (VIP, ECHO_PORT)).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(MS);
                let answer = socket.recv_from(&mut buffer);
                answered.fetch_add(usize::from(answer.is_ok()), Ordering::Relaxed);
            }
        });
        Self { counts, stop, thread: Some(thread.unwrap()) }
    }

    fn answered(&self) -> usize {
        self.counts[1].load(Ordering::Relaxed)
    }

    /// How many were sent and how many answered, when no more come.
    fn end(mut self) -> [usize; 2] {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        [&self.counts[0], &self.counts[1]].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Leaves the maps of the programs as if another version had made them.
fn age(cluster: &Cluster) {
    let rename = || {
        let namespace = std::fs::metadata("/proc/thread-self/ns/net")?.ino();
        let pins = format!("/sys/fs/bpf/buoy/net-{namespace}");
        let maps =
            |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("layout-");
        let found = std::fs::read_dir(&pins)?.flatten().find(maps);
        std::fs::rename(found.unwrap().path(), format!("{pins}/layout-1"))
    };
    cluster.segment.inside("n1").unwrap().enter(rename).unwrap().unwrap();
}

/// No packet of a client stays without its answer, from before the death until after the next agent has begun.
fn goes_on(
    test: &str,
    forward: &str,
    fault: Fault,
    meanwhile: impl Fn(&Cluster),
) -> Option<String> {
    let (mut cluster, _servers) = cluster(test, forward)?;
    let client = cluster.segment.inside("client").unwrap();
    let lines = TcpProbe::start(client, (VIP, ECHO_PORT).into(), LINES).unwrap();
    let from = Instant::now();
    wait_until(2 * SOON, "lines", || Ok(lines.figures(from).survived == LINES)).unwrap();
    // Until ways to backends are known, what comes is dropped: the probe's first flow may be to the other one.
    wait_until(2 * SOON, "answers to datagrams", || {
        let first = Datagrams::start(&cluster);
        std::thread::sleep(Duration::from_millis(100));
        let [sent, answered] = first.end();
        Ok(0 < sent && sent == answered)
    })
    .unwrap();
    let datagrams = Datagrams::start(&cluster);
    for _ in 0..3 {
        let before = datagrams.answered();
        fault.inject(&cluster.segment, &mut cluster.buoy, "n1").unwrap();
        cluster.buoy.process("n1").unwrap().wait_end(SOON).unwrap();
        wait_until(SOON, "answers without an agent", || Ok(before + 50 < datagrams.answered()))
            .unwrap();
        meanwhile(&cluster);
        cluster.buoy.start(&cluster.segment, "n1").unwrap();
        wait_forwarded(&cluster, XDP);
        let begun = Instant::now();
        wait_until(2 * SOON, "lines", || Ok(lines.figures(begun).survived == LINES)).unwrap();
        assert_eq!(lines.figures(from).broken, 0);
    }
    let [sent, answered] = datagrams.end();
    eprintln!("{forward}, {}: {answered} of {sent} answered", fault.name());
    assert_eq!(answered, sent);
    assert!(sent > 150, "{sent}");
    Some(std::fs::read_to_string(cluster.buoy.log("n1")).unwrap())
}

#[test]
fn a_sole_owner_that_is_killed_forwards_by_dsr_all_the_same() {
    goes_on("a_sole_owner_that_is_killed_forwards_by_dsr_all_the_same", "dsr", Fault::Kill, |_| {});
}

#[test]
fn a_sole_owner_that_is_killed_forwards_by_nat_all_the_same() {
    goes_on("a_sole_owner_that_is_killed_forwards_by_nat_all_the_same", "nat", Fault::Kill, |_| {});
}

/// Its supervisor takes the address away, so that another host could have it.
#[test]
fn a_sole_owner_whose_agent_crashes_forwards_all_the_same() {
    let test = "a_sole_owner_whose_agent_crashes_forwards_all_the_same";
    for forward in ["dsr", "nat"] {
        goes_on(test, forward, Fault::Crash, |_| {});
    }
}

/// As after an upgrade to a version whose maps lie otherwise.
#[test]
fn an_agent_that_finds_maps_of_another_version_says_so_and_goes_on() {
    let test = "an_agent_that_finds_maps_of_another_version_says_so_and_goes_on";
    let Some(log) = goes_on(test, "dsr", Fault::Kill, age) else { return };
    assert!(log.contains("XDP maps of another version are replaced"), "{log}");
}
