//! Waiting for news, and following them.

use super::changes::WATCHERS_MAX;
use super::*;
use std::io::BufRead as _;
use std::io::BufReader;
use std::time::Instant as Clock;

const SOON: Duration = Duration::from_secs(5);

/// A stream as any client reads it.
struct Stream(BufReader<UnixStream>);

impl Stream {
    fn open(server: &Running, target: &str, last: Option<u64>) -> Self {
        let mut stream = UnixStream::connect(&server.path).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let last = last.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
        let head = format!("GET {target} HTTP/1.0\r\naccept: text/event-stream\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut this = Self(BufReader::new(stream));
        let head = this.lines();
        assert!(head.contains(" 200 ") && head.contains("text/event-stream"), "{head}");
        this
    }

    /// All lines until an empty one.
    fn lines(&mut self) -> String {
        let mut all = String::new();
        loop {
            let before = all.len();
            assert_ne!(self.0.read_line(&mut all).unwrap(), 0, "it ends with {all:?}");
            if all[before..].trim().is_empty() {
                return all;
            }
        }
    }

    fn event(&mut self) -> (u64, String, serde_json::Value) {
        let text = self.lines();
        let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let data = serde_json::from_str(of("data: ")).unwrap();
        (of("id: ").parse().unwrap(), of("event: ").into(), data)
    }
}

fn taken() -> Fact {
    Fact::OwnerHeard { node: NodeId::of("lb3"), epoch: Epoch(8) }
}

fn json(server: &Running, target: &str) -> serde_json::Value {
    let answer = server.raw(&format!("GET {target} HTTP/1.0\r\n\r\n"));
    serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
}

#[test]
fn a_question_waits_for_news_and_no_longer_than_it_says() {
    let server = Running::start();
    for list in [
        "status",
        "cluster",
        "nodes",
        "nodes/lb2",
        "vips",
        "vips/web",
        "services",
        "failovers",
        "budget",
    ] {
        let known = json(&server, &format!("/v1/{list}"))["revision"].as_u64().unwrap();
        // The first look of all finds something that was not known.
        let known = json(&server, &format!("/v1/{list}?wait=1s&since={known}"))["revision"]
            .as_u64()
            .unwrap();
        let began = Clock::now();
        let same = json(&server, &format!("/v1/{list}?wait=60ms&since={known}"));
        assert_eq!(same["revision"], known, "{list}");
        assert!(Duration::from_millis(60) <= began.elapsed(), "{list} waited");
        let target = format!("/v1/{list}?wait=60s&since={known}");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| json(&server, &target)["revision"].as_u64().unwrap());
            std::thread::sleep(Duration::from_millis(20));
            server.fake.happens(taken());
            assert!(known < waiting.join().unwrap(), "{list}");
        });
        let old = json(&server, &format!("/v1/{list}?wait=60s&since=3"));
        assert_ne!(old["revision"], 3, "{list}: what is old already is answered at once");
    }
}

#[test]
fn lists_of_what_is_configured_and_single_things_are_waited_for_and_followed_too() {
    let server = Running::start();
    for (target, name) in [
        ("config", "config"),
        ("config/values", "values"),
        ("config/history", "history"),
        ("config/vips", "vips"),
        ("reservations", "reservations"),
        ("drills", "drills"),
        ("services/web", "service"),
        ("services/web/backends/web1", "backend"),
    ] {
        let target = format!("/v1/{target}");
        let ask = |query: &str| server.raw(&format!("GET {target}{query} HTTP/1.0\r\n\r\n"));
        let revision = |answer: &str| -> u64 {
            let line = answer.lines().find_map(|line| line.strip_prefix("buoy-revision: "));
            line.unwrap_or_else(|| panic!("{target}: {answer}")).parse().unwrap()
        };
        let known = revision(&ask("?wait=50ms"));
        let mut stream = Stream::open(&server, &target, Some(known - 1));
        let (first, said, plain) = stream.event();
        assert_eq!((said.as_str(), first), (name, known), "{target}");
        assert_eq!(plain, json(&server, &target), "{target}: the stream tells the same");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| revision(&ask(&format!("?wait=60s&since={known}"))));
            std::thread::sleep(Duration::from_millis(20));
            server.fake.happens(taken());
            assert!(known < waiting.join().unwrap(), "{target} waits");
        });
        assert!(known < stream.event().0, "{target} is followed");
    }
}

