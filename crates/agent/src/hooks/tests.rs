//! Hooks, with real programs and a server that is not always well.

use super::*;
use crate::health::BackendHealth;
use crate::sample;
use buoy_kernel::clock;
use buoy_model::{Cause, Epoch, Fact, Group, HookAct, HookStyle, VrrpState};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

fn sample() -> Desired {
    let backends = vec![sample::backend("web1", "192.0.2.21:80")];
    let service = sample::service(buoy_model::Mode::Kernel, "192.0.2.1", 80, backends);
    sample::desired(&["192.0.2.1"], "eth0", vec![service])
}

fn hook(name: &str, act: HookAct) -> Hook {
    let topics = HookTopic::ALL.to_vec();
    Hook { name: name.into(), act, topics, groups: Vec::new(), timeout: Duration::from_secs(10) }
}

fn hooks(hooks: Vec<Hook>) -> (Hooks, watch::Sender<Arc<Desired>>) {
    let desired = Desired { hooks, ..sample() };
    let (sender, receiver) = watch::channel(Arc::new(desired));
    (Hooks::new(receiver), sender)
}

fn message(kind: &'static str) -> Message {
    Message::new(HookTopic::Ownership, kind, Some("web"), format!("it is {kind}"))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + LIMIT;
    while !holds() {
        assert!(std::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn told(hooks: &Hooks) -> [u64; 3] {
    hooks.counters().map(|(_, count)| count)
}

fn script(folder: &Path, text: &str) -> String {
    let path = folder.join("told");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn run(program: String, arguments: &[&str]) -> HookAct {
    let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
    HookAct::Run { program, arguments, user: "nobody".into(), style: HookStyle::Json }
}

/// As `run`, told as keepalived tells.
fn notify(program: String, arguments: &[&str], states: &[VrrpState]) -> HookAct {
    let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
    let style = HookStyle::Keepalived { states: states.to_vec() };
    HookAct::Run { program, arguments, user: "nobody".into(), style }
}

fn acquired(group: GroupId) -> Record {
    let fact = Fact::Acquired { epoch: Epoch(1), cause: Cause::NoOwner, took: Duration::ZERO };
    Record { at: clock::now(), group: Some(group), fact }
}

#[tokio::test]
async fn a_program_hears_of_a_vip_in_order_as_somebody_without_rights() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    // The first event takes longest: the others wait for it.
    let program = script(
        folder.path(),
        "read line; [ $BUOY_KIND = first ] && sleep 0.3; echo \"$(id -un) $1 $BUOY_VIP $line\" >> \"$2\"",
    );
    let out = folder.path().join("out");
    let (hooks, _desired) =
        hooks(vec![hook("file", run(program, &["arg", &out.display().to_string()]))]);
    let web = sample().groups[0].id;
    for kind in ["first", "second", "third"] {
        hooks.tell(Some(web), message(kind));
    }
    until("three are told", || told(&hooks) == [3, 0, 0]).await;
    let text = std::fs::read_to_string(&out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    for (line, kind) in lines.iter().zip(["first", "second", "third"]) {
        let json = line.strip_prefix("nobody arg web ").unwrap();
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(
            (value["kind"].as_str(), value["topic"].as_str()),
            (Some(kind), Some("ownership"))
        );
        assert!(value["id"].is_string() && value["at_ms"].is_u64() && value["node"].is_string());
    }
}

#[tokio::test]
async fn a_vip_whose_hook_hangs_holds_up_no_other_vip() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let program = script(
        folder.path(),
        "read line; [ $BUOY_KIND = hangs ] && sleep 60; echo \"$BUOY_VIP $BUOY_KIND\" >> \"$1\"",
    );
    let out = folder.path().join("out");
    let mut desired = sample();
    let web = desired.groups[0].clone();
    let db = Group { id: GroupId(web.id.0 + 1), name: "db".into(), ..web.clone() };
    desired.groups.push(db.clone());
    desired.hooks = vec![hook("file", run(program, &[&out.display().to_string()]))];
    let (_sender, receiver) = watch::channel(Arc::new(desired));
    let hooks = Hooks::new(receiver);
    let about = |vip, kind| Message::new(HookTopic::Ownership, kind, Some(vip), "so".into());
    hooks.tell(Some(web.id), about("web", "hangs"));
    hooks.tell(Some(web.id), about("web", "waits"));
    hooks.tell(Some(db.id), about("db", "goes"));
    hooks.tell(None, about("none", "goes"));
    until("all others are told", || told(&hooks) == [2, 0, 0]).await;
    let text = std::fs::read_to_string(&out).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["db goes", "none goes"], "what waits behind it comes after it");
}

#[tokio::test]
async fn a_program_that_fails_or_hangs_is_a_problem_until_it_works_again() {
    let folder = tempfile::tempdir().unwrap();
    let program = script(
        folder.path(),
        "case $BUOY_KIND in bad) echo no luck; exit 3;; hangs) sleep 60;; esac",
    );
    let mut slow = hook("p", run(program, &[]));
    slow.timeout = Duration::from_millis(1500);
    let (hooks, _desired) = hooks(vec![slow]);
    hooks.tell(None, message("bad"));
    until("it fails", || told(&hooks) == [0, 1, 0]).await;
    let problems = hooks.problems();
    assert!(
        problems[0].starts_with("hook p: ") && problems[0].ends_with("exit code 3: no luck"),
        "{problems:?}"
    );
    hooks.tell(None, message("hangs"));
    until("it is ended", || told(&hooks) == [0, 2, 0]).await;
    assert!(hooks.problems()[0].ends_with("it took longer than 1.5s"));
    hooks.tell(None, message("good"));
    until("it works again", || told(&hooks) == [1, 2, 0]).await;
    assert_eq!(hooks.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_script_of_keepalived_gets_its_four_arguments_after_its_own() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let program = script(folder.path(), "out=$1; shift; echo \"$# $*\" >> \"$out\"");
    let out = |name: &str| folder.path().join(name).display().to_string();
    let all = notify(program.clone(), &[&out("all"), "own"], &[]);
    let master = notify(program.clone(), &[&out("master")], &[VrrpState::Master]);
    let (hooks, _desired) = hooks(vec![hook("all", all), hook("master", master)]);
    let (_checks, checks) = watch::channel(fitness::States::new());
    let watching = tokio::spawn(hooks.clone().watch_checks(checks));
    until("the beginning is told", || told(&hooks)[0] == 1).await;
    let group = &sample().groups[0];
    hooks.hear(&acquired(group.id));
    // Events are not for them.
    hooks.tell(Some(group.id), message("acquired"));
    hooks.stop().await;
    watching.abort();
    let name = &group.name;
    assert_eq!(told(&hooks), [4, 0, 0], "{:?}", hooks.problems());
    assert_eq!(
        std::fs::read_to_string(out("all")).unwrap(),
        format!(
            "5 own INSTANCE {name} BACKUP 100\n5 own INSTANCE {name} MASTER 100\n5 own INSTANCE {name} STOP 100\n"
        )
    );
    let of_master = std::fs::read_to_string(out("master")).unwrap();
    assert_eq!(of_master, format!("4 INSTANCE {name} MASTER 100\n"));
}

#[tokio::test]
async fn a_named_pipe_is_made_and_what_nobody_reads_yet_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let act = HookAct::Fifo { path: path.display().to_string(), retry: LIMIT };
    let (hooks, _desired) = hooks(vec![hook("pipe", act)]);
    let group = sample().groups[0].clone();
    hooks.hear(&acquired(group.id));
    until("it is made", || path.exists()).await;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let reading = std::thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(std::fs::File::open(path).unwrap()).read_line(&mut line).unwrap();
        line
    });
    until("it is told", || told(&hooks) == [1, 0, 0]).await;
    assert_eq!(reading.join().unwrap(), format!("INSTANCE \"{}\" MASTER 100\n", group.name));
}

