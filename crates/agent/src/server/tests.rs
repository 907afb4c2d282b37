//! The API over a real socket, with a fake daemon behind it.

mod asking;
mod config;
mod described;
mod drills;
mod fake;
mod haproxy;
mod matrix;
mod orders;
mod page;
mod services;
mod streams;
mod support;
mod tcp;
mod whole;
mod writes;

use super::*;
use buoy_api::view::BackendReport;
use buoy_api::{Client, ClientError, Problem};
use buoy_core::backend_orders::BackendOrders;
use buoy_core::{
    Candidate, Exclusion, GroupStatus, Ignored, NodeStatus, Quorum, Slack, Standing, Uptime,
};
use buoy_model::{
    Backend, BackendState, Cause, Cidr, ClusterId, Epoch, Fact, GroupId, Incarnation, Instant,
    LinkId, Mode, Node, NodeId, Ports, Protocol, Record, Service, VipAddress,
};
use fake::Fake;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::sync::oneshot;

fn web_id() -> GroupId {
    GroupId(buoy_model::name_key("web"))
}

pub(super) fn desired() -> Desired {
    let node = |name: &str, last: u8| Node::new(name, ([10, 0, 0, last], 4747).into());
    let witness = Node { witness: true, ..node("w1", 14) };
    let mut nodes = vec![node("lb1", 11), node("lb2", 12), node("lb3", 13), witness];
    nodes.sort_by_key(|n| n.id);
    let mut groups =
        vec![group("web", "10.0.0.100", vec![service()]), group("db", "2001:db8::100", vec![])];
    groups.sort_by_key(|g| g.id);
    Desired {
        digest: 0x7f3c,
        cluster: ClusterId::of("prod"),
        cluster_name: "prod".into(),
        me: NodeId::of("lb1"),
        nodes,
        groups,
        ..crate::sample::desired(&[], "eth0", vec![])
    }
}

fn group(name: &str, address: &str, services: Vec<Service>) -> Group {
    Group {
        services,
        ..Group::new(
            GroupId(buoy_model::name_key(name)),
            name,
            vec![VipAddress {
                cidr: Cidr::new(address.parse().unwrap(), 24).unwrap(),
                link: Some(LinkId(2)),
                link_name: "eth0".into(),
                vip_name: "web".into(),
                presence: buoy_model::Presence::Assigned,
            }],
        )
    }
}

fn service() -> Service {
    let backend = |name: &str, last: u8| Backend::new(name, ([10, 0, 0, last], 8443).into());
    Service::new(
        Mode::Kernel,
        vec![[10, 0, 0, 100].into()],
        Ports::one(443),
        vec![backend("web1", 21), backend("web2", 22), backend("web3", 23)],
    )
}

/// lb1 owns web; nobody owns db; lb2 has been silent for a while and lb3 has another file.
fn known() -> Status {
    let (lb1, lb2, lb3) = (NodeId::of("lb1"), NodeId::of("lb2"), NodeId::of("lb3"));
    let silent = Duration::from_secs(4);
    let node = |id, alive, heard, digest| NodeStatus {
        id,
        alive,
        heard,
        round_trip: None,
        beats: buoy_core::Beats::default(),
        hears_us: alive,
        draining: false,
        silence: Duration::from_millis(40),
        legs: heard.iter().map(|heard| Some(*heard)).collect(),
        witness: false,
        digest,
        votes_in: None,
        owns: usize::from(id == lb1),
    };
    let candidate = |node, standing| Candidate { node, preferred: None, standing };
    let line = |first, second| {
        vec![
            candidate(lb1, first),
            candidate(lb3, second),
            candidate(lb2, Standing::Excluded(Exclusion::Silent(silent))),
        ]
    };
    let group = |name, owner, candidates| GroupStatus {
        id: GroupId(buoy_model::name_key(name)),
        owner,
        epoch: Epoch(7),
        since: Some(Duration::from_secs(60)),
        lease_left: owner.map(|_| Duration::from_millis(44)),
        votes: vec![lb1],
        yields_to: None,
        held: None,
        candidates,
        last_change: None,
        vrrp: vec![],
        refused: vec![],
        uptime: owner.map(|_| Uptime {
            served: Duration::from_secs(999),
            unserved: Duration::from_secs(1),
            ..Uptime::default()
        }),
        slack: owner
            .map(|_| Slack { last: Duration::from_millis(31), least: Duration::from_millis(12) }),
    };
    let excluded = Standing::Excluded(Exclusion::Draining);
    Status {
        at: Instant::from_nanos(1),
        me: lb1,
        incarnation: Incarnation(1),
        generation: 1,
        digest: 0x7f3c,
        draining: None,
        draining_for: None,
        cordoned: None,
        term: Duration::from_millis(50),
        quorum: Quorum::default(),
        overlaps: 2,
        nodes: vec![
            node(lb1, true, None, Some(0x7f3c)),
            node(lb2, false, Some(silent), Some(0x7f3c)),
            node(lb3, true, Some(Duration::from_millis(3)), Some(0xdead)),
        ],
        groups: vec![
            group("web", Some(lb1), line(Standing::Owner, Standing::Candidate)),
            group("db", None, line(Standing::Wants, excluded)),
        ],
        ignored: Ignored { stale: 5, ..Ignored::default() },
    }
}

