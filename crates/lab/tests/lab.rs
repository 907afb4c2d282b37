//! Tests the lab itself: a judge that cannot see a crime is no judge.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use buoy_lab::capture::Capture;
use buoy_lab::fault::Fault;
use buoy_lab::keepalived::Keepalived;
use buoy_lab::peer::Peer;
use buoy_lab::probe::Window;
use buoy_lab::probe::arp::{self, ArpObserver};
use buoy_lab::probe::http::HttpProbe;
use buoy_lab::probe::tcp::TcpProbe;
use buoy_lab::probe::udp::UdpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::{ECHO_PORT, HTTP_PORT, Segment};
use buoy_lab::topology::{Topology, ipv4, ipv6};
use buoy_lab::trial::Session;
use buoy_lab::{agent, command, privilege, skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const NOTHING: [String; 0] = [];

/// A segment, or the reason why there is none.
fn segment(test: &str) -> Option<Segment> {
    if let Some(reason) = privilege::missing() {
        skip(test, &reason);
        return None;
    }
    Some(Segment::build(Topology::with_nodes(2), &mut |_| {}).unwrap())
}

fn wait_answers(observer: &ArpObserver, count: usize) -> Window {
    let from = Instant::now();
    wait_until(5000 * MS, "questions of the observer", || {
        Ok(count <= observer.asked(Window { from, to: Instant::now() }))
    })
    .unwrap();
    // The last questions have their answers a beat later.
    Window { from, to: Instant::now() - 5 * MS }
}

#[test]
fn the_observer_sees_two_answerers_and_only_then() {
    let Some(segment) = segment("the_observer_sees_two_answerers_and_only_then") else { return };
    let vip = ipv4(100);
    let observer = ArpObserver::start(segment.inside("observer").unwrap(), &[vip]).unwrap();

    let nobody = wait_answers(&observer, 100);
    assert_eq!(observer.answers(vip, nobody), []);

    segment.inside("n1").unwrap().ip("addr add 10.77.0.100/24 dev eth0").unwrap();
    let one = wait_answers(&observer, 200);
    assert!(observer.answers(vip, one).len() > 50, "one answers");
    assert_eq!(observer.owner(vip), Some(segment.host("n1").unwrap().mac()));
    assert_eq!(observer.answered_by_two(vip, one), []);

    segment.inside("n2").unwrap().ip("addr add 10.77.0.100/24 dev eth0").unwrap();
    let two = wait_answers(&observer, 200);
    assert!(observer.answered_by_two(vip, two).len() > 50, "two answer");
    assert_eq!(observer.owner(vip), None);
}

#[test]
fn the_observer_sees_announcements_and_frames_can_be_forged() {
    let test = "the_observer_sees_announcements_and_frames_can_be_forged";
    let Some(segment) = segment(test) else { return };
    let vip = ipv4(100);
    let observer = ArpObserver::start(segment.inside("observer").unwrap(), &[vip]).unwrap();
    let from = Instant::now();
    let forged = [2, 0, 0, 0, 0, 9];
    arp::inject(segment.inside("client").unwrap(), &arp::gratuitous(forged, vip)).unwrap();
    let seen = || observer.announcements(vip, Window { from, to: Instant::now() });
    wait_until(2000 * MS, "the announcement", || Ok(!seen().is_empty())).unwrap();
    assert_eq!(seen()[0].mac, forged);
}

#[test]
fn a_silent_cut_is_an_outage_of_its_length_and_leaves_the_carrier() {
    let test = "a_silent_cut_is_an_outage_of_its_length_and_leaves_the_carrier";
    let Some(segment) = segment(test) else { return };
    let to = SocketAddr::from((segment.host("web1").unwrap().ipv4(), ECHO_PORT));
    let probe = UdpProbe::start(segment.inside("client").unwrap(), to).unwrap();
    wait_until(5000 * MS, "a stream", || Ok(200 * MS < probe.well_for())).unwrap();

    let from = Instant::now();
    let cut =
        |from_host, to_host| buoy_lab::switch::PortRule { from_host, to_host, loss_percent: 0 };
    segment.switch.set_rule("web1", cut(true, true)).unwrap();
    let silent = Instant::now();
    let lost = || probe.figures(Window { from: silent, to: Instant::now() - 50 * MS }).lost;
    wait_until(5000 * MS, "losses", || Ok(lost() > 200)).unwrap();
    let links = segment.inside("web1").unwrap().ip("link show eth0").unwrap();
    assert!(links.contains("LOWER_UP"), "{links}");
    segment.switch.set_rule("web1", cut(false, false)).unwrap();
    let healed = Instant::now();
    wait_until(5000 * MS, "a stream", || Ok(200 * MS < probe.well_for())).unwrap();

    let figures = probe.figures(Window { from, to: Instant::now() - 50 * MS });
    assert!(200 * MS <= figures.outage && figures.outage <= healed - from + 50 * MS, "{figures:?}");
    assert_eq!(figures.by, ["web1"]);
}

#[test]
fn a_capture_holds_what_passed_the_switch() {
    let test = "a_capture_holds_what_passed_the_switch";
    if command::find("tcpdump").is_none() {
        return skip(test, "tcpdump is not installed");
    }
    let Some(segment) = segment(test) else { return };
    let file = segment.file("all.pcap");
    let capture = Capture::start(segment.switch.namespace(), "br0", &file).unwrap();
    let to = SocketAddr::from((segment.host("web1").unwrap().ipv4(), ECHO_PORT));
    let probe = UdpProbe::start(segment.inside("client").unwrap(), to).unwrap();
    let length = || std::fs::metadata(&file).map_or(0, |file| file.len());
    // The header of a pcap file has 24 bytes, a question and its answer more than 50 each.
    wait_until(5000 * MS, "captured frames", || Ok(1000 < length())).unwrap();
    drop(probe);
    drop(capture);
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.windows(4).any(|window| window == b"web1"), "an answer with its name");
}

