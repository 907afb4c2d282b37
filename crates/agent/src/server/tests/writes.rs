//! Dry runs, entity tags, and the description of it all.

use super::*;
use buoy_api::{BackendOrderReply, DrainReply, OrderReply};
use serde_json::Value;

/// Its status line, its tag and its body.
struct Answer {
    status: u16,
    tag: Option<String>,
    body: Value,
}

fn ask(server: &Running, method: &str, target: &str, tag: Option<&str>, body: &str) -> Answer {
    let tag = tag.map_or_else(String::new, |tag| format!("if-match: {tag}\r\n"));
    let length = body.len();
    let head = format!("{method} {target} HTTP/1.0\r\n{tag}content-length: {length}\r\n\r\n");
    let answer = server.raw(&(head + body));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        tag: head.lines().find_map(|line| line.strip_prefix("etag: ")).map(str::to_owned),
        body: serde_json::from_str(body).unwrap(),
    }
}

fn nothing_done(server: &Running) {
    assert!(server.fake.orders.lock().unwrap().is_empty());
    assert_eq!(server.fake.backend_orders.lock().unwrap().all().count(), 0);
    assert_eq!(server.fake.reloads.load(Ordering::SeqCst), 0);
}

const WEB1: &str = "/v1/services/web:443/backends/web1";