/// A server on a socket of its own, stopped when the test ends.
struct Running {
    fake: Arc<Fake>,
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<io::Result<()>>>,
}

impl Running {
    fn start() -> Self {
        Self::over(Fake::default())
    }

    fn over(fake: Fake) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("buoy-server-{}-{n}", std::process::id()));
        let path = folder.join("api.sock");
        let fake = Arc::new(fake);
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (agent, at) = (Arc::clone(&fake), path.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let socket = Socket::open(&at).expect("the folder is the test's own");
                let questions = Socket::open_questions(&at).expect("the folder is the test's own");
                ready.send(()).expect("the test waits");
                serve(socket, questions, agent, async { drop(stopped.await) }).await
            })
        });
        is_ready.recv().expect("the server starts");
        Self { fake, path, stop: Some(stop), thread: Some(thread) }
    }

    fn client(&self) -> Client {
        Client::connect(&self.path).unwrap()
    }

    /// Bytes in, bytes out: what a client of another language would see.
    fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(&self.path).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok(), "the server ended in order");
        }
        assert!(!self.path.exists(), "the socket goes with the server");
        drop(std::fs::remove_dir_all(self.path.with_file_name("")));
    }
}

fn problem<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Problem {
    match result {
        Err(ClientError::Refused(problem)) => *problem,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn the_status_speaks_in_names_and_says_what_is_wrong() {
    let server = Running::start();
    let status = server.client().status().unwrap();
    assert_eq!((status.cluster.as_str(), status.node.as_str()), ("prod", "lb1"));
    assert_eq!(status.digest, "00007f3c");
    assert_eq!((status.pid, status.witness, status.overlaps), (Some(7), false, 2));
    assert_eq!((status.timing.lease_ms, status.timing.lease_max_ms), (50.0, 50.0));
    assert_eq!(status.safety.len(), 1, "one explanation for all: {:?}", status.safety);
    assert!(status.safety[0].starts_with("exclusive: never two owners"), "{:?}", status.safety);
    assert_eq!(status.defences, ["the kernel gate stands"]);
    assert_eq!(status.loop_.counters["ignored_stale"], 5);
    let problems = status.problems.join("\n");
    assert!(problems.contains("lb3 runs another configuration"), "{problems}");
    assert!(!problems.contains("lb2"), "a silent node's digest is old news: {problems}");
    let states: Vec<_> = status.nodes.iter().map(|n| (n.name.as_str(), n.state.as_str())).collect();
    assert!(states.contains(&("lb1", "healthy")), "{states:?}");
    assert!(states.contains(&("lb2", "silent for 4.0 s")), "{states:?}");

    let web = status.vips.iter().find(|v| v.name == "web").unwrap();
    assert_eq!((web.owner.as_deref(), web.mine, web.votes_needed), (Some("lb1"), true, 3));
    let service = &web.services[0];
    assert_eq!((service.port.as_str(), service.up), ("443/tcp", 2));
    let states: Vec<_> = service.backends.iter().map(|b| b.state.as_str()).collect();
    assert_eq!(states, ["up", "down", "unknown"], "what nobody checked yet counts as up");
    assert_eq!(service.backends[2].reason, "no check: counts as up");
    assert_eq!(web.problem.as_deref(), Some("web2: HTTP 503"));

    let db = status.vips.iter().find(|v| v.name == "db").unwrap();
    let why = db.problem.as_deref().unwrap();
    for part in ["lb1 asks for votes", "lb3 drained", "lb2 silent for 4.0 s", "1 of 3 votes"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!(status.events.len(), 2);
    assert_eq!(status.events[1].vip.as_deref(), Some("web"));
    assert_eq!(status.events[1].node.as_deref(), Some("lb1"), "who took it");
    assert!(status.events[1].sentence.starts_with("lb1 took it over: lb2 was silent for 37 ms"));
}

#[test]
fn a_vip_is_asked_for_by_name_or_by_address() {
    let server = Running::start();
    for vip in ["web", "10.0.0.100", "10.0.0.100/24"] {
        let why = server.client().why(vip).unwrap();
        assert_eq!(why.vip.name, "web");
        let cause = "lb1 has owned web for 1m0s; lb1 took it over: lb2 was silent for 37 ms";
        assert!(why.answer.starts_with(cause), "{}", why.answer);
        assert_eq!(why.history.len(), 1, "only what is about it");
    }
    let why = server.client().why("2001:db8::100").unwrap();
    assert!(why.answer.starts_with("Nobody owns db: "), "{}", why.answer);
    let unknown = problem(server.client().why("wep"));
    assert_eq!(unknown.code, "unknown_vip");
    assert_eq!(unknown.detail, "the configuration has db, web");
}

#[test]
fn events_are_asked_for_by_vip_and_by_age() {
    let server = Running::start();
    let events = |vip, since| server.client().events_of(100, vip, since).unwrap().events;
    assert_eq!(events(None, None).len(), 2);
    assert_eq!(events(Some("10.0.0.100"), None).len(), 1, "found by its address too");
    assert_eq!(events(Some("db"), None).len(), 0);
    assert_eq!(events(None, Some(1_500))[0].kind, "acquired", "only what is not older");
    let until = |until| server.client().events_between(100, None, (None, Some(until))).unwrap();
    assert_eq!(until(1_999).events[0].kind, "undrained", "only what is not younger");
    assert_eq!((until(1_999).events.len(), until(2_000).events.len()), (1, 2));
    assert_eq!(server.client().events_of(1, None, None).unwrap().events[0].at, 2_000);
    assert_eq!(problem(server.client().events_of(1, Some("wep"), None)).code, "unknown_vip");
    // It is gone since, and is found by the name that it had.
    server.fake.happens_to(GroupId(9), Some("old"), Fact::Undrained { reason: "by ann".into() });
    let old = events(Some("old"), None);
    assert_eq!((old.len(), old[0].vip.as_deref()), (1, Some("old")));
}

#[test]
fn the_owner_question_is_a_health_check_for_load_balancers() {
    let server = Running::start();
    assert_eq!(server.client().owner("web").unwrap().owner, "lb1");
    let refused = problem(server.client().owner("db"));
    assert_eq!((refused.code.as_str(), refused.detail.as_str()), ("not_owner", "nobody does"));
    let answer = server.raw("GET /v1/vips/db/owner HTTP/1.0\r\n\r\n");
    assert!(answer.contains(" 503 "), "{answer}");
}

#[test]
fn a_refused_file_comes_back_with_its_report() {
    let server = Running::start();
    assert_eq!(server.client().reload().unwrap().changes, ["vip web changed"]);
    server.fake.invalid.store(true, Ordering::SeqCst);
    let refused = problem(server.client().reload());
    assert_eq!(refused.code, "config");
    assert_eq!(refused.detail, "buoy.toml:3:1: unknown key");
}

#[test]
fn a_loop_that_is_gone_is_an_answer_too() {
    let server = Running::start();
    assert!(server.raw("GET /healthz HTTP/1.0\r\n\r\n").ends_with("ok\n"));
    server.fake.gone.store(true, Ordering::SeqCst);
    assert_eq!(problem(server.client().status()).code, "loop_gone");
    assert!(server.raw("GET /healthz HTTP/1.0\r\n\r\n").contains(" 503 "));
}

#[test]
fn a_body_without_end_is_refused_however_it_is_said_to_be_long() {
    let server = Running::start();
    let chunk = format!("{:x}\r\n{}\r\n", 64 << 10, "x".repeat(64 << 10));
    // Neither says how long it is: the one never ends, the other does not come.
    for (chunks, status, code) in [(usize::MAX, " 413 ", "\"too_large\""), (1, " 408 ", "\"slow\"")]
    {
        let mut stream = UnixStream::connect(&server.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = "POST /v1/drain HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut out = stream.try_clone().unwrap();
        let chunk = chunk.clone();
        let pouring = std::thread::spawn(move || {
            (0..chunks).take_while(|_| out.write_all(chunk.as_bytes()).is_ok()).count()
        });
        let mut answer = Vec::new();
        let mut some = [0; 4096];
        while !String::from_utf8_lossy(&answer).contains(code) {
            let read = stream.read(&mut some).expect("an answer, before it is cut off");
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend(&some[..read]);
        }
        assert!(String::from_utf8_lossy(&answer).contains(status), "{answer:?}");
        // And it ends: what is poured on is not read for ever.
        drop(stream);
        let poured = pouring.join().unwrap() * (64 << 10);
        assert!(poured <= 16 * BODY_MAX, "{poured} bytes of it went out");
    }
    assert!(server.fake.orders.lock().unwrap().is_empty());
}

#[test]
fn every_refusal_is_json_with_a_code() {
    let server = Running::start();
    let big = "x".repeat(BODY_MAX + 1);
    let post = |body: &str| {
        format!("POST /v1/drain HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let table = [
        ("GET /nowhere HTTP/1.0\r\n\r\n".to_owned(), " 404 ", "unknown_path"),
        ("GET /v1/drain HTTP/1.0\r\n\r\n".to_owned(), " 405 ", "method"),
        ("POST /v1/status HTTP/1.0\r\n\r\n".to_owned(), " 405 ", "method"),
        ("GET /v1/events?n=many HTTP/1.0\r\n\r\n".to_owned(), " 400 ", "query"),
        ("GET /v1/events?n=4442498512982 HTTP/1.0\r\n\r\n".to_owned(), " 400 ", "query"),
        ("GET /v1/failovers?n=4442498512982 HTTP/1.0\r\n\r\n".to_owned(), " 400 ", "query"),
        (post("{"), " 400 ", "json"),
        (post("[null, null]"), " 400 ", "json"),
        (post("{\"because\":\"x\"}"), " 400 ", "json"),
        (post(&big), " 413 ", "too_large"),
        (post(&format!("{{\"reason\":{}1{}}}", "[".repeat(40), "]".repeat(40))), " 400 ", "depth"),
        (
            "POST /v1/drain HTTP/1.0\r\ncontent-length: 1000000000\r\n\r\n".into(),
            " 413 ",
            "too_large",
        ),
        ("GET /v1//status HTTP/1.0\r\n\r\n".into(), " 400 ", "path"),
        ("GET /v1/vips/%2e%2e/why HTTP/1.0\r\n\r\n".into(), " 400 ", "path"),
        ("GET /v1/vips/a%00/why HTTP/1.0\r\n\r\n".into(), " 400 ", "path"),
        ("GET /v1/vips/%ff/why HTTP/1.0\r\n\r\n".into(), " 400 ", "path"),
        ("GET /v1/status?wait=5 HTTP/1.0\r\n\r\n".into(), " 400 ", "query"),
    ];
    for (request, status, code) in table {
        let line = request.lines().next().unwrap_or_default().to_owned();
        let answer = server.raw(&request);
        assert!(answer.contains(status), "{line}: {answer}");
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        let problem: Problem = serde_json::from_str(body).expect("a Problem");
        assert_eq!(problem.code, code, "{line}");
        assert_eq!(problem.kind, format!("urn:buoy:problem:{code}"), "{line}");
        assert!(status.contains(&problem.status.to_string()), "{line}");
        assert!(answer.contains("content-type: application/problem+json"), "{answer}");
        assert!(status != " 405 " || answer.to_lowercase().contains("allow: "), "{answer}");
    }
    assert!(server.fake.orders.lock().unwrap().is_empty(), "nothing refused was done");
}