#[test]
fn an_unplugged_host_loses_its_carrier_and_gets_it_back() {
    let test = "an_unplugged_host_loses_its_carrier_and_gets_it_back";
    let Some(segment) = segment(test) else { return };
    let inside = segment.inside("n1").unwrap();
    for (up, sign) in [(false, "NO-CARRIER"), (true, "LOWER_UP")] {
        segment.switch.set_carrier("n1", up).unwrap();
        wait_until(5000 * MS, sign, || Ok(inside.ip("link show eth0")?.contains(sign))).unwrap();
    }
}

#[test]
fn connections_and_requests_notice_a_dead_backend() {
    let test = "connections_and_requests_notice_a_dead_backend";
    let Some(mut segment) = segment(test) else { return };
    for address in [ipv4(21).into(), ipv6(21).into()] {
        let client = segment.inside("client").unwrap();
        let address: std::net::IpAddr = address;
        let http = HttpProbe::start(client, (address, HTTP_PORT).into(), 5 * MS).unwrap();
        let tcp = TcpProbe::start(client, (address, ECHO_PORT).into(), 10).unwrap();
        let from = Instant::now();
        let requests = || http.figures(Window { from, to: Instant::now() });
        wait_until(5000 * MS, "answers", || Ok(requests().by.get("web1") > Some(&20))).unwrap();
        wait_until(5000 * MS, "lines", || Ok(tcp.figures(from).survived == 10)).unwrap();
        assert_eq!(requests().lost, 0);
        assert_eq!(tcp.backends(), [("web1".to_owned(), 10)]);

        segment.backend("web1").unwrap().set_listening(false);
        wait_until(5000 * MS, "refusals", || Ok(requests().lost > 0)).unwrap();
        wait_until(5000 * MS, "resets", || Ok(tcp.figures(from).broken == 10)).unwrap();
        segment.backend("web1").unwrap().set_listening(true);
        let again = Instant::now();
        let requests = || http.figures(Window { from: again, to: Instant::now() });
        wait_until(5000 * MS, "answers", || Ok(requests().by.get("web1") > Some(&20))).unwrap();
    }
}

