//! The configuration over HTTP: what is asked, tried and refused.

use super::*;
use buoy_api::{ConfigReply, ConfigRequest, RollbackRequest};

/// Of the fake's cluster, with a VIP of its own.
pub(super) const FILE: &str = r#"cluster = "prod"
peers = { lb1 = "10.0.0.11", lb2 = "10.0.0.12", lb3 = "10.0.0.13" }
witness = { w1 = "10.0.0.14" }
secret = "file:cluster.key"
heartbeat = "10ms"

[[vip]]
name = "shop"
address = "10.0.0.150/24"
[[vip.service]]
port = "80/tcp"
backends = ["10.0.0.21:80"]
"#;

fn write(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.0\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

#[test]
fn the_configuration_is_a_text_with_a_tag_and_origins() {
    let server = Running::start();
    let answer = server.raw("GET /v1/config HTTP/1.0\r\n\r\n");
    assert!(answer.contains("etag: \"0\"\r\n"), "{answer}");
    let config: ConfigReply = server.client().config().unwrap();
    assert_eq!((config.text.as_str(), config.base.path.as_str()), (FILE, "buoy.toml"));
    assert_eq!(config.entries.len(), 6, "{:?}", config.entries);
    let vip = server.raw("GET /v1/config/vips/10.0.0.150 HTTP/1.0\r\n\r\n");
    assert!(vip.contains("\"name\":\"shop\""), "{vip}");
    let all = server.raw("GET /v1/config/vips HTTP/1.0\r\n\r\n");
    assert!(all.contains("{\"shop\":{"), "{all}");
    assert!(server.client().config_history().unwrap().revisions.is_empty());
}

#[test]
fn an_edit_of_an_object_has_its_reason_in_the_query_and_any_other_in_its_body() {
    let server = Running::start();
    let long = format!("/v1/vips/shop?reason={}", "x".repeat(201));
    let backend = "/v1/services/shop:80%2Ftcp/backends/10.0.0.21:80?dry_run=1&reason=old";
    for (method, path, body, status) in [
        ("PATCH", "/v1/vips/shop?dry_run=1&reason=a+test", "{\"failback\":\"30s\"}", " 200 "),
        ("DELETE", "/v1/vips/shop?dry_run=1&reason=a%20test", "", " 200 "),
        // The query is right: it is the service that this agent has not.
        ("PATCH", backend, "{\"weight\":3}", " 404 "),
        ("PATCH", &long, "{\"failback\":\"30s\"}", " 400 "),
        ("PATCH", "/v1/vips/shop?why=a+test", "{\"failback\":\"30s\"}", " 400 "),
        ("POST", "/v1/config/apply?reason=why", "{\"text\":\"\"}", " 400 "),
    ] {
        let answer = server.raw(&write(method, path, "", body));
        assert!(answer.lines().next().is_some_and(|line| line.contains(status)), "{answer}");
    }
}

#[test]
fn a_write_is_tried_and_its_tag_and_body_are_held_against_the_rules() {
    let server = Running::start();
    let patch = "{\"failback\":\"30s\"}";
    let table = [
        (write("PATCH", "/v1/vips/shop?dry_run=1", "", patch), " 200 ", "+ failback"),
        (
            write("PATCH", "/v1/vips/shop?dry_run=1", "if-match: \"0\"\r\n", patch),
            " 200 ",
            "valid\":true",
        ),
        (write("PATCH", "/v1/vips/shop", "if-match: \"x\"\r\n", patch), " 412 ", "precondition"),
        (write("PATCH", "/v1/vips/shop?dry_run=maybe", "", patch), " 400 ", "query"),
        (write("PATCH", "/v1/vips/shop", "", patch), " 503 ", "a test has none"),
        (write("PATCH", "/v1/vips/shap", "", patch), " 404 ", "did you mean shop?"),
        (
            write("POST", "/v1/vips", "", "{\"name\":\"shop\",\"address\":\"10.0.0.1/24\"}"),
            " 409 ",
            "exists",
        ),
        (
            write("PUT", "/v1/vips/new?dry_run=1", "", "{\"address\":\"10.0.0.151/24\"}"),
            " 200 ",
            "vip new is new",
        ),
        (write("PUT", "/v1/vips/new", "", ""), " 400 ", "an object in braces is needed"),
        (write("POST", "/v1/config/validate", "", ""), " 400 ", "an object in braces is needed"),
        (
            write("PUT", "/v1/vips/new?dry_run=1", "", "{\"address\":\"10.0.0.300/24\"}"),
            " 200 ",
            "valid\":false",
        ),
        (
            write("PUT", "/v1/vips/new", "", "{\"address\":\"10.0.0.300/24\"}"),
            " 422 ",
            "\"code\":\"config\"",
        ),
        (write("DELETE", "/v1/vips/shop?dry_run=1", "", ""), " 200 ", "\"- [[vip]]\""),
        (write("POST", "/v1/config/rollback", "", ""), " 400 ", "json"),
        (
            write("POST", "/v1/config/apply", "content-type: text/plain\r\n", "peers = 1"),
            " 422 ",
            "only_in_file",
        ),
        (
            write("POST", "/v1/config/validate", "content-type: text/plain\r\n", FILE),
            " 200 ",
            "valid\":true",
        ),
        (
            write("POST", "/v1/config/validate", "content-type: text/plain\r\n", "peers = 1"),
            " 200 ",
            "valid\":false",
        ),
    ];
    for (request, status, part) in table {
        let line = request.lines().next().unwrap_or_default().to_owned();
        let answer = server.raw(&request);
        assert!(answer.contains(status), "{line}: {answer}");
        assert!(answer.contains(part), "{line}: {answer}");
    }
    let refused = problem(
        server.client().config_rollback(&RollbackRequest { revision: 7, reason: None }, Some(0)),
    );
    assert_eq!(refused.code, "no_such_revision");
    let text = FILE.replace("10.0.0.21:80", "10.0.0.22:80");
    let tried = server.client().config_diff(&ConfigRequest { text, reason: None }).unwrap();
    assert!(tried.valid && tried.dry_run, "{tried:?}");
    assert!(tried.diff.iter().any(|line| line.starts_with('+') && line.contains("10.0.0.22:80")));
}

#[test]
fn a_backend_of_a_service_is_an_object_of_its_own() {
    let server = Running::start();
    // The fake serves what its file does not have: a service is found by what runs.
    let gone = server.raw(&write("DELETE", "/v1/services/web:443/backends/web1", "", ""));
    assert!(gone.contains(" 404 ") && gone.contains("change it in the file"), "{gone}");
    let unknown = server.raw(&write("PUT", "/v1/services/wob/backends/web1", "", "{}"));
    assert!(unknown.contains(" 404 ") && unknown.contains("unknown_service"), "{unknown}");
}

#[test]
fn a_service_is_an_object_of_its_own() {
    let server = Running::start();
    let body = "{\"backends\":[\"10.0.0.31:81\"]}";
    let new = "/v1/services/shop:81%2Ftcp";
    let table = [
        (write("PUT", &format!("{new}?dry_run=1&reason=more"), "", body), " 200 ", "+ port"),
        (
            write("PUT", &format!("{new}?dry_run=1"), "", "{\"backends\":[\"10.0.0.300:81\"]}"),
            " 200 ",
            "valid\":false",
        ),
        (
            write("PUT", "/v1/services/10.0.0.150:80%2Ftcp?dry_run=1", "if-match: \"0\"\r\n", body),
            " 200 ",
            "10.0.0.31:81",
        ),
        (write("PUT", new, "if-match: \"x\"\r\n", body), " 412 ", "precondition"),
        (write("PUT", new, "", body), " 503 ", "a test has none"),
        (write("PUT", new, "", ""), " 400 ", "an object in braces is needed"),
        (write("PUT", new, "", "{\"port\":\"82/tcp\"}"), " 422 ", "new port"),
        (write("PUT", "/v1/services/shap:81%2Ftcp", "", body), " 404 ", "did you mean shop?"),
        // Only a whole name says what a new one is called.
        (write("PUT", "/v1/services/shop:81", "", body), " 404 ", "unknown_service"),
        (write("PATCH", new, "", "{\"mode\":\"proxy\"}"), " 404 ", "unknown_service"),
        (write("DELETE", new, "", ""), " 404 ", "unknown_service"),
        // The fake serves what its file does not have: a service is found by what runs.
        (write("PATCH", "/v1/services/web:443", "", "{\"mode\":\"proxy\"}"), " 404 ", "web"),
        (write("DELETE", "/v1/services/web:443", "", ""), " 404 ", "web"),
        (write("GET", "/v1/config/services/web:443", "", ""), " 404 ", "change it in the file"),
        (write("GET", "/v1/config/services/wob", "", ""), " 404 ", "unknown_service"),
    ];
    for (request, status, part) in table {
        let line = request.lines().next().unwrap_or_default().to_owned();
        let answer = server.raw(&request);
        assert!(answer.contains(status), "{line}: {answer}");
        assert!(answer.contains(part), "{line}: {answer}");
    }
}
