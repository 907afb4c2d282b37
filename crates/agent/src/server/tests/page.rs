//! The page, as a browser gets it.

use super::*;

#[test]
fn the_page_is_served_with_its_policy_and_only_once_when_it_has_not_changed() {
    let server = Running::start();
    let index = server.raw("GET / HTTP/1.0\r\n\r\n");
    assert!(index.starts_with("HTTP/1.0 200") && index.contains("<title>"), "{index}");
    let policy = "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'";
    assert!(index.contains(policy), "{index}");
    let tag = index.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag");
    let again = server.raw(&format!("GET / HTTP/1.0\r\nif-none-match: {tag}\r\n\r\n"));
    assert!(again.contains(" 304 ") && !again.contains("<title>"), "{again}");
    let script = server.raw("GET /page/page.js HTTP/1.0\r\n\r\n");
    assert!(script.contains("content-type: text/javascript"), "{script}");
    assert!(server.raw("GET /page/none.js HTTP/1.0\r\n\r\n").contains(" 404 "));
}
