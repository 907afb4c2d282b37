//! The whole status, asked for again and again.

use super::*;

/// Status, tag and body.
fn ask(server: &Running, known: Option<&str>) -> (String, String, String) {
    let known = known.map_or_else(String::new, |tag| format!("if-none-match: {tag}\r\n"));
    let answer = server.raw(&format!("GET /v1/status HTTP/1.0\r\n{known}\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().to_owned();
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    (status, tag.to_owned(), body.to_owned())
}

#[test]
fn whoever_knows_the_status_is_told_so_until_something_happens() {
    let server = Running::start();
    let (status, tag, body) = ask(&server, None);
    assert_eq!(status, "200");
    // This loop's clock stands still, so that its host's seems to be set each half second.
    let until = std::time::Instant::now() + Duration::from_secs(5);
    let mut tag = tag;
    while ask(&server, Some(&tag)).0 != "304" && std::time::Instant::now() < until {
        tag = ask(&server, None).1;
    }
    assert!(tag.starts_with("W/\"") && tag.ends_with('"'), "{tag}");
    let first: ClusterStatus = serde_json::from_str(&body).unwrap();
    assert_eq!(first.vips.len(), 2);
    for known in ["*", &format!("\"other\", {tag}, \"x\"")] {
        let (status, _, body) = ask(&server, Some(known));
        assert!(status == "304" && body.is_empty() || known != "*", "{known}: {status}");
    }
    let order = || {
        let request = buoy_api::BackendOrderRequest::default();
        let place = ("web:443/tcp", "web1");
        drop(server.client().order_backend(place, "disable", &request).unwrap());
    };
    let happens: [(&str, &dyn Fn()); 4] = [
        ("a record", &|| server.fake.happens(Fact::Undrained { reason: "x".into() })),
        ("an order", &|| server.fake.drained.store(true, Ordering::SeqCst)),
        ("an owner", &|| server.fake.elsewhere.store(true, Ordering::SeqCst)),
        ("a backend", &order),
    ];
    let mut known = tag;
    for (what, happens) in happens {
        happens();
        let (status, tag, body) = ask(&server, Some(&known));
        assert_eq!((status.as_str(), tag == known), ("200", false), "{what}");
        assert!(!body.is_empty(), "{what}");
        known = tag;
    }
}
