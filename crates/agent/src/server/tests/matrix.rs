//! What each node hears of each other: its own row, those of others, and why one is not known.

use super::*;
use buoy_api::{HeardView, MatrixRow};
use buoy_store::Arrived;

fn unknown(server: &Running, node: &str) -> Option<String> {
    let rows = server.client().matrix().unwrap().rows;
    rows.into_iter().find(|row| row.node == node).and_then(|row| row.unknown)
}

#[test]
fn every_other_node_is_asked_for_its_row() {
    let server = Running::start();
    let hears = vec![HeardView { node: "lb1".into(), alive: true, ..HeardView::default() }];
    let told = MatrixRow { node: "lb3".into(), hears, ..MatrixRow::default() };
    let body = serde_json::to_string(&told).unwrap();
    *server.fake.way.lock().unwrap() = Ok(Done { status: 200, tag: None, body });
    let reply = server.client().matrix().unwrap();
    assert_eq!((reply.node.as_str(), reply.rows.len()), ("lb1", 4));
    let own = reply.rows.iter().find(|row| row.node == "lb1").unwrap();
    let others: Vec<_> = own.hears.iter().map(|heard| heard.node.as_str()).collect();
    assert_eq!((others, &own.unknown), (vec!["lb2", "lb3"], &None));
    assert!(reply.rows.contains(&told));
    assert_eq!((own.version.as_str(), &own.wire), ("0.9.1", &vec![1, 2]));
    assert_eq!(own.keys, ["00001a2b", "00003c4d"], "the one that signs comes first");
    let mut asked: Vec<String> = server.fake.sent.lock().unwrap().iter().map(said).collect();
    asked.sort();
    assert_eq!(asked, ["lb2", "lb3", "w1"].map(|n| format!("{n} GET /v1/matrix/{n} read")));
    assert_eq!(server.client().matrix_row("lb3").unwrap(), told);
    assert_eq!(server.client().matrix_row("lb1").unwrap(), *own);
    assert_eq!(problem(server.client().matrix_row("lb9")).code, "unknown_node");
}

fn said((node, errand): &(String, Errand)) -> String {
    format!("{node} {} {} {}", errand.method, errand.target, errand.role)
}

#[test]
fn a_row_that_is_not_known_says_why() {
    let refused = r#"{"title":"no","code":"no_errand","status":403,"detail":"","type":""}"#;
    let done = |status, body: &str| Ok(Done { status, tag: None, body: body.into() });
    for (way, why) in [
        (Err(Lost::NoWay("edits are kept in etcd".into())), "edits are kept in etcd"),
        (Err(Lost::Unsent("timed out".into())), "timed out"),
        (done(403, refused), "no"),
        (done(500, "?"), "it answered with 500"),
    ] {
        let server = Running::start();
        *server.fake.way.lock().unwrap() = way;
        assert_eq!(unknown(&server, "lb2").as_deref(), Some(why));
        assert_eq!(unknown(&server, "lb1"), None);
        let refused = problem(server.client().matrix_row("lb2"));
        assert_eq!((refused.status, refused.detail.as_str()), (502, why));
    }
}

#[test]
fn however_many_look_the_others_are_asked_once_in_a_while() {
    let server = Running::start();
    // Two looks within a second: a machine that stands still between them gets another try.
    let is_asked_once = (0..50).any(|_| {
        let before = server.fake.sent.lock().unwrap().len();
        let (one, other) = (server.client().matrix().unwrap(), server.client().matrix().unwrap());
        assert_eq!(one.rows.len(), other.rows.len());
        server.fake.sent.lock().unwrap().len() <= before + 3
    });
    assert!(is_asked_once);
}

#[test]
fn another_node_gets_the_row_of_this_one_and_has_nobody_else_asked() {
    let fake = Arc::new(Fake::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (sender, arrived) = tokio::sync::mpsc::channel(1);
    let keeping = runtime.spawn(crate::server::errands::keep(Arc::clone(&fake), Some(arrived)));
    let ask = |target: &str| {
        let (answer, done) = oneshot::channel();
        let (method, role) = ("GET".into(), "read".into());
        let errand =
            Errand { method, target: target.into(), body: String::new(), user: "ann".into(), role };
        runtime.block_on(async {
            sender.send(Arrived { from: "lb2".into(), errand, answer }).await.unwrap();
            done.await.unwrap()
        })
    };
    let own = ask("/v1/matrix/lb1");
    let row: MatrixRow = serde_json::from_str(&own.body).unwrap();
    assert_eq!((own.status, row.node.as_str(), row.hears.len()), (200, "lb1", 2));
    assert_eq!(ask("/v1/matrix/lb3").status, 502, "it was passed on once");
    assert_eq!(ask("/v1/matrix").status, 403);
    assert!(fake.sent.lock().unwrap().is_empty());
    keeping.abort();
}
