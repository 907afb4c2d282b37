//! Holds the agent to its own description: what it says of writes and of lists is tried on each of them.

use super::*;
use crate::edits::tests::{edits, plain};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};

/// A file that has what the fake serves.
const FILE: &str = r#"cluster = "prod"
peers = { lb1 = "10.0.0.11", lb2 = "10.0.0.12", lb3 = "10.0.0.13" }
witness = { w1 = "10.0.0.14" }
secret = "file:cluster.key"
heartbeat = "10ms"

[[pool]]
name = "more"
addresses = "10.0.0.150-159/24"
auto_assign = true

[[reservation]]
address = "10.0.0.155"
for = "printer"

[[vip]]
name = "web"
address = "10.0.0.100/24"

[[vip.service]]
port = "443/tcp"
backends = ["web1 10.0.0.21:8443", "web2 10.0.0.22:8443", "web3 10.0.0.23:8443"]
"#;

const SERVICE: &str = "/v1/services/{service}";
const BACKEND: &str = "/v1/services/{service}/backends/{backend}";
const WEB: &str = "/v1/services/web:443%2Ftcp";
const NEW: &str = "/v1/services/web:81%2Ftcp";

/// Every write of the description, with something that it takes; one after the other they can all be done.
#[rustfmt::skip]
const WRITES: [(&str, &str, &str, &str); 30] = [
    ("post", "/v1/vips/{vip}/move", "/v1/vips/web/move", r#"{"to":"lb3"}"#),
    ("post", "/v1/vips/{vip}/hold", "/v1/vips/web/hold", ""),
    ("post", "/v1/vips/{vip}/release", "/v1/vips/web/release", ""),
    ("post", "/v1/vips/{vip}/announce", "/v1/vips/web/announce", ""),
    ("post", "/v1/drain", "/v1/drain", ""),
    ("post", "/v1/undrain", "/v1/undrain", ""),
    ("patch", "/v1/nodes/{node}", "/v1/nodes/lb1", r#"{"cordon":true}"#),
    ("post", "/v1/reload", "/v1/reload", ""),
    ("post", "/v1/services/{service}/backends/{backend}/drain", "/v1/services/web/backends/web1/drain", ""),
    ("post", "/v1/services/{service}/backends/{backend}/disable", "/v1/services/web/backends/web1/disable", ""),
    ("post", "/v1/services/{service}/backends/{backend}/enable", "/v1/services/web/backends/web1/enable", ""),
    ("post", "/v1/services/{service}/backends/{backend}/ready", "/v1/services/web/backends/web1/ready", ""),
    ("post", "/v1/services/{service}/backends/{backend}/weight", "/v1/services/web/backends/web1/weight", r#"{"weight":"7"}"#),
    ("post", "/v1/config/validate", "/v1/config/validate", r#"{"text":"OTHER"}"#),
    ("post", "/v1/config/diff", "/v1/config/diff", r#"{"text":"OTHER"}"#),
    ("post", "/v1/config/apply", "/v1/config/apply", r#"{"text":"OTHER"}"#),
    ("post", "/v1/config/rollback", "/v1/config/rollback", r#"{"revision":0}"#),
    ("post", "/v1/vips", "/v1/vips", r#"{"name":"new","address":"10.0.0.101/24"}"#),
    ("put", "/v1/vips/{vip}", "/v1/vips/new", r#"{"address":"10.0.0.102/24"}"#),
    ("patch", "/v1/vips/{vip}", "/v1/vips/new", r#"{"failback":"30s"}"#),
    ("delete", "/v1/vips/{vip}", "/v1/vips/new", ""),
    ("put", SERVICE, NEW, r#"{"backends":["10.0.0.31:81"]}"#),
    ("patch", SERVICE, WEB, r#"{"mode":"proxy"}"#),
    ("put", BACKEND, "/v1/services/web:443%2Ftcp/backends/web4", r#"{"address":"10.0.0.24:8443"}"#),
    ("patch", BACKEND, "/v1/services/web:443%2Ftcp/backends/web1", r#"{"weight":3}"#),
    ("delete", BACKEND, "/v1/services/web:443%2Ftcp/backends/web2", ""),
    ("delete", SERVICE, WEB, ""),
    ("post", "/v1/reservations", "/v1/reservations", r#"{"pool":"more","for":"camera"}"#),
    ("delete", "/v1/reservations/{address}", "/v1/reservations/10.0.0.155", ""),
    // It goes on by itself, and orders moves.
    ("post", "/v1/drills", "/v1/drills", r#"{"vip":"web"}"#),
];
/// They answer what would be, and change nothing.
const REHEARSALS: [&str; 2] = ["/v1/config/diff", "/v1/config/validate"];

/// An agent that keeps edits for itself.
struct Keeping {
    server: Running,
    // What its store runs on, and where it is; they go after the server.
    _runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl Keeping {
    fn start() -> Self {
        let (folder, runtime) =
            (tempfile::tempdir().unwrap(), tokio::runtime::Runtime::new().unwrap());
        let edits = runtime.block_on(edits(&folder, FILE));
        let desired = Arc::new(edits.begin(plain(FILE)).desired);
        let server = Running::over(Fake { edits, desired, ..Fake::default() });
        Self { server, _runtime: runtime, _folder: folder }
    }

    /// Everything that a write can do.
    fn done(&self) -> String {
        let fake = &self.server.fake;
        let backends = ["web1", "web2", "web3"].map(|name| fake.ordered(name));
        let drills = self.server.client().drills().unwrap().drills.len();
        let orders = fake.orders.lock().unwrap().clone();
        let reloads = fake.reloads.load(Ordering::SeqCst);
        format!("{:?}", (orders, backends, drills, reloads, fake.edits.revision()))
    }
}

/// Status and body of an answer by one of the sockets.
fn ask(socket: &Path, method: &str, target: &str, headers: &str, body: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let (method, length) = (method.to_uppercase(), body.len());
    let head = format!("{method} {target} HTTP/1.0\r\n{headers}content-length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

fn description(server: &Running) -> serde_json::Map<String, Value> {
    let text = server.client().text("/v1/openapi.json").unwrap();
    let mut described: Value = serde_json::from_slice(&text).unwrap();
    let Value::Object(paths) = described["paths"].take() else { panic!("{described}") };
    paths
}

fn writes() -> impl Iterator<Item = (&'static str, &'static str, &'static str, String)> {
    let other = serde_json::to_string(&FILE.replace("10.0.0.23", "10.0.0.33")).unwrap();
    WRITES.into_iter().map(move |(method, path, target, body)| {
        (method, path, target, body.replace("\"OTHER\"", &other))
    })
}

#[test]
fn every_write_of_the_description_is_tried_below() {
    let described = description(&Running::start());
    let of = |(path, operations): (&String, &Value)| -> Vec<(String, String)> {
        let methods = operations.as_object().unwrap().keys().filter(|method| *method != "get");
        methods.map(|method| (method.clone(), path.clone())).collect()
    };
    let all: BTreeSet<_> = described.iter().flat_map(of).collect();
    let tried: BTreeSet<_> =
        writes().map(|(method, path, ..)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(all, tried, "give the new one something to take");
}

#[test]
fn a_write_that_is_dry_or_for_another_state_or_by_the_socket_for_questions_does_nothing() {
    let agent = Keeping::start();
    let server = &agent.server;
    *server.fake.way.lock().unwrap() = Ok(Done { status: 200, tag: None, body: "{}".into() });
    let questions = server.path.with_file_name("ro.sock");
    for (method, path, target, body) in writes() {
        let what = format!("{method} {target}");
        let before = agent.done();
        let asked = |socket: &Path, query: &str, headers: &str| {
            ask(socket, method, &format!("{target}{query}"), headers, &body)
        };
        let refused = asked(&questions, "", "");
        assert_eq!((refused.0, &refused.1["code"]), (403, &"read_only".into()), "{what}");
        assert_eq!(agent.done(), before, "{what} by the socket for questions");
        if path != "/v1/config/validate" {
            let (status, dry) = asked(&server.path, "?dry_run=1", "");
            let is_dry =
                [&dry["dry_run"], &dry["edit"]["dry_run"]].iter().any(|said| **said == true);
            assert!(status == 200 && is_dry, "{what}: {status} {dry}");
            assert_eq!(agent.done(), before, "{what}, dry");
            let (status, other) = asked(&server.path, "", "if-match: \"0-dead\"\r\n");
            assert_eq!(status, 412, "{what}: {other}");
            let (status, mistaken) = asked(&server.path, "?dry_run=perhaps", "");
            assert_eq!((status, &mistaken["code"]), (400, &"query".into()), "{what}: {mistaken}");
            assert_eq!(agent.done(), before, "{what}, refused");
        }
        // The same without all that is done: what is compared above would have shown it.
        let (status, answer) = asked(&server.path, "", "");
        assert_eq!(status, 200, "{what}: {answer}");
        let is_rehearsal = REHEARSALS.contains(&path);
        assert_eq!(agent.done() == before, is_rehearsal, "{what}: {answer}");
    }
}

/// Lists of the description, about something that there is, but records, which are told one by one.
fn lists(server: &Running) -> Vec<String> {
    let names = [
        ("{vip}", "web"),
        ("{node}", "lb2"),
        ("{service}", "web"),
        ("{backend}", "web1"),
        ("{pool}", "more"),
    ];
    let described = description(server);
    let is_list = |operations: &Value| {
        let parameters = operations["get"]["parameters"].as_array();
        parameters.into_iter().flatten().any(|parameter| parameter["name"] == "wait")
    };
    let lists = described.iter().filter(|(path, all)| is_list(all) && *path != "/v1/events");
    lists
        .map(|(path, _)| names.iter().fold(path.clone(), |path, (name, is)| path.replace(name, is)))
        .collect()
}

/// The number of the first event of a stream that goes on from there.
fn followed(server: &Running, target: &str, last: u64, meanwhile: impl FnOnce()) -> u64 {
    let mut stream = UnixStream::connect(&server.path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = "accept: text/event-stream\r\nlast-event-id:";
    stream.write_all(format!("GET {target} HTTP/1.0\r\n{head} {last}\r\n\r\n").as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains(" 200 "), "{target}");
    meanwhile();
    let id = lines.find_map(|line| line.strip_prefix("id: ").map(str::to_owned));
    id.expect("it goes on").parse().unwrap()
}

#[test]
fn every_list_of_the_description_is_followed_from_where_its_reader_left_off() {
    let agent = Keeping::start();
    let server = &agent.server;
    let lists = lists(server);
    assert!(20 < lists.len(), "{lists:?}");
    let records = server.raw("GET /v1/events HTTP/1.0\r\n\r\n");
    assert!(records.contains("\r\nbuoy-revision: "), "{records}");
    for target in lists {
        let known = || -> u64 {
            let answer = server.raw(&format!("GET {target}?wait=20ms HTTP/1.0\r\n\r\n"));
            let line = answer.lines().find_map(|line| line.strip_prefix("buoy-revision: "));
            line.unwrap_or_else(|| panic!("{target}: {answer}")).parse().unwrap()
        };
        // The first look of all finds something that was not known.
        known();
        let last = known();
        assert_eq!(followed(server, &target, last - 1, || {}), last, "{target}: it has missed one");
        let happens = || server.fake.happens(Fact::Undrained { reason: "x".into() });
        let next = followed(server, &target, last, happens);
        assert!(last < next, "{target} is told again what it knows");
    }
}