#[test]
fn a_dry_run_says_what_would_be_and_does_nothing() {
    let server = Running::start();
    let would = |target: &str, body: &str| {
        let answer = ask(&server, "POST", &format!("{target}?dry_run=1"), None, body);
        assert_eq!((answer.status, &answer.body["dry_run"]), (200, &true.into()), "{target}");
        answer.body
    };
    let orders = [
        ("move", r#"{"to":"lb3"}"#, "web goes to lb3 and stays there"),
        ("move", r#"{"to":"lb1"}"#, "web stays on lb1 until somebody"),
        ("hold", r#"{"for_ms":1000}"#, "web stays on lb1 until the time is over"),
        ("announce", "", "lb1 tells its neighbours that it has 10.0.0.100"),
        ("release", "", "web may leave lb1, and nobody is better for it now"),
    ];
    for (verb, body, part) in orders {
        let reply = would(&format!("/v1/vips/web/{verb}"), body);
        let reply: OrderReply = serde_json::from_value(reply).unwrap();
        assert!(reply.would[0].starts_with(part), "{verb} {body}: {:?}", reply.would);
    }
    let reply: DrainReply = serde_json::from_value(would("/v1/drain", "")).unwrap();
    assert_eq!((reply.owned, reply.would), (1, vec!["web goes to lb3".to_owned()]));
    let reply: DrainReply = serde_json::from_value(would("/v1/undrain", "")).unwrap();
    assert_eq!(reply.would, ["nothing: lb1 is not drained"]);
    let reply: BackendOrderReply =
        serde_json::from_value(would(&format!("{WEB1}/weight"), r#"{"weight":"7"}"#)).unwrap();
    assert!(reply.order.sentence.starts_with("has weight 7 by order"), "{}", reply.order.sentence);
    assert_eq!(would("/v1/reload", "")["changes"][0], "vip web changed");
    let refused = ask(&server, "POST", "/v1/vips/web/move?dry_run=1", None, r#"{"to":"lb2"}"#);
    assert_eq!((refused.status, &refused.body["code"]), (409, &"cannot_take".into()));
    let refused = ask(&server, "POST", "/v1/drain?dryrun=1", None, "");
    assert_eq!((refused.status, &refused.body["code"]), (400, &"query".into()));
    nothing_done(&server);
}

#[test]
fn a_change_for_another_state_is_refused_with_the_present_one() {
    let server = Running::start();
    let places = [
        ("/v1/vips/web", "/v1/vips/web/hold", ""),
        ("/v1/nodes/lb1", "/v1/drain", ""),
        (WEB1, &format!("{WEB1}/disable") as &str, ""),
    ];
    for (read, change, body) in places {
        let tag = ask(&server, "GET", read, None, "").tag.expect(read);
        let refused = ask(&server, "POST", change, Some("\"0-dead\""), body);
        assert_eq!((refused.status, refused.tag.as_ref()), (412, Some(&tag)), "{change}");
        assert_eq!(refused.body["code"], "precondition");
        assert_eq!(
            ask(&server, "POST", &format!("{change}?dry_run=1"), Some(&tag), body).status,
            200
        );
    }
    let refused = ask(&server, "POST", "/v1/reload", Some("\"9\""), "");
    assert_eq!((refused.status, refused.tag.as_deref()), (412, Some("\"1\"")));
    let refused = ask(&server, "POST", "/v1/drain", Some("7"), "");
    assert_eq!((refused.status, &refused.body["code"]), (400, &"if_match".into()));
    nothing_done(&server);
}

#[test]
fn of_two_changes_for_one_state_one_is_made() {
    let server = Running::start();
    let tag = ask(&server, "GET", WEB1, None, "").tag.unwrap();
    let change = format!("{WEB1}/weight");
    let made: Vec<_> = std::thread::scope(|scope| {
        let both: Vec<_> = ["7", "9"]
            .map(|weight| {
                let body = format!("{{\"weight\":\"{weight}\"}}");
                let (server, change, tag) = (&server, &change, &tag);
                scope.spawn(move || ask(server, "POST", change, Some(tag), &body))
            })
            .into_iter()
            .collect();
        both.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut statuses: Vec<_> = made.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
    let done = made.iter().find(|answer| answer.status == 200).unwrap();
    assert_eq!(ask(&server, "GET", WEB1, None, "").tag, done.tag, "it has the tag of the change");
    server.fake.elsewhere.store(true, Ordering::SeqCst);
}

#[test]
fn a_tag_changes_with_the_owner_and_with_orders_and_with_nothing_else() {
    let server = Running::start();
    let vip = || ask(&server, "GET", "/v1/vips/web", None, "");
    let before = vip();
    assert_eq!(before.tag.as_deref(), before.body["etag"].as_str());
    server.fake.changes.note();
    assert_eq!(vip().tag, before.tag);
    server.fake.elsewhere.store(true, Ordering::SeqCst);
    assert_ne!(vip().tag, before.tag);
    let node = || ask(&server, "GET", "/v1/nodes/lb1", None, "").tag;
    let before = node();
    server.fake.drained.store(true, Ordering::SeqCst);
    assert_ne!(node(), before);
    let before = node();
    server.fake.cordoned.store(true, Ordering::SeqCst);
    assert_ne!(node(), before);
}

#[test]
fn a_node_is_drained_by_itself_only() {
    let server = Running::start();
    let patch =
        |node: &str, body: &str| ask(&server, "PATCH", &format!("/v1/nodes/{node}"), None, body);
    let refused = patch("lb3", r#"{"drain":true}"#);
    assert_eq!((refused.status, &refused.body["code"]), (421, &"another_node".into()));
    assert_eq!(refused.body["fix"], "ask the agent of lb3, or run there: buoy drain");
    assert_eq!(patch("lb9", r#"{"drain":true}"#).status, 404);
    assert_eq!(patch("lb1", "{}").body["code"], "nothing");
    assert_eq!(patch("lb1", r#"{"cordon":1}"#).body["code"], "json");
    assert_eq!(patch("lb1", r#"{"drain":true,"cordon":true}"#).body["code"], "two_orders");
    assert_eq!(patch("lb1", r#"{"cordon":true,"for_ms":5}"#).body["code"], "not_of_it");
    assert_eq!(patch("lb1", r#"{"drain":false,"for_ms":5}"#).body["code"], "not_of_it");
    nothing_done(&server);
    let reply = patch("lb1", r#"{"drain":true,"reason":"disk"}"#);
    assert_eq!(reply.status, 200);
    assert!(reply.body["draining"].as_str().unwrap().starts_with("disk (by "));
    assert_eq!(patch("lb1", r#"{"drain":false}"#).status, 200);
    assert_eq!(server.fake.orders.lock().unwrap().len(), 2);
}

#[test]
fn a_node_is_cordoned_with_who_asked_and_shown_so_everywhere() {
    let server = Running::start();
    let patch = |query: &str, body: &str| {
        ask(&server, "PATCH", &format!("/v1/nodes/lb1{query}"), None, body).body
    };
    let would = patch("?dry_run=1", r#"{"cordon":true}"#)["would"][0].clone();
    let keeps = "lb1 keeps what it owns (1 VIP), and takes another only if no other node can";
    assert_eq!(would, keeps);
    let would = patch("?dry_run=1", r#"{"cordon":false}"#)["would"][0].clone();
    assert_eq!(would, "nothing: lb1 is not cordoned");
    nothing_done(&server);
    let reply = patch("", r#"{"cordon":true,"reason":"disk"}"#);
    let reason = reply["cordoned"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("disk (by "), "{reason}");
    assert_eq!((&reply["owned"], &reply["draining"]), (&1.into(), &serde_json::Value::Null));
    assert_eq!(*server.fake.orders.lock().unwrap(), [Order::Cordon { reason }]);
    let reply = patch("", r#"{"cordon":false,"reason":"new disk"}"#);
    assert_eq!(reply["cordoned"], serde_json::Value::Null);
    let orders = server.fake.orders.lock().unwrap().clone();
    let Some(Order::Uncordon { reason }) = orders.last() else { panic!("{orders:?}") };
    assert!(reason.starts_with("new disk (by "), "{reason}");
    server.fake.cordoned.store(true, Ordering::SeqCst);
    let get = |path: &str| ask(&server, "GET", path, None, "").body;
    assert_eq!(get("/v1/status")["cordoned"], "disk (by ann)");
    let member = get("/v1/nodes/lb1");
    assert_eq!(member["cordoned"], "disk (by ann)");
    assert_eq!(
        (&member["member"]["cordoned"], &member["member"]["state"]),
        (&true.into(), &"cordoned".into())
    );
    let other = get("/v1/nodes/lb3");
    assert_eq!(
        (&other["cordoned"], &other["member"]["cordoned"]),
        (&serde_json::Value::Null, &false.into())
    );
}

#[test]
fn backends_are_a_list_of_their_own() {
    let server = Running::start();
    let all = ask(&server, "GET", "/v1/backends", None, "").body;
    assert_eq!(all["backends"].as_array().unwrap().len(), 3);
    assert_eq!(ask(&server, "GET", WEB1, None, "").body, all["backends"][0]);
    assert_eq!(ask(&server, "GET", "/v1/services/web/backends/web9", None, "").status, 404);
}

#[test]
fn the_description_is_served() {
    let server = Running::start();
    let description = ask(&server, "GET", "/v1/openapi.json", None, "").body;
    assert_eq!(description["openapi"], "3.1.1");
    assert!(description["paths"]["/v1/nodes/{node}"]["patch"]["requestBody"].is_object());
}
