//! What operators order: who may, where, and what is refused in which words.

use super::*;
use buoy_api::{DrainRequest, HoldRequest, MoveRequest, ORDER_FOR_MAX, REASON_MAX, ReleaseRequest};

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
    assert_eq!(server.client().undrain().unwrap().draining, None);
    let drain = |reason: String| Order::Drain { reason, until: None };
    assert_eq!(
        *server.fake.orders.lock().unwrap(),
        [drain(with_reason), drain(format!("by {who}")), Order::Undrain]
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
    let until = Some(known().at + Duration::from_secs(1));
    assert_eq!(
        *server.fake.orders.lock().unwrap(),
        [
            Order::Move { group: web(), to: NodeId::of("lb3"), reason: reason.clone() },
            Order::Hold { group: web(), reason: reason.clone(), until },
            Order::Release { group: web(), reason },
            Order::Hold { group: web(), reason: format!("by {}", me()), until: None },
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
        problem(client.undrain()),
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
