//! Real processes, programs, files, sockets and interfaces: what each check says of this host.

use super::*;
use crate::health::BackendHealth;
use crate::sample::{self, GROUP, PATIENCE};
use buoy_model::{CheckKind, Mode, NodeCheckKind, NodeId, Pace};
use nix::sched::{CloneFlags, unshare};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use tokio::net::TcpListener;
use tokio::time;

const QUICK: Duration = Duration::from_millis(20);

fn check(name: &str, kind: NodeCheckKind) -> NodeCheck {
    // Far more time than an answer takes; what takes longer says so itself.
    let (every, every_down) = (QUICK, QUICK);
    let pace = Pace { every, every_down, timeout: PATIENCE, rise: 1, fall: 1 };
    NodeCheck { name: name.into(), kind, pace, weight: None }
}

fn shell(script: &str) -> NodeCheckKind {
    let arguments = vec!["-c".to_owned(), script.to_owned()];
    NodeCheckKind::Exec { program: "/bin/sh".into(), arguments }
}

fn file(path: &Path, present: bool) -> NodeCheckKind {
    NodeCheckKind::File { path: path.to_str().unwrap().into(), present }
}

fn desired(checks: Vec<NodeCheck>) -> Arc<Desired> {
    let mut desired = sample::desired(&["10.0.0.100"], "eth0", vec![]);
    desired.groups[0].checks = checks;
    Arc::new(desired)
}

fn key(check: &str) -> Key {
    Key { group: GROUP, check: check.into() }
}

/// Waits until the check is in this state, and returns why.
async fn until(states: &mut watch::Receiver<States>, check: &str, state: BackendState) -> String {
    let is_so = |all: &States| all.get(&key(check)).is_some_and(|known| known.state == state);
    let seen = time::timeout(PATIENCE, states.wait_for(is_so)).await;
    seen.expect("never came to be").unwrap()[&key(check)].reason.clone()
}

/// The first verdict on one check.
async fn verdict(check: NodeCheck) -> (BackendState, String) {
    let name = check.name.clone();
    let (_keep, desired) = watch::channel(desired(vec![check]));
    let checks = start(desired);
    let mut states = checks.states();
    let seen = time::timeout(PATIENCE, states.wait_for(|all| !all.is_empty())).await;
    let known = seen.expect("no verdict").unwrap()[&key(&name)].clone();
    (known.state, known.reason)
}

async fn why_not(kind: NodeCheckKind) -> String {
    let (state, reason) = verdict(check("asked", kind)).await;
    assert_eq!(state, BackendState::Down, "{reason}");
    reason
}