#[tokio::test]
async fn what_is_no_pipe_is_not_written_into() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "mine").unwrap();
    let act = HookAct::Fifo { path: path.display().to_string(), retry: LIMIT };
    let (hooks, _desired) = hooks(vec![hook("pipe", act)]);
    hooks.hear(&acquired(sample().groups[0].id));
    until("it fails", || told(&hooks) == [0, 1, 0]).await;
    assert!(hooks.problems()[0].contains("is no named pipe"), "{:?}", hooks.problems());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

/// Answers one request after the other with these statuses, and tells what came: headers, body.
fn server(statuses: Vec<&'static str>) -> (u16, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for status in statuses {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(number) = line.strip_prefix("content-length: ") {
                    length = number.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
            tell.send((head, String::from_utf8(body).unwrap())).unwrap();
        }
    });
    (port, heard)
}

fn post(port: u16, key: Option<String>) -> HookAct {
    let retry = Duration::from_secs(30);
    HookAct::Post { host: "127.0.0.1".into(), port, path: "/x?y=1".into(), ca: None, key, retry }
}

#[tokio::test]
async fn a_server_is_told_signed_and_again_until_it_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("hook.key");
    std::fs::write(&key, "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n")
        .unwrap();
    let (port, heard) = server(vec!["503 Not now", "204 Taken", "410 Gone", "200 OK"]);
    let (hooks, _desired) = hooks(vec![hook("web", post(port, Some(key.display().to_string())))]);
    for kind in ["one", "two", "three"] {
        hooks.tell(None, message(kind));
    }
    until("two are told, one is refused", || told(&hooks) == [2, 1, 0]).await;
    let all: Vec<_> = heard.try_iter().collect();
    let kinds: Vec<String> = all
        .iter()
        .map(|(_, body)| {
            serde_json::from_str::<serde_json::Value>(body).unwrap()["kind"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(kinds, ["one", "one", "two", "three"], "in order, the first one twice");
    let header = |place: usize, name: &str| {
        let line = all[place].0.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap().to_owned()
    };
    assert!(all[0].0.starts_with("POST /x?y=1 HTTP/1.1\r\n"));
    assert_eq!(header(0, "webhook-id"), header(1, "webhook-id"), "the same event");
    assert_ne!(header(1, "webhook-id"), header(2, "webhook-id"));
    let key = buoy_config::key::parse(&std::fs::read_to_string(&key).unwrap()).unwrap();
    let (id, moment) = (header(1, "webhook-id"), header(1, "webhook-timestamp"));
    let expected = deliver::signature(&key, &id, &moment, all[1].1.as_bytes());
    assert_eq!(header(1, "webhook-signature"), expected);
}

#[tokio::test]
async fn a_hook_hears_what_it_asked_for_and_forgets_the_oldest_when_it_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let program = script(folder.path(), "sleep 60");
    let web = sample().groups[0].id;
    let mut one = hook("one", run(program, &[]));
    (one.groups, one.topics) = (vec![web], vec![HookTopic::Ownership]);
    let (hooks, desired) = hooks(vec![one]);
    hooks.tell(None, message("of no VIP"));
    let health = Message { topic: HookTopic::Health, ..message("of another kind") };
    hooks.tell(Some(web), health);
    assert_eq!(lock(&hooks.0.lanes).len(), 0, "nothing to tell");
    for _ in 0..HOOK_QUEUE_MAX + 10 {
        hooks.tell(Some(web), message("much"));
    }
    // One may be on its way already.
    assert!((9..=10).contains(&told(&hooks)[2]), "{:?}", told(&hooks));
    desired.send_replace(Arc::new(Desired { hooks: vec![hook("two", post(9, None))], ..sample() }));
    hooks.tell(None, message("another"));
    let names: Vec<String> = lock(&hooks.0.lanes).keys().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, ["two"]);
}

