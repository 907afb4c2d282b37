//! What the gate lets the real kernel answer, and when, and for how long after the agent is dead.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod segment;

use buoy_kernel::clock;
use buoy_kernel::gate::{GATE_STALE, Gate, GateError, Opening};
use buoy_kernel::netlink::Requests;
use buoy_kernel::packet::Announcer;
use buoy_model::{FrameKind, Guard, Instant, LinkId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use segment::{PATIENCE, Segment, cidr, run, wait_until};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

const VIPS: [&str; 2] = ["10.0.0.100/24", "fd00::100/64"];

/// Long enough for an answer, which comes within the system call that asks.
const QUIET: Duration = Duration::from_millis(50);

const CLOSED: Opening = until(Instant::ZERO);

const fn until(until: Instant) -> Opening {
    Opening { until, lease: None, guard: Guard::Neighbours }
}

fn open() -> Opening {
    until(clock::now() + Duration::from_secs(60))
}

/// A segment with a gate on the near side and the VIPs there; `None`, and a line that says so,
/// where that is not permitted.
fn guarded(test: &str) -> Option<(Segment, Gate)> {
    let segment = Segment::new(test)?;
    let gate = match Gate::open(&[segment.near]) {
        Ok(gate) => gate,
        Err(GateError::Permission) => {
            eprintln!("SKIPPED: {test}: BPF programs are not permitted here");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let mut requests = Requests::open().unwrap();
    for vip in VIPS.map(cidr) {
        requests.add_address(segment.near, vip, 60).unwrap();
    }
    Some((segment, gate))
}

#[test]
fn the_kernel_answers_until_the_deadline_and_not_after_it() {
    let test = "the_kernel_answers_until_the_deadline_and_not_after_it";
    let Some((segment, mut gate)) = guarded(test) else { return };
    let mut asker = segment.asker();
    for vip in VIPS.map(cidr) {
        let address = vip.address();
        gate.set(segment.near, address, open()).unwrap();
        assert_eq!(asker.find(address), Some(segment.near_mac));
        let deadline = clock::now() + Duration::from_millis(200);
        gate.set(segment.near, address, until(deadline)).unwrap();
        let mut asked = clock::now();
        while asker.ask(address, QUIET).is_some() {
            // What was answered was asked in time, however late the answer was heard.
            assert!(asked < deadline, "answered {:?} after the deadline", asked.since(deadline));
            asked = clock::now();
        }
        assert!(deadline <= clock::now());
        let before = gate.counters().ingress;
        assert_eq!(asker.ask(address, QUIET), None);
        assert_eq!(gate.counters().ingress, before + 1);
        // Renewed, it answers again.
        gate.set(segment.near, address, open()).unwrap();
        assert_eq!(asker.find(address), Some(segment.near_mac));
    }
}

#[test]
fn a_closed_address_is_silent_and_a_removed_one_is_none_of_the_gates_business() {
    let test = "a_closed_address_is_silent_and_a_removed_one_is_none_of_the_gates_business";
    let Some((segment, mut gate)) = guarded(test) else { return };
    let mut asker = segment.asker();
    for vip in VIPS.map(cidr) {
        gate.set(segment.near, vip.address(), CLOSED).unwrap();
        assert_eq!(asker.ask(vip.address(), QUIET), None);
        for _ in 0..2 {
            gate.remove(segment.near, vip.address()).unwrap();
        }
        assert_eq!(asker.find(vip.address()), Some(segment.near_mac));
    }
    // The host's own addresses were never guarded.
    for own in ["10.0.0.1", "fd00::1"] {
        assert_eq!(asker.find(own.parse().unwrap()), Some(segment.near_mac));
    }
}

#[test]
fn a_closed_address_is_not_announced_and_another_owners_announcement_is_heard() {
    let test = "a_closed_address_is_not_announced_and_another_owners_announcement_is_heard";
    let Some((segment, mut gate)) = guarded(test) else { return };
    let mut here = Announcer::open().unwrap();
    here.set_link(segment.near, segment.near_mac, false);
    let mut asker = segment.asker();
    let there = segment.there(|| {
        let mut announcer = Announcer::open().unwrap();
        announcer.set_link(segment.far, segment.far_mac, false);
        announcer
    });
    for vip in VIPS.map(cidr) {
        let address = vip.address();
        gate.set(segment.near, address, open()).unwrap();
        here.announce(segment.near, address, FrameKind::Gratuitous).unwrap();
        assert_eq!(asker.hear(address, PATIENCE), Some(segment.near_mac));

        gate.set(segment.near, address, CLOSED).unwrap();
        let before = gate.counters();
        assert!(here.announce(segment.near, address, FrameKind::Gratuitous).is_err());
        assert_eq!(asker.hear(address, QUIET), None);
        assert_eq!(gate.counters().egress, before.egress + 1);

        there.announce(segment.far, address, FrameKind::Gratuitous).unwrap();
        assert_eq!(asker.ask(address, QUIET), None);
        // The question was dropped, the announcement was not.
        assert_eq!(gate.counters().ingress, before.ingress + 1);
    }
}

#[test]
fn the_gate_closes_after_the_agent_was_killed() {
    const CHILD: &str = "BUOY_GATE_CHILD";
    let test = "the_gate_closes_after_the_agent_was_killed";
    if let Ok(link) = env::var(CHILD) {
        return hold_a_gate(LinkId(link.parse().unwrap()));
    }
    let Some((segment, gate)) = guarded(test) else { return };
    // What this process opened would hide what the other one leaves behind.
    gate.close().unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, segment.near.0.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("the gate stands")));
    let mut asker = segment.asker();
    let addresses = VIPS.map(|vip| cidr(vip).address());
    for address in addresses {
        assert_eq!(asker.find(address), Some(segment.near_mac));
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    for address in addresses {
        wait_until("the gate has closed", || asker.ask(address, QUIET).is_none());
    }
    // The addresses are still there: it is the gate that stops the kernel.
    assert_eq!(Requests::open().unwrap().list_ours().unwrap().len(), VIPS.len());
}

/// Opens the gate for a second, says so, and waits to be killed.
fn hold_a_gate(link: LinkId) {
    let mut gate = Gate::open(&[link]).unwrap();
    let deadline = clock::now() + Duration::from_secs(1);
    for vip in VIPS.map(cidr) {
        gate.set(link, vip.address(), until(deadline)).unwrap();
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "\nthe gate stands").unwrap();
    stdout.flush().unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn an_entry_that_nobody_renews_does_not_silence_an_address_for_ever() {
    let test = "an_entry_that_nobody_renews_does_not_silence_an_address_for_ever";
    let Some((segment, mut gate)) = guarded(test) else { return };
    let mut asker = segment.asker();
    let closed = clock::now();
    for vip in VIPS.map(cidr) {
        gate.set(segment.near, vip.address(), CLOSED).unwrap();
    }
    for vip in VIPS.map(cidr) {
        let deadline = clock::now() + GATE_STALE + PATIENCE;
        while asker.ask(vip.address(), QUIET).is_none() {
            assert!(clock::now() < deadline, "{vip} is still silent");
        }
        assert!(clock::now().since(closed) >= GATE_STALE);
    }
    assert!(gate.counters().stale >= 2);
}

#[test]
fn a_second_run_takes_over_the_gate_and_its_deadlines_without_a_gap() {
    let test = "a_second_run_takes_over_the_gate_and_its_deadlines_without_a_gap";
    let Some((segment, mut gate)) = guarded(test) else { return };
    let mut asker = segment.asker();
    let addresses = VIPS.map(|vip| cidr(vip).address());
    for address in addresses {
        gate.set(segment.near, address, CLOSED).unwrap();
        assert_eq!(asker.ask(address, QUIET), None);
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) || asked < 100 {
                for address in addresses {
                    assert_eq!(asker.ask(address, Duration::from_micros(100)), None);
                    asked += 1;
                }
            }
        });
        for _ in 0..10 {
            let next = Gate::open(&[segment.near]).unwrap();
            drop(std::mem::replace(&mut gate, next));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        asking.join().unwrap();
    });
    assert_eq!(asker.late, 0);
    for address in addresses {
        assert_eq!(asker.ask(address, QUIET), None);
        gate.set(segment.near, address, open()).unwrap();
        assert_eq!(asker.find(address), Some(segment.near_mac));
    }
    let filters = run("tc", "filter show dev near ingress");
    assert_eq!(filters.matches("buoy_gate").count(), 1, "{filters}");
}

#[test]
fn a_clean_stop_leaves_nothing_and_takes_nothing_of_others() {
    let test = "a_clean_stop_leaves_nothing_and_takes_nothing_of_others";
    let Some((segment, gate)) = guarded(test) else { return };
    assert!(run("tc", "qdisc show dev near").contains("clsact"));
    gate.close().unwrap();
    assert!(!run("tc", "qdisc show dev near").contains("clsact"));

    run("tc", "qdisc add dev near clsact");
    let gate = Gate::open(&[segment.near]).unwrap();
    gate.close().unwrap();
    assert!(run("tc", "qdisc show dev near").contains("clsact"));
    for direction in ["ingress", "egress"] {
        assert_eq!(run("tc", &format!("filter show dev near {direction}")), "");
    }
}

#[test]
fn an_interface_that_is_gone_is_named() {
    let test = "an_interface_that_is_gone_is_named";
    let Some((segment, mut gate)) = guarded(test) else { return };
    let error = gate.attach(LinkId(4_000)).unwrap_err();
    assert!(error.to_string().contains("interface 4000"), "{error}");
    segment::ip("link del near");
    gate.detach(segment.near).unwrap();
    gate.close().unwrap();
}