/// Whether a process runs; one that waits for its parent does not.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits until a script has written a process number, and returns it.
async fn pid_in(path: &Path) -> String {
    let written = async {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if let Some(pid) = text.strip_suffix('\n') {
                return pid.to_owned();
            }
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    time::timeout(PATIENCE, written).await.expect("the script never ran")
}

async fn ends(pid: &str) {
    let ended = async {
        while runs(pid) {
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    time::timeout(PATIENCE, ended).await.expect("the process lives on");
}

fn known(state: BackendState) -> CheckState {
    let (since, answered) = (Instant::ZERO, Instant::ZERO);
    CheckState { state, reason: String::new(), since, answered }
}

#[test]
fn a_check_that_fails_weighs_more_than_lost_backends_and_no_answer_passes() {
    use BackendState::{Down, Unknown, Up};
    let fails = |name: &str| Fitness::CheckFails { check: name.into() };
    let cases = [
        (None, None, false, Fitness::Fit),
        (Some(Unknown), Some(Up), false, Fitness::Fit),
        (Some(Down), Some(Up), false, fails("first")),
        (Some(Up), Some(Down), false, fails("second")),
        (Some(Down), Some(Down), false, fails("first")),
        (Some(Up), Some(Up), true, Fitness::NoBackend),
        (None, Some(Down), true, fails("second")),
    ];
    let mut wish = sample::desired(&["10.0.0.100"], "eth0", vec![]);
    let backend = sample::backend("web", "10.0.0.21:80");
    let service = sample::service(Mode::Kernel, "10.0.0.100", 80, vec![backend]);
    let of_backend = health::Key::of(GROUP, &service, "web");
    wish.groups[0].services = vec![service];
    let link = || NodeCheckKind::Link { name: "eth1".into() };
    wish.groups[0].checks = vec![check("first", link()), check("second", link())];
    for (first, second, backend_down, expected) in cases {
        let states = [("first", first), ("second", second)];
        let states = states.into_iter().filter_map(|(name, s)| Some((key(name), known(s?))));
        let state = if backend_down { Down } else { Unknown };
        let (reason, since, last_latency) = (String::new(), Instant::ZERO, None);
        let health = BackendHealth {
            state,
            reason,
            urgent: false,
            since,
            last_latency,
            share: 100,
            load: None,
            ordered: None,
        };
        let backends = health::States::from([(of_backend.clone(), health)]);
        let judged = judge(&wish, &states.collect(), &backends, |_, _| false);
        let expected = Judged { group: GROUP, fitness: expected, weight: 0 };
        assert_eq!(judged, [expected], "{first:?} {second:?} {backend_down}");
    }
}

#[test]
fn checks_that_weigh_something_decide_nothing_and_add_up() {
    use BackendState::{Down, Up};
    let mut wish = sample::desired(&["10.0.0.100"], "eth0", vec![]);
    let link = || NodeCheckKind::Link { name: "eth1".into() };
    let weighs = |name, weight| NodeCheck { weight: Some(weight), ..check(name, link()) };
    wish.groups[0].checks = vec![weighs("bonus", 10), weighs("malus", -30)];
    let cases = [
        (None, None, 10),
        (Some(Up), Some(Up), 10),
        (Some(Down), Some(Up), 0),
        (Some(Up), Some(Down), -20),
        (Some(Down), Some(Down), -30),
    ];
    for (bonus, malus, weight) in cases {
        let states = [("bonus", bonus), ("malus", malus)];
        let states = states.into_iter().filter_map(|(name, s)| Some((key(name), known(s?))));
        let judged = judge(&wish, &states.collect(), &health::States::new(), |_, _| false);
        assert_eq!(judged, [Judged { group: GROUP, fitness: Fitness::Fit, weight }]);
    }
}

#[test]
fn the_loop_hears_what_is_new_and_all_of_it_after_a_reload() {
    let judged = |id, fitness| Judged { group: GroupId(id), fitness, weight: 0 };
    let all = |second| vec![judged(1, Fitness::Fit), judged(2, second)];
    let nothing = Told::default();
    assert_eq!(nothing.news(1, &all(Fitness::Fit)), all(Fitness::Fit));
    let told = Told { generation: 1, groups: all(Fitness::Fit) };
    assert_eq!(told.news(1, &all(Fitness::Fit)), []);
    let second = judged(2, Fitness::NoBackend);
    assert_eq!(told.news(1, &all(Fitness::NoBackend)), [second]);
    assert_eq!(told.news(2, &all(Fitness::Fit)), all(Fitness::Fit));
}

#[tokio::test]
async fn a_file_decides_by_its_presence_or_its_absence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maintenance");
    let checks = vec![check("there", file(&path, true)), check("gone", file(&path, false))];
    let (_keep, desired) = watch::channel(desired(checks));
    let checks = start(desired);
    let mut states = checks.states();
    let shown = path.display();
    for _round in 0..2 {
        let reason = until(&mut states, "there", BackendState::Down).await;
        assert_eq!(reason, format!("{shown} is not there"));
        assert_eq!(until(&mut states, "gone", BackendState::Up).await, "");
        std::fs::write(&path, "").unwrap();
        assert_eq!(until(&mut states, "there", BackendState::Up).await, "");
        let reason = until(&mut states, "gone", BackendState::Down).await;
        assert_eq!(reason, format!("{shown} is there"));
        std::fs::remove_file(&path).unwrap();
    }
    // What cannot be looked at is neither there nor gone.
    let within = folder.path().join("file/within");
    std::fs::write(folder.path().join("file"), "").unwrap();
    for present in [true, false] {
        let reason = why_not(file(&within, present)).await;
        assert!(reason.starts_with("cannot look for "), "{reason}");
    }
}

#[tokio::test]
async fn a_process_counts_while_it_runs_and_not_while_it_waits_for_its_parent() {
    let folder = tempfile::tempdir().unwrap();
    // Longer than the kernel keeps of a name, so that the cut is tested as well.
    let name = format!("buoy-{}-sleeps-on", std::process::id());
    let program = folder.path().join(&name);
    std::fs::copy("/bin/sleep", &program).unwrap();
    let kind = NodeCheckKind::Process { name: name.clone() };
    assert_eq!(why_not(kind.clone()).await, format!("no process is called {}", &name[..15]));
    let (_keep, desired) = watch::channel(desired(vec![check("sleep", kind)]));
    let checks = start(desired);
    let mut states = checks.states();
    until(&mut states, "sleep", BackendState::Down).await;
    for _round in 0..2 {
        let mut child = Program::new(&program).arg("1000").spawn().unwrap();
        until(&mut states, "sleep", BackendState::Up).await;
        child.kill().unwrap();
        // Not reaped yet: it is still in /proc.
        until(&mut states, "sleep", BackendState::Down).await;
        child.wait().unwrap();
    }
}

#[tokio::test]
async fn a_server_on_this_host_is_asked_like_a_backend() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let kind = NodeCheckKind::Server { address, kind: CheckKind::Tcp };
    let (_keep, desired) = watch::channel(desired(vec![check("server", kind)]));
    let checks = start(desired);
    let mut states = checks.states();
    until(&mut states, "server", BackendState::Up).await;
    drop(server);
    assert_eq!(until(&mut states, "server", BackendState::Down).await, "connection refused");
}

#[tokio::test]
async fn a_program_decides_by_its_exit_and_its_words_are_the_reason() {
    let exec = |program: &str| NodeCheckKind::Exec { program: program.into(), arguments: vec![] };
    assert_eq!(verdict(check("true", exec("/bin/true"))).await, (BackendState::Up, String::new()));
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o644)).unwrap();
    let plain = plain.to_str().unwrap();
    let cases = [
        (exec("/bin/false"), "exit code 1".to_owned()),
        (
            shell("echo to stdout; echo to stderr >&2; exit 3"),
            "exit code 3: to stdout to stderr".into(),
        ),
        (shell("kill -9 $$"), "ended by signal 9".into()),
        (exec("/no/such/program"), "there is no program /no/such/program".into()),
        (exec(plain), format!("{plain} may not be run: make it executable (chmod +x)")),
    ];
    for (kind, expected) in cases {
        assert_eq!(why_not(kind).await, expected);
    }
}