#[test]
fn keepalived_fails_over_in_the_lab_and_its_leftover_is_seen() {
    let test = "keepalived_fails_over_in_the_lab_and_its_leftover_is_seen";
    if command::find("keepalived").is_none() {
        return skip(test, "keepalived is not installed");
    }
    let Some(segment) = segment(test) else { return };
    let mut peer = Keepalived::new(ipv4(100), 100 * MS).unwrap();
    for node in peer.nodes() {
        peer.start(&segment, node).unwrap();
    }
    let mut session = Session::begin(&segment, &mut peer, ipv4(100)).unwrap();

    let cut = session.trial(Fault::SilentCut, |_, _| {}).unwrap().unwrap();
    assert!(cut.to.is_some(), "{cut:?}");
    assert!(MS < cut.outage && cut.outage < 2000 * MS, "{cut:?}");

    // A killed VRRP daemon leaves its address behind: the very thing that Buoy is to prevent.
    let kill = session.trial(Fault::Kill, |_, _| {}).unwrap().unwrap();
    assert!(100 * MS < kill.two_answerers, "{kill:?}");
}

/// The namespaces of the lab of a process.
fn namespaces_of(pid: u32) -> Vec<String> {
    buoy_lab::namespace::of_run(&pid.to_string())
}

#[test]
fn a_panic_leaves_nothing_behind() {
    let Some(segment) = segment("a_panic_leaves_nothing_behind") else { return };
    let folder = segment.folder().to_owned();
    assert_ne!(namespaces_of(std::process::id()), NOTHING);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _gone_with_the_panic = segment;
        panic!("as a test would");
    }));
    assert!(panic.is_err());
    assert_eq!(namespaces_of(std::process::id()), NOTHING);
    assert!(!folder.exists());
}

#[test]
fn ctrl_c_takes_the_lab_down() {
    let test = "ctrl_c_takes_the_lab_down";
    if let Some(reason) = privilege::missing() {
        return skip(test, &reason);
    }
    let program = match agent::program() {
        Ok(program) => program,
        Err(error) => return skip(test, &error.to_string()),
    };
    let mut demo = Command::new(program)
        .args(["lab", "demo", "--quick", "--no-peers"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = demo.id();
    wait_until(10_000 * MS, "a lab", || Ok(namespaces_of(pid).len() == 8)).unwrap();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGINT).unwrap();
    wait_until(10_000 * MS, "its end", || Ok(demo.try_wait().is_ok_and(|end| end.is_some())))
        .unwrap();
    assert_eq!(namespaces_of(pid), NOTHING);
    // Agents may have been about to start.
    assert_eq!(processes_of(pid), NOTHING);
}

/// Programs that were started with files of a run.
fn processes_of(pid: u32) -> Vec<String> {
    let folder = format!("buoy-lab-{pid}-");
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|one| std::fs::read(one.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&folder)).collect()
}

#[test]
fn a_lab_that_stays_serves_until_it_is_taken_down() {
    let test = "a_lab_that_stays_serves_until_it_is_taken_down";
    if let Some(reason) = privilege::missing() {
        return skip(test, &reason);
    }
    if !buoy_lab::namespace::of_run("lab").is_empty() {
        return skip(test, "somebody's `buoy lab up` stands on this machine");
    }
    let program = match agent::program() {
        Ok(program) => program,
        Err(error) => return skip(test, &error.to_string()),
    };
    let lab = |verb| Command::new(&program).args(["lab", verb]).output().unwrap();
    let up = lab("up");
    let said = String::from_utf8_lossy(&up.stdout).into_owned();
    let served = || {
        let words = ["netns", "exec", "buoy-lab-client", "sh", "-c"];
        let ask = "exec 3<>/dev/tcp/10.77.0.100/80 && printf 'GET / HTTP/1.1\\r\\n\
                   Connection: close\\r\\n\\r\\n' >&3 && head -1 <&3";
        let ask = format!("bash -c \"{ask}\"");
        let answer = Command::new("ip").args(words).arg(ask).output();
        Ok(answer.is_ok_and(|a| String::from_utf8_lossy(&a.stdout).contains("200 OK")))
    };
    let answered = wait_until(15_000 * MS, "an answer of the VIP", served);
    let down = lab("down");
    assert!(up.status.success() && said.contains("buoy-lab-n1"), "{said}");
    answered.unwrap();
    assert!(down.status.success());
    assert_eq!(buoy_lab::namespace::of_run("lab"), NOTHING);
}
