//! That to ask is only to ask.

use super::*;

/// A path of the description, about something that there is.
fn about_something(path: &str) -> String {
    let names = [
        ("{vip}", "web"),
        ("{node}", "lb1"),
        ("{service}", "web:443-tcp"),
        ("{backend}", "web1"),
        ("{verb}", "drain"),
        ("{pool}", "more"),
        ("{address}", "10.0.0.200"),
        ("{name}", "index.html"),
    ];
    names.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
}

#[test]
fn no_question_changes_anything_whatever_it_is_about() {
    let server = Running::start();
    "echo dump".clone_into(&mut server.fake.dump.lock().unwrap());
    let text = server.client().text("/v1/openapi.json").unwrap();
    let described: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let config = || server.client().text("/v1/config").unwrap();
    let history = || server.client().text("/v1/config/history").unwrap();
    let before = (config(), history(), server.fake.changes.now());
    let (mut answered, mut refused) = (0, 0);
    for (path, operations) in described["paths"].as_object().unwrap() {
        let path = about_something(path);
        assert!(!path.contains('{'), "{path}");
        for query in ["", "?dry_run=1", "?from=10.0.0.9:1&to=10.0.0.100:443&reason=x&force=1"] {
            // A body makes no order of a question.
            let body = r#"{"reason":"x","to":"lb2"}"#;
            let length = body.len();
            let head = format!("GET {path}{query} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n");
            let answer = server.raw(&format!("{head}{body}"));
            let is_question = operations.get("get").is_some();
            let is_refused = answer.contains(" 405 ");
            assert_eq!(is_refused, !is_question, "{path}{query}: {answer}");
            answered += usize::from(answer.contains(" 200 "));
            refused += usize::from(is_refused);
        }
    }
    assert!(answered > 60 && refused > 15, "{answered} were answered, {refused} are no questions");
    assert_eq!((config(), history(), server.fake.changes.now()), before);
    assert!(server.fake.orders.lock().unwrap().is_empty());
    assert_eq!(server.fake.reloads.load(Ordering::SeqCst), 0);
    let ordered = ["web1", "web2", "web3"].map(|name| server.fake.ordered(name));
    assert_eq!(ordered, [None, None, None]);
    for (node, errand) in server.fake.sent.lock().unwrap().iter() {
        assert_eq!(errand.method, "GET", "{node} is only asked too");
    }
}