#[test]
fn a_signature_is_that_of_standard_webhooks() {
    // By Python: base64(hmac(bytes(range(32)), b"msg_1.1700000000.{}", sha256)).
    let mut bytes = [0; 32];
    (0..).zip(&mut bytes).for_each(|(n, byte)| *byte = n);
    let signature = deliver::signature(&buoy_wire::Key::new(bytes), "msg_1", "1700000000", b"{}");
    assert_eq!(signature, "v1,fhksJF5ElKjlPoT/jtefCO5XjQPvhf7Dhf/8R1ad9yU=");
}

#[test]
fn backends_that_turn_are_news_and_their_first_good_answer_is_none() {
    let desired = sample();
    let Some((group, service)) =
        desired.groups.iter().find_map(|group| Some((group, group.services.first()?)))
    else {
        unreachable!("the sample has a service")
    };
    let key = Key::of(group.id, service, "web1");
    let states = |state, reason: &str| {
        let health = BackendHealth {
            state,
            reason: reason.into(),
            since: clock::now(),
            ..BackendHealth::unknown()
        };
        States::from([(key.clone(), health)])
    };
    let mut known = BTreeMap::new();
    let mut kinds = |state, reason: &str| -> Vec<(&'static str, String)> {
        let news = turned(&desired, &mut known, &states(state, reason));
        news.into_iter().map(|(_, m)| (m.kind, m.sentence)).collect()
    };
    assert_eq!(kinds(BackendState::Up, ""), []);
    let down = kinds(BackendState::Down, "refused");
    assert_eq!(down.len(), 1);
    assert_eq!(down[0].0, "backend_down");
    assert!(down[0].1.ends_with("is down: refused"), "{down:?}");
    assert_eq!(kinds(BackendState::Down, "timeout"), [], "a new reason is no news");
    assert_eq!(kinds(BackendState::Up, "")[0].0, "backend_up");
}
