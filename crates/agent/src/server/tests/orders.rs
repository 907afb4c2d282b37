//! What operators order: who may, where, and what is refused in which words.

use super::*;
use buoy_api::{
    AnnounceRequest, DrainRequest, HoldRequest, MoveRequest, NodePatch, ORDER_FOR_MAX, OrderReply,
    REASON_MAX, ReleaseRequest, WhyReply,
};
use buoy_store::Arrived;

fn me() -> String {
    account::user_name(nix::unistd::getuid().as_raw())
}

fn web() -> GroupId {
    GroupId(buoy_model::name_key("web"))
}

fn to(node: &str) -> MoveRequest {
    MoveRequest { to: node.into(), reason: None }
}

#[test]
fn a_drain_records_who_asked_by_the_kernels_word() {
    let server = Running::start();
    let who = me();
    let reply = server.client().drain(Some(" kernel\nupgrade ".into())).unwrap();
    assert_eq!((reply.owned, reply.for_ms), (1, None));
    let with_reason = format!("kernel upgrade (by {who})");
    assert_eq!(reply.draining.as_ref(), Some(&with_reason));
    server.client().drain(None).unwrap();
    assert_eq!(server.client().undrain(None).unwrap().draining, None);
    server.client().undrain(Some("done".into())).unwrap();
    let drain = |reason: String| Order::Drain { reason, until: None };
    let undrain = |reason: String| Order::Undrain { reason };
    assert_eq!(
        *server.fake.orders.lock().unwrap(),
        [
            drain(with_reason),
            drain(format!("by {who}")),
            undrain(format!("by {who}")),
            undrain(format!("done (by {who})"))
        ]
    );
    assert_eq!(problem(server.client().drain(Some("x".repeat(REASON_MAX + 1)))).code, "reason");
}

#[test]
fn a_drain_may_end_by_itself() {
    let server = Running::start();
    let request = |for_ms| DrainRequest { reason: None, for_ms: Some(for_ms) };
    let reply = server.client().drain_for(&request(60_000)).unwrap();
    assert_eq!(reply.for_ms, Some(60_000));
    let until = Some(known().at + Duration::from_secs(60));
    let expected = Order::Drain { reason: format!("by {}", me()), until };
    assert_eq!(*server.fake.orders.lock().unwrap(), [expected]);
    let too_long = u64::try_from(ORDER_FOR_MAX.as_millis()).unwrap() + 1;
    for for_ms in [0, too_long, u64::MAX] {
        assert_eq!(problem(server.client().drain_for(&request(for_ms))).code, "for", "{for_ms}");
    }
}

#[test]
fn an_owner_takes_orders_about_what_it_owns() {
    let server = Running::start();
    let client = server.client();
    let reason = format!("patching (by {})", me());
    let said = || Some("patching".to_owned());
    let reply = client.move_vip("web", &MoveRequest { reason: said(), ..to("lb3") }).unwrap();
    assert_eq!((reply.order.as_str(), reply.node.as_str(), reply.epoch), ("move", "lb1", 7));
    assert_eq!((reply.to.as_deref(), &reply.reason), (Some("lb3"), &reason));
    let hold = HoldRequest { reason: said(), for_ms: Some(1_000) };
    assert_eq!(client.hold("10.0.0.100", &hold).unwrap().for_ms, Some(1_000));
    client.release("web", &ReleaseRequest { reason: said() }).unwrap();
    client.hold("web", &HoldRequest::default()).unwrap();
    let reply = client.announce("web", &AnnounceRequest { reason: said() }).unwrap();
    assert_eq!((reply.order.as_str(), &reply.reason), ("announce", &reason));
    let until = Some(known().at + Duration::from_secs(1));
    assert_eq!(
        *server.fake.orders.lock().unwrap(),
        [
            Order::Move { group: web(), to: NodeId::of("lb3"), reason: reason.clone() },
            Order::Hold { group: web(), reason: reason.clone(), until },
            Order::Release { group: web(), reason: reason.clone() },
            Order::Hold { group: web(), reason: format!("by {}", me()), until: None },
            Order::Announce { group: web(), reason },
        ]
    );
}

#[test]
fn a_move_to_where_it_is_keeps_it_there() {
    let server = Running::start();
    let reply = server.client().move_vip("web", &to("lb1")).unwrap();
    assert_eq!((reply.order.as_str(), reply.to.as_deref()), ("hold", Some("lb1")));
    let expected = Order::Hold { group: web(), reason: format!("by {}", me()), until: None };
    assert_eq!(*server.fake.orders.lock().unwrap(), [expected]);
}

