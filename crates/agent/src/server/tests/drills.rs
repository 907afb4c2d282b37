//! Drills by the API: what may be drilled, what is refused and why, one at a time, and what orders come of it.

use super::*;
use buoy_api::{DrillRequest, DrillView};
use std::time::Instant as Clock;

fn drill(server: &Running, request: DrillRequest, dry_run: bool) -> Result<DrillView, ClientError> {
    server.client().begin_drill(&request, dry_run)
}

fn web() -> DrillRequest {
    DrillRequest { vip: "web".into(), ..DrillRequest::default() }
}

/// Other nodes take orders by way of this one.
fn reach(server: &Running) {
    let done = Done { status: 200, tag: None, body: "{}".into() };
    *server.fake.way.lock().unwrap() = Ok(done);
}

fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let began = Clock::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_dry_run_of_a_drill_says_what_would_be_and_orders_nothing() {
    let server = Running::start();
    reach(&server);
    let would = drill(&server, DrillRequest { repeat: Some(3), ..web() }, true).unwrap();
    assert!(would.dry_run && would.would[0].contains("web goes from lb1 to lb3 and back, 3 times"));
    assert_eq!((would.id, server.client().drills().unwrap().drills), (0, vec![]));
    assert_eq!(*server.fake.orders.lock().unwrap(), []);
}

#[test]
fn what_cannot_be_moved_there_and_back_is_no_drill() {
    let server = Running::start();
    let refused = |request: DrillRequest| problem(drill(&server, request, false)).code;
    assert_eq!(refused(web()), "unreachable", "lb3 takes no orders by way of lb1");
    reach(&server);
    let with = |vip: &str, to: Option<&str>, repeat: Option<u64>| DrillRequest {
        vip: vip.into(),
        to: to.map(str::to_owned),
        repeat,
        reason: None,
    };
    for (request, code) in [
        (with("nothing", None, None), "unknown_vip"),
        (with("web", Some("lb9"), None), "unknown_node"),
        (with("web", Some("lb2"), None), "no_drill"),
        (with("web", Some("lb1"), None), "no_drill"),
        (with("db", None, None), "no_owner"),
        (with("web", None, Some(0)), "repeat"),
        (with("web", None, Some(21)), "repeat"),
        (DrillRequest { reason: Some("x".repeat(201)), ..web() }, "reason"),
    ] {
        let said = refused(request.clone());
        assert!(said.contains(code), "{request:?}: {said}");
    }
    assert_eq!(*server.fake.orders.lock().unwrap(), []);
}

#[test]
fn a_drill_moves_a_vip_there_and_back_by_whoever_owns_it_and_goes_on_alone() {
    let server = Running::start();
    reach(&server);
    let phase = Duration::from_millis(2);
    server.fake.happens(Fact::Served {
        epoch: Epoch(7),
        detect: Duration::ZERO,
        decide: phase,
        address: phase,
        announce: phase,
        first_packet: None,
    });
    let longest = "x".repeat(200);
    let request = DrillRequest { reason: Some(longest.clone()), ..web() };
    let begun = drill(&server, request, false).unwrap();
    assert_eq!((begun.id, begun.running, begun.to.as_str()), (1, true, "lb3"));
    assert!(begun.reason.starts_with(&format!("drill: {longest} (by ")), "{}", begun.reason);
    assert_eq!(problem(drill(&server, web(), false)).code, "drill_goes_on");
    let first = || server.fake.orders.lock().unwrap().first().cloned();
    let order = wait_for("a move by lb1", first);
    let moved = Order::Move { group: web_id(), to: NodeId::of("lb3"), reason: begun.reason };
    assert_eq!(order, moved);
    // It is on lb3 now, which is asked to give it back.
    server.fake.elsewhere.store(true, Ordering::SeqCst);
    let errand = wait_for("a move by lb3", || {
        let sent = server.fake.sent.lock().unwrap();
        sent.iter().find(|(_, errand)| errand.method == "POST").cloned()
    });
    let (node, Errand { target, body, .. }) = errand;
    assert_eq!((node.as_str(), target.as_str()), ("lb3", "/v1/vips/web/move"));
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let reason = body["reason"].as_str().unwrap();
    assert_eq!((&body["to"], reason.len()), (&"lb1".into(), 200), "no longer than it may be");
    assert!(longest.contains(reason.strip_prefix("drill: ").unwrap()), "{reason}");
    server.fake.elsewhere.store(false, Ordering::SeqCst);
    let over = wait_for("the end of the drill", || {
        server.client().drills().unwrap().drills.pop().filter(|drill| !drill.running)
    });
    assert_eq!((over.failed, over.takeovers.len()), (None, 2));
    let (away, back) = (&over.takeovers[0], &over.takeovers[1]);
    assert_eq!((away.from.as_str(), away.to.as_str(), &away.phases), ("lb1", "lb3", &None));
    assert_eq!((back.from.as_str(), back.to.as_str()), ("lb3", "lb1"));
    assert_eq!(back.phases.as_ref().map(|phases| phases.address_ms), Some(2.0));
    assert!(drill(&server, web(), true).is_ok(), "another one may begin");
}