#[test]
fn events_are_waited_for_one_by_one_and_of_one_vip() {
    let server = Running::start();
    let all = json(&server, "/v1/events");
    let seqs: Vec<_> =
        all["events"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [5, 6]);
    assert_eq!(json(&server, "/v1/events?since=5")["events"][0]["kind"], "acquired");
    let known = all["revision"].as_u64().unwrap();
    let none = json(&server, &format!("/v1/events?wait=50ms&since={known}"));
    assert_eq!(none["events"].as_array().unwrap().len(), 0);
    let target = format!("/v1/events?wait=60s&vip=web&since={known}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| json(&server, &target));
        // Something else changes: that is no news of web.
        server.fake.changes.note();
        server.fake.happens(taken());
        let news = waiting.join().unwrap();
        assert_eq!(news["events"].as_array().unwrap().len(), 1, "{news}");
        assert_eq!(news["events"][0]["kind"], "owner_heard");
    });
}

#[test]
fn a_stream_tells_what_holds_now_and_then_every_change() {
    let server = Running::start();
    let mut stream = Stream::open(&server, "/v1/status", None);
    let (first, name, status) = stream.event();
    assert_eq!((name.as_str(), &status["node"]), ("status", &serde_json::json!("lb1")));
    server.fake.happens(taken());
    let (second, _, status) = stream.event();
    assert!(first < second, "{first} {second}");
    assert_eq!(status["events"].as_array().unwrap().len(), 3);
    // Nothing is recorded of it: it is looked for.
    server.fake.drained.store(true, Ordering::SeqCst);
    loop {
        let (_, _, status) = stream.event();
        if status["draining"] == "patching (by ann)" {
            break;
        }
    }
    server.fake.gone.store(true, Ordering::SeqCst);
    let (_, name, problem) = stream.event();
    assert_eq!((name.as_str(), &problem["code"]), ("problem", &serde_json::json!("loop_gone")));
}

#[test]
fn a_reader_of_records_gets_each_once_and_hears_of_those_that_are_forgotten() {
    let server = Running::start();
    let mut stream = Stream::open(&server, "/v1/events?n=1", None);
    assert_eq!(stream.event().0, 6, "the latest first");
    server.fake.happens(taken());
    server.fake.happens(taken());
    let (first, _, _) = stream.event();
    let (second, name, event) = stream.event();
    assert_eq!((name.as_str(), &event["kind"]), ("event", &serde_json::json!("owner_heard")));
    assert!(first < second);
    let mut again = Stream::open(&server, "/v1/events", Some(first));
    assert_eq!(again.event().0, second, "only what came after");
    let mut late = Stream::open(&server, "/v1/events?vip=web", Some(2));
    assert_eq!((late.event().1.as_str(), late.event().0), ("gap", 6));
}

#[test]
fn the_client_follows_and_every_asks_again() {
    let server = Running::start();
    let mut seen = 0;
    let follow = server.client().follow_status(Duration::from_secs(1), |status| {
        assert_eq!(status.unwrap().node, "lb1");
        seen += 1;
        seen < 3
    });
    follow.unwrap();
    let known = server.client().events(1).unwrap().revision;
    server.fake.happens(taken());
    let mut kinds = Vec::new();
    let follow = server.client().follow_events(Some("10.0.0.100"), known, |event| {
        kinds.push(event.kind);
        false
    });
    follow.unwrap();
    assert_eq!(kinds, ["owner_heard"]);
    let refused = server.client().follow_events(Some("wep"), known, |_| true);
    assert_eq!(problem(refused).code, "unknown_vip");
}

#[test]
fn watchers_take_no_place_from_others_and_end_with_the_agent() {
    let server = Running::start();
    let mut stream = Stream::open(&server, "/v1/vips", None);
    stream.event();
    let places: Vec<_> = std::iter::from_fn(|| server.fake.changes.watch()).collect();
    assert_eq!(places.len(), WATCHERS_MAX - 1, "one has the stream");
    for question in ["GET /v1/status?wait=1s", "GET /v1/events?wait=1s"] {
        let answer = server.raw(&format!("{question} HTTP/1.0\r\n\r\n"));
        assert!(answer.contains(" 503 ") && answer.contains("retry-after: 5"), "{answer}");
        assert!(answer.contains("\"watchers\""), "{answer}");
    }
    assert!(server.client().status().is_ok(), "who does not wait is answered");
    drop(places);
    let began = Clock::now();
    drop(server);
    assert!(began.elapsed() < Duration::from_secs(2), "nobody waits for the stream to end");
}

