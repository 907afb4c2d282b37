//! The supervisor beside processes that really die, hang and end.

#![allow(clippy::unwrap_used, clippy::panic)] // All of it is test.
#![allow(clippy::print_stderr, clippy::print_stdout)]

use buoy_agent::supervisor::{End, Supervisor};
use buoy_kernel::clock;
use buoy_kernel::gate::{Gate, GateError, MasterSwitch};
use buoy_kernel::lifeline::{Hold, Lifeline, Process, Watch};
use buoy_kernel::netlink::Requests;
use buoy_model::{Cidr, LinkId};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOPBACK: LinkId = LinkId(1);
/// Says to a copy of this test that it is the agent, and where its peer is.
const PEER: &str = "BUOY_TEST_PEER";

/// Makes this thread the loop of an agent with one peer.
fn hold(peer: &str) -> Hold {
    let lifeline = Lifeline::create().unwrap();
    lifeline.set_legs(["127.0.0.1:4747".parse().unwrap()]);
    let hold = lifeline.hold().unwrap();
    hold.set_goodbye(0, peer.parse().unwrap(), b"goodbye").unwrap();
    // The machine that runs this test may stand still for 300 ms.
    hold.set_patience(Duration::from_millis(600));
    hold.beat(clock::now());
    println!("\nholds {}", lifeline.as_fd().as_raw_fd());
    // The other process finds the memory by this descriptor.
    std::mem::forget(lifeline);
    hold
}

/// An agent of one thread, which turns until it is told to end in order.
fn be_the_agent(peer: &str) {
    let hold = hold(peer);
    let (told, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        let _ = told.send(());
    });
    while end.recv_timeout(Duration::from_millis(5)).is_err() {
        hold.beat(clock::now());
    }
    hold.end();
    // Nobody reads what the test harness would say now.
    std::process::exit(0);
}

/// The agent, its supervisor, and a peer, on a host of their own.
struct Post {
    agent: Child,
    supervisor: Supervisor,
    peer: UdpSocket,
    requests: Requests,
    vip: Cidr,
}

/// A host for this test; `false`, and a line that says so, where that is not permitted.
fn host(test: &str) -> bool {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("SKIPPED: {test}: no network namespace: {errno}");
        return false;
    }
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    true
}

impl Post {
    fn new(test: &str, switch: Option<MasterSwitch>) -> Self {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut agent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(PEER, peer.local_addr().unwrap().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(agent.stdout.take().unwrap());
        let fd = said.lines().find_map(|l| l.unwrap().strip_prefix("holds ").map(str::to_owned));
        let path = format!("/proc/{}/fd/{}", agent.id(), fd.unwrap());
        let shared = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let process = Process::open(agent.id()).unwrap();
        let watch = Watch::open(&shared).unwrap();
        let vip = Cidr::new("10.99.0.1".parse().unwrap(), 32).unwrap();
        let mut requests = Requests::open().unwrap();
        requests.add_address(LOOPBACK, vip, 3600).unwrap();
        let supervisor = Supervisor::new(watch, Some(process), switch).unwrap();
        Self { agent, supervisor, peer, requests, vip }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.agent.id().cast_signed()), signal).unwrap();
    }

    /// How many goodbyes came.
    fn goodbyes(&self) -> usize {
        self.peer.set_nonblocking(true).unwrap();
        let mut buffer = [0; 64];
        let mut count = 0;
        while let Ok(length) = self.peer.recv(&mut buffer) {
            assert_eq!(&buffer[..length], b"goodbye");
            count += 1;
        }
        count
    }

    fn addresses(&mut self) -> usize {
        self.requests.list_ours().unwrap().len()
    }
}