#[test]
fn an_order_for_another_owner_names_it_and_the_command_to_run_there() {
    let server = Running::start();
    server.fake.elsewhere.store(true, Ordering::SeqCst);
    let client = server.client();
    let reason = Some("ann's upgrade".to_owned());
    let hold = HoldRequest { reason: reason.clone(), for_ms: Some(600_000) };
    let table = [
        (
            problem(client.move_vip("web", &MoveRequest { reason, ..to("lb1") })),
            r"buoy move web --to lb1 --reason 'ann'\''s upgrade'",
        ),
        (
            problem(client.hold("web", &hold)),
            r"buoy hold web --for 10m --reason 'ann'\''s upgrade'",
        ),
        (problem(client.release("10.0.0.100", &ReleaseRequest::default())), "buoy release web"),
    ];
    for (problem, command) in table {
        assert_eq!(
            (problem.code.as_str(), problem.title.as_str()),
            ("not_owner", "lb1 does not own web")
        );
        assert_eq!(problem.detail, "lb3 does");
        assert_eq!(problem.fix, Some(format!("run on lb3: {command}")));
    }
    let answer = server.raw("POST /v1/vips/web/release HTTP/1.0\r\n\r\n");
    assert!(answer.contains(" 409 "), "{answer}");
    assert!(server.fake.orders.lock().unwrap().is_empty(), "nothing refused was done");
}

#[test]
fn an_order_that_cannot_be_followed_says_why() {
    let server = Running::start();
    let client = server.client();
    let long = Some("x".repeat(REASON_MAX + 1));
    let table = [
        (problem(client.move_vip("wep", &to("lb3"))), "unknown_vip", "has db, web"),
        (problem(client.hold("wep", &HoldRequest::default())), "unknown_vip", "has db, web"),
        (problem(client.release("wep", &ReleaseRequest::default())), "unknown_vip", "has db, web"),
        (problem(client.move_vip("web", &to("lb9"))), "unknown_node", "has lb1, lb2, lb3, w1"),
        (problem(client.move_vip("web", &to(""))), "unknown_node", "has lb1, lb2, lb3, w1"),
        (problem(client.move_vip("web", &to("lb2"))), "cannot_take", "silent for 4.0 s"),
        (problem(client.move_vip("web", &to("w1"))), "cannot_take", "it is a witness"),
        (problem(client.move_vip("db", &to("lb3"))), "no_owner", "`buoy why db`"),
        (problem(client.hold("db", &HoldRequest::default())), "no_owner", "`buoy why db`"),
        (
            problem(client.move_vip("web", &MoveRequest { reason: long, ..to("lb3") })),
            "reason",
            "200",
        ),
        (
            problem(client.hold("web", &HoldRequest { reason: None, for_ms: Some(0) })),
            "for",
            "at most 365 days",
        ),
    ];
    for (problem, code, part) in table {
        assert_eq!(problem.code, code, "{problem:?}");
        assert!(problem.particulars().contains(part), "{part}: {problem:?}");
    }
    server.fake.drained.store(true, Ordering::SeqCst);
    let refused = problem(client.hold("web", &HoldRequest::default()));
    assert_eq!(refused.code, "drained");
    let told = "patching (by ann); `buoy undrain` puts it back into service";
    assert_eq!(refused.particulars(), told);
    assert_eq!(problem(client.move_vip("web", &to("lb1"))).code, "drained", "it is a hold");
    server.fake.stopping.store(true, Ordering::SeqCst);
    let table = [
        problem(client.move_vip("web", &to("lb3"))),
        problem(client.release("web", &ReleaseRequest::default())),
        problem(client.drain(None)),
        problem(client.undrain(None)),
    ];
    for problem in table {
        assert_eq!(problem.code, "cannot_follow", "the loop has the last word");
        assert!(problem.detail.contains("wait for the new owner"), "{problem:?}");
    }
    server.fake.gone.store(true, Ordering::SeqCst);
    assert_eq!(problem(client.release("web", &ReleaseRequest::default())).code, "loop_gone");
    assert!(server.fake.orders.lock().unwrap().is_empty(), "nothing refused was done");
}

