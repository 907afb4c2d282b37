//! What is asked of this host about a backend: programs that are confined, files, processes.

use super::*;
use buoy_model::Running;
use std::os::unix::fs::PermissionsExt as _;

/// A backend that nobody connects to.
fn address() -> SocketAddr {
    ([10, 0, 0, 21], 8443).into()
}

fn shell(script: &str, weighs: bool) -> CheckKind {
    let arguments = ["-c", script].map(str::to_owned).to_vec();
    CheckKind::Exec { program: "/bin/sh".into(), arguments, user: "nobody".into(), weighs }
}

/// As `super::verdict`, with time for a program to start on a machine that has much to do.
async fn verdict(kind: CheckKind, address: SocketAddr) -> BackendHealth {
    let check = check(kind);
    let pace = Pace { timeout: PATIENCE, ..check.pace };
    let (_keep, desired) = watch::channel(desired(Check { pace, ..check }, &[("web", address)]));
    let health = start(desired);
    let mut states = health.states();
    let seen = states.wait_for(|all| all.values().any(|k| k.state != BackendState::Unknown));
    let seen = time::timeout(PATIENCE, seen).await.expect("no verdict").unwrap();
    seen.values().next().unwrap().clone()
}

async fn reason(kind: CheckKind) -> String {
    let known = verdict(kind, address()).await;
    assert_eq!(known.state, BackendState::Down, "{}", known.reason);
    known.reason
}

#[tokio::test]
async fn a_program_knows_its_backend_and_decides_by_its_exit() {
    let known = verdict(shell("exit 0", false), address()).await;
    assert_eq!((known.state, known.reason.as_str()), (BackendState::Up, ""));
    let said = reason(shell("echo $BUOY_BACKEND at $BUOY_ADDRESS $BUOY_PORT; exit 4", false)).await;
    assert_eq!(said, "exit code 4: web at 10.0.0.21 8443");
    let arguments = vec!["-c".to_owned(), "echo {name} {address}:{port}; exit 1".to_owned()];
    let user = "nobody".to_owned();
    let kind = CheckKind::Exec { program: "/bin/sh".into(), arguments, user, weighs: false };
    assert_eq!(reason(kind).await, "exit code 1: web 10.0.0.21:8443");
    let known = super::verdict(shell("sleep 10", false), address()).await;
    assert_eq!(known.reason, "timed out after 200ms");
}

#[tokio::test]
async fn a_program_has_no_rights_and_no_way_to_get_any() {
    let said = reason(shell("id -u; id -G; id -g; exit 1", false)).await;
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (nobody.uid, nobody.gid);
    assert_eq!(said, format!("exit code 1: {uid} {gid} {gid}"), "one user, one group");
    let status = "grep -E 'Cap(Prm|Eff|Amb)|NoNewPrivs' /proc/self/status; exit 1";
    let said = reason(shell(status, false)).await;
    let words: Vec<&str> = said.split_whitespace().skip(3).collect();
    let none = "0000000000000000";
    let expected = ["CapPrm:", none, "CapEff:", none, "CapAmb:", none, "NoNewPrivs:", "1"];
    assert_eq!(words[words.len() - 8..], expected, "{said}");
    let mut kind = shell("exit 0", false);
    let CheckKind::Exec { user, .. } = &mut kind else { unreachable!() };
    *user = "no-such-user".to_owned();
    assert_eq!(reason(kind.clone()).await, "this host has no user no-such-user");
    let CheckKind::Exec { user, .. } = &mut kind else { unreachable!() };
    *user = "00".to_owned();
    assert_eq!(reason(kind).await, "00 is root, as whom no such program is run");
}

#[tokio::test]
async fn a_program_or_a_file_may_say_what_share_the_backend_takes() {
    let known = verdict(shell("echo 40%; echo and more", true), address()).await;
    assert_eq!((known.state, known.share), (BackendState::Up, 40));
    assert_eq!(known.reason, "/bin/sh says 40% of its weight");
    assert_eq!(reason(shell("echo down '#' repairs", true)).await, "/bin/sh says down: repairs");
    let known = verdict(shell("echo 40%", false), address()).await;
    assert_eq!(known.share, 100, "nobody asked");
}

#[tokio::test]
async fn a_file_must_be_there_hold_its_text_and_be_new() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("{name}-{port}").to_str().unwrap().to_owned();
    let real = folder.path().join("web-8443");
    let file = |contains: Option<&str>, age_max, weighs| CheckKind::File {
        path: path.clone(),
        contains: contains.map(str::to_owned),
        age_max,
        weighs,
    };
    let plain = || file(None, None, false);
    assert_eq!(reason(plain()).await, format!("{} is not there", real.display()));
    let ready = || file(Some("ready"), None, false);
    assert_eq!(reason(ready()).await, format!("{} is not there", real.display()));
    std::fs::write(&real, "70\nnot yet").unwrap();
    assert_eq!(verdict(plain(), address()).await.state, BackendState::Up);
    assert_eq!(reason(ready()).await, format!("\"ready\" is not in {}", real.display()));
    let known = verdict(file(None, None, true), address()).await;
    assert_eq!((known.state, known.share), (BackendState::Up, 70));
    let minute = Some(Duration::from_secs(60));
    assert_eq!(verdict(file(None, minute, false), address()).await.state, BackendState::Up);
    let hour = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::options().append(true).open(&real).unwrap().set_modified(hour).unwrap();
    let said = reason(file(None, minute, false)).await;
    assert!(said.contains(" was written 360"), "{said}");
    std::fs::remove_file(&real).unwrap();
    nix::unistd::mkfifo(&real, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(reason(ready()).await, format!("{} is not a file", real.display()));
}

#[tokio::test]
async fn a_process_is_found_by_its_name_or_its_pidfile() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("buoy-check-me");
    std::fs::copy("/bin/sleep", &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let called = || CheckKind::Process(Running::Called("buoy-check-me".into()));
    assert_eq!(reason(called()).await, "no process is called buoy-check-me");
    let mut child = std::process::Command::new(&program).arg("60").spawn().unwrap();
    assert_eq!(verdict(called(), address()).await.state, BackendState::Up);
    let path = folder.path().join("pid");
    let pidfile = || CheckKind::Process(Running::In(path.to_str().unwrap().into()));
    assert_eq!(reason(pidfile()).await, format!("{} is not there", path.display()));
    std::fs::write(&path, "12x\n").unwrap();
    let said = format!("{} holds no number of a process", path.display());
    assert_eq!(reason(pidfile()).await, said);
    std::fs::write(&path, format!("{}\n", child.id())).unwrap();
    assert_eq!(verdict(pidfile(), address()).await.state, BackendState::Up);
    child.kill().unwrap();
    // Not yet reaped: it is a zombie, which serves nobody.
    let said = format!("process {} of {} does not run", child.id(), path.display());
    let mut seen = String::new();
    for _ in 0..50 {
        let known = verdict(pidfile(), address()).await;
        seen = known.reason;
        if known.state == BackendState::Down {
            break;
        }
    }
    assert_eq!(seen, said);
    child.wait().unwrap();
}
