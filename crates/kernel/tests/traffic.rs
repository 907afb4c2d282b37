//! What the gate does with the packets of an address when the agent that holds it is frozen.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod segment;

use buoy_kernel::apply::Apply;
use buoy_kernel::clock;
use buoy_kernel::gate::{Gate, GateError, MasterSwitch, Opening};
use buoy_kernel::netlink::{Monitor, Requests};
use buoy_kernel::packet::Announcer;
use buoy_kernel::poll::Poller;
use buoy_model::{Action, Guard, Instant, LinkId, Presence, SharedLease};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use segment::{Segment, cidr, ip, wait_until};
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A VIP, and who talks to it.
const TALKS: [(&str, &str); 2] = [("10.0.0.100/24", "10.0.0.2"), ("fd00::100/64", "fd00::2")];
/// Long enough for a packet, which arrives within the system call that sends it.
const QUIET: Duration = Duration::from_millis(50);
const CHILD: &str = "BUOY_TRAFFIC_CHILD";

/// A conversation that has begun: both sides know where the other one is.
struct Talk {
    vip: IpAddr,
    here: UdpSocket,
    there: UdpSocket,
}

impl Talk {
    fn begin(segment: &Segment, vip: &str, peer: &str) -> Self {
        Requests::open().unwrap().add_address(segment.near, cidr(vip), 600).unwrap();
        let (vip, peer) = (cidr(vip).address(), peer.parse::<IpAddr>().unwrap());
        let learn = |address, mac: buoy_model::Mac, link| {
            let [a, b, c, d, e, f] = mac.0;
            let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
            ip(&format!("neigh replace {address} lladdr {mac} dev {link} nud permanent"));
        };
        learn(peer, segment.far_mac, "near");
        segment.there(|| learn(vip, segment.near_mac, "far"));
        let open = |address| {
            let socket = UdpSocket::bind(SocketAddr::new(address, 0)).unwrap();
            socket.set_read_timeout(Some(QUIET)).unwrap();
            socket
        };
        Self { vip, here: open(vip), there: segment.there(|| open(peer)) }
    }

    /// Whether a packet arrives: to the VIP, and from it.
    fn passes(&self) -> [bool; 2] {
        [passes(&self.there, &self.here), passes(&self.here, &self.there)]
    }
}

fn passes(from: &UdpSocket, to: &UdpSocket) -> bool {
    let mut buffer = [0; 8];
    // What its own gate drops, a host may be told.
    let _ = from.send_to(b"ahoy", to.local_addr().unwrap());
    to.recv(&mut buffer).is_ok()
}

fn permitted(test: &str, link: LinkId) -> bool {
    match Gate::open(&[link]) {
        Ok(gate) => gate.close().is_ok(),
        Err(GateError::Permission) => {
            eprintln!("SKIPPED: {test}: BPF programs are not permitted here");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// Starts this test again as an agent, and waits until it says that its gate stands.
fn agent(test: &str, link: LinkId, guard: Guard) -> Child {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, format!("{} {}", link.0, u8::from(guard == Guard::Traffic)))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("the gate stands")));
    child
}

/// Renews a shared lease of 300 ms until it is frozen.
fn be_the_agent(order: &str) {
    let (link, all) = order.split_once(' ').unwrap();
    let link = LinkId(link.parse().unwrap());
    let guard = if all == "1" { Guard::Traffic } else { Guard::Neighbours };
    let mut gate = Gate::open(&[link]).unwrap();
    let lease = Some(SharedLease::Loop);
    let renew = |gate: &Gate| {
        gate.renew(SharedLease::Loop, clock::now() + Duration::from_millis(300));
    };
    renew(&gate);
    for (vip, _) in TALKS {
        let opening = Opening { until: Instant::ZERO, lease, guard };
        gate.set(link, cidr(vip).address(), opening).unwrap();
    }
    let mut stdout = io::stdout();
    writeln!(stdout, "\nthe gate stands").unwrap();
    stdout.flush().unwrap();
    let mut nothing = Poller::new();
    loop {
        renew(&gate);
        nothing.wait(Some(clock::now() + Duration::from_millis(20))).unwrap();
    }
}