#[test]
fn a_killed_agent_is_buried_and_its_peers_are_told() {
    let test = "a_killed_agent_is_buried_and_its_peers_are_told";
    if let Ok(peer) = std::env::var(PEER) {
        return be_the_agent(&peer);
    }
    if !host(test) {
        return;
    }
    let mut took = Vec::new();
    for _ in 0..20 {
        let mut post = Post::new(test, None);
        let (mut requests, vip) = (Requests::open().unwrap(), post.vip);
        let peer = post.peer.try_clone().unwrap();
        std::thread::scope(|scope| {
            let supervisor = &mut post.supervisor;
            let buried = scope.spawn(move || supervisor.watch());
            let killed = Instant::now();
            kill(Pid::from_raw(post.agent.id().cast_signed()), Signal::SIGKILL).unwrap();
            peer.recv(&mut [0; 64]).unwrap();
            took.push(killed.elapsed());
            // Without a gate nobody may be told before nothing answers.
            let left = requests.list_ours().unwrap();
            assert!(left.iter().all(|address| address.cidr != vip), "{left:?}");
            assert_eq!(buried.join().unwrap(), End::Died);
        });
        assert_eq!(post.goodbyes(), 1, "each is said twice");
        assert_eq!(post.agent.wait().unwrap().signal(), Some(9));
    }
    took.sort_unstable();
    eprintln!("from SIGKILL to the goodbye: median {:?}, worst {:?}", took[10], took[19]);
    assert!(took[10] < Duration::from_millis(100), "{took:?}");
}

#[test]
fn an_agent_that_stands_still_is_killed_and_buried() {
    let test = "an_agent_that_stands_still_is_killed_and_buried";
    if let Ok(peer) = std::env::var(PEER) {
        return be_the_agent(&peer);
    }
    if !host(test) {
        return;
    }
    let mut post = Post::new(test, None);
    post.signal(Signal::SIGSTOP);
    assert_eq!(post.supervisor.watch(), End::Hung);
    assert_eq!(post.agent.wait().unwrap().signal(), Some(9));
    assert_eq!((post.goodbyes(), post.addresses()), (2, 0));
}

/// Its processor runs, so the supervisor goes there and looks before it kills.
#[test]
fn an_agent_that_spins_is_killed_and_buried() {
    let test = "an_agent_that_spins_is_killed_and_buried";
    if let Ok(peer) = std::env::var(PEER) {
        let _hold = hold(&peer);
        loop {
            std::hint::spin_loop();
        }
    }
    if !host(test) {
        return;
    }
    let mut post = Post::new(test, None);
    assert_eq!(post.supervisor.watch(), End::Hung);
    assert_eq!(post.agent.wait().unwrap().signal(), Some(9));
    assert_eq!((post.goodbyes(), post.addresses()), (2, 0));
}

#[test]
fn an_agent_that_ends_in_order_is_left_alone() {
    let test = "an_agent_that_ends_in_order_is_left_alone";
    if let Ok(peer) = std::env::var(PEER) {
        return be_the_agent(&peer);
    }
    if !host(test) {
        return;
    }
    let mut post = Post::new(test, None);
    drop(post.agent.stdin.take());
    assert_eq!(post.supervisor.watch(), End::Ended);
    assert!(post.agent.wait().unwrap().success());
    assert_eq!((post.goodbyes(), post.addresses()), (0, 1));
}

#[test]
fn the_gate_of_a_dead_agent_is_closed() {
    let test = "the_gate_of_a_dead_agent_is_closed";
    if let Ok(peer) = std::env::var(PEER) {
        return be_the_agent(&peer);
    }
    if !host(test) {
        return;
    }
    let gate = match Gate::open(&[]) {
        Ok(gate) => gate,
        Err(GateError::Permission) => {
            eprintln!("SKIPPED: {test}: BPF programs are not permitted here");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let switch = || MasterSwitch::open(gate.leases_fd()).unwrap();
    let mut post = Post::new(test, Some(switch()));
    assert!(!switch().is_closed());
    post.signal(Signal::SIGKILL);
    assert_eq!(post.supervisor.watch(), End::Died);
    assert!(switch().is_closed());
    assert_eq!((post.goodbyes(), post.addresses()), (2, 0));
    post.agent.wait().unwrap();
}