#[tokio::test]
async fn a_program_gets_nothing_of_the_agent() {
    // Inherited from whoever started the agent, or forgotten by a library.
    let open = std::fs::File::open("/dev/null").unwrap();
    let inherits = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
    nix::fcntl::fcntl(&open, inherits).unwrap();
    let said = why_not(shell(&format!(
        "for n in $(seq 0 99) {}; do [ -e /proc/$$/fd/$n ] && echo $n; done; exit 1",
        std::os::fd::AsRawFd::as_raw_fd(&open)
    )))
    .await;
    assert_eq!(said, "exit code 1: 0 1 2", "descriptors");
    assert_eq!(why_not(shell("pwd; exit 1")).await, "exit code 1: /", "folder");
    assert_eq!(why_not(shell("cat; exit 1")).await, "exit code 1", "input");
    let said = why_not(NodeCheckKind::Exec {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), "tr '\\0' ' ' </proc/$$/environ; exit 1".into()],
    });
    let said = said.await;
    assert!(said.starts_with("exit code 1: PATH=/usr/local/sbin:") || said.contains(" PATH="));
    assert_eq!(said.matches('=').count(), 2, "{said}");
    // The group of the program is its own: its leader is the shell itself.
    let said = why_not(shell("cut -d' ' -f5 /proc/$$/stat; echo $$; exit 1")).await;
    let numbers: Vec<&str> = said.trim_start_matches("exit code 1: ").split(' ').collect();
    assert_eq!(numbers[0], numbers[1], "{said}");
}

#[tokio::test]
async fn a_program_that_talks_too_much_is_read_to_its_end_and_shown_in_part() {
    let reason = why_not(shell("head -c 1000000 /dev/zero | tr '\\0' x; exit 1")).await;
    assert!(reason.starts_with("exit code 1: xxx"), "{reason}");
    assert!(reason.len() < 600, "{}", reason.len());
}

#[tokio::test]
async fn a_timeout_ends_a_program_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let timeout = Duration::from_millis(500);
    // Deaf to a kind request, and noisy.
    let script = format!(
        "trap '' TERM; (trap '' TERM; sleep 1000 & echo $! >{}.new; mv {}.new {}; wait) & yes",
        path.display(),
        path.display(),
        path.display()
    );
    let asked = check("slow", shell(&script));
    let asked = NodeCheck { pace: Pace { timeout, ..asked.pace }, ..asked };
    let (_keep, desired) = watch::channel(desired(vec![asked]));
    let checks = start(desired);
    let mut states = checks.states();
    let grandchild = pid_in(&path).await;
    assert_eq!(until(&mut states, "slow", BackendState::Down).await, "timed out after 500ms");
    ends(&grandchild).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! >{}", path.display());
    let (state, reason) = verdict(check("forks", shell(&script))).await;
    assert_eq!((state, reason.as_str()), (BackendState::Up, ""));
    ends(&pid_in(&path).await).await;
}

