//! What a new run does with the addresses that an earlier one left on this host.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod segment;

use buoy_kernel::apply::Apply;
use buoy_kernel::clock;
use buoy_kernel::gate::{Gate, GateError, Opening};
use buoy_kernel::netlink::Requests;
use buoy_kernel::packet::Announcer;
use buoy_model::{
    Action, Cidr, Desired, Group, GroupId, Guard, LinkId, Node, Presence, VipAddress,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use segment::{Segment, cidr, ip, wait_until};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

const STAYS: [&str; 2] = ["10.0.0.100/24", "fd00::100/64"];
const LEAVES: [&str; 2] = ["10.0.0.101/24", "fd00::101/64"];
const QUIET: Duration = Duration::from_millis(50);
const CHILD: &str = "BUOY_ADOPT_CHILD";

/// A wish for these addresses on one interface.
fn desired(link: LinkId, addresses: &[&str]) -> Desired {
    let me = Node::new("a", "10.0.0.1:4747".parse().unwrap());
    let address = |text: &&str| VipAddress {
        cidr: cidr(text),
        link: Some(link),
        link_name: "near".into(),
        vip_name: (*text).into(),
        presence: Presence::Assigned,
    };
    let group = Group {
        nodes: vec![me.id],
        ..Group::new(GroupId(1), "g", addresses.iter().map(address).collect())
    };
    Desired { leg_links: Vec::new(), ..Desired::new("test", me.id, vec![me], vec![group]) }
}

fn apply(segment: &Segment, gate: Option<Gate>) -> Apply {
    let mut announcer = Announcer::open().unwrap();
    announcer.set_link(segment.near, segment.near_mac, false);
    Apply::new(Requests::open().unwrap(), announcer, gate)
}

fn ours() -> Vec<Cidr> {
    Requests::open().unwrap().list_ours().unwrap().iter().map(|a| a.cidr).collect()
}

fn open() -> Opening {
    let until = clock::now() + Duration::from_secs(60);
    Opening { until, lease: None, guard: Guard::Neighbours }
}

/// An agent that serves all these addresses and is killed.
fn kill_an_agent(test: &str, segment: &Segment) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, segment.near.0.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("all is served")));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
}

fn be_the_agent(link: &str) {
    let link = LinkId(link.parse().unwrap());
    let mut gate = Gate::open(&[link]).unwrap();
    let mut requests = Requests::open().unwrap();
    for vip in STAYS.into_iter().chain(LEAVES).map(cidr) {
        gate.set(link, vip.address(), open()).unwrap();
        requests.add_address(link, vip, 60).unwrap();
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "\nall is served").unwrap();
    stdout.flush().unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn what_a_killed_agent_left_is_kept_in_silence_or_taken_away_if_it_left_the_file() {
    let test = "what_a_killed_agent_left_is_kept_in_silence_or_taken_away_if_it_left_the_file";
    if let Ok(link) = env::var(CHILD) {
        return be_the_agent(&link);
    }
    let Some(segment) = Segment::new(test) else { return };
    match Gate::open(&[segment.near]) {
        Ok(gate) => gate.close().unwrap(),
        Err(GateError::Permission) => {
            eprintln!("SKIPPED: {test}: BPF programs are not permitted here");
            return;
        }
        Err(error) => panic!("{error}"),
    }
    let foreign = ["10.0.0.50/24", "fd00::50/64"];
    for address in foreign {
        ip(&format!("addr add {address} dev near"));
    }
    kill_an_agent(test, &segment);
    let mut asker = segment.asker();
    for vip in STAYS.into_iter().chain(LEAVES).map(cidr) {
        assert_eq!(asker.find(vip.address()), Some(segment.near_mac));
    }

    let gate = Gate::open(&[segment.near]).unwrap();
    let mut apply = apply(&segment, Some(gate));
    let mut wish = desired(segment.near, &STAYS);
    // One leaves the file, and one the interface only.
    let answered = desired(segment.near, &LEAVES[..1]).groups.remove(0).addresses.remove(0);
    wish.groups[0].addresses.push(VipAddress { presence: Presence::Answered, ..answered });
    let adopted = apply.adopt(&wish).unwrap();
    let cidrs = |facts: &[buoy_kernel::netlink::AddressFacts]| -> Vec<Cidr> {
        facts.iter().map(|a| a.cidr).collect()
    };
    assert_eq!(cidrs(&adopted.kept), STAYS.map(cidr));
    assert_eq!(cidrs(&adopted.removed), LEAVES.map(cidr));
    assert!(adopted.problems.is_empty(), "{:?}", adopted.problems);
    assert_eq!(ours(), STAYS.map(cidr));
    let shown = ip("addr show dev near");
    assert!(foreign.iter().all(|address| shown.contains(address)), "{shown}");

    for vip in STAYS.map(cidr) {
        let (link, address) = (segment.near, vip.address());
        assert_eq!(asker.ask(address, QUIET), None, "{address} has no lease yet");
        // With a lease it answers, without having been away.
        let Opening { until, lease, guard } = open();
        apply.apply(&Action::Fence { address, link, until, lease, guard }).unwrap();
        assert_eq!(asker.find(address), Some(segment.near_mac));
    }
    for vip in LEAVES.map(cidr) {
        // What is taken away is nobody's business here: whoever has it now answers.
        ip(&format!("addr add {}/{} dev near", vip.address(), vip.prefix()));
        wait_until("it answers", || asker.ask(vip.address(), QUIET) == Some(segment.near_mac));
    }
}

#[test]
fn an_address_on_another_interface_or_with_another_prefix_is_taken_away() {
    let test = "an_address_on_another_interface_or_with_another_prefix_is_taken_away";
    let Some(segment) = Segment::new(test) else { return };
    let gate = match Gate::open(&[segment.near]) {
        Ok(gate) => gate,
        Err(GateError::Permission) => {
            eprintln!("SKIPPED: {test}: BPF programs are not permitted here");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    for vip in STAYS {
        Requests::open().unwrap().add_address(segment.near, cidr(vip), 60).unwrap();
    }
    let elsewhere = desired(LinkId(4_000), &STAYS);
    let wider = desired(segment.near, &["10.0.0.100/16", "fd00::100/48"]);
    let mut apply = apply(&segment, Some(gate));
    for (wish, removed) in [(elsewhere, 2), (wider, 0)] {
        let adopted = apply.adopt(&wish).unwrap();
        assert_eq!((adopted.kept.len(), adopted.removed.len()), (0, removed));
        assert_eq!(ours(), []);
    }
}

#[test]
fn where_nothing_can_keep_it_silent_everything_left_is_taken_away_and_nothing_else() {
    let test = "where_nothing_can_keep_it_silent_everything_left_is_taken_away_and_nothing_else";
    let Some(segment) = Segment::new(test) else { return };
    let mut requests = Requests::open().unwrap();
    let before = requests.addresses().unwrap();
    for vip in STAYS {
        requests.add_address(segment.near, cidr(vip), 60).unwrap();
    }
    let adopted = apply(&segment, None).adopt(&desired(segment.near, &STAYS)).unwrap();
    assert_eq!(adopted.kept, []);
    assert_eq!(adopted.removed.iter().map(|a| a.cidr).collect::<Vec<_>>(), STAYS.map(cidr));
    let after = requests.addresses().unwrap();
    assert!(after.iter().all(|a| !a.ours), "{after:?}");
    assert!(before.iter().all(|b| after.iter().any(|a| a.cidr == b.cidr)), "{after:?}");
}