#[test]
fn how_well_each_vip_kept_its_promise_is_told_against_the_bound() {
    let server = Running::start();
    let told = json(&server, "/v1/budget");
    assert_eq!((&told["node"], &told["term_ms"]), (&"lb1".into(), &50.0.into()));
    // The longest term, a 64th of it and a heartbeat.
    let timing = server.fake.desired().timing;
    let longest = timing.lease_max.as_secs_f64() * 1000.0;
    let bound = longest + longest / 64.0 + timing.heartbeat.as_secs_f64() * 1000.0;
    assert!((told["bound_ms"].as_f64().unwrap() - bound).abs() < 0.001, "{told}");
    let vip = |name: &str| {
        let vips = told["vips"].as_array().unwrap();
        vips.iter().find(|vip| vip["vip"] == name).unwrap().clone()
    };
    let web = vip("web");
    assert_eq!((&web["availability"], &web["unserved_ms"]), (&0.999.into(), &1000.0.into()));
    assert_eq!((&web["slack_ms"], &web["slack_least_ms"]), (&31.0.into(), &12.0.into()));
    assert_eq!((&web["unknown"], &web["owner"]), (&serde_json::Value::Null, &"lb1".into()));
    let db = vip("db");
    assert!(db["unknown"].as_str().unwrap().contains("VRRP"), "{db}");
    assert_eq!(db["availability"], serde_json::Value::Null);
}

#[test]
fn failovers_are_told_with_their_phases_and_as_a_table() {
    let server = Running::start();
    server.fake.happens(Fact::Served {
        epoch: Epoch(7),
        detect: Duration::from_millis(37),
        decide: Duration::from_millis(1),
        address: Duration::from_millis(2),
        announce: Duration::from_millis(3),
        first_packet: None,
    });
    let told = json(&server, "/v1/failovers?vip=web");
    let failover = &told["failovers"][0];
    assert_eq!((&failover["epoch"], &failover["vip"]), (&7.into(), &"web".into()));
    assert_eq!(failover["cause"], "lb2 was silent for 37 ms");
    assert_eq!(failover["phases"]["address_ms"], 2.0);
    assert_eq!(json(&server, "/v1/failovers?n=0")["failovers"], serde_json::json!([]));
    for request in [
        "GET /v1/failovers?format=csv HTTP/1.0\r\n\r\n",
        "GET /v1/failovers HTTP/1.0\r\naccept: text/csv\r\n\r\n",
    ] {
        let answer = server.raw(request);
        assert!(answer.contains("content-type: text/csv"), "{answer}");
        assert!(
            answer.contains(r#""lb1","web",7,"lb2 was silent for 37 ms",2,37,1,2,3,"#),
            "{answer}"
        );
    }
}

#[test]
fn ready_is_who_answers_and_votes() {
    let server = Running::start();
    assert!(server.raw("GET /readyz HTTP/1.0\r\n\r\n").ends_with("ready\n"));
    server.fake.gone.store(true, Ordering::SeqCst);
    assert!(server.raw("GET /v1/readyz HTTP/1.0\r\n\r\n").contains("loop_gone"));
}

#[test]
fn one_node_is_told_with_what_it_owns_and_could_take() {
    let server = Running::start();
    let node = json(&server, "/v1/nodes/lb3");
    assert_eq!(
        (&node["member"]["name"], &node["could_take"]),
        (&"lb3".into(), &serde_json::json!(["web"]))
    );
    assert_eq!(json(&server, "/v1/nodes/lb1")["owns"], serde_json::json!(["web"]));
    assert_eq!(json(&server, "/v1/nodes/lb9")["code"], "unknown_node");
    let cluster = json(&server, "/v1/cluster");
    assert_eq!((&cluster["vips"], &cluster["unowned"]), (&2.into(), &serde_json::json!(["db"])));
    assert_eq!(cluster["other_digests"], serde_json::json!(["lb3"]));
}