#[tokio::test]
async fn a_reload_ends_the_program_of_a_check_that_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let script = format!("echo $$ >{}; exec sleep 1000", path.display());
    let (change, watched) = watch::channel(desired(vec![check("long", shell(&script))]));
    let _checks = start(watched);
    let pid = pid_in(&path).await;
    assert!(runs(&pid));
    change.send(desired(vec![])).unwrap();
    ends(&pid).await;
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_of_a_check_whose_question_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("a"), folder.path().join("b"));
    let kept = check("kept", file(&path, true));
    let changed = check("changed", file(&path, true));
    let (change, watched) = watch::channel(desired(vec![kept.clone(), changed.clone()]));
    let checks = start(watched);
    let mut states = checks.states();
    until(&mut states, "kept", BackendState::Down).await;
    until(&mut states, "changed", BackendState::Down).await;
    let since = states.borrow()[&key("kept")].since;

    // Another rhythm is the same question; nobody asks it again before this test is over.
    let hour = Duration::from_secs(3600);
    let kept = NodeCheck { pace: Pace { every: hour, ..kept.pace }, ..kept };
    let changed = NodeCheck { kind: file(&other, true), ..changed };
    let fall = NodeCheck { pace: Pace { fall: 2, ..changed.pace }, ..changed };
    std::fs::write(&other, "").unwrap();
    change.send(desired(vec![kept, fall])).unwrap();
    until(&mut states, "changed", BackendState::Up).await;
    let known = states.borrow()[&key("kept")].clone();
    assert_eq!((known.state, known.since), (BackendState::Down, since));

    change.send(desired(vec![])).unwrap();
    let empty = states.wait_for(States::is_empty);
    time::timeout(PATIENCE, empty).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_many_groups_ask_alike_is_asked_once_and_known_to_all() {
    let folder = tempfile::tempdir().unwrap();
    let (count, fails) = (folder.path().join("count"), folder.path().join("fails"));
    let script = format!("echo >>{}; [ ! -e {} ]", count.display(), fails.display());
    let mut wish = sample::desired(&["10.0.0.100"], "eth0", vec![]);
    let group = wish.groups[0].clone();
    wish.groups =
        (0..100).map(|id| buoy_model::Group { id: GroupId(id), ..group.clone() }).collect();
    for (number, group) in wish.groups.iter_mut().enumerate() {
        let every = Duration::from_secs(if number == 0 { 3600 } else { 1 });
        let asked = check(&format!("c{number}"), shell(&script));
        group.checks = vec![NodeCheck { pace: Pace { every, ..asked.pace }, ..asked }];
    }
    assert_eq!(share(&wanted(&wish)).len(), 2, "the first asks in another rhythm");
    let (_keep, desired) = watch::channel(Arc::new(wish));
    let checks = start(desired);
    let mut states = checks.states();
    let all_are = async |states: &mut watch::Receiver<States>, state| {
        let is_so = |all: &States| all.values().skip(1).filter(|k| k.state == state).count() == 99;
        time::timeout(PATIENCE, states.wait_for(is_so)).await.unwrap().unwrap();
    };
    all_are(&mut states, BackendState::Up).await;
    std::fs::write(&fails, "").unwrap();
    all_are(&mut states, BackendState::Down).await;
    let asked = std::fs::read_to_string(&count).unwrap().len();
    assert!(asked < 50, "{asked} questions");
}

#[tokio::test]
async fn a_host_that_cannot_own_a_group_is_not_asked_about_it() {
    let missing = PathBuf::from("/no/such/file");
    let mut foreign = sample::desired(&["10.0.0.100"], "eth0", vec![]);
    foreign.groups[0].checks = vec![check("foreign", file(&missing, true))];
    foreign.groups[0].nodes = vec![NodeId(2)];
    assert!(wanted(&foreign).is_empty());
    foreign.groups[0].nodes.push(foreign.me);
    assert_eq!(wanted(&foreign).len(), 1);
}

#[tokio::test]
async fn a_gateway_without_an_interface_towards_it_is_a_failure_that_says_so() {
    let address = "192.0.2.1".parse().unwrap();
    let reason = why_not(NodeCheckKind::Gateway { address, link: None }).await;
    assert_eq!(reason, "no interface of this host leads to 192.0.2.1");
}

#[test]
fn an_interface_counts_while_it_is_up_with_carrier() {
    let test = "an_interface_counts_while_it_is_up_with_carrier";
    let inside = std::thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: {test}: no network namespace: {error}");
            return;
        }
        let ip = |words: &str| {
            assert!(Program::new("ip").args(words.split(' ')).status().unwrap().success());
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let link = |name: &str| check(name, NodeCheckKind::Link { name: name.into() });
            let (_keep, desired) = watch::channel(desired(vec![link("near")]));
            let checks = start(desired);
            let mut states = checks.states();
            let reason = until(&mut states, "near", BackendState::Down).await;
            assert_eq!(reason, "there is no interface near");
            ip("link add near type veth peer name far");
            ip("link set near up");
            ip("link set far up");
            until(&mut states, "near", BackendState::Up).await;
            ip("link set far down");
            let reason = until(&mut states, "near", BackendState::Down).await;
            assert_eq!(reason, "near is down or has no carrier");
        });
    });
    inside.join().unwrap();
}