#[test]
fn an_order_in_another_form_is_refused_before_anything_is_looked_at() {
    let server = Running::start();
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let table = [
        (post("/v1/vips/web/move", ""), " 404 ", "unknown_node"),
        (post("/v1/vips/web/move", "{}"), " 400 ", "json"),
        (post("/v1/vips/web/move", r#"{"to":3}"#), " 400 ", "json"),
        (post("/v1/vips/web/move", r#"{"to":"lb3","for_ms":3}"#), " 400 ", "json"),
        (post("/v1/vips/web/hold", r#"{"for_ms":-1}"#), " 400 ", "json"),
        (post("/v1/vips/web/hold", r#"{"for_ms":0}"#), " 400 ", "for"),
        (post("/v1/vips/web/release", "[]x"), " 400 ", "json"),
        (post("/v1/drain", r#"{"for_ms":0}"#), " 400 ", "for"),
        ("GET /v1/vips/web/move HTTP/1.0\r\n\r\n".to_owned(), " 405 ", "method"),
        ("GET /v1/vips/web/hold HTTP/1.0\r\n\r\n".to_owned(), " 405 ", "method"),
        ("GET /v1/vips/web/release HTTP/1.0\r\n\r\n".to_owned(), " 405 ", "method"),
    ];
    for (request, status, code) in table {
        let answer = server.raw(&request);
        assert!(answer.contains(status), "{request}: {answer}");
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        let problem: Problem = serde_json::from_str(body).expect("a Problem");
        assert_eq!(problem.code, code, "{request}");
    }
    assert!(server.fake.orders.lock().unwrap().is_empty(), "nothing refused was done");
}

#[test]
fn an_order_for_another_node_is_passed_on_with_who_asked() {
    let server = Running::start();
    server.fake.elsewhere.store(true, Ordering::SeqCst);
    let reply = OrderReply { vip: "web".into(), node: "lb3".into(), ..OrderReply::default() };
    let body = serde_json::to_string(&reply).unwrap();
    let done = |status, body: &str| Done { status, tag: Some("\"7\"".into()), body: body.into() };
    *server.fake.way.lock().unwrap() = Ok(done(200, &body));
    let client = server.client();
    let reason = Some("patching".to_owned());
    let request = MoveRequest { reason, ..to("lb1") };
    assert_eq!(client.move_vip("10.0.0.100", &request).unwrap(), reply);
    let dry = server.raw("POST /v1/vips/web/release?dry_run=1 HTTP/1.0\r\n\r\n");
    assert!(dry.contains("etag: \"7\"") && dry.ends_with(&body), "{dry}");
    let drained = r#"{"node":"lb3","draining":"by x","owned":1}"#;
    *server.fake.way.lock().unwrap() = Ok(done(200, drained));
    let drain = NodePatch { drain: Some(true), ..NodePatch::default() };
    assert_eq!(client.patch_node("lb3", &drain).unwrap().node, "lb3");
    let refused = r#"{"title":"no","code":"cannot_take","status":409,"detail":"","type":""}"#;
    *server.fake.way.lock().unwrap() = Ok(done(409, refused));
    assert_eq!(problem(client.hold("web", &HoldRequest::default())).code, "cannot_take");
    let errand = |method: &str, target: &str, body: &str| {
        let (method, target, body) = (method.into(), target.into(), body.into());
        ("lb3".to_owned(), Errand { method, target, body, user: me(), role: "admin".into() })
    };
    assert_eq!(
        *server.fake.sent.lock().unwrap(),
        [
            errand("POST", "/v1/vips/web/move", r#"{"to":"lb1","reason":"patching"}"#),
            errand("POST", "/v1/vips/web/release?dry_run=1", "{}"),
            errand("PATCH", "/v1/nodes/lb3", r#"{"drain":true}"#),
            errand("POST", "/v1/vips/web/hold", "{}"),
        ]
    );
    // What the client believes to be so is looked at here, before anything is sent.
    let stale = server.raw("POST /v1/vips/web/hold HTTP/1.0\r\nif-match: \"6-00000000\"\r\n\r\n");
    assert!(stale.contains(" 412 "), "{stale}");
    assert_eq!(server.fake.sent.lock().unwrap().len(), 4);
    assert!(server.fake.orders.lock().unwrap().is_empty(), "nothing is done here");
}

#[test]
fn why_it_is_elsewhere_is_told_in_the_words_of_its_owner() {
    let server = Running::start();
    server.fake.elsewhere.store(true, Ordering::SeqCst);
    let client = server.client();
    let here = client.why("web").unwrap();
    assert_eq!((here.told_by.as_deref(), here.node.as_str()), (None, "lb1"), "there is no way");
    let mut told = WhyReply { node: "lb3".into(), answer: "lb2 was silent".into(), ..here.clone() };
    told.vip.mine = true;
    told.history.clear();
    let say = |told: &WhyReply| {
        let body = serde_json::to_string(told).unwrap();
        *server.fake.way.lock().unwrap() = Ok(Done { status: 200, tag: None, body });
    };
    say(&told);
    let why = client.why("10.0.0.100").unwrap();
    assert_eq!((why.told_by.as_deref(), why.answer.as_str()), (Some("lb3"), "lb2 was silent"));
    assert_eq!((why.history.len(), why.node.as_str()), (0, "lb1"));
    assert_eq!(why.vip, here.vip, "the rest is as this node knows it");
    let sent = server.fake.sent.lock().unwrap().last().cloned().unwrap();
    let errand = (sent.0.as_str(), sent.1.method.as_str(), sent.1.target.as_str());
    assert_eq!(errand, ("lb3", "GET", "/v1/vips/web/why"));
    assert_eq!(sent.1.role, "read");
    // Who has given it away meanwhile knows no better.
    told.vip.mine = false;
    say(&told);
    assert_eq!(client.why("web").unwrap().told_by, None);
    server.fake.elsewhere.store(false, Ordering::SeqCst);
    let asked = server.fake.sent.lock().unwrap().len();
    assert!(client.why("web").unwrap().answer.contains("lb2 was silent for 37 ms"));
    assert_eq!(server.fake.sent.lock().unwrap().len(), asked, "it knows that itself");
}

#[test]
fn an_order_whose_node_does_not_answer_says_whether_it_may_have_been_done() {
    let server = Running::start();
    server.fake.elsewhere.store(true, Ordering::SeqCst);
    let lost = |lost| *server.fake.way.lock().unwrap() = Err(lost);
    lost(Lost::Unsent("timed out".into()));
    let refused = problem(server.client().move_vip("web", &to("lb1")));
    assert_eq!((refused.code.as_str(), refused.status), ("unreachable", 502));
    assert_eq!(refused.title, "lb3 cannot be reached, so nothing was done");
    assert_eq!(refused.fix.as_deref(), Some("run on lb3: buoy move web --to lb1"));
    lost(Lost::Unsure("timed out".into()));
    let refused = problem(server.client().release("web", &ReleaseRequest::default()));
    assert_eq!((refused.code.as_str(), refused.status), ("unsure", 504));
    assert!(refused.particulars().contains("it may have been done"), "{refused:?}");
}

#[test]
fn an_order_that_another_node_passes_on_is_followed_or_refused_and_goes_no_further() {
    let fake = Arc::new(Fake::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (sender, arrived) = tokio::sync::mpsc::channel(1);
    let ask = |target: &str, role: &str| {
        let (answer, done) = oneshot::channel();
        let errand = Errand {
            method: "POST".into(),
            target: target.into(),
            body: r#"{"reason":"patching"}"#.into(),
            user: "ann".into(),
            role: role.into(),
        };
        runtime.block_on(async {
            sender.send(Arrived { from: "lb2".into(), errand, answer }).await.unwrap();
            done.await.unwrap()
        })
    };
    let keeping = runtime.spawn(crate::server::errands::keep(Arc::clone(&fake), Some(arrived)));
    let done = ask("/v1/vips/web/hold", "operate");
    assert_eq!(done.status, 200, "{done:?}");
    let reason = "patching (by ann on lb2)".to_owned();
    assert!(done.body.contains(&reason), "{done:?}");
    assert_eq!(*fake.orders.lock().unwrap(), [Order::Hold { group: web(), reason, until: None }]);
    assert_eq!(ask("/v1/vips/web/hold", "read").status, 403, "as everywhere");
    fake.elsewhere.store(true, Ordering::SeqCst);
    let refused = ask("/v1/vips/web/hold", "operate");
    assert!(refused.status == 409 && refused.body.contains("not_owner"), "{refused:?}");
    assert!(fake.sent.lock().unwrap().is_empty(), "it was passed on once");
    keeping.abort();
}