fn frozen(test: &str, guard: Guard, after: [bool; 2]) {
    if let Ok(order) = env::var(CHILD) {
        return be_the_agent(&order);
    }
    let Some(segment) = Segment::new(test) else { return };
    if !permitted(test, segment.near) {
        return;
    }
    let talks = TALKS.map(|(vip, peer)| Talk::begin(&segment, vip, peer));
    let mut child = agent(test, segment.near, guard);
    let pid = Pid::from_raw(child.id().cast_signed());
    for talk in &talks {
        wait_until("the talk passes", || talk.passes() == [true, true]);
    }
    kill(pid, Signal::SIGSTOP).unwrap();
    let mut asker = segment.asker();
    for talk in &talks {
        wait_until("nothing is answered any more", || asker.ask(talk.vip, QUIET).is_none());
        assert_eq!(talk.passes(), after, "{}", talk.vip);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_frozen_agents_exclusive_address_neither_sends_nor_receives() {
    let test = "a_frozen_agents_exclusive_address_neither_sends_nor_receives";
    frozen(test, Guard::Traffic, [false, false]);
}

#[test]
fn a_frozen_agents_service_address_is_silent_and_its_connections_go_on() {
    let test = "a_frozen_agents_service_address_is_silent_and_its_connections_go_on";
    frozen(test, Guard::Neighbours, [true, true]);
}

#[test]
fn another_process_closes_everything_at_once() {
    let test = "another_process_closes_everything_at_once";
    if env::var(CHILD).is_ok() {
        // What the agent hands down, as the child's standard input.
        return MasterSwitch::open(io::stdin().as_fd()).unwrap().close_all();
    }
    let Some(segment) = Segment::new(test) else { return };
    if !permitted(test, segment.near) {
        return;
    }
    let talks = TALKS.map(|(vip, peer)| Talk::begin(&segment, vip, peer));
    let mut gate = Gate::open(&[segment.near]).unwrap();
    let until = clock::now() + Duration::from_secs(600);
    for talk in &talks {
        let opening = Opening { until, lease: None, guard: Guard::Traffic };
        gate.set(segment.near, talk.vip, opening).unwrap();
        wait_until("the talk passes", || talk.passes() == [true, true]);
        assert!(gate.first_packet(segment.near, talk.vip).is_some_and(|at| at <= clock::now()));
    }
    let leases = gate.leases_fd().try_clone_to_owned().unwrap();
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "")
        .stdin(leases)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let mut asker = segment.asker();
    for talk in &talks {
        assert_eq!(talk.passes(), [false, false]);
        assert_eq!(asker.ask(talk.vip, QUIET), None);
    }
    let counters = gate.counters();
    assert!(counters.traffic_in >= 2 && counters.traffic_out >= 2, "{counters:?}");
}

#[test]
fn a_host_that_gave_an_address_away_does_not_stop_its_packets() {
    let test = "a_host_that_gave_an_address_away_does_not_stop_its_packets";
    let Some(segment) = Segment::new(test) else { return };
    if !permitted(test, segment.near) {
        return;
    }
    let link = segment.near;
    let talks = TALKS.map(|(vip, peer)| (cidr(vip), Talk::begin(&segment, vip, peer)));
    let gate = Gate::open(&[link]).unwrap();
    let mut monitor = Monitor::open().unwrap();
    let mut apply = Apply::new(Requests::open().unwrap(), Announcer::open().unwrap(), Some(gate));
    for (cidr, talk) in &talks {
        let vip = cidr.address();
        let closed = Action::Fence {
            address: vip,
            link,
            until: Instant::ZERO,
            lease: None,
            guard: Guard::Traffic,
        };
        // On, off and on again at once: the news of the removal must not be taken for the last word.
        let add = Action::AddAddress {
            link,
            cidr: *cidr,
            valid_lifetime: 60,
            presence: Presence::Assigned,
        };
        let remove = Action::RemoveAddress { link, cidr: *cidr, presence: Presence::Assigned };
        let stopped = |apply: &mut Apply| {
            let before = apply.gate().unwrap().counters().traffic_in;
            let _ = talk.there.send_to(b"ahoy", talk.here.local_addr().unwrap());
            let mut nothing = Poller::new();
            nothing.wait(Some(clock::now() + QUIET)).unwrap();
            apply.gate().unwrap().counters().traffic_in != before
        };
        for action in [&add, &remove, &add, &closed] {
            apply.apply(action).unwrap();
        }
        wait_until("the orders are carried out", || apply.pending() == 0);
        monitor.read(&mut |news| apply.observe(news, &mut |_| {})).unwrap();
        assert!(stopped(&mut apply), "{vip}");
        apply.apply(&remove).unwrap();
        wait_until("its packets pass", || {
            monitor.read(&mut |news| apply.observe(news, &mut |_| {})).unwrap();
            !stopped(&mut apply)
        });
    }
    apply.close().unwrap();
}
