//! Who asks, and the support archive, which a child of the agent writes.

use super::*;
use std::net::Shutdown;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: buoy\r\nconnection: close\r\n\r\n")
}

#[test]
fn whoever_asks_is_told_who_he_is_and_what_he_may_do() {
    let server = Running::start();
    let me = server.client().me().unwrap();
    assert_eq!((me.node.as_str(), me.by.as_str(), me.role.as_str()), ("lb1", "kernel", "admin"));
    assert_eq!(me.uid, Some(nix::unistd::getuid().as_raw()));
    assert_eq!(me.may.len(), 3);
    let beside = Client::connect(server.path.with_file_name("ro.sock")).unwrap().me().unwrap();
    assert_eq!((beside.role.as_str(), beside.name), ("read", me.name));
    assert_eq!(beside.may, me.may[..1]);
}

#[test]
fn a_support_archive_is_what_its_maker_writes_and_for_admins_only() {
    let server = Running::start();
    let makes = |script: &str| *server.fake.dump.lock().unwrap() = script.to_owned();
    makes("printf all-of-it");
    let answer = server.raw(&get("/v1/support"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("content-type: application/gzip"), "{answer}");
    assert!(answer.contains("filename=\"buoy-support-lb1.tar.gz\""), "{answer}");
    assert!(answer.contains("all-of-it") && answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    makes("printf half-of-it; exit 3");
    let answer = server.raw(&get("/v1/support"));
    assert!(answer.contains("half-of-it") && !answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    let mut beside = UnixStream::connect(server.path.with_file_name("ro.sock")).unwrap();
    beside.write_all(get("/v1/support").as_bytes()).unwrap();
    let mut answer = String::new();
    beside.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("read_only"), "{answer}");
}

#[test]
fn one_support_archive_is_made_at_a_time_and_ends_when_nobody_takes_it() {
    let server = Running::start();
    let makes = |script: &str| *server.fake.dump.lock().unwrap() = script.to_owned();
    makes("printf begun; exec sleep 600");
    let mut first = UnixStream::connect(&server.path).unwrap();
    first.write_all(get("/v1/support").as_bytes()).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"begun\r\n") {
        let mut byte = [0];
        first.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    makes("printf done");
    let refused = server.raw(&get("/v1/support"));
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("\"busy\""), "{refused}");
    first.shutdown(Shutdown::Both).unwrap();
    drop(first);
    let ends = (0..1_000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        server.raw(&get("/v1/support")).contains("done")
    });
    assert!(ends, "its maker is ended when the client has gone");
}
